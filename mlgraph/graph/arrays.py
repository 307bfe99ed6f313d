"""A graph's edges, neurons and parameters as arrays, and their places in the parameter vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Int32, Int64, UInt8
from mlgraph._support.checks import integer_row
from mlgraph.graph import ops
from mlgraph.graph.ops import NEURON, PARAMETER
from mlgraph.graph.topology import index_type, topological
from mlgraph_ext import _topology

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph

T = TypeVar("T", bound=np.generic)


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
        old, counts = self, np.empty_like(self.counts)
        losing, n_left = _topology.count_left(self.counts, edges.view(np.uint8), counts)
        if losing < len(counts):
            lose = counts != self.counts
            old, counts, edges = self.of(lose), counts[lose], edges[np.repeat(lose, self.counts)]
        source, previous = np.empty(n_left, np.int32), np.empty(n_left, np.int32)
        _topology.edges_left(old.source, edges.view(np.uint8), source, previous)
        return old, NewWiring(old.neurons, counts, source, previous)


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
    storage, counts = graph.storage, np.empty(len(neurons), np.int32)
    n = _topology.counts_of(neurons, graph._count, counts)
    source = np.empty(n, np.int32)
    place: npt.NDArray[Any] = np.empty(n, index_type(storage.used))
    weights, stride = (storage.weights, storage.stride) if places is None else (places[0], places[1].astype(np.int32))
    lists = graph._start, graph._count, graph._data, graph._pool
    _topology.edges_into(neurons, *lists, weights, stride, source, place)
    return Wiring(neurons, counts, source, place)


def edge_keys(graph: Graph, source: Int32 | Int64, target: Int32 | Int64) -> Int64:
    """A number for each edge, unique and ascending by target, then by source; int64 of shape (edges,)."""
    return target.astype(np.int64) * len(graph) + source


def matches(graph: Graph, edges: Wiring, source: Int64, target: Int64) -> tuple[UInt8, UInt8]:
    """Find wanted edges, given by source and target, among `edges`.

    Returns
    -------
    uint8, shape (edges,)
        1 where the edge is wanted, otherwise 0.
    uint8, shape (wanted,)
        1 if the edge is there; 2 if it is not, but leads into one of the neurons and was wanted before; otherwise 0.
    """
    found, there = np.zeros(len(edges.source), np.uint8), np.empty(len(source), np.uint8)
    wanted = np.ascontiguousarray(source, np.int64), np.ascontiguousarray(target, np.int64)
    _topology.match_edges(edges.neurons, edges.counts, edges.source, *wanted, len(graph), found, there)
    return found, there


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
