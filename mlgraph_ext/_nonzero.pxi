# Dense blocks that read the data themselves, where most of the data is zero: a source that is zero in an example
# contributes nothing to it, exactly, so each example walks over its own nonzero sources (19 % of MNIST's pixels;
# skipping only what is zero in all of 32 examples leaves 58 %). Here the vector runs over neurons and not over lanes:
# the panels are laid out for it, weights[panel][source][neuron].
#
# The nonzeros of all examples stand in compressed rows, made once from the data: `column` ascending within an example,
# `value` as bytes (looked up in `scale`, 256 floats) or floats. `cut` divides the columns into chunks of about equal
# work; each example knows where each chunk of its columns begins, so that the gradient of a chunk has one owner.

cdef struct Nonzero:
    const int64_t* start         # [n + 1] first entry of each example
    const uint16_t* column       # [entries] source number within the block
    const uint8_t* byte          # [entries] or NULL
    const float* value           # [entries] or NULL, where byte is not
    const float* scale           # [256] what a byte stands for
    const uint16_t* cut          # [n][chunks + 1] entries before each chunk, from the example's start
    const int32_t* chunk         # [chunks + 1] first column of each chunk
    int64_t chunks


cdef extern from *:
    """
    #define PAIR_VECS (2 * PANEL_VECS)
    #define PAIR (2 * PANEL)
    #define AHEAD 4
    #define SUMS (PAIR_VECS > 8 ? PAIR_VECS : 8)
    """
    enum: PAIR_VECS      # vectors across two panels
    enum: PAIR
    enum: AHEAD          # examples fetched before their turn
    enum: SUMS           # vectors of sums: enough independent ones to hide the latency of the FMA
    void prefetch "__builtin_prefetch"(const void*) noexcept nogil


