"""`Network.regrow`: which edges are added, compared with their definition computed another way."""

import cuttable
import numpy as np
import pytest
from scored import DATA, EDGES, X, Y, best, by_layer, ends, network, weights

import mlgraph
from mlgraph.graph import arrays
from mlgraph.sparsity import growing


def missing(net):
    """The pairs of live nodes of adjacent layers without an edge."""
    alive, there = net.graph.alive(), weights(net)
    pairs = [(s, t) for layer in net.layers for t in layer.ids for s in layer.source_ids if alive[s] and alive[t]]
    return [pair for pair in pairs if pair not in there]


def test_all_edges_grow_again_with_weights_of_0_and_undo_removes_them():
    net, whole = network(), network()
    net.prune(0.4)
    assert all(n.alive for layer in net.layers for n in layer)
    kept, before = weights(net), net.forward(X)
    net.regrow(1)
    assert net.sparsity == 0 and weights(net) == {edge: kept.get(edge, 0.0) for edge in weights(whole)}
    np.testing.assert_allclose(net.forward(X), before, rtol=1e-5, atol=1e-5)
    net.undo()
    assert weights(net) == kept


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_random_growth_follows_from_the_seed(scope):
    grown = []
    for seed in (0, 0, 1):
        net = network()
        net.prune(0.6, scope="layer")
        before = weights(net)
        net.regrow(0.5, seed=seed, scope=scope)
        assert net.n_edges == len(before) + round(0.5 * (EDGES - len(before)))
        new = weights(net).keys() - before
        assert (list(map(len, by_layer(net, new))) == [72, 96, 43]) == (scope == "layer")
        grown.append(new)
    assert grown[0] == grown[1] != grown[2]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_growth_by_gradient_adds_edges_where_the_loss_is_steepest(scope):
    """Also in layers whose nodes are not numbered consecutively, since neurons came and went."""
    net = network()
    net.widen(net.layers[0], 2)
    net.fit(X, Y, epochs=1, batch_size=50)
    net.prune(0.6, scope="layer")
    for neuron in (net.layers[0][3], net.layers[1][5]):
        neuron.prune()
    before, found = weights(net), net.trace(X, Y)
    value = {i: X[:, i] / 255 if i < X.shape[1] else found[i] for i in range(len(net.graph)) if net.graph.alive()[i]}
    delta = {n.id: found.of([n]).deltas()[:, 0] for layer in net.layers for n in layer if n.alive}
    scores = {(s, t): abs(value[s] @ delta[t]) for s, t in missing(net)}
    groups = [[*scores]] if scope == "global" else by_layer(net, scores)
    want = set().union(*(best({e: scores[e] for e in group}, round(0.25 * len(group))) for group in groups))
    net.regrow(0.25, by="gradient", data=DATA, scope=scope)
    new = weights(net).keys() - before
    assert len(new) == len(want) > 50 and len(new - want) <= 2


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_callable_scores_all_missing_edges(scope):
    net = network()
    net.prune(0.5)
    before, asked = weights(net), []

    def nearest(edges):
        asked.extend(ends(edges))
        assert not edges.weight.any()
        return -np.abs(edges.target - edges.source) - edges.source / 100

    free = missing(net)
    scores = {(s, t): s - t - s / 100 for s, t in free}
    groups = [free] if scope == "global" else by_layer(net, free)
    want = set().union(*(best({e: scores[e] for e in group}, round(0.25 * len(group))) for group in groups))
    net.regrow(0.25, by=nearest, scope=scope)
    assert sorted(asked) == sorted(free) and weights(net).keys() - before == want


def test_dead_neurons_gain_no_edges():
    net = network()
    cut = [net.layers[0][3], net.layers[1][7]]
    net.graph.prune(cut)
    net.prune(0.5)
    net.regrow(1)
    assert not any(n.alive for n in cut) and net.n_edges == 12 * 19 + 19 * 15 + 15 * 9


