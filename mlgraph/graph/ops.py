"""The op table: the name, value and derivative of every op.

This is the specification. The reference engine runs these functions in float64; the kernels
(`mlgraph_ext/_ops.pxd`, `mlgraph_ext/_elementwise.pxi`) do the same in float32 and are tested
against them.

Where the mathematics leaves a choice:

- relu'(0) = 0, leaky_relu'(0) = LEAK, elu'(0) = 1, abs'(0) = 0.
- sign(0) = 0. The derivatives of sign and floor are 0, also where they jump.
- gelu is x P(X < x) for a normal X (Hendrycks and Gimpel 2016), not its approximation by tanh; silu is x sigmoid(x).
  Both are 0 at -inf. elu is exp(x) - 1 below 0 (Clevert et al. 2016).
- arcsin and arccos have infinite derivatives at -1 and 1. Outside their domains arcsin, arccos and log1p and their
  derivatives are NaN.
- Equal arguments of maximum, minimum and max share the derivative equally.
- where tests c > 0. Its derivatives with respect to c and to the branch not taken are 0.
- The derivative of pow with respect to a is b a^(b-1), and 0 if b = 0; with respect to b it is a^b log(a), so NaN if
  a < 0, and 0 if a = 0 < b.
- The derivative of prod is the product of the other factors, without a division, so that zeros need no special case.
- logsumexp is -inf if all arguments are -inf, and +inf if one is +inf. Its derivative exp(x - y) is then NaN for the
  arguments equal to y.
- NaN in gives NaN out, except through the condition of where and for pow(x, 0) = pow(1, x) = 1. Derivatives defined by
  comparisons (relu, leaky_relu, abs, maximum, minimum, max) treat comparisons with NaN as false.

No function emits a numpy warning: outside its domain an op gives NaN or an infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float64

LEAK = 0.01
"""Slope of leaky_relu on the negative side."""


class Op(NamedTuple):
    """One row of the op table.

    Attributes
    ----------
    code : int
        Position in the table; plans and kernels identify the op by it.
    name : str
        The name in `Graph.add_operation` and in formulas.
    arity : int
        Number of arguments; -1 for any number from 1 up.
    value : callable
        ``value(*arguments)``, with an array for each argument. An n-ary op takes one array, its
        arguments along axis 0.
    derivatives : callable
        ``derivatives(y, *arguments)``: the partial derivative for each argument, where y is the
        value. An n-ary op returns one array, in the shape of its arguments.
    """

    code: int
    name: str
    arity: int
    value: Callable[..., Float64]
    derivatives: Callable[..., Any]


def _leaky_relu(x: Float64) -> Float64:
    return np.where(x > 0, x, LEAK * x)


def _sigmoid(x: Float64) -> Float64:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


def _maximum(a: Float64, b: Float64) -> Float64:
    # Not np.maximum: of 0 and -0, this must return the same one as the kernels.
    return np.where((a > b) | np.isnan(a), a, b)


def _softplus(x: Float64) -> Float64:
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def _elementwise(function: Callable[[float], float]) -> Callable[[Float64], Float64]:
    """A function of Python's math module for arrays."""
    return np.vectorize(function, otypes=[np.float64])


_erf, _erfc = _elementwise(math.erf), _elementwise(math.erfc)


def _normal_tail(a: Float64) -> tuple[Float64, Float64]:
    """P(X < -a) of a normal X, and its derivative with respect to -a."""
    return 0.5 * _erfc(a * math.sqrt(0.5)), np.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)


def _logistic_tail(a: Float64) -> tuple[Float64, Float64]:
    """sigmoid(-a), and its derivative with respect to -a."""
    e = np.exp(-a)
    return e / (1.0 + e), e / (1.0 + e) ** 2


def _gated(tail: Callable[[Float64], tuple[Float64, Float64]]) -> tuple[Callable[..., Float64], Callable[..., Any]]:
    """x F(x) and its derivative F(x) + x F'(x) for a distribution F with F(x) + F(-x) = 1.

    tail(a) gives F(-a) and F'(-a) for a >= 0.
    """

    def value(x: Float64) -> Float64:
        a = np.minimum(np.abs(x), 1000.0)  # inf * 0 would be NaN
        return np.where(x < 0, 0.0, x) - a * tail(a)[0]

    def derivatives(y: Float64, x: Float64) -> tuple[Float64]:
        a = np.minimum(np.abs(x), 1000.0)
        share, density = tail(a)
        below = share - a * density
        return (np.where(x < 0, below, 1.0 - below),)

    return value, derivatives


