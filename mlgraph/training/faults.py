"""Finds where a step overflowed: repeats its sweeps and follows non-finite numbers to where they began."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlgraph._support.array_types import Bool, Float32, Float64, Int32
from mlgraph.compiler.instructions import KINDS, LANES, OF_NEURONS, Instruction
from mlgraph.compiler.plan import Plan
from mlgraph.engine import reference
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import SQUARED
from mlgraph.engine.steps import Learning, Steps
from mlgraph.graph import ops
from mlgraph.graph.arrays import parameter_places

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph
    from mlgraph.models.model import Model

SWEEPS = ("forward", "backward", "update")
"""Where a number was not finite; `History.nonfinite_sweep` holds indices into this."""

MAX_VALUES = 2**24
"""Maximum number of values that one repeated sweep returns. It bounds memory for large steps."""


class Fault(NamedTuple):
    """The first number that was not finite.

    Attributes
    ----------
    sweep : int
        Index into `SWEEPS`.
    node : int
    example : int
        Row of the data; -1 if only a sum over examples, or the updated parameter, overflowed.
    text : str
        A sentence that names all of this and the numbers involved.
    """

    sweep: int
    node: int
    example: int
    text: str


class Search:
    """The search for the origin of a fault in one step. The parameters must be as before the step.

    Attributes
    ----------
    finite : bool, shape (examples,)
        Which examples of the step can be learnt from.
    """

    def __init__(self, model: Model, engine: Engine, examples: Examples, step: Steps, learning: Learning) -> None:
        self._model, self._engine, self._examples = model, engine, examples
        self._step, self._learning = step, learning
        self._plan = engine.plan
        self._rows = step.rows
        self._n_inputs = len(self._plan.input_column)
        self._losses = np.zeros(len(self._rows), np.float32)
        self._trained = _trained(self._plan, model.graph)
        self.finite = np.ones(len(self._rows), bool)
        for part, _, adjoints in self._sweeps():
            self.finite &= np.isfinite(adjoints[:, self._trained[part]]).all(axis=1)
        self.finite &= np.isfinite(self._losses)
        self._at = 0  # the example under examination, by its place in the step
        self._slot = -1  # where the fault began
        self._values, self._adjoints = np.zeros(0), np.zeros(0)  # of all slots, for that example

    def find(self, spoilt: Bool, vectors: list[Float32]) -> Fault:
        """Find the origin of the fault.

        Parameters
        ----------
        spoilt : bool, shape (parameters,)
            Parameters that the step would make non-finite, or the optimizer's state of which it
            would.
        vectors : list of float32, shape (parameters,)
            Parameters and the optimizer's vectors before the step.
        """
        with np.errstate(all="ignore"):
            if self.finite.all():
                return self._in_update(spoilt, vectors)
            self._examine(int(np.argmin(self.finite)))
            return self._in_adjoints() if np.isfinite(self._losses[self._at]) else self._in_values()

    def upstream(self) -> Iterator[int]:
        """The node where the fault began, its source that contributed most, the same of that source, and so on."""
        if len(self._values) == 0:
            self._examine(self._at)
        slot = self._slot
        while slot >= self._n_inputs:
            yield self._plan.graph_node(slot)
            sources, weights = self._reads(slot)
            if len(sources) == 0:
                return
            slot = int(sources[_largest(_product(weights, self._values[sources]))])

    # --- the three sweeps -------------------------------------------------------------------------

    def _in_values(self) -> Fault:
        """A loss is not finite: a value that it reads is not, or it overflowed itself."""
        row = self._rows[self._at]
        loss, nodes, label, target, weight = self._learning.objective
        slots = self._plan.slot[np.array(nodes)]
        outputs = slots[loss != "node" :]
        answer = np.zeros(len(outputs))
        if target is not None:
            answer = target[row]
        elif label is not None:
            answer[label[row]] = 1
        # The losses of classes add to a total; the squared error does not read the first slot.
        read, errors, total = outputs, self._values[outputs] - answer, ""
        if loss == "softmax_cross_entropy":
            errors = np.where(answer != 0, answer * (self._values[slots[0]] - self._values[slots[1:]]), 0)
            outputs = self._plan.slot[np.array(self._model.output_ids)]  # the loss reads them minus the highest
            read = outputs[answer != 0]  # outputs of other classes may be infinite
            total = f", the highest of all {self._values[outputs].max():.6g}"
        fault = self._behind(read if loss in SQUARED else [slots[0], *read])
        if fault:
            return fault
        worst = _largest(errors)
        wanted = "" if target is None else f", its target {answer[worst]:.6g}"
        wanted += "" if weight is None else f", its weight {weight[row]:.6g}"
        numbers = f"the output is {self._values[outputs[worst]]:.6g}{total}{wanted}"
        return self._fault(0, int(outputs[worst]), f"gives the loss {self._losses[self._at]} in", numbers)

    def _behind(self, slots: Iterable[int]) -> Fault | None:
        """The first non-finite value among these slots and their sources; None if the slots are finite.

        Sources of finite values are not followed: an infinity behind them is harmless, as in 1 /
        inf.
        """
        seen, todo = set(), {int(slot) for slot in slots if not np.isfinite(self._values[slot])}
        while todo:
            slot = todo.pop()
            seen.add(slot)
            sources = self._reads(slot)[0]
            todo |= set(sources[~np.isfinite(self._values[sources])].tolist()) - seen
        if not seen:
            return None
        slot = min(seen)
        return self._fault(0, slot, f"is {self._values[slot]} in", self._origin(slot))

    def _in_adjoints(self) -> Fault:
        """An adjoint that training needs is not finite: follow it to the loss."""
        slot = int(np.flatnonzero(self._trained & ~np.isfinite(self._adjoints))[-1])
        while above := [reader for reader, _ in self._terms(slot) if not np.isfinite(self._adjoints[reader])]:
            slot = max(above)
        terms = self._terms(slot)
        numbers = "the loss itself"
        if terms:
            reader, factor = terms[_largest([self._adjoints[reader] * factor for reader, factor in terms])]
            numbers = f"the largest term is {self._adjoints[reader]:.6g} * {factor:.6g}, of {self._name(reader)}"
        elif fault := self._behind([slot]):  # an infinite value, harmless to the loss, spoilt a derivative
            return fault
        return self._fault(1, slot, f"has the adjoint {self._adjoints[slot]} in", numbers)

    def _in_update(self, spoilt: Bool, vectors: list[Float32]) -> Fault:
        """All adjoints are finite, but a gradient or an updated parameter is not."""
        slot, source, place = _first_spoilt(self._plan, spoilt)
        if slot < 0:
            self.finite[:] = False
            return Fault(2, -1, -1, "something is not finite")
        terms = self._column(slot, adjoint=True) * (1.0 if source < 0 else self._column(source, adjoint=False))
        self.finite = np.isfinite(terms.astype(np.float32))
        alone = not self.finite.all()
        if alone:
            self._at = int(np.argmin(self.finite))
            if source >= self._n_inputs:
                self._examine(self._at)
                if fault := self._behind([source]):  # an infinite value, harmless to the loss, spoilt the gradient
                    return fault
        else:  # no single example is to blame
            self.finite[:] = False
        what = "value"
        if self._instruction(slot).kind in OF_NEURONS:
            what = "bias" if source < 0 else f"weight of {self._name(source)}"
        if vectors[1:]:
            what += ", or the optimizer's state of it,"
        numbers = f"it is {vectors[0][place]:.6g}, the gradient {terms.sum():.6g}"
        numbers += "".join(f", {vector[place]:.6g} in the optimizer's state" for vector in vectors[1:])
        rate = "the learning rate" + (", corrected as by Adam," if self._learning.optimizer == "adam" else "")
        numbers += f", {rate} {self._step.rate[0]:.6g}"
        verb = f"would not keep its {what} finite{' in' if alone else ''}"
        return self._fault(2, slot, verb, numbers, with_example=alone)

    def _fault(self, sweep: int, slot: int, verb: str, numbers: str, *, with_example: bool = True) -> Fault:
        self._slot = slot
        row = int(self._rows[self._at]) if with_example else -1
        where = f" example {row}" if with_example else ""
        text = f"{self._name(slot)} {verb}{where} ({SWEEPS[sweep]}): {numbers}"
        return Fault(sweep, self._plan.graph_node(slot), row, text)

    # --- one slot of the example under examination ------------------------------------------------

    def _origin(self, slot: int) -> str:
        """The numbers that a value was computed from."""
        if slot < self._n_inputs:
            return "the data have changed since they were checked"
        ins = self._instruction(slot)
        sources, weights = self._reads(slot)
        x = self._values[sources]
        if weights is not None:
            k = _largest(_product(weights, x))
            bias = self._engine.graph.parameters[ins.bias + slot - ins.dst] if ins.bias >= 0 else 0.0
            product = f"{weights[k]:.6g} * {x[k]:.6g}, of {self._name(sources[k])}"
            return f"the bias is {bias:.6g}, the largest product {product}"
        if ins.kind != KINDS["operation"]:
            return "it was so before the step"
        largest = x if len(x) <= 3 else sorted(x, key=_size, reverse=True)[:3]
        numbers = [f"{value:.6g}" for value in largest] + ["..."] * (len(x) > 3)
        return f"{ops.BY_CODE[ins.op].name}({', '.join(numbers)})"

    def _terms(self, slot: int) -> list[tuple[int, float]]:
        """The terms of an adjoint: the slots that read this one, and the factor of each one's own adjoint."""
        terms: list[tuple[int, float]] = []
        for ins in self._plan.instructions:
            if ins.dst + ins.size <= slot or not ins.propagate:
                continue
            table = self._plan.index[ins.args :]
            if ins.kind == KINDS["dense"]:
                readers = np.arange(ins.size) if slot in table[: ins.arity] else np.arange(0)
            elif ins.kind == KINDS["rows"]:
                rows = self._plan.rows(ins)
                readers = np.searchsorted(rows.begin, np.flatnonzero(rows.source == slot), "right") - 1
            else:
                readers = np.flatnonzero(table[: ins.size * ins.arity] == slot) // ins.arity
            for reader in (ins.dst + np.unique(readers)).tolist():
                sources, factors = self._reads(reader)
                if factors is None:
                    x, y, op = self._values[sources][:, None], self._values[reader : reader + 1], ops.BY_CODE[ins.op]
                    partials = op.derivatives(y, x) if op.arity < 0 else op.derivatives(y, *x)
                    factors = np.array([np.broadcast_to(partial, 1)[0] for partial in partials])
                factor = float(factors[sources == slot].sum())
                if factor or not np.isfinite(self._adjoints[reader]):  # 0 * inf is NaN
                    terms.append((reader, factor))
        return terms

    def _reads(self, slot: int) -> tuple[Int32, Float64 | None]:
        """Source slots and, for a neuron, its weights, with dropout applied."""
        if slot < self._n_inputs:
            return np.zeros(0, np.int32), None
        ins = self._instruction(slot)
        if ins.kind not in OF_NEURONS:
            return reference.arguments_of(self._plan, ins)[slot - ins.dst], None
        sources, at = reference.neuron(self._plan, ins, slot - ins.dst)
        weights = self._engine.graph.parameters[at].astype(np.float64)
        edges = reference.draw(ins, self._learning.seed, self._step.number, self._at // LANES).edges
        return sources, weights if edges is None else _product(edges[at - ins.weights], weights)

    def _instruction(self, slot: int) -> Instruction:
        dst = self._plan.program[:, Instruction._fields.index("dst")]
        return self._plan.instructions[int(np.searchsorted(dst, slot, "right")) - 1]

    def _name(self, slot: int) -> str:
        return self._model.name_of(self._plan.graph_node(slot))

    # --- repeated sweeps --------------------------------------------------------------------------

    def _examine(self, at: int) -> None:
        """Compute the values and adjoints of all slots for one example of the step."""
        self._at = at
        self._values, self._adjoints = np.zeros(self._plan.n_slots), np.zeros(self._plan.n_slots)
        self._values[: self._n_inputs] = self._examples.read(self._rows[at], self._plan.input_column)
        for part, values, adjoints in self._sweeps():
            self._values[part], self._adjoints[part] = values[at], adjoints[at]

    def _column(self, slot: int, *, adjoint: bool) -> Float64:
        """The values or adjoints of one slot for all examples of the step."""
        if slot < self._n_inputs:
            return self._examples.read(self._rows, self._plan.input_column[slot])
        return self._sweep(slice(slot, slot + 1))[adjoint][:, 0].astype(np.float64)

    def _sweeps(self) -> Iterator[tuple[slice, Float32, Float32]]:
        """The values and adjoints of all slots, in parts: slots, and two arrays of shape (examples, slots)."""
        most = max(1, MAX_VALUES // len(self._rows))
        for first in range(self._n_inputs, self._plan.n_slots, most):
            part = slice(first, min(first + most, self._plan.n_slots))
            yield part, *self._sweep(part)

    def _sweep(self, part: slice) -> tuple[Float32, Float32]:
        nodes = self._plan.node[part]
        options = {**self._learning._asdict(), "optimizer": None, "losses": self._losses}
        _, values, adjoints = self._engine.execute(
            self._examples, steps=self._step, values=nodes, adjoints=nodes, **options
        )
        return values, adjoints


def _trained(plan: Plan, graph: Graph) -> Bool:
    """Slots of parameters and neurons whose adjoints training needs: they read a parameter that is not frozen.

    The rule must match `find_frozen` of the kernels, which decides for whole instructions.
    """
    free = np.zeros(graph.storage.used, bool)
    free[parameter_places(graph)] = True
    if graph.storage.frozen is not None:
        free &= graph.storage.frozen == 0
    needed = np.zeros(plan.n_slots, bool)
    trained = np.zeros(plan.n_slots, bool)
    for ins in plan.instructions:
        slots = slice(ins.dst, ins.dst + ins.size)
        table = plan.index[ins.args :]
        if ins.kind == KINDS["parameter"]:
            needed[slots] = free[ins.weights : ins.weights + ins.size]
        elif ins.kind == KINDS["operation"]:
            needed[slots] = needed[table[: ins.size * ins.arity]].any()
        elif ins.kind in OF_NEURONS:
            biases = slice(ins.bias, ins.bias + ins.size if ins.bias >= 0 else ins.bias)
            own = free[ins.weights : ins.weights + ins.n_weights].any() or free[biases].any()
            sources = table[: ins.arity] if ins.kind == KINDS["dense"] else plan.rows(ins).source
            needed[slots] = own or needed[sources].any()
        trained[slots] = ins.kind != KINDS["operation"]
    return needed & trained


def _first_spoilt(plan: Plan, spoilt: Bool) -> tuple[int, int, int]:
    """The first marked parameter: the slot of its node, the slot of its source, and its place.

    A neuron's weights come before its bias. The source is -1 unless the parameter is a weight; all
    three are -1 if no parameter is marked.
    """
    for _, ins in plan.trained:
        for n in range(ins.size):
            sources, places = np.array([-1]), np.array([ins.weights + n])
            if ins.kind in OF_NEURONS:
                sources, places = reference.neuron(plan, ins, n)
                if ins.bias >= 0:
                    sources, places = np.append(sources, -1), np.append(places, ins.bias + n)
            marked = np.flatnonzero(spoilt[places])
            if len(marked):
                return ins.dst + n, int(sources[marked[0]]), int(places[marked[0]])
    return -1, -1, -1


def _size(x: Any) -> float:
    """The magnitude by which numbers are compared: NaN counts as the largest."""
    return float("inf") if np.isnan(x) else abs(float(x))


def _largest(x: Any) -> int:
    return max(range(len(x)), key=lambda k: _size(x[k]))


def _product(weights: Float64 | None, x: Float64) -> Float64:
    """Products, with 0 * inf = 0 since kernels skip weights of 0; `x` if there are no weights."""
    if weights is None:
        return x
    with np.errstate(all="ignore"):
        return np.where(weights == 0, 0, weights * x)
