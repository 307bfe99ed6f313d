# The queue: a phase of a step is a number of items; each worker has a share of them, and takes from others' when its own is
# done. A worker keeps its share from step to step, so that what it last wrote is still in its cache.

cdef extern from *:
    """
    static inline int take_if(int64_t *counter, int64_t *seen, int64_t then) {
        return __atomic_compare_exchange_n(counter, seen, then, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
    static inline int64_t load_acquire(int64_t *counter) { return __atomic_load_n(counter, __ATOMIC_ACQUIRE); }

    #include <sched.h>

    /* Items done; alone in its line of the cache. */
    typedef struct { int64_t done, stop; } Gate;

    /* Workers come through a gate together, and what the owner of a share last wrote is in its cache: whoever would take from
       it leaves the owner a moment to begin: 0.2 us on a Xeon, less where there is no instruction to pause. */
    static void let_begin(int64_t *taken, int64_t phase) {
        for (int spins = 0; spins < 16 && load_acquire(taken) >> 32 < phase; spins++)
    #if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
    #else
            ;
    #endif
    }

    static inline void item_done(Gate *g) { __atomic_fetch_add(&g->done, 1, __ATOMIC_RELEASE); }
    /* Several workers may find the same step bad, each for itself. Nothing is swept beyond it, so all write one number. */
    static inline void stop_at(Gate *g, int64_t *bad, int64_t step) {
        __atomic_store_n(bad, step, __ATOMIC_RELAXED);
        __atomic_store_n(&g->stop, 1, __ATOMIC_RELEASE);
    }

    /* Wait until so many items are done; 0 if the run has stopped. To sleep would be no better, beside a busy process too. */
    static int pass(Gate *g, int64_t all) {
        for (unsigned spins = 1; load_acquire(&g->done) < all; spins++) {
            if (load_acquire(&g->stop)) return 0;
            if (spins % 64 == 0) sched_yield();
    #if defined(__x86_64__) || defined(__i386__)
            else __builtin_ia32_pause();
    #endif
        }
        return 1;
    }
    """
    ctypedef struct Gate:
        int64_t done
        int64_t stop
    bint take_if(int64_t*, int64_t*, int64_t) noexcept nogil
    int64_t load_acquire(int64_t*) noexcept nogil
    void let_begin(int64_t*, int64_t) noexcept nogil
    void item_done(Gate*) noexcept nogil
    void stop_at(Gate*, int64_t*, int64_t) noexcept nogil
    bint pass_gate "pass"(Gate*, int64_t) noexcept nogil


cdef int64_t take(int64_t* taken, int64_t phase) noexcept nogil:
    """How many items of a share had been taken in this phase before; one more is now. -1 if that phase is over."""
    # `taken` is the phase and that number in one. Whoever comes first in a new phase begins it, the share's owner or not.
    cdef int64_t seen = load_acquire(taken)
    while seen >> 32 <= phase:
        if take_if(taken, &seen, (seen if seen >> 32 == phase else phase << 32) + 1):
            return seen - (phase << 32) if seen >> 32 == phase else 0
    return -1


cdef void work(Run* r, int64_t number, int64_t workers) noexcept nogil:
    """Go through the phases of all steps: the tiles of a step, then its units.

    Where sums are made ahead there is a step -1, which only makes those of the first.
    """
    cdef Worker w
    cdef int64_t step, phase = 0, start = 0, count, share, item, i
    cdef bint good
    cdef int tiles
    w.number, w.scratch = number, r.scratch + number * r.scratch_stride
    w.swept = w.asked[0] = w.asked[1] = -2
    for i in range(LIST_PARTS):
        w.listed[0][i] = w.listed[1][i] = -2
    for step in range(-1 if r.ahead and r.n_units else 0, r.n_steps):
        for tiles in range(1, -1, -1):
            count = items_of(r, step) if tiles else r.n_units
            phase = phase + 1
            # All items before are done. Nothing is taken while waiting, so that a worker that the system puts aside then
            # holds up nobody.
            if not pass_gate(r.gate, start):
                return
            start = start + count
            for i in range(number, number + workers):
                share = i % workers
                if share != number:
                    let_begin(r.taken + share * TAKEN_STRIDE, phase)
                item = take(r.taken + share * TAKEN_STRIDE, phase) * workers + share
                if r.ahead and tiles and share == number and workers > 1:
                    win_back(r, workers, &w)
                while 0 <= item < count:
                    if load_acquire(&r.gate.stop):
                        return
                    good = sweep_item(r, step, item, &w) if tiles else step_unit(r, step, r.units + item, &w)
                    if not good and r.training:
                        stop_at(r.gate, &r.bad_step, step)
                    item_done(r.gate)
                    item = take(r.taken + share * TAKEN_STRIDE, phase) * workers + share
            if r.ahead and load_acquire(&r.gate.done) < start:
                list_meanwhile(r, step + 1 if tiles else step + 2, LIST_PARTS if tiles else 1, workers, &w)
    # OpenMP's own barrier comes next, and spins without yielding: whoever is done waits here until all are. With fewer threads
    # than workers some begin only when this one has returned.
    item_done(r.gate)
    if omp_get_num_threads() == workers:
        pass_gate(r.gate, start + workers)
