# Sparse rows that read data which are mostly zero. What a row picks from the data comes in random order, 100 KB for 32
# examples of MNIST: loads from the L2 cache, three times as slow as from L1. But in 16 examples only 53 % of the pixels are
# not zero anywhere. Those are packed, 16 examples of each side by side, behind one line of zeros that stands for all others:
# 27 KB, and every pick is a load from L1.

cdef extern from *:
    """
    #define HALF 16
    #define HALF_VECS (HALF / VEC_WIDTH)
    #define HALVES (LANES / HALF)
    #define PICK_CHAINS (HALF_VECS < 4 ? 4 / HALF_VECS : 1)

    /* Sums of neighbours: of a, and then of b. Done log2(VEC_WIDTH) times it sums the lanes of VEC_WIDTH vectors. */
    static inline vec pair_sums(vec a, vec b) {
    #if VEC_WIDTH == 16 && defined(__clang__)
        return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
             + __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    #elif VEC_WIDTH == 16
        return __builtin_shuffle(a, b, (ivec){0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30})
             + __builtin_shuffle(a, b, (ivec){1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31});
    #elif VEC_WIDTH == 8 && defined(__clang__)
        return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
             + __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
    #elif VEC_WIDTH == 8
        return __builtin_shuffle(a, b, (ivec){0, 2, 4, 6, 8, 10, 12, 14})
             + __builtin_shuffle(a, b, (ivec){1, 3, 5, 7, 9, 11, 13, 15});
    #elif defined(__clang__)
        return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
    #else
        return __builtin_shuffle(a, b, (ivec){0, 2, 4, 6}) + __builtin_shuffle(a, b, (ivec){1, 3, 5, 7});
    #endif
    }
    """
    enum: HALF           # examples packed together
    enum: HALF_VECS
    enum: HALVES
    enum: PICK_CHAINS    # independent sums that hide the latency of the FMA
    vec pair_sums(vec, vec) noexcept nogil


cdef inline int64_t packed_floats(int64_t columns) noexcept nogil:
    """Floats of a tile's packed data: for each half where each column stands, and its examples, zeros first."""
    return HALVES * ((columns + PANEL - 1) // PANEL * PANEL + (columns + 1) * HALF)


cdef inline int32_t* half_places(const float* packed, int64_t columns, int64_t half) noexcept nogil:
    return <int32_t*>(packed + half * (packed_floats(columns) // HALVES))


cdef inline float* half_values(const float* packed, int64_t columns, int64_t half) noexcept nogil:
    return <float*>half_places(packed, columns, half) + (columns + PANEL - 1) // PANEL * PANEL


cdef kernel_void pack_nonzeros(
    const Nonzero* data, const int64_t* row, int64_t n, int64_t columns, float* packed,
) noexcept nogil:
    """Pack the n examples of a tile; lanes from n on repeat the last."""
    cdef int64_t half, lane, i, j, k
    cdef int32_t* place
    cdef float* values
    cdef int32_t top, here
    for lane in range(n):
        fetch(data.start, data.column, data.byte, data.value, row[lane])
    for half in range(HALVES):
        place = half_places(packed, columns, half)
        values = half_values(packed, columns, half)
        memset(place, 0, columns * sizeof(int32_t))
        for lane in range(half * HALF, half * HALF + HALF):
            i = row[smaller(lane, n - 1)]
            for j in range(data.start[i], data.start[i + 1]):
                place[data.column[j]] = HALF
        top = HALF
        for k in range(columns):
            here = place[k]
            place[k] = top if here else 0
            top = top + here
        memset(values, 0, top * sizeof(float))
        for lane in range(half * HALF, half * HALF + HALF):
            i = row[smaller(lane, n - 1)]
            for j in range(data.start[i], data.start[i + 1]):
                values[place[data.column[j]] + lane - half * HALF] = entry(data.byte, data.value, data.scale, j)


cdef kernel_void picked_forward(
    const float* weights, const float* bias, const int32_t* row, int64_t count,
    const int32_t* source, int64_t columns, const float* packed, float* out,
) noexcept nogil:
    """out[neuron][lane] = bias[neuron] + sum over edges; `bias` may be NULL."""
    cdef vec acc[PICK_CHAINS][HALF_VECS]
    cdef int64_t half, neuron, j, end
    cdef const int32_t* place
    cdef const float* values
    cdef const vec* x
    cdef int i, c
    for half in range(HALVES):
        place = half_places(packed, columns, half)
        values = half_values(packed, columns, half)
        for neuron in range(count):
            for i in range(PICK_CHAINS):
                for c in range(HALF_VECS):
                    acc[i][c] = splat(bias[neuron] if bias != NULL and i == 0 else <float>0)
            j = row[neuron]
            end = row[neuron + 1]
            while j + PICK_CHAINS <= end:
                for i in range(PICK_CHAINS):
                    x = <const vec*>(values + place[source[j + i]])
                    for c in range(HALF_VECS):
                        acc[i][c] = acc[i][c] + x[c] * weights[j + i]
                j = j + PICK_CHAINS
            while j < end:
                x = <const vec*>(values + place[source[j]])
                for c in range(HALF_VECS):
                    acc[0][c] = acc[0][c] + x[c] * weights[j]
                j = j + 1
            for i in range(1, PICK_CHAINS):
                for c in range(HALF_VECS):
                    acc[0][c] = acc[0][c] + acc[i][c]
            for c in range(HALF_VECS):
                (<vec*>(out + neuron * LANES + half * HALF))[c] = acc[0][c]


cdef inline vec picked_product(const float* x, const vec* d) noexcept nogil:
    cdef vec product = (<const vec*>x)[0] * d[0]
    cdef int c
    for c in range(1, HALF_VECS):
        product = product + (<const vec*>x)[c] * d[c]
    return product


cdef kernel_void picked_gradient(
    const int32_t* row, int64_t count, const int32_t* source, int64_t columns, const float* packed,
    const float* delta, float* gradient,
) noexcept nogil:
    """gradient[edge - row[0]] += sum over the lanes of one tile of values[source][lane] * delta[neuron][lane]."""
    cdef vec d[HALF_VECS]
    cdef vec sums[VEC_WIDTH]
    cdef int64_t half, neuron, j, end
    cdef const int32_t* place
    cdef const float* values
    cdef float* g = gradient - row[0]
    cdef int i, c, width
    for half in range(HALVES):
        place = half_places(packed, columns, half)
        values = half_values(packed, columns, half)
        for neuron in range(count):
            for c in range(HALF_VECS):
                d[c] = (<const vec*>(delta + neuron * LANES + half * HALF))[c]
            j = row[neuron]
            end = row[neuron + 1]
            while j + VEC_WIDTH <= end:
                # A vector of edges at a time, so that their sums over lanes come out side by side.
                for i in range(VEC_WIDTH):
                    sums[i] = picked_product(values + place[source[j + i]], d)
                width = VEC_WIDTH // 2
                while width:
                    for i in range(width):
                        sums[i] = pair_sums(sums[2 * i], sums[2 * i + 1])
                    width = width // 2
                (<vec*>(g + j))[0] = (<vec*>(g + j))[0] + sums[0]
                j = j + VEC_WIDTH
            while j < end:
                g[j] = g[j] + vec_sum(picked_product(values + place[source[j]], d))
                j = j + 1
