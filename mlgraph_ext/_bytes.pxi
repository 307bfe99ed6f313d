# Data in bytes as sparse rows read them. What a row picks comes in random order, and 32 examples of MNIST in float32 are
# 100 KB: loads from the L2 cache. A byte is a number of eight bits, and so exactly a bfloat16, the upper half of a float32.
# Two of them share a word, and a word becomes two floats by a mask and a shift, which cost less than the loads they save.
#
#   word i of a slot: the byte of lane i in the upper half, that of lane i + LANES / 2 in the lower, both as byte / 256
#
# Division by 256 is exact and keeps sums as small as those of byte / 255, what is meant; whoever sums multiplies by the
# rest, 256 / 255.

cdef extern from *:
    """
    #include <string.h>
    #define HALF_VECS (SLOT_VECS / 2)

    /* Loaded once: GCC would rather load it twice than spend a register. */
    #if defined(__AVX512F__)
    #define IN_REGISTER(x) __asm__("" : "+v"(x))
    #elif defined(__x86_64__)
    #define IN_REGISTER(x) __asm__("" : "+x"(x))
    #else
    #define IN_REGISTER(x)
    #endif

    /* A slot of 32 bytes as floats. */
    static inline void widen(const float *slot, vec *x) {
        for (int c = 0; c < HALF_VECS; c++) {
            ivec word = ((const ivec *)slot)[c];
            IN_REGISTER(word);
            x[c] = (vec)(word & (int32_t)0xffff0000);
            x[c + HALF_VECS] = (vec)(word << 16);
        }
    }
    /* And back, from the bytes `shift` bits up in a word of each lane. */
    static inline void narrow(const int32_t *lane, int shift, float *slot) {
        for (int c = 0; c < HALF_VECS; c++) {
            ivec upper = (((const ivec *)lane)[c] >> shift) & 255, lower = (((const ivec *)lane)[c + HALF_VECS] >> shift) & 255;
            upper = (ivec)(__builtin_convertvector(upper, vec) * 0x1p-8f);
            lower = (ivec)(__builtin_convertvector(lower, vec) * 0x1p-8f);
            ((ivec *)slot)[c] = upper | lower >> 16;
        }
    }
    /* Bytes of a row of floats; how many of them are no byte / 255. */
    static int64_t row_as_bytes(const float *x, int64_t n, uint8_t *out) {
        int32_t others = 0;
        for (int64_t i = 0; i < n; i++) {
            int inside = x[i] >= 0 && x[i] <= 1;  /* not so for NaN: nothing is converted that an integer cannot hold */
            out[i] = (uint8_t)(int32_t)((inside ? x[i] : 0) * 255.0f + 0.5f);
            others += !inside | ((float)out[i] / 255.0f != x[i]);
        }
        return others;
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
    """
    enum: HALF_VECS
    void widen(const float*, vec*) noexcept nogil
    void narrow(const int32_t*, int, float*) noexcept nogil
    int64_t row_as_bytes(const float*, int64_t, uint8_t*) noexcept nogil
    int32_t four_bytes(const uint8_t*, int64_t) noexcept nogil


cdef enum:
    BYTE_SLOT = LANES // 2   # floats, as far as memory goes
    LOADED = 16              # words of each example


cdef kernel_void load_bytes(
    const uint8_t* bytes, int64_t columns, const int32_t* column, int64_t n, const int64_t* row, const int64_t* after,
    float* slots,
) noexcept nogil:
    """The transpose from examples to byte slots, of the n columns listed in ascending order.

    `after`: the examples that this worker takes next. Shuffled examples lie anywhere in memory, and waiting for them took
    three times as long as the transpose.
    """
    # A block of columns after the other: so much lies between writing the words of the lanes and reading them as vectors
    # that they have left the store buffer, from which no vector could be put together.
    cdef int32_t word[LOADED][LANES]
    cdef int64_t k, s = 0, lane, i
    while s < n:
        k = column[s]
        for lane in range(LANES):
            prefetch(bytes + after[lane] * columns + k)
            for i in range(smaller(LOADED, (columns - k + 3) // 4)):
                word[i][lane] = four_bytes(bytes + row[lane] * columns + k + 4 * i, columns - k - 4 * i)
        while s < n and column[s] < k + 4 * LOADED:
            narrow(word[(column[s] - k) // 4], 8 * ((column[s] - k) % 4), slots + s * BYTE_SLOT)
            s = s + 1
