"""How a model is run: read its data, find its engine, give it the examples.

The functions take a model instead of being its methods, so that `Model` shows users only what they
need.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32, UInt8
from mlgraph._support.checks import level_outside
from mlgraph._support.interrupts import uninterrupted
from mlgraph._support.threads import checked_threads, default_threads, threads_for
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine, Later, execute_later
from mlgraph.engine.examples import BYTE, FLOAT, Examples
from mlgraph.engine.losses import Objective, are_none, empty_answers, read_targets, with_targets
from mlgraph.models.classes import Classes, label_array, n_classes_of, numbered
from mlgraph.models.scaling import (
    BYTES,
    UNSCALED,
    Data,
    Scaling,
    Standardization,
    as_data,
    first_scaling,
    ordered,
    scaled,
)

if TYPE_CHECKING:
    from mlgraph.models.model import Model


AS_IT_IS = {BYTES: BYTE, UNSCALED: FLOAT}
"""By scaling, the type of arrays that kernels read in place: a shortcut for predictions of one example."""


def engine_of(model: Model, nodes: list[int] | None = None) -> Engine:
    """The engine for these nodes, by default for training; compiled again if the graph has changed."""
    with model.require_outputs():
        # The squared error reads the outputs alone; without duplicates, predictions then share its
        # engine.
        key = tuple(dict.fromkeys(model.sinks) if nodes is None else nodes)
        engine = model.engines.get(key)
        if engine is None or engine.plan.is_stale(model.graph):
            loss = model.loss_ids if set(model.loss_ids) <= set(key) else None
            engine = model.engines[key] = Engine(model.graph, Plan(model.graph, key, model.dropout_shares, loss=loss))
    return engine


def execute(
    model: Model, examples: Examples, nodes: list[int] | None = None, **options: Any
) -> tuple[int, Float32, Float32]:
    """Run the engine for these nodes, by default for all that training needs, under the lock of the graph."""
    with model.graph.lock:
        engine = engine_of(model, nodes)
        return (engine.filled(examples).execute if options.get("limit") else engine.compute)(examples, **options)


def read(model: Model, x: npt.ArrayLike | Data, nodes: list[int], what: str = "x") -> Examples:
    """Data for these nodes; errors call it `what`.

    Trailing columns that the nodes do not read may be missing: all of them, or some that operations
    read.
    """
    scaling = model._scaling
    if type(x) is np.ndarray and isinstance(scaling, str) and x.dtype == AS_IT_IS[scaling]:
        examples = _examples(model, x, nodes, what)
        examples.raw = x if scaling == UNSCALED else None
        return examples
    data = ordered(as_data(x, what), model._columns)
    scaling = scaling or first_scaling(data)
    return _attached(_examples(model, scaled(data, scaling), nodes, data.what, data), data, scaling)


def reading_of(model: Model) -> tuple[Any, ...]:
    """What decides how a model reads data, beside its inputs, outputs and loss."""
    scaling = model._scaling
    if isinstance(scaling, Standardization):
        return scaling.mean.tobytes(), scaling.std.tobytes(), model._columns, model._classes
    return scaling, model._columns, model._classes


def scaling_for(model: Model, data: Data) -> Scaling:
    """The scaling of the model, or that which `fit` would decide on."""
    return first_scaling(data) if model.scaling is None else model.scaling


def _examples(model: Model, array: npt.NDArray[Any], nodes: list[int], what: str, data: Data | None = None) -> Examples:
    """An array of scaled data for these nodes; if columns are missing, those of a frame are named."""
    graph = model.graph
    try:
        return Examples(array, graph.n_inputs, what)
    except ValueError:
        with graph.lock:  # another thread may add nodes
            n, width = np.shape(array)[1] if np.ndim(array) == 2 else -1, engine_of(model, nodes).plan.width
            # After a cut nothing may read the last columns of the data: these do not count as
            # missing targets.
            if not width <= n < graph.n_inputs or (n > width and not graph.read_by_operations()[n:].all()):
                if data is not None:
                    ordered(data, model._columns, complete=True)
                raise
        return Examples(array, n, what)


def _attached(examples: Examples, data: Data, scaling: Scaling) -> Examples:
    examples.raw, examples.columns = data.array if scaling == UNSCALED else None, data.columns
    return examples


def read_to_predict(model: Model, x: npt.ArrayLike | Data, nodes: list[int]) -> Examples:
    """Data for these nodes; warns of bytes that are not scaled, except for one example of floats, to save time."""
    examples = read(model, x, nodes)
    if examples.raw is not None and (len(examples) > 1 or examples.raw.dtype == np.uint8):
        warn_of_bytes(examples)
    return examples


def warn_of_bytes(examples: Examples, what: str = "x", told: str = "") -> str:
    """Warn of numbers that look like bytes of images and are not divided by 255.

    Returns the text of the warning. A text that equals `told` is not repeated.
    """
    x, text = examples.raw, ""
    if x is None:
        return text
    x = x[:: len(x) // 64 + 1]
    with np.errstate(invalid="ignore"):  # NaN, of which older versions of numpy warn
        are_bytes = x.min(initial=0) == 0 and x.max(initial=0) == 255
        are_bytes = are_bytes and (x.dtype.kind in "ui" or (x == np.floor(x)).all())
    if are_bytes:
        text = (
            'whole numbers from 0 to 255 are too large to learn well; to divide them by 255, assign "bytes" to the '
            "scaling of the model before it learns"
        )
        if text != told:
            warnings.warn(f"{what}: {text}", UserWarning, stacklevel=level_outside())
    return text


def as_arrays(x: npt.ArrayLike | Data, y: npt.ArrayLike, prefix: str = "") -> tuple[Data, npt.ArrayLike]:
    """Data and targets as arrays of numbers, labels maybe of strings; () and [] stay, which mean no targets.

    Call it before looking at a model: converting data may run a user's code, which may edit the graph.
    """
    data = as_data(x, f"{prefix}x")
    return data, y if are_none(y) else label_array(y, f"{prefix}y")


def read_with_targets(
    model: Model,
    x: npt.ArrayLike | Data,
    y: npt.ArrayLike,
    prefix: str = "",
    scaling: Scaling | None = None,
    classes: Classes | None = None,
) -> tuple[Examples, Objective]:
    """Data, and the loss over them; errors put `prefix` before the names x and y.

    The data are scaled as the model says, unless there is a `scaling`; and so are labels read, unless there are
    `classes`.
    """
    data, y = as_arrays(x, y, prefix)
    data = ordered(data, model.columns)
    scaling = scaling or scaling_for(model, data)
    array = scaled(data, scaling)
    with model.require_outputs():
        if isinstance(y, np.ndarray):
            n_classes = n_classes_of(model.loss, len(model.output_ids))
            y = numbered(y, classes or model.classes, n_classes, f"{prefix}y")
        if model.loss != "node":
            examples = _examples(model, array, model.sinks, data.what, data)
            label, target = read_targets(model.loss, y, len(examples), len(model.output_ids), f"{prefix}y")
            return _attached(examples, data, scaling), Objective(model.loss, model.loss_ids, label, target)
        objective = Objective(model.loss, model.loss_ids)
        if not are_none(y):
            examples = _examples(model, with_targets(array, y, prefix), model.sinks, f"{prefix}x and y")
            return _attached(examples, data, scaling), objective
        try:
            return _attached(_examples(model, array, model.sinks, data.what, data), data, scaling), objective
        except ValueError as error:
            if array.ndim != 2 or array.shape[1] > model.graph.n_inputs:
                raise
            raise ValueError(f"{error}; what the loss compares with may be {prefix}y") from None


def outputs_of(model: Model, examples: Examples, n_threads: int | None) -> Float32:
    """Values of the outputs, as `Model.predict` computes them."""
    return execute(model, examples, model.output_ids, values=model.output_ids, n_threads=n_threads)[1]


class Scores:
    """Losses and answers of examples, which an engine fills, and their means.

    Attributes
    ----------
    options : dict
        Arguments for `execute`.
    """

    def __init__(self, examples: Examples, objective: Objective) -> None:
        examples.check_any()
        self._weight = objective.weight
        self._losses = np.zeros(len(examples), np.float32)
        self._correct = empty_answers(objective, len(examples))
        self.options: dict[str, Any] = {
            "objective": objective._replace(weight=None),
            "losses": self._losses,
            "correct": self._correct,
        }

    def means(self) -> dict[str, float]:
        """What `Model.evaluate` returns. Weighted means leave out examples of weight 0, whatever they give."""
        with np.errstate(invalid="ignore"):  # infinities of both signs
            means = {"loss": self._mean(self._losses)}
        if self._correct is not None:
            means["accuracy"] = self._mean(self._correct)
        return means

    def _mean(self, of: Float32 | UInt8) -> float:
        if self._weight is None:
            return float(of.mean(dtype=np.float64))
        counted = self._weight > 0
        return float(np.average(of[counted].astype(np.float64), weights=self._weight[counted].astype(np.float64)))


def evaluate(
    model: Model, examples: Examples, objective: Objective, n_threads: int | None, engine: Engine | None = None
) -> dict[str, float]:
    """What `Model.evaluate` returns, computed by `engine` or by that of the model."""
    scores = Scores(examples, objective)
    if engine:
        engine.compute(examples, **scores.options, n_threads=n_threads)
    else:
        execute(model, examples, **scores.options, n_threads=n_threads)
    return scores.means()


def answers(loss: str, values: Float32) -> tuple[npt.NDArray[Any], int]:
    """Predictions from outputs, for a model without softmax, and the first example of which they are unclear, or -1."""
    predicted = values[:, 0] if values.shape[1] == 1 else values
    if loss != "binary_cross_entropy":
        return predicted, -1
    are_nan = np.isnan(values).any(axis=1)
    return (predicted > 0).astype(np.int64), int(np.argmax(are_nan)) if are_nan.any() else -1


def labelled(model: Model, predicted: npt.NDArray[Any], unclear: int) -> npt.NDArray[Any]:
    """Predictions as the labels of the model; a ValueError if one is unclear."""
    if unclear >= 0:
        raise ValueError(
            f"predict: expected outputs that are numbers, got nan for example {unclear}; forward shows them"
        )
    return predicted if model.classes is None else np.array(model.classes)[predicted]


PIECE_WORK = 2**30
"""Multiply-adds for each thread of calls of the kernels that are made together: about 0.1 s, in which Ctrl-C waits."""


def execute_each(
    models: Sequence[Model],
    nodes: Callable[[Model], list[int] | None],
    n: int,
    call: Callable[[int, int | None, Later | None], Any],
    n_threads: int | None,
) -> None:
    """Call the engines of many models, each graph in one thread, over n examples.

    Parameters
    ----------
    models : sequence of Model
        Their graphs are different.
    nodes : callable
        The nodes that a model computes, as for `engine_of`.
    n : int
    call : callable
        Calls `execute` once for the model of a number, with this `n_threads` and `later`.
    n_threads : int, optional
        Number of models at the same time. If there are only half as many or fewer, or for a model that
        takes long, one after the other runs in all threads.
    """
    most = checked_threads(n_threads) or default_threads()
    if 2 * len(models) <= most:
        for i in range(len(models)):
            call(i, n_threads, None)
        return
    works = [n * engine_of(model, nodes(model)).plan.work for model in models]  # compiles, which a signal may interrupt
    begin = 0
    while begin < len(models):
        end, work = begin + 1, works[begin]
        if work > PIECE_WORK:
            call(begin, n_threads, None)
        else:
            while end < len(models) and works[end] <= PIECE_WORK and work + works[end] <= PIECE_WORK * most:
                end, work = end + 1, work + works[end]
            _execute_together(range(begin, end), models, call, threads_for(n_threads, work, most=end - begin))
        begin = end


def _execute_together(
    numbers: range, models: Sequence[Model], call: Callable[[int, int | None, Later | None], Any], n_threads: int
) -> None:
    later: Later = []
    held, busy = [], []
    # A signal must not come between a lock and its release.
    with uninterrupted():
        try:
            for i in numbers:
                lock = models[i].graph.lock
                # Whoever holds this lock may wait for another one that is held here.
                if lock.acquire(blocking=False):
                    held.append(lock)
                    call(i, 1, later)
                else:
                    busy.append(i)
            execute_later(later, n_threads)
        finally:
            for lock in held:
                lock.release()
    for i in busy:
        call(i, 1, None)
