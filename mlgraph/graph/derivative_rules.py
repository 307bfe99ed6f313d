"""Derivatives of ops as nodes: how the adjoint of a node becomes terms of those of its arguments.

`ops` has the same derivatives as numbers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import CONSTANT, LEAK, OPS, WEIGHT


class Term(NamedTuple):
    """A factor times a node; times 1 if there is no node."""

    factor: float
    node: int | None = None


ONE = Term(1.0)


class Maker:
    """Adds operations; what is trivially simple is simplified, and no operation is added twice."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._made: dict[tuple[float, ...], int] = {
            (WEIGHT, *graph._source_list(node)): node for node in np.flatnonzero(graph.codes == WEIGHT).tolist()
        }

    def constant(self, value: float) -> int:
        """A constant's id."""
        key = math.copysign(1.0, value), value
        if key not in self._made:
            self._made[key] = self.graph.add_constant(value).id
        return self._made[key]

    def weight(self, source: int, target: int) -> int:
        """The id of the weight node of an edge."""
        return self._append(WEIGHT, source, target)

    def op(self, name: str, *arguments: int | float) -> int:
        """An operation of nodes and numbers."""
        ids = [self.constant(a) if isinstance(a, float) else a for a in arguments]
        return self._append(OPS[name].code, *ids)

    def _append(self, *key: int) -> int:
        if key not in self._made:
            self._made[key] = self.graph._append(key[0], key[1:])
        return self._made[key]

    def term(self, node: int) -> Term:
        """A node as a term: a finite constant as a factor, and a negation or a product with a constant as its parts."""
        code, graph = self.graph._code[node], self.graph
        if code == CONSTANT:
            value = _rounded(graph.constants[graph._data[node]])
            return Term(value) if math.isfinite(value) else Term(1.0, node)
        if code == OPS["neg"].code:
            inner = self.term(graph._source_list(node)[0])
            return inner._replace(factor=-inner.factor)
        if code == OPS["mul"].code:
            a, b = graph._source_list(node)
            if graph._code[a] == CONSTANT and graph._code[b] != CONSTANT:
                return self.times(self.term(a), Term(1.0, b))
        return Term(1.0, node)

    def node(self, term: Term) -> int:
        """The id of a node with the value of a term."""
        factor, node = term
        if node is None:
            return self.constant(factor)
        if factor == 1:
            return node
        return self.op("neg", node) if factor == -1 else self.op("mul", factor, node)

    def times(self, a: Term, b: Term) -> Term:
        """The product of two terms."""
        factor = _product(a.factor, b.factor)
        if factor is None:
            return Term(1.0, self.op("mul", self.node(a), self.node(b)))
        if a.node is None or b.node is None:
            return Term(factor, a.node if b.node is None else b.node)
        return Term(factor, self.op("mul", a.node, b.node))

    def over(self, a: Term, b: Term) -> Term:
        """The quotient of two terms."""
        factor = _product(a.factor, 1 / b.factor) if b.factor else None
        if factor is None:
            return Term(1.0, self.op("div", self.node(a), self.node(b)))
        if b.node is None:
            return Term(factor, a.node)
        if a.node is None:
            sign = math.copysign(1.0, factor)
            return Term(sign, self.op("div", sign * factor, b.node))
        return Term(factor, self.op("div", a.node, b.node))

    def total(self, terms: Sequence[Term]) -> Term:
        """The sum of some terms; equal nodes are collected."""
        factors: dict[int | None, float] = defaultdict(float)
        apart = []  # what would overflow as one factor
        for factor, node in terms:
            collected = _rounded(factors[node] + factor)
            if math.isfinite(collected):
                factors[node] = collected
            else:
                apart.append(Term(factor, node))
        left = [Term(factor, node) for node, factor in factors.items() if factor] + apart
        if len(left) < 2:
            return left[0] if left else Term(0.0)
        left.sort(key=lambda term: term.factor < 0)  # a - b rather than -b + a
        if len(left) > 2:
            return Term(1.0, self.op("sum", *map(self.node, left)))
        (a, b) = left
        if a.factor < 0:
            return Term(-1.0, self.op("add", self.node(_minus(a)), self.node(_minus(b))))
        if b.factor < 0:
            return Term(1.0, self.op("sub", self.node(a), self.node(_minus(b))))
        return Term(1.0, self.op("add", self.node(a), self.node(b)))


def _minus(term: Term) -> Term:
    return term._replace(factor=-term.factor)


def _rounded(value: float) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(value))


