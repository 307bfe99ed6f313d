"""Keeps infinities and NaN out of the parameters: detects steps that overflow and applies the policy of the run.

The kernels take many steps at a time while all gradients are certain to stay below a limit. Any
other step is taken alone, and taken back if one of its results is not finite. Below the limit, no
gradient, moment or parameter can overflow: the largest float32 is just below 2^128, and a parameter
that moves by less than 2^103 (half a unit in the last place of that number) stays finite whatever
its value.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlgraph._support.array_types import Bool, Float32, Int64, UInt8
from mlgraph._support.interrupts import uninterrupted
from mlgraph.engine.engine import STATE, Engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import empty_answers
from mlgraph.engine.steps import Learning, Steps
from mlgraph.graph.views import Neuron
from mlgraph.models.running import engine_of
from mlgraph.training.advice import LOWER_RATE, scale_to_blame
from mlgraph.training.faults import SWEEPS, Fault, Search

if TYPE_CHECKING:
    from mlgraph.models.model import Model

POLICIES = ("raise", "skip", "disconnect")


class NonFiniteError(ArithmeticError):
    """A loss, adjoint, gradient or updated parameter was not finite.

    The parameters and the optimizer's state are as before the step.

    Attributes
    ----------
    sweep : "forward", "backward" or "update"
    node : int
        The node where it began.
    example : int
        Row of the data; -1 if only a sum over examples, or the updated parameter, overflowed.
    members : tuple of int
        Of a population, the members to which it happened; the rest is about the first of them.
    """

    def __init__(
        self, message: str, sweep: str = "", node: int = -1, example: int = -1, members: tuple[int, ...] = ()
    ) -> None:
        super().__init__(message)
        self.sweep, self.node, self.example, self.members = sweep, node, example, members


class Limits(NamedTuple):
    """Upper bounds of gradients and of the optimizer's vectors. Below them, a step cannot overflow."""

    gradient: float
    first: float
    second: float


def limits(optimizer: str, hyper: tuple[float, float, float], rate: float) -> Limits:
    """The limits at learning rates up to `rate`.

    SGD moves a parameter by rate * g. Momentum moves it by rate * v with v = a v + g, and v stays
    below L if g stays below L (1 - a). Adam moves it by rate * v / (sqrt(s) + e), at most rate * v
    / e, where v and sqrt(s) are means of gradients. Moves must stay below 2^100 and squares below
    2^120; the limits are a quarter of that, to leave room for rounding.
    """
    rate = max(rate, 2.0**-60)
    if optimizer == "adam":
        most = min(2.0**60, 2.0**100 / rate * hyper[2]) / 4
        return Limits(most, most, most**2)
    most = min(2.0**120, 2.0**100 / rate) / 4
    if optimizer == "momentum":
        forgets = 1 - float(np.float32(hyper[0]))
        # With a momentum this close to 1, rounding may add more to the velocity than the momentum
        # forgets.
        return Limits(most * forgets / 4 if forgets > 2.0**-20 else 2.0**-149, most, np.inf)
    return Limits(most, np.inf, np.inf)


