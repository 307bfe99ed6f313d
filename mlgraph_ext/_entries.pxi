# Entries. A run is RUN neighbouring columns; an entry is a run that is not all zero in an example.
# Entries are listed run by run. Zeros of images are clustered: 19 % of MNIST's pixels and 28 % of
# its runs of four are not zero. Skipping only pixels that are zero in all of 32 examples would
# leave 58 %.
#
# Each worker lists the entries from the raw rows at each step. That costs about as much as reading
# lists that were made earlier or by another core, and no epoch has to wait for them.

cdef extern from *:
    """
    #define RUN 4
    #define NUMBERS(i) i, i + 1, i + 2, i + 3, i + 4, i + 5, i + 6, i + 7, i + 8, i + 9, i + 10, i + 11, i + 12, i + 13, \\
                       i + 14, i + 15
    typedef int32_t words __attribute__((vector_size(4 * VEC_WIDTH), aligned(1), may_alias));

    /* Sets `bit` in mask[i] where run i of a row is not zero. */
    static inline void mark_bytes(const uint8_t *row, int64_t n, int32_t bit, int32_t *mask)
    {
        int64_t i = 0;
        for (; i + VEC_WIDTH <= n / RUN; i += VEC_WIDTH)
            *(ivec *)(mask + i) |= (ivec)(*(const words *)(row + RUN * i) != 0) & bit;
        for (; RUN * i < n; i++)
            mask[i] |= four_bytes(row + RUN * i, n - RUN * i) ? bit : 0;
    }
    static inline void mark_floats(const float *row, const float *after, int64_t n, int32_t bit, int32_t *mask)
    {
        int64_t i = 0;
        for (; RUN * i + RUN <= n; i++) {
    #if defined(__SSE2__)
            int some = _mm_movemask_ps(_mm_cmpneq_ps(_mm_loadu_ps(row + RUN * i), _mm_setzero_ps()));
    #else
            const float *x = row + RUN * i;
            int some = (x[0] != 0) | (x[1] != 0) | (x[2] != 0) | (x[3] != 0);
    #endif
            if (i % 4 == 0) __builtin_prefetch(after + RUN * i);
            mask[i] |= some ? bit : 0;
        }
        for (int64_t k = RUN * i; k < n; k++)
            mask[i] |= row[k] != 0 ? bit : 0;
    }
    /* Copies a run. Only n numbers belong to the row; the others become zero. */
    static inline void copy_bytes(const uint8_t *x, int64_t n, uint8_t *to)
    {
        if (n >= RUN) memcpy(to, x, RUN);
        else for (int i = 0; i < RUN; i++) to[i] = i < n ? x[i] : 0;
    }
    static inline void copy_floats(const float *x, int64_t n, float *to)
    {
        if (n >= RUN) memcpy(to, x, RUN * sizeof(float));
        else for (int i = 0; i < RUN; i++) to[i] = i < n ? x[i] : 0;
    }

    /* Marks and copies bytes, 16 runs of 16 rows at a time, without branches, which would be unpredictable. Runs must be
       complete. Needs VBMI2, which not every processor with AVX-512 has. */
    #if defined(__AVX512BW__)
    #define HAVE_COMPRESS __builtin_cpu_supports("avx512vbmi2")
    /* Appends run k of up to 64 rows where it is not zero: words to `byte`, row numbers to `lane`. Returns their number. */
    __attribute__((target("avx512vbmi2"))) static inline int append(const __m512i (*w)[16], int k, int n, int first,
                                                                    uint8_t *lane, uint8_t *byte)
    {
        static const uint8_t number[128] = {NUMBERS(0), NUMBERS(16), NUMBERS(32), NUMBERS(48),
                                            NUMBERS(64), NUMBERS(80), NUMBERS(96), NUMBERS(112)};
        uint64_t all = 0;
        int found = 0;
        for (int i = 0; 16 * i < n && i < 4; i++) {
            __mmask16 some = _mm512_test_epi32_mask(w[i][k], w[i][k]);
            _mm512_storeu_si512(byte + RUN * found, _mm512_maskz_compress_epi32(some, w[i][k]));
            all |= (uint64_t)some << 16 * i;
            found += __builtin_popcount(some);
        }
        _mm512_storeu_si512(lane, _mm512_maskz_compress_epi8(all, _mm512_loadu_si512(number + first)));
        return found;
    }
    __attribute__((target("avx512vbmi2"))) static int32_t transpose_and_append(
        const uint8_t *const *row, int n, int64_t at, int runs, int32_t base, int32_t *start, int32_t *end, uint8_t *lane,
        uint8_t *byte)
    {
        int32_t found = 0;
        __m512i w[8][16];
        __mmask16 there = (__mmask16)((1u << runs) - 1);  /* words of a row to read, from byte `at` on */
        if (n == 1) {
            __m512i word = _mm512_maskz_loadu_epi32(there, row[0] + at);
            __mmask16 some = _mm512_test_epi32_mask(word, word);
            _mm512_storeu_si512(byte, _mm512_maskz_compress_epi32(some, word));
            memset(lane, 0, 16);
            for (int k = 0; k < runs; k++) {
                start[k] = base + found;
                found += some >> k & 1;
                end[k] = base + found;
            }
            return found;
        }
        for (int i = 0; 16 * i < n; i++) {
            vec v[16];
            for (int j = 0; j < 16; j++) {
                int l = 16 * i + j;
                v[j] = l < n ? (vec)_mm512_maskz_loadu_epi32(there, row[l] + at) : splat(0);
                if (l < n) __builtin_prefetch(row[l] + at + 2 * sizeof(vec));  /* for rows that are not prefetched yet */
            }
            transpose_square(v);
            memcpy(w[i], v, sizeof(v));
        }
        for (int k = 0; k < runs; k++) {
            start[k] = base + found;
            for (int i = 0; i < n; i += 64) found += append(w + i / 16, k, n - i, i, lane + found, byte + RUN * found);
            end[k] = base + found;
        }
        return found;
    }
    #else
    #define HAVE_COMPRESS 0
    static int32_t transpose_and_append(const uint8_t *const *r, int n, int64_t a, int m, int32_t f, int32_t *s, int32_t *e,
                                   uint8_t *l, uint8_t *b)
    { (void)r, (void)n, (void)a, (void)m, (void)f, (void)s, (void)e, (void)l, (void)b; return 0; }
    #endif
    """
    enum: RUN            # neighbouring columns that are skipped together
    bint HAVE_COMPRESS   # whether this processor can `transpose_and_append`
    void mark_bytes(const uint8_t*, int64_t, int32_t, int32_t*) noexcept nogil
    void mark_floats(const float*, const float*, int64_t, int32_t, int32_t*) noexcept nogil
    void copy_bytes(const uint8_t*, int64_t, uint8_t*) noexcept nogil
    void copy_floats(const float*, int64_t, float*) noexcept nogil
    int32_t transpose_and_append(
        const uint8_t**, int, int64_t, int, int32_t, int32_t*, int32_t*, uint8_t*, uint8_t*) noexcept nogil
    int lowest_bit "__builtin_ctz"(uint32_t) noexcept nogil


