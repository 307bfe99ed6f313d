"""Pictures of graphs: SVG for notebooks, text for Graphviz. Neither needs more than the standard library and numpy.

Nodes stand in columns by their level, sources to the left of their readers. A large graph is folded: first many nodes of one
kind and level into one box, then all nodes of one kind and level, and finally whole runs of levels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt

from mlgraph._support import checks
from mlgraph._support.array_types import Int32
from mlgraph._support.atomic_files import write_atomically
from mlgraph._support.checks import StrOrBytesPath, real_array, shown, whole
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective, are_none, with_targets
from mlgraph.engine.trace import trace
from mlgraph.graph import ops
from mlgraph.graph.formula import formula
from mlgraph.graph.graph import Graph
from mlgraph.graph.ids import id_of, ids_of, is_iterable
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER
from mlgraph.graph.topology import ancestors, topological
from mlgraph.graph.views import KIND_NAMES, Neuron, Node
from mlgraph.models.running import engine_of
from mlgraph.pictures.svg import ADJOINT, COLOURS, VALUE, Box, Link, printable, to_svg

if TYPE_CHECKING:
    from mlgraph.models.model import Model

__all__ = ["Drawing"]

MOST_BOXES = 60
"""The most boxes that a person can still read."""

MANY = 8
"""More nodes of one kind and level than this become one box; a neuron with more sources shows how many it has."""

FEW = 40
"""Up to so many edges, weights are written beside edges and biases into neurons; beyond, only an edge's width shows it."""

BANDS = 8
"""Boxes for a graph so deep that whole runs of levels are folded."""

LONGEST = 28  # characters of a line in a box
SYMBOLS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "neg": "−", "pow": "^", "identity": "="}


class Options(TypedDict, total=False):
    """The arguments of `Graph.draw` and `Node.draw` beside `x`; `Drawing` documents them."""

    values: Mapping[Any, float] | None
    adjoints: Mapping[Any, float] | None
    limit: int


