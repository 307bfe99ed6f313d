"""Steps of training: the examples and the learning rate of each, and the options that all share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import mlgraph_ext
from mlgraph._support.array_types import Float32, Float64, Int64
from mlgraph.engine.losses import Objective

Rates = tuple[float, float] | Callable[[Float64], Float64]
"""First and last value, or a function of the progress from 0 to 1."""


class Steps(NamedTuple):
    """Consecutive steps.

    Attributes
    ----------
    first, size : int64, shape (steps,)
        Step i takes the examples ``order[first[i] : first[i] + size[i]]``.
    rate : float32, shape (steps,)
        Learning rates.
    decay : float32, shape (steps,), optional
        Fraction of each weight that weight decay removes at a step.
    shrink : float32, shape (steps,), optional
        How much L1 moves each weight towards 0 after a step.
    order : int64, optional
        Indices of examples; by default the order of the data.
    number : int
        Number of the first step since training began. Together with the seed it determines dropout.
    """

    first: Int64
    size: Int64
    rate: Float32
    decay: Float32 | None = None
    shrink: Float32 | None = None
    order: Int64 | None = None
    number: int = 0

    @classmethod
    def without_update(cls, first: Int64, size: Int64) -> Steps:
        """Steps with a learning rate of 0."""
        return cls(first, size, np.zeros(len(size), np.float32))

    def of(self, some: slice) -> Steps:
        """The steps of a slice, which must have a start."""
        decay, shrink = (None if column is None else column[some] for column in (self.decay, self.shrink))
        columns = self.first[some], self.size[some], self.rate[some], decay, shrink
        return Steps(*columns, self.order, self.number + some.start)

    @property
    def largest(self) -> int:
        """Number of examples of the largest step."""
        return int(self.size.max(initial=0))

    @property
    def places(self) -> slice:
        """Range in `order` of the examples of all steps."""
        return slice(int(self.first[0]), int(self.first[-1] + self.size[-1]))

    @property
    def rows(self) -> Int64:
        """Indices of the examples of all steps."""
        places = self.places
        return np.arange(places.start, places.stop) if self.order is None else self.order[places]


class Course(NamedTuple):
    """The options of `fit` that determine the steps of a run.

    Attributes
    ----------
    epochs : int
    batch_size : (int, int)
        First and last batch size.
    learning_rate : (float, float) or callable
    weight_decay, l1 : float
    shuffle : bool
    """

    epochs: int
    batch_size: tuple[int, int]
    learning_rate: Rates
    weight_decay: float
    l1: float
    shuffle: bool


class Learning(NamedTuple):
    """The options that all steps of a run share, named as the arguments of `Engine.execute`.

    Attributes
    ----------
    objective : Objective
    optimizer : str
        A key of `mlgraph.engine.engine.STATE`.
    hyper : (float, float, float)
        Momentum or beta1, beta2, epsilon.
    seed : int
        Seed of dropout.
    few : bool
        Whether steps skip zeros whatever the data. The smallest batch size decides for all steps.
    n_threads : int, optional
    clip_norm : float, optional
        Maximum norm of a step's gradient.
    """

    objective: Objective
    optimizer: str
    hyper: tuple[float, float, float]
    seed: int
    few: bool
    n_threads: int | None
    clip_norm: float | None = None


def epoch_steps(
    epoch: int, n: int, epochs: int, batch_size: tuple[int, int], learning_rate: Rates, many: int = 1, start: int = 0
) -> Steps:
    """Batch sizes and learning rates of `many` consecutive epochs of n examples each, without the first `start`.

    Both change after every batch. With the progress p = examples seen / examples in all epochs, the
    learning rate is a given function of p, or lr0 (1 - p^1.5) + lr1 p^1.5. The batch size is
    round(b0 (1 - p^2) + b1 p^2). The last batch of an epoch has the remaining examples.
    """
    b0, b1 = batch_size

    def size_at(place: int) -> int:
        p = (epoch * n + place) / (epochs * n)
        return max(1, round(b0 * (1 - p**2) + b1 * p**2))

    def end_of(size: int, at: int, stop: int) -> int:
        """A place, not after the first one with another size, at which to look at the formula again.

        It is at most where the formula passes size +- 1/2.
        """
        p = math.sqrt((size + math.copysign(0.5, b1 - b0) - b0) / (b1 - b0))
        end = min(max(at + 1, math.ceil(p * epochs * n) - epoch * n), stop)
        while size_at(end - 1) != size:  # rounding may have moved it too far
            end -= 1
        return end

    first: list[Int64] = []
    if b0 == b1:
        first.append(np.arange(start, n, b0))
        first.append(np.add.outer(np.arange(n, many * n, n), np.arange(0, n, b0)).ravel())
    else:
        for stop in range(n, many * n + 1, n):
            at = max(start, stop - n)
            while at < stop:
                # Sizes change slowly, so that many steps of one size can be made at once.
                size = size_at(at)
                first.append(np.arange(at, end_of(size, at, stop), min(size, n)))  # 2^63 does not fit into an int64
                at = int(first[-1][-1]) + size
    begin = np.concatenate([*first, [many * n]])
    progress = (epoch * n + begin[:-1]) / (epochs * n)
    if callable(learning_rate):
        rate = learning_rate(progress)
    else:
        (lr0, lr1), moved = learning_rate, progress**1.5
        rate = lr0 * (1 - moved) + lr1 * moved
    with np.errstate(under="ignore"):
        return Steps(begin[:-1], begin[1:] - begin[:-1], rate.astype(np.float32))


def epoch_order(epoch: int, n: int, seed: int, many: int = 1) -> Int64:
    """Shuffled indices of n examples for each of `many` consecutive epochs; int64, shape (many * n,)."""
    order = np.empty(many * n, np.int64)
    for i in range(many):
        mlgraph_ext.sweep.shuffle(order[i * n : (i + 1) * n], seed & 0xFFFFFFFFFFFFFFFF, epoch + i)
    return order
