"""Pictures of graphs: what is on them, how much is folded, and that any name can be written."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from drawn import SVG, boxes, edges, network, random_neurons, texts

import mlgraph
from mlgraph.pictures.drawing import FEW, MOST_BOXES, Drawing


def test_every_node_of_a_small_graph():
    g = mlgraph.Graph()
    x, w = g.input("x"), g.parameter(0.5, "w")
    z = mlgraph.relu(w * x - 3) / g.add_neuron([x], "tanh", weights=[1])
    assert sorted(texts[0] for texts in boxes(g.draw())) == sorted(["x", "w", "×", "3", "−", "relu", "n6 tanh", "÷"])
    assert sorted(edges(g.draw())) == sorted((f"n{s.id}", f"n{n.id}") for n in g for s in n.sources)
    assert len(boxes(z.draw())) == len(g)


def test_a_node_draws_what_it_depends_on():
    g = mlgraph.Graph()
    x, y = g.input("x"), g.input("y")
    z = mlgraph.exp(x)
    mlgraph.sin(y)
    assert [texts[0] for texts in boxes(z.draw())] == ["x", "exp"]
    assert [texts[0] for texts in boxes(Drawing([z, y]))] == ["x", "y", "exp"]
    assert len(boxes(g.draw())) == 4


def test_values_and_adjoints():
    """micrograd's example, with the numbers of its README on every node but constants."""
    from graphs import readme_of_micrograd

    g = mlgraph.Graph()
    z = readme_of_micrograd(g.input("a"), g.input("b"))
    texts = boxes(z.draw(x=[-4, 2]))
    assert boxes(z.draw([-4, 2])) == texts
    assert ["a", "-4", "∂ 138.83"] in texts
    assert ["b", "2", "∂ 645.58"] in texts
    assert ["+", "24.704", "∂ 1"] in texts
    assert [len(t) for t in texts] == [1 if node.kind == "constant" else 3 for node in g]
    assert r'label="b\n2\n∂ 645.58"' in z.draw(x=[-4, 2]).to_dot()


def test_numbers_are_those_of_the_sweep():
    g = mlgraph.Graph()
    x = g.inputs(2)
    w = g.parameter(2.0)
    h = g.add_neuron([x[0], w], "sigmoid", weights=[1, -1], bias=0.5)
    outputs = [mlgraph.max(h, x[1], w) * h, mlgraph.where(x[0], h, w), h]
    drawing = Drawing(outputs, x=[0.25, 3.0])
    gradients = g.compile(outputs).vjp([[0.25, 3.0]])
    np.testing.assert_allclose([drawing._values[o.id] for o in outputs], gradients.values[0], rtol=1e-6)
    np.testing.assert_allclose([drawing._adjoints[i.id] for i in x], gradients.inputs[0], rtol=1e-6)
    np.testing.assert_allclose(drawing._adjoints[w.id], gradients.of(w), rtol=1e-6)


def test_numbers_can_be_given():
    g = mlgraph.Graph()
    x = g.input("x")
    z = mlgraph.exp(x)
    assert boxes(z.draw(values={x.id: 0.125})) == [["x", "0.125"], ["exp"]]
    assert boxes(z.draw(adjoints={z.id: np.nan})) == [["x"], ["exp", "∂ nan"]]
    assert boxes(z.draw(x=[0], values={z.id: 7.0})) == [["x", "0", "∂ 1"], ["exp", "7", "∂ 1"]]


