"""Bounds of `mlgraph.testing._intervals`, rule by rule: where their ends are, what is unknown, and that nothing correct is outside."""

import itertools

import numpy as np
import pytest
from enclosed import (
    EXACT,
    INF,
    MOST,
    NAN,
    SMALLEST,
    WITHIN_4,
    drawn,
    erring,
    evaluated,
    floats,
    in_float32,
    interval,
    multiplied,
    number,
    numbers_in,
    order,
    rounded,
    spread,
    summed,
    terms_in_float32,
    times,
)

import mlgraph
from mlgraph.compiler.plan import Plan
from mlgraph.engine import reference
from mlgraph.graph import ops
from mlgraph.testing import _intervals as intervals

UNKNOWN = (-INF, INF)
POINTS = [0.3, -1.5, 2.0, 80.0, -80.0, 1.0, 0.0, -104.5, 1e-42, -3e-39]

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # `testing.expect` turns them off


def assert_ends(x, ends):
    """To the bit."""
    np.testing.assert_array_equal(order(x)[:, 0], order(np.ravel(ends)[[0, -1]]), f"{x[:, 0]}, expected {ends}")


def sweeps(outputs, x, u, ulps=0):
    """The bounds for some examples, and the plan."""
    g = outputs[0].graph
    plan, p = Plan(g, [node.id for node in outputs], want_inputs=True), g.parameters.astype(np.float64)
    slots = plan.slot[[node.id for node in outputs]]
    return intervals.Sweeps(
        plan, p, reference.forward(plan, p, np.array(x)), slots, np.array(u, np.float64), ulps
    ), plan


@pytest.fixture(scope="module")
def rules():
    return sweeps([mlgraph.Graph().input()], [[1.0]], [[1.0]])[0]


def value(rules, name, *x):
    ends = rules._value(ops.OPS[name], [*map(interval, x)])
    np.testing.assert_array_equal(ends, ends.astype(np.float32), "no float32")
    return ends


def partials(rules, name, y, *x):
    ends = rules._partials(ops.OPS[name], interval(y), [*map(interval, x)])
    np.testing.assert_array_equal(ends, ends if name == "max" else np.float32(ends), "no float32")
    return ends


# Where the ends are.

NEAR = [
    (-2, 1),
    (-2, -1),
    (-2, 0),
    (-1, 0),
    (-1, 1),
    (0, 1),
    (0, 0),
    (-1, -1),
    (1, 2),
]  # places: -1 and 0 are the zeros
NEAR += [(p + a, p + b) for p in order([1, MOST, -1, -MOST]) for a, b in [(-1, 1), (0, 1), (0, 0)]]
NEAR += [(p, p) for p in order([1.5, -3.0, INF, -INF, NAN])]


@pytest.mark.parametrize("name", EXACT)
def test_choices_and_what_is_rounded_once_are_exact(rules, name):
    """Every number of intervals of few numbers: the ends are the least and the greatest result, to the sign of a zero."""
    n = ops.OPS[name].arity if ops.OPS[name].arity > 0 else 3
    low, high = np.random.default_rng(0).choice(NEAR, (n, 5000)).transpose(2, 0, 1)
    steps = np.array([*itertools.product(range(4), repeat=n)])[:, :, None]
    results = np.array([order(evaluated(name, *number(np.minimum(low + step, high)))) for step in steps])
    nan = results > order(INF)
    expected = np.array([results.min(axis=0), results.max(axis=0)])
    expected = np.where(nan.any(axis=0) & ~nan.all(axis=0), order([[-INF], [INF]]), expected)
    got = rules._value(ops.OPS[name], [number(np.array(ends)) for ends in zip(low, high, strict=True)])
    np.testing.assert_array_equal(order(got), expected)


@pytest.mark.parametrize("x", POINTS)
@pytest.mark.parametrize("name", WITHIN_4)
def test_other_ops_are_within_4_units_in_the_last_place(rules, name, x):
    """Their derivatives, too; that of tanh is a difference from 1, with a unit in the last place of 1."""
    op, x = ops.OPS[name], [float(np.float32(x)), 0.625][: ops.OPS[name].arity]
    y = float(op.value(*x))
    assert_ends(value(rules, name, *x), spread(y, 4))
    if name != "pow":
        y = float(np.float32(y))
        slope = float(op.derivatives(y, *x)[0])
        assert_ends(partials(rules, name, y, *x)[0], spread(slope, 4, 2.0**-23 * (name == "tanh")))


