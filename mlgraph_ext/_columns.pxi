# Gradients of wide blocks on sparse data: the nonzeros of up to 128 examples are first sorted by column, so that the
# gradient of a column is summed in registers over its examples and written once. Added example by example it is read and
# written for every nonzero, and two stores a cycle are what no processor has; for one or two panels the sorting costs more.

cdef enum:
    SORTED = 128         # examples sorted at a time: four tiles


cdef extern from *:
    """
    #define WIDE (8 / PANEL_VECS > 0 ? 8 / PANEL_VECS : 1)
    """
    enum: WIDE           # panels whose sums fit into the registers together


cdef kernel_void sort_columns(
    const Nonzero* data, const int64_t* row, int64_t n, int64_t chunk, int64_t base,
    int32_t* length, int32_t* place, float* value,
) noexcept nogil:
    """Add the nonzeros of n examples of one tile to the lists of their columns.

    Column k of the chunk has ``length[k]`` entries from ``k * SORTED`` on; `place` is where the deltas of its example
    stand, `base` floats on for this tile.
    """
    cdef int64_t k0 = data.chunk[chunk], lane, j, at, k
    cdef const uint16_t* cut
    for lane in range(n):
        cut = data.cut + row[lane] * (data.chunks + 1) + chunk
        for j in range(data.start[row[lane]] + cut[0], data.start[row[lane]] + cut[1]):
            k = data.column[j] - k0
            at = k * SORTED + length[k]
            place[at] = <int32_t>(base + lane * PANEL)
            value[at] = data.scale[data.byte[j]] if data.byte != NULL else data.value[j]
            length[k] += 1


cdef inline inlined_void column_sums(
    int panels, int64_t sources, const int32_t* length, const int32_t* place, const float* value,
    const float* delta, float* gradient, bint add,
) noexcept nogil:
    cdef vec acc[WIDE * PANEL_VECS]
    cdef int64_t k, j
    cdef const float* d
    cdef vec* to
    cdef float x
    cdef int p, c
    for k in range(sources):
        for p in range(panels):
            for c in range(PANEL_VECS):
                acc[p * PANEL_VECS + c] = splat(<float>0)
        for j in range(k * SORTED, k * SORTED + length[k]):
            x = value[j]
            d = delta + place[j]
            for p in range(panels):
                for c in range(PANEL_VECS):
                    acc[p * PANEL_VECS + c] = acc[p * PANEL_VECS + c] + (<const vec*>(d + p * LANES * PANEL))[c] * x
        for p in range(panels):
            to = <vec*>(gradient + (p * sources + k) * PANEL)
            for c in range(PANEL_VECS):
                to[c] = to[c] + acc[p * PANEL_VECS + c] if add else acc[p * PANEL_VECS + c]


cdef kernel_void columns_gradient(
    int64_t sources, int64_t panels, const int32_t* length, const int32_t* place, const float* value,
    const float* delta, float* gradient, bint add,
) noexcept nogil:
    """gradient[panel][source][neuron] = sum over the sorted nonzeros of value * delta; with `add`, += that."""
    cdef int64_t panel = 0
    while panel < panels:
        if panels - panel >= WIDE:
            column_sums(WIDE, sources, length, place, value, delta + panel * LANES * PANEL,
                        gradient + panel * sources * PANEL, add)
            panel = panel + WIDE
        elif panels - panel >= 2 and WIDE > 2:
            column_sums(2, sources, length, place, value, delta + panel * LANES * PANEL,
                        gradient + panel * sources * PANEL, add)
            panel = panel + 2
        else:
            column_sums(1, sources, length, place, value, delta + panel * LANES * PANEL,
                        gradient + panel * sources * PANEL, add)
            panel = panel + 1
