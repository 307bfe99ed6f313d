"""A trained network, and the scores of its edges computed by other means than the library's."""

import numpy as np

import mlgraph

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


def ends(edges):
    """The ids of the source and the target of each edge."""
    return list(zip(edges.source.tolist(), edges.target.tolist(), strict=True))


def weights(model):
    """Weights by the ends of the edges."""
    edges = model.graph.edges()
    return dict(zip(ends(edges), edges.weight.tolist(), strict=True))


def slopes(net):
    """Gradient of the mean loss by the ends of the edges, from a compiled function and a cotangent."""
    logits = net.forward(X)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    f = net.graph.compile(net.outputs)
    gradients = f.vjp(X / 255, (e / e.sum(axis=1, keepdims=True) - np.eye(9)[Y]) / len(X))
    return {
        (s.id, n.id): float(g)
        for layer in net.layers
        for n in layer.neurons
        for s, g in zip(n.sources, gradients.of(n), strict=True)
    }


def of_use(edges, inputs, outputs):
    """Those of the edges that lie on a path from an input to an output."""
    while True:
        fed, read = {target for _, target in edges} | inputs, {source for source, _ in edges} | outputs
        useful = {(source, target) for source, target in edges if source in fed and target in read}
        if useful == edges:
            return useful
        edges = useful


def by_layer(net, edges):
    """The edges of each layer."""
    return [[edge for edge in edges if edge[1] in set(layer.ids)] for layer in net.layers]


def best(scores, n):
    return set(sorted(scores, key=scores.get, reverse=True)[:n])
