"""Frozen parameters keep their bits whatever computes them; all others learn as if nothing were frozen."""

import copy
import warnings

import numpy as np
import pytest
from learnable import FLOATS, N, X, Y, network

import mlgraph
from mlgraph.graph import arrays
from mlgraph.graph.storage import FROZEN

WIDE = np.tile(X, 12) * (np.arange(144) % 5 == 0).astype(np.uint8)
OPTIMIZERS = {
    "sgd": {"momentum": 0.0},
    "momentum": {"weight_decay": 0.1},
    "adam": {"optimizer": "adam", "learning_rate": 0.003},
}
with_each_optimizer = pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)


def layers(*sizes, columns=12, pruned=0.0, activation="tanh"):
    net = mlgraph.Network(columns, seed=0)
    for size in sizes:
        net.add_layer(size, activation)
    net.add_layer(3, "softmax")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # little is left
        net.prune(pruned, by="random")
    return net


def written_out():
    """Neurons written out in operations on parameter nodes, and parameters that operations read."""
    g, rng = mlgraph.Graph(seed=0), np.random.default_rng(3)
    x = g.add_inputs(FLOATS.shape[1])
    hidden = [
        mlgraph.tanh(mlgraph.sum(g.add_parameter(0.1), *(g.add_parameter(w) * s for w, s in zip(row, x, strict=True))))
        for row in rng.normal(size=(9, len(x)))
    ]
    outputs = [g.add_neuron(hidden, weights=rng.normal(size=9)) * g.add_parameter(1.5) for _ in range(3)]
    return mlgraph.Model(g, outputs, "softmax_cross_entropy")


MODELS = {
    "dense bytes": (lambda: layers(16), X),
    "rows of bytes": (lambda: layers(16, pruned=0.9), X),
    "wide": (lambda: layers(40, columns=144), WIDE),  # sums are computed in two halves
    "wide with holes": (lambda: layers(40, columns=144, pruned=0.1), WIDE),
    "dropout": (lambda: network(dropout=0.4), X),
    "edges dropped": (lambda: network(weight_dropout=0.3), X),
    "written out": (written_out, FLOATS),
    "deep rows": (lambda: layers(16, 20, 9, pruned=0.8), X),
}
PARTS = {
    "random": lambda layer: np.random.default_rng(0).random(len(layer)) < 0.5,
    "first": lambda layer: layer == 0,
    "all but last": lambda layer: layer < layer.max(),
    "last": lambda layer: layer == layer.max(),
    "middle": lambda layer: layer == layer.max() // 2,
    "all": lambda layer: layer >= 0,
}


def layer_numbers(model):
    """The layer of each parameter, in the order of `get_parameters`."""
    if not isinstance(model, mlgraph.Network):  # the nodes of the hidden neurons were made first
        return np.arange(len(model.graph.get_parameters())) >= 9 * (FLOATS.shape[1] + 1)
    number = np.empty(model.graph.storage.used)
    for i, layer in enumerate(model.layers):
        layer.frozen = True
        number[model.graph.storage.frozen != 0] = i
        layer.frozen = False
    return number[arrays.parameter_places(model.graph)]


@with_each_optimizer
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "part", [part if part in ("random", "first") else pytest.param(part, marks=pytest.mark.slow) for part in PARTS]
)
def test_freezing_equals_restoring_after_each_step(sweep, name, part, options):
    """Kernels skip the gradients, and the adjoints that only frozen layers need."""
    make, x = MODELS[name]
    model = make()
    graph = model.graph
    chosen, before = PARTS[part](layer_numbers(model)), graph.get_parameters()

    def put_back(progress):
        if progress.kind == "epoch":
            graph.set_parameters(np.where(chosen, before, graph.get_parameters()))

    model.fit(x, Y, epochs=4, batch_size=N, callbacks=[put_back], **options)
    wanted = graph.get_parameters()
    assert (wanted[~chosen] != before[~chosen]).any() or part == "all"
    for n_threads in (1, 3):
        model = make()
        places = arrays.parameter_places(model.graph)[chosen]
        model.graph.storage.freeze(places, True)
        model.fit(x, Y, epochs=4, batch_size=N, n_threads=n_threads, **options)
        assert model.graph.get_parameters().tobytes() == wanted.tobytes()
        places = arrays.parameter_places(model.graph)[chosen]
        state = model.graph.storage.state
        assert not any(vector[places].any() for name, vector in state.items() if name != FROZEN)


@pytest.mark.parametrize("pruned", [0.0, 0.1, 0.7], ids=["blocks", "blocks with holes", "rows"])
@pytest.mark.parametrize("columns", [12, 144])
def test_no_adjoint_is_computed_below_the_first_trained_layer(sweep, pruned, columns):
    """It would overflow and end the run. Padding and holes of blocks count as frozen, too."""

    def learnt(*frozen):
        net = layers(21, 21, columns=columns, activation="identity")
        for layer, scale in zip(net.layers, (0, 1e30, 1e30), strict=True):
            layer.weights = layer.weights * scale
        net.prune(pruned, by="random")
        for i in frozen:
            net.layers[i].frozen = True
        net.fit(WIDE[:, :columns], Y, epochs=1, batch_size=N, optimizer="sgd", learning_rate=0.05)
        return net.layers[-1].biases.all()

    assert learnt(0, 1) and learnt(0)
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
    assert history.nonfinite_example.tolist() == [5, 5] and net.layers[-1].biases.all()


