"""Cutting edges and neurons: the result, the errors, and that nothing else changes."""

import gc

import numpy as np
import pytest
from editable import X, Y, everything, network

import mlgraph
from mlgraph.graph import arrays, edits


def zero(net, neuron):
    """The dense way to cut a neuron: all its weights are 0."""
    neuron.weights, neuron.bias = np.zeros(len(neuron.weights)), 0
    for target in neuron.targets:
        target.weights[target.sources.index(neuron)] = 0


# --- cutting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 1])
def test_cut_neuron_equals_zero_weights_bitwise(sweep, layer):
    """Both are dense blocks, which sum source by source, and adding 0 changes no sum."""
    net, zeroed = (network(hidden=(20, 16), classes=9) for _ in range(2))
    for k in (3, 7):
        net.layers[layer].neurons[k].prune()
        zero(zeroed, zeroed.layers[layer].neurons[k])
    assert net.forward(X).tobytes() == zeroed.forward(X).tobytes()
    assert net.evaluate(X, Y) == zeroed.evaluate(X, Y)
    assert net.forward(X / 255).tobytes() == zeroed.forward(X / 255).tobytes()


def test_cut_edges_equal_zero_weights(sweep):
    """Up to rounding: sparse rows sum in another order than dense blocks."""
    net, zeroed = network(), network()
    edges = arrays.wiring(net.graph)
    gone = np.random.default_rng(0).random(len(edges.source)) < 0.6
    for source, target in zip(edges.source[gone], edges.target[gone], strict=True):
        neuron = zeroed.graph[target]
        neuron.weights[zeroed.graph.sources_of(target) == source] = 0
    edits.cut(net.graph, edges, gone)
    np.testing.assert_allclose(net.forward(X), zeroed.forward(X), rtol=1e-5, atol=1e-6)
    assert net.graph.n_edges == (~gone).sum() >= net.n_edges == int(repr(net).split()[2])


def test_cut_neuron_is_not_counted():
    net = network()
    neuron = net.layers[0].neurons[5]
    assert neuron.alive and len(neuron.sources) == 12 and neuron.targets == net.layers[1].neurons
    assert (net.n_edges, net.n_parameters, net.sparsity) == (447, 479, 0)
    neuron.prune()
    assert not neuron.alive and neuron.sources == neuron.targets == neuron.edges == [] and len(neuron.weights) == 0
    assert neuron.bias == pytest.approx(0.55) and neuron.activation == "leaky_relu" and net.graph[neuron.id] == neuron
    assert (net.n_edges, net.n_parameters, net.sparsity) == (447 - 21, 479 - 22, pytest.approx(21 / 447))
    neuron.prune()
    assert net.n_edges == 447 - 21


def test_view_of_an_edge():
    net = network()
    a, b = net.layers[0].neurons[2], net.layers[1].neurons[4]
    edge = net.graph.edge(a, b)
    assert (edge.source, edge.target, edge.weight) == (a, b, b.weights[2]) and edge in b.edges
    assert edge == b.edges[2] != b.edges[3] and len({edge, b.edges[2], b.edges[3]}) == 2
    assert repr(edge) == f"<edge {a.name} to {b.name}>"
    edge.weight = 0.25
    assert b.weights[2] == edge.weight == b.edges[2].weight == 0.25
    rest, later = np.delete(b.weights, 2), b.edges[7]
    edge.prune()
    assert later.weight == rest[6] and later == b.edges[6]
    assert a not in b.sources and b not in a.targets and a.alive and b.alive and net.n_edges == 446
    np.testing.assert_array_equal(b.weights, rest)
    with pytest.raises(ValueError, match=f"edge: there is no edge from {a.name} to {b.name}"):
        net.graph.edge(a, b)
    for use in (lambda: edge.weight, lambda: setattr(edge, "weight", 1), edge.prune):
        with pytest.raises(ValueError, match=f"there is no edge from {a.name} to {b.name}"):
            use()


