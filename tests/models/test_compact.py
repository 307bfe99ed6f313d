"""Copies without the nodes that nothing needs: they compute and learn the same."""

import numpy as np
import pytest
from learnable import FLOATS, X, Y, network

import mlgraph


def pruned(**options):
    net = network(**options)
    net.fit(X, Y, epochs=1)
    for layer in net.layers[:-1]:
        for i in (0, 3, layer.size - 1):
            layer.neurons[i].prune()
    net.prune(0.6, by="random", seed=1)
    return net


@pytest.mark.parametrize("options", [{}, {"dropout": 0.2}, {"weight_dropout": 0.3}], ids=repr)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_network(tmp_path, options, optimizer):
    net = pruned(**options)
    alive = [sum(neuron.alive for neuron in layer.neurons) for layer in net.layers]
    before, bits, last = len(net.graph), net.graph.get_parameters().tobytes(), net.forward(X).tobytes()
    small = net.compact()
    assert small.forward(X).tobytes() == last
    assert small.n_edges == net.n_edges and small.n_parameters == net.n_parameters == small.graph.n_parameters
    assert [layer.size for layer in small.layers] == alive != [layer.size for layer in net.layers]
    assert len(small.graph) == before - sum(layer.size for layer in net.layers) + sum(alive)
    below = np.ones(X.shape[1], bool)
    for mine, theirs in zip(small.layers, net.layers, strict=True):
        made_with = [(layer.activation, layer.dropout, layer.weight_dropout) for layer in (mine, theirs)]
        assert made_with[0] == made_with[1]
        here = np.array([neuron.alive for neuron in theirs.neurons])
        np.testing.assert_array_equal(mine.weights, theirs.weights[here][:, below])
        np.testing.assert_array_equal(mine.biases, theirs.biases[here])
        below = here
    small.save(tmp_path / "model.npz")
    loaded = mlgraph.load(tmp_path / "model.npz")
    for model in (small, loaded):
        model.fit(X, Y, epochs=2, optimizer=optimizer, learning_rate=0.01, seed=4)
    assert loaded.forward(X).tobytes() == small.forward(X).tobytes() != last
    assert (len(net.graph), net.graph.get_parameters().tobytes(), net.forward(X).tobytes()) == (before, bits, last)
    net.undo()
    assert net.n_edges > small.n_edges


def test_nothing_to_leave_out_is_a_copy():
    net = network()
    net.layers[0].neurons[2].frozen = True
    small = net.compact()
    assert len(small.graph) == len(net.graph) and repr(small) == repr(net) and small.sparsity == 0
    assert [n.frozen for n in small.layers[0].neurons] == [n.frozen for n in net.layers[0].neurons]
    small.fit(X, Y, epochs=1)
    assert small.forward(X).tobytes() != net.forward(X).tobytes()
    assert small.compact().forward(X).tobytes() == small.forward(X).tobytes()


def test_a_graph_of_ones_own():
    """Names, constants, parameters, operations, a loss that is a node, another model of the graph."""
    g = mlgraph.Graph()
    x = [g.input(f"x{i}") for i in range(FLOATS.shape[1])]
    lost = mlgraph.exp(g.parameter(7.0, "lost") * x[0] + 11.0)
    scale = g.parameter(1.5, "scale")
    hidden = g.add_neuron(x[2:6], "tanh", weights=[0.1, -0.2, 0.3, 0.4], bias=0.25)
    out = scale * hidden + 0.125
    other = mlgraph.Model(g, lost)
    model = mlgraph.Model(g, out, loss=mlgraph.log(1 + (out - x[1]) ** 2))
    model.fit(FLOATS, epochs=1, learning_rate=0.01)
    small = model.compact()
    assert {node.name for node in small.graph} >= {"x0", "x1", "scale"} and "lost" not in {
        node.name for node in small.graph
    }
    assert small.graph.n_inputs == len(x) and small.n_parameters == 6 == small.graph.n_parameters
    assert small.evaluate(FLOATS) == model.evaluate(FLOATS) and small.loss == "node"
    assert small.forward(FLOATS).tobytes() == model.forward(FLOATS).tobytes()
    before = other.forward(FLOATS).tobytes()
    assert small.fit(FLOATS, epochs=2).epoch_loss.tolist() == model.fit(FLOATS, epochs=2).epoch_loss.tolist()
    assert other.forward(FLOATS).tobytes() == before
    assert str(small.outputs[0]) == f"scale * {small.graph[small.output_ids[0]].graph[len(x) + 1].name} + 0.125"


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy"])
def test_probabilities_come_along(loss):
    g = mlgraph.Graph()
    x = g.inputs(FLOATS.shape[1])
    unused = g.add_neurons(x, weights=np.ones((5, len(x))))
    model = mlgraph.Model(g, [g.add_neuron(x, weights=np.linspace(-k, k, len(x))) for k in (1, 2)], loss)
    small = model.compact()
    assert len(small.graph) == len(g) - len(unused)
    np.testing.assert_array_equal(small.predict_proba(FLOATS), model.predict_proba(FLOATS))


