# The queue. A phase of a step is a number of items. Each worker has a share of them and takes items
# of others when its own are done. Shares are the same at every step, so that the data a worker last
# wrote are still in its cache. Only the shares of the second phase rotate, where no sums are made
# ahead.

cdef extern from *:
    """
    #include <sched.h>

    /* Sleeping would be no better, even if another process is busy. */
    static inline void wait_a_little(unsigned times) {
        if (times % 64 == 0) sched_yield();
    #if defined(__x86_64__) || defined(__i386__)
        else __builtin_ia32_pause();
    #endif
    }

    /* The counters of the shares, the Gate and each worker's Told are two cache lines apart, because a processor that reads a
       line may prefetch its neighbour, too. */

    /* `stop` is one more than the step that stopped the run, or 0. */
    typedef struct { int64_t stop, unused[15]; } Gate;
    /* The report of one worker, which only this worker writes: the number of items it has done, and whether it has left the
       last phase. Adding to one counter of all items would cost a round trip to another core. */
    typedef struct { int64_t done, left, unused[14]; } Told;
    static inline int take_if(int64_t *counter, int64_t *seen, int64_t then) {
        return __atomic_compare_exchange_n(counter, seen, then, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
    static inline int64_t load_acquire(int64_t *counter) { return __atomic_load_n(counter, __ATOMIC_ACQUIRE); }

    static inline void tell_done(Told *own, int64_t items) {
        __atomic_store_n(&own->done, own->done + items, __ATOMIC_RELEASE);
    }
    static int64_t all_done(Told *all, int64_t workers) {
        int64_t sum = 0;
        for (int64_t i = 0; i < workers; i++) sum += load_acquire(&all[i].done);
        return sum;
    }
    /* Several workers may refuse the same step. None goes beyond it, so all write the same number. */
    static inline void stop_at(Gate *g, int64_t step) { __atomic_store_n(&g->stop, step + 1, __ATOMIC_RELEASE); }

    /* Waits until `items` items are done; returns 0 if the run has stopped. */
    static int pass(Gate *g, Told *all, int64_t workers, int64_t items) {
        for (unsigned times = 1; all_done(all, workers) < items; times++) {
            if (load_acquire(&g->stop)) return 0;
            wait_a_little(times);
        }
        return 1;
    }
    /* Waits until all workers have left the last phase or the run has stopped. */
    static void leave(Gate *g, Told *own, Told *all, int64_t workers) {
        __atomic_store_n(&own->left, 1, __ATOMIC_RELEASE);
        for (int64_t i = 0; i < workers; i++)
            for (unsigned times = 1; !load_acquire(&all[i].left) && !load_acquire(&g->stop); times++) wait_a_little(times);
    }
    """
    ctypedef struct Gate:
        int64_t stop
    ctypedef struct Told:
        pass
    bint take_if(int64_t*, int64_t*, int64_t) noexcept nogil
    int64_t load_acquire(int64_t*) noexcept nogil
    void tell_done(Told*, int64_t) noexcept nogil
    int64_t all_done(Told*, int64_t) noexcept nogil
    void stop_at(Gate*, int64_t) noexcept nogil
    bint pass_gate "pass"(Gate*, Told*, int64_t, int64_t) noexcept nogil
    void leave(Gate*, Told*, Told*, int64_t) noexcept nogil


cdef int64_t take(int64_t* taken, int64_t phase, int64_t n) noexcept nogil:
    """Take one of the n items of a share. Returns its number within the share, or -1 if none is left."""
    # `taken` holds the phase (upper 32 bits) and the number of items taken in it. The first worker in a new phase resets it,
    # owner or not. If no item is left, nothing is written, so that the counter stays in the cache of the next reader.
    cdef int64_t seen = load_acquire(taken), before
    while seen >> 32 <= phase:
        before = seen - (phase << 32) if seen >> 32 == phase else 0
        if before >= n:
            return -1
        if take_if(taken, &seen, (phase << 32) + before + 1):
            return before
    return -1


cdef void work(SweepArgs* r, int64_t number) noexcept nogil:
    """Work through the phases of all steps, together with the other workers."""
    cdef Worker w
    cdef int64_t i
    w.number, w.scratch, w.told = number, r.scratch + number * r.scratch_stride, r.told + number
    w.asked[0] = w.asked[1] = -2
    for i in range(2):
        w.listed[0][i] = w.listed[1][i] = -2
    # OpenMP's barrier comes next and spins without yielding, so a worker waits here until all have left. With fewer threads
    # than workers it must not wait: some workers begin only when this one has returned.
    if take_part(r, &w) and omp_get_num_threads() >= r.n_workers:
        leave(r.gate, w.told, r.told, r.n_workers)


cdef bint take_part(SweepArgs* r, Worker* w) noexcept nogil:
    """Work through all steps: the tiles of a step, then its units. False if the run stopped before its last step.

    If sums are made ahead, step -1 makes only the sums of the first step.
    """
    cdef int64_t step, phase = 0, start = 0, workers = r.n_workers, count, share, rotation, n, item, mine, i
    cdef bint good, of_tiles
    for step in range(-1 if r.ahead and r.n_units else 0, r.n_steps):
        for of_tiles in range(1, -1, -1):
            count = items_of(r, step) if of_tiles else r.n_units
            phase = phase + 1
            # Wait until all earlier items are done. A waiting worker holds none and delays nobody if it is suspended.
            if not pass_gate(r.gate, r.told, workers, start):
                return False
            start = start + count
            # Rotate ownership: writing a line is cheaper on the core that last read it (`deltas_of`). Where sums are made ahead
            # (and steps begin with -1), units stay, because each worker lists the columns of its own units.
            rotation = 0 if of_tiles or r.ahead else step
            for i in range(workers):
                share = (w.number + rotation + i) % workers
                n = (count - share + workers - 1) // workers    # items of this share
                # If all is done, do not read the counters of others, so that they stay in the caches of their owners. (Checked
                # only once: with many workers, a check before each share would be slow.)
                if i == 1 and all_done(r.told, workers) >= start:
                    break
                mine = 0
                item = take(r.taken + share * TAKEN_STRIDE, phase, n) if n else -1
                while item >= 0:
                    if load_acquire(&r.gate.stop):
                        return False
                    item = item * workers + share
                    good = sweep_item(r, step, item, w) if of_tiles else step_unit(r, step, r.units + item, w)
                    if not good and stops(r):
                        stop_at(r.gate, step)
                    mine = mine + 1
                    item = take(r.taken + share * TAKEN_STRIDE, phase, n)
                if mine:
                    tell_done(w.told, mine)
    return True
