# The queue: a phase of a step is a number of items; each worker has a share of them, and takes from others' when its own is
# done. A worker keeps its share from step to step, so that what it last wrote is still in its cache.

cdef extern from *:
    """
    static inline int take_if(int64_t *counter, int64_t *seen, int64_t then) {
        return __atomic_compare_exchange_n(counter, seen, then, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
    static inline void add_release(int64_t *counter) { __atomic_fetch_add(counter, 1, __ATOMIC_RELEASE); }
    static inline int64_t load_acquire(int64_t *counter) { return __atomic_load_n(counter, __ATOMIC_ACQUIRE); }
    static inline void store_release(int64_t *counter, int64_t x) { __atomic_store_n(counter, x, __ATOMIC_RELEASE); }

    #include <sched.h>
    static inline void relax(int spins) {
        if (spins & 63) {
    #if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
    #endif
        } else sched_yield();
    }
    """
    bint take_if(int64_t*, int64_t*, int64_t) noexcept nogil
    void add_release(int64_t*) noexcept nogil
    int64_t load_acquire(int64_t*) noexcept nogil
    void store_release(int64_t*, int64_t) noexcept nogil
    void relax(int) noexcept nogil


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
    cdef int spins, tiles
    w.number, w.scratch = number, r.scratch + number * r.scratch_stride
    w.listed[0] = w.listed[1] = w.swept = w.asked = -2
    for step in range(-1 if r.ahead and r.n_units else 0, r.n_steps):
        for tiles in range(1, -1, -1):
            count = items_of(r, step) if tiles else r.n_units
            phase = phase + 1
            # All items before are done: nothing is taken while waiting, so that a worker that the system puts aside
            # then holds up nobody.
            spins = 0
            while load_acquire(&r.done) < start:
                if load_acquire(&r.stop):
                    return
                spins = spins + 1
                relax(spins)
            for i in range(number, number + workers):
                share = i % workers
                item = take(r.taken + share * TAKEN_STRIDE, phase) * workers + share
                while 0 <= item < count:
                    if load_acquire(&r.stop):
                        return
                    good = sweep_item(r, step, item, &w) if tiles else step_unit(r, step, r.units + item, &w)
                    if not good and r.training:
                        r.bad_step = step
                        store_release(&r.stop, 1)
                    add_release(&r.done)
                    item = take(r.taken + share * TAKEN_STRIDE, phase) * workers + share
            start = start + count
