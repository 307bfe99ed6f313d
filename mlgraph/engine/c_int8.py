"""Writes a quantized function as C99 that needs no floating point, and no memory besides a small stack."""

from __future__ import annotations

import re
from itertools import groupby
from typing import NamedTuple

import numpy as np

from mlgraph._support.checks import shown
from mlgraph.engine.c_source import checked_name, table
from mlgraph.engine.quantized import BYTE_MAX, LEAK_DIVISOR, Block, QuantizedFunction, Rescaling
from mlgraph.engine.units import comment, numbered, quoted

TAKEN = r"u?int\w*_t|U?INT\w*|(PTRDIFF|SIG_ATOMIC|SIZE|WCHAR|WINT)_\w+|\w+_table"
TAKEN += "|weight|weights|gap|gaps|count|counts|biases|multipliers|shifts|zeros|dense|sparse|scaled|byte"
"""Names that stdint.h or the file uses, besides those that `checked_name` refuses."""

LARGEST = {"uint8_t": 2**8 - 1, "uint16_t": 2**16 - 1, "uint32_t": 2**32 - 1}
"""Types of gaps and counts."""

FUNCTIONS = {
    "dense": """int32_t dense(const uint8_t *v, int n, const int8_t *weight, int32_t sum)
{
    for (int i = 0; i < n; i++)
        sum += weight[i] * v[i];
    return sum;
}""",
    "sparse": """int32_t sparse(const uint8_t *v, int n, const int8_t *weight, const GAP *gap, int32_t sum)
{   /* a gap is the distance from one source to the next */
    for (int i = 0; i < n; i++) {
        v += gap[i];
        sum += weight[i] * *v;
    }
    return sum;
}""",
    "scaled": """int64_t scaled(int32_t sum, int32_t multiplier, int shift)
{   /* sum * multiplier / 2^shift, rounded half up: the single rounding of TensorFlow Lite */
    return (((int64_t)sum * multiplier >> (shift - 1)) + 1) >> 1;
}""",
    "byte": "uint8_t byte(int64_t z) { return z < 0 ? 0 : z > 255 ? 255 : (uint8_t)z; }",
}
"""C functions; a file contains those that it uses."""

SCALED = {
    "relu": "scaled(sum < 0 ? 0 : sum, multipliers[i], shifts[i])",
    "leaky_relu": f"scaled(sum, sum < 0 ? multipliers[i] / {LEAK_DIVISOR} : multipliers[i], shifts[i])",
}
"""The rescaled sum of neuron i, where it is not `PLAIN`."""

PLAIN = "scaled(sum, multipliers[i], shifts[i])"


class Cell(NamedTuple):
    """A neuron in integers."""

    op: str
    slot: int
    sources: list[int]
    weights: list[int]
    bias: int
    multiplier: int
    shift: int
    zero: int


class Stored(NamedTuple):
    """Cells of one activation, with their weights as rows of a matrix or as sparse rows.

    `base` is the array of the sources, x or v. The matrix begins at source `first`. Sparse rows have gaps.
    """

    cells: list[Cell]
    base: str
    first: int
    weights: list[list[int]]
    gaps: list[list[int]] | None
    n_bytes: int

    @property
    def sum_and_advance(self) -> tuple[str, str]:
        """The weighted sum of neuron i, and what moves on to the next neuron."""
        width = len(self.weights[0])
        if self.gaps is not None:
            return f"sparse({self.base}, *count, weight, gap, biases[i])", ", weight += *count, gap += *count, count++"
        sources = f"{self.base} + {self.first}" if self.first else self.base
        return (f"dense({sources}, {width}, weight, biases[i])", f", weight += {width}") if width else ("biases[i]", "")


