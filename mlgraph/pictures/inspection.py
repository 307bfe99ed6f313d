"""Statistics of each neuron over data, and the scores of the model without it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph._support import tables
from mlgraph._support.array_types import Bool, Float64, Ids, Int32
from mlgraph._support.attributes import hint
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
from mlgraph.graph.views import Neuron, name_of
from mlgraph.models.layer import Layer
from mlgraph.models.model import Model
from mlgraph.models.running import evaluate, read, read_with_targets
from mlgraph_ext import _topology

if TYPE_CHECKING:
    import pandas

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
"""Columns of the table that `inspect` returns."""

ABLATED = np.dtype([("node", np.int32), ("loss", np.float64), ("accuracy", np.float64)])
"""Columns of the table that `ablation_table` returns."""

MOST_VALUES = 2**26
"""Maximum number of values computed at a time, which bounds the memory."""


class Table(np.ndarray[Any, np.dtype[Any]]):
    """A structured array whose repr is a table, and a mapping from names to columns, which are plain arrays.

    ``list(table)`` and ``len(table)`` are those of its rows; ``dict(table)`` has its columns.
    """

    def keys(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.dtype.names or ()

    def items(self) -> list[tuple[str, npt.NDArray[Any]]]:
        """Names and columns."""
        return [(name, self[name]) for name in self.keys()]

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas frame of the same rows and columns; an ImportError if pandas is not installed."""
        return tables.to_pandas(dict(self.items()))

    def __contains__(self, name: Any) -> bool:
        return name in self.keys() if isinstance(name, str) else super().__contains__(name)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str) and key not in self.keys():
            end = hint(key, {}, self.keys())
            raise KeyError(f"table: no column {key!r}{end}; columns: {', '.join(self.keys())}")
        found = super().__getitem__(key)
        return found.view(np.ndarray) if isinstance(found, Table) and found.dtype.names is None else found

    def __repr__(self) -> str:
        if self.dtype.names is None or self.ndim != 1:
            return repr(self.view(np.ndarray))
        return f"{tables.to_text(*self._cells())}\n[{len(self)} rows, a structured array: table['node'] is a column]"

    __str__ = __repr__

    def _repr_html_(self) -> str | None:
        if self.dtype.names is None or self.ndim != 1:
            return None
        return f"{tables.to_html(*self._cells())}\n<p>{len(self)} rows</p>"

    def _cells(self) -> tuple[tuple[str, ...], list[list[str]]]:
        return self.dtype.names or (), tables.some_rows(len(self), lambda i: self[i].item())


def inspect(model: Model, x: npt.ArrayLike, y: npt.ArrayLike | None, n_threads: int | None) -> Table:
    """Compute a table with a row for each neuron; `Model.inspect` documents the parameters and columns."""
    examples, objective = (read(model, x, model.sinks), None) if y is None else read_with_targets(model, x, y)
    examples.check_any()
    graph, codes = model.graph, model.graph.codes
    ids = np.flatnonzero(codes >= NEURON).astype(np.int32)
    if not len(ids):
        raise ValueError(
            "inspect: this model has no neurons, which the rows describe; "
            "model.trace(x) has the values of its other nodes"
        )
    layer = model.layer_numbers()[ids]
    order = np.lexsort((ids, layer))
    ids, layer = ids[order], layer[order]
    alive = graph.alive()[ids]
    _, first, group = np.unique(layer, return_index=True, return_inverse=True)
    table = np.zeros(len(ids), COLUMNS).view(Table)
    table["layer"] = layer
    if model.layers:
        table["layer"][layer == len(model.layers)] = -1
    table["index"] = np.arange(len(ids)) - first[group]
    table["node"] = ids
    table["alive"] = alive
    table["loss"] = table["accuracy"] = np.nan

    with np.errstate(all="ignore"):  # values that are not finite appear in the table
        mean, mean_square, active, magnitude = _moments(model, ids[alive], examples, n_threads)
        table["mean"][alive], table["active"][alive] = mean, active
        table["std"][alive] = np.sqrt(np.maximum(mean_square - mean**2, 0))
        total, n = (np.bincount(group[alive], weights, minlength=len(first)) for weights in (magnitude, None))
        of_layer = (total / np.maximum(n, 1))[group[alive]]
        table["dormant"][alive] = np.divide(magnitude, of_layer, out=np.zeros(len(mean)), where=of_layer > 0)

        edges = wiring(graph)
        squares = graph.parameters[edges.place].astype(np.float64) ** 2
        table["fan_in"] = graph.counts[ids]
        table["fan_out"] = np.bincount(edges.source, minlength=len(graph))[ids]
        for name, ends in (("norm_in", edges.target), ("norm_out", edges.source)):
            table[name] = np.sqrt(np.bincount(ends, squares, len(graph)))[ids]
        table["bias"] = biases(graph, ids, missing=np.nan)

        if objective is not None:
            baseline = evaluate(model, examples, objective, n_threads)
            # Neurons of a layer may depend on each other; neurons of one level do not.
            levels = levels_of(graph)[ids]
            for level in np.unique(levels).tolist():
                rows = levels == level
                ablated = _ablated(model, ids[rows], examples, objective, baseline, n_threads)
                table["loss"][rows] = ablated["loss"] - baseline["loss"]
                table["accuracy"][rows] = baseline.get("accuracy", np.nan) - ablated["accuracy"]
    return table


