"""Losses and gradients of the sweeps equal those of the float64 reference."""

import os

import numpy as np
import pytest
from swept import check, data, gradient, layered

import mlgraph
from mlgraph.compiler.instructions import KINDS
from mlgraph.compiler.plan import Plan
from mlgraph.engine import choice, reference
from mlgraph.engine.examples import LARGE, Examples
from mlgraph.graph.arrays import wiring
from mlgraph.models.running import engine_of, read_with_targets

ACTIVATIONS = ("identity", "relu", "leaky_relu", "sigmoid", "tanh")


@pytest.mark.parametrize("kind", ["dense", "sparse", "float"])
@pytest.mark.parametrize("n", [1, 32, 33, 200])
def test_layers(sweep, kind, n):
    net = layered((50, 33, 20, 10))
    plan = check(net, *data(n, 50, 10, kind))
    assert {ins.kind for ins in plan.instructions} == {KINDS["dense"], KINDS["operation"]}


@pytest.mark.parametrize("n", [1, 33])
def test_class_targets(sweep, n):
    x, _ = data(n, 50, 10, "sparse")
    check(layered((50, 33, 10)), x, np.random.default_rng(1).random((n, 10)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(sweep, activation):
    check(layered((20, 17, 8), activation), *data(40, 20, 8, "float"))


@pytest.mark.parametrize("width", [1, 7, 16, 17, 31, 33, 100])
def test_widths(sweep, width):
    check(layered((width, width, width + 1, 3)), *data(37, width, 3, "sparse"))
    check(layered((width, width, 3), "relu"), *data(37, width, 3, "float"))


@pytest.mark.parametrize("width", [128, 300])
@pytest.mark.parametrize("read", ["once", "twice"])
def test_wide_layers(sweep, width, read):
    """Layers have more neurons and sources than a dense block processes at a time."""
    rng, g = np.random.default_rng(width), mlgraph.Graph()

    def layer(nodes, n):
        return [g.add_neuron(nodes, "tanh", weights=rng.normal(size=len(nodes)) / len(nodes) ** 0.5) for _ in range(n)]

    narrow = layer(g.inputs(9), 21)
    wide = layer(narrow, width)
    model = mlgraph.Model(g, layer(narrow + wide if read == "twice" else wide, 10), "softmax_cross_entropy")
    plan = check(model, *data(37, 9, 10, "float"))
    assert KINDS["rows"] not in {ins.kind for ins in plan.instructions}


@pytest.mark.parametrize("n", [1, 5, 8, 9, 16, 17])
@pytest.mark.parametrize("width", [1, 33, 130])
def test_bits_do_not_depend_on_the_number_of_examples(sweep, monkeypatch, n, width):
    """Values and derivatives have the same bits with the kernels for few examples; the gradient is checked, too."""
    monkeypatch.setattr(choice, "FEW", 0)  # kernels that skip zeros would add in another order
    rng = np.random.default_rng(width)
    net = layered((40, width, width + 5, 130, 10), last="identity")
    f, x = net.graph.compile([*net.outputs, *net.layers[1].neurons]), rng.normal(size=(70, 40)).astype(np.float32)
    values, derivatives = f(x), f.vjp(x).inputs
    for first in (0, 29):
        some = slice(first, first + n)
        assert f(x[some]).tobytes() == values[some].tobytes()
        assert f.vjp(x[some]).inputs.tobytes() == derivatives[some].tobytes()
    check(net, x[:n], rng.normal(size=(n, 10)))


@pytest.mark.parametrize("n", [1, 15, 17])
def test_small_steps_ignore_lanes_of_larger_ones(sweep, n):
    """Kernels for few examples use some lanes of a slot. The others hold values of an earlier step."""
    net = layered((40, 30, 20, 10))
    x, y = data(32 + n, 40, 10, "float")
    alone = [gradient(net, x[some], y[some])[2] for some in (slice(32), slice(32, None))]
    both = gradient(net, x, y, sizes=[32, n])[2]
    np.testing.assert_allclose(both, alone[0] + alone[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("density", [0.5, 1])
@pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy", "binary_cross_entropy"])
def test_outputs_that_feed_other_neurons(sweep, density, loss):
    """The loss and a block both give adjoints to the same neurons."""
    rng, g = np.random.default_rng(0), mlgraph.Graph()

    def layer(nodes, n):
        chosen = [[node for node in nodes if rng.random() <= density] for _ in range(n)]
        return [g.add_neuron(some, "tanh", weights=rng.normal(size=len(some)) / 4) for some in chosen]

    hidden = layer(layer(g.inputs(12), 18), 17)
    x, y = data(70, 12, 6, "float")
    model = mlgraph.Model(g, [*hidden[:3], *layer(hidden, 3)], loss)
    check(model, x, y if loss == "softmax_cross_entropy" else rng.random((70, 6)))


def scattered(n_inputs, n_hidden, n_outputs, seed=0, activations=ACTIVATIONS):
    """A graph without layers: each neuron has its own sources, some of them shared, some far back."""
    rng = np.random.default_rng(seed)
    g = mlgraph.Graph()
    nodes = g.inputs(n_inputs)
    for i in range(n_hidden):
        k = int(rng.integers(1, min(len(nodes), 40) + 1))
        sources = [nodes[j] for j in rng.choice(len(nodes), k, replace=False)]
        nodes.append(
            g.add_neuron(
                sources,
                activations[int(rng.integers(len(activations)))],
                weights=rng.normal(size=k) / k**0.5,
                bias=None if i % 3 == 0 else rng.normal(),
            )
        )
    last = nodes[-20:]
    outputs = [g.add_neuron(last, weights=rng.normal(size=len(last))) for _ in range(n_outputs)]
    return mlgraph.Model(g, outputs, "softmax_cross_entropy")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["sparse", "float"])
def test_any_topology(sweep, seed, kind):
    plan = check(scattered(12, 60, 4, seed), *data(45, 12, 4, kind, seed))
    assert KINDS["rows"] in {ins.kind for ins in plan.instructions}


@pytest.mark.parametrize("kind", ["dense", "sparse", "float"])
@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5},
        {"dropout": 0.3},
        {"weight_dropout": 0.5},
        {"weight_dropout": 0.3},
        {"dropout": 0.25, "weight_dropout": 0.75},
    ],
    ids=str,
)
def test_dropout(sweep, kind, options):
    """The derivative of tanh follows from its value, which dropout scales."""
    net = layered((30, 20, 18, 5), "tanh", **options)
    x, y = data(150, 30, 5, kind)
    check(net, x, y, seed=3, step_number=7)
    one, other = (gradient(net, x, y, seed=3, step_number=k)[2] for k in (7, 8))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("width", [5, 16, 33, 70])
