"""Names for the types of arrays, by dtype, and read-only arrays. Shapes are stated in docstrings."""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
UInt8 = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.integer[Any]]

A = TypeVar("A", bound=npt.NDArray[Any])


def read_only(array: A) -> A:
    """Make an array read-only: writing to a copy would change nothing, so it must raise."""
    array.flags.writeable = False
    return array
