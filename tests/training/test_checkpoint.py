"""Checkpoints: a run that was stopped resumes and ends bitwise equal to an uninterrupted run."""

import contextlib
import os
import random
import signal
import subprocess
import sys

import checkpoint_runs
import numpy as np
import pytest
from checkpoint_runs import RUNS, TARGETS, Stop, X, bits, fit, interrupted, network, stop_at, whole

import mlgraph
from mlgraph.models import model_file as modelfile
from mlgraph.training.checkpoint import CheckpointError

pytestmark = pytest.mark.usefixtures("small_pieces")


@pytest.mark.parametrize(
    "name", [name if k < 3 else pytest.param(name, marks=pytest.mark.slow) for k, name in enumerate(RUNS)]
)
def test_runs_stopped_repeatedly_end_with_same_bits(path, name):
    make, y, options = RUNS[name]
    chance, lives = random.Random(7), 0
    while True:
        model, lives = make(), lives + 1
        kept = {"checkpoint": path, "checkpoint_every": 0, "resume": True, "n_threads": chance.choice([1, 2, 3])}
        try:
            fit(model, y, callback=stop_at(chance.randrange(2, 30)), **kept, **options)
            break
        except Stop:
            continue
    assert lives > 3 and bits(model) == whole(name)
    assert (model.history.batch_skipped.sum() > 0) == (name == "skipped examples")
    assert (len(model.history.nonfinite_cut) > 5) == (name in ("skipped examples", "disconnected neurons"))


@pytest.mark.parametrize("calls", [1, 20])
def test_run_ended_by_callback_resumes(path, calls):
    fit(network(), momentum=0.0, checkpoint=path, checkpoint_every=1e6, callback=stop_at(calls, StopIteration))
    net = network()
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


def test_resume_without_a_file_starts_the_run(path):
    net = network()
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


def test_resuming_a_finished_run_changes_nothing(path):
    fit(network(), momentum=0.0, checkpoint=path, checkpoint_every=1e6)
    assert os.listdir(path.parent) == [path.name]
    before, net = path.read_bytes(), network()
    history = fit(net, momentum=0.0, checkpoint=path, resume=True, callback=stop_at(1))
    assert bits(net) == whole("sgd") and history is net.history and path.read_bytes() == before


def test_resume_takes_a_loaded_checkpoint_but_no_further_trained_model(path):
    net = interrupted(path, 30)
    with pytest.raises(CheckpointError, match="another run: the model has other nodes"):
        fit(net, momentum=0.0, checkpoint=path, resume=True)  # one step past it: nothing was written at the exception
    net = mlgraph.load(path)
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


def test_resume_takes_every_model_the_run_was_resumed_with(path):
    interrupted(path, 30)
    start = path.with_name("start.npz")
    start.write_bytes(path.read_bytes())
    for begin in (lambda: mlgraph.load(start), network, lambda: mlgraph.load(start)):
        with pytest.raises(Stop):
            fit(begin(), momentum=0.0, checkpoint=path, checkpoint_every=0, resume=True, callback=stop_at(5))
    net = mlgraph.load(start)
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


def test_views_of_nodes_stay_valid_after_resume(path):
    interrupted(path, 30)
    net = network()
    neuron, engine = net.layers[0].neurons[3], net.graph.compile(net.layers[0].neurons[3])
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert (
        neuron.weights.tobytes() == net.graph[neuron.id].weights.tobytes() != network().layers[0].weights[3].tobytes()
    )
    np.testing.assert_allclose(engine(X)[:, 0], np.tanh(X / 255 @ neuron.weights + neuron.bias), rtol=1e-5, atol=1e-6)


def test_resume_after_compilation_moved_parameters(path):
    interrupted(path, 30)
    net = network()
    net.graph.compile(net.layers[1].neurons[::-1])
    net.graph.compile(net.layers[0].neurons[5:])
    assert net.graph.storage.moves
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


@pytest.mark.parametrize("sparsify", [None, mlgraph.GradualPruning(0.8, updates=20)])
def test_resume_when_parameters_end_within_a_panel(path, sparsify):
    """Parameters read from a file end with a whole panel, unlike those of the run."""

    def run(stop, **kept):
        g = mlgraph.Graph()
        neuron = g.add_neuron(g.inputs(24), "tanh", weights=np.linspace(-0.2, 0.2, 24), bias=None)
        model = mlgraph.Model(g, [neuron])
        fit(model, TARGETS[:, 0], optimizer="adam", sparsify=sparsify, callback=stop, **kept)
        return model

    def result(model):
        found = bits(model)
        state = {name: vector.rstrip(b"\0") for name, vector in found.pop("state").items()}
        return {**found, "parameters": model.outputs[0].weights.tobytes(), "state": state}

    alone = run(None)
    assert len(alone.graph.parameters) % 16
    kept = {"checkpoint": path, "checkpoint_every": 0, "resume": True}
    for count in (20, 20, 30):
        with pytest.raises(Stop):
            run(stop_at(count), **kept)
    assert result(run(None, **kept)) == result(alone)


