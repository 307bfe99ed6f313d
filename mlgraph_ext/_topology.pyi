from typing import Any

import numpy.typing as npt

_Array = npt.NDArray[Any]

def runs(first: _Array, stride: _Array, count: _Array, out: _Array) -> None: ...
def gather(pool: _Array, start: _Array, count: _Array, out: _Array) -> None: ...
def same_lists(start: _Array, count: _Array, pool: _Array, first: _Array) -> None: ...
def place_edges(
    row: _Array, source: _Array, lowest: int, number: _Array, n_sources: int, panel: int, edge: _Array
) -> bool: ...
def sort(
    start: _Array, count: _Array, pool: _Array, outputs: _Array, level: _Array, order: _Array
) -> tuple[int, list[int]]: ...
def spread(start: _Array, count: _Array, pool: _Array, order: _Array, flag: _Array) -> None: ...
def strongest(
    start: _Array,
    count: _Array,
    pool: _Array,
    order: _Array,
    first: _Array,
    score: _Array,
    up: _Array,
    down: _Array,
    all_sources: bool,
    strength: _Array,
    chosen: _Array,
) -> None: ...
def merge(
    code: _Array,
    start: _Array,
    count: _Array,
    pool: _Array,
    order: _Array,
    identity: _Array,
    commutes: _Array,
    same: _Array,
) -> None: ...
def find_neurons(
    kind: _Array,
    start: _Array,
    count: _Array,
    pool: _Array,
    order: _Array,
    is_output: _Array,
    root: _Array,
    begin: _Array,
    source: _Array,
    weight: _Array,
    bias: _Array,
    readers: _Array,
) -> int: ...