def test_a_model_with_its_loss():
    """Derivatives of the loss, of the nodes that it depends on; nothing that is cut off is there."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(3, "tanh")
    net.add_layer(2, "softmax")
    net.layers[0].neurons[1].prune()
    x = np.array([[1.0, -2.0]], np.float32)
    traced = net.trace(x, [1])
    shown = {box[0]: box[1:] for box in boxes(net.draw(x[0], 1))}
    for layer in net.layers:
        for neuron in layer.neurons:
            title = next((t for t in shown if t.startswith(f"{neuron.name} ")), None)
            assert (title is not None) == neuron.alive
            if title:
                numbers = [f"{traced[neuron][0]:.5g}", f"∂ {traced.adjoint(neuron)[0]:.5g}"]
                assert shown[title] == [f"bias {neuron.bias:.4g}", *numbers]
    p = net.predict_proba(x)[0]
    assert sorted(box[1:] for box in boxes(net.draw(x[0], 1)) if box[0] == "exp") == sorted([f"{v:.5g}"] for v in p)
    assert "∂" in net.draw(x[0], 1).to_svg() and "∂" not in net.draw(x[0]).to_svg()
    assert len(boxes(net.draw())) == len(boxes(net.draw(x[0], 1))) > len(boxes(net.draw(limit=4)))


def test_a_model_whose_loss_is_a_node():
    g = mlgraph.Graph()
    x, target = g.input("x"), g.input("target")
    out = g.add_neuron([x], weights=[3.0])
    model = mlgraph.Model(g, out, loss=(out - target) ** 2)
    shown = {box[0]: box[1:] for box in boxes(model.draw([2.0, 5.0], ()))}
    assert shown["x"] == ["2", "∂ 6"] and shown["target"] == ["5", "∂ -2"] and shown["^"] == ["1", "∂ 1"]
    shown = {box[0]: box[1:] for box in boxes(model.draw([2.0, 5.0]))}
    assert shown["x"] == ["2"] and shown["target"] == ["5"] and shown["^"] == ["1"]
    assert boxes(model.draw([2.0])) == [["x", "2"], [f"{out.name} identity", "bias 0", "6"]]  # no target, no loss
    for wrong in ([[2.0]], [], [1.0, 2.0, 3.0], 2.0):
        with pytest.raises(ValueError, match=r"^x: expected one example of shape \(2,\), got "):
            model.draw(wrong)
    for given, message in (
        (([[2.0, 5.0]], ()), r"x: expected one example of shape \(2,\)"),
        (([2.0, [1, 2]], 5), "x: expected "),
        (([2.0], "a"), "y: expected numbers, got "),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{message}"):
            model.draw(*given)


def test_errors_of_a_model():
    net = mlgraph.Network(2, seed=0)
    net.add_layer(2, "softmax")
    for given, message in (
        ((None, 1), "y: expected an example x with it, got none"),
        (([[1, 2]],), r"x: expected one example of shape \(2,\)"),
        (([1, 2], 2), "y: expected labels from 0 to 1, got 2 to 2"),
        (([1, 2], [1]), r"y: expected the label or the targets of one example, of shape \(\) or \(2,\), got \(1,\)$"),
    ):
        with pytest.raises(ValueError, match=message):
            net.draw(*given)
    assert net.draw([1, 2], [0, 1]).to_dot() == net.draw([1, 2], 1).to_dot()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([[1.0, 2.0]], 3.0, r"x and y: expected 3 numbers, of one example, got shapes \(1, 2\) and \(\)"),
        ([1.0, 2.0], [[3.0]], r"x and y: expected 3 numbers, .* got shapes \(2,\) and \(1, 1\)"),
        ([1.0, 2.0], [3.0, 4.0], r"x and y: expected 3 numbers, .* got shapes \(2,\) and \(2,\)"),
        ([1.0], 3.0, r"x and y: expected 3 numbers, .* got shapes \(1,\) and \(\)"),
        ([1.0, 2.0], (), r"x: expected one example of shape \(3,\), got \(2,\)"),
        ([1.0, 2.0], [[3.0], [4.0, 5.0]], "y: expected an array of numbers, got rows of different lengths"),
    ],
)
def test_errors_of_a_model_whose_loss_reads_targets(x, y, message):
    g = mlgraph.Graph()
    a, b, target = g.inputs(3)
    model = mlgraph.Model(g, a + b, loss=(a + b - target) ** 2)
    drawn = [model.draw(*data).to_dot() for data in (([1.0, 2.0], 4.0), ([1.0, 2.0], [4.0]), ([1.0, 2.0, 4.0], ()))]
    assert drawn[0] == drawn[1] == drawn[2]
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        model.draw(x, y)


def test_bytes_and_the_shape_of_an_example():
    g = mlgraph.Graph()
    z = g.input() + g.input()
    assert boxes(z.draw(x=np.array([51, 255], np.uint8)))[2][1] == "1.2"
    for wrong in ([1], [[1, 2]], 3):
        with pytest.raises(ValueError, match=r"x: expected one example of shape \(2,\), got \("):
            z.draw(x=wrong)


def test_layers_are_folded():
    drawing = network(784, 32, 10).graph.draw()
    assert boxes(drawing) == [
        ["784 inputs"],
        ["32 leaky_relu neurons", "784 sources each"],
        ["10 identity neurons", "32 sources each"],
        ["logsumexp"],
        ["10 × sub"],
        ["10 × exp"],
    ]
    assert drawing.to_dot().count("25,088 edges") == 1
    labels = [t for t in ET.fromstring(drawing.to_svg()).iter(f"{SVG}text") if t.text == "25,088 edges"]
    assert [t.get("stroke", "none") for t in labels] == ["white", "none"]  # the label, on a white one


def test_a_neuron_of_a_large_network():
    neuron = network(784, 32, 10).layers[0].neurons[3]
    assert boxes(neuron.draw()) == [["784 inputs"], [f"{neuron.name} leaky_relu", "784 sources"]]


def test_folded_numbers_are_a_range():
    g = mlgraph.Graph()
    z = mlgraph.sum(*g.inputs(100))
    assert boxes(z.draw(x=np.arange(100))) == [["100 inputs", "0 … 99", "∂ 1"], ["sum", "4950", "∂ 1"]]


def test_folded_neurons_have_a_range_of_sources():
    g = mlgraph.Graph()
    x = g.inputs(12)
    for k in range(12):
        g.add_neuron(x[: 1 + k], "tanh")
    assert boxes(g.draw(limit=2)) == [["12 inputs"], ["12 tanh neurons", "1 … 12 sources each"]]
    for k in range(12):
        g.add_neuron(x[k : k + 1], "relu")
    assert boxes(g.draw(limit=3))[2] == ["12 relu neurons", "1 source each"]


def test_a_range_goes_from_the_least_to_the_most():
    g = mlgraph.Graph()
    z = mlgraph.sum(*g.inputs(100))
    assert boxes(z.draw(x=[*range(50, 100), *range(50)]))[0] == ["100 inputs", "0 … 99", "∂ 1"]


def test_only_what_must_be_is_folded():
    """70 inputs and 20 nodes after them: the inputs become one box, the others stay."""
    g = mlgraph.Graph()
    z = mlgraph.sum(*g.inputs(70))
    for _ in range(20):
        z = mlgraph.sin(z)
    assert len(boxes(g.draw())) == 22
    assert len(boxes(random_neurons(MOST_BOXES - 6).draw())) == MOST_BOXES


@pytest.mark.parametrize(("inputs", "sines", "limit", "drawn"), [(5, 4, 6, 6), (12, 8, 12, 10), (12, 9, 12, 3)])
def test_the_largest_is_folded_first_and_then_what_is_many(inputs, sines, limit, drawn):
    g = mlgraph.Graph()
    x = g.inputs(inputs)
    z = mlgraph.sum(*map(mlgraph.sin, x[:sines]), *x[sines:])
    assert len(boxes(z.draw(limit=limit))) == drawn


def test_a_chain_as_long_as_the_limit_is_not_folded():
    g = mlgraph.Graph()
    z = g.input()
    for _ in range(9):
        z = mlgraph.sin(z)
    assert len(boxes(z.draw(limit=10))) == 10


def test_a_neuron_says_how_many_sources_if_they_are_many():
    g = mlgraph.Graph()
    x = g.inputs(9)
    assert [boxes(g.add_neuron(x[:n], bias=None).draw())[-1][1:] for n in (8, 9)] == [[], ["9 sources"]]


def random_operations(n, seed=0):
    """Of inputs, constants and parameters."""
    rng = np.random.default_rng(seed)
    g = mlgraph.Graph()
    nodes = [*g.inputs(3), g.parameter(0.5), g.constant(2.0)]
    for i in range(n):
        early, late = int(rng.integers(len(nodes))), int(rng.integers(max(0, len(nodes) - 9), len(nodes)))
        nodes.append(nodes[early] * nodes[late] + i % 7)
    return g


@pytest.mark.parametrize("limit", [2, 3, 10, 60])
@pytest.mark.parametrize(
    "graph",
    [
        network(784, 32, 10).graph,
        network(3, 4, 3, 2).graph,
        random_neurons(500),
        random_operations(40),
        random_operations(100),
    ],
    ids=repr,
)
def test_never_more_than_the_limit(graph, limit):
    drawing = Drawing(graph, limit=limit)
    texts = boxes(drawing)
    assert 2 <= len(texts) <= limit
    assert sum(len(box.nodes) for box in drawing._boxes) == len(graph)
    assert len({key for pair in edges(drawing) for key in pair}) == len(texts)


def test_a_deep_graph_is_cut_into_runs_of_levels():
    g = mlgraph.Graph()
    x = y = g.input("x")
    for _ in range(50_000):
        y = mlgraph.sin(y) + x
    texts = boxes(y.draw())
    assert texts[0] == ["x"]
    assert texts[1] == ["12,500 nodes", "levels 1 to 12,500", "6,250 × sin", "6,250 × add"]
    assert len(texts) == 9


def test_a_run_of_levels_tells_its_three_most_frequent_kinds():
    g = mlgraph.Graph()
    y = g.input()
    for _ in range(40):
        y = mlgraph.exp(mlgraph.cos(mlgraph.cos(mlgraph.sin(mlgraph.sin(mlgraph.sin(abs(abs(abs(abs(y))))))))))
    assert boxes(y.draw())[1] == ["50 nodes", "levels 1 to 50", "20 × abs", "15 × sin", "10 × cos"]


def test_weights_between_runs_of_levels():
    g = mlgraph.Graph()
    z = g.input()
    for k in range(40):
        z = g.add_neuron([z], weights=[k])
    assert re.findall(r'-> \w+ \[label="(.*)"\];', z.draw(limit=9).to_dot()) == [str(5 * run) for run in range(8)]


def test_weights_show():
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    root = ET.fromstring(g.add_neuron([x, y], weights=[0.5, -2]).draw().to_svg())
    groups = [g for g in root.iter(f"{SVG}g") if g.find(f"{SVG}rect") is None]
    assert [g.findtext(f"{SVG}title") for g in groups] == ["weight 0.5", "weight -2"]
    thin, thick = (g.find(f"{SVG}path") for g in groups)
    assert float(thin.get("stroke-width")) < float(thick.get("stroke-width"))
    assert thin.get("stroke") != thick.get("stroke")


def test_the_largest_weight_is_the_widest_edge():
    g = mlgraph.Graph()
    text = g.add_neuron(g.inputs(2), weights=[0.5, -2]).draw().to_svg()
    assert sorted(re.findall(r'stroke="#\w+" stroke-width="(\d\.\d+)"', text)) == ["1.12", "3.00"]


def test_edges_drawn_as_one_have_no_weight():
    root = ET.fromstring(network(20, 10, 2).graph.draw(limit=10).to_svg())
    tips = [g.findtext(f"{SVG}title") for g in root.iter(f"{SVG}g") if g.find(f"{SVG}rect") is None]
    assert tips[0] == "200 edges"


def test_weights_and_biases_are_written_where_they_are_few():
    g = mlgraph.Graph()
    few, more = g.inputs(2), g.inputs(FEW + 1)
    out = g.add_neuron(few, weights=[0.5, -2], bias=0.25)
    assert boxes(out.draw())[2] == [f"{out.name} identity", "bias 0.25"]
    assert re.findall(r"-> n\d+ (.*);", out.draw().to_dot()) == ['[label="0.5"]', '[label="-2"]']
    assert [t for t in texts(out.draw()) if t in ("0.5", "-2")] == ["0.5", "0.5", "-2", "-2"]  # each on white
    assert boxes(g.add_neuron(few, weights=[0.5, -2], bias=None).draw())[2][1:] == []
    for n, written in ((FEW, True), (FEW + 1, False)):
        drawing = g.add_neuron(more[:n], weights=np.full(n, 0.5)).draw(limit=100)
        assert ("bias 0" in texts(drawing), "0.5" in texts(drawing)) == (written, written)


NAMES = [
    '<&>"',
    "it's",
    'a "quote"',
    "back\\slash",
    "two\nlines",
    "ünïcode 漢字 ∂",
    "\x00\x1b\ud800\uffff",
    "",
    "]]>",
    "%s",
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_any_name_can_be_written(name):
    g = mlgraph.Graph()
    x = g.input(name)
    z = x * g.parameter(1, name)
    texts = boxes(z.draw())  # parses the XML
    shown = " ".join(re.sub(r"[\x00\x1b\ud800\uffff]", "\N{REPLACEMENT CHARACTER}", name).split())
    assert [texts[0][0] or "", texts[1][0] or ""] == [shown, shown]
    z.draw().to_svg().encode()
    dot = z.draw().to_dot()
    dot.encode()
    for line in dot.splitlines()[2:-3]:
        # What Graphviz takes for one quoted string: no quote or line end in it but after a backslash.
        assert re.fullmatch(r'  \w+ \[(\w+=("([^"\\]|\\.)*"|\w+)(, )?)+\];', line)


def test_a_long_name_is_cut_short():
    g = mlgraph.Graph()
    (text,) = boxes(g.input("x" * 1000).draw())[0]
    assert text.endswith("…") and len(text) < 40


def test_a_name_that_just_fits_is_not_cut():
    g = mlgraph.Graph()
    assert boxes(g.input("x" * 28).draw()) == [["x" * 28]]
    assert boxes(g.input("x" * 29).draw()) == [["x" * 27 + "…"]]


def test_graphviz_reads_a_backslash_as_one():
    g = mlgraph.Graph()
    assert r'label="a\\n", tooltip=' in g.input(r"a\n").draw().to_dot()


def test_outputs_stand_out():
    g = mlgraph.Graph()
    x = g.input()
    z = mlgraph.exp(x)
    assert z.draw().to_dot().splitlines()[2:4] == [
        '  n0 [label="n0", tooltip="n0", fillcolor="#e3effb", color="#3b7dc4"];',
        '  n1 [label="exp", tooltip="exp(n0)", fillcolor="#ffffff", color="#555555", penwidth=2];',
    ]


def test_of_a_graph_what_is_cut_off_and_what_nothing_reads_are_no_outputs():
    net = mlgraph.Network(2, seed=0)
    hidden, _ = net.add_layer(3, "tanh"), net.add_layer(2, "identity")
    target = net.graph.input("target")
    hidden[0].prune()
    net.graph.prune(hidden[1].out_edges)
    bold = [line.split()[0] for line in net.graph.draw().to_dot().splitlines() if "penwidth=2" in line]
    assert bold == [f"n{output.id}" for output in net.outputs]
    x = [0.5, -1.0, 3.0]
    shown = {box[0].split()[0]: box for box in boxes(net.graph.draw(x))}
    assert all("∂ 0" in shown[node.name] for node in (hidden[0], hidden[1], target))


def test_a_folded_output_stands_out():
    """With all of its box; a box of several kinds has no kind's colour."""
    g = mlgraph.Graph()
    z, w = g.input(), g.parameter(1.0)
    for _ in range(100):
        z = g.add_neuron([z, w], "tanh")
    _, mixed, *_, run, last = (line for line in z.draw().to_dot().splitlines() if "fillcolor" in line)
    assert "penwidth=2" in last and "penwidth" not in run and 'fillcolor="#ffffff"' in mixed


