"""What a schedule of `fit` is, and how a run has it act.

A schedule acts at evenly spaced moments of the training, the first time before its first step. What it does follows from the
model, the seed, the number of the step and how far the training is; it remembers nothing, so that a run can go on from any
step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, fields
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np

from mlgraph._support.array_types import Float64
from mlgraph._support.checks import share, whole
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.models.model import Model

Sample = Callable[[int], tuple[Any, Any]]


@dataclass(frozen=True, repr=False)
class Schedule(ABC):
    """What all schedules have in common; for your own, write a subclass with an `act`.

    Its further arguments should be fields of a ``@dataclass(frozen=True, repr=False)``: a checkpoint recognises its run by
    the repr. Each run has its own copy of the schedule, and no checkpoint holds what `act` stores in it: for a resumed run
    to equal an uninterrupted one, what `act` does must follow from its arguments. During `fit`, `Model.prune` cuts nothing
    that is frozen.

    Parameters
    ----------
    sparsity : float
        Share of the edges that is gone at the end.
    updates : int, optional
        How many times it acts after the first time, at least once; before each step it acts at most once. By default 100
        times, or 5 times for each epoch before `until` if that is less: each time costs some milliseconds, a good part of an
        epoch in a network of few neurons.
    until : float
        Share of the training, below 1, after which it acts no more.
    """

    sparsity: float
    updates: int | None = None
    until: float = 0.75

    def __post_init__(self) -> None:
        # Plain numbers, so that equal schedules look equal and go into files.
        updates = None if self.updates is None else whole("updates", self.updates)
        vars(self).update(sparsity=share("sparsity", self.sparsity), updates=updates, until=share("until", self.until))

    def __repr__(self) -> str:
        # A checkpoint recognises its run by it, also in another process, where a function has another address.
        return f"{type(self).__name__}({', '.join(f'{f.name}={_named(getattr(self, f.name))}' for f in fields(self))})"

    def over(self, epochs: int) -> Schedule:
        """The schedule of a run of so many epochs."""
        other = copy(self)  # of a class that may be made with anything
        vars(other).update(updates=self.updates or min(100, max(1, round(5 * epochs * self.until))))
        return other

    def due(self, begin: Float64, end: Float64) -> Float64:
        """The moment at which to act before each step, from `begin` to `end` in shares of the training; NaN for none.

        All are float64 of shape (steps,). A subclass may override it, to act before every step, say.
        """
        assert self.updates is not None
        scale = self.updates / max(self.until, 1e-9)
        before, reached = (np.clip(np.ceil(share * scale) - 1, -1, self.updates) for share in (begin, end))
        moments = np.where(
            reached == self.updates, self.until, reached * (self.until / self.updates)
        )  # the last to the bit
        return np.where(reached > before, moments, np.nan)

    def check(self, model: Model) -> None:  # noqa: B027 - a schedule that takes any model has nothing to add
        """Raise TypeError if the schedule cannot take this model, ValueError if it would leave too few edges.

        Too few are those that do not suffice for a path to each output and for all that is frozen.
        """

    def _check_columns(self, model: Model, columns: int) -> None:  # noqa: B027 - most need no more than the model does
        """Raise ValueError if the data have too few columns."""

    def _begin_run(self) -> None:  # noqa: B027 - most remember nothing
        """Called for what `over` has returned, before anything else."""

    @abstractmethod
    def act(self, model: Model, moment: float, step: int, seed: int, sample: Sample, n_threads: int | None) -> None:
        """Cut and grow before a step.

        Other threads that run or edit the graph wait meanwhile; waiting for one of them here would never end.

        Parameters
        ----------
        model : Model
        moment : float
            Share of the training, one of those that are due.
        step, seed : int
            Number of the step; the seed of `fit`.
        sample : callable
            ``sample(n)`` gives n examples of the training data, or all if there are fewer, and their labels or targets; the
            same for the same step. If the loss is a node, its targets are the last columns of the data, and () stands in
            their place.
        n_threads : int, optional
            As for `fit`.

        Raises
        ------
        StopIteration
            To end the run there, as a callback may. Raise it before editing anything: a resumed run acts once more at this
            moment.
        """


class Acting:
    """A schedule at work in one run of `fit`.

    Parameters
    ----------
    schedule : Schedule
    model, examples, objective, epochs, seed, n_threads
        Of the run.
    """

    def __init__(
        self,
        schedule: Schedule,
        model: Model,
        examples: Examples,
        objective: Objective,
        epochs: int,
        seed: int,
        n_threads: int | None,
    ) -> None:
        if not isinstance(schedule, Schedule):
            got = f"the class {schedule.__name__}" if isinstance(schedule, type) else type(schedule).__name__
            raise TypeError(f"sparsify: expected a schedule of mlgraph.sparsity.schedules or None, got {got}")
        missing = [field.name for field in fields(schedule) if not hasattr(schedule, field.name)]
        if missing:
            how = "of a @dataclass(frozen=True, repr=False), or of an __init__ that calls super().__init__"
            raise TypeError(f"sparsify: expected a schedule {how}, got {type(schedule).__name__} without {missing[0]}")
        with model.graph.lock:
            schedule.check(model)
            schedule._check_columns(model, examples.array.shape[1])
        self._schedule = schedule.over(epochs)
        self._schedule._begin_run()  # not in `over`, which a subclass may override
        self._model, self._examples, self._seed, self._n_threads = model, examples, seed, n_threads
        label, target = objective.label, objective.target
        self._y: Any = () if objective.loss == "node" else target if label is None else label

    def __call__(self, step: int, ends: Float64) -> int:
        """Act if it is time to, before a step.

        Parameters
        ----------
        step : int
            Its number.
        ends : float64, shape (steps + 1,)
            Shares of the training: where this step begins, and where it and those after it in the epoch end.

        Returns
        -------
        int
            How many steps may be taken before the next call.
        """
        moments = np.asarray(self._schedule.due(ends[:-1], ends[1:]))
        if moments.shape != (len(ends) - 1,) or moments.dtype.kind != "f":
            got = f"{moments.dtype} of shape {moments.shape}"
            raise ValueError(f"due: expected a moment or NaN for each of {len(ends) - 1} steps, got {got}")
        if moments[0] == moments[0]:
            with self._model.graph.lock:
                self._schedule.act(
                    self._model, float(moments[0]), step, self._seed, self._sample(step), self._n_threads
                )
        later = np.flatnonzero(moments[1:] == moments[1:])
        return 1 + int(later[0]) if len(later) else len(moments)

    def _sample(self, step: int) -> Sample:
        def sample(n: int) -> tuple[Any, Any]:
            whole("n", n)
            some = np.random.default_rng([self._seed, 4, step]).permutation(len(self._examples))[:n]
            x = self._examples.array[some]
            # Inputs that were added since `fit` began have no data, and so far nothing reads them.
            x = np.pad(x, ((0, 0), (0, self._model.graph.n_inputs - x.shape[1])))
            return x, self._y[some] if len(self._y) else ()

        return sample


def _named(value: Any) -> str:
    if isinstance(value, partial):
        given = [*map(_named, value.args), *(f"{name}={_named(v)}" for name, v in value.keywords.items())]
        return f"partial({', '.join([_named(value.func), *given])})"
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return f"{value.__module__}.{name}"
    if isinstance(value, np.ndarray) and value.dtype != object:  # of whose numbers a repr leaves out most
        return f"<{value.dtype} of shape {value.shape} {sha256(value.tobytes()).hexdigest()}>"
    return repr(value)