class Drawing:
    """A picture of a graph, which a notebook shows.

    Edges with positive weights are blue, those with negative weights red; the larger the weight, the wider the edge. In a
    small graph, weights and biases are written, too. ∂ marks an adjoint. Bold boxes are `nodes`, or the ends of a graph: all
    that nothing reads, except inputs, such as targets, and neurons that are not alive.

    Parameters
    ----------
    nodes : Graph, Node or sequence of Node
        A whole graph, or nodes, which are drawn with all that they depend on.
    x : array_like, shape (inputs,), optional
        One example. Each node except constants shows its value and its adjoint: the derivative of the sum of the bold boxes
        with respect to that value. (`Model.draw` shows that of the loss.) uint8 is read as x / 255.
    values, adjoints : mapping from Node or int to float, optional
        Numbers to show in place of those that `x` gives, by node or by its id.
    limit : int
        The most boxes to draw; at least 2.

    Examples
    --------
    >>> g = mlgraph.Graph()
    >>> x = g.input("x")
    >>> print((x * x).draw().to_dot())
    digraph {
      rankdir=LR; node [shape=box, style=filled, fontname="sans-serif"];
      n0 [label="x", tooltip="x", fillcolor="#e3effb", color="#3b7dc4"];
      n1 [label="×", tooltip="x * x", fillcolor="#ffffff", color="#555555", penwidth=2];
      n0 -> n1 [label="2 edges"];
    }
    """

    def __init__(
        self,
        nodes: Graph | Node | Iterable[Node],
        *,
        x: npt.ArrayLike | None = None,
        values: Mapping[Any, float] | None = None,
        adjoints: Mapping[Any, float] | None = None,
        limit: int = MOST_BOXES,
    ) -> None:
        whole("limit", limit, 2)
        if not (isinstance(nodes, Graph | Node) or is_iterable(nodes)) or isinstance(nodes, str):
            raise TypeError(f"nodes: expected a graph or nodes, got {type(nodes).__name__}")
        listed = [nodes] if isinstance(nodes, Node) else [] if isinstance(nodes, Graph) else list(nodes)
        if not listed and not isinstance(nodes, Graph):
            raise ValueError("nodes: expected a graph or at least one node, got none")
        if not all(isinstance(node, Node) for node in listed):
            raise TypeError("nodes: expected nodes, got other things among them")
        self._graph = graph = nodes if isinstance(nodes, Graph) else listed[0].graph
        given = _by_id(graph, "values", values), _by_id(graph, "adjoints", adjoints)
        with graph.lock:
            self._code, topology = graph.codes, graph.topology()
            wanted = np.array(ids_of(graph, "nodes", listed) if listed else range(len(graph)), np.int32)
            level, order = topological(graph, topology, wanted)
            count = topology.counts[order]
            self._source, self._target = topology.sources_of(order), np.repeat(order, count)
            self._place = np.arange(len(self._source)) - np.repeat(np.cumsum(count) - count, count)
            if not listed:
                is_end = (self._code != INPUT) & ((self._code < NEURON) | graph.alive())
                is_end[self._source] = False
                wanted = np.flatnonzero(is_end).astype(np.int32)
            traced = ({}, {}) if x is None else _trace(graph, order, wanted, x)
            self._values, self._adjoints = ({**a, **b} for a, b in zip(traced, given, strict=True))

            # A constant or parameter stands next to what reads it first.
            first, moves = np.full(len(level), np.iinfo(np.int32).max), np.isin(self._code, [CONSTANT, PARAMETER])
            out_of = moves[self._source]
            np.minimum.at(first, self._source[out_of], level[self._target[out_of]])
            late = order[first[order] < np.iinfo(np.int32).max]
            level[late] = first[late] - 1
            self._is_small = len(self._source) <= FEW
            self._boxes = self._fold(order, level, set(wanted.tolist()), limit)
            self._link()

    def __repr__(self) -> str:
        return f"<Drawing of {len(self._boxes)} boxes: save('picture.svg') writes it>"

    # --- folding -----------------------------------------------------------------------------------------------------

    def _fold(self, order: Int32, level: Int32, outputs: set[int], limit: int) -> list[Box]:
        order = np.sort(order)
        keys = np.column_stack([level[order], self._code[order]])
        _, group, size = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        group, place = group.reshape(-1), level
        if len(size) > limit:
            # Inputs, and runs of levels.
            n = min(BANDS, limit - 1)
            keys = np.where(
                self._code[order] == INPUT, 0, 1 + level[order].astype(np.int64) * n // (level[order].max() + 1)
            )
            fold = np.ones(len(order), bool)
            _, group = np.unique(keys, return_inverse=True)
            # Placed by run, not by level: constants of the first run may have the level of inputs that others of it read.
            place = np.zeros(len(level), np.int64)
            place[order] = keys
        elif len(order) > limit:
            largest = np.argsort(-size, kind="stable")
            boxes = len(order) - np.cumsum(size[largest] - 1)
            folded = max(int(np.argmax(boxes <= limit)) + 1, int((size > MANY).sum()))
            fold = np.isin(group, largest[:folded])
        else:
            fold = np.zeros(len(order), bool)
        # Boxes are numbered in the order of their first nodes.
        _, first, number = np.unique(np.where(fold, -1 - group, order), return_index=True, return_inverse=True)
        box = np.argsort(np.argsort(first))[number.reshape(-1)]
        self._box_of = np.full(len(self._code), -1)
        self._box_of[order] = box
        members = np.split(order[np.argsort(box, kind="stable")], np.cumsum(np.bincount(box)))[: len(first)]
        columns = np.unique(np.array([place[m[0]] for m in members], int), return_inverse=True)[1].reshape(-1).tolist()
        return [
            self._box(m, column, bool(outputs.intersection(m.tolist())), level)
            for m, column in zip(members, columns, strict=True)
        ]

    def _box(self, nodes: Int32, column: int, is_output: bool, level: Int32) -> Box:
        graph, codes = self._graph, np.unique(self._code[nodes])
        code, lines = int(codes[0]), []
        colour = _kind(code) if len(codes) == 1 else "operation"
        if len(nodes) == 1:
            node = graph[int(nodes[0])]
            key, tip = f"n{node.id}", formula(node, 200)
            if code >= NEURON:
                title = f"{node.name} {_title(code)}"
                if graph.n_sources(node.id) > MANY:
                    lines.append((f"{graph.n_sources(node.id):,} sources", VALUE))
                if self._is_small and isinstance(node, Neuron) and node.bias is not None:
                    lines.append((f"bias {node.bias:.4g}", VALUE))
            else:
                title = (
                    f"{node.value:.6g}"
                    if code == CONSTANT
                    else node.name
                    if code in (INPUT, PARAMETER)
                    else _title(code)
                )
                if node.id in graph.names and node.name != title:
                    title = f"{node.name} {title}"
        else:
            key = f"n{nodes[0]}_{nodes[-1]}"
            tip = f"{len(nodes):,} nodes, {graph[int(nodes[0])].name} to {graph[int(nodes[-1])].name}"
            title = f"{len(nodes):,} " + (_plural(code) if len(codes) == 1 else "nodes")
            if len(codes) > 1:
                lines.append((f"levels {level[nodes].min():,} to {level[nodes].max():,}", VALUE))
                kinds, size = np.unique(self._code[nodes], return_counts=True)
                for i in np.argsort(-size, kind="stable")[:3].tolist():
                    lines.append((f"{size[i]:,} {_plural(int(kinds[i]))}", VALUE))
            elif code >= NEURON:
                fan_in = np.unique(graph.counts[nodes])
                lines.append((f"{_span(fan_in)} source{'s' * bool(fan_in[-1] != 1)} each", VALUE))
        for numbers, mark, text in ((self._values, "", VALUE), (self._adjoints, "∂ ", ADJOINT)):
            known = np.array([numbers[i] for i in nodes.tolist() if i in numbers])
            if len(known):
                lines.append((mark + _span(known), text))
        lines = [(_cut(line), c) for line, c in lines]
        return Box(nodes, key, colour, _cut(title), lines, tip, column, is_output)

    def _link(self) -> None:
        into, out_of, n = self._box_of[self._target], self._box_of[self._source], len(self._boxes)
        apart = np.flatnonzero(into != out_of)
        pairs, first, count = np.unique((into * n + out_of)[apart], return_index=True, return_counts=True)
        first = apart[first]
        for i in np.lexsort([self._place[first], pairs // n]).tolist():
            target, source = divmod(int(pairs[i]), n)
            weight = None
            node = int(self._target[first[i]])
            if self._code[node] >= NEURON and count[i] == 1:
                weight = float(self._graph.weights_of(node)[self._place[first[i]]])
            self._boxes[target].links.append(Link(source, target, int(count[i]), weight, self._is_small))

    # --- writing -----------------------------------------------------------------------------------------------------

    def to_dot(self) -> str:
        """The picture as text for Graphviz."""
        out = ["digraph {", '  rankdir=LR; node [shape=box, style=filled, fontname="sans-serif"];']
        for box in self._boxes:
            label = "\n".join([box.title, *(text for text, _ in box.lines)])
            fill, border = COLOURS[box.colour]
            out.append(
                f'  {box.key} [label={_quoted(label)}, tooltip={_quoted(box.tip)}, fillcolor="{fill}", color="{border}"'
                f"{', penwidth=2' if box.is_output else ''}];"
            )
        for box in self._boxes:
            for link in box.links:
                label = f" [label={_quoted(link.label)}]" if link.label else ""
                out.append(f"  {self._boxes[link.source].key} -> {box.key}{label};")
        return "\n".join([*out, "}"])

    def to_svg(self) -> str:
        """The picture as SVG."""
        return to_svg(self._boxes)

    def save(self, path: StrOrBytesPath) -> None:
        """Write the picture to one file, all of it or nothing.

        Parameters
        ----------
        path : path
            Its name ends in .svg, or for Graphviz in .dot or .gv.

        Raises
        ------
        ValueError
            If its name ends otherwise.
        OSError
            If the file cannot be written.
        """
        kind = Path(checks.path("path", path)).suffix.lower()
        if kind not in (".svg", ".dot", ".gv"):
            raise ValueError(f"path: expected a name that ends in .svg, .dot or .gv, got {shown(os.fspath(path))}")
        text = self.to_svg() if kind == ".svg" else self.to_dot()
        write_atomically(path, lambda file: file.write(text.encode()))

    def _repr_svg_(self) -> str:
        return self.to_svg()


def draw_model(model: Model, x: npt.ArrayLike | None, y: npt.ArrayLike | None, limit: int | None) -> Drawing:
    """`Model.draw` says what the parameters are."""
    graph = model.graph
    drawn = [graph[i] for i in dict.fromkeys(model.probability_ids or model.sinks)]
    values: dict[int, float] = {}
    adjoints: dict[int, float] = {}
    if x is None and y is not None:
        raise ValueError("y: expected an example x with it, got none")
    if x is not None and y is not None and model.loss == "node" and not are_none(y):
        data, targets, n = real_array("x", x), real_array("y", y), graph.n_inputs
        if data.ndim != 1 or targets.ndim > 1 or data.size + targets.size != n:
            raise ValueError(
                f"x and y: expected {n} numbers, of one example, got shapes {data.shape} and {targets.shape}"
            )
        x, y = with_targets(data[None], targets[None], "")[0], ()
    if x is not None:
        n, example, ends = len(model.output_ids), real_array("x", x), model.kept_ids()
        least, all_of_it = (engine_of(model, nodes).plan.width for nodes in (model.output_ids, None))
        if y is None and example.ndim == 1 and least <= len(example) < all_of_it:
            drawn, ends = model.outputs, np.array(model.output_ids, np.int32)  # as `Model.trace`: no targets, no loss
            example = example[None]
        else:
            example = _example(graph, example)
        if y is not None and model.loss != "node" and (shape := real_array("y", y).shape) not in ((), (n,)):
            raise ValueError(f"y: expected the label or the targets of one example, of shape () or ({n},), got {shape}")
        order = topological(graph, graph.topology(), ends)[1]
        order = order[graph.codes[order] != CONSTANT]
        if len(order):
            answers: Any = y if y is None or model.loss == "node" else [y]
            found = model.trace(example, answers, order, n_threads=1)
            values = dict(zip(order.tolist(), found.values[0].tolist(), strict=True))
            if (
                found.adjoints is not None
            ):  # of nodes that the loss depends on: it takes the logits, not the probabilities
                reached = ancestors(graph, graph.topology(), model.sinks)
                adjoints = {i: d for i, d in zip(order.tolist(), found.adjoints[0].tolist(), strict=True) if reached[i]}
    return Drawing(drawn, values=values, adjoints=adjoints, limit=MOST_BOXES if limit is None else limit)


# --- text ------------------------------------------------------------------------------------------------------------


def _kind(code: int) -> str:
    return KIND_NAMES.get(min(code, NEURON), "operation")


def _title(code: int) -> str:
    name = ops.BY_CODE[code - NEURON if code >= NEURON else code].name
    return name if code >= NEURON else SYMBOLS.get(name, name)


def _plural(code: int) -> str:
    kind = _kind(code)
    if kind == "neuron":
        return f"{_title(code)} neurons"
    return f"× {ops.BY_CODE[code].name}" if kind == "operation" else f"{kind}s"


def _span(numbers: npt.NDArray[np.generic]) -> str:
    texts = [
        f"{number:,}" if isinstance(number, int) else f"{number:.5g}"
        for number in numbers[np.argsort(numbers)].tolist()
    ]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} … {texts[-1]}"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _quoted(text: str) -> str:
    text = printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


# --- numbers ---------------------------------------------------------------------------------------------------------


def _by_id(graph: Graph, what: str, given: Mapping[Any, float] | None) -> dict[int, float]:
    """The given numbers by the ids of nodes, empty if none are given; errors call them `what`."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(number, Real) for number in given.values()):
        raise TypeError(f"{what}: expected numbers by the ids of nodes, got {shown(given)}")
    return {id_of(graph, node, what): number for node, number in given.items()}


def _example(graph: Graph, x: npt.ArrayLike) -> npt.NDArray[Any]:
    """One example as data of one row."""
    example = real_array("x", x)
    if example.shape != (graph.n_inputs,):
        raise ValueError(f"x: expected one example of shape ({graph.n_inputs},), got {example.shape}")
    return example[None]


def _trace(graph: Graph, order: Int32, outputs: Int32, x: npt.ArrayLike) -> tuple[dict[int, float], dict[int, float]]:
    """Values and adjoints for one example of all nodes except constants, whose boxes show their values anyway."""
    example = _example(graph, x)
    if not len(outputs):
        return {}, {}
    kept, ids = order[graph.codes[order] != CONSTANT], outputs.tolist()
    found = trace(
        graph,
        Examples(example, graph.n_inputs),
        ids,
        kept,
        Objective.cotangent(ids, np.ones((1, len(ids)), np.float32)),
        n_threads=1,
    )
    assert found.adjoints is not None
    numbers = [dict(zip(kept.tolist(), rows[0].tolist(), strict=True)) for rows in (found.values, found.adjoints)]
    return numbers[0], numbers[1]
