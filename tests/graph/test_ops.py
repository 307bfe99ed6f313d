"""The op table against finite differences, and the kernels of every build against the op table."""

import itertools

import numpy as np
import pytest

import mlgraph
from mlgraph.graph.ops import LEAK, OPS

LANES = 32
INF, NAN = np.inf, np.nan

MODERATE = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 88.0, -104.0, INF, -INF, NAN]
SPECIAL = [*MODERATE, 1e30, -1e30, 1e-30, -1e-30, 1e-40, -1e-40]

# Bounds stated in mlgraph_ext/_ops.pxd.
ULP = {"exp": 1.02, "log": 1.0, "tanh": 2.6, "sigmoid": 2.5, "softplus": 2.0, "sin": 2.4, "cos": 2.4}
ULP |= {"elu": 1.1, "gelu": 7.2, "silu": 3.1, "erf": 1.2, "expm1": 1.6, "log1p": 1.5, "sinh": 1.7, "cosh": 1.5}
ULP |= {"arctan": 1.4, "arcsin": 2.9, "arccos": 1.2}
POW_ULP = 3.5  # stated in mlgraph_ext/_elementwise.pxi; 3.43 at 1.5968043 ** -3


def by_name(*names):
    return pytest.mark.parametrize("op", [OPS[name] for name in names], ids=names)


every_op = by_name(*OPS)


def arity(op, n_ary=5):
    return op.arity if op.arity > 0 else n_ary


def draw(op, shape, rng):
    """Arguments at which the op is smooth, shape (arity, *shape)."""
    x = rng.normal(size=(arity(op), *shape)) * 2
    x[np.abs(x) < 0.1] += 0.5
    if op.name == "floor":
        x += 0.5 - np.round(x - np.floor(x))  # away from whole numbers
    return in_domain(op, x)


def in_domain(op, x):
    """Numbers of the op's domain, most of them those of x."""
    if op.name in ("log", "log1p", "sqrt", "pow"):
        return np.abs(x)
    return np.clip(x, -0.875, 0.875) if op.name in ("arcsin", "arccos") else x


def evaluate(op, x):
    return op.value(x) if op.arity < 0 else op.value(*x)


def differentiate(op, y, x):
    return op.derivatives(y, x) if op.arity < 0 else np.stack(np.broadcast_arrays(*op.derivatives(y, *x)))


# The op table.


@every_op
def test_derivatives_equal_finite_differences(op):
    x = draw(op, (200,), np.random.default_rng(op.code))
    partials = differentiate(op, evaluate(op, x), x)
    assert partials.shape == x.shape
    h = 1e-6
    for k in range(len(x)):
        step = np.zeros_like(x)
        step[k] = h
        slope = (evaluate(op, x + step) - evaluate(op, x - step)) / (2 * h)
        np.testing.assert_allclose(partials[k], slope, rtol=1e-6, atol=1e-6, err_msg=f"argument {k}")


NUMPY = "absolute add arccos arcsin arctan cos cosh divide exp expm1 fabs float_power floor log log1p logaddexp maximum"
NUMPY += " minimum multiply negative positive power reciprocal sign sin sinh sqrt square subtract tanh"


@pytest.mark.parametrize("function", [getattr(np, name) for name in NUMPY.split()])
def test_functions_of_numpy_make_nodes_also_with_numbers_and_arrays(function):
    g, numbers, others = mlgraph.Graph(), np.array([0.25, 0.5]), np.array([2.0, 0.125])
    x = g.add_input()
    if function.nin == 1:
        made, expected = [function(x)], [function(numbers)]
    else:
        nodes = np.array([x, x + 1])
        made = [function(x, 2.0), function(np.float64(2), x), *function(x, others), *function(nodes, x)]
        expected = [function(numbers, 2.0), function(2.0, numbers), *(function(numbers, other) for other in others)]
        expected += [function(numbers, numbers), function(numbers + 1, numbers)]
    np.testing.assert_allclose(g.compile(made)(numbers[:, None]).T, expected, rtol=2e-6)


def test_functions_of_numpy_keep_what_nodes_did_before():
    """Comparing finds nodes in arrays, arrays change in place, and a column of pandas keeps its index."""
    x, y = mlgraph.Graph().add_inputs(2)
    nodes = np.array([x, y])
    assert (nodes == y).tolist() == [False, True] and (nodes != y).tolist() == [True, False] and 0 + x is x
    nodes += y
    assert [str(node) for node in nodes] == ["n0 + n1", "n1 + n1"]
    pandas = pytest.importorskip("pandas")
    column = np.multiply(x, pandas.Series([2.0, 3.0], index=["a", "b"]))
    assert [str(column[name]) for name in "ab"] == ["n0 * 2", "n0 * 3"]


