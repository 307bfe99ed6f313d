"""Errors for names that do not exist, which say what is meant by those of other libraries.

A misspelled attribute or option never passes in silence.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def hint(name: str, elsewhere: dict[str, str], known: Sequence[str] = ()) -> str:
    """The end of an error for an unknown name: what it is called here, or a similar name that is known."""
    if name in elsewhere:
        return f"; here it is {elsewhere[name]}"
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def spelled(**elsewhere: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function of many arguments: unknown ones raise a TypeError that says what is meant.

    `elsewhere` has names of other libraries, each with ours.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            require_arguments(checked, kwargs)
            return function(*args, **kwargs)

        vars(checked)["elsewhere"] = elsewhere
        return checked

    return decorate


def require_arguments(function: Callable[..., Any], names: Iterable[str]) -> None:
    """Raise a TypeError unless a function that is `spelled` has arguments of these names."""
    code = vars(function)["__wrapped__"].__code__
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    for name in names:
        if name not in known:
            called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
            end = hint(name, vars(function)["elsewhere"], known)
            raise TypeError(f"{called}: there is no argument {name!r}{end}")


class Hinting:
    """Base class of objects whose missing attributes may have other names."""

    __slots__ = ()

    _elsewhere: ClassVar[dict[str, str]] = {}
    """Names that people look for here, each with where it is."""

    _is_no_number: ClassVar[str] = ""
    """The end of the error where one is given in place of a number: what to do."""

    if not TYPE_CHECKING:  # type checkers would take every name as defined

        def __getattr__(self, name):
            # Python calls this if it found no such attribute, or if a property raised an AttributeError.
            if hasattr(type(self), name):
                return object.__getattribute__(self, name)
            # Python adds the most similar name to the error.
            message = f"{type(self).__name__!r} object has no attribute {name!r}{hint(name, self._elsewhere)}"
            raise AttributeError(message, name=name, obj=self)


class Declared(Hinting):
    """Base class of objects whose attributes are those that the classes of the package annotate or define.

    Classes that users derive may have others.
    """

    __slots__ = ()

    _declared: ClassVar[frozenset[str] | None]  # None: any

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        of_package = cls.__module__.partition(".")[0] == __name__.partition(".")[0]
        names = (name for base in cls.__mro__ for name in getattr(base, "__annotations__", ()))
        cls._declared = frozenset(names) if of_package else None

    def __setattr__(self, name: str, value: Any) -> None:
        declared = self._declared
        if declared is not None and name not in declared and not hasattr(type(self), name):
            public = [n for n in {*declared, *dir(type(self))} if not n.startswith("_")]
            end = hint(name, self._elsewhere, sorted(public))
            raise AttributeError(f"a {type(self).__name__} has no attribute {name!r} to assign{end}")
        object.__setattr__(self, name, value)
