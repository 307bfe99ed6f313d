"""Expressions of scalars: how they are written and printed, and any graph of them against the float64 reference.

Tolerances are nowhere guessed: `mlgraph.testing.expect` bounds what float32 may do to each number of each graph.
"""

import ast
import operator
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

import mlgraph
from mlgraph import ops, testing
from mlgraph.formula import formula

NAN, INF = np.nan, np.inf


def evaluate(graph, x, changed=None):
    """Values of all nodes in float64, node by node from the op table: no plan, no kernel. `changed`: values of parameters."""
    values = []
    for node in graph:
        sources = np.array([values[s] for s in graph.sources_of(node.id)])
        if node.kind == "input":
            value = x[:, graph._data[node.id]]
        elif node.kind in ("constant", "parameter"):
            value = np.full(len(x), np.float32((changed or {}).get(node.id, node.value)))
        elif node.kind == "neuron":
            with np.errstate(all="ignore"):
                z = (node.weights.astype(float)[:, None] * sources).sum(axis=0) + (node.bias or 0.0)
            value = ops.OPS[node.activation].value(z)
        else:
            op = ops.OPS[node.kind]
            value = op.value(sources) if op.arity < 0 else op.value(*sources)
        values.append(np.asarray(value, float))
    return values


# --- writing ---------------------------------------------------------------------------------------------------------

NUMBERS = [2, 2.5, True, np.float32(2.5), np.float64(2.5), np.int64(3), np.uint8(3)]
BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
@pytest.mark.parametrize("op", BINARY)
def test_numbers_on_either_side(op, number):
    g = mlgraph.Graph()
    x = g.input()
    left, right = op(number, x), op(x, number)
    assert type(left) is type(right) is mlgraph.Node
    np.testing.assert_allclose(
        g.compile([left, right])([[1.5]])[0], [op(float(number), 1.5), op(1.5, float(number))], rtol=1e-6
    )


def test_unary_operators():
    g = mlgraph.Graph()
    x = g.input()
    np.testing.assert_array_equal(g.compile([-x, +x, abs(x)])([[-2.0], [3.0]]), [[2, -2, 2], [-3, 3, 3]])


ARGUMENTS = {"where": 3, **dict.fromkeys(["maximum", "minimum"], 2), **dict.fromkeys(["sum", "prod", "max", "logsumexp"], 5)}
FUNCTIONS = [name for name in mlgraph.functions.__all__ if name != "softmax"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    n = ARGUMENTS.get(name, 1)
    g = mlgraph.Graph()
    x = np.random.default_rng(n).uniform(0.1, 2, (40, n)).astype(np.float32)
    node = getattr(mlgraph, name)(*g.inputs(n))
    op = ops.OPS[node.kind]
    assert node.kind == name
    np.testing.assert_allclose(g.compile(node)(x)[:, 0], op.value(x.T) if op.arity < 0 else op.value(*x.T), rtol=1e-6)


def test_every_op_can_be_written():
    written = {*FUNCTIONS, "identity", "neg", "abs", "add", "sub", "mul", "div", "pow"}
    assert written == set(ops.OPS)


def test_softmax_adds_up_to_one_for_any_logits():
    g = mlgraph.Graph()
    softmax = g.compile(mlgraph.softmax(*g.inputs(3)))
    np.testing.assert_allclose(softmax([[1, 2, 3]]), [[0.09003057, 0.24472847, 0.66524096]], rtol=1e-6)
    # The exponent is a difference of two numbers of the size of the logits.
    np.testing.assert_allclose(softmax([[1000, 1000, -1000]]), [[0.5, 0.5, 0]], rtol=1000 * 2.0**-24)


@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
def test_nodes_have_no_order(compare):
    x = mlgraph.Graph().input()
    for pair in ((x, x), (x, 1), (1.5, x)):
        with pytest.raises(TypeError, match="use where, maximum or minimum"):
            compare(*pair)


def test_nodes_have_no_truth():
    with pytest.raises(TypeError, match=r"no truth value .* came <input x>"):
        bool(mlgraph.Graph().input("x"))


def test_equality_is_identity():
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    assert x == g[x.id] and hash(x) == hash(g[x.id])
    assert x != y and x != x.id and x != mlgraph.Graph().input()


@pytest.mark.parametrize("op", BINARY)
def test_graphs_do_not_mix(op):
    x, y = mlgraph.Graph().input(), mlgraph.Graph().input()
    with pytest.raises(ValueError, match="expected nodes of one graph, came node 0 of another"):
        op(x, y)
    with pytest.raises(ValueError, match="of another"):
        mlgraph.maximum(x, y)


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("other", ["2", None, [1.0], 1j], ids=repr)
def test_only_numbers_and_nodes(op, other):
    x = mlgraph.Graph().input()
    for pair in ((x, other), (other, x)):
        with pytest.raises(TypeError):
            op(*pair)


def test_a_function_needs_a_node():
    with pytest.raises(TypeError, match="maximum: expected at least one node, came int, int"):
        mlgraph.maximum(1, 2)
    with pytest.raises(TypeError, match="sum: expected at least one node, came nothing"):
        mlgraph.sum()


# --- printing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda x, y: x - (y - x), "x - (y - x)"),
        (lambda x, y: (x - y) - x, "x - y - x"),
        (lambda x, y: x + (y + x), "x + (y + x)"),
        (lambda x, y: (x + y) * x, "(x + y) * x"),
        (lambda x, y: x / (y * x), "x / (y * x)"),
        (lambda x, y: x / y * x, "x / y * x"),
        (lambda x, y: -(x**y), "-x ** y"),
        (lambda x, y: (-x) ** y, "(-x) ** y"),
        (lambda x, y: (x**y) ** x, "(x ** y) ** x"),
        (lambda x, y: x ** y**x, "x ** y ** x"),
        (lambda x, y: x**-y, "x ** (-y)"),
        (lambda x, y: -(x + y), "-(x + y)"),
        (lambda x, y: operator.neg(-x), "-(-x)"),
        (lambda x, y: x - -2, "x - (-2)"),
        (lambda x, y: 1e-5 * x, "1e-05 * x"),
        (lambda x, y: abs(x - y), "abs(x - y)"),
        (lambda x, y: mlgraph.where(x - y, x, 1), "where(x - y > 0, x, 1)"),
        (lambda x, y: mlgraph.sum(x, y, 3) / mlgraph.exp(x + y), "sum(x, y, 3) / exp(x + y)"),
    ],
)
def test_formulas(write, text):
    g = mlgraph.Graph()
    assert str(write(g.input("x"), g.input("y"))) == text


