"""Learning: the loop that trains, in pieces of several steps, and the history that it records."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from mlgraph.array_types import Float32, Float64, Int64, UInt8
from mlgraph.checks import FLOAT32_MAX
from mlgraph.examples import Examples
from mlgraph.losses import empty_answers
from mlgraph.steps import Learning, Rates, Steps, epoch_order, epoch_steps

if TYPE_CHECKING:
    from mlgraph.nonfinite import Guard
    from mlgraph.sparsify import Acting

PIECE_SECONDS = 0.1
"""Aim for the length of one call of the sweep: Ctrl-C and progress wait no longer than that."""


def _no_ints() -> Int64:
    return np.zeros(0, np.int64)


def _no_doubles() -> Float64:
    return np.zeros(0)


@dataclass(repr=False, eq=False)
class History:
    """What happened in a run.

    Attributes
    ----------
    batch_examples, batch_size : int64, shape (batches,)
        Examples seen up to the end of the batch, over all epochs; size of the batch.
    batch_skipped : int64, shape (batches,)
        How many examples of the batch were left out, because they gave a number that is not finite.
    learning_rate, batch_loss, batch_accuracy : float64, shape (batches,)
        Loss and accuracy are means over the batch, before its update of the parameters; NaN if there is none.
    epoch_examples : int64, shape (epochs,)
    epoch_loss, epoch_accuracy : float64, shape (epochs,)
        Means over the examples of the epoch that were not left out, each measured when its batch was trained on.
    validation_loss, validation_accuracy : float64, shape (epochs,)
        After the epoch; empty without validation data.
    epoch_seconds : float64, shape (epochs,)
        Time of the training alone, without validation and callbacks.
    epoch_edges : int64, shape (epochs,)
        How many edges were alive at the end of the epoch.
    nonfinite_step, nonfinite_sweep, nonfinite_node, nonfinite_example, nonfinite_cut : int64, shape (faults,)
        One entry for each example left out or neuron disconnected. Step: its number since training began. Sweep: 0 forward,
        1 backward, 2 update. Node: where the first fault of that step began. Example: its place in the data, -1 if only a
        sum over the examples of the step, or the resulting update, overflowed. Cut: the neuron that was cut, or -1.
    """

    batch_examples: Int64 = field(default_factory=_no_ints)
    batch_size: Int64 = field(default_factory=_no_ints)
    batch_skipped: Int64 = field(default_factory=_no_ints)
    learning_rate: Float64 = field(default_factory=_no_doubles)
    batch_loss: Float64 = field(default_factory=_no_doubles)
    batch_accuracy: Float64 = field(default_factory=_no_doubles)
    epoch_examples: Int64 = field(default_factory=_no_ints)
    epoch_loss: Float64 = field(default_factory=_no_doubles)
    epoch_accuracy: Float64 = field(default_factory=_no_doubles)
    validation_loss: Float64 = field(default_factory=_no_doubles)
    validation_accuracy: Float64 = field(default_factory=_no_doubles)
    epoch_seconds: Float64 = field(default_factory=_no_doubles)
    epoch_edges: Int64 = field(default_factory=_no_ints)
    nonfinite_step: Int64 = field(default_factory=_no_ints)
    nonfinite_sweep: Int64 = field(default_factory=_no_ints)
    nonfinite_node: Int64 = field(default_factory=_no_ints)
    nonfinite_example: Int64 = field(default_factory=_no_ints)
    nonfinite_cut: Int64 = field(default_factory=_no_ints)

    def __repr__(self) -> str:
        cut = np.count_nonzero(self.nonfinite_cut >= 0)
        more = [f"{n} {what}" for n, what in ((int(self.batch_skipped.sum()), "examples left out"), (cut, "neurons cut")) if n]
        for what in ("epoch_loss", "validation_loss", "validation_accuracy"):
            more += [f"{what.replace('_', ' ')} {last:.4g}" for last in getattr(self, what)[-1:] if last == last]
        return f"<History of {', '.join([f'{len(self.epoch_loss)} epochs', f'{len(self.batch_loss)} batches', *more])}>"

    def add(self, **values: Any) -> None:
        """Append to the arrays of these names: to all of them or to none."""
        rooms, longer = _rooms.setdefault(self, {}), {}
        for name, value in values.items():
            column, more = getattr(self, name), np.atleast_1d(value)
            begin, end = len(column), len(column) + len(more)
            room, used = rooms.get(name, (None, 0))
            if room is None or column.base is not room or used != begin or len(room) < end:
                room = np.empty(max(64, 2 * end), column.dtype)
                room[:begin] = column
            room[begin:end] = more
            rooms[name] = room, end
            longer[name] = room[:end]
        vars(self).update(longer)

    def to_dict(self) -> dict[str, list[float | None]]:
        """All arrays as lists, by name, fit for JSON: numbers that are not finite become None."""
        return {name: [v if math.isfinite(v) else None for v in column.tolist()] for name, column in vars(self).items()}


_rooms: WeakKeyDictionary[History, dict[str, tuple[npt.NDArray[Any], int]]] = WeakKeyDictionary()
"""For each column, the longer array that it is the beginning of, and how much of that is used: it can grow uncopied."""


@dataclass(frozen=True)
class Progress:
    """What `fit` tells its callback.

    Attributes
    ----------
    kind : "steps" or "epoch"
        "steps" about every 0.1 s, between two steps; "epoch" at the end of an epoch, after validation.
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
    """

    history: History
    epoch: int = 0
    step: int = 0
    taken: int = 0
    seconds: float = 0.0


def train(
    run: Callable[..., tuple[int, Any, Any]],
    examples: Examples,
    epochs: int,
    batch_size: tuple[int, int],
    learning_rate: Rates,
    learning: Learning,
    *,
    weight_decay: float,
    shuffle: bool,
    guard: Guard,
    validate: Callable[[], dict[str, float]] | None,
    callback: Callable[[Progress], Any] | None,
    state: RunState,
    between: Callable[[], Any],
    n_edges: Callable[[], int],
    sparse: Acting | None,
) -> None:
    """Run all steps from where `state` says, in pieces that return to Python often enough for Ctrl-C and progress.

    `run` is called as `Engine.run`, and runs the graph as each piece finds it: a callback or another thread may have edited
    the graph, or compiled another part of it and so moved the parameters. `batch_size` and `learning_rate` are those of
    `epoch_steps`. Steps that are not certain to stay finite are left to `guard`.
    `between` is called between pieces, when all that follows from a step is done: there a run can be left and resumed.
    `n_edges` counts the live edges. `sparse` cuts and grows edges before the steps that it chooses. It and a callback end
    the run by raising StopIteration.
    """

    def goes_on(progress: Progress) -> bool:
        try:
            if callback:
                callback(progress)
        except StopIteration:
            return False
        return True

    n, history = len(examples), state.history
    losses, correct = np.zeros(n, np.float32), empty_answers(learning.objective, n)
    per_step = 0.0
    while state.epoch < epochs:
        epoch, taken = state.epoch, state.taken
        order = epoch_order(epoch, n, learning.seed) if shuffle else np.arange(n)
        schedule = epoch_steps(epoch, n, epochs, batch_size, learning_rate)
        rate = schedule.rate
        with np.errstate(under="ignore"):
            decay = np.minimum(rate * np.float32(weight_decay), np.float32(1)) if weight_decay else None
            if learning.optimizer == "adam":
                # The bias corrections of both moments, folded into the rate (Kingma & Ba 2015, end of section 2).
                t = np.arange(taken + 1, taken + len(rate) + 1)
                beta1, beta2 = np.array(learning.hyper[:2], np.float32).astype(np.float64)  # as the kernels have them
                rate = np.minimum(rate * np.sqrt(1 - beta2**t) / (1 - beta1**t), FLOAT32_MAX).astype(np.float32)
        steps = schedule._replace(rate=rate, decay=decay, order=order, number=taken)
        guard.begin(float(rate.max()))
        while state.step < len(rate):
            at, last, begin = state.step, len(rate), time.perf_counter()
            if sparse:
                try:
                    last = at + sparse(taken + at, (np.append(steps.first[at:], n) + epoch * n) / (epochs * n))
                except StopIteration:
                    return
                state.seconds += time.perf_counter() - begin
            limit = guard.limit
            piece = max(1, int(PIECE_SECONDS / per_step)) if per_step else 4
            part = slice(at, min(at + piece, last) if limit else at)
            begin = time.perf_counter()
            bad = 0
            if limit:
                bad, _, _ = run(
                    examples, steps=steps.of(part), limit=limit, losses=losses, correct=correct, **learning._asdict()
                )
            done = part.stop if bad < 0 else at + bad
            _record(history, schedule.of(slice(at, done)), epoch * n, losses, correct)
            state.step = done
            if bad >= 0:
                step = steps.of(slice(done, done + 1))
                places = step.places
                losses[places], right = guard.step(step, f"epoch {epoch}, step {done}")
                if correct is not None and right is not None:
                    correct[places] = right
                _record(history, schedule.of(slice(done, done + 1)), epoch * n, losses, correct)
                state.step = done + 1
            spent = time.perf_counter() - begin
            state.seconds += spent
            per_step = spent / (state.step - at)
            seen, (loss, accuracy) = int(history.batch_examples[-1]), _means(history, taken + at)
            if not goes_on(Progress("steps", epoch, epochs, seen, epochs * n, loss, accuracy, history)):
                return
            between()
        scores = validate() if validate else None
        loss, accuracy = _means(history, taken)
        ended = {
            "epoch_examples": (epoch + 1) * n, "epoch_seconds": state.seconds, "epoch_edges": n_edges(), "epoch_loss": loss,
            "epoch_accuracy": accuracy,
        }  # fmt: skip
        if scores:
            ended |= {"validation_loss": scores["loss"], "validation_accuracy": scores.get("accuracy", np.nan)}
        history.add(**ended)
        state.epoch, state.step, state.taken, state.seconds = epoch + 1, 0, taken + len(rate), 0.0
        if not goes_on(Progress("epoch", epoch, epochs, (epoch + 1) * n, epochs * n, loss, accuracy, history)):
            return
        between()


def _means(history: History, first: int) -> tuple[float, float]:
    """Mean loss and accuracy of the examples from batch number `first` on that were not left out."""
    count = history.batch_size[first:] - history.batch_skipped[first:]
    some = count > 0
    if not some.any():
        return float("nan"), float("nan")
    columns = history.batch_loss[first:], history.batch_accuracy[first:]
    with np.errstate(invalid="ignore"):  # infinities of both signs, once all that learns has been disconnected
        loss, accuracy = ((column[some] * count[some]).sum() / count.sum() for column in columns)
    return float(loss), float(accuracy)


def _record(history: History, steps: Steps, before: int, losses: Float32, correct: UInt8 | None) -> None:
    if not len(steps.first):
        return
    first, size, here = steps.first, steps.size, steps.places
    begin = first - first[0]

    def total(values: npt.NDArray[Any]) -> Float64:
        return np.add.reduceat(values, begin, dtype=np.float64)

    # Infinities of both signs are possible where nothing is learnt from them; and 0 / 0 where a step was left out.
    with np.errstate(invalid="ignore"):
        loss, count = total(losses[here]), size
        right = np.full(len(size), np.nan) if correct is None else total(correct[here])
        if np.isnan(loss).any():
            left_out = np.isnan(losses[here])  # none of these counts as right
            loss, count = total(np.where(left_out, 0, losses[here])), size - total(left_out).astype(np.int64)
        history.add(
            batch_examples=before + first + size,
            batch_size=size,
            batch_skipped=size - count,
            learning_rate=steps.rate,
            batch_loss=loss / count,
            batch_accuracy=right / count,
        )
