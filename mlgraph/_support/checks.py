"""What arguments must be. A mistake is one line that names the argument, what was expected and what it got."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32, Int64

FLOAT32_MAX = float(np.finfo(np.float32).max)
"""The largest finite number of the precision that everything is computed in."""

StrOrBytesPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""What a path may be given as."""

INT32_MAX = 2**31 - 1
"""Nodes are numbered in 32 bits, and no other count needs to be larger."""

MOST_SEED = 2**64 - 1
"""A seed has 64 bits."""


def shown(value: Any) -> str:
    """A value as an error shows it: on one line, and not all of it if it is long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def plain(text: str) -> str:
    """A name as an error shows it: what would not print, or end the line, is escaped."""
    return text if text.isprintable() else repr(text)[1:-1]


def wrong(what: str, expected: str, value: Any, of_type: bool) -> TypeError | ValueError:
    """The error for an unexpected value: a ValueError if it is `of_type`, the expected type, else a TypeError."""
    return (ValueError if of_type else TypeError)(f"{what}: expected {expected}, got {shown(value)}")


def whole(what: str, value: Any, least: int = 1, most: int = INT32_MAX) -> int:
    """`value` as an int; TypeError if it is no integer, or a truth value, ValueError if it is out of range."""
    of_type = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not of_type or value < least:
        raise wrong(what, f"an integer of at least {least}", value, of_type)
    if value > most:
        raise wrong(what, f"an integer of at most {most}", value, of_type)
    return int(value)


def real(what: str, value: Any, expected: str, least: float, most: float) -> float:
    """`value` as a float; TypeError if it is no number, or a truth value, ValueError if it is not from `least` to `most`."""
    given = float(value) if isinstance(value, np.floating) else value  # else numpy rounds the limits to its precision
    of_type = isinstance(given, Real) and not isinstance(given, bool)
    if not of_type or not least <= given <= most:
        raise wrong(what, expected, value, of_type)
    return float(given)


def share(what: str, value: Any, *, all: bool = False) -> float:
    """`value` as a float; the errors of `real` if it is no number from 0 to below 1, or with `all` to 1."""
    most = 1.0 if all else float(np.nextafter(1.0, 0.0))
    return real(what, value, f"a number from 0 to {'' if all else 'below '}1", 0.0, most)


def truth(what: str, value: Any) -> bool:
    """`value` as a bool, or a TypeError if it is none."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{what}: expected True or False, got {shown(value)}")
    return bool(value)


def one_of(what: str, value: Any, names: Sequence[str]) -> str:
    """`value`, if it is one of `names`; else a ValueError, or a TypeError if it is no string."""
    if not isinstance(value, str) or value not in names:
        expected = " or ".join(names) if len(names) <= 2 else f"one of {', '.join(names)}"
        raise wrong(what, expected, value, isinstance(value, str))
    return value


def optional_name(value: Any) -> str | None:
    """The name of a node, or a TypeError if it is neither a string nor None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"name: expected a string, got {type(value).__name__}")
    return None if value is None else str(value)


def path(what: str, value: Any) -> str:
    """`value` as a path, else a TypeError, also for an integer: open() would take it for an open file, and close it."""
    try:
        text = os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{what}: expected a path, got {type(value).__name__}") from None
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise ValueError(f"{what}: expected a path that a file may have, got {shown(value)}")
    return text


def number(what: str, value: Any) -> float:
    """`value` as a float that float32 can hold, infinities and NaN included; TypeError or ValueError if it is none."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{what}: expected a number, got {type(value).__name__}")
    try:
        result = float(value)
    except OverflowError:  # an integer
        result = float(np.finfo(np.float64).max)
    if FLOAT32_MAX < abs(result) < np.inf:
        raise ValueError(f"{what}: expected a number that float32 can hold, got {shown(value)}")
    return result


_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")


def level_outside() -> int:
    """The `stacklevel` by which a warning names the first caller who is not of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def any_array(what: str, value: Any) -> npt.NDArray[Any]:
    """An array of anything; TypeError if none can be made of `value`."""
    try:
        return np.asanyarray(value)
    except (RuntimeError, TypeError, ValueError) as error:  # of a tensor that has a gradient, or is on another device
        ragged = isinstance(error, ValueError) and isinstance(value, list | tuple)
        got = "rows of different lengths" if ragged else f"{type(value).__name__}: {str(error).partition(chr(10))[0]}"
        raise TypeError(f"{what}: expected an array of numbers, got {got}") from None


def real_array(what: str, value: npt.ArrayLike, cast: str = "astype(float)") -> npt.NDArray[Any]:
    """`value` as an array of real numbers of any type; else a TypeError, which for an array of objects suggests `cast`."""
    array = any_array(what, value)
    if type(value) is not np.ndarray:  # which masks nothing
        rows = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(one, np.ma.MaskedArray) and np.ma.is_masked(one) for one in (array, *rows)):
            raise TypeError(f"{what}: expected numbers, got an array that masks some of them")
        array = np.asarray(array)
    if array.dtype.kind not in "buif":
        got = f"an array of {array.dtype}" if array.ndim else shown(value)
        hint = f"; {cast} may make them numbers" if array.ndim and array.dtype == object else ""
        raise TypeError(f"{what}: expected numbers, got {got}{hint}")
    return array if array.flags.aligned else array.copy()


def integer_row(what: str, value: Any) -> Int64:
    """`value` as int64 of shape (n,); else a TypeError."""
    array = real_array(what, value, "astype(int)")
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"{what}: expected a row of integers, got {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def float_array(what: str, value: npt.ArrayLike, shape: tuple[int | None, ...]) -> Float32:
    """`value` as float32; TypeError or ValueError if it is not of this shape, where None stands for any length."""
    array = real_array(what, value)
    if array.ndim != len(shape) or any(e is not None and e != s for e, s in zip(shape, array.shape, strict=True)):
        expected = ", ".join("n" if e is None else str(e) for e in shape) + "," * (len(shape) == 1)
        raise ValueError(f"{what}: expected shape ({expected}), got {array.shape}")
    try:
        with np.errstate(over="raise", under="ignore"):
            return array.astype(np.float32, copy=False)
    except FloatingPointError:
        largest = np.abs(array[np.isfinite(array)]).max()
        raise ValueError(f"{what}: expected numbers that float32 can hold, got {largest}") from None
