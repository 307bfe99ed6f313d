"""Functions in integers: the C gives the bits of the reference, on a Cortex-M too, and nearly the floats' values."""

import re

import cortex_m
import numpy as np
import pytest
from compiled import compiled

import mlgraph
from mlgraph.datasets import load_mnist
from mlgraph.graph import ops

DECLARATION = "void f(const uint8_t *x, int32_t *y)"


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Compile the C of a quantized function; return it as a function of a batch of bytes."""
    folder = tmp_path_factory.mktemp("int8")
    return lambda q: compiled(folder, q.to_c("f"), "f", len(q.outputs), np.int32, "-Wconversion")


@pytest.fixture(scope="module")
def mnist():
    return load_mnist()


@pytest.fixture(scope="module", params=[0, 0.9, 0.98])
def digits(request, mnist):
    """A network that has learnt MNIST at a sparsity, and its function."""
    net = mlgraph.Network(784, seed=0)
    net.add_layer(32, "leaky_relu")
    net.add_layer(10, "softmax")
    schedule = mlgraph.GradualPruning(request.param) if request.param else None
    net.fit(mnist.train_x, mnist.train_y, epochs=3, seed=0, sparsify=schedule)
    return net, net.graph.compile(net.outputs)


def random_graph(seed):
    """Neurons of all activations whose sources are any nodes before them, among these constants; any outputs."""
    rng = np.random.default_rng(seed)
    g = mlgraph.Graph()
    nodes = [*g.add_inputs(int(rng.integers(1, 200))), g.add_constant(0.7), g.add_parameter(-0.4)]
    for _ in range(rng.integers(1, 12)):
        n = int(rng.integers(1, min(len(nodes), 300) + 1))
        sources = [nodes[i] for i in sorted(rng.choice(len(nodes), n, replace=False))]
        activation, size = str(rng.choice(ops.ACTIVATIONS)), int(rng.choice([1, 1, 2, 9]))
        weights = rng.normal(size=(size, n)) / n**0.5
        biases = rng.normal(size=size) if rng.random() < 0.7 else None
        nodes += [g[i] for i in g.add_neurons(sources, activation, weights=weights, biases=biases)]
    outputs = [*rng.choice(len(nodes), 3), len(nodes) - 1, len(nodes) - 1]
    x = rng.normal(size=(300, g.n_inputs)) if seed % 2 else rng.random((300, g.n_inputs))
    return g.compile([nodes[i] for i in outputs]), x


@pytest.mark.parametrize("seeds", [(0, 1, 2, 31), pytest.param(range(3, 300), marks=pytest.mark.slow)], ids=len)
def test_random_graphs(build, seeds):
    for seed in seeds:
        f, x = random_graph(seed)
        q = f.quantize(x)
        codes = np.random.default_rng(seed).integers(0, 256, x.shape, np.uint8)
        codes = np.concatenate([q.encode(x), codes, np.zeros_like(codes[:1]), np.full_like(codes[:1], 255)])
        np.testing.assert_array_equal(build(q)(codes), q.run(codes), str(seed))
        error, spread = np.abs(q(x) - f(x)), np.ptp(np.append(f(x), np.zeros((1, 5)), axis=0), axis=0)
        assert (error.max(axis=0) <= 0.1 * spread).all() and (error.mean(axis=0) <= 0.03 * spread).all(), seed


def test_mnist_is_as_accurate_as_in_floats(build, digits, mnist):
    net, f = digits
    q = f.quantize(mnist.train_x[:1000] / 255)
    y = build(q)(mnist.test_x)
    np.testing.assert_array_equal(y, q.run(mnist.test_x))
    np.testing.assert_allclose(q(mnist.test_x / 255), y * q.output_scale, rtol=1e-6)
    in_floats = net.evaluate(mnist.test_x, mnist.test_y)["accuracy"]
    assert abs((y.argmax(axis=1) == mnist.test_y).mean() - in_floats) < 0.005 < in_floats - 0.8


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "elu", "gelu", "silu", "softplus"])
def test_other_activations_are_as_accurate(activation, mnist):
    net = mlgraph.Network(784, seed=0)
    net.add_layer(32, activation)
    net.add_layer(10, "softmax")
    net.fit(mnist.train_x[:20000], mnist.train_y[:20000], epochs=1, seed=0)
    f, x, y = net.graph.compile(net.outputs), mnist.test_x[:5000] / 255, mnist.test_y[:5000]
    in_floats, in_integers = ((of(x).argmax(axis=1) == y).mean() for of in (f, f.quantize(mnist.train_x[:500] / 255)))
    assert abs(in_integers - in_floats) < 0.005 < in_floats - 0.8


@pytest.mark.skipif(cortex_m.missing() is not None, reason=f"{cortex_m.missing()} is not installed")
def test_a_cortex_m_gives_the_same_bits(digits, mnist, tmp_path):
    q = digits[1].quantize(mnist.train_x[:1000] / 255)
    cortex_m.compiled(tmp_path, q.to_c("f"), *cortex_m.STRICT)
    y = cortex_m.emulated(tmp_path, DECLARATION, "f(x, y)", mnist.test_x[:500], 10, np.int32).y
    np.testing.assert_array_equal(y, q.run(mnist.test_x[:500]))


@pytest.mark.skipif(cortex_m.missing() is not None, reason=f"{cortex_m.missing()} is not installed")
def test_a_cortex_m_needs_no_floats_no_memory_and_no_library(tmp_path):
    f, x = random_graph(1)
    for processor in ("cortex-m0", "cortex-m3"):
        cortex_m.compiled(tmp_path, f.quantize(x).to_c("f"), *cortex_m.STRICT, f"-mcpu={processor}")
        symbols = cortex_m.run(["arm-none-eabi-nm", "function.o"], tmp_path)
        # The compiler's own library has what a Cortex-M0 has no instructions for.
        integer_arithmetic = {"__aeabi_lmul", "__aeabi_lasr", "__aeabi_idiv"}
        assert set(re.findall(r" U (\w+)", symbols)) <= integer_arithmetic
        assert not re.search(" [bBdDC] ", symbols)


def test_pruned_layers_are_stored_sparsely(digits):
    net, f = digits
    text = f.to_c("f", dtype="int8", calibrate=np.random.default_rng(0).random((100, 784)))
    size = int(re.search(r"constants: (\d+) bytes", text)[1])
    numbers = re.findall(r"^static const (\w+?)_t \w+\[\] = {(.*?)};", text, re.MULTILINE | re.DOTALL)
    assert size == sum(int(re.sub("u?int", "", of)) // 8 * body.count(",") for of, body in numbers)
    assert size < min(784 * 32 + 320, 2 * net.n_edges) + 16 * 42
    assert ("sparse(" in text) == (net.n_edges < 784 * 16) and "float" not in text.split("*/")[1]


def test_far_sources_are_few_bytes(build):
    g = mlgraph.Graph()
    x = g.add_inputs(70_000)
    for gap, places in (("uint8_t", [0, 256, 300, 310, 320]), ("uint16_t", [5, 69_999])):
        q = g.compile(g.add_neuron([x[i] for i in places], weights=[1.0] * len(places))).quantize(np.ones((1, 70_000)))
        codes = np.random.default_rng(0).integers(0, 256, (2, 70_000), np.uint8)
        np.testing.assert_array_equal(build(q)(codes), q.run(codes))
        assert f"const {gap} gaps" in q.to_c()


def test_the_largest_sum_has_32_bits(build):
    g = mlgraph.Graph()
    x, extremes = g.add_inputs(70_000), np.array([[0], [255]], np.uint8).repeat(70_000, axis=1)
    for sign in (1, -1):
        q = g.compile(g.add_neuron(x[:66_000], weights=[sign] * 66_000)).quantize(np.ones((1, 70_000)))
        np.testing.assert_array_equal(build(q)(extremes), [[0], [sign * 66_000 * 127 * 255]])
    with pytest.raises(ValueError, match=r"^n\d+: its sum of 67000 products can exceed 32 bits; prune"):
        g.compile(g.add_neuron(x[:67_000], weights=[1.0] * 67_000)).quantize(np.ones((1, 70_000)))


def test_rounding_is_half_up(build):
    g = mlgraph.Graph()
    (x,) = g.add_inputs(1)
    whole = g.add_neuron([x], weights=[1.0])  # its step is 1 / 127
    outputs = [g.add_neuron([whole], weights=[1.0]), g.add_neuron([x], weights=[0.001]), whole]
    q = g.compile(outputs).quantize([[-1.0], [1.0]])
    codes = np.arange(256, dtype=np.uint8)[:, None]
    y = q.run(codes)
    np.testing.assert_array_equal(build(q)(codes), y)
    np.testing.assert_allclose(y * q.output_scale, (codes - 127.5) / 127.5 * [1, 0.001, 1], atol=0.01)


def test_neurons_whose_readers_have_weights_of_0(build):
    g = mlgraph.Graph()
    hidden = g.add_neuron(g.add_inputs(2), weights=[1.0, 2.0])
    f = g.compile([g.add_neuron([hidden], weights=[0.0], bias=1.5)])
    q = f.quantize(np.eye(2))
    x = np.array([[0, 0], [255, 9]], np.uint8)
    np.testing.assert_array_equal(build(q)(x), q.run(x))  # a warning of the compiler is an error


def test_constants_inputs_and_equal_outputs(build):
    g = mlgraph.Graph()
    x = g.add_inputs(3)
    dead = g.add_neuron([x[0]], weights=[1.0], bias=5.0)
    dead.prune()
    for outputs in ([g.add_constant(-2.5), g.add_parameter(0.0)], [x[2], x[2], x[0]], [dead, g.add_constant(1.0)]):
        f = g.compile(outputs)
        q = f.quantize([[-1.0, 7.0, 1.0]])
        codes = np.random.default_rng(0).integers(0, 256, (50, 3), np.uint8)
        np.testing.assert_array_equal(build(q)(codes), q.run(codes))
        np.testing.assert_allclose(q([[0.5, 7.0, -0.25]]), f([[0.5, 7.0, -0.25]]), atol=0.02)


def test_the_scales_tell_what_integers_stand_for():
    g = mlgraph.Graph()
    f = g.compile(g.add_neuron(g.add_inputs(2), weights=[2.0, -1.0], bias=0.5))
    q, text = (of([[-1.0, 4.0], [3.0, 0.0]]) for of in (f.quantize, lambda x: f.to_c(dtype="int8", calibrate=x)))
    assert text == q.to_c()
    scale, zero = re.search(r"round\(input / ([\d.e-]+)\) \+ (\d+)", text).groups()
    assert (float(scale), int(zero)) == (pytest.approx(q.input_scale), q.input_zero) == (pytest.approx(5 / 255), 51)
    np.testing.assert_array_equal(q.encode([[-1.0, 4.0], [9.0, -9.0]]), [[0, 255], [255, 0]])
    np.testing.assert_array_equal((q.encode([[0.0, 1.0]]) - [q.input_zero] * 2) * q.input_scale, [[0.0, 1.0]])
    assert float(re.search(r"y\[i\] \* ([\d.e-]+)", text)[1]) == pytest.approx(q.output_scale)
    np.testing.assert_allclose(q([[1.0, 0.5]]), [[2.0]], atol=0.02)


def test_what_cannot_be_quantized_is_refused_by_name(digits, mnist):
    net, f = digits
    x, to_c = mnist.train_x[:10] / 255, lambda f, x: f.to_c(dtype="int8", calibrate=x)
    g = mlgraph.Graph()
    a, b = g.add_inputs(2)
    product, z = mlgraph.exp(a) * b, g.add_neuron([a], weights=[2.0])
    for function, examples, message in (
        (
            g.compile(g.add_neuron([product], weights=[1.0])),
            [[1.0, 2.0]],
            r"^n\d+: exp is an operation, and only neurons",
        ),
        (g.compile([mlgraph.gelu(z), z]), [[1.0, 2.0]], r"^n\d+: gelu is an operation"),
        (g.compile(mlgraph.tanh(a)), [[1.0, 2.0]], r"^n\d+: tanh is an operation"),
        (net.graph.compile(net.probabilities), x, "compile `outputs` instead of `probabilities`"),
        (f, None, "^calibrate: integers need scales; pass typical inputs"),
        (
            f,
            mnist.train_x[:10],
            "^calibrate: expected the numbers that the function reads, got bytes; pass calibrate / 255",
        ),
        (f, x[:0], "^calibrate: expected at least one example"),
        (f, x[:, :5], "^calibrate: expected shape"),
        (f, x * np.nan, "^calibrate: expected finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            to_c(function, examples)
    with pytest.raises(ValueError, match=r'^calibrate: only dtype="int8" takes examples'):
        f.to_c(calibrate=x)
    with pytest.raises(ValueError, match=r"^dtype: expected float32 or int8, got 'int4'"):
        f.to_c(dtype="int4")
    q = f.quantize(x)
    for wrong, error in ((mnist.train_x[:2], ValueError), (x * np.nan, ValueError), (["a"], TypeError)):
        with pytest.raises(error, match=r"^x: "):
            q(wrong)
    with pytest.raises(TypeError, match=r"^x: expected bytes, which `encode` makes of numbers, got float64"):
        q.run(x)


def test_names_that_c_or_the_text_uses_are_refused(digits):
    q = digits[1].quantize(np.random.default_rng(0).random((10, 784)))
    used = re.findall(r"^(?:static|typedef) (?:const )?\w+ (\w+)", q.to_c(), re.MULTILINE)
    assert {"weights", "biases", "multipliers", "shifts", "scaled", "byte"} <= set(used)
    header = {"uint8_t", "int_fast16_t", "INT8_MAX", "UINTMAX_C", "SIZE_MAX", "intptr_t"}
    for name in {*used, *header, "int", "2x", "weight", "tanh_table", None}:
        with pytest.raises(ValueError, match=r"^name: "):
            q.to_c(name)
    assert "void byte2(" in q.to_c("byte2")
