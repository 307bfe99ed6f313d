"""Positions and colours in drawings of graphs."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from drawn import SVG, edges, network, random_neurons, rectangles

import mlgraph
from mlgraph.pictures import Drawing, svg


def lines_of(drawing):
    """Curves of the edges, in the order of the text."""
    return [p for p in ET.fromstring(drawing.to_svg()).iter(f"{SVG}path") if p.get("fill") == "none"]


@pytest.mark.parametrize(
    "graph", [network(4, 8, 3).graph, random_neurons(30), network(784, 300, 10).graph, random_neurons(400)], ids=repr
)
@pytest.mark.parametrize("with_numbers", [False, True])
def test_boxes_do_not_overlap(graph, with_numbers):
    found, (width, height) = rectangles(graph.draw(x=np.ones(graph.n_inputs) if with_numbers else None))
    for i, (left, top, right, bottom) in enumerate(found):
        assert left >= 0 and top >= 0 and right <= width and bottom <= height
        for other in found[:i]:
            assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top


def test_edges_go_from_left_to_right_within_the_picture():
    g = random_neurons(8)
    drawing = g.draw()
    found, (width, height) = rectangles(drawing)
    for node in g:
        assert all(found[source.id][2] < found[node.id][0] for source in node.sources)
    for path in lines_of(drawing):
        x0, y0, *_, x1, y1 = (float(n) for n in path.get("d").split(" H ")[0].split() if n not in "MC")
        assert 0 <= x0 < x1 <= width and 0 <= y0 <= height and 0 <= y1 <= height


def test_edges_go_from_left_to_right_between_folded_levels():
    g = mlgraph.Graph()
    x, z = g.input(), g.constant(2.0)
    for k in range(20):
        z = mlgraph.exp(z) * g.parameter(1.0) + (x if k == 1 else 1.0)
    drawing = z.draw(limit=9)
    keys = re.findall(r"^  (\w+) \[", drawing.to_dot(), re.MULTILINE)
    boxes = dict(zip(keys, rectangles(drawing)[0], strict=True))
    assert edges(drawing) and all(boxes[source][2] < boxes[target][0] for source, target in edges(drawing))


def test_chains_are_straight():
    g = mlgraph.Graph()
    sines = [mlgraph.sin(x) for x in g.inputs(3)[::2]]
    found, _ = rectangles(Drawing([*sines, g[1]]))
    middle = [round(top + bottom, 1) for _, top, _, bottom in found]
    assert middle[3:] == middle[:3:2]


def test_boxes_are_as_wide_as_their_text():
    g = mlgraph.Graph()
    for name in ("x", "xxxxxxxx", "mmmmmmmm", "漢漢漢漢漢漢漢漢"):
        g.input(name)
    found, _ = rectangles(g.draw())
    widths = [right - left for left, _, right, _ in found]
    assert widths == sorted(set(widths))
    assert [left + right for left, _, right, _ in found] == pytest.approx([found[0][0] + found[0][2]] * 4, abs=0.2)


def test_labels_have_room():
    (inputs, hidden, *_), _ = rectangles(network(784, 32, 10).graph.draw())
    assert hidden[0] - inputs[2] >= 10 + 5 * len("25,088 edges")
    g = mlgraph.Graph()
    root = ET.fromstring(g.add_neuron(g.inputs(12), weights=np.arange(12) / 8).draw().to_svg())
    heights = sorted(float(t.get("y")) for t in root.iter(f"{SVG}text") if t.get("text-anchor") == "end")[::2]
    assert len(heights) == 12 and np.diff(heights).min() >= 11


def test_folded_and_bold_boxes_look_different():
    g = mlgraph.Graph()
    text = mlgraph.sum(*g.inputs(100)).draw().to_svg()
    boxes = [b.findall(f"{SVG}rect") for b in ET.fromstring(text).iter(f"{SVG}g") if b.find(f"{SVG}rect") is not None]
    assert [[r.get("stroke-width") for r in box] for box in boxes] == [["1", "1"], ["2"]]


def test_constants_and_parameters_stand_next_to_their_reader():
    g = mlgraph.Graph()
    x, y, w, unread = g.input(), g.input(), g.parameter(2.0), g.constant(3.0)
    sine = mlgraph.sin(mlgraph.sin(x))
    z = sine * y * w + w
    middle = [round(left + right, 1) for left, _, right, _ in rectangles(g.draw())[0]]
    assert middle[x.id] == middle[y.id] == middle[unread.id] < middle[sine.id] < middle[w.id] < middle[z.id]


def test_edges_end_in_the_order_of_the_arguments():
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    for z in (x - y, y - x):
        paths = [p.get("d").split() for p in lines_of(z.draw())]
        starts, ends = ([float(p[k]) for p in paths] for k in (2, -1))
        found, _ = rectangles(z.draw())
        middle = {s.id: (found[s.id][1] + found[s.id][3]) / 2 for s in (x, y)}
        assert found[2][1] < ends[0] < ends[1] < found[2][3]
        assert starts == pytest.approx([middle[s.id] for s in z.sources], abs=0.11)
        assert (found[2][1] + found[2][3]) / 2 == pytest.approx(np.mean([*middle.values()]), abs=0.2)


@pytest.mark.parametrize(("ends", "colour"), [(1, svg.NEGATIVE), (2, svg.PLAIN)])
def test_edges_that_share_a_path_past_a_column_have_no_sign(ends, colour):
    g = mlgraph.Graph()
    x = g.input()
    h = g.add_neuron([x], "tanh", weights=[0.5])
    drawing = Drawing([g.add_neuron([x, h], weights=[-1 - k, 0.5]) for k in range(ends)])
    past = lines_of(drawing)[0]
    assert past.get("stroke") == colour and past.get("d").split()[-2:] == ["H", f"{rectangles(drawing)[0][h.id][2]}"]


def test_edges_do_not_cross_without_need_and_show_the_sign():
    g = mlgraph.Graph()
    x = g.inputs(4)
    drawing = Drawing([g.add_neuron([x[3 - k]], "tanh", weights=[1 - 2 * (k % 2)]) for k in range(4)])
    top = [box[1] for box in rectangles(drawing)[0]]  # of the inputs, then of the neurons
    assert np.argsort(top[:4]).tolist() == [3 - k for k in np.argsort(top[4:])]
    assert [line.get("stroke") for line in lines_of(drawing)] == [svg.POSITIVE, svg.NEGATIVE] * 2
