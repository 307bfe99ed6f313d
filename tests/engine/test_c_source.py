"""Functions written as C: they compile without a warning, and give what the reference gives."""

import ctypes
import itertools
import os
import re
import shlex
import subprocess
import sysconfig

import numpy as np
import pytest
from graphs import cases, every_parameter
from hypothesis import given, settings

import mlgraph
from mlgraph.engine.c_source import checked_name
from mlgraph.graph import ops
from mlgraph.testing import derivatives as testing

COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wmissing-prototypes", "-Werror", "-O2"]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Compile the C of a function, and give it back as a function of a batch."""
    folder, numbers = tmp_path_factory.mktemp("c"), itertools.count()

    def build(function, name="f"):
        source, library = folder / f"{next(numbers)}.c", folder / f"{next(numbers)}.so"
        source.write_text(function.to_c(name))
        command = [*COMPILER, *STRICT, "-shared", "-fPIC", source, "-o", library, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert not done.returncode, done.stderr + source.read_text()
        loaded = getattr(ctypes.CDLL(os.fspath(library)), name)
        loaded.restype = None

        def call(x):
            x = np.ascontiguousarray(x, np.float32)
            y = np.zeros((len(x), len(function.output_ids)), np.float32)
            for a, b in zip(x, y, strict=True):
                loaded(ctypes.c_void_p(a.ctypes.data), ctypes.c_void_p(b.ctypes.data))
            return y

        return call

    return build


def assert_as_expected(function, x, got):
    expected = testing.expect(function, x)
    with np.errstate(invalid="ignore"):
        near = np.abs(got - expected.values) <= expected.values_error
    same = (got == expected.values) | (np.isnan(got) & np.isnan(expected.values)) | ~np.isfinite(expected.values_error)
    assert (near | same).all()


@given(case=cases())
def test_random_graphs(build, case):
    function = case.graph.compile(case.outputs)
    assert_as_expected(function, case.x, build(function)(case.x))


@given(case=cases(tame=False))
def test_whatever_the_numbers(build, case):
    function = case.graph.compile(case.outputs)
    assert_as_expected(function, case.x, build(function)(case.x))


@pytest.mark.parametrize("op", ops.BY_CODE, ids=lambda op: op.name)
def test_every_op(build, op):
    g = mlgraph.Graph()
    arguments = g.inputs(3 if op.arity < 0 else op.arity)
    special = [-np.inf, -20.0, -2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, np.inf, np.nan]
    x = np.array(list(itertools.product(special, repeat=len(arguments))), np.float32)
    function = g.compile(g.operation(op.name, *arguments))
    got, called = build(function)(x), function(x)
    assert_as_expected(function, x, got)
    np.testing.assert_array_equal(np.signbit(got)[got == 0], np.signbit(called)[got == 0])


@pytest.mark.parametrize("block", [1, 4])
def test_a_pruned_network(build, block):
    random = np.random.default_rng(0)
    net = mlgraph.Network(50, seed=0)
    net.add_layer(32, "leaky_relu")
    net.add_layer(9, "sigmoid", bias=False)
    net.add_layer(10, "softmax")
    net.graph.set_parameters(random.normal(size=net.graph.n_parameters))
    x = random.normal(size=(20, 50)).astype(np.float32)
    dense = net.graph.compile(net.outputs)
    assert_as_expected(dense, x, build(dense)(x))
    length = len(dense.to_c())
    net.prune(0.8, block=block)
    function = net.graph.compile(net.outputs)
    assert_as_expected(function, x, build(function)(x))
    assert f"weights: {net.n_edges} " in function.to_c()
    assert len(function.to_c()) < length / 2
    np.testing.assert_array_equal(build(function)(x).argmax(axis=1), net.predict(x))
    np.testing.assert_allclose(build(net.graph.compile(net.probabilities))(x), net.predict_proba(x), rtol=1e-5)


def test_lists_that_neurons_share_are_written_once():
    g = mlgraph.Graph()
    x = g.inputs(12)
    alike = [g.add_neuron(x[:8], weights=np.ones(8)) for _ in range(3)]
    text = g.compile([*alike, g.add_neuron(x[1:9], weights=np.ones(8))]).to_c()
    assert "{\n    0, 1, 2, 3, 4, 5, 6, 7,\n    1, 2, 3, 4, 5, 6, 7, 8,\n}" in text


def test_every_way_to_hold_a_parameter(build):
    g, node = every_parameter()
    function = g.compile([node["z"], node["z"], node["x"]])
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    assert_as_expected(function, x, build(function)(x))
    node["w"].value = 7.25
    assert_as_expected(function, x, build(function)(x))


def test_what_reads_no_data(build):
    g = mlgraph.Graph()
    g.inputs(2)
    function = g.compile(mlgraph.exp(g.parameter(1.0)) + g.constant(float("inf")))
    np.testing.assert_array_equal(build(function)([[1.0, 2.0]]), [[np.inf]])


def test_columns_that_nothing_reads_are_left_out(build):
    g = mlgraph.Graph()
    x = g.inputs(5)
    function = g.compile(x[4] - x[1])
    assert "float v[3]" in function.to_c() and "inputs: 5, outputs: 1, weights: 0" in function.to_c()
    np.testing.assert_array_equal(build(function)([[1.0, 2.0, 4.0, 8.0, 16.0]]), [[14.0]])


@pytest.mark.parametrize(("n", "wide"), [(2**16 - 1, "short"), (2**16, "int")])
def test_places_are_as_wide_as_they_must_be(n, wide):
    g = mlgraph.Graph()
    assert f"typedef unsigned {wide} place" in g.compile(mlgraph.sum(*g.inputs(n))).to_c()


def test_numbers_come_back_to_the_bit(build):
    g = mlgraph.Graph()
    numbers = np.random.default_rng(0).integers(0, 2**32, 200, np.uint32).view(np.float32)
    numbers = np.append(numbers[~np.isnan(numbers)], np.float32([0.0, -0.0, 1e-45, 3.4028235e38, 0.1, np.inf, -np.inf]))
    function = g.compile([g.parameter(float(number)) for number in numbers])
    np.testing.assert_array_equal(build(function)(np.zeros((1, 0))).view(np.uint32)[0], numbers.view(np.uint32))


def test_the_name(build):
    g = mlgraph.Graph()
    function = g.compile(mlgraph.relu(g.input()))
    np.testing.assert_array_equal(build(function, "my_network2")([[2.0]]), [[2.0]])
    for name in (
        "",
        "2x",
        "a b",
        "f;",
        "f\n",
        "é",
        "_f",
        "relu",
        "dense",
        "int",
        "bool",
        "main",
        "y1",
        "M_PI",
        None,
        3,
    ):
        with pytest.raises(ValueError, match="name: expected one that is free in C, of letters, digits and _, got "):
            function.to_c(name)


def is_free(name):
    try:
        return checked_name(name) == name
    except ValueError:
        return False


@pytest.mark.parametrize("standard", ["c99", "gnu17", "gnu2x"])
def test_no_name_of_the_header_is_free(standard):
    def names(pattern, *options):
        command = [*COMPILER, f"-std={standard}", "-E", *options, "-"]
        text = subprocess.run(command, input="#include <math.h>\n", capture_output=True, text=True, check=True).stdout
        return {name for name in re.findall(pattern, text, re.MULTILINE) if not name.startswith("_")}

    found = names(r"\b(\w+) *\(", "-xc") | names(r"^#define (\w+)", "-xc", "-dM")
    assert {"expf", "nextafterl", "isgreater", "NAN", "HUGE_VALF"} < found
    assert [name for name in found if is_free(name)] == []


def test_no_name_that_the_text_has_is_free():
    net = mlgraph.Network(40, seed=0)
    net.add_layer(32, "relu")
    net.add_layer(9, "softmax")
    net.prune(0.97)
    text = net.graph.compile(net.probabilities).to_c()
    names = re.findall(r"^(?:static|typedef) (?:const )?(?:unsigned )?\w+ (\w+)", text, re.MULTILINE)
    assert {"place", "columns", "sources", "lists", "weights", "biases", "rows", "relu", "logsumexp"} <= set(names)
    assert not any(map(is_free, names))


@settings(max_examples=5)
@given(case=cases())
def test_it_changes_nothing(case):
    function = case.graph.compile(case.outputs)
    before, edits = function(case.x), case.graph.edits
    assert function.to_c() == function.to_c()
    assert case.graph.edits == edits
    np.testing.assert_array_equal(function(case.x), before)
