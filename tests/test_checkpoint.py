"""Checkpoints: whatever ends a run, what goes on from its file ends with the bits of one that was never interrupted."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import mlgraph
from mlgraph import checkpoint as checkpoints
from mlgraph import modelfile, training
from mlgraph.checkpoint import ARRAYS, CheckpointError
from mlgraph.modelfile import ModelFileError

N = 1500
RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (N, 24), np.uint8) * (RNG.random((N, 24)) < 0.3)
LABELS = RNG.integers(0, 4, N)
TARGETS = RNG.normal(size=(N, 2)).astype(np.float32)


def network(*, last="softmax", seed=1, **dropped):
    net = mlgraph.Network(24, seed=seed)
    net.add_layer(40, "tanh", **dropped)
    net.add_layer(4, last)
    return net


def any_model():
    """A DAG of neurons with sources of their own, shared ones, a parameter used twice and operations."""
    g = mlgraph.Graph()
    rng, x = np.random.default_rng(2), g.inputs(24)
    scale = g.parameter(0.5)
    wide = [g.add_neuron(x, "tanh", weights=rng.normal(size=24) / 5) for _ in range(12)]
    own = [g.add_neuron([*x[k:], wide[k]], "leaky_relu", weights=rng.normal(size=25 - k) / 5, bias=None) for k in range(8)]
    total = mlgraph.sum(*own, *wide[:3]) * scale
    return mlgraph.Model(g, [total, mlgraph.tanh(own[2] * scale)])


def fragile():
    """Neurons that overflow one after the other, where inputs are not zero that most examples have not."""
    net = mlgraph.Network(24, seed=1)
    net.add_layer(40, "relu")
    net.add_layer(4, "softmax")
    for k in range(8):
        net.layers[0].neurons[k].weights[k : k + 5] = 3e38
        for neuron in net.layers[1].neurons:
            neuron.weights[k] = 0
    return net


RUNS = {
    "sgd": (network, LABELS, {"momentum": 0.0}),
    "momentum, dropout, batches that shrink": (lambda: network(dropout=0.5), LABELS, {"batch_size": (96, 20)}),
    "adam, dropped edges": (lambda: network(weight_dropout=0.3), LABELS, {"optimizer": "adam", "learning_rate": (0.01, 0.001)}),
    "skipped examples": (network, LABELS, {"on_nonfinite": "skip", "learning_rate": (3e37, 1e36)}),
    "disconnected neurons": (fragile, LABELS, {"on_nonfinite": "disconnect", "learning_rate": 1e-40, "momentum": 0.5}),
    "pruned": (network, LABELS, {"sparsify": mlgraph.GradualPruning(0.8, updates=20)}),
    "regrown": (lambda: network(dropout=0.5), LABELS, {"sparsify": mlgraph.RigL(0.7, updates=20), "optimizer": "adam"}),
    "any graph": (any_model, TARGETS, {"learning_rate": 0.003, "batch_size": (64, 100), "shuffle": False}),
    "any graph, adam": (any_model, TARGETS, {"learning_rate": 0.001, "optimizer": "adam"}),
}


def fit(model, y=LABELS, **options):
    given = {"epochs": 3, "batch_size": 64, "learning_rate": (0.05, 0.01), "validation": (X[:99], y[:99]), "seed": 5}
    return model.fit(X, y, **{**given, **options})


def bits(model):
    """All that two runs must have in common."""
    columns = {name: column.tobytes() for name, column in vars(model.history).items() if name != "epoch_seconds"}
    state = {name: vector.tobytes() for name, vector in model.graph.state.items()}
    return {"parameters": model.graph.parameters.tobytes(), "state": state, **columns}


class Stop(Exception):
    pass


def stop_at(count, error=Stop):
    """A callback that raises at its n-th call."""
    calls = iter(range(1, count))

    def callback(event):
        if next(calls, None) is None:
            raise error

    return callback


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Every step may be the last."""
    monkeypatch.setattr(training, "PIECE_SECONDS", 0.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.npz"


@functools.cache
def whole(name, **more):
    """The bits of an uninterrupted run."""
    make, y, options = RUNS[name]
    model = make()
    fit(model, y, **options, **more)
    return bits(model)


def interrupted(path, count, **options):
    """A network whose run was stopped at the n-th event; the checkpoint is of the event before."""
    net = network()
    with pytest.raises(Stop):
        fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0, callback=stop_at(count), **options)
    return net


