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
    """Closing the gaps changes no value."""
    net = network(hidden=(40, 40))
    rng, g = np.random.default_rng(0), net.graph
    for step in range(120):
        neuron = net.layers[1].neurons[rng.integers(0, 40)]
        missing = [node for node in net.layers[0] if node not in neuron.sources]
        if missing and step % 2:
            g.add_edge(missing[rng.integers(0, len(missing))], neuron, 1.0)
        else:
            neuron.in_edges[rng.integers(0, len(neuron.sources))].prune()
        assert len(g._pool) + g.storage.used <= 2 * packing.in_use(g) + 1024
    before = everything(g)
    packing.compact(g, most=-1)
    assert everything(g) == before and packing.in_use(g) == len(g._pool) + g.storage.used - -g.n_parameters % PANEL


@pytest.mark.parametrize(
    "copied",
    [mlgraph.Graph.copy, copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))],
    ids=["method", "copy", "deepcopy", "pickle"],
)
def test_copy_shares_nothing_and_is_aligned_to_cache_lines(copied):
    """It is copied four times, because NumPy's own arrays are sometimes aligned by chance."""
    net = network()
    net.fit(X, Y, epochs=1, optimizer="sgd", learning_rate=0.05, batch_size=128)
    net.layers[0].neurons[3].prune()
    before, other = everything(net.graph), net.graph
    for _ in range(4):
        other = copied(other)
        vectors = other.storage.vectors().values()
        assert everything(other) == before
        assert len(vectors) == 2 and all(vector.ctypes.data % 64 == 0 for vector in vectors)
    for vector in vectors:
        vector += 1
    other.prune([(other[0], other[12])])
    other[0].name = "other"
    other.add_neuron(other.add_inputs(1))
    assert everything(net.graph) == before


def test_pickle_leaves_out_what_is_compiled():
    net = network()
    net.evaluate(X, Y)
    assert len(pickle.dumps(net)) < 1.4 * len(pickle.dumps(net.graph))
    assert pickle.loads(pickle.dumps(net)).forward(X).tobytes() == net.forward(X).tobytes()


def test_pickle_of_a_pruned_network_is_smaller():
    net = network(hidden=(40, 30))
    dense = len(pickle.dumps(net))
    net.prune(0.9)
    assert len(pickle.dumps(net)) < 0.7 * dense
    assert len(pickle.dumps(copy.deepcopy(net))) < 0.7 * dense


def test_added_neurons_have_no_state_and_padding_is_zero():
    """For neurons next to trained ones, rows and blocks, some read by no output."""
    net = network(hidden=(9, 5))
    net.fit(X, Y, epochs=1, momentum=0.9)
    g = net.graph
    new = g.add_neuron(net.layers[0].neurons, "tanh", weights=np.ones(9), bias=1.0)
    idle = g.add_neurons(list(g)[:5], weights=np.ones((3, 5)), biases=np.ones(3))
    for output in net.outputs[:2]:
        g.add_edge(new, output, 1.0)
    net.layers[1].neurons[1].in_edges[2].prune()
    moves = g.storage.moves
    net.predict(X)
    assert g.storage.moves > moves and g.storage.used == len(g.parameters) and len(g.parameters) % PANEL == 0
    first, padding = g.storage.vectors()["first"], np.ones(len(g.parameters), bool)
    mine = arrays.wiring(g, np.array([new.id, *idle], np.int32)).place
    padding[arrays.parameter_places(g)] = False
    assert (g.parameters[mine] == 1).all() and not first[mine].any() and first.any()
    assert not g.parameters[padding].any() and not first[padding].any() and padding.any()


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
                last.in_edges[0].prune()  # its weights stand elsewhere then
            kept.append((last.weights.tolist(), last.bias))

    net.fit(X, Y, epochs=3, callbacks=[edit])
    assert [(last.weights.tolist(), last.bias)] == kept


def test_bias_at_place_zero_counts(monkeypatch):
    monkeypatch.setattr(packing, "SMALL", -1)
    g = mlgraph.Graph()
    neuron = g.add_neuron(g.add_inputs(1), weights=[2.0], bias=3.0)
    neuron.prune()
    packing.compact(g, most=-1)
    assert g.storage.bias.tolist() == [0] and g.n_parameters == len(g.get_parameters()) == 1 and neuron.bias == 3
    assert g.parameters.tolist() == [3] + [0] * (PANEL - 1)


def test_records_may_be_in_any_order(monkeypatch):
    """As they may be in a file."""
    monkeypatch.setattr(packing, "SMALL", -1)
    g = mlgraph.Graph()
    x = g.add_inputs(3)
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


def test_removed_bias_leaves_zeros():
    """Its place may become the padding of a block."""
    net = network()
    net.fit(X, Y, epochs=1)
    neuron = net.layers[0].neurons[3]
    place = neuron.parameter_places()[-1]
    assert all(vector[place] for vector in net.graph.storage.vectors().values())
    neuron.bias = None
    assert not any(vector[place] for vector in net.graph.storage.vectors().values())
