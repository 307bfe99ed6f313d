"""NetworkX sees the graph as it is, and what comes back computes the same."""

import json
import re
import sys

import numpy as np
import pytest
from graphs import cases
from hypothesis import given

import mlgraph
from mlgraph import exchange
from mlgraph.graph.topology import levels_of

nx = pytest.importorskip("networkx")

X = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)


def network(last="softmax", n=3):
    net = mlgraph.Network(4, seed=0)
    net.add_layer(6, "tanh")
    net.add_layer(5, "elu", bias=False)
    net.add_layer(n, last)
    return net


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


# --- there ----------------------------------------------------------------------------------------


def test_nodes_and_edges_with_their_attributes():
    g = mlgraph.Graph()
    x, y = g.add_input("x"), g.add_input()
    half, slope = g.add_constant(0.5), g.add_parameter(2.0, "slope")
    hidden = g.add_neuron([y, x], "relu", weights=[1.5, -2.0], bias=0.25)
    bare = g.add_neuron([x], weights=[1.0], bias=None)
    power, square = hidden**half, slope * slope
    made = exchange.to_networkx(g)
    assert dict(made.nodes(data=True)) == {
        x.id: {"kind": "input", "name": "x", "input": 0},
        y.id: {"kind": "input", "input": 1},
        half.id: {"kind": "constant", "value": 0.5},
        slope.id: {"kind": "parameter", "name": "slope", "value": 2.0},
        hidden.id: {"kind": "neuron", "activation": "relu", "bias": 0.25},
        bare.id: {"kind": "neuron", "activation": "identity"},
        power.id: {"kind": "pow"},
        square.id: {"kind": "mul"},
    }
    assert sorted(made.edges(data=True)) == [
        (x.id, hidden.id, {"weight": -2.0}),
        (x.id, bare.id, {"weight": 1.0}),
        (y.id, hidden.id, {"weight": 1.5}),
        (half.id, power.id, {"arguments": (1,)}),
        (slope.id, square.id, {"arguments": (0, 1)}),
        (hidden.id, power.id, {"arguments": (0,)}),
    ]
    assert not made.graph


def test_a_model_gives_what_its_outputs_need():
    net = network()
    net.classes, net.scaling, net.columns = ["a", "b", "c"], (np.zeros(4), np.ones(4)), list("wxyz")
    net.layers[0][2].prune()
    net.layers[2][1].in_edges[0].prune()
    made = exchange.to_networkx(net)
    assert sorted(made) == [0, 1, 2, 3, *(i for layer in net.layers for i in layer.ids if i != net.layers[0].ids[2])]
    assert set(made.edges) == set(zip(*(ends.tolist() for ends in net.graph.edges()[:2]), strict=True))
    assert [made.nodes[node.id]["output"] for node in net.outputs] == [0, 1, 2]
    assert [[made.nodes[i]["layer"] for i in layer.ids if i in made] for layer in net.layers] == [
        [0] * 5,
        [1] * 5,
        [2] * 3,
    ]
    assert made.graph == {
        "loss": "softmax_cross_entropy",
        "classes": ("a", "b", "c"),
        "scaling": [[0.0] * 4, [1.0] * 4],
        "columns": ("w", "x", "y", "z"),
    }


def test_algorithms_of_networkx_see_the_graph():
    net = network("identity", 1)
    net.prune(0.6)
    net.graph.add_edge(net.graph[0], net.layers[2][0], 1.0)
    made = exchange.to_networkx(net)
    assert nx.dag_longest_path_length(made, weight=None) == levels_of(net.graph)[net.outputs[0].id] == 3
    neuron = next(neuron for neuron in net.layers[1] if neuron.alive)
    receptive_field = {i for i in range(4) if net.graph.reaches(i, neuron)}
    assert nx.ancestors(made, neuron.id) & {0, 1, 2, 3} == receptive_field
    assert dict(made.out_degree)[0] == sum(target.id in made for target in net.graph[0].targets)


