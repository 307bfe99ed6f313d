"""Training that cuts leaves what is frozen, and the paths that it needs."""

import cuttable
import numpy as np
import pytest
from learnable import X, Y, network

import mlgraph
from mlgraph.sparsity.schedules import SET, GradualPruning, RigL


@pytest.mark.parametrize(
    "schedule", [GradualPruning(0.5), GradualPruning(0.6, scope="layer"), SET(0.6), RigL(0.6)], ids=repr
)
def test_what_is_frozen_stays(schedule):
    net = cuttable.network()
    some = [edge for neuron in net.layers[0].neurons[:4] for edge in neuron.edges] + net.layers[1].neurons[3].edges[:5]
    for edge in some:
        edge.weight, edge.frozen = edge.weight / 1000, True
    before = [edge.weight for edge in some]
    net.fit(cuttable.X, cuttable.Y, sparsify=schedule, **cuttable.OPTIONS)
    assert [edge.weight for edge in some] == before and all(edge.frozen for edge in some)
    assert schedule.sparsity - 0.001 < net.sparsity < schedule.sparsity + 0.06
    net.prune(0.8)  # is not training
    assert len(net.layers[0].neurons[0].sources) < 30


@pytest.mark.parametrize(
    "schedule", [GradualPruning(0.9), GradualPruning(0.8, scope="layer"), SET(0.8), RigL(0.8)], ids=repr
)
def test_what_is_frozen_stays_where_no_output_needs_it(schedule):
    """And with it a path to it, also through others that no output needs."""
    net = cuttable.network()
    last, before, first = net.layers[1][3], net.layers[0][5], net.layers[0][7]
    frozen = [*last.edges[2:7], *first.edges[:4]]
    for edge in frozen:
        edge.frozen = True
    for source in last.sources[2:7]:
        for edge in (*source.edges, *source.out_edges):
            edge.weight /= 1000
    net.graph.prune([edge for neuron in (last, first) for edge in neuron.out_edges])
    net.graph.prune([edge for edge in before.out_edges if edge.target != last])
    assert not any(neuron.alive for neuron in (last, before, first)) and before in last.sources
    weights = [edge.weight for edge in frozen]
    net.fit(cuttable.X, cuttable.Y, sparsify=schedule, **cuttable.OPTIONS)
    assert [edge.weight for edge in frozen] == weights and all(
        edge.frozen and edge.source.sources for edge in frozen[:5]
    )
    assert net.sparsity == pytest.approx(schedule.sparsity, abs=0.04)


def test_cut_neurons_leave_the_sources_of_what_is_frozen():
    """Also where the last that led from these sources to an output is cut."""
    net = cuttable.network()
    last, weak = net.layers[1][3], net.layers[1][5]
    frozen = last.edges[2:7]
    for edge in frozen:
        edge.frozen = True
    for edge in (*weak.edges, *weak.out_edges):
        edge.weight /= 1000
    net.graph.prune([e for edge in frozen for e in edge.source.out_edges if e.target not in (last, weak)])
    net.graph.prune(last.out_edges)

    def cut(progress):
        if weak.alive:
            net.prune(neurons=0.5)

    net.fit(cuttable.X, cuttable.Y, callback=cut, **{**cuttable.OPTIONS, "epochs": 1})
    assert not weak.alive and not last.alive and all(edge.frozen and edge.source.sources for edge in frozen)


def test_the_fewest_neurons_are_a_path_to_what_is_frozen():
    """Where fewer stay than the best paths have, another leads to what is frozen than the best."""
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

    def cut(progress):
        if weak.alive:
            net.prune(neurons=0.9, by=lambda neurons: [9.0 if neuron == best else 1.0 for neuron in neurons])

    net.fit(cuttable.X, cuttable.Y, callback=cut, **{**cuttable.OPTIONS, "epochs": 1})
    assert not weak.alive and frozen.frozen and source.sources == [most_read]


@pytest.mark.parametrize("sparsity", [0.05, 0.1])
def test_what_is_frozen_keeps_a_path_to_an_output(sparsity):
    net = mlgraph.Network(20, seed=0)
    net.add_layer(10, "tanh")
    net.add_layer(4, "softmax")
    net.layers[0].frozen = True
    rng = np.random.default_rng(0)
    before, x, y = net.layers[0].weights, rng.normal(size=(200, 20)), rng.integers(0, 4, 200)
    net.fit(x, y, epochs=2, sparsify=GradualPruning(sparsity))
    np.testing.assert_array_equal(net.layers[0].weights, before)
    assert net.sparsity == pytest.approx(sparsity, abs=1e-6) and all(neuron.alive for neuron in net.layers[0].neurons)


