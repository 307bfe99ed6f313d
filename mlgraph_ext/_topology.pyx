"""Topological levels of a graph in compressed rows: iterative, linear in what is reachable, any depth."""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc


def levels(const int64_t[::1] start, const int32_t[::1] count, const int32_t[::1] pool, const int32_t[::1] outputs):
    """Level of every node that some output needs.

    Parameters
    ----------
    start, count : int64 and int32, one for each node
        The sources of a node are ``pool[start:start + count]``. Nodes with one ``start`` share one list, which is then
        walked once.
    pool : int32
        Node numbers.
    outputs : int32
        Nodes whose values are wanted.

    Returns
    -------
    bytearray
        int32 for each node: 0 without sources, else 1 + the highest level among the sources; -1 where no output needs it.
    list of int
        The nodes of a cycle in the order of its edges; empty if there is none (else the levels are incomplete).
    """
    cdef int64_t n = start.shape[0]
    out = bytearray(4 * n)
    if n == 0:
        return out, []
    cdef int32_t[::1] level = memoryview(out).cast("i")
    cdef int32_t* known = <int32_t*>malloc((pool.shape[0] + 1) * sizeof(int32_t))   # by list: 1 + highest source, or -1
    cdef int32_t* stack = <int32_t*>malloc(n * sizeof(int32_t))
    cdef int32_t* place = <int32_t*>malloc(n * sizeof(int32_t))                     # sources of stack[i] already walked
    cdef int64_t depth = 0, i
    cdef int32_t node, source
    cdef int32_t UNSEEN = -1, OPEN = -2
    if known == NULL or stack == NULL or place == NULL:
        free(known)
        free(stack)
        free(place)
        raise MemoryError(f"levels of {n} nodes")
    cdef int32_t cycle = -1
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
                if place[depth - 1] == 0 and count[node] > 0 and known[start[node]] >= 0:
                    level[node] = known[start[node]]
                    depth = depth - 1
                elif place[depth - 1] < count[node]:
                    source = pool[start[node] + place[depth - 1]]
                    place[depth - 1] += 1
                    if level[source] == OPEN:
                        cycle = source
                        break
                    if level[source] == UNSEEN:
                        level[source] = OPEN
                        stack[depth], place[depth] = source, 0
                        depth = depth + 1
                else:
                    level[node] = highest(level, pool, start[node], count[node])
                    if count[node] > 0:
                        known[start[node]] = level[node]
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
    return out, found


cdef int32_t highest(
    const int32_t[::1] level, const int32_t[::1] pool, int64_t start, int64_t count
) noexcept nogil:
    cdef int32_t most = -1
    cdef int64_t i
    for i in range(start, start + count):
        most = max(most, level[pool[i]])
    return most + 1
