"""Training, evaluating and predicting: what comes out, what is refused, what an interrupted run leaves."""

import copy
import pickle
import signal
import subprocess
import sys
import time
import weakref
from functools import partial

import numpy as np
import pytest
from learnable import CLASSES, FLOATS, INF, INPUTS, NAN, TARGETS, N, X, Y, bits, bytes_and_labels, network

import mlgraph
from mlgraph import reference


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# --- layers -------------------------------------------------------------------------------------------------------------


def test_layers():
    net = network()
    assert repr(net) == "<Network 12-16-3: 240 edges>" and (net.n_edges, net.n_parameters) == (240, 259)
    first, last = net.layers
    assert repr(first) == "<Layer of 16 leaky_relu neurons>" and first.size == 16 and last.activation == "softmax"
    assert first.weights.shape == (16, 12) and last.weights.shape == (3, 16)
    np.testing.assert_array_equal(first.neurons[7].weights, first.weights[7])
    assert first.neurons[7].sources == [net.graph[i] for i in range(12)] and last.neurons[2].sources == first.neurons
    assert net.outputs == last.neurons and all(neuron.bias == 0 for neuron in first.neurons)
    first.neurons[7].weights[3] = 9
    assert net.layers[0].weights[7, 3] == 9


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


def test_how_models_and_histories_look():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, [g.add_neuron(g.inputs(INPUTS))])
    assert repr(model) == "<Model of 12 inputs, 1 outputs, 12 edges: squared_error>"
    assert repr(model.fit(FLOATS, TARGETS[:, :1], epochs=2)) == "<History of 2 epochs, 4 batches>"


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
    with pytest.raises(ValueError, match=message):
        net.add_layer(**{"size": 4, **arguments})
    assert bits(net) == bits(same) and len(net.graph) == len(same.graph) and len(net.layers) == 2
    assert bits(net) == bits(same)
    net.add_layer(4), same.add_layer(4)
    assert bits(net) == bits(same), "the random numbers of the next layer are as if nothing had been"


@pytest.mark.parametrize("n_inputs", [0, 2.5, "3"])
def test_bad_networks(n_inputs):
    with pytest.raises(ValueError, match=r"n_inputs: expected an integer of at least 1, got "):
        mlgraph.Network(n_inputs)


@pytest.mark.parametrize("use", [lambda net: net.forward(X), lambda net: net.fit(X, Y), lambda net: net.evaluate(X, Y),
                                 lambda net: net.save("never"), lambda net: net.n_edges])  # fmt: skip
def test_a_network_needs_a_layer(use):
    with pytest.raises(ValueError, match="no layers yet: expected add_layer first"):
        use(mlgraph.Network(INPUTS))


# --- values -------------------------------------------------------------------------------------------------------------


def test_values_of_a_classifier(sweep):
    net = network()
    net.fit(X, Y, epochs=2)
    z = net.forward(X)
    assert z.shape == (N, CLASSES) and z.dtype == np.float32
    hidden = FLOATS @ net.layers[0].weights.T + net.layers[0].biases
    hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    np.testing.assert_allclose(z, hidden @ net.layers[1].weights.T + net.layers[1].biases, atol=1e-5)
    p = net.predict_proba(X)
    assert p.shape == (N, CLASSES) and p.dtype == np.float32
    np.testing.assert_allclose(p, softmax(z), rtol=1e-5, atol=1e-7)
    predicted = net.predict(X)
    assert predicted.dtype == np.int64 and predicted.tolist() == z.argmax(axis=1).tolist()
    scores = net.evaluate(X, Y)
    assert scores["accuracy"] == (predicted == Y).mean()
    assert scores["loss"] == pytest.approx(-np.log(softmax(z.astype(float))[range(N), Y]).mean(), rel=1e-5)


