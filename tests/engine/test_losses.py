"""Binary and softmax cross-entropy and squared error: values, predictions, accuracy, and which targets they accept."""

import re
import tracemalloc

import numpy as np
import pytest

import mlgraph

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6)).astype(np.float32)
ANSWERS = (X[:, :3] * X[:, 3:] > 0).astype(int)
SOFT = RNG.random((90, 3))
LAYERS = {"softmax": None, "sigmoid": "binary_cross_entropy", "identity": None}
"""Activation of the last layer, and its loss where that is not the default."""


def network(outputs=3, hidden=8, seed=0):
    net = mlgraph.Network(6, seed=seed)
    net.add_layer(hidden, "tanh")
    net.add_layer(outputs, "sigmoid", loss="binary_cross_entropy")
    return net


def one_layer(last, outputs=3, inputs=6):
    net = mlgraph.Network(inputs, seed=0)
    net.add_layer(outputs, last, loss=LAYERS[last])
    return net


def one_output(loss=None):
    """A model whose only output is its only input."""
    g = mlgraph.Graph()
    return mlgraph.Model(g, g.add_neuron([g.input()], weights=[1.0]), loss or "binary_cross_entropy")


def sigmoid(z):
    return 1 / (1 + np.exp(-z.astype(np.float64)))


@pytest.mark.parametrize("y", [ANSWERS, ANSWERS.astype(bool), SOFT], ids=["0 or 1", "bool", "between"])
def test_binary_cross_entropy_values(sweep, y):
    net = network()
    z = net.forward(X)
    p = sigmoid(z)
    np.testing.assert_allclose(net.predict_proba(X), p, rtol=1e-5)
    np.testing.assert_array_equal(net.predict(X), (z > 0).astype(np.int64))
    loss = -(y * np.log(p) + (1 - np.float64(y)) * np.log(1 - p)).sum(axis=1).mean()
    right = ((z > 0) == (np.asarray(y) > 0.5)).all(axis=1).mean()
    assert net.evaluate(X, y) == {"loss": pytest.approx(loss, rel=1e-5), "accuracy": pytest.approx(right)}
    assert 0 < right < 1


def test_targets_of_one_output_may_be_one_dimensional(sweep):
    net, y = network(1), ANSWERS[:, 0]
    expected = net.evaluate(X, ANSWERS[:, :1])
    assert expected["accuracy"] == pytest.approx((net.predict(X) == y).mean())
    for form in (y, y.astype(float), y.astype(bool), y.tolist()):
        assert net.evaluate(X, form) == expected
    assert net.predict(X).shape == (90,) and net.predict_proba(X).shape == net.forward(X).shape == (90, 1)
    squared = one_layer("identity", outputs=1)
    assert squared.evaluate(X, y) == squared.evaluate(X, ANSWERS[:, :1])
    with pytest.raises(ValueError, match=r"^y: expected shape \(90,\) or \(90, 1\), got \(89,\)$"):
        squared.evaluate(X, y[:89])


@pytest.mark.parametrize("last", LAYERS)
def test_probabilities_are_nodes(last):
    net = one_layer(last)
    if last == "identity":
        assert net.probabilities == []
    else:
        before = net.graph.edits
        np.testing.assert_array_equal(net.graph.compile(net.probabilities)(X), net.predict_proba(X))
        assert net.graph.edits == before


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("last", LAYERS)
def test_predict_refuses_nan_where_it_gives_classes(sweep, outputs, last):
    """A predicted number may be NaN; a predicted class or answer may not."""
    net = one_layer(last, max(outputs, 2) if last == "softmax" else outputs)
    x = X[:70].copy()
    x[40, 2] = np.inf  # the outputs then are infinite, which predict accepts
    z = net.forward(x)
    expected = {"softmax": z.argmax(axis=1), "sigmoid": (z > 0).astype(np.int64), "identity": z}[last]
    np.testing.assert_array_equal(net.predict(x), expected[:, 0] if expected.shape[1:] == (1,) else expected)
    x[[41, 60], 3] = np.nan
    if last == "identity":
        assert np.isnan(net.predict(x)).reshape(70, outputs).all(axis=1).nonzero()[0].tolist() == [41, 60]
    else:
        with pytest.raises(ValueError, match=r"^predict: .*nan .*example 41\b"):
            net.predict(x)
        assert net.predict(x[:41]).shape[0] == 41