def test_formulas_of_parameters_and_neurons():
    g = mlgraph.Graph()
    x, w = g.input("x"), g.parameter(0.5, "w")
    neuron = g.add_neuron([x, w], "tanh", weights=[0.25, -2], bias=1)
    assert str(w * x) == "w * x"
    assert str(neuron) == "tanh(0.25*x + -2*w + 1)"
    assert str(neuron + 1) == "n2 + 1"


def test_a_long_formula_is_cut_short():
    g = mlgraph.Graph()
    x = y = g.input("x")
    for _ in range(10_000):
        y = mlgraph.sin(y) + x
    assert len(str(y)) < 1000 and "..." in str(y)


@st.composite
def expressions(draw):
    """A graph of inputs, constants and operations, all in its last node or not."""
    g = mlgraph.Graph()
    nodes = [*(g.input(f"x{i}") for i in range(2)), g.constant(draw(st.sampled_from([-3, -0.125, 0, 0.5, 2, 1000, 1e-5])))]
    for _ in range(draw(st.integers(1, 12))):
        op = draw(st.sampled_from([op for op in ops.BY_CODE if op.name != "identity"]))
        n = op.arity if op.arity > 0 else draw(st.integers(1, 3))
        nodes.append(g.operation(op.name, *(nodes[draw(st.integers(-6, 5)) % len(nodes)] for _ in range(n))))
    return g


class _InFloat64(ast.NodeTransformer):
    """Python's own numbers raise where numpy's are infinite, and become complex."""

    def visit_Constant(self, node):
        return ast.copy_location(ast.Call(ast.Name("float64", ast.Load()), [node], []), node)


@given(expressions(), st.integers(0, 99))
def test_a_formula_is_python(g, seed):
    x = np.random.default_rng(seed).normal(size=(1, 2)) * 3
    node = list(g)[-1]
    names = {op.name: lambda *a, op=op: op.value(np.array(a)) if op.arity < 0 else op.value(*a) for op in ops.BY_CODE}
    names["where"] = lambda c, a, b: np.where(c, a, b)
    names |= {"x0": np.float64(x[0, 0]), "x1": np.float64(x[0, 1]), "float64": np.float64}
    code = ast.fix_missing_locations(_InFloat64().visit(ast.parse(formula(node, longest=10**6), mode="eval")))
    with np.errstate(all="ignore"):
        value = eval(compile(code, "formula", "eval"), names)
    np.testing.assert_allclose(value, evaluate(g, x)[-1][0], rtol=1e-6)  # constants have six digits in print


# --- examples of others ----------------------------------------------------------------------------------------------


def derivatives(write, *at):
    """Value of an expression of inputs, and its derivatives."""
    g = mlgraph.Graph()
    gradients = g.compile(write(*g.inputs(len(at)))).vjp([at])
    return [*gradients.values[0].tolist(), *gradients.inputs[0].tolist()]


