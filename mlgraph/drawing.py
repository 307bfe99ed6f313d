"""Pictures of graphs: SVG for notebooks, text for Graphviz. Neither needs more than the standard library and numpy.

Nodes stand in columns by their level, sources left of what reads them. A large graph is folded: first the many alike of one
level into one box, then all alike of one level, at last whole runs of levels.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from mlgraph import ops
from mlgraph.checks import real_array, shown, whole
from mlgraph.engine import Examples
from mlgraph.formula import formula
from mlgraph.graph import CONSTANT, INPUT, NEURON, PARAMETER, Graph
from mlgraph.lowering import Ids, gather, topological
from mlgraph.trace import trace
from mlgraph.views import Node

__all__ = ["Drawing", "to_dot"]

Nodes = Graph | Node | Sequence[Node]
Item = tuple[int, int]  # of a column: a box and its column, or a column that edges from that box pass on their way

MOST = 60
"""Boxes that a person still reads."""

MANY = 8
"""More nodes than these that are alike become one box, and a neuron with more sources says how many."""

BANDS = 8
"""Boxes of a graph so deep that whole runs of levels are folded."""

LONGEST = 28  # characters of a line in a box
LINE, PAD, GAP, BETWEEN = 15.0, 8.0, 46.0, 14.0  # heights and distances in pixels
SWEEPS = 12  # over the columns, to have fewer crossings and straighter edges

SYMBOLS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "neg": "−", "pow": "^", "identity": "="}
COLOURS = {  # of a box and of its border
    "input": ("#e3effb", "#3b7dc4"),
    "constant": ("#f2f2f2", "#8c8c8c"),
    "parameter": ("#fdf0d5", "#c98a1b"),
    "neuron": ("#e3f4e7", "#37915a"),
    "operation": ("#ffffff", "#555555"),
}
POSITIVE, NEGATIVE, PLAIN = "#3b7dc4", "#d1495b", "#9a9a9a"  # edges: weights of either sign, no weight
VALUE, ADJOINT = "#333333", "#b5442e"


def to_dot(
    nodes: Nodes,
    *,
    x: npt.ArrayLike | None = None,
    values: Mapping[int, float] | None = None,
    adjoints: Mapping[int, float] | None = None,
    limit: int = MOST,
) -> str:
    """The picture as text for Graphviz; parameters are those of `Drawing`."""
    return Drawing(nodes, x=x, values=values, adjoints=adjoints, limit=limit).to_dot()


@dataclass
class _Box:
    """What is drawn as one: a node, or nodes folded together."""

    nodes: Ids
    key: str
    colour: str
    title: str
    lines: list[tuple[str, str]]  # text, colour
    tip: str
    column: int
    is_output: bool
    links: list[_Link] = field(default_factory=list)  # incoming, in the order of the arguments
    x: float = 0.0
    y: float = 0.0  # of the middle

    @property
    def width(self) -> float:
        bold = 1.15 * _width(self.title)
        return max(24.0, bold, *(_width(text) for text, _ in self.lines)) + 2 * PAD

    @property
    def height(self) -> float:
        return LINE * (1 + len(self.lines)) + PAD


@dataclass
class _Link:
    """Edges from one box to another."""

    source: int
    target: int
    count: int
    weight: float | None  # of a single edge into a neuron


class Drawing:
    """A picture of a graph, which a notebook shows.

    Parameters
    ----------
    nodes : Graph, Node or sequence of Node
        A whole graph, or what these nodes depend on.
    x : array_like, shape (inputs,), optional
        One example: every node but constants shows its value, and its adjoint, the derivative of the sum of `nodes` (of a
        graph: of all nodes that nothing reads). uint8 is read as x / 255.
    values, adjoints : mapping from int to float, optional
        Numbers to show by the id of the node, in place of those that `x` gives.
    limit : int
        The most boxes to draw; at least 2.

    Examples
    --------
    >>> g = Graph()
    >>> x = g.input("x")
    >>> print(Drawing(x * x).to_dot())
    digraph {
      rankdir=LR; node [shape=box, style=filled, fontname="sans-serif"];
      n0 [label="x", tooltip="x", fillcolor="#e3effb", color="#3b7dc4"];
      n1 [label="×", tooltip="x * x", fillcolor="#ffffff", color="#555555", penwidth=2];
      n0 -> n1 [label="2 edges"];
    }
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        x: npt.ArrayLike | None = None,
        values: Mapping[int, float] | None = None,
        adjoints: Mapping[int, float] | None = None,
        limit: int = MOST,
    ) -> None:
        whole("limit", limit, 2)
        if not isinstance(nodes, Graph | Node | Sequence) or isinstance(nodes, str):
            raise TypeError(f"nodes: expected a graph or nodes, came {type(nodes).__name__}")
        listed = [nodes] if isinstance(nodes, Node) else [] if isinstance(nodes, Graph) else list(nodes)
        if not listed and not isinstance(nodes, Graph):
            raise ValueError("nodes: expected a graph or at least one node, came none")
        if not all(isinstance(node, Node) for node in listed):
            raise TypeError("nodes: expected nodes, came other things among them")
        for name, given in (("values", values), ("adjoints", adjoints)):
            if given is not None and not (isinstance(given, Mapping) and all(isinstance(v, Real) for v in given.values())):
                raise TypeError(f"{name}: expected numbers by the ids of nodes, came {shown(given)}")
        self._graph = graph = nodes if isinstance(nodes, Graph) else listed[0].graph
        self._code, count, start = graph.codes, graph.counts, np.array(graph._start, np.int64)
        pool = np.array(graph._pool, np.int32)
        wanted = np.array(graph._ids("nodes", listed) if listed else range(len(graph)), np.int32)
        level, order = topological(graph, start, count, pool, wanted)
        self._source, self._target = gather(pool, start[order], count[order]), np.repeat(order, count[order])
        self._place = np.arange(len(self._source)) - np.repeat(np.cumsum(count[order]) - count[order], count[order])
        if not listed:
            wanted = np.setdiff1d(wanted, self._source)  # what nothing reads
        traced = ({}, {}) if x is None else _trace(graph, order, wanted, x)
        self._values, self._adjoints = ({**a, **(b or {})} for a, b in zip(traced, (values, adjoints), strict=True))

        # A constant or parameter stands next to what reads it first.
        first = np.full(len(level), np.iinfo(np.int32).max)
        np.minimum.at(first, self._source, level[self._target])
        late = order[np.isin(self._code[order], [CONSTANT, PARAMETER]) & (first[order] < np.iinfo(np.int32).max)]
        level[late] = first[late] - 1
        self._boxes = self._fold(order, level, set(wanted.tolist()), limit)
        self._link()

    # --- folding -----------------------------------------------------------------------------------------------------

    def _fold(self, order: Ids, level: Ids, outputs: set[int], limit: int) -> list[_Box]:
        order = np.sort(order)
        keys = np.column_stack([level[order], self._code[order]])
        _, group, size = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        group = group.reshape(-1)
        if len(size) > limit:
            # Inputs, and runs of levels.
            n = min(BANDS, limit - 1)
            keys = np.where(self._code[order] == INPUT, 0, 1 + level[order].astype(np.int64) * n // (level[order].max() + 1))
            fold = np.ones(len(order), bool)
            _, group = np.unique(keys, return_inverse=True)
        elif len(order) > limit:
            largest = np.argsort(-size, kind="stable")
            boxes = len(order) - np.cumsum(size[largest] - 1)
            folded = max(int(np.argmax(boxes <= limit)) + 1, int((size > MANY).sum()))
            fold = np.isin(group, largest[:folded]) & (size[group] > 1)
        else:
            fold = np.zeros(len(order), bool)
        # Boxes are numbered in the order of their first nodes.
        _, first, number = np.unique(np.where(fold, -1 - group, order), return_index=True, return_inverse=True)
        box = np.argsort(np.argsort(first))[number.reshape(-1)]
        self._box_of = np.full(len(self._code), -1)
        self._box_of[order] = box
        members = [order[box == i] for i in range(len(first))]
        columns = np.unique(np.array([level[m].min() for m in members], int), return_inverse=True)[1].reshape(-1).tolist()
        return [
            self._box(m, column, bool(outputs.intersection(m.tolist())), level)
            for m, column in zip(members, columns, strict=True)
        ]

    def _box(self, nodes: Ids, column: int, is_output: bool, level: Ids) -> _Box:
        graph, codes = self._graph, np.unique(self._code[nodes])
        code, lines = int(codes[0]), []
        colour = _kind(code) if len(codes) == 1 else "operation"
        if len(nodes) == 1:
            node = graph[int(nodes[0])]
            key, tip = f"n{node.id}", formula(node, 200)
            if code >= NEURON:
                title = f"{node.name} {_title(code)}"
                if graph._count[node.id] > MANY:
                    lines.append((f"{graph._count[node.id]:,} sources", VALUE))
            else:
                own = {CONSTANT: lambda: f"{node.value:.6g}", INPUT: lambda: node.name, PARAMETER: lambda: node.name}
                title = own.get(code, lambda: _title(code))()
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
                lines.append((f"{_span(fan_in)} sources each", VALUE))
        for numbers, mark, text in ((self._values, "", VALUE), (self._adjoints, "∂ ", ADJOINT)):
            known = np.array([numbers[i] for i in nodes.tolist() if i in numbers])
            if len(known):
                lines.append((mark + _span(known), text))
        lines = [(_cut(line), c) for line, c in lines]
        return _Box(nodes, key, colour, _cut(title), lines, tip, column, is_output)

    def _link(self) -> None:
        pair = np.column_stack([self._box_of[self._target], self._box_of[self._source]])
        apart = pair[:, 0] != pair[:, 1]
        pairs, first, count = np.unique(pair[apart], axis=0, return_index=True, return_counts=True)
        first = np.flatnonzero(apart)[first]
        for i in np.lexsort([self._place[first], pairs[:, 0]]).tolist():
            target, source = pairs[i].tolist()
            weight = None
            node = int(self._target[first[i]])
            if self._code[node] >= NEURON and count[i] == 1:
                weight = float(self._graph.weights_of(node)[self._place[first[i]]])
            self._boxes[target].links.append(_Link(source, target, int(count[i]), weight))

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
                label = f" [label={_quoted(_edges(link))}]" if _edges(link) else ""
                out.append(f"  {self._boxes[link.source].key} -> {box.key}{label};")
        return "\n".join([*out, "}"])

    def to_svg(self) -> str:
        """The picture as SVG."""
        layout = _Layout(self._boxes)
        largest = max((abs(link.weight) for box in self._boxes for link in box.links if link.weight is not None), default=0.0)
        out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{layout.width:.0f}" height="{layout.height:.0f}" '
            f'viewBox="0 0 {layout.width:.0f} {layout.height:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
            *(f'<path d="{path}" fill="none" stroke="{PLAIN}"/>' for path in layout.shared()),
        ]
        for box in self._boxes:
            for i, link in enumerate(box.links):
                out += _svg_link(layout, link, i, len(box.links), largest)
        for box in self._boxes:
            out += _svg_box(box)
        return "\n".join([*out, "</svg>"])

    def _repr_svg_(self) -> str:
        return self.to_svg()


