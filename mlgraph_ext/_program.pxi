# A program: the tables of a plan (mlgraph/compiler), which say what is computed.

include "_instruction.pxi"

cdef enum:
    WHOLE = 2            # weights of some panels and columns, and biases with the first column; then sums for the next step
    WHOLE_COLUMNS = 128  # columns of a WHOLE unit processed at a time; their gradient, if stored, stays in the L1 cache

cdef struct Unit:
    int64_t instruction
    int64_t part         # 0 for weights, 1 for biases, or WHOLE
    int64_t first        # dense: source (WHOLE: column); otherwise neuron or node
    int64_t last
    int64_t panel        # dense: first panel
    int64_t panels       # dense: number of panels

cdef struct Span:
    int64_t at           # the first parameter
    int64_t run          # number of contiguous parameters
    int64_t runs         # number of such runs
    int64_t stride       # parameters from one run to the next

cdef struct Tables:
    const Instruction* instructions
    int64_t n_instructions
    const int32_t* index
    const float* constants
    const uint64_t* edges         # dense blocks with holes: one bit for each weight, set where there is an edge
    const int32_t* input_column   # ascending
    int64_t n_inputs
    int64_t n_slots
    int64_t first_source          # slots that neurons read, apart from inputs
    int64_t last_source
    const Unit* units
    int64_t n_units
    # what is frozen (_frozen.pxi); NULL if nothing is
    const uint8_t* fixed          # of each unit: FREE, PARTLY or ENTIRELY
    const uint8_t* learns         # of each instruction: OWN and BEFORE


cdef inline const int32_t* sources_of(const Tables* t, const Instruction* ins) noexcept nogil:
    """Slots of arguments, or of the sources of a dense block; row pointers of rows."""
    return t.index + ins.args


cdef inline const int32_t* alike_of(const Tables* t, const Instruction* ins) noexcept nogil:
    return t.index + ins.args + ins.size + 1 + t.index[ins.args + ins.size]


cdef Span span_of(const Tables* t, const Unit* unit) noexcept nogil:
    """Where the parameters of a unit of weights or of biases are stored."""
    cdef const Instruction* ins = t.instructions + unit.instruction
    cdef const int32_t* row = sources_of(t, ins)
    cdef int64_t n = unit.last - unit.first
    cdef Span s
    s.runs, s.stride = 1, ins.arity * PANEL
    if ins.kind == DENSE and unit.part == 0:
        s.at = ins.weights + (unit.panel * ins.arity + unit.first) * PANEL
        s.run = n * PANEL
        s.runs = unit.panels
    elif ins.kind == DENSE:
        s.at = ins.bias + unit.panel * PANEL
        s.run = unit.panels * PANEL
    elif ins.kind == ROWS and unit.part == 0:
        s.at = ins.weights + row[unit.first]
        s.run = row[unit.last] - row[unit.first]
    else:
        s.at = (ins.bias if unit.part else ins.weights) + unit.first
        s.run = n
    return s


cdef int64_t gradient_floats(const Tables* t) noexcept nogil:
    """Number of floats of the largest gradient of a unit that is stored at once."""
    cdef Unit unit
    cdef Span s
    cdef int64_t most = PANEL, i
    for i in range(t.n_units):
        unit = t.units[i]
        if unit.part == WHOLE:
            unit.part, unit.last = 0, smaller(unit.first + WHOLE_COLUMNS, unit.last)
        s = span_of(t, &unit)
        most = max(most, s.run * s.runs, unit.panels * PANEL)
    return (most + PANEL - 1) // PANEL * PANEL


cdef inline bint within(int64_t first, int64_t n, int64_t most) noexcept nogil:
    return first >= 0 and n >= 0 and n <= most and first <= most - n


