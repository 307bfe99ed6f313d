"""From a graph to a plan: instructions over numbered slots, in topological order.

Nodes of one level do not depend on each other, so every set of them may be one instruction. Level by level the plan
gathers: operations by kind; neurons that share their sources into dense blocks; all other neurons into sparse rows. What
no output needs is left out. The parameter vector is laid out as the instructions read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import mlgraph_ext
from mlgraph._support.array_types import Bool, Float32, Int32, Int64, UInt8
from mlgraph._support.locks import cached_property
from mlgraph.compiler.grouping import DENSE_FROM, Dropout, Groups, group
from mlgraph.compiler.instructions import (
    KINDS,
    LANES,
    LIST_TILES,
    OF_NEURONS,
    Instruction,
    Rows,
    extra_floats,
    halves_of,
    in_quads,
)
from mlgraph.compiler.layout import lay_out
from mlgraph.compiler.lowering import Lowered, lower
from mlgraph.graph import ops
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER
from mlgraph.graph.storage import PANEL, padded
from mlgraph.graph.topology import Topology, ancestors
from mlgraph_ext import _topology

MOST_BEHIND = 2**14
"""Up to so many weights, every thread goes through all of them rather than wait for one of the threads: on two threads, a
step of 8 examples takes 6 to 14 % less time so for 784-32-10, about as much for 784-32-300-10, and up to 6 % more for
784-32-500-10."""

END_OF_EDGES = 2**31
"""Kernels number the edges of rows in 32 bits."""

MOST_COLUMNS = 2**26 - 4
"""The most columns of data that blocks and rows read by themselves: kernels number `LANES` values of each in 32 bits, and
runs of four columns for all examples of a list."""

FEW_UNREAD = 1 / 3
"""Share of the data's columns, at most, that a plan whose rows read the data has slots for though nothing reads them.
Of 784-32-10, rows that read half of MNIST's columns for nothing take a tenth longer for an epoch; a copy takes half of one."""

ROW_WORK = 4
"""How many edges of a dense block cost as much time as one edge of a sparse row, or one argument of an operation."""


