"""Training steps: bits do not depend on the number of threads, sums keep their digits, bad steps end a run."""

import numpy as np
import pytest
from swept import check, data, layered

import mlgraph
from mlgraph.compiler.plan import Plan
from mlgraph.engine import choice, engine
from mlgraph.engine.engine import Engine
from mlgraph.engine.steps import Steps
from mlgraph.models.running import engine_of, read_with_targets

DROPOUTS = [{}, {"dropout": 0.5}, {"weight_dropout": 0.5}]


@pytest.fixture
def ways(sweep, monkeypatch):
    """How the kernels were told to sweep, in each call."""
    ways = set()

    def spy(*given):
        how = choice.choose(*given)
        ways.add("ahead" if how.ahead else "packs" if how.in_packs else f"wide {how.wide}")
        return how

    monkeypatch.setattr(engine, "choose", spy)
    return ways


def trained(net, x, y, n_threads, **options):
    """All bits of a network and its history after a run."""
    rates = (0.01, 0.001) if options["optimizer"] == "adam" else (0.1, 0.01)
    options = {"epochs": 2, "learning_rate": rates, "seed": 5} | options
    history = net.fit(x, y, n_threads=n_threads, **options)
    vectors = [net.graph.parameters, *net.graph.storage.state.values(), history.batch_loss, history.batch_accuracy]
    return (*(vector.tobytes() for vector in vectors), net.forward(x, n_threads=n_threads).tobytes())


@pytest.mark.parametrize("dropouts", DROPOUTS, ids=str)
@pytest.mark.parametrize(
    ("kind", "sizes", "sparsity", "batch_size", "way"),
    [  # the last is how several threads share the steps
        ("float", (131, 70, 20, 6), 0, (100, 7), "wide 1"),
        ("sparse", (131, 70, 20, 6), 0, (100, 7), "ahead"),
        ("sparse", (40, 36, 20, 6), 0, 1024, "ahead"),
        ("sparse", (200, 24, 5), 0.9, 600, "packs"),
        ("float", (300, 90, 20, 6), 0.9, (300, 20), "packs"),
        ("sparse", (200, 36, 12, 10), 0, (70, 3), "ahead"),
        ("sparse", (130, 9, 10), 0, (30, 3), "ahead"),
        ("float", (40, 36, 20, 10), 0, (256, 20), "wide 4"),
        ("float", (40, 36, 20, 6), 0, (130, 20), "wide 2"),
        pytest.param("sparse", (200, 20, 900, 10), 0, (70, 3), "ahead", marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize("optimizer", ["adam", pytest.param("sgd", marks=pytest.mark.slow)])
def test_bits_do_not_depend_on_threads(
    sweep, ways, monkeypatch, kind, sizes, sparsity, batch_size, way, dropouts, optimizer
):
    """There are more threads than cores, so some come too late for a step."""
    if way == "wide 4":  # as for blocks larger than the cache
        monkeypatch.setattr(choice, "WIDE", 1)
    x, y = data(1200 if np.max(batch_size) > 100 else 300, sizes[0], sizes[-1], kind)
    results, options = set(), {"batch_size": batch_size, "optimizer": optimizer, "weight_decay": 0.01}
    for n_threads in (1, 2, 3, 7):
        net = layered(sizes, **dropouts)
        net.layers[0].weight_dropout = 0.0  # else its sums are not made ahead of the tiles
        net.prune(sparsity, by="random")
        results.add(trained(net, x, y, n_threads, **options))
    assert len(results) == 1
    # These builds sweep one tile at a time where others sweep a pack of two.
    assert way in ways or "weight_dropout" in dropouts or (way == "wide 2" and mlgraph.ISA in ("baseline", "v2"))
    check(net, x[:30], y[:30], n_threads=2)


def test_all_threads_wait_for_parameters_that_are_nodes():
    """They are the first units of a step, and must not end the sweeps of late threads."""
    x, y = data(100, 200, 10, "sparse")[0], np.random.default_rng(1).random((100, 10))
    results = set()
    for n_threads in (1, 2, 3):
        g, rng = mlgraph.Graph(seed=0), np.random.default_rng(0)
        hidden = g.add_neurons(g.add_inputs(200), "tanh", weights=rng.normal(size=(20, 200)) / 20)
        scale = g.add_parameter(0.5)
        last = g.add_neurons(hidden, "tanh", weights=rng.normal(size=(10, 20)) / 5)
        model = mlgraph.Model(g, [g[number] * scale for number in last])
        model.fit(x, y, epochs=2, batch_size=8, learning_rate=0.01, n_threads=n_threads)
        plan = engine_of(model).plan
        assert plan.threads_ahead and scale.value != 0.5
        results.add(g.get_parameters().tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("sizes", [(200, 10), (200, 20, 10)], ids=str)
@pytest.mark.parametrize("limit", [0, 1e4])
def test_nothing_is_swept_after_a_bad_step(sweep, sizes, limit):
    """Also by a thread that has one unit a step and does not look again before it begins the next one."""
    x, y = data(1200, 200, 1, "sparse")[0] / np.float32(255), np.full((1200, sizes[-1]), 0.1, np.float32)
    bad, results = 200, set()  # by this step all threads have come
    if limit:
        y[4 * bad + 2] = 1e6
    else:
        x[4 * bad + 2, 7] = np.inf
    steps = Steps(np.arange(0, 1200, 4), np.full(300, 4), np.full(300, 0.01, np.float32))
    for n_threads in (1, 2, 2, 2, 3):
        net = layered(sizes, "relu")
        examples, objective = read_with_targets(net, x, y)
        engine = Engine(net.graph, Plan(net.graph, [*net.output_ids, *net.loss_ids], net.dropout_shares))
        losses, options = np.full(1200, -1, np.float32), {"optimizer": "sgd", "seed": 0, "n_threads": n_threads}
        stopped = engine.execute(examples, steps=steps, objective=objective, losses=losses, limit=limit, **options)[0]
        assert stopped == bad and (losses[: 4 * bad] >= 0).all() and (losses[4 * bad + 4 :] == -1).all()
        results.add(net.graph.parameters.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("columns", "sparsity"), [(8, 0), (96, 0), (96, 0.8)])
def test_a_gradient_of_60000_examples_keeps_its_digits(sweep, zeros, columns, sparsity):
    """All of them have the same sign, so that a single float32 sum would be off by 1e-3."""
    n = 60_000
    net = mlgraph.Network(columns, seed=0)
    net.add_layer(20, "identity")
    net.layers[0].weights = np.zeros((20, columns))
    x = np.full((n, columns), 51, np.uint8)
    x[:, columns // 8 :] *= not zeros
    net.prune(sparsity, by="random")
    mask = net.layers[0].mask
    net.fit(x, np.ones((n, 20)), epochs=1, batch_size=n, momentum=0, learning_rate=1.0, shuffle=False, optimizer="sgd")
    np.testing.assert_allclose(net.layers[0].weights, np.where(mask & (x[0] > 0), 0.4, 0.0), rtol=5e-5)
    np.testing.assert_allclose(net.layers[0].biases, 2.0, rtol=5e-5)


@pytest.mark.parametrize("kind", ["float", "sparse"])
@pytest.mark.parametrize("sparsity", [0, 0.8])
def test_gradients_at_the_largest_number_of_tiles_in_one_sum(sweep, sparsity, kind):
    net = layered((20, 16, 4))
    net.prune(sparsity, by="random")
    for n, n_threads in ((1024, 1), (1024, 2), (1025, 1)):
        check(net, *data(n, 20, 4, kind), n_threads=n_threads)
