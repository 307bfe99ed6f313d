"""The cross-entropies: of one question for each output, and of classes. Layers of probabilities, and what comes after them."""

import re
import tracemalloc

import numpy as np
import pytest

import mlgraph
from mlgraph.engine import losses

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6)).astype(np.float32)
ANSWERS = (X[:, :3] * X[:, 3:] > 0).astype(int)
SOFT = RNG.random((90, 3))


def network(questions=3, hidden=8, seed=0):
    net = mlgraph.Network(6, seed=seed)
    net.add_layer(hidden, "tanh")
    net.add_layer(questions, "sigmoid", loss="binary_cross_entropy")
    return net


def sigmoid(z):
    return 1 / (1 + np.exp(-z.astype(np.float64)))


@pytest.mark.parametrize("y", [ANSWERS, ANSWERS.astype(bool), SOFT], ids=["0 or 1", "bool", "between"])
def test_values(sweep, y):
    net = network()
    z = net.forward(X)
    p = sigmoid(z)
    np.testing.assert_allclose(net.predict_proba(X), p, rtol=1e-5)
    np.testing.assert_array_equal(net.predict(X), (z > 0).astype(np.int64))
    loss = -(y * np.log(p) + (1 - np.float64(y)) * np.log(1 - p)).sum(axis=1).mean()
    right = ((z > 0) == (np.asarray(y) > 0.5)).all(axis=1).mean()
    assert net.evaluate(X, y) == {"loss": pytest.approx(loss, rel=1e-5), "accuracy": pytest.approx(right)}
    assert 0 < right < 1


def test_one_question_has_one_answer_an_example(sweep):
    net = network(1)
    for y in (
        ANSWERS[:, 0],
        ANSWERS[:, :1],
        ANSWERS[:, 0].astype(float),
        ANSWERS[:, 0].astype(bool),
        ANSWERS[:, 0].tolist(),
    ):
        scores = net.evaluate(X, y)
        assert scores["accuracy"] == pytest.approx((net.predict(X) == ANSWERS[:, 0]).mean())
    assert net.predict(X).shape == (90,) and net.predict_proba(X).shape == net.forward(X).shape == (90, 1)


@pytest.mark.parametrize(("last", "loss"), [("softmax", None), ("sigmoid", "binary_cross_entropy"), ("identity", None)])
def test_probabilities_are_nodes(last, loss):
    net = mlgraph.Network(6, seed=0)
    net.add_layer(3, last, loss=loss)
    if last == "identity":
        assert net.probabilities == []
        return
    before = net.graph.edits
    np.testing.assert_array_equal(net.graph.compile(net.probabilities)(X), net.predict_proba(X))
    assert net.graph.edits == before


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize(("last", "loss"), [("softmax", None), ("sigmoid", "binary_cross_entropy"), ("identity", None)])
def test_a_prediction_that_is_no_number_is_refused(sweep, outputs, last, loss):
    """Where it would be a class or an answer; a number may be NaN."""
    net = mlgraph.Network(6, seed=0)
    net.add_layer(max(outputs, 2) if last == "softmax" else outputs, last, loss=loss)
    x = X[:70].copy()
    x[40, 2] = np.inf  # which is a number, and so are the outputs
    z = net.forward(x)
    expected = {"softmax": z.argmax(axis=1), "sigmoid": (z > 0).astype(np.int64), "identity": z}[last]
    np.testing.assert_array_equal(net.predict(x), expected[:, 0] if expected.shape[1:] == (1,) else expected)
    x[[41, 60], 3] = np.nan
    if last == "identity":
        assert np.isnan(net.predict(x)).reshape(70, outputs).all(axis=1).nonzero()[0].tolist() == [41, 60]
        return
    with pytest.raises(
        ValueError, match=r"^predict: expected outputs that are numbers, got nan for example 41; forward shows"
    ):
        net.predict(x)
    assert net.predict(x[:41]).shape[0] == 41


@pytest.mark.parametrize("k", [0, 1, 4])
def test_no_class_is_the_highest_where_one_of_them_is_no_number(sweep, k):
    g = mlgraph.Graph()
    outputs = [g.add_neuron([x], weights=[1.0]) for x in g.inputs(5)]
    model = mlgraph.Model(g, outputs, "softmax_cross_entropy")
    x = np.random.default_rng(0).normal(size=(70, 5))
    np.testing.assert_array_equal(model.predict(x), x.argmax(axis=1))
    for example in (50, 0):
        x[example, k] = np.nan
        with pytest.raises(ValueError, match=f"got nan for example {example}; forward shows"):
            model.predict(x)


