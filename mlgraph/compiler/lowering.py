"""The first pass of the compiler: a graph and its outputs go in, a simplified copy as arrays comes out.

The pass keeps only the nodes that the outputs need, merges nodes of equal value, and turns neurons
that were written out as expressions back into neurons. The graph itself does not change. Nodes keep
their numbers; a node that was dropped is missing from `Lowered.order`.

Neurons of which weight nodes read a weight are written out as sums of products. Their weights and
biases become parameter nodes, which weight nodes can share, so that all derivatives with respect to
a weight are added before it is updated.

The weighted sum of a neuron becomes a node of its own, an identity neuron, if the derivative of its
activation needs it (gelu, silu, softplus). The activation is then an operation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Int32, Int64
from mlgraph.graph import ops
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER, WEIGHT
from mlgraph.graph.topology import Topology, is_live, topological
from mlgraph.graph.views import name_of
from mlgraph_ext import _topology

_COMMUTES = np.array([op.name in ("add", "mul") for op in ops.BY_CODE], np.uint8)
"""Which operations commute. Maximum and minimum do not: of 0 and -0 they return the second."""

_NOT_FUSED = np.array([-1], np.int32)

_AS_THEY_ARE = {INPUT, PARAMETER, *(NEURON + ops.OPS[name].code for name in ops.IN_PLACE)}
"""Codes of nodes that are neither merged nor fused nor split if the outputs need no others, except one constant."""


class Lowered(NamedTuple):
    """A graph reduced to what some outputs need. Arrays have one entry for each node unless stated.

    Attributes
    ----------
    code : int16
        The operation of each node, as in the graph. A fused neuron has the code of a neuron.
    like : int16
        The code by which nodes are grouped. It equals `code`, except that the weighted sum of a
        split neuron has the neuron's code. Parameters are then laid out in the same order whether
        neurons are split or not, unless neurons are fused, nodes merged, or dropouts differ.
    topology : Topology
        The sources of the nodes.
    data : int64
        The column of an input, the record of a constant, parameter or neuron, as in the graph.
    level : int32
        0 for a node without sources, otherwise 1 more than its highest source; -1 if not needed.
    order : int32, shape (needed,)
        The needed nodes in topological order.
    same : int32
        The node that replaces each node: the first one of equal value.
    fused : int32
        The number of a fused neuron among all fused neurons, -1 for other nodes. A fused neuron was
        written as an expression, such as ``tanh(w * x + b)``, with parameter nodes for weights.
    begin, weight, bias : int64 (fused + 1,), int32 (terms,), int32 (fused,)
        The weights of fused neuron i are the parameter nodes ``weight[begin[i] : begin[i + 1]]``. Its
        bias is the parameter node ``bias[i]``, or -1 without one.
    part : int8
        For a parameter node that is part of a neuron written out: OF_BIASED or OF_UNBIASED for its
        weights, depending on whether it has a bias, BIAS for that bias; 0 for other nodes. Its
        `data` is the neuron's record.
    owner : int32, shape (added,)
        The neuron of each node that was added after those of the graph.
    """

    code: npt.NDArray[np.int16]
    like: npt.NDArray[np.int16]
    topology: Topology
    data: Int64
    level: Int32
    order: Int32
    same: Int32
    fused: Int32
    begin: Int64
    weight: Int32
    bias: Int32
    part: npt.NDArray[np.int8]
    owner: Int32

    def owners(self, nodes: Int32) -> Int32:
        """The nodes, those that were added replaced by their neurons."""
        n = len(self.code) - len(self.owner)
        return np.where(nodes < n, nodes, self.owner[np.maximum(nodes - n, 0)]) if len(self.owner) else nodes


OF_BIASED, OF_UNBIASED, BIAS = 1, 2, 3
"""Values of `Lowered.part`."""


def lower(graph: Graph, outputs: Int32, given: Int32 | None = None, *, split: bool = False) -> Lowered:
    """Reduce a graph to what `outputs` need.

    Parameters
    ----------
    given : int32, optional
        Nodes whose values are the columns of the data, in this order. They replace the inputs, and
        their sources are not needed.
    split : bool
        Whether every node keeps its own value and adjoint. Nodes are then neither merged nor fused,
        and the weighted sum of every neuron with an activation becomes a node of its own, numbered
        after all others.

    Raises
    ------
    ValueError
        If the outputs need an input of the graph that is not in `given`.
    """
    n = len(graph)
    topology, code, data = graph.topology(), graph.codes, graph.records
    count = topology.counts  # changed in place
    if given is not None:
        data[code == INPUT] = -1
        code[given], count[given], data[given] = INPUT, 0, np.arange(len(given))
    level, order = topological(graph, topology, outputs)
    if graph.has_bare:  # otherwise all nodes are live
        # A neuron without live sources counts as the constant 0.
        dead = order[~is_live(code, topology, order)[order] & (code[order] >= NEURON)]
        if len(dead):
            code[dead], count[dead], data[dead] = CONSTANT, 0, len(graph.constants)
            level, order = topological(graph, topology, outputs)
    same, none, part = np.arange(n, dtype=np.int32), np.zeros(0, np.int32), np.zeros(n, np.int8)
    fused, begin = _NOT_FUSED.repeat(n), np.zeros(1, np.int64)
    low = Lowered(code, code, topology, data, level, order, same, fused, begin, none, none, part, none)
    codes = _topology.distinct(code, order)
    if WEIGHT in codes:
        low, outputs = _write_out(graph, low, outputs)
        code, data, order = low.code, low.data, low.order
        codes = _topology.distinct(code, order)
    missing = order[(code[order] == INPUT) & (data[order] < 0)] if given is not None else none
    if len(missing):
        raise ValueError(f"inputs: the outputs need {name_of(graph, int(missing[0]))}, which is not among the inputs")
    if not split:
        others = codes - _AS_THEY_ARE
        if not others or (others == {CONSTANT} and np.count_nonzero(code == CONSTANT) == 1):  # most graphs of neurons
            return low
        low = _merge(graph, low)
        outputs = low.same[outputs]
        low = _fuse(graph, low, outputs)
    active = low.order[low.code[low.order] > NEURON]
    if not split:
        active = active[~ops.is_in_place(low.code[active] - NEURON)]
    return _split(graph, low, outputs, np.sort(active)) if split or len(active) else low


def _write_out(graph: Graph, low: Lowered, outputs: Int32) -> tuple[Lowered, Int32]:
    """Write out the neurons of which weight nodes read a weight; replace these nodes by parameters, or by 0.

    Returns the outputs as well, and with them all the parameters, so that every weight of a neuron is there.
    """
    n, code, (start, count, pool) = len(low.code), low.code, low.topology
    reads = np.flatnonzero(code == WEIGHT)
    source, target = pool[start[reads]], pool[start[reads] + 1]
    count[reads] = 0
    # Biased neurons come first: their weights are one instruction, and those of the others another.
    owners = np.unique(target[low.level[reads] >= 0])
    fan, record = graph.counts[owners].astype(np.int64), graph.records[owners]
    owners, fan, record = owners[fan > 0], fan[fan > 0], record[fan > 0]
    biased = np.array(graph.storage.bias, np.int64)[record] >= 0
    first = np.argsort(~biased, kind="stable")
    owners, fan, record, biased = owners[first], fan[first], record[first], biased[first]
    n_edges, n_biased = int(fan.sum()), int(biased.sum())
    ends = graph.topology().sources_of(owners)
    weights, of = n + np.arange(n_edges), np.repeat(np.arange(len(owners)), fan)
    biases = n + n_edges + np.arange(n_biased)
    # Those that are still neurons, not given and live, become the sum of a product for each edge and the bias.
    summed = code[owners] >= NEURON
    active = summed & (code[owners] > NEURON)
    products = n + n_edges + n_biased + np.arange(int(fan[summed].sum()))
    total = n + n_edges + n_biased + len(products)
    sums = owners.copy()
    sums[active] = total + np.arange(int(active.sum()))
    added = np.concatenate([of, np.arange(n_biased), of[summed[of]], np.flatnonzero(active)])
    op = {name: ops.OPS[name].code for name in ("mul", "sum")}
    kinds = [PARAMETER] * (n_edges + n_biased) + [op["mul"]] * len(products) + [op["sum"]] * int(active.sum())
    code = np.concatenate([code, np.array(kinds, np.int16)])
    code[owners[active]] -= NEURON
    code[sums[summed]] = op["sum"]
    data = np.concatenate([low.data, record[added]])
    part = np.zeros(len(code), np.int8)
    part[weights], part[biases] = np.where(biased, OF_BIASED, OF_UNBIASED)[of], BIAS
    start, count = (np.concatenate([column, np.zeros(len(added), column.dtype)]) for column in (start, count))
    factors = np.column_stack([weights, ends])[summed[of]]
    start[products], count[products] = len(pool) + 2 * np.arange(len(products)), 2
    terms = np.concatenate([products, biases[summed[:n_biased]]])
    terms = terms[np.argsort(np.append(of[summed[of]], np.flatnonzero(summed[:n_biased])), kind="stable")]
    at, length = len(pool) + factors.size, (fan + biased)[summed]
    start[sums[summed]], count[sums[summed]] = at + np.cumsum(length) - length, length
    start[owners[active]], count[owners[active]] = at + len(terms) + np.arange(int(active.sum())), 1
    # Weight nodes: the parameter of their edge, if it exists.
    same = np.arange(len(code), dtype=np.int32)
    key, wanted = owners[of].astype(np.int64) * n + ends, target.astype(np.int64) * n + source
    ascending = np.argsort(key)
    found = ascending[np.minimum(np.searchsorted(key[ascending], wanted), n_edges - 1)] if n_edges else wanted
    there = key[found] == wanted if n_edges else np.zeros(len(reads), bool)
    same[reads[there]] = weights[found[there]]
    code[reads[~there]], data[reads[~there]] = CONSTANT, len(graph.constants)
    pool = same[np.concatenate([pool, factors.reshape(-1).astype(np.int32), terms.astype(np.int32), sums[active]])]
    topology = Topology(start, count, pool)
    outputs = np.concatenate([same[outputs], weights, biases]).astype(np.int32)
    level, order = topological(graph, topology, outputs)
    fused = np.full(len(code), -1, np.int32)
    return Lowered(
        code, code, topology, data, level, order, same, fused, low.begin, low.weight, low.bias, part, owners[added]
    ), outputs


def _split(graph: Graph, low: Lowered, outputs: Int32, active: Int32) -> Lowered:
    """Make the weighted sums of neurons nodes of their own, in the order of their neurons `active`."""
    code, (start, count, pool) = low.code, low.topology
    sums = len(code) + np.arange(len(active))
    like = np.concatenate([code, code[active]])
    code = np.concatenate([code, np.full(len(active), NEURON, np.int16)])
    part = np.append(low.part, np.zeros(len(active), np.int8))
    start, count, data = (np.concatenate([column, column[active]]) for column in (start, count, low.data))
    code[active] -= NEURON
    start[active], count[active] = len(pool) + np.arange(len(active)), 1
    like[active] = code[active]
    topology = Topology(start, count, np.concatenate([pool, sums.astype(np.int32)]))
    # Levels are doubled: a sum keeps its neuron's level, and the activation goes to the level after it.
    level = np.maximum(2 * low.level, -1)
    level = np.concatenate([level, level[active]])
    level[active] += 1
    _, order = topological(graph, topology, outputs)
    same, fused = np.append(low.same, sums.astype(np.int32)), np.append(low.fused, np.full(len(active), -1, np.int32))
    owner = np.append(low.owner, active)
    return Lowered(code, like, topology, data, level, order, same, fused, low.begin, low.weight, low.bias, part, owner)


def _merge(graph: Graph, low: Lowered) -> Lowered:
    """Merge nodes of equal value: operations with equal arguments, and constants with equal bits."""
    n, code, same = len(low.code), low.code, low.same
    identity = np.where(ops.is_operation(code), -1, np.arange(n))
    constants = np.flatnonzero(code == CONSTANT)
    bits = np.append(graph.constants, 0.0)[low.data[constants]].view(np.int64)
    identity[constants] = np.where(bits == -1, constants, bits)  # -1 means "not merged" and is also a NaN
    _topology.merge(code, *low.topology, low.order, identity, _COMMUTES, same)
    if (same == np.arange(n)).all():
        return low
    topology = low.topology._replace(pool=same[low.topology.pool])
    return low._replace(topology=topology, order=low.order[same[low.order] == low.order])


def _fuse(graph: Graph, low: Lowered, outputs: Int32) -> Lowered:
    """Turn neurons that were written out as expressions into neurons; changes some arrays in place."""
    code, topology, order, fused = low.code, low.topology, low.order, low.fused
    kind = np.zeros(len(code), np.int8)
    # What find_neurons looks for: sums (1), products (2), parameters (3).
    for number, op in ((1, ops.OPS["add"].code), (1, ops.OPS["sum"].code), (2, ops.OPS["mul"].code), (3, PARAMETER)):
        kind[code == op] = number
    if not ((kind[order] == 3).any() and (kind[order] == 1).any()):
        return low
    is_output = np.zeros(len(code), np.uint8)
    is_output[outputs] = 1
    root, bias, readers = (np.empty(len(code), np.int32) for _ in range(3))
    begin, (source, weight) = np.empty(len(code) + 1, np.int64), np.empty((2, len(topology.pool)), np.int32)
    found = _topology.find_neurons(kind, *topology, order, is_output, root, begin, source, weight, bias, readers)
    root, bias, begin = root[:found], bias[:found], begin[: found + 1]
    source, weight = source[: begin[-1]], weight[: begin[-1]]
    fused[root] = np.arange(found)
    # An activation that is the only reader of a fused sum becomes the neuron's activation.
    active = order[(code[order] > 0) & ops.is_in_place(code[order])]
    inner = topology.pool[topology.start[active]]
    fits = (fused[inner] >= 0) & (readers[inner] == 1) & (is_output[inner] == 0)
    active, inner = active[fits], inner[fits]
    code[root] = NEURON
    code[active] += NEURON
    root[fused[inner]] = active
    fused[active], fused[inner] = fused[inner], -1
    topology.start[root], topology.counts[root] = len(topology.pool) + begin[:-1], np.diff(begin)
    topology = topology._replace(pool=np.concatenate([topology.pool, source]))
    level, order = topological(graph, topology, outputs)
    return low._replace(topology=topology, level=level, order=order, begin=begin, weight=weight, bias=bias)
