"""What the numbers of a function stand for: the columns of the data and the answers of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy.typing as npt

from mlgraph._support.array_types import Float64
from mlgraph._support.checks import plain
from mlgraph.engine.examples import Examples


class Units(NamedTuple):
    """How numbers of the data become inputs of a function, and what C says of both ends.

    Attributes
    ----------
    read : callable
        Takes data and what errors call them; returns the inputs.
    mean, std : float64, shape (inputs,)
        Input i of the function is ``(x[i] - mean[i]) / std[i]``.
    inputs : mapping from int to str
        Names of the columns that have one.
    answers : sequence of str
        Lines about the outputs.
    """

    read: Callable[[npt.ArrayLike, str], Examples]
    mean: Float64
    std: Float64
    inputs: Mapping[int, str]
    answers: Sequence[str]

    @property
    def divisor(self) -> float | None:
        """255 or 1 if all columns are only divided by that, as bytes and unscaled numbers are; None for others."""
        return next((n for n in (1.0, 255.0) if not self.mean.any() and (self.std == n).all()), None)


def quoted(name: str) -> str:
    """A name for a comment in C, which it cannot end."""
    return '"{}"'.format(plain(name).replace("*/", "* /").replace("/*", "/ *"))


def numbered(array: str, names: Mapping[int, str]) -> list[str]:
    """Lines that name elements of an array."""
    return [f"{array}[{i}]: {quoted(name)}" for i, name in names.items()]


def comment(first: str, lines: Sequence[str]) -> list[str]:
    """A comment in C."""
    return [f"/* {first}", "", *(f"   {line}" if line else "" for line in lines), "*/"] if lines else [f"/* {first} */"]
