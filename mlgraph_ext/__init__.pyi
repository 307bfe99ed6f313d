from typing import Any, Protocol

import numpy.typing as npt

_Array = npt.NDArray[Any]

class _Sweep(Protocol):
    """One build of the kernels (``_sweep.pxi``)."""

    PARALLEL: bool

    def run(
        self, *, program: _Array, index: _Array, constants: _Array, units: _Array, parameters: _Array, optimizer: int,
        hyper: _Array, first: _Array | None, second: _Array | None, bytes: _Array | None, floats: _Array | None,
        scale: _Array, input_column: _Array, nonzero: tuple[_Array | None, ...] | None, label: _Array | None,
        target: _Array | None, order: _Array | None, step_first: _Array, step_size: _Array, step_rate: _Array,
        step_number: int, seed: int, training: bool, backward: bool, loss: int, loss_slot: _Array, losses: _Array | None,
        correct: _Array | None, value_slot: _Array, value_out: _Array | None, adjoint_slot: _Array,
        adjoint_out: _Array | None, tiles: _Array, tile_stride: int, values_at: int, adjoints_at: int, first_slot: int,
        n_slots: int, scratch: _Array, scratch_stride: int, columns_at: int, n_threads: int,
    ) -> int: ...
    def count_nonzero(self, bytes: _Array | None, floats: _Array | None, out: _Array, n_threads: int) -> None: ...
    def compress(
        self, bytes: _Array | None, floats: _Array | None, start: _Array, chunk: _Array, column: _Array,
        byte: _Array | None, value: _Array | None, cut: _Array, n_threads: int,
    ) -> None: ...
    def fma_flops(self, repeats: int) -> int: ...
    def kernel_flops(
        self, kernel: str, fan_in: int, count: int, tiles: int, repeats: int, density: float = 1.0
    ) -> int: ...
    def apply_op(self, op: int, index: _Array, values: _Array, dst: int) -> None: ...
    def apply_op_adjoint(self, op: int, index: _Array, values: _Array, adjoints: _Array, dst: int) -> None: ...

ISA: str
AVAILABLE: tuple[str, ...]
sweep: _Sweep
