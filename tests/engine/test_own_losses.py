"""Losses that users write as nodes: where their targets come from, and outputs that the loss does not read."""

import numpy as np
import pytest

import mlgraph

X = np.random.default_rng(0).normal(size=(90, 6)).astype(np.float32)


def weighted(n):
    """A model of n columns whose loss reads two targets."""
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(n)
    hidden = [g.add_neuron(x, "tanh", weights=w) for w in np.random.default_rng(1).normal(size=(3, n))]
    out = g.add_neuron(hidden, weights=[0.5, -1.0, 2.0])
    target, weight = g.add_inputs(2)
    return mlgraph.Model(g, out, weight * (out - target) ** 2)


@pytest.mark.parametrize("images", [False, True])
def test_y_equals_the_last_columns_of_x(images):
    """Every method gives the same for (x, y) as for x with the columns of y appended, and y is not divided by 255."""
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 256, (40, 4), np.uint8) if images else X[:40, :4]), rng.integers(0, 2, (40, 2), np.uint8)
    whole = np.c_[x / np.float32(255) if images else x, y].astype(np.float32)
    model, other = weighted(4), weighted(4)
    assert model.evaluate(x, y) == other.evaluate(whole) == other.evaluate(whole, ()) == other.evaluate(whole, [])
    neurons = model.graph.neurons().node.astype(np.int32)
    for read in (
        lambda model, *data: np.c_[(traced := model.trace(*data)).values, traced.adjoints],
        lambda model, *data: np.r_[(found := model.gradients(*data)).flat, found.inputs.ravel()],
        lambda model, *data: np.array(model.inspect(*data).tolist()),
        lambda model, *data: np.array(model.ablation_table(neurons[:3], *data).tolist()),
        lambda model, *data: model.ablate(neurons[:1], *data)["loss"],
        lambda model, x, y: model.draw(x[0], y[0] if len(y) else ()).to_dot(),
    ):
        np.testing.assert_array_equal(read(model, x, y), read(other, whole, ()))
    for m, data in ((model, (x, y.tolist())), (other, (whole, ()))):
        m.prune(0.3, by="saliency", data=data)
        m.fit(*data, epochs=3, validation_data=data, sparsify=mlgraph.GradualPruning(0.5, by="saliency"))
    for losses in ("epoch_loss", "validation_loss"):
        assert getattr(model.history, losses).tolist() == getattr(other.history, losses).tolist()
    np.testing.assert_array_equal(model.graph.get_parameters(), other.graph.get_parameters())


@pytest.mark.parametrize("validation", [False, True])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[:, :1], X[:, 0], r"x and y: expected shape \(examples, 3\), got \(90, 2\)"),
        (X[:, :1], X[:5, :2], r"y: expected shape \(90, targets\), got \(5, 2\)"),
        (X[0, 0], X[:, :2], r"x: expected shape \(examples, inputs\), got \(\)"),
        (X[:, :1], X[:, :2, None], r"y: expected shape \(90, targets\), got \(90, 2, 1\)"),
        (X[:, :1], None, "y: expected numbers, got None"),
        (X[:, :1], (), r"x: expected shape \(examples, 3\), got \(90, 1\); .* y$"),
        (X[:, :4], (), r"x: expected shape \(examples, 3\), got \(90, 4\)$"),
        (X[:, :1], np.full((90, 2), 1e39), "x and y: expected finite numbers that .* hold, got inf .* column 1"),
    ],
)
def test_data_that_do_not_fit_the_loss(x, y, message, validation):
    data = (X[:, :1], X[:, :2]) if validation else (x, y)
    with pytest.raises((TypeError, ValueError), match=f"^{'validation ' * validation}{message}"):
        weighted(1).fit(*data, epochs=1, validation_data=(x, y) if validation else None)


def test_no_examples():
    model = weighted(1)
    for data in ((np.zeros((0, 1)), np.zeros((0, 2))), (np.zeros((0, 3)), ())):
        assert model.trace(*data, model.outputs).adjoints.shape == (0, 1)
        with pytest.raises(ValueError, match=r"^x( and y)?: expected at least one example, got none$"):
            model.fit(*data)


