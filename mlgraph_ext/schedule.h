/* The schedule: workers share the items of a phase, and a gate separates it from the next.

   Each worker has a share of the items, the same at every step, so that the data it last wrote are still in its cache. When
   its own items are taken it takes items of others. A gate opens when every earlier item is done, not when every worker has
   arrived: a worker that the operating system suspends while it holds no item delays nobody. Who waits soon yields the
   processor to it. (OpenMP's barrier does neither.)

   Bits do not depend on who takes an item: items of one phase write different memory, and read only what earlier phases
   wrote.

   Memory order. A worker writes `done` with release after it has written the data of its items, and others read it with
   acquire at the gate. So who has passed the gate sees everything that was written before it. `stop` is set by a worker
   that holds an item, hence before its `done`; who passes the gate sees it, too, and all workers stop at the same gate.
   `taken` orders nothing: it only decides, by compare-and-swap, that one worker gets an item. Relaxed accesses are enough,
   and since a phase is part of its value, a worker that comes late for a phase cannot take an item of the next. */

#ifndef MLGRAPH_SCHEDULE_H
#define MLGRAPH_SCHEDULE_H

#include <sched.h>
#include <stdint.h>

/* Two cache lines each, because a processor that reads a line may prefetch its neighbour. */
typedef struct { int64_t taken, unused[15]; } Share;           /* phase << 32 | items taken in it */
typedef struct { int64_t done, left, unused[14]; } Report;     /* written by one worker only; adding to one counter of all
                                                                  items would cost a round trip to another core */
typedef struct {
    int64_t workers, stop;       /* `stop`: one more than the number that ended the run, or 0 */
    Share *shares;
    Report *reports;
} Schedule;

/* A worker's place in the schedule. */
typedef struct { int64_t worker, phase, count, earlier, first, tried, mine; } Turn;

/* Sleeping would be no better, even if another process is busy. */
static inline void wait_a_little(unsigned times) {
    if (times % 64 == 0) sched_yield();
#if defined(__x86_64__) || defined(__i386__)
    else __builtin_ia32_pause();
#endif
}

static inline int64_t all_done(const Schedule *s) {
    int64_t sum = 0;
    for (int64_t i = 0; i < s->workers; i++) sum += __atomic_load_n(&s->reports[i].done, __ATOMIC_ACQUIRE);
    return sum;
}

/* The gate: waits until the items of all earlier phases are done. Begins a phase of `count` items, of which this worker takes
   those of its own share first, or those of the share `shift` further. Returns 0 if the run has been stopped. */
static inline int begin_phase(const Schedule *s, Turn *t, int64_t count, int64_t shift) {
    int64_t earlier = t->earlier + t->count;
    for (unsigned times = 1; all_done(s) < earlier; times++) wait_a_little(times);
    *t = (Turn){t->worker, t->phase + 1, count, earlier, (t->worker + shift) % s->workers, 0, 0};
    return !__atomic_load_n(&s->stop, __ATOMIC_RELAXED);
}

/* Takes one of the n items of a share; returns its number within the share, or -1 if none is left. */
static inline int64_t take(Share *share, int64_t phase, int64_t n) {
    int64_t seen = __atomic_load_n(&share->taken, __ATOMIC_RELAXED);
    while (seen >> 32 <= phase) {  /* else all is done, and this worker is late */
        int64_t before = seen >> 32 == phase ? seen - (phase << 32) : 0;  /* the first in a new phase begins at 0 */
        if (before >= n) return -1;  /* writes nothing, so that the line stays in the cache of the next reader */
        if (__atomic_compare_exchange_n(&share->taken, &seen, (phase << 32) + before + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return before;
    }
    return -1;
}

/* The next item of the phase for this worker, or -1 if all are taken. The one before is then done. */
static inline int64_t next_item(const Schedule *s, Turn *t) {
    for (; t->tried < s->workers; t->tried++) {
        int64_t share = (t->first + t->tried) % s->workers, n = (t->count - share + s->workers - 1) / s->workers;
        int64_t item = n > 0 ? take(&s->shares[share], t->phase, n) : -1;
        if (item >= 0) {
            t->mine++;
            return item * s->workers + share;
        }
        if (t->mine) {
            Report *own = &s->reports[t->worker];
            __atomic_store_n(&own->done, own->done + t->mine, __ATOMIC_RELEASE);
            t->mine = 0;
        }
        /* If all is done, the counters of others stay in their caches. (With many workers, a check before each share would be
           slow.) */
        if (t->tried == 0 && all_done(s) >= t->earlier + t->count) break;
    }
    return -1;
}

/* Ends the run at the next gate. All who stop a run at the same time must give the same number. */
static inline void stop_at(Schedule *s, int64_t number) { __atomic_store_n(&s->stop, number + 1, __ATOMIC_RELAXED); }

/* Waits until all workers are about to leave. OpenMP's barrier, which comes next, spins without yielding. */
static inline void leave(const Schedule *s, const Turn *t) {
    __atomic_store_n(&s->reports[t->worker].left, 1, __ATOMIC_RELEASE);
    for (int64_t i = 0; i < s->workers; i++)
        for (unsigned times = 1; !__atomic_load_n(&s->reports[i].left, __ATOMIC_ACQUIRE); times++) wait_a_little(times);
}

#endif
