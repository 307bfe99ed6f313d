"""Threads that share a graph take turns, and one of them trains it: its lock, and the decorators of its methods."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakSet, ref

if TYPE_CHECKING:
    from mlgraph.graph import Graph

__all__ = ["Shared", "adds_nodes", "cached_property", "locked"]

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Shared")


class _Run:
    """Whoever trains a graph, for as long as this lives."""


class Shared:
    """What several threads may use: the base of `Graph`."""

    lock: threading.RLock
    """The thread that holds it has the graph alone; it may take the lock again."""

    def _unlock(self) -> None:
        """Begin with nobody who holds the lock or trains."""
        self.lock, self._training = threading.RLock(), ref(_Run())  # which is over
        _all.add(self)

    def _in_child(self) -> None:
        """A forked child has only the thread that forked: take the lock from another, which would hold it for ever."""
        self._training = ref(_Run())
        if self.lock.acquire(blocking=False):
            self.lock.release()
        else:
            self.lock = threading.RLock()
            self._left()

    def _left(self) -> None:
        """Whoever held the lock, and has the graph as it was then, does not come back."""

    @property
    def _is_training(self) -> bool:
        return self._training() is not None

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """Within this ``with`` block, nothing else may train the graph.

        Raises
        ------
        RuntimeError
            If the graph is being trained already.
        """
        run = _Run()
        try:
            with self.lock:
                if self._is_training:
                    raise RuntimeError("the graph is being trained already: by another thread, or by who called this callback")
                self._training = ref(run)
            yield
        finally:
            del run  # a Ctrl-C that strikes right here, or as contextlib comes here, keeps it as long as its traceback lives


def locked(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A method that takes its turn when threads share the graph."""

    @functools.wraps(method)
    def in_turn(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            return method(self, *args, **kwargs)

    return in_turn


def adds_nodes(method: Callable[Concatenate[Graph, P], T]) -> Callable[Concatenate[Graph, P], T]:
    """A method that adds nodes: it takes its turn; an exception within it, even Ctrl-C or no memory, leaves no new node."""

    @functools.wraps(method)
    def whole_or_not(self: Graph, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            lengths, edits = [len(column) for column in self._columns()], self._n_edits
            try:
                return method(self, *args, **kwargs)
            except BaseException:
                if self._n_edits != edits:  # what was given has edited the graph as it was read, and may need new nodes
                    self._drop_partial_nodes()
                else:
                    for node in range(lengths[0], len(self)):
                        self._names.pop(node, None)
                    for column, length in zip(self._columns(), lengths, strict=True):
                        del column[length:]
                raise

    return whole_or_not


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
