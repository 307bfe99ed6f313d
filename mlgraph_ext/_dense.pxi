# Dense blocks: `count` neurons that share `fan_in` sources. All kernels have one scheme, an outer
# product summed in registers: acc[row][vector] += scalar[row] * vector.
#
#   forward    row = neuron,  vector = lanes,   summed over sources
#   few        row = example, vector = neurons, summed over sources (forward with few lanes in use)
#   adjoint    row = source,  vector = lanes,   summed over neurons
#   gradient   row = source,  vector = neurons, summed over lanes and tiles
#
# Tiles may be swept side by side. A weight of a large block comes from beyond the L2 cache and then
# serves all of them. Parameters that a gradient updates are prefetched one register tile ahead.
#
# A tile of few examples costs less: in the forward sweep vectors run over neurons, the adjoint
# takes half of the lanes, and the gradient only the lanes in use. Each number is the sum of the same
# products in the same order, whichever variant computes it.
#
# Weights are stored in panels of PANEL neurons, weights[panel][source][neuron]. Every scalar operand
# of forward and adjoint, every vector of `few` and every result of the gradient is then contiguous,
# whatever the width of the layer. (A row-major matrix of width 4096 would map eight sources of one
# neuron to one set of the L1 cache.) The last panel is padded with neurons whose weights stay zero.


cdef enum:
    BLOCK = 128          # slots used at once as vector operands: 16 KB, which stay in the L1 cache for all rows
    PANELS_OF_TILE = (TILE_WIDTH + PANEL - 1) // PANEL    # panels across a register tile of the gradient
    FEW_LANES = 16       # maximum number of examples for `few_forward`: TILE_ROWS at a time cost at most half of all lanes
    FEW_VECS = 8         # vectors of neurons whose sums for one example stay in registers; being independent, they hide latency
    FEW_WIDTH = FEW_VECS * VEC_WIDTH


