"""Several epochs per kernel call, if nothing happens between them: faster, with the same bits."""

import signal
import time

import numpy as np
import pytest
from checkpoint_runs import bits
from learnable import X, Y, network

import mlgraph
from mlgraph.models import running
from mlgraph.training import loop, nonfinite

FEW = X[:9], Y[:9]


def one_by_one(progress):
    """A callback that does nothing, but forces one call per epoch."""


with_and_without_calls = pytest.mark.parametrize("callback", [None, one_by_one])


@pytest.fixture
def calls(monkeypatch):
    """The step sizes of each kernel call, of which none ends early, however busy the machine is."""
    real, sizes = running.execute, []

    def run(self, examples, nodes=None, **options):
        sizes.append(options["steps"].size.tolist() if "steps" in options else [])
        return real(self, examples, nodes, **options)

    monkeypatch.setattr(loop, "PIECE_SECONDS", 1e6)
    monkeypatch.setattr("mlgraph.training.run.execute", run)
    return sizes


@pytest.mark.parametrize(
    ("options", "dropout"),
    [
        ({"momentum": 0.0}, 0.0),
        ({"batch_size": 4, "weight_decay": 0.1}, 0.3),
        ({"batch_size": (9, 2), "optimizer": "adam", "learning_rate": 0.01}, 0.0),
        ({"batch_size": (1, 5), "shuffle": False}, 0.3),
    ],
    ids=str,
)
def test_short_epochs_share_kernel_calls(options, dropout, calls):
    apart, net = network(dropout=dropout), network(dropout=dropout)
    apart.fit(*FEW, epochs=200, callbacks=[one_by_one], **options)
    assert len(calls) >= 200
    calls.clear()
    begin = time.perf_counter()
    history = net.fit(*FEW, epochs=200, **options)
    assert len(calls) < 50 and sum(map(sum, calls)) == 200 * 9
    assert bits(net) == bits(apart) and len(history.epoch_loss) == 200
    assert (history.epoch_seconds > 0).all() and history.epoch_seconds.sum() <= time.perf_counter() - begin


@pytest.mark.parametrize(
    "optimizer",
    [{"momentum": 0.0, "learning_rate": (1e22, 1e18)}, {"optimizer": "adam", "learning_rate": (1e24, 1e12)}],
    ids=str,
)
def test_clock_does_not_decide_how_a_step_is_taken(monkeypatch, optimizer):
    """Near overflow, the highest rate of the run decides when steps go by rows, not by blocks with holes."""
    rng, results, alone, real = np.random.default_rng(0), set(), [], nonfinite.Guard.step
    x, y = (rng.normal(size=(60, 40)) * 1e-20).astype(np.float32), rng.integers(0, 3, 60)
    mask = rng.random((32, 40)) < 0.8
    monkeypatch.setattr(nonfinite.Guard, "step", lambda self, *args: alone.append(1) or real(self, *args))
    for seconds, callback in ((0.1, None), (0.1, one_by_one), (1e-4, None), (1e6, None)):
        monkeypatch.setattr(loop, "PIECE_SECONDS", seconds)
        net = mlgraph.Network(40, seed=0)
        net.add_layer(32, "identity", bias=False).mask = mask
        last = net.add_layer(3, "softmax", bias=False)
        last.weights = last.weights * 1e8
        last.frozen = True
        alone.clear()
        net.fit(x, y, epochs=60, batch_size=20, callbacks=[callback] if callback else None, **optimizer)
        results.add((net.graph.get_parameters().tobytes(), len(alone)))
    assert len(results) == 1 and 0 < len(alone) <= 180


@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.parametrize("kept", [{}, {"checkpoint": "run.npz"}], ids=["alone", "checkpoint"])
def test_ctrl_c_waits_until_a_call_is_in_the_history(monkeypatch, tmp_path, kept):
    """The run resumes from there."""
    real, taken, net, whole = running.execute, [], network(), network()
    options = {"epochs": 2000, "batch_size": (5, 2), "seed": 4}

    def run(*given, **more):
        found = real(*given, **more)
        taken.append(len(more["steps"].size))
        if len(taken) == 3:
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlgraph.training.run.execute", run)
    monkeypatch.setattr(loop, "PIECE_SECONDS", 1e6)
    monkeypatch.setattr(loop, "MAX_EPOCHS", 50)
    with pytest.raises(KeyboardInterrupt):
        net.fit(*FEW, **options, **kept)
    assert len(net.history.batch_loss) == sum(taken) and 50 < len(net.history.epoch_loss) < 2000
    if kept:
        net.fit(*FEW, resume=True, **options, **kept)
        whole.fit(*FEW, **options)
        assert bits(net) == bits(whole)


@with_and_without_calls
def test_history_has_the_epochs_before_an_error(callback):
    g = mlgraph.Graph(seed=0)
    slope = g.add_parameter(2.0**50)
    model = mlgraph.Model(g, slope * g.add_input(), loss=slope * -1.0 * slope)  # each step doubles it
    with pytest.raises(mlgraph.NonFiniteError, match=r"^epoch 15, step 1: "):
        model.fit(
            np.ones((4, 1)),
            epochs=1000,
            batch_size=4,
            learning_rate=0.5,
            momentum=0.0,
            callbacks=[callback] if callback else None,
            optimizer="sgd",
        )
    h = model.history
    assert h.epoch_loss.tolist() == h.batch_loss.tolist() == [-(4.0 ** (50 + i)) for i in range(14)]


@with_and_without_calls
def test_edges_are_counted_at_the_end_of_each_epoch(callback):
    """A neuron is cut in the middle of a call; the epochs before had its edges."""
    g = mlgraph.Graph(seed=0)
    x, rising = g.add_input(), g.add_parameter(0.0)
    neuron = g.add_neuron([rising], weights=[1.0], bias=0.0)
    y = g.add_neuron([x, mlgraph.exp(neuron)], weights=[1.0, 0.0], bias=0.0)
    model = mlgraph.Model(g, y, loss=(y - 1) ** 2 - rising)
    options = {"epochs": 20, "learning_rate": 8.0, "momentum": 0.0, "on_nonfinite": "disconnect"}
    history = model.fit(np.ones((4, 1)), callbacks=[callback] if callback else None, **options)
    assert rising.value == 160 and history.nonfinite_step.tolist() == [12]  # exp(96) is above 3.4e38
    assert history.epoch_edges.tolist() == [3] * 12 + [1] * 8  # its edge, and that of what nothing else reads
