# Losses of examples, computed from labels or targets, and the adjoints of the nodes that they read.

# Numbered as in mlgraph/engine/losses.py.
cdef enum:
    LOSS_NONE = 0        # forward only
    LOSS_CROSS_ENTROPY = 1
    LOSS_SQUARED = 2
    LOSS_NODE = 3        # the value of a node
    LOSS_COTANGENT = 4   # adjoints of the outputs are given
    LOSS_BINARY = 5      # cross-entropy of each output separately
    LOSS_MEAN = 6        # LOSS_SQUARED / outputs


cdef extern from *:
    """
    /* Where z is higher than the best so far, or is the first NaN, keeps z and its number. From a loop over floats GCC would
       make masked stores behind an unpredictable branch. */
    static inline void keep_highest(int32_t number, const float *z, float *best, int32_t *arg) {
        for (int c = 0; c < SLOT_VECS; c++) {
            vec x = ((const vec *)z)[c], b = ((vec *)best)[c];
            ivec higher = (x > b) | ((x != x) & (b == b));
            ((vec *)best)[c] = (vec)(((ivec)x & higher) | ((ivec)b & ~higher));
            ((ivec *)arg)[c] = (number & higher) | (((ivec *)arg)[c] & ~higher);
        }
    }
    """
    void keep_highest(int32_t, const float*, float*, int32_t*) noexcept nogil


cdef void fetch_answers(const Request* r, int64_t step, int64_t tile) noexcept nogil:
    """Prefetch weights, and labels or the first targets, of a tile that is swept soon. If shuffled, each is a cache miss."""
    cdef const char* answers = <const char*>r.loss.label if r.loss.label != NULL else <const char*>r.loss.target
    cdef int64_t size = sizeof(int32_t) if r.loss.label != NULL else r.loss.n_outputs * sizeof(float), i
    cdef int64_t first = r.steps.first[step] + tile * LANES
    cdef int64_t last = smaller(first + LANES, r.steps.first[step] + r.steps.size[step])
    if answers != NULL:
        for i in range(first, last):
            prefetch_later(answers + (r.steps.order[i] if r.steps.order != NULL else i) * size)
    if r.loss.weight != NULL:
        for i in range(first, last):
            prefetch_later(<const char*>(r.loss.weight + (r.steps.order[i] if r.steps.order != NULL else i)))


cdef void seed_classes(
    const Request* r, const int64_t* row, const float* share, const float* values, float* adjoints, const int32_t* highest,
    float* loss, bint* right,
) noexcept nogil:
    """Compute losses from class targets, the sum of target * (logsumexp(z) - z), and their adjoints."""
    cdef int64_t lane, j, at
    cdef int32_t wanted
    cdef float total, target, most, weight
    for lane in range(LANES):
        total = values[r.loss.slot[0] * <int64_t>LANES + lane]
        loss[lane], most, weight, wanted = 0, -1, 0, 0
        for j in range(r.loss.n_outputs):
            at = r.loss.slot[j + 1] * <int64_t>LANES + lane
            target = r.loss.target[row[lane] * r.loss.n_outputs + j]
            weight = weight + target
            if target > 0:    # with target 0, z may be -inf
                loss[lane] = loss[lane] + target * (total - values[at])
            if target > most:
                most, wanted = target, <int32_t>j
            if r.choice.backward:
                adjoints[at] -= target * share[lane]
        right[lane] = highest[lane] == wanted
        if r.choice.backward:
            adjoints[r.loss.slot[0] * <int64_t>LANES + lane] += weight * share[lane]


