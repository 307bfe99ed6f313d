"""Drawings of graphs: what the boxes say, how large graphs are folded, and which names can be written."""

import re

import numpy as np
import pandas as pd
import pytest
from drawn import SVG, boxes, edges, elements, groups, network, random_neurons
from graphs import readme_of_micrograd

import mlgraph
from mlgraph.pictures import Drawing

# --- what is drawn --------------------------------------------------------------------------------


def test_a_small_graph_shows_every_node_and_edge():
    g = mlgraph.Graph()
    x, w = g.add_input("x"), g.add_parameter(0.5, "w")
    z = mlgraph.relu(w * x - 3) / g.add_neuron([x], "tanh", weights=[1])
    mlgraph.sin(x)
    assert sorted(box[0] for box in boxes(g.draw())) == sorted(["x", "w", "×", "3", "−", "relu", "÷", "sin", "n6 tanh"])
    assert sorted(edges(g.draw())) == sorted((f"n{s.id}", f"n{n.id}") for n in g for s in n.sources)
    assert len(boxes(z.draw())) == len(boxes(Drawing([z, x]))) == len(g) - 1  # without sin


def test_values_and_adjoints_of_an_example():
    """The numbers are those of micrograd's README."""
    g = mlgraph.Graph()
    z = readme_of_micrograd(g.add_input("a"), g.add_input("b"))
    drawing = z.draw(x=[-4, 2])
    shown = boxes(drawing)
    assert ["a", "-4", "∂ 138.83"] in shown and ["b", "2", "∂ 645.58"] in shown and ["+", "24.704", "∂ 1"] in shown
    assert [len(t) for t in shown] == [1 if node.kind == "constant" else 3 for node in g]
    assert r'label="b\n2\n∂ 645.58"' in drawing.to_dot()


def test_adjoints_are_those_of_the_sum_of_the_outputs():
    g = mlgraph.Graph()
    x = g.add_inputs(2)
    assert boxes(Drawing([x[0] * x[1], x[0] * 3], x=[2.0, 5.0]))[0] == ["n0", "2", "∂ 8"]
    assert boxes((g.add_input() + x[0]).draw(x=np.array([51, 0, 255], np.uint8)))[-1] == ["+", "306", "∂ 1"]


def test_given_values_and_names_replace_others():
    g = mlgraph.Graph()
    x, two = g.add_input("x"), g.add_constant(2.0)
    square = x * x
    square.name, two.name = "square", "two"
    drawn = boxes((square + two).draw(x=[1.0], values={square: 4321.0}, adjoints={x.id: np.nan}))
    assert drawn == [["x", "1", "∂ nan"], ["two 2"], ["square ×", "4321", "∂ 1"], ["+", "3", "∂ 1"]]


def test_weights_and_biases_of_a_small_graph():
    g = mlgraph.Graph(seed=0)
    few, more = g.add_inputs(2), g.add_inputs(41)
    drawing = g.add_neuron(few, weights=[0.5, -2], bias=0.25).draw()
    assert boxes(drawing)[2][1:] == ["bias 0.25"]
    assert re.findall(r"-> n\d+ (.*);", drawing.to_dot()) == ['[label="0.5"]', '[label="-2"]']
    drawn = groups(drawing, of_boxes=False)
    assert [g.findtext(f"{SVG}title") for g in drawn] == ["weight 0.5", "weight -2"]
    thin, thick = (g.find(f"{SVG}path") for g in drawn)
    assert (thin.get("stroke-width"), thick.get("stroke-width")) == ("1.12", "3.00")
    assert boxes(g.add_neuron(few, weights=[0.5, -2], bias=None).draw())[2][1:] == []
    for n in (40, 41):  # up to 40 edges
        texts = [t.text for t in elements(g.add_neuron(more[:n], weights=np.full(n, 0.5)).draw(limit=100), "text")]
        assert ("bias 0" in texts) == ("0.5" in texts) == (n == 40)
    assert [boxes(g.add_neuron(more[:n], bias=None).draw())[-1][1:] for n in (8, 9)] == [[], ["9 sources"]]


