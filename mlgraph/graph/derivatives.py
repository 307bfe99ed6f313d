"""Derivatives of nodes as nodes of the same graph.

`grad` walks from a node back to what it is derived with respect to, in reverse topological order. It
makes one node for the adjoint of each node on the way, from which `_RULES` makes the terms for the
node's arguments. The table `ops` says what the rules must equal, and `grad` agrees with `vjp` also
where it leaves a choice, with these exceptions:

- For NaN, maximum, minimum and max share the derivative as if their arguments were equal; `vjp` gives 0.
- The derivative of pow with respect to the base is NaN, not 0, if the base is NaN and a variable
  exponent is 0, and it has the wrong sign if the base is negative and the exponent 2**24 or more.
- The derivative of log1p below -1 is 1 / (1 + x), not NaN as its value; those of gelu and silu are NaN at infinity.
- A term that is a constant 0 is left out, even where `vjp` multiplies 0 by an infinity.

The derivative of a neuron reads its weights through weight nodes, so it is always that of the present
weights. A weight node is one of the edge's weight, and 0 once the edge is cut: the derivative stays
right while a network is pruned. A new edge, or another activation, would need other nodes, so both are
errors for the neurons in `NodeTable.differentiated`.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, overload

import numpy as np

from mlgraph._support.checks import one_of
from mlgraph.graph.edits import mark_differentiated
from mlgraph.graph.graph import Graph, checked_graph
from mlgraph.graph.ids import ids_of, is_iterable
from mlgraph.graph.nodes import adds_nodes
from mlgraph.graph.ops import BY_CODE, CONSTANT, LEAK, NEURON, OPS, WEIGHT
from mlgraph.graph.topology import topological
from mlgraph.graph.views import Edge, Neuron, Node, name_of

__all__ = ["grad"]


@overload
def grad(node: Node, wrt: Node | Edge, *, of: str = "value") -> Node: ...
@overload
def grad(node: Node, wrt: Iterable[Node | Edge], *, of: str = "value") -> list[Node]: ...
def grad(node: Node, wrt: Node | Edge | Iterable[Node | Edge], *, of: str = "value") -> Node | list[Node]:
    """Derivative of a node, example by example, as nodes of the same graph.

    The derivative can be derived again, read by other nodes, trained as a loss or a part of it, and
    saved. It follows the weights of neurons as they are trained, assigned or cut.

    Parameters
    ----------
    node : Node
        What to derive.
    wrt : Node or Edge, or sequence of them
        With respect to what: the value of any node, or the weight of an edge.
    of : str
        "value", or "bias" to derive with respect to the biases of the neurons `wrt`.

    Returns
    -------
    Node, or list of Node
        A list if `wrt` is a sequence. A derivative that depends on nothing is a constant, 0 where no
        path leads to `node`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as documented; nothing has been added.

    Notes
    -----
    Conventions are those of `Function.vjp`, such as 0 for relu at 0. Nodes that `node` depends on
    may lose edges later, but not gain any, and their activations are fixed.

    A neuron of which a derivative reads weights is computed edge by edge wherever the derivative is
    needed. This takes about 1 kB for each edge and 32 examples, so it suits networks of some
    thousand edges. Layers with dropout cannot be trained in such a loss.

    Examples
    --------
    >>> g = mlgraph.Graph()
    >>> x = g.add_input("x")
    >>> slope = mlgraph.grad(x**3, x)
    >>> print(slope, "and", mlgraph.grad(slope, x))
    3 * x ** 2 and 6 * x

    A gradient penalty keeps a network's slope near 1:

    >>> target = g.add_input("target")
    >>> hidden = [g[i] for i in g.add_neurons([x], "tanh", n=8)]
    >>> y = g.add_neuron(hidden)
    >>> slope = mlgraph.grad(y, x)
    >>> loss = (y - target) ** 2 + 0.1 * (slope - 1) ** 2
    >>> model = mlgraph.Model(g, y, loss=loss)
    """
    if not isinstance(node, Node):
        raise TypeError(f"grad: expected a node, got {type(node).__name__}")
    of = one_of("of", of, ("value", "bias"))
    several = not isinstance(wrt, Node | Edge) and is_iterable(wrt)
    things = list(wrt) if several else [wrt]  # type: ignore[arg-type]
    graph = checked_graph(node.graph)
    with graph.lock:
        (of_node,) = ids_of(graph, "grad", [node])
        made = _grad(graph, of_node, [_key(graph, thing, of) for thing in things])
    return made if several else made[0]


Key = tuple[int, int]
"""What to derive with respect to: (node, VALUE), (neuron, BIAS), or (neuron, its source) for a weight."""

VALUE, BIAS = -1, -2


def _key(graph: Graph, thing: object, of: str) -> Key:
    if of == "bias":
        if not isinstance(thing, Neuron):
            raise TypeError(f"wrt: expected neurons, whose biases to derive with respect to, got {_shown(thing)}")
        if thing.bias is None:
            raise ValueError(f"wrt: {thing!r} has no bias")
        return ids_of(graph, "wrt", [thing])[0], BIAS
    if isinstance(thing, Edge):
        source, target = ids_of(graph, "wrt", [thing.source, thing.target])
        graph.edge(source, target)  # it may have been cut
        return target, source
    if not isinstance(thing, Node):
        raise TypeError(f"wrt: expected nodes or edges, got {_shown(thing)}")
    return ids_of(graph, "wrt", [thing])[0], VALUE


def _shown(thing: object) -> str:
    return repr(thing) if isinstance(thing, Node | Edge) else type(thing).__name__


@adds_nodes
def _grad(graph: Graph, of_node: int, keys: list[Key]) -> list[Node]:
    _, order = topological(graph, graph.topology(), [of_node])
    walk = _Walk(graph, order.tolist(), keys)
    terms = walk.adjoints(of_node)
    made = [Node(graph, walk.make.node(walk.make.total(terms[key]))) for key in keys]
    through = np.union1d(order[graph.codes[order] >= NEURON], graph.differentiated).astype(np.int32)
    if len(through) > len(graph.differentiated):
        mark_differentiated(graph, array("i", through.tolist()))
    return made


class Term(NamedTuple):
    """A factor times a node; times 1 if there is no node."""

    factor: float
    node: int | None = None


ONE = Term(1.0)


class _Maker:
    """Adds operations; what is trivially simple is simplified, and no operation is added twice."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._made: dict[tuple[float, ...], int] = {}

    def constant(self, value: float) -> int:
        key = math.copysign(1.0, value), value
        if key not in self._made:
            self._made[key] = self.graph.add_constant(value).id
        return self._made[key]

    def weight(self, source: int, target: int) -> int:
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


