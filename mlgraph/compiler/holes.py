"""Light pruning: rows that lack few edges are swept as dense blocks with holes, which costs no more than all the edges.

A hole is a weight that is zero and stays so: its gradient is masked. The graph knows nothing of holes: its parameters stand
in rows, and the blocks have copies of them, of gradients and of the optimizer's state (4 bytes a weight, hole or not, for each
vector, and 16 bytes an edge to find them). So it pays for many steps, or for many examples. A number that is not finite would
spread through a hole, as 0 * inf. Training therefore bounds every step, and takes a step beyond the bound by the rows. By the
rows, too, examples are predicted and differentiated if something that goes through holes, or the loss, is not finite. Blocks
and rows add in different orders, so that close to overflow one may find a sum finite that the other does not, as two builds
may.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import mlgraph_ext
from mlgraph._support.array_types import Float32, Int32
from mlgraph._support.locks import cached_property
from mlgraph.compiler.grouping import DENSE_FROM
from mlgraph.compiler.instructions import KINDS, Instruction, extra_floats, halves_of, in_quads
from mlgraph.compiler.plan import Plan
from mlgraph.graph.storage import PANEL, padded
from mlgraph_ext import _topology

FULL_FROM, QUADS_FULL_FROM = 0.52, 0.78
"""Shares of a block's weights, padding included, from which on it is faster than rows, and than rows that are all in quads
(mlgraph_ext/_quads.pxi). For 304 neurons that read 304, at batch 128, by the v4 build on two threads (bench/thresholds.py)."""

FULL_FROM_DATA, QUADS_FULL_FROM_DATA = (0.07, 0.55), (0.08, 0.94)
"""The same for neurons that read the data, if all of these are zero, which a block skips, and if none is.

Between, they are in proportion to the runs that are not all zero: for MNIST, where 28 % are not, 0.20 and 0.32. They are
shares of all columns: columns no longer read are those that held least, which cost a block least. For 300 neurons that read
784 columns, of MNIST and of its inverse (bench/thresholds.py).
"""

BLOCKS_COST = 400
"""What blocks cost beside their sweeps, in examples predicted by the rows: more than copying the parameters, at each call
(bench/thresholds.py), and less than making the blocks, after each edit. It is the number of examples that decides, and not how
often the network has been asked since the edit, so that the same call gives the same bits."""


class Filling(NamedTuple):
    """Where the parameters of dense blocks with holes stand in the rows of a graph.

    Attributes
    ----------
    edges : uint64
        A bit for each weight of the blocks: whether there is such an edge.
    base, size : int
        The vector that the plan reads is the graph's as far as `base`, and then blocks up to `size`.
    others : list of slice
        The parts that are the same in both vectors: all but the rows that have become blocks.
    origin, place : int32, shape (edges,)
        Where the weights of edges in the blocks stand in the graph's vector, and in the plan's.
    """

    edges: npt.NDArray[np.uint64]
    base: int
    size: int
    others: list[slice]
    origin: Int32
    place: Int32

    def fill(self, vector: Float32, blocks: Float32, n_threads: int) -> None:
        """Copy parameters, a gradient, or an optimizer's state of the graph into a vector of the plan."""
        for part in self.others:
            blocks[part] = vector[part]
        mlgraph_ext.sweep.move(vector, self.origin, blocks, self.place, n_threads)

    def empty(self, blocks: Float32, vector: Float32, n_threads: int) -> None:
        """Copy a vector of the plan back into that of the graph."""
        for part in self.others:
            vector[part] = blocks[part]
        mlgraph_ext.sweep.move(blocks, self.place, vector, self.origin, n_threads)


class Candidate(NamedTuple):
    """Rows that could be a block.

    Attributes
    ----------
    number : int
        Of the instruction in the plan.
    singles, in_quads : int
        Edges of neurons on their own, and of those in quads.
    weights : int
        Weights that a block has, padding included.
    reads_data : bool
    """

    number: int
    singles: int
    in_quads: int
    weights: int
    reads_data: bool

    def cost(self, density: float) -> float:
        """What the rows cost, in weights of a block that reads data of this density."""
        full, quads_full = FULL_FROM, QUADS_FULL_FROM
        if self.reads_data:
            of_data = FULL_FROM_DATA, QUADS_FULL_FROM_DATA
            full, quads_full = (zeros + (others - zeros) * density for zeros, others in of_data)
        return self.singles / full + self.in_quads / quads_full


