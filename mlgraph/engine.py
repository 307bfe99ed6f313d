"""Runs a plan over data: checks what comes, owns the working memory, decides on threads, calls the sweep."""

from __future__ import annotations

import os
import warnings
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import mlgraph_ext
from mlgraph.graph import PANEL, Float32, Graph, aligned, real_array
from mlgraph.lowering import Ints
from mlgraph.plan import LANES, Plan

LOSSES = {"none": 0, "softmax_cross_entropy": 1, "squared_error": 2, "node": 3, "cotangent": 4}
"""Losses, as the kernels number them."""

OPTIMIZERS = {"accumulate": 0, "sgd": 1, "momentum": 2, "adam": 3}
"""What becomes of a gradient, as the kernels number it."""

BYTE_SCALE = (np.arange(256) / 255).astype(np.float32)
"""What a byte of uint8 data stands for."""

SPARSE_BELOW = 0.4
"""Share of nonzeros in the data below which examples are walked nonzero by nonzero."""

CHUNKS = 6
"""Pieces of the columns whose gradients have one owner each: a few for each thread, so that uneven ones level out."""

COLUMN_FLOATS = 1 + 2 * 128
"""Scratch for each column of a chunk: a length, and places and values of up to 128 nonzeros (``_columns.pxi``)."""

WORK_PER_THREAD = 400_000
"""Multiply-adds of a step for which one more thread pays: about 10 microseconds, several times what waiting costs."""


@cache
def _cgroup_quota() -> int | None:
    """Processors that the cgroup of this process may use; None without a quota."""
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()[:2]
        return None if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None  # no cgroup v2 here


@cache
def _warn_of_one_thread() -> None:
    warnings.warn("mlgraph was built without OpenMP and runs on one thread", RuntimeWarning, stacklevel=3)


def available_threads() -> int:
    """Processors this process may use: affinity, cgroup quota and OMP_NUM_THREADS respected."""
    if not mlgraph_ext.sweep.PARALLEL:
        _warn_of_one_thread()
        return 1
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    quota = _cgroup_quota()
    if quota is not None:
        limits.append(quota)
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if value.isdigit() and int(value) > 0:
        limits.append(int(value))
    return min(limits)


_forked = False


