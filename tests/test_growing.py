"""Which edges grow: each choice against its definition, computed another way."""

import numpy as np
import pytest
from scored import DATA, EDGES, X, best, layer_of, network, slopes, weights

import mlgraph


def test_all_grows_again():
    net, twin = network(), network()
    net.prune(0.4)
    assert all(n.alive for layer in net.layers for n in layer.neurons)
    kept = weights(net)
    before = net.forward(X)
    net.regrow(1)
    assert net.sparsity == 0 and weights(net) == {edge: kept.get(edge, 0.0) for edge in weights(twin)}
    np.testing.assert_allclose(net.forward(X), before, rtol=1e-5, atol=1e-5)
    net.undo()
    assert weights(net) == kept


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_growth_at_random(scope):
    grown = []
    for seed in (0, 0, 1):
        net = network()
        net.prune(0.6, scope="layer")
        before = weights(net)
        net.regrow(0.5, seed=seed, scope=scope)
        assert net.n_edges == len(before) + round(0.5 * (EDGES - len(before)))
        new = set(weights(net)) - set(before)
        assert not any(weights(net)[edge] for edge in new)
        sizes = [sum(layer_of(net, t) == i for _, t in new) for i in range(3)]
        assert (sizes == [72, 96, 43]) == (scope == "layer")
        grown.append(new)
    assert grown[0] == grown[1] != grown[2]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_growth_where_the_loss_is_steepest(scope):
    """A dense twin whose absent weights are 0 has the same gradient."""
    net = network()
    net.prune(0.6, scope="layer")
    before = weights(net)
    twin = network(trained=False)
    for layer, other in zip(net.layers, twin.layers, strict=True):
        for a, b in zip(layer.neurons, other.neurons, strict=True):
            b.bias = a.bias
            b.weights = [before.get((s.id, b.id), 0.0) for s in b.sources]
    scores = {edge: abs(slope) for edge, slope in slopes(twin).items() if edge not in before}
    net.regrow(0.25, by="gradient", data=DATA, scope=scope)
    new = set(weights(net)) - set(before)
    if scope == "global":
        want = best(scores, round(0.25 * len(scores)))
    else:
        parts = [{edge: v for edge, v in scores.items() if layer_of(net, edge[1]) == i} for i in range(3)]
        want = set().union(*(best(part, round(0.25 * len(part))) for part in parts))
    assert len(new) == len(want) and len(new - want) <= 2


def test_what_was_cut_off_stays_so():
    net = network()
    cut = [net.layers[0].neurons[3], net.layers[1].neurons[7]]
    net.graph.prune(cut)
    net.prune(0.5)
    net.regrow(1)
    assert not any(n.alive for n in cut) and net.n_edges == 12 * 19 + 19 * 15 + 15 * 9


def test_nothing_to_grow():
    net = network()
    edits_before = net.graph.edits
    net.regrow(0.5)
    net.prune(0.5)
    net.regrow(0)
    assert net.graph.edits == edits_before + 1


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_regrow_by_a_function(scope):
    net = mlgraph.Network(24, seed=0)
    net.add_layer(20)
    net.add_layer(9, "softmax")
    net.prune(0.5)
    before = {(s, t) for s, t, _ in zip(*net.graph.edges(), strict=True)}
    seen = []

    def nearest(edges):
        assert not any(map(before.__contains__, zip(edges.source, edges.target, strict=True))) and not edges.weight.any()
        seen.append(len(edges.source))
        return -np.abs(edges.target - edges.source)

    n = net.n_edges
    net.regrow(0.25, by=nearest, scope=scope)
    assert abs(net.n_edges - n - seen[0] / 4) <= (0.5 if scope == "global" else 1)
    if scope == "global":
        after = {(s, t) for s, t, _ in zip(*net.graph.edges(), strict=True)} - before
        assert max(t - s for s, t in after) < 40
    for wrong, error in ((lambda edges: [1.0], ValueError), ("magnitude", ValueError), (lambda edges: "x", TypeError)):
        with pytest.raises(error, match=r"^by: expected"):
            net.regrow(0.25, by=wrong)