# --- going on -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_stopped_again_and_again(path, name):
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


def test_nothing_to_go_on_from(path):
    net = network()
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


def test_a_finished_run_goes_on_to_its_end(path):
    fit(network(), momentum=0.0, checkpoint=path, checkpoint_every=1e6)
    assert os.listdir(path.parent) == [path.name]
    before, net = path.read_bytes(), network()
    history = fit(net, momentum=0.0, checkpoint=path, resume=True, callback=stop_at(1))
    assert bits(net) == whole("sgd") and history is net.history and path.read_bytes() == before


def test_the_same_model_goes_on(path):
    """Or one read from the checkpoint: the model as it is when the run begins is not at hand in every session."""
    net = interrupted(path, 30)
    with pytest.raises(CheckpointError, match="with another model"):
        fit(net, momentum=0.0, checkpoint=path, resume=True)  # one step past it: nothing was written at the exception
    net = mlgraph.load(path)
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


def test_views_of_nodes_stay(path):
    interrupted(path, 30)
    net = network()
    neuron, engine = net.layers[0].neurons[3], net.graph.compile(net.layers[0].neurons[3])
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert neuron.weights.tobytes() == net.graph[neuron.id].weights.tobytes() != network().layers[0].weights[3].tobytes()
    np.testing.assert_allclose(engine(X)[:, 0], np.tanh(X / 255 @ neuron.weights + neuron.bias), rtol=1e-5, atol=1e-6)


def test_parameters_may_stand_elsewhere(path):
    interrupted(path, 30)
    net = network()
    net.graph.compile(net.layers[1].neurons[::-1])
    net.graph.compile(net.layers[0].neurons[5:])
    assert net.graph.moves
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("sparsify", [None, mlgraph.GradualPruning(0.8, updates=20)])
def test_parameters_that_end_within_a_panel(path, optimizer, sparsify):
    """Those that are read from a file end with a whole one."""

    def run(stop, **kept):
        g = mlgraph.Graph()
        neuron = g.add_neuron(g.inputs(24), "tanh", weights=np.linspace(-0.2, 0.2, 24), bias=None)
        model = mlgraph.Model(g, [neuron])
        fit(model, TARGETS[:, 0], optimizer=optimizer, sparsify=sparsify, callback=stop, **kept)
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


def test_what_a_callback_did_is_kept(path):
    def grow(event):
        """Change a weight and the topology, at the end of each epoch."""
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
    for count in (23, 24, 25, 26, 48, 49, 50, 1000):
        net, stop = network(), stop_at(count)
        try:
            fit(net, checkpoint=path, checkpoint_every=0, resume=True, callback=grow_and_stop)
        except Stop:
            continue
    assert bits(net) == expected and len(net.graph) == len(network().graph) + 3


def test_without_resume_a_run_begins_anew(path):
    interrupted(path, 30)
    old = path.read_bytes()
    net = network()
    fit(net, momentum=0.0, checkpoint=path, checkpoint_every=1e6)
    assert bits(net) == whole("sgd") and path.with_name("run.npz.previous").read_bytes() == old


# --- processes that are killed ------------------------------------------------------------------------------------------