@pytest.mark.parametrize(
    ("write", "at", "expected"),
    [
        (lambda x: x + x, [1], [2, 2]),
        (lambda x: x * x, [2], [4, 4]),
        (lambda x, y: y * (x * x), [2, 3], [12, 12, 4]),
        (lambda x, y: x - y, [1, 2], [-1, 1, -1]),
        (lambda x, y: x * y, [3, 2], [6, 2, 3]),
        (lambda x, y: x / y, [1, 2], [0.5, 0.5, -0.25]),
        (lambda x: mlgraph.exp(x), [1], [np.exp(1), np.exp(1)]),
        (lambda x, y: y / (mlgraph.exp(x) - y), [3, 4], [0.24867063, -0.310507656, 0.077626914]),
        (lambda x: mlgraph.relu(x), [4], [4, 1]),
        (lambda x: mlgraph.leaky_relu(x), [-4], [-0.04, 0.01]),  # its leak is 0.1
    ],
)
def test_ml_rust(sweep, write, at, expected):
    """The unit tests of ml-rust's automatic differentiation."""
    np.testing.assert_allclose(derivatives(write, *at), expected, rtol=2e-6)


def test_ml_rust_network(sweep):
    """Its test of a network: two leaky ReLUs, two sigmoids without bias, softmax of them, squared distance."""
    g = mlgraph.Graph()
    x = g.inputs(2)
    w = [0.5, 0.1, 0.3, 0.2, 0.4, 0.6, 0.15, 0.25, 0.7, 0.2]
    p = [g.parameter(v) for v in w]
    hidden = [mlgraph.leaky_relu(p[0] + p[1] * x[0] + p[2] * x[1]), mlgraph.leaky_relu(p[3] + p[4] * x[0] + p[5] * x[1])]
    out = [mlgraph.sigmoid(p[6] * hidden[0] + p[7] * hidden[1]), mlgraph.sigmoid(p[8] * hidden[0] + p[9] * hidden[1])]
    error = mlgraph.sum(*((q - t) ** 2 for q, t in zip(mlgraph.softmax(*out), [1, 0], strict=True)))

    h = [0.5 + 0.1 * 0.8 + 0.3 * 0.2, 0.2 + 0.4 * 0.8 + 0.6 * 0.2]
    a, b = (1 / (1 + np.exp(-(u * h[0] + v * h[1]))) for u, v in ((0.15, 0.25), (0.7, 0.2)))
    share = np.exp(b) / (np.exp(a) + np.exp(b))
    np.testing.assert_allclose(g.compile(error)([[0.8, 0.2]]), [[2 * share**2]], rtol=1e-6)
    testing.check_gradients(error, [[0.8, 0.2]])


def readme_of_micrograd(a, b):
    c = a + b
    d = a * b + b**3
    c = c + (c + 1)
    c = c + (1 + c + (-a))
    d = d + (d * 2 + mlgraph.relu(b + a))
    d = d + (3 * d + mlgraph.relu(b - a))
    f = (c - d) ** 2
    return f / 2.0 + 10.0 / f


def test_of_micrograd(x):
    z = 2 * x + 2 + x
    q = mlgraph.relu(z) + z * x
    return mlgraph.relu(z * z) + q + q * x


test_of_micrograd.__test__ = False


def test_micrograd(sweep):
    np.testing.assert_allclose(derivatives(readme_of_micrograd, -4, 2), [24.70408163, 138.83381924, 645.57725947], rtol=1e-6)
    assert derivatives(test_of_micrograd, -4) == [-20, 46]


# --- any graph -------------------------------------------------------------------------------------------------------

PARAMETERS = ["parameter", "neuron", "neurons"]
SPECIAL = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 1e30, -1e30, 1e-30, 1e-42, 88.0, -104.0]


class Case:
    """A graph, the nodes that are its outputs, and a batch."""

    def __init__(self, graph, outputs, x):
        self.graph, self.outputs, self.x = graph, outputs, x

    def __repr__(self):
        lines = [f"{node!r} {[s.id for s in node.sources]} {getattr(node, 'activation', '')}" for node in self.graph]
        return f"<{len(self.x)} examples, outputs {[o.id for o in self.outputs]}, nodes:\n  " + "\n  ".join(lines) + ">"


