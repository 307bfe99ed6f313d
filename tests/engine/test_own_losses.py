"""Losses of one's own, which are nodes: where their targets come from, and outputs that they do not read."""

import tracemalloc

import numpy as np
import pytest

import mlgraph
from mlgraph.engine.losses import with_targets

X = np.random.default_rng(0).normal(size=(90, 6)).astype(np.float32)


def weighted(n):
    """A model of n columns whose loss reads two targets."""
    g = mlgraph.Graph()
    x = g.inputs(n)
    hidden = [g.add_neuron(x, "tanh", weights=w) for w in np.random.default_rng(1).normal(size=(3, n))]
    out = g.add_neuron(hidden, weights=[0.5, -1.0, 2.0])
    target, weight = g.inputs(2)
    return mlgraph.Model(g, out, weight * (out - target) ** 2)


@pytest.mark.parametrize("images", [False, True])
def test_targets_are_the_last_columns(images):
    """Given by themselves they are what they are as columns of the data, and nothing divides them by 255."""
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 256, (40, 4), np.uint8) if images else X[:40, :4]), rng.integers(0, 2, (40, 2), np.uint8)
    whole = np.c_[x / np.float32(255) if images else x.astype(np.float32), y].astype(np.float32)
    model, other = weighted(4), weighted(4)
    assert model.evaluate(x, y) == other.evaluate(whole) == other.evaluate(whole, ()) == other.evaluate(whole, [])
    neurons = model.graph.neurons().node.astype(np.int32)
    for read in (
        lambda model, *data: np.c_[(traced := model.trace(*data)).values, traced.adjoints],
        lambda model, *data: np.r_[(found := model.gradients(*data)).flat, found.inputs.ravel()],
        lambda model, *data: np.array(model.inspect(*data).tolist()),
        lambda model, *data: np.array(model.ablation_table(neurons[:3], *data).tolist()),
        lambda model, *data: model.ablate(neurons[:1], *data)["loss"],
    ):
        np.testing.assert_array_equal(read(model, x, y), read(other, whole, ()))
    assert model.draw(x[0], y[0]).to_dot() == other.draw(whole[0], ()).to_dot()
    model.prune(0.3, by="saliency", data=(x, y))
    other.prune(0.3, by="saliency", data=(whole, ()))
    histories = [
        m.fit(*data, epochs=3, batch_size=8, validation=data, sparsify=mlgraph.GradualPruning(0.5, by="saliency"))
        for m, data in ((model, (x, y.tolist())), (other, (whole, ())))
    ]
    assert histories[0].epoch_loss.tolist() == histories[1].epoch_loss.tolist()
    assert histories[0].validation_loss.tolist() == histories[1].validation_loss.tolist()
    np.testing.assert_array_equal(model.graph.get_parameters(), other.graph.get_parameters())


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[:, :2], X[:, :2], r"x and y: expected shape \(examples, 3\), got \(90, 4\)"),
        (X[:, :1], X[:, 0], r"x and y: expected shape \(examples, 3\), got \(90, 2\)"),
        (X[:, :1], X[:5, :2], r"y: expected shape \(90, targets\), got \(5, 2\)"),
        (X[0, 0], X[:, :2], r"x: expected shape \(examples, inputs\), got \(\)"),
        (X[:, 0], X[:, :2], r"x: expected shape \(examples, inputs\), got \(90,\)"),
        (X[:, :1, None], X[:, :2], r"x: expected shape \(examples, inputs\), got \(90, 1, 1\)"),
        (X[:, :1], X[:, :2, None], r"y: expected shape \(90, targets\), got \(90, 2, 1\)"),
        (X[:5, :1], X[:, :2], r"y: expected shape \(5, targets\), got \(90, 2\)"),
        (X[:, :1], 3, r"y: expected shape \(90, targets\), got \(\)"),
        (X[:, :1], None, "y: expected numbers, got None"),
        (X[:, :1], (), r"x: expected shape \(examples, 3\), got \(90, 1\); what the loss compares with may be y$"),
        (X[:, 0], (), r"x: expected shape \(examples, 3\), got \(90,\)$"),
        (X[:, :4], (), r"x: expected shape \(examples, 3\), got \(90, 4\)$"),
        (
            X[:, :1],
            np.full((90, 2), 1e39),
            r"x and y: expected finite numbers that float32 can hold, got inf .* column 1",
        ),
    ],
)
def test_targets_that_are_none_of_the_loss(x, y, message):
    model = weighted(1)
    before = model.graph.get_parameters()
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        model.fit(x, y, epochs=1)
    np.testing.assert_array_equal(model.graph.get_parameters(), before)


def test_targets_of_no_examples_are_none():
    g = mlgraph.Graph()
    x, t = g.inputs(2)
    z = g.add_neuron([x], weights=[1.0])
    model = mlgraph.Model(g, z, (z - t) ** 2)
    for data in ((np.zeros((0, 1)), np.zeros(0)), (np.zeros((0, 1)), np.zeros((0, 1))), (np.zeros((0, 2)), ())):
        assert model.trace(*data, [x, z]).adjoints.shape == (0, 2)
        with pytest.raises(ValueError, match=r"^x( and y)?: expected at least one example, got none$"):
            model.fit(*data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X[:, :1], X[:5, :2]), r"y: expected shape \(90, targets\), got \(5, 2\)"),
        ((X[0, 0], X[:, :2]), r"x: expected shape \(examples, inputs\), got \(\)"),
        ((None, X[:, :2]), "x: expected numbers, got None"),
        ((X[:, :1], None), "y: expected numbers, got None"),
        ((X[:, :1], X), r"x and y: expected shape \(examples, 3\), got \(90, 7\)"),
        ((X[:, :1], ()), r"x: expected shape \(examples, 3\), got \(90, 1\); .* may be validation y$"),
    ],
)
def test_validation_without_the_targets_of_the_loss(data, message):
    with pytest.raises((TypeError, ValueError), match=f"^validation {message}"):
        weighted(1).fit(X[:, :1], X[:, :2], epochs=1, validation=data)


