"""The C of a model reads the numbers of its data and answers as the model does."""

import re

import numpy as np
import pandas as pd
import pytest
from compiled import compiled

import mlgraph

RNG = np.random.default_rng(0)
COLUMNS = ["age", "height, cm", "year", "evil */ int main"]
X = np.column_stack(
    [RNG.uniform(1, 90, 400), RNG.normal(170, 10, 400), RNG.integers(1990, 2020, 400), RNG.normal(0, 1e-3, 400)]
)
KINDS = np.array(["child", "adult", "old"])[np.digitize(X[:, 0], [18, 65])]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Compile the C of a model; return it as a function of a batch."""
    folder = tmp_path_factory.mktemp("c")

    def build(model, calibrate=None):
        n = len(model.outputs)
        if calibrate is None:
            call = compiled(folder, model.to_c("f"), "f", n, np.float32)
            return lambda x: call(np.asarray(x, np.float32))
        return compiled(folder, model.to_c("f", dtype="int8", calibrate=calibrate), "f", n, np.int32, "-Wconversion")

    return build


def table(last="softmax", y=KINDS, epochs=30):
    """A network that has learnt from a frame whose columns differ in size."""
    net = mlgraph.Network(4, seed=0)
    net.add_layer(6, "tanh")
    net.add_layer(3 if last == "softmax" else 1, last, loss="binary_cross_entropy" if last == "sigmoid" else None)
    net.fit(pd.DataFrame(X, columns=COLUMNS), y, epochs=epochs, learning_rate=0.02, standardize=True, seed=0)
    return net


def named(text):
    """What the comment at the top says of the elements of x and y."""
    return re.findall(r"^   ([xy]\[\d+\]: .*)$", text[: text.index("*/")], re.MULTILINE)


def test_columns_are_scaled_and_named(build):
    net = table()
    assert net.evaluate(X, KINDS)["accuracy"] > 0.95
    np.testing.assert_allclose(build(net)(X), net.forward(X.astype(np.float32)), rtol=1e-4, atol=1e-5)
    columns = ['x[0]: "age"', 'x[1]: "height, cm"', 'x[2]: "year"', 'x[3]: "evil * / int main"']
    assert named(net.to_c()) == [*columns, 'y[0]: "adult"', 'y[1]: "child"', 'y[2]: "old"']


def test_only_columns_that_are_read_are_scaled(build):
    x = RNG.normal(np.arange(40) * 10, 1 + np.arange(40), (200, 40))
    net = mlgraph.Network(40, seed=0)
    net.add_layer(2)
    net.fit(x, np.zeros((200, 2)), epochs=1, standardize=True)
    kept = {net.graph.inputs[i].id for i in (3, 17, 39)}
    net.graph.prune([edge for neuron in net.outputs for edge in neuron.in_edges if edge.source.id not in kept])
    assert "columns[] = {\n    3, 17, 39,\n}" in net.to_c()
    np.testing.assert_allclose(build(net)(x), net.forward(x.astype(np.float32)), rtol=1e-4, atol=1e-5)


def test_a_deviation_is_written_to_its_last_digit(build):
    net = mlgraph.Network(1, seed=0)
    net.add_layer(1)
    net.scaling = [0.0], [1.234567890123]
    x = RNG.normal(size=(200, 1)).astype(np.float32)
    np.testing.assert_allclose(build(net)(x), net.forward(x), rtol=3e-7)


def test_bytes_are_divided_by_255(build):
    x = RNG.integers(0, 256, (300, 5)).astype(np.uint8)
    net = mlgraph.Network(5, seed=0)
    net.add_layer(1, "sigmoid", loss="binary_cross_entropy")
    net.fit(x, x[:, 0] > 100, epochs=3)
    assert "numbers from 0 to 255" in net.to_c() and "above 0 it means yes, else no" in net.to_c()
    np.testing.assert_allclose(build(net)(x), net.forward(x), rtol=1e-5, atol=1e-5)
    q = net.quantize(x)
    np.testing.assert_array_equal(q.encode(x), x)
    np.testing.assert_array_equal(build(net, x)(x), q.run(x))


def test_integers_read_the_numbers_of_the_data(build):
    net, frame = table(), pd.DataFrame(X, columns=COLUMNS)
    q = net.quantize(frame)
    assert np.mean(q(frame).argmax(axis=1) == net.forward(X).argmax(axis=1)) > 0.98
    np.testing.assert_array_equal(q(frame[COLUMNS[::-1]]), q(X))  # by name
    np.testing.assert_array_equal(build(net, frame)(q.encode(X)), q.run(q.encode(X)))
    # The comment tells how to make the bytes.
    text = net.to_c(dtype="int8", calibrate=X)
    zero = int(re.search(r"/ step\) \+ (\d+), clipped", text)[1])
    mean, step, least, most = np.array(
        re.findall(r"x\[\d\]: mean (\S+), step (\S+), from (\S+) to (\S+), ", text), float
    ).T
    by_hand = np.clip(np.rint((X - mean) / step) + zero, 0, 255)
    assert np.mean(by_hand == q.encode(X)) > 0.999 and np.abs(by_hand - q.encode(X)).max() <= 1
    np.testing.assert_allclose((least, most), (mean - zero * step, mean + (255 - zero) * step), rtol=1e-3)
    assert text == q.to_c("network") == net.quantize(frame).to_c("network")


def test_a_quantized_model_keeps_its_units():
    net = table(epochs=1)
    q = net.quantize(X)
    before = q(X)
    net.scaling, net.columns = "unscaled", None
    np.testing.assert_array_equal(q(X), before)


def test_without_a_scaling_the_data_decide_as_in_fit():
    x = RNG.integers(0, 256, (300, 2)).astype(np.uint8)
    net = mlgraph.Network(2, seed=0)
    net.add_layer(1)
    np.testing.assert_array_equal(net.quantize(x).encode(x), x)
    assert "/ 255" not in net.to_c()


def test_answers_are_explained():
    net = table("sigmoid", np.where(X[:, 0] > 40, 7, -1), epochs=1)
    assert "y[0] is a score: above 0 it means 7, else -1." in net.to_c()
    net = table("identity", X[:, 0] / 90, epochs=1)
    net.outputs[0].name = "share"
    assert [line for line in named(net.to_c()) if line[0] == "y"] == ['y[0]: "share"']
    bare = mlgraph.Network(2, seed=0)
    bare.add_layer(2, "softmax")
    comment = bare.to_c().partition("*/")[0]
    assert "y[i] is the score of class i; the largest is the answer." in comment and "x has the numbers of" in comment


def test_bad_arguments_are_refused():
    net = table(epochs=1)
    with pytest.raises(ValueError, match=r"^calibrate: integers need scales"):
        net.to_c(dtype="int8")
    with pytest.raises(ValueError, match=r'^calibrate: only dtype="int8"'):
        net.to_c(calibrate=X)
    with pytest.raises(ValueError, match=r"^name: expected a C identifier"):
        net.to_c("means")
    with pytest.raises(ValueError, match=r"^calibrate: expected shape"):
        net.quantize(X[:, :2])
    with pytest.raises(ValueError, match=r"^calibrate: expected finite numbers .* column 1 \(height, cm\)"):
        net.quantize(np.where(X > 80, np.nan, X))
    with pytest.raises(ValueError, match=r"^calibrate: expected the columns that the model was fitted with"):
        net.quantize(pd.DataFrame(X, columns=["a", "b", "c", "d"]))
    with pytest.raises(ValueError, match=r"^x: expected numbers, got nan"):
        net.quantize(X)(X * np.nan)
    with pytest.raises(TypeError, match=r"^x: "):
        net.quantize(X)([["a"] * 4])
