"""Traces: values and adjoints of every node of a graph, also of those that a plan merges or leaves out."""

import numpy as np
import pytest

import mlgraph

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (70, 12), np.uint8)
Y = RNG.integers(0, 3, 70)


def network(activation="leaky_relu"):
    net = mlgraph.Network(12, seed=0)
    net.add_layer(20, activation, dropout=0.5)
    net.add_layer(9, "tanh")
    net.add_layer(3, "softmax")
    return net


@pytest.mark.parametrize("n", [1, 70])
@pytest.mark.parametrize("activation", ["leaky_relu", "sigmoid"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_values_and_adjoints_are_those_of_compiled_functions(sweep, n, activation, kind):
    net, x = network(activation), X[:n] if kind == np.uint8 else (X[:n] / 255).astype(np.float32)
    trace, cotangent = net.trace(x, Y[:n]), net.predict_proba(x) - np.eye(3)[Y[:n]]
    assert trace.values.shape == (n, len(trace)) == (n, 20 + 9 + 3 + 5)  # five of the loss
    inputs = [net.graph[i] for i in range(12)]
    for nodes, part in [(inputs, net.trace(x, Y[:n], inputs)), *((some, trace.of(some)) for some in net.layers)]:
        values = net.graph.compile(nodes)(X[:n] / 255)
        np.testing.assert_allclose(part.values, values, rtol=1e-4, atol=1e-5)
        adjoints = net.graph.compile(net.outputs, nodes).vjp(values, cotangent).inputs
        np.testing.assert_allclose(part.adjoints, adjoints, rtol=1e-4, atol=1e-6)
    neuron = net.layers[1].neurons[2]
    assert trace[neuron].tolist() == trace.values[:, 22].tolist()
    assert trace.adjoint(neuron).tolist() == trace.adjoints[:, 22].tolist()


def test_a_trace_without_targets_has_values_only():
    net = network()
    trace = net.trace(X)
    assert repr(trace) == "<Trace of 37 nodes, 70 examples: values>"
    np.testing.assert_array_equal(trace.values, net.trace(X, Y).values)
    for attempt in (trace.deltas, lambda: trace.adjoint(net.outputs[0])):
        with pytest.raises(ValueError, match=r"trace .*values"):
            attempt()


def test_deltas_give_the_gradient_of_any_edge():
    net = network("sigmoid")
    trace, first, second = net.trace(X, Y), *net.layers[:2]
    gradient = trace.of(second.neurons).deltas().T @ trace.of(first.neurons).values
    gradients = net.graph.compile(net.outputs).vjp(X / 255, net.predict_proba(X) - np.eye(3)[Y])
    for row, neuron in zip(gradient, second.neurons, strict=True):
        np.testing.assert_allclose(gradients.of(neuron), row, rtol=1e-3, atol=1e-5)


def test_nodes_that_a_plan_merges_have_values_of_their_own():
    g = mlgraph.Graph()
    x, y = g.add_inputs(2)
    a, b = x * y, y * x
    weights = [g.add_parameter(v) for v in (2.0, 3.0, 0.5)]
    terms = [weights[0] * x, weights[1] * a]
    z = terms[0] + terms[1] + weights[2]
    out = mlgraph.tanh(z) + b
    trace = mlgraph.Model(g, [out], loss=out).trace([[0.25, 0.5], [1.0, 2.0]], ())
    slope = 1 - np.tanh([1.375, 8.5]) ** 2
    for node, value, adjoint in (
        (a, [0.125, 2], 3 * slope),
        (b, [0.125, 2], [1, 1]),
        (terms[1], [0.375, 6], slope),
        (z, [1.375, 8.5], slope),
        (weights[1], [3, 3], slope * [0.125, 2]),
        (out, np.add([0.125, 2], np.tanh([1.375, 8.5])), [1, 1]),
    ):
        np.testing.assert_allclose(trace[node], value, rtol=1e-6)
        np.testing.assert_allclose(trace.adjoint(node), adjoint, rtol=1e-5, atol=1e-6)


def test_any_nodes_can_be_traced():
    """Also inputs, neurons that no output needs, and neurons that have been cut off."""
    net = network()
    g = net.graph
    extra = g.add_neuron(net.layers[0].neurons[:2], "relu", weights=[1, -1])
    cut = net.layers[0].neurons[5]
    cut.prune()
    trace = net.trace(X, Y, [extra, cut, g[3], net.outputs[1]])
    first = net.trace(X).of(net.layers[0].neurons[:2]).values
    np.testing.assert_allclose(trace[extra], np.maximum(first[:, 0] - first[:, 1], 0), rtol=1e-5, atol=1e-6)
    assert not trace.adjoint(extra).any() and not trace[cut].any() and not trace.adjoint(cut).any()
    assert trace.adjoint(g[3]).any()
    np.testing.assert_allclose(trace[net.outputs[1]], net.forward(X)[:, 1], rtol=1e-6)
    with pytest.raises(ValueError, match=f"^node: .*{g[4].name}"):
        trace[g[4]]
    assert net.trace(X[:0], Y[:0]).adjoints.shape == (0, 36)


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (lambda net: net.trace(X, Y, [3]), TypeError, "nodes: expected nodes, got int"),
        (lambda net: net.trace(X, Y, network().outputs), ValueError, "nodes: .*graph"),
        (lambda net: net.trace(X)[network().outputs[0]], ValueError, "node: .*graph"),
        (lambda net: mlgraph.Network(12).trace(X), ValueError, "network: .*layer"),
    ],
)
def test_mistakes(attempt, error, message):
    with pytest.raises(error, match=f"^{message}"):
        attempt(network())