cdef bint transposes = HAVE_COMPRESS


def use_transpose(bint so):
    """For tests: choose between the VBMI2 kernel, if the processor has it, and the one for other processors."""
    global transposes
    transposes = so and HAVE_COMPRESS


cdef enum:
    BLOCK_RUNS = 16              # runs that are read together, 64 columns
    GROUP_TILES = 4              # maximum number of tiles in a group, which share one list of entries
    GROUP = GROUP_TILES * LANES  # examples of a group; `append` has numbers for as many
    SLACK = 64                   # bytes past the end of a list that a whole vector may overwrite


cdef struct Entries:
    float* value         # [entries][RUN]; bytes / 256 (_bytes.pxi says why)
    int32_t* start       # [runs] the first entry of each run
    int32_t* end         # [runs] one past its last entry
    int32_t* mask        # [tiles][runs] a bit for each example whose run is not zero (unused by `transpose_rows`)
    uint8_t* lane        # [entries] the example
    int64_t lanes        # examples for which there is memory


cdef inline int64_t runs_of(int64_t columns) noexcept nogil:
    return (columns + RUN - 1) // RUN


cdef inline int64_t middle(int64_t runs) noexcept nogil:
    """The first run of the second half, which consists of whole blocks; 0 if there are too few runs for two halves."""
    cdef int64_t half = runs // 2 // BLOCK_RUNS * BLOCK_RUNS
    return runs - half if half else 0


def middle_column(int64_t columns):
    """The first column of the second half; 0 if there are too few columns for two halves."""
    return RUN * middle(runs_of(columns))


