"""`block=`: adjacent neurons lose and gain a source together."""

from collections import defaultdict

import numpy as np
import pytest
from scored import DATA, X, Y, ends, network, weights

import mlgraph
from mlgraph.sparsity.growing import missing_edges
from mlgraph.sparsity.scores import block_scores


def block_of(net, edge, size=4):
    """The source of an edge and the first neuron of its block."""
    source, target = edge
    layer = next(layer for layer in net.layers if target in layer.ids)
    return source, target - layer.ids.index(target) % size


def blocks(net, edges, size=4):
    """The values of each block, from those of the edges."""
    found = defaultdict(list)
    for edge, value in edges.items():
        found[block_of(net, edge, size)].append(value)
    return found


def whole_blocks(net, edges):
    """The number of the edges whose block of four is complete."""
    return sum(len(block) for block in blocks(net, dict.fromkeys(edges)).values() if len(block) == 4)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("by", ["path", "callable"])
def test_blocks_are_cut_by_their_norm_or_their_mean(scope, size, by):
    """The same edges are cut as by a callable that gives each edge the score of its block."""
    for seed in range(2):
        net, other = network(False, seed), network(False, seed)
        before = weights(net)
        means = {key: np.mean(np.square(values)) for key, values in blocks(net, before, size).items()}

        def own(edges, net=net, size=size, means=means):
            return [means[block_of(net, edge, size)] for edge in ends(edges)]

        net.prune(0.3, block=size, scope=scope, by="path" if by == "path" else lambda e: e.weight**2 - 9.0)
        other.prune(0.3, by=own, scope=scope)
        # One block of each group is cut in two, where other edges may stay.
        assert len(weights(net)) == len(weights(other)) and len(weights(net).keys() - weights(other)) < 3 * size
        had, has = (blocks(net, edges, size) for edges in (before, weights(net)))
        assert sum(0 < len(has[key]) < len(had[key]) for key in had) < 0.2 * len(had)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_blocks_of_equal_weights_stay_whole(scope):
    net = network(False)
    for layer in net.layers:
        layer.weights = np.full(layer.weights.shape, 0.5)
    had = blocks(net, {edge: edge[1] for edge in weights(net)})
    net.prune(0.5, block=4, scope=scope)
    has = blocks(net, weights(net))
    there = [key for key in had if all(net.graph[neuron].alive for neuron in had[key])]
    partial = sum(0 < len(has[key]) < len(had[key]) for key in there)
    assert len(there) > 0.5 * len(had)
    assert partial <= 3 + 11  # the last block of each layer, and those with a path to an output


def test_infinite_scores_of_blocks_are_compared_as_large_numbers():
    net, other = network(False), network(False)
    net.prune(0.4, by=lambda edges: np.where(edges.source % 2, np.inf, -np.inf), block=4)
    other.prune(0.4, by=lambda edges: np.where(edges.source % 2, 1.0, -1.0), block=4)
    assert weights(net) == weights(other)


def test_a_model_without_layers_has_the_same_blocks():
    """Cut neurons and operations do not shift the blocks."""
    kept = []
    for kind in ("network", "model"):
        net = mlgraph.Network(20, seed=0)
        for size in (32, 32, 10):
            net.add_layer(size)
            mlgraph.exp(net.layers[-1][0])
        lost = net.layers[1][0]
        net.layers[2].weights = net.layers[2].weights * (np.arange(32) > 0)
        model = net if kind == "network" else mlgraph.Model(net.graph, net.outputs, loss="squared_error")
        for sparsity in (0.2, 0.4, 0.5, 0.6):
            model.prune(sparsity, block=4)
        assert not lost.alive
        kept.append(weights(net).keys())
    assert kept[0] == kept[1]


@pytest.mark.parametrize("by", ["random", "saliency"])
def test_neurons_of_a_block_share_random_numbers_and_saliencies(by):
    kept = []
    for block in (1, 4):
        net = network()
        net.prune(0.5, by=by, data=DATA, block=block)
        kept.append(whole_blocks(net, weights(net)))
    assert kept[1] > 2 * kept[0]


@pytest.mark.parametrize(
    ("by", "expected"),
    [("magnitude", [12.5**0.5, 12.5**0.5, 5.0]), (max, [3.5, 3.5, -5.0]), ("random", [3.0, 3.0, -5.0])],
)
def test_the_score_of_a_block_has_the_scale_of_its_edges(by, expected):
    """So it can be compared with the scores of other layers."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(2)
    edges = mlgraph.Edges(np.array([0, 0, 1], np.int32), np.array([2, 3, 2], np.int32), np.zeros(3, np.float32))
    score, block_ids = block_scores(net, edges, np.array([3.0, 4.0, -5.0]), by, 2)
    np.testing.assert_allclose(score, expected)
    assert block_ids.tolist() == [0, 0, 1]


# --- growing, and schedules -----------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("by", ["random", "gradient"])
def test_sources_grow_in_blocks(scope, by):
    grown = []
    for block in (1, 4):
        net = network()
        net.prune(0.5, block=4)
        before, free = weights(net), [int(gaps.free.sum()) for gaps in missing_edges(net)]
        net.regrow(0.3, by=by, block=block, scope=scope, data=DATA)
        n_new = sum(round(0.3 * n) for n in (free if scope == "layer" else [sum(free)]))
        assert len(weights(net)) - len(before) == n_new
        grown.append(whole_blocks(net, weights(net)) - whole_blocks(net, before))
    assert grown[1] > 1.5 * grown[0]


@pytest.mark.parametrize("schedule", [mlgraph.GradualPruning, mlgraph.SET, mlgraph.RigL])
def test_schedules_cut_and_grow_in_blocks(schedule):
    """The layers have as many edges as without blocks."""
    kept = []
    for block in (1, 4):
        net = network(False)
        history = net.fit(X, Y, epochs=6, batch_size=10, sparsify=schedule(0.6, updates=10, block=block), seed=1)
        kept.append((whole_blocks(net, weights(net)), history.epoch_edges.tolist()))
    assert kept[1][0] > 2 * kept[0][0] and kept[1][1] == pytest.approx(kept[0][1], rel=0.1)
