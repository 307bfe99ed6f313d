# The arguments of a sweep: the tables of a plan, the data, and memory. Pointers refer to arrays that
# the caller keeps alive.

include "_instruction.pxi"


cdef inline const int32_t* alike_of(const SweepArgs* r, const Instruction* ins) noexcept nogil:
    return r.index + ins.args + ins.size + 1 + r.index[ins.args + ins.size]


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

cdef struct SweepArgs:
    const Instruction* program
    int64_t n_instructions
    const int32_t* index
    const float* constants
    const uint64_t* edges  # dense blocks with holes: one bit for each weight, set where there is an edge
    const Unit* units
    int64_t n_units
    Optimizer optimizer
    # the data
    const uint8_t* bytes
    const float* floats
    int64_t columns
    const int32_t* input_column   # ascending
    int64_t n_inputs
    const int32_t* label
    const float* target
    const float* weight  # of each example, or NULL: all are 1
    const int64_t* order
    # the steps
    const int64_t* step_first
    const int64_t* step_size
    const float* step_rate
    const float* step_decay  # fraction of themselves that weights of edges lose, or NULL
    int64_t n_steps
    int64_t only_first   # the step of a call without arrays of steps
    int64_t only_size
    float only_rate
    int64_t step_number
    uint64_t seed
    bint training
    bint backward
    double limit         # a step whose gradients may exceed it is refused; 0: no limit
    double reach         # maximum of 1 and the largest value of the data
    double* bounds       # of each tile: upper bound of its contribution to a gradient
    int64_t first_source  # slots that neurons read, apart from inputs
    int64_t last_source
    # the loss
    int64_t loss
    const int32_t* loss_slot
    int64_t n_outputs
    # the results
    float* losses
    uint8_t* correct
    const int32_t* value_slot
    int64_t n_values
    float* value_out
    int64_t* highest
    const int32_t* adjoint_slot
    int64_t n_adjoints
    float* adjoint_out
    # memory
    float* tiles
    int64_t n_tiles
    int64_t tile_stride
    int64_t values_at    # floats from a tile's memory to the value of slot 0
    int64_t adjoints_at  # floats from a tile's memory to the adjoint of slot 0
    int64_t first_slot   # slots before it have no memory: none, or the inputs if nothing reads them from slots
    int64_t n_slots
    int64_t first_zeroed  # adjoints before it are not zeroed: they do not exist, or one block sets them
    int64_t bytes_at     # floats from a tile's memory to its byte slots, or -1 if no rows read them
    int64_t entries_at   # floats from a tile's memory to its entries, or -1 if no dense block reads them there (_entries.pxi)
    bint ahead           # sums of entries are made before tiles are swept (_ahead.pxi)
    float* sums          # with `ahead`: sums, then deltas, as [half][panel][example][neuron] from n_tiles * transposed on
    int64_t wide         # tiles swept side by side: 1, 2 or 4, at most PACK if there are rows
    int64_t at_once      # tiles of an item, a multiple of `wide`
    float* pack_sums     # gradients of rows of each pack (_packs.pxi), [pack][parameters from first_row on], or NULL
    int64_t pack_stride
    int64_t first_row
    float* scratch
    int64_t n_workers
    int64_t scratch_stride
    int64_t lists_at     # offset of the entries of two steps, by groups of tiles, in a worker's scratch
    int64_t list_floats
    # what is frozen (_frozen.pxi); NULL if nothing is
    const uint8_t* fixed   # of each unit: FREE, PARTLY or ENTIRELY
    const uint8_t* learns  # of each instruction: OWN and BEFORE
    # the queue
    int64_t* taken       # counters of the items taken from each worker's share, TAKEN_STRIDE apart
    Told* told           # the report of each worker
    Gate* gate

cdef enum:
    MASK_TILES = 4           # tiles that drop the same neurons; a smaller step trains one thinned network
    SIDE_TILES = MASK_TILES  # maximum number of tiles side by side

cdef enum:
    TAKEN_STRIDE = 16    # two cache lines (_queue.pxi)

cdef struct Worker:
    int64_t number
    float* scratch
    Told* told           # its report to the others
    int64_t listed[2][2]  # steps whose entries it has listed: by parity of the step, for each half of the columns
    int64_t asked[2]     # the last step whose rows it has prefetched, for each half of the columns

cdef struct Tile:
    int64_t number           # in its step
    int64_t place            # number of the tile memory it uses
    int64_t n                # examples
    int64_t row[LANES]
    Entries entries
    Fetch fetch
    double total             # sum of `size_of` its adjoints


cdef inline float* memory_of(const SweepArgs* r, const Tile* tile) noexcept nogil:
    return r.tiles + tile.place * r.tile_stride


cdef inline float data_unit(const SweepArgs* r) noexcept nogil:
    # The factor for sums over bytes, which are read as byte / 256 and mean byte / 255.
    return 256 * (<float>1 / <float>255) if r.bytes != NULL else <float>1


cdef int64_t examples_of(const SweepArgs* r, int64_t step, int64_t tile, int64_t* row) noexcept nogil:
    """Fill `row` with the examples of a tile and return their number. Lanes past the end repeat the last, with weight 0."""
    cdef int64_t first = r.step_first[step] + tile * LANES
    cdef int64_t n = smaller(LANES, r.step_size[step] - tile * LANES)
    cdef int64_t lane
    for lane in range(LANES):
        row[lane] = first + smaller(lane, n - 1)
        if r.order != NULL:
            row[lane] = r.order[row[lane]]
    return n


cdef inline int64_t examples_in(const SweepArgs* r, int64_t step) noexcept nogil:
    return r.step_size[step] if 0 <= step < r.n_steps else 0


cdef inline int64_t tiles_of(const SweepArgs* r, int64_t step) noexcept nogil:
    return (examples_in(r, step) + LANES - 1) // LANES
