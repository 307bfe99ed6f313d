# Phase 1 of a step: tiles of examples go through a whole sweep.

cdef inline void fill(float* slot, float x) noexcept nogil:
    cdef int c
    for c in range(SLOT_VECS):
        (<vec*>slot)[c] = splat(x)


cdef uint64_t neuron_key(const Request* r, const Instruction* ins, int64_t step, int64_t tile) noexcept nogil:
    return draw(draw(draw(r.steps.seed, r.steps.number + step), 2 * ins.stream), tile // MASK_TILES)


cdef uint64_t edge_key(const Request* r, const Instruction* ins, int64_t step, int64_t tile) noexcept nogil:
    return draw(draw(draw(r.steps.seed, r.steps.number + step), 2 * ins.stream + 1), tile)


cdef inline uint32_t* kept_of(const Request* r, const Instruction* ins, int64_t place) noexcept nogil:
    return <uint32_t*>(r.memory.tiles + place * r.memory.tile_stride + ins.kept)


cdef void draw_tiles(const Request* r, const Instruction* ins, int64_t step, const Tile* tile, int64_t tiles) noexcept nogil:
    """Draw the neurons that some tiles side by side keep. They all keep the same, because SIDE_TILES = MASK_TILES."""
    cdef uint32_t* kept = kept_of(r, ins, tile.place)
    cdef int64_t i
    draw_kept(neuron_key(r, ins, step, tile.number), kept_share(ins), ins.size, kept)
    for i in range(1, tiles):
        memcpy(kept_of(r, ins, tile.place + i), kept, groups_of(ins.size) * sizeof(uint32_t))


cdef inline double kept_share(const Instruction* ins) noexcept nogil:
    return 1.0 - <double>ins.drop / 4294967296.0


cdef inline float edge_scale(const Instruction* ins) noexcept nogil:
    return <float>(<double>(1 << ins.bits) / <double>ins.keep)


cdef const float* tile_weights(const Request* r, const Instruction* ins, float* scratch) noexcept nogil:
    return scratch + r.memory.masked_at + ins.masked if r.steps.training and ins.bits else r.optimizer.parameters + ins.weights


cdef const float* biases(const Request* r, const Instruction* ins) noexcept nogil:
    return NULL if ins.bias < 0 else r.optimizer.parameters + ins.bias


cdef enum:
    CHUNK = 64               # neurons whose values, in two tiles, stay in the L1 cache from one kernel to the next


cdef bint takes_tiles(const Request* r, const Instruction* ins, const Tile* tile, int64_t tiles) noexcept nogil:
    """Whether a dense block reads its weights once for all tiles, each of which must fill more than half of its lanes."""
    return (ins.kind == DENSE and tiles > 1 and ins.bits == 0 and tile[tiles - 1].n > LANES // 2
            and not reads_entries(r, ins))


cdef inline bint fits_half(const Tile* tile) noexcept nogil:
    """Whether rows need only the first half of the lanes (_rows.pxi). The first of several tiles is always full."""
    return tile.n <= LANES // 2


cdef void forward(const Request* r, int64_t step, Tile* tile, int64_t tiles, float* scratch) noexcept nogil:
    """Compute the values of all slots of some tiles side by side."""
    cdef const Instruction* ins
    cdef const int32_t* sources
    cdef const float* numbers
    cdef float* values
    cdef float* out
    cdef int64_t t, i, k
    for t in range(r.tables.n_instructions):
        ins = r.tables.instructions + t
        sources = sources_of(&r.tables, ins)
        if r.steps.training and ins.drop:
            draw_tiles(r, ins, step, tile, tiles)
        if ins.kind == ROWS:
            forward_rows(r, ins, step, tile, tiles, scratch)
        elif takes_tiles(r, ins, tile, tiles):
            values = values_of(r, tile)
            dense_forward(r.optimizer.parameters + ins.weights, biases(r, ins), ins.arity, ins.size, sources, values,
                          r.memory.tile_stride, tiles, values + ins.dst * LANES)
        for i in range(tiles):
            values = values_of(r, tile + i)
            out = values + ins.dst * LANES
            if ins.kind == OPERATION:
                op_forward(<int>ins.op, ins.size, ins.arity, sources, values, ins.dst)
                if r.steps.training and ins.drop:
                    drop_neurons(kept_of(r, ins, tile[i].place), kept_share(ins), ins.size, out)
            elif ins.kind == CONSTANT or ins.kind == PARAMETER:
                numbers = r.tables.constants if ins.kind == CONSTANT else r.optimizer.parameters
                for k in range(ins.size):
                    fill(out + k * LANES, numbers[ins.weights + k])
            elif ins.kind == DENSE:
                if not takes_tiles(r, ins, tile, tiles):
                    forward_dense(r, ins, step, tile + i, scratch, values)
                after_sums(r, ins, tile + i, 0, ins.size)


cdef void after_sums(const Request* r, const Instruction* ins, const Tile* tile, int64_t first, int64_t last) noexcept nogil:
    """Turn weighted sums into values, for the neurons `first` (a multiple of CHUNK) to `last`."""
    cdef float* out
    cdef int64_t n
    while first < last:
        n = smaller(CHUNK, last - first)
        out = values_of(r, tile) + (ins.dst + first) * LANES
        activate(<int>ins.op, n * LANES, out)
        if r.steps.training and ins.drop:
            drop_neurons(kept_of(r, ins, tile.place) + first // DROP_GROUP, kept_share(ins), n, out)
        first = first + n


cdef void mask_edges(const Request* r, const Instruction* ins, int64_t step, const Tile* tile, float* scratch) noexcept nogil:
    """Mask the weights of a tile that drops edges, where `tile_weights` finds them. The next tile overwrites them."""
    cdef uint64_t* mask = <uint64_t*>(memory_of(r, tile) + ins.mask)
    if r.steps.training and ins.bits:
        draw_mask(edge_key(r, ins, step, tile.number), ins.keep, ins.bits, (ins.n_weights + 63) // 64, mask)
        apply_mask(mask, 0, edge_scale(ins), ins.n_weights, r.optimizer.parameters + ins.weights,
                   scratch + r.memory.masked_at + ins.masked, False)


cdef void forward_rows(
    const Request* r, const Instruction* ins, int64_t step, const Tile* tile, int64_t tiles, float* scratch,
) noexcept nogil:
    cdef float* memory = memory_of(r, tile)
    cdef const float* weights
    cdef const float* bias
    cdef const int32_t* row = sources_of(&r.tables, ins)
    cdef const int32_t* alike = alike_of(&r.tables, ins)
    cdef float* out
    cdef int64_t first = 0, n, i
    cdef bint bytes = r.memory.bytes_at >= 0 and ins.reads_data
    mask_edges(r, ins, step, tile, scratch)
    weights = tile_weights(r, ins, scratch)
    while first < ins.size:
        n = smaller(CHUNK, ins.size - first)
        bias = biases(r, ins) + first if ins.bias >= 0 else NULL
        out = memory + r.memory.values_at + (ins.dst + first) * LANES
        rows_forward(bytes, fits_half(tile), data_unit(&r.data), weights, bias, row + first, alike + first, n,
                     row + ins.size + 1, memory + (r.memory.bytes_at if bytes else r.memory.values_at), r.memory.tile_stride,
                     tiles, out)
        for i in range(tiles):
            after_sums(r, ins, tile + i, first, first + n)
        first = first + n


cdef void forward_dense(
    const Request* r, const Instruction* ins, int64_t step, Tile* tile, float* scratch, float* values,
) noexcept nogil:
    cdef float* out = values + ins.dst * LANES
    cdef float* sums = sums_of(r, ins, tile)
    cdef const float* weights = tile_weights(r, ins, scratch)
    cdef const int32_t* sources = sources_of(&r.tables, ins)
    mask_edges(r, ins, step, tile, scratch)
    if reads_entries(r, ins):
        if not is_ahead(r, ins):
            sum_runs(r, ins, &tile.entries, tile.n, 0, runs_of(ins.arity), weights, panels_of(ins.size), &tile.fetch, sums)
        sums_to_lanes(sums, ins.halves, sums_stride(r, ins), tile.n, ins.size, data_unit(&r.data), biases(r, ins), out)
    elif tile.n <= FEW_LANES:
        few_forward(weights, biases(r, ins), ins.arity, ins.size, sources, values, tile.n, out)
    else:
        dense_forward(weights, biases(r, ins), ins.arity, ins.size, sources, values, 0, 1, out)


cdef double size_of(const Request* r, const float* x, int64_t n) noexcept nogil:
    """Sum of |x|, not finite if some x is not. Without a limit to compare it with, the result is only 0 or NaN."""
    return magnitude(x, n, 1 if r.steps.limit > 0 else 0)


cdef void backward(const Request* r, int64_t step, Tile* tile, int64_t tiles, float* scratch) noexcept nogil:
    """Compute adjoints in reverse order; for each tile, sum `size_of` over those of neurons and parameters."""
    cdef const Instruction* ins
    cdef float* adjoints
    cdef float* delta
    cdef const int32_t* row
    cdef bint propagate
    cdef int64_t t, i
    for i in range(tiles):
        tile[i].total = 0
    for t in range(r.tables.n_instructions - 1, -1, -1):
        ins = r.tables.instructions + t
        if not wants_adjoint(r, ins):
            continue
        propagate = propagates(r, ins)
        row = sources_of(&r.tables, ins)
        for i in range(tiles):
            adjoints = adjoints_of(r, tile + i)
            delta = adjoints + ins.dst * LANES
            if ins.kind == OPERATION and propagate:
                if r.steps.training and ins.drop:    # an activation of neurons, whose derivative reads only its argument
                    drop_neurons(kept_of(r, ins, tile[i].place), kept_share(ins), ins.size, delta)
                op_adjoint(<int>ins.op, ins.size, ins.arity, row, values_of(r, tile + i), adjoints, ins.dst)
            elif ins.kind == PARAMETER:
                leave_examples(r, tile + i, ins.size, delta)
                if r.optimizer.frozen != NULL:
                    leave_frozen(r.optimizer.frozen + ins.weights, ins.size, delta)
                tile[i].total += size_of(r, delta, ins.size * LANES)
            elif ins.kind == DENSE or ins.kind == ROWS:
                before_activation(r, ins, tile + i, delta)
                if ins.kind == DENSE:
                    backward_dense(r, ins, step, tile + i, scratch, delta, adjoints,
                                   propagate and not takes_tiles(r, ins, tile, tiles))
        if propagate and takes_tiles(r, ins, tile, tiles):
            adjoints = adjoints_of(r, tile)
            dense_adjoint(r.optimizer.parameters + ins.weights, ins.arity, ins.size, row, adjoints + ins.dst * LANES, LANES,
                          r.memory.tile_stride, tiles, r.choice.first_zeroed, adjoints)
        if ins.kind == ROWS and propagate:
            adjoints = adjoints_of(r, tile)
            rows_adjoint(fits_half(tile), tile_weights(r, ins, scratch), row, alike_of(&r.tables, ins) + ins.size, ins.size,
                         row + ins.size + 1, r.tables.index + ins.back, ins.n_back, adjoints + ins.dst * LANES,
                         r.memory.tile_stride, tiles, r.choice.first_zeroed, adjoints)


cdef void leave_examples(const Request* r, const Tile* tile, int64_t n, float* slots) noexcept nogil:
    """Zero the lanes of n slots that hold no example, before gradients are summed over all lanes.

    Their adjoints were zero, but zero times an infinite derivative or value is NaN and would make a sum NaN that should
    be infinite. Training needs no such care: it refuses a step with either.
    """
    cdef int64_t i, lane
    if tile.n < LANES and not r.steps.training:
        for i in range(n):
            for lane in range(tile.n, LANES):
                slots[i * LANES + lane] = 0


cdef void leave_frozen(const float* frozen, int64_t n, float* slots) noexcept nogil:
    """Zero the slots of frozen parameters. Nothing reads their adjoints, so these need not be finite."""
    cdef int64_t i
    for i in range(n):
        if frozen[i] != 0:
            memset(slots + i * LANES, 0, LANES * sizeof(float))


cdef void before_activation(const Request* r, const Instruction* ins, Tile* tile, float* delta) noexcept nogil:
    """Turn adjoints of neurons into adjoints of their weighted sums."""
    cdef const float* values = values_of(r, tile) + ins.dst * LANES
    cdef const float* y
    cdef float unscaled[CHUNK * LANES]
    cdef bint drops = r.steps.training and ins.drop
    cdef int64_t first = 0, n, i
    while first < ins.size:
        n = smaller(CHUNK, ins.size - first)
        y = values
        if drops:
            drop_neurons(kept_of(r, ins, tile.place) + first // DROP_GROUP, kept_share(ins), n, delta)
            # The derivative is a function of the output before dropout scaled it.
            for i in range(n * LANES):
                unscaled[i] = values[i] * <float>kept_share(ins)
            y = unscaled
        activation_adjoint(<int>ins.op, n * LANES, y, delta)
        leave_examples(r, tile, n, delta)
        tile.total += size_of(r, delta, n * LANES)
        values, delta, first = values + n * LANES, delta + n * LANES, first + n


cdef void backward_dense(
    const Request* r, const Instruction* ins, int64_t step, const Tile* tile, float* scratch, float* delta, float* adjoints,
    bint propagate,
) noexcept nogil:
    cdef int64_t copy
    for copy in range(copies_of_deltas(r, ins) if r.tables.n_units and learns_itself(r, ins) else 0):
        transpose_delta(delta, ins.size, tile.n, deltas_of(r, ins, tile.place, copy), sums_stride(r, ins))
    if propagate:
        dense_adjoint(tile_weights(r, ins, scratch), ins.arity, ins.size, sources_of(&r.tables, ins), delta, tile.n, 0, 1,
                      r.choice.first_zeroed, adjoints)


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
    """out[example] = index of the highest of the wanted slots (of equals, the first), or -1 if one is NaN."""
    cdef float best[LANES]
    cdef int32_t arg[LANES]
    cdef int64_t lane
    cdef int32_t j
    for lane in range(LANES):
        best[lane], arg[lane] = slots[wanted[0] * <int64_t>LANES + lane], 0
    for j in range(1, <int32_t>n_wanted):
        keep_highest(j, slots + wanted[j] * <int64_t>LANES, best, arg)
    for lane in range(n):
        out[row[lane]] = arg[lane] if best[lane] == best[lane] else -1


cdef inline bint through_holes(const Request* r) noexcept nogil:
    """Whether a plan with holes runs outside training. A hole would spread a non-finite value, as 0 * inf."""
    return r.tables.edges != NULL and not r.steps.training


cdef inline bint stops(const Request* r) noexcept nogil:
    """Whether a step ends the run if one of its values is not finite."""
    return (r.steps.training and r.tables.n_units > 0) or through_holes(r)


cdef void load_tile(const Request* r, int64_t step, Tile* t) noexcept nogil:
    """Load the data of a tile as the instructions read them, and prefetch what this worker reads next."""
    cdef const Data* data = &r.data
    cdef int64_t n_inputs = r.tables.n_inputs, runs = runs_of(n_inputs)
    # This worker probably continues `later` tiles further, or with the same share of the next step.
    cdef int64_t later = r.choice.n_workers * r.choice.at_once, next_step = step, then = t.number + later
    cdef int64_t after[LANES]
    cdef float* memory = memory_of(r, t)
    t.n = examples_of(&r.steps, step, t.number, t.row)
    if then >= tiles_of(&r.steps, step):
        next_step, then = step + 1, t.number % later
    if then >= tiles_of(&r.steps, next_step):
        next_step, then = step, t.number
    fetch_answers(r, next_step, then)
    if r.memory.entries_at >= 0:
        t.entries = tile_entries(r, t.place)
        find_entries(data.bytes, data.floats, data.columns, n_inputs, 0, runs, t.row, t.n, &t.entries)
        t.fetch = fetch_of(r, r.steps.first[next_step] + then * LANES, examples_of_tile(&r.steps, next_step, then), 0, n_inputs,
                           runs)
    if r.memory.first_slot == 0 or r.memory.bytes_at >= 0:
        examples_of(&r.steps, next_step, then, after)
    if r.memory.first_slot == 0:
        load(data.bytes, data.floats, data.columns, r.tables.input_column, n_inputs, t.row, after, False,
             memory + r.memory.values_at)
    if r.memory.bytes_at >= 0:
        load(data.bytes, NULL, data.columns, r.tables.input_column, n_inputs, t.row, after, True, memory + r.memory.bytes_at)


cdef bint finish_tile(const Request* r, int64_t step, Tile* t) noexcept nogil:
    """Hand out the results of a tile, and bound its share of every gradient. False if a value is not finite that must be."""
    cdef const Results* out = &r.results
    cdef float* values = values_of(r, t)
    cdef float* adjoints = adjoints_of(r, t)
    cdef const float* sources = values + r.tables.first_source * LANES
    cdef int64_t first = r.steps.first[step] + t.number * LANES, n_sources = r.tables.last_source - r.tables.first_source
    cdef bint finite = True
    cdef double reach
    if r.choice.backward:
        finite = t.total - t.total == 0
        if r.tables.n_units:    # gradients of rows are summed over all lanes
            leave_examples(r, t, r.tables.n_slots - r.memory.first_slot, values + r.memory.first_slot * LANES)
        if r.steps.limit > 0:
            # No gradient exceeds the sum of all |adjoints| times the largest value by which an adjoint is multiplied.
            reach = magnitude(sources, n_sources * LANES, 1)
            r.bounds[t.place] = t.total * (r.data.reach if reach < r.data.reach else reach)
    if through_holes(r):
        finite = finite and all_finite(sources, n_sources * LANES)
    if out.value_out != NULL:
        hand_back(first, t.n, values, out.value_slot, out.n_values, out.value_out)
    if out.highest != NULL:
        find_highest(t.row, t.n, values, out.value_slot, out.n_values, out.highest)
    if out.n_adjoints:
        hand_back(first, t.n, adjoints, out.adjoint_slot, out.n_adjoints, out.adjoint_out)
    return finite


cdef bint sweep_tiles(const Request* r, int64_t step, int64_t first, int64_t place, int64_t tiles, Worker* w) noexcept nogil:
    """Phase 1 for at most SIDE_TILES tiles, in the tile memory from number `place` on.

    False if a value that training would use, or that would pass through holes, is not finite.
    """
    cdef Tile tile[SIDE_TILES]
    cdef int64_t i
    cdef bint finite = True
    cdef unsigned int numbers
    for i in range(tiles):
        tile[i].number, tile[i].place = first + i, place + i
        load_tile(r, step, tile + i)
    forward(r, step, tile, tiles, w.scratch)
    for i in range(tiles):
        finite = seed_adjoints(r, step, tile + i) and finite
    if r.choice.backward:
        numbers = flush_subnormals(r.steps.training)
        backward(r, step, tile, tiles, w.scratch)
        restore_numbers(numbers)
    for i in range(tiles):
        finite = finish_tile(r, step, tile + i) and finite
    return finite


cdef inline int64_t items_of(const Request* r, int64_t step) noexcept nogil:
    """Number of items of phase 1, each of `at_once` tiles."""
    return (tiles_of(&r.steps, step) + r.choice.at_once - 1) // r.choice.at_once


cdef bint sweep_item(const Request* r, int64_t step, int64_t item, Worker* w) noexcept nogil:
    """Sweep the tiles of an item. If there are units, tile i uses tile memory i, where phase 2 finds it."""
    cdef int64_t first = item * r.choice.at_once, tiles = smaller(r.choice.at_once, tiles_of(&r.steps, step) - first), done = 0
    cdef bint finite = True
    if r.choice.ahead and not r.tables.n_units:
        sum_group(r, step, item, w)
    while done < tiles:
        finite = sweep_tiles(r, step, first + done, first + done if r.tables.n_units else w.number * r.choice.at_once + done,
                             smaller(r.choice.wide, tiles - done), w) and finite
        done = done + r.choice.wide
    if r.memory.pack_sums != NULL:
        sum_pack(r, step, item, w)
    return finite
