"""The instructions of a plan, as the kernels read them, and the memory that those of dense blocks need."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import mlgraph_ext
from mlgraph._support.array_types import Bool, Int32
from mlgraph.graph.storage import PANEL

LANES = mlgraph_ext.sweep.TILE_EXAMPLES
"""Examples of a tile."""

LIST_TILES = mlgraph_ext.sweep.LIST_TILES
"""Tiles that may share a list of nonzero data."""

KINDS = {"constant": 0, "parameter": 1, "operation": 2, "dense": 3, "rows": 4}
"""Kinds of instructions, as the kernels number them."""

OF_NEURONS = KINDS["dense"], KINDS["rows"]
"""Kinds of instructions of neurons."""

PANELS_AT_ONCE = 4
"""Panels of a unit, a run of parameters that one thread updates: as many as the widest kernel takes at a time."""

NARROW = PANELS_AT_ONCE * PANEL
"""The most neurons of a block that is shared out by columns, since one kernel takes all of them at a time."""


class Instruction(NamedTuple):
    """A run of nodes executed by one kernel call.

    Fields and their order are those of the kernels: `Instruction` in ``mlgraph_ext/_program.pxi`` says what each is.
    """

    kind: int
    op: int
    dst: int
    size: int
    arity: int = 0
    args: int = 0
    weights: int = 0
    n_weights: int = 0
    decays: int = 0
    bias: int = -1
    reads_data: int = 0
    propagate: int = 0
    back: int = 0
    n_back: int = 0
    transposed: int = 0
    halves: int = 1
    stream: int = 0
    drop: int = 0
    keep: int = 0
    bits: int = 0
    mask: int = 0
    kept: int = 0
    holes: int = -1
    masked: int = 0


class Rows(NamedTuple):
    """What the neurons of sparse rows read.

    Attributes
    ----------
    begin : int32, shape (neurons + 1,)
        Where the edges of each neuron begin, and where the last one's end.
    source : int32, shape (edges,)
        Slots.
    alike : int32, shape (neurons,)
        For each neuron, how many neurons from it on have its sources.
    whole : int32, shape (neurons,)
        The same for adjoints; 1 if some source wants none, so that the neuron adds to the others' adjoints by itself.
    """

    begin: Int32
    source: Int32
    alike: Int32
    whole: Int32


def halves_of(n: int, arity: int) -> int:
    """In how many parts the columns are split when n neurons sum data and skip zeros."""
    return 2 if n <= NARROW and mlgraph_ext.sweep.middle_column(arity) else 1


def extra_floats(width: int, halves: int) -> int:
    """Floats of a tile for sums of entries of so many neurons, apart for each half; transposed deltas take their place."""
    return width * LANES * halves


def in_quads(alike: Int32) -> Bool:
    """Which neurons of rows are swept in quads; `alike` as in `Rows`."""
    found = np.empty(len(alike), np.uint8)
    mlgraph_ext.sweep.find_quads(alike, found)
    return found > 0
