# The seam to Python: a `Sweep` is a program with its parameters and memory, a `Batch` is data with answers, and a `Call` is
# a sweep over a batch. These classes own or hold all that kernels point at, and check it before the GIL is released.

cdef class Batch:
    """Data, with labels or targets. Kernels read the arrays in place, so they must not change during a call.

    Parameters
    ----------
    bytes, floats : uint8 or float32, shape (examples, columns)
        The data; one of the two is None.
    label : int32, shape (examples,), optional
    target : float32, shape (examples, outputs), optional
    weight : float32, shape (examples,), optional
        Factor of the loss of each example.
    reach : float
        Maximum of 1 and the largest absolute value of the data.
    """

    cdef Data data
    cdef readonly int64_t n
    cdef int64_t n_classes, n_targets
    cdef const uint8_t[:, ::1] bytes
    cdef const float[:, ::1] floats, target
    cdef const int32_t[::1] label
    cdef const float[::1] weight

    def __init__(
        self, const uint8_t[:, ::1] bytes, const float[:, ::1] floats, const int32_t[::1] label=None,
        const float[:, ::1] target=None, const float[::1] weight=None, double reach=1,
    ):
        cdef int64_t i
        if (bytes is None) == (floats is None):
            raise ValueError("bytes, floats: expected one of them")
        self.bytes, self.floats, self.label, self.target, self.weight = bytes, floats, label, target, weight
        # Data without columns have no first element to point at; they are never read.
        if bytes is not None:
            self.n, self.data.columns = bytes.shape[0], bytes.shape[1]
            self.data.bytes = &bytes[0, 0] if self.n and self.data.columns else NULL
        else:
            self.n, self.data.columns = floats.shape[0], floats.shape[1]
            self.data.floats = &floats[0, 0] if self.n and self.data.columns else NULL
        self.data.reach = reach
        for name, size in (("label", self.n if label is None else label.shape[0]),
                           ("target", self.n if target is None else target.shape[0]),
                           ("weight", self.n if weight is None else weight.shape[0])):
            if size != self.n:
                raise ValueError(f"{name}: expected {self.n} numbers, one for each example, got {size}")
        self.n_targets = -1 if target is None else target.shape[1]
        for i in range(0 if label is None else self.n):
            if label[i] < 0:
                raise ValueError(f"label: expected 0 or more, got {label[i]}")
            self.n_classes = max(self.n_classes, label[i] + 1)


