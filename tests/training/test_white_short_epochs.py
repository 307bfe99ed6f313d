"""Several epochs per kernel call, if nothing happens between them: faster, with the same bits."""

import signal
import time

import numpy as np
import pytest
from checkpoint_runs import bits
from learnable import X, Y, network

import mlgraph
from mlgraph.models import running
from mlgraph.training import checkpoint, loop, nonfinite

FEW = X[:9], Y[:9]
OPTIONS = [
    {"momentum": 0.0},
    {"batch_size": 4, "weight_decay": 0.1},
    {"batch_size": (9, 2), "optimizer": "adam", "learning_rate": 0.01},
    {"batch_size": (1, 5), "shuffle": False},
]


def one_by_one(progress):
    """A callback that does nothing, but forces one call per epoch."""


@pytest.fixture
def calls(monkeypatch):
    """The step sizes of each kernel call."""
    real, sizes = running.execute, []

    def run(self, examples, nodes=None, **options):
        sizes.append(options["steps"].size.tolist() if "steps" in options else [])
        return real(self, examples, nodes, **options)

    monkeypatch.setattr("mlgraph.training.fitting.execute", run)
    return sizes


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("make", [network, lambda: network(dropout=0.3)], ids=["whole", "dropout"])
def test_short_epochs_share_kernel_calls(monkeypatch, options, make, calls):
    monkeypatch.setattr(loop, "PIECE_SECONDS", 1e6)  # so that no call ends early, however busy the machine is
    nets = make(), make()
    nets[0].fit(*FEW, epochs=200, callback=one_by_one, **options)
    assert len(calls) >= 200
    calls.clear()
    begin = time.perf_counter()
    history = nets[1].fit(*FEW, epochs=200, **options)
    assert len(calls) < 50 and sum(map(sum, calls)) == 200 * 9
    assert bits(nets[1]) == bits(nets[0]) and len(history.epoch_loss) == 200
    assert (history.epoch_seconds > 0).all() and history.epoch_seconds.sum() <= time.perf_counter() - begin


@pytest.mark.parametrize("seconds", [0.0, 1e-4, 1e6])
def test_duration_of_a_call_does_not_change_bits(seconds, monkeypatch):
    nets = network(), network()
    for net in nets:
        net.fit(X, Y, epochs=20, batch_size=(50, 7))
        monkeypatch.setattr(loop, "PIECE_SECONDS", seconds)
    assert bits(nets[0]) == bits(nets[1])


@pytest.mark.parametrize(
    "optimizer",
    [{"momentum": 0.0, "learning_rate": (1e22, 1e18)}, {"optimizer": "adam", "learning_rate": (1e24, 1e12)}],
    ids=str,
)
def test_clock_does_not_decide_how_a_step_is_taken(monkeypatch, optimizer):
    """Near overflow, the highest rate of the run decides when steps go by rows, not by blocks with holes."""
    rng, results = np.random.default_rng(0), set()
    x, y, mask = (
        (rng.normal(size=(60, 40)) * 1e-20).astype(np.float32),
        rng.integers(0, 3, 60),
        rng.random((32, 40)) < 0.8,
    )
    by_rows, real = [], nonfinite.Guard.step
    monkeypatch.setattr(nonfinite.Guard, "step", lambda self, *args: by_rows.append(1) or real(self, *args))
    for seconds, callback in ((0.1, None), (0.1, one_by_one), (1e-4, None), (1e6, None)):
        monkeypatch.setattr(loop, "PIECE_SECONDS", seconds)
        net = mlgraph.Network(40, seed=0)
        net.add_layer(32, "identity", bias=False)
        net.add_layer(3, "softmax", bias=False)
        net.layers[0].mask = mask
        net.layers[1].weights = net.layers[1].weights * 1e8
        net.layers[1].frozen = True
        by_rows.clear()
        net.fit(x, y, epochs=60, batch_size=20, callback=callback, **optimizer)
        results.add((net.graph.get_parameters().tobytes(), len(by_rows)))
    assert len(results) == 1 and 0 < len(by_rows) <= 180


