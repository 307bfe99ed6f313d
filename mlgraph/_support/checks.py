"""Checks of arguments. They return a value of the right type, or raise an error of one line.

The first parameter of most functions, `what`, is the name of the argument; error messages begin
with it.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32, Int64
from mlgraph._support.attributes import Hinting, hint

FLOAT32_MAX = float(np.finfo(np.float32).max)
"""The largest finite float32."""

StrOrBytesPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""The types that a path may have."""

MOST_NAMED = 5
"""Number of columns that a message names."""

INT32_MAX = 2**31 - 1
"""The largest count: ids of nodes are int32."""

MOST_ITEMS = 2**24
"""The longest sequence whose items numpy may ask for one by one; it takes seconds to ask for more."""

MOST_SEED = 2**64 - 1
"""The largest seed: seeds have 64 bits."""

VALUES_ELSEWHERE = {
    "linear": "identity",
    "swish": "silu",
    "mean_squared_error": "mse",
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
    "xavier_normal": "glorot_normal",
    "xavier_uniform": "glorot_uniform",
    "l1_unstructured": "magnitude",
    **dict.fromkeys(("categorical_crossentropy", "sparse_categorical_crossentropy"), "softmax_cross_entropy"),
    **dict.fromkeys(("loss", "train_loss"), "epoch_loss"),
    **dict.fromkeys(("accuracy", "acc"), "epoch_accuracy"),
    **dict.fromkeys(("val_acc", "val_accuracy"), "validation_accuracy"),
}
"""Names in other libraries, with those of the same things here."""


def shown(value: Any) -> str:
    """`repr` of a value for an error message: on one line, and truncated to 80 characters."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def plain(text: str) -> str:
    """A name for an error message, with unprintable characters and line breaks escaped."""
    return text if text.isprintable() else repr(text)[1:-1]


def wrong(what: str, expected: str, value: Any, of_type: bool) -> TypeError | ValueError:
    """The error for an unexpected value: a ValueError if its type is right (`of_type`), else a TypeError."""
    return (ValueError if of_type else TypeError)(f"{what}: expected {expected}, got {shown(value)}")


def whole(what: str, value: Any, least: int = 1, most: int = INT32_MAX) -> int:
    """`value` as an int; a TypeError if it is a bool or not an integer, a ValueError if it is out of range."""
    of_type = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not of_type or value < least:
        raise wrong(what, f"an integer of at least {least}", value, of_type)
    if value > most:
        raise wrong(what, f"an integer of at most {most}", value, of_type)
    return int(value)


def real(what: str, value: Any, expected: str, least: float, most: float) -> float:
    """`value` as a float; a TypeError if it is a bool or not a number, a ValueError if it is out of range."""
    given = float(value) if isinstance(value, np.floating) else value  # numpy would round the limits to float32
    of_type = isinstance(given, Real) and not isinstance(given, bool)
    if not of_type or not least <= given <= most:
        raise wrong(what, expected, value, of_type)
    return float(given)


def share(what: str, value: Any, *, all: bool = False) -> float:
    """A fraction as a float: at least 0 and less than 1, or with `all` at most 1; raises as `real` does."""
    most = 1.0 if all else float(np.nextafter(1.0, 0.0))
    return real(what, value, f"a number from 0 to {'' if all else 'below '}1", 0.0, most)


def truth(what: str, value: Any) -> bool:
    """`value` as a bool; a TypeError if it is not a bool."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{what}: expected True or False, got {shown(value)}")
    return bool(value)


def one_of(what: str, value: Any, names: Sequence[str]) -> str:
    """`value` if it is one of `names`; a TypeError if it is not a string, else a ValueError, maybe with a hint."""
    if not isinstance(value, str) or value not in names:
        expected = " or ".join(names) if len(names) <= 2 else f"one of {', '.join(names)}"
        error = wrong(what, expected, value, isinstance(value, str))
        if isinstance(value, str):
            here = {other: name for other, name in VALUES_ELSEWHERE.items() if name in names}
            error = ValueError(f"{error}{hint(value.lower(), here, names)}")
        raise error
    return value


def optional_name(value: Any) -> str | None:
    """The name of a node, or None; a TypeError for any other type."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"name: expected a string, got {type(value).__name__}")
    return None if value is None else str(value)


def path(what: str, value: Any) -> str:
    """`value` as a path.

    An integer is a TypeError, because `open` would treat it as a file descriptor and close it. A
    ValueError if no file can have this name.
    """
    try:
        text = os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{what}: expected a path, got {type(value).__name__}") from None
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise ValueError(f"{what}: expected a valid file name, got {shown(value)}")
    return text


def number(what: str, value: Any, *, nan: bool = False) -> float:
    """`value` as a float that float32 can hold, possibly infinite, or NaN if `nan`; else a TypeError or ValueError."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{what}: expected a number, got {type(value).__name__}{_instead(value)}")
    try:
        result = float(value)
    except OverflowError:  # a huge integer
        result = float(np.finfo(np.float64).max)
    if FLOAT32_MAX < abs(result) < np.inf:
        raise ValueError(f"{what}: expected a number that float32 can hold, got {shown(value)}")
    if result != result and not nan:
        raise ValueError(f"{what}: expected a number, got nan")
    return result


