"""Random numbers of a graph: its generator, the seeds that are drawn from it, and first weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgraph._support.array_types import Float32
from mlgraph._support.checks import MOST_SEED, whole

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph


def checked_seed(seed: Any) -> int | None:
    """`seed` if it is None or a valid seed; else a TypeError or ValueError."""
    return None if seed is None else whole("seed", seed, 0, MOST_SEED)


def new_generator(seed: int) -> np.random.Generator:
    """A generator that begins with this seed."""
    return np.random.Generator(np.random.PCG64(seed))  # by name: numpy may change what `default_rng` returns


def state_of(random: np.random.Generator) -> dict[str, Any]:
    """The state of a generator as plain strings and integers."""
    return dict(random.bit_generator.state)


def generator_at(state: dict[str, Any]) -> np.random.Generator:
    """A generator in a state that `state_of` returned."""
    random = new_generator(0)
    random.bit_generator.state = state
    return random


def is_state(value: Any) -> bool:
    """Whether `generator_at` can continue from `value`, which may be any JSON."""
    if not isinstance(value, dict) or value.keys() != {"bit_generator", "state", "has_uint32", "uinteger"}:
        return False
    inner = value["state"]
    if value["bit_generator"] != "PCG64" or not isinstance(inner, dict) or inner.keys() != {"state", "inc"}:
        return False
    numbers = ((inner["state"], 128), (inner["inc"], 128), (value["has_uint32"], 1), (value["uinteger"], 32))
    in_range = all(type(number) is int and 0 <= number < 2**bits for number, bits in numbers)
    return in_range and inner["inc"] % 2 == 1  # an even increment would shorten the period


def seed_for(graph: Graph, seed: int | None) -> int:
    """`seed`, or if it is None one from the graph's generator."""
    with graph.lock:
        return int(graph.random.integers(MOST_SEED, dtype=np.uint64, endpoint=True)) if seed is None else seed


@contextmanager
def seeded(graph: Graph, seed: int | None) -> Iterator[int]:
    """As `seed_for`, but an exception in the block, which holds the lock, puts the generator back."""
    with graph.lock:
        before = state_of(graph.random)
        try:
            yield seed_for(graph, seed)
        except BaseException:
            graph.random = generator_at(before)
            raise


def first_weights(random: np.random.Generator, n: int, fan_in: int) -> Float32:
    """Weights of n new neurons, float32 of shape (n, fan_in)."""
    # The variance that PyTorch's Linear begins with, 1 / (3 fan_in). He's six times wider start (He
    # et al. 2015) costs 784-32-10 on MNIST 0.2 points of test accuracy.
    return random.standard_normal((n, fan_in), np.float32) / np.float32((3 * fan_in) ** 0.5)
