# The second pass of the compiler, mlgraph/compiler/grouping.py: which nodes one instruction computes.

# As in mlgraph/graph/ops.py.
cdef enum:
    INPUT_CODE = 100
    PARAMETER_CODE = 102
    NEURON_CODE = 103

# As in mlgraph/compiler/lowering.py.
cdef enum:
    OF_BIASED = 1
    OF_UNBIASED = 2
    BIAS = 3

cdef struct Member:
    # Sorted by all of these; groups differ in one of the first four.
    int64_t level
    int64_t kind
    int64_t shape
    int64_t detail
    int64_t lead
    int64_t node


cdef int compare_members(const void* a, const void* b) noexcept nogil:
    cdef const int64_t* x = <const int64_t*>a
    cdef const int64_t* y = <const int64_t*>b
    cdef int k
    for k in range(6):
        if x[k] != y[k]:
            return -1 if x[k] < y[k] else 1
    return 0


cdef bint same_group(const Member* a, const Member* b) noexcept nogil:
    return a.level == b.level and a.kind == b.kind and a.shape == b.shape and a.detail == b.detail


def distinct(const int16_t[::1] code, const int32_t[::1] nodes):
    """The set of the codes of these nodes."""
    cdef int64_t i
    cdef int16_t it
    cdef int16_t last[128]    # codes already in the set, at their last seven bits
    found = set()
    if not are_nodes(nodes, code.shape[0]):
        raise ValueError(f"nodes: expected nodes below {code.shape[0]}, got others")
    for i in range(128):
        last[i] = <int16_t>(i ^ 1)
    for i in range(nodes.shape[0]):
        it = code[nodes[i]]
        if last[it & 127] != it:
            last[it & 127] = it
            found.add(it)
    return found


