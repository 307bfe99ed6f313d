"""What `fit` calls during a run: hooks for steps and epochs, and early stopping."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgraph._support.array_types import Float32
from mlgraph._support.attributes import spelled
from mlgraph._support.checks import one_of, real, truth, whole
from mlgraph.models.metrics import METRICS
from mlgraph.training.loop import Progress

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph
    from mlgraph.models.model import Model

MONITORED = ("validation_loss", "validation_accuracy", "epoch_loss", "epoch_accuracy")
"""Columns of the history that `EarlyStopping` can watch, beside those of metrics."""

VALIDATION = "validation_"


class Callback:
    """Base class of objects that `fit` calls during a run; override the hooks that you need.

    A hook may read the model, evaluate it and edit it. If it raises StopIteration, the run ends
    there, after the hooks of the other callbacks.

    A hook for steps makes each step a call of its own, which costs a fraction of a millisecond, many
    times the step of a small network. Without one, many steps are taken in one call.

    Examples
    --------
    >>> class Watch(mlgraph.Callback):
    ...     def on_epoch_end(self, progress):
    ...         print(progress.epoch, progress.model.n_edges)
    >>> net = mlgraph.Network(2, seed=0)
    >>> layer = net.add_layer(2, "softmax")
    >>> history = net.fit([[0.0, 1.0], [1.0, 0.0]], [0, 1], epochs=2, callbacks=[Watch()])
    0 4
    1 4
    """

    def on_train_begin(self, model: Model) -> None:
        """Called when all arguments of `fit` have been checked, before the first step.

        Also called when a run is resumed, before `load_state_dict`: `model.history` then has entries, and the
        model has what callbacks had edited before.
        """

    def on_step_end(self, progress: Progress) -> None:
        """Called after each step; `progress` is of kind "steps"."""

    def on_epoch_end(self, progress: Progress) -> None:
        """Called after each epoch and its validation; `progress` is of kind "epoch"."""

    def on_train_end(self, model: Model) -> None:
        """Called after the last step, also if a callback has ended the run, but not after an error or Ctrl-C."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint carries of this callback, for `load_state_dict` in the process that resumes the run.

        Override both to keep a state. It is asked for at the begin of a run with a checkpoint, between two steps
        whenever the checkpoint is written, and after `on_train_end`.

        Returns
        -------
        dict with string keys
            Of None, booleans, numbers, strings, arrays of booleans or numbers, and lists, tuples and dicts of
            these.

        Examples
        --------
        >>> class Lottery(mlgraph.Callback):
        ...     def __init__(self):
        ...         self.random, self.drawn = np.random.default_rng(0), []
        ...     def on_epoch_end(self, progress):
        ...         self.drawn.append(int(self.random.integers(49)))
        ...     def state_dict(self):
        ...         return {"random": self.random.bit_generator.state, "drawn": self.drawn}
        ...     def load_state_dict(self, state):
        ...         self.random.bit_generator.state, self.drawn = state["random"], state["drawn"]
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Called after `on_train_begin` when a run is resumed, with what `state_dict` returned then.

        Of a run that had finished, it is the only call.
        """


class EarlyStopping(Callback):
    """End a run when its results no longer improve, and take the parameters of the best epoch.

    An edit of the graph during the run, for example by a schedule that prunes, begins the count
    anew: networks of different numbers of edges are not compared. A checkpoint carries the count and
    the best parameters. During the run, the model in it is that of the last step.

    Parameters
    ----------
    monitor : str
        The column of `History` to watch: "validation_loss", "validation_accuracy", "epoch_loss",
        "epoch_accuracy", or ``validation_<name>`` for one of the `metrics` of `fit`.
    patience : int
        Number of epochs without an improvement after which the run ends.
    min_delta : float
        Least difference that counts as an improvement.
    mode : "min" or "max", optional
        Whether lower or higher numbers are better. Needed for a metric that is a function; by default
        lower losses and errors and higher accuracies and scores. NaN is never better.
    restore_best : bool
        Whether the model gets the parameters of the best epoch at the end of the run, whatever ends
        it. Else it keeps those of the last.

    Attributes
    ----------
    best_epoch : int or None
        The best epoch of the last run, counted from 0.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(200, 5))
    >>> net = mlgraph.Network(5, seed=0)
    >>> hidden, out = net.add_layer(50), net.add_layer(2, "softmax")
    >>> stop = mlgraph.EarlyStopping(patience=5)
    >>> history = net.fit(x, x[:, 0] * x[:, 1] > 0, epochs=1000, validation_split=0.2, callbacks=[stop])
    >>> len(history.epoch_loss) == stop.best_epoch + 6
    True
    >>> bool(stop.best_epoch == history.validation_loss.argmin())
    True
    """

    best_epoch: int | None
    _best: float
    _edits: int
    _graph: Graph | None
    _parameters: Float32 | None

    @spelled(restore_best_weights="restore_best")
    def __init__(
        self,
        monitor: str = "validation_loss",
        *,
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
    ) -> None:
        of_metric = isinstance(monitor, str) and monitor.startswith(VALIDATION)
        self.monitor = monitor if of_metric else one_of("monitor", monitor, MONITORED)
        name = self.monitor.removeprefix(VALIDATION)
        if mode is None:
            if self.monitor not in MONITORED and name not in METRICS:
                raise ValueError(f'mode: expected "min" or "max" to say which {name} is better')
            higher = METRICS[name].higher_is_better if name in METRICS else name.endswith("accuracy")
            self.mode = "max" if higher else "min"
        else:
            self.mode = one_of("mode", mode, ("min", "max"))
        self.patience = whole("patience", patience)
        self.min_delta = real("min_delta", min_delta, "a number from 0 on", 0.0, np.inf)
        self.restore_best = truth("restore_best", restore_best)
        self._graph = None
        self._forget()

    def on_train_begin(self, model: Model) -> None:
        """Forget the run before."""
        self._forget()
        self._graph = model.graph

    def on_epoch_end(self, progress: Progress) -> None:
        """Compare the epoch with the best one."""
        model, column = progress.model, progress.history[self.monitor]
        if model.graph.edits != self._edits:
            self._forget()
            self._edits = model.graph.edits
        value = float(column[-1]) * (-1 if self.mode == "max" else 1)
        if self.best_epoch is None or np.isnan(self._best) or value < self._best - self.min_delta:
            self.best_epoch, self._best = progress.epoch, value
            self._parameters = model.graph.get_parameters() if self.restore_best else None
        elif progress.epoch - self.best_epoch >= self.patience:
            raise StopIteration

    def on_train_end(self, model: Model) -> None:
        """Restore the best parameters."""
        if self._parameters is not None and model.graph.edits == self._edits:
            model.graph.set_parameters(self._parameters)
        self._parameters = self._graph = None

    def state_dict(self) -> dict[str, Any]:
        """The best epoch, its result and its parameters."""
        return {
            "best_epoch": self.best_epoch,
            "best": self._best,
            "edited": self._graph is None or self._graph.edits != self._edits,
            "parameters": self._parameters,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting from there."""
        self.best_epoch, self._best, self._parameters = state["best_epoch"], state["best"], state["parameters"]
        graph, given = self._graph, self._parameters
        fits = graph is not None and (given is None or given.shape == (graph.n_parameters,))
        self._edits = graph.edits if graph is not None and fits and not state["edited"] else -1

    def __repr__(self) -> str:
        options = ("patience", "min_delta", "mode", "restore_best")
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in options)
        return f"{type(self).__name__}({self.monitor!r}, {given})"

    def _forget(self) -> None:
        self.best_epoch = None
        self._best, self._edits = np.inf, -1
        self._parameters = None


