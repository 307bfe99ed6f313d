# A request: one call of the kernels. Its parts point into arrays that classes of _sweep.pyx keep alive.

cdef extern from "schedule.h":
    ctypedef struct Share:
        pass
    ctypedef struct Report:
        pass
    ctypedef struct Schedule:
        int64_t workers
        int64_t stop
        Share* shares
        Report* reports
    ctypedef struct Turn:
        int64_t worker
    bint begin_phase(const Schedule*, Turn*, int64_t, int64_t) noexcept nogil
    int64_t next_item(const Schedule*, Turn*) noexcept nogil
    void stop_at(Schedule*, int64_t) noexcept nogil
    void leave(const Schedule*, const Turn*) noexcept nogil
    void wait_a_little(unsigned) noexcept nogil


cdef struct Data:
    const uint8_t* bytes         # of the data, or NULL: they are floats
    const float* floats
    int64_t columns
    double reach                 # maximum of 1 and the largest value

cdef struct Steps:               # step i takes the examples order[first[i]] to order[first[i] + size[i]]
    const int64_t* first
    const int64_t* size
    const float* rate
    const float* decay           # fraction of themselves that weights of edges lose, or NULL
    int64_t n
    const int64_t* order         # or NULL: as in the data
    int64_t only_first           # the step of a call without arrays of steps
    int64_t only_size
    float only_rate
    int64_t number               # of the first step; with `seed` it determines dropout
    uint64_t seed
    bint training
    double limit                 # a step whose gradients may exceed it is refused; 0: no limit

cdef struct Loss:
    int64_t kind
    const int32_t* slot          # of the node that the loss is computed from, then of the outputs
    int64_t n_outputs
    const int32_t* label
    const float* target
    const float* weight          # of each example, or NULL: all are 1
    float* losses                # the results, in the order of the steps; or NULL
    uint8_t* correct

cdef struct Results:
    const int32_t* value_slot
    int64_t n_values
    float* value_out
    int64_t* highest
    const int32_t* adjoint_slot
    int64_t n_adjoints
    float* adjoint_out

cdef struct Request:
    Tables tables
    Choice choice
    Memory memory
    Optimizer optimizer
    Data data
    Steps steps
    Loss loss
    Results results
    Schedule schedule
    double* bounds               # of each tile: upper bound of its contribution to a gradient

cdef enum:
    MASK_TILES = 4           # tiles that drop the same neurons; a smaller step trains one thinned network
    SIDE_TILES = MASK_TILES  # maximum number of tiles side by side

cdef struct Worker:
    int64_t number
    float* scratch
    Turn turn
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


cdef Worker new_worker(const Request* r, int64_t number) noexcept nogil:
    cdef Worker w
    memset(&w, 0, sizeof(Worker))
    w.number, w.turn.worker, w.scratch = number, number, r.memory.scratch + number * r.memory.scratch_stride
    w.asked[0] = w.asked[1] = w.listed[0][0] = w.listed[0][1] = w.listed[1][0] = w.listed[1][1] = -2
    return w


cdef inline float* memory_of(const Request* r, const Tile* tile) noexcept nogil:
    return r.memory.tiles + tile.place * r.memory.tile_stride


cdef inline float* values_of(const Request* r, const Tile* tile) noexcept nogil:
    return memory_of(r, tile) + r.memory.values_at


cdef inline float* adjoints_of(const Request* r, const Tile* tile) noexcept nogil:
    return memory_of(r, tile) + r.memory.adjoints_at


cdef inline float data_unit(const Data* data) noexcept nogil:
    # The factor for sums over bytes, which are read as byte / 256 and mean byte / 255.
    return 256 * (<float>1 / <float>255) if data.bytes != NULL else <float>1


cdef inline int64_t examples_in(const Steps* s, int64_t step) noexcept nogil:
    return s.size[step] if 0 <= step < s.n else 0


cdef inline int64_t tiles_of(const Steps* s, int64_t step) noexcept nogil:
    return (examples_in(s, step) + LANES - 1) // LANES


cdef inline int64_t examples_of_tile(const Steps* s, int64_t step, int64_t tile) noexcept nogil:
    return smaller(LANES, s.size[step] - tile * LANES)


cdef int64_t examples_of(const Steps* s, int64_t step, int64_t tile, int64_t* row) noexcept nogil:
    """Fill `row` with the examples of a tile and return their number. Lanes past the end repeat the last, with weight 0."""
    cdef int64_t first = s.first[step] + tile * LANES, n = examples_of_tile(s, step, tile), lane
    for lane in range(LANES):
        row[lane] = first + smaller(lane, n - 1)
        if s.order != NULL:
            row[lane] = s.order[row[lane]]
    return n