@pytest.mark.parametrize("k", [0, 1, 4])
def test_predict_finds_nan_in_any_class(sweep, k):
    g = mlgraph.Graph()
    model = mlgraph.Model(g, [g.add_neuron([x], weights=[1.0]) for x in g.inputs(5)], "softmax_cross_entropy")
    x = np.random.default_rng(0).normal(size=(70, 5))
    np.testing.assert_array_equal(model.predict(x), x.argmax(axis=1))
    for example in (50, 0):
        x[example, k] = np.nan
        with pytest.raises(ValueError, match=rf"nan .*example {example}\b"):
            model.predict(x)


def test_binary_cross_entropy_equals_softmax_of_two_classes(sweep):
    """The logit of the other class is 0."""
    g = mlgraph.Graph()
    z = g.add_neuron(g.inputs(6), weights=RNG.normal(size=6), bias=0.3)
    two = mlgraph.Model(g, [z * 0, z], "softmax_cross_entropy")
    one = mlgraph.Model(g, z, "binary_cross_entropy")
    y = ANSWERS[:, 0]
    assert one.evaluate(X, y) == {name: pytest.approx(value, rel=1e-5) for name, value in two.evaluate(X, y).items()}
    np.testing.assert_allclose(one.predict_proba(X)[:, 0], two.predict_proba(X)[:, 1], rtol=1e-5)
    np.testing.assert_allclose(*(model.trace(X, y, [z]).adjoint(z) for model in (one, two)), atol=1e-6)


def test_logits_of_any_size(sweep):
    g = mlgraph.Graph()
    [z] = g.inputs(1)
    model = mlgraph.Model(g, z, "binary_cross_entropy")
    x = np.array([[1e30], [1e30], [-1e30], [-1e30], [0]], np.float32)
    np.testing.assert_array_equal(model.trace(x, [1, 0, 1, 0, 1], [z]).adjoint(z), [0, 1, -1, 0, -0.5])
    assert model.evaluate(x[[0, 3]], [1, 0]) == {"loss": 0, "accuracy": 1}
    assert model.evaluate(x[[1, 2]], [0, 1]) == {"loss": pytest.approx(1e30), "accuracy": 0}
    np.testing.assert_array_equal(model.predict_proba(x)[:, 0], [1, 1, 0, 0, 0.5])


def test_binary_cross_entropy_learns():
    net = network(hidden=32)
    history = net.fit(X, ANSWERS, epochs=200, batch_size=16, learning_rate=0.1, validation=(X, ANSWERS))
    assert net.evaluate(X, ANSWERS)["accuracy"] == history.validation_accuracy[-1] == 1 == history.epoch_accuracy[-1]
    assert history.batch_accuracy[:6].mean() < 0.6


def test_binary_cross_entropy_is_bitwise_equal_on_any_number_of_threads(sweep):
    results = set()
    for n_threads in (1, 3):
        net = network()
        net.fit(X, SOFT, epochs=3, batch_size=70, n_threads=n_threads)
        results.add((net.graph.parameters.tobytes(), net.history.batch_accuracy.tobytes()))
    assert len(results) == 1


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (ANSWERS[:, 0], "y: expected shape (90, 3), got (90,)"),
        (ANSWERS[:5], "y: expected shape (90, 3), got (5, 3)"),
        (ANSWERS * 2, "y: expected numbers from 0 to 1, got 2.0 in example 0, output 0"),
        (SOFT - 1, "y: expected numbers from 0 to 1, got -0."),
        (np.where(ANSWERS, np.nan, 0.5), "float32 can hold, got nan in example 0, output 0"),
    ],
    ids=["labels", "few", "two", "negative", "NaN"],
)
def test_binary_cross_entropy_refuses_other_targets(y, message):
    assert ANSWERS[0, 0] == 1
    net = network()
    before = net.graph.parameters.tobytes()
    with pytest.raises(ValueError, match=re.escape(message)):
        net.fit(X, y, epochs=1)
    assert net.graph.parameters.tobytes() == before