KILLED = """
import random, sys
sys.path.insert(0, {folder!r})
import test_checkpoint as t
from mlgraph import training

name, path, out = sys.argv[1:]
make, y, options = t.RUNS[name]
model, training.PIECE_SECONDS = make(), 0
print("begun", flush=True)
t.fit(model, y, epochs={epochs}, checkpoint=path, checkpoint_every=random.choice([0, 0, 0.01]), resume=True,
      n_threads=random.choice([1, 2, 3, None]), callback=lambda event: t.time.sleep(random.uniform(0, 0.01)), **options)
t.Path(out).write_text(repr(t.bits(model)))
"""


@pytest.mark.parametrize("name", RUNS)
def test_processes_are_killed(name, tmp_path, request):
    """SIGKILL at random moments of training and of writing, until the run is through; `--kills 50` for as many."""
    kills, chance = request.config.getoption("kills"), random.Random(0)
    epochs = 6 + kills  # about as long as so many lives
    path, out = tmp_path / "run.npz", tmp_path / "bits"
    code = KILLED.format(folder=os.path.dirname(__file__), epochs=epochs)
    command = [sys.executable, "-W", "error", "-c", code, name, str(path), str(out)]
    killed, places, runs, status = 0, set(), 0, -1
    while killed < kills or status:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            try:
                child.stdout.readline()
                if killed < kills:
                    time.sleep(chance.uniform(0, 0.4))
                    child.kill()
                killed += (status := child.wait(timeout=600)) == -signal.SIGKILL
                assert status in (0, -signal.SIGKILL)
            finally:
                child.kill()
        if path.exists():
            with np.load(path) as file:
                places.add(len(file["history_batch_loss"]))
        if status == 0:
            runs += 1
            assert out.read_text() == repr(whole(name, epochs=epochs))
            if killed < kills:
                for file in tmp_path.iterdir():
                    file.unlink()
    assert len(places) > 1, "no kill left a place within the run"
    print(f"{name}: {killed} kills, {runs} whole runs, checkpoints found at {len(places)} places")


def test_another_process_reads_it_meanwhile(path):
    code = KILLED.format(folder=os.path.dirname(__file__), epochs=6)
    command = [sys.executable, "-c", code, "any graph", str(path), str(path.with_name("bits"))]
    seen = set()
    with subprocess.Popen(command) as child:
        while child.poll() is None:
            if path.exists():
                model = mlgraph.load(path)
                seen.add(model.forward(X[:3]).tobytes())
    assert child.returncode == 0 and len(seen) > 3


# --- files that are damaged ---------------------------------------------------------------------------------------------


def tear(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [tear, flip, empty])
def test_the_one_before_a_torn_one(path, damage):
    interrupted(path, 30)
    damage(path)
    net, previous = network(), path.with_name("run.npz.previous")
    good = previous.read_bytes()
    with pytest.warns(RuntimeWarning, match=rf"^checkpoint: {path}: .*; going on from {previous}$"), pytest.raises(Stop):
        fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0, resume=True, callback=stop_at(2))
    # The first to be written takes the place of the torn one.
    assert previous.read_bytes() == good and mlgraph.load(path).n_edges == net.n_edges
    net = network()
    fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0, resume=True)
    assert bits(net) == whole("sgd")


def test_the_one_before_a_missing_one(path):
    interrupted(path, 30)
    path.unlink()
    net = network()
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


@pytest.fixture
def untouched():
    """A network that no refused checkpoint may change."""
    net, history = network(), mlgraph.History()
    fit(net, epochs=1, learning_rate=0.0)  # compiled
    net.history = history
    net.graph.state_vector("first", fresh=True)[:] = 3.5
    before = bits(net)
    yield net
    assert bits(net) == before and net.history is history


def test_both_are_damaged(untouched, path):
    interrupted(path, 30)
    for file in path.parent.iterdir():
        tear(file)
    with pytest.raises(ModelFileError, match=rf"^{path}: not a model file, or a damaged one"):
        fit(untouched, momentum=0.0, checkpoint=path, resume=True)