cpdef int64_t entry_floats(int64_t columns, int64_t lanes) noexcept:
    """Maximum number of floats that the entries of `lanes` examples need."""
    return (runs_of(columns) * (RUN * lanes + lanes // 4 + 2 + GROUP_TILES) + 2 * LANES) // LANES * LANES


cdef inline Entries entries_at(float* memory, int64_t columns, int64_t lanes) noexcept nogil:
    cdef Entries e
    e.value = memory
    e.start = <int32_t*>(memory + runs_of(columns) * RUN * lanes)
    e.end = e.start + runs_of(columns)
    e.mask = e.end + runs_of(columns)
    e.lane = <uint8_t*>(e.mask + GROUP_TILES * runs_of(columns))
    e.lanes = lanes
    return e


cdef kernel_void find_entries(
    const uint8_t* bytes, const float* floats, int64_t stride, int64_t columns, int64_t first, int64_t last,
    const int64_t* row, int64_t n, const Entries* e,
) noexcept nogil:
    """List the entries of n examples in the runs `first` to `last`. Rows are `stride` numbers apart."""
    cdef int64_t runs = runs_of(columns), whole = smaller(last, columns // RUN), end = smaller(last * RUN, columns), lane
    cdef int32_t bit
    cdef const uint8_t* byte_row[GROUP]
    cdef const float* float_row[GROUP]
    for lane in range(n):
        if bytes != NULL:
            byte_row[lane] = bytes + row[lane] * stride
        else:
            float_row[lane] = floats + row[lane] * stride
    if transposes and bytes != NULL:
        transpose_rows(byte_row, first, whole, n, e)
        first = whole
    if first >= last:
        return
    # Mark by row, in the order of memory; then copy by run.
    memset(e.mask, 0, (n + LANES - 1) // LANES * runs * sizeof(int32_t))
    for lane in range(n):
        bit = <int32_t>(<uint32_t>1 << lane % LANES)
        if bytes != NULL:
            mark_bytes(byte_row[lane] + first * RUN, end - first * RUN, bit, e.mask + lane // LANES * runs + first)
        else:
            mark_floats(float_row[lane] + first * RUN, float_row[smaller(lane + 2, n - 1)] + first * RUN, end - first * RUN,
                        bit, e.mask + lane // LANES * runs + first)
    copy_marked(byte_row if bytes != NULL else NULL, float_row, columns, n, first, last, e)


cdef void transpose_rows(const uint8_t** bytes, int64_t first, int64_t last, int64_t n, const Entries* e) noexcept nogil:
    # The entries of a block begin at the latest place where those of all earlier runs may end.
    cdef uint8_t byte[BLOCK_RUNS * GROUP * RUN + SLACK]
    cdef int64_t base, found
    while first < last:
        base = first * e.lanes
        found = transpose_and_append(bytes, <int>n, first * RUN, <int>smaller(BLOCK_RUNS, last - first), <int32_t>base,
                                     e.start + first, e.end + first, e.lane + base, byte)
        convert(byte, found * RUN, e.value + base * RUN)
        first = first + BLOCK_RUNS


cdef void copy_marked(
    const uint8_t** bytes, const float** floats, int64_t columns, int64_t n, int64_t first, int64_t last, const Entries* e,
) noexcept nogil:
    cdef uint8_t byte[GROUP * RUN]
    cdef int64_t runs = runs_of(columns), base = first * e.lanes, found, i, k, lane
    cdef uint32_t some
    for i in range(first, last):
        found = 0
        for k in range((n + LANES - 1) // LANES):
            some = <uint32_t>e.mask[k * runs + i]
            while some:
                lane = k * LANES + lowest_bit(some)
                some = some & (some - 1)
                e.lane[base + found] = <uint8_t>lane
                if bytes != NULL:
                    copy_bytes(bytes[lane] + i * RUN, columns - i * RUN, byte + found * RUN)
                else:
                    copy_floats(floats[lane] + i * RUN, columns - i * RUN, e.value + (base + found) * RUN)
                found = found + 1
        if bytes != NULL:
            convert(byte, found * RUN, e.value + base * RUN)
        e.start[i], e.end[i] = <int32_t>base, <int32_t>(base + found)
        base = base + found


cdef inline void convert(const uint8_t* byte, int64_t n, float* value) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        value[i] = byte[i] * <float>0.00390625


cdef enum:
    FETCH_AT_ONCE = 4    # minimum number of lines that are prefetched with each run


cdef struct Fetch:
    const char* data
    const int64_t* row   # examples that are read soon; NULL if they are consecutive
    int64_t stride       # bytes from one example to the next
    int64_t line         # the line of a row that is prefetched next, and the example
    int64_t example
    int64_t first        # the first example, and one past the last
    int64_t last
    int64_t end          # of the bytes that are needed of a row
    int64_t at_once


cdef inline void fetch_some(Fetch* fetch) noexcept nogil:
    # Shuffled examples lie anywhere in memory, and no hardware prefetcher knows their order. Requested all at once, they
    # would be more misses than the processor can track. A kernel therefore prefetches a few lines with each run of
    # columns, each line of another row. Each row is in a page of its own, and an EPYC seems to look up several pages at
    # a time but to wait at the first line of each.
    cdef int64_t i, row
    for i in range(fetch.at_once):
        if fetch.line < fetch.end:
            row = fetch.row[fetch.example] if fetch.row != NULL else fetch.example
            prefetch_later(fetch.data + row * fetch.stride + fetch.line)
            fetch.example = fetch.example + 1
            if fetch.example == fetch.last:
                fetch.line, fetch.example = fetch.line + 64, fetch.first
