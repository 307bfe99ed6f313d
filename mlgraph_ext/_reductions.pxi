# n-ary operations: first loops over nodes, then kernels for one node, whose `index` lists only its
# arguments. Kernels hold few lane vectors whatever the arity and add values in float64. (In float32,
# ten million times 0.1 would be 9 % too much.)

ctypedef void (*reduction_t)(int64_t, const int32_t*, const float*, lanes_t) noexcept nogil
ctypedef void (*reduction_adjoint_t)(int64_t, const int32_t*, const float*, const float*, const float*,
                                     lanes_t) noexcept nogil


cdef inline inlined_void n_ary(reduction_t reduction, int64_t count, int64_t arity, const int32_t* index,
                               const float* x, lanes_t y) noexcept nogil:
    cdef int64_t i
    for i in range(count):
        reduction(arity, index + i * arity, x, y + i * LANES)


cdef inline inlined_void n_ary_adjoint(reduction_adjoint_t adjoint, int64_t count, int64_t arity,
                                       const int32_t* index, const float* x, const float* y, const float* dy,
                                       lanes_t dx) noexcept nogil:
    cdef int64_t i
    for i in range(count):
        adjoint(arity, index + i * arity, x, y + i * LANES, dy + i * LANES, dx)


cdef void lanes_sum(int64_t arity, const int32_t* index, const float* x, lanes_t y) noexcept nogil:
    cdef int64_t a, lane
    cdef const float* term
    cdef double total[LANES]
    for lane in range(LANES):
        total[lane] = 0
    for a in range(arity):
        term = x + index[a] * <int64_t>LANES
        for lane in range(LANES):
            total[lane] += term[lane]
        no_jam()
    for lane in range(LANES):
        y[lane] = <float>total[lane]


cdef void lanes_sum_adjoint(int64_t arity, const int32_t* index, const float* x, const float* y, const float* dy,
                            lanes_t dx) noexcept nogil:
    cdef int64_t a, lane, source
    for a in range(arity):
        source = index[a] * <int64_t>LANES
        for lane in range(LANES):
            dx[source + lane] += dy[lane]


cdef void lanes_prod(int64_t arity, const int32_t* index, const float* x, lanes_t y) noexcept nogil:
    cdef int64_t a, lane
    cdef const float* factor
    cdef float total[LANES]
    for lane in range(LANES):
        total[lane] = 1
    for a in range(arity):
        factor = x + index[a] * <int64_t>LANES
        for lane in range(LANES):
            total[lane] *= factor[lane]
        no_jam()
    for lane in range(LANES):
        y[lane] = total[lane]


cdef void lanes_prod_adjoint(int64_t arity, const int32_t* index, const float* x, const float* y, const float* dy,
                             lanes_t dx) noexcept nogil:
    """Split the factors into halves; for each half, the product of the other half is a constant that multiplies dy.

    There is no division, so zeros and underflow need no special case. The depth of the recursion is log2(arity).
    """
    cdef int64_t lane, half = arity // 2
    cdef float outside[LANES]
    cdef lanes_t target = dx + index[0] * <int64_t>LANES
    if arity == 1:
        for lane in range(LANES):
            target[lane] += dy[lane]
        return
    lanes_prod(arity - half, index + half, x, outside)
    for lane in range(LANES):
        outside[lane] *= dy[lane]
    lanes_prod_adjoint(half, index, x, y, outside, dx)
    lanes_prod(half, index, x, outside)
    for lane in range(LANES):
        outside[lane] *= dy[lane]
    lanes_prod_adjoint(arity - half, index + half, x, y, outside, dx)


cdef void lanes_max(int64_t arity, const int32_t* index, const float* x, lanes_t y) noexcept nogil:
    cdef int64_t a, lane
    cdef const float* term = x + index[0] * <int64_t>LANES
    cdef float largest[LANES]
    for lane in range(LANES):
        largest[lane] = term[lane]
    for a in range(1, arity):
        term = x + index[a] * <int64_t>LANES
        for lane in range(LANES):
            largest[lane] = _ops.maximum(term[lane], largest[lane])
        no_jam()
    for lane in range(LANES):
        y[lane] = largest[lane]


cdef void lanes_max_adjoint(int64_t arity, const int32_t* index, const float* x, const float* y, const float* dy,
                            lanes_t dx) noexcept nogil:
    cdef int64_t a, lane, source
    cdef const float* term
    cdef int32_t ties[LANES]
    cdef float share[LANES]
    for lane in range(LANES):
        ties[lane] = 0
    for a in range(arity):
        term = x + index[a] * <int64_t>LANES
        for lane in range(LANES):
            ties[lane] += term[lane] == y[lane]
        no_jam()
    for lane in range(LANES):
        share[lane] = dy[lane] / <float>ties[lane]      # without ties y is NaN and the share is not used
    for a in range(arity):
        source = index[a] * <int64_t>LANES
        for lane in range(LANES):
            dx[source + lane] += share[lane] if x[source + lane] == y[lane] else <float>0


cdef void lanes_logsumexp(int64_t arity, const int32_t* index, const float* x, lanes_t y) noexcept nogil:
    cdef int64_t a, lane
    cdef const float* term
    cdef float shift[LANES]
    cdef float part[LANES]
    cdef double total[LANES]
    lanes_max(arity, index, x, shift)
    for lane in range(LANES):
        shift[lane] = shift[lane] if fabsf(shift[lane]) < <float>INFINITY else <float>0     # inf - inf is NaN
        total[lane] = 0
    for a in range(arity):
        term = x + index[a] * <int64_t>LANES
        for lane in range(LANES):
            part[lane] = _ops.exp(term[lane] - shift[lane])
        for lane in range(LANES):
            total[lane] += part[lane]
        no_jam()
    for lane in range(LANES):
        y[lane] = shift[lane] + _ops.log(<float>total[lane])


cdef void lanes_logsumexp_adjoint(int64_t arity, const int32_t* index, const float* x, const float* y,
                                  const float* dy, lanes_t dx) noexcept nogil:
    cdef int64_t a, lane, source
    for a in range(arity):
        source = index[a] * <int64_t>LANES
        for lane in range(LANES):
            dx[source + lane] += dy[lane] * _ops.exp(x[source + lane] - y[lane])
