# Updates. A gradient is added to a vector of gradients or moves the parameters at once. Each call
# owns its parameters, so no two threads touch the same ones.

cdef enum:
    ACCUMULATE = 0       # gradient += g
    SGD = 1              # w -= rate * g
    MOMENTUM = 2         # v = momentum * v + g;  w -= rate * v
    ADAM = 3             # Kingma & Ba (2015), algorithm 1 with both bias corrections folded into the rate

cdef struct Optimizer:
    int64_t kind
    float momentum       # Adam: beta1
    float beta2          # Adam
    float epsilon        # Adam
    float* parameters
    float* first         # velocity, Adam's first moment, or the vector of gradients
    float* second        # Adam's second moment
    const float* frozen  # for each parameter, whether it is frozen; NULL if none is


cdef extern from *:
    """
    /* Returns x; prevents the compiler from fusing a product with the sum that follows. */
    static inline vec rounded(vec x) {
    #if defined(__AVX512F__)
        __asm__("" : "+v"(x));
    #elif defined(__SSE2__)
        __asm__("" : "+x"(x));
    #elif defined(__aarch64__)
        __asm__("" : "+w"(x));
    #else
        __asm__("" : "+m"(x));
    #endif
        return x;
    }
    static inline vec absolute(vec x) { return (vec)((ivec)x & 0x7fffffff); }

    /* Returns x, with zeros where the mask has zero bits from bit `at` on. The mask may be NULL. */
    static inline vec through_mask(vec x, const uint64_t *mask, int64_t at) {
        return mask ? choose(x, (int32_t)(mask[at / 64] >> (at % 64))) : x;
    }
    static inline vec root(vec x) {
    #if defined(__AVX512F__)
        return (vec)_mm512_sqrt_ps((__m512)x);
    #elif defined(__AVX__)
        return (vec)_mm256_sqrt_ps((__m256)x);
    #elif defined(__SSE2__)
        return (vec)_mm_sqrt_ps((__m128)x);
    #else
        for (int l = 0; l < VEC_WIDTH; l++) x[l] = sqrtf(x[l]);
        return x;
    #endif
    }
    /* Root and quotient share one execution unit, so they are the longest part of a step of Adam. AVX-512 has a 14-bit estimate
       of the reciprocal; there the quotient is a product with this estimate, corrected once to 2^-27. */
    static inline vec quotient(vec x, vec d) {
    #if defined(__AVX512F__)
        vec q = (vec)_mm512_rcp14_ps((__m512)d);
        return x * (q * (vec)_mm512_fnmadd_ps((__m512)d, (__m512)q, _mm512_set1_ps(2)));
    #else
        return x / d;
    #endif
    }
    """
    vec rounded(vec x) noexcept nogil
    vec absolute(vec x) noexcept nogil
    vec through_mask(vec, const uint64_t*, int64_t) noexcept nogil
    vec root(vec) noexcept nogil
    vec quotient(vec, vec) noexcept nogil


cdef extern from *:
    """
    static inline vec where_frozen(const float *frozen, vec then, vec otherwise) {
        ivec is = *(const vec *)frozen != 0;
        return (vec)(((ivec)then & is) | ((ivec)otherwise & ~is));
    }
    static inline vec decayed(vec frozen, float share, vec w) {
        ivec moves = (frozen == 0) & (w - w == 0);
        return (vec)(((ivec)multiply_add(-w, splat(share), w) & moves) | ((ivec)w & ~moves));
    }
    /* Weight decay: each weight loses the fraction `share` of itself unless it is frozen or not finite. `frozen` may be NULL.
       A separate pass costs 1 to 4 % of an epoch, and nothing without decay. */
    static void decay_weights(const float *frozen, float share, int64_t n, float *w) {
        int64_t i = 0;
        for (; i + VEC_WIDTH <= n; i += VEC_WIDTH)
            *(vec *)(w + i) = decayed(frozen ? *(const vec *)(frozen + i) : (vec){0}, share, *(vec *)(w + i));
        if (i < n) {
            vec some = {0}, some_frozen = {0};
            memcpy(&some, w + i, (n - i) * sizeof(float));
            if (frozen) memcpy(&some_frozen, frozen + i, (n - i) * sizeof(float));
            some = decayed(some_frozen, share, some);
            memcpy(w + i, &some, (n - i) * sizeof(float));
        }
    }
    """
    vec where_frozen(const float*, vec, vec) noexcept nogil
    void decay_weights(const float*, float, int64_t, float*) noexcept nogil