class Writer:
    """The tables and statements of a function."""

    def __init__(self, function: QuantizedFunction) -> None:
        self.function, self.columns = function, function.columns.tolist()
        hidden, scores = _groups(function.hidden), _groups(function.scores)
        groups = [*hidden, *scores]
        mixed = [cell for group in groups if not self._reads_inputs(group) for cell in group]
        self.copied = sorted({slot for cell in mixed for slot in cell.sources if slot < len(self.columns)})
        inner = [cell.slot for group in hidden for cell in group]
        self.n_hidden = len(inner)
        self.at = {slot: i for i, slot in enumerate([*self.copied, *inner])}  # in v
        self.place = {slot: k for k, slot in reversed([*enumerate(function.outputs)])}  # in y
        choices = {gap: [self._store(group, gap) for group in groups] for gap in ("uint8_t", "uint16_t")}
        self.gap = min(choices, key=lambda gap: sum(stored.n_bytes for stored in choices[gap]))
        self.stored = choices[self.gap]
        self.cells = [cell for stored in self.stored for cell in stored.cells]
        self.has_zeros = any(cell.zero for cell in self.cells)

    def _reads_inputs(self, cells: list[Cell]) -> bool:
        return all(slot < len(self.columns) for cell in cells for slot in cell.sources)

    def _store(self, cells: list[Cell], gap: str) -> Stored:
        """The smaller of a matrix and sparse rows."""
        base = "x" if self._reads_inputs(cells) else "v"
        at = self.columns if base == "x" else self.at
        edges = [sorted((at[s], w) for s, w in zip(cell.sources, cell.weights, strict=True)) for cell in cells]
        rows = [_with_gaps(row, LARGEST[gap]) for row in edges]
        n_bytes = sum(1 + len(weights) * (2 if gap == "uint8_t" else 3) for weights, _ in rows)
        first = min((row[0][0] for row in edges if row), default=0)
        width = max((row[-1][0] + 1 for row in edges if row), default=first) - first
        if len(cells) * width > n_bytes:
            return Stored(cells, base, 0, [weights for weights, _ in rows], [gaps for _, gaps in rows], n_bytes)
        matrix = np.zeros((len(cells), width), np.int64)
        for i, row in enumerate(edges):
            for place, weight in row:
                matrix[i, place - first] = weight
        return Stored(cells, base, first, matrix.tolist(), None, matrix.size)

    def tables(self) -> dict[str, tuple[str, list[int]]]:
        """Type and numbers of each constant array."""
        sparse = [stored for stored in self.stored if stored.gaps is not None]
        counts = [len(row) for stored in sparse for row in stored.weights]
        tables = {
            "weights": ("int8_t", [weight for stored in self.stored for row in stored.weights for weight in row]),
            "gaps": (self.gap, [gap for stored in sparse for row in stored.gaps or () for gap in row]),
            "counts": (next(name for name, most in LARGEST.items() if max(counts, default=0) <= most), counts),
            "biases": ("int32_t", [cell.bias for cell in self.cells]),
            "multipliers": ("int32_t", [cell.multiplier for cell in self.cells]),
            "shifts": ("uint8_t", [cell.shift for cell in self.cells]),
            "zeros": ("uint8_t", [cell.zero for cell in self.cells[: self.n_hidden] if self.has_zeros]),
        }
        tables |= {f"{op}_table": ("uint8_t", each.entries.tolist()) for op, each in self.function.tables.items()}
        return {name: (of, numbers) for name, (of, numbers) in tables.items() if numbers}

    def statements(self) -> list[str]:
        """What computes y from x: a loop for neurons that differ in numbers only, and outputs that are no sums."""
        runs: list[tuple[tuple[str, str, str], range]] = []
        each = ((stored, cell) for stored in self.stored for cell in stored.cells)
        for i, (stored, cell) in enumerate(each):
            key = (*stored.sum_and_advance, self._result(i, cell))
            first = runs.pop()[1].start if runs and runs[-1][0] == key else i
            runs.append((key, range(first, i + 1)))
        lines = [f"v[{i}] = x[{self.columns[slot]}];" for i, slot in enumerate(self.copied)]
        for (sums, advance, result), run in runs:
            lines += [f"for (int i = {run.start}; i < {run.stop}; i++{advance}) {{", f"    int32_t sum = {sums};"]
            lines += [f"    {result};", "}"]
        scores = {cell.slot for cell in self.cells[self.n_hidden :]}
        for k, slot in enumerate(self.function.outputs):
            if slot in self.function.constants:
                lines.append(f"y[{k}] = {self.function.constants[slot]};")
            elif k != self.place[slot]:
                lines.append(f"y[{k}] = y[{self.place[slot]}];")
            elif slot not in scores:
                zero, by = self.function.bytes[slot]
                byte = f"v[{self.at[slot]}]" if slot in self.at else f"x[{self.columns[slot]}]"
                lines.append(f"y[{k}] = (int32_t)scaled({byte} - {zero}, {by.multiplier[0]}, {by.shift[0]});")
        return lines

    def _result(self, i: int, cell: Cell) -> str:
        """The statement that stores the value of neuron i."""
        ahead = len(self.copied) if i < self.n_hidden else self.place[cell.slot] - i
        at = f"[i {'-' if ahead < 0 else '+'} {abs(ahead)}]" if ahead else "[i]"
        if i >= self.n_hidden:
            return f"y{at} = (int32_t){SCALED.get(cell.op, PLAIN)}"
        number = PLAIN if cell.op == "relu" else SCALED.get(cell.op, PLAIN)  # `byte` makes negative numbers 0
        byte = f"byte({number}{' + zeros[i]' if self.has_zeros and cell.op != 'relu' else ''})"
        return f"v{at} = {f'{cell.op}_table[{byte}]' if cell.op in self.function.tables else byte}"


