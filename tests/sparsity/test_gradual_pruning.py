"""`GradualPruning`: its curve, and what a run leaves of a network."""

import numpy as np
import pytest
from cuttable import OPTIONS, X, Y, by_target, layer_sizes, network, pairs

import mlgraph
from mlgraph.sparsity import pruning
from mlgraph.sparsity.gradual_pruning import GradualPruning


def test_the_curve_is_that_of_the_paper():
    """s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3, and the final sparsity from `until` on."""
    schedule = GradualPruning(0.9, start=0.2, until=0.6)
    curve = [schedule.at(moment) for moment in (0, 0.2, 0.3, 0.4, 0.6, 1)]
    assert curve == pytest.approx([0, 0, 0.9 - 0.9 * 0.75**3, 0.9 - 0.9 / 8, 0.9, 0.9])
    schedule = GradualPruning(0.9, start=0.2, until=0.6, initial=0.7)
    curve = [schedule.at(moment) for moment in (0, 0.2, 0.3, 0.4, 0.6, 1)]
    assert curve == pytest.approx([0.7, 0.7, 0.9 - 0.2 * 0.75**3, 0.9 - 0.2 / 8, 0.9, 0.9])
    schedule = GradualPruning(0.5, start=0.3, until=0.3)
    assert [schedule.at(moment) for moment in (0, 0.29, 0.3, 0.31, 1)] == [0, 0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("updates", [10, 11, 49])
@pytest.mark.parametrize("until", [0.3, 0.9])
def test_everything_may_be_cut_at_the_last_moment(updates, until):
    """If this moment were rounded to before `start`, nothing would be cut at all."""
    net = network()
    net.fit(X, Y, sparsify=GradualPruning(0.5, start=until, until=until, updates=updates), **OPTIONS)
    assert net.sparsity == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_sparsity_follows_the_curve_and_the_network_learns(scope):
    schedule, net, seen = GradualPruning(0.8, updates=10, start=0.1, until=0.5, scope=scope), network(), []
    made = layer_sizes(net)

    def look(progress):
        if progress.kind == "epoch":
            seen.append(net.sparsity)

    net.fit(X, Y, sparsify=schedule, callbacks=[look], **OPTIONS)
    assert seen == pytest.approx([schedule.at(0.2), schedule.at(0.45), 0.8, 0.8], abs=0.01)
    assert 1 - net.history.epoch_edges / sum(made) == pytest.approx(seen)
    assert net.evaluate(X, Y)["accuracy"] > 0.8
    if scope == "layer":
        assert layer_sizes(net) == pytest.approx([0.2 * n for n in made], abs=0.01 * sum(made))


def test_nothing_is_cut_before_the_start_and_then_the_initial_sparsity_at_once():
    net, seen = network(), []
    net.fit(
        X,
        Y,
        sparsify=GradualPruning(0.9, start=0.5, until=0.75, initial=0.7),
        callbacks=[lambda p: seen.append((p.examples / p.total_examples, net.sparsity))],
        **OPTIONS,
    )
    assert all(sparsity == 0 for share, sparsity in seen if share < 0.45)
    assert min(sparsity for share, sparsity in seen if share > 0.55) > 0.69


# --- criteria -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["saliency", "random"])
def test_other_criteria_follow_from_the_seed(by):
    left = []
    for seed in (0, 0, 1):
        net = network()
        net.fit(X, Y, sparsify=GradualPruning(0.8, updates=10, by=by), seed=seed, **OPTIONS)
        assert net.sparsity == pytest.approx(0.8, abs=0.02)
        assert by == "random" or net.evaluate(X, Y)["accuracy"] > 0.6
        left.append(pairs(net))
    assert left[0] == left[1] != left[2]


def test_random_choices_differ_from_step_to_step(monkeypatch):
    steps, prune = [], pruning.prune
    monkeypatch.setattr(
        "mlgraph.sparsity.gradual_pruning.prune",
        lambda *given, step, **options: steps.append(step) or prune(*given, **options),
    )
    network().fit(X, Y, sparsify=GradualPruning(0.5, updates=10, by="random"), **OPTIONS)
    assert len(set(steps)) > 5


def test_a_callable_decides():
    """Edges into low ids are cut first, so the first layer loses edges neuron by neuron."""
    net = network()
    net.fit(X, Y, sparsify=GradualPruning(0.3, updates=5, by=by_target), **OPTIONS)
    sizes = [len(n.sources) for n in net.layers[0]]
    assert sum(sizes) < 30 * 24 and layer_sizes(net)[2] == 16 * 9
    first = sizes.index(30)
    assert sizes[first:] == [30] * (24 - first) and sum(n > 0 for n in sizes[:first]) <= 1


def test_an_infinite_saliency_leaves_the_error_to_the_step():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(30)
    hidden = [g.add_neuron(x, "relu", weights=np.full(30, 1e36)) for _ in range(3)]
    model = mlgraph.Model(g, mlgraph.sum(*hidden) * 1e5)
    with pytest.raises(mlgraph.NonFiniteError):
        model.fit(X, Y[:, None] * 1.0, epochs=2, sparsify=GradualPruning(0.5, start=0.0, until=0, by="saliency"))


def test_a_callable_that_raises_stop_iteration_does_not_end_the_run():
    scores = iter(range(1))
    with pytest.raises(RuntimeError, match="by: the criterion raised StopIteration"):
        network().fit(X, Y, sparsify=GradualPruning(0.5, by=lambda edges: edges.weight * next(scores)), **OPTIONS)


# --- few edges, and nothing to cut ----------------------------------------------------------------


def test_a_run_does_not_end_because_paths_need_a_few_edges_more():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 6)), rng.integers(0, 4, 50)
    for seed in range(4):
        net = mlgraph.Network(6, seed=seed)
        for n, activation in ((8, "tanh"), (7, "tanh"), (4, "softmax")):
            net.add_layer(n, activation)
        net.fit(x, y, epochs=3, batch_size=10, sparsify=GradualPruning(0.95))
        assert all(neuron.alive for neuron in net.outputs) and 0.9 < net.sparsity <= 0.96


def test_the_fewest_possible_edges_are_allowed():
    """Each output reads the same neuron, and each hidden layer has one edge."""
    net = network()
    fewest = len(net.outputs) + len(net.layers) - 1
    net.fit(X, Y, sparsify=GradualPruning(1 - fewest / net.n_edges, by=lambda edges: -edges.source - 0.1), **OPTIONS)
    assert net.n_edges == fewest


def test_each_layer_loses_its_share_even_if_another_has_lost_more():
    net = network()
    net.graph.prune(net.layers[1][:8])
    assert layer_sizes(net) == [720, 192, 72]
    net.fit(X, Y, sparsify=GradualPruning(0.1, scope="layer"), **OPTIONS)
    assert layer_sizes(net) == [648, 192, 72]


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("has_layers", [True, False])
def test_a_model_that_is_sparse_enough_is_not_edited(scope, has_layers):
    """Each edit would cost a compilation."""
    net = network()
    model = net if has_layers else mlgraph.Model(net.graph, net.outputs, "softmax_cross_entropy")
    model.prune(0.5, scope=scope)
    edits, edges = model.graph.edits, model.n_edges
    model.fit(X, Y, epochs=1, sparsify=GradualPruning(0.3, scope=scope))
    assert (model.graph.edits, model.n_edges) == (edits, edges)
