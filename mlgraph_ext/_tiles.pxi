# The first phase of a step: a tile of examples through a whole sweep.

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
    return (ins.kind == DENSE and r.training and ins.drop and kept_share(ins) <= 0.5 and ins.bits == 0 and r.entries_at >= 0
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
    const Run* r, int64_t step, int64_t tile, int64_t place, int64_t n, const Entries* entries, float* scratch, bint fresh,
    Fetch* fetch,
) noexcept nogil:
    """Values of all slots of a tile. `fresh`: this worker has not seen this step before."""
    cdef float* memory = r.tiles + place * r.tile_stride
    cdef float* values = memory + r.values_at
    cdef const Instruction* ins
    cdef float* out
    cdef float* thin
    cdef float* sums
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
                                  r.index + ins.args + ins.size + 1, memory + r.bytes_at, data_unit(r), out)
            elif ins.kind == ROWS:
                rows_forward(tile_weights(r, ins, scratch), biases(r, ins), r.index + ins.args, ins.size,
                             r.index + ins.args + ins.size + 1, values, out)
            elif is_ahead(r, ins):
                sums_to_lanes(sums_of(r, ins, place), sums_stride(r, ins), n, ins.size, data_unit(r), biases(r, ins), out)
            elif is_thin(r, ins, step):
                if fresh:
                    pack_thin(neuron_key(r, ins, step, tile), kept_share(ins), r.optimizer.parameters + ins.weights,
                              ins.arity, ins.size, scratch + ins.masked)
                thin = thin_slots(ins, scratch)
                sums = sums_of(r, ins, place)
                runs_forward(entries, ins.arity, n, scratch + ins.masked, groups_of(ins.size), fetch, sums, LANES * PANEL)
                sums_to_lanes(sums, LANES * PANEL, n, groups_of(ins.size) * PANEL, data_unit(r), NULL, thin)
                spread_slots(neuron_key(r, ins, step, tile), kept_share(ins), ins.size, thin, out)
                if ins.bias >= 0:
                    for i in range(ins.size):
                        for lane in range(LANES):
                            out[i * LANES + lane] = out[i * LANES + lane] + biases(r, ins)[i]
            elif r.entries_at >= 0 and ins.reads_data:
                sums = sums_of(r, ins, place)
                runs_forward(entries, ins.arity, n, tile_weights(r, ins, scratch), panels_of(ins.size), fetch, sums,
                             LANES * PANEL)
                sums_to_lanes(sums, LANES * PANEL, n, ins.size, data_unit(r), biases(r, ins), out)
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
    const Run* r, int64_t step, int64_t tile, int64_t place, float* scratch,
) noexcept nogil:
    """Adjoints in reverse order; `size_of` all those of neurons and parameters."""
    cdef float* values = r.tiles + place * r.tile_stride + r.values_at
    cdef float* adjoints = r.tiles + place * r.tile_stride + r.adjoints_at
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
                    transpose_delta(thin_slots(ins, scratch), groups_of(ins.size) * PANEL, sums_of(r, ins, place),
                                    LANES * PANEL)
                else:
                    transpose_delta(delta, ins.size, sums_of(r, ins, place), sums_stride(r, ins))
                if ins.propagate:
                    dense_adjoint(tile_weights(r, ins, scratch), ins.arity, ins.size, r.index + ins.args, delta, r.first_added,
                                  adjoints)
            elif ins.propagate:
                rows_adjoint(tile_weights(r, ins, scratch), r.index + ins.back, ins.n_back, delta, r.first_added,
                             adjoints)
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


cdef bint sweep_tile(Run* r, int64_t step, int64_t tile, int64_t place, Worker* w) noexcept nogil:
    """Phase 1 for one tile, in the tile memory numbered `place`. False if something is not finite that would be learnt from."""
    cdef float* memory = r.tiles + place * r.tile_stride
    cdef float* values = memory + r.values_at
    cdef float* adjoints = memory + r.adjoints_at
    cdef int64_t first = r.step_first[step] + tile * LANES
    cdef int64_t row[LANES]
    cdef int64_t after[LANES]
    cdef int64_t n = examples_of(r, step, tile, row), next_step = step, then = tile + 1, wide = tiles_at_once(r)
    cdef Entries entries
    cdef Fetch fetch
    cdef bint finite = True
    cdef double total, reach
    # Where this worker is likely to go on.
    if then % wide == 0 or then >= tiles_of(r, step):
        then = (tile // wide + r.n_workers) * wide
    if then >= tiles_of(r, step):
        next_step, then = step + 1, tile // wide % r.n_workers * wide
    if then >= tiles_of(r, next_step):
        next_step, then = step, tile
    if r.entries_at >= 0:
        entries = tile_entries(r, place)
        find_entries(r.bytes, r.floats, r.columns, r.n_inputs, row, n, &entries)
        fetch = fetch_of(r, r.step_first[next_step] + then * LANES, smaller(LANES, r.step_size[next_step] - then * LANES),
                         runs_of(r.n_inputs))
    if r.first_slot == 0:
        load(r, row, values)
    if r.bytes_at >= 0:
        examples_of(r, next_step, then, after)
        load_bytes(r.bytes, r.columns, r.input_column, r.n_inputs, row, after, memory + r.bytes_at)
    forward(r, step, tile, place, n, &entries, w.scratch, step != w.swept, &fetch)
    if r.backward:
        memset(adjoints + r.first_added * LANES, 0, (r.n_slots - r.first_added) * LANES * sizeof(float))
    if r.loss != LOSS_NONE:
        finite = seed_adjoints(r, step, first, row, n, values, adjoints)
    if r.backward:
        total = backward(r, step, tile, place, w.scratch)
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
    w.swept = step
    return finite or not r.n_units


cdef inline int64_t items_of(const Run* r, int64_t step) noexcept nogil:
    """Items of the first phase: tiles or packs, or without a second phase groups of those that have entries in common."""
    cdef int64_t wide = tiles_at_once(r)
    return groups_in(r, step) if r.ahead and not r.n_units else (tiles_of(r, step) + wide - 1) // wide


cdef bint sweep_item(Run* r, int64_t step, int64_t item, Worker* w) noexcept nogil:
    """Sweep a tile, or those of a pack or a group; the second phase finds them in memory of their number."""
    cdef int64_t first = item * (tiles_at_once(r) if r.n_units else GROUP_TILES), i
    cdef bint finite = True
    if r.n_units:
        for i in range(first, smaller(first + tiles_at_once(r), tiles_of(r, step))):
            finite = sweep_tile(r, step, i, i, w) and finite
        if r.pack_sums != NULL:
            sum_pack(r, step, item, w)
        return finite
    if not r.ahead:
        return sweep_tile(r, step, item, w.number, w)
    sum_group(r, step, item, w)
    for i in range(smaller(GROUP_TILES, tiles_of(r, step) - first)):
        finite = sweep_tile(r, step, first + i, w.number * GROUP_TILES + i, w) and finite
    return finite
