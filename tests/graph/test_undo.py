"""Undoing and redoing edits: what returns, and what stays as it is."""

import contextlib
import copy
import gc
import pickle

import numpy as np
import pytest
from editable import X, Y, everything, network, several

import mlgraph

EDITS = {
    "neurons": lambda net: net.graph.prune(net.layers[0].neurons[1:]),
    "edges": lambda net: net.graph.prune([edge for neuron in net.layers[1] for edge in neuron.in_edges[::2]]),
    "no bias": lambda net: setattr(net.layers[0].neurons[3], "bias", None),
    "activation": lambda net: setattr(net.layers[0].neurons[3], "activation", "tanh"),
    "new edge": lambda net: net.graph.add_edge(net.graph[3], net.layers[2].neurons[1], 0.5),
    "new neurons": lambda net: net.graph.add_neurons(net.layers[0].neurons[:3], weights=np.ones((20, 3)), biases=1.0),
    "several, and some within": lambda net: several(net, within=True),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("optimizer", [pytest.param("sgd", marks=pytest.mark.slow), "adam"])
@pytest.mark.parametrize("name", EDITS)
def test_undo_restores_everything(name, optimizer, compiled):
    net = network()
    net.fit(X, Y, epochs=2, optimizer=optimizer, learning_rate=0.01)
    net.graph.add_input()  # is no edit, so this is where `undo` ends
    x = np.pad(X, ((0, 0), (0, 1)))
    before, values, alive = everything(net.graph), net.forward(x), net.graph.alive().tolist()
    for _ in range(2):
        EDITS[name](net)
        after, wide = everything(net.graph), np.pad(X, ((0, 0), (0, net.graph.n_inputs - X.shape[1])))
        edited = net.forward(wide)
        assert after != before
        for _ in range(2):
            if compiled:
                net.evaluate(wide, Y)
            net.undo()
            assert everything(net.graph) == before and net.graph.alive().tolist() == alive
            assert net.forward(x).tobytes() == values.tobytes()
            with pytest.raises(ValueError, match=r"^undo: nothing to undo"):
                net.undo()
            if compiled:
                net.evaluate(x, Y)
            net.redo()
            assert everything(net.graph) == after and net.forward(wide).tobytes() == edited.tobytes()
            with pytest.raises(ValueError, match=r"^redo: nothing to redo"):
                net.redo()
        net.undo()


def made_by_chance(net, rng):
    """One edit."""
    g, layers = net.graph, net.layers
    neuron = layers[rng.integers(2)][rng.integers(9)]
    match rng.integers(9):
        case 0:
            g.prune(neuron)
        case 1:
            net.prune(max(0.0, 1 - 0.9 * g.n_edges / (12 * 20 + 20 * 9 + 9 * 3)))
        case 2:
            net.regrow(0.2, by="random")
        case 3:
            neuron.activation = "tanh" if neuron.activation == "relu" else "relu"
        case 4:
            neuron.bias = None if neuron.bias else 1.0
        case 5:
            net.widen(layers[0], 2)[0].name = f"new{len(g)}"
        case 6:
            with g.one_edit(parameters=True):
                layers[1].frozen = bool(rng.integers(2))
                layers[0].biases = rng.random(layers[0].size)
                g.prune(neuron.in_edges[:2])
        case 7:
            with g.one_edit():
                g.add_edge(g.add_parameter(2.0, f"p{len(g)}") * g.add_input() + rng.random(), layers[1][3], 0.5)
                net.widen(layers[0])[0].in_edges[1].prune()
        case _:
            layers[1].mask = layers[1].mask & (rng.random(layers[1].mask.shape) < 0.9)


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 60))])
def test_edits_undone_and_redone_leave_what_was_before(seed):
    """Any number of edits and in any order, bit for bit; afterwards the network can be trained."""
    net, rng = network(), np.random.default_rng(seed)
    other = mlgraph.Model(net.graph, net.layers[0][19])
    net.fit(X, Y, epochs=1, optimizer="adam", learning_rate=0.01, seed=0)

    def state():
        x = np.pad(X, ((0, 0), (0, net.graph.n_inputs - 12)))
        arrays = [vector.tobytes() for vector in (net.forward(x), net.graph.get_parameters())]
        ids = [(layer.ids, layer.source_ids) for layer in net.layers]
        return everything(net.graph), arrays, ids, net.sparsity, other.sparsity, net.frozen

    states, at = [state()], 0
    for _ in range(30):
        match rng.integers(4):
            case 0 | 1:
                made_by_chance(net, rng)
                states[at + 1 :] = [state()]
                at += 1
            case 2:
                for _ in range(min(at, rng.integers(5))):
                    net.undo()
                    at -= 1
            case _:
                for _ in range(min(len(states) - 1 - at, rng.integers(5))):
                    net.redo()
                    at += 1
        assert state() == states[at]
    net.fit(np.pad(X, ((0, 0), (0, net.graph.n_inputs - 12))), Y, epochs=1)