cdef class Sweep:
    """A program, its parameters and memory, ready to run over any batch.

    Parameters
    ----------
    program : Program
    vectors : (float32, float32, float32, float32)
        Parameters, first and second moments, and frozen flags. All but the first may be None.
    buffers : Buffers
    units : int64, shape (units, 6), optional
        Pieces of the parameters that are updated (`mlgraph.compiler.units.units_of`); by default nothing is.
    optimizer : int
        What is done with gradients, as in `mlgraph.engine.engine.OPTIMIZERS`.
    hyper : (float, float, float)
        Momentum or beta1, beta2, epsilon.
    n_workers, n_tiles, wide, at_once : int
    sparse, ahead, as_bytes, in_packs : bool
        How steps are swept, as in `mlgraph.engine.choice.Choice`.
    columns : int32, optional
        Ascending columns of the data that are read, in place of the program's.
    backward : bool
        Whether adjoints are computed.
    first_zeroed : int
        Adjoints of slots before it are set by one block each, and need not be zeroed.
    loss : int
        A code of `mlgraph.engine.losses.LOSSES`.
    loss_slots, value_slots, adjoint_slots : int32, optional
        Slots that the loss reads, and of which values and adjoints are handed out.

    Examples
    --------
    Values of some nodes of a plan:

    >>> sweep = kernels.Sweep(kernels.Program(plan), (graph.storage.vector, None, None, None), kernels.Buffers(),
    ...                       value_slots=plan.slot[[node.id]])
    >>> values = np.empty((len(x), 1), np.float32)
    >>> kernels.Call(sweep, kernels.Batch(None, x), values=values).run()
    -1
    """

    cdef Request request
    cdef Program program
    cdef Buffers buffers
    cdef float[::1] parameters, first, second
    cdef const float[::1] frozen
    cdef const int64_t[:, ::1] units
    cdef const int32_t[::1] columns, loss_slots, value_slots, adjoint_slots

    def __init__(
        self, Program program not None, tuple vectors, Buffers buffers not None, *, const int64_t[:, ::1] units=None,
        int optimizer=SGD, tuple hyper=(0.0, 0.0, 0.0), int64_t n_workers=1, int64_t n_tiles=1, int64_t wide=1,
        int64_t at_once=1, bint sparse=False, bint ahead=False, bint as_bytes=False, bint in_packs=False,
        const int32_t[::1] columns=None, bint backward=False, int64_t first_zeroed=0, int loss=LOSS_NONE,
        const int32_t[::1] loss_slots=None, const int32_t[::1] value_slots=None, const int32_t[::1] adjoint_slots=None,
    ):
        cdef Request* r = &self.request
        cdef Tables* t = &r.tables
        cdef Optimizer* o = &r.optimizer
        cdef int64_t i, lowest
        self.program, self.buffers, self.units = program, buffers, units
        self.parameters, self.first, self.second, self.frozen = vectors
        self.columns, self.loss_slots, self.value_slots, self.adjoint_slots = columns, loss_slots, value_slots, adjoint_slots
        r.tables = program.tables
        if units is not None and units.shape[0]:
            if units.shape[1] * sizeof(int64_t) != sizeof(Unit):
                raise ValueError(f"units: expected rows of {sizeof(Unit) // 8} numbers, got {units.shape[1]}")
            t.units, t.n_units = <const Unit*>&units[0, 0], units.shape[0]
        for i in range(t.n_units):
            if not unit_is_sound(t, t.units + i):
                raise ValueError(f"units: expected parts of instructions, got {list(units[i])}")
        if columns is not None:
            check_columns(columns, t.n_inputs)
            t.input_column = &columns[0] if t.n_inputs else NULL
        self.check_vectors(optimizer)
        if n_workers < 1 or wide not in (1, 2, 4) or (program.last_row and wide > PACK) or at_once < 1 or at_once % wide:
            raise ValueError(f"n_workers, wide, at_once: expected 1 or more; 1, 2 or 4, at most {PACK} where there are rows; "
                             f"and a multiple of it; got {n_workers}, {wide} and {at_once}")
        if n_tiles < (n_workers if t.n_units else n_workers * at_once):
            raise ValueError(f"n_tiles: expected {n_workers if t.n_units else n_workers * at_once} or more, got {n_tiles}")
        if ((sparse and not program.dense_read_data) or (as_bytes and sparse != program.dense_read_data)
                or (ahead and not sparse) or (in_packs and not t.n_units)):
            raise ValueError("sparse, as_bytes, ahead, in_packs: expected what the program allows, got others")
        o.kind = optimizer
        o.momentum, o.beta2, o.epsilon = hyper
        o.parameters = &self.parameters[0] if self.parameters.shape[0] else NULL
        o.first = &self.first[0] if self.first is not None and self.first.shape[0] else NULL
        o.second = &self.second[0] if self.second is not None and self.second.shape[0] else NULL
        o.frozen = &self.frozen[0] if self.frozen is not None and self.frozen.shape[0] else NULL
        r.choice.n_workers, r.choice.wide, r.choice.at_once = n_workers, wide, at_once
        r.choice.ahead, r.choice.backward, r.choice.first_zeroed = ahead, backward, first_zeroed
        lay_out(&r.memory, t, &r.choice, program, n_tiles, as_bytes, sparse, in_packs)
        lowest = min(self.lowest(loss_slots), self.lowest(value_slots), self.lowest(adjoint_slots), program.lowest_slot)
        if lowest < r.memory.first_slot:
            raise ValueError(f"slots: expected {r.memory.first_slot} or more, as the inputs have none, got {lowest}")
        if not 0 <= first_zeroed <= t.n_slots or (loss != LOSS_NONE and (loss_slots is None or not loss_slots.shape[0])):
            raise ValueError(f"first_zeroed, loss_slots: expected slots within {t.n_slots}, got others")
        r.loss.kind = loss
        if loss != LOSS_NONE:
            r.loss.slot, r.loss.n_outputs = &loss_slots[0], loss_slots.shape[0] - 1
        if value_slots is not None and value_slots.shape[0]:
            r.results.value_slot, r.results.n_values = &value_slots[0], value_slots.shape[0]
        if adjoint_slots is not None and adjoint_slots.shape[0]:
            if not backward:
                raise ValueError("adjoint_slots: expected a backward sweep, got none")
            r.results.adjoint_slot, r.results.n_adjoints = &adjoint_slots[0], adjoint_slots.shape[0]
        reserve(buffers, &r.memory, n_workers, program.n_extra if ahead else 0)

    cdef int check_vectors(self, int optimizer) except -1:
        cdef int64_t n = self.program.n_parameters
        if optimizer not in (ACCUMULATE, SGD, MOMENTUM, ADAM):
            raise ValueError(f"optimizer: expected 0 to 3, got {optimizer}")
        if self.parameters is None or self.parameters.shape[0] < n:
            raise ValueError(f"vectors: expected {n} parameters, got fewer")
        if self.request.tables.n_units and (
                (optimizer in (MOMENTUM, ADAM) and (self.first is None or self.first.shape[0] < n))
                or (optimizer == ADAM and (self.second is None or self.second.shape[0] < n))):
            raise ValueError(f"vectors: expected {n} moments, got fewer")
        if self.frozen is not None and self.frozen.shape[0] < n:
            raise ValueError(f"vectors: expected {n} frozen flags, got {self.frozen.shape[0]}")

    cdef int64_t lowest(self, const int32_t[::1] slots) except -1:
        """The lowest of some slots, all of which must exist."""
        cdef int64_t i, lowest = self.request.tables.n_slots
        for i in range(0 if slots is None else slots.shape[0]):
            if not 0 <= slots[i] < self.request.tables.n_slots:
                raise ValueError(f"slots: expected numbers below {self.request.tables.n_slots}, got {slots[i]}")
            lowest = smaller(lowest, slots[i])
        return lowest


