"""Files of a run that is interrupted, fails or is resumed. Training is lost only if nothing can be saved."""

import json
import os
import pkgutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mnist_program import SAVED, interrupt

import mlgraph

WHOLE = [*SAVED, "training.png"]
FULL = OSError(28, "No space left on device")


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


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, FULL])
def test_a_run_without_a_picture_deletes_the_old_one(run, monkeypatch, error):
    assert run("--epochs", 1).status == 0
    picture = Path("mnist-run/training.png")
    assert picture.exists()
    if error:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", raising(error))
    assert run("--epochs", 2, *([] if error else ["--no-plot"])).status == (1 if error else 0)
    assert (
        not picture.exists()
        and json.loads(Path("mnist-run/history.json").read_text())["results"]["epochs_trained"] == 2
    )


@pytest.mark.parametrize("error", [FULL, RuntimeError("by the backend")])
@pytest.mark.usefixtures("model")
def test_a_picture_that_fails_leaves_the_other_results(run, monkeypatch, error):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", raising(error))
    message = f"mlgraph.mnist: error: no picture: {error}\n"
    trained = run("--epochs", 1, "--json")
    assert (trained.status, trained.err) == (1, message)
    assert trained.json["files"].keys() == {"model", "history"} and sorted(os.listdir("mnist-run")) == SAVED
    inspected = run("inspect", "trained/model.npz", "--json")
    assert (inspected.status, inspected.err, len(inspected.json["neurons"])) == (1, message, 11)


@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.parametrize(
    ("target", "left"), [("mlgraph.Network.save", []), ("mlgraph.app.learning.write_atomically", ["model.npz"])]
)
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_full_disk_is_reported_even_after_ctrl_c(run, monkeypatch, target, left, interrupted):
    fail = raising(OSError(28, "No space left on device", "a.b"))
    monkeypatch.setattr(target, signalling(fail) if interrupted else fail)
    result = run("--epochs", 1, "--no-plot")
    assert (result.status, result.err) == (1, "mlgraph.mnist: error: [Errno 28] No space left on device: 'a.b'\n")
    assert os.listdir("mnist-run") == left


def test_too_little_memory_is_an_error_of_one_line(run):
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


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("mlgraph.app.common.load_mnist", "interrupted"),
        ("mlgraph.Network.fit", "error: interrupted before the first step, nothing saved"),
    ],
)
def test_ctrl_c_before_the_first_step_leaves_the_old_model(run, model, monkeypatch, target, message):
    before = Path(model).read_bytes()
    monkeypatch.setattr(target, raising(KeyboardInterrupt()))
    assert run("--out", "trained")[::2] == (130, f"mlgraph.mnist: {message}\n")
    assert Path(model).read_bytes() == before


@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.parametrize(
    "name", ["mlgraph:Network.save", "mlgraph:Network.evaluate", "matplotlib.figure:Figure.savefig"]
)
@pytest.mark.parametrize("is_second", [pytest.param(False, marks=pytest.mark.slow), True])
def test_ctrl_c_while_saving_loses_nothing(run, monkeypatch, name, is_second):
    """Also if an earlier Ctrl-C ended the training."""
    if is_second:
        interrupt(monkeypatch, "epoch", 0)
    monkeypatch.setattr(name.replace(":", "."), signalling(pkgutil.resolve_name(name)))
    result = run("--epochs", 2, "--json")
    message = "after 1.00 of 2 epochs; saved the network" if is_second else "after the training; everything is saved"
    assert (result.status, result.err) == (130, f"mlgraph.mnist: interrupted {message}\n")
    assert sorted(os.listdir("mnist-run")) == WHOLE and result.json["files"].keys() == {"model", "history", "picture"}