@pytest.mark.parametrize(("n", "batch", "epochs"), [(3, (1, 3), 3000), (150, 2**62, 1000)])
def test_memory_for_prepared_epochs_is_bounded(monkeypatch, n, batch, epochs):
    prepared, real = [], loop.epoch_order
    monkeypatch.setattr(loop, "epoch_order", lambda *given: prepared.append(given[-1]) or real(*given))
    monkeypatch.setattr(loop, "PIECE_SECONDS", 1e6)
    monkeypatch.setattr(loop, "MAX_EPOCHS", 500)
    monkeypatch.setattr(loop, "MAX_PLACES", 1000)
    g = mlgraph.Graph()
    p = g.parameter(1.0)
    mlgraph.Model(g, p * g.input(), loss=p * p).fit(
        np.zeros((n, 1)), epochs=epochs, batch_size=batch, learning_rate=1e-4
    )
    assert prepared[0] == 1 and sum(prepared) == epochs and max(prepared) == min(500, 1000 // n)


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_waits_until_a_call_is_in_the_history(monkeypatch):
    real, taken = running.execute, []

    def run(self, examples, nodes=None, **options):
        found = real(self, examples, nodes, **options)
        taken.append(len(options["steps"].size))
        if len(taken) == 3:
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr("mlgraph.training.fitting.execute", run)
    monkeypatch.setattr(loop, "PIECE_SECONDS", 1e6)
    net = network()
    with pytest.raises(KeyboardInterrupt):
        net.fit(*FEW, epochs=100_000, batch_size=9)
    assert len(net.history.epoch_loss) == len(net.history.batch_loss) == sum(taken) > 4


@pytest.mark.parametrize("count", [1, 4])
def test_run_resumes_after_any_call(monkeypatch, tmp_path, count):
    places, real = [], checkpoint.Checkpoint.between_steps

    def between(self):
        places.append((self._state.epoch, self._state.step))
        self.write()
        if len(places) == count:
            raise KeyboardInterrupt

    options = {"epochs": 2000, "batch_size": (5, 2), "seed": 4}
    whole, net = network(), network()
    whole.fit(*FEW, **options)
    monkeypatch.setattr(loop, "PIECE_SECONDS", 2e-3)
    monkeypatch.setattr(checkpoint.Checkpoint, "between_steps", between)
    with pytest.raises(KeyboardInterrupt):
        net.fit(*FEW, checkpoint=tmp_path / "run.npz", **options)
    monkeypatch.setattr(checkpoint.Checkpoint, "between_steps", real)
    again = network()
    again.fit(*FEW, checkpoint=tmp_path / "run.npz", resume=True, **options)
    assert bits(again) == bits(whole) and places[-1] > (0, 0)


@pytest.mark.parametrize("what", ["validation", "learning_rate", "sparsify"])
def test_validation_rates_and_schedules_act_every_epoch(what, calls):
    more = {"validation": FEW, "learning_rate": lambda p: 0.1, "sparsify": mlgraph.GradualPruning(0.5)}
    history = network().fit(*FEW, epochs=30, **{what: more[what]})
    assert len([sizes for sizes in calls if sizes]) >= 30 and len(history.epoch_loss) == 30


@pytest.mark.parametrize("callback", [None, one_by_one])
def test_history_has_the_epochs_before_an_error(callback):
    g = mlgraph.Graph()
    slope = g.parameter(2.0**50)
    model = mlgraph.Model(g, slope * g.input(), loss=slope * -1.0 * slope)  # each step doubles it
    with pytest.raises(mlgraph.NonFiniteError, match=r"^epoch 14, step 0: "):
        model.fit(np.ones((4, 1)), epochs=1000, batch_size=4, learning_rate=0.5, momentum=0.0, callback=callback)
    assert (
        model.history.epoch_loss.tolist()
        == model.history.batch_loss.tolist()
        == [-(4.0 ** (50 + i)) for i in range(14)]
    )


@pytest.mark.parametrize("callback", [None, one_by_one])
def test_edges_are_counted_at_the_end_of_each_epoch(callback):
    """A neuron is cut in the middle of a call; the epochs before had its edges."""
    g = mlgraph.Graph()
    x, rising = g.input(), g.parameter(0.0)
    neuron = g.add_neuron([rising], weights=[1.0], bias=0.0)
    y = g.add_neuron([x, mlgraph.exp(neuron)], weights=[1.0, 0.0], bias=0.0)
    model = mlgraph.Model(g, y, loss=(y - 1) ** 2 - rising)
    history = model.fit(
        np.ones((4, 1)),
        epochs=20,
        batch_size=4,
        learning_rate=8.0,
        momentum=0.0,
        on_nonfinite="disconnect",
        callback=callback,
    )
    assert rising.value == 160 and history.nonfinite_step.tolist() == [12]  # exp(96) is above 3.4e38
    assert history.epoch_edges.tolist() == [3] * 12 + [1] * 8  # its edge, and that of what nothing else reads


@pytest.mark.parametrize(("kind", "place"), [("steps", 1), ("epoch", 5)])
def test_run_left_by_a_callback_resumes_without_it(kind, place, tmp_path):
    """The run is left at the end of an epoch, before or after that is recorded."""
    whole, net = network(), network()
    whole.fit(*FEW, epochs=40, batch_size=9)

    def leave(progress):
        if (progress.kind, progress.epoch) == (kind, place):
            raise StopIteration

    path = tmp_path / "run.npz"
    net.fit(*FEW, epochs=40, batch_size=9, checkpoint=path, callback=leave)
    assert len(net.history.epoch_loss) == place + (kind == "epoch") and len(net.history.batch_loss) == place + 1
    net.fit(*FEW, epochs=40, batch_size=9, checkpoint=path, resume=True)
    assert bits(net) == bits(whole)
