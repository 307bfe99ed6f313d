# Dense blocks that read the data directly, where many of the data are zero. Zeros contribute
# exactly nothing, so the kernels read only entries (_entries.pxi), and plain SGD skips the weights
# of a run of columns without entries. (Zero times a number that is not finite would be NaN. Other
# kernels therefore sweep blocks with such a weight. An adjoint that is not finite ends a training
# step; its gradient where data are zero is 0 or NaN.)
#
# Vectors run over neurons, as the panels of weights are laid out: weights[panel][source][neuron].
# The weights of a run stay in registers for all its entries, so that each line of weights is read
# once per list, in order. Example by example they would be read from the L2 cache for every pixel,
# in no order. A run has several columns so that one load and one store of a sum serve several
# multiply-adds.

cdef extern from *:
    """
    #define RUN_VECS (VEC_WIDTH == 16 ? 4 : 2)
    """
    enum: RUN_VECS       # vectors of neurons whose weights or gradients for a run stay in registers


cdef inline inlined_void forward_of_runs(
    int vecs, const Entries* e, int64_t columns, int64_t first, int64_t last, const float* weights, float* sums,
    int64_t stride, Fetch* fetch,
) noexcept nogil:
    cdef vec w[RUN][RUN_VECS]
    cdef vec acc[RUN_VECS]
    cdef const float* value = e.value
    cdef const uint8_t* lanes = e.lane
    cdef const float* x
    cdef float* at
    cdef int64_t run, j, end
    cdef int i, c
    for run in range(first, last):
        if fetch != NULL:
            fetch_some(fetch)
        j, end = e.start[run], e.end[run]
        if j == end:
            continue
        for i in range(RUN):
            for c in range(vecs):
                # Entries are zero past the last column, so any finite weight will do there.
                w[i][c] = at_neurons(weights + smaller(run * RUN + i, columns - 1) * PANEL, columns * PANEL, c)[0]
        while j < end:
            x = value + j * RUN
            at = sums + <int64_t>lanes[j] * PANEL
            for c in range(vecs):
                acc[c] = at_neurons(at, stride, c)[0]
            for i in range(RUN):
                for c in range(vecs):
                    acc[c] = multiply_add(w[i][c], splat(x[i]), acc[c])
            for c in range(vecs):
                (<vec*>at_neurons(at, stride, c))[0] = acc[c]
            j = j + 1


cdef kernel_void runs_forward(
    const Entries* e, int64_t columns, int64_t first_run, int64_t last_run, int64_t n, const float* weights, int64_t panels,
    Fetch* fetch, float* sums, int64_t stride,
) noexcept nogil:
    """sums[panel][lane][neuron] = sum over the entries of n examples in the runs `first_run` to `last_run`.

    Panels of sums are `stride` floats apart. `fetch` prefetches other rows at the same time.
    """
    cdef int64_t first, left
    cdef const float* w
    cdef float* to
    for first in range(panels):
        memset(sums + first * stride, 0, n * PANEL * sizeof(float))
    first = 0
    while first < panels * PANEL_VECS:
        left = panels * PANEL_VECS - first
        w = <const float*>at_neurons(weights, columns * PANEL, first)
        to = <float*>at_neurons(sums, stride, first)
        if PANEL_VECS % RUN_VECS == 0 or left >= RUN_VECS:    # always, with shorter vectors: RUN_VECS divides PANEL_VECS
            forward_of_runs(RUN_VECS, e, columns, first_run, last_run, w, to, stride, fetch)
        elif left == 3:
            forward_of_runs(3, e, columns, first_run, last_run, w, to, stride, fetch)
        elif left == 2:
            forward_of_runs(2, e, columns, first_run, last_run, w, to, stride, fetch)
        else:
            forward_of_runs(1, e, columns, first_run, last_run, w, to, stride, fetch)
        first = first + RUN_VECS
        fetch = NULL


