"""Training that cuts and grows: when a schedule acts, what it leaves, and that nothing but the seed decides."""

import contextlib
import copy
import threading
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from cuttable import OPTIONS, X, Y, layer_sizes, network, pairs

import mlgraph
from mlgraph import pruning, training
from mlgraph.sparsify import SET, GradualPruning, RigL, Schedule


class Spy(Schedule):
    def act(self, model, moment, step, seed, sample, n_threads):
        calls.append((moment, step, seed, sample))


calls = []


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


# --- when ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("updates", [1, 3, 20, 1000, None])
@pytest.mark.parametrize("until", [0, 0.31, 0.77, 0.999])
def test_moments(updates, until):
    """Before the first step whose examples reach a moment; each at most once; first and last always."""
    epochs = [training.epoch_steps(epoch, 600, 4, (20, 10), (0.1, 0.01)) for epoch in range(4)]
    network().fit(X, Y, sparsify=Spy(0.5, updates=updates, until=until), seed=7, **OPTIONS)
    updates = updates or max(1, round(40 * until))  # by default ten in each of the four epochs
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
    assert [GradualPruning(0.5).over(epochs).updates for epochs in (1, 10, 60)] == [8, 75, 100]
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
        assert all(X[i].tobytes() in {row.tobytes() for row in x} for i in [np.argmax((X == x[0]).all(axis=1))])
    assert samples[0][0].tobytes() != samples[1][0].tobytes()
    x, y = calls[0][3](10**6)
    assert sorted(map(bytes, x)) == sorted(map(bytes, X)) and sorted(y.tolist()) == sorted(Y.tolist())


# --- what ---------------------------------------------------------------------------------------------------------------


def test_the_curve():
    """Of the paper: s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3 """
    schedule = GradualPruning(0.9, start=0.2, until=0.6)
    for moment, want in ((0, 0), (0.2, 0), (0.3, 0.9 - 0.9 * 0.75**3), (0.4, 0.9 - 0.9 / 8), (0.6, 0.9), (1, 0.9)):
        assert schedule.at(moment) == pytest.approx(want)
    again = GradualPruning(0.9, start=0.2, until=0.6, initial=0.7)
    for moment, want in ((0, 0.7), (0.2, 0.7), (0.3, 0.9 - 0.2 * 0.75**3), (0.4, 0.9 - 0.2 / 8), (0.6, 0.9), (1, 0.9)):
        assert again.at(moment) == pytest.approx(want)
    assert GradualPruning(0.5, start=0.3, until=0.3).at(0.3) == 0.5 and GradualPruning(0.5, until=0).at(0) == 0.5
    assert [GradualPruning(0.5, start=0.3, until=0.3).at(t) for t in (0, 0.29, 0.31, 1)] == [0, 0, 0.5, 0.5]


@pytest.mark.parametrize("updates", [10, 11, 49])
@pytest.mark.parametrize("until", [0.3, 0.5, 0.9])
def test_all_at_the_last_moment(updates, until):
    """A moment that was rounded to before `start` would cut nothing, and there is none after it."""
    net = network()
    net.fit(X, Y, sparsify=GradualPruning(0.5, start=until, until=until, updates=updates), **OPTIONS)
    assert net.sparsity == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_gradual_pruning(scope):
    schedule, net, seen = GradualPruning(0.8, updates=10, start=0.1, until=0.5, scope=scope), network(), []
    made = layer_sizes(net)
    net.fit(X, Y, sparsify=schedule, callback=lambda p: seen.append(net.sparsity) if p.kind == "epoch" else None, **OPTIONS)
    # Of each layer the share is rounded, and what is of no use goes too.
    assert seen == pytest.approx([schedule.at(0.2), schedule.at(0.45), 0.8, 0.8], abs=0.01)
    assert 1 - net.history.epoch_edges / sum(made) == pytest.approx(seen)
    assert net.evaluate(X, Y)["accuracy"] > 0.8
    if scope == "layer":
        assert layer_sizes(net) == pytest.approx([0.2 * n for n in made], abs=0.01 * sum(made))


