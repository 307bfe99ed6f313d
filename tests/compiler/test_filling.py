"""When sparse rows become dense blocks with holes: by density, zeros in the data, and number of examples."""

from functools import cached_property

import numpy as np
import pytest
from filled import SPARSE, kinds, lightly_pruned, with_blocks, without_rows_when_filled
from swept import data

import mlgraph
from mlgraph.compiler import holes as filling
from mlgraph.compiler.holes import candidates, worth_holes
from mlgraph.compiler.instructions import KINDS
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.models.running import engine_of


def test_what_is_filled():
    net = lightly_pruned()
    engine = engine_of(net)
    assert kinds(engine.plan) == [KINDS["rows"]] * 3
    filled = engine.filled(SPARSE)
    assert kinds(filled.plan) == [KINDS["dense"]] * 2 + [KINDS["rows"]]  # six outputs are no block
    assert filled is engine.filled(SPARSE) and [c.weights for c in candidates(engine.plan)] == [
        32 * 60,
        32 * 30,
    ]  # padded
    few = engine_of(lightly_pruned((60, 7, 6), share=0.01))
    assert few.filled(SPARSE) is few  # seven neurons are no block either
    hard = engine_of(lightly_pruned(share=0.9))
    assert hard.filled(SPARSE) is hard
    assert with_blocks(engine_of(lightly_pruned(weight_dropout=0.5)).plan)[1] is None


