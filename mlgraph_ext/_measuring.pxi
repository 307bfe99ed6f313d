# Measurements for bench/: the peak rate of multiply-adds, the cost of moving data between two
# cores, and the time of one kernel on made-up data.

cdef extern from *:
    """
    /* Adds 1 to each line, alternating with another thread. `own` (0 or 1) is the parity of this thread's turns; *turn is the
       number of the next turn. */
    static void hand_over_lines(int64_t own, float *line, int64_t lines, int64_t turns, int64_t *turn) {
        for (int64_t t = own; t < turns; t += 2) {
            for (unsigned times = 1; __atomic_load_n(turn, __ATOMIC_ACQUIRE) < t; times++) wait_a_little(times);
            for (int64_t i = 0; i < lines; i++) ((vec *)(line + 16 * i))[0] += splat(1);
            __atomic_store_n(turn, t + 1, __ATOMIC_RELEASE);
        }
    }
    """
    void hand_over_lines(int64_t, float*, int64_t, int64_t, int64_t*) noexcept nogil


def hand_over(int64_t lines, int64_t turns):
    """Let two threads alternate in adding 1 to the same cache lines, for `turns` turns in all; return the seconds.

    The result is NaN if OpenMP gives only one thread. If both threads share one processor, it measures context switches.
    """
    cdef float* line
    cdef int64_t i
    cdef bint both = True, lost = False
    cdef double begin, seconds
    if not (1 <= lines <= 2**20 and 1 <= turns <= 2**24):
        raise ValueError(f"lines, turns: expected 1 or more, at most 2**20 and 2**24, got {lines}, {turns}")
    line = <float*>zeros(16 * (lines + 1), sizeof(float))    # the last line holds the number of turns
    if line == NULL:
        raise MemoryError(f"lines: no memory for {lines} of them")
    begin = perf_counter()
    for i in prange(2, nogil=True, num_threads=max(2, team), schedule="static", chunksize=1):
        if omp_get_num_threads() >= 2:
            hand_over_lines(i, line, lines, turns, <int64_t*>(line + 16 * lines))
        else:
            both &= False
    seconds = perf_counter() - begin
    for i in range(lines):
        lost = lost or line[16 * i] != turns
    free(line)
    if both and lost:
        raise ArithmeticError("unreachable: a thread read a line before the other had written it")
    return seconds if both else float("nan")


def fma_flops(int64_t repeats):
    """Compute 12 independent sums of vectors in registers; return the number of floating-point operations.

    Their rate is the peak against which kernels are measured. Without FMA it is the rate of separate multiply and add.
    """
    cdef vec acc[12]
    cdef vec a = splat(<float>0.5)
    cdef vec b = splat(<float>1.0)
    cdef int64_t k
    cdef int i
    cdef float total = 0
    with nogil:
        for i in range(12):
            acc[i] = splat(<float>i)
        for k in range(repeats):
            for i in range(12):
                acc[i] = acc[i] * a + b
        for i in range(12):
            total = total + (<float*>&acc[i])[0]
    if total != total:
        raise ArithmeticError("unreachable: keeps the sums alive")
    return repeats * 12 * 2 * VEC_WIDTH


