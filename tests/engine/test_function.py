"""Compiled functions: values, and derivatives by example, by node and along a tangent."""

import hypothesis.strategies as st
import numpy as np
import pytest
from graphs import cases, evaluate, every_parameter
from hypothesis import given, settings

import mlgraph
from mlgraph.compiler.plan import Plan
from mlgraph.testing import derivatives as testing

fewer = settings(max_examples=settings.default.max_examples // 4)


def test_gradients_of_nodes_match_finite_differences(sweep):
    g, n = every_parameter()
    x = np.random.default_rng(0).normal(size=(50, 2))
    dead = g.add_parameter(3.0)
    gradients = g.compile(n["z"]).vjp(x)
    assert gradients.of(dead) == 0 and dead.value == 3

    def slope(node, name, step=1.0):
        before, ends = np.array(getattr(node, name)), []
        for h in (1e-3, -1e-3, 0):
            value = before + h * step
            setattr(node, name, value if before.shape else float(value))
            ends.append(evaluate(g, x)[n["z"].id].sum())
        return (ends[0] - ends[1]) / 2e-3

    for name in ("w", "shared"):
        np.testing.assert_allclose(gradients.of(n[name]), slope(n[name], "value"), rtol=1e-2)
    for name in ("one", "bare", "first", "last"):
        want = [slope(n[name], "weights", step) for step in np.eye(len(n[name].sources))]
        np.testing.assert_allclose(gradients.of(n[name]), want, rtol=2e-2, atol=0.05)
        if name != "bare":
            np.testing.assert_allclose(gradients.of_bias(n[name]), slope(n[name], "bias"), rtol=2e-2, atol=0.05)
    np.testing.assert_array_equal(gradients.of(n["y"]), gradients.inputs[:, 1])
    assert repr(gradients.places) == f"<Places of {len(g)} nodes>"


def test_gradients_stay_valid_when_the_graph_grows():
    """Also when another function has moved the parameters. Nodes without a gradient are refused."""
    g, n = every_parameter()
    gradients = g.compile(n["z"]).vjp(np.ones((3, 2)))
    before = {name: gradients.of(n[name]).copy() for name in ("w", "shared", "one", "bare", "first", "last")}
    bias = gradients.of_bias(n["last"])
    late = g.add_neuron([n["x"]], weights=[1])
    g.compile(late + n["w"])([[0.0, 0.0]])
    for name, gradient in before.items():
        np.testing.assert_array_equal(gradients.of(n[name]), gradient)
    assert gradients.of_bias(n["last"]) == bias
    for wrong in (late, n["z"], g.add_constant(1), g.add_input(), g.add_parameter(0)):
        with pytest.raises(ValueError, match=r"^node: "):
            gradients.of(wrong)
    for wrong in (late, n["bare"], n["w"]):
        with pytest.raises(ValueError, match=r"^neuron: "):
            gradients.of_bias(wrong)


def test_gradients_belong_to_the_edges_of_their_own_call():
    """After an edit a function compiles again, which moves the parameters."""
    g = mlgraph.Graph()
    x = g.add_inputs(3)
    neurons = [g.add_neuron(x, weights=[k, 0, 1], bias=1.0) for k in range(12)]
    f, at = g.compile(neurons), [[1.0, 2.0, 4.0]]
    f.vjp(at)
    g.prune([(x[1], neuron) for neuron in neurons[:6]])
    gradients = f.vjp(at)
    for k, neuron in enumerate(neurons):
        assert gradients.of(neuron).tolist() == ([1, 4] if k < 6 else [1, 2, 4]) and gradients.of_bias(neuron) == 1


def test_outputs_of_every_kind(sweep):
    """Inputs, constants, parameters, and nodes given twice, whose adjoints add up."""
    g = mlgraph.Graph()
    x, unread, w, c = g.add_input(), g.add_input(), g.add_parameter(2.0), g.add_constant(5)
    y = w * x
    f = g.compile([x, c, w, y, y, w])
    np.testing.assert_array_equal(f([[3, 7], [4, 8]]), [[3, 5, 2, 6, 6, 2], [4, 5, 2, 8, 8, 2]])
    u = np.array([[1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60]])
    gradients = f.vjp([[3, 7], [4, 8]], u)
    np.testing.assert_array_equal(gradients.inputs, [[1 + 2 * 9, 0], [10 + 2 * 90, 0]])
    assert gradients.of(w) == 3 + 6 + 30 + 60 + 3 * 9 + 4 * 90
    np.testing.assert_array_equal(gradients.of(unread), [0, 0])


def test_a_function_of_constants(sweep):
    g = mlgraph.Graph()
    f = g.compile(mlgraph.exp(g.add_constant(1)) + 1)
    np.testing.assert_allclose(f(np.zeros((4, 0))), np.full((4, 1), np.e + 1), rtol=1e-6)
    gradients = f.vjp(np.zeros((4, 0)))
    assert gradients.inputs.shape == (4, 0) and not gradients.parameters.any()


def test_more_examples_than_memory_holds_at_once(sweep, monkeypatch):
    """They are swept in several steps, the last of which is short."""
    x, u = np.random.default_rng(0).normal(size=(2, 150, 2)).astype(np.float32)
    found = []
    for at_once in (None, 64):
        g, n = every_parameter()
        if at_once:
            monkeypatch.setattr(Plan, "examples_at_once", at_once)
        gradients = g.compile([n["z"], n["one"]]).vjp(x, u)
        mean = mlgraph.Model(g, n["z"]).gradients(x, u[:, 0])
        found.append([*gradients[:3], *mean[:3]])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_no_examples(sweep):
    g, n = every_parameter()
    f = g.compile([n["z"], n["x"]])
    assert f(np.zeros((0, 2))).shape == f.jvp(np.zeros((0, 2)), np.zeros((0, 2))).shape == (0, 2)
    gradients = f.vjp(np.zeros((0, 2)))
    assert gradients.values.shape == gradients.inputs.shape == (0, 2)
    assert len(gradients.parameters) == len(g.parameters) and not gradients.parameters.any()


def test_jvp(sweep):
    """The Jacobian of each example times the tangent: compared with finite differences."""
    g = mlgraph.Graph()
    x = g.add_inputs(3)
    hidden = [g.add_neuron(x, weights=w) for w in ([1.0, -2.0, 0.5], [0.25, 0.0, -1.0])]
    at, tangent = np.random.default_rng(1).normal(size=(2, 40, 3)).astype(np.float32)
    z = [mlgraph.sin(hidden[0]) * x[1], mlgraph.softplus(hidden[1]), g.add_constant(1)]
    ends = [evaluate(g, at.astype(float) + h * tangent) for h in (1e-5, -1e-5)]
    want = np.stack([(ends[0][node.id] - ends[1][node.id]) / 2e-5 for node in z], axis=1)
    f = g.compile(z)
    np.testing.assert_allclose(f.jvp(at, tangent), want, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"^tangent: expected shape \(40, 3\), got \(3,\)"):
        f.jvp(at, tangent[0])
    with pytest.raises(ValueError, match=r"^cotangent: expected shape \(40, 3\), got \(40, 1\)"):
        f.vjp(at, at[:, :1])


@pytest.mark.parametrize("kind", ["input", "neuron"])
def test_jvp_is_exact_when_another_output_has_an_infinite_derivative(kind):
    g = mlgraph.Graph()
    x = g.add_input() if kind == "input" else g.add_neuron([g.add_input()], weights=[3.0])
    f = g.compile([x * 2, mlgraph.log(x)], [x])
    np.testing.assert_array_equal(f.jvp([[0.0], [1.0]], [[1.0], [1.0]]), [[2.0, np.inf], [2.0, 1.0]])


@fewer
@given(case=cases(), data=st.data())
def test_any_nodes_may_be_the_inputs(sweep, case, data):
    """In any order, together with inputs of the graph; each has the values of its column, whatever it would compute."""
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


def test_neurons_and_parameters_as_inputs(sweep):
    """They are columns only; inputs of the graph that are not among the function's have no influence."""
    g = mlgraph.Graph()
    x, unread = g.add_inputs(2)
    h, p = g.add_neuron([x], weights=[3.0]), g.add_parameter(5.0)
    z = h * p + g.add_neuron([h, p], weights=[10.0, 100.0])
    f = g.compile(z, [p, h])
    assert repr(f) == "<Function of 2 inputs: n6>" and f([[2.0, 7.0]]) == 2 * 7 + 70 + 200
    gradients = f.vjp([[2.0, 7.0]])
    assert gradients.of(p) == 7 + 100 and gradients.of(h) == 2 + 10 and gradients.of(x) == gradients.of(unread) == 0
    assert g.compile(h, h)([[4.0]]) == 4 and g.compile(p + 1, [])(np.zeros((2, 0))).tolist() == [[6], [6]]
    h.prune()  # edges to h are cut, which does not matter to a column
    assert f([[2.0, 7.0]]) == 14 + 200


def test_missing_inputs_are_named():
    """Also when an edit makes an output depend on one more."""
    g = mlgraph.Graph(seed=0)
    x, y = g.add_input("x"), g.add_input("y")
    h = g.add_neuron([x], weights=[1.0])
    z = g.add_neuron([h], weights=[1.0])
    f = g.compile(z, h)
    g.add_edge(y, z, 1.0)
    for use in (lambda: f([[1.0]]), lambda: f.vjp([[1.0]]), f.to_c, lambda: g.compile([z], [h])):
        with pytest.raises(ValueError, match=r"^inputs: .*\by\b"):
            use()
    with pytest.raises(ValueError, match=r"^inputs: .*\by .*twice"):
        g.compile(z, [y, h, y])
    g.undo()
    assert f([[3.0]]) == 3 and "/* inputs: 1, outputs: 1, weights: 1 */" in f.to_c()
    f = g.compile(z, [h, g.add_neuron([h])])
    g.undo()
    with pytest.raises(ValueError, match=r"^inputs: .*\bn4\b"):
        f([[1.0, 1.0]])


@fewer
@given(case=cases())
def test_results_are_bitwise_equal_on_any_number_of_threads(sweep, case):
    f = mlgraph.Function(case.graph, case.outputs)
    one = [f(case.x, n_threads=1), *f.vjp(case.x, n_threads=1)[:3]]
    for n_threads in (2, 3):
        other = [f(case.x, n_threads=n_threads), *f.vjp(case.x, n_threads=n_threads)[:3]]
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))


