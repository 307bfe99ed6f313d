# Data in bytes, as sparse rows read them. A row reads its sources in random order, and a tile of
# MNIST in float32 takes 100 KB, so its loads would come from the L2 cache. A byte has eight bits
# and is therefore exactly a bfloat16, the upper half of a float32. Two of these share a word. A
# mask and a shift convert the word to two floats and cost less than the loads they save.
#
#   word i of a slot: the byte of lane i in the upper half, that of lane i + LANES / 2 in the lower,
#   both as byte / 256
#
# Division by 256 is exact and keeps sums as small as those of byte / 255, the value that is meant.
# The kernels multiply their sums by the rest, 256 / 255.

cdef extern from *:
    """
    #include <string.h>
    #define HALF_VECS (SLOT_VECS / 2)

    /* Keeps x in a register; GCC would otherwise load it twice. */
    #if defined(__AVX512F__)
    #define IN_REGISTER(x) __asm__("" : "+v"(x))
    #elif defined(__x86_64__)
    #define IN_REGISTER(x) __asm__("" : "+x"(x))
    #else
    #define IN_REGISTER(x)
    #endif

    /* Converts vectors c and c + HALF_VECS of a byte slot to floats. */
    static inline void widen_pair(const float *slot, int c, vec *upper, vec *lower) {
        ivec word = ((const ivec *)slot)[c];
        IN_REGISTER(word);
        *upper = (vec)(word & (int32_t)0xffff0000);
        *lower = (vec)(word << 16);
    }
    /* Converts only the first half of the lanes. */
    static inline vec widen_upper(const float *slot, int c) { return (vec)(((const ivec *)slot)[c] & (int32_t)0xffff0000); }
    /* Packs a slot from the byte at bit `shift` of each lane's word. */
    static inline void narrow(const int32_t *lane, int shift, float *slot) {
        for (int c = 0; c < HALF_VECS; c++) {
            ivec upper = (((const ivec *)lane)[c] >> shift) & 255, lower = (((const ivec *)lane)[c + HALF_VECS] >> shift) & 255;
            upper = (ivec)(__builtin_convertvector(upper, vec) * 0x1p-8f);
            lower = (ivec)(__builtin_convertvector(lower, vec) * 0x1p-8f);
            ((ivec *)slot)[c] = upper | lower >> 16;
        }
    }
    /* Converts a row of floats to bytes; returns how many of them are not exactly byte / 255. */
    static int64_t row_as_bytes(const float *x, int64_t n, uint8_t *out) {
        int32_t others = 0;
        for (int64_t i = 0; i < n; i++) {
            int inside = !__builtin_signbit(x[i]) && x[i] <= 1;  /* excludes -0, and NaN, which has no integer value */
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
    """
    enum: HALF_VECS
    void widen_pair(const float*, int, vec*, vec*) noexcept nogil
    vec widen_upper(const float*, int) noexcept nogil
    void narrow(const int32_t*, int, float*) noexcept nogil
    int64_t row_as_bytes(const float*, int64_t, uint8_t*) noexcept nogil
    void take_row(const uint8_t*, const int32_t*, int64_t, int, uint8_t*, int64_t) noexcept nogil


cdef enum:
    BYTE_SLOT = LANES // 2   # floats that take as much memory as a byte slot
