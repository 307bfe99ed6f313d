"""Frozen parameters keep their bits whatever computes them; all others learn as if nothing were frozen."""

import copy
import warnings

import numpy as np
import pytest
from learnable import FLOATS, N, X, Y, network

import mlgraph
from mlgraph.graph import arrays
from mlgraph.graph.storage import FROZEN
from mlgraph.training.nonfinite import Guard

WIDE = np.tile(X, 12) * (np.arange(144) % 5 == 0).astype(np.uint8)
OPTIMIZERS = {
    "sgd": {"momentum": 0.0},
    "momentum": {"weight_decay": 0.1},
    "adam": {"optimizer": "adam", "learning_rate": 0.003},
}


def written_out():
    """Neurons written out in operations on parameter nodes, and parameters that operations read."""
    g, rng = mlgraph.Graph(), np.random.default_rng(3)
    x = g.inputs(FLOATS.shape[1])
    hidden = [
        mlgraph.tanh(mlgraph.sum(g.parameter(0.1), *(g.parameter(w) * s for w, s in zip(row, x, strict=True))))
        for row in rng.normal(size=(9, len(x)))
    ]
    outputs = [g.add_neuron(hidden, weights=rng.normal(size=9)) * g.parameter(1.5) for _ in range(3)]
    return mlgraph.Model(g, outputs, "softmax_cross_entropy")


def wide():
    """So many inputs that their sums are computed in two halves."""
    net = mlgraph.Network(WIDE.shape[1], seed=0)
    net.add_layer(40, "tanh")
    net.add_layer(3, "softmax")
    return net


def deep():
    net = mlgraph.Network(12, seed=0)
    for size in (16, 20, 9):
        net.add_layer(size, "tanh")
    net.add_layer(3, "softmax")
    return net


def pruned(share, make=network):
    net = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # little is left
        net.prune(share, by="random")
    return net


MODELS = {
    "dense bytes": (network, X),
    "rows of bytes": (lambda: pruned(0.9), X),
    "wide": (wide, WIDE),
    "wide with holes": (lambda: pruned(0.1, wide), WIDE),
    "dropout": (lambda: network(dropout=0.4), X),
    "edges dropped": (lambda: network(weight_dropout=0.3), X),
    "written out": (written_out, FLOATS),
    "deep rows": (lambda: pruned(0.8, deep), X),
}


def some(model, seed=0):
    """A random half of the parameters, in the order of `get_parameters`."""
    return np.random.default_rng(seed).random(len(model.graph.get_parameters())) < 0.5


def freeze(model, chosen):
    model.graph.storage.freeze(arrays.parameter_places(model.graph)[chosen], True)


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
def test_step_moves_all_but_frozen_parameters(sweep, name, options):
    make, x = MODELS[name]
    free, model = make(), make()
    chosen, before = some(model), model.graph.get_parameters()
    freeze(model, chosen)
    for one in (free, model):
        one.fit(x, Y, epochs=1, batch_size=N, n_threads=2, **options)
    after = model.graph.get_parameters()
    assert after[chosen].tobytes() == before[chosen].tobytes()
    assert after[~chosen].tobytes() == free.graph.get_parameters()[~chosen].tobytes()
    assert (after[~chosen] != before[~chosen]).mean() > 0.15
    places = arrays.parameter_places(model.graph)
    for name, state in model.graph.storage.state.items():
        assert name == FROZEN or not state[places[chosen]].any()


PARTS = {
    "first": lambda of: of == 0,
    "but last": lambda of: of < of.max(),
    "last": lambda of: of == of.max(),
    "middle": lambda of: of == of.max() // 2,
    "all": lambda of: of >= 0,
}


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "part", [part if part == "first" else pytest.param(part, marks=pytest.mark.slow) for part in PARTS]
)
def test_freezing_equals_restoring_after_each_step(sweep, name, part, options):
    """Kernels skip the gradients, and the adjoints that only frozen layers need."""
    make, x = MODELS[name]
    models = [make() for _ in range(3)]
    graph = models[0].graph
    number = np.empty(graph.storage.used)  # the layer of each parameter
    if isinstance(models[0], mlgraph.Network):
        for i, layer in enumerate(models[0].layers):
            layer.frozen = True
            number[graph.storage.frozen != 0] = i
            layer.frozen = False
        number = number[arrays.parameter_places(graph)]
    else:  # the nodes of the hidden neurons were made first
        number = np.arange(len(graph.get_parameters())) >= 9 * (FLOATS.shape[1] + 1)
    chosen, before = PARTS[part](number), graph.get_parameters()

    def put_back(progress):
        if progress.kind == "epoch":
            after = graph.get_parameters()
            after[chosen] = before[chosen]
            graph.set_parameters(after)

    models[0].fit(x, Y, epochs=4, batch_size=N, callback=put_back, **options)
    for model, n_threads in zip(models[1:], (1, 3), strict=True):
        freeze(model, chosen)
        model.fit(x, Y, epochs=4, batch_size=N, n_threads=n_threads, **options)
        assert model.graph.get_parameters().tobytes() == graph.get_parameters().tobytes()
    assert (graph.get_parameters() == before).all() == chosen.all()


