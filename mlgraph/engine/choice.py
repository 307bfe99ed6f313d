"""How steps of a plan are swept: on how many threads, by which kernels, how many tiles at a time; and where each way pays."""

from __future__ import annotations

from typing import NamedTuple

import mlgraph_ext
from mlgraph._support.array_types import Int64
from mlgraph._support.threads import checked_threads, threads_for
from mlgraph.compiler.instructions import LANES, LIST_TILES
from mlgraph.compiler.plan import Plan
from mlgraph.engine.examples import Examples

MOST_LISTED = 2**25
"""Floats that the lists of a worker may take at most: those of a step of 19,840 examples of MNIST."""

WIDE = 2**18
"""Weights of a dense block that is too large for the L2 cache: each weight loaded then serves several tiles."""

FEW = LANES
"""Steps of at most so many examples skip zeros whatever the data: they are one tile, which else one thread would sweep."""

SERIAL = 16
"""How many times as much work two threads need to pay in steps of one tile whose data rows read: one thread sweeps it, and the
other, which only waits and then updates half of the weights, takes these from the first one's cache."""


class Choice(NamedTuple):
    """How a run is swept.

    Attributes
    ----------
    optimizer : str or None
        What is done with gradients, if anything: a key of `mlgraph.engine.engine.OPTIMIZERS`.
    sparse : bool
        Whether dense blocks that read the data skip runs of zeros.
    ahead : bool
        Whether such blocks make their sums before tiles are swept (``_ahead.pxi``).
    as_bytes : bool
        Whether rows that read the data read bytes (``_bytes.pxi``).
    narrow : bool
        Whether a copy is made of only those columns of the data that are read.
    n_tiles : int
        Tiles that have memory at a time.
    n_threads : int
    wide, at_once : int
        Tiles that go through a sweep side by side, and that a worker takes at once.
    in_packs : bool
        Whether the worker that has swept a pack of tiles sums the gradients of rows (``_packs.pxi``).
    alone : bool
        Whether every worker sweeps the tile of a step that has only one (``_alone.pxi``).
    """

    optimizer: str | None
    sparse: bool
    ahead: bool
    as_bytes: bool
    narrow: bool
    n_tiles: int
    n_threads: int
    wide: int
    at_once: int
    in_packs: bool
    alone: bool


def threads_worth(plan: Plan, wish: int | None, size: Int64, most: int, optimizer: str | None) -> int:
    """Number of threads for steps of these sizes, `most` the largest; `wish` as for `threads_for`."""
    tiles = -(-most // LANES)
    if tiles <= 1 and not optimizer:  # where nothing is updated, a tile is not divided
        checked_threads(wish)
        return 1
    one_sweeps = tiles == 1 and plan.rows_read_data
    n_threads = threads_for(wish, plan.work * most // (SERIAL if one_sweeps else 1), len(size))
    return n_threads if optimizer else min(n_threads, tiles)


def skips_zeros(plan: Plan, examples: Examples, most: int, few: bool | None) -> bool:
    """Whether it pays for dense blocks to skip zeros of the data; `few`: as for `Engine.run`."""
    few = most <= FEW if few is None else few
    copied = (
        len(examples) > FEW and len(plan.input_column) < plan.width
    )  # which dense data are not, for steps of few examples
    return (few and not copied) or examples.are_sparse


def choose(
    plan: Plan,
    examples: Examples,
    size: Int64,
    most: int,
    direct: bool,
    sparse: bool,
    optimizer: str | None,
    training: bool,
    n_threads: int,
) -> Choice:
    """How to sweep steps of these sizes, `most` the largest.

    `direct`: whether neurons may read the data themselves; `sparse`: whether dense blocks that do skip zeros.
    """
    n_in, tiles = len(plan.input_column), -(-most // LANES)
    # Sparse rows read bytes as they are.
    as_bytes = direct and plan.rows_read_data and examples.bytes is not None and sparse == plan.dense_read_data
    narrow = n_in < plan.width and (sparse or (as_bytes and examples.pays_narrowed(plan.input_column, int(size.sum()))))
    # Blocks that skip zeros may be shared out by neurons and not by tiles: no weight then goes from core to core. Without
    # an optimizer, tiles then share lists, which takes a tenth less time if there are some of these for every thread.
    ahead = (
        sparse
        and _lists_fit(plan, most if optimizer else 1)
        and (
            n_threads <= plan.threads_ahead
            if optimizer
            else not training and (n_threads == 1 or tiles >= 2 * LIST_TILES * n_threads)
        )
    )
    # Kernels of rows take tiles side by side, if that leaves some for every thread; so do large dense blocks.
    (first_row, end), pack = plan.row_parameters, mlgraph_ext.sweep.PACK_TILES
    wide = pack if end and n_threads <= -(-tiles // pack) else 1
    if plan.largest_blocks[sparse] >= WIDE:
        wide = _side_by_side(tiles, n_threads)
    at_once = LIST_TILES if ahead and not optimizer else wide
    # The worker that has swept tiles sums their gradients of rows, if parameters of rows are fewer than floats of slots.
    in_packs = bool(
        optimizer and wide == pack and n_threads > 1 and 0 < end - first_row <= 2 * pack * LANES * plan.n_slots
    )
    alone = bool(ahead and optimizer and n_threads > 1 and not in_packs and plan.sweeps_alone)
    n_tiles = max(tiles, n_threads) if optimizer else n_threads * at_once
    return Choice(optimizer, sparse, ahead, as_bytes, narrow, n_tiles, n_threads, wide, at_once, in_packs, alone)


def _lists_fit(plan: Plan, most: int) -> bool:
    """Whether each thread has memory for lists of two steps of so many examples."""
    return 2 * -(-most // (LIST_TILES * LANES)) * plan.list_floats <= MOST_LISTED


def _side_by_side(tiles: int, n_threads: int) -> int:
    """How many tiles may be swept side by side, so that no thread waits much longer for another."""
    most = mlgraph_ext.sweep.SIDE_BY_SIDE
    for n in (most, most // 2):
        if tiles % (n * n_threads) == 0 or tiles >= (n if n_threads == 1 else 16 * n * n_threads):
            return n
    return 1
