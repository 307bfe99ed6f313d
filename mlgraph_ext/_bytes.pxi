# Data turned from examples to lanes, as words of four bytes or as floats; and bytes as sparse rows read them. A row reads its
# sources in random order, and a tile of MNIST in float32 is 100 KB, so loads would come from the L2 cache. A byte has eight
# bits and so is exactly a bfloat16, the upper half of a float32. Two of these share a word; a mask and a shift turn it into
# two floats, and cost less than the loads they save.
#
#   word i of a slot: the byte of lane i in the upper half, that of lane i + LANES / 2 in the lower, both as byte / 256
#
# Division by 256 is exact and keeps sums as small as those of byte / 255, the value meant; the kernels multiply their sums by
# the rest, 256 / 255.

cdef extern from *:
    """
    #include <string.h>
    #define HALF_VECS (SLOT_VECS / 2)
    #define LOADED 16

    /* x stays in a register: GCC would rather load it twice. */
    #if defined(__AVX512F__)
    #define IN_REGISTER(x) __asm__("" : "+v"(x))
    #elif defined(__x86_64__)
    #define IN_REGISTER(x) __asm__("" : "+x"(x))
    #else
    #define IN_REGISTER(x)
    #endif

    /* Vectors c and c + HALF_VECS of a slot of 32 bytes, as floats. */
    static inline void widen_pair(const float *slot, int c, vec *upper, vec *lower) {
        ivec word = ((const ivec *)slot)[c];
        IN_REGISTER(word);
        *upper = (vec)(word & (int32_t)0xffff0000);
        *lower = (vec)(word << 16);
    }
    /* Only those of the first half of the lanes. */
    static inline vec widen_upper(const float *slot, int c) { return (vec)(((const ivec *)slot)[c] & (int32_t)0xffff0000); }
    /* The reverse: a slot from the byte that stands `shift` bits up in each lane's word. */
    static inline void narrow(const int32_t *lane, int shift, float *slot) {
        for (int c = 0; c < HALF_VECS; c++) {
            ivec upper = (((const ivec *)lane)[c] >> shift) & 255, lower = (((const ivec *)lane)[c + HALF_VECS] >> shift) & 255;
            upper = (ivec)(__builtin_convertvector(upper, vec) * 0x1p-8f);
            lower = (ivec)(__builtin_convertvector(lower, vec) * 0x1p-8f);
            ((ivec *)slot)[c] = upper | lower >> 16;
        }
    }
    /* Converts a row of floats to bytes; returns how many of them are not byte / 255. */
    static int64_t row_as_bytes(const float *x, int64_t n, uint8_t *out) {
        int32_t others = 0;
        for (int64_t i = 0; i < n; i++) {
            int inside = !__builtin_signbit(x[i]) && x[i] <= 1;  /* not -0; nor NaN, which no integer can hold */
            out[i] = (uint8_t)(int32_t)((inside ? x[i] : 0) * 255.0f + 0.5f);
            others += !inside | ((float)out[i] / 255.0f != x[i]);
        }
        return others;
    }
    static void take_row(const uint8_t *x, const int32_t *column, int64_t n, int size, uint8_t *out, int64_t row) {
        if (size == 1) for (int64_t k = 0; k < n; k++) out[k] = x[column[k]];
        else for (int64_t k = 0; k < n; k++) memcpy(out + 4 * k, x + 4 * (int64_t)column[k], 4);
        memset(out + n * size, 0, (size_t)(row - n * size));
    }
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
    enum: HALF_VECS
    void widen_pair(const float*, int, vec*, vec*) noexcept nogil
    vec widen_upper(const float*, int) noexcept nogil
    void narrow(const int32_t*, int, float*) noexcept nogil
    int64_t row_as_bytes(const float*, int64_t, uint8_t*) noexcept nogil
    void take_row(const uint8_t*, const int32_t*, int64_t, int, uint8_t*, int64_t) noexcept nogil
    void words_of_rows(const uint8_t**, int64_t, int64_t, bint, int32_t (*)[LANES]) noexcept nogil
    void spread_byte(const int32_t*, int, float*) noexcept nogil


cdef enum:
    BYTE_SLOT = LANES // 2   # floats that take the same memory


cdef kernel_void load_bytes(
    const uint8_t* bytes, int64_t columns, const int32_t* column, int64_t n, const int64_t* row, const int64_t* after,
    float* slots,
) noexcept nogil:
    """Transpose n columns, listed in ascending order, from examples to byte slots.

    `after`: the examples that this worker takes next, to prefetch. Shuffled examples lie anywhere in memory, and no hardware
    prefetcher knows their order.
    """
    # One block of columns after the other: words stored lane by lane have left the store buffer, which could not forward them
    # to a vector load, when they are loaded as vectors.
    cdef int32_t word[LOADED][LANES]
    cdef const uint8_t* start[LANES]
    cdef int64_t k, s = 0, lane, asked
    for lane in range(LANES):
        start[lane] = bytes + row[lane] * columns
    while s < n:
        # At the end of a row a block begins earlier, to be whole if it can.
        k = column[s] if columns < 4 * LOADED else smaller(column[s], columns - 4 * LOADED)
        words_of_rows(start, k, columns - k, True, word)
        asked = 0
        while s < n and column[s] < k + 4 * LOADED:
            narrow(word[(column[s] - k) // 4], 8 * ((column[s] - k) % 4), slots + s * BYTE_SLOT)
            s = s + 1
            # One per column: all at once would be more misses than the processor can track.
            if asked < LANES:
                prefetch_later(bytes + after[asked] * columns + k)
                asked = asked + 1
        for lane in range(asked, LANES):
            prefetch_later(bytes + after[lane] * columns + k)