def rewrite(path, array=None, **header):
    """Change an array, or fields of what a checkpoint adds to the header."""
    with np.load(path) as file:
        arrays = dict(file)
    if array:
        arrays.update(array)
    text = json.loads(arrays["header"].tobytes())
    text["checkpoint"] = {**text["checkpoint"], **header}
    arrays["header"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 2, "checkpoint: format: expected 1, came 2: of another version"),
        ("format", None, "no checkpoint: its header has none"),
        ("arguments", [], "checkpoint: expected arguments and digests"),
        ("digests", "x", "checkpoint: expected arguments and digests"),
        ("epoch", -1, "checkpoint: epoch, step, taken: expected counts, came -1, "),
        ("epoch", 2, "array history_epoch_examples: expected 2 numbers, came 1"),
        ("step", 0.0, "expected counts"),
        ("step", 2**63, "expected counts"),
        ("step", 0, "array history_batch_examples: expected 24 numbers, came 31"),
        ("taken", True, "expected counts"),
        ("taken", 10, r"array history_batch_examples: expected 17 numbers, came 31"),
        ("seconds", -1.0, "checkpoint: seconds: came -1.0"),
        ("seconds", None, "checkpoint: seconds: came None"),
    ],
)
def test_odd_headers(untouched, path, field, value, message):
    interrupted(path, 30)
    path.with_name("run.npz.previous").unlink()
    rewrite(path, **{field: value})
    with pytest.raises(ModelFileError, match=message):
        fit(untouched, momentum=0.0, checkpoint=path, resume=True)
    assert mlgraph.load(path).n_edges == untouched.n_edges


@pytest.mark.parametrize("name", ARRAYS)
def test_odd_arrays(untouched, path, name):
    net, options = network(), {"optimizer": "adam", "learning_rate": 3e38, "on_nonfinite": "skip"}
    with pytest.raises(Stop):
        fit(net, checkpoint=path, checkpoint_every=0, callback=stop_at(30), **options)
    path.with_name("run.npz.previous").unlink()
    with np.load(path) as file:
        array = file[name]
    assert array.dtype == ARRAYS[name] and len(array)
    for bad in (array[:-1], np.append(array, array[:1]), np.zeros(len(array), np.float16), array[:, None]):
        rewrite(path, {name: bad})
        with pytest.raises(ModelFileError, match="array history_nonfinite" if "nonfinite" in name else f"array {name}"):
            fit(untouched, **options, checkpoint=path, resume=True)
    rewrite(path, {name: array})
    if name in ("first", "second"):
        rewrite(path, {name: np.where(np.arange(len(array)) == 5, np.float32(np.inf), array)})
        with pytest.raises(ModelFileError, match=f"array {name}: expected {len(array)} finite numbers"):
            fit(untouched, **options, checkpoint=path, resume=True)
    if name == "history_batch_examples":
        for wrong in (array * 0, array * 1000):
            rewrite(path, {name: wrong})
            with pytest.raises(ModelFileError, match="expected a place in a run of 3 epochs"):
                fit(untouched, **options, checkpoint=path, resume=True)


@pytest.mark.parametrize(("n_inputs", "hidden"), [(24, []), (24, [40, 40]), (30, [40]), (6, [40])])
def test_a_file_with_another_model_in_it(untouched, path, n_inputs, hidden):
    """Its outputs would be other nodes, and its inputs columns that the data do not have."""
    interrupted(path, 30)
    path.with_name("run.npz.previous").unlink()
    other = mlgraph.Network(n_inputs)
    for size in hidden:
        other.add_layer(size, "tanh")
    other.add_layer(4, "softmax")
    with np.load(path) as file:
        run, header = dict(file), json.loads(file["header"].tobytes())
    other.save(path)
    with np.load(path) as file:
        model, its = dict(file), json.loads(file["header"].tobytes())
    text = np.frombuffer(json.dumps({**its, "checkpoint": header["checkpoint"]}).encode(), np.uint8)
    np.savez(path, **{**run, **model, "header": text})
    assert mlgraph.load(path).graph.n_inputs == n_inputs
    with pytest.raises(ModelFileError, match="checkpoint: expected the inputs, outputs and loss of the model, came others"):
        fit(untouched, momentum=0.0, checkpoint=path, resume=True)


