"""What a plan makes of a graph: instructions over slots, and what it leaves out."""

import pickle

import numpy as np
import pytest
from bounds import assert_in_bounds
from hypothesis import given
from planned import graphs, kinds, neurons, parameters_of, plan_of

import mlgraph
from mlgraph.compiler import plan as plans
from mlgraph.compiler.instructions import KINDS, Instruction
from mlgraph.compiler.plan import ROW_WORK, Plan
from mlgraph.models.running import engine_of


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
    g, outputs = case
    plan = plan_of(*outputs)
    assert_in_bounds(plan, len(g.parameters))
    assert (plan.slot[[node.id for node in outputs]] >= 0).all()


def plan_of_every_kind():
    """A plan with dropout, a block that reads the data and one that does not, quads and single rows."""
    g = mlgraph.Graph()
    first = neurons(g, g.inputs(6), 9)
    second = neurons(g, first, 20)
    rows = [*neurons(g, second[:4], 3), *neurons(g, second[3:7], 1), *neurons(g, first[2:5], 1)]
    last = g.operation("sum", *(row * g.parameter(1.5) + 2.5 for row in rows))
    dropout = [([node.id for node in layer], 0.5, 0.25) for layer in (first, second, rows)]
    return Plan(g, [last.id, rows[0].id], dropout), len(g.parameters)


def assert_seen(plan, n_parameters):
    vars(plan).pop("instructions", None)
    with pytest.raises(AssertionError):
        assert_in_bounds(plan, n_parameters)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("constant", "kind dst size weights"),
        ("parameter", "kind dst size weights n_weights bias"),
        ("operation", "kind op dst size arity args"),
        ("dense", "kind op dst size arity args weights n_weights bias transposed halves mask kept masked holes"),
        ("rows", "kind op dst size args weights n_weights bias back n_back mask kept masked"),
    ],
)
def test_each_number_of_an_instruction_is_in_bounds(kind, fields):
    plan, n = plan_of_every_kind()
    assert_in_bounds(plan, n)
    good = plan.program.copy()
    for row in np.flatnonzero(good[:, 0] == KINDS[kind]):
        for field in fields.split():
            for wrong in (-2, 10**6):
                plan.program = good.copy()
                plan.program[row, Instruction._fields.index(field)] = wrong
                assert_seen(plan, n)


def test_each_number_of_the_index_is_in_bounds():
    """The last belongs to no instruction: the index has it so as not to be empty."""
    plan, n = plan_of_every_kind()
    assert {name for name, _ in kinds(plan)} == {*KINDS} and any(ins.n_back for ins in plan.instructions)
    good = plan.index
    for at in range(len(good) - 1):
        for wrong in (-1, 10**6):
            plan.index = good.copy()
            plan.index[at] = wrong
            assert_seen(plan, n)


@pytest.mark.parametrize("kind", ["operation", "dense", "rows"])
def test_no_instruction_reads_what_it_writes(kind):
    plan, n = plan_of_every_kind()
    good = plan.index
    for ins in plan.instructions:
        if ins.kind == KINDS[kind]:
            plan.index = good.copy()
            plan.index[ins.args + (ins.size + 1) * (kind == "rows")] = ins.dst
            assert_seen(plan, n)


@pytest.mark.parametrize("kind", ["parameter", "dense", "rows"])
def test_parameters_of_instructions_lie_apart(kind):
    """Nor does the last one's padding lie past their end."""
    plan, n = plan_of_every_kind()
    good = plan.program.copy()
    weights, bias = (Instruction._fields.index(field) for field in ("weights", "bias"))
    for row in np.flatnonzero(good[:, 0] == KINDS[kind]):
        for field in (weights, bias)[: 1 + (kind != "parameter")]:
            for wrong in ({*good[:, weights], *good[:, bias]} - {good[row, field], -1}) | {n, n - 1}:
                plan.program = good.copy()
                plan.program[row, field] = wrong
                assert_seen(plan, n)


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
    monkeypatch.setattr(plans, "MAX_EDGES", 9)
    assert plan_of(*rows).n_edges == 8 and plan_of(*(g[i] for i in block)).n_edges == 160
    monkeypatch.setattr(plans, "MAX_EDGES", 8)
    with pytest.raises(ValueError, match=r"^graph: expected fewer than 8 edges into neurons of one level, got 8$"):
        g.compile(rows)


def test_a_plan_holds_its_index_once():
    net = mlgraph.Network(60, seed=0)
    net.add_layer(40)
    net.add_layer(9)
    net.prune(0.5)
    plan = engine_of(net).plan
    assert plan.index.nbytes < len(pickle.dumps(plan)) < 1.5 * plan.index.nbytes