cdef inline inlined_void forward_of_neurons(
    const float* weights, const float* bias, int64_t fan_in, int64_t first, int64_t n, int64_t neurons, const int32_t* source,
    const float* values, float* out,
) noexcept nogil:
    # Sums a register tile of neurons over n of `fan_in` sources, from source `first` on.
    cdef vec acc[TILE_ROWS][TILE_VECS]
    cdef vec x[TILE_VECS]
    cdef const float* w = weights + first * PANEL
    cdef const vec* at
    cdef vec* to
    cdef int64_t lane, k
    cdef int i, c
    for lane in range(LANES // TILE_WIDTH):
        for i in range(TILE_ROWS):
            to = <vec*>(out + i * LANES + lane * TILE_WIDTH)
            for c in range(TILE_VECS):
                if i < neurons and first > 0:
                    acc[i][c] = to[c]
                else:
                    acc[i][c] = splat(bias[i] if bias != NULL else <float>0)
        # Prefetch sums of the next panel. In a wide layer they are evicted between two blocks of sources.
        for i in range(TILE_ROWS):
            for c in range(0, TILE_WIDTH, 16):
                prefetch_later(out + (PANEL + i) * LANES + lane * TILE_WIDTH + c)
        for k in range(n):
            at = <const vec*>(values + source[k] * <int64_t>LANES + lane * TILE_WIDTH)
            # Prefetch weights of the next panel. In a wide layer no hardware prefetcher expects their address.
            prefetch_later(w + (fan_in + k) * PANEL)
            for c in range(TILE_VECS):
                x[c] = at[c]
            for i in range(TILE_ROWS):
                for c in range(TILE_VECS):
                    acc[i][c] = multiply_add(x[c], splat(w[k * PANEL + i]), acc[i][c])
        for i in range(TILE_ROWS):
            if i < neurons:
                to = <vec*>(out + i * LANES + lane * TILE_WIDTH)
                for c in range(TILE_VECS):
                    to[c] = acc[i][c]


cdef kernel_void dense_forward(
    const float* weights, const float* bias, int64_t fan_in, int64_t count,
    const int32_t* source, const float* values, int64_t tile_stride, int64_t tiles, float* out,
) noexcept nogil:
    """out[neuron][lane] = bias[neuron] + sum over sources, for some tiles; `bias` may be NULL."""
    cdef int64_t first = 0, panel, tile, row
    while first < fan_in:
        # In a wide layer weights come from beyond L2, so they serve all tiles. A tile's values serve a whole panel.
        for panel in range(panels_of(count)):
            for tile in range(tiles):
                row = panel * PANEL
                while row < smaller(panel * PANEL + PANEL, count):
                    forward_of_neurons(
                        weights + panel * fan_in * PANEL + row % PANEL, bias + row if bias != NULL else NULL, fan_in, first,
                        smaller(BLOCK, fan_in - first), smaller(TILE_ROWS, count - row), source + first,
                        values + tile * tile_stride, out + tile * tile_stride + row * LANES)
                    row = row + TILE_ROWS
        first = first + BLOCK


cdef inline const vec* at_neurons(const float* panels, int64_t stride, int64_t c) noexcept nogil:
    # Address of the c-th vector of neurons: its panel (panels are `stride` floats apart), then its place in the panel.
    return <const vec*>(panels + (c * VEC_WIDTH // PANEL) * stride + c * VEC_WIDTH % PANEL)


cdef inline inlined_void few_of_neurons(
    int rows, int vecs, const float* weights, const float* bias, int64_t fan_in, int64_t left, const int32_t* source,
    const float* values, float* sums,
) noexcept nogil:
    # Computes sums[example][neuron] of `vecs` vectors of neurons. If only `left` of them exist, the last is repeated.
    cdef vec acc[TILE_ROWS][FEW_VECS]
    cdef const float* w[FEW_VECS]
    cdef const float* x
    cdef vec v
    cdef int64_t k
    cdef int i, c
    for c in range(vecs):
        w[c] = <const float*>at_neurons(weights, fan_in * PANEL, smaller(c, left - 1))
        for i in range(rows):
            acc[i][c] = (<const vec*>bias)[smaller(c, left - 1)] if bias != NULL else splat(<float>0)
    for k in range(fan_in):
        x = values + source[k] * <int64_t>LANES
        for c in range(vecs):
            v = (<const vec*>(w[c] + k * PANEL))[0]
            for i in range(rows):
                acc[i][c] = multiply_add(v, splat(x[i]), acc[i][c])
    for i in range(rows):
        for c in range(vecs):
            (<vec*>(sums + i * FEW_WIDTH))[c] = acc[i][c]


cdef kernel_void few_forward(
    const float* weights, const float* bias, int64_t fan_in, int64_t count,
    const int32_t* source, const float* values, int64_t n, float* out,
) noexcept nogil:
    """Like `dense_forward`, for one tile of n examples; lanes past them repeat the last."""
    cdef float sums[LANES * FEW_WIDTH]
    cdef int64_t vecs = panels_of(count) * PANEL_VECS, at = 0, width, neurons, example, i
    cdef const float* w
    cdef const float* b
    cdef float* to
    while at < vecs:
        w = <const float*>at_neurons(weights, fan_in * PANEL, at)
        b = bias + at * VEC_WIDTH if bias != NULL else NULL
        width = FEW_VECS if n == 1 else smaller(TILE_VECS, vecs - at)
        example = 0
        while example < n:
            if n == 1:
                few_of_neurons(1, FEW_VECS, w, b, fan_in, vecs - at, source, values, sums)
            elif width == TILE_VECS:
                few_of_neurons(TILE_ROWS, TILE_VECS, w, b, fan_in, vecs - at, source, values + example,
                               sums + example * FEW_WIDTH)
            elif PANEL_VECS < TILE_VECS:    # otherwise it is always complete
                few_of_neurons(TILE_ROWS, PANEL_VECS, w, b, fan_in, vecs - at, source, values + example,
                               sums + example * FEW_WIDTH)
            example = example + TILE_ROWS
        neurons = smaller(width * VEC_WIDTH, count - at * VEC_WIDTH)
        to = out + at * VEC_WIDTH * LANES
        if n == 1:
            for i in range(neurons * SLOT_VECS):
                (<vec*>to)[i] = splat(sums[i // SLOT_VECS])
        else:
            to_lanes(sums, FEW_WIDTH, n, neurons, to)
        at = at + width


cdef inline inlined_void adjoint_of_lanes(
    int vecs, const float* weights, int64_t fan_in, int64_t count, const int32_t* source, const float* delta, int64_t n,
    int64_t tile_stride, int64_t tiles, int64_t first_zeroed, float* adjoints,
) noexcept nogil:
    cdef vec acc[TILE_ROWS][TILE_VECS]
    cdef vec d[TILE_VECS]
    cdef const float* w[TILE_ROWS]
    cdef int64_t first = 0, k, panel, neuron, tile, lane, step, lanes = vecs * VEC_WIDTH
    cdef const vec* at
    cdef vec* to
    cdef int i, c
    while first < count:
        k = 0
        while k < fan_in:
            for i in range(TILE_ROWS):
                w[i] = weights + smaller(k + i, fan_in - 1) * PANEL
            for tile in range(tiles):
                lane = 0
                while lane < n:
                    for i in range(TILE_ROWS):
                        for c in range(vecs):
                            acc[i][c] = splat(<float>0)
                    for panel in range(first // PANEL, (smaller(first + BLOCK, count) + PANEL - 1) // PANEL):
                        step = panel * fan_in * PANEL
                        for neuron in range(smaller(PANEL, count - panel * PANEL)):
                            at = <const vec*>(delta + tile * tile_stride + (panel * PANEL + neuron) * LANES + lane)
                            for c in range(vecs):
                                d[c] = at[c]
                            for i in range(TILE_ROWS):
                                for c in range(vecs):
                                    acc[i][c] = multiply_add(d[c], splat(w[i][step + neuron]), acc[i][c])
                    for i in range(TILE_ROWS):
                        if k + i < fan_in:
                            to = <vec*>(adjoints + tile * tile_stride + source[k + i] * <int64_t>LANES + lane)
                            for c in range(vecs):
                                to[c] = acc[i][c] if first == 0 and source[k + i] < first_zeroed else to[c] + acc[i][c]
                    lane = lane + lanes
                for i in range(TILE_ROWS):
                    if first == 0 and k + i < fan_in and source[k + i] < first_zeroed:
                        to = <vec*>(adjoints + tile * tile_stride + source[k + i] * <int64_t>LANES)
                        for c in range(<int>(lane // VEC_WIDTH), SLOT_VECS):
                            to[c] = splat(<float>0)
            k = k + TILE_ROWS
        first = first + BLOCK


cdef kernel_void dense_adjoint(
    const float* weights, int64_t fan_in, int64_t count, const int32_t* source, const float* delta, int64_t n,
    int64_t tile_stride, int64_t tiles, int64_t first_zeroed, float* adjoints,
) noexcept nogil:
    """adjoints[source][lane] += sum over neurons of weight * delta[neuron][lane], for `tiles` tiles.

    Slots before `first_zeroed` are set instead of added to. Deltas of lanes past n examples must be zero in each tile.
    """
    # If a register tile spans a slot, half of it suffices for half the examples. Narrower ones stop after n lanes anyway.
    if n <= VEC_WIDTH and VEC_WIDTH == LANES // 2:
        adjoint_of_lanes(1, weights, fan_in, count, source, delta, n, tile_stride, tiles, first_zeroed, adjoints)
    else:
        adjoint_of_lanes(TILE_VECS, weights, fan_in, count, source, delta, n, tile_stride, tiles, first_zeroed, adjoints)


cdef kernel_void transpose_delta(const float* delta, int64_t count, int64_t n, float* out, int64_t stride) noexcept nogil:
    """out[panel][lane][neuron] = delta[neuron][lane] of n examples, the operand of the gradient.

    Neurons past `count` become zero. Panels of `out` are `stride` floats apart.
    """
    cdef float none[LANES]
    cdef const void* row[VEC_WIDTH]
    cdef int64_t first = 0, i
    memset(none, 0, sizeof(none))
    while first < panels_of(count) * PANEL:
        for i in range(VEC_WIDTH):
            row[i] = delta + (first + i) * LANES if first + i < count else none
        transpose(row, n, out + first // PANEL * stride + first % PANEL, PANEL)
        first = first + VEC_WIDTH


cdef inline inlined_void gradient_of_panels(
    int vecs, const int32_t* source, int64_t sources, int64_t panel, int64_t panels, const float* values, const float* delta,
    int64_t tile_stride, int64_t examples, float* gradient, const Descent* descent,
) noexcept nogil:
    # Processes the panels, from `panel` on, that `vecs` vectors span.
    cdef vec acc[TILE_ROWS][TILE_VECS]
    cdef vec g[TILE_ROWS * TILE_VECS]
    cdef vec d[TILE_VECS]
    cdef const float* x[TILE_ROWS]
    cdef int64_t k = 0, tile, lane, wide = (vecs * VEC_WIDTH + PANEL - 1) // PANEL
    cdef const float* at
    cdef int i, c
    while k < sources:
        if descent != NULL:
            # Prefetch the parameters updated next: in a wide layer from beyond L2, otherwise from another core.
            if k + TILE_ROWS < sources:
                fetch_to_move(descent, k + TILE_ROWS, panel, smaller(TILE_ROWS, sources - k - TILE_ROWS), wide)
            elif panel + wide < panels:
                fetch_to_move(descent, 0, panel + wide, smaller(TILE_ROWS, sources), smaller(wide, panels - panel - wide))
        for i in range(TILE_ROWS):
            for c in range(vecs):
                acc[i][c] = splat(<float>0)
        for tile in range((examples + LANES - 1) // LANES):
            for i in range(TILE_ROWS):
                x[i] = values + tile * tile_stride + source[smaller(k + i, sources - 1)] * <int64_t>LANES
            at = delta + tile * tile_stride + panel * LANES * PANEL
            for lane in range(smaller(LANES, examples - tile * LANES)):
                for c in range(vecs):
                    d[c] = at_neurons(at + lane * PANEL, LANES * PANEL, c)[0]
                for i in range(TILE_ROWS):
                    for c in range(vecs):
                        acc[i][c] = multiply_add(d[c], splat(x[i][lane]), acc[i][c])
        if descent != NULL:
            for i in range(TILE_ROWS):
                for c in range(vecs):
                    g[i * vecs + c] = acc[i][c]
            descend(TILE_ROWS, vecs, descent, k, panel * PANEL_VECS, sources - k, vecs, g)
        for i in range(TILE_ROWS if descent == NULL else 0):
            if k + i < sources:
                for c in range(vecs):
                    (<vec*>at_neurons(gradient + (panel * sources + k + i) * PANEL, sources * PANEL, c))[0] = acc[i][c]
        k = k + TILE_ROWS


cdef kernel_void dense_gradient(
    const int32_t* source, int64_t sources, int64_t panels,
    const float* values, const float* delta, int64_t tile_stride, int64_t examples, float* gradient,
    const Descent* descent,
) noexcept nogil:
    """gradient[panel][source][neuron] = sum over the examples of values[source][lane] * delta[panel][lane][neuron].

    `values` and `delta` (transposed) belong to the first tile; those of the next tile are `tile_stride` floats further. With
    `descent` the gradient updates the weights at once and is not stored.
    """
    cdef int64_t panel = 0
    cdef Descent own
    cdef const Descent* moved = NULL
    memset(&own, 0, sizeof(Descent))
    if descent != NULL:
        own = descent[0]    # a local copy: no store to a parameter can change it
        moved = &own
        fetch_to_move(descent, 0, 0, smaller(TILE_ROWS, sources), smaller(PANELS_OF_TILE, panels))
    while panel + PANELS_OF_TILE <= panels:
        gradient_of_panels(TILE_VECS, source, sources, panel, panels, values, delta, tile_stride, examples, gradient, moved)
        panel = panel + PANELS_OF_TILE
    if PANELS_OF_TILE > 1 and panel < panels:    # a register tile of one panel leaves none, but the compiler does not know
        gradient_of_panels(PANEL_VECS, source, sources, panel, panels, values, delta, tile_stride, examples, gradient, moved)


cdef kernel_void bias_gradient(
    int64_t panels, const float* delta, int64_t panel_stride, int64_t tile_stride, int64_t examples, float* gradient,
) noexcept nogil:
    """gradient[panel][neuron] = sum over the examples of delta[panel][lane][neuron]."""
    cdef vec acc[PANEL_VECS]
    cdef int64_t panel, tile, lane
    cdef const vec* at
    cdef int c
    for panel in range(panels):
        for c in range(PANEL_VECS):
            acc[c] = splat(<float>0)
        for tile in range((examples + LANES - 1) // LANES):
            for lane in range(smaller(LANES, examples - tile * LANES)):
                at = <const vec*>(delta + tile * tile_stride + panel * panel_stride + lane * PANEL)
                for c in range(PANEL_VECS):
                    acc[c] = acc[c] + at[c]
        for c in range(PANEL_VECS):
            (<vec*>(gradient + panel * PANEL))[c] = acc[c]