@pytest.mark.parametrize("kind", ["blocks", "blocks with holes", "rows"])
@pytest.mark.parametrize("columns", [12, 144])
def test_no_adjoint_is_computed_below_the_first_trained_layer(sweep, monkeypatch, kind, columns):
    """It would overflow and end the run. Padding and holes of blocks count as frozen, too."""
    alone, real = [], Guard.step
    monkeypatch.setattr(Guard, "step", lambda self, *args: alone.append(1) or real(self, *args))

    def learnt(*frozen):
        net = mlgraph.Network(columns, seed=0)
        for size, scale in ((21, 0), (21, 1e30), (3, 1e30)):
            layer = net.add_layer(size, "softmax" if size == 3 else "identity")
            layer.weights = layer.weights * scale
        if kind != "blocks":
            net.prune(0.1 if kind == "blocks with holes" else 0.7, by="random")
        for i in frozen:
            net.layers[i].frozen = True
        net.fit(WIDE[:, :columns], Y, epochs=1, batch_size=N)
        return net.layers[-1].biases

    assert learnt(0, 1).all() and not alone  # nor is any step taken by itself, and by rows
    assert learnt(0).all()
    for frozen in ((), (1,)):
        with pytest.raises(mlgraph.NonFiniteError, match="adjoint"):
            learnt(*frozen)


def test_unneeded_infinite_adjoint_skips_no_example(sweep):
    """Another example overflows, so that all are searched."""
    net = mlgraph.Network(2, seed=0)
    for weights, last in (([[1, 0]], "identity"), ([[1e30]], "identity"), ([[1e30], [0]], "softmax")):
        layer = net.add_layer(len(weights), last)
        layer.weights = np.array(weights)
        layer.frozen = last == "identity"
    x = np.zeros((20, 2), np.float32)
    x[5, 0] = 1
    history = net.fit(x, np.zeros(20, int), epochs=2, batch_size=20, on_nonfinite="skip")
    assert history.nonfinite_example.tolist() == [5, 5] and history.batch_skipped.tolist() == [1, 1]
    assert net.layers[-1].biases.all()


def test_frozen_of_nodes_edges_layers_and_models():
    net = network()
    first, last = net.layers[0], net.layers[-1]
    assert not first.frozen and FROZEN not in net.graph.storage.state
    neuron, edge = first.neurons[3], first.neurons[5].edges[2]
    neuron.frozen = edge.frozen = last.frozen = True
    assert neuron.frozen and edge.frozen and last.frozen and all(n.frozen for n in last.neurons)
    assert not first.frozen and not first.neurons[5].frozen and not first.neurons[5].edges[1].frozen
    before = [(layer.weights.copy(), layer.biases.copy()) for layer in net.layers]
    net.fit(X, Y, epochs=2)
    same = first.weights == before[0][0]
    assert same[3].all() and first.biases[3] == before[0][1][3]
    assert same[5, 2] and same.sum() == same.shape[1] + 1
    assert (last.weights == before[-1][0]).all() and (last.biases == before[-1][1]).all()
    neuron.frozen = False
    assert not neuron.frozen and not neuron.edges[0].frozen
    edge.frozen = last.frozen = False
    assert FROZEN not in net.graph.storage.state and not net.frozen
    net.frozen = True
    neuron.bias = None
    neuron.bias = 0.5
    assert not net.frozen and net.layers[1].frozen and all(edge.frozen for edge in neuron.edges)
    before = net.graph.get_parameters()
    net.fit(X, Y, epochs=2)
    assert np.flatnonzero(net.graph.get_parameters() != before).size == 1 and neuron.bias != 0.5
    net.frozen = False
    assert FROZEN not in net.graph.storage.state


def test_freezing_one_of_two_models_of_a_graph():
    """It freezes what both share, but nothing of the other."""
    g = mlgraph.Graph()
    x, scale, other = g.inputs(2), g.parameter(0.5), g.parameter(2.0)
    shared, own = (g.add_neuron(x, "tanh", weights=[1, 2]) for _ in range(2))
    judge = mlgraph.Model(g, shared * scale)
    maker = mlgraph.Model(g, g.add_neuron([shared, own], weights=[1, 1]) * other)
    judge.frozen = True
    assert judge.frozen and shared.frozen and scale.frozen and not own.frozen and not other.frozen and not maker.frozen
    before = [*shared.weights, shared.bias, scale.value]
    maker.fit(np.ones((8, 2)), np.ones(8), epochs=2)
    assert [*shared.weights, shared.bias, scale.value] == before and other.value != 2.0 and own.bias != 0
    g.parameter(1.0)
    assert judge.frozen


