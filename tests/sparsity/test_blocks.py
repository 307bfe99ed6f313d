"""Cutting and growing in blocks of neurons: their scores, and which neurons a block is."""

from collections import defaultdict

import numpy as np
import pytest
from scored import DATA, X, Y, network, slopes, weights

import mlgraph
from mlgraph.sparsity.growing import grow_to_sizes, missing_edges


def blocks(net, edges, size):
    """What the edges of each block have, by its source and its first neuron."""
    found = defaultdict(list)
    for (source, target), value in edges.items():
        layer = next(layer for layer in net.layers if target in layer.ids)
        found[source, target - layer.ids.index(target) % size].append(value)
    return found


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_in_blocks(scope, size, seed):
    """As by the norm of each block, which a criterion of one's own may give; most blocks are kept or cut whole."""
    net, other = network(False, seed), network(False, seed)
    before = weights(net)
    norm = {key: np.sqrt(np.mean(np.square(values))) for key, values in blocks(net, before, size).items()}

    def own(edges):
        ends = zip(edges.source.tolist(), edges.target.tolist(), strict=True)
        return [norm[next(iter(blocks(net, {edge: 0}, size)))] for edge in ends]

    net.prune(0.3, block=size, scope=scope)
    other.prune(0.3, by=own, scope=scope)
    # Of the block that is cut in two other edges may stay.
    assert len(weights(net)) == len(weights(other)) and len(weights(net).keys() - weights(other)) < 3 * size
    had, has = (blocks(net, edges, size) for edges in (before, weights(net)))
    assert sum(0 < len(has[key]) < len(had[key]) for key in had) < 0.2 * len(had)


def test_blocks_of_equal_weights_stay_whole():
    net = network(False)
    for layer in net.layers:
        layer.weights = np.full(layer.weights.shape, 0.5)
    had = blocks(net, {edge: edge[1] for edge in weights(net)}, 4)
    net.prune(0.5, block=4)
    has = blocks(net, weights(net), 4)
    there = [key for key in had if all(net.graph[neuron].alive for neuron in had[key])]
    partial = sum(0 < len(has[key]) < len(had[key]) for key in there)
    assert (
        len(there) > 0.5 * len(had) and partial <= 1 + 11
    )  # the last one, and those of edges that are a path to each output


def test_blocks_of_a_model_stay_the_same():
    """Cut neurons do not shift the blocks of a model without layers, just as in a network."""
    kept = []
    for kind in ("network", "model"):
        net = mlgraph.Network(20, seed=0)
        for size in (32, 32, 10):
            net.add_layer(size)
        lost = net.layers[1].neurons[0]
        net.layers[2].weights = net.layers[2].weights * (np.arange(32) > 0)
        model = net if kind == "network" else mlgraph.Model(net.graph, net.outputs, loss="squared_error")
        for sparsity in (0.2, 0.4, 0.5, 0.6):
            model.prune(sparsity, block=4)
        assert not lost.alive
        kept.append(set(weights(net)))
    assert kept[0] == kept[1]


def test_blocks_of_infinite_scores():
    """What is infinite is compared as a large number is. There may be no scores at all."""
    net, other = network(False), network(False)
    net.prune(0.4, by=lambda edges: np.where(edges.source % 2, np.inf, -np.inf), block=4)
    other.prune(0.4, by=lambda edges: np.where(edges.source % 2, 1.0, -1.0), block=4)
    assert weights(net) == weights(other)


def test_blocks_of_scores_below_zero():
    net, other = network(), network()
    net.prune(0.4, by=lambda edges: -1.0 - edges.source, block=4)
    other.prune(0.4, by=lambda edges: -1.0 - edges.source)
    assert len(weights(net).keys() ^ weights(other)) < 8  # of one block, that is cut in two


def test_blocks_of_any_graph():
    """Neurons of one level are side by side as they were made."""
    g = mlgraph.Graph()
    x = g.inputs(3)
    y = [g.add_neuron(x, weights=[3.0 - i, 1.0, 2.0 + (i == 1)]) for i in range(4)]
    model = mlgraph.Model(g, y, loss="squared_error")
    model.prune(0.5, block=2)
    kept = [(source.id, neuron.id) for neuron in y for source in neuron.sources]
    assert kept == [(x[i].id, y[j].id) for i, j in ((0, 0), (2, 0), (0, 1), (2, 1), (2, 2), (2, 3))]


def test_blocks_are_no_choice_of_neurons():
    net = network()
    with pytest.raises(ValueError, match="block: expected 1 where whole neurons are cut, got 4"):
        net.prune(neurons=0.5, block=4)
    assert net.sparsity == 0


# --- growing --------------------------------------------------------------------------------------


def whole_blocks(net, edges):
    """How many of these edges are in fours that are there whole."""
    return sum(len(block) for block in blocks(net, edges, 4).values() if len(block) == 4)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("by", ["random", "gradient"])
def test_growth_in_blocks(scope, by):
    """As by the norm of each block; one of them is cut in two, in each layer that is asked for a number of its own."""
    net, other = network(), network()
    for one in (net, other):
        one.prune(0.5, block=4)
    before, free = weights(net), [int(gaps.free.sum()) for gaps in missing_edges(net)]
    net.regrow(0.3, by=by, block=4, scope=scope, data=DATA)
    assert len(weights(net)) - len(before) == sum(round(0.3 * n) for n in (free if scope == "layer" else [sum(free)]))
    if by == "random":
        other.regrow(0.3, scope=scope)
        grown = [whole_blocks(one, weights(one)) - whole_blocks(one, before) for one in (net, other)]
        assert grown[0] > 2 * grown[1]
        return
    twin = network(trained=False)
    for layer, same in zip(net.layers, twin.layers, strict=True):
        for a, b in zip(layer.neurons, same.neurons, strict=True):
            b.bias = a.bias
            b.weights = [before.get((s.id, b.id), 0.0) for s in b.sources]
    alive = {neuron.id for layer in other.layers for neuron in layer.neurons if neuron.alive} | set(range(12))
    slope = {edge: s for edge, s in slopes(twin).items() if edge not in before and alive.issuperset(edge)}
    norm = {key: np.sqrt(np.mean(np.square(values))) for key, values in blocks(net, slope, 4).items()}
    other.regrow(
        0.3,
        scope=scope,
        by=lambda edges: [
            norm[next(iter(blocks(net, {edge: 0}, 4)))]
            for edge in zip(edges.source.tolist(), edges.target.tolist(), strict=True)
        ],
    )
    assert len(set(weights(net)) ^ set(weights(other))) <= 6 * (1 if scope == "global" else 3)


@pytest.mark.parametrize("schedule", [mlgraph.SET, mlgraph.RigL])
def test_schedules_that_grow_in_blocks(schedule):
    """More neurons keep a source together than by chance, and the layers have as many edges as without blocks."""
    kept = []
    for block in (1, 4):
        net = network(False)
        history = net.fit(X, Y, epochs=12, batch_size=10, sparsify=schedule(0.6, updates=20, block=block), seed=1)
        kept.append((whole_blocks(net, weights(net)), history.epoch_edges.tolist()))
    assert kept[1][0] > 2 * kept[0][0] and kept[1][1] == pytest.approx(kept[0][1], rel=0.1)


def test_layers_are_filled_in_blocks():
    net = network(False)
    net.prune(0.7, block=4)
    before = weights(net)
    grow_to_sizes(net, np.array([180, 240, 110]), None, 4, np.random.default_rng(0))
    new = {edge: 0.0 for edge in weights(net) if edge not in before}
    assert len(new) > 200 and whole_blocks(net, new) > 0.6 * len(new)
