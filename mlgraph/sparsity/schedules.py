"""What a schedule is, which cuts and grows edges between the steps of training, and how `fit` runs it.

A schedule acts at evenly spaced moments of the training, the first time before the first step. Its
action depends only on the model, the seed, the number of the step and the progress of the training.
It has no state, so a run can resume at any step. `Schedule` is the base class, and `ScheduleRunner`
is what `fit` calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, fields
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float64
from mlgraph._support.checks import share, whole
from mlgraph.engine.losses import Objective
from mlgraph.models.model import Model

Sample = Callable[[int], tuple[Any, Any]]

SAMPLE_SIZE = 1024
"""Number of training examples from which a schedule estimates a gradient."""


@dataclass(frozen=True, repr=False)
class Schedule(ABC):
    """Base class of schedules; to write your own, derive from it and define `act`.

    Declare further arguments as fields of a ``@dataclass(frozen=True, repr=False)``: a checkpoint
    recognises its run by the repr. Each run works on its own copy of the schedule. Checkpoints do
    not hold what `act` stores in that copy. For a resumed run to equal an uninterrupted one, `act`
    must depend on its arguments alone. During `fit`, `Model.prune` never cuts frozen edges.

    Parameters
    ----------
    sparsity : float
        Fraction of the edges that is gone at the end.
    updates : int, optional
        How many times the schedule acts after the first time, at least 1. It acts at most once
        before each step. By default 100, or 5 for each epoch before `until` if that is less: each
        time costs some milliseconds, which is a good part of an epoch in a small network.
    until : float
        Fraction of the training, below 1, after which the schedule no longer acts.

    Examples
    --------
    >>> class Once(mlgraph.Schedule):
    ...     def act(self, model, moment, step, seed, sample, n_threads):
    ...         if step == 0:
    ...             model.prune(sparsity=self.sparsity)
    >>> net = mlgraph.Network(4, seed=0)
    >>> layer = net.add_layer(2, "softmax")
    >>> history = net.fit(np.eye(4), [0, 1, 0, 1], sparsify=Once(0.5))
    >>> net.n_edges
    4
    """

    sparsity: float
    updates: int | None = None
    until: float = 0.75

    def __post_init__(self) -> None:
        # Built-in numbers, so that equal schedules have equal reprs and can be written to files.
        updates = None if self.updates is None else whole("updates", self.updates)
        vars(self).update(sparsity=share("sparsity", self.sparsity), updates=updates, until=share("until", self.until))

    def __repr__(self) -> str:
        # A checkpoint compares it with that of another process, where a function has another
        # address.
        arguments = (f"{f.name}={_stable_repr(getattr(self, f.name))}" for f in fields(self))
        return f"{type(self).__name__}({', '.join(arguments)})"

    @abstractmethod
    def act(self, model: Model, moment: float, step: int, seed: int, sample: Sample, n_threads: int | None) -> None:
        """Cut and grow edges before a step.

        Other threads that run or edit the graph wait meanwhile, so do not wait for one of them
        here.

        Parameters
        ----------
        model : Model
        moment : float
            Fraction of the training that is done: one of the moments that `due` returned.
        step, seed : int
            Number of the step; the seed of `fit`.
        sample : callable
            ``sample(n)`` returns n training examples, or all if there are fewer, and their labels
            or targets. It returns the same examples for the same step. If the loss is a node, its
            targets are the last columns of the data, and () is returned in their place.
        n_threads : int, optional
            As for `fit`.

        Raises
        ------
        StopIteration
            To end the run there, as in a callback. Raise it before editing anything: a resumed run
            acts again at this moment.
        """

    def check(self, model: Model) -> None:  # noqa: B027 - optional to override
        """Check before the run that the schedule can work on this model; override it to raise an error.

        Raises
        ------
        TypeError
            If the schedule needs another kind of model.
        ValueError
            If the remaining edges would not suffice for a path to each output and for the frozen
            edges.
        """

    def over(self, epochs: int) -> Schedule:
        """A copy of the schedule for a run of this many epochs."""
        other = copy(self)  # a subclass may have any constructor
        vars(other).update(updates=self.updates or min(100, max(1, round(5 * epochs * self.until))))
        return other

    def due(self, begin: Float64, end: Float64) -> Float64:
        """The moment at which to act before each step, or NaN; may be overridden, to act before every step, say.

        Parameters
        ----------
        begin, end : float64, shape (steps,)
            Fraction of the training that is done at the beginning and at the end of each step.

        Returns
        -------
        float64, shape (steps,)
        """
        assert self.updates is not None
        scale = self.updates / max(self.until, 1e-9)
        before, reached = (np.clip(np.ceil(share * scale) - 1, -1, self.updates) for share in (begin, end))
        # The last moment is exactly `until`.
        moments = np.where(reached == self.updates, self.until, reached * (self.until / self.updates))
        return np.where(reached > before, moments, np.nan)

    def _check_columns(self, model: Model, columns: int) -> None:  # noqa: B027 - optional to override
        """Raise ValueError if the data have too few columns for the edges that may grow."""

    def _begin_run(self) -> None:  # noqa: B027 - optional to override
        """Called once on the copy that `over` returned."""


class ScheduleRunner:
    """Checks a schedule before a run of `fit` and calls it during the run.

    It samples `x` and `y` as the user gave them; with targets, the data have `width` columns.
    """

    def __init__(
        self,
        schedule: Schedule,
        model: Model,
        x: npt.NDArray[Any],
        y: Any,
        width: int,
        objective: Objective,
        classes: Sequence[str | int] | None,
        epochs: int,
        n_threads: int | None,
    ) -> None:
        if not isinstance(schedule, Schedule):
            got = f"the class {schedule.__name__}" if isinstance(schedule, type) else type(schedule).__name__
            raise TypeError(f"sparsify: expected a mlgraph.Schedule, such as GradualPruning(0.9), or None, got {got}")
        missing = [field.name for field in fields(schedule) if not hasattr(schedule, field.name)]
        if missing:
            raise TypeError(
                f"sparsify: {type(schedule).__name__} has no {missing[0]}; make it a "
                "@dataclass(frozen=True, repr=False), or call super().__init__ in its __init__"
            )
        with model.graph.lock:
            schedule.check(model)
            schedule._check_columns(model, width)
        self._schedule = schedule.over(epochs)
        self._model = model
        self._x = x
        self._n_threads = n_threads
        label, target = objective.label, objective.target
        as_given = objective.loss == "node" or classes is not None
        self._y: Any = y if as_given else target if label is None else label

    def begin(self, seed: int) -> None:
        """Begin the run, whose seed is drawn after all arguments are checked."""
        self._schedule._begin_run()  # not in `over`, which a subclass may override
        self._seed = seed

    def __call__(self, step: int, ends: Float64) -> int:
        """Let the schedule act if it is due before this step.

        Parameters
        ----------
        step : int
            Number of the step.
        ends : float64, shape (steps + 1,)
            Fractions of the training: where this step begins, then where it and the later steps of
            the epoch end.

        Returns
        -------
        int
            How many steps may be taken before the next call.
        """
        moments = np.asarray(self._schedule.due(ends[:-1], ends[1:]))
        if moments.shape != (len(ends) - 1,) or moments.dtype.kind != "f":
            got = f"{moments.dtype} of shape {moments.shape}"
            raise ValueError(f"due: expected a moment or NaN for each of {len(ends) - 1} steps, got {got}")
        if not np.isnan(moments[0]):
            with self._model.graph.lock:
                self._schedule.act(
                    self._model, float(moments[0]), step, self._seed, self._sampler(step), self._n_threads
                )
        later = np.flatnonzero(~np.isnan(moments[1:]))
        return 1 + int(later[0]) if len(later) else len(moments)

    def _sampler(self, step: int) -> Sample:
        def sample(n: int) -> tuple[Any, Any]:
            whole("n", n)
            chosen = np.random.default_rng([self._seed, 4, step]).permutation(len(self._x))[:n]
            x, y = self._x[chosen], self._y[chosen] if len(self._y) else ()
            if self._model.loss != "node" or not len(y):
                # Inputs added since `fit` began have no data, and nothing reads them yet.
                x = np.pad(x, ((0, 0), (0, self._model.graph.n_inputs - x.shape[1])))
            return x, y

        return sample


def _stable_repr(value: Any) -> str:
    """A repr that is the same in each process: functions by name, arrays by a digest of their numbers."""
    if isinstance(value, partial):
        given = [*map(_stable_repr, value.args), *(f"{name}={_stable_repr(v)}" for name, v in value.keywords.items())]
        return f"partial({', '.join([_stable_repr(value.func), *given])})"
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return f"{value.__module__}.{name}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"<{value.dtype} of shape {value.shape} {sha256(value.tobytes()).hexdigest()}>"
    return repr(value)
