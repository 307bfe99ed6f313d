from typing import Any

import numpy.typing as npt

_Array = npt.NDArray[Any]

def sort(
    start: _Array, count: _Array, pool: _Array, outputs: _Array, level: _Array, order: _Array
) -> tuple[int, list[int]]: ...
def spread(start: _Array, count: _Array, pool: _Array, order: _Array, flag: _Array) -> None: ...
def merge(
    code: _Array, start: _Array, count: _Array, pool: _Array, order: _Array, identity: _Array, commutes: _Array, same: _Array
) -> None: ...
def find_neurons(
    kind: _Array, start: _Array, count: _Array, pool: _Array, order: _Array, is_output: _Array, root: _Array, begin: _Array,
    source: _Array, weight: _Array, bias: _Array, readers: _Array,
) -> int: ...