cdef kernel_void sums_to_lanes(
    const float* sums, int64_t halves, int64_t stride, int64_t n, int64_t count, float unit, const float* bias, float* out,
) noexcept nogil:
    """out[neuron][lane] = bias[neuron] + unit * sum over halves of sums[half][panel][lane][neuron].

    Lanes from n on repeat lane n - 1. Panels of sums are `stride` floats apart, halves panels_of(count) * stride.
    """
    cdef float whole[LANES * PANEL]
    cdef int64_t panels = panels_of(count), panel, i
    cdef const vec* one
    cdef const vec* other
    cdef vec z
    for panel in range(panels):
        one = other = <const vec*>(sums + panel * stride)
        if halves == 2:
            other = <const vec*>(sums + (panels + panel) * stride)
        for i in range(n * PANEL_VECS):
            z = one[i] + other[i] if halves == 2 else one[i]
            # Whole panels of biases can be read. In a block with holes (mlgraph/compiler/holes.py) they are not padded,
            # but its weights follow.
            (<vec*>whole)[i] = multiply_add(
                z, splat(unit), (<const vec*>(bias + panel * PANEL))[i % PANEL_VECS] if bias != NULL else splat(<float>0))
        to_lanes(whole, PANEL, n, smaller(PANEL, count - panel * PANEL), out + panel * PANEL * LANES)


cdef struct TileGroup:    # one tile, or the tiles that share a list of entries
    Entries e
    const float* delta   # [panel][lane][neuron]


cdef inline inlined_void gradient_of_runs(
    int vecs, const TileGroup* group, int64_t groups, int64_t first, int64_t last, float unit, int64_t panel, int64_t stride,
    float* gradient, const Descent* descent, Fetch* fetch,
) noexcept nogil:
    cdef vec acc[RUN][RUN_VECS]
    cdef vec g[RUN * RUN_VECS]
    cdef vec d[RUN_VECS]
    cdef const float* x
    cdef const float* at
    cdef const float* delta
    cdef vec* to
    cdef Descent own
    cdef int64_t run, p, j, k
    cdef int i, c
    cdef bint zero
    memset(&own, 0, sizeof(Descent))
    if descent != NULL:
        own = descent[0]    # a local copy: no store to a parameter can change it
    for run in range(first // RUN, runs_of(last)):
        if fetch != NULL:
            fetch_some(fetch)
        for i in range(RUN):
            for c in range(vecs):
                acc[i][c] = splat(<float>0)
        zero = True
        for p in range(groups):
            delta = <const float*>at_neurons(group[p].delta, stride, panel)
            zero = zero and group[p].e.start[run] == group[p].e.end[run]
            for j in range(group[p].e.start[run], group[p].e.end[run]):
                x = group[p].e.value + j * RUN
                at = delta + <int64_t>group[p].e.lane[j] * PANEL
                for c in range(vecs):
                    d[c] = at_neurons(at, stride, c)[0]
                for i in range(RUN):
                    for c in range(vecs):
                        acc[i][c] = multiply_add(d[c], splat(x[i]), acc[i][c])
        if descent != NULL:
            if zero and own.optimizer.kind == SGD:
                continue    # nothing moves
            for i in range(RUN):
                for c in range(vecs):
                    g[i * vecs + c] = rounded(acc[i][c] * unit)
            descend(RUN, vecs, &own, run * RUN - first, panel, last - run * RUN, vecs, g)
            continue
        for i in range(RUN):
            k = run * RUN + i - first
            if k < last - first:
                for c in range(vecs):
                    to = <vec*>at_neurons(gradient + k * PANEL, (last - first) * PANEL, c)
                    to[0] = acc[i][c] * unit


cdef kernel_void runs_gradient(
    const TileGroup* group, int64_t groups, int64_t first, int64_t last, int64_t panels, float unit, int64_t stride,
    float* gradient, const Descent* descent, Fetch* fetch,
) noexcept nogil:
    """gradient[panel][source][neuron] = unit * sum over the entries of all groups of value * delta.

    Sources are the columns `first` to `last`. `first` is a multiple of RUN, and so is `last` unless it is the end of
    all columns. Panels of the deltas are `stride` floats apart. `fetch` prefetches other rows at the same time. With
    `descent` the gradient updates the weights at once and is not stored.
    """
    cdef int64_t at = 0, left
    cdef float* to
    while at < panels * PANEL_VECS:
        left = panels * PANEL_VECS - at
        to = <float*>at_neurons(gradient, (last - first) * PANEL, at)
        if PANEL_VECS % RUN_VECS == 0 or left >= RUN_VECS:    # always, with shorter vectors: RUN_VECS divides PANEL_VECS
            gradient_of_runs(RUN_VECS, group, groups, first, last, unit, at, stride, to, descent, fetch)
        elif left == 3:
            gradient_of_runs(3, group, groups, first, last, unit, at, stride, to, descent, fetch)
        elif left == 2:
            gradient_of_runs(2, group, groups, first, last, unit, at, stride, to, descent, fetch)
        else:
            gradient_of_runs(1, group, groups, first, last, unit, at, stride, to, descent, fetch)
        at = at + RUN_VECS
        fetch = NULL