def test_of_one_question_it_is_that_of_two_classes(sweep):
    """Of which one has the logit 0."""
    g = mlgraph.Graph()
    x = g.inputs(6)
    z = g.add_neuron(x, weights=RNG.normal(size=6), bias=0.3)
    two = mlgraph.Model(g, [z * 0, z], "softmax_cross_entropy")
    one = mlgraph.Model(g, z, "binary_cross_entropy")
    y = ANSWERS[:, 0]
    assert one.evaluate(X, y) == {name: pytest.approx(value, rel=1e-5) for name, value in two.evaluate(X, y).items()}
    np.testing.assert_allclose(one.predict_proba(X)[:, 0], two.predict_proba(X)[:, 1], rtol=1e-5)
    traces = [model.trace(X, y, [z]).adjoint(z) for model in (one, two)]
    np.testing.assert_allclose(*traces, atol=1e-6)


def test_logits_of_any_size(sweep):
    g = mlgraph.Graph()
    [z] = g.inputs(1)
    model = mlgraph.Model(g, z, "binary_cross_entropy")
    x = np.array([[1e30], [1e30], [-1e30], [-1e30], [0]], np.float32)
    found = model.trace(x, [1, 0, 1, 0, 1], [z]).adjoint(z)
    np.testing.assert_array_equal(found, [0, 1, -1, 0, -0.5])
    assert model.evaluate(x[[0, 3]], [1, 0]) == {"loss": 0, "accuracy": 1}
    assert model.evaluate(x[[1, 2]], [0, 1]) == {"loss": pytest.approx(1e30), "accuracy": 0}
    np.testing.assert_array_equal(model.predict_proba(x)[:, 0], [1, 1, 0, 0, 0.5])


def test_it_learns():
    net = network(hidden=32)
    history = net.fit(X, ANSWERS, epochs=200, batch_size=16, learning_rate=0.1, validation=(X, ANSWERS))
    assert net.evaluate(X, ANSWERS)["accuracy"] == history.validation_accuracy[-1] == 1 == history.epoch_accuracy[-1]
    assert history.batch_accuracy[:6].mean() < 0.6


def test_bits_do_not_depend_on_threads(sweep):
    results = []
    for n_threads in (1, 3):
        net = network()
        net.fit(X, SOFT, epochs=3, batch_size=70, n_threads=n_threads)
        results.append((net.graph.parameters.tobytes(), net.history.batch_accuracy.tolist()))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (ANSWERS[:, 0], "y: expected shape (90, 3), got (90,)"),
        (ANSWERS[:5], "y: expected shape (90, 3), got (5, 3)"),
        (ANSWERS * 2, "y: expected numbers from 0 to 1, got 2.0 in example 0, output 0"),
        (SOFT - 1, "y: expected numbers from 0 to 1, got -0."),
        (
            np.where(ANSWERS, np.nan, 0.5),
            "y: expected finite numbers that float32 can hold, got nan in example 0, output 0",
        ),
    ],
    ids=["labels", "few", "two", "negative", "NaN"],
)
def test_what_is_no_answer(y, message):
    assert ANSWERS[0, 0] == 1
    net = network()
    before = net.graph.parameters.tobytes()
    with pytest.raises(ValueError, match=re.escape(message)):
        net.fit(X, y, epochs=1)
    assert net.graph.parameters.tobytes() == before


def test_answers_of_one_output_may_be_a_row():
    one = mlgraph.Network(X.shape[1], seed=0)
    one.add_layer(1, "identity")
    assert one.evaluate(X, ANSWERS[:, 0]) == one.evaluate(X, ANSWERS[:, :1])
    with pytest.raises(ValueError, match=r"^y: expected shape \(90,\) or \(90, 1\), got \(89,\)$"):
        one.evaluate(X, ANSWERS[:89, 0])


def test_labels_of_many_outputs_take_no_square_of_them():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, g.add_neurons([g.input()], weights=np.ones((4000, 1))))
    model.evaluate([[1.0]], [3])  # compiles
    tracemalloc.start()
    assert model.evaluate([[1.0]], [3])["loss"] == 3999
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**20


def test_labels_of_objects_are_told_what_they_may_become():
    with pytest.raises(TypeError, match=r"^y: .* object; astype\(int\) or astype\(float\) may make them numbers"):
        network().fit(X, ANSWERS.astype(object), epochs=1)


