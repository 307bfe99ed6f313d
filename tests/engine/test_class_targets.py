"""Softmax cross-entropy with target probabilities or weights of the classes instead of labels."""

import numpy as np
import pytest

import mlgraph

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6)).astype(np.float32)
SOFT = RNG.random((90, 3))
CLASSES = X[:, :3].argmax(axis=1)
ONE_HOT = np.eye(3)[CLASSES]


def classifier():
    net = mlgraph.Network(6, seed=0)
    net.add_layer(8, "tanh")
    net.add_layer(3, "softmax")
    return net


def test_loss_accuracy_and_gradient(sweep):
    """The targets of an example need not sum to 1."""
    net, p = classifier(), classifier().predict_proba(X).astype(np.float64)
    loss = -(SOFT * np.log(p)).sum(axis=1).mean()
    accuracy = (p.argmax(axis=1) == SOFT.argmax(axis=1)).mean()
    assert net.evaluate(X, SOFT) == {"loss": pytest.approx(loss, rel=1e-5), "accuracy": pytest.approx(accuracy)}
    assert 0 < accuracy < 1
    adjoints = net.trace(X, SOFT, net.layers[-1].neurons).adjoints
    np.testing.assert_allclose(adjoints, SOFT.sum(axis=1, keepdims=True) * p - SOFT, atol=1e-6)
    table = net.ablation_table(net.layers[0], X, SOFT)
    scores = net.ablate(net.layers[0].neurons[2], X, SOFT)
    assert (table["loss"][2], table["accuracy"][2]) == (pytest.approx(scores["loss"]), scores["accuracy"])


@pytest.mark.parametrize("dtype", [float, np.uint8, bool])
def test_one_hot_targets_equal_labels_bit_for_bit(sweep, dtype):
    results = set()
    for y in (CLASSES, ONE_HOT.astype(dtype)):
        net = classifier()
        history = net.fit(X, y, epochs=3, batch_size=(40, 7), n_threads=2)
        losses, accuracies = history.batch_loss.tobytes(), history.batch_accuracy.tobytes()
        results.add((net.graph.parameters.tobytes(), losses, accuracies))
    assert len(results) == 1


def test_doubled_targets_act_as_a_doubled_learning_rate():
    nets = [classifier(), classifier()]
    for net, weight, rate in ((nets[0], 2, 0.05), (nets[1], 1, 0.1)):
        net.fit(X, weight * ONE_HOT, epochs=3, learning_rate=rate)
    assert nets[0].graph.parameters.tobytes() == nets[1].graph.parameters.tobytes()


def test_examples_with_zero_targets_add_nothing_to_the_gradient():
    y = ONE_HOT.copy()
    y[30:] = 0
    one, few = classifier(), classifier()
    one.fit(X, y, epochs=2, batch_size=90, shuffle=False, learning_rate=0.3)
    few.fit(X[:30], y[:30], epochs=2, batch_size=30, shuffle=False, learning_rate=0.1)
    np.testing.assert_allclose(one.graph.parameters, few.graph.parameters, rtol=1e-4, atol=1e-6)


def test_an_impossible_class_may_have_target_zero():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, [*g.inputs(2), g.constant(-np.inf)], "softmax_cross_entropy")
    x = np.array([[0.5, 1.0]], np.float32)
    assert model.evaluate(x, [[1, 0, 0]]) == model.evaluate(x, [0])
    assert model.evaluate(x, [[0.5, 0.25, 0.25]])["loss"] == np.inf


def test_the_loss_of_a_certain_class_is_zero_for_large_logits():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, g.inputs(2), "softmax_cross_entropy")
    for z, t in (([1000.1, 0], [1.3, 0]), ([1e38, 0], [10, 0])):
        assert model.evaluate(np.array([z], np.float32), [t])["loss"] == 0


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


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (-ONE_HOT, "expected targets of at least 0, got -1.0 in example 0, output "),
        (ONE_HOT * np.nan, "expected finite numbers that float32 can hold, got nan in example 0, output 0"),
        (ONE_HOT * 0 + 3e38, "expected targets .*sum .*float32 can hold, got inf in example 0"),
        (ONE_HOT * 1e39, "expected finite numbers that float32 can hold, got 1e[+]39 in example 0, output "),
    ],
)
def test_refused_targets(y, message):
    with pytest.raises(ValueError, match=f"^y: {message}"):
        classifier().fit(X, y)
