"""The cross-entropy of a softmax whose targets are probabilities of the classes, or weights, instead of labels."""

import numpy as np
import pytest

import mlgraph

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6)).astype(np.float32)
SOFT = RNG.random((90, 3))
CLASSES = X[:, :3].argmax(axis=1)
ONE_HOT = np.eye(3)[CLASSES]


def classifier(seed=0):
    net = mlgraph.Network(6, seed=seed)
    net.add_layer(8, "tanh")
    net.add_layer(3, "softmax")
    return net


def test_probabilities_of_classes(sweep):
    """And weights: what a class should have may add up to anything."""
    net, p = classifier(), classifier().predict_proba(X).astype(np.float64)
    losses = -(SOFT * np.log(p)).sum(axis=1)
    accuracy = (p.argmax(axis=1) == SOFT.argmax(axis=1)).mean()
    assert net.evaluate(X, SOFT) == {
        "loss": pytest.approx(losses.mean(), rel=1e-5),
        "accuracy": pytest.approx(accuracy),
    }
    assert 0 < accuracy < 1
    traced = net.trace(X, SOFT)
    slope = np.stack([traced.adjoint(z) for z in net.layers[-1].neurons], axis=1)
    np.testing.assert_allclose(slope, SOFT.sum(axis=1, keepdims=True) * p - SOFT, atol=1e-6)
    table = net.ablation_table(net.layers[0], X, SOFT)
    scores = net.ablate(net.layers[0].neurons[2], X, SOFT)
    assert (table["loss"][2], table["accuracy"][2]) == (pytest.approx(scores["loss"]), scores["accuracy"])


@pytest.mark.parametrize(
    "y", [ONE_HOT, ONE_HOT.astype(np.uint8), ONE_HOT.astype(bool)], ids=["floats", "bytes", "truths"]
)
def test_certain_targets_are_labels(sweep, y):
    """To the bit, whatever the steps."""
    nets, options = [classifier(), classifier()], {"epochs": 3, "batch_size": (40, 7), "n_threads": 2}
    histories = [nets[0].fit(X, CLASSES, **options), nets[1].fit(X, y, **options)]
    assert nets[0].graph.parameters.tobytes() == nets[1].graph.parameters.tobytes()
    assert histories[0].batch_loss.tobytes() == histories[1].batch_loss.tobytes()
    assert histories[0].batch_accuracy.tobytes() == histories[1].batch_accuracy.tobytes()


def test_targets_of_twice_the_weight_are_a_rate_of_twice_the_size():
    nets = [classifier(), classifier()]
    for net, weight, rate in ((nets[0], 2, 0.05), (nets[1], 1, 0.1)):
        net.fit(X, weight * ONE_HOT, epochs=3, learning_rate=rate)
    assert nets[0].graph.parameters.tobytes() == nets[1].graph.parameters.tobytes()


def test_examples_without_weight_teach_nothing():
    y = ONE_HOT.copy()
    y[30:] = 0
    one, few = classifier(), classifier()
    one.fit(X, y, epochs=2, batch_size=90, shuffle=False, learning_rate=0.3)
    few.fit(X[:30], y[:30], epochs=2, batch_size=30, shuffle=False, learning_rate=0.1)
    np.testing.assert_allclose(one.graph.parameters, few.graph.parameters, rtol=1e-4, atol=1e-6)


def test_a_class_that_is_not_to_be_may_be_impossible():
    g = mlgraph.Graph()
    x = g.inputs(2)
    model = mlgraph.Model(g, [*x, g.constant(-np.inf)], "softmax_cross_entropy")
    given = np.array([[0.5, 1.0]], np.float32)
    assert model.evaluate(given, [[1, 0, 0]]) == model.evaluate(given, [0])
    assert model.evaluate(given, [[0.5, 0.25, 0.25]])["loss"] == np.inf


def test_a_certain_class_costs_nothing_at_any_height():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, g.inputs(2), "softmax_cross_entropy")
    for z, t in (([1000.1, 0], [1.3, 0]), ([1e38, 0], [10, 0])):
        assert model.evaluate(np.array([z], np.float32), [t])["loss"] == 0


def test_what_gives_an_infinite_loss_is_found_among_all_classes():
    """Not only behind the likeliest: nothing else is cut."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(4, "relu")
    net.add_layer(2, "softmax")
    net.layers[0].weights = np.ones((4, 2))
    net.layers[1].weights = [[1, 1, 0, 0], [0, 0, -3e38, -3e38]]
    x = np.ones((8, 2), np.float32)
    with pytest.raises(
        mlgraph.NonFiniteError, match=r"layer 1 neuron 1 is -inf in example 0 \(forward\): the bias is 0"
    ):
        net.fit(x, np.full((8, 2), [0.6, 0.4]), epochs=1, shuffle=False)
    net.fit(x, np.full((8, 2), [0.6, 0.4]), epochs=1, on_nonfinite="disconnect", learning_rate=1e-30)
    assert all(neuron.alive for neuron in net.layers[0].neurons[:2])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (-ONE_HOT, "expected targets of at least 0, got -1.0 in example 0, output "),
        (ONE_HOT * np.nan, "expected finite numbers that float32 can hold, got nan in example 0, output 0"),
        (ONE_HOT * 0 + 3e38, "expected targets of a sum that float32 can hold, got inf in example 0"),
        (ONE_HOT * 1e39, "expected finite numbers that float32 can hold, got 1e[+]39 in example 0, output "),
    ],
)
def test_targets_of_classes_that_are_none(y, message):
    with pytest.raises(ValueError, match=f"^y: {message}"):
        classifier().fit(X, y)
