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
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import NEURON
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
    arrays : mlgraph_ext._topology.Groups
        The same, with the lowered nodes, for the later passes.
    """

    nodes: Int32
    first: Int64
    size: Int64
    dense: Bool
    alike: Int32
    arrays: _topology.Groups


def group(graph: Graph, low: Lowered, nodes: Int32, dropout: Dropout, off_loss: Bool) -> Groups:
    """Group all nodes but the inputs. Nodes in `off_loss`, on which the loss does not depend, get separate groups."""
    n = len(nodes)
    members, alike = np.empty(n, np.int32), np.empty(n, np.int32)
    bounds, dense = np.empty(n + 1, np.int64), np.empty(n, bool)
    topology = low.topology
    arrays = _topology.Groups(
        nodes,
        code=low.code,
        like=low.like,
        start=topology.start,
        count=topology.counts,
        pool=topology.pool,
        data=low.data,
        level=low.level,
        fused=low.fused,
        fused_begin=low.begin,
        fused_weight=low.weight,
        fused_bias=low.bias,
        part=low.part,
        layer=_layers(low, nodes, dropout) if dropout else None,
        off_loss=off_loss.view(np.uint8),
        bias=graph.storage.bias,
        n_inputs=len(low.order) - n,
        dense_from=DENSE_FROM,
        dense_among_others=DENSE_AMONG_OTHERS,
        member=members,
        first=bounds,
        dense=dense.view(np.uint8),
        alike=alike,
    )
    first = bounds[: arrays.n]
    return Groups(members, first, bounds[1 : arrays.n + 1] - first, dense[: arrays.n], alike, arrays)


def _layers(low: Lowered, nodes: Int32, dropout: Dropout) -> Int64:
    """For each node the number of its layer in `dropout`, from 1; 0 for nodes that drop nothing."""
    layer = np.zeros(len(nodes), np.int64)
    for i, (ids, drop, _) in enumerate(dropout):
        if drop:  # activations that are operations of their own
            layer[np.isin(nodes, ids)] = i + 1
    for i, (ids, _, _) in enumerate(dropout):
        layer[(low.like[nodes] >= NEURON) & np.isin(low.owners(nodes), ids)] = i + 1
    return layer