@pytest.mark.parametrize("by", ["magnitude", "saliency"])
def test_gradual_pruning_in_blocks(by):
    """More neurons keep a source together than by chance, and the run learns."""
    shared = []
    for block in (1, 4):
        net = network()
        net.fit(X, Y, sparsify=GradualPruning(0.7, updates=10, block=block, by=by), **OPTIONS)
        assert net.sparsity == pytest.approx(0.7, abs=0.01) and net.evaluate(X, Y)["accuracy"] > 0.8
        mask = net.layers[0].mask.reshape(6, 4, 30).sum(axis=1)
        shared.append(np.mean((mask == 0) | (mask == 4)))
    assert shared[1] > 0.75 > 0.5 > shared[0]


def by_target(edges):
    return edges.target * 1000.0 + edges.source


def test_gradual_pruning_by_a_callable():
    """Its scores decide: nothing is cut of the later layers while the first has an edge, but what leads nowhere."""
    net = network()
    net.fit(X, Y, sparsify=GradualPruning(0.3, updates=5, by=by_target), **OPTIONS)
    kept = {i: len(n.sources) for i, n in enumerate(net.layers[0].neurons)}
    assert sum(kept.values()) < 30 * 24 and layer_sizes(net)[2] == 16 * 9
    whole = [i for i, n in kept.items() if n == 30]
    assert whole == list(range(min(whole), 24)) and sum(n > 0 for n in kept.values()) <= len(whole) + 1


@pytest.mark.parametrize("by", ["saliency", "random"])
def test_gradual_pruning_by_other_criteria(monkeypatch, by):
    """By the gradient of a sample; at random others with another seed."""
    seen = []

    def spy(model, sparsity, **options):
        seen.append((options["slope"], options["step"]))
        return prune(model, sparsity, **options)

    prune = pruning.prune
    monkeypatch.setattr("mlgraph.sparsify.prune", spy)
    left = []
    for seed in (0, 0, 1):
        net = network()
        net.fit(X, Y, sparsify=GradualPruning(0.8, updates=10, by=by), seed=seed, **OPTIONS)
        assert net.sparsity == pytest.approx(0.8, abs=0.02)
        assert by == "random" or net.evaluate(X, Y)["accuracy"] > 0.6
        left.append(pairs(net))
    assert left[0] == left[1] != left[2]
    assert all((slope is not None) == (by == "saliency") for slope, _ in seen)
    assert len({step for _, step in seen}) > 5


def test_a_saliency_that_is_not_finite_cuts_nothing_short():
    """The step says what is wrong, not the criterion."""
    g = mlgraph.Graph()
    x = g.inputs(30)
    hidden = [g.add_neuron(x, "relu", weights=np.full(30, 1e36)) for _ in range(3)]
    model = mlgraph.Model(g, mlgraph.sum(*hidden) * 1e5)
    with pytest.raises(mlgraph.NonFiniteError):
        model.fit(X, Y[:, None] * 1.0, epochs=2, sparsify=GradualPruning(0.5, start=0.0, until=0, by="saliency"))


def test_nothing_is_cut_before_the_start():
    net, seen = network(), []
    schedule = GradualPruning(0.9, start=0.5, until=0.75, initial=0.7)
    net.fit(X, Y, sparsify=schedule, callback=lambda p: seen.append((p.examples / p.total_examples, net.sparsity)), **OPTIONS)
    assert all(sparsity == 0 for share, sparsity in seen if share < 0.45)
    assert min(sparsity for share, sparsity in seen if share > 0.55) > 0.69


def test_inputs_that_come_while_it_trains():
    """Of which there are no data, and which nothing reads."""
    for schedule in (RigL(0.5), SET(0.5), GradualPruning(0.5, by="saliency")):
        net, new = network(), []
        net.fit(X, Y, sparsify=schedule, callback=lambda _, net=net, new=new: new or new.append(net.graph.input()), **OPTIONS)
        assert net.sparsity == pytest.approx(0.5, abs=0.02) and not new[0].targets


