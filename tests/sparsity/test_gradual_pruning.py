"""Gradual pruning: what a run leaves of a network, by any criterion, and what it does not touch."""

import copy

import numpy as np
import pytest
from cuttable import OPTIONS, X, Y, by_target, layer_sizes, network, pairs

import mlgraph
from mlgraph.sparsity import pruning
from mlgraph.sparsity.schedules import GradualPruning


def test_the_curve():
    """Of the paper: s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3"""
    schedule = GradualPruning(0.9, start=0.2, until=0.6)
    for moment, want in ((0, 0), (0.2, 0), (0.3, 0.9 - 0.9 * 0.75**3), (0.4, 0.9 - 0.9 / 8), (0.6, 0.9), (1, 0.9)):
        assert schedule.at(moment) == pytest.approx(want)
    again = GradualPruning(0.9, start=0.2, until=0.6, initial=0.7)
    for moment, want in ((0, 0.7), (0.2, 0.7), (0.3, 0.9 - 0.2 * 0.75**3), (0.4, 0.9 - 0.2 / 8), (0.6, 0.9), (1, 0.9)):
        assert again.at(moment) == pytest.approx(want)
    assert GradualPruning(0.5, start=0.3, until=0.3).at(0.3) == 0.5 and GradualPruning(0.5, until=0).at(0) == 0.5
    assert [GradualPruning(0.5, start=0.3, until=0.3).at(t) for t in (0, 0.29, 0.31, 1)] == [0, 0, 0.5, 0.5]
    with pytest.raises(ValueError, match=r"^moment: expected a number from 0 to 1, got 2"):
        schedule.at(2)


@pytest.mark.parametrize("updates", [10, 11, 49])
@pytest.mark.parametrize("until", [0.3, 0.5, 0.9])
def test_all_at_the_last_moment(updates, until):
    """A moment that was rounded to before `start` would cut nothing, and there is none after it."""
    net = network()
    net.fit(X, Y, sparsify=GradualPruning(0.5, start=until, until=until, updates=updates), **OPTIONS)
    assert net.sparsity == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_gradual_pruning(scope):
    schedule, net, seen = GradualPruning(0.8, updates=10, start=0.1, until=0.5, scope=scope), network(), []
    made = layer_sizes(net)
    net.fit(
        X, Y, sparsify=schedule, callback=lambda p: seen.append(net.sparsity) if p.kind == "epoch" else None, **OPTIONS
    )
    # Of each layer the share is rounded, and what is of no use goes too.
    assert seen == pytest.approx([schedule.at(0.2), schedule.at(0.45), 0.8, 0.8], abs=0.01)
    assert 1 - net.history.epoch_edges / sum(made) == pytest.approx(seen)
    assert net.evaluate(X, Y)["accuracy"] > 0.8
    if scope == "layer":
        assert layer_sizes(net) == pytest.approx([0.2 * n for n in made], abs=0.01 * sum(made))


@pytest.mark.parametrize("by", ["magnitude", "saliency"])
def test_gradual_pruning_in_blocks(by):
    """More neurons keep a source together than by chance, and the run learns."""
    shared = []
    for block in (1, 4):
        net = network()
        net.fit(X, Y, sparsify=GradualPruning(0.7, updates=10, block=block, by=by), **OPTIONS)
        assert net.sparsity == pytest.approx(0.7, abs=0.01) and net.evaluate(X, Y)["accuracy"] > 0.8
        mask = net.layers[0].mask.reshape(6, 4, 30).sum(axis=1)
        shared.append(np.mean((mask == 0) | (mask == 4)))
    assert shared[1] > 0.75 > 0.5 > shared[0]


def test_gradual_pruning_by_a_callable():
    """Its scores decide: nothing is cut of the later layers while the first has an edge, but what leads nowhere."""
    net = network()
    net.fit(X, Y, sparsify=GradualPruning(0.3, updates=5, by=by_target), **OPTIONS)
    kept = {i: len(n.sources) for i, n in enumerate(net.layers[0].neurons)}
    assert sum(kept.values()) < 30 * 24 and layer_sizes(net)[2] == 16 * 9
    whole = [i for i, n in kept.items() if n == 30]
    assert whole == list(range(min(whole), 24)) and sum(n > 0 for n in kept.values()) <= len(whole) + 1


@pytest.mark.parametrize("by", ["saliency", "random"])
def test_gradual_pruning_by_other_criteria(monkeypatch, by):
    """By the gradient of a sample; at random others with another seed."""
    seen = []

    def spy(model, sparsity, **options):
        seen.append((options["gradient"], options["step"]))
        return prune(model, sparsity, **options)

    prune = pruning.prune
    monkeypatch.setattr("mlgraph.sparsity.schedules.prune", spy)
    left = []
    for seed in (0, 0, 1):
        net = network()
        net.fit(X, Y, sparsify=GradualPruning(0.8, updates=10, by=by), seed=seed, **OPTIONS)
        assert net.sparsity == pytest.approx(0.8, abs=0.02)
        assert by == "random" or net.evaluate(X, Y)["accuracy"] > 0.6
        left.append(pairs(net))
    assert left[0] == left[1] != left[2]
    assert all((slope is not None) == (by == "saliency") for slope, _ in seen)
    assert len({step for _, step in seen}) > 5


