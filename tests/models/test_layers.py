"""Layers: what they are made with, what is read of them and assigned to them."""

import copy
import pickle
import threading
import weakref

import numpy as np
import pytest
from learnable import FLOATS, X, Y, bits, network

import mlgraph
from mlgraph.models.running import engine_of
from mlgraph.pictures.drawing import Drawing


def test_layers():
    net = network()
    assert repr(net) == "<Network 12-16-3: 240 edges>" and (net.n_edges, net.n_parameters) == (240, 259)
    first, last = net.layers
    assert repr(first) == "<Layer of 16 leaky_relu neurons>" and first.size == 16 and last.activation == "softmax"
    assert first.weights.shape == (16, 12) and last.weights.shape == (3, 16)
    np.testing.assert_array_equal(first.neurons[7].weights, first.weights[7])
    assert first.neurons[7].sources == [net.graph[i] for i in range(12)] and last.neurons[2].sources == first.neurons
    assert net.outputs == last.neurons == list(last) and all(neuron.bias == 0 for neuron in first)
    assert net.trace(X, nodes=first).values.shape == (len(X), 16)
    assert Drawing(first).to_dot() == Drawing(first.neurons).to_dot()
    first.neurons[7].weights[3] = 9
    assert net.layers[0].weights[7, 3] == 9


def test_a_neuron_knows_its_layer():
    net = network()
    first, last = net.layers
    (joined,) = net.widen(first)
    assert (first[7].layer, first[7].index) == (first, 7) and (joined.layer, joined.index) == (first, 16)
    assert [neuron.index for neuron in last] == [0, 1, 2] and all(neuron.layer is last for neuron in last)
    first[7].prune()
    assert (first[7].layer, first[7].index) == (first, 7)
    alone = net.graph.add_neuron(first.neurons)
    assert (alone.layer, alone.index) == (None, None)
    small = net.compact()
    assert [neuron.index for neuron in small.layers[0]] == list(range(16)) and small.layers[0][7] == small.graph[19]
    copied = copy.deepcopy(net)
    assert copied.graph[last[1].id].layer is copied.layers[1]
    net.undo()
    with pytest.raises(ValueError, match="was removed"):
        _ = alone.layer


@pytest.mark.parametrize("bias", [True, False])
def test_what_a_layer_is_assigned(bias):
    """It changes the edges and biases that there are, and no other number."""
    net = mlgraph.Network(12, seed=1)
    net.add_layer(20, bias=bias)
    net.add_layer(3, "softmax")
    net.evaluate(FLOATS, Y)  # which lays the parameters out
    first, last = net.layers
    np.testing.assert_array_equal(first.biases, np.zeros(20) if bias else np.full(20, np.nan))
    net.graph.prune(first.neurons[4].edges[2:5])
    extra = net.graph.add_neuron(net.outputs[:1], weights=[7], bias=5)
    net.graph.add_edge(net.graph[0], last.neurons[2], 9)
    rest = [last.weights, last.biases]
    for copied in rest:
        with pytest.raises(ValueError, match="read-only"):
            copied[0] = 1
    weights, biases = np.random.default_rng(0).normal(size=(20, 12)), np.random.default_rng(1).normal(size=20)
    first.weights, first.biases = weights, biases
    there = np.ones((20, 12), bool)
    there[4, 2:5] = False
    np.testing.assert_array_equal(first.weights, np.where(there, np.float32(weights), 0))
    np.testing.assert_array_equal(first.biases, np.float32(biases) if bias else np.full(20, np.nan))
    np.testing.assert_array_equal(first.neurons[4].weights, np.float32(weights)[4][there[4]])
    assert first.neurons[19].bias == (np.float32(biases[19]) if bias else None)
    assert [last.weights.tolist(), last.biases.tolist()] == [rest[0].tolist(), rest[1].tolist()]
    assert (extra.weights.tolist(), extra.bias, last.neurons[2].weights[0]) == ([7], 5, 9)
    assert net.n_edges == 20 * 12 - 3 + 20 * 3 + 1
    first.neurons[5].bias = None
    kept, bias = first.biases, last.neurons[1].bias
    first.biases = kept  # NaN is no bias, and gives none to a neuron either
    last.biases = [1, np.nan, 3]
    np.testing.assert_array_equal(first.biases, kept)
    assert last.biases.tolist() == [1, bias, 3]


def test_a_ticket_is_rewound():
    """Surviving edges get their first weights back, in one assignment a layer."""
    net = network()
    first = copy.deepcopy(net)
    net.fit(FLOATS, Y, epochs=2)
    net.prune(0.5)
    there = [layer.weights != 0 for layer in net.layers]
    for layer, begun in zip(net.layers, first.layers, strict=True):
        layer.weights, layer.biases = begun.weights, begun.biases
    for layer, begun, edges in zip(net.layers, first.layers, there, strict=True):
        np.testing.assert_array_equal(layer.weights, np.where(edges, begun.weights, 0))
        np.testing.assert_array_equal(layer.biases, begun.biases)