class Guard:
    """Decides which steps are taken alone, and what happens to a step that is not finite.

    Parameters
    ----------
    model : Model
        Its history records the examples left out and the neurons cut.
    policy : str
        One of `POLICIES`.
    examples : Examples
    learning : Learning
    """

    def __init__(self, model: Model, policy: str, examples: Examples, learning: Learning) -> None:
        self._model, self._policy, self._examples, self._learning = model, policy, examples, learning
        self._state = STATE[learning.optimizer]
        self._limits = Limits(0.0, 0.0, 0.0)
        # Edits and moves of the graph when the optimizer's vectors were last found below their
        # limits. Safe steps keep them there.
        self._safe_at: tuple[int, int] | None = None

    def begin(self, learning: Learning, rate: float) -> None:
        """Prepare for steps at learning rates up to `rate`. Call it before them."""
        self._learning, self._state = learning, STATE[learning.optimizer]
        self._limits = limits(learning.optimizer, learning.hyper, rate)
        self._safe_at = None

    @property
    def lock(self) -> threading.RLock:
        """Lock to hold from reading `limit` to the end of the steps: an undo elsewhere may restore a large velocity."""
        return self._model.graph.lock

    @property
    def limit(self) -> float | None:
        """Gradient limit for taking many steps at a time; None if the next step must be taken alone.

        It depends only on numbers that a checkpoint holds, so a resumed run decides alike.
        """
        graph = self._model.graph
        version = graph.edits, graph.storage.moves
        if self._safe_at != version:
            self._safe_at = version if self._state_is_small() else None
        return None if self._safe_at is None else self._limits.gradient

    def step(self, step: Steps, where: str) -> tuple[Float32, UInt8 | None]:
        """Take one step, or what the policy leaves of it.

        Parameters
        ----------
        step : Steps
            One step.
        where : str
            The beginning of an error message.

        Returns
        -------
        losses : float32, shape (examples,)
            NaN for examples that were left out.
        correct : uint8, shape (examples,), or None

        Raises
        ------
        NonFiniteError
            If the policy is "raise", or if it is "disconnect" and no neuron can be cut.
        """
        with self._model.graph.lock, ExitStack() as edit:
            return self._step(step, where, edit)

    def _step(self, step: Steps, where: str, edit: ExitStack) -> tuple[Float32, UInt8 | None]:
        rows = step.rows
        kept = np.ones(len(rows), bool)
        losses = np.full(len(rows), np.nan, np.float32)
        correct = empty_answers(self._learning.objective, len(rows))
        entries: list[dict[str, Int64]] = []
        while kept.any():
            engine, n = engine_of(self._model), int(kept.sum())
            reduced = step._replace(first=np.zeros(1, np.int64), size=np.array([n]), order=rows[kept])
            loss, right = np.zeros(n, np.float32), empty_answers(self._learning.objective, n)
            spoilt, vectors = self._try(engine, reduced, loss, right)
            if spoilt is None:
                losses[kept] = loss
                if correct is not None and right is not None:
                    correct[kept] = right
                break
            search = Search(self._model, engine, self._examples, reduced, self._learning)
            fault = search.find(spoilt, vectors)
            message = f"{where}: {fault.text}"
            if self._policy == "raise":
                # Before the first update, nothing was learnt that a lower rate would have avoided.
                if (step.number > 0 or SWEEPS[fault.sweep] == "update") and np.isfinite(vectors[0]).all():
                    message += f"; {scale_to_blame(self._examples, self._learning.objective) or LOWER_RATE}"
                raise NonFiniteError(message, SWEEPS[fault.sweep], fault.node, fault.example)
            cut, left_out = -1, np.array([fault.example])
            if self._policy == "disconnect":
                # All cuts of a step are one edit, which is undone if the step fails.
                edit.enter_context(self._model.graph.one_edit())
                cut = self._disconnect(search, message, fault)
            else:
                if fault.example >= 0:
                    left_out = rows[kept][~search.finite]
                kept[kept] = search.finite
            columns = {"step": step.number, "sweep": fault.sweep, "node": fault.node, "example": left_out, "cut": cut}
            entries.append({f"nonfinite_{name}": np.full(len(left_out), value) for name, value in columns.items()})
        for entry in entries:
            self._model.history.add(**entry)
        self._safe_at = None
        return losses, correct

    def _try(
        self, engine: Engine, step: Steps, losses: Float32, correct: UInt8 | None
    ) -> tuple[Bool | None, list[Float32]]:
        """Take a step; take it back if a result is not finite.

        Returns
        -------
        spoilt : bool, shape (parameters,), or None
            None if the step was taken; otherwise which parameters, or their optimizer state, it
            made non-finite.
        vectors : list of float32
            Parameters and the optimizer's vectors.
        """
        storage = engine.graph.storage
        vectors = [storage.vector[: storage.used], *(storage.state_vector(name, fresh=False) for name in self._state)]
        before = [vector.copy() for vector in vectors]
        with uninterrupted():  # an interrupt before they are restored would leave non-finite numbers
            bad, _, _ = engine.execute(
                self._examples, steps=step, losses=losses, correct=correct, **self._learning._asdict()
            )
            spoilt = np.zeros(len(before[0]), bool)
            for vector, old in zip(vectors, before, strict=True):
                spoilt |= ~np.isfinite(vector) & np.isfinite(old)
            if bad < 0 and not spoilt.any():
                return None, vectors
            for vector, old in zip(vectors, before, strict=True):
                vector[:] = old
        return spoilt, vectors

    def _disconnect(self, search: Search, message: str, fault: Fault) -> int:
        """Cut the neuron where the fault began, or else the nearest one upstream that can be cut; return its id."""
        graph = self._model.graph
        for node in search.upstream():
            neuron, edits = graph[node], graph.edits
            if isinstance(neuron, Neuron):
                try:
                    neuron.prune()
                except ValueError:  # an output, or the last path to one
                    continue
                if graph.edits > edits:
                    return node
        message += "; no neuron that led to it may be disconnected"
        raise NonFiniteError(message, SWEEPS[fault.sweep], fault.node, fault.example)

    def _state_is_small(self) -> bool:
        """Whether the optimizer's vectors are below their limits for all trained parameters.

        Parameters that were cut off may keep large numbers: no step reads them.
        """
        ranges, storage = engine_of(self._model).plan.trained_ranges, self._model.graph.storage
        for name, bound in zip(("first", "second"), self._limits[1:], strict=True):
            if name in self._state and len(ranges):
                vector = storage.state_vector(name, fresh=False)
                ends = ranges[ranges < len(vector)]  # the last range may end with the vector
                low, high = (extreme.reduceat(vector, ends)[::2] for extreme in (np.minimum, np.maximum))
                if not (-bound < low.min() and high.max() < bound):  # false for NaN, too
                    return False
        return True