@pytest.mark.parametrize(("x", "bend"), [((1.0, 1.25), 0.0625 / 4), ((-2.0, 0.75), 2.75**2 / 4), ((0.0, 9.0), 2.0)])
def test_a_bend_is_a_quarter_of_the_squared_width(rules, x, bend):
    around = np.array([*x, 0.0] if x[0] < 0 else x)
    for name, f, slope in [("sin", np.sin, np.cos), ("cos", np.cos, lambda x: -np.sin(x))]:
        assert_ends(value(rules, name, x), spread(np.sort(f(around)), 4, bend))
        assert_ends(partials(rules, name, (0.0, 1.0), x)[0], spread(np.sort(slope(around)), 4, bend))
    assert_ends(partials(rules, "sigmoid", (0.25, 0.875), (-9.0, 9.0))[0], spread((0.109375, 0.1875), 4, 0.625**2 / 4))


@pytest.mark.parametrize(
    "terms",
    [
        [1.5],
        [0.0, -0.0],
        [1e8, 1.0, -1e8],
        [0.3] * 20,
        [(1.0, 2.0), (-4.0, 3.0), 0.5],
        [SMALLEST, -2 * SMALLEST],
        [(-1e-40, 0.0), 0.0],
        [MOST / 2, MOST / 2.001],
        [INF, 1.0],
        [-INF, 3e38],
        [(0.25, INF), -0.5],
        [NAN, 1.0],
    ],
)
def test_a_sum_is_off_by_a_rounding_of_the_magnitudes_for_each_term(rules, terms):
    terms = floats(terms)
    ends = [sum(term[i] for term in terms) for i in (0, -1)]
    finite = summed(*([a if abs(a) < INF else 0.0 for a in term] for term in terms))
    assert_ends(value(rules, "sum", *terms), np.where(np.isfinite(ends), finite, ends))


def test_roundings_of_many_terms_or_factors_multiply(rules):
    ends = rules._rounded_sum(interval(0.0), np.ones(1), 2.0**23)
    assert_ends(ends, spread(0.0, 1, np.expm1(0.5) + 2.0**-126))
    ends = rules._rounded_product(interval(1.0), [interval(1.0)] * 2**14)
    assert_ends(ends, spread(1.0, 0, np.expm1(2.0**-10) + 2.0**-135))


@pytest.mark.parametrize(
    "x",
    [
        [0.3],
        [0.3, -2.0, (5.0, 7.0)],
        [(-0.5, 0.25), (-3.0, 4.0)],
        [1e-30, 1e-30, 1e30],
        [0.0, 1e20, -1e10],
        [1e30, 1e-30, 1e8],
    ],
)
def test_a_product_is_off_by_a_rounding_for_each_factor(rules, x):
    """So are its derivatives: the adjoint is a factor in the place of the one that is left out."""
    x, d = floats(x), (-0.75, 1.5)
    assert_ends(value(rules, "prod", *x), multiplied(*x))
    for i, term in enumerate(rules._terms(ops.OPS["prod"], interval(d), interval(NAN), [*map(interval, x)])):
        assert_ends(term, multiplied(d, *x[:i], *x[i + 1 :]))


@pytest.mark.parametrize(
    "x", [[1.0, 3.0], [-100.0], [(-2.0, 1.0), 0.5, 0.0], [5.0, -INF], [-np.log(2.0), -np.log(2.0)]]
)
def test_logsumexp_is_off_by_4_units_in_the_last_place_of_its_arguments_and_terms(rules, x):
    x = floats(x)
    ends = [np.logaddexp.reduce([a[i] for a in x]) for i in (0, -1)]
    size = max(abs(end) for a in x for end in a if abs(end) < INF)
    assert_ends(value(rules, "logsumexp", *x), spread(ends, 0, 2.0**-21 * (size + np.log(len(x)) + 1)))


ONE, THIRD, FOUR, LOG_2, LOG_3 = (rounded(spread(a, 4)) for a in (1, 1 / 3, 4, np.log(2), np.log(3)))