@pytest.mark.parametrize(
    ("activation", "loss", "message"),
    [
        (
            "tanh",
            "binary_cross_entropy",
            "activation: expected sigmoid, which binary_cross_entropy goes with, got tanh",
        ),
        (
            "identity",
            "softmax_cross_entropy",
            "activation: expected softmax, which softmax_cross_entropy goes with, got identity",
        ),
        (
            "softmax",
            "binary_cross_entropy",
            "activation: expected sigmoid, which binary_cross_entropy goes with, got softmax",
        ),
        ("tanh", "hinge", "loss after tanh: expected squared_error, got 'hinge'"),
        ("tanh", 3, "loss after tanh: expected squared_error, got 3"),
        ("softmax", "squared_error", "loss after softmax: expected softmax_cross_entropy, got 'squared_error'"),
        ("sigmoid", "hinge", "loss after sigmoid: expected squared_error or binary_cross_entropy, got 'hinge'"),
    ],
)
def test_losses_that_do_not_fit(activation, loss, message):
    net = network()
    with pytest.raises(ValueError if isinstance(loss, str) else TypeError, match=message):
        net.add_layer(2, activation, loss=loss)
    assert len(net.layers) == 2


def test_a_sigmoid_layer_keeps_its_squared_error():
    net = mlgraph.Network(6, seed=0)
    layer = net.add_layer(2, "sigmoid")
    assert net.loss == "squared_error" and layer.neurons[0].activation == "sigmoid"
    same = mlgraph.Network(6, seed=0)
    same.add_layer(2, "sigmoid", loss="squared_error")
    assert same.loss == "squared_error" and same.forward(X).tobytes() == net.forward(X).tobytes()


@pytest.mark.parametrize(
    ("y", "hint"),
    [
        (np.zeros(9), "; y.astype(int) may be them"),
        (np.full(9, 0.5), ""),
        (np.full(9, np.nan), ""),
        (np.full(9, np.inf), ""),
        (np.zeros((9, 1), int), "; y.ravel() may be them"),
        (np.eye(9)[:, :8], ""),
        (np.eye(9)[:8], ""),
    ],
)
def test_labels_that_are_none(y, hint):
    with pytest.raises(
        ValueError, match=r"^y: expected integer labels of shape \(9,\) or targets of shape \(9, 9\)"
    ) as error:
        losses.read_targets("softmax_cross_entropy", y, 9, 9, "y")
    assert str(error.value).endswith(f"of shape {y.shape}{hint}")


@pytest.mark.parametrize("first", ["softmax", "sigmoid"])
@pytest.mark.parametrize("last", ["softmax", "sigmoid", "tanh"])
def test_layers_of_probabilities_within(tmp_path, first, last):
    """What comes after reads the probabilities, and does so when the network has been saved and loaded."""
    net = mlgraph.Network(6, seed=0)
    for size, activation in ((5, first), (3, last)):
        net.add_layer(size, activation, loss="binary_cross_entropy" if activation == "sigmoid" else None)
    y = np.arange(90) % 3 if last == "softmax" else ANSWERS
    net.fit(X, y, epochs=2)
    net.save(tmp_path / "model.npz")
    back = mlgraph.load(tmp_path / "model.npz")
    between = net.trace(X, nodes=net.layers[1].neurons[0].sources).values
    logits = net.trace(X, nodes=net.layers[0].neurons).values.astype(np.float64)
    e = np.exp(logits)
    np.testing.assert_allclose(
        between, sigmoid(logits) if first == "sigmoid" else e / e.sum(axis=1, keepdims=True), rtol=1e-4
    )
    for each in (net, back):
        assert each.layers[1].weights.shape == (3, 5)
        each.prune(0.4, scope="layer")
        each.regrow(0.5, seed=1)
        each.fit(X, y, epochs=2, seed=3)
        assert each.add_layer(2).weights.shape == (2, 3)
    for one, other in zip(net.layers[:2], back.layers, strict=False):
        assert one.weights.tobytes() == other.weights.tobytes()


def test_examples_that_are_left_out():
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


@pytest.mark.parametrize(
    ("y", "hint"),
    [
        (ANSWERS[:, :1], r"int64 of shape \(90, 1\); y.ravel\(\) may be them"),
        (ANSWERS[:, 0] / 1, r"float64 of shape \(90,\); y.astype\(int\) may be them"),
        (SOFT[:, :2], r"float64 of shape \(90, 2\)"),
    ],
)
def test_what_is_no_label_says_where_labels_may_be(y, hint):
    net = mlgraph.Network(6)
    net.add_layer(3, "softmax")
    expected = r"integer labels of shape \(90,\) or targets of shape \(90, 3\)"
    with pytest.raises(ValueError, match=rf"^y: expected {expected}, got {hint}$"):
        net.evaluate(X, y)


