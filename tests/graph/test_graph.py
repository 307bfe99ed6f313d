"""Building, reading and changing a graph."""

import copy

import numpy as np
import pytest
from graphs import small

import mlgraph
from mlgraph.graph.storage import PANEL

NAN, INF = np.nan, np.inf


# --- building and reading -------------------------------------------------------------------------


def test_nodes_are_numbered_in_the_order_of_creation():
    g, *nodes = small()
    flat = [*nodes[:5], *nodes[5], nodes[6]]
    assert [node.id for node in flat] == list(range(8)) and len(g) == 8
    assert list(g) == flat and [g[i] for i in range(8)] == flat
    assert [node.kind for node in g] == ["input", "input", "constant", "parameter", "neuron", "neuron", "neuron", "add"]
    assert [node.name for node in g] == ["x", "n1", "n2", "p", "n4", "n5", "n6", "n7"]
    assert [isinstance(node, mlgraph.Neuron) for node in g] == [False] * 4 + [True] * 3 + [False]
    assert repr(g) == "<Graph: 8 nodes, 2 inputs, 6 edges>" and repr(g[0]) == "<input x>"
    assert (g.n_inputs, g.n_edges, g.n_parameters) == (2, 6, 8)


def test_ids_are_stable():
    g, x, *_, n, block, total = small()
    before = [(node.id, node.kind, [s.id for s in node.sources]) for node in g]
    g.input(), g.add_neuron([total, x]), g.add_neurons([n], weights=np.ones((40, 1)), biases=None)
    g.compile([g[len(g) - 1], block[0]])
    assert [(g[i].id, g[i].kind, [s.id for s in g[i].sources]) for i in range(8)] == before


def test_neurons_show_sources_weights_and_bias():
    g, x, y, _, _, n, (a, b), total = small()
    assert n.sources == [x, y] and n.activation == "tanh" and n.bias == 0.25
    np.testing.assert_array_equal(n.weights, [1, -1])
    assert [tuple(edge) for edge in n.edges] == [(x, n, 1.0), (y, n, -1.0)] and n.edges[0].source.name == "x"
    assert a.sources == b.sources == [y, n] and a.activation == "relu" and a.bias is None
    np.testing.assert_array_equal([a.weights, b.weights], [[1, 2], [3, 4]])
    assert total.sources == [n, g[3]]


def test_defaults_of_add_neuron():
    g = mlgraph.Graph()
    neuron = g.add_neuron(g.inputs(3))
    assert neuron.activation == "identity" and neuron.bias == 0.0 and neuron.weights.tolist() == [0, 0, 0]


@pytest.mark.parametrize("n", [1, PANEL - 1, PANEL, PANEL + 1, 50])
@pytest.mark.parametrize("biased", [False, True])
def test_add_neurons_equals_add_neuron_for_each(n, biased):
    rng = np.random.default_rng(n)
    weights, biases = rng.normal(size=(n, 5)).astype(np.float32), rng.normal(size=n).astype(np.float32)
    together, alone = mlgraph.Graph(), mlgraph.Graph()
    block = together.add_neurons(together.inputs(5), "sigmoid", weights=weights, biases=biases if biased else None)
    inputs = alone.inputs(5)
    for w, b in zip(weights, biases, strict=True):
        alone.add_neuron(inputs, "sigmoid", weights=w, bias=float(b) if biased else None)
    assert block == range(5, 5 + n)
    assert (together.n_edges, together.n_parameters) == (alone.n_edges, alone.n_parameters) == (5 * n, (5 + biased) * n)
    for a, b in zip(together, alone, strict=True):
        assert (a.id, a.kind, [s.id for s in a.sources]) == (b.id, b.kind, [s.id for s in b.sources])
    for i in block:
        assert together[i].weights.tolist() == alone[i].weights.tolist() and together[i].bias == alone[i].bias


def test_add_neurons_takes_one_bias_for_all():
    g = mlgraph.Graph()
    x = g.inputs(2)
    for options, want in (
        ({}, 0.0),
        ({"biases": 0.5}, 0.5),
        ({"biases": np.float32(2)}, 2.0),
        ({"biases": None}, None),
    ):
        block = g.add_neurons(x, weights=np.ones((3, 2)), **options)
        assert [g[i].bias for i in block] == [want] * 3


def test_targets_are_the_nodes_that_read_a_node():
    g = mlgraph.Graph()
    x = g.inputs(3)
    neurons = [g.add_neuron(sources, weights=np.ones(len(sources))) for sources in (x[:1], x[1:2], x[:2], x[2:])]
    sums = [neurons[0] + neurons[3], neurons[3] * 2.0]
    assert [g.targets_of(node).tolist() for node in (*x, *neurons)] == [
        [neurons[0].id, neurons[2].id],
        [neurons[1].id, neurons[2].id],
        [neurons[3].id],
        [sums[0].id],
        [],
        [],
        [node.id for node in sums],
    ]


def test_sources_may_be_given_by_id():
    g, x, y, *_ = small()
    block = g.add_neurons(np.array([y.id, x.id]), weights=[[1, 2]], biases=None)
    assert g[block[0]].sources == [y, x]