class Plan:
    """The compiled form of a graph for some outputs; it does not change.

    Parameters
    ----------
    graph : Graph
        Its parameters may be moved; views of weights taken before are then stale.
    outputs : sequence of int
        Ids of the nodes wanted.
    dropout : Dropout
    want_inputs : bool
        Whether the backward sweep goes down to the inputs.
    wanted : int32, optional
        Ids of nodes, beside parameters and neurons, whose adjoints are wanted; of inputs `want_inputs` alone decides.
    loss : sequence of int, optional
        Ids of the nodes that the loss reads, by default the outputs. Nodes that none of these needs pass no adjoint on: 0
        times a derivative that is infinite or NaN would be NaN.
    given, split
        As for `mlgraph.compiler.lowering.lower`.

    Attributes
    ----------
    program : int64, shape (instructions, fields of `Instruction`)
    index : int32
        Slots of arguments and sources, row pointers.
    constants : float32
    slot : int32, shape (nodes,)
        Slot of each node, -1 if no output needs it.
    node : int32, shape (slots,)
        The node of each slot.
    input_column : int32
        Columns of the data that are read, and maybe a few others; they have the first slots.
    n_columns : int
        Columns of the data, read or not.
    reads_directly : bool
        Whether only neurons read the inputs, in ways that need no lanes of them.
    dense_read_data, rows_read_data : bool
        Whether dense blocks, and sparse rows, are among the neurons that read the data.
    n_masked : int
        Floats that a worker needs for masked weights.
    n_extra : int
        Floats that a tile needs beside its slots.
    n_edges : int
        Edges into its neurons.
    work : int
        What an example costs, in multiply-adds of dense blocks.
    first_zeroed : int
        Each slot before it, except inputs whose adjoint nobody wants, is read once, by one block, which sets its adjoint.
        The adjoints of other slots are zeroed, and then added to.
    read_slots : (int, int)
        The first, and one after the last, of the slots other than inputs that neurons read.
    edge_scale : float
        The most that weights are scaled up by where edges are dropped.
    """

    def __init__(
        self,
        graph: Graph,
        outputs: Sequence[int] | Int32,
        dropout: Dropout = (),
        *,
        want_inputs: bool = False,
        wanted: Int32 | Int64 | None = None,
        loss: Sequence[int] | None = None,
        given: Int32 | None = None,
        split: bool = False,
    ) -> None:
        self.want_inputs = want_inputs
        low = lower(graph, np.array(outputs, np.int32), given, split=split)
        is_input = low.code[low.order] == INPUT
        inputs = low.order[is_input]
        inputs = inputs[np.argsort(low.data[inputs])]
        beside, chooses = np.zeros(len(low.code), bool), low.code == ops.OPS["where"].code
        ends = outputs if loss is None or {*outputs} <= {*loss} else loss
        if ends is loss or chooses.any():
            # No derivative goes through the condition of `where`, its first argument: 0 times an infinite one would be NaN.
            followed = Topology(low.topology.start + chooses, low.topology.counts - chooses, low.topology.pool)
            beside = ~ancestors(graph, followed, low.same[np.array(ends)]) & (low.topology.counts > 0)
        groups = group(graph, low, low.order[~is_input], dropout, beside)
        inputs = _with_few_unread(low, groups, inputs)
        self.input_column = low.data[inputs].astype(np.int32)
        self.n_columns = graph.n_inputs if given is None else len(given)
        self.node = np.concatenate([inputs, groups.nodes])
        self.slot = np.full(len(low.code), -1, np.int32)
        self.slot[self.node] = np.arange(len(self.node))
        self.slot = self.slot[low.same]
        self.program = np.array([Instruction(0, 0, 0, 0)], np.int64).repeat(len(groups.first), axis=0)
        self._index: list[Int32] = []
        self._index_length = 0
        self._reader = np.full(
            len(self.node), -1
        )  # the one block that reads a slot; -1 none yet, -2 not one block alone

        wants = (low.code >= PARAMETER).astype(np.uint8)
        if wanted is not None:
            wants[low.same[wanted]] = True
        wants[low.code == INPUT] = want_inputs
        _topology.spread(*low.topology, low.order, wants)
        arguments = self._add_operations(low, groups, wants & ~beside)
        self.constants = self._add_constants(graph, low, groups)
        self.reads_directly = 0 < len(inputs) < MOST_COLUMNS and not (arguments < len(inputs)).any()
        self.dense_read_data = self.rows_read_data = False
        self.n_masked = self.n_extra = self.n_edges = 0
        self.work = ROW_WORK * len(arguments)
        self.read_slots, self.edge_scale = (0, 0), 1.0
        self._add_trained(graph, low, groups, wants, dropout, beside)

        self.index = np.concatenate([*self._index, np.zeros(1, np.int32)])
        added = self._reader < 0
        added[: len(inputs)] &= want_inputs
        self.first_zeroed = int(np.argmax(np.append(added, True)))
        del self._reader, self._index, self._index_length  # or the index would be held twice
        self.n_extra = padded(self.n_extra)
        self.edits, self.moves = graph.edits, graph.storage.moves

    def _add_operations(self, low: Lowered, groups: Groups, wants: UInt8) -> Int32:
        """The instructions of operations; the slots of their arguments."""
        heads = groups.nodes[groups.first]
        at = ops.is_operation(low.code[heads])
        operations = groups.nodes[np.repeat(at, groups.size)]
        arguments: Int32 = self.slot[low.topology.sources_of(operations)]
        self._reader[arguments] = -2
        arity = low.topology.counts[heads[at]]
        lengths = groups.size[at] * arity
        wanted = np.maximum.reduceat(wants[groups.nodes], groups.first)[at] if len(heads) else 0
        self._fill(
            at,
            groups,
            KINDS["operation"],
            op=low.code[heads[at]],
            arity=arity,
            args=np.cumsum(lengths) - lengths + self._add(arguments),
            propagate=wanted,
        )
        return arguments

    def _add_constants(self, graph: Graph, low: Lowered, groups: Groups) -> Float32:
        """The instructions of constants; their values."""
        at = low.code[groups.nodes[groups.first]] == CONSTANT
        self._fill(at, groups, KINDS["constant"], weights=np.cumsum(groups.size[at]) - groups.size[at])
        constants = groups.nodes[low.code[groups.nodes] == CONSTANT]
        values = np.append(graph.constants, 0.0)[low.data[constants]]  # 0: neurons that are dead
        with np.errstate(under="ignore"):
            return np.append(values, 0).astype(np.float32)

    def _add_trained(
        self, graph: Graph, low: Lowered, groups: Groups, wants: UInt8, dropout: Dropout, beside: Bool
    ) -> None:
        """The instructions of all that has parameters, which are laid out for them."""
        trained = np.flatnonzero(low.code[groups.nodes[groups.first]] >= PARAMETER).tolist()
        dense = groups.dense[trained].tolist()
        parts = [slice(first, first + n) for first, n in zip(groups.first[trained], groups.size[trained], strict=True)]
        places = lay_out(graph, low, [groups.nodes[part] for part in parts], dense)
        none = np.zeros_like(wants)
        for i, part, shared, place in zip(trained, parts, dense, places, strict=True):
            members = groups.nodes[part]
            if low.code[members[0]] >= NEURON:
                wanted = none if beside[members[0]] else wants
                self.program[i] = self._neurons(low, i, members, shared, groups.alike[part], place, wanted, dropout)
            else:
                slot, n = int(self.slot[members[0]]), len(members)
                self.program[i] = Instruction(KINDS["parameter"], 0, slot, n, weights=place[0], n_weights=n)

    def _fill(self, at: Bool, groups: Groups, kind: int, **fields: Any) -> None:
        """Fill in the instructions of some groups."""
        fields |= {"kind": kind, "dst": groups.first[at] + len(self.input_column), "size": groups.size[at]}
        for name, values in fields.items():
            self.program[at, Instruction._fields.index(name)] = values

    def _neurons(
        self,
        low: Lowered,
        i: int,
        members: Int32,
        shared: bool,
        alike: Int32,
        place: tuple[int, int],
        wants: UInt8,
        dropout: Dropout,
    ) -> Instruction:
        first, n, counts = int(members[0]), len(members), low.topology.counts[members]
        n_edges = int(counts.sum(dtype=np.int64))
        if not shared and n_edges >= END_OF_EDGES:
            raise ValueError(
                f"graph: expected fewer than {END_OF_EDGES} edges into neurons of one level, got {n_edges}"
            )
        arity, n_inputs = int(counts[0]), len(self.input_column)
        sources = low.topology.sources_of(members[:1] if shared else members)
        slots = self.slot[sources]
        reads_data = np.array_equal(slots, np.arange(n_inputs)) if shared else bool((slots < n_inputs).all())
        self.dense_read_data |= reads_data and shared
        self.rows_read_data |= reads_data and not shared
        if not reads_data and (slots < n_inputs).any():
            self.reads_directly = False
        read = slots[slots >= n_inputs]
        if len(read):
            begin, end = self.read_slots if self.read_slots[1] else (len(self.node), 0)
            self.read_slots = min(begin, int(read.min())), max(end, int(read.max()) + 1)
        drop, keep, bits = _dropout_of(first, dropout)
        width = padded(n)  # of a dense block, padding included
        n_weights = width * arity if shared else len(sources)
        wanted = wants[sources] > 0
        seen = np.zeros(len(self.node), bool)
        seen[slots] = True
        once = np.flatnonzero(seen)
        self._reader[once] = np.where((wants[self.node[once]] > 0) & (self._reader[once] == -1), i, -2)
        if shared:  # a block adds twice to a slot that it reads twice; rows have their edges by source
            ascending = np.sort(slots)
            self._reader[ascending[1:][ascending[1:] == ascending[:-1]]] = -2
            args, back, n_back = self._add(slots), 0, 0
        else:
            whole = alike.copy()
            if not wanted.all():
                whole[np.repeat(np.arange(n), counts)[~wanted]] = 1
            args = self._add(np.append(0, np.cumsum(counts)).astype(np.int32), slots, alike, whole)
            back, n_back = self._add_by_source(slots, counts, whole, wanted) if wanted.any() else (0, 0)
        halves = halves_of(n, arity) if shared and reads_data else 1
        extra = shared * extra_floats(width, halves)
        mask = -(-n_weights // 64) * 2 if bits else 0
        mask_at = self.n_extra + extra
        instruction = Instruction(
            KINDS["dense" if shared else "rows"],
            int(low.code[first] - NEURON),
            int(self.slot[first]),
            n,
            arity,
            args,
            weights=place[0],
            n_weights=n_weights,
            decays=low.written[first] < 0,
            bias=place[1],
            reads_data=reads_data,
            propagate=bool(wanted.any()),
            back=back,
            n_back=n_back,
            transposed=self.n_extra,
            halves=halves,
            stream=i,
            drop=drop,
            keep=keep,
            bits=bits,
            mask=mask_at,
            kept=mask_at + mask,
            masked=self.n_masked,
        )
        self.n_extra += extra + mask + (-(-n // 64) * 2 if drop else 0)
        self.n_edges += n_edges
        self.work += n_edges if shared else ROW_WORK * n_edges
        if bits:
            self.edge_scale = max(self.edge_scale, 2.0**bits / keep)
            self.n_masked += padded(n_weights)
        return instruction

    @cached_property
    def instructions(self) -> list[Instruction]:
        """The rows of the program by name."""
        return [Instruction(*row) for row in self.program.tolist()]

    @cached_property
    def trained(self) -> list[tuple[int, Instruction]]:
        """Number and instruction of everything that has parameters."""
        trained = np.isin(self.program[:, 0], [KINDS["parameter"], *OF_NEURONS])
        return [(i, Instruction(*self.program[i].tolist())) for i in np.flatnonzero(trained).tolist()]

    @cached_property
    def trained_ranges(self) -> Int64:
        """Where parameters stand that it trains, padding included: in turns where a range begins and where it ends."""
        ranges = [
            (at, at + n) for _, ins in self.trained for at, n in ((ins.weights, ins.n_weights), (ins.bias, ins.size))
        ]
        return np.array(sorted((at, end) for at, end in ranges if 0 <= at < end), np.int64).reshape(-1)

    def rows(self, ins: Instruction) -> Rows:
        """What the neurons of an instruction of rows read."""
        table, n = self.index[ins.args :], ins.size + 1
        n_edges = int(table[ins.size])
        begin, source, alike, whole, _ = np.split(table, np.cumsum([n, n_edges, ins.size, ins.size]))
        return Rows(begin, source, alike, whole)

    def is_stale(self, graph: Graph) -> bool:
        """Whether the graph has changed since the plan was made."""
        return self.edits != graph.edits or self.moves != graph.storage.moves

    @property
    def n_slots(self) -> int:
        """Number of slots: inputs, as `input_column` has them, and nodes."""
        return len(self.node)

    @cached_property
    def width(self) -> int:
        """How many columns the data must have: up to the last that is read."""
        return int(self.input_column.max(initial=-1)) + 1

    @cached_property
    def list_floats(self) -> int:
        """Floats that a list of nonzero data may need."""
        return mlgraph_ext.sweep.entry_floats(len(self.input_column), LIST_TILES * LANES)

    @property
    def examples_at_once(self) -> int:
        """Examples of a step that only sums gradients, and keeps all its tiles until that: 16 MB of values, or one tile."""
        return max(1, 2**22 // max(1, self.n_slots) // LANES) * LANES

    @cached_property
    def largest_blocks(self) -> tuple[int, int]:
        """Weights of the largest dense block, and of the largest that does not read the data.

        0 if there are rows, which then decide, or if edges are dropped: a worker has the weights of one tile at a time.
        """
        if any(ins.bits or ins.kind == KINDS["rows"] for _, ins in self.trained):
            return 0, 0
        blocks = [ins for _, ins in self.trained if ins.kind == KINDS["dense"]]
        behind = [ins for ins in blocks if not ins.reads_data]
        return max((ins.n_weights for ins in blocks), default=0), max((ins.n_weights for ins in behind), default=0)

    @cached_property
    def blocks_of_data(self) -> list[Instruction]:
        """Dense blocks that read the data."""
        return [ins for _, ins in self.trained if ins.kind == KINDS["dense"] and ins.reads_data]

    @cached_property
    def threads_ahead(self) -> int:
        """How many threads can share the dense blocks that read the data, with their sums made ahead; 0: none."""
        blocks = self.blocks_of_data
        if any(ins.bits for ins in blocks):
            return 0
        return sum(-(-ins.size // PANEL) * ins.halves for ins in blocks)

    @cached_property
    def sweeps_alone(self) -> bool:
        """Whether every thread sweeps the tile of a step that has only one, when sums are made ahead.

        If blocks are shared out by panels, each thread lists the data of all columns, and a thread that does not sweep had
        better do that meanwhile. Parameters that are nodes are units before all others, and would end a step's sweeps early.
        """
        ahead = self.blocks_of_data
        behind = sum(ins.n_weights for _, ins in self.trained) - sum(ins.n_weights for ins in ahead)
        nodes = any(ins.kind == KINDS["parameter"] for _, ins in self.trained)
        return all(ins.halves == 2 for ins in ahead) and behind <= MOST_BEHIND and not nodes

    @cached_property
    def row_parameters(self) -> tuple[int, int]:
        """Where the parameters of rows begin and end, in whole panels.

        (0, 0) if any edges are dropped, also those of blocks: a worker then has the weights of one tile at a time.
        """
        rows = [ins for _, ins in self.trained if ins.kind == KINDS["rows"]]
        if not rows or any(ins.bits for _, ins in self.trained):
            return 0, 0
        first = min(min(ins.weights, ins.bias if ins.bias >= 0 else ins.weights) for ins in rows)
        end = max(max(ins.weights + ins.n_weights, ins.bias + ins.size) for ins in rows)
        return first // PANEL * PANEL, padded(end)

    def _add_by_source(self, slots: Int32, count: Int32, alike: Int32, wanted: Bool) -> tuple[int, int]:
        """Add the edges of sparse rows, sorted by source as `rows_adjoint` reads them; their place and number of sources."""
        edges = np.flatnonzero(wanted).astype(np.int32)
        neurons = np.repeat(np.arange(len(count), dtype=np.int32), count)[edges]
        low = slots[edges] - slots.min()
        # Numbers of 16 bits are sorted in linear time.
        keys = [(low & 0xFFFF).astype(np.uint16)] + ([(low >> 16).astype(np.uint16)] if low.max() > 0xFFFF else [])
        order = np.lexsort(keys)
        slots = slots[edges[order]]
        firsts = np.flatnonzero(np.append(True, slots[1:] != slots[:-1])).astype(np.int32)
        single = ~in_quads(alike)[neurons[order]]
        begin = np.append(0, np.cumsum(single))[np.append(firsts, len(slots))].astype(np.int32)
        pairs = np.column_stack([edges[order], neurons[order]])[single].reshape(-1)
        return self._add(slots[firsts], begin, pairs), len(firsts)

    def _add(self, *parts: Int32) -> int:
        at = self._index_length
        self._index.extend(parts)
        self._index_length += sum(map(len, parts))
        return at


def _with_few_unread(low: Lowered, groups: Groups, inputs: Int32) -> Int32:
    """Also the inputs that nothing reads, up to the last that is read, if they are few and enough rows read the others.

    Rows that become blocks (filling.py) then read the data in place, where each edit might ask for another copy of the columns
    that are left. A dense block of the data has no holes for columns that it does not read.
    """
    heads = groups.nodes[groups.first]
    rows = (low.code[heads] >= NEURON) & (groups.size >= DENSE_FROM) & ~groups.dense
    of_rows, of_blocks = (low.code[low.topology.sources_of(heads[at])] == INPUT for at in (rows, groups.dense))
    if of_blocks.any() or not of_rows.any():
        return inputs
    columns = np.flatnonzero((low.code == INPUT) & (low.data >= 0) & (low.data <= low.data[inputs[-1]])).astype(
        np.int32
    )
    few = len(columns) - len(inputs) <= FEW_UNREAD * len(columns)
    return columns[np.argsort(low.data[columns])] if few else inputs


def _dropout_of(node: int, dropout: Dropout) -> tuple[int, int, int]:
    """(drop * 2**32, keep, bits) of a neuron: an edge is kept with probability keep / 2**bits."""
    for ids, neurons, edges in dropout:
        if node in ids:
            # A share so close to 1 that it would round to 1 keeps one in 65536, or in 2**32: something is always kept.
            keep, bits = (max(1, round((1 - edges) * 65536)), 16) if edges else (0, 0)
            while bits and keep % 2 == 0:
                keep, bits = keep // 2, bits - 1
            return min(round(neurons * 2**32), 2**32 - 1), keep, bits
    return 0, 0, 0
