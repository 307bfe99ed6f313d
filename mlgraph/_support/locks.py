"""The lock of a graph that threads share, and the mark that one of them trains it.

A forked child inherits neither a lock held by another thread nor a training run.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar
from weakref import WeakSet, ref

from mlgraph._support.attributes import Declared

__all__ = ["Shared", "cached_property", "locked"]

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Shared")


class _Trainer:
    """A token: a graph is being trained for as long as its token is alive."""

    def __init__(self, keeps_options: bool = False) -> None:
        self.keeps_options = keeps_options


_NO_TRAINER = ref(_Trainer())  # a dead reference


class Shared(Declared):
    """Base class of `Graph`: an object that several threads may use."""

    lock: threading.RLock
    """A reentrant lock: the thread that holds it is the only one to use the graph."""
    _training: ref[_Trainer]

    def init_lock(self) -> None:
        """Create the lock, unlocked, and mark the graph as not being trained."""
        vars(self).update(lock=threading.RLock(), _training=_NO_TRAINER)  # faster than assignments
        _all.add(self)

    def _in_child(self) -> None:
        """Replace a lock held by a thread that does not exist in a forked child, which would never release it."""
        self._training = _NO_TRAINER
        if self.lock.acquire(blocking=False):
            self.lock.release()
        else:
            self.lock = threading.RLock()
            self.lock_was_lost()

    def lock_was_lost(self) -> None:
        """Repair the object in a forked child: the thread that held the lock may have been in the middle of a write."""

    @property
    def is_locked_here(self) -> bool:
        """Whether this thread holds the lock, so that other threads would wait for it."""
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]

    @property
    def is_training(self) -> bool:
        """Whether a run is training the graph."""
        return self._training() is not None

    def require_not_training(self, what: str) -> None:
        """Raise a RuntimeError that begins with `what` if the graph is being trained.

        The caller holds the lock, so no run can begin after the check.
        """
        if self.is_training:
            raise RuntimeError(f"{what}: not possible while the network is being trained")

    def require_open_options(self, what: str) -> None:
        """Raise a RuntimeError that begins with `what` if a run trains the graph that keeps its options."""
        trainer = self._training()
        if trainer is not None and trainer.keeps_options:
            raise RuntimeError(f"{what}: not possible during a run with a checkpoint, which would be resumed without")

    @contextmanager
    def in_training(self, *, keeps_options: bool = False) -> Iterator[None]:
        """Mark the graph as being trained during a ``with`` block, perhaps by a run that keeps its options.

        Raises
        ------
        RuntimeError
            If the graph is being trained already.
        """
        trainer = _Trainer(keeps_options)
        try:
            with self.lock:
                if self.is_training:
                    raise RuntimeError("fit: the graph is already being trained, by another thread or an outer run")
                self._training = ref(trainer)
            yield
        finally:
            # If Ctrl-C arrives on this line, the graph counts as being trained until the traceback,
            # which keeps `trainer` alive, is gone.
            del trainer


def locked(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Decorate a method to hold the lock of its object."""

    @functools.wraps(method)
    def with_lock(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            return method(self, *args, **kwargs)

    return with_lock


class cached_property(functools.cached_property[T]):
    """`functools.cached_property` without a lock, as since Python 3.12.

    Earlier versions share one lock among all objects of a class, which could stay locked in a
    forked child.
    """

    if not TYPE_CHECKING:  # the base class has the types

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            value = vars(instance)[self.attrname] = self.func(instance)
            return value


_all: WeakSet[Shared] = WeakSet()
"""All graphs, whose locks a forked child must check."""


def _after_fork() -> None:
    for shared in _all:
        shared._in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
