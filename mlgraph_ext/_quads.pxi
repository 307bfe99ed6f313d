# Quads: three or four neighbouring neurons of sparse rows that have the same sources. A single row
# loads one vector for each multiply-add and is limited by loads. In a quad a loaded vector serves
# all neurons, and multiply-adds are the limit, so it takes half to two thirds of the time. Rows and
# arrays are those of _rows.pxi; only the loops differ. One array identifies quads:
#
#   alike[i]: number of consecutive neurons, from neuron i on, that have the sources of neuron i
#
# The adjoint has an `alike` of its own, in which neurons with a source that wants no adjoint are in
# no quad.
#
# Vector c of a slot and the vector half a slot further are a pair: in a byte slot they share their
# words (_bytes.pxi).

cdef extern from *:
    """
    #define QUAD_SOURCES (VEC_WIDTH / 4)
    #define QUAD_TILES (VEC_WIDTH == 16 ? PACK : 1)
    #define QUAD_VECS (2 * QUAD_TILES)
    /* Two neurons are as fast singly. With vectors so short that multiply-adds limit single rows, too, all are. */
    #define QUAD_FROM (VEC_WIDTH == 4 ? INT32_MAX : 3)
    /* Transposes four vectors, each of QUAD_SOURCES sources with four neurons side by side, to one vector per neuron. */
    static inline void by_neuron(vec *x) {
    #if VEC_WIDTH == 16
    #define FIRST_TWO(a, b) SHUFFLE(a, b, 0, 4, 8, 12, 1, 5, 9, 13, 16, 20, 24, 28, 17, 21, 25, 29)
    #define LAST_TWO(a, b) SHUFFLE(a, b, 2, 6, 10, 14, 3, 7, 11, 15, 18, 22, 26, 30, 19, 23, 27, 31)
    #define EVEN(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
    #define ODD(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)
    #elif VEC_WIDTH == 8
    #define FIRST_TWO(a, b) SHUFFLE(a, b, 0, 4, 1, 5, 8, 12, 9, 13)
    #define LAST_TWO(a, b) SHUFFLE(a, b, 2, 6, 3, 7, 10, 14, 11, 15)
    #define EVEN(a, b) SHUFFLE(a, b, 0, 1, 4, 5, 8, 9, 12, 13)
    #define ODD(a, b) SHUFFLE(a, b, 2, 3, 6, 7, 10, 11, 14, 15)
    #else
    #define FIRST_TWO(a, b) SHUFFLE(a, b, 0, 1, 4, 5)
    #define LAST_TWO(a, b) SHUFFLE(a, b, 2, 3, 6, 7)
    #define EVEN(a, b) SHUFFLE(a, b, 0, 2, 4, 6)
    #define ODD(a, b) SHUFFLE(a, b, 1, 3, 5, 7)
    #endif
        vec first = FIRST_TWO(x[0], x[1]), last = LAST_TWO(x[0], x[1]);
        vec first_ = FIRST_TWO(x[2], x[3]), last_ = LAST_TWO(x[2], x[3]);
        x[0] = EVEN(first, first_);
        x[1] = ODD(first, first_);
        x[2] = EVEN(last, last_);
        x[3] = ODD(last, last_);
    }
    """
    void by_neuron(vec*) noexcept nogil
    enum: QUAD_SOURCES   # sources whose sums with four neurons fill a vector
    enum: QUAD_TILES     # tiles side by side for which the sums of four neurons fit into the registers
    enum: QUAD_VECS
    enum: QUAD_FROM      # minimum number of neurons that are swept as a quad

cdef enum:
    QUAD = 4


cdef inline int64_t quad_size(const int32_t* alike, int64_t neuron, int64_t count) noexcept nogil:
    """Size of the quad that begins with `neuron` if `count` neurons are swept; 0 if none begins there."""
    cdef int64_t same = smaller(alike[neuron], count - neuron) if neuron < count else 0
    return 0 if same < QUAD_FROM else smaller(same, QUAD)


cdef inline int64_t singles(const int32_t* alike, int64_t neuron, int64_t count) noexcept nogil:
    """Number of neurons from this one on before the next quad, or before the end."""
    cdef int64_t n = 0
    while neuron + n < count and quad_size(alike, neuron + n, count) == 0:
        n = n + 1
    return n


cdef inline inlined_void read_pair(bint bytes, const float* slots, int64_t source, int c, vec* x) noexcept nogil:
    if bytes:
        widen_pair(slots + source * BYTE_SLOT, c, x, x + 1)
    else:
        x[0] = (<const vec*>(slots + source * LANES))[c]
        x[1] = (<const vec*>(slots + source * LANES))[c + HALF_VECS]


