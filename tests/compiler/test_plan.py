"""What a plan costs and leaves out; its instructions stay within their arrays, and its units cover all parameters."""

import pickle

import numpy as np
import pytest
from bounds import assert_in_bounds
from hypothesis import given
from planned import graphs, neurons, plan_of

import mlgraph
from mlgraph.compiler import plan as plans
from mlgraph.compiler.plan import ROW_WORK
from mlgraph.compiler.units import units_of
from mlgraph.graph.storage import PANEL
from mlgraph.models.running import engine_of


def test_work_counts_operations_and_rows_more_than_edges_of_blocks():
    g = mlgraph.Graph(seed=0)
    x, y = g.add_inputs(2)
    assert plan_of(mlgraph.tanh(x * y)).work == 3 * ROW_WORK
    assert plan_of(g.add_neuron([x, y])).work == 2 * ROW_WORK
    net = mlgraph.Network(6, seed=0)
    net.add_layer(20)
    assert plan_of(*net.outputs).work == 6 * 20


def test_nodes_that_no_output_needs_cost_nothing():
    made = []
    for dead in (False, True):
        g = mlgraph.Graph()
        x = g.add_inputs(6)
        alive = neurons(g, x[1:3], 3)
        if dead:
            neurons(g, [*x, *alive], 20)
            mlgraph.exp(x[0] * g.add_parameter(1.0) + 3)
        made.append(plan_of(mlgraph.sum(*alive)))
    lean, plan = made
    assert plan.input_column.tolist() == [1, 2]
    assert (plan.n_slots, plan.n_edges, plan.n_extra) == (lean.n_slots, lean.n_edges, lean.n_extra) == (6, 6, 0)
    np.testing.assert_array_equal(plan.program, lean.program)
    np.testing.assert_array_equal(plan.index, lean.index)


def test_a_constant_may_have_any_bits():
    """Also those that mean "an operation" where equal nodes are sought."""
    g = mlgraph.Graph()
    a, b = (g.add_constant(np.frombuffer(b"\xff" * 8)[0]) for _ in range(2))
    plan = plan_of(a, b)
    assert plan.slot[a.id] != plan.slot[b.id]
    assert np.isnan(g.compile([a, b, a * b])(np.zeros((1, 0)))).all()


def test_more_edges_of_rows_than_kernels_can_number_are_refused(monkeypatch):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(4)
    rows = [g.add_neuron(sources) for sources in (x[:3], x[1:], x[:2])]
    block = g.add_neurons(x, weights=np.ones((40, 4)))
    monkeypatch.setattr(plans, "MAX_EDGES", 9)
    assert plan_of(*rows).n_edges == 8 and plan_of(*(g[i] for i in block)).n_edges == 160
    monkeypatch.setattr(plans, "MAX_EDGES", 8)
    with pytest.raises(ValueError, match=r"^graph: expected fewer than 8 edges into neurons of one level, got 8$"):
        g.compile(rows)


def test_a_plan_holds_its_index_once():
    net = mlgraph.Network(60, seed=0)
    net.add_layer(40)
    net.prune(0.5)
    plan = engine_of(net).plan
    assert plan.index.nbytes < len(pickle.dumps(plan)) < 1.5 * plan.index.nbytes


@given(graphs())
def test_instructions_read_what_is_written_before(case):
    g, outputs = case
    plan = plan_of(*outputs)
    assert_in_bounds(plan, len(g.parameters))
    assert (plan.slot[[node.id for node in outputs]] >= 0).all()


def test_units_of_rows_do_not_divide_neurons_with_the_same_sources():
    rng, g = np.random.default_rng(0), mlgraph.Graph()
    x = g.add_inputs(300)
    lists = [[node for node in x if rng.random() < 0.3] for _ in range(20)]
    plan = plan_of(*(g.add_neuron(lists[i // 5], weights=np.ones(len(lists[i // 5]))) for i in range(100)))
    units = units_of(plan, False, 0)
    bounds = units[units[:, 1] == 0][:, 2:4]
    assert len(bounds) == 5 and set((bounds % 5).ravel()) == {0, 4}
    assert bounds[0, 0] == 0 and bounds[-1, 1] == 100 and (bounds[1:, 0] == bounds[:-1, 1]).all()


@pytest.mark.parametrize("ahead", [0, 1, 2, 3])
@pytest.mark.parametrize("sizes", [(150, 600), (70, 9, 1100)], ids=str)
def test_units_take_each_weight_and_bias_of_blocks_once(sizes, ahead):
    net = mlgraph.Network(sizes[0], seed=0)
    for size in sizes[1:]:
        net.add_layer(size)
    plan = engine_of(net).plan
    units = units_of(plan, True, ahead)
    taken = {i: np.zeros((-(-ins.size // PANEL), ins.arity + 1), int) for i, ins in plan.trained}
    for i, content, first, last, panel, panels in units.tolist():  # content: 0 weights, 1 bias, 2 both
        arity, own = plan.instructions[i].arity, taken[i][panel : panel + panels]
        own[:, first:last] += content != 1
        own[:, arity] += content == 1 or (content == 2 and first == 0)
        assert content == 2 or panels * PANEL * (last - first) <= 2**13  # floats: they fit into the L1 cache
    assert all((each == 1).all() for each in taken.values())