def _after_fork() -> None:
    # libgomp's pool does not survive a fork: a child that enters a parallel region waits for threads that are not there.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def threads_for(n_threads: int | None, work: float) -> int:
    """Number of threads for a step of `work` multiply-adds.

    Parameters
    ----------
    n_threads : int or None
        The user's wish, at least 1; None: as many as the machine has and the work is worth.
    """
    if n_threads is not None and (not isinstance(n_threads, int | np.integer) or n_threads < 1):
        raise ValueError(f"n_threads: expected a number of at least 1 or None, came {n_threads!r}")
    if _forked:
        return 1
    if n_threads is not None:
        return int(n_threads)
    worth = int(work // WORK_PER_THREAD)
    return min(available_threads(), worth) if worth > 1 else 1


class Nonzeros(NamedTuple):
    """The nonzeros of all examples in compressed rows; the fields are the kernels'."""

    start: Ints
    column: npt.NDArray[np.uint16]
    byte: npt.NDArray[np.uint8] | None
    value: Float32 | None
    cut: npt.NDArray[np.uint16]
    chunk: npt.NDArray[np.int32]


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
    """

    def __init__(self, x: npt.ArrayLike, n_inputs: int, what: str = "x") -> None:
        array = real_array(what, x)
        if array.ndim != 2 or array.shape[1] != n_inputs:
            raise ValueError(f"{what}: expected shape (examples, {n_inputs}), came {array.shape}")
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
            self.array: npt.NDArray[Any] = np.ascontiguousarray(array, np.uint8 if array.dtype == np.uint8 else np.float32)
        self._what = what
        self._nonzeros: dict[bytes, Nonzeros | None] = {}

    def __len__(self) -> int:
        return len(self.array)

    @property
    def bytes(self) -> npt.NDArray[np.uint8] | None:
        """The data if they are bytes."""
        return self.array if self.array.dtype == np.uint8 else None

    @property
    def floats(self) -> Float32 | None:
        """The data if they are floats."""
        return self.array if self.array.dtype != np.uint8 else None

    def check_trainable(self) -> None:
        """Raise ValueError if there is no example, or one has a value that is not finite; it names the first."""
        if len(self) == 0:
            raise ValueError(f"{self._what}: expected at least one example, came none")
        with np.errstate(invalid="ignore"):  # inf - inf
            finite = self.floats is None or np.isfinite(self.floats.sum(dtype=np.float64))
        if not finite:
            i, j = np.argwhere(~np.isfinite(self.array))[0]
            raise ValueError(f"{self._what}: expected finite numbers, came {self.array[i, j]} in example {i}, column {j}")

    def nonzeros(self, columns: npt.NDArray[np.int32], n_threads: int) -> Nonzeros | None:
        """The nonzeros of these columns, numbered from 0; None where the data are too dense for it to pay."""
        key = columns.tobytes()
        if key not in self._nonzeros:
            self._nonzeros[key] = self._compress(columns, n_threads)
        return self._nonzeros[key]

    def _compress(self, columns: npt.NDArray[np.int32], n_threads: int) -> Nonzeros | None:
        sample = self.array[:: max(1, len(self) // 256)]
        if np.count_nonzero(sample) > SPARSE_BELOW * sample.size:
            return None
        array = self.array if len(columns) == self.array.shape[1] else np.ascontiguousarray(self.array[:, columns])
        chunk = np.array([0, len(columns)], np.int32)
        if len(self) >= 64:
            # Chunks of about equal work, that begin at multiples of 8 columns: the compressor looks at 8 bytes at once.
            work = np.cumsum(np.count_nonzero(sample[:, columns], axis=0) + 0.01)
            cuts = np.searchsorted(work, work[-1] * np.arange(1, CHUNKS) / CHUNKS) // 8 * 8
            chunk = np.unique([0, *cuts, len(columns)]).astype(np.int32)
        is_bytes = array.dtype == np.uint8
        bytes, floats = (array, None) if is_bytes else (None, array)
        start = np.zeros(len(array) + 1, np.int64)
        mlgraph_ext.sweep.count_nonzero(bytes, floats, start[1:], n_threads)
        np.cumsum(start, out=start)
        column = np.empty(max(1, start[-1]), np.uint16)
        byte = np.empty(len(column), np.uint8) if is_bytes else None
        value = None if is_bytes else np.empty(len(column), np.float32)
        cut = np.empty((len(array), len(chunk)), np.uint16)
        mlgraph_ext.sweep.compress(bytes, floats, start, chunk, column, byte, value, cut, n_threads)
        return Nonzeros(start, column, byte, value, cut, chunk)


class Engine:
    """Runs one plan; keeps the working memory between runs."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph, self.plan = graph, plan
        self._memory = aligned(0)
        self._scratch = aligned(0)
        self._units: dict[bytes, tuple[Ints, int]] = {}

    def run(
        self,
        examples: Examples,
        *,
        first: npt.ArrayLike = (0,),
        size: npt.ArrayLike | None = None,
        rate: npt.ArrayLike | None = None,
        order: Ints | None = None,
        label: npt.NDArray[np.int32] | None = None,
        target: Float32 | None = None,
        loss: str = "none",
        loss_nodes: Any = (),
        optimizer: str | None = None,
        hyper: tuple[float, float, float] = (0.0, 0.0, 0.0),
        training: bool = False,
        backward: bool = False,
        step_number: int = 0,
        seed: int = 0,
        losses: Float32 | None = None,
        correct: npt.NDArray[np.uint8] | None = None,
        values: Any = (),
        adjoints: Any = (),
        n_threads: int | None = None,
    ) -> tuple[int, Float32 | None, Float32 | None]:
        """Run steps of the plan.

        Parameters
        ----------
        examples : Examples
        first, size, rate : array_like, shape (steps,)
            Step i takes ``size[i]`` examples from place ``first[i]`` of `order` on, at learning rate ``rate[i]``. By
            default one step of all examples.
        order : int64, shape (any,), optional
            Examples by place; as they come by default.
        label : int32, shape (examples,), optional
        target : float32, shape (examples, outputs), optional
            Targets of the squared error, or cotangents.
        loss : str
            A key of `LOSSES`.
        loss_nodes : sequence of int
            The node that the loss begins with (logsumexp, or the loss itself), then the outputs.
        optimizer : str, optional
            A key of `OPTIMIZERS`; without one there is no second phase.
        hyper : (float, float, float)
            Momentum or beta1, beta2, epsilon.
        training : bool
            Whether neurons and edges are dropped and values that are not finite stop the run.
        backward : bool
        step_number, seed : int
            Of the first step; with the seed they fix what is dropped.
        losses, correct : float32 and uint8, shape (len(order),), optional
            Filled with the loss of each example, and whether its highest output is its label's, by place in `order`.
        values, adjoints : sequence of int
            Nodes whose values or adjoints are wanted of each example.
        n_threads : int, optional

        Returns
        -------
        bad : int
            -1, or the step at which the run stopped because something was not finite.
        values, adjoints : float32, shape (examples, nodes), or None
        """
        plan, slot = self.plan, self.plan.slot
        size = np.array([len(examples)] if size is None else size, np.int64)
        first = np.asarray(first, np.int64)
        rate = np.zeros(len(size), np.float32) if rate is None else np.asarray(rate, np.float32)
        most = int(size.max()) if len(size) else 0
        if most == 0:
            return -1, np.zeros((0, len(values)), np.float32), np.zeros((0, len(adjoints)), np.float32)
        n_threads = threads_for(n_threads, plan.n_edges * most)
        nonzeros = None
        value_slots = slot[np.array(values, np.int32)]
        adjoint_slots = slot[np.array(adjoints, np.int32)]
        loss_slots = slot[np.array(loss_nodes, np.int32)] if len(loss_nodes) else np.zeros(1, np.int32)
        if plan.sparse_ready and not plan.want_inputs and self._weights_are_finite():
            n_in = len(plan.input_column)
            wanted = [value_slots, adjoint_slots, loss_slots if len(loss_nodes) else value_slots]
            if all((slots >= n_in).all() for slots in wanted):
                nonzeros = examples.nonzeros(plan.input_column, n_threads)
        first_slot = len(plan.input_column) if nonzeros is not None else 0
        chunk = nonzeros.chunk if nonzeros is not None else None
        units, unit_floats = self._units_for(chunk) if optimizer else (np.zeros((0, 6), np.int64), PANEL)

        slots = (plan.n_slots - first_slot) * LANES
        stride = plan.n_extra + slots * (2 if backward else 1)
        tiles = -(-most // LANES) if optimizer else n_threads
        self._memory = _at_least(self._memory, stride * max(tiles, n_threads))
        # What a worker needs: two gradients of a unit, nonzeros sorted by column, masked weights.
        columns = 0 if chunk is None or not optimizer else -(-int(np.diff(chunk).max()) * COLUMN_FLOATS // PANEL) * PANEL
        scratch_stride = 2 * unit_floats + columns + plan.n_masked
        self._scratch = _at_least(self._scratch, scratch_stride * n_threads)
        program = plan.program
        if plan.n_masked:
            program = program.copy()
            program[:, -1] += 2 * unit_floats + columns
        moments: list[Float32 | None] = [None, None]
        if optimizer in ("accumulate", "momentum", "adam"):
            moments[0] = self.graph.state_vector("gradient" if optimizer == "accumulate" else "first", fresh=False)
        if optimizer == "adam":
            moments[1] = self.graph.state_vector("second", fresh=False)
        value_out = np.empty((len(examples), len(values)), np.float32) if len(values) else None
        adjoint_out = np.empty((len(examples), len(adjoints)), np.float32) if len(adjoints) else None
        bad = mlgraph_ext.sweep.run(
            program=program, index=plan.index, constants=plan.constants, units=units,
            parameters=self.graph.parameters, optimizer=OPTIMIZERS[optimizer or "sgd"],
            hyper=np.array(hyper, np.float32), first=moments[0], second=moments[1],
            bytes=examples.bytes, floats=examples.floats, scale=BYTE_SCALE, input_column=plan.input_column,
            nonzero=None if nonzeros is None else tuple(nonzeros), label=label, target=target, order=order,
            step_first=first, step_size=size, step_rate=rate, step_number=step_number, seed=seed & 0xFFFFFFFFFFFFFFFF,
            training=training, backward=backward, loss=LOSSES[loss], loss_slot=loss_slots,
            losses=losses, correct=correct, value_slot=value_slots, value_out=value_out,
            adjoint_slot=adjoint_slots, adjoint_out=adjoint_out,
            tiles=self._memory, tile_stride=stride, values_at=plan.n_extra - first_slot * LANES,
            adjoints_at=plan.n_extra + slots - first_slot * LANES, first_slot=first_slot, n_slots=plan.n_slots,
            scratch=self._scratch, scratch_stride=scratch_stride, columns_at=2 * unit_floats, n_threads=n_threads,
        )  # fmt: skip
        return bad, value_out, adjoint_out

    def _units_for(self, chunk: npt.NDArray[np.int32] | None) -> tuple[Ints, int]:
        key = b"" if chunk is None else chunk.tobytes()
        if key not in self._units:
            units = self.plan.units(0 if chunk is None else len(chunk) - 1)
            self._units[key] = units, self.plan.unit_floats(units, chunk)
        return self._units[key]

    def _weights_are_finite(self) -> bool:
        # 0 * inf is not 0: with such a weight no source may be skipped. (Where only the sum overflows, none need be.)
        with np.errstate(over="ignore", invalid="ignore"):
            for _, ins in self.plan.trained:
                if ins.reads_data and not np.isfinite(self.graph.parameters[ins.weights : ins.weights + ins.n_weights].sum()):
                    return False
        return True


def _at_least(memory: Float32, n: int) -> Float32:
    return memory if len(memory) >= n else aligned(n)
