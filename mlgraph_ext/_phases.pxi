# The two phases of a step: a tile of examples through a whole sweep, and then a unit of parameters through all tiles.

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


cdef inline void fill(float* slot, float x) noexcept nogil:
    cdef int c
    for c in range(SLOT_VECS):
        (<vec*>slot)[c] = splat(x)


cdef uint64_t neuron_key(const Run* r, const Instruction* ins, int64_t step, int64_t tile) noexcept nogil:
    # One mask for each 128 examples: a step of that size or less trains one thinned network.
    return draw(draw(draw(r.seed, r.step_number + step), 2 * ins.stream), tile // 4)


cdef uint64_t edge_key(const Run* r, const Instruction* ins, int64_t step, int64_t tile) noexcept nogil:
    return draw(draw(draw(r.seed, r.step_number + step), 2 * ins.stream + 1), tile)


cdef inline double kept_share(const Instruction* ins) noexcept nogil:
    return 1.0 - <double>ins.drop / 4294967296.0


cdef bint is_thin(const Run* r, const Instruction* ins, int64_t step) noexcept nogil:
    # Packing costs the same for a step of any size; from 48 examples on it pays. Larger steps have several masks.
    return (ins.kind == DENSE and r.training and ins.drop and kept_share(ins) <= 0.5 and ins.bits == 0 and r.sparse
            and ins.reads_data and 48 <= r.step_size[step] <= 4 * LANES)


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
    const Run* r, int64_t step, int64_t tile, const Nonzero* data, const int64_t* row, int64_t n, float* memory,
    float* scratch, bint fresh,
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
                fill(out + i * LANES, (r.constants if ins.kind == CONSTANT else r.optimizer.parameters)[ins.weights + i])
        elif ins.kind == OPERATION:
            op_forward(<int>ins.op, ins.size, ins.arity, r.index + ins.args, values, ins.dst)
        else:
            if r.training and ins.bits:
                draw_mask(edge_key(r, ins, step, tile), ins.keep, ins.bits, (ins.n_weights + 63) // 64,
                          <uint64_t*>(memory + ins.mask))
                apply_mask(<uint64_t*>(memory + ins.mask), 0, edge_scale(ins), ins.n_weights,
                           r.optimizer.parameters + ins.weights, scratch + ins.masked, False)
            if ins.kind == ROWS and r.bytes_at >= 0 and ins.reads_data:
                byte_rows_forward(tile_weights(r, ins, scratch), biases(r, ins), r.index + ins.args, ins.size,
                                  r.index + ins.args + ins.size + 1, memory + r.bytes_at, 256 * r.scale[1], out)
            elif ins.kind == ROWS:
                rows_forward(tile_weights(r, ins, scratch), biases(r, ins), r.index + ins.args, ins.size,
                             r.index + ins.args + ins.size + 1, values, out)
            elif is_thin(r, ins, step):
                if fresh:
                    pack_thin(neuron_key(r, ins, step, tile), kept_share(ins), r.optimizer.parameters + ins.weights,
                              ins.arity, ins.size, scratch + ins.masked)
                thin = thin_slots(ins, scratch)
                nonzero_forward(data, row, n, scratch + ins.masked, NULL, ins.arity,
                                groups_of(ins.size) * PANEL, thin)
                spread_slots(neuron_key(r, ins, step, tile), kept_share(ins), ins.size, thin, out)
                if ins.bias >= 0:
                    for i in range(ins.size):
                        for lane in range(LANES):
                            out[i * LANES + lane] = out[i * LANES + lane] + biases(r, ins)[i]
            elif r.sparse and ins.reads_data:
                nonzero_forward(data, row, n, tile_weights(r, ins, scratch), biases(r, ins),
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


cdef double size_of(const Run* r, const float* x, int64_t n) noexcept nogil:
    """Sum of |x|, not finite if one is not; of that alone where there is no limit to hold a sum against."""
    return magnitude(x, n) if r.limit > 0 else 0 if all_finite(x, n) else INFINITY


cdef double backward(
    const Run* r, int64_t step, int64_t tile, float* memory, float* scratch,
) noexcept nogil:
    """Adjoints in reverse order; `size_of` all those of neurons and parameters."""
    cdef float* values = memory + r.values_at
    cdef float* adjoints = memory + r.adjoints_at
    cdef const Instruction* ins
    cdef float* delta
    cdef float y[LANES]
    cdef int64_t t, i, lane
    cdef double total = 0
    for t in range(r.n_instructions - 1, -1, -1):
        ins = r.program + t
        delta = adjoints + ins.dst * LANES
        if ins.kind == OPERATION:
            if ins.propagate:
                op_adjoint(<int>ins.op, ins.size, ins.arity, r.index + ins.args, values, adjoints, ins.dst)
        elif ins.kind == PARAMETER:
            total = total + size_of(r, delta, ins.size * LANES)
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
            total = total + size_of(r, delta, ins.size * LANES)
            if ins.kind == DENSE:
                if is_thin(r, ins, step):
                    gather_slots(neuron_key(r, ins, step, tile), kept_share(ins), ins.size, delta, thin_slots(ins, scratch))
                    transpose_delta(thin_slots(ins, scratch), groups_of(ins.size) * PANEL, memory + ins.transposed)
                else:
                    transpose_delta(delta, ins.size, memory + ins.transposed)
                if ins.propagate:
                    dense_adjoint(tile_weights(r, ins, scratch), ins.arity, ins.size, r.index + ins.args, delta, adjoints)
            elif ins.propagate:
                rows_adjoint(tile_weights(r, ins, scratch), r.index + ins.back, ins.n_back, delta, adjoints)
    return total


cdef void hand_back(
    int64_t first, int64_t n, const float* slots, const int32_t* wanted, int64_t n_wanted, float* out,
) noexcept nogil:
    cdef int64_t lane, j
    for lane in range(n):
        for j in range(n_wanted):
            out[(first + lane) * n_wanted + j] = slots[wanted[j] * <int64_t>LANES + lane]


cdef void find_highest(
    const int64_t* row, int64_t n, const float* slots, const int32_t* wanted, int64_t n_wanted, int64_t* out,
) noexcept nogil:
    """out[example] = which of the wanted slots is highest; the first of equals, or the first NaN, as numpy has it."""
    cdef float best[LANES]
    cdef int32_t arg[LANES]
    cdef const float* z
    cdef int64_t lane
    cdef int32_t j
    cdef bint higher
    for lane in range(LANES):
        best[lane] = slots[wanted[0] * <int64_t>LANES + lane]
        arg[lane] = 0
    for j in range(1, <int32_t>n_wanted):
        z = slots + wanted[j] * <int64_t>LANES
        for lane in range(LANES):
            higher = (z[lane] > best[lane]) | ((z[lane] != z[lane]) & (best[lane] == best[lane]))
            arg[lane] = j if higher else arg[lane]
            best[lane] = z[lane] if higher else best[lane]
    for lane in range(n):
        out[row[lane]] = arg[lane]


cdef bint sweep_tile(Run* r, int64_t step, int64_t tile, int64_t place, float* scratch, bint fresh) noexcept nogil:
    """Phase 1 for one tile, in the tile memory numbered `place`. False if something is not finite that would be learnt from."""
    cdef float* memory = r.tiles + place * r.tile_stride
    cdef float* values = memory + r.values_at
    cdef float* adjoints = memory + r.adjoints_at
    cdef int64_t first = r.step_first[step] + tile * LANES
    cdef int64_t n = smaller(LANES, r.step_size[step] - tile * LANES)
    cdef int64_t last = r.step_first[r.n_steps - 1] + r.step_size[r.n_steps - 1]
    cdef int64_t row[LANES]
    cdef int64_t after[LANES]
    cdef int64_t entry[LANES]
    cdef const int64_t* rows     # the examples in `data`
    cdef Nonzero data
    cdef int64_t lane
    cdef bint finite = True
    cdef double total, reach
    for lane in range(LANES):
        entry[lane] = lane
        # The lanes past the end repeat the last example: real numbers, of no weight in the loss.
        row[lane] = first + smaller(lane, n - 1)
        after[lane] = smaller(first + r.n_workers * LANES + lane, last - 1)
        if r.order != NULL:
            row[lane], after[lane] = r.order[row[lane]], r.order[after[lane]]
    if r.compress:
        compress_tile(r.bytes, r.floats, r.columns, row, n, r.scale, <char*>(scratch + r.columns_at), &data)
        rows = entry
    else:
        data = r.nonzero
        rows = row
    if r.first_slot == 0:
        load(r, row, values)
    if r.bytes_at >= 0:
        load_bytes(r.bytes, r.columns, r.input_column, r.n_inputs, row, after, memory + r.bytes_at)
    forward(r, step, tile, &data, rows, n, memory, scratch, fresh)
    if r.backward:
        memset(adjoints + r.first_adjoint * LANES, 0, (r.n_slots - r.first_adjoint) * LANES * sizeof(float))
    if r.loss != LOSS_NONE:
        finite = seed_adjoints(r, step, first, row, n, values, adjoints)
    if r.backward:
        total = backward(r, step, tile, memory, scratch)
        finite = finite and total - total == 0
        if r.limit > 0:
            # No gradient is larger than the sum of all adjoints times the largest value that one is multiplied by.
            reach = magnitude(values + r.first_source * LANES, (r.last_source - r.first_source) * LANES)
            r.bounds[place] = total * (r.reach if reach < r.reach else reach)
    if r.value_out != NULL:
        hand_back(first, n, values, r.value_slot, r.n_values, r.value_out)
    if r.highest != NULL:
        find_highest(row, n, values, r.value_slot, r.n_values, r.highest)
    if r.n_adjoints:
        hand_back(first, n, adjoints, r.adjoint_slot, r.n_adjoints, r.adjoint_out)
    return finite or not r.n_units


cdef bint step_unit(Run* r, int64_t step, const Unit* unit, float* scratch) noexcept nogil:
    """Phase 2 for one unit: gradient over all tiles of the step, then the update. False, for each unit, if it may overflow."""
    cdef const Instruction* ins = r.program + unit.instruction
    cdef const int32_t* sources = r.index + ins.args
    cdef int64_t tiles = (r.step_size[step] + LANES - 1) // LANES
    cdef int64_t first = unit.first, n = unit.last - unit.first, at, run, runs = 1, tile, i
    cdef bint masked = unit.part == 0 and r.training and ins.bits
    cdef bint thin = unit.part == 0 and is_thin(r, ins, step)
    cdef float* g = scratch
    cdef float* part
    cdef double bound = 0
    if r.limit > 0:
        for tile in range(tiles):
            bound = bound + r.bounds[tile]
        if not bound < r.limit:
            return False
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
    for i in range(runs):
        if ins.holes >= 0 and unit.part == 0:
            apply_mask(r.edges + ins.holes, at - ins.weights + i * ins.arity * PANEL, 1, run, g + i * run, g + i * run, False)
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
    elif ins.kind == ROWS and unit.part == 0 and r.bytes_at >= 0 and ins.reads_data:
        byte_rows_gradient(sources + first, n, sources + ins.size + 1, memory + r.bytes_at, 256 * r.scale[1],
                           delta + first * LANES, r.tile_stride, tiles, g)
    elif ins.kind == ROWS and unit.part == 0:
        rows_gradient(sources + first, n, sources + ins.size + 1, values, delta + first * LANES,
                      r.tile_stride, tiles, g)
    else:
        slot_gradient(n, delta + first * LANES, r.tile_stride, tiles, g)
