"""Functions exported as C compile without a warning and agree with the reference."""

import contextlib
import itertools
import re
import subprocess

import numpy as np
import pytest
from compiled import COMPILER, compiled
from graphs import cases, every_parameter
from hypothesis import given, settings

import mlgraph
from mlgraph.graph import ops
from mlgraph.testing import derivatives as testing


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Compile the C of a function; return it as a function of a batch."""
    folder = tmp_path_factory.mktemp("c")

    def build(function, name="f"):
        call = compiled(folder, function.to_c(name), name, len(function.output_ids), np.float32)
        return lambda x: call(np.asarray(x, np.float32))

    return build


def check(build, function, x):
    """Compile and compare with the reference; the values."""
    got, expected = build(function)(x), testing.expect(function, x)
    with np.errstate(invalid="ignore"):
        near = np.abs(got - expected.values) <= expected.values_error
    same = (got == expected.values) | (np.isnan(got) & np.isnan(expected.values)) | ~np.isfinite(expected.values_error)
    assert (near | same).all()
    return got


@pytest.mark.parametrize("examples", [pytest.param(1, marks=pytest.mark.slow), 10])
def test_random_graphs(build, examples):
    @settings(max_examples=settings.default.max_examples // examples)
    @given(case=cases() | cases(tame=False))
    def random(case):
        check(build, case.graph.compile(case.outputs), case.x)

    random()


def test_every_op(build):
    special = [-np.inf, -20.0, -2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, np.inf, np.nan]
    x = np.array(list(itertools.product(special, repeat=3)), np.float32)
    g = mlgraph.Graph()
    inputs = g.add_inputs(3)
    function = g.compile([g.add_operation(op.name, *inputs[: op.arity if op.arity > 0 else 3]) for op in ops.BY_CODE])
    got, called = check(build, function, x), function(x)
    np.testing.assert_array_equal(np.signbit(got)[got == 0], np.signbit(called)[got == 0])


@pytest.mark.parametrize("block", [1, 4])
def test_a_pruned_network_is_short(build, block):
    random = np.random.default_rng(0)
    net = mlgraph.Network(50, seed=0)
    net.add_layer(32, "leaky_relu")
    net.add_layer(9, "sigmoid", bias=False)
    net.add_layer(10, "softmax")
    net.graph.set_parameters(random.normal(size=net.graph.n_parameters))
    x = random.normal(size=(20, 50)).astype(np.float32)
    dense = net.graph.compile(net.outputs)
    check(build, dense, x)
    length = len(dense.to_c())
    net.prune(0.8, block=block)
    function = net.graph.compile(net.outputs)
    np.testing.assert_array_equal(check(build, function, x).argmax(axis=1), net.predict(x))
    assert f"weights: {net.n_edges} " in function.to_c() and len(function.to_c()) < length / 2
    np.testing.assert_allclose(check(build, net.graph.compile(net.probabilities), x), net.predict_proba(x), rtol=1e-5)


def test_neurons_with_equal_sources_share_one_list():
    g = mlgraph.Graph()
    x = g.add_inputs(12)
    alike = [g.add_neuron(x[:8], weights=np.ones(8)) for _ in range(3)]
    text = g.compile([*alike, g.add_neuron(x[1:9], weights=np.ones(8))]).to_c()
    assert "{\n    0, 1, 2, 3, 4, 5, 6, 7,\n    1, 2, 3, 4, 5, 6, 7, 8,\n}" in text


def test_present_parameters_of_every_kind(build):
    g, node = every_parameter()
    function = g.compile([node["z"], node["z"], node["x"]])
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    for value in (0.5, 7.25):
        node["w"].value = value
        check(build, function, x)


def test_only_columns_that_are_read_take_memory(build):
    g = mlgraph.Graph()
    x = g.add_inputs(5)
    function = g.compile(x[4] - x[1])
    assert "float v[3]" in function.to_c() and "inputs: 5, outputs: 1, weights: 0" in function.to_c()
    np.testing.assert_array_equal(build(function, "my_net2")([[1.0, 2.0, 4.0, 8.0, 16.0]]), [[14.0]])
    function = g.compile(mlgraph.exp(g.add_parameter(1.0)) + g.add_constant(float("inf")))
    np.testing.assert_array_equal(build(function)(np.ones((1, 5))), [[np.inf]])


def test_numbers_are_written_exactly(build):
    g = mlgraph.Graph()
    numbers = np.random.default_rng(0).integers(0, 2**32, 200, np.uint32).view(np.float32)
    numbers = np.append(numbers[~np.isnan(numbers)], np.float32([0.0, -0.0, 1e-45, 3.4028235e38, 0.1, np.inf, -np.inf]))
    function = g.compile([g.add_parameter(float(number)) for number in numbers])
    np.testing.assert_array_equal(build(function)(np.zeros((1, 0))).view(np.uint32)[0], numbers.view(np.uint32))


def refused(names):
    """Those under which a function cannot be exported."""
    g = mlgraph.Graph()
    function, free = g.compile(mlgraph.relu(g.add_input())), set()
    for name in names:
        with contextlib.suppress(ValueError):
            free |= {name} if f" {name}(" in function.to_c(name) else set()
    return names - free


def test_names_that_c_or_the_text_uses_are_refused():
    names = {"", "2x", "a b", "f;", "f\n", "é", "_f", "relu", "int", "bool", "main", "M_PI", None, 3}
    net = mlgraph.Network(40, seed=0)
    net.add_layer(32, "relu")
    net.add_layer(9, "softmax")
    net.prune(0.97)
    text = net.graph.compile(net.probabilities).to_c()
    used = re.findall(r"^(?:static|typedef) (?:const )?(?:unsigned )?\w+ (\w+)", text, re.MULTILINE)
    assert {"columns", "lists", "weights", "biases", "rows", "relu", "logsumexp"} <= set(used)
    assert refused(names.union(used)) == names.union(used)


@pytest.mark.parametrize("standard", ["c99", "gnu2x"])
def test_names_of_the_header_are_refused(standard):
    def names(pattern, *options):
        command = [*COMPILER, f"-std={standard}", "-E", *options, "-"]
        text = subprocess.run(command, input="#include <math.h>\n", capture_output=True, text=True, check=True).stdout
        return {name for name in re.findall(pattern, text, re.MULTILINE) if not name.startswith("_")}

    found = names(r"\b(\w+) *\(", "-xc") | names(r"^#define (\w+)", "-xc", "-dM")
    assert {"expf", "nextafterl", "isgreater", "NAN", "HUGE_VALF"} < found
    assert refused(found) == found
