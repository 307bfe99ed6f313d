"""A resumed sparse run is bitwise equal to an uninterrupted one, and needs the same schedule."""

import contextlib
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from cuttable import OPTIONS, X, Y, by_target, network, pairs

import mlgraph
from mlgraph.sparsity.gradual_pruning import GradualPruning
from mlgraph.sparsity.rewiring import SET, RigL
from mlgraph.sparsity.schedules import Schedule
from mlgraph.training import loop


@pytest.mark.parametrize("kind", [GradualPruning, SET, RigL])
@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adam", marks=pytest.mark.slow)])
def test_a_run_resumes_at_any_step_with_the_same_bits(tmp_path, monkeypatch, kind, optimizer):
    """It is interrupted again and again, before and after the schedule acts."""
    monkeypatch.setattr(loop, "PIECE_SECONDS", 0)  # one step in each call
    options = {**OPTIONS, "optimizer": optimizer, "sparsify": kind(0.8, updates=20), "seed": 3}
    options["learning_rate"] = 0.02, 0.001
    whole = network()
    whole.fit(X, Y, **options)
    path, steps = tmp_path / "run.npz", len(whole.history.batch_loss)

    def stop(progress):
        if progress.kind == "steps" and len(progress.history.batch_loss) in stops:
            raise KeyboardInterrupt

    stops, net = [1, 2, steps // 3, steps // 2], network()
    while len(net.history.batch_loss) < steps:
        net = network()
        with contextlib.suppress(KeyboardInterrupt):
            net.fit(X, Y, checkpoint=path, checkpoint_every=1e9, resume=True, callbacks=[stop], **options)
        loaded = mlgraph.load(path)
        assert pairs(loaded) == pairs(net) and loaded.sparsity == net.sparsity and loaded.n_edges == net.n_edges
        assert net.graph.sinks() == whole.graph.sinks()
        stops = [n for n in stops if n > len(net.history.batch_loss)]
    assert not stops
    assert pairs(net) == pairs(whole) and net.forward(X).tobytes() == whole.forward(X).tobytes()
    assert net.history.batch_loss.tolist() == whole.history.batch_loss.tolist()


# --- edits during the run -------------------------------------------------------------------------


def share_neurons(net):
    """Another model needs edges that this model loses."""
    return mlgraph.Model(net.graph, net.layers[0].neurons), lambda epoch: None


def share_new_neurons(net):
    """Another model needs neurons that this model gains and loses again."""
    judge = net.graph.add_neuron(net.layers[0].neurons, weights=np.ones(24))

    def edit(epoch):
        if epoch == 0:
            for neuron in net.widen(net.layers[0], 4):
                net.graph.add_edge(neuron, judge, 1.0)
        if epoch == 1:
            net.graph.prune([e for neuron in net.layers[0][-4:] for e in neuron.out_edges if e.target != judge])

    return mlgraph.Model(net.graph, judge), edit


def add_an_input(net):
    return net, lambda epoch: net.graph.add_input("late") if epoch == 0 else None


@pytest.mark.parametrize(
    ("begin", "schedule"),
    [
        (share_neurons, GradualPruning(0.95, updates=20)),
        (share_new_neurons, GradualPruning(0.5, start=0.7)),
        (add_an_input, RigL(0.5)),
    ],
)
def test_a_run_with_edits_resumes_with_the_same_sparsity(tmp_path, begin, schedule):
    def run(last_epoch, path):
        def callback(progress):
            if progress.kind == "epoch":
                edit(progress.epoch)
                if progress.epoch == last_epoch:
                    raise KeyboardInterrupt

        net = network()
        other, edit = begin(net)
        options = {**OPTIONS, "sparsify": schedule, "callbacks": [callback]}
        with contextlib.suppress(KeyboardInterrupt):
            net.fit(X, Y, checkpoint=path, checkpoint_every=0, resume=True, **options)
        return net, other

    whole, beside_whole = run(None, tmp_path / "whole.npz")
    for last_epoch in (0, 1, 2, None):
        net, beside = run(last_epoch, tmp_path / "run.npz")
    assert net.sparsity == whole.sparsity and pairs(net) == pairs(whole)
    assert beside.sparsity == beside_whole.sparsity and beside.n_edges == beside_whole.n_edges
    assert net.graph.n_inputs == whole.graph.n_inputs
    assert net.graph.parameters.tobytes() == whole.graph.parameters.tobytes()


# --- which run a checkpoint belongs to ------------------------------------------------------------


def test_a_checkpoint_of_another_schedule_is_refused(tmp_path):
    net, path = network(), tmp_path / "run.npz"
    net.fit(X, Y, sparsify=RigL(0.5), checkpoint=path, **OPTIONS)
    with pytest.raises(mlgraph.CheckpointError, match="another run: sparsify was RigL"):
        network().fit(X, Y, sparsify=RigL(0.6), checkpoint=path, resume=True, **OPTIONS)


def test_schedules_show_functions_by_name():
    net, given = network(), [by_target, partial(by_target, 1, sign=-1), partial(by_target, 1, sign=1)]
    shown = [repr(GradualPruning(0.5, by=by)) for by in given]
    assert len(set(shown)) == 3 and not any("0x" in text for text in shown)
    assert "by=partial(cuttable.by_target, 1, sign=-1)" in shown[1]
    assert "by=mlgraph.models.model.Model.ablate" in repr(GradualPruning(0.5, by=net.ablate))
    assert eval(repr(RigL(0.5, updates=3))) == RigL(0.5, updates=3)


def test_schedules_show_arrays_by_all_their_numbers():
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