def test_views_of_a_node_that_returns_are_valid_again():
    g = mlgraph.Graph()
    x = g.add_input("x")
    y = g.add_neuron([x], weights=[2.0])
    f = g.compile(y)
    gradients = f.vjp([[3.0]])
    g.undo()
    without = g.compile(x).vjp([[3.0]])
    with pytest.raises(ValueError, match="removed"):
        f([[3.0]])
    g.redo()
    assert y in g and y.weights.tolist() == [2] and f([[3.0]]) == 6 and gradients.of(y).tolist() == [3]
    with pytest.raises(ValueError, match="was added after these gradients"):
        without.of(y)


def test_redo_ends_with_a_new_edit_and_undo_with_a_new_node():
    net = network()
    neurons, g = net.layers[0].neurons, net.graph
    neurons[0].prune()
    neurons[1].prune()
    net.undo()
    node = g.add_input()
    for again, name in ((net.undo, "undo"), (net.redo, "redo")):
        with pytest.raises(ValueError, match=f"^{name}: the graph has changed since its last edit"):
            again()
    neurons[2].prune()
    with pytest.raises(ValueError, match=r"^redo: nothing to redo"):
        net.redo()
    net.undo()
    with pytest.raises(ValueError, match=r"^undo: nothing to undo"):
        net.undo()
    assert node in g and [bool(neuron.in_edges) for neuron in neurons[:3]] == [False, True, True]


def test_redo_does_not_disconnect_the_output_of_a_new_model():
    g = mlgraph.Graph()
    x = g.add_input()
    n = g.add_neuron([x], weights=[2.0])
    with g.one_edit():
        g.add_neuron([x])
        n.prune()
    g.undo()
    model = mlgraph.Model(g, n)
    before = everything(g), g.edits
    with pytest.raises(ValueError, match=r"^redo: this would disconnect n1"):
        g.redo()
    assert (everything(g), g.edits) == before and model.forward([[1]]) == 2


@pytest.mark.parametrize("forward", [False, True])
def test_memory_of_edits_is_bounded(forward):
    """The oldest are forgotten first; the last one is kept, whatever its size."""
    net = network()
    g = net.graph

    def undone(n):
        """How often it can be undone, at most n times."""
        for k in range(n):
            try:
                net.undo()
            except ValueError:
                return k
        return n

    def cut(n):
        for edge in net.layers[0].neurons[3].in_edges[:n]:
            edge.prune()

    assert g.undo_memory == 64 * 2**20
    cut(5)
    size = g.last_edit.size
    assert 300 < size < 3000 and g.last_edit.total > 5 * size
    g.undo_memory = 4 * size
    if forward:
        assert undone(9) == 3
        net.redo()
        cut(1)
    assert undone(9) == (2 if forward else 3)
    g.undo_memory = 0
    before = everything(g)
    net.layers[0].neurons[4].prune()
    net.layers[0].neurons[5].prune()
    assert undone(9) == 1 and everything(g) != before
    net.redo()
    assert not net.layers[0].neurons[5].in_edges
    with pytest.raises(ValueError, match="undo_memory: expected"):
        g.undo_memory = -1
    assert g.copy().undo_memory == copy.deepcopy(g).undo_memory == 0


