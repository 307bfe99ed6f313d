"""A trained network, and of each of its edges what it is worth, found another way than the library does."""

import numpy as np

import mlgraph
from mlgraph.graph import arrays

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (90, 12), np.uint8)
Y = RNG.integers(0, 9, 90)
DATA = (X, Y)
EDGES = 12 * 20 + 20 * 16 + 16 * 9


def network(trained=True, seed=0):
    net = mlgraph.Network(12, seed=seed)
    net.add_layer(20, "tanh")
    net.add_layer(16, "leaky_relu")
    net.add_layer(9, "softmax")
    if trained:
        net.fit(X, Y, epochs=3)
    return net


def weights(net):
    """Of every edge by its ends."""
    edges = arrays.wiring(net.graph)
    values = net.graph.parameters[edges.place].tolist()
    return dict(zip(zip(edges.source.tolist(), edges.target.tolist(), strict=True), values, strict=True))


def slopes(net):
    """Of every edge by its ends, the gradient of the mean loss, by another way: a function and its cotangent."""
    logits = net.forward(X)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    f = net.graph.compile(net.outputs)
    gradients = f.vjp(X, (e / e.sum(axis=1, keepdims=True) - np.eye(9)[Y]) / len(X))
    return {
        (s.id, n.id): float(g)
        for layer in net.layers
        for n in layer.neurons
        for s, g in zip(n.sources, gradients.of(n), strict=True)
    }


def layer_of(net, target):
    return next(i for i, layer in enumerate(net.layers) if target in layer.ids)


def best(scores, n):
    return set(sorted(scores, key=scores.get, reverse=True)[:n])