cdef bint seed_adjoints(const Request* r, int64_t step, const Tile* tile) noexcept nogil:
    """Zero the adjoints of a tile, then compute the loss of each example, times its weight, and the adjoints it seeds.

    False if a loss is not finite, whatever its weight.
    """
    cdef const float* values = values_of(r, tile)
    cdef float* adjoints = adjoints_of(r, tile)
    cdef const int64_t* row = &tile.row[0]
    cdef int64_t n = tile.n, first = r.steps.first[step] + tile.number * LANES, first_zeroed = r.choice.first_zeroed
    cdef float share[LANES]
    cdef float loss[LANES]
    cdef float best[LANES]
    cdef int32_t arg[LANES]
    cdef bint right[LANES]
    cdef const float* z
    cdef int64_t lane, j
    cdef float error, target, one_share = <float>1 / <float>r.steps.size[step]
    cdef bint finite = True, number, squared = r.loss.kind == LOSS_SQUARED or r.loss.kind == LOSS_MEAN
    if r.choice.backward:
        memset(adjoints + first_zeroed * LANES, 0, (r.tables.n_slots - first_zeroed) * LANES * sizeof(float))
    if r.loss.kind == LOSS_NONE:
        return True
    if r.loss.kind == LOSS_MEAN:
        one_share = one_share / <float>r.loss.n_outputs
    for lane in range(LANES):
        share[lane] = one_share if lane < n else <float>0
        loss[lane] = 0
        best[lane] = -<float>INFINITY
        arg[lane] = 0
        right[lane] = True
    if r.loss.weight != NULL:
        for lane in range(n):
            share[lane] = one_share * r.loss.weight[row[lane]]
    for j in range(r.loss.n_outputs):
        z = values + r.loss.slot[j + 1] * <int64_t>LANES
        if r.loss.kind == LOSS_CROSS_ENTROPY or squared:
            keep_highest(<int32_t>j, z, best, arg)
        if squared:
            for lane in range(LANES):
                error = z[lane] - r.loss.target[row[lane] * r.loss.n_outputs + j]
                loss[lane] = loss[lane] + error * error
                if r.choice.backward:
                    adjoints[r.loss.slot[j + 1] * <int64_t>LANES + lane] += 2 * error * share[lane]
        elif r.loss.kind == LOSS_COTANGENT:
            for lane in range(n):
                adjoints[r.loss.slot[j + 1] * <int64_t>LANES + lane] += r.loss.target[row[lane] * r.loss.n_outputs + j]
    if r.loss.kind == LOSS_CROSS_ENTROPY and r.loss.label == NULL:
        seed_classes(r, row, share, values, adjoints, arg, loss, right)
    elif r.loss.kind == LOSS_CROSS_ENTROPY or r.loss.kind == LOSS_BINARY or r.loss.kind == LOSS_NODE:
        for lane in range(LANES):
            loss[lane] = values[r.loss.slot[0] * <int64_t>LANES + lane]
            if r.choice.backward:
                adjoints[r.loss.slot[0] * <int64_t>LANES + lane] += share[lane]
    if r.loss.kind == LOSS_CROSS_ENTROPY and r.loss.label != NULL:
        # logsumexp(z) - z[label]
        for lane in range(n):
            j = r.loss.slot[r.loss.label[row[lane]] + 1] * <int64_t>LANES + lane
            loss[lane] = loss[lane] - values[j]
            if r.choice.backward:
                adjoints[j] -= share[lane]
    if r.loss.kind == LOSS_BINARY:
        # The sum of softplus(z) - target * z.
        for j in range(r.loss.n_outputs):
            z = values + r.loss.slot[j + 1] * <int64_t>LANES
            for lane in range(LANES):
                target = r.loss.target[row[lane] * r.loss.n_outputs + j]
                loss[lane] = loss[lane] - target * z[lane]
                right[lane] = right[lane] & ((z[lane] > 0) == (target > <float>0.5))
                if r.choice.backward:
                    adjoints[r.loss.slot[j + 1] * <int64_t>LANES + lane] -= target * share[lane]
    if r.loss.kind == LOSS_MEAN:
        for lane in range(n):
            loss[lane] = loss[lane] / <float>r.loss.n_outputs
    if r.loss.weight != NULL:
        for lane in range(n):
            loss[lane] = loss[lane] * r.loss.weight[row[lane]]
    for lane in range(n):
        number = loss[lane] - loss[lane] == 0
        finite = finite and number
        if r.loss.losses != NULL:
            r.loss.losses[first + lane] = loss[lane]
        if r.loss.correct != NULL:  # an answer without a finite loss is not right
            r.loss.correct[first + lane] = number and (
                right[lane] if r.loss.label == NULL else arg[lane] == r.loss.label[row[lane]])
    return finite
