"""The plan: instructions over numbered slots, in topological order; it is the result of all passes.

Nodes of one level do not depend on each other, so any set of them can be one instruction. On each level,
operations are collected by kind, neurons that share their sources become dense blocks, and all other
neurons become sparse rows. The parameter vector is laid out in the order in which instructions read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import mlgraph_ext
from mlgraph._support.array_types import Bool, Float32, Int32, Int64, UInt8
from mlgraph._support.locks import cached_property
from mlgraph.compiler.grouping import DENSE_FROM, Dropout, Groups, group
from mlgraph.compiler.instructions import KINDS, LANES, LIST_TILES, Instruction, Rows, halves_of
from mlgraph.compiler.layout import lay_out
from mlgraph.compiler.lowering import Lowered, lower
from mlgraph.graph import ops
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER
from mlgraph.graph.storage import PANEL, padded
from mlgraph.graph.topology import Topology, ancestors
from mlgraph.graph.views import name_of
from mlgraph_ext import _topology

MAX_EDGES = 2**31
"""Upper limit of the edges of one instruction: kernels number them with 32 bits."""

MAX_COLUMNS = 2**26 - 4
"""Maximum number of columns that blocks and rows read directly from the data.

Kernels number `LANES` values of each column, and groups of four columns for all examples of a list, with 32 bits.
"""

MAX_UNREAD = 1 / 3
"""Maximum fraction of unused input columns that still get a slot.

