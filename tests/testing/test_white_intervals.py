"""Intervals of `mlgraph.testing._intervals` contain every correct result and are not much wider."""

import itertools

import numpy as np
import pytest
from enclosed import (
    EXACT,
    INF,
    MOST,
    NAN,
    drawn,
    erring,
    evaluated,
    in_float32,
    interval,
    number,
    numbers_in,
    order,
    terms_in_float32,
)

import mlgraph
from mlgraph.compiler.plan import Plan
from mlgraph.engine import reference
from mlgraph.graph import ops
from mlgraph.testing import _intervals as intervals

UNKNOWN = (-INF, INF)

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # `testing.expect` suppresses them


@pytest.fixture(scope="module")
def rules():
    """A sweep, for its methods."""
    g = mlgraph.Graph()
    plan = Plan(g, [g.add_input().id], want_inputs=True)
    p = g.parameters.astype(np.float64)
    return intervals.Sweeps(plan, p, reference.forward(plan, p, np.ones((1, 1))), plan.slot[[0]], np.ones((1, 1)), 0)


def assert_ends(x, ends):
    np.testing.assert_array_equal(order(x)[:, 0], order(np.ravel(ends)[[0, -1]]), f"{x[:, 0]}, expected {ends}")


def value(rules, name, *x):
    ends = rules._value(ops.OPS[name], [*map(interval, x)])
    np.testing.assert_array_equal(ends, ends.astype(np.float32), "no float32")
    return ends


# --- they contain every correct result ------------------------------------------------------------


def assert_inside(x, y):
    """Check that y is in x, with signed zeros; NaN is allowed where it is certain and where nothing is known."""
    assert (np.isnan(x[0]) == np.isnan(x[1])).all()
    (low, high), place = order(x), order(y)
    bad = np.flatnonzero(~((low <= place) & (place <= high) | (x[0] == -INF) & (x[1] == INF)))
    assert not len(bad), f"{len(bad)}, first {bad[0]}: {y[bad[0]]!r} outside of {x[:, bad[0]]}"


@pytest.mark.parametrize("name", ops.OPS)
def test_correct_results_are_inside(rules, name):
    op, rng = ops.OPS[name], np.random.default_rng(0)
    d, *x = (drawn(rng, 3000) for _ in range(1 + (op.arity if op.arity > 0 else 3)))
    y = rules._value(op, x)
    terms = rules._terms(op, d, y, x)
    for _ in range(8):
        of_d, *of_x = (numbers_in(rng, a) for a in (d, *x))
        of_y = in_float32(rng, name, *of_x)
        for ends, found in zip([y, *terms], [of_y, *terms_in_float32(rng, name, of_d, of_y, *of_x)], strict=True):
            assert_inside(ends, found)


def test_sums_of_products_are_inside_in_any_order(rules):
    """Products may be rounded or fused, and two of them cancel."""
    rng = np.random.default_rng(0)
    w, x = (np.stack([drawn(rng, 3000) for _ in range(6)], axis=1) for _ in range(2))
    w[:], x[:, 0] = w[0], -x[::-1, 1]
    w[:, 0] = w[:, 1]
    ends = rules._total(intervals._times(w, x))
    for _ in range(10):
        total = -0.0
        for product in rng.permutation(w[0] * numbers_in(rng, x)):
            total = erring(rng, total + np.where(rng.random(product.shape) < 0.5, product, erring(rng, product)))
        assert_inside(ends, total)


# --- they are not much wider ----------------------------------------------------------------------

# Ranks of the ends of intervals of few numbers; -1 and 0 are the zeros.
NEAR = [(-2, 1), (-2, -1), (-2, 0), (-1, 0), (-1, 1), (0, 1), (0, 0), (-1, -1), (1, 2)]
NEAR += [(p + a, p + b) for p in order([1, MOST, -1, -MOST]) for a, b in [(-1, 1), (0, 1), (0, 0)]]
NEAR += [(p, p) for p in order([1.5, -3.0, INF, -INF, NAN])]


