"""Schedules in general: when they act, what they are given, which are refused, and that the seed decides all."""

from dataclasses import dataclass

import numpy as np
import pytest
from cuttable import OPTIONS, X, Y, network
from locks import is_free

import mlgraph
from mlgraph.engine import examples
from mlgraph.engine.steps import epoch_steps
from mlgraph.sparsity.gradual_pruning import GradualPruning
from mlgraph.sparsity.rewiring import SET, RigL
from mlgraph.sparsity.schedules import Schedule
from mlgraph.training import loop

ALL = pytest.mark.parametrize("kind", [GradualPruning, SET, RigL])


class Spy(Schedule):
    """Records when it acts and the examples that it gets then."""

    def act(self, model, moment, step, seed, sample, n_threads):
        calls.append((moment, step, seed, sample))


calls = []


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


# --- when a schedule acts -------------------------------------------------------------------------


@pytest.mark.parametrize("updates", [1, 20, 1000, None])
@pytest.mark.parametrize("until", [0, 0.31, 0.999])
def test_a_schedule_acts_at_even_moments_before_the_step_that_reaches_them(updates, until):
    """It acts at most once before each step, and always at the first and the last moment."""
    epochs = [epoch_steps(epoch, 600, 4, (20, 10), (0.1, 0.01)) for epoch in range(4)]
    network().fit(X, Y, sparsify=Spy(0.5, updates=updates, until=until), seed=7, **OPTIONS)
    updates = updates or max(1, round(20 * until))  # by default five in each epoch
    begin = np.concatenate([epoch * 600 + steps.first for epoch, steps in enumerate(epochs)]) / 2400
    want = []
    for number, (a, b) in enumerate(zip(begin, [*begin[1:], 1], strict=True)):
        reached = [moment for moment in until * np.arange(updates + 1) / updates if a <= moment < b]
        if reached:
            want.append((number, max(reached)))
    assert [call[1] for call in calls] == [number for number, _ in want]
    np.testing.assert_allclose([call[0] for call in calls], [moment for _, moment in want], atol=1e-12)
    assert calls[-1][0] == pytest.approx(until) and all(call[2] == 7 for call in calls)


def test_longer_runs_have_more_updates_by_default_up_to_100():
    assert [GradualPruning(0.5).over(epochs).updates for epochs in (1, 10, 60)] == [4, 38, 100]
    assert SET(0.5, updates=7).over(60) == SET(0.5, updates=7)


def test_a_run_of_one_step_is_pruned():
    net = network()
    net.fit(X, Y, epochs=1, batch_size=600, sparsify=GradualPruning(0.5))
    assert net.sparsity == pytest.approx(0.5, abs=1e-3)


def test_other_threads_wait_while_a_schedule_acts(monkeypatch):
    net, free = network(), []
    monkeypatch.setattr(SET, "act", lambda self, model, *_: free.append(is_free(model.graph.lock)))
    net.fit(X, Y, epochs=1, sparsify=SET(0.5))
    assert free and not any(free)


@ALL
@pytest.mark.parametrize("dropout", [pytest.param(0, marks=pytest.mark.slow), 0.25])
def test_only_the_seed_decides(monkeypatch, kind, dropout):
    """Neither the number of threads nor the number of steps in one call of the kernels changes a bit."""
    runs = []
    for n_threads, seconds, seed in ((1, 0.04, 0), (2, 0, 0), (3, 10, 0), (1, 0.04, 1)):
        monkeypatch.setattr(loop, "PIECE_SECONDS", seconds)
        net = network(dropout=dropout)
        options = {**OPTIONS, "epochs": 2, "batch_size": 20, "seed": seed, "n_threads": n_threads}
        net.fit(X, Y, sparsify=kind(0.8, updates=8), **options)
        runs.append((net.graph._pool.tobytes(), net.graph.parameters.tobytes(), net.history.batch_loss.tolist()))
    assert runs[0] == runs[1] == runs[2] != runs[3]


# --- samples --------------------------------------------------------------------------------------