@pytest.mark.parametrize("schedule", [GradualPruning(0.8, updates=20), SET(0.8, updates=20), RigL(0.8, updates=20)], ids=repr)
@pytest.mark.parametrize("dropout", [0, 0.25])
def test_nothing_but_the_seed_decides(monkeypatch, schedule, dropout):
    """Not the number of threads, nor how many steps go down in one call."""
    runs = []
    for n_threads, seconds, seed in ((1, 0.04, 0), (2, 0, 0), (3, 10, 0), (1, 0.04, 1)):
        monkeypatch.setattr(training, "PIECE_SECONDS", seconds)
        net = network(dropout=dropout)
        net.fit(X, Y, sparsify=schedule, seed=seed, n_threads=n_threads, **OPTIONS)
        runs.append((net.graph._pool.tobytes(), net.graph.parameters.tobytes(), net.history.batch_loss.tolist()))
    assert runs[0] == runs[1] == runs[2] != runs[3]


# --- errors -------------------------------------------------------------------------------------------------------------


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
        (lambda: GradualPruning(0.5, by="gradient"), "by: expected magnitude, saliency, random or a callable, got 'gradient'"),
    ],
)
def test_bad_schedules(attempt, message):
    with pytest.raises(ValueError, match=message):
        attempt()


def test_a_schedule_for_another_model():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, [g.add_neuron(g.inputs(30), weights=np.ones(30))])
    before = g.parameters.tobytes()
    with pytest.raises(TypeError, match="sparsify: expected a schedule without need of layers, as GradualPruning"):
        model.fit(X, Y[:, None] * 1.0, sparsify=RigL(0.5))
    with pytest.raises(TypeError, match=r"sparsify: expected a schedule of .* or None, got float"):
        model.fit(X, Y[:, None] * 1.0, sparsify=0.5)
    assert g.parameters.tobytes() == before
    model.fit(X, Y[:, None] * 1.0, epochs=2, learning_rate=1e-4, sparsify=GradualPruning(0.5))
    assert model.n_edges == 15


@pytest.mark.parametrize(
    ("schedule", "least"),
    [
        (GradualPruning(0.992), "11 edges"),  # an edge for each output, and one into the neuron of each layer that all share
        (GradualPruning(0.98, scope="layer"), "9 edges of layer 2"),
        (SET(0.97), "9 edges of layer 2"),
        (RigL(0.97), "9 edges of layer 2"),
    ],
    ids=repr,
)
def test_too_few_edges_are_refused_before_training(schedule, least):
    net = network()
    before = net.graph.get_parameters()
    with pytest.raises(ValueError, match=f"sparsity: expected to keep at least {least}, a path to each output, got \\d"):
        net.fit(X, Y, sparsify=schedule, **OPTIONS)
    assert net.sparsity == 0 and not len(net.history.batch_loss)
    np.testing.assert_array_equal(net.graph.get_parameters(), before)