def candidates(plan: Plan) -> list[Candidate]:
    """All rows of a plan that could be blocks."""
    found = []
    for i, ins in plan.trained:
        if ins.kind != KINDS["rows"] or ins.size < DENSE_FROM or ins.bits:
            continue
        row, source, alike, _ = plan.rows(ins)
        first, last = _extent(plan, ins, source)
        if last - first < 16 * len(source):  # or a search would not be linear in the edges
            together = int(np.diff(row)[in_quads(alike)].sum())
            columns = plan.n_columns if ins.reads_data else int(np.count_nonzero(np.bincount(source - first)))
            found.append(
                Candidate(i, len(source) - together, together, padded(ins.size) * columns, bool(ins.reads_data))
            )
    return found


def repay(n: int, cost: float = 1.0, saved: float = 1.0) -> bool:
    """Whether n examples repay blocks, where the rows cost so much and blocks save so much of it; by default all of it."""
    return n * saved >= BLOCKS_COST * cost


def worth_filling(found: list[Candidate], density: float, n: int | None = None) -> tuple[int, ...]:
    """The numbers of the rows that are faster as blocks, for data of this density.

    None are if `n` examples do not repay what blocks cost beside their sweeps; by default there are enough.
    """
    full = [c for c in found if c.cost(density) >= c.weights]
    cost, saved = sum(c.cost(density) for c in full), sum(c.cost(density) - c.weights for c in full)
    return tuple(c.number for c in full) if n is None or repay(n, cost, saved) else ()


def fill(plan: Plan, numbers: Iterable[int]) -> tuple[Plan, Filling | None]:
    """The plan with dense blocks for the rows of these numbers; itself if none can be one."""
    trained = dict(plan.trained)
    full = [(i, trained[i], *block) for i in numbers if (block := _block(plan, trained[i])) is not None]
    if not full:
        return plan, None
    last = max(max(ins.weights + ins.n_weights, ins.bias + ins.size) for _, ins in plan.trained)
    base = size = padded(last)
    new = copy(plan)
    for name, value in vars(Plan).items():
        if isinstance(value, cached_property):
            vars(new).pop(name, None)
    new.program, index = plan.program.copy(), [plan.index]
    n_index = len(plan.index)
    origin, place = [], []
    for i, ins, slots, edge in full:
        width = padded(ins.size)
        if size + width * len(slots) > np.iinfo(np.int32).max:  # no place for a number of 32 bits
            return plan, None
        # In the order of the block, so that a copy goes through it once, and through 16 rows at a time.
        taken = np.flatnonzero(edge >= 0)
        origin.append(ins.weights + edge[taken])
        place.append((size + taken).astype(np.int32))
        halves = halves_of(ins.size, len(slots)) if ins.reads_data else 1
        new.program[i] = ins._replace(
            kind=KINDS["dense"],
            arity=len(slots),
            args=n_index,
            weights=size,
            n_weights=width * len(slots),
            back=0,
            n_back=0,
            transposed=new.n_extra,
            halves=halves,
            holes=(size - base) // 64,
        )
        index.append(slots)
        n_index += len(slots)
        size += -(-width * len(slots) // 64) * 64
        new.n_extra += extra_floats(width, halves)
    new.index = np.concatenate(index)
    reading = [ins.kind for _, ins in new.trained if ins.reads_data]
    new.dense_read_data, new.rows_read_data = KINDS["dense"] in reading, KINDS["rows"] in reading
    stands = np.concatenate(place)
    bits = np.zeros(size - base, bool)
    bits[stands - base] = True
    edges = np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)
    bounds = sorted((ins.weights, ins.weights + ins.n_weights) for _, ins, _, _ in full)
    begins, ends = [0, *(end for _, end in bounds)], [*(begin for begin, _ in bounds), last]
    others = [slice(begin, end) for begin, end in zip(begins, ends, strict=True)]
    return new, Filling(edges, base, size, others, np.concatenate(origin), stands)


def _block(plan: Plan, ins: Instruction) -> tuple[Int32, Int32] | None:
    """The sources of a block made of these rows, and the edge of each of its weights, or -1; None if there is no such block."""
    row, source, _, _ = plan.rows(ins)
    first, last = _extent(plan, ins, source)
    read = np.full(last + 1 - first, bool(ins.reads_data))
    read[source - first] = True
    slots, number = (np.flatnonzero(read) + first).astype(np.int32), np.cumsum(read) - 1
    edge = np.full(padded(ins.size) * len(slots), -1, np.int32)
    # Nodes of equal value are one slot. A neuron may read one twice, by two weights; a block has place for one of them.
    return (slots, edge) if _topology.place_edges(row, source, first, number, len(slots), PANEL, edge) else None


def _extent(plan: Plan, ins: Instruction, source: Int32) -> tuple[int, int]:
    """The first and the last slot that a block would read in place of rows of these sources."""
    return (0, len(plan.input_column) - 1) if ins.reads_data else (int(source.min()), int(source.max()))
