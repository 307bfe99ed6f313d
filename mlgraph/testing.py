"""Checks for whoever builds graphs or kernels: gradients against differences, the sweep against the reference.

No tolerance here is a guess. `expect` bounds what float32 may do to each number of a sweep by a running error analysis to
first order (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.3):

- Choices (maximum, where, relu, ...) are exact; arithmetic rounds a result once or twice, `2**-24` each; any other op is
  within 4 units in the last place (`tests/test_ops.py` measures 2.6 at most).
- A sum of n terms is off by n + 2 roundings of the sum of their magnitudes; or, if that is less, by 4 sqrt(n) roundings of
  the largest sum on the way, since roundings of either sign do not add up (Higham and Mary, A new approach to probabilistic
  rounding error analysis, 2019): seven standard deviations, from n = 12 on less than the worst case.
- The errors of the arguments of an op may have any signs: the op is evaluated at all corners, and at 0 in between. So near a
  kink, a pole or a tie the bound takes in what lies beyond. A result that may come out as another kind of number (finite,
  infinite, NaN) has the bound inf; with any other bound, what is not finite is so for certain.

The same bounds times 2**-29 hold for the reference, which computes in float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph import ops, reference
from mlgraph.checks import LARGEST, float_array, shown, whole
from mlgraph.engine import Examples
from mlgraph.function import Function
from mlgraph.plan import KINDS, Instruction, Plan
from mlgraph.views import Node

__all__ = ["Expected", "check_against_reference", "check_gradients", "check_reference", "expect"]

Array = npt.NDArray[np.float64]
Functions = Function | Node | Sequence[Node]

UNIT = 2.0**-24
EXACT = {"identity", "relu", "neg", "abs", "maximum", "minimum", "where", "max"}
ARITHMETIC = {"leaky_relu", "sqrt", "add", "sub", "mul", "div", "sum"}
ROUNDING = {op.name: 0 if op.name in EXACT else 2 * UNIT if op.name in ARITHMETIC else 8 * UNIT for op in ops.BY_CODE}
TINY = 1e-44  # a few of the smallest float32: results may be subnormal
TO_FLOAT64 = 2.0**-29 * 4  # from a bound for float32 to one for float64, with room for what numpy does in another order


class Expected(NamedTuple):
    """What a sweep should give in float64, and how far from it float32 may be.

    Attributes
    ----------
    values, values_error : float64, shape (batch, outputs)
    inputs, inputs_error : float64, shape (batch, inputs)
    parameters, parameters_error : float64, shape (len(graph.parameters),)
        In the places of the parameter vector. The error is NaN for its padding and for what no output needs.
    """

    values: Array
    values_error: Array
    inputs: Array
    inputs_error: Array
    parameters: Array
    parameters_error: Array


def check_gradients(
    function: Functions,
    x: npt.ArrayLike,
    *,
    inputs: bool = True,
    parameters: bool = True,
    seed: int = 0,
    step: float = 1e-6,
    n_threads: int | None = None,
) -> None:
    """Hold the gradient of the compiled float32 sweep against central differences.

    With a random cotangent u and a random tangent v two inner products must agree: ``<J^T u, v>`` by one backward sweep, and
    ``<u, J v>`` by differences of the outputs, in float64, along v. So the cost is that of a few sweeps for any number of
    inputs and parameters. The signs of v are those of the gradient: no part of the sum cancels another, and a mistake in
    any part shows.

    Parameters
    ----------
    function : Function, Node or sequence of Node
        Nodes are compiled.
    x : array_like, shape (batch, inputs)
        Should not lie on a kink (relu at 0, a tie of max), where a derivative is a convention.
    inputs, parameters : bool
        Which derivatives to check.
    seed : int
        Fixes u and v.
    step : float
        Length of a difference: its root mean square over the examples.
    n_threads : int, optional

    Raises
    ------
    AssertionError
        If the numbers differ by more than the sum of three bounds: the float32 error of each derivative (`expect`) times its
        part of v; what the difference leaves out, by what doubling the step does to slope and curvature of each example, be
        it a third derivative or a kink on the way; and the rounding of float64 over the step. Where a bound is infinite,
        because a value may overflow, nothing can be checked, which is an error too.
    """
    f = _compiled(function)
    u = _cotangent(f, x, None, seed)
    gradients, expected = f.vjp(x, u, n_threads=n_threads), expect(f, x, u)
    errors = (expected.inputs_error, expected.parameters_error)
    _compare_products(f, x, u, gradients[1:3], errors, expected, (inputs, parameters), seed, step, "the sweep in float32")


def check_reference(
    function: Functions,
    x: npt.ArrayLike,
    *,
    inputs: bool = True,
    parameters: bool = True,
    seed: int = 0,
    step: float = 1e-6,
) -> None:
    """Hold the gradient of the float64 reference against central differences; no kernel takes part.

    Parameters and exceptions are those of `check_gradients`; the tolerance is tighter by the error of float32.
    """
    f = _compiled(function)
    u = _cotangent(f, x, None, seed)
    expected = expect(f, x, u)
    errors = (expected.inputs_error * TO_FLOAT64, expected.parameters_error * TO_FLOAT64)
    gradients = (expected.inputs, expected.parameters)
    _compare_products(f, x, u, gradients, errors, expected, (inputs, parameters), seed, step, "the reference")


def check_against_reference(
    function: Functions,
    x: npt.ArrayLike,
    cotangent: npt.ArrayLike | None = None,
    *,
    seed: int = 0,
    n_threads: int | None = None,
) -> Expected:
    """Hold each number of the compiled sweep, values and derivatives, against the float64 reference.

    Parameters
    ----------
    function : Function, Node or sequence of Node
        Nodes are compiled.
    x : array_like, shape (batch, inputs)
    cotangent : array_like, shape (batch, outputs), optional
        Random by default.
    seed : int
        Fixes a random cotangent.
    n_threads : int, optional

    Returns
    -------
    Expected

    Raises
    ------
    AssertionError
        If a number is further from the reference than its bound (`expect`), or is not finite where the reference is, or the
        other way round. Of infinite gradients of parameters only that much is compared: what is summed over examples in
        another order may be infinite in one and NaN in the other.
    """
    f = _compiled(function)
    u = _cotangent(f, x, cotangent, seed)
    expected = expect(f, x, u)
    gradients = f.vjp(x, u, n_threads=n_threads)
    _compare("value (example, output)", gradients.values, expected.values, expected.values_error)
    _compare("value without gradient (example, output)", f(x, n_threads=n_threads), expected.values, expected.values_error)
    _compare("gradient (example, input)", gradients.inputs, expected.inputs, expected.inputs_error)
    with np.errstate(invalid="ignore"):  # inf becomes NaN
        got, want = gradients.parameters + 0 * gradients.parameters, expected.parameters + 0 * expected.parameters
    _compare("gradient (parameter)", got, want, expected.parameters_error)
    return expected


def expect(function: Function, x: npt.ArrayLike, cotangent: npt.ArrayLike | None = None) -> Expected:
    """What the reference gives, and how far from it a float32 sweep of the same plan may be.

    Parameters
    ----------
    function : Function
    x : array_like, shape (batch, inputs)
    cotangent : array_like, shape (batch, outputs), optional
        Ones by default.
    """
    function = _compiled(function)
    data = _read(function, x)
    plan = function._engine(True).plan
    p = function.graph.parameters.astype(np.float64)
    slots = plan.slot[function._outputs]
    u = _cotangent(function, x, np.ones((len(data), len(slots))) if cotangent is None else cotangent, 0)
    with np.errstate(all="ignore"):
        values = reference.forward(plan, p, data)
        _, adjoints = reference.loss("cotangent", [slots[0], *slots], values, target=u)
        analysis = _Analysis(plan, p, values, slots, u)
        gradient = reference.backward(plan, p, values, adjoints)
        if np.asarray(x).dtype == np.uint8:
            n_inputs = len(plan.input_column)
            analysis.error[:n_inputs] = UNIT * values[:n_inputs]  # bytes are looked up as rounded quotients
        analysis.forward()
        analysis.backward(adjoints)
    columns, n_inputs = plan.input_column, len(plan.input_column)
    inputs, inputs_error = np.zeros((2, len(data), function.graph.n_inputs))
    inputs[:, columns] = adjoints[:n_inputs].T
    inputs_error[:, columns] = analysis.adjoint_error(slice(0, n_inputs)).T
    return Expected(
        values[slots].T, analysis.error[slots].T, inputs, inputs_error, gradient, analysis.gradient_error
    )  # fmt: skip


# --- comparisons -----------------------------------------------------------------------------------------------------


def _compiled(function: Functions) -> Function:
    if isinstance(function, Function):
        return function
    nodes = [function] if isinstance(function, Node) else list(function) if isinstance(function, Sequence) else [function]
    if not nodes:
        raise ValueError("function: expected at least one node, came none")
    if not isinstance(nodes[0], Node):
        raise TypeError(f"function: expected a Function or nodes, came {type(nodes[0]).__name__}")
    return Function(nodes[0].graph, nodes)


def _read(f: Function, x: npt.ArrayLike) -> Array:
    """The data as the sweep reads them, in float64."""
    array = Examples(x, f.graph.n_inputs).array
    if len(array) == 0:
        raise ValueError("x: expected at least one example, came none")
    return array / 255 if array.dtype == np.uint8 else array.astype(np.float64)


def _cotangent(f: Function, x: npt.ArrayLike, given: npt.ArrayLike | None, seed: int) -> Array:
    """The cotangent given, or a random one."""
    shape = (len(_read(f, x)), len(f._outputs))
    random = np.random.default_rng(whole("seed", seed, 0, None)).standard_normal(shape, np.float32)
    return (random if given is None else float_array("cotangent", given, shape)).astype(np.float64)


def _compare(what: str, got: npt.NDArray[Any], want: Array, error: Array) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.abs(got.astype(np.float64) - want) <= error
    good = finite | (got == want) | (np.isnan(got) & np.isnan(want)) | ~np.isfinite(error)
    if not good.all():
        i = tuple(np.argwhere(~good)[0].tolist())
        raise AssertionError(
            f"{what} {', '.join(map(str, i))}: the sweep gives {got[i]!s}, the reference {want[i]!s}, "
            f"tolerance {error[i]:.3g}; {np.count_nonzero(~good)} of {good.size} differ by more than theirs"
        )


def _compare_products(
    f: Function, x: npt.ArrayLike, u: Array, gradients: Sequence[npt.NDArray[Any]], errors: Sequence[Array],
    expected: Expected, wanted: Sequence[bool], seed: int, step: float, who: str,
) -> None:  # fmt: skip
    rng = np.random.default_rng((seed, 1))
    tangents, product, tolerance = [], 0.0, 0.0
    for gradient, error, want in zip(gradients, errors, wanted, strict=True):
        g = gradient.astype(np.float64)
        v = want * np.abs(rng.standard_normal(g.shape)) * np.where(g == 0, rng.choice([-1.0, 1.0], g.shape), np.sign(g))
        tangents.append(v)
        if want:
            product += float(np.sum(g * v))
            tolerance += float(np.nansum(error * np.abs(v)))

    if not isinstance(step, Real) or not 0 < step < np.inf:
        raise ValueError(f"step: expected a positive number, came {shown(step)}")
    plan, data, p = f._engine(True).plan, _read(f, x), f.graph.parameters.astype(np.float64)
    step /= float(np.sqrt(np.sum(tangents[0] ** 2) / max(1, len(data)) + np.sum(tangents[1] ** 2))) or 1.0

    def weighted(t: float) -> Array:
        values = reference.forward(plan, p + t * tangents[1], data + t * tangents[0])
        return np.asarray(np.sum(u.T * values[plan.slot[f._outputs]], axis=0))

    with np.errstate(all="ignore"):
        here, ends = weighted(0.0), [(weighted(h), weighted(-h), h) for h in (step, 2 * step)]
        (slope, turn), (wider, wider_turn) = (((a - b) / (2 * h), (a - 2 * here + b) / h) for a, b, h in ends)
        difference = float(np.sum(slope))
        # For a third derivative the first term is three times the error; with a kink within the step both are its size.
        tolerance += float(np.sum(np.abs(slope - wider) + np.abs(turn - wider_turn / 2)))
        rounding = float(np.sum(np.abs(u) * (expected.values_error * TO_FLOAT64 + 2.0**-52 * np.abs(expected.values))))
        for gradient, at, want in zip(gradients, (data, p), wanted, strict=True):
            rounding += want * float(np.sum(np.abs(gradient * at))) * 2.0**-52  # so is the place of a difference
    tolerance += rounding / step
    if not (abs(product - difference) <= tolerance < np.inf):
        raise AssertionError(
            f"<J^T u, v> = {product:.9g} by {who}, <u, J v> = {difference:.9g} by differences: "
            f"they differ by {abs(product - difference):.3g}, tolerance {tolerance:.3g}"
        )


# --- the analysis ----------------------------------------------------------------------------------------------------


class _Analysis:
    """Error bounds of all slots, interpreted from the plan like the reference; arrays of shape (slots, examples)."""

    def __init__(self, plan: Plan, p: Array, values: Array, slots: npt.NDArray[np.int32], u: Array) -> None:
        self.plan, self.p, self.values = plan, p, values
        self.error = np.zeros_like(values)
        # Of each adjoint: what its terms are off by, how large they are, how many they are.
        self._off, self._size, self._terms = np.zeros_like(values), np.zeros_like(values), np.zeros(len(values))
        self.gradient_error = np.full(len(p), np.nan)
        np.add.at(self._size, slots, np.abs(u).T)
        np.add.at(self._terms, slots, 1)

    def forward(self) -> None:
        """Bound the values."""
        for ins in self.plan.instructions:
            if ins.kind == KINDS["operation"]:
                arguments = reference._arguments(self.plan, ins).T
                bound = _value_bound(ops.BY_CODE[ins.op], self.values[arguments], self.error[arguments])
                self.error[ins.dst : ins.dst + ins.size] = bound
            elif ins.kind in (KINDS["dense"], KINDS["rows"]):
                for n, (sources, at) in enumerate(reference._neurons(self.plan, ins)):
                    w, s, e = self.p[at, None], self.values[sources], self.error[sources]
                    bias = self.p[ins.bias + n] if ins.bias >= 0 else 0.0
                    off = np.where(e == 0, 0, np.abs(w) * e).sum(axis=0)
                    z, bound = _sum_bound(np.concatenate([np.full((1, s.shape[1]), bias), w * s]), off)
                    op = ops.BY_CODE[ins.op]
                    self.error[ins.dst + n] = _rounded(*_spread(op.value, [z], [bound]), ROUNDING[op.name])

    def backward(self, adjoints: Array) -> None:
        """Bound the adjoints and the gradient; `adjoints` as the reference has completed them."""
        for ins in reversed(self.plan.instructions):
            d = adjoints[ins.dst : ins.dst + ins.size]
            off = self.adjoint_error(slice(ins.dst, ins.dst + ins.size))
            if ins.kind == KINDS["parameter"]:
                self.gradient_error[ins.weights : ins.weights + ins.size] = _sum_bound(d.T, off.sum(axis=1))[1]
            elif ins.kind == KINDS["operation"] and ins.propagate:
                arguments = reference._arguments(self.plan, ins).T
                op = ops.BY_CODE[ins.op]
                partials, bound = _partials(op, self.values[arguments], self.error[arguments])
                terms, off = _spread(np.multiply, [d[None], partials], [off[None], bound])
                if op.name in reference.CHOICES:
                    terms = np.where(partials == 0, 0, terms)
                elif op.name == "prod":
                    off = off + len(arguments) * TINY * _growth(self.values[arguments])
                self._add(arguments, terms, off)
            elif ins.kind in (KINDS["dense"], KINDS["rows"]):
                self._neurons(ins, d, off)

    def adjoint_error(self, slots: slice) -> Array:
        """Bound of adjoints that have all their terms."""
        bound = self._off[slots] + self._terms[slots, None] * UNIT * self._size[slots]
        return np.where(bound + self._size[slots] <= LARGEST, bound, np.inf)

    def _add(self, slots: npt.NDArray[np.int32], terms: Array, off: Array) -> None:
        np.add.at(self._off, slots, _rounded(terms, off, UNIT))
        np.add.at(self._size, slots, _magnitude(terms))
        np.add.at(self._terms, slots, 1)

    def _neurons(self, ins: Instruction, d: Array, off: Array) -> None:
        y, e = self.values[ins.dst : ins.dst + ins.size], self.error[ins.dst : ins.dst + ins.size]
        op = ops.BY_CODE[ins.op]
        slope, bound = _spread(lambda y: op.derivatives(y, y)[0], [y], [e])
        bound = _rounded(slope, bound, ROUNDING[op.name])
        # d has the slope in it already; what it was before is at most the sum of its terms.
        off = slope * off + (self._size[ins.dst : ins.dst + ins.size] + off) * bound
        off[~np.isfinite(d) & ~(bound < slope)] = np.inf
        off = _rounded(d, off, UNIT)
        for n, (sources, at) in enumerate(reference._neurons(self.plan, ins)):
            s, e = self.values[sources], self.error[sources]
            terms, error = _spread(np.multiply, [s, d[n]], [e, off[n]])
            self.gradient_error[at] = _sum_bound(terms.T, error.sum(axis=1))[1]
            if ins.propagate:
                w = self.p[at, None]
                self._add(sources, *_spread(np.multiply, [w, d[n]], [np.zeros_like(w), off[n]]))
        if ins.bias >= 0:
            self.gradient_error[ins.bias : ins.bias + ins.size] = _sum_bound(d.T, off.sum(axis=1))[1]


def _spread(function: Callable[..., Any], arguments: Sequence[Any], errors: Sequence[Any]) -> tuple[Array, Array]:
    """The value of an elementwise function, and its largest distance from the values at the corners of the errors."""
    y = np.asarray(function(*arguments))
    sides = [_sides(a, e) for a, e in zip(arguments, errors, strict=True)]
    most = np.zeros_like(y)
    for corner in itertools.product(*sides):
        other = function(*corner)
        distance = np.where((other == y) | (np.isnan(other) & np.isnan(y)), 0, np.abs(other - y))
        most = np.fmax(most, np.where(np.isnan(distance), np.inf, distance))
    return y, most


def _sides(a: Any, e: Any) -> list[Any]:
    """Both ends of what an argument may be, and what is special in between: 0, and anything where nothing is known."""
    around_zero, unknown = (np.abs(a) <= e) & (a != 0), np.isinf(e)
    sides = [a + e, a - e] if np.any(e) else [a]
    if around_zero.any():
        sides.append(np.where(around_zero, 0, a))
    if unknown.any():
        sides += [np.where(unknown, special, a) for special in (np.nan, np.inf, -np.inf, 0)]
    return sides


def _magnitude(x: Array) -> Array:
    return np.where(np.isfinite(x), np.abs(x), 0)


def _rounded(y: Array, error: Array, rounding: float) -> Array:
    """The error of y when it has been rounded to float32; infinite where that may overflow."""
    if rounding:
        error = error + rounding * (_magnitude(y) + error) + TINY * (y != 0)
    return np.where(error + _magnitude(y) <= LARGEST, error, np.inf)


def _sum_bound(terms: Array, off: Array) -> tuple[Array, Array]:
    """Sum along the first axis, and its error where the terms together are off by `off`."""
    n, finite = len(terms), np.where(np.isfinite(terms), terms, 0)
    size = np.abs(finite).sum(axis=0)
    # In another order the sums on the way are others, but hardly larger than these and a standard deviation.
    largest = np.abs(np.cumsum(finite, axis=0)).max(axis=0, initial=0) + np.sqrt(np.sum(finite**2, axis=0))
    roundings = np.minimum((n + 2) * (size + off), 4 * (n + 2) ** 0.5 * (largest + off))
    error = off + roundings * UNIT + TINY * (terms != 0).sum(axis=0)
    return terms.sum(axis=0), np.where(error + size <= LARGEST, error, np.inf)


def _value_bound(op: ops.Op, x: Array, e: Array) -> Array:
    if op.arity >= 0:
        y, bound = _spread(op.value, list(x), list(e))
        return _rounded(y, _in_between(op, bound, x, e), ROUNDING[op.name])
    y, n = op.value(x), len(x)
    size = _magnitude(x)
    if op.name == "sum":
        return _sum_bound(x, e.sum(axis=0))[1]
    if op.name == "prod":
        growth = _growth(x)
        error = op.value(np.abs(x) + e) - np.abs(y) + n * (UNIT * _magnitude(y) + TINY * growth)
        return _rounded(y, np.where(growth <= LARGEST, error, np.inf), UNIT)
    # Neither max nor logsumexp moves further than its arguments.
    error = e.max(axis=0) + ROUNDING[op.name] * (size.max(axis=0) + np.log(n) + 1)
    return _rounded(y, error, 0)


def _partials(op: ops.Op, x: Array, e: Array) -> tuple[Array, Array]:
    """Partial derivatives for each argument, and their errors."""
    if op.arity >= 0:

        def derivatives(*arguments: Array) -> Array:
            # The last argument rounds the output, which the derivative may use.
            a, rounding = arguments[:-1], arguments[-1]
            return np.stack(np.broadcast_arrays(*op.derivatives(op.value(*a) * (1 + rounding), *a)))

        errors = [*e, np.full(x.shape[1:], ROUNDING[op.name])]
        partials, bound = _spread(derivatives, [*x, np.zeros(x.shape[1:])], errors)
        if op.name == "pow":
            # b a^(b - 1) with its exponent rounded, and a^(b - 1) on the way
            a, b = x
            bound[0] += _magnitude(partials[0]) * UNIT * (np.abs(b) + 1) * np.abs(np.log(np.abs(a))) + TINY * np.abs(b)
            bound[0, ~(np.abs(np.power(a, b - 1)) < LARGEST) & (b != 0)] = np.inf
        return partials, _rounded(partials, _in_between(op, bound, x, e), ROUNDING[op.name])
    y = op.value(x)
    partials = op.derivatives(y, x)
    if op.name == "sum":
        return partials, np.zeros_like(x)
    if op.name == "prod":
        larger = np.abs(x) + e
        bound = op.derivatives(op.value(larger), larger) - np.abs(partials) + len(x) * UNIT * _magnitude(partials)
        bound = np.where(_growth(x) <= LARGEST, bound, np.inf)
    elif op.name == "max":
        in_reach = x + e >= np.max(x - e, axis=0)
        bound = ((in_reach & (np.sum(in_reach, axis=0) > 1) & (e.max(axis=0) > 0)) | np.isinf(e).any(axis=0)) * 1.0
    else:
        exponent = e + e.max(axis=0) + ROUNDING[op.name] * (_magnitude(x).max(axis=0) + np.abs(y) + np.log(len(x)) + 1)
        bound = partials * np.expm1(exponent)
    return partials, _rounded(partials, np.where(np.isnan(bound), np.inf, bound), ROUNDING[op.name])


def _in_between(op: ops.Op, bound: Array, x: Array, e: Array) -> Array:
    """The bound, with what lies between the sides of the arguments and cannot be seen there."""
    if op.name in ("sin", "cos"):
        return np.asarray(np.fmax(bound, np.fmin(e[0], 2)))  # more than a fraction of a period; the slope is at most 1
    if op.name == "pow":
        # A power of a negative number is NaN but for whole exponents, and any large float32 is whole.
        whole = (x[0] - e[0] < 0) & (e[1] > 0) & (np.floor(x[1] + e[1]) >= np.ceil(x[1] - e[1]))
        return np.where(whole, np.inf, bound)
    return bound


def _growth(factors: Array) -> Array:
    """The most that the other factors do to what underflows or overflows in a product on its way."""
    return np.asarray(np.prod(np.maximum(np.abs(factors), 1), axis=0))