def test_the_tip_of_a_folded_box():
    assert 'tooltip="1,000 nodes, n0 to n999"' in network(1000, 4, 2).graph.draw().to_dot()


def test_notebooks_find_the_picture():
    g = mlgraph.Graph()
    z = mlgraph.exp(g.input("x"))
    assert repr(z.draw()) == f"<Drawing of {len(g)} boxes: save('picture.svg') writes it>"
    assert g._repr_svg_() == z._repr_svg_() == z.draw()._repr_svg_() == z.draw().to_svg()
    assert Drawing([z]).to_dot() == z.draw().to_dot() == g.draw().to_dot()


def test_an_empty_graph_is_an_empty_picture():
    g = mlgraph.Graph()
    assert boxes(g.draw()) == [] and g.draw(x=[]).to_svg() == g.draw().to_svg()
    assert g.draw().to_dot().splitlines()[0] == "digraph {"


def test_errors():
    g = mlgraph.Graph()
    with pytest.raises(ValueError, match="limit: expected an integer of at least 2, got 1"):
        g.input().draw(limit=1)
    with pytest.raises(ValueError, match="nodes: expected a graph or at least one node, got none"):
        Drawing([])
    with pytest.raises(ValueError, match="nodes: expected nodes of one graph"):
        Drawing([g.input(), mlgraph.Graph().input()])


