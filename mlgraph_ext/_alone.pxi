# Sweeps alone. Where sums are made ahead (_ahead.pxi), and a step has one tile, every worker sweeps it, in memory of its own,
# from the same sums to the same bits. One of them would sweep it no sooner; and so no delta goes from one core to another, and
# a step has one gate, not two.
#
#   the tile of step s  |
#   the tile of step s  |  units of step s, sums of step s + 1  ||  the tile of step s + 1  |  ...
#
# Parameters that a sweep reads, and sums, may change only when nobody sweeps any more: whoever is about to change them closes
# the step, and waits for those that are sweeping it. Who comes later does not sweep it, takes none of its units, and holds up
# nobody.
#
# What a sweep writes that is not the worker's own, losses and whether they are right, each writes, the same (_losses.pxi).

cdef extern from *:
    """
    #include <sched.h>

    /* To sleep would be no better, beside a busy process too. */
    static inline void wait_a_little(unsigned times) {
        if (times % 64 == 0) sched_yield();
    #if defined(__x86_64__) || defined(__i386__)
        else __builtin_ia32_pause();
    #endif
    }

    /* Items done; whether the run has stopped; the first step that a worker may still begin to sweep. A line of the cache. */
    typedef struct { int64_t done, stop, open; } Gate;
    /* The step that a worker sweeps, or -1; a line, too. */
    typedef struct { int64_t step, line[7]; } Sweeping;

    /* Either the worker that closes the step sees that this one has begun, or this one sees that it is closed: each writes,
       and then reads what the other writes, in one order for all. */
    static int begin_sweep(Gate *g, Sweeping *own, int64_t step) {
        __atomic_exchange_n(&own->step, step, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&g->open, __ATOMIC_SEQ_CST) <= step) return 1;
        __atomic_store_n(&own->step, -1, __ATOMIC_RELEASE);
        return 0;
    }
    static inline void end_sweep(Sweeping *own) { __atomic_store_n(&own->step, -1, __ATOMIC_RELEASE); }
    static void close_step(Gate *g, Sweeping *all, int64_t workers, int64_t step) {
        if (__atomic_load_n(&g->open, __ATOMIC_SEQ_CST) <= step) __atomic_exchange_n(&g->open, step + 1, __ATOMIC_SEQ_CST);
        for (int64_t i = 0; i < workers; i++)
            for (unsigned times = 1; __atomic_load_n(&all[i].step, __ATOMIC_SEQ_CST) == step; times++) wait_a_little(times);
    }
    """
    ctypedef struct Gate:
        int64_t done
        int64_t stop
        int64_t open
    ctypedef struct Sweeping:
        int64_t step
    bint begin_sweep(Gate*, Sweeping*, int64_t) noexcept nogil
    void end_sweep(Sweeping*) noexcept nogil
    void close_step(Gate*, Sweeping*, int64_t, int64_t) noexcept nogil


cdef inline bint sweeps_alone(const Run* r, int64_t step) noexcept nogil:
    return r.alone and tiles_of(r, step) == 1


cdef inline int64_t first_place(const Run* r, int64_t step, const Worker* w) noexcept nogil:
    """The memory of the first tile of a step, where a worker that sums gradients finds it."""
    return w.number if sweeps_alone(r, step) else 0


cdef inline void wait_for_sweeps(const Run* r, int64_t step, Worker* w) noexcept nogil:
    """Come back when no worker sweeps this step any more: what sweeps read is about to change."""
    if sweeps_alone(r, step) and w.closed != step:
        close_step(r.gate, r.sweeping, r.n_workers, step)
        w.closed = step
