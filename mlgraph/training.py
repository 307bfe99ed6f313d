"""Learning: schedules, the loop over pieces of steps, and what it leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph.checks import Float32
from mlgraph.engine import Examples

PIECE_SECONDS = 0.04
"""Aim for one call of the sweep: Ctrl-C and progress wait no longer."""

Doubles = npt.NDArray[np.float64]


class NonFiniteError(ArithmeticError):
    """A loss, an adjoint or a gradient was not finite; it reached no parameter.

    The step is given up: before any parameter moved if a loss or an adjoint was not finite. If only the sum of a gradient
    overflowed, other parameters may have taken the step.
    """


class Steps(NamedTuple):
    """Steps of training.

    Attributes
    ----------
    epoch, first, size : int64, shape (steps,)
        Step i takes ``size[i]`` examples from place ``first[i]`` of the shuffled data of epoch ``epoch[i]`` on.
    rate : float32, shape (steps,)
        Learning rates.
    """

    epoch: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    rate: npt.NDArray[np.float32]


def epoch_steps(
    epoch: int, n: int, epochs: int, batch_size: tuple[int, int], learning_rate: tuple[float, float]
) -> Steps:
    """Batch sizes and learning rates of one epoch; both move after every batch.

    With the progress p = examples seen / examples in all epochs, the learning rate is lr0 (1 - p^1.5) + lr1 p^1.5 and the
    batch size round(b0 (1 - p^2) + b1 p^2): the schedule of ml-rust, which computes its batch size but never uses it.
    The last batch of an epoch is as short as it must be.
    """
    (b0, b1), (lr0, lr1) = batch_size, learning_rate
    first = []
    at = 0
    while at < n:
        first.append(at)
        p = (epoch * n + at) / (epochs * n)
        at += max(1, round(b0 * (1 - p**2) + b1 * p**2))
    begin = np.array(first)
    progress = (epoch * n + begin) / (epochs * n)
    rate = lr0 * (1 - progress**1.5) + lr1 * progress**1.5
    return Steps(np.full(len(begin), epoch), begin, np.diff(begin, append=n), rate.astype(np.float32))


def schedule(n: int, epochs: int, batch_size: tuple[int, int], learning_rate: tuple[float, float]) -> Steps:
    """The steps of all epochs, one after the other; see `epoch_steps`."""
    parts = [epoch_steps(epoch, n, epochs, batch_size, learning_rate) for epoch in range(epochs)]
    return Steps(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclass
class History:
    """What happened in a run.

    Attributes
    ----------
    batch_examples, batch_size : int64, shape (batches,)
        Examples seen after the batch, in all epochs; size of the batch.
    learning_rate, batch_loss, batch_accuracy : float64, shape (batches,)
        Loss and accuracy are means over the batch, before it changed the parameters; NaN where there is no accuracy.
    epoch_examples : int64, shape (epochs,)
    epoch_loss, epoch_accuracy : float64, shape (epochs,)
        Means over the epoch's batches, taken while training.
    validation_loss, validation_accuracy : float64, shape (epochs,)
        After the epoch; empty without validation data.
    epoch_seconds : float64, shape (epochs,)
        Time of training alone.
    """

    batch_examples: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    batch_size: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    learning_rate: Doubles = field(default_factory=lambda: np.zeros(0))
    batch_loss: Doubles = field(default_factory=lambda: np.zeros(0))
    batch_accuracy: Doubles = field(default_factory=lambda: np.zeros(0))
    epoch_examples: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    epoch_loss: Doubles = field(default_factory=lambda: np.zeros(0))
    epoch_accuracy: Doubles = field(default_factory=lambda: np.zeros(0))
    validation_loss: Doubles = field(default_factory=lambda: np.zeros(0))
    validation_accuracy: Doubles = field(default_factory=lambda: np.zeros(0))
    epoch_seconds: Doubles = field(default_factory=lambda: np.zeros(0))

    def add(self, **values: Any) -> None:
        """Append to the arrays of these names."""
        for name, value in values.items():
            setattr(self, name, np.append(getattr(self, name), value))

    def to_dict(self) -> dict[str, list[float | None]]:
        """Lists by name, fit for JSON: what is not finite becomes None."""
        return {
            name: [None if v != v or abs(v) == np.inf else v for v in values.tolist()] for name, values in vars(self).items()
        }


@dataclass(frozen=True)
class Progress:
    """What `fit` tells its callback.

    Attributes
    ----------
    kind : "steps" or "epoch"
        After a piece of steps (about every 0.04 s), or at the end of an epoch, after validation.
    epoch, epochs : int
        The epoch, from 0, and how many there are.
    examples, total_examples : int
        Seen so far and in all, over all epochs.
    batch_loss, batch_accuracy : float
        Means over the steps since the last event.
    history : History
        Up to here.
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
    """Where a run stands between two steps: beside the model and the optimizer's state, all that its rest depends on.

    Attributes
    ----------
    losses : float32, shape (examples,)
        Of this epoch, by place in its order, as far as it has come.
    correct : uint8, shape (examples,), or None
        Whether the highest output was the label's; None without labels.
    history : History
    epoch, step : int
        The epoch and its next step.
    taken : int
        Steps of the epochs before.
    seconds : float
        Time of training in this epoch.
    """

    losses: Float32
    correct: npt.NDArray[np.uint8] | None
    history: History
    epoch: int = 0
    step: int = 0
    taken: int = 0
    seconds: float = 0.0

    @property
    def seen(self) -> int:
        """Examples of this epoch so far."""
        return int(self.history.batch_examples[-1]) - self.epoch * len(self.losses) if self.step else 0


