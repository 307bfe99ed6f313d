"""Numbers below 1.2e-38, which are subnormal in float32, or below 1e-45, which are 0.

Evaluation keeps subnormal numbers; training rounds gradients and updates to 0.
"""

import platform

import numpy as np
import pytest

import mlgraph

TINY = np.finfo(np.float32).tiny

flushes = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86-64 has the switch we know")


def is_normal(x):
    return (x == 0) | (np.abs(x) >= TINY)


def identities(*sizes):
    net = mlgraph.Network(sizes[0], seed=0)
    for size in sizes[1:]:
        net.add_layer(size, "identity")
    return net


@flushes
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_moments_of_constant_inputs_decay_to_zero(sweep, optimizer):
    """0.9 times the least subnormal number rounds to itself: it would stay, and make every step slow."""
    net, x = identities(2, 1), np.ones((1500, 2), np.float32)
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
    for n_threads in (1, 3):
        net = identities(20, 16, 8)
        net.prune(sparsity)
        net.layers[0].weights = np.zeros((16, 20))
        net.fit(
            x,
            x[:, :8],
            epochs=2,
            batch_size=100,
            learning_rate=0.06,
            momentum=momentum,
            n_threads=n_threads,
            optimizer="sgd",
        )
        vector = np.concatenate([net.graph.parameters, *net.graph.storage.state.values()])
        assert is_normal(vector).all() and 0 < np.abs(net.layers[0].weights).max() < 200 * TINY  # near the border
        results.add(vector.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("n_threads", [1, 2])
def test_training_does_not_change_how_later_code_rounds(sweep, n_threads):
    """Neither in numpy on this thread nor in functions on any thread."""
    identities(4, 3).fit(np.ones((200, 4)), np.ones((200, 3)), epochs=2, n_threads=n_threads)
    assert np.float32(1e-38) * np.float32(0.1) != 0
    graph = mlgraph.Graph()
    f, x = graph.compile(mlgraph.exp(graph.add_input("x"))), np.full((20_000, 1), -100.0)
    assert (f(x, n_threads=n_threads) != 0).all()
    assert (f.vjp(x, n_threads=n_threads).inputs != 0).all()


@flushes
def test_a_subnormal_adjoint_is_zero_in_training(sweep):
    """It is 1e-40, between weights that would make an update of 1e-20 of it."""
    net = identities(1, 1, 1, 1)
    for layer, weight in zip(net.layers, (0, 1e20, 1e-20), strict=True):
        layer.weights = [[weight]]
    net.fit(np.ones((32, 1)), np.full((32, 1), 5e-21), epochs=1, batch_size=32, learning_rate=1.0, momentum=0)
    assert net.layers[0].weights == 0


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (lambda g, a, b: -mlgraph.log(g.add_softmax([a, b])[0]), (-88, 0)),
        (lambda g, a, b: mlgraph.where(g.add_constant(1e-39), a, b), (1, 1)),
        (lambda g, a, b: (a * 1e-39) ** (b * 0.5) * 1e18, (1, 1)),
        (lambda g, a, b: mlgraph.maximum(1e-39 * a, 1e-40 * b) * 1e38, (1, 1)),
        (lambda g, a, b: mlgraph.leaky_relu(a * 1e-39) * 1e38 + 0 * b, (1, 1)),
    ],
    ids=["log", "where", "power", "maximum", "leaky_relu"],
)
def test_training_differentiates_subnormal_operands(sweep, make, values):
    """Its gradients are those of a function."""
    g = mlgraph.Graph(seed=0)
    x, parameters = g.add_input(), [g.add_parameter(value) for value in values]
    loss = make(g, *parameters) + 0 * x
    gradients = g.compile(loss).vjp([[0.0]])
    mlgraph.Model(g, loss, loss=loss).fit(
        [[0.0]], epochs=1, learning_rate=0.5, momentum=0, optimizer="sgd", batch_size=128
    )
    for parameter, value in zip(parameters, values, strict=True):
        assert parameter.value == pytest.approx(value - 0.5 * float(gradients.of(parameter)), rel=1e-6)


def results_below_float32():
    """Of data, weights, targets, rates and derivatives.

    They occur in long runs of Adam, at the end of a falling learning rate, and where a prediction is certain.
    """
    x, rows, weights = (np.where(np.arange(n) == 1, 1e-300, np.ones((k, n))) for k, n in ((9, 2), (9, 3), (3, 2)))
    net = mlgraph.Network(2, seed=0)
    layer, last = net.add_layer(3, "tanh"), net.add_layer(3, "softmax")
    layer.weights = weights
    net.fit(x, rows, epochs=1)
    g = mlgraph.Graph()
    a, b = g.add_inputs(2)
    own = mlgraph.Model(g, g.add_neuron([a], weights=[1e-300]) + 1e-300, loss=(a - b) ** 2)
    scores = [net.evaluate(x, rows), own.evaluate(x[:, :1], x[:, 1]), own.forward(x).tolist()]
    x, y = np.random.default_rng(0).normal(size=(64, 2)), np.arange(64) % 3
    net.fit(x, y, epochs=128, batch_size=1, optimizer="adam", learning_rate=1e-4)
    net.fit(x, y, epochs=1, learning_rate=(1e-30, 1e-60), weight_decay=1e-20)
    net.fit(x, y, epochs=1, learning_rate=lambda progress: 1e-60)
    layer.weights, last.weights = np.eye(3, 2), 60 * np.eye(3) - 60 * np.eye(3)[::-1]
    derivatives = [net.gradients(1e-41 * x, y).parameters, net.trace(x, y).deltas()]
    products = net.graph.compile(net.outputs).jvp(x, np.full(x.shape, np.float32(1e-44)))
    layer.weights = np.full((3, 2), 1e-25)
    net.prune(0.5, by="saliency", data=(1e-20 * x, y))
    return [scores, products.tolist(), net.graph.edges().weight.tolist(), *(d.tolist() for d in derivatives)]


def test_numbers_below_float32_are_zero_even_if_numpy_raises_at_underflow():
    expected = results_below_float32()
    with np.errstate(all="raise"):
        assert results_below_float32() == expected
