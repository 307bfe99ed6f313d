"""Ctrl-C, and other signals, at a time when they do no harm."""

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
"""The signals that wait: Ctrl-C, and those that end a process or work that takes too long. Their handlers may raise."""


class Waiting:
    """In place of handlers: keeps signals while `holds`, else hands them on, so that an error may leave it installed.

    An `impatient` one is urged by a signal that comes again while the first waits: it then hands on whatever comes, until
    `hand_on` is called; in a forked child it always does. `was_urged` says so.
    """

    def __init__(self, *, impatient: bool = False) -> None:
        self.handlers: dict[int, Callable[..., Any]] = {}
        self.came: dict[int, FrameType | None] = {}
        self.holds = False
        self.impatient, self.was_urged = impatient, False
        self.thread = threading.get_ident()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Keep a signal, or hand it on."""
        self.was_urged = self.was_urged or (self.impatient and number in self.came)
        if self.holds and not self.was_urged:
            self.came[number] = frame
        else:
            self.came.pop(number, None)
            self.handlers[number](number, frame)

    def install(self, signals: Iterable[int]) -> None:
        """Take the place of the handlers of these signals, in the main thread, and keep what comes."""
        if threading.current_thread() is threading.main_thread():
            self.holds = True
            for number in signals:
                if callable(handler := signal.getsignal(number)):
                    self.handlers[number] = handler
                    if not handles(number, self):
                        break

    def release(self) -> None:
        """Restore the handlers, and have each handle its signal if it came, even if one before it raises."""
        self.holds = False
        try:
            for number, handler in self.handlers.items():
                if signal.getsignal(number) is self:
                    signal.signal(number, handler)
        finally:
            self.hand_on()

    def hand_on(self) -> None:
        """Have each signal that came handled, even if one before it raises."""
        self.was_urged = self.was_urged and not self.holds  # in a forked child for good
        if self.came:
            came, self.came = self.came, {}  # what comes meanwhile is not among these, nor does it take one away
            self._handle(list(came.items()))

    def _handle(self, came: list[tuple[int, FrameType | None]]) -> None:
        if came:
            try:
                self.handlers[came[0][0]](*came[0])
            finally:
                self._handle(came[1:])


def handles(number: int, handler: Callable[..., Any]) -> bool:
    """Whether a signal has this handler from now on: not in an interpreter beside the main one, which no signal reaches."""
    before = signal.getsignal(number)
    try:
        signal.signal(number, handler)
    except ValueError:
        try:  # `signal` raises it again there; a handler that came in between and raised it does not
            signal.signal(number, before)
        except ValueError:
            return False
        raise
    return True


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Make signals wait within a ``with`` block: for writes that belong together, since a part of them would break a graph.

    Python runs handlers of signals only in its main thread, between any two of its instructions.
    """
    waiting = Waiting()
    try:
        waiting.install(SIGNALS)
        yield
    finally:
        waiting.release()


def _after_fork() -> None:
    # In the child nobody hands on what waits for another thread; and it may never come to the end of a step.
    for number in SIGNALS:
        handler = signal.getsignal(number)
        while isinstance(handler, Waiting) and (handler.impatient or handler.thread != threading.get_ident()):
            handler.was_urged, handler.holds = True, False
            handler = handler.handlers[number]
            signal.signal(number, handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
