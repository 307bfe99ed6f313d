"""Models of every kind to save, and the members of a model file."""

import zipfile

import numpy as np

import mlgraph

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (40, 6), np.uint8)
LABELS = RNG.integers(0, 3, 40)


def network(epochs=2):
    net = mlgraph.Network(6, seed=1)
    net.add_layer(20, "tanh", dropout=0.25)
    net.add_layer(9, "leaky_relu", weight_dropout=0.5, bias=False)
    net.add_layer(3, "softmax")
    if epochs:
        net.fit(X, LABELS, epochs=epochs)
    return net


def any_model(epochs=0):
    """Neurons that share sources and others that do not, a parameter, operations, odd names; the loss is a node."""
    g, rng = mlgraph.Graph(seed=0), np.random.default_rng(0)
    x = [g.add_input(name) for name in ("a", "b", "ü", "\n", "", "a")]
    scale = g.add_parameter(0.5, "scale")
    shared = [g.add_neuron(x, "tanh", weights=rng.normal(size=6), bias=None) for _ in range(10)]
    own = [g.add_neuron([*x[k:], shared[k]], "relu", weights=np.ones(7 - k), bias=k) for k in range(5)]
    total = mlgraph.sum(*own, *shared[:3]) * scale + 1.5
    model = mlgraph.Model(g, [total, own[2], x[1]], loss=abs(total - x[0]))
    if epochs:
        model.fit(X, epochs=epochs, learning_rate=0.01)
    return model


def moved_model():
    """A model whose parameters another compilation has moved, and to which a neuron was added later."""
    model = any_model(epochs=1)
    g = model.graph
    g.compile([node for node in g if node.kind == "neuron"][3:])
    assert g.storage.moves == 2
    g.add_neuron([g[0], g[20]], weights=[3, 4], bias=5.0)
    return model


def pruned_network():
    """A network with neurons that have lost some edges or all, and neurons that nothing reads any more."""
    net = mlgraph.Network(6, seed=1)
    net.add_layer(40, "tanh", dropout=0.25)
    net.add_layer(24, "leaky_relu")
    net.add_layer(3, "softmax")
    net.layers[0].neurons[3].prune()
    net.layers[1].neurons[5].prune()
    net.fit(X, LABELS, epochs=1)
    net.prune(0.3)
    return net


MODELS = {"network": network, "any": any_model, "moved": moved_model, "pruned": pruned_network}


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
