"""Layers of a network: reading them, assigning to them, and dropout."""

import copy
import pickle
import threading
import weakref

import numpy as np
import pytest
from learnable import FLOATS, X, Y, bits, network

import mlgraph

# --- reading --------------------------------------------------------------------------------------


def test_layers_show_their_neurons():
    net = network()
    assert repr(net) == "<Network 12-16-3: 240 edges>" and (net.n_edges, net.n_parameters) == (240, 259)
    first, last = net.layers
    assert repr(first) == "<Layer of 16 leaky_relu neurons>" and first.size == 16 and last.activation == "softmax"
    assert first.weights.shape == (16, 12) and last.weights.shape == (3, 16)
    np.testing.assert_array_equal(first.neurons[7].weights, first.weights[7])
    assert first[7].sources == [net.graph[i] for i in range(12)] and last[2].sources == first.neurons
    assert net.outputs == last.neurons and all(neuron.bias == 0 for neuron in first)
    assert net.trace(X, nodes=first).values.shape == (len(X), 16)
    first[7].weights[3] = 9
    assert first.weights[7, 3] == 9


def test_layer_is_a_sequence_of_neurons():
    layer = network().layers[1]
    assert len(layer) == 3 and [layer[0], layer[1], layer[-1]] == list(layer) == layer[:] == layer.neurons
    for index, error in ((3, IndexError), (-4, IndexError), ("a", TypeError)):
        with pytest.raises(error, match=f"^layer: expected a number from -3 to 2, got {index!r}$"):
            layer[index]


def test_neuron_knows_its_layer_and_index():
    net = network()
    first, last = net.layers
    (joined,) = net.widen(first)
    assert (joined.layer, joined.index) == (first, 16)
    assert [(neuron.layer, neuron.index) for neuron in last] == [(last, 0), (last, 1), (last, 2)]
    first[7].prune()
    assert (first[7].layer, first[7].index) == (first, 7)
    alone = net.graph.add_neuron(first.neurons)
    assert (alone.layer, alone.index) == (None, None)
    small, copied = net.compact(), copy.deepcopy(net)
    assert [neuron.index for neuron in small.layers[0]] == list(range(16))
    assert copied.graph[last[1].id].layer is copied.layers[1]
    net.undo()
    with pytest.raises(ValueError, match="was removed"):
        _ = alone.layer


def test_first_weights_have_the_documented_variance():
    layer = mlgraph.Network(300, seed=1).add_layer(400, bias=False)
    assert abs(layer.weights.mean()) < 5e-4 and layer.weights.var() == pytest.approx(1 / (3 * 300), rel=0.02)
    assert layer[0].bias is None


