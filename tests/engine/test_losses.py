"""Cross-entropies and the squared error: values, predictions, accuracy, and which targets they accept."""

import numpy as np
import pytest

import mlgraph

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6)).astype(np.float32)
LABELS = X[:, :3].argmax(axis=1)
ONE_HOT = np.eye(3)[LABELS]
ANSWERS = (X[:, :3] * X[:, 3:] > 0).astype(int)
SOFT = RNG.random((90, 3))
LAYERS = {"softmax": None, "sigmoid": "binary_cross_entropy", "identity": None}
"""Activation of the last layer, and its loss where that is not the default."""


def network(last, outputs=3, hidden=8):
    net = mlgraph.Network(6, seed=0)
    net.add_layer(hidden, "tanh")
    net.add_layer(outputs, last, loss=LAYERS[last])
    return net


def model_of_inputs(n, loss):
    """A model whose outputs are its inputs, through a neuron each."""
    g = mlgraph.Graph()
    return mlgraph.Model(g, [g.add_neuron([x], weights=[1.0]) for x in g.add_inputs(n)], loss)


# --- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "y"),
    [
        ("softmax", LABELS),
        ("softmax", SOFT),
        ("sigmoid", ANSWERS),
        ("sigmoid", ANSWERS.astype(bool)),
        ("sigmoid", SOFT),
        ("identity", SOFT),
        ("identity", LABELS),
    ],
)
def test_loss_accuracy_predictions_and_adjoints(sweep, last, y):
    """Target probabilities of the classes need not sum to 1."""
    net = network(last)
    z, labelled = net.forward(X).astype(np.float64), y.ndim == 1
    targets, e = ONE_HOT if labelled else y.astype(np.float64), np.exp(z)
    p = {"softmax": e / e.sum(axis=1, keepdims=True), "sigmoid": e / (1 + e), "identity": z}[last]
    if last == "softmax":
        loss, adjoints = -(targets * np.log(p)).sum(axis=1), targets.sum(axis=1, keepdims=True) * p - targets
    elif last == "sigmoid":
        loss, adjoints = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(axis=1), p - targets
    else:
        loss, adjoints = ((z - targets) ** 2).sum(axis=1), 2 * (z - targets)
    found = net.evaluate(X, y)
    assert found.pop("loss") == pytest.approx(loss.mean(), rel=1e-5)
    np.testing.assert_allclose(net.trace(X, y, net.outputs).adjoints, adjoints, rtol=1e-4, atol=1e-6)
    if last == "identity":
        np.testing.assert_array_equal(net.predict(X), net.forward(X))
    else:
        np.testing.assert_allclose(net.predict_proba(X), p, rtol=1e-5)
        np.testing.assert_array_equal(net.graph.compile(net.probabilities)(X), net.predict_proba(X))
        np.testing.assert_array_equal(net.predict(X), z.argmax(axis=1) if last == "softmax" else z > 0)
    if last == "sigmoid":
        right = ((z > 0) == (targets > 0.5)).all(axis=1)
    else:
        right = z.argmax(axis=1) == targets.argmax(axis=1)
    assert found == ({"accuracy": right.mean()} if last != "identity" or labelled else {})


def test_targets_of_one_output_may_be_one_dimensional(sweep):
    net, squared, y = network("sigmoid", 1), network("identity", 1), ANSWERS[:, 0]
    for form in (y, y.astype(float), y.astype(bool), y.tolist()):
        assert net.evaluate(X, form) == net.evaluate(X, ANSWERS[:, :1])
        assert squared.evaluate(X, form) == squared.evaluate(X, ANSWERS[:, :1])
    assert net.predict(X).shape == (90,) and net.predict_proba(X).shape == net.forward(X).shape == (90, 1)


def test_targets_are_weights_of_the_classes():
    """Doubled, they act as a doubled learning rate; those of examples whose targets are zero add nothing."""
    runs = [
        (X, 2 * ONE_HOT, {"batch_size": 30, "learning_rate": 0.05}),
        (X, ONE_HOT, {"batch_size": 30, "learning_rate": 0.1}),
        (X, np.where(np.arange(90)[:, None] < 30, ONE_HOT, 0), {"batch_size": 90, "learning_rate": 0.3}),
        (X[:30], ONE_HOT[:30], {"batch_size": 30, "learning_rate": 0.1}),
    ]
    nets = [network("softmax") for _ in runs]
    for net, (x, y, options) in zip(nets, runs, strict=True):
        net.fit(x, y, epochs=3, shuffle=False, optimizer="sgd", **options)
    doubled, single, some, few = (net.graph.parameters for net in nets)
    assert doubled.tobytes() == single.tobytes()
    np.testing.assert_allclose(some, few, rtol=1e-4, atol=1e-6)


