"""Adding neurons and edges given as arrays."""

import copy

import numpy as np
import pytest
from editable import everything
from hypothesis import given, strategies as st

import mlgraph
from mlgraph import CycleError, Edges, Neurons
from mlgraph.models.running import engine_of

ACTIVATIONS = ("identity", "relu", "leaky_relu", "sigmoid", "tanh")


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
    """Those come before the neurons."""
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
    assert sorted(ids.tolist()) == list(range(g.n_inputs + before, g.n_inputs + before + len(order)))
    was = dict(zip(ids.tolist(), neurons.node[order].tolist(), strict=True))
    was |= {i: i for i in range(g.n_inputs)}
    for new, old in was.items():
        mine, theirs = other[new], g[old]
        if old >= g.n_inputs:
            assert (mine.activation, mine.bias) == (theirs.activation, theirs.bias)
            of_mine = {was[source.id]: weight for source, weight in zip(mine.sources, mine.weights, strict=True)}
            assert of_mine == {source.id: weight for source, weight in zip(theirs.sources, theirs.weights, strict=True)}
    x = np.linspace(-1, 1, 7 * g.n_inputs).reshape(7, -1)
    back = {old: new for new, old in was.items()}
    np.testing.assert_allclose(
        other.compile([other[back[i]] for i in range(len(g))])(x), g.compile(list(g))(x), rtol=1e-5, atol=1e-4
    )


def test_sources_are_in_the_order_of_the_edges():
    g = mlgraph.Graph()
    g.inputs(3)
    g.add_subgraph(Neurons([9], ["tanh"], [0.5]), Edges([2, 0, 1], [9, 9, 9], [3.0, 1.0, 2.0]))
    assert str(g[3]) == "tanh(3*n2 + 1*n0 + 2*n1 + 0.5)"


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
    x = g.inputs(2)
    hidden = g.add_neuron(x, "relu", weights=[1.0, 2.0])
    before = everything(g)
    g.add_subgraph(Neurons([5, 6], ["tanh", "tanh"], [0, 0]), Edges([2, 5, 1], [5, 6, 6], [1.0, 2.0, 3.0]))
    assert g[4].sources == [g[3], x[1]] and g[3].sources == [hidden] and g.n_edges == 5
    again = copy.deepcopy(g)
    g.undo()
    assert everything(g) == before and again.n_edges == 5
    hidden.prune()
    dead = mlgraph.exp(hidden)
    before = everything(g)
    with pytest.raises(ValueError, match="edges: <exp n3> depends only on neurons that are cut off"):
        g.add_subgraph(Neurons([9], ["tanh"], [0]), Edges([dead.id], [9], [1.0]))
    assert everything(g) == before


ONE, TWO = Neurons([5], ["relu"], [0]), Neurons([5, 6], ["relu", "tanh"], [0, 0])
EDGE = Edges([0], [5], [1])


@pytest.mark.parametrize(
    ("neurons", "edges", "error", "message"),
    [
        (TWO, Edges([6, 5], [5, 6], [1, 1]), CycleError, "edges: they form a cycle of 2 neurons: (5 -> 6|6 -> 5)$"),
        (ONE, Edges([5], [5], [1]), CycleError, "edges: they form a cycle of 1 neuron: 5$"),
        (TWO, EDGE, ValueError, "add_subgraph: no edge leads into neuron 6"),
        (Neurons([5, 5], ["relu"] * 2, [0, 0]), EDGE, ValueError, "neurons: the number 5 is used twice"),
        (ONE, Edges([0, 0], [5, 5], [1, 2]), ValueError, "edges: two edges lead from the same node to 5"),
        (ONE, Edges([2], [5], [1]), ValueError, "edges: source 2 is none of the neurons"),
        (ONE, Edges([-1], [5], [1]), ValueError, "edges: source -1 is none of the neurons"),
        (ONE, Edges([0], [1], [1]), ValueError, "edges: target 1 is none of the neurons"),
        (Neurons([5], ["sine"], [0]), EDGE, ValueError, "neurons: activation: expected one of .*, got 'sine'"),
        (
            Neurons([5], ["relu", "relu"], [0]),
            EDGE,
            ValueError,
            "neurons: expected 1 activations, one for each neuron, got",
        ),
        (ONE, Edges([0, 1], [5], [1, 1]), ValueError, "edges: expected 2 targets, one for each source, got 1"),
        (
            Neurons([5.5], ["relu"], [0]),
            EDGE,
            TypeError,
            "neurons: node: expected a row of integers, got float64 of shape",
        ),
        ([5], EDGE, TypeError, "neurons: expected mlgraph.Neurons, got list"),
        (ONE, [(0, 5)], TypeError, "edges: expected mlgraph.Edges, got list"),
    ],
)
def test_refused_arrays_add_nothing(neurons, edges, error, message):
    g = mlgraph.Graph()
    g.inputs(2)
    before = everything(g)
    with pytest.raises(error, match=message):
        g.add_subgraph(neurons, edges)
    assert everything(g) == before


def test_empty_graph_has_no_other_sources():
    with pytest.raises(ValueError, match="edges: source 0 is none of the neurons and no node of the graph"):
        mlgraph.Graph().add_subgraph(ONE, EDGE)
