"""Compiled functions: values, and derivatives by example, by node and along a tangent."""

import hypothesis.strategies as st
import numpy as np
import pytest
from graphs import cases, evaluate, every_parameter
from hypothesis import given

import mlgraph
from mlgraph.models.running import engine_of
from mlgraph.testing import derivatives as testing


def slope(g, z, x, change, h=1e-3):
    """Derivative of sum(z) by changing something in place, in float64 from the op table."""
    ends = []
    for step in (h, -h):
        undo = change(step)
        ends.append(evaluate(g, x)[z.id].sum())
        undo()
    return (ends[0] - ends[1]) / (2 * h)


def test_gradients_of_nodes(sweep):
    g, n = every_parameter()
    x = np.random.default_rng(0).normal(size=(50, 2))
    gradients = g.compile(n["z"]).vjp(x)

    def weight(neuron, k):
        def change(step):
            before = neuron.weights.copy()
            neuron.weights[k] += step
            return lambda: neuron.weights.__setitem__(slice(None), before)

        return change

    def number(node, name):
        def change(step):
            before = getattr(node, name)
            setattr(node, name, before + step)
            return lambda: setattr(node, name, before)

        return change

    for name in ("w", "shared"):
        assert gradients.of(n[name]).shape == ()
        np.testing.assert_allclose(gradients.of(n[name]), slope(g, n["z"], x, number(n[name], "value")), rtol=1e-2)
    for name in ("one", "bare", "first", "last"):
        neuron = n[name]
        want = [slope(g, n["z"], x, weight(neuron, k)) for k in range(len(neuron.sources))]
        np.testing.assert_allclose(gradients.of(neuron), want, rtol=2e-2, atol=0.05)
        if name != "bare":
            want = slope(g, n["z"], x, number(neuron, "bias"))
            np.testing.assert_allclose(gradients.of_bias(neuron), want, rtol=2e-2, atol=0.05)
    np.testing.assert_array_equal(gradients.of(n["y"]), gradients.inputs[:, 1])


def test_gradients_are_shown_in_some_lines():
    g, n = every_parameter()
    shown = repr(g.compile(n["z"]).vjp(np.ones((3, 2))))
    assert shown.endswith(f"<Places of {len(g)} nodes>)") and "Graph" not in shown


def test_gradients_know_their_places():
    """Also after another function has laid the parameters out in its own way, and after the graph has grown."""
    g, n = every_parameter()
    f, x = g.compile(n["z"]), np.ones((3, 2))
    gradients = f.vjp(x)
    before = {name: gradients.of(n[name]).copy() for name in ("w", "shared", "one", "bare", "first", "last")}
    bias = gradients.of_bias(n["last"])
    moves = g.storage.moves
    late = g.add_neuron([n["x"]], weights=[1])
    g.compile(late + n["w"])([[0.0, 0.0]])
    assert g.storage.moves > moves
    for name, gradient in before.items():
        np.testing.assert_array_equal(gradients.of(n[name]), gradient)
    assert gradients.of_bias(n["last"]) == bias
    for wrong in (late, n["z"], g.constant(1), g.input(), g.parameter(0)):
        with pytest.raises(
            ValueError, match=r"node: expected (an input, parameter or neuron .*|a node that was there), got"
        ):
            gradients.of(wrong)
    for wrong in (late, n["bare"], n["w"]):
        with pytest.raises(ValueError, match=r"neuron: expected a (neuron with a bias|node that was there), got"):
            gradients.of_bias(wrong)


def test_dead_nodes_cost_nothing_and_have_no_gradient():
    g, n = every_parameter()
    slots = g.compile(n["z"]).engine(True).plan.n_slots
    dead = g.parameter(3.0)
    lost = mlgraph.exp(dead * n["x"]) + g.add_neuron([n["x"], dead], weights=[1, 1])
    assert len(lost.sources) == 2
    f = g.compile(n["z"])
    gradients = f.vjp(np.ones((2, 2)))
    assert engine_of(f, True).plan.n_slots == slots
    assert gradients.of(dead) == 0 and dead.value == 3.0


