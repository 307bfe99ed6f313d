# Compressing data that is mostly zero into rows of its nonzeros: all at once for training, tile by tile for prediction.
#
# Whether a pixel is zero cannot be guessed, so no loop here jumps on it. AVX-512 has an instruction for just this, in an
# extension (VBMI2) that not every processor with AVX-512 has: 64 bytes at a time, 8 to 10 times the portable loop.

cdef extern from *:
    """
    #include <string.h>
    static inline uint64_t load_word(const uint8_t *p) { uint64_t w; memcpy(&w, p, 8); return w; }

    #if defined(__AVX512BW__)
    #include <immintrin.h>
    #define HAVE_VBMI2 __builtin_cpu_supports("avx512vbmi2")
    #define FIRST_BITS(n) ((n) >= 64 ? ~0ULL : (1ULL << (n)) - 1)

    __attribute__((target("avx512vbmi2"))) static inline int64_t store_columns(
        uint32_t nonzero, int64_t first, uint16_t *to, int64_t room)
    {
        static const uint16_t iota[32] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                                          16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
        int64_t n = __builtin_popcount(nonzero);
        if (n > room) n = room;
        __m512i column = _mm512_add_epi16(_mm512_loadu_si512(iota), _mm512_set1_epi16((short)first));
        _mm512_mask_storeu_epi16(to, (uint32_t)FIRST_BITS(n), _mm512_maskz_compress_epi16(nonzero, column));
        return n;
    }
    __attribute__((target("avx512vbmi2"))) static int64_t compress_bytes_vbmi2(
        const uint8_t *x, int64_t first, int64_t last, int64_t room, uint16_t *column, uint8_t *value)
    {
        int64_t n = 0;
        for (int64_t k = first; k < last; k += 64) {
            __m512i v = _mm512_maskz_loadu_epi8(FIRST_BITS(last - k), x + k);
            uint64_t nonzero = _mm512_test_epi8_mask(v, v);
            if (!nonzero) continue;
            int64_t low = store_columns((uint32_t)nonzero, k, column + n, room - n);
            int64_t both = low + store_columns((uint32_t)(nonzero >> 32), k + 32, column + n + low, room - n - low);
            _mm512_mask_storeu_epi8(value + n, FIRST_BITS(both), _mm512_maskz_compress_epi8(nonzero, v));
            n += both;
        }
        return n;
    }
    __attribute__((target("avx512vbmi2"))) static int64_t compress_floats_vbmi2(
        const float *x, int64_t first, int64_t last, int64_t room, uint16_t *column, float *value)
    {
        int64_t n = 0;
        for (int64_t k = first; k < last; k += 16) {
            __m512 v = _mm512_maskz_loadu_ps((uint16_t)FIRST_BITS(last - k), x + k);
            uint16_t nonzero = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
            int64_t some = store_columns(nonzero, k, column + n, room - n);
            _mm512_mask_storeu_ps(value + n, (uint16_t)FIRST_BITS(some), _mm512_maskz_compress_ps(nonzero, v));
            n += some;
        }
        return n;
    }
    #else
    #define HAVE_VBMI2 0
    static int64_t compress_bytes_vbmi2(const uint8_t *x, int64_t k, int64_t l, int64_t r, uint16_t *c, uint8_t *v)
    { (void)x, (void)k, (void)l, (void)r, (void)c, (void)v; return 0; }
    static int64_t compress_floats_vbmi2(const float *x, int64_t k, int64_t l, int64_t r, uint16_t *c, float *v)
    { (void)x, (void)k, (void)l, (void)r, (void)c, (void)v; return 0; }
    #endif
    """
    bint HAVE_VBMI2
    uint64_t load_word(const uint8_t*) noexcept nogil
    int64_t compress_bytes_vbmi2(const uint8_t*, int64_t, int64_t, int64_t, uint16_t*, uint8_t*) noexcept nogil
    int64_t compress_floats_vbmi2(const float*, int64_t, int64_t, int64_t, uint16_t*, float*) noexcept nogil


cdef int64_t compress_bytes(
    const uint8_t* x, int64_t first, int64_t last, int64_t room, uint16_t* column, uint8_t* value,
) noexcept nogil:
    """Columns and values of the nonzeros among x[first:last], as many as there is room for; their number."""
    cdef int64_t k = first, j, n = 0
    if HAVE_VBMI2:
        return compress_bytes_vbmi2(x, first, last, room, column, value)
    while k < last:
        if k + 8 <= last and load_word(x + k) == 0:
            k = k + 8
            continue
        # All eight are written, and those that are zero written over, as long as there is room.
        for j in range(k, smaller(k + 8, last)):
            if n < room:
                column[n] = <uint16_t>j
                value[n] = x[j]
                n = n + (x[j] != 0)
        k = k + 8
    return n


cdef int64_t compress_floats(
    const float* x, int64_t first, int64_t last, int64_t room, uint16_t* column, float* value,
) noexcept nogil:
    """The same of floats; a NaN is not zero."""
    cdef int64_t k, n = 0
    if HAVE_VBMI2:
        return compress_floats_vbmi2(x, first, last, room, column, value)
    for k in range(first, last):
        if n < room:
            column[n] = <uint16_t>k
            value[n] = x[k]
            n = n + (x[k] != 0)
    return n


