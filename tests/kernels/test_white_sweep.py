"""Losses, gradients and updates of the sweeps equal those of the float64 reference."""

import copy

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from swept import check, data, gradient, layered

import mlgraph
from mlgraph.compiler.instructions import KINDS
from mlgraph.compiler.plan import Plan
from mlgraph.engine import choice, reference
from mlgraph.graph import ops
from mlgraph.graph.arrays import wiring
from mlgraph.models.running import engine_of

LAST = {"softmax": None, "sigmoid": "binary_cross_entropy", "tanh": None}
"""Activation of the last layer, and its loss where that is not the default."""


def batch(rng, kind, n, columns):
    """Examples of floats, or of bytes or floats that are mostly zero; the first example has no zero."""
    if kind == "float":
        return rng.normal(size=(n, columns)).astype(np.float32)
    x = rng.integers(1, 256, (n, columns)).astype(np.uint8)
    x[1:] *= rng.random((n - 1, columns)) < 0.2
    return x if kind == "bytes" else x / np.float32(-255)


@st.composite
def training_steps(draw):
    """A network and a step of its training; sizes lie around those of tiles, panels, lists and pieces of them.

    Neurons of a layer have all sources or some; groups of neurons have the same ones.
    """
    rng, share = np.random.default_rng(draw(st.integers(0, 99))), st.sampled_from([0, 0, 0.25, 0.8])
    columns, n = draw(st.sampled_from([1, 3, 63, 65, 130])), draw(st.sampled_from([1, 15, 16, 17, 33, 129]))
    last, outputs = draw(st.sampled_from([*LAST])), draw(st.sampled_from([2, 10, 20]))
    net = mlgraph.Network(columns, seed=0)
    for size in draw(st.lists(st.sampled_from([1, 7, 16, 17, 33, 70]), min_size=1, max_size=3)):
        net.add_layer(size, draw(st.sampled_from(ops.ACTIVATIONS)), dropout=draw(share), weight_dropout=draw(share))
    net.add_layer(outputs, last, loss=LAST[last])
    for layer in net.layers:
        density, together = draw(st.sampled_from([1, 1, 0.8, 0.3])), draw(st.sampled_from([1, 3, 4, 7]))
        mask = np.repeat(rng.random(layer.mask.shape) < density, together, axis=0)[: layer.size]
        mask[:, 1:] &= rng.random(mask.shape[1] - 1) < (0.9 if density < 1 else 1)
        mask[:, 0] = True  # every neuron has a source
        layer.mask, layer.biases = rng.permutation(mask), rng.normal(size=layer.size)
    y = rng.integers(0, outputs, n) if last == "softmax" and draw(st.booleans()) else rng.random((n, outputs))
    return net, batch(rng, draw(st.sampled_from(["bytes", "sparse floats", "float"])), n, columns), y


@settings(max_examples=2 * settings.default.max_examples)
@given(step=training_steps(), n_threads=st.integers(1, 3), seed=st.integers(0, 9))
def test_losses_gradients_and_predictions_of_any_network(sweep, step, n_threads, seed):
    net, x, y = step
    plan = check(net, x, y, n_threads=n_threads, seed=seed, step_number=seed)
    values = reference.forward(plan, net.graph.parameters, x)[plan.slot[net.output_ids]].T
    np.testing.assert_allclose(net.forward(x), values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("density", [0.5, 1])
@pytest.mark.parametrize("layers", [1, 2])
def test_outputs_that_feed_other_neurons(sweep, layers, density, loss):
    """The loss and one block or several give adjoints to the same nodes. A layer is wide."""
    rng, g = np.random.default_rng(0), mlgraph.Graph()

    def layer(nodes, n):
        chosen = [[node for node in nodes if rng.random() <= density] for _ in range(n)]
        return [g.add_neuron(some, "tanh", weights=rng.normal(size=len(some)) / len(some) ** 0.5) for some in chosen]

    narrow = layer(g.add_inputs(12), 21)
    wide = layer(narrow, 300)
    last = layer(wide if layers == 1 else narrow + wide, 10)
    early = wide[:6] if layers == 1 else narrow[:3] + wide[:3]
    x, labels = data(70, 12, 16, "float")
    plan = check(mlgraph.Model(g, early + last, loss), x, labels if loss[:2] == "so" else rng.random((70, 16)))
    assert (KINDS["rows"] in {ins.kind for ins in plan.instructions}) == (density < 1)


@pytest.mark.parametrize("sizes", [(48,), (100,), (129,), (33, 64, 3), (32, 1)], ids=str)
@pytest.mark.parametrize("sparsity", [0, 0.7])
def test_large_blocks_and_several_steps(sweep, monkeypatch, sparsity, sizes):
    """Blocks larger than the cache take several tiles at once. Steps do not read what others left in their lanes."""
    monkeypatch.setattr(choice, "WIDE", 1)
    net, (x, y) = layered((50, 33, 20, 10)), data(sum(sizes), 50, 10, "float")
    net.prune(sparsity)
    ends = np.cumsum(sizes)
    each = [gradient(net, x[b - n : b], y[b - n : b])[2] for b, n in zip(ends, sizes, strict=True)]
    np.testing.assert_allclose(gradient(net, x, y, sizes=sizes)[2], np.sum(each, axis=0), rtol=1e-5, atol=1e-6)
    check(net, x, y)


@pytest.mark.parametrize("batch_size", [1, 33, 130])
@pytest.mark.parametrize("columns", [1, 67, 200])
def test_bits_are_the_same_without_vbmi2(request, sweep, columns, batch_size):
    """Not every processor with AVX-512 has it; the others list the same entries with another kernel."""
    x, y = batch(np.random.default_rng(0), "bytes", 300, columns), np.arange(300) % 4
    request.addfinalizer(lambda: sweep.use_transpose(True))
    parameters = set()
    for fast in (True, False):
        sweep.use_transpose(fast)
        net = layered((columns, 20, 4))
        net.fit(x, y, epochs=2, batch_size=batch_size, n_threads=2)
        parameters.add(net.graph.get_parameters().tobytes())
    assert len(parameters) == 1


def updated(w, g, first, second, t, optimizer):
    """Parameters after a step of an optimizer, as its paper defines it; moments change in place."""
    if optimizer == "sgd":
        return w - 0.1 * g
    if optimizer == "momentum":
        first[:] = 0.9 * first + g
        return w - 0.1 * first
    first[:], second[:] = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
    return w - 0.01 * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)


