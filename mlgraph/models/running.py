"""How a model is run: read its data, find its engine, give it the examples.

The functions take a model instead of being its methods, so that `Model` shows users only what they
need.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32, UInt8
from mlgraph._support.checks import level_outside
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import BYTE, FLOAT, Examples
from mlgraph.engine.losses import Objective, are_none, empty_answers, read_targets, with_targets
from mlgraph.models.classes import Classes, label_array, n_classes_of, numbered
from mlgraph.models.scaling import BYTES, UNSCALED, Data, Scaling, as_data, first_scaling, ordered, scaled

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
    return _attached(_examples(model, scaled(data, scaling), nodes, data.what), data, scaling)


def scaling_for(model: Model, data: Data) -> Scaling:
    """The scaling of the model, or that which `fit` would decide on."""
    return first_scaling(data) if model.scaling is None else model.scaling


def _examples(model: Model, array: npt.NDArray[Any], nodes: list[int], what: str) -> Examples:
    graph = model.graph
    try:
        return Examples(array, graph.n_inputs, what)
    except ValueError:
        with graph.lock:  # another thread may add nodes
            n, width = np.shape(array)[1] if np.ndim(array) == 2 else -1, engine_of(model, nodes).plan.width
            # After a cut nothing may read the last columns of the data: these do not count as
            # missing targets.
            if not width <= n < graph.n_inputs or (n > width and not graph.read_by_operations()[n:].all()):
                raise
        return Examples(array, n, what)


def _attached(examples: Examples, data: Data, scaling: Scaling) -> Examples:
    examples.raw = data.array if scaling == UNSCALED else None
    return examples


def read_to_predict(model: Model, x: npt.ArrayLike, nodes: list[int]) -> Examples:
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
            examples = _examples(model, array, model.sinks, data.what)
            label, target = read_targets(model.loss, y, len(examples), len(model.output_ids), f"{prefix}y")
            return _attached(examples, data, scaling), Objective(model.loss, model.loss_ids, label, target)
        objective = Objective(model.loss, model.loss_ids)
        if not are_none(y):
            examples = _examples(model, with_targets(array, y, prefix), model.sinks, f"{prefix}x and y")
            return _attached(examples, data, scaling), objective
        try:
            return _attached(_examples(model, array, model.sinks, data.what), data, scaling), objective
        except ValueError as error:
            if array.ndim != 2 or array.shape[1] > model.graph.n_inputs:
                raise
            raise ValueError(f"{error}; what the loss compares with may be {prefix}y") from None


def outputs_of(model: Model, examples: Examples, n_threads: int | None) -> Float32:
    """Values of the outputs, as `Model.predict` computes them."""
    return execute(model, examples, model.output_ids, values=model.output_ids, n_threads=n_threads)[1]


def evaluate(
    model: Model, examples: Examples, objective: Objective, n_threads: int | None, engine: Engine | None = None
) -> dict[str, float]:
    """What `Model.evaluate` returns, computed by `engine` or by that of the model.

    Weighted means leave out examples of weight 0, whatever they give.
    """
    examples.check_any()
    losses = np.zeros(len(examples), np.float32)
    correct = empty_answers(objective, len(examples))
    weight, objective = objective.weight, objective._replace(weight=None)
    options: dict[str, Any] = {"objective": objective, "losses": losses, "correct": correct, "n_threads": n_threads}
    if engine:
        engine.compute(examples, **options)
    else:
        execute(model, examples, **options)

    def mean(of: Float32 | UInt8) -> float:
        if weight is None:
            return float(of.mean(dtype=np.float64))
        counted = weight > 0
        return float(np.average(of[counted].astype(np.float64), weights=weight[counted].astype(np.float64)))

    with np.errstate(invalid="ignore"):  # infinities of both signs
        scores = {"loss": mean(losses)}
    if correct is not None:
        scores["accuracy"] = mean(correct)
    return scores
