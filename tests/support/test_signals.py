"""`uninterrupted` defers signals of any kind and loses none."""

import contextlib
import signal
from functools import partial
from pathlib import Path

import pytest
from editable import X, Y, everything, network
from struck import interrupted_at

from mlgraph._support import interrupts
from mlgraph._support.interrupts import SIGNALS, Waiting, uninterrupted
from mlgraph.graph import edits

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


def test_uninterrupted_defers_ctrl_c():
    seen = []

    def work():
        with uninterrupted():
            with uninterrupted():
                signal.raise_signal(signal.SIGINT)
                seen.append("inner")
            seen.append("outer")
        seen.append("behind")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert seen == ["inner", "outer"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_works_where_no_handler_can_be_set(monkeypatch, tmp_path):
    """As in a sub-interpreter, which receives no signals."""

    def refuse(*_):
        raise ValueError("signal only works in main thread of the main interpreter")

    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", refuse)
        net = network()
        before = everything(net.graph)
        net.prune(0.5)
        net.undo()
        assert everything(net.graph) == before
        net.fit(X, Y, epochs=1, checkpoint=tmp_path / "run.npz")
    assert (tmp_path / "run.npz").exists() and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handler_may_raise_value_error_during_installation(monkeypatch, tmp_path):
    net, real, came = network(), signal.signal, []

    def late(*_):
        raise ValueError("too late")

    def slow(number, handler):
        if number == signal.SIGINT and not came:
            came.append(number)
            signal.raise_signal(signal.SIGALRM)
        return real(number, handler)

    def work():
        with uninterrupted():
            came.append("work")

    with handled(signal.SIGALRM, late), monkeypatch.context() as patch:
        patch.setattr(signal, "signal", slow)
        for begin in (work, lambda: net.fit(X, Y, epochs=1, checkpoint=tmp_path / "run.npz")):
            came.clear()
            with pytest.raises(ValueError, match="too late"):
                begin()
            assert came == [signal.SIGINT]
    assert not (tmp_path / "run.npz").exists() and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_exceptions_are_not_deferred():
    with pytest.raises(ZeroDivisionError), uninterrupted():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [number for number in SIGNALS if number != signal.SIGINT])
def test_edit_is_complete_or_not_made(monkeypatch, number):
    """For every signal, such as the alarm of a watchdog."""

    def fresh():
        net = network()
        net.fit(X, Y, epochs=1)
        return net

    after = fresh()
    after.prune(0.9)
    with handled(number, end):
        for at in range(1, 20):
            net = fresh()
            before, left = everything(net.graph), [at]

            def struck(real, *arguments, left=left, **more):
                found = real(*arguments, **more)
                left[0] -= 1
                if left[0] == 0:
                    signal.raise_signal(number)
                return found

            for name in ("written", "extend", "edited"):
                monkeypatch.setattr(edits, name, partial(struck, getattr(edits, name)))
            with contextlib.suppress(EndedError):
                net.prune(0.9)
            monkeypatch.undo()
            assert everything(net.graph) in (before, everything(after.graph)) and signal.getsignal(number) is end
            with contextlib.suppress(ValueError):  # there may be nothing to take back
                net.undo()
            assert everything(net.graph) == before
            if left[0] > 0:
                break
        assert at > 7


def test_every_deferred_signal_is_delivered():
    """Even after a handler that raises."""
    came, numbers = [], (signal.SIGUSR1, signal.SIGUSR2)

    def handle(number, frame):
        came.append(number)
        end(number, frame)

    def work():
        with uninterrupted():
            for number in (*numbers, *numbers):
                signal.raise_signal(number)
            assert not came

    with handled(numbers[0], handle), handled(numbers[1], handle):
        with pytest.raises(EndedError):
            work()
        assert came == list(numbers) and all(signal.getsignal(number) is handle for number in numbers)


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

    line, room = 1, Path(interrupts.__file__)
    with handled(signal.SIGTERM, end):
        while interrupted_at(line, wait, room, number, error):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(EndedError):
                signal.raise_signal(signal.SIGTERM)
            line += 1
        assert line > 30


def test_second_signal_during_delivery_is_handled():
    came, line, number = [], 1, signal.SIGUSR1
    with handled(number, lambda *given: came.append(given)):
        while True:
            waiting = Waiting(impatient=True)
            waiting.install([number])
            signal.raise_signal(number)
            assert not came
            there = interrupted_at(line, waiting.hand_on, Path(interrupts.__file__), number)
            waiting.release()
            if not there:
                break
            assert len(came) in (1, 2)
            came.clear()
            line += 1
    assert line > 4