def _moments(model: Model, ids: Int32, examples: Examples, n_threads: int | None) -> Float64:
    """Mean, mean square, fraction active and mean magnitude of neurons over examples: shape (4, neurons)."""
    graph = model.graph
    at_zero = np.array([op.value(0.0) if op.name in ops.ACTIVATIONS else np.nan for op in ops.BY_CODE])
    inactive = at_zero[graph.codes[ids] - NEURON]
    sums = np.zeros((4, len(ids)))
    size = max(1, MOST_VALUES // max(1, len(graph)))
    engine = Engine(graph, Plan(graph, [*model.sinks, *ids.tolist()], split=True))
    for start in range(0, len(examples), size):
        chunk = Examples(examples.array[start : start + size], examples.array.shape[1])
        _, values, _ = engine.compute(chunk, values=ids, n_threads=n_threads)
        sums += [
            values.sum(axis=0, dtype=np.float64),
            np.einsum("ij,ij->j", values, values, dtype=np.float64),
            (values > inactive).sum(axis=0),
            np.abs(values).sum(axis=0, dtype=np.float64),
        ]
    return np.asarray(sums / len(examples))


def ablate(model: Model, what: Any, x: npt.ArrayLike, y: npt.ArrayLike, n_threads: int | None) -> dict[str, float]:
    """Evaluate a model without some neurons or edges; `Model.ablate` documents the parameters."""
    examples, objective = read_with_targets(model, x, y)
    edges = edges_named(model.graph, what, "ablate", model.sinks)
    return evaluate(model, examples, objective, n_threads, _engine_without(model, *edges))


def _engine_without(model: Model, edges: Wiring, gone: Bool) -> Engine:
    """Engine of the model without these edges; ValueError if an output would be cut off."""
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
    """Evaluate a model without each neuron of a layer; `Model.ablation_table` documents the parameters."""
    graph = model.graph
    examples, objective = read_with_targets(model, x, y)
    ids = np.array(ids_of(graph, "layer", layer.neurons if isinstance(layer, Layer) else layer), np.int32)
    if (graph.codes[ids] < NEURON).any():
        raise TypeError("layer: some nodes are not neurons")
    return _ablated(model, ids, examples, objective, evaluate(model, examples, objective, n_threads), n_threads)


def _ablated(
    model: Model,
    ids: Int32,
    examples: Examples,
    objective: Objective,
    baseline: dict[str, float],
    n_threads: int | None,
) -> Table:
    """Scores without each of these neurons; `baseline` are the scores of the unchanged model."""
    graph, outputs = model.graph, model.sinks
    table = np.zeros(len(ids), ABLATED).view(Table)
    table["node"], table["loss"], table["accuracy"] = ids, baseline["loss"], baseline.get("accuracy", np.nan)
    is_output = np.isin(ids, outputs)
    table["loss"][is_output] = table["accuracy"][is_output] = np.nan
    topology = graph.topology()
    level, order = topological(graph, topology, outputs)
    # A neuron may be alive only because another model needs it; then this model's scores do not
    # change.
    rows = np.flatnonzero(graph.alive()[ids] & ~is_output & (level[ids] >= 0))
    if not len(rows):
        return table
    boundary, is_only_source = _downstream(graph, topology, order, outputs, ids[rows])
    # Setting a neuron to 0 differs from cutting it where it is the only source of another neuron.
    # Such neurons are cut one by one. So is a single neuron, which has no work to share.
    is_cut = is_only_source[ids[rows]] if len(rows) > 1 else np.ones(1, bool)
    for i in rows[is_cut].tolist():
        edges = edges_named(graph, ids[i : i + 1], "ablation_table", outputs)
        try:
            engine = _engine_without(model, *edges)
        except ValueError:  # an output would be cut off
            table["loss"][i] = table["accuracy"][i] = np.nan
            continue
        scores = evaluate(model, examples, objective, n_threads, engine)
        table["loss"][i], table["accuracy"][i] = scores["loss"], scores.get("accuracy", np.nan)
    rows = rows[~is_cut]
    if not len(rows):
        return table

    # Compute the nodes above the boundary once. The nodes below it are evaluated once for each
    # neuron, as a graph whose inputs are the boundary, with zeros in the column of the neuron.
    column_of = np.full(len(graph), -1)
    column_of[boundary] = np.arange(len(boundary))
    sums, size = np.zeros((len(ids), 2)), max(1, MOST_VALUES // max(1, len(boundary)))
    lower = graph.copy()  # each plan lays out the parameters of its graph
    lower.storage.state.clear()
    engine = Engine(lower, Plan(lower, outputs, given=boundary))
    upper = Engine(graph, Plan(graph, [*outputs, *boundary.tolist()], split=True))
    for start in range(0, len(examples), size):
        here = slice(start, start + size)
        chunk = Examples(examples.array[here], examples.array.shape[1])
        values, answers = upper.compute(chunk, values=boundary, n_threads=n_threads)[1], objective.of(here)
        for i in rows.tolist():
            column = values[:, column_of[ids[i]]]
            kept = column.copy()
            column[:] = 0
            # A new object each time: Examples caches facts about its numbers.
            scores = evaluate(model, Examples(values, len(boundary)), answers, n_threads, engine)
            column[:] = kept
            sums[i] += np.array([scores["loss"], scores.get("accuracy", np.nan)]) * (len(chunk) / len(examples))
    table["loss"][rows], table["accuracy"][rows] = sums[rows].T
    return table


def _downstream(graph: Graph, topology: Topology, order: Int32, outputs: list[int], ids: Int32) -> tuple[Int32, Bool]:
    """Split the graph below the neurons `ids`, which must not depend on each other.

    Returns
    -------
    boundary : int32, shape (nodes,)
        Nodes that the nodes downstream of `ids` read and that are not downstream themselves.
    is_only_source : bool, shape (nodes of the graph,)
        Whether a node is the only live source of a node downstream.
    """
    count = topology.counts
    is_below = np.zeros(len(graph), np.uint8)
    is_below[ids] = 1
    _topology.spread(*topology, order, is_below)
    dependent = np.repeat(ids, count[ids])[is_below[topology.sources_of(ids)] > 0]
    if len(dependent):
        name = name_of(graph, int(dependent[0]))
        raise ValueError(f"layer: neurons must not depend on each other, but {name} depends on another one")
    is_below[ids] = 0
    nodes = order[is_below[order] > 0]
    sources = topology.sources_of(nodes)
    # Outputs that are not downstream belong to the boundary, too.
    outputs_above = [i for i in outputs if not is_below[i]]
    boundary = np.unique(np.concatenate([sources[is_below[sources] == 0], outputs_above])).astype(np.int32)
    boundary = boundary[~np.isin(graph.codes[boundary], [CONSTANT, PARAMETER])]
    first, live = np.cumsum(count[nodes]) - count[nodes], is_live(graph.codes, topology, order)[sources]
    least = np.minimum.reduceat(np.where(live, sources, len(graph)), first)
    most = np.maximum.reduceat(np.where(live, sources, -1), first)
    is_only_source = np.zeros(len(graph), bool)
    is_only_source[least[least == most]] = True
    return boundary, is_only_source
