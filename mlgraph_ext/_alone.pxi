# Sweeps alone. Where sums are made ahead (_ahead.pxi) and a step has one tile, every worker sweeps
# this tile in its own memory, from the same sums to the same bits. A single worker would take as
# long. This way no delta moves from one core to another, and a step has one gate instead of two.
#
#   the tile of step s  |
#   the tile of step s  |  units of step s, sums of step s + 1  ||  the tile of step s + 1  |  ...
#
# The parameters and sums that sweeps read may change only when no worker is sweeping any more.
# Usually all have swept the step before one is about to change them. If not, that worker closes the
# step and waits for those that are sweeping it. A worker that arrives later does not sweep the
# step, takes none of its units, and delays nobody.
#
# Losses, and whether answers are right, go to shared memory; every sweep writes the same values
# there (_losses.pxi).

cdef extern from *:
    """
    /* `swept` is 2 * step + 1 while a worker sweeps a step, and 2 * step + 2 once it has swept the step or has
       decided not to. It never sweeps that step again. Each side writes first and then reads what the other writes,
       and these four accesses have one order. So either the closing worker sees that the other has begun, or the
       other sees that the step is closed. */
    static int begin_sweep(Gate *g, Told *own, int64_t step) {
        __atomic_exchange_n(&own->swept, 2 * step + 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&g->open, __ATOMIC_SEQ_CST) <= step) return 1;
        __atomic_store_n(&own->swept, 2 * step + 2, __ATOMIC_RELEASE);
        return 0;
    }
    static inline void end_sweep(Told *own, int64_t step) { __atomic_store_n(&own->swept, 2 * step + 2, __ATOMIC_RELEASE); }
    static void close_step(Gate *g, Told *all, int64_t workers, int64_t step) {
        int64_t i = 0;
        while (i < workers && load_acquire(&all[i].swept) > 2 * step + 1) i++;
        if (i == workers) return;  /* the usual case: all have swept it or decided not to */
        if (__atomic_load_n(&g->open, __ATOMIC_SEQ_CST) <= step) __atomic_exchange_n(&g->open, step + 1, __ATOMIC_SEQ_CST);
        for (; i < workers; i++)
            for (unsigned times = 1; __atomic_load_n(&all[i].swept, __ATOMIC_SEQ_CST) == 2 * step + 1; times++)
                wait_a_little(times);
    }
    """
    bint begin_sweep(Gate*, Told*, int64_t) noexcept nogil
    void end_sweep(Told*, int64_t) noexcept nogil
    void close_step(Gate*, Told*, int64_t, int64_t) noexcept nogil


cdef inline bint sweeps_alone(const SweepArgs* r, int64_t step) noexcept nogil:
    return r.alone and tiles_of(r, step) == 1


cdef inline int64_t first_place(const SweepArgs* r, int64_t step, const Worker* w) noexcept nogil:
    """Number of the tile memory in which a worker that sums gradients finds the first tile of a step."""
    return w.number if sweeps_alone(r, step) else 0


cdef inline void wait_for_sweeps(const SweepArgs* r, int64_t step, Worker* w) noexcept nogil:
    """Wait until no worker is sweeping this step. The caller is about to change data that sweeps read."""
    if sweeps_alone(r, step) and w.closed != step:
        close_step(r.gate, r.told, r.n_workers, step)
        w.closed = step