@st.composite
def cases(draw, tame=True):
    """Random graphs: any op, neurons with any sources, shared and dead nodes, any node an output, perhaps twice.

    The arguments of a tame graph stay where its ops are well conditioned, so that a bound is a strong statement.
    Others have arguments of any kind, among them infinities and NaN.
    """
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    g = mlgraph.Graph()
    n_inputs = draw(st.integers(1, 5))
    x = rng.normal(size=(draw(st.integers(1, 300) | st.sampled_from([1, 31, 32, 33, 64])), n_inputs)).astype(np.float32)

    def number():
        return float(rng.choice(SPECIAL)) if not tame and rng.random() < 0.2 else float(np.float32(rng.normal()))

    if not tame:
        at = rng.random(x.shape) < 0.1
        x[at] = rng.choice(SPECIAL, at.sum())
    nodes = g.inputs(n_inputs)
    reach = draw(st.sampled_from([2, 5, 100]))  # small: deep graphs; large: wide ones

    def pick():
        return nodes[max(0, len(nodes) - 1 - draw(st.integers(0, min(reach, len(nodes)) - 1)))]

    def some(most):
        return list({node.id: node for node in (pick() for _ in range(draw(st.integers(1, most))))}.values())

    kinds = st.sampled_from([*ops.OPS, *PARAMETERS, *PARAMETERS, "constant"])
    for kind in draw(st.lists(kinds, min_size=draw(st.sampled_from([0, 3, 10, 20])), max_size=30)):
        if kind == "parameter":
            new = [g.parameter(number())]
        elif kind == "constant":
            new = [g.constant(draw(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0])) if tame else number())]
        elif kind == "neuron":
            sources = some(9)
            weights = [number() / len(sources) ** 0.5 for _ in sources]
            bias = draw(st.sampled_from([None, number()]))
            new = [g.add_neuron(sources, draw(st.sampled_from(ops.ACTIVATIONS)), weights=weights, bias=bias)]
        elif kind == "neurons":
            sources, n = some(5), draw(st.sampled_from([1, 7, 8, 16, 17, 33]))
            weights = [[number() / len(sources) ** 0.5 for _ in sources] for _ in range(n)]
            biases = draw(st.sampled_from([None, [number() for _ in range(n)]]))
            new = [g[i] for i in g.add_neurons(sources, weights, biases, draw(st.sampled_from(ops.ACTIVATIONS)))]
            new = [new[0], new[-1], g.operation("sum", *new)]
        else:
            op = ops.OPS[kind]
            arguments = [pick() for _ in range(op.arity if op.arity > 0 else draw(st.integers(1, 6)))]
            new = [g.operation(kind, *(into_domain(kind, arguments, number) if tame else arguments))]
        nodes.extend(mlgraph.sin(node) if tame and is_large(g, node, x) else node for node in new)
    outputs = [pick() for _ in range(draw(st.integers(0, 3)))] + [nodes[-1]]
    return Case(g, outputs, x)


def into_domain(kind, arguments, number):
    """Away from poles, from ties, and from where derivatives are far larger than values."""
    if kind in ("log", "sqrt"):
        return [mlgraph.softplus(arguments[0]) + 0.25]
    if kind == "exp":
        return [mlgraph.sin(arguments[0])]
    if kind == "div":
        return [arguments[0], mlgraph.softplus(arguments[1]) + 0.25]
    if kind == "pow":
        return [mlgraph.softplus(arguments[0]) + 0.25, mlgraph.sin(arguments[1]) * 2]
    if kind in ("maximum", "minimum", "max"):
        return [argument + number() for argument in arguments]
    if kind == "where":
        return [arguments[0] + number(), *arguments[1:]]
    return arguments


def is_large(graph, node, x):
    return np.abs(evaluate(graph, x[:20].astype(float))[node.id]).max() > 10


@given(case=cases())
def test_any_graph(sweep, case):
    testing.check_against_reference(case.outputs, case.x)


@pytest.mark.parametrize("tame", [True, False])
def test_bounds_say_something(tame):
    """Of half the graphs six digits are held, of most of them four, in proportion to the largest number of its kind.

    Where there are infinities and NaN, what float32 may give is known of nine numbers in ten.
    """
    shares, known = [], []

    @settings(max_examples=200)
    @given(case=cases(tame))
    def measure(case):
        e = testing.expect(mlgraph.Function(case.graph, case.outputs), case.x)
        for number, error in ((e.values, e.values_error), (e.inputs, e.inputs_error), (e.parameters, e.parameters_error)):
            if number.any():
                known.append(np.mean(np.isfinite(error[~np.isnan(error)])))
                if tame:
                    shares.append(np.nanmedian(error) / (1e-30 + np.abs(number).max()))

    measure()
    assert np.mean(known) > (0.999 if tame else 0.9)
    if tame:
        assert np.quantile(shares, 0.5) < 1e-6
        assert np.quantile(shares, 0.8) < 1e-4


@given(case=cases(tame=False))
def test_any_numbers(sweep, case):
    """Infinities, NaN, overflow: the same kind of number wherever float32 leaves no choice."""
    testing.check_against_reference(case.outputs, case.x)


