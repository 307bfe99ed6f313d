# Sums made ahead. A dense block that reads entries is divided among workers by neurons or, if its
# neurons are few, by columns. The worker that has updated some of its weights at once makes the
# sums that the next step needs from them. No weight therefore moves from one core's cache to
# another's; only sums and deltas do, which are few in comparison.
#
# If neurons are few, the columns have two halves. Their sums are made separately and then added,
# whichever workers make them. A worker then lists the entries of its half only, and panels stay
# together: their kernel costs little more than for one panel.
#
#   tiles of step s  |  units of step s, sums of step s + 1  |  tiles of step s + 1  |  ...
#
# Each worker lists the entries that its units need, by groups of tiles and halves of the columns.

cdef inline bint is_ahead(const Request* r, const Instruction* ins) noexcept nogil:
    return r.choice.ahead and ins.kind == DENSE and ins.reads_data


cdef inline bint reads_entries(const Request* r, const Instruction* ins) noexcept nogil:
    return ins.kind == DENSE and ins.reads_data and (r.choice.ahead or r.memory.entries_at >= 0)


cdef inline int64_t sums_stride(const Request* r, const Instruction* ins) noexcept nogil:
    return r.memory.n_tiles * LANES * PANEL if is_ahead(r, ins) else LANES * PANEL


cdef inline float* ahead_at(const Request* r, const Instruction* ins, int64_t tile) noexcept nogil:
    return r.memory.sums + (ins.transposed * r.memory.n_tiles + tile * LANES * PANEL)


cdef inline float* sums_of(const Request* r, const Instruction* ins, const Tile* tile) noexcept nogil:
    """Sums of a tile, [half][panel][lane][neuron], panels `sums_stride` floats apart."""
    if is_ahead(r, ins):
        return ahead_at(r, ins, tile.number if r.tables.n_units else tile.place)
    return memory_of(r, tile) + ins.transposed


cdef inline int64_t copies_of_deltas(const Request* r, const Instruction* ins) noexcept nogil:
    """Number of copies of a tile's deltas: one for each half of the columns, where workers share the halves."""
    return ins.halves if r.choice.n_workers > 1 and is_ahead(r, ins) else 1


cdef inline int64_t copy_for(const Request* r, const Instruction* ins, int64_t column) noexcept nogil:
    """The copy that a worker reads to sum the gradient of a column."""
    return 1 if copies_of_deltas(r, ins) == 2 and column // RUN >= middle(runs_of(ins.arity)) else 0


cdef inline float* deltas_of(const Request* r, const Instruction* ins, int64_t place, int64_t copy) noexcept nogil:
    """Transposed deltas of the tile whose memory has number `place`, panels `sums_stride` floats apart.

    They overwrite the tile's sums, and each copy those of one half. The worker that has read the deltas of a panel
    writes its sums for the next step there, so a cache line is usually written by the core that last read it. On an
    EPYC such a store is faster than one by the core that last wrote the line, which must first fetch it back from
    the cores that have read it.
    """
    if is_ahead(r, ins):
        return ahead_at(r, ins, place) + copy * panels_of(ins.size) * sums_stride(r, ins)
    return r.memory.tiles + (place * r.memory.tile_stride + ins.transposed)


cdef inline int64_t groups_in(const Request* r, int64_t step) noexcept nogil:
    return (examples_in(&r.steps, step) + GROUP - 1) // GROUP


cdef inline Entries tile_entries(const Request* r, int64_t place) noexcept nogil:
    return entries_at(r.memory.tiles + place * r.memory.tile_stride + r.memory.entries_at, r.tables.n_inputs, LANES)


cdef inline Entries group_entries(const Request* r, const Worker* w, int64_t step, int64_t group) noexcept nogil:
    # There are two sets, because the entries of one step are still read while those of the next are listed.
    cdef int64_t groups = groups_of_tiles(r.memory.n_tiles)
    return entries_at(w.scratch + r.memory.lists_at + ((step & 1) * groups + group) * r.memory.list_floats,
                      r.tables.n_inputs, GROUP)


cdef void list_group(
    const Request* r, int64_t step, int64_t group, int64_t first_run, int64_t last_run, const Entries* e,
) noexcept nogil:
    cdef int64_t row[GROUP]
    cdef int64_t first = r.steps.first[step] + group * GROUP, n = smaller(GROUP, r.steps.size[step] - group * GROUP), i
    for i in range(n):
        row[i] = first + i if r.steps.order == NULL else r.steps.order[first + i]
    find_entries(r.data.bytes, r.data.floats, r.data.columns, r.tables.n_inputs, first_run, last_run, row, n, e)