@pytest.mark.parametrize(
    ("name", "y", "x", "expected"),
    [
        ("div", (0.4, 0.5), [2.0, (4.0, 5.0)], [(0.2, 0.25), (-0.125, -0.08)]),
        ("sqrt", 3.0, [9.0], [1 / 6]),
        ("mul", UNKNOWN, [2.0, (4.0, 5.0)], [(4.0, 5.0), 2.0]),
        ("sum", NAN, [9.0, NAN], [1.0, 1.0]),
        ("maximum", NAN, [(1.0, 2.0), 1.5], [(0.0, 1.0), (0.0, 1.0)]),
        ("maximum", NAN, [2.0, 2.0], [0.5, 0.5]),
        ("where", NAN, [UNKNOWN, NAN, 1.0], [0.0, (0.0, 1.0), (0.0, 1.0)]),
        ("max", NAN, [1.0, 3.0, 3.0, 3.0], [0.0, 1 / 3, 1 / 3, 1 / 3]),
        ("max", NAN, [(1.0, 2.0), (3.0, 4.0)], [0.0, 1.0]),
        ("max", NAN, [(1.0, 3.0), (3.0, 4.0)], [(0.0, 1.0), (0.0, 1.0)]),
        ("max", NAN, [NAN, 1.0], [0.0, 0.0]),
        ("max", NAN, [(0.0, 1.0), 1.0, 0.0], [(0.0, 1.0), (0.0, 1.0), 0.0]),
        ("max", NAN, [2.0, 2.0, (0.0, 1.0)], [0.5, 0.5, 0.0]),
        ("max", NAN, [UNKNOWN], [(0.0, 1.0)]),  # NaN is not the largest
        ("pow", 7.0, [2.0, 3.0], [3 * np.array(FOUR), 7 * np.array(LOG_2)]),
        ("pow", 1.0, [3.0, 1e-10], [np.float32(1e-10) * np.array(THIRD), LOG_3]),  # 1e-10 - 1 is -1
        ("pow", 0.0, [0.0, (1.0, 2.0)], [(-0.0, 2 * ONE[1]), 0.0]),
        ("pow", INF, [0.0, 0.0], [0.0, -INF]),
        ("pow", (0.0, 1.0), [(0.0, 1.0), 2.0], [(-0.0, 2 * ONE[1]), UNKNOWN]),
        ("pow", 1.0, [NAN, 0.0], [0.0, NAN]),
        ("logsumexp", (1.5, 1.75), [1.0], [spread((np.exp(-0.75), np.exp(-0.5)), 4)]),
    ],
)
def test_derivatives(rules, name, y, x, expected):
    for got, ends in zip(partials(rules, name, y, *x), expected, strict=True):
        assert_ends(got, ends)


@pytest.mark.parametrize(
    ("name", "d", "x", "expected"),
    [
        ("where", INF, [1.0, 2.0, 3.0], [0.0, INF, 0.0]),
        ("max", (-1.0, INF), [1.0, 2.0], [0.0, (-1.0, INF)]),
        ("max", (2.0, 3.0), [(0.0, 1.0), 1.0], [(0.0, 3.0), (0.0, 3.0)]),
        ("maximum", INF, [1.0, 2.0], [NAN, INF]),
    ],
)
def test_what_is_not_chosen_gets_nothing(rules, name, d, x, expected):
    for got, ends in zip(
        rules._terms(ops.OPS[name], interval(d), interval(0.0), [*map(interval, x)]), expected, strict=True
    ):
        assert_ends(got, ends)


