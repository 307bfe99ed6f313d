"""How a model is run: read its data, find its engine, give it the examples.

The functions take a model instead of being its methods, so that `Model` shows users only what they
need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32
from mlgraph._support.checks import real_array
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective, are_none, empty_answers, read_targets, target_array, with_targets

if TYPE_CHECKING:
    from mlgraph.models.model import Model


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


def read(model: Model, x: npt.ArrayLike, nodes: list[int], name: str = "x") -> Examples:
    """Data for these nodes; errors call it `name`.

    Trailing columns that the nodes do not read may be missing: all of them, or some that operations
    read.
    """
    graph = model.graph
    try:
        return Examples(x, graph.n_inputs, name)
    except ValueError:
        with graph.lock:  # another thread may add nodes
            n, width = np.shape(x)[1] if np.ndim(x) == 2 else -1, engine_of(model, nodes).plan.width
            # After a cut nothing may read the last columns of the data: these do not count as
            # missing targets.
            if not width <= n < graph.n_inputs or (n > width and not graph.read_by_operations()[n:].all()):
                raise
        return Examples(x, n, name)


def read_to_predict(model: Model, x: npt.ArrayLike, nodes: list[int]) -> Examples:
    """Data for these nodes; warns of wrong units, except for one example, where that costs as much as the sweep."""
    examples = read(model, x, nodes)
    if len(examples) > 1:
        examples.warn_of_units()
    return examples


def as_arrays(x: npt.ArrayLike, y: npt.ArrayLike, prefix: str = "") -> tuple[npt.NDArray[Any], npt.ArrayLike]:
    """Data and targets as arrays of numbers; () and [] stay, which mean that there are no targets.

    Call it before looking at a model: converting data may run a user's code, which may edit the graph.
    """
    data = real_array(f"{prefix}x", x)
    return data, y if are_none(y) else target_array(y, f"{prefix}y")


def read_with_targets(model: Model, x: npt.ArrayLike, y: npt.ArrayLike, prefix: str = "") -> tuple[Examples, Objective]:
    """Data, and the loss over them; errors put `prefix` before the names x and y."""
    x, y = as_arrays(x, y, prefix)
    with model.require_outputs():
        if model.loss != "node":
            examples = read(model, x, model.sinks, f"{prefix}x")
            label, target = read_targets(model.loss, y, len(examples), len(model.output_ids), f"{prefix}y")
            return examples, Objective(model.loss, model.loss_ids, label, target)
        if not are_none(y):
            examples = read(model, with_targets(x, y, prefix), model.sinks, f"{prefix}x and y")
            examples.given = f"{prefix}x", x
            return examples, Objective(model.loss, model.loss_ids)
        try:
            return read(model, x, model.sinks, f"{prefix}x"), Objective(model.loss, model.loss_ids)
        except ValueError as error:
            if x.ndim != 2 or x.shape[1] > model.graph.n_inputs:
                raise
            raise ValueError(f"{error}; what the loss compares with may be {prefix}y") from None


def evaluate(
    model: Model, examples: Examples, objective: Objective, n_threads: int | None, engine: Engine | None = None
) -> dict[str, float]:
    """What `Model.evaluate` returns, computed by `engine` or by that of the model."""
    examples.check_any()
    losses = np.zeros(len(examples), np.float32)
    correct = empty_answers(objective, len(examples))
    options: dict[str, Any] = {"objective": objective, "losses": losses, "correct": correct, "n_threads": n_threads}
    if engine:
        engine.compute(examples, **options)
    else:
        execute(model, examples, **options)
    with np.errstate(invalid="ignore"):  # infinities of both signs
        scores = {"loss": float(losses.mean(dtype=np.float64))}
    if correct is not None:
        scores["accuracy"] = float(correct.mean())
    return scores