def test_samples_follow_from_the_step_and_have_their_labels(monkeypatch):
    """Floats that are stored as bytes, because they are many, are given as floats."""
    monkeypatch.setattr(examples, "LARGE", 1)
    for x in (X, X, (X / np.float32(255)).astype(np.float64)):
        network().fit(x, Y, sparsify=Spy(0.5, updates=2), **OPTIONS)
    samples, labels = [call[3](50) for call in calls], {row.tobytes(): label for row, label in zip(X, Y, strict=True)}
    for (x, y), (same_x, same_y), (floats, _) in zip(samples[:3], samples[3:6], samples[6:], strict=True):
        assert x.shape == (50, 30) and x.tobytes() == same_x.tobytes() and y.tolist() == same_y.tolist()
        assert [labels[row.tobytes()] for row in x] == y.tolist()
        np.testing.assert_array_equal(floats, x / np.float32(255))
    assert samples[0][0].tobytes() != samples[1][0].tobytes()
    assert sorted(map(bytes, calls[0][3](10**6)[0])) == sorted(map(bytes, X))
    for n, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="n: expected an integer of at least 1, got"):
            calls[0][3](n)


def test_a_loss_that_is_a_node_has_samples_without_targets():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(X.shape[1])
    hidden = [g[i] for i in g.add_neurons(x, weights=np.ones((4, len(x))))]
    out = g.add_neuron(hidden, weights=np.ones(4))
    model = mlgraph.Model(g, out, loss=mlgraph.softplus(out))
    model.fit(X, epochs=2, learning_rate=1e-4, sparsify=GradualPruning(0.5, by="saliency"))
    assert model.sparsity >= 0.5


@pytest.mark.parametrize("schedule", [RigL(0.5), GradualPruning(0.5, by="saliency")], ids=repr)
def test_inputs_may_be_added_during_the_run(schedule):
    net, new = network(), []
    net.fit(X, Y, sparsify=schedule, callbacks=[lambda _: new or new.append(net.graph.add_input())], **OPTIONS)
    assert net.sparsity == pytest.approx(0.5, abs=0.02) and not new[0].targets


def test_data_may_lack_columns_only_where_no_edge_can_grow():
    net = network()
    net.graph.prune([(net.graph[29], n) for n in net.layers[0]])
    before = net.graph.get_parameters().tobytes()
    for schedule in (SET(0.5), RigL(0.5)):
        with pytest.raises(
            ValueError, match=r"^x: expected 30 columns, one for each input that may gain edges, got 29"
        ):
            net.fit(X[:, :29], Y, sparsify=schedule, **OPTIONS)
    assert net.graph.get_parameters().tobytes() == before
    assert net.fit(X[:, :29], Y, sparsify=GradualPruning(0.5), **OPTIONS).epoch_loss.size == 4


# --- schedules of a user --------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Thin(Schedule):
    """Cuts neurons, and stops there if `stop` is set."""

    by: str = "magnitude"
    stop: bool = False

    def act(self, model, moment, step, seed, sample, n_threads):
        if self.stop and moment > 0.3:
            raise StopIteration
        model.prune(neurons=self.sparsity * moment / self.until, by=self.by)


class Plain(Schedule):
    """Has a constructor of its own."""

    def __init__(self, fraction):
        super().__init__(fraction, updates=None)

    def act(self, model, moment, step, seed, sample, n_threads):
        model.prune(sparsity=self.sparsity * moment / self.until)


class Bare(Plain):
    """Has a constructor that leaves out the arguments of `Schedule`."""

    def __init__(self):
        pass


def test_a_schedule_of_a_user_may_cut_what_it_likes():
    assert repr(Thin(0.5)) == "Thin(sparsity=0.5, updates=None, until=0.75, by='magnitude', stop=False)"
    net = network()
    net.fit(X, Y, sparsify=Thin(0.5), **OPTIONS)
    assert sum(neuron.alive for layer in net.layers[:2] for neuron in layer) == 20
    net = network()
    frozen = net.layers[1][3]
    frozen.weights, frozen.frozen = frozen.weights / 1000, True
    net.fit(X, Y, sparsify=Plain(0.5), **OPTIONS)
    assert net.sparsity == pytest.approx(0.5, abs=1e-3) and len(frozen.sources) == 24


