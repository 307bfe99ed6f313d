"""What each neuron does and what it is worth: its statistics over data, and the scores of the model without it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Ids, Int32
from mlgraph._support.checks import plain
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.graph import ops
from mlgraph.graph.arrays import Wiring, biases, wiring
from mlgraph.graph.edits import cut, edges_named
from mlgraph.graph.graph import Graph
from mlgraph.graph.ids import ids_of
from mlgraph.graph.ops import CONSTANT, NEURON, PARAMETER
from mlgraph.graph.topology import Topology, is_live, levels_of, topological
from mlgraph.graph.views import Neuron
from mlgraph.models.layer import Layer
from mlgraph.models.model import Model
from mlgraph.models.running import evaluate, read, read_with_targets
from mlgraph_ext import _topology

__all__ = ["ABLATED", "COLUMNS", "ablate", "ablation_table", "inspect"]

Table = npt.NDArray[Any]

COLUMNS = np.dtype(
    [
        ("layer", np.int32),
        ("index", np.int32),
        ("node", np.int32),
        ("alive", np.bool_),
        ("mean", np.float64),
        ("std", np.float64),
        ("active", np.float64),
        ("dormant", np.float64),
        ("fan_in", np.int32),
        ("fan_out", np.int32),
        ("norm_in", np.float64),
        ("norm_out", np.float64),
        ("bias", np.float64),
        ("loss", np.float64),
        ("accuracy", np.float64),
    ]
)
"""Columns of the table that `inspect` gives."""

ABLATED = np.dtype([("node", np.int32), ("loss", np.float64), ("accuracy", np.float64)])
"""Columns of the table that `ablation_table` gives."""

BLOCK = 2**26
"""The most values that are traced at a time."""


def inspect(model: Model, x: npt.ArrayLike, y: npt.ArrayLike | None, n_threads: int | None) -> Table:
    """A table over all neurons; `Model.inspect` says what its columns are."""
    graph, code = model.graph, model.graph.codes
    ids = np.flatnonzero(code >= NEURON).astype(np.int32)
    layer, alive = model.layer_numbers()[ids], graph.alive()[ids]
    order = np.lexsort((ids, layer))
    ids, layer, alive = ids[order], layer[order], alive[order]
    table = np.zeros(len(ids), COLUMNS)
    _, first, which = np.unique(layer, return_index=True, return_inverse=True)
    table["layer"], table["index"], table["node"], table["alive"] = (
        layer,
        np.arange(len(ids)) - first[which],
        ids,
        alive,
    )
    if model.layers:
        table["layer"][layer == len(model.layers)] = -1
    table["loss"] = table["accuracy"] = np.nan

    examples, objective = (read(model, x, model.sinks), None) if y is None else read_with_targets(model, x, y)
    examples.check_any()
    shown = ids[alive]
    base = np.array([op.value(0.0) for op in ops.BY_CODE[: len(ops.ACTIVATIONS)]])[code[shown] - NEURON]
    with np.errstate(all="ignore"):  # the table shows the numbers that are not finite
        sums, size = np.zeros((4, len(shown))), max(1, BLOCK // max(1, len(graph)))
        engine = Engine(graph, Plan(graph, [*model.sinks, *shown.tolist()], split=True))
        for at in range(0, len(examples), size):
            part = Examples(examples.array[at : at + size], examples.array.shape[1])
            _, values, _ = engine.compute(part, values=shown, n_threads=n_threads)
            sums += [
                values.sum(axis=0, dtype=np.float64),
                np.einsum("ij,ij->j", values, values, dtype=np.float64),
                (values > base).sum(axis=0),
                np.abs(values).sum(axis=0, dtype=np.float64),
            ]
        del engine  # it holds the memory of a sweep
        mean, square, active, size_of = sums / len(examples)
        table["mean"][alive], table["active"][alive] = mean, active
        table["std"][alive] = np.sqrt(np.maximum(square - mean**2, 0))
        total, n = (np.bincount(which[alive], weights, minlength=len(first)) for weights in (size_of, None))
        of_layer = (total / np.maximum(n, 1))[which[alive]]
        table["dormant"][alive] = np.divide(size_of, of_layer, out=np.zeros(len(shown)), where=of_layer > 0)

        edges = wiring(graph)
        squares = graph.parameters[edges.place].astype(np.float64) ** 2
        table["fan_in"] = graph.counts[ids]
        table["fan_out"] = np.bincount(edges.source, minlength=len(graph))[ids]
        for name, ends in (("norm_in", edges.target), ("norm_out", edges.source)):
            table[name] = np.sqrt(np.bincount(ends, squares, len(graph)))[ids]
        table["bias"] = biases(graph, ids, missing=np.nan)

        if objective is not None:
            whole = evaluate(model, examples, objective, n_threads)
            levels = levels_of(graph)[ids]  # neurons of a layer may depend on each other, those of a level do not
            for level in np.unique(levels).tolist():
                mine = levels == level
                without = _ablated(model, ids[mine], examples, objective, whole, n_threads)
                table["loss"][mine] = without["loss"] - whole["loss"]
                table["accuracy"][mine] = whole.get("accuracy", np.nan) - without["accuracy"]
    return table


def ablate(model: Model, what: Any, x: npt.ArrayLike, y: npt.ArrayLike, n_threads: int | None) -> dict[str, float]:
    """What `evaluate` would give without some neurons or edges; `Model.ablate` says what the parameters are."""
    edges = edges_named(model.graph, what, "ablate", model.sinks)
    return evaluate(model, *read_with_targets(model, x, y), n_threads, _without(model, *edges))


def _without(model: Model, edges: Wiring, gone: Bool) -> Engine:
    """An engine for the model without these edges; a ValueError if they are the last way to an output."""
    other = model.graph.copy()
    other.models.add(model)
    cut(other, edges, gone, who="ablate")
    return Engine(other, Plan(other, model.sinks))


def ablation_table(
    model: Model,
    layer: Layer | Iterable[Neuron] | range | Ids,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    n_threads: int | None,
) -> Table:
    """What `evaluate` would give without each neuron of a layer; `Model.ablation_table` says what the parameters are."""
    graph = model.graph
    ids = np.array(ids_of(graph, "layer", layer.neurons if isinstance(layer, Layer) else layer), np.int32)
    if (graph.codes[ids] < NEURON).any():
        raise TypeError("layer: expected neurons, got other nodes")
    examples, objective = read_with_targets(model, x, y)
    return _ablated(model, ids, examples, objective, evaluate(model, examples, objective, n_threads), n_threads)


def _ablated(
    model: Model, ids: Int32, examples: Examples, objective: Objective, whole: dict[str, float], n_threads: int | None
) -> Table:
    """The table of these neurons; `whole` is what `evaluate` returns of the model as it is."""
    graph, outputs = model.graph, model.sinks
    table = np.zeros(len(ids), ABLATED)
    table["node"], table["loss"], table["accuracy"] = ids, whole["loss"], whole.get("accuracy", np.nan)
    alive, is_output = graph.alive()[ids], np.isin(ids, outputs)
    table["loss"][is_output] = table["accuracy"][is_output] = np.nan
    topology = graph.topology()
    level, order = topological(graph, topology, outputs)
    rows = np.flatnonzero(alive & ~is_output & (level[ids] >= 0))  # others may be alive for another model's outputs
    if not len(rows):
        return table
    given, lone = _downstream(graph, topology, order, outputs, ids[rows])
    alone = lone[ids[rows]] if len(rows) > 1 else np.ones(1, bool)  # a single neuron has no work to share
    codes, ends = graph.codes, np.array(outputs)[graph.live()[outputs]]

    def is_last_way(node: int) -> bool:
        there, topology.counts[node] = int(topology.counts[node]), 0
        live = is_live(codes, topology, order)
        topology.counts[node] = there
        return not live[ends].all()

    for i in rows[alone].tolist():
        scores = {"loss": np.nan}
        if not is_last_way(int(ids[i])):
            edges = edges_named(graph, ids[i : i + 1], "ablation_table", outputs)
            scores = evaluate(model, examples, objective, n_threads, _without(model, *edges))
        table["loss"][i], table["accuracy"][i] = scores["loss"], scores.get("accuracy", np.nan)
    rows = rows[~alone]
    if not len(rows):
        return table

    # The nodes downstream are swept as a graph of their own, whose inputs are the nodes that they read from above; a column
    # of zeros among these takes the place of a neuron.
    place = np.full(len(graph), -1)
    place[given] = np.arange(len(given))
    sums, size = np.zeros((len(ids), 2)), max(1, BLOCK // max(1, len(given)))
    lower = graph.copy()  # each plan lays out the parameters for itself
    lower.storage.state.clear()
    engine = Engine(lower, Plan(lower, outputs, given=given))
    upper = Engine(graph, Plan(graph, [*outputs, *given.tolist()], split=True))
    for at in range(0, len(examples), size):
        here = slice(at, at + size)
        part = Examples(examples.array[here], examples.array.shape[1])
        rest, answers = upper.compute(part, values=given, n_threads=n_threads)[1], objective.of(here)
        for i in rows.tolist():
            column = rest[:, place[ids[i]]]
            kept = column.copy()
            column[:] = 0
            # Each time anew: they keep what they have found out about their numbers.
            scores = evaluate(model, Examples(rest, len(given)), answers, n_threads, engine)
            column[:] = kept
            sums[i] += np.array([scores["loss"], scores.get("accuracy", np.nan)]) * (len(part) / len(examples))
    table["loss"][rows], table["accuracy"][rows] = sums[rows].T
    return table


def _downstream(graph: Graph, topology: Topology, order: Int32, outputs: list[int], ids: Int32) -> tuple[Int32, Bool]:
    """The nodes above that those downstream of `ids` read; which nodes are the only live source of one downstream."""
    count, below = topology.counts, np.zeros(len(graph), np.uint8)
    below[ids] = 1
    _topology.spread(*topology, order, below)
    dependent = np.repeat(ids, count[ids])[below[topology.sources_of(ids)] > 0]
    if len(dependent):
        name = plain(graph[dependent[0]].name)
        raise ValueError(
            f"layer: expected neurons that do not depend on each other, got {name} with one that it depends on"
        )
    below[ids] = 0
    nodes = order[below[order] > 0]
    sources = topology.sources_of(nodes)
    # Outputs that are not downstream are read from above as well.
    above = np.unique(np.concatenate([sources[below[sources] == 0], [i for i in outputs if not below[i]]])).astype(
        np.int32
    )
    first, live = np.cumsum(count[nodes]) - count[nodes], is_live(graph.codes, topology, order)[sources]
    least = np.minimum.reduceat(np.where(live, sources, len(graph)), first)
    most = np.maximum.reduceat(np.where(live, sources, -1), first)
    lone = np.zeros(len(graph), bool)
    lone[least[least == most]] = True
    return above[~np.isin(graph.codes[above], [CONSTANT, PARAMETER])], lone
