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
# e) Scheduling. A worker is a thread (_team.pxi). It has the same share of a phase's items at every step,
#    except that the shares of units rotate where no sums are made ahead. A worker that has finished
#    its own items takes items of others (_queue.pxi). A phase
#    begins, at a gate, when every earlier item is done; it does not wait until every thread has
#    arrived. A thread that the operating system suspends while it holds no item therefore delays
#    nobody. Waiting soon yields the processor. libgomp's barrier does neither, so workers return to
#    it together, and __init__.py limits how long it spins.
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
# j) Checks. Everything that can raise an error happens in `prepare` and `run`, before the GIL is
#    released.

from cython.parallel cimport prange
from libc.math cimport sqrt
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
include "_frozen.pxi"
include "_ahead.pxi"
include "_queue.pxi"
include "_packs.pxi"
include "_losses.pxi"
include "_tiles.pxi"
include "_units.pxi"
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


def prepare(
    *, const int64_t[:, ::1] program, const int32_t[::1] index, const float[::1] constants, const uint64_t[::1] edges,
    const int64_t[:, ::1] units,
    float[::1] parameters, int optimizer, tuple hyper, float[::1] first, float[::1] second,
    const float[::1] frozen,
    const int32_t[::1] input_column, bint backward,
    float[::1] tiles, int64_t n_tiles, int64_t tile_stride, int64_t values_at, int64_t adjoints_at, int64_t first_slot,
    int64_t n_slots, int64_t first_zeroed, int64_t bytes_at, int64_t entries_at, int64_t first_source, int64_t last_source,
    float[::1] sums, float[::1] pack_sums, int64_t pack_stride, int64_t first_row, int64_t wide, int64_t at_once,
    float[::1] scratch, int64_t n_workers, int64_t scratch_stride, int64_t lists_at, int64_t list_floats,
):
    """Pack all arguments of `run` except data and steps into bytes. The caller must keep the arrays alive as long.

    The bytes hold the addresses of the arrays. mlgraph.engine.engine is the only caller of both functions; `SweepArgs`
    (_program.pxi) says what each argument is.
    """
    cdef SweepArgs r
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
    memset(&r, 0, sizeof(SweepArgs))
    r.program = <const Instruction*>&program[0, 0] if program.shape[0] else NULL
    r.n_instructions = program.shape[0]
    r.index = &index[0] if index.shape[0] else NULL
    r.constants = &constants[0] if constants.shape[0] else NULL
    r.edges = &edges[0] if edges.shape[0] else NULL
    r.units = <const Unit*>&units[0, 0] if units.shape[0] else NULL
    r.n_units = units.shape[0]
    r.optimizer.kind = optimizer
    r.optimizer.momentum, r.optimizer.beta2, r.optimizer.epsilon = hyper
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
    r.first_source, r.last_source = first_source, last_source
    r.scratch = &scratch[0]
    r.n_workers, r.scratch_stride, r.lists_at, r.list_floats = n_workers, scratch_stride, lists_at, list_floats
    return (<const char*>&r)[:sizeof(SweepArgs)]


cdef void set_only_step(SweepArgs* r) noexcept:
    """Point the step of a call that has one step of all examples into the arguments themselves, which have moved."""
    r.step_first, r.step_size, r.step_rate, r.n_steps = &r.only_first, &r.only_size, &r.only_rate, 1


cdef bint begin_queue(SweepArgs* r) noexcept:
    """Allocate `r.taken`, which the caller frees: the shares' counters, the gate, reports, bounds, and what is frozen."""
    cdef int64_t workers = r.n_workers, n_bytes = 0
    cdef uint8_t* flags
    if r.optimizer.frozen != NULL:
        n_bytes = r.n_units + r.n_instructions + r.n_slots
    r.taken = <int64_t*>zeros(workers * (TAKEN_STRIDE * sizeof(int64_t) + sizeof(Told)) + sizeof(Gate)
                              + r.n_tiles * sizeof(double) + n_bytes, 1)
    if r.taken == NULL:
        return False
    r.gate = <Gate*>(r.taken + workers * TAKEN_STRIDE)
    r.told = <Told*>(r.gate + 1)
    r.bounds = <double*>(r.told + workers)
    flags = <uint8_t*>(r.bounds + r.n_tiles)
    if n_bytes:
        with nogil:
            find_frozen(r, flags, flags + r.n_units, flags + r.n_units + r.n_instructions)
    return True


