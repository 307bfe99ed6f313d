"""Sparse rows, single and in quads, give the losses and gradients of the float64 reference."""

import copy
import sys
from collections import Counter
from functools import partial

import numpy as np
import pytest
from processes import run
from swept import check, data, layered

import mlgraph
import mlgraph_ext
from mlgraph.compiler import instructions
from mlgraph.compiler.instructions import KINDS
from mlgraph.engine import reference


def pruned(sizes, density, seed=0):
    """Layers in which each neuron has its own random sources."""
    rng = np.random.default_rng(seed)
    g = mlgraph.Graph()
    nodes = g.inputs(sizes[0])
    for size in sizes[1:]:
        sources = [[node for node in nodes if rng.random() < density] or nodes[:1] for _ in range(size)]
        nodes = [
            g.add_neuron(some, "tanh", weights=rng.normal(size=len(some)) / len(some) ** 0.5, bias=rng.normal())
            for some in sources
        ]
    return mlgraph.Model(g, nodes, "softmax_cross_entropy")


@pytest.mark.parametrize("kind", ["dense", "sparse", "float"])
@pytest.mark.parametrize("density", [0.05, 0.8])
@pytest.mark.parametrize("n", [1, 16, 17, 33, 200])
def test_pruned_layers(sweep, kind, density, n):
    model = pruned((60, 30, 20, 6), density)
    x, y = data(n, 60, 6, kind)
    plan = check(model, x, y)
    assert plan.reads_directly and plan.rows_read_data
    values = reference.forward(plan, model.graph.parameters, x)[plan.slot[model.output_ids]].T
    np.testing.assert_allclose(model.forward(x), values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sparse", "float"])
@pytest.mark.parametrize("n", [1, 16, 17])
def test_results_do_not_depend_on_earlier_examples(sweep, kind, n):
    """Lanes that a few examples do not fill still hold values of the many before."""
    model, (x, y) = pruned((60, 30, 20, 6), 0.3), data(160, 60, 6, kind)
    expected = copy.deepcopy(model).gradients(x[:n], y[:n])
    model.gradients(x[n:] * 3, y[n:])
    found = model.gradients(x[:n], y[:n])
    for a, b in (
        (found.parameters, expected.parameters),
        (found.inputs, expected.inputs),
        (found.values, expected.values),
    ):
        np.testing.assert_array_equal(a, b)


def test_training_continues_after_an_infinite_loss(sweep):
    """In lanes without an example, adjoints of zero times infinite derivatives would be NaN and end the run."""
    rng, (x, y) = np.random.default_rng(0), data(32, 20, 4, "float")
    g = mlgraph.Graph()
    inputs = g.inputs(20)
    rows = [g.add_neuron([inputs[k] for k in rng.permutation(20)[:5]], weights=rng.normal(size=5)) for _ in range(12)]
    outputs = [a * b + g.parameter(0.0) for a, b in zip(rows[:4], rows[4:8], strict=True)]
    model = mlgraph.Model(g, outputs, "softmax_cross_entropy")
    fresh = copy.deepcopy(model)
    assert not np.isfinite(model.evaluate(np.clip(x * 1e38, -3e38, 3e38), y)["loss"])
    for one in (fresh, model):
        one.fit(x[:7], y[:7], epochs=3, batch_size=7, learning_rate=0.01)
    np.testing.assert_array_equal(fresh.graph.parameters, model.graph.parameters)


@pytest.mark.parametrize("n", [1, 15, 16, 40])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_unused_lanes_repeat_the_last_example(sweep, n, n_threads):
    """Lanes with sums of one example and data of another would be non-finite here and end the run."""
    x = np.linspace(-7, 7, n)[::-1].astype(np.float32)
    g = mlgraph.Graph()
    a, b = g.inputs(2)
    row = g.add_neuron([a], weights=[1.0])
    logs = mlgraph.log(b - row)  # for each example b = a + 1
    model = mlgraph.Model(
        g, [g.add_neuron([logs, row], weights=[0.1, 0.1 * k]) for k in range(3)], "softmax_cross_entropy"
    )
    gradient = model.gradients(np.stack([x, x + 1], axis=1), np.arange(n) % 3, n_threads=n_threads).parameters
    history = model.fit(
        np.stack([x, x + 1], axis=1), np.arange(n) % 3, epochs=2, batch_size=n, learning_rate=0.001, n_threads=n_threads
    )
    assert np.isfinite(gradient).all() and np.isfinite(history.batch_loss).all()


@pytest.mark.parametrize("columns", [1, 3, 63, 65, 130, 785])
@pytest.mark.parametrize("read", ["all", "some"])
def test_byte_data_of_any_width(sweep, columns, read):
    """Rows read words of four bytes, 64 columns at a time. Unread columns may be anywhere."""
    rng = np.random.default_rng(columns)
    g = mlgraph.Graph()
    inputs = g.inputs(columns)
    some = inputs if read == "all" else [inputs[k] for k in np.flatnonzero(rng.random(columns) < 0.1)] or inputs[-1:]
    sources = [[node for node in some if rng.random() < 0.5] or some[-1:] for _ in range(7)]
    weights = [rng.normal(size=len(nodes)) / len(nodes) ** 0.5 for nodes in sources]
    hidden = [
        g.add_neuron(nodes, "tanh", weights=w, bias=rng.normal()) for nodes, w in zip(sources, weights, strict=True)
    ]
    outputs = [g.add_neuron(hidden[i : i + 4], weights=rng.normal(size=4)) for i in range(4)]
    model = mlgraph.Model(g, outputs, "softmax_cross_entropy")
    plan = check(model, *data(150, columns, 4, "dense"))
    assert plan.reads_directly and plan.rows_read_data and not plan.dense_read_data


def shared(sizes, density, together, seed=0):
    """Layers in which groups of `together` neurons have the same sources; the neurons are added in random order."""
    rng = np.random.default_rng(seed)
    g = mlgraph.Graph()
    nodes = g.inputs(sizes[0])
    for size in sizes[1:]:
        lists = [[node for node in nodes if rng.random() < density] or nodes[:1] for _ in range(-(-size // together))]
        nodes = [
            g.add_neuron(
                lists[i], "tanh", weights=rng.normal(size=len(lists[i])) / len(lists[i]) ** 0.5, bias=rng.normal()
            )
            for i in (rng.permutation(size) // together).tolist()
        ]
    return mlgraph.Model(g, nodes, "softmax_cross_entropy")


@pytest.mark.parametrize("kind", ["sparse", "float"])
@pytest.mark.parametrize(
    ("make", "columns", "batch_size"),
    [(pruned, 60, (100, 7)), (pruned, 300, (300, 20)), (partial(shared, together=5), 300, 300)],
)
def test_bits_do_not_depend_on_threads(sweep, monkeypatch, kind, make, columns, batch_size):
    """Units sum the gradients of rows, or the workers that swept them if there are enough tiles for all threads."""
    ways, prepare = set(), sweep.prepare
    monkeypatch.setattr(
        sweep,
        "prepare",
        lambda **options: (
            ways.add((options["n_workers"], options["pack_sums"] is not None, options["bytes_at"] >= 0))
            or prepare(**options)
        ),
    )
    x, y = data(700, columns, 6, kind)
    results = []
    for n_threads in (1, 2, 3, 7):
        model = make((columns, 90, 20, 6), 0.1)
        model.fit(x, y, epochs=2, batch_size=batch_size, learning_rate=(0.1, 0.01), seed=5, n_threads=n_threads)
        results.append(model.graph.parameters.copy())
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].view(np.int32), other.view(np.int32))
    if columns == 300:
        of_bytes = kind == "sparse"
        assert {(1, False, of_bytes), (2, True, of_bytes), (3, True, of_bytes)} <= ways


def in_quads(sweep, plan):
    """Return how many neurons of rows are swept in quads, and how many should be."""
    found = wanted = 0
    for ins in (ins for _, ins in plan.trained if ins.kind == KINDS["rows"]):
        rows = plan.rows(ins)
        found += int(np.count_nonzero(instructions.in_quads(rows.alike)))
        same = Counter(tuple(some) for some in np.split(rows.source, rows.begin[1:-1]))
        wanted += sum(n if n % 4 == 3 else n - n % 4 for n in same.values())
    return found, 0 if sweep.__name__.endswith(("v2", "baseline")) else wanted


@pytest.mark.parametrize("kind", ["sparse", "float"])
@pytest.mark.parametrize(("n", "density"), [(1, 0.3), (33, 0.8), (200, 0.05)])
@pytest.mark.parametrize("together", [2, 3, 4, 5, 7])
def test_neurons_with_equal_sources_form_quads(sweep, kind, n, density, together):
    """Quads have four neurons, or three where only three are left; fewer are swept singly."""
    model = shared((60, 30, 20, 7), density, together)
    x, y = data(n, 60, 7, kind)
    plan = check(model, x, y)
    assert plan.reads_directly and not plan.dense_read_data
    found, wanted = in_quads(sweep, plan)
    assert found == wanted and (found > 0 or together == 2 or sweep.__name__.endswith(("v2", "baseline")))
    values = reference.forward(plan, model.graph.parameters, x)[plan.slot[model.output_ids]].T
    np.testing.assert_allclose(model.forward(x), values, rtol=1e-4, atol=1e-5)


def test_size_of_quads():
    """Builds with short vectors have none, because they would not gain."""
    alike = np.concatenate([np.arange(n, 0, -1) for n in (1, 2, 3, 4, 5, 6, 7, 8)]).astype(np.int32)
    out = np.empty(len(alike), np.uint8)
    mlgraph_ext.sweep.find_quads(alike, out)
    if mlgraph_ext.ISA in ("v3", "v4"):
        assert [int(part.sum()) for part in np.split(out, np.cumsum(range(1, 8)))] == [0, 0, 3, 4, 4, 4, 7, 8]
    with pytest.raises(ValueError, match="out: expected 36 bytes, got 3"):
        mlgraph_ext.sweep.find_quads(alike, out[:3])


@pytest.mark.parametrize("together", [3, 4])
@pytest.mark.parametrize("n", [5, 64])
def test_infinite_weight_affects_only_its_own_row_of_a_quad(sweep, together, n):
    """An infinite weight times a delta of zero is NaN; neighbours in the quad must not get it."""
    g = mlgraph.Graph()
    x = g.inputs(3)
    hidden = [g.add_neuron(x[:2], "relu", weights=[1.0, 2.0]) for _ in range(together)]
    last = [g.add_neuron([*hidden, x[2]], weights=np.ones(together + 1)) for _ in range(2)]
    function = g.compile(last)
    hidden[-1].weights[0] = np.inf
    rows = np.tile(np.float32([0.5, 0.25, 1.0]), (n, 1))
    np.testing.assert_array_equal(function.vjp(rows).inputs, np.tile(np.float32([np.inf, 4.0 * together, 2.0]), (n, 1)))


@pytest.mark.parametrize("n", [3, 100])
def test_values_of_quads_do_not_depend_on_wanted_adjoints(sweep, n):
    rng, g = np.random.default_rng(0), mlgraph.Graph()
    x = g.inputs(20)
    hidden = [g.add_neuron(x, "tanh", weights=rng.normal(size=20) / 4) for _ in range(9)]
    lists = [[*x[:10], *hidden], hidden, [*hidden[2:], *x[:3]]]
    outputs = [g.add_neuron(lists[i % 3], weights=rng.normal(size=len(lists[i % 3])) / 4) for i in range(12)]
    model = mlgraph.Model(g, outputs, "softmax_cross_entropy")
    plan = check(model, *data(n, 20, 12, "float"))
    found, wanted = in_quads(sweep, plan)
    assert found == wanted
    rows = plan.rows(plan.trained[-1][1])
    assert rows.alike.tolist() == [4, 3, 2, 1] * 3 and sorted(rows.whole.tolist()) == [1] * 9 + [2, 3, 4]
    function, x = g.compile(outputs), data(n, 20, 12, "float")[0]
    np.testing.assert_array_equal(function(x), function.vjp(x).values)


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"weight_dropout": 0.3}])
def test_dropout_in_quads(sweep, options):
    net = layered((40, 24, 9), **options)
    rng = np.random.default_rng(0)
    net.layers[0].mask = np.repeat(rng.random((6, 40)) < 0.4, 4, axis=0)
    plan = check(net, *data(150, 40, 9, "sparse"), seed=3, step_number=2)
    found, wanted = in_quads(sweep, plan)
    assert found == wanted


