"""Checkpoints: a run that was stopped resumes and ends bitwise equal to an uninterrupted run."""

import itertools
import os
import random
import signal
import subprocess
import sys

import checkpoint_runs
import numpy as np
import pytest
from checkpoint_runs import RUNS, TARGETS, Stop, X, bits, fit, interrupted, network, resumed, stop_at, whole

import mlgraph
from mlgraph.training.checkpoint import CheckpointError

pytestmark = pytest.mark.usefixtures("small_pieces")


def fast(*names):
    """The names of all runs; only these are fast enough for every day."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]


@pytest.mark.parametrize("name", fast("sgd", "adam, dropped edges", "early stopping"))
def test_runs_stopped_repeatedly_end_with_same_bits(path, name):
    make, y, options = RUNS[name]
    chance = random.Random(7)
    for lives in itertools.count(1):
        model = make()
        kept = {"checkpoint": path, "checkpoint_every": 0, "resume": True, "n_threads": 1 + lives % 3}
        try:
            fit(model, y, callbacks=[stop_at(chance.randrange(2, 30))], **kept, **options)
            break
        except Stop:
            pass
    assert lives > 3 and bits(model) == whole(name)
    assert (len(model.history.epoch_loss) < 3) == (name == "early stopping")
    assert (model.history.batch_skipped.sum() > 0) == (name == "skipped examples")
    assert (len(model.history.nonfinite_cut) > 5) == (name in ("skipped examples", "disconnected neurons"))


KILLED = """
import os, random, signal, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import checkpoint_runs as t
from mlgraph.training import loop

name, path, out, left = *sys.argv[1:4], int(sys.argv[4])
make, y, options = t.RUNS[name]
loop.PIECE_SECONDS = 0


