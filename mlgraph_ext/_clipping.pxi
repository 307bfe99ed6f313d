# Gradient clipping and L1. The norm of a gradient is known only when all units are summed, so a clipped step
# is two calls: one adds up the gradient of all units (ACCUMULATE), the other scales it and updates.
# One thread does the latter, so that the bits do not depend on the number of threads.

cdef extern from *:
    """
    static double sum_of_squares(const float *x, int64_t n) {
        double sums[8] = {0};  /* eight independent sums hide the latency of additions */
        int64_t i = 0;
        for (; i + 8 <= n; i += 8)
            for (int j = 0; j < 8; j++) sums[j] += (double)x[i + j] * x[i + j];
        for (; i < n; i++) sums[0] += (double)x[i] * x[i];
        return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    }

    static void shrink_weights(const float *frozen, float by, int64_t n, float *w) {
        for (int64_t i = 0; i < n; i++) {
            float left = fabsf(w[i]) - by;
            if (frozen == NULL || frozen[i] == 0) w[i] = left > 0 ? copysignf(left, w[i]) : w[i] != w[i] ? w[i] : 0;
        }
    }
    """
    double sum_of_squares(const float*, int64_t) noexcept nogil
    void shrink_weights(const float*, float, int64_t, float*) noexcept nogil


def update_clipped(
    const int64_t[:, ::1] ranges, float[::1] gradient, double most, int optimizer, const float[::1] hyper,
    float[::1] parameters, float[::1] first, float[::1] second, const float[::1] frozen, float rate, float decay,
    float shrink,
):
    """Scale a gradient to a norm of at most `most`, in place, and update the parameters by it.

    Row i of `ranges` has the begin and the end of a range of parameters, and whether they decay. Those then move by `shrink`
    towards 0, where they stop. A gradient that is not
    finite is scaled by 0: it becomes NaN where it was not finite, and all else stays finite.
    """
    cdef int64_t i, k, at, n = gradient.shape[0]
    cdef double norm = 0
    cdef float factor = 1
    cdef unsigned int numbers
    cdef Optimizer o
    if ranges.shape[1] != 3:
        raise ValueError(f"ranges: expected 3 columns, got {ranges.shape[1]}")
    if optimizer not in (SGD, MOMENTUM, ADAM) or (optimizer != SGD and first is None) or (optimizer == ADAM and second is None):
        raise ValueError(f"optimizer: expected {SGD}, {MOMENTUM} or {ADAM}, and its moments, got {optimizer}")
    n = smaller(n, parameters.shape[0])
    if optimizer != SGD:
        n = smaller(n, first.shape[0])
    if optimizer == ADAM:
        n = smaller(n, second.shape[0])
    if frozen is not None:
        n = smaller(n, frozen.shape[0])
    for i in range(ranges.shape[0]):
        if not 0 <= ranges[i, 0] < ranges[i, 1] <= n:
            raise ValueError(f"ranges: expected numbers up to {n}, got {ranges[i, 0]} to {ranges[i, 1]}")
    if not ranges.shape[0]:
        return
    o.kind, o.momentum, o.beta2, o.epsilon = optimizer, hyper[0], hyper[1], hyper[2]
    o.parameters = &parameters[0]
    o.first = &first[0] if optimizer != SGD else NULL
    o.second = &second[0] if optimizer == ADAM else NULL
    o.frozen = &frozen[0] if frozen is not None else NULL
    with nogil:
        for i in range(ranges.shape[0]):
            norm = norm + sum_of_squares(&gradient[ranges[i, 0]], ranges[i, 1] - ranges[i, 0])
        norm = sqrt(norm)
        if not norm <= most:
            factor = <float>(most / norm) if norm < INFINITY else <float>0
        numbers = flush_subnormals(True)
        for i in range(ranges.shape[0]):
            at, n = ranges[i, 0], ranges[i, 1] - ranges[i, 0]
            for k in range(at, at + n):
                gradient[k] = gradient[k] * factor
            if decay > 0 and ranges[i, 2]:
                decay_weights(o.frozen + at if o.frozen != NULL else NULL, decay, n, o.parameters + at)
            update(&o, rate, at, n, &gradient[at], NULL, 0)
            if shrink > 0 and ranges[i, 2]:
                shrink_weights(o.frozen + at if o.frozen != NULL else NULL, shrink, n, o.parameters + at)
        restore_numbers(numbers)