cdef inline inlined_void forward_of_quad(
    bint bytes, int tiles, float unit, const float* weights, const float* bias, const int32_t* row, int64_t size,
    const int32_t* source, const float* slots, int64_t tile_stride, float* out,
) noexcept nogil:
    cdef vec acc[QUAD][QUAD_VECS]
    cdef vec x[QUAD_VECS]
    cdef vec s
    cdef vec* to
    cdef const float* w[QUAD]
    cdef int64_t j, n = row[1] - row[0]
    cdef int i, t, c, v
    for i in range(QUAD):
        w[i] = weights + row[smaller(i, size - 1)]     # of three neurons, the last is swept twice and stored once
    source = source + row[0]
    for c in range(HALF_VECS):
        for i in range(QUAD):
            for v in range(2 * tiles):
                acc[i][v] = splat(<float>0)
        for j in range(n):
            for t in range(tiles):
                read_pair(bytes, slots + t * tile_stride, source[j], c, x + 2 * t)
            for i in range(QUAD):
                s = splat(w[i][j])
                for v in range(2 * tiles):
                    acc[i][v] = multiply_add(x[v], s, acc[i][v])
        for i in range(QUAD):
            if i < size:
                s = splat(bias[i] if bias != NULL else <float>0)
                for t in range(tiles):
                    to = <vec*>(out + t * tile_stride + i * LANES)
                    to[c] = multiply_add(acc[i][2 * t], splat(unit), s)
                    to[c + HALF_VECS] = multiply_add(acc[i][2 * t + 1], splat(unit), s)


cdef kernel_void quad_forward(
    bint bytes, float unit, const float* weights, const float* bias, const int32_t* row, int64_t size, const int32_t* source,
    const float* slots, int64_t tile_stride, int64_t n_tiles, float* out,
) noexcept nogil:
    """Like `rows_forward`, for one quad of `size` neurons."""
    cdef int64_t t = 0
    while t + QUAD_TILES <= n_tiles:
        if bytes:
            forward_of_quad(True, QUAD_TILES, unit, weights, bias, row, size, source, slots + t * tile_stride, tile_stride,
                            out + t * tile_stride)
        else:
            forward_of_quad(False, QUAD_TILES, <float>1, weights, bias, row, size, source, slots + t * tile_stride, tile_stride,
                            out + t * tile_stride)
        t = t + QUAD_TILES
    while t < n_tiles:
        if bytes:
            forward_of_quad(True, 1, unit, weights, bias, row, size, source, slots + t * tile_stride, tile_stride,
                            out + t * tile_stride)
        else:
            forward_of_quad(False, 1, <float>1, weights, bias, row, size, source, slots + t * tile_stride, tile_stride,
                            out + t * tile_stride)
        t = t + 1


cdef inline inlined_void adjoint_of_quad(
    int size, int tiles, const float* weights, const int32_t* row, const int32_t* source, const float* delta,
    int64_t tile_stride, float* adjoints,
) noexcept nogil:
    cdef vec d[QUAD][QUAD_VECS]
    cdef vec x[QUAD_VECS]
    cdef vec s
    cdef vec* to
    cdef const float* w[QUAD]
    cdef int64_t j, n = row[1] - row[0]
    cdef int i, t, c
    for i in range(size):
        w[i] = weights + row[i]
    source = source + row[0]
    for c in range(HALF_VECS):
        for i in range(size):
            for t in range(tiles):
                d[i][2 * t] = (<const vec*>(delta + t * tile_stride + i * LANES))[c]
                d[i][2 * t + 1] = (<const vec*>(delta + t * tile_stride + i * LANES))[c + HALF_VECS]
        for j in range(n):
            for t in range(tiles):
                read_pair(False, adjoints + t * tile_stride, source[j], c, x + 2 * t)
            for i in range(size):
                s = splat(w[i][j])
                for t in range(2 * tiles):
                    x[t] = multiply_add(d[i][t], s, x[t])
            for t in range(tiles):
                to = <vec*>(adjoints + t * tile_stride + source[j] * <int64_t>LANES)
                to[c] = x[2 * t]
                to[c + HALF_VECS] = x[2 * t + 1]


cdef kernel_void quad_adjoint(
    const float* weights, const int32_t* row, int64_t size, const int32_t* source, const float* delta, int64_t tile_stride,
    int64_t n_tiles, float* adjoints,
) noexcept nogil:
    """adjoints[source][lane] += sum over the neurons of a quad of weight * delta[neuron][lane]."""
    # No neuron is repeated here, not even with deltas of zero, because zero times a non-finite weight is NaN.
    cdef int64_t t = 0
    while t + QUAD_TILES <= n_tiles:
        if size == QUAD:
            adjoint_of_quad(QUAD, QUAD_TILES, weights, row, source, delta + t * tile_stride, tile_stride,
                            adjoints + t * tile_stride)
        else:
            adjoint_of_quad(QUAD - 1, QUAD_TILES, weights, row, source, delta + t * tile_stride, tile_stride,
                            adjoints + t * tile_stride)
        t = t + QUAD_TILES
    while t < n_tiles:
        if size == QUAD:
            adjoint_of_quad(QUAD, 1, weights, row, source, delta + t * tile_stride, tile_stride, adjoints + t * tile_stride)
        else:
            adjoint_of_quad(QUAD - 1, 1, weights, row, source, delta + t * tile_stride, tile_stride, adjoints + t * tile_stride)
        t = t + 1


