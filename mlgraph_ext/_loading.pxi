# Loading: data are transposed from examples to lanes. Rows are read as words (one float or four
# bytes each) and transposed in registers.

cdef extern from *:
    """
    #define LOADED 16  /* a multiple of VEC_WIDTH */

    static inline int32_t four_bytes(const uint8_t *p, int64_t n) {
        uint32_t x = 0;
        if (n >= 4) memcpy(&x, p, 4);
        else memcpy(&x, p, n);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        x = __builtin_bswap32(x);
    #endif
        return (int32_t)x;
    }
    /* word[k][lane] = word k of a row from byte `at` on, of which n bytes are left. A word is one float, or four bytes with the
       first byte lowest. */
    static inline void words_of_rows(const uint8_t *const *row, int64_t at, int64_t n, int bytes, int32_t (*word)[LANES])
    {
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        if (n >= 4 * LOADED) {
            for (int first = 0; first < LANES; first += VEC_WIDTH) {
                const void *from[VEC_WIDTH];
                for (int i = 0; i < VEC_WIDTH; i++) {
                    from[i] = row[first + i] + at;
                    __builtin_prefetch(row[first + i] + at + 8 * LOADED);  /* for rows that are not prefetched yet */
                }
                transpose(from, LOADED, (float *)&word[0][first], LANES);
            }
            return;
        }
    #endif
        for (int lane = 0; lane < LANES; lane++)
            for (int64_t k = 0; k < LOADED && 4 * k < n; k++)
                if (bytes) word[k][lane] = four_bytes(row[lane] + at + 4 * k, n - 4 * k);
                else memcpy(&word[k][lane], row[lane] + at + 4 * k, 4);
    }
    /* Fills a slot with byte / 255, from the byte at bit `shift` of each lane's word. */
    static inline void spread_byte(const int32_t *lane, int shift, float *slot)
    {
        for (int c = 0; c < SLOT_VECS; c++)
            ((vec *)slot)[c] = __builtin_convertvector((((const ivec *)lane)[c] >> shift) & 255, vec) / 255.0f;
    }
    """
    enum: LOADED             # words that are loaded at once of each example
    void words_of_rows(const uint8_t**, int64_t, int64_t, bint, int32_t (*)[LANES]) noexcept nogil
    void spread_byte(const int32_t*, int, float*) noexcept nogil


cdef kernel_void load(
    const uint8_t* bytes, const float* floats, int64_t columns, const int32_t* column, int64_t n, const int64_t* row,
    const int64_t* after, bint as_bytes, float* slots,
) noexcept nogil:
    """Transpose n columns from examples to slots of floats or, with `as_bytes`, from bytes to byte slots.

    The columns are listed in ascending order. `after` lists the examples that this worker processes next, for
    prefetching: shuffled examples lie anywhere in memory, and no hardware prefetcher knows their order.
    """
    # Columns are processed in blocks. Words are stored lane by lane, and the store buffer cannot forward them to a vector
    # load; by the time a block is loaded as vectors, its words have left the store buffer.
    cdef int32_t word[LOADED][LANES]
    cdef const uint8_t* start[LANES]
    cdef const uint8_t* data = bytes if bytes != NULL else <const uint8_t*>floats
    cdef int64_t size = 1 if bytes != NULL else sizeof(float), block = LOADED * sizeof(float) // size
    cdef int64_t k, at, s = 0, lane, asked
    for lane in range(LANES):
        start[lane] = data + row[lane] * columns * size
    while s < n:
        # At the end of a row a block begins earlier, so that it is complete if the row is long enough.
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
            # One prefetch per column: all at once would be more misses than the processor can track.
            if asked < LANES:
                prefetch_later(data + (after[asked] * columns + k) * size)
                asked = asked + 1
        for lane in range(asked, LANES):
            prefetch_later(data + (after[lane] * columns + k) * size)