cdef class Groups:
    """Groups of nodes, which are not inputs, as mlgraph/compiler/grouping.py explains, and all that later passes read.

    Parameters
    ----------
    nodes : int32, shape (members,)
        In topological order.
    code, like, start, count, pool, data, level, fused, fused_begin, fused_weight, fused_bias, part
        As in `mlgraph.compiler.lowering.Lowered`; nodes with different numbers of `part` are in different groups.
    layer : int64, shape (members,), or None
        Likewise; 0 for nodes without dropout.
    off_loss : uint8, shape (nodes of the graph,)
        Likewise.
    bias : int64, shape (records,)
        As `Storage.bias`.
    n_inputs : int
        Number of inputs that are needed.
    member, alike : int32, shape (members,), filled
    first : int64, shape (members + 1,), filled
        Where each group begins in `member`; the last of them is followed by the number of members.
    dense : uint8, shape (members,), filled for each group

    Attributes
    ----------
    n : int
        Number of groups.
    """

    cdef const int16_t[::1] code
    cdef const int64_t[::1] start, data, fused_begin, first
    cdef const int32_t[::1] count, pool, fused, fused_weight, fused_bias, member, alike
    cdef const int8_t[::1] part
    cdef const uint8_t[::1] off_loss, dense
    cdef readonly int64_t n

    def __cinit__(
        self, const int32_t[::1] nodes, *, const int16_t[::1] code, const int16_t[::1] like,
        const int64_t[::1] start, const int32_t[::1] count, const int32_t[::1] pool, const int64_t[::1] data,
        const int32_t[::1] level, const int32_t[::1] fused, const int64_t[::1] fused_begin,
        const int32_t[::1] fused_weight, const int32_t[::1] fused_bias, const int8_t[::1] part,
        const int64_t[::1] layer, const uint8_t[::1] off_loss, const int64_t[::1] bias,
        int64_t n_inputs, int64_t dense_from, int64_t dense_among_others,
        int32_t[::1] member, int64_t[::1] first, uint8_t[::1] dense, int32_t[::1] alike,
    ):
        cdef int64_t n = nodes.shape[0], of_graph = start.shape[0], i, j, k, m = 0, total, number, groups = 0
        cdef bint drops = layer is not None, good = is_graph(start, count, pool) and are_nodes(nodes, of_graph)
        good = good and of_graph == level.shape[0] == code.shape[0] == like.shape[0] == fused.shape[0] == data.shape[0]
        good = good and of_graph == off_loss.shape[0] == part.shape[0] and (not drops or n == layer.shape[0])
        good = good and n == member.shape[0] == first.shape[0] - 1 == dense.shape[0] == alike.shape[0]
        if not good:
            raise ValueError("nodes, level, start, count, pool, ...: expected a graph, and arrays to fill, got others")
        cdef Member* all_members = <Member*>malloc((2 * n + 1) * sizeof(Member))
        cdef int64_t* neuron = <int64_t*>calloc(6 * n + 1, sizeof(int64_t))  # the index of each neuron in `nodes`
        cdef int32_t* counts = <int32_t*>calloc(n + 1, sizeof(int32_t))
        if all_members == NULL or neuron == NULL or counts == NULL:
            free(all_members)
            free(neuron)
            free(counts)
            raise MemoryError(f"group: {n} nodes")
        cdef int64_t* starts = neuron + n
        cdef int64_t* same = neuron + 2 * n    # the first neuron with the same list of sources
        cdef int64_t* lead = neuron + 3 * n    # the first neuron that also has the same kind and detail
        cdef int64_t* other = neuron + 4 * n   # of such a first neuron: the next with the same list
        cdef int64_t* size = neuron + 5 * n    # of such a first neuron: the number of neurons that it leads
        cdef Member* it
        cdef Member* level_members = all_members + n
        cdef int32_t node
        cdef bint may_be_dense = False, few
        cdef int failure = 0
        with nogil:
            for i in range(n):
                node, it = nodes[i], &all_members[i]
                it.level, it.kind, it.shape, it.detail, it.lead, it.node = (
                    level[node], like[node], count[node], part[node], node, node
                )
                if drops and layer[i]:
                    it.detail = 4 * layer[i]
                if like[node] >= NEURON_CODE:
                    if fused[node] >= fused_bias.shape[0] or (fused[node] < 0 and not 0 <= data[node] < bias.shape[0]):
                        failure = 1
                        break
                    if fused[node] >= 0:
                        it.detail += 2 + (fused_bias[fused[node]] >= 0)
                    else:
                        it.detail += bias[data[node]] >= 0
                    it.shape = -1
                    neuron[m], starts[m], counts[m] = i, start[node], count[node]
                    m = m + 1
            if not failure:
                failure = find_same_lists(starts, counts, m, pool, same)
            for i in range(m if not failure else 0):
                it, j = &all_members[neuron[i]], same[i]
                lead[i] = i
                if j != i:
                    while True:
                        if all_members[neuron[j]].kind == it.kind and all_members[neuron[j]].detail == it.detail:
                            lead[i] = j
                            break
                        if other[j] < 0:
                            other[j] = i
                            break
                        j = other[j]
                if lead[i] == i:
                    other[i], size[i] = -1, 0
                size[lead[i]] += 1
                may_be_dense = may_be_dense or size[lead[i]] >= dense_from
                it.lead = nodes[neuron[lead[i]]]
            if may_be_dense and not failure:
                for i in range(m):
                    level_members[i] = all_members[neuron[i]]
                    level_members[i].lead, level_members[i].node = 0, i
                qsort(level_members, m, sizeof(Member), compare_members)
                i = 0
                while i < m:
                    total = 1
                    while i + total < m and same_group(&level_members[i], &level_members[i + total]):
                        total = total + 1
                    for k in range(i, i + total):
                        j = level_members[k].node
                        if lead[j] == j and is_block(
                            size[j], total, columns_read(code, pool, starts[j], counts[j]) if size[j] >= dense_from else 0,
                            n_inputs, dense_from, dense_among_others
                        ):
                            all_members[neuron[j]].shape = same[j]
                    i = i + total
                for i in range(m):
                    all_members[neuron[i]].shape = all_members[neuron[lead[i]]].shape
            for i in range(n if not failure else 0):
                all_members[i].detail = 2 * all_members[i].detail + (off_loss[all_members[i].node] != 0)
            if not failure:
                qsort(all_members, n, sizeof(Member), compare_members)
            for i in range(n if not failure else 0):
                it = &all_members[i]
                member[i] = <int32_t>it.node
                if i == 0 or not same_group(it, it - 1):
                    first[groups], dense[groups] = i, it.kind >= NEURON_CODE and it.shape >= 0
                    groups = groups + 1
            first[groups] = n
            for i in range(n - 1 if not failure else -1, -1, -1):
                it, alike[i] = &all_members[i], 1
                if i + 1 < n and same_group(it, it + 1) and it.lead == it[1].lead:
                    alike[i] = alike[i + 1] + 1
        free(all_members)
        free(neuron)
        free(counts)
        if failure == 2:
            raise MemoryError(f"group: {n} nodes")
        if failure:
            raise ValueError("fused, data, start, count: expected numbers of fused neurons, records and lists, got others")
        self.code, self.start, self.count, self.pool, self.data = code, start, count, pool, data
        self.fused, self.fused_begin, self.fused_weight, self.fused_bias = fused, fused_begin, fused_weight, fused_bias
        self.part, self.off_loss = part, off_loss
        self.member, self.first, self.dense, self.alike, self.n = member, first, dense, alike, groups

    cdef bint has_parameters(self, int64_t i) noexcept nogil:
        """Whether group i has parameters of its own; biases that are nodes belong to the weights written out with them."""
        cdef int32_t node = self.member[self.first[i]]
        return self.code[node] >= PARAMETER_CODE and self.part[node] != BIAS


