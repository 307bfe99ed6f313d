"""Quantized functions: neurons in 8-bit integers, as small processors compute them, and the same integers in numpy.

A number is stored as the byte ``number / scale + zero``, rounded and clipped. Every neuron has a scale and a zero of
its own, from the range of its values over the examples that calibrate; the inputs share theirs. A neuron is computed
in three steps:

1. ``sum = bias + weights @ bytes`` in 32 bits. Weights have 8 bits; `bias` contains what the sources' zeros add.
2. ``sum * multiplier / 2**shift``, rounded half up, with a product of 64 bits. This is the single rounding of
   TensorFlow Lite's ``MultiplyByQuantizedMultiplier`` (tensorflow/lite/kernels/internal/common.cc).
3. Plus `zero`, clipped to a byte. For a curved activation, this byte is the place of the value in a table.

Scales of sources are part of the weights, and all weights of a neuron are multiples of one number, its step. An output
that no neuron reads ends with step 2, so that it keeps 32 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Float64, Int32, Int64, UInt8
from mlgraph._support.checks import real_array
from mlgraph.compiler.instructions import KINDS, OF_NEURONS
from mlgraph.compiler.plan import Plan
from mlgraph.engine.examples import Examples
from mlgraph.engine.reference import arguments_of, neuron
from mlgraph.engine.units import Units
from mlgraph.graph import ops
from mlgraph.graph.graph import Graph
from mlgraph.graph.views import name_of

LINEAR = ("identity", "relu", "leaky_relu")
"""Activations that are computed from the sum; the others are tables."""

LEAK_DIVISOR = round(1 / ops.LEAK)
"""For negative sums, the multiplier of a leaky ReLU is divided by this."""

WEIGHT_MAX, BYTE_MAX, SUM_MAX = 127, 255, 2**31 - 1

BIAS_MAX = 2**30
"""Largest bias before zeros are added: half of what a sum can hold."""

TINY = 2.0**-100
"""Scale of a number that is always 0."""

GRID = 2**16 + 1
"""Number of places at which an activation is computed to find where it is flat."""

AT_ONCE = 2**20
"""Number of values that are computed at a time, which bounds the memory."""


class Block(NamedTuple):
    """Neurons with the same activation and the same sources, in real numbers or in integers.

    Attributes
    ----------
    op : str
        Name of the activation.
    group : int
        Number of the plan's instruction.
    slots : int64, shape (neurons,)
    sources : int64, shape (sources,)
        Slots, ascending.
    weights : float64, shape (neurons, sources)
    bias : float64, shape (neurons,)
    """

    op: str
    group: int
    slots: Int64
    sources: Int64
    weights: Float64
    bias: Float64

    def sums(self, values: Float64) -> Float64:
        """Weighted sums, shape (neurons, examples); exact for integers of which no sum exceeds 32 bits."""
        sums: Float64 = self.weights @ values[self.sources] + self.bias[:, None]
        return sums

    def take(self, which: Bool) -> Block:
        """Some of the neurons."""
        return self._replace(slots=self.slots[which], weights=self.weights[which], bias=self.bias[which])


class Rescaling(NamedTuple):
    """How sums become other integers, ``sum * multiplier / 2**shift + zero``: int64 of shape (neurons,)."""

    multiplier: Int64
    shift: Int64
    zero: Int64

    def __call__(self, sums: Int64, op: str = "identity") -> Int64:
        """Integers of shape (neurons, examples); `op` is a linear activation."""
        multiplier, shift, zero = (column[:, None] for column in self)
        if op == "leaky_relu":
            multiplier = np.where(sums < 0, multiplier // LEAK_DIVISOR, multiplier)
        product = (np.maximum(sums, 0) if op == "relu" else sums) * multiplier
        return (((product >> (shift - 1)) + 1) >> 1) + zero


def rescaling(factor: Float64, zero: npt.ArrayLike = 0) -> Rescaling:
    """Rescaling by positive factors; the multipliers have 31 bits."""
    mantissa, exponent = np.frexp(factor)
    multiplier, shift = np.rint(mantissa * 2**31).astype(np.int64), 31 - exponent.astype(np.int64)
    carried = multiplier == 2**31
    multiplier, shift = np.where(carried, 2**30, multiplier), shift - carried
    # Beyond a shift of 63 every sum rounds to 0; below a shift of 1 every sum but 0 is clipped.
    multiplier = np.where(shift > 63, 0, np.where(shift < 1, SUM_MAX, multiplier))
    return Rescaling(multiplier, np.clip(shift, 1, 63), np.broadcast_to(np.asarray(zero, np.int64), shift.shape))


class Table(NamedTuple):
    """A curved activation: ``entries[i]`` is the byte of its value at ``(i - zero) * scale``."""

    scale: float
    zero: int
    entries: UInt8


class QuantizedFunction:
    """A function in integers, made by `quantize` of a model or function; the C that `to_c` writes gives the same bits.

    Attributes
    ----------
    n_inputs : int
    input_scale, input_zero : float, int
        A byte b of the inputs stands for the number ``(b - input_zero) * input_scale``.
    output_scale : float
        An integer y of the outputs stands for the number ``y * output_scale``.
    """

    def __init__(
        self, plan: Plan, graph: Graph, outputs: list[int], calibrate: Examples, units: Units | None = None
    ) -> None:
        self.units = units
        self.n_inputs, self.columns, self.n_slots = plan.n_columns, plan.input_column, plan.n_slots
        self.outputs = outputs

        def named(slot: int) -> str:
            return name_of(graph, plan.graph_node(slot))

        constants = _constants(plan, graph.parameters)
        blocks = _blocks(plan, graph.parameters, constants, outputs, named)
        sums, values = _ranges(blocks, plan, calibrate, named)
        curved = {op: np.concatenate([b.slots for b in blocks if b.op == op]) for op in {b.op for b in blocks}}
        curved = {op: slots for op, slots in sorted(curved.items()) if op not in LINEAR}
        n_in = len(self.columns)
        for slots in (np.arange(n_in), *curved.values()):
            values[slots] = _union(values[slots])  # inputs share a scale, and so do neurons that share a table
        scale, zero = _scale_and_zero(values)
        self.input_scale, self.input_zero = (float(scale[0]), int(zero[0])) if n_in else (1.0, 0)
        self.tables = {op: _table(op, _union(sums[at]), scale[at[0]], zero[at[0]]) for op, at in curved.items()}

        self.hidden: list[tuple[Block, Rescaling]] = []
        read = {slot for block in blocks for slot in block.sources.tolist()}
        scored: list[tuple[Block, Float64, Float64]] = []
        for block in blocks:
            integers, step, largest = _in_integers(block, scale, zero, named)
            last = np.array([block.op in LINEAR and slot not in read for slot in block.slots.tolist()], bool)
            if last.any():
                scored.append((integers.take(last), step[last], largest[last]))
            if not last.all():
                integers, step = integers.take(~last), step[~last]
                at = integers.slots
                if block.op in LINEAR:
                    scale[at] = np.maximum(scale[at], step)  # a finer scale would not tell more values apart
                    zero[at] = np.rint(-values[at, 0] / scale[at])
                    by = rescaling(step / scale[at], zero[at])
                else:
                    by = rescaling(step / self.tables[block.op].scale, self.tables[block.op].zero)
                self.hidden.append((integers, by))

        ended = {slot for block, *_ in scored for slot in block.slots.tolist()}
        others = sorted({*outputs} - {*constants} - ended)
        fixed = {slot: constants[slot] for slot in outputs if slot in constants}
        self.output_scale = _output_scale(scale[others], np.array([*fixed.values()]), scored)
        self.scores = [(block, rescaling(step / self.output_scale)) for block, step, _ in scored]
        self.bytes = {slot: (int(zero[slot]), rescaling(scale[[slot]] / self.output_scale)) for slot in others}
        self.constants = {slot: round(value / self.output_scale) for slot, value in fixed.items()}

    def __repr__(self) -> str:
        return f"<QuantizedFunction of {self.n_inputs} inputs: {len(self.outputs)} outputs, {self.n_weights} weights>"

    @property
    def n_weights(self) -> int:
        """Number of weights that are not 0."""
        return sum(int(np.count_nonzero(block.weights)) for block, _ in (*self.hidden, *self.scores))

    def __call__(self, x: npt.ArrayLike) -> Float32:
        """Values of the outputs, as the integers give them: a measure of what quantization costs.

        Parameters
        ----------
        x : array_like, shape (batch, inputs)
            As for the function or the model that was quantized.

        Returns
        -------
        float32, shape (batch, outputs)

        Raises
        ------
        TypeError, ValueError
            If the data are not real numbers, or not of this shape, or bytes; see `Function.quantize`.
        """
        return (self.run(self.encode(x)) * self.output_scale).astype(np.float32)

    def encode(self, x: npt.ArrayLike) -> UInt8:
        """Numbers as bytes, rounded, and clipped to the range of the examples that calibrated.

        Parameters
        ----------
        x : array_like, shape (batch, inputs)

        Returns
        -------
        uint8, shape (batch, inputs)
            What the C function reads.

        Raises
        ------
        TypeError, ValueError
            As for a call; also for NaN.
        """
        array = (self.units.read(x, "x") if self.units else numbers("x", x, self.n_inputs)).array
        if np.isnan(array).any():
            raise ValueError(f"x: expected numbers, got nan in example {np.argwhere(np.isnan(array))[0][0]}")
        with np.errstate(over="ignore"):
            return _bytes(array / self.input_scale + self.input_zero)

    def run(self, x: npt.ArrayLike) -> Int32:
        """The outputs of the C function for its inputs, as integers.

        Parameters
        ----------
        x : uint8, shape (batch, inputs)
            As `encode` gives them.

        Returns
        -------
        int32, shape (batch, outputs)

        Raises
        ------
        TypeError, ValueError
            If `x` is not of this type and shape.
        """
        codes = real_array("x", x)
        if codes.dtype != np.uint8:
            raise TypeError(f"x: expected bytes, which `encode` makes of numbers, got {codes.dtype}")
        codes = Examples(codes, self.n_inputs).array
        y = np.empty((len(codes), len(self.outputs)), np.int32)
        for rows in _chunks(len(codes), self.n_slots):
            values = np.zeros((self.n_slots, len(y[rows])))
            values[: len(self.columns)] = codes[rows][:, self.columns].T
            for block, by in self.hidden:
                found = np.clip(by(block.sums(values).astype(np.int64), block.op), 0, BYTE_MAX)
                values[block.slots] = self.tables[block.op].entries[found] if block.op in self.tables else found
            for block, by in self.scores:
                values[block.slots] = by(block.sums(values).astype(np.int64), block.op)
            for slot, (zero, by) in self.bytes.items():
                values[slot] = by(values[[slot]].astype(np.int64) - zero)
            for slot, value in self.constants.items():
                values[slot] = value
            y[rows] = values[self.outputs].T
        return y

    def to_c(self, name: str = "function") -> str:
        """Write the function as C99: ``void name(const uint8_t *x, int32_t *y)``, for one example.

        The text is a complete file that needs only ``stdint.h``: no other library, no numbers of floating point, no
        static memory. Weights are constants. Those of neurons that have lost most of their sources are stored with
        the distance from source to source; others are a matrix with zeros. A comment at the top tells the scales.

        Parameters
        ----------
        name : str
            Name of the function in C.

        Returns
        -------
        str
            ``x`` has a byte for each input, `encode` tells which, and ``y`` gets the integers of `run`.

        Raises
        ------
        ValueError
            If `name` is not an identifier of C, or is used by math.h, stdint.h or in the file.
        """
        from mlgraph.engine.c_int8 import c_int8

        return c_int8(self, name)


def numbers(what: str, x: npt.ArrayLike, n_inputs: int) -> Examples:
    """Examples of a function, but no bytes: a model divides them by 255 and a function does not."""
    array = real_array(what, x)
    if array.dtype == np.uint8 and array.max(initial=0) > 1:
        raise ValueError(
            f"{what}: expected the numbers that the function reads, got bytes; pass {what} / 255 if a model was fitted "
            f"on bytes, whose own `quantize` takes them as they are, or {what}.astype(float) if the inputs are from 0 "
            "to 255"
        )
    return Examples(array.astype(np.float32) if array.dtype == np.uint8 else array, n_inputs, what)


def _bytes(numbers: npt.NDArray[Any]) -> UInt8:
    rounded: UInt8 = np.clip(np.rint(numbers), 0, BYTE_MAX).astype(np.uint8)
    return rounded


def _chunks(n: int, n_slots: int) -> list[slice]:
    size = max(1, AT_ONCE // max(1, n_slots))
    return [slice(first, first + size) for first in range(0, n, size)]


def _constants(plan: Plan, parameters: Float32) -> dict[int, float]:
    """Values of the slots that hold constants and parameters."""
    found: dict[int, float] = {}
    for ins in plan.instructions:
        if ins.kind in (KINDS["constant"], KINDS["parameter"]):
            vector = plan.constants if ins.kind == KINDS["constant"] else parameters
            found |= enumerate(vector[ins.weights : ins.weights + ins.size].tolist(), ins.dst)
    return found


def _blocks(
    plan: Plan, parameters: Float32, constants: dict[int, float], outputs: Sequence[int], named: Callable[[int], str]
) -> list[Block]:
    """The neurons of a plan in topological order; ValueError for other operations."""
    of_neurons = [(i, ins) for i, ins in enumerate(plan.instructions) if ins.kind in OF_NEURONS]
    edges = [[neuron(plan, ins, n) for n in range(ins.size)] for _, ins in of_neurons]
    readers = np.bincount(np.array(outputs), minlength=plan.n_slots)
    for (_, ins), each in zip(of_neurons, edges, strict=True):
        for sources, _ in each[:1] if ins.kind == KINDS["dense"] else each:
            readers[sources] += 1
    sums = {ins.dst + n for _, ins in of_neurons if ops.BY_CODE[ins.op].name == "identity" for n in range(ins.size)}
    activation: dict[int, tuple[int, str]] = {}  # of sums whose activation is an operation
    for ins in plan.instructions:
        if ins.kind == KINDS["operation"]:
            name = ops.BY_CODE[ins.op].name
            for slot, arguments in enumerate(arguments_of(plan, ins).tolist(), ins.dst):
                z = arguments[0]
                if name not in ops.ACTIVATIONS or z not in sums or readers[z] or z in activation:
                    raise ValueError(
                        f"{named(slot)}: {name} is an operation, and only neurons can be quantized; of a classifier, "
                        "compile `outputs` instead of `probabilities`"
                    )
                activation[z] = slot, name
    blocks = []
    for (group, ins), each in zip(of_neurons, edges, strict=True):
        bias = parameters[ins.bias : ins.bias + ins.size] if ins.bias >= 0 else np.zeros(ins.size)
        ends = [activation.get(ins.dst + n, (ins.dst + n, ops.BY_CODE[ins.op].name)) for n in range(ins.size)]
        for alike in [range(ins.size)] if ins.kind == KINDS["dense"] else [[n] for n in range(ins.size)]:
            weights = np.array([parameters[each[n][1]] for n in alike], np.float64)
            whole = Block(
                "", group, np.array(alike), each[alike[0]][0].astype(np.int64), weights, bias[alike].astype(np.float64)
            )
            whole = _without_constants(whole, constants)
            for op in sorted({ends[n][1] for n in alike}):
                block = whole.take(np.array([ends[n][1] == op for n in alike]))
                blocks.append(block._replace(op=op, slots=np.array([ends[n][0] for n in block.slots.tolist()])))
    return blocks


def _without_constants(block: Block, constants: dict[int, float]) -> Block:
    """The block with each source once, in ascending order, and with constant sources as part of the bias."""
    fixed = np.array([slot in constants for slot in block.sources.tolist()], bool)
    values = np.array([constants[slot] for slot in block.sources[fixed].tolist()])
    sources, place = np.unique(block.sources[~fixed], return_inverse=True)
    weights = np.zeros((len(block.slots), len(sources)))
    np.add.at(weights.T, place, block.weights[:, ~fixed].T)
    with np.errstate(all="ignore"):
        bias = block.bias + block.weights[:, fixed] @ values
    return block._replace(sources=sources.astype(np.int64), weights=weights, bias=bias)


def _ranges(
    blocks: Sequence[Block], plan: Plan, calibrate: Examples, named: Callable[[int], str]
) -> tuple[Float64, Float64]:
    """Least and largest sum and value of each slot, shape (slots, 2); both ranges contain 0."""
    ranges = np.zeros((2, plan.n_slots, 2))
    for rows in _chunks(len(calibrate), plan.n_slots):
        x = calibrate.read(rows, plan.input_column)
        sums, values = np.zeros((2, plan.n_slots, len(x)))
        values[: x.shape[1]] = x.T
        with np.errstate(all="ignore"):
            for block in blocks:
                sums[block.slots] = block.sums(values)
                values[block.slots] = ops.OPS[block.op].value(sums[block.slots])
        for found, each in zip(ranges, (sums, values), strict=True):
            np.minimum(found[:, 0], each.min(axis=1), out=found[:, 0])
            np.maximum(found[:, 1], each.max(axis=1), out=found[:, 1])
    bad = np.flatnonzero(~np.isfinite(ranges).all(axis=(0, 2)))
    if len(bad):
        raise ValueError(f"calibrate: {named(int(bad[0]))} is not finite for some of the examples")
    return ranges[0], ranges[1]


def _union(ranges: Float64) -> Float64:
    """The range of all, shape (2,)."""
    return np.array([ranges[:, 0].min(initial=0), ranges[:, 1].max(initial=0)])


def _scale_and_zero(ranges: Float64) -> tuple[Float64, Int64]:
    """Scale and zero with which bytes cover ranges of shape (n, 2)."""
    scale = np.maximum((ranges[:, 1] - ranges[:, 0]) / BYTE_MAX, TINY)
    return scale, np.rint(-ranges[:, 0] / scale).astype(np.int64)


def _table(op: str, sums: Float64, scale: float, zero: int) -> Table:
    """The activation over a range of sums, without its ends where it is flat."""
    value, grid = ops.OPS[op].value, np.linspace(sums[0], sums[1], GRID)
    (low, high), f = value(sums), value(grid)
    steep = grid[(np.abs(f - low) >= scale / 2) & (np.abs(f - high) >= scale / 2)]
    ends = np.array([[steep.min(initial=0), steep.max(initial=0)]])
    (place_scale,), (place_zero,) = _scale_and_zero(ends)
    entries = _bytes(value((np.arange(BYTE_MAX + 1) - place_zero) * place_scale) / scale + zero)
    return Table(float(place_scale), int(place_zero), entries)


def _output_scale(bytes_: Float64, constants: Float64, scored: Sequence[tuple[Block, Float64, Float64]]) -> float:
    """The scale of the outputs: that of the finest, but such that the largest fits into 32 bits."""
    steps = [bytes_, np.abs(constants) / BYTE_MAX, *(step for _, step, _ in scored)]
    most = [bytes_ * BYTE_MAX, np.abs(constants), *(step * largest for _, step, largest in scored)]
    return float(max(np.concatenate(steps).min(), np.concatenate(most).max() / (SUM_MAX - 1), TINY))


def _in_integers(
    block: Block, scale: Float64, zero: Int64, named: Callable[[int], str]
) -> tuple[Block, Float64, Float64]:
    """The block with integers as weights and biases, what a unit of each neuron's sum stands for, and the largest sum.

    Whatever the bytes are, and in whichever order products are added, no sum has a larger magnitude. ValueError if one
    does not fit into 32 bits.
    """
    weights = block.weights * scale[block.sources]
    step = np.maximum(np.abs(weights).max(axis=1, initial=0.0) / WEIGHT_MAX, np.abs(block.bias) / BIAS_MAX)
    step = np.maximum(step, TINY)
    weights = np.rint(weights / step[:, None])
    bias = np.rint(block.bias / step) - weights @ zero[block.sources]
    above, below = (BYTE_MAX * np.maximum(sign * weights, 0).sum(axis=1) for sign in (1, -1))
    largest = np.maximum(np.abs(bias + above), np.abs(bias - below))
    if (largest > SUM_MAX).any():
        worst = int(largest.argmax())
        raise ValueError(
            f"{named(int(block.slots[worst]))}: its sum of {block.weights.shape[1]} products can exceed 32 bits; prune "
            "some of its edges"
        )
    used = weights.any(axis=0)
    return block._replace(sources=block.sources[used], weights=weights[:, used], bias=bias), step, largest
