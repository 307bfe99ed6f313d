"""Classes that refuse attributes which they do not have, so that a misspelled option is an error."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, ClassVar


class Declared:
    """Base class of objects whose attributes are those that the classes of the package annotate or define.

    Classes that users derive may have others.
    """

    __slots__ = ()

    _declared: ClassVar[frozenset[str] | None]  # None: any
    _elsewhere: ClassVar[dict[str, str]] = {}
    """Names that people look for here, each with where it is."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        of_package = cls.__module__.partition(".")[0] == __name__.partition(".")[0]
        names = (name for base in cls.__mro__ for name in getattr(base, "__annotations__", ()))
        cls._declared = frozenset(names) if of_package else None

    def __setattr__(self, name: str, value: Any) -> None:
        declared = self._declared
        if declared is not None and name not in declared and not hasattr(type(self), name):
            public = [n for n in {*declared, *dir(type(self))} if not n.startswith("_")]
            close = self._elsewhere.get(name) or "".join(get_close_matches(name, sorted(public), 1))
            hint = f"; did you mean {close}?" if close else ""
            raise AttributeError(f"a {type(self).__name__} has no attribute {name!r} to assign{hint}")
        object.__setattr__(self, name, value)