def test_a_softmax_is_one_box():
    net = network(4, 5, 3)
    drawing, (cat, *_), graph = net.draw(), net.probabilities, net.graph
    assert [len(boxes(d)) for d in (drawing, graph.draw(), Drawing(graph, limit=3))] == [13, 13, 3]
    assert boxes(drawing)[-1] == ["softmax"] and 'tooltip="softmax(1.0, 1.1, 1.2)"' in drawing.to_dot()
    assert sum("label" in line for line in drawing.to_dot().splitlines() if "->" in line) == 35  # weights as numbers
    assert [pair for pair in edges(drawing) if pair[1] == f"n{cat.id}"] == [
        (f"n{z.id}", f"n{cat.id}") for z in net.outputs
    ]
    cat.name, loss = "cat", -mlgraph.log(cat)
    assert boxes(Drawing([loss, *net.probabilities], x=np.zeros(4)))[-3] == [
        "softmax", "cat: 0.33333", "1: 0.33333", "2: 0.33333", "∂ -2 … 1",
    ]  # fmt: skip
    assert ["max"] in boxes(loss.draw())  # the other probabilities are missing


def test_other_softmaxes():
    g = mlgraph.Graph()
    x = g.add_inputs(12)
    shown = boxes(Drawing(mlgraph.softmax(*x), x=np.arange(12)))[-1]
    assert shown == ["softmax", "1.0558e-05 … 0.63212", "∂ 1"]
    total = mlgraph.logsumexp(*x[:2])
    old = [mlgraph.exp(z - total) for z in x[:2]]  # as in files of older versions
    assert boxes(Drawing(old)) == [["n0"], ["n1"], ["softmax"]]
    assert ["logsumexp"] in boxes(Drawing([*old, total])) and ["logsumexp"] in boxes(Drawing([*old, total * 2]))
    total.name = "total"
    assert ["total logsumexp"] in boxes(Drawing(old))
    many = [p for k in range(9) for p in mlgraph.softmax(x[k], x[k + 1])]
    assert boxes(Drawing(many, limit=12))[-1] == ["9 × softmax"]


@pytest.mark.parametrize("weights", [[1.0, -np.inf], [np.inf, 1.0], [0.0, 0.0]])
def test_every_edge_has_a_finite_width(weights):
    g = mlgraph.Graph()
    widths = re.findall(r'stroke-width="([^"]*)"', g.add_neuron(g.add_inputs(2), weights=weights).draw().to_svg())
    assert all(0 < float(width) <= 3 for width in widths)


def test_outputs_are_bold():
    """Those of a whole graph are the operations and live neurons that nothing reads."""
    net = network(2, 3, 2)
    net.graph.add_input("target")
    net.graph.prune(net.layers[0][1].out_edges)
    bold = [line.split()[0] for line in net.graph.draw().to_dot().splitlines() if "penwidth=2" in line]
    assert bold == [f"n{net.probabilities[0].id}"]


# --- models ---------------------------------------------------------------------------------------


def test_a_model_shows_derivatives_of_its_loss():
    net = network(2, 3, 2)
    net.layers[0][1].prune()
    x = np.array([[1.0, -2.0]], np.float32)
    traced, drawing = net.trace(x, [1]), net.draw(x[0], 1)
    shown = {box[0].split()[0]: box[1:] for box in boxes(drawing)}
    for name, neuron in {f"{i}.{k}": n for i, layer in enumerate(net.layers) for k, n in enumerate(layer)}.items():
        assert (name in shown) == neuron.alive
        if neuron.alive:
            numbers = [f"{traced[neuron][0]:.5g}", f"∂ {traced.adjoint(neuron)[0]:.5g}"]
            assert shown[name] == [f"bias {neuron.bias:.4g}", *numbers]
    probabilities = [f"{k}: {p:.5g}" for k, p in enumerate(net.predict_proba(x)[0])]
    assert boxes(drawing)[-1] == ["softmax", *probabilities]  # without adjoints: the loss takes the logits
    assert "∂" not in net.draw(x[0]).to_svg() and net.draw(x[0], [0, 1]).to_dot() == drawing.to_dot()