def test_repeated_source_gets_the_adjoint_of_each_edge(sweep):
    """Only neurons written out can have a repeated source."""
    rng, g = np.random.default_rng(0), mlgraph.Graph()
    x = g.inputs(6)
    hidden = [g.add_neuron(x, "tanh", weights=rng.normal(size=6)) for _ in range(8)]
    sources = hidden + hidden[:3]
    outputs = [mlgraph.sum(*[g.parameter(rng.normal() / 4) * node for node in sources]) for _ in range(9)]
    plan = check(mlgraph.Model(g, outputs, "softmax_cross_entropy"), *data(50, 6, 9, "float"))
    assert [ins.arity for _, ins in plan.trained] == [6, 11]


READ_ONLY = """
import ctypes, mmap
import numpy as np
import mlgraph
from mlgraph.models.running import engine_of

net = mlgraph.Network(9, seed=0)
net.add_layer(5, "tanh")
net.add_layer(3, "softmax")
g = net.graph
net.prune(0.3)
engine_of(net)
room = mmap.mmap(-1, mmap.PAGESIZE)
own = np.frombuffer(room, np.float32)[: len(g.storage.vector)]
own[:] = g.storage.vector
g.storage.vector = own
x, y = np.eye(9, dtype=np.float32), np.arange(9) % 3
expected = net.gradients(x, y).parameters
PROT_READ = 1
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(own.ctypes.data), ctypes.c_size_t(mmap.PAGESIZE), PROT_READ) == 0
np.testing.assert_array_equal(net.gradients(x, y).parameters, expected)
print("as before")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="uses mprotect of Linux")
def test_gradients_do_not_write_parameters():
    """Not even with the same value: another thread may write a weight at the same time."""
    assert run(READ_ONLY) == ["as", "before"]


@pytest.mark.parametrize("n", [1, 17, 40])
@pytest.mark.parametrize("before", [32, 100])
def test_gradients_do_not_depend_on_an_earlier_step(sweep, n, before):
    """Rows sum their gradients over all lanes, including those without an example."""
    x, y = data(before + n, 24, 3, "sparse")
    first, rest = slice(before), slice(before, None)

    def net():
        made = layered((24, 40, 20, 3))
        made.layers[0].mask = np.random.default_rng(0).random((40, 24)) < 0.3
        return made

    one, other = net(), net()
    how = {"epochs": 1, "batch_size": 100, "momentum": 0.0, "learning_rate": 0.1}
    one.fit(x[first], y[first], **how)
    other.graph.set_parameters(one.graph.get_parameters())
    for each in (one, other):  # the memory of `other` is new
        each.fit(x[rest], y[rest], **how)
    assert one.graph.get_parameters().tobytes() == other.graph.get_parameters().tobytes()
