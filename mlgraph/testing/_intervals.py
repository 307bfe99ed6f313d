"""Interval arithmetic: sweeps of the reference over intervals that contain all results a float32 sweep may give.

An interval is an array whose first axis holds the low and the high end (Moore, Kearfott and Cloud,
Introduction to Interval Analysis, SIAM 2009, chapters 2 to 5). If the result is certainly NaN, both
ends are NaN. If nothing is known about it, the ends are -inf and inf, and it may be NaN as well.
The intervals contain the results of every correct sweep:

- Choices (maximum, where, relu, ...) are exact. `+ - * /` and the square root are rounded once, as
  IEEE 754 requires. Rounding is monotone, so it suffices to round both ends. Every other op is
  within 4 units in the last place of the exact result, gelu within 8, with the same sign (the tests
  of the ops measure at most 3.5 and 7.0). The derivatives of gelu and silu, up to 1.1, are sums with
  a zero crossing, within 4 units in the last place of 1. logsumexp is within 4 units of its largest argument.
- The error of a sum of n terms is at most n roundings of the sum of their magnitudes, for any order
  and any fused multiply-add (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
  section 4.2), plus a unit in the last place, because a sum over bytes is scaled at the end. The
  error of a product of n factors is at most n roundings, plus an intermediate underflow times the
  other factors.
- An op is evaluated at all corners of the intervals of its arguments, and at both zeros if they lie
  in between: it is monotone in each argument on either side of 0. gelu and silu and their derivatives
  also turn at `TURNS`. Sine, cosine and the derivative
  of the sigmoid are not monotone; their distance from the chord is at most a quarter of the squared
  width of the interval.
- Nothing is known where some corners give numbers and others NaN, where a sum or product may
  overflow on the way (also where a factor may be infinite), and where a number that may be negative
  has a power that may be NaN.

So the interval near a kink, a pole or a tie includes the values on both sides, and unknown results
stay unknown. The sign of zero matters: it is known for inputs, constants, parameters and exact
results; otherwise the interval contains both zeros.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlgraph._support.array_types import Bool, Float64, Int32, Int64
from mlgraph._support.checks import FLOAT32_MAX
from mlgraph.compiler.instructions import KINDS, OF_NEURONS, Instruction
from mlgraph.compiler.plan import Plan
from mlgraph.engine import reference
from mlgraph.graph import ops

UNIT, ULP = 2.0**-24, 2.0**-23  # relative rounding error and unit in the last place of float32
SMALLEST = 2.0**-149  # smallest positive float32 number

ULPS = {
    **dict.fromkeys(("leaky_relu", "sigmoid", "tanh", "softplus", "exp", "log", "sin", "cos", "pow"), 4),
    **dict.fromkeys(("elu", "silu", "erf", "expm1", "log1p", "sinh", "cosh", "arctan", "arcsin", "arccos"), 4),
    "gelu": 8,
}
"""Maximum error of ops in units in the last place; the others are exact, or have cases of their own."""

TURNS = {
    "gelu": (-1.4142135623730951, -0.7517915246935645, 1.4142135623730951),
    "silu": (-2.399357280515467, -1.2784645427610741, 2.399357280515467),
}
"""Where the values or derivatives of ops turn, except at 0."""


class Sweeps:
    """Forward and backward sweep over intervals.

    Parameters
    ----------
    plan : Plan
    p : float64, shape (parameters,)
    values : float64, shape (slots, examples)
        Values of the reference. Only those of inputs, constants and parameters are used.
    slots : int32, shape (outputs,)
        Slots of the outputs.
    u : float64, shape (examples, outputs)
        Cotangent.
    ulps : int
        Minimum error of an op in units in the last place.

    Attributes
    ----------
    values : float64, shape (2, slots, examples)
    gradient : float64, shape (2, parameters)
        Summed over the examples.
    has_gradient : bool, shape (parameters,)
        False for padding and for parameters that no output needs.
    """

    def __init__(self, plan: Plan, p: Float64, values: Float64, slots: Int32, u: Float64, ulps: int) -> None:
        self.plan, self.p, self.ulps = plan, p, ulps
        self.values = _float32(np.stack([values, values]))  # a byte / 255 is rounded when it is read
        self.gradient, self.has_gradient = np.zeros((2, len(p))), np.zeros(len(p), bool)
        # For each adjoint: the sum of its terms, the sum of their magnitudes, and their number.
        self._sum, self._size, self._count = np.zeros((2, *values.shape)), np.zeros_like(values), np.zeros(len(values))
        self._add(slots, np.stack([u.T, u.T]))
        for ins in plan.instructions:
            self._forward(ins)
        for ins in reversed(plan.instructions):
            self._backward(ins)

    def adjoints(self, slots: slice) -> Float64:
        """Intervals of adjoints to which all terms have been added."""
        return self._rounded_sum(self._sum[:, slots], self._size[slots], self._count[slots, None])

    def _add(self, slots: Int32, terms: Float64) -> None:
        for total, term in zip((*self._sum, self._size), (*terms, _size(terms)), strict=True):
            np.add.at(total, slots, term)
        np.add.at(self._count, slots, 1)

    def _forward(self, ins: Instruction) -> None:
        op, out = ops.BY_CODE[ins.op], self.values[:, ins.dst : ins.dst + ins.size]
        if ins.kind == KINDS["operation"]:
            out[:] = self._value(op, [self.values[:, a] for a in reference.arguments_of(self.plan, ins).T])
        elif ins.kind in OF_NEURONS:
            bias = self.p[ins.bias : ins.bias + ins.size] if ins.bias >= 0 else np.zeros(ins.size)
            for n in range(ins.size):
                sources, at = reference.neuron(self.plan, ins, n)
                terms = _times(self._weights(at), self.values[:, sources])
                terms = np.concatenate([terms, np.full((2, 1, terms.shape[2]), bias[n])], axis=1)
                out[:, n] = self._value(op, [self._total(terms)])

    def _backward(self, ins: Instruction) -> None:
        own = slice(ins.dst, ins.dst + ins.size)
        op, d, y = ops.BY_CODE[ins.op], self.adjoints(own), self.values[:, own]
        if ins.kind == KINDS["parameter"]:
            self._parameters(slice(ins.weights, ins.weights + ins.size), d)
        elif ins.kind == KINDS["operation"] and ins.propagate:
            arguments = reference.arguments_of(self.plan, ins).T
            for slots, terms in zip(
                arguments, self._terms(op, d, y, [self.values[:, a] for a in arguments]), strict=True
            ):
                self._add(slots, terms)
        elif ins.kind in OF_NEURONS:
            d = self._rounded(_times(d, self._partials(op, y, [y])[0]))
            if ins.bias >= 0:
                self._parameters(slice(ins.bias, ins.bias + ins.size), d)
            for n in range(ins.size):
                sources, at = reference.neuron(self.plan, ins, n)
                self._parameters(at, _times(self.values[:, sources], d[:, n, None]))
                if ins.propagate:
                    self._add(sources, _times(self._weights(at), d[:, n, None]))

    def _weights(self, at: Int64) -> Float64:
        return np.stack([self.p[at, None]] * 2)

    def _parameters(self, at: Any, terms: Float64) -> None:
        self.gradient[:, at], self.has_gradient[at] = self._total(terms.swapaxes(1, 2)), True

    # Ops: `x` lists the arguments, `y` is the value, `d` its adjoint.

    def _value(self, op: ops.Op, x: Sequence[Float64]) -> Float64:
        if op.name == "pow":
            return self._power(*x)
        if op.name == "sum":
            return self._total(np.stack(x, axis=1))
        if op.name == "prod":
            return self._rounded_product(functools.reduce(_times, x), x)
        if op.name == "max":  # in pairs, since among zeros the result has the sign of the first
            return self._rounded(functools.reduce(lambda most, a: _hull(ops.OPS["maximum"].value, a, most), x))
        if op.name == "logsumexp":  # monotone in each argument
            both = np.stack(x, axis=1)
            slack = 4 * ULP * (_size(both).max(axis=0) + np.log(len(x)) + 1)
            slack = np.where(_unknown(both).any(axis=0), np.inf, slack)
            return self._rounded(np.stack([op.value(end) for end in both]), slack=slack)
        bend = _bend(x[0]) if op.name in ("sin", "cos") else 0
        return self._rounded(_hull(op.value, *x, turns=TURNS.get(op.name, ())), ULPS.get(op.name, 0), bend)

    def _terms(self, op: ops.Op, d: Float64, y: Float64, x: Sequence[Float64]) -> list[Float64]:
        """Terms that the op adds to the adjoints of its arguments."""
        if op.name == "prod":
            before = itertools.accumulate(x[:-1], _times, initial=d)
            after = list(itertools.accumulate(x[:0:-1], _times, initial=np.ones_like(d)))[::-1]
            factors = [[d, *x[:i], *x[i + 1 :]] for i in range(len(x))]
            return [
                self._rounded_product(_times(a, b), these) for a, b, these in zip(before, after, factors, strict=True)
            ]
        times = _times_chosen if op.name in reference.CHOICES else _times
        return [times(d, partial) for partial in self._partials(op, y, x)]

    def _partials(self, op: ops.Op, y: Float64, x: Sequence[Float64]) -> Sequence[Float64]:
        if op.name == "pow":
            a, b = x
            lower, log = self._power(a, _float32(b - 1)), self._value(ops.OPS["log"], [a])
            # The sign of an even power is not that of the odd one below it, and floats from 2^24 on are even.
            are_even = np.abs(b).max(axis=0) >= 2**24
            lower = np.stack([np.where(are_even, -np.inf, lower[0]), np.where(are_even, np.inf, lower[1])])
            of_base = _hull(lambda b, lower: np.where(b == 0, 0.0, b * lower), b, lower)
            of_exponent = _hull(lambda y, log, a, b: np.where((a == 0) & (b > 0), 0.0, y * log), y, log, a, b)
            return [self._rounded(of_base), self._rounded(of_exponent)]
        if op.name == "sum":
            return [np.ones_like(a) for a in x]
        if op.name == "max":
            both = np.stack(x, axis=1)
            in_reach = both[1] >= both[0].max(axis=0)
            n = in_reach.sum(axis=0)
            certain = ((n == 1) | (both[0] == both[1]) | ~in_reach).all(axis=0) & ~_unknown(both).any(axis=0)
            share = in_reach / np.maximum(n, 1)
            # Not rounded here: the sweep divides the adjoint by n, and that rounding is counted in
            # the product with 1 / n.
            return list(np.stack([np.where(certain, share, 0), np.where(certain, share, in_reach)]).swapaxes(0, 1))
        if op.name == "logsumexp":
            return [self._value(ops.OPS["exp"], [self._value(ops.OPS["sub"], [a, y])]) for a in x]
        # Of the remaining ops with several arguments, only the derivatives of the quotient use its
        # value.
        y = y if op.arity == 1 or op.name == "div" else np.ones_like(y)
        # The derivative of tanh needs no slack for the rounding of y * y: the 4 units of y allow for more.
        bent = y if op.name == "sigmoid" else x[0]
        slack = _bend(bent) if op.name in ("sin", "cos", "sigmoid") else 4 * ULP if op.name in TURNS else 0.0
        turns = TURNS.get(op.name, ())
        partials = _hull(lambda *corner: np.stack(np.broadcast_arrays(*op.derivatives(*corner))), y, *x, turns=turns)
        return list(self._rounded(partials, ULPS.get(op.name, 0), slack).swapaxes(0, 1))

    def _power(self, a: Float64, b: Float64) -> Float64:
        # The power of a negative number depends on whether the exponent is an integer, and odd.
        # With any other exponent, -inf and -0.0 have powers, but the numbers between them do not.
        # With a NaN exponent, only 1 has a power.
        between = np.isneginf(a[0]) & (b[0] != np.rint(b[0])) | np.isnan(b[0])
        doubtful = np.signbit(a[0]) & (b[0] < b[1]) | (a[0] < a[1]) & between
        return self._rounded(_hull(ops.OPS["pow"].value, a, b), ULPS["pow"], np.where(doubtful, np.inf, 0))

    # Rounding.

    def _rounded(self, x: Float64, ulps: int = 0, slack: Float64 | float = 0.0) -> Float64:
        """Widen an interval by units in the last place, keeping the sign, then by `slack`, and round it outwards."""
        ulps = max(ulps, self.ulps)

        def down(end: Float64) -> Float64:
            off = np.where(np.isfinite(end), ulps * (ULP * np.abs(end) + SMALLEST * (end != 0)), 0)
            # A zero becomes -0.0.
            low = end if ulps == 0 else np.where(end > 0, np.maximum(end - off, 0.0), -np.abs(end - off))
            return np.asarray(np.where(np.isposinf(slack), -np.inf, low - slack))

        return _either(*_float32(np.stack([down(x[0]), -down(-x[1])])))

    def _rounded_sum(self, x: Float64, size: Float64, n: Float64 | int) -> Float64:
        slack = np.expm1(n * UNIT) * size + n * SMALLEST * (size > 0)
        return self._rounded(x, 1, np.where(size + slack <= FLOAT32_MAX, slack, np.inf))

    def _total(self, terms: Float64) -> Float64:
        """Interval of the sum along the second axis."""
        return self._rounded_sum(terms.sum(axis=1), _size(terms).sum(axis=0), terms.shape[1])

    def _rounded_product(self, x: Float64, factors: Sequence[Float64]) -> Float64:
        # `growth` bounds, for any order of multiplication, the factor by which an underflow on the
        # way can grow.
        growth = functools.reduce(np.multiply, [np.fmax(np.abs(factor).max(axis=0), 1) for factor in factors])
        off = np.expm1(len(factors) * UNIT)
        slack = off * _size(x) + len(factors) * SMALLEST * growth
        return self._rounded(x, slack=np.where(growth + off * growth <= FLOAT32_MAX, slack, np.inf))


def _float32(x: Float64) -> Float64:
    return x.astype(np.float32).astype(np.float64)


def _hull(function: Callable[..., Any], *arguments: Float64, turns: Sequence[float] = ()) -> Float64:
    """Interval of a function that is monotone in each argument between 0 and `turns`, before rounding."""
    low = high = np.array(np.nan)
    nan = np.array(False)
    for corner in itertools.product(*(_corners(x, turns) for x in arguments)):
        y = np.asarray(function(*corner))
        low = np.where((y < low) | (y == low) & np.signbit(y) | np.isnan(low), y, low)  # -0 comes before 0
        high = np.where((y > high) | (y == high) & ~np.signbit(y) | np.isnan(high), y, high)
        nan = nan | np.isnan(y)
    return _either(np.where(nan, np.nan, low), high)


def _corners(x: Float64, turns: Sequence[float]) -> list[Float64]:
    """Both ends, zeros and `turns` in between, and NaN where nothing is known."""
    low, high = x
    others = [
        (low != high, high),
        (np.signbit(low) & (high >= 0), -0.0),
        (~np.signbit(high) & (low <= 0), 0.0),
        (_unknown(x), np.nan),
        *(((low < turn) & (turn < high), turn) for turn in turns),
    ]
    return [low, *(np.where(where, other, low) for where, other in others if where.any())]


def _either(low: Float64, high: Float64) -> Float64:
    """Make an interval; nothing is known where only one end is NaN."""
    doubtful = np.isnan(low) != np.isnan(high)
    return np.stack([np.where(doubtful, -np.inf, low), np.where(doubtful, np.inf, high)])


def _times(a: Float64, b: Float64) -> Float64:
    return _hull(np.multiply, a, b)


def _times_chosen(d: Float64, partial: Float64) -> Float64:
    return _hull(lambda d, partial: np.where(partial == 0, 0, d * partial), d, partial)


def _bend(x: Float64) -> Float64:
    """Maximum distance from its chord of a function with values up to 1 and a second derivative up to 2."""
    return np.asarray(np.fmin((x[1] - x[0]) ** 2 / 4, 2))


def _unknown(x: Float64) -> Bool:
    return np.asarray(np.isneginf(x[0]) & np.isposinf(x[1]))


def _size(x: Float64) -> Float64:
    return np.asarray(np.where(np.isfinite(x), np.abs(x), 0).max(axis=0))


def distance(number: Float64, x: Float64) -> Float64:
    """Maximum distance of a number from an interval; inf if only some of its values are infinite or NaN."""
    off = np.maximum(number - x[0], x[1] - number)
    same = ((x[0] == number) & (x[1] == number)) | (np.isnan(number) & np.isnan(x[0]))
    return np.where(same, 0, np.where(np.isnan(off), np.inf, off))
