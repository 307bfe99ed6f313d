# The entries of a tile: runs of RUN neighbouring columns that are not all zero, listed column by column. Zeros of images lie
# together: of MNIST's pixels 19 % are not zero, of its runs of four 28 %; what is zero in all of 32 examples leaves 58 %.
#
# The lists are made from the raw rows at each step anew. That costs about as much as reading lists that were made before,
# and no epoch has to wait until they are. Bytes stay bytes until a kernel reads them, because of all that a worker reads in
# the second phase half was written by the others.

cdef extern from *:
    """
    #define RUN 4
    typedef int32_t words __attribute__((vector_size(4 * VEC_WIDTH), aligned(1), may_alias));

    /* mask[i] |= bit where run i of a row is not zero. */
    static inline void mark_bytes(const uint8_t *row, int64_t n, int32_t bit, int32_t *mask)
    {
        int64_t i = 0;
        for (; i + VEC_WIDTH <= n / RUN; i += VEC_WIDTH)
            *(ivec *)(mask + i) |= (ivec)(*(const words *)(row + RUN * i) != 0) & bit;
        for (; RUN * i < n; i++)
            mask[i] |= four_bytes(row + RUN * i, n - RUN * i) ? bit : 0;
    }
    static inline void mark_floats(const float *row, int64_t n, int32_t bit, int32_t *mask)
    {
        int64_t i = 0;
        for (; RUN * i + RUN <= n; i++) {
            ivec4 w = (ivec4)*(const vec4 *)(row + RUN * i) << 1;
            mask[i] |= ((w[0] | w[1]) | (w[2] | w[3])) ? bit : 0;
        }
        for (int64_t k = RUN * i; k < n; k++)
            mask[i] |= row[k] != 0 ? bit : 0;
    }
    /* A run of which the first n numbers belong to the row; the others are zero. */
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

    /* The same for bytes, 16 runs of 16 rows at a time and without a branch, which nothing could predict: a third of the
       time. Runs are whole. Past the end of a list a vector may be written whole. */
    #if defined(__AVX512F__)
    #define HAVE_TURN 1
    static inline void turn(const uint8_t *const *row, int n, __mmask16 there, __m512i *w)
    {
        __m512i a[16], b[16];
        for (int i = 0; i < 16; i++) {
            a[i] = i < n ? _mm512_maskz_loadu_epi32(there, row[i]) : _mm512_setzero_si512();
            if (i < n) __builtin_prefetch(row[i] + 2 * sizeof(__m512i));  /* rows that nobody has asked for */
        }
        for (int i = 0; i < 16; i += 2) {
            b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
            b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
        }
        /* a[4 i + j]: in each quarter q, column 4 q + j of rows 4 i to 4 i + 3 */
        for (int i = 0; i < 16; i += 4)
            for (int j = 0; j < 2; j++) {
                a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
                a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
            }
        for (int j = 0; j < 4; j++) {
            __m512i even = _mm512_shuffle_i32x4(a[j], a[j + 4], 0x88), odd = _mm512_shuffle_i32x4(a[j], a[j + 4], 0xdd);
            __m512i even_ = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0x88);
            __m512i odd_ = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0xdd);
            w[j] = _mm512_shuffle_i32x4(even, even_, 0x88);
            w[j + 8] = _mm512_shuffle_i32x4(even, even_, 0xdd);
            w[j + 4] = _mm512_shuffle_i32x4(odd, odd_, 0x88);
            w[j + 12] = _mm512_shuffle_i32x4(odd, odd_, 0xdd);
        }
    }
    static inline int append(__m512i w, __m512i lanes, uint8_t *lane, uint8_t *byte)
    {
        __mmask16 some = _mm512_test_epi32_mask(w, w);
        _mm512_storeu_si512(byte, _mm512_maskz_compress_epi32(some, w));
        _mm_storeu_si128((__m128i *)lane, _mm512_cvtepi32_epi8(_mm512_maskz_compress_epi32(some, lanes)));
        return __builtin_popcount(some);
    }
    static int32_t turn_and_append(const uint8_t *const *row, int n, int runs, int32_t found, int32_t *start, int32_t *end,
                                   uint8_t *lane, uint8_t *byte)
    {
        __m512i w[8][16], lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        __mmask16 there = (__mmask16)((1u << runs) - 1);
        if (n == 1) {
            __m512i word = _mm512_maskz_loadu_epi32(there, row[0]);
            __mmask16 some = _mm512_test_epi32_mask(word, word);
            append(word, _mm512_setzero_si512(), lane + found, byte + RUN * found);
            for (int k = 0; k < runs; k++) {
                start[k] = found;
                found += some >> k & 1;
                end[k] = found;
            }
            return found;
        }
        for (int i = 0; 16 * i < n; i++) turn(row + 16 * i, n - 16 * i, there, w[i]);
        for (int k = 0; k < runs; k++) {
            start[k] = found;
            for (int i = 0; 16 * i < n; i++)
                found += append(w[i][k], _mm512_add_epi32(lanes, _mm512_set1_epi32(16 * i)), lane + found, byte + RUN * found);
            end[k] = found;
        }
        return found;
    }
    #else
    #define HAVE_TURN 0
    static int32_t turn_and_append(const uint8_t *const *r, int n, int m, int32_t f, int32_t *s, int32_t *e, uint8_t *l,
                                   uint8_t *b)
    { (void)r, (void)n, (void)m, (void)s, (void)e, (void)l, (void)b; return f; }
    #endif
    """
    enum: RUN            # neighbouring columns that are skipped together
    bint HAVE_TURN
    void mark_bytes(const uint8_t*, int64_t, int32_t, int32_t*) noexcept nogil
    void mark_floats(const float*, int64_t, int32_t, int32_t*) noexcept nogil
    void copy_bytes(const uint8_t*, int64_t, uint8_t*) noexcept nogil
    void copy_floats(const float*, int64_t, float*) noexcept nogil
    int32_t turn_and_append(const uint8_t**, int, int, int32_t, int32_t*, int32_t*, uint8_t*, uint8_t*) noexcept nogil
    int lowest_bit "__builtin_ctz"(uint32_t) noexcept nogil