def _pow_derivatives(y: Float64, a: Float64, b: Float64) -> tuple[Float64, Float64]:
    of_base = np.where(b == 0, 0.0, b * np.power(a, b - 1.0))
    of_exponent = np.where((a == 0) & (b > 0), 0.0, y * np.log(a))
    return of_base, of_exponent


def _win(a: Float64, b: Float64) -> Float64:
    """1 where a > b, 1/2 where a = b, else 0."""
    return np.where(a > b, 1.0, np.where(a == b, 0.5, 0.0))


def _prod_derivatives(y: Float64, x: Float64) -> Float64:
    one = np.ones_like(x[:1])
    before = np.cumprod(np.concatenate([one, x[:-1]]), axis=0)
    after = np.cumprod(np.concatenate([one, x[:0:-1]]), axis=0)[::-1]
    return before * after


def _max_derivatives(y: Float64, x: Float64) -> Float64:
    greatest = x == y
    share: Float64 = greatest / np.maximum(np.sum(greatest, axis=0), 1.0)
    return share


def _logsumexp(x: Float64) -> Float64:
    greatest = np.max(x, axis=0)
    shift = np.where(np.isfinite(greatest), greatest, 0.0)  # inf - inf would be NaN
    total: Float64 = np.sum(np.exp(x - shift), axis=0)
    return shift + np.log(total)


# fmt: off
_TABLE: list[tuple[str, int, Callable[..., Any], Callable[..., Any]]] = [
    # Activations: their derivatives need only y.
    ("identity", 1, np.array, lambda y, x: (np.ones_like(y),)),
    ("relu", 1, lambda x: np.where(x < 0, 0.0, x), lambda y, x: (np.where(y > 0, 1.0, 0.0),)),
    ("leaky_relu", 1, _leaky_relu, lambda y, x: (np.where(y > 0, 1.0, LEAK),)),
    ("sigmoid", 1, _sigmoid, lambda y, x: (y * (1.0 - y),)),
    ("tanh", 1, np.tanh, lambda y, x: (1.0 - y * y,)),
    # The other unary ops.
    ("softplus", 1, _softplus, lambda y, x: (_sigmoid(x),)),
    ("neg", 1, np.negative, lambda y, x: (-np.ones_like(y),)),
    ("abs", 1, np.abs, lambda y, x: (np.where(x > 0, 1.0, 0.0) - np.where(x < 0, 1.0, 0.0),)),
    ("exp", 1, np.exp, lambda y, x: (y,)),
    ("log", 1, np.log, lambda y, x: (1.0 / x,)),
    ("sqrt", 1, np.sqrt, lambda y, x: (0.5 / y,)),
    ("sin", 1, np.sin, lambda y, x: (np.cos(x),)),
    ("cos", 1, np.cos, lambda y, x: (-np.sin(x),)),
    # Binary ops.
    ("add", 2, np.add, lambda y, a, b: (np.ones_like(y), np.ones_like(y))),
    ("sub", 2, np.subtract, lambda y, a, b: (np.ones_like(y), -np.ones_like(y))),
    ("mul", 2, np.multiply, lambda y, a, b: (b, a)),
    ("div", 2, np.divide, lambda y, a, b: (1.0 / b, -y / b)),
    ("pow", 2, np.power, _pow_derivatives),
    ("maximum", 2, _maximum, lambda y, a, b: (_win(a, b), _win(b, a))),
    ("minimum", 2, lambda a, b: -_maximum(-a, -b), lambda y, a, b: (_win(b, a), _win(a, b))),
    # Ternary op.
    ("where", 3, lambda c, a, b: np.where(c > 0, a, b),
     lambda y, c, a, b: (np.zeros_like(y), np.where(c > 0, 1.0, 0.0), np.where(c > 0, 0.0, 1.0))),
    # n-ary ops.
    ("sum", -1, lambda x: np.sum(x, axis=0), lambda y, x: np.ones_like(x)),
    ("prod", -1, lambda x: np.prod(x, axis=0), _prod_derivatives),
    ("max", -1, lambda x: reduce(lambda most, a: _maximum(a, most), x), _max_derivatives),
    ("logsumexp", -1, _logsumexp, lambda y, x: np.exp(x - y)),
    # Further unary ops, here because files hold the positions of those above. elu is an activation: it needs only y.
    ("elu", 1, lambda x: np.where(x > 0, x, np.expm1(x)), lambda y, x: (np.where(y > 0, 1.0, y + 1.0),)),
    ("gelu", 1, *_gated(_normal_tail)),
    ("silu", 1, *_gated(_logistic_tail)),
    ("erf", 1, _erf, lambda y, x: (2 / math.sqrt(math.pi) * np.exp(-x * x),)),
    ("expm1", 1, np.expm1, lambda y, x: (np.exp(x),)),
    ("log1p", 1, np.log1p, lambda y, x: (np.where(x < -1, np.nan, 1.0 / (1.0 + x)),)),
    ("sinh", 1, np.sinh, lambda y, x: (np.cosh(x),)),
    ("cosh", 1, np.cosh, lambda y, x: (np.sinh(x),)),
    ("arctan", 1, np.arctan, lambda y, x: (1.0 / (1.0 + x * x),)),
    ("arcsin", 1, np.arcsin, lambda y, x: (1.0 / np.sqrt((1.0 - x) * (1.0 + x)),)),
    ("arccos", 1, np.arccos, lambda y, x: (-1.0 / np.sqrt((1.0 - x) * (1.0 + x)),)),
    ("floor", 1, np.floor, lambda y, x: (np.zeros_like(y),)),
    ("sign", 1, lambda x: np.where(x > 0, 1.0, np.where(x < 0, -1.0, x)), lambda y, x: (np.zeros_like(y),)),
]
# fmt: on


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function to convert its arguments to float64 and to suppress numpy's warnings."""

    def quiet(*arguments: npt.ArrayLike) -> Any:
        with np.errstate(all="ignore"):
            return function(*(np.asarray(x, np.float64) for x in arguments))

    return quiet