# --- and back -------------------------------------------------------------------------------------


@given(cases())
def test_any_graph_comes_back(case):
    outputs = list(dict.fromkeys(case.outputs))
    model = mlgraph.Model(case.graph, outputs)
    back = exchange.from_networkx(exchange.to_networkx(model))
    np.testing.assert_allclose(back.forward(case.x), model.forward(case.x), rtol=1e-4, atol=1e-4)
    whole = exchange.to_networkx(case.graph)
    assert [data["kind"] for _, data in whole.nodes(data=True)] == [node.kind for node in case.graph]
    whole.nodes[len(whole) - 1]["output"] = 0
    again = exchange.to_networkx(exchange.from_networkx(whole).graph)
    del whole.nodes[len(whole) - 1]["output"]
    assert dict(again.nodes) == dict(whole.nodes)
    for label in whole:
        assert dict(again.pred[label]) == dict(whole.pred[label])


@pytest.mark.parametrize(
    ("last", "n", "loss"), [("softmax", 3, "softmax_cross_entropy"), ("sigmoid", 2, "squared_error")]
)
def test_a_network_comes_back_as_a_model(last, n, loss):
    net = network(last, n)
    net.prune(0.5)
    net.scaling = (np.arange(4.0), np.full(4, 2.0))
    net.columns = list("wxyz")
    net.classes = ["c", "a", "b"] if last == "softmax" else None
    back = exchange.from_networkx(exchange.to_networkx(net))
    assert (back.loss, back.classes, back.columns, back.n_edges) == (loss, net.classes, net.columns, net.n_edges)
    assert np.array_equal(back.scaling, net.scaling)
    close(back.forward(X), net.forward(X))
    assert np.array_equal(back.predict(X), net.predict(X)) or last == "sigmoid"
    y = net.predict(X)[::-1] if last == "softmax" else np.zeros((9, 2))
    close(back.gradients(X, y).edges, net.gradients(X, y).edges)


def test_a_loss_that_is_a_node_comes_back():
    g = mlgraph.Graph()
    x, target = g.add_input("x"), g.add_input("target")
    y = g.add_parameter(2.0) * x
    model = mlgraph.Model(g, y, abs(y - target))
    back = exchange.from_networkx(exchange.to_networkx(model))
    data = np.array([[1.0, 3.0], [2.0, 1.0]])
    assert back.loss == "node" and len(back.outputs) == 1
    assert back.evaluate(data) == model.evaluate(data)


def test_what_is_frozen_stays_frozen():
    g = mlgraph.Graph()
    x = g.add_inputs(2)
    parameter = g.add_parameter(1.0)
    parameter.frozen = True
    whole, one, bare = (g.add_neuron([*x, parameter], bias=b) for b in (0.5, 0.5, None))
    whole.frozen = bare.frozen = one.in_edges[1].frozen = True
    back = exchange.from_networkx(exchange.to_networkx(g)).graph
    frozen = [[edge.frozen for edge in back[node.id].in_edges] for node in (whole, one, bare)]
    assert frozen == [[True] * 3, [False, True, False], [True] * 3]
    assert [back[node.id].frozen for node in (parameter, whole, one, bare)] == [True, True, False, True]


def test_a_cut_neuron_that_an_operation_reads_is_the_constant_zero():
    g = mlgraph.Graph()
    x = g.add_input()
    neuron = g.add_neuron([x], bias=3.0)
    y = mlgraph.cos(neuron) + x
    neuron.prune()
    made = exchange.to_networkx(mlgraph.Model(g, y))
    assert made.nodes[neuron.id] == {"kind": "constant", "value": 0.0}
    close(exchange.from_networkx(made).forward([[2.0]]), [[3.0]])
    assert neuron.id in exchange.to_networkx(g)
    other = g.add_neuron([x])
    other.prune()
    assert other.id not in exchange.to_networkx(g)


