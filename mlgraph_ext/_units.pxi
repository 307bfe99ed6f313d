# Phase 2 of a step: a unit of parameters sums its gradient over all tiles and is updated.

cdef enum:
    SUM_TILES = 32       # tiles whose gradient is one sum. Of more tiles, such sums are added; one long sum would lose digits
    FETCH_AHEAD = 2      # steps: the next phase 2 lists the entries of step + 2


cdef bint step_unit(const Request* r, int64_t step, const Unit* unit, Worker* w) noexcept nogil:
    """Phase 2 for one unit: sum its gradient over all tiles of the step, then update it.

    False, for all units alike, if the step may overflow. A unit of a block whose sums are made ahead then makes its
    sums for the next step.
    """
    cdef const Instruction* ins = r.tables.instructions + unit.instruction
    cdef Unit part = unit[0]
    cdef Fetch fetch
    cdef double bound = 0
    cdef unsigned int numbers
    cdef int64_t i, soon = step + FETCH_AHEAD, n_examples
    cdef int fixed = fixed_of(r, unit)
    if r.steps.limit > 0:
        for i in range(tiles_of(&r.steps, step)):
            bound = bound + r.bounds[i]
        if not bound < r.steps.limit:
            return False
    if unit.part != WHOLE:
        if step >= 0 and fixed != ENTIRELY:
            numbers = flush_subnormals(r.steps.training)
            update_unit(r, step, unit, fixed, w, NULL)
            restore_numbers(numbers)
        return True
    # Meanwhile, rows are prefetched that this worker will list after the next phase 2: while gradients are summed (if any
    # are) and then while sums are made.
    n_examples = examples_in(&r.steps, soon) if w.asked[unit.first > 0] != soon else 0
    w.asked[unit.first > 0] = soon
    fetch = fetch_of(r, r.steps.first[soon] if n_examples else 0, n_examples, unit.first, unit.last,
                     (1 if fixed == ENTIRELY else 2) * runs_of(unit.last - unit.first) * (1 + n_examples // GROUP))
    if step >= 0 and fixed != ENTIRELY:
        numbers = flush_subnormals(r.steps.training)
        list_step(r, step, unit.first, unit.last, w)
        part.part = 0
        while part.first < unit.last:
            part.last = smaller(part.first + WHOLE_COLUMNS, unit.last)
            update_unit(r, step, &part, fixed, w, &fetch)
            part.first = part.last
        part.part, part.first, part.last = 1, 0, 0
        if ins.bias >= 0 and unit.first == 0:
            update_unit(r, step, &part, fixed, w, NULL)
        restore_numbers(numbers)
    sum_ahead(r, step + 1, unit, w, &fetch)
    return True


cdef void update_unit(const Request* r, int64_t step, const Unit* unit, int fixed, Worker* w, Fetch* fetch) noexcept nogil:
    """Sum the gradient of a unit over all tiles of the step, then update it. `fixed` is FREE or PARTLY."""
    cdef const Instruction* ins = r.tables.instructions + unit.instruction
    cdef Optimizer optimizer = r.optimizer
    cdef Span s = span_of(&r.tables, unit)
    cdef int64_t tiles = tiles_of(&r.steps, step), at = s.at, run = s.run, runs = s.runs, stride = s.stride, tile, i
    cdef bint masked = unit.part == 0 and r.steps.training and ins.bits
    cdef float* g = w.scratch
    cdef const uint64_t* holes = r.tables.edges + ins.holes if ins.holes >= 0 and unit.part == 0 else NULL
    cdef bint descends, decays, in_parts = tiles > SUM_TILES or masked
    cdef int64_t tiles_of_part = 1 if masked else SUM_TILES, at_once
    cdef Descent descent
    cdef float* part
    if fixed == FREE:
        optimizer.frozen = NULL

    # Weights of dense blocks are updated from registers, unless their gradient has to be changed first. The gradient is then
    # not stored, and weights and moments are prefetched while other gradients are summed.
    descends = ins.kind == DENSE and unit.part == 0 and optimizer.frozen == NULL and not in_parts
    decays = r.steps.decay != NULL and ins.decays and unit.part == 0
    if (r.optimizer.kind != ACCUMULATE and (unit.part or not is_ahead(r, ins))
            and (decays or not descends or reads_entries(r, ins))):
        # All workers have read these parameters in phase 1, so they are in the caches of other cores.
        for i in range(runs):
            prefetch_to_write(r.optimizer.parameters + at + i * stride, run)
    if decays:
        for i in range(runs):
            decay_weights(optimizer.frozen + at + i * stride if optimizer.frozen != NULL else NULL, r.steps.decay[step], run,
                          optimizer.parameters + at + i * stride)
    descent.optimizer, descent.rate, descent.first, descent.stride = optimizer, r.steps.rate[step], at, stride
    descent.mask, descent.mask_begin = holes, ins.weights
    # If edges are masked, each tile is summed separately and then added through its mask (one tile after the other, even for
    # a million examples).
    if in_parts:
        memset(g, 0, runs * run * sizeof(float))
    part = g + runs * run if in_parts else g
    tile = 0
    while tile < tiles:
        at_once = smaller(tiles_of_part, tiles - tile)
        if ins.kind == ROWS and r.memory.pack_sums != NULL:
            add_packs(r, tile, at_once, at, run, part)
        else:
            unit_gradient(r, step, unit, tile, at_once, part, w, &descent if descends else NULL, fetch)
        if masked:
            for i in range(runs):
                apply_mask(<const uint64_t*>(r.memory.tiles + tile * r.memory.tile_stride + ins.mask),
                           at - ins.weights + i * stride, edge_scale(ins), run, part + i * run, g + i * run, True)
        elif in_parts:
            for i in range(runs * run):
                g[i] = g[i] + part[i]
        tile = tile + tiles_of_part
    if descends:
        return
    for i in range(runs):
        update(&optimizer, r.steps.rate[step], at + i * stride, run, g + i * run, holes, at - ins.weights + i * stride)


cdef void unit_gradient(
    const Request* r, int64_t step, const Unit* unit, int64_t tile, int64_t tiles, float* g, const Worker* w,
    const Descent* descent, Fetch* fetch,
) noexcept nogil:
    """Sum the gradient of a unit over at most SUM_TILES tiles from `tile` on; with `descent` update its parameters."""
    cdef int64_t first = unit.first, n = unit.last - unit.first
    cdef const Instruction* ins = r.tables.instructions + unit.instruction
    cdef bint ahead = is_ahead(r, ins)
    cdef int64_t apart = LANES * PANEL if ahead else r.memory.tile_stride
    cdef const float* memory = r.memory.tiles + tile * r.memory.tile_stride
    cdef const float* values = memory + r.memory.values_at
    cdef const float* delta = memory + r.memory.adjoints_at + ins.dst * LANES
    cdef const float* deltas = deltas_of(r, ins, tile, copy_for(r, ins, first))
    cdef int64_t stride = sums_stride(r, ins)
    cdef const float* transposed = deltas + unit.panel * stride
    cdef const int32_t* sources = sources_of(&r.tables, ins)
    cdef int64_t examples = smaller(tiles * LANES, r.steps.size[step] - tile * LANES), wide = GROUP_TILES if ahead else 1
    cdef int64_t groups = (tiles + wide - 1) // wide, i
    cdef TileGroup group[SUM_TILES]
    cdef bint bytes = r.memory.bytes_at >= 0 and ins.reads_data
    if ins.kind == DENSE and unit.part == 1:
        bias_gradient(unit.panels, transposed, stride, apart, examples, g)
    elif reads_entries(r, ins):
        for i in range(groups):
            group[i].e = group_entries(r, w, step, tile // wide + i) if ahead else tile_entries(r, tile + i)
            group[i].delta = transposed + i * wide * apart
        runs_gradient(group, groups, first, unit.last, unit.panels, data_unit(&r.data), stride, g, descent, fetch)
    elif ins.kind == DENSE:
        dense_gradient(sources + first, n, unit.panels, values, transposed, r.memory.tile_stride, examples, g, descent)
    elif ins.kind == ROWS and unit.part == 0:
        rows_gradient(bytes, r.steps.size[step] <= LANES // 2, data_unit(&r.data), sources + first,
                      alike_of(&r.tables, ins) + first, n, sources + ins.size + 1,
                      memory + r.memory.bytes_at if bytes else values, delta + first * LANES, r.memory.tile_stride, tiles, g)
    else:
        slot_gradient(n, delta + first * LANES, r.memory.tile_stride, tiles, g)
