"""Ctrl-C, and other signals, at a time when they do no harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

SIGNALS = [
    getattr(signal, f"SIG{name}")
    for name in ("INT", "TERM", "HUP", "QUIT", "ALRM", "VTALRM", "PROF", "USR1", "USR2") if hasattr(signal, f"SIG{name}")
]  # fmt: skip
"""Those whose handlers may raise: of Ctrl-C, of whoever ends a process or a piece of work that takes too long."""


@contextmanager
def uninterrupted() -> Iterator[None]:
    """While this is entered, signals wait: for writes that belong together, some of which would leave a graph that is none.

    Python runs handlers of signals in its main thread alone, between any two of its instructions.
    """
    with ExitStack() as waiting:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if callable(handler := signal.getsignal(number)):
                    waiting.enter_context(_waits(number, handler))
        yield


@contextmanager
def _waits(number: int, handler: Callable[..., Any]) -> Iterator[None]:
    came: list[tuple[Any, ...]] = []
    signal.signal(number, lambda *what: came.append(what))
    try:
        yield
    finally:
        signal.signal(number, handler)
        if came:
            handler(*came[-1])
