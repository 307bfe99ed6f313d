"""Any schedule: when it acts, on what, what it may be and for which models, and that nothing but the seed decides."""

from dataclasses import dataclass, fields

import numpy as np
import pytest
from cuttable import OPTIONS, X, Y, network
from locks import is_free

import mlgraph
from mlgraph.engine import examples
from mlgraph.engine.steps import epoch_steps
from mlgraph.sparsity import growing
from mlgraph.sparsity.schedules import SET, GradualPruning, RigL, Schedule
from mlgraph.training import loop


class Spy(Schedule):
    def act(self, model, moment, step, seed, sample, n_threads):
        calls.append((moment, step, seed, sample))


calls = []


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


@pytest.mark.parametrize("updates", [1, 3, 20, 1000, None])
@pytest.mark.parametrize("until", [0, 0.31, 0.77, 0.999])
def test_moments(updates, until):
    """Before the first step whose examples reach a moment; each at most once; first and last always."""
    epochs = [epoch_steps(epoch, 600, 4, (20, 10), (0.1, 0.01)) for epoch in range(4)]
    network().fit(X, Y, sparsify=Spy(0.5, updates=updates, until=until), seed=7, **OPTIONS)
    updates = updates or max(1, round(20 * until))  # by default five in each of the four epochs
    begin = np.concatenate([epoch * 600 + steps.first for epoch, steps in enumerate(epochs)]) / 2400
    end = np.append(begin[1:], 1)
    want = []
    for number, (a, b) in enumerate(zip(begin, end, strict=True)):
        reached = [moment for moment in until * np.arange(updates + 1) / updates if a <= moment < b]
        if reached:
            want.append((number, max(reached)))
    assert [call[1] for call in calls] == [number for number, _ in want]
    np.testing.assert_allclose([call[0] for call in calls], [moment for _, moment in want], atol=1e-12)
    assert calls[0][:2] == (0, 0) or updates > len(begin)
    assert calls[-1][0] == pytest.approx(until) and all(call[2] == 7 for call in calls)


def test_how_often_by_default():
    assert [GradualPruning(0.5).over(epochs).updates for epochs in (1, 10, 60)] == [4, 38, 100]
    assert SET(0.5, updates=7).over(60) == SET(0.5, updates=7)


def test_one_step():
    net = network()
    net.fit(X, Y, epochs=1, batch_size=600, sparsify=GradualPruning(0.5))
    assert net.sparsity == pytest.approx(0.5, abs=1e-3)


def test_samples_follow_from_the_step():
    for _ in range(2):
        network().fit(X, Y, sparsify=Spy(0.5, updates=2), **OPTIONS)
    samples = [call[3](50) for call in calls]
    for (x, y), (same_x, same_y) in zip(samples[:3], samples[3:], strict=True):
        assert x.shape == (50, 30) and x.tobytes() == same_x.tobytes() and y.tolist() == same_y.tolist()
        assert {row.tobytes() for row in x} <= {row.tobytes() for row in X}
    assert samples[0][0].tobytes() != samples[1][0].tobytes()
    x, y = calls[0][3](10**6)
    assert sorted(map(bytes, x)) == sorted(map(bytes, X)) and sorted(y.tolist()) == sorted(Y.tolist())


def test_inputs_that_come_while_it_trains():
    """Of which there are no data, and which nothing reads."""
    for schedule in (RigL(0.5), SET(0.5), GradualPruning(0.5, by="saliency")):
        net, new = network(), []
        net.fit(
            X,
            Y,
            sparsify=schedule,
            callback=lambda _, net=net, new=new: new or new.append(net.graph.input()),
            **OPTIONS,
        )
        assert net.sparsity == pytest.approx(0.5, abs=0.02) and not new[0].targets


def test_what_is_multiplied_layer_by_layer_is_compiled_once_in_a_run(monkeypatch):
    """Also by a schedule of one's own; the next run begins anew, and the schedule that was given keeps nothing."""

    @dataclass(frozen=True, repr=False)
    class Own(SET):
        by = "gradient"

        def over(self, epochs):
            return Own(self.sparsity, updates=4)

    made, make = [], growing._full_layer
    monkeypatch.setattr(growing, "_full_layer", lambda *shape: made.append(shape) or make(*shape))
    for schedule in (RigL(0.5, updates=4), Own(0.5)):
        for _ in range(2):
            made.clear()
            net = network()
            net.fit(X, Y, sparsify=schedule, **OPTIONS)
            assert sorted(made) == sorted({(layer.size, len(layer.source_ids)) for layer in net.layers})
        assert vars(schedule).keys() == {field.name for field in fields(schedule)}