class _Walk:
    """The reverse walk over the nodes `order`, sources first, to what `keys` name."""

    def __init__(self, graph: Graph, order: list[int], keys: Iterable[Key]) -> None:
        self.graph, self.order, self.keys = graph, order, set(keys)
        self.make = _Maker(graph)
        for node in np.flatnonzero(graph.codes == WEIGHT).tolist():
            self.make._made[(WEIGHT, *graph._source_list(node))] = node
        self._live = graph.live()
        self._has_key = {node for node, _ in self.keys}
        # Whether the derivative has a term for a node: some key is the node or leads to it.
        self.depends = [False] * len(graph)
        for node in order:
            self.depends[node] = (node, VALUE) in self.keys or self._reads_key(node)

    def _reads_key(self, node: int) -> bool:
        code, sources = self.graph._code[node], self.graph._source_list(node)
        if code == WEIGHT:
            return (sources[1], sources[0]) in self.keys
        if code >= NEURON:
            if not self._live[node]:
                return False  # it is 0
            if node in self._has_key and any((node, other) in self.keys for other in (BIAS, *sources)):
                return True
        if code == OPS["where"].code:
            sources = sources[1:]  # nothing passes through the condition
        return any(self.depends[source] for source in sources)

    def adjoints(self, of_node: int) -> dict[Key, list[Term]]:
        """The terms of each key's derivative."""
        make, found = self.make, defaultdict[Key, list[Term]](list)
        found[of_node, VALUE] = [ONE]
        for node in reversed(self.order):
            terms = found[node, VALUE] if self.depends[node] else []
            if not self._reads_key(node) or not terms:
                continue
            adjoint = make.total(terms)
            if (node, VALUE) in self.keys:
                found[node, VALUE] = [adjoint]
            if adjoint.factor == 0:
                continue
            code, sources = self.graph._code[node], self.graph._source_list(node).tolist()
            if code == WEIGHT:
                found[sources[1], sources[0]].append(adjoint)
            elif code >= NEURON:
                self._neuron(node, adjoint, found)
            else:
                rule = _RULES[BY_CODE[code].name]
                wanted = [self.depends[source] for source in sources]
                for source, term in zip(sources, rule(make, adjoint, node, sources, wanted), strict=True):
                    if self.depends[source] and term is not None:
                        found[source, VALUE].append(term)
        return found

    def _neuron(self, node: int, adjoint: Term, found: dict[Key, list[Term]]) -> None:
        make, sources = self.make, self.graph._source_list(node)
        activation = BY_CODE[self.graph._code[node] - NEURON].name
        if activation in ("gelu", "silu"):
            raise ValueError(
                f"grad: the derivative of {name_of(self.graph, node)} needs its weighted sum, which is not a node;"
                f" make it an identity neuron, and use mlgraph.{activation}(neuron) in its place"
            )
        rule = _softplus_of_output if activation == "softplus" else _RULES[activation]
        (delta,) = rule(make, adjoint, node, [node], [True])
        assert delta is not None
        found[node, BIAS].append(delta)
        for source in sources:
            if (node, source) in self.keys:
                found[node, source].append(make.times(delta, make.term(source)))
            if self.depends[source]:
                found[source, VALUE].append(make.times(delta, Term(1.0, make.weight(source, node))))


