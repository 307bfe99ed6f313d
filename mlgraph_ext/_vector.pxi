# The machine underneath: one vector type and the shape of a register tile.
#
# `vec` is a GCC/clang vector as wide as the widest register of the instruction set. A register tile
# that is an array of `vec` stays in registers in every build and with both compilers. With loops
# over floats, that would depend on which loop the vectoriser chooses. A type wider than the
# registers would be correct, but GCC keeps it in memory. With `ANYWHERE` loads and stores need no
# alignment, which costs nothing on aligned data.
#
# A register tile is TILE_ROWS broadcast operands times TILE_VECS vectors: 16 accumulators of 32
# registers (AVX-512), 8 of 16 (AVX2, where FMA latency times throughput is 8 to 10), 8 of 16 (SSE,
# where the product needs a register of its own).

from libc.stdlib cimport free
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__SSE2__)
    #include <immintrin.h>
    #elif defined(__aarch64__)
    #include <arm_neon.h>
    #endif
    #if defined(__AVX512F__)
    #define VEC_WIDTH 16
    #define TILE_ROWS 8
    #define TILE_VECS 2
    #elif defined(__AVX__)
    #define VEC_WIDTH 8
    #define TILE_ROWS 4
    #define TILE_VECS 2
    #else
    #define VEC_WIDTH 4
    #define TILE_ROWS 2
    #define TILE_VECS 4
    #endif
    #define LANES 32
    #define PANEL 16
    #define SLOT_VECS (LANES / VEC_WIDTH)
    #define PANEL_VECS (PANEL / VEC_WIDTH)
    #define TILE_WIDTH (TILE_VECS * VEC_WIDTH)
    /* GCC 14.2 for AArch64 crashes if a function takes such a type. Loads there need no alignment anyway. */
    #if defined(__aarch64__) && !defined(__clang__)
    #define ANYWHERE may_alias
    #else
    #define ANYWHERE aligned(4), may_alias
    #endif
    typedef float vec __attribute__((vector_size(4 * VEC_WIDTH), ANYWHERE));
    /* A kernel is never inlined, because inside the sweep it would lose its registers to the sweep's variables. */
    #define mlgraph_kernel_void __attribute__((noinline)) void
    static inline vec splat(float x) { return x - (vec){0}; }  /* minus, because -0.0 + 0 would be +0 */
    /* a * b + c, rounded once on the processors listed here. Otherwise the compiler might fuse a product and a sum in one
       variant of a kernel and not in another, and the bits would depend on the number of threads. On other processors it
       still decides. */
    static inline vec multiply_add(vec a, vec b, vec c) {
    #if defined(__AVX512F__)
        return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
    #elif defined(__FMA__)
        return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
    #elif defined(__aarch64__)
        return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
    #else
        return a * b + c;
    #endif
    }
    typedef int32_t ivec __attribute__((vector_size(4 * VEC_WIDTH), ANYWHERE));
    /* x in lanes whose bit is one, 0 elsewhere. GCC vectorises no loop that does this. */
    static inline vec choose(vec x, int32_t bits) {
    #if defined(__AVX512F__)
        return (vec)_mm512_maskz_mov_ps((__mmask16)bits, (__m512)x);
    #else
        ivec bit, chosen;
        for (int l = 0; l < VEC_WIDTH; l++) bit[l] = 1 << l;
        chosen = (((ivec){0} + bits) & bit) == bit;
        return (vec)((ivec)x & chosen);
    #endif
    }
    /* If `on`, results below the normal numbers (1.2e-38) become zero on this thread from now on. (Subnormal operands still
       count, so that derivatives are those of the values computed.) Returns the previous state for `restore_numbers`. */
    static inline unsigned flush_subnormals(int on) {
        (void)on;
    #if defined(__SSE2__)
        unsigned before = _mm_getcsr();
        if (on) _mm_setcsr(before | _MM_FLUSH_ZERO_ON);
        return before;
    #else
        return 0;
    #endif
    }
    static inline void restore_numbers(unsigned before) {
    #if defined(__SSE2__)
        _mm_setcsr(before);
    #else
        (void)before;
    #endif
    }
    /* Prefetches into the L2 cache. In L1, data prefetched so early would evict data in use. */
    static inline void prefetch_later(const void *p) { __builtin_prefetch(p, 0, 2); }
    /* Prefetches into this core's L1 cache and evicts the lines from all others. A store to a line that another core holds
       waits until that core gives it up, and all later stores wait, too. This requests many lines at once. (prefetchw is a
       no-op on old processors.) */
    static inline void prefetch_to_write(const float *p, int64_t n) {
        for (int64_t i = 0; i < n; i += 64 / (int64_t)sizeof(float))
    #if defined(__x86_64__)
            __asm__ volatile("prefetchw %0" : : "m"(p[i]));
    #else
            __builtin_prefetch(p + i, 1);
    #endif
    }
    #ifdef __clang__
    #define SHUFFLE __builtin_shufflevector
    #else
    #define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
    #endif
    /* Combine the lower or upper halves of a and b in each 128 bits: ZIP alternates numbers, JOIN concatenates the halves. */
    #if defined(__AVX512F__)
    #define ZIP_LOW(a, b) (vec)_mm512_unpacklo_ps((__m512)(a), (__m512)(b))
    #define ZIP_HIGH(a, b) (vec)_mm512_unpackhi_ps((__m512)(a), (__m512)(b))
    #define JOIN_LOW(a, b) (vec)_mm512_shuffle_ps((__m512)(a), (__m512)(b), 0x44)
    #define JOIN_HIGH(a, b) (vec)_mm512_shuffle_ps((__m512)(a), (__m512)(b), 0xee)
    #elif defined(__AVX__)
    #define ZIP_LOW(a, b) (vec)_mm256_unpacklo_ps((__m256)(a), (__m256)(b))
    #define ZIP_HIGH(a, b) (vec)_mm256_unpackhi_ps((__m256)(a), (__m256)(b))
    #define JOIN_LOW(a, b) (vec)_mm256_shuffle_ps((__m256)(a), (__m256)(b), 0x44)
    #define JOIN_HIGH(a, b) (vec)_mm256_shuffle_ps((__m256)(a), (__m256)(b), 0xee)
    #else
    #define ZIP_LOW(a, b) SHUFFLE(a, b, 0, 4, 1, 5)
    #define ZIP_HIGH(a, b) SHUFFLE(a, b, 2, 6, 3, 7)
    #define JOIN_LOW(a, b) SHUFFLE(a, b, 0, 1, 4, 5)
    #define JOIN_HIGH(a, b) SHUFFLE(a, b, 2, 3, 6, 7)
    #endif
    /* Transposes a square in registers: element k of v[i] becomes element i of v[k]. */
    static inline void transpose_square(vec *v)
    {
        for (int i = 0; i < VEC_WIDTH; i += 4) {  /* squares of four by four, in each 128 bits */
            vec ab = ZIP_LOW(v[i], v[i + 1]), cd = ZIP_LOW(v[i + 2], v[i + 3]);
            vec ab_ = ZIP_HIGH(v[i], v[i + 1]), cd_ = ZIP_HIGH(v[i + 2], v[i + 3]);
            v[i] = JOIN_LOW(ab, cd), v[i + 1] = JOIN_HIGH(ab, cd);
            v[i + 2] = JOIN_LOW(ab_, cd_), v[i + 3] = JOIN_HIGH(ab_, cd_);
        }
    #if defined(__AVX512F__)
        for (int i = 0; i < 4; i++) {
            __m512 a = (__m512)v[i], b = (__m512)v[i + 4], c = (__m512)v[i + 8], d = (__m512)v[i + 12];
            __m512 ab = _mm512_shuffle_f32x4(a, b, 0x88), cd = _mm512_shuffle_f32x4(c, d, 0x88);
            __m512 ab_ = _mm512_shuffle_f32x4(a, b, 0xdd), cd_ = _mm512_shuffle_f32x4(c, d, 0xdd);
            v[i] = (vec)_mm512_shuffle_f32x4(ab, cd, 0x88), v[i + 8] = (vec)_mm512_shuffle_f32x4(ab, cd, 0xdd);
            v[i + 4] = (vec)_mm512_shuffle_f32x4(ab_, cd_, 0x88), v[i + 12] = (vec)_mm512_shuffle_f32x4(ab_, cd_, 0xdd);
        }
    #elif defined(__AVX__)
        for (int i = 0; i < 4; i++) {
            __m256 a = (__m256)v[i], b = (__m256)v[i + 4];
            v[i] = (vec)_mm256_permute2f128_ps(a, b, 0x20), v[i + 4] = (vec)_mm256_permute2f128_ps(a, b, 0x31);
        }
    #endif
    }
    /* to[k][i] = row[i][k] for k < n and i < VEC_WIDTH. Rows may have any address and are read up to the next multiple of
       VEC_WIDTH numbers. Only whole vectors are stored: pieces of a vector would have to leave the store buffer before it can
       be loaded. */
    static inline void transpose(const void *const *row, int64_t n, float *to, int64_t stride)
    {
        for (int64_t k = 0; k < n; k += VEC_WIDTH) {
            vec v[VEC_WIDTH];
            for (int i = 0; i < VEC_WIDTH; i++) memcpy(&v[i], (const char *)row[i] + 4 * k, sizeof(vec));
            transpose_square(v);
            for (int i = 0; i < VEC_WIDTH; i++)
                if (k + i < n) *(vec *)(to + (k + i) * stride) = v[i];
        }
    }
    /* Transposes rows of n >= 1 examples to slots of neurons: to[neuron][lane] = from[lane][neuron]. Lanes from n on repeat
       lane n - 1. */
    static inline void to_lanes(const float *from, int64_t stride, int64_t n, int64_t neurons, float *to)
    {
        for (int64_t first = 0; first < LANES; first += VEC_WIDTH)
            if (first < n) {
                const void *row[VEC_WIDTH];
                for (int i = 0; i < VEC_WIDTH; i++) row[i] = from + (first + i < n ? first + i : n - 1) * stride;
                transpose(row, neurons, to + first, LANES);
            } else
                for (int64_t k = 0; k < neurons; k++) *(vec *)(to + k * LANES + first) = splat(to[k * LANES + n - 1]);
    }
    """
    ctypedef float vec
    ctypedef void kernel_void "mlgraph_kernel_void"
    enum: VEC_WIDTH      # floats in a register
    enum: TILE_ROWS      # broadcast operands of a register tile (a divisor of PANEL)
    enum: TILE_VECS      # vectors of a register tile
    enum: TILE_WIDTH     # floats across a register tile (a divisor of LANES)
    enum: LANES          # examples of a tile, and floats of a slot
    enum: PANEL          # neurons side by side in the parameter vector
    enum: SLOT_VECS      # vectors of a slot
    enum: PANEL_VECS     # vectors across a panel
    vec splat(float) noexcept nogil
    vec multiply_add(vec, vec, vec) noexcept nogil
    void prefetch_later(const void*) noexcept nogil
    void prefetch_to_write(const float*, int64_t) noexcept nogil
    unsigned int flush_subnormals(bint) noexcept nogil
    void restore_numbers(unsigned int) noexcept nogil
    vec choose(vec, int32_t) noexcept nogil
    void transpose(const void**, int64_t, float*, int64_t) noexcept nogil
    void to_lanes(const float*, int64_t, int64_t, int64_t, float*) noexcept nogil


cdef inline int64_t smaller(int64_t a, int64_t b) noexcept nogil:
    return a if a < b else b


cdef inline int64_t panels_of(int64_t count) noexcept nogil:
    return (count + PANEL - 1) // PANEL


cdef extern from *:
    """
    #include <stdlib.h>
    /* Aligned to a cache line, like the engine's memory, because a vector across two lines costs twice. */
    static void *zeros(size_t n, size_t size) {
        void *p = NULL;
        if (posix_memalign(&p, 64, n * size + 64)) return NULL;  /* + 64, because 0 bytes might also give NULL */
        return memset(p, 0, n * size);
    }
    """
    void* zeros(size_t, size_t) noexcept nogil