def test_a_model_is_no_checkpoint(untouched, path):
    network().save(path)
    with pytest.raises(ModelFileError, match=f"{path}: not a model file: it has no first, second, losses"):
        fit(untouched, checkpoint=path, resume=True)


# --- checkpoints of other runs ------------------------------------------------------------------------------------------

OTHERS = {
    "epochs": {"epochs": 4}, "batch_size": {"batch_size": (64, 63)}, "learning_rate": {"learning_rate": 0.05},
    "momentum": {"momentum": 0.5}, "optimizer": {"optimizer": "adam"}, "shuffle": {"shuffle": False}, "seed": {"seed": 6},
    "another validation data": {"validation": None}, "on_nonfinite": {"on_nonfinite": "skip"},
    "sparsify": {"sparsify": mlgraph.GradualPruning(0.5)},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_arguments(untouched, path, name):
    interrupted(path, 30)
    with pytest.raises(CheckpointError, match=rf"^checkpoint: {path} belongs to another run, with {name}") as error:
        fit(untouched, **{"momentum": 0.0, "checkpoint": path, "resume": True, **OTHERS[name]})
    assert str(error.value).isprintable()


def changed(array):
    array = array.copy()
    array.flat[array.size // 2] ^= 1
    return array


@pytest.mark.parametrize("data", [(changed(X), LABELS), (X, changed(LABELS)), (X[:-1], LABELS[:-1]), (X / 255, LABELS)])
def test_other_data(untouched, path, data):
    interrupted(path, 30)
    with pytest.raises(CheckpointError, match=r"belongs to another run, with another data$"):
        untouched.fit(*data, epochs=3, batch_size=64, learning_rate=(0.05, 0.01), momentum=0.0, seed=5,
                      validation=(X[:99], LABELS[:99]), checkpoint=path, resume=True)  # fmt: skip


@pytest.mark.parametrize("options", [{"seed": 2}, {"dropout": 0.1}, {"last": "tanh"}, None])
def test_other_models(path, options):
    interrupted(path, 30)
    model = any_model() if options is None else network(**options)
    y = TARGETS if len(model.outputs) == 2 else LABELS
    model.evaluate(X, y)  # compiled
    before = bits(model)
    with pytest.raises(CheckpointError, match=r"belongs to another run, with another (model|data)$"):
        fit(model, y, momentum=0.0, checkpoint=path, resume=True)
    assert bits(model) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": True}, "resume: expected a checkpoint to go on from, came none"),
        ({"checkpoint": "missing/run.npz"}, "checkpoint: expected a file in a folder that exists, came 'missing/run.npz'"),
        ({"checkpoint": "."}, "checkpoint: expected a file in a folder that exists, came '.'"),
        ({"checkpoint": "x", "checkpoint_every": -1}, "checkpoint_every: expected seconds from 0 on, came -1"),
        ({"checkpoint": "x", "checkpoint_every": float("nan")}, "checkpoint_every: expected seconds from 0 on, came nan"),
        ({"checkpoint": "x", "checkpoint_every": "1"}, "checkpoint_every: expected seconds from 0 on, came '1'"),
    ],
)
def test_bad_options(untouched, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{message}$"):
        fit(untouched, **options)
    assert os.listdir() == []


# --- writing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [(np, "savez"), (os, "fsync"), (os, "replace")])
def test_a_full_disk(path, monkeypatch, where):
    """It is told, training goes on, and what was written before is there; when there is room again, it goes on as well."""
    interrupted(path, 30)
    old = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    real = getattr(*where)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    def room_again(event):
        if event.examples > 4000:
            monkeypatch.setattr(*where, real)

    net = network()
    monkeypatch.setattr(*where, full)
    kept = {"momentum": 0.0, "checkpoint": path, "checkpoint_every": 0, "resume": True}
    with pytest.warns(RuntimeWarning, match=rf"^checkpoint: {path} cannot be written \(No space left on device\), training"):
        fit(net, callback=stop_at(10**6), **kept)
    assert bits(net) == whole("sgd")
    left = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert left[path.name] == old[path.name] and len(left) == 2
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        fit(network(), callback=room_again, **kept)
    monkeypatch.setattr(*where, full)
    net = network()
    fit(net, **kept)
    assert bits(net) == whole("sgd")


FULL = """
import resource, signal, sys, warnings
sys.path.insert(0, {folder!r})
import test_checkpoint as t

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    net = t.network()
    t.fit(net, momentum=0.0, checkpoint={path!r}, checkpoint_every=0)
assert {{str(w.message) for w in told}} == {{"checkpoint: {path} cannot be written (File too large), training goes on"}}, told
print(repr(t.bits(net)))
"""


def test_a_file_that_the_system_cuts(path):
    pytest.importorskip("resource")
    code = FULL.format(folder=os.path.dirname(__file__), path=str(path))
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", repr(whole("sgd")) + "\n")
    assert os.listdir(path.parent) == []


def test_file_systems_without_links(path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    interrupted(path, 30)
    assert mlgraph.load(path.with_name("run.npz.previous")).n_edges == mlgraph.load(path).n_edges
    net = network()
    fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0, resume=True)
    assert bits(net) == whole("sgd")


def test_file_and_folder_come_to_the_disk(path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(os.readlink(f"/proc/self/fd/{number}")), real(number)))
    fit(network(), checkpoint=path, checkpoint_every=1e6)
    assert len(synced) == 2 and os.path.dirname(synced[0]) == synced[1] == str(path.parent)


