"""Output on a terminal and in a window, and without the optional packages."""

import os
import sys
from pathlib import Path

import pytest
from mnist_program import SAVED, interrupt

TITLE = "20-32-3 leaky_relu, 736 edges, 2 epochs, seed 0"
DESTROYED = RuntimeError("application has\nbeen destroyed")


class Window:
    """Stands in for a live picture: records the calls of its methods and raises the given errors in them."""

    is_open = is_due = True

    def __init__(self, **errors):
        self.calls = []
        self.errors = errors

    def call(self, name, value):
        self.calls.append((name, value))
        if name in self.errors:
            raise self.errors[name]

    def __call__(self, **options):
        self.call("open", options)
        return self

    def update(self, history):
        self.call("update", len(history.validation_accuracy))

    def wait(self, history):
        self.call("wait", len(history.validation_accuracy))


@pytest.fixture
def show(monkeypatch):
    """Show runs in a window with these errors."""
    monkeypatch.setitem(sys.modules, "tqdm", None)

    def show(**errors):
        window = Window(**errors)
        monkeypatch.setattr("mlgraph.app.display.LivePicture", window)
        return window

    return show


def test_the_progress_bar_counts_examples_below_the_epochs(run, monkeypatch):
    tqdm = pytest.importorskip("tqdm").tqdm
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # its thread would outlive the test
    close, reached = tqdm.close, []
    monkeypatch.setattr(tqdm, "close", lambda bar: reached.append(bar.n) or close(bar))
    result = run("--epochs", 2, "--no-plot", terminal=True)
    assert "/180 [" in result.err and reached[0] == 180
    _, *lines = result.out.splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "epoch", "test", "wrote"]


def test_without_tqdm_there_is_no_progress_bar(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    result = run("--epochs", 2, "--no-plot", terminal=True)
    message = "no progress bar, because tqdm is not installed: pip install "
    assert result.status == 0 and result.err.startswith(message) and result.err.count("\n") == 1
    assert "epoch 2/2" in result.out


@pytest.mark.usefixtures("no_matplotlib", "model")
@pytest.mark.parametrize("words", ["train", "train --no-plot --live", "inspect trained/model.npz"])
def test_without_matplotlib_there_is_no_picture(run, monkeypatch, words):
    monkeypatch.setenv("DISPLAY", ":0")
    result = run(*words.split())
    assert (result.status, len(result.err.splitlines())) == (0, 1)
    assert result.err.startswith("no live picture: " if "--live" in words else "no picture: ")
    assert "): pip install " in result.err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names its display in the environment")
def test_without_a_display_there_is_no_window(run):
    result = run("--epochs", 1, "--live")
    assert result == (0, result.out, "no live picture: neither DISPLAY nor WAYLAND_DISPLAY is set\n")
    assert Path("mnist-run/training.png").exists()


@pytest.mark.parametrize("at_terminal", [True, False])
def test_a_window_is_updated_and_waits_for_a_person(run, show, at_terminal):
    window = show(wait=KeyboardInterrupt())  # Ctrl-C closes the window, too
    assert run("--epochs", 2, "--no-plot", "--live", terminal=at_terminal).status == 0
    assert window.calls[0] == ("open", {"title": TITLE, "n_epochs": 2, "epoch_size": 90})
    assert ("update", 2) in window.calls
    assert window.calls[-1] == ("wait", 2)


@pytest.mark.parametrize(
    ("moment", "note"),
    [
        ("open", "no live picture: application has been destroyed"),
        ("update", "the live picture stopped: application has been destroyed"),
        ("wait", "close the window to end the program"),
    ],
)
def test_a_window_that_fails_does_not_end_the_run(run, show, moment, note):
    show(**{moment: DESTROYED})
    result = run("--epochs", 2, "--no-plot", "--live", terminal=True)
    notes = " ".join(line for line in result.err.splitlines() if "tqdm" not in line)
    assert (result.status, notes) == (0, note)
    assert sorted(os.listdir("mnist-run")) == SAVED


@pytest.mark.parametrize("moment", ["open", "update", "training"])
def test_after_ctrl_c_the_window_does_not_wait(run, show, monkeypatch, moment):
    window = show(**({} if moment == "training" else {moment: KeyboardInterrupt()}))
    if moment == "training":
        interrupt(monkeypatch, "epoch", 0)
    result = run("--epochs", 2, "--no-plot", "--live", terminal=True)
    assert result.status == 130 and "close the window" not in result.err and window.calls[-1][0] != "wait"
