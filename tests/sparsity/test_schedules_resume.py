"""A resumed sparse run is bitwise equal to an uninterrupted one, and needs the same schedule."""

import contextlib
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from cuttable import OPTIONS, X, Y, by_target, network, pairs

import mlgraph
from mlgraph.sparsity.schedules import SET, GradualPruning, RigL, Schedule
from mlgraph.training import loop


@pytest.mark.parametrize(
    "schedule", [GradualPruning(0.8, updates=20), SET(0.8, updates=20), RigL(0.8, updates=20)], ids=repr
)
@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adam", marks=pytest.mark.slow)])
def test_a_run_goes_on_from_any_step(tmp_path, monkeypatch, schedule, optimizer):
    """Interrupted again and again, before a schedule acts and after, it ends with the bits of one that was not."""
    monkeypatch.setattr(loop, "PIECE_SECONDS", 0)  # one step a call
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
        assert net.graph.sinks() == whole.graph.sinks() and net.n_edges == loaded.n_edges
        stops = [n for n in stops if n > len(net.history.batch_loss)]
    assert len(net.history.batch_loss) == steps and not stops
    assert pairs(net) == pairs(whole) and net.forward(X).tobytes() == whole.forward(X).tobytes()
    assert net.history.batch_loss.tolist() == whole.history.batch_loss.tolist()


def test_a_run_beside_another_model_goes_on(tmp_path):
    """What this model has lost before it was interrupted still counts as its own, though the other needs it."""

    def stop(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    def run(**options):
        net = network()
        other = mlgraph.Model(net.graph, net.layers[0].neurons)
        with contextlib.suppress(KeyboardInterrupt):
            net.fit(X, Y, **{**OPTIONS, "epochs": 4}, sparsify=GradualPruning(0.95, updates=20), **options)
        return net, other

    whole, beside_whole = run()
    path = tmp_path / "run.npz"
    run(checkpoint=path, callback=stop)
    net, beside = run(checkpoint=path, resume=True)
    assert net.sparsity == whole.sparsity and pairs(net) == pairs(whole)
    assert beside.sparsity == beside_whole.sparsity and beside.n_edges == beside_whole.n_edges


def test_a_run_goes_on_in_which_two_models_shared_what_came_and_went(tmp_path):
    """A node that the model needed for a while during the run still counts as its own after resuming."""

    def run(stop, path):
        def edit(progress):
            if progress.kind != "epoch":
                return
            if progress.epoch == 0:
                for neuron in net.widen(net.layers[0], 4):
                    net.graph.add_edge(neuron, judge, 1.0)
            if progress.epoch == 1:
                net.graph.prune([e for neuron in net.layers[0][-4:] for e in neuron.out_edges if e.target != judge])
            if progress.epoch == stop:
                raise StopIteration

        net = network()
        judge = net.graph.add_neuron(net.layers[0].neurons, weights=np.ones(24))
        other = mlgraph.Model(net.graph, judge)
        schedule, options = GradualPruning(0.5, start=0.7), {**OPTIONS, "epochs": 4}
        net.fit(X, Y, sparsify=schedule, callback=edit, checkpoint=path, checkpoint_every=0, resume=True, **options)
        return net, other

    whole, beside_whole = run(None, tmp_path / "whole.npz")
    for stop in (1, 2, None):
        net, beside = run(stop, tmp_path / "run.npz")
    assert net.sparsity == whole.sparsity and pairs(net) == pairs(whole)
    assert beside.sparsity == beside_whole.sparsity and beside.n_edges == beside_whole.n_edges


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
    assert "by=partial(cuttable.by_target, 1, sign=-1)" in shown[1]
    assert eval(repr(RigL(0.5, updates=3))) == RigL(0.5, updates=3)
    net = network()
    method = repr(GradualPruning(0.5, by=net.ablate))
    net.prune(0.5)
    assert repr(GradualPruning(0.5, by=net.ablate)) == method and "by=mlgraph.models.model.Model.ablate" in method


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


def test_another_schedule_is_another_run(tmp_path):
    net, path = network(), tmp_path / "run.npz"
    net.fit(X, Y, sparsify=RigL(0.5), checkpoint=path, **OPTIONS)
    with pytest.raises(mlgraph.CheckpointError, match="another run: sparsify was RigL"):
        network().fit(X, Y, sparsify=RigL(0.6), checkpoint=path, resume=True, **OPTIONS)
    with pytest.raises(ValueError, match=r"prune: n[0-9]+ is an output of a model"):
        net.outputs[0].prune()