def strike(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def struck(real):
    def before_and_after(*given, **more):
        strike()
        done = real(*given, **more)
        strike()
        return done
    return before_and_after


for step in ("fsync", "link", "replace"):
    setattr(os, step, struck(getattr(os, step)))
model = make()
t.fit(model, y, epochs={epochs}, checkpoint=path, checkpoint_every=0, resume=True,
      n_threads=random.Random(left).choice([1, 2, 3, None]), callbacks=[strike], **options)
Path(out).write_text(repr(t.bits(model)))
"""


@pytest.mark.parametrize("name", fast("sgd"))
def test_killed_processes_resume_to_same_bits(name, tmp_path, request):
    """SIGKILL strikes between any two steps of training and writing; `--kills 50` repeats it."""
    kills, chance = request.config.getoption("kills"), random.Random(name)
    epochs = 6 + kills  # about as long as so many lives
    path, out = tmp_path / "run.npz", tmp_path / "bits"
    code = KILLED.format(folder=os.path.dirname(checkpoint_runs.__file__), epochs=epochs)
    killed, status = 0, -1
    while killed < kills or status:
        left = 0 if killed == kills else chance.randrange(20, 300)  # a step of training and writing has 9 strikes
        command = [sys.executable, "-W", "error", "-c", code, name, str(path), str(out), str(left)]
        status = subprocess.run(command, timeout=600).returncode
        assert status in ((0, -signal.SIGKILL) if left else (0,))
        if status:
            killed += 1
            mlgraph.load(path)  # whole, whatever the process was doing
        else:
            assert out.read_text() == repr(whole(name, epochs=epochs))
            for file in tmp_path.iterdir():
                file.unlink()


ENDED = "^checkpoint: the run of .* has already ended, after {} of 3 epochs; the model is as it was then"


@pytest.mark.parametrize(("calls", "epochs"), [(1, 0), (21, 0), (22, 1), (23, 1)])
def test_run_that_a_callback_ended_is_not_trained_further(path, calls, epochs):
    net = network()
    fit(net, checkpoint=path, checkpoint_every=1e6, callbacks=[stop_at(calls, StopIteration)])
    with pytest.warns(UserWarning, match=ENDED.format(epochs)):
        assert bits(resumed(path)) == bits(net)


def test_resume_without_a_file_starts_and_after_the_end_says_so_and_changes_nothing(path):
    assert bits(resumed(path)) == whole() and os.listdir(path.parent) == [path.name]
    before = path.read_bytes()
    with pytest.warns(UserWarning, match=ENDED.format(3)) as told:
        assert bits(resumed(path, callbacks=[stop_at(1)])) == whole() and path.read_bytes() == before
    assert told[0].filename == fit.__code__.co_filename


def test_without_resume_the_old_checkpoint_becomes_the_previous_one(path):
    interrupted(path)
    old, net = path.read_bytes(), network()
    fit(net, checkpoint=path, checkpoint_every=1e6)
    assert bits(net) == whole() and path.with_name("run.npz.previous").read_bytes() == old


def test_resume_takes_every_model_the_run_began_or_was_resumed_with(path):
    trained_further = interrupted(path)
    with pytest.raises(CheckpointError, match="another run: the model has other nodes"):
        resumed(path, trained_further)  # one step past the checkpoint
    start = path.with_name("start.npz")
    start.write_bytes(path.read_bytes())
    for begin in (lambda: mlgraph.load(start), network, lambda: mlgraph.load(start)):
        with pytest.raises(Stop):
            resumed(path, begin(), checkpoint_every=0, callbacks=[stop_at(5)])
    assert bits(resumed(path, mlgraph.load(start))) == whole()


def test_subclass_of_network_resumes(path):
    class Own(mlgraph.Network):
        pass

    interrupted(path)
    net = network()
    net.__class__ = Own
    assert bits(resumed(path, net)) == whole() and type(net) is Own


def test_views_and_functions_stay_valid_after_resume(path):
    interrupted(path)
    net = network()
    neuron, other = net.layers[0].neurons[3], net.graph.compile(net.layers[1].neurons[::-1])
    function = net.graph.compile(neuron)
    assert net.graph.storage.moves  # compilation moved parameters
    assert bits(resumed(path, net)) == whole()
    assert neuron.weights.tolist() == net.graph[neuron.id].weights.tolist() != network().layers[0].weights[3].tolist()
    np.testing.assert_allclose(
        function(X / 255)[:, 0], np.tanh(X / 255 @ neuron.weights + neuron.bias), rtol=1e-5, atol=1e-6
    )
    assert np.isfinite(other(X / 255)).all()


@pytest.mark.filterwarnings("ignore:y. outputs of tanh are")
def test_resume_when_parameters_end_within_a_panel(path):
    """Parameters read from a file end with a whole panel, unlike those of the run."""

    def run(**kept):
        g = mlgraph.Graph(seed=0)
        neuron = g.add_neuron(g.add_inputs(24), "tanh", weights=np.linspace(-0.2, 0.2, 24), bias=None)
        model = mlgraph.Model(g, [neuron])
        assert len(g.parameters) % 16
        schedule = mlgraph.GradualPruning(0.8, updates=20)
        fit(model, TARGETS[:, 0], optimizer="adam", momentum=0.9, sparsify=schedule, **kept)
        return neuron.weights.tolist(), model.history.batch_loss.tolist()

    kept = {"checkpoint": path, "checkpoint_every": 0, "resume": True}
    for count in (20, 20, 30):
        with pytest.raises(Stop):
            run(callbacks=[stop_at(count)], **kept)
    assert run(**kept) == run()


def test_edits_by_callbacks_survive_resume(path):
    def run(stop, **kept):
        """Change a weight and the graph at the end of each epoch."""
        net = network()

        def grow(event):
            if event.kind == "epoch":
                net.layers[1].neurons[0].weights[event.epoch] += 0.25
                net.graph.add_neuron([net.graph[0]], weights=[1.0])
                net.graph.compile([net.graph[len(net.graph) - 1], net.layers[0].neurons[0]])
            stop(event)

        fit(net, momentum=0.9, callbacks=[grow], **kept)
        assert len(net.graph) == len(network().graph) + 3
        return bits(net)

    kept = {"checkpoint": path, "checkpoint_every": 0, "resume": True}
    for count in (23, 25, 20):
        with pytest.raises(Stop):
            run(stop_at(count), **kept)
    assert run(lambda _: None, **kept) == run(lambda _: None)


def test_checkpoint_behind_a_symbolic_link(tmp_path):
    """The target is written, and the previous checkpoint goes next to it: it may be on another disk."""
    there, link, net = tmp_path / "there", tmp_path / "run.npz", network()
    there.mkdir()
    link.symlink_to(there / "run.npz")
    fit(net, checkpoint=link, checkpoint_every=0)
    assert sorted(os.listdir(there)) == ["run.npz", "run.npz.previous"]
    assert sorted(os.listdir(tmp_path)) == ["run.npz", "there"]
    np.testing.assert_array_equal(mlgraph.load(link).graph.get_parameters(), net.graph.get_parameters())
