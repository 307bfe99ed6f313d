"""Examples: checked data in the form that the kernels read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import mlgraph_ext
from mlgraph._support.array_types import Float32, Float64, Int32, UInt8
from mlgraph._support.checks import plain, real_array
from mlgraph._support.locks import cached_property
from mlgraph._support.threads import threads_for

BYTE, FLOAT = np.dtype(np.uint8), np.dtype(np.float32)
"""The types of data that kernels read. Comparing with a dtype is faster than comparing with a class of numpy."""

SPARSE_BELOW = 0.9
"""Maximum density, as in `Examples.density`, at which skipping zeros pays off."""

NARROW_AFTER = 8
"""Number of passes over the data after which a few columns are copied instead of read in place."""

LINE = 64
"""Bytes of a cache line."""

LARGE = 2**22
"""Number of floats from which it pays to test whether all are bytes / 255: more than fit into the caches."""


class Examples:
    """Checked data in the form that the kernels read.

    Parameters
    ----------
    x : array_like, shape (examples, inputs)
        uint8 (a byte b is read as b / 255), float32, or other real numbers (read as float32).
    n_inputs : int
        Expected number of columns.
    what : str
        Name of the data in errors.

    Attributes
    ----------
    bytes, floats : uint8 and float32, shape (examples, inputs)
        The data; one of the two is None.
    raw : array, optional
        The data of a model that reads them as they are, without targets.
    columns : sequence of str, optional
        Names of the first columns, for errors.
    """

    def __init__(self, x: npt.ArrayLike, n_inputs: int, what: str = "x") -> None:
        array = real_array(what, x)
        if array.ndim != 2 or array.shape[1] != n_inputs:
            raise ValueError(
                f"{what}: expected shape (examples, {n_inputs}), got {array.shape}{_way(array, n_inputs, what)}"
            )
        self._type = array.dtype
        if array.dtype not in (BYTE, FLOAT):
            with np.errstate(over="ignore", under="ignore"):  # numbers out of float32's range become infinite or zero
                array = array.astype(np.float32)
        self.array: npt.NDArray[Any] = np.ascontiguousarray(array)
        self.bytes: UInt8 | None = self.array if array.dtype == BYTE else None
        self.floats: Float32 | None = self.array if array.dtype == FLOAT else None
        self.raw: npt.NDArray[Any] | None = None
        self.columns: Sequence[str] | None = None
        self.what = what
        self._narrowed: tuple[bytes, Examples] | None = None
        self._room: UInt8 | None = None
        self._read: tuple[bytes, int] | None = None  # columns, and the number of examples read from them

    def __len__(self) -> int:
        return len(self.array)

    def copy(self) -> Examples:
        """The same data, in the same arrays, for another thread: only the copies of some columns are its own."""
        other = object.__new__(Examples)
        vars(other).update(vars(self), _narrowed=None, _room=None, _read=None)
        return other

    def read(self, rows: Any, columns: Any) -> Float64:
        """Some of the data in float64; bytes are divided by 255."""
        part = self.array[rows, columns]
        return np.asarray(part / 255 if part.dtype == np.uint8 else part, np.float64)

    def check_any(self) -> None:
        """Raise ValueError if there is no example."""
        if len(self) == 0:
            raise ValueError(f"{self.what}: expected at least one example, got none")

    def check_trainable(self) -> None:
        """Raise ValueError if there is no example, or if a value is not finite; the error names the first."""
        self.check_any()
        if not np.isfinite(self.largest):
            i, j = np.argwhere(~np.isfinite(self.array))[0]
            cast = " (as float32)" if self._type != np.float32 and not np.isnan(self.array[i, j]) else ""
            name = self.name_of(j)
            got = f"{self.array[i, j]}{cast} in example {i}, column {j}" + f" ({name})" * bool(name)
            more = int(np.count_nonzero(~np.isfinite(self.array[:, j]))) - 1
            got += f", and {more} more in this column" * (more > 0)
            raise ValueError(f"{self.what}: expected finite numbers that float32 can hold, got {got}")

    def name_of(self, column: int) -> str:
        """The name of a column; "" if it has none."""
        return plain(self.columns[column]) if self.columns and column < len(self.columns) else ""

    def in_bytes(self, n_threads: int | None = None) -> Examples:
        """The same data as bytes, a quarter of the memory, if they are large and each number is exactly byte / 255."""
        x = self.floats
        if x is None or x.size < LARGE or not self._are_bytes(x[:: len(x) // 64 + 1], 1)[0]:
            return self
        found, array = self._are_bytes(x, threads_for(n_threads, x.size))
        return Examples(array, array.shape[1], self.what) if found else self

    @staticmethod
    def _are_bytes(x: Float32, n_threads: int) -> tuple[bool, UInt8]:
        array = np.empty(x.shape, np.uint8)
        return mlgraph_ext.sweep.as_bytes(np.ascontiguousarray(x), array, n_threads), array

    @cached_property
    def largest(self) -> float:
        """The largest absolute value, but at least 1; not finite if one of the values is not."""
        if self.floats is None or self.floats.size == 0:
            return 1.0
        return float(np.maximum(1.0, np.maximum(self.floats.max(), -self.floats.min())))

    @cached_property
    def density(self) -> float:
        """Fraction of the groups of four adjacent columns that are not all zero, in a sample of the examples."""
        sample = self.array[:: max(1, len(self) // 256)]
        rest = -sample.shape[1] % mlgraph_ext.sweep.RUN_COLUMNS
        some = sample if sample.dtype == np.uint8 else sample != 0  # -0 is zero, too
        # A view of four bytes as one integer is zero if all four are.
        column_groups = (np.pad(some, ((0, 0), (0, rest))) if rest else some).view("u4")
        return float(np.count_nonzero(column_groups) / max(1, column_groups.size))

    @property
    def are_sparse(self) -> bool:
        """Whether enough of the data are zero for skipping zeros to pay off in large steps."""
        return self.density <= SPARSE_BELOW

    def narrowed(self, columns: Int32, n_threads: int = 1) -> Examples:
        """A copy of these columns, which must be ascending; the last copy is cached.

        Rows of two or more cache lines are padded with zeros to whole cache lines.
        """
        if np.array_equal(columns, np.arange(self.array.shape[1])):
            self._narrowed = self._room = None
            return self
        key = columns.tobytes()
        if self._narrowed is None or self._narrowed[0] != key:
            n, size = len(self), self.array.itemsize
            row = len(columns) * size  # bytes of a row
            if self.array.shape[1] * size >= 2 * LINE:
                row = -(-row // LINE) * LINE
            if self._room is None or len(self._room) < n * row + LINE:
                self._room = np.zeros(n * row + LINE, np.uint8)
            start = -self._room.ctypes.data % LINE
            few = self._room[start : start + n * row].reshape(
                n, row
            )  # overwrites the last copy, which is no longer read
            mlgraph_ext.sweep.take_columns(self.array.view(np.uint8), columns, few, size, n_threads)
            self._narrowed = key, Examples(few.view(self.array.dtype), row // size, self.what)
        return self._narrowed[1]

    def pays_narrowed(self, columns: Int32, n: int) -> bool:
        """Whether to copy columns that could be read in place, for n examples now and possibly more later.

        A copy pays off if it needs at most half of the data's cache lines and is read several times. The number of
        reads is not known in advance, because the network may be pruned in between. Columns are therefore copied
        after they have been read NARROW_AFTER times.
        """
        size, width = self.array.itemsize, self.array.shape[1]
        if 2 * -(-len(columns) * size // LINE) > width * size // LINE:
            return False
        key = columns.tobytes()
        before = self._read[1] if self._read and self._read[0] == key else 0
        self._read = key, before + n
        return before >= NARROW_AFTER * len(self)


def _way(array: npt.NDArray[Any], n_inputs: int, what: str) -> str:
    """How to write data of another shape, for the end of an error message; "" if that is not clear."""
    if array.ndim > 2 and math.prod(array.shape[1:]) == n_inputs:
        return f"; {what}.reshape(len({what}), -1) has that shape"
    if array.ndim == 1 and array.size == n_inputs:
        return f"; one example is {what}[None] or [{what}]"
    if array.ndim <= 1 and n_inputs == 1:
        return f"; examples of one number are np.reshape({what}, (-1, 1))"
    if array.ndim == 2 and array.size == n_inputs:
        return f"; one example is {what}.reshape(1, -1)"
    return ""


def unscaled(x: npt.ArrayLike, n_inputs: int) -> Examples:
    """Examples of a function, which reads bytes as it reads other numbers."""
    array = real_array("x", x)
    return Examples(array.astype(np.float32) if array.dtype == BYTE else array, n_inputs)
