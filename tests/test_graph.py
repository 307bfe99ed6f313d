"""Building, reading and changing a graph; and that an error says what is wrong and changes nothing."""

import copy
from array import array

import numpy as np
import pytest
from editable import held as everything

import mlgraph
from mlgraph import nodes
from mlgraph.changes import edited
from mlgraph.storage import PANEL

NAN, INF = np.nan, np.inf


def small():
    """Two inputs, a constant, a parameter, three neurons and a sum."""
    g = mlgraph.Graph()
    x, y = g.input("x"), g.input()
    c, p = g.constant(2.5), g.parameter(0.5, "p")
    n = g.add_neuron([x, y], "tanh", weights=[1, -1], bias=0.25)
    block = g.add_neurons([y, n], "relu", weights=[[1, 2], [3, 4]], biases=None)
    return g, x, y, c, p, n, [g[i] for i in block], n + p


# --- building and reading -----------------------------------------------------------------------------------------------


def test_nodes_are_numbered_as_they_come():
    g, *nodes = small()
    flat = [*nodes[:5], *nodes[5], nodes[6]]
    assert [node.id for node in flat] == list(range(8)) and len(g) == 8
    assert list(g) == flat and [g[i] for i in range(8)] == flat
    assert [node.kind for node in g] == ["input", "input", "constant", "parameter", "neuron", "neuron", "neuron", "add"]
    assert [node.name for node in g] == ["x", "n1", "n2", "p", "n4", "n5", "n6", "n7"]
    assert [isinstance(node, mlgraph.Neuron) for node in g] == [False] * 4 + [True] * 3 + [False]
    assert repr(g) == "<Graph: 8 nodes, 2 inputs, 6 edges>" and repr(g[0]) == "<input x>"
    assert (g.n_inputs, g.n_edges, g.n_parameters) == (2, 6, 8)


def test_ids_stay_as_they_are():
    g, x, *_, n, block, total = small()
    before = [(node.id, node.kind, [s.id for s in node.sources]) for node in g]
    g.input(), g.add_neuron([total, x]), g.add_neurons([n], weights=np.ones((40, 1)), biases=None)
    g.compile([g[len(g) - 1], block[0]])
    assert [(g[i].id, g[i].kind, [s.id for s in g[i].sources]) for i in range(8)] == before


def test_neurons():
    g, x, y, _, _, n, (a, b), total = small()
    assert n.sources == [x, y] and n.activation == "tanh" and n.bias == 0.25
    np.testing.assert_array_equal(n.weights, [1, -1])
    assert [tuple(edge) for edge in n.edges] == [(x, n, 1.0), (y, n, -1.0)] and n.edges[0].source.name == "x"
    assert a.sources == b.sources == [y, n] and a.activation == "relu" and a.bias is None
    np.testing.assert_array_equal([a.weights, b.weights], [[1, 2], [3, 4]])
    assert total.sources == [n, g[3]]


def test_default_neuron():
    g = mlgraph.Graph()
    neuron = g.add_neuron(g.inputs(3))
    assert neuron.activation == "identity" and neuron.bias == 0.0 and neuron.weights.tolist() == [0, 0, 0]


@pytest.mark.parametrize("n", [1, PANEL - 1, PANEL, PANEL + 1, 50])
@pytest.mark.parametrize("biased", [False, True])
def test_neurons_made_together_are_like_neurons_made_one_by_one(n, biased):
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


def test_one_bias_for_all():
    """As `add_neuron` has it: 0, a number, or none."""
    g = mlgraph.Graph()
    x = g.inputs(2)
    for options, want in (({}, 0.0), ({"biases": 0.5}, 0.5), ({"biases": np.float32(2)}, 2.0), ({"biases": None}, None)):
        block = g.add_neurons(x, weights=np.ones((3, 2)), **options)
        assert [g[i].bias for i in block] == [want] * 3


