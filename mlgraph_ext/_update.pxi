# What becomes of a gradient: it is added to a vector of gradients, or moves the parameters at once. Each call owns a run
# of neighbouring parameters, so that no two threads touch the same.

cdef enum:
    ACCUMULATE = 0       # gradient += g
    SGD = 1              # w -= rate * g
    MOMENTUM = 2         # v = momentum * v + g;  w -= rate * v
    ADAM = 3             # Kingma & Ba (2015), algorithm 1 with both bias corrections folded into the rate

cdef struct Optimizer:
    int64_t kind
    float momentum       # Adam: beta1
    float decay          # Adam: beta2
    float epsilon        # Adam
    float* parameters
    float* first         # velocity, Adam's first moment, or the vector of gradients
    float* second        # Adam's second moment


cdef extern from *:
    """
    static inline vec absolute(vec x) { return (vec)((ivec)x & 0x7fffffff); }

    /* Kingma & Ba's step. Root and quotient share one unit of the processor, which makes them the longest part of an update;
       so the quotient is made by multiplying: an estimate of 14 bits, corrected once to 2^-27. */
    static inline void adam(float *w, float *v, float *s, const float *g, int64_t n, float rate, float a, float b, float e)
    {
        int64_t i = 0;
    #if defined(__AVX512F__)
        for (; i + 16 <= n; i += 16) {
            vec x = *(const vec *)(g + i);
            vec first = *(vec *)(v + i) * a + x * (1 - a), second = *(vec *)(s + i) * b + x * (x * (1 - b));
            *(vec *)(v + i) = first;
            *(vec *)(s + i) = second;
            vec d = (vec)_mm512_sqrt_ps((__m512)second) + e, q = (vec)_mm512_rcp14_ps((__m512)d);
            *(vec *)(w + i) -= first * rate * (q * (2 - d * q));
        }
    #endif
        for (; i < n; i++) {
            v[i] = a * v[i] + (1 - a) * g[i];
            s[i] = b * s[i] + (1 - b) * g[i] * g[i];
            w[i] -= rate * v[i] / (sqrtf(s[i]) + e);
        }
    }
    """
    vec absolute(vec x) noexcept nogil
    void adam(float*, float*, float*, const float*, int64_t, float, float, float, float) noexcept nogil


cdef double magnitude(const float* x, int64_t n) noexcept nogil:
    """Sum of |x|: as large as the largest of them, and not finite if one is not. `n` is a multiple of LANES."""
    cdef vec low = splat(<float>0), high = splat(<float>0)
    cdef double total = 0
    cdef int64_t i
    cdef int c
    for i in range(n // (2 * VEC_WIDTH)):
        low = low + absolute((<const vec*>x)[2 * i])
        high = high + absolute((<const vec*>x)[2 * i + 1])
    low = low + high
    for c in range(VEC_WIDTH):
        total = total + (<float*>&low)[c]
    return total


cdef bint all_finite(const float* x, int64_t n) noexcept nogil:
    # 0 * x is zero for finite x and NaN otherwise; a sum of such products is zero only if all were.
    cdef vec acc = splat(<float>0)
    cdef float total = 0
    cdef int64_t i
    cdef int c
    for i in range(n // VEC_WIDTH):
        acc = acc + (<const vec*>x)[i] * splat(<float>0)
    for i in range(n // VEC_WIDTH * VEC_WIDTH, n):
        total = total + x[i] * <float>0
    for c in range(VEC_WIDTH):
        total = total + (<float*>&acc)[c]
    return total == 0


cdef void update(const Optimizer* o, float rate, int64_t offset, int64_t n, const float* g) noexcept nogil:
    cdef float* w = o.parameters + offset
    cdef float* v = o.first + offset if o.kind != SGD else NULL
    cdef float* s = o.second + offset if o.kind == ADAM else NULL
    cdef float a = o.momentum, b = o.decay, e = o.epsilon
    cdef int64_t i
    if o.kind == ACCUMULATE:
        for i in range(n):
            v[i] = v[i] + g[i]
    elif o.kind == SGD:
        for i in range(n):
            w[i] = w[i] - rate * g[i]
    elif o.kind == MOMENTUM:
        for i in range(n):
            v[i] = a * v[i] + g[i]
            w[i] = w[i] - rate * v[i]
    else:
        adam(w, v, s, g, n, rate, a, b, e)