def test_bias_can_be_removed_and_added():
    """Each is an edit. A removed bias is neither used nor trained."""
    net = network()
    neuron, probabilities = net.layers[0].neurons[19], net.predict_proba(X)  # the last of its layer
    net.fit(X, Y, epochs=1, batch_size=16)
    n, bias = net.graph.n_parameters, neuron.bias
    neuron.bias = None
    assert neuron.bias is None and net.graph.n_parameters == n - 1
    assert np.isnan(net.layers[0].biases).tolist() == [False] * 19 + [True]
    z = X / 255 @ neuron.weights.astype(float)
    np.testing.assert_allclose(net.trace(X)[neuron], np.where(z > 0, z, 0.01 * z), rtol=1e-5, atol=1e-6)
    net.fit(X, Y, epochs=2, batch_size=16)
    assert neuron.bias is None
    with pytest.raises(ValueError, match=r"neuron: .* has no bias"):
        net.gradients(X, Y).of_bias(neuron)
    net.undo()
    assert neuron.bias == bias and net.graph.n_parameters == n
    neuron.bias = None
    neuron.bias = -0.5
    assert neuron.bias == -0.5 and net.layers[0].biases[19] == -0.5
    gradient = net.gradients(X, Y).of_bias(neuron)
    net.fit(X, Y, epochs=1, batch_size=len(X), learning_rate=0.01)
    np.testing.assert_allclose(neuron.bias, -0.5 - 0.01 * gradient, rtol=1e-5)
    fresh = network()
    before = fresh.layers[0].neurons[19].bias
    with fresh.graph.one_edit():
        fresh.layers[0].neurons[19].bias = None
        fresh.layers[0].neurons[19].bias = before
    assert fresh.predict_proba(X).tobytes() == probabilities.tobytes()


def test_activation_can_be_changed():
    """It is an edit; traces keep the derivatives of the old activation."""
    net = network()
    neuron, probabilities = net.layers[1].neurons[2], net.predict_proba(X)
    traced = net.trace(X, Y, nodes=[neuron])
    deltas = traced.deltas()
    neuron.activation = "sigmoid"
    assert neuron.activation == "sigmoid" and net.layers[1].activation == "leaky_relu"
    z = net.trace(X, nodes=net.layers[0].neurons).values @ neuron.weights + neuron.bias
    np.testing.assert_allclose(net.trace(X)[neuron], 1 / (1 + np.exp(-z)), rtol=1e-5)
    assert traced.deltas().tobytes() == traced.of([neuron]).deltas().tobytes() == deltas.tobytes()
    net.fit(X, Y, epochs=2, batch_size=16)
    net.undo()
    with pytest.raises(ValueError, match=r"^activation: expected one of identity, relu, leaky_relu, .*, got 'sine'"):
        neuron.activation = "sine"
    assert neuron.activation == "leaky_relu"
    fresh = network()
    fresh.layers[1].neurons[2].activation = "tanh"
    assert (fresh.predict_proba(X) != probabilities).any()
    fresh.undo()
    assert fresh.predict_proba(X).tobytes() == probabilities.tobytes()


def test_weights_of_a_layer_are_zero_where_edges_were_cut():
    """Edges from nodes outside the previous layer are not shown."""
    net = network()
    first, second = net.layers[:2]
    dense = second.weights.copy()
    assert dense.shape == (9, 20)
    net.graph.prune([first.neurons[3], (first.neurons[5], second.neurons[2])])
    net.graph.add_edge(net.graph[0], second.neurons[4], 7.0)
    dense[:, 3] = dense[2, 5] = 0
    np.testing.assert_array_equal(second.weights, dense)
    assert not first.weights[3].any() and first.weights.shape == (20, 12)


def test_prune_cuts_many_things_as_one_edit():
    one, many = network(), network()
    layers = [net.layers for net in (one, many)]
    things = [
        [first.neurons[3], second.neurons[1].edges[0], (first.neurons[4], second.neurons[5])]
        for first, second, _ in layers
    ]
    for thing in things[0]:
        one.graph.prune([thing])
    many.graph.prune(iter(things[1]))
    assert everything(one.graph) == everything(many.graph) and one.graph.edits == many.graph.edits + 2
    many.undo()
    assert everything(many.graph) == everything(network().graph)


def test_neuron_without_live_source_is_zero():
    """Its bias is ignored, and edges out of it are cut."""
    g = mlgraph.Graph()
    x = g.inputs(2)
    a = g.add_neuron(x, "relu", weights=[1, 1], bias=1.0)
    b = g.add_neuron([a], "sigmoid", weights=[1], bias=2.0)
    c = g.add_neuron([b, x[0]], weights=[10, 3], bias=0.5)
    model = mlgraph.Model(g, [c])
    assert [n.alive for n in g] == [True] * 5
    g.prune([(x[0], a), (x[1], a)])
    assert [n.alive for n in g] == [True, False, False, False, True]
    assert c.sources == [x[0]] and b.sources == [] and model.n_edges == 1 and model.sparsity == pytest.approx(4 / 5)
    np.testing.assert_array_equal(model.forward([[2, 7]]), [[6.5]])
    g.undo()
    assert c.sources == [b, x[0]] and b.sources == [a] and all(n.alive for n in g)