def velocities(neuron):
    """The optimizer's state of a neuron's edges, found by their weights."""
    g = neuron.graph
    places = [np.flatnonzero(g.get_parameters() == weight)[0] for weight in neuron.weights]
    return g.optimizer_state()["first"][places]


def test_undo_after_training_restores_cut_edges():
    """What has been trained since stays. The restored edges have no state of the earlier run."""
    net = network()
    net.fit(X, Y, epochs=1)
    neuron = net.layers[1].neurons[4]
    cut, weight = neuron.in_edges[7], neuron.weights[7]
    assert velocities(neuron).all()
    cut.prune()
    net.fit(X, Y, epochs=1)
    trained = neuron.weights.copy()
    net.undo()
    assert neuron.in_edges[7] == cut and cut.weight == weight
    np.testing.assert_array_equal(np.delete(neuron.weights, 7), trained)
    assert (velocities(neuron) == 0).tolist() == [k == 7 for k in range(20)]


def test_copies_have_no_edits_to_undo():
    net = network()
    net.layers[0][0].prune()
    cut = everything(net.graph)
    deep, pickled = copy.deepcopy(net).graph, pickle.loads(pickle.dumps(net)).graph
    for other in (net.graph.copy(), copy.copy(net.graph), deep, pickled):
        with pytest.raises(ValueError, match="undo: nothing to undo"):
            other.undo()
        assert everything(other) == cut


def test_new_nodes_reuse_the_ids_of_removed_nodes():
    """They have their own names, constants and records."""
    g = mlgraph.Graph()
    x = g.add_input("x")
    y = g.add_neurons([x], weights=np.ones((2, 1)), biases=None)
    model = mlgraph.Model(g, [g[i] for i in y])
    with g.one_edit():
        g.add_input("a")
        g.add_parameter(3.0, "b")
        g.add_constant(5.0)
        g.add_neurons([x], weights=np.ones((3, 1)), biases=None)
    g.undo()
    nodes = [g.add_constant(7.0), g.add_input(), g.add_parameter(2.0), g.add_neuron([x], weights=[9.0])]
    assert not {node.name for node in nodes} & {"a", "b"}
    assert (nodes[0].value, nodes[2].value, nodes[3].weights.tolist(), g.n_inputs) == (7, 2, [9], 2)
    g.add_neurons([x], weights=np.ones((5, 1)), biases=None)
    g.undo()
    assert len(g.storage) == 2 + 2 and model.sparsity == pytest.approx(1 - 2 / 3)


def test_undo_neither_removes_nor_disconnects_outputs_of_a_model():
    g = mlgraph.Graph()
    x = g.add_inputs(2)
    n = g.add_neuron([x[0]], weights=[2.0])
    models = [mlgraph.Model(g, n)]
    with pytest.raises(ValueError, match="undo: the last edit added n2, which is an output of a model"):
        g.undo()
    models.clear()
    gc.collect()
    n.prune()
    with g.one_edit():
        g.add_edge(x[1], n, 3.0)
        g.add_edge(x[0], n, 1.0)
    models.append(mlgraph.Model(g, n))
    with pytest.raises(ValueError, match=r"^undo: this would disconnect n2"):
        g.undo()
    assert models[0].forward([[1, 1]]) == 4
    models.clear()
    gc.collect()
    g.undo()
    assert not n.sources


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

    history = net.fit(X, Y, epochs=3, optimizer=optimizer, learning_rate=0.001, callbacks=[undo_once])
    np.testing.assert_array_equal(taken[0], before)
    assert np.isfinite(history.epoch_loss).all() and len(history.epoch_loss) == 3