@pytest.mark.parametrize("n", [1, 16, 17, 33])
@pytest.mark.parametrize("neurons", [1, 3, 40])
def test_infinite_gradients_are_infinite_for_any_number_of_examples(sweep, n, neurons):
    """Vector lanes without an example must not turn them into NaN: in rows, quads and blocks, biases and parameters."""
    g = mlgraph.Graph()
    x, p = g.add_inputs(2), g.add_parameter(0.0)
    ids = g.add_neurons(x, weights=np.zeros((neurons, 2)), biases=0.0)
    gradients = g.compile(mlgraph.sqrt(p) + mlgraph.sum(*(mlgraph.sqrt(g[i]) for i in ids))).vjp(np.ones((n, 2)))
    assert gradients.of(p) == np.inf
    for i in ids:
        assert (gradients.of(g[i]) == np.inf).all() and gradients.of_bias(g[i]) == np.inf


@pytest.mark.parametrize("n", [1, 16, 17, 33])
@pytest.mark.parametrize("neurons", [1, 3, 40])
def test_gradients_by_infinite_values_are_infinite(sweep, n, neurons):
    """Vector lanes without an example repeat the last one, which is infinite, and must not be summed."""
    g = mlgraph.Graph()
    ids = g.add_neurons(g.add_inputs(2), weights=np.ones((neurons, 2)), biases=0.0)
    top = g.add_neurons(ids, weights=np.ones((neurons, neurons)), biases=0.0)
    at = np.ones((n, 2))
    at[-1, 0] = np.inf
    gradients = g.compile([g[i] for i in top]).vjp(at)
    for i in ids:
        np.testing.assert_array_equal(gradients.of(g[i]), [np.inf, n * neurons])
    for i in top:
        np.testing.assert_array_equal(gradients.of(g[i]), [np.inf] * neurons)


