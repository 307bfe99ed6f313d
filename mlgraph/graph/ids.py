"""Ids of the nodes that somebody gives: as nodes of the graph, or by their numbers."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Int32
from mlgraph._support.checks import plain, shown
from mlgraph.graph.ops import is_leaf, is_operation
from mlgraph.graph.views import Node, NodesLike

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph


def id_of(graph: Graph, node: Any, what: str = "node") -> int:
    """The number of a node of the graph, given as a node or by its number; errors call it `what`."""
    if isinstance(node, Node):
        return ids_of(graph, what, [node])[0]
    try:
        number = index(None if isinstance(node, bool) else node)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{what}: expected a node or its id, got {type(node).__name__}") from None
    if not 0 <= number < len(graph):
        expected = f"the id of a node, from 0 to {len(graph) - 1}" if len(graph) else "a graph that has nodes"
        raise IndexError(f"{what}: expected {expected}, got {shown(number)}")
    return number


def edge_name(graph: Graph, source: int, target: int) -> str:
    """What an error calls an edge, whether it exists or not."""
    return f"{plain(graph[int(source)].name)} to {plain(graph[int(target)].name)}"


def is_iterable(things: Any) -> bool:
    """Whether things can be iterated: an array without dimensions has the method for that, but cannot."""
    return isinstance(things, Iterable) and getattr(things, "ndim", 1) != 0


def listed(what: str, nodes: Any) -> list[Any]:
    """The given sequence as a list; a TypeError about `what` for a set, a dict or anything that cannot be iterated."""
    if not is_iterable(nodes) or isinstance(nodes, set | frozenset | dict):
        raise TypeError(f"{what}: expected a sequence of nodes, got {type(nodes).__name__}")
    return list(nodes)


def ids_of(graph: Graph, what: str, nodes: Any, least: int = 0) -> list[int]:
    """The ids of nodes, at least `least` (0 or 1), which must be of the graph and still there; errors call them `what`.

    The nodes may also be given by their ids, as an array or range.
    """
    ids = []
    if isinstance(nodes, range):
        low, high = sorted((nodes[0], nodes[-1])) if nodes else (0, -1)
        if not (0 <= low and high < len(graph)):  # nor might an array hold them
            raise ValueError(f"{what}: expected ids from 0 to {len(graph) - 1}, got {shown(low)} to {shown(high)}")
        nodes = np.array(nodes, np.int64)
    if isinstance(nodes, np.ndarray) and nodes.dtype != object:
        if nodes.dtype.kind not in "iu" or nodes.ndim != 1:
            raise TypeError(f"{what}: expected nodes or a row of ids, got {nodes.dtype} of shape {nodes.shape}")
        if len(nodes) and not (0 <= nodes.min() and nodes.max() < len(graph)):
            raise ValueError(f"{what}: expected ids from 0 to {len(graph) - 1}, got {nodes.min()} to {nodes.max()}")
        ids, nodes = nodes.tolist(), ()
    for node in listed(what, nodes):
        if not isinstance(node, Node):
            hint = f"; graph[{node}] is a node" if type(node) is int and 0 <= node < len(graph) else ""
            raise TypeError(f"{what}: expected nodes, got {type(node).__name__}{hint}")
        if node.graph is not graph:
            raise ValueError(f"{what}: expected nodes of one graph, got node {node.id} of another")
        if not graph._has(node):
            raise ValueError(f"{what}: expected nodes of the graph, got n{node.id}, which it does not have, or no more")
        ids.append(node.id)
    if len(ids) < least:
        raise ValueError(f"{what}: expected at least one node, got none")
    return ids


def ids_of_different(graph: Graph, what: str, nodes: Any, least: int = 0) -> list[int]:
    """As `ids_of`, with a ValueError if a node comes twice."""
    ids = ids_of(graph, what, nodes, least)
    if len(set(ids)) < len(ids):
        twice = int(np.argmax(np.bincount(ids) > 1))
        raise ValueError(f"{what}: expected nodes, none of them twice, got {plain(graph[twice].name)} twice")
    return ids


def ids_of_sources(graph: Graph, sources: NodesLike) -> Int32:
    """The ids of sources, at least one and none twice."""
    ids = np.array(ids_of_different(graph, "sources", sources, 1), np.int32)
    check_sources(graph, "sources", ids)
    return ids


def check_sources(graph: Graph, what: str, ids: npt.NDArray[Any]) -> None:
    """ValueError if one is an operation that reads only neurons that are cut off: it would be computed, but not counted."""
    if not graph.has_bare:
        return
    live: set[int] = set()
    for i in np.unique(ids[is_operation(np.frombuffer(graph._code, np.int16)[ids])]).tolist():
        above, seen = [i], {i}
        while above:
            node = above.pop()
            code, n = graph._code[node], graph._count[node]
            if node in live or is_leaf(code):
                live.add(i)
                break
            new = set(graph._pool[graph._start[node] : graph._start[node] + n]) - seen
            above += new
            seen |= new
        else:
            raise ValueError(f"{what}: expected nodes that have a live source, got {graph[i]!r}, which has none")
