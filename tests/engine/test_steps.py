"""Training steps: their gradients match the reference, and their bits do not depend on the number of threads."""

import numpy as np
import pytest
from swept import check, data, gradient, layered

import mlgraph
from mlgraph.engine import choice
from mlgraph.models.running import engine_of

DROPOUTS = [{}, {"dropout": 0.5}, {"weight_dropout": 0.5}]


def trained(make, x, y, n_threads, **options):
    """All bits of a network and its history after a run."""
    net = make()
    history = net.fit(x, y, seed=5, n_threads=n_threads, **options)
    vectors = [net.graph.parameters, *net.graph.storage.state.values(), history.batch_loss, history.batch_accuracy]
    return tuple(vector.tobytes() for vector in vectors)


@pytest.mark.parametrize("kind", ["sparse", "float"])
@pytest.mark.parametrize("dropouts", DROPOUTS, ids=str)
@pytest.mark.parametrize(("columns", "hidden"), [(40, 36), (131, 36), (131, 70)])
def test_bits_do_not_depend_on_threads(sweep, kind, dropouts, columns, hidden):
    """Threads share tiles, halves of more than 124 columns, and panels of more than 64 neurons."""
    x, y = data(300, columns, 6, kind)
    options = {"epochs": 2, "batch_size": (100, 7), "learning_rate": (0.1, 0.01)}

    def make():
        return layered((columns, hidden, 20, 6), **dropouts)

    assert len({trained(make, x, y, n_threads, **options) for n_threads in (1, 2, 7)}) == 1


@pytest.mark.parametrize("batch_size", [129, 1024, 2500])
@pytest.mark.parametrize(("columns", "sparsity"), [(30, 0), (200, 0), (200, 0.9)])
def test_bits_of_large_steps_do_not_depend_on_threads(sweep, batch_size, columns, sparsity):
    """Many threads share the first layer by tiles, few threads by neurons and columns."""
    x, y = data(2500, columns, 5, "sparse")

    def make():
        net = layered((columns, 24, 5))
        net.prune(sparsity)
        return net

    options = {"epochs": 1, "batch_size": batch_size, "learning_rate": 0.1}
    assert len({trained(make, x, y, n_threads, **options) for n_threads in (1, 2, 5)}) == 1


ALONE = [(200, 36, 12, 10), (130, 9, 10)]
"""Every thread sweeps the only tile of a step if the first layer is narrow and the rest is small."""


