"""Training, evaluating and predicting: what comes out, what is refused, what an interrupted run leaves."""

import copy
import json
import signal
import subprocess
import sys
import time

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import mlgraph
from mlgraph import reference
from mlgraph.training import schedule

NAN, INF = np.nan, np.inf
N, INPUTS, CLASSES = 200, 12, 3


def bytes_and_labels(n=N, seed=0):
    """Bytes, most of them zero, whose class is the part of them that is bright: a network learns it at once."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    x = rng.integers(0, 256, (n, INPUTS), np.uint8) // 4
    x[rng.random(x.shape) < 0.7] = 0
    for row, label in zip(x, labels, strict=True):
        row[label * 4 : label * 4 + 2] = 255
    return x, labels


X, Y = bytes_and_labels()
FLOATS = (X / 255).astype(np.float32)
TARGETS = np.eye(CLASSES, dtype=np.float32)[Y]


def network(last="softmax", seed=0, **options):
    net = mlgraph.Network(INPUTS, seed=seed)
    net.add_layer(16, "leaky_relu", **options)
    net.add_layer(CLASSES, last)
    return net


def bits(model):
    return model.graph.parameters.view(np.int32).tolist()


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
        ({"size": 0}, "size: expected an integer of at least 1, came 0"),
        ({"size": 2.0}, "size: expected an integer of at least 1, came 2.0"),
        ({"activation": "gelu"}, "activation: expected one of identity, .*, softmax, came 'gelu'"),
        ({"dropout": 1}, "dropout: expected a number from 0 to below 1, came 1"),
        ({"weight_dropout": -0.1}, "weight_dropout: expected a number from 0 to below 1, came -0.1"),
        ({"activation": "softmax", "dropout": 0.5}, "dropout: expected 0 for a softmax layer"),
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
    with pytest.raises(ValueError, match=r"n_inputs: expected an integer of at least 1, came "):
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
    with pytest.raises(ValueError, match="predict_proba: expected a model with loss softmax_cross_entropy, came squared_error"):
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


# --- schedule and history -----------------------------------------------------------------------------------------------


def test_schedule():
    steps = schedule(100, 2, (40, 10), (1.0, 0.5))
    assert steps.size.tolist() == [40, 39, 21, 32, 27, 21, 16, 4]
    assert steps.first.tolist() == [0, 40, 79, 0, 32, 59, 80, 96] and steps.epoch.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    p = (steps.epoch * 100 + steps.first) / 200
    np.testing.assert_allclose(steps.rate, 1.0 - 0.5 * p**1.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("n", "epochs", "batch", "sizes"),
    [
        (7, 1, (3, 3), [3, 3, 1]),
        (6, 2, (3, 3), [3, 3, 3, 3]),
        (5, 3, (100, 100), [5, 5, 5]),
        (1, 1, (1, 1), [1]),
        (3, 1, (1, 1), [1, 1, 1]),
        (5, 1, (100, 1), [5]),
    ],
)
def test_edges_of_the_schedule(n, epochs, batch, sizes):
    assert schedule(n, epochs, batch, (0.1, 0.1)).size.tolist() == sizes


@given(st.integers(1, 300), st.integers(1, 4), st.tuples(*[st.integers(1, 400)] * 2), st.tuples(*[st.floats(1e-6, 10)] * 2))
def test_any_schedule(n, epochs, batch, rate):
    steps = schedule(n, epochs, batch, rate)
    p = (steps.epoch * n + steps.first) / (epochs * n)
    wanted = [round(batch[0] * (1 - q**2) + batch[1] * q**2) for q in p]
    np.testing.assert_array_equal(steps.size, np.minimum(wanted, n - steps.first))
    np.testing.assert_allclose(steps.rate, rate[0] * (1 - p**1.5) + rate[1] * p**1.5, rtol=1e-6, atol=1e-30)
    assert min(rate) * 0.999 <= steps.rate.min() and steps.rate.max() <= max(rate) * 1.001
    for epoch in range(epochs):
        first, size = steps.first[steps.epoch == epoch], steps.size[steps.epoch == epoch]
        assert first[0] == 0 and size.sum() == n and (first[1:] == np.cumsum(size)[:-1]).all()


@pytest.mark.parametrize(("batch", "rate"), [((50, 7), (0.1, 0.001)), ((7, 50), (0.001, 0.1)), (64, 0.05)], ids=str)
def test_history(batch, rate):
    net = network()
    first = net.evaluate(X[: np.ravel(batch)[0]], Y[: np.ravel(batch)[0]])
    held = bytes_and_labels(31, seed=1)
    h = net.fit(X, Y, epochs=3, batch_size=batch, learning_rate=rate, shuffle=False, validation=held)
    steps = schedule(N, 3, (batch, batch) if isinstance(batch, int) else batch, (rate, rate) if batch == 64 else rate)
    assert h.batch_size.tolist() == steps.size.tolist() and h.batch_size.sum() == 3 * N
    assert h.batch_examples.tolist() == np.cumsum(h.batch_size).tolist()
    assert h.epoch_examples.tolist() == [N, 2 * N, 3 * N]
    np.testing.assert_array_equal(h.learning_rate, steps.rate)
    assert (h.batch_loss[0], h.batch_accuracy[0]) == (pytest.approx(first["loss"], rel=1e-5), first["accuracy"])
    for epoch in range(3):
        here = steps.epoch == epoch
        for each, mean in ((h.batch_loss, h.epoch_loss), (h.batch_accuracy, h.epoch_accuracy)):
            assert len(each) == len(steps.size) and len(mean) == 3
            assert np.average(each[here], weights=steps.size[here]) == pytest.approx(mean[epoch], rel=1e-6)
    scores = net.evaluate(*held)
    assert (h.validation_loss[-1], h.validation_accuracy[-1]) == (scores["loss"], scores["accuracy"])
    assert len(h.validation_loss) == len(h.validation_accuracy) == len(h.epoch_seconds) == 3 and (h.epoch_seconds > 0).all()
    assert json.loads(json.dumps(h.to_dict()))["batch_size"] == h.batch_size.tolist()


def test_history_without_validation_or_labels():
    h = network("tanh").fit(X, TARGETS, epochs=2)
    assert len(h.validation_loss) == len(h.validation_accuracy) == 0 and np.isnan(h.batch_accuracy).all()
    assert h.to_dict()["epoch_accuracy"] == [None, None]


def test_events():
    net, events = network(), []

    def listen(p):
        events.append((p.kind, p.epoch, p.examples, p.batch_loss, p.batch_accuracy))
        assert (p.epochs, p.total_examples) == (3, 3 * N) and p.history is net.history
        assert p.history.batch_examples[-1] == p.examples
        assert len(p.history.epoch_loss) == len(p.history.validation_loss) == p.epoch + (p.kind == "epoch")

    h = net.fit(X, Y, epochs=3, batch_size=20, callback=listen, validation=(X, Y))
    kind, epoch, examples, loss, accuracy = (list(column) for column in zip(*events, strict=True))
    assert epoch == sorted(epoch) and examples == sorted(examples) and examples[-1] == 3 * N
    for e in range(3):
        mine = [k for k in range(len(events)) if epoch[k] == e]
        *pieces, end = mine
        assert pieces and {kind[k] for k in pieces} == {"steps"} and kind[end] == "epoch" and examples[end] == (e + 1) * N
        assert (loss[end], accuracy[end]) == (h.epoch_loss[e], h.epoch_accuracy[e])
        seen = np.diff([e * N, *(examples[k] for k in pieces)])
        assert (seen > 0).all()
        assert np.average([loss[k] for k in pieces], weights=seen) == pytest.approx(h.epoch_loss[e], rel=1e-6)


def test_a_callback_may_compile_another_part_of_the_graph():
    """It moves the parameters under the run, which must not notice."""

    def run(meddle):
        g = mlgraph.Graph()
        inputs = g.inputs(INPUTS)
        rng = np.random.default_rng(0)
        hidden = [g.add_neuron(inputs, "tanh", weights=rng.normal(size=INPUTS)) for _ in range(12)]
        model = mlgraph.Model(g, [g.add_neuron(hidden, weights=rng.normal(size=12))])
        other = mlgraph.Model(g, hidden[5:6])

        moves = set()

        def look(progress):
            other.forward(X[:3])
            moves.add(g.moves)

        model.fit(X, Y, epochs=2, batch_size=5, learning_rate=0.001, callback=look if meddle else None)
        assert len(moves) > 2 or not meddle
        return model.forward(X)

    np.testing.assert_array_equal(run(True), run(False))


def test_an_exception_in_a_callback_ends_the_run():
    net = network()

    def stop(progress):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        net.fit(X, Y, epochs=3, callback=stop)
    assert len(net.history.batch_loss) and np.isfinite(net.evaluate(X, Y)["loss"])


# --- data ---------------------------------------------------------------------------------------------------------------


def strided(x):
    wide = np.zeros((2 * len(x), 3 * x.shape[1]), x.dtype)
    wide[::2, ::3] = x
    return wide[::2, ::3]


def read_only(x):
    copy = x.copy()
    copy.flags.writeable = False
    return copy


FORMS = {
    "uint8": lambda x: x,
    "float32": lambda x: (x / 255).astype(np.float32),
    "float64": lambda x: x / 255,
    "longdouble": lambda x: x / np.longdouble(255),
    "big-endian": lambda x: (x / 255).astype(">f4"),
    "Fortran order": lambda x: np.asfortranarray(x / 255),
    "Fortran order of bytes": np.asfortranarray,
    "strided": lambda x: strided(x / 255),
    "strided bytes": strided,
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "read-only": lambda x: read_only(x / 255),
    "read-only bytes": read_only,
    "lists": lambda x: (x / 255).tolist(),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_data(form):
    """Bytes are shares of 255 in float32, whatever the data look like in memory."""
    net, expected = network(), network()
    data = FORMS[form](X)
    np.testing.assert_allclose(net.forward(data), expected.forward(FLOATS), rtol=1e-6, atol=1e-7)
    net.fit(data, Y, epochs=1, batch_size=30)
    expected.fit(FLOATS, Y, epochs=1, batch_size=30)
    np.testing.assert_allclose(net.graph.parameters, expected.graph.parameters, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(np.asarray(data), FORMS[form](X))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float16])
def test_numbers_of_any_type(dtype):
    x = (X > 100).astype(dtype)
    np.testing.assert_array_equal(network().forward(x), network().forward(x.astype(np.float32)))


@pytest.mark.parametrize("form", [np.uint8, np.uint64, list, read_only, lambda y: np.repeat(y, 2)[::2]])
def test_forms_of_labels(form):
    labels = Y.astype(form) if form in (np.uint8, np.uint64) else form(Y)
    assert network().evaluate(X, labels) == network().evaluate(X, Y)


def test_no_examples_have_no_values():
    net, none = network(), np.zeros((0, INPUTS))
    assert net.forward(none).shape == net.predict_proba(none).shape == (0, CLASSES) and net.predict(none).shape == (0,)


def changed(array, at, value):
    copy = np.array(array)
    copy[at] = value
    return copy


BAD = {
    "columns": ((X[:, 1:], Y), ValueError, r"x: expected shape \(examples, 12\), came \(200, 11\)"),
    "one row": ((X[0], Y), ValueError, r"x: expected shape \(examples, 12\), came \(12,\)"),
    "three dimensions": ((X[None], Y), ValueError, r"x: expected shape \(examples, 12\), came \(1, 200, 12\)"),
    "text": ((X.astype(str), Y), TypeError, "x: expected numbers, came an array of <U3"),
    "complex": ((X * 1j, Y), TypeError, "x: expected numbers, came an array of complex128"),
    "objects": ((X.astype(object), Y), TypeError, "x: expected numbers, came an array of object"),
    "nothing": ((None, Y), TypeError, "x: expected numbers, came an array of object"),
    "ragged": (([[1.0], [1.0, 2.0]], Y), TypeError, "x: expected an array of numbers, came rows of different lengths"),
    "no examples": ((X[:0], Y[:0]), ValueError, "x: expected at least one example, came none"),
    "labels missing": ((X, Y[:-1]), ValueError, "y: expected 200 labels, one for each example, came 199"),
    "label too high": ((X, changed(Y, 9, 3)), ValueError, "y: expected labels from 0 to 2, came 0 to 3"),
    "label too low": ((X, changed(Y, 9, -1)), ValueError, "y: expected labels from 0 to 2, came -1 to 2"),
    "huge label": ((X, changed(Y.astype(np.uint64), 9, 2**63)), ValueError, "y: expected labels from 0 to 2, came 0 to 9223"),
    "float labels": ((X, Y.astype(float)), ValueError, r"y: expected integer labels of shape \(200,\), came float64 of shape"),
    "labels in rows": ((X, TARGETS), ValueError, r"y: expected integer labels of shape \(200,\), came float32 of shape"),
    "labels of text": ((X, Y.astype(str)), TypeError, "y: expected numbers, came an array of <U21"),
    "no labels": ((X,), ValueError, r"y: expected integer labels of shape \(200,\), came float64 of shape \(0,\)"),
}  # fmt: skip

BAD_TO_FIT = {
    "NaN": ((changed(FLOATS, (7, 5), NAN), Y), "x: expected finite numbers, came nan in example 7, column 5"),
    "both infinities": ((changed(FLOATS, (7, [5, 6]), [INF, -INF]), Y), "x: .* came inf in example 7, column 5"),
    "beyond float32": ((changed(X / 255, (7, 5), 1e39), Y), "x: .* came inf in example 7, column 5"),
}

BAD_OPTIONS = {
    "epochs": (0, 1.5, "epochs: expected an integer of at least 1"),
    "batch_size": (0, 1.5, (1, 2, 3), 2**63, "batch_size: expected one or two ints, from 1 to below"),
    "learning_rate": (-0.1, NAN, INF, 1e39, (0.1, "a"), "learning_rate: expected one or two floats, from 0 to below 3.40282e"),
    "momentum": (1, -0.1, NAN, "momentum: expected a number from 0 to below 1"),
    "optimizer": ("lion", "optimizer: expected sgd or adam, came 'lion'"),
    "on_nonfinite": ("ignore", None, "on_nonfinite: expected one of raise, skip, disconnect, came"),
    "seed": (-1, 0.5, "seed: expected an integer of at least 0"),
    "n_threads": (0, 1.5, "n_threads: expected an integer of at least 1"),
    "validation": ((X[:, 1:], Y), r"validation x: expected shape \(examples, 12\)"),
}
BAD_OPTIONS_ONE_BY_ONE = [(name, value, message) for name, (*values, message) in BAD_OPTIONS.items() for value in values]
MORE_BAD_VALIDATIONS = [
    ("validation", (X[:0], Y[:0]), "validation x: expected at least one example, came none"),
    ("validation", (X, Y + 1), "validation y: expected labels from 0 to 2, came 1 to 3"),
    ("validation", (X * NAN, Y), "validation x: expected finite numbers, came nan in example 0, column 0"),
]


@pytest.fixture
def trained():
    """A network that has learnt; at the end of the test it must be as it was."""
    net = network()
    history = net.fit(X, Y, epochs=1)
    before, state = bits(net), {name: vector.copy() for name, vector in net.graph.state.items()}
    yield net
    assert bits(net) == before and net.history is history
    assert list(net.graph.state) == list(state) == ["first"]
    np.testing.assert_array_equal(net.graph.state["first"], state["first"])


@pytest.mark.parametrize("name", BAD)
def test_bad_data(trained, name):
    data, error, message = BAD[name]
    with pytest.raises(error, match=message):
        trained.fit(*data)
    with pytest.raises(error, match=message):
        trained.evaluate(data[0], data[1] if len(data) > 1 else ())


@pytest.mark.parametrize("name", BAD_TO_FIT)
def test_data_that_are_not_finite(trained, name):
    data, message = BAD_TO_FIT[name]
    with pytest.raises(ValueError, match=message):
        trained.fit(*data)
    assert not np.isfinite(trained.forward(data[0])[7]).all() and np.isfinite(np.delete(trained.forward(data[0]), 7, 0)).all()


@pytest.mark.parametrize(("name", "value", "message"), BAD_OPTIONS_ONE_BY_ONE + MORE_BAD_VALIDATIONS)
def test_bad_options(trained, name, value, message):
    with pytest.raises(ValueError, match=message):
        trained.fit(X, Y, **{name: value})


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (TARGETS[:, :2], ValueError, r"y: expected shape \(200, 3\), came \(200, 2\)"),
        (TARGETS[:-1], ValueError, r"y: expected shape \(200, 3\), came \(199, 3\)"),
        (Y / 1, ValueError, r"y: expected shape \(200, 3\), came \(200,\)"),
        (changed(TARGETS / 1, (9, 2), NAN), ValueError, "y: expected finite .* hold, came nan in example 9, output 2"),
        (TARGETS.astype(float) * 1e39, ValueError, "y: expected finite .* hold, came 1e\\+39 in example 0, output 2"),
        (TARGETS * 1j, TypeError, "y: expected numbers, came an array of complex64"),
    ],
)
def test_bad_targets(targets, error, message):
    net = network("tanh")
    before = bits(net)
    with pytest.raises(error, match=message):
        net.fit(X, targets)
    assert bits(net) == before


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
