"""Places of parameters: what edits and compilations leave in the vectors."""

import copy
import pickle

import numpy as np
import pytest
from editable import X, Y, everything, network

import mlgraph
from mlgraph.graph import arrays, compaction as packing
from mlgraph.graph.storage import PANEL


def test_unused_storage_stays_bounded():
    net = network(hidden=(40, 40))
    rng, g = np.random.default_rng(0), net.graph
    for step in range(300):
        neuron = net.layers[rng.integers(0, 2)].neurons[rng.integers(0, 40)]
        others = list(g)[:12] if neuron in net.layers[0].neurons else net.layers[0].neurons
        missing = [node for node in others if node not in neuron.sources]
        if missing and step % 2:
            g.add_edge(missing[rng.integers(0, len(missing))], neuron, 1.0)
        else:
            neuron.edges[rng.integers(0, len(neuron.sources))].prune()
        assert len(g._pool) + g.storage.used <= 2 * packing.in_use(g) + 1024
    before = everything(g)
    packing.compact(g, most=-1)
    assert everything(g) == before and packing.in_use(g) == len(g._pool) + g.storage.used - -g.n_parameters % PANEL


def test_copy_shares_nothing():
    net = network()
    net.fit(X, Y, epochs=1)
    before, values = everything(net.graph), net.forward(X)
    other = net.graph.copy()
    assert everything(other) == before
    for vector in (other.parameters, *other.storage.state.values()):
        vector += 1
    assert everything(net.graph) == before
    other.prune([(other[0], other[12])])
    other.parameters[:] = 0
    other[0].name = "other"
    other.add_neuron(other.inputs(1))
    assert everything(net.graph) == before and net.forward(X).tobytes() == values.tobytes()


def test_added_neurons_have_no_state_and_padding_is_zero():
    """For neurons next to trained ones, rows and blocks, some read by no output."""
    net = network(hidden=(9, 5))
    net.fit(X, Y, epochs=1, momentum=0.9)
    g = net.graph
    new = g.add_neuron(net.layers[0].neurons, "tanh", weights=np.ones(9), bias=1.0)
    idle = g.add_neurons(list(g)[:5], weights=np.ones((3, 5)), biases=np.ones(3))
    for output in net.outputs[:2]:
        g.add_edge(new, output, 1.0)
    net.layers[1].neurons[1].edges[2].prune()
    net.predict(X)
    assert g.storage.used == len(g.parameters) and len(g.parameters) % PANEL == 0
    first, padding = g.storage.vectors()["first"], np.ones(len(g.parameters), bool)
    mine = arrays.wiring(g, np.array([new.id, *idle], np.int32)).place
    has = np.array(g.storage.bias) >= 0
    padding[arrays.wiring(g).place] = padding[np.array(g.storage.bias)[has]] = False
    assert (g.parameters[mine] == 1).all() and not first[mine].any() and first.any()
    assert not g.parameters[padding].any() and not first[padding].any() and padding.any()


def test_optimizer_state_is_in_the_order_of_the_parameters():
    g = mlgraph.Graph()
    x, p = g.inputs(3), g.parameter(0.5)
    neurons = [g.add_neuron([*x, p], weights=[1.0, -2.0, 3.0, 0.5], bias=0.5), g.add_neuron(x[:1], weights=[2.0])]
    model, data, targets = mlgraph.Model(g, neurons), [[1.0, 2.0, 3.0]], [[4.0, 5.0]]
    assert g.optimizer_state() == {}
    gradient = model.gradients(data, targets).flat
    before = g.get_parameters()
    model.fit(data, targets, epochs=1, learning_rate=0.125, momentum=0.5)
    (velocity,) = g.optimizer_state().values()
    np.testing.assert_allclose(velocity, gradient, rtol=1e-6)
    np.testing.assert_allclose(g.get_parameters(), before - 0.125 * velocity, rtol=1e-6)
    g.parameters[:], g.edge(x[1], neurons[0]).frozen = 0, True
    g.set_parameters(before)
    model.fit(data, targets, epochs=1, learning_rate=0.125, optimizer="adam")
    state = g.optimizer_state()
    assert list(state) == ["first", "second"]
    gradient[2] = 0  # behind the parameter, a node before the neuron
    np.testing.assert_allclose(state["first"], (1 - np.float32(0.9)) * gradient, rtol=1e-5)
    np.testing.assert_allclose(state["second"], (1 - np.float32(0.999)) * gradient**2, rtol=1e-5)
    model.fit(data, targets, epochs=1, learning_rate=0.125)
    assert list(g.optimizer_state()) == ["first"]  # of another optimizer nothing is left
    state["first"][:] = 9
    assert (g.optimizer_state()["first"] != 9).all()