cdef inline inlined_void quad_products(
    bint bytes, int tiles, const float* slots, int64_t source, int64_t tile_stride, const vec d[QUAD][PACK * SLOT_VECS],
    vec* out,
) noexcept nogil:
    """Products with one source, summed over each four lanes of a vector, for four neurons side by side."""
    cdef vec acc[QUAD]
    cdef vec x[2]
    cdef int i, t, c, v
    for t in range(tiles):
        for c in range(HALF_VECS):
            read_pair(bytes, slots + t * tile_stride, source, c, x)
            for v in range(2):
                for i in range(QUAD):
                    if t == 0 and c == 0 and v == 0:
                        acc[i] = rounded(x[0] * d[i][0])    # adding to zero would copy the vector first
                    else:
                        acc[i] = multiply_add(x[v], d[i][t * SLOT_VECS + c + v * HALF_VECS], acc[i])
    out[0] = pair_sums(pair_sums(acc[0], acc[1]), pair_sums(acc[2], acc[3]))


cdef inline inlined_void some_products(
    bint bytes, int tiles, bint clipped, const float* slots, const int32_t* source, int64_t j, int64_t last,
    int64_t tile_stride, const vec d[QUAD][PACK * SLOT_VECS], vec* out,
) noexcept nogil:
    """Sums over lanes for QUAD_SOURCES sources times four neurons. With `clipped`, sources past `last` repeat it."""
    cdef vec four[4]
    # Unrolled, because a loop over these calls would keep the vectors in memory.
    quad_products(bytes, tiles, slots, source[j], tile_stride, d, four)
    if VEC_WIDTH >= 8:
        quad_products(bytes, tiles, slots, source[smaller(j + 1, last) if clipped else j + 1], tile_stride, d, four + 1)
    if VEC_WIDTH == 16:
        quad_products(bytes, tiles, slots, source[smaller(j + 2, last) if clipped else j + 2], tile_stride, d, four + 2)
        quad_products(bytes, tiles, slots, source[smaller(j + 3, last) if clipped else j + 3], tile_stride, d, four + 3)
    out[0] = vector_of_fours(four)


cdef inline inlined_void gradient_of_quad(
    bint bytes, int tiles, float unit, const int32_t* row, int64_t size, const int32_t* source, const float* slots,
    const float* delta, int64_t tile_stride, bint add, float* gradient,
) noexcept nogil:
    # Processes a vector of sources at a time, as in a single row: more and shorter stores would delay later loads.
    cdef vec d[QUAD][PACK * SLOT_VECS]
    cdef vec sums[QUAD]
    cdef vec* to
    cdef int64_t j = 0, n = row[1] - row[0]
    cdef int i, t, c
    for i in range(QUAD):
        for t in range(tiles):
            for c in range(SLOT_VECS):
                d[i][t * SLOT_VECS + c] = (<const vec*>(delta + t * tile_stride + smaller(i, size - 1) * LANES))[c] * unit
    source = source + row[0]
    while j + VEC_WIDTH <= n:
        some_products(bytes, tiles, False, slots, source, j, 0, tile_stride, d, sums)
        some_products(bytes, tiles, False, slots, source, j + QUAD_SOURCES, 0, tile_stride, d, sums + 1)
        some_products(bytes, tiles, False, slots, source, j + 2 * QUAD_SOURCES, 0, tile_stride, d, sums + 2)
        some_products(bytes, tiles, False, slots, source, j + 3 * QUAD_SOURCES, 0, tile_stride, d, sums + 3)
        by_neuron(sums)
        for i in range(QUAD):
            if i < size:
                to = <vec*>(gradient + row[i] + j)
                to[0] = to[0] + sums[i] if add else sums[i]
        j = j + VEC_WIDTH
    if j < n:
        for i in range(QUAD):
            sums[i] = splat(<float>0)
            if j + i * QUAD_SOURCES < n:
                some_products(bytes, tiles, True, slots, source, j + i * QUAD_SOURCES, n - 1, tile_stride, d, sums + i)
        by_neuron(sums)
        for i in range(QUAD):
            if i < size:
                store_some(gradient + row[i] + j, sums[i], n - j, add)


cdef kernel_void quad_gradient(
    bint bytes, float unit, const int32_t* row, int64_t size, const int32_t* source, const float* slots, const float* delta,
    int64_t tile_stride, int64_t tiles, bint add, float* gradient,
) noexcept nogil:
    """Like `rows_gradient`, for one quad and one tile or PACK tiles; with `add`, add to the gradient."""
    if bytes and tiles == PACK:
        gradient_of_quad(True, PACK, unit, row, size, source, slots, delta, tile_stride, add, gradient)
    elif bytes:
        gradient_of_quad(True, 1, unit, row, size, source, slots, delta, tile_stride, add, gradient)
    elif tiles == PACK:
        gradient_of_quad(False, PACK, <float>1, row, size, source, slots, delta, tile_stride, add, gradient)
    else:
        gradient_of_quad(False, 1, <float>1, row, size, source, slots, delta, tile_stride, add, gradient)
