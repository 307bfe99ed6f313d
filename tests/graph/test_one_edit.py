"""Several edits as one: nested, ended by exceptions, with parameters, while threads wait."""

import pytest
from editable import X, Y, everything, network, several
from locks import waiting

import mlgraph
from mlgraph.graph import compaction as packing, edits, undo


@pytest.mark.parametrize("ends", [KeyError, KeyboardInterrupt, "prune"])
def test_what_an_exception_ends_is_taken_back(ends):
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
    with pytest.raises(
        ValueError, match=r"^undo: nothing to undo; only the last edit is kept$"
    ):
        net.undo()


def test_what_a_model_has_for_outputs_an_exception_leaves():
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


def test_a_model_made_within_keeps_no_more_than_its_nodes():
    """Edits of others are taken back when an exception ends it."""
    net = network()
    net.fit(X, Y, epochs=1)
    before, values = everything(net.graph), net.forward(X)

    def fail():
        with net.graph.one_edit(parameters=True):
            net.layers[0].neurons[2].prune()
            net.layers[0].neurons[3].bias = 9
            net.add_layer(2)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert everything(net.graph)[: len(before)] == before and len(net.layers) == 4
    assert net.forward(X).shape == (70, 2) and net.graph.compile([net.graph[i] for i in net.layers[2].ids])(
        X
    ).tobytes() == (values.tobytes())


def test_within_another_an_exception_takes_back_its_own():
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
def test_an_exception_leaves_the_edit_before_to_be_undone(changes):
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


def test_no_run_is_resumed_within_one_edit(tmp_path):
    net = network()
    run = {"epochs": 2, "checkpoint": tmp_path / "run.npz"}
    net.fit(X, Y, **run)
    net = network()
    before = everything(net.graph)
    with net.graph.one_edit(), pytest.raises(RuntimeError, match="resume: not possible within one_edit"):
        net.fit(X, Y, resume=True, **run)
    assert everything(net.graph) == before


def test_no_memory_for_an_edit_changes_nothing(monkeypatch):
    net = network()
    before = everything(net.graph)

    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(edits, "extend", refuse)
    with pytest.raises(MemoryError), net.graph.one_edit():
        net.layers[0].neurons[0].prune()
    assert everything(net.graph) == before
    net.forward(X)


def test_one_edit_is_over_before_it_is_undone():
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
def test_one_edit_takes_back_what_was_trained(optimizer, ends):
    """With `parameters`; whatever the parameters were laid out for meanwhile, and whichever optimizer learnt."""
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


@pytest.mark.parametrize("already", [False, True])
def test_what_stays_of_a_failed_edit_stays_frozen(already):
    """Whatever else is: a neuron that a model has for an output meanwhile."""
    g = mlgraph.Graph()
    x = g.inputs(2)
    first = g.add_neuron(x, weights=[1, 2])
    first.frozen = already
    models = []

    def fail():
        with g.one_edit(parameters=True):
            models.append(mlgraph.Model(g, g.add_neuron(x, weights=[3, 4])))
            models[0].outputs[0].frozen = True
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    n = models[0].outputs[0]
    assert n.alive and n.frozen and first.frozen == already


def test_what_was_frozen_in_a_failed_edit_is_not_afterwards():
    net = network()
    neuron = net.layers[0].neurons[2]

    def fail():
        with net.graph.one_edit(parameters=True):
            neuron.frozen = True
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not neuron.frozen


def test_an_edit_that_fails_around_another_is_taken_back():
    """One that is in a generator which nobody has gone on with."""
    net = network()
    edges = net.n_edges

    def within():
        with net.graph.one_edit():
            net.layers[0].neurons[0].edges[0].prune()
            yield

    suspended = within()

    def fail():
        with net.graph.one_edit():
            net.layers[0].neurons[1].edges[0].prune()
            next(suspended)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert net.layers[0].neurons[1].edges[0].source.id == 0 and net.n_edges >= edges - 1


def test_an_output_that_is_dead_forbids_no_edit():
    """A model had it while it was not, within an edit that failed."""
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
    with pytest.raises(
        ValueError, match=r"^prune: this would disconnect n3, an output of a model, from all inputs$"
    ):
        g.edge(x[1], b).prune()


def test_no_edit_before_nodes_that_an_exception_leaves_is_taken_back():
    """They are the last change, and no edit."""
    net, models = network(), []
    net.layers[0].neurons[0].prune()

    def fail():
        with net.graph.one_edit():
            models.append(mlgraph.Model(net.graph, [net.graph.add_neuron([net.graph[0]])]))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(ValueError, match="undo: nothing to undo"):
        net.undo()


@pytest.mark.parametrize("value", ["no", 3, None])
def test_whether_parameters_are_taken_back_is_yes_or_no(value):
    with pytest.raises(TypeError, match=r"^parameters: expected True or False, got "):
        network().graph.one_edit(parameters=value)


@pytest.mark.parametrize(("name", "call"), [*(("written", call) for call in range(5)), ("extend", 0), ("edited", 0)])
def test_an_edit_for_which_there_is_no_memory_changes_nothing(monkeypatch, name, call):
    """Wherever in it that is, also where edits before it are taken back then."""
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
def test_without_memory_an_edit_is_not_packed(monkeypatch, name):
    """It is made, and can be taken back: unused room is only room."""

    def fail(*given):
        raise MemoryError

    net = network()
    before = everything(net.graph)
    monkeypatch.setattr(packing, "SMALL", -1)
    monkeypatch.setattr(packing, name, fail)
    net.graph.prune(net.layers[0].neurons[3].edges)
    assert net.layers[0].neurons[3].edges == []
    net.undo()
    assert everything(net.graph) == before


def test_without_memory_to_take_it_back_an_edit_within_another_is_over(monkeypatch):
    """What comes then belongs to the other one."""

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


def test_what_could_not_be_taken_back_is_taken_back_by_the_edit_around_it(monkeypatch):
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
