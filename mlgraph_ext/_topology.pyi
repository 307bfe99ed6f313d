from array import array
from typing import Any

import numpy.typing as npt

_Array = npt.NDArray[Any]

def runs(first: _Array, stride: _Array, count: _Array, out: _Array) -> None: ...
def gather(pool: _Array, start: _Array, count: _Array, out: _Array) -> None: ...
def counts_of(neurons: _Array, count: array[int], counts: _Array) -> int: ...
def edges_into(
    neurons: _Array,
    start: array[int],
    count: array[int],
    data: array[int],
    pool: array[int],
    weights: _Array | array[int],
    stride: _Array | array[int],
    source: _Array,
    place: _Array,
) -> None: ...
def match_edges(
    neurons: _Array,
    counts: _Array,
    source: _Array,
    wanted_source: _Array,
    wanted_target: _Array,
    n_nodes: int,
    found: _Array,
    there: _Array,
) -> None: ...
def count_left(counts: _Array, gone: _Array, left: _Array) -> tuple[int, int]: ...
def edges_left(source: _Array, gone: _Array, left: _Array, previous: _Array) -> None: ...
def with_added(
    counts: _Array,
    source: _Array,
    which: _Array,
    new_source: _Array,
    new_weight: _Array,
    all_counts: _Array,
    all_source: _Array,
    previous: _Array,
    weight: _Array,
) -> None: ...
def begin_lists(neurons: _Array, counts: _Array, begin: int, start: _Array, count: _Array) -> None: ...
def move(vector: _Array, origin: _Array, out: _Array) -> None: ...
def until_cache_line(x: _Array) -> int: ...
def rewire(
    neurons: _Array,
    counts: _Array,
    begin: _Array,
    previous: _Array,
    at: int,
    most: _Array | None,
    data: array[int],
    start: array[int],
    count: array[int],
    weights: array[int],
    stride: array[int],
    max_sources: array[int],
    most_before: _Array,
    now: _Array,
) -> bool: ...
def in_use(code: array[int], start: array[int], count: array[int], pool: int, bias: array[int]) -> int: ...
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
def distinct(code: _Array, nodes: _Array) -> set[int]: ...

class Groups:
    n: int
    def __init__(
        self,
        nodes: _Array,
        *,
        code: _Array,
        like: _Array,
        start: _Array,
        count: _Array,
        pool: _Array,
        data: _Array,
        level: _Array,
        fused: _Array,
        fused_begin: _Array,
        fused_weight: _Array,
        fused_bias: _Array,
        part: _Array,
        layer: _Array | None,
        off_loss: _Array,
        bias: array[int],
        n_inputs: int,
        dense_from: int,
        dense_among_others: int,
        member: _Array,
        first: _Array,
        dense: _Array,
        alike: _Array,
    ) -> None: ...

class Layout:
    def __init__(self, groups: Groups, bias: array[int], panel: int) -> None: ...
    def in_place(self, weights: array[int], stride: array[int], bias: array[int], used: int, where: _Array) -> int: ...
    def length(self, code: array[int], count: array[int], data: array[int], bias: array[int]) -> int: ...

def put_inputs_first(code: _Array, data: _Array, order: _Array, out: _Array) -> int: ...
def number_slots(node: _Array, same: _Array, slot: _Array) -> None: ...
def first_added(reader: _Array, n_inputs: int, want_inputs: bool) -> int: ...
def move_groups(
    layout: Layout,
    weights: array[int],
    stride: array[int],
    bias: array[int],
    new_weights: array[int],
    new_stride: array[int],
    new_bias: array[int],
    origin: _Array,
    where: _Array,
) -> None: ...
def read_sources(
    groups: Groups, slot: _Array, n_slots: int, wants: _Array, n_inputs: int, whole: _Array, facts: _Array
) -> tuple[bool, int, int, bool, bool, int, int, int]: ...
def row_parameters(program: _Array) -> tuple[int, int]: ...
def add_neurons(
    groups: Groups,
    slot: _Array,
    node_of: _Array,
    wants: _Array,
    n_inputs: int,
    whole: _Array,
    in_quads: _Array,
    facts: _Array,
    where: _Array,
    lanes: int,
    panel: int,
    n_extra: int,
    program: _Array,
    index: _Array,
    index_at: int,
    reader: _Array,
) -> tuple[int, int, int]: ...
