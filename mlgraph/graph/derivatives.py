"""Derivatives of nodes as nodes of the same graph.

`grad` walks from a node back to what it is derived with respect to, in reverse topological order. It
makes one node for the adjoint of each node on the way, from which `RULES` make the terms for the
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

from array import array
from collections import defaultdict
from collections.abc import Iterable
from typing import overload

import numpy as np

from mlgraph._support.checks import one_of
from mlgraph.graph.derivative_rules import ONE, RULES, Maker, Term, softplus_of_output
from mlgraph.graph.edits import mark_differentiated
from mlgraph.graph.graph import Graph, checked_graph
from mlgraph.graph.ids import ids_of, is_iterable
from mlgraph.graph.nodes import adds_nodes
from mlgraph.graph.ops import BY_CODE, NEURON, OPS, WEIGHT
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
    Conventions are those of `Function.vjp`, such as 0 for relu at 0; docs/graphs.md compares them with
    JAX. Nodes that `node` depends on may lose edges later, but not gain any, and their activations
    are fixed.

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


class _Walk:
    """The reverse walk over the nodes `order`, sources first, to what `keys` name."""

    def __init__(self, graph: Graph, order: list[int], keys: Iterable[Key]) -> None:
        self.graph, self.order, self.keys = graph, order, set(keys)
        self.make = Maker(graph)
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
                rule = RULES[BY_CODE[code].name]
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
        rule = softplus_of_output if activation == "softplus" else RULES[activation]
        (delta,) = rule(make, adjoint, node, [node], [True])
        assert delta is not None
        found[node, BIAS].append(delta)
        for source in sources:
            if (node, source) in self.keys:
                found[node, source].append(make.times(delta, make.term(source)))
            if self.depends[source]:
                found[source, VALUE].append(make.times(delta, Term(1.0, make.weight(source, node))))