def test_a_run_is_not_ended_for_a_few_edges():
    """The paths of the weights that have come to be the largest take more edges than others would; those there are stay."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 6)), rng.integers(0, 4, 50)
    for seed in range(8):
        net = mlgraph.Network(6, seed=seed)
        for n, activation in ((8, "tanh"), (7, "tanh"), (4, "softmax")):
            net.add_layer(n, activation)
        twin = copy.deepcopy(net)
        net.fit(x, y, epochs=3, batch_size=10, sparsify=GradualPruning(0.95))
        assert all(neuron.alive for neuron in net.outputs) and 0.9 < net.sparsity <= 0.96
        twin.prune(0.95)  # 7 of 132
        assert all(neuron.alive for neuron in twin.outputs) and 6 <= twin.n_edges <= 7


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
    with pytest.raises(TypeError, match=r"^sparsify: expected a schedule of a @dataclass.* got Bare without sparsity$"):
        net.fit(X, Y, sparsify=Bare(), **OPTIONS)
    assert net.graph.get_parameters().tobytes() == before


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


@pytest.mark.parametrize("n", [0, -1, 1.5, 1e9])
def test_a_sample_of_no_number(n):
    class Ask(Schedule):
        def act(self, model, moment, step, seed, sample, n_threads):
            sample(n)

    with pytest.raises(ValueError, match="n: expected an integer of at least 1, got"):
        network().fit(X, Y, sparsify=Ask(0.5), **OPTIONS)


def test_the_fewest_edges_are_allowed():
    """Each output reads the same neuron of each layer, which reads one source."""
    net = network()
    n_edges = net.n_edges
    fewest = len(net.outputs) + len(net.layers) - 1
    net.fit(X, Y, sparsify=GradualPruning(1 - fewest / n_edges, by=lambda edges: -edges.source - 0.1), **OPTIONS)
    assert net.n_edges == fewest


# --- going on -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [GradualPruning(0.8, updates=20), SET(0.8, updates=20), RigL(0.8, updates=20)], ids=repr)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_goes_on_from_any_step(tmp_path, monkeypatch, schedule, optimizer):
    """Interrupted again and again, before a schedule acts and after, it ends with the bits of one that was not."""
    monkeypatch.setattr(training, "PIECE_SECONDS", 0)  # one step a call
    options = {**OPTIONS, "learning_rate": (0.02, 0.001), "optimizer": optimizer, "sparsify": schedule, "seed": 3}
    whole = network()
    whole.fit(X, Y, **options)
    path, steps = tmp_path / "run.npz", len(whole.history.batch_loss)

    def stop(progress):
        if progress.kind == "steps" and len(progress.history.batch_loss) in stops:
            raise KeyboardInterrupt

    stops = [1, 2, steps // 3, steps // 2, 2 * steps // 3]
    for _ in range(len(stops) + 1):
        net = network()
        with contextlib.suppress(KeyboardInterrupt):
            net.fit(X, Y, checkpoint=path, checkpoint_every=1e9, resume=True, callback=stop, **options)
        loaded = mlgraph.load(path)
        assert pairs(loaded) == pairs(net) and loaded.sparsity == net.sparsity
        assert net.graph.protected() == whole.graph.protected() and net.n_edges == loaded.n_edges
        stops = [n for n in stops if n > len(net.history.batch_loss)]
    assert len(net.history.batch_loss) == steps and not stops
    assert pairs(net) == pairs(whole) and net.forward(X).tobytes() == whole.forward(X).tobytes()
    assert net.history.batch_loss.tolist() == whole.history.batch_loss.tolist()


@pytest.mark.parametrize("stop", [0, 1])
def test_a_run_to_which_an_input_came_goes_on(tmp_path, stop):
    def run(last, path):
        def tell(progress):
            if progress.kind == "epoch":
                if progress.epoch == 0:
                    net.graph.input("late")
                if progress.epoch == last:
                    raise StopIteration

        net = network()
        net.fit(X, Y, callback=tell, checkpoint=path, checkpoint_every=0, resume=True, sparsify=RigL(0.5), **OPTIONS)
        return net

    whole = run(None, tmp_path / "whole.npz")
    run(stop, tmp_path / "run.npz")
    again = run(None, tmp_path / "run.npz")
    assert again.graph.n_inputs == whole.graph.n_inputs > X.shape[1] and pairs(again) == pairs(whole)
    assert again.forward(np.pad(X, ((0, 0), (0, 1)))).tobytes() == whole.forward(np.pad(X, ((0, 0), (0, 1)))).tobytes()


def test_a_criterion_is_known_by_its_name():
    given = by_target, partial(by_target, 1, sign=-1), partial(by_target, 1, sign=1)
    shown = [repr(GradualPruning(0.5, by=by)) for by in given]
    assert len(set(shown)) == 3 and not any("0x" in text for text in shown)
    assert f"by=partial({__name__}.by_target, 1, sign=-1)" in shown[1]
    assert eval(repr(RigL(0.5, updates=3))) == RigL(0.5, updates=3)
    net = network()
    method = repr(GradualPruning(0.5, by=net.ablate))
    net.prune(0.5)
    assert repr(GradualPruning(0.5, by=net.ablate)) == method and "by=mlgraph.model.Model.ablate" in method


def test_every_layer_loses_its_share():
    """Where others have lost more than theirs, too."""
    net = network()
    net.graph.prune(net.layers[1][:8])
    assert layer_sizes(net) == [720, 192, 72]
    net.fit(X, Y, sparsify=GradualPruning(0.1, scope="layer"), **OPTIONS)
    assert layer_sizes(net) == [648, 192, 72]


def test_a_schedule_knows_an_array_by_all_its_numbers():
    @dataclass(frozen=True, repr=False)
    class Kept(Schedule):
        keep: object = None

        def act(self, *_):
            pass

    masks = [np.zeros((20, 784)) for _ in range(4)]
    masks[1][10, 400] = masks[2][10, 400] = 1 + 1e-15
    masks[3][10, 400] = 1
    shown = [repr(Kept(0.5, keep=mask)) for mask in masks]
    assert len({*shown}) == 3 and shown[1] == shown[2] and len(shown[0]) < 200
    with np.printoptions(precision=2, suppress=True, linewidth=40):
        assert [repr(Kept(0.5, keep=mask)) for mask in masks] == shown
    assert repr(Kept(0.5, keep=masks[0])) != repr(Kept(0.5, keep=masks[0].reshape(784, 20)))


def test_layers_that_have_no_more_than_their_share_are_left_alone():
    """Else each moment would be an edit, and a compilation."""
    for model in (network(), mlgraph.Model((net := network()).graph, net.outputs, "softmax_cross_entropy")):
        model.prune(0.5, scope="layer")
        edits, edges = model.graph.edits, model.n_edges
        model.fit(X, Y, sparsify=GradualPruning(0.3, scope="layer"), **OPTIONS)
        assert (model.graph.edits, model.n_edges) == (edits, edges)


def test_another_schedule_is_another_run(tmp_path):
    net, path = network(), tmp_path / "run.npz"
    net.fit(X, Y, sparsify=RigL(0.5), checkpoint=path, **OPTIONS)
    with pytest.raises(mlgraph.CheckpointError, match="another run, with sparsify RigL"):
        network().fit(X, Y, sparsify=RigL(0.6), checkpoint=path, resume=True, **OPTIONS)
    with pytest.raises(ValueError, match="prune: expected neurons that are no outputs"):
        net.outputs[0].prune()


def test_schedules_act_while_no_other_thread_may(monkeypatch):
    net, free = network(), []

    def other(lock):
        free.append(lock.acquire(blocking=False))
        if free[-1]:
            lock.release()

    def act(self, model, *_):
        thread = threading.Thread(target=other, args=[model.graph.lock])
        thread.start()
        thread.join()

    monkeypatch.setattr(SET, "act", act)
    net.fit(X, Y, epochs=1, sparsify=SET(0.5))
    assert free and not any(free)


def test_nothing_is_edited_where_nothing_is_to_go():
    """So that the last edit is still that of before the run."""
    net = network()
    net.prune(0.5)
    net.fit(X, Y, epochs=1, sparsify=GradualPruning(0.3))
    net.undo()
    assert net.sparsity == 0


def test_scores_that_stop_short():
    """Who gives scores ends no run by it."""
    scores = iter(range(1))
    with pytest.raises(RuntimeError, match="by: expected scores, got StopIteration"):
        network().fit(X, Y, sparsify=GradualPruning(0.5, by=lambda edges: edges.weight * next(scores)), **OPTIONS)
