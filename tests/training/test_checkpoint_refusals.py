"""Errors before a run begins: a checkpoint of another run, or a path that cannot be written."""

import os

import pytest
from checkpoint_runs import LABELS, TARGETS, X, any_model, bits, fit, interrupted, network

import mlgraph
from mlgraph.training.checkpoint import CheckpointError

pytestmark = pytest.mark.usefixtures("small_pieces")


OTHERS = {
    "epochs": {"epochs": 4},
    "batch_size": {"batch_size": (64, 63)},
    "learning_rate": {"learning_rate": 0.05},
    r"learning_rate was \[0.05, 0.01\], but is function": {"learning_rate": lambda p: 0.05},
    "momentum": {"momentum": 0.5},
    "optimizer": {"optimizer": "adam"},
    "shuffle": {"shuffle": False},
    "seed": {"seed": 6},
    "weight_decay": {"weight_decay": 0.1},
    "the validation data changed": {"validation": None},
    "on_nonfinite": {"on_nonfinite": "skip"},
    "sparsify": {"sparsify": mlgraph.GradualPruning(0.5)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_checkpoint_of_other_arguments_is_refused(untouched, path, name):
    interrupted(path, 30)
    with pytest.raises(CheckpointError, match=rf"^checkpoint: {path} belongs to another run: {name}") as error:
        fit(untouched, **{"momentum": 0.0, "checkpoint": path, "resume": True, **OTHERS[name]})
    assert str(error.value).isprintable()


def test_rate_functions_are_compared_by_value(untouched, path):
    interrupted(path, 30, learning_rate=lambda p: (1 - p) / 16)
    with pytest.raises(
        CheckpointError, match=r"another run: learning_rate was function \w{16}, but is function \w{16} now$"
    ):
        fit(untouched, momentum=0.0, checkpoint=path, resume=True, learning_rate=lambda p: (1 - p**2) / 16)
    again = network()
    fit(again, momentum=0.0, checkpoint=path, resume=True, learning_rate=lambda p: 1 / 16 - p / 16)
    assert len(again.history.epoch_loss) == 3


def changed(array):
    array = array.copy()
    array.flat[array.size // 2] ^= 1
    return array


@pytest.mark.parametrize("data", [(changed(X), LABELS), (X, changed(LABELS))])
def test_checkpoint_of_other_data_is_refused(untouched, path, data):
    interrupted(path, 30)
    with pytest.raises(CheckpointError, match=r"belongs to another run: the data changed$"):
        untouched.fit(
            *data,
            epochs=3,
            batch_size=64,
            learning_rate=(0.05, 0.01),
            momentum=0.0,
            seed=5,
            validation=(X[:99], LABELS[:99]),
            checkpoint=path,
            resume=True,
        )


@pytest.mark.parametrize("options", [{"seed": 2}, {"dropout": 0.1}, {"last": "tanh"}, None])
def test_checkpoint_of_another_model_is_refused(path, options):
    interrupted(path, 30)
    model = any_model() if options is None else network(**options)
    y = TARGETS if len(model.outputs) == 2 else LABELS
    model.evaluate(X, y)  # compiled
    before = bits(model)
    with pytest.raises(CheckpointError, match=r"belongs to another run: the (model has other nodes, .*|data changed)$"):
        fit(model, y, momentum=0.0, checkpoint=path, resume=True)
    assert bits(model) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": True}, "resume: set checkpoint to the file of the run to resume"),
        ({"checkpoint": "missing/run.npz"}, "checkpoint: cannot write 'missing/run.npz': no such folder"),
        ({"checkpoint": "."}, "checkpoint: cannot write '.': expected a file, got a folder"),
        ({"checkpoint": "pipe"}, "checkpoint: cannot write 'pipe': expected a file, got a device or a pipe"),
        ({"checkpoint": "pipe/run.npz"}, "checkpoint: cannot write 'pipe/run.npz': no such folder"),
        # The temporary file has a longer name.
        ({"checkpoint": "x" * 240}, r"checkpoint: cannot write '\.xx.*: File name too long"),
        ({"checkpoint": "x", "checkpoint_every": -1}, "checkpoint_every: expected seconds from 0 on, got -1"),
        (
            {"checkpoint": "x", "checkpoint_every": float("nan")},
            "checkpoint_every: expected seconds from 0 on, got nan",
        ),
        ({"checkpoint": "x", "checkpoint_every": "1"}, "checkpoint_every: expected seconds from 0 on, got '1'"),
    ],
)
def test_invalid_options_are_refused(untouched, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")  # not a device: as root, a failing check would destroy it
    with pytest.raises(TypeError if message.endswith("'1'") else ValueError, match=f"^{message}$"):
        fit(untouched, **options)
    assert os.listdir() == ["pipe"]