@pytest.mark.parametrize("way", ["json", "graphml", "gml"])
def test_formats_of_networkx_keep_a_network(way, tmp_path):
    net = network("sigmoid", 2)
    net.graph[0].name = "first"
    made = exchange.to_networkx(net)
    if way == "json":
        read = nx.node_link_graph(json.loads(json.dumps(nx.node_link_data(made, edges="links"))), edges="links")
    else:
        getattr(nx, f"write_{way}")(made, tmp_path / "net")
        read = getattr(nx, f"read_{way}")(tmp_path / "net")
    close(exchange.from_networkx(read).forward(X), net.forward(X))


# --- graphs that users make -----------------------------------------------------------------------


def test_defaults():
    made = nx.DiGraph()
    made.add_edges_from([("b", "hidden"), ("a", "hidden"), ("hidden", "y"), ("a", "y")])
    made.add_edge("b", "z", weight=3)
    model = exchange.from_networkx(made)
    assert [node.name for node in model.graph.inputs] == ["b", "a"]
    assert [node.name for node in model.outputs] == ["y", "z"] and model.loss == "squared_error"
    assert all(
        neuron.activation == "identity" and neuron.bias is None for neuron in map(model.graph.__getitem__, ("y", "z"))
    )
    assert model.forward([[1.0, 10.0]]).tolist() == [[21.0, 3.0]]


def test_attributes_decide_on_the_order_of_inputs_outputs_and_arguments():
    made = nx.DiGraph()
    made.add_node("late", input=1)
    made.add_node("early", input=0)
    made.add_node("difference", kind="sub", output=1)
    made.add_node("sum", kind="sum", output=0)
    made.add_edge("late", "difference", arguments=[1])
    made.add_edge("early", "difference", arguments=[0])
    made.add_edge("early", "sum", arguments=(0, 2))
    made.add_edge("late", "sum", arguments=(1,))
    made.add_edge("sum", "unused", weight=1.0)
    model = exchange.from_networkx(made)
    assert model.forward([[10.0, 1.0]]).tolist() == [[21.0, 9.0]]


def test_a_loss_as_an_argument():
    made = nx.DiGraph([("x", "no"), ("x", "yes")])
    assert exchange.from_networkx(made, loss="softmax_cross_entropy").predict_proba([[1.0]]).tolist() == [[0.5, 0.5]]


def graph(edges=(("x", "y"), ("y", "z")), **attributes):
    made = nx.DiGraph(edges)
    for label, values in attributes.items():
        made.nodes[label].update(values)
    return made


def edge(**values):
    made = graph()
    made.edges["x", "y"].update(values)
    return made