def test_unit_warnings_are_about_x_only():
    model, bits = weighted(2), np.tile(np.eye(2, dtype=np.uint8), (20, 1))
    model.fit(bits * 200, bits, epochs=1)
    other = weighted(2)
    other.fit(bits, bits * 255, epochs=1, learning_rate=1e-9)
    with pytest.warns(UserWarning, match="^x: whole numbers from 0 to 255"):
        other.evaluate(bits * 255.0, bits / 2)


@pytest.mark.parametrize("n", [1, 12])
def test_an_output_that_the_loss_does_not_read_may_be_nan(sweep, n):
    """Gradients are as without it. A run refuses such data, since the output's own weights would have no gradient."""
    g = mlgraph.Graph(seed=0)
    h = g.add_neuron([g.add_input()], "tanh", weights=[1.0])
    high = mlgraph.exp(1000 * h)
    alone = mlgraph.Model(g, h, loss=(h - 1) ** 2)
    outputs = [g.add_neuron([high, h], "tanh", weights=[0.0, 1.0]) for _ in range(n)]
    model = mlgraph.Model(g, outputs, loss=g[alone.loss_ids[0]])
    x = [[0.05], [1.0]]
    assert np.isnan(model.forward(x)[1]).all()
    gradients, expected = model.gradients(x), alone.gradients(x)
    assert gradients.of(h).tolist() == expected.of(h).tolist() and expected.of(h).all()
    assert gradients.inputs.tolist() == expected.inputs.tolist() == (model.trace(x, (), [g[0]]).adjoints / 2).tolist()
    with pytest.raises(mlgraph.NonFiniteError, match=rf"^epoch 1, step 1: exp n{high.id} is inf in example 1"):
        model.fit(x, epochs=1)


def test_an_output_that_the_loss_does_not_read_may_have_an_infinite_derivative(sweep):
    """0 times infinity would be NaN. The loss reads another operation of the same kind and level."""
    g = mlgraph.Graph(seed=0)
    h = g.add_neuron([g.add_input()], "tanh", weights=[1.0])
    model = mlgraph.Model(g, mlgraph.sqrt(h), loss=(mlgraph.sqrt(h + 2) - 1) ** 2)
    alone = mlgraph.Model(g, mlgraph.sqrt(h + 2), loss=g[model.loss_ids[0]])
    x = [[-1.0], [0.0]]
    gradients, expected = model.gradients(x), alone.gradients(x)
    assert np.isfinite(expected.flat).all() and expected.flat.all()
    assert gradients.flat.tolist() == expected.flat.tolist()
    assert gradients.inputs.tolist() == expected.inputs.tolist()
    before = g.get_parameters()
    model.fit(x, epochs=1, batch_size=2, learning_rate=0.5, momentum=0, optimizer="sgd")
    np.testing.assert_allclose(g.get_parameters(), before - 0.5 * expected.flat, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 12])
@pytest.mark.parametrize("bias", [0.5, None])
def test_nan_values_of_neurons_that_the_loss_does_not_read(sweep, n, bias):
    """They have the same sources as neurons that the loss does read, and must not hand NaN to these."""
    g = mlgraph.Graph()
    x, rng = g.add_inputs(3), np.random.default_rng(0)
    read = [g.add_neuron(x, "tanh", weights=w, bias=0.5) for w in rng.normal(size=(n, 3))]
    others = [g.add_neuron(x, "tanh", weights=[np.inf, -np.inf, 1.0], bias=bias) for _ in range(n)]
    loss = mlgraph.sum(*(node**2 for node in read))
    alone, model = mlgraph.Model(g, read, loss=loss), mlgraph.Model(g, others + read, loss=loss)
    gradients, expected = model.gradients(X[:, :3]), alone.gradients(X[:, :3])
    np.testing.assert_allclose(gradients.inputs, expected.inputs, rtol=1e-5, atol=1e-8)
    for node in read:
        np.testing.assert_allclose(gradients.of(node), expected.of(node), rtol=1e-5, atol=1e-7)