def test_growth_of_nothing_is_no_edit():
    net = network()
    edits = net.graph.edits
    net.regrow(0.5)
    net.prune(0.5)
    net.regrow(0)
    assert net.graph.edits == edits + 1


@pytest.mark.parametrize("by", ["random", "gradient"])
@pytest.mark.parametrize("way", ["direct", "beside", "within"])
def test_growth_makes_no_cycle(by, way):
    """An edge leads to an earlier layer, directly or through a neuron in no layer, or to a neuron of its own layer."""
    net = mlgraph.Network(4, seed=0)
    for size in (6, 5, 2):
        net.add_layer(size, "tanh")
    g, first, second = net.graph, net.layers[0], net.layers[1]
    free = [(first[3], second[1]), (first[1], second[2]), (g[2], first[5]), (g[1], first[2])]
    g.prune(free)
    g.add_edge(g[0], second[4], 1.0)
    g.prune([(neuron, second[4]) for neuron in first])
    source, target = (first[4], first[1]) if way == "within" else (second[4], first[5])
    g.add_edge(source if way == "direct" else g.add_neuron([source], weights=[1.0]), target, 1.0)
    data = np.random.default_rng(0).random((20, 4)), np.zeros((20, 2))
    net.regrow(1.0, by=by, data=data if by == "gradient" else None)
    assert all(g.has_edge(*pair) for pair in free)
    assert g.has_edge(first[5], second[4]) == (way == "within")
    net.fit(*data, epochs=1)


def test_edges_from_probabilities_grow_by_gradient():
    net = mlgraph.Network(X.shape[1], seed=0)
    for size in (6, 9):
        net.add_layer(size, "softmax")
    g, probabilities = net.graph, net.layers[1].source_ids
    g.prune([(g[probabilities[1]], output) for output in net.outputs])
    n = net.n_edges
    net.regrow(1.0, by="gradient", data=DATA)
    assert net.n_edges == n  # nothing reads this probability any more, so it is dead
    g.edge(g[probabilities[2]], net.outputs[0]).prune()
    net.regrow(1.0, by="gradient", data=DATA)
    assert net.n_edges == n


def test_new_edges_have_no_momentum():
    net = network()
    net.prune(0.5)
    net.fit(X, Y, epochs=1)
    before = weights(net)
    net.regrow(0.5)
    edges = arrays.wiring(net.graph)
    state = net.graph.storage.state_vector("first", fresh=False)[edges.place]
    is_new = np.array([edge not in before for edge in ends(edges)])
    assert is_new.any() and not state[is_new].any() and state[~is_new].any()


def test_growth_by_gradient_needs_data_of_each_live_input():
    """Data of an input that only another model reads may not be missing, since an edge may grow there."""
    net = network()
    net.graph.prune([(net.graph[11], n) for n in net.layers[0]])
    net.regrow(0.1, by="gradient", data=(X[:, :11], Y))
    net.undo()
    other, before = mlgraph.Model(net.graph, net.graph.add_neuron([net.graph[11]], weights=[1.0])), weights(net)
    with pytest.raises(ValueError, match="data x: expected 12 columns, one for each input that may gain edges, got 11"):
        net.regrow(0.1, by="gradient", data=(X[:, :11], Y))
    assert weights(net) == before and other.n_edges == 1


def test_gradients_do_not_depend_on_threads_or_earlier_calls():
    """A run keeps the engines that multiply values by deltas."""
    net = cuttable.network()
    net.prune(0.5)
    layers, products = growing.missing_edges(net), growing.Products()
    alone = [a.tobytes() for a in growing.dense_gradients(net, layers, cuttable.X, cuttable.Y, 1)]
    for n_threads in (2, 3):
        growing.dense_gradients(net, layers, cuttable.X[:50], cuttable.Y[:50], 1, products)
        again = growing.dense_gradients(net, layers, cuttable.X, cuttable.Y, n_threads, products)
        assert [a.tobytes() for a in again] == alone
