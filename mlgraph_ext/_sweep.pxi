# The sweeps. This is the one kernel source, built once for each instruction set.
#
# Design list
#
# a) A slot is LANES = 32 examples of one scalar, contiguous: a sweep is SIMD over examples for any topology. Inner loops
#    have constant length, sums stand in register tiles (_vector.pxi says why they are written as vectors).
# b) A plan is a table of instructions over numbered slots, in topological order. Dense blocks (_dense.pxi), dense blocks
#    that read sparse data (_nonzero.pxi), sparse rows (_rows.pxi), scalar operations (_elementwise.pxi).
# c) A step is two phases. Phase 1, over tiles of examples: load, forward, loss, backward. Phase 2, over units, runs of
#    parameters: each unit sums its gradient over all tiles in fixed order and applies the optimizer there and then. No
#    gradient is ever shared, none is reduced, and the bits do not depend on the number of threads.
# d) Tiles are cut by the batch, units by the plan: never by the number of threads.
# e) Workers take tiles and units from one queue (`work`): item t of all items of all steps goes to whoever asks t-th. An
#    item waits until every item of the phases before its own is done, not until every thread has arrived, so a thread
#    that the system has put aside holding nothing holds up nobody; waiting soon yields the processor. libgomp's barrier
#    does neither: beside a busy process it costs several times the epoch.
# f) Many steps go down in one call; Python is on the path of no step.
# g) A step in which a loss, an adjoint or a gradient is not finite changes no parameter that it would spoil: the call
#    stops and says which step.
# h) Everything that can raise is checked in `run` before the GIL goes.

from cython.parallel cimport prange
from libc.math cimport INFINITY, sqrtf
from libc.string cimport memcpy, memset

include "_vector.pxi"
include "_elementwise.pxi"
include "_dropout.pxi"
include "_dense.pxi"
include "_nonzero.pxi"
include "_columns.pxi"
include "_rows.pxi"
include "_update.pxi"
include "_peak.pxi"

cdef extern from *:
    """
    #ifdef _OPENMP
    #define MLGRAPH_PARALLEL 1
    #else
    #define MLGRAPH_PARALLEL 0
    #endif
    """
    int MLGRAPH_PARALLEL

PARALLEL = bool(MLGRAPH_PARALLEL)   # built with OpenMP

# The numbers of mlgraph/plan.py and mlgraph/engine.py.
cdef enum:
    CONSTANT = 0
    PARAMETER = 1
    OPERATION = 2
    DENSE = 3
    ROWS = 4

cdef enum:
    LOSS_NONE = 0        # forward only
    LOSS_CROSS_ENTROPY = 1
    LOSS_SQUARED = 2
    LOSS_NODE = 3        # the value of a node
    LOSS_COTANGENT = 4   # adjoints of the outputs are given

cdef struct Instruction:
    int64_t kind
    int64_t op           # operation, or the activation of neurons
    int64_t dst          # first slot written
    int64_t size         # nodes
    int64_t arity        # arguments of each node; sources of a dense block
    int64_t args         # into the index table: arguments, node by node; sources; row pointers and then sources
    int64_t weights      # into the parameters (a constant: into the constants)
    int64_t n_weights    # with padding
    int64_t bias         # into the parameters, or -1
    int64_t reads_data   # a dense block that may read the nonzeros of the data itself
    int64_t propagate    # some source wants an adjoint
    int64_t transposed   # dense: where a tile keeps its transposed deltas
    int64_t stream       # which random numbers
    int64_t drop         # a neuron is dropped with probability drop / 2**32
    int64_t keep         # an edge is kept with probability keep / 2**bits
    int64_t bits         # 0: all edges are kept
    int64_t mask         # where a tile keeps the mask of its edges
    int64_t masked       # where a worker keeps masked or thin weights, and then slots of thin neurons