cdef class Call:
    """A sweep over a batch, checked and ready. `run` may be called once or many times.

    Parameters
    ----------
    sweep : Sweep
    batch : Batch
    steps : tuple, optional
        As `mlgraph.engine.steps.Steps`; by default one step of all examples, without an update.
    seed : int, optional
        In training: neurons and edges are dropped, and a value that is not finite stops the run.
    limit : float
        In training, a step whose gradients may exceed it stops the run; 0 for no limit.
    gradient : float32, optional
        Gradients are added to it if the optimizer is "accumulate".
    losses, correct : float32 and uint8, shape (examples,), optional
        Receive results, in the order of the steps.
    values, adjoints : float32, shape (examples, slots), optional
        Receive the numbers of the sweep's slots, in the order of the steps.
    highest : int64, shape (examples,), optional
        Receives the index in `value_slots` of each example's highest value, -1 where one is NaN.
    """

    cdef Request request
    cdef Sweep sweep
    cdef Batch batch
    cdef tuple kept      # arrays that the request points into

    def __init__(
        self, Sweep sweep not None, Batch batch not None, steps=None, *, seed=None, double limit=0, gradient=None, losses=None,
        correct=None, values=None, adjoints=None, highest=None,
    ):
        cdef Request* r = &self.request
        cdef int64_t n
        self.sweep, self.batch = sweep, batch
        self.kept = steps, gradient, losses, correct, values, adjoints, highest
        r[0] = sweep.request
        r.data = batch.data
        self.set_answers()
        n = self.set_steps(steps)
        r.steps.training, r.steps.seed = seed is not None, seed or 0
        r.steps.limit = limit if r.steps.training and r.tables.n_units else 0
        if r.optimizer.kind == ACCUMULATE and r.tables.n_units:
            self.set_gradient(gradient)
        if losses is not None:
            self.set_losses(losses, correct, n)
        if values is not None and r.results.n_values:
            r.results.value_out = place_for(values, n, r.results.n_values)
        if highest is not None and r.results.n_values:
            self.set_highest(highest)
        if adjoints is None:
            r.results.n_adjoints = 0
        elif r.results.n_adjoints:
            r.results.adjoint_out = place_for(adjoints, n, r.results.n_adjoints)

    cdef int set_answers(self) except -1:
        cdef Batch b = self.batch
        cdef Loss* loss = &self.request.loss
        cdef bint wanted = loss.kind in (LOSS_SQUARED, LOSS_MEAN, LOSS_BINARY, LOSS_COTANGENT)
        cdef const Tables* tables = &self.request.tables
        if tables.n_inputs and b.data.columns <= tables.input_column[tables.n_inputs - 1]:
            raise ValueError(f"batch: expected more than {b.data.columns} columns")
        if loss.kind == LOSS_CROSS_ENTROPY:
            wanted = b.label is None
        if wanted and b.n_targets != loss.n_outputs:
            raise ValueError(f"target: expected {loss.n_outputs} columns, one for each output, got {max(b.n_targets, 0)}")
        if loss.kind == LOSS_CROSS_ENTROPY and not wanted and b.n_classes > loss.n_outputs:
            raise ValueError(f"label: expected numbers below {loss.n_outputs}, got {b.n_classes - 1}")
        loss.label = &b.label[0] if b.label is not None and b.n else NULL
        loss.target = &b.target[0, 0] if b.n_targets > 0 and b.n else NULL
        loss.weight = &b.weight[0] if b.weight is not None and b.n else NULL

    cdef int64_t set_steps(self, steps) except -1:
        """Point at the steps; returns the number of examples in the order of the steps."""
        cdef Request* r = &self.request
        cdef Steps* s = &r.steps
        cdef const int64_t[::1] first, size, order
        cdef const float[::1] rate, decay
        cdef int64_t n = self.batch.n, most = 0, i
        if steps is None:
            s.first, s.size, s.rate, s.only_size, s.n = &s.only_first, &s.only_size, &s.only_rate, n, 1
            most = n
        else:
            first, size, rate, decay, _, order, s.number = steps
            s.n = first.shape[0]
            if size.shape[0] != s.n or rate.shape[0] != s.n or (decay is not None and decay.shape[0] != s.n):
                raise ValueError(f"steps: expected {s.n} numbers of each kind, got others")
            if order is not None:
                for i in range(order.shape[0]):
                    if not 0 <= order[i] < n:
                        raise ValueError(f"order: expected numbers below {n}, got {order[i]}")
                n = order.shape[0]
                s.order = &order[0] if n else NULL
            for i in range(s.n):
                if size[i] < 1 and s.n > 1:
                    raise ValueError(f"steps: expected at least one example in every step, got {size[i]}")
                if not within(first[i], size[i], n):
                    raise ValueError(f"steps: expected steps within {n} examples, got {size[i]} from {first[i]} on")
                most = max(most, size[i])
            if s.n:
                s.first, s.size, s.rate = &first[0], &size[0], &rate[0]
                s.decay = &decay[0] if decay is not None else NULL
        if r.tables.n_units and (most + LANES - 1) // LANES > r.memory.n_tiles:
            raise ValueError(f"steps: expected at most {r.memory.n_tiles} tiles, got {(most + LANES - 1) // LANES}")
        return n

    cdef int set_gradient(self, float[::1] gradient) except -1:
        cdef int64_t n = self.sweep.program.n_parameters
        if gradient is None or gradient.shape[0] < n:
            raise ValueError(f"gradient: expected a vector of {n} numbers, to which gradients are added, got another")
        self.request.optimizer.first = &gradient[0] if gradient.shape[0] else NULL

    cdef int set_losses(self, float[::1] losses, uint8_t[::1] correct, int64_t n) except -1:
        if losses.shape[0] < n or (correct is not None and correct.shape[0] < n):
            raise ValueError(f"losses, correct: expected {n} numbers, one for each example, got fewer")
        if n:
            self.request.loss.losses = &losses[0]
            self.request.loss.correct = &correct[0] if correct is not None else NULL

    cdef int set_highest(self, int64_t[::1] highest) except -1:
        if highest.shape[0] != self.batch.n:
            raise ValueError(f"highest: expected {self.batch.n} numbers, one for each example, got {highest.shape[0]}")
        self.request.results.highest = &highest[0] if highest.shape[0] else NULL

    def run(self):
        """Run all steps.

        Returns
        -------
        int
            -1 if all steps were taken. Otherwise the number (from 0) of the step that was refused and ended the run: a value
            was not finite, in training or in a plan with holes, or a gradient may exceed the limit. With `highest`, the first
            example that has no highest value.
        """
        self.begin()
        try:
            run_steps(&self.request)
        finally:
            self.end()
        return self.result()

    cdef int begin(self) except -1:
        """Take the memory, and make the schedule; `end` gives both back."""
        cdef Request* r = &self.request
        cdef Buffers b = self.sweep.buffers
        cdef int64_t workers = r.choice.n_workers, n_flags = 0
        cdef uint8_t* flags
        if b.busy == forks:
            raise RuntimeError("sweep: its buffers are in use by another call")
        if r.optimizer.frozen != NULL:
            n_flags = r.tables.n_units + r.tables.n_instructions + r.tables.n_slots
        r.schedule.shares = <Share*>zeros(workers * (sizeof(Share) + sizeof(Report)) + r.memory.n_tiles * sizeof(double)
                                          + n_flags, 1)
        if r.schedule.shares == NULL:
            raise MemoryError("sweep: no memory for its schedule")
        b.busy = forks
        r.memory.tiles, r.memory.sums, r.memory.scratch = b.tiles.floats, b.sums.floats, b.scratch.floats
        r.memory.pack_sums = b.packs.floats if r.memory.in_packs else NULL
        r.schedule.workers, r.schedule.stop = workers, 0
        r.schedule.reports = <Report*>(r.schedule.shares + workers)
        r.bounds = <double*>(r.schedule.reports + workers)
        flags = <uint8_t*>(r.bounds + r.memory.n_tiles)
        if n_flags:
            with nogil:
                find_frozen(r, flags, flags + r.tables.n_units, flags + r.tables.n_units + r.tables.n_instructions)

    cdef void end(self) noexcept:
        free(self.request.schedule.shares)
        self.sweep.buffers.busy = 0

    cdef int64_t result(self) noexcept:
        cdef Request* r = &self.request
        cdef int64_t i
        if r.results.highest != NULL and r.schedule.stop == 0:
            for i in range(self.batch.n):
                if r.results.highest[i] < 0:
                    return i
        return r.schedule.stop - 1


