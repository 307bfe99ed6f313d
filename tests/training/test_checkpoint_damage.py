"""Checkpoints that cannot be resumed: damaged ones, those of another run, and paths that cannot be written."""

import errno
import json
import os
import re
import zipfile

import numpy as np
import pytest
from checkpoint_runs import LABELS, Stop, X, bits, fit, interrupted, network, resumed, stop_at, whole

import mlgraph
from mlgraph.models.model_file import ModelFileError
from mlgraph.training.checkpoint import CheckpointError

pytestmark = pytest.mark.usefixtures("small_pieces")


def tear(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[data.index(b"parameters.npy") + 1000] ^= 1  # a number of this array
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [tear, flip])
def test_damaged_checkpoint_resumes_from_the_previous_one(path, damage):
    interrupted(path)
    damage(path)
    previous, net = path.with_name("run.npz.previous"), network()
    good = previous.read_bytes()
    expected = rf"^checkpoint: {path}: .*; resuming from {previous}$"
    with pytest.warns(RuntimeWarning, match=expected) as told, pytest.raises(Stop):
        fit(net, checkpoint=path, checkpoint_every=0, resume=True, callbacks=[stop_at(2)])
    assert told[0].filename == fit.__code__.co_filename
    # The next write replaces the damaged file and keeps the good one.
    assert previous.read_bytes() == good and mlgraph.load(path).n_edges == net.n_edges
    assert bits(resumed(path)) == whole()


def test_missing_checkpoint_resumes_from_the_previous_one(path):
    interrupted(path)
    path.unlink()
    assert bits(resumed(path)) == whole()


def test_damage_is_reported_if_no_previous_checkpoint_can_be_used(untouched, path):
    fit(network(seed=2), checkpoint=path)
    fit(network(), checkpoint=path, checkpoint_every=1e6)
    for damaged in (path, path.with_name("run.npz.previous")):
        tear(damaged)  # first only the newer file, while the previous one is of another run
        with pytest.raises(ModelFileError, match=rf"^{path}: not a model file, or a damaged one"):
            resumed(path, untouched)


def test_read_error_is_not_taken_for_damage(path, monkeypatch):
    """Otherwise the run would resume from the older file and replace the newer one."""
    interrupted(path)
    before = path.read_bytes()

    def fail(*given):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(zipfile.ZipExtFile, "read", fail)
    with pytest.raises(OSError, match=re.escape(f"Input/output error: '{path}'")):
        resumed(path)
    assert path.read_bytes() == before


def rewrite(path, arrays=(), **header):
    """Change arrays, or fields of the checkpoint's part of the header; without the previous file."""
    path.with_name("run.npz.previous").unlink(missing_ok=True)
    with np.load(path) as file:
        arrays = {**file, **dict(arrays)}
    text = json.loads(arrays["header"].tobytes())
    text["checkpoint"] = {**text.get("checkpoint", {}), **header}
    arrays["header"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    np.savez(path, **arrays)


NEEDS = "checkpoint: needs: expected pairs of outputs and of ranges of nodes up to"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 1, "checkpoint: format: expected 9, got 1; another version of mlgraph wrote it"),
        ("format", None, "a model, but not a checkpoint: its header has no entry for one"),
        ("arguments", [], "checkpoint: arguments or digests are missing"),
        ("models", [3], "checkpoint: models: expected a list of digests"),
        ("epoch", 2, "array history_epoch_examples: expected 2 numbers, got 1"),
        ("step", 0.0, "expected counts"),
        ("taken", True, "expected counts"),
        ("taken", 10, "array history_batch_examples: expected 17 numbers, got 31"),
        ("began", None, "checkpoint: began: expected 0 or less, got None"),
        ("began", 1, "checkpoint: began: expected 0 or less, got 1"),
        ("seconds", float("inf"), "checkpoint: seconds: expected a finite float from 0 on, got inf"),
        ("ended", 1, "checkpoint: ended, finished: expected true or false"),
        ("finished", None, "checkpoint: ended, finished: expected true or false"),
        ("finished", True, "checkpoint: finished: expected false before the end"),
        ("states", None, "checkpoint: states: expected those of 0 callbacks"),
        ("states", [{"dict": {}}], "checkpoint: states: expected those of 0 callbacks"),
        ("needs", [[[1], [0, 2, 3]]], NEEDS),
        ("needs", [[[1], [0, 10**9]]], NEEDS),
    ],
)
def test_invalid_headers_are_refused(untouched, path, field, value, message):
    interrupted(path)
    rewrite(path, **{field: value})
    with pytest.raises(ModelFileError, match=message):
        resumed(path, untouched)
    assert mlgraph.load(path).n_edges == untouched.n_edges


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("first", lambda a: a[:-1], "array first: expected .* finite numbers"),
        ("first", lambda a: np.where(a == a[5], np.float32(np.inf), a), "array first: expected .* finite numbers"),
        ("history_validation_loss", lambda a: np.append(a, a[:1]), "array history_validation_loss"),
        ("history_batch_loss", lambda a: a.astype(np.float16), "array history_batch_loss"),
        ("history_nonfinite_step", lambda a: a[:, None], "array history_nonfinite_step"),
        ("history_batch_examples", lambda a: a * 1000, "a run of 3 epochs has no step"),
        ("history_batch_examples", lambda a: a * 0, "a run of 3 epochs has no step"),
    ],
)
def test_invalid_arrays_are_refused(untouched, path, name, spoil, message):
    options = {"optimizer": "adam", "learning_rate": 3e38, "on_nonfinite": "skip"}
    interrupted(path, **options)
    with np.load(path) as file:
        array = file[name]
    assert len(array)
    rewrite(path, {name: spoil(array)})
    with pytest.raises(ModelFileError, match=message):
        resumed(path, untouched, **options)


