"""Graphs to be drawn, and what stands in their pictures."""

import re
import xml.etree.ElementTree as ET

import numpy as np

import mlgraph

SVG = "{http://www.w3.org/2000/svg}"


def boxes(drawing):
    """Texts of each box of the SVG, which is parsed; the first is its title."""
    root = ET.fromstring(drawing.to_svg())
    assert root.tag == f"{SVG}svg"
    groups = [g for g in root.iter(f"{SVG}g") if g.find(f"{SVG}rect") is not None]
    return [[t.text for t in g.iter(f"{SVG}text")] for g in groups]


def texts(drawing):
    """All that is written."""
    return [t.text for t in ET.fromstring(drawing.to_svg()).iter(f"{SVG}text")]


def rectangles(drawing):
    """Place of each box: left, top, right, bottom."""
    root = ET.fromstring(drawing.to_svg())
    size = float(root.get("width")), float(root.get("height"))
    found = []
    for g in root.iter(f"{SVG}g"):
        if (r := g.find(f"{SVG}rect")) is not None:
            x, y, w, h = (float(r.get(k)) for k in ("x", "y", "width", "height"))
            found.append((x, y, x + w, y + h))
    return found, size


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
    g = mlgraph.Graph()
    nodes = g.inputs(6)
    for _ in range(n):
        k = int(rng.integers(1, 5))
        sources = [nodes[j] for j in rng.choice(np.arange(max(0, len(nodes) - 14), len(nodes)), k, replace=False)]
        nodes.append(g.add_neuron(sources, "tanh", weights=rng.normal(size=k)))
    return g
