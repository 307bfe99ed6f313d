"""Checks of arguments that name nodes, and their conversion to ids. Errors begin with the argument's name, `what`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.checks import shown
from mlgraph.graph.ops import is_leaf, is_operation
from mlgraph.graph.views import Node, NodesLike, name_of

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph


def id_of(graph: Graph, node: Any, what: str = "node") -> int:
    """The id of a node, given as a node of the graph or as an id."""
    if isinstance(node, Node):
        _check_node(graph, what, node)
        return node.id
    try:
        number = index(None if isinstance(node, bool) else node)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{what}: expected a node or its id, got {type(node).__name__}") from None
    if not 0 <= number < len(graph):
        expected = f"the id of a node, from 0 to {len(graph) - 1}" if len(graph) else "a graph that has nodes"
        raise IndexError(f"{what}: expected {expected}, got {shown(number)}")
    return number


def edge_name(graph: Graph, source: int, target: int) -> str:
    """A description of an edge, which need not exist, for an error message."""
    return f"{name_of(graph, int(source))} to {name_of(graph, int(target))}"


def is_iterable(things: Any) -> bool:
    """Whether `things` can be iterated; an array without dimensions has `__iter__` but cannot."""
    return isinstance(things, Iterable) and getattr(things, "ndim", 1) != 0


def listed(what: str, nodes: Any) -> list[Any]:
    """A sequence as a list; a TypeError for a set, a dict or anything that cannot be iterated."""
    if not is_iterable(nodes) or isinstance(nodes, set | frozenset | dict):
        raise TypeError(f"{what}: expected a sequence of nodes, got {type(nodes).__name__}")
    return list(nodes)


def ids_of(graph: Graph, what: str, nodes: Any, least: int = 0) -> list[int]:
    """The ids of nodes, given as a sequence of nodes of the graph, or as an array or range of ids.

    Raises
    ------
    TypeError, ValueError
        If a node is of another graph or was removed, or there are fewer than `least` (0 or 1).
    """
    ids = []
    if isinstance(nodes, range):
        low, high = sorted((nodes[0], nodes[-1])) if nodes else (0, -1)
        if not (0 <= low and high < len(graph)):  # before the conversion, because the range may not fit in memory
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
        _check_node(graph, what, node)
        ids.append(node.id)
    if len(ids) < least:
        raise ValueError(f"{what}: expected at least one node, got none")
    return ids


def _check_node(graph: Graph, what: str, node: Node) -> None:
    """A ValueError if a node is of another graph or was removed."""
    if node.graph is not graph:
        raise ValueError(f"{what}: expected nodes of one graph, got node {node.id} of another")
    if not graph._has(node):
        raise ValueError(f"{what}: node n{node.id} was removed")


def ids_of_different(graph: Graph, what: str, nodes: Any, least: int = 0) -> list[int]:
    """As `ids_of`, with a ValueError if a node is given twice."""
    ids = ids_of(graph, what, nodes, least)
    if len(set(ids)) < len(ids):
        twice = int(np.argmax(np.bincount(ids) > 1))
        raise ValueError(f"{what}: node {name_of(graph, twice)} is given twice")
    return ids


def ids_of_sources(graph: Graph, sources: NodesLike) -> list[int]:
    """The ids of the sources of a new neuron: at least one, none twice."""
    ids = ids_of_different(graph, "sources", sources, 1)
    check_sources(graph, "sources", ids)
    return ids


def check_sources(graph: Graph, what: str, ids: Sequence[int] | npt.NDArray[Any]) -> None:
    """A ValueError if one of these nodes is an operation that is not live: it would be computed but not counted."""
    if not graph.has_bare:
        return
    # Not `graph.live()`, which would sort the whole graph for each new neuron.
    live: set[int] = set()
    some = np.asarray(ids)
    for i in np.unique(some[is_operation(np.frombuffer(graph._code, np.int16)[some])]).tolist():
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
            raise ValueError(f"{what}: {graph[i]!r} depends only on neurons that are cut off")