def put_inputs_first(
    const int16_t[::1] code, const int64_t[::1] data, const int32_t[::1] order, int32_t[::1] out
):
    """Fill `out` with the nodes of `order`: first the inputs, by column (their `data`), then the others as they are.

    Returns
    -------
    int
        Number of inputs.
    """
    cdef int64_t n = order.shape[0], inputs = 0, others = 0, i
    cdef uint64_t* keys = <uint64_t*>malloc((2 * n + 1) * sizeof(uint64_t))  # of inputs: column, node
    cdef uint64_t* ascending
    cdef bint good = keys != NULL and n == out.shape[0] and code.shape[0] == data.shape[0]
    good = good and are_nodes(order, code.shape[0])
    for i in range(n if good else 0):
        if code[order[i]] == INPUT_CODE:
            good = good and 0 <= data[order[i]] <= INT32_MAX
            keys[inputs] = (<uint64_t>data[order[i]] << 32) | <uint64_t>order[i]
            inputs += 1
    if good:
        ascending = sort_keys(keys, keys + n, inputs) if inputs else keys
        for i in range(inputs):
            out[i] = <int32_t>ascending[i]
        for i in range(n):
            if code[order[i]] != INPUT_CODE:
                out[inputs + others] = order[i]
                others += 1
    free(keys)
    if not good:
        raise ValueError("code, data, order, out: expected nodes of a graph, got others")
    return inputs


def number_slots(const int32_t[::1] node, const int32_t[::1] same, int32_t[::1] slot):
    """Set the slot of each node to the index of ``same[node]`` in `node`, or to -1 if it is missing there.

    Parameters
    ----------
    node : int32, shape (slots,)
        The node of each slot, none twice.
    same, slot : int32, shape (nodes,)
    """
    cdef int64_t n = slot.shape[0], i
    cdef int32_t* own = <int32_t*>malloc((n + 1) * sizeof(int32_t))
    cdef bint good = own != NULL and n == same.shape[0] and are_nodes(node, n) and are_nodes(same, n)
    if good:
        for i in range(n):
            own[i] = -1
        for i in range(node.shape[0]):
            own[node[i]] = <int32_t>i
        for i in range(n):
            slot[i] = own[same[i]]
    free(own)
    if not good:
        raise ValueError("node, same, slot: expected nodes, got others")


def first_added(const int64_t[::1] reader, int64_t n_inputs, bint want_inputs):
    """The first slot that more than one block reads, or none, or other nodes; inputs count only if `want_inputs`.

    Parameters
    ----------
    reader : int64, shape (slots,)
        The block that is the only reader of each slot, else a negative number.

    Returns
    -------
    int
        The number of slots if there is none.
    """
    cdef int64_t i = 0 if want_inputs else max(0, n_inputs)
    while i < reader.shape[0] and reader[i] >= 0:
        i += 1
    return min(i, reader.shape[0])


cdef int64_t columns_read(const int16_t[::1] code, const int32_t[::1] pool, int64_t start, int64_t count) noexcept nogil:
    """Number of columns of the data that a list of sources reads; 0 if it also reads other nodes."""
    cdef int64_t i
    for i in range(start, start + count):
        if code[pool[i]] != INPUT_CODE:
            return 0
    return count


cdef bint is_block(
    int64_t size, int64_t total, int64_t read, int64_t n_inputs, int64_t dense_from, int64_t dense_among_others
) noexcept nogil:
    """Whether `size` neurons with the same sources, of `total` on their level, become a dense block."""
    cdef bint few = size < dense_among_others
    if size < dense_from or (0 < read < n_inputs and (few or 2 * read > n_inputs)):
        return False
    return not (few and 2 * size < total)
