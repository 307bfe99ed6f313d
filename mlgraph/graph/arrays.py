"""A graph's edges, neurons and parameters as arrays, and their places in the parameter vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Int32, Int64
from mlgraph._support.checks import integer_row
from mlgraph.graph import ops
from mlgraph.graph.ops import NEURON, PARAMETER
from mlgraph.graph.topology import gather, runs, topological
from mlgraph_ext import _topology

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph

T = TypeVar("T", bound=np.generic)

FEW_PAIRS = 4096
"""Number of pairs up to which all numbers are compared with all others."""


class Edges(NamedTuple):
    """Edges as arrays.

    Attributes
    ----------
    source, target : int32, shape (edges,)
        Ids of nodes and neurons.
    weight : float32, shape (edges,)
    """

    source: Int32
    target: Int32
    weight: Float32


def ends_of(what: str, edges: Edges) -> tuple[Int64, Int64]:
    """The sources and targets of `edges`; a TypeError or ValueError unless both are rows of integers of one length."""
    source, target = integer_row(f"{what}: source", edges.source), integer_row(f"{what}: target", edges.target)
    if len(source) != len(target):
        raise ValueError(f"{what}: expected {len(source)} targets, one for each source, got {len(target)}")
    return source, target


class Neurons(NamedTuple):
    """Neurons as arrays.

    Attributes
    ----------
    node : int32, shape (neurons,)
        Ids.
    activation : str, shape (neurons,)
    bias : float32, shape (neurons,)
        0 where there is none.
    """

    node: Int32
    activation: npt.NDArray[np.str_]
    bias: Float32


class Wiring(NamedTuple):
    """The edges into some neurons, grouped by neuron, each neuron's in the order of its sources.

    Attributes
    ----------
    neurons, counts : int32, shape (neurons,)
        Id of each neuron and number of edges into it.
    source : int32, shape (edges,)
    place : int64 or int32, shape (edges,)
        Place of each weight in the parameter vector.
    """

    neurons: Int32
    counts: Int32
    source: Int32
    place: Int64 | Int32

    @property
    def target(self) -> Int32:
        """The target of each edge, int32 of shape (edges,); computed at each access."""
        return np.repeat(self.neurons, self.counts)

    def at_targets(self, values: npt.NDArray[T]) -> npt.NDArray[T]:
        """``values[self.target]`` for values of all nodes of the graph, with less work."""
        return np.repeat(values[self.neurons], self.counts)

    def of(self, neurons: Bool) -> Wiring:
        """The edges into the neurons where the mask `neurons` is set."""
        if neurons.all():
            return self
        edges = np.repeat(neurons, self.counts)
        return Wiring(self.neurons[neurons], self.counts[neurons], self.source[edges], self.place[edges])

    def concatenated(self, other: Wiring) -> Wiring:
        """These edges followed by those of `other`."""
        neurons, counts, source, place = (
            np.concatenate([mine, theirs]) for mine, theirs in zip(self, other, strict=True)
        )
        return Wiring(neurons, counts, source, place)

    def without(self, edges: Bool) -> tuple[Wiring, NewWiring]:
        """The neurons that lose some of these edges: with all their edges, and with those that remain."""
        counts = self.counts - _sums(edges, self.counts)
        lose = counts != self.counts
        old, left = self.of(lose), ~edges[np.repeat(lose, self.counts)]
        return old, NewWiring(old.neurons, counts[lose], old.source[left], np.flatnonzero(left).astype(np.int32))


class NewWiring(NamedTuple):
    """The edges that some neurons will have after an edit, grouped as in `Wiring`.

    Attributes
    ----------
    neurons, counts : int32, shape (neurons,)
    source : int32, shape (edges,)
    previous : int32, shape (edges,)
        Index of each edge among the present edges of these neurons; -1 for a new edge.
    """

    neurons: Int32
    counts: Int32
    source: Int32
    previous: Int32


def wiring(graph: Graph, neurons: Int32 | None = None, places: tuple[Int64, Int64] | None = None) -> Wiring:
    """The edges into these neurons, by default into all.

    `places` are the columns `weights` and `stride` of all records if the weights are in a vector of
    another layout.
    """
    if neurons is None:
        neurons = np.flatnonzero(graph.codes >= NEURON).astype(np.int32)
    # Views, because copies of whole columns are most of the work for a few neurons.
    start, counts, record = (np.frombuffer(c, c.typecode)[neurons] for c in (graph._start, graph._count, graph._data))
    columns = places or (np.frombuffer(c, c.typecode) for c in (graph.storage.weights, graph.storage.stride))
    at, stride = (column[record].astype(np.int64, copy=False) for column in columns)
    source = gather(np.frombuffer(graph._pool, np.int32), start, counts)
    return Wiring(neurons, counts, source, runs(at, stride, counts, graph.storage.used))


def edge_keys(graph: Graph, source: Int32 | Int64, target: Int32 | Int64) -> Int64:
    """A number for each edge, unique and ascending by target, then by source; int64 of shape (edges,)."""
    return target.astype(np.int64) * len(graph) + source


def are_in(values: Int64, among: Int64) -> Bool:
    """`numpy.isin`, which takes 20 us for a few numbers."""
    if len(values) * len(among) <= FEW_PAIRS:
        return np.asarray((values[:, None] == among).any(axis=1))
    return np.isin(values, among)


def edges(graph: Graph, vector: Float32 | None = None, places: tuple[Int64, Int64] | None = None) -> Edges:
    """See `Graph.edges`; with `vector`, its values are returned instead of the weights."""
    alive = graph.alive()
    into = wiring(graph, np.flatnonzero(alive & (graph.codes >= NEURON)).astype(np.int32), places)
    there = alive[into.source]
    vector = graph.parameters if vector is None else vector
    return Edges(into.source[there], into.target[there], vector[into.place[there]])


def neurons(graph: Graph) -> Neurons:
    """See `Graph.neurons`."""
    _, order = topological(graph, graph.topology())
    node = order[graph.alive()[order] & (graph.codes[order] >= NEURON)]
    return Neurons(node, np.array([op.name for op in ops.BY_CODE])[graph.codes[node] - NEURON], biases(graph, node))


def bias_places(graph: Graph, nodes: npt.NDArray[Any] | slice) -> Int64:
    """Places of the biases of neurons or parameter nodes; -1 where there is none."""
    return np.asarray(np.array(graph.storage.bias, np.int64)[graph.records[nodes]])


def biases(graph: Graph, nodes: npt.NDArray[Any], missing: float = 0.0) -> Float32:
    """Biases of neurons, with the value `missing` where there is none."""
    places = bias_places(graph, nodes)
    out, has = np.full(len(places), missing, np.float32), places >= 0
    out[has] = graph.parameters[places[has]]
    return out


def parameter_places(
    graph: Graph, nodes: npt.NDArray[Any] | None = None, places: tuple[Int64, Int64, Int64] | None = None
) -> Int64:
    """Places of all parameters of these nodes, by default of all nodes.

    First come weights and the values of parameter nodes, node by node, a neuron's weights in the
    order of its sources; then biases. With `places`, earlier `Storage.places`, the result is that
    of the earlier layout.
    """
    nodes, codes = np.arange(len(graph)) if nodes is None else nodes, graph.codes
    owner = nodes[codes[nodes] >= PARAMETER]
    record = graph.records[owner]
    n = np.where(codes[owner] >= NEURON, graph.counts[owner], 1)
    at, stride, bias = (column[record] for column in places or graph.storage.places)
    bias = bias[bias >= 0]
    found = np.empty(int(n.sum()) + len(bias), np.int64)  # numpy would convert int32 at each use
    weights, biases = np.split(found, [len(found) - len(bias)])
    _topology.runs(at, stride, n.astype(np.int64), weights)
    biases[:] = bias
    return found


def values(graph: Graph) -> dict[str, Float32]:
    """The parameters, named "", and the state vectors, in the order of `parameter_places`."""
    places = parameter_places(graph)
    return {name: vector[places] for name, vector in graph.storage.vectors().items()}


def _sums(mask: Bool, count: Int32) -> Int32:
    """Number of elements set in each of the consecutive segments of these lengths."""
    sums, some = np.zeros(len(count), np.int32), count > 0
    if some.any():
        sums[some] = np.add.reduceat(mask, (np.cumsum(count) - count)[some], dtype=np.int32)
    return sums
