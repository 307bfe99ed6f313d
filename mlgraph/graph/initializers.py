"""First weights of layers, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlgraph._support.array_types import Float32
from mlgraph._support.checks import one_of, real_array, shown

VARIANCES: dict[str, Callable[[int, int], float]] = {
    "he_normal": lambda fan_in, fan_out: 2 / fan_in,
    "he_uniform": lambda fan_in, fan_out: 2 / fan_in,
    "glorot_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "glorot_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "lecun_normal": lambda fan_in, fan_out: 1 / fan_in,
    "zeros": lambda fan_in, fan_out: 0,
}
"""The variances of He et al. 2015, of Glorot and Bengio 2010, and of LeCun et al. 1998."""


def checked_init(init: Any) -> Any:
    """`init` if it is None, a name or callable; else a TypeError or ValueError."""
    if init is None or callable(init):
        return init
    if not isinstance(init, str):
        raise TypeError(f"init: expected a name, a callable or None, got {shown(init)}")
    return one_of("init", init, tuple(VARIANCES))


def called(init: Callable[[tuple[int, int]], Any], shape: tuple[int, int]) -> Any:
    """What a callable returns for the shape (neurons, sources), as an array of this shape."""
    weights = real_array("init", init(shape))
    if weights.shape != shape:
        raise ValueError(f"init: expected an array of shape {shape}, (neurons, sources), got shape {weights.shape}")
    return weights


def draw(init: str, random: np.random.Generator, shape: tuple[int, int]) -> Float32:
    """Weights of shape (neurons, sources), by name."""
    deviation = VARIANCES[init](shape[1], shape[0]) ** 0.5
    if init == "zeros":
        return np.zeros(shape, np.float32)
    if init.endswith("uniform"):
        return (2 * random.random(shape, np.float32) - 1) * np.float32(3**0.5 * deviation)
    return random.standard_normal(shape, np.float32) * np.float32(deviation)