def test_what_a_killed_process_was_writing_goes(path):
    stale, other = path.with_name(".run.npz.abcd_012"), path.with_name(".run.npz")
    for file in (stale, other):
        file.write_text("")
    fit(network(), checkpoint=path, checkpoint_every=1e6)
    assert not stale.exists() and other.exists()


def test_a_folder_that_is_read_only(path, monkeypatch):
    """With something in it that a killed process left."""

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    stale = path.with_name(".run.npz.abcd_012")
    stale.write_text("")
    for owner, name in ((Path, "unlink"), (os, "open")):
        monkeypatch.setattr(owner, name, refused)
    net = network()
    with pytest.warns(RuntimeWarning, match=rf"^checkpoint: {path} cannot be written \(Read-only file system\), training"):
        fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0)
    assert bits(net) == whole("sgd") and stale.exists()


def test_how_often(path, monkeypatch):
    written, clock = [], [0.0]
    monkeypatch.setattr(checkpoints, "save", lambda *_, **__: written.append(clock[0]))
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def callback(event):
        clock[0] += 1.0

    fit(network(), epochs=1, validation=None, batch_size=100, checkpoint=path, checkpoint_every=4, callback=callback)
    assert written == [4, 8, 12, 13 if clock[0] == 13 else clock[0]]


# --- Ctrl-C -------------------------------------------------------------------------------------------------------------


def interrupts_at(count, times=1):
    calls = iter(range(1, 10**6))

    def callback(event):
        if next(calls) == count:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return callback


