"""During training, schedules and `prune` keep frozen edges, a path to each, and a path on to an output."""

import cuttable
import numpy as np
import pytest
from scored import X, Y, network, weights

import mlgraph
from mlgraph.sparsity.gradual_pruning import GradualPruning
from mlgraph.sparsity.rewiring import SET, RigL


def fit_with(model, cut, x, y):
    """Train for an epoch without learning, and let `cut` edit the model once meanwhile."""
    done = []
    model.fit(x, y, epochs=1, learning_rate=0, callbacks=[lambda _: done or done.append(cut())])
    assert done


@pytest.mark.parametrize(
    "schedule", [GradualPruning(0.5), GradualPruning(0.6, scope="layer"), SET(0.6), RigL(0.6)], ids=repr
)
def test_frozen_edges_stay_until_training_ends(schedule):
    net = cuttable.network()
    some = [edge for neuron in net.layers[0][:4] for edge in neuron.in_edges] + net.layers[1][3].in_edges[:5]
    for edge in some:
        edge.weight, edge.frozen = edge.weight / 1000, True
    before = [edge.weight for edge in some]
    net.fit(cuttable.X, cuttable.Y, sparsify=schedule, **cuttable.OPTIONS)
    assert [edge.weight for edge in some] == before and all(edge.frozen for edge in some)
    assert schedule.sparsity - 0.001 < net.sparsity < schedule.sparsity + 0.06
    net.prune(0.8)
    assert len(net.layers[0][0].sources) < 30


@pytest.mark.parametrize(
    "schedule", [GradualPruning(0.9), GradualPruning(0.8, scope="layer"), SET(0.8), RigL(0.8)], ids=repr
)
def test_frozen_edges_that_no_output_needs_keep_their_sources(schedule):
    net = cuttable.network()
    last, before, first = net.layers[1][3], net.layers[0][5], net.layers[0][7]
    frozen = [*last.in_edges[2:7], *first.in_edges[:4]]
    for edge in frozen:
        edge.frozen = True
    for source in last.sources[2:7]:
        for edge in (*source.in_edges, *source.out_edges):
            edge.weight /= 1000
    net.graph.prune([edge for neuron in (last, first) for edge in neuron.out_edges])
    net.graph.prune([edge for edge in before.out_edges if edge.target != last])
    assert not any(neuron.alive for neuron in (last, before, first)) and before in last.sources
    values = [edge.weight for edge in frozen]
    net.fit(cuttable.X, cuttable.Y, sparsify=schedule, **cuttable.OPTIONS)
    assert [edge.weight for edge in frozen] == values
    assert all(edge.frozen and edge.source.sources for edge in frozen[:5])
    assert net.sparsity == pytest.approx(schedule.sparsity, abs=0.04)


def test_frozen_edges_keep_a_path_to_an_output():
    net = mlgraph.Network(20, seed=0)
    net.add_layer(10, "tanh")
    net.add_layer(4, "softmax")
    net.layers[0].frozen = True
    rng = np.random.default_rng(0)
    before, x, y = net.layers[0].weights, rng.normal(size=(200, 20)), rng.integers(0, 4, 200)
    net.fit(x, y, epochs=2, sparsify=GradualPruning(0.1))
    np.testing.assert_array_equal(net.layers[0].weights, before)
    assert net.sparsity == pytest.approx(0.1, abs=1e-6) and all(neuron.alive for neuron in net.layers[0])


def test_the_path_of_each_output_prefers_frozen_edges():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(2)
    outputs = [g.add_neuron(x, weights=[1.0, 2.0]) for _ in range(3)]
    model = mlgraph.Model(g, outputs)
    for neuron in outputs:
        neuron.in_edges[1].frozen = True
    model.fit(np.ones((8, 2)), np.ones((8, 3)), epochs=1, sparsify=GradualPruning(0.5, until=0))
    assert all(neuron.sources == x[1:] for neuron in outputs)


