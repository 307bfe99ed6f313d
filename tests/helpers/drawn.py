"""Graphs to draw, and what their pictures show."""

import re
import xml.etree.ElementTree as ET

import numpy as np

import mlgraph

SVG = "{http://www.w3.org/2000/svg}"


def elements(drawing, tag):
    """All elements of the parsed SVG with this tag."""
    return list(ET.fromstring(drawing.to_svg()).iter(f"{SVG}{tag}"))


def groups(drawing, of_boxes=True):
    """The SVG groups of boxes, or those of edges."""
    return [g for g in elements(drawing, "g") if (g.find(f"{SVG}rect") is not None) == of_boxes]


def boxes(drawing):
    """Texts of each box; the first is its title."""
    return [[t.text for t in g.iter(f"{SVG}text")] for g in groups(drawing)]


def rectangles(drawing):
    """Left, top, right and bottom of each box, and the width and height of the picture."""
    root, found = ET.fromstring(drawing.to_svg()), []
    for g in groups(drawing):
        x, y, w, h = (float(g.find(f"{SVG}rect").get(k)) for k in ("x", "y", "width", "height"))
        found.append((x, y, x + w, y + h))
    return found, (float(root.get("width")), float(root.get("height")))


def edges(drawing):
    """Pairs of keys in the Graphviz text."""
    return re.findall(r"^  (\w+) -> (\w+)", drawing.to_dot(), re.MULTILINE)


def network(*sizes):
    net = mlgraph.Network(sizes[0], seed=0)
    for size in sizes[1:-1]:
        net.add_layer(size, activation="leaky_relu")
    net.add_layer(sizes[-1], activation="softmax")
    return net


def random_neurons(n, seed=0):
    rng = np.random.default_rng(seed)
    g = mlgraph.Graph(seed=0)
    nodes = g.add_inputs(6)
    for _ in range(n):
        k = int(rng.integers(1, 5))
        sources = [nodes[j] for j in rng.choice(np.arange(max(0, len(nodes) - 14), len(nodes)), k, replace=False)]
        nodes.append(g.add_neuron(sources, "tanh", weights=rng.normal(size=k)))
    return g