cdef enum:
    BLOCK_RUNS = 16              # runs that are looked at together: 64 columns
    GROUP_TILES = 4              # tiles that may have their entries in common
    GROUP = GROUP_TILES * LANES  # examples: what a byte can number


cdef struct Entries:
    int32_t* start       # [runs] first entry of each run of columns
    int32_t* end         # [runs] one after its last
    uint8_t* lane        # [entries] which of the examples
    float* value         # [entries][RUN]; of data in bytes a kernel converts those that it reads
    uint8_t* byte        # [entries][RUN]
    int64_t lanes        # most examples


cdef inline int64_t runs_of(int64_t columns) noexcept nogil:
    return (columns + RUN - 1) // RUN


cdef inline int64_t blocks_of(int64_t columns) noexcept nogil:
    return (runs_of(columns) + BLOCK_RUNS - 1) // BLOCK_RUNS


def entry_floats(bint bytes, int64_t columns, int64_t lanes):
    """Floats that the entries of so many examples may need."""
    # Past the end of a list a vector may be written whole.
    n = runs_of(columns) * lanes + LANES
    return (n * (RUN if not bytes else RUN // 4) + n // 4 + 2 * runs_of(columns) + LANES) // LANES * LANES


cdef inline Entries entries_at(float* memory, bint bytes, int64_t columns, int64_t lanes) noexcept nogil:
    cdef Entries e
    cdef int64_t n = runs_of(columns) * lanes + LANES
    e.value = memory
    e.byte = <uint8_t*>memory
    e.lane = <uint8_t*>(memory + n * (RUN if not bytes else RUN // 4))
    e.start = <int32_t*>(e.lane + n)
    e.end = e.start + runs_of(columns)
    e.lanes = lanes
    return e


cdef kernel_void find_entries(
    const uint8_t* bytes, const float* floats, int64_t stride, int64_t columns, const int64_t* row, int64_t n,
    int64_t block, const Entries* e,
) noexcept nogil:
    """List the entries of n examples in one block of columns. Rows are `stride` numbers apart."""
    cdef int64_t first = block * BLOCK_RUNS, last = smaller(first + BLOCK_RUNS, runs_of(columns)), i, lane, k
    cdef int32_t found = <int32_t>(first * e.lanes)
    cdef int32_t mask[GROUP_TILES][BLOCK_RUNS]
    cdef uint32_t some
    cdef const uint8_t* byte_row[GROUP]
    if HAVE_TURN and bytes != NULL:
        for lane in range(n):
            byte_row[lane] = bytes + row[lane] * stride + first * RUN
        i = smaller(last, columns // RUN)
        found = turn_and_append(byte_row, <int>n, <int>(i - first), found, e.start + first, e.end + first, e.lane, e.byte)
        first = i
    if first == last:
        return
    memset(mask, 0, sizeof(mask))
    k = smaller(last * RUN, columns) - first * RUN
    for lane in range(n):
        i = row[lane] * stride + first * RUN
        if bytes != NULL:
            mark_bytes(bytes + i, k, <int32_t>(<uint32_t>1 << lane % LANES), mask[lane // LANES])
        else:
            mark_floats(floats + i, k, <int32_t>(<uint32_t>1 << lane % LANES), mask[lane // LANES])
    for i in range(first, last):
        e.start[i] = found
        for k in range((n + LANES - 1) // LANES):
            some = <uint32_t>mask[k][i - first]
            while some:
                lane = k * LANES + lowest_bit(some)
                some = some & (some - 1)
                e.lane[found] = <uint8_t>lane
                if bytes != NULL:
                    copy_bytes(bytes + row[lane] * stride + i * RUN, columns - i * RUN, e.byte + <int64_t>found * RUN)
                else:
                    copy_floats(floats + row[lane] * stride + i * RUN, columns - i * RUN, e.value + <int64_t>found * RUN)
                found = found + 1
        e.end[i] = found


cdef inline const float* values_of(const Entries* e, bint bytes, int64_t run, int64_t end, float* memory) noexcept nogil:
    """Values of the entries of some runs; bytes are converted into `memory`, to byte / 256 (_bytes.pxi).

    What comes back is where the first entry of all would be.
    """
    cdef int64_t first = e.start[run], i, j, k
    if not bytes:
        return e.value
    while run < end:
        k = smaller(run // BLOCK_RUNS * BLOCK_RUNS + BLOCK_RUNS, end)
        i = e.start[run]
        for j in range((e.end[k - 1] - i) * RUN):
            memory[(i - first) * RUN + j] = e.byte[i * RUN + j] * <float>0.00390625
        run = k
    return memory - first * RUN


cdef struct Fetch:
    const char* data
    const int64_t* row   # of examples that are soon read, or NULL: one after the other
    int64_t stride       # bytes from one to the next
    int64_t example      # where it has come to
    int64_t last
    int64_t line
    int64_t first_line   # which bytes of a row
    int64_t last_line
    int64_t at_once


cdef inline void fetch_some(Fetch* fetch) noexcept nogil:
    # Shuffled examples lie anywhere in memory, and no hardware prefetcher knows their order; asked for all at once they are
    # more than the processor can wait for. So a kernel fetches a few lines with each run of columns.
    cdef int64_t i, row
    for i in range(fetch.at_once):
        if fetch.example < fetch.last:
            row = fetch.row[fetch.example] if fetch.row != NULL else fetch.example
            prefetch(fetch.data + row * fetch.stride + fetch.line)
            fetch.line = fetch.line + 64
            if fetch.line >= fetch.last_line:
                fetch.line, fetch.example = fetch.first_line, fetch.example + 1
