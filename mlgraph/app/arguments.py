"""Types of command-line arguments, and a parser that reports each mistake in one line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import NoReturn, TypeVar

import numpy as np

from mlgraph._support.checks import FLOAT32_MAX, MOST_SEED
from mlgraph._support.threads import MOST_THREADS

MOST = 10**9  # upper limit of every count: more than anybody needs, and far from overflow
MOST_SEEDS = 10**5  # of a sweep

T = TypeVar("T")


class Failure(Exception):
    """Ends the program with a one-line message and no traceback; the default exit status 2 means incorrect usage."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


class Parser(argparse.ArgumentParser):
    """Raises a `Failure` instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise a `Failure`; argparse calls this method for every mistake."""
        message = message.replace("ignored explicit argument", "expected no value, got")
        for word in message.partition("unrecognized arguments: ")[2].split():
            name = word.partition("=")[0]
            close = [option for option in self._option_string_actions if name == f"--{_initials(option)}"]
            close += get_close_matches(name, self._option_string_actions, 1, 0.75)
            if word.startswith("-") and close:
                raise Failure(f"{message} (did you mean {close[0]}?)")
        raise Failure(message)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the words of a command line."""
        given = self.parse_args(words)
        for name, value in vars(given).items():
            if value == []:  # some versions of argparse parse --name=-- as an empty list
                self.error(f"argument --{name.replace('_', '-')}: expected one argument")
        return given


def _initials(option: str) -> str:
    """``lr`` of ``--learning-rate``."""
    return "".join(word[0] for word in option.strip("-").split("-"))


def _type(
    expected: str, parse: Callable[[str], T], valid: Callable[[T], bool], hint: Callable[[T], str] = lambda value: ""
) -> Callable[[str], T]:
    def convert(text: str) -> T:
        more = ""
        try:
            value = parse(text)
            if valid(value):
                return value
            more = hint(value)
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}{more}")

    return convert


def one_of(*names: str) -> Callable[[str], str]:
    """Type of an argument that must be one of at least two names."""
    return _type(f"{', '.join(names[:-1])} or {names[-1]}", str, names.__contains__)


def _pair(parse: Callable[[str], T]) -> Callable[[str], tuple[T, T]]:
    def convert(text: str) -> tuple[T, T]:
        first, colon, last = text.partition(":")
        return parse(first), parse(last if colon else first)

    return convert


def _sizes(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(map(int, text.split(",")))


def _ranges(text: str) -> tuple[int, ...]:
    """Integers in ascending order, each once; those of ``0,4-6`` are 0, 4, 5 and 6."""
    values: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if not low <= high < low + MOST_SEEDS:
            raise ValueError
        values.update(range(low, high + 1))
    return tuple(sorted(values))


def _fractions(text: str) -> tuple[float, ...]:
    return tuple(sorted(set(map(float, text.split(",")))))


def _percent(*values: float) -> str:
    """What to write instead of a percentage."""
    return next((f"; {x:g} % is {x / 100:g}" for x in values if 1 < x < 100), "")


def _are_counts(values: tuple[int, ...]) -> bool:
    return all(1 <= value <= MOST for value in values)


COUNT = _type(f"an integer from 1 to {MOST}", int, lambda n: 1 <= n <= MOST)
SECONDS = _type(f"a number of seconds from 0 to {MOST}", float, lambda x: 0 <= x <= MOST)
INDEX = _type(f"an integer from 0 to {MOST}", int, lambda n: 0 <= n <= MOST)
SEED = _type("an integer from 0 to 2**64 - 1", int, lambda n: 0 <= n <= MOST_SEED)
SEEDS = _type(
    f"at most {MOST_SEEDS} integers from 0 to 2**64 - 1 such as 0-9 or 0,4-6",
    _ranges,
    lambda values: values[0] >= 0 and values[-1] <= MOST_SEED and len(values) <= MOST_SEEDS,
)
THREADS = _type(f"an integer from 1 to {MOST_THREADS}", int, lambda n: 1 <= n <= MOST_THREADS)
DECAY = _type("a finite number of at least 0", float, lambda x: 0 <= x <= FLOAT32_MAX)
FRACTION = _type("a number from 0 to below 1", float, lambda x: 0 <= x < 1, _percent)
FRACTIONS = _type(
    "numbers from 0 to below 1 such as 0,0.9,0.98",
    _fractions,
    lambda values: all(0 <= x < 1 for x in values),
    lambda values: _percent(*values),
)
MOMENTUM = _type(
    "a number from 0 to below 1 (also when rounded to float32)", float, lambda x: bool(0 <= np.float32(x) < 1)
)
SIZES = _type(f"integers from 1 to {MOST} such as 32 or 300,100, or none", _sizes, _are_counts)
NEURON = _type(
    "LAYER.INDEX such as 0.7", lambda text: tuple(map(int, text.split("."))), lambda v: len(v) == 2 and min(v) >= 0
)
COUNTS = _type(f"N or A:B with integers from 1 to {MOST}", _pair(int), _are_counts)
RATES = _type(
    "X or A:B with finite numbers above 0", _pair(float), lambda pair: all(0 < x <= FLOAT32_MAX for x in pair)
)
