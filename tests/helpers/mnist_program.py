"""Fixtures `run`, `data`, `model`: `python -m mlgraph.mnist` in this process, on a small data set."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from mlgraph import mnist
from mlgraph.app.display import Display

HEIGHT, WIDTH, CLASSES = 4, 5, 3


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


def write_data(folder: Path, *, train: int = 90, test: int = 30, width: int = WIDTH, classes: int = CLASSES) -> Path:
    """Images whose class is the third of them that is bright: a network learns it within an epoch or two."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for prefix, n in (("train", train), ("t10k", test)):
        labels = np.arange(n, dtype=np.uint8) % classes
        images = rng.integers(0, 60, size=(n, HEIGHT * width), dtype=np.uint8)
        share = HEIGHT * width // classes
        for image, label in zip(images, labels, strict=True):
            image[label * share : (label + 1) * share] += 150
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images.reshape(n, HEIGHT, width))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("idx") / "data")


class Result(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        record = json.loads(self.out.splitlines()[-1])
        assert isinstance(record, dict)
        return record


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program in an empty folder, on the small data set; with `terminal`, as if a person watched."""
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: object, data: Path | None = data, terminal: bool = False) -> Result:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
        given = [*map(str, words), *([] if data is None else ["--data", str(data)])]
        return Result(mnist.main(given), *capsys.readouterr())

    return run


@pytest.fixture
def model(run: Run) -> str:
    assert run("--epochs", 3, "--batch-size", 4, "--hidden", 8, "--out", "trained", "--no-plot", "--quiet").status == 0
    return str(Path("trained") / "model.npz")


def interrupt(monkeypatch: pytest.MonkeyPatch, kind: str, epoch: int) -> None:
    """Raise KeyboardInterrupt where Ctrl-C would: when training comes back to Python, here at an event."""
    show = Display.__call__

    def show_and_interrupt(self: Display, event: Any) -> None:
        show(self, event)
        if (event.kind, event.epoch) == (kind, epoch):
            raise KeyboardInterrupt

    monkeypatch.setattr(Display, "__call__", show_and_interrupt)