BY_CODE: tuple[Op, ...] = tuple(
    Op(code, name, arity, _quiet(value), _quiet(derivatives))
    for code, (name, arity, value, derivatives) in enumerate(_TABLE)
)
"""All ops in the order of their codes."""

OPS: dict[str, Op] = {op.name: op for op in BY_CODE}
"""All ops by name."""

IN_PLACE: tuple[str, ...] = ("identity", "relu", "leaky_relu", "sigmoid", "tanh", "elu")
"""Names of the activations whose derivatives need only y: the kernels of neurons overwrite the weighted sum with y."""

ACTIVATIONS: tuple[str, ...] = (*IN_PLACE, "gelu", "silu", "softplus")
"""Names of the ops that a neuron may apply to its weighted sum. The compiler makes operations of those not in place."""

WEIGHT, INPUT, CONSTANT, PARAMETER, NEURON = 99, 100, 101, 102, 103
"""Codes of nodes that are not operations; the code of a neuron is NEURON plus that of its activation.

The value of a WEIGHT node is the weight of an edge, or 0 where there is none; its two sources are the edge's ends.
"""


_ACTIVATION_CODES = [OPS[name].code for name in ACTIVATIONS]
_IN_PLACE_CODES = _ACTIVATION_CODES[: len(IN_PLACE)]


def is_activation(code: Any) -> Any:
    """Whether these are codes of activations."""
    return np.isin(code, _ACTIVATION_CODES)


def is_in_place(code: Any) -> Any:
    """Whether these are codes of activations that the kernels of neurons apply."""
    return np.isin(code, _IN_PLACE_CODES)


def is_operation(code: Any) -> Any:
    """Whether nodes of these codes are operations."""
    return code < len(BY_CODE)


def is_leaf(code: Any) -> Any:
    """Whether nodes of these codes are inputs, constants or parameters, which have no sources."""
    return (code >= INPUT) & (code < NEURON)