@pytest.mark.parametrize("there", ["both", "weights", "bias"])
def test_disconnected_neuron_is_not_trained(there):
    """It must not be in the padding of a block, because updates cover whole panels."""
    net = network(hidden=(9, 5))
    for neuron in net.layers[0].neurons if there == "weights" else ():
        neuron.bias = None
    net.fit(X, Y, epochs=1)
    last, kept = net.layers[0].neurons[-1], []

    def edit(progress):
        if progress.kind == "epoch" and progress.epoch == 0:
            net.graph.prune([(last, n) for n in net.layers[1].neurons])
            if there == "bias":
                last.edges[0].prune()  # its weights stand elsewhere then
            kept.append((last.weights.tolist(), last.bias))

    net.fit(X, Y, epochs=3, callback=edit)
    assert [(last.weights.tolist(), last.bias)] == kept


def test_copy_module_and_pickle_copy_the_graph():
    net = network()
    values = net.forward(X)
    for other in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.graph is not net.graph and other.forward(X).tobytes() == values.tobytes()
        other.layers[0].neurons[3].prune()
        assert other.n_edges < net.n_edges and net.forward(X).tobytes() == values.tobytes()
    assert copy.copy(net.graph) is not net.graph and everything(copy.copy(net.graph)) == everything(net.graph)
    net.evaluate(X, Y)
    assert len(pickle.dumps(net)) < 1.4 * len(pickle.dumps(net.graph)), "what is compiled is not copied"


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"]
)
def test_copies_are_aligned_to_cache_lines(copied):
    """Four copies, because NumPy's own arrays are sometimes aligned by chance."""
    net = network()
    net.fit(X, Y, epochs=1)
    for _ in range(4):
        net = copied(net)
        vectors = [net.graph.parameters, *net.graph.storage.state.values()]
        assert len(vectors) == 2 and all(vector.ctypes.data % 64 == 0 for vector in vectors)


def test_deep_copy_can_undo_the_last_edit():
    net = network()
    before = everything(net.graph)
    net.layers[0].neurons[3].prune()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        other.undo()
        assert everything(other.graph) == before


def test_bias_at_place_zero_counts(monkeypatch):
    monkeypatch.setattr(packing, "SMALL", -1)
    g = mlgraph.Graph()
    neuron = g.add_neuron(g.inputs(1), weights=[2.0], bias=3.0)
    neuron.prune()
    packing.compact(g, most=-1)
    assert g.storage.bias.tolist() == [0] and g.n_parameters == len(g.get_parameters()) == 1 and neuron.bias == 3
    assert g.parameters.tolist() == [3] + [0] * (PANEL - 1)


def test_records_may_be_in_any_order(monkeypatch):
    """As they may be in a file."""
    monkeypatch.setattr(packing, "SMALL", -1)
    g = mlgraph.Graph()
    x = g.inputs(3)
    neurons = [g.add_neuron(x[: k + 1], weights=[k] * (k + 1), bias=k) for k in range(3)]
    for column in g.storage.columns:
        column[0], column[2] = column[2], column[0]
    for neuron, record in zip(neurons, (2, 1, 0), strict=True):
        g._data[neuron.id] = record
    before = everything(g)
    packing.compact(g, most=-1)
    assert everything(g) == before
    g.compile(neurons)
    assert everything(g) == before and mlgraph.Model(g, neurons[:2]).compact().graph.n_parameters == 5


def test_undo_restores_a_frozen_bias():
    """The removed bias leaves zeros."""
    net = network()
    neuron, storage = net.layers[0].neurons[3], net.graph.storage
    at = storage.bias[net.graph._data[neuron.id]]
    neuron.frozen = True
    neuron.bias = None
    assert storage.vector[at] == 0 == storage.state_vector("frozen", fresh=False)[at]
    neuron.frozen = False
    assert storage.frozen is None
    net.undo()
    assert storage.frozen[storage.bias[net.graph._data[neuron.id]]] == 1 == storage.frozen.sum()


def test_short_state_vectors_move_with_the_parameters():
    net = network(hidden=(9, 5))
    net.fit(X, Y, epochs=1, momentum=0.9)
    g = net.graph
    g.storage.state["first"][:] = 1
    new = g.add_neuron(net.layers[0].neurons, "tanh")
    moves = g.storage.moves
    mlgraph.Model(g, new).predict(X)
    first = g.storage.vectors()["first"]
    assert g.storage.moves > moves and not first[arrays.wiring(g, np.array([new.id], np.int32)).place].any()
    assert first[arrays.wiring(g, np.array(net.layers[0].ids, np.int32)).place].all()
