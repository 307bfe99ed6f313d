"""A call that is refused adds no node and leaves the graph as it was."""

import numpy as np
import pytest
from editable import held as everything
from graphs import small

import mlgraph

NAN, INF = np.nan, np.inf

OTHER = mlgraph.Graph().input()

# fmt: off
ERRORS = {
    "inputs": (lambda g, x: g.inputs(-1), ValueError, "n: expected an integer of at least 0, got -1"),
    "half an input": (lambda g, x: g.inputs(0.5), TypeError, "n: expected an integer of at least 0, got 0.5"),
    "constant": (lambda g, x: g.constant("3"), TypeError, "value: expected a number, got str"),
    "complex constant": (lambda g, x: g.constant(1j), TypeError, "value: expected a number, got complex"),
    "huge constant": (lambda g, x: g.constant(1e39), ValueError, r"value: .* that float32 can hold, got 1e\+39"),
    "huge integer": (
        lambda g, x: g.constant(10**400), ValueError, "value: expected a number that float32 can hold, got 1000"),
    "parameter": (lambda g, x: g.parameter(None), TypeError, "value: expected a number, got NoneType"),
    "huge parameter": (lambda g, x: g.parameter(-1e39), ValueError, "value: expected a number that float32 can hold"),
    "node as parameter": (lambda g, x: g.parameter(x), TypeError, "value: expected a number, got Node"),
    "activation": (
        lambda g, x: g.add_neuron([x], "softplus"),
        ValueError, "activation: expected one of identity, relu, leaky_relu, sigmoid, tanh, got 'softplus'"
    ),
    "activation of many": (lambda g, x: g.add_neurons([x], None, weights=[[1]]), TypeError, "activation: .* got None"),
    "no sources": (lambda g, x: g.add_neuron([]), ValueError, "sources: expected at least one node, got none"),
    "source twice": (lambda g, x: g.add_neuron([x, x]), ValueError, "sources: node x is given twice"),
    "number as source": (lambda g, x: g.add_neuron([x, 1.0]), TypeError, "sources: expected nodes, got float"),
    "one node as sources": (lambda g, x: g.add_neuron(x), TypeError, "sources: expected a sequence of nodes, got Node"),
    "source of another": (
        lambda g, x: g.add_neuron([x, OTHER]),
        ValueError, "sources: expected nodes of one graph, got node 0 of another"
    ),
    "weights": (
        lambda g, x: g.add_neuron([x], weights=[1, 2]), ValueError, r"weights: expected shape \(1,\), got \(2,\)"),
    "weights of text": (
        lambda g, x: g.add_neuron([x], weights=["1"]), TypeError, "weights: expected numbers, got .*<U1"),
    "huge weights": (
        lambda g, x: g.add_neuron([x], weights=[1e39]), ValueError, "weights: expected numbers that float32 can"),
    "bias": (lambda g, x: g.add_neuron([x], bias=[1]), TypeError, "bias: expected a number, got list"),
    "weights of many": (
        lambda g, x: g.add_neurons([x], weights=[1, 2]), ValueError, r"weights: expected shape \(n, 1\), got"),
    "rows": (
        lambda g, x: g.add_neurons([x], weights=[[1], [1, 2]]), TypeError, "weights: .* rows of different lengths"),
    "no neurons": (
        lambda g, x: g.add_neurons([x], weights=np.ones((0, 1))),
        ValueError, "weights: expected at least one neuron, got"
    ),
    "biases": (
        lambda g, x: g.add_neurons([x], weights=[[1], [2]], biases=[1]),
        ValueError, r"biases: expected shape \(2,\), got \(1,\)"
    ),
    "source of many twice": (
        lambda g, x: g.add_neurons(np.array([0, 0]), weights=[[1, 2]]), ValueError, "sources: node x is given twice"),
    "number of no node": (
        lambda g, x: g.add_neurons(np.array([8]), weights=[[1]]), ValueError, "sources: .* from 0 to 7, got 8 to 8"),
    "wrapped number": (
        lambda g, x: g.add_neurons(np.array([2**32]), weights=[[1]]), ValueError, "sources: expected ids from 0 to 7"),
    "numbers that are no ids": (
        lambda g, x: g.add_neurons(np.array([0.5]), weights=[[1]]), TypeError, "sources: .* got float64"),
    "operation": (
        lambda g, x: g.operation("sine", x), ValueError, "name: expected one of identity, relu, .*, got 'sine'"),
    "arity": (lambda g, x: g.operation("add", x), ValueError, "arguments of add: expected 2, got 1"),
    "no arguments": (lambda g, x: g.operation("sum"), ValueError, "arguments of sum: expected at least 1, got 0"),
    "argument": (lambda g, x: g.operation("add", 1.0, "x"), TypeError, "arguments of add: expected a number, got str"),
    "literals before an error": (
        lambda g, x: mlgraph.sum(x, 1, 2, OTHER),
        ValueError, "arguments of sum: expected nodes of one graph, got node 0 of another"
    ),
    "softmax": (lambda g, x: g.softmax([x, OTHER]), ValueError, "arguments of logsumexp: expected nodes of one graph"),
    "softmax of nothing": (
        lambda g, x: g.softmax([]), ValueError, "arguments of logsumexp: expected at least 1, got 0"),
    "node of no number": (lambda g, x: g[8], IndexError, "node: expected the id of a node, from 0 to 7, got 8"),
    "node from the end": (lambda g, x: g[-1], IndexError, "node: expected the id of a node, from 0 to 7, got -1"),
    "no output": (lambda g, x: g.compile([]), ValueError, "outputs: expected at least one node, got none"),
    "number as output": (lambda g, x: g.compile(1.0), TypeError, "outputs: expected a sequence of nodes, got float"),
    "numbers as outputs": (lambda g, x: g.compile([x, 1.0]), TypeError, "outputs: expected nodes, got float"),
    "ids as nodes": (lambda g, x: g.compile([0]), TypeError, r"outputs: expected nodes, got int; graph\[0\] is a node"),
    "numbers as nodes": (lambda g, x: g.compile([-1]), TypeError, "outputs: expected nodes, got int$"),
    "no id": (
        lambda g, x: g.add_edge(0, 10**6), IndexError, r"add_edge: expected the id of a node, from 0 to \d+, got"),
    "output of another": (lambda g, x: g.compile(OTHER), ValueError, "outputs: expected nodes of one graph"),
    "outputs of a model": (
        lambda g, x: mlgraph.Model(g, 1), TypeError, "outputs: expected a sequence of nodes, got int"),
    "comparison as a term": (
        lambda g, x: x * (x == g[1]), TypeError, "arguments of mul: .*, got a bool; x == y compares"),
    "comparison among terms": (lambda g, x: mlgraph.sum(x, x != g[1]), TypeError, "arguments of sum: .*, got a bool"),
    "truth as a constant": (lambda g, x: g.constant(True), TypeError, "value: expected a number, got bool"),
    "set of sources": (
        lambda g, x: g.add_neuron({x, g[1]}), TypeError, "sources: expected a sequence of nodes, got set"),
    "sources with weights": (
        lambda g, x: g.add_neuron({x: 5.0}), TypeError, "sources: expected a sequence of nodes, got dict"),
    "set of outputs": (lambda g, x: g.compile({x, g[1]}), TypeError, "outputs: expected a sequence of nodes, got set"),
    "a list of terms": (
        lambda g, x: mlgraph.sum([x, x]),
        TypeError, r"sum: expected at least one node, got list; write sum\(\*nodes\)"
    ),
    "a list for one": (lambda g, x: mlgraph.tanh([x]), TypeError, "tanh: expected at least one node, got list$"),
    "loss": (
        lambda g, x: mlgraph.Model(g, [x], "hinge"),
        ValueError, "loss: expected softmax_cross_entropy, binary_cross_entropy, squared_error or a node, got 'hinge'"
    ),
    "loss of another": (lambda g, x: mlgraph.Model(g, [x], OTHER), ValueError, "loss: expected nodes of one graph"),
    "value of an input": (lambda g, x: x.value, AttributeError, "value: expected a constant or parameter, got input x"),
    "value for a constant": (
        lambda g, x: setattr(g[2], "value", 1), AttributeError, "value: .* a parameter, got constant n2"),
    "value of text": (lambda g, x: setattr(g[3], "value", "1"), TypeError, "value: expected a number, got str"),
    "new weights": (
        lambda g, x: setattr(g[4], "weights", [1]), ValueError, r"weights: expected shape \(2,\), got \(1,\)"),
    "new bias": (lambda g, x: setattr(g[4], "bias", "1"), TypeError, "bias: expected a number, got str"),
    "a first bias": (
        lambda g, x: setattr(g[5], "bias", np.inf + 1j), TypeError, "bias: expected a number, got complex"),
}
# fmt: on


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_what_is_wrong_and_changes_nothing(name):
    attempt, error, message = ERRORS[name]
    g, x, *_ = small()
    before = everything(g)
    with pytest.raises(error, match=message):
        attempt(g, x)
    assert everything(g) == before


def test_sources_may_undo_an_edit_while_they_are_read():
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


def test_names_of_refused_nodes_are_removed():
    g = mlgraph.Graph()
    with pytest.raises(ValueError, match=r"^weights: expected shape \(2,\), got"):
        g.add_neuron((g.parameter(1.0, name) for name in "ab"), weights=[1.0])
    assert [g.parameter(1.0).name, g.parameter(1.0).name] == ["n0", "n1"]
