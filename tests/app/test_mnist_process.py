"""What needs a process of its own: the exit status, streams that are closed or full, and Ctrl-C."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mnist_program import SAVED

import mlgraph


@pytest.fixture
def start(tmp_path, data):
    def start(*words, **options):
        command = [sys.executable, "-m", "mlgraph.mnist", *map(str, words), "--data", str(data)]
        environment = {**os.environ, "PYTHONPATH": str(Path(mlgraph.__file__).parents[1])}
        environment.pop("PYTHONUNBUFFERED", None)  # it would leave nothing in the buffers
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment, cwd=tmp_path, **{**pipes, **options})

    return start


def test_status_and_output_of_a_command(start, tmp_path):
    (tmp_path / os.fsdecode(b"\xff")).mkdir()  # a path may contain bytes that are not text
    process = start("--epochs", 1, "--no-plot", "--out", os.fsdecode(b"\xff"))
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "") and out.splitlines()[-1].startswith("wrote \\udcff/model.npz")
    process = start("evaluate", "none")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2 and err.startswith("mlgraph.mnist: error: argument MODEL: none: cannot be read")


def test_the_package_itself_names_its_application():
    with pytest.raises(SystemExit, match=r"python -m mlgraph.mnist --help"):
        runpy.run_path(Path(mlgraph.__file__).with_name("__main__.py"), run_name="__main__")


def test_a_closed_pipe_is_not_an_error(start, tmp_path):
    process = start("--epochs", 3, "--no-plot", "--json")
    process.stdout.close()
    assert (process.wait(timeout=300), process.stderr.read()) == (141, "")
    process.stderr.close()
    assert sorted(os.listdir(tmp_path / "mnist-run")) == SAVED


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("stream", "status", "message"),
    [
        ("stdout", 1, "mlgraph.mnist: error: [Errno 28] No space left on device: standard output"),
        pytest.param("stderr", 0, None, marks=pytest.mark.slow),
    ],
)
def test_output_to_a_full_disk_does_not_end_the_training(start, tmp_path, stream, status, message):
    with open("/dev/full", "w") as full:
        process = start("--epochs", 3, "--live", "--no-plot", **{stream: full})
        _, err = process.communicate(timeout=300)
    assert sorted(os.listdir(tmp_path / "mnist-run")) == SAVED
    assert process.returncode == status and (message is None or err.splitlines()[-1] == message)


@pytest.mark.parametrize("closed", [(0, 1, 2), *(pytest.param(n, marks=pytest.mark.slow) for n in [(1,), (2,)])])
def test_streams_may_be_closed_from_the_start(start, tmp_path, closed):
    """A service manager may start a program with closed streams."""
    close = {"stdout": None, "stderr": None, "preexec_fn": lambda: [os.close(number) for number in closed]}
    assert start("--epochs", 2, "--no-plot", **close).wait(timeout=300) == 0
    assert sorted(os.listdir(tmp_path / "mnist-run")) == SAVED


def test_ctrl_c_saves_the_network(start, tmp_path):
    def take_signals():  # a shell may have told its children to ignore them
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = start("--epochs", 10**9, "--no-plot", preexec_fn=take_signals)
    while not process.stdout.readline().startswith("epoch"):
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.startswith("mlgraph.mnist: interrupted after ") and len(err.splitlines()) == 1
    assert sorted(os.listdir(tmp_path / "mnist-run")) == SAVED


@pytest.mark.slow
def test_checkpoints_can_be_inspected_while_another_process_trains(start, run):
    """They are replaced atomically, so each is whole at every moment."""
    options = ["--epochs", 10**6, "--hidden", 8, "--sparsity", 0.5, "--checkpoint-every", 0, "--out", "live"]
    seen = set()
    with start(*options, "--quiet", "--no-plot", stderr=subprocess.DEVNULL) as child:
        try:
            while child.poll() is None and len(seen) < 5:
                if Path("live/checkpoint.npz").exists():
                    result = run("inspect", "live/checkpoint.npz", "--no-plot", "--json")
                    assert (result.status, result.err) == (0, "")
                    seen.add(str(result.json["neurons"]))
            assert child.poll() is None
        finally:
            child.kill()