cdef struct Unit:
    int64_t instruction
    int64_t part         # 0 weights, 1 bias
    int64_t first        # dense: source (sparse data: chunk); else: neuron or node
    int64_t last
    int64_t panel        # dense: first panel
    int64_t panels       # dense: number of panels

cdef struct Run:
    const Instruction* program
    int64_t n_instructions
    const int32_t* index
    const float* constants
    const Unit* units
    int64_t n_units
    Optimizer optimizer
    # the data
    const uint8_t* bytes
    const float* floats
    int64_t columns
    const float* scale
    const int32_t* input_column
    int64_t n_inputs
    Nonzero nonzero
    bint sparse
    const int32_t* label
    const float* target
    const int64_t* order
    # the steps
    const int64_t* step_first
    const int64_t* step_size
    const float* step_rate
    int64_t n_steps
    int64_t step_number
    uint64_t seed
    bint training
    bint backward
    # the loss
    int64_t loss
    const int32_t* loss_slot
    int64_t n_outputs
    # what is handed back
    float* losses
    uint8_t* correct
    const int32_t* value_slot
    int64_t n_values
    float* value_out
    const int32_t* adjoint_slot
    int64_t n_adjoints
    float* adjoint_out
    # memory
    float* tiles
    int64_t tile_stride
    int64_t values_at    # floats from a tile's memory to the value of slot 0
    int64_t adjoints_at  # floats from a tile's memory to the adjoint of slot 0
    int64_t first_slot   # slots before it have no memory: inputs that only sparse blocks read
    int64_t n_slots
    float* scratch
    int64_t scratch_stride
    int64_t columns_at   # where in a worker's scratch nonzeros are sorted by column
    # the queue
    int64_t ticket
    int64_t done
    int64_t stop
    int64_t bad_step


cdef void load(const Run* r, const int64_t* row, float* values) noexcept nogil:
    """The transpose from examples to lanes, in pieces that stay in the L1 cache."""
    cdef int64_t slot = 0, s, lane
    cdef const uint8_t* byte
    cdef const float* x
    while slot < r.n_inputs:
        for lane in range(LANES):
            if r.bytes != NULL:
                byte = r.bytes + row[lane] * r.columns
                for s in range(slot, smaller(slot + 16, r.n_inputs)):
                    values[s * LANES + lane] = r.scale[byte[r.input_column[s]]]
            else:
                x = r.floats + row[lane] * r.columns
                for s in range(slot, smaller(slot + 16, r.n_inputs)):
                    values[s * LANES + lane] = x[r.input_column[s]]
        slot = slot + 16


