"""Numbers and arrays that come from outside: each is what it should be, or an error says what was expected and what came."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

LARGEST = float(np.finfo(np.float32).max)
"""The largest finite number of the precision that everything is computed in."""

Float32 = npt.NDArray[np.float32]


def number(what: str, value: Any) -> float:
    """A number that float32 can hold, or one that is not finite; TypeError or ValueError for anything else."""
    if not isinstance(value, Real):
        raise TypeError(f"{what}: expected a number, came {type(value).__name__}")
    try:
        x = float(value)
    except OverflowError:  # an integer
        x = float(np.finfo(np.float64).max)
    if LARGEST < abs(x) < np.inf:
        raise ValueError(f"{what}: expected a number that float32 can hold, came {value}")
    return x


def real_array(what: str, value: npt.ArrayLike) -> npt.NDArray[Any]:
    """An array of real numbers of any type; TypeError if `value` is none."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise TypeError(f"{what}: expected an array of numbers, came rows of different lengths") from None
    if array.dtype.kind not in "buif":
        raise TypeError(f"{what}: expected numbers, came an array of {array.dtype}")
    return array


def float_array(what: str, value: npt.ArrayLike, shape: tuple[int | None, ...]) -> Float32:
    """`value` as float32; TypeError or ValueError if it is not of this shape, in which None is any length."""
    array = real_array(what, value)
    if array.ndim != len(shape) or any(e is not None and e != s for e, s in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{what}: expected shape {tuple('n' if e is None else e for e in shape)}, came {array.shape}")
    try:
        with np.errstate(over="raise"):
            return array.astype(np.float32, copy=False)
    except FloatingPointError:
        raise ValueError(f"{what}: expected numbers that float32 can hold, came {np.abs(array).max()}") from None
