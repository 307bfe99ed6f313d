# Memory: where tiles and workers keep their numbers. Offsets are in floats.
#
#   a tile:    sums and deltas, masks of dropout | values, slot by slot | adjoints | bytes or entries of the data
#   a worker:  two gradients of a unit | lists of entries of two steps | masked weights

cdef struct Choice:          # how steps are swept, as mlgraph/engine/choice.py chooses
    int64_t n_workers
    int64_t wide             # tiles swept side by side: 1, 2 or 4, at most PACK if there are rows
    int64_t at_once          # tiles of an item, a multiple of `wide`
    bint ahead               # sums of entries are made before tiles are swept (_ahead.pxi)
    bint backward
    int64_t first_zeroed     # adjoints before it are not zeroed: they do not exist, or one block sets them

cdef struct Memory:
    float* tiles
    int64_t n_tiles
    int64_t tile_stride
    int64_t values_at        # from a tile's memory to the value of slot 0
    int64_t adjoints_at      # from a tile's memory to the adjoint of slot 0
    int64_t first_slot       # slots before it have no memory: none, or the inputs if nothing reads them from slots
    int64_t bytes_at         # from a tile's memory to its byte slots, or -1 if no rows read them
    int64_t entries_at       # from a tile's memory to its entries, or -1 if no dense block reads them there (_entries.pxi)
    float* sums              # with `ahead`: sums, then deltas, as [half][panel][example][neuron] from n_tiles * transposed on
    float* pack_sums         # gradients of rows of each pack (_packs.pxi), [pack][parameters from first_row on], or NULL
    bint in_packs
    int64_t pack_stride
    int64_t first_row
    float* scratch
    int64_t scratch_stride
    int64_t lists_at         # from a worker's scratch to the entries of two steps, by groups of tiles
    int64_t list_floats
    int64_t masked_at        # from a worker's scratch to masked weights

cdef extern from *:
    """
    #include <pthread.h>
    static int64_t forks = 1;
    static void count_fork(void) { forks++; }
    """
    int64_t forks        # one more than the number of forks between this process and the first
    void count_fork()
    int pthread_atfork(void (*)(), void (*)(), void (*)()) nogil

pthread_atfork(NULL, NULL, count_fork)

cdef struct Buffer:
    void* start
    float* floats            # from a cache line on
    int64_t n


cdef float* at_least(Buffer* b, int64_t n) except? NULL:
    """Grow a buffer to n floats, without what it held."""
    if b.n < n:
        free(b.start)
        b.floats, b.n, b.start = NULL, 0, calloc(n + 16, sizeof(float))
        if b.start == NULL:
            raise MemoryError(f"no memory for {4 * n} bytes of values")
        b.floats, b.n = <float*>((<size_t>b.start + 63) // 64 * 64), n
    return b.floats


cdef class Buffers:
    """Memory that the sweeps of one plan share. It grows as they need it; one of them runs at a time."""

    cdef Buffer tiles, sums, packs, scratch
    cdef int64_t busy    # `forks` while a call uses them: a fork leaves the calls of other threads behind

    def __dealloc__(self):
        for b in (<size_t>self.tiles.start, <size_t>self.sums.start, <size_t>self.packs.start, <size_t>self.scratch.start):
            free(<void*><size_t>b)


cdef inline int64_t groups_of_tiles(int64_t n_tiles) noexcept nogil:
    return (n_tiles + GROUP_TILES - 1) // GROUP_TILES


cdef void lay_out(
    Memory* m, const Tables* t, const Choice* choice, Program program, int64_t n_tiles, bint as_bytes, bint sparse,
    bint in_packs,
) noexcept:
    """Place what a tile and a worker keep."""
    m.n_tiles, m.in_packs, m.list_floats = n_tiles, in_packs, program.list_floats
    m.first_slot = t.n_inputs if as_bytes or (sparse and not program.rows_read_data) else 0
    m.values_at = program.n_extra - m.first_slot * LANES
    m.adjoints_at = m.values_at + t.n_slots * LANES - m.first_slot * LANES
    m.tile_stride = program.n_extra + (t.n_slots - m.first_slot) * LANES * (2 if choice.backward else 1)
    m.bytes_at = m.entries_at = -1
    if as_bytes:
        m.bytes_at = m.tile_stride
        m.tile_stride += t.n_inputs * BYTE_SLOT
    if sparse and not choice.ahead:
        m.entries_at = m.tile_stride
        m.tile_stride += entry_floats(t.n_inputs, LANES)
    m.lists_at = 2 * gradient_floats(t)
    m.masked_at = m.lists_at
    if choice.ahead:    # without units, a worker lists the entries of one group of tiles at a time
        m.masked_at += m.list_floats * (2 * groups_of_tiles(n_tiles) if t.n_units else 1)
    m.scratch_stride = m.masked_at + program.n_masked
    m.first_row, m.pack_stride = program.first_row, program.last_row - program.first_row


cdef int reserve(Buffers b, const Memory* m, int64_t n_workers, int64_t summed) except -1:
    """Grow the buffers to what a sweep needs; `summed` is the number of floats of sums that a tile makes ahead."""
    if b.busy == forks:
        raise RuntimeError("buffers: in use by a call")
    at_least(&b.tiles, m.n_tiles * m.tile_stride)
    at_least(&b.scratch, n_workers * m.scratch_stride)
    at_least(&b.sums, m.n_tiles * summed)
    at_least(&b.packs, (m.n_tiles + PACK - 1) // PACK * m.pack_stride if m.in_packs else 0)
