"""A graph's edges, neurons and parameters as arrays, and queries about edges."""

import numpy as np
import pytest
from editable import X, Y, network

import mlgraph
from mlgraph.graph import ops


@pytest.mark.parametrize("seed", range(3))
def test_edges_and_neurons_define_the_computation(seed):
    """The graph has neurons cut and added, and ids in no order of layers. The arrays are copies of what is alive."""
    net = network(seed)
    g = net.graph
    net.prune(0.4)
    late = g.add_neuron([g[0], net.layers[0].neurons[4]], "tanh", weights=[1.0, -2.0], bias=None)
    g.add_edge(late, net.layers[1].neurons[3], 0.5)
    unread = g.add_neuron([late], "sigmoid")
    source, target, weight = g.edges()
    node, activation, bias = g.neurons()
    dtypes = np.int32, np.int32, np.float32, np.int32, np.float32
    assert tuple(part.dtype for part in (source, target, weight, node, bias)) == dtypes
    assert sorted(node.tolist()) == [n.id for n in g if isinstance(n, mlgraph.Neuron) and n.alive]
    by_hand = [(s.id, n.id, w) for n in g if n.id in node for s, _, w in n.in_edges]
    assert list(zip(source.tolist(), target.tolist(), weight.tolist(), strict=True)) == by_hand
    assert late.id in node and unread.id not in node and len(weight) == net.n_edges
    values = dict(enumerate(X.T / 255))
    for n, name, b in zip(node.tolist(), activation.tolist(), bias.tolist(), strict=True):
        mine = target == n
        z = b + sum(w * values[s] for s, w in zip(source[mine].tolist(), weight[mine].tolist(), strict=True))
        values[n] = ops.OPS[name].value(z)
    want = np.array([values[node.id] for node in net.outputs]).T
    np.testing.assert_allclose(net.forward(X), want, rtol=1e-4, atol=1e-5)


def test_empty_graph_has_empty_arrays():
    g = mlgraph.Graph()
    assert [part.size for part in (*g.edges(), *g.neurons(), g.get_parameters())] == [0] * 7


def test_edges_out_of_neurons_that_are_cut_off_are_not_listed():
    g = mlgraph.Graph(seed=0)
    x, y = g.add_inputs(2)
    none = g.add_neuron([x])
    both = g.add_neuron([none, y], weights=[2, 3])
    g.prune([(x, none)])
    g.add_edge(none, both, 1.0)
    assert [part.tolist() for part in g.edges()] == [[y.id], [both.id], [3]]


def test_reaches_and_has_edge_predict_errors():
    g = mlgraph.Graph(seed=0)
    x, y = g.add_inputs(2)
    a = g.add_neuron([x])
    b, c = g.add_neuron([a]), g.add_neuron([y])
    assert g.reaches(x, b) and g.reaches(a, a) and not g.reaches(y, b) and not g.reaches(b, a)
    for source, target in ((b, c), (c, a), (a, b)):
        if g.has_edge(source, target) or g.reaches(target, source):
            with pytest.raises(ValueError, match=r"already exists|form a cycle"):
                g.add_edge(source, target)
        else:
            g.add_edge(source, target)
    assert g.reaches(a, c) and g.has_edge(b, c) and not g.has_edge(c, a)
    assert not g.has_edge(x, -x), "an argument is not an edge"
    g.edge(b, c).prune()
    assert not g.has_edge(b, c) and not g.has_edge(x, y)


def test_compiling_keeps_the_order_of_get_parameters():
    g = mlgraph.Graph()
    x = g.add_inputs(2)
    p = g.add_parameter(0.5)
    a = g.add_neuron(x, weights=[1, 2], bias=3)
    b = g.add_neuron([a, p * x[0]], weights=[4, 5], bias=None)
    many = [g[i] for i in g.add_neurons(x, weights=np.arange(20.0).reshape(10, 2), biases=np.arange(10.0))]
    want = [0.5, 1, 2, 4, 5, *range(20), 3, *range(10)]
    for outputs in ([b], many, [*many[3:], a], [*many, b]):
        assert g.get_parameters().tolist() == want and g.n_parameters == len(want)
        g.compile(outputs)([[1, 1]])
    kept = g.get_parameters()
    g.set_parameters(-kept)
    assert (p.value, a.weights.tolist(), a.bias, b.weights.tolist(), many[4].bias) == (-0.5, [-1, -2], -3, [-4, -5], -4)
    assert kept.tolist() == want, "get_parameters returns a copy"


def test_optimizer_state_is_in_the_order_of_the_parameters():
    g = mlgraph.Graph(seed=0)
    x, p = g.add_inputs(3), g.add_parameter(0.5)
    neurons = [g.add_neuron([*x, p], weights=[1.0, -2.0, 3.0, 0.5], bias=0.5), g.add_neuron(x[:1], weights=[2.0])]
    model, data, targets = mlgraph.Model(g, neurons), [[1.0, 2.0, 3.0]], [[4.0, 5.0]]
    assert g.optimizer_state() == {}
    gradient, before = model.gradients(data, targets).flat, g.get_parameters()
    model.fit(data, targets, epochs=1, learning_rate=0.125, momentum=0.5, optimizer="sgd", batch_size=128)
    (velocity,) = g.optimizer_state().values()
    np.testing.assert_allclose(velocity, gradient, rtol=1e-6)
    np.testing.assert_allclose(g.get_parameters(), before - 0.125 * velocity, rtol=1e-6)
    g.set_parameters(before)
    g.edge(x[1], neurons[0]).frozen = True
    model.fit(data, targets, epochs=1, learning_rate=0.125, optimizer="adam")
    state = g.optimizer_state()
    gradient[2] = 0  # of the frozen edge, behind the parameter and an edge
    np.testing.assert_allclose(state["first"], (1 - np.float32(0.9)) * gradient, rtol=1e-5)
    np.testing.assert_allclose(state["second"], (1 - np.float32(0.999)) * gradient**2, rtol=1e-5)
    model.fit(data, targets, epochs=1, learning_rate=0.125, optimizer="sgd", batch_size=128)
    assert list(g.optimizer_state()) == ["first"], "the state of the other optimizer is gone"


def test_arrays_of_ids_name_nodes():
    net = network()
    ids = net.inspect(X)["node"][3:6]
    nodes = [net.graph[i] for i in ids.tolist()]
    assert net.trace(X, nodes=ids).values.tobytes() == net.trace(X, nodes=nodes).values.tobytes()
    assert net.graph.compile(ids)(X).tobytes() == net.graph.compile(nodes)(X).tobytes()
    assert mlgraph.Model(net.graph, ids).outputs == nodes
    assert net.ablate(range(ids[0], ids[0] + 2), X, Y) == net.ablate(nodes[:2], X, Y)
    assert net.trace(X).of(range(0)).values.shape == (len(X), 0)
