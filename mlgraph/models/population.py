"""Many models over the same data: evaluated in one call, trained side by side."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32, Float64
from mlgraph._support.attributes import Declared, require_arguments
from mlgraph._support.checks import StrOrBytesPath, shown
from mlgraph._support.threads import checked_threads, default_threads, in_threads, wanted_threads
from mlgraph.engine.engine import Later
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective, as_weights, weighted
from mlgraph.models.history import History
from mlgraph.models.metrics import Metrics
from mlgraph.models.model import Model
from mlgraph.models.running import (
    Scores,
    answers,
    as_arrays,
    engine_of,
    execute,
    execute_each,
    labelled,
    outputs_of,
    read_to_predict,
    read_with_targets,
    reading_of,
    warn_of_bytes,
)
from mlgraph.models.scaling import Data, as_data

if TYPE_CHECKING:
    from typing_extensions import Self  # that of typing is of Python 3.11

    from mlgraph.training.run import Run

S = TypeVar("S")
T = TypeVar("T")

OF_ONE_MODEL = "callbacks", "verbose", "checkpoint", "checkpoint_every", "resume"
"""Arguments of `Model.fit` that `Population.fit` does not take."""

_FIT = inspect.signature(Model.fit)


class Population(Declared, MutableSequence[Model]):
    """Models that are evaluated and trained over the same data, each as if it were alone.

    A list of models: ``population[3]``, ``population.append(model)``, ``del population[3]``,
    ``population[:] = survivors``. Each member is a graph of its own, of any shape, with its own
    weights, optimizer state and generator. What a member gives, and what it learns, is bit for bit
    what its own methods give, for any number of threads. Joining, leaving or editing compiles no
    other member again.

    Parameters
    ----------
    models : iterable of Model
        Different models, each of a graph of its own, with the same number of inputs and outputs and
        the same loss.

    Raises
    ------
    TypeError, ValueError
        If one of them is not a model, is a member already, shares its graph, or differs from the first
        in inputs, outputs or loss. The population is as before then.

    Examples
    --------
    >>> def network(seed):
    ...     net = mlgraph.Network(2, seed=seed)
    ...     net.add_layer(4, "tanh"), net.add_layer(1, "sigmoid", loss="binary_cross_entropy")
    ...     return net
    >>> population = mlgraph.Population(network(seed) for seed in range(5))
    >>> x, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
    >>> histories = population.fit(x, y, epochs=200, batch_size=4, learning_rate=0.1)
    >>> losses = population.evaluate(x, y)["loss"]
    >>> losses.shape, population.predict(x).shape
    ((5,), (5, 4))
    >>> del population[int(losses.argmax())]
    >>> population.append(network(5))
    """

    _members: list[Model]

    def __init__(self, models: Iterable[Model] = ()) -> None:
        if not isinstance(models, Iterable):
            raise TypeError(f"models: expected an iterable of models, got {shown(models)}")
        self._members = _checked(models)

    def __repr__(self) -> str:
        if not self._members:
            return "<Population of 0 models>"
        return f"<Population of {len(self)} models of {_said(_kind(self._members[0]))}>"

    # --- a list -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._members)

    @overload
    def __getitem__(self, index: int) -> Model: ...
    @overload
    def __getitem__(self, index: slice) -> Population: ...
    def __getitem__(self, index: int | slice) -> Model | Population:
        """A member, or a population of some of the members."""
        return Population(self._members[index]) if isinstance(index, slice) else self._members[index]

    @overload
    def __setitem__(self, index: int, value: Model) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[Model]) -> None: ...
    def __setitem__(self, index: int | slice, value: Any) -> None:
        """Replace a member, or some."""
        changed = list(self._members)
        changed[index] = value
        self._members = _checked(changed)

    def __delitem__(self, index: int | slice) -> None:
        """Remove a member, or some."""
        rest = list(self._members)
        del rest[index]
        self._members = rest

    def insert(self, index: int, value: Model) -> None:
        """Add a member before `index`."""
        self[index:index] = [value]

    def reverse(self) -> None:
        """Reverse the order of the members."""
        self._members = self._members[::-1]

    # --- running ----------------------------------------------------------------------------------

    def forward(self, x: npt.ArrayLike, *, n_threads: int | None = None) -> Float32:
        """Values of the outputs of each member, as `Model.forward` gives them.

        Parameters
        ----------
        x : array_like, shape (examples, inputs)
            Each member reads them as its `scaling` and `columns` say.
        n_threads : int, optional
            As for `fit`.

        Returns
        -------
        float32, shape (members, examples, outputs)

        Raises
        ------
        ValueError
            If there is no member, or a member's inputs, outputs or loss have changed.
        TypeError, ValueError
            As `Model.forward`; the error names the member.
        """
        return np.stack(self._values("forward", x, lambda model: model.output_ids, n_threads))

    def predict_proba(self, x: npt.ArrayLike, *, n_threads: int | None = None) -> Float32:
        """Probabilities, float32 of shape (members, examples, outputs); as `Model.predict_proba` and `forward`."""
        first = self._current("predict_proba")[0]
        if not first.probability_ids:
            first.predict_proba(x)  # an error, which says that such a model has none
        return np.stack(self._values("predict_proba", x, lambda model: model.probability_ids, n_threads))

    def predict(self, x: npt.ArrayLike, *, n_threads: int | None = None) -> npt.NDArray[Any]:
        """What `Model.predict` gives for each member, with the members as first axis; as `forward`."""
        data = as_data(x)
        members = self._current("predict")
        if members[0].loss != "softmax_cross_entropy":
            values = self._values("predict", data, lambda model: model.output_ids, n_threads)
            found = [answers(model.loss, of_model) for model, of_model in zip(members, values, strict=True)]
        else:
            examples = _shared(members, lambda model: read_to_predict(model, data, model.output_ids), data.array)
            highest = np.empty((len(members), len(examples[0])), np.int64)

            def call(i: int, n_threads: int | None, later: Later | None) -> None:
                nodes = members[i].output_ids
                options = {"values": nodes, "highest": highest[i], "n_threads": n_threads, "later": later}
                execute(members[i], examples[i], nodes, **options)

            execute_each(members, lambda model: model.output_ids, highest.shape[1], call, n_threads)
            found = [(one, int(np.argmin(one)) if (one < 0).any() else -1) for one in highest]
        labels = [
            _named(i, partial(labelled, predicted=predicted, unclear=unclear), members[i])
            for i, (predicted, unclear) in enumerate(found)
        ]
        return np.stack(labels)

    def evaluate(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike = (),
        *,
        sample_weight: npt.ArrayLike | None = None,
        metrics: Sequence[str | Callable[..., float]] | None = None,
        n_threads: int | None = None,
    ) -> dict[str, Float64]:
        """Loss, accuracy and metrics of each member, as `Model.evaluate` gives them.

        Parameters
        ----------
        x, y, sample_weight, metrics
            As for `Model.evaluate`.
        n_threads : int, optional
            As for `fit`.

        Returns
        -------
        dict
            Each result is an array of float64 of shape (members,). A member whose loss is not finite
            has that loss, and the others are not concerned.

        Raises
        ------
        TypeError, ValueError
            As `Model.evaluate`; the error names the member.
        """
        more, weight = Metrics(metrics), as_weights(sample_weight)
        data, y = as_arrays(x, y)
        members = self._current("evaluate")

        def read(model: Model) -> tuple[Examples, Objective]:
            examples, objective = read_with_targets(model, data, y)
            objective = weighted(objective, len(examples), weight)
            more.check(model, objective, y)
            warn_of_bytes(examples)
            return examples, objective

        given = _shared(members, read, data.array)
        scores = [
            Scores(examples, objective._replace(nodes=model.loss_ids))
            for model, (examples, objective) in zip(members, given, strict=True)
        ]

        def call(i: int, n_threads: int | None, later: Later | None) -> None:
            execute(members[i], given[i][0], **scores[i].options, n_threads=n_threads, later=later)

        execute_each(members, lambda _: None, len(given[0][0]), call, n_threads)
        means = [one.means() for one in scores]
        if more.names:
            for model, mean, (examples, objective) in zip(members, means, given, strict=True):
                mean |= more.of(objective, outputs_of(model, examples, n_threads), y, model.classes)
        return {name: np.array([mean[name] for mean in means]) for name in means[0]}

    # --- learning ---------------------------------------------------------------------------------

    def fit(
        self, x: npt.ArrayLike, y: npt.ArrayLike = (), *, n_threads: int | None = None, **options: Any
    ) -> list[History]:
        """Train each member as if it were alone, several members at a time.

        Parameters
        ----------
        x, y : array_like
            As for `Model.fit`.
        n_threads : int, optional
            Number of members that train at the same time, one thread each. If there are only half as
            many members or fewer, they train one after the other, each with all threads. By default
            as many as the process may use and the work is worth. Results are bitwise equal for any
            number.
        **options
            As for `Model.fit`, except for `callbacks`, `verbose`, `checkpoint`, `checkpoint_every` and
            `resume`, which belong to one model. Without `seed`, each member draws its own. Functions
            among them, such as metrics, may be called by several threads at once.

        Returns
        -------
        list of History
            One for each member, in order; each is the member's `history`, too.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as documented, or does not suit a member, which the error names. No
            member has changed.
        NonFiniteError
            With ``on_nonfinite="raise"``, after all other members have learnt: a number of one or
            more members was not finite. `NonFiniteError.members` lists them. They have the parameters
            from before the step, as after `Model.fit`.
        RuntimeError
            As `Model.fit`. Such an error, or Ctrl-C, ends the runs of all members within about 0.2 s,
            each between two steps.

        Warns
        -----
        UserWarning
            As `Model.fit`.
        """
        from mlgraph.training.fitting import prepared
        from mlgraph.training.nonfinite import NonFiniteError
        from mlgraph.training.run import require_parameters

        for name in OF_ONE_MODEL:
            if name in options:
                raise TypeError(f"fit: there is no argument {name!r} for a population; fit of one model has it")
        require_arguments(Model.fit, options)
        data, y = as_arrays(x, y)
        members = self._current("fit")
        side_by_side = 2 * len(members) > (checked_threads(n_threads) or default_threads())

        bound = _FIT.bind(members[0], data, y, n_threads=1 if side_by_side else n_threads, **options)
        bound.apply_defaults()
        _, _, _, *names = bound.arguments
        arguments = {name: bound.arguments[name] for name in names}

        def run_of(model: Model) -> tuple[Model, Run]:
            return model, prepared(model, data, y, **arguments)

        held_out = arguments["validation_data"]
        arrays = [data.array, *(held_out[:1] if isinstance(held_out, tuple | list) else ())]
        runs: list[Run] = []
        for i, (model, (first, run)) in enumerate(zip(members, _shared(members, run_of, *arrays), strict=True)):
            runs.append(run if model is first else _named(i, run.of, model))
        for i, model in enumerate(members):
            with model.graph.lock:
                _named(i, require_parameters, model)
                model.graph.require_not_training(f"fit: member {i}")
        work = sum(run.n_examples * engine_of(model).plan.work for run, model in zip(runs, members, strict=True))
        at_once = wanted_threads(n_threads, work / len(runs)) if side_by_side else 1
        if any(model.graph.is_locked_here for model in members):
            at_once = 1  # other threads would wait for ever
        failed: dict[int, NonFiniteError] = {}

        def train(i: int, check: Callable[[], None]) -> None:
            try:
                _named(i, runs[i].train, check)
            except NonFiniteError as error:
                failed[i] = error

        in_threads(train, len(runs), at_once)
        for i, run in enumerate(runs):
            if i not in failed:
                run.warn()
        if failed:
            numbers = sorted(failed)
            error = failed[numbers[0]]
            others = f" (and members {', '.join(map(str, numbers[1:]))} likewise)" if len(numbers) > 1 else ""
            text = f"member {numbers[0]}{others}: {error}; the other members have learnt to the end"
            raise NonFiniteError(text, error.sweep, error.node, error.example, tuple(numbers)) from error
        return [model.history for model in members]

    # --- files ------------------------------------------------------------------------------------

    def save(self, path: StrOrBytesPath) -> None:
        """Write all members to one file, all of it or nothing; `Population.load` reads it.

        The file is a .zip of the files that `Model.save` writes, ``0.npz``, ``1.npz`` and so on.
        Unpacked, each can be opened by `mlgraph.load`.

        Parameters
        ----------
        path : path
            Taken as it is: no ending is added.

        Raises
        ------
        OSError
            If it cannot be written; what stood at `path` is still there.
        ValueError
            If a weight or bias is NaN; the error names the member.
        """
        from mlgraph.models.model_file import content, together, write

        write(path, together(_named(i, content, model) for i, model in enumerate(list(self._members))))

    @classmethod
    def load(cls, path: StrOrBytesPath) -> Self:
        """Read a population that `save` wrote. No number is used unchecked, and nothing is unpickled.

        Parameters
        ----------
        path : path

        Raises
        ------
        ModelFileError
            If the file is not that of a population, or a member is damaged, which the error names.
        OSError
            If the file cannot be opened or read.

        Examples
        --------
        >>> nets = [mlgraph.Network(2, seed=seed) for seed in range(3)]
        >>> layers = [net.add_layer(1) for net in nets]
        >>> mlgraph.Population(nets).save("population.zip")
        >>> mlgraph.Population.load("population.zip")
        <Population of 3 models of 2 inputs, 1 output and the loss squared_error>
        """
        from mlgraph.models.model_file import load_population

        return load_population(path, cls)

    # --- helpers ----------------------------------------------------------------------------------

    def _current(self, what: str) -> list[Model]:
        """The members, checked again: their outputs may have changed since they joined."""
        if not self._members:
            raise ValueError(f"{what}: expected at least one member, got an empty population")
        return _checked(self._members, what)

    def _values(
        self, what: str, x: npt.ArrayLike | Data, nodes: Callable[[Model], list[int]], n_threads: int | None
    ) -> list[Float32]:
        """The values of some nodes of each member, float32 of shape (examples, nodes)."""
        data = as_data(x)
        members = self._current(what)
        examples = _shared(members, lambda model: read_to_predict(model, data, nodes(model)), data.array)
        values: dict[int, Float32] = {}

        def call(i: int, n_threads: int | None, later: Later | None) -> None:
            wanted = nodes(members[i])
            values[i] = execute(members[i], examples[i], wanted, values=wanted, n_threads=n_threads, later=later)[1]

        execute_each(members, nodes, len(examples[0]), call, n_threads)
        return [values[i] for i in range(len(members))]


def _shared(members: list[Model], read: Callable[[Model], T], *arrays: Any) -> list[T]:
    """What `read` gives for each member, called once for all that read these arrays alike."""
    found: dict[Any, T] = {}
    results = []
    for i, model in enumerate(members):
        # Which columns may be missing depends on the graph.
        are_whole = all(np.shape(array)[1:] == (model.graph.n_inputs,) for array in arrays)
        key = reading_of(model) if are_whole else i
        if key not in found:
            found[key] = _named(i, read, model)
        results.append(found[key])
    return results


def _kind(model: Model) -> tuple[int, int, str]:
    """What all members have in common: the numbers of inputs and outputs, and the loss."""
    with model.require_outputs():
        return model.graph.n_inputs, len(model.output_ids), model.loss


def _checked(models: Iterable[Any], what: str = "population") -> list[Model]:
    """The models in a list; a TypeError or ValueError unless they can be members of one population."""
    members: list[Model] = []
    of_graph: dict[int, int] = {}
    first: tuple[int, int, str] | None = None
    for i, model in enumerate(models):
        if not isinstance(model, Model):
            raise TypeError(f"{what}: expected models, got {shown(model)} as member {i}")
        j = of_graph.setdefault(id(model.graph), i)
        if i != j:
            same = "are the same model" if model is members[j] else "share one graph, and so their weights"
            raise ValueError(f"{what}: members {j} and {i} {same}; copy.deepcopy(model) is another one")
        kind = _kind(model)
        first = first or kind
        if kind != first:
            raise ValueError(
                f"{what}: expected members alike, got {_said(kind)} in member {i} and {_said(first)} before"
            )
        members.append(model)
    return members


def _said(kind: tuple[int, int, str]) -> str:
    sizes = ", ".join(f"{n} {what}" + "s" * (n != 1) for n, what in zip(kind, ("input", "output"), strict=False))
    return f"{sizes} and the loss {kind[2]}"


def _named(i: int, call: Callable[[S], T], argument: S) -> T:
    """The result for member i, which errors name."""
    try:
        return call(argument)
    except (TypeError, ValueError, RuntimeError) as error:
        if type(error) not in (TypeError, ValueError, RuntimeError):
            raise
        raise type(error)(f"member {i}: {error}") from None
