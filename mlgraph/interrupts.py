"""Ctrl-C, and other signals, at a time when they do no harm."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = [
    getattr(signal, f"SIG{name}")
    for name in ("INT", "TERM", "HUP", "QUIT", "ALRM", "VTALRM", "PROF", "XCPU", "USR1", "USR2")
    if hasattr(signal, f"SIG{name}")
]
"""The signals that wait: Ctrl-C, and those that end a process or work that takes too long. Their handlers may raise."""


class _Waiting:
    """In place of handlers: keeps signals while `holds`, else hands them on, so that an error may leave it installed."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[..., Any]] = {}
        self.came: dict[int, FrameType | None] = {}
        self.holds = False
        self.thread = threading.get_ident()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.holds:
            self.came[number] = frame
        else:
            self.handlers[number](number, frame)

    def release(self) -> None:
        """Restore the handlers, and have each handle its signal if it came, even if one before it raises."""
        self.holds = False
        try:
            for number, handler in self.handlers.items():
                if signal.getsignal(number) is self:
                    signal.signal(number, handler)
        finally:
            self._hand_on()

    def _hand_on(self) -> None:
        if self.came:
            number = next(iter(self.came))
            try:
                self.handlers[number](number, self.came.pop(number))
            finally:
                self._hand_on()


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
    waiting = _Waiting()
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if callable(handler := signal.getsignal(number)):
                    waiting.handlers[number] = handler
                    if not handles(number, waiting):
                        break
            waiting.holds = True
        yield
    finally:
        waiting.release()


def _after_fork() -> None:
    # Of a fork by another thread, which is the child's main thread now: nobody there would hand on what waits.
    for number in SIGNALS:
        handler = signal.getsignal(number)
        while isinstance(handler, _Waiting) and handler.thread != threading.get_ident():
            handler = handler.handlers[number]
            signal.signal(number, handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
