# The team: the threads that OpenMP keeps for the thread that calls it.
#
# libgomp ends the process if the system refuses it a thread or memory, and a smaller parallel region ends the threads
# that it does not need. So a team starts in one place, `start_team`, which first finds out how many threads the system
# gives. Every parallel region then has the whole team, whatever the number of its workers: none starts a thread, none
# ends one, and libgomp finds the memory that it used before.

cdef extern from *:
    """
    #include <sys/mman.h>

    /* Bytes of memory that stay free when all threads have started: for the call that wants them and for libgomp, and for the
       arrays that each thread needs. */
    #define SPARED ((size_t)64 << 20)
    #define SPARED_PER_THREAD ((size_t)1 << 20)
    /* Address space that glibc's malloc takes for a thread that allocates. */
    #define ARENA ((size_t)64 << 20)

    static void *reserve(size_t n, int protection) {
        void *p = mmap(NULL, n, protection, MAP_PRIVATE | MAP_ANON, -1, 0);
        return p == MAP_FAILED ? NULL : p;
    }
    static int has_room_for(size_t threads) {
        size_t n = SPARED + threads * ARENA;
        void *p = reserve(n, PROT_NONE);
        return p && !munmap(p, n);
    }

    #ifdef _OPENMP
    #include <omp.h>
    #include <pthread.h>
    #include <sys/stat.h>
    #include <unistd.h>
    #define MLGRAPH_PARALLEL 1

    static _Thread_local int team = 1;

    static void *wait_for_end(void *end) {
        pthread_mutex_lock(end);
        pthread_mutex_unlock(end);
        return NULL;
    }
    /* Number of links to a folder that has one folder for each thread; 0 where the system has none. */
    static int64_t count_tasks(void) {
        struct stat folder;
        return stat("/proc/self/task", &folder) ? 0 : (int64_t)folder.st_nlink;
    }
    /* Starts and ends up to n threads; returns how many lived at the same time. Their creator gets every error, as they
       allocate nothing. */
    static int start_and_end(int n, size_t stack) {
        void *space = reserve(SPARED, PROT_READ | PROT_WRITE);
        pthread_t *threads = malloc(n * sizeof(pthread_t));
        pthread_mutex_t end = PTHREAD_MUTEX_INITIALIZER;
        pthread_attr_t attributes;
        int64_t before = count_tasks();
        int count = 0;
        if (space && threads && !pthread_attr_init(&attributes)) {
            if (!stack || pthread_attr_setstacksize(&attributes, stack))  /* too small: libgomp ignores it, too */
                pthread_attr_getstacksize(&attributes, &stack);
            pthread_attr_setstacksize(&attributes, stack + SPARED_PER_THREAD);
            pthread_mutex_lock(&end);
            while (count < n && !pthread_create(&threads[count], &attributes, wait_for_end, &end)) count++;
            pthread_mutex_unlock(&end);
            for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
            pthread_attr_destroy(&attributes);
        }
        /* A joined thread may still count for the limit of the system for a moment. */
        for (int times = 0; count && count_tasks() > before && times < 10000; times++) usleep(100);
        free(threads);
        if (space) munmap(space, SPARED);
        return count;
    }
    static int start_team_of(int n, size_t stack) {
        int most = omp_get_thread_limit(), wanted = n < most ? n : most, size = team;
        if (wanted > size) size += start_and_end(wanted - size, stack);
        if (size > team) {
            int threads = 0;
            #pragma omp parallel num_threads(size) reduction(+ : threads)
            threads += 1;
        }
        /* Threads that OpenMP withholds are not refused: those that it gives do the work of all. */
        if (n > team) team = size < wanted ? size : n;
        return team;
    }
    #else
    #define MLGRAPH_PARALLEL 0
    #define omp_get_max_threads() 1
    #define omp_get_num_threads() 1
    #define team 1
    #define start_team_of(n, stack) ((void)(stack), (int)(n))
    #endif

    static inline int64_t next_of(int64_t *counter) { return __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }
    """
    int MLGRAPH_PARALLEL
    int team                 # threads that OpenMP keeps for this thread, itself included
    int start_team_of(int, size_t)
    bint has_room_for(size_t)
    int64_t next_of(int64_t*) noexcept nogil
    int omp_get_max_threads() noexcept nogil
    int omp_get_num_threads() noexcept nogil

PARALLEL = bool(MLGRAPH_PARALLEL)   # whether it was built with OpenMP


def max_threads():
    """Number of threads that OpenMP starts by default. threadpoolctl and omp_set_num_threads change it."""
    return omp_get_max_threads()


def team_size():
    """Number of threads that may run together with this thread, itself included."""
    return team


def start_team(int n, size_t stack):
    """Start threads until n run together with this thread, itself included, or the system refuses more.

    Returns how many run together now. `stack` is the size of their stacks, 0 for that of the system. The GIL is held
    from the first thread that is tried to the last that is started, so that no other Python thread takes their memory.
    """
    return start_team_of(n, stack)


def has_room(size_t threads):
    """Whether the address space has room for so many Python threads that have just started or are about to start."""
    return has_room_for(threads)


cdef inline int64_t share_begin(int64_t n, int64_t workers, int64_t worker) noexcept nogil:
    """The first of n items that a worker processes, in order; it ends where the next one begins."""
    return n // workers * worker + smaller(worker, n % workers)