@pytest.mark.parametrize(
    ("y", "hint"),
    [
        (ANSWERS[:, :1], "; y.ravel() may be them"),
        (np.zeros(90), "; y.astype(int) may be them"),
        (np.full(90, 0.5), ""),
        (np.full(90, np.nan), ""),
        (SOFT[:, :2], ""),
        (SOFT[:9], ""),
    ],
)
def test_softmax_refuses_what_is_neither_labels_nor_targets(y, hint):
    expected = r"^y: expected integer labels of shape \(90,\) or targets of shape \(90, 3\), got "
    with pytest.raises(ValueError, match=expected) as error:
        one_layer("softmax").evaluate(X, y)
    assert str(error.value).endswith(f"of shape {y.shape}{hint}")


@pytest.mark.parametrize("kind", [list, np.array, lambda y: np.array(y, object)])
def test_labels_that_are_strings(kind):
    with pytest.raises(TypeError, match=r"^y: expected numbers, got .*np.unique\(y, return_inverse=True\)"):
        one_layer("softmax").fit(X[:2], kind(["a", "b"]))


def test_labels_of_other_types():
    with pytest.raises(TypeError, match=r"^y: .* object; astype\(int\) or astype\(float\) may make them numbers"):
        network().fit(X, ANSWERS.astype(object), epochs=1)
    with pytest.raises(ValueError, match=r"^y: expected labels or targets of 2 examples, got none$"):
        one_layer("softmax").fit(X[:2])
    net = one_layer("softmax")
    assert net.evaluate(X[:2], [False, True]) == net.evaluate(X[:2], [0, 1])


def test_memory_for_labels_is_linear_in_the_number_of_classes():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, g.add_neurons([g.input()], weights=np.ones((4000, 1))))
    model.evaluate([[1.0]], [3])  # compiles
    tracemalloc.start()
    assert model.evaluate([[1.0]], [3])["loss"] == 3999
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    ("activation", "loss", "expected"),
    [
        ("tanh", "binary_cross_entropy", "sigmoid"),
        ("identity", "softmax_cross_entropy", "softmax"),
        ("softmax", "binary_cross_entropy", "sigmoid"),
        ("tanh", "hinge", "squared_error"),
        ("tanh", 3, "squared_error"),
        ("softmax", "squared_error", "softmax_cross_entropy"),
        ("sigmoid", "hinge", "squared_error or binary_cross_entropy"),
    ],
)
def test_a_layer_refuses_a_loss_that_does_not_fit_its_activation(activation, loss, expected):
    net = network()
    with pytest.raises(ValueError if isinstance(loss, str) else TypeError, match=rf"expected {expected}\b"):
        net.add_layer(2, activation, loss=loss)
    assert len(net.layers) == 2


def test_the_loss_of_a_sigmoid_layer_is_the_squared_error_by_default():
    nets = [mlgraph.Network(6, seed=0) for _ in range(2)]
    nets[0].add_layer(2, "sigmoid")
    nets[1].add_layer(2, "sigmoid", loss="squared_error")
    assert nets[0].loss == nets[1].loss == "squared_error"
    assert nets[0].forward(X).tobytes() == nets[1].forward(X).tobytes()


@pytest.mark.parametrize("first", ["softmax", "sigmoid"])
@pytest.mark.parametrize("last", ["softmax", "sigmoid", "tanh"])
def test_layers_of_probabilities_within_a_network(tmp_path, first, last):
    """The next layer reads probabilities, not logits; also after save and load, pruning and regrowing."""
    net = mlgraph.Network(6, seed=0)
    for size, activation in ((5, first), (3, last)):
        net.add_layer(size, activation, loss="binary_cross_entropy" if activation == "sigmoid" else None)
    y = np.arange(90) % 3 if last == "softmax" else ANSWERS
    net.fit(X, y, epochs=2)
    net.save(tmp_path / "model.npz")
    loaded = mlgraph.load(tmp_path / "model.npz")
    read = net.trace(X, nodes=net.layers[1].neurons[0].sources).values
    logits = net.trace(X, nodes=net.layers[0].neurons).values.astype(np.float64)
    e = np.exp(logits)
    np.testing.assert_allclose(read, sigmoid(logits) if first == "sigmoid" else e / e.sum(1, keepdims=True), rtol=1e-4)
    for each in (net, loaded):
        assert each.layers[1].weights.shape == (3, 5)
        each.prune(0.4, scope="layer")
        each.regrow(0.5, seed=1)
        each.fit(X, y, epochs=2, seed=3)
        assert each.add_layer(2).weights.shape == (2, 3)
    for one, other in zip(net.layers[:2], loaded.layers, strict=False):
        assert one.weights.tobytes() == other.weights.tobytes()


