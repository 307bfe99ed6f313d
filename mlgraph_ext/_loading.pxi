# Data turned from examples to lanes: rows are read as words, a float or four bytes each, and transposed 16 by 16, or four by
# four.

cdef extern from *:
    """
    #define LOADED 16

    static inline int32_t four_bytes(const uint8_t *p, int64_t n) {
        uint32_t x = 0;
        if (n >= 4) memcpy(&x, p, 4);
        else memcpy(&x, p, n);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        x = __builtin_bswap32(x);
    #endif
        return (int32_t)x;
    }
    #if defined(__AVX512BW__)
    /* w[k] = word k of 16 rows, of which n exist; `there` has a bit for each word that a row has from byte `at` on. */
    static inline void turn(const uint8_t *const *row, int n, int64_t at, __mmask16 there, __m512i *w)
    {
        __m512i a[16], b[16];
        for (int i = 0; i < 16; i++) {
            a[i] = i < n ? _mm512_maskz_loadu_epi32(there, row[i] + at) : _mm512_setzero_si512();
            if (i < n) __builtin_prefetch(row[i] + at + 2 * sizeof(__m512i));  /* for rows not prefetched yet */
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
    #endif
    /* word[k][lane] = word k of a row from byte `at` on, where n bytes of it are left: a float, or four bytes, of which the
       first stands lowest. */
    static inline void words_of_rows(const uint8_t *const *row, int64_t at, int64_t n, int bytes, int32_t (*word)[LANES])
    {
    #if defined(__AVX512BW__)
        if (n >= 4 * LOADED) {
            for (int first = 0; first < LANES; first += 16) {
                __m512i w[16];
                turn(row + first, 16, at, (__mmask16)-1, w);
                for (int k = 0; k < 16; k++) _mm512_storeu_si512(&word[k][first], w[k]);
            }
            return;
        }
    #elif __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        if (n >= 4 * LOADED) {
            for (int lane = 0; lane < LANES; lane += 4)
                for (int64_t k = 0; k < LOADED; k += 4)
                    turn_four(row[lane] + at + 4 * k, row[lane + 1] + at + 4 * k, row[lane + 2] + at + 4 * k,
                              row[lane + 3] + at + 4 * k, (float *)&word[k][lane], LANES);
            return;
        }
    #endif
        for (int lane = 0; lane < LANES; lane++)
            for (int64_t k = 0; k < LOADED && 4 * k < n; k++)
                if (bytes) word[k][lane] = four_bytes(row[lane] + at + 4 * k, n - 4 * k);
                else memcpy(&word[k][lane], row[lane] + at + 4 * k, 4);
    }
    /* A slot of floats, byte / 255, from the byte that stands `shift` bits up in each lane's word. */
    static inline void spread_byte(const int32_t *lane, int shift, float *slot)
    {
        for (int c = 0; c < SLOT_VECS; c++)
            ((vec *)slot)[c] = __builtin_convertvector((((const ivec *)lane)[c] >> shift) & 255, vec) / 255.0f;
    }
    """
    enum: LOADED             # words loaded of each example at once
    void words_of_rows(const uint8_t**, int64_t, int64_t, bint, int32_t (*)[LANES]) noexcept nogil
    void spread_byte(const int32_t*, int, float*) noexcept nogil


cdef kernel_void load(
    const uint8_t* bytes, const float* floats, int64_t columns, const int32_t* column, int64_t n, const int64_t* row,
    const int64_t* after, bint as_bytes, float* slots,
) noexcept nogil:
    """Transpose n columns, listed in ascending order, from examples to slots of floats or, with `as_bytes`, of bytes to byte
    slots.

    `after`: the examples that this worker takes next, to prefetch. Shuffled examples lie anywhere in memory, and no hardware
    prefetcher knows their order.
    """
    # One block of columns after the other: words stored lane by lane have left the store buffer, which could not forward them
    # to a vector load, when they are loaded as vectors.
    cdef int32_t word[LOADED][LANES]
    cdef const uint8_t* start[LANES]
    cdef const uint8_t* data = bytes if bytes != NULL else <const uint8_t*>floats
    cdef int64_t size = 1 if bytes != NULL else sizeof(float), block = LOADED * sizeof(float) // size
    cdef int64_t k, at, s = 0, lane, asked
    for lane in range(LANES):
        start[lane] = data + row[lane] * columns * size
    while s < n:
        # At the end of a row a block begins earlier, to be whole if it can.
        k = column[s] if columns < block else smaller(column[s], columns - block)
        words_of_rows(start, k * size, (columns - k) * size, bytes != NULL, word)
        asked = 0
        while s < n and column[s] < k + block:
            at = column[s] - k
            if bytes == NULL:
                memcpy(slots + s * LANES, word[at], LANES * sizeof(float))
            elif as_bytes:
                narrow(word[at // 4], 8 * (at % 4), slots + s * BYTE_SLOT)
            else:
                spread_byte(word[at // 4], 8 * (at % 4), slots + s * LANES)
            s = s + 1
            # One per column: all at once would be more misses than the processor can track.
            if asked < LANES:
                prefetch_later(data + (after[asked] * columns + k) * size)
                asked = asked + 1
        for lane in range(asked, LANES):
            prefetch_later(data + (after[lane] * columns + k) * size)
