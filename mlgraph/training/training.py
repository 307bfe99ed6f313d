"""The loop that trains, in pieces of several steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlgraph._support.array_types import Int64
from mlgraph._support.checks import FLOAT32_MAX
from mlgraph._support.interrupts import uninterrupted
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import empty_answers
from mlgraph.engine.steps import Course, Learning, Rates, Steps, epoch_order, epoch_steps
from mlgraph.models.history import History, means_of, record

if TYPE_CHECKING:
    from mlgraph.sparsity.schedules import ScheduleRunner
    from mlgraph.training.nonfinite import Guard

PIECE_SECONDS = 0.2
"""Aim for the length of one call of the sweep: so long may Ctrl-C and progress wait."""

FIRST_PIECE = 4
"""Steps of the first call, before it is known how long one takes."""

MOST_EPOCHS, MOST_PLACES = 2**12, 2**20
"""The most epochs that are prepared together, and the most examples in them: tens of megabytes at most."""

STEP_COST = 20
"""What a step costs beside its examples, in examples: 22 for 784-32-10, by the epochs at batch 8 and 128 in README."""


@dataclass(frozen=True)
class Progress:
    """What `fit` tells its callback.

    Attributes
    ----------
    kind : "steps" or "epoch"
        "steps" after about every 0.2 s of an epoch and after its last step; "epoch" at its end, after validation.
    epoch, epochs : int
        Number of the epoch, from 0, and number of epochs.
    examples, total_examples : int
        Examples seen so far, and in the whole run, over all epochs.
    batch_loss, batch_accuracy : float
        Means over the examples since the last call; at the end of an epoch, over the whole epoch.
    history : History
        The history of the run, which the run continues to fill; read it only.
    """

    kind: Literal["steps", "epoch"]
    epoch: int
    epochs: int
    examples: int
    total_examples: int
    batch_loss: float
    batch_accuracy: float
    history: History


@dataclass
class RunState:
    """Where a run stands between two steps: with the model and the optimizer's state, all that its rest depends on.

    Attributes
    ----------
    history : History
    epoch, step : int
        The epoch and its next step.
    taken : int
        Steps in the epochs before.
    seconds : float
        Time of training in this epoch.
    whole : bool
        False while steps, or the end of an epoch, are in progress, until everything that follows from them is recorded.
    """

    history: History
    epoch: int = 0
    step: int = 0
    taken: int = 0
    seconds: float = 0.0
    whole: bool = True


class _Stretch:
    """Epochs from where a run stands on whose steps are prepared together, and what these gave.

    Attributes
    ----------
    steps : Steps
        The places of an epoch follow those of the epoch before.
    ends : int64, shape (epochs,)
        How many steps there are up to the end of each epoch.
    losses, correct : float32 and uint8, shape (places,)
        `correct` is None if no answer is right or wrong.
    """

    def __init__(self, state: RunState, many: int, n: int, course: Course, learning: Learning) -> None:
        self._state, self._n, self._epoch, self._taken = state, n, state.epoch, state.taken
        order = epoch_order(state.epoch, n, learning.seed, many) if course.shuffle else np.tile(np.arange(n), many)
        self._schedule = epoch_steps(state.epoch, n, course.epochs, course.batch_size, course.learning_rate, many)
        rate, decay = self._schedule.rate, None
        with np.errstate(under="ignore"):
            if course.weight_decay:
                decay = np.minimum(rate * np.float32(course.weight_decay), np.float32(1))
            if learning.optimizer == "adam":
                # The bias corrections of both moments, folded into the rate (Kingma & Ba 2015, end of section 2).
                t = np.arange(state.taken + 1, state.taken + len(rate) + 1)
                beta1, beta2 = np.array(learning.hyper[:2], np.float32).astype(np.float64)  # as the kernels have them
                rate = np.minimum(rate * np.sqrt(1 - beta2**t) / (1 - beta1**t), FLOAT32_MAX).astype(np.float32)
        self.steps = self._schedule._replace(rate=rate, decay=decay, order=order, number=state.taken)
        self.ends: Int64 = np.searchsorted(self.steps.first, n * np.arange(1, many + 1))
        self._cost = np.append(self.steps.first, many * n) + STEP_COST * np.arange(len(rate) + 1)  # of all steps before
        self.losses, self.correct = np.zeros(many * n, np.float32), empty_answers(learning.objective, many * n)

    @property
    def at(self) -> int:
        """Number of the next step."""
        return self._state.taken + self._state.step - self._taken

    @property
    def end(self) -> int:
        """Number of the step after this epoch; there is none after the last."""
        return int(self.ends[self._state.epoch - self._epoch])

    @property
    def is_over(self) -> bool:
        """Whether all its epochs have ended."""
        return self._state.epoch == self._epoch + len(self.ends)

    def record(self, count: int, seconds: float) -> None:
        """Note that the next `count` steps have been taken, in so much time."""
        if count:
            done = self._schedule.of(slice(self.at, self.at + count))
            record(self._state.history, done, self._epoch * self._n, self.losses, self.correct)
        self._state.step += count
        self._state.seconds += seconds

    def end_epochs(self, n_edges: Callable[[], int], validate: Callable[[], dict[str, float]] | None = None) -> bool:
        """Note the epochs that have ended, if any."""
        state, first = self._state, self._state.epoch
        last = self._epoch + int(np.searchsorted(self.ends, self.at, "right"))
        if first == last:
            return False
        begin = np.append(state.taken, self._taken + self.ends[first - self._epoch : last - self._epoch])
        scores = validate() if validate else {}
        validation = {f"validation_{name}": scores.get(name, np.nan) for name in ("loss", "accuracy") if scores}
        cost = self._cost[np.append(begin, state.taken + state.step) - self._taken]
        seconds = state.seconds * (np.diff(cost[:-1]) / (cost[-1] - cost[0]))
        loss, accuracy = means_of(state.history, begin)
        state.whole = False
        state.history.add(
            epoch_examples=self._n * np.arange(first + 1, last + 1),
            epoch_seconds=seconds,
            epoch_loss=loss,
            epoch_accuracy=accuracy,
            epoch_edges=np.full(last - first, n_edges()),
            **validation,
        )
        state.step -= int(begin[-1]) - state.taken
        state.seconds = max(0.0, state.seconds - float(seconds.sum())) if state.step else 0.0
        state.epoch, state.taken, state.whole = last, int(begin[-1]), True
        return True


def train(
    run: Callable[..., tuple[int, Any, Any]],
    examples: Examples,
    course: Course,
    learning: Learning,
    *,
    guard: Guard,
    validate: Callable[[], dict[str, float]] | None,
    callback: Callable[[Progress], Any] | None,
    state: RunState,
    between: Callable[[], Any],
    n_edges: Callable[[], int],
    sparse: ScheduleRunner | None,
) -> None:
    """Run all steps from where `state` says, in pieces that return to Python often enough for Ctrl-C and progress.

    `run` is called as `Engine.execute`, and runs the graph as each piece finds it: a callback or another thread may have edited
    the graph, or compiled another part of it and so moved the parameters. Steps that are not certain to stay finite are left
    to `guard`.
    `between` is called between pieces, when all that follows from a step is done: there a run can be left and resumed.
    `n_edges` counts the edges that are alive. `sparse` cuts and grows edges before the steps that it chooses. It and a
    callback end the run by raising StopIteration.
    """
    n, epochs, history = len(examples), course.epochs, state.history
    # Where nothing else may happen between epochs, one call takes several: each short one would else wait for Python.
    apart = validate is not None or callback is not None or sparse is not None or callable(course.learning_rate)
    per_step = per_example = 0.0

    def goes_on(kind: Literal["steps", "epoch"], epoch: int, loss: float, accuracy: float) -> bool:
        """Tell the callback; whether the run goes on."""
        if callback:
            seen = int(history.batch_examples[-1])
            try:
                callback(Progress(kind, epoch, epochs, seen, epochs * n, loss, accuracy, history))
            except StopIteration:
                return False
        return True

    while state.epoch < epochs:
        many = 1
        if per_example and not apart:
            most = min(int(PIECE_SECONDS / per_example), MOST_PLACES) // n
            many = max(1, min(epochs - state.epoch, most, MOST_EPOCHS))
        stretch = _Stretch(state, many, n, course, learning)
        steps = stretch.steps
        guard.begin(_highest(course.learning_rate, learning, steps))
        while not stretch.is_over:
            if stretch.at < stretch.end:  # else the run was left at the end of an epoch, which was not noted yet
                at, last, number, begin = stretch.at, len(steps.rate), state.taken + state.step, time.perf_counter()
                state.whole = False
                if sparse:
                    try:
                        last = at + sparse(number, (np.append(steps.first[at:], n) + state.epoch * n) / (epochs * n))
                    except StopIteration:
                        return
                    state.seconds += time.perf_counter() - begin
                    begin = time.perf_counter()
                bad, done = 0, at
                with guard.lock:
                    limit = guard.limit
                    if limit:
                        piece = max(1, int(PIECE_SECONDS / per_step)) if per_step else FIRST_PIECE
                        part = slice(at, min(at + piece, last))
                        # Else Ctrl-C would lose the history of thousands of epochs.
                        with nullcontext() if apart else uninterrupted():
                            bad, _, _ = run(
                                examples,
                                steps=steps.of(part),
                                limit=limit,
                                losses=stretch.losses,
                                correct=stretch.correct,
                                **learning._asdict(),
                            )
                            done = part.stop if bad < 0 else at + bad
                            stretch.record(done - at, time.perf_counter() - begin)
                            if not apart:
                                stretch.end_epochs(n_edges)
                spent = time.perf_counter() - begin
                if bad >= 0:
                    state.whole = False  # though epochs may have ended before this step
                    begin = time.perf_counter()
                    step = steps.of(slice(done, done + 1))
                    stretch.losses[step.places], right = guard.step(step, f"epoch {state.epoch}, step {state.step}")
                    if stretch.correct is not None and right is not None:
                        stretch.correct[step.places] = right
                    stretch.record(1, time.perf_counter() - begin)
                    done, spent = done + 1, spent + time.perf_counter() - begin
                state.whole = True
                per_step, per_example = spent / (done - at), spent / int(steps.size[at:done].sum())
                if callback:
                    (loss,), (accuracy,) = means_of(history, np.array([number, number + done - at]))
                    if not goes_on("steps", state.epoch, float(loss), float(accuracy)):
                        return
                between()
            if stretch.end_epochs(n_edges, validate):
                if not goes_on(
                    "epoch", state.epoch - 1, float(history.epoch_loss[-1]), float(history.epoch_accuracy[-1])
                ):
                    return
                between()


def _highest(learning_rate: Rates, learning: Learning, steps: Steps) -> float:
    """The highest rate of the run or, if rates are a function, of these steps.

    How many steps are prepared together depends on the clock, which must not decide how a step that may overflow is taken: by
    blocks with holes, or by rows.
    """
    if callable(learning_rate):
        return float(steps.rate.max())
    highest = max(learning_rate)
    if learning.optimizer == "adam":  # whose bias corrections multiply a rate by less than this
        highest /= 1 - float(np.float32(learning.hyper[0]))
    return min(highest, FLOAT32_MAX)
