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


def network(*, seed=1, frozen=False, **dropped):
    net = mlgraph.Network(24, seed=seed)
    net.add_layer(40, "tanh", **dropped).frozen = frozen
    net.add_layer(4, "softmax")
    return net


def any_model():
    """A graph of neurons with different sources, a parameter used twice, and operations."""
    g, rng = mlgraph.Graph(seed=0), np.random.default_rng(2)
    x, scale = g.add_inputs(24), g.add_parameter(0.5)
    wide = [g.add_neuron(x, "tanh", weights=rng.normal(size=24) / 5) for _ in range(12)]
    own = [
        g.add_neuron([*x[k:], wide[k]], "leaky_relu", weights=rng.normal(size=25 - k) / 5, bias=None) for k in range(8)
    ]
    return mlgraph.Model(g, [mlgraph.sum(*own, *wide[:3]) * scale, mlgraph.tanh(own[2] * scale)])


def fragile():
    """A network whose first eight neurons overflow, one after the other."""
    net = mlgraph.Network(24, seed=1)
    net.add_layer(40, "relu")
    net.add_layer(4, "softmax")
    for k in range(8):
        net.layers[0].neurons[k].weights[k : k + 5] = 3e38
        for neuron in net.layers[1].neurons:
            neuron.weights[k] = 0
    return net


def stopping():
    """A callback that takes the first epoch for the best, since the loss falls, and ends the run after the second."""
    return mlgraph.EarlyStopping("epoch_loss", mode="max", patience=1)


MOMENTUM, ADAM = {"momentum": 0.9}, {"momentum": 0.9, "optimizer": "adam"}
RUNS = {
    # name: (model, targets, options)
    "sgd": (network, LABELS, {}),
    "momentum, dropout, fewer examples": (lambda: network(dropout=0.5), LABELS, MOMENTUM | {"batch_size": (96, 20)}),
    "adam, dropped edges": (lambda: network(weight_dropout=0.3), LABELS, ADAM | {"learning_rate": (0.01, 0.001)}),
    "skipped examples": (network, LABELS, MOMENTUM | {"on_nonfinite": "skip", "learning_rate": (3e37, 1e36)}),
    "disconnected neurons": (fragile, LABELS, {"on_nonfinite": "disconnect", "learning_rate": 1e-40, "momentum": 0.5}),
    "frozen layer": (lambda: network(frozen=True), LABELS, MOMENTUM | {"learning_rate": lambda p: 0.2 * p * (1 - p)}),
    "pruned": (network, LABELS, MOMENTUM | {"sparsify": mlgraph.GradualPruning(0.8, updates=20)}),
    "regrown": (lambda: network(dropout=0.5), LABELS, ADAM | {"sparsify": mlgraph.RigL(0.7, updates=20)}),
    "early stopping": (lambda: network(dropout=0.5), LABELS, MOMENTUM | {"stop": stopping}),
    "any graph": (any_model, TARGETS, MOMENTUM | {"learning_rate": 0.003, "batch_size": (64, 100), "shuffle": False}),
    "any graph, adam": (any_model, TARGETS, ADAM | {"learning_rate": 0.001}),
}


def fit(model, y=LABELS, x=X, *, stop=None, **options):
    """Train; `stop` makes a callback that is called before the others."""
    if stop:
        options["callbacks"] = [stop(), *(options.get("callbacks") or [])]
    given = {
        "epochs": 3,
        "batch_size": 64,
        "learning_rate": (0.05, 0.01),
        "momentum": 0.0,
        "seed": 5,
        "optimizer": "sgd",
    }
    return model.fit(x, y, **{**given, "validation_data": (X[:99], y[:99]), **options})


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
def whole(name="sgd", **more):
    """The bits of an uninterrupted run."""
    make, y, options = RUNS[name]
    model = make()
    fit(model, y, **options, **more)
    return bits(model)


def interrupted(path, count=30, **options):
    """A network whose run was stopped at the n-th event; the checkpoint is of the event before."""
    net = network()
    with pytest.raises(Stop):
        fit(net, checkpoint=path, checkpoint_every=0, callbacks=[stop_at(count)], **options)
    return net


def resumed(path, net=None, **options):
    """A network that was trained from the checkpoint to the end of the run."""
    net = net or network()
    fit(net, checkpoint=path, resume=True, **options)
    return net
