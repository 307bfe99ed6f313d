"""A checkpoint that is torn, or holds something else: the one before it, or an error."""

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


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [tear, flip, empty])
def test_the_one_before_a_torn_one(path, damage):
    interrupted(path, 30)
    damage(path)
    net, previous = network(), path.with_name("run.npz.previous")
    good = previous.read_bytes()
    expected = rf"^checkpoint: {path}: .*; resuming from {previous}$"
    with pytest.warns(RuntimeWarning, match=expected) as told, pytest.raises(Stop):
        fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0, resume=True, callback=stop_at(2))
    assert told[0].filename == fit.__code__.co_filename
    # The first to be written takes the place of the torn one.
    assert previous.read_bytes() == good and mlgraph.load(path).n_edges == net.n_edges
    net = network()
    fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0, resume=True)
    assert bits(net) == whole("sgd")


def test_the_one_before_a_torn_one_may_be_of_another_run(path):
    """What is said is what is wrong: the file is damaged."""
    fit(network(seed=2), momentum=0.0, checkpoint=path, epochs=1)
    fit(network(), momentum=0.0, checkpoint=path, epochs=1, checkpoint_every=1e6)
    tear(path)
    with pytest.raises(ModelFileError, match="not a model file, or a damaged one"):
        fit(network(), momentum=0.0, checkpoint=path, epochs=1, resume=True)


@pytest.mark.parametrize("place", [zipfile.ZipExtFile, zipfile])
def test_a_disk_that_cannot_be_read_is_not_a_damaged_file(path, monkeypatch, place):
    """Else the run would go on from the file before, and write over the newer one."""
    interrupted(path, 30)
    before = path.read_bytes()

    def fail(*given):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(place, "read" if place is zipfile.ZipExtFile else "_EndRecData", fail)
    with pytest.raises(OSError, match=re.escape(f"Input/output error: '{path}'")):
        fit(network(), momentum=0.0, checkpoint=path, resume=True)
    monkeypatch.undo()
    assert path.read_bytes() == before


def test_the_one_before_a_missing_one(path):
    interrupted(path, 30)
    path.unlink()
    net = network()
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


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
        ("format", 1, "checkpoint: format: expected 5, got 1; another version of mlgraph wrote it"),
        ("format", None, "a model, but no checkpoint: its header has no entry for one"),
        ("arguments", [], "checkpoint: arguments or digests are missing"),
        ("digests", "x", "checkpoint: arguments or digests are missing"),
        ("models", None, "checkpoint: models: expected a list of digests"),
        ("models", [3], "checkpoint: models: expected a list of digests"),
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
        *(
            ("needs", wrong, "checkpoint: needs: expected pairs of outputs and of ranges of nodes up to")
            for wrong in (
                None,
                [3],
                [[[1]]],
                [[[1], 2]],
                [[[1], [0, 2, 3]]],
                [[[1], [2, 2]]],
                [[[1], [0, 10**9]]],
                [["x", []]],
            )
        ),
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
            with pytest.raises(ModelFileError, match="a run of 3 epochs has no step"):
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
    with pytest.raises(ModelFileError, match="checkpoint: its model has other inputs, layers, outputs or loss than"):
        fit(untouched, momentum=0.0, checkpoint=path, resume=True)


def test_a_model_is_no_checkpoint(untouched, path):
    network().save(path)
    with pytest.raises(ModelFileError, match=f"{path}: a model, but no checkpoint: it has no first, second, history_"):
        fit(untouched, checkpoint=path, resume=True)
