"""Graph algorithms for plans, edits and pruning. They take linear time and do not recurse, so depth is unlimited.

A graph is given as compressed rows: the sources of node i are ``pool[start[i]:start[i] + count[i]]``. Nodes with the same
``start`` share one list, which must have one length and is visited once. Nodes are int32, indices into the pool int64.
"""

from libc.stdint cimport INT32_MAX, int8_t, int16_t, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcmp

ctypedef fused ints:
    int32_t
    int64_t


include "_simplify.pxi"
include "_grouping.pxi"
include "_layout.pxi"
include "_instruction.pxi"
include "_neurons.pxi"
include "_edits.pxi"


def runs(const int64_t[::1] first, const int64_t[::1] stride, const int64_t[::1] count, ints[::1] out):
    """Fill `out` with ``first[i] + k * stride[i]`` for k below ``count[i]``, in the order of i."""
    cdef int64_t at = 0, i, k
    if not first.shape[0] == stride.shape[0] == count.shape[0]:
        raise ValueError("first, stride, count: expected one length, "
                         f"got {first.shape[0]}, {stride.shape[0]} and {count.shape[0]}")
    with nogil:
        for i in range(count.shape[0]):
            if not 0 <= count[i] <= out.shape[0] - at:
                at = -1
                break
            for k in range(count[i]):
                out[at + k] = <ints>(first[i] + k * stride[i])
            at = at + count[i]
    if at != out.shape[0]:
        raise ValueError(f"count: expected {out.shape[0]} in all, and none below 0, got others")


def gather(const ints[::1] pool, const int64_t[::1] start, const int64_t[::1] count, ints[::1] out):
    """Fill `out` with the concatenated lists ``pool[start[i] : start[i] + count[i]]``."""
    cdef int64_t at = 0, i, k
    if start.shape[0] != count.shape[0]:
        raise ValueError(f"start, count: expected one length, got {start.shape[0]} and {count.shape[0]}")
    with nogil:
        for i in range(count.shape[0]):
            if not 0 <= count[i] <= out.shape[0] - at or (count[i] and not 0 <= start[i] <= pool.shape[0] - count[i]):
                at = -1
                break
            for k in range(count[i]):
                out[at + k] = pool[start[i] + k]
            at = at + count[i]
    if at != out.shape[0]:
        raise ValueError(f"start, count: expected runs of {pool.shape[0]} numbers, {out.shape[0]} in all, got others")