@pytest.fixture
def handler():
    """Python's own, and still there afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("count", [1, 10, 22, 23, 72])
@pytest.mark.parametrize("how", [interrupts_at, lambda count: stop_at(count, KeyboardInterrupt)])
def test_ctrl_c_saves(path, handler, count, how):
    net = network()
    with pytest.raises(KeyboardInterrupt):
        fit(net, momentum=0.0, checkpoint=path, checkpoint_every=1e6, callback=how(count))
    assert mlgraph.load(path).graph.parameters.tobytes() == net.graph.parameters.tobytes()
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


def test_who_presses_it_twice_does_not_wait(path, handler):
    net = network()
    with pytest.raises(KeyboardInterrupt):
        fit(net, checkpoint=path, checkpoint_every=1e6, callback=interrupts_at(5, 2))
    assert not path.exists()


@pytest.mark.parametrize("where", ["fsync", "chmod", "link", "replace"])
def test_who_presses_it_twice_while_a_file_is_written(path, handler, monkeypatch, where):
    """The interrupt is all that is told, and what is there can be gone on from."""
    real, calls = getattr(os, where), iter(range(5))

    def interrupted(*given):
        done = real(*given)
        if next(calls, None) == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return done

    monkeypatch.setattr(os, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), momentum=0.0, checkpoint=path, checkpoint_every=0)
    monkeypatch.undo()
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.previous"}
    net = network()
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


def test_other_handlers(path):
    """Of the user: it is called between two steps, and need not raise. And the system's: there is none to wait for."""
    caught = []
    before = signal.signal(signal.SIGINT, lambda *arguments: caught.append(arguments))
    try:
        net = network()
        fit(net, momentum=0.0, checkpoint=path, callback=interrupts_at(5))
        assert bits(net) == whole("sgd") and [number for number, _ in caught] == [signal.SIGINT]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        fit(net, momentum=0.0, checkpoint=path, callback=interrupts_at(5))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread(path):
    net = network()
    thread = threading.Thread(target=fit, args=[net], kwargs={"momentum": 0.0, "checkpoint": path, "checkpoint_every": 0})
    thread.start()
    thread.join()
    assert bits(net) == whole("sgd")


def test_a_full_disk_at_ctrl_c(path, handler, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="cannot be written"), pytest.raises(KeyboardInterrupt):
        fit(network(), checkpoint=path, checkpoint_every=1e6, callback=interrupts_at(5))


INTERRUPTED = """
import signal, sys
sys.path.insert(0, {folder!r})
import test_checkpoint as t
from mlgraph import training

signal.signal(signal.SIGINT, signal.default_int_handler)
name, path, out = sys.argv[1:]
make, y, options = t.RUNS[name]
model, begun = make(), []
try:
    t.fit(model, y, epochs=40, checkpoint=path, checkpoint_every=1e6, resume=True, n_threads=2, **options,
          callback=lambda event: begun or (begun.append(1), print("begun", flush=True)))
except KeyboardInterrupt:
    sys.exit(3)
t.Path(out).write_text(repr(t.bits(model)))
"""


@pytest.mark.parametrize("name", ["sgd", "adam, dropped edges"])
def test_processes_are_interrupted(name, tmp_path):
    """Ctrl-C in the midst of sweeps: what a sweep did and the place of the run in the file are of one moment."""
    path, out = tmp_path / "run.npz", tmp_path / "bits"
    code = INTERRUPTED.format(folder=os.path.dirname(__file__))
    command, ends = [sys.executable, "-c", code, name, str(path), str(out)], []
    while not out.exists():
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            time.sleep(0.02)
            if len(ends) < 5:
                child.send_signal(signal.SIGINT)
            ends.append(child.wait(timeout=600))
    assert ends.count(3) == len(ends) - 1 > 0 and out.read_text() == repr(whole(name, epochs=40))


def test_digests_do_not_read_names():
    net, named = network(), network()
    named.graph._names[3] = "pixel"
    assert checkpoints._model_digest(net) == checkpoints._model_digest(named)
    for change in ("weight", "bias", "topology"):
        other = network()
        if change == "weight":
            other.layers[1].neurons[2].weights[3] += 1e-7
        elif change == "bias":
            other.layers[1].neurons[2].bias = 1e-30
        else:
            other.graph.input()
        assert checkpoints._model_digest(net) != checkpoints._model_digest(other)
    assert modelfile.contents(net)[0] != modelfile.contents(named)[0]