def test_numbers_become_constants():
    g = mlgraph.Graph()
    x = g.input()
    total = mlgraph.sum(x, 1, np.float32(2.5))
    assert [s.value for s in total.sources[1:]] == [1.0, 2.5]
    assert [s.kind for s in (2 / x).sources] == ["constant", "input"]


def test_inputs_are_columns_in_order():
    g = mlgraph.Graph()
    first, one = g.input("first"), g.constant(1.0)
    more = g.inputs(3)
    assert [node.id for node in more] == [2, 3, 4] and g.n_inputs == 4 and more[0].kind == "input"
    np.testing.assert_array_equal(g.compile([*more, first + one])([[1, 2, 3, 4]]), [[2, 3, 4, 2]])
    neuron = g.add_neuron(more)
    assert g.inputs(0) == []
    g.undo()  # that was no change
    assert len(g) == neuron.id


def test_values_of_constants_and_parameters():
    g, _, _, c, p, *_ = small()
    assert (c.value, p.value) == (2.5, 0.5)
    p.value = 3
    assert p.value == 3.0 and g.compile(p + 0)([[0, 0]]) == 3.0
    p.value = INF
    assert p.value == INF


# --- changing -------------------------------------------------------------------------------------


def test_weights_are_views():
    g = mlgraph.Graph()
    neuron = g.add_neuron(g.inputs(5), weights=[1, 2, 3, 4, 5], bias=6.0)
    f, x = g.compile(neuron), [[1, 10, 100, 1000, 10000.0]]
    assert f(x) == 54327
    neuron.weights[3] = 1
    assert f(x) == 51327
    neuron.weights *= 2
    assert f(x) == 102648
    neuron.weights = [0, 0, 0, 0, 1]
    neuron.bias = -1
    assert f(x) == 9999 and neuron.bias == -1.0


def test_the_parameter_vector_is_a_view():
    g, *_, n, block, _ = small()
    f = g.compile([n, *block])
    g.parameters[:] = 0
    assert n.weights.tolist() == [0, 0] and n.bias == 0.0 and not f([[1, 1]]).any()
    assert g.parameters.dtype == np.float32


def test_views_compare_by_graph_and_id():
    g, *_, n, _, _ = small()
    assert g[n.id] == n and hash(g[n.id]) == hash(n) and g[n.id] in {n}
    assert n != small()[5] and n != n.id


def test_function_compiles_again_after_an_edit():
    g = mlgraph.Graph()
    x = g.input()
    f = g.compile(x + 1)
    before = g.edits
    g.add_neurons(g.inputs(2), weights=np.ones((20, 2)), biases=None)
    assert g.edits > before
    np.testing.assert_array_equal(f([[1, 2, 3]]), [[2]])
    with pytest.raises(ValueError, match=r"x: expected shape \(examples, 3\), got \(1, 1\)"):
        f([[1]])


def test_copies_and_files_keep_names(tmp_path):
    """Errors and pictures show them."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(3, "tanh")
    net.add_layer(2, "softmax")
    neuron = net.layers[0].neurons[1]
    edits = net.graph.edits
    neuron.name, net.graph[0].name = "loop", "ink"
    assert net.graph.edits == edits and neuron.name == "loop" and "loop" in net.draw().to_svg()
    net.save(tmp_path / "net.npz")
    net.layers[0].neurons[0].prune()
    for other in (copy.deepcopy(net), mlgraph.load(tmp_path / "net.npz"), net.compact()):
        names = [node.name for node in (other.graph[i] for i in range(len(other.graph)))]
        assert names.count("loop") == names.count("ink") == 1 and isinstance(
            other.graph[names.index("loop")], mlgraph.Neuron
        )
    neuron.name = None
    assert neuron.name == f"n{neuron.id}"


def test_graph_finds_nodes_by_name(tmp_path):
    g = mlgraph.Graph()
    x, w = g.input("x"), g.parameter(2.0, "w")
    y = g.add_neuron([x, w], weights=[1.0, 1.0])
    y.name = "answer"
    model = mlgraph.Model(g, y)
    model.save(tmp_path / "net.npz")
    for graph in (g, mlgraph.load(tmp_path / "net.npz").graph, model.compact().graph):
        assert [graph[name].id for name in ("x", "w", "answer")] == [0, 1, 2] and isinstance(
            graph["answer"], mlgraph.Neuron
        )
    g.add_neuron([x]).name = "x"
    for name, message in (
        ("x", "2 nodes have the name 'x'"),
        ("n2", "no nodes have the name 'n2'"),
        ("", "no nodes have the name ''"),
    ):
        with pytest.raises(ValueError, match=f"^node: {message}$"):
            g[name]
        assert name not in g
    g.undo()
    assert g["x"] == x and "x" in g and x in g and 2 in g and y in g
    assert not any(node in g for node in (3, -1, mlgraph.Node(g, 3), mlgraph.Graph().input("x"), None, 1.0, [x]))
