"""Derivatives at corners, as nodes and as numbers: zeros, infinities, ties, and arguments that saturate."""

import numpy as np
import pytest

import mlgraph
from mlgraph.graph.ops import LEAK

INF, NAN = np.inf, np.nan

# fmt: off
CORNERS = [  # op, arguments, first derivatives, second derivatives row by row
    ("relu", [0], [0], [0]),
    ("relu", [-0.0], [0], [0]),
    ("relu", [INF], [1], [0]),
    ("sigmoid", [0], [0.25], [0]),
    ("sigmoid", [104], [0], [0]),
    ("sigmoid", [-104], [0], [0]),
    ("sigmoid", [INF], [0], [0]),
    ("sigmoid", [-INF], [0], [0]),
    ("tanh", [0], [1], [0]),
    ("tanh", [20], [0], [0]),
    ("tanh", [-INF], [0], [0]),
    ("elu", [0], [1], [1]),
    ("elu", [-104], [0], [0]),
    ("elu", [-INF], [0], [0]),
    ("softplus", [0], [0.5], [0.25]),
    ("softplus", [104], [1], [0]),
    ("softplus", [-INF], [0], [0]),
    ("gelu", [0], [0.5], [0.797885]),
    ("silu", [0], [0.5], [0.5]),
    ("erf", [0], [1.12838], [0]),
    ("erf", [INF], [0], [NAN]),
    ("exp", [104], [INF], [INF]),
    ("exp", [-200], [0], [0]),
    ("exp", [INF], [INF], [INF]),
    ("exp", [-INF], [0], [0]),
    ("expm1", [0], [1], [1]),
    ("expm1", [104], [INF], [INF]),
    ("expm1", [-200], [0], [0]),
    ("expm1", [-INF], [0], [0]),
    ("log", [0], [INF], [-INF]),
    ("log", [-0.0], [-INF], [-INF]),
    ("log", [-1], [-1], [-1]),
    ("log", [INF], [0], [0]),
    ("log1p", [-1], [INF], [-INF]),
    ("log1p", [0], [1], [-1]),
    ("log1p", [INF], [0], [0]),
    ("sqrt", [0], [INF], [-INF]),
    ("sqrt", [-0.0], [-INF], [INF]),
    ("sqrt", [-1], [NAN], [NAN]),
    ("sqrt", [INF], [0], [0]),
    ("sin", [0], [1], [0]),
    ("sinh", [104], [INF], [INF]),
    ("cosh", [-104], [-INF], [INF]),
    ("arctan", [INF], [0], [NAN]),
    ("arctan", [-0.0], [1], [0]),
    ("arcsin", [0], [1], [0]),
    ("arcsin", [2], [NAN], [NAN]),
    ("arccos", [-2], [NAN], [NAN]),
    ("floor", [1], [0], [0]),
    ("sign", [0], [0], [0]),
    ("div", [1, 0], [INF, -INF], [NAN, NAN, -INF, NAN]),
    ("div", [1, -0.0], [-INF, -INF], [NAN, NAN, -INF, NAN]),
    ("div", [0, 0], [INF, NAN], [NAN, NAN, -INF, NAN]),
    ("div", [INF, 2], [0.5, -INF], [0, NAN, -0.25, INF]),
    ("div", [1, INF], [0, 0], [0, 0, 0, 0]),
    ("div", [INF, INF], [0, NAN], [0, NAN, 0, NAN]),
    ("pow", [0, 2], [0, 0], [2, 0, 0, 0]),
    ("pow", [-0.0, 2], [0, 0], [2, 0, 0, 0]),
    ("pow", [0, 3], [0, 0], [0, 0, 0, 0]),
    ("pow", [0, 0.5], [INF, 0], [NAN, NAN, NAN, NAN]),
    ("pow", [0, 1.5], [0, 0], [INF, 0, NAN, 0]),
    ("pow", [0, -1], [-INF, NAN], [NAN, NAN, NAN, NAN]),
    ("pow", [-1, 2], [-2, NAN], [NAN, NAN, NAN, NAN]),
    ("pow", [-2, 3], [12, NAN], [NAN, NAN, NAN, NAN]),
    ("pow", [1, INF], [INF, 0], [NAN, NAN, NAN, NAN]),
    ("pow", [2, 0], [0, 0.693147], [0, 0.5, 0.5, 0.480453]),
    ("pow", [INF, 2], [INF, INF], [NAN, NAN, NAN, NAN]),
    ("pow", [INF, -1], [0, NAN], [NAN, NAN, NAN, NAN]),
    ("maximum", [2, 2], [0.5, 0.5], [0, 0, 0, 0]),
    ("maximum", [0, -0.0], [0.5, 0.5], [0, 0, 0, 0]),
    ("maximum", [INF, INF], [0.5, 0.5], [0, 0, 0, 0]),
    ("maximum", [-INF, 1], [0, 1], [0, 0, 0, 0]),
    ("minimum", [2, 2], [0.5, 0.5], [0, 0, 0, 0]),
    ("minimum", [-INF, -INF], [0.5, 0.5], [0, 0, 0, 0]),
    ("max", [3, 3, 3], [0.333333, 0.333333, 0.333333], [0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("max", [0, -0.0, -1], [0.5, 0.5, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("max", [INF, INF, 0], [0.5, 0.5, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("logsumexp", [2, 2], [0.5, 0.5], [0.25, -0.25, -0.25, 0.25]),
    ("logsumexp", [200, 200, -200], [0.5, 0.5, 0], [0.25, -0.25, 0, -0.25, 0.25, 0, 0, 0, 0]),
    ("logsumexp", [-INF, 0, 0], [0, 0.5, 0.5], [0, 0, 0, 0, 0.25, -0.25, 0, -0.25, 0.25]),
    ("logsumexp", [INF, 0, 0], [NAN, 0, 0], [NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN]),
    ("prod", [0, 2, 3], [6, 0, 0], [0, 3, 2, 3, 0, 0, 2, 0, 0]),
    ("prod", [0, 0, 3], [0, 0, 0], [0, 3, 0, 3, 0, 0, 0, 0, 0]),
    ("prod", [INF, 2, 3], [6, INF, INF], [0, NAN, NAN, 3, NAN, INF, 2, NAN, NAN]),
    ("mul", [0, INF], [INF, 0], [0, 1, 1, 0]),
    ("where", [0, 1, 2], [0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("where", [1, INF, 2], [0, 1, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("where", [0, INF, 2], [0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("logsumexp", [-INF, -INF], [NAN, NAN], [NAN, NAN, NAN, NAN]),
]
"""What JAX 0.10.2 gives in float32. Where it gives NaN, the product of 0 and an infinity, mlgraph may have a limit."""

OTHERS = [  # op, arguments, first and second derivatives here, and by JAX
    ("abs", [0], [0, 0], [1, 0]),
    ("abs", [-0.0], [0, 0], [1, 0]),
    ("leaky_relu", [0], [LEAK, 0], [1, 0]),
    ("pow", [0, 0], [0, -INF, NAN, NAN, NAN, INF], [NAN, 0, NAN, NAN, NAN, NAN]),
    ("pow", [0, 1], [1, 0, 0, -INF, 0, 0], [1, 0, NAN, 1, NAN, 0]),
    ("arcsin", [1], [INF, NAN], [INF, INF]),
    ("arcsin", [-1], [INF, NAN], [INF, -INF]),
    ("arccos", [1], [-INF, NAN], [-INF, -INF]),
]
"""Where mlgraph decides otherwise than JAX 0.10.2; docs/graphs.md says so."""
# fmt: on


def derivatives(name, at):
    """First and second derivatives, as nodes, and as numbers of `vjp`."""
    g = mlgraph.Graph()
    inputs = g.add_inputs(len(at))
    node = g.add_operation(name, *inputs)
    first = mlgraph.grad(node, inputs)
    second = [entry for slope in first for entry in mlgraph.grad(slope, inputs)]
    at = np.array([at], np.float32)
    numbers = [g.compile(each).vjp(at).inputs[0] for each in (node, *first)]
    return g.compile([*first, *second])(at)[0], np.concatenate(numbers)


def ids(rows):
    return [f"{name}({', '.join(map(str, at))})" for name, at, *_ in rows]


@pytest.mark.parametrize(("name", "at", "first", "second"), CORNERS, ids=ids(CORNERS))
def test_derivatives_at_corners_are_those_of_jax(name, at, first, second):
    expected = np.array([*first, *second])
    defined = ~np.isnan(expected)
    for got in derivatives(name, at):
        np.testing.assert_allclose(got[defined], expected[defined], rtol=1e-5)


@pytest.mark.parametrize(("name", "at", "here", "of_jax"), OTHERS, ids=ids(OTHERS))
def test_conventions_that_jax_does_not_share(name, at, here, of_jax):
    for got in derivatives(name, at):
        np.testing.assert_allclose(got, here, rtol=1e-6)


@pytest.mark.parametrize("x", [0.0, -0.0])
@pytest.mark.parametrize("y", [1.0, 1.5, 2.0, 3.0, 100.0])
def test_derivatives_by_an_exponent_are_zero_at_zero(x, y):
    """To the second order by the exponent, and once by the base."""
    g = mlgraph.Graph()
    base, exponent = g.add_inputs(2)
    first = mlgraph.grad(base**exponent, exponent)
    second = mlgraph.grad(first, [base, exponent])
    third = mlgraph.grad(second[1], exponent)
    np.testing.assert_array_equal(g.compile([first, *second, third])([[x, y]]), np.zeros((1, 4)))
    np.testing.assert_array_equal(g.compile(first).vjp([[x, y]]).inputs, np.zeros((1, 2)))


def test_the_corners_are_what_jax_computes():
    jax = pytest.importorskip("jax")
    functions = {
        **{name: getattr(jax.nn, name) for name in ("relu", "leaky_relu", "elu", "silu", "sigmoid", "softplus")},
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "erf": jax.scipy.special.erf,
        "div": jax.numpy.divide,
        "mul": jax.numpy.multiply,
        "where": lambda c, a, b: jax.numpy.where(c > 0, a, b),
        "max": lambda *x: jax.numpy.max(jax.numpy.stack(x)),
        "prod": lambda *x: jax.numpy.prod(jax.numpy.stack(x)),
        "logsumexp": lambda *x: jax.nn.logsumexp(jax.numpy.stack(x)),
    }
    corners = [(name, at, [*first, *second]) for name, at, first, second in CORNERS]
    for name, at, expected in [*corners, *((name, at, of_jax) for name, at, _, of_jax in OTHERS)]:
        function = functions.get(name) or getattr(jax.numpy, name)
        gradient = jax.grad(lambda x, function=function: function(*x))
        x = jax.numpy.array(at, np.float32)
        got = [*gradient(x), *np.ravel(jax.jacrev(gradient)(x))]
        np.testing.assert_allclose(got, expected, rtol=1e-5, err_msg=f"{name}{at}")
