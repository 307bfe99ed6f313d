"""Ctrl-C at a time when it does no harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uninterrupted() -> Iterator[None]:
    """While this is entered, Ctrl-C waits: for writes that belong together, some of which would leave a graph that is none.

    Python runs handlers of signals in its main thread alone, between any two of its instructions.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    signals: list[tuple[Any, ...]] = []
    signal.signal(signal.SIGINT, lambda *what: signals.append(what))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if signals:
            handler(*signals[-1])