@pytest.mark.parametrize(
    ("name", "x", "value", "partials"),
    [
        ("relu", [0], 0, [0]),
        ("relu", [NAN], NAN, [0]),
        ("leaky_relu", [0], 0, [LEAK]),
        ("sigmoid", [-1000], 0, [0]),
        ("abs", [0], 0, [0]),
        ("softplus", [-40], np.exp(-40), [np.exp(-40)]),
        ("softplus", [1000], 1000, [1]),
        ("sqrt", [0], 0, [INF]),
        ("log", [0], -INF, [INF]),
        ("maximum", [2, 2], 2, [0.5, 0.5]),
        ("maximum", [NAN, 1], NAN, [0, 0]),
        ("minimum", [2, 2], 2, [0.5, 0.5]),
        ("max", [1, 3, 3, 3], 3, [0, 1 / 3, 1 / 3, 1 / 3]),
        ("max", [1, NAN, 2], NAN, [0, 0, 0]),
        ("where", [0, 5, 7], 7, [0, 0, 1]),
        ("where", [1, 5, 7], 5, [0, 1, 0]),
        ("where", [NAN, 5, 7], 7, [0, 0, 1]),
        ("pow", [0, 0], 1, [0, -INF]),
        ("pow", [0, 2], 0, [0, 0]),
        ("pow", [-2, 3], -8, [12, NAN]),
        ("pow", [-1, 2**24], 1, [-(2.0**24), NAN]),
        ("pow", [-1, np.float32(1e10)], 1, [-1e10, NAN]),
        ("pow", [1, 1e10], 1, [1e10, 0]),
        ("pow", [-8, 1 / 3], NAN, [NAN, NAN]),
        ("pow", [NAN, 0], 1, [0, NAN]),
        ("prod", [0, 2, 3], 0, [6, 0, 0]),
        ("prod", [7], 7, [1]),
        ("logsumexp", [-INF, -INF], -INF, [NAN, NAN]),
        ("logsumexp", [INF, 0], INF, [NAN, 0]),
        ("logsumexp", [1000, 1000], 1000 + np.log(2), [0.5, 0.5]),
        ("logsumexp", [NAN, INF], NAN, [NAN, NAN]),
        ("elu", [0], 0, [1]),
        ("elu", [-INF], -1, [0]),
        ("gelu", [1], 0.8413447460685429, [1.0833154705876864]),
        ("gelu", [-INF], 0, [0]),
        ("gelu", [INF], INF, [1]),
        ("silu", [1], 0.7310585786300049, [0.9276705118714867]),
        ("silu", [-INF], 0, [0]),
        ("silu", [INF], INF, [1]),
        ("erf", [1], 0.8427007929497149, [0.4151074974205947]),
        ("erf", [-INF], -1, [0]),
        ("expm1", [1e-20], 1e-20, [1]),
        ("log1p", [1e-20], 1e-20, [1]),
        ("log1p", [-1], -INF, [INF]),
        ("log1p", [-2], NAN, [NAN]),
        ("arctan", [INF], np.pi / 2, [0]),
        ("arcsin", [1], np.pi / 2, [INF]),
        ("arcsin", [-1], -np.pi / 2, [INF]),
        ("arcsin", [1.5], NAN, [NAN]),
        ("arccos", [1], 0, [-INF]),
        ("arccos", [-1], np.pi, [-INF]),
        ("arccos", [-INF], NAN, [NAN]),
        ("floor", [-0.5], -1, [0]),
        ("floor", [3], 3, [0]),
        ("sign", [0], 0, [0]),
        ("sign", [-INF], -1, [0]),
        ("sign", [NAN], NAN, [0]),
    ],
)
def test_special_values_and_derivatives(name, x, value, partials):
    op, x = OPS[name], np.array(x, float)
    y = evaluate(op, x)
    np.testing.assert_allclose(y, value, rtol=1e-15)
    np.testing.assert_allclose(differentiate(op, y, x), partials, rtol=1e-12)


def test_codes_in_files_keep_their_meaning():
    """New ops come after these."""
    first = "identity relu leaky_relu sigmoid tanh softplus neg abs exp log sqrt sin cos add sub mul div pow maximum"
    first += " minimum where sum prod max logsumexp elu gelu silu erf expm1 log1p sinh cosh arctan arcsin arccos floor"
    assert list(OPS)[:38] == [*first.split(), "sign"]


