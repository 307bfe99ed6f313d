"""Functions of nodes, such as `exp`. Each adds the op of that name to the graph of its arguments."""

from __future__ import annotations

from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import OPS
from mlgraph.graph.views import Node

__all__ = [
    "arccos",
    "arcsin",
    "arctan",
    "cos",
    "cosh",
    "elu",
    "erf",
    "exp",
    "expm1",
    "floor",
    "gelu",
    "leaky_relu",
    "log",
    "log1p",
    "logsumexp",
    "max",
    "maximum",
    "minimum",
    "prod",
    "relu",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinh",
    "softmax",
    "softplus",
    "sqrt",
    "sum",
    "tanh",
    "where",
]


def _graph(name: str, arguments: tuple[Node | float, ...]) -> Graph:
    for argument in arguments:
        if isinstance(argument, Node):
            return argument.graph
    got = ", ".join(type(a).__name__ for a in arguments[:5]) or "nothing"
    takes_any = name == "softmax" or OPS[name].arity < 0
    hint = f"; write {name}(*nodes)" if takes_any and got in ("list", "tuple") else ""
    raise TypeError(f"{name}: expected at least one node, got {got}{hint}")


def _apply(name: str, *arguments: Node | float) -> Node:
    return _graph(name, arguments).add_operation(name, *arguments)


def exp(x: Node) -> Node:
    """Exponential of a node."""
    return _apply("exp", x)


def log(x: Node) -> Node:
    """Natural logarithm of a node."""
    return _apply("log", x)


def expm1(x: Node) -> Node:
    """exp(x) - 1, accurate also near 0."""
    return _apply("expm1", x)


def log1p(x: Node) -> Node:
    """log(1 + x), accurate also near 0."""
    return _apply("log1p", x)


def sqrt(x: Node) -> Node:
    """Square root of a node."""
    return _apply("sqrt", x)


def sin(x: Node) -> Node:
    """Sine of a node, in radians."""
    return _apply("sin", x)


def cos(x: Node) -> Node:
    """Cosine of a node, in radians."""
    return _apply("cos", x)


def arcsin(x: Node) -> Node:
    """Inverse sine of a node; NaN outside of -1 to 1."""
    return _apply("arcsin", x)


def arccos(x: Node) -> Node:
    """Inverse cosine of a node; NaN outside of -1 to 1."""
    return _apply("arccos", x)


def arctan(x: Node) -> Node:
    """Inverse tangent of a node, between -pi / 2 and pi / 2."""
    return _apply("arctan", x)


def sinh(x: Node) -> Node:
    """Hyperbolic sine of a node."""
    return _apply("sinh", x)


def cosh(x: Node) -> Node:
    """Hyperbolic cosine of a node."""
    return _apply("cosh", x)


def tanh(x: Node) -> Node:
    """Hyperbolic tangent of a node."""
    return _apply("tanh", x)


def sigmoid(x: Node) -> Node:
    """1 / (1 + exp(-x))."""
    return _apply("sigmoid", x)


def relu(x: Node) -> Node:
    """max(x, 0); at 0 its derivative is 0."""
    return _apply("relu", x)


def leaky_relu(x: Node) -> Node:
    """x where x > 0, else 0.01 x."""
    return _apply("leaky_relu", x)


def elu(x: Node) -> Node:
    """x where x > 0, else exp(x) - 1."""
    return _apply("elu", x)


def gelu(x: Node) -> Node:
    """x P(X < x) for a normally distributed X: x (1 + erf(x / sqrt(2))) / 2, not its approximation by tanh."""
    return _apply("gelu", x)


def silu(x: Node) -> Node:
    """x sigmoid(x), also called swish."""
    return _apply("silu", x)


def erf(x: Node) -> Node:
    """Error function of a node."""
    return _apply("erf", x)


def floor(x: Node) -> Node:
    """Largest whole number up to x; its derivative is 0."""
    return _apply("floor", x)


def sign(x: Node) -> Node:
    """-1, 0 or 1 with the sign of x; its derivative is 0."""
    return _apply("sign", x)


def softplus(x: Node) -> Node:
    """log(1 + exp(x))."""
    return _apply("softplus", x)


def maximum(a: Node | float, b: Node | float) -> Node:
    """The larger of two nodes; if they are equal, each gets half of the derivative."""
    return _apply("maximum", a, b)


def minimum(a: Node | float, b: Node | float) -> Node:
    """The smaller of two nodes; if they are equal, each gets half of the derivative."""
    return _apply("minimum", a, b)


def where(condition: Node | float, a: Node | float, b: Node | float) -> Node:
    """A node that is `a` in examples where condition > 0 and `b` in the others.

    The derivative with respect to the condition and to the branch that is not taken is 0. If the
    derivative inside that branch is infinite or NaN, the product with 0 is NaN, as for ``where(x,
    sqrt(x), 0)`` at 0 and below; write ``where(x, sqrt(where(x, x, 1)), 0)`` instead. Derivatives
    are not propagated through a condition. The weights of a neuron that only conditions depend on
    still have the gradient 0 times the values of its sources, which is NaN if one of these is not
    finite.
    """
    if isinstance(condition, bool):
        raise TypeError(
            f"where: the condition must be a node, got {condition}; x == y compares nodes, not their values"
        )
    return _apply("where", condition, a, b)


def sum(*nodes: Node | float) -> Node:
    """Sum of any number of nodes."""
    return _apply("sum", *nodes)


def prod(*nodes: Node | float) -> Node:
    """Product of any number of nodes."""
    return _apply("prod", *nodes)


def max(*nodes: Node | float) -> Node:
    """Largest of any number of nodes; equal largest nodes share the derivative equally."""
    return _apply("max", *nodes)


def logsumexp(*nodes: Node | float) -> Node:
    """Log of the sum of the exponentials, finite for finite nodes."""
    return _apply("logsumexp", *nodes)


def softmax(*nodes: Node | float) -> list[Node]:
    """Probabilities of any number of nodes, which add up to 1; see `Graph.add_softmax`."""
    return _graph("softmax", nodes).add_softmax(nodes)
