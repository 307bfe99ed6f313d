"""Steps of many tiles, and of one: who sweeps them, in what order they are summed, and that the bits are the same."""

import numpy as np
import pytest
from swept import check, data, gradient, layered

import mlgraph
from mlgraph.compiler.plan import Plan
from mlgraph.engine import choice, engine
from mlgraph.engine.steps import Steps
from mlgraph.models.running import engine_of, read_with_targets

OPTIMIZERS = [{}, {"momentum": 0.9, "weight_decay": 0.01}, {"optimizer": "adam"}]


def test_steps_add_up(sweep):
    """Steps of any size, the last one short, add up to the gradients of each."""
    net = layered((30, 20, 5))
    x, y = data(100, 30, 5, "sparse")
    together = gradient(net, x, y, sizes=[33, 64, 3])[2]
    parts = [gradient(net, x[a:b], y[a:b])[2] for a, b in ((0, 33), (33, 97), (97, 100))]
    np.testing.assert_allclose(together, np.sum(parts, axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["sparse", "float"])
@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"weight_dropout": 0.5}], ids=str)
@pytest.mark.parametrize(("columns", "hidden"), [(40, 36), (131, 36), (131, 70)])
def test_bits_do_not_depend_on_threads(sweep, kind, options, columns, hidden):
    """From 125 columns on at most 64 neurons are shared out by halves of them, more neurons by panels; and both by tiles."""
    x, y = data(500, columns, 6, kind)
    results = []
    for n_threads in (1, 2, 3, 7):
        net = layered((columns, hidden, 20, 6), **options)
        net.fit(x, y, epochs=3, batch_size=(100, 7), learning_rate=(0.1, 0.01), seed=5, n_threads=n_threads)
        results.append(net.graph.parameters.copy())
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].view(np.int32), other.view(np.int32))


@pytest.mark.parametrize("sizes", [(200, 36, 12, 10), (130, 9, 10), (200, 70, 10), (200, 20, 900, 10)], ids=str)
@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"weight_dropout": 0.3}], ids=str)
@pytest.mark.parametrize("how", OPTIMIZERS, ids=str)
def test_every_thread_sweeps_the_only_tile(sweep, monkeypatch, sizes, options, how):
    """If the first layer is narrow and there is little behind it. More threads than cores: some come too late for a step."""
    x, y = data(400, sizes[0], 10, "sparse")
    alone, prepare, results = [], sweep.prepare, []
    monkeypatch.setattr(sweep, "prepare", lambda **given: alone.append(given["alone"]) or prepare(**given))
    for n_threads in (1, 2, 3, 4):
        net = layered(sizes, **options)
        net.layers[0].weight_dropout = 0.0  # or its sums are not made ahead
        history = net.fit(
            x, y, epochs=3, batch_size=(70, 3), learning_rate=(0.1, 0.01), seed=5, n_threads=n_threads, **how
        )
        state = [vector.tobytes() for vector in (net.graph.parameters, *net.graph.storage.state.values())]
        results.append((state, history.batch_loss.tobytes(), history.batch_accuracy.tobytes()))
    assert all(result == results[0] for result in results)
    assert any(alone) == (sizes in ((200, 36, 12, 10), (130, 9, 10)))
    check(layered(sizes, **options), x[:30], y[:30], n_threads=2)


def test_parameters_that_are_nodes_are_for_all_threads_to_wait_for():
    """They are the first units of a step, and would end the sweeps of those that come a little later."""
    x, y = data(100, 200, 10, "sparse")[0], np.random.default_rng(1).random((100, 10))
    results = set()
    for n_threads in (1, 2, 3):
        g, rng = mlgraph.Graph(), np.random.default_rng(0)
        hidden = g.add_neurons(g.inputs(200), "tanh", weights=rng.normal(size=(20, 200)) / 20)
        scale = g.parameter(0.5)
        last = g.add_neurons(hidden, "tanh", weights=rng.normal(size=(10, 20)) / 5)
        model = mlgraph.Model(g, [g[number] * scale for number in last])
        model.fit(x, y, epochs=2, batch_size=8, learning_rate=0.01, n_threads=n_threads)
        plan = engine_of(model).plan
        assert plan.threads_ahead and not plan.sweeps_alone and scale.value != 0.5
        results.add(g.get_parameters().tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("sizes", [(200, 10), (200, 26), (200, 20, 10)], ids=str)
@pytest.mark.parametrize("why", ["not finite", "not certain"])
def test_nothing_is_swept_after_a_bad_step(sweep, sizes, why):
    """Also where each thread has one unit, does not look again before the next step, and finds its gate open."""
    x, y = data(1200, 200, 1, "sparse")[0] / np.float32(255), np.full((1200, sizes[-1]), 0.1, np.float32)
    bad, results = 200, []  # all threads have come by then
    if why == "not finite":
        x[4 * bad + 2, 7] = np.inf
    else:
        y[4 * bad + 2] = 1e6
    for n_threads in (1, *[2] * 8, 3):
        net = layered(sizes, "relu")
        examples, objective = read_with_targets(net, x, y)
        own = engine.Engine(net.graph, Plan(net.graph, [*net.output_ids, *net.loss_ids], net.dropout_shares))
        losses = np.full(1200, -1, np.float32)
        stopped = own.run(
            examples,
            steps=Steps(np.arange(0, 1200, 4), np.full(300, 4), np.full(300, 0.01, np.float32)),
            objective=objective,
            optimizer="sgd",
            seed=0,
            losses=losses,
            n_threads=n_threads,
            limit=1e4 * (why == "not certain"),
        )[0]
        assert stopped == bad and (losses[: 4 * bad] >= 0).all() and (losses[4 * bad + 4 :] == -1).all()
        results.append(net.graph.parameters.tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("n", [33, 48, 64, 100, 128, 129, 200])
def test_large_blocks_take_tiles_side_by_side(sweep, monkeypatch, n):
    monkeypatch.setattr(choice, "WIDE", 1)
    check(layered((50, 33, 20, 10)), *data(n, 50, 10, "float"))
    check(layered((50, 33, 20, 10), dropout=0.3), *data(n, 50, 10, "sparse"), n_threads=2)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"weight_dropout": 0.5}], ids=str)