def test_undo_restores_frozen_parameters():
    """Even if nothing was frozen in the meantime."""
    net = network()
    first, second = net.layers[0].neurons[:2]
    with contextlib.suppress(KeyError), net.graph.one_edit(parameters=True):
        second.frozen = True
        raise KeyError
    assert not second.frozen
    for change, places in ((first.in_edges[0].prune, [0]), (lambda: setattr(second, "bias", None), [25])):
        first.in_edges[0].frozen = second.frozen = True
        change()
        net.predict(X)  # moves the parameters
        net.layers[0].frozen = False
        net.undo()
        layer = np.concatenate([neuron.parameter_places() for neuron in net.layers[0]])
        assert np.flatnonzero(net.graph.storage.frozen[layer]).tolist() == places


@pytest.mark.parametrize("inner", [False, True])
def test_run_within_an_edit_drops_the_state_of_the_last_run(inner):
    """Otherwise moments of Adam would become velocities."""
    net = network()
    net.fit(X, Y, epochs=1, optimizer="adam", learning_rate=1e-3)
    neurons, g = net.layers[0].neurons[:2], net.graph
    with g.one_edit():
        neurons[0].in_edges[0].prune()
        with g.one_edit() if inner else contextlib.nullcontext():
            neurons[1].in_edges[0].prune()
            net.fit(X, Y, epochs=1, optimizer="sgd", learning_rate=0.05, batch_size=128)
    net.undo()
    assert set(g.optimizer_state()) == {"first"}
    for neuron in neurons:
        assert (velocities(neuron) == 0).tolist() == [True] + [False] * 11


@pytest.mark.parametrize("looks", [False, True])
def test_sparsity_depends_only_on_edits(looks):
    """Not on when it was read; undone edits and intermediate states of one edit do not count."""
    g = mlgraph.Graph()
    x = g.add_inputs(2)
    hidden = [g.add_neuron(x, weights=[1.0, 1.0]) for _ in range(2)]
    first, second = (mlgraph.Model(g, g.add_neuron(hidden[:n], weights=[1.0] * n)) for n in (1, 2))

    def grow_and_cut():
        g.add_edge(hidden[1], first.outputs[0], 0.5)
        assert not looks or first.sparsity == 0
        first.outputs[0].in_edges[1].prune()

    with g.one_edit():
        g.add_input()  # `undo` removes it
        grow_and_cut()
    assert (first.sparsity, second.sparsity) == (1 / 4, 0)  # of the output's two edges one is there
    g.undo()
    assert (first.sparsity, second.sparsity) == (0, 0)
    grow_and_cut()
    assert (first.sparsity, second.sparsity) == (1 / 2, 0)  # with its second edge it has lost a neuron of two edges


def test_derivatives_in_an_edit_are_taken_back_and_return():
    g = mlgraph.Graph()
    x, z = g.add_input("x"), g.add_input("z")
    n = g.add_neuron([x], "tanh", weights=[0.5], bias=0.1)
    with g.one_edit():
        slope = mlgraph.grad(n, x)
        curve = mlgraph.grad(slope, x)
    values = g.compile([slope, curve])([[0.3, 0.0]])
    g.undo()
    assert len(g) == 3
    g.redo()
    assert g.compile([slope, curve])([[0.3, 0.0]]).tobytes() == values.tobytes()
    for edit in (lambda: g.add_edge(z, n, 1.0), lambda: setattr(n, "activation", "relu")):
        with pytest.raises(ValueError, match=r"a derivative made by mlgraph\.grad"):
            edit()
    g.undo()
    g.add_edge(z, n, 1.0)  # no derivative is left that it would make wrong
    n.activation = "relu"


def test_no_edge_returns_into_a_neuron_that_has_been_derived_since():
    g = mlgraph.Graph()
    x, z = g.add_input("x"), g.add_input("z")
    n, other = g.add_neuron([x], weights=[2.0]), g.add_neuron([z], weights=[3.0])
    both = n + other
    slope = mlgraph.grad(n, x)
    g.add_edge(x, other, 0.5)
    g.undo()
    assert mlgraph.grad(both, x) == slope  # no new node
    with pytest.raises(ValueError, match=r"^redo: nothing to redo"):
        g.redo()
