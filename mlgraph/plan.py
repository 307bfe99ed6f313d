"""From a graph to a plan: instructions over numbered slots, in topological order.

Nodes of one level do not depend on each other, so every set of them may be one instruction. Level by level the plan
gathers: operations by kind; neurons that share their sources into dense blocks; all other neurons into sparse rows. What
no output needs is left out. The parameter vector is laid out as the instructions read it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph.graph import CONSTANT, INPUT, NEURON, PANEL, PARAMETER, CycleError, Graph
from mlgraph_ext._topology import levels

LANES = 32
"""Examples of a tile (``LANES`` of the kernels)."""

KINDS = {"constant": 0, "parameter": 1, "operation": 2, "dense": 3, "rows": 4}
"""Kinds of instructions, as the kernels number them."""

DENSE_FROM = 8
"""Neurons that must share their sources to be a dense block: a panel of `PANEL` costs about half as many sparse rows."""

Ints = npt.NDArray[np.int64]


class Instruction(NamedTuple):
    """A run of nodes executed by one kernel call; the fields and their order are those of the kernels."""

    kind: int
    op: int
    dst: int
    size: int
    arity: int = 0
    args: int = 0
    weights: int = 0
    n_weights: int = 0
    bias: int = -1
    reads_data: int = 0
    propagate: int = 0
    transposed: int = 0
    stream: int = 0
    drop: int = 0
    keep: int = 0
    bits: int = 0
    mask: int = 0
    masked: int = 0


class Plan:
    """The compiled form of a graph for some outputs; it does not change.

    Parameters
    ----------
    graph : Graph
        Its parameters may be moved; views of weights taken before are then stale.
    outputs : sequence of int
        Ids of the nodes wanted.
    dropout : sequence of (range, float, float)
        For ids of neurons: the share of neurons and of edges that a training step drops.
    want_inputs : bool
        Whether the backward sweep goes down to the inputs.

    Attributes
    ----------
    program : int64, shape (instructions, fields of `Instruction`)
    index : int32
        Slots of arguments and sources, row pointers.
    constants : float32
    slot : int32, shape (nodes,)
        Slot of each node, -1 for what no output needs.
    node : int32, shape (slots,)
        The node of each slot.
    input_column : int32
        Columns of the data that are read; they have the first slots.
    sparse_ready : bool
        Whether only dense blocks read the inputs, so that data need not be laid out in lanes.
    n_masked : int
        Floats that a worker needs for masked weights.
    n_extra : int
        Floats that a tile needs beside its slots.
    n_edges : int
        Edges into live neurons.

    Raises
    ------
    CycleError
        If what the outputs need has a cycle.
    """

    def __init__(
        self,
        graph: Graph,
        outputs: Any,
        dropout: Any = (),
        *,
        want_inputs: bool = False,
    ) -> None:
        self.outputs = np.array(outputs, np.int32)
        self.want_inputs = want_inputs
        start, count = np.array(graph._start, np.int64), graph.counts
        pool, code = np.array(graph._pool, np.int32), graph.codes
        data = np.array(graph._data, np.int64)
        raw, cycle = levels(start, count, pool, self.outputs)
        if cycle:
            names = " <- ".join(graph[i].name for i in cycle[:10]) + (" <- ..." if len(cycle) > 10 else "")
            raise CycleError(f"the graph has a cycle of {len(cycle)} nodes: {names}")
        level = np.frombuffer(raw, np.int32)
        live = np.flatnonzero(level >= 0)

        is_input = code[live] == INPUT
        inputs = live[is_input]
        inputs = inputs[np.argsort(data[inputs])]
        self.input_column = data[inputs].astype(np.int32)
        nodes = live[~is_input]
        keys = np.column_stack([level[nodes], *_group_keys(graph, nodes, code, start, count, pool, data, dropout), nodes])
        order = np.lexsort(keys.T[::-1])
        nodes, keys = nodes[order], keys[order, :-1]
        self.node = np.concatenate([inputs, nodes]).astype(np.int32)
        self.slot = np.full(len(code), -1, np.int32)
        self.slot[self.node] = np.arange(len(self.node))
        edges = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
        groups = np.split(nodes, edges) if len(nodes) else []

        _lay_out(graph, groups, code, count, data)
        weights, bias = np.array(graph._weights, np.int64), np.array(graph._bias, np.int64)
        self._index: list[npt.NDArray[np.int32]] = []
        self._index_length = 0
        wants = np.zeros(len(code), bool)
        wants[inputs] = want_inputs
        n_inputs = len(inputs)
        self.sparse_ready = 0 < n_inputs <= np.iinfo(np.uint16).max
        self.n_masked = self.n_extra = self.n_edges = 0
        program: list[Instruction] = []
        constants: list[npt.NDArray[np.float64]] = []
        for stream, group in enumerate(groups):
            first, n = group[0], len(group)
            op, dst, arity = int(code[first]), int(self.slot[first]), int(count[first])
            if op == CONSTANT:
                program.append(Instruction(KINDS["constant"], 0, dst, n, weights=sum(len(c) for c in constants)))
                constants.append(np.array([graph._constants[i] for i in data[group]]))
                continue
            if op == PARAMETER:
                wants[group] = True
                program.append(Instruction(KINDS["parameter"], 0, dst, n, weights=int(weights[data[first]]), n_weights=n))
                continue
            shared = op >= NEURON and _is_dense(graph, group, data)
            sources = pool[start[first] : start[first] + arity] if shared else _gather(pool, start[group], count[group])
            slots = self.slot[sources]
            propagate = bool(wants[sources].any())
            reads_data = shared and np.array_equal(slots, np.arange(n_inputs))
            if not reads_data and (slots < n_inputs).any():
                self.sparse_ready = False
            if op < NEURON:
                wants[group] = propagate
                program.append(Instruction(KINDS["operation"], op, dst, n, arity, self._add(slots), propagate=propagate))
                continue
            wants[group] = True
            drop, keep, bits = _dropout_of(first, dropout)
            width = -(-n // PANEL) * PANEL  # of a dense block, padding included
            n_weights = width * arity if shared else len(sources)
            pointers = [] if shared else [np.concatenate([[0], np.cumsum(count[group])]).astype(np.int32)]
            record = data[first]
            program.append(
                Instruction(
                    KINDS["dense" if shared else "rows"], op - NEURON, dst, n, arity, self._add(*pointers, slots),
                    int(weights[record]), n_weights, int(bias[record]), reads_data, propagate,
                    self.n_extra, stream, drop, keep, bits, self.n_extra + shared * width * LANES, self.n_masked,
                )
            )  # fmt: skip
            self.n_extra += shared * width * LANES
            self.n_edges += int(count[group].sum())
            if bits:
                self.n_extra += -(-n_weights // 64) * 2
                self.n_masked += -(-n_weights // PANEL) * PANEL
            elif drop and reads_data:
                # A thin copy of the block (_dropout.pxi): a panel for each 32 neurons, and their slots.
                self.n_masked += -(-n // 32) * PANEL * (arity + LANES)
        self.n_extra = -(-self.n_extra // PANEL) * PANEL
        self.instructions = program
        self.program = np.array(program, np.int64).reshape(-1, len(Instruction._fields))
        self.index = np.concatenate([*self._index, np.zeros(1, np.int32)])
        self.constants = np.concatenate([*constants, np.zeros(1)]).astype(np.float32)
        self.edits, self.moves = graph.edits, graph.moves

    def is_stale(self, graph: Graph) -> bool:
        """Whether the graph has changed since."""
        return self.edits != graph.edits or self.moves != graph.moves

    @property
    def n_slots(self) -> int:
        """Number of slots: inputs that are read, and nodes."""
        return len(self.node)

    def units(self, chunks: int) -> Ints:
        """Runs of parameters for the second phase of a step.

        Parameters
        ----------
        chunks : int
            Chunks of the columns where dense blocks read the nonzeros of the data, else 0.

        Returns
        -------
        int64, shape (units, 6)
            Instruction, part (0 weights, 1 bias), first and last source, chunk, neuron or node, first panel, panels. The
            gradient of one unit stays in the L1 cache.
        """
        units = []
        for i, ins in enumerate(self.instructions):
            if ins.kind == KINDS["dense"]:
                sparse = chunks and ins.reads_data
                panels = -(-ins.size // PANEL)
                step, last = (1, chunks) if sparse else (64, ins.arity)
                wide = 2 if sparse else 4
                units += [
                    (i, 0, k, min(k + step, last), p, min(wide, panels - p))
                    for p in range(0, panels, wide)
                    for k in range(0, last, step)
                ]
                if ins.bias >= 0:
                    units += [(i, 1, 0, 0, p, min(64, panels - p)) for p in range(0, panels, 64)]
            elif ins.kind == KINDS["rows"]:
                rows = self.index[ins.args : ins.args + ins.size + 1]
                units += [(i, 0, a, b, 0, 0) for a, b in _runs(rows, 2048)]
                if ins.bias >= 0:
                    units += [(i, 1, a, min(a + 2048, ins.size), 0, 0) for a in range(0, ins.size, 2048)]
            elif ins.kind == KINDS["parameter"]:
                units += [(i, 0, a, min(a + 2048, ins.size), 0, 0) for a in range(0, ins.size, 2048)]
        return np.array(units, np.int64).reshape(-1, 6)

    def unit_floats(self, units: Ints, chunk: npt.NDArray[np.int32] | None) -> int:
        """Floats of the largest gradient among `units`."""
        most = 64
        for i, part, first, last, _, panels in units:
            ins = self.instructions[i]
            if ins.kind == KINDS["dense"] and part == 0:
                if chunk is not None and ins.reads_data:
                    first, last = chunk[first], chunk[last]
                most = max(most, int((last - first) * panels * PANEL))
            elif ins.kind == KINDS["rows"] and part == 0:
                most = max(most, int(self.index[ins.args + last] - self.index[ins.args + first]))
            else:
                most = max(most, int(last - first), int(panels * PANEL))
        return -(-most // PANEL) * PANEL

    def _add(self, *parts: npt.NDArray[np.int32]) -> int:
        at = self._index_length
        self._index.extend(parts)
        self._index_length += sum(map(len, parts))
        return at


def _gather(pool: npt.NDArray[np.int32], start: Ints, count: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """pool[start[i] : start[i] + count[i]] for all i, one after the other."""
    ends = np.cumsum(count)
    out: npt.NDArray[np.int32] = pool[np.arange(ends[-1] if len(ends) else 0) + np.repeat(start - (ends - count), count)]
    return out


def _runs(rows: npt.NDArray[np.int32], edges: int) -> list[tuple[int, int]]:
    """Runs of neurons with about `edges` edges each."""
    cuts = np.searchsorted(rows, np.arange(edges, rows[-1], edges))
    bounds = np.unique([0, *cuts, len(rows) - 1])
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))


def _dropout_of(node: int, dropout: Any) -> tuple[int, int, int]:
    """(drop * 2**32, keep, bits) of a neuron: an edge is kept with probability keep / 2**bits."""
    for ids, neurons, edges in dropout:
        if node in ids:
            keep, bits = (round((1 - edges) * 65536), 16) if edges else (0, 0)
            while bits and keep % 2 == 0:
                keep, bits = keep // 2, bits - 1
            return round(neurons * 2**32), keep, bits
    return 0, 0, 0


def _group_keys(
    graph: Graph, nodes: Ints, code: Any, start: Ints, count: Any, pool: Any, data: Ints, dropout: Any
) -> list[Any]:
    """Columns that are equal for nodes of one level that one instruction may compute."""
    kind = code[nodes].astype(np.int64)
    shape = count[nodes].astype(np.int64)
    detail = np.zeros(len(nodes), np.int64)
    at = np.flatnonzero(kind >= NEURON)
    neurons = nodes[at]
    for i, (ids, _, _) in enumerate(dropout):
        detail[at[(neurons >= ids.start) & (neurons < ids.stop)]] = 2 * (i + 1)
    if len(neurons):
        detail[at] += np.frombuffer(graph._bias, np.int64)[data[neurons]] >= 0
        # Which neurons read the same sources: first by where their list begins, then by what it holds.
        starts, place = np.unique(start[neurons], return_inverse=True)
        first = neurons[np.unique(place, return_index=True)[1]]
        lists: dict[bytes, int] = {}
        held = [pool[s : s + count[n]].tobytes() for s, n in zip(starts, first, strict=True)]
        which = np.array([lists.setdefault(sources, len(lists)) for sources in held])
        key = np.column_stack([which[place], kind[at], detail[at]])
        _, inverse, size = np.unique(key, axis=0, return_inverse=True, return_counts=True)
        shape[at] = np.where(size[inverse.reshape(-1)] >= DENSE_FROM, which[place], -1)
    return [kind, shape, detail]


def _is_dense(graph: Graph, group: Ints, data: Ints) -> bool:
    return bool(graph._stride[data[group[0]]] == PANEL)


def _lay_out(graph: Graph, groups: list[Ints], code: Any, count: Any, data: Ints) -> None:
    """Bring the parameters of each group together, if they are not: panels for dense blocks, runs for all others."""
    weights, stride, bias = (
        np.array(graph._weights, np.int64), np.array(graph._stride, np.int64), np.array(graph._bias, np.int64)
    )  # fmt: skip
    want = weights.copy(), stride.copy(), bias.copy()
    seen = np.zeros(len(weights), bool)
    top, same = 0, True
    blocks = []
    for group in groups:
        if code[group[0]] < PARAMETER:
            continue
        record, n, k = data[group], len(group), np.arange(len(group))
        seen[record] = True
        fan = count[group].astype(np.int64) if code[group[0]] >= NEURON else np.ones(n, np.int64)
        ends = np.cumsum(fan)
        # Groups of DENSE_FROM and more neurons have a source list of their own (_group_keys).
        dense = bool(code[group[0]] >= NEURON and n >= DENSE_FROM and _one_list(graph, group))
        rows = -(-n // PANEL) * PANEL
        if dense:
            first, step, size = k // PANEL * (PANEL * fan[0]) + k % PANEL, PANEL, rows * fan[0]
        else:
            first, step, size = ends - fan, 1, -(-ends[-1] // PANEL) * PANEL
        blocks.append((record, fan))
        has_bias = code[group[0]] >= NEURON and bias[record[0]] >= 0
        here = weights[record[0]]
        same = same and (
            here % PANEL == 0
            and np.array_equal(weights[record], here + first)
            and bool((stride[record] == step).all())
            and (not has_bias or np.array_equal(bias[record], bias[record[0]] + k))
        )
        want[0][record], want[1][record] = top + first, step
        top += size
        if has_bias:
            want[2][record] = top + k
            top += rows
    if same:
        return
    for unseen in np.flatnonzero(~seen).tolist():
        # What no output needs keeps its values behind the rest.
        owner = np.flatnonzero((data == unseen) & (code >= PARAMETER))[0]
        n = int(count[owner]) if code[owner] >= NEURON else 1
        want[0][unseen], want[1][unseen] = top, 1
        blocks.append((np.array([unseen]), np.array([n])))
        top += n
        if bias[unseen] >= 0:
            want[2][unseen] = top
            top += 1
    origin = np.full(-(-top // PANEL) * PANEL, -1)
    for records, fan in blocks:
        which = np.repeat(records, fan)
        j = np.arange(len(which)) - np.repeat(np.cumsum(fan) - fan, fan)
        origin[want[0][which] + j * want[1][which]] = weights[which] + j * stride[which]
        biased = records[bias[records] >= 0]
        origin[want[2][biased]] = bias[biased]
    graph.move_parameters(origin, np.arange(len(weights)), *want)


def _one_list(graph: Graph, group: Ints) -> bool:
    first = graph.sources_of(int(group[0]))
    if len({graph._start[i] for i in group}) == 1:
        return True
    return all(np.array_equal(graph.sources_of(int(i)), first) for i in group)
