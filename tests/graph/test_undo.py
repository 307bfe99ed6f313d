"""Undoing the last edit: what returns, and what stays as it is."""

import contextlib
import copy
import gc

import numpy as np
import pytest
from editable import X, Y, everything, network, several

import mlgraph
from mlgraph.graph import arrays, edits
from mlgraph.graph.storage import PANEL

EDITS = {
    "neuron": lambda net: net.layers[0].neurons[3].prune(),
    "neurons": lambda net: net.graph.prune(net.layers[0].neurons[1:]),
    "edge": lambda net: net.layers[1].neurons[3].edges[5].prune(),
    "edges": lambda net: edits.cut(net.graph, arrays.wiring(net.graph), np.random.default_rng(1).random(447) < 0.5),
    "no bias": lambda net: setattr(net.layers[0].neurons[3], "bias", None),
    "new edge": lambda net: net.graph.add_edge(net.graph[3], net.layers[2].neurons[1], 0.5),
    "new neuron": lambda net: net.graph.add_neuron(net.layers[0].neurons[:3], "tanh", weights=[1, 2, 3], bias=0.5),
    "new neurons": lambda net: net.graph.add_neurons(
        net.layers[0].neurons[:3], weights=np.ones((20, 3)), biases=np.ones(20)
    ),
    "several": lambda net: several(net),
    "several, and one within": lambda net: several(net, within=True),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("optimizer", [pytest.param("sgd", marks=pytest.mark.slow), "adam"])
@pytest.mark.parametrize("name", EDITS)
def test_undo_restores_everything(name, optimizer, compiled):
    net = network()
    net.fit(X, Y, epochs=2, optimizer=optimizer, learning_rate=0.01)
    before, values, alive = everything(net.graph), net.forward(X), net.graph.alive().tolist()
    for _ in range(2):
        EDITS[name](net)
        assert everything(net.graph) != before
        if compiled:
            x = np.pad(X, ((0, 0), (0, net.graph.n_inputs - X.shape[1])))
            net.forward(x)
            net.evaluate(x, Y)
        net.undo()
        assert everything(net.graph) == before and net.graph.alive().tolist() == alive
        assert net.forward(X).tobytes() == values.tobytes()
        with pytest.raises(ValueError, match="undo: "):
            net.undo()


def test_undo_after_training_restores_cut_edges():
    """What has been trained since stays. The restored edges have no state of the earlier run."""
    net = network()
    net.fit(X, Y, epochs=1)
    neuron = net.layers[1].neurons[4]
    cut = neuron.edges[7]
    assert net.graph.storage.state["first"][net.graph.storage.weights[net.graph._data[neuron.id]] + 7 * PANEL] != 0
    cut.prune()
    net.fit(X, Y, epochs=1)
    trained = neuron.weights.copy()
    net.undo()
    assert neuron.edges[7] == cut
    np.testing.assert_array_equal(np.delete(neuron.weights, 7), trained)
    record = net.graph._data[neuron.id]
    place = net.graph.storage.weights[record] + 7 * net.graph.storage.stride[record]
    velocity = net.graph.storage.state_vector("first", fresh=False)
    assert velocity[place] == 0 and velocity[place - net.graph.storage.stride[record]] != 0


def test_only_the_last_edit_can_be_undone():
    net = network()
    net.layers[0].neurons[0].prune()
    net.layers[0].neurons[1].prune()
    net.undo()
    assert not net.layers[0].neurons[0].alive and net.layers[0].neurons[1].alive
    net.layers[0].neurons[1].prune()
    net.graph.constant(1.0)
    expected = "undo: the graph has changed since its last edit, for example by a new node"
    with pytest.raises(ValueError, match=expected):
        net.undo()


@pytest.mark.parametrize("copied", [mlgraph.Graph.copy, copy.copy], ids=["method", "module"])
def test_copy_of_a_graph_has_no_last_edit(copied):
    """Unlike `deepcopy` and `pickle`."""
    net = network()
    before = everything(net.graph)
    net.layers[0].neurons[3].prune()
    other = copied(net.graph)
    cut = everything(other)
    with pytest.raises(ValueError, match=r"^undo: nothing to undo; only the last edit is kept"):
        other.undo()
    assert everything(other) == cut == everything(net.graph)
    net.undo()
    assert everything(net.graph) == before


def test_new_nodes_reuse_the_ids_of_removed_nodes():
    """They have their own names, constants and records."""
    g = mlgraph.Graph()
    x = g.input("x")
    y = g.add_neurons([x], weights=np.ones((2, 1)), biases=None)
    model = mlgraph.Model(g, [g[i] for i in y])
    with g.one_edit():
        g.input("a")
        g.parameter(3.0, "b")
        g.constant(5.0)
        g.add_neurons([x], weights=np.ones((3, 1)), biases=None)
    g.undo()
    nodes = [g.constant(7.0), g.input(), g.parameter(2.0), g.add_neuron([x], weights=[9.0])]
    assert not {node.name for node in nodes} & {"a", "b"}
    assert (nodes[0].value, nodes[2].value, nodes[3].weights.tolist(), g.n_inputs) == (7, 2, [9], 2)
    g.add_neurons([x], weights=np.ones((5, 1)), biases=None)
    g.undo()
    assert len(g.storage) == 2 + 2 and model.sparsity == pytest.approx(1 - 2 / 3)


def test_undo_does_not_remove_outputs_of_a_model():
    g = mlgraph.Graph()
    n = g.add_neuron(g.inputs(2))
    model = mlgraph.Model(g, [n])
    with pytest.raises(ValueError, match="undo: the last edit added n2, which is an output of a model"):
        g.undo()
    assert model.forward([[1, 2]]) == 0


@pytest.mark.parametrize(
    "nothing",
    [
        lambda net: net.prune(0.1),
        lambda net: net.graph.prune([]),
        lambda net: net.layers[0].neurons[0].prune(),
        lambda net: net.regrow(0),
    ],
    ids=["less", "no edge", "dead", "no place"],
)
def test_edit_that_changed_nothing_can_be_undone(nothing):
    """The edit before it stays."""
    net = network()
    net.layers[0].neurons[0].prune()
    net.prune(0.5)
    before, edits_before = everything(net.graph), net.graph.edits
    nothing(net)
    net.undo()
    assert everything(net.graph) == before and net.graph.edits == edits_before
    with pytest.raises(ValueError, match="undo: nothing to undo"):
        net.undo()


def test_undo_does_not_disconnect_outputs_of_a_model():
    g = mlgraph.Graph()
    x = g.inputs(2)
    n = g.add_neuron([x[0]], weights=[2.0])
    n.prune()
    with g.one_edit():
        g.add_edge(x[1], n, 3.0)
        g.add_edge(x[0], n, 1.0)
    model = mlgraph.Model(g, [n])
    before = everything(g)
    with pytest.raises(ValueError, match=r"^undo: this would disconnect n2"):
        g.undo()
    assert everything(g) == before and model.forward([[1, 1]]) == 4
    del model
    gc.collect()
    g.undo()
    assert not n.sources


def test_undo_makes_models_forget_removed_nodes():
    g = mlgraph.Graph()
    x = g.inputs(4)
    first, second = (mlgraph.Model(g, g.add_neuron(x, weights=w)) for w in ([1, 2, 3, 4], [5, 6, 7, 8]))
    with g.one_edit():
        hidden = g.add_neuron(x, "tanh", weights=[0.1] * 4)
        g.add_edge(hidden, first.outputs[0], 0.01)
    assert first.sparsity == 0 and first.n_edges == 9
    g.undo()
    again = g.add_neuron(x, "tanh", weights=[0.001] * 4)
    g.add_edge(again, second.outputs[0], 1.0)
    assert again.id == hidden.id and (first.n_edges, second.n_edges) == (4, 9)
    first.prune(0.25)
    assert (first.n_edges, second.n_edges) == (3, 9)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("at", ["steps", "epoch"])
def test_undo_of_parameters_within_a_run(optimizer, at):
    """The run continues with fresh optimizer state."""
    net = network()
    before = net.graph.get_parameters()
    with net.graph.one_edit(parameters=True):
        net.layers[0].neurons[0].activation = "relu"
    taken = []

    def undo_once(progress):
        if progress.kind == at and not taken:
            net.undo()
            taken.append(net.graph.get_parameters())
            assert all(not vector.any() for vector in net.graph.storage.state.values())

    history = net.fit(X, Y, epochs=3, optimizer=optimizer, learning_rate=0.001, callback=undo_once)
    np.testing.assert_array_equal(taken[0], before)
    assert np.isfinite(history.epoch_loss).all() and len(history.epoch_loss) == 3


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_undo_within_a_run_restores_no_state_of_the_last_run(optimizer):
    net = network()
    net.fit(X, Y, epochs=5, batch_size=16)
    edges = [edge for neuron in net.layers[0].neurons for edge in neuron.edges][::3]
    net.graph.prune(edges)
    state = []

    def undo_once(progress):
        if not state:
            net.undo()
            places = [net.graph.storage.weights[net.graph._data[e.target.id]] + k for e in edges[:1] for k in range(3)]
            state.extend(vector[places].tolist() for vector in net.graph.storage.state.values())

    net.fit(X, Y, epochs=1, batch_size=64, optimizer=optimizer, learning_rate=1e-3, callback=undo_once)
    assert state and all(row[0] == 0 for row in state)  # of the first edge, which was cut


def test_undo_restores_frozen_edges():
    """Even if nothing was frozen in the meantime."""
    net = network()
    edge = net.layers[0].neurons[0].edges[0]
    edge.frozen = True
    edge.prune()
    net.predict(X)
    net.layers[1].frozen = True
    net.layers[1].frozen = False
    assert "frozen" not in net.graph.storage.state
    net.undo()
    assert edge.frozen and not net.layers[0].neurons[0].edges[1].frozen


@pytest.mark.parametrize("ends", ["the edit", "the one around it", "an exception"])
def test_run_within_an_edit_drops_the_state_of_the_last_run(ends):
    """Otherwise moments of Adam would become velocities."""
    net = network()
    net.fit(X, Y, epochs=1, optimizer="adam", learning_rate=1e-3)
    edge, g = net.layers[0].neurons[0].edges[0], net.graph

    def fail():
        with g.one_edit():
            net.fit(X, Y, epochs=1)
            raise KeyError

    if ends == "an exception":
        edge.prune()
        with pytest.raises(KeyError):
            fail()
    else:
        with g.one_edit():
            edge.prune()
            with g.one_edit() if ends == "the edit" else contextlib.nullcontext():
                net.layers[0].neurons[1].edges[0].prune()
                net.fit(X, Y, epochs=1)
    net.undo()
    assert set(g.optimizer_state()) == {"first"} and edge.weight != 0
    for neuron in net.layers[0].neurons[: 1 if ends == "an exception" else 2]:
        assert g.optimizer_state()["first"][g.get_parameters() == neuron.edges[0].weight] == 0


@pytest.mark.parametrize("looks", [False, True])
def test_sparsity_depends_only_on_edits(looks):
    """Not on when it was read; undone edits and intermediate states of one edit do not count."""
    g = mlgraph.Graph()
    x = g.inputs(2)
    hidden = [g.add_neuron(x, "tanh", weights=[0.1 * (k + 1), 1.0]) for k in range(2)]
    first, second = (mlgraph.Model(g, g.add_neuron(hidden[:n], weights=[1.0] * n)) for n in (1, 2))

    def grow():
        g.add_edge(hidden[1], first.outputs[0], 0.5)
        assert not looks or first.sparsity == 0

    grow()
    g.undo()
    assert (first.sparsity, second.sparsity) == (0, 0)
    with g.one_edit():
        grow()
        first.outputs[0].edges[1].prune()
    assert (first.sparsity, second.sparsity) == (1 / 4, 0)  # of the output's two edges one is there
    g.undo()
    with g.one_edit():
        grow()
        with g.one_edit():
            first.outputs[0].edges[1].prune()
    assert first.sparsity == 1 / 4
    g.undo()
    first.prune(1 / 3)
    assert first.n_edges == 2
    g.undo()
    grow()
    first.outputs[0].edges[1].prune()
    assert first.sparsity == 1 - 3 / 6 and second.sparsity == 0  # now it has lost a neuron, with its two edges
