"""Whether the instructions of a plan stay within their arrays, for no kernel looks again."""

import itertools

import numpy as np

from mlgraph.compiler.instructions import KINDS, extra_floats
from mlgraph.graph import ops
from mlgraph.graph.storage import PANEL, padded


def assert_in_bounds(plan, n_parameters):
    """Instructions stay within their arrays, do not overlap, and read only slots that are already written.

    Of a plan without holes: one that has some reads a vector of its own.
    """
    column, n_inputs = plan.input_column, len(plan.input_column)
    assert_within(column, 0, plan.n_columns)
    assert (np.diff(column) > 0).all()
    assert_within(plan.slot, -1, plan.n_slots)
    assert_within(plan.node, 0, len(plan.slot))
    assert 0 <= plan.first_zeroed <= plan.n_slots and 0 <= plan.read_slots[0] <= plan.read_slots[1] <= plan.n_slots
    written, parameters, extra, masked = n_inputs, [], [], []
    for ins in plan.instructions:
        assert ins.kind in KINDS.values() and ins.dst == written and ins.size > 0
        written += ins.size
        if ins.kind == KINDS["constant"]:
            part(plan.constants, ins.weights, ins.size)
        elif ins.kind == KINDS["operation"]:
            assert 0 <= ins.op < len(ops.BY_CODE)
            assert ins.arity == ops.BY_CODE[ins.op].arity or (ops.BY_CODE[ins.op].arity < 0 < ins.arity)
            assert_within(part(plan.index, ins.args, ins.size * ins.arity), 0, ins.dst)
        elif ins.kind == KINDS["parameter"]:
            assert ins.n_weights == ins.size and ins.bias == -1
            parameters.append((ins.weights, ins.size))
        else:
            assert ops.is_in_place(ins.op)
            is_dense = ins.kind == KINDS["dense"]
            sources, width = (sources_of_block, padded(ins.size)) if is_dense else (sources_of_rows, ins.size)
            assert_within(sources(plan, ins), 0, n_inputs if ins.reads_data else ins.dst)
            parameters += [(ins.weights, ins.n_weights)] + [(ins.bias, width)] * (ins.bias != -1)
            extra += [(ins.transposed, extra_floats(width, ins.halves))] * is_dense
            # Masks have a bit for each weight, or neuron, in whole words of 64.
            extra += [(ins.mask, -(-ins.n_weights // 64) * 2)] * (ins.bits > 0)
            extra += [(ins.kept, -(-ins.size // 64) * 2)] * (ins.drop > 0)
            masked += [(ins.masked, padded(ins.n_weights))] * (ins.bits > 0)
    assert written == plan.n_slots
    assert all(at % PANEL == 0 for at, _ in parameters)
    assert_apart(parameters, n_parameters)
    assert_apart(extra, plan.n_extra)
    assert_apart(masked, plan.n_masked)


def sources_of_block(plan, ins):
    """Each source has a column of weights, the data's in their order, since kernels then read no table."""
    assert ins.arity > 0 and ins.n_weights == padded(ins.size) * ins.arity and ins.halves in (1, 2) and ins.holes == -1
    sources = part(plan.index, ins.args, ins.arity)
    assert not ins.reads_data or np.array_equal(sources, np.arange(len(plan.input_column)))
    return sources


def sources_of_rows(plan, ins):
    """Row pointers fit, neurons that are called alike are, and so do the edges by source."""
    assert_runs(part(plan.index, ins.args, ins.size + 1), ins.n_weights)
    part(plan.index, ins.args, 3 * ins.size + 1 + ins.n_weights)
    rows = plan.rows(ins)
    lists = [rows.source[first:end].tolist() for first, end in itertools.pairwise(rows.begin)]
    assert all(lists)
    assert_within(rows.alike, 1, ins.size + 1)
    for i in np.flatnonzero(rows.alike > 1):
        assert i + 1 < ins.size and rows.alike[i + 1] == rows.alike[i] - 1 and lists[i + 1] == lists[i]
    assert ((rows.whole == 1) | (rows.whole == rows.alike)).all() and (ins.n_back > 0) == ins.propagate
    if ins.n_back:
        slots = part(plan.index, ins.back, ins.n_back)
        begin = part(plan.index, ins.back + ins.n_back, ins.n_back + 1)
        assert_runs(begin, begin[-1])
        edges = part(plan.index, ins.back + 2 * ins.n_back + 1, 2 * begin[-1])
        assert np.isin(slots, rows.source).all()
        assert_within(edges[::2], 0, ins.n_weights)
        assert_within(edges[1::2], 0, ins.size)
    return rows.source


def part(array, first, n):
    assert 0 <= first and 0 <= n and first + n <= len(array)
    return array[first : first + n]


def assert_within(numbers, low, end):
    assert ((low <= numbers) & (numbers < end)).all()


def assert_runs(begin, n):
    """Runs that follow each other, up to number n."""
    assert begin[0] == 0 and (np.diff(begin) >= 0).all() and begin[-1] == n


def assert_apart(runs, n):
    """Runs of so many numbers do not overlap, and lie in an array of n."""
    for (first, size), (after, _) in itertools.pairwise([(0, 0), *sorted(runs), (n, 0)]):
        assert size >= 0 and first + size <= after
