"""Files of checkpoints: damaged, of other runs, and written where there is no place for them."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoint_runs import (
    LABELS,
    TARGETS,
    Stop,
    X,
    any_model,
    bits,
    fit,
    interrupted,
    network,
    stop_at,
    whole,
)

import mlgraph
from mlgraph import checkpoint as checkpoints
from mlgraph import files
from mlgraph.checkpoint import ARRAYS, CheckpointError
from mlgraph.modelfile import ModelFileError

pytestmark = pytest.mark.usefixtures("small_pieces")


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
    expected = rf"^checkpoint: {path}: .*; going on from {previous}$"
    with pytest.warns(RuntimeWarning, match=expected) as told, pytest.raises(Stop):
        fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0, resume=True, callback=stop_at(2))
    assert told[0].filename == fit.__code__.co_filename
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
    net.graph.storage.state_vector("first", fresh=True)[:] = 3.5
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
        ("format", 1, "checkpoint: format: expected 4, got 1: of another version"),
        ("format", None, "no checkpoint: its header has none"),
        ("arguments", [], "checkpoint: expected arguments and digests"),
        ("digests", "x", "checkpoint: expected arguments and digests"),
        ("epoch", -1, "checkpoint: epoch, step, taken: expected counts, got -1, "),
        ("epoch", 2, "array history_epoch_examples: expected 2 numbers, got 1"),
        ("step", 0.0, "expected counts"),
        ("step", 2**63, "expected counts"),
        ("step", 0, "array history_batch_examples: expected 24 numbers, got 31"),
        ("taken", True, "expected counts"),
        ("taken", 10, r"array history_batch_examples: expected 17 numbers, got 31"),
        ("seconds", float("inf"), "checkpoint: seconds: expected a finite float from 0 on, got inf"),
        ("seconds", -1.0, "checkpoint: seconds: expected a finite float from 0 on, got -1.0"),
        ("seconds", None, "checkpoint: seconds: expected a finite float from 0 on, got None"),
        *(("needs", wrong, "checkpoint: needs: expected outputs of models and runs of nodes up to")
          for wrong in (None, [3], [[[1]]], [[[1], 2]], [[[1], [0, 2, 3]]], [[[1], [2, 2]]], [[[1], [0, 10**9]]], [["x", []]])),
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
    with pytest.raises(ModelFileError, match="checkpoint: expected the inputs, layers, outputs and loss of the"):
        fit(untouched, momentum=0.0, checkpoint=path, resume=True)


def test_a_model_is_no_checkpoint(untouched, path):
    network().save(path)
    with pytest.raises(ModelFileError, match=f"{path}: a model, but no checkpoint: it has no first, second, history_"):
        fit(untouched, checkpoint=path, resume=True)


# --- checkpoints of other runs ------------------------------------------------------------------------------------------

OTHERS = {
    "epochs": {"epochs": 4}, "batch_size": {"batch_size": (64, 63)}, "learning_rate": {"learning_rate": 0.05},
    r"learning_rate \[0.05, 0.01\]; got function": {"learning_rate": lambda p: 0.05},
    "momentum": {"momentum": 0.5}, "optimizer": {"optimizer": "adam"}, "shuffle": {"shuffle": False}, "seed": {"seed": 6},
    "weight_decay": {"weight_decay": 0.1},
    "other validation data": {"validation": None}, "on_nonfinite": {"on_nonfinite": "skip"},
    "sparsify": {"sparsify": mlgraph.GradualPruning(0.5)},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_arguments(untouched, path, name):
    interrupted(path, 30)
    with pytest.raises(CheckpointError, match=rf"^checkpoint: {path} belongs to another run, with {name}") as error:
        fit(untouched, **{"momentum": 0.0, "checkpoint": path, "resume": True, **OTHERS[name]})
    assert str(error.value).isprintable()


def test_another_rate_that_is_a_function(untouched, path):
    """By what it gives: a function that is written otherwise may be the same."""
    interrupted(path, 30, learning_rate=lambda p: (1 - p) / 16)
    with pytest.raises(CheckpointError, match=r"another run, with learning_rate function \w{16}; got function \w{16}$"):
        fit(untouched, momentum=0.0, checkpoint=path, resume=True, learning_rate=lambda p: (1 - p**2) / 16)
    again = network()
    fit(again, momentum=0.0, checkpoint=path, resume=True, learning_rate=lambda p: 1 / 16 - p / 16)
    assert len(again.history.epoch_loss) == 3


def changed(array):
    array = array.copy()
    array.flat[array.size // 2] ^= 1
    return array


@pytest.mark.parametrize("data", [(changed(X), LABELS), (X, changed(LABELS)), (X[:-1], LABELS[:-1]), (X / 255, LABELS)])
def test_other_data(untouched, path, data):
    interrupted(path, 30)
    with pytest.raises(CheckpointError, match=r"belongs to another run, with other data$"):
        untouched.fit(*data, epochs=3, batch_size=64, learning_rate=(0.05, 0.01), momentum=0.0, seed=5,
                      validation=(X[:99], LABELS[:99]), checkpoint=path, resume=True)  # fmt: skip


@pytest.mark.parametrize("options", [{"seed": 2}, {"dropout": 0.1}, {"last": "tanh"}, None])
def test_other_models(path, options):
    interrupted(path, 30)
    model = any_model() if options is None else network(**options)
    y = TARGETS if len(model.outputs) == 2 else LABELS
    model.evaluate(X, y)  # compiled
    before = bits(model)
    with pytest.raises(CheckpointError, match=r"belongs to another run, with another (model: its nodes, .*|data)$"):
        fit(model, y, momentum=0.0, checkpoint=path, resume=True)
    assert bits(model) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": True}, "resume: expected a checkpoint to go on from, got none"),
        (
            {"checkpoint": "missing/run.npz"},
            "checkpoint: expected a file in a folder that exists, got 'missing/run.npz': no such folder",
        ),
        ({"checkpoint": "."}, "checkpoint: expected a file in a folder that exists, got '.': expected a file, got a folder"),
        (
            {"checkpoint": os.devnull},
            f"checkpoint: expected a file in a folder that exists, got '{os.devnull}': expected a file, got a device or a pipe",
        ),
        (
            {"checkpoint": f"{os.devnull}/run.npz"},
            f"checkpoint: expected a file in a folder that exists, got '{os.devnull}/run.npz': no such folder",
        ),
        # It is written under a longer name.
        ({"checkpoint": "x" * 240}, r"checkpoint: expected a file in a folder that exists, got '\.xx.*: File name too long"),
        ({"checkpoint": "x", "checkpoint_every": -1}, "checkpoint_every: expected seconds from 0 on, got -1"),
        ({"checkpoint": "x", "checkpoint_every": float("nan")}, "checkpoint_every: expected seconds from 0 on, got nan"),
        ({"checkpoint": "x", "checkpoint_every": "1"}, "checkpoint_every: expected seconds from 0 on, got '1'"),
    ],
)
def test_bad_options(untouched, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError if message.endswith("'1'") else ValueError, match=f"^{message}$"):
        fit(untouched, **options)
    assert os.listdir() == []


def test_a_name_too_long_where_paths_hide_errors(untouched, monkeypatch):
    """As they do from Python 3.14 on."""
    for method, function in {"exists": "exists", "is_dir": "isdir", "is_file": "isfile", "is_symlink": "islink"}.items():
        monkeypatch.setattr(Path, method, getattr(os.path, function))
    for n in (240, 300):
        with pytest.raises(ValueError, match=r"^checkpoint: expected a file in a folder that exists, got .*name too long$"):
            fit(untouched, checkpoint="x" * n)


# --- writing ------------------------------------------------------------------------------------------------------------


def test_what_is_no_file_is_not_kept(untouched, path):
    """The one before stands beside the checkpoint."""
    previous = path.with_name(f"{path.name}.previous")
    previous.mkdir()
    with pytest.raises(ValueError, match=r": expected a file, got a folder$"):
        fit(untouched, checkpoint=path)


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
import checkpoint_runs as t

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
    stale = path.with_name(".run.npz.abcd0123.mlgraph-part")
    others = [path.with_name(name) for name in (".run.npz", ".run.npz.20240101", ".another.npz.abcd0123.mlgraph-part")]
    for file in (stale, *others):
        file.write_text("")
    fit(network(), checkpoint=path, checkpoint_every=1e6)
    assert not stale.exists() and all(other.exists() for other in others)


def test_a_folder_that_is_read_only(path, monkeypatch):
    """With something in it that a killed process left."""

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    stale = path.with_name(".run.npz.abcd0123.mlgraph-part")
    stale.write_text("")
    monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.setattr(files, "open", refused, raising=False)
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


def test_a_checkpoint_is_written_while_no_other_thread_may_edit(path, monkeypatch):
    net, free = network(), []

    def other():
        free.append(net.graph.lock.acquire(blocking=False))
        if free[-1]:
            net.graph.lock.release()

    def save(*_, **__):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    monkeypatch.setattr(checkpoints, "save", save)
    fit(net, checkpoint=path)
    assert free and not any(free)


def test_a_digest_knows_shapes():
    assert checkpoints._digest([np.zeros((2, 3))]) != checkpoints._digest([np.zeros((3, 2))])


def test_a_full_disk_is_tried_no_more_often(path, monkeypatch):
    clock, tries = [0], []

    def tick(_):
        clock[0] += 1

    def full(*_, **__):
        tries.append(clock[0])
        raise OSError(28, "full")

    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoints, "save", full)
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        fit(network(), callback=tick, checkpoint=path, checkpoint_every=10)
    assert clock[0] > 20 and len(tries) <= clock[0] // 10 + 1


def test_a_name_that_looks_like_a_pattern(tmp_path):
    other = tmp_path / ".ab.12345678.mlgraph-part"
    other.touch()
    fit(network(), checkpoint=tmp_path / "a*")
    assert other.exists()
