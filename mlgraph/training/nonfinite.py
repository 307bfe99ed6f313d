"""Numbers that are not finite: they are found, traced to the node where they began, and left out; none reaches a parameter.

The kernels take many steps at a time as long as all gradients are certain to stay below a limit. Any other step is taken
alone, and taken back if anything that it gives is not finite. Below the limit no gradient, moment or parameter can overflow:
float32's largest number is just below 2^128, and a parameter that moves by less than 2^103, half a unit in the last place of
that number, stays finite whatever it is.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlgraph._support.array_types import Float32, Int64, UInt8
from mlgraph._support.interrupts import uninterrupted
from mlgraph.engine.engine import STATE
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import empty_answers
from mlgraph.engine.steps import Learning, Steps
from mlgraph.graph.views import Neuron
from mlgraph.models.running import engine_of
from mlgraph.training.faults import SWEEPS, Fault, Search

if TYPE_CHECKING:
    from mlgraph.models.model import Model

POLICIES = ("raise", "skip", "disconnect")


class NonFiniteError(ArithmeticError):
    """A loss, adjoint, gradient or updated parameter was not finite; parameters and optimizer state are as before the step.

    Attributes
    ----------
    sweep : "forward", "backward" or "update"
    node : int
        The node where it began.
    example : int
        The example's place in the data; -1 if only a sum over examples, or the resulting update, overflowed.
    """

    def __init__(self, message: str, sweep: str = "", node: int = -1, example: int = -1) -> None:
        super().__init__(message)
        self.sweep, self.node, self.example = sweep, node, example


class Limits(NamedTuple):
    """Bounds that gradients and the optimizer's vectors must stay below, so that a step overflows nothing."""

    gradient: float
    first: float
    second: float


def limits(optimizer: str, hyper: tuple[float, float, float], rate: float) -> Limits:
    """The limits at learning rates up to `rate`.

    SGD moves a parameter by rate * g. Momentum moves it by rate * v with v = a v + g, and v stays below L if g stays below
    L (1 - a). Adam moves it by rate * v / (sqrt(s) + e), at most rate * v / e, where v and sqrt(s) are means of gradients.
    Moves stay below 2^100 and squares below 2^120; L is a quarter of what would do, to leave room for rounding.
    """
    rate = max(rate, 2.0**-60)
    if optimizer == "adam":
        most = min(2.0**60, 2.0**100 / rate * hyper[2]) / 4
        return Limits(most, most, most**2)
    most = min(2.0**120, 2.0**100 / rate) / 4
    if optimizer == "momentum":
        keeps = 1 - float(np.float32(hyper[0]))
        # With a momentum so close to 1, rounding may add more than the momentum forgets.
        return Limits(most * keeps / 4 if keeps > 2.0**-20 else 2.0**-149, most, np.inf)
    return Limits(most, np.inf, np.inf)