@pytest.mark.parametrize("kind", ["float", "sparse"])
@pytest.mark.parametrize(
    ("columns", "size", "sparsity", "decay"), [(20, 32, 0, 0.5), (131, 32, 0.1, 0), (131, 1100, 0, 0)]
)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_optimizers(sweep, optimizer, columns, size, sparsity, decay, kind):
    """In every other step some columns are zero, so that momentum alone moves their weights."""
    net = layered((columns, 16, 4))
    x, y = data(2 * size, columns, 4, kind)
    x[size:, 4:16] = 0
    net.prune(sparsity, by="random")
    plan = Plan(net.graph, [*net.output_ids, *net.loss_ids])
    w, weights = net.graph.parameters.astype(np.float64), wiring(net.graph).place
    first, second, rate = np.zeros_like(w), np.zeros_like(w), 0.01 if optimizer == "adam" else 0.1
    for t in range(1, 11):
        half = slice(0, size) if t % 2 else slice(size, 2 * size)
        _, g = reference.step(plan, w, x[half], net.loss, plan.slot[net.loss_ids], label=y[half])
        w[weights] *= 1 - decay * rate
        w = updated(w, g, first, second, t, optimizer)
    kind, momentum = ("adam", 0.9) if optimizer == "adam" else ("sgd", 0.9 if optimizer == "momentum" else 0)
    options = {"optimizer": kind, "momentum": momentum}
    net.fit(x, y, epochs=5, batch_size=size, learning_rate=rate, weight_decay=decay, shuffle=False, **options)
    # Adam divides a gradient by its own size, so that rounding decides the step where the gradient is nearly zero.
    off = ~np.isclose(net.graph.parameters, w, rtol=1e-3, atol=1e-3 if optimizer == "adam" else 2e-5)
    assert off.mean() <= (0.005 if optimizer == "adam" else 0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_block_without_padding_stays_within_the_parameters(sweep, optimizer):
    """Weights of neurons written out are ordered as in a block, except for the padding of its last panel."""
    g = mlgraph.Graph(seed=0)
    x, weights = g.add_input(), [g.add_parameter(1.0) for _ in range(17)]
    model = mlgraph.Model(g, [g.add_operation("sum", w * x) for w in weights])
    values = np.random.default_rng(0).random((64, 1), np.float32)
    model.fit(values, np.tile(2 * values, (1, 17)), epochs=20, learning_rate=0.05, optimizer=optimizer)
    [block] = [ins for ins in engine_of(model).plan.instructions if ins.kind == KINDS["dense"]]
    assert all(block.weights + block.n_weights <= len(vector) for vector in g.storage.vectors().values())
    assert len({w.value for w in weights}) == 1 and weights[0].value > 1.1


def test_more_than_65536_columns(sweep):
    """Only weights of columns that are not zero everywhere move."""
    columns, rng = 70_000, np.random.default_rng(0)
    x = np.zeros((40, columns), np.float32)
    x[np.arange(40)[:, None], rng.integers(0, columns, (40, 200))] = rng.normal(size=(40, 200))
    x[:, -1] = 1
    net, y = layered((columns, 16, 3)), rng.integers(0, 3, 40)
    check(net, x, y)
    before = net.layers[0].weights
    net.fit(x, y, epochs=1, batch_size=40, momentum=0.0, shuffle=False)
    moved = (net.layers[0].weights != before).any(axis=0)
    assert moved[-1] and (moved == x.any(axis=0)).mean() > 0.999


def test_training_continues_after_an_infinite_loss(sweep):
    """In lanes without an example, adjoints of zero times infinite derivatives would be NaN and end the run."""
    rng, (x, y) = np.random.default_rng(0), data(32, 20, 4, "float")
    g = mlgraph.Graph(seed=0)
    inputs = g.add_inputs(20)
    rows = [g.add_neuron([inputs[k] for k in rng.permutation(20)[:5]], weights=rng.normal(size=5)) for _ in range(12)]
    outputs = [a * b + g.add_parameter(0.0) for a, b in zip(rows[:4], rows[4:8], strict=True)]
    model = mlgraph.Model(g, outputs, "softmax_cross_entropy")
    fresh = copy.deepcopy(model)
    assert not np.isfinite(model.evaluate(np.clip(x * 1e38, -3e38, 3e38), y)["loss"])
    for one in (fresh, model):
        one.fit(x[:7], y[:7], epochs=3, batch_size=7, learning_rate=0.01)
    np.testing.assert_array_equal(fresh.graph.parameters, model.graph.parameters)