def test_values_of_a_regression(sweep):
    net = network("tanh")
    z = net.forward(X)
    np.testing.assert_array_equal(net.predict(X), z)
    squares = ((z - TARGETS) ** 2).sum(axis=1)
    assert net.evaluate(X, TARGETS) == {"loss": pytest.approx(squares.mean(), rel=1e-5)}
    accuracy = (z.argmax(axis=1) == Y).mean()
    assert net.evaluate(X, Y) == {"loss": pytest.approx(squares.mean(), rel=1e-5), "accuracy": accuracy}
    with pytest.raises(ValueError, match=r"predict_proba: expected .* softmax_cross_entropy or binary_cross_entropy, got squ"):
        net.predict_proba(X)


def test_labels_are_one_hot_targets():
    by_label, by_target = network("tanh"), network("tanh")
    histories = [by_label.fit(X, Y, epochs=2), by_target.fit(X, TARGETS, epochs=2)]
    assert bits(by_label) == bits(by_target)
    np.testing.assert_array_equal(histories[0].batch_loss, histories[1].batch_loss)
    assert np.isnan(histories[1].epoch_accuracy).all() and not np.isnan(histories[0].epoch_accuracy).any()


def test_one_output_has_targets_in_one_row():
    net = mlgraph.Network(INPUTS)
    net.add_layer(1, "identity")
    loss = ((net.forward(X)[:, 0] - Y) ** 2).mean()
    assert net.evaluate(X, Y) == net.evaluate(X, Y[:, None]) == {"loss": pytest.approx(loss, rel=1e-5)}


def test_a_node_is_its_own_loss():
    g = mlgraph.Graph()
    a, b = g.inputs(2)
    p = g.parameter(5.0)
    model = mlgraph.Model(g, [p * a], loss=(p - b) ** 2)
    data = np.array([[1, 2], [1, 4]])
    assert model.evaluate(data, ()) == {"loss": 5.0} and model.loss == "node"
    model.fit(data, epochs=200, learning_rate=0.05, momentum=0.0)
    assert p.value == pytest.approx(3, rel=1e-5)
    np.testing.assert_allclose(model.predict(data), [[3], [3]], rtol=1e-5)


def test_logits_from_an_iterator():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, iter(g.inputs(3)), "softmax_cross_entropy")
    assert model.predict([[0, 2, 1]]) == [1] and model.predict_proba([[0, 0, 0]]).shape == (1, 3)


# --- learning -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
@pytest.mark.parametrize("options", [{}, {"optimizer": "adam", "learning_rate": 0.02}, {"momentum": 0.0, "learning_rate": 0.5}],
                         ids=str)  # fmt: skip
def test_learning(last, options):
    net = network(last)
    before = net.evaluate(X, Y)
    history = net.fit(X, Y, **{"epochs": 30, "batch_size": 16, "learning_rate": 0.1, **options})
    after = net.evaluate(X, Y)
    assert after["loss"] < 0.1 * before["loss"] and after["accuracy"] == 1
    assert history.epoch_loss[-1] < 0.2 * history.epoch_loss[0]
    assert net.evaluate(*bytes_and_labels(seed=1))["accuracy"] > 0.97


