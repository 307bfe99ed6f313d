"""Which neurons are computed together: as dense blocks or as sparse rows, and in which order."""

import numpy as np
import pytest
from planned import X, affine, kinds, neurons, plan_of

import mlgraph
from mlgraph.compiler.grouping import DENSE_AMONG_OTHERS, DENSE_FROM
from mlgraph.compiler.plan import Plan
from mlgraph.engine.examples import Examples
from mlgraph.graph.ops import IN_PLACE
from mlgraph.models.running import engine_of


def test_layers_are_dense_blocks_in_the_order_in_which_they_are_stored():
    net = mlgraph.Network(6, seed=0)
    net.add_layer(20, "relu")
    net.add_layer(9, "tanh")
    net.add_layer(DENSE_FROM - 1)
    plan = plan_of(*net.outputs)
    assert kinds(plan) == [("dense", 20), ("dense", 9), ("rows", DENSE_FROM - 1)]
    first, second, _ = plan.instructions
    assert first.reads_data and not second.reads_data and not first.propagate and second.propagate
    assert plan.reads_directly and plan.n_edges == 6 * 20 + 20 * 9 + 9 * 7 and plan.n_slots == 6 + 20 + 9 + 7
    assert net.graph.storage.moves == 1, "only the short layer is moved"


def test_blocks_share_activation_bias_and_order_of_sources():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(6)
    made = [*neurons(g, x, 32), *neurons(g, x, 9, activation="relu"), *neurons(g, x[::-1], 33)]
    made += [g.add_neuron(x, bias=None) for _ in range(11)]
    assert sorted(kinds(plan_of(*made))) == [("dense", 9), ("dense", 11), ("dense", 32), ("dense", 33)]
    assert sorted(kinds(plan_of(*made[:31], *made[41:]))) == [("dense", 11), ("dense", 33), ("rows", 31)]
    assert sorted(kinds(plan_of(*made[:20], *neurons(g, x[:2], 4)))) == [("dense", 20), ("rows", 4)]


@pytest.mark.parametrize("activation", IN_PLACE)
def test_neurons_of_another_kind_do_not_count_for_a_block(activation):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(6)
    made = neurons(g, x, DENSE_FROM - 1)
    made += [g.add_neuron(x, activation, bias=None) for _ in range(DENSE_FROM - 1)]
    assert kinds(plan_of(*made)) == [("rows", DENSE_FROM - 1)] * 2


def test_a_minority_of_a_level_is_rows():
    """All rows of a level may become one block with holes, as in a layer that was pruned in blocks of 8."""
    g = mlgraph.Graph()
    x = g.add_inputs(6)
    assert kinds(plan_of(*neurons(g, x, DENSE_FROM), *neurons(g, x[::-1], DENSE_FROM))) == [("dense", DENSE_FROM)] * 2
    net = mlgraph.Network(40, seed=0)
    for size in (24, 48, 9):
        net.add_layer(size, activation="tanh")
    net.layers[1].mask = np.repeat(np.random.default_rng(0).random((6, 24)) < 0.9, 8, axis=0)
    engine = engine_of(net)
    assert kinds(engine.plan) == [("dense", 24), ("rows", 48), ("dense", 9)]
    assert kinds(engine.filled(Examples(np.ones((1, 40)), 40)).plan) == [("dense", 24), ("dense", 48), ("dense", 9)]


@pytest.mark.parametrize(
    ("n", "columns", "kind"),
    [
        (DENSE_AMONG_OTHERS - 1, 4, "rows"),
        (DENSE_AMONG_OTHERS, 4, "dense"),
        (DENSE_AMONG_OTHERS, 5, "rows"),
        (DENSE_FROM, 8, "dense"),
        (DENSE_FROM, 0, "dense"),
    ],
)
def test_neurons_that_read_some_of_the_data_are_rows(n, columns, kind):
    """If they are few, or read most of the data. Those that read all columns, or other nodes too, are a block."""
    g = mlgraph.Graph()
    *x, _ = g.add_inputs(9)  # a column that no neuron reads does not count
    inner = [g.add_neuron(x, "tanh", weights=np.ones(8)) for _ in range(3)]
    sources = x[:columns] if columns else [x[0], *inner]
    some = [g.add_neuron(sources, weights=np.ones(len(sources))) for _ in range(n)]
    assert (kind, n) in kinds(plan_of(*some, *inner))


def test_neurons_with_the_same_sources_are_neighbours():
    g = mlgraph.Graph()
    x = g.add_inputs(6)
    lists = [x[:2], x[2:], x[:2], x[1:4], x[2:], x[:2], x[2:]]
    hidden = [g.add_neuron(some, weights=np.arange(len(some)) + i, bias=i) for i, some in enumerate(lists)]
    plan = plan_of(*hidden)
    [(_, ins)] = plan.trained
    assert plan.node[ins.dst :].tolist() == [hidden[i].id for i in (0, 2, 5, 1, 4, 6, 3)]
    rows = plan.rows(ins)
    assert rows.begin.tolist() == [0, 2, 4, 6, 10, 14, 18, 21] and rows.alike.tolist() == [3, 2, 1, 3, 2, 1, 1]
    want = [affine([n], X[:, [s.id for s in some]]) for some, n in zip(lists, hidden, strict=True)]
    np.testing.assert_allclose(g.compile(hidden)(X), np.hstack(want), rtol=1e-5, atol=1e-5)


def test_neurons_that_drop_different_fractions_stay_apart():
    g = mlgraph.Graph()
    x = g.add_inputs(6)
    half, quarter, none = (neurons(g, x, n, activation="tanh") for n in (9, 9, 10))
    dropout = [([node.id for node in half], 0.5, 0.0), ([node.id for node in quarter], 0.25, 0.0)]
    plan = Plan(g, [node.id for node in [*half, *quarter, *none]], dropout)
    assert sorted((ins.size, ins.drop) for ins in plan.instructions) == [(9, 2**30), (9, 2**31), (10, 0)]
