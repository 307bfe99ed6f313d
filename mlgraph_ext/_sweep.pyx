# The sweeps. This is the one kernel source, built once for each instruction set.
#
# Design list
#
# a) A slot is one scalar of the graph for LANES = 32 examples, contiguous; a tile is 32 examples, with a slot for each scalar.
#    So a sweep is SIMD over examples for any topology. Inner loops have constant length, and sums stay in register tiles
#    (_vector.pxi says why these are written as vectors).
# b) A plan is a table of instructions over numbered slots, in topological order: dense blocks, neurons that share their
#    sources, with weights in panels of 16 neurons (_dense.pxi); sparse rows, neurons with sources of their own (_rows.pxi), in
#    quads where three or four have the same sources (_quads.pxi); scalar operations (_elementwise.pxi, _reductions.pxi). Rows
#    may read data as bytes (_bytes.pxi). Dense blocks may skip zeros of the data: they read lists of entries, runs of four
#    neighbouring columns that are not all zero in an example (_entries.pxi, _runs.pxi).
# c) A step has two phases. Phase 1, over tiles: load (_loading.pxi), forward, loss, backward (_tiles.pxi). Phase 2, over units,
#    pieces of the parameters: each unit sums its gradient over all tiles in fixed order and applies the optimizer at once
#    (_units.pxi). No gradient is shared or reduced, and the bits do not depend on the number of threads. Three variants: ahead,
#    where data are mostly zero, phase 2 also computes the sums of the first layers for the next step (_ahead.pxi); alone, where
#    such a step has one tile, every worker sweeps the rest of it by itself (_alone.pxi); in packs, where rows have few edges,
#    the worker that has swept a pack of one or two tiles sums their gradients in phase 1, and phase 2 adds these in order
#    (_packs.pxi).
# d) Tiles are cut by the batch, units by the plan; whatever is cut differently for another number of threads still adds the
#    same numbers in the same order, and rounds them alike: where a kernel has variants, `multiply_add` decides what is fused,
#    not the compiler. (Only the sign of a NaN may differ: IEEE 754, 6.3, leaves it open.)
# e) Each worker, a thread, has the same share of a phase's items at every step; only units go round, where no sums are made
#    ahead. When its own are done, it takes items of others, but leaves them a moment to begin (_queue.pxi). A phase waits, at
#    a gate, until every item before it is done, not until every thread has arrived, so a thread descheduled while it holds no
#    item delays nobody; waiting soon yields the processor. libgomp's barrier does neither, so workers return to it together,
#    and __init__.py has it spin less.
# f) One call runs many steps; none of them goes through Python.
# g) Nothing that is not finite reaches a parameter. A loss or an adjoint that is not finite stops the run before its step
#    writes anything. Overflow of a gradient, moment or parameter is ruled out before the first write as well: no gradient of a
#    step exceeds the sum of its |adjoints| times the largest value that an adjoint is multiplied by, and both cost one pass
#    over a few slots of each tile. A product below `limit` (mlgraph/nonfinite.py derives it) is proof enough, and no gradient
#    is checked. Every unit compares the same numbers, so all of them write or none. Other steps are rare in training: the run
#    stops, and the caller takes the step alone, from a copy, and checks it. (To check all gradients first would take a third
#    phase and a vector of gradients; to keep old values in each unit, a store per parameter, some percent of an epoch.)
# h) A unit that is frozen entirely gets no gradient, and a node before which nothing learns no adjoint (_frozen.pxi).
# i) In a training step (on x86-64), adjoints, gradients, moments and parameters that would be subnormal are written as zero.
#    Otherwise a confident softmax, and the moments of weights whose source has been zero for some hundred steps, would stay
#    subnormal from then on (0.9 of the least number rounds to it), and each operation with them is slow on Intel processors.
#    Subnormal operands still count, so that what is differentiated is what was computed; forward values, and all values outside
#    training, keep every bit.
# j) All checks that can raise are made in `prepare` and `run`, before the GIL is released.

from cython.parallel cimport prange
from libc.string cimport memcpy, memset

from time import perf_counter