cdef inline const vec* at_neurons(const float* panels, int64_t stride, int c) noexcept nogil:
    # The c-th vector of a group: its panel (stride floats apart), then its place in the panel.
    return <const vec*>(panels + (c * VEC_WIDTH // PANEL) * stride + c * VEC_WIDTH % PANEL)


cdef inline float entry(const uint8_t* byte, const float* value, const float* scale, int64_t j) noexcept nogil:
    return scale[byte[j]] if byte != NULL else value[j]


cdef inline void fetch(
    const int64_t* start, const uint16_t* column, const uint8_t* byte, const float* value, int64_t row,
) noexcept nogil:
    # Shuffled examples lie anywhere in memory, and no hardware prefetcher knows the order: without this a third of the
    # time of the forward kernel is waiting for the first entry of an example.
    cdef int64_t j = start[row]
    while j < start[row + 1]:
        prefetch(column + j)
        if byte == NULL:
            prefetch(value + j)
            prefetch(value + j + 16)
        elif j & 32:
            prefetch(byte + j)
        j = j + 32


cdef inline inlined_void forward_rows(
    int vecs, const Nonzero* data, const uint8_t* byte, const float* value,
    const int64_t* row, int64_t n, const float* w, int64_t stride, int64_t count, float* out, bint first,
) noexcept nogil:
    # `vecs` vectors of neurons: one panel, or two that are `stride` floats apart. The first to look at the examples
    # fetches them.
    cdef vec acc[SUMS]
    cdef float total[PAIR]
    cdef const uint16_t* column = data.column
    cdef const float* scale = data.scale
    cdef int64_t j, end, lane
    cdef const float* at
    cdef float x
    cdef int i, c
    for lane in range(n):
        if first and lane + AHEAD < n:
            fetch(data.start, column, byte, value, row[lane + AHEAD])
        for i in range(SUMS):
            acc[i] = splat(<float>0)
        j = data.start[row[lane]]
        end = data.start[row[lane] + 1]
        while j + SUMS // vecs <= end:
            for i in range(SUMS // vecs):
                x = entry(byte, value, scale, j + i)
                at = w + <int64_t>column[j + i] * PANEL
                for c in range(vecs):
                    acc[i * vecs + c] = acc[i * vecs + c] + at_neurons(at, stride, c)[0] * x
            j = j + SUMS // vecs
        while j < end:
            x = entry(byte, value, scale, j)
            at = w + <int64_t>column[j] * PANEL
            for c in range(vecs):
                acc[c] = acc[c] + at_neurons(at, stride, c)[0] * x
            j = j + 1
        for i in range(1, SUMS // vecs):
            for c in range(vecs):
                acc[c] = acc[c] + acc[i * vecs + c]
        for c in range(vecs):
            (<vec*>total)[c] = acc[c]
        for i in range(<int>smaller(vecs * VEC_WIDTH, count)):
            out[i * LANES + lane] = total[i]


cdef inline inlined_void forward_panels(
    const Nonzero* data, const uint8_t* byte, const float* value,
    const int64_t* row, int64_t n, const float* weights, int64_t fan_in, int64_t count, float* out,
) noexcept nogil:
    cdef int64_t first = 0
    while first + PANEL < count:
        forward_rows(PAIR_VECS, data, byte, value, row, n, weights + first * fan_in, fan_in * PANEL, count - first,
                     out + first * LANES, first == 0)
        first = first + PAIR
    if first < count:
        forward_rows(PANEL_VECS, data, byte, value, row, n, weights + first * fan_in, 0, count - first,
                     out + first * LANES, first == 0)


cdef kernel_void nonzero_forward(
    const Nonzero* data, const int64_t* row, int64_t n, const float* weights, const float* bias,
    int64_t fan_in, int64_t count, float* out,
) noexcept nogil:
    """out[neuron][lane] = bias + sum over the nonzero sources of example row[lane]; lanes from n on repeat lane n - 1."""
    cdef int64_t i, lane
    for lane in range(n):
        prefetch(data.start + row[lane])
        if data.cut != NULL:
            prefetch(data.cut + row[lane] * (data.chunks + 1))
    for lane in range(smaller(AHEAD, n)):
        fetch(data.start, data.column, data.byte, data.value, row[lane])
    # Two copies: what an entry is stands outside the loops.
    if data.byte != NULL:
        forward_panels(data, data.byte, NULL, row, n, weights, fan_in, count, out)
    else:
        forward_panels(data, NULL, data.value, row, n, weights, fan_in, count, out)
    if bias != NULL:
        for i in range(count):
            for lane in range(LANES):
                out[i * LANES + lane] = out[i * LANES + lane] + bias[i]
    if n < LANES:
        for i in range(count):
            for lane in range(n, LANES):
                out[i * LANES + lane] = out[i * LANES + n - 1]


cdef inline inlined_void gradient_rows(
    int vecs, const Nonzero* data, const uint8_t* byte, const float* value, int64_t chunk,
    const int64_t* row, int64_t n, const float* delta, float* g, int64_t stride,
) noexcept nogil:
    cdef vec d[PAIR_VECS]
    cdef const uint16_t* column = data.column
    cdef const float* scale = data.scale
    cdef const uint16_t* cut
    cdef int64_t begin[LANES]
    cdef int64_t end[LANES]
    cdef int64_t lane, j
    cdef float* at
    cdef vec* to
    cdef float x
    cdef int c
    for lane in range(n):
        # All at once, so that the misses of the cache overlap.
        cut = data.cut + row[lane] * (data.chunks + 1) + chunk
        begin[lane] = data.start[row[lane]] + cut[0]
        end[lane] = data.start[row[lane]] + cut[1]
        prefetch(column + begin[lane])
        if byte != NULL:
            prefetch(byte + begin[lane])
        else:
            prefetch(value + begin[lane])
    for lane in range(n):
        for c in range(vecs):
            d[c] = at_neurons(delta + lane * PANEL, LANES * PANEL, c)[0]
        for j in range(begin[lane], end[lane]):
            x = entry(byte, value, scale, j)
            at = g + <int64_t>column[j] * PANEL
            for c in range(vecs):
                to = <vec*>at_neurons(at, stride, c)
                to[0] = to[0] + d[c] * x


cdef inline inlined_void gradient_panels(
    const Nonzero* data, const uint8_t* byte, const float* value, int64_t chunk,
    const int64_t* row, int64_t n, int64_t panels, const float* delta, float* gradient,
) noexcept nogil:
    cdef int64_t k0 = data.chunk[chunk], sources = data.chunk[chunk + 1] - k0, panel = 0
    while panel + 1 < panels:
        gradient_rows(PAIR_VECS, data, byte, value, chunk, row, n,
                      delta + panel * LANES * PANEL, gradient + (panel * sources - k0) * PANEL, sources * PANEL)
        panel = panel + 2
    if panel < panels:
        gradient_rows(PANEL_VECS, data, byte, value, chunk, row, n,
                      delta + panel * LANES * PANEL, gradient + (panel * sources - k0) * PANEL, 0)


cdef kernel_void nonzero_gradient(
    const Nonzero* data, const int64_t* row, int64_t n, int64_t chunk, int64_t panels,
    const float* delta, float* gradient,
) noexcept nogil:
    """gradient[panel][source of the chunk][neuron] += value * delta[panel][lane][neuron] over n examples of one tile."""
    if data.byte != NULL:
        gradient_panels(data, data.byte, NULL, chunk, row, n, panels, delta, gradient)
    else:
        gradient_panels(data, NULL, data.value, chunk, row, n, panels, delta, gradient)
