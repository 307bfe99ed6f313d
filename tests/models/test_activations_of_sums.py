"""Layers of gelu, silu and softplus: activations whose derivative needs the weighted sum."""

import numpy as np
import pytest
from learnable import FLOATS, X, Y, bits

import mlgraph
from mlgraph.graph import ops

NAMES = ("gelu", "silu", "softplus")


def network(name, **options):
    net = mlgraph.Network(X.shape[1], seed=0)
    for size in (24, 9):
        net.add_layer(size, name, **options)
    net.add_layer(3, "softmax")
    return net


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_those_of_identity_neurons_and_operations(name):
    net = network(name)
    g = mlgraph.Graph()
    nodes = g.add_inputs(X.shape[1])
    for layer in net.layers:
        sums = [g[i] for i in g.add_neurons(nodes, weights=layer.weights, biases=layer.biases)]
        nodes = [g.add_operation(name, node) for node in sums] if layer is not net.layers[-1] else sums
    ours, theirs = (graph.compile(outs) for graph, outs in ((net.graph, net.layers[-1].neurons), (g, nodes)))
    cotangent = np.random.default_rng(0).normal(size=(len(X), 3))
    x = X.astype(np.float32)
    np.testing.assert_array_equal(ours(x), theirs(x))
    a, b = ours.vjp(x, cotangent), theirs.vjp(x, cotangent)
    np.testing.assert_array_equal(a.inputs, b.inputs)
    np.testing.assert_array_equal(a.flat, b.flat)
    mlgraph.testing.check_gradients(net.layers[-1].neurons, x[:5])


@pytest.mark.parametrize("options", [{"dropout": 0.3}, {"weight_dropout": 0.3}, {}])
@pytest.mark.parametrize("name", NAMES)
def test_training_does_not_depend_on_threads_and_files_hold_it(name, options, tmp_path):
    found = []
    for n_threads in (1, 3):
        net = network(name, **options)
        net.fit(X, Y, epochs=4, seed=1, n_threads=n_threads, verbose=False)
        found.append(bits(net))
    assert found[0] == found[1]
    assert net.history.epoch_loss[-1] < net.history.epoch_loss[0]
    net.prune(0.4)
    net.save(tmp_path / "net.npz")
    loaded = mlgraph.load(tmp_path / "net.npz")
    assert loaded.layers[0].activation == loaded.layers[0][0].activation == name
    np.testing.assert_array_equal(loaded.predict(X), net.predict(X))
    before = net.predict(X)
    net.regrow(0.1, by="gradient", data=(X, Y))
    net.graph.undo()
    np.testing.assert_array_equal(net.predict(X), before)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_comes_after_the_activation(name):
    """A dropped neuron is 0, not the activation of 0; the others are scaled after the activation."""
    net = mlgraph.Network(1, seed=0)
    net.add_layer(1, name, dropout=0.5)
    net.add_layer(1, "identity", bias=False)
    net.layers[0].weights, net.layers[0].biases, net.layers[1].weights = [[1.0]], [0.5], [[1.0]]
    options = {"optimizer": "sgd", "learning_rate": 0.0, "batch_size": 1, "shuffle": False, "verbose": False}
    net.fit([[0.75]] * 64, [[0.0]] * 64, epochs=1, seed=0, **options)
    kept = 2 * float(ops.OPS[name].value(1.25))
    losses = np.unique(net.history.batch_loss)
    np.testing.assert_allclose(losses, [0, kept**2], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_deltas_are_the_gradients_of_biases(name):
    net = network(name)
    net.layers[0].mask = np.random.default_rng(0).random((24, X.shape[1])) < 0.5
    neurons = [*net.layers[0], *net.layers[1]]
    gradients, traced = net.gradients(X, Y), net.trace(X, Y)
    expected = [gradients.of_bias(neuron) for neuron in neurons]
    for part in (traced.of(neurons), net.trace(X, Y, nodes=neurons)):
        np.testing.assert_allclose(part.deltas().mean(axis=0), expected, rtol=1e-3, atol=1e-7)


def test_grad_goes_through_softplus_and_names_what_it_cannot_derive():
    g = mlgraph.Graph()
    x = g.add_input("x")
    second = mlgraph.grad(mlgraph.grad(g.add_neuron([x], "softplus", weights=[2.0], bias=0.5), x), x)
    at = np.linspace(-3, 3, 20)[:, None]
    s = 1 / (1 + np.exp(-2 * at - 0.5))
    np.testing.assert_allclose(g.compile(second)(at), 4 * s * (1 - s), rtol=1e-4)
    with pytest.raises(ValueError, match=r"make it an identity neuron, and use mlgraph\.silu\(neuron\)"):
        mlgraph.grad(g.add_neuron([x], "silu"), x)


@pytest.mark.parametrize("name", NAMES)
def test_c_formulas_inspection_freezing_and_compact(name):
    net = network(name)
    x = FLOATS
    assert name in net.graph.compile(net.outputs).to_c()
    assert str(net.graph.add_neuron(net.graph.inputs[:1], name, weights=[2.0])).startswith(f"{name}(2*")
    net.layers[0].mask = np.repeat(np.arange(24)[:, None] % 2 == 0, X.shape[1], axis=1)
    before = net.predict(x)
    net.compact()
    np.testing.assert_allclose(net.predict(x), before, rtol=1e-5, atol=1e-6)
    net.layers[0].frozen = True
    frozen = net.layers[0].weights.copy()
    net.fit(x, Y, epochs=1, verbose=False)
    np.testing.assert_array_equal(net.layers[0].weights, frozen)
    table = net.inspect(x, Y)
    assert np.isfinite(table["loss"][table["layer"] == 0]).all()  # without an output there is no loss
    assert net.ablate(net.layers[0][0], x, Y)["loss"] != net.evaluate(x, Y)["loss"]