@pytest.mark.parametrize("schedule", [SET(0.5), RigL(0.5)], ids=repr)
def test_inputs_at_which_edges_may_grow_have_data(schedule):
    """Though nothing reads the last of them as it is; where edges are only cut these may be missing."""
    net = network()
    net.graph.prune([(net.graph[29], n) for n in net.layers[0].neurons])
    before = net.graph.get_parameters()
    with pytest.raises(ValueError, match=r"^x: expected 30 columns, one for each input that may gain edges, got 29$"):
        net.fit(X[:, :29], Y, sparsify=schedule, **OPTIONS)
    np.testing.assert_array_equal(net.graph.get_parameters(), before)
    assert net.fit(X[:, :29], Y, sparsify=GradualPruning(0.5), **OPTIONS).epoch_loss.size == 4


@pytest.mark.parametrize(
    "schedule", [GradualPruning(0.8, updates=20), SET(0.8, updates=20), RigL(0.8, updates=20)], ids=repr
)
@pytest.mark.parametrize("dropout", [pytest.param(0, marks=pytest.mark.slow), 0.25])
def test_nothing_but_the_seed_decides(monkeypatch, schedule, dropout):
    """Not the number of threads, nor how many steps go down in one call."""
    runs = []
    for n_threads, seconds, seed in ((1, 0.04, 0), (2, 0, 0), (3, 10, 0), (1, 0.04, 1)):
        monkeypatch.setattr(loop, "PIECE_SECONDS", seconds)
        net = network(dropout=dropout)
        net.fit(X, Y, sparsify=schedule, seed=seed, n_threads=n_threads, **OPTIONS)
        runs.append((net.graph._pool.tobytes(), net.graph.parameters.tobytes(), net.history.batch_loss.tolist()))
    assert runs[0] == runs[1] == runs[2] != runs[3]


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: GradualPruning(1), "sparsity: expected a number from 0 to below 1, got 1"),
        (lambda: RigL(-0.5), "sparsity: expected a number from 0 to below 1, got -0.5"),
        (lambda: SET("x"), "sparsity: expected a number from 0 to below 1, got 'x'"),
        (lambda: SET(0.5, until=1.0), "until: expected a number from 0 to below 1, got 1.0"),
        (lambda: SET(0.5, updates=0), "updates: expected an integer of at least 1, got 0"),
        (lambda: SET(0.5, updates=1.5), "updates: expected an integer of at least 1, got 1.5"),
        (lambda: SET(0.5, fraction=2), "fraction: expected a number from 0 to 1, got 2"),
        (lambda: GradualPruning(0.5, start=0.8), "start: expected a number from 0 to until, 0.75, got 0.8"),
        (lambda: GradualPruning(0.5, initial=0.6), "initial: expected a number from 0 to sparsity, 0.5, got 0.6"),
        (lambda: GradualPruning(0.5, scope="all"), "scope: expected global or layer, got 'all'"),
        (
            lambda: GradualPruning(0.5, by="gradient"),
            "by: expected magnitude, saliency, random or a callable, got 'gradient'",
        ),
    ],
)
def test_bad_schedules(attempt, message):
    with pytest.raises(TypeError if message.endswith(("'x'", "1.5")) else ValueError, match=message):
        attempt()


def test_a_schedule_for_another_model():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, [g.add_neuron(g.inputs(30), weights=np.ones(30))])
    before = g.parameters.tobytes()
    with pytest.raises(TypeError, match="sparsify: SET and RigL need a Network"):
        model.fit(X, Y[:, None] * 1.0, sparsify=RigL(0.5))
    with pytest.raises(TypeError, match=r"sparsify: expected a mlgraph.Schedule or None, got the class SET$"):
        model.fit(X, Y[:, None] * 1.0, sparsify=SET)
    with pytest.raises(TypeError, match=r"sparsify: expected a mlgraph.Schedule or None, got float"):
        model.fit(X, Y[:, None] * 1.0, sparsify=0.5)
    assert g.parameters.tobytes() == before
    model.fit(X, Y[:, None] * 1.0, epochs=2, learning_rate=1e-4, sparsify=GradualPruning(0.5))
    assert model.n_edges == 15


@pytest.mark.parametrize(
    ("schedule", "least"),
    [
        (
            GradualPruning(0.992),
            "11 edges",
        ),  # an edge for each output, and one into the neuron of each layer that all share
        (GradualPruning(0.98, scope="layer"), "9 edges of layer 2"),
        (SET(0.97), "9 edges of layer 2"),
        (RigL(0.97), "9 edges of layer 2"),
    ],
    ids=repr,
)
def test_too_few_edges_are_refused_before_training(schedule, least):
    net = network()
    before = net.graph.get_parameters()
    with pytest.raises(ValueError, match=f"sparsity: paths to all outputs need at least {least}, but \\d"):
        net.fit(X, Y, sparsify=schedule, **OPTIONS)
    assert net.sparsity == 0 and not len(net.history.batch_loss)
    np.testing.assert_array_equal(net.graph.get_parameters(), before)


