"""Data that a network learns at once, and such a network."""

import numpy as np

import mlgraph

NAN, INF = np.nan, np.inf
N, INPUTS, CLASSES = 200, 12, 3


def bytes_and_labels(n=N, seed=0):
    """Bytes, most of them zero, whose class is the part of them that is bright: a network learns it at once."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    x = rng.integers(0, 256, (n, INPUTS), np.uint8) // 4
    x[rng.random(x.shape) < 0.7] = 0
    for row, label in zip(x, labels, strict=True):
        row[label * 4 : label * 4 + 2] = 255
    return x, labels


X, Y = bytes_and_labels()
FLOATS = (X / 255).astype(np.float32)
TARGETS = np.eye(CLASSES, dtype=np.float32)[Y]


def network(last="softmax", seed=0, **options):
    net = mlgraph.Network(INPUTS, seed=seed)
    net.add_layer(16, "leaky_relu", **options)
    net.add_layer(CLASSES, last)
    return net


def bits(model):
    return model.graph.parameters.view(np.int32).tolist()