_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")


def level_outside() -> int:
    """The `stacklevel` for a warning to point to the first caller outside this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def any_array(what: str, value: Any) -> npt.NDArray[Any]:
    """`value` as an array of any dtype; a TypeError if numpy cannot convert it, a ValueError if it is too long."""
    if _claims_many_items(value):
        raise ValueError(
            f"{what}: expected an array of numbers, got {shown(value)}, a sequence of more than {MOST_ITEMS:,} items; "
            "numpy.array converts it, if it fits in memory"
        )
    try:
        return np.asanyarray(value)
    except (RuntimeError, TypeError, ValueError) as error:  # e.g. a tensor on a GPU
        ragged = isinstance(error, ValueError) and isinstance(value, list | tuple)
        got = "rows of different lengths" if ragged else f"{type(value).__name__}: {str(error).partition(chr(10))[0]}"
        raise TypeError(f"{what}: expected an array of numbers, got {got}") from None


def _claims_many_items(value: Any) -> bool:
    """Whether numpy would ask for very many items one by one, as those of a range, which hold no memory yet."""
    if isinstance(value, np.ndarray | list | tuple) or hasattr(value, "__array__") or _is_buffer(value):
        return False
    try:
        return len(value) > MOST_ITEMS
    except OverflowError:  # more than a length can say
        return True
    except Exception:  # no sequence; numpy says what is wrong
        return False


def _is_buffer(value: Any) -> bool:
    """Whether `value` shares its memory, as bytes and array.array do."""
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True


def dense(what: str, sparse: Any) -> npt.NDArray[Any]:
    """A matrix of scipy.sparse as an array: of its dtype if that is uint8 or float32, else of float32."""
    try:
        if sparse.dtype.kind in "iuf" and sparse.dtype not in (np.uint8, np.float32):
            with np.errstate(over="ignore", under="ignore"):  # what float32 cannot hold is infinite, or zero
                sparse = sparse.astype(np.float32)  # before it is dense: half the memory of float64
        return np.asarray(sparse.toarray())
    except MemoryError:
        size = sparse.dtype.itemsize * math.prod(sparse.shape) / 1e9
        raise MemoryError(
            f"{what}: the sparse matrix of shape {sparse.shape} takes {size:.3g} GB as an array; pass fewer rows at a "
            "time, or fewer columns"
        ) from None


def real_array(what: str, value: npt.ArrayLike, cast: str = "astype(float)") -> npt.NDArray[Any]:
    """`value` as an array of real numbers, of any dtype; else a TypeError.

    A matrix of scipy.sparse becomes a dense array, and so do columns of pandas of any dtypes of numbers. For an
    array of objects, the error suggests the conversion `cast`, or names the first element or column that is not a
    number.
    """
    if hasattr(value, "isna"):
        value = _of_pandas(what, value)
    array = any_array(what, value)
    if array.dtype == object and not array.ndim and hasattr(value, "tocsr"):  # numpy takes scipy.sparse for one object
        array = value = dense(what, value)
    if type(value) is not np.ndarray:  # a plain array has no mask
        rows = value if isinstance(value, list | tuple) else [value]
        of_masks = np.ma.MaskedArray
        if any(isinstance(one, of_masks) and np.ma.is_masked(one) for one in (array, *rows)):
            raise TypeError(f"{what}: expected numbers, got an array that masks some of them")
        array = np.asarray(array)
    if array.dtype.kind not in "buif":
        got = f"an array of {array.dtype}" if array.ndim else shown(value)
        if array.dtype == object:
            is_gap = np.asarray(np.frompyfunc(_is_gap, 1, 1)(array), bool)
            if array.ndim and is_gap.any() and _are_numbers(array[~is_gap]):
                raise TypeError(f"{what}: expected numbers, got {_gaps(value, is_gap)}")
            got = _not_a_number(array) or f"{got}; {cast} may make them numbers"
        raise TypeError(f"{what}: expected numbers, got {_column_without_numbers(value, array) or got}")
    return array if array.flags.aligned else array.copy()


def _instead(value: Any) -> str:
    """The end of the error about an object that is not a number: what to write instead of it."""
    return value._is_no_number if isinstance(value, Hinting) else ""


def _of_pandas(what: str, value: Any) -> Any:
    """A frame or column of numbers as an array of the dtype that holds them all, else `value`; a TypeError at gaps.

    numpy makes objects of booleans beside floats, and of dtypes that may have gaps, such as Int64.
    """
    dtypes = list(value.dtypes) if hasattr(value, "columns") else [getattr(value, "dtype", None)]
    if not dtypes or any(getattr(dtype, "kind", "O") not in "buif" for dtype in dtypes):
        return value
    # Extension dtypes say which dtype of numpy holds their numbers; those of sparse columns call it otherwise.
    held = [getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype)) for dtype in dtypes]
    may_have_gaps = [not isinstance(dtype, np.dtype) for dtype in dtypes]  # in others a NaN is a number
    if any(may_have_gaps):
        is_gap = np.asarray(value.isna()) & (may_have_gaps if hasattr(value, "columns") else True)
        if is_gap.any():
            raise TypeError(f"{what}: expected numbers, got {_gaps(value, is_gap)}")
    return value.to_numpy(dtype=np.result_type(*held))


def _is_gap(value: Any) -> bool:
    """Whether an object says that there is no number: None, or one that is not equal to itself, as pandas.NA."""
    try:
        return value is None or not (isinstance(value, Real) or value == value)
    except TypeError:  # pandas.NA == pandas.NA has no truth value
        return True
    except Exception:  # objects may raise anything
        return False


def _gaps(table: Any, is_gap: npt.NDArray[np.bool_]) -> str:
    """How many gaps there are, by column, and what to do."""
    if is_gap.ndim != 2:
        where = f"{np.count_nonzero(is_gap)}, the first in row {np.argmax(is_gap)}"
    else:
        columns = np.flatnonzero(is_gap.any(axis=0)).tolist()
        where = ", ".join(
            f"{np.count_nonzero(is_gap[:, j])} in column {j}{_name_of_column(table, j)}" for j in columns[:MOST_NAMED]
        )
        more = len(columns) - MOST_NAMED
        where += f" and more in {more} other columns" * (more > 0)
    return f"gaps: {where}; fill them, as fillna of pandas does, or leave these rows out, as dropna does"


def _name_of_column(table: Any, j: int) -> str:
    """The name of a frame's column, for a message; "" if it has none but its number."""
    try:
        name = list(table.columns)[j]  # of a frame of pandas or polars
    except Exception:  # another table has no names
        return ""
    return "" if isinstance(name, int) and name == j else f" {shown(name)}"


