"""Chooses how steps are swept: the number of threads, the kernels, and the number of tiles at a time.

The constants are measured by bench/thresholds.py.
"""

from __future__ import annotations

from typing import NamedTuple

import mlgraph_ext
from mlgraph._support.array_types import Int64
from mlgraph._support.threads import MOST_THREADS, checked_threads, threads_for
from mlgraph.compiler.instructions import LANES, LIST_TILES
from mlgraph.compiler.plan import Plan
from mlgraph.engine.examples import Examples

MAX_LIST_FLOATS = 2**25
"""Maximum size of a thread's lists of nonzero data, in floats: enough for a step of 19,840 examples of MNIST."""

WIDE = 2**18
"""Number of weights from which a dense block exceeds the L2 cache: several tiles then share each load of a weight."""

FEW = LANES
"""Maximum size of a step that skips zeros whatever the data: one tile, which threads can then share."""

SERIAL = 16
"""Factor on the work required for a second thread, in one-tile steps whose data are read by sparse rows.

Only one thread can sweep such a step. The other updates half of the weights, which it must fetch from the first
thread's cache.
"""


class Choice(NamedTuple):
    """How the steps of a call are swept.

    Attributes
    ----------
    optimizer : str or None
        A key of `mlgraph.engine.engine.OPTIMIZERS`, or None if no gradients are needed.
    sparse : bool
        Whether dense blocks that read the data skip groups of columns that are zero.
    ahead : bool
        Whether such blocks compute their sums before tiles are swept (``_ahead.pxi``).
    as_bytes : bool
        Whether sparse rows read the data as bytes (``_bytes.pxi``).
    narrow : bool
        Whether the data are copied without the columns that nothing reads.
    n_tiles : int
        Number of tiles that have working memory at the same time.
    n_threads : int
    wide, at_once : int
        Number of tiles that one kernel call sweeps together, and that a thread takes at once.
    in_packs : bool
        Whether the thread that swept a pack of tiles also sums their gradients of rows (``_packs.pxi``).
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


def threads_worth(plan: Plan, wish: int | None, size: Int64, most: int, optimizer: str | None) -> int:
    """Number of threads for steps of these sizes, of which `most` is the largest; `wish` as for `threads_for`."""
    tiles = -(-most // LANES)
    if tiles <= 1 and not optimizer:  # without an update, threads share whole tiles only
        checked_threads(wish)
        return 1
    one_sweeps = tiles == 1 and plan.rows_read_data
    share = MOST_THREADS if optimizer else tiles
    return threads_for(wish, plan.work * most // (SERIAL if one_sweeps else 1), len(size), share)


def skips_zeros(plan: Plan, examples: Examples, most: int, few: bool | None) -> bool:
    """Whether dense blocks should skip zeros of the data; `few` as for `Engine.execute`."""
    few = most <= FEW if few is None else few
    # Skipping needs a copy of the data if the plan does not read all columns, which dense data are not worth.
    copied = len(examples) > FEW and len(plan.input_column) < plan.width
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
    """Choose how to sweep steps of these sizes, of which `most` is the largest.

    `direct` says whether neurons may read the inputs in the data, `sparse` whether dense blocks then skip zeros.
    """
    n_in, tiles = len(plan.input_column), -(-most // LANES)
    # Sparse rows can read bytes without a conversion.
    as_bytes = direct and plan.rows_read_data and examples.bytes is not None and sparse == plan.dense_read_data
    narrow = n_in < plan.width and (sparse or (as_bytes and examples.pays_narrowed(plan.input_column, int(size.sum()))))
    # Threads may share blocks that skip zeros by neurons instead of by tiles, so that no weight moves between cores.
    # Without an optimizer, tiles can share lists of nonzero data, which saves 10 % if each thread has several lists.
    ahead = (
        sparse
        and _lists_fit(plan, most if optimizer else 1)
        and (
            n_threads <= plan.threads_ahead
            if optimizer
            else not training and (n_threads == 1 or tiles >= 2 * LIST_TILES * n_threads)
        )
    )
    # Kernels of rows, and of large dense blocks, sweep several tiles together if every thread still gets some.
    (first_row, end), pack = plan.row_parameters, mlgraph_ext.sweep.PACK_TILES
    wide = pack if end and n_threads <= -(-tiles // pack) else 1
    if plan.largest_blocks[sparse] >= WIDE:
        wide = _side_by_side(tiles, n_threads)
    at_once = LIST_TILES if ahead and not optimizer else wide
    # The thread that swept a pack of tiles sums its gradients of rows, if these are smaller than the pack's values.
    in_packs = bool(
        optimizer and wide == pack and n_threads > 1 and 0 < end - first_row <= 2 * pack * LANES * plan.n_slots
    )
    n_tiles = max(tiles, n_threads) if optimizer else n_threads * at_once
    return Choice(optimizer, sparse, ahead, as_bytes, narrow, n_tiles, n_threads, wide, at_once, in_packs)


def _lists_fit(plan: Plan, most: int) -> bool:
    """Whether the lists of two steps with `most` examples fit into a thread's memory."""
    return 2 * -(-most // (LIST_TILES * LANES)) * plan.list_floats <= MAX_LIST_FLOATS


def _side_by_side(tiles: int, n_threads: int) -> int:
    """Number of tiles that one kernel call may sweep together without making threads wait for each other."""
    most = mlgraph_ext.sweep.SIDE_BY_SIDE
    for n in (most, most // 2):
        if tiles % (n * n_threads) == 0 or tiles >= (n if n_threads == 1 else 16 * n * n_threads):
            return n
    return 1
