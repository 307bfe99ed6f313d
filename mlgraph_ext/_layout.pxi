# The third pass of the compiler, mlgraph/compiler/layout.py: where the parameters of each group are stored.

cdef struct Weights:
    # A record, and where its weights are, relative to the first weight of its group.
    int64_t record
    int64_t at
    int64_t count

cdef struct Block:
    int64_t begin       # the first of the group's `Weights`
    int64_t end
    int64_t biases      # the first of the records of its biases
    int64_t n           # number of neurons or parameter nodes
    int64_t step        # distance between the weights of a record
    int64_t size        # length of the weights, padding included
    int64_t width       # length of the biases, padding included; 0 without biases
    bint is_fused       # each weight and each bias is a parameter node, with a record of its own
    bint has_strides    # whether the strides of its records matter


cdef class Layout:
    """Groups of parameters, each of which must become contiguous. Groups without parameters are empty here.

    Parameters
    ----------
    groups : Groups
    bias : int64, shape (records,)
        As `Storage.bias`.
    panel : int
    """

    cdef Weights* weights
    cdef Block* blocks
    cdef int64_t* biases     # the records of the biases of all groups
    cdef uint8_t* seen       # which records are in a group
    cdef int32_t* fan        # number of weights of each record, from `length` on
    cdef int64_t total       # what `length` returned
    cdef int64_t n_blocks
    cdef int64_t n_records
    cdef int64_t panel

    def __cinit__(self, Groups groups not None, const int64_t[::1] bias, int64_t panel):
        cdef const int16_t[::1] code = groups.code
        cdef const int32_t[::1] member = groups.member, count = groups.count, fused = groups.fused
        cdef const int32_t[::1] fused_weight = groups.fused_weight, fused_bias = groups.fused_bias
        cdef const int64_t[::1] first = groups.first, data = groups.data, begin = groups.fused_begin
        cdef const int8_t[::1] part = groups.part
        cdef const uint8_t[::1] dense = groups.dense
        cdef int64_t n = code.shape[0], m = member.shape[0], i, j, k, number, fan, at, total = 0, of_fused = 0
        cdef bint good = are_nodes(fused_weight, n) and panel > 0 and begin.shape[0] == fused_bias.shape[0] + 1
        for i in range(fused_bias.shape[0] if good else 0):
            good = good and 0 <= begin[i] <= begin[i + 1] <= fused_weight.shape[0] and -1 <= fused_bias[i] < n
        for i in range(groups.n if good else 0):
            if not groups.has_parameters(i):
                continue
            total += first[i + 1] - first[i]
            for j in range(first[i], first[i + 1]):
                number = fused[member[j]]
                if number >= fused_bias.shape[0] or (number < 0 and not 0 <= data[member[j]] < bias.shape[0]):
                    good = False
                    break
                if number >= 0:
                    of_fused += begin[number + 1] - begin[number]
        good = good and total <= m and of_fused <= fused_weight.shape[0]
        for i in range(fused_weight.shape[0] if good else 0):
            good = good and 0 <= data[fused_weight[i]] < bias.shape[0]
        for i in range(fused_bias.shape[0] if good else 0):
            good = good and (fused_bias[i] < 0 or 0 <= data[fused_bias[i]] < bias.shape[0])
        if not good:
            raise ValueError("member, first, size, ...: expected groups of parameters, got others")
        self.n_blocks, self.n_records, self.panel = groups.n, bias.shape[0], panel
        self.weights = <Weights*>malloc((m + fused_weight.shape[0] + 1) * sizeof(Weights))
        self.blocks = <Block*>malloc((self.n_blocks + 1) * sizeof(Block))
        self.biases = <int64_t*>malloc((m + 1) * sizeof(int64_t))
        self.seen = <uint8_t*>calloc(self.n_records + 1, 1)
        if self.weights == NULL or self.blocks == NULL or self.biases == NULL or self.seen == NULL:
            raise MemoryError(f"layout: {m} neurons and parameters")
        cdef Weights* w = self.weights
        cdef int64_t* b = self.biases
        cdef Block* block
        cdef int32_t node
        with nogil:
            for i in range(self.n_blocks):
                node, block = member[first[i]], &self.blocks[i]
                block.begin, block.biases, block.n, block.size = w - self.weights, b - self.biases, 0, 0
                block.is_fused, block.has_strides, block.step, block.width = fused[node] >= 0, False, 1, 0
                if not groups.has_parameters(i):
                    block.end = block.begin
                    continue
                if dense[i]:
                    block.step = panel
                if block.is_fused:
                    block.width = fused_bias[fused[node]] >= 0
                elif code[node] >= NEURON_CODE or part[node] > 0:
                    block.has_strides, block.width = True, bias[data[node]] >= 0
                for j in range(first[i], first[i + 1]):
                    node = member[j]
                    if part[node] > 0 and j > first[i] and w > self.weights and data[node] == (w - 1).record:
                        (w - 1).count += 1    # the next weight of a neuron that was written out
                        block.size += 1
                        continue
                    number = fused[node]
                    if block.is_fused:
                        fan = begin[number + 1] - begin[number]
                    else:
                        fan = count[node] if code[node] >= NEURON_CODE else 1
                    at = block.n // panel * (panel * fan) + block.n % panel if dense[i] else block.size
                    if block.is_fused:
                        for k in range(fan):
                            w.record, w.at, w.count = data[fused_weight[begin[number] + k]], at + k * block.step, 1
                            w = w + 1
                    else:
                        w.record, w.at, w.count = data[node], at, fan
                        w = w + 1
                    block.size += fan
                    if block.width:
                        b[0] = data[fused_bias[number]] if block.is_fused else data[node]
                        b = b + 1
                    block.n += 1
                block.end = w - self.weights
                if dense[i]:
                    block.size = padded(block.n, panel) * (block.size // block.n)
                block.size = padded(block.size, panel)
                block.width = padded(block.n, panel) if block.width else 0
                for j in range(block.begin, block.end):
                    self.seen[self.weights[j].record] = True
                for j in range(block.n if block.width else 0):
                    self.seen[self.biases[block.biases + j]] = True

    def __dealloc__(self):
        free(self.weights)
        free(self.blocks)
        free(self.biases)
        free(self.seen)
        free(self.fan)

    def in_place(
        self, const int64_t[::1] weights, const int32_t[::1] stride, const int64_t[::1] bias, int64_t used,
        int64_t[:, ::1] where,
    ):
        """Find whether every group is contiguous, and no other parameter is stored in the padding of one.

        Parameters
        ----------
        weights, stride, bias, used
            As in `mlgraph.graph.storage.Storage`.
        where : int64, shape (groups, 2), filled if every group is contiguous
            Where the weights and the biases of each group start; -1 where there are none.

        Returns
        -------
        int
            The end of the last dense block, padding included, or 0 if there is none; -1 if parameters must move.
        """
        cdef int64_t i, j, k, here, at, end = 0
        cdef const Block* block
        cdef const Weights* w
        cdef uint8_t* taken
        cdef bint good = True
        self.check(weights, stride, bias, where)
        for i in range(self.n_blocks):
            block = &self.blocks[i]
            if block.n == 0:
                where[i, 0] = where[i, 1] = -1
                continue
            here, at = weights[self.weights[block.begin].record], -1
            good = here % self.panel == 0
            for j in range(block.begin, block.end):
                w = &self.weights[j]
                if weights[w.record] != here + w.at or (block.has_strides and stride[w.record] != block.step):
                    good = False
                    break
            for j in range(block.n if block.width else 0):
                k = self.biases[block.biases + j]
                k = weights[k] if block.is_fused else bias[k]
                at = k if j == 0 else at
                if k != at + j or at % self.panel:
                    good = False
                    break
            if not good:
                return -1
            where[i, 0], where[i, 1] = here, at
            if block.step == self.panel:
                end = max(end, here + block.size, at + block.width)
        taken = <uint8_t*>calloc(used + 1, 1)
        if taken == NULL:
            raise MemoryError(f"layout: {used} parameters")
        for i in range(self.n_blocks):
            for j in range(min(where[i, 0], used), min(where[i, 0] + self.blocks[i].size, used)):
                taken[j] = True
            for j in range(min(where[i, 1], used), min(where[i, 1] + self.blocks[i].width, used)):
                taken[j] = True    # none without biases
        # Updates write whole panels. A missing bias is at -1. A neuron without sources has no weights; their place may be
        # the end of the vector.
        for i in range(self.n_records):
            if not self.seen[i]:
                good = good and not (0 <= weights[i] < used and taken[weights[i]])
                good = good and not (0 <= bias[i] < used and taken[bias[i]])
        free(taken)
        return end if good else -1

    def length(
        self, const int16_t[::1] code, const int32_t[::1] count, const int64_t[::1] data, const int64_t[::1] bias
    ):
        """Length of the vector after a move; code, count and data are columns of the graph's nodes."""
        cdef int64_t i, n = 0
        if not code.shape[0] == count.shape[0] == data.shape[0] or bias.shape[0] != self.n_records:
            raise ValueError(f"code, count, data, bias: expected one length and {self.n_records} records, got others")
        free(self.fan)
        self.fan = <int32_t*>calloc(self.n_records + 1, sizeof(int32_t))
        if self.fan == NULL:
            raise MemoryError(f"layout: {self.n_records} records")
        for i in range(code.shape[0]):
            if code[i] >= PARAMETER_CODE:
                if not 0 <= data[i] < self.n_records:
                    raise ValueError(f"data: expected records below {self.n_records}, got {data[i]}")
                self.fan[data[i]] = count[i] if code[i] >= NEURON_CODE else 1
        for i in range(self.n_blocks):
            n += self.blocks[i].size + self.blocks[i].width
        for i in range(self.n_records):
            if not self.seen[i]:
                n += self.fan[i] + (bias[i] >= 0)
        self.total = padded(n, self.panel)
        return self.total

    cdef int check(
        self, const int64_t[::1] weights, const int32_t[::1] stride, const int64_t[::1] bias, int64_t[:, ::1] where
    ) except -1:
        if not self.n_records == weights.shape[0] == stride.shape[0] == bias.shape[0]:
            raise ValueError(f"weights, stride, bias: expected {self.n_records} records, got others")
        if where.shape[0] != self.n_blocks or where.shape[1] != 2:
            raise ValueError(f"where: expected shape ({self.n_blocks}, 2), got ({where.shape[0]}, {where.shape[1]})")
        return 0


def move_groups(
    Layout layout, const int64_t[::1] weights, const int32_t[::1] stride, const int64_t[::1] bias,
    int64_t[::1] new_weights, int32_t[::1] new_stride, int64_t[::1] new_bias, ints[::1] origin, int64_t[:, ::1] where,
):
    """Store the groups one after the other, and behind them all other parameters.

    Parameters
    ----------
    weights, stride, bias
        As in `mlgraph.graph.storage.Storage`.
    new_weights, new_stride, new_bias : int64, int32 and int64, shape (records,)
        Given as copies of these columns, changed to the new ones.
    origin : int32 or int64, shape (`Layout.length`,), filled
        The present place of each parameter; -1 for padding. `length` must have been called.
    where : int64, shape (groups, 2), filled
        As by `Layout.in_place`.
    """
    cdef int64_t i, j, k, n, top = 0, records = layout.n_records
    cdef const Block* block
    cdef const Weights* w
    layout.check(weights, stride, bias, where)
    if not records == new_weights.shape[0] == new_stride.shape[0] == new_bias.shape[0]:
        raise ValueError(f"new_weights, new_stride, new_bias: expected {records} records, got others")
    if layout.fan == NULL or origin.shape[0] != layout.total:
        raise ValueError(f"origin: expected {layout.total} parameters, got {origin.shape[0]}")
    with nogil:
        for i in range(origin.shape[0]):
            origin[i] = -1
        for i in range(layout.n_blocks):
            block = &layout.blocks[i]
            where[i, 0], where[i, 1] = top if block.n else -1, top + block.size if block.width else -1
            for j in range(block.begin, block.end):
                w = &layout.weights[j]
                k = 1 if block.is_fused else stride[w.record]
                for n in range(w.count):
                    origin[top + w.at + n * block.step] = <ints>(weights[w.record] + n * k)
                new_weights[w.record] = top + w.at
                if not block.is_fused:
                    new_stride[w.record] = <int32_t>block.step
            top = top + block.size
            for j in range(block.n if block.width else 0):
                k = layout.biases[block.biases + j]
                if block.is_fused:
                    origin[top + j], new_weights[k] = <ints>weights[k], top + j
                else:
                    origin[top + j], new_bias[k] = <ints>bias[k], top + j
            top = top + block.width
        for i in range(records):
            if not layout.seen[i]:
                for n in range(layout.fan[i]):
                    origin[top + n] = <ints>(weights[i] + n * stride[i])
                new_weights[i], new_stride[i] = top, 1
                top = top + layout.fan[i]
        for i in range(records):
            if not layout.seen[i] and bias[i] >= 0:
                origin[top], new_bias[i] = <ints>bias[i], top
                top = top + 1


cdef int64_t padded(int64_t n, int64_t panel) noexcept nogil:
    return (n + panel - 1) // panel * panel
