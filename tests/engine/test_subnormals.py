"""Numbers below the normal ones, 1.2e-38: what computes keeps them, what learns makes zeros of them."""

import platform

import numpy as np
import pytest

import mlgraph

TINY = np.finfo(np.float32).tiny

learns = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86-64 has the switch we know")


def is_normal(x):
    return (x == 0) | (np.abs(x) >= TINY)


@learns
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_moments_of_what_is_no_longer_seen_come_to_rest(sweep, optimizer):
    """0.9 of the least number is rounded to it: without a flush it would stay for ever, and every step be slow."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(1, "identity")
    x = np.ones((1500, 2), np.float32)
    x[1:, 1] = 0
    net.fit(x, x[:, :1], epochs=1, batch_size=1, learning_rate=1e-3, momentum=0.9, optimizer=optimizer, shuffle=False)
    moment = net.graph.storage.state["first"]
    assert is_normal(moment).all() and np.count_nonzero(moment) == 2  # of the first weight and the bias


@learns
@pytest.mark.parametrize("sparsity", [0, 0.7, 0.9])
@pytest.mark.parametrize("momentum", [0, 0.9])
def test_parameters_are_normal_whoever_moves_them(sweep, sparsity, momentum):
    rng = np.random.default_rng(0)
    x = np.where(rng.random((500, 20)) < 0.3, rng.random((500, 20)) * 3e-18, 0).astype(np.float32)
    got = []
    for n_threads in (1, 2, 3):
        net = mlgraph.Network(20, seed=0)
        net.add_layer(16, "identity")
        net.add_layer(8, "identity")
        if sparsity:
            net.prune(sparsity)
        net.layers[0].weights = np.zeros((16, 20))
        net.fit(x, x[:, :8], epochs=2, batch_size=100, learning_rate=0.06, momentum=momentum, n_threads=n_threads)
        got.append(np.concatenate([net.graph.parameters, *net.graph.storage.state.values()]))
        most = np.abs(net.layers[0].weights).max()
    assert is_normal(got[0]).all() and 0 < most < 200 * TINY  # so that what moved them was near the border
    for other in got[1:]:
        np.testing.assert_array_equal(got[0].view(np.int32), other.view(np.int32))


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_numbers_are_as_before_when_it_has_learnt(sweep, n_threads):
    """On this thread, and on those of the sweeps."""
    net = mlgraph.Network(4, seed=0)
    net.add_layer(3, "softmax")
    net.fit(np.eye(4, dtype=np.float32).repeat(50, 0), np.arange(200) % 3, epochs=2, n_threads=n_threads)
    assert np.float32(1e-38) * np.float32(0.1) != 0
    graph = mlgraph.Graph()
    f = graph.compile(mlgraph.exp(graph.input("x")))
    assert (f(np.full((20_000, 1), -100.0), n_threads=n_threads) != 0).all()
    assert (f.vjp(np.full((20_000, 1), -100.0), n_threads=n_threads).inputs != 0).all()
    p = graph.parameter(-100.0)
    gradients = graph.compile(mlgraph.exp(p)).vjp(np.zeros((1, 1)), n_threads=n_threads)
    assert gradients.of(p) != 0


def chain(*weights):
    """Identities of one source each."""
    net = mlgraph.Network(1, seed=0)
    for weight in weights:
        net.add_layer(1, "identity", bias=False)
        net.layers[-1].weights = [[weight]]
    return net


@learns
def test_an_adjoint_below_the_normal_numbers_is_zero(sweep):
    """1e-40, between weights that would make an update of 1e-20 of it."""
    net = chain(0, 1e20, 1e-20)
    net.fit(np.ones((32, 1)), np.full((32, 1), 5e-21), epochs=1, batch_size=32, learning_rate=1.0, momentum=0)
    assert net.layers[0].weights == 0


def test_in_training_too_values_keep_every_bit(sweep):
    """Whether sums are made ahead or not."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random((300, 200)) < 0.1, rng.random((300, 200)) * 1e-19, 0).astype(np.float32)
    net = mlgraph.Network(200, seed=0)
    net.add_layer(32, "identity")
    net.add_layer(8, "identity")
    net.layers[0].weights = net.layers[0].weights * 1e-19
    net.layers[1].weights = net.layers[1].weights * np.float32(1e30)
    expected = net.evaluate(x, np.zeros((300, 8)))["loss"]
    history = net.fit(x, np.zeros((300, 8)), epochs=2, batch_size=300, learning_rate=0, momentum=0)
    assert expected > 1e-20
    np.testing.assert_allclose(history.batch_loss, expected, rtol=1e-5)


OPERANDS = {
    "log of a small probability": (lambda g, a, b: -mlgraph.log(g.softmax([a, b])[0]), (-88, 0)),
    "where": (lambda g, a, b: mlgraph.where(g.constant(1e-39), a, b), (1, 1)),
    "power": (lambda g, a, b: (a * 1e-39) ** (b * 0.5) * 1e18, (1, 1)),
    "maximum": (lambda g, a, b: mlgraph.maximum(1e-39 * a, 1e-40 * b) * 1e38, (1, 1)),
    "leaky_relu": (lambda g, a, b: mlgraph.leaky_relu(a * 1e-39) * 1e38 + 0 * b, (1, 1)),
}


@pytest.mark.parametrize("name", OPERANDS)
def test_what_is_differentiated_is_what_was_computed(sweep, name):
    """Operands below the normal numbers count in the backward sweep of training as they do in others."""
    make, values = OPERANDS[name]
    g = mlgraph.Graph()
    x, parameters = g.input(), [g.parameter(value) for value in values]
    loss = make(g, *parameters) + 0 * x
    gradients = g.compile(loss).vjp([[0.0]])
    model = mlgraph.Model(g, loss, loss=loss)
    model.fit([[0.0]], epochs=1, learning_rate=0.5, momentum=0)
    for parameter, value in zip(parameters, values, strict=True):
        assert parameter.value == pytest.approx(value - 0.5 * float(gradients.of(parameter)), rel=1e-6)
