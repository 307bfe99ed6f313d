"""Weight decay applies to edge weights alone, however a step is taken."""

import numpy as np
import pytest
from overflowing import X, Y, network

import mlgraph


@pytest.mark.parametrize("momentum", [0, 0.9, 1 - 1e-9])
def test_weights_decay_at_the_rate_of_each_step(momentum):
    """With the last momentum no step is certain to be finite, and each is taken alone."""
    net = network()
    for layer in net.layers:
        layer.biases = np.arange(layer.size) + 1.0
    before = [(layer.weights, layer.biases) for layer in net.layers]
    history = net.fit(
        X,
        Y,
        epochs=3,
        batch_size=60,
        momentum=momentum,
        learning_rate=(1e-30, 1e-31),
        weight_decay=1e29,
        optimizer="sgd",
    )
    left = np.prod(1 - 1e29 * history.learning_rate)  # each step has a rate of its own
    assert len(history.learning_rate) > 6 and 0.4 < left < 0.9
    for layer, (weights, biases) in zip(net.layers, before, strict=True):
        np.testing.assert_allclose(layer.weights, weights * left, rtol=1e-5, atol=1e-29)
        np.testing.assert_array_equal(layer.biases, biases)


@pytest.mark.parametrize("frozen", [False, True])
def test_infinite_weight_does_not_decay_to_nan(sweep, frozen):
    """A relu that is never active, next to a frozen edge, too."""
    g = mlgraph.Graph(seed=0)
    x = g.add_input()
    off, on = (g.add_neuron([x], "relu", weights=[w]) for w in (-np.inf, 1.0))
    last = g.add_neuron([off, on], weights=[1.0, 1.0])
    g.edge(off, last).frozen = frozen
    model = mlgraph.Model(g, last)
    model.fit(np.ones((8, 1)), np.ones(8), epochs=1, batch_size=8, momentum=0, learning_rate=0.1, weight_decay=5)
    assert off.weights[0] == -np.inf and on.weights[0] < 1 and last.weights[0] == (1 if frozen else 0.5)


def test_parameter_nodes_do_not_decay():
    """They do not, even where the plan runs them as weights of a neuron."""
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(3)
    *weights, lone = (g.add_parameter(w) for w in (1.0, 2.0, 3.0, 4.0))
    out = mlgraph.sum(*(w * s for w, s in zip(weights, x, strict=True)))
    beside = g.add_neuron(x, weights=[1.0, 2.0, 3.0])
    model = mlgraph.Model(g, [out, beside, lone * x[0]])
    model.fit(np.zeros((8, 3)), np.zeros((8, 3)), epochs=1, batch_size=8, learning_rate=0.1, weight_decay=5, momentum=0)
    assert beside.weights.tolist() == [0.5, 1.0, 1.5] and lone.value == 4.0
    assert [w.value for w in weights] == [1.0, 2.0, 3.0]