def test_edits_by_callbacks_survive_resume(path):
    def grow(event):
        """Change a weight and the graph at the end of each epoch."""
        if event.kind == "epoch":
            net.layers[1].neurons[0].weights[event.epoch] += 0.25
            g = net.graph
            g.add_neuron([g[0]], weights=[1.0])
            net.graph.compile([g[len(g) - 1], net.layers[0].neurons[0]])

    def grow_and_stop(event):
        grow(event)
        stop(event)

    net = network()
    fit(net, callback=grow)
    expected = bits(net)
    for count in (23, 25, 49, 1000):
        net, stop = network(), stop_at(count)
        try:
            fit(net, checkpoint=path, checkpoint_every=0, resume=True, callback=grow_and_stop)
        except Stop:
            continue
    assert bits(net) == expected and len(net.graph) == len(network().graph) + 3


def test_without_resume_the_old_checkpoint_becomes_the_previous_one(path):
    interrupted(path, 30)
    old = path.read_bytes()
    net = network()
    fit(net, momentum=0.0, checkpoint=path, checkpoint_every=1e6)
    assert bits(net) == whole("sgd") and path.with_name("run.npz.previous").read_bytes() == old


def test_subclass_of_network_resumes(path):
    class Own(mlgraph.Network):
        pass

    def own():
        net = network()
        net.__class__ = Own
        return net

    net = own()
    fit(net, checkpoint=path, checkpoint_every=1e6, callback=stop_at(7, StopIteration))
    again, whole = own(), own()
    fit(again, checkpoint=path, resume=True)
    fit(whole)
    assert bits(again) == bits(whole) and type(again) is Own


def test_checkpoint_behind_a_symbolic_link(tmp_path):
    """The target is written, and the previous checkpoint goes next to it: it may be on another disk."""
    (tmp_path / "there").mkdir()
    link = tmp_path / "run.npz"
    link.symlink_to(tmp_path / "there" / "run.npz")
    net = network()
    fit(net, momentum=0.0, checkpoint=link, checkpoint_every=0)
    assert sorted(file.name for file in (tmp_path / "there").iterdir()) == ["run.npz", "run.npz.previous"]
    np.testing.assert_array_equal(modelfile.load(link).graph.get_parameters(), net.graph.get_parameters())
    assert sorted([file.name for file in tmp_path.iterdir()]) == ["run.npz", "there"]


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
      n_threads=random.Random(left).choice([1, 2, 3, None]), callback=strike, **options)
Path(out).write_text(repr(t.bits(model)))
"""


@pytest.mark.parametrize(
    "name", ["sgd", *(pytest.param(name, marks=pytest.mark.slow) for name in RUNS if name != "sgd")]
)
def test_killed_processes_resume_to_same_bits(name, tmp_path, request):
    """SIGKILL strikes between any two steps of training and writing; `--kills 50` repeats it."""
    kills, chance = request.config.getoption("kills"), random.Random(name)
    epochs = 6 + kills  # about as long as so many lives
    path, out = tmp_path / "run.npz", tmp_path / "bits"
    code = KILLED.format(folder=os.path.dirname(checkpoint_runs.__file__), epochs=epochs)
    killed, places, runs, status = 0, set(), 0, -1
    while killed < kills or status:
        left = 0 if killed == kills else chance.randrange(20, 300)  # a step of training and writing has 9 strikes
        command = [sys.executable, "-W", "error", "-c", code, name, str(path), str(out), str(left)]
        status = subprocess.run(command, timeout=600).returncode
        assert status in ((0, -signal.SIGKILL) if left else (0,))
        if status:
            killed += 1
            with np.load(path) as file:
                places.add(len(file["history_batch_loss"]))
            continue
        runs += 1
        assert out.read_text() == repr(whole(name, epochs=epochs))
        if killed < kills:
            for file in tmp_path.iterdir():
                file.unlink()
    assert len(places) > 1 or kills < 2, "no kill left a place within the run"
    print(f"{name}: {killed} kills, {runs} whole runs, checkpoints found at {len(places)} places")


WAITS = """
import itertools, sys
sys.path.insert(0, {folder!r})
import checkpoint_runs as t
from mlgraph.training import loop

make, y, options = t.RUNS["any graph"]
loop.PIECE_SECONDS, calls = 0, itertools.count(1)
t.fit(make(), y, epochs=6, checkpoint=sys.argv[1], checkpoint_every=0, **options,
      callback=lambda _: next(calls) % 20 or sys.stdin.readline())
"""


@pytest.mark.slow
def test_checkpoint_is_readable_while_it_is_written(path):
    """The run waits until the reader has seen a new state."""
    command, seen = (
        [sys.executable, "-c", WAITS.format(folder=os.path.dirname(checkpoint_runs.__file__)), str(path)],
        set(),
    )
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as child:
        while child.poll() is None:
            state = mlgraph.load(path).forward(X[:3]).tobytes() if path.exists() else None
            if state not in {None, *seen}:
                seen.add(state)
                with contextlib.suppress(BrokenPipeError):  # it has ended
                    child.stdin.write(b"\n")
    assert child.returncode == 0 and len(seen) > 3