class Guard:
    """Decides how steps are taken, and what is done with a step that is not finite.

    Parameters
    ----------
    model : Model
        Its history records what is left out.
    policy : str
        One of `POLICIES`.
    examples : Examples
    learning : Learning
    """

    def __init__(self, model: Model, policy: str, examples: Examples, learning: Learning) -> None:
        self._model, self._policy, self._examples, self._learning = model, policy, examples, learning
        self._state = STATE[learning.optimizer]
        self._limits = Limits(0.0, 0.0, 0.0)
        self._sure_of: tuple[int, int] | None = None
        """Edits and moves of the graph by which the optimizer's vectors were below their limits, where steps leave them."""

    def begin(self, rate: float) -> None:
        """To be called before steps at learning rates up to `rate`."""
        self._limits, self._sure_of = limits(self._learning.optimizer, self._learning.hyper, rate), None

    @property
    def lock(self) -> threading.RLock:
        """To be held from a look at `limit` to the end of the steps: another thread might bring back a large velocity."""
        return self._model.graph.lock

    @property
    def limit(self) -> float | None:
        """The limit of gradients for many steps at a time; None if each step must be taken alone.

        Only the numbers that training goes on from decide. So a run that is left here and resumed decides alike.
        """
        graph = self._model.graph
        if self._sure_of != (graph.edits, graph.storage.moves):
            self._sure_of = (graph.edits, graph.storage.moves) if self._state_is_small() else None
        return None if self._sure_of is None else self._limits.gradient

    def step(self, step: Steps, where: str) -> tuple[Float32, UInt8 | None]:
        """Take one step alone, or what the policy leaves of it.

        Parameters
        ----------
        step : Steps
            One step.
        where : str
            The beginning of a message.

        Returns
        -------
        losses : float32, shape (examples,)
            NaN for examples that were left out.
        correct : uint8, shape (examples,), or None

        Raises
        ------
        NonFiniteError
            If that is the policy, or nothing can be disconnected.
        """
        # All that a step disconnects is one edit, and is taken back if the step fails.
        graph = self._model.graph
        with graph.lock:
            edits, last = graph.edits, graph.last_edit
            with graph.one_edit() if self._policy == "disconnect" else nullcontext():
                result = self._step(step, where)
            if graph.edits == edits:  # nothing was disconnected: `undo` still takes back the edit before
                graph.last_edit = last
            return result

    def _step(self, step: Steps, where: str) -> tuple[Float32, UInt8 | None]:
        rows = step.rows
        kept = np.ones(len(rows), bool)
        losses = np.full(len(rows), np.nan, np.float32)
        correct = empty_answers(self._learning.objective, len(rows))
        told: list[dict[str, Int64]] = []
        while kept.any():
            engine, n = engine_of(self._model), int(kept.sum())
            loss, right = np.zeros(n, np.float32), empty_answers(self._learning.objective, n)
            taken = step._replace(first=np.zeros(1, np.int64), size=np.array([n]), order=rows[kept])
            vectors = [
                engine.graph.parameters,
                *(engine.graph.storage.state_vector(name, fresh=False) for name in self._state),
            ]
            before = [vector.copy() for vector in vectors]
            with uninterrupted():  # else numbers that are not finite might stay
                bad, _, _ = engine.execute(
                    self._examples, steps=taken, losses=loss, correct=right, **self._learning._asdict()
                )
                spoilt = np.zeros(len(before[0]), bool)
                for vector, old in zip(vectors, before, strict=True):
                    spoilt |= ~np.isfinite(vector) & np.isfinite(old)
                is_good = bad < 0 and not spoilt.any()
                if not is_good:
                    for vector, old in zip(vectors, before, strict=True):
                        vector[:] = old
            if is_good:
                losses[kept] = loss
                if correct is not None and right is not None:
                    correct[kept] = right
                break
            search = Search(self._model, engine, self._examples, taken, self._learning)
            fault = search.find(spoilt, vectors)
            if self._policy == "raise":
                message = f"{where}: {fault.text}"
                learnt = step.number > 0 or SWEEPS[fault.sweep] == "update"
                if learnt and np.isfinite(before[0]).all():
                    message += "; a lower learning rate may help"
                raise NonFiniteError(message, SWEEPS[fault.sweep], fault.node, fault.example)
            cut = -1
            out = np.array([fault.example])
            if self._policy == "disconnect":
                cut = self._disconnect(search, f"{where}: {fault.text}", fault)
            else:
                if fault.example >= 0:
                    out = rows[kept][~search.finite]
                kept[kept] = search.finite
            columns = {"step": step.number, "sweep": fault.sweep, "node": fault.node, "example": out, "cut": cut}
            told.append({f"nonfinite_{name}": np.full(len(out), value) for name, value in columns.items()})
        for left_out in told:
            self._model.history.add(**left_out)
        self._sure_of = None
        return losses, correct

    def _disconnect(self, search: Search, message: str, fault: Fault) -> int:
        """Cut the neuron where the fault began, or the nearest one upstream that may be cut; return its id."""
        graph = self._model.graph
        for node in search.upstream():
            neuron, edits = graph[node], graph.edits
            if isinstance(neuron, Neuron):
                try:
                    neuron.prune()
                except ValueError:  # an output, or the last way to one
                    continue
                if graph.edits > edits:
                    return node
        message += "; no neuron that led to it may be disconnected"
        raise NonFiniteError(message, SWEEPS[fault.sweep], fault.node, fault.example)

    def _state_is_small(self) -> bool:
        """Whether the optimizer's vectors are below their limits, for all that training moves."""
        # What is cut off keeps its numbers, which may be large, but no step reads them.
        ranges, storage = engine_of(self._model).plan.trained_ranges, self._model.graph.storage
        for name, bound in zip(("first", "second"), self._limits[1:], strict=True):
            if name in self._state and len(ranges):
                vector = storage.state_vector(name, fresh=False)
                ends = ranges[ranges < len(vector)]  # the last may end with the vector
                low, high = (extreme.reduceat(vector, ends)[::2] for extreme in (np.minimum, np.maximum))
                if not (-bound < low.min() and high.max() < bound):  # nor with a NaN
                    return False
        return True
