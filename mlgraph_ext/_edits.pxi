# Edits of edges, mlgraph/graph/edits.py: the edges into some neurons, before and after.

def counts_of(const int32_t[::1] neurons, const int32_t[::1] count, int32_t[::1] counts):
    """Set ``counts[i]`` to ``count[neurons[i]]``; return their sum."""
    cdef int64_t i, total = 0
    if not are_nodes(neurons, count.shape[0]) or counts.shape[0] != neurons.shape[0]:
        raise ValueError(f"neurons, counts: expected one length and nodes below {count.shape[0]}, got others")
    for i in range(neurons.shape[0]):
        counts[i] = count[neurons[i]]
        total += counts[i]
    return total


def edges_into(
    const int32_t[::1] neurons, const int64_t[::1] start, const int32_t[::1] count, const int64_t[::1] data,
    const int32_t[::1] pool, const int64_t[::1] weights, const int32_t[::1] stride,
    int32_t[::1] source, ints[::1] place,
):
    """Fill `source` and `place`, as in `mlgraph.graph.arrays.Wiring`, from columns of all nodes and of all records."""
    cdef int64_t i, k, node, record, n, at = 0
    cdef bint good = start.shape[0] == count.shape[0] == data.shape[0] and are_nodes(neurons, start.shape[0])
    good = good and weights.shape[0] == stride.shape[0] and source.shape[0] == place.shape[0]
    with nogil:
        for i in range(neurons.shape[0] if good else 0):
            node = neurons[i]
            record, n = data[node], count[node]
            good = 0 <= record < weights.shape[0] and 0 <= n <= source.shape[0] - at
            if not good or (n > 0 and not 0 <= start[node] <= pool.shape[0] - n):
                good = False
                break
            for k in range(n):
                source[at + k] = pool[start[node] + k]
                place[at + k] = <ints>(weights[record] + k * stride[record])
            at = at + n
    if not good or at != source.shape[0]:
        raise ValueError("neurons, start, count, ...: expected neurons and their edges, got others")


def match_edges(
    const int32_t[::1] neurons, const int32_t[::1] counts, const int32_t[::1] source,
    const int64_t[::1] wanted_source, const int64_t[::1] wanted_target, int64_t n_nodes,
    uint8_t[::1] found, uint8_t[::1] there,
):
    """Find wanted edges among the edges into some neurons.

    Parameters
    ----------
    neurons, counts, source
        As in `mlgraph.graph.arrays.Wiring`; no neuron is there twice.
    wanted_source, wanted_target : int64, shape (wanted,)
    n_nodes : int
    found : uint8, shape (edges,), changed
        Set where the edge is wanted.
    there : uint8, shape (wanted,), filled
        1 if the edge exists; 2 if it does not, but leads into one of the neurons and an earlier wanted edge is equal;
        otherwise 0.
    """
    cdef int64_t wanted = wanted_source.shape[0], edges = source.shape[0], i, j, k, target, first = 0
    cdef bint good = neurons.shape[0] == counts.shape[0] and wanted == wanted_target.shape[0] == there.shape[0]
    good = good and found.shape[0] == edges and are_nodes(neurons, n_nodes) and are_nodes(source, n_nodes)
    for i in range(wanted if good else 0):
        good = good and 0 <= wanted_source[i] < n_nodes and 0 <= wanted_target[i] < n_nodes
    for i in range(counts.shape[0] if good else 0):
        good = good and 0 <= counts[i] <= edges - first
        first += counts[i]
    if not good or first != edges:
        raise ValueError("neurons, counts, source, ...: expected edges between nodes, got others")
    # Indices are stored plus 1; 0 is none. `seen` is stale unless it refers to an edge into the present neuron.
    cdef int64_t* head = <int64_t*>calloc(n_nodes + 1, sizeof(int64_t))   # the first wanted edge into a node
    cdef int64_t* next = <int64_t*>malloc((wanted + 1) * sizeof(int64_t))
    cdef int64_t* seen = <int64_t*>calloc(n_nodes + 1, sizeof(int64_t))   # the last edge out of a node, then wanted ones
    if head == NULL or next == NULL or seen == NULL:
        free(head)
        free(next)
        free(seen)
        raise MemoryError(f"match_edges: {n_nodes} nodes")
    with nogil:
        for i in range(wanted - 1, -1, -1):
            target = wanted_target[i]
            there[i], next[i] = 0, head[target]
            head[target] = i + 1
        first = 0
        for i in range(neurons.shape[0]):
            target = neurons[i]
            if head[target] > 0:
                for j in range(first, first + counts[i]):
                    seen[source[j]] = j + 1
            j = head[target]
            while j > 0:
                k = seen[wanted_source[j - 1]] - 1
                if first <= k < first + counts[i]:
                    found[k] = there[j - 1] = 1
                elif k >= edges and wanted_target[k - edges] == target:
                    there[j - 1] = 2
                else:
                    seen[wanted_source[j - 1]] = edges + j
                j = next[j - 1]
            first = first + counts[i]
    free(head)
    free(next)
    free(seen)