def test_first_weights():
    net = mlgraph.Network(300, seed=1)
    layer = net.add_layer(400, bias=False)
    assert abs(layer.weights.mean()) < 5e-4 and layer.weights.var() == pytest.approx(1 / (3 * 300), rel=0.02)
    assert layer.neurons[0].bias is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size: expected an integer of at least 1, got 0"),
        ({"size": 2.0}, "size: expected an integer of at least 1, got 2.0"),
        ({"activation": "gelu"}, "activation: expected one of identity, .*, softmax, got 'gelu'"),
        ({"dropout": 1}, "dropout: expected a number from 0 to below 1, got 1"),
        ({"weight_dropout": -0.1}, "weight_dropout: expected a number from 0 to below 1, got -0.1"),
        ({"activation": "softmax", "dropout": 0.5}, "dropout: expected 0 for a layer of probabilities"),
    ],
    ids=str,
)
def test_bad_layers(arguments, message):
    net, same = network(), network()
    with pytest.raises(TypeError if message.endswith("2.0") else ValueError, match=message):
        net.add_layer(**{"size": 4, **arguments})
    assert bits(net) == bits(same) and len(net.graph) == len(same.graph) and len(net.layers) == 2
    net.add_layer(4), same.add_layer(4)
    assert bits(net) == bits(same), "the random numbers of the next layer are as if nothing had been"


@pytest.mark.parametrize("name", ["dropout", "weight_dropout"])
def test_dropout_is_assigned_between_runs(name, tmp_path):
    """As if the network had been made with it; a saved one has it."""
    net, other = network(), network(**{name: 0.5})
    with pytest.raises(ValueError, match=f"{name}: expected a number from 0 to below 1, got 1.5"):
        setattr(net.layers[0], name, 1.5)
    if name == "dropout":
        with pytest.raises(ValueError, match=r"dropout: expected 0 for a layer of probabilities, got 0\.5"):
            net.layers[-1].dropout = 0.5
    net.predict(X)
    net.layers[0].neurons[1].edges[2].prune()
    setattr(net.layers[0], name, 0.5)
    net.undo()  # the edit before it
    net.save(tmp_path / "model.npz")
    saved = mlgraph.load(tmp_path / "model.npz")
    histories = [one.fit(X, Y, epochs=2, batch_size=30, seed=3).batch_loss.tolist() for one in (net, other, saved)]
    assert histories[0] == histories[1] == histories[2] and getattr(saved.layers[0], name) == 0.5
    setattr(other.layers[0], name, 0)
    assert (
        other.fit(X, Y, epochs=2, batch_size=30, seed=3).batch_loss.tolist()
        != net.fit(X, Y, epochs=2, batch_size=30, seed=3).batch_loss.tolist()
    )

    def during(_):
        with pytest.raises(RuntimeError, match=f"^{name}: not possible while the network is being trained"):
            setattr(net.layers[0], name, 0.1)

    net.fit(X, Y, epochs=1, callback=during)
    assert getattr(net.layers[0], name) == 0.5


def test_no_layer_comes_in_training():
    net = network()
    with pytest.raises(RuntimeError, match=r"^add_layer: not possible while the network is being trained$"):
        net.fit(X, Y, epochs=1, callback=lambda progress: net.add_layer(3))
    assert len(net.layers) == 2 and net.loss == "softmax_cross_entropy"


def test_no_run_begins_while_a_layer_comes():
    """It would go on with the loss of the layer before."""
    net, began = network(), threading.Event()

    class Slow:
        def standard_normal(self, *given):
            thread.start()
            assert not began.wait(0.1)
            return np.zeros(given[0], np.float32)

    def run():
        net.fit(X, Y % 2, epochs=1, callback=lambda _: began.set())

    thread = threading.Thread(target=run)
    net._random = Slow()
    net.add_layer(1, "sigmoid", loss="binary_cross_entropy")
    thread.join()
    assert began.is_set() and len(net.layers) == 3


def test_dropout_is_of_the_layers_own_neurons():
    """Not of others that read the same."""
    net = mlgraph.Network(12, seed=0)
    net.add_layer(16, "tanh", dropout=0.5)
    net.add_layer(3, "softmax")
    others = net.graph.add_neurons(net.graph.sources_of(net.layers[0][0]), "tanh", weights=np.ones((16, 12)))
    for node in others:
        net.graph.add_edge(node, net.outputs[0], 0.5)
    plan = engine_of(net).plan
    dropped = {int(slot) for _, ins in plan.trained if ins.drop for slot in range(ins.dst, ins.dst + ins.size)}
    assert dropped == {int(plan.slot[node.id]) for node in net.layers[0]}


