# cython: cdivision=True

# Value and derivatives of each operation on one float32, inline, in the order of mlgraph/graph/ops.py.
#
# a) Every function is straight-line code, so that a loop of constant length over it becomes SIMD code. A choice is a
#    conditional expression between values that are already computed, which compiles to a blend.
# b) A derivative is named after its op and argument: `sigmoid_derivative(y)` for activations, `exp_derivative(x, y)`
#    for other unary ops, `div_derivative_a(a, b, y)` and `div_derivative_b(a, b, y)` for binary ones. sin and cos are each
#    other's derivatives. n-ary ops need loops and are in _reductions.pxi.
# c) libm would be called lane by lane, so exp, log, sin, cos, arctan, arcsin and erf are polynomials, and the others follow
#    from them. The coefficients are a least-squares fit on 800 Chebyshev nodes in float64, reweighted until the relative
#    error is level (Lawson's algorithm). They are rounded to float32 from the lowest order up, and the higher ones are
#    fitted again after each.
# d) Errors are given in units in the last place. They are the largest found in builds with FMA (v3) and without (v2), for
#    exp and log over all float32, for the others over every 61st, and from elu on over every 403rd.
# e) Every op propagates NaN, so that it can be traced to its origin, except that `where` treats NaN as false.

from libc.math cimport INFINITY, NAN, copysignf, fabsf, floorf, powf, sqrtf
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
    ELU
    GELU
    SILU
    ERF
    EXPM1
    LOG1P
    SINH
    COSH
    ARCTAN
    ARCSIN
    ARCCOS
    FLOOR
    SIGN
    N_OPS


cdef inline int op_arity(int op) noexcept nogil:
    """Number of arguments of an op; -1 if it takes one or more."""
    return 1 if op <= COS or op > LOGSUMEXP else 2 if op <= MINIMUM else 3 if op == WHERE else -1


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


cdef inline float elu(float x) noexcept nogil:
    return x if x > 0 else expm1(x)


cdef inline float elu_derivative(float y) noexcept nogil:
    return <float>1 if y > 0 else y + <float>1


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
    """exp(x); error below 1.02 ulp, subnormal results included."""
    return scaled_exp(x, 0)


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


cdef inline float gelu(float x) noexcept nogil:
    """x P(X < x) = relu(x) - |x| P(X < -|x|) for a normal X; error below 7.2 ulp."""
    cdef float a = clipped(x, <float>100)
    return relu(x) - (a * (scaled_gaussian(a, <float>0.5, 32) * mills_ratio(a))) * power_of_two(-32)


cdef inline float gelu_derivative(float x, float y) noexcept nogil:
    """P(X < x) + x p(x) with the density p. At -|x| it is p times Mills' ratio less |x|; both sides add up to 1."""
    cdef float a = clipped(x, <float>100)
    cdef float below = (scaled_gaussian(a, <float>0.5, 32) * (mills_ratio(a) - a * <float>0.398942280)) * power_of_two(-32)
    return below if x < 0 else <float>1 - below


cdef inline float silu(float x) noexcept nogil:
    """x sigmoid(x) = relu(x) - |x| e / (1 + e) for e = exp(-|x|); error below 3.1 ulp."""
    cdef float a = clipped(x, <float>130)
    cdef float scaled = scaled_exp(-a, 32)              # as e may be subnormal where a e is not
    return relu(x) - (a * scaled) / (<float>1 + scaled * power_of_two(-32)) * power_of_two(-32)


cdef inline float silu_derivative(float x, float y) noexcept nogil:
    """s - |x| s (1 - s) for s = sigmoid(-|x|), where x < 0; both sides add up to 1."""
    cdef float a = clipped(x, <float>130)
    cdef float scaled = scaled_exp(-a, 32)
    cdef float other = <float>1 / (<float>1 + scaled * power_of_two(-32))
    cdef float s = scaled * other
    cdef float below = (s - (a * s) * other) * power_of_two(-32)
    return below if x < 0 else <float>1 - below


cdef inline float erf(float x) noexcept nogil:
    """x + x P(x^2) up to |x| = 15 / 16, 1 - exp(-|x| - |x| Q(|x|)) beyond; error below 1.2 ulp."""
    cdef float a = clipped(x, <float>4), z = x * x      # from 3.92 on the result is 1
    cdef float p, q
    p = <float>-5.92512509e-4
    p = p * z + <float>4.98068752e-3
    p = p * z + <float>-2.67585646e-2
    p = p * z + <float>1.12816177e-1
    p = p * z + <float>-3.76124799e-1
    p = p * z + <float>1.2837915e-1
    q = <float>-2.1337022e-4
    q = q * a + <float>3.20987636e-3
    q = q * a + <float>-2.28736252e-2
    q = q * a + <float>1.05236255e-1
    q = q * a + <float>6.35737836e-1
    q = q * a + <float>1.28508553e-1
    return x + x * p if a < <float>0.9375 else copysignf(<float>1 - exp(-(a + a * q)), x)


