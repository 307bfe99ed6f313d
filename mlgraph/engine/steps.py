"""Steps of a run: the examples and the learning rate of each, and what all have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import mlgraph_ext
from mlgraph._support.array_types import Float32, Float64, Int64
from mlgraph.engine.losses import Objective

Rates = tuple[float, float] | Callable[[Float64], Float64]
"""From and to, or a function of the progress."""


class Steps(NamedTuple):
    """Steps, one after the other.

    Attributes
    ----------
    first, size : int64, shape (steps,)
        Step i takes ``size[i]`` examples from place ``first[i]`` of `order` on.
    rate : float32, shape (steps,)
        Learning rates.
    decay : float32, shape (steps,), optional
        The share of themselves that weights of edges lose at a step, besides the optimizer's update.
    order : int64, shape (any,), optional
        Examples by place; by default in the order of the data.
    number : int
        Number of the first step since training began; with a seed it fixes what is dropped.
    """

    first: Int64
    size: Int64
    rate: Float32
    decay: Float32 | None = None
    order: Int64 | None = None
    number: int = 0

    @classmethod
    def at_rest(cls, first: Int64, size: Int64) -> Steps:
        """Steps that move nothing."""
        return cls(first, size, np.zeros(len(size), np.float32))

    def of(self, part: slice) -> Steps:
        """Some of these steps; the first is number ``part.start`` of them."""
        decay = None if self.decay is None else self.decay[part]
        return Steps(self.first[part], self.size[part], self.rate[part], decay, self.order, self.number + part.start)

    @property
    def places(self) -> slice:
        """Places in `order` of all their examples."""
        return slice(int(self.first[0]), int(self.first[-1] + self.size[-1]))

    @property
    def rows(self) -> Int64:
        """All their examples."""
        places = self.places
        return np.arange(places.start, places.stop) if self.order is None else self.order[places]


class Course(NamedTuple):
    """What decides which steps a run has, as `fit` is given it.

    Attributes
    ----------
    epochs : int
    batch_size : (int, int)
        From and to.
    learning_rate : (float, float) or callable
    weight_decay : float
    shuffle : bool
    """

    epochs: int
    batch_size: tuple[int, int]
    learning_rate: Rates
    weight_decay: float
    shuffle: bool


class Learning(NamedTuple):
    """What all steps of a training have in common, under the names that `Engine.run` has for it.

    Attributes
    ----------
    objective : Objective
    optimizer : str
        A key of `mlgraph.engine.engine.STATE`.
    hyper : (float, float, float)
        Momentum or beta1, beta2, epsilon.
    seed : int
        Seed of all that is drawn at random.
    few : bool
        Whether steps have so few examples that zeros are skipped whatever the data; the smallest batch size decides for all.
    n_threads : int, optional
    """

    objective: Objective
    optimizer: str
    hyper: tuple[float, float, float]
    seed: int
    few: bool
    n_threads: int | None


def epoch_steps(
    epoch: int, n: int, epochs: int, batch_size: tuple[int, int], learning_rate: Rates, many: int = 1
) -> Steps:
    """Batch sizes and learning rates of an epoch of n examples, or of `many`, whose places follow one another.

    Both move after every batch. With the progress p = examples seen / examples in all epochs, the learning rate is a given
    function of p, or lr0 (1 - p^1.5) + lr1 p^1.5, and the batch size round(b0 (1 - p^2) + b1 p^2). The last batch of an epoch
    has the examples that are left.
    """
    b0, b1 = batch_size

    def size_at(place: int) -> int:
        p = (epoch * n + place) / (epochs * n)
        return max(1, round(b0 * (1 - p**2) + b1 * p**2))

    def end_of(size: int, at: int, stop: int) -> int:
        """Up to where the size is this one, from `at` on, or less far: to where the formula passes size +- 1/2, at most."""
        p = math.sqrt((size + math.copysign(0.5, b1 - b0) - b0) / (b1 - b0))
        end = min(max(at + 1, math.ceil(p * epochs * n) - epoch * n), stop)
        while size_at(end - 1) != size:  # rounding may have put it beyond
            end -= 1
        return end

    first: list[Int64] = []
    if b0 == b1:
        first.append(np.add.outer(np.arange(0, many * n, n), np.arange(0, n, b0)).ravel())
    else:
        for stop in range(n, many * n + 1, n):
            at = stop - n
            while at < stop:
                # Sizes fall or rise slowly, so steps of one size are made at once.
                size = size_at(at)
                first.append(np.arange(at, end_of(size, at, stop), min(size, n)))  # 2^63 is no int64
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
    """The order in which an epoch takes its n examples, or in which each of `many` does; int64, shape (many * n,)."""
    order = np.empty(many * n, np.int64)
    for i in range(many):
        mlgraph_ext.sweep.shuffle(order[i * n : (i + 1) * n], seed & 0xFFFFFFFFFFFFFFFF, epoch + i)
    return order
