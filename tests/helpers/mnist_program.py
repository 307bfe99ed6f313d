"""Fixtures `run`, `data`, `model`: `python -m mlgraph.mnist` in this process, on a small data set."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mlgraph import mnist
from mlgraph.app.display import Display

HEIGHT, WIDTH, CLASSES = 4, 5, 3
SAVED = ["history.json", "model.npz"]


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


def write_data(folder, *, width=WIDTH, classes=CLASSES, binary=False):
    """Images with one bright part, which tells the class: a network learns them within an epoch or two."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for prefix, n in (("train", 90), ("t10k", 30)):
        labels = np.arange(n, dtype=np.uint8) % classes
        images = rng.integers(0, 2 if binary else 60, size=(n, HEIGHT * width), dtype=np.uint8)
        part = HEIGHT * width // classes
        for image, label in zip(images, labels, strict=True):
            image[label * part : (label + 1) * part] += 0 if binary else 196
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images.reshape(n, HEIGHT, width))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("idx") / "data")


class Result(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def run(tmp_path, data, capsys, monkeypatch):
    """Run the program in an empty folder, on the small data set; with `terminal`, as if a person watched."""
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)

    def run(*words, data=data, terminal=False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
        return Result(mnist.main([*map(str, words), "--data", str(data)]), *capsys.readouterr())

    return run


@pytest.fixture
def model(run):
    """The path of a trained network, 20-8-3."""
    assert run("--epochs", 3, "--batch-size", 4, "--hidden", 8, "--out", "trained", "--no-plot", "--quiet").status == 0
    return str(Path("trained") / "model.npz")


@pytest.fixture
def fitted(monkeypatch):
    """The options of each call of `fit`."""
    given, fit = [], mnist.mlgraph.Network.fit
    monkeypatch.setattr("mlgraph.Network.fit", lambda *args, **options: given.append(options) or fit(*args, **options))
    return given


def interrupt(monkeypatch, kind, epoch, error=KeyboardInterrupt):
    """Raise an error where Ctrl-C would: when training comes back to Python, here at an event."""
    show = Display.__call__

    def show_and_interrupt(self, event):
        show(self, event)
        if (event.kind, event.epoch) == (kind, epoch):
            raise error

    monkeypatch.setattr(Display, "__call__", show_and_interrupt)