class _Layout:
    """Places of boxes, in columns from left to right; edges past a column go through a gap that they have there."""

    def __init__(self, boxes: list[_Box]) -> None:
        self._boxes = boxes
        last = [box.column for box in boxes]
        for box in boxes:
            for link in box.links:
                last[link.source] = max(last[link.source], box.column - 1)
        self._columns: list[list[Item]] = [[] for _ in range(1 + max((b.column for b in boxes), default=-1))]
        self._links: set[tuple[Item, Item]] = set()
        self.y: dict[Item, float] = {}
        for i, box in enumerate(boxes):
            for column in range(box.column, last[i] + 1):
                self._columns[column].append((i, column))
                if column > box.column:
                    self._links.add(((i, column - 1), (i, column)))
            for link in box.links:
                self._links.add(((link.source, box.column - 1), (i, box.column)))
        self._order()
        self._align()
        self.left: list[float] = []
        self.right: list[float] = []
        x = PAD
        for items in self._columns:
            here = [boxes[i] for i, column in items if boxes[i].column == column]
            labels = [_width(_edges(link)) for box in here for link in box.links]
            # Many edges between two columns need a longer way, or they run upright and side by side.
            x += GAP + max(labels, default=0.0) + min(len(labels), 150) if self.left else 0.0
            self.left.append(x)
            x += max((box.width for box in here), default=0.0)
            self.right.append(x)
            for box in here:
                box.x = (self.left[-1] + x - box.width) / 2
        self.width = x + PAD + 4
        top = min((self.y[i, b.column] - b.height / 2 for i, b in enumerate(boxes)), default=0.0)
        top = min([top, *self.y.values()])
        self.y = {item: y - top + PAD for item, y in self.y.items()}
        for i, box in enumerate(boxes):
            box.y = self.y[i, box.column]
        self.height = max([*self.y.values(), *(b.y + b.height / 2 for b in boxes)], default=0.0) + PAD + 4

    def _neighbours(self) -> tuple[dict[Item, list[Item]], dict[Item, list[Item]]]:
        """Of each item, those left of it and those right of it."""
        left: dict[Item, list[Item]] = {}
        right: dict[Item, list[Item]] = {}
        for a, b in sorted(self._links):
            right.setdefault(a, []).append(b)
            left.setdefault(b, []).append(a)
        return left, right

    def _order(self) -> None:
        """Items of a column in the order of the mean places of their neighbours (Sugiyama et al. 1981)."""
        sides = self._neighbours()
        best, fewest = [list(column) for column in self._columns], self._crossings()
        for sweep in range(SWEEPS):
            near = sides[sweep % 2]
            for column in self._columns if sweep % 2 == 0 else reversed(self._columns):
                place = {item: k / max(1, len(c) - 1) for c in self._columns for k, item in enumerate(c)}
                means = {i: float(np.mean([place[n] for n in near[i]])) if i in near else place[i] for i in column}
                column.sort(key=means.__getitem__)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(column) for column in self._columns], crossings
        self._columns = best

    def _crossings(self) -> int:
        place = {item: k for column in self._columns for k, item in enumerate(column)}
        total = 0
        for c in range(len(self._columns)):
            ends = np.array([(place[a], place[b]) for a, b in self._links if a[1] == c]).reshape(-1, 2)
            before = ends[:, None] < ends[None]
            total += int(np.sum(before[..., 0] & before.transpose(1, 0, 2)[..., 1]))
        return total

    def _align(self) -> None:
        """Each item as near to the mean of its neighbours as the others of its column leave room for."""

        def room(item: Item) -> float:
            box = self._boxes[item[0]]
            return box.height if box.column == item[1] else 0.0

        left, right = self._neighbours()
        heights = []
        for column in self._columns:
            distance = np.array([(room(a) + room(b)) / 2 + BETWEEN for a, b in itertools.pairwise(column)])
            heights.append(distance)
            places = np.concatenate([[0.0], np.cumsum(distance)])
            self.y.update(zip(column, (places - places[-1] / 2).tolist(), strict=True))
        for sweep in range(SWEEPS):
            turns = range(len(self._columns)) if sweep % 2 == 0 else range(len(self._columns) - 1, -1, -1)
            for c in turns:
                wish = []
                for item in self._columns[c]:
                    near = [self.y[n] for n in (*left.get(item, ()), *right.get(item, ()))]
                    wish.append(sum(near) / len(near) if near else self.y[item])
                # Downwards from the first, upwards from the last: both keep the distances, and so does their mean.
                down, up = list(wish), list(wish)
                for k in range(1, len(wish)):
                    down[k] = max(down[k], down[k - 1] + heights[c][k - 1])
                    up[-1 - k] = min(up[-1 - k], up[-k] - heights[c][-k])
                self.y.update(zip(self._columns[c], ((a + b) / 2 for a, b in zip(down, up, strict=True)), strict=True))

    def start(self, box: int, column: int) -> tuple[float, float]:
        """Where edges from a box leave a column."""
        b = self._boxes[box]
        return (b.x + b.width if b.column == column else self.right[column]), self.y[box, column]

    def shared(self) -> Iterator[str]:
        """Paths of edges from a box through the columns that they pass."""
        for (i, column), (j, then) in sorted(self._links):
            if i == j:
                x, y = self.start(i, column)
                yield _curve(x, y, self.left[then], self.y[j, then]) + f" H {self.right[then]:.1f}"


