"""Dense blocks with holes: lightly pruned sparse rows are computed as dense blocks, which is faster.

A hole is a weight that is zero and stays zero: its gradient is masked. The graph does not know of
holes. Its parameters are stored in rows, and a block works on copies of the parameters, gradients and
optimizer state (4 bytes per weight, hole or not, for each vector, and 16 bytes per edge for their
places). Blocks therefore pay off for many steps or many examples only.

A number that is not finite would spread through a hole, since 0 * inf is NaN. Training therefore checks
a bound before each step, and computes a step beyond the bound by the rows. Predictions and derivatives
fall back to the rows if a value that passes through holes, or the loss, is not finite. Blocks and rows
add in different orders, so close to overflow one sum may be finite and the other not, as in two builds.
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
"""Minimum density at which a block is faster than single rows, and than rows that are all in quads.

Density is the fraction of the block's weights, padding included, that are edges. Measured by
bench/thresholds.py for 304 neurons that read 304, at batch 128, with the v4 build on two threads.
"""

FULL_FROM_DATA, QUADS_FULL_FROM_DATA = (0.07, 0.55), (0.08, 0.94)
"""The same for neurons that read the data: for data of zeros only, which a block skips, and for data without zeros.

Other data are interpolated by the fraction of column groups that are not all zero. For MNIST, where it is
28 %, that gives 0.20 and 0.32. The density is taken over all columns, read or not, because columns that are
no longer read tend to hold mostly zeros and cost a block little. Measured by bench/thresholds.py for 300
neurons that read 784 columns, of MNIST and of inverted MNIST.
"""

BLOCKS_COST = 400
"""Fixed overhead of dense blocks, in examples of sparse prediction (bench/thresholds.py).

It lies above the cost of copying the parameters at each call, and below that of making the blocks after an
edit. Only the number of examples of a call decides, so that the same call always gives the same bits.
"""

_KIND, _SIZE = (Instruction._fields.index(name) for name in ("kind", "size"))


class HoleMap(NamedTuple):
    """Maps the parameters of dense blocks with holes to those of the rows in the graph.

    Attributes
    ----------
    edges : uint64
        One bit for each weight of the blocks: 1 for an edge, 0 for a hole.
    base, size : int
        The plan's vector starts with a copy of the graph's, up to `base`; the blocks follow, up to `size`.
    others : list of slice
        The ranges that are the same in both vectors: all except the rows that have become blocks.
    origin, place : int32, shape (edges,)
        Places of the blocks' edges in the graph's vector, and in the plan's.
    """

    edges: npt.NDArray[np.uint64]
    base: int
    size: int
    others: list[slice]
    origin: Int32
    place: Int32

    def to_blocks(self, vector: Float32, blocks: Float32, n_threads: int) -> None:
        """Copy parameters, gradients or optimizer state of the graph into a vector of the plan."""
        for same in self.others:
            blocks[same] = vector[same]
        mlgraph_ext.sweep.move(vector, self.origin, blocks, self.place, n_threads)

    def from_blocks(self, blocks: Float32, vector: Float32, n_threads: int) -> None:
        """Copy a vector of the plan back into a vector of the graph."""
        for same in self.others:
            vector[same] = blocks[same]
        mlgraph_ext.sweep.move(blocks, self.place, vector, self.origin, n_threads)


class Candidate(NamedTuple):
    """Sparse rows that could become a block.

    Attributes
    ----------
    number : int
        Number of the instruction in the plan.
    singles, in_quads : int
        Edges of single neurons, and of neurons in quads.
    weights : int
        Weights that the block would have, padding included.
    reads_data : bool
    """

    number: int
    singles: int
    in_quads: int
    weights: int
    reads_data: bool

    def cost(self, density: float) -> float:
        """Cost of the rows, in units of one weight of a block that reads data of this density."""
        full, quads_full = FULL_FROM, QUADS_FULL_FROM
        if self.reads_data:
            of_data = FULL_FROM_DATA, QUADS_FULL_FROM_DATA
            full, quads_full = (zeros + (others - zeros) * density for zeros, others in of_data)
        return self.singles / full + self.in_quads / quads_full


def candidates(plan: Plan) -> list[Candidate]:
    """All sparse rows of a plan that could become blocks."""
    found = []
    wide = (plan.program[:, _KIND] == KINDS["rows"]) & (plan.program[:, _SIZE] >= DENSE_FROM)
    for i in wide.nonzero()[0].tolist():  # most small graphs have none
        ins = plan.instructions[i]
        if ins.bits:
            continue
        row, source, alike, _ = plan.rows(ins)
        first, last = _extent(plan, ins, source)
        if last - first < 16 * len(source):  # keeps the search linear in the number of edges
            together = int(np.diff(row)[in_quads(alike)].sum())
            columns = plan.n_columns if ins.reads_data else int(np.count_nonzero(np.bincount(source - first)))
            found.append(
                Candidate(i, len(source) - together, together, padded(ins.size) * columns, bool(ins.reads_data))
            )
    return found


def pays_off(n: int, cost: float = 1.0, saved: float = 1.0) -> bool:
    """Whether blocks pay off for n examples, if they save `saved` of the rows' cost; by default all of it."""
    return n * saved >= BLOCKS_COST * cost


def worth_holes(found: list[Candidate], density: float, n: int | None = None) -> tuple[int, ...]:
    """Numbers of the rows that are faster as blocks, for data of this density.

    There are none if `n` examples are too few for the fixed overhead of blocks; by default n is not limited.
    """
    full = [c for c in found if c.cost(density) >= c.weights]
    cost, saved = sum(c.cost(density) for c in full), sum(c.cost(density) - c.weights for c in full)
    return tuple(c.number for c in full) if n is None or pays_off(n, cost, saved) else ()


def with_holes(plan: Plan, numbers: Iterable[int]) -> tuple[Plan, HoleMap | None]:
    """A plan with dense blocks in place of the rows of these numbers; the same plan if no block is possible."""
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
        if size + width * len(slots) > np.iinfo(np.int32).max:  # places are numbers of 32 bits
            return plan, None
        # In the order of the block: a copy passes through the block once, and through 16 rows at a time.
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
    return new, HoleMap(edges, base, size, others, np.concatenate(origin), stands)


def _block(plan: Plan, ins: Instruction) -> tuple[Int32, Int32] | None:
    """Sources of a block for these rows, and the edge of each weight (-1 for a hole); None if no block is possible."""
    row, source, _, _ = plan.rows(ins)
    first, last = _extent(plan, ins, source)
    read = np.full(last + 1 - first, bool(ins.reads_data))
    read[source - first] = True
    slots, number = (np.flatnonzero(read) + first).astype(np.int32), np.cumsum(read) - 1
    edge = np.full(padded(ins.size) * len(slots), -1, np.int32)
    # A neuron may read a slot twice, since nodes of equal value share one; a block has one weight for each source.
    return (slots, edge) if _topology.place_edges(row, source, first, number, len(slots), PANEL, edge) else None


def _extent(plan: Plan, ins: Instruction, source: Int32) -> tuple[int, int]:
    """First and last slot that a block for rows with these sources would read."""
    return (0, len(plan.input_column) - 1) if ins.reads_data else (int(source.min()), int(source.max()))
