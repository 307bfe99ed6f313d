"""Several edits as one: nested, ended by exceptions, with parameters, while threads wait."""

import contextlib

import pytest
from editable import X, Y, everything, network, several
from locks import waiting

import mlgraph


@pytest.mark.parametrize("ends", [KeyError, KeyboardInterrupt, "prune"])
@pytest.mark.parametrize("parameters", [False, True])
def test_exception_takes_back_the_edit(ends, parameters):
    net = network()
    net.fit(X, Y, epochs=1)
    before, values = everything(net.graph), net.forward(X)

    def fail():
        with net.graph.one_edit(parameters=parameters):
            several(net)
            if ends == "prune":
                net.graph.prune(net.outputs)
            raise ends

    with pytest.raises(ValueError if ends == "prune" else ends):
        fail()
    assert everything(net.graph) == before and net.forward(X).tobytes() == values.tobytes()
    with pytest.raises(ValueError, match="undo: the last edit added"):
        net.undo()


def test_exception_takes_back_only_the_inner_edit():
    net = network()
    neurons = net.layers[0].neurons
    before = everything(net.graph)
    with net.graph.one_edit():
        neurons[0].prune()
        half = everything(net.graph)
        with contextlib.suppress(KeyError), net.graph.one_edit():
            several(net)
            raise KeyError
        assert everything(net.graph) == half
        neurons[1].prune()
    net.undo()
    assert everything(net.graph) == before


def test_edit_before_a_failed_one_can_be_undone():
    net = network()
    before = everything(net.graph)
    for change in (lambda: None, lambda: several(net)):
        net.layers[0].neurons[0].prune()
        with contextlib.suppress(KeyError), net.graph.one_edit():
            change()
            raise KeyError
        net.undo()
        assert everything(net.graph) == before


def test_undo_and_resuming_a_run_are_refused_within_one_edit(tmp_path):
    run = {"epochs": 2, "checkpoint": tmp_path / "run.npz"}
    network().fit(X, Y, **run)
    net = network()
    before = everything(net.graph)
    with net.graph.one_edit():
        with pytest.raises(RuntimeError, match="resume: not possible within one_edit"):
            net.fit(X, Y, resume=True, **run)
        net.layers[0].neurons[0].prune()
        with pytest.raises(ValueError, match="undo: not possible within one_edit"):
            net.undo()
    net.undo()
    assert everything(net.graph) == before


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("ends", ["undo", "exception"])
def test_one_edit_restores_trained_parameters_if_asked(optimizer, ends):
    """For any optimizer, and although compiling has moved the parameters."""
    net = network()
    net.fit(X, Y, epochs=1, optimizer=optimizer, learning_rate=0.01)
    before, values = everything(net.graph), net.forward(X)
    with contextlib.suppress(KeyError), net.graph.one_edit(parameters=True):
        net.graph.add_edge(net.graph[3], net.outputs[1], 0.5)
        net.layers[0].neurons[3].prune()
        net.fit(X, Y, epochs=1, optimizer="adam")
        net.layers[1].neurons[2].bias = 7
        net.prune(0.5)
        net.graph.compile(net.layers[0].neurons)(X)
        if ends == "exception":
            raise KeyError
    if ends == "undo":
        net.undo()
    assert everything(net.graph) == before and net.forward(X).tobytes() == values.tobytes()
    with net.graph.one_edit():
        net.layers[1].neurons[2].bias = 7
    net.undo()
    assert net.layers[1].neurons[2].bias == 7, "an assigned number stays unless `parameters` is set"


def test_threads_wait_for_one_edit():
    net = network()
    with net.graph.one_edit():
        net.layers[0].neurons[0].prune()
        thread, seen = waiting(net.graph, lambda: net.graph.edges().source.size)
        net.layers[0].neurons[1].prune()
        assert not seen
    thread.join()
    assert seen == [net.n_edges]


def test_failed_edit_keeps_outputs_of_new_models():
    """A new neuron stays. An output that is cut off again is 0 and forbids no other edit until it is connected."""
    g = mlgraph.Graph()
    x = g.add_inputs(2)
    a = g.add_neuron(x, weights=[1, 2])
    b = g.add_neuron([a], weights=[1.0])
    a.prune()
    with contextlib.suppress(KeyError), g.one_edit():
        g.add_edge(x[0], b, 1.0)
        c = g.add_neuron(x, weights=[3.0, 4.0])
        model = mlgraph.Model(g, [b, c])
        raise KeyError
    assert not b.alive and model.forward([[1, 2]]).tolist() == [[0, 11]]
    g.edge(x[0], c).prune()
    g.add_edge(x[1], b, 1.0)
    assert model.forward([[1, 2]]).tolist() == [[2, 8]]
    with pytest.raises(ValueError, match=r"^prune: this would disconnect n3, an output of a model, from all inputs$"):
        g.edge(x[1], b).prune()