def _product(a: float, b: float) -> float | None:
    """The product of two factors in float32; None if it would overflow or underflow."""
    product = _rounded(a * b)
    return product if math.isfinite(product) and (abs(product) >= 2.0**-126 or a * b == 0) else None


Rule = Callable[[Maker, Term, int, list[int], list[bool]], Sequence[Term | None]]
"""The terms for the arguments of a node: from its adjoint, its id, those of its arguments, and which are wanted.

The rules of activations read the value of the node but not its argument, which neurons do not have.
"""


def _where(m: Maker, *arguments: int | float) -> Term:
    return Term(1.0, m.op("where", *arguments))


def _one_minus(m: Maker, node: int) -> Term:
    return Term(1.0, m.op("sub", 1.0, node))


def _scaled(factor: Callable[[Maker, int, int], Term]) -> Rule:
    """The rule of a unary op whose derivative is ``factor(maker, y, x)``."""
    return lambda m, d, y, x, wanted: [m.times(d, factor(m, y, x[0]))]


def _abs(m: Maker, y: int, x: int) -> Term:
    return _where(m, x, 1.0, m.op("where", m.op("neg", x), -1.0, 0.0))


def _gaussian(m: Maker, factor: float, x: int) -> int:
    """exp(-factor x^2)."""
    return m.op("exp", m.node(Term(-factor, m.op("mul", x, x))))


def _erf(m: Maker, y: int, x: int) -> Term:
    return Term(_rounded(2 / math.sqrt(math.pi)), _gaussian(m, 1.0, x))


def _gelu(m: Maker, y: int, x: int) -> Term:
    below = m.op("mul", 0.5, m.op("erf", m.op("mul", _rounded(math.sqrt(0.5)), x)))
    density = m.op("mul", _rounded(1 / math.sqrt(2 * math.pi)), m.op("mul", x, _gaussian(m, 0.5, x)))
    return Term(1.0, m.op("sum", 0.5, below, density))


def softplus_of_output(m: Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term]:
    """The rule of softplus neurons: 1 - exp(-y)."""
    return [m.times(d, Term(-1.0, m.op("expm1", m.op("neg", y))))]


def _silu(m: Maker, y: int, x: int) -> Term:
    others = m.op("mul", x, m.op("sigmoid", m.op("neg", x)))
    return Term(1.0, m.op("mul", m.op("sigmoid", x), m.op("add", 1.0, others)))


def _root(m: Maker, x: int) -> int:
    """The root of 1 - x^2, for arcsin and arccos."""
    return m.op("sqrt", m.op("mul", m.op("sub", 1.0, x), m.op("add", 1.0, x)))