@pytest.mark.parametrize(
    ("together", "share", "filled"), [(1, 0.6, True), (4, 0.6, False), (4, 0.85, True), (1, 0.45, False)]
)
def test_rows_in_quads_are_filled_later(sweep, together, share, filled):
    net, rng = mlgraph.Network(40, seed=0), np.random.default_rng(0)
    net.add_layer(20, activation="tanh")
    net.add_layer(48, activation="tanh")
    net.add_layer(10, activation="softmax")
    net.layers[1].mask = np.repeat(rng.random((48 // together, 20)) < share, together, axis=0)
    quads = together == 4 and not sweep.__name__.endswith(("v2", "baseline"))
    assert (with_blocks(engine_of(net).plan)[1] is not None) == (filled or (share > 0.52 and not quads))


@pytest.mark.parametrize(("columns", "filled"), [(100, True), (400, False)])
def test_columns_that_nobody_reads_count(columns, filled):
    """Half of the edges from 60 columns: that is 0.3 of all, or 0.075."""
    net, rng = mlgraph.Network(columns, seed=0), np.random.default_rng(0)
    net.add_layer(32, activation="tanh")
    net.add_layer(6, activation="softmax")
    net.layers[0].mask = (rng.random((32, columns)) < 0.5) & (np.arange(columns) < 60)
    plan = engine_of(net).plan
    assert plan.n_columns == columns and len(plan.input_column) == 60 and (with_blocks(plan)[1] is not None) == filled


@pytest.mark.parametrize("kind", ["operations", "written"])
def test_a_source_that_comes_twice_is_not_filled(monkeypatch, kind):
    """Two nodes of equal value are one slot, and a neuron that reads both has two weights for it."""
    x = np.random.default_rng(0).normal(size=(100, 8))
    trained = []
    for by_rows in (False, True):
        rng = np.random.default_rng(1)
        g = mlgraph.Graph()
        inputs = g.inputs(8)
        nodes = inputs if kind == "written" else [mlgraph.sin(node) for node in inputs]
        again = inputs if kind == "written" else [mlgraph.sin(node) for node in inputs]
        neurons = []
        for i in range(16):
            sources = [node for k, node in enumerate([*nodes, *again]) if k != i]
            if kind == "written":
                parameters = [g.parameter(w) for w in rng.normal(size=len(sources)) / 4]
                neurons.append(
                    mlgraph.tanh(mlgraph.sum(*(p * node for p, node in zip(parameters, sources, strict=True))))
                )
            else:
                neurons.append(g.add_neuron(sources, "tanh", weights=rng.normal(size=len(sources)) / 4))
        outputs = [g.add_neuron(neurons, weights=rng.normal(size=16) / 4) for _ in range(3)]
        model = mlgraph.Model(g, outputs, "softmax_cross_entropy")
        assert kinds(engine_of(model).plan) == [KINDS["rows"]] * 2
        if by_rows:
            monkeypatch.setattr(Engine, "filled", lambda engine, examples, n=None: engine)
        model.fit(x, np.arange(100) % 3, epochs=3, batch_size=50, learning_rate=0.1)
        trained.append((g.parameters.copy(), model.history.batch_loss))
    np.testing.assert_allclose(trained[0][0], trained[1][0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trained[0][1], trained[1][1], rtol=1e-5)


@pytest.mark.parametrize(("places", "filled"), [((0, 1, 2, 1997, 1998), False), ((0, 3, 6, 9, 12), True)])
def test_sources_that_are_far_apart_are_not_filled(places, filled):
    """Five of 2,000 slots, four for each neuron: to look for them would take longer the more there is between."""
    g = mlgraph.Graph()
    x = g.inputs(4)
    between = [g.add_neuron(x[: (1, 2, 4)[k % 3]], "tanh", weights=np.ones((1, 2, 4)[k % 3])) for k in range(2000)]
    some = [between[k] for k in places]
    last = [g.add_neuron([s for j, s in enumerate(some) if j != k % 5], weights=np.ones(4)) for k in range(16)]
    engine = engine_of(mlgraph.Model(g, [mlgraph.sum(*last, *between)]))
    assert kinds(engine.plan)[-1] == KINDS["rows"] and (with_blocks(engine.plan)[1] is not None) == filled


def test_a_filled_plan_has_properties_of_its_own():
    """Whatever has been asked of the other before."""
    names = [name for name, value in vars(Plan).items() if isinstance(value, cached_property)]
    plan = engine_of(without_rows_when_filled()).plan
    fresh, _ = with_blocks(plan)
    for name in names:
        getattr(plan, name)
    later, copies = with_blocks(plan)
    assert copies is not None and {"largest_blocks", "threads_ahead", "sweeps_alone"} <= set(names)
    for name in names:
        np.testing.assert_equal(getattr(later, name), getattr(fresh, name))
    assert later.largest_blocks != plan.largest_blocks and later.threads_ahead != plan.threads_ahead


@pytest.mark.parametrize(
    ("share", "together", "zeros", "others"),
    [
        (0.7, 1, True, True),
        (0.4, 1, True, False),
        (0.12, 1, False, False),
        (0.97, 4, True, True),
        (0.7, 4, True, False),
    ],
)
def test_a_block_of_data_without_zeros_needs_more_edges(sweep, share, together, zeros, others):
    """It has none to skip; rows cost as much whatever the data."""
    net = mlgraph.Network(60, seed=0)
    net.add_layer(32, activation="tanh")
    net.add_layer(6, activation="softmax")
    net.layers[0].mask = np.repeat(np.random.default_rng(0).random((32 // together, 60)) < share, together, axis=0)
    if sweep.__name__.endswith(("v2", "baseline")):  # has no quads
        others = share > 0.55
    dense = np.random.default_rng(0).normal(size=(300, 60)).astype(np.float32)
    sparse, some = np.abs(dense) * (np.arange(60) % 20 < 4), np.abs(dense) * (np.arange(60) // 4 % 2 == 0)
    data = [Examples(x, 60) for x in (sparse, some, dense)]
    assert [x.density for x in data] == [0.2, pytest.approx(0.5, abs=0.04), 1.0]
    are_full = [engine_of(net).filled(x) is not engine_of(net) for x in data]
    assert are_full == sorted(are_full, reverse=True) and [are_full[0], are_full[2]] == [zeros, others]


@pytest.mark.parametrize("n", [1, 399, 400, 900, 10_000])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.95])
def test_examples_repay_blocks(n, share):
    """The more examples, the fewer edges may be left."""
    net = mlgraph.Network(60, seed=0)
    net.add_layer(32, activation="tanh")
    net.add_layer(6, activation="softmax")
    net.layers[0].mask = np.random.default_rng(0).random((32, 60)) < share
    found = candidates(engine_of(net).plan)
    cost = found[0].cost(0.2) / found[0].weights
    assert worth_holes(found, 0.2) == (found[0].number,)
    assert bool(worth_holes(found, 0.2, n)) == (n * (1 - 1 / cost) >= 400)
    others = [found[0]._replace(number=9, singles=10**6, weights=10**9)]  # rows that are faster as rows do not count
    assert worth_holes(found + others, 0.2, n) == worth_holes(found, 0.2, n)


def test_train_and_test_data_may_be_of_other_densities(monkeypatch):
    """Each has an engine of its own, and what one learns the other predicts by."""
    monkeypatch.setattr(filling, "BLOCKS_COST", 1)
    (zeros, y), (others, _) = data(300, 60, 6, "sparse"), data(300, 60, 6, "bytes")
    zeros[:, np.arange(60) % 20 > 3] = 0
    net, whole = lightly_pruned(share=0.6), lightly_pruned(share=0.6)
    options = {"epochs": 3, "batch_size": 50, "validation": (np.maximum(others, 1), y)}
    net.fit(zeros, y, **options)
    monkeypatch.setattr(filling, "worth_holes", lambda *given: ())
    monkeypatch.setattr("mlgraph.engine.engine.worth_holes", lambda *given: ())
    whole.fit(zeros, y, **options)
    assert len(engine_of(net)._with_holes) == 2
    np.testing.assert_allclose(net.history.validation_loss, whole.history.validation_loss, rtol=1e-4)
    np.testing.assert_allclose(net.history.batch_loss, whole.history.batch_loss, rtol=1e-4)