def test_logits_of_any_size(sweep):
    model = model_of_inputs(1, "binary_cross_entropy")
    x = np.array([[1e30], [1e30], [-1e30], [-1e30], [0]], np.float32)
    np.testing.assert_array_equal(model.trace(x, [1, 0, 1, 0, 1], model.outputs).adjoints[:, 0], [0, 1, -1, 0, -0.5])
    assert model.evaluate(x[[0, 3]], [1, 0]) == {"loss": 0, "accuracy": 1}
    assert model.evaluate(x[[1, 2]], [0, 1]) == {"loss": pytest.approx(1e30), "accuracy": 0}
    np.testing.assert_array_equal(model.predict_proba(x)[:, 0], [1, 1, 0, 0, 0.5])
    model = model_of_inputs(2, "softmax_cross_entropy")
    for z, t in (([1000.1, 0], [1.3, 0]), ([1e38, 0], [10, 0])):
        assert model.evaluate(np.array([z], np.float32), [t])["loss"] == 0  # a certain class
    for size in (1.0, 3e7, 3e38):  # two equal classes
        x = np.full((1, 2), size, np.float32)
        for y in ([1], [[0.5, 0.5]]):
            assert model.evaluate(x, y)["loss"] == pytest.approx(np.log(2), rel=1e-6)
        np.testing.assert_array_equal(model.predict_proba(x), [[0.5, 0.5]])
        np.testing.assert_array_equal(model.trace(x, [1], model.outputs).adjoints, [[0.5, -0.5]])


def test_an_impossible_class_may_have_target_zero():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, [*g.add_inputs(2), g.add_constant(-np.inf)], "softmax_cross_entropy")
    x = np.array([[0.5, 1.0]], np.float32)
    assert model.evaluate(x, [[1, 0, 0]]) == model.evaluate(x, [0])
    assert model.evaluate(x, [[0.5, 0.25, 0.25]])["loss"] == np.inf


