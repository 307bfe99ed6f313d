"""`uninterrupted` defers signals of any kind and loses none."""

import _signal
import contextlib
import gc
import signal

import numpy as np
import pytest
from editable import X, Y, everything, network

from mlgraph._support.interrupts import SIGNALS, uninterrupted

pytestmark = pytest.mark.usefixtures("python_handles_ctrl_c")


class EndedError(Exception):
    """By a handler."""


def end(number, frame):
    raise EndedError(int(number))


@contextlib.contextmanager
def handled(number, handler):
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_every_kind_of_signal_is_deferred_and_none_is_lost(number):
    """To the end of the outermost block, and though the handler of another signal raises before."""
    came, other = [], signal.SIGUSR1 if number != signal.SIGUSR1 else signal.SIGUSR2

    def handle(number, frame):
        came.append(number)
        end(number, frame)

    def work():
        with uninterrupted():
            with uninterrupted():
                for each in (other, number, other, number):
                    signal.raise_signal(each)
            assert not came

    with handled(number, handle), handled(other, handle):
        with pytest.raises(EndedError):
            work()
        assert came == [other, number] and signal.getsignal(number) is handle


def test_works_where_no_handler_can_be_set(monkeypatch, tmp_path):
    """As in a sub-interpreter, which receives no signals."""

    def refuse(*_):
        raise ValueError("signal only works in main thread of the main interpreter")

    net = network()
    before = everything(net.graph)
    with monkeypatch.context() as patch:
        patch.setattr(_signal, "signal", refuse)
        net.prune(0.5)
        net.undo()
        assert everything(net.graph) == before
        net.fit(X, Y, epochs=1, checkpoint=tmp_path / "run.npz")
    assert (tmp_path / "run.npz").exists() and signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("error", [ValueError, EndedError])  # ValueError means, too, that no handler can be set
@pytest.mark.parametrize("within", ["edit", "run"])
def test_another_handler_may_raise_during_installation(monkeypatch, tmp_path, within, error):
    net, real = network(), _signal.signal

    def late(*_):
        raise error("too late")

    def slow(number, handler):
        before = real(number, handler)
        if getattr(handler, "impatient", None) == (within == "run"):
            monkeypatch.undo()
            signal.raise_signal(signal.SIGALRM)
        return before

    with handled(signal.SIGALRM, late):
        monkeypatch.setattr(_signal, "signal", slow)
        with pytest.raises(error, match="too late"):
            net.prune(0.5) if within == "edit" else net.fit(X, Y, epochs=1, checkpoint=tmp_path / "run.npz")
    assert net.n_edges == network().n_edges and not (tmp_path / "run.npz").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handler_installed_meanwhile_stays():
    with handled(signal.SIGUSR1, lambda number, frame: None):
        with uninterrupted():
            signal.signal(signal.SIGUSR1, end)
        assert signal.getsignal(signal.SIGUSR1) is end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_at_any_change_of_a_handler_leaves_none_behind(monkeypatch, number):
    """Its handler raises while handlers are installed or restored."""

    def wait():
        with uninterrupted():
            pass

    def strike(*arguments):
        nonlocal left
        left -= 1
        if left == 0:
            signal.raise_signal(number)
        return real(*arguments)

    real, at = _signal.signal, 0
    with handled(signal.SIGTERM, end), handled(signal.SIGINT, end):
        before = [signal.getsignal(number) for number in SIGNALS]
        while at < 100:
            at += 1
            left = at
            monkeypatch.setattr(_signal, "signal", strike)
            with contextlib.suppress(EndedError):
                wait()
            monkeypatch.undo()
            assert [signal.getsignal(number) for number in SIGNALS] == before
            if left > 0:
                break
        assert at == 5  # two handlers, installed and restored; the fifth call does not take place


@pytest.fixture
def without_garbage_collection():
    """Hypothesis is called when garbage is collected, and Python ignores what a signal raises there."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_garbage_collection")
def test_timeouts_during_edits_leave_no_handler():
    """A timer strikes at random moments; three thousand handlers left behind would be too many for Python's stack."""
    neuron, struck, random = network().layers[0][0], 0, np.random.default_rng(0)
    with handled(signal.SIGALRM, end):
        before = [signal.getsignal(number) for number in SIGNALS]
        for seconds in random.uniform(2e-5, 4e-4, 4000).tolist():
            try:
                signal.setitimer(signal.ITIMER_REAL, seconds)
                while True:
                    neuron.activation = "relu"
            except EndedError:
                struck += 1
        assert [signal.getsignal(number) for number in SIGNALS] == before
    assert struck == 4000