@pytest.mark.parametrize(
    "sizes", [*ALONE, (200, 70, 10), pytest.param((200, 20, 900, 10), marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("dropouts", DROPOUTS, ids=str)
@pytest.mark.parametrize(
    "optimizer",
    [
        {"optimizer": "adam"},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"momentum": 0.9, "weight_decay": 0.01}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_steps_of_one_tile_do_not_depend_on_threads(sweep, monkeypatch, sizes, dropouts, optimizer):
    """There are more threads than cores, so some come too late for a step."""
    x, y = data(200, sizes[0], 10, "sparse")
    alone, prepare = [], sweep.prepare
    monkeypatch.setattr(sweep, "prepare", lambda **given: alone.append(given["alone"]) or prepare(**given))

    def make():
        net = layered(sizes, **dropouts)
        net.layers[0].weight_dropout = 0.0  # its sums then are made ahead of the tiles
        return net

    options = {"epochs": 2, "batch_size": (70, 3), "learning_rate": (0.1, 0.01), **optimizer}
    assert len({trained(make, x, y, n_threads, **options) for n_threads in (1, 2, 3, 4)}) == 1
    assert any(alone) == (sizes in ALONE)
    check(layered(sizes, **dropouts), x[:30], y[:30], n_threads=2)


def test_all_threads_wait_for_parameters_that_are_nodes():
    """They are the first units of a step, and must not end the sweeps of late threads."""
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


def test_training_stops_before_a_bad_step(sweep):
    """The network keeps the updates of the steps before it."""
    bad = 30
    x = data(200, 200, 1, "sparse")[0] / np.float32(255)
    x[4 * bad + 2, 7] = 3e38
    y = np.full((200, 10), 0.1, np.float32)
    options = {"epochs": 1, "batch_size": 4, "learning_rate": 0.01, "shuffle": False}

    def network():
        net = layered((200, 20, 10), "relu", last="identity")
        net.layers[0].neurons[0].weights[7] = 10.0  # 3e38 times 10 is infinite
        return net

    expected = network()
    expected.fit(x[: 4 * bad], y[: 4 * bad], n_threads=1, **options)
    for n_threads in (1, 2):
        net = network()
        with pytest.raises(mlgraph.NonFiniteError, match=rf"step {bad}: .*example {4 * bad + 2}\b"):
            net.fit(x, y, n_threads=n_threads, **options)
        assert net.graph.parameters.tobytes() == expected.graph.parameters.tobytes()


def test_gradients_of_several_steps_add_up(sweep):
    net = layered((30, 20, 5))
    x, y = data(100, 30, 5, "sparse")
    together = gradient(net, x, y, sizes=[33, 64, 3])[2]
    each = [gradient(net, x[a:b], y[a:b])[2] for a, b in ((0, 33), (33, 97), (97, 100))]
    np.testing.assert_allclose(together, np.sum(each, axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [33, 48, 64, 100, 128, 129, 200])
def test_blocks_larger_than_the_cache_match_the_reference(sweep, monkeypatch, n):
    """They take several tiles side by side."""
    monkeypatch.setattr(choice, "WIDE", 1)
    check(layered((50, 33, 20, 10)), *data(n, 50, 10, "float"))
    check(layered((50, 33, 20, 10), dropout=0.3), *data(n, 50, 10, "sparse"), n_threads=2)


@pytest.mark.parametrize("dropouts", DROPOUTS, ids=str)
@pytest.mark.parametrize("outputs", [10, 6])
@pytest.mark.parametrize(
    ("batch_size", "kind"),
    [(200, "sparse"), *(pytest.param(b, "float", marks=pytest.mark.slow) for b in (256, 200, (130, 7)))],
    ids=str,
)
def test_tiles_side_by_side_have_the_bits_of_one_after_the_other(
    sweep, monkeypatch, dropouts, outputs, batch_size, kind
):
    x, y = data(600, 40, outputs, kind)
    wide, prepare, results = [], sweep.prepare, set()
    monkeypatch.setattr(sweep, "prepare", lambda **given: wide.append(given["wide"]) or prepare(**given))
    for least, n_threads in ((2**62, 1), (1, 1), (1, 2), (1, 5)):
        monkeypatch.setattr(choice, "WIDE", least)
        net = layered((40, 36, 20, outputs), **dropouts)
        net.fit(x, y, epochs=2, batch_size=batch_size, learning_rate=(0.1, 0.01), seed=5, n_threads=n_threads)
        results.add((net.graph.parameters.tobytes(), net.forward(x, n_threads=n_threads).tobytes()))
    assert len(results) == 1
    # Six outputs are rows: they go two side by side at most, and with dropped edges one after the other.
    assert (4 in wide) == (outputs == 10 and "weight_dropout" not in dropouts)


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
    net.fit(x, np.ones((n, 20)), epochs=1, batch_size=n, momentum=0, learning_rate=1.0, shuffle=False)
    np.testing.assert_allclose(net.layers[0].weights, np.where(mask & (x[0] > 0), 0.4, 0.0), rtol=5e-5)
    np.testing.assert_allclose(net.layers[0].biases, 2.0, rtol=5e-5)


@pytest.mark.parametrize("kind", ["float", "sparse"])
@pytest.mark.parametrize("sparsity", [0, 0.8])
@pytest.mark.parametrize("n", [1024, 1025])
def test_gradients_at_the_largest_number_of_tiles_in_one_sum(sweep, n, sparsity, kind):
    net = layered((20, 16, 4))
    net.prune(sparsity, by="random")
    for n_threads in (1, 2):
        check(net, *data(n, 20, 4, kind), n_threads=n_threads)