def _svg_box(box: _Box) -> Iterator[str]:
    fill, border = COLOURS[box.colour]
    x, y, width, height = box.x, box.y - box.height / 2, box.width, box.height
    rectangle = f'rx="5" stroke="{border}" stroke-width="{2 if box.is_output else 1}" fill="{fill}"'
    yield f"<g><title>{_xml(box.tip)}</title>"
    if len(box.nodes) > 1:
        yield f'<rect x="{x + 4:.1f}" y="{y + 4:.1f}" width="{width:.1f}" height="{height:.1f}" {rectangle}/>'
    yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {rectangle}/>'
    for k, (text, colour) in enumerate([(box.title, "#000000"), *box.lines]):
        style = 'font-weight="bold"' if k == 0 else 'font-size="11"'
        yield (
            f'<text x="{x + width / 2:.1f}" y="{y + PAD / 2 + LINE * (k + 0.75):.1f}" text-anchor="middle" '
            f'fill="{colour}" {style}>{_xml(text)}</text>'
        )
    yield "</g>"


def _svg_link(layout: _Layout, link: _Link, i: int, n: int, largest: float) -> Iterator[str]:
    box = layout._boxes[link.target]
    x, y = layout.start(link.source, box.column - 1)
    end = box.y + box.height * ((i + 1) / (n + 1) - 0.5)  # the first argument on top
    colour, width, tip = PLAIN, 1.0, _edges(link)
    if link.weight is not None:
        colour, tip = NEGATIVE if link.weight < 0 else POSITIVE, f"weight {link.weight:.4g}"
        width = 0.5 + 2.5 * abs(link.weight) / largest if 0 < largest < np.inf else 1.0
    yield f"<g><title>{_xml(tip)}</title>" if tip else "<g>"
    yield f'<path d="{_curve(x, y, box.x - 5, end)}" fill="none" stroke="{colour}" stroke-width="{width:.2f}"/>'
    yield f'<path d="M {box.x:.1f} {end:.1f} l -6 -3 v 6 z" fill="{colour}"/>'
    if _edges(link):
        # Near its end, where the edges of a box are apart; on white, which is a text of its own: not all know paint-order.
        for style in ('stroke="white" stroke-width="3"', f'fill="{VALUE}"'):
            yield (
                f'<text x="{box.x - 10:.1f}" y="{end - 4:.1f}" text-anchor="end" font-size="11" {style}>'
                f"{_xml(_edges(link))}</text>"
            )
    yield "</g>"


