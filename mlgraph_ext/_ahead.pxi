# Sums made ahead. A dense block that reads entries is shared out by neurons: whoever has updated some panels of its weights
# makes their sums for the next step there and then. So no weight goes from one core's cache to another's, and what does,
# sums and deltas, is little beside them. It takes entries that are listed before: those of the next step, while the tiles
# of this one are swept, by groups of tiles and blocks of columns.
#
#   tiles of step s, entries of step s + 1  |  units of step s, sums of step s + 1  |  tiles of step s + 1, ...

cdef inline float data_unit(const Run* r) noexcept nogil:
    # What bytes that are read as byte / 256 have to be multiplied by.
    return 256 * r.scale[1] if r.bytes != NULL else <float>1


cdef inline int64_t panels_of(int64_t count) noexcept nogil:
    return (count + PANEL - 1) // PANEL


cdef inline bint is_ahead(const Run* r, const Instruction* ins) noexcept nogil:
    return r.ahead and ins.kind == DENSE and ins.reads_data


cdef inline int64_t sums_stride(const Run* r, const Instruction* ins) noexcept nogil:
    return r.n_tiles * LANES * PANEL if is_ahead(r, ins) else LANES * PANEL


cdef inline float* sums_of(const Run* r, const Instruction* ins, int64_t tile) noexcept nogil:
    """Sums of a tile, and after them its transposed deltas: [panel][lane][neuron], panels `sums_stride` floats apart."""
    if is_ahead(r, ins):
        return r.sums + (ins.transposed * r.n_tiles + tile * LANES * PANEL)
    return r.tiles + tile * r.tile_stride + ins.transposed


cdef int64_t examples_of(const Run* r, int64_t step, int64_t tile, int64_t* row) noexcept nogil:
    """Which examples the lanes of a tile are, and how many; lanes past the end repeat the last: they weigh nothing."""
    cdef int64_t first = r.step_first[step] + tile * LANES
    cdef int64_t n = smaller(LANES, r.step_size[step] - tile * LANES)
    cdef int64_t lane
    for lane in range(LANES):
        row[lane] = first + smaller(lane, n - 1)
        if r.order != NULL:
            row[lane] = r.order[row[lane]]
    return n


cdef inline int64_t tiles_of(const Run* r, int64_t step) noexcept nogil:
    return (r.step_size[step] + LANES - 1) // LANES if 0 <= step < r.n_steps else 0


cdef inline int64_t examples_in(const Run* r, int64_t step) noexcept nogil:
    return r.step_size[step] if 0 <= step < r.n_steps else 0


cdef inline Entries tile_entries(const Run* r, int64_t place) noexcept nogil:
    return entries_at(r.tiles + place * r.tile_stride + r.entries_at, r.bytes != NULL, r.n_inputs, LANES)


cdef inline Entries group_entries(const Run* r, int64_t step, int64_t group) noexcept nogil:
    # Those of one step are still read when the next one's are made.
    cdef int64_t groups = (r.n_tiles + GROUP_TILES - 1) // GROUP_TILES
    return entries_at(r.entries + ((step & 1) * groups + group) * r.entries_stride, r.bytes != NULL, r.n_inputs, GROUP)


cdef inline int64_t blocks_each(const Run* r) noexcept nogil:
    # A worker has neighbouring columns, and so the same lines of the cache.
    return (blocks_of(r.n_inputs) + r.n_workers - 1) // r.n_workers


cdef int64_t lists_of(const Run* r, int64_t step) noexcept nogil:
    """Items of `list_ahead` for a step."""
    return (examples_in(r, step) + GROUP - 1) // GROUP * blocks_each(r) * r.n_workers if r.ahead and r.n_units else 0


