# Sparse rows: neurons that each have sources of their own, stored as compressed rows, for any
# topology. Vectors run over lanes, so a row costs in proportion to its edges: forward, one load and
# one FMA per vector, whatever the sources are. Slots of the sources hold floats or bytes
# (_bytes.pxi); the loops are the same. Neurons with the same sources are swept together
# (_quads.pxi).
#
# A step of at most half a tile uses only the first half of the lanes. In the other half a value
# repeats the last example, as the data do, and an adjoint is zero. This makes an epoch at batch 8 a
# fifth faster. (Quads do not do so, because their multiply-adds would wait for each other.)
#
#   edge j of neuron i: row[i] <= j < row[i + 1], weight weights[j], source source[j]

cdef extern from *:
    """
    #define ROW_CHAINS (SLOT_VECS < 4 ? 4 / SLOT_VECS : 1)
    #define FOURS (VEC_WIDTH / 4)
    #define PACK (SLOT_VECS < 8 ? 2 : 1)
    /* `pair_sums` adds neighbouring lanes within each group of four, first of a and then of b, like haddps. `group_sums` adds
       neighbouring groups of four lanes. Two levels of the first and two of the second reduce 16 vectors to one, which holds
       the sums over their lanes in order. */
    static inline vec pair_sums(vec a, vec b) {
    #if VEC_WIDTH == 16
        return SHUFFLE(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30)
             + SHUFFLE(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
    #elif VEC_WIDTH == 8
        return SHUFFLE(a, b, 0, 2, 8, 10, 4, 6, 12, 14) + SHUFFLE(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
    #else
        return SHUFFLE(a, b, 0, 2, 4, 6) + SHUFFLE(a, b, 1, 3, 5, 7);
    #endif
    }
    static inline vec group_sums(vec a, vec b) {
    #if VEC_WIDTH == 16
        return SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
             + SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    #elif VEC_WIDTH == 8
        return SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    #else
        return a + b;  /* never called: a vector is one group */
    #endif
    }
    /* Stores or adds the first n lanes, n < VEC_WIDTH. */
    static inline void store_some(float *to, vec x, int64_t n, int add) {
    #if defined(__AVX512F__)
        __mmask16 some = (__mmask16)((1u << n) - 1);
        if (add) x += (vec)_mm512_maskz_loadu_ps(some, to);
        _mm512_mask_storeu_ps(to, some, (__m512)x);
    #else
        for (int64_t i = 0; i < n; i++) to[i] = add ? to[i] + x[i] : x[i];
    #endif
    }
    """
    enum: ROW_CHAINS     # independent sums that, together with those of the next rows, hide the latency of the FMA
    enum: FOURS
    enum: PACK           # tiles side by side whose deltas or sums fit into the registers, called a pack (_packs.pxi)
    void store_some(float*, vec, int64_t, bint) noexcept nogil
    vec pair_sums(vec, vec) noexcept nogil
    vec group_sums(vec, vec) noexcept nogil


cdef inline int vecs_of(bint half) noexcept nogil:
    return HALF_VECS if half else SLOT_VECS


cdef inline inlined_void read_slot(bint bytes, bint half, const float* slots, int64_t source, vec* x) noexcept nogil:
    cdef int c
    if bytes and half:
        for c in range(HALF_VECS):
            x[c] = widen_upper(slots + source * BYTE_SLOT, c)
    elif bytes:
        for c in range(HALF_VECS):
            widen_pair(slots + source * BYTE_SLOT, c, x + c, x + c + HALF_VECS)
    else:
        for c in range(vecs_of(half)):
            x[c] = (<const vec*>(slots + source * LANES))[c]


