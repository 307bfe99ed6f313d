"""Files of a run that is interrupted, fails or is resumed. Training is lost only if nothing can be saved."""

import json
import os
import pkgutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mnist_program import interrupt

import mlgraph

WHOLE = ["history.json", "model.npz", "training.png"]
FULL = OSError(28, "No space left on device", "x.png")


def record_of(folder):
    """What two equal runs have in common: everything except times and paths."""
    record = json.loads(Path(folder, "history.json").read_text())
    del record["history"]["epoch_seconds"]
    for name in ("train_seconds", "examples_per_second", "files"):
        del record["results"][name]
    return record


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def signalling(function):
    """The function, during which Ctrl-C is pressed."""

    def interrupted(*args, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return function(*args, **options)

    return interrupted


# --- old files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_link", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_old_picture_is_deleted(run, monkeypatch, is_link):
    picture, elsewhere = Path("mnist-run/training.png"), Path("elsewhere.png")
    picture.parent.mkdir()
    if is_link:
        picture.symlink_to(elsewhere.absolute())
    for words, error in ((["--no-plot"], None), ([], FULL)):
        assert run("--epochs", 1).status == 0
        assert picture.exists() and elsewhere.exists() is is_link
        with monkeypatch.context() as context:
            if error:
                context.setattr("matplotlib.figure.Figure.savefig", raising(error))
            assert run("--epochs", 2, *words).status == (1 if error else 0)
        assert not picture.exists() and picture.is_symlink() is is_link


def test_old_files_are_deleted_before_the_picture_is_drawn(run, monkeypatch):
    left = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: left.append(os.listdir("mnist-run")))
    for _ in range(2):
        assert run("--epochs", 1).status == 0
    assert [[name for name in names if not name.startswith(".")] for names in left] == [["model.npz"]] * 2


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [FULL, RuntimeError("by the backend")])
@pytest.mark.parametrize("command", ["train", "inspect"])
def test_a_picture_that_fails(run, monkeypatch, command, error):
    assert run("--epochs", 1, "--no-plot", "--hidden", 4).status == 0
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", raising(error))
    result = run("--epochs", 1, "--json") if command == "train" else run("inspect", "mnist-run/model.npz", "--json")
    assert (result.status, result.err) == (1, f"mlgraph.mnist: error: no picture: {error}\n")
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz"]
    if command == "train":
        assert result.json["files"].keys() == {"model", "history"}
        assert json.loads(Path("mnist-run/history.json").read_bytes())["configuration"]["hidden"] == [32]
    else:
        assert len(result.json["neurons"]) == 7


@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.parametrize("name", ["model.npz", "history.json"])
def test_a_full_disk(run, monkeypatch, name):
    """The error is reported even if Ctrl-C is pressed as well."""
    error = OSError(28, "No space left on device", name)
    target = "mlgraph.Network.save" if name == "model.npz" else "mlgraph.app.learning.write_atomically"
    for fail in (raising(error), signalling(raising(error))):
        monkeypatch.setattr(target, fail)
        expected = f"mlgraph.mnist: error: [Errno 28] No space left on device: '{name}'\n"
        result = run("--epochs", 1, "--no-plot")
        assert (result.status, result.err) == (1, expected)
        assert os.listdir("mnist-run") == ([] if name == "model.npz" else ["model.npz"])


def test_not_enough_memory(run):
    result = run("--hidden", 10**9, "--epochs", 1)
    assert (result.status, len(result.err.splitlines())) == (1, 1)
    assert result.err.startswith("mlgraph.mnist: error: not enough memory")


# --- Ctrl-C ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "epoch", "trained"), [("epoch", 1, "2.00"), ("steps", 0, "0.")])
def test_ctrl_c_saves_the_network(run, monkeypatch, kind, epoch, trained):
    interrupt(monkeypatch, kind, epoch)
    result = run("--epochs", 5, "--batch-size", 10, "--json")
    assert result.status == 130 and len(result.err.splitlines()) == 1
    assert result.err.startswith(f"mlgraph.mnist: interrupted after {trained}")
    assert result.err.endswith(" of 5 epochs; saved the network\n")
    record = result.json
    assert record["interrupted"] and record["epochs"] == 5 and record["examples_per_second"] > 0
    assert f"{record['epochs_trained']:.2f}".startswith(trained)
    assert sorted(os.listdir("mnist-run")) == WHOLE
    assert json.loads(Path("mnist-run/history.json").read_text())["results"]["interrupted"]
    assert isinstance(mlgraph.load("mnist-run/model.npz"), mlgraph.Network)


