"""A damaged checkpoint: training resumes from the previous one, or fails with an error."""

import errno
import json
import re
import zipfile

import numpy as np
import pytest
from checkpoint_runs import Stop, bits, fit, interrupted, network, stop_at, whole

import mlgraph
from mlgraph.models.model_file import ModelFileError
from mlgraph.training.checkpoint import ARRAYS

pytestmark = pytest.mark.usefixtures("small_pieces")


def tear(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [tear, flip])
def test_damaged_checkpoint_resumes_from_the_previous_one(path, damage):
    interrupted(path, 30)
    damage(path)
    net, previous = network(), path.with_name("run.npz.previous")
    good = previous.read_bytes()
    expected = rf"^checkpoint: {path}: .*; resuming from {previous}$"
    with pytest.warns(RuntimeWarning, match=expected) as told, pytest.raises(Stop):
        fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0, resume=True, callback=stop_at(2))
    assert told[0].filename == fit.__code__.co_filename
    # The next write replaces the damaged file and keeps the good one.
    assert previous.read_bytes() == good and mlgraph.load(path).n_edges == net.n_edges
    net = network()
    fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0, resume=True)
    assert bits(net) == whole("sgd")


def test_damage_is_reported_if_the_previous_checkpoint_is_of_another_run(path):
    fit(network(seed=2), momentum=0.0, checkpoint=path, epochs=1)
    fit(network(), momentum=0.0, checkpoint=path, epochs=1, checkpoint_every=1e6)
    tear(path)
    with pytest.raises(ModelFileError, match="not a model file, or a damaged one"):
        fit(network(), momentum=0.0, checkpoint=path, epochs=1, resume=True)


@pytest.mark.parametrize("place", [zipfile.ZipExtFile, zipfile])
def test_read_error_is_not_taken_for_damage(path, monkeypatch, place):
    """Otherwise the run would resume from the older file and replace the newer one."""
    interrupted(path, 30)
    before = path.read_bytes()

    def fail(*given):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(place, "read" if place is zipfile.ZipExtFile else "_EndRecData", fail)
    with pytest.raises(OSError, match=re.escape(f"Input/output error: '{path}'")):
        fit(network(), momentum=0.0, checkpoint=path, resume=True)
    monkeypatch.undo()
    assert path.read_bytes() == before


def test_missing_checkpoint_resumes_from_the_previous_one(path):
    interrupted(path, 30)
    path.unlink()
    net = network()
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


def test_both_checkpoints_damaged(untouched, path):
    interrupted(path, 30)
    for file in path.parent.iterdir():
        tear(file)
    with pytest.raises(ModelFileError, match=rf"^{path}: not a model file, or a damaged one"):
        fit(untouched, momentum=0.0, checkpoint=path, resume=True)


def rewrite(path, array=None, **header):
    """Change an array, or fields of the checkpoint's part of the header."""
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
        ("format", 1, "checkpoint: format: expected 5, got 1; another version of mlgraph wrote it"),
        ("format", None, "a model, but not a checkpoint: its header has no entry for one"),
        ("arguments", [], "checkpoint: arguments or digests are missing"),
        ("models", [3], "checkpoint: models: expected a list of digests"),
        ("epoch", 2, "array history_epoch_examples: expected 2 numbers, got 1"),
        ("step", 0.0, "expected counts"),
        ("step", 0, "array history_batch_examples: expected 24 numbers, got 31"),
        ("taken", True, "expected counts"),
        ("taken", 10, r"array history_batch_examples: expected 17 numbers, got 31"),
        ("seconds", float("inf"), "checkpoint: seconds: expected a finite float from 0 on, got inf"),
        ("seconds", None, "checkpoint: seconds: expected a finite float from 0 on, got None"),
        *(
            ("needs", wrong, "checkpoint: needs: expected pairs of outputs and of ranges of nodes up to")
            for wrong in (None, [[[1], 2]], [[[1], [0, 2, 3]]], [[[1], [2, 2]]], [[[1], [0, 10**9]]], [["x", []]])
        ),
    ],
)
def test_invalid_headers_are_refused(untouched, path, field, value, message):
    interrupted(path, 30)
    path.with_name("run.npz.previous").unlink()
    rewrite(path, **{field: value})
    with pytest.raises(ModelFileError, match=message):
        fit(untouched, momentum=0.0, checkpoint=path, resume=True)
    assert mlgraph.load(path).n_edges == untouched.n_edges


@pytest.mark.parametrize(
    "name", ["first", "history_batch_examples", "history_validation_loss", "history_nonfinite_step"]
)
def test_invalid_arrays_are_refused(untouched, path, name):
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
            with pytest.raises(ModelFileError, match="a run of 3 epochs has no step"):
                fit(untouched, **options, checkpoint=path, resume=True)


@pytest.mark.parametrize(("n_inputs", "hidden"), [(24, [40, 40]), (6, [40])])
def test_checkpoint_with_another_model_inside_is_refused(untouched, path, n_inputs, hidden):
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
    with pytest.raises(ModelFileError, match="checkpoint: its model has other inputs, layers, outputs or loss than"):
        fit(untouched, momentum=0.0, checkpoint=path, resume=True)


def test_model_file_is_not_a_checkpoint(untouched, path):
    network().save(path)
    with pytest.raises(
        ModelFileError, match=f"{path}: a model, but not a checkpoint: it has no first, second, history_"
    ):
        fit(untouched, checkpoint=path, resume=True)
