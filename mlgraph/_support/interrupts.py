"""Defers Ctrl-C and other signals until handling them does no harm."""

from __future__ import annotations

import os
import signal
import threading

from mlgraph_ext._interrupts import Waiting

__all__ = ["SIGNALS", "Waiting", "uninterrupted"]

SIGNALS = [
    getattr(signal, f"SIG{name}")
    for name in ("INT", "TERM", "HUP", "QUIT", "ALRM", "VTALRM", "PROF", "XCPU", "USR1", "USR2")
    if hasattr(signal, f"SIG{name}")
]
"""The signals that are deferred: those whose handlers commonly raise, to end a process or work that takes too long."""


def uninterrupted() -> Waiting:
    """Defer signals during a ``with`` block, so that a group of writes is done completely or not at all.

    Python runs signal handlers in the main thread, between any two bytecodes; one that raises would
    otherwise leave a graph half written.
    """
    return Waiting(SIGNALS)


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
