"""A write through an array that the API gave changes the network, or raises."""

import copy
import operator
import pickle

import numpy as np
import pytest

import mlgraph

X = np.ones((5, 4), np.float32)


def network():
    net = mlgraph.Network(4, seed=0)
    net.add_layer(3, "tanh")
    net.add_layer(2)
    net.layers[0].weights = np.arange(12).reshape(3, 4)
    return net


def moved(net):
    """Move the parameters: a call that computes other nodes, an edit of another neuron, and training."""
    weights = net.layers[0].weights
    net.graph.compile(net.layers[0][2])(X)
    net.graph.prune([(net.graph[1], net.layers[0][2])])
    net.trace(X)
    net.undo()
    net.fit(X, X[:, :2], epochs=1)
    assert net.graph.storage.moves
    net.layers[0].weights = weights


WRITES = {
    "element": (lambda w: operator.setitem(w, 0, 9), [9, 5, 6, 7]),
    "last": (lambda w: operator.setitem(w, -1, np.float64(9)), [4, 5, 6, 9]),
    "slice": (lambda w: operator.setitem(w, slice(None), 0), [0, 0, 0, 0]),
    "array": (lambda w: operator.setitem(w, [0, 2], [1, 2]), [1, 5, 2, 7]),
    "mask": (lambda w: operator.setitem(w, w > 5, -1), [4, 5, -1, -1]),
    "itself": (lambda w: operator.setitem(w, slice(None), w[::-1]), [7, 6, 5, 4]),
    "element in place": (lambda w: operator.setitem(w, 1, w[1] + 1), [4, 6, 6, 7]),
    "*=": (lambda w: operator.imul(w, 2), [8, 10, 12, 14]),
    "-=": (lambda w: operator.isub(w, w), [0, 0, 0, 0]),
    "/=": (lambda w: operator.itruediv(w, np.array([4, 5, 6, 7])), [1, 1, 1, 1]),
    "part *=": (lambda w: operator.imul(w[1:3], 2), [4, 10, 12, 7]),
    "part of a part": (lambda w: operator.setitem(w[1:][[0, 2]], 1, 9), [4, 5, 6, 9]),
    "ufunc": (lambda w: np.add(w, 1, out=w), [5, 6, 7, 8]),
    "ufunc where": (lambda w: np.add(w, 1, out=w, where=np.arange(4) > 2), [4, 5, 6, 8]),
}


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize(("write", "expected"), WRITES.values(), ids=WRITES)
def test_write_changes_the_network_wherever_its_parameters_are(write, expected, move):
    net = network()
    neuron, whole = net.layers[0][1], net.graph.weights_of(net.layers[0].ids[1])
    for weights in (neuron.weights, whole):
        if move:
            moved(net)
        neuron.weights = [4, 5, 6, 7]
        write(weights)
        assert neuron.weights.tolist() == weights.tolist() == net.layers[0].weights[1].tolist() == expected
        z = net.graph.compile(neuron)(X[:1] / 64)
        np.testing.assert_allclose(z, np.tanh(sum(expected) / 64 + neuron.bias), rtol=1e-5)


REFUSED = {
    "nan": (lambda w: operator.setitem(w, 0, np.nan), ValueError, "^weights: expected numbers, got nan$"),
    "nan in place": (lambda w: operator.imul(w, [1, np.nan, 1, 1]), ValueError, r"got nan at \[1\]$"),
    "too large": (lambda w: operator.setitem(w, 0, 1e39), ValueError, "that float32 can hold, got 1e\\+39"),
    "text": (lambda w: operator.setitem(w, 0, "a"), TypeError, "weights: expected numbers, got 'a'"),
    "index": (lambda w: operator.setitem(w, 4, 1), IndexError, "index 4 is out of bounds"),
    "shape": (lambda w: operator.setitem(w, slice(None), [1, 2]), ValueError, "could not be broadcast"),
    "asarray": (lambda w: operator.setitem(np.asarray(w), 0, 1), ValueError, "read-only"),
    "other dtype": (lambda w: operator.setitem(np.asarray(w, float), 0, 1), ValueError, "read-only"),
    "transposed": (lambda w: operator.setitem(w.T, 0, 1), ValueError, "read-only"),
    "reshaped": (lambda w: operator.setitem(w.reshape(2, 2), 0, 1), ValueError, "read-only"),
    "fill": (lambda w: w.fill(1), ValueError, "read-only"),
    "sort": (lambda w: w.sort(), ValueError, "read-only"),
    "ufunc at": (lambda w: np.add.at(w, 0, 1), TypeError, "NotImplemented"),
    "put": (lambda w: np.put(w, 0, 1), ValueError, "read-only"),
    "copyto": (lambda w: np.copyto(w, 1), TypeError, "Weights"),
    "attribute": (lambda w: setattr(w, "shape", (2, 2)), AttributeError, "shape"),
}


