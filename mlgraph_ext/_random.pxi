# Counter-based random numbers: number `counter` of stream `key` is a function of the two, so that a dropout mask depends
# on seed, step, tile and node and never on which thread drew it. The mixer is the finaliser of SplitMix64 (Steele, Lea,
# Flood: Fast splittable pseudorandom number generators, OOPSLA 2014), constants included.


cdef inline uint64_t draw(uint64_t key, uint64_t counter) noexcept nogil:
    cdef uint64_t z = key + (counter + 1) * <uint64_t>0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef void drop_neurons(uint64_t key, uint64_t drop, float scale, int64_t count, float* values) noexcept nogil:
    """Zero each slot with probability drop / 2**32, scale the others."""
    cdef int64_t i, lane
    cdef float factor
    for i in range(count):
        factor = <float>0 if (draw(key, i) >> 32) < drop else scale
        for lane in range(LANES):
            # A dropped value is zero even where it was not finite, hence no product.
            values[i * LANES + lane] = values[i * LANES + lane] * factor if factor != 0 else <float>0


cdef void draw_mask(uint64_t key, uint64_t keep, int64_t bits, int64_t n_words, uint64_t* mask) noexcept nogil:
    """Words of 64 bits that are each one with probability keep / 2**bits, 1 <= bits <= 16.

    Bit by bit of `keep` from the lowest: `or` with a fair bit takes the probability p to (1 + p) / 2, `and` to p / 2. One
    half costs one draw for 64 edges.
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


cdef void apply_mask(
    const uint64_t* mask, int64_t first, float scale, int64_t n, const float* x, float* out, bint add,
) noexcept nogil:
    """out = x * scale where the mask's bit is one and 0 elsewhere; with `add`, out += that.

    `first` is the place in the mask of x[0]. Whole pieces of 16 at a multiple of 16 (always so in panels) go together.
    """
    cdef int32_t bit[16]
    cdef int32_t part
    cdef int64_t i = 0, at
    cdef float kept
    cdef int l
    for l in range(16):
        bit[l] = 1 << l
    while first % 16 == 0 and i + 16 <= n:
        at = first + i
        part = <int32_t>((mask[at // 64] >> (at % 64)) & 0xFFFF)
        if add:
            for l in range(16):
                kept = x[i + l] * scale if (part & bit[l]) != 0 else <float>0
                out[i + l] = out[i + l] + kept
        else:
            for l in range(16):
                out[i + l] = x[i + l] * scale if (part & bit[l]) != 0 else <float>0
        i = i + 16
    while i < n:
        at = first + i
        kept = x[i] * scale if (mask[at // 64] >> (at % 64)) & 1 else <float>0
        out[i] = out[i] + kept if add else kept
        i = i + 1