cdef bint are_nodes(const int32_t[::1] ids, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(ids.shape[0]):
        if not 0 <= ids[i] < n:
            return False
    return True


cdef bint is_graph(const int64_t[::1] start, const int32_t[::1] count, const int32_t[::1] pool) noexcept nogil:
    cdef int64_t i
    if start.shape[0] != count.shape[0]:
        return False
    for i in range(start.shape[0]):
        if start[i] < 0 or count[i] < 0 or start[i] > pool.shape[0] - count[i]:
            return False
    return are_nodes(pool, start.shape[0])


def same_lists(const int64_t[::1] start, const int32_t[::1] count, const int32_t[::1] pool, int64_t[::1] first):
    """Set first[i] to the index of the first list that equals list i, ``pool[start[i] : start[i] + count[i]]``."""
    cdef int64_t n = start.shape[0]
    cdef int failure = 1
    if n == 0 and count.shape[0] == first.shape[0] == 0:
        return
    if count.shape[0] == n == first.shape[0]:
        with nogil:
            failure = find_same_lists(&start[0], &count[0], n, pool, &first[0])
    if failure == 2:
        raise MemoryError(f"same_lists: {n} lists")
    if failure:
        raise ValueError(f"start, count, first: expected {n} runs of {pool.shape[0]} numbers, got others")


cdef int find_same_lists(
    const int64_t* start, const int32_t* count, int64_t n, const int32_t[::1] pool, int64_t* first
) noexcept nogil:
    """As `same_lists`; returns 1 if these are not lists, 2 without memory."""
    cdef int64_t size = 16, i, found
    cdef uint64_t h
    cdef bint good = True
    while size < 2 * n:
        size = 2 * size
    cdef int64_t* table = <int64_t*>malloc(2 * size * sizeof(int64_t))  # two hash tables: lists by address and by content
    cdef uint64_t* content = <uint64_t*>malloc((n + 1) * sizeof(uint64_t))
    if table == NULL or content == NULL:
        free(table)
        free(content)
        return 2
    for i in range(2 * size):
        table[i] = -1
    for i in range(n):
        if not (start[i] >= 0 and 0 <= count[i] <= pool.shape[0] - start[i]):
            good = False
            break
        h = mix(mix(1, <uint64_t>start[i]), <uint64_t>count[i]) & (size - 1)
        while table[h] >= 0 and not (start[table[h]] == start[i] and count[table[h]] == count[i]):
            h = (h + 1) & (size - 1)
        if table[h] >= 0:
            first[i] = first[table[h]]
            continue
        table[h] = i
        content[i] = mix_all(&pool[start[i]] if count[i] else NULL, count[i])
        h = content[i] & (size - 1)
        while True:
            found = table[size + h]
            if found < 0:
                table[size + h] = first[i] = i
                break
            if content[found] == content[i] and count[found] == count[i] and (
                count[i] == 0 or memcmp(&pool[start[found]], &pool[start[i]], count[i] * sizeof(int32_t)) == 0
            ):
                first[i] = found
                break
            h = (h + 1) & (size - 1)
    free(table)
    free(content)
    return not good


cdef uint64_t mix(uint64_t h, uint64_t x) noexcept nogil:
    h = (h ^ x) * <uint64_t>0x9E3779B97F4A7C15
    return h ^ (h >> 29)


cdef uint64_t mix_all(const int32_t* x, int64_t n) noexcept nogil:
    # Four independent chains hide the latency of multiplications.
    cdef uint64_t h[4]
    cdef int64_t i, k
    for k in range(4):
        h[k] = mix(<uint64_t>n, <uint64_t>k + 1)    # four different values, because equal ones would cancel below
    for i in range(n // 4):
        for k in range(4):
            h[k] = mix(h[k], <uint64_t>x[4 * i + k])
    for i in range(n // 4 * 4, n):
        h[0] = mix(h[0], <uint64_t>x[i])
    return mix(mix(mix(h[0], h[1]), h[2]), h[3])


def place_edges(
    const int32_t[::1] row, const int32_t[::1] source, int64_t lowest, const int64_t[::1] number, int64_t n_sources,
    int64_t panel, int32_t[::1] edge,
):
    """Store the index of each edge of sparse rows at the place of its weight in a dense block.

    Places are those of edge[panel][source][neuron].

    Parameters
    ----------
    number : int64, shape (any,)
        For each source from `lowest` on, its index among the block's `n_sources` sources.
    edge : int32, shape (panels * n_sources * panel,)
        Must be -1; filled where there is an edge.

    Returns
    -------
    bool
        Whether no two edges have the same place.

    Raises
    ------
    ValueError
        If an edge has no place in `edge`.
    """
    cdef int64_t neuron, j, at, taken = 0, outside = 0
    with nogil:
        for neuron in range(row.shape[0] - 1):
            for j in range(row[neuron], row[neuron + 1]):
                at = -1
                if 0 <= j < source.shape[0] and 0 <= source[j] - lowest < number.shape[0]:
                    at = (neuron // panel * n_sources + number[source[j] - lowest]) * panel + neuron % panel
                if not 0 <= at < edge.shape[0]:
                    outside += 1
                    continue
                taken += edge[at] >= 0
                edge[at] = <int32_t>j
    if outside:
        raise ValueError(f"row, source: expected edges that have places, got {outside} that have none")
    return taken == 0


def sort(
    const int64_t[::1] start, const int32_t[::1] count, const int32_t[::1] pool, const int32_t[::1] outputs,
    int32_t[::1] level, int32_t[::1] order,
):
    """Sort the nodes on which outputs depend topologically, sources first.

    Parameters
    ----------
    level : int32, shape (nodes,), filled
        0 for nodes without sources, otherwise 1 + the highest level of the sources; -1 if no output depends on the node.
    order : int32, shape (nodes,), filled with the sorted nodes

    Returns
    -------
    int
        Number of sorted nodes; -1 if sources or outputs are not nodes, or the arrays are too short.
    list of int
        The nodes of a cycle, in the order of its edges; empty if there is no cycle.
    """
    cdef int64_t n = start.shape[0]
    if not is_graph(start, count, pool) or not are_nodes(outputs, n) or level.shape[0] < n or order.shape[0] < n:
        return -1, []
    cdef int32_t* known = <int32_t*>malloc((pool.shape[0] + 1) * sizeof(int32_t))   # 1 + highest level of a list, or -1
    cdef int32_t* stack = <int32_t*>malloc((n + 1) * sizeof(int32_t))
    cdef int32_t* place = <int32_t*>malloc((n + 1) * sizeof(int32_t))               # sources of stack[i] already visited
    cdef int64_t depth = 0, done = 0, i
    cdef int32_t node, source, most
    cdef int32_t cycle = -1, UNSEEN = -1, OPEN = -2
    if known == NULL or stack == NULL or place == NULL:
        free(known)
        free(stack)
        free(place)
        raise MemoryError(f"sort: {n} nodes")
    with nogil:
        for i in range(pool.shape[0] + 1):
            known[i] = -1
        for i in range(n):
            level[i] = UNSEEN
        for i in range(outputs.shape[0]):
            if level[outputs[i]] != UNSEEN:
                continue
            stack[0], place[0], depth = outputs[i], 0, 1
            level[outputs[i]] = OPEN
            while depth > 0:
                node = stack[depth - 1]
                if place[depth - 1] < count[node] and (place[depth - 1] > 0 or known[start[node]] < 0):
                    source = pool[start[node] + place[depth - 1]]
                    place[depth - 1] += 1
                    if level[source] == OPEN:
                        cycle = source
                        break
                    if level[source] == UNSEEN:
                        level[source] = OPEN
                        stack[depth], place[depth] = source, 0
                        depth = depth + 1
                    continue
                most = 0
                if count[node] > 0:
                    if known[start[node]] < 0:
                        known[start[node]] = above(level, pool, start[node], count[node])
                    most = known[start[node]]
                level[node] = most
                order[done] = node
                done = done + 1
                depth = depth - 1
            if cycle >= 0:
                break
    found = []
    if cycle >= 0:
        for i in range(depth - 1, -1, -1):
            found.append(stack[i])
            if stack[i] == cycle:
                break
    free(known)
    free(stack)
    free(place)
    return done, found


cdef int32_t above(const int32_t[::1] level, const int32_t[::1] pool, int64_t start, int64_t count) noexcept nogil:
    cdef int32_t most = -1
    cdef int64_t i
    for i in range(start, start + count):
        most = max(most, level[pool[i]])
    return most + 1


def spread(
    const int64_t[::1] start, const int32_t[::1] count, const int32_t[::1] pool, const int32_t[::1] order,
    uint8_t[::1] flag,
):
    """Set the flag of each node in `order` (sources first) that has a source whose flag is set."""
    cdef int64_t i, j, n = start.shape[0]
    cdef int32_t node
    if not is_graph(start, count, pool) or not are_nodes(order, n) or flag.shape[0] != n:
        raise ValueError("start, count, pool, order, flag: expected a graph, got none")
    with nogil:
        for i in range(order.shape[0]):
            node = order[i]
            for j in range(start[node], start[node] + count[node]):
                if flag[node]:
                    break
                flag[node] = flag[pool[j]]


def strongest(
    const int64_t[::1] start, const int32_t[::1] count, const int32_t[::1] pool, const int32_t[::1] order,
    const int64_t[::1] first, const double[::1] score, double[::1] up, double[::1] down, bint all_sources,
    double[::1] strength, uint8_t[::1] chosen,
):
    """Find the strength of the best path through each edge. The strength of a path is its lowest edge score.

    The literature calls these the widest paths (Pollack 1960, The maximum capacity through a network).

    Parameters
    ----------
    order : int32, shape (nodes,)
        All nodes, sources first.
    first : int64, shape (nodes,)
        Where the scores of the edges into a neuron begin; -1 for other nodes, which do not limit a path.
    score : float64, shape (edges,)
        -infinity for an edge that no path may take.
    up, down : float64, shape (nodes,), changed
        Given as infinity where paths may begin (`up`) or end (`down`) and -infinity elsewhere; returned as the strength of
        the best path to a node (`up`) or from it (`down`).
    all_sources : bool
        Whether a path to a node that is not a neuron needs a path to each of its sources, or only to the best.
    strength : float64, shape (edges,), filled
    chosen : uint8, shape (edges,), changed
        Given as the edges that must be on paths; returned with the edges of one best path to each node where paths end, and
        of one best path to and one from each given edge. Ties are broken by the highest score, then by order.
    """
    cdef int64_t n = order.shape[0], edges = score.shape[0], i, j, k, at
    cdef int32_t node, source
    cdef double s, w, infinity = float("inf")
    cdef int64_t* best = <int64_t*>malloc((n + 1) * sizeof(int64_t))     # best source of a node, as index in its list
    cdef int64_t* next = <int64_t*>malloc((n + 1) * sizeof(int64_t))     # the next edge on the way down, or -1
    cdef int32_t* reader = <int32_t*>malloc((n + 1) * sizeof(int32_t))   # the next node on the way down, or -1
    cdef uint8_t* on_path = <uint8_t*>malloc(n + 1)                      # whether a path to a node (below: from it) is needed
    cdef uint8_t* goes_on = <uint8_t*>malloc(n + 1)
    cdef bint good = is_graph(start, count, pool) and n == start.shape[0] and are_nodes(order, n)
    good = good and n == first.shape[0] == up.shape[0] == down.shape[0] and edges == strength.shape[0] == chosen.shape[0]
    if best == NULL or next == NULL or reader == NULL or on_path == NULL or goes_on == NULL:
        free(best)
        free(next)
        free(reader)
        free(on_path)
        free(goes_on)
        raise MemoryError(f"strongest: {n} nodes")
    with nogil:
        for i in range(n if good else 0):
            best[i] = next[i] = reader[i] = -1
            on_path[i], goes_on[i] = down[i] == infinity, False
            if first[i] >= 0 and first[i] > edges - count[i]:
                good = False
        for i in range(n if good else 0):
            node = order[i]
            for j in range(count[node]):
                source = pool[start[node] + j]
                s = score[first[node] + j] if first[node] >= 0 else infinity
                w = min(s, up[source])
                k = best[node]
                if w > up[node] or (k >= 0 and first[node] >= 0 and w == up[node] and s > score[first[node] + k]):
                    up[node] = w
                    best[node] = j
                if first[node] >= 0 and chosen[first[node] + j]:
                    on_path[source] = goes_on[node] = True
        for i in range(n - 1 if good else -1, -1, -1):
            node = order[i]
            for j in range(count[node]):
                source = pool[start[node] + j]
                at = first[node] + j if first[node] >= 0 else -1
                w = min(score[at], down[node]) if at >= 0 else down[node]
                if w > down[source]:
                    down[source] = w
                    next[source], reader[source] = at, node
                if at >= 0:
                    strength[at] = min(w, up[source])
        for i in range(n if good else 0):
            node = order[i]
            if goes_on[node] and reader[node] >= 0:    # nothing follows where paths end
                goes_on[reader[node]] = True
                if next[node] >= 0:
                    chosen[next[node]] = True
        for i in range(n - 1 if good else -1, -1, -1):
            node = order[i]
            for j in range(count[node] if on_path[node] else 0):
                if first[node] < 0 and (all_sources or j == best[node]):
                    on_path[pool[start[node] + j]] = True
                elif first[node] >= 0 and j == best[node]:
                    chosen[first[node] + j] = on_path[pool[start[node] + j]] = True
    free(best)
    free(next)
    free(reader)
    free(on_path)
    free(goes_on)
    if not good:
        raise ValueError("start, count, pool, order, first, score, up, down, strength, chosen: expected a graph, got none")
