# What a training step drops.
#
# Counter-based random numbers: number `counter` of stream `key` is a function of the two, so that a dropout mask depends
# on seed, step, tile and node and never on which thread drew it. The mixer is the finaliser of SplitMix64 (Steele, Lea,
# Flood: Fast splittable pseudorandom number generators, OOPSLA 2014), constants included.


cdef inline uint64_t draw(uint64_t key, uint64_t counter) noexcept nogil:
    cdef uint64_t z = key + (counter + 1) * <uint64_t>0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef enum:
    THIN_GROUP = 32      # neurons of a group, two panels: dropout keeps the same share of each


cdef inline int64_t groups_of(int64_t count) noexcept nogil:
    return (count + THIN_GROUP - 1) // THIN_GROUP


cdef inline double uniform(uint64_t x) noexcept nogil:
    return <double>(x >> 11) * (1.0 / 9007199254740992.0)


cdef kernel_void draw_kept(uint64_t key, double keep, int64_t count, uint32_t* kept) noexcept nogil:
    """Choose which of `count` neurons are kept: a word for each group, and in it a bit for each neuron.

    Each is kept with probability `keep`, and a group of n keeps `keep * n`, rounded up or down at random: every step costs the
    same, and half of two panels fits into one. Selection sampling (Knuth, TAOCP vol. 2, 3.4.2, algorithm S).
    """
    cdef double u[THIN_GROUP]
    cdef double wanted
    cdef int64_t group, base, n, i
    cdef uint32_t word
    for group in range(groups_of(count)):
        base = group * (THIN_GROUP + 1)
        n = smaller(THIN_GROUP, count - group * THIN_GROUP)
        for i in range(THIN_GROUP):
            u[i] = uniform(draw(key, base + 1 + i)) * (n - i)
        wanted = <double><int64_t>(keep * n)
        if uniform(draw(key, base)) < keep * n - wanted:
            wanted = wanted + 1
        word = 0
        for i in range(n):
            if u[i] < wanted:
                word = word | <uint32_t>1 << i
                wanted = wanted - 1
        kept[group] = word


cdef inline int64_t list_kept(uint32_t kept, int32_t* neuron) noexcept nogil:
    """List the kept neurons of a group in order; returns how many there are."""
    cdef int64_t found = 0
    while kept:
        neuron[found] = lowest_bit(kept)
        kept = kept & (kept - 1)
        found = found + 1
    return found


