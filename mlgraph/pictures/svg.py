"""Layout of boxes in columns from left to right, with few crossing edges, and their drawing as SVG."""

from __future__ import annotations

import itertools
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

import numpy as np

from mlgraph._support.array_types import Int32

Item = tuple[int, int]  # a box and a column: the column of the box, or one that edges out of the box pass through

# Heights of a line and a label, padding of a box, gaps between columns and between boxes, in
# pixels.
LINE, LABEL, PAD, GAP, BETWEEN = 15.0, 15.0, 8.0, 46.0, 14.0
SWEEPS = 12  # passes over the columns that reduce crossings and straighten edges

COLOURS = {  # fill and border
    "input": ("#e3effb", "#3b7dc4"),
    "constant": ("#f2f2f2", "#8c8c8c"),
    "parameter": ("#fdf0d5", "#c98a1b"),
    "neuron": ("#e3f4e7", "#37915a"),
    "operation": ("#ffffff", "#555555"),
}
POSITIVE, NEGATIVE, PLAIN = "#3b7dc4", "#d1495b", "#9a9a9a"  # edges: positive weight, negative weight, no weight
VALUE, ADJOINT = "#333333", "#b5442e"


@dataclass
class Box:
    """A box: one node, or several folded nodes.

    Attributes
    ----------
    nodes : int32, shape (nodes,)
        Ids.
    key : str
        Name in Graphviz.
    colour : str
        A key of `COLOURS`.
    title, tip : str
        The first line, and the tooltip.
    lines : list of (str, str)
        The other lines with their colours.
    column : int
        Counted from the left.
    is_bold : bool
    links : list of Link
        Incoming edges, in the order of the arguments.
    x, y : float
        Left side and vertical centre in pixels.
    """

    nodes: Int32
    key: str
    colour: str
    title: str
    lines: list[tuple[str, str]]
    tip: str
    column: int
    is_bold: bool
    links: list[Link] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        """Width in pixels."""
        bold = 1.15 * _width(self.title)
        return max(24.0, bold, *(_width(text) for text, _ in self.lines)) + 2 * PAD

    @property
    def height(self) -> float:
        """Height in pixels, with room for the lines and for the labels of incoming edges."""
        has_labels = sum(bool(link.label) for link in self.links) > 1
        return max(LINE * (1 + len(self.lines)) + PAD, LABEL * (1 + len(self.links)) if has_labels else 0.0)


@dataclass
class Link:
    """All edges from one box to another.

    Attributes
    ----------
    source, target : int
        Indices of the boxes.
    count : int
        Number of edges.
    weight : float or None
        The weight, if it is a single edge into a neuron.
    is_written : bool
        Whether to write the weight as a number.
    """

    source: int
    target: int
    count: int
    weight: float | None
    is_written: bool

    @property
    def label(self) -> str:
        """Text at the edge; empty for none."""
        if self.count > 1:
            return f"{self.count:,} edges"
        return "" if self.weight is None or not self.is_written else f"{self.weight:.4g}"


def to_svg(boxes: list[Box]) -> str:
    """Place the boxes and draw them."""
    layout = _Layout(boxes)
    weights = [
        abs(link.weight) for box in boxes for link in box.links if link.weight is not None and np.isfinite(link.weight)
    ]
    largest = max(weights, default=0.0)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{layout.width:.0f}" height="{layout.height:.0f}" '
        f'viewBox="0 0 {layout.width:.0f} {layout.height:.0f}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for path, links in layout.passing():  # drawn like an edge if it stands for a single one
        out.append(f'<path d="{path}" {_stroke(links[0] if len(links) == 1 else None, largest)}/>')
    # Edges end at their box in the order of the arguments, from the top. Labels and boxes are drawn
    # over all edges.
    ends = [
        (box, link, box.y + box.height * ((i + 1) / (len(box.links) + 1) - 0.5))
        for box in boxes
        for i, link in enumerate(box.links)
    ]
    for _, link, end in ends:
        out += _link(layout, link, end, largest)
    for box, link, end in ends:
        out += _label(box, link, end)
    for box in boxes:
        out += _box(box)
    return "\n".join([*out, "</svg>"])