def test_how_many_neurons_are_dropped():
    """Of a fifth six or seven of every 32, others in each step; only those that are kept move."""
    counts, sets = [], set()
    for seed in range(16):
        net = mlgraph.Network(5, seed=seed)
        first = net.add_layer(96, "tanh", dropout=0.2)
        net.add_layer(3, "identity")
        x, y, before, steps = np.ones((20, 5)), np.ones((20, 3)), [first.weights], []

        def look(progress, first=first, before=before, steps=steps):
            if progress.kind == "epoch":
                steps.append(tuple(~(first.weights != before[-1]).any(axis=1)))
                before.append(first.weights)

        net.fit(x, y, epochs=4, batch_size=20, learning_rate=0.01, momentum=0.0, seed=seed, callback=look)
        counts += np.reshape(steps, (-1, 32)).sum(axis=1).tolist()
        sets.update(steps)
    assert set(counts) == {6, 7} and np.mean(counts) == pytest.approx(6.4, abs=0.15)
    assert len(sets) == 16 * 4


def test_a_layer_has_no_other_attributes():
    net = mlgraph.Network(2, seed=0)
    layer = net.add_layer(3)
    with pytest.raises(AttributeError):
        layer.weight = np.zeros((3, 2))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(net, protocol)).layers[0].weights.tolist() == layer.weights.tolist()
    assert copy.deepcopy(layer).weights.tolist() == layer.weights.tolist() and weakref.ref(layer)() is layer


def test_a_layer_is_a_sequence_of_neurons():
    net = mlgraph.Network(2, seed=0)
    net.add_layer(3, "tanh")
    net.add_layer(1)
    layer = net.layers[0]
    assert len(layer) == 3 and [layer[0], layer[1], layer[-1]] == list(layer) == layer[:] == layer.neurons
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"^layer: expected a number from -3 to 2, got {index}$"):
            layer[index]
    with pytest.raises(TypeError, match=r"^layer: expected a number from -3 to 2, got 'a'$"):
        layer["a"]
    net.graph.prune(layer[1:])
    assert [neuron.alive for neuron in layer] == [True, False, False]


def test_a_mask():
    """It says where edges are, not where weights are not zero; to assign it is one edit."""
    net = mlgraph.Network(8, seed=0)
    net.add_layer(6, "tanh")
    net.add_layer(2)
    layer, weights = net.layers[0], net.layers[0].weights
    assert layer.mask.all() and layer.mask.shape == (6, 8)
    two_of_four = np.argsort(np.argsort(-np.abs(weights.reshape(6, 2, 4)), axis=2), axis=2).reshape(6, 8) < 2
    layer.mask = two_of_four
    np.testing.assert_array_equal(layer.weights, np.where(two_of_four, weights, 0))
    np.testing.assert_array_equal(layer.mask, two_of_four)
    assert net.n_edges == 24 + 12 and all(len(neuron.sources) == 4 for neuron in layer.neurons)
    layer.mask = ~two_of_four
    assert not layer.weights.any() and layer.mask.sum() == 24 and (layer.mask != two_of_four).all()
    net.undo()
    np.testing.assert_array_equal(layer.weights, np.where(two_of_four, weights, 0))
    net.layers[1].mask = np.eye(2, 6, 3, dtype=bool)  # others lead nowhere now, but are there
    assert net.n_edges == 2 + 2 * 4 and layer.mask.sum() == 24
    layer.mask = two_of_four.tolist()
    assert layer.mask.sum() == 24 and not layer.mask.flags.writeable
    with pytest.raises(ValueError, match="mask: this would disconnect"):
        net.layers[1].mask = np.zeros((2, 6), bool)
    with pytest.raises(TypeError, match=r"mask: expected numbers, got an array of object; astype\(bool\) may"):
        net.layers[1].mask = np.ones((2, 6), object)
    assert net.n_edges == 10


def test_shares_next_to_one():
    """So close that the generator cannot tell: a few are kept, and nothing is divided by zero."""
    almost = np.nextafter(1.0, 0.0)
    for options in ({"dropout": almost}, {"weight_dropout": almost}):
        net = mlgraph.Network(12, seed=1)
        net.add_layer(70, "tanh", **options)
        net.add_layer(3, "softmax")
        before = net.layers[0].weights
        net.fit(FLOATS[:16], Y[:16], epochs=20)
        change = net.layers[0].weights != before
        assert np.isfinite(net.graph.parameters).all() and change.mean() < 0.05, options