@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("n", [8, 128, 129])
def test_one_dropout_mask_for_up_to_128_examples(sweep, width, share, n):
    net = layered((30, width, 5), dropout=share)
    check(net, *data(n, 30, 5, "sparse"), seed=1, step_number=2)


def test_squared_error(sweep):
    check(layered((9, 12, 3), last="tanh"), *data(50, 9, 3, "float"))


@pytest.mark.parametrize("n", [1, 33])
@pytest.mark.parametrize("questions", [1, 20])
def test_binary_cross_entropy(sweep, n, questions):
    net = mlgraph.Network(9, seed=0)
    net.add_layer(12, "tanh", dropout=0.25)
    net.add_layer(questions, "sigmoid", loss="binary_cross_entropy")
    answers = np.random.default_rng(n).random((n, questions))
    check(net, data(n, 9, 1, "float")[0], np.where(answers > 0.7, 1, np.where(answers < 0.3, 0, answers)))


@pytest.mark.parametrize("kind", ["sparse", "float", "sparse float"])
@pytest.mark.parametrize("columns", [1, 3, 63, 65, 130, 200])
def test_sparse_data_of_any_width(sweep, kind, columns):
    """Nonzeros are listed by runs of 4 columns, for 64 columns and 128 examples at a time."""
    net = layered((columns, 20, 4))
    x, y = data(300, columns, 4, "sparse" if kind == "sparse float" else kind)
    if kind == "sparse float":
        x = x / np.float32(-255)
    x[0] += x[0] == 0  # an example without zeros
    check(net, x, y)
    check(net, x, y, n_threads=3)  # more threads than panels


