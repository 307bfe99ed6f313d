"""Epochs between which nothing else happens are taken several at a time: faster, and the same to the bit."""

import time

import numpy as np
import pytest
from checkpoint_runs import bits
from learnable import X, Y, network

import mlgraph
from mlgraph import training

FEW = X[:9], Y[:9]
OPTIONS = [
    {"momentum": 0.0},
    {"batch_size": 4, "weight_decay": 0.1},
    {"batch_size": (9, 2), "optimizer": "adam", "learning_rate": 0.01},
    {"batch_size": (1, 5), "shuffle": False},
]


def one_by_one(progress):
    """A callback that does nothing: each epoch has to end before it is called."""


@pytest.fixture
def calls(monkeypatch):
    """The sizes of the steps of each call."""
    real, sizes = mlgraph.Model._run, []

    def run(self, examples, nodes=None, **options):
        sizes.append(options["steps"].size.tolist() if "steps" in options else [])
        return real(self, examples, nodes, **options)

    monkeypatch.setattr(mlgraph.Model, "_run", run)
    return sizes


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("make", [network, lambda: network(dropout=0.3)], ids=["whole", "dropout"])
def test_many_epochs_a_call(options, make, calls):
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
def test_however_long_a_call_is(seconds, monkeypatch):
    nets = network(), network()
    for net, callback in zip(nets, (None, one_by_one), strict=True):
        net.fit(X, Y, epochs=6, batch_size=(50, 7), callback=callback)
        monkeypatch.setattr(training, "PIECE_SECONDS", seconds)
    assert bits(nets[0]) == bits(nets[1])


@pytest.mark.parametrize("what", ["validation", "learning_rate", "sparsify"])
def test_what_happens_between_epochs_happens_after_each(what, calls):
    more = {"validation": FEW, "learning_rate": lambda p: 0.1, "sparsify": mlgraph.GradualPruning(0.5)}
    history = network().fit(*FEW, epochs=30, **{what: more[what]})
    assert len([sizes for sizes in calls if sizes]) >= 30 and len(history.epoch_loss) == 30


@pytest.mark.parametrize("callback", [None, one_by_one])
def test_the_epochs_before_a_failure_are_noted(callback):
    """Also where it comes in the midst of a call."""
    g = mlgraph.Graph()
    slope = g.parameter(2.0**50)
    model = mlgraph.Model(g, slope * g.input(), loss=slope * -1.0 * slope)   # each step doubles it
    with pytest.raises(mlgraph.NonFiniteError, match=r"^epoch 14, step 0: "):
        model.fit(np.ones((4, 1)), epochs=1000, batch_size=4, learning_rate=0.5, momentum=0.0, callback=callback)
    assert model.history.epoch_loss.tolist() == model.history.batch_loss.tolist() == [-(4.0 ** (50 + i)) for i in range(14)]


@pytest.mark.parametrize("callback", [None, one_by_one])
def test_edges_are_counted_when_an_epoch_ends(callback):
    """A neuron that overflows is cut in the midst of a call; the epochs before had its edges."""
    g = mlgraph.Graph()
    x, rising = g.input(), g.parameter(0.0)
    neuron = g.add_neuron([rising], weights=[1.0], bias=0.0)
    y = g.add_neuron([x, mlgraph.exp(neuron)], weights=[1.0, 0.0], bias=0.0)
    model = mlgraph.Model(g, y, loss=(y - 1) ** 2 - rising)
    history = model.fit(np.ones((4, 1)), epochs=20, batch_size=4, learning_rate=8.0, momentum=0.0,
                        on_nonfinite="disconnect", callback=callback)  # fmt: skip
    assert rising.value == 160 and history.nonfinite_step.tolist() == [12]   # exp(96) is above 3.4e38
    assert history.epoch_edges.tolist() == [3] * 12 + [1] * 8   # its edge, and that of what nothing else reads


@pytest.mark.parametrize("kind", ["steps", "epoch"])
@pytest.mark.parametrize("place", [1, 5])
def test_a_run_left_by_a_callback_goes_on_without_it(kind, place, tmp_path):
    """From the end of an epoch, before that was noted or after."""
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