def test_units_are_of_data_and_not_of_targets():
    model, bits = weighted(2), np.tile(np.eye(2, dtype=np.uint8), (20, 1))
    model.fit(bits * 200, bits, epochs=1)
    with pytest.warns(UserWarning, match="^x: bytes are read as byte / 255, and all of these are 0 or 1"):
        model.fit(bits, bits * 2, epochs=1)
    with pytest.warns(UserWarning, match="^x: these are whole numbers from 0 to 255"):
        model.evaluate(bits * 255.0, bits / 2)


@pytest.mark.parametrize("n", [1, 12])
@pytest.mark.parametrize("written", [False, True])
def test_an_output_that_the_loss_does_not_read_may_be_nan(sweep, n, written):
    """The rest of the gradient is what it is without it; that of the output's own weights is not, and a run says why."""
    g = mlgraph.Graph()
    h = g.add_neuron([g.input()], "tanh", weights=[1.0])
    high = mlgraph.exp(1000 * h)
    alone = mlgraph.Model(g, h, loss=(h - 1) ** 2)
    if written:
        outputs = [mlgraph.tanh(g.parameter(0.0) * high + g.parameter(1.0) * h) for _ in range(n)]
    else:
        outputs = [g.add_neuron([high, h], "tanh", weights=[0.0, 1.0]) for _ in range(n)]
    model = mlgraph.Model(g, outputs, loss=g[alone.loss_ids[0]])
    x = [[0.05], [1.0]]
    assert np.isnan(model.forward(x)[1]).all()
    gradients, expected = model.gradients(x), alone.gradients(x)
    assert gradients.of(h).tolist() == expected.of(h).tolist() and expected.of(h).all()
    assert gradients.inputs.tolist() == expected.inputs.tolist() == (model.trace(x, (), [g[0]]).adjoints / 2).tolist()
    with pytest.raises(
        mlgraph.NonFiniteError, match=rf"^epoch 0, step 0: exp n{high.id} is inf in example 1 \(forward\): exp"
    ):
        model.fit(x, epochs=1)


def test_an_output_that_the_loss_does_not_read_may_have_an_infinite_derivative(sweep):
    """It is none of the loss's, and 0 times infinity would be NaN; an operation that the loss does read stands beside it."""
    g = mlgraph.Graph()
    h = g.add_neuron([g.input()], "tanh", weights=[1.0])
    square = mlgraph.Model(g, mlgraph.sqrt(h), loss=(mlgraph.sqrt(h + 2) - 1) ** 2)
    alone = mlgraph.Model(g, mlgraph.sqrt(h + 2), loss=g[square.loss_ids[0]])
    x = [[-1.0], [0.0]]
    gradients, expected = square.gradients(x), alone.gradients(x)
    assert (
        gradients.flat.tolist() == expected.flat.tolist() and np.isfinite(expected.flat).all() and expected.flat.all()
    )
    assert gradients.inputs.tolist() == expected.inputs.tolist()
    before = g.get_parameters()
    square.fit(x, epochs=1, batch_size=2, learning_rate=0.5, momentum=0)
    np.testing.assert_allclose(g.get_parameters(), before - 0.5 * expected.flat, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_data_and_targets_are_copied_once(dtype):
    x, y = np.arange(2**20).reshape(2**12, 2**8).astype(dtype), np.arange(2**12)
    tracemalloc.start()
    values = with_targets(x, y, "")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1.2 * values.nbytes
    read = x.astype(np.float32) / np.float32(255) if dtype == np.uint8 else x
    np.testing.assert_array_equal(values, np.c_[read, y].astype(np.float32))


@pytest.mark.parametrize("n", [1, 12])
@pytest.mark.parametrize("bias", [0.5, None])
def test_neurons_that_the_loss_does_not_read_stand_apart(sweep, n, bias):
    """Of the same sources as those that it reads; with weights that are NaN they would hand NaN down to these."""
    g = mlgraph.Graph()
    x, rng = g.inputs(3), np.random.default_rng(0)
    read = [g.add_neuron(x, "tanh", weights=w, bias=0.5) for w in rng.normal(size=(n, 3))]
    others = [g.add_neuron(x, "tanh", weights=[np.nan] * 3, bias=bias) for _ in range(n)]
    loss = mlgraph.sum(*(node**2 for node in read))
    alone, model = mlgraph.Model(g, read, loss=loss), mlgraph.Model(g, others + read, loss=loss)
    np.testing.assert_allclose(model.forward(X[:, :3])[:, n:], alone.forward(X[:, :3]), rtol=1e-6)
    gradients, expected = model.gradients(X[:, :3]), alone.gradients(X[:, :3])
    np.testing.assert_allclose(gradients.inputs, expected.inputs, rtol=1e-5, atol=1e-8)
    for node in read:
        np.testing.assert_allclose(gradients.of(node), expected.of(node), rtol=1e-5, atol=1e-7)
