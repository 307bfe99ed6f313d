"""Adding neurons and edges given as arrays."""

import copy

import numpy as np
import pytest
from editable import X, everything, network

import mlgraph
from mlgraph import Edges, Neurons
from mlgraph.models.running import engine_of


@pytest.mark.parametrize("seed", range(5))
def test_arrays_of_a_graph_rebuild_it(seed):
    """In any order, with any numbers, in a graph that has other nodes."""
    net, rng = network(seed), np.random.default_rng(seed)
    g = net.graph
    net.prune(0.6)
    g.add_edge(g.add_neuron([g[0], net.layers[0][4]], "tanh", weights=[1.0, -2.0]), net.layers[1][3], 0.5)
    neurons, edges, other = g.neurons(), g.edges(), mlgraph.Graph()
    other.add_inputs(12), other.add_parameter(1.0)
    numbers = np.concatenate([np.arange(12), rng.permutation(1000)[: len(g)] - 1000])
    order, slot = rng.permutation(len(neurons.node)), rng.permutation(len(edges.source))
    ids = other.add_subgraph(
        Neurons(numbers[neurons.node[order]], neurons.activation[order], neurons.bias[order]),
        Edges(numbers[edges.source[slot]], numbers[edges.target[slot]], edges.weight[slot]),
    )
    assert sorted(ids.tolist()) == list(range(13, len(other)))
    new_of = dict(zip([*range(12), *neurons.node[order].tolist()], [*range(12), *ids.tolist()], strict=True))
    for old in neurons.node.tolist():
        mine, theirs = other[new_of[old]], g[old]
        assert (mine.activation, mine.bias) == (theirs.activation, theirs.bias)
        edges_of_mine = {source.id: weight for source, _, weight in mine.in_edges}
        assert edges_of_mine == {new_of[source.id]: weight for source, _, weight in theirs.in_edges}
    outputs = [other[new_of[node.id]] for node in net.outputs]
    np.testing.assert_allclose(mlgraph.Model(other, outputs).forward(X), net.forward(X), rtol=1e-4, atol=1e-5)


def test_network_rebuilt_from_arrays_has_the_same_plan():
    net = mlgraph.Network(12, seed=0)
    net.add_layer(20, "relu")
    net.add_layer(16, "tanh")
    neurons, edges = net.graph.neurons(), net.graph.edges()
    g = mlgraph.Graph()
    g.add_inputs(12)
    ids = g.add_subgraph(neurons, edges)
    model = mlgraph.Model(g, [g[i] for i in ids[-16:].tolist()])
    x = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    assert model.forward(x).tobytes() == net.forward(x).tobytes()
    assert [i.kind for i in engine_of(model).plan.instructions] == [i.kind for i in engine_of(net).plan.instructions]
    targets = np.zeros((40, 16))
    for learner in (model, net):
        learner.fit(x, targets, epochs=3, learning_rate=0.01, seed=0)
    assert model.forward(x).tobytes() == net.forward(x).tobytes()


def test_add_subgraph_is_one_edit():
    g = mlgraph.Graph()
    hidden = g.add_neuron(g.add_inputs(2), "relu", weights=[1.0, 2.0])
    before = everything(g)
    g.add_subgraph(Neurons([5, 6], ["tanh", "relu"], [0, 0.5]), Edges([2, 5, 1, 0], [5, 6, 6, 6], [1.0, 2.0, 3.0, 4.0]))
    assert g[3].sources == [hidden] and str(g[4]) == "relu(2*n3 + 3*n1 + 4*n0 + 0.5)", "sources in the order of edges"
    again = copy.deepcopy(g)
    g.undo()
    assert everything(g) == before and again.n_edges == 6
