"""A network that learns its data within a few epochs even if it is cut meanwhile."""

import numpy as np

import mlgraph

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 9, 600)
X = RNG.integers(0, 256, (600, 30), np.uint8) // 3
X[np.arange(600), LABELS * 3] = 255
Y = LABELS
OPTIONS = {"epochs": 4, "batch_size": (20, 10), "learning_rate": (0.1, 0.01)}


def network(**options):
    net = mlgraph.Network(30, seed=0)
    net.add_layer(24, "relu", **options)
    net.add_layer(16, "relu")
    net.add_layer(9, "softmax")
    return net


def pairs(net):
    """The ends of every edge."""
    source, target, _ = net.graph.edges()
    return set(zip(source.tolist(), target.tolist(), strict=True))


def layer_sizes(net):
    return [sum(len(n.sources) for n in layer) for layer in net.layers]


def by_target(edges):
    return edges.target * 1000.0 + edges.source


def sample(n):
    """What a schedule is given to take examples."""
    return X[:n], Y[:n]