def test_an_infinite_loss_is_traced_to_the_class_that_causes_it():
    """Class 0 is the likeliest, but only what leads to class 1 is reported and cut."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(4, "relu")
    net.add_layer(2, "softmax")
    net.layers[0].weights = np.ones((4, 2))
    net.layers[1].weights = [[1, 1, 0, 0], [0, 0, -3e38, -3e38]]
    x, y = np.ones((8, 2), np.float32), np.full((8, 2), [0.6, 0.4])
    with pytest.raises(mlgraph.NonFiniteError, match=r"layer 1 neuron 1 is -inf in example 0 \(forward\)"):
        net.fit(x, y, epochs=1, shuffle=False)
    net.fit(x, y, epochs=1, on_nonfinite="disconnect", learning_rate=1e-30)
    assert all(neuron.alive for neuron in net.layers[0].neurons[:2])


def test_the_first_of_equal_classes_counts(sweep):
    """In outputs and in targets, as in predictions."""
    model = model_of_inputs(3, "softmax_cross_entropy")
    z = np.repeat([[0.0, 0.0, -1.0], [-1.0, 1.0, 1.0], [0.0, -1.0, 0.0], [1.0, 1.0, 1.0]], 10, axis=0)
    first, last = z.argmax(axis=1), 2 - z[:, ::-1].argmax(axis=1)
    np.testing.assert_array_equal(model.predict(z), first)
    for y, accuracy in ((first, 1), (last, 0), ((np.eye(3)[first] + np.eye(3)[last]) / 2, 1)):
        assert model.evaluate(z, y)["accuracy"] == accuracy


def test_a_probability_or_target_of_one_half_means_no(sweep):
    model = model_of_inputs(1, "binary_cross_entropy")
    x, y = np.array([[0.0], [0.0], [1.0], [-1.0]]), np.array([[0.0], [1.0], [0.5], [0.5]])
    assert [model.evaluate(x[[i]], y[[i]])["accuracy"] for i in range(4)] == [1, 0, 0, 1]
    assert model.predict([[0.0], [1e-30], [-1e-30]]).tolist() == [0, 1, 0]


def test_the_mean_loss_is_summed_in_float64():
    g = mlgraph.Graph()
    x = g.add_input()
    losses = np.array([[3e7]] + [[1.0]] * 1000, np.float32)
    assert mlgraph.Model(g, [x], x * 1).evaluate(losses)["loss"] == losses.mean(dtype=np.float64) != losses.mean()


@pytest.mark.parametrize("last", ["identity", "sigmoid", "relu"])
@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("labels", [False, True])
def test_mse_is_the_mean_over_the_outputs(sweep, tmp_path, last, outputs, labels):
    """And the squared error their sum; a saved network keeps either."""
    nets, y = [], LABELS % outputs if labels and outputs > 1 else SOFT[:, :outputs]
    for loss in ("squared_error", "mse"):
        nets.append(net := mlgraph.Network(6, seed=0))
        net.add_layer(8, "tanh")
        net.add_layer(outputs, last, loss=loss)
        assert net.loss == loss
    summed, mean = (net.evaluate(X, y) for net in nets)
    assert mean.pop("loss") == pytest.approx(summed.pop("loss") / outputs, rel=1e-6) and mean == summed
    adjoints = [net.trace(X, y, net.outputs).adjoints for net in nets]
    np.testing.assert_allclose(adjoints[1], adjoints[0] / outputs, rtol=1e-6)
    if not labels:
        np.testing.assert_allclose(
            nets[1].evaluate(X, y)["loss"], ((nets[1].forward(X) - y) ** 2).mean(dtype=np.float64), rtol=1e-5
        )
    nets[1].save(tmp_path / "net.npz")
    loaded = mlgraph.load(tmp_path / "net.npz")
    assert loaded.loss == "mse" and loaded.evaluate(X, y) == nets[1].evaluate(X, y)


def test_mse_belongs_to_numbers():
    with pytest.raises(ValueError, match="loss after softmax: expected softmax_cross_entropy, got 'mse'"):
        mlgraph.Network(6).add_layer(3, "softmax", loss="mse")
    assert model_of_inputs(2, "mse").evaluate([[1.0, 2.0]], [[2.0, 4.0]]) == {"loss": 2.5}


# --- values that are not finite -----------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("last", LAYERS)
def test_predict_refuses_nan_where_it_gives_classes(sweep, outputs, last):
    """A predicted number may be NaN; a predicted class or answer may not. Infinite outputs are accepted."""
    n = max(outputs, 2) if last == "softmax" else outputs
    model = model_of_inputs(n, LAYERS[last] or ("softmax_cross_entropy" if last == "softmax" else "squared_error"))
    x = RNG.normal(size=(70, n)).astype(np.float32)
    x[40, 0] = np.inf
    expected = {"softmax": x.argmax(axis=1), "sigmoid": (x > 0).astype(int), "identity": x}[last]
    np.testing.assert_array_equal(model.predict(x), expected[:, 0] if expected.shape[1:] == (1,) else expected)
    x[[41, 60], n - 1] = np.nan
    if last == "identity":
        np.testing.assert_array_equal(model.predict(x).reshape(70, n), x)
    else:
        with pytest.raises(ValueError, match=r"^predict: .*nan .*example 41\b"):
            model.predict(x)


@pytest.mark.parametrize("last", LAYERS)
def test_an_example_with_nan_outputs_is_not_right(last):
    net = network(last)
    x = np.full((40, 6), np.nan, np.float32)
    x[20:] = 1
    values = net.forward(x[20:21])[0]
    y = np.zeros((40, 3) if LAYERS[last] else 40, int)  # class 0, or no to all, where the outputs are NaN
    y[20:] = values > 0 if LAYERS[last] else values.argmax()
    assert [net.evaluate(x[half], y[half])["accuracy"] for half in (slice(20), slice(20, 40))] == [0, 1]
    scores = net.evaluate(x, y)
    assert scores["accuracy"] == 0.5 and np.isnan(scores["loss"])


# --- targets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "y", "message"),
    [
        ("sigmoid", ANSWERS[:, 0], r"expected shape \(90, 3\), got \(90,\)"),
        ("sigmoid", SOFT - 1, "expected numbers from 0 to 1, got -0."),
        ("sigmoid", ANSWERS * 2, "expected numbers from 0 to 1, got 2.0 in example 0, output 0"),
        ("softmax", -ONE_HOT, "expected targets of at least 0, got -1.0 in example 0, output "),
        ("softmax", ONE_HOT * 0 + 3e38, "expected targets .*sum .*float32 can hold, got inf in example 0"),
        ("softmax", ONE_HOT * 1e39, r"expected finite numbers that float32 can hold, got 1e\+39 in example 0, output"),
        ("softmax", ANSWERS[:, :1] / 1, r"expected integer labels .* of shape \(90, 1\); y.astype\(int\) may be them$"),
        ("softmax", LABELS / 1, r"expected integer labels .* float64 of shape \(90,\); y.astype\(int\) may be them$"),
        ("softmax", SOFT[:, :2], r"expected integer labels .* or targets of shape \(90, 3\), got .* \(90, 2\)$"),
        ("softmax", LABELS[:-1], "expected 90 labels, one for each example, got 89"),
        ("softmax", LABELS % 2 + 2, "expected labels from 0 to 2, got 2 to 3"),
        ("softmax", LABELS % 2 - 1, "expected labels from 0 to 2, got -1 to 0"),
        ("softmax", np.arange(90) % 5, "expected labels from 0 to 2, got 0 to 4; 5 different labels need 5 outputs$"),
        ("softmax", np.full(90, 2**63, np.uint64), "expected labels from 0 to 2, got 9223"),
        ("softmax", (), "expected labels or targets of 90 examples, got none"),
        ("softmax", ["a", "b"] * 45, "(expected 3 different labels, .*got 2, |expected numbers, got strings; )"),
        ("softmax", [np.zeros((2, 1)), np.zeros((2, 2))], "expected .*, got rows of different lengths$"),
        ("identity", LABELS / 1, r"expected shape \(90, 3\), got \(90,\)"),
        ("identity", SOFT * 1j, "expected numbers, got an array of complex128"),
        ("identity", SOFT.astype(object), r"expected numbers, .* object; astype\(int\) or astype\(float\) may make"),
    ],
)
def test_refused_targets(last, y, message):
    """By `fit` as by `evaluate`; nothing has changed."""
    assert ANSWERS[0, 0] == 1
    net = network(last)
    before = net.graph.parameters.tobytes()
    for method in (net.fit, net.evaluate):
        with pytest.raises((ValueError, TypeError), match=f"^y: {message}"):
            method(X, y)
    assert net.graph.parameters.tobytes() == before


def test_targets_of_one_output_and_of_a_validation_are_named():
    with pytest.raises(ValueError, match=r"^y: expected shape \(90,\) or \(90, 1\), got \(89,\)$"):
        network("identity", 1).evaluate(X, LABELS[:89])
    with pytest.raises(TypeError, match=r"^validation y: .* strings; the labels of y are numbers$"):
        network("softmax").fit(X, LABELS, validation_data=(X[:2], ["a", "b"]))


@pytest.mark.parametrize("none", [np.zeros(0), (), []], ids=repr)
def test_no_examples_need_no_targets(none):
    model = model_of_inputs(1, "binary_cross_entropy")
    assert model.trace(np.zeros((0, 1)), none).adjoints.shape[0] == 0


# --- layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "loss", "expected"),
    [
        ("tanh", "binary_cross_entropy", "sigmoid"),
        ("identity", "softmax_cross_entropy", "softmax"),
        ("softmax", "squared_error", "softmax_cross_entropy"),
        ("sigmoid", "hinge", "one of squared_error, mse, binary_cross_entropy"),
        ("tanh", 3, "squared_error or mse"),
    ],
)
def test_a_layer_refuses_a_loss_that_does_not_fit_its_activation(activation, loss, expected):
    net = network("identity")
    with pytest.raises(ValueError if isinstance(loss, str) else TypeError, match=rf"expected {expected}\b"):
        net.add_layer(2, activation, loss=loss)
    assert len(net.layers) == 2


def test_the_loss_of_a_sigmoid_layer_is_the_squared_error_by_default():
    net = mlgraph.Network(6, seed=0)
    net.add_layer(2, "sigmoid")
    assert net.loss == "squared_error"


@pytest.mark.parametrize("first", ["softmax", "sigmoid"])
def test_layers_of_probabilities_within_a_network(tmp_path, first):
    """The next layer reads probabilities, not logits; also after save and load, pruning and regrowing."""
    net = network(first, 5)
    net.add_layer(3, "softmax")
    net.save(tmp_path / "model.npz")
    loaded = mlgraph.load(tmp_path / "model.npz")
    loaded.prune(0.4, scope="layer")
    loaded.regrow(0.5, seed=1)
    for each in (net, loaded):
        e = np.exp(each.trace(X, nodes=each.layers[1].neurons).values.astype(np.float64))
        read = each.trace(X, nodes=np.array(each.layers[2].source_ids)).values
        np.testing.assert_allclose(read, e / (1 + e) if first == "sigmoid" else e / e.sum(1, keepdims=True), rtol=1e-4)