def test_layer_can_be_copied_but_has_no_other_attributes():
    net = network()
    layer = net.layers[0]
    with pytest.raises(AttributeError):
        layer.weight = np.zeros((16, 12))
    copies = [pickle.loads(pickle.dumps(net, protocol)).layers[0] for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in [copy.deepcopy(layer), *copies]:
        np.testing.assert_array_equal(other.weights, layer.weights)
    assert weakref.ref(layer)() is layer


# --- adding ---------------------------------------------------------------------------------------


def test_layers_of_probabilities_refuse_dropout():
    net, same = network(), network()
    with pytest.raises(ValueError, match=r"^dropout: expected 0 for a layer of probabilities, got 0\.5"):
        net.add_layer(4, "softmax", dropout=0.5)
    with pytest.raises(ValueError, match=r"^dropout: expected 0 for a layer of probabilities, got 0\.5"):
        net.layers[-1].dropout = 0.5
    assert len(net.graph) == len(same.graph) and len(net.layers) == 2
    net.add_layer(4), same.add_layer(4)
    assert bits(net) == bits(same), "a refused layer uses no random numbers"


def test_layers_are_not_added_during_training():
    net = network()
    with pytest.raises(RuntimeError, match=r"^add_layer: not possible while the network is being trained$"):
        net.fit(X, Y, epochs=1, callbacks=[lambda progress: net.add_layer(3)])
    assert len(net.layers) == 2 and net.loss == "softmax_cross_entropy"


def test_training_waits_while_a_layer_is_added():
    """Otherwise it would train the loss of the layer before."""
    net, began = network(), threading.Event()

    class SlowRandom(np.random.Generator):
        def standard_normal(self, shape, dtype):
            thread.start()
            assert not began.wait(0.1)
            return np.zeros(shape, dtype)

    thread = threading.Thread(target=lambda: net.fit(X, Y % 2, epochs=1, callbacks=[lambda _: began.set()]))
    net.graph.random = SlowRandom(np.random.PCG64(0))
    net.add_layer(1, "sigmoid", loss="binary_cross_entropy")
    thread.join()
    assert began.is_set() and len(net.layers) == 3


# --- assigning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_assigned_weights_and_biases_change_only_existing_edges_and_biases(bias):
    net = mlgraph.Network(12, seed=1)
    first, last = net.add_layer(20, bias=bias), net.add_layer(3, "softmax")
    net.graph.prune(first[4].in_edges[2:5])
    extra = net.graph.add_neuron(net.outputs[:1], weights=[7], bias=5)
    net.graph.add_edge(net.graph[0], last[2], 9)
    rest = last.weights, last.biases
    for array in rest:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    weights, biases = np.random.default_rng(0).normal(size=(21, 12)).astype(np.float32)[:20], FLOATS[:20, 0] + 1
    edges = first.mask
    first.weights, first.biases = weights, biases
    assert not edges[4, 2:5].any() and edges.sum() == 20 * 12 - 3
    np.testing.assert_array_equal(first.mask, edges)
    np.testing.assert_array_equal(first.weights, np.where(edges, weights, 0))
    np.testing.assert_array_equal(first[4].weights, weights[4][edges[4]])
    np.testing.assert_array_equal(first.biases, biases if bias else np.full(20, np.nan))
    assert first[19].bias == (biases[19] if bias else None)
    np.testing.assert_array_equal(last.weights, rest[0])
    np.testing.assert_array_equal(last.biases, rest[1])
    assert (extra.weights.tolist(), extra.bias, last[2].weights[0]) == ([7], 5, 9)


def test_nan_leaves_a_bias_as_it_is():
    net = network()
    first, last = net.layers
    first[5].bias, last[1].bias = None, 0.5
    kept = first.biases
    first.biases, last.biases = kept, [1, np.nan, 3]
    np.testing.assert_array_equal(first.biases, kept)
    assert first[5].bias is None and last.biases.tolist() == [1, 0.5, 3]


def test_mask_shows_edges_and_assigning_it_is_one_edit():
    net = mlgraph.Network(8, seed=0)
    layer, last = net.add_layer(6, "tanh"), net.add_layer(2)
    weights = layer.weights
    assert layer.mask.all() and layer.mask.shape == (6, 8) and not layer.mask.flags.writeable
    two_of_four = np.argsort(np.argsort(-np.abs(weights.reshape(6, 2, 4)), axis=2), axis=2).reshape(6, 8) < 2
    layer.mask = two_of_four
    np.testing.assert_array_equal(layer.mask, two_of_four)
    np.testing.assert_array_equal(layer.weights, np.where(two_of_four, weights, 0))
    assert net.n_edges == 24 + 12
    layer.mask = ~two_of_four
    np.testing.assert_array_equal(layer.mask, ~two_of_four)
    assert not layer.weights.any(), "added edges have weight 0"
    net.undo()
    np.testing.assert_array_equal(layer.weights, np.where(two_of_four, weights, 0))
    last.mask = np.eye(2, 6, 3, dtype=bool)
    assert net.n_edges == 2 + 2 * 4 and layer.mask.sum() == 24, "edges that lead nowhere are still shown"
    with pytest.raises(ValueError, match="mask: this would disconnect"):
        last.mask = np.zeros((2, 6), bool)
    with pytest.raises(TypeError, match=r"mask: expected numbers, got an array of object; astype\(bool\) may"):
        last.mask = np.ones((2, 6), object)
    assert net.n_edges == 10


# --- dropout --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dropout", "weight_dropout"])
def test_assigned_dropout_is_that_of_a_network_made_with_it(name, tmp_path):
    net, other = network(), network(**{name: 0.5})
    with pytest.raises(ValueError, match=f"{name}: expected a number from 0 to below 1, got 1.5"):
        setattr(net.layers[0], name, 1.5)
    net.predict(X)
    setattr(net.layers[0], name, 0.5)
    net.save(tmp_path / "model.npz")
    saved = mlgraph.load(tmp_path / "model.npz")
    options = {"epochs": 2, "batch_size": 30, "seed": 3}
    first, *others = (each.fit(X, Y, **options).batch_loss.tolist() for each in (net, other, saved))
    assert others == [first, first] and getattr(saved.layers[0], name) == 0.5
    setattr(other.layers[0], name, 0)
    assert other.fit(X, Y, **options).batch_loss.tolist() != net.fit(X, Y, **options).batch_loss.tolist()
    checkpoint = {"checkpoint": tmp_path / "run.npz", "callbacks": [lambda _: setattr(net.layers[0], name, 0.1)]}
    with pytest.raises(RuntimeError, match=f"^{name}: not possible during a run with a checkpoint"):
        net.fit(X, Y, epochs=1, **checkpoint)
    assert getattr(net.layers[0], name) == 0.5


@pytest.mark.parametrize("name", ["dropout", "weight_dropout"])
def test_dropout_assigned_during_a_run_holds_from_the_next_step(name):
    def losses(during):
        net = network()
        half = lambda progress: setattr(net.layers[0], name, 0.5 if progress.kind == "epoch" else 0)  # noqa: E731
        fit = {"epochs": 2, "batch_size": 20, "seed": 3, "optimizer": "sgd", "momentum": 0}
        return net.fit(X, Y, callbacks=[half] if during else None, **fit).batch_loss.tolist()

    before, after = losses(False), losses(True)
    assert after[:10] == before[:10] and after[10:] != before[10:]


def test_each_step_drops_the_fraction_of_neurons():
    """Of 20 %, six or seven of every 32 neurons, others in each step; only neurons that are kept move."""
    counts, sets = [], set()
    net = mlgraph.Network(5, seed=0)
    layer = net.add_layer(96, "tanh", dropout=0.2)
    net.add_layer(3, "identity")
    outside = net.graph[net.graph.add_neurons(layer[0].sources, "tanh", weights=np.full((1, 5), 0.1))[0]]
    net.graph.add_edge(outside, net.outputs[0], 0.5)
    for seed in range(64):
        before, was = layer.weights, outside.weights.copy()
        net.fit(np.ones((20, 5)), np.ones((20, 3)), epochs=1, learning_rate=0.001, momentum=0.0, seed=seed)
        dropped = ~(layer.weights != before).any(axis=1)
        counts += dropped.reshape(3, 32).sum(axis=1).tolist()
        sets.add(tuple(dropped))
        assert (outside.weights != was).all(), "a neuron outside the layer that reads the same is not dropped"
    assert set(counts) == {6, 7} and np.mean(counts) == pytest.approx(6.4, abs=0.15)
    assert len(sets) == 64


@pytest.mark.parametrize("name", ["dropout", "weight_dropout"])
def test_dropout_just_below_1_keeps_few_and_stays_finite(name):
    net = mlgraph.Network(12, seed=1)
    layer = net.add_layer(70, "tanh", **{name: np.nextafter(1.0, 0.0)})
    net.add_layer(3, "softmax")
    before = layer.weights
    net.fit(FLOATS[:16], Y[:16], epochs=20)
    assert np.isfinite(net.graph.parameters).all() and (layer.weights != before).mean() < 0.05


def test_a_layer_without_a_chosen_activation_is_linear_while_it_is_the_last(tmp_path):
    net = mlgraph.Network(2, seed=0)
    net.add_layer(3)
    net.add_layer(2, "tanh")
    net.add_layer(1)
    assert [layer.activation for layer in net.layers] == ["leaky_relu", "tanh", "identity"]
    net.layers[2].biases = [-5]
    assert net.predict([[0.5, 1.0]]) < -1
    net.save(tmp_path / "net.npz")
    for longer in (net, net.compact(), mlgraph.load(tmp_path / "net.npz")):
        first = longer.layers[2][0]
        longer.add_layer(1, "identity")
        longer.add_layer(1)
        assert [layer.activation for layer in longer.layers[2:]] == ["leaky_relu", "identity", "identity"]
        assert first.activation == "leaky_relu"
    with pytest.raises(ValueError, match="undo"):
        net.undo()


def test_an_activation_that_was_assigned_stays_when_another_layer_follows():
    net = mlgraph.Network(2, seed=0)
    net.add_layer(2)[1].activation = "tanh"
    net.add_layer(1)
    assert [neuron.activation for neuron in net.layers[0]] == ["leaky_relu", "tanh"]


NAN = float("nan")


@pytest.mark.parametrize(
    "assign",
    [
        lambda net: setattr(net.layers[0][1], "bias", NAN),
        lambda net: setattr(net.layers[0][1], "weights", [1.0, NAN]),
        lambda net: setattr(net.layers[0], "weights", [[1.0, NAN]] * 3),
        lambda net: setattr(net.layers[0][1].in_edges[0], "weight", NAN),
        lambda net: net.graph.set_parameters([NAN] * net.n_parameters),
        lambda net: net.graph.add_parameter(NAN),
        lambda net: net.graph.add_neuron(net.outputs, weights=[NAN]),
    ],
)
def test_nan_is_refused_where_it_is_assigned(assign):
    net = mlgraph.Network(2, seed=0)
    net.add_layer(3, "tanh")
    net.add_layer(1)
    before, size = net.graph.get_parameters(), len(net.graph)
    with pytest.raises(ValueError, match=r": expected (a number|numbers), got nan"):
        assign(net)
    assert net.graph.get_parameters().tobytes() == before.tobytes() and len(net.graph) == size


def test_nan_is_refused_by_save_which_names_the_neuron(tmp_path):
    net = mlgraph.Network(2, seed=0)
    net.add_layer(3, "tanh")
    net.graph.storage.vector[net.layers[0].bias_places()[1]] = NAN
    with pytest.raises(ValueError, match="save: layer 0 neuron 1 has a weight, bias or value that is nan"):
        net.save(tmp_path / "net.npz")


def test_elu_layers_are_trained_and_saved(tmp_path):
    net = mlgraph.Network(3, seed=0)
    net.add_layer(8, "elu", dropout=0.25)
    net.add_layer(1)
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    y = np.abs(x[:, :1])
    net.fit(x, y, epochs=20, batch_size=20, validation_data=(x, y))
    assert net.history.validation_loss[-1] < net.history.validation_loss[0] / 2
    layer = net.layers[0]
    z = x.astype(float) @ layer.weights.T + layer.biases
    hidden = np.where(z > 0, z, np.expm1(z))
    expected = hidden @ net.layers[1].weights[0] + net.layers[1].biases[0]
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-4, atol=1e-5)
    mlgraph.testing.check_gradients(net.outputs, x)
    mlgraph.testing.check_against_reference(net.outputs, x)
    net.save(tmp_path / "net.npz")
    again = mlgraph.load(tmp_path / "net.npz")
    assert again.layers[0].activation == again.layers[0][0].activation == "elu"
    np.testing.assert_array_equal(again.predict(x), net.predict(x))