def _div(m: Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
    _a, b = x
    below = m.term(b)
    return [
        m.over(d, below) if wanted[0] else None,
        _minus(m.over(m.times(d, Term(1.0, y)), below)) if wanted[1] else None,
    ]


def _pow(m: Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
    a, b = x
    of_base = of_exponent = None
    exponent = m.term(b)
    if wanted[0] and exponent.node is None:
        lower = _rounded(exponent.factor - 1)
        power = ONE if lower == 0 else Term(1.0, a if lower == 1 else m.op("pow", a, lower))
        of_base = m.times(d, m.times(exponent, power))
    elif wanted[0]:
        slope = m.op("mul", b, m.op("pow", a, m.op("sub", b, 1.0)))
        # At a = b = 0 it is 0, not 0 times infinity.
        is_defined = m.op("add", m.op("abs", a), m.op("abs", b))
        of_base = m.times(d, _where(m, is_defined, slope, m.op("mul", a, b)))
    if wanted[1]:
        base = m.term(a)
        if base.node is None and base.factor > 0:
            of_exponent = m.times(d, m.times(Term(_rounded(math.log(base.factor))), Term(1.0, y)))
        else:
            # At a = 0 < b it is y log(1) = 0. Outside of the logarithm, the choice would have NaN as its derivative.
            is_zero = m.op("where", m.op("abs", a), 0.0, b)
            of_exponent = m.times(d, Term(1.0, m.op("mul", y, m.op("log", m.op("where", is_zero, 1.0, a)))))
    return [of_base, of_exponent]


def _greater(first: int) -> Rule:
    """The rule of maximum (0) or minimum (1), where the argument with the number `first` gets all if it is greater."""

    def rule(m: Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
        a, b = x if first == 0 else x[::-1]
        wins = m.op("where", m.op("sub", a, b), 1.0, m.op("where", m.op("sub", b, a), 0.0, 0.5))
        terms = [
            m.times(d, Term(1.0, wins)) if wanted[0] else None,
            m.times(d, _one_minus(m, wins)) if wanted[1] else None,
        ]
        return terms

    return rule


def _where_rule(m: Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
    condition, adjoint = x[0], m.node(d)
    return [
        None,
        _where(m, condition, adjoint, 0.0) if wanted[1] else None,
        _where(m, condition, 0.0, adjoint) if wanted[2] else None,
    ]


def _prod(m: Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
    factors = [m.term(node) for node in x]
    before, after = [ONE], [ONE]
    for one, other in zip(factors[:-1], factors[:0:-1], strict=True):
        before.append(m.times(before[-1], one))
        after.append(m.times(other, after[-1]))
    return [
        m.times(d, m.times(one, other)) if want else None
        for one, other, want in zip(before, after[::-1], wanted, strict=True)
    ]


def _max(m: Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
    if len(x) == 1:
        return [d]
    below = [m.op("sub", y, node) for node in x]
    greatest = m.op("sum", *(m.op("where", b, 0.0, 1.0) for b in below))
    share = m.node(m.over(d, Term(1.0, greatest)))
    return [_where(m, b, 0.0, share) if want else None for b, want in zip(below, wanted, strict=True)]


def _logsumexp(m: Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
    return [
        m.times(d, Term(1.0, m.op("exp", m.op("sub", node, y)))) if want else None
        for node, want in zip(x, wanted, strict=True)
    ]


RULES: dict[str, Rule] = {
    "identity": lambda m, d, y, x, wanted: [d],
    "relu": _scaled(lambda m, y, x: _where(m, y, 1.0, 0.0)),
    "leaky_relu": _scaled(lambda m, y, x: _where(m, y, 1.0, LEAK)),
    "sigmoid": _scaled(lambda m, y, x: m.times(Term(1.0, y), _one_minus(m, y))),
    "tanh": _scaled(lambda m, y, x: _one_minus(m, m.op("mul", y, y))),
    "softplus": _scaled(lambda m, y, x: Term(1.0, m.op("sigmoid", x))),
    "neg": lambda m, d, y, x, wanted: [_minus(d)],
    "abs": _scaled(_abs),
    "exp": _scaled(lambda m, y, x: Term(1.0, y)),
    "log": lambda m, d, y, x, wanted: [m.over(d, m.term(x[0]))],
    "sqrt": lambda m, d, y, x, wanted: [m.over(m.times(Term(0.5), d), Term(1.0, y))],
    "sin": _scaled(lambda m, y, x: Term(1.0, m.op("cos", x))),
    "cos": _scaled(lambda m, y, x: Term(-1.0, m.op("sin", x))),
    "add": lambda m, d, y, x, wanted: [d, d],
    "sub": lambda m, d, y, x, wanted: [d, _minus(d)],
    "mul": lambda m, d, y, x, wanted: [
        m.times(d, m.term(other)) if want else None for other, want in zip(x[::-1], wanted, strict=True)
    ],
    "div": _div,
    "pow": _pow,
    "maximum": _greater(0),
    "minimum": _greater(1),
    "where": _where_rule,
    "sum": lambda m, d, y, x, wanted: [d] * len(x),
    "prod": _prod,
    "max": _max,
    "logsumexp": _logsumexp,
    "elu": _scaled(lambda m, y, x: _where(m, y, 1.0, m.op("add", y, 1.0))),
    "gelu": _scaled(_gelu),
    "silu": _scaled(_silu),
    "erf": _scaled(_erf),
    "expm1": _scaled(lambda m, y, x: Term(1.0, m.op("exp", x))),
    "log1p": lambda m, d, y, x, wanted: [m.over(d, Term(1.0, m.op("add", 1.0, x[0])))],
    "sinh": _scaled(lambda m, y, x: Term(1.0, m.op("cosh", x))),
    "cosh": _scaled(lambda m, y, x: Term(1.0, m.op("sinh", x))),
    "arctan": lambda m, d, y, x, wanted: [m.over(d, Term(1.0, m.op("add", 1.0, m.op("mul", x[0], x[0]))))],
    "arcsin": lambda m, d, y, x, wanted: [m.over(d, Term(1.0, _root(m, x[0])))],
    "arccos": lambda m, d, y, x, wanted: [_minus(m.over(d, Term(1.0, _root(m, x[0]))))],
    "floor": lambda m, d, y, x, wanted: [None],
    "sign": lambda m, d, y, x, wanted: [None],
}
"""The rule of each op; `ops` has their derivatives as numbers."""