With such slots, sparse rows read the data in place. For 784-32-10, reading half of MNIST's columns needlessly makes
an epoch 10 % longer; a copy of the data without them takes half an epoch.
"""

ROW_WORK = 4
"""Cost of an edge of a sparse row, or of an argument of an operation, in edges of a dense block."""

_WHERE = ops.OPS["where"].code
_OPERATIONS = frozenset(range(len(ops.BY_CODE)))

_BLANK = np.array([Instruction(0, 0, 0, 0)], np.int64)
_NO_READER = np.array([-1], np.int64)

_KIND, _WEIGHTS, _N_WEIGHTS, _READS_DATA, _HALVES = (
    Instruction._fields.index(name) for name in ("kind", "weights", "n_weights", "reads_data", "halves")
)
_DROP = [Instruction._fields.index(name) for name in ("drop", "keep", "bits")]


class Plan:
    """The immutable compiled form of a graph for some outputs.

    Parameters
    ----------
    graph : Graph
        Compiling may move its parameters; views of weights that were taken before are then stale.
    outputs : sequence of int
        Ids of the output nodes.
    dropout : Dropout
    want_inputs : bool
        Whether the backward sweep computes adjoints of the inputs.
    wanted : int32, optional
        Ids of further nodes whose adjoints are needed; parameters and neurons always have them.
    loss : sequence of int, optional
        Ids of the nodes that the loss reads, by default the outputs. Nodes on which the loss does not depend
        pass no adjoint on, because 0 times an infinite derivative would be NaN.
    given, split
        As for `mlgraph.compiler.lowering.lower`.

    Attributes
    ----------
    program : int64, shape (instructions, fields of `Instruction`)
    index : int32
        Slots of arguments and sources, and CSR row pointers.
    constants : float32
    slot : int32, shape (nodes,)
        Slot of each node, -1 if no output needs it.
    node : int32, shape (slots,)
        Node of each slot.
    input_column : int32
        Columns of the data that are read, and perhaps a few others. They have the first slots.
    n_columns : int
        Number of columns of the data, read or not.
    reads_directly : bool
        Whether neurons alone read the inputs, and can read them in the data instead of in slots.
    dense_read_data, rows_read_data : bool
        Whether dense blocks, and sparse rows, read the data.
    n_masked : int
        Number of floats that a thread needs for masked weights.
    n_extra : int
        Number of floats that a tile needs in addition to its slots.
    n_edges : int
        Number of edges into neurons.
    work : int
        Cost of an example, in multiply-adds of dense blocks.
    first_zeroed : int
        Each slot before it is read by exactly one block, which sets its adjoint. The adjoints of the
        other slots are set to zero first and then added to. (Inputs without adjoints do not count.)
    read_slots : (int, int)
        Range of the slots, other than inputs, that neurons read.
    edge_scale : float
        Maximum factor by which weight dropout scales weights up.
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
        self._owner, self._n_nodes = low.owner, len(graph)
        if dropout:
            _refuse_dropout(graph, low, dropout)
        nodes = np.empty_like(low.order)
        n_inputs = _topology.put_inputs_first(low.code, low.data, low.order, nodes)
        off_loss = np.zeros(len(low.code), bool)
        codes = _topology.distinct(low.code, low.order)
        ends = outputs if loss is None or {*outputs} <= {*loss} else loss
        if ends is loss or _WHERE in codes:
            chooses = low.code == _WHERE
            # The condition of `where`, its first argument, gets no derivative: 0 times an infinite one would be NaN.
            followed = Topology(low.topology.start + chooses, low.topology.counts - chooses, low.topology.pool)
            off_loss = ~ancestors(graph, followed, low.same[np.array(ends)]) & (low.topology.counts > 0)
        groups = group(graph, low, nodes[n_inputs:], dropout, off_loss)
        inputs = _with_few_unread(low, groups, nodes[:n_inputs])
        self.input_column = low.data[inputs].astype(np.int32)
        self.n_columns = graph.n_inputs if given is None else len(given)
        self.node = np.concatenate([inputs, groups.nodes])
        self.slot = np.empty(len(low.code), np.int32)
        _topology.number_slots(self.node, low.same, self.slot)
        self.program = _BLANK.repeat(len(groups.first), axis=0)
        # The block that is the only reader of a slot; -1 for no reader, -2 for several or for others.
        self._reader = _NO_READER.repeat(len(self.node))

        wants = (low.code >= PARAMETER).view(np.uint8)
        if wanted is not None:
            wants[low.same[wanted]] = True
        if want_inputs or wanted is not None:
            wants[low.code == INPUT] = want_inputs
        _topology.spread(*low.topology, low.order, wants)
        self.reads_directly = 0 < len(inputs) < MAX_COLUMNS
        arguments, self.constants = np.zeros(0, np.int32), np.zeros(1, np.float32)
        if not codes.isdisjoint(_OPERATIONS):
            arguments = self._add_operations(low, groups, wants & ~off_loss)
        if CONSTANT in codes:
            self.constants = self._add_constants(graph, low, groups)
        self.n_extra = 0
        self.work = ROW_WORK * len(arguments)
        self.edge_scale = 1.0
        self._add_trained(graph, low, groups, wants, dropout, arguments)
        self._drop_operations(low, groups, dropout)

        self.first_zeroed = _topology.first_added(self._reader, len(inputs), want_inputs)
        del self._reader
        self.n_extra = padded(self.n_extra)
        self.edits, self.moves = graph.edits, graph.storage.moves

    def _add_operations(self, low: Lowered, groups: Groups, wants: UInt8) -> Int32:
        """Add the instructions of operations; return the slots of their arguments."""
        heads = groups.nodes[groups.first]
        at = ops.is_operation(low.code[heads])
        operations = groups.nodes[np.repeat(at, groups.size)]
        arguments: Int32 = self.slot[low.topology.sources_of(operations)]
        self._reader[arguments] = -2
        self.reads_directly = self.reads_directly and bool((arguments >= len(self.input_column)).all())
        arity = low.topology.counts[heads[at]]
        lengths = groups.size[at] * arity
        wanted = np.maximum.reduceat(wants[groups.nodes], groups.first)[at] if len(heads) else 0
        self._set(
            at,
            groups,
            KINDS["operation"],
            op=low.code[heads[at]],
            arity=arity,
            args=np.cumsum(lengths) - lengths,
            propagate=wanted,
        )
        return arguments

    def _add_constants(self, graph: Graph, low: Lowered, groups: Groups) -> Float32:
        """Add the instructions of constants; return their values."""
        at = low.code[groups.nodes[groups.first]] == CONSTANT
        size = groups.size[at]
        self._set(at, groups, KINDS["constant"], weights=size.cumsum() - size)
        which = low.data[groups.nodes[low.code[groups.nodes] == CONSTANT]]
        values, found = np.zeros(len(graph.constants) + 1), np.zeros(len(which) + 1, np.float32)
        values[:-1] = graph.constants  # the last, 0, is for neurons that are not live
        with np.errstate(under="ignore"):
            found[:-1] = values[which]
        return found

    def _add_trained(
        self, graph: Graph, low: Lowered, groups: Groups, wants: UInt8, dropout: Dropout, arguments: Int32
    ) -> None:
        """Lay out the parameters, add instructions of parameters and neurons, and write the index after `arguments`."""
        places = lay_out(graph, low, groups)
        n_inputs, dense = len(self.input_column), groups.dense
        whole, facts = groups.alike.copy(), np.empty((len(groups.first), 5), np.int64)
        mixed, lowest, end, *reading, of_blocks, of_rows, length = _topology.read_sources(
            groups.arrays, self.slot, len(self.node), wants, n_inputs, whole, facts
        )
        if of_rows >= MAX_EDGES:
            too_many = facts[~dense & (facts[:, 1] >= MAX_EDGES), 1]
            if len(too_many):
                raise ValueError(
                    f"graph: expected fewer than {MAX_EDGES} edges into neurons of one level, got {too_many[0]}"
                )
        self.read_slots, (self.dense_read_data, self.rows_read_data) = (lowest, end), reading
        self.reads_directly = self.reads_directly and not mixed
        self.n_edges = of_blocks + of_rows
        self.work += of_blocks + ROW_WORK * of_rows
        heads = groups.nodes[groups.first]
        for k in np.flatnonzero(dense & (facts[:, 2] > 0)).tolist() if self.dense_read_data else []:
            self.program[k, _HALVES] = halves_of(int(groups.size[k]), int(low.topology.counts[heads[k]]))
        for k in np.flatnonzero(low.code[heads] >= NEURON).tolist() if dropout else []:
            drop, keep, bits = _dropout_of(int(low.owners(heads[k : k + 1])[0]), dropout)
            # The activation of a sum that is a node of its own drops it.
            self.program[k, _DROP] = drop if heads[k] < self._n_nodes else 0, keep, bits
            if bits:
                self.edge_scale = max(self.edge_scale, 2.0**bits / keep)
        in_quads = np.empty(len(whole), np.uint8)
        mlgraph_ext.sweep.find_quads(whole, in_quads)
        self.index = np.empty(len(arguments) + length + 1, np.int32)
        self.index[: len(arguments)] = arguments
        end, self.n_extra, self.n_masked = _topology.add_neurons(
            groups.arrays,
            self.slot,
            self.node,
            wants,
            n_inputs,
            whole,
            in_quads,
            facts,
            places,
            LANES,
            PANEL,
            self.n_extra,
            self.program,
            self.index,
            len(arguments),
            self._reader,
        )
        self.index[end] = 0
        if end + 1 < len(self.index):  # edges into quads take less
            self.index = self.index[: end + 1].copy()

    def _set(self, at: Bool, groups: Groups, kind: int, **fields: Any) -> None:
        """Set fields of the instructions of some groups."""
        number = at.nonzero()[0]
        fields |= {"kind": kind, "dst": groups.first[number] + len(self.input_column), "size": groups.size[number]}
        for name, values in fields.items():
            self.program[number, Instruction._fields.index(name)] = values

    def _drop_operations(self, low: Lowered, groups: Groups, dropout: Dropout) -> None:
        """Add the dropout of neurons whose activations are operations of their own."""
        heads = groups.nodes[groups.first]
        for ids, neurons, _ in dropout:
            at = ops.is_operation(low.code[heads]) & np.isin(heads, ids) if neurons else []
            for i in np.flatnonzero(at).tolist():
                ins = Instruction(*self.program[i].tolist())
                drop = _dropout_of(int(heads[i]), dropout)[0]
                self.program[i] = ins._replace(stream=i, drop=drop, kept=self.n_extra)
                self.n_extra += -(-ins.size // 64) * 2

    def sum_slots(self, nodes: Int32) -> Int32:
        """Slots of the weighted sums of neurons whose activations are operations; -1 for other nodes."""
        sums = np.full(len(self.slot) + 1, -1, np.int32)
        for ins in self.instructions:
            if ins.kind == KINDS["operation"] and ins.arity == 1:
                sums[self.node[ins.dst : ins.dst + ins.size]] = self.index[ins.args : ins.args + ins.size]
        return sums[nodes]

    def graph_node(self, slot: int) -> int:
        """The node of the graph that a slot belongs to: for one that the compiler added, its neuron."""
        node = int(self.node[slot])
        return node if node < self._n_nodes else int(self._owner[node - self._n_nodes])

    @cached_property
    def instructions(self) -> list[Instruction]:
        """The program as a list of instructions."""
        return [Instruction(*row) for row in self.program.tolist()]

    @cached_property
    def trained(self) -> list[tuple[int, Instruction]]:
        """The instructions that have parameters, with their numbers."""
        kind = self.program[:, _KIND]
        trained = (kind == KINDS["parameter"]) | (kind == KINDS["dense"]) | (kind == KINDS["rows"])
        return [(i, Instruction(*self.program[i].tolist())) for i in np.flatnonzero(trained).tolist()]

    @cached_property
    def trained_ranges(self) -> Int64:
        """Ranges of the trained parameters, padding included, as [begin, end, begin, end, ...]."""
        return self.updated_ranges[:, :2].ravel()

    @cached_property
    def updated_ranges(self) -> Int64:
        """These ranges as rows: begin, end, and whether weight decay applies."""
        ranges = [
            (at, at + n, decays)
            for _, ins in self.trained
            for at, n, decays in ((ins.weights, ins.n_weights, ins.decays), (ins.bias, ins.size, 0))
        ]
        return np.array(sorted(row for row in ranges if 0 <= row[0] < row[1]), np.int64).reshape(-1, 3)

    def rows(self, ins: Instruction) -> Rows:
        """The edges of an instruction of sparse rows."""
        table, n = self.index[ins.args :], ins.size + 1
        n_edges = int(table[ins.size])
        begin, source, alike, whole, _ = np.split(table, np.cumsum([n, n_edges, ins.size, ins.size]))
        return Rows(begin, source, alike, whole)

    def is_stale(self, graph: Graph) -> bool:
        """Whether the graph has changed since the plan was made."""
        return self.edits != graph.edits or self.moves != graph.storage.moves

    @property
    def n_slots(self) -> int:
        """Number of slots: one for each column in `input_column`, and one for each other node."""
        return len(self.node)

    @cached_property
    def width(self) -> int:
        """Number of columns that the data must have, up to the last that is read."""
        return int(self.input_column[-1]) + 1 if len(self.input_column) else 0  # they ascend

    @cached_property
    def list_floats(self) -> int:
        """Maximum number of floats of a list of nonzero data."""
        return mlgraph_ext.sweep.entry_floats(len(self.input_column), LIST_TILES * LANES)

    @property
    def examples_at_once(self) -> int:
        """Examples of a step that only sums gradients: as many as fit into 16 MB of values, at least one tile."""
        return max(1, 2**22 // max(1, self.n_slots) // LANES) * LANES

    @cached_property
    def largest_blocks(self) -> tuple[int, int]:
        """Number of weights of the largest dense block, and of the largest that does not read the data.

        Both are 0 if there are sparse rows, or with weight dropout, where a thread has one tile's weights at a time.
        """
        if self.row_parameters[1] or any(ins.bits or ins.kind == KINDS["rows"] for _, ins in self.trained):
            return 0, 0
        blocks = [ins for _, ins in self.trained if ins.kind == KINDS["dense"]]
        behind = [ins for ins in blocks if not ins.reads_data]
        return max((ins.n_weights for ins in blocks), default=0), max((ins.n_weights for ins in behind), default=0)

    @property
    def ranges_of_data(self) -> Int64:
        """Ranges of the weights of instructions that read the data, as rows: begin, end."""
        reading = self.program[self.program[:, _READS_DATA] > 0]
        return np.ascontiguousarray(reading[:, [_WEIGHTS, _N_WEIGHTS]].cumsum(axis=1))

    @cached_property
    def blocks_of_data(self) -> list[Instruction]:
        """Dense blocks that read the data."""
        return [ins for _, ins in self.trained if ins.kind == KINDS["dense"] and ins.reads_data]

    @cached_property
    def threads_ahead(self) -> int:
        """Number of threads that can share the dense blocks of the data and compute sums ahead; 0 for none."""
        blocks = self.blocks_of_data
        if any(ins.bits for ins in blocks):
            return 0
        return sum(-(-ins.size // PANEL) * ins.halves for ins in blocks)

    @cached_property
    def row_parameters(self) -> tuple[int, int]:
        """Range of the parameters of sparse rows, in whole panels.

        (0, 0) with weight dropout anywhere, where a thread has one tile's weights at a time.
        """
        first, end = _topology.row_parameters(self.program)
        return first // PANEL * PANEL, padded(end)


def _with_few_unread(low: Lowered, groups: Groups, inputs: Int32) -> Int32:
    """The inputs, with those that nothing reads (up to the last that is read) if they are few and rows read the others.

    Rows that become blocks with holes can then read the data in place. Without the unread columns, each edit could
    require another copy of the data. Dense blocks of the data must read all the columns that have slots.
    """
    if not len(inputs) or low.data[inputs[-1]] < len(inputs):  # nothing is unread up to there
        return inputs
    rows = (groups.size >= DENSE_FROM) & ~groups.dense
    if not rows.any():
        return inputs
    heads = groups.nodes[groups.first]
    rows &= low.code[heads] >= NEURON
    of_rows, of_blocks = (low.code[low.topology.sources_of(heads[at])] == INPUT for at in (rows, groups.dense))
    if of_blocks.any() or not of_rows.any():
        return inputs
    columns = np.flatnonzero((low.code == INPUT) & (low.data >= 0) & (low.data <= low.data[inputs[-1]])).astype(
        np.int32
    )
    few = len(columns) - len(inputs) <= MAX_UNREAD * len(columns)
    return columns[np.argsort(low.data[columns])] if few else inputs


def _refuse_dropout(graph: Graph, low: Lowered, dropout: Dropout) -> None:
    """Raise ValueError if a neuron that was written out should drop: its derivative would be that without dropout."""
    owners = np.unique(low.owner[low.part[len(graph) :] > 0])
    for ids, neurons, edges in dropout:
        dropped = owners[np.isin(owners, ids)] if neurons or edges else owners[:0]
        if len(dropped):
            raise ValueError(
                f"dropout: the loss depends on a derivative through {name_of(graph, int(dropped[0]))}, which drops out"
                " at random; set the layer's dropout and weight_dropout to 0"
            )


def _dropout_of(node: int, dropout: Dropout) -> tuple[int, int, int]:
    """Dropout of a neuron as (drop * 2**32, keep, bits): it keeps an edge with probability keep / 2**bits."""
    for ids, neurons, edges in dropout:
        if node in ids:
            # Fractions that would round to 1 still keep one edge in 65536, or one neuron in 2**32.
            keep, bits = (max(1, round((1 - edges) * 65536)), 16) if edges else (0, 0)
            while bits and keep % 2 == 0:
                keep, bits = keep // 2, bits - 1
            return min(round(neurons * 2**32), 2**32 - 1), keep, bits
    return 0, 0, 0
