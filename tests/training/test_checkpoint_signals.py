"""Signals during a run with a checkpoint: it is saved between two steps and resumes to the same bits."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import checkpoint_runs
import pytest
from checkpoint_runs import bits, fit, network, stop_at, whole
from struck import interrupted_at

import mlgraph
from mlgraph._support import interrupts
from mlgraph.models import running
from mlgraph.training import loop

pytestmark = pytest.mark.usefixtures("small_pieces")


def interrupts_at(count, times=1):
    calls = iter(range(1, 10**6))

    def callback(event):
        if next(calls) == count:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return callback


@pytest.fixture
def handler():
    """Install Python's own handler, and check afterwards that it is still there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def sigterm():
    """Make SIGTERM raise at once: a checkpoint defers only Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("count", [1, 22, 72])
@pytest.mark.parametrize("how", [interrupts_at, lambda count: stop_at(count, KeyboardInterrupt)])
def test_ctrl_c_saves_a_checkpoint(path, handler, count, how):
    net = network()
    with pytest.raises(KeyboardInterrupt):
        fit(net, momentum=0.0, checkpoint=path, checkpoint_every=1e6, callback=how(count))
    assert mlgraph.load(path).graph.parameters.tobytes() == net.graph.parameters.tobytes()
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


def three_times():
    signal.raise_signal(signal.SIGINT)
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("callback", [interrupts_at(5, 2), lambda _: three_times()], ids=["twice", "three times"])
def test_second_ctrl_c_does_not_wait_or_save(path, handler, callback):
    with pytest.raises(KeyboardInterrupt):
        fit(network(), checkpoint=path, checkpoint_every=1e6, callback=callback)
    assert not path.exists()


@pytest.mark.parametrize(
    "strike", [three_times, lambda: signal.raise_signal(signal.SIGTERM)], ids=["Ctrl-C", "SIGTERM"]
)
def test_nothing_is_saved_within_a_step(path, handler, sigterm, monkeypatch, strike):
    """The steps were taken but are not in the history yet."""
    real, pieces = running.execute, iter(range(5))

    def run(*given, **options):
        found = real(*given, **options)
        if next(pieces, None) == 4:
            strike()
        return found

    monkeypatch.setattr("mlgraph.training.fitting.execute", run)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), checkpoint=path, checkpoint_every=1e6, callback=lambda _: None)
    assert not path.exists()


@pytest.mark.parametrize("where", ["fsync", "link", "replace"])
def test_ctrl_c_twice_during_a_write_leaves_a_usable_checkpoint(path, handler, monkeypatch, where):
    real, calls = getattr(os, where), iter(range(5))

    def interrupted(*given):
        done = real(*given)
        if next(calls, None) == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return done

    monkeypatch.setattr(os, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), momentum=0.0, checkpoint=path, checkpoint_every=0)
    monkeypatch.undo()
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.previous"}
    net = network()
    fit(net, momentum=0.0, checkpoint=path, resume=True)
    assert bits(net) == whole("sgd")


@pytest.mark.slow
def test_signal_at_any_line_leaves_no_wrong_checkpoint(path, sigterm):
    """There is no checkpoint, or one that resumes to the same bits."""
    line, saved, lost = 1, 0, 0

    def run():
        fit(network(), momentum=0.0, checkpoint=path, checkpoint_every=1e6, callback=lambda _: None)

    while interrupted_at(line, run, Path(loop.__file__), signal.SIGTERM):
        saved, lost = saved + path.exists(), lost + (not path.exists())
        if path.exists():
            net = network()
            fit(net, momentum=0.0, checkpoint=path, resume=True)
            assert bits(net) == whole("sgd"), line
            path.unlink()
        line += 29
    assert saved > 9 and lost > 9


@pytest.mark.slow
def test_signal_at_any_line_restores_the_ctrl_c_handler(path, sigterm):
    line, before = 1, signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while interrupted_at(
            line, lambda: fit(network(), epochs=1, checkpoint=path), Path(interrupts.__file__), signal.SIGTERM
        ):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            line += 1
        assert line > 9
    finally:
        signal.signal(signal.SIGINT, before)


def test_handlers_of_the_user_are_called_and_ignored_signals_stay_ignored(path):
    caught = []
    before = signal.signal(signal.SIGINT, lambda *arguments: caught.append(arguments))
    try:
        net = network()
        fit(net, momentum=0.0, checkpoint=path, callback=interrupts_at(5))
        assert bits(net) == whole("sgd") and [number for number, _ in caught] == [signal.SIGINT]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        fit(net, momentum=0.0, checkpoint=path, callback=interrupts_at(5))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_wins_over_an_error_in_the_callback(path, handler):
    def fail(_):
        signal.raise_signal(signal.SIGINT)
        raise KeyError

    with pytest.raises(KeyboardInterrupt) as error:
        fit(network(), checkpoint=path, checkpoint_every=1e6, callback=fail)
    assert isinstance(error.value.__context__, KeyError) and not path.exists()


def test_checkpoint_in_another_thread(path):
    net = network()
    thread = threading.Thread(
        target=fit, args=[net], kwargs={"momentum": 0.0, "checkpoint": path, "checkpoint_every": 0}
    )
    thread.start()
    thread.join()
    assert bits(net) == whole("sgd")


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import checkpoint_runs as t
from mlgraph.training import fitting

signal.signal(signal.SIGINT, signal.default_int_handler)
name, path, out, left = *sys.argv[1:4], int(sys.argv[4])
make, y, options = t.RUNS[name]
real = fitting.execute


def run(self, examples, nodes=None, **more):
    global left
    found = real(self, examples, nodes, **more)
    left -= "steps" in more
    if left == 0:
        left = -1
        print("swept", flush=True)
        sys.stdin.readline()
    return found


model, fitting.execute = make(), run
try:
    t.fit(model, y, epochs=30, checkpoint=path, checkpoint_every=1e6, resume=True, n_threads=2, **options)
    Path(out).write_text(repr(t.bits(model)))
except KeyboardInterrupt:
    sys.exit(3)
"""


@pytest.mark.parametrize("name", ["sgd", pytest.param("adam, dropped edges", marks=pytest.mark.slow)])
def test_interrupted_processes_resume_to_same_bits(name, tmp_path):
    """Ctrl-C comes at the end of a kernel call."""
    path, out = tmp_path / "run.npz", tmp_path / "bits"
    code = INTERRUPTED.format(folder=os.path.dirname(checkpoint_runs.__file__))
    for sweeps in (1, 5, -1):
        command = [sys.executable, "-c", code, name, str(path), str(out), str(sweeps)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            if sweeps > 0:
                assert child.stdout.readline() == b"swept\n"
                child.send_signal(signal.SIGINT)
            child.stdin.close()
            assert child.wait(timeout=600) == (3 if sweeps > 0 else 0)
    assert out.read_text() == repr(whole(name, epochs=30))