def test_a_trace_does_not_confuse_a_removed_node_with_a_new_one():
    net = network()
    new = net.graph.add_neuron(net.layers[0].neurons[:2], "tanh", weights=[1, 2])
    number, trace = new.id, net.trace(X, nodes=[new])
    net.undo()
    with pytest.raises(ValueError, match=rf"^nodes: .*{number}"):
        trace.of(np.array([number]))
    net.graph.add_input()
    with pytest.raises(ValueError, match=rf"^node: .*n{number}\b"):
        trace.of(np.array([number]))


def test_adjoints_do_not_depend_on_which_other_nodes_are_traced():
    """Nor on whether a node depends on a parameter."""
    g = mlgraph.Graph()
    x, p = g.add_input("x"), g.add_parameter(2.0)
    square = x * x
    bent = mlgraph.tanh(square)
    lone = mlgraph.exp(g.add_constant(0.5))
    model = mlgraph.Model(g, bent * p + lone, "squared_error")
    slope, t = 2 * (2 * np.tanh(0.25) + np.exp(0.5) - 1), np.tanh(0.25)
    expected = {square: slope * 2 * (1 - t**2), bent: slope * 2, lone: slope, p: slope * t}
    expected[x] = expected[square] * 2 * 0.5
    for nodes in (None, [square], [lone], [bent, square], [square, x], list(expected)):
        trace = model.trace([[0.5]], [1.0], nodes)
        for node in nodes or [square, bent, lone, p]:
            np.testing.assert_allclose(trace.adjoint(node), expected[node], rtol=1e-5)


def test_a_loss_of_ones_own_without_targets():
    """Nodes that need no target can be traced without them."""
    g = mlgraph.Graph()
    h = g.add_neuron(g.add_inputs(2), "tanh", weights=[1.0, -2.0])
    out, target = g.add_neuron([h], weights=[3.0]), g.add_input()
    error = out - target
    model = mlgraph.Model(g, out, loss=error**2)
    data = np.random.default_rng(0).random((5, 3))
    whole = model.trace(data)
    for trace in (model.trace(data[:, :2]), model.trace(data[:, :2], nodes=[h, out])):
        assert trace.nodes.tolist() == [h.id, out.id] and error.id in whole.nodes
        np.testing.assert_array_equal(trace.values, whole.of([h, out]).values)
    with pytest.raises(ValueError, match=r"^x: .*3 .*got .*2"):
        model.trace(data[:, :2], nodes=[error])
    with pytest.raises(ValueError, match=r"^x: expected shape \(examples, 3\), got \(5, 1\)"):
        model.trace(data[:, :1])
    g.add_input() * 2  # the loss of this model reads no column of it
    assert error.id in model.trace(data).nodes