def derivative():
    g = mlgraph.Graph()
    x = g.add_input()
    return exchange.to_networkx(mlgraph.Model(g, mlgraph.grad(g.add_neuron([x], "tanh"), x)))


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (graph([("x", "a"), ("a", "b"), ("b", "a")]), mlgraph.CycleError, "form a cycle of 2 nodes: 'a' -> 'b'"),
        (graph([("x", "a"), ("a", "a")]), mlgraph.CycleError, "graph: its edges form a cycle of 1 node: 'a'"),
        (graph(y={"colour": "red"}), ValueError, "node 'y': unknown attribute 'colour'; a node of the kind neuron has"),
        (graph(x={"bias": 1.0}), ValueError, "node 'x': unknown attribute 'bias'; a node of the kind input has kind"),
        (graph(y={"activation": "swish"}), ValueError, "node 'y': activation: expected one of .*; here it is silu"),
        (graph(y={"kind": "square"}), ValueError, "node 'y': kind: expected one of input, constant, .*, got 'square'"),
        (
            graph(y={"kind": "input"}),
            ValueError,
            "node 'y': expected no edge into a node of the kind input, got one from",
        ),
        (
            graph(x={"kind": "neuron"}),
            ValueError,
            "node 'x': expected edges into a node of the kind neuron, got none; a ",
        ),
        (
            graph(x={"kind": "constant"}),
            ValueError,
            "node 'x': expected a value, which a node of the kind constant has",
        ),
        (graph(x={"kind": "parameter", "value": "1"}), TypeError, "node 'x': value: expected a number, got str"),
        (graph(y={"bias": "1"}), TypeError, "node 'y': bias: expected a number, got str"),
        (graph(y={"kind": "sub"}), ValueError, "node 'y': arguments of sub: expected 2, got 1"),
        (graph(y={"name": 3}), TypeError, "node 'y': name: expected a string, got 3"),
        (graph(y={"output": 1}), ValueError, "node 'y': output: expected numbers from 0 up, each once, got 1"),
        (
            graph(y={"output": 0}, z={"output": 0}),
            ValueError,
            "node 'z': output: expected numbers from 0 up, each once",
        ),
        (graph(y={"frozen": 1}), TypeError, "node 'y': frozen: expected True or False, got 1"),
        (graph(y={"frozen": True}), ValueError, "node 'y': frozen: expected a bias to freeze, got none"),
        (edge(weight="1"), TypeError, "weights of the edges into 'y': expected numbers"),
        (edge(weight=np.nan), ValueError, "weights of the edges into 'y': expected numbers, got nan"),
        (
            edge(length=1),
            ValueError,
            "edge 'x' to 'y': unknown attribute 'length'; an edge into a node of the kind neur",
        ),
        (edge(arguments=(0,)), ValueError, "edge 'x' to 'y': unknown attribute 'arguments'; an edge into"),
        (edge(frozen="no"), TypeError, "edge 'x' to 'y': frozen: expected True or False, got 'no'"),
        (derivative(), ValueError, "a weight, as mlgraph.grad makes them, cannot be added to a graph by itself"),
        (nx.DiGraph(), ValueError, "graph: expected an output"),
        (
            nx.DiGraph(colour="red"),
            ValueError,
            "graph: unknown attribute 'colour'; expected loss, classes, scaling, col",
        ),
        (nx.DiGraph(graph(), loss="node"), ValueError, "graph: loss: expected one node with the attribute loss, got 0"),
        (nx.DiGraph(graph(), scaling="no"), ValueError, "scaling: expected"),
        (nx.Graph([(0, 1)]), TypeError, "graph: expected a networkx.DiGraph, got Graph"),
        (nx.MultiDiGraph([(0, 1)]), TypeError, "graph: expected a networkx.DiGraph, got MultiDiGraph"),
        (None, TypeError, "graph: expected a networkx.DiGraph, got NoneType"),
    ],
)
def test_what_is_unknown_or_wrong_is_refused_by_name(made, error, message):
    with pytest.raises(error, match=message):
        exchange.from_networkx(made)


@pytest.mark.parametrize("positions", [((0,), (0,)), ((0,), (2,)), ((), (1,)), (0, 1), (("0",), (1,))])
def test_arguments_that_are_no_order_are_refused(positions):
    made = graph([("x", "y"), ("w", "y")], y={"kind": "sub"})
    for source, wrong in zip("xw", positions, strict=True):
        made.edges[source, "y"]["arguments"] = wrong
    with pytest.raises((TypeError, ValueError), match="arguments"):
        exchange.from_networkx(made)


def test_only_models_and_graphs_whose_outputs_differ_go_to_networkx():
    g = mlgraph.Graph()
    y = mlgraph.exp(g.add_input())
    with pytest.raises(
        ValueError, match=re.escape("to_networkx: n1 is output 0 and output 1; a node can be one output")
    ):
        exchange.to_networkx(mlgraph.Model(g, [y, y]))
    with pytest.raises(ValueError, match="expected at least one layer"):
        exchange.to_networkx(mlgraph.Network(3))
    with pytest.raises(TypeError, match="to_networkx: expected a Model or a Graph, got Node"):
        exchange.to_networkx(y)


def test_without_networkx_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    for call in (lambda: exchange.to_networkx(network()), lambda: exchange.from_networkx(None)):
        with pytest.raises(ImportError, match=r"_networkx needs NetworkX \(.*\): pip install "):
            call()
