"""The second pass: lowered nodes go in, groups that one instruction can compute come out.

A group holds nodes of one level: operations of one kind, neurons that share their sources (a dense
block), or other neurons (sparse rows).
"""

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
"""For each layer: ids of its neurons, and the fractions of neurons and of edges that a step drops."""

DENSE_FROM = 8
"""Minimum number of neurons with the same sources for a dense block.

A block of fewer than PANEL neurons is padded to PANEL, and costs about as much as half as many rows.
"""

DENSE_AMONG_OTHERS = 32
"""The same minimum for groups that would do better as rows.

These are groups that read at most half of the data's columns, and groups that are a minority on their
level. All rows of a level together may become one dense block with holes, which skips zeros in the data
(holes.py): layers pruned in blocks of 8 or 16 neurons then take 25 to 80 % of the time. Larger groups are
faster as blocks of their own, 1.7 times if the data have no zeros. A group that reads more than half of
the columns, but not all, becomes rows.
"""


class Groups(NamedTuple):
    """Nodes in the order of their groups, which are in the order of their levels.

    Attributes
    ----------
    nodes : int32, shape (nodes,)
    first, size : int64, shape (groups,)
        Group i is ``nodes[first[i] : first[i] + size[i]]``.
    dense : bool, shape (groups,)
        Whether the group is a dense block: neurons that share their sources.
    alike : int32, shape (nodes,)
        Length of the run, from each node on, of neurons in its group with the same sources; 1 for
        nodes that are not neurons.
    """

    nodes: Int32
    first: Int64
    size: Int64
    dense: Bool
    alike: Int32


def group(graph: Graph, low: Lowered, nodes: Int32, dropout: Dropout, off_loss: Bool) -> Groups:
    """Group all nodes but the inputs. Nodes in `off_loss`, on which the loss does not depend, get separate groups."""
    kind, shape, detail, lead = _keys(graph, low, nodes, dropout)
    detail = 2 * detail + off_loss[nodes]
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
    # A run of equal sources also ends where its group ends.
    lead = lead[order]
    ends[:-1] |= lead[1:] != lead[:-1]
    stops = np.flatnonzero(ends) + 1
    alike = np.repeat(stops, np.diff(np.append(0, stops))) - np.arange(len(nodes))
    return Groups(nodes[order], first, np.diff(bounds), dense, alike.astype(np.int32))


def _keys(graph: Graph, low: Lowered, nodes: Int32, dropout: Dropout) -> tuple[Int64, Int64, Int64, Int32]:
    """Three keys by which nodes of a level are grouped, and a key that orders the nodes of a group.

    For a neuron in a dense block the second key is the number of its source list, for other neurons
    -1. The ordering key puts neurons with the same sources next to each other: it is one of them.
    """
    kind = low.like[nodes].astype(np.int64)
    shape = low.topology.counts[nodes].astype(np.int64)
    detail = low.part[nodes].astype(np.int64)
    for i, (ids, drop, _) in enumerate(dropout):
        if drop:  # activations that are operations of their own
            detail[np.isin(nodes, ids)] = 4 * (i + 1)
    at = np.flatnonzero(kind >= NEURON)
    neurons = nodes[at]
    if len(neurons) == 0:
        return kind, shape, detail, nodes
    for i, (ids, _, _) in enumerate(dropout):
        detail[at[np.isin(low.owners(neurons), ids)]] = 4 * (i + 1)
    number = low.fused[neurons]
    fused = number >= 0
    has_bias = np.zeros(len(neurons), bool)
    has_bias[fused] = low.bias[number[fused]] >= 0
    has_bias[~fused] = np.array(graph.storage.bias, np.int64)[low.data[neurons[~fused]]] >= 0
    detail[at] += 2 * fused + has_bias
    same_list = np.empty(len(neurons), np.int64)  # the first neuron with the same list
    start, counts, pool = low.topology
    _topology.same_lists(start[neurons], counts[neurons], pool, same_list)
    n_details = int(detail.max()) + 1
    n_kinds = (len(ops.BY_CODE) + 1) * n_details
    kind_and_detail = (kind[at] - NEURON) * n_details + detail[at]
    _, one, inverse, size = np.unique(
        same_list * n_kinds + kind_and_detail, return_index=True, return_inverse=True, return_counts=True
    )
    size = size[inverse]
    shape[at] = -1
    if size.max() >= DENSE_FROM:
        level_key = low.level[neurons] * n_kinds + kind_and_detail
        shape[at] = np.where(_are_dense(low, neurons[same_list], size, level_key), same_list, -1)
    lead = nodes.copy()
    lead[at] = neurons[one[inverse]]
    return kind, shape, detail, lead


def _are_dense(low: Lowered, lead: Int32, size: Int64, level_key: Int64) -> Bool:
    """Which neurons are in dense blocks.

    For each neuron, `lead` is a neuron with the same sources and `size` the number of such neurons.
    `level_key` is equal for neurons of the same level and kind.
    """
    read = _columns_read(low, lead, size >= DENSE_FROM)
    n_inputs = np.count_nonzero(low.code[low.order] == INPUT)
    few = size < DENSE_AMONG_OTHERS
    rows = (0 < read) & (read < n_inputs) & (few | (2 * read > n_inputs))
    # A minority of a level is faster as rows, which may all become one block with holes.
    _, of, total = np.unique(level_key, return_inverse=True, return_counts=True)
    rows |= few & (2 * size < total[of])
    return np.asarray((size >= DENSE_FROM) & ~rows)


def _columns_read(low: Lowered, lead: Int32, some: Bool) -> Int64:
    """Number of data columns that each of `some` neurons reads; 0 for the others, and if it also reads other nodes."""
    lists, where = np.unique(lead[some], return_inverse=True)
    n = low.topology.counts[lists].astype(np.int64)
    is_input = low.code[low.topology.sources_of(lists)] == INPUT
    read = np.bincount(np.repeat(np.arange(len(lists)), n), is_input, len(lists))
    columns = np.zeros(len(lead), np.int64)
    columns[some] = np.where(read == n, n, 0)[where]
    return columns