@given(case=cases())
def test_plan_means_graph(case):
    """Merging, blocks, slots: what the plan computes is what the nodes say."""
    expected = testing.expect(mlgraph.Function(case.graph, case.outputs), case.x)
    values = evaluate(case.graph, case.x.astype(float))
    for i, node in enumerate(case.outputs):
        np.testing.assert_allclose(expected.values[:, i], values[node.id], rtol=1e-9, atol=1e-9)


def assume_bounded(case):
    """Where a condition hangs on rounding, a divisor may come near its pole; then there is nothing to check."""
    expected = testing.expect(mlgraph.Function(case.graph, case.outputs), case.x, ulps=1)
    assume(not any(np.isinf(error).any() for error in expected[1::2]))


@given(case=cases(), seed=st.integers(0, 99))
def test_reference_is_the_limit_of_differences(case, seed):
    assume_bounded(case)
    for which in ({"parameters": False}, {"inputs": False}, {}):
        testing.check_reference(case.outputs, case.x, seed=seed, **which)


@given(case=cases())
def test_gradients_are_the_limit_of_differences(sweep, case):
    assume_bounded(case)
    testing.check_gradients(case.outputs, case.x)


TORCH = {
    "identity": lambda t, x: x, "leaky_relu": lambda t, x: t.nn.functional.leaky_relu(x, ops.LEAK),
    "softplus": lambda t, x: t.nn.functional.softplus(x, threshold=1000), "div": lambda t, a, b: a / b,
    "where": lambda t, c, a, b: t.where(c > 0, a, b), "sum": lambda t, *x: t.stack(x).sum(0),
    "prod": lambda t, *x: t.stack(x).prod(0), "max": lambda t, *x: t.stack(x).amax(0),
    "logsumexp": lambda t, *x: t.stack(x).logsumexp(0),
}  # fmt: skip


def in_torch(torch, case):
    """The outputs, and the leaves of each input, parameter and neuron; every node by PyTorch in float64."""
    values, leaves = [], {}

    def leaf(node, array):
        leaves[node] = torch.tensor(np.asarray(array, float), requires_grad=True)
        return leaves[node]

    for node in case.graph:
        sources = [values[s.id] for s in node.sources]
        if node.kind == "input":
            value = leaf(node, case.x[:, case.graph._data[node.id]])
        elif node.kind == "constant":
            value = torch.full((len(case.x),), node.value, dtype=torch.float64)
        elif node.kind == "parameter":
            value = leaf(node, node.value).expand(len(case.x))
        elif node.kind == "neuron":
            z = torch.stack(sources, 1) @ leaf(node, node.weights)
            if node.bias is not None:
                z = z + leaf((node, "bias"), node.bias)
            value = TORCH.get(node.activation, lambda t, x: getattr(t, node.activation)(x))(torch, z)  # noqa: B023
        else:
            value = TORCH.get(node.kind, lambda t, *x: getattr(t, node.kind)(*x))(torch, *sources)  # noqa: B023
        values.append(value)
    return torch.stack([values[node.id] for node in case.outputs], 1), leaves


@given(case=cases())
def test_pytorch_agrees(case):
    torch = pytest.importorskip("torch")
    outputs, leaves = in_torch(torch, case)
    u = np.random.default_rng(0).normal(size=tuple(outputs.shape)).astype(np.float32)
    f = mlgraph.Function(case.graph, case.outputs)
    expected = testing.expect(f, case.x, u)
    gradients = f.vjp(case.x, u)
    np.testing.assert_allclose(expected.values, outputs.detach(), rtol=1e-9, atol=1e-9)
    if outputs.requires_grad:
        outputs.backward(torch.tensor(u.astype(float)))
    exact = gradients._replace(inputs=expected.inputs, parameters=expected.parameters)
    for leaf, tensor in leaves.items():
        got = exact.of_bias(leaf[0]) if isinstance(leaf, tuple) else exact.of(leaf)
        want = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-7 * (1 + np.abs(want).max()), err_msg=str(leaf))


# --- functions -------------------------------------------------------------------------------------------------------


def small():
    """A graph with every way to hold a parameter; nodes by name."""
    g = mlgraph.Graph()
    x, y = g.input("x"), g.input("y")
    w = g.parameter(0.5, "w")
    shared = g.parameter(-1.5, "shared")
    one = g.add_neuron([x, y, w], "tanh", weights=[0.5, -1, 2], bias=0.25)
    bare = g.add_neuron([one, x], "sigmoid", weights=[1, -2], bias=None)
    block = [g[i] for i in g.add_neurons([x, one], np.linspace(-1, 1, 34).reshape(17, 2), np.linspace(-1, 1, 17), "relu")]
    z = shared * bare + mlgraph.sum(*block) * shared + w * y
    return g, {"x": x, "y": y, "w": w, "shared": shared, "one": one, "bare": bare, "first": block[0], "last": block[-1], "z": z}


