"""The third pass: groups go in, and the parameters of each group become contiguous in the graph's vector.

The weights of a dense block are stored as ``[panel][source][PANEL neurons]``, followed by its biases, one
for each neuron of the panels. The weights of sparse rows are stored neuron by neuron, followed by the
biases. Parameter nodes are stored in the order of their slots; those of the weights of neurons written out,
and of their biases, like sparse rows. Each group starts at a multiple of PANEL.
"""

from __future__ import annotations

import numpy as np

from mlgraph._support.array_types import Int64
from mlgraph.compiler.grouping import Groups
from mlgraph.compiler.lowering import BIAS, OF_BIASED, Lowered
from mlgraph.graph.graph import Graph
from mlgraph.graph.storage import PANEL
from mlgraph.graph.topology import index_type
from mlgraph_ext import _topology


def lay_out(graph: Graph, low: Lowered, groups: Groups) -> Int64:
    """Make the parameters of each group contiguous, if they are not already.

    Returns
    -------
    int64, shape (groups, 2)
        Where the weights and the biases of each group start; -1 where there are none. (Parameter nodes are weights.)
    """
    where = np.empty((len(groups.first), 2), np.int64)
    _place(graph, groups, where)
    if len(low.owner):  # the biases of neurons written out are laid out with their weights
        part = low.part[groups.nodes[groups.first]]
        where[part == BIAS, 0] = where[part == OF_BIASED, 1]
    return where


def _place(graph: Graph, groups: Groups, where: Int64) -> None:
    """Fill `where`, except for biases that are nodes."""
    storage = graph.storage
    columns = storage.weights, storage.stride, storage.bias
    layout = _topology.Layout(groups.arrays, storage.bias, PANEL)
    end = layout.in_place(*columns, storage.used, where)
    if end >= 0:
        # The padding of the last block must lie within the vector. Updates of rows are not padded.
        if end > storage.used:
            at = storage.grow(end - storage.used)
            storage.vector[at:] = 0
        return
    # If any group is not in place, all are moved. Parameters that no output needs follow them.
    table = graph.columns_by_name()
    length = layout.length(table["code"], table["count"], table["data"], storage.bias)
    origin = np.empty(length, index_type(storage.used))
    new = storage.weights[:], storage.stride[:], storage.bias[:]
    _topology.move_groups(layout, *columns, *new, origin, where)
    storage.move(origin, *new)