@pytest.mark.parametrize("batch", [1, 33, 130])
@pytest.mark.parametrize("columns", [1, 63, 67, 200])
def test_bits_are_the_same_without_vbmi2(request, sweep, columns, batch):
    """Not every processor with AVX-512 has it; the others list the same entries with another kernel."""
    x, y = data(300, columns, 4, "sparse")
    x[0] += x[0] == 0
    request.addfinalizer(lambda: sweep.use_transpose(True))
    parameters = []
    for fast in (True, False):
        sweep.use_transpose(fast)
        net = layered((columns, 20, 4))
        net.fit(x, y, epochs=2, batch_size=batch, n_threads=2)
        parameters.append(net.graph.get_parameters().tobytes())
    assert parameters[0] == parameters[1]


@pytest.mark.parametrize("n", [0, 1, 16, 31, 65])
def test_are_finite_finds_a_single_value(sweep, n):
    x = np.full(n, np.finfo(np.float32).max)
    assert sweep.are_finite(x, np.array([[0, n]]))
    for i in range(n):
        for value in (np.nan, np.inf, -np.inf):
            other = x.copy()
            other[i] = value
            assert not sweep.are_finite(other, np.array([[0, 0], [0, n]]))
            assert sweep.are_finite(other, np.array([[0, i], [i + 1, n]]))


def test_large_float_data_become_bytes_only_if_exact(sweep):
    """A single float that is not exactly byte / 255 keeps the data as floats."""
    x = (np.arange(256, dtype=np.float32) / np.float32(255)).reshape(2, 128)
    for value in (
        np.nan,
        -np.inf,
        np.inf,
        -1e-3,
        1 + 1e-6,
        1e30,
        0.5,
        np.nextafter(np.float32(1), np.float32(0)),
        -0.0,
    ):
        out = np.zeros(x.shape, np.uint8)
        assert sweep.as_bytes(x, out, 2)
        np.testing.assert_array_equal(out.reshape(-1), np.arange(256))
        other = x.copy()
        other[1, 77] = value
        assert not sweep.as_bytes(other, out, 2)

    n = -(-LARGE // 100)
    integers = np.random.default_rng(0).integers(0, 256, (n, 100), np.uint8)
    floats = integers / np.float32(255)
    examples = Examples(floats, 100)
    np.testing.assert_array_equal(examples.in_bytes().array, integers)
    assert Examples(floats[:-1], 100).in_bytes().bytes is None
    floats[-1, -1] = 0.3
    assert examples.in_bytes() is examples


def test_unused_columns_are_ignored(sweep):
    x, y = data(200, 40, 5, "sparse")
    for read in (np.arange(40), np.flatnonzero(np.arange(40) % 7 != 3)):
        g = mlgraph.Graph()
        inputs = g.inputs(40)
        rng = np.random.default_rng(1)
        weights = rng.normal(size=(20, 40))[:, read] / 6
        hidden = [g.add_neuron([inputs[k] for k in read], "tanh", weights=w) for w in weights]
        outputs = [g.add_neuron(hidden, weights=rng.normal(size=20)) for _ in range(5)]
        model = mlgraph.Model(g, outputs, "softmax_cross_entropy")
        plan = check(model, x, y)
        assert plan.dense_read_data and len(plan.input_column) == len(read)
    others = x.copy()
    others[:, 3::7] = x[::-1, 3::7]  # as sparse as before
    assert model.forward(others).tobytes() == model.forward(x).tobytes()


@pytest.mark.parametrize("kind", ["float", "sparse"])
@pytest.mark.parametrize(
    ("columns", "size", "share", "decay"), [(20, 32, 0, 0.5), (131, 32, 0.1, 0), (131, 1100, 0, 0)]
)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_optimizers(sweep, optimizer, columns, size, share, decay, kind):
    """In every other step some columns are zero, so that momentum alone moves their weights."""
    net = layered((columns, 16, 4))
    x, y = data(2 * size, columns, 4, kind)
    x[size:, 4:16] = 0
    if share:
        net.prune(share, by="random")
    plan = Plan(net.graph, [*net.output_ids, *net.loss_ids])
    w, weights = net.graph.parameters.astype(np.float64), wiring(net.graph).place
    label = read_with_targets(net, x, y)[1].label
    first, second = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, 11):
        half = slice(0, size) if t % 2 else slice(size, 2 * size)
        _, g = reference.step(plan, w, x[half], net.loss, plan.slot[net.loss_ids], label=label[half])
        w[weights] *= 1 - decay * (0.01 if optimizer == "adam" else 0.1)
        if optimizer == "sgd":
            w -= 0.1 * g
        elif optimizer == "momentum":
            first = 0.9 * first + g
            w -= 0.1 * first
        else:
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
            w -= 0.01 * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    momentum = 0.0 if optimizer == "sgd" else 0.9
    rate = 0.01 if optimizer == "adam" else 0.1
    net.fit(
        x,
        y,
        epochs=5,
        batch_size=size,
        learning_rate=rate,
        momentum=momentum,
        weight_decay=decay,
        shuffle=False,
        optimizer="adam" if optimizer == "adam" else "sgd",
    )
    # Adam divides a gradient by its own size, so that rounding decides the step where the gradient is nearly zero.
    off = ~np.isclose(net.graph.parameters, w, rtol=1e-3, atol=1e-3 if optimizer == "adam" else 2e-5)
    assert off.mean() <= (0.005 if optimizer == "adam" else 0)