def test_a_schedule_may_end_the_run():
    net = network()
    history = net.fit(X, Y, sparsify=Thin(0.5, stop=True), **OPTIONS)
    assert 0 < history.batch_examples[-1] < 4 * len(X)
    assert net.fit(X, Y, **OPTIONS).batch_examples[-1] == 4 * len(X)


@ALL
def test_a_run_leaves_the_given_schedule_as_it_is(kind):
    schedule = kind(0.5)
    network().fit(X, Y, epochs=1, sparsify=schedule)
    assert vars(schedule) == vars(kind(0.5))


@pytest.mark.parametrize("due", [0.5, np.zeros(3), np.zeros(20, int)], ids=repr)
def test_due_must_return_a_moment_for_each_step(due):
    class Odd(Spy):
        def due(self, begin, end):
            return due

    with pytest.raises(ValueError, match=r"^due: expected a moment or NaN for each of "):
        network().fit(X, Y, epochs=1, batch_size=len(X) // 20, sparsify=Odd(0.5))
    assert not calls


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: GradualPruning(1), "sparsity: expected a number from 0 to below 1, got 1"),
        (lambda: SET("x"), "sparsity: expected a number from 0 to below 1, got 'x'"),
        (lambda: SET(0.5, until=1.0), "until: expected a number from 0 to below 1, got 1.0"),
        (lambda: SET(0.5, updates=0), "updates: expected an integer of at least 1, got 0"),
        (lambda: RigL(0.5, fraction=2), "fraction: expected a number from 0 to 1, got 2"),
        (lambda: GradualPruning(0.5, start=0.8), "start: expected a number from 0 to until, 0.75, got 0.8"),
        (lambda: GradualPruning(0.5, initial=0.6), "initial: expected a number from 0 to sparsity, 0.5, got 0.6"),
        (lambda: GradualPruning(0.5, scope="all"), "scope: expected global or layer, got 'all'"),
        (lambda: GradualPruning(0.5, by="gradient"), "by: expected path, .* or a callable, got 'gradient'"),
        (lambda: GradualPruning(0.5).at(2), "moment: expected a number from 0 to 1, got 2"),
    ],
)
def test_arguments_are_checked(attempt, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        attempt()


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (SET, r"sparsify: expected a mlgraph.Schedule, such as GradualPruning\(0.9\), or None, got the class SET$"),
        (0.5, r"sparsify: expected a mlgraph.Schedule, such as GradualPruning\(0.9\), or None, got float"),
        (Bare(), "sparsify: Bare has no sparsity; make it a @dataclass"),
        # The fewest edges: one for each output, and one into a neuron of each layer that all outputs share.
        (GradualPruning(0.992), r"sparsity: paths to all outputs need at least 11 edges, but \d"),
        (GradualPruning(0.98, scope="layer"), "sparsity: paths to all outputs need at least 9 edges of layer 2"),
        (SET(0.97), "sparsity: paths to all outputs need at least 9 edges of layer 2"),
        (RigL(0.97), "sparsity: paths to all outputs need at least 9 edges of layer 2"),
    ],
)
def test_bad_schedules_are_refused_before_training(schedule, message):
    net = network()
    before = net.graph.get_parameters().tobytes()
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        net.fit(X, Y, sparsify=schedule, **OPTIONS)
    assert net.graph.get_parameters().tobytes() == before and net.sparsity == 0 and not len(net.history.batch_loss)


def test_models_without_layers_can_only_be_pruned():
    g = mlgraph.Graph(seed=0)
    model = mlgraph.Model(g, [g.add_neuron(g.add_inputs(30), weights=np.ones(30))])
    y = Y[:, None] * 1.0
    with pytest.raises(TypeError, match="sparsify: SET and RigL need a Network"):
        model.fit(X, y, sparsify=RigL(0.5))
    model.fit(X, y, epochs=2, learning_rate=1e-4, sparsify=GradualPruning(0.5))
    assert model.n_edges == 15
