"""Subnormal float32 numbers, below 1.2e-38: evaluation keeps them, training rounds gradients and updates to 0."""

import platform

import numpy as np
import pytest

import mlgraph

TINY = np.finfo(np.float32).tiny

flushes = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86-64 has the switch we know")


def is_normal(x):
    return (x == 0) | (np.abs(x) >= TINY)


def chain(*weights):
    """A network of identities, each with one source."""
    net = mlgraph.Network(1, seed=0)
    for weight in weights:
        net.add_layer(1, "identity", bias=False)
        net.layers[-1].weights = [[weight]]
    return net


@flushes
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_moments_of_constant_inputs_decay_to_zero(sweep, optimizer):
    """0.9 times the least subnormal number rounds to itself: it would stay, and make every step slow."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(1, "identity")
    x = np.ones((1500, 2), np.float32)
    x[1:, 1] = 0
    net.fit(x, x[:, :1], epochs=1, batch_size=1, learning_rate=1e-3, momentum=0.9, optimizer=optimizer, shuffle=False)
    moment = net.graph.storage.state["first"]
    assert is_normal(moment).all() and np.count_nonzero(moment) == 2  # of the first weight and the bias


@flushes
@pytest.mark.parametrize("sparsity", [0, 0.7, 0.9])
@pytest.mark.parametrize("momentum", [0, 0.9])
def test_training_makes_no_subnormal_parameters(sweep, sparsity, momentum):
    rng = np.random.default_rng(0)
    x = np.where(rng.random((500, 20)) < 0.3, rng.random((500, 20)) * 3e-18, 0).astype(np.float32)
    results = set()
    for n_threads in (1, 2, 3):
        net = mlgraph.Network(20, seed=0)
        net.add_layer(16, "identity")
        net.add_layer(8, "identity")
        net.prune(sparsity)
        net.layers[0].weights = np.zeros((16, 20))
        net.fit(x, x[:, :8], epochs=2, batch_size=100, learning_rate=0.06, momentum=momentum, n_threads=n_threads)
        vector = np.concatenate([net.graph.parameters, *net.graph.storage.state.values()])
        assert is_normal(vector).all() and 0 < np.abs(net.layers[0].weights).max() < 200 * TINY  # near the border
        results.add(vector.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_training_does_not_change_how_later_code_rounds(sweep, n_threads):
    """Neither in numpy on this thread nor in functions on any thread."""
    net = mlgraph.Network(4, seed=0)
    net.add_layer(3, "softmax")
    net.fit(np.eye(4, dtype=np.float32).repeat(50, 0), np.arange(200) % 3, epochs=2, n_threads=n_threads)
    assert np.float32(1e-38) * np.float32(0.1) != 0
    graph = mlgraph.Graph()
    f, x = graph.compile(mlgraph.exp(graph.input("x"))), np.full((20_000, 1), -100.0)
    assert (f(x, n_threads=n_threads) != 0).all()
    assert (f.vjp(x, n_threads=n_threads).inputs != 0).all()
    p = graph.parameter(-100.0)
    assert graph.compile(mlgraph.exp(p)).vjp(np.zeros((1, 1)), n_threads=n_threads).of(p) != 0


@flushes
def test_a_subnormal_adjoint_is_zero_in_training(sweep):
    """It is 1e-40, between weights that would make an update of 1e-20 of it."""
    net = chain(0, 1e20, 1e-20)
    net.fit(np.ones((32, 1)), np.full((32, 1), 5e-21), epochs=1, batch_size=32, learning_rate=1.0, momentum=0)
    assert net.layers[0].weights == 0


def test_training_computes_the_same_losses_as_evaluate(sweep):
    """Values keep subnormal numbers in training, too."""
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
def test_training_differentiates_subnormal_operands(sweep, name):
    """Its gradients are those of a function."""
    make, values = OPERANDS[name]
    g = mlgraph.Graph()
    x, parameters = g.input(), [g.parameter(value) for value in values]
    loss = make(g, *parameters) + 0 * x
    gradients = g.compile(loss).vjp([[0.0]])
    mlgraph.Model(g, loss, loss=loss).fit([[0.0]], epochs=1, learning_rate=0.5, momentum=0)
    for parameter, value in zip(parameters, values, strict=True):
        assert parameter.value == pytest.approx(value - 0.5 * float(gradients.of(parameter)), rel=1e-6)
