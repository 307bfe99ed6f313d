"""The op table: what every op is called, what it computes and how it is differentiated.

This is the specification. The reference engine runs these functions in float64; the kernels (`mlgraph_ext/_ops.pxd`,
`mlgraph_ext/_elementwise.pxi`) do the same in float32 and are tested against them.

`value` takes one array for each argument. `derivatives` takes the output `y`, then the arguments, and gives a tuple
with the partial derivative for each of them. An n-ary op (arity -1) takes one array whose axis 0 runs over its
arguments, at least one of them, and `derivatives` gives an array of the same shape.

Where the mathematics leaves a choice:

- relu'(0) = 0, leaky_relu'(0) = LEAK, abs'(0) = 0.
- Equal arguments of maximum, minimum and max share the derivative equally.
- The condition of where is c > 0; it has the derivative 0, and so has the branch not taken.
- pow has the derivative b a^(b-1) for a, 0 if b = 0; for b it has a^b log(a): 0 where a = 0 and b > 0, NaN where a < 0.
- prod multiplies the other factors instead of dividing by its own, so that zeros need no special case.
- logsumexp of nothing but -inf is -inf, and +inf if one argument is. Its derivative exp(x - y) is then NaN for the
  arguments equal to y.
- NaN comes out where NaN goes in, except through the condition of where and in pow(x, 0) = pow(1, x) = 1; the
  derivatives of relu, leaky_relu, abs, maximum, minimum and max at NaN are those of the comparisons, which are false.

No function emits a numpy warning: an op of a value out of its domain is NaN or infinite, and is dealt with there.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEAK = 0.01


class Op(NamedTuple):
    """One row of the op table.

    Attributes
    ----------
    code : int
        Position in the table, which is how plans and kernels name the op.
    name : str
    arity : int
        Number of arguments; -1 for any number from 1 up.
    value : callable
        ``value(*args) -> y``, or ``value(x) -> y`` over axis 0 if n-ary.
    derivatives : callable
        ``derivatives(y, *args) -> (dy/d arg, ...)``, or ``derivatives(y, x) -> dy/dx`` of the shape of x if n-ary.
    symbol : str
        Format string that prints the op; an n-ary one has a single field, for its arguments joined by commas.
    """

    code: int
    name: str
    arity: int
    value: Callable[..., Array]
    derivatives: Callable[..., Any]
    symbol: str


def _relu(x):
    return np.maximum(x, 0.0)


def _leaky_relu(x):
    return np.where(x > 0, x, LEAK * x)


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


def _softplus(x):
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def _pow_derivatives(y, a, b):
    by_base = np.where(b == 0, 0.0, b * np.power(a, b - 1.0))
    by_exponent = np.where((a == 0) & (b > 0), 0.0, y * np.log(a))
    return by_base, by_exponent


def _share(wins, ties):
    """Derivative of an argument of maximum or minimum: 1 if it wins, half of it in a tie."""
    return np.where(wins, 1.0, np.where(ties, 0.5, 0.0))


def _prod_derivatives(y, x):
    one = np.ones_like(x[:1])
    before = np.cumprod(np.concatenate([one, x[:-1]]), axis=0)
    after = np.cumprod(np.concatenate([one, x[:0:-1]]), axis=0)[::-1]
    return before * after


def _max_derivatives(y, x):
    ties = x == y
    return ties / np.maximum(ties.sum(axis=0), 1)


def _logsumexp(x):
    largest = np.max(x, axis=0)
    shift = np.where(np.isfinite(largest), largest, 0.0)
    return shift + np.log(np.sum(np.exp(x - shift), axis=0))


_TABLE: list[tuple[str, int, Callable[..., Array], Callable[..., Any], str]] = [
    # Activations: their derivative depends on y alone.
    ("identity", 1, lambda x: np.array(x), lambda y, x: (np.ones_like(y),), "{}"),
    ("relu", 1, _relu, lambda y, x: (np.where(y > 0, 1.0, 0.0),), "relu({})"),
    ("leaky_relu", 1, _leaky_relu, lambda y, x: (np.where(y > 0, 1.0, LEAK),), "leaky_relu({})"),
    ("sigmoid", 1, _sigmoid, lambda y, x: (y * (1.0 - y),), "sigmoid({})"),
    ("tanh", 1, np.tanh, lambda y, x: (1.0 - y * y,), "tanh({})"),
    # Other unary ops.
    ("softplus", 1, _softplus, lambda y, x: (_sigmoid(x),), "softplus({})"),
    ("neg", 1, np.negative, lambda y, x: (-np.ones_like(y),), "-{}"),
    ("abs", 1, np.abs, lambda y, x: ((x > 0) * 1.0 - (x < 0) * 1.0,), "abs({})"),
    ("exp", 1, np.exp, lambda y, x: (y,), "exp({})"),
    ("log", 1, np.log, lambda y, x: (1.0 / x,), "log({})"),
    ("sqrt", 1, np.sqrt, lambda y, x: (0.5 / y,), "sqrt({})"),
    ("sin", 1, np.sin, lambda y, x: (np.cos(x),), "sin({})"),
    ("cos", 1, np.cos, lambda y, x: (-np.sin(x),), "cos({})"),
    # Binary ops.
    ("add", 2, np.add, lambda y, a, b: (np.ones_like(y), np.ones_like(y)), "{} + {}"),
    ("sub", 2, np.subtract, lambda y, a, b: (np.ones_like(y), -np.ones_like(y)), "{} - {}"),
    ("mul", 2, np.multiply, lambda y, a, b: (b, a), "{} * {}"),
    ("div", 2, np.divide, lambda y, a, b: (1.0 / b, -y / b), "{} / {}"),
    ("pow", 2, np.power, _pow_derivatives, "{} ** {}"),
    ("maximum", 2, np.maximum, lambda y, a, b: (_share(a > b, a == b), _share(b > a, a == b)), "maximum({}, {})"),
    ("minimum", 2, np.minimum, lambda y, a, b: (_share(a < b, a == b), _share(b < a, a == b)), "minimum({}, {})"),
    # Ternary op.
    ("where", 3, lambda c, a, b: np.where(c > 0, a, b),
     lambda y, c, a, b: (np.zeros_like(y), (c > 0) * 1.0, 1.0 - (c > 0)), "where({} > 0, {}, {})"),
    # n-ary ops.
    ("sum", -1, lambda x: np.sum(x, axis=0), lambda y, x: np.ones_like(x), "sum({})"),
    ("prod", -1, lambda x: np.prod(x, axis=0), _prod_derivatives, "prod({})"),
    ("max", -1, lambda x: np.max(x, axis=0), _max_derivatives, "max({})"),
    ("logsumexp", -1, _logsumexp, lambda y, x: np.exp(x - y), "logsumexp({})"),
]


def _quiet(function):
    """The same function in float64 and without numpy's warnings."""
    def quiet(*args):
        with np.errstate(all="ignore"):
            return function(*(np.asarray(arg, dtype=np.float64) for arg in args))
    return quiet


BY_CODE: tuple[Op, ...] = tuple(Op(code, name, arity, _quiet(value), _quiet(derivatives), symbol)
                                for code, (name, arity, value, derivatives, symbol) in enumerate(_TABLE))
OPS: dict[str, Op] = {op.name: op for op in BY_CODE}
ACTIVATIONS: tuple[str, ...] = ("identity", "relu", "leaky_relu", "sigmoid", "tanh")