Rule = Callable[[_Maker, Term, int, list[int], list[bool]], Sequence[Term | None]]
"""The terms for the arguments of a node: from its adjoint, its id, those of its arguments, and which are wanted.

The rules of activations read the value of the node but not its argument, which neurons do not have.
"""


def _where(m: _Maker, *arguments: int | float) -> Term:
    return Term(1.0, m.op("where", *arguments))


def _one_minus(m: _Maker, node: int) -> Term:
    return Term(1.0, m.op("sub", 1.0, node))


def _scaled(factor: Callable[[_Maker, int, int], Term]) -> Rule:
    """The rule of a unary op whose derivative is ``factor(maker, y, x)``."""
    return lambda m, d, y, x, wanted: [m.times(d, factor(m, y, x[0]))]


def _abs(m: _Maker, y: int, x: int) -> Term:
    return _where(m, x, 1.0, m.op("where", m.op("neg", x), -1.0, 0.0))


def _gaussian(m: _Maker, factor: float, x: int) -> int:
    """exp(-factor x^2)."""
    return m.op("exp", m.node(Term(-factor, m.op("mul", x, x))))


def _erf(m: _Maker, y: int, x: int) -> Term:
    return Term(_rounded(2 / math.sqrt(math.pi)), _gaussian(m, 1.0, x))


def _gelu(m: _Maker, y: int, x: int) -> Term:
    below = m.op("mul", 0.5, m.op("erf", m.op("mul", _rounded(math.sqrt(0.5)), x)))
    density = m.op("mul", _rounded(1 / math.sqrt(2 * math.pi)), m.op("mul", x, _gaussian(m, 0.5, x)))
    return Term(1.0, m.op("sum", 0.5, below, density))


def _softplus_of_output(m: _Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term]:
    """The rule of softplus neurons: 1 - exp(-y)."""
    return [m.times(d, Term(-1.0, m.op("expm1", m.op("neg", y))))]


def _silu(m: _Maker, y: int, x: int) -> Term:
    others = m.op("mul", x, m.op("sigmoid", m.op("neg", x)))
    return Term(1.0, m.op("mul", m.op("sigmoid", x), m.op("add", 1.0, others)))


def _root(m: _Maker, x: int) -> int:
    """The root of 1 - x^2, for arcsin and arccos."""
    return m.op("sqrt", m.op("mul", m.op("sub", 1.0, x), m.op("add", 1.0, x)))


def _div(m: _Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
    _a, b = x
    below = m.term(b)
    return [
        m.over(d, below) if wanted[0] else None,
        _minus(m.over(m.times(d, Term(1.0, y)), below)) if wanted[1] else None,
    ]


def _pow(m: _Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
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
            slope = m.op("mul", y, m.op("log", a))
            # At a = 0 < b it is 0, written as 0 a because a may be NaN.
            at_zero = m.op("where", b, m.op("mul", 0.0, a), slope)
            of_exponent = m.times(d, _where(m, m.op("abs", a), slope, at_zero))
    return [of_base, of_exponent]


def _greater(first: int) -> Rule:
    """The rule of maximum (0) or minimum (1), where the argument with the number `first` gets all if it is greater."""

    def rule(m: _Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
        a, b = x if first == 0 else x[::-1]
        wins = m.op("where", m.op("sub", a, b), 1.0, m.op("where", m.op("sub", b, a), 0.0, 0.5))
        terms = [
            m.times(d, Term(1.0, wins)) if wanted[0] else None,
            m.times(d, _one_minus(m, wins)) if wanted[1] else None,
        ]
        return terms

    return rule


def _where_rule(m: _Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
    condition, adjoint = x[0], m.node(d)
    return [
        None,
        _where(m, condition, adjoint, 0.0) if wanted[1] else None,
        _where(m, condition, 0.0, adjoint) if wanted[2] else None,
    ]


def _prod(m: _Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
    factors = [m.term(node) for node in x]
    before, after = [ONE], [ONE]
    for one, other in zip(factors[:-1], factors[:0:-1], strict=True):
        before.append(m.times(before[-1], one))
        after.append(m.times(other, after[-1]))
    return [
        m.times(d, m.times(one, other)) if want else None
        for one, other, want in zip(before, after[::-1], wanted, strict=True)
    ]


def _max(m: _Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
    if len(x) == 1:
        return [d]
    below = [m.op("sub", y, node) for node in x]
    greatest = m.op("sum", *(m.op("where", b, 0.0, 1.0) for b in below))
    share = m.node(m.over(d, Term(1.0, greatest)))
    return [_where(m, b, 0.0, share) if want else None for b, want in zip(below, wanted, strict=True)]


def _logsumexp(m: _Maker, d: Term, y: int, x: list[int], wanted: list[bool]) -> list[Term | None]:
    return [
        m.times(d, Term(1.0, m.op("exp", m.op("sub", node, y)))) if want else None
        for node, want in zip(x, wanted, strict=True)
    ]


_RULES: dict[str, Rule] = {
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
