"""Errors, Ctrl-C and MemoryError at any point of an edit leave the graph as before or as after it."""

from array import array

import numpy as np
import pytest
from editable import X, Y, everything, held, network
from graphs import small

import mlgraph
from mlgraph.graph import compaction, edits, nodes, storage, undo
from mlgraph.graph.changes import edited


@pytest.mark.parametrize("stop", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("column", ["_code", "_count", "born", "_pool", "bias", "max_sources"])
def test_interrupted_add_neurons_adds_none(column, stop, monkeypatch):
    """Whichever column is being extended."""
    net, real = network(), storage.extend
    g, source = net.graph, np.arange(12, dtype=np.int32)
    before, values = everything(g), net.forward(X)
    reached = getattr(g.storage if column in ("bias", "max_sources") else g, column)

    def stopping(to, numbers):
        real(to, numbers)
        if to is reached:
            raise stop

    for room in (storage, nodes):
        monkeypatch.setattr(room, "extend", stopping)
    with pytest.raises(stop):
        g.add_neurons(source, weights=np.ones((40, 12)), biases=np.ones(40))
    monkeypatch.undo()
    assert everything(g) == before and net.forward(X).tobytes() == values.tobytes()
    for columns in ((g._code, g._start, g._count, g._data, g.born), g.storage.columns):
        assert len({len(column) for column in columns}) == 1
    assert len(g.add_neurons(source, weights=np.ones((2, 12)), biases=None)) == 2


@pytest.mark.parametrize(("name", "call"), [*(("written", call) for call in range(5)), ("extend", 0), ("edited", 0)])
def test_memory_error_in_an_edit_changes_nothing(monkeypatch, name, call):
    """Wherever it is raised, also within one_edit."""
    real, left = getattr(edits, name), []

    def fails(*given, **more):
        left.append(1)
        if len(left) == call + 1:
            raise MemoryError
        return real(*given, **more)

    net = network()
    net.fit(X, Y, epochs=1)
    before = everything(net.graph)
    monkeypatch.setattr(edits, name, fails)
    with pytest.raises(MemoryError):
        net.graph.prune([net.layers[0].neurons[3], net.layers[1].neurons[2].edges[4]])
    assert everything(net.graph) == before and len(left) == call + 1
    monkeypatch.setattr(edits, name, real)

    @net.graph.one_edit(parameters=True)
    def edit():
        net.layers[0].neurons[2].bias = 9.0
        net.layers[1].neurons[1].edges[2].prune()
        left.clear()
        monkeypatch.setattr(edits, name, fails)
        net.layers[0].neurons[3].prune()

    with pytest.raises(MemoryError):
        edit()
    assert everything(net.graph) == before
    net.fit(X, Y, epochs=1)
    net.prune(0.5)
    net.undo()


@pytest.mark.parametrize("name", ["in_use", "compact_storage"])
def test_memory_error_in_compact_is_harmless(monkeypatch, name):
    """The edit is complete and can be undone."""

    def fail(*given):
        raise MemoryError

    net = network()
    before = everything(net.graph)
    monkeypatch.setattr(compaction, "SMALL", -1)
    monkeypatch.setattr(compaction, name, fail)
    net.graph.prune(net.layers[0].neurons[3].edges)
    assert net.layers[0].neurons[3].edges == []
    net.undo()
    assert everything(net.graph) == before


def test_memory_error_while_taking_back_an_inner_edit(monkeypatch):
    """Later edits belong to the outer edit."""

    def fail(*given):
        raise MemoryError

    net = network()

    @net.graph.one_edit()
    def inner():
        net.layers[0].neurons[2].prune()
        monkeypatch.setattr(undo, "rewire", fail)
        raise KeyError

    @net.graph.one_edit()
    def outer():
        with pytest.raises(MemoryError):
            inner()
        monkeypatch.undo()
        net.layers[0].neurons[1].prune()
        assert net.layers[0].neurons[1].edges == []
        raise IndexError

    with pytest.raises(IndexError):
        outer()
    assert len(net.layers[0].neurons[1].edges) == len(net.layers[0].neurons[3].edges) > 0


def test_sources_may_compile_the_graph_while_they_are_read():
    """New nodes are removed after an error, although the parameters have moved."""
    g = mlgraph.Graph()
    x = g.inputs(3)
    hidden = [g.add_neuron(x, "tanh", weights=[1, 2, 3]) for _ in range(9)]
    out = g.add_neuron(hidden, weights=np.ones(9))
    before, numbers = held(g)[:8], g.get_parameters().tolist()

    def useful():
        for neuron in hidden[:3]:
            gate = g.parameter(0.5) * neuron
            if g.compile(gate)(np.ones((1, 3)))[0, 0] > 0:
                yield gate

    with pytest.raises(ValueError, match=r"^weights: expected shape \(3,\), got"):
        g.add_neuron(useful(), weights=[1.0, 2.0])
    assert held(g)[:8] == before and g.get_parameters().tolist() == numbers and g.storage.moves > 1
    assert {len(column) for column in g.storage.columns} == {10}
    again = g.add_neuron([g.parameter(2.0), out], weights=[1.0, 1.0])
    assert g.compile(again)(np.zeros((1, 3))) == 2


@pytest.mark.parametrize("fails", [False, True])
def test_sources_may_edit_the_graph_while_they_are_read(monkeypatch, fails):
    """Their edits stay, even if the call fails."""
    g = mlgraph.Graph()
    x = g.inputs(3)
    neuron = g.add_neuron(x[:2], weights=[1.0, 2.0])

    def sources():
        g.add_edge(x[2], neuron, 5.0)
        yield from x

    def fail(*_):
        raise MemoryError

    if fails:
        monkeypatch.setattr(mlgraph.Graph, "_append", fail)
    with pytest.raises(
        MemoryError if fails else ValueError, match=None if fails else r"^weights: expected shape \(3,\), got"
    ):
        g.add_neuron(sources(), weights=[1.0, 2.0, 3.0] if fails else [1.0, 2.0])
    monkeypatch.undo()
    assert neuron.sources == x and neuron.weights.tolist() == [1, 2, 5] and len(g) == 4
    assert g.edges().weight.tolist() == [1, 2, 5] and g.compile(neuron)(np.ones((1, 3))) == 8
    assert len(g.storage.weights) == 1
    g.undo()
    assert neuron.sources == x[:2]
    assert g.compile(g.add_neuron([neuron, *x], weights=[1.0, 2, 3, 4]))(np.ones((1, 3))) == 12


def test_columns_grow_in_an_order_that_shows_incomplete_nodes(monkeypatch):
    """A forked child removes the nodes that are missing in some column, and no others."""
    g, _, y, _, _, n, *_ = small()
    real, looks = nodes.extend, []

    def extend(column, values):
        real(column, values)
        whole = range(min(len(column) for column in g._of_nodes))
        looks.append(all(g._start[i] + g._count[i] <= len(g._pool) for i in whole))

    monkeypatch.setattr(nodes, "extend", extend)
    g.inputs(2)
    g.add_neurons([y, n], weights=np.ones((3, 2)))
    g.add_subgraph(
        mlgraph.Neurons([50, 40], ["relu", "tanh"], [0, 1]), mlgraph.Edges([40, 0, 1], [50, 40, 40], [0.5, 1, 2])
    )
    assert len(looks) == 3 * 6 and all(looks) and g[len(g) - 1].sources


def test_memory_error_after_an_edit_by_the_arguments(monkeypatch):
    """No list of sources refers to a missing node."""
    g = mlgraph.Graph()
    x, real = g.inputs(3), nodes.extend
    neuron = g.add_neuron(x[:2], weights=[1.0, 2.0])

    class Weights:
        def __array__(self, *_, **__):
            g.add_edge(x[2], neuron, 5.0)
            return np.ones(2)

    def extend(column, values):
        if column is g._code:
            raise MemoryError
        real(column, values)

    monkeypatch.setattr(nodes, "extend", extend)
    new = mlgraph.Neurons(np.array([10, 11]), np.array(["tanh", "tanh"]), np.zeros(2))
    with pytest.raises(MemoryError):
        g.add_subgraph(new, mlgraph.Edges(np.array([0, 10]), np.array([10, 11]), Weights()))
    monkeypatch.undo()
    assert len(g) == 4 and neuron.sources == x and [node.targets for node in x] == [[neuron]] * 3
    g.prune([(x[1], neuron)])
    assert g.compile(neuron)(np.ones((1, 3))) == 6


def test_failure_after_recording_an_edit_adds_no_node(monkeypatch):
    g, *_ = small()
    before = held(g)[:8]

    def fail(*given, **more):
        edited(*given, **more)
        raise MemoryError

    monkeypatch.setattr("mlgraph.graph.graph.edited", fail)
    with pytest.raises(MemoryError):
        g.add_neuron([g[0]], weights=[1.0])
    assert held(g)[:8] == before


def test_truncate_removes_incomplete_nodes():
    g, *_ = small()
    before = held(g)
    g.input_ids.append(len(g))
    g.names[len(g)] = "ghost"
    g._code.append(0)
    g.storage.append(0)
    g._truncate(len(g))
    assert held(g) == before


def test_truncate_keeps_the_order_of_inputs():
    """Columns and ids may be in different orders in a file from another program."""
    g = mlgraph.Graph()
    a, b = g.inputs(2)
    g.input_ids, g._data = array("i", [1, 0]), array("q", [1, 0])
    g.add_neuron([a], weights=[1.0])
    g.undo()
    assert g.compile([a, b])([[5.0, 7.0]]).tolist() == [[7, 5]] and list(g.input_ids) == [1, 0]


def test_outer_edit_takes_back_what_an_inner_edit_could_not(monkeypatch):
    real, fails = undo.rewire, iter([True])

    def fail_once(*given):
        if next(fails, False):
            raise MemoryError
        real(*given)

    net = network()
    before, last = everything(net.graph), net.layers[1].neurons[0]

    @net.graph.one_edit()
    def outer():
        net.layers[0].neurons[1].prune()
        with net.graph.one_edit():
            net.graph.add_edge(net.graph.add_neuron(net.layers[0].neurons[:2]), last)
            monkeypatch.setattr(undo, "rewire", fail_once)
            raise KeyError

    with pytest.raises(MemoryError):
        outer()
    assert everything(net.graph) == before and next(fails, None) is None
