"""Storage without gaps: equal lists of sources are stored once, and parameters are contiguous.

`compact` does this in place, `compacted` makes a graph of some of the nodes.
"""

from __future__ import annotations

from array import array
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Int32, Int64
from mlgraph._support.interrupts import uninterrupted
from mlgraph.graph.arrays import NewWiring
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER
from mlgraph.graph.randomness import generator_at, state_of
from mlgraph.graph.storage import PANEL, column_of, extend
from mlgraph.graph.topology import gather, index_type, runs
from mlgraph_ext import _topology

SMALL = 1024
"""Number of unused elements that is always tolerated."""


class Lists(NamedTuple):
    """Distinct lists of sources: where the list of each node starts, int64, and all lists concatenated, int32."""

    start: Int64
    pool: Int32


def shared_lists(edges: NewWiring) -> Lists:
    """The lists of sources of some neurons; neurons that lost the same source share one list."""
    if len(edges.counts) == 1:
        return Lists(np.zeros(1, np.int64), edges.source)
    apart = np.zeros(len(edges.counts), bool)
    return once_each(np.cumsum(edges.counts) - edges.counts, edges.counts, edges.source, apart)


def once_each(start: Int64, count: Int32, pool: Int32, apart: Bool) -> Lists:
    """Store equal lists once; the nodes where `apart` is set do not share theirs."""
    first = np.empty(len(start), np.int64)
    _topology.same_lists(start, count, pool, first)
    first[apart] = np.flatnonzero(apart)
    length = np.where(first == np.arange(len(first)), count, 0)
    return Lists((np.cumsum(length) - length)[first], gather(pool, start, length))


class CompactStorage(NamedTuple):
    """The storage of some nodes without gaps.

    Attributes
    ----------
    start, pool
        As in `mlgraph.graph.topology.Topology`.
    weights, stride, bias, origin
        As for `mlgraph.graph.storage.Storage.move`.
    """

    start: Int64
    pool: Int32
    weights: array[int]
    stride: array[int]
    bias: array[int]
    origin: npt.NDArray[Any]


def compact_storage(graph: Graph, nodes: Int64) -> CompactStorage:
    """The storage of these nodes without gaps: all weights, record by record, then all biases."""
    start, count, pool = graph.topology()
    # Operations do not share lists: a malicious file could make shared lists expand to more than
    # the memory.
    lists = once_each(start[nodes], count[nodes], pool, graph.codes[nodes] < NEURON)
    owner, record = _owners(graph, nodes)
    n = np.where(graph.codes[owner] >= NEURON, count[owner], 1)
    ends = np.cumsum(n)
    at, stride, bias = (column[record] for column in graph.storage.places)
    has = bias >= 0
    new_bias = np.where(has, n.sum() + np.cumsum(has) - 1, -1)
    padding = np.full(-(int(n.sum()) + np.count_nonzero(has)) % PANEL, -1)
    used = graph.storage.used
    origin: npt.NDArray[Any] = np.concatenate([runs(at, stride, n, used), bias[has], padding], dtype=index_type(used))
    columns = column_of("q", ends - n), array("i", [1]) * len(n), column_of("q", new_bias)
    return CompactStorage(*lists, *columns, origin)


def _owners(graph: Graph, nodes: Int64) -> tuple[Int64, Int64]:
    """Those of the nodes that have records, in the order of their records; and these records."""
    owner = nodes[graph.codes[nodes] >= PARAMETER]
    record = graph.records[owner]
    order = np.argsort(record)
    return owner[order], record[order]


def compacted(graph: Graph, keep: Bool) -> tuple[Graph, Int64]:
    """A graph of some of the nodes, with its own parameters, optimizer state and generator.

    Parameters
    ----------
    keep : bool, shape (nodes,)
        The nodes to keep besides all inputs; none of them may read a node that is dropped.

    Returns
    -------
    Graph
    int64, shape (nodes,)
        The new id of each node; -1 for nodes that were dropped.
    """
    keep = keep | (graph.codes == INPUT)
    nodes, number = np.flatnonzero(keep), np.where(keep, np.cumsum(keep) - 1, -1)
    new, code, data = compact_storage(graph, nodes), graph.codes[nodes], graph.records[nodes]
    owner, record = _owners(graph, nodes)
    other, constant = Graph(), code == CONSTANT
    other.constants.extend(np.array(graph.constants)[data[constant]].tolist())
    data[constant] = np.arange(np.count_nonzero(constant))
    data[np.searchsorted(nodes, owner)] = np.arange(len(owner))
    for column, numbers in (
        (other._code, code),
        (other._start, new.start),
        (other._count, graph.counts[nodes]),
        (other._data, data),
        (other.born, np.full(len(nodes), -1)),
        (other._pool, number[new.pool]),
        (other.input_ids, number[np.array(graph.input_ids, np.int64)]),
        (other.differentiated, number[[i for i in graph.differentiated if keep[i]]]),
    ):
        extend(column, numbers)
    other.has_bare, other.random = graph.has_bare, generator_at(state_of(graph.random))
    other.names = {int(number[node]): name for node, name in graph.names.items() if keep[node]}
    storage = other.storage = graph.storage.copy()
    for column in storage.columns:
        column[:] = array(column.typecode, np.array(column)[record].tobytes())
    storage.move(new.origin, new.weights, new.stride, new.bias)
    return other, number


def in_use(graph: Graph) -> int:
    """Elements of the pool and of the parameter vector that some node uses."""
    return _topology.in_use(graph._code, graph._start, graph._count, len(graph._pool), graph.storage.bias)


def compact(graph: Graph, *, most: float = 1.0) -> None:
    """Close the gaps in the storage if the unused elements exceed `most` times those in use."""
    there = len(graph._pool) + graph.storage.used
    if there <= SMALL:
        return
    with suppress(MemoryError):  # the edit has been made; gaps only waste memory
        if there <= (1 + most) * in_use(graph) + SMALL:
            return
        new = compact_storage(graph, np.arange(len(graph)))
        start, pool = array("q", new.start.tobytes()), array("i", new.pool.tobytes())
        with uninterrupted():
            graph._start, graph._pool = start, pool
        graph.storage.move(new.origin, new.weights, new.stride, new.bias)