def _curve(x0: float, y0: float, x1: float, y1: float) -> str:
    middle = (x0 + x1) / 2
    return f"M {x0:.1f} {y0:.1f} C {middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"


# --- text ------------------------------------------------------------------------------------------------------------


def _kind(code: int) -> str:
    if code >= NEURON:
        return "neuron"
    return {INPUT: "input", CONSTANT: "constant", PARAMETER: "parameter"}.get(code, "operation")


def _title(code: int) -> str:
    name = ops.BY_CODE[code - NEURON if code >= NEURON else code].name
    return name if code >= NEURON else SYMBOLS.get(name, name)


def _plural(code: int) -> str:
    kind = _kind(code)
    if kind == "neuron":
        return f"{_title(code)} neurons"
    return f"× {ops.BY_CODE[code].name}" if kind == "operation" else f"{kind}s"


def _span(numbers: npt.NDArray[np.generic]) -> str:
    texts = [f"{number:,}" if isinstance(number, int) else f"{number:.5g}" for number in numbers[np.argsort(numbers)].tolist()]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} … {texts[-1]}"


def _edges(link: _Link) -> str:
    return f"{link.count:,} edges" if link.count > 1 else ""


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _width(text: str) -> float:
    """Pixels of a line, rather too many than too few."""
    return sum(12.5 if unicodedata.east_asian_width(c) in "WF" else 9.5 if c in "mwMW" else 6.9 for c in text)