def test_ctrl_c_before_the_first_step(run, model, monkeypatch):
    before = Path(model).read_bytes()
    with monkeypatch.context() as context:
        context.setattr("mlgraph.app.common.load_mnist", raising(KeyboardInterrupt()))
        assert run() == (130, "", "mlgraph.mnist: interrupted\n")
    monkeypatch.setattr(mlgraph.Network, "fit", raising(KeyboardInterrupt()))
    message = "mlgraph.mnist: error: interrupted before the first step, nothing saved\n"
    assert run("--out", "trained")[::2] == (130, message)
    assert Path(model).read_bytes() == before


@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.parametrize(
    "name", ["mlgraph:Network.save", "mlgraph:Network.evaluate", "matplotlib.figure:Figure.savefig"]
)
@pytest.mark.parametrize("is_second", [pytest.param(False, marks=pytest.mark.slow), True])
def test_ctrl_c_while_saving(run, monkeypatch, name, is_second):
    """Also if an earlier Ctrl-C ended the training."""
    if is_second:
        interrupt(monkeypatch, "epoch", 0)
    monkeypatch.setattr(name.replace(":", "."), signalling(pkgutil.resolve_name(name)))
    result = run("--epochs", 2, "--json")
    message = "after 1.00 of 2 epochs; saved the network" if is_second else "after the training; everything is saved"
    assert (result.status, result.err) == (130, f"mlgraph.mnist: interrupted {message}\n")
    assert sorted(os.listdir("mnist-run")) == WHOLE and result.json["files"].keys() == {"model", "history", "picture"}


def test_a_second_ctrl_c_right_after_the_first(run, monkeypatch):
    """A program that forwards signals to its children sends the one from the terminal a second time."""
    interrupt(monkeypatch, "epoch", 0)
    later = mlgraph.__getattr__

    def interrupted(name):
        if name == "CheckpointError":
            raise KeyboardInterrupt  # while it is imported
        return later(name)

    monkeypatch.delitem(vars(mlgraph), "CheckpointError", raising=False)
    monkeypatch.setattr(mlgraph, "__getattr__", interrupted)
    assert run("--epochs", 2).status == 130
    assert sorted(os.listdir("mnist-run")) == WHOLE


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("is_interrupted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_progress_bar_that_cannot_be_closed(run, monkeypatch, error, is_interrupted):
    """It is closed between the last step and the saving."""
    methods = {"update": lambda n: None, "write": print, "set_postfix_str": lambda *_, **__: None}
    bar = SimpleNamespace(n=0, close=raising(error), **methods)
    if is_interrupted:
        interrupt(monkeypatch, "epoch", 0)
    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=lambda **_: bar))
    result = run("--epochs", 2, terminal=True)
    assert result.status == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert sorted(os.listdir("mnist-run")) == WHOLE


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "epoch"), [("steps", 0), ("epoch", 2)])
def test_a_resumed_run_ends_like_a_whole_one(run, monkeypatch, kind, epoch):
    words = ["--epochs", 4, "--dropout", 0.5, "--batch-size", "9:4", "--no-plot"]
    assert run(*words, "--out", "whole").status == 0
    with monkeypatch.context() as context:
        interrupt(context, kind, epoch)
        result = run(*words, "--checkpoint-every", 1000)
        assert result.status == 130 and len(result.err.splitlines()) == 1
        assert result.err.endswith("; saved the network (--resume continues the run)\n")
        assert sorted(os.listdir("mnist-run")) == ["checkpoint.npz", "history.json", "model.npz"]
    result = run(*words, "--resume", "--json")
    assert (result.status, result.err) == (0, "")
    rest = range(5 - len([line for line in result.out.splitlines() if line.startswith("epoch")]), 5)
    assert rest[0] in (epoch + 1, epoch + 2)
    assert record_of("mnist-run") == record_of("whole")
    loaded = mlgraph.load("mnist-run/checkpoint.npz").graph.parameters
    assert loaded.tobytes() == mlgraph.load("whole/model.npz").graph.parameters.tobytes()
    assert run("evaluate", "mnist-run/checkpoint.npz").status == 0
    again = run(*words, "--resume")  # at the end there is nothing left to do
    assert again.status == 0 and "epoch " not in again.out and record_of("mnist-run") == record_of("whole")


