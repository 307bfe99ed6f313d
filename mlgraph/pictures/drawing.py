"""Drawings of graphs: SVG for notebooks and files, text for Graphviz. They need numpy only.

Nodes stand in columns by level, sources to the left of the nodes that read them. A large graph is
folded: first many nodes of the same kind and level become one box, then all nodes of the same kind
and level, and finally whole ranges of levels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from mlgraph._support import checks
from mlgraph._support.array_types import Int32
from mlgraph._support.atomic_files import write_atomically
from mlgraph._support.checks import StrOrBytesPath, real_array, shown, whole
from mlgraph.engine.examples import unscaled
from mlgraph.engine.losses import Objective, are_none
from mlgraph.engine.trace import Trace, trace
from mlgraph.graph import ops
from mlgraph.graph.formula import formula
from mlgraph.graph.graph import Graph
from mlgraph.graph.ids import id_of, ids_of, is_iterable
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER, WEIGHT
from mlgraph.graph.topology import ancestors, topological
from mlgraph.graph.views import KIND_NAMES, Neuron, Node, name_of
from mlgraph.models.classes import label_array
from mlgraph.models.model import Model
from mlgraph.models.running import engine_of
from mlgraph.models.scaling import as_data, ordered
from mlgraph.pictures.softmaxes import find_softmaxes
from mlgraph.pictures.svg import ADJOINT, COLOURS, VALUE, Box, Link, printable, to_svg

MOST_BOXES = 60
"""Default limit of boxes: about as many as a person can read."""

MANY = 8
"""In a large graph, more nodes than this of one kind and level become one box.