class _Layout:
    """Positions of boxes and edges. Edges pass a column between its boxes, at a position reserved for them."""

    def __init__(self, boxes: list[Box]) -> None:
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
        self._left_of: dict[Item, list[Item]] = {}  # neighbours of each item in the columns to the left and right
        self._right_of: dict[Item, list[Item]] = {}
        for a, b in sorted(self._links):
            self._right_of.setdefault(a, []).append(b)
            self._left_of.setdefault(b, []).append(a)
        self._order()
        self._align()
        self.left: list[float] = []
        self.right: list[float] = []
        x = PAD
        for items in self._columns:
            here = [boxes[i] for i, column in items if boxes[i].column == column]
            labels = [_width(link.label) for box in here for link in box.links]
            # Leave more room for many edges between two columns, or their curves become vertical
            # and overlap.
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

    def _order(self) -> None:
        """Sort each column by the mean position of its neighbours, to reduce crossings (Sugiyama et al. 1981)."""
        best, fewest = [list(column) for column in self._columns], self._crossings()
        place = {item: k / max(1, len(column) - 1) for column in self._columns for k, item in enumerate(column)}
        for sweep in range(SWEEPS):
            near = self._right_of if sweep % 2 else self._left_of
            for column in self._columns if sweep % 2 == 0 else reversed(self._columns):
                means = {i: float(np.mean([place[n] for n in near[i]])) if i in near else place[i] for i in column}
                column.sort(key=means.__getitem__)
                place.update((item, k / max(1, len(column) - 1)) for k, item in enumerate(column))
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(column) for column in self._columns], crossings
        self._columns = best

    def _crossings(self) -> int:
        place = {item: k for column in self._columns for k, item in enumerate(column)}
        total = 0
        for column in self._columns:
            above: list[int] = []  # right ends of the edges that start above this one, sorted
            for item in column:
                for end in sorted(place[other] for other in self._right_of.get(item, ())):
                    at = bisect_right(above, end)
                    total += len(above) - at
                    above.insert(at, end)
        return total

    def _align(self) -> None:
        """Move each item towards the mean height of its neighbours, as far as the other items leave room."""

        def height(item: Item) -> float:
            box = self._boxes[item[0]]
            return box.height if box.column == item[1] else 0.0

        distances = []  # between the centres of adjacent items
        for column in self._columns:
            distance = np.array([(height(a) + height(b)) / 2 + BETWEEN for a, b in itertools.pairwise(column)])
            distances.append(distance)
            places = np.concatenate([[0.0], np.cumsum(distance)])
            self.y.update(zip(column, (places - places[-1] / 2).tolist(), strict=True))
        for sweep in range(SWEEPS):
            columns = range(len(self._columns))
            for c in columns if sweep % 2 == 0 else reversed(columns):
                wish = []
                for item in self._columns[c]:
                    near = [self.y[n] for n in (*self._left_of.get(item, ()), *self._right_of.get(item, ()))]
                    wish.append(sum(near) / len(near) if near else self.y[item])
                # Push items downwards from the first, or upwards from the last. Both keep the
                # distances, and so does their mean.
                down, up = list(wish), list(wish)
                for k in range(1, len(wish)):
                    down[k] = max(down[k], down[k - 1] + distances[c][k - 1])
                    up[-1 - k] = min(up[-1 - k], up[-k] - distances[c][-k])
                self.y.update(zip(self._columns[c], ((a + b) / 2 for a, b in zip(down, up, strict=True)), strict=True))

    def start(self, box: int, column: int) -> tuple[float, float]:
        """Point where edges out of a box leave a column."""
        b = self._boxes[box]
        return (b.x + b.width if b.column == column else self.right[column]), self.y[box, column]

    def passing(self) -> Iterator[tuple[str, list[Link]]]:
        """Paths of edges through the columns that they pass, each with the links that share it."""
        links_from: dict[int, list[tuple[int, Link]]] = {}
        for box in self._boxes:
            for link in box.links:
                links_from.setdefault(link.source, []).append((box.column, link))
        for (i, column), (j, then) in sorted(self._links):
            if i == j:
                x, y = self.start(i, column)
                path = _curve(x, y, self.left[then], self.y[j, then]) + f" H {self.right[then]:.1f}"
                yield path, [link for end, link in links_from[i] if end > then]