@pytest.mark.parametrize(("neurons", "rows"), [(2, 3), (19, 20), (40, 21)])
def test_gradients_print_as_a_table_of_neurons_and_parameters(neurons, rows):
    g = mlgraph.Graph()
    x, w = g.add_input("x"), g.add_parameter(2.0, "a<b")
    nodes = [g.add_neuron([x * w], weights=[1.0], bias=None if k else 1.0) for k in range(neurons)]
    gradients = g.compile(nodes).vjp([[3.0]])
    text, html = repr(gradients).splitlines(), gradients._repr_html_()
    assert text[2] == f"  inputs: [[{2 * neurons}.]]"
    head, parameter, first = (line.split() for line in text[5:8])
    assert head == ["neuron", "weights", "norm", "largest", "bias"]
    assert parameter == ["a<b", "1", *[f"{3 * neurons}"] * 2] and first[1:] == ["1", "6", "6", "1"]
    assert len(text) == 6 + rows and html.count("<tr>") == rows + 1 and "<td>a&lt;b</td>" in html
    nodes[0].bias = None
    g.add_neuron([x])
    g.prune([nodes[1]])
    assert repr(gradients).splitlines() == text  # as computed


def test_gradients_without_parameters_print_their_numbers():
    g = mlgraph.Graph()
    x, y = g.add_inputs(2)
    f = g.compile(x * y)
    assert repr(f.vjp([[3.0, 2.0]])) == "Gradients\n  values: [[6.]]\n  inputs: [[2., 3.]]\n  parameters: []"
    assert "inputs: float32, shape (6, 2)" in repr(f.vjp(np.ones((6, 2))))