cdef kernel_void drop_neurons(const uint32_t* kept, double keep, int64_t count, float* values) noexcept nogil:
    """Zero the slots of the neurons that are dropped, scale the others by 1 / keep."""
    cdef float scale = <float>(1.0 / keep)
    cdef int64_t i, lane
    for i in range(count):
        if kept[i // THIN_GROUP] >> (i % THIN_GROUP) & 1:
            for lane in range(LANES):
                values[i * LANES + lane] = values[i * LANES + lane] * scale
        else:
            memset(values + i * LANES, 0, LANES * sizeof(float))


# Thinned blocks: where at most half of each group is kept, the kept neurons of a group move into one panel, and the kernels of
# dense blocks do half the work. Column j of panel g of the thin block is the j-th kept neuron of group g; columns without a
# neuron copy the group's first neuron, and their results are not used.


cdef extern from *:
    """
    #if defined(__AVX512F__)
    /* The one thing that GCC and clang vectors do not express alike: a permutation known only at run time. */
    static inline void pick(const float *a, const float *b, const int32_t *from, float *to) {
        _mm512_storeu_ps(to, _mm512_permutex2var_ps(_mm512_loadu_ps(a), _mm512_loadu_si512(from), _mm512_loadu_ps(b)));
    }
    static inline void place(const float *thin, const int32_t *column, float *to) {
        __m512i at = _mm512_loadu_si512(column);
        __mmask16 kept = _mm512_cmpge_epi32_mask(at, _mm512_setzero_si512());
        _mm512_storeu_ps(to, _mm512_maskz_permutexvar_ps(kept, at, _mm512_loadu_ps(thin)));
    }
    #else
    static inline void pick(const float *a, const float *b, const int32_t *from, float *to) {
        for (int j = 0; j < PANEL; j++) to[j] = from[j] < PANEL ? a[from[j]] : b[from[j] - PANEL];
    }
    static inline void place(const float *thin, const int32_t *column, float *to) {
        for (int j = 0; j < PANEL; j++) to[j] = column[j] >= 0 ? thin[column[j]] : 0.0f;
    }
    #endif
    """
    # to[j] = lane from[j] of two panels
    void pick(const float* a, const float* b, const int32_t* wanted, float* to) noexcept nogil
    # to[n] = lane column[n] of a thin panel, 0 where column[n] < 0
    void place(const float* thin, const int32_t* column, float* to) noexcept nogil


cdef kernel_void pack_thin(
    const uint32_t* kept, const float* weights, int64_t fan_in, int64_t count, float* thin,
) noexcept nogil:
    """thin[group][source][column] = weights of the kept neurons."""
    cdef int32_t neuron[THIN_GROUP]
    cdef int64_t group, n, found, k
    cdef const float* a
    cdef const float* b
    cdef int j
    for group in range(groups_of(count)):
        n = smaller(THIN_GROUP, count - group * THIN_GROUP)
        found = list_kept(kept[group], neuron)
        for j in range(<int>found, PANEL):
            neuron[j] = 0
        a = weights + group * THIN_GROUP * fan_in
        b = a + fan_in * PANEL if n > PANEL else a
        for k in range(fan_in):
            pick(a + k * PANEL, b + k * PANEL, neuron, thin + (group * fan_in + k) * PANEL)


cdef kernel_void spread_thin(
    const uint32_t* kept, int64_t rows, int64_t first_group, int64_t groups, int64_t count, const float* thin, float* out,
) noexcept nogil:
    """out[panel][row][neuron] from thin[group][row][column]: zero where a neuron is dropped."""
    cdef int32_t neuron[THIN_GROUP]
    cdef int32_t column[THIN_GROUP]
    cdef int64_t group, n, found, k, panel
    cdef int j
    for group in range(groups):
        n = smaller(THIN_GROUP, count - (first_group + group) * THIN_GROUP)
        found = list_kept(kept[first_group + group], neuron)
        for j in range(THIN_GROUP):
            column[j] = -1
        for j in range(<int>found):
            column[neuron[j]] = j
        for panel in range(panels_of(n)):
            for k in range(rows):
                place(thin + (group * rows + k) * PANEL, column + panel * PANEL, out + ((2 * group + panel) * rows + k) * PANEL)


cdef void spread_slots(
    const uint32_t* kept, int64_t count, const float* thin, const float* bias, float* out,
) noexcept nogil:
    """out[neuron][lane] = thin[column][lane] + bias[neuron], or zero for dropped neurons. `bias` may be NULL."""
    cdef int32_t neuron[THIN_GROUP]
    cdef int64_t group, j, at, lane
    memset(out, 0, count * LANES * sizeof(float))
    for group in range(groups_of(count)):
        for j in range(list_kept(kept[group], neuron)):
            at = group * THIN_GROUP + neuron[j]
            for lane in range(LANES):
                out[at * LANES + lane] = thin[(group * PANEL + j) * LANES + lane]
                if bias != NULL:
                    out[at * LANES + lane] += bias[at]


cdef void gather_slots(const uint32_t* kept, int64_t count, const float* x, float* thin) noexcept nogil:
    """thin[column][lane] from x[neuron][lane]; columns without a neuron are zero."""
    cdef int32_t neuron[THIN_GROUP]
    cdef int64_t group, found, j
    for group in range(groups_of(count)):
        found = list_kept(kept[group], neuron)
        for j in range(PANEL):
            if j < found:
                memcpy(thin + (group * PANEL + j) * LANES, x + (group * THIN_GROUP + neuron[j]) * LANES, LANES * sizeof(float))
            else:
                memset(thin + (group * PANEL + j) * LANES, 0, LANES * sizeof(float))


cdef kernel_void draw_mask(uint64_t key, uint64_t keep, int64_t bits, int64_t n_words, uint64_t* mask) noexcept nogil:
    """Fill words of 64 bits, each bit one with probability keep / 2**bits, 1 <= bits <= 16.

    For each bit of `keep`, from the lowest: `or` with a fair bit takes the probability p to (1 + p) / 2, `and` to p / 2. A
    probability of one half costs one draw for 64 edges.
    """
    cdef int64_t i, b
    cdef uint64_t word
    for i in range(n_words):
        word = 0
        for b in range(bits):
            if (keep >> b) & 1:
                word = word | draw(key, i * bits + b)
            else:
                word = word & draw(key, i * bits + b)
        mask[i] = word


cdef kernel_void apply_mask(
    const uint64_t* mask, int64_t first, float scale, int64_t n, const float* x, float* out, bint add,
) noexcept nogil:
    """out = x * scale where the mask's bit is one and 0 elsewhere; with `add`, out += that.

    `first` is the bit of x[0] in the mask. If it is a multiple of 16, as in panels, 16 numbers are taken at a time.
    """
    cdef vec kept
    cdef vec* to
    cdef float value
    cdef int32_t bits
    cdef int64_t i = 0, at
    cdef int c
    while first % PANEL == 0 and i + PANEL <= n:
        at = first + i
        bits = <int32_t>((mask[at // 64] >> (at % 64)) & 0xFFFF)
        to = <vec*>(out + i)
        for c in range(PANEL_VECS):
            kept = choose((<const vec*>(x + i))[c] * splat(scale), bits >> (c * VEC_WIDTH))
            to[c] = to[c] + kept if add else kept
        i = i + PANEL
    while i < n:
        at = first + i
        value = x[i] * scale if (mask[at // 64] >> (at % 64)) & 1 else <float>0
        out[i] = out[i] + value if add else value
        i = i + 1