def count_left(const int32_t[::1] counts, const uint8_t[::1] gone, int32_t[::1] left):
    """Set the number of edges left into each neuron.

    Returns
    -------
    int, int
        Number of neurons that lose an edge, and of the edges left into them.
    """
    cdef int64_t i, k, losing = 0, edges = 0, at = 0
    if counts.shape[0] != left.shape[0]:
        raise ValueError(f"left: expected {counts.shape[0]} numbers, got {left.shape[0]}")
    with nogil:
        for i in range(counts.shape[0]):
            if not 0 <= counts[i] <= gone.shape[0] - at:
                at = -1
                break
            left[i] = counts[i]
            for k in range(counts[i]):
                left[i] -= gone[at + k] != 0
            if left[i] < counts[i]:
                losing = losing + 1
                edges = edges + left[i]
            at = at + counts[i]
    if at != gone.shape[0]:
        raise ValueError(f"counts: expected {gone.shape[0]} in all, and none below 0, got others")
    return losing, edges


def edges_left(const int32_t[::1] source, const uint8_t[::1] gone, int32_t[::1] left, int32_t[::1] previous):
    """Fill `left` with the sources of the edges that are not gone, and `previous` with their indices."""
    cdef int64_t i, at = 0
    cdef bint good = source.shape[0] == gone.shape[0] and left.shape[0] == previous.shape[0]
    for i in range(source.shape[0] if good else 0):
        if not gone[i]:
            if at == left.shape[0]:
                good = False
                break
            left[at], previous[at] = source[i], <int32_t>i
            at += 1
    if not good or at != left.shape[0]:
        raise ValueError(f"gone: expected all but {left.shape[0]} edges, got others")


cdef struct Added:
    int64_t source
    int64_t index


cdef int compare_added(const void* a, const void* b) noexcept nogil:
    cdef const Added* x = <const Added*>a
    cdef const Added* y = <const Added*>b
    if x.source != y.source:
        return -1 if x.source < y.source else 1
    return -1 if x.index < y.index else x.index > y.index


def with_added(
    const int32_t[::1] counts, const int32_t[::1] source,
    const int64_t[::1] which, const int32_t[::1] new_source, const float[::1] new_weight,
    int32_t[::1] all_counts, int32_t[::1] all_source, int32_t[::1] previous, float[::1] weight,
):
    """Add edges to the lists of sources of some neurons: an ascending list stays so, to others they are appended.

    Parameters
    ----------
    counts, source
        As in `mlgraph.graph.arrays.Wiring`.
    which : int64, shape (new edges,)
        The index of the neuron of each new edge.
    new_source, new_weight : int32 and float32, shape (new edges,)
    all_counts, all_source, previous : filled
        As in `mlgraph.graph.arrays.NewWiring`.
    weight : float32, shape (all edges,), filled
        The weights of new edges, 0 for the others.
    """
    cdef int64_t n = counts.shape[0], old = source.shape[0], new = which.shape[0], i, j, k, first = 0, at = 0
    cdef bint ascends, good = new == new_source.shape[0] == new_weight.shape[0] and n == all_counts.shape[0]
    good = good and old + new == all_source.shape[0] == previous.shape[0] == weight.shape[0]
    for i in range(n if good else 0):
        good = good and 0 <= counts[i] <= old - first
        first += counts[i]
    for i in range(new if good else 0):
        good = good and 0 <= which[i] < n
    if not good or first != old:
        raise ValueError("counts, source, which, ...: expected edges into neurons, got others")
    cdef Added* added = <Added*>malloc((new + 1) * sizeof(Added))
    cdef int64_t* end = <int64_t*>calloc(n + 1, sizeof(int64_t))   # of the neuron's part of `added`
    if added == NULL or end == NULL:
        free(added)
        free(end)
        raise MemoryError(f"with_added: {new} edges")
    with nogil:
        for i in range(new):
            end[which[i] + 1] += 1
        for i in range(n):
            end[i + 1] += end[i]
        for i in range(new):
            j = end[which[i]]    # so far the beginning; becomes the end
            added[j].source, added[j].index = new_source[i], i
            end[which[i]] = j + 1
        first, j = 0, 0
        for i in range(n):
            all_counts[i] = <int32_t>(counts[i] + end[i] - j)
            ascends = True
            for k in range(first + 1, first + counts[i]):
                if source[k] < source[k - 1]:
                    ascends = False
                    break
            if ascends and end[i] - j > 1:
                qsort(&added[j], end[i] - j, sizeof(Added), compare_added)
            k = first
            while k < first + counts[i] or j < end[i]:
                if k < first + counts[i] and (j == end[i] or not ascends or source[k] <= added[j].source):
                    all_source[at], previous[at], weight[at] = source[k], <int32_t>k, 0
                    k = k + 1
                else:
                    all_source[at], previous[at] = <int32_t>added[j].source, -1
                    weight[at] = new_weight[added[j].index]
                    j = j + 1
                at = at + 1
            first = first + counts[i]
    free(added)
    free(end)