def test_a_second_ctrl_c_right_after_the_first_loses_nothing(run, monkeypatch):
    """A program that forwards signals to its children sends the one from the terminal a second time."""
    interrupt(monkeypatch, "epoch", 0)
    # Names of the package are imported when they are first used, as by an except clause.
    monkeypatch.delitem(vars(mlgraph), "CheckpointError", raising=False)
    monkeypatch.setattr(mlgraph, "__getattr__", raising(KeyboardInterrupt()))
    assert run("--epochs", 2).status == 130
    assert sorted(os.listdir("mnist-run")) == WHOLE


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (FULL, 1)])
def test_a_progress_bar_that_cannot_be_closed_loses_nothing(run, monkeypatch, error, status):
    """It is closed between the last step and the saving."""
    methods = {"update": lambda n: None, "write": print, "set_postfix_str": lambda *_, **__: None}
    bar = SimpleNamespace(n=0, close=raising(error), **methods)
    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=lambda **_: bar))
    assert run("--epochs", 2, terminal=True).status == status
    assert sorted(os.listdir("mnist-run")) == WHOLE


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("always:checkpoint. the run of")
@pytest.mark.parametrize(("kind", "epoch"), [("steps", 0), ("epoch", 2)])
def test_a_resumed_run_ends_like_a_whole_one(run, monkeypatch, kind, epoch):
    words = ["--epochs", 4, "--dropout", 0.5, "--batch-size", "9:4", "--no-plot"]
    assert run(*words, "--out", "whole").status == 0
    with monkeypatch.context() as context:
        interrupt(context, kind, epoch)
        result = run(*words, "--checkpoint-every", 1000)
    assert result.status == 130 and result.err.endswith("; saved the network (--resume continues the run)\n")
    assert sorted(os.listdir("mnist-run")) == ["checkpoint.npz", *SAVED]
    assert run("evaluate", "mnist-run/checkpoint.npz").status == 0
    result = run(*words, "--resume")
    assert (result.status, result.err) == (0, "")
    rest = [line for line in result.out.splitlines() if line.startswith("epoch ")]
    assert 0 < len(rest) < 5 - epoch
    assert record_of("mnist-run") == record_of("whole")
    loaded = mlgraph.load("mnist-run/checkpoint.npz").graph.parameters
    assert loaded.tobytes() == mlgraph.load("whole/model.npz").graph.parameters.tobytes()
    again = run(*words, "--resume")  # at the end there is nothing left to do
    assert "has already ended, after 4 of 4 epochs" in again.err
    assert again.status == 0 and "epoch " not in again.out and record_of("mnist-run") == record_of("whole")


def test_the_rate_of_a_resumed_and_interrupted_run_counts_whole_epochs(run, monkeypatch):
    for kind, epoch, words in (("epoch", 0, ["--checkpoint-every", 1000]), ("steps", 2, ["--resume"])):
        with monkeypatch.context() as context:
            interrupt(context, kind, epoch)
            record = run("--epochs", 3, *words, "--json", "--no-plot", "--batch-size", 10).json
    seconds = json.loads(Path("mnist-run/history.json").read_text())["history"]["epoch_seconds"]
    assert 2 < record["epochs_trained"] <= 3
    assert record["train_seconds"] == sum(seconds)
    assert record["examples_per_second"] == pytest.approx(90 * len(seconds) / sum(seconds))


@pytest.mark.parametrize("command", [[], ["prune", "trained/model.npz", "--sparsity", "0.5", "--out", "mnist-run"]])
@pytest.mark.usefixtures("model")
def test_a_new_run_keeps_the_files_of_the_one_before(run, command):
    run("--epochs", 1, "--checkpoint-every", 0)
    folder, previous = Path("mnist-run"), Path("mnist-run.previous")
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    previous.mkdir()
    (previous / "training.png").write_text("of the run before")
    for place in (folder, previous):
        (place / "notes.txt").write_text("of the user")
    assert run(*command, "--epochs", 1, "--no-plot").err.startswith(
        "moved the files of an earlier run in mnist-run to "
    )
    kept = {name: (previous / name).read_bytes() for name in os.listdir(previous)}
    assert kept == {**before, "notes.txt": b"of the user"}
    assert sorted(os.listdir(folder)) == sorted([*SAVED, "notes.txt"])
    refused = run("prune", "mnist-run.previous/model.npz", "--sparsity", 0.5, "--out", "mnist-run")
    assert refused.status == 2 and "would replace MODEL" in refused.err


def test_resuming_needs_a_checkpoint(run):
    message = (
        "mlgraph.mnist: error: argument --resume: there is no checkpoint.npz in 'mnist-run'; begin the run without "
        "--resume, with --checkpoint-every SECONDS\n"
    )
    assert run("--resume") == (2, "", message) and not Path("mnist-run").exists()
    run("--epochs", 1, "--no-plot")
    before = Path("mnist-run/model.npz").read_bytes()
    assert run("--resume") == (2, "", message) and Path("mnist-run/model.npz").read_bytes() == before


