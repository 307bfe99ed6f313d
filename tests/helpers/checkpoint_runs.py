"""Runs that leave checkpoints, and what two of them must have in common."""

import functools

import numpy as np
import pytest

import mlgraph
from mlgraph.training import loop

N = 1500
RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (N, 24), np.uint8) * (RNG.random((N, 24)) < 0.3)
LABELS = RNG.integers(0, 4, N)
TARGETS = RNG.normal(size=(N, 2)).astype(np.float32)


def network(*, last="softmax", seed=1, **dropped):
    net = mlgraph.Network(24, seed=seed)
    net.add_layer(40, "tanh", **dropped)
    net.add_layer(4, last)
    return net


def any_model():
    """A DAG of neurons with sources of their own, shared ones, a parameter used twice and operations."""
    g = mlgraph.Graph()
    rng, x = np.random.default_rng(2), g.inputs(24)
    scale = g.parameter(0.5)
    wide = [g.add_neuron(x, "tanh", weights=rng.normal(size=24) / 5) for _ in range(12)]
    own = [
        g.add_neuron([*x[k:], wide[k]], "leaky_relu", weights=rng.normal(size=25 - k) / 5, bias=None) for k in range(8)
    ]
    total = mlgraph.sum(*own, *wide[:3]) * scale
    return mlgraph.Model(g, [total, mlgraph.tanh(own[2] * scale)])


def fragile():
    """Neurons that overflow one after the other, where inputs are not zero that most examples have not."""
    net = mlgraph.Network(24, seed=1)
    net.add_layer(40, "relu")
    net.add_layer(4, "softmax")
    for k in range(8):
        net.layers[0].neurons[k].weights[k : k + 5] = 3e38
        for neuron in net.layers[1].neurons:
            neuron.weights[k] = 0
    return net


RUNS = {
    "sgd": (network, LABELS, {"momentum": 0.0}),
    "momentum, dropout, batches that shrink": (lambda: network(dropout=0.5), LABELS, {"batch_size": (96, 20)}),
    "adam, dropped edges": (
        lambda: network(weight_dropout=0.3),
        LABELS,
        {"optimizer": "adam", "learning_rate": (0.01, 0.001)},
    ),
    "skipped examples": (network, LABELS, {"on_nonfinite": "skip", "learning_rate": (3e37, 1e36)}),
    "disconnected neurons": (fragile, LABELS, {"on_nonfinite": "disconnect", "learning_rate": 1e-40, "momentum": 0.5}),
    "a rate that rises and falls": (network, LABELS, {"learning_rate": lambda p: 0.2 * p * (1 - p)}),
    "pruned": (network, LABELS, {"sparsify": mlgraph.GradualPruning(0.8, updates=20)}),
    "regrown": (lambda: network(dropout=0.5), LABELS, {"sparsify": mlgraph.RigL(0.7, updates=20), "optimizer": "adam"}),
    "any graph": (any_model, TARGETS, {"learning_rate": 0.003, "batch_size": (64, 100), "shuffle": False}),
    "any graph, adam": (any_model, TARGETS, {"learning_rate": 0.001, "optimizer": "adam"}),
}


def fit(model, y=LABELS, **options):
    given = {"epochs": 3, "batch_size": 64, "learning_rate": (0.05, 0.01), "validation": (X[:99], y[:99]), "seed": 5}
    return model.fit(X, y, **{**given, **options})


def bits(model):
    """All that two runs must have in common."""
    columns = {name: column.tobytes() for name, column in vars(model.history).items() if name != "epoch_seconds"}
    state = {name: vector.tobytes() for name, vector in model.graph.storage.state.items()}
    return {"parameters": model.graph.parameters.tobytes(), "state": state, **columns}


class Stop(Exception):
    pass


def stop_at(count, error=Stop):
    """A callback that raises at its n-th call."""
    calls = iter(range(1, count))

    def callback(event):
        if next(calls, None) is None:
            raise error

    return callback


@pytest.fixture
def small_pieces(monkeypatch):
    """Every step may be the last."""
    monkeypatch.setattr(loop, "PIECE_SECONDS", 0.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.npz"


@pytest.fixture
def untouched():
    """A network that no refused checkpoint may change."""
    net, history = network(), mlgraph.History()
    fit(net, epochs=1, learning_rate=0.0)  # compiled
    net.history = history
    net.graph.storage.state_vector("first", fresh=True)[:] = 3.5
    before = bits(net)
    yield net
    assert bits(net) == before and net.history is history


@functools.cache
def whole(name, **more):
    """The bits of an uninterrupted run."""
    make, y, options = RUNS[name]
    model = make()
    fit(model, y, **options, **more)
    return bits(model)


def interrupted(path, count, **options):
    """A network whose run was stopped at the n-th event; the checkpoint is of the event before."""
    net = network()
    with pytest.raises(Stop):
        fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0, callback=stop_at(count), **options)
    return net