@pytest.mark.parametrize("last", ["identity", "sigmoid", "softmax"])
@pytest.mark.parametrize("first", ["tanh", "softmax"])
def test_whatever_the_layers(tmp_path, first, last):
    net = mlgraph.Network(FLOATS.shape[1], seed=0)
    net.add_layer(6, first)
    net.add_layer(3, last)
    for output in net.outputs:
        for source in (1, 4):
            net.graph.edge(net.graph[net.layers[1].source_ids[source]], output).prune()
    small = net.compact()
    # A layer of probabilities is whole or not at all: each depends on all logits.
    assert [layer.size for layer in small.layers] == [6 if first == "softmax" else 4, 3]
    assert small.forward(FLOATS).tobytes() == net.forward(FLOATS).tobytes() and small.loss == net.loss
    small.save(tmp_path / "model.npz")
    assert mlgraph.load(tmp_path / "model.npz").forward(FLOATS).tobytes() == small.forward(FLOATS).tobytes()
    left = slice(6) if first == "softmax" else [0, 2, 3, 5]
    np.testing.assert_array_equal(small.layers[1].weights, net.layers[1].weights[:, left])
    assert len(net.draw(FLOATS[0]).to_dot()) and np.isfinite(small.fit(FLOATS, Y, epochs=1).epoch_loss).all()


def test_what_a_model_has_besides():
    class Named(mlgraph.Network):
        pass

    net = Named(3)
    net.add_layer(2)
    net.tags = ["a"]
    small = net.compact()
    assert type(small) is Named and small.tags == ["a"] and small.tags is not net.tags


def test_what_evolution_leaves_behind():
    g = mlgraph.Graph()
    x = g.inputs(2)
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


def test_nodes_of_the_copy_were_there_before_anything_is_asked_of_it():
    net = pruned()
    assert net.graph.edits > 0
    small = net.compact()
    gradients = small.graph.compile(small.outputs).vjp(X)
    assert [len(gradients.of(neuron)) for neuron in small.outputs] == [len(neuron.sources) for neuron in small.outputs]


def test_the_copy_knows_of_what_is_cut_off():
    g = mlgraph.Graph()
    x = g.inputs(2)
    a, b = g.add_neuron(x), g.add_neuron(x)
    model = mlgraph.Model(g, mlgraph.tanh(a) * b)
    a.prune()
    small = model.compact()
    (nothing,) = (node for node in small.graph if node.kind == "tanh")
    with pytest.raises(ValueError, match=r"sources: .* depends only on neurons that are cut off"):
        small.graph.add_neuron([nothing])


def test_neurons_of_the_copy_share_their_list():
    net = mlgraph.Network(12, seed=0)
    net.add_layer(20, "identity")
    net.add_layer(3)
    assert len(net.compact().graph._pool) == 12 + 20


def test_names_of_what_is_left_out_are_gone(tmp_path):
    g = mlgraph.Graph()
    x = g.inputs(2)
    lost, out = g.add_neuron(x), g.add_neuron(x)
    lost.name, out.name = "lost", "out"
    small = mlgraph.Model(g, out).compact()
    small.save(tmp_path / "small.npz")
    assert [node.name for node in mlgraph.load(tmp_path / "small.npz").graph] == [x[0].name, x[1].name, "out"]


def test_a_layer_that_is_gone():
    """Past which edges lead; the next one reads the layer before it."""
    net = mlgraph.Network(FLOATS.shape[1], seed=0)
    for size, activation in ((5, "softmax"), (4, "relu"), (3, "softmax")):
        net.add_layer(size, activation)
    for k in range(3):
        net.graph.add_edge(net.layers[1].graph[net.layers[1].source_ids[k]], net.outputs[k], 0.5)
    for neuron in net.layers[1].neurons:
        neuron.prune()
    small = net.compact()
    assert [layer.size for layer in small.layers] == [5, 3] and small.layers[1].weights.shape == (3, 5)
    assert small.layers[1].weights.sum() == 1.5
    assert small.forward(FLOATS).tobytes() == net.forward(FLOATS).tobytes()
    assert np.isclose(small.fit(X, Y, epochs=1).epoch_loss, net.fit(X, Y, epochs=1).epoch_loss, rtol=1e-5).all()


def test_a_network_without_layers():
    with pytest.raises(ValueError, match=r"^network: expected at least one layer, got none; add_layer adds one$"):
        mlgraph.Network(3).compact()


def test_what_is_compacted_can_be_saved(tmp_path):
    """Though a neuron was made with more edges than there are nodes now."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(100, "tanh")
    net.add_layer(1)
    net.prune(neurons=0.98)
    small = net.compact()
    small.save(tmp_path / "small.npz")
    again = mlgraph.load(tmp_path / "small.npz")
    x = np.ones((3, 2))
    assert again.forward(x).tobytes() == small.forward(x).tobytes() == net.forward(x).tobytes()
    assert again.sparsity == small.sparsity > 0