def checked_callbacks(
    given: Any, metrics: Sequence[str] = (), *, validated: bool
) -> list[Callback | Callable[[Progress], Any]]:
    """The argument `callbacks` of `fit` as a list; TypeError or ValueError if it is something else."""
    if given is None:
        return []
    if not isinstance(given, Sequence):
        raise TypeError(f"callbacks: expected a list of callbacks or functions, got {type(given).__name__}")
    for each in given:
        if isinstance(each, type) or not (isinstance(each, Callback) or callable(each)):
            got = f"the class {each.__name__}" if isinstance(each, type) else type(each).__name__
            raise TypeError(f"callbacks: expected callbacks or functions, got {got}")
        if isinstance(each, Callback):
            _check_hooks(each)
        if has_state(each) and getattr(type(each), "load_state_dict", LOAD) is LOAD:
            raise TypeError(f"callbacks: {type(each).__name__} has state_dict but no load_state_dict, which it needs")
        if isinstance(each, EarlyStopping) and each.monitor.startswith("validation") and not validated:
            raise ValueError(
                f"callbacks: EarlyStopping watches {each.monitor}, which needs validation_data or validation_split"
            )
        watched = each.monitor if isinstance(each, EarlyStopping) else MONITORED[0]
        if watched not in MONITORED and (name := watched.removeprefix(VALIDATION)) not in metrics:
            raise ValueError(f"callbacks: EarlyStopping watches {watched}, which needs {name} among the metrics of fit")
    return list(given)


LOAD = Callback.load_state_dict


def has_state(callback: Any) -> bool:
    """Whether a checkpoint carries this callback: it has a `state_dict` of its own."""
    return getattr(type(callback), "state_dict", Callback.state_dict) is not Callback.state_dict


_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _check_hooks(callback: Callback) -> None:
    """TypeError for a hook of another library, such as Keras' ``on_epoch_end(self, epoch, logs=None)``."""
    for name in ("on_train_begin", "on_step_end", "on_epoch_end", "on_train_end"):
        function = getattr(type(callback), name)
        if function is getattr(Callback, name) or not inspect.isfunction(function):
            continue
        given = inspect.signature(function).parameters.values()
        if sum(parameter.kind in _BY_POSITION for parameter in given) > 2:
            wanted = list(inspect.signature(getattr(Callback, name)).parameters)[1]
            raise TypeError(f"callbacks: {type(callback).__name__}.{name}: expected one argument, {wanted}, after self")


def wants_each_step(callbacks: Sequence[Any]) -> bool:
    """Whether one of the callbacks has a hook for steps."""
    return any(isinstance(each, Callback) and type(each).on_step_end is not Callback.on_step_end for each in callbacks)


def call(callbacks: Sequence[Callback | Callable[[Progress], Any]], progress: Progress) -> bool:
    """Call all of them; return whether the run goes on."""
    goes_on = True
    for each in callbacks:
        try:
            if not isinstance(each, Callback):
                each(progress)
            elif progress.kind == "epoch":
                each.on_epoch_end(progress)
            else:
                each.on_step_end(progress)
        except StopIteration:
            goes_on = False
    return goes_on
