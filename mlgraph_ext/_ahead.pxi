# Sums made ahead. A dense block that reads entries is divided among workers by neurons, or by columns if its neurons are few.
# The worker that has updated some of its weights makes their sums for the next step at once. So no weight goes from one core's
# cache to another's, only sums and deltas, which are few in comparison.
#
# Where neurons are few, the columns have two halves, whose sums are made separately and then added, whichever workers make
# them. So a worker lists the entries of its half only, and panels stay together: their kernel costs little more than for one.
#
#   tiles of step s  |  units of step s, sums of step s + 1  |  tiles of step s + 1  |  ...
#
# Each worker lists the entries that it needs, by groups of tiles and parts of the columns, instead of waiting at a gate, or at
# the latest when a unit needs them. The first part is listed before the tiles of the previous step, so that there is some such
# work at each gate. What others have written and a worker is about to read, sums or deltas, it prefetches as a gate opens.

cdef enum:
    MOST_FETCHED = 16384     # floats that are fetched from others for a phase: 64 KB, which an L2 cache has room for


cdef inline bint is_ahead(const SweepArgs* r, const Instruction* ins) noexcept nogil:
    return r.ahead and ins.kind == DENSE and ins.reads_data


cdef inline bint reads_entries(const SweepArgs* r, const Instruction* ins) noexcept nogil:
    return ins.kind == DENSE and ins.reads_data and (r.ahead or r.entries_at >= 0)


cdef inline int64_t sums_stride(const SweepArgs* r, const Instruction* ins) noexcept nogil:
    return r.n_tiles * LANES * PANEL if is_ahead(r, ins) else LANES * PANEL


cdef inline float* ahead_at(const SweepArgs* r, const Instruction* ins, int64_t tile) noexcept nogil:
    return r.sums + (ins.transposed * r.n_tiles + tile * LANES * PANEL)


cdef inline float* sums_of(const SweepArgs* r, const Instruction* ins, const Tile* tile) noexcept nogil:
    """Sums of a tile, [half][panel][lane][neuron], panels `sums_stride` floats apart."""
    if is_ahead(r, ins):
        return ahead_at(r, ins, tile.number if r.n_units else tile.place)
    return memory_of(r, tile) + ins.transposed


cdef inline bint shares_deltas(const SweepArgs* r, const Instruction* ins, int64_t step) noexcept nogil:
    return is_ahead(r, ins) and not sweeps_alone(r, step)


cdef inline int64_t deltas_stride(const SweepArgs* r, const Instruction* ins, int64_t step) noexcept nogil:
    return sums_stride(r, ins) if shares_deltas(r, ins, step) else LANES * PANEL


cdef inline int64_t copies_of_deltas(const SweepArgs* r, const Instruction* ins, int64_t step) noexcept nogil:
    """How many copies of its deltas a tile has: one for each half of the columns, where workers share out the halves."""
    return ins.halves if r.n_workers > 1 and shares_deltas(r, ins, step) else 1


cdef inline int64_t copy_for(const SweepArgs* r, const Instruction* ins, int64_t step, int64_t column) noexcept nogil:
    """Which copy a worker reads that sums the gradients of a column."""
    return 1 if copies_of_deltas(r, ins, step) == 2 and column // RUN >= middle(runs_of(ins.arity)) else 0


cdef inline float* deltas_of(const SweepArgs* r, const Instruction* ins, int64_t step, int64_t place, int64_t copy) noexcept nogil:
    """Transposed deltas of the tile whose memory has number `place`, panels `deltas_stride` floats apart.

    They take the place of its sums, each copy that of the sums of a half: the worker that is done with the deltas of a panel
    writes its sums of the next step there. So a line is usually written by the core that has read it last. Such a store is
    faster (seen on an EPYC) than one by the core that wrote the line before, which must first win back what others have read.

    In a step that every worker sweeps, deltas are in the tile's own memory.
    """
    if shares_deltas(r, ins, step):
        return ahead_at(r, ins, place) + copy * panels_of(ins.size) * deltas_stride(r, ins, step)
    return r.tiles + (place * r.tile_stride + ins.transposed)


cdef inline int64_t groups_in(const SweepArgs* r, int64_t step) noexcept nogil:
    return (examples_in(r, step) + GROUP - 1) // GROUP


cdef inline Entries tile_entries(const SweepArgs* r, int64_t place) noexcept nogil:
    return entries_at(r.tiles + place * r.tile_stride + r.entries_at, r.n_inputs, LANES)


