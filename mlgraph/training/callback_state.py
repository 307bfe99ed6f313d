"""The states of callbacks, as a checkpoint holds them: JSON, and the bytes of all arrays one after the other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from mlgraph._support.array_types import UInt8
from mlgraph.models.model_file import require

DTYPE = re.compile(r"[<>|](b1|[iu][1248]|f(2|4|8|16)|c(8|16|32))")
"""Dtypes of arrays in a state: booleans and numbers."""

STORABLE = "None, booleans, numbers, strings, arrays of numbers, and lists, tuples and dicts with string keys of these"


def identity(callback: Any) -> str:
    """What a checkpoint recognises a callback by: its repr, or its class if it has no repr of its own."""
    kind = type(callback)
    own = any("__repr__" in vars(each) for each in kind.__mro__[:-1])
    return repr(callback) if own else kind.__qualname__


def packed(callbacks: Iterable[Any]) -> tuple[list[Any], UInt8]:
    """The states of callbacks as JSON and bytes; TypeError for a state that a file cannot hold."""
    arrays: list[bytes] = []
    states = []
    for each in callbacks:
        state, where = each.state_dict(), f"callbacks: {type(each).__name__}.state_dict()"
        if not isinstance(state, dict):
            raise TypeError(f"{where}: expected a dict, got {type(state).__name__}")
        states.append(_packed(state, where, arrays))
    return states, np.frombuffer(b"".join(arrays), np.uint8)


def _packed(value: Any, where: str, arrays: list[bytes]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray | np.generic) and DTYPE.fullmatch(value.dtype.str):
        arrays.append(value.tobytes())
        return {"array": [value.dtype.str, *value.shape]}
    if type(value) is list:
        return [_packed(each, f"{where}[{i}]", arrays) for i, each in enumerate(value)]
    if type(value) is tuple:
        return {"tuple": _packed(list(value), where, arrays)}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: _packed(each, f"{where}[{key!r}]", arrays) for key, each in value.items()}}
    got = f"{value.dtype} {type(value).__name__}" if isinstance(value, np.ndarray) else type(value).__name__
    raise TypeError(f"{where}: a checkpoint holds {STORABLE}; got {got}")


def unpacked(states: Any, content: UInt8, n: int) -> list[dict[str, Any]]:
    """The n states of a file; a ModelFileError if there is something else."""
    require(isinstance(states, list) and len(states) == n, f"checkpoint: states: expected those of {n} callbacks")
    reader = _Reader(content)
    found = [reader.read(state) for state in states]
    require(all(isinstance(state, dict) for state in found), "checkpoint: states: expected dicts")
    require(reader.at == len(content), "array states: expected the bytes of the states' arrays")
    return found


class _Reader:
    """Reads values in the order in which they were packed."""

    def __init__(self, content: UInt8) -> None:
        self._content = content
        self.at = 0

    def read(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.read(each) for each in value]
        if not isinstance(value, dict):
            return value
        require(len(value) == 1, "checkpoint: states: expected one kind of a value")
        ((kind, inner),) = value.items()
        if kind == "dict" and isinstance(inner, dict):
            return {key: self.read(each) for key, each in inner.items()}
        require(kind in ("tuple", "array") and isinstance(inner, list), "checkpoint: states: expected a list")
        return tuple(self.read(inner)) if kind == "tuple" else self._array(*inner)

    def _array(self, dtype: Any = None, *shape: Any) -> Any:
        good = isinstance(dtype, str) and DTYPE.fullmatch(dtype) and all(type(n) is int and n >= 0 for n in shape)
        require(good and len(shape) <= 32, "checkpoint: states: expected the dtype and the shape of an array")
        kind, begin = np.dtype(dtype), self.at
        self.at += kind.itemsize * math.prod(shape)
        require(self.at <= len(self._content), "array states: it lacks the bytes of an array")
        return np.frombuffer(self._content[begin : self.at].tobytes(), kind).reshape(shape).copy()[()]