cdef double magnitude(const float* x, int64_t n, float factor) noexcept nogil:
    """Sum of |x| * factor, not finite if some x is not. With factor 1 it is at least the largest |x|; with 0 it is zero."""
    cdef vec acc[4]
    cdef double total[4]
    cdef int64_t at = 0
    cdef int c
    for c in range(4):
        acc[c] = splat(<float>0)
        total[c] = 0
    while at + 4 * VEC_WIDTH <= n:
        for c in range(4):
            acc[c] = multiply_add(absolute((<const vec*>(x + at))[c]), splat(factor), acc[c])
        at = at + 4 * VEC_WIDTH
    while at + VEC_WIDTH <= n:
        acc[0] = multiply_add(absolute((<const vec*>(x + at))[0]), splat(factor), acc[0])
        at = at + VEC_WIDTH
    acc[0] = (acc[0] + acc[1]) + (acc[2] + acc[3])
    for c in range(VEC_WIDTH):
        total[c % 4] += (<float*>&acc[0])[c]
    while at < n:
        total[0] += fabsf(x[at]) * factor
        at = at + 1
    return (total[0] + total[1]) + (total[2] + total[3])


cdef bint all_finite(const float* x, int64_t n) noexcept nogil:
    return magnitude(x, n, 0) == 0


cdef inline inlined_void move_parameters(int kind, const Optimizer* o, float rate, int64_t at, vec g) noexcept nogil:
    """Update a vector of parameters, from index `at` on, by its gradient g. The bits are the same wherever it is inlined."""
    cdef float a = o.momentum, b = o.beta2, of_g = 1 - a, of_square = 1 - b
    cdef vec* w = <vec*>(o.parameters + at)
    cdef vec* v
    cdef vec* s
    if kind == SGD:
        w[0] = multiply_add(-g, splat(rate), w[0])
        return
    v = <vec*>(o.first + at)
    if kind == ACCUMULATE:
        v[0] = v[0] + g
    elif kind == MOMENTUM:
        v[0] = multiply_add(v[0], splat(a), g)
        w[0] = multiply_add(-v[0], splat(rate), w[0])
    else:
        s = <vec*>(o.second + at)
        v[0] = multiply_add(v[0], splat(a), rounded(g * of_g))
        s[0] = multiply_add(s[0], splat(b), rounded(g * (g * of_square)))
        w[0] = w[0] - rounded(quotient(v[0] * rate, root(s[0]) + o.epsilon))


cdef inline inlined_void move_unfrozen(int kind, const Optimizer* o, float rate, int64_t at, vec g) noexcept nogil:
    """Like `move_parameters`, but frozen parameters have gradient zero, so that their moments stay zero, and keep their value.

    They keep even a subnormal value, which an update would turn into zero.
    """
    cdef vec* w = <vec*>(o.parameters + at)
    cdef vec before = w[0]
    move_parameters(kind, o, rate, at, where_frozen(o.frozen + at, splat(<float>0), g))
    w[0] = where_frozen(o.frozen + at, before, w[0])


cdef struct Descent:
    Optimizer optimizer  # its `frozen` is NULL: a partly frozen unit is not updated this way
    float rate
    int64_t first        # index of the parameter of the first gradient
    int64_t stride       # parameters from one panel to the next
    const uint64_t* mask  # NULL: all parameters move
    int64_t mask_begin   # index of the parameter of the mask's first bit


cdef kernel_void fetch_to_move(const Descent* d, int64_t source, int64_t panel, int64_t rows, int64_t panels) noexcept nogil:
    """Prefetch for writing weights and moments, or the vector of gradients, of `rows` sources and some panels."""
    cdef int64_t at = d.first + source * PANEL + panel * d.stride, i
    for i in range(panels):
        if d.optimizer.kind != ACCUMULATE:
            prefetch_to_write(d.optimizer.parameters + at + i * d.stride, rows * PANEL)
        if d.optimizer.kind != SGD:
            prefetch_to_write(d.optimizer.first + at + i * d.stride, rows * PANEL)
        if d.optimizer.kind == ADAM:
            prefetch_to_write(d.optimizer.second + at + i * d.stride, rows * PANEL)


