from typing import Any, Protocol

import numpy.typing as npt

_Array = npt.NDArray[Any]

class Call:
    def run(self) -> int: ...

class Sweep: ...

class _Kernels(Protocol):
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
    def Program(self, plan: object, edges: _Array | None = None) -> object: ...
    def Buffers(self) -> object: ...
    def Batch(
        self,
        bytes: _Array | None,
        floats: _Array | None,
        label: _Array | None = None,
        target: _Array | None = None,
        weight: _Array | None = None,
        reach: float = 1.0,
    ) -> object: ...
    def Sweep(
        self,
        program: object,
        vectors: tuple[_Array | None, ...],
        buffers: object,
        *,
        units: _Array | None = None,
        optimizer: int = 1,
        hyper: tuple[float, float, float] = ...,
        n_workers: int = 1,
        n_tiles: int = 1,
        wide: int = 1,
        at_once: int = 1,
        sparse: bool = False,
        ahead: bool = False,
        as_bytes: bool = False,
        in_packs: bool = False,
        columns: _Array | None = None,
        backward: bool = False,
        first_zeroed: int = 0,
        loss: int = 0,
        loss_slots: _Array | None = None,
        value_slots: _Array | None = None,
        adjoint_slots: _Array | None = None,
    ) -> Sweep: ...
    def Call(
        self,
        sweep: Sweep,
        batch: object,
        steps: tuple[Any, ...] | None = None,
        *,
        seed: int | None = None,
        limit: float = 0.0,
        gradient: _Array | None = None,
        losses: _Array | None = None,
        correct: _Array | None = None,
        values: _Array | None = None,
        adjoints: _Array | None = None,
        highest: _Array | None = None,
    ) -> Call: ...
    def run_each(self, calls: list[Call], n_threads: int) -> None: ...
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
sweep: _Kernels
STACK_BYTES: int
