"""The graph as a plan sees it: only what the outputs need, equal nodes merged, written-out neurons found.

This does not change the graph. Nodes keep their numbers; a node that is dropped is not in `order` and has no slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Int32, Int64
from mlgraph._support.checks import plain
from mlgraph.graph import ops
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER
from mlgraph.graph.topology import Topology, is_live, topological
from mlgraph_ext import _topology

_COMMUTES = np.array([op.name in ("add", "mul") for op in ops.BY_CODE], np.uint8)
"""Not the maximum nor the minimum: of 0 and -0 they give the second."""


@dataclass(frozen=True)
class Lowered:
    """A graph reduced to what some outputs need; arrays over all nodes unless said otherwise.

    Attributes
    ----------
    code : int16
        As in the graph; neurons that were found have the code of neurons.
    like : int16
        As `code`; a split neuron's sum has the neuron's code, so that parameters stand in the same order whether neurons are
        split or not. They do not where neurons are written out, nodes are merged, or neurons of one level have other dropout.
    topology : Topology
        The sources of the nodes.
    data : int64
        As in the graph.
    level : int32
        0 for a node without sources, else above all its sources; -1 for a node that is not needed.
    order : int32, shape (needed,)
        Topological.
    same : int32
        The node that stands for each: the first of equal value.
    written : int32
        For a neuron that was found, its number among the found neurons; else -1.
    begin, weight, bias : int64 (found + 1,), int32 (terms,), int32 (found,)
        The weights of found neuron i are the parameter nodes ``weight[begin[i] : begin[i + 1]]``; its bias is the
        parameter node ``bias[i]``, or -1.
    """

    code: npt.NDArray[np.int16]
    like: npt.NDArray[np.int16]
    topology: Topology
    data: Int64
    level: Int32
    order: Int32
    same: Int32
    written: Int32
    begin: Int64
    weight: Int32
    bias: Int32


def lower(graph: Graph, outputs: Int32, given: Int32 | None = None, *, split: bool = False) -> Lowered:
    """Reduce a graph to what `outputs` need.

    Parameters
    ----------
    given : int32, optional
        Nodes whose values come as columns of the data, in this order: they are the inputs, and nothing is needed for them.
    split : bool
        Whether every node keeps a value and an adjoint of its own: nodes of equal value are not merged, neurons that are
        written out are left so, and the weighted sum of a neuron with an activation is one more node, behind all others.

    Raises
    ------
    ValueError
        If they need an input of the graph that is not among those given.
    """
    n = len(graph)
    topology, code, data = graph.topology(), graph.codes, graph.records
    start, count = topology[:2]  # to be changed in place
    if given is not None:
        data[code == INPUT] = -1
        code[given], count[given], data[given] = INPUT, 0, np.arange(len(given))
    level, order = topological(graph, topology, outputs)
    # A neuron without live sources is 0 for whatever still reads it.
    dead = order[~is_live(code, topology, order)[order] & (code[order] >= NEURON)]
    if len(dead):
        code[dead], count[dead], data[dead] = CONSTANT, 0, len(graph.constants)
        level, order = topological(graph, topology, outputs)
    missing = order[(code[order] == INPUT) & (data[order] < 0)]
    if len(missing):
        raise ValueError(f"inputs: expected all that the outputs need, got none for {plain(graph[missing[0]].name)}")
    if split:
        return _split(graph, code, topology, data, level, order, outputs)

    # Operations are equal if their arguments are, constants if their bits are; any other node equals only itself.
    same = np.arange(n, dtype=np.int32)
    identity = np.where(ops.is_operation(code), -1, np.arange(n))
    constants = np.flatnonzero(code == CONSTANT)
    bits = np.append(graph.constants, 0.0)[data[constants]].view(np.int64)
    identity[constants] = np.where(bits == -1, constants, bits)  # one of the many NaNs
    _topology.merge(code, *topology, order, identity, _COMMUTES, same)
    if (same != np.arange(n)).any():
        order = order[same[order] == order]
        topology, outputs = topology._replace(pool=same[topology.pool]), same[outputs]

    written = np.full(n, -1, np.int32)
    begin, weight, bias = np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32)
    kind = np.zeros(n, np.int8)
    for number, what in ((1, ops.OPS["add"].code), (1, ops.OPS["sum"].code), (2, ops.OPS["mul"].code), (3, PARAMETER)):
        kind[code == what] = number
    if (kind[order] == 3).any() and (kind[order] == 1).any():
        is_output = np.zeros(n, np.uint8)
        is_output[outputs] = 1
        root, bias, readers = (np.empty(n, np.int32) for _ in range(3))
        begin, (source, weight) = np.empty(n + 1, np.int64), np.empty((2, len(topology.pool)), np.int32)
        found = _topology.find_neurons(kind, *topology, order, is_output, root, begin, source, weight, bias, readers)
        root, bias, begin = root[:found], bias[:found], begin[: found + 1]
        source, weight = source[: begin[-1]], weight[: begin[-1]]
        written[root] = np.arange(found)
        # If an activation is the only reader of such a sum, it becomes the neuron's.
        active = order[(code[order] > 0) & (code[order] < len(ops.ACTIVATIONS))]
        inner = topology.pool[start[active]]
        mine = (written[inner] >= 0) & (readers[inner] == 1) & (is_output[inner] == 0)
        active, inner = active[mine], inner[mine]
        code[root] = NEURON
        code[active] += NEURON
        root[written[inner]] = active
        written[active], written[inner] = written[inner], -1
        start[root], count[root] = len(topology.pool) + begin[:-1], np.diff(begin)
        topology = topology._replace(pool=np.concatenate([topology.pool, source]))
        level, order = topological(graph, topology, outputs)
    return Lowered(code, code, topology, data, level, order, same, written, begin, weight, bias)


def _split(
    graph: Graph,
    code: npt.NDArray[np.int16],
    topology: Topology,
    data: Int64,
    level: Int32,
    order: Int32,
    outputs: Int32,
) -> Lowered:
    active = np.sort(order[code[order] > NEURON])  # the sums in the order of their neurons, as `like` needs it
    sums = len(code) + np.arange(len(active))
    like = np.concatenate([code, code[active]])
    code = np.concatenate([code, np.full(len(active), NEURON, np.int16)])
    start, count, data = (np.concatenate([column, column[active]]) for column in (*topology[:2], data))
    code[active] -= NEURON
    start[active], count[active] = len(topology.pool) + np.arange(len(active)), 1
    like[active] = code[active]
    topology = Topology(start, count, np.concatenate([topology.pool, sums.astype(np.int32)]))
    # A sum stays on the level of its neuron, whose activation stands between it and the next.
    level = np.maximum(2 * level, -1)
    level = np.concatenate([level, level[active]])
    level[active] += 1
    _, order = topological(graph, topology, outputs)
    same, found = (
        np.arange(len(code), dtype=np.int32),
        (np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32)),
    )
    return Lowered(code, like, topology, data, level, order, same, np.full_like(same, -1), *found)
