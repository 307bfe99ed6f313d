"""Checks neurons and edges, given as arrays, before `Graph.add_subgraph` adds them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32, Int32, Int64
from mlgraph._support.checks import float_array, integer_row, shown
from mlgraph.graph.arrays import Edges, Neurons, ends_of
from mlgraph.graph.graph import CycleError, Graph
from mlgraph.graph.ids import check_sources
from mlgraph.graph.topology import cycle_text
from mlgraph.graph.views import neuron_code
from mlgraph_ext import _topology


class Subgraph(NamedTuple):
    """Neurons in topological order, and the edges into each of them in the given order.

    Attributes
    ----------
    rank : int32, shape (neurons,)
        The position of each given neuron in the topological order.
    codes : int16, shape (neurons,)
    biases : float32, shape (neurons,)
    counts : int32, shape (neurons,)
        Number of edges into each.
    sources : int32, shape (edges,)
        Ids, including the future ids of the new neurons.
    weights : float32, shape (edges,)
    """

    rank: Int32
    codes: npt.NDArray[np.int16]
    biases: Float32
    counts: Int32
    sources: Int32
    weights: Float32


def checked_subgraph(graph: Graph, neurons: Any, edges: Any) -> Subgraph:
    """Check and sort the arguments of `Graph.add_subgraph`; raises its errors."""
    for what, given, kind in (("neurons", neurons, Neurons), ("edges", edges, Edges)):
        if not isinstance(given, kind):
            raise TypeError(f"{what}: expected mlgraph.{kind.__name__}, got {type(given).__name__}")
    number = integer_row("neurons: node", neurons.node)
    n = len(number)
    if n == 0:
        raise ValueError("neurons: expected at least one, got none")
    names = neurons.activation if np.ndim(neurons.activation) == 1 else []
    if len(names) != n:
        raise ValueError(f"neurons: expected {n} activations, one for each neuron, got {shown(neurons.activation)}")
    codes = np.array([neuron_code(name, "neurons: activation") for name in names], np.int16)
    biases = float_array("neurons: bias", neurons.bias, (n,))
    source, target = ends_of("edges", edges)
    weights = float_array("edges: weight", edges.weight, source.shape)

    first = len(graph)  # only now, because converting the arguments may add nodes
    ascending = np.argsort(number, kind="stable")
    twice = number[ascending][1:][np.diff(number[ascending]) == 0]
    if len(twice):
        raise ValueError(f"neurons: the number {twice[0]} is used twice")
    inside, into = (_indices(number, ascending, ends) for ends in (source, target))
    if (into < 0).any():
        raise ValueError(f"edges: target {target[into < 0][0]} is none of the neurons")
    strange = (inside < 0) & ((source < 0) | (source >= first))
    if strange.any():
        raise ValueError(f"edges: source {source[strange][0]} is none of the neurons and no node of the graph")
    # For now, the new neurons are numbered in the given order, from the number of nodes on.
    source = np.where(inside < 0, source, first + inside)
    keys = np.sort(into * (first + n) + source)
    if (np.diff(keys) == 0).any():
        again = keys[1:][np.diff(keys) == 0][0] // (first + n)
        raise ValueError(f"edges: two edges lead from the same node to {number[again]}")
    counts = np.bincount(into, minlength=n).astype(np.int32)
    if not counts.all():
        raise ValueError(f"add_subgraph: no edge leads into neuron {number[np.argmin(counts)]}")

    by_target = np.argsort(into, kind="stable")
    within = by_target[inside[by_target] >= 0]
    inner = np.bincount(into[within], minlength=n).astype(np.int32)
    begin, level, order = np.cumsum(inner, dtype=np.int64) - inner, *np.empty((2, n), np.int32)
    _, cycle = _topology.sort(begin, inner, inside[within].astype(np.int32), np.arange(n, dtype=np.int32), level, order)
    if cycle:
        raise CycleError(f"edges: they form {cycle_text('neuron', [str(number[i]) for i in cycle])}")
    check_sources(graph, "edges", source[inside < 0])
    rank = np.empty(n, np.int32)
    rank[order] = np.arange(n, dtype=np.int32)
    by_rank = np.argsort(rank[into], kind="stable")
    ids = np.where(inside < 0, source, first + rank[inside])[by_rank].astype(np.int32)
    return Subgraph(rank, codes[order], biases[order], counts[order], ids, weights[by_rank])


def _indices(number: Int64, ascending: Int64, wanted: Int64) -> Int64:
    """The index of each wanted number in `number`, which `ascending` sorts; -1 if it is missing."""
    at = ascending[np.minimum(np.searchsorted(number[ascending], wanted), len(number) - 1)]
    return np.where(number[at] == wanted, at, -1)
