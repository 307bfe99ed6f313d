"""Ctrl-C, and other signals, at a time when they do no harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = [
    getattr(signal, f"SIG{name}")
    for name in ("INT", "TERM", "HUP", "QUIT", "ALRM", "VTALRM", "PROF", "XCPU", "USR1", "USR2")
    if hasattr(signal, f"SIG{name}")
]
"""Those that wait: of Ctrl-C, of whoever ends a process or a piece of work that takes too long. Their handlers may raise."""


class _Waiting:
    """In place of handlers: keeps what comes while `holds`, and else hands it on, so that it may be left behind by an error."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[..., Any]] = {}
        self.came: dict[int, FrameType | None] = {}
        self.holds = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.holds:
            self.came[number] = frame
        else:
            self.handlers[number](number, frame)

    def release(self) -> None:
        """Bring the handlers back, and have them handle what came: each, though one before it raises."""
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


@contextmanager
def uninterrupted() -> Iterator[None]:
    """While this is entered, signals wait: for writes that belong together, some of which would leave a graph that is none.

    Python runs handlers of signals in its main thread alone, between any two of its instructions.
    """
    waiting = _Waiting()
    try:
        if threading.current_thread() is threading.main_thread():
            with suppress(ValueError):  # in an interpreter beside the main one, which no signal reaches
                for number in SIGNALS:
                    if callable(handler := signal.getsignal(number)):
                        waiting.handlers[number] = handler
                        signal.signal(number, waiting)
            waiting.holds = True
        yield
    finally:
        waiting.release()