cdef inline inlined_void move_tile(
    int kind, int rows, int vecs, const Descent* d, int64_t first, int64_t n_rows, int64_t n_vecs, const vec* g,
) noexcept nogil:
    # There is a copy for each optimizer. The loop of Adam is too long to be unrolled and reads its gradients from memory; those
    # of the other optimizers stay in registers.
    cdef vec own[TILE_ROWS * TILE_VECS]
    cdef int64_t at
    cdef int i, c
    for i in range(rows * vecs):
        own[i] = g[i]
    for i in range(rows):
        for c in range(vecs):
            if i < n_rows and c < n_vecs:
                at = first + i * PANEL + c * VEC_WIDTH // PANEL * d.stride + c * VEC_WIDTH % PANEL
                move_parameters(kind, &d.optimizer, d.rate, at,
                                through_mask(own[i * vecs + c], d.mask, at - d.mask_begin))


cdef inline inlined_void descend(
    int rows, int vecs, const Descent* d, int64_t source, int64_t vector, int64_t n_rows, int64_t n_vecs, const vec* g,
) noexcept nogil:
    """Update weights of a dense block by the gradients g[row * vecs + vec] of a register tile.

    Only n_rows and n_vecs of the tile exist. Rows are sources from `source` on, vectors are neurons from vector `vector`
    on. `g` must be a copy of the sums: an array whose address is taken would be kept in memory while it is summed.
    """
    cdef int64_t first = d.first + source * PANEL + vector * VEC_WIDTH // PANEL * d.stride + vector * VEC_WIDTH % PANEL
    # `kind` is a constant in each call, so that it is not tested for each vector.
    if d.optimizer.kind == SGD:
        move_tile(SGD, rows, vecs, d, first, n_rows, n_vecs, g)
    elif d.optimizer.kind == MOMENTUM:
        move_tile(MOMENTUM, rows, vecs, d, first, n_rows, n_vecs, g)
    elif d.optimizer.kind == ADAM:
        move_tile(ADAM, rows, vecs, d, first, n_rows, n_vecs, g)
    else:
        move_tile(ACCUMULATE, rows, vecs, d, first, n_rows, n_vecs, g)


cdef void update(
    const Optimizer* o, float rate, int64_t offset, int64_t n, const float* g, const uint64_t* mask, int64_t first,
) noexcept nogil:
    """Move n parameters from `offset` on by the gradient g.

    If `mask` is not NULL, only gradients whose bit is one count, from bit `first` on; n and first are then multiples of PANEL.
    """
    cdef Optimizer own = o[0]    # a local copy: no store to a parameter can change it
    cdef int64_t i
    if own.frozen == NULL:
        for i in range(n // VEC_WIDTH):
            move_parameters(<int>own.kind, &own, rate, offset + i * VEC_WIDTH,
                            through_mask((<const vec*>g)[i], mask, first + i * VEC_WIDTH))
    else:
        for i in range(n // VEC_WIDTH):
            move_unfrozen(<int>own.kind, &own, rate, offset + i * VEC_WIDTH,
                          through_mask((<const vec*>g)[i], mask, first + i * VEC_WIDTH))
    if n % VEC_WIDTH:
        i = n // VEC_WIDTH * VEC_WIDTH
        move_some(&own, rate, offset + i, n - i, g + i)


cdef void move_some(const Optimizer* o, float rate, int64_t at, int64_t n, const float* g) noexcept nogil:
    """Update n parameters, fewer than a vector holds, in a copy of vector size, so that no other parameter is touched."""
    cdef vec moved[5]            # parameters, two moments, gradient, frozen
    cdef size_t size = n * sizeof(float)
    cdef Optimizer own = o[0]
    memset(moved, 0, sizeof(moved))
    own.parameters, own.first, own.second = <float*>moved, <float*>(moved + 1), <float*>(moved + 2)
    memcpy(own.parameters, o.parameters + at, size)
    memcpy(moved + 3, g, size)
    if o.kind != SGD:
        memcpy(own.first, o.first + at, size)
    if o.kind == ADAM:
        memcpy(own.second, o.second + at, size)
    if o.frozen != NULL:
        own.frozen = <float*>(moved + 4)
        memcpy(moved + 4, o.frozen + at, size)
        move_unfrozen(<int>o.kind, &own, rate, 0, moved[3])
    else:
        move_parameters(<int>o.kind, &own, rate, 0, moved[3])
    if o.kind != ACCUMULATE:    # another thread may write parameters while gradients are added
        memcpy(o.parameters + at, own.parameters, size)
    if o.kind != SGD:
        memcpy(o.first + at, own.first, size)
    if o.kind == ADAM:
        memcpy(o.second + at, own.second, size)
