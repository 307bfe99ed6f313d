"""A call that is refused says what is wrong and changes nothing."""

import re

import numpy as np
import pytest
from editable import X, Y, held, network

import mlgraph
from mlgraph import CycleError, Edges, Neurons

OTHER = mlgraph.Graph().add_input()
ONE, TWO = Neurons([90], ["relu"], [0]), Neurons([90, 91], ["relu", "tanh"], [0, 0])
EDGE = Edges([0], [90], [1])


@pytest.fixture(scope="module")
def trained():
    """Inputs are 0 to 11, hidden neurons 12 to 31 and 32 to 40, outputs 41 to 43, a constant 55, a parameter 56."""
    net = network()
    net.fit(X, Y, epochs=1, optimizer="adam", learning_rate=0.01)
    net.graph.add_constant(2.5), net.graph.add_parameter(0.5)
    return net


@pytest.mark.parametrize(
    ("call", "error", "fragment"),
    [
        # New nodes.
        (lambda g, x: g.add_inputs(-1), ValueError, "n: expected an integer of at least 0, got -1"),
        (lambda g, x: g.add_constant("3"), TypeError, "value: expected a number, got str"),
        (lambda g, x: g.add_constant(True), TypeError, "value: expected a number, got bool"),
        (lambda g, x: g.add_parameter(1e39), ValueError, "value: expected a number that float32 can hold"),
        (lambda g, x: g.add_neuron([]), ValueError, "got none; a constant that is trained is g.add_parameter"),
        (lambda g, x: g.add_neuron([x, x]), ValueError, "sources: node n0 is given twice"),
        (lambda g, x: g.add_neuron([x, 1.0]), TypeError, "sources: expected nodes, got float"),
        (lambda g, x: g.add_neuron({x}), TypeError, "sources: expected a sequence of nodes, got set"),
        (lambda g, x: g.add_neuron([x, OTHER]), ValueError, "sources: expected nodes of one graph"),
        (lambda g, x: g.add_neuron([x], "sine"), ValueError, "activation: expected one of identity, relu"),
        (lambda g, x: g.add_neuron([x], weights=[1, 2]), ValueError, "weights: expected shape (1,), got (2,)"),
        (lambda g, x: g.add_neuron([x], weights=["1"]), TypeError, "weights: expected numbers"),
        (lambda g, x: g.add_neuron([x], bias=[1]), TypeError, "bias: expected a number, got list"),
        (lambda g, x: g.add_neurons([x], weights=[1, 2]), ValueError, "weights: expected shape (n, 1), got (2,)"),
        (lambda g, x: g.add_neurons([x], weights=[[1], [2]], biases=[1]), ValueError, "biases: expected shape (2,)"),
        (lambda g, x: g.add_neurons([x], weights=np.ones((0, 1))), ValueError, "weights: expected at least one neuron"),
        (lambda g, x: g.add_neurons(np.array([2**32]), weights=[[1]]), ValueError, "expected ids from 0 to 56"),
        (lambda g, x: g.add_neurons(np.array([0.5]), weights=[[1]]), TypeError, "sources: expected nodes"),
        (lambda g, x: g.add_operation("sine", x), ValueError, "name: expected one of identity, relu"),
        (lambda g, x: g.add_operation("add", x), ValueError, "arguments of add: expected 2, got 1"),
        (lambda g, x: g.add_operation("sum"), ValueError, "arguments of sum: expected at least 1, got 0"),
        (lambda g, x: mlgraph.sum(x, 1, OTHER), ValueError, "arguments of sum: expected nodes of one graph"),
        (lambda g, x: mlgraph.sum([x, x]), TypeError, "sum: expected at least one node, got list; write sum(*nodes)"),
        (lambda g, x: x * (x == g[1]), TypeError, "arguments of mul: expected nodes or numbers"),
        (lambda g, x: g.add_softmax([]), ValueError, "arguments of max: expected at least 1, got 0"),
        # Nodes in place of numbers.
        *(
            (
                call,
                TypeError,
                f"{message}; to compute with a node in place of a number, write an expression, such as w * x",
            )
            for call, message in [
                (lambda g, x: g.add_neuron([x, g[1]], weights=[1, g[56]]), "numbers, got <parameter n56> at [1]"),
                (lambda g, x: g.add_neuron([x], weights=g[56]), "weights: expected numbers, got <parameter n56>"),
                (lambda g, x: g.add_neuron([x], bias=g[56]), "bias: expected a number, got Node"),
                (lambda g, x: g.add_neurons([x], weights=[[g[56]]]), "numbers, got <parameter n56> at [0, 0]"),
                (lambda g, x: g.add_neurons([x], n=1, biases=[g[56]]), "numbers, got <parameter n56> at [0]"),
                (lambda g, x: setattr(g[12], "weights", [g[56]] * 12), "numbers, got <parameter n56> at [0]"),
                (lambda g, x: setattr(g[12], "bias", g[56]), "bias: expected a number, got Node"),
                (lambda g, x: setattr(g[12].in_edges[0], "weight", g[56]), "weight: expected a number, got Node"),
                (lambda g, x: setattr(g[56], "value", x), "value: expected a number, got Node"),
            ]
        ),
        # Functions of numpy.
        (lambda g, x: np.hypot(x, 1), TypeError, "hypot: nodes have no such operation; help(Graph.add_operation)"),
        (lambda g, x: np.isnan(x), TypeError, "isnan: nodes have no such operation"),
        (lambda g, x: np.greater(x, 1), TypeError, "nodes cannot be compared; maximum(x, y) is the larger one in each"),
        (lambda g, x: x.tanh(), AttributeError, "has no attribute 'tanh'; here it is mlgraph.tanh(node)"),
        # Reading and assigning.
        (lambda g, x: g[57], IndexError, "node: expected the id of a node, from 0 to 56, got 57"),
        (lambda g, x: g[-1], IndexError, "node: expected the id of a node, from 0 to 56, got -1"),
        (lambda g, x: g[x], TypeError, "node: expected the id of a node, got Node"),
        (lambda g, x: g["nobody"], ValueError, "node: no nodes have the name 'nobody'"),
        (lambda g, x: mlgraph.Neuron(g, 0), ValueError, "id: expected the id of a neuron, got that of <input n0>"),
        (lambda g, x: g.sources_of(True), TypeError, "node: expected a node or its id, got bool"),
        (lambda g, x: g.weights_of(x), ValueError, "node: expected a neuron or parameter, got <input n0>"),
        (lambda g, x: g.edge(x, 41), ValueError, "edge: there is no edge from n0 to layer 2 neuron 0"),
        (lambda g, x: g.compile([]), ValueError, "outputs: expected at least one node, got none"),
        (lambda g, x: g.compile([0]), TypeError, "outputs: expected nodes, got int; graph[0] is a node"),
        (lambda g, x: mlgraph.Model(g, [x], "hinge"), ValueError, "loss: expected softmax_cross_entropy"),
        (lambda g, x: g.set_parameters([1, 2, 3]), ValueError, "values: expected shape (480,), got (3,)"),
        (lambda g, x: x.value, AttributeError, "value: expected a constant or parameter, got input n0"),
        (lambda g, x: setattr(g[55], "value", 1), AttributeError, "value: expected a parameter, got constant n55"),
        (lambda g, x: setattr(g[56], "value", "1"), TypeError, "value: expected a number, got str"),
        (lambda g, x: setattr(g[12], "weights", [1]), ValueError, "weights: expected shape (12,), got (1,)"),
        (lambda g, x: setattr(g[12], "bias", 1j), TypeError, "bias: expected a number, got complex"),
        (lambda g, x: setattr(g[12], "activation", "sine"), ValueError, "activation: expected one of identity"),
        # Cutting.
        (lambda g, x: g[42].prune(), ValueError, "prune: layer 2 neuron 1 is an output of a model"),
        (lambda g, x: g.prune(range(12, 32)), ValueError, "prune: this would disconnect layer 2 neuron 0,"),
        (lambda g, x: g.prune(g[43].in_edges), ValueError, "prune: this would disconnect layer 2 neuron 2,"),
        (lambda g, x: g.prune([(0, 41)]), ValueError, "prune: there is no edge from n0 to layer 2 neuron 0"),
        (lambda g, x: g.prune([(0, 99)]), IndexError, "prune: node: expected the id of a node, from 0 to 56"),
        (lambda g, x: g.prune([x]), TypeError, "prune: expected neurons, edges or pairs (source, target), got Node"),
        (lambda g, x: g.prune(3), TypeError, "prune: expected neurons, edges or pairs (source, target), got int"),
        (lambda g, x: g.prune((g[12], g[32])), TypeError, "prune: a pair is ambiguous; write [(source, target)]"),
        (lambda g, x: g.prune(network().layers[0].neurons), ValueError, "prune: expected nodes of one graph"),
        (lambda g, x: g.prune(range(10**15)), ValueError, "expected ids from 0 to 56, got 0 to 9999"),
        (lambda g, x: g.prune(np.array([[0, 13]])), TypeError, "prune: expected nodes or a row of ids, got int64"),
        (lambda g, x: g.prune(Edges([0, 99], [12, 12], [0, 0])), ValueError, "from 0 to 56, got node 99"),
        # Adding edges.
        (lambda g, x: g.add_edge(x, 12), ValueError, "add_edge: the edge from n0 to layer 0 neuron 0 already exists"),
        (lambda g, x: g.add_edge(x, 1), ValueError, "add_edge: edges must lead to neurons, got an edge to <input n1>"),
        (lambda g, x: g.add_edge(OTHER, 12), ValueError, "add_edge: expected nodes of one graph"),
        (lambda g, x: g.add_edge(x, 32, 1e39), ValueError, "weight: expected a number that float32 can hold"),
        (lambda g, x: g.add_edge(32, 12), CycleError, "add_edge: the edges form a cycle of 2 nodes"),
        (lambda g, x: g.add_edge(32, 32), CycleError, "add_edge: the edges form a cycle of 1 node: layer 1 neuron 0"),
        (lambda g, x: g.add_edges(Edges([32], [12], [1])), CycleError, "add_edges: the edges form a cycle"),
        (
            lambda g, x: g.add_edges(Edges([0, 0], [32, 32], [1, 1])),
            ValueError,
            "n0 to layer 1 neuron 0 is given twice",
        ),
        (lambda g, x: g.add_edges([(0, 32)]), TypeError, "add_edges: expected mlgraph.Edges, got list"),
        # Adding a subgraph.
        (lambda g, x: g.add_subgraph([90], EDGE), TypeError, "neurons: expected mlgraph.Neurons, got list"),
        (lambda g, x: g.add_subgraph(Neurons([], [], []), EDGE), ValueError, "neurons: expected at least one"),
        (lambda g, x: g.add_subgraph(Neurons([9, 9], ["relu"] * 2, [0, 0]), EDGE), ValueError, "9 is used twice"),
        (lambda g, x: g.add_subgraph(Neurons([90], ["sine"], [0]), EDGE), ValueError, "activation: expected one of"),
        (lambda g, x: g.add_subgraph(Neurons([90], [], [0]), EDGE), ValueError, "neurons: expected 1 activations"),
        (lambda g, x: g.add_subgraph(TWO, EDGE), ValueError, "add_subgraph: no edge leads into neuron 91"),
        (lambda g, x: g.add_subgraph(ONE, Edges([0, 0], [90, 90], [1, 2])), ValueError, "from the same node to 90"),
        (lambda g, x: g.add_subgraph(ONE, Edges([0, 1], [90], [1, 1])), ValueError, "edges: expected 2 targets"),
        (lambda g, x: g.add_subgraph(ONE, Edges([-1], [90], [1])), ValueError, "source -1 is none of the neurons"),
        (lambda g, x: g.add_subgraph(ONE, Edges([0], [1], [1])), ValueError, "target 1 is none of the neurons"),
        (
            lambda g, x: g.add_subgraph(TWO, Edges([91, 90], [90, 91], [1, 1])),
            CycleError,
            "form a cycle of 2 neurons: 9",
        ),
        # Undoing.
        (lambda g, x: g.undo(), ValueError, "undo: the graph has changed since its last edit"),
        (lambda g, x: g.one_edit(parameters="no"), TypeError, "parameters: expected True or False, got"),
    ],
)
def test_refused_call_says_what_is_wrong_and_changes_nothing(trained, call, error, fragment):
    g = trained.graph
    before, values = held(g), trained.forward(X)
    with pytest.raises(error, match=re.escape(fragment)):
        call(g, g[0])
    assert held(g) == before and trained.forward(X).tobytes() == values.tobytes()


def test_refused_neuron_removes_the_nodes_of_its_arguments():
    """Sources may be read from a generator, which adds nodes; their names go, too."""
    g = mlgraph.Graph()
    with pytest.raises(ValueError, match=r"^weights: expected shape \(2,\), got"):
        g.add_neuron((g.add_parameter(1.0, name) for name in "ab"), weights=[1.0])
    assert [g.add_parameter(1.0).name, g.add_parameter(1.0).name] == ["n0", "n1"]


@pytest.mark.parametrize("function", [np.maximum, np.multiply])
def test_a_function_of_numpy_that_refuses_one_element_adds_no_node(function):
    g = mlgraph.Graph()
    x = g.add_input()
    with pytest.raises(TypeError, match="NoneType"):
        function(x, np.array([1, None]))
    assert list(g) == [x] and len(g.constants) == 0
