"""Edits of a network: what they change, and that nothing else changes."""

import numpy as np
import pytest
from editable import X, Y, everything, network

import mlgraph
from mlgraph.graph import arrays, edits


@pytest.mark.parametrize("layer", [0, 1])
def test_cut_neuron_equals_zero_weights_bitwise(sweep, layer):
    """Both are dense blocks, which sum source by source, and adding 0 changes no sum."""
    net, zeroed = (network(hidden=(20, 16), classes=9) for _ in range(2))
    for k in (3, 7):
        net.layers[layer].neurons[k].prune()
        neuron = zeroed.layers[layer].neurons[k]
        for edge in (*neuron.in_edges, *neuron.out_edges):
            edge.weight = 0
        neuron.bias = 0
    assert net.forward(X).tobytes() == zeroed.forward(X).tobytes()
    assert net.evaluate(X, Y) == zeroed.evaluate(X, Y)
    assert net.forward(X / 255).tobytes() == zeroed.forward(X / 255).tobytes()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_equals_that_with_a_mask(optimizer):
    """The twin's cut weights are held at 0; the optimizer's state must follow the edit."""
    net, twin = network(), network()
    chosen = np.random.default_rng(1).random(447) < 0.4

    def cut(progress):
        if progress.kind == "epoch" and progress.epoch == 1:
            edits.cut(net.graph, arrays.wiring(net.graph), chosen)

    def hold(progress):
        if progress.epoch > 1 or (progress.kind == "epoch" and progress.epoch == 1):
            for vector in twin.graph.storage.vectors().values():
                vector[arrays.wiring(twin.graph).place[chosen]] = 0

    options = {"epochs": 4, "batch_size": 70, "learning_rate": 0.02, "optimizer": optimizer}
    net.fit(X, Y, callbacks=[cut], **options)
    twin.fit(X, Y, callbacks=[hold], **options)
    np.testing.assert_allclose(net.graph.edges().weight, twin.graph.edges().weight[~chosen], rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(net.history.epoch_loss, twin.history.epoch_loss, rtol=1e-5)
    np.testing.assert_allclose(net.forward(X), twin.forward(X), rtol=1e-4, atol=1e-5)


def test_edge_is_read_assigned_and_cut_by_its_view():
    net = network()
    a, b = net.layers[0].neurons[2], net.layers[1].neurons[4]
    edge = net.graph.edge(a, b)
    assert tuple(edge) == (a, b, b.weights[2]) and repr(edge) == "<edge layer 0 neuron 2 to layer 1 neuron 4>"
    assert edge == b.in_edges[2] != b.in_edges[3] and len({edge, b.in_edges[2], b.in_edges[3]}) == 2
    edge.weight = 0.25
    assert b.weights[2] == edge.weight == b.in_edges[2].weight == 0.25
    rest, later = np.delete(b.weights, 2), b.in_edges[7]
    edge.prune()
    assert later.weight == rest[6] and later == b.in_edges[6]
    assert a not in b.sources and b not in a.targets and a.alive and b.alive and net.n_edges == 446
    np.testing.assert_array_equal(b.weights, rest)
    for use in (lambda: edge.weight, lambda: setattr(edge, "weight", 1), edge.prune):
        with pytest.raises(ValueError, match="there is no edge from layer 0 neuron 2 to layer 1 neuron 4"):
            use()


def test_bias_can_be_removed_and_added():
    """Each is an edit. A removed bias is neither used nor trained."""
    net = network()
    neuron, n, before = net.layers[0].neurons[19], net.n_parameters, everything(net.graph)
    neuron.bias = None
    assert neuron.bias is None and net.n_parameters == n - 1 and np.isnan(net.layers[0].biases[19])
    z = X / 255 @ neuron.weights.astype(float)
    np.testing.assert_allclose(net.trace(X)[neuron], np.where(z > 0, z, 0.01 * z), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"neuron: .* has no bias"):
        net.gradients(X, Y).of_bias(neuron)
    net.undo()
    assert everything(net.graph) == before
    neuron.bias = None
    net.fit(X, Y, epochs=1, optimizer="sgd", learning_rate=0.05, batch_size=128)
    assert neuron.bias is None
    neuron.bias = -0.5
    assert neuron.bias == -0.5 and net.layers[0].biases[19] == -0.5
    gradient = net.gradients(X, Y).of_bias(neuron)
    net.fit(X, Y, epochs=1, batch_size=len(X), learning_rate=0.01, optimizer="sgd")
    np.testing.assert_allclose(neuron.bias, -0.5 - 0.01 * gradient, rtol=1e-5)


def test_activation_can_be_changed():
    """It is an edit; traces keep the derivatives of the old activation."""
    net = network()
    neuron, before = net.layers[1].neurons[2], everything(net.graph)
    traced = net.trace(X, Y, nodes=[neuron])
    deltas = traced.deltas()
    neuron.activation = "sigmoid"
    assert neuron.activation == "sigmoid" and net.layers[1].activation == "leaky_relu"
    z = net.trace(X, nodes=net.layers[0].neurons).values @ neuron.weights + neuron.bias
    np.testing.assert_allclose(net.trace(X)[neuron], 1 / (1 + np.exp(-z)), rtol=1e-5)
    assert traced.deltas().tobytes() == traced.of([neuron]).deltas().tobytes() == deltas.tobytes()
    net.undo()
    assert everything(net.graph) == before


def test_prune_cuts_many_things_as_one_edit():
    """Neurons, edges and pairs, each in any of their forms."""
    one, many = network(), network()
    first, second, _ = one.layers
    for what in (first[3], second[1].in_edges[0], [(first[4], second[5])], first[6:8]):
        one.graph.prune(what)
    first, second, _ = many.layers
    edge = mlgraph.Edges([first[4].id], [second[5].id], [0.0])
    with many.graph.one_edit():
        many.graph.prune(iter([first[3], second[1].in_edges[0]]))
        many.graph.prune(edge)
        many.graph.prune(np.array(first.ids[6:8]))
    assert everything(one.graph) == everything(many.graph)
    many.undo()
    many.graph.prune([first[3], (second[1].sources[0], second[1]), (first[4].id, second[5].id), *first[6:8]])
    assert everything(one.graph) == everything(many.graph)
    many.undo()
    assert everything(many.graph) == everything(network().graph)


def test_cut_neuron_is_not_counted():
    net = network()
    neuron = net.layers[0].neurons[5]
    assert neuron.alive and len(neuron.sources) == 12 and neuron.targets == net.layers[1].neurons
    assert (net.n_edges, net.n_parameters, net.sparsity) == (447, 479, 0)
    neuron.prune()
    assert not neuron.alive and neuron.sources == neuron.targets == neuron.in_edges == [] and len(neuron.weights) == 0
    assert neuron.bias == pytest.approx(0.55) and neuron.activation == "leaky_relu" and net.graph[neuron.id] == neuron
    assert (net.n_edges, net.n_parameters, net.sparsity) == (447 - 21, 479 - 22, pytest.approx(21 / 447))
    neuron.prune()
    assert net.n_edges == 447 - 21


def test_neuron_that_reaches_no_output_keeps_its_edges():
    """It is not computed but can be connected again."""
    net = network()
    a, others = net.layers[0].neurons[0], net.layers[1].neurons
    net.graph.prune([(a, b) for b in others])
    assert not a.alive and len(a.sources) == 12 and net.graph.n_edges == 447 - 9 and net.n_edges == 447 - 9 - 12
    net.graph.add_edge(a, others[3], 0.5)
    assert a.alive and net.n_edges == 447 - 8


def test_masks_are_assigned_in_any_order():
    net = mlgraph.Network(4, seed=0)
    for size in (3, 3, 2):
        net.add_layer(size)
    net.layers[0].neurons[1].prune()
    assert not net.layers[1].mask[:, 1].any()
    net.layers[1].mask = np.ones((3, 3), bool)
    assert net.layers[1].mask.all() and net.n_edges == 4 * 2 + 2 * 3 + 3 * 2
    net.layers[0].mask = np.ones((3, 4), bool)
    assert net.layers[1].mask.all() and net.n_edges == 4 * 3 + 3 * 3 + 3 * 2


def test_edge_keys_exceed_32_bits():
    g = mlgraph.Graph()
    x = g.add_inputs(50_000)
    first, second = (g[i] for i in g.add_neurons(x[:3], weights=np.ones((2, 3))))
    model = mlgraph.Model(g, [first, second])
    g.prune([(x[0], second)])
    g.add_edge(x[40_000], second)
    with pytest.raises(ValueError, match="already exists"):
        g.add_edge(x[40_000], second)
    assert model.n_edges == 6


def test_neuron_without_live_source_is_zero():
    """Its bias is ignored, and edges out of it are cut; it may be read and connected again."""
    g = mlgraph.Graph()
    x, p = g.add_inputs(2), g.add_parameter(3.0)
    a = g.add_neuron(x, "relu", weights=[1, 1], bias=1.0)
    b = g.add_neuron([a], "sigmoid", weights=[1], bias=2.0)
    c = g.add_neuron([b, x[0]], weights=[10, 3], bias=0.5)
    model = mlgraph.Model(g, [c])
    f = g.compile([c, mlgraph.exp(b) * x[0], b + p])
    g.prune([(x[0], a), (x[1], a)])
    assert c.sources == [x[0]] and b.sources == [] and not a.alive and not b.alive and str(b) == "0"
    assert model.n_edges == 1 and model.sparsity == pytest.approx(4 / 5)
    assert f([[2, 7]]).tolist() == [[6.5, 2, 3]]
    gradients = f.vjp([[2, 7]])
    assert gradients.inputs.tolist() == [[4, 0]] and gradients.of(p) == 1 and len(gradients.of(b)) == 0
    reader = g.add_neuron([b, x[0]], "sigmoid", weights=[5, 1], bias=0.25)
    assert g.compile(reader)([[2, 7]]) == pytest.approx(1 / (1 + np.exp(-2.25)))
    g.add_edge(x[0], b, 1.0)
    assert reader.sources == [b, x[0]]
    assert g.compile(reader)([[0, 7]]) == pytest.approx(1 / (1 + np.exp(-0.25 - 5 / (1 + np.exp(-2)))))