@pytest.mark.parametrize(("write", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_other_writes_raise_and_change_nothing(write, error, message):
    net = network()
    before = net.graph.get_parameters()
    with pytest.raises(error, match=message):
        write(net.layers[0][1].weights)
    assert net.graph.get_parameters().tobytes() == before.tobytes()


COPIES = {
    "layer.weights": (lambda net: net.layers[0].weights),
    "layer.biases": (lambda net: net.layers[0].biases),
    "layer.mask": (lambda net: net.layers[0].mask),
    "graph.parameters": (lambda net: net.graph.parameters),
    "edges().weight": (lambda net: net.graph.edges().weight),
    "edges().source": (lambda net: net.graph.edges().source),
    "neurons().bias": (lambda net: net.graph.neurons().bias),
    "neurons().activation": (lambda net: net.graph.neurons().activation),
    "optimizer_state": (lambda net: net.graph.optimizer_state()["first"]),
    "alive": (lambda net: net.graph.alive()),
}


@pytest.mark.parametrize("get", COPIES.values(), ids=COPIES)
def test_other_arrays_of_a_network_are_read_only(get):
    net = network()
    net.fit(X, X[:, :2], epochs=1, momentum=0.9)
    with pytest.raises(ValueError, match="read-only"):
        get(net)[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        get(net)[:] = get(net)


USES = (
    lambda w: operator.setitem(w, 0, 1),
    lambda w: operator.imul(w, 2),
    np.asarray,
    lambda w: w[0],
    lambda w: w.sum(),
)


def test_weights_raise_once_the_sources_have_changed():
    net = network()
    neuron, other = net.layers[0][:2]
    weights, others, part = neuron.weights, other.weights, neuron.weights[1:]
    net.graph.prune([(net.graph[3], neuron)])
    before = net.graph.get_parameters()
    for use in USES:
        for stale in (weights, part):
            with pytest.raises(
                ValueError, match="the sources of <layer 0 neuron 0> have changed since; read them again"
            ):
                use(stale)
    assert net.graph.get_parameters().tobytes() == before.tobytes()
    others[0] = 9
    neuron.weights[2] = 8
    assert (other.in_edges[0].weight, neuron.in_edges[2].weight) == (9, 8)
    net.undo()
    weights[3] = 7  # the neuron has these sources again
    assert neuron.in_edges[3].weight == 7
    net.graph.prune([(net.graph[0], neuron)])
    net.graph.add_edge(net.graph.add_parameter(1.0), neuron)  # as many as before
    with pytest.raises(ValueError, match="have changed"):
        weights[0] = 1


def test_weights_of_a_removed_node_raise():
    g = mlgraph.Graph(seed=0)
    gone = g.add_neuron(g.add_inputs(2))
    weights = gone.weights
    g.undo()
    g.add_neuron(g.add_inputs(0) or [g[0], g[1]])  # has the id of the other
    with pytest.raises(ValueError, match="was removed"):
        weights[0] = 1


def test_an_index_or_value_may_edit_the_graph():
    net = network()
    neuron = net.layers[0][0]

    class Late:
        def __index__(self):
            moved(net)
            return 2

        def __array__(self, dtype=None, copy=None):
            moved(net)
            return np.array([5, 5, 5, 5])

    neuron.weights[Late()] = 7
    assert neuron.weights.tolist() == [0, 1, 7, 3]
    neuron.weights[:] = Late()
    assert neuron.weights.tolist() == [5] * 4


def test_weights_are_used_as_an_array():
    net = network()
    w, array = net.layers[0][1].weights, np.arange(4, 8, dtype=np.float32)
    for of in (
        np.asarray,
        np.array,
        lambda w: w,
        lambda w: w[:],
        lambda w: w + 1,
        lambda w: 2 * w,
        lambda w: array - w,
        lambda w: X @ w,
        lambda w: w @ X.T,
        lambda w: w**2 > array,
        lambda w: w[1],
        lambda w: w[w > 5],
        lambda w: (*w.shape, len(w), w.size, w.ndim),
        lambda w: w.dtype,
        lambda w: w.sum() + w.argmax(),
        lambda w: w.astype(int),
        lambda w: [*w, 6.0 in w],
        lambda w: np.delete(w, 2),
        np.linalg.norm,
        repr,
        copy.copy,
        copy.deepcopy,
        lambda w: pickle.loads(pickle.dumps(w)),
    ):
        np.testing.assert_array_equal(of(w), of(array))
    with pytest.raises(ValueError, match="more than one element"):
        bool(w)
    for independent in (w.copy(), np.array(w), copy.deepcopy(w), w * 1):
        independent[:] = 0
    out = np.ones(4, np.float32)
    out *= w
    assert out.tolist() == w.tolist() == [4, 5, 6, 7]
