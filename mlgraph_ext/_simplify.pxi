# Simplification of a graph: merging nodes of equal value, and recognising neurons written out as
# sums of products.


def merge(
    const int16_t[::1] code, const int64_t[::1] start, const int32_t[::1] count, const int32_t[::1] pool,
    const int32_t[::1] order, const int64_t[::1] identity, const uint8_t[::1] commutes, int32_t[::1] same,
):
    """Find nodes that are certain to have the same value.

    Parameters
    ----------
    identity : int64, shape (nodes,)
        -1 if a node may be merged with one of the same code and arguments. Otherwise it may be merged with one of the same
        code and identity: the bits of a constant, or the node's own number if it is unique.
    commutes : uint8, shape (codes,)
        1 for binary operations whose arguments may be swapped.
    same : int32, shape (nodes,), filled for the nodes of `order`
        The first node that has the same value.
    """
    cdef int64_t n = start.shape[0], size = 16, i, j
    cdef uint64_t h, at
    cdef int32_t node, other
    cdef bint good = is_graph(start, count, pool) and are_nodes(order, n)
    good = good and code.shape[0] == identity.shape[0] == same.shape[0] == n
    for i in range(order.shape[0] if good else 0):
        if identity[order[i]] == -1:
            good = good and 0 <= code[order[i]] < commutes.shape[0]
            good = good and (count[order[i]] == 2 or not commutes[code[order[i]]])
    if not good:
        raise ValueError("code, start, count, pool, order, identity, same: expected a graph, got none")
    while size < 2 * order.shape[0]:
        size = 2 * size
    cdef int32_t* table = <int32_t*>malloc(size * sizeof(int32_t))
    if table == NULL:
        raise MemoryError(f"merge: {order.shape[0]} nodes")
    with nogil:
        for i in range(size):
            table[i] = -1
        for i in range(order.shape[0]):
            node = order[i]
            same[node] = node
            if identity[node] == node:
                continue
            h = mix(code[node], <uint64_t>identity[node])
            if identity[node] == -1:
                if commutes[code[node]]:
                    h = mix(h, <uint64_t>same[pool[start[node]]] + <uint64_t>same[pool[start[node] + 1]])
                else:
                    for j in range(start[node], start[node] + count[node]):
                        h = mix(h, <uint64_t>same[pool[j]])
            at = h & (size - 1)
            while table[at] >= 0:
                other = table[at]
                if equal(code, start, count, pool, identity, commutes, same, node, other):
                    same[node] = other
                    break
                at = (at + 1) & (size - 1)
            if table[at] < 0:
                table[at] = node
    free(table)


cdef bint equal(
    const int16_t[::1] code, const int64_t[::1] start, const int32_t[::1] count, const int32_t[::1] pool,
    const int64_t[::1] identity, const uint8_t[::1] commutes, const int32_t[::1] same, int32_t a, int32_t b,
) noexcept nogil:
    cdef int64_t j, p = start[a], q = start[b]
    if code[a] != code[b] or identity[a] != identity[b] or count[a] != count[b]:
        return False
    if identity[a] != -1:
        return True
    if commutes[code[a]] and same[pool[p]] == same[pool[q + 1]] and same[pool[p + 1]] == same[pool[q]]:
        return True
    for j in range(count[a]):
        if same[pool[p + j]] != same[pool[q + j]]:
            return False
    return True