# What is unknown, and what is not.


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("sub", [(1.0, INF), (1.0, INF)], UNKNOWN),
        ("mul", [(-1.0, 1.0), INF], UNKNOWN),
        ("div", [1.0, (-1.0, 2.0)], UNKNOWN),
        ("sin", [(0.5, INF)], UNKNOWN),
        ("sin", [INF], NAN),
        ("log", [(-1.0, 2.0)], UNKNOWN),
        ("log", [(-2.0, -1.0)], NAN),
        ("where", [UNKNOWN, 1.0, 2.0], (1.0, 2.0)),
        ("where", [(0.0, 1.0), NAN, 2.0], UNKNOWN),
        ("relu", [UNKNOWN], UNKNOWN),
        ("max", [UNKNOWN, 1.0], UNKNOWN),
        ("max", [NAN, 1.0], NAN),
        ("max", [(1.0, INF), 2.0], (2.0, INF)),
        ("logsumexp", [UNKNOWN, 1.0], UNKNOWN),
        ("logsumexp", [NAN, 1.0], NAN),
        ("logsumexp", [INF, 1.0], INF),
        ("logsumexp", [-INF, -INF], -INF),
        ("sum", [MOST / 1.5, -MOST / 1.5], UNKNOWN),
        ("sum", [MOST / 1.5, INF, MOST / 1.5], UNKNOWN),
        ("sum", [MOST], UNKNOWN),
        ("sum", [NAN, 1.0, UNKNOWN], NAN),
        ("sum", [1.0, UNKNOWN], UNKNOWN),
        ("prod", [1e30, 1e30, 1e-30], UNKNOWN),
        ("prod", [INF, 0.5], UNKNOWN),
        ("prod", [UNKNOWN, 0.5], UNKNOWN),
        (
            "prod",
            [7.066059e12, 7.6064065e12, 6.3311504e12, 0.5],
            UNKNOWN,
        ),  # the first three are finite, but not if rounded
        ("prod", [2.0**64, 1.5 * 2.0**63], multiplied([2.0**64], [1.5 * 2.0**63])),
        ("prod", [NAN, 2.0, 0.0], NAN),
        ("pow", [-2.0, (1.0, 2.0)], UNKNOWN),
        ("pow", [-0.0, (1.0, 2.0)], UNKNOWN),
        ("pow", [(-1.0, 2.0), (1.0, 2.0)], UNKNOWN),
        ("pow", [(0.5, 2.0), NAN], UNKNOWN),
        ("pow", [-2.0, NAN], NAN),
        ("pow", [NAN, NAN], NAN),
        ("pow", [NAN, 0.0], ONE),
        ("pow", [NAN, (-1.0, 1.0)], UNKNOWN),
        ("pow", [1.0, UNKNOWN], ONE),
        ("pow", [0.0, (1.0, 2.0)], (-0.0, 0.0)),
        ("pow", [(1.0, 4.0), 0.5], (ONE[0], spread(2.0, 4)[1])),
        ("pow", [(-2.0, -1.0), 0.5], NAN),
        ("pow", [(-2.0, -1.0), -1.0], (-ONE[1], -spread(0.5, 4)[0])),
        ("pow", [(-INF, 1.0), NAN], UNKNOWN),
        ("pow", [(-INF, 1.0), 1.5], UNKNOWN),
        ("pow", [(-INF, 0.0), 2.0], (-0.0, INF)),
        ("pow", [-INF, 1.5], INF),
    ],
)
def test_what_is_unknown(rules, name, x, expected):
    assert_ends(value(rules, name, *x), expected)


@pytest.mark.parametrize(
    ("number", "ends", "expected"),
    [
        (2.0, (1.0, 5.0), 3.0),
        (2.0, (-1.0, 2.0), 3.0),
        (2.0, 2.0, 0.0),
        (INF, INF, 0.0),
        (-INF, -INF, 0.0),
        (INF, -INF, INF),
        (NAN, NAN, 0.0),
        (INF, (1.0, INF), INF),
        (1.0, (1.0, INF), INF),
        (NAN, UNKNOWN, INF),
        (1.0, NAN, INF),
        (NAN, 1.0, INF),
    ],
)
def test_a_distance_is_the_largest(number, ends, expected):
    np.testing.assert_array_equal(intervals.distance(np.array([number]), interval(ends)), [expected])


# Whole sweeps.


@pytest.mark.parametrize("ulps", [1, 9])
def test_the_least_error(ulps):
    x, y = mlgraph.Graph().inputs(2)
    nodes, a = [x - y, x * 3, mlgraph.relu(y), mlgraph.max(x, y), mlgraph.exp(x)], float(np.float32(0.7))
    bounds, plan = sweeps(nodes, [[a, a]], [[0.0] * 5], ulps)
    for node, exact, least in zip(nodes, [0.0, 3 * a, a, a, np.exp(a)], [0, 0, 0, 0, 4], strict=True):
        assert_ends(bounds.values[:, plan.slot[node.id]], spread(exact, max(ulps, least)))


def test_a_byte_is_a_rounded_quotient():
    bounds, _ = sweeps([mlgraph.Graph().input()], np.array([[77]], np.uint8), [[1.0]])
    assert (bounds.values == np.float32(77 / 255)).all()


