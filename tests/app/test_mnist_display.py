"""What a run shows: on a terminal, in a window, in its picture, and without the extras."""

from __future__ import annotations

import builtins
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from mnist_program import Run, interrupt

import mlgraph


def test_bar(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm").tqdm
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # its thread would outlive the test
    close, reached = tqdm.close, []
    monkeypatch.setattr(tqdm, "close", lambda bar: reached.append(bar.n) or close(bar))
    result = run("--epochs", 2, "--no-plot", terminal=True)
    assert "/180 [" in result.err and reached[0] == 180
    lines = result.out.splitlines()
    assert [line[:9] for line in lines] == [lines[0][:9], "epoch 1/2", "epoch 2/2", "test accu", "wrote mni"]


def test_quiet_terminal(run: Run) -> None:
    assert run("--epochs", 1, "--quiet", "--no-plot", terminal=True) == (0, "", "")


def test_without_tqdm(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    result = run("--epochs", 2, "--no-plot", terminal=True)
    assert (result.status, result.err) == (0, "no progress bar, which needs tqdm: pip install 'mlgraph[app]'\n")
    assert "epoch 2/2" in result.out


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib(run: Run) -> None:
    result = run("--epochs", 1)
    assert result.status == 0
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("no picture: ")
    assert result.err.endswith("pip install 'mlgraph[app]'\n")
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz"]


@pytest.mark.usefixtures("no_matplotlib")
def test_live_without_matplotlib(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    result = run("--epochs", 1, "--no-plot", "--live")
    assert result.status == 0
    assert result.err.startswith("no live picture: ")
    assert result.err.endswith("pip install 'mlgraph[app]'\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names its display in the environment")
def test_live_without_display(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    result = run("--epochs", 1, "--live", terminal=True)
    assert result.status == 0
    assert result.err.splitlines()[0] == "no live picture: neither DISPLAY nor WAYLAND_DISPLAY is set"
    assert Path("mnist-run/training.png").exists()


def test_what_the_picture_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    def draw(history: mlgraph.History, path: Path, **options: Any) -> None:
        drawn.append((len(history.epoch_loss), path.name, options))

    monkeypatch.setattr("mlgraph.app.learning.draw_training", draw)
    assert run("--epochs", 2).status == 0
    title = "20-32-3 leaky_relu, 736 edges, 2 epochs, seed 0"
    assert drawn == [(2, "training.png", {"title": title, "epoch_size": 90})]


@pytest.mark.parametrize("watched", [True, False])
def test_live_window(run: Run, monkeypatch: pytest.MonkeyPatch, watched: bool) -> None:
    calls: list[Any] = []

    class Window:
        is_open = is_due = True

        def __init__(self, **options: Any) -> None:
            calls.append(("open", options))

        def update(self, history: mlgraph.History) -> None:
            calls.append(("update", len(history.validation_accuracy)))

        def wait(self, history: mlgraph.History) -> None:
            calls.append(("wait", len(history.validation_accuracy)))
            raise KeyboardInterrupt  # Ctrl-C closes it, too

    monkeypatch.setattr("mlgraph.app.display.LivePicture", Window)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert run("--epochs", 2, "--no-plot", "--live", terminal=watched).status == 0
    title = "20-32-3 leaky_relu, 736 edges, 2 epochs, seed 0"
    assert calls[0] == ("open", {"title": title, "n_epochs": 2, "epoch_size": 90})
    assert ("update", 2) in calls
    # A script must not wait for somebody to close a window.
    assert (calls[-1] == ("wait", 2)) is watched


@pytest.mark.parametrize(
    ("fails", "note"),
    [("open", "no live picture: "), ("update", "no live picture any more: "), ("wait", "close the window to end")],
)
def test_no_run_ends_for_a_window_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch, fails: str, note: str) -> None:
    def at(moment: str) -> None:
        if moment == fails:
            raise RuntimeError("application has\nbeen destroyed")

    class Window:
        is_open = is_due = True

        def __init__(self, **_: Any) -> None:
            at("open")

        def update(self, _: mlgraph.History) -> None:
            at("update")

        def wait(self, _: mlgraph.History) -> None:
            at("wait")

    monkeypatch.setattr("mlgraph.app.display.LivePicture", Window)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    result = run("--epochs", 2, "--no-plot", "--live", terminal=True)
    notes = [line for line in result.err.splitlines() if "tqdm" not in line]
    assert (result.status, notes) == (0, [note + "application has been destroyed" * (fails != "wait")])
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz"]


@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.parametrize("moment", ["training", "saving"])
def test_nobody_who_pressed_ctrl_c_is_asked_to_close_the_window(
    run: Run, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Window:
        is_open, is_due = True, False

        def __init__(self, **_: Any) -> None:
            pass

        def wait(self, _: mlgraph.History) -> None:
            pytest.fail("it is over")

    monkeypatch.setattr("mlgraph.app.display.LivePicture", Window)
    if moment == "training":
        interrupt(monkeypatch, "epoch", 0)
    else:
        monkeypatch.setattr(
            "mlgraph.app.learning.draw_training", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)
        )
    result = run("--epochs", 2, "--live", terminal=True)
    assert result.status == 130 and "close the window" not in result.err


@pytest.mark.parametrize("method", ["__init__", "update"])
def test_ctrl_c_in_the_window_ends_the_run(run: Run, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    class Window:
        is_open = is_due = True

        def __init__(self, **_: Any) -> None:
            pass

        def update(self, _: mlgraph.History) -> None:
            pass

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Window, method, interrupted)
    monkeypatch.setattr("mlgraph.app.display.LivePicture", Window)
    assert run("--epochs", 2, "--no-plot", "--live").status == 130


def test_a_backend_that_there_is_not(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a picture needs goes wrong where it is imported."""

    def no_backend(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ValueError("Key backend: 'spam' is not a valid value")
        return real(name, *rest, **options)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", no_backend)
    for command in (["--epochs", 1], ["inspect", model]):
        result = run(*command)
        assert result.status == 0
        assert result.err.splitlines()[-1].startswith(
            "no picture: a picture needs matplotlib, which says: Key backend: 'spam'"
        )