def test_outputs_of_every_kind(sweep):
    """Inputs, constants and parameters themselves, and one node twice: their adjoints add up."""
    g = mlgraph.Graph()
    x, unread, w, c = g.input(), g.input(), g.parameter(2.0), g.constant(5)
    y = w * x
    f = g.compile([x, c, w, y, y, w])
    np.testing.assert_array_equal(f([[3, 7], [4, 8]]), [[3, 5, 2, 6, 6, 2], [4, 5, 2, 8, 8, 2]])
    u = np.array([[1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60]])
    gradients = f.vjp([[3, 7], [4, 8]], u)
    np.testing.assert_array_equal(gradients.inputs, [[1 + 2 * 9, 0], [10 + 2 * 90, 0]])
    assert gradients.of(w) == 3 + 6 + 30 + 60 + 3 * 9 + 4 * 90
    np.testing.assert_array_equal(gradients.of(unread), [0, 0])


def test_constants_alone(sweep):
    g = mlgraph.Graph()
    f = g.compile(mlgraph.exp(g.constant(1)) + 1)
    np.testing.assert_allclose(f(np.zeros((4, 0))), np.full((4, 1), np.e + 1), rtol=1e-6)
    gradients = f.vjp(np.zeros((4, 0)))
    assert gradients.inputs.shape == (4, 0) and not gradients.parameters.any()


