"""Compact copies contain only the nodes that the model needs; they compute and learn the same."""

import numpy as np
import pytest
from learnable import FLOATS, X, Y, network

import mlgraph


def pruned(**options):
    net = network(**options)
    net.fit(X, Y, epochs=1)
    for i in (0, 3, 15):
        net.layers[0][i].prune()
    net.prune(0.6, by="random", seed=1)
    net.graph.add_edge(net.layers[0][3], net.outputs[0])  # out of a dead neuron
    return net


@pytest.mark.parametrize("options", [{}, {"dropout": 0.2}, {"weight_dropout": 0.3}], ids=repr)
def test_compact_network_has_the_live_part_of_each_layer(tmp_path, options):
    net = pruned(**options)
    alive = [np.array([neuron.alive for neuron in layer]) for layer in net.layers]
    before, bits, outputs = len(net.graph), net.graph.get_parameters().tobytes(), net.forward(X)
    small = net.compact()
    # The edge out of a dead neuron, which adds 0, may change the order in which a build sums the others.
    np.testing.assert_allclose(small.forward(X), outputs, rtol=1e-5, atol=1e-6)
    assert small.n_edges == net.n_edges and small.n_parameters == net.n_parameters == small.graph.n_parameters
    assert len(small.graph) == before - sum(np.count_nonzero(~here) for here in alive) < before
    below = np.ones(X.shape[1], bool)
    for mine, theirs, here in zip(small.layers, net.layers, alive, strict=True):
        assert mine.size == here.sum() and mine.activation == theirs.activation
        assert (mine.dropout, mine.weight_dropout) == (theirs.dropout, theirs.weight_dropout)
        np.testing.assert_array_equal(mine.weights, theirs.weights[here][:, below])
        np.testing.assert_array_equal(mine.biases, theirs.biases[here])
        below = here
    small.save(tmp_path / "model.npz")
    loaded = mlgraph.load(tmp_path / "model.npz")
    for model in (small, loaded):
        model.fit(X, Y, epochs=2, optimizer="adam", learning_rate=0.01, seed=4)
    assert loaded.forward(X).tobytes() == small.forward(X).tobytes() != net.forward(X).tobytes() == outputs.tobytes()
    assert (len(net.graph), net.graph.get_parameters().tobytes()) == (before, bits)


def test_compact_of_a_network_without_dead_nodes_is_a_copy():
    class Named(mlgraph.Network):
        pass

    net = Named(12, seed=0)
    net.add_layer(16, "tanh")
    net.add_layer(3, "identity")
    net.tags, net.layers[0][2].frozen = ["a"], True
    small = net.compact()
    assert type(small) is Named and small.tags == ["a"] and small.tags is not net.tags
    assert len(small.graph) == len(net.graph) and repr(small) == repr(net) and small.sparsity == 0
    assert [neuron.frozen for neuron in small.layers[0]] == [neuron.frozen for neuron in net.layers[0]]
    assert len(small.graph._pool) == 12 + 16, "neurons of a layer still share one list of sources"
    small.fit(X, np.eye(3)[Y], epochs=1)
    assert small.forward(X).tobytes() != net.forward(X).tobytes()


def test_compact_keeps_names_and_a_loss_that_is_a_node(tmp_path):
    g = mlgraph.Graph(seed=0)
    x = [g.add_input(f"x{i}") for i in range(FLOATS.shape[1])]
    other = mlgraph.Model(g, mlgraph.exp(g.add_parameter(7.0, "lost") * x[0] + 11.0))
    hidden = g.add_neuron(x[2:6], "tanh", weights=[0.1, -0.2, 0.3, 0.4], bias=0.25)
    hidden.name = "hidden"
    out = g.add_parameter(1.5, "scale") * hidden + 0.125
    model = mlgraph.Model(g, out, loss=mlgraph.log(1 + (out - x[1]) ** 2))
    model.fit(FLOATS, epochs=1, learning_rate=0.01)
    small, before = model.compact(), other.forward(FLOATS)
    assert str(small.outputs[0]) == "scale * hidden + 0.125" and "lost" not in {node.name for node in small.graph}
    assert small.graph.n_inputs == len(x) and small.n_parameters == 6 == small.graph.n_parameters
    assert small.evaluate(FLOATS) == model.evaluate(FLOATS) and small.loss == "node"
    small.save(tmp_path / "small.npz")
    assert {node.name for node in mlgraph.load(tmp_path / "small.npz").graph} == {node.name for node in small.graph}
    assert small.fit(FLOATS, epochs=2).epoch_loss.tolist() == model.fit(FLOATS, epochs=2).epoch_loss.tolist()
    np.testing.assert_array_equal(other.forward(FLOATS), before)