@pytest.mark.parametrize("kind", ["sparse", "float"])
@pytest.mark.parametrize("outputs", [10, 6])
@pytest.mark.parametrize("batch_size", [256, 200, (130, 7)], ids=str)
def test_tiles_side_by_side_have_the_bits_of_one_after_the_other(
    sweep, monkeypatch, options, kind, outputs, batch_size
):
    x, y = data(600, 40, outputs, kind)
    given, prepare, results = [], sweep.prepare, []
    monkeypatch.setattr(sweep, "prepare", lambda **arguments: given.append(arguments["wide"]) or prepare(**arguments))
    for least, n_threads in ((2**62, 1), (1, 1), (1, 2), (1, 3), (1, 5)):
        monkeypatch.setattr(choice, "WIDE", least)
        net = layered((40, 36, 20, outputs), **options)
        net.fit(x, y, epochs=2, batch_size=batch_size, learning_rate=(0.1, 0.01), seed=5, n_threads=n_threads)
        results.append((net.graph.parameters.tobytes(), net.forward(x, n_threads=n_threads).tobytes()))
    assert len(set(results)) == 1
    # The six outputs are rows, which go two side by side at most, and with dropped edges one after the other.
    assert (4 in given) == (outputs == 10 and "weight_dropout" not in options)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("columns", "cut"), [(8, 0), (96, 0), (96, 0.8)])
def test_a_gradient_of_many_examples_keeps_its_digits(sweep, zeros, columns, cut):
    """Where all pull one way a single float32 sum would be off by 1e-3."""
    n = 60_000
    net = mlgraph.Network(columns, seed=0)
    net.add_layer(20, "identity")
    net.layers[0].weights = np.zeros((20, columns))
    x = np.full((n, columns), 51, np.uint8)
    x[:, columns // 8 :] *= not zeros
    net.prune(cut, by="random")
    there = net.layers[0].mask
    net.fit(x, np.ones((n, 20)), epochs=1, batch_size=n, momentum=0, learning_rate=1.0, shuffle=False)
    np.testing.assert_allclose(net.layers[0].weights, np.where(there & (x[0] > 0), 0.4, 0.0), rtol=5e-5)
    np.testing.assert_allclose(net.layers[0].biases, 2.0, rtol=5e-5)


@pytest.mark.parametrize("kind", ["float", "sparse"])
@pytest.mark.parametrize("share", [0, 0.8])
@pytest.mark.parametrize("n", [1024, 1025])
def test_a_gradient_of_as_many_tiles_as_are_one_sum_and_of_one_more(sweep, n, share, kind):
    net = layered((20, 16, 4))
    net.prune(share, by="random")
    check(net, *data(n, 20, 4, kind))
    check(net, *data(n, 20, 4, kind), n_threads=2)


@pytest.mark.parametrize("batch_size", [2500, 129, 1024])
@pytest.mark.parametrize(("columns", "cut"), [(30, 0), (200, 0), (200, 0.9)])
def test_bits_of_large_steps_do_not_depend_on_threads(sweep, batch_size, columns, cut):
    """Steps of several lists of entries; with most threads the first layer is cut by tiles, else by neurons and columns."""
    x, y = data(2500, columns, 5, "sparse")
    results = []
    for n_threads in (1, 2, 3, 5):
        net = layered((columns, 24, 5))
        net.prune(cut)
        net.fit(x, y, epochs=2, batch_size=batch_size, learning_rate=0.1, seed=5, n_threads=n_threads)
        results.append(net.graph.parameters.copy())
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].view(np.int32), other.view(np.int32))