cdef bint is_sound(
    const Tables* t, const Instruction* ins, int64_t n_index, int64_t n_constants, int64_t n_extra,
) noexcept nogil:
    """Whether an instruction lies within the tables, the slots and the memory of a tile."""
    cdef int64_t panels = panels_of(ins.size)
    if not within(ins.dst, ins.size, t.n_slots):
        return False
    if ins.kind == CONSTANT:
        return within(ins.weights, ins.size, n_constants)
    if ins.kind == PARAMETER:
        return ins.weights >= 0
    if ins.drop and not within(ins.kept, groups_of(ins.size), n_extra):
        return False
    if ins.kind == OPERATION:
        return within(ins.args, ins.size * ins.arity, n_index)
    if ins.weights < 0 or ins.n_weights < 0 or (ins.bits and not within(ins.mask, ins.n_weights // 32, n_extra)):
        return False
    if ins.kind == DENSE:
        return (within(ins.args, ins.arity, n_index) and ins.n_weights == ins.arity * panels * PANEL
                and within(ins.transposed, ins.halves * panels * PANEL * LANES, n_extra))
    return ins.kind == ROWS and within(ins.args, ins.size + 1, n_index) and ins.n_weights >= sources_of(t, ins)[ins.size]


cdef int64_t parameters_of(const Instruction* ins) noexcept nogil:
    """Number of parameters that must exist for an instruction."""
    if ins.kind == PARAMETER:
        return ins.weights + ins.size
    if ins.kind != DENSE and ins.kind != ROWS:
        return 0
    return max(ins.weights + ins.n_weights, ins.bias + (panels_of(ins.size) * PANEL if ins.kind == DENSE else ins.size))


cdef bint unit_is_sound(const Tables* t, const Unit* unit) noexcept nogil:
    cdef const Instruction* ins
    if not 0 <= unit.instruction < t.n_instructions or not 0 <= unit.first <= unit.last:
        return False
    ins = t.instructions + unit.instruction
    if unit.part not in (0, 1, WHOLE) or (unit.part == 1 and ins.bias < 0):
        return False
    if ins.kind == DENSE:
        return unit.last <= ins.arity and within(unit.panel, unit.panels, panels_of(ins.size))
    return ins.kind in (ROWS, PARAMETER) and unit.part != WHOLE and unit.last <= ins.size


cdef int check_columns(const int32_t[::1] columns, int64_t n) except -1:
    cdef int64_t i
    if columns.shape[0] != n:
        raise ValueError(f"columns: expected {n} numbers, got {columns.shape[0]}")
    for i in range(n):
        if columns[i] <= (columns[i - 1] if i else -1):
            raise ValueError(f"columns: expected ascending numbers, got {columns[i]} in place {i}")


cdef class Program:
    """The tables of a plan, which are checked here once.

    Parameters
    ----------
    plan : mlgraph.compiler.plan.Plan
        Its arrays must not change from now on.
    edges : uint64, optional
        For a plan with holes: one bit for each weight of a block, set where there is an edge.

    Raises
    ------
    ValueError
        If an instruction does not lie within the tables. (What the tables contain is the compiler's.)
    """

    cdef Tables tables
    cdef const int64_t[:, ::1] instructions
    cdef const int32_t[::1] index
    cdef const float[::1] constants
    cdef const int32_t[::1] input_column
    cdef const uint64_t[::1] edges
    cdef int64_t n_extra, n_masked, list_floats, first_row, last_row
    cdef int64_t n_parameters    # that must exist
    cdef int64_t lowest_slot     # read by an instruction that does not read the data directly
    cdef bint dense_read_data, rows_read_data

    def __init__(self, plan, const uint64_t[::1] edges=None):
        cdef const Instruction* ins
        cdef const int32_t* source
        cdef int64_t i, j, n
        self.instructions, self.index, self.constants = plan.program, plan.index, plan.constants
        self.input_column, self.edges = plan.input_column, edges
        if self.instructions.shape[1] * sizeof(int64_t) != sizeof(Instruction):
            raise ValueError(f"program: expected rows of {sizeof(Instruction) // 8} numbers, got {self.instructions.shape[1]}")
        self.n_extra, self.n_masked, self.list_floats = plan.n_extra, plan.n_masked, plan.list_floats
        self.first_row, self.last_row = plan.row_parameters
        cdef Tables* t = &self.tables
        t.n_slots = plan.n_slots
        t.first_source, t.last_source = plan.read_slots
        t.n_instructions = self.instructions.shape[0]
        t.instructions = <const Instruction*>&self.instructions[0, 0] if t.n_instructions else NULL
        t.index = &self.index[0] if self.index.shape[0] else NULL
        t.constants = &self.constants[0] if self.constants.shape[0] else NULL
        t.edges = &self.edges[0] if edges is not None and edges.shape[0] else NULL
        t.n_inputs = self.input_column.shape[0]
        t.input_column = &self.input_column[0] if t.n_inputs else NULL
        check_columns(self.input_column, t.n_inputs)
        if not (within(t.n_inputs, 0, t.n_slots) and 0 <= t.first_source <= t.last_source <= t.n_slots and self.n_extra >= 0
                and self.n_masked >= 0):
            raise ValueError(f"plan: expected slots within {t.n_slots}, got others")
        self.lowest_slot = t.n_slots
        for i in range(t.n_instructions):
            ins = t.instructions + i
            if not is_sound(t, ins, self.index.shape[0], self.constants.shape[0], self.n_extra):
                raise ValueError(f"program: expected instructions within the tables, got {list(self.instructions[i])}")
            self.n_parameters = max(self.n_parameters, parameters_of(ins))
            if ins.kind == DENSE or ins.kind == ROWS:
                self.dense_read_data = self.dense_read_data or (ins.kind == DENSE and ins.reads_data)
                self.rows_read_data = self.rows_read_data or (ins.kind == ROWS and ins.reads_data)
            source, n = sources_of(t, ins), 0
            if ins.kind == OPERATION or (ins.kind == DENSE and not ins.reads_data):
                n = ins.arity * (ins.size if ins.kind == OPERATION else 1)
            elif ins.kind == ROWS and not ins.reads_data:
                source, n = source + ins.size + 1, source[ins.size]
            for j in range(n):
                self.lowest_slot = smaller(self.lowest_slot, source[j])