def test_skipped_examples_do_not_count():
    g = mlgraph.Graph()
    x = g.inputs(6)
    model = mlgraph.Model(g, [g.add_neuron(x, weights=w) for w in RNG.normal(size=(3, 6))], "binary_cross_entropy")
    model.outputs[0].weights[0] = 1e10
    spoilt = X.copy()
    spoilt[7, 0] = 1e30
    with pytest.raises(mlgraph.NonFiniteError, match=r"neuron n6 is inf in example 7 \(forward\)"):
        model.fit(spoilt, ANSWERS, epochs=1)
    history = model.fit(spoilt, ANSWERS, epochs=1, batch_size=30, learning_rate=0.0, on_nonfinite="skip")
    assert history.nonfinite_example.tolist() == [7] and history.batch_skipped.sum() == 1
    right = ((model.forward(spoilt) > 0) == ANSWERS).all(axis=1)
    assert history.epoch_accuracy[0] == pytest.approx(np.delete(right, 7).mean())


@pytest.mark.parametrize("none", [np.zeros(0), (), []], ids=repr)
def test_no_examples_need_no_targets(none):
    assert one_output().trace(np.zeros((0, 1)), none).adjoints.shape[0] == 0


def test_fit_copies_its_targets():
    """A callback that writes to them changes nothing."""

    def run(change):
        model, y = one_output("squared_error"), np.ones((4, 1), np.float32)
        model.fit(np.ones((4, 1)), y, epochs=3, callback=lambda _: y.fill(9) if change else None)
        return model.graph.parameters.tolist()

    assert run(True) == run(False)


@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_the_first_of_equal_classes_counts(sweep, kind):
    """In outputs and in targets, as in what is predicted."""
    g = mlgraph.Graph()
    model = mlgraph.Model(g, [g.add_neuron([x], weights=[1.0]) for x in g.inputs(3)], "softmax_cross_entropy")
    z = np.repeat([[0.0, 0.0, -1.0], [-1.0, 1.0, 1.0], [0.0, -1.0, 0.0], [1.0, 1.0, 1.0]], 10, axis=0)
    first, last = z.argmax(axis=1), 2 - z[:, ::-1].argmax(axis=1)
    np.testing.assert_array_equal(model.predict(z), first)
    if kind == "labels":
        assert model.evaluate(z, first)["accuracy"] == 1 and model.evaluate(z, last)["accuracy"] == 0
    else:
        targets = np.eye(3)[first] + np.eye(3)[last]
        assert model.evaluate(z, targets / targets.sum(axis=1, keepdims=True))["accuracy"] == 1


def test_a_probability_or_target_of_one_half_means_no(sweep):
    model = one_output()
    x, y = np.array([[0.0], [0.0], [1.0], [-1.0]]), np.array([[0.0], [1.0], [0.5], [0.5]])
    assert [model.evaluate(x[[i]], y[[i]])["accuracy"] for i in range(4)] == [1, 0, 0, 1]
    assert model.predict([[0.0], [1e-30], [-1e-30]]).tolist() == [0, 1, 0]


def test_the_mean_loss_is_summed_in_float64():
    g = mlgraph.Graph()
    x = g.input()
    losses = np.array([[3e7]] + [[1.0]] * 1000, np.float32)
    assert mlgraph.Model(g, [x], x * 1).evaluate(losses)["loss"] == losses.mean(dtype=np.float64) != losses.mean()


@pytest.mark.parametrize("last", LAYERS)
def test_an_example_with_nan_outputs_is_not_right(last):
    net = one_layer(last, inputs=2)
    x = np.full((40, 2), np.nan, np.float32)
    x[20:] = 1
    values = net.forward(x[20:21])[0]
    y = np.zeros((40, 3) if LAYERS[last] else 40, int)  # class 0, or no to all, where the outputs are NaN
    y[20:] = values > 0 if LAYERS[last] else values.argmax()
    assert [net.evaluate(x[half], y[half])["accuracy"] for half in (slice(20), slice(20, 40))] == [0, 1]
    scores = net.evaluate(x, y)
    assert scores["accuracy"] == 0.5 and np.isnan(scores["loss"])
