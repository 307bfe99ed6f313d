"""Traces: the values and adjoints of every node, whatever a plan would make of the graph."""

import copy

import numpy as np
import pytest

import mlgraph
from mlgraph.compiler.plan import Plan
from mlgraph.engine.trace import Trace
from mlgraph.graph import ops
from mlgraph.models.running import engine_of

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (70, 12), np.uint8)
Y = RNG.integers(0, 3, 70)
BATCHES = [1, 31, 32, 70]


def network(activation="leaky_relu"):
    net = mlgraph.Network(12, seed=0)
    net.add_layer(20, activation, dropout=0.5)
    net.add_layer(9, "tanh")
    net.add_layer(3, "softmax")
    return net


def by_hand(net, x, labels):
    """Values of all layers and derivatives of each example's loss with respect to them, in float64."""
    values = [np.asarray(x) / 255 if x.dtype == np.uint8 else x]
    for layer in net.layers:
        name = "identity" if layer.activation == "softmax" else layer.activation
        biases = np.array([neuron.bias for neuron in layer.neurons])
        values.append(ops.OPS[name].value(values[-1] @ layer.weights.T.astype(float) + biases))
    e = np.exp(values[-1] - values[-1].max(axis=1, keepdims=True))
    adjoints = [e / e.sum(axis=1, keepdims=True) - np.eye(3)[labels]]
    for layer, y in zip(net.layers[::-1], values[::-1], strict=False):
        name = "identity" if layer.activation == "softmax" else layer.activation
        adjoints.insert(0, (adjoints[0] * ops.OPS[name].derivatives(y, y)[0]) @ layer.weights)
    return values, adjoints


