"""Where numpy is told to raise at an underflow, what float32 takes for zero still is zero."""

import numpy as np

import mlgraph


def test_numbers_that_float32_takes_for_zero():
    """Whoever has numpy raise at an underflow, to find one of his own, still gives data in float64."""
    x, y, weights = (np.where(np.arange(n) == 1, 1e-300, np.ones((k, n))) for k, n in ((9, 2), (9, 3), (3, 2)))

    def ends():
        net = mlgraph.Network(2, seed=0)
        layer = net.add_layer(3, "softmax")
        layer.weights = weights
        net.fit(x, y, epochs=1)
        g = mlgraph.Graph()
        a, b = g.inputs(2)
        own = mlgraph.Model(g, g.add_neuron([a], weights=[1e-300]) + 1e-300, loss=(a - b) ** 2)
        return (
            net.predict_proba(x).tolist(),
            net.evaluate(x, y),
            own.evaluate(x[:, :1], x[:, 1]),
            own.forward(x).tolist(),
        )

    expected = ends()
    with np.errstate(all="raise"):
        assert ends() == expected


def test_rates_and_derivatives_that_float32_takes_for_zero(monkeypatch):
    """Such as come of themselves: in long runs of Adam, at the end of a run, where an answer is as good as certain."""
    monkeypatch.setattr(mlgraph.engine.engine.Plan, "examples_at_once", 7)
    x = np.random.default_rng(0).normal(size=(64, 4))
    y, tangent = np.argmax(x[:, :2], axis=1), np.full(x.shape, 1e-44, np.float32)

    def ends():
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

    expected = ends()
    with np.errstate(all="raise"):
        assert ends() == expected