@pytest.mark.parametrize(
    ("init", "variance"),
    [
        (None, 1 / 900),
        ("he_normal", 2 / 300),
        ("he_uniform", 2 / 300),
        ("glorot_normal", 2 / 500),
        ("glorot_uniform", 2 / 500),
        ("lecun_normal", 1 / 300),
        ("zeros", 0),
    ],
)
def test_first_weights_by_name(init, variance):
    """Variances as their papers give them; a normal distribution has a kurtosis of 3, a uniform one of 1.8."""
    nets = [mlgraph.Network(300, seed=1) for _ in range(2)]
    weights, same = (net.add_layer(200, init=init).weights.astype(float) for net in nets)
    np.testing.assert_array_equal(weights, same)
    np.testing.assert_allclose(weights.var(), variance, rtol=0.02)
    assert abs(weights.mean()) <= 4 * (variance / weights.size) ** 0.5
    if variance:
        kurtosis = 1.8 if "uniform" in str(init) else 3
        np.testing.assert_allclose((weights**4).mean() / variance**2, kurtosis, rtol=0.05)
        assert init is None or (nets[0].add_layer(200, init=init).weights[:, :200] != weights[:, :200]).any()


def test_first_weights_by_a_function():
    net = mlgraph.Network(3, seed=0)
    layer = net.add_layer(2, init=lambda shape: np.arange(6).reshape(shape))
    np.testing.assert_array_equal(layer.weights, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(layer.biases, 0)


@pytest.mark.parametrize(
    ("init", "error", "text"),
    [
        ("he", ValueError, "init: expected one of he_normal, he_uniform, .*, got 'he'"),
        (3, TypeError, "init: expected a name, a callable or None, got 3"),
        (
            lambda shape: np.ones(shape[::-1]),
            ValueError,
            r"init: .* shape \(2, 3\), \(neurons, sources\), got .*\(3, 2\)",
        ),
        (lambda shape: np.full(shape, np.nan), ValueError, "weights: .*nan"),
        (lambda shape: [["a"] * 3] * 2, TypeError, "init: "),
    ],
)
def test_refused_first_weights(init, error, text):
    net = mlgraph.Network(3, seed=0)
    with pytest.raises(error, match=text):
        net.add_layer(2, init=init)
    assert len(net.graph) == 3 and not net.layers


def test_a_function_of_first_weights_may_add_a_layer_itself():
    net = mlgraph.Network(3, seed=0)

    def nested(shape):
        net.add_layer(5)
        return np.ones(shape)

    with pytest.raises(ValueError, match=r"weights: .*\(2, 5\)"):
        net.add_layer(2, init=nested)
    assert [len(layer) for layer in net.layers] == [5]