def test_batches_longer_than_a_step(sweep):
    """So many slots that 70 examples are three steps, the last one short."""
    n = 2**16
    g = mlgraph.Graph()
    x = g.input()
    w = np.random.default_rng(0).normal(size=(n, 1)).astype(np.float32)
    neurons = [g[i] for i in g.add_neurons([x], weights=w, biases=None)]
    f = g.compile(mlgraph.sum(*neurons))
    at, u = np.random.default_rng(1).normal(size=(2, 150, 1)).astype(np.float32)
    gradients = f.vjp(at, u)
    np.testing.assert_allclose(gradients.values, at * w.sum(dtype=float), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(gradients.inputs, u * w.sum(dtype=float), rtol=1e-3, atol=1e-3)
    want = float((at.astype(float) * u).sum())
    np.testing.assert_allclose([gradients.of(neuron)[0] for neuron in neurons[:: n // 64]], want, rtol=1e-4)


def test_no_examples(sweep):
    g, n = every_parameter()
    f = g.compile([n["z"], n["x"]])
    assert f(np.zeros((0, 2))).shape == (0, 2)
    gradients = f.vjp(np.zeros((0, 2)))
    assert gradients.values.shape == gradients.inputs.shape == (0, 2)
    assert len(gradients.parameters) == len(g.parameters) and not gradients.parameters.any()


@pytest.mark.parametrize("cotangent", [np.ones(3), np.ones((3, 2)), np.ones((2, 1)), 1.0, [[1]]])
def test_cotangent_has_the_shape_of_the_outputs(cotangent):
    g, n = every_parameter()
    with pytest.raises(ValueError, match=r"cotangent: expected shape \(3, 1\), got \("):
        g.compile(n["z"]).vjp(np.ones((3, 2)), cotangent)


def test_jvp(sweep):
    """Rows of the Jacobian times the tangent: of a linear map its matrix, of others what a difference says."""
    g = mlgraph.Graph()
    x, w = g.inputs(3), np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    neurons = [g[i] for i in g.add_neurons(x, weights=w, biases=None)]
    at, tangent = np.random.default_rng(1).normal(size=(2, 40, 3)).astype(np.float32)
    np.testing.assert_allclose(g.compile(neurons).jvp(at, tangent), tangent @ w.T, rtol=1e-5, atol=1e-6)
    z = [mlgraph.sin(neurons[0]) * x[1], mlgraph.softplus(neurons[3]), g.constant(1)]
    ends = [evaluate(g, at.astype(float) + h * tangent) for h in (1e-5, -1e-5)]
    want = np.stack([(ends[0][node.id] - ends[1][node.id]) / 2e-5 for node in z], axis=1)
    f = g.compile(z)
    np.testing.assert_allclose(f.jvp(at, tangent), want, rtol=1e-4, atol=1e-5)
    assert f.jvp(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0, 3)
    with pytest.raises(ValueError, match=r"tangent: expected shape \(40, 3\), got \(3,\)"):
        f.jvp(at, tangent[0])


def test_bytes_are_shares_of_255(sweep):
    g, n = every_parameter()
    x = np.random.default_rng(0).integers(0, 256, (70, 2), np.uint8)
    testing.check_against_reference(n["z"], x)
    testing.check_gradients(n["z"], x)
    f = g.compile(n["z"])
    np.testing.assert_array_equal(f(x), f((x / 255).astype(np.float32)))
    np.testing.assert_array_equal(f.vjp(x).inputs, f.vjp((x / 255).astype(np.float32)).inputs)


@given(case=cases(), data=st.data())
def test_any_nodes_may_be_the_inputs(sweep, case, data):
    """In any order, beside those of the graph; each says what its column says, whatever it would compute."""
    g = case.graph
    others = data.draw(st.sets(st.sampled_from(range(len(g))), max_size=4))
    inputs = data.draw(st.permutations([node for node in g if node.kind == "input" or node.id in others]))
    values = np.stack(evaluate(g, case.x.astype(float)), axis=1)[:, [node.id for node in inputs]]
    x = (values * data.draw(st.sampled_from([1.0, 0.75]))).astype(np.float32)
    f = g.compile(case.outputs, inputs)
    assert f.n_inputs == len(inputs)
    expected = testing.check_against_reference(f, x)
    columns = {node.id: x[:, i].astype(float) for i, node in enumerate(inputs)}
    want = np.stack(evaluate(g, case.x.astype(float), columns), axis=1)[:, [node.id for node in case.outputs]]
    np.testing.assert_allclose(expected.values, want, rtol=1e-9, atol=1e-9)
    gradients = f.vjp(x)
    for i, node in enumerate(inputs):
        np.testing.assert_array_equal(gradients.of(node), gradients.inputs[:, i])


def test_a_layer_as_inputs(sweep):
    """From a layer on: values of the network, adjoints of the trace; a column of another example is that neuron patched."""
    net = mlgraph.Network(5, seed=0)
    hidden = [net.add_layer(n, "tanh") for n in (7, 40)][1]
    net.add_layer(3, "identity")
    x, y = np.random.default_rng(0).normal(size=(2, 50, 5)).astype(np.float32)
    head = net.graph.compile(net.outputs, hidden.neurons)
    trace, other = net.trace(x, y[:, :3], nodes=hidden.neurons), net.trace(y)[hidden[6]]
    np.testing.assert_array_equal(head(trace.values), net.forward(x))
    u = 2 * (net.forward(x) - y[:, :3])  # of the squared error
    np.testing.assert_allclose(head.vjp(trace.values, u).inputs, trace.adjoints, rtol=1e-4, atol=1e-5)
    slopes = head.jvp(trace.values[:40], np.eye(40))
    np.testing.assert_allclose(slopes, net.layers[2].weights.T, rtol=1e-6)
    patched = trace.values.copy()
    patched[:, 6] = other
    change = np.outer(other - trace[hidden[6]], net.layers[2].weights[:, 6])
    np.testing.assert_allclose(head(patched), net.forward(x) + change, rtol=1e-4, atol=1e-5)
    assert repr(head) == "<Function of 40 inputs: n52, n53, n54>"


def test_of_a_node_that_is_an_input(sweep):
    """A column, whatever it is else; inputs of the graph that are none here have no part in it."""
    g = mlgraph.Graph()
    x, unread = g.inputs(2)
    h, p = g.add_neuron([x], weights=[3.0]), g.parameter(5.0)
    z = h * p + g.add_neuron([h, p], weights=[10.0, 100.0])
    f = g.compile(z, [p, h])
    assert f([[2.0, 7.0]]) == 2 * 7 + 70 + 200
    gradients = f.vjp([[2.0, 7.0]])
    assert gradients.of(p) == 7 + 100 and gradients.of(h) == 2 + 10 and gradients.of(x) == gradients.of(unread) == 0
    assert g.compile(h, h)([[4.0]]) == 4 and g.compile(p + 1, [])(np.zeros((2, 0))).tolist() == [[6], [6]]
    beside = g.compile([h * 2, mlgraph.log(h)], [h])  # of which one has an infinite derivative
    np.testing.assert_array_equal(beside.jvp([[0.0], [1.0]], [[1.0], [1.0]]), [[2.0, np.inf], [2.0, 1.0]])
    h.prune()  # as a source; what is given needs none itself
    assert f([[2.0, 7.0]]) == 14 + 200


def test_an_input_that_is_missing():
    """Of the inputs that a function has of its own; also when an edit has the outputs need another."""
    g = mlgraph.Graph()
    x, y = g.input("x"), g.input("y")
    h = g.add_neuron([x], weights=[1.0])
    z = g.add_neuron([h], weights=[1.0])
    f, late = g.compile(z, h), "inputs: expected all that the outputs need, got none for y"
    g.add_edge(y, z, 1.0)
    for run in (lambda: f([[1.0]]), lambda: f.vjp([[1.0]]), f.to_c, lambda: g.compile([z], [h])):
        with pytest.raises(ValueError, match=late):
            run()
    with pytest.raises(ValueError, match="inputs: node y is given twice"):
        g.compile(z, [y, h, y])
    g.undo()
    assert f([[3.0]]) == 3 and "/* inputs: 1, outputs: 1, weights: 1 */" in f.to_c()
    f = g.compile(z, [h, g.add_neuron([h])])
    g.undo()
    with pytest.raises(
        ValueError, match="inputs: node n4 was removed"
    ):
        f([[1.0, 1.0]])


@given(case=cases())
def test_bits_do_not_depend_on_threads(sweep, case):
    f = mlgraph.Function(case.graph, case.outputs)
    one = f.vjp(case.x, n_threads=1)
    for n_threads in (2, 3):
        other = f.vjp(case.x, n_threads=n_threads)
        for a, b in zip(one[:3], other[:3], strict=True):
            np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))
        np.testing.assert_array_equal(
            f(case.x, n_threads=n_threads).view(np.int32), f(case.x, n_threads=1).view(np.int32)
        )


@pytest.mark.parametrize("n", [1, 16, 17, 32, 33])
@pytest.mark.parametrize("neurons", [1, 3, 40])
def test_infinite_gradients_are_infinite_whatever_the_number_of_examples(sweep, n, neurons):
    """Of rows, quads and blocks, biases and parameters: lanes without an example have no part in them."""
    g = mlgraph.Graph()
    x, p = g.inputs(2), g.parameter(0.0)
    ids = g.add_neurons(x, weights=np.zeros((neurons, 2)), biases=0.0)
    f = g.compile(mlgraph.sqrt(p) + mlgraph.sum(*(mlgraph.sqrt(g[i]) for i in ids)))
    gradients = f.vjp(np.ones((n, 2)))
    assert gradients.of(p) == np.inf
    for i in ids:
        assert (gradients.of(g[i]) == np.inf).all() and gradients.of_bias(g[i]) == np.inf


@pytest.mark.parametrize("n", [1, 16, 17, 32, 33])
@pytest.mark.parametrize("neurons", [1, 3, 40])
def test_gradients_by_infinite_values_are_infinite(sweep, n, neurons):
    """Of inputs and of neurons; lanes without an example repeat the last one, and have no part in the sums."""
    g = mlgraph.Graph()
    x = g.inputs(2)
    ids = g.add_neurons(x, weights=np.ones((neurons, 2)), biases=0.0)
    top = g.add_neurons(ids, weights=np.ones((neurons, neurons)), biases=0.0)
    at = np.ones((n, 2))
    at[-1, 0] = np.inf
    gradients = g.compile([g[i] for i in top]).vjp(at)
    for i in ids:
        np.testing.assert_array_equal(gradients.of(g[i]), [np.inf, n * neurons])
    for i in top:
        np.testing.assert_array_equal(gradients.of(g[i]), [np.inf] * neurons)


def test_jvp_of_one_output_beside_an_infinite_derivative():
    g = mlgraph.Graph()
    x = g.input()
    f = g.compile([x * 2, mlgraph.log(x)])
    np.testing.assert_array_equal(f.jvp([[0.0], [1.0]], [[1.0], [1.0]]), [[2.0, np.inf], [2.0, 1.0]])


def test_gradients_have_the_places_of_their_own_compilation():
    """A function that is compiled anew finds the parameters elsewhere."""
    g = mlgraph.Graph()
    x = g.inputs(3)
    neurons = [g.add_neuron(x, weights=[k, 0, 1], bias=1.0) for k in range(12)]
    f, at = g.compile(neurons), [[1.0, 2.0, 4.0]]
    f.vjp(at)
    g.prune([(x[1], neuron) for neuron in neurons[:6]])
    gradients = f.vjp(at)
    for k, neuron in enumerate(neurons):
        assert gradients.of(neuron).tolist() == ([1, 4] if k < 6 else [1, 2, 4]) and gradients.of_bias(neuron) == 1
