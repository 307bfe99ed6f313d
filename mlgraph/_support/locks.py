"""Threads that share a graph take turns, and one of them trains it; in a forked child no other has the lock, or trains."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakSet, ref

__all__ = ["Shared", "cached_property", "locked"]

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Shared")


class _Trainer:
    """Whoever trains a graph, for as long as this lives."""


class Shared:
    """What several threads may use: the base of `Graph`."""

    lock: threading.RLock
    """The thread that holds it has the graph alone; it may take the lock again."""

    def init_lock(self) -> None:
        """Begin with nobody who holds the lock or trains."""
        self.lock, self._training = threading.RLock(), ref(_Trainer())  # which is gone
        _all.add(self)

    def _in_child(self) -> None:
        """A forked child has only the thread that forked: take the lock from another, which would hold it for ever."""
        self._training = ref(_Trainer())
        if self.lock.acquire(blocking=False):
            self.lock.release()
        else:
            self.lock = threading.RLock()
            self.lock_was_lost()

    def lock_was_lost(self) -> None:
        """Whoever held the lock, and has the graph as it was then, does not come back."""

    @property
    def is_training(self) -> bool:
        return self._training() is not None

    def require_not_training(self, what: str) -> None:
        """A RuntimeError about `what` if the graph is being trained; while the caller holds the lock, no run can begin."""
        if self.is_training:
            raise RuntimeError(f"{what}: expected a network that is not being trained, got one that is")

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """Within this ``with`` block, nothing else may train the graph.

        Raises
        ------
        RuntimeError
            If the graph is being trained already.
        """
        trainer = _Trainer()
        try:
            with self.lock:
                if self.is_training:
                    expected = "a graph that is not being trained"
                    raise RuntimeError(
                        f"fit: expected {expected}, got one that is: by another thread, or by this run itself"
                    )
                self._training = ref(trainer)
            yield
        finally:
            # If Ctrl-C strikes on this line, the traceback keeps `trainer`, and the graph counts as trained until it is gone.
            del trainer


def locked(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A method that takes its turn when threads share the graph."""

    @functools.wraps(method)
    def in_turn(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            return method(self, *args, **kwargs)

    return in_turn


class cached_property(functools.cached_property[T]):
    """As in Python 3.12: before, all objects of a class shared a lock, which could stay locked in a forked child."""

    def __init__(self, func: Callable[[Any], T]) -> None:
        super().__init__(func)
        self.lock = nullcontext()


_all: WeakSet[Shared] = WeakSet()
"""All graphs, since a forked child finds their locks as they were."""


def _after_fork() -> None:
    for shared in _all:
        shared._in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
