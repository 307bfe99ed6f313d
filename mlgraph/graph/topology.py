"""What is told from lists of sources alone: an order of the nodes, which are live, ancestors, and runs of numbers.

The lists are those of a graph, or of one that an edit would make.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Ids, Int32, Int64, UInt8
from mlgraph._support.checks import plain
from mlgraph.graph.ops import is_leaf
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
        Ids. Nodes may share a part of it.
    """

    start: Int64
    counts: Int32
    pool: Int32

    def sources_of(self, nodes: Ids) -> Int32:
        """Those of these nodes, one after the other."""
        return gather(self.pool, self.start[nodes], self.counts[nodes])


def topological(graph: Graph, topology: Topology, outputs: Sequence[int] | Int32 | None = None) -> tuple[Int32, Int32]:
    """Level of every node, -1 where no output needs it, and the needed nodes in topological order; or a CycleError.

    `outputs` are ids; by default all nodes are needed. Both results are int32, of shapes (nodes,) and (needed nodes,).
    """
    outputs = np.arange(len(graph), dtype=np.int32) if outputs is None else np.asarray(outputs, np.int32)
    n = len(topology.start)
    level, order = np.empty(n, np.int32), np.empty(n, np.int32)
    needed, cycle = _topology.sort(*topology, outputs, level, order)
    if needed < 0 or n < len(graph):  # Ctrl-C may strike amid an edit, and no kernel looks again
        raise RuntimeError("graph: expected edges between its nodes, got others: by an edit that was interrupted")
    if cycle:
        raise CycleError(f"expected no cycle, got {cycle_text('node', [plain(graph[i].name) for i in cycle])}")
    return level, order[:needed]


def cycle_text(kind: str, names: Sequence[str]) -> str:
    """What an error says of a cycle: how long it is, and its first ten nodes."""
    ring = " -> ".join(names[:10]) + (" -> ..." if len(names) > 10 else "")
    return f"one of {len(names)} {kind}{'s' if len(names) > 1 else ''}: {ring}"


def ancestors(graph: Graph, topology: Topology, nodes: Sequence[int] | Int32) -> Bool:
    """Whether each node is one of `nodes`, or a path leads from it to one of them."""
    return topological(graph, topology, nodes)[0] >= 0


def is_live(code: npt.NDArray[np.int16], topology: Topology, order: Int32) -> Bool:
    """Whether a path leads to a node from an input, a constant or a parameter, for those of `order`."""
    live: UInt8 = is_leaf(code).astype(np.uint8)
    _topology.spread(*topology, order, live)
    return live.view(np.bool_)


def gather(pool: npt.NDArray[Any], start: Int64, count: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``pool[start[i] : start[i] + count[i]]`` for all i, one after the other."""
    count = count.astype(np.int64, copy=False)
    out = np.empty(max(0, int(count.sum())), pool.dtype)
    _topology.gather(pool, start, count, out)
    return out


def index_type(end: int) -> type[np.int32 | np.int64]:
    """Of numbers below `end`: most often half the memory, and half the time, of int64."""
    return np.int32 if end <= np.iinfo(np.int32).max else np.int64


def runs(first: Int64, stride: Int64, count: npt.NDArray[Any], end: int) -> Int64 | Int32:
    """``first[i] + k * stride[i]`` for all k below ``count[i]``, for one i after the other; all are below `end`."""
    count = count.astype(np.int64, copy=False)
    out: npt.NDArray[Any] = np.empty(max(0, int(count.sum())), index_type(end))
    _topology.runs(first, stride, count, out)
    return out


def levels_of(graph: Graph) -> Int64:
    """The level of each node: nodes of one level do not depend on each other."""
    return topological(graph, graph.topology())[0].astype(np.int64)
