from typing import Any

import numpy.typing as npt

def levels(
    start: npt.NDArray[Any], count: npt.NDArray[Any], pool: npt.NDArray[Any], outputs: npt.NDArray[Any]
) -> tuple[bytearray, list[int]]: ...