def test_targets_are_the_nodes_that_read_one():
    """And not those whose list of sources stands beside theirs."""
    g = mlgraph.Graph()
    x = g.inputs(3)
    neurons = [g.add_neuron(sources, weights=np.ones(len(sources))) for sources in (x[:1], x[1:2], x[:2], x[2:])]
    sums = [neurons[0] + neurons[3], neurons[3] * 2.0]
    assert [g.targets_of(node).tolist() for node in (*x, *neurons)] == [
        [neurons[0].id, neurons[2].id], [neurons[1].id, neurons[2].id], [neurons[3].id],
        [sums[0].id], [], [], [node.id for node in sums],
    ]  # fmt: skip


def test_sources_by_number():
    g, x, y, *_ = small()
    block = g.add_neurons(np.array([y.id, x.id]), weights=[[1, 2]], biases=None)
    assert g[block[0]].sources == [y, x]


def test_numbers_become_constants():
    g = mlgraph.Graph()
    x = g.input()
    total = mlgraph.sum(x, 1, np.float32(2.5))
    assert [s.value for s in total.sources[1:]] == [1.0, 2.5]
    assert [s.kind for s in (2 / x).sources] == ["constant", "input"]


def test_inputs_come_one_by_one_and_many_at_once():
    g = mlgraph.Graph()
    first, one = g.input("first"), g.constant(1.0)
    more = g.inputs(3)
    assert [node.id for node in more] == [2, 3, 4] and g.n_inputs == 4 and more[0].kind == "input"
    np.testing.assert_array_equal(g.compile([*more, first + one])([[1, 2, 3, 4]]), [[2, 3, 4, 2]])
    neuron = g.add_neuron(more)
    assert g.inputs(0) == []
    g.undo()  # that was no change
    assert len(g) == neuron.id


def test_values():
    g, _, _, c, p, *_ = small()
    assert (c.value, p.value) == (2.5, 0.5)
    p.value = 3
    assert p.value == 3.0 and g.compile(p + 0)([[0, 0]]) == 3.0
    p.value = INF
    assert p.value == INF


# --- changing -----------------------------------------------------------------------------------------------------------


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


def test_views_are_of_one_graph_and_number():
    g, *_, n, _, _ = small()
    assert g[n.id] == n and hash(g[n.id]) == hash(n) and g[n.id] in {n}
    assert n != small()[5] and n != n.id


def test_edits_make_a_function_compile_again():
    g = mlgraph.Graph()
    x = g.input()
    f = g.compile(x + 1)
    before = g.edits
    g.add_neurons(g.inputs(2), weights=np.ones((20, 2)), biases=None)
    assert g.edits > before
    np.testing.assert_array_equal(f([[1, 2, 3]]), [[2]])
    with pytest.raises(ValueError, match=r"x: expected shape \(examples, 3\), got \(1, 1\)"):
        f([[1]])


def test_views_of_any_integer():
    """Numbers from numpy, as `sources_of` gives them, are as good as others: a model made with them can be saved."""
    g, *_ = small()
    assert all(type(g[i].id) is int for i in np.arange(3)) and type(g[4].sources[0].id) is int


# --- errors -------------------------------------------------------------------------------------------------------------

OTHER = mlgraph.Graph().input()

