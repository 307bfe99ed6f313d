"""Threads that share a graph take turns: the decorators of its methods, and what becomes of locks in a forked child."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakSet

if TYPE_CHECKING:
    from mlgraph.graph import Graph
    from mlgraph.nodes import NodeTable

__all__ = ["adds_nodes", "cached_property", "graphs", "locked"]

P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N", bound="NodeTable")


def locked(method: Callable[Concatenate[N, P], T]) -> Callable[Concatenate[N, P], T]:
    """A method that takes its turn when threads share the graph."""

    @functools.wraps(method)
    def in_turn(self: N, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            return method(self, *args, **kwargs)

    return in_turn


def adds_nodes(method: Callable[Concatenate[Graph, P], T]) -> Callable[Concatenate[Graph, P], T]:
    """A method that adds nodes: it takes its turn; an exception within it, even Ctrl-C or no memory, leaves no new node."""

    @functools.wraps(method)
    def whole_or_not(self: Graph, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            columns = self._columns()
            lengths = [len(column) for column in columns]
            try:
                return method(self, *args, **kwargs)
            except BaseException:
                for column, length in zip(columns, lengths, strict=True):
                    del column[length:]
                self._names.pop(lengths[0], None)  # of the one node that an input or a parameter is
                raise

    return whole_or_not


class cached_property(functools.cached_property[T]):
    """As in Python 3.12: before, all objects of a class shared a lock, which could stay locked in a forked child."""

    def __init__(self, func: Callable[[Any], T]) -> None:
        super().__init__(func)
        self.lock = nullcontext()


graphs: WeakSet[Graph] = WeakSet()
"""All graphs, since a forked child finds their locks as they were."""


def _after_fork() -> None:
    # A lock that another thread held at the fork would stay locked for ever: the child does not have that thread.
    for graph in graphs:
        graph._unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