def test_model_file_is_not_a_checkpoint(untouched, path):
    network().save(path)
    with pytest.raises(ModelFileError, match=f"{path}: a model, but not a checkpoint: it has no first, second"):
        resumed(path, untouched)


def changed(array):
    array = array.copy()
    array.flat[array.size // 2] ^= 1
    return array


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"epochs": 4}, "epochs was 3, but is 4 now"),
        ({"batch_size": (64, 63)}, "batch_size"),
        ({"learning_rate": 0.05}, "learning_rate"),
        ({"learning_rate": lambda p: 0.05}, r"learning_rate was \[0.05, 0.01\], but is function \w{16} now"),
        ({"momentum": 0.5}, "momentum"),
        ({"optimizer": "adam"}, "optimizer was sgd, but is adam now"),
        ({"shuffle": False}, "shuffle"),
        ({"seed": 6}, "seed"),
        ({"weight_decay": 0.1}, "weight_decay"),
        ({"clip_norm": 0.1}, "clip_norm was None, but is 0.1 now"),
        ({"on_nonfinite": "skip"}, "on_nonfinite"),
        ({"sparsify": mlgraph.GradualPruning(0.5)}, "sparsify"),
        ({"validation_data": None}, "the validation data changed"),
        ({"x": changed(X)}, "the data changed"),
        ({"y": changed(LABELS)}, "the data changed"),
    ],
)
def test_checkpoint_of_another_run_is_refused(untouched, path, options, difference):
    interrupted(path)
    options = {"validation_data": (X[:99], LABELS[:99]), **options}
    with pytest.raises(CheckpointError, match=rf"^checkpoint: {path} belongs to another run: {difference}") as error:
        resumed(path, untouched, **options)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("options", [{"seed": 2}, {"dropout": 0.1}, {"frozen": True}])
def test_checkpoint_of_another_model_is_refused(path, options):
    interrupted(path)
    model = network(**options)
    before = model.graph.get_parameters()
    with pytest.raises(CheckpointError, match="belongs to another run: the model has other nodes, edges, dropout"):
        resumed(path, model)
    np.testing.assert_array_equal(model.graph.get_parameters(), before)


def test_rate_functions_are_compared_by_value(path):
    interrupted(path, learning_rate=lambda p: (1 - p) / 16)
    with pytest.raises(CheckpointError, match=r"learning_rate was function \w{16}, but is function \w{16} now$"):
        resumed(path, learning_rate=lambda p: (1 - p**2) / 16)
    assert len(resumed(path, learning_rate=lambda p: 1 / 16 - p / 16).history.epoch_loss) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": True}, "resume: set checkpoint to the file of the run to resume"),
        ({"checkpoint": "missing/x"}, "checkpoint: cannot write 'missing/x': no such folder"),
        ({"checkpoint": "."}, "checkpoint: cannot write '.': expected a file, got a folder"),
        ({"checkpoint": "run"}, "checkpoint: cannot write 'run.previous': expected a file, got a folder"),
        ({"checkpoint": "pipe"}, "checkpoint: cannot write 'pipe': expected a file, got a device or a pipe"),
        # The temporary file has a longer name.
        ({"checkpoint": "x" * 240}, r"checkpoint: cannot write '\.xx.*: File name too long"),
        ({"checkpoint": "x", "checkpoint_every": np.nan}, "checkpoint_every: expected seconds from 0 on, got nan"),
    ],
)
def test_invalid_options_are_refused(untouched, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")  # not a device: as root, a failing check would destroy it
    os.mkdir("run.previous")
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        fit(untouched, **options)
    assert sorted(os.listdir()) == ["pipe", "run.previous"]