def test_parameter_node_freezes_but_other_nodes_cannot():
    g = mlgraph.Graph()
    x, a, b = g.input(), g.parameter(1.0), g.parameter(2.0)
    model = mlgraph.Model(g, [a * x + b])
    a.frozen = True
    assert a.frozen and not b.frozen
    model.fit([[1.0], [2.0]], [5.0, 6.0], epochs=200, batch_size=2, learning_rate=0.1)
    assert a.value == 1 and b.value == pytest.approx(4, abs=1e-3)
    for node in (x, a * x, g.constant(1)):
        with pytest.raises(AttributeError, match=r"^frozen: expected a parameter or neuron, got "):
            node.frozen = True
    assert g.compile(a * x).vjp([[3.0]]).of(a) == 3  # a gradient it has


@pytest.mark.parametrize("on_nonfinite", ["raise", "skip", "disconnect"])
def test_nan_derivative_of_a_frozen_parameter_is_harmless(sweep, on_nonfinite):
    """The derivative by the exponent is NaN at a base of -1."""

    def learnt(exponent):
        model = mlgraph.Model(g := mlgraph.Graph(), (w := g.parameter(0.5)) * g.input() ** exponent(g))
        history = model.fit(
            [[-1.0], [2.0], [3.0]],
            [3.0, 4.0, 9.0],
            epochs=20,
            batch_size=3,
            learning_rate=0.002,
            on_nonfinite=on_nonfinite,
        )
        return w.value, len(history.nonfinite_step)

    def frozen(g):
        exponent = g.parameter(2.0)
        exponent.frozen = True
        return exponent

    assert learnt(frozen) == learnt(lambda g: g.constant(2.0)) == (pytest.approx(1.01, abs=0.1), 0)
    if on_nonfinite == "raise":
        with pytest.raises(
            mlgraph.NonFiniteError, match=r"^epoch 0, step 0: parameter n2 has the adjoint nan in example 0"
        ):
            learnt(lambda g: g.parameter(2.0))


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_freezing_during_a_run_stops_the_velocity(options):
    net, seen = network(), []

    def freeze_at_first(progress):
        if progress.kind == "epoch":
            net.layers[0].frozen = True
            seen.append((net.layers[0].weights.tobytes(), net.layers[1].weights.tobytes()))

    net.fit(X, Y, epochs=3, callback=freeze_at_first, **options)
    assert len({first for first, _ in seen}) == 1 and len({second for _, second in seen}) == 3


def test_frozen_survives_edits_undo_files_and_copies(tmp_path):
    net = network()
    neuron, edge = net.layers[0].neurons[3], net.layers[1].neurons[2].edges[4]
    neuron.frozen = edge.frozen = True
    source = neuron.sources[1]
    net.graph.prune([net.layers[0].neurons[7], (source, neuron)])
    net.evaluate(X, Y)
    assert edge.frozen and neuron.frozen
    net.graph.add_edge(source, neuron, 0.5)
    assert edge.frozen and not neuron.frozen and neuron.edges[0].frozen and not net.graph.edge(source, neuron).frozen
    net.undo()
    assert edge.frozen and neuron.frozen
    net.save(tmp_path / "model.npz")
    for other in (mlgraph.load(tmp_path / "model.npz"), copy.deepcopy(net)):
        there = other.layers[0].neurons[3]
        assert there.frozen and not other.layers[0].neurons[4].frozen
        before = there.weights.copy()
        other.fit(X, Y, epochs=1)
        np.testing.assert_array_equal(there.weights, before)
    edge.prune()
    net.undo()
    assert edge.frozen
    with net.graph.one_edit(parameters=True):
        neuron.frozen = False
    net.undo()
    assert neuron.frozen


def test_resumed_run_keeps_frozen_layers(tmp_path):
    options = {"epochs": 3, "batch_size": 32, "seed": 1}
    whole, path = network(), tmp_path / "run.npz"
    whole.layers[0].frozen = True
    whole.fit(X, Y, **options)

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.kind == "epoch" and progress.epoch == 1:
            raise Stop

    half = network()
    half.layers[0].frozen = True
    with pytest.raises(Stop):
        half.fit(X, Y, **options, checkpoint=path, checkpoint_every=0, callback=stop)
    with pytest.raises(mlgraph.CheckpointError, match="another run: the model has other"):
        network().fit(X, Y, **options, checkpoint=path, resume=True)
    again = network()
    again.layers[0].frozen = True
    again.fit(X, Y, **options, checkpoint=path, resume=True)
    assert again.layers[0].frozen and again.graph.get_parameters().tobytes() == whole.graph.get_parameters().tobytes()


def test_freezing_and_unfreezing_leaves_the_same_model_for_resume(tmp_path):

    def model(freeze):
        net = network()
        net.layers[0].frozen = freeze
        net.layers[0].neurons[0].edges[2].prune()
        net.layers[0].frozen = False
        return net

    path = tmp_path / "run.npz"
    model(True).fit(X, Y, epochs=2, checkpoint=path)
    model(False).fit(X, Y, epochs=2, checkpoint=path, resume=True)
