"""Errors and MemoryError at any point of an edit leave the graph as before or as after it."""

from array import array

import numpy as np
import pytest
from editable import X, Y, everything, held, network, several
from graphs import small

import mlgraph
from mlgraph.graph import compaction, edits, nodes, undo
from mlgraph.graph.changes import edited


def failing(real, call=0):
    """A function that raises MemoryError at the given call and afterwards, and before does as `real`."""
    calls = []

    def fails(*given, **more):
        calls.append(1)
        if len(calls) > call:
            raise MemoryError
        return real(*given, **more)

    return fails


@pytest.mark.parametrize("name", ["matches", "Rewired", "shared_lists", "extend", "edited"])
def test_memory_error_in_an_edit_changes_nothing(monkeypatch, name):
    """Wherever it is raised, also within one_edit."""
    net = network()
    net.fit(X, Y, epochs=1)
    before, neurons = everything(net.graph), net.layers[0].neurons

    def cut():
        with monkeypatch.context() as patch:
            patch.setattr(edits, name, failing(getattr(edits, name)))
            net.graph.prune([neurons[3], net.layers[1].neurons[2].in_edges[4]])

    @net.graph.one_edit(parameters=True)
    def several():
        neurons[2].bias = 9.0
        neurons[1].in_edges[2].prune()
        cut()

    for edit in (cut, several):
        with pytest.raises(MemoryError):
            edit()
        assert everything(net.graph) == before
    net.prune(0.5)
    net.undo()
    assert everything(net.graph) == before


@pytest.mark.parametrize("name", ["in_use", "compact_storage"])
def test_memory_error_in_compact_is_harmless(monkeypatch, name):
    """The edit is complete and can be undone."""
    net = network()
    before = everything(net.graph)
    monkeypatch.setattr(compaction, "SMALL", -1)
    monkeypatch.setattr(compaction, name, failing(None))
    net.graph.prune(net.layers[0].neurons[3].in_edges)
    assert net.layers[0].neurons[3].in_edges == []
    net.undo()
    assert everything(net.graph) == before


def test_outer_edit_takes_back_what_an_inner_edit_could_not(monkeypatch):
    """Later edits belong to the outer edit, too."""
    net = network()
    before, neurons = everything(net.graph), net.layers[0].neurons

    @net.graph.one_edit()
    def inner():
        net.graph.add_edge(net.graph.add_neuron(neurons[:2]), net.outputs[0])
        monkeypatch.setattr(undo, "rewire", failing(None))
        raise KeyError

    @net.graph.one_edit()
    def outer():
        neurons[1].prune()
        with pytest.raises(MemoryError):
            inner()
        monkeypatch.undo()
        neurons[2].prune()
        assert neurons[2].in_edges == []
        raise IndexError

    with pytest.raises(IndexError):
        outer()
    assert everything(net.graph) == before


@pytest.mark.parametrize("name", ["rewire", "compact", "_last_nodes", "_return_nodes"])
@pytest.mark.parametrize("call", range(3))
def test_memory_error_in_undo_and_redo_changes_nothing(monkeypatch, name, call):
    net = network()

    def strike(again, before):
        failed = False
        with monkeypatch.context() as patch:
            real, calls = getattr(undo, name), []

            def once(*given):
                calls.append(1)
                if len(calls) == call + 1:
                    raise MemoryError
                return real(*given)

            patch.setattr(undo, name, once)
            try:
                again()
            except MemoryError:
                failed = True
        if failed:
            assert everything(net.graph) == before and net.graph._open is None
            again()
        return failed

    net.layers[0].neurons[4].prune()
    states = [everything(net.graph)]
    several(net)
    states.append(everything(net.graph))
    failed = [strike(net.undo, states[1]), strike(net.redo, states[0])]
    assert everything(net.graph) == states[1]
    net.undo()
    assert everything(net.graph) == states[0] and any(failed) == (call == 0 or name == "rewire")


def test_sources_may_compile_the_graph_while_they_are_read():
    """New nodes are removed after an error, although the parameters have moved."""
    g = mlgraph.Graph()
    x = g.add_inputs(3)
    hidden = [g.add_neuron(x, "tanh", weights=[1, 2, 3]) for _ in range(9)]
    before, numbers, moves = held(g)[:8], g.get_parameters().tolist(), g.storage.moves

    def useful():
        for neuron in hidden[:3]:
            gate = g.add_parameter(0.5) * neuron
            if g.compile(gate)(np.ones((1, 3)))[0, 0] > 0:
                yield gate

    with pytest.raises(ValueError, match=r"^weights: expected shape \(3,\), got"):
        g.add_neuron(useful(), weights=[1.0, 2.0])
    assert held(g)[:8] == before and g.get_parameters().tolist() == numbers and g.storage.moves > moves
    assert {len(column) for column in g.storage.columns} == {9}


def test_sources_may_edit_the_graph_while_they_are_read():
    """Their edits stay, even if the call fails."""
    g = mlgraph.Graph()
    x = g.add_inputs(3)
    neuron = g.add_neuron(x[:2], weights=[1.0, 2.0])

    def sources():
        g.add_edge(x[2], neuron, 5.0)
        yield from x

    with pytest.raises(ValueError, match=r"^weights: expected shape \(3,\), got"):
        g.add_neuron(sources(), weights=[1.0, 2.0])
    assert neuron.sources == x and neuron.weights.tolist() == [1, 2, 5] and len(g) == 4
    g.undo()
    assert neuron.sources == x[:2]


def test_memory_error_after_an_edit_by_the_arguments(monkeypatch):
    """No list of sources refers to a missing node."""
    g = mlgraph.Graph()
    x, real = g.add_inputs(3), nodes.extend
    neuron = g.add_neuron(x[:2], weights=[1.0, 2.0])

    class Weights:
        def __array__(self, *_, **__):
            g.add_edge(x[2], neuron, 5.0)
            return np.ones(2)

    def extend(column, *values):
        if column is g._code:
            raise MemoryError
        real(column, *values)

    monkeypatch.setattr(nodes, "extend", extend)
    with pytest.raises(MemoryError):
        g.add_subgraph(mlgraph.Neurons([10, 11], ["tanh"] * 2, [0, 0]), mlgraph.Edges([0, 10], [10, 11], Weights()))
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


def test_undo_keeps_the_order_of_inputs():
    """Columns and ids may be in different orders in a file from another program."""
    g = mlgraph.Graph()
    a, b = g.add_inputs(2)
    g.input_ids, g._data = array("i", [1, 0]), array("q", [1, 0])
    g.add_neuron([a], weights=[1.0])
    g.undo()
    assert g.compile([a, b])([[5.0, 7.0]]).tolist() == [[7, 5]] and list(g.input_ids) == [1, 0]
