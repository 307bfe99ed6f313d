"""Files whose header describes a network that cannot exist are refused, and need no more memory than their size."""

import json
import tracemalloc

import numpy as np
import pytest

import mlgraph


def write(net, path, change):
    """Save a network, with `change` applied to the header and the arrays of its file."""
    net.save(path)
    with np.load(path) as file:
        arrays = {name: file[name].copy() for name in file.files}
    header = json.loads(arrays["header"].tobytes())
    change(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)


def network(last="softmax"):
    net = mlgraph.Network(6, seed=0)
    for size, activation in ((5, "relu"), (4, "softmax"), (3, last)):
        net.add_layer(size, activation, loss="binary_cross_entropy" if last == "sigmoid" and size == 3 else None)
    return net


def layer(field, value, which=1):
    return lambda header, arrays: header["layers"][which].__setitem__(
        field, value(header) if callable(value) else value
    )


def header(name, value):
    return lambda header, arrays: header.__setitem__(name, value(header) if callable(value) else value)


def same_place(name):
    """Give the second neuron the place of the first."""
    return lambda header, arrays: arrays[name].__setitem__(1, arrays[name][0])


CHANGES = {
    "inputs read six times": (header("reads", [0] * 6), "reads"),
    "neurons read as inputs": (header("reads", lambda h: h["outputs"]), "reads"),
    "a layer twice": (header("layers", lambda h: [h["layers"][0], *h["layers"]]), "one layer at most"),
    "layers that overlap": (layer(0, lambda h: [h["layers"][0][0][0], h["layers"][1][0][1]]), "layers"),
    "layers in reverse": (header("layers", lambda h: h["layers"][::-1]), "last layer"),
    "inputs as probabilities": (header("probabilities", [0, 1, 2]), "probabilities"),
    "one node as all probabilities": (header("probabilities", lambda h: [h["probabilities"][0]] * 3), "probabilities"),
    "probabilities in reverse": (header("probabilities", lambda h: h["probabilities"][::-1]), "probabilities"),
    "another loss": (header("loss", "binary_cross_entropy"), "probabilities"),
    "inputs as probabilities of a layer": (layer(4, [0, 1, 2, 3]), "probability node"),
    "no probabilities of a softmax": (layer(4, []), "probability node"),
    "probabilities of a tanh": (layer(1, "tanh"), "probability node"),
    "weights at one place": (same_place("weights"), "at place"),
    "biases at one place": (same_place("bias"), "at place"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_impossible_network_is_refused(tmp_path, what):
    change, message = CHANGES[what]
    path = tmp_path / "model.npz"
    write(network(), path, change)
    with pytest.raises(mlgraph.ModelFileError, match=message):
        mlgraph.load(path)


@pytest.mark.parametrize("last", ["softmax", "sigmoid", "identity"])
def test_unchanged_header_is_accepted(tmp_path, last):
    """Also after edits: neurons widened, cut, and compacted away."""
    net = network(last)
    net.widen(net.layers[0], 2)
    net.prune(neurons=0.3)
    for model in (net, net.compact()):
        write(model, tmp_path / "model.npz", lambda header, arrays: None)
        loaded = mlgraph.load(tmp_path / "model.npz")
        x = np.random.default_rng(0).random((9, 6))
        assert np.array_equal(loaded.forward(x), model.forward(x))


def test_memory_is_proportional_to_the_file(tmp_path):
    """Five thousand entries of one large layer are refused at the second."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(20_000, "relu")
    net.add_layer(2, "softmax")
    path = tmp_path / "model.npz"
    write(net, path, header("layers", lambda h: h["layers"][:1] * 5000 + h["layers"][1:]))
    tracemalloc.start()
    with pytest.raises(mlgraph.ModelFileError, match="one layer at most"):
        mlgraph.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * path.stat().st_size
