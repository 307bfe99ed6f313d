"""What a run leaves in its folder, whatever ends it: Ctrl-C, or a picture, a progress bar or a disk that fails."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mnist_program import Run, interrupt

import mlgraph


def test_first_run_is_replaced(run: Run) -> None:
    for epochs in (1, 2):
        assert run("--epochs", epochs).status == 0
    assert json.loads(Path("mnist-run/history.json").read_text())["configuration"]["epochs"] == 2
    assert len(os.listdir("mnist-run")) == 3


@pytest.mark.parametrize("linked", [False, True])
def test_no_picture_of_an_older_run_is_left(run: Run, monkeypatch: pytest.MonkeyPatch, linked: bool) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "x.png")

    picture, elsewhere = Path("mnist-run/training.png"), Path("elsewhere.png")
    picture.parent.mkdir()
    if linked:
        picture.symlink_to(elsewhere.absolute())
    for words, error in ((["--no-plot"], None), ([], fail)):
        assert run("--epochs", 1).status == 0
        assert picture.exists() and elsewhere.exists() is linked
        with monkeypatch.context() as context:
            if error:
                context.setattr("matplotlib.figure.Figure.savefig", error)
            assert run("--epochs", 2, *words).status == (1 if error else 0)
        assert not picture.exists() and picture.is_symlink() is linked


def test_none_of_an_older_run_is_left_while_the_picture_is_drawn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever kills the program then."""
    left: list[list[str]] = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: left.append(os.listdir("mnist-run")))
    for _ in range(2):
        assert run("--epochs", 1).status == 0
    assert [[name for name in names if not name.startswith(".")] for names in left] == [["model.npz"]] * 2


def test_no_record_of_an_older_run_is_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    assert run("--epochs", 1, "--no-plot").status == 0
    monkeypatch.setattr("mlgraph.app.learning.write_atomically", full)
    result = run("--epochs", 2, "--no-plot")
    record = Path("mnist-run/history.json")
    assert (result.status, result.err) == (1, f"mlgraph.mnist: error: [Errno 28] No space left on device: '{record}'\n")
    assert os.listdir("mnist-run") == ["model.npz"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "x.png"), RuntimeError("by the backend")])
@pytest.mark.parametrize("command", ["train", "inspect"])
def test_a_picture_that_fails_takes_nothing_along(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    assert run("--epochs", 1, "--no-plot", "--hidden", 4).status == 0
    result = run("--epochs", 1, "--json") if command == "train" else run("inspect", "mnist-run/model.npz", "--json")
    assert (result.status, result.err) == (1, f"mlgraph.mnist: error: no picture: {error}\n")
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz"]
    if command == "train":
        assert result.json["files"].keys() == {"model", "history"}
        record = json.loads(Path("mnist-run/history.json").read_bytes())
        assert record["configuration"]["hidden"] == [32]
    else:
        assert len(result.json["neurons"]) == 7


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_a_run_is_whole_though_its_picture_is_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    save = Figure.savefig

    def interrupted(*args: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(*args, **options)

    monkeypatch.setattr(Figure, "savefig", interrupted)
    result = run("--epochs", 1, "--json")
    assert (result.status, result.err) == (130, "mlgraph.mnist: interrupted after the training; all is saved\n")
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]
    assert result.json["files"].keys() == {"model", "history", "picture"}


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_as_training_ends_costs_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("save", "evaluate"):
        method = getattr(mlgraph.Network, name)

        def interrupted(*args: Any, method: Any = method, **options: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return method(*args, **options)

        with monkeypatch.context() as context:
            context.setattr(mlgraph.Network, name, interrupted)
            result = run("--epochs", 2, "--json", "--out", name)
        assert (result.status, result.err) == (130, "mlgraph.mnist: interrupted after the training; all is saved\n")
        assert sorted(os.listdir(name)) == ["history.json", "model.npz", "training.png"]
        assert result.json["epochs_trained"] == 2


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_a_second_ctrl_c_costs_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "epoch", 0)
    save = mlgraph.Network.save

    def interrupted(net: mlgraph.Network, path: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(net, path)

    monkeypatch.setattr(mlgraph.Network, "save", interrupted)
    result = run("--epochs", 2)
    assert (result.status, result.err) == (
        130,
        "mlgraph.mnist: interrupted after 1.00 of 2 epochs; saved what there is\n",
    )
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_a_full_disk_is_told_though_ctrl_c_came(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise OSError(28, "No space left on device", "model.npz")

    monkeypatch.setattr(mlgraph.Network, "save", full)
    expected = "mlgraph.mnist: error: [Errno 28] No space left on device: 'model.npz'\n"
    result = run("--epochs", 1)
    assert (result.status, result.err) == (1, expected)


def test_a_second_ctrl_c_right_after_the_first_costs_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a program that hands on what its children have had from the terminal, too."""
    interrupt(monkeypatch, "epoch", 0)
    later = mlgraph.__getattr__

    def interrupted(name: str) -> Any:
        if name == "CheckpointError":
            raise KeyboardInterrupt  # while that is imported
        return later(name)

    monkeypatch.setattr(mlgraph, "__getattr__", interrupted)
    assert run("--epochs", 2).status == 130
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("first", [False, True])
def test_a_bar_that_cannot_be_closed_costs_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, first: bool
) -> None:
    """It is closed between the last step and the saving; or after a first Ctrl-C."""

    def closed(_: object) -> None:
        raise error

    class Bar:
        n = 0
        close = closed

        def __init__(self, **_: Any) -> None:
            pass

        def write(self, line: str) -> None:
            print(line)

        def update(self, n: int) -> None:
            pass

        def set_postfix_str(self, *_: Any, **__: Any) -> None:
            pass

    if first:
        interrupt(monkeypatch, "epoch", 0)
    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=Bar))
    result = run("--epochs", 2, terminal=True)
    assert result.status == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]


def test_interrupt_keeps_what_there_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "epoch", 1)
    result = run("--epochs", 5, "--json")
    assert result.status == 130
    assert result.err == "mlgraph.mnist: interrupted after 2.00 of 5 epochs; saved what there is\n"
    record = result.json
    assert (record["interrupted"], record["epochs"], record["epochs_trained"]) == (True, 5, 2.0)
    assert record["examples_per_second"] > 0
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]
    assert json.loads(Path("mnist-run/history.json").read_text())["results"]["interrupted"]
    assert isinstance(mlgraph.load("mnist-run/model.npz"), mlgraph.Network)


def test_interrupt_within_the_first_epoch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "steps", 0)
    result = run("--epochs", 5, "--batch-size", 10)
    assert result.status == 130
    assert result.err.startswith("mlgraph.mnist: interrupted after 0.")
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]


def test_interrupt_before_the_first_step(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: mlgraph.Network, *args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mlgraph.Network, "fit", fit)
    before = Path(model).read_bytes()
    result = run("--out", "trained")
    assert (result.status, result.err) == (
        130,
        "mlgraph.mnist: error: interrupted before the first step, nothing saved\n",
    )
    assert Path(model).read_bytes() == before
