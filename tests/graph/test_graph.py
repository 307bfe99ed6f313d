"""Building a graph, reading it, and assigning its numbers."""

import copy

import numpy as np
import pytest
from graphs import small

import mlgraph
from mlgraph.graph.storage import PANEL


def test_nodes_show_what_they_are():
    """They are numbered in the order of creation, and later nodes change no id."""
    g, x, y, c, p, n, (a, b), total = small()
    assert len(g) == 8 and list(g) == [g[i] for i in range(8)] == [x, y, c, p, n, a, b, total]
    assert [node.kind for node in g] == ["input", "input", "constant", "parameter", "neuron", "neuron", "neuron", "add"]
    assert [node.name for node in g] == ["x", "n1", "n2", "p", "n4", "n5", "n6", "n7"]
    assert [isinstance(node, mlgraph.Neuron) for node in g] == [False] * 4 + [True] * 3 + [False]
    assert repr(g) == "<Graph: 8 nodes, 2 inputs, 6 edges>" and repr(g[0]) == "<input x>"
    assert (g.n_inputs, g.n_edges, g.n_parameters) == (2, 6, 8)
    assert n.sources == [x, y] and a.sources == b.sources == [y, n] and total.sources == [n, p]
    assert x.targets == [n] and y.targets == [n, a, b] and n.targets == [a, b, total] and total.targets == []
    assert [tuple(edge) for edge in y.out_edges] == [(y, n, -1), (y, a, 1), (y, b, 3)]
    assert (n.activation, n.bias, a.activation, a.bias) == ("tanh", 0.25, "relu", None)
    assert [neuron.weights.tolist() for neuron in (n, a, b)] == [[1, -1], [1, 2], [3, 4]]
    before = [(node.id, node.kind, node.sources) for node in g]
    g.add_input(), g.add_neuron([total, x]), g.add_neurons([n], weights=np.ones((40, 1)), biases=None)
    g.compile([g[len(g) - 1], a])
    assert [(node.id, node.kind, node.sources) for node in list(g)[:8]] == before
    assert g[n.id] == n and g[n.id] in {n} and n != small()[5] and n != n.id


@pytest.mark.parametrize("n", [1, PANEL - 1, PANEL, PANEL + 1, 50])
@pytest.mark.parametrize("biased", [False, True])
def test_add_neurons_equals_add_neuron_for_each(n, biased):
    rng = np.random.default_rng(n)
    weights, biases = rng.normal(size=(n, 5)).astype(np.float32), rng.normal(size=n).astype(np.float32)
    together, alone = mlgraph.Graph(), mlgraph.Graph()
    block = together.add_neurons(together.add_inputs(5), "sigmoid", weights=weights, biases=biases if biased else None)
    inputs = alone.add_inputs(5)
    for w, b in zip(weights, biases, strict=True):
        alone.add_neuron(inputs, "sigmoid", weights=w, bias=float(b) if biased else None)
    assert block == range(5, 5 + n) and together.n_parameters == alone.n_parameters == (5 + biased) * n
    for i in block:
        a, b = together[i], alone[i]
        assert a.weights.tolist() == b.weights.tolist() and a.bias == b.bias and a.activation == b.activation
        assert together.sources_of(i).tolist() == alone.sources_of(i).tolist()


def test_defaults_and_forms_of_neurons():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(3)
    neuron = g.add_neuron(x)
    assert neuron.activation == "identity" and neuron.bias == 0.0 and all(neuron.weights)
    for options, bias in (({}, 0), ({"biases": 0.5}, 0.5), ({"biases": np.float32(2)}, 2), ({"biases": None}, None)):
        block = g.add_neurons(np.array([1, 0]), weights=np.ones((3, 2)), **options)
        assert [g[i].bias for i in block] == [bias] * 3 and g[block[0]].sources == [x[1], x[0]]


def test_numbers_become_constants():
    g = mlgraph.Graph()
    x = g.add_input()
    total = mlgraph.sum(x, 1, np.float32(2.5))
    assert [s.value for s in total.sources[1:]] == [1.0, 2.5]
    assert [s.kind for s in (2 / x).sources] == ["constant", "input"]


def test_inputs_are_columns_in_order():
    g = mlgraph.Graph(seed=0)
    first, one = g.add_input("first"), g.add_constant(1.0)
    more = g.add_inputs(3)
    assert g.n_inputs == 4 and [node.id for node in more] == [2, 3, 4]
    assert g.compile([*more, first + one])([[1, 2, 3, 4]]).tolist() == [[2, 3, 4, 2]]
    neuron = g.add_neuron(more)
    assert g.add_inputs(0) == []
    g.undo()  # adding no input is no change
    assert len(g) == neuron.id


def test_numbers_are_assigned_without_an_edit():
    """A compiled function uses the new ones."""
    g = mlgraph.Graph()
    p = g.add_parameter(0.5)
    neuron = g.add_neuron([*g.add_inputs(4), p], weights=[1, 2, 3, 4, 5], bias=6.0)
    f, x, edits = g.compile(neuron), [[1, 10, 100, 1000]], g.edits
    assert f(x) == 4329.5
    neuron.weights[3] = 1
    assert f(x) == 1329.5
    neuron.weights *= 2
    p.value = 1
    assert f(x) == 2658
    neuron.weights, neuron.bias = [0, 0, 0, 0, 1], -1
    assert f(x) == 0 and neuron.bias == -1
    neuron.weights[4], p.value = 0, np.inf
    assert p.value == np.inf and np.isnan(f(x)) and g.edits == edits
    g.set_parameters(np.zeros(g.n_parameters))
    assert f(x) == 0 and not neuron.weights.any() and g.parameters.dtype == np.float32


def test_function_is_compiled_again_after_new_inputs():
    g = mlgraph.Graph()
    x = g.add_input()
    f = g.compile(x + 1)
    g.add_neurons(g.add_inputs(2), weights=np.ones((20, 2)), biases=None)
    np.testing.assert_array_equal(f([[1, 2, 3]]), [[2]])
    with pytest.raises(ValueError, match=r"x: expected shape \(examples, 3\), got \(1, 1\)"):
        f([[1]])


def test_copies_and_files_keep_names(tmp_path):
    """A name is no edit; pictures show it."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(3, "tanh")
    net.add_layer(2, "softmax")
    neuron, edits = net.layers[0].neurons[1], net.graph.edits
    neuron.name, net.graph[0].name = "loop", "ink"
    assert net.graph.edits == edits and neuron.name == "loop" and "loop" in net.draw().to_svg()
    net.save(tmp_path / "net.npz")
    net.layers[0].neurons[0].prune()
    for other in (copy.deepcopy(net), mlgraph.load(tmp_path / "net.npz"), net.compact()):
        assert other.graph["loop"].weights.tolist() == neuron.weights.tolist() and other.graph["ink"].kind == "input"


def test_a_graph_lists_its_inputs():
    g = mlgraph.Graph()
    first, rest = g.add_input("first"), g.add_inputs(2)
    g.add_neuron([first])
    last = g.add_input()
    assert g.inputs == [first, *rest, last]