def test_a_weak_frozen_edge_does_not_weaken_the_paths_through_it():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(2)
    a, b = g.add_neuron(x[:1], weights=[1e-3]), g.add_neuron(x[1:], weights=[1.0])
    c = g.add_neuron([a], weights=[4.0])
    out = g.add_neuron([a, b, c], weights=[5.0, 1.0, 4.0])
    g.edge(x[0], a).frozen = True
    model = mlgraph.Model(g, out)
    fit_with(model, lambda: model.prune(0.3), [[1, 1]], [0])
    assert out.sources == [a, c] and c.sources == [a] and a.sources == x[:1]


def test_too_many_frozen_edges_are_refused_before_training():
    net = cuttable.network()
    net.layers[0].frozen = True
    least = r"sparsity: paths to all outputs and frozen edges need at least 7\d\d edges, but 624"
    with pytest.raises(ValueError, match=least):
        net.fit(cuttable.X, cuttable.Y, sparsify=GradualPruning(0.5), **cuttable.OPTIONS)


def test_a_neuron_with_frozen_edges_stays_until_training_ends():
    net = cuttable.network()
    weak = net.layers[0][5]
    weak.weights, weak.frozen = weak.weights / 1000, True
    fit_with(net, lambda: net.prune(neurons=0.5), cuttable.X, cuttable.Y)
    assert len(weak.sources) == 30 and weak.alive and sum(n.alive for layer in net.layers[:2] for n in layer) == 20
    net.prune(neurons=0.6)
    assert not weak.alive


def test_cutting_neurons_keeps_the_sources_of_frozen_edges():
    """Even if the cut removes the last path from these sources to an output."""
    net = cuttable.network()
    last, weak = net.layers[1][3], net.layers[1][5]
    frozen = last.in_edges[2:7]
    for edge in frozen:
        edge.frozen = True
    for edge in (*weak.in_edges, *weak.out_edges):
        edge.weight /= 1000
    net.graph.prune([e for edge in frozen for e in edge.source.out_edges if e.target not in (last, weak)])
    net.graph.prune(last.out_edges)
    fit_with(net, lambda: net.prune(neurons=0.5), cuttable.X, cuttable.Y)
    assert not weak.alive and not last.alive and all(edge.frozen and edge.source.sources for edge in frozen)


def test_the_fewest_neurons_include_a_path_to_a_frozen_edge():
    """Where the best paths have too many neurons, the path to the frozen edge leads through the most read one."""
    net = mlgraph.Network(30, seed=0)
    for size, activation in ((8, "relu"), (8, "relu"), (8, "relu"), (9, "softmax")):
        net.add_layer(size, activation)
    (_, best, most_read, *_), (source, *_, other), (last, weak, *_) = (layer.neurons for layer in net.layers[:3])
    frozen = net.graph.edge(source, last)
    frozen.frozen = True
    net.graph.prune(
        [*last.out_edges, weak.out_edges[0], *(e for e in source.out_edges if e.target not in (last, weak))]
    )
    net.graph.prune([(neuron, other) for neuron in net.layers[0] if neuron != most_read])

    def by(neurons):
        return [9.0 if neuron == best else 1.0 for neuron in neurons]

    fit_with(net, lambda: net.prune(neurons=0.9, by=by), cuttable.X, cuttable.Y)
    assert not weak.alive and frozen.frozen and source.sources == [most_read]


def test_frozen_edges_stay_if_the_criterion_runs_the_model():
    """Running it may move the parameters and with them the marks of frozen edges."""
    net = network()
    net.prune(0.3, by="random", seed=3)
    frozen = [*weights(net)][::9]
    for source, target in frozen:
        net.graph.edge(source, target).frozen = True

    def by(edges):
        net.trace(X, Y)
        net.graph.compile(net.layers[0][1])(X)
        return -np.abs(edges.weight)

    fit_with(net, lambda: net.prune(0.7, by=by), X, Y)
    assert net.sparsity > 0.6 and set(frozen) <= weights(net).keys()
