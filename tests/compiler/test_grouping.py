"""Which neurons a plan sweeps together: dense blocks, rows, and who stands beside whom."""

import numpy as np
import pytest
from planned import X, affine, kinds, neurons, parameters_of, plan_of

import mlgraph
from mlgraph.compiler.grouping import DENSE_FROM
from mlgraph.compiler.instructions import KINDS
from mlgraph.engine.examples import Examples
from mlgraph.graph.ops import ACTIVATIONS
from mlgraph.models.running import engine_of


def test_a_layer_is_a_dense_block():
    net = mlgraph.Network(6)
    net.add_layer(20, "relu")
    net.add_layer(9, "tanh")
    plan = plan_of(*net.outputs)
    assert kinds(plan) == [("dense", 20), ("dense", 9)]
    first, second = plan.instructions
    assert first.reads_data and not second.reads_data and not first.propagate and second.propagate
    assert plan.reads_directly and plan.n_edges == 6 * 20 + 20 * 9 and plan.n_slots == 6 + 20 + 9
    assert net.graph.storage.moves == 0, "a network is laid out as it is made"


def test_a_short_layer_is_rows():
    net = mlgraph.Network(6)
    net.add_layer(DENSE_FROM - 1)
    plan = plan_of(*net.outputs)
    assert kinds(plan) == [("rows", DENSE_FROM - 1)] and plan.reads_directly and plan.rows_read_data


def test_neurons_made_one_by_one_become_a_block():
    g = mlgraph.Graph()
    x = g.inputs(6)
    made = neurons(g, x, 40)
    before = parameters_of(made)
    f = g.compile(made)
    assert kinds(plan_of(*made)) == [("dense", 40)] and g.storage.moves == 1
    assert parameters_of(made) == before
    np.testing.assert_allclose(f(X), affine(made, X), rtol=1e-5, atol=1e-6)
    made[33].weights[5] = 100
    np.testing.assert_allclose(f(X), affine(made, X), rtol=1e-5, atol=1e-4)


def test_blocks_by_activation_bias_and_order_of_sources():
    g = mlgraph.Graph()
    x = g.inputs(6)
    made = [*neurons(g, x, 32), *neurons(g, x, 9, activation="relu"), *neurons(g, x[::-1], 33)]
    made += [g.add_neuron(x, bias=None) for _ in range(11)]
    assert sorted(kinds(plan_of(*made))) == [("dense", 9), ("dense", 11), ("dense", 32), ("dense", 33)]
    assert sorted(kinds(plan_of(*made[:31], *made[41:]))) == [("dense", 11), ("dense", 33), ("rows", 31)]
    assert sorted(kinds(plan_of(*made[:20], *neurons(g, x[:2], 4)))) == [("dense", 20), ("rows", 4)]


def test_half_of_those_of_a_level_are_a_block():
    g = mlgraph.Graph()
    x = g.inputs(6)
    assert kinds(plan_of(*neurons(g, x, DENSE_FROM), *neurons(g, x[::-1], DENSE_FROM))) == [("dense", DENSE_FROM)] * 2


def test_neurons_are_counted_for_a_block_by_activation_and_bias():
    """With each other way to compute them they would be enough."""
    for i, first in enumerate(ACTIVATIONS):
        for second in ACTIVATIONS[i:]:
            g = mlgraph.Graph()
            x = g.inputs(6)
            made = neurons(g, x, DENSE_FROM - 1, activation=first)
            made += [g.add_neuron(x, second, bias=None) for _ in range(DENSE_FROM - 1)]
            assert kinds(plan_of(*made)) == [("rows", DENSE_FROM - 1)] * 2


def test_few_beside_others_are_rows():
    """Which all together may be filled: blocks of 8 in a layer that was pruned by them."""
    net = mlgraph.Network(40, seed=0)
    for size in (24, 48, 9):
        net.add_layer(size, activation="tanh")
    net.layers[1].mask = np.repeat(np.random.default_rng(0).random((6, 24)) < 0.9, 8, axis=0)
    engine = engine_of(net)
    assert kinds(engine.plan) == [("dense", 24), ("rows", 48), ("dense", 9)]
    assert kinds(engine.filled(Examples(np.ones((1, 40)), 40)).plan) == [("dense", 24), ("dense", 48), ("dense", 9)]


