"""numpy may be told to raise at underflow: numbers that round to 0 in float32 still are accepted as 0."""

import numpy as np

import mlgraph


def assert_same_with_numpy_raising(results):
    expected = results()
    with np.errstate(all="raise"):
        assert results() == expected


def test_data_and_weights_below_float32():
    x, y, weights = (np.where(np.arange(n) == 1, 1e-300, np.ones((k, n))) for k, n in ((9, 2), (9, 3), (3, 2)))

    def results():
        net = mlgraph.Network(2, seed=0)
        net.add_layer(3, "softmax").weights = weights
        net.fit(x, y, epochs=1)
        g = mlgraph.Graph()
        a, b = g.inputs(2)
        own = mlgraph.Model(g, g.add_neuron([a], weights=[1e-300]) + 1e-300, loss=(a - b) ** 2)
        scores = [net.evaluate(x, y), own.evaluate(x[:, :1], x[:, 1])]
        return [net.predict_proba(x).tolist(), own.forward(x).tolist(), scores]

    assert_same_with_numpy_raising(results)


def test_rates_and_derivatives_below_float32():
    """They occur in long runs of Adam, at the end of a falling learning rate, and where a prediction is certain."""
    x = np.random.default_rng(0).normal(size=(64, 4))
    y, tangent = np.argmax(x[:, :2], axis=1), np.full(x.shape, 1e-44, np.float32)

    def results():
        net = mlgraph.Network(4, seed=0)
        layer = net.add_layer(8, "tanh")
        net.add_layer(2, "softmax")
        net.fit(x, y, epochs=128, batch_size=1, optimizer="adam", learning_rate=1e-4)
        net.fit(x, y, epochs=1, learning_rate=(1e-30, 1e-60), weight_decay=1e-20)
        net.fit(x, y, epochs=1, learning_rate=lambda progress: 1e-60)
        layer.weights, net.layers[1].weights = np.eye(8, 4), 45 * np.eye(2, 8) - 45 * np.eye(2, 8)[::-1]
        slope, deltas = net.gradients(1e-41 * x, y).parameters, net.trace(x, y).deltas()
        products = net.graph.compile(net.outputs).jvp(x, tangent)
        layer.weights = 1e-25 * x[:8]
        net.prune(0.5, by="saliency", data=(1e-20 * x, y))
        return [a.tolist() for a in (slope, deltas, products, net.graph.edges().weight)]

    assert_same_with_numpy_raising(results)