cdef float* place_for(float[:, ::1] out, int64_t n, int64_t columns) except? NULL:
    if out.shape[0] < n or out.shape[1] != columns:
        raise ValueError(f"values, adjoints: expected shape {(n, columns)}, got {(out.shape[0], out.shape[1])}")
    return &out[0, 0] if out.shape[0] else NULL


def run_each(list calls, int n_threads):
    """Run calls of different sweeps at the same time, by so many threads. Each must have one worker."""
    cdef int64_t n = len(calls), i, _worker, next = 0
    cdef Call call
    cdef list begun = []
    cdef Request** each = <Request**>zeros(n, sizeof(Request*))
    if each == NULL:
        raise MemoryError("calls: no memory")
    try:
        for i in range(n):
            call = <Call?>calls[i]
            if call.request.choice.n_workers != 1:
                raise ValueError(f"calls: expected calls of one worker, got {call.request.choice.n_workers}")
            call.begin()
            begun.append(call)
            each[i] = &call.request
        for _worker in prange(n_threads, nogil=True, num_threads=team, schedule="static", chunksize=1,
                              use_threads_if=n_threads > 1):
            i = next_of(&next)
            while i < n:
                work(each[i], 0)
                i = next_of(&next)
    finally:
        for call in begun:
            call.end()
        free(each)