def test_truths_are_labels():
    net = mlgraph.Network(1)
    net.add_layer(2, "softmax")
    assert net.evaluate(np.ones((2, 1)), [False, True]) == net.evaluate(np.ones((2, 1)), [0, 1])


def test_no_answers_to_no_examples():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, g.add_neuron(g.inputs(1)), "binary_cross_entropy")
    for none in (np.zeros(0), (), []):
        assert model.trace(np.zeros((0, 1)), none).adjoints.shape[0] == 0


def test_targets_that_change_while_they_are_learnt():
    """They are copied: a run learns what it was given."""

    def run(change):
        g, y = mlgraph.Graph(), np.ones((4, 1), np.float32)
        model = mlgraph.Model(g, g.add_neuron(g.inputs(1)))
        model.fit(np.ones((4, 1)), y, epochs=3, callback=lambda _: y.fill(9) if change else None)
        return model.graph.parameters.tolist()

    assert run(True) == run(False)


@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_of_classes_that_are_equal_the_first_counts(sweep, kind):
    """Of outputs and of targets, as in what is predicted."""
    g = mlgraph.Graph()
    x = g.inputs(3)
    model = mlgraph.Model(g, [g.add_neuron([node], weights=[1.0]) for node in x], "softmax_cross_entropy")
    z = np.repeat([[0.0, 0.0, -1.0], [-1.0, 1.0, 1.0], [0.0, -1.0, 0.0], [1.0, 1.0, 1.0]], 10, axis=0)
    first, last = z.argmax(axis=1), 2 - z[:, ::-1].argmax(axis=1)
    np.testing.assert_array_equal(model.predict(z), first)
    if kind == "labels":
        assert model.evaluate(z, first)["accuracy"] == 1 and model.evaluate(z, last)["accuracy"] == 0
    else:
        targets = np.eye(3)[first] + np.eye(3)[last]
        assert model.evaluate(z, targets / targets.sum(axis=1, keepdims=True))["accuracy"] == 1


def test_an_output_of_zero_and_a_target_of_a_half_are_no_yes(sweep):
    g = mlgraph.Graph()
    model = mlgraph.Model(g, g.add_neuron([g.input()], weights=[1.0]), "binary_cross_entropy")
    x, y = np.array([[0.0], [0.0], [1.0], [-1.0]]), np.array([[0.0], [1.0], [0.5], [0.5]])
    right = [model.evaluate(x[[i]], y[[i]])["accuracy"] for i in range(4)]
    assert right == [1, 0, 0, 1]


def test_an_even_chance_is_no_yes():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, g.add_neuron(g.inputs(1), weights=[1.0]), "binary_cross_entropy")
    assert model.predict([[0.0], [1e-30], [-1e-30]]).tolist() == [0, 1, 0]


def test_the_mean_loss_is_summed_in_float64():
    g = mlgraph.Graph()
    x = g.input()
    model = mlgraph.Model(g, [x], x * 1)
    losses = np.array([[3e7]] + [[1.0]] * 1000, np.float32)
    assert model.evaluate(losses)["loss"] == losses.mean(dtype=np.float64) != losses.mean()


@pytest.mark.parametrize(("last", "loss"), [("softmax", None), ("sigmoid", "binary_cross_entropy"), ("identity", None)])
def test_what_is_not_finite_is_not_right(last, loss):
    net = mlgraph.Network(2, seed=0)
    net.add_layer(3, last, loss=loss)
    x = np.full((40, 2), np.nan, np.float32)
    x[20:] = 1
    values, y = (
        net.forward(x[20:21])[0],
        np.zeros((40, 3) if loss else 40, int),
    )  # class 0, or no to all, where it is NaN
    y[20:] = values > 0 if loss else values.argmax()
    half = net.evaluate(x, y)
    assert [net.evaluate(x[part], y[part])["accuracy"] for part in (slice(20), slice(20, 40))] == [0, 1]
    assert half["accuracy"] == 0.5 and np.isnan(half["loss"])


def test_targets_that_are_texts_or_none():
    net = mlgraph.Network(2, seed=0)
    net.add_layer(3, "softmax")
    for y in (["a", "b"], np.array(["a", "b"]), np.array(["a", "b"], object)):
        with pytest.raises(
            TypeError, match=r"^y: expected numbers, got texts; np.unique\(y, return_inverse=True\) numbers"
        ):
            net.fit(np.ones((2, 2)), y)
    with pytest.raises(ValueError, match=r"^y: expected labels or targets of 2 examples, got none$"):
        net.fit(np.ones((2, 2)))
