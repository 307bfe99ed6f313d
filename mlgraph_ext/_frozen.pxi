# Frozen parameters. A unit that is frozen entirely needs no gradient, and a node that depends on no
# trainable parameter needs no adjoint. Both are determined at the beginning of a run, because
# parameters may be frozen and unfrozen between any two runs.

cdef enum:
    FREE = 0             # no parameter of the unit is frozen
    PARTLY = 1
    ENTIRELY = 2         # or the unit has no parameter: its columns are all holes

cdef enum:
    OWN = 1              # some parameter of the instruction is trainable
    BEFORE = 2           # some parameter on which its sources depend is trainable


cdef bint is_parameter(const Request* r, const Unit* unit, int64_t panel, int64_t lane, int64_t number) noexcept nogil:
    """Whether a place in a dense block is neither padding nor a hole; `number` is the index of the weight, or -1."""
    cdef const Instruction* ins = r.tables.instructions + unit.instruction
    if (unit.panel + panel) * PANEL + lane >= ins.size:
        return False
    return ins.holes < 0 or number < 0 or r.tables.edges[ins.holes + number // 64] >> (number % 64) & 1


cdef int how_frozen(const Request* r, const Unit* unit) noexcept nogil:
    """Return FREE, PARTLY or ENTIRELY for a unit of weights or of biases."""
    cdef const Instruction* ins = r.tables.instructions + unit.instruction
    cdef Span s = span_of(&r.tables, unit)
    cdef bint some_frozen = False
    cdef int64_t i, k, at
    for i in range(s.runs):
        some_frozen = some_frozen or magnitude(r.optimizer.frozen + s.at + i * s.stride, s.run, 1) > 0
    for i in range(s.runs):
        for k in range(s.run):
            at = s.at + i * s.stride + k
            # Holes and padding are not parameters, and are not marked frozen.
            if r.optimizer.frozen[at] == 0 and (
                    ins.kind != DENSE or (unit.part == 1 and is_parameter(r, unit, k // PANEL, k % PANEL, -1))
                    or (unit.part == 0 and is_parameter(r, unit, i, k % PANEL, at - ins.weights))):
                return PARTLY if some_frozen else FREE
    return ENTIRELY


cdef int unit_frozen(const Request* r, const Unit* unit) noexcept nogil:
    """Return FREE, PARTLY or ENTIRELY for any unit."""
    cdef const Instruction* ins = r.tables.instructions + unit.instruction
    cdef Unit part = unit[0]
    cdef int weights, biases
    if unit.part != WHOLE:
        return how_frozen(r, unit)
    part.part = 0
    weights = how_frozen(r, &part)
    if ins.bias < 0 or unit.first > 0:
        return weights
    part.part, part.first, part.last = 1, 0, 0
    biases = how_frozen(r, &part)
    return weights if weights == biases else PARTLY


cdef void find_frozen(Request* r, uint8_t* fixed, uint8_t* learns, uint8_t* slots) noexcept nogil:
    """Fill one byte for each unit and each instruction; `slots` is memory for one byte per slot. All must be zero before."""
    cdef const Instruction* ins
    cdef const int32_t* source
    cdef int64_t i, j, n
    for i in range(r.tables.n_units):
        fixed[i] = unit_frozen(r, r.tables.units + i)
        if fixed[i] != ENTIRELY:
            learns[r.tables.units[i].instruction] = OWN
    for i in range(r.tables.n_instructions):
        ins = r.tables.instructions + i
        source, n = sources_of(&r.tables, ins), 0
        if ins.kind == OPERATION:
            n = ins.size * ins.arity
        elif ins.kind == DENSE:
            n = ins.arity
        elif ins.kind == ROWS:
            source, n = source + ins.size + 1, source[ins.size]
        for j in range(n):
            if slots[source[j]]:
                learns[i] |= BEFORE
        memset(slots + ins.dst, learns[i], ins.size)
        # Single parameters of an instruction may be frozen; only the others want an adjoint.
        for j in range(ins.size if ins.kind == PARAMETER else 0):
            slots[ins.dst + j] = r.optimizer.frozen[ins.weights + j] == 0
    r.tables.fixed, r.tables.learns = fixed, learns


cdef inline int fixed_of(const Request* r, const Unit* unit) noexcept nogil:
    return r.tables.fixed[unit - r.tables.units] if r.tables.fixed != NULL else FREE


cdef inline bint learns_itself(const Request* r, const Instruction* ins) noexcept nogil:
    return r.tables.learns == NULL or r.tables.learns[ins - r.tables.instructions] & OWN


cdef inline bint wants_adjoint(const Request* r, const Instruction* ins) noexcept nogil:
    return r.tables.learns == NULL or r.tables.learns[ins - r.tables.instructions]


cdef inline bint propagates(const Request* r, const Instruction* ins) noexcept nogil:
    """Whether some source wants an adjoint."""
    return ins.propagate and (r.tables.learns == NULL or r.tables.learns[ins - r.tables.instructions] & BEFORE)
