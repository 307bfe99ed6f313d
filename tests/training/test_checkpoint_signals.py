"""Signals during a run with a checkpoint: it is saved between two steps and resumes to the same bits."""

import itertools
import os
import signal
import threading
from pathlib import Path

import pytest
from checkpoint_runs import bits, fit, network, resumed, stop_at, whole
from struck import interrupted_at

import mlgraph
from mlgraph.models import running
from mlgraph.training import loop

pytestmark = pytest.mark.usefixtures("small_pieces", "python_handles_ctrl_c")


def ctrl_c(times=1):
    """Send SIGINT several times, each even if the one before raised."""
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        if times > 1:
            ctrl_c(times - 1)


def interrupts_at(count, times=1):
    calls = itertools.count(1)
    return lambda _: ctrl_c(times) if next(calls) == count else None


@pytest.fixture
def sigterm():
    """Make SIGTERM raise at once: a checkpoint defers only Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def after_sweep(monkeypatch):
    """A function that chooses what happens when the fifth kernel call ends, before its steps are recorded."""

    def choose(what):
        real, calls = running.execute, itertools.count(1)

        def run(*given, **options):
            found = real(*given, **options)
            if next(calls) == 5:
                what()
            return found

        monkeypatch.setattr("mlgraph.training.run.execute", run)

    return choose


@pytest.mark.parametrize("count", [1, 22, 72])
@pytest.mark.parametrize("how", [interrupts_at, lambda count: stop_at(count, KeyboardInterrupt)])
def test_ctrl_c_saves_a_checkpoint(path, count, how):
    net = network()
    with pytest.raises(KeyboardInterrupt):
        fit(net, checkpoint=path, checkpoint_every=1e6, callbacks=[how(count)])
    assert mlgraph.load(path).graph.parameters.tobytes() == net.graph.parameters.tobytes()
    assert bits(resumed(path, net)) == whole()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_within_a_step_waits_for_its_end(path, after_sweep):
    after_sweep(ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), checkpoint=path, checkpoint_every=1e6, callbacks=[lambda _: None])
    assert bits(resumed(path)) == whole()


@pytest.mark.parametrize("strike", [lambda: ctrl_c(3), lambda: signal.raise_signal(signal.SIGTERM)])
def test_nothing_is_saved_within_a_step(path, sigterm, after_sweep, strike):
    """The steps were taken but are not in the history yet."""
    after_sweep(strike)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), checkpoint=path, checkpoint_every=1e6, callbacks=[lambda _: None])
    assert not path.exists() and signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("times", [2, 3])
def test_second_ctrl_c_does_not_wait_or_save(path, times):
    with pytest.raises(KeyboardInterrupt):
        fit(network(), checkpoint=path, checkpoint_every=1e6, callbacks=[interrupts_at(5, times)])
    assert not path.exists()


@pytest.mark.parametrize("where", ["fsync", "link", "replace"])
def test_ctrl_c_twice_during_a_write_leaves_a_usable_checkpoint(path, monkeypatch, where):
    real, calls = getattr(os, where), itertools.count(1)

    def interrupted(*given):
        real(*given)
        if next(calls) == 5:
            ctrl_c(2)

    monkeypatch.setattr(os, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), checkpoint=path, checkpoint_every=0)
    monkeypatch.setattr(os, where, real)
    assert sorted(os.listdir(path.parent)) == ["run.npz", "run.npz.previous"]
    assert bits(resumed(path)) == whole()


@pytest.mark.slow
def test_signal_at_any_line_leaves_no_wrong_checkpoint(path, sigterm):
    """There is no checkpoint, or one that resumes to the same bits."""
    saved = lost = 0

    def run():
        fit(network(), checkpoint=path, checkpoint_every=1e6, callbacks=[lambda _: None])

    for line in itertools.count(1, 67):
        if not interrupted_at(line, run, Path(loop.__file__), signal.SIGTERM):
            break
        saved, lost = saved + path.exists(), lost + (not path.exists())
        if path.exists():
            assert bits(resumed(path)) == whole(), line
            path.unlink()
    assert saved > 3 and lost > 3


def test_handlers_of_the_user_are_called_and_ignored_signals_stay_ignored(path):
    caught = []
    signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    net = network()
    fit(net, checkpoint=path, callbacks=[interrupts_at(5)])
    assert bits(net) == whole() and caught == [signal.SIGINT]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fit(net, checkpoint=path, callbacks=[interrupts_at(5)])
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_ctrl_c_wins_over_an_error_in_the_callback(path):
    def fail(_):
        ctrl_c()
        raise KeyError

    with pytest.raises(KeyboardInterrupt) as error:
        fit(network(), checkpoint=path, checkpoint_every=1e6, callbacks=[fail])
    assert isinstance(error.value.__context__, KeyError) and not path.exists()


def test_checkpoint_in_another_thread(path):
    net = network()
    thread = threading.Thread(target=fit, args=[net], kwargs={"checkpoint": path, "checkpoint_every": 0})
    thread.start()
    thread.join()
    assert bits(net) == whole()
