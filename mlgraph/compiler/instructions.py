"""The instructions of a plan, in the format that the kernels read, and the memory that they need."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import mlgraph_ext
from mlgraph._support.array_types import Bool, Int32
from mlgraph.graph.storage import PANEL

LANES = mlgraph_ext.sweep.TILE_EXAMPLES
"""Number of examples in a tile."""

LIST_TILES = mlgraph_ext.sweep.LIST_TILES
"""Maximum number of tiles that share a list of nonzero data."""

KINDS = {"constant": 0, "parameter": 1, "operation": 2, "dense": 3, "rows": 4}
"""Codes of the kinds of instructions in the kernels."""

OF_NEURONS = KINDS["dense"], KINDS["rows"]
"""The kinds that compute neurons."""

PANELS_AT_ONCE = 4
"""Panels of a unit, the parameters that one thread updates together; the widest kernel takes this many at once."""

NARROW = PANELS_AT_ONCE * PANEL
"""Maximum number of neurons of a block that threads share by columns: one kernel call takes all of them."""


class Instruction(NamedTuple):
    """Consecutive nodes that one kernel call computes.

    The fields must match the struct `Instruction` in ``mlgraph_ext/_instruction.pxi``, which explains each of them.
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
    """The edges of sparse rows, in CSR format.

    Attributes
    ----------
    begin : int32, shape (neurons + 1,)
        CSR row pointers: the edges of neuron i are ``begin[i]`` to ``begin[i + 1]``.
    source : int32, shape (edges,)
        Slot of each edge's source.
    alike : int32, shape (neurons,)
        Length of the run, from each neuron on, of neurons with the same sources.
    whole : int32, shape (neurons,)
        The same for the backward sweep: 1 if some source needs no adjoint, because such a neuron
        must add to the adjoints of its other sources by itself.
    """

    begin: Int32
    source: Int32
    alike: Int32
    whole: Int32


def halves_of(n: int, arity: int) -> int:
    """Number of parts (1 or 2) into which the columns are split when n neurons sum data and skip zeros."""
    return 2 if n <= NARROW and mlgraph_ext.sweep.middle_column(arity) else 1


def extra_floats(width: int, halves: int) -> int:
    """Floats that a tile needs for the sums of a dense block; the backward sweep stores transposed deltas there."""
    return width * LANES * halves


def in_quads(alike: Int32) -> Bool:
    """Which neurons of sparse rows are swept in quads, groups of four with the same sources; `alike` as in `Rows`."""
    found = np.empty(len(alike), np.uint8)
    mlgraph_ext.sweep.find_quads(alike, found)
    return found > 0