include "_vector.pxi"
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
include "_frozen.pxi"
include "_ahead.pxi"
include "_queue.pxi"
include "_alone.pxi"
include "_packs.pxi"
include "_losses.pxi"
include "_tiles.pxi"
include "_units.pxi"
include "_epochs.pxi"
include "_measuring.pxi"

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define MLGRAPH_PARALLEL 1
    #else
    #define MLGRAPH_PARALLEL 0
    #define omp_get_max_threads() 1
    #define omp_get_num_threads() 1
    #endif
    """
    int MLGRAPH_PARALLEL
    int omp_get_max_threads() noexcept nogil
    int omp_get_num_threads() noexcept nogil

PARALLEL = bool(MLGRAPH_PARALLEL)   # built with OpenMP
TILE_EXAMPLES = LANES
PANEL_NEURONS = PANEL
BYTE_SLOT_FLOATS = BYTE_SLOT        # memory of an input in a tile where rows read bytes
RUN_COLUMNS = RUN                   # columns of a run, skipped together if all are zero
QUAD_NEURONS = QUAD                 # most neurons of a quad
SIDE_BY_SIDE = SIDE_TILES           # most tiles that are swept side by side
PACK_TILES = PACK                   # tiles of a pack
LIST_TILES = GROUP_TILES            # most tiles whose entries are in one list
UNIT_COLUMNS = WHOLE_COLUMNS        # columns whose weights dense blocks that skip zeros update at once
WHOLE_UNIT = WHOLE                  # `part` of units with weights and biases


def max_threads():
    """Number of threads that OpenMP starts by default; threadpoolctl and omp_set_num_threads change it."""
    return omp_get_max_threads()


def are_finite(const float[::1] x, const int64_t[:, ::1] ranges):
    """Whether all numbers from ``ranges[i, 0]`` to ``ranges[i, 1]`` are finite, for all i."""
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
    """Whether each number is exactly byte / 255 for some byte; `out` is filled with the bytes."""
    cdef int64_t i, columns = x.shape[1], others = 0
    if out.shape[0] != x.shape[0] or out.shape[1] != columns:
        raise ValueError(f"out: expected shape {x.shape[0], columns}, got {out.shape[0], out.shape[1]}")
    for i in prange(x.shape[0] if columns else 0, nogil=True, num_threads=n_threads, schedule="static",
                    use_threads_if=n_threads > 1):
        others += row_as_bytes(&x[i, 0], columns, &out[i, 0])
    return others == 0


def take_columns(const uint8_t[:, ::1] x, const int32_t[::1] columns, uint8_t[:, ::1] out, int size, int n_threads):
    """out[i, k] = x[i, columns[k]] for numbers of `size` bytes, 1 or 4, in arrays viewed as bytes; the rest of `out` is 0."""
    cdef int64_t i, k, n = columns.shape[0], most
    cdef const int32_t* column = &columns[0] if n else NULL
    if size not in (1, 4) or out.shape[0] != x.shape[0] or out.shape[1] < n * size:
        raise ValueError(f"size, out: expected 1 or 4, and {x.shape[0]} rows of {n * size} bytes or more, "
                         f"got {size}, and {out.shape[0]} of {out.shape[1]}")
    most = x.shape[1] // size
    for k in range(n):
        if not 0 <= columns[k] < most:
            raise ValueError(f"columns: expected 0 to {most - 1}, got {columns[k]}")
    for i in prange(x.shape[0] if out.shape[1] else 0, nogil=True, num_threads=n_threads, schedule="static",
                    use_threads_if=n_threads > 1):
        take_row(&x[i, 0], column, n, size, &out[i, 0], out.shape[1])


def move(const float[::1] x, const int32_t[::1] origin, float[::1] out, const int32_t[::1] place, int n_threads):
    """out[place[i]] = x[origin[i]] for all i; all places must differ. ValueError if a number is out of range."""
    cdef int64_t i, outside = 0
    if origin.shape[0] != place.shape[0]:
        raise ValueError(f"origin, place: expected one length, got {origin.shape[0]} and {place.shape[0]}")
    for i in prange(origin.shape[0], nogil=True, num_threads=n_threads, schedule="static", use_threads_if=n_threads > 1):
        if 0 <= origin[i] < x.shape[0] and 0 <= place[i] < out.shape[0]:
            out[place[i]] = x[origin[i]]
        else:
            outside += 1
    if outside:
        raise ValueError(f"origin, place: expected numbers below {x.shape[0]} and {out.shape[0]}, got {outside} that are not")


def find_quads(const int32_t[::1] alike, uint8_t[::1] out):
    """out[i] = whether neuron i of rows is swept in a quad; `alike` as in _quads.pxi. (Forward, CHUNK may cut a quad in
    two.)"""
    cdef int64_t i = 0, n = alike.shape[0], size, k
    if out.shape[0] != n:
        raise ValueError(f"out: expected {n} bytes, got {out.shape[0]}")
    while i < n:
        size = quad_size(&alike[0], i, n)
        for k in range(max(size, 1)):
            out[i + k] = size > 0
        i += max(size, 1)


def prepare(
    *, const int64_t[:, ::1] program, const int32_t[::1] index, const float[::1] constants, const uint64_t[::1] edges,
    const int64_t[:, ::1] units,
    float[::1] parameters, int optimizer, const float[::1] hyper, float[::1] first, float[::1] second,
    const float[::1] frozen,
    const int32_t[::1] input_column, bint backward,
    float[::1] tiles, int64_t n_tiles, int64_t tile_stride, int64_t values_at, int64_t adjoints_at, int64_t first_slot,
    int64_t n_slots, int64_t first_zeroed, int64_t bytes_at, int64_t entries_at, int64_t first_source, int64_t last_source,
    float[::1] sums, bint alone, float[::1] pack_sums, int64_t pack_stride, int64_t first_row, int64_t wide, int64_t at_once,
    float[::1] scratch, int64_t n_workers, int64_t scratch_stride, int64_t lists_at, int64_t list_floats,
):
    """Pack what `run` needs beside data and steps into bytes. These hold addresses of the arrays, which must outlive them.

    mlgraph.engine.engine is the only caller of both functions; it and `Run` (_program.pxi) say what each argument is.
    """
    cdef Run r
    cdef const Instruction* ins
    cdef int64_t least, i, of_sums = 0
    cdef bint of_rows = False
    if program.shape[1] * sizeof(int64_t) != sizeof(Instruction) or units.shape[1] * sizeof(int64_t) != sizeof(Unit):
        raise ValueError(f"program, units: expected rows of {sizeof(Instruction) // 8} and {sizeof(Unit) // 8} numbers, "
                         f"got {program.shape[1]} and {units.shape[1]}")
    if n_workers < 1 or scratch.shape[0] < n_workers * scratch_stride:
        raise ValueError(f"scratch: expected n_workers >= 1 and {n_workers} x {scratch_stride} floats, "
                         f"got {scratch.shape[0]}")
    if pack_sums is not None and pack_sums.shape[0] < (n_tiles + PACK - 1) // PACK * pack_stride:
        raise ValueError(f"pack_sums: expected {(n_tiles + PACK - 1) // PACK} x {pack_stride} floats, "
                         f"got {pack_sums.shape[0]}")
    for i in range(program.shape[0]):
        ins = <const Instruction*>&program[i, 0]
        of_rows = of_rows or ins.kind == ROWS
        if ins.kind == DENSE and ins.reads_data:
            of_sums = max(of_sums, ins.transposed + ins.halves * panels_of(ins.size) * PANEL * LANES)
    if wide not in (1, 2, 4) or (of_rows and wide > PACK) or at_once < 1 or at_once % wide:
        raise ValueError(f"wide, at_once: expected 1, 2 or 4, at most {PACK} where there are rows, and a multiple of it, "
                         f"got {wide} and {at_once}")
    for i in range(1, input_column.shape[0]):
        if input_column[i] <= input_column[i - 1]:
            raise ValueError(f"input_column: expected ascending numbers, got {input_column[i]} after {input_column[i - 1]}")
    least = n_workers if units.shape[0] else n_workers * at_once
    if n_tiles < least or tiles.shape[0] < n_tiles * tile_stride:
        raise ValueError(f"tiles: expected n_tiles >= {least} and {n_tiles} x {tile_stride} floats, got {tiles.shape[0]}")
    if sums is not None and sums.shape[0] < n_tiles * of_sums:
        raise ValueError(f"sums: expected {n_tiles} x {of_sums} floats, got {sums.shape[0]}")
    if alone and (sums is None or pack_sums is not None or not units.shape[0]):
        raise ValueError("alone: expected sums, units, and no pack_sums with it")
    memset(&r, 0, sizeof(Run))
    r.program = <const Instruction*>&program[0, 0] if program.shape[0] else NULL
    r.n_instructions = program.shape[0]
    r.index = &index[0] if index.shape[0] else NULL
    r.constants = &constants[0] if constants.shape[0] else NULL
    r.edges = &edges[0] if edges.shape[0] else NULL
    r.units = <const Unit*>&units[0, 0] if units.shape[0] else NULL
    r.n_units = units.shape[0]
    r.optimizer.kind = optimizer
    r.optimizer.momentum, r.optimizer.beta2, r.optimizer.epsilon = hyper[0], hyper[1], hyper[2]
    r.optimizer.parameters = &parameters[0] if parameters.shape[0] else NULL
    r.optimizer.first = &first[0] if first is not None and first.shape[0] else NULL
    r.optimizer.second = &second[0] if second is not None and second.shape[0] else NULL
    r.optimizer.frozen = &frozen[0] if frozen is not None and frozen.shape[0] else NULL
    r.input_column = &input_column[0] if input_column.shape[0] else NULL
    r.n_inputs = input_column.shape[0]
    r.backward = backward
    r.tiles = &tiles[0]
    r.n_tiles, r.tile_stride, r.values_at, r.adjoints_at = n_tiles, tile_stride, values_at, adjoints_at
    r.first_slot, r.n_slots, r.first_zeroed = first_slot, n_slots, first_zeroed
    r.bytes_at, r.entries_at, r.ahead = bytes_at, entries_at, sums is not None
    r.sums = &sums[0] if sums is not None else NULL
    r.pack_sums = &pack_sums[0] if pack_sums is not None else NULL
    r.pack_stride, r.first_row, r.wide, r.at_once = pack_stride, first_row, wide, at_once
    r.alone = alone
    r.first_source, r.last_source = first_source, last_source
    r.scratch = &scratch[0]
    r.n_workers, r.scratch_stride, r.lists_at, r.list_floats = n_workers, scratch_stride, lists_at, list_floats
    return (<const char*>&r)[:sizeof(Run)]


def run(
    bytes prepared, const uint8_t[:, ::1] data_bytes, const float[:, ::1] data_floats,
    const int64_t[::1] step_first, const int64_t[::1] step_size, const float[::1] step_rate, const float[::1] step_decay,
    const int64_t[::1] order, int64_t step_number, uint64_t seed, bint training, double limit, double reach,
    int loss, const int32_t[::1] loss_slot, const int32_t[::1] label, const float[:, ::1] target,
    float[::1] gradient, float[::1] losses, uint8_t[::1] correct,
    const int32_t[::1] value_slot, float[:, ::1] value_out, int64_t[::1] highest,
    const int32_t[::1] adjoint_slot, float[:, ::1] adjoint_out,
):
    """Run steps of a plan; without `step_first`, one step of all examples at rate 0.

    Returns
    -------
    int
        -1; or the number (from 0) of the step that was not taken and ended the run, because something is not finite, in
        training or through holes, or not certain to stay below the limit; or, with `highest`, the first example without a
        highest value, because one is NaN.
    """
    cdef Run r
    cdef int64_t first = 0, size = 0, most = 0, n_bytes = 0, bad, i
    cdef float rate = 0
    cdef int worker, workers
    cdef uint8_t* flags
    if len(prepared) != sizeof(Run):
        raise ValueError(f"prepared: expected {sizeof(Run)} bytes, got {len(prepared)}")
    if step_first is not None and (step_first.shape[0] != step_size.shape[0] or step_rate.shape[0] != step_size.shape[0]):
        raise ValueError("step_first, step_size, step_rate: expected one length, got "
                         f"{step_first.shape[0]}, {step_size.shape[0]}, {step_rate.shape[0]}")
    if step_decay is not None and step_decay.shape[0] != step_size.shape[0]:
        raise ValueError(f"step_decay: expected {step_size.shape[0]} numbers, got {step_decay.shape[0]}")
    memcpy(&r, <const char*>prepared, sizeof(Run))
    # Data without columns have no first element to point at, and are never read.
    if data_bytes is not None:
        size, r.columns = data_bytes.shape[0], data_bytes.shape[1]
        r.bytes = &data_bytes[0, 0] if r.columns else NULL
    else:
        size, r.columns = data_floats.shape[0], data_floats.shape[1]
        r.floats = &data_floats[0, 0] if r.columns else NULL
    r.label = &label[0] if label is not None else NULL
    r.target = &target[0, 0] if target is not None else NULL
    r.order = &order[0] if order is not None else NULL
    if step_first is None:
        r.step_first, r.step_size, r.step_rate, r.n_steps = &first, &size, &rate, 1
    else:
        r.step_first, r.step_size, r.step_rate, r.n_steps = &step_first[0], &step_size[0], &step_rate[0], step_size.shape[0]
    r.step_decay = &step_decay[0] if step_decay is not None else NULL
    r.step_number, r.seed, r.training = step_number, seed, training
    r.limit, r.reach = limit if training and r.n_units else 0, reach
    r.loss = loss
    if loss_slot is not None:
        r.loss_slot, r.n_outputs = &loss_slot[0], loss_slot.shape[0] - 1
    if r.optimizer.kind == ACCUMULATE and r.n_units:
        if gradient is None or not gradient.shape[0]:
            raise ValueError("gradient: expected a vector that gradients are added to, got none")
        r.optimizer.first = &gradient[0]
    r.losses = &losses[0] if losses is not None else NULL
    r.correct = &correct[0] if correct is not None else NULL
    r.n_values = value_slot.shape[0]
    r.n_adjoints = adjoint_slot.shape[0] if adjoint_slot is not None else 0
    if r.n_values:
        r.value_slot = &value_slot[0]
        r.value_out = &value_out[0, 0] if value_out is not None else NULL
        r.highest = &highest[0] if highest is not None else NULL
    if r.n_adjoints:
        r.adjoint_slot, r.adjoint_out = &adjoint_slot[0], &adjoint_out[0, 0]
    if r.n_units:
        for i in range(r.n_steps):
            most = max(most, (r.step_size[i] + LANES - 1) // LANES)
    if r.n_tiles < most:
        raise ValueError(f"prepared: expected memory for {most} tiles, got {r.n_tiles}")
    workers = <int>r.n_workers
    # The counters of the workers' shares, the gate, what each worker tells; then the bounds, and bytes that say what is frozen.
    if r.optimizer.frozen != NULL:
        n_bytes = r.n_units + r.n_instructions + r.n_slots
    r.taken = <int64_t*>zeros(workers * (TAKEN_STRIDE * sizeof(int64_t) + sizeof(Told)) + sizeof(Gate)
                              + r.n_tiles * sizeof(double) + n_bytes, 1)
    if r.taken == NULL:
        raise MemoryError("prepared: no memory for the queues of its workers")
    r.gate = <Gate*>(r.taken + workers * TAKEN_STRIDE)
    r.told = <Told*>(r.gate + 1)
    r.bounds = <double*>(r.told + workers)
    flags = <uint8_t*>(r.bounds + r.n_tiles)
    if n_bytes:
        with nogil:
            find_frozen(&r, flags, flags + r.n_units, flags + r.n_units + r.n_instructions)
    # One iteration is one worker. With fewer threads than asked for, the first worker does the work of the missing ones.
    if workers == 1:
        with nogil:
            work(&r, 0)    # OpenMP would add 0.9 us to the 12 of one example (`bench -k predict`, without this branch)
    else:
        for worker in prange(workers, nogil=True, num_threads=workers, schedule="static", chunksize=1):
            work(&r, worker)
    bad = r.gate.stop - 1
    free(r.taken)
    if highest is not None and bad < 0:
        for i in range(highest.shape[0]):
            if highest[i] < 0:
                return i
    return bad