A neuron with more sources shows their number.
"""

FEW_EDGES = 40
"""Maximum number of edges into neurons of a graph whose weights and biases are written as numbers."""

MOST_PROBABILITIES = 10
"""A softmax of more shows the range of its probabilities, not each."""

SOFTMAX = len(ops.BY_CODE)
"""Code of a softmax, whose box replaces its nodes. No op of a graph has it."""

BANDS = 8
"""Number of boxes of a graph that is so deep that ranges of levels are folded."""

LONGEST_LINE = 28  # characters
SYMBOLS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "neg": "−", "pow": "^", "identity": "="}


class Options(TypedDict, total=False):
    """Keyword arguments of `Graph.draw` and `Node.draw`, except `x`; see `Drawing`."""

    values: Mapping[Any, float] | None
    adjoints: Mapping[Any, float] | None
    limit: int


class Drawing:
    """A picture of a graph. A notebook displays it; `save` writes it to a file.

    Edges with positive weights are blue, edges with negative weights red; the larger the magnitude
    of the weight, the wider the edge. In a small graph, weights and biases are also written as
    numbers. A softmax is one box, if all of its nodes are drawn and nothing else reads those within.
    ∂ marks an adjoint. Bold boxes are the given `nodes`. For a whole graph, they are the
    operations and live neurons that nothing reads.

    Parameters
    ----------
    nodes : Graph, Node or sequence of Node
        What to draw: a whole graph, or nodes with everything that they depend on.
    x : array_like, shape (inputs,), optional
        One example. Each node except constants shows its value and its adjoint, here the derivative
        of the sum of the bold boxes with respect to that value. (`Model.draw` shows the derivative
        of the loss.)
    values, adjoints : mapping from Node or int to float, optional
        Numbers to show instead of those computed from `x`, by node or id.
    limit : int
        Maximum number of boxes; at least 2.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> g = mlgraph.Graph()
    >>> x = g.add_input("x")
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
        example = None if x is None else real_array("x", x)  # first: the conversion may edit the graph
        is_whole_graph = isinstance(nodes, Graph)
        members = [nodes] if isinstance(nodes, Graph | Node) or not is_iterable(nodes) else list(nodes)
        if not members:
            raise ValueError("nodes: expected a graph or at least one node, got none")
        if not isinstance(members[0], Graph | Node):
            raise TypeError(f"nodes: expected a graph or nodes, got {type(members[0]).__name__}")
        self._graph = graph = members[0] if isinstance(members[0], Graph) else members[0].graph
        given = _by_id(graph, "values", values), _by_id(graph, "adjoints", adjoints)
        with graph.lock:
            self._code, topology = graph.codes.copy(), graph.topology()
            bold = np.array(range(len(graph)) if is_whole_graph else ids_of(graph, "nodes", members), np.int32)
            level, order = topological(graph, topology, bold)
            count = topology.counts[order]
            # Edges: their ends, and the position of the source among the arguments of the target.
            self._source = topology.sources_of(order)
            self._target = np.repeat(order, count)
            self._position = np.arange(len(self._source)) - np.repeat(np.cumsum(count) - count, count)
            if is_whole_graph:
                is_end = (self._code != INPUT) & ((self._code < NEURON) | graph.alive())
                is_end[self._source] = False
                bold = np.flatnonzero(is_end).astype(np.int32)
            computed = ({}, {}) if example is None else _trace(graph, order, bold, example)
            self._values, self._adjoints = ({**a, **b} for a, b in zip(computed, given, strict=True))
            is_bold = set(bold.tolist())
            order = self._contract_softmaxes(level, order, is_bold)
            self._move_constants(level, order)
            self._is_small = int((self._code[self._target] >= NEURON).sum()) <= FEW_EDGES
            self._boxes = self._fold(order, level, is_bold, limit)
            self._link()

    def __repr__(self) -> str:
        return f"<Drawing of {len(self._boxes)} boxes: save('picture.svg') writes it>"

    def _contract_softmaxes(self, level: Int32, order: Int32, bold: set[int]) -> Int32:
        """Let the first probability of each softmax stand for all of its nodes; return the nodes that are left.

        Edges from the logits to the softmax and from it to its readers are kept.
        """
        self._probabilities: dict[int, list[int]] = {}  # of a softmax, by its first
        place = np.arange(len(level), dtype=np.int32)  # of a node of a softmax, the first probability
        entry = np.full(len(level), -1)  # of a node that reads a logit, the index of the logit
        for softmax in find_softmaxes(self._graph, order, self._source, self._target):
            if softmax.inner & (bold | self._graph.names.keys()):
                continue
            first = softmax.probabilities[0]
            nodes = [*softmax.inner, *softmax.probabilities]
            entry[softmax.entries] = range(len(softmax.entries))
            level[first] = level[nodes].min()
            place[nodes], self._code[first] = first, SOFTMAX
            self._probabilities[first] = softmax.probabilities
            bold |= {first} if bold.intersection(softmax.probabilities) else set()
        at = entry[self._target]
        is_within = (place[self._target] != self._target) | (self._code[self._target] == SOFTMAX)
        kept = ~is_within | ((at >= 0) & (self._position == 0))
        self._position = np.where(at >= 0, at, self._position)[kept]
        self._source, self._target = place[self._source[kept]], place[self._target[kept]]
        left: Int32 = order[place[order] == order]
        return left

    def _move_constants(self, level: Int32, order: Int32) -> None:
        """Move each constant and parameter to the level just before the first node that reads it."""
        never = np.iinfo(np.int32).max
        first = np.full(len(level), never)
        moves = np.isin(self._code, [CONSTANT, PARAMETER])[self._source]
        np.minimum.at(first, self._source[moves], level[self._target[moves]])
        moved = order[first[order] < never]
        level[moved] = first[moved] - 1

    # --- folding ----------------------------------------------------------------------------------

    def _fold(self, order: Int32, level: Int32, bold: set[int], limit: int) -> list[Box]:
        """Assign every node to a box."""
        order = np.sort(order)
        keys = np.column_stack([level[order], self._code[order]])
        _, group, size = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        group = group.reshape(-1)
        column_of = level
        if len(size) > limit:
            # Fold everything: one box for the inputs, and one for each range of levels.
            n = min(BANDS, limit - 1)
            band = 1 + level[order].astype(np.int64) * n // (level[order].max() + 1)
            band[self._code[order] == INPUT] = 0
            _, group = np.unique(band, return_inverse=True)
            is_folded = np.ones(len(order), bool)
            # Columns by range: constants of the first range may have the same level as inputs that
            # it reads.
            column_of = np.zeros(len(level), np.int64)
            column_of[order] = band
        elif len(order) > limit:
            # Fold the largest groups, until there are few enough boxes.
            largest = np.argsort(-size, kind="stable")
            n_boxes = len(order) - np.cumsum(size[largest] - 1)
            n_folded = max(int(np.argmax(n_boxes <= limit)) + 1, int((size > MANY).sum()))
            is_folded = np.isin(group, largest[:n_folded])
        else:
            is_folded = np.zeros(len(order), bool)
        # Number the boxes in the order of their first nodes.
        _, first, number = np.unique(np.where(is_folded, -1 - group, order), return_index=True, return_inverse=True)
        box = np.argsort(np.argsort(first))[number.reshape(-1)]
        self._box_of = np.full(len(self._code), -1)
        self._box_of[order] = box
        members = np.split(order[np.argsort(box, kind="stable")], np.cumsum(np.bincount(box)))[: len(first)]
        columns = np.unique(np.array([column_of[m[0]] for m in members], int), return_inverse=True)[1].reshape(-1)
        return [
            self._box(m, column, not bold.isdisjoint(m.tolist()), level)
            for m, column in zip(members, columns.tolist(), strict=True)
        ]

    def _box(self, nodes: Int32, column: int, is_bold: bool, level: Int32) -> Box:
        title, lines, tip = self._describe_node(nodes) if len(nodes) == 1 else self._describe_group(nodes, level)
        members = [i for node in nodes.tolist() for i in self._probabilities.get(node, [node])]
        are_listed = 1 == len(nodes) < len(members) <= MOST_PROBABILITIES
        for numbers, mark, colour in ((self._values, "", VALUE), (self._adjoints, "∂ ", ADJOINT)):
            known = np.array([numbers[i] for i in members if i in numbers])
            if are_listed and not mark:
                names = _classes(self._graph) | self._graph.names
                lines += [
                    (f"{names.get(i, k)}: {numbers[i]:.5g}" if i in numbers else names[i], colour)
                    for k, i in enumerate(members)
                    if i in numbers or i in names
                ]
                continue
            if len(known):
                lines.append((mark + _range(known), colour))
        codes = np.unique(self._code[nodes])
        return Box(
            nodes,
            key=f"n{nodes[0]}" if len(nodes) == 1 else f"n{nodes[0]}_{nodes[-1]}",
            colour=_kind(int(codes[0])) if len(codes) == 1 else "operation",
            title=_shorten(title),
            lines=[(_shorten(line), colour) for line, colour in lines],
            tip=tip,
            column=column,
            is_bold=is_bold,
        )

    def _describe_node(self, nodes: Int32) -> tuple[str, list[tuple[str, str]], str]:
        """Title, coloured lines and tooltip of a single node."""
        graph = self._graph
        node = graph[int(nodes[0])]
        code = int(self._code[node.id])
        lines = []
        if code == SOFTMAX:
            names = [name_of(graph, i, short=True) for i in self._logits_of(node.id)]
            return "softmax", [], f"softmax({', '.join(names[:MANY])}{', ...' * (len(names) > MANY)})"
        if code >= NEURON:
            title = f"{name_of(graph, node.id, short=True)} {_operation(code)}"
            if graph.n_sources(node.id) > MANY:
                lines.append((f"{graph.n_sources(node.id):,} sources", VALUE))
            if self._is_small and isinstance(node, Neuron) and node.bias is not None:
                lines.append((f"bias {node.bias:.4g}", VALUE))
        else:
            if code == CONSTANT:
                title = f"{node.value:.6g}"
            elif code in (INPUT, PARAMETER):
                title = node.name
            else:
                title = _operation(code)
            if node.id in graph.names and node.name != title:
                title = f"{node.name} {title}"
        return title, lines, formula(node, 200)

    def _logits_of(self, softmax: int) -> list[int]:
        here = self._target == softmax
        logits: list[int] = self._source[here][np.argsort(self._position[here])].tolist()
        return logits

    def _describe_group(self, nodes: Int32, level: Int32) -> tuple[str, list[tuple[str, str]], str]:
        """Title, coloured lines and tooltip of several nodes."""
        graph = self._graph
        codes, size = np.unique(self._code[nodes], return_counts=True)
        code = int(codes[0])
        lines = []
        if len(codes) > 1:
            lines.append((f"levels {level[nodes].min():,} to {level[nodes].max():,}", VALUE))
            for i in np.argsort(-size, kind="stable")[:3].tolist():
                lines.append((f"{size[i]:,} {_plural(int(codes[i]))}", VALUE))
        elif code >= NEURON:
            fan_in = np.unique(graph.counts[nodes])
            lines.append((f"{_range(fan_in)} source{'s' * bool(fan_in[-1] != 1)} each", VALUE))
        title = f"{len(nodes):,} " + (_plural(code) if len(codes) == 1 else "nodes")
        tip = f"{len(nodes):,} nodes, {' to '.join(name_of(graph, int(i), short=True) for i in nodes[[0, -1]])}"
        return title, lines, tip

    def _link(self) -> None:
        """Give each box its links, in the order of the arguments."""
        target, source, n = self._box_of[self._target], self._box_of[self._source], len(self._boxes)
        between = np.flatnonzero(target != source)
        pairs, first, count = np.unique((target * n + source)[between], return_index=True, return_counts=True)
        first = between[first]
        for i in np.lexsort([self._position[first], pairs // n]).tolist():
            into, out_of = divmod(int(pairs[i]), n)
            node = int(self._target[first[i]])
            weight = None
            if self._code[node] >= NEURON and count[i] == 1:
                weight = float(self._graph._memory_of(node)[self._position[first[i]]])
            self._boxes[into].links.append(Link(out_of, into, int(count[i]), weight, self._is_small))

    # --- writing ----------------------------------------------------------------------------------

    def to_dot(self) -> str:
        """Return the picture as text for Graphviz."""
        out = ["digraph {", '  rankdir=LR; node [shape=box, style=filled, fontname="sans-serif"];']
        for box in self._boxes:
            label = "\n".join([box.title, *(text for text, _ in box.lines)])
            fill, border = COLOURS[box.colour]
            out.append(
                f'  {box.key} [label={_quoted(label)}, tooltip={_quoted(box.tip)}, fillcolor="{fill}", color="{border}"'
                f"{', penwidth=2' if box.is_bold else ''}];"
            )
        for box in self._boxes:
            for link in box.links:
                label = f" [label={_quoted(link.label)}]" if link.label else ""
                out.append(f"  {self._boxes[link.source].key} -> {box.key}{label};")
        return "\n".join([*out, "}"])

    def to_svg(self) -> str:
        """Return the picture as SVG."""
        return to_svg(self._boxes)

    def save(self, path: StrOrBytesPath) -> None:
        """Write the picture to a file, atomically.

        Parameters
        ----------
        path : path
            The suffix determines the format: .svg, or .dot or .gv for Graphviz.

        Raises
        ------
        ValueError
            If the suffix is another one.
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
    """Draw a model; `Model.draw` documents the parameters."""
    graph = model.graph
    if x is not None:
        given = ordered(as_data(x), model.columns)  # first: the conversion may edit the graph
        x = given.array
        x = x[0] if x.shape[:1] == (1,) and x.ndim == 2 else x
    y = y if y is None or are_none(y) else label_array(y, "y")
    drawn = [graph[i] for i in dict.fromkeys(model.probability_ids or model.sinks)]
    values: dict[int, float] = {}
    adjoints: dict[int, float] = {}
    if x is None and y is not None:
        raise ValueError("y: needs an example x")
    with_y = x is not None and y is not None and model.loss == "node" and not are_none(y)
    if with_y:
        data, targets, n = np.asarray(x), np.asarray(y), graph.n_inputs
        if data.ndim != 1 or targets.ndim > 1 or data.size + targets.size != n:
            raise ValueError(
                f"x and y: expected {n} numbers of one example, got shapes {data.shape} and {targets.shape}"
            )
        y = targets[None]
    if x is not None:
        n = len(model.output_ids)
        example = np.asarray(x)
        kept = model.kept_ids()
        width_of_outputs, width = (engine_of(model, nodes).plan.width for nodes in (model.output_ids, None))
        if with_y:
            example = example[None]
        elif y is None and example.ndim == 1 and width_of_outputs <= len(example) < width:
            # The example lacks the targets, so there is no loss, as in `Model.trace`.
            drawn = model.outputs
            kept = np.array(model.output_ids, np.int32)
            example = example[None]
        else:
            ordered(given, model.columns, complete=True)  # names the columns that a frame lacks
            example = _example(graph, example)
        if y is not None and model.loss != "node" and (shape := np.shape(y)) not in ((), (n,)):
            raise ValueError(f"y: expected the label or the targets of one example, of shape () or ({n},), got {shape}")
        order = topological(graph, graph.topology(), kept)[1]
        order = order[graph.codes[order] != CONSTANT]
        if len(order):
            answers: Any = y if y is None or model.loss == "node" else np.asarray(y)[None]
            values, adjoints = _numbers(model.trace(example, answers, order, n_threads=1))
            # The loss depends on the logits, not on the probabilities: nodes that it does not need
            # show no adjoint.
            needed = ancestors(graph, graph.topology(), model.sinks)
            adjoints = {node: adjoint for node, adjoint in adjoints.items() if needed[node]}
    return Drawing(drawn, values=values, adjoints=adjoints, limit=MOST_BOXES if limit is None else limit)


# --- text -----------------------------------------------------------------------------------------


def _kind(code: int) -> str:
    return "operation" if code == WEIGHT else KIND_NAMES.get(min(code, NEURON), "operation")


def _operation(code: int) -> str:
    if code == SOFTMAX:
        return "softmax"
    name = "weight" if code == WEIGHT else ops.BY_CODE[code - NEURON if code >= NEURON else code].name
    return name if code >= NEURON else SYMBOLS.get(name, name)


def _plural(code: int) -> str:
    kind = _kind(code)
    if kind == "neuron":
        return f"{_operation(code)} neurons"
    if kind != "operation":
        return f"{kind}s"
    return f"× {_operation(code) if code in (SOFTMAX, WEIGHT) else ops.BY_CODE[code].name}"


def _range(numbers: npt.NDArray[np.generic]) -> str:
    texts = [
        f"{number:,}" if isinstance(number, int) else f"{number:.5g}"
        for number in numbers[np.argsort(numbers)].tolist()
    ]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} … {texts[-1]}"


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 1] + "…"


def _quoted(text: str) -> str:
    text = printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


# --- numbers --------------------------------------------------------------------------------------


def _by_id(graph: Graph, what: str, given: Mapping[Any, float] | None) -> dict[int, float]:
    """Convert keys of a mapping to ids; `what` is its name in errors."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(number, Real) for number in given.values()):
        raise TypeError(f"{what}: expected a mapping from nodes or ids to numbers, got {shown(given)}")
    return {id_of(graph, node, what): number for node, number in given.items()}


def _classes(graph: Graph) -> dict[int, str]:
    """The classes of the models of a graph, by the nodes that are their probabilities."""
    models = [model for model in graph.models if isinstance(model, Model)]
    labelled = [model for model in models if model.classes and len(model.classes) == len(model.probability_ids)]
    pairs = (zip(model.probability_ids, model.classes or (), strict=True) for model in labelled)
    return {node: str(label) for each in pairs for node, label in each}


def _example(graph: Graph, x: npt.ArrayLike) -> npt.NDArray[Any]:
    """Read one example as an array with one row."""
    example = real_array("x", x)
    if example.shape != (graph.n_inputs,):
        raise ValueError(f"x: expected one example of shape ({graph.n_inputs},), got {example.shape}")
    return example[None]


def _trace(graph: Graph, order: Int32, outputs: Int32, x: npt.ArrayLike) -> tuple[dict[int, float], dict[int, float]]:
    """Values and adjoints of all nodes for one example, except of constants, whose boxes show their values anyway."""
    example = _example(graph, x)
    if not len(outputs):
        return {}, {}
    kept = order[graph.codes[order] != CONSTANT]
    ids = outputs.tolist()
    objective = Objective.cotangent(ids, np.ones((1, len(ids)), np.float32))
    return _numbers(trace(graph, unscaled(example, graph.n_inputs), ids, kept, objective, n_threads=1))


def _numbers(traced: Trace) -> tuple[dict[int, float], dict[int, float]]:
    """Values and adjoints of a trace of one example, by node."""
    nodes = traced.nodes.tolist()
    adjoints = [] if traced.adjoints is None else traced.adjoints[0].tolist()
    return dict(zip(nodes, traced.values[0].tolist(), strict=True)), dict(zip(nodes, adjoints, strict=False))
