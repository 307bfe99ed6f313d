"""A graph's storage without gaps: each list of sources once, and the parameters, for some nodes or for all in place."""

from __future__ import annotations

from array import array
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Int32, Int64
from mlgraph._support.interrupts import uninterrupted
from mlgraph.graph.arrays import Wiring
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER
from mlgraph.graph.storage import PANEL, extend
from mlgraph.graph.topology import gather, index_type, runs
from mlgraph_ext import _topology

SMALL = 1024
"""Elements that may be unused, however few are in use."""


class Lists(NamedTuple):
    """Lists of sources, each once: where the list of each node begins, int64, and the ids in them, int32."""

    start: Int64
    pool: Int32


def shared_lists(edges: Wiring) -> Lists:
    """The lists of some neurons. Neurons that lost the same source share one."""
    return once_each(
        np.cumsum(edges.counts) - edges.counts, edges.counts, edges.source, np.zeros(len(edges.counts), bool)
    )


def once_each(start: Int64, count: Int32, pool: Int32, apart: Bool) -> Lists:
    """Equal lists once; nodes that are to stay `apart` have lists of their own."""
    first = np.empty(len(start), np.int64)
    _topology.same_lists(start, count, pool, first)
    first[apart] = np.flatnonzero(apart)
    length = np.where(first == np.arange(len(first)), count, 0)
    return Lists((np.cumsum(length) - length)[first], gather(pool, start, length))


class Packed(NamedTuple):
    """The storage of some nodes without gaps: columns as those of a graph, and where each parameter stands now."""

    start: Int64
    pool: Int32
    weights: Int64
    stride: Int64
    bias: Int64
    origin: npt.NDArray[Any]


def packed(graph: Graph, nodes: Int64) -> Packed:
    """Lists of sources that some of these nodes reads, once each; weights record by record, and behind them the biases."""
    start, count, pool = graph.topology()
    # A file of operations that share arguments might claim more of these than there is memory for.
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
    return Packed(*lists, ends - n, np.ones(len(n), np.int64), new_bias, origin)


def _owners(graph: Graph, nodes: Int64) -> tuple[Int64, Int64]:
    """Those of the nodes that have records, in the order of these; the records."""
    owner = nodes[graph.codes[nodes] >= PARAMETER]
    record = graph.records[owner]
    order = np.argsort(record)
    return owner[order], record[order]


def compacted(graph: Graph, keep: Bool) -> tuple[Graph, Int64]:
    """A graph of only these nodes, with its own parameters and optimizer state; the number of each node in it.

    None of these nodes may read one that is dropped. All inputs stay.
    """
    keep = keep | (graph.codes == INPUT)
    nodes, number = np.flatnonzero(keep), np.where(keep, np.cumsum(keep) - 1, -1)
    new, code, data = packed(graph, nodes), graph.codes[nodes], graph.records[nodes]
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
    ):
        extend(column, numbers)
    other.has_bare = graph.has_bare
    other.names = {int(number[node]): name for node, name in graph.names.items() if keep[node]}
    storage = other.storage = graph.storage.copy()
    for column in storage.columns:
        column[:] = array(column.typecode, np.array(column)[record].tobytes())
    storage.move(new.origin, new.weights, new.stride, new.bias)
    return other, number


def in_use(graph: Graph) -> int:
    """Elements of the pool and of the parameter vector that some node needs."""
    start, count = np.array(graph._start, np.int64), graph.counts
    reads = np.flatnonzero(count)
    _, first = np.unique(start[reads], return_index=True)
    return int(count[reads[first]].sum()) + graph.n_parameters


def pack(graph: Graph, *, most: float = 1.0) -> None:
    """Pack the storage if more than `most` times as many elements are unused as in use."""
    there = len(graph._pool) + graph.storage.used
    if there <= SMALL:
        return
    with suppress(MemoryError):  # an edit that is made counts, and what is unused is only room
        if there <= (1 + most) * in_use(graph) + SMALL:  # counting is most of the work of a small edit
            return
        new = packed(graph, np.arange(len(graph)))
        start, pool = array("q", new.start.tobytes()), array("i", new.pool.tobytes())
        with uninterrupted():
            graph._start, graph._pool = start, pool
        graph.storage.move(new.origin, new.weights, new.stride, new.bias)
