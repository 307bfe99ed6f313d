"""Where a step went wrong: its sweeps are repeated, and numbers that are not finite are followed to where they began."""

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
from mlgraph.engine.steps import Learning, Steps
from mlgraph.graph import ops
from mlgraph.graph.arrays import parameter_places
from mlgraph.graph.storage import PANEL

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph
    from mlgraph.models.model import Model

SWEEPS = ("forward", "backward", "update")
"""Where something was not finite; the history has their numbers."""

PIECE = 2**24
"""Values that are looked at in one sweep."""


class Fault(NamedTuple):
    """Where something began not to be finite.

    Attributes
    ----------
    sweep : int
        Its place in `SWEEPS`.
    node : int
    example : int
        Place in the data; -1 if only a sum over examples, or the resulting update, overflowed.
    text : str
        All of this in words, with the numbers that led to it.
    """

    sweep: int
    node: int
    example: int
    text: str


class Search:
    """The search for what was not finite in a step, with the parameters as before the step.

    Attributes
    ----------
    finite : bool, shape (examples,)
        Which examples of the step may be learnt from.
    """

    def __init__(self, model: Model, engine: Engine, examples: Examples, step: Steps, learning: Learning) -> None:
        self._model, self._engine, self._examples, self._step = model, engine, examples, step
        self._rows = rows = step.rows
        self._learning, self._objective = learning, learning.objective
        self._plan = plan = engine.plan
        self._inputs = len(plan.input_column)
        self._losses = np.zeros(len(rows), np.float32)
        self._trained = _trained(plan, model.graph)
        self.finite = np.ones(len(rows), bool)
        for part, _, adjoints in self._sweeps():
            self.finite &= np.isfinite(adjoints[:, self._trained[part]]).all(axis=1)
        self.finite &= np.isfinite(self._losses)
        self._at, self._slot = 0, -1
        self._values, self._adjoints = np.zeros(0), np.zeros(0)

    def find(self, spoilt: Bool, vectors: list[Float32]) -> Fault:
        """Where it began.

        Parameters
        ----------
        spoilt : bool, shape (parameters,)
            Where the step would leave a parameter, or the optimizer's state of it, that is not finite.
        vectors : list of float32, shape (parameters,)
            Parameters and the optimizer's vectors before the step.
        """
        with np.errstate(all="ignore"):
            if self.finite.all():
                return self._of_update(spoilt, vectors)
            self._look_at(int(np.argmin(self.finite)))
            return self._of_adjoint() if np.isfinite(self._losses[self._at]) else self._of_value()

    def upstream(self) -> Iterator[int]:
        """The node where it began, the source that counted most for it, the source that counted most for that, and so on."""
        if self._slot < 0:
            return
        if len(self._values) == 0:
            self._look_at(self._at)
        slot = self._slot
        while slot >= self._inputs:
            yield int(self._plan.node[slot])
            sources, weights = self._reads(slot)
            if len(sources) == 0:
                return
            slot = int(sources[_largest(_product(weights, self._values[sources]))])

    # --- the three sweeps --------------------------------------------------------------------------------------------

    def _of_value(self) -> Fault:
        row, against = self._rows[self._at], ""
        loss, nodes, label, target = self._objective
        slots = self._plan.slot[np.array(nodes)]
        answer = None if target is None else target[row]
        if loss == "softmax_cross_entropy":
            wanted = label[row : row + 1] if label is not None else np.flatnonzero(np.asarray(answer))
            least = self._values[slots[0]] - self._values[slots[1 + wanted]]
            worst = wanted[_largest(least if answer is None else answer[wanted] * least)]
            read, blamed = slots[[0, *(1 + wanted)]], slots[1 + worst]
            against = f", the logsumexp of all {self._values[slots[0]]:.6g}"
        elif answer is not None:  # the squared error, the binary cross-entropy
            worst = _largest(self._values[slots[1:]] - answer)
            read, blamed = slots[loss == "squared_error" :], slots[1 + worst]
        else:
            read, blamed, worst = slots, slots[0], 0
        if answer is not None:
            against += f", its target {answer[worst]:.6g}"
        fault = self._behind(read)
        if fault:
            return fault
        numbers = f"the output is {self._values[blamed]:.6g}{against}"
        return self._fault(0, int(blamed), f"gives the loss {self._losses[self._at]} in", numbers)

    def _behind(self, read: Iterable[int]) -> Fault | None:
        """The first slot that is not finite among these and those that they are made from; None if `read` are finite."""
        seen, todo = set(), [int(slot) for slot in read if not np.isfinite(self._values[slot])]
        while todo:
            seen.add(slot := todo.pop())
            # Finite slots are not followed: what is not finite behind them does no harm (1 / inf).
            sources = self._reads(slot)[0]
            todo += set(sources[~np.isfinite(self._values[sources])].tolist()) - seen
        if not seen:
            return None
        slot = min(seen)
        return self._fault(0, slot, f"is {self._values[slot]} in", self._made_of(slot))

    def _of_adjoint(self) -> Fault:
        slot = int(np.flatnonzero(self._trained & ~np.isfinite(self._adjoints))[-1])
        while True:
            terms = self._terms(slot)
            above = [reader for reader, _ in terms if not np.isfinite(self._adjoints[reader])]
            if not above:
                break
            slot = max(above)
        numbers = "the loss itself"
        if not terms and (
            fault := self._behind([slot])
        ):  # it did not reach the loss, but the slope of a node beside it
            return fault
        if terms:
            reader, factor = terms[_largest([self._adjoints[reader] * factor for reader, factor in terms])]
            numbers = f"the largest term is {self._adjoints[reader]:.6g} * {factor:.6g}, of {self._name(reader)}"
        return self._fault(1, slot, f"has the adjoint {self._adjoints[slot]} in", numbers)

    def _of_update(self, spoilt: Bool, vectors: list[Float32]) -> Fault:
        slot, source, place = _first_spoilt(self._plan, spoilt)
        if slot < 0:
            self.finite[:] = False
            return Fault(2, -1, -1, "something is not finite")
        terms = self._column(slot, adjoint=True) * (1.0 if source < 0 else self._column(source, adjoint=False))
        self.finite = np.isfinite(terms.astype(np.float32))
        # Where no example alone is to blame, all of them are.
        alone = not self.finite.all()
        self._at = int(np.argmin(self.finite)) if alone else 0
        self.finite &= alone
        if alone and source >= self._inputs:
            self._look_at(self._at)
            fault = self._behind([source])  # it did not reach the loss, but the gradient
            if fault:
                return fault
        kind = self._instruction(slot).kind
        what = "value" if kind not in OF_NEURONS else "bias" if source < 0 else f"weight of {self._name(source)}"
        what += ", or the optimizer's state of it," if vectors[1:] else ""
        state = "".join(f", {vector[place]:.6g} in the optimizer's state" for vector in vectors[1:])
        rate = "the learning rate, corrected as by Adam," if self._learning.optimizer == "adam" else "the learning rate"
        numbers = f"{vectors[0][place]:.6g}, the gradient {terms.sum():.6g}{state}, {rate} {self._step.rate[0]:.6g}"
        verb = f"would not keep its {what} finite{' in' if alone else ''}"
        return self._fault(2, slot, verb, f"it is {numbers}", with_example=alone)

    def _fault(self, sweep: int, slot: int, verb: str, numbers: str, *, with_example: bool = True) -> Fault:
        self._slot, row = slot, int(self._rows[self._at])
        where = f" example {row}" if with_example else ""
        text = f"{self._name(slot)} {verb}{where} ({SWEEPS[sweep]}): {numbers}"
        return Fault(sweep, int(self._plan.node[slot]), row if with_example else -1, text)

    # --- the numbers of it -------------------------------------------------------------------------------------------

    def _made_of(self, slot: int) -> str:
        """The numbers that made a value."""
        if slot < self._inputs:
            return "the data have changed since they were checked"
        ins = self._instruction(slot)
        sources, weights = self._reads(slot)
        x = self._values[sources]
        if weights is None:
            if ins.kind != KINDS["operation"]:
                return "so it was before"
            shown = sorted(range(len(x)), key=lambda k: -_size(x[k]))[:3] if len(x) > 3 else [*range(len(x))]
            numbers = [f"{x[k]:.6g}" for k in shown] + ["..."] * (len(x) > 3)
            return f"{ops.BY_CODE[ins.op].name}({', '.join(numbers)})"
        k = _largest(_product(weights, x))
        bias = self._engine.graph.parameters[ins.bias + slot - ins.dst] if ins.bias >= 0 else 0.0
        return f"the bias is {bias:.6g}, the largest product {weights[k]:.6g} * {x[k]:.6g}, of {self._name(sources[k])}"

    def _terms(self, slot: int) -> list[tuple[int, float]]:
        """Slots that read this one and pass an adjoint on to it, and the factor by which the adjoint is multiplied."""
        terms: list[tuple[int, float]] = []
        for ins in self._plan.instructions:
            if ins.dst + ins.size <= slot or not ins.propagate:
                continue
            table = self._plan.index[ins.args :]
            if ins.kind == KINDS["dense"]:
                readers = np.arange(ins.size) if slot in table[: ins.arity] else np.zeros(0, np.int64)
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
        """Slots that a slot is made from, and for a neuron its weights: those of the example, scaled or dropped."""
        if slot < self._inputs:
            return np.zeros(0, np.int32), None
        ins = self._instruction(slot)
        if ins.kind not in OF_NEURONS:
            return reference.arguments_of(self._plan, ins)[slot - ins.dst], None
        sources, at = reference.neuron(self._plan, ins, slot - ins.dst)
        weights = self._engine.graph.parameters[at].astype(np.float64)
        edges = reference.draw(ins, self._learning.seed, self._step.number, self._at // LANES).edges
        return sources, weights if edges is None else _product(edges[at - ins.weights], weights)

    def _instruction(self, slot: int) -> Instruction:
        place = Instruction._fields.index("dst")
        return self._plan.instructions[int(np.searchsorted(self._plan.program[:, place], slot, "right")) - 1]

    def _name(self, slot: int) -> str:
        return self._model.name_of(int(self._plan.node[slot]))

    # --- sweeps ------------------------------------------------------------------------------------------------------

    def _look_at(self, at: int) -> None:
        """Have values and adjoints of all slots for one example."""
        self._at = at
        self._values, self._adjoints = np.zeros(self._plan.n_slots), np.zeros(self._plan.n_slots)
        self._values[: self._inputs] = self._examples.read(self._rows[at], self._plan.input_column)
        for part, values, adjoints in self._sweeps():
            self._values[part], self._adjoints[part] = values[at], adjoints[at]

    def _column(self, slot: int, *, adjoint: bool) -> Float64:
        """Values or adjoints of one slot for all examples."""
        if slot < self._inputs:
            return self._examples.read(self._rows, self._plan.input_column[slot])
        both = self._sweep(slice(slot, slot + 1))
        return both[adjoint][:, 0].astype(np.float64)

    def _sweeps(self) -> Iterator[tuple[slice, Float32, Float32]]:
        """Slots, their values and their adjoints, of shape (examples, slots): some at a time where they are very many."""
        most = max(1, PIECE // len(self._rows))
        for first in range(self._inputs, self._plan.n_slots, most):
            part = slice(first, min(first + most, self._plan.n_slots))
            yield part, *self._sweep(part)

    def _sweep(self, part: slice) -> tuple[Float32, Float32]:
        nodes = self._plan.node[part]
        _, values, adjoints = self._engine.execute(
            self._examples,
            steps=self._step,
            values=nodes,
            adjoints=nodes,
            losses=self._losses,
            **{**self._learning._asdict(), "optimizer": None},
        )
        return values, adjoints


def _trained(plan: Plan, graph: Graph) -> Bool:
    """Slots of parameters and neurons whose adjoints training wants, as find_frozen (mlgraph_ext/_frozen.pxi) has it."""
    free, frozen = np.zeros(graph.storage.used, bool), graph.storage.frozen
    free[parameter_places(graph)] = True
    if frozen is not None:
        free &= frozen == 0
    wanted, trained = np.zeros(plan.n_slots, bool), np.zeros(plan.n_slots, bool)
    for ins in plan.instructions:
        sources, slots = plan.index[ins.args :], slice(ins.dst, ins.dst + ins.size)
        if ins.kind == KINDS["parameter"]:
            wanted[slots] = free[ins.weights : ins.weights + ins.size]
        elif ins.kind == KINDS["operation"]:
            wanted[slots] = wanted[sources[: ins.size * ins.arity]].any()
        elif ins.kind in OF_NEURONS:
            own = free[ins.weights : ins.weights + ins.n_weights].any() or (
                ins.bias >= 0 and free[ins.bias : ins.bias + ins.size].any()
            )
            read = sources[: ins.arity] if ins.kind == KINDS["dense"] else plan.rows(ins).source
            wanted[slots] = own or wanted[read].any()
        trained[slots] = ins.kind != KINDS["operation"]
    return wanted & trained


def _first_spoilt(plan: Plan, spoilt: Bool) -> tuple[int, int, int]:
    """Slot of the first node with a marked number; slot of that weight's source, or -1; the number's place.

    The number is the first marked weight of the node, or else its bias. If nothing is marked, all three are -1.
    """
    for _, ins in plan.trained:
        places = np.flatnonzero(spoilt[ins.weights : ins.weights + ins.n_weights])
        if ins.kind == KINDS["dense"]:
            panel, rest = places // (PANEL * ins.arity), places % (PANEL * ins.arity)
            owner, source = panel * PANEL + rest % PANEL, plan.index[ins.args + rest // PANEL]
        elif ins.kind == KINDS["rows"]:
            rows = plan.rows(ins)
            owner, source = np.searchsorted(rows.begin, places, "right") - 1, rows.source[places]
        else:
            owner, source = places, np.full(len(places), -1)
        biases = np.flatnonzero(spoilt[ins.bias : ins.bias + ins.size]) if ins.bias >= 0 else np.zeros(0, np.int64)
        owners = np.append(owner, biases)
        if len(owners):
            k = int(np.argmin(owners))
            of_weight = k < len(places)
            place = ins.weights + places[k] if of_weight else ins.bias + owners[k]
            return ins.dst + int(owners[k]), int(source[k]) if of_weight else -1, int(place)
    return -1, -1, -1


def _size(x: Any) -> float:
    """The size by which numbers are compared: NaN is the largest."""
    return float("inf") if np.isnan(x) else abs(float(x))


def _largest(x: Any) -> int:
    return max(range(len(x)), key=lambda k: _size(x[k]))


def _product(weights: Float64 | None, x: Float64) -> Float64:
    """Products, 0 where a weight is 0, even if x is not finite there; x itself without weights."""
    if weights is None:
        return x
    with np.errstate(all="ignore"):
        return np.where(weights == 0, 0, weights * x)
