"""The third pass: groups go in, and the parameters of each group become contiguous in the graph's vector.

The weights of a dense block are stored as ``[panel][source][PANEL neurons]``, followed by its biases, one
for each neuron of the panels. The weights of sparse rows are stored neuron by neuron, followed by the
biases. Parameter nodes are stored in the order of their slots; those of the weights of neurons written out,
and of their biases, like sparse rows. Each group starts at a multiple of PANEL.
"""

from __future__ import annotations

import numpy as np

from mlgraph._support.array_types import Bool, Int32, Int64
from mlgraph.compiler.lowering import Lowered
from mlgraph.graph.graph import Graph
from mlgraph.graph.storage import PANEL
from mlgraph.graph.topology import index_type
from mlgraph_ext import _topology


def lay_out(graph: Graph, lowered: Lowered, nodes: Int32, first: Int64, size: Int64, dense: Bool) -> Int64:
    """Make the parameters of each group contiguous, if they are not already.

    Parameters
    ----------
    nodes, first, size, dense
        Groups of parameter nodes and neurons, as in `mlgraph.compiler.grouping.Groups`.

    Returns
    -------
    int64, shape (groups, 2)
        Where the weights and the biases of each group start; -1 without biases.
    """
    low, storage = lowered, graph.storage
    columns = storage.weights, storage.stride, storage.bias
    layout = _topology.Layout(
        nodes,
        first,
        size,
        dense.view(np.uint8),
        low.code,
        low.topology.counts,
        low.part,
        low.fused,
        low.begin,
        low.weight,
        low.bias,
        low.data,
        storage.bias,
        PANEL,
    )
    where = np.empty((len(first), 2), np.int64)
    end = layout.in_place(*columns, storage.used, where)
    if end >= 0:
        # The padding of the last block must lie within the vector. Updates of rows are not padded.
        if end > storage.used:
            at = storage.grow(end - storage.used)
            storage.vector[at:] = 0
        return where
    # If any group is not in place, all are moved. Parameters that no output needs follow them.
    fan, table = np.empty(len(storage), np.int32), graph.columns_by_name()
    _topology.fan_of_records(table["code"], table["count"], table["data"], fan)
    origin = np.empty(layout.length(fan, storage.bias), index_type(storage.used))
    new = storage.weights[:], storage.stride[:], storage.bias[:]
    _topology.move_groups(layout, *columns, fan, *new, origin, where)
    storage.move(origin, *new)
    return where
