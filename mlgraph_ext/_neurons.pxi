# The last pass of the compiler, mlgraph/compiler/plan.py: the instructions of parameter nodes and neurons.

cdef struct Facts:
    int64_t is_neurons
    int64_t n_edges
    int64_t reads_data   # whether all sources are columns of the data; of a dense block: all columns, in order
    int64_t propagate    # whether some source wants an adjoint
    int64_t length       # of what the index table holds for the instruction, at most

cdef enum:
    FACTS = 5


def read_sources(
    Groups groups not None, const int32_t[::1] slot, int64_t n_slots, const uint8_t[::1] wants, int64_t n_inputs,
    int32_t[::1] whole, int64_t[:, ::1] facts,
):
    """Read the lists of sources of groups of neurons; the facts about other groups are 0.

    Parameters
    ----------
    groups : Groups
    slot : int32, shape (nodes,)
        Below `n_slots`; those of inputs are below `n_inputs`.
    wants : uint8, shape (nodes,)
        Which nodes want an adjoint; none of the sources of nodes that are `off_loss`.
    whole : int32, shape (members,)
        Given as `mlgraph.compiler.grouping.Groups.alike`, changed to `mlgraph.compiler.instructions.Rows.whole`.
    facts : int64, shape (groups, 5), filled
        Fields of `Facts`: whether these are neurons; number of edges; whether all sources are columns of the data (of a
        dense block: all columns, in their order); whether a source wants an adjoint; length in the index, at most.

    Returns
    -------
    bool
        Whether a neuron reads an input among other nodes, or a dense block only some inputs.
    int, int
        The lowest slot that neurons read, apart from inputs, and one after the highest; 0 and 0 if there are none.
    bool, bool
        Whether dense blocks, and sparse rows, read the data.
    int, int
        Number of edges of dense blocks, and of sparse rows.
    int
        Length of what the index table holds for all groups, at most.
    """
    cdef const int16_t[::1] code = groups.code
    cdef const int64_t[::1] start = groups.start, first = groups.first
    cdef const int32_t[::1] count = groups.count, pool = groups.pool, member = groups.member
    cdef const uint8_t[::1] dense = groups.dense, off_loss = groups.off_loss
    cdef int64_t n = code.shape[0], i, j, k, at, wanted, sources, lowest = n_slots, end = 0, length = 0
    cdef bint good = are_slots(slot, n_slots) and n == slot.shape[0] == wants.shape[0]
    good = good and groups.n == facts.shape[0] and facts.shape[1] == FACTS and member.shape[0] == whole.shape[0]
    if not good:
        raise ValueError("slot, wants, whole, facts: expected arrays for the nodes and groups, got others")
    cdef int64_t* seen = <int64_t*>malloc((n_slots + 1) * sizeof(int64_t))  # the last group that read a slot, for an adjoint
    if seen == NULL:
        raise MemoryError(f"read_sources: {n_slots} slots")
    cdef Facts* fact
    cdef int32_t node, source
    cdef bint mixed = False, reads_inputs
    cdef bint[2] reading = [False, False]
    cdef int64_t[2] n_edges = [0, 0]
    with nogil:
        for i in range(n_slots):
            seen[i] = -1
        for i in range(groups.n):
            node, fact = member[first[i]], <Facts*>&facts[i, 0]
            fact.is_neurons = code[node] >= NEURON_CODE
            fact.n_edges, fact.reads_data, fact.propagate, fact.length = 0, 0, 0, 0
            if not fact.is_neurons:
                continue
            fact.reads_data = not dense[i] or count[node] == n_inputs
            wanted, sources, reads_inputs = 0, 0, False
            for k in range(first[i], first[i] + (1 if dense[i] else first[i + 1] - first[i])):
                for j in range(start[member[k]], start[member[k]] + count[member[k]]):
                    source = pool[j]
                    at = slot[source]
                    if at < 0:
                        good = False
                        break
                    if at < n_inputs:
                        reads_inputs = True
                    else:
                        lowest, end = min(lowest, at), max(end, at + 1)
                    fact.reads_data = fact.reads_data and (at == j - start[node] if dense[i] else at < n_inputs)
                    if off_loss[node] or not wants[source]:
                        if not dense[i]:
                            whole[k] = 1
                        continue
                    wanted += 1
                    if seen[at] != i:
                        seen[at] = i
                        sources += 1
                fact.n_edges += count[member[k]]
            mixed = mixed or (reads_inputs and not fact.reads_data)
            fact.propagate = wanted > 0
            fact.length = fact.n_edges
            if dense[i]:
                fact.n_edges *= first[i + 1] - first[i]
            else:
                fact.length += 3 * (first[i + 1] - first[i]) + 1
                if wanted:
                    fact.length += 2 * sources + 1 + 2 * wanted
            length += fact.length
            n_edges[not dense[i]] += fact.n_edges
            reading[not dense[i]] = reading[not dense[i]] or fact.reads_data
    free(seen)
    if not good:
        raise ValueError("slot: expected a slot of each source, got none")
    return (
        bool(mixed), lowest if end else 0, end, bool(reading[0]), bool(reading[1]), n_edges[0], n_edges[1], length
    )


