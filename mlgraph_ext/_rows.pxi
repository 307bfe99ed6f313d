# Sparse rows: neurons that each have sources of their own, in compressed rows; any topology at all. The vector runs over
# lanes, so a row costs what its edges cost: one load and one FMA a vector forward, whatever the sources are.
#
#   edge j of neuron i: row[i] <= j < row[i + 1], weight weights[j], source source[j]

cdef extern from *:
    """
    #define ROW_CHAINS (SLOT_VECS < 4 ? 4 / SLOT_VECS : 1)
    #define ROW_TILES (SLOT_VECS < 8 ? 8 / SLOT_VECS : 1)
    /* The sum of the lanes, halving: a loop over lanes would add them one after the other. */
    typedef float vec8 __attribute__((vector_size(32), aligned(4), may_alias));
    typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));
    static inline float vec_sum(vec x) {
        vec4 y;
    #if VEC_WIDTH == 16
        vec8 half = ((vec8 *)&x)[0] + ((vec8 *)&x)[1];
        y = ((vec4 *)&half)[0] + ((vec4 *)&half)[1];
    #elif VEC_WIDTH == 8
        y = ((vec4 *)&x)[0] + ((vec4 *)&x)[1];
    #else
        y = x;
    #endif
        return (y[0] + y[2]) + (y[1] + y[3]);
    }
    """
    enum: ROW_CHAINS     # independent sums that hide the latency of the FMA, with the help of the rows after
    enum: ROW_TILES      # tiles whose deltas fit into the registers
    float vec_sum(vec) noexcept nogil


cdef kernel_void rows_forward(
    const float* weights, const float* bias, const int32_t* row, int64_t count,
    const int32_t* source, const float* values, float* out,
) noexcept nogil:
    """out[neuron][lane] = bias[neuron] + sum over edges; `bias` may be NULL."""
    cdef vec acc[ROW_CHAINS][SLOT_VECS]
    cdef int64_t neuron, j, end
    cdef const vec* x
    cdef int i, c
    for neuron in range(count):
        for i in range(ROW_CHAINS):
            for c in range(SLOT_VECS):
                acc[i][c] = splat(bias[neuron] if bias != NULL and i == 0 else <float>0)
        j = row[neuron]
        end = row[neuron + 1]
        while j + ROW_CHAINS <= end:
            for i in range(ROW_CHAINS):
                x = <const vec*>(values + source[j + i] * <int64_t>LANES)
                for c in range(SLOT_VECS):
                    acc[i][c] = acc[i][c] + x[c] * weights[j + i]
            j = j + ROW_CHAINS
        while j < end:
            x = <const vec*>(values + source[j] * <int64_t>LANES)
            for c in range(SLOT_VECS):
                acc[0][c] = acc[0][c] + x[c] * weights[j]
            j = j + 1
        for i in range(1, ROW_CHAINS):
            for c in range(SLOT_VECS):
                acc[0][c] = acc[0][c] + acc[i][c]
        for c in range(SLOT_VECS):
            (<vec*>(out + neuron * LANES))[c] = acc[0][c]


cdef kernel_void rows_adjoint(
    const float* weights, const int32_t* row, int64_t count,
    const int32_t* source, const float* delta, float* adjoints,
) noexcept nogil:
    """adjoints[source][lane] += weight * delta[neuron][lane] for every edge."""
    cdef vec d[SLOT_VECS]
    cdef int64_t neuron, j
    cdef vec* to
    cdef int c
    for neuron in range(count):
        for c in range(SLOT_VECS):
            d[c] = (<const vec*>(delta + neuron * LANES))[c]
        for j in range(row[neuron], row[neuron + 1]):
            to = <vec*>(adjoints + source[j] * <int64_t>LANES)
            for c in range(SLOT_VECS):
                to[c] = to[c] + d[c] * weights[j]


cdef inline float lane_sum(vec* acc) noexcept nogil:
    cdef int c
    for c in range(1, SLOT_VECS):
        acc[0] = acc[0] + acc[c]
    return vec_sum(acc[0])


cdef kernel_void rows_gradient(
    const int32_t* row, int64_t count, const int32_t* source,
    const float* values, const float* delta, int64_t tile_stride, int64_t n_tiles, float* gradient,
) noexcept nogil:
    """gradient[edge - row[0]] = sum over tiles and lanes of values[source][lane] * delta[neuron][lane]."""
    # The deltas of a neuron stay in registers for all its edges, those of several tiles at once.
    cdef vec d[ROW_TILES][SLOT_VECS]
    cdef vec acc[SLOT_VECS]
    cdef int64_t neuron, j, tile = 0
    cdef int64_t stride[ROW_TILES]
    cdef const float* x
    cdef int i, c
    while tile < n_tiles:
        for i in range(ROW_TILES):
            # Without that many tiles the last is taken again, times nothing.
            stride[i] = smaller(tile + i, n_tiles - 1) * tile_stride
        for neuron in range(count):
            for i in range(ROW_TILES):
                for c in range(SLOT_VECS):
                    d[i][c] = (<const vec*>(delta + stride[i] + neuron * LANES))[c]
                    if tile + i >= n_tiles:
                        d[i][c] = splat(<float>0)
            for j in range(row[neuron], row[neuron + 1]):
                x = values + source[j] * <int64_t>LANES
                for c in range(SLOT_VECS):
                    acc[c] = (<const vec*>(x + stride[0]))[c] * d[0][c]
                for i in range(1, ROW_TILES):
                    for c in range(SLOT_VECS):
                        acc[c] = acc[c] + (<const vec*>(x + stride[i]))[c] * d[i][c]
                if tile == 0:
                    gradient[j - row[0]] = lane_sum(acc)
                else:
                    gradient[j - row[0]] += lane_sum(acc)
        tile = tile + ROW_TILES


cdef kernel_void slot_gradient(
    int64_t count, const float* delta, int64_t tile_stride, int64_t n_tiles, float* gradient,
) noexcept nogil:
    """gradient[i] = sum over tiles and lanes of delta[i][lane]: biases of rows, and parameters that are nodes."""
    cdef vec acc[SLOT_VECS]
    cdef int64_t i, tile
    cdef int c
    for i in range(count):
        for c in range(SLOT_VECS):
            acc[c] = splat(<float>0)
        for tile in range(n_tiles):
            for c in range(SLOT_VECS):
                acc[c] = acc[c] + (<const vec*>(delta + tile * tile_stride + i * LANES))[c]
        gradient[i] = lane_sum(acc)
