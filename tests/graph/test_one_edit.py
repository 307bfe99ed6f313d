"""Several edits as one: nested, ended by exceptions, with parameters, while threads wait."""

import pytest
from editable import X, Y, everything, network, several
from locks import waiting

import mlgraph


@pytest.mark.parametrize("ends", [KeyError, KeyboardInterrupt, "prune"])
def test_exception_takes_back_the_edit(ends):
    net = network()
    net.fit(X, Y, epochs=1)
    before, values = everything(net.graph), net.forward(X)

    def fail():
        with net.graph.one_edit():
            several(net)
            if ends == "prune":
                net.graph.prune(net.outputs)
            raise ends

    with pytest.raises(ValueError if ends == "prune" else ends):
        fail()
    assert everything(net.graph) == before and net.forward(X).tobytes() == values.tobytes()
    with pytest.raises(ValueError, match=r"^undo: nothing to undo; only the last edit is kept$"):
        net.undo()


def test_exception_keeps_outputs_of_a_model():
    g = mlgraph.Graph()
    x = g.input()
    models = []

    def fail():
        with g.one_edit():
            models.append(mlgraph.Model(g, [g.add_neuron([x], weights=[2.0])]))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert models[0].forward([[1.5]]) == 3


def test_exception_takes_back_only_the_inner_edit():
    net = network()
    neurons = net.layers[0].neurons
    before = everything(net.graph)
    with net.graph.one_edit():
        neurons[0].prune()
        half = everything(net.graph)
        try:
            with net.graph.one_edit():
                several(net)
                raise KeyError
        except KeyError:
            pass
        assert everything(net.graph) == half
        neurons[1].prune()
    net.undo()
    assert everything(net.graph) == before


@pytest.mark.parametrize("changes", [False, True])
def test_failed_edit_keeps_the_last_edit_for_undo(changes):
    net = network()
    before = everything(net.graph)
    net.layers[0].neurons[0].prune()

    def fail():
        with net.graph.one_edit():
            if changes:
                several(net)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    net.undo()
    assert everything(net.graph) == before


def test_one_edit_refuses_to_resume_a_run(tmp_path):
    net = network()
    run = {"epochs": 2, "checkpoint": tmp_path / "run.npz"}
    net.fit(X, Y, **run)
    net = network()
    before = everything(net.graph)
    with net.graph.one_edit(), pytest.raises(RuntimeError, match="resume: not possible within one_edit"):
        net.fit(X, Y, resume=True, **run)
    assert everything(net.graph) == before


def test_undo_is_refused_within_one_edit():
    net = network()
    before = everything(net.graph)
    with net.graph.one_edit():
        net.layers[0].neurons[0].prune()
        with pytest.raises(ValueError, match="undo: not possible within one_edit"):
            net.undo()
    net.undo()
    assert everything(net.graph) == before
    with net.graph.one_edit():
        pass
    net.undo()
    assert everything(net.graph) == before


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("ends", ["undo", "exception"])
def test_one_edit_restores_trained_parameters(optimizer, ends):
    """For any optimizer, and although compiling has moved the parameters."""
    net = network()
    net.fit(X, Y, epochs=1, optimizer=optimizer, learning_rate=0.01)
    before, values = everything(net.graph), net.forward(X)

    def change():
        with net.graph.one_edit(parameters=True):
            net.graph.add_edge(net.graph[3], net.outputs[1], 0.5)
            net.layers[0].neurons[3].prune()
            net.fit(X, Y, epochs=1, optimizer="adam")
            net.layers[1].neurons[2].bias = 7
            net.prune(0.5)
            net.graph.compile(net.layers[0].neurons)(X)
            if ends == "exception":
                raise KeyError

    if ends == "exception":
        with pytest.raises(KeyError):
            change()
    else:
        change()
        net.undo()
    assert everything(net.graph) == before and net.forward(X).tobytes() == values.tobytes()
    with net.graph.one_edit():
        net.layers[1].neurons[2].bias = 7
    net.undo()
    assert net.layers[1].neurons[2].bias == 7, "what is no edit stays, if one does not ask for it"


def test_threads_wait_for_one_edit():
    net = network()
    with net.graph.one_edit():
        net.layers[0].neurons[0].prune()
        thread, seen = waiting(net.graph, lambda: net.graph.edges().source.size)
        net.layers[0].neurons[1].prune()
        assert not seen
    thread.join()
    assert seen == [net.n_edges]


def test_failed_edit_restores_frozen():
    net = network()
    neuron = net.layers[0].neurons[2]

    def fail():
        with net.graph.one_edit(parameters=True):
            neuron.frozen = True
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not neuron.frozen


def test_output_that_is_not_alive_forbids_no_edit():
    """A failed edit left a model with such an output."""
    g = mlgraph.Graph()
    x = g.inputs(2)
    a = g.add_neuron(x, weights=[1, 2])
    b = g.add_neuron([a], weights=[1.0])
    c = g.add_neuron(x, weights=[1.0, 1])
    a.prune()
    models = []

    def fail():
        with g.one_edit():
            g.add_edge(x[0], b, 1.0)
            models.append(mlgraph.Model(g, b))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    g.edge(x[0], c).prune()
    assert not b.alive and c.sources == [x[1]] and models[0].forward([[1, 2]]) == 0
    g.add_edge(x[1], b, 1.0)
    assert models[0].forward([[1, 2]]) == 2
    with pytest.raises(ValueError, match=r"^prune: this would disconnect n3, an output of a model, from all inputs$"):
        g.edge(x[1], b).prune()


@pytest.mark.parametrize("value", ["no", 3, None])
def test_parameters_must_be_a_bool(value):
    with pytest.raises(TypeError, match=r"^parameters: expected True or False, got "):
        network().graph.one_edit(parameters=value)
