"""`uninterrupted` defers signals of any kind and loses none."""

import contextlib
import itertools
import signal
from pathlib import Path

import pytest
from editable import X, Y, everything, network
from struck import interrupted_at

from mlgraph._support import interrupts
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
        patch.setattr(signal, "signal", refuse)
        net.prune(0.5)
        net.undo()
        assert everything(net.graph) == before
        net.fit(X, Y, epochs=1, checkpoint=tmp_path / "run.npz")
    assert (tmp_path / "run.npz").exists() and signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("error", [ValueError, EndedError])  # ValueError means, too, that no handler can be set
@pytest.mark.parametrize("within", ["edit", "run"])
def test_another_handler_may_raise_during_installation(monkeypatch, tmp_path, within, error):
    net, real = network(), signal.signal

    def late(*_):
        raise error("too late")

    def slow(number, handler):
        before = real(number, handler)
        if getattr(handler, "impatient", None) == (within == "run"):
            monkeypatch.undo()
            signal.raise_signal(signal.SIGALRM)
        return before

    with handled(signal.SIGALRM, late):
        monkeypatch.setattr(signal, "signal", slow)
        with pytest.raises(error, match="too late"):
            net.prune(0.5) if within == "edit" else net.fit(X, Y, epochs=1, checkpoint=tmp_path / "run.npz")
    assert net.n_edges == network().n_edges and not (tmp_path / "run.npz").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handler_installed_meanwhile_stays():
    with handled(signal.SIGUSR1, lambda number, frame: None):
        with uninterrupted():
            signal.signal(signal.SIGUSR1, end)
        assert signal.getsignal(signal.SIGUSR1) is end


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, EndedError), (signal.SIGINT, KeyboardInterrupt)])
def test_signal_during_installation_or_release_loses_no_other(number, error):
    """The other handler raises, at any line."""

    def wait():
        with uninterrupted():
            pass

    with handled(signal.SIGTERM, end):
        for line in itertools.count(1):
            if not interrupted_at(line, wait, Path(interrupts.__file__), number, error):
                break
            for other, its_error in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, EndedError)):
                with pytest.raises(its_error):
                    signal.raise_signal(other)
        assert line > 30
