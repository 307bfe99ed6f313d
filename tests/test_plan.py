"""What a plan makes of a graph: instructions over slots, and what it leaves out."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from planned import graphs, neurons, parameters_of, plan_of

import mlgraph
from mlgraph import plan as plans
from mlgraph.instructions import KINDS
from mlgraph.plan import ROW_WORK


def test_work_counts_what_costs_more_than_an_edge_of_a_block():
    """By it threads are shared out: a graph of operations alone has no edges, and is no less work."""
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    assert plan_of(mlgraph.tanh(x * y)).work == 3 * ROW_WORK
    assert plan_of(g.add_neuron([x, y])).work == 2 * ROW_WORK
    net = mlgraph.Network(6)
    net.add_layer(20)
    assert plan_of(*net.outputs).work == 6 * 20


def test_dead_nodes_cost_nothing():
    def build(dead):
        g = mlgraph.Graph()
        x = g.inputs(6)
        alive = neurons(g, x[1:3], 3)
        if dead:
            neurons(g, [*x, *alive], 20)
            mlgraph.exp(x[0] * g.parameter(1.0) + 3)
        total = mlgraph.sum(*alive)
        return plan_of(total), g

    (lean, _), (plan, g) = build(False), build(True)
    assert plan.input_column.tolist() == [1, 2]
    assert (plan.n_slots, plan.n_edges, plan.n_extra) == (lean.n_slots, lean.n_edges, lean.n_extra) == (6, 6, 0)
    np.testing.assert_array_equal(plan.program, lean.program)
    np.testing.assert_array_equal(plan.index, lean.index)
    assert (plan.slot >= 0).sum() == plan.n_slots < len(g)


def test_the_dead_keep_their_parameters():
    g = mlgraph.Graph()
    x = g.inputs(6)
    made, p = neurons(g, x, 50), g.parameter(7.0)
    before = parameters_of(made)
    g.compile(made[::5])
    assert g.storage.moves == 1 and parameters_of(made) == before and p.value == 7.0


@given(graphs())
def test_instructions_read_what_is_written_before(case):
    _, outputs = case
    plan = plan_of(*outputs)
    written = len(plan.input_column)
    for ins in plan.instructions:
        assert ins.dst == written
        if ins.kind in (KINDS["operation"], KINDS["dense"]):
            sources = plan.index[ins.args : ins.args + ins.arity * (ins.size if ins.kind == KINDS["operation"] else 1)]
            assert len(sources) and sources.min() >= 0 and sources.max() < written
        elif ins.kind == KINDS["rows"]:
            begin, sources, _, _ = plan.rows(ins)
            assert begin[0] == 0 and (np.diff(begin) > 0).all() and sources.min() >= 0 and sources.max() < written
        written += ins.size
    assert written == plan.n_slots and (plan.slot[[node.id for node in outputs]] >= 0).all()


def test_a_constant_of_any_bits():
    """Also of those that mean "an operation" where equal nodes are sought."""
    g = mlgraph.Graph()
    a, b = (g.constant(np.frombuffer(b"\xff" * 8)[0]) for _ in range(2))
    plan = plan_of(a, b)
    assert plan.slot[a.id] != plan.slot[b.id]
    assert np.isnan(g.compile([a, b, a * b])(np.zeros((1, 0)))).all()


def test_more_edges_than_kernels_number(monkeypatch):
    """Of rows: of a block each neuron has the same sources."""
    g = mlgraph.Graph()
    x = g.inputs(4)
    rows = [g.add_neuron(sources) for sources in (x[:3], x[1:], x[:2])]
    block = g.add_neurons(x, weights=np.ones((40, 4)))
    monkeypatch.setattr(plans, "END_OF_EDGES", 9)
    assert plan_of(*rows).n_edges == 8 and plan_of(*(g[i] for i in block)).n_edges == 160
    monkeypatch.setattr(plans, "END_OF_EDGES", 8)
    with pytest.raises(ValueError, match=r"^graph: expected fewer than 8 edges into neurons of one level, got 8$"):
        g.compile(rows)


def test_a_plan_holds_its_index_once():
    net = mlgraph.Network(60, seed=0)
    net.add_layer(40)
    net.add_layer(9)
    net.prune(0.5)
    plan = net._engine().plan
    assert plan.index.nbytes < len(pickle.dumps(plan)) < 1.5 * plan.index.nbytes