def test_a_model_whose_loss_is_a_node():
    g = mlgraph.Graph()
    x, target = g.add_input("x"), g.add_input("target")
    out = g.add_neuron([x], weights=[3.0])
    model = mlgraph.Model(g, out, loss=(out - target) ** 2)
    shown = {box[0]: box[1:] for box in boxes(model.draw([2.0], 5.0))}
    assert shown["x"] == ["2", "∂ 6"] and shown["target"] == ["5", "∂ -2"] and shown["^"] == ["1", "∂ 1"]
    assert model.draw([2.0], 5.0).to_dot() == model.draw([2.0], [5.0]).to_dot() == model.draw([2.0, 5.0], ()).to_dot()
    assert boxes(model.draw([2.0])) == [["x", "2"], [f"{out.name} identity", "bias 0", "6"]]  # no target, no loss
    assert boxes(mlgraph.Model(g, g.add_constant(2.0)).draw([1.0, 2.0])) == [["2"]]


SOFTMAX = network(2, 2)
LOSS_NODE = mlgraph.Graph()
A, B, TARGET = LOSS_NODE.add_inputs(3)
SUM = mlgraph.Model(LOSS_NODE, A + B, loss=(A + B - TARGET) ** 2)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: SOFTMAX.draw(None, 1), "y: needs an example x"),
        (lambda: SOFTMAX.draw([[1, 2], [3, 4]]), r"x: expected one example of shape \(2,\)"),
        (lambda: SOFTMAX.draw([1, 2], 2), "y: expected labels from 0 to 1, got 2 to 2"),
        (lambda: SOFTMAX.draw([1, 2], [1]), r"y: expected the label or the targets of one example, .* got \(1,\)$"),
        (lambda: SUM.draw([1, 2], [3, 4]), r"x and y: expected 3 numbers of one example, got shapes \(2,\) and \(2,\)"),
        (lambda: SUM.draw([1, 2], ()), r"x: expected one example of shape \(3,\), got \(2,\)"),
        (lambda: SUM.draw([1, 2], "a"), "y: expected numbers, got "),
        (lambda: A.draw(limit=1), "limit: expected an integer of at least 2, got 1"),
        (lambda: A.draw(values=[1.0]), "values: expected a mapping from nodes or ids to numbers, got "),
        (lambda: Drawing(3), "nodes: expected a graph or nodes, got int"),
        (lambda: Drawing([]), "nodes: expected a graph or at least one node, got none"),
        (lambda: Drawing([A, 3]), "nodes: expected nodes, got int"),
        (lambda: Drawing([A, mlgraph.Graph().add_input()]), "nodes: expected nodes of one graph"),
        (lambda: A.draw().save("y.png"), "path: expected a name that ends in .svg, .dot or .gv, got 'y.png'$"),
    ],
)
def test_mistakes(attempt, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        attempt()


# --- folding --------------------------------------------------------------------------------------


def test_layers_become_boxes():
    net = network(784, 32, 10)
    drawing = net.graph.draw()
    assert boxes(drawing) == [
        ["784 inputs"],
        ["32 leaky_relu neurons", "784 sources each"],
        ["10 identity neurons", "32 sources each"],
        ["softmax"],
    ]
    assert drawing.to_dot().count("25,088 edges") == 1 and 'tooltip="784 nodes, n0 to n783"' in drawing.to_dot()


def test_a_folded_box_shows_ranges():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(12)
    z = mlgraph.sum(*x)
    assert boxes(z.draw(x=[*range(6, 12), *range(6)], limit=2))[0] == ["12 inputs", "0 … 11", "∂ 1"]
    neurons = [g.add_neuron(x[: 1 + k], "tanh") for k in range(12)]
    assert boxes(Drawing(neurons, limit=2)) == [["12 inputs"], ["12 tanh neurons", "1 … 12 sources each"]]


@pytest.mark.parametrize(("inputs", "sines", "limit", "drawn"), [(5, 4, 6, 6), (12, 8, 12, 10), (12, 9, 12, 3)])
def test_the_largest_groups_are_folded_first(inputs, sines, limit, drawn):
    g = mlgraph.Graph()
    x = g.add_inputs(inputs)
    z = mlgraph.sum(*map(mlgraph.sin, x[:sines]), *x[sines:])
    assert len(boxes(z.draw(limit=limit))) == drawn


@pytest.mark.parametrize("limit", [2, 3, 60])
@pytest.mark.parametrize("graph", [network(3, 4, 3, 2).graph, random_neurons(500), random_neurons(54)], ids=repr)
def test_the_limit_is_kept(graph, limit):
    drawing = Drawing(graph, limit=limit)
    n_boxes = len(boxes(drawing))
    assert 2 <= n_boxes <= limit and len({key for pair in edges(drawing) for key in pair}) == n_boxes
    assert len(graph) > limit or n_boxes == (13 if len(graph) == 20 else len(graph))  # 8 nodes are a softmax


def test_a_deep_graph_is_folded_by_ranges_of_levels():
    g = mlgraph.Graph()
    x = y = g.add_input("x")
    for _ in range(5_000):
        y = mlgraph.sin(abs(y)) + x
    shown = boxes(y.draw())
    assert len(shown) == 9 and shown[0] == ["x"]
    assert shown[1] == ["1,875 nodes", "levels 1 to 1,875", "625 × abs", "625 × sin", "625 × add"]
    for k in range(40):
        x = g.add_neuron([x], weights=[k])
    assert re.findall(r'-> \w+ \[label="(.*)"\];', x.draw(limit=9).to_dot()) == [str(5 * band) for band in range(8)]


# --- text and files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ['<&>"', "back\\slash\\n", "two\nlines", "ünïcode 漢字 ∂", "\x00\x1b\ud800\uffff", "", "]]>", "x" * 28, "x" * 29],
    ids=repr,
)
def test_any_name_can_be_written(name):
    g = mlgraph.Graph()
    drawing = g.add_input(name).draw()
    shown = " ".join(re.sub(r"[\x00\x1b\ud800\uffff]", "\N{REPLACEMENT CHARACTER}", name).split())
    shown = shown if len(shown) <= 28 else shown[:27] + "…"
    assert (boxes(drawing)[0][0] or "") == shown  # parses the XML
    drawing.to_svg().encode()
    line = drawing.to_dot().encode().decode().splitlines()[2]
    # Graphviz needs a backslash before each quote, backslash and line end within a string.
    assert re.fullmatch(r'  \w+ \[(\w+=("([^"\\]|\\.)*"|\w+)(, )?)+\];', line)
    assert f'label="{shown}"'.replace("\\", "\\\\").replace('"', '\\"')[7:-2] in line


