# Work done once an epoch: the order of the examples, and the results of each step.

cdef extern from *:
    """
    /* AVX-512 multiplies vectors of 64-bit integers; with other instruction sets single draws are faster. */
    #define DRAWN_AT_ONCE (VEC_WIDTH == 16 ? 64 : 1)
    """
    enum: DRAWN_AT_ONCE


def shuffle(int64_t[::1] out, uint64_t seed, uint64_t epoch):
    """Fill `out` with a random permutation of 0 to len(out) - 1 that depends only on `seed` and `epoch`."""
    # Inside-out Fisher-Yates shuffle (Knuth, TAOCP vol. 2, 3.4.2, algorithm P); rounding cannot produce a place beyond i. It
    # takes a sixth of the time of numpy's shuffle, which redraws until a number is small enough and took 3 % of an epoch.
    cdef uint64_t key = draw(draw(seed, <uint64_t>-2), epoch)    # dropout never uses this key: no step has the number -2
    cdef int64_t place[DRAWN_AT_ONCE]
    cdef int64_t first = 0, i
    with nogil:
        while first < out.shape[0]:
            for i in range(DRAWN_AT_ONCE):
                place[i] = <int64_t>(uniform(draw(key, first + i)) * (first + i + 1))
            for i in range(smaller(DRAWN_AT_ONCE, out.shape[0] - first)):
                out[first + i] = out[place[i]]
                out[place[i]] = first + i
            first = first + DRAWN_AT_ONCE


cdef extern from *:
    """
    /* Sums the losses of n examples and counts right answers. Examples whose loss is NaN are left out and counted. */
    static void sum_step(const float *loss, const uint8_t *correct, int64_t n, double *sum, int64_t *right, int64_t *left_out)
    {
        double sums[8] = {0};  /* eight independent sums hide the latency of additions */
        int64_t i = 0, these = 0, others = 0;
        for (; i + 8 <= n; i += 8)
            for (int j = 0; j < 8; j++) sums[j] += loss[i + j] == loss[i + j] ? loss[i + j] : 0;
        for (; i < n; i++) sums[0] += loss[i] == loss[i] ? loss[i] : 0;
        for (i = 0; i < n; i++) others += loss[i] != loss[i];
        for (i = 0; correct && i < n; i++) these += correct[i] & (loss[i] == loss[i]);
        *sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
        *right = these, *left_out = others;
    }
    """
    void sum_step(const float*, const uint8_t*, int64_t, double*, int64_t*, int64_t*) noexcept nogil


def sum_steps(
    const int64_t[::1] first, const int64_t[::1] size, const float[::1] losses, const uint8_t[::1] correct,
    double[::1] loss, int64_t[::1] right, int64_t[::1] left_out,
):
    """For each step, sum the losses and count right answers and examples whose loss is NaN, which are left out.

    Step i has ``size[i]`` examples, from index ``first[i]`` of `losses` and `correct` on; `correct` may be None.
    """
    cdef int64_t steps = first.shape[0], places = losses.shape[0], i
    if not steps == size.shape[0] == loss.shape[0] == right.shape[0] == left_out.shape[0]:
        raise ValueError("first, size, loss, right, left_out: expected one length, got "
                         f"{steps}, {size.shape[0]}, {loss.shape[0]}, {right.shape[0]}, {left_out.shape[0]}")
    if correct is not None and correct.shape[0] != places:
        raise ValueError(f"correct: expected {places} bytes, got {correct.shape[0]}")
    for i in range(steps):
        if first[i] < 0 or not 0 < size[i] <= places - first[i]:
            raise ValueError(f"first, size: expected steps within {places} places, got {size[i]} from {first[i]} on")
    with nogil:
        for i in range(steps):
            sum_step(&losses[first[i]], &correct[first[i]] if correct is not None else NULL, size[i], &loss[i], &right[i],
                     &left_out[i])