def test_a_saliency_that_is_not_finite_cuts_nothing_short():
    """The step says what is wrong, not the criterion."""
    g = mlgraph.Graph()
    x = g.inputs(30)
    hidden = [g.add_neuron(x, "relu", weights=np.full(30, 1e36)) for _ in range(3)]
    model = mlgraph.Model(g, mlgraph.sum(*hidden) * 1e5)
    with pytest.raises(mlgraph.NonFiniteError):
        model.fit(X, Y[:, None] * 1.0, epochs=2, sparsify=GradualPruning(0.5, start=0.0, until=0, by="saliency"))


def test_nothing_is_cut_before_the_start():
    net, seen = network(), []
    schedule = GradualPruning(0.9, start=0.5, until=0.75, initial=0.7)
    net.fit(
        X,
        Y,
        sparsify=schedule,
        callback=lambda p: seen.append((p.examples / p.total_examples, net.sparsity)),
        **OPTIONS,
    )
    assert all(sparsity == 0 for share, sparsity in seen if share < 0.45)
    assert min(sparsity for share, sparsity in seen if share > 0.55) > 0.69


def test_a_run_is_not_ended_for_a_few_edges():
    """A run keeps going when the paths of the largest weights need more edges than the budget."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 6)), rng.integers(0, 4, 50)
    for seed in range(8):
        net = mlgraph.Network(6, seed=seed)
        for n, activation in ((8, "tanh"), (7, "tanh"), (4, "softmax")):
            net.add_layer(n, activation)
        twin = copy.deepcopy(net)
        net.fit(x, y, epochs=3, batch_size=10, sparsify=GradualPruning(0.95))
        assert all(neuron.alive for neuron in net.outputs) and 0.9 < net.sparsity <= 0.96
        twin.prune(0.95)  # 7 of 132
        assert all(neuron.alive for neuron in twin.outputs) and 6 <= twin.n_edges <= 7


def test_the_fewest_edges_are_allowed():
    """Each output reads the same neuron of each layer, which reads one source."""
    net = network()
    n_edges = net.n_edges
    fewest = len(net.outputs) + len(net.layers) - 1
    net.fit(X, Y, sparsify=GradualPruning(1 - fewest / n_edges, by=lambda edges: -edges.source - 0.1), **OPTIONS)
    assert net.n_edges == fewest


def test_every_layer_loses_its_share():
    """Where others have lost more than theirs, too."""
    net = network()
    net.graph.prune(net.layers[1][:8])
    assert layer_sizes(net) == [720, 192, 72]
    net.fit(X, Y, sparsify=GradualPruning(0.1, scope="layer"), **OPTIONS)
    assert layer_sizes(net) == [648, 192, 72]


def test_edges_of_neurons_that_are_cut_off_are_no_ones_share():
    net = network()
    net.layers[0][3].prune()
    net.prune(0.5, scope="layer")
    for neuron in net.layers[1]:
        if neuron.alive:
            net.graph.add_edge(net.layers[0][3], neuron)
    edits = net.graph.edits
    net.fit(X, Y, sparsify=GradualPruning(0.5, scope="layer"), **OPTIONS)
    assert net.graph.edits == edits


def test_layers_that_have_no_more_than_their_share_are_left_alone():
    """Else each moment would be an edit, and a compilation."""
    for model in (network(), mlgraph.Model((net := network()).graph, net.outputs, "softmax_cross_entropy")):
        model.prune(0.5, scope="layer")
        edits, edges = model.graph.edits, model.n_edges
        model.fit(X, Y, sparsify=GradualPruning(0.3, scope="layer"), **OPTIONS)
        assert (model.graph.edits, model.n_edges) == (edits, edges)


def test_nothing_is_edited_where_nothing_is_to_go():
    """So that the last edit is still that of before the run."""
    net = network()
    net.prune(0.5)
    net.fit(X, Y, epochs=1, sparsify=GradualPruning(0.3))
    net.undo()
    assert net.sparsity == 0


def test_scores_that_stop_short():
    """Who gives scores ends no run by it."""
    scores = iter(range(1))
    with pytest.raises(RuntimeError, match="by: the criterion raised StopIteration"):
        network().fit(X, Y, sparsify=GradualPruning(0.5, by=lambda edges: edges.weight * next(scores)), **OPTIONS)
