"""Which nodes of a level are one instruction of a plan: operations of one kind, dense blocks, rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlgraph._support.array_types import Bool, Int32, Int64
from mlgraph.compiler.lowering import Lowered
from mlgraph.graph import ops
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import INPUT, NEURON
from mlgraph_ext import _topology

Dropout = Sequence[tuple[Sequence[int], float, float]]
"""For ids of neurons: the share of neurons and of edges that a training step drops."""

DENSE_FROM = 8
"""Neurons that must share their sources to be a dense block: `PANEL` of them cost about as much as half as many rows."""

DENSE_BESIDE = 32
"""The same for neurons that read at most half of the data's columns, or whose level has mostly neurons of other sources.

A smaller group becomes rows, and all rows together may then be filled up to one block that skips zeros of the data
(filling.py): so layers cut in blocks of 8 or 16 neurons take a quarter to four fifths of the time. Larger groups are faster
as blocks, 1.7 times if the data have no zeros. A group that reads more than half of the columns, but not all, becomes rows.
"""


class Groups(NamedTuple):
    """Nodes group by group, level by level; each group is one instruction.

    Attributes
    ----------
    nodes : int32, shape (nodes,)
    first, size : int64, shape (groups,)
        Group i is ``nodes[first[i] : first[i] + size[i]]``.
    dense : bool, shape (groups,)
        Whether its neurons share their sources, and are a dense block.
    alike : int32, shape (nodes,)
        For each neuron, how many nodes of its group from it on have its list of sources; for other nodes 1.
    """

    nodes: Int32
    first: Int64
    size: Int64
    dense: Bool
    alike: Int32


def group(graph: Graph, low: Lowered, nodes: Int32, dropout: Dropout, beside: Bool) -> Groups:
    """Group nodes that are no inputs; `dropout` as for `Plan`. Those that are `beside` have groups of their own."""
    kind, shape, detail, lead = _keys(graph, low, nodes, dropout)
    detail = 2 * detail + beside[nodes]
    keys: list[Int32 | Int64] = [low.level[nodes], kind, shape, detail]
    order = np.lexsort([nodes, lead, *keys[::-1]])
    ends = np.zeros(len(nodes), bool)
    ends[-1:] = True
    for key in keys:
        key = key[order]
        ends[:-1] |= key[1:] != key[:-1]
    bounds = np.append(0, np.flatnonzero(ends) + 1)
    first = bounds[:-1]
    dense = (kind >= NEURON)[order[first]] & (shape >= 0)[order[first]]
    # Groups end runs, too: neurons of several may have one list.
    lead = lead[order]
    ends[:-1] |= lead[1:] != lead[:-1]
    stops = np.flatnonzero(ends) + 1
    alike = np.repeat(stops, np.diff(np.append(0, stops))) - np.arange(len(nodes))
    return Groups(nodes[order], first, np.diff(bounds), dense, alike.astype(np.int32))


def _keys(graph: Graph, low: Lowered, nodes: Int32, dropout: Dropout) -> tuple[Int64, Int64, Int64, Int32]:
    """Three keys that are equal for nodes of one level that one instruction may compute, and a key that orders them in it.

    For a neuron, the second is the number of its source list if enough neurons have that list, else -1. The last is one of
    the neurons that have the same list, so that these stand side by side; for other nodes it is the node.
    """
    kind = low.like[nodes].astype(np.int64)
    shape = low.topology.counts[nodes].astype(np.int64)
    detail = np.zeros(len(nodes), np.int64)
    at = np.flatnonzero(kind >= NEURON)
    neurons = nodes[at]
    if len(neurons) == 0:
        return kind, shape, detail, nodes
    for i, (ids, _, _) in enumerate(dropout):
        detail[at[np.isin(neurons, ids)]] = 4 * (i + 1)
    written = low.written[neurons]
    found = written >= 0
    has_bias = np.zeros(len(neurons), bool)
    has_bias[found] = low.bias[written[found]] >= 0
    has_bias[~found] = np.array(graph.storage.bias, np.int64)[low.data[neurons[~found]]] >= 0
    detail[at] += 2 * found + has_bias
    which = np.empty(len(neurons), np.int64)
    start, counts, pool = low.topology
    _topology.same_lists(start[neurons], counts[neurons], pool, which)
    several = int(detail.max()) + 1
    alike = (kind[at] - NEURON) * several + detail[at]
    _, one, inverse, size = np.unique(
        which * (len(ops.ACTIVATIONS) + 1) * several + alike, return_index=True, return_inverse=True, return_counts=True
    )
    size = size[inverse]
    shape[at] = -1
    if size.max() >= DENSE_FROM:
        beside = low.level[neurons] * (len(ops.ACTIVATIONS) + 1) * several + alike
        shape[at] = np.where(_are_dense(low, neurons[which], size, beside), which, -1)
    lead = nodes.copy()
    lead[at] = neurons[one[inverse]]
    return kind, shape, detail, lead


def _are_dense(low: Lowered, lead: Int32, size: Int64, beside: Int64) -> Bool:
    """Which neurons are in dense blocks.

    For each neuron, `lead` is one that has its list, `size` how many have it, and `beside` a key that is equal for neurons
    that it stands beside.
    """
    read = _columns_read(low, lead, size >= DENSE_FROM)
    n_inputs = np.count_nonzero(low.code[low.order] == INPUT)
    few = size < DENSE_BESIDE
    rows = (0 < read) & (read < n_inputs) & (few | (2 * read > n_inputs))
    # A few neurons beside many others are better as rows, which may be filled all together.
    _, of, total = np.unique(beside, return_inverse=True, return_counts=True)
    rows |= few & (2 * size < total[of])
    return np.asarray((size >= DENSE_FROM) & ~rows)


def _columns_read(low: Lowered, lead: Int32, some: Bool) -> Int64:
    """How many columns each of `some` neurons reads, 0 if it reads other nodes, too; `lead`: one that has its list."""
    lists, where = np.unique(lead[some], return_inverse=True)
    n = low.topology.counts[lists].astype(np.int64)
    is_input = low.code[low.topology.sources_of(lists)] == INPUT
    read = np.bincount(np.repeat(np.arange(len(lists)), n), is_input, len(lists))
    columns = np.zeros(len(lead), np.int64)
    columns[some] = np.where(read == n, n, 0)[where]
    return columns
