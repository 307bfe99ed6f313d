"""The program as a process of its own: its output, closed streams, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mnist_program import HEIGHT, WIDTH, write_data, write_idx

import mlgraph


def start(*words: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mlgraph.mnist", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(Path(mlgraph.__file__).parents[1])}
    environment.pop("PYTHONUNBUFFERED", None)  # it would leave nothing in the buffers
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen(command, **{**pipes, **options})


def test_process(tmp_path: Path, data: Path) -> None:
    process = start("--epochs", 1, "--data", data, "--no-plot", "--json", cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["test_accuracy"] > 0.3
    assert (tmp_path / "mnist-run" / "model.npz").exists()


def test_process_help() -> None:
    process = start("--help")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert all(word in out for word in ("--hidden SIZES", "(default: 128:8)", "commands:", "  evaluate "))


def test_process_is_quiet_when_nobody_reads(tmp_path: Path, data: Path) -> None:
    for words in ((), ("--json",), ("--quiet", "--json")):
        process = start("--epochs", 3, "--data", data, "--no-plot", "--out", f"run{len(words)}", *words, cwd=tmp_path)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=300) == 141
        assert process.stderr.read() == ""
        process.stderr.close()
        # What was learnt is kept all the same.
        assert sorted(os.listdir(tmp_path / f"run{len(words)}")) == ["history.json", "model.npz"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is always full")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_no_training_ends_for_what_is_told_of_it(tmp_path: Path, data: Path, stream: str) -> None:
    with open("/dev/full", "w") as full:
        words = ("--epochs", 3, "--data", data, "--checkpoint-every", 0, "--live")
        process = start(*words, cwd=tmp_path, **{stream: full})
        _, err = process.communicate(timeout=300)
    assert sorted(os.listdir(tmp_path / "mnist-run"))[-3:] == ["history.json", "model.npz", "training.png"]
    if stream == "stdout":
        assert process.returncode == 1
        assert err.splitlines()[-1] == "mlgraph.mnist: error: [Errno 28] No space left on device: standard output"
    else:
        assert process.returncode == 0


def test_a_warning_that_is_an_error_is_one_line(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "bits", train=30)
    write_idx(
        folder / "train-images-idx3-ubyte", np.random.default_rng(0).integers(0, 2, (30, HEIGHT, WIDTH), np.uint8)
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(mlgraph.__file__).parents[1]), "PYTHONWARNINGS": "error"}
    process = start("--data", folder, cwd=tmp_path, env=environment)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.startswith("mlgraph.mnist: error: x: bytes are read as byte / 255")
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="file descriptors of POSIX")
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_process_with_closed_streams(tmp_path: Path, data: Path, closed: tuple[int, ...]) -> None:
    """As a service manager may start it."""
    options = {"stdout": None, "stderr": None, "cwd": tmp_path}
    for words in (
        ("--epochs", 2, "--hidden", 4),
        ("evaluate", "mnist-run/model.npz"),
        ("inspect", "mnist-run/model.npz"),
    ):
        process = start(*words, "--data", data, preexec_fn=lambda: [os.close(number) for number in closed], **options)
        assert process.wait(timeout=300) == 0, words
    written = sorted(file.name for file in (tmp_path / "mnist-run").iterdir())
    assert written == ["history.json", "model.npz", "model.png", "training.png"]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_process_is_interrupted(tmp_path: Path, data: Path) -> None:
    def take_signals() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told its children to ignore it

    process = start("--epochs", 10**9, "--data", data, "--no-plot", cwd=tmp_path, preexec_fn=take_signals)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("epoch"):
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.startswith("mlgraph.mnist: interrupted after ")
    assert len(err.splitlines()) == 1
    assert sorted(os.listdir(tmp_path / "mnist-run")) == ["history.json", "model.npz"]
