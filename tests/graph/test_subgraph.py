"""Adding neurons and edges given as arrays."""

import copy

import numpy as np
from editable import everything
from hypothesis import given, strategies as st

import mlgraph
from mlgraph import Edges, Neurons
from mlgraph.graph.ops import ACTIVATIONS
from mlgraph.models.running import engine_of


@st.composite
def wired(draw):
    """A graph of inputs and neurons, each of which reads some of what came before."""
    g = mlgraph.Graph()
    nodes = g.inputs(draw(st.integers(1, 4)))
    for _ in range(draw(st.integers(1, 12))):
        sources = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=5, unique=True))
        weights = draw(st.lists(st.integers(-4, 4), min_size=len(sources), max_size=len(sources)))
        nodes.append(
            g.add_neuron(sources, draw(st.sampled_from(ACTIVATIONS)), weights=weights, bias=draw(st.integers(-2, 2)))
        )
    return g


def test_reading_the_weights_may_add_nodes():
    """Those nodes get the lower ids."""
    g = mlgraph.Graph()
    g.input()

    class Weights:
        def __array__(self, *_, **__):
            g.parameter(5.0)
            return np.array([2.0, 3.0])

    new = Neurons(np.array([8, 9]), ["identity"] * 2, np.zeros(2))
    ids = g.add_subgraph(new, Edges(np.array([0, 8]), np.array([8, 9]), Weights()))
    assert ids.tolist() == [2, 3] and g[3].sources == [g[2]] and g.compile(g[3])([[1.0]]) == 6


@given(wired(), st.randoms(use_true_random=False), st.integers(0, 3))
def test_arrays_of_a_graph_rebuild_it(g, random, before):
    """In any order, with any numbers, in a graph that has other nodes."""
    neurons, edges = g.neurons(), g.edges()
    other = mlgraph.Graph()
    other.inputs(g.n_inputs)
    for i in range(before):
        other.parameter(i)
    order = random.sample(range(len(neurons.node)), len(neurons.node))
    numbers = np.array(
        [*range(g.n_inputs), *random.sample([*range(-50, 0), *range(g.n_inputs, 99)], len(g) - g.n_inputs)]
    )
    slot = np.array(random.sample(range(len(edges.source)), len(edges.source)), int)
    ids = other.add_subgraph(
        Neurons(numbers[neurons.node[order]], neurons.activation[order], neurons.bias[order]),
        Edges(numbers[edges.source[slot]], numbers[edges.target[slot]], edges.weight[slot]),
    )
    new_of = {i: i for i in range(g.n_inputs)} | dict(zip(neurons.node[order].tolist(), ids.tolist(), strict=True))
    assert sorted(ids.tolist()) == list(range(g.n_inputs + before, len(other)))
    for old in neurons.node.tolist():
        mine, theirs = other[new_of[old]], g[old]
        assert (mine.activation, mine.bias) == (theirs.activation, theirs.bias)
        wanted = {new_of[source.id]: weight for source, _, weight in theirs.edges}
        assert {source.id: weight for source, _, weight in mine.edges} == wanted


def test_network_rebuilt_from_arrays_has_the_same_plan():
    net = mlgraph.Network(12, seed=0)
    net.add_layer(20, "relu")
    net.add_layer(16, "tanh")
    neurons, edges = net.graph.neurons(), net.graph.edges()
    g = mlgraph.Graph()
    g.inputs(12)
    ids = g.add_subgraph(neurons, edges)
    model = mlgraph.Model(g, [g[i] for i in ids[-16:].tolist()])
    x = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    assert model.forward(x).tobytes() == net.forward(x).tobytes()
    assert [i.kind for i in engine_of(model).plan.instructions] == [i.kind for i in engine_of(net).plan.instructions]
    targets = np.zeros((40, 16))
    for learner in (model, net):
        learner.fit(x, targets, epochs=3, learning_rate=0.01)
    assert model.forward(x).tobytes() == net.forward(x).tobytes()


def test_add_subgraph_is_one_edit():
    g = mlgraph.Graph()
    hidden = g.add_neuron(g.inputs(2), "relu", weights=[1.0, 2.0])
    before = everything(g)
    g.add_subgraph(Neurons([5, 6], ["tanh", "relu"], [0, 0.5]), Edges([2, 5, 1, 0], [5, 6, 6, 6], [1.0, 2.0, 3.0, 4.0]))
    assert g[3].sources == [hidden] and str(g[4]) == "relu(2*n3 + 3*n1 + 4*n0 + 0.5)", "sources in the order of edges"
    again = copy.deepcopy(g)
    g.undo()
    assert everything(g) == before and again.n_edges == 6