def c_int8(function: QuantizedFunction, name: str) -> str:
    """See `QuantizedFunction.to_c`."""
    if re.fullmatch(TAKEN, checked_name(name)):
        raise ValueError(f"name: expected a C identifier that stdint.h and the file do not use, got {shown(name)}")
    writer = Writer(function)
    tables, body = writer.tables(), "\n".join(f"    {line}" for line in writer.statements())
    declared = [f"    uint8_t v[{len(writer.at)}];"] if writer.at else []
    declared += [
        f"    const {tables[f'{name}s'][0]} *{name} = {name}s;"
        for name in ("weight", "gap", "count")
        if f"{name}s" in tables
    ]
    if writer.at and not re.search(r"\(v\b", body):  # the weights of all that would read v are rounded to 0
        declared.append("    (void)v;")
    if not re.search(r"\bx\b", body):
        declared.append("    (void)x;")
    sizes = {"int8_t": 1, "uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "int32_t": 4}
    n_bytes = sum(sizes[of] * len(numbers) for of, numbers in tables.values())
    first = f"inputs: {function.n_inputs}, outputs: {len(function.outputs)}, weights: {function.n_weights}"
    first += f", constants: {n_bytes} bytes"
    out = [*comment(first, _about(function)), "#include <stdint.h>", ""]
    if "scaled(" in body:
        out += ["#if -1 >> 1 != -1", '#error "expected shifts to the right that keep the sign"', "#endif", ""]
    for each, (of, numbers) in tables.items():
        out += table(f"{of} {each}[]", map(str, numbers))
    for each, text in FUNCTIONS.items():
        if re.search(rf"\b{each}\(", body):
            out += [f"static {text.replace('GAP', writer.gap)}", ""]
    declaration = f"void {name}(const uint8_t *x, int32_t *y)"
    return "\n".join([*out, f"{declaration};", "", declaration, "{", *declared, body, "}", ""])


def _about(function: QuantizedFunction) -> list[str]:
    """What the function reads and writes."""
    units, zero, scale = function.units, function.input_zero, function.input_scale
    plus = f" + {zero}" if zero else ""
    least, most = ((byte - zero) * scale for byte in (0, BYTE_MAX))
    divisor = units.divisor if units else 1.0
    if units and divisor is None:
        lines = [f"x[i] is input i as a byte: round((input - mean) / step){plus}, clipped to 0..255:"]
        for i, (mean, std) in enumerate(zip(units.mean.tolist(), units.std.tolist(), strict=True)):
            name = f", {quoted(units.inputs[i])}" if i in units.inputs else ""
            ends = f"from {mean + least * std:.4g} to {mean + most * std:.4g}"
            lines.append(f"x[{i}]: mean {mean:.9g}, step {scale * std:.9g}, {ends}{name}")
    else:
        by = divisor or 1.0
        step = f"{scale * by:.9g}"
        what = f"input i as a byte: round(input / {step}){plus}, clipped to 0..255, for inputs"
        what = "input i, a whole number" if (step, plus) == ("1", "") else what
        lines = [f"x[i] is {what} from {least * by:.4g} to {most * by:.4g}."]
        lines += numbered("x", units.inputs) if units else []
    lines += [""] if units else []
    lines.append(f"y[i] is output i: y[i] * {function.output_scale:.9g} in real numbers.")
    lines += units.answers if units else ["A classifier chooses the largest."]
    return [*lines, "Whatever x is, no sum exceeds 32 bits."]


def _groups(pairs: list[tuple[Block, Rescaling]]) -> list[list[Cell]]:
    """The cells of each instruction."""
    return [
        [cell for block, by in each for cell in _cells(block, by)]
        for _, each in groupby(pairs, lambda pair: (pair[0].group, pair[0].op))
    ]


def _cells(block: Block, by: Rescaling) -> list[Cell]:
    weights = block.weights.astype(int)
    sources = [block.sources[row != 0].tolist() for row in weights]
    nonzero = [row[row != 0].tolist() for row in weights]
    columns = (block.slots, sources, nonzero, block.bias.astype(int), *by)
    lists = (column if isinstance(column, list) else column.tolist() for column in columns)
    return [Cell(block.op, *row) for row in zip(*lists, strict=True)]


def _with_gaps(edges: list[tuple[int, int]], most: int) -> tuple[list[int], list[int]]:
    """Weights with the gap before each source; entries of weight 0 divide gaps that exceed `most`."""
    entries: list[tuple[int, int]] = []
    last = 0
    for place, weight in edges:
        while place - last > most:
            entries.append((0, most))
            last += most
        entries.append((weight, place - last))
        last = place
    return [weight for weight, _ in entries], [gap for _, gap in entries]