def time_kernel(str kernel, int64_t fan_in, int64_t count, int64_t tiles, int64_t repeats, double density=1.0):
    """Make data, run one kernel on them `repeats` times on one thread, and measure the runs.

    Parameters
    ----------
    kernel : str
        dense_forward, few_forward, dense_adjoint, dense_gradient, runs_forward, runs_gradient, rows_forward, rows_adjoint,
        rows_gradient, byte_rows_forward or byte_rows_gradient, or one of the last five with "quads" for "rows". All process
        `tiles` tiles of examples (those of runs share one list), except few_forward, which processes 8 examples. Gradients
        are stored.
    fan_in, count : int
        Sources of a neuron; number of neurons, a multiple of four for quads.
    density : float
        Fraction of nonzeros in the data, which come in groups of six columns, so that runs are as full as MNIST's; or
        fraction of edges that the rows have.

    Returns
    -------
    int
        Number of useful floating-point operations.
    float
        Seconds that they took.
    """
    names = ("dense_forward", "few_forward", "dense_adjoint", "dense_gradient", "runs_forward", "runs_gradient",
             "rows_forward", "rows_adjoint", "rows_gradient", "byte_rows_forward", "byte_rows_gradient")
    cdef bint of_quads = "quads" in kernel
    cdef str given = kernel
    kernel = kernel.replace("quads", "rows")
    if kernel not in names:
        raise ValueError(f"kernel: expected one of {', '.join(names)}, or quads for rows, got {given!r}")
    if min(fan_in, count, tiles, repeats) < 1 or tiles > GROUP_TILES or fan_in > 2**20 or count > 2**20:
        raise ValueError(f"fan_in, count, tiles, repeats: expected 1 or more, up to 2**20 of the first two and {GROUP_TILES} "
                         f"tiles, got {fan_in}, {count}, {tiles}, {repeats}")
    if of_quads and count % QUAD:
        raise ValueError(f"count: expected a multiple of {QUAD} neurons, got {count}")
    if not 0 < density <= 1:
        raise ValueError(f"density: expected more than 0 and at most 1, got {density}")
    cdef int64_t which = names.index(kernel), panels = panels_of(count), i, j
    cdef int64_t slots = fan_in + panels * PANEL, n = tiles * LANES, stride = slots * LANES
    cdef bint of_rows = "rows" in kernel
    cdef int64_t taken = 8 if kernel == "few_forward" else n
    cdef float* memory = <float*>zeros(tiles * stride, sizeof(float))
    cdef float* weights = <float*>zeros(2 * fan_in * panels * PANEL, sizeof(float))
    cdef int32_t* source = <int32_t*>zeros(fan_in * count, sizeof(int32_t))
    cdef int32_t* row = <int32_t*>zeros(count + 1, sizeof(int32_t))
    cdef int32_t* next = <int32_t*>zeros(count, sizeof(int32_t))
    cdef int32_t* alike = <int32_t*>zeros(count, sizeof(int32_t))
    cdef int32_t* back = <int32_t*>zeros(2 * fan_in + 1 + 2 * fan_in * count, sizeof(int32_t))
    cdef uint8_t* byte = <uint8_t*>zeros(fan_in * n, sizeof(uint8_t))
    cdef int64_t* example = <int64_t*>zeros(n, sizeof(int64_t))
    cdef float* entries = <float*>zeros(entry_floats(fan_in, GROUP), sizeof(float))
    cdef float* delta = memory + fan_in * LANES
    cdef float* gradient = weights + fan_in * panels * PANEL
    cdef int64_t edges = 0, nonzeros = 0, k = 0
    cdef double begin, seconds
    cdef TileGroup group
    try:
        if (memory == NULL or weights == NULL or source == NULL or row == NULL or next == NULL or alike == NULL
                or back == NULL or byte == NULL or example == NULL or entries == NULL):
            raise MemoryError("time_kernel: sizes")
        with nogil:
            for i in range(tiles * stride):
                memory[i] = <float>0.5
            for i in range(count):
                row[i] = <int32_t>edges
                alike[i] = <int32_t>(QUAD - i % QUAD if of_quads else 1)
                for j in range(fan_in):
                    if not of_rows or uniform(draw(i // QUAD if of_quads else i, j)) < density:
                        source[edges if of_rows else j] = <int32_t>j
                        edges = edges + 1
            row[count] = <int32_t>edges
            if of_rows:
                memcpy(next, row, count * sizeof(int32_t))
                for i in range(fan_in):
                    back[i], back[fan_in + i] = <int32_t>i, <int32_t>k
                    for j in range(0 if alike[0] >= QUAD_FROM else count):    # the adjoint of quads reads their rows instead
                        if next[j] < row[j + 1] and source[next[j]] == i:
                            back[2 * fan_in + 1 + 2 * k], back[2 * fan_in + 2 + 2 * k] = next[j], <int32_t>j
                            next[j] += 1
                            k = k + 1
                back[2 * fan_in] = <int32_t>k
            for i in range(n):
                example[i] = i
                for j in range(fan_in):
                    byte[i * fan_in + j] = uniform(draw(i, (i + j) // 6)) < density
                    if i < taken:
                        nonzeros = nonzeros + byte[i * fan_in + j]
            group.e, group.delta = entries_at(entries, fan_in, GROUP), delta
            find_entries(byte, NULL, fan_in, fan_in, 0, runs_of(fan_in), example, n, &group.e)
        begin = perf_counter()
        with nogil:
            for i in range(repeats):
                if which == 0:
                    dense_forward(weights, NULL, fan_in, count, source, memory, stride, tiles, delta)
                elif which == 1:
                    few_forward(weights, NULL, fan_in, count, source, memory, taken, delta)
                elif which == 2:
                    dense_adjoint(weights, fan_in, count, source, delta, LANES, stride, tiles, 0, memory)
                elif which == 3:
                    dense_gradient(source, fan_in, panels, memory, delta, stride, n, gradient, NULL)
                elif which == 4:
                    runs_forward(&group.e, fan_in, 0, runs_of(fan_in), n, weights, panels, NULL, delta, n * PANEL)
                elif which == 5:
                    runs_gradient(&group, 1, 0, fan_in, panels, 1, n * PANEL, gradient, NULL, NULL)
                elif which == 6 or which == 9:
                    j = 0
                    while j < tiles:
                        rows_forward(which == 9, False, 1, weights, NULL, row, alike, count, source, memory + j * stride,
                                     stride, smaller(PACK, tiles - j), delta + j * stride)
                        j = j + PACK
                elif which == 7:
                    j = 0
                    while j < tiles:
                        rows_adjoint(False, weights, row, alike, count, source, back, fan_in, delta + j * stride, stride,
                                     smaller(PACK, tiles - j), 0, memory + j * stride)
                        j = j + PACK
                else:
                    rows_gradient(which == 10, False, 1, row, alike, count, source, memory, delta, stride, tiles, gradient)
        seconds = perf_counter() - begin
    finally:
        for pointer in (<size_t>memory, <size_t>weights, <size_t>source, <size_t>row, <size_t>next, <size_t>alike, <size_t>back,
                        <size_t>byte, <size_t>example, <size_t>entries):
            free(<void*><size_t>pointer)
    return (2 * count * nonzeros if "runs" in kernel else 2 * taken * edges) * repeats, seconds