def slope(g, z, x, change, h=1e-3):
    """Derivative of sum(z) by changing something in place, in float64 from the op table."""
    ends = []
    for step in (h, -h):
        undo = change(step)
        ends.append(evaluate(g, x)[z.id].sum())
        undo()
    return (ends[0] - ends[1]) / (2 * h)


def test_gradients_of_nodes(sweep):
    g, n = small()
    x = np.random.default_rng(0).normal(size=(50, 2))
    gradients = g.compile(n["z"]).vjp(x)

    def weight(neuron, k):
        def change(step):
            before = neuron.weights.copy()
            neuron.weights[k] += step
            return lambda: neuron.weights.__setitem__(slice(None), before)

        return change

    def bias(neuron):
        def change(step):
            before = neuron.bias
            neuron.bias += step
            return lambda: setattr(neuron, "bias", before)

        return change

    def value(parameter):
        def change(step):
            before = parameter.value
            parameter.value += step
            return lambda: setattr(parameter, "value", before)

        return change

    for name in ("w", "shared"):
        assert gradients.of(n[name]).shape == ()
        np.testing.assert_allclose(gradients.of(n[name]), slope(g, n["z"], x, value(n[name])), rtol=1e-2)
    for name in ("one", "bare", "first", "last"):
        neuron = n[name]
        want = [slope(g, n["z"], x, weight(neuron, k)) for k in range(len(neuron.sources))]
        np.testing.assert_allclose(gradients.of(neuron), want, rtol=2e-2, atol=0.05)
        if name != "bare":
            np.testing.assert_allclose(gradients.of_bias(neuron), slope(g, n["z"], x, bias(neuron)), rtol=2e-2, atol=0.05)
    np.testing.assert_array_equal(gradients.of(n["y"]), gradients.inputs[:, 1])


def test_gradients_know_their_places():
    """Also after another function has laid the parameters out in its own way, and after the graph has grown."""
    g, n = small()
    f, x = g.compile(n["z"]), np.ones((3, 2))
    gradients = f.vjp(x)
    before = {name: gradients.of(n[name]).copy() for name in ("w", "shared", "one", "bare", "first", "last")}
    bias = gradients.of_bias(n["last"])
    moves = g.moves
    late = g.add_neuron([n["x"]], weights=[1])
    g.compile(late + n["w"])([[0.0, 0.0]])
    assert g.moves > moves
    for name, gradient in before.items():
        np.testing.assert_array_equal(gradients.of(n[name]), gradient)
    assert gradients.of_bias(n["last"]) == bias
    for wrong in (late, n["z"], g.constant(1), g.input(), g.parameter(0)):
        with pytest.raises(ValueError, match="node: expected an input, parameter or neuron that was there"):
            gradients.of(wrong)
    for wrong in (late, n["bare"], n["w"]):
        with pytest.raises(ValueError, match="neuron: expected a neuron with a bias that was there"):
            gradients.of_bias(wrong)


