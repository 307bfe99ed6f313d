# An instruction of a plan, as kernels read it.

# Numbered as in mlgraph/compiler/instructions.py.
cdef enum:
    CONSTANT = 0
    PARAMETER = 1
    OPERATION = 2
    DENSE = 3
    ROWS = 4

cdef struct Instruction:
    int64_t kind
    int64_t op           # the operation, or the activation of neurons
    int64_t dst          # first slot written
    int64_t size         # number of nodes
    int64_t arity        # number of arguments of each node, or of sources of a dense block
    int64_t args         # in the index table: arguments, node by node; sources; or row pointers, sources, and `alike` twice
    int64_t weights      # in the parameters (for constants: in the constants)
    int64_t n_weights    # number of weights; of a dense block, including padding
    int64_t decays       # whether these are weights of edges, which may decay
    int64_t bias         # in the parameters, or -1
    int64_t reads_data   # whether neurons may read the data directly
    int64_t propagate    # whether some source wants an adjoint
    int64_t back         # rows: in the index table, the edges by source (rows_adjoint)
    int64_t n_back       # rows: number of sources that want an adjoint
    int64_t transposed   # dense: where a tile keeps its sums of entries and its transposed deltas
    int64_t halves       # dense: 2 if entries are summed separately for two halves of the columns, else 1
    int64_t stream       # number of the random stream
    int64_t drop         # a neuron, or an operation that is its activation, is dropped with probability drop / 2**32
    int64_t keep         # an edge is kept with probability keep / 2**bits
    int64_t bits         # 0 if all edges are kept
    int64_t mask         # where a tile keeps the mask of its edges
    int64_t kept         # where a tile keeps the bits of neurons that are not dropped (draw_kept)
    int64_t holes        # dense block with holes: where its bits begin in the edges of a program, else -1
    int64_t masked       # where a worker keeps masked weights