def test_sweeps_go_through_neurons_parameters_and_operations():
    """Each number of two examples: a block of neurons, one without biases that reads it, and what is read more than once."""
    g = mlgraph.Graph()
    inputs, q, alone, constant = g.inputs(2), g.parameter(1.7), g.parameter(7.0), g.constant(4.0)
    w, b, v = [[0.3, -0.9], [1.1, 0.6]], [0.2, -0.4], [[0.8, -1.2, 0.1], [0.5, 0.9, -1.4]]
    block = [g[i] for i in g.add_neurons(inputs, "identity", weights=w, biases=b)]
    upper = [g[i] for i in g.add_neurons([*block, inputs[0]], "tanh", weights=v, biases=None)]
    z = q * upper[0]
    examples, u = np.float32([[0.7, -1.3], [2.1, 0.4]]), [[2.0, -3.0, 1.5, 1.0, 5.0], [0.5, 1.5, 0.25, -1.0, 5.0]]
    bounds, plan = sweeps([z, *upper, alone, constant], examples, u)

    w, b, v, q = floats(np.ravel(w)), floats(b), floats(np.ravel(v)), floats([1.7])
    gradients = []
    for e, (x, (u_z, *u_upper, u_alone, _)) in enumerate(zip(map(floats, examples), u, strict=True)):
        h = [summed(times(w[i], x[0]), times(w[i + 1], x[1]), b[i // 2]) for i in (0, 2)]
        totals = [summed(*map(times, v[i : i + 3], [*h, x[0]]), [0.0]) for i in (0, 3)]
        y = [rounded(spread(np.tanh(total), 4)) for total in totals]
        d_z = summed([u_z])
        d_y = [summed(times(d_z, q[0]), u_upper[:1]), summed(u_upper[1:])]
        slopes = [rounded(spread(np.sort(1 - np.square(a)), 4, 2.0**-23)) for a in y]
        d = [rounded(times(*both)) for both in zip(d_y, slopes, strict=True)]
        d_h = [summed(times(v[i], d[0]), times(v[i + 3], d[1])) for i in (0, 1)]
        d_x = [[times(w[i], d_h[0]), times(w[i + 2], d_h[1])] for i in (0, 1)]
        d_x[0] += [times(v[2], d[0]), times(v[5], d[1])]
        for node, ends in zip([*block, *upper, z], [*h, *y, rounded(times(y[0], q[0]))], strict=True):
            assert_ends(bounds.values[:, plan.slot[node.id], e : e + 1], ends)
        for i, terms in enumerate(d_x):
            assert_ends(bounds.adjoints(slice(i, i + 1))[:, 0, e : e + 1], summed(*terms))
        of_weights = [times(a, delta) for delta in d_h for a in x] + [
            times(a, delta) for delta in d for a in (*h, x[0])
        ]
        gradients.append([*of_weights, *d_h, summed(times(d_z, y[0])), summed([u_alone])])
    places = [int(np.flatnonzero(g.parameters == np.float32(a))[0]) for [a] in (*w, *v, *b, *q, [7.0])]
    for place, terms in zip(places, zip(*gradients, strict=True), strict=True):
        assert_ends(bounds.gradient[:, place, None], summed(*terms))
    assert np.flatnonzero(bounds.has_gradient).tolist() == sorted(places)


# What is inside.


def assert_inside(x, y):
    """In the order with two zeros. NaN may be where it is certain, and where nothing is known."""
    assert (np.isnan(x[0]) == np.isnan(x[1])).all()
    (low, high), place = order(x), order(y)
    bad = np.flatnonzero(~((low <= place) & (place <= high) | (x[0] == -INF) & (x[1] == INF)))
    assert not len(bad), f"{len(bad)}, first {bad[0]}: {y[bad[0]]!r} outside of {x[:, bad[0]]}"


@pytest.mark.parametrize("name", ops.OPS)
def test_no_correct_sweep_is_outside(rules, name):
    op, rng = ops.OPS[name], np.random.default_rng(0)
    d, *x = (drawn(rng, 3000) for _ in range(1 + (op.arity if op.arity > 0 else 3)))
    y = rules._value(op, x)
    terms = rules._terms(op, d, y, x)
    for _ in range(15):
        of_d, *of_x = (numbers_in(rng, a) for a in (d, *x))
        of_y = in_float32(rng, name, *of_x)
        for ends, found in zip([y, *terms], [of_y, *terms_in_float32(rng, name, of_d, of_y, *of_x)], strict=True):
            assert_inside(ends, found)


def test_no_order_of_a_sum_of_products_is_outside(rules):
    """Products are rounded by themselves, or fused; two of them cancel each other."""
    rng = np.random.default_rng(0)
    w, x = (np.stack([drawn(rng, 3000) for _ in range(6)], axis=1) for _ in range(2))
    w[:], x[:, 0] = w[0], -x[::-1, 1]
    w[:, 0] = w[:, 1]
    ends = rules._total(intervals._times(w, x))
    for _ in range(20):
        total = -0.0
        for product in rng.permutation(w[0] * numbers_in(rng, x)):
            total = erring(rng, total + np.where(rng.random(product.shape) < 0.5, product, erring(rng, product)))
        assert_inside(ends, total)