cdef inline float erf_derivative(float x, float y) noexcept nogil:
    return <float>1.12837917 * scaled_gaussian(clipped(x, <float>20), <float>1, 0)


cdef inline float expm1(float x) noexcept nogil:
    """2^k (exp(r) - 1) + (2^k - 1), computed at half its size, which cannot overflow early; error below 1.6 ulp."""
    cdef float bounded = <float>89 if x > <float>89 else x                  # in this order NaN stays NaN
    cdef float shifted, scale, y
    bounded = <float>-20 if bounded < <float>-20 else bounded
    shifted = bounded * <float>1.44269504 + <float>SHIFT
    scale = power_of_two(whole(shifted) - 1)
    y = scale * expm1_polynomial(minus_ln2(bounded, shifted - <float>SHIFT)) + (scale - <float>0.5)
    return x if fabsf(x) < <float>1e-8 else y + y       # half of a subnormal number may not exist


cdef inline float expm1_derivative(float x, float y) noexcept nogil:
    return exp(x)


cdef inline float log1p(float x) noexcept nogil:
    """k ln 2 + log1p(f) with 1 + x = 2^k (1 + f), as in `log`; error below 1.5 ulp.

    f is x 2^-k + (2^-k - 1), which does not round 1 + x. Where 2^-k is subnormal, the sum 1 + x is x.
    """
    cdef float u = <float>1 + x
    cdef uint32_t bits = float_to_bits(u)
    cdef int32_t k = <int32_t>(bits - <uint32_t>0x3f3504f3) >> 23
    cdef float scale = power_of_two(-k)
    cdef float of_large = bits_to_float(bits - (<uint32_t>k << 23)) - <float>1
    cdef float y = log_sum(x * scale + (scale - <float>1) if x < <float>1e18 else of_large, <float>k)
    y = x if (fabsf(x) < <float>1e-8) | (x == <float>INFINITY) else y
    return y if u > 0 else (-<float>INFINITY if x == -1 else <float>NAN if x < -1 else x)


cdef inline float log1p_derivative(float x, float y) noexcept nogil:
    return <float>NAN if x < -1 else <float>1 / (<float>1 + x)


cdef inline float sinh(float x) noexcept nogil:
    """e - 1 / (4 e) for e = exp(|x|) / 2, or x + x^3 P(x^2) up to 1; error below 1.7 ulp."""
    cdef float a = fabsf(x), z = x * x, e = scaled_exp(a, -1)
    cdef float p
    p = <float>2.78221319e-6
    p = p * z + <float>1.98428956e-4
    p = p * z + <float>8.3333105e-3
    p = p * z + <float>1.66666672e-1
    return x + (x * z) * p if a < 1 else copysignf(e - <float>0.25 / e, x)


cdef inline float sinh_derivative(float x, float y) noexcept nogil:
    return cosh(x)


cdef inline float cosh(float x) noexcept nogil:
    """e + 1 / (4 e) for e = exp(|x|) / 2; error below 1.5 ulp."""
    cdef float e = scaled_exp(fabsf(x), -1)
    return e + <float>0.25 / e


cdef inline float cosh_derivative(float x, float y) noexcept nogil:
    return sinh(x)


cdef inline float arctan(float x) noexcept nogil:
    """t + t^3 P(t^2) for t = |x|, or pi / 2 less that for t = 1 / |x| beyond 1; error below 1.4 ulp."""
    cdef float a = fabsf(x)
    cdef float t = <float>1 / a if a > 1 else a
    cdef float z = t * t
    cdef float p
    p = <float>2.91975997e-3
    p = p * z + <float>-1.63642447e-2
    p = p * z + <float>4.32059765e-2
    p = p * z + <float>-7.55172893e-2
    p = p * z + <float>1.0665786e-1
    p = p * z + <float>-1.42110035e-1
    p = p * z + <float>1.9993767e-1
    p = p * z + <float>-3.33331525e-1
    p = (t * z) * p
    return copysignf(<float>1.57079637 - (t + (p + <float>4.37113883e-8)) if a > 1 else t + p, x)


cdef inline float arctan_derivative(float x, float y) noexcept nogil:
    cdef float a = fabsf(x)
    cdef float t = <float>1 / a if a > 1 else a         # x^2 may overflow where the result is not 0
    cdef float share = <float>1 / (<float>1 + t * t)
    return (t * share) * t if a > 1 else share


