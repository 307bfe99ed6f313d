"""Runs of the application that are left, killed or interrupted, and resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from mnist_program import Run, interrupt

import mlgraph
from mlgraph.app import common


def record_of(folder: str) -> dict[str, Any]:
    """What two runs have in common: all but times and places of files."""
    record: dict[str, Any] = json.loads(Path(folder, "history.json").read_text())
    del record["history"]["epoch_seconds"]
    for name in ("train_seconds", "examples_per_second", "files"):
        del record["results"][name]
    return record


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("kind", ["steps", "epoch"])
def test_resume(run: Run, monkeypatch: pytest.MonkeyPatch, kind: str, epoch: int) -> None:
    words = ["--epochs", 4, "--dropout", 0.5, "--batch-size", "9:4", "--no-plot"]
    assert run(*words, "--out", "whole").status == 0
    with monkeypatch.context() as context:
        interrupt(context, kind, epoch)
        result = run(*words, "--checkpoint-every", 1000)
        assert result.status == 130
        assert result.err.endswith("; saved what there is, and --resume goes on\n")
        assert len(result.err.splitlines()) == 1
        assert sorted(os.listdir("mnist-run")) == ["checkpoint.npz", "history.json", "model.npz"]
    result = run(*words, "--resume", "--json")
    assert (result.status, result.err) == (0, "")
    rest = range(5 - len([line for line in result.out.splitlines() if line.startswith("epoch")]), 5)
    assert rest[0] in (epoch + 1, epoch + 2)
    assert record_of("mnist-run") == record_of("whole")
    loaded = mlgraph.load("mnist-run/checkpoint.npz").graph.parameters
    assert loaded.tobytes() == mlgraph.load("whole/model.npz").graph.parameters.tobytes()
    assert run("evaluate", "mnist-run/checkpoint.npz").status == 0
    again = run(*words, "--resume")
    assert again.status == 0
    assert "epoch " not in again.out
    assert record_of("mnist-run") == record_of("whole")


def test_an_interrupted_run_that_was_resumed_has_a_rate(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for epoch in (0, 1):
        with monkeypatch.context() as context:
            interrupt(context, "epoch", epoch)
            record = run("--epochs", 3, "--resume", "--json", "--no-plot").json
    history = json.loads(Path("mnist-run/history.json").read_text())["history"]
    assert record["epochs_trained"] == 2
    assert record["train_seconds"] == sum(history["epoch_seconds"])
    assert record["examples_per_second"] == pytest.approx(180 / record["train_seconds"])


def test_resume_from_nothing(run: Run) -> None:
    assert run("--epochs", 1, "--no-plot", "--resume").status == 0
    assert sorted(os.listdir("mnist-run")) == ["checkpoint.npz", "history.json", "model.npz"]


def test_whoever_forgets_to_resume_is_told(run: Run) -> None:
    words = ["--epochs", 1, "--no-plot", "--checkpoint-every", 0]
    assert run(*words).err == ""
    note = f"{Path('mnist-run/checkpoint.npz')} is of an older run and will be replaced; --resume would go on from it\n"
    assert run(*words).err == note
    assert run(*words, "--resume").err == run("--epochs", 1, "--no-plot").err == run(*words, "--quiet").err == ""


def test_resume_with_other_options(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        interrupt(context, "steps", 1)
        run("--epochs", 3, "--resume", "--no-plot")
    before = Path("mnist-run/checkpoint.npz").read_bytes()
    for words, message in (
        (["--epochs", 4], "epochs was 3, but is 4 now"),
        (["--seed", 1], "seed was 0, but is 1 now"),
        (["--hidden", 7], "the model has other nodes, edges, dropout, initial parameters or frozen parameters"),
    ):
        path = Path("mnist-run/checkpoint.npz")
        expected = (
            f"mlgraph.mnist: error: argument --resume: checkpoint: {path} belongs to another run: {message}\n"
        )
        assert run(*(["--epochs", 3] if words[0] != "--epochs" else []), "--resume", *words)[::2] == (2, expected)
    assert Path("mnist-run/checkpoint.npz").read_bytes() == before


def test_resume_from_a_damaged_checkpoint(run: Run) -> None:
    words = ["--epochs", 2, "--no-plot", "--checkpoint-every", 0]
    run(*words, "--out", "whole")
    run(*words)
    path = Path("mnist-run/checkpoint.npz")
    path.write_bytes(path.read_bytes()[:-9])
    result = run(*words, "--resume")
    assert result.status == 0
    assert result.err.startswith(f"mlgraph.mnist: checkpoint: {path}: not a model file, or a damaged one (")
    assert result.err.endswith(f"; resuming from {path}.previous\n")
    assert record_of("mnist-run") == record_of("whole")
    for file in (path, Path(f"{path}.previous")):
        file.write_bytes(b"")
    result = run(*words, "--resume")
    assert (result.status, len(result.err.splitlines())) == (2, 1)
    assert result.err.startswith(f"mlgraph.mnist: error: argument --resume: {path}: not a model file")


def test_resume_from_a_checkpoint_that_may_not_be_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("mlgraph.training.checkpoint.read", locked)
    path = Path("mnist-run/checkpoint.npz")
    expected = f"mlgraph.mnist: error: argument --resume: {path}: cannot be read: Permission denied\n"
    assert run("--epochs", 1, "--resume")[::2] == (2, expected)


def test_checkpoints_on_a_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told once, and training goes on."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlgraph.training.checkpoint.save", full)
    result = run("--epochs", 2, "--checkpoint-every", 0, "--quiet", "--no-plot")
    path = Path("mnist-run/checkpoint.npz")
    message = f"mlgraph.mnist: checkpoint: {path} cannot be written (No space left on device), training continues\n"
    assert result == (0, "", message)
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz"]


def test_interrupt_while_loading(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(folder: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(common, "load_mnist", load)
    assert run() == (130, "", "mlgraph.mnist: interrupted\n")


def test_non_finite_training_overwrites_nothing(run: Run, model: str) -> None:
    before = {name: Path("trained", name).read_bytes() for name in os.listdir("trained")}
    result = run("--epochs", 5, "--learning-rate", "1e30", "--out", "trained", "--json")
    assert result.status == 1
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("mlgraph.mnist: error: epoch ")
    assert {name: Path("trained", name).read_bytes() for name in os.listdir("trained")} == before


def test_disk_full(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(self: mlgraph.Network, path: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(mlgraph.Network, "save", save)
    result = run("--epochs", 1)
    assert result.status == 1
    assert len(result.err.splitlines()) == 1
    assert "No space left on device: " in result.err


def test_too_large_for_memory(run: Run) -> None:
    result = run("--hidden", 10**9, "--epochs", 1)
    assert (result.status, len(result.err.splitlines())) == (1, 1)
    assert result.err.startswith("mlgraph.mnist: error: not enough memory")
