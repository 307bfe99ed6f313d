# Dropout of neurons and edges.
#
# Random numbers are counter-based: number `counter` of stream `key` is a function of the two. A
# dropout mask therefore depends on seed, step, tile and node, and never on the thread that drew it.
# The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
# generators, OOPSLA 2014), constants included.


cdef inline uint64_t draw(uint64_t key, uint64_t counter) noexcept nogil:
    cdef uint64_t z = key + (counter + 1) * <uint64_t>0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef enum:
    DROP_GROUP = 32      # neurons of a group; dropout keeps the same fraction of each group


cdef inline int64_t groups_of(int64_t count) noexcept nogil:
    return (count + DROP_GROUP - 1) // DROP_GROUP


cdef inline double uniform(uint64_t x) noexcept nogil:
    return <double>(x >> 11) * (1.0 / 9007199254740992.0)


cdef kernel_void draw_kept(uint64_t key, double keep, int64_t count, uint32_t* kept) noexcept nogil:
    """Choose which of `count` neurons are kept: one word for each group with one bit for each neuron.

    Each neuron is kept with probability `keep`. A group of n keeps `keep * n`, rounded up or down at random, so that
    the sums of a layer vary less from step to step. Uses selection sampling (Knuth, TAOCP vol. 2, 3.4.2, algorithm S).
    """
    cdef double u[DROP_GROUP]
    cdef double wanted
    cdef int64_t group, base, n, i
    cdef uint32_t word
    for group in range(groups_of(count)):
        base = group * (DROP_GROUP + 1)
        n = smaller(DROP_GROUP, count - group * DROP_GROUP)
        for i in range(DROP_GROUP):
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


cdef kernel_void drop_neurons(const uint32_t* kept, double keep, int64_t count, float* values) noexcept nogil:
    """Set the slots of dropped neurons to zero and scale the others by 1 / keep."""
    cdef float scale = <float>(1.0 / keep)
    cdef int64_t i, lane
    for i in range(count):
        if kept[i // DROP_GROUP] >> (i % DROP_GROUP) & 1:
            for lane in range(LANES):
                values[i * LANES + lane] = values[i * LANES + lane] * scale
        else:
            memset(values + i * LANES, 0, LANES * sizeof(float))


cdef kernel_void draw_mask(uint64_t key, uint64_t keep, int64_t bits, int64_t n_words, uint64_t* mask) noexcept nogil:
    """Fill 64-bit words in which each bit is one with probability keep / 2**bits, for 1 <= bits <= 16.

    The bits of `keep` are processed from the lowest: `or` with a fair bit changes the probability p to (1 + p) / 2,
    `and` changes it to p / 2. A probability of one half costs one draw for 64 edges.
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
    """Set out = x * scale where the bit of the mask is one, else 0; with `add`, add these values to `out`.

    `first` is the bit of x[0] in the mask. If it is a multiple of 16, as in panels, 16 numbers are processed at a time.
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