@pytest.mark.parametrize("name", EXACT)
def test_choices_and_ops_rounded_once_are_exact(rules, name):
    """The ends are the smallest and largest result for any numbers in the intervals, with the sign of zero."""
    n = ops.OPS[name].arity if ops.OPS[name].arity > 0 else 3
    low, high = np.random.default_rng(0).choice(NEAR, (n, 5000)).transpose(2, 0, 1)
    steps = np.array([*itertools.product(range(4), repeat=n)])[:, :, None]
    results = np.array([order(evaluated(name, *number(np.minimum(low + step, high)))) for step in steps])
    nan = results > order(INF)
    expected = np.array([results.min(axis=0), results.max(axis=0)])
    expected = np.where(nan.any(axis=0) & ~nan.all(axis=0), order([[-INF], [INF]]), expected)
    got = rules._value(ops.OPS[name], [number(np.array(ends)) for ends in zip(low, high, strict=True)])
    np.testing.assert_array_equal(order(got), expected)


@pytest.mark.parametrize(
    ("name", "d", "x", "expected"),
    [
        ("where", INF, [1.0, 2.0, 3.0], [0.0, INF, 0.0]),
        ("max", (-1.0, INF), [1.0, 2.0], [0.0, (-1.0, INF)]),
        ("max", (2.0, 3.0), [(0.0, 1.0), 1.0], [(0.0, 3.0), (0.0, 3.0)]),
        ("maximum", INF, [1.0, 2.0], [NAN, INF]),
    ],
)
def test_adjoints_go_only_to_chosen_arguments(rules, name, d, x, expected):
    for got, ends in zip(
        rules._terms(ops.OPS[name], interval(d), interval(0.0), [*map(interval, x)]), expected, strict=True
    ):
        assert_ends(got, ends)


# --- unknown results ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("sub", [(1.0, INF), (1.0, INF)], UNKNOWN),
        ("div", [1.0, (-1.0, 2.0)], UNKNOWN),
        ("sin", [INF], NAN),
        ("log", [(-1.0, 2.0)], UNKNOWN),
        ("where", [UNKNOWN, 1.0, 2.0], (1.0, 2.0)),
        ("where", [(0.0, 1.0), NAN, 2.0], UNKNOWN),
        ("max", [(1.0, INF), 2.0], (2.0, INF)),
        ("logsumexp", [UNKNOWN, 1.0], UNKNOWN),
        ("sum", [MOST / 1.5, INF, MOST / 1.5], UNKNOWN),
        ("sum", [NAN, 1.0, UNKNOWN], NAN),
        ("prod", [7.066059e12, 7.6064065e12, 6.3311504e12, 0.5], UNKNOWN),  # the first three overflow if rounded
        ("pow", [NAN, (-1.0, 1.0)], UNKNOWN),
        ("pow", [0.0, (1.0, 2.0)], (-0.0, 0.0)),
        ("pow", [(-INF, 1.0), 1.5], UNKNOWN),
        ("pow", [(-INF, 0.0), 2.0], (-0.0, INF)),
    ],
)
def test_unknown_results(rules, name, x, expected):
    assert_ends(value(rules, name, *x), expected)


@pytest.mark.parametrize(
    ("number", "ends", "expected"),
    [
        (2.0, (1.0, 5.0), 3.0),
        (2.0, (-1.0, 2.0), 3.0),
        (INF, INF, 0.0),
        (INF, -INF, INF),
        (NAN, NAN, 0.0),
        (1.0, (1.0, INF), INF),
        (NAN, UNKNOWN, INF),
        (NAN, 1.0, INF),
    ],
)
def test_distance_is_the_largest(number, ends, expected):
    np.testing.assert_array_equal(intervals.distance(np.array([number]), interval(ends)), [expected])