@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("activation", ["leaky_relu", "sigmoid", "identity"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_network(sweep, n, activation, kind):
    net, x = network(activation), X[:n] if kind == np.uint8 else (X[:n] / 255).astype(np.float32)
    values, adjoints = by_hand(net, x, Y[:n])
    trace = net.trace(x, Y[:n])
    assert isinstance(trace, Trace) and len(trace) == 20 + 9 + 3 + 1 and trace.values.shape == (n, 33)
    for layer, value, adjoint in zip(net.layers, values[1:], adjoints[1:], strict=True):
        part = trace.of(layer.neurons)
        np.testing.assert_allclose(part.values, value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(part.adjoints, adjoint, rtol=1e-4, atol=1e-6)
        neuron = layer.neurons[2]
        assert trace[neuron].base is not None and trace[neuron].tolist() == part.values[:, 2].tolist()
        assert trace.adjoint(neuron).tolist() == part.adjoints[:, 2].tolist()
    np.testing.assert_array_equal(trace.of(net.outputs).values, net.forward(x))
    pixels = net.trace(x, Y[:n], [net.graph[i] for i in range(12)])
    np.testing.assert_allclose(pixels.values, values[0], rtol=1e-6)
    np.testing.assert_allclose(pixels.adjoints, adjoints[0], rtol=1e-4, atol=1e-6)


def test_values_alone():
    net = network()
    trace = net.trace(X)
    assert repr(trace) == "<Trace of 33 nodes, 70 examples: values>"
    np.testing.assert_array_equal(trace.values, net.trace(X, Y).values)
    for attempt in (trace.deltas, lambda: trace.adjoint(net.outputs[0])):
        with pytest.raises(ValueError, match="expected a trace with labels or targets, got one of values alone"):
            attempt()


def test_deltas_give_the_gradient_of_any_edge():
    net = network("sigmoid")
    trace, first, second = net.trace(X, Y), *net.layers[:2]
    gradient = trace.of(second.neurons).deltas().T @ trace.of(first.neurons).values
    f = net.graph.compile(net.outputs)
    logits = net.forward(X)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    gradients = f.vjp(X, e / e.sum(axis=1, keepdims=True) - np.eye(3)[Y])
    for row, neuron in zip(gradient, second.neurons, strict=True):
        np.testing.assert_allclose(gradients.of(neuron), row, rtol=1e-3, atol=1e-5)


def test_every_node_has_its_own():
    """Also what a plan merges, and what it finds to be a neuron."""
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    a, b = x * y, y * x
    weights = [g.parameter(v) for v in (2.0, 3.0, 0.5)]
    terms = [weights[0] * x, weights[1] * a]
    z = terms[0] + terms[1] + weights[2]
    out = mlgraph.tanh(z) + b
    model = mlgraph.Model(g, [out], loss=out)
    trace = model.trace([[0.25, 0.5], [1.0, 2.0]], ())
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


def test_chosen_nodes():
    """Any of the graph, alive or not."""
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
    with pytest.raises(ValueError, match=f"node: expected a node of the trace, got {g[4].name}"):
        trace[g[4]]


def test_no_examples():
    assert network().trace(X[:0], Y[:0]).adjoints.shape == (0, 33)


def test_nothing_changes():
    net = network()
    net.evaluate(X, Y)
    before, moves, edits = net.graph.parameters.tobytes(), net.graph.storage.moves, net.graph.edits
    weights = net.layers[0].neurons[0].weights
    net.trace(X, Y)
    assert (net.graph.parameters.tobytes(), net.graph.storage.moves, net.graph.edits) == (before, moves, edits)
    weights[:] = 0
    assert not net.layers[0].neurons[0].weights.any()


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (lambda net: net.trace(X[:, :5]), ValueError, r"x: expected shape \(examples, 12\)"),
        (lambda net: net.trace(X, Y[:5]), ValueError, "y: expected 70 labels"),
        (lambda net: net.trace(X, Y, [3]), TypeError, "nodes: expected nodes, got int"),
        (lambda net: net.trace(X, Y, network().outputs), ValueError, "nodes: expected nodes of one graph"),
        (lambda net: net.trace(X)[network().outputs[0]], ValueError, "node: expected nodes of one graph"),
        (lambda net: mlgraph.Network(12).trace(X), ValueError, "network: expected at least one layer"),
    ],
)
def test_errors(attempt, error, message):
    with pytest.raises(error, match=message):
        attempt(network())


def test_a_node_that_undo_has_taken_away_is_in_no_trace():
    net = network()
    new = net.graph.add_neuron(net.layers[0].neurons[:2], "tanh", weights=[1, 2])
    number, traced = new.id, net.trace(X, nodes=[new])
    net.undo()
    with pytest.raises(ValueError, match=rf"^nodes: expected ids from 0 to {number - 1}, got {number} to {number}"):
        traced.of(range(number, number + 1))
    net.graph.input()
    with pytest.raises(ValueError, match=rf"^node: expected a node of the trace, got n{number};"):
        traced.of(range(number, number + 1))


def test_adjoints_of_operations_that_no_parameter_leads_to():
    """Whatever else is asked for: what only inputs and constants lead to has derivatives, too."""
    g = mlgraph.Graph()
    x, p = g.input("x"), g.parameter(2.0)
    square = x * x
    bent = mlgraph.tanh(square)
    lone = mlgraph.exp(g.constant(0.5))
    model = mlgraph.Model(g, bent * p + lone, "squared_error")
    z = 2 * np.tanh(0.25) + np.exp(0.5)
    expected = {
        x: 2 * (z - 1) * 2 * (1 - np.tanh(0.25) ** 2) * 2 * 0.5,
        square: 2 * (z - 1) * 2 * (1 - np.tanh(0.25) ** 2),
        bent: 2 * (z - 1) * 2,
        lone: 2 * (z - 1),
        p: 2 * (z - 1) * np.tanh(0.25),
    }
    for nodes in (None, [square], [lone], [bent, square], [square, x], list(expected)):
        trace = model.trace([[0.5]], [1.0], nodes)
        for node in nodes or [square, bent, lone, p]:
            np.testing.assert_allclose(trace.adjoint(node), expected[node], rtol=1e-5)


def test_adjoints_beside_an_infinite_derivative(sweep):
    """0 times infinity is NaN, and what the loss does not read hands down nothing; what it reads of the same kind does."""
    g = mlgraph.Graph()
    h = g.add_neuron([g.input()], "relu", weights=[1.0])
    read, beside = mlgraph.log(h + 1), mlgraph.log(h)
    model = mlgraph.Model(g, read)
    x, y = [[-1.0], [2.0]], [1.0, 2.0]
    alone, several = (
        model.trace(x, y, [h, read]),
        model.trace(x, y, [h, read, beside, g.add_neuron([beside], weights=[1.0])]),
    )
    assert np.isfinite(alone.adjoints).all() and (alone.adjoints != 0).all()
    np.testing.assert_array_equal(several.adjoints[:, :2], alone.adjoints)
    assert not several.adjoints[:, 2:].any()


@pytest.mark.parametrize("first", ["read", "beside"])
def test_operations_of_one_level_that_the_loss_reads_or_does_not(sweep, first):
    """They have no instruction in common: only one of them hands an adjoint down."""
    g = mlgraph.Graph()
    x = g.input()
    h, k = g.add_neuron([x], "relu", weights=[1.0]), g.add_neuron([x], "relu", weights=[-1.0], bias=4.0)
    logs = [mlgraph.log(node) for node in ((k, h) if first == "read" else (h, k))]
    model = mlgraph.Model(g, logs[first == "beside"])
    trace = model.trace([[-1.0], [2.0]], [1.0, 2.0], [h, k, *logs])
    z, target = np.array([5.0, 2.0]), np.array([1.0, 2.0])
    np.testing.assert_allclose(trace.adjoint(k), 2 * (np.log(z) - target) / z, rtol=1e-5)
    assert not trace.adjoint(h).any()


def test_no_targets_for_a_loss_of_ones_own():
    """What the outputs need can be looked at without them."""
    g = mlgraph.Graph()
    x = g.inputs(2)
    h = g.add_neuron(x, "tanh", weights=[1.0, -2.0])
    out, target = g.add_neuron([h], weights=[3.0]), g.input()
    model = mlgraph.Model(g, out, loss=(error := out - target) ** 2)
    data = np.random.default_rng(0).random((5, 3))
    whole = model.trace(data)
    for trace in (model.trace(data[:, :2]), model.trace(data[:, :2], nodes=[h, out])):
        assert trace.nodes.tolist() == [h.id, out.id] and error.id in whole.nodes
        np.testing.assert_array_equal(trace.values, whole.of([h, out]).values)
    with pytest.raises(ValueError, match="x: expected 3 columns, one for each input, got 2"):
        model.trace(data[:, :2], nodes=[error])
    with pytest.raises(TypeError, match="x: expected an array of numbers, got rows of different lengths"):
        model.trace([[1.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match=r"x: expected shape \(examples, 3\), got \(2,\)"):
        model.trace([1.0, 2.0])
    for few, y in ((data[:, :1], None), (data[:, :2], ())):
        with pytest.raises(ValueError, match=r"x: expected shape \(examples, 3\), got \(5, [12]\)"):
            model.trace(few, y)
    g.input() * 2  # whose column no loss of this model wants
    assert error.id in model.trace(data).nodes


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("activations", ["of layers", "of neurons", "over layers"])
def test_a_trace_leaves_the_parameters_where_training_reads_them(sparsity, activations):
    """Else each trace and each run would lay them out anew, and compile again."""
    net = mlgraph.Network(40, seed=0)
    net.add_layer(30, "relu")
    net.add_layer(20, "tanh")
    net.add_layer(5, "softmax")
    if activations != "of layers":
        for i, neuron in enumerate([*net.layers[0], *net.layers[1]]):
            neuron.activation = ("tanh", "identity", "relu", "sigmoid")[i * i % 7 % 4]
    if (
        activations == "over layers"
    ):  # a neuron may be beside others of its layer in the one plan and beside none in the other
        for i in range(12):
            net.graph.add_edge(net.layers[0][i], net.layers[2][i % 5], 0.5)
            net.graph.add_edge(net.layers[1][i], net.layers[1][12 + i % 8], 0.5)
    net.prune(sparsity)
    x, y = np.random.default_rng(0).normal(size=(9, 40)).astype(np.float32), np.arange(9) % 5
    net.evaluate(x, y)
    moves, engine = net.graph.storage.moves, engine_of(net)
    for look in (
        net.trace,
        net.gradients,
        lambda x, y: net.trace(x),
        lambda x, y: net.trace(x, y, net.layers[0].neurons),
    ):
        look(x, y)
        assert net.graph.storage.moves == moves and engine_of(net) is engine


def test_the_same_trace_is_compiled_once(monkeypatch):
    g = mlgraph.Graph()
    x = g.inputs(2)
    hidden = [g.add_neuron(x, "tanh", weights=[w, 1.0]) for w in (0.5, -2.0)]
    model = mlgraph.Model(g, g.add_neuron(hidden, weights=[1.0, 3.0]))
    data, answers, made = np.array([[1.0, 2.0], [0.5, -1.0]]), [1.0, -1.0], []
    monkeypatch.setattr("mlgraph.engine.trace.Plan", lambda *args, **options: made.append(1) or Plan(*args, **options))

    def compiled(look):
        del made[:]
        found = look()
        return found, len(made)

    first, n = compiled(lambda: model.trace(data, answers))
    assert n == 1
    hidden[0].weights = [2.0, 2.0]  # no edit: the plan is still right
    second, n = compiled(lambda: model.trace(data[:1], answers[:1]))
    assert n == 0 and second[hidden[0]][0] == np.float32(np.tanh(6.0)) and first[hidden[1]][0] == second[hidden[1]][0]
    others = [
        lambda: model.trace(data),
        lambda: model.trace(data, answers, hidden[:1]),
        lambda: model.gradients(data, answers),
    ]
    for look in others:
        assert [compiled(look)[1], compiled(look)[1]] == [1, 0]
    hidden[0].edges[0].prune()
    third, n = compiled(lambda: model.gradients(data, answers))
    assert n == 1 and len(third.edges) == 5
    assert compiled(lambda: copy.deepcopy(model).gradients(data, answers))[1] == 1
