"""Formulas of nodes as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlgraph._support.checks import plain
from mlgraph.graph import ops
from mlgraph.graph.ops import CONSTANT, NEURON, WEIGHT
from mlgraph.graph.views import Neuron, Node

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph

LONGEST = 400
"""Number of characters after which a formula is truncated."""

_WRITTEN = {
    "add": (1, "", " + "),
    "sub": (1, "", " - "),
    "mul": (2, "", " * "),
    "div": (2, "", " / "),
    "neg": (3, "-", ""),
    "pow": (4, "", " ** "),
}
"""Ops written as operators: precedence, and the text before and between their arguments."""


def formula(node: Node, longest: int = LONGEST) -> str:
    """The formula of a node in terms of inputs, parameters, constants and other neurons, which appear by name.

    ``weight(a, b)`` is the weight of the edge from a to b.
    Terms that begin after `longest` characters are replaced by ``...``.
    """
    graph = node.graph
    parts: list[str] = []
    length, is_cut = 0, False
    # A stack of what remains to be written: text, or a node with the precedence of the operator
    # around it.
    todo: list[str | tuple[int, int]] = [(node._checked_id, 0)]
    while todo:
        item = todo.pop()
        if length >= longest and item not in ("", ")"):
            if not is_cut:
                parts.append("...")
            is_cut = True
            continue
        if isinstance(item, tuple):
            i, around = item
            code = graph._code[i]
            if ops.is_operation(code):
                todo.extend(reversed(_pieces(node, i, code, around)))
                continue
            if code == CONSTANT:
                item = f"{graph[i].value:.6g}"
                item = f"({item})" if item.startswith("-") and around else item
            elif code == WEIGHT:
                item = f"weight({', '.join(_name(graph, end, longest) for end in graph.sources_of(i).tolist())})"
            elif code >= NEURON and i == node.id:
                item = _neuron(Neuron(graph, i), longest)
            else:
                item = _name(graph, i, longest)
        if item:
            parts.append(item)
        length += len(item)
    return "".join(parts)


def _pieces(node: Node, i: int, code: int, around: int) -> list[str | tuple[int, int]]:
    op = ops.BY_CODE[code]
    sources = node.graph.sources_of(i).tolist()
    if op.name not in _WRITTEN:
        pieces: list[str | tuple[int, int]] = [f"{op.name}("]
        for k, source in enumerate(sources[:100]):
            pieces += [", " if k else "", (source, 0), " > 0" if k == 0 and op.name == "where" else ""]
        return [*pieces, ", ...", ")"] if len(sources) > 100 else [*pieces, ")"]
    precedence, before, between = _WRITTEN[op.name]
    pieces = ["(" if precedence < around else "", before]
    for k, source in enumerate(sources):
        # At equal precedence, parentheses are needed on the side on which the operator does not
        # associate.
        needs = precedence + (op.arity == 1 or (op.name == "pow") == (k == 0))
        pieces += [between if k else "", (source, needs)]
    return [*pieces, ")" if precedence < around else ""]


def _name(graph: Graph, node: int, longest: int) -> str:
    name = plain(graph[node].name)
    return name if len(name) <= longest else f"{name[:longest]}..."


def _neuron(neuron: Neuron, longest: int) -> str:
    graph, sources = neuron.graph, neuron.graph.sources_of(neuron.id)
    if graph.has_bare and not graph.live()[neuron.id]:
        return "0"  # a neuron that is not live is 0, whatever its bias
    shown = [f"{w:.4g}*{_name(graph, int(i), longest)}" for i, w in zip(sources[:8], neuron.weights[:8], strict=True)]
    if neuron.bias is not None:
        shown.append(f"{neuron.bias:.4g}")
    if len(sources) > 8:
        shown.insert(8, f"... {len(sources) - 8} more")
    terms = [f" - {term[1:]}" if term[0] == "-" else f" + {term}" for term in shown[1:]]
    return f"{neuron.activation}({''.join([shown[0], *terms])})"
