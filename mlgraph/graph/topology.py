"""What follows from the lists of sources alone: the order of the nodes, which are live, and their ancestors.

The lists are those of a graph, or of the graph that an edit would make.

Which nodes count
-----------------
A node is

- a *sink* of a model if it is an output or belongs to the loss (`Model.sinks`; `Graph.sinks`: those of all models),
- *live* if a path leads to it from an input, a constant or a parameter (`Graph.live`); a neuron that is not live is 0,
- *needed* if a path leads from it to a sink, or it is one (`ancestors`); without a model, every node is needed,
- *alive* if it is live and needed (`Graph.alive`; `Graph.alive_for`: with given sinks; `Model.alive`: with its own).

An edit may leave a model without nodes that it needed. `Model.ever_needed` includes those, as far
as the graph had several models at the time (`Model.needed_before`). `Model.own` is the nodes except
those that other models have needed and this one has not: its sparsity counts their edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Ids, Int32, Int64, UInt8
from mlgraph._support.checks import INT32_MAX
from mlgraph.graph.ops import is_leaf
from mlgraph.graph.views import name_of
from mlgraph_ext import _topology

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph


class CycleError(ValueError):
    """The graph has a cycle; the message lists the nodes on it."""


class Topology(NamedTuple):
    """The sources of all nodes: those of node i are ``pool[start[i] : start[i] + counts[i]]``.

    Attributes
    ----------
    start : int64, shape (nodes,)
    counts : int32, shape (nodes,)
    pool : int32
        The lists of sources, as ids; nodes with the same sources may share a list.
    """

    start: Int64
    counts: Int32
    pool: Int32

    def sources_of(self, nodes: Ids) -> Int32:
        """The sources of these nodes, concatenated."""
        return gather(self.pool, self.start[nodes], self.counts[nodes])


def topological(graph: Graph, topology: Topology, outputs: Sequence[int] | Int32 | None = None) -> tuple[Int32, Int32]:
    """Sort the nodes topologically.

    Parameters
    ----------
    outputs : sequence of int, optional
        Ids of the nodes whose ancestors are sorted; by default all nodes.

    Returns
    -------
    level : int32, shape (nodes,)
        Length of the longest path that leads to the node; -1 for nodes that `outputs` do not need.
    order : int32, shape (needed nodes,)
        The needed nodes, sources first.

    Raises
    ------
    CycleError
    """
    outputs = np.arange(len(graph), dtype=np.int32) if outputs is None else np.asarray(outputs, np.int32)
    n = len(topology.start)
    level, order = np.empty(n, np.int32), np.empty(n, np.int32)
    needed, cycle = _topology.sort(*topology, outputs, level, order)
    if needed < 0 or n < len(graph):  # the kernels do not check this again
        raise RuntimeError("graph: a node has sources that do not exist; an edit was interrupted")
    if cycle:
        raise CycleError(f"the edges form {cycle_text('node', [name_of(graph, i) for i in cycle])}")
    return level, order[:needed]


def cycle_text(kind: str, names: Sequence[str]) -> str:
    """A description of a cycle for an error: its length and its first ten nodes."""
    ring = " -> ".join(names[:10]) + (" -> ..." if len(names) > 10 else "")
    return f"a cycle of {len(names)} {kind}{'s' if len(names) > 1 else ''}: {ring}"


def ancestors(graph: Graph, topology: Topology, nodes: Sequence[int] | Int32) -> Bool:
    """Which nodes are among `nodes` or have a path to one of them; shape (nodes,)."""
    return topological(graph, topology, nodes)[0] >= 0


def is_live(code: npt.NDArray[np.int16], topology: Topology, order: Int32) -> Bool:
    """Which nodes are live, for those in the topological order `order`; shape (nodes,)."""
    live: UInt8 = is_leaf(code).astype(np.uint8)
    _topology.spread(*topology, order, live)
    return live.view(np.bool_)


def gather(pool: npt.NDArray[Any], start: Int64, count: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``pool[start[i] : start[i] + count[i]]`` for all i, concatenated."""
    count = count.astype(np.int64, copy=False)
    out = np.empty(max(0, int(count.sum())), pool.dtype)
    _topology.gather(pool, start, count, out)
    return out


def index_type(end: int) -> type[np.int32 | np.int64]:
    """The type for numbers below `end`: int32 where possible, which takes half the memory and time of int64."""
    return np.int32 if end <= INT32_MAX else np.int64


def runs(first: Int64, stride: Int64, count: npt.NDArray[Any], end: int) -> Int64 | Int32:
    """``first[i] + k * stride[i]`` for all k below ``count[i]``, for all i, concatenated; all are below `end`."""
    count = count.astype(np.int64, copy=False)
    out: npt.NDArray[Any] = np.empty(max(0, int(count.sum())), index_type(end))
    _topology.runs(first, stride, count, out)
    return out


def levels_of(graph: Graph) -> Int64:
    """The level of each node, int64 of shape (nodes,); nodes of one level do not depend on each other."""
    return topological(graph, graph.topology())[0].astype(np.int64)