def test_a_run_that_fails_keeps_its_last_good_epoch(run, monkeypatch):
    with monkeypatch.context() as context:
        interrupt(context, "steps", 2, mlgraph.NonFiniteError("epoch 3, step 1: overflow"))
        result = run("--epochs", 4, "--no-plot")
    assert (result.status, len(result.err.splitlines())) == (1, 1)
    assert result.err.startswith("mlgraph.mnist: error: epoch 3, step 1: overflow; mnist-run/model.npz is the network")
    assert "after epoch 2, " in result.err
    record = json.loads(Path("mnist-run/history.json").read_text())
    assert record["results"]["error"] == "epoch 3, step 1: overflow" and record["results"]["epochs_trained"] == 2
    assert run("evaluate", "mnist-run/model.npz", "--json").json["test_loss"] == record["results"]["test_loss"]
    assert record["results"]["test_loss"] == record["history"]["validation_loss"][-1]


@pytest.mark.filterwarnings("always:checkpoint. the run of")
def test_an_earlier_run_in_the_folder_is_noted(run):
    words = ["--epochs", 1, "--no-plot", "--checkpoint-every", 0]
    note = "moved the files of an earlier run in mnist-run to mnist-run.previous\n"
    assert [run(*words).err, run(*words).err] == ["", note]
    again = run(*words, "--resume")
    assert again.status == 0 and "has already ended, after 1 of 1 epochs" in again.err
    assert run(*words, "--quiet").err == ""


def test_checkpoints_of_other_runs_are_refused(run):
    run("--epochs", 3, "--checkpoint-every", 1000, "--no-plot")
    path = Path("mnist-run/checkpoint.npz")
    before = path.read_bytes()
    for option, value, difference in (("--epochs", 4, "epochs"), ("--seed", 1, "seed"), ("--hidden", 7, "model")):
        result = run("--epochs", 3, "--resume", option, value)
        assert (result.status, len(result.err.splitlines())) == (2, 1)
        assert result.err.startswith(f"mlgraph.mnist: error: argument --resume: checkpoint: {path}")
        assert difference in result.err and path.read_bytes() == before


def test_the_previous_checkpoint_replaces_a_damaged_one(run):
    words = ["--epochs", 2, "--no-plot", "--checkpoint-every", 0]
    run(*words, "--out", "whole")
    run(*words)
    path, previous = Path("mnist-run/checkpoint.npz"), Path("mnist-run/checkpoint.npz.previous")
    path.write_bytes(path.read_bytes()[:-9])
    result = run(*words, "--resume")
    assert result.status == 0 and len(result.err.splitlines()) == 1
    assert result.err.startswith(f"mlgraph.mnist: checkpoint: {path}: ") and str(previous) in result.err
    assert record_of("mnist-run") == record_of("whole")
    for file in (path, previous):
        file.write_bytes(b"")
    result = run(*words, "--resume")
    assert (result.status, len(result.err.splitlines())) == (2, 1)
    assert result.err.startswith(f"mlgraph.mnist: error: argument --resume: {path}: ")


def test_checkpoints_that_cannot_be_read_or_written(run, monkeypatch):
    path = Path("mnist-run/checkpoint.npz")
    path.parent.mkdir()
    path.touch()
    with monkeypatch.context() as context:
        locked = raising(PermissionError(13, "Permission denied", str(path)))
        context.setattr("mlgraph.training.checkpoint.read", locked)
        message = f"mlgraph.mnist: error: argument --resume: {path}: cannot be read: Permission denied\n"
        assert run("--epochs", 1, "--resume")[::2] == (2, message)
    path.unlink()
    monkeypatch.setattr("mlgraph.training.checkpoint.save", raising(FULL))
    result = run("--epochs", 2, "--checkpoint-every", 0, "--quiet", "--no-plot")
    assert (result.status, result.out, len(result.err.splitlines())) == (0, "", 1)  # reported once; training goes on
    assert result.err.startswith(f"mlgraph.mnist: checkpoint: {path} ") and "No space left on device" in result.err
    assert sorted(os.listdir("mnist-run")) == SAVED