cdef inline float arcsin(float x) noexcept nogil:
    """arcsin of |x| up to 1 / 2, and pi / 2 - 2 arcsin(sqrt((1 - |x|) / 2)) beyond; error below 2.9 ulp."""
    cdef float a = fabsf(x), y = arcsin_half(a)
    return copysignf(<float>1.57079637 - (y + (y + <float>4.37113883e-8)) if a > <float>0.5 else y, x)


cdef inline float arcsin_derivative(float x, float y) noexcept nogil:
    return <float>1 / sqrtf((<float>1 - x) * (<float>1 + x))


cdef inline float arccos(float x) noexcept nogil:
    """pi / 2 - arcsin(x), where that does not cancel, else 2 arcsin(sqrt((1 - x) / 2)); error below 1.2 ulp."""
    cdef float a = fabsf(x), y = arcsin_half(a)
    cdef float near_0 = <float>1.57079637 - (copysignf(y, x) + <float>4.37113883e-8)
    cdef float beyond = <float>3.14159274 - (y + (y + <float>8.74227766e-8)) if x < 0 else y + y
    return beyond if a > <float>0.5 else near_0


cdef inline float arccos_derivative(float x, float y) noexcept nogil:
    return -arcsin_derivative(x, y)


cdef inline float floor(float x) noexcept nogil:
    return floorf(x)


cdef inline float floor_derivative(float x, float y) noexcept nogil:
    return <float>0


cdef inline float sign(float x) noexcept nogil:
    return <float>1 if x > 0 else <float>-1 if x < 0 else x


cdef inline float sign_derivative(float x, float y) noexcept nogil:
    return <float>0


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


cdef inline float clipped(float x, float most) noexcept nogil:
    """min(|x|, most); NaN stays NaN."""
    cdef float a = fabsf(x)
    return most if a > most else a


cdef inline float scaled_exp(float x, int32_t exponent) noexcept nogil:
    """2^exponent exp(x) for exponents from -1 to 32: 2^k exp(r) with k = round(x / ln 2) and |r| <= ln(2) / 2.

    2^k is applied as two factors, because it may exceed the range of exponents where the result does not.
    """
    cdef float shifted, r
    cdef int32_t k, half
    x = <float>90 if x > <float>90 else x               # exp(90) / 2 overflows to inf, 2^32 exp(-127) underflows to 0;
    x = <float>-127 if x < <float>-127 else x           # in this order NaN stays NaN
    shifted = x * <float>1.44269504 + <float>SHIFT
    r = minus_ln2(x, shifted - <float>SHIFT)
    k = whole(shifted) + exponent
    half = k >> 1
    return (expm1_polynomial(r) + <float>1) * power_of_two(half) * power_of_two(k - half)


cdef inline float scaled_gaussian(float a, float factor, int32_t exponent) noexcept nogil:
    """2^exponent exp(-factor a^2) for 0 <= a <= 100 and a factor of 1/2 or 1.

    a^2 would be rounded. With b, the upper 12 bits of a, it is b^2 + (a - b) (a + b), where b^2 is exact. The second term is
    below 1/3 where the result is not 0.
    """
    cdef float b = bits_to_float(float_to_bits(a) & <uint32_t>0xfffff000)
    return scaled_exp(-factor * (b * b), exponent) * (expm1_polynomial(-factor * ((a - b) * (a + b))) + <float>1)


cdef inline float mills_ratio(float a) noexcept nogil:
    """exp(a^2 / 2) P(X < -a) of a normal X, for 0 <= a <= 14.6: a polynomial in 1 / (1 + 0.35 a)."""
    cdef float w = <float>1 / (<float>1 + <float>0.35 * a)
    cdef float p
    p = <float>-2.91615948e-2
    p = p * w + <float>1.44048601e-1
    p = p * w + <float>-2.55874634e-1
    p = p * w + <float>1.59359232e-1
    p = p * w + <float>-2.32386962e-2
    p = p * w + <float>1.0556326e-1
    p = p * w + <float>1.19818665e-1
    p = p * w + <float>1.39863864e-1
    p = p * w + <float>1.39621288e-1
    return p * w


cdef inline float arcsin_half(float a) noexcept nogil:
    """arcsin(a) for 0 <= a <= 1 / 2, else arcsin(sqrt((1 - a) / 2)): s + s^3 P(s^2)."""
    cdef bint above = a > <float>0.5
    cdef float z = <float>0.5 - <float>0.5 * a if above else a * a
    cdef float s = sqrtf(z) if above else a
    cdef float p
    p = <float>4.21582982e-2
    p = p * z + <float>2.41847802e-2
    p = p * z + <float>4.54691499e-2
    p = p * z + <float>7.49530941e-2
    p = p * z + <float>1.66667521e-1
    return s + (s * z) * p


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