def find_neurons(
    const int8_t[::1] kind, const int64_t[::1] start, const int32_t[::1] count, const int32_t[::1] pool,
    const int32_t[::1] order, const uint8_t[::1] is_output,
    int32_t[::1] root, int64_t[::1] begin, int32_t[::1] source, int32_t[::1] weight, int32_t[::1] bias,
    int32_t[::1] readers,
):
    """Find neurons written out scalar by scalar, as sums of products of parameters and nodes.

    A term is ``parameter * node``. One further term may be a parameter, the bias. No node below the sum may be an
    output, and each must be read only once, by the sum.

    Parameters
    ----------
    kind : int8, shape (nodes,)
        1 for a sum or addition, 2 for a product of two, 3 for a parameter, 0 for anything else.
    root, bias : int32, shape (nodes,), filled
        The node of each sum that was found, and its bias or -1.
    begin : int64, shape (nodes + 1,), filled
        Sum i has the terms ``begin[i]`` to ``begin[i + 1]``.
    source, weight : int32, shape (len(pool),), filled
        Node and parameter of each term, in the order in which they were written.
    readers : int32, shape (nodes,), filled
        Number of times that each node is read.

    Returns
    -------
    int
        Number of neurons that were found.
    """
    cdef int64_t n = start.shape[0], i, j, found = 0, terms = 0, depth
    cdef int32_t node, a, b, biases, products
    cdef bint good = is_graph(start, count, pool) and are_nodes(order, n) and begin.shape[0] == n + 1
    good = good and kind.shape[0] == is_output.shape[0] == root.shape[0] == bias.shape[0] == readers.shape[0] == n
    good = good and source.shape[0] == weight.shape[0] == pool.shape[0]
    for i in range(n if good else 0):
        good = good and (kind[i] != 2 or count[i] == 2)
    if not good:
        raise ValueError("start, count, pool, order: expected a graph, and arrays to fill as long as it, got others")
    cdef int8_t* role = <int8_t*>malloc(n + 1)       # 0 none, 1 a sum that may be a neuron, 2 a term, 3 a bias
    cdef int8_t* inner = <int8_t*>malloc(n + 1)      # a sum that is part of another
    cdef int32_t* held = <int32_t*>malloc((n + 1) * sizeof(int32_t))   # biases below a sum
    cdef int32_t* stack = <int32_t*>malloc((pool.shape[0] + n + 1) * sizeof(int32_t))
    if role == NULL or inner == NULL or held == NULL or stack == NULL:
        free(role)
        free(inner)
        free(held)
        free(stack)
        raise MemoryError(f"find_neurons: {n} nodes")
    with nogil:
        for i in range(n):
            readers[i], role[i], inner[i], held[i] = 0, 0, 0, 0
        for i in range(order.shape[0]):
            node = order[i]
            for j in range(start[node], start[node] + count[node]):
                readers[pool[j]] += 1
        for i in range(order.shape[0]):
            node = order[i]
            if readers[node] == 1 and kind[node] == 3 and not is_output[node]:
                role[node] = 3
            elif kind[node] == 2:
                a, b = pool[start[node]], pool[start[node] + 1]
                # Of two parameters, one is the weight and the other an ordinary source.
                if readers[node] == 1 and not is_output[node] and (role[a] == 3 or role[b] == 3):
                    role[node] = 2
            elif kind[node] == 1:
                biases, products = 0, 0
                for j in range(start[node], start[node] + count[node]):
                    a = pool[j]
                    if role[a] == 0 or (role[a] == 1 and (readers[a] != 1 or is_output[a])):
                        biases = 2
                        break
                    biases = biases + (1 if role[a] == 3 else held[a])
                    products = products + (role[a] != 3)
                if biases <= 1 and products > 0:
                    role[node], held[node] = 1, biases
                    for j in range(start[node], start[node] + count[node]):
                        inner[pool[j]] = role[pool[j]] == 1
        for i in range(order.shape[0]):
            node = order[i]
            if role[node] != 1 or inner[node]:
                continue
            root[found], bias[found], begin[found] = node, -1, terms
            stack[0], depth = node, 1
            while depth > 0:
                depth = depth - 1
                a = stack[depth]
                if role[a] == 3:
                    bias[found] = a
                elif role[a] == 2:
                    b = pool[start[a]]
                    if role[b] == 3:
                        weight[terms], source[terms] = b, pool[start[a] + 1]
                    else:
                        weight[terms], source[terms] = pool[start[a] + 1], b
                    terms = terms + 1
                else:
                    for j in range(start[a] + count[a] - 1, start[a] - 1, -1):
                        stack[depth] = pool[j]
                        depth = depth + 1
            found = found + 1
        begin[found] = terms
    free(role)
    free(inner)
    free(held)
    free(stack)
    return found
