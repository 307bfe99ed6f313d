"""Defers Ctrl-C and other signals until handling them does no harm."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = [
    getattr(signal, f"SIG{name}")
    for name in ("INT", "TERM", "HUP", "QUIT", "ALRM", "VTALRM", "PROF", "XCPU", "USR1", "USR2")
    if hasattr(signal, f"SIG{name}")
]
"""The signals that are deferred: those whose handlers commonly raise, to end a process or work that takes too long."""


class Waiting:
    """A signal handler that defers signals while `holds` is set and forwards them otherwise.

    Because it forwards, it does no harm if an error leaves it installed.

    If `impatient`, the second arrival of a signal sets `was_urged`: every signal is then forwarded
    at once, until `hand_on` is called. In a forked child, `was_urged` stays set.
    """

    def __init__(self, *, impatient: bool = False) -> None:
        self.handlers: dict[int, Callable[..., Any]] = {}
        self.came: dict[int, FrameType | None] = {}
        self.holds = False
        self.impatient, self.was_urged = impatient, False
        self.thread = threading.get_ident()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Defer a signal or forward it."""
        self.was_urged = self.was_urged or (self.impatient and number in self.came)
        if self.holds and not self.was_urged:
            self.came[number] = frame
        else:
            self.came.pop(number, None)
            self.handlers[number](number, frame)

    def install(self, signals: Iterable[int]) -> None:
        """Replace the handlers of these signals and begin to defer; does nothing outside the main thread."""
        if threading.current_thread() is threading.main_thread():
            self.holds = True
            for number in signals:
                if callable(handler := signal.getsignal(number)):
                    self.handlers[number] = handler
                    if not handles(number, self):
                        break

    def release(self) -> None:
        """Restore the handlers, then deliver the deferred signals as `hand_on` does."""
        self.holds = False
        try:
            for number, handler in self.handlers.items():
                if signal.getsignal(number) is self:
                    signal.signal(number, handler)
        finally:
            self.hand_on()

    def hand_on(self) -> None:
        """Deliver every deferred signal, even if the handler of an earlier one raises."""
        self.was_urged = self.was_urged and not self.holds  # stays set in a forked child
        if self.came:
            came, self.came = self.came, {}  # a signal that arrives from now on neither joins these nor replaces one
            self._handle(list(came.items()))

    def _handle(self, came: list[tuple[int, FrameType | None]]) -> None:
        if came:
            try:
                self.handlers[came[0][0]](*came[0])
            finally:
                self._handle(came[1:])


def handles(number: int, handler: Callable[..., Any]) -> bool:
    """Install a handler for a signal, and return whether that was possible.

    It is not in a sub-interpreter, which receives no signals.
    """
    before = signal.getsignal(number)
    try:
        signal.signal(number, handler)
    except ValueError:
        try:  # A sub-interpreter raises again. If it does not, another signal's handler raised the ValueError.
            signal.signal(number, before)
        except ValueError:
            return False
        raise
    return True


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer signals during a ``with`` block, so that a group of writes is done completely or not at all.

    Python runs signal handlers in the main thread, between any two bytecodes; one that raises would
    otherwise leave a graph half written.
    """
    waiting = Waiting()
    try:
        waiting.install(SIGNALS)
        yield
    finally:
        waiting.release()


def _after_fork() -> None:
    # The child has only the thread that forked: nothing would deliver signals deferred by another
    # thread. Nor may the child ever reach the end of a step, at which an impatient handler delivers
    # them.
    for number in SIGNALS:
        handler = signal.getsignal(number)
        while isinstance(handler, Waiting) and (handler.impatient or handler.thread != threading.get_ident()):
            handler.was_urged, handler.holds = True, False
            handler = handler.handlers[number]
            signal.signal(number, handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
