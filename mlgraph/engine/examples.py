"""Data in the form that the sweep reads."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

import mlgraph_ext
from mlgraph._support.array_types import Float32, Float64, Int32, UInt8
from mlgraph._support.checks import level_outside, real_array
from mlgraph._support.locks import cached_property
from mlgraph._support.threads import threads_for

BYTE, FLOAT = np.dtype(np.uint8), np.dtype(np.float32)
"""The types of data that kernels read: to compare with these costs less than with numpy's classes."""

SPARSE_BELOW = 0.9
"""Skipping runs of columns that are all zero pays if the share of the others is at most this."""

NARROW_AFTER = 8
"""How often columns are read in place, if these are few, before they are copied."""

LINE = 64
"""Bytes of a line of the cache."""

MANY = 2**22
"""Floats from which on it pays to look whether they are bytes: more than the caches hold."""


class Examples:
    """Data in the form that the sweep reads; checks it.

    Parameters
    ----------
    x : array_like, shape (examples, inputs)
        uint8 (a byte b is read as b / 255), float32, float64 or other real numbers (read as float32).
    n_inputs : int
        Columns expected.
    what : str
        What errors call the data.

    Attributes
    ----------
    bytes, floats : uint8 and float32, shape (examples, inputs)
        The data, as they are read; the other is None.
    given : (str, array)
        Name and array of the data whose units `warn_of_units` checks; targets are not among them.
    """

    def __init__(self, x: npt.ArrayLike, n_inputs: int, what: str = "x") -> None:
        array = real_array(what, x)
        if array.ndim != 2 or array.shape[1] != n_inputs:
            hint = "; a single example is [x]" if array.shape == (n_inputs,) else ""
            raise ValueError(f"{what}: expected shape (examples, {n_inputs}), got {array.shape}{hint}")
        self._type = array.dtype
        if array.dtype not in (BYTE, FLOAT):
            with np.errstate(over="ignore", under="ignore"):  # what float32 cannot hold is infinite, or zero
                array = array.astype(np.float32)
        self.array: npt.NDArray[Any] = np.ascontiguousarray(array)
        self.bytes: UInt8 | None = self.array if array.dtype == BYTE else None
        self.floats: Float32 | None = self.array if array.dtype == FLOAT else None
        self.given = what, self.array
        self._what = what
        self._narrowed: tuple[bytes, Examples] | None = None
        self._room: UInt8 | None = None
        self._read: tuple[bytes, int] | None = None  # columns, and of how many examples they have been read

    def __len__(self) -> int:
        return len(self.array)

    def read(self, rows: Any, columns: Any) -> Float64:
        """Some of the data as they are read, in float64."""
        part = self.array[rows, columns]
        return np.asarray(part / 255 if part.dtype == np.uint8 else part, np.float64)

    def check_any(self) -> None:
        """Raise ValueError if there is no example."""
        if len(self) == 0:
            raise ValueError(f"{self._what}: expected at least one example, got none")

    def check_trainable(self) -> None:
        """Raise ValueError if there is no example, or one has a value that is not finite; it names the first."""
        self.check_any()
        if not np.isfinite(self.largest):
            i, j = np.argwhere(~np.isfinite(self.array))[0]
            cast = " (as float32)" if self._type != np.float32 and not np.isnan(self.array[i, j]) else ""
            got = f"{self.array[i, j]}{cast} in example {i}, column {j}"
            raise ValueError(f"{self._what}: expected finite numbers that float32 can hold, got {got}")

    def warn_of_units(self, told: str = "") -> str:
        """Warn the package's caller of bytes that are all 0 or 1, read as 0 and 1/255, and of floats that look like bytes.

        Returns the text; if other data were `told` the same, there is no second warning.
        """
        (name, given), what = self.given, ""
        x = given[:: len(self) // 64 + 1]
        if x.dtype == np.uint8 and x.max(initial=0) <= 1 and given.max(initial=0) == 1:
            what = "bytes are read as byte / 255, and all of these are 0 or 1; astype(np.float32) leaves them so"
        elif x.dtype != np.uint8 and x.min(initial=0) == 0 and x.max(initial=0) == 255 and (x == np.floor(x)).all():
            what = (
                "these are whole numbers from 0 to 255, too large to learn well; astype(np.uint8) has them read / 255"
            )
        if what and what != told:
            warnings.warn(f"{name}: {what}", UserWarning, stacklevel=level_outside())
        return what

    def in_bytes(self, n_threads: int | None = None) -> Examples:
        """The same data as bytes, where there are many and each is exactly byte / 255: a quarter of the memory to read."""
        x = self.floats
        if x is None or x.size < MANY or not self._are_bytes(x[:: len(x) // 64 + 1], 1)[0]:
            return self
        found, array = self._are_bytes(x, threads_for(n_threads, x.size))
        return Examples(array, array.shape[1], self._what) if found else self

    @staticmethod
    def _are_bytes(x: Float32, n_threads: int) -> tuple[bool, UInt8]:
        array = np.empty(x.shape, np.uint8)
        return mlgraph_ext.sweep.as_bytes(np.ascontiguousarray(x), array, n_threads), array

    @cached_property
    def largest(self) -> float:
        """The largest absolute value, at least 1; not finite if one of them is not."""
        if self.floats is None or self.floats.size == 0:
            return 1.0
        return float(np.maximum(1.0, np.maximum(self.floats.max(), -self.floats.min())))

    @cached_property
    def density(self) -> float:
        """Share of the runs of four neighbouring columns that are not all zero, of some examples."""
        sample = self.array[:: max(1, len(self) // 256)]
        rest = -sample.shape[1] % mlgraph_ext.sweep.RUN_COLUMNS
        some = sample if sample.dtype == np.uint8 else sample != 0  # -0 is zero, too
        runs = (np.pad(some, ((0, 0), (0, rest))) if rest else some).view(
            "u4"
        )  # four in one: it is zero if they all are
        return float(np.count_nonzero(runs) / max(1, runs.size))

    @property
    def are_sparse(self) -> bool:
        """Whether skipping runs of zeros pays in steps of many examples: enough of them are zero."""
        return self.density <= SPARSE_BELOW

    def narrowed(self, columns: Int32, n_threads: int = 1) -> Examples:
        """These columns, in ascending order, side by side; the last copy is kept.

        If rows of the data take two cache lines or more, each row of the copy is padded with zeros to whole cache lines.
        """
        if np.array_equal(columns, np.arange(self.array.shape[1])):
            self._narrowed = self._room = None
            return self
        key = columns.tobytes()
        if self._narrowed is None or self._narrowed[0] != key:
            n, size = len(self), self.array.itemsize
            row = len(columns) * size  # bytes from one to the next
            if self.array.shape[1] * size >= 2 * LINE:
                row = -(-row // LINE) * LINE
            if self._room is None or len(self._room) < n * row + LINE:
                self._room = np.zeros(n * row + LINE, np.uint8)
            start = -self._room.ctypes.data % LINE
            few = self._room[start : start + n * row].reshape(n, row)  # over the last copy, which nobody reads any more
            mlgraph_ext.sweep.take_columns(self.array.view(np.uint8), columns, few, size, n_threads)
            self._narrowed = key, Examples(few.view(self.array.dtype), row // size, self._what)
        return self._narrowed[1]

    def pays_narrowed(self, columns: Int32, n: int) -> bool:
        """Whether columns that could be read in place are better copied, for n examples now and possibly more later.

        A copy pays if it takes at most half of the data's cache lines and is read a few times. How often is not known in
        advance, for a network may be cut meanwhile. So columns are copied once they have been read as often as a copy takes
        to pay.
        """
        size, width = self.array.itemsize, self.array.shape[1]
        if 2 * -(-len(columns) * size // LINE) > width * size // LINE:
            return False
        key = columns.tobytes()
        before = self._read[1] if self._read and self._read[0] == key else 0
        self._read = key, before + n
        return before >= NARROW_AFTER * len(self)