def test_dead_nodes_cost_nothing_and_have_no_gradient():
    g, n = small()
    slots = g.compile(n["z"])._engine(True).plan.n_slots
    dead = g.parameter(3.0)
    lost = mlgraph.exp(dead * n["x"]) + g.add_neuron([n["x"], dead], weights=[1, 1])
    assert len(lost.sources) == 2
    f = g.compile(n["z"])
    gradients = f.vjp(np.ones((2, 2)))
    assert f._engine(True).plan.n_slots == slots
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
    neurons = [g[i] for i in g.add_neurons([x], w)]
    f = g.compile(mlgraph.sum(*neurons))
    at, u = np.random.default_rng(1).normal(size=(2, 150, 1)).astype(np.float32)
    gradients = f.vjp(at, u)
    np.testing.assert_allclose(gradients.values, at * w.sum(dtype=float), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(gradients.inputs, u * w.sum(dtype=float), rtol=1e-3, atol=1e-3)
    want = float((at.astype(float) * u).sum())
    np.testing.assert_allclose([gradients.of(neuron)[0] for neuron in neurons[:: n // 64]], want, rtol=1e-4)


def test_no_examples(sweep):
    g, n = small()
    f = g.compile([n["z"], n["x"]])
    assert f(np.zeros((0, 2))).shape == (0, 2)
    gradients = f.vjp(np.zeros((0, 2)))
    assert gradients.values.shape == gradients.inputs.shape == (0, 2)
    assert len(gradients.parameters) == len(g.parameters) and not gradients.parameters.any()


@pytest.mark.parametrize("cotangent", [np.ones(3), np.ones((3, 2)), np.ones((2, 1)), 1.0, [[1]]])
def test_cotangent_has_the_shape_of_the_outputs(cotangent):
    g, n = small()
    with pytest.raises(ValueError, match=r"cotangent: expected shape \(3, 1\), came \("):
        g.compile(n["z"]).vjp(np.ones((3, 2)), cotangent)


def test_jvp(sweep):
    """Rows of the Jacobian times the tangent: of a linear map its matrix, of others what a difference says."""
    g = mlgraph.Graph()
    x, w = g.inputs(3), np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    neurons = [g[i] for i in g.add_neurons(x, w)]
    at, tangent = np.random.default_rng(1).normal(size=(2, 40, 3)).astype(np.float32)
    np.testing.assert_allclose(g.compile(neurons).jvp(at, tangent), tangent @ w.T, rtol=1e-5, atol=1e-6)
    z = [mlgraph.sin(neurons[0]) * x[1], mlgraph.softplus(neurons[3]), g.constant(1)]
    ends = [evaluate(g, at.astype(float) + h * tangent) for h in (1e-5, -1e-5)]
    want = np.stack([(ends[0][node.id] - ends[1][node.id]) / 2e-5 for node in z], axis=1)
    f = g.compile(z)
    np.testing.assert_allclose(f.jvp(at, tangent), want, rtol=1e-4, atol=1e-5)
    assert f.jvp(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0, 3)
    with pytest.raises(ValueError, match=r"tangent: expected shape \(40, 3\), came \(3,\)"):
        f.jvp(at, tangent[0])


def test_bytes_are_shares_of_255(sweep):
    g, n = small()
    x = np.random.default_rng(0).integers(0, 256, (70, 2), np.uint8)
    testing.check_against_reference(n["z"], x)
    testing.check_gradients(n["z"], x)
    f = g.compile(n["z"])
    np.testing.assert_array_equal(f(x), f((x / 255).astype(np.float32)))
    np.testing.assert_array_equal(f.vjp(x).inputs, f.vjp((x / 255).astype(np.float32)).inputs)


@given(case=cases())
def test_bits_do_not_depend_on_threads(sweep, case):
    f = mlgraph.Function(case.graph, case.outputs)
    one = f.vjp(case.x, n_threads=1)
    for n_threads in (2, 3):
        other = f.vjp(case.x, n_threads=n_threads)
        for a, b in zip(one[:3], other[:3], strict=True):
            np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))
        np.testing.assert_array_equal(f(case.x, n_threads=n_threads).view(np.int32), f(case.x, n_threads=1).view(np.int32))


# --- the checks can fail ---------------------------------------------------------------------------------------------


@pytest.fixture
def wrong_sine(monkeypatch):
    """An op table in which the derivative of sine is off by one part in a thousand."""
    op = ops.OPS["sin"]
    changed = op._replace(derivatives=lambda y, x: (op.derivatives(y, x)[0] * 1.001,))
    monkeypatch.setattr(ops, "BY_CODE", tuple(changed if o is op else o for o in ops.BY_CODE))


def test_checks_notice_a_wrong_derivative(wrong_sine):
    g = mlgraph.Graph()
    z = mlgraph.sin(g.input() * g.parameter(2.0))
    x = np.linspace(-1, 1, 20)[:, None]
    with pytest.raises(AssertionError, match=r"<J\^T u, v> = \S+ by the reference, <u, J v> = \S+ by differences.*tolerance"):
        testing.check_reference(z, x)
    with pytest.raises(AssertionError, match=r"gradient \(example, input\) 0, 0: the sweep gives .*tolerance"):
        testing.check_against_reference(z, x)
    testing.check_gradients(z, x)  # the kernels are right, and the table's derivatives not in use


@pytest.mark.parametrize("part", ["inputs", "parameters"])
def test_checks_notice_a_wrong_gradient(monkeypatch, part):
    _, n = small()
    x = np.random.default_rng(0).normal(size=(20, 2))
    vjp = mlgraph.Function.vjp

    def wrong(self, *args, **options):
        gradients = vjp(self, *args, **options)
        getattr(gradients, part).flat[0] += 0.05 * np.abs(getattr(gradients, part)).max()
        return gradients

    testing.check_gradients(n["z"], x)
    monkeypatch.setattr(mlgraph.Function, "vjp", wrong)
    with pytest.raises(AssertionError, match="by the sweep in float32"):
        testing.check_gradients(n["z"], x)
    with pytest.raises(AssertionError, match=r"gradient \("):
        testing.check_against_reference(n["z"], x)
    other = {"inputs": "parameters", "parameters": "inputs"}[part]
    testing.check_gradients(n["z"], x, **{part: False})
    with pytest.raises(AssertionError):
        testing.check_gradients(n["z"], x, **{other: False})


def test_checks_notice_a_wrong_value(monkeypatch):
    _, n = small()
    call = mlgraph.Function.__call__
    monkeypatch.setattr(mlgraph.Function, "__call__", lambda self, x, **o: call(self, x, **o) * np.float32(1 + 1e-4))
    with pytest.raises(AssertionError, match=r"value without gradient \(example, output\) 0, 0: .*; 5 of 5 differ"):
        testing.check_against_reference(n["z"], np.ones((5, 2)))


def scaled(op, by):
    return op._replace(derivatives=lambda y, *x: by * np.stack(np.broadcast_arrays(*op.derivatives(y, *x))))


FAULTS = {
    "none": lambda op: op,
    "value": lambda op: op._replace(value=lambda *x: op.value(*x) * 1.001),
    "derivative": lambda op: scaled(op, 1.001),
    "sign": lambda op: scaled(op, -1.0),
    "swapped derivatives": lambda op: op._replace(derivatives=lambda y, *x: op.derivatives(y, *x)[::-1]),
    "swapped arguments": lambda op: op._replace(value=lambda *x: op.value(*x[::-1])),
}


class FaultySweep:
    """In the place of the kernels: the reference with another op table, its numbers rounded to float32."""

    def __init__(self, monkeypatch):
        self.monkeypatch, self.table = monkeypatch, ops.BY_CODE
        monkeypatch.setattr(mlgraph.Function, "vjp", lambda f, x, u, **options: self.run(f, x, u))
        monkeypatch.setattr(mlgraph.Function, "__call__", lambda f, x, **options: self.run(f, x, None).values)

    def change(self, op, fault):
        self.table = tuple(FAULTS[fault](o) if o is op else o for o in ops.BY_CODE)

    def run(self, f, x, u):
        with self.monkeypatch.context() as context:
            context.setattr(ops, "BY_CODE", self.table)
            e = testing.expect(f, x, u)
        return mlgraph.function.Gradients(*(a.astype(np.float32) for a in (e.values, e.inputs, e.parameters)), None)


@pytest.mark.parametrize("fault", [*FAULTS][1:])
def test_faults_of_ops_are_found(monkeypatch, fault):
    sweep, rng, found = FaultySweep(monkeypatch), np.random.default_rng(0), []
    for op in ops.BY_CODE:
        g = mlgraph.Graph()
        inputs = g.inputs(arity := op.arity if op.arity > 0 else 4)
        f = g.compile(g.operation(op.name, *into_domain(op.name, inputs, rng.normal)))
        x, u = rng.normal(size=(50, arity)).astype(np.float32), rng.normal(size=(50, 1)).astype(np.float32)
        sweep.change(op, "none")
        testing.check_against_reference(f, x, u)
        right = sweep.run(f, x, u)
        sweep.change(op, fault)
        if any((a != b).any() for a, b in zip(right[:3], sweep.run(f, x, u)[:3], strict=True)):
            with pytest.raises(AssertionError, match="tolerance"):
                testing.check_against_reference(f, x, u)
            found.append(op.name)
    # Swapping changes nothing where there is one argument, or where all arguments are treated alike.
    assert len(found) == {"swapped derivatives": 10, "swapped arguments": 4}.get(fault, len(ops.BY_CODE))


def test_what_may_overflow_cannot_be_checked():
    g = mlgraph.Graph()
    z = mlgraph.exp(g.input() * 50)
    testing.check_gradients(z, [[1.0]])
    with pytest.raises(AssertionError, match="tolerance inf"):
        testing.check_gradients(z, [[2.0]])


def test_checks_need_a_node():
    with pytest.raises(ValueError, match="function: expected at least one node, came none"):
        testing.check_gradients([], [[1.0]])


def test_bounds_hold_what_must_not_be_finite(sweep):
    """Certain infinities and NaN are held to be just that; what depends on rounding is not."""
    g = mlgraph.Graph()
    x = g.input()
    f = g.compile([1 / x, mlgraph.log(x), x - x + mlgraph.exp(x * 1e9), mlgraph.sqrt(mlgraph.exp(x) - 1)])
    expected = testing.check_against_reference(f, [[0.0], [-1.0], [NAN], [2.0], [INF]])
    np.testing.assert_array_equal(expected.values[:, 0], [INF, -1, NAN, 0.5, 0])
    np.testing.assert_array_equal(np.isinf(expected.values_error)[:, :2], False)
    assert np.isinf(expected.values_error[0, 3])  # the square root of 0, or of less


def test_checks_are_found_without_an_import_of_their_own():
    code = "import mlgraph; print(mlgraph.testing.check_gradients.__name__, mlgraph.drawing.Drawing.__name__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["check_gradients", "Drawing"]