def train(
    run: Callable[..., tuple[int, Any, Any]],
    examples: Examples,
    epochs: int,
    steps_of: Callable[[int], Steps],
    *,
    label: npt.NDArray[np.int32] | None,
    target: npt.NDArray[np.float32] | None,
    loss: str,
    loss_nodes: list[int],
    optimizer: str,
    hyper: tuple[float, float, float],
    seed: int,
    shuffle: bool,
    validate: Callable[[], dict[str, float]] | None,
    callback: Callable[[Progress], Any] | None,
    state: RunState,
    between: Callable[[], Any],
    explain: Callable[[npt.NDArray[np.int64]], str],
    n_threads: int | None,
) -> None:
    """Run all steps from where `state` says, in pieces that return to Python often enough for Ctrl-C and progress.

    `run` is what an engine's is, of the graph as each piece finds it: a callback or another thread may have edited the
    graph, or compiled another part of it and so moved the parameters. `between` is called between pieces, when all that a
    step leads to is done: there a run can be left, and go on later.
    """
    n, history = len(examples), state.history
    per_step = 0.0
    while state.epoch < epochs:
        epoch, taken = state.epoch, state.taken
        order = np.random.default_rng([seed, epoch]).permutation(n) if shuffle else np.arange(n)
        steps = steps_of(epoch)
        rate = steps.rate
        if optimizer == "adam":
            # The bias corrections of both moments, folded into the rate (Kingma & Ba 2015, end of section 2).
            t = np.arange(taken + 1, taken + len(rate) + 1)
            rate = (rate * np.sqrt(1 - hyper[1] ** t) / (1 - hyper[0] ** t)).astype(np.float32)
        losses, correct = state.losses, state.correct
        while state.step < len(rate):
            at = state.step
            piece = max(1, int(PIECE_SECONDS / per_step)) if per_step else 4
            part = slice(at, min(at + piece, len(rate)))
            begin = time.perf_counter()
            bad, _, _ = run(
                examples, first=steps.first[part], size=steps.size[part], rate=rate[part], order=order, label=label,
                target=target, loss=loss, loss_nodes=loss_nodes, optimizer=optimizer, hyper=hyper, training=True,
                backward=True, step_number=taken + at, seed=seed, losses=losses, correct=correct, n_threads=n_threads,
            )  # fmt: skip
            spent = time.perf_counter() - begin
            state.seconds += spent
            per_step = spent / (part.stop - at)
            done = slice(at, part.stop if bad < 0 else at + bad)
            _record(history, steps, done, epoch * n, losses, correct)
            state.step = done.stop
            if bad >= 0:
                step = at + bad
                places = slice(int(steps.first[step]), int(steps.first[step] + steps.size[step]))
                raise NonFiniteError(f"epoch {epoch}, step {step}: {explain(order[places])}")
            if callback:
                seen = slice(int(steps.first[at]), int(steps.first[done.stop - 1] + steps.size[done.stop - 1]))
                accuracy = float("nan") if correct is None else float(correct[seen].mean())
                mean = float(losses[seen].mean(dtype=np.float64))
                callback(Progress("steps", epoch, epochs, epoch * n + seen.stop, epochs * n, mean, accuracy, history))
            between()
        scores = validate() if validate else None
        history.add(
            epoch_examples=(epoch + 1) * n,
            epoch_seconds=state.seconds,
            epoch_loss=losses.mean(dtype=np.float64),
            epoch_accuracy=np.nan if correct is None else correct.mean(),
        )
        if scores:
            history.add(validation_loss=scores["loss"], validation_accuracy=scores.get("accuracy", np.nan))
        state.epoch, state.step, state.taken, state.seconds = epoch + 1, 0, taken + len(rate), 0.0
        if callback:
            end = history.epoch_loss[-1], history.epoch_accuracy[-1]
            callback(Progress("epoch", epoch, epochs, (epoch + 1) * n, epochs * n, float(end[0]), float(end[1]), history))
        between()


def _record(history: History, steps: Steps, done: slice, before: int, losses: Any, correct: Any) -> None:
    if done.stop == done.start:
        return
    first, size = steps.first[done], steps.size[done]
    cuts = np.append(first, first[-1] + size[-1])
    here = slice(cuts[0], cuts[-1])

    def means(values: Any) -> Doubles:
        return np.asarray(np.add.reduceat(values[here].astype(np.float64), first - cuts[0]) / size)

    history.add(
        batch_examples=before + first + size,
        batch_size=size,
        learning_rate=steps.rate[done].astype(np.float64),
        batch_loss=means(losses),
        batch_accuracy=np.full(len(size), np.nan) if correct is None else means(correct),
    )
