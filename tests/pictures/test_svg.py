"""Where things stand in the pictures of graphs, and in which colours."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from drawn import SVG, network, random_neurons, rectangles

import mlgraph
from mlgraph.pictures import svg
from mlgraph.pictures.drawing import Drawing


@pytest.mark.parametrize(
    "graph",
    [network(4, 8, 3).graph, random_neurons(30), network(784, 300, 100, 10).graph, random_neurons(400)],
    ids=repr,
)
@pytest.mark.parametrize("with_numbers", [False, True])
def test_boxes_do_not_overlap(graph, with_numbers):
    found, (width, height) = rectangles(graph.draw(x=np.ones(graph.n_inputs) if with_numbers else None))
    for i, (left, top, right, bottom) in enumerate(found):
        assert left >= 0 and top >= 0 and right <= width and bottom <= height
        for other in found[:i]:
            assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top


def test_boxes_of_one_column_have_one_middle_and_none_is_cut_off():
    """The wider the letters, the wider the box."""
    g = mlgraph.Graph()
    for name in ("x", "xxxxxxxx", "mmmmmmmm", "漢漢漢漢漢漢漢漢"):
        g.input(name)
    found, (width, _) = rectangles(g.draw())
    assert [left + right for left, _, right, _ in found] == pytest.approx([found[0][0] + found[0][2]] * 4, abs=0.2)
    assert 0 <= found[3][0] < found[2][0] < found[1][0] < found[0][0] and found[3][2] <= width


def test_a_long_label_has_room_between_its_boxes():
    (inputs, hidden, *_), _ = rectangles(network(784, 32, 10).graph.draw())
    assert hidden[0] - inputs[2] >= 10 + 5 * len("25,088 edges")


def test_a_folded_box_looks_like_several_and_an_output_is_bold():
    g = mlgraph.Graph()
    text = mlgraph.sum(*g.inputs(100)).draw().to_svg()
    boxes = [b.findall(f"{SVG}rect") for b in ET.fromstring(text).iter(f"{SVG}g") if b.find(f"{SVG}rect") is not None]
    assert [[r.get("stroke-width") for r in box] for box in boxes] == [["1", "1"], ["2"]]


def test_edges_go_from_left_to_right():
    g = random_neurons(30)
    found, _ = rectangles(g.draw())
    for node in g:
        for source in node.sources:
            assert found[source.id][2] < found[node.id][0]


def test_edges_stay_in_the_picture():
    root = ET.fromstring(random_neurons(8).draw().to_svg())
    width, height = float(root.get("width")), float(root.get("height"))
    for path in root.iter(f"{SVG}path"):
        if path.get("fill") == "none":
            x0, y0, *_, x1, y1 = (
                float(number) for number in path.get("d").split(" H ")[0].split() if number not in "MC"
            )
            assert 0 <= x0 < x1 <= width and 0 <= y0 <= height and 0 <= y1 <= height


def test_constants_stand_next_to_what_reads_them():
    g = mlgraph.Graph()
    z = g.input()
    for _ in range(5):
        z = mlgraph.sin(z)
    z = z * 3
    found, _ = rectangles(z.draw())
    sine, three = (found[s.id] for s in z.sources)
    assert (sine[0] + sine[2]) / 2 == pytest.approx((three[0] + three[2]) / 2, abs=0.1)


def test_other_leaves_stand_where_they_belong():
    """Parameters next to what reads them first, inputs and what nothing reads in the first column."""
    g = mlgraph.Graph()
    x, y, w, unread = g.input(), g.input(), g.parameter(2.0), g.constant(3.0)
    sine = mlgraph.sin(mlgraph.sin(x))
    z = sine * y * w + w
    middle = [round(left + right, 1) for left, _, right, _ in rectangles(g.draw())[0]]
    assert middle[x.id] == middle[y.id] == middle[unread.id] < middle[sine.id] < middle[w.id] < middle[z.id]


def test_arguments_are_in_order():
    """The edge of the first argument ends above that of the second."""
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    for z in (x - y, y - x):
        root = ET.fromstring(z.draw().to_svg())
        paths = [p.get("d").split() for p in root.iter(f"{SVG}path") if p.get("fill") == "none"]
        starts, ends = ([float(p[k]) for p in paths] for k in (2, -1))
        found, _ = rectangles(z.draw())
        middle = {s.id: (found[s.id][1] + found[s.id][3]) / 2 for s in (x, y)}
        assert ends[0] < ends[1]
        assert starts == pytest.approx([middle[s.id] for s in z.sources], abs=0.11)


def test_edges_end_at_the_box_and_one_node_stands_in_the_middle_of_two():
    g = mlgraph.Graph()
    z = g.input() + g.input()
    (upper, lower, (_, top, _, bottom)), _ = rectangles(z.draw())
    paths = [p for p in ET.fromstring(z.draw().to_svg()).iter(f"{SVG}path") if p.get("fill") == "none"]
    ends = [float(p.get("d").split()[-1]) for p in paths]
    assert top < ends[0] < ends[1] < bottom
    assert (top + bottom) / 2 == pytest.approx((upper[1] + lower[3]) / 2, abs=0.2)


def test_edges_past_a_column_look_like_what_they_are():
    """Like the edge, where there is one; like none in particular, where there are several."""
    for ends, colour in ((1, svg.NEGATIVE), (2, svg.PLAIN)):
        g = mlgraph.Graph()
        x = g.input()
        h = g.add_neuron([x], "tanh", weights=[0.5])
        outputs = [g.add_neuron([x, h], weights=[-1 - k, 0.5]) for k in range(ends)]
        root = ET.fromstring(Drawing(outputs).to_svg())
        assert [path.get("stroke") for path in root.findall(f"{SVG}path")] == [colour]


def test_an_edge_past_a_column_goes_on_behind_it():
    g = mlgraph.Graph()
    x = g.input()
    h = g.add_neuron([x], "tanh", weights=[0.5])
    z = g.add_neuron([x, h], weights=[1, 2])
    found, _ = rectangles(z.draw())
    paths = [p.get("d").split() for p in ET.fromstring(z.draw().to_svg()).iter(f"{SVG}path") if p.get("fill") == "none"]
    (past, _, x_to_z, h_to_z) = paths
    assert float(past[-1]) == float(x_to_z[1]) == float(h_to_z[1]) == found[h.id][2] and past[-2] == "H"
    assert past[-3] == x_to_z[2] != h_to_z[2]  # at one height


def test_lines_stand_in_the_middle_of_a_tall_box():
    g = mlgraph.Graph()
    drawing = g.add_neuron(g.inputs(12), weights=np.ones(12)).draw()
    *_, box = [g for g in ET.fromstring(drawing.to_svg()).iter(f"{SVG}g") if g.find(f"{SVG}rect") is not None]
    rectangle, lines = box.find(f"{SVG}rect"), [float(t.get("y")) for t in box.iter(f"{SVG}text")]
    middle = float(rectangle.get("y")) + float(rectangle.get("height")) / 2
    assert len(lines) == 3 and abs(np.mean(lines) - 4 - middle) < 2  # a line stands on its y, half of it is 4 pixels


def test_weights_are_written_apart():
    g = mlgraph.Graph()
    out = g.add_neuron(g.inputs(12), weights=np.arange(12) / 8)
    root = ET.fromstring(out.draw().to_svg())
    heights = sorted(float(t.get("y")) for t in root.iter(f"{SVG}text") if t.get("text-anchor") == "end")[::2]
    assert len(heights) == 12 and np.diff(heights).min() >= 11, "no line of 11 pixels lies over another"


def test_edges_that_need_not_cross_do_not_and_colours_say_the_sign():
    g = mlgraph.Graph()
    x = g.inputs(4)
    neurons = [g.add_neuron([x[3 - k]], "tanh", weights=[1 - 2 * (k % 2)]) for k in range(4)]
    drawing = Drawing(neurons)
    top = [box[1] for box in rectangles(drawing)[0]]  # of the inputs, then of the neurons
    assert np.argsort(top[:4]).tolist() == [3 - k for k in np.argsort(top[4:])]
    lines = [
        g.find(f"{SVG}path")
        for g in ET.fromstring(drawing.to_svg()).iter(f"{SVG}g")
        if g.find(f"{SVG}path") is not None
    ]
    assert [line.get("stroke") for line in lines] == [svg.POSITIVE, svg.NEGATIVE] * 2


@pytest.mark.parametrize("seed", range(5))
def test_edges_that_cross(seed):
    """Links that share an end do not."""
    pairs = {(int(a), int(b)) for a, b in np.random.default_rng(seed).integers(0, 6, (14, 2))}
    layout = object.__new__(svg._Layout)
    layout._columns = [[(i, column) for i in range(6)] for column in (0, 1)]
    layout._right_of = {(i, 0): [(b, 1) for a, b in pairs if a == i] for i in range(6)}
    assert layout._crossings() == sum(a < c and b > d for a, b in pairs for c, d in pairs) > 0
