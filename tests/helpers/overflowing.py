"""Networks that are easily made to overflow, data for them, and what they consist of."""

import numpy as np

import mlgraph

N = 200
RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (N, 12), np.uint8)
FLOATS = RNG.normal(size=(N, 12)).astype(np.float32)
Y = RNG.integers(0, 3, N)
TARGETS = RNG.normal(size=(N, 3)).astype(np.float32)


def network(last="softmax", *, width=20, activation="leaky_relu", **dropped):
    net = mlgraph.Network(12, seed=1)
    net.add_layer(width, activation, **dropped)
    net.add_layer(3, last)
    return net


def bits(model):
    return {
        name: vector.tobytes() for name, vector in {"": model.graph.parameters, **model.graph.storage.state}.items()
    }


def is_finite(model):
    return all(np.isfinite(vector).all() for vector in [model.graph.parameters, *model.graph.storage.state.values()])


def one_neuron(loss, weights=(1.0,), **options):
    g = mlgraph.Graph(seed=0)
    n = g.add_neuron([g.add_input(f"x{k}") for k in range(len(weights))], weights=weights, **options)
    return mlgraph.Model(g, [n], loss=loss(n))
