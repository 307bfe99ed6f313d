# Scalar operations: elementwise operations over nodes, and activations over floats. n-ary operations
# are in _reductions.pxi.
#
# a) A slot is LANES consecutive floats, one for each example. Node i of a call reads the slots
#    index[i * arity + a] and owns slot dst + i. No argument is a slot of the call's own nodes.
# b) The operation is chosen once for each call. The loop over nodes takes the scalar functions of
#    the operation as arguments. They are constants at each call site, so everything is inlined, and
#    the loop over lanes, of constant length, becomes SIMD code.
# c) A `lanes_t` is a restrict pointer: memory written through it is not read through another pointer
#    in the kernel. Two arguments of a node may be the same slot (x * x), so adjoints are added
#    argument by argument.

from libc.math cimport INFINITY, cosf, fabsf, sinf

cimport mlgraph_ext._ops as _ops

cdef extern from *:
    """
    typedef float *__restrict__ mlgraph_lanes_t;
    #define mlgraph_inlined_void __attribute__((always_inline)) void
    #define mlgraph_no_jam() __asm__ __volatile__("")
    """
    ctypedef float* lanes_t "mlgraph_lanes_t"
    ctypedef void inlined_void "mlgraph_inlined_void"
    # Marks the end of an iteration of a loop over arguments; emits no code. Without it gcc fuses the loops over lanes of two
    # iterations (-floop-unroll-and-jam) and leaves the result scalar.
    void no_jam "mlgraph_no_jam"() noexcept nogil

ctypedef float (*unary_t)(float) noexcept nogil
ctypedef float (*binary_t)(float, float) noexcept nogil
ctypedef float (*ternary_t)(float, float, float) noexcept nogil


cdef void op_forward(int op, int64_t count, int64_t arity, const int32_t* index, float* values,
                     int64_t dst) noexcept nogil:
    """Compute the values of `count` nodes of one operation."""
    cdef float* y = values + dst * LANES
    if op == _ops.IDENTITY:
        unary(_ops.identity, count, index, values, y)
    elif op == _ops.RELU:
        unary(_ops.relu, count, index, values, y)
    elif op == _ops.LEAKY_RELU:
        unary(_ops.leaky_relu, count, index, values, y)
    elif op == _ops.SIGMOID:
        unary(_ops.sigmoid, count, index, values, y)
    elif op == _ops.TANH:
        unary(_ops.tanh, count, index, values, y)
    elif op == _ops.SOFTPLUS:
        unary(_ops.softplus, count, index, values, y)
    elif op == _ops.NEG:
        unary(_ops.neg, count, index, values, y)
    elif op == _ops.ABS:
        unary(_ops.abs, count, index, values, y)
    elif op == _ops.EXP:
        unary(_ops.exp, count, index, values, y)
    elif op == _ops.LOG:
        unary(_ops.log, count, index, values, y)
    elif op == _ops.SQRT:
        unary(_ops.sqrt, count, index, values, y)
    elif op == _ops.SIN:
        periodic(_ops.sin, sinf, count, index, values, y)
    elif op == _ops.COS:
        periodic(_ops.cos, cosf, count, index, values, y)
    elif op == _ops.ADD:
        binary(_ops.add, count, index, values, y)
    elif op == _ops.SUB:
        binary(_ops.sub, count, index, values, y)
    elif op == _ops.MUL:
        binary(_ops.mul, count, index, values, y)
    elif op == _ops.DIV:
        binary(_ops.div, count, index, values, y)
    elif op == _ops.POW:
        power(count, index, values, y)
    elif op == _ops.MAXIMUM:
        binary(_ops.maximum, count, index, values, y)
    elif op == _ops.MINIMUM:
        binary(_ops.minimum, count, index, values, y)
    elif op == _ops.WHERE:
        where(count, index, values, y)
    elif op == _ops.SUM:
        n_ary(lanes_sum, count, arity, index, values, y)
    elif op == _ops.PROD:
        n_ary(lanes_prod, count, arity, index, values, y)
    elif op == _ops.MAX:
        n_ary(lanes_max, count, arity, index, values, y)
    elif op == _ops.LOGSUMEXP:
        n_ary(lanes_logsumexp, count, arity, index, values, y)
    elif op == _ops.ELU:
        unary(_ops.elu, count, index, values, y)
    elif op == _ops.GELU:
        unary(_ops.gelu, count, index, values, y)
    elif op == _ops.SILU:
        unary(_ops.silu, count, index, values, y)
    elif op == _ops.ERF:
        unary(_ops.erf, count, index, values, y)
    elif op == _ops.EXPM1:
        unary(_ops.expm1, count, index, values, y)
    elif op == _ops.LOG1P:
        unary(_ops.log1p, count, index, values, y)
    elif op == _ops.SINH:
        unary(_ops.sinh, count, index, values, y)
    elif op == _ops.COSH:
        unary(_ops.cosh, count, index, values, y)
    elif op == _ops.ARCTAN:
        unary(_ops.arctan, count, index, values, y)
    elif op == _ops.ARCSIN:
        unary(_ops.arcsin, count, index, values, y)
    elif op == _ops.ARCCOS:
        unary(_ops.arccos, count, index, values, y)
    elif op == _ops.FLOOR:
        unary(_ops.floor, count, index, values, y)
    elif op == _ops.SIGN:
        unary(_ops.sign, count, index, values, y)


