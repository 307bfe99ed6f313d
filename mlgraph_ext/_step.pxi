# How steps run. This page is the whole order of events; schedule.h has the gate and the sharing.
#
#   for each step:   tiles (load, forward, loss, backward)   gate   units (gradient, update)   gate
#
# Each iteration of the `prange` is a worker: it takes tiles, and then units, until none is left. One
# parallel region serves all steps of a call, because OpenMP's barrier between phases would cost more
# than the phases of a small step, and would wait for threads that are suspended.

cdef void run_steps(Request* r) noexcept:
    """Run all steps of a request on the team (_team.pxi)."""
    cdef int worker, workers = <int>r.choice.n_workers
    if workers == 1:
        with nogil:
            work(r, 0)    # avoids OpenMP's 0.9 us, of 12 us for one example (`bench -k predict`)
    else:
        for worker in prange(workers, nogil=True, num_threads=team, schedule="static", chunksize=1):
            work(r, worker)


cdef void work(Request* r, int64_t number) noexcept nogil:
    """Work through all steps, together with the other workers, until the last or one that stops the run."""
    cdef Worker w = new_worker(r, number)
    cdef Schedule* s = &r.schedule
    # If sums are made ahead, step -1 makes only the sums of the first step.
    cdef int64_t step = -1 if r.choice.ahead and r.tables.n_units else 0, item
    while step < r.steps.n:
        if not begin_phase(s, &w.turn, items_of(r, step), 0):
            break
        item = next_item(s, &w.turn)
        while item >= 0:
            if not sweep_item(r, step, item, &w) and stops(r):
                stop_at(s, step)
            item = next_item(s, &w.turn)
        if r.choice.ahead:
            list_for_own_units(r, step + 1, &w)
        # Ownership rotates: writing a line is cheaper on the core that last read it (`deltas_of`). Where sums are made ahead,
        # units stay, because each worker lists the columns of its own units.
        if not begin_phase(s, &w.turn, r.tables.n_units, 0 if r.choice.ahead else step):
            break
        item = next_item(s, &w.turn)
        while item >= 0:
            if not step_unit(r, step, r.tables.units + item, &w) and stops(r):
                stop_at(s, step)
            item = next_item(s, &w.turn)
        step = step + 1
    # With fewer threads than workers, some workers begin only when this one has returned.
    if omp_get_num_threads() >= r.choice.n_workers:
        leave(s, &w.turn)