def test_rate_of_a_run_that_is_resumed_and_interrupted(run, monkeypatch):
    for kind, epoch in (("epoch", 0), ("steps", 2)):  # the first run resumes from nothing
        with monkeypatch.context() as context:
            interrupt(context, kind, epoch)
            record = run("--epochs", 3, "--resume", "--json", "--no-plot", "--batch-size", 10).json
    history = json.loads(Path("mnist-run/history.json").read_text())["history"]
    assert 2 < record["epochs_trained"] <= 3
    assert record["train_seconds"] == sum(history["epoch_seconds"])
    n = 90 * len(history["epoch_seconds"])
    assert record["examples_per_second"] == pytest.approx(n / record["train_seconds"])


def test_a_note_if_an_old_checkpoint_is_replaced(run):
    words = ["--epochs", 1, "--no-plot", "--checkpoint-every", 0]
    assert run(*words).err == ""
    note = "replacing mnist-run/checkpoint.npz of an earlier run; --resume would continue it\n"
    assert run(*words).err == note
    assert run(*words, "--resume").err == run("--epochs", 1, "--no-plot").err == run(*words, "--quiet").err == ""


def test_a_checkpoint_of_another_run(run):
    run("--epochs", 3, "--resume", "--no-plot")
    path = Path("mnist-run/checkpoint.npz")
    before = path.read_bytes()
    for words, difference in ((["--epochs", 4], "epochs"), (["--seed", 1], "seed"), (["--hidden", 7], "model")):
        result = run("--epochs", 3, "--resume", *words)
        assert (result.status, len(result.err.splitlines())) == (2, 1)
        assert result.err.startswith(f"mlgraph.mnist: error: argument --resume: checkpoint: {path}")
        assert difference in result.err and path.read_bytes() == before


def test_a_damaged_checkpoint(run):
    words = ["--epochs", 2, "--no-plot", "--checkpoint-every", 0]
    run(*words, "--out", "whole")
    run(*words)
    path = Path("mnist-run/checkpoint.npz")
    path.write_bytes(path.read_bytes()[:-9])
    result = run(*words, "--resume")
    assert result.status == 0 and len(result.err.splitlines()) == 1
    assert result.err.startswith(f"mlgraph.mnist: checkpoint: {path}: ") and f"{path}.previous" in result.err
    assert record_of("mnist-run") == record_of("whole")
    for file in (path, Path(f"{path}.previous")):
        file.write_bytes(b"")
    result = run(*words, "--resume")
    assert (result.status, len(result.err.splitlines())) == (2, 1)
    assert result.err.startswith(f"mlgraph.mnist: error: argument --resume: {path}: ")


def test_a_checkpoint_that_cannot_be_read_or_written(run, monkeypatch):
    path = Path("mnist-run/checkpoint.npz")
    with monkeypatch.context() as context:
        locked = raising(PermissionError(13, "Permission denied", str(path)))
        context.setattr("mlgraph.training.checkpoint.read", locked)
        expected = f"mlgraph.mnist: error: argument --resume: {path}: cannot be read: Permission denied\n"
        assert run("--epochs", 1, "--resume")[::2] == (2, expected)
    monkeypatch.setattr("mlgraph.training.checkpoint.save", raising(OSError(28, "No space left on device")))
    result = run("--epochs", 2, "--checkpoint-every", 0, "--quiet", "--no-plot")
    assert (result.status, result.out, len(result.err.splitlines())) == (0, "", 1)  # reported once; training goes on
    assert result.err.startswith(f"mlgraph.mnist: checkpoint: {path} ") and "No space left on device" in result.err
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz"]