def test_a_model_of_a_constant():
    g = mlgraph.Graph()
    g.input("x")
    assert boxes(mlgraph.Model(g, g.constant(2.0)).draw([1.0])) == [["2"]]


@pytest.mark.parametrize("name", ["net.svg", "net.DOT", "net.gv"])
def test_a_file(tmp_path, name):
    drawing = network(3, 4, 2).draw([0.1, 0.2, 0.3])
    drawing.save(tmp_path / name)
    written = (tmp_path / name).read_text()
    assert written == (drawing.to_svg() if name.endswith("svg") else drawing.to_dot())
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_names_and_numbers_that_are_given():
    """By node or by id; of operations and constants, too."""
    g = mlgraph.Graph()
    x, two = g.input("x"), g.constant(2.0)
    square = x * x
    square.name, two.name = "square", "two"
    drawn = boxes((square + two).draw(values={square: 4321.0, x.id: 1234.0}))
    assert drawn == [["x", "1234"], ["two 2"], ["square ×", "4321"], ["+"]]


def test_weights_that_are_not_finite():
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    for weights in ([1.0, np.nan], [np.nan, 1.0], [np.inf, 1.0]):
        text = g.add_neuron([x, y], weights=weights).draw().to_svg()
        assert 'width="nan"' not in text and 'width="inf"' not in text and 'stroke-width="3.00"' in text


def test_weights_that_are_all_zero():
    g = mlgraph.Graph()
    assert 'stroke-width="1.00"' in g.add_neuron([g.input()]).draw().to_svg()