def run(
    bytes prepared, const uint8_t[:, ::1] data_bytes, const float[:, ::1] data_floats,
    const int64_t[::1] step_first, const int64_t[::1] step_size, const float[::1] step_rate, const float[::1] step_decay,
    const int64_t[::1] order, int64_t step_number, uint64_t seed, bint training, double limit, double reach,
    int loss, const int32_t[::1] loss_slot, const int32_t[::1] label, const float[:, ::1] target, const float[::1] weight,
    float[::1] gradient, float[::1] losses, uint8_t[::1] correct,
    const int32_t[::1] value_slot, float[:, ::1] value_out, int64_t[::1] highest,
    const int32_t[::1] adjoint_slot, float[:, ::1] adjoint_out, bint later=False,
):
    """Run steps of a plan. Without `step_first`, run one step of all examples at learning rate 0.

    Returns
    -------
    bytes
        If `later`: the call, for `run_each`. The caller must keep all arrays alive until then. It must be of one worker, one
        step and no update.
    int
        -1 if all steps were taken. Otherwise the number (from 0) of the step that was refused and ended the run: a value was
        not finite, in training or in a plan with holes, or a gradient may exceed the limit. With `highest`, the first example
        that has no highest value because one is NaN.
    """
    cdef SweepArgs r
    cdef int64_t size = 0, most = 0, bad, i
    cdef int worker, workers
    if len(prepared) != sizeof(SweepArgs):
        raise ValueError(f"prepared: expected {sizeof(SweepArgs)} bytes, got {len(prepared)}")
    if step_first is not None and (step_first.shape[0] != step_size.shape[0] or step_rate.shape[0] != step_size.shape[0]):
        raise ValueError("step_first, step_size, step_rate: expected one length, got "
                         f"{step_first.shape[0]}, {step_size.shape[0]}, {step_rate.shape[0]}")
    if step_decay is not None and step_decay.shape[0] != step_size.shape[0]:
        raise ValueError(f"step_decay: expected {step_size.shape[0]} numbers, got {step_decay.shape[0]}")
    memcpy(&r, <const char*>prepared, sizeof(SweepArgs))
    # Data without columns have no first element to point at; they are never read.
    if data_bytes is not None:
        size, r.columns = data_bytes.shape[0], data_bytes.shape[1]
        r.bytes = &data_bytes[0, 0] if r.columns else NULL
    else:
        size, r.columns = data_floats.shape[0], data_floats.shape[1]
        r.floats = &data_floats[0, 0] if r.columns else NULL
    if label is not None and label.shape[0] != size:
        raise ValueError(f"label: expected {size} numbers, one for each example, got {label.shape[0]}")
    if target is not None and (loss_slot is None or target.shape[0] != size or target.shape[1] != loss_slot.shape[0] - 1):
        raise ValueError(f"target: expected {size} rows, one for each example, and a column for each output, "
                         f"got shape {target.shape[0], target.shape[1]}")
    if weight is not None and weight.shape[0] != size:
        raise ValueError(f"weight: expected {size} numbers, one for each example, got {weight.shape[0]}")
    r.label = &label[0] if label is not None else NULL
    r.target = &target[0, 0] if target is not None else NULL
    r.weight = &weight[0] if weight is not None else NULL
    r.order = &order[0] if order is not None else NULL
    if step_first is None:
        r.only_size = size
        set_only_step(&r)
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
    if later:
        if r.n_workers != 1 or r.n_units or step_first is not None:
            raise ValueError("later: expected one worker, one step and no update")
        return (<const char*>&r)[:sizeof(SweepArgs)]
    workers = <int>r.n_workers
    if not begin_queue(&r):
        raise MemoryError("prepared: no memory for the queues of its workers")
    # One iteration is one worker. If OpenMP starts fewer threads, a thread runs several workers, one after the other.
    if workers == 1:
        with nogil:
            work(&r, 0)    # avoids OpenMP's 0.9 us, of 12 us for one example (`bench -k predict`)
    else:
        for worker in prange(workers, nogil=True, num_threads=team, schedule="static", chunksize=1):
            work(&r, worker)
    bad = r.gate.stop - 1
    free(r.taken)
    if highest is not None and bad < 0:
        for i in range(highest.shape[0]):
            if highest[i] < 0:
                return i
    return bad


def run_each(list calls, int n_threads):
    """Make calls that `run` returned as bytes, of different plans, by so many threads; each call is of one thread."""
    cdef int64_t n = len(calls), i, _worker, begun = 0, next = 0
    cdef SweepArgs* each = <SweepArgs*>zeros(n * sizeof(SweepArgs), 1)
    if each == NULL:
        raise MemoryError("calls: no memory")
    try:
        for i in range(n):
            if len(<bytes?>calls[i]) != sizeof(SweepArgs):
                raise ValueError(f"calls: expected {sizeof(SweepArgs)} bytes, got {len(calls[i])}")
            memcpy(&each[i], <const char*><bytes>calls[i], sizeof(SweepArgs))
            set_only_step(&each[i])
            if not begin_queue(&each[i]):
                raise MemoryError("calls: no memory for their queues")
            begun = begun + 1
        for _worker in prange(n_threads, nogil=True, num_threads=team, schedule="static", chunksize=1,
                              use_threads_if=n_threads > 1):
            i = next_of(&next)
            while i < n:
                work(&each[i], 0)
                i = next_of(&next)
    finally:
        for i in range(begun):
            free(each[i].taken)
        free(each)
