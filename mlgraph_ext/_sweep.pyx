# The sweeps: the kernel source, built once for each instruction set (setup.py). This file checks
# arguments and hands out functions to Python; the included files compute.
#
# Design list
#
# a) Layout. A slot holds one scalar of the graph for LANES = 32 examples, contiguously. A tile is
#    the memory of 32 examples, with one slot for each scalar. A sweep is therefore SIMD over
#    examples for any topology. Inner loops have constant length and sums stay in register tiles
#    (_vector.pxi says why these are written as vectors).
# b) Plan. A plan is a table of instructions over numbered slots, in topological order
#    (_program.pxi). There are three kinds of neurons and operations:
#    - dense blocks, neurons that share their sources, with weights in panels of 16 neurons
#      (_dense.pxi). A dense block may skip the zeros of the data: it then reads lists of entries,
#      which are groups of four neighbouring columns that are not all zero in an example
#      (_entries.pxi, _runs.pxi);
#    - sparse rows, neurons that each have their own sources (_rows.pxi), swept in quads where three
#      or four have the same sources (_quads.pxi). Rows may read the data as bytes (_bytes.pxi);
#    - scalar operations (_elementwise.pxi, _reductions.pxi).
# c) Phases. A step has two. Phase 1 runs over tiles: load (_loading.pxi), forward, loss
#    (_losses.pxi), backward (_tiles.pxi). Phase 2 runs over units, which are pieces of the
#    parameters: each unit sums its gradient over all tiles in fixed order and applies the optimizer
#    at once (_units.pxi, _update.pxi). No gradient is shared between threads or reduced over them.
#    There are two variants:
#    - ahead: where the data are mostly zero, phase 2 also computes the first layers' sums for the
#      next step (_ahead.pxi);
#    - packs: where rows have few edges, the worker that swept a pack of one or two tiles also sums
#      their gradients in phase 1, and phase 2 adds the packs in order (_packs.pxi).
# d) Reproducibility. The batch decides how examples are cut into tiles, and the plan decides the
#    units. Work that is divided differently for another number of threads still adds the same
#    numbers in the same order and rounds them alike: kernels with several variants use
#    `multiply_add`, so that the compiler does not decide what is fused. The bits therefore do not
#    depend on the number of threads. (Only the sign of a NaN may differ, which IEEE 754, 6.3,
#    leaves open.)
# e) Scheduling. A worker is a thread (_team.pxi). _step.pxi is the page that shows how steps run;
#    schedule.h has the gate between phases and the sharing of items.
# f) One call runs many steps without returning to Python.
# g) Non-finite values. Nothing non-finite reaches a parameter. A loss or an adjoint that is not
#    finite stops the run before its step writes anything. Overflow of a gradient, moment or
#    parameter is excluded before the first write as well: no gradient of a step exceeds the sum of
#    its |adjoints| times the largest value by which an adjoint is multiplied. Both factors cost one
#    pass over a few slots of each tile. If their product is below `limit`
#    (mlgraph/training/nonfinite.py derives it), no gradient needs a check. Every unit compares the
#    same numbers, so either all write or none. Steps at or above the limit are rare: the run stops,
#    and the caller repeats that step alone, on a copy, and checks the result. (Checking all
#    gradients first would need a third phase and a vector of gradients. Keeping old values in each
#    unit would cost a store per parameter, some percent of an epoch.)
# h) Freezing. A unit that is frozen entirely gets no gradient. A node that depends on no trainable
#    parameter gets no adjoint (_frozen.pxi).
# i) Subnormal numbers. In a training step on x86-64, adjoints, gradients, moments and parameters
#    that would be subnormal are written as zero. Otherwise a confident softmax, and the moments of
#    weights whose source has been zero for some hundred steps, would stay subnormal from then on
#    (0.9 of the least number rounds to itself), and Intel processors are slow with them. Subnormal
#    operands still count, so that the derivatives are those of the values computed. Forward values,
#    and all values outside training, keep every bit.
# j) Checks. Everything that can raise an error happens when a `Program`, `Sweep`, `Batch` or `Call`
#    is made (_calls.pxi), before the GIL is released.

from cython.parallel cimport prange
from libc.math cimport sqrt
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset

from time import perf_counter

include "_vector.pxi"
include "_team.pxi"
include "_elementwise.pxi"
include "_reductions.pxi"
include "_update.pxi"
include "_dropout.pxi"
include "_dense.pxi"
include "_bytes.pxi"
include "_loading.pxi"
include "_entries.pxi"
include "_runs.pxi"
include "_rows.pxi"
include "_quads.pxi"
include "_program.pxi"
include "_memory.pxi"
include "_request.pxi"
include "_frozen.pxi"
include "_ahead.pxi"
include "_packs.pxi"
include "_losses.pxi"
include "_tiles.pxi"
include "_units.pxi"
include "_step.pxi"
include "_calls.pxi"
include "_clipping.pxi"
include "_epochs.pxi"
include "_measuring.pxi"

