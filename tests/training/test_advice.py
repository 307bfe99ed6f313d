"""Warnings of targets out of reach, and of runs that diverge: they name the columns whose scale is to blame."""

import re
import warnings

import numpy as np
import pytest

import mlgraph

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
LABELS = X[:, :3].argmax(axis=1)
WIDE = X * [1, 30, 1, 1000]


def network(*layers):
    net = mlgraph.Network(4, seed=0)
    for layer in ((20, "relu"), *layers):
        net.add_layer(*layer)
    return net


def told(fit):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit()
    return [str(warning.message) for warning in found]


@pytest.mark.parametrize(
    ("activation", "targets", "text"),
    [
        ("relu", X[:, 0], r"y: outputs of relu are at least 0, and \d\d of 60 targets are not, for example -"),
        ("tanh", 50 * np.abs(X[:, 0]), r"y: outputs of tanh are from -1 to 1, and \d\d of 60 targets are not"),
        ("sigmoid", 2 + X[:, 0] ** 2, "y: outputs of sigmoid are from 0 to 1, and 60 of 60 targets are not"),
        ("elu", 5 * X[:, 0], r"y: outputs of elu are at least -1, and \d\d of 60 targets are not, for example -"),
        ("relu", np.abs(X[:, 0]), None),
        ("sigmoid", LABELS > 0, None),
        ("identity", 5 * X[:, 0], None),
    ],
)
def test_targets_out_of_reach(activation, targets, text):
    net = network((1, activation))
    if text is None:
        assert not told(lambda: net.fit(X, targets, epochs=1, learning_rate=1e-4))
    else:
        with pytest.warns(UserWarning, match=text) as found:
            net.fit(X, targets, epochs=1, learning_rate=1e-4)
        assert found[0].filename == __file__


def test_labels_for_outputs_without_softmax():
    with pytest.warns(UserWarning, match=r'y: labels .* squared error; add_layer\(3, "softmax"\) is made for labels'):
        network((3,)).fit(X, LABELS, epochs=1)


@pytest.mark.parametrize(
    ("x", "last", "y", "cause"),
    [
        (
            WIDE,
            (3, "softmax"),
            LABELS,
            r"columns 3 \(about .*\), 1 \(about .*\) of x are large: fit a new network with standardize=True, or put",
        ),
        (X, (1,), 1000 * X[:, 0], r"the targets are large \(about .*\): divide them"),
        (3 * X, (1,), 3 * X[:, 0], "a lower learning rate may help"),
    ],
)
def test_a_run_that_diverges_says_so_and_what_to_do(x, last, y, cause):
    for learning_rate in np.geomspace(0.01, 1e6, 60):  # the lowest at which it diverges
        net = network(last)
        try:
            found = told(lambda net=net, rate=learning_rate: net.fit(x, y, epochs=3, batch_size=20, learning_rate=rate))
        except mlgraph.NonFiniteError as error:
            found = [str(error)]
        found = [text for text in found if "which slows learning" not in text]
        if found:
            break
    (text,) = found
    assert re.search(cause, text), text


def test_going_on_from_an_easy_batch_is_no_divergence():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4)).astype(np.float32)
    y = (x[:, 0] + rng.normal(0, 0.3, 400) > 0).astype(int)
    easy = np.argsort(-np.abs(x[:, 0]))  # the first batch has the clearest examples
    x, y = x[easy], y[easy]
    net = network((2, "softmax"))
    net.fit(x, y, epochs=30)
    assert not told(lambda: net.fit(x, y, epochs=1, batch_size=8, shuffle=False))
    assert net.history.batch_loss[0] < net.history.epoch_loss[-1] / 10  # the test sees what it is for


def test_a_loss_that_is_negative_does_not_diverge_by_rising_towards_zero():
    g = mlgraph.Graph(seed=0)
    w = g.add_parameter(1.0)
    model = mlgraph.Model(g, [w * g.add_input()], loss=-mlgraph.exp(-w * w))
    assert not told(lambda: model.fit(np.ones((4, 1)), epochs=2, learning_rate=-0.0))


@pytest.mark.filterwarnings("ignore:the numbers in column")
def test_a_nonfinite_error_names_the_columns():
    with pytest.raises(mlgraph.NonFiniteError, match=r"column 3 \(about .*\) of x are large"):
        network((1,)).fit(X * [1, 1, 1, 1e6], X[:, 0], learning_rate=1.0, optimizer="sgd", epochs=10, batch_size=128)


SLOW = r"^the numbers in column 3 \(about [\de+.]+\) of x are large, which slows learning; fit a new network with st"


def test_large_columns_are_told_before_the_first_run():
    net = network((3, "softmax"))
    with pytest.warns(UserWarning, match=SLOW) as found:
        net.fit(WIDE, LABELS, epochs=1)
    assert found[0].filename == __file__ and len(found) == 1
    assert not told(lambda: net.fit(WIDE, LABELS, epochs=1))  # it can no longer be changed
    assert not told(lambda: network((3, "softmax")).fit(WIDE, LABELS, epochs=1, standardize=True))
    assert not told(lambda: network((3, "softmax")).fit(X * [1, 30, 1, 40], LABELS, epochs=1))
    chosen = network((3, "softmax"))
    chosen.scaling = "unscaled"
    assert not told(lambda: chosen.fit(WIDE, LABELS, epochs=1))


def test_numbers_that_look_like_bytes_are_told_once():
    x = RNG.integers(0, 256, (60, 4)).astype(float)
    (text,) = told(lambda: network((3, "softmax")).fit(x, LABELS, epochs=1))
    assert "divide" in text and "255" in text


def test_targets_among_the_columns_are_no_large_inputs():
    g = mlgraph.Graph(seed=0)
    x, y = g.add_inputs(2)
    output = g.add_neuron([x])
    model = mlgraph.Model(g, [output], loss=(output - y) ** 2)
    assert not told(lambda: model.fit(X[:, :2] * [1, 100], epochs=1, learning_rate=1e-9))