cdef void list_ahead(Run* r, int64_t step, int64_t item) noexcept nogil:
    """List entries of a group of tiles in a block of columns."""
    cdef int64_t each = blocks_each(r), group = item // (each * r.n_workers), i = item % (each * r.n_workers)
    cdef int64_t block = i % r.n_workers * each + i // r.n_workers, lane
    cdef int64_t first = r.step_first[step] + group * GROUP
    cdef int64_t n = smaller(GROUP, r.step_size[step] - group * GROUP)
    cdef int64_t row[GROUP]
    cdef Entries e = group_entries(r, step, group)
    if block >= blocks_of(r.n_inputs):
        return
    for lane in range(n):
        row[lane] = first + lane if r.order == NULL else r.order[first + lane]
    find_entries(r.bytes, r.floats, r.columns, r.n_inputs, row, n, block, &e)


cdef Fetch fetch_of(const Run* r, int64_t first, int64_t n, int64_t block, int64_t last_block, int64_t runs) noexcept nogil:
    """Have the blocks of columns of n examples fetched, while so many runs are gone through."""
    cdef Fetch f
    cdef int64_t size = 1 if r.bytes != NULL else 4
    f.data = <const char*>r.bytes if r.bytes != NULL else <const char*>r.floats
    f.row = r.order + first if r.order != NULL else NULL
    f.example = 0 if r.order != NULL else first
    f.last = f.example + n
    f.stride = r.columns * size
    f.first_line = block * BLOCK_RUNS * RUN * size
    f.last_line = smaller(last_block * BLOCK_RUNS * RUN, r.n_inputs) * size
    f.line = f.first_line
    f.at_once = (n * ((f.last_line - f.first_line + 63) // 64) + runs - 1) // runs
    if f.last_line <= f.first_line:
        f.last = f.example
    return f


cdef Fetch fetch_after(const Run* r, int64_t step, int64_t worker) noexcept nogil:
    """Have fetched what a worker will list entries of, while it goes twice through all runs of each group; -1: nobody."""
    cdef int64_t n = examples_in(r, step) if worker >= 0 else 0, each = blocks_each(r)
    return fetch_of(r, r.step_first[step] if n else 0, n, worker * each, (worker + 1) * each,
                    2 * runs_of(r.n_inputs) * (1 + n // GROUP))


cdef void sum_ahead(Run* r, int64_t step, const Unit* unit, float* scratch, Fetch* fetch) noexcept nogil:
    """Sums of a unit's neurons for all tiles of a step."""
    cdef const Instruction* ins = r.program + unit.instruction
    cdef const float* weights = r.optimizer.parameters + ins.weights + unit.panel * ins.arity * PANEL
    cdef int64_t stride = sums_stride(r, ins), group
    cdef Entries e
    for group in range((tiles_of(r, step) + GROUP_TILES - 1) // GROUP_TILES):
        e = group_entries(r, step, group)
        runs_forward(&e, r.bytes != NULL, ins.arity, smaller(GROUP, r.step_size[step] - group * GROUP), weights, unit.panels,
                     fetch, sums_of(r, ins, group * GROUP_TILES) + unit.panel * stride, stride, scratch + r.converted_at)


cdef void sum_group(Run* r, int64_t step, int64_t group, int64_t place, float* scratch) noexcept nogil:
    """Without units, whoever takes a group of tiles lists its entries and makes its sums, for the tiles from `place` on."""
    cdef const Instruction* ins
    cdef int64_t row[GROUP]
    cdef int64_t first = r.step_first[step] + group * GROUP, n = smaller(GROUP, r.step_size[step] - group * GROUP), i
    cdef Entries e = group_entries(r, 0, place // GROUP_TILES)
    for i in range(n):
        row[i] = first + i if r.order == NULL else r.order[first + i]
    for i in range(blocks_of(r.n_inputs)):
        find_entries(r.bytes, r.floats, r.columns, r.n_inputs, row, n, i, &e)
    for i in range(r.n_instructions):
        ins = r.program + i
        if is_ahead(r, ins):
            runs_forward(&e, r.bytes != NULL, ins.arity, n, r.optimizer.parameters + ins.weights, panels_of(ins.size), NULL,
                         sums_of(r, ins, place), sums_stride(r, ins), scratch + r.converted_at)