TILE_EXAMPLES = LANES
PANEL_NEURONS = PANEL
BYTE_SLOT_FLOATS = BYTE_SLOT        # memory of an input in a tile whose rows read bytes
RUN_COLUMNS = RUN                   # columns of a run, which is skipped if all are zero
QUAD_NEURONS = QUAD                 # maximum number of neurons in a quad
SIDE_BY_SIDE = SIDE_TILES           # maximum number of tiles swept side by side
PACK_TILES = PACK                   # tiles in a pack
LIST_TILES = GROUP_TILES            # maximum number of tiles that share a list of entries
UNIT_COLUMNS = WHOLE_COLUMNS        # columns updated at once in dense blocks that skip zeros
WHOLE_UNIT = WHOLE                  # `part` of a unit of weights and biases


def are_finite(const float[::1] x, const int64_t[:, ::1] ranges):
    """Return whether all numbers in the ranges ``x[ranges[i, 0]:ranges[i, 1]]`` are finite."""
    cdef int64_t i
    if ranges.shape[1] != 2:
        raise ValueError(f"ranges: expected 2 columns, got {ranges.shape[1]}")
    for i in range(ranges.shape[0]):
        if not 0 <= ranges[i, 0] <= ranges[i, 1] <= x.shape[0]:
            raise ValueError(f"ranges: expected numbers up to {x.shape[0]}, got {ranges[i, 0]} to {ranges[i, 1]}")
        if ranges[i, 0] < ranges[i, 1] and not all_finite(&x[ranges[i, 0]], ranges[i, 1] - ranges[i, 0]):
            return False
    return True


def as_bytes(const float[:, ::1] x, uint8_t[:, ::1] out, int n_threads):
    """Fill `out` with bytes; return whether every number of `x` is exactly byte / 255."""
    cdef int64_t i, worker, columns = x.shape[1], n = x.shape[0] if columns else 0, others = 0
    if out.shape[0] != x.shape[0] or out.shape[1] != columns:
        raise ValueError(f"out: expected shape {x.shape[0], columns}, got {out.shape[0], out.shape[1]}")
    for worker in prange(n_threads, nogil=True, num_threads=team, schedule="static", chunksize=1,
                         use_threads_if=n_threads > 1):
        for i in range(share_begin(n, n_threads, worker), share_begin(n, n_threads, worker + 1)):
            others += row_as_bytes(&x[i, 0], columns, &out[i, 0])
    return others == 0


def take_columns(const uint8_t[:, ::1] x, const int32_t[::1] columns, uint8_t[:, ::1] out, int size, int n_threads):
    """Set out[i, k] = x[i, columns[k]] for numbers of `size` bytes (1 or 4); both arrays are viewed as bytes.

    The rest of each row of `out` becomes 0.
    """
    cdef int64_t i, k, worker, n = columns.shape[0], rows = x.shape[0] if out.shape[1] else 0, most
    cdef const int32_t* column = &columns[0] if n else NULL
    if size not in (1, 4) or out.shape[0] != x.shape[0] or out.shape[1] < n * size:
        raise ValueError(f"size, out: expected 1 or 4, and {x.shape[0]} rows of {n * size} bytes or more, "
                         f"got {size}, and {out.shape[0]} of {out.shape[1]}")
    most = x.shape[1] // size
    for k in range(n):
        if not 0 <= columns[k] < most:
            raise ValueError(f"columns: expected 0 to {most - 1}, got {columns[k]}")
    for worker in prange(n_threads, nogil=True, num_threads=team, schedule="static", chunksize=1,
                         use_threads_if=n_threads > 1):
        for i in range(share_begin(rows, n_threads, worker), share_begin(rows, n_threads, worker + 1)):
            take_row(&x[i, 0], column, n, size, &out[i, 0], out.shape[1])


def move(const float[::1] x, const int32_t[::1] origin, float[::1] out, const int32_t[::1] place, int n_threads):
    """Set out[place[i]] = x[origin[i]] for all i. Places must be distinct. Raises ValueError if an index is out of range."""
    cdef int64_t i, worker, n = origin.shape[0], outside = 0
    if n != place.shape[0]:
        raise ValueError(f"origin, place: expected one length, got {origin.shape[0]} and {place.shape[0]}")
    for worker in prange(n_threads, nogil=True, num_threads=team, schedule="static", chunksize=1,
                         use_threads_if=n_threads > 1):
        for i in range(share_begin(n, n_threads, worker), share_begin(n, n_threads, worker + 1)):
            if 0 <= origin[i] < x.shape[0] and 0 <= place[i] < out.shape[0]:
                out[place[i]] = x[origin[i]]
            else:
                outside += 1
    if outside:
        raise ValueError(f"origin, place: expected numbers below {x.shape[0]} and {out.shape[0]}, got {outside} that are not")


def find_quads(const int32_t[::1] alike, uint8_t[::1] out):
    """Set out[i] to whether neuron i of sparse rows is swept in a quad. _quads.pxi explains `alike`.

    (In the forward sweep, the end of a CHUNK may split a quad.)
    """
    cdef int64_t i = 0, n = alike.shape[0], size, k
    if out.shape[0] != n:
        raise ValueError(f"out: expected {n} bytes, got {out.shape[0]}")
    while i < n:
        size = quad_size(&alike[0], i, n)
        for k in range(max(size, 1)):
            out[i + k] = size > 0
        i += max(size, 1)
