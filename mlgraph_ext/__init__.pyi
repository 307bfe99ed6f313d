from typing import Any, Literal, Protocol, overload

import numpy.typing as npt

_Array = npt.NDArray[Any]

class _Sweep(Protocol):
    """One build of the kernels (``_sweep.pyx``)."""

    PARALLEL: bool
    TILE_EXAMPLES: int
    PANEL_NEURONS: int
    BYTE_SLOT_FLOATS: int
    RUN_COLUMNS: int
    LIST_TILES: int
    SIDE_BY_SIDE: int
    PACK_TILES: int
    QUAD_NEURONS: int
    UNIT_COLUMNS: int
    WHOLE_UNIT: int

    def max_threads(self) -> int: ...
    def team_size(self) -> int: ...
    def start_team(self, n: int, stack: int) -> int: ...
    def has_room(self, threads: int) -> bool: ...
    def are_finite(self, x: _Array, ranges: _Array) -> bool: ...
    def as_bytes(self, x: _Array, out: _Array, n_threads: int) -> bool: ...
    def shuffle(self, out: _Array, seed: int, epoch: int) -> None: ...
    def sum_steps(
        self,
        first: _Array,
        size: _Array,
        losses: _Array,
        correct: _Array | None,
        loss: _Array,
        right: _Array,
        left_out: _Array,
    ) -> None: ...
    def find_quads(self, alike: _Array, out: _Array) -> None: ...
    def take_columns(self, x: _Array, columns: _Array, out: _Array, size: int, n_threads: int) -> None: ...
    def move(self, x: _Array, origin: _Array, out: _Array, place: _Array, n_threads: int) -> None: ...
    def prepare(
        self,
        *,
        program: _Array,
        index: _Array,
        constants: _Array,
        edges: _Array,
        units: _Array,
        parameters: _Array,
        optimizer: int,
        hyper: tuple[float, float, float],
        first: _Array | None,
        second: _Array | None,
        frozen: _Array | None,
        input_column: _Array,
        backward: bool,
        tiles: _Array,
        n_tiles: int,
        tile_stride: int,
        values_at: int,
        adjoints_at: int,
        first_slot: int,
        n_slots: int,
        first_zeroed: int,
        bytes_at: int,
        entries_at: int,
        first_source: int,
        last_source: int,
        sums: _Array | None,
        pack_sums: _Array | None,
        pack_stride: int,
        first_row: int,
        wide: int,
        at_once: int,
        scratch: _Array,
        n_workers: int,
        scratch_stride: int,
        lists_at: int,
        list_floats: int,
    ) -> bytes: ...
    @overload
    def run(
        self,
        prepared: bytes,
        data_bytes: _Array | None,
        data_floats: _Array | None,
        step_first: _Array | None,
        step_size: _Array | None,
        step_rate: _Array | None,
        step_decay: _Array | None,
        order: _Array | None,
        step_number: int,
        seed: int,
        training: bool,
        limit: float,
        reach: float,
        loss: int,
        loss_slot: _Array | None,
        label: _Array | None,
        target: _Array | None,
        weight: _Array | None,
        gradient: _Array | None,
        losses: _Array | None,
        correct: _Array | None,
        value_slot: _Array,
        value_out: _Array | None,
        highest: _Array | None,
        adjoint_slot: _Array | None,
        adjoint_out: _Array | None,
    ) -> int: ...
    @overload
    def run(self, *given: Any, later: Literal[True]) -> bytes: ...
    def run_each(self, calls: list[bytes], n_threads: int) -> None: ...
    def update_clipped(
        self,
        ranges: _Array,
        gradient: _Array,
        most: float,
        optimizer: int,
        hyper: _Array,
        parameters: _Array,
        first: _Array | None,
        second: _Array | None,
        frozen: _Array | None,
        rate: float,
        decay: float,
        shrink: float,
    ) -> None: ...
    def use_transpose(self, so: bool) -> None: ...
    def entry_floats(self, columns: int, lanes: int) -> int: ...
    def middle_column(self, columns: int) -> int: ...
    def fma_flops(self, repeats: int) -> int: ...
    def hand_over(self, lines: int, turns: int) -> float: ...
    def time_kernel(
        self, kernel: str, fan_in: int, count: int, tiles: int, repeats: int, density: float = 1.0
    ) -> tuple[int, float]: ...
    def apply_op(self, op: int, index: _Array, values: _Array, dst: int) -> None: ...
    def apply_op_adjoint(self, op: int, index: _Array, values: _Array, adjoints: _Array, dst: int) -> None: ...

ISA: str
AVAILABLE: tuple[str, ...]
AFFINITY: tuple[set[int], set[int]]
sweep: _Sweep
STACK_BYTES: int
