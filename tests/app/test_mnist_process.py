"""The program as a process: exit status, closed streams, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mnist_program import HEIGHT, WIDTH, write_data, write_idx

import mlgraph


@pytest.fixture
def start(tmp_path, data):
    def start(*words, data=data, env=None, **options):
        command = [sys.executable, "-m", "mlgraph.mnist", *map(str, words), "--data", str(data)]
        environment = {**os.environ, "PYTHONPATH": str(Path(mlgraph.__file__).parents[1]), **(env or {})}
        environment.pop("PYTHONUNBUFFERED", None)  # it would leave nothing in the buffers
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment, cwd=tmp_path, **{**pipes, **options})

    return start


def test_output(start, tmp_path):
    process = start("--epochs", 1, "--no-plot", "--json")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["test_accuracy"] > 0.3
    assert (tmp_path / "mnist-run" / "model.npz").exists()


def test_a_closed_pipe_is_no_error(start, tmp_path):
    process = start("--epochs", 3, "--no-plot", "--json")
    process.stdout.close()
    assert (process.wait(timeout=300), process.stderr.read()) == (141, "")
    process.stderr.close()
    assert sorted(os.listdir(tmp_path / "mnist-run")) == ["history.json", "model.npz"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("stream", ["stdout", pytest.param("stderr", marks=pytest.mark.slow)])
def test_output_to_a_full_disk_does_not_end_the_training(start, tmp_path, stream):
    with open("/dev/full", "w") as full:
        process = start("--epochs", 3, "--checkpoint-every", 0, "--live", "--no-plot", **{stream: full})
        _, err = process.communicate(timeout=300)
    assert {"history.json", "model.npz"} <= {*os.listdir(tmp_path / "mnist-run")}
    if stream == "stdout":
        assert process.returncode == 1
        assert err.splitlines()[-1] == "mlgraph.mnist: error: [Errno 28] No space left on device: standard output"
    else:
        assert process.returncode == 0


@pytest.mark.parametrize("closed", [(0, 1, 2), *(pytest.param(n, marks=pytest.mark.slow) for n in [(1,), (2,)])])
def test_closed_streams(start, tmp_path, closed):
    """A service manager may start a program with closed streams."""
    close = {"stdout": None, "stderr": None, "preexec_fn": lambda: [os.close(number) for number in closed]}
    model = "mnist-run/model.npz"
    for words in (("--epochs", 2, "--no-plot"), ("evaluate", model), ("inspect", model, "--no-plot")):
        assert start(*words, **close).wait(timeout=300) == 0, words
    assert sorted(os.listdir(tmp_path / "mnist-run")) == ["history.json", "model.npz"]


def test_ctrl_c(start, tmp_path):
    def take_signals():  # a shell may have told its children to ignore them
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = start("--epochs", 10**9, "--no-plot", preexec_fn=take_signals)
    while not process.stdout.readline().startswith("epoch"):
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.startswith("mlgraph.mnist: interrupted after ") and len(err.splitlines()) == 1
    assert sorted(os.listdir(tmp_path / "mnist-run")) == ["history.json", "model.npz"]


@pytest.mark.slow
def test_a_warning_as_an_error_is_one_line(start, tmp_path):
    folder = write_data(tmp_path / "bits", train=30)
    images = np.random.default_rng(0).integers(0, 2, (30, HEIGHT, WIDTH), np.uint8)
    write_idx(folder / "train-images-idx3-ubyte", images)
    process = start(data=folder, env={"PYTHONWARNINGS": "error"})
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.startswith("mlgraph.mnist: error: x: bytes are read as byte / 255") and len(err.splitlines()) == 1