# The kernels.


def nodes(op, x):
    """Index and values that put the arguments x, shape (arity, nodes, LANES), before the slots of the nodes."""
    n = x.shape[1]
    index = np.arange(x.shape[0] * n, dtype=np.int32).reshape(-1, n).T.copy()
    values = np.full((index.size + n, LANES), 77, np.float32)
    values[: index.size] = x.reshape(-1, LANES)
    return index, values, index.size


def lanes(x):
    """The last axis of x cut into nodes of LANES, the rest filled up with ones."""
    x = np.asarray(x, np.float32)
    n = -(-x.shape[-1] // LANES)
    full = np.ones((*x.shape[:-1], n * LANES), np.float32)
    full[..., : x.shape[-1]] = x
    return full.reshape(*x.shape[:-1], n, LANES)


def run(sweep, op, x):
    """Values and, for adjoints of one, derivatives by the kernels; x of shape (arity, nodes, LANES)."""
    index, values, dst = nodes(op, x)
    sweep.apply_op(op.code, index, values, dst)
    adjoints = np.zeros_like(values)
    adjoints[dst:] = 1
    sweep.apply_op_adjoint(op.code, index, values, adjoints, dst)
    return values[dst:], adjoints[:dst].reshape(x.shape)


def to_float32(x):
    with np.errstate(over="ignore"):
        return np.asarray(x).astype(np.float32)


@every_op
def test_kernels_equal_the_table(sweep, op):
    """Nodes share arguments, some of which are zero or equal, and read some of them twice."""
    rng = np.random.default_rng(op.code)
    values = rng.normal(size=(50, LANES)).astype(np.float32) * 2
    values[rng.random(values.shape) < 0.1] = 0
    values[rng.random(values.shape) < 0.2] = 1
    values = in_domain(op, values)
    values = np.concatenate([values, np.zeros_like(values)])
    index = rng.integers(0, 15, (40, arity(op, 7))).astype(np.int32)
    before = values.copy()
    sweep.apply_op(op.code, index, values, 53)
    x = before[index.T].astype(float)
    y = values[53:93]
    np.testing.assert_allclose(y, evaluate(op, x), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(np.delete(values, range(53, 93), 0), np.delete(before, range(53, 93), 0))

    adjoints = rng.normal(size=values.shape).astype(np.float32)
    expected, size = adjoints.astype(float), np.abs(adjoints, dtype=float)
    with np.errstate(invalid="ignore"):
        for arguments, partial in zip(index.T, differentiate(op, y.astype(float), x), strict=True):
            np.add.at(expected, arguments, adjoints[53:93] * partial)
            np.add.at(size, arguments, np.abs(adjoints[53:93] * partial))
    own = adjoints[53:93].copy()
    sweep.apply_op_adjoint(op.code, index, values, adjoints, 53)
    np.testing.assert_array_equal(adjoints[53:93], own)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(adjoints[~finite], to_float32(expected[~finite]))
    assert np.max(np.abs(adjoints[finite] - expected[finite]) / (size[finite] + 1e-6)) < 3e-6


@every_op
def test_kernels_handle_special_values(sweep, op):
    # Products of three overflow or underflow on the way in float32 alone.
    special = MODERATE if op.name in ("pow", "prod") else SPECIAL
    x = lanes(np.array(list(itertools.product(special, repeat=arity(op, 3)))).T)
    y, partials = run(sweep, op, x)
    expected = evaluate(op, x.astype(float))
    np.testing.assert_allclose(y, to_float32(expected), rtol=1e-6, atol=2e-45)
    zeros = (y == 0) & (expected == 0)
    np.testing.assert_array_equal(np.signbit(y[zeros]), np.signbit(expected[zeros]))

    # Where the value is the same in both precisions, so are the derivatives, up to what float32 holds.
    exact = np.isfinite(y) == np.isfinite(expected)
    expected = differentiate(op, y.astype(float), x.astype(float))
    for k in range(len(x)):
        np.testing.assert_allclose(partials[k][exact], to_float32(expected[k])[exact], rtol=2e-6, atol=2e-45)


def ulps(got, exact):
    """Error in units in the last place of the exact result."""
    exponent = np.frexp(np.maximum(np.abs(exact), 2.0**-126))[1]
    return np.abs(got - exact) / np.ldexp(1.0, exponent - 24)


@by_name(*ULP)
def test_approximations_stay_within_their_bounds(sweep, op):
    """Random bits cover all magnitudes and both signs; usual arguments are denser."""
    rng = np.random.default_rng(op.code)
    bits = rng.integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    usual = [rng.normal(size=300_000) * 3, rng.uniform(-105, 90, 200_000), 1 + rng.normal(size=100_000) / 100]
    x = np.concatenate([bits, *(part.astype(np.float32) for part in usual)])
    if op.name == "log":
        x = np.abs(x)
    elif op.name in ("arcsin", "arccos"):
        x = x[~(np.abs(x) > 1)]
        x = x[: len(x) // LANES * LANES]
    with np.errstate(all="ignore"):
        exact = op.value(x)
        usual = np.isfinite(exact) & (np.abs(exact) < np.float64(np.finfo(np.float32).max))
    y = run(sweep, op, x.reshape(1, -1, LANES))[0].ravel()
    np.testing.assert_array_equal(y[~usual], to_float32(exact[~usual]))
    error = ulps(y[usual], exact[usual])
    worst = error.argmax()
    assert error[worst] < ULP[op.name], f"x = {x[usual][worst]!r}"
    assert error[worst] > 0.5 * ULP[op.name]  # a bound twice as large as the error says little


@by_name("sin", "cos")
def test_sin_and_cos_of_large_arguments(sweep, op):
    """Near multiples of pi / 2, and where some lanes of a node need libm."""
    x = lanes([*np.arange(-6300, 6300) * (np.pi / 2), 1e4, 10001, -10001, 1e5, 1e10, 3e38, -3e38])[None]
    y, partials = run(sweep, op, x)
    assert ulps(y, op.value(x[0])).max() < ULP[op.name]
    assert ulps(partials[0], op.derivatives(y, x[0])[0]).max() < ULP[op.name]


@pytest.mark.parametrize("exponent", [-4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4])
def test_pow_with_equal_exponents(sweep, exponent):
    """A node of equal exponents takes another path."""
    a = lanes([*np.random.default_rng(0).normal(size=200), 1.5968043, *SPECIAL])
    x = np.stack([a, np.full_like(a, exponent)])
    y, partials = run(sweep, OPS["pow"], x)
    expected = OPS["pow"].value(*x)
    usual = np.isfinite(y) & np.isfinite(expected)
    assert ulps(y[usual], expected[usual]).max() < POW_ULP
    np.testing.assert_array_equal(y[~usual], to_float32(expected)[~usual])
    of_base, of_exponent = OPS["pow"].derivatives(expected, *x)
    np.testing.assert_allclose(partials[0], to_float32(of_base), rtol=5e-7, atol=2e-45)
    exact = np.isfinite(y) == np.isfinite(expected)
    np.testing.assert_allclose(partials[1][exact], to_float32(of_exponent)[exact], rtol=2e-6, atol=1e-44)


@pytest.mark.parametrize(
    ("name", "n", "x", "y", "partial"),
    [
        ("sum", 10_000_000, 0.1, 1e6, 1),
        ("max", 1_000_000, 3, 3, 1e-6),
        ("logsumexp", 1_000_000, 5, 5 + np.log(1e6), 1e-6),
        ("prod", 1_000_000, 1 + 2**-20, np.exp(1e6 * np.log1p(2.0**-20)), np.exp(999_999 * np.log1p(2.0**-20))),
    ],
)
def test_n_ary_ops_take_millions_of_arguments(sweep, name, n, x, y, partial):
    """A plain float32 sum would stall at a fraction; the adjoints go to 100 slots in turn."""
    values = np.full((101, LANES), x, np.float32)
    index = (np.arange(n, dtype=np.int32) % 100)[None]
    sweep.apply_op(OPS[name].code, index, values, 100)
    np.testing.assert_allclose(values[100], y, rtol=1e-6 if name != "prod" else 1e-2)
    adjoints = np.zeros_like(values)
    adjoints[100] = 1
    sweep.apply_op_adjoint(OPS[name].code, index, values, adjoints, 100)
    np.testing.assert_allclose(adjoints[:100], n / 100 * partial, rtol=1e-2)


def test_derivatives_of_a_product_that_underflows(sweep):
    """The product is 0 in float32, its derivatives are not."""
    y, partials = run(sweep, OPS["prod"], np.full((2, 1, LANES), 1e-30))
    assert (y == 0).all()
    np.testing.assert_array_equal(partials, np.full_like(partials, 1e-30))