def test_neuron_that_reaches_no_output_keeps_its_edges():
    """It is not computed but can be connected again."""
    net = network()
    a, others = net.layers[0].neurons[0], net.layers[1].neurons
    net.graph.prune([(a, b) for b in others])
    assert not a.alive and len(a.sources) == 12 and net.graph.n_edges == 447 - 9 and net.n_edges == 447 - 9 - 12
    net.graph.add_edge(a, others[3], 0.5)
    assert a.alive and net.n_edges == 447 - 8


def test_cut_neuron_is_zero_for_operations():
    g = mlgraph.Graph()
    x, p = g.input(), g.parameter(3.0)
    n = g.add_neuron([x], "sigmoid", weights=[1], bias=1.0)
    f = g.compile([mlgraph.exp(n) * x, n + p, n])
    n.prune()
    np.testing.assert_array_equal(f([[2.0]]), [[2.0, 3.0, 0.0]])
    gradients = f.vjp([[2.0]])
    np.testing.assert_array_equal(gradients.inputs, [[1.0]])
    assert gradients.of(p) == 1.0 and len(gradients.of(n)) == 0
    # It may be read and connected again.
    m = g.add_neuron([n, x], weights=[5, 1], bias=0.25)
    np.testing.assert_array_equal(g.compile(m)([[2.0]]), [[2.25]])
    g.add_edge(x, n, 1.0)
    assert m.sources == [n, x]
    np.testing.assert_allclose(g.compile(m)([[2.0]]), 2.25 + 5 / (1 + np.exp(-3)))


def test_gradients_stay_those_of_the_old_sources():
    g = mlgraph.Graph()
    x = g.inputs(3)
    n = g.add_neuron(x, weights=[1, 2, 3])
    gradients = g.compile(n).vjp([[4, 5, 6]])
    g.prune([(x[1], n)])
    np.testing.assert_array_equal(gradients.of(n), [4, 5, 6])


# --- what is refused ------------------------------------------------------------------------------

OTHER = mlgraph.Graph().input()


def path_of(net):
    return [(a, b) for a in net.layers[0].neurons for b in net.layers[1].neurons]


# fmt: off
REFUSED = {
    "an output": (
        lambda net: net.layers[2].neurons[1].prune(),
        ValueError, "prune: n42 is an output of a model and cannot be cut"
    ),
    "the last path": (lambda net: net.graph.prune(path_of(net)), ValueError, "this would disconnect n41"),
    "all sources of an output": (
        lambda net: net.graph.prune(net.layers[2].neurons[2].edges), ValueError, "would disconnect n43"),
    "a whole layer": (lambda net: net.graph.prune(net.layers[0].neurons), ValueError, "would disconnect n41"),
    "no edge": (
        lambda net: net.graph.prune([(net.graph[0], net.layers[2].neurons[0])]),
        ValueError, "prune: there is no edge from n0 to n41"
    ),
    "an input": (
        lambda net: net.graph.prune([net.graph[0]]), TypeError, "prune: expected neurons, edges or pairs .* Node"),
    "a number": (lambda net: net.graph.prune([3]), TypeError, "prune: expected neurons, edges or pairs .*, got int"),
    "a pair of texts": (lambda net: net.graph.prune([("x", "y")]), TypeError, "prune: node: .* or its id, got str"),
    "no id": (lambda net: net.graph.prune([(0, 999)]), IndexError, "prune: node: expected the id of a node, from 0 to"),
    "another graph's": (
        lambda net: net.graph.prune([network().layers[0].neurons[0]]),
        ValueError, "prune: expected nodes of one graph, got node 12 of another"
    ),
    "an edge there is": (
        lambda net: net.graph.add_edge(net.graph[0], net.layers[0].neurons[0]),
        ValueError, "add_edge: the edge from n0 to n12 already exists"
    ),
    "a cycle": (
        lambda net: net.graph.add_edge(net.layers[1].neurons[0], net.layers[0].neurons[0]),
        mlgraph.CycleError, "the edges form a cycle of 2 nodes: (n12 -> n32|n32 -> n12)"
    ),
    "itself": (
        lambda net: net.graph.add_edge(net.layers[1].neurons[0], net.layers[1].neurons[0]),
        mlgraph.CycleError, "^add_edge: the edges form a cycle of 1 node: n32$"
    ),
    "no neuron": (
        lambda net: net.graph.add_edge(net.graph[0], net.graph[1]),
        ValueError, "add_edge: edges must lead to neurons, got an edge to <input n1>"
    ),
    "a source of another graph": (
        lambda net: net.graph.add_edge(OTHER, net.layers[0].neurons[0]),
        ValueError, "add_edge: expected nodes of one graph"
    ),
    "a huge weight": (
        lambda net: net.graph.add_edge(net.graph[0], net.layers[1].neurons[0], 1e39),
        ValueError, "weight: expected a number that float32 can hold"
    ),
    "no edit to undo": (lambda net: net.undo(), ValueError, "undo: the graph has changed since its last edit"),
}
# fmt: on


