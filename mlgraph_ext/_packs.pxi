# Packs. A pack is as many tiles as the kernels of rows process side by side. Gradients are summed
# over one pack at a time, and the sums of packs are added in order, whichever workers make them.
#
# If rows have few edges, the worker that has swept a pack sums its gradients at once, and units
# only add and update. Values and adjoints then stay in one core's cache, where the next step
# overwrites them, and only one float per edge moves to another core. If there are many edges per
# slot, units sum, and values and adjoints move instead.

cdef void sum_pack(const Request* r, int64_t step, int64_t pack, const Worker* w) noexcept nogil:
    """Sum the gradients of all rows over a pack of tiles."""
    cdef const Instruction* ins
    cdef float* sums = r.memory.pack_sums + pack * r.memory.pack_stride
    cdef int64_t first = pack * PACK, tiles = smaller(PACK, tiles_of(&r.steps, step) - first), i
    cdef Unit unit
    cdef unsigned int numbers = flush_subnormals(r.steps.training)
    memset(&unit, 0, sizeof(Unit))
    for i in range(r.tables.n_instructions):
        ins = r.tables.instructions + i
        if ins.kind == ROWS and learns_itself(r, ins):
            unit.instruction, unit.part, unit.last = i, 0, ins.size
            unit_gradient(r, step, &unit, first, tiles, sums + (ins.weights - r.memory.first_row), w, NULL, NULL)
            if ins.bias >= 0:
                unit.part = 1
                unit_gradient(r, step, &unit, first, tiles, sums + (ins.bias - r.memory.first_row), w, NULL, NULL)
    restore_numbers(numbers)


cdef void add_packs(const Request* r, int64_t tile, int64_t tiles, int64_t at, int64_t n, float* g) noexcept nogil:
    """Add up the gradient of n parameters from `at` on over `tiles` tiles from `tile` on, where a pack begins."""
    cdef const float* sums = r.memory.pack_sums + (tile // PACK * r.memory.pack_stride + at - r.memory.first_row)
    cdef int64_t pack, i
    memcpy(g, sums, n * sizeof(float))
    for pack in range(1, (tiles + PACK - 1) // PACK):
        sums = sums + r.memory.pack_stride
        for i in range(n):
            g[i] = g[i] + sums[i]