@pytest.mark.parametrize("on_nonfinite", ["raise", "skip", "disconnect"])
def test_nan_derivative_of_a_frozen_parameter_is_harmless(sweep, on_nonfinite):
    """The derivative by the exponent is NaN at a base of -1."""
    options = {"epochs": 20, "batch_size": 3, "optimizer": "sgd", "learning_rate": 0.002, "on_nonfinite": on_nonfinite}

    def learnt(frozen):
        g = mlgraph.Graph(seed=0)
        weight, exponent = g.add_parameter(0.5), g.add_parameter(2.0)
        exponent.frozen = frozen
        history = mlgraph.Model(g, weight * g.add_input() ** exponent).fit([[-1.0], [2.0], [3.0]], [3, 4, 9], **options)
        return weight.value, len(history.nonfinite_step)

    assert learnt(True) == (pytest.approx(1.01, abs=0.1), 0)
    if on_nonfinite == "raise":
        with pytest.raises(mlgraph.NonFiniteError, match="parameter n1 has the adjoint nan in example 0"):
            learnt(False)


def test_frozen_of_nodes_edges_layers_and_models():
    net = network()
    first, last = net.layers
    neuron, edge = first.neurons[3], first.neurons[5].in_edges[2]
    neuron.frozen = edge.frozen = last.frozen = True
    assert neuron.frozen and edge.frozen and last.frozen and all(n.frozen for n in last.neurons)
    assert not first.frozen and not first.neurons[5].frozen and not first.neurons[5].in_edges[1].frozen
    before = [(layer.weights.copy(), layer.biases.copy()) for layer in net.layers]
    net.fit(X, Y, epochs=2)
    same = first.weights == before[0][0]
    assert same[3].all() and same[5, 2] and same.sum() == same.shape[1] + 1 and first.biases[3] == before[0][1][3]
    assert (last.weights == before[1][0]).all() and (last.biases == before[1][1]).all()
    neuron.frozen = edge.frozen = last.frozen = False
    assert not neuron.frozen and not neuron.in_edges[0].frozen and not net.frozen
    assert FROZEN not in net.graph.storage.state  # so training costs what it did before
    net.frozen = True
    assert neuron.frozen and net.frozen
    neuron.bias = None
    neuron.bias = 0.5  # a new parameter
    before = net.graph.get_parameters()
    net.fit(X, Y, epochs=2)
    assert (net.graph.get_parameters() != before).sum() == 1 and neuron.bias != 0.5 and not net.frozen


def test_freezing_one_of_two_models_of_a_graph():
    """It freezes what both share, but nothing of the other."""
    g = mlgraph.Graph(seed=0)
    x, scale, other = g.add_inputs(2), g.add_parameter(0.5), g.add_parameter(2.0)
    shared, own = (g.add_neuron(x, "tanh", weights=[1, 2]) for _ in range(2))
    judge = mlgraph.Model(g, shared * scale)
    maker = mlgraph.Model(g, g.add_neuron([shared, own], weights=[1, 1]) * other)
    judge.frozen = True
    assert judge.frozen and shared.frozen and scale.frozen and not own.frozen and not other.frozen and not maker.frozen
    before = [*shared.weights, shared.bias, scale.value]
    maker.fit(np.ones((8, 2)), np.ones(8), epochs=2)
    assert [*shared.weights, shared.bias, scale.value] == before and other.value != 2.0 and own.bias != 0
    g.add_parameter(1.0)
    assert judge.frozen


def test_parameter_node_freezes_but_other_nodes_cannot():
    g = mlgraph.Graph(seed=0)
    x, a, b = g.add_input(), g.add_parameter(1.0), g.add_parameter(2.0)
    model = mlgraph.Model(g, [a * x + b])
    a.frozen = True
    model.fit([[1.0], [2.0]], [5.0, 6.0], epochs=200, batch_size=2, learning_rate=0.1)
    assert a.value == 1 and b.value == pytest.approx(4, abs=1e-3)
    assert g.compile(a * x).vjp([[3.0]]).of(a) == 3  # it still has a gradient
    for node in (x, a * x, g.add_constant(1)):
        with pytest.raises(AttributeError, match=r"^parameters: expected a parameter or neuron, got "):
            node.frozen = True


@with_each_optimizer
def test_freezing_during_a_run_stops_the_velocity(options):
    net, seen = network(), []

    def freeze_at_first(progress):
        if progress.kind == "epoch":
            net.layers[0].frozen = True
            seen.append([layer.weights.tobytes() for layer in net.layers])

    net.fit(X, Y, epochs=3, callbacks=[freeze_at_first], **options)
    assert [len(set(weights)) for weights in zip(*seen, strict=True)] == [1, 3]


def test_frozen_survives_edits_undo_files_and_copies(tmp_path):
    net = network()
    neuron, edge = net.layers[0].neurons[3], net.layers[1].neurons[2].in_edges[4]
    neuron.frozen = edge.frozen = True
    source = neuron.sources[1]
    net.graph.prune([net.layers[0].neurons[7], (source, neuron)])
    net.evaluate(X, Y)
    assert edge.frozen and neuron.frozen
    net.graph.add_edge(source, neuron, 0.5)
    assert edge.frozen and not neuron.frozen and neuron.in_edges[0].frozen and not net.graph.edge(source, neuron).frozen
    net.undo()
    assert edge.frozen and neuron.frozen
    net.save(tmp_path / "model.npz")
    for other in (mlgraph.load(tmp_path / "model.npz"), copy.deepcopy(net)):
        assert other.layers[0].neurons[3].frozen and not other.layers[0].neurons[4].frozen
    edge.prune()
    net.undo()
    assert edge.frozen
    with net.graph.one_edit(parameters=True):
        neuron.frozen = False
    net.undo()
    assert neuron.frozen