def test_a_schedule_of_ones_own():
    """With fields, or made as it likes."""

    @dataclass(frozen=True, repr=False)
    class Thin(Schedule):
        by: str = "magnitude"

        def act(self, model, moment, step, seed, sample, n_threads):
            model.prune(neurons=self.sparsity * moment / self.until, by=self.by)

    class Plain(Schedule):
        def __init__(self, share):
            super().__init__(share, updates=None)

        def act(self, model, moment, step, seed, sample, n_threads):
            model.prune(self.sparsity * moment / self.until)

    assert repr(Thin(0.5)) == "Thin(sparsity=0.5, updates=None, until=0.75, by='magnitude')"
    net = network()
    net.fit(X, Y, sparsify=Thin(0.5), **OPTIONS)
    assert sum(neuron.alive for layer in net.layers[:2] for neuron in layer.neurons) == 20
    net = network()
    some = net.layers[1].neurons[3]
    some.weights, some.frozen = some.weights / 1000, True
    net.fit(X, Y, sparsify=Plain(0.5), **OPTIONS)
    assert net.sparsity == pytest.approx(0.5, abs=1e-3) and len(some.sources) == 24

    class Bare(Plain):
        def __init__(self):
            pass

    before = net.graph.get_parameters().tobytes()
    with pytest.raises(TypeError, match=r"^sparsify: Bare has no sparsity; make it a @dataclass"):
        net.fit(X, Y, sparsify=Bare(), **OPTIONS)
    assert net.graph.get_parameters().tobytes() == before


@pytest.mark.parametrize("due", [0.5, None, np.zeros(3), np.zeros(20, int)], ids=repr)
def test_moments_that_are_none(due):
    class Odd(Schedule):
        def due(self, begin, end):
            return due

        def act(self, *_):
            pytest.fail("there is no moment to act at")

    net = network()
    with pytest.raises(ValueError, match=r"^due: expected a moment or NaN for each of "):
        net.fit(X, Y, epochs=1, batch_size=len(X) // 20, sparsify=Odd(0.5))


def test_a_schedule_ends_a_run():
    """As a callback does: what was learnt until then stays."""

    @dataclass(frozen=True, repr=False)
    class Stop(Schedule):
        def act(self, model, moment, step, seed, sample, n_threads):
            if moment > 0.3:
                raise StopIteration

    net = network()
    history = net.fit(X, Y, sparsify=Stop(0.5), **OPTIONS)
    assert 0 < history.batch_examples[-1] < 4 * len(X)
    assert net.fit(X, Y, **OPTIONS).batch_examples[-1] == 4 * len(X)


def test_a_sample_has_the_answers_of_its_examples():
    class Watching(Schedule):
        def act(self, model, moment, step, seed, sample, n_threads):
            x, y = sample(40)
            seen.append([(row.tobytes(), label) for row, label in zip(x, y.tolist(), strict=True)])

    seen = []
    network().fit(X, Y, epochs=1, sparsify=Watching(0.5, updates=2))
    answers = {row.tobytes(): label for row, label in zip(X, Y.tolist(), strict=True)}
    assert len(seen) == 3 and all(answers[row] == label for pairs in seen for row, label in pairs)


def test_a_sample_is_of_the_data_as_they_were_given(monkeypatch):
    """Also of floats that are read as bytes, since there are many."""

    class Watching(Schedule):
        def act(self, model, moment, step, seed, sample, n_threads):
            seen.append(sample(40)[0])

    seen = []
    monkeypatch.setattr(examples, "LARGE", 1)
    network().fit((X / np.float32(255)).astype(np.float64), Y, epochs=1, sparsify=Watching(0.5, updates=2))
    network().fit(X, Y, epochs=1, sparsify=Watching(0.5, updates=2))
    assert len(seen) == 6
    for of_floats, of_bytes in zip(seen[:3], seen[3:], strict=True):
        np.testing.assert_array_equal(of_floats, of_bytes / np.float32(255))


def test_a_loss_of_ones_own_has_no_answers():
    g = mlgraph.Graph()
    x = g.inputs(X.shape[1])
    hidden = [g[i] for i in g.add_neurons(x, weights=np.ones((4, len(x))))]
    out = g.add_neuron(hidden, weights=np.ones(4))
    model = mlgraph.Model(g, out, loss=mlgraph.softplus(out))
    model.fit(X, epochs=2, learning_rate=1e-4, sparsify=GradualPruning(0.5, by="saliency"))
    assert model.sparsity >= 0.5


@pytest.mark.parametrize("n", [0, -1, 1.5, 1e9])
def test_a_sample_of_no_number(n):
    class Ask(Schedule):
        def act(self, model, moment, step, seed, sample, n_threads):
            sample(n)

    with pytest.raises(
        TypeError if isinstance(n, float) else ValueError, match="n: expected an integer of at least 1, got"
    ):
        network().fit(X, Y, sparsify=Ask(0.5), **OPTIONS)


def test_schedules_act_while_no_other_thread_may(monkeypatch):
    net, free = network(), []
    monkeypatch.setattr(SET, "act", lambda self, model, *_: free.append(is_free(model.graph.lock)))
    net.fit(X, Y, epochs=1, sparsify=SET(0.5))
    assert free and not any(free)