def add_neurons(
    Groups groups not None, const int32_t[::1] slot, const int32_t[::1] node_of, const uint8_t[::1] wants,
    int64_t n_inputs, const int32_t[::1] whole, const uint8_t[::1] in_quads, const int64_t[:, ::1] facts,
    const int64_t[:, ::1] where,
    int64_t lanes, int64_t panel, int64_t n_extra, int64_t[:, ::1] program, int32_t[::1] index, int64_t index_at,
    int64_t[::1] reader,
):
    """Add the instructions of groups of parameter nodes and neurons.

    Parameters
    ----------
    groups, slot, wants, n_inputs, whole, facts
        As returned by `read_sources`.
    node_of : int32, shape (slots,)
        The node of each slot.
    in_quads : uint8, shape (members,)
        Which neurons are swept in quads, by `whole`.
    where : int64, shape (groups, 2)
        Places of the weights and biases.
    n_extra : int
        Floats that a tile needs before these instructions in addition to its slots.
    program : int64, shape (groups, fields of `Instruction`), changed
        Given with the fields `halves`, `drop`, `keep` and `bits`. The instructions of other groups stay as they are.
    index : int32, changed
        Written from `index_at` on.
    reader : int64, shape (slots,), changed
        The instruction that is the only reader of a slot; -1 without readers, -2 for several.

    Returns
    -------
    index_at : int
        The end of what was written.
    n_extra, n_masked : int
        Floats of a tile, and of a thread for masked weights.
    """
    cdef const int16_t[::1] code = groups.code
    cdef const int64_t[::1] start = groups.start, first = groups.first
    cdef const int32_t[::1] count = groups.count, pool = groups.pool, member = groups.member, fused = groups.fused
    cdef const int8_t[::1] part = groups.part
    cdef const uint8_t[::1] dense = groups.dense, off_loss = groups.off_loss
    cdef int64_t n = code.shape[0], n_slots = node_of.shape[0], room = index_at
    cdef int64_t i, j, k, at, most = 0, n_masked = 0, size, arity, width, edge, wanted, mask
    cdef bint good = are_slots(slot, n_slots) and are_nodes(node_of, n) and n == slot.shape[0] == wants.shape[0]
    good = good and groups.n == facts.shape[0] == where.shape[0] == program.shape[0]
    good = good and facts.shape[1] == FACTS and where.shape[1] == 2 and reader.shape[0] == n_slots
    good = good and member.shape[0] == whole.shape[0] == in_quads.shape[0]
    good = good and program.shape[1] * <int64_t>sizeof(int64_t) == <int64_t>sizeof(Instruction) and index_at >= 0
    for i in range(groups.n if good else 0):
        room += facts[i, 4]
        most = max(most, facts[i, 1])
    if not good or room > index.shape[0]:
        raise ValueError("slot, node_of, wants, whole, ...: expected arrays for the nodes and groups, got others")
    cdef int64_t* seen = <int64_t*>malloc((n_slots + 1) * sizeof(int64_t))
    cdef uint64_t* keys = <uint64_t*>malloc((2 * most + 1) * sizeof(uint64_t))  # of edges: slot of the source, number
    cdef int32_t* owner = <int32_t*>malloc((most + 1) * sizeof(int32_t))  # the neuron of each edge
    if seen == NULL or keys == NULL or owner == NULL:
        free(seen)
        free(keys)
        free(owner)
        raise MemoryError(f"add_neurons: {n_slots} slots")
    cdef const Facts* fact
    cdef Instruction* ins
    cdef int32_t node
    cdef int32_t* table
    cdef bint adds
    with nogil:
        for i in range(n_slots):
            seen[i] = -1
        for i in range(groups.n):
            node, fact, ins = member[first[i]], <const Facts*>&facts[i, 0], <Instruction*>&program[i, 0]
            if code[node] < PARAMETER_CODE:
                continue
            size = first[i + 1] - first[i]
            ins.dst, ins.size, ins.weights, ins.n_weights = slot[node], size, where[i, 0], size
            ins.kind, ins.decays = PARAMETER, part[node] == OF_BIASED or part[node] == OF_UNBIASED
            if not fact.is_neurons:
                continue
            ins.decays = fused[node] < 0
            arity, width, ins.op, ins.bias = count[node], padded(size, panel), code[node] - NEURON_CODE, where[i, 1]
            ins.kind, ins.arity, ins.args = DENSE if dense[i] else ROWS, arity, index_at
            ins.n_weights = width * arity if dense[i] else fact.n_edges
            ins.reads_data, ins.propagate, ins.stream = fact.reads_data, fact.propagate, i
            mask = (ins.n_weights + 63) // 64 * 2 if ins.bits else 0
            ins.transposed, ins.masked = n_extra, n_masked
            ins.mask = n_extra + (width * lanes * ins.halves if dense[i] else 0)    # as `extra_floats`
            ins.kept = ins.mask + mask
            n_extra = ins.kept + ((size + 63) // 64 * 2 if ins.drop else 0)
            n_masked += padded(ins.n_weights, panel) if ins.bits else 0
            # Sources, and which slots this instruction alone reads.
            table = &index[index_at]
            if not dense[i]:
                table[0] = 0
                for k in range(size):
                    table[k + 1] = table[k] + count[member[first[i] + k]]
                table = table + size + 1
            edge = wanted = 0
            for k in range(first[i], first[i] + (1 if dense[i] else size)):
                for j in range(start[member[k]], start[member[k]] + count[member[k]]):
                    at = slot[pool[j]]
                    table[edge] = <int32_t>at
                    adds = not off_loss[node] and wants[pool[j]]
                    if adds and not dense[i]:
                        owner[edge] = <int32_t>(k - first[i])
                        keys[wanted] = (<uint64_t>at << 32) | <uint64_t>edge
                        wanted = wanted + 1
                    edge = edge + 1
                    if seen[at] != i:
                        seen[at] = i
                        reader[at] = i if reader[at] == -1 and not off_loss[node] and wants[node_of[at]] else -2
                    elif dense[i]:
                        reader[at] = -2    # a block that reads a slot twice adds to its adjoint twice
            table = table + edge
            if not dense[i]:
                for k in range(size):
                    table[k], table[size + k] = groups.alike[first[i] + k], whole[first[i] + k]
                table = table + 2 * size
            if wanted:
                ins.back = table - &index[0]
                table = by_source(keys, keys + most, wanted, owner, &in_quads[first[i]], table, &ins.n_back)
            index_at = table - &index[0]
    free(seen)
    free(keys)
    free(owner)
    return index_at, n_extra, n_masked


cdef int32_t* by_source(
    uint64_t* keys, uint64_t* spare, int64_t n, const int32_t* owner, const uint8_t* in_quads, int32_t* out,
    int64_t* n_sources,
) noexcept nogil:
    """Write edges of sparse rows sorted by source, for the backward sweep; returns the end of what was written.

    First come the sources; then, for each source, where its edges begin; then pairs of edge and neuron, except quads.
    """
    cdef int64_t i, k = 0, sources = 0
    cdef int32_t edge
    keys = sort_keys(keys, spare, n)
    for i in range(n):
        if i == 0 or keys[i] >> 32 != keys[i - 1] >> 32:
            out[sources] = <int32_t>(keys[i] >> 32)
            sources = sources + 1
    n_sources[0] = sources
    cdef int32_t* begin = out + sources
    cdef int32_t* pair = begin + sources + 1
    for i in range(n):
        if i == 0 or keys[i] >> 32 != keys[i - 1] >> 32:
            begin[0], begin = <int32_t>k, begin + 1
        edge = <int32_t>keys[i]
        if not in_quads[owner[edge]]:
            pair[2 * k], pair[2 * k + 1] = edge, owner[edge]
            k = k + 1
    begin[0] = <int32_t>k
    return pair + 2 * k


cdef enum:
    FEW_KEYS = 64    # up to which an insertion sort takes less time than the counts of a radix sort


cdef uint64_t* sort_keys(uint64_t* keys, uint64_t* spare, int64_t n) noexcept nogil:
    """Sort by the upper half, stably; returns where the sorted keys are, one of the two arrays."""
    cdef uint64_t lowest = keys[0] >> 32, highest = 0, digit
    cdef int64_t begin[257]
    cdef int64_t i, k
    cdef int shift = 32
    if n <= FEW_KEYS:
        for i in range(1, n):
            digit, k = keys[i], i
            while k > 0 and keys[k - 1] >> 32 > digit >> 32:
                keys[k] = keys[k - 1]
                k = k - 1
            keys[k] = digit
        return keys
    for i in range(n):
        digit = keys[i] >> 32
        lowest, highest = min(lowest, digit), max(highest, digit)
    while (highest - lowest) >> (shift - 32):
        for i in range(257):
            begin[i] = 0
        for i in range(n):
            begin[(((keys[i] - (lowest << 32)) >> shift) & 255) + 1] += 1
        for i in range(256):
            begin[i + 1] += begin[i]
        for i in range(n):
            digit = ((keys[i] - (lowest << 32)) >> shift) & 255
            spare[begin[digit]] = keys[i]
            begin[digit] += 1
        keys, spare, shift = spare, keys, shift + 8
    return keys


def row_parameters(const int64_t[:, ::1] program):
    """The first parameter of sparse rows and one after the last; 0 and 0 without rows, or with weight dropout anywhere."""
    cdef int64_t i, first = -1, end = 0
    cdef const Instruction* ins
    if program.shape[1] * <int64_t>sizeof(int64_t) != <int64_t>sizeof(Instruction):
        raise ValueError(f"program: expected the fields of instructions, got {program.shape[1]} columns")
    for i in range(program.shape[0]):
        ins = <const Instruction*>&program[i, 0]
        if ins.bits:
            return 0, 0
        if ins.kind == ROWS:
            first = ins.weights if first < 0 else min(first, ins.weights)
            first = first if ins.bias < 0 else min(first, ins.bias)
            end = max(end, ins.weights + ins.n_weights, ins.bias + ins.size)
    return max(first, 0), end


cdef bint are_slots(const int32_t[::1] slots, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(slots.shape[0]):
        if not -1 <= slots[i] < n:
            return False
    return True