cdef void list_step(const Request* r, int64_t step, int64_t first, int64_t last, Worker* w) noexcept nogil:
    """List the entries of a step in the halves that hold the columns `first` to `last`, if not listed yet."""
    cdef Entries e
    cdef int64_t runs = runs_of(r.tables.n_inputs), cut = middle(runs), half, begin, end, group
    for half in range(2):
        begin, end = cut if half else 0, runs if half else cut
        if w.listed[step & 1][half] != step and begin * RUN < last and end * RUN > first:
            for group in range(groups_in(r, step)):
                e = group_entries(r, w, step, group)
                list_group(r, step, group, begin, end, &e)
            w.listed[step & 1][half] = step


cdef void list_for_own_units(const Request* r, int64_t step, Worker* w) noexcept nogil:
    """List the entries of a step that a worker's own units need, before the gate at which it may wait for others."""
    cdef int64_t unit = w.number
    while unit < r.tables.n_units:
        if r.tables.units[unit].part == WHOLE:
            list_step(r, step, r.tables.units[unit].first, r.tables.units[unit].last, w)
        unit = unit + r.choice.n_workers


cdef Fetch fetch_of(
    const Request* r, int64_t first, int64_t n, int64_t first_column, int64_t last_column, int64_t runs,
) noexcept nogil:
    """Plan the prefetches of some columns of n examples, spread over at most `runs` runs."""
    cdef Fetch f
    cdef int64_t size = 1 if r.data.bytes != NULL else 4
    f.data = <const char*>r.data.bytes if r.data.bytes != NULL else <const char*>r.data.floats
    f.row = r.steps.order + first if r.steps.order != NULL else NULL
    f.first = 0 if r.steps.order != NULL else first
    f.last = f.first + n
    f.example = f.first
    f.stride = r.data.columns * size
    f.line = first_column * size
    f.end = last_column * size
    f.at_once = (n * ((f.end - f.line + 63) // 64) + runs - 1) // runs
    if 0 < f.at_once < FETCH_AT_ONCE:
        f.at_once = FETCH_AT_ONCE
    return f


cdef void sum_runs(
    const Request* r, const Instruction* ins, const Entries* e, int64_t n, int64_t first, int64_t last, const float* weights,
    int64_t panels, Fetch* fetch, float* sums,
) noexcept nogil:
    """Sum some panels over the entries of n examples in the runs `first` to `last`, which are whole halves or all."""
    cdef int64_t stride = sums_stride(r, ins), cut = middle(runs_of(ins.arity)) if ins.halves == 2 else last
    if first < cut:
        runs_forward(e, ins.arity, first, smaller(cut, last), n, weights, panels, fetch, sums, stride)
    if cut < last:
        runs_forward(e, ins.arity, cut, last, n, weights, panels, fetch, sums + panels_of(ins.size) * stride, stride)


cdef void sum_ahead(const Request* r, int64_t step, const Unit* unit, Worker* w, Fetch* fetch) noexcept nogil:
    """Sum a unit's neurons over its columns, for all tiles of a step."""
    cdef const Instruction* ins = r.tables.instructions + unit.instruction
    cdef int64_t group
    cdef Entries e
    list_step(r, step, unit.first, unit.last, w)
    for group in range(groups_in(r, step)):
        e = group_entries(r, w, step, group)
        sum_runs(r, ins, &e, smaller(GROUP, r.steps.size[step] - group * GROUP), unit.first // RUN, runs_of(unit.last),
                 r.optimizer.parameters + ins.weights + unit.panel * ins.arity * PANEL, unit.panels, fetch,
                 ahead_at(r, ins, group * GROUP_TILES) + unit.panel * sums_stride(r, ins))


cdef void sum_group(const Request* r, int64_t step, int64_t group, Worker* w) noexcept nogil:
    """Make the sums of a group of tiles in the worker's own memory, where there are no units to make them."""
    cdef const Instruction* ins
    cdef int64_t i
    cdef Entries e = group_entries(r, w, 0, 0)
    list_group(r, step, group, 0, runs_of(r.tables.n_inputs), &e)
    for i in range(r.tables.n_instructions):
        ins = r.tables.instructions + i
        if is_ahead(r, ins):
            sum_runs(r, ins, &e, smaller(GROUP, r.steps.size[step] - group * GROUP), 0, runs_of(ins.arity),
                     r.optimizer.parameters + ins.weights, panels_of(ins.size), NULL,
                     ahead_at(r, ins, w.number * GROUP_TILES))