@pytest.mark.parametrize("n", [17, 65])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_block_without_padding_stays_within_the_parameters(sweep, n, optimizer):
    """Weights of neurons written out are ordered as in a block, except for the padding of its last panel."""
    g = mlgraph.Graph()
    x = g.input()
    weights = [g.parameter(1.0) for _ in range(n)]
    model = mlgraph.Model(g, [g.operation("sum", w * x) for w in weights])
    data = np.random.default_rng(0).random((64, 1), np.float32)
    model.fit(data, np.tile(2 * data, (1, n)), epochs=20, optimizer=optimizer)
    blocks = [ins for ins in engine_of(model).plan.instructions if ins.kind == KINDS["dense"]]
    assert [ins.size for ins in blocks] == [n]
    assert all(ins.weights + ins.n_weights <= len(vector) for vector in g.storage.vectors().values() for ins in blocks)
    assert len({w.value for w in weights}) == 1 and weights[0].value > 1.1


def test_more_than_65536_columns(sweep):
    """Only weights of columns that are not zero everywhere move."""
    columns, rng = 70_000, np.random.default_rng(0)
    x = np.zeros((40, columns), np.float32)
    x[np.arange(40)[:, None], rng.integers(0, columns, (40, 200))] = rng.normal(size=(40, 200))
    x[:, -1] = 1
    net = mlgraph.Network(columns, seed=0)
    net.add_layer(16, "tanh")
    net.add_layer(3, "softmax")
    y = rng.integers(0, 3, 40)
    plan, before = check(net, x, y), net.layers[0].weights
    assert plan.reads_directly
    net.fit(x, y, epochs=1, batch_size=40, momentum=0.0, shuffle=False)
    moved = (net.layers[0].weights != before).any(axis=0)
    assert moved[-1] and (moved == x.any(axis=0)).mean() > 0.999


@pytest.mark.parametrize(("lines", "turns"), [(3, 2), (100, 100_001)])
def test_hand_over_needs_two_threads(sweep, lines, turns):
    seconds = sweep.hand_over(lines, turns)
    limits = "OMP_THREAD_LIMIT", "OMP_DYNAMIC", "OMP_MAX_ACTIVE_LEVELS"
    may_be_one = not sweep.PARALLEL or any(name in os.environ for name in limits)
    assert seconds > 0 or (may_be_one and np.isnan(seconds))
