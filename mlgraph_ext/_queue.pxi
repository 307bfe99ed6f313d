# The queue: items are numbered through all steps, and whoever asks t-th takes item t.

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