@pytest.mark.parametrize("name", REFUSED)
def test_refused_edit_changes_nothing(name):
    attempt, error, message = REFUSED[name]
    net = network()
    net.fit(X, Y, epochs=1, optimizer="adam", learning_rate=0.01)
    before, edits_before, values = everything(net.graph), net.graph.edits, net.forward(X)
    with pytest.raises(error, match=message):
        attempt(net)
    assert everything(net.graph) == before and net.graph.edits == edits_before
    assert net.forward(X).tobytes() == values.tobytes()


def test_any_neuron_may_be_cut_without_a_model():
    g = mlgraph.Graph()
    x = g.input()
    n = g.add_neuron([x], weights=[2])
    model = mlgraph.Model(g, [n])
    with pytest.raises(ValueError, match="is an output of a model"):
        n.prune()
    del model
    gc.collect()
    n.prune()
    assert not n.alive and x.alive


def test_edges_out_of_a_neuron_without_sources_are_cut():
    """Also if another neuron without sources existed before."""
    g = mlgraph.Graph()
    x = g.inputs(1)
    before, now = g.add_neuron(x), g.add_neuron(x)
    reader = g.add_neuron([now, *x])
    before.prune()
    g.prune([(x[0], now)])
    assert reader.sources == x


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_equals_that_with_a_mask(optimizer):
    """The twin's cut weights are held at 0; the optimizer's state must follow the edit."""
    net, twin = network(), network()
    chosen = np.random.default_rng(1).random(447) < 0.4

    def cut(progress):
        if progress.kind == "epoch" and progress.epoch == 1:
            edges = arrays.wiring(net.graph)
            edits.cut(net.graph, edges, chosen)

    def hold(progress):
        if progress.epoch > 1 or (progress.kind == "epoch" and progress.epoch == 1):
            for vector in (twin.graph.parameters, *twin.graph.storage.state.values()):
                vector[arrays.wiring(twin.graph).place[chosen]] = 0

    options = {"epochs": 4, "batch_size": 70, "learning_rate": 0.02, "optimizer": optimizer}
    net.fit(X, Y, callback=cut, **options)
    twin.fit(X, Y, callback=hold, **options)
    edges = arrays.wiring(twin.graph)
    np.testing.assert_allclose(
        net.graph.parameters[arrays.wiring(net.graph).place],
        twin.graph.parameters[edges.place[~chosen]],
        rtol=2e-4,
        atol=1e-6,
    )
    np.testing.assert_allclose(net.history.epoch_loss, twin.history.epoch_loss, rtol=1e-5)


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


def test_edge_out_of_a_cut_neuron_stays_and_adds_zero():
    """So paths can be added from either end."""
    g = mlgraph.Graph()
    x = g.inputs(2)
    h = g.add_neuron(x, "tanh", weights=[1.0, 1.0])
    y = g.add_neuron([h, *x], weights=[1.0, 1.0, 1.0])
    model = mlgraph.Model(g, y)
    h.prune()
    g.add_edge(h, y, 3.0)
    assert model.n_edges == 2 and model.forward([[1.0, 2.0]]) == 3
    g.prune([])
    g.edge(x[1], y).prune()
    assert g.has_edge(h, y) and model.n_edges == 1 and model.forward([[1.0, 2.0]]) == 1
    assert len(model.compact().graph) == 3 and model.compact().n_edges == 1
    g.add_edge(x[0], h, 0.5)
    assert model.n_edges == 3 and model.forward([[1.0, 2.0]]) == pytest.approx(1 + 3 * np.tanh(0.5))
    h.prune()
    assert not g.has_edge(h, y)
    g.add_edge(h, y, 3.0)
    h.prune()
    assert not g.has_edge(h, y), "who cuts a neuron cuts what comes out of it, dead or alive"


def test_edge_keys_exceed_32_bits():
    g = mlgraph.Graph()
    x = g.inputs(50_000)
    first, second = (g[i] for i in g.add_neurons(x[:3], weights=np.ones((2, 3))))
    model = mlgraph.Model(g, [first, second])
    g.prune([(x[0], second)])
    g.add_edge(x[40_000], second)
    with pytest.raises(ValueError, match="already exists"):
        g.add_edge(x[40_000], second)
    assert model.n_edges == 6