@pytest.mark.parametrize("last", ["identity", "sigmoid", "softmax"])
@pytest.mark.parametrize("first", ["tanh", "softmax"])
def test_layers_of_probabilities_stay_whole(tmp_path, first, last):
    """Each probability depends on all logits."""
    net = mlgraph.Network(FLOATS.shape[1], seed=0)
    net.add_layer(6, first)
    net.add_layer(3, last, loss="binary_cross_entropy" if last == "sigmoid" else None)
    net.layers[1].mask = np.repeat([[True, False, True, True, False, True]], 3, axis=0)
    small = net.compact()
    assert [layer.size for layer in small.layers] == [6 if first == "softmax" else 4, 3] and small.loss == net.loss
    np.testing.assert_array_equal(small.layers[1].weights[:, -1], net.layers[1].weights[:, -1])
    small.save(tmp_path / "model.npz")
    for model in (small, mlgraph.load(tmp_path / "model.npz")):
        assert model.forward(FLOATS).tobytes() == net.forward(FLOATS).tobytes()
        if net.probabilities:
            assert model.predict_proba(FLOATS).tobytes() == net.predict_proba(FLOATS).tobytes()
    assert np.isfinite(small.fit(FLOATS, np.eye(3)[Y], epochs=1).epoch_loss).all()


def test_layer_without_live_neurons_is_gone():
    """Edges that skip the layer become edges from the layer before."""
    net = mlgraph.Network(FLOATS.shape[1], seed=0)
    for size, activation in ((5, "softmax"), (4, "relu"), (3, "softmax")):
        net.add_layer(size, activation)
    for k in range(3):
        net.graph.add_edge(net.layers[1][0].sources[k], net.outputs[k], 0.5)
    net.graph.prune(net.layers[1])
    small = net.compact()
    assert [layer.size for layer in small.layers] == [5, 3]
    np.testing.assert_array_equal(small.layers[1].weights, 0.5 * np.eye(3, 5))
    assert small.forward(FLOATS).tobytes() == net.forward(FLOATS).tobytes()


def test_compact_frees_what_many_edits_leave_behind():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(2)
    out = g.add_neuron(x, weights=[1.0, 1.0])
    model = mlgraph.Model(g, out)
    for _ in range(50):
        with g.one_edit():
            neuron = g.add_neuron(x, "tanh", weights=[1.0, 1.0])
            g.add_edge(neuron, out, 1.0)
        neuron.prune()
    small = model.compact()
    assert len(g) == 53 and len(small.graph) == 3 and small.graph.n_parameters == 3
    assert len(small.graph._pool) == 2 and small.graph.storage.used <= 16


def test_gradients_know_all_nodes_of_a_compact_copy():
    """Its nodes count as older than any edit of the model."""
    net = pruned()
    assert net.graph.edits > 0
    small = net.compact()
    gradients = small.graph.compile(small.outputs).vjp(X)
    assert [len(gradients.of(neuron)) for neuron in small.outputs] == [len(neuron.sources) for neuron in small.outputs]


def test_compact_copy_refuses_dead_sources():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(2)
    a, b = g.add_neuron(x), g.add_neuron(x)
    model = mlgraph.Model(g, mlgraph.tanh(a) * b)
    a.prune()
    small = model.compact()
    (dead,) = (node for node in small.graph if node.kind == "tanh")
    with pytest.raises(ValueError, match=r"sources: .* depends only on neurons that are cut off"):
        small.graph.add_neuron([dead])


def test_compact_copy_of_a_few_neurons_can_be_saved(tmp_path):
    """A neuron may once have had more edges than the copy has nodes."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(100, "tanh")
    net.add_layer(1)
    net.prune(neurons=0.98)
    small = net.compact()
    small.save(tmp_path / "small.npz")
    loaded = mlgraph.load(tmp_path / "small.npz")
    x = np.ones((3, 2))
    assert loaded.forward(x).tobytes() == small.forward(x).tobytes() == net.forward(x).tobytes()
    assert loaded.sparsity == small.sparsity > 0