ERRORS = {
    "inputs": (lambda g, x: g.inputs(-1), ValueError, "n: expected an integer of at least 0, got -1"),
    "half an input": (lambda g, x: g.inputs(0.5), TypeError, "n: expected an integer of at least 0, got 0.5"),
    "constant": (lambda g, x: g.constant("3"), TypeError, "value: expected a number, got str"),
    "complex constant": (lambda g, x: g.constant(1j), TypeError, "value: expected a number, got complex"),
    "huge constant": (lambda g, x: g.constant(1e39), ValueError, r"value: .* that float32 can hold, got 1e\+39"),
    "huge integer": (lambda g, x: g.constant(10**400), ValueError, "value: expected a number that float32 can hold, got 1000"),
    "parameter": (lambda g, x: g.parameter(None), TypeError, "value: expected a number, got NoneType"),
    "huge parameter": (lambda g, x: g.parameter(-1e39), ValueError, "value: expected a number that float32 can hold"),
    "node as parameter": (lambda g, x: g.parameter(x), TypeError, "value: expected a number, got Node"),
    "activation": (lambda g, x: g.add_neuron([x], "softplus"), ValueError,
                   "activation: expected one of identity, relu, leaky_relu, sigmoid, tanh, got 'softplus'"),
    "activation of many": (lambda g, x: g.add_neurons([x], None, weights=[[1]]), TypeError, "activation: .* got None"),
    "no sources": (lambda g, x: g.add_neuron([]), ValueError, "sources: expected at least one node, got none"),
    "source twice": (lambda g, x: g.add_neuron([x, x]), ValueError, "sources: expected nodes, none of them twice, got x twice"),
    "number as source": (lambda g, x: g.add_neuron([x, 1.0]), TypeError, "sources: expected nodes, got float"),
    "one node as sources": (lambda g, x: g.add_neuron(x), TypeError, "sources: expected a sequence of nodes, got Node"),
    "source of another": (lambda g, x: g.add_neuron([x, OTHER]), ValueError,
                          "sources: expected nodes of one graph, got node 0 of another"),
    "weights": (lambda g, x: g.add_neuron([x], weights=[1, 2]), ValueError, r"weights: expected shape \(1,\), got \(2,\)"),
    "weights of text": (lambda g, x: g.add_neuron([x], weights=["1"]), TypeError, "weights: expected numbers, got .*<U1"),
    "huge weights": (lambda g, x: g.add_neuron([x], weights=[1e39]), ValueError, "weights: expected numbers that float32 can"),
    "bias": (lambda g, x: g.add_neuron([x], bias=[1]), TypeError, "bias: expected a number, got list"),
    "weights of many": (lambda g, x: g.add_neurons([x], weights=[1, 2]), ValueError,
                        r"weights: expected shape \(n, 1\), got"),
    "rows": (lambda g, x: g.add_neurons([x], weights=[[1], [1, 2]]), TypeError, "weights: .* rows of different lengths"),
    "no neurons": (lambda g, x: g.add_neurons([x], weights=np.ones((0, 1))), ValueError,
                   "weights: expected at least one neuron, got"),
    "biases": (lambda g, x: g.add_neurons([x], weights=[[1], [2]], biases=[1]), ValueError,
               r"biases: expected shape \(2,\), got \(1,\)"),
    "source of many twice": (lambda g, x: g.add_neurons(np.array([0, 0]), weights=[[1, 2]]), ValueError,
                             "sources: .* got x twice"),
    "number of no node": (lambda g, x: g.add_neurons(np.array([8]), weights=[[1]]), ValueError,
                          "sources: .* from 0 to 7, got 8 to 8"),
    "wrapped number": (lambda g, x: g.add_neurons(np.array([2**32]), weights=[[1]]), ValueError,
                       "sources: expected ids from 0 to 7"),
    "numbers that are no ids": (lambda g, x: g.add_neurons(np.array([0.5]), weights=[[1]]), TypeError,
                                "sources: .* got float64"),
    "operation": (lambda g, x: g.operation("sine", x), ValueError, "name: expected one of identity, relu, .*, got 'sine'"),
    "arity": (lambda g, x: g.operation("add", x), ValueError, "arguments of add: expected 2, got 1"),
    "no arguments": (lambda g, x: g.operation("sum"), ValueError, "arguments of sum: expected at least 1, got 0"),
    "argument": (lambda g, x: g.operation("add", 1.0, "x"), TypeError, "arguments of add: expected a number, got str"),
    "literals before an error": (lambda g, x: mlgraph.sum(x, 1, 2, OTHER), ValueError,
                                 "arguments of sum: expected nodes of one graph, got node 0 of another"),
    "softmax": (lambda g, x: g.softmax([x, OTHER]), ValueError, "arguments of logsumexp: expected nodes of one graph"),
    "softmax of nothing": (lambda g, x: g.softmax([]), ValueError, "arguments of logsumexp: expected at least 1, got 0"),
    "node of no number": (lambda g, x: g[8], IndexError, "node: expected the id of a node, from 0 to 7, got 8"),
    "node from the end": (lambda g, x: g[-1], IndexError, "node: expected the id of a node, from 0 to 7, got -1"),
    "no output": (lambda g, x: g.compile([]), ValueError, "outputs: expected at least one node, got none"),
    "number as output": (lambda g, x: g.compile(1.0), TypeError, "outputs: expected a sequence of nodes, got float"),
    "numbers as outputs": (lambda g, x: g.compile([x, 1.0]), TypeError, "outputs: expected nodes, got float"),
    "ids as nodes": (lambda g, x: g.compile([0]), TypeError, r"outputs: expected nodes, got int; graph\[0\] is a node"),
    "no id": (lambda g, x: g.add_edge(0, 10**6), IndexError, r"add_edge: expected the id of a node, from 0 to \d+, got"),
    "output of another": (lambda g, x: g.compile(OTHER), ValueError, "outputs: expected nodes of one graph"),
    "outputs of a model": (lambda g, x: mlgraph.Model(g, 1), TypeError, "outputs: expected a sequence of nodes, got int"),
    "comparison as a term": (lambda g, x: x * (x == g[1]), TypeError, "arguments of mul: .*, got a truth value .x == y tells"),
    "comparison among terms": (lambda g, x: mlgraph.sum(x, x != g[1]), TypeError, "arguments of sum: .*, got a truth value"),
    "truth as a constant": (lambda g, x: g.constant(True), TypeError, "value: expected a number, got bool"),
    "set of sources": (lambda g, x: g.add_neuron({x, g[1]}), TypeError, "sources: expected a sequence of nodes, got set"),
    "sources with weights": (lambda g, x: g.add_neuron({x: 5.0}), TypeError, "sources: expected a sequence of nodes, got dict"),
    "set of outputs": (lambda g, x: g.compile({x, g[1]}), TypeError, "outputs: expected a sequence of nodes, got set"),
    "a list of terms": (lambda g, x: mlgraph.sum([x, x]), TypeError,
                        r"sum: expected at least one node, got list \(sum\(\*nodes\) takes them one by one\)"),
    "a list for one": (lambda g, x: mlgraph.tanh([x]), TypeError, "tanh: expected at least one node, got list$"),
    "loss": (lambda g, x: mlgraph.Model(g, [x], "hinge"), ValueError,
             "loss: expected softmax_cross_entropy, binary_cross_entropy, squared_error or a node, got 'hinge'"),
    "loss of another": (lambda g, x: mlgraph.Model(g, [x], OTHER), ValueError, "loss: expected nodes of one graph"),
    "value of an input": (lambda g, x: x.value, AttributeError, "value: expected a constant or parameter, got input x"),
    "value for a constant": (lambda g, x: setattr(g[2], "value", 1), AttributeError, "value: .* a parameter, got constant n2"),
    "value of text": (lambda g, x: setattr(g[3], "value", "1"), TypeError, "value: expected a number, got str"),
    "new weights": (lambda g, x: setattr(g[4], "weights", [1]), ValueError, r"weights: expected shape \(2,\), got \(1,\)"),
    "new bias": (lambda g, x: setattr(g[4], "bias", "1"), TypeError, "bias: expected a number, got str"),
    "a first bias": (lambda g, x: setattr(g[5], "bias", np.inf + 1j), TypeError, "bias: expected a number, got complex"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_what_is_wrong_and_changes_nothing(name):
    attempt, error, message = ERRORS[name]
    g, x, *_ = small()
    before = everything(g)
    with pytest.raises(error, match=message):
        attempt(g, x)
    assert everything(g) == before


def test_sources_that_compile_the_graph_as_they_are_read():
    """Nodes that were added until the error go; the parameters have moved meanwhile."""
    g = mlgraph.Graph()
    x = g.inputs(3)
    hidden = [g.add_neuron(x, "tanh", weights=[1, 2, 3]) for _ in range(9)]
    out = g.add_neuron(hidden, weights=np.ones(9))
    before, numbers = everything(g)[:8], g.get_parameters().tolist()

    def useful():
        for neuron in hidden[:3]:
            gate = g.parameter(0.5) * neuron
            if g.compile(gate)(np.ones((1, 3)))[0, 0] > 0:
                yield gate

    with pytest.raises(ValueError, match=r"^weights: expected shape \(3,\), got"):
        g.add_neuron(useful(), weights=[1.0, 2.0])
    assert everything(g)[:8] == before and g.get_parameters().tolist() == numbers and g.storage.moves > 1
    assert {len(column) for column in g.storage.columns} == {10}
    again = g.add_neuron([g.parameter(2.0), out], weights=[1.0, 1.0])
    assert g.compile(again)(np.zeros((1, 3))) == 2


@pytest.mark.parametrize("fails", [False, True])
def test_sources_that_edit_the_graph_as_they_are_read(monkeypatch, fails):
    """What they have done stays, though the call is refused, or finds no memory for its node."""
    g = mlgraph.Graph()
    x = g.inputs(3)
    neuron = g.add_neuron(x[:2], weights=[1.0, 2.0])

    def sources():
        g.add_edge(x[2], neuron, 5.0)
        yield from x

    def fail(*_):
        raise MemoryError

    if fails:
        monkeypatch.setattr(mlgraph.Graph, "_append", fail)
    with pytest.raises(MemoryError if fails else ValueError, match=None if fails else r"^weights: expected shape \(3,\), got"):
        g.add_neuron(sources(), weights=[1.0, 2.0, 3.0] if fails else [1.0, 2.0])
    monkeypatch.undo()
    assert neuron.sources == x and neuron.weights.tolist() == [1, 2, 5] and len(g) == 4
    assert g.edges().weight.tolist() == [1, 2, 5] and g.compile(neuron)(np.ones((1, 3))) == 8
    assert len(g.storage.weights) == 1
    g.undo()
    assert neuron.sources == x[:2]
    assert g.compile(g.add_neuron([neuron, *x], weights=[1.0, 2, 3, 4]))(np.ones((1, 3))) == 12


def test_no_node_is_in_all_columns_before_its_sources_are_in_the_pool(monkeypatch):
    """Whoever finds the table as it grows, as a forked child may, drops what is in some columns only, and nothing else."""
    g, _, y, _, _, n, *_ = small()
    real, looks = nodes.extend, []

    def extend(column, values):
        real(column, values)
        whole = range(min(len(column) for column in g._of_nodes))
        looks.append(all(g._start[i] + g._count[i] <= len(g._pool) for i in whole))

    monkeypatch.setattr(nodes, "extend", extend)
    g.inputs(2)
    g.add_neurons([y, n], weights=np.ones((3, 2)))
    g.add_subgraph(mlgraph.Neurons([50, 40], ["relu", "tanh"], [0, 1]), mlgraph.Edges([40, 0, 1], [50, 40, 40], [0.5, 1, 2]))
    assert len(looks) == 3 * 6 and all(looks) and g[len(g) - 1].sources


def test_no_memory_for_neurons_whose_weights_edited_the_graph(monkeypatch):
    """No list of sources names nodes that are not there."""
    g = mlgraph.Graph()
    x, real = g.inputs(3), nodes.extend
    neuron = g.add_neuron(x[:2], weights=[1.0, 2.0])

    class Weights:
        def __array__(self, *_, **__):
            g.add_edge(x[2], neuron, 5.0)
            return np.ones(2)

    def extend(column, values):
        if column is g._code:
            raise MemoryError
        real(column, values)

    monkeypatch.setattr(nodes, "extend", extend)
    new = mlgraph.Neurons(np.array([10, 11]), np.array(["tanh", "tanh"]), np.zeros(2))
    with pytest.raises(MemoryError):
        g.add_subgraph(new, mlgraph.Edges(np.array([0, 10]), np.array([10, 11]), Weights()))
    monkeypatch.undo()
    assert len(g) == 4 and neuron.sources == x and [node.targets for node in x] == [[neuron]] * 3
    g.prune([(x[1], neuron)])
    assert g.compile(neuron)(np.ones((1, 3))) == 6


def test_sources_that_take_back_an_edit_as_they_are_read():
    g = mlgraph.Graph()
    x = g.inputs(3)
    g.add_neuron(x, weights=[1.0, 2.0, 3.0])

    def sources():
        g.undo()
        yield g.parameter(1.0, "a")
        yield g.parameter(2.0)

    with pytest.raises(ValueError, match=r"^weights: expected shape \(2,\), got"):
        g.add_neuron(sources(), weights=[1.0])
    assert [node.name for node in g] == ["n0", "n1", "n2", "a", "n4"]


def test_names_go_with_nodes_that_are_refused():
    g = mlgraph.Graph()
    with pytest.raises(ValueError, match=r"^weights: expected shape \(2,\), got"):
        g.add_neuron((g.parameter(1.0, name) for name in "ab"), weights=[1.0])
    assert [g.parameter(1.0).name, g.parameter(1.0).name] == ["n0", "n1"]


def test_an_edit_that_fails_after_it_was_noted_leaves_no_node(monkeypatch):
    g, *_ = small()
    before = everything(g)[:8]

    def fail(*given, **more):
        edited(*given, **more)
        raise MemoryError

    monkeypatch.setattr("mlgraph.graph.edited", fail)
    with pytest.raises(MemoryError):
        g.add_neuron([g[0]], weights=[1.0])
    assert everything(g)[:8] == before


def test_what_no_node_has_is_dropped():
    g, *_ = small()
    before = everything(g)
    g._inputs.append(len(g))
    g._names[len(g)] = "ghost"
    g._code.append(0)
    g.storage.append(0)
    g._keep(len(g))
    assert everything(g) == before


def test_inputs_stay_in_the_order_of_their_columns():
    """Which need not be that of the nodes: in a file that another program wrote."""
    g = mlgraph.Graph()
    a, b = g.inputs(2)
    g._inputs, g._data = array("i", [1, 0]), array("q", [1, 0])
    g.add_neuron([a], weights=[1.0])
    g.undo()
    assert g.compile([a, b])([[5.0, 7.0]]).tolist() == [[7, 5]] and list(g._inputs) == [1, 0]


def test_neurons_without_a_bias_have_0_in_the_table():
    g = mlgraph.Graph()
    g.add_neuron(g.inputs(1), weights=[2.0], bias=None)
    assert g.neurons().bias.tolist() == [0]


def test_what_add_neurons_returns_is_what_it_takes():
    g = mlgraph.Graph()
    first = g.add_neurons(g.inputs(3), weights=np.ones((4, 3)), biases=None)
    second = g.add_neurons(first, weights=np.ones((2, 4)), biases=None)
    assert [node.id for node in g[second[0]].sources] == list(first)


def test_names_that_nodes_are_given(tmp_path):
    """Of any kind of node; copies, files and what is left by `compact` keep them, errors and pictures show them."""
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
        assert names.count("loop") == names.count("ink") == 1 and isinstance(other.graph[names.index("loop")], mlgraph.Neuron)
    neuron.name = None
    assert neuron.name == f"n{neuron.id}"


def test_nodes_by_the_names_that_they_were_given(tmp_path):
    g = mlgraph.Graph()
    x, w = g.input("x"), g.parameter(2.0, "w")
    y = g.add_neuron([x, w], weights=[1.0, 1.0])
    y.name = "answer"
    model = mlgraph.Model(g, y)
    model.save(tmp_path / "net.npz")
    for graph in (g, mlgraph.load(tmp_path / "net.npz").graph, model.compact().graph):
        assert [graph[name].id for name in ("x", "w", "answer")] == [0, 1, 2] and isinstance(graph["answer"], mlgraph.Neuron)
    g.add_neuron([x]).name = "x"
    for name, message in (("x", "'x', which 2 have"), ("n2", "'n2', which none has"), ("", "'', which none has")):
        with pytest.raises(ValueError, match=f"^node: expected the name of one node, got {message}$"):
            g[name]
        assert name not in g
    g.undo()
    assert g["x"] == x and "x" in g and x in g and 2 in g and y in g
    assert not any(node in g for node in (3, -1, mlgraph.Node(g, 3), mlgraph.Graph().input("x"), None, 1.0, [x]))