def test_notebooks_display_the_picture():
    g = mlgraph.Graph()
    z = mlgraph.exp(g.add_input("x"))
    assert repr(z.draw()) == "<Drawing of 2 boxes: save('picture.svg') writes it>"
    assert g._repr_svg_() == z._repr_svg_() == z.draw()._repr_svg_() == z.draw().to_svg()
    assert boxes(mlgraph.Graph().draw()) == boxes(mlgraph.Graph().draw(x=[])) == []


@pytest.mark.parametrize("name", ["net.svg", "net.DOT", "net.gv"])
def test_save_writes_the_format_of_the_suffix(tmp_path, name):
    drawing = network(3, 4, 2).draw([0.1, 0.2, 0.3])
    drawing.save(tmp_path / name)
    assert (tmp_path / name).read_text() == (drawing.to_svg() if name.endswith("svg") else drawing.to_dot())
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_an_example_may_be_a_frame_of_one_row_which_is_read_by_name():
    frame = pd.DataFrame(np.random.default_rng(0).normal(5, 1, (30, 3)), columns=["a", "b", "c"])
    net = mlgraph.Network(3, seed=0)
    net.add_layer(1)
    net.fit(frame, frame["a"], epochs=1, standardize=True)
    expected = net.draw(frame.to_numpy()[4]).to_dot()
    for one in (frame.to_numpy()[4:5], frame[4:5], frame[["c", "a", "b"]][4:5]):
        assert net.draw(one).to_dot() == expected
    with pytest.raises(ValueError, match=r"^x: expected one example of shape \(3,\), got \(2, 3\)"):
        net.draw(frame[4:6])


def test_probabilities_bear_the_names_of_the_classes():
    x, labels = np.random.default_rng(0).normal(size=(30, 2)), np.array(["cat", "dog", "owl"] * 10)
    net = network(2, 3)
    net.fit(x, labels, epochs=1)
    assert boxes(net.draw())[-1] == ["softmax", "cat", "dog", "owl"]
    shown = [f"{name}: {p:.5g}" for name, p in zip(net.classes, net.predict_proba(x[:1])[0], strict=True)]
    assert boxes(net.draw(x[0]))[-1] == ["softmax", *shown]