def _printable(text: str) -> str:
    """Without what XML does not allow: control characters and halves of surrogate pairs."""
    return "".join(c if c in "\t\n" or (c.isprintable() or c == " ") else "\N{REPLACEMENT CHARACTER}" for c in text)


def _xml(text: str) -> str:
    return escape(_printable(text))


def _quoted(text: str) -> str:
    text = _printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


# --- numbers ---------------------------------------------------------------------------------------------------------


def _trace(graph: Graph, order: Ids, outputs: Ids, x: npt.ArrayLike) -> tuple[dict[int, float], dict[int, float]]:
    """Values and adjoints of all nodes but constants, which say what they are, for one example."""
    example = real_array("x", x)
    if example.shape != (graph.n_inputs,):
        raise ValueError(f"x: expected one example of shape ({graph.n_inputs},), came {example.shape}")
    shown, ids = order[graph.codes[order] != CONSTANT], outputs.tolist()
    found = trace(
        graph, Examples(example[None], graph.n_inputs), ids, shown, loss="cotangent", loss_nodes=[ids[0], *ids],
        target=np.ones((1, len(ids)), np.float32), n_threads=1,
    )  # fmt: skip
    assert found.adjoints is not None
    numbers = [dict(zip(shown.tolist(), rows[0].tolist(), strict=True)) for rows in (found.values, found.adjoints)]
    return numbers[0], numbers[1]
