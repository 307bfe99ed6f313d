"""Positions and colours in drawings of graphs."""

import re

import numpy as np
import pytest
from drawn import SVG, edges, elements, groups, network, random_neurons, rectangles

import mlgraph
from mlgraph.pictures import Drawing, svg


def lines_of(drawing):
    """Curves of the edges, in the order of the text."""
    return [path for path in elements(drawing, "path") if path.get("fill") == "none"]


def heights(drawing):
    """Vertical centres of the boxes."""
    return [round((top + bottom) / 2, 1) for _, top, _, bottom in rectangles(drawing)[0]]


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
    drawing = random_neurons(8).draw()
    _, (width, height) = rectangles(drawing)
    for path in lines_of(drawing):
        x0, y0, *_, x1, y1 = (float(n) for n in path.get("d").split(" H ")[0].split() if n not in "MC")
        assert 0 <= x0 < x1 <= width and 0 <= y0 <= height and 0 <= y1 <= height
    g = mlgraph.Graph()
    x, z = g.add_input(), g.add_constant(2.0)
    for k in range(20):
        z = mlgraph.exp(z) * g.add_parameter(1.0) + (x if k == 1 else 1.0)
    for picture in (drawing, z.draw(limit=9)):  # the second one folds ranges of levels
        keys = re.findall(r"^  (\w+) \[", picture.to_dot(), re.MULTILINE)
        place = dict(zip(keys, rectangles(picture)[0], strict=True))
        assert edges(picture) and all(place[source][2] < place[target][0] for source, target in edges(picture))


def test_chains_are_straight():
    g = mlgraph.Graph()
    middle = heights(Drawing([*map(mlgraph.sin, g.add_inputs(3)[::2]), g[1]]))
    assert middle[3:] == middle[:3:2]


def test_boxes_are_as_wide_as_their_text():
    g = mlgraph.Graph()
    for name in ("x", "xxxxxxxx", "mmmmmmmm", "漢漢漢漢漢漢漢漢"):
        g.add_input(name)
    found, _ = rectangles(g.draw())
    widths = [right - left for left, _, right, _ in found]
    assert widths == sorted(set(widths))
    assert [left + right for left, _, right, _ in found] == pytest.approx([found[0][0] + found[0][2]] * 4, abs=0.2)


def test_labels_do_not_overlap_boxes_or_each_other():
    (inputs, hidden, *_), _ = rectangles(network(784, 32, 10).graph.draw())
    assert hidden[0] - inputs[2] >= 10 + 5 * len("25,088 edges")
    g = mlgraph.Graph()
    labels = elements(g.add_neuron(g.add_inputs(12), weights=np.arange(12) / 8).draw(), "text")
    places = sorted(float(t.get("y")) for t in labels if t.get("text-anchor") == "end")[::2]
    assert len(places) == 12 and np.diff(places).min() >= 11


def test_a_folded_box_is_doubled_and_a_bold_one_has_a_thick_border():
    g = mlgraph.Graph()
    found = [group.findall(f"{SVG}rect") for group in groups(mlgraph.sum(*g.add_inputs(100)).draw())]
    assert [[r.get("stroke-width") for r in box] for box in found] == [["1", "1"], ["2"]]


def test_constants_and_parameters_are_next_to_their_reader():
    g = mlgraph.Graph()
    x, y, w, unread = g.add_input(), g.add_input(), g.add_parameter(2.0), g.add_constant(3.0)
    sine = mlgraph.sin(mlgraph.sin(x))
    z = sine * y * w + w
    middle = [round(left + right, 1) for left, _, right, _ in rectangles(g.draw())[0]]
    assert middle[x.id] == middle[y.id] == middle[unread.id] < middle[sine.id] < middle[w.id] < middle[z.id]


def test_edges_end_in_the_order_of_the_arguments():
    g = mlgraph.Graph()
    x, y = g.add_inputs(2)
    for z in (x - y, y - x):
        drawing = z.draw()
        paths = [p.get("d").split() for p in lines_of(drawing)]
        starts, ends = ([float(p[k]) for p in paths] for k in (2, -1))
        middle, (_, top, _, bottom) = heights(drawing), rectangles(drawing)[0][2]
        assert top < ends[0] < ends[1] < bottom
        assert starts == pytest.approx([middle[s.id] for s in z.sources], abs=0.11)
        assert middle[2] == pytest.approx(np.mean(middle[:2]), abs=0.2)


@pytest.mark.parametrize(("ends", "colour"), [(1, svg.NEGATIVE), (2, svg.PLAIN)])
def test_edges_that_share_a_path_past_a_column_have_no_sign(ends, colour):
    g = mlgraph.Graph()
    x = g.add_input()
    h = g.add_neuron([x], "tanh", weights=[0.5])
    drawing = Drawing([g.add_neuron([x, h], weights=[-1 - k, 0.5]) for k in range(ends)])
    past = lines_of(drawing)[0]
    assert past.get("stroke") == colour and past.get("d").split()[-2:] == ["H", f"{rectangles(drawing)[0][h.id][2]}"]


def test_edges_do_not_cross_without_need_and_show_the_sign():
    g = mlgraph.Graph()
    x = g.add_inputs(4)
    drawing = Drawing([g.add_neuron([x[3 - k]], "tanh", weights=[1 - 2 * (k % 2)]) for k in range(4)])
    middle = heights(drawing)
    assert np.argsort(middle[:4]).tolist() == [3 - k for k in np.argsort(middle[4:])]
    assert [line.get("stroke") for line in lines_of(drawing)] == [svg.POSITIVE, svg.NEGATIVE] * 2
