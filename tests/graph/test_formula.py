"""Formulas: a node prints as a Python expression."""

import ast
import operator

import hypothesis.strategies as st
import numpy as np
import pytest
from graphs import evaluate
from hypothesis import given

import mlgraph
from mlgraph.graph import ops
from mlgraph.graph.formula import formula


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
        (lambda x, y: x**y**x, "x ** y ** x"),
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
def test_formulas_of_operations(write, text):
    g = mlgraph.Graph()
    assert str(write(g.add_input("x"), g.add_input("y"))) == text


def test_formulas_of_parameters_and_neurons():
    g = mlgraph.Graph()
    x, w = g.add_input("x"), g.add_parameter(0.5, "w")
    neuron = g.add_neuron([x, w], "tanh", weights=[0.25, -2], bias=1)
    assert str(w * x) == "w * x"
    assert str(neuron) == "tanh(0.25*x - 2*w + 1)"
    assert str(neuron + 1) == "n2 + 1"


@st.composite
def expressions(draw):
    """A graph of inputs, constants and operations, all in its last node or not."""
    g = mlgraph.Graph()
    nodes = [
        *(g.add_input(f"x{i}") for i in range(2)),
        g.add_constant(draw(st.sampled_from([-3, -0.125, 0, 0.5, 2, 1000, 1e-5]))),
    ]
    for _ in range(draw(st.integers(1, 12))):
        op = draw(st.sampled_from(ops.BY_CODE))
        n = op.arity if op.arity > 0 else draw(st.integers(1, 3))
        nodes.append(g.add_operation(op.name, *(nodes[draw(st.integers(-6, 5)) % len(nodes)] for _ in range(n))))
    return g


class _InFloat64(ast.NodeTransformer):
    """Python's own numbers raise where numpy's are infinite, and become complex."""

    def visit_Constant(self, node):
        return ast.copy_location(ast.Call(ast.Name("float64", ast.Load()), [node], []), node)


@given(expressions(), st.integers(0, 99))
def test_formula_evaluates_to_the_value_of_the_node(g, seed):
    x = np.random.default_rng(seed).normal(size=(1, 2)) * 3
    node = list(g)[-1]
    names = {op.name: lambda *a, op=op: op.value(np.array(a)) if op.arity < 0 else op.value(*a) for op in ops.BY_CODE}
    names["where"] = lambda c, a, b: np.where(c, a, b)
    names |= {"x0": np.float64(x[0, 0]), "x1": np.float64(x[0, 1]), "float64": np.float64}
    code = ast.fix_missing_locations(_InFloat64().visit(ast.parse(formula(node, longest=10**6), mode="eval")))
    with np.errstate(all="ignore"):
        value = eval(compile(code, "formula", "eval"), names)
    np.testing.assert_allclose(value, evaluate(g, x)[-1][0], rtol=1e-6)  # constants have six digits in print


@pytest.mark.parametrize("write", [lambda t, x: t + x, lambda t, x: (t + x) * x, lambda t, x: mlgraph.tanh(t)])
def test_long_formula_is_truncated_without_recursion(write):
    x = t = mlgraph.Graph().add_input("x")
    for _ in range(3000):
        t = write(t, x)
    text = str(t)
    assert text.count("...") == 1 and len(text) < 3 * 400 and text.count("(") == text.count(")")
    assert len(str(mlgraph.sin(t) * x)) < 3 * 400


def test_complete_formula_has_no_dots():
    g = mlgraph.Graph()
    x, y = g.add_input("x"), g.add_input("y")
    assert formula(x + y, 5) == "x + y" and formula(mlgraph.tanh(x), 7) == "tanh(x)"
    many = mlgraph.sum(*(g.add_input(f"a long name {i}") for i in range(120)))
    assert str(mlgraph.tanh(many)).endswith("...))") and formula(many, 10**6).endswith("a long name 99, ...)")
    assert str(g.add_neuron(g.add_inputs(10), weights=np.ones(10))).endswith(" + 1*n133 + ... 2 more + 0)")


def test_names_in_formulas_are_escaped_and_truncated():
    g = mlgraph.Graph()
    odd, long = g.add_input("a\nb\x1b[2J\ud800"), g.add_input("n" * 10_000)
    assert str(odd + 1) == r"a\nb\x1b[2J\ud800 + 1"
    assert len(str(long + 1)) < 500 and len(str(g.add_neuron([long, odd], weights=[1.0, 2.0]))) < 1000