cdef void op_adjoint(int op, int64_t count, int64_t arity, const int32_t* index, const float* values, float* adjoints,
                     int64_t dst) noexcept nogil:
    """Add the adjoints of `count` nodes times the partial derivatives to the adjoints of their arguments."""
    cdef const float* y = values + dst * LANES
    cdef const float* dy = adjoints + dst * LANES
    if op == _ops.IDENTITY:
        output_adjoint(_ops.identity_derivative, count, index, y, dy, adjoints)
    elif op == _ops.RELU:
        output_adjoint(_ops.relu_derivative, count, index, y, dy, adjoints)
    elif op == _ops.LEAKY_RELU:
        output_adjoint(_ops.leaky_relu_derivative, count, index, y, dy, adjoints)
    elif op == _ops.SIGMOID:
        output_adjoint(_ops.sigmoid_derivative, count, index, y, dy, adjoints)
    elif op == _ops.TANH:
        output_adjoint(_ops.tanh_derivative, count, index, y, dy, adjoints)
    elif op == _ops.SOFTPLUS:
        unary_adjoint(_ops.softplus_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.NEG:
        unary_adjoint(_ops.neg_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.ABS:
        unary_adjoint(_ops.abs_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.EXP:
        unary_adjoint(_ops.exp_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.LOG:
        unary_adjoint(_ops.log_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.SQRT:
        unary_adjoint(_ops.sqrt_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.SIN:
        periodic_adjoint(_ops.cos, cosf, 1, count, index, values, dy, adjoints)
    elif op == _ops.COS:
        periodic_adjoint(_ops.sin, sinf, -1, count, index, values, dy, adjoints)
    elif op == _ops.ADD:
        binary_adjoint(_ops.add_derivative_a, _ops.add_derivative_b, count, index, values, y, dy, adjoints)
    elif op == _ops.SUB:
        binary_adjoint(_ops.sub_derivative_a, _ops.sub_derivative_b, count, index, values, y, dy, adjoints)
    elif op == _ops.MUL:
        binary_adjoint(_ops.mul_derivative_a, _ops.mul_derivative_b, count, index, values, y, dy, adjoints)
    elif op == _ops.DIV:
        binary_adjoint(_ops.div_derivative_a, _ops.div_derivative_b, count, index, values, y, dy, adjoints)
    elif op == _ops.POW:
        power_adjoint(count, index, values, y, dy, adjoints)
    elif op == _ops.MAXIMUM:
        binary_adjoint(_ops.maximum_derivative_a, _ops.maximum_derivative_b, count, index, values, y, dy, adjoints)
    elif op == _ops.MINIMUM:
        binary_adjoint(_ops.minimum_derivative_a, _ops.minimum_derivative_b, count, index, values, y, dy, adjoints)
    elif op == _ops.WHERE:
        where_adjoint(count, index, values, dy, adjoints)
    elif op == _ops.SUM:
        n_ary_adjoint(lanes_sum_adjoint, count, arity, index, values, y, dy, adjoints)
    elif op == _ops.PROD:
        n_ary_adjoint(lanes_prod_adjoint, count, arity, index, values, y, dy, adjoints)
    elif op == _ops.MAX:
        n_ary_adjoint(lanes_max_adjoint, count, arity, index, values, y, dy, adjoints)
    elif op == _ops.LOGSUMEXP:
        n_ary_adjoint(lanes_logsumexp_adjoint, count, arity, index, values, y, dy, adjoints)
    elif op == _ops.ELU:
        output_adjoint(_ops.elu_derivative, count, index, y, dy, adjoints)
    elif op == _ops.GELU:
        unary_adjoint(_ops.gelu_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.SILU:
        unary_adjoint(_ops.silu_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.ERF:
        unary_adjoint(_ops.erf_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.EXPM1:
        unary_adjoint(_ops.expm1_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.LOG1P:
        unary_adjoint(_ops.log1p_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.SINH:
        unary_adjoint(_ops.sinh_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.COSH:
        unary_adjoint(_ops.cosh_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.ARCTAN:
        unary_adjoint(_ops.arctan_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.ARCSIN:
        unary_adjoint(_ops.arcsin_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.ARCCOS:
        unary_adjoint(_ops.arccos_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.FLOOR:
        unary_adjoint(_ops.floor_derivative, count, index, values, y, dy, adjoints)
    elif op == _ops.SIGN:
        unary_adjoint(_ops.sign_derivative, count, index, values, y, dy, adjoints)


cdef void activate(int op, int64_t n, float* z) noexcept nogil:
    """Apply an activation to n floats in place; n is a multiple of LANES."""
    if op == _ops.RELU:
        in_place(_ops.relu, n, z)
    elif op == _ops.LEAKY_RELU:
        in_place(_ops.leaky_relu, n, z)
    elif op == _ops.SIGMOID:
        in_place(_ops.sigmoid, n, z)
    elif op == _ops.TANH:
        in_place(_ops.tanh, n, z)
    elif op == _ops.ELU:
        in_place(_ops.elu, n, z)


cdef void activation_adjoint(int op, int64_t n, const float* y, float* adjoint) noexcept nogil:
    """Multiply n adjoints by the derivative of an activation, given its output y."""
    if op == _ops.RELU:
        scale(_ops.relu_derivative, n, y, adjoint)
    elif op == _ops.LEAKY_RELU:
        scale(_ops.leaky_relu_derivative, n, y, adjoint)
    elif op == _ops.SIGMOID:
        scale(_ops.sigmoid_derivative, n, y, adjoint)
    elif op == _ops.TANH:
        scale(_ops.tanh_derivative, n, y, adjoint)
    elif op == _ops.ELU:
        scale(_ops.elu_derivative, n, y, adjoint)


# Loops over nodes. x and dx are the first slots of the values and adjoints; y and dy are the slots of the first node.

cdef inline inlined_void unary(unary_t value, int64_t count, const int32_t* index, const float* x,
                               lanes_t y) noexcept nogil:
    cdef int64_t i, lane, source
    for i in range(count):
        source = index[i] * <int64_t>LANES
        for lane in range(LANES):
            y[i * LANES + lane] = value(x[source + lane])


cdef inline inlined_void unary_adjoint(binary_t derivative, int64_t count, const int32_t* index,
                                       const float* x, const float* y, const float* dy, lanes_t dx) noexcept nogil:
    cdef int64_t i, lane, source
    for i in range(count):
        source = index[i] * <int64_t>LANES
        for lane in range(LANES):
            dx[source + lane] += dy[i * LANES + lane] * derivative(x[source + lane], y[i * LANES + lane])


cdef inline inlined_void output_adjoint(unary_t derivative, int64_t count, const int32_t* index,
                                        const float* y, const float* dy, lanes_t dx) noexcept nogil:
    cdef int64_t i, lane, source
    for i in range(count):
        source = index[i] * <int64_t>LANES
        for lane in range(LANES):
            dx[source + lane] += dy[i * LANES + lane] * derivative(y[i * LANES + lane])


cdef inline inlined_void binary(binary_t value, int64_t count, const int32_t* index, const float* x,
                                lanes_t y) noexcept nogil:
    cdef int64_t i, lane, a, b
    for i in range(count):
        a = index[2 * i] * <int64_t>LANES
        b = index[2 * i + 1] * <int64_t>LANES
        for lane in range(LANES):
            y[i * LANES + lane] = value(x[a + lane], x[b + lane])


cdef inline inlined_void binary_adjoint(ternary_t derivative_a, ternary_t derivative_b, int64_t count,
                                        const int32_t* index, const float* x, const float* y, const float* dy,
                                        lanes_t dx) noexcept nogil:
    cdef int64_t i, lane, a, b, node
    for i in range(count):
        a = index[2 * i] * <int64_t>LANES
        b = index[2 * i + 1] * <int64_t>LANES
        node = i * LANES
        for lane in range(LANES):
            dx[a + lane] += dy[node + lane] * derivative_a(x[a + lane], x[b + lane], y[node + lane])
        for lane in range(LANES):
            dx[b + lane] += dy[node + lane] * derivative_b(x[a + lane], x[b + lane], y[node + lane])


cdef void where(int64_t count, const int32_t* index, const float* x, lanes_t y) noexcept nogil:
    cdef int64_t i, lane, c, a, b
    for i in range(count):
        c = index[3 * i] * <int64_t>LANES
        a = index[3 * i + 1] * <int64_t>LANES
        b = index[3 * i + 2] * <int64_t>LANES
        for lane in range(LANES):
            y[i * LANES + lane] = _ops.where(x[c + lane], x[a + lane], x[b + lane])


cdef void where_adjoint(int64_t count, const int32_t* index, const float* x, const float* dy,
                        lanes_t dx) noexcept nogil:
    cdef int64_t i, lane, c, a, b
    for i in range(count):
        c = index[3 * i] * <int64_t>LANES
        a = index[3 * i + 1] * <int64_t>LANES
        b = index[3 * i + 2] * <int64_t>LANES
        for lane in range(LANES):
            dx[a + lane] += _ops.where(x[c + lane], dy[i * LANES + lane], 0)
        for lane in range(LANES):
            dx[b + lane] += _ops.where(x[c + lane], 0, dy[i * LANES + lane])


cdef inline inlined_void in_place(unary_t value, int64_t n, float* z) noexcept nogil:
    cdef int64_t k
    for k in range(n):
        z[k] = value(z[k])


cdef inline inlined_void scale(unary_t derivative, int64_t n, const float* y, lanes_t adjoint) noexcept nogil:
    cdef int64_t k
    for k in range(n):
        adjoint[k] *= derivative(y[k])


# pow: whole exponents, by far the most common, are computed as products; libm computes the others lane by lane.

cdef void power(int64_t count, const int32_t* index, const float* x, lanes_t y) noexcept nogil:
    cdef int64_t i
    for i in range(count):
        lanes_pow(x + index[2 * i] * <int64_t>LANES, x + index[2 * i + 1] * <int64_t>LANES, 0, y + i * LANES)


cdef void power_adjoint(int64_t count, const int32_t* index, const float* x, const float* y, const float* dy,
                        lanes_t dx) noexcept nogil:
    cdef int64_t i, lane, a, b, node
    cdef float lower[LANES]
    for i in range(count):
        a = index[2 * i] * <int64_t>LANES
        b = index[2 * i + 1] * <int64_t>LANES
        node = i * LANES
        lanes_pow(x + a, x + b, 1, lower)
        for lane in range(LANES):
            dx[a + lane] += dy[node + lane] * _ops.pow_derivative_a(x[a + lane], x[b + lane], lower[lane])
        for lane in range(LANES):
            dx[b + lane] += dy[node + lane] * _ops.pow_derivative_b(x[a + lane], x[b + lane], y[node + lane])


cdef void lanes_pow(const float* a, const float* b, float shift, lanes_t y) noexcept nogil:
    """a ** (b - shift). The error is at most 3.5 ulp, largest for an exponent of -3; exponents beyond -3 to 3 use libm."""
    cdef int64_t lane
    cdef float exponent = b[0] - shift
    cdef int k, whole = <int>exponent if -3 <= exponent <= 3 else 0
    cdef int mixed = <float>whole != exponent
    for lane in range(LANES):
        mixed |= b[lane] != b[0]
    if mixed:
        for lane in range(LANES):
            y[lane] = _ops.pow(a[lane], b[lane] - shift)
        return
    for lane in range(LANES):
        y[lane] = 1
    for k in range(whole):
        for lane in range(LANES):
            y[lane] *= a[lane]
    for k in range(-whole):
        for lane in range(LANES):
            y[lane] *= <float>1 / a[lane]


# sin and cos: libm computes those of arguments that the polynomials cannot reduce.

cdef inline inlined_void periodic(unary_t value, unary_t libm, int64_t count, const int32_t* index,
                                  const float* x, lanes_t y) noexcept nogil:
    cdef int64_t i
    for i in range(count):
        lanes_periodic(value, libm, x + index[i] * <int64_t>LANES, y + i * LANES)


cdef inline inlined_void periodic_adjoint(unary_t derivative, unary_t libm, float sign, int64_t count,
                                          const int32_t* index, const float* x, const float* dy,
                                          lanes_t dx) noexcept nogil:
    cdef int64_t i, lane, source
    cdef float partial[LANES]
    for i in range(count):
        source = index[i] * <int64_t>LANES
        lanes_periodic(derivative, libm, x + source, partial)
        for lane in range(LANES):
            dx[source + lane] += sign * dy[i * LANES + lane] * partial[lane]


cdef inline inlined_void lanes_periodic(unary_t value, unary_t libm, const float* x,
                                        lanes_t y) noexcept nogil:
    cdef int64_t lane
    cdef int beyond = 0
    for lane in range(LANES):
        y[lane] = value(x[lane])
        beyond |= fabsf(x[lane]) > <float>_ops.SIN_LIMIT
    if beyond:
        for lane in range(LANES):
            if fabsf(x[lane]) > <float>_ops.SIN_LIMIT:
                y[lane] = libm(x[lane])


# For tests: the same kernels, with checks.

def apply_op(int op, const int32_t[:, ::1] index, float[:, ::1] values, Py_ssize_t dst):    # index: IN, values: IN/OUT
    """Evaluate nodes of one operation. Node i reads the rows index[i] of values and writes row dst + i."""
    check_op(op, index, values, dst)
    if index.shape[0] == 0:
        return
    with nogil:
        op_forward(op, index.shape[0], index.shape[1], &index[0, 0], &values[0, 0], dst)


def apply_op_adjoint(int op, const int32_t[:, ::1] index, const float[:, ::1] values, float[:, ::1] adjoints,
                     Py_ssize_t dst):                                       # index, values: IN, adjoints: IN/OUT
    """Add to the adjoints of the arguments of nodes of one operation. The parameters are those of `apply_op`."""
    check_op(op, index, values, dst)
    if adjoints.shape[0] != values.shape[0] or adjoints.shape[1] != LANES:
        raise ValueError(f"adjoints: expected the shape of values, {(values.shape[0], values.shape[1])}, "
                         f"got {(adjoints.shape[0], adjoints.shape[1])}")
    if index.shape[0] == 0:
        return
    with nogil:
        op_adjoint(op, index.shape[0], index.shape[1], &index[0, 0], &values[0, 0], &adjoints[0, 0], dst)


cdef int check_op(int op, const int32_t[:, ::1] index, const float[:, ::1] values, Py_ssize_t dst) except -1:
    cdef Py_ssize_t i, a, count = index.shape[0], arity = index.shape[1], n_slots = values.shape[0]
    if not 0 <= op < _ops.N_OPS:
        raise ValueError(f"op: expected 0 to {_ops.N_OPS - 1}, got {op}")
    if arity != _ops.op_arity(op) if _ops.op_arity(op) > 0 else arity < 1:
        raise ValueError(f"index: expected {_ops.op_arity(op) if _ops.op_arity(op) > 0 else '1 or more'} columns "
                         f"for op {op}, got {arity}")
    if values.shape[1] != LANES:
        raise ValueError(f"values: expected {LANES} columns, got {values.shape[1]}")
    if not 0 <= dst <= n_slots - count:
        raise ValueError(f"dst: expected 0 to {n_slots - count} for {count} nodes in {n_slots} slots, got {dst}")
    for i in range(count):
        for a in range(arity):
            if not 0 <= index[i, a] < n_slots or dst <= index[i, a] < dst + count:
                raise ValueError(f"index[{i}, {a}]: expected a slot from 0 to {n_slots - 1} outside of "
                                 f"{dst} to {dst + count - 1}, got {index[i, a]}")
    return 0