def test_what_shares_no_sources_is_rows():
    g = mlgraph.Graph()
    x = g.inputs(6)
    few = neurons(g, x, DENSE_FROM - 1)
    ragged = [g.add_neuron(x[: k + 1], weights=np.ones(k + 1)) for k in range(5)]
    plan = plan_of(*few, *ragged)
    assert kinds(plan) == [("rows", DENSE_FROM + 4)] and plan.n_edges == 6 * (DENSE_FROM - 1) + 15
    want = np.hstack([affine(few, X), np.cumsum(X, axis=1)[:, :5]])
    np.testing.assert_allclose(g.compile([*few, *ragged])(X), want, rtol=1e-5, atol=1e-6)


def test_who_has_the_same_sources_stands_side_by_side():
    g = mlgraph.Graph()
    x = g.inputs(6)
    lists = [x[:2], x[2:], x[:2], x[1:4], x[2:], x[:2], x[2:]]
    hidden = [g.add_neuron(some, weights=np.arange(len(some)) + i) for i, some in enumerate(lists)]
    plan = plan_of(*hidden)
    [(_, ins)] = plan.trained
    assert plan.node[ins.dst :].tolist() == [hidden[i].id for i in (0, 2, 5, 1, 4, 6, 3)]
    rows = plan.rows(ins)
    assert rows.begin.tolist() == [0, 2, 4, 6, 10, 14, 18, 21] and rows.alike.tolist() == [3, 2, 1, 3, 2, 1, 1]
    values = np.arange(6.0)
    want = [values[[node.id for node in some]] @ n.weights for some, n in zip(lists, hidden, strict=True)]
    np.testing.assert_array_equal(g.compile(hidden)([values])[0], want)


@pytest.mark.parametrize(
    ("n", "columns", "kind"),
    [
        (8, 4, "rows"),
        (31, 4, "rows"),
        (32, 4, "dense"),
        (8, 5, "rows"),
        (40, 7, "rows"),
        (8, 8, "dense"),
        (8, 0, "dense"),
    ],
)
def test_what_reads_some_of_the_data_is_rows(n, columns, kind):
    """Of few neurons, or of most of the data; what reads all of them, or others too, is a block."""
    g = mlgraph.Graph()
    x = g.inputs(8)
    inner = [g.add_neuron(x, "tanh", weights=np.ones(8)) for _ in range(3)]
    sources = x[:columns] if columns else [x[0], *inner]
    some = [g.add_neuron(sources, weights=np.ones(len(sources))) for _ in range(n)]
    assert (kind, n) in kinds(plan_of(*some, *inner))


def test_columns_that_are_not_needed_do_not_count():
    """What reads all others is a block."""
    g = mlgraph.Graph()
    x = g.inputs(12)
    assert kinds(plan_of(*neurons(g, x[2:8], DENSE_FROM))) == [("dense", DENSE_FROM)]


def test_a_neuron_beside_a_layer_is_swept_with_it():
    """Where neither drops anything, and with a layer before that does."""
    net = mlgraph.Network(20, seed=0)
    for dropout in (0.5, 0.0):
        net.add_layer(16, "tanh", dropout=dropout)
    net.add_layer(3, "softmax")
    extra = net.graph.add_neuron(net.layers[0].neurons, "tanh", weights=np.ones(16))
    net.graph.add_edge(extra, net.outputs[0], 1.0)
    assert [ins.size for ins in engine_of(net).plan.instructions if ins.kind == KINDS["dense"]][:2] == [16, 17]


def test_layers_on_one_level_that_drop_other_shares_stay_apart():
    """The second, all of whose edges from the first have been cut, reads the data."""
    net = mlgraph.Network(6, seed=0)
    net.add_layer(9, "tanh", dropout=0.5)
    net.add_layer(9, "tanh", dropout=0.25)
    net.add_layer(3)
    g, first, second = net.graph, net.layers[0], net.layers[1]
    for target in second.neurons:
        for source in list(g)[:6]:
            g.add_edge(source, target, 1.0)
    for source in first.neurons:
        g.add_edge(source, net.outputs[0], 1.0)
    g.prune([(source, target) for target in second.neurons for source in first.neurons])
    [one, other] = [ins for ins in engine_of(net).plan.instructions if ins.drop]
    assert (one.size, other.size) == (9, 9) and {one.drop, other.drop} == {2**31, 2**30}