@pytest.mark.parametrize("batch_size", [1, 7, N, 1000])
def test_a_step_is_the_mean_gradient(sweep, batch_size):
    """One epoch of plain descent, beside the float64 reference."""
    net = network()
    plan = mlgraph.plan.Plan(net.graph, [*net._outputs, *net._loss_nodes])
    w, losses = net.graph.parameters.astype(float), []
    for first in range(0, N, batch_size):
        part = slice(first, first + batch_size)
        these, gradient = reference.step(plan, w, X[part], net.loss, plan.slot[net._loss_nodes], label=Y[part])
        losses.append(these.mean())
        w -= 0.02 * gradient
    history = net.fit(X, Y, epochs=1, batch_size=batch_size, learning_rate=0.02, momentum=0.0, shuffle=False)
    np.testing.assert_allclose(net.graph.parameters, w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(history.batch_loss, losses, rtol=1e-4, atol=1e-5)


def test_a_seed_fixes_everything():
    def run(seed=3, first=0, dropout=0.5, **options):
        net = network(seed=first, dropout=dropout)
        net.fit(X, Y, epochs=2, batch_size=50, seed=seed, **options)
        return bits(net)

    assert run() == run()
    assert run() != run(seed=4) and run() != run(first=1)
    assert run(dropout=0) == run(dropout=0) != run(dropout=0, seed=4), "it fixes the order of the examples"
    assert run(shuffle=False) == run(shuffle=False) != run(shuffle=False, seed=4), "it fixes what is dropped"


def test_without_chance_the_seed_is_nothing():
    nets = network(), network()
    for seed, net in enumerate(nets):
        net.fit(X, Y, epochs=2, shuffle=False, seed=seed)
    assert bits(nets[0]) == bits(nets[1])


def test_every_example_is_used_once_an_epoch():
    """Sums do not tell orders apart: with one step an epoch, shuffled and unshuffled gradients are the same."""
    nets = network(), network()
    for shuffle, net in enumerate(nets):
        net.fit(X, Y, epochs=1, batch_size=N, shuffle=bool(shuffle))
    np.testing.assert_allclose(nets[0].graph.parameters, nets[1].graph.parameters, rtol=1e-4, atol=1e-6)


def test_fit_goes_on_from_where_the_parameters_are():
    once, twice = network(), network()
    options = {"batch_size": 30, "learning_rate": 0.1, "momentum": 0.0, "shuffle": False}
    history = once.fit(X, Y, epochs=2, **options)
    parts = [twice.fit(X, Y, epochs=1, **options) for _ in range(2)]
    assert bits(once) == bits(twice)
    np.testing.assert_array_equal(history.batch_loss, np.concatenate([part.batch_loss for part in parts]))
    assert twice.history is parts[1]


def test_momentum_begins_anew():
    net, other = network(), network()
    net.fit(X, Y, epochs=1)
    other.forward(X)  # compiles, so that the parameters stand in the same places
    other.graph.parameters[:] = net.graph.parameters
    for each in (net, other):
        each.fit(X, Y, epochs=1)
    assert bits(net) == bits(other)


# --- what is not finite -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_no_weight_hides_behind_a_zero(sweep, value):
    """Sources that are zero are skipped; but 0 * inf is NaN."""
    net = network()
    net.layers[0].neurons[3].weights[5] = value
    net.layers[0].neurons[9].weights[5] = -value
    plan = mlgraph.plan.Plan(net.graph, net._outputs)
    with np.errstate(invalid="ignore"):
        want = reference.forward(plan, net.graph.parameters, X)
    for data in (X, FLOATS):
        np.testing.assert_allclose(net.forward(data), want[plan.slot[net._outputs]].T, rtol=1e-5, atol=1e-6)
        assert np.isnan(net.forward(data)).any(axis=1).all()


# --- interruption -------------------------------------------------------------------------------------------------------

INTERRUPTED = """
import faulthandler
import signal
import numpy as np
import mlgraph

faulthandler.dump_traceback_later(60, exit=True)
signal.signal(signal.SIGINT, signal.default_int_handler)
rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (200_000, 200), np.uint8), rng.integers(0, 10, 200_000)
net = mlgraph.Network(200)
net.add_layer(300)
net.add_layer(10, "softmax")
for _ in range(3):
    told = []
    tell = lambda p: told or told.append(print("begun", flush=True))
    try:
        net.fit(x, y, epochs=1000, batch_size=4, learning_rate=0.001, callback=tell)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
scores = net.evaluate(x[:1000], y[:1000])
assert np.isfinite(net.graph.parameters).all() and len(net.history.batch_loss) and scores["loss"] < 3, scores
net.fit(x[:100], y[:100], epochs=1)
print("usable", flush=True)
"""


def test_interruption():
    """Ctrl-C ends a run within half a second, between two steps."""
    seconds = []
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as child:
        try:
            for _ in range(3):
                assert child.stdout.readline() == "begun\n"
                time.sleep(0.1)  # until it is in the midst of a sweep
                begin = time.monotonic()
                child.send_signal(signal.SIGINT)
                assert child.stdout.readline() == "interrupted\n"
                seconds.append(time.monotonic() - begin)
            assert child.stdout.readline() == "usable\n"
        finally:
            child.kill()
    assert min(seconds) < 0.5


def test_what_a_network_was_made_with_is_not_assigned():
    """It would look as if it had been changed, and be another network once saved."""
    net = network()
    for thing, name in ((net, "loss"), (net, "layers"), (net, "outputs"), *((net.layers[0], name) for name in (
            "activation", "neurons", "size"))):  # fmt: skip
        with pytest.raises(AttributeError, match=name):
            setattr(thing, name, 0.5)
    assert isinstance(net.layers, tuple)


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
    assert other.fit(X, Y, epochs=2, batch_size=30, seed=3).batch_loss.tolist() != net.fit(
        X, Y, epochs=2, batch_size=30, seed=3
    ).batch_loss.tolist()

    def during(_):
        with pytest.raises(RuntimeError, match=f"^{name}: expected a network that is not being trained, got one that is"):
            setattr(net.layers[0], name, 0.1)

    net.fit(X, Y, epochs=1, callback=during)
    assert getattr(net.layers[0], name) == 0.5


@pytest.mark.parametrize("make", [
    lambda: mlgraph.Network(3).add_layer(1, "softmax"),
    lambda: (lambda g: mlgraph.Model(g, g.input(), loss="softmax_cross_entropy"))(mlgraph.Graph()),
], ids=["Network", "Model"])  # fmt: skip
def test_a_softmax_of_one_is_refused(make):
    """It is always certain, right, and learns nothing."""
    with pytest.raises(ValueError, match=": expected 2 or more for a softmax, got 1; for one yes or no there "):
        make()


def test_bytes_of_zeros_and_ones():
    """Whoever means 0 and 1 hears of it; who has an image that is nearly black does not."""
    net, bits = network(), (X > 127).astype(np.uint8)
    for function in (partial(net.fit, epochs=1), net.evaluate):
        with pytest.warns(UserWarning, match=r"^x: bytes are read as byte / 255, and all of these are 0 or 1; astype") as told:
            function(bits, Y)
        assert [warning.filename for warning in told] == [__file__]
    for fine in (X, 2 * bits, 0 * bits, bits.astype(np.float32), bits > 0):
        net.fit(fine, Y, epochs=1)
    net.draw(bits[0], Y[0])
    bright = np.concatenate([bits] * 40)
    bright[7] = 255  # of which a schedule sees a sample
    net.fit(bright, np.tile(Y, 40), epochs=1, sparsify=mlgraph.RigL(0.5))


def test_a_model_from_a_pickle_protects_its_outputs():
    net = pickle.loads(pickle.dumps(network()))
    assert net.graph.protected() == network().graph.protected()
    with pytest.raises(ValueError, match="expected neurons that are no outputs of a model"):
        net.outputs[0].prune()


def test_no_state_of_another_optimizer_is_left():
    net = network()
    net.fit(X, Y, epochs=1, optimizer="adam")
    net.fit(X, Y, epochs=1, momentum=0.0)
    assert not net.graph.storage.state


def test_a_layer_has_no_other_attributes():
    net = mlgraph.Network(2, seed=0)
    layer = net.add_layer(3)
    with pytest.raises(AttributeError):
        layer.weight = np.zeros((3, 2))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(net, protocol)).layers[0].weights.tolist() == layer.weights.tolist()
    assert copy.deepcopy(layer).weights.tolist() == layer.weights.tolist() and weakref.ref(layer)() is layer


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
    with pytest.raises(ValueError, match="mask: expected a path to every output of a model"):
        net.layers[1].mask = np.zeros((2, 6), bool)
    assert net.n_edges == 10