def _not_a_number(array: npt.NDArray[Any]) -> str:
    """The first element of an array of objects that is not a number, and where it is; "" if all are."""
    if _are_numbers(array):
        return ""
    for index, value in np.ndenumerate(array):
        if not _are_numbers(np.array(value, object)):
            at = f" at [{', '.join(map(str, index))}]" if index else ""
            return f"{shown(value)}{at}{_instead(value)}"
    return ""


def _column_without_numbers(table: Any, array: npt.NDArray[Any]) -> str:
    """The first cell of a table of objects that is not a number, and what to do; "" if all are, or in other arrays."""
    if array.ndim != 2 or array.dtype.kind not in "OSU":
        return ""
    for j in range(array.shape[1]):
        column = array[:, j]
        if _are_numbers(column):
            continue
        i = next((i for i in range(len(column)) if not _are_numbers(column[i : i + 1])), 0)
        cell = column[i : i + 1].tolist()[0]
        if _instead(cell):
            return ""
        way = "encode the column as numbers, as pandas.get_dummies does,"
        way = way if isinstance(cell, str) else "convert the column to numbers"
        return f"{shown(cell)} in row {i} of column {j}{_name_of_column(table, j)}; {way} or leave it out"
    return ""


def _are_numbers(values: npt.NDArray[Any]) -> bool:
    try:
        values.astype(float)
    except Exception:  # objects may raise anything
        return False
    return True


def integer_row(what: str, value: Any) -> Int64:
    """`value` as int64 of shape (n,); a TypeError if it is anything but a row of integers."""
    array = real_array(what, value, "astype(int)")
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"{what}: expected a row of integers, got {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def float_array(what: str, value: npt.ArrayLike, shape: tuple[int | None, ...], *, nan: bool = False) -> Float32:
    """`value` as float32 of this shape, where None stands for any length; else a TypeError or ValueError.

    A NaN is a ValueError, too, unless `nan`.
    """
    array = real_array(what, value)
    if array.ndim != len(shape) or any(e is not None and e != s for e, s in zip(shape, array.shape, strict=True)):
        expected = ", ".join("n" if e is None else str(e) for e in shape) + "," * (len(shape) == 1)
        raise ValueError(f"{what}: expected shape ({expected}), got {array.shape}")
    if not nan and array.dtype.kind == "f" and np.isnan(array).any():
        at = ", ".join(str(i) for i in np.argwhere(np.isnan(array))[0])
        raise ValueError(f"{what}: expected numbers, got nan{f' at [{at}]' if at else ''}")
    try:
        with np.errstate(over="raise", under="ignore"):
            return array.astype(np.float32, copy=False)
    except FloatingPointError:
        largest = np.abs(array[np.isfinite(array)]).max()
        raise ValueError(f"{what}: expected numbers that float32 can hold, got {largest}") from None