cdef uint64_t neuron_key(const Run* r, const Instruction* ins, int64_t step, int64_t tile) noexcept nogil:
    # One mask for each 128 examples: a step of that size or less trains one thinned network.
    return draw(draw(draw(r.seed, r.step_number + step), 2 * ins.stream), tile // 4)


cdef uint64_t edge_key(const Run* r, const Instruction* ins, int64_t step, int64_t tile) noexcept nogil:
    return draw(draw(draw(r.seed, r.step_number + step), 2 * ins.stream + 1), tile)


cdef inline double kept_share(const Instruction* ins) noexcept nogil:
    return 1.0 - <double>ins.drop / 4294967296.0


cdef bint is_thin(const Run* r, const Instruction* ins, int64_t step) noexcept nogil:
    # Packing costs the same for a step of any size; from 48 examples on it pays. Larger steps have several masks.
    return (r.training and ins.drop and kept_share(ins) <= 0.5 and ins.bits == 0 and r.sparse and ins.reads_data
            and 48 <= r.step_size[step] <= 4 * LANES)


cdef inline int64_t groups_of(int64_t count) noexcept nogil:
    return (count + THIN_GROUP - 1) // THIN_GROUP


cdef inline float edge_scale(const Instruction* ins) noexcept nogil:
    return <float>(<double>(1 << ins.bits) / <double>ins.keep)


cdef const float* tile_weights(const Run* r, const Instruction* ins, float* scratch) noexcept nogil:
    return scratch + ins.masked if r.training and ins.bits else r.optimizer.parameters + ins.weights


cdef const float* biases(const Run* r, const Instruction* ins) noexcept nogil:
    return NULL if ins.bias < 0 else r.optimizer.parameters + ins.bias


cdef float* thin_slots(const Instruction* ins, float* scratch) noexcept nogil:
    return scratch + ins.masked + groups_of(ins.size) * PANEL * ins.arity


cdef void forward(
    const Run* r, int64_t step, int64_t tile, const int64_t* row, int64_t n, float* memory, float* scratch, bint fresh,
) noexcept nogil:
    """Values of all slots of a tile. `fresh`: this worker has not seen this step before."""
    cdef float* values = memory + r.values_at
    cdef const Instruction* ins
    cdef float* out
    cdef float* thin
    cdef int64_t t, i, lane
    for t in range(r.n_instructions):
        ins = r.program + t
        out = values + ins.dst * LANES
        if ins.kind == CONSTANT or ins.kind == PARAMETER:
            for i in range(ins.size):
                for lane in range(LANES):
                    out[i * LANES + lane] = (r.constants if ins.kind == CONSTANT
                                             else r.optimizer.parameters)[ins.weights + i]
        elif ins.kind == OPERATION:
            op_forward(<int>ins.op, ins.size, ins.arity, r.index + ins.args, values, ins.dst)
        else:
            if r.training and ins.bits:
                draw_mask(edge_key(r, ins, step, tile), ins.keep, ins.bits, (ins.n_weights + 63) // 64,
                          <uint64_t*>(memory + ins.mask))
                apply_mask(<uint64_t*>(memory + ins.mask), 0, edge_scale(ins), ins.n_weights,
                           r.optimizer.parameters + ins.weights, scratch + ins.masked, False)
            if ins.kind == ROWS:
                rows_forward(tile_weights(r, ins, scratch), biases(r, ins), r.index + ins.args, ins.size,
                             r.index + ins.args + ins.size + 1, values, out)
            elif is_thin(r, ins, step):
                if fresh:
                    pack_thin(neuron_key(r, ins, step, tile), kept_share(ins), r.optimizer.parameters + ins.weights,
                              ins.arity, ins.size, scratch + ins.masked)
                thin = thin_slots(ins, scratch)
                nonzero_forward(&r.nonzero, row, n, scratch + ins.masked, NULL, ins.arity,
                                groups_of(ins.size) * PANEL, thin)
                spread_slots(neuron_key(r, ins, step, tile), kept_share(ins), ins.size, thin, out)
                if ins.bias >= 0:
                    for i in range(ins.size):
                        for lane in range(LANES):
                            out[i * LANES + lane] = out[i * LANES + lane] + biases(r, ins)[i]
            elif r.sparse and ins.reads_data:
                nonzero_forward(&r.nonzero, row, n, tile_weights(r, ins, scratch), biases(r, ins),
                                ins.arity, ins.size, out)
            else:
                dense_forward(tile_weights(r, ins, scratch), biases(r, ins), ins.arity, ins.size,
                              r.index + ins.args, values, out)
            activate(<int>ins.op, ins.size * LANES, out)
            if r.training and ins.drop:
                drop_neurons(neuron_key(r, ins, step, tile), kept_share(ins), ins.size, out)


cdef bint seed_adjoints(
    const Run* r, int64_t step, int64_t first, const int64_t* row, int64_t n, const float* values, float* adjoints,
) noexcept nogil:
    """Loss of each example; adjoints of the nodes it reads. False if a loss is not finite."""
    cdef float share[LANES]
    cdef float loss[LANES]
    cdef float best[LANES]
    cdef int32_t arg[LANES]
    cdef const float* z
    cdef int64_t lane, j
    cdef float error
    cdef bint finite = True
    for lane in range(LANES):
        share[lane] = <float>1 / <float>r.step_size[step] if lane < n else <float>0
        loss[lane] = 0
        best[lane] = -<float>INFINITY
        arg[lane] = 0
    for j in range(r.n_outputs):
        z = values + r.loss_slot[j + 1] * <int64_t>LANES
        if r.loss == LOSS_CROSS_ENTROPY or r.loss == LOSS_SQUARED:
            for lane in range(LANES):
                arg[lane] = <int32_t>j if z[lane] > best[lane] else arg[lane]
                best[lane] = z[lane] if z[lane] > best[lane] else best[lane]
        if r.loss == LOSS_SQUARED:
            for lane in range(LANES):
                error = z[lane] - r.target[row[lane] * r.n_outputs + j]
                loss[lane] = loss[lane] + error * error
                if r.backward:
                    adjoints[r.loss_slot[j + 1] * <int64_t>LANES + lane] += 2 * error * share[lane]
        elif r.loss == LOSS_COTANGENT:
            for lane in range(n):
                adjoints[r.loss_slot[j + 1] * <int64_t>LANES + lane] += r.target[row[lane] * r.n_outputs + j]
    if r.loss == LOSS_CROSS_ENTROPY or r.loss == LOSS_NODE:
        for lane in range(LANES):
            loss[lane] = values[r.loss_slot[0] * <int64_t>LANES + lane]
            if r.backward:
                adjoints[r.loss_slot[0] * <int64_t>LANES + lane] += share[lane]
    if r.loss == LOSS_CROSS_ENTROPY:
        # logsumexp(z) - z[label]
        for lane in range(LANES):
            j = r.loss_slot[r.label[row[lane]] + 1] * <int64_t>LANES + lane
            loss[lane] = loss[lane] - values[j]
            if r.backward:
                adjoints[j] -= share[lane]
    for lane in range(n):
        finite = finite and loss[lane] - loss[lane] == 0
        if r.losses != NULL:
            r.losses[first + lane] = loss[lane]
        if r.correct != NULL and r.label != NULL:
            r.correct[first + lane] = arg[lane] == r.label[row[lane]]
    return finite


cdef bint backward(
    const Run* r, int64_t step, int64_t tile, float* memory, float* scratch,
) noexcept nogil:
    """Adjoints in reverse order; False if one of a neuron or parameter is not finite."""
    cdef float* values = memory + r.values_at
    cdef float* adjoints = memory + r.adjoints_at
    cdef const Instruction* ins
    cdef float* delta
    cdef float y[LANES]
    cdef int64_t t, i, lane
    cdef bint finite = True
    for t in range(r.n_instructions - 1, -1, -1):
        ins = r.program + t
        delta = adjoints + ins.dst * LANES
        if ins.kind == OPERATION:
            if ins.propagate:
                op_adjoint(<int>ins.op, ins.size, ins.arity, r.index + ins.args, values, adjoints, ins.dst)
        elif ins.kind == PARAMETER:
            finite = finite and all_finite(delta, ins.size * LANES)
        elif ins.kind != CONSTANT:
            if r.training and ins.drop:
                drop_neurons(neuron_key(r, ins, step, tile), kept_share(ins), ins.size, delta)
                for i in range(ins.size):
                    # The derivative is a function of the output before dropout scaled it.
                    for lane in range(LANES):
                        y[lane] = values[(ins.dst + i) * LANES + lane] * <float>kept_share(ins)
                    activation_adjoint(<int>ins.op, LANES, y, delta + i * LANES)
            else:
                activation_adjoint(<int>ins.op, ins.size * LANES, values + ins.dst * LANES, delta)
            finite = finite and all_finite(delta, ins.size * LANES)
            if ins.kind == DENSE:
                if is_thin(r, ins, step):
                    gather_slots(neuron_key(r, ins, step, tile), kept_share(ins), ins.size, delta, thin_slots(ins, scratch))
                    transpose_delta(thin_slots(ins, scratch), groups_of(ins.size) * PANEL, memory + ins.transposed)
                else:
                    transpose_delta(delta, ins.size, memory + ins.transposed)
                if ins.propagate:
                    dense_adjoint(tile_weights(r, ins, scratch), ins.arity, ins.size, r.index + ins.args, delta, adjoints)
            elif ins.propagate:
                rows_adjoint(tile_weights(r, ins, scratch), r.index + ins.args, ins.size,
                             r.index + ins.args + ins.size + 1, delta, adjoints)
    return finite


cdef void hand_back(
    const int64_t* row, int64_t n, const float* slots, const int32_t* wanted, int64_t n_wanted, float* out,
) noexcept nogil:
    cdef int64_t lane, j
    for lane in range(n):
        for j in range(n_wanted):
            out[row[lane] * n_wanted + j] = slots[wanted[j] * <int64_t>LANES + lane]


cdef bint sweep_tile(Run* r, int64_t step, int64_t tile, int64_t place, float* scratch, bint fresh) noexcept nogil:
    """Phase 1 for one tile, in the tile memory numbered `place`. False if something was not finite."""
    cdef float* memory = r.tiles + place * r.tile_stride
    cdef float* values = memory + r.values_at
    cdef float* adjoints = memory + r.adjoints_at
    cdef int64_t first = r.step_first[step] + tile * LANES
    cdef int64_t n = smaller(LANES, r.step_size[step] - tile * LANES)
    cdef int64_t row[LANES]
    cdef int64_t lane
    cdef bint finite = True
    for lane in range(LANES):
        # The lanes past the end repeat the last example: real numbers, of no weight in the loss.
        row[lane] = first + smaller(lane, n - 1)
        if r.order != NULL:
            row[lane] = r.order[row[lane]]
    if r.first_slot == 0:
        load(r, row, values)
    forward(r, step, tile, row, n, memory, scratch, fresh)
    if r.backward:
        memset(adjoints + r.first_slot * LANES, 0, (r.n_slots - r.first_slot) * LANES * sizeof(float))
    if r.loss != LOSS_NONE:
        finite = seed_adjoints(r, step, first, row, n, values, adjoints)
    if r.backward:
        finite = backward(r, step, tile, memory, scratch) and finite
    if r.n_values:
        hand_back(row, n, values, r.value_slot, r.n_values, r.value_out)
    if r.n_adjoints:
        hand_back(row, n, adjoints, r.adjoint_slot, r.n_adjoints, r.adjoint_out)
    return finite


cdef bint step_unit(Run* r, int64_t step, const Unit* unit, float* scratch) noexcept nogil:
    """Phase 2 for one unit: gradient over all tiles of the step, then the update. False if it was not finite."""
    cdef const Instruction* ins = r.program + unit.instruction
    cdef const int32_t* sources = r.index + ins.args
    cdef int64_t tiles = (r.step_size[step] + LANES - 1) // LANES
    cdef int64_t first = unit.first, n = unit.last - unit.first, at, run, runs = 1, tile, i
    cdef bint masked = unit.part == 0 and r.training and ins.bits
    cdef bint thin = unit.part == 0 and is_thin(r, ins, step)
    cdef float* g = scratch
    cdef float* part
    if ins.kind == DENSE and unit.part == 0:
        if r.sparse and ins.reads_data:
            first = r.nonzero.chunk[unit.first]
            n = r.nonzero.chunk[unit.last] - first
        at = ins.weights + (unit.panel * ins.arity + first) * PANEL
        run = n * PANEL
        runs = unit.panels
    elif ins.kind == DENSE:
        at = ins.bias + unit.panel * PANEL
        run = unit.panels * PANEL
    elif ins.kind == ROWS and unit.part == 0:
        at = ins.weights + sources[first]
        run = sources[unit.last] - sources[first]
    else:
        at = (ins.bias if unit.part else ins.weights) + first
        run = n

    # With a mask on the edges each tile is summed by itself, and then added through its mask. A thin block is summed as it
    # is, and then spread.
    if masked or thin or (ins.kind == DENSE and unit.part == 0 and r.sparse and ins.reads_data):
        memset(g, 0, runs * run * sizeof(float))
    part = g + runs * run if masked or thin else g
    for tile in range(tiles if masked else 1):
        unit_gradient(r, step, unit, tile, 1 if masked else tiles, first, n, runs * run, masked or thin, part, scratch)
        if masked:
            for i in range(runs):
                apply_mask(<const uint64_t*>(r.tiles + tile * r.tile_stride + ins.mask),
                           at - ins.weights + i * ins.arity * PANEL, edge_scale(ins), run, part + i * run, g + i * run, True)
    if thin:
        spread_thin(neuron_key(r, ins, step, 0), kept_share(ins), n, unit.panel // 2, (unit.panels + 1) // 2,
                    ins.size, part, g)
    if r.training and not all_finite(g, runs * run):
        return False
    for i in range(runs):
        update(&r.optimizer, r.step_rate[step], at + i * ins.arity * PANEL, run, g + i * run)
    return True


cdef void unit_gradient(
    Run* r, int64_t step, const Unit* unit, int64_t tile, int64_t tiles, int64_t first, int64_t n, int64_t size,
    bint clear, float* g, float* scratch,
) noexcept nogil:
    """Gradient of a unit over `tiles` tiles from `tile` on."""
    cdef int64_t panels = unit.panels
    cdef int32_t* length
    cdef const Instruction* ins = r.program + unit.instruction
    cdef const float* memory = r.tiles + tile * r.tile_stride
    cdef const float* values = memory + r.values_at
    cdef const float* delta = memory + r.adjoints_at + ins.dst * LANES
    cdef const float* transposed = memory + ins.transposed + unit.panel * LANES * PANEL
    cdef const int32_t* sources = r.index + ins.args
    cdef int64_t row[LANES]
    cdef int64_t t, lane, lanes, position
    if ins.kind == DENSE and unit.part == 1 and is_thin(r, ins, step):
        first = unit.panel * PANEL
        n = smaller(unit.panels * PANEL, ins.size - first)
        memset(g, 0, size * sizeof(float))
        slot_gradient(n, delta + first * LANES, r.tile_stride, tiles, g)
    elif ins.kind == DENSE and unit.part == 1:
        bias_gradient(unit.panels, transposed, r.tile_stride, tiles, g)
    elif ins.kind == DENSE and r.sparse and ins.reads_data:
        if clear:
            memset(g, 0, size * sizeof(float))
        if is_thin(r, ins, step):
            panels = (panels + 1) // 2
            transposed = memory + ins.transposed + unit.panel // 2 * LANES * PANEL
        length = <int32_t*>(scratch + r.columns_at)
        for t in range(tiles):
            position = r.step_first[step] + (tile + t) * LANES
            lanes = smaller(LANES, r.step_size[step] - (tile + t) * LANES)
            for lane in range(lanes):
                row[lane] = position + lane if r.order == NULL else r.order[position + lane]
            if panels <= 2:
                nonzero_gradient(&r.nonzero, row, lanes, unit.first, panels, transposed + t * r.tile_stride, g)
                continue
            if t % 4 == 0:
                memset(length, 0, n * sizeof(int32_t))
            sort_columns(&r.nonzero, row, lanes, unit.first, t % 4 * r.tile_stride,
                         length, length + n, <float*>(length + n + n * SORTED))
            if t % 4 == 3 or t == tiles - 1:
                columns_gradient(n, panels, length, length + n, <float*>(length + n + n * SORTED),
                                 transposed + (t - t % 4) * r.tile_stride, g, t >= 4)
    elif ins.kind == DENSE:
        dense_gradient(sources + first, n, unit.panels, values, transposed, r.tile_stride, tiles, g)
    elif ins.kind == ROWS and unit.part == 0:
        rows_gradient(sources + first, n, sources + ins.size + 1, values, delta + first * LANES,
                      r.tile_stride, tiles, g)
    else:
        slot_gradient(n, delta + first * LANES, r.tile_stride, tiles, g)


cdef void work(Run* r, int64_t worker) noexcept nogil:
    """Take items until there are none. Items are numbered through all steps: the tiles of a step, then its units."""
    cdef float* scratch = r.scratch + worker * r.scratch_stride
    cdef int64_t item, step = -1, seen = -1, start = 0, end = 0
    cdef bint tiles = False, finite
    cdef int spins
    while load_acquire(&r.stop) == 0:
        item = take_ticket(&r.ticket)
        while item >= end:
            # On to the phase that this item belongs to.
            start = end
            tiles = not tiles or r.n_units == 0
            if tiles:
                step = step + 1
                if step == r.n_steps:
                    return
                end = start + (r.step_size[step] + LANES - 1) // LANES
            else:
                end = start + r.n_units
        spins = 0
        while r.n_units > 0 and load_acquire(&r.done) < start:
            if load_acquire(&r.stop):
                return
            spins = spins + 1
            relax(spins)
        if load_acquire(&r.stop):
            return
        if tiles:
            finite = sweep_tile(r, step, item - start, item - start if r.n_units else worker, scratch, step != seen)
            seen = step
        else:
            finite = step_unit(r, step, r.units + (item - start), scratch)
        if not finite and r.training:
            r.bad_step = step
            store_release(&r.stop, 1)
        add_release(&r.done)


def run(
    *, const int64_t[:, ::1] program, const int32_t[::1] index, const float[::1] constants, const int64_t[:, ::1] units,
    float[::1] parameters, int optimizer, const float[::1] hyper, float[::1] first, float[::1] second,
    const uint8_t[:, ::1] bytes, const float[:, ::1] floats, const float[::1] scale, const int32_t[::1] input_column,
    tuple nonzero, const int32_t[::1] label, const float[:, ::1] target, const int64_t[::1] order,
    const int64_t[::1] step_first, const int64_t[::1] step_size, const float[::1] step_rate,
    int64_t step_number, uint64_t seed, bint training, bint backward, int loss, const int32_t[::1] loss_slot,
    float[::1] losses, uint8_t[::1] correct,
    const int32_t[::1] value_slot, float[:, ::1] value_out, const int32_t[::1] adjoint_slot, float[:, ::1] adjoint_out,
    float[::1] tiles, int64_t tile_stride, int64_t values_at, int64_t adjoints_at, int64_t first_slot, int64_t n_slots,
    float[::1] scratch, int64_t scratch_stride, int64_t columns_at, int n_threads,
):
    """Run steps of a plan; mlgraph.engine is its one caller and says what each argument is.

    Returns
    -------
    int
        -1, or the number of the step (from 0) at which something was not finite and the run stopped.
    """
    cdef Run r
    cdef const int64_t[::1] start
    cdef const uint16_t[::1] column
    cdef const uint8_t[::1] byte
    cdef const float[::1] value
    cdef const uint16_t[:, ::1] cut
    cdef const int32_t[::1] chunk
    cdef int64_t most
    cdef int worker
    if program.shape[1] * sizeof(int64_t) != sizeof(Instruction) or units.shape[1] * sizeof(int64_t) != sizeof(Unit):
        raise ValueError(f"program, units: expected rows of {sizeof(Instruction) // 8} and {sizeof(Unit) // 8} numbers, "
                         f"came {program.shape[1]} and {units.shape[1]}")
    if step_first.shape[0] != step_size.shape[0] or step_rate.shape[0] != step_size.shape[0]:
        raise ValueError("step_first, step_size, step_rate: expected one length, came "
                         f"{step_first.shape[0]}, {step_size.shape[0]}, {step_rate.shape[0]}")
    if n_threads < 1 or scratch.shape[0] < n_threads * scratch_stride:
        raise ValueError(f"scratch: expected n_threads >= 1 and {n_threads} x {scratch_stride} floats, "
                         f"came {scratch.shape[0]}")
    memset(&r, 0, sizeof(Run))
    r.program = <const Instruction*>&program[0, 0] if program.shape[0] else NULL
    r.n_instructions = program.shape[0]
    r.index = &index[0] if index.shape[0] else NULL
    r.constants = &constants[0] if constants.shape[0] else NULL
    r.units = <const Unit*>&units[0, 0] if units.shape[0] else NULL
    r.n_units = units.shape[0]
    r.optimizer.kind = optimizer
    r.optimizer.momentum, r.optimizer.decay, r.optimizer.epsilon = hyper[0], hyper[1], hyper[2]
    r.optimizer.parameters = &parameters[0] if parameters.shape[0] else NULL
    r.optimizer.first = &first[0] if first is not None and first.shape[0] else NULL
    r.optimizer.second = &second[0] if second is not None and second.shape[0] else NULL
    if bytes is not None:
        r.bytes, r.columns = &bytes[0, 0], bytes.shape[1]
    if floats is not None:
        r.floats, r.columns = &floats[0, 0], floats.shape[1]
    r.scale = &scale[0]
    r.input_column = &input_column[0] if input_column.shape[0] else NULL
    r.n_inputs = input_column.shape[0]
    r.sparse = nonzero is not None
    if r.sparse:
        start, column, byte, value, cut, chunk = nonzero
        r.nonzero.start = &start[0]
        r.nonzero.column = &column[0]
        r.nonzero.byte = &byte[0] if byte is not None else NULL
        r.nonzero.value = &value[0] if value is not None else NULL
        r.nonzero.scale = &scale[0]
        r.nonzero.cut = &cut[0, 0]
        r.nonzero.chunk = &chunk[0]
        r.nonzero.chunks = chunk.shape[0] - 1
    r.label = &label[0] if label is not None else NULL
    r.target = &target[0, 0] if target is not None else NULL
    r.order = &order[0] if order is not None else NULL
    r.step_first, r.step_size, r.step_rate = &step_first[0], &step_size[0], &step_rate[0]
    r.n_steps = step_size.shape[0]
    r.step_number, r.seed, r.training, r.backward = step_number, seed, training, backward
    r.loss, r.loss_slot, r.n_outputs = loss, &loss_slot[0], loss_slot.shape[0] - 1
    r.losses = &losses[0] if losses is not None else NULL
    r.correct = &correct[0] if correct is not None else NULL
    r.n_values = value_slot.shape[0] if value_out is not None else 0
    r.n_adjoints = adjoint_slot.shape[0] if adjoint_out is not None else 0
    if r.n_values:
        r.value_slot, r.value_out = &value_slot[0], &value_out[0, 0]
    if r.n_adjoints:
        r.adjoint_slot, r.adjoint_out = &adjoint_slot[0], &adjoint_out[0, 0]
    r.tiles = &tiles[0]
    r.tile_stride, r.values_at, r.adjoints_at = tile_stride, values_at, adjoints_at
    r.first_slot, r.n_slots = first_slot, n_slots
    r.scratch = &scratch[0]
    r.scratch_stride = scratch_stride
    r.columns_at = columns_at
    r.bad_step = -1
    most = n_threads
    if r.n_units:
        for worker in range(<int>r.n_steps):
            most = max(most, (r.step_size[worker] + LANES - 1) // LANES)
    if tiles.shape[0] < most * tile_stride:
        raise ValueError(f"tiles: expected {most} x {tile_stride} floats, came {tiles.shape[0]}")
    # One iteration is one worker; what it does is taken from the queue. With fewer threads than asked for, the first
    # worker does the work of the missing ones.
    for worker in prange(n_threads, nogil=True, num_threads=n_threads, schedule="static", chunksize=1,
                         use_threads_if=n_threads > 1):
        work(&r, worker)
    return r.bad_step