def test_what_is_frozen_keeps_a_path_of_many_edges():
    """Each of them the weakest there is, beside paths that are strong."""
    g = mlgraph.Graph()
    x = g.inputs(4)
    weak = first = g.add_neuron([x[0]], weights=[0.5])
    strong = [g.add_neuron([node], weights=[5.0]) for node in x[1:]]
    for _ in range(4):
        weak = g.add_neuron([weak], weights=[0.01])
        strong = [g.add_neuron(strong, weights=[4.0, 3.0, 2.0]) for _ in range(3)]
    out = g.add_neuron([weak, *strong], weights=[0.01, 3.0, 2.0, 1.0])
    model = mlgraph.Model(g, out)
    g.edge(x[0], first).frozen = True
    data = np.zeros((32, 4))
    model.fit(data, data[:, :1], epochs=2, batch_size=8, sparsify=GradualPruning(0.6))
    assert weak.alive and weak in out.sources and first.alive and model.n_edges < 30


def test_what_is_frozen_makes_no_path_weak():
    net = mlgraph.Network(30, seed=0)
    net.add_layer(24, "relu")
    net.add_layer(9, "softmax")
    net.layers[1].weights = net.layers[1].weights * 1e-3
    net.layers[1].frozen = True
    largest = np.sort(np.abs(net.layers[0].weights), axis=None)[-252:].sum()
    net.fit(cuttable.X, cuttable.Y, epochs=1, learning_rate=1e-9, momentum=0, sparsify=GradualPruning(0.5, until=0.5))
    assert net.n_edges == 468 and net.layers[1].mask.all()
    assert np.abs(net.layers[0].weights).sum() == pytest.approx(largest, rel=0.01)


def test_frozen_edges_are_the_paths():
    g = mlgraph.Graph()
    x = g.inputs(2)
    outputs = [g.add_neuron(x, weights=[1.0, 2.0]) for _ in range(3)]
    model = mlgraph.Model(g, outputs)
    for neuron in outputs:
        neuron.edges[1].frozen = True
    model.fit(np.ones((8, 2)), np.ones((8, 3)), epochs=1, sparsify=GradualPruning(0.5, until=0))
    assert all(neuron.sources == x[1:] for neuron in outputs)


def test_what_is_frozen_may_be_too_much():
    net = cuttable.network()
    net.layers[0].frozen = True
    least = r"sparsity: paths to all outputs and frozen edges need at least 7\d\d edges, but 624"
    with pytest.raises(ValueError, match=least):
        net.fit(cuttable.X, cuttable.Y, sparsify=GradualPruning(0.5), **cuttable.OPTIONS)


def test_no_neuron_that_frozen_edges_lead_to_is_cut_in_training():
    """However weak it is; afterwards it is."""
    net, done = cuttable.network(), []
    weak = net.layers[0].neurons[5]
    weak.weights, weak.frozen = weak.weights / 1000, True
    net.fit(
        cuttable.X,
        cuttable.Y,
        epochs=1,
        learning_rate=0,
        callback=lambda _: done or done.append(net.prune(neurons=0.5)),
    )
    assert (
        len(weak.sources) == 30 and weak.alive and sum(n.alive for layer in net.layers[:2] for n in layer.neurons) == 20
    )
    net.prune(neurons=0.6)
    assert not weak.alive


def test_what_is_frozen_stays_when_the_criterion_runs_the_model():
    """Which moves the parameters."""
    net = network()
    g = net.graph
    net.prune(0.3, by="random", seed=3)
    held = list(zip(*(ids.tolist() for ids in g.edges()[:2]), strict=True))[::9]
    for source, target in held:
        g.edge(source, target).frozen = True

    def by(edges):
        net.trace(X, Y)
        g.compile(net.layers[0][1])(X)
        return -np.abs(edges.weight)

    def cut(progress):
        if net.sparsity < 0.6:
            net.prune(0.7, by=by)

    net.fit(X, Y, epochs=1, callback=cut)
    assert net.sparsity > 0.6 and set(held) <= set(zip(*(ids.tolist() for ids in g.edges()[:2]), strict=True))