cdef inline Entries group_entries(const SweepArgs* r, const Worker* w, int64_t step, int64_t group) noexcept nogil:
    # Two sets: those of one step are still read while those of the next are made.
    cdef int64_t groups = (r.n_tiles + GROUP_TILES - 1) // GROUP_TILES
    return entries_at(w.scratch + r.lists_at + ((step & 1) * groups + group) * r.list_floats, r.n_inputs, GROUP)


cdef void list_group(
    const SweepArgs* r, int64_t step, int64_t group, int64_t first_run, int64_t last_run, const Entries* e,
) noexcept nogil:
    cdef int64_t row[GROUP]
    cdef int64_t first = r.step_first[step] + group * GROUP, n = smaller(GROUP, r.step_size[step] - group * GROUP), i
    for i in range(n):
        row[i] = first + i if r.order == NULL else r.order[first + i]
    find_entries(r.bytes, r.floats, r.columns, r.n_inputs, first_run, last_run, row, n, e)


cdef int64_t quarter_begin(int64_t runs, int64_t part) noexcept nogil:
    """The first run of a part: each half of the columns has two, of whole blocks except the last of a half."""
    cdef int64_t cut = middle(runs), begin = cut if part >= 2 else 0, end = runs if part >= 2 else cut
    return runs if part == COLUMN_QUARTERS else begin + part % 2 * ((end - begin) // 2 // BLOCK_RUNS * BLOCK_RUNS)


cdef int64_t list_step(const SweepArgs* r, int64_t step, int64_t first, int64_t last, int64_t most, Worker* w) noexcept nogil:
    """List those entries of a step that are not listed yet, in the parts that hold the columns `first` to `last`.

    At most `most` parts; returns how many.
    """
    cdef Entries e
    cdef int64_t runs = runs_of(r.n_inputs), done = 0, part, begin, end, group
    for part in range(COLUMN_QUARTERS if groups_in(r, step) else 0):
        begin, end = quarter_begin(runs, part), quarter_begin(runs, part + 1)
        if w.listed[step & 1][part] != step and done < most and begin * RUN < last and end * RUN > first and begin < end:
            for group in range(groups_in(r, step)):
                e = group_entries(r, w, step, group)
                list_group(r, step, group, begin, end, &e)
            w.listed[step & 1][part] = step
            done = done + 1
    return done


cdef void list_meanwhile(const SweepArgs* r, int64_t step, int64_t most, Worker* w) noexcept nogil:
    """List what a worker's own units will need at a step, at most `most` parts."""
    cdef int64_t unit = w.number
    while unit < r.n_units:
        if r.units[unit].part == WHOLE:
            most = most - list_step(r, step, r.units[unit].first, r.units[unit].last, most, w)
        unit = unit + r.n_workers


cdef void win_back(const SweepArgs* r, const Worker* w) noexcept nogil:
    """Prefetch the first weights of a worker's own units, to be written.

    They follow weights of other workers, whose hardware prefetchers seem to read past the end of these at each pass: stores to
    the first lines of a unit waited as if another core had them, for 0.7 us of a step of 784-32-10 at batch 8.
    """
    cdef const Unit* own
    cdef const Instruction* ins
    cdef int64_t unit = w.number, panel, at, n
    while unit < r.n_units:
        own = r.units + unit
        ins = r.program + own.instruction
        n = smaller(READ_ON, own.last - own.first) * PANEL
        for panel in range(own.panels if own.part == WHOLE else 0):
            # Whole panels of one unit are contiguous: only the first needs this.
            if panel == 0 or own.last - own.first < ins.arity:
                at = ins.weights + ((own.panel + panel) * ins.arity + own.first) * PANEL
                prefetch_to_write(r.optimizer.parameters + at, n)
                if r.optimizer.first != NULL:
                    prefetch_to_write(r.optimizer.first + at, n)
                if r.optimizer.second != NULL:
                    prefetch_to_write(r.optimizer.second + at, n)
        unit = unit + r.n_workers


cdef void fetch_from_others(const SweepArgs* r, int64_t step, bint of_tiles, const Worker* w) noexcept nogil:
    """Prefetch what other workers have just written and this one's share of a phase reads.

    For its tiles, sums of others' units; for its units, deltas of others' tiles, which stand in the same places. Loads wait for
    lines that another core has changed, a few at a time; prefetched into the L2 cache, more of them come at once, and no load
    waits. (Not in steps swept alone: as their gate opens, every sum is read at once.)
    """
    cdef const Unit* unit
    cdef const Instruction* ins
    cdef const float* panels
    cdef int64_t left = MOST_FETCHED, i, tile, n, panel
    for i in range(r.n_units):
        unit = r.units + i
        ins = r.program + unit.instruction
        if unit.part != WHOLE or (i % r.n_workers == w.number) == of_tiles:
            continue
        if fixed_of(r, unit) == ENTIRELY and not of_tiles:
            continue    # it reads no deltas
        for tile in range(tiles_of(r, step)):
            if (tile // r.at_once % r.n_workers == w.number) != of_tiles:
                continue
            panels = deltas_of(r, ins, step, tile, copy_for(r, ins, step, unit.first))
            n = smaller(LANES, r.step_size[step] - tile * LANES) * PANEL
            for panel in range(unit.panel, unit.panel + unit.panels):
                prefetch_lines(panels + panel * sums_stride(r, ins), n)
                left = left - n
                if left <= 0:
                    return


cdef Fetch fetch_of(
    const SweepArgs* r, int64_t first, int64_t n, int64_t first_column, int64_t last_column, int64_t runs,
) noexcept nogil:
    """How to fetch some columns of n examples, spread over `runs` runs at most."""
    cdef Fetch f
    cdef int64_t size = 1 if r.bytes != NULL else 4
    f.data = <const char*>r.bytes if r.bytes != NULL else <const char*>r.floats
    f.row = r.order + first if r.order != NULL else NULL
    f.first = 0 if r.order != NULL else first
    f.last = f.first + n
    f.example = f.first
    f.stride = r.columns * size
    f.line = first_column * size
    f.end = last_column * size
    f.at_once = (n * ((f.end - f.line + 63) // 64) + runs - 1) // runs
    if 0 < f.at_once < FETCH_AT_ONCE:
        f.at_once = FETCH_AT_ONCE
    return f


cdef void sum_runs(
    const SweepArgs* r, const Instruction* ins, const Entries* e, int64_t n, int64_t first, int64_t last, const float* weights,
    int64_t panels, Fetch* fetch, float* sums,
) noexcept nogil:
    """Sums of some panels over the entries of n examples in the runs `first` to `last`: whole halves, or all."""
    cdef int64_t stride = sums_stride(r, ins), cut = middle(runs_of(ins.arity)) if ins.halves == 2 else last
    if first < cut:
        runs_forward(e, ins.arity, first, smaller(cut, last), n, weights, panels, fetch, sums, stride)
    if cut < last:
        runs_forward(e, ins.arity, cut, last, n, weights, panels, fetch, sums + panels_of(ins.size) * stride, stride)


cdef void sum_ahead(SweepArgs* r, int64_t step, const Unit* unit, Worker* w, Fetch* fetch) noexcept nogil:
    """Sums of a unit's neurons over its columns, for all tiles of a step."""
    cdef const Instruction* ins = r.program + unit.instruction
    cdef int64_t group
    cdef Entries e
    list_step(r, step, unit.first, unit.last, COLUMN_QUARTERS, w)
    for group in range(groups_in(r, step)):
        e = group_entries(r, w, step, group)
        sum_runs(r, ins, &e, smaller(GROUP, r.step_size[step] - group * GROUP), unit.first // RUN, runs_of(unit.last),
                 r.optimizer.parameters + ins.weights + unit.panel * ins.arity * PANEL, unit.panels, fetch,
                 ahead_at(r, ins, group * GROUP_TILES) + unit.panel * sums_stride(r, ins))


cdef void sum_group(SweepArgs* r, int64_t step, int64_t group, Worker* w) noexcept nogil:
    """Without units, the worker that takes a group of tiles makes its sums, in memory of its own."""
    cdef const Instruction* ins
    cdef int64_t i
    cdef Entries e = group_entries(r, w, 0, 0)
    list_group(r, step, group, 0, runs_of(r.n_inputs), &e)
    for i in range(r.n_instructions):
        ins = r.program + i
        if is_ahead(r, ins):
            sum_runs(r, ins, &e, smaller(GROUP, r.step_size[step] - group * GROUP), 0, runs_of(ins.arity),
                     r.optimizer.parameters + ins.weights, panels_of(ins.size), NULL,
                     ahead_at(r, ins, w.number * GROUP_TILES))
