"""How a model reads the numbers of its data: in which order of columns, and on which scale."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float64, read_only
from mlgraph._support.checks import real_array, shown
from mlgraph.graph.ids import is_iterable

BYTES, UNSCALED = "bytes", "unscaled"

CHUNK = 2**20
"""Numbers that are standardized at a time, which bounds the memory."""


class Standardization(NamedTuple):
    """Each column of the data is read as (x - mean) / std; float64 of shape (columns,)."""

    mean: Float64
    std: Float64


Scaling = str | Standardization


class Data(NamedTuple):
    """Data as a user gave them: their name in errors, the numbers, and the names of a frame's columns, if any."""

    what: str
    array: npt.NDArray[Any]
    columns: tuple[str, ...] | None = None


def as_data(x: npt.ArrayLike | Data, what: str = "x") -> Data:
    """Data as an array of numbers. Converting them may run a user's code, which may edit the graph."""
    if type(x) is np.ndarray:
        return Data(what, real_array(what, x))
    if isinstance(x, Data):
        return x
    columns, array = names_of_columns(x), real_array(what, x)
    return Data(what, array, columns if columns and array.ndim == 2 and array.shape[1] == len(columns) else None)


def names_of_columns(x: Any) -> tuple[str, ...] | None:
    """The names of a frame's columns, if they are different strings."""
    names = getattr(x, "columns", None)  # of pandas and polars
    columns = () if names is None or callable(names) else tuple(names)
    named = columns and len(set(columns)) == len(columns) and all(isinstance(name, str) for name in columns)
    return columns if named else None


def ordered(data: Data, columns: tuple[str, ...] | None, *, complete: bool = False) -> Data:
    """A frame with the columns in the order of `columns`; data without names are taken to be in that order.

    Columns at the end may be missing, as for `Model.forward`, unless they must be `complete`.
    """
    if data.columns is None:
        return data._replace(columns=columns)
    if columns is None or data.columns == columns:
        return data
    expected = columns if complete else columns[: len(data.columns)]
    if set(data.columns) != set(expected):
        missing, unknown = (
            [c for c in a if c not in b] for a, b in ((expected, data.columns), (data.columns, columns))
        )
        parts = [f"{word} {', '.join(names)}" for word, names in (("without", missing), ("with", unknown)) if names]
        raise ValueError(
            f"{data.what}: expected the columns that the model was fitted with ({shown(list(columns))}), got a frame "
            f"{' and '.join(parts)}"
        )
    at = [data.columns.index(name) for name in expected]
    return Data(data.what, data.array[:, at], expected)


def first_scaling(data: Data) -> Scaling:
    """The scaling that the first `fit` decides on: bytes with a number above 1 are divided by 255."""
    array = data.array
    return BYTES if array.dtype == np.uint8 and array.max(initial=0) > 1 else UNSCALED


def standardization(data: Data) -> Standardization:
    """Mean and standard deviation of each column, which must be finite; a constant column gets the deviation 1."""
    mean = data.array.mean(axis=0, dtype=np.float64)
    std = data.array.std(axis=0, dtype=np.float64)
    return Standardization(read_only(mean), read_only(np.where(std > 0, std, 1.0)))


def scaled(data: Data, scaling: Scaling) -> npt.NDArray[Any]:
    """The numbers as `Examples` takes them, which divides uint8 by 255."""
    array = data.array
    if scaling == UNSCALED:
        return array.astype(np.float32) if array.dtype == np.uint8 else array
    if isinstance(scaling, Standardization):
        return _standardized(data, scaling)
    return array if array.dtype == np.uint8 else _as_bytes(data)


def _as_bytes(data: Data) -> npt.NDArray[Any]:
    """Other numbers for a model that was fitted on bytes: bytes if they are whole, else float32 divided by 255."""
    array = data.array
    hint = "the model was fitted on bytes, which it divides by 255"
    outside = (array < 0) | (array > 255)
    if outside.any():
        at = tuple(np.argwhere(outside)[0])
        raise ValueError(f"{data.what}: expected numbers from 0 to 255, got {array[at]}; {hint}")
    whole = array == np.floor(array)  # False for NaN
    if whole.all():
        return array.astype(np.uint8)
    if not whole[~np.isnan(array)].all() and np.nanmax(array) <= 1:
        raise ValueError(
            f"{data.what}: expected numbers from 0 to 255, got fractions from 0 to 1; {hint}: multiply {data.what} by "
            "255"
        )
    return (array / 255).astype(np.float32)


def _standardized(data: Data, scaling: Standardization) -> npt.NDArray[Any]:
    array = data.array
    if array.ndim != 2:
        return array  # `Examples` refuses it
    width = min(len(scaling.mean), array.shape[1])  # targets of a loss that is a node may follow
    mean, std = (part[:width] for part in scaling)
    step = max(1, CHUNK // max(1, width))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # as `Examples` does
        out = array.astype(np.float32)
        for start in range(0, len(array), step):
            here = slice(start, start + step)
            out[here, :width] = (array[here, :width] - mean) / std
    return out


def checked_scaling(value: Any) -> Scaling | None:
    """A scaling that a user assigns: None, "bytes", "unscaled" or (mean, std); else a TypeError or ValueError."""
    if value is None or (isinstance(value, str) and value in (BYTES, UNSCALED)):
        return value
    if not isinstance(value, tuple | list) or len(value) != 2:
        expected = f'scaling: expected "{BYTES}", "{UNSCALED}", (mean, std) or None, got {shown(value)}'
        raise (ValueError if isinstance(value, str | tuple | list) else TypeError)(expected)
    mean, std = (
        np.array(real_array(f"scaling: {name}", v), np.float64) for name, v in (("mean", value[0]), ("std", value[1]))
    )
    if mean.ndim != 1 or mean.shape != std.shape:
        raise ValueError(f"scaling: expected a mean and a std for each column, got shapes {mean.shape} and {std.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError("scaling: expected finite numbers, and a std above 0 for each column")
    return Standardization(read_only(mean), read_only(std))


def to_json(scaling: Scaling | None) -> Any:
    """A scaling as a model file records it; `checked_scaling` reads it."""
    return [part.tolist() for part in scaling] if isinstance(scaling, Standardization) else scaling


def checked_columns(value: Any, most: int) -> tuple[str, ...] | None:
    """Names of columns that a user assigns, at most so many, or None; else a TypeError or ValueError."""
    if value is None:
        return None
    names = tuple(value) if not isinstance(value, str) and is_iterable(value) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"columns: expected strings, one for each column of the data, or None, got {shown(value)}")
    if len(set(names)) < len(names) or len(names) > most:
        raise ValueError(f"columns: expected at most {most} different names, got {shown(list(names))}")
    return names
