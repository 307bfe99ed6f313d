"""Expressions of scalars: operators and functions, and random graphs against the float64 reference.

No tolerance is guessed: `mlgraph.testing.expect` bounds what float32 may do to each number of each graph.
"""

import operator

import hypothesis.strategies as st
import numpy as np
import pytest
from graphs import cases, evaluate, readme_of_micrograd
from hypothesis import assume, given, settings

import mlgraph
from mlgraph.graph import functions, ops
from mlgraph.testing import derivatives as testing

BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
fewer = settings(max_examples=settings.default.max_examples // 4)

# --- operators and functions ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 2.5, np.float32(2.5), np.float64(2.5), np.uint8(3)], ids=repr)
@pytest.mark.parametrize("op", BINARY)
def test_operators_with_numbers_on_either_side(op, number):
    g = mlgraph.Graph()
    x = g.add_input()
    left, right = op(number, x), op(x, number)
    assert type(left) is type(right) is mlgraph.Node
    expected = [op(float(number), 1.5), op(1.5, float(number)), -1.5, 1.5, 1.5]
    np.testing.assert_allclose(g.compile([left, right, -x, +x, abs(-x)])([[1.5]])[0], expected, rtol=1e-6)


FUNCTIONS = [name for name in functions.__all__ if name != "softmax"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    op = ops.OPS[name]
    n = op.arity if op.arity > 0 else 5
    g = mlgraph.Graph()
    x = np.random.default_rng(n).uniform(0.1, 1 if name in ("arcsin", "arccos") else 2, (40, n)).astype(np.float32)
    node = getattr(mlgraph, name)(*g.add_inputs(n))
    assert node.kind == name
    np.testing.assert_allclose(g.compile(node)(x)[:, 0], op.value(x.T) if op.arity < 0 else op.value(*x.T), rtol=1e-6)


def test_every_op_can_be_written():
    assert {*FUNCTIONS, "identity", "neg", "abs", "add", "sub", "mul", "div", "pow"} == set(ops.OPS)


def test_softmax_adds_up_to_one_for_any_logits():
    g = mlgraph.Graph()
    softmax = g.compile(mlgraph.softmax(*g.add_inputs(3)))
    np.testing.assert_allclose(softmax([[1, 2, 3]]), [[0.09003057, 0.24472847, 0.66524096]], rtol=1e-6)
    for size in (1000, 3e7, 3e38):
        of_equals = [[1 / 2, 1 / 2, 0], [1 / 3] * 3]
        np.testing.assert_allclose(softmax([[size, size, -size], [-size] * 3]), of_equals, rtol=2e-7)
    logits = np.random.default_rng(0).normal(size=(1000, 3)) * 10 ** np.linspace(-3, 38, 1000)[:, None]
    np.testing.assert_allclose(softmax(logits).sum(axis=1), 1, rtol=3e-7)


def test_nodes_compare_by_identity():
    g = mlgraph.Graph()
    x, y = g.add_input("x"), g.add_input()
    assert x == g[x.id] and hash(x) == hash(g[x.id])
    assert x != y and x != x.id and x != mlgraph.Graph().add_input()
    with pytest.raises(TypeError, match=r"truth value.*<input x>"):
        bool(x)
    for compare in (operator.lt, operator.le, operator.gt, operator.ge):
        for pair in ((x, x), (1.5, x)):
            with pytest.raises(TypeError, match=r"where\(x - y, a, b\)"):
                compare(*pair)


@pytest.mark.parametrize("op", [*BINARY, mlgraph.maximum])
def test_operands_are_numbers_or_nodes_of_one_graph(op):
    x = mlgraph.Graph().add_input()
    with pytest.raises(ValueError, match="graph"):
        op(x, mlgraph.Graph().add_input())
    for other in ("2", None, [1.0], 1j):
        for pair in ((x, other), (other, x)):
            with pytest.raises(TypeError):
                op(*pair)


def test_functions_need_a_node():
    with pytest.raises(TypeError, match=r"^maximum: .*node.*int, int"):
        mlgraph.maximum(1, 2)
    with pytest.raises(TypeError, match=r"^sum: .*node"):
        mlgraph.sum()


def own_test_of_micrograd(x):
    z = 2 * x + 2 + x
    q = mlgraph.relu(z) + z * x
    return mlgraph.relu(z * z) + q + q * x


@pytest.mark.parametrize(
    ("write", "at", "expected"),
    [
        (lambda x, y: y / (mlgraph.exp(x) - y), [3, 4], [0.24867063, -0.310507656, 0.077626914]),
        (readme_of_micrograd, [-4, 2], [24.70408163, 138.83381924, 645.57725947]),
        (own_test_of_micrograd, [-4], [-20, 46]),
    ],
    ids=["ml-rust", "micrograd", "micrograd's test"],
)
def test_values_and_derivatives_that_other_libraries_state(sweep, write, at, expected):
    g = mlgraph.Graph()
    gradients = g.compile(write(*g.add_inputs(len(at)))).vjp([at])
    np.testing.assert_allclose([*gradients.values[0], *gradients.inputs[0]], expected, rtol=2e-6)


# --- random graphs --------------------------------------------------------------------------------


@settings(max_examples=settings.default.max_examples // 2)
@given(case=cases() | cases(tame=False))
def test_random_graphs_match_the_reference(sweep, case):
    """With infinities, NaN and overflow, the same kind of number wherever float32 leaves no choice."""
    testing.check_against_reference(case.outputs, case.x)


@fewer
@given(case=cases())
def test_a_plan_computes_what_the_nodes_define(case):
    expected = testing.expect(mlgraph.Function(case.graph, case.outputs), case.x)
    values = evaluate(case.graph, case.x.astype(float))
    for i, node in enumerate(case.outputs):
        np.testing.assert_allclose(expected.values[:, i], values[node.id], rtol=1e-9, atol=1e-9)


@fewer
@given(case=cases(), seed=st.integers(0, 99))
def test_gradients_are_the_limit_of_finite_differences(sweep, case, seed):
    """Those of the sweep, and those of the reference by inputs, parameters and both."""
    expected = testing.expect(mlgraph.Function(case.graph, case.outputs), case.x, ulps=1)
    # Skip graphs where rounding decides a condition, so that a divisor may come near its pole.
    assume(not any(np.isinf(error).any() for error in expected[1::2]))
    testing.check_gradients(case.outputs, case.x)
    for which in ({"parameters": False}, {"inputs": False}, {}):
        testing.check_reference(case.outputs, case.x, seed=seed, **which)


def test_no_derivative_goes_through_a_condition(sweep):
    """Not even 0 times an infinite one, as that of sqrt at 0; a node that is also a value keeps its derivative."""
    g = mlgraph.Graph()
    x = g.add_input()
    chosen = mlgraph.where(mlgraph.sqrt(x) - 1, 2 * x, 3 * x)
    assert g.compile(chosen).vjp([[0.0], [4.0]]).inputs.ravel().tolist() == [3, 2]
    root = mlgraph.sqrt(x)
    assert g.compile(mlgraph.where(root - 1, root, 3 * x)).vjp([[4.0]]).inputs.tolist() == [[0.25]]
    g = mlgraph.Graph(seed=0)
    x, p, w = g.add_input(), g.add_parameter(1.0), g.add_parameter(1.0)
    model = mlgraph.Model(g, mlgraph.where(mlgraph.sqrt(x * p) - 1, w, -w))
    model.fit([[0.0], [2.0], [3.0]], [1.0, 1.0, 1.0], epochs=1, batch_size=3, learning_rate=0.05, optimizer="sgd")
    assert p.value == 1 and w.value == pytest.approx(1 - 0.05 * 4 / 3)  # only the first example's loss is not 0
