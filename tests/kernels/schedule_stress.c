/* Stress test of schedule.h alone, with plain threads, for ThreadSanitizer: cc -fsanitize=thread -pthread. Phases alternate
   like those of a step. In one, each item writes its own cell; in the other, each item reads all cells that the first has
   written and writes its own sum. All accesses to cells are ordinary ones, so that a gate which orders too little is a data
   race; sums are compared with the ones expected, and each item counts how often it is taken. */

#include "../../mlgraph_ext/schedule.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define MOST 64
static Schedule schedule;
static int64_t cells[MOST], sums[MOST], taken[MOST], tiles, units, steps, stops_at;
static int wrong;

static void *work(void *number) {
    Turn turn = {(int64_t)(intptr_t)number, 0, 0, 0, 0, 0, 0};
    for (int64_t step = 0; step < steps; step++) {
        if (!begin_phase(&schedule, &turn, tiles, 0)) break;
        if (stops_at >= 0 && step > stops_at) __atomic_store_n(&wrong, 1, __ATOMIC_RELAXED);
        for (int64_t i; (i = next_item(&schedule, &turn)) >= 0;) {
            cells[i] = step * MOST + i;
            taken[i]++;
            if (step == stops_at && i % 2 == 0) stop_at(&schedule, step);
        }
        if (!begin_phase(&schedule, &turn, units, step)) break;
        if (step == stops_at) __atomic_store_n(&wrong, 1, __ATOMIC_RELAXED);
        for (int64_t i; (i = next_item(&schedule, &turn)) >= 0;) {
            sums[i] = 0;
            for (int64_t k = 0; k < tiles; k++) sums[i] += cells[k];
            if (sums[i] != tiles * step * MOST + tiles * (tiles - 1) / 2) __atomic_store_n(&wrong, 1, __ATOMIC_RELAXED);
        }
    }
    leave(&schedule, &turn);
    return NULL;
}

static int run(int64_t workers) {
    pthread_t threads[MOST];
    schedule = (Schedule){workers, 0, calloc(workers, sizeof(Share)), calloc(workers, sizeof(Report))};
    for (int64_t i = 0; i < MOST; i++) taken[i] = 0;
    wrong = 0;
    for (int64_t i = 0; i < workers; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i)) return 1;
    for (int64_t i = 0; i < workers; i++) pthread_join(threads[i], NULL);
    int64_t expected = stops_at < 0 ? steps : stops_at + 1;
    for (int64_t i = 0; i < tiles; i++) wrong |= taken[i] != expected;
    wrong |= schedule.stop != stops_at + 1;
    free(schedule.shares);
    free(schedule.reports);
    if (wrong) printf("wrong: %d workers, %d tiles, %d units, stop %d\n", (int)workers, (int)tiles, (int)units, (int)stops_at);
    return wrong;
}

int main(int argc, char **argv) {
    static const int64_t shapes[][2] = {{1, 1}, {1, 7}, {4, 2}, {9, 30}, {3, 0}};
    int failed = 0;
    steps = argc > 1 ? atol(argv[1]) : 2000;
    for (int64_t workers = 1; workers <= 8; workers += workers > 2 ? 2 : 1)
        for (size_t k = 0; k < sizeof(shapes) / sizeof(*shapes); k++)
            for (int stop = 0; stop < 2; stop++) {
                tiles = shapes[k][0], units = shapes[k][1], stops_at = stop ? steps / 2 : -1;
                failed |= run(workers);
            }
    return failed;
}