cdef inline inlined_void forward_of_rows(
    bint bytes, bint half, int tiles, float unit, const float* weights, const float* bias, const int32_t* row, int64_t count,
    const int32_t* source, const float* slots, int64_t tile_stride, float* out,
) noexcept nogil:
    cdef vec acc[PACK][ROW_CHAINS][SLOT_VECS]
    cdef vec x[SLOT_VECS]
    cdef vec w
    cdef vec* to
    cdef int64_t neuron, j, end
    cdef int t, i, c
    for neuron in range(count):
        for t in range(tiles):
            for i in range(ROW_CHAINS):
                for c in range(vecs_of(half)):
                    acc[t][i][c] = splat(<float>0)
        j = row[neuron]
        end = row[neuron + 1]
        while j + ROW_CHAINS <= end:
            for i in range(ROW_CHAINS):
                w = splat(weights[j + i])
                for t in range(tiles):
                    read_slot(bytes, half, slots + t * tile_stride, source[j + i], x)
                    for c in range(vecs_of(half)):
                        acc[t][i][c] = multiply_add(x[c], w, acc[t][i][c])
            j = j + ROW_CHAINS
        while j < end:
            w = splat(weights[j])
            for t in range(tiles):
                read_slot(bytes, half, slots + t * tile_stride, source[j], x)
                for c in range(vecs_of(half)):
                    acc[t][0][c] = multiply_add(x[c], w, acc[t][0][c])
            j = j + 1
        w = splat(bias[neuron] if bias != NULL else <float>0)
        for t in range(tiles):
            to = <vec*>(out + t * tile_stride + neuron * LANES)
            for c in range(vecs_of(half)):
                for i in range(1, ROW_CHAINS):
                    acc[t][0][c] = acc[t][0][c] + acc[t][i][c]
                to[c] = multiply_add(acc[t][0][c], splat(unit), w)
            if half:
                w = splat((out + neuron * LANES)[LANES // 2 - 1])
                for c in range(HALF_VECS):
                    to[c + HALF_VECS] = w


cdef kernel_void single_forward(
    bint bytes, bint half, float unit, const float* weights, const float* bias, const int32_t* row, int64_t count,
    const int32_t* source, const float* slots, int64_t tile_stride, int64_t n_tiles, float* out,
) noexcept nogil:
    if bytes and half:
        forward_of_rows(True, True, 1, unit, weights, bias, row, count, source, slots, tile_stride, out)
    elif bytes and n_tiles == PACK:
        forward_of_rows(True, False, PACK, unit, weights, bias, row, count, source, slots, tile_stride, out)
    elif bytes:
        forward_of_rows(True, False, 1, unit, weights, bias, row, count, source, slots, tile_stride, out)
    elif half:
        forward_of_rows(False, True, 1, <float>1, weights, bias, row, count, source, slots, tile_stride, out)
    elif n_tiles == PACK:
        forward_of_rows(False, False, PACK, <float>1, weights, bias, row, count, source, slots, tile_stride, out)
    else:
        forward_of_rows(False, False, 1, <float>1, weights, bias, row, count, source, slots, tile_stride, out)


cdef void rows_forward(
    bint bytes, bint half, float unit, const float* weights, const float* bias, const int32_t* row, const int32_t* alike,
    int64_t count, const int32_t* source, const float* slots, int64_t tile_stride, int64_t n_tiles, float* out,
) noexcept nogil:
    """out[neuron][lane] = bias[neuron] + sum over edges, for half a tile, one tile or PACK tiles; `bias` may be NULL.

    With `bytes` the sources are byte slots, which hold byte / 256, and sums over them are multiplied by `unit`.
    """
    cdef int64_t neuron = 0, size, n
    while neuron < count:
        n = singles(alike, neuron, count)
        if n:
            single_forward(bytes, half, unit, weights, bias + neuron if bias != NULL else NULL, row + neuron, n, source,
                           slots, tile_stride, n_tiles, out + neuron * LANES)
        neuron = neuron + n
        size = quad_size(alike, neuron, count)
        if size:
            quad_forward(bytes, unit, weights, bias + neuron if bias != NULL else NULL, row + neuron, size, source, slots,
                         tile_stride, n_tiles, out + neuron * LANES)
        neuron = neuron + size


cdef inline inlined_void adjoint_of_rows(
    bint half, int tiles, const float* weights, const int32_t* slot, int64_t n_sources, const float* delta, int64_t tile_stride,
    int64_t first_zeroed, float* adjoints,
) noexcept nogil:
    cdef vec acc[PACK][ROW_CHAINS][SLOT_VECS]
    cdef vec w
    cdef const int32_t* begin = slot + n_sources
    cdef const int32_t* edge = begin + n_sources + 1
    cdef const vec* d
    cdef float* to
    cdef int64_t source, j, end
    cdef int t, i, c
    for source in range(n_sources):
        to = adjoints + slot[source] * <int64_t>LANES
        for t in range(tiles):
            for c in range(vecs_of(half)):
                acc[t][0][c] = splat(<float>0) if slot[source] < first_zeroed else (<vec*>(to + t * tile_stride))[c]
                for i in range(1, ROW_CHAINS):
                    acc[t][i][c] = splat(<float>0)
        j = begin[source]
        end = begin[source + 1]
        while j + ROW_CHAINS <= end:
            for i in range(ROW_CHAINS):
                w = splat(weights[edge[2 * (j + i)]])
                for t in range(tiles):
                    d = <const vec*>(delta + t * tile_stride + edge[2 * (j + i) + 1] * <int64_t>LANES)
                    for c in range(vecs_of(half)):
                        acc[t][i][c] = multiply_add(d[c], w, acc[t][i][c])
            j = j + ROW_CHAINS
        while j < end:
            w = splat(weights[edge[2 * j]])
            for t in range(tiles):
                d = <const vec*>(delta + t * tile_stride + edge[2 * j + 1] * <int64_t>LANES)
                for c in range(vecs_of(half)):
                    acc[t][0][c] = multiply_add(d[c], w, acc[t][0][c])
            j = j + 1
        for t in range(tiles):
            for c in range(vecs_of(half)):
                for i in range(1, ROW_CHAINS):
                    acc[t][0][c] = acc[t][0][c] + acc[t][i][c]
                (<vec*>(to + t * tile_stride))[c] = acc[t][0][c]
                if half and slot[source] < first_zeroed:
                    (<vec*>to)[c + HALF_VECS] = splat(<float>0)


cdef kernel_void single_adjoint(
    bint half, const float* weights, const int32_t* slot, int64_t n_sources, const float* delta, int64_t tile_stride,
    int64_t n_tiles, int64_t first_zeroed, float* adjoints,
) noexcept nogil:
    if half:
        adjoint_of_rows(True, 1, weights, slot, n_sources, delta, tile_stride, first_zeroed, adjoints)
    elif n_tiles == PACK:
        adjoint_of_rows(False, PACK, weights, slot, n_sources, delta, tile_stride, first_zeroed, adjoints)
    else:
        adjoint_of_rows(False, 1, weights, slot, n_sources, delta, tile_stride, first_zeroed, adjoints)


cdef void rows_adjoint(
    bint half, const float* weights, const int32_t* row, const int32_t* alike, int64_t count, const int32_t* source,
    const int32_t* slot, int64_t n_sources, const float* delta, int64_t tile_stride, int64_t n_tiles, int64_t first_zeroed,
    float* adjoints,
) noexcept nogil:
    """adjoints[source][lane] += weight * delta[neuron][lane] for every edge; slots before `first_zeroed` begin at zero.

    The edges of neurons outside quads are sorted by source, so that an adjoint is summed in registers. `slot` lists the
    slot of each source, then where its edges begin (and where the last end), then number and neuron of each edge.
    """
    cdef int64_t neuron = 0, size
    single_adjoint(half, weights, slot, n_sources, delta, tile_stride, n_tiles, first_zeroed, adjoints)
    while neuron < count:
        neuron = neuron + singles(alike, neuron, count)
        size = quad_size(alike, neuron, count)
        if size:
            quad_adjoint(weights, row + neuron, size, source, delta + neuron * LANES, tile_stride, n_tiles, adjoints)
        neuron = neuron + size


cdef inline inlined_void four_edges(
    bint bytes, bint half, int tiles, bint clipped, const float* slots, const int32_t* source, int64_t j, int64_t last,
    int64_t tile_stride, const vec d[PACK][SLOT_VECS], vec* edge,
) noexcept nogil:
    """Compute the products of four edges from j on, summed over vectors. With `clipped`, edges past `last` repeat it."""
    # The edges alternate, because a processor looks only a limited distance ahead for independent work.
    cdef vec x[4][SLOT_VECS]
    cdef int t, c, e
    for e in range(4):
        edge[e] = splat(<float>0)
    for t in range(tiles):
        for e in range(4):
            read_slot(bytes, half, slots + t * tile_stride, source[smaller(j + e, last) if clipped else j + e], x[e])
        for c in range(vecs_of(half)):
            for e in range(4):
                edge[e] = multiply_add(x[e][c], d[t][c], edge[e])


cdef inline vec sums_of_four(const vec* edge) noexcept nogil:
    """Reduce the products of four edges to their sums over each four lanes."""
    return pair_sums(pair_sums(edge[0], edge[1]), pair_sums(edge[2], edge[3]))


cdef inline vec vector_of_fours(const vec* four) noexcept nogil:
    """Combine FOURS vectors of four edges each into the sums of as many edges as a vector has lanes, in order."""
    if VEC_WIDTH == 16:
        return group_sums(group_sums(four[0], four[1]), group_sums(four[2], four[3]))
    return group_sums(four[0], four[1]) if VEC_WIDTH == 8 else four[0]


cdef inline inlined_void gradient_of_rows(
    bint bytes, bint half, int tiles, float unit, const int32_t* row, int64_t count, const int32_t* source,
    const float* slots, const float* delta, int64_t tile_stride, bint add, float* gradient,
) noexcept nogil:
    # The deltas of a neuron stay in registers for all its edges. Edges are processed a vector at a time, so that their sums
    # over lanes come out side by side, and within it four at a time.
    cdef vec d[PACK][SLOT_VECS]
    cdef vec four[4]
    cdef vec edge[4]
    cdef vec after[4]
    cdef vec acc
    cdef int64_t neuron, j, end
    cdef int t, c, i
    for neuron in range(count):
        for t in range(tiles):
            for c in range(vecs_of(half)):
                # `unit` multiplies deltas instead of sums, because the compiler might fuse a product with the addition
                # that may follow.
                d[t][c] = (<const vec*>(delta + t * tile_stride + neuron * LANES))[c] * unit
        j = row[neuron]
        end = row[neuron + 1]
        while j + VEC_WIDTH <= end:
            # Unrolled, because a loop over these calls would keep the vectors in memory (as it does below, for the last edges).
            # While the products of four edges are summed over lanes, those of the next four are computed.
            four_edges(bytes, half, tiles, False, slots, source, j, 0, tile_stride, d, edge)
            if VEC_WIDTH >= 8:
                four_edges(bytes, half, tiles, False, slots, source, j + 4, 0, tile_stride, d, after)
            four[0] = sums_of_four(edge)
            if VEC_WIDTH == 16:
                four_edges(bytes, half, tiles, False, slots, source, j + 8, 0, tile_stride, d, edge)
            if VEC_WIDTH >= 8:
                four[1] = sums_of_four(after)
            if VEC_WIDTH == 16:
                four_edges(bytes, half, tiles, False, slots, source, j + 12, 0, tile_stride, d, after)
                four[2] = sums_of_four(edge)
                four[3] = sums_of_four(after)
            acc = vector_of_fours(four)
            (<vec*>(gradient + j))[0] = (<vec*>(gradient + j))[0] + acc if add else acc
            j = j + VEC_WIDTH
        if j < end:
            for i in range(FOURS):
                four[i] = splat(<float>0)
                if j + 4 * i < end:
                    four_edges(bytes, half, tiles, True, slots, source, j + 4 * i, end - 1, tile_stride, d, edge)
                    four[i] = sums_of_four(edge)
            store_some(gradient + j, vector_of_fours(four), end - j, add)


cdef kernel_void single_gradient(
    bint bytes, bint half, float unit, const int32_t* row, int64_t count, const int32_t* source,
    const float* slots, const float* delta, int64_t tile_stride, int64_t tiles, bint add, float* gradient,
) noexcept nogil:
    if bytes and half:
        gradient_of_rows(True, True, 1, unit, row, count, source, slots, delta, tile_stride, add, gradient)
    elif bytes and tiles == PACK:
        gradient_of_rows(True, False, PACK, unit, row, count, source, slots, delta, tile_stride, add, gradient)
    elif bytes:
        gradient_of_rows(True, False, 1, unit, row, count, source, slots, delta, tile_stride, add, gradient)
    elif half:
        gradient_of_rows(False, True, 1, <float>1, row, count, source, slots, delta, tile_stride, add, gradient)
    elif tiles == PACK:
        gradient_of_rows(False, False, PACK, <float>1, row, count, source, slots, delta, tile_stride, add, gradient)
    else:
        gradient_of_rows(False, False, 1, <float>1, row, count, source, slots, delta, tile_stride, add, gradient)


cdef void rows_gradient(
    bint bytes, bint half, float unit, const int32_t* row, const int32_t* alike, int64_t count, const int32_t* source,
    const float* slots, const float* delta, int64_t tile_stride, int64_t n_tiles, float* gradient,
) noexcept nogil:
    """gradient[edge - row[0]] = sum over tiles and lanes of values[source][lane] * delta[neuron][lane].

    With `bytes` the sources are byte slots, which hold byte / 256, and sums over them are multiplied by `unit`.
    """
    cdef int64_t tile = 0, tiles, neuron, size, n
    cdef float* g = gradient - row[0]
    while tile < n_tiles:
        tiles = PACK if tile + PACK <= n_tiles else 1
        neuron = 0
        while neuron < count:
            n = singles(alike, neuron, count)
            if n:
                single_gradient(bytes, half, unit, row + neuron, n, source, slots + tile * tile_stride,
                                delta + tile * tile_stride + neuron * LANES, tile_stride, tiles, tile > 0, g)
            neuron = neuron + n
            size = quad_size(alike, neuron, count)
            if size:
                quad_gradient(bytes, unit, row + neuron, size, source, slots + tile * tile_stride,
                              delta + tile * tile_stride + neuron * LANES, tile_stride, tiles, tile > 0, g)
            neuron = neuron + size
        tile = tile + tiles


cdef inline vec slot_lanes(int64_t tiles, const float* delta, int64_t tile_stride) noexcept nogil:
    cdef vec acc = splat(<float>0)
    cdef int64_t t
    cdef int c
    for t in range(tiles):
        for c in range(SLOT_VECS):
            acc = acc + (<const vec*>(delta + t * tile_stride))[c]
    return acc


cdef kernel_void slot_gradient(
    int64_t count, const float* delta, int64_t tile_stride, int64_t n_tiles, float* gradient,
) noexcept nogil:
    """gradient[i] = sum over tiles and lanes of delta[i][lane], for biases of rows and parameters that are nodes."""
    cdef vec four[4]
    cdef const float* d
    cdef vec* to
    cdef int64_t tile = 0, first, n, tiles
    cdef int i
    while tile < n_tiles:
        tiles = smaller(PACK, n_tiles - tile)
        first = 0
        while first < count:
            n = smaller(VEC_WIDTH, count - first)
            for i in range(FOURS):
                # Past the last slot, repeat it.
                d = delta + tile * tile_stride + first * LANES
                four[i] = pair_sums(
                    pair_sums(slot_lanes(tiles, d + smaller(4 * i, n - 1) * LANES, tile_stride),
                              slot_lanes(tiles, d + smaller(4 * i + 1, n - 1) * LANES, tile_stride)),
                    pair_sums(slot_lanes(tiles, d + smaller(4 * i + 2, n - 1) * LANES, tile_stride),
                              slot_lanes(tiles, d + smaller(4 * i + 3, n - 1) * LANES, tile_stride)))
            if n == VEC_WIDTH:
                to = <vec*>(gradient + first)
                to[0] = to[0] + vector_of_fours(four) if tile else vector_of_fours(four)
            else:
                store_some(gradient + first, vector_of_fours(four), n, tile > 0)
            first = first + n
        tile = tile + tiles