def begin_lists(
    const int32_t[::1] neurons, const int32_t[::1] counts, int64_t begin, int64_t[::1] start, int32_t[::1] count
):
    """Set where the list of each neuron begins, the first at `begin`, and its length."""
    cdef int64_t i
    if neurons.shape[0] != counts.shape[0] or start.shape[0] != count.shape[0] or not are_nodes(neurons, count.shape[0]):
        raise ValueError(f"neurons: expected {counts.shape[0]} nodes below {count.shape[0]}, got others")
    for i in range(neurons.shape[0]):
        start[neurons[i]], count[neurons[i]] = begin, counts[i]
        begin += counts[i]


def rewire(
    const int32_t[::1] neurons, const int32_t[::1] counts, const int64_t[::1] begin, const int32_t[::1] previous,
    int64_t at, const int64_t[::1] most, const int64_t[::1] data,
    int64_t[::1] start, int32_t[::1] count, int64_t[::1] weights, int32_t[::1] stride, int32_t[::1] max_sources,
    int64_t[::1] most_before, int32_t[::1] now,
):
    """Write the new edges of some neurons to the columns of all nodes and of all records.

    Parameters
    ----------
    neurons, counts, previous
        As in `mlgraph.graph.arrays.NewWiring`.
    begin : int64, shape (neurons,)
        Where the list of each neuron begins in the pool.
    at : int
        The place of the first weight; the others follow.
    most : int64, shape (neurons,), or None
        The new `max_sources`; by default the larger one of the present one and `counts`.
    data, start, count, weights, stride, max_sources
        Columns, as in `mlgraph.graph.nodes` and `mlgraph.graph.storage`; all but `data` are changed.
    most_before : int64, shape (neurons,), filled
        `max_sources` before.
    now : int32, shape (edges before,), filled
        Index of each edge that was there among the new edges, or -1.

    Returns
    -------
    bool
        Whether a neuron has no edges.
    """
    cdef int64_t n = neurons.shape[0], i, record
    cdef bint bare = False, good = start.shape[0] == count.shape[0] == data.shape[0] and are_nodes(neurons, start.shape[0])
    good = good and weights.shape[0] == stride.shape[0] == max_sources.shape[0]
    good = good and n == counts.shape[0] == begin.shape[0] == most_before.shape[0]
    good = good and (most is None or most.shape[0] == n)
    for i in range(n if good else 0):
        good = good and 0 <= data[neurons[i]] < weights.shape[0]
    for i in range(previous.shape[0] if good else 0):
        good = good and -1 <= previous[i] < now.shape[0]
    if not good:
        raise ValueError("neurons, counts, begin, ...: expected edges into neurons, got others")
    for i in range(n):
        record = data[neurons[i]]
        start[neurons[i]], count[neurons[i]] = begin[i], counts[i]
        weights[record], stride[record] = at, 1
        most_before[i] = max_sources[record]
        max_sources[record] = max(max_sources[record], counts[i]) if most is None else <int32_t>most[i]
        bare = bare or counts[i] == 0
        at += counts[i]
    for i in range(now.shape[0]):
        now[i] = -1
    for i in range(previous.shape[0]):
        if previous[i] >= 0:
            now[previous[i]] = <int32_t>i
    return bare


def in_use(
    const int16_t[::1] code, const int64_t[::1] start, const int32_t[::1] count, int64_t pool, const int64_t[::1] bias
):
    """Number of elements that nodes use, of a pool of this length and of the parameter vector."""
    cdef int64_t i, n = 0
    cdef bint good = code.shape[0] == start.shape[0] == count.shape[0]
    for i in range(count.shape[0] if good else 0):
        good = good and (count[i] == 0 or 0 <= start[i] < pool)
    if not good:
        raise ValueError("code, start, count, pool: expected a graph, got none")
    cdef uint8_t* seen = <uint8_t*>calloc(pool + 1, 1)   # lists of sources, by their beginning
    if seen == NULL:
        raise MemoryError(f"in_use: {pool} sources")
    for i in range(count.shape[0]):
        if code[i] == PARAMETER_CODE:
            n += 1
        elif code[i] >= NEURON_CODE:
            n += count[i]
        if count[i] > 0 and not seen[start[i]]:
            seen[start[i]] = True
            n += count[i]
    for i in range(bias.shape[0]):
        n += bias[i] >= 0
    free(seen)
    return n


def move(const float[::1] vector, const ints[::1] origin, float[::1] out):
    """Set ``out[i]`` to ``vector[origin[i]]``, or to 0 if the vector has no such element."""
    cdef int64_t i
    if origin.shape[0] != out.shape[0]:
        raise ValueError(f"origin: expected {out.shape[0]} places, got {origin.shape[0]}")
    with nogil:
        for i in range(out.shape[0]):
            out[i] = vector[origin[i]] if 0 <= origin[i] < vector.shape[0] else 0


def until_cache_line(const float[::1] x):
    """Number of floats from the beginning of a vector that is not empty to the next cache line."""
    if x.shape[0] == 0:
        raise ValueError("x: expected a vector, got an empty one")
    return (16 - <size_t>&x[0] // sizeof(float) % 16) % 16
