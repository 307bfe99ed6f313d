# cython: cdivision=True

# Value and derivatives of each operation on one float32, inline, in the order of mlgraph/graph/ops.py.
#
# a) Every function is straight-line code, so that a loop of constant length over it becomes SIMD code. A choice is a
#    conditional expression between values that are already computed, which compiles to a blend.
# b) A derivative is named after its op and argument: `sigmoid_derivative(y)` for activations, `exp_derivative(x, y)`
#    for other unary ops, `div_derivative_a(a, b, y)` and `div_derivative_b(a, b, y)` for binary ones. sin and cos are each
#    other's derivatives. n-ary ops need loops and are in _reductions.pxi.
# c) libm would be called lane by lane, so exp, log, sin and cos are polynomials, and sigmoid, tanh and softplus follow
#    from them. The coefficients are a least-squares fit on 800 Chebyshev nodes in float64, reweighted until the relative
#    error is level (Lawson's algorithm). They are rounded to float32 from the lowest order up, and the higher ones are
#    fitted again after each.
# d) Errors are given in units in the last place. They are the largest found in builds with FMA (v3) and without (v2), for
#    exp and log over all float32, for the others over every 61st.
# e) Every op propagates NaN, so that it can be traced to its origin, except that `where` treats NaN as false.

from libc.math cimport INFINITY, NAN, copysignf, fabsf, powf, sqrtf
from libc.stdint cimport int32_t, uint32_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint32_t mlgraph_float_to_bits(float x) { uint32_t n; memcpy(&n, &x, sizeof n); return n; }
    static inline float mlgraph_bits_to_float(uint32_t n) { float x; memcpy(&x, &n, sizeof x); return x; }
    """
    uint32_t float_to_bits "mlgraph_float_to_bits"(float x) noexcept nogil
    float bits_to_float "mlgraph_bits_to_float"(uint32_t n) noexcept nogil


cdef enum:
    IDENTITY
    RELU
    LEAKY_RELU
    SIGMOID
    TANH
    SOFTPLUS
    NEG
    ABS
    EXP
    LOG
    SQRT
    SIN
    COS
    ADD
    SUB
    MUL
    DIV
    POW
    MAXIMUM
    MINIMUM
    WHERE
    SUM
    PROD
    MAX
    LOGSUMEXP
    N_OPS


cdef inline int op_arity(int op) noexcept nogil:
    """Number of arguments of an op; -1 if it takes one or more."""
    return 1 if op <= COS else 2 if op <= MINIMUM else 3 if op == WHERE else -1


# Activations. Their derivatives are functions of the output.

cdef inline float identity(float x) noexcept nogil:
    return x


cdef inline float identity_derivative(float y) noexcept nogil:
    return <float>1


cdef inline float relu(float x) noexcept nogil:
    return <float>0 if <float>0 > x else x              # in this order NaN stays NaN


cdef inline float relu_derivative(float y) noexcept nogil:
    return <float>1 if y > 0 else <float>0


cdef inline float leaky_relu(float x) noexcept nogil:
    return x if x > 0 else <float>0.01 * x


cdef inline float leaky_relu_derivative(float y) noexcept nogil:
    return <float>1 if y > 0 else <float>0.01


cdef inline float sigmoid(float x) noexcept nogil:
    """1 / (1 + exp(-x)) by exp(-|x|), which cannot overflow; error below 2.5 ulp."""
    cdef float e = exp(-fabsf(x))
    return (e if x < 0 else <float>1) / (<float>1 + e)


cdef inline float sigmoid_derivative(float y) noexcept nogil:
    return y * (<float>1 - y)


cdef inline float tanh(float x) noexcept nogil:
    """t / (t + 2) for t = expm1(2 |x|) = 2^k (exp(r) - 1) + (2^k - 1), with the sign of x; error below 2.6 ulp.

    t is as accurate near 0 as elsewhere. From |x| = 10 on the result is 1.
    """
    cdef float doubled = <float>2 * fabsf(x)
    cdef float t, shifted, scale
    doubled = <float>20 if doubled > <float>20 else doubled
    shifted = doubled * <float>1.44269504 + <float>SHIFT
    scale = power_of_two(whole(shifted))
    t = scale * expm1_polynomial(minus_ln2(doubled, shifted - <float>SHIFT)) + (scale - <float>1)
    return copysignf(t / (t + <float>2), x)


cdef inline float tanh_derivative(float y) noexcept nogil:
    return <float>1 - y * y


# Unary ops.

cdef inline float softplus(float x) noexcept nogil:
    """max(x, 0) + log1p(exp(-|x|)); error below 2 ulp.

    With e = exp(-|x|), log1p(e) needs no sum 1 + e: the f of `log` is e itself, or (e - 1) / 2 beyond sqrt(2).
    """
    cdef float e = exp(-fabsf(x))
    cdef bint upper = e > <float>0.41421356
    cdef float tail = log_sum(e * <float>0.5 - <float>0.5 if upper else e, <float>1 if upper else <float>0)
    return tail + relu(x)


cdef inline float softplus_derivative(float x, float y) noexcept nogil:
    return sigmoid(x)


cdef inline float neg(float x) noexcept nogil:
    return -x


cdef inline float neg_derivative(float x, float y) noexcept nogil:
    return <float>-1


cdef inline float abs(float x) noexcept nogil:
    return fabsf(x)


cdef inline float abs_derivative(float x, float y) noexcept nogil:
    return (<float>1 if x > 0 else <float>0) - (<float>1 if x < 0 else <float>0)


cdef inline float exp(float x) noexcept nogil:
    """2^k exp(r) with k = round(x / ln 2) and |r| <= ln(2) / 2; error below 1.02 ulp, subnormal results included.

    2^k is applied as two factors, because it may exceed the range of exponents where the result does not.
    """
    cdef float shifted, r
    cdef int32_t k, half
    x = <float>89 if x > <float>89 else x               # exp(89) overflows to inf, exp(-104) underflows to 0;
    x = <float>-104 if x < <float>-104 else x           # in this order NaN stays NaN
    shifted = x * <float>1.44269504 + <float>SHIFT
    r = minus_ln2(x, shifted - <float>SHIFT)
    k = whole(shifted)
    half = k >> 1
    return (expm1_polynomial(r) + <float>1) * power_of_two(half) * power_of_two(k - half)


cdef inline float exp_derivative(float x, float y) noexcept nogil:
    return y


cdef inline float log(float x) noexcept nogil:
    """k ln 2 + log1p(f) with x = 2^k (1 + f) and 1 + f between sqrt(1/2) and sqrt(2); error below 1 ulp."""
    cdef bint subnormal = x < <float>1.17549435e-38
    cdef uint32_t bits = float_to_bits(x * <float>8388608 if subnormal else x)
    cdef int32_t k = <int32_t>(bits - <uint32_t>0x3f3504f3) >> 23                   # these are the bits of sqrt(1/2)
    cdef float f = bits_to_float(bits - (<uint32_t>k << 23)) - <float>1
    cdef float y = log_sum(f, <float>(k - 23 if subnormal else k))
    y = y if x < <float>INFINITY else x                 # inf and NaN
    return y if x > 0 else (-<float>INFINITY if x == 0 else <float>NAN if x < 0 else x)


cdef inline float log_derivative(float x, float y) noexcept nogil:
    return <float>1 / x


cdef inline float sqrt(float x) noexcept nogil:
    return sqrtf(x)


cdef inline float sqrt_derivative(float x, float y) noexcept nogil:
    return <float>0.5 / y


cdef inline float sin(float x) noexcept nogil:
    """sin for |x| <= SIN_LIMIT; error below 2.4 ulp."""
    return sin_quarter(x, 0)


cdef inline float cos(float x) noexcept nogil:
    """cos for |x| <= SIN_LIMIT; error below 2.4 ulp."""
    return sin_quarter(x, 1)


# Binary ops.

cdef inline float add(float a, float b) noexcept nogil:
    return a + b


cdef inline float add_derivative_a(float a, float b, float y) noexcept nogil:
    return <float>1


cdef inline float add_derivative_b(float a, float b, float y) noexcept nogil:
    return <float>1


cdef inline float sub(float a, float b) noexcept nogil:
    return a - b


cdef inline float sub_derivative_a(float a, float b, float y) noexcept nogil:
    return <float>1


cdef inline float sub_derivative_b(float a, float b, float y) noexcept nogil:
    return <float>-1


cdef inline float mul(float a, float b) noexcept nogil:
    return a * b


cdef inline float mul_derivative_a(float a, float b, float y) noexcept nogil:
    return b


cdef inline float mul_derivative_b(float a, float b, float y) noexcept nogil:
    return a


cdef inline float div(float a, float b) noexcept nogil:
    return a / b


cdef inline float div_derivative_a(float a, float b, float y) noexcept nogil:
    return <float>1 / b


cdef inline float div_derivative_b(float a, float b, float y) noexcept nogil:
    return -y / b


cdef inline float pow(float a, float b) noexcept nogil:
    return powf(a, b)


cdef inline float pow_derivative_a(float a, float b, float lower) noexcept nogil:
    """b a^(b - 1) for lower = a^(b - 1). All floats from 2^24 on are even, so the odd b - 1 was rounded to an even one."""
    cdef float odd = copysignf(lower, a), size = fabsf(b)
    lower = odd if (size >= <float>16777216) & (size < INFINITY) else lower
    return <float>0 if b == 0 else b * lower


cdef inline float pow_derivative_b(float a, float b, float y) noexcept nogil:
    cdef float slope = y * log(a)
    return <float>0 if (a == 0) & (b > 0) else slope


cdef inline float maximum(float a, float b) noexcept nogil:
    return a if (a > b) | (a != a) else b


cdef inline float maximum_derivative_a(float a, float b, float y) noexcept nogil:
    return <float>1 if a > b else <float>0.5 if a == b else <float>0


cdef inline float maximum_derivative_b(float a, float b, float y) noexcept nogil:
    return maximum_derivative_a(b, a, y)


cdef inline float minimum(float a, float b) noexcept nogil:
    return a if (a < b) | (a != a) else b


cdef inline float minimum_derivative_a(float a, float b, float y) noexcept nogil:
    return maximum_derivative_a(b, a, y)


cdef inline float minimum_derivative_b(float a, float b, float y) noexcept nogil:
    return maximum_derivative_a(a, b, y)


cdef inline float where(float c, float a, float b) noexcept nogil:
    return a if c > 0 else b


# Functions shared by the above.

cdef extern from "<math.h>" nogil:
    float copysignf(float magnitude, float sign)

cdef enum:
    SIN_LIMIT = 10000
    SHIFT = 12582912      # 1.5 * 2^23: adding it rounds a float to a whole number, which is then in its low bits


cdef inline int32_t whole(float shifted) noexcept nogil:
    """The whole number to which adding SHIFT rounded."""
    return <int32_t>(float_to_bits(shifted) - float_to_bits(<float>SHIFT))


cdef inline float power_of_two(int32_t exponent) noexcept nogil:
    """2^exponent for -126 <= exponent <= 127."""
    return bits_to_float(<uint32_t>(exponent + 127) << 23)


cdef inline float minus_ln2(float x, float k) noexcept nogil:
    """x - k ln 2. ln 2 is split into two parts, the first of 15 bits, so that its product with k is exact."""
    x = x - k * <float>0.693145752
    return x - k * <float>1.42860677e-6


cdef inline float expm1_polynomial(float r) noexcept nogil:
    """exp(r) - 1 for |r| <= ln(2) / 2: r + r^2 P(r)."""
    cdef float p
    p = <float>1.38207339e-3
    p = p * r + <float>8.36867746e-3
    p = p * r + <float>4.16682661e-2
    p = p * r + <float>1.66665211e-1
    p = p * r + <float>4.9999994e-1
    return p * (r * r) + r


cdef inline float log_sum(float f, float k) noexcept nogil:
    """k ln 2 + log1p(f) for sqrt(1/2) - 1 <= f <= sqrt(2) - 1: f - f^2 / 2 + f^3 P(f)."""
    cdef float z = f * f
    cdef float p
    p = <float>-7.63643533e-2
    p = p * f + <float>1.27622157e-1
    p = p * f + <float>-1.31596103e-1
    p = p * f + <float>1.4201580e-1
    p = p * f + <float>-1.66234091e-1
    p = p * f + <float>2.00012416e-1
    p = p * f + <float>-2.50008196e-1
    p = p * f + <float>3.33333313e-1
    p = (f * z) * p + k * <float>1.42860677e-6
    p = p - <float>0.5 * z
    return k * <float>0.693145752 + (f + p)


cdef inline float sin_quarter(float x, int32_t quarter) noexcept nogil:
    """sin(x + quarter * pi / 2) for |x| <= SIN_LIMIT, by x = k pi / 2 + r with |r| <= pi / 4.

    pi / 2 is subtracted in four parts, the first three of 11 bits. Their products with k < 2^13 are exact, so the
    result is also accurate near the zeros.
    """
    cdef float shifted = x * <float>0.636619772 + <float>SHIFT
    cdef float k = shifted - <float>SHIFT
    cdef uint32_t quadrant = <uint32_t>whole(shifted) + <uint32_t>quarter    # unsigned, because it may wrap at x = -39530384
    cdef float r, z, s, c
    r = x - k * <float>1.5703125
    r = r - k * <float>4.83751297e-4
    r = r - k * <float>7.54953362e-8
    r = r - k * <float>2.56334407e-12
    z = r * r
    s = <float>-1.95179033e-4
    s = s * z + <float>8.33218731e-3
    s = s * z + <float>-1.66666552e-1
    s = copysignf((r * z) * s + r, r)                   # keeps the sign of zero
    c = <float>2.44323273e-5
    c = c * z + <float>-1.38873095e-3
    c = c * z + <float>4.16666456e-2
    c = (z * z) * c + (<float>1 - <float>0.5 * z)
    s = c if quadrant & 1 else s
    return -s if quadrant & 2 else s