def _box(box: Box) -> Iterator[str]:
    fill, border = COLOURS[box.colour]
    x, y, width, height = box.x, box.y - box.height / 2, box.width, box.height
    rectangle = f'rx="5" stroke="{border}" stroke-width="{2 if box.is_bold else 1}" fill="{fill}"'
    yield f"<g><title>{_xml(box.tip)}</title>"
    if len(box.nodes) > 1:
        yield f'<rect x="{x + 4:.1f}" y="{y + 4:.1f}" width="{width:.1f}" height="{height:.1f}" {rectangle}/>'
    yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {rectangle}/>'
    for k, (text, colour) in enumerate([(box.title, "#000000"), *box.lines]):
        style = 'font-weight="bold"' if k == 0 else 'font-size="11"'
        line = box.y + LINE * (k + 0.25 - len(box.lines) / 2)
        yield (
            f'<text x="{x + width / 2:.1f}" y="{line:.1f}" text-anchor="middle" '
            f'fill="{colour}" {style}>{_xml(text)}</text>'
        )
    yield "</g>"


def _link(layout: _Layout, link: Link, end: float, largest: float) -> Iterator[str]:
    box = layout._boxes[link.target]
    x, y = layout.start(link.source, box.column - 1)
    tip = link.label if link.weight is None else f"weight {link.weight:.4g}"
    yield f"<g><title>{_xml(tip)}</title>" if tip else "<g>"
    yield f'<path d="{_curve(x, y, box.x - 5, end)}" {_stroke(link, largest)}/>'
    yield f'<path d="M {box.x:.1f} {end:.1f} l -6 -3 v 6 z" fill="{_colour(link)}"/>'
    yield "</g>"


def _colour(link: Link | None) -> str:
    return PLAIN if link is None or link.weight is None else NEGATIVE if link.weight < 0 else POSITIVE


def _stroke(link: Link | None, largest: float) -> str:
    width = 1.0
    if link is not None and link.weight is not None and largest and np.isfinite(link.weight):
        width = 0.5 + 2.5 * abs(link.weight) / largest
    return f'fill="none" stroke="{_colour(link)}" stroke-width="{width:.2f}"'


def _label(box: Box, link: Link, end: float) -> Iterator[str]:
    """Label near the end of an edge, over a white copy of the text: not all viewers support paint-order."""
    for style in ('stroke="white" stroke-width="3"', f'fill="{VALUE}"') if link.label else ():
        place = f'x="{box.x - 10:.1f}" y="{end - 4:.1f}" text-anchor="end"'
        yield f'<text {place} font-size="11" {style}>{_xml(link.label)}</text>'


def _curve(x0: float, y0: float, x1: float, y1: float) -> str:
    middle = (x0 + x1) / 2
    return f"M {x0:.1f} {y0:.1f} C {middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"


def _width(text: str) -> float:
    """Upper estimate of the width of a line of text in pixels."""
    return sum(12.5 if unicodedata.east_asian_width(c) in "WF" else 9.5 if c in "mwMW" else 6.9 for c in text)


def printable(text: str) -> str:
    """Replace characters that XML does not allow: control characters and lone surrogates."""
    return "".join(c if c.isprintable() or c in "\t\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _xml(text: str) -> str:
    return escape(printable(text))