def count_nonzero(const uint8_t[:, ::1] bytes, const float[:, ::1] floats, int64_t[::1] out, int n_threads):
    """out[i] = number of nonzero values in row i of `bytes`, or of `floats` where `bytes` is None."""
    cdef int64_t n = bytes.shape[0] if bytes is not None else floats.shape[0]
    cdef int64_t columns = bytes.shape[1] if bytes is not None else floats.shape[1]
    cdef const uint8_t* b = &bytes[0, 0] if bytes is not None else NULL
    cdef const float* x = &floats[0, 0] if bytes is None else NULL
    cdef int64_t i
    if out.shape[0] != n:
        raise ValueError(f"out: expected {n} numbers, came {out.shape[0]}")
    for i in prange(n, nogil=True, num_threads=n_threads, schedule="static", use_threads_if=n_threads > 1):
        out[i] = count_bytes(b + i * columns, columns) if b != NULL else count_floats(x + i * columns, columns)


cdef int64_t count_bytes(const uint8_t* x, int64_t n) noexcept nogil:
    cdef int32_t total = 0
    cdef int64_t i
    for i in range(n):
        total = total + (x[i] != 0)
    return total


cdef int64_t count_floats(const float* x, int64_t n) noexcept nogil:
    cdef int32_t total = 0
    cdef int64_t i
    for i in range(n):
        total = total + (x[i] != 0)
    return total


def compress(
    const uint8_t[:, ::1] bytes, const float[:, ::1] floats, const int64_t[::1] start, const int32_t[::1] chunk,
    uint16_t[::1] column, uint8_t[::1] byte, float[::1] value, uint16_t[:, ::1] cut, int n_threads,
):
    """Fill the compressed rows of `bytes` (or `floats`); `start` has the sums of what `count_nonzero` found.

    Where another thread has changed the data since, the numbers are wrong, but every place is within its bounds.
    """
    cdef int64_t n = cut.shape[0], chunks = chunk.shape[0] - 1
    cdef int64_t columns = bytes.shape[1] if bytes is not None else floats.shape[1]
    cdef const uint8_t* b = &bytes[0, 0] if bytes is not None else NULL
    cdef const float* x = &floats[0, 0] if bytes is None else NULL
    cdef uint16_t* k = &column[0]
    cdef uint8_t* v = &byte[0] if bytes is not None else NULL
    cdef float* f = &value[0] if bytes is None else NULL
    cdef int64_t i, at, end
    cdef int c
    if start.shape[0] != n + 1 or cut.shape[1] != chunks + 1 or chunk[chunks] != columns or column.shape[0] < start[n]:
        raise ValueError("start, chunk, column, cut: shapes do not belong together")
    for i in prange(n, nogil=True, num_threads=n_threads, schedule="static", use_threads_if=n_threads > 1):
        at = start[i]
        end = start[i + 1]
        cut[i, 0] = 0
        for c in range(<int>chunks):
            if b != NULL:
                at = at + compress_bytes(b + i * columns, chunk[c], chunk[c + 1], end - at, k + at, v + at)
            else:
                at = at + compress_floats(x + i * columns, chunk[c], chunk[c + 1], end - at, k + at, f + at)
            cut[i, c + 1] = <uint16_t>(at - start[i])
        while at < end:
            k[at] = 0
            if b != NULL:
                v[at] = 0
            else:
                f[at] = 0
            at = at + 1


def tile_nonzeros(int64_t columns):
    """Floats that the compressed rows of a tile may need: where each begins, columns, values."""
    return 2 * (LANES + 1) + (LANES * columns + 3) // 4 * 2 + LANES * columns


cdef void compress_tile(
    const uint8_t* bytes, const float* floats, int64_t columns, const int64_t* row, int64_t n, const float* scale,
    char* memory, Nonzero* data,
) noexcept nogil:
    """Compressed rows of the n examples of a tile, in `tile_nonzeros(columns)` floats; row i is example row[i]."""
    cdef int64_t* start = <int64_t*>memory
    cdef uint16_t* column = <uint16_t*>(start + LANES + 1)
    cdef uint8_t* byte = <uint8_t*>(column + LANES * columns)
    cdef float* value = <float*>(start + LANES + 1 + (LANES * columns + 3) // 4)
    cdef int64_t lane
    start[0] = 0
    for lane in range(n):
        if bytes != NULL:
            start[lane + 1] = start[lane] + compress_bytes(
                bytes + row[lane] * columns, 0, columns, columns, column + start[lane], byte + start[lane])
        else:
            start[lane + 1] = start[lane] + compress_floats(
                floats + row[lane] * columns, 0, columns, columns, column + start[lane], value + start[lane])
    memset(data, 0, sizeof(Nonzero))
    data.start, data.column, data.scale = start, column, scale
    data.byte = byte if bytes != NULL else NULL
    data.value = value if bytes == NULL else NULL
