"""`fit(verbose=True)`: a line for each epoch on standard output."""

from __future__ import annotations

import time
import warnings
from typing import Any

from mlgraph._support.checks import level_outside
from mlgraph.models.history import History

RATE = 10
"""Maximum number of lines a second, so that hundreds of short epochs do not flood the screen."""


class Report:
    """Prints the epochs of a run when it is called after they end; its ``with`` block ends with the last of them.

    Parameters
    ----------
    history : History
        The history of the run, which may have epochs from before it was resumed.
    epochs : int
        Number of epochs of the whole run.
    """

    def __init__(self, history: History, epochs: int) -> None:
        self._history = history
        self._epochs = epochs
        self._seen = self._printed = len(history.epoch_loss)
        self._due = 0.0

    def __enter__(self) -> Report:
        return self

    def __call__(self) -> None:
        """Print the epochs that have ended since the last call, as far as `RATE` allows."""
        while self._seen < len(self._history.epoch_loss):
            self._seen += 1
            now = time.monotonic()
            if now >= self._due:
                self._print(self._seen)
                self._due = max(self._due, now - 1) + 1 / RATE  # the lines of one second may come at once

    def __exit__(self, *_: Any) -> None:
        if self._printed < self._seen:  # also if a callback, an error or Ctrl-C ends the run early
            self._print(self._seen)

    def _print(self, epoch: int) -> None:
        self._printed = epoch
        try:
            print(f"epoch {epoch}/{self._epochs}: {_results(self._history, epoch - 1)}", flush=True)
        except OSError as error:  # a full disk or a closed pipe should not cost hours of training
            self._seen = self._printed = self._epochs
            warnings.warn(f"fit: printed no more epochs: {error}", RuntimeWarning, stacklevel=level_outside())


def _results(history: History, i: int) -> str:
    """The results of epoch `i`, counted from 0. Those that the run does not have are left out."""
    parts = []
    for what, losses, accuracies in (
        ("", history.epoch_loss, history.epoch_accuracy),
        ("validation ", history.validation_loss, history.validation_accuracy),
    ):
        if len(losses):
            parts.append(f"{what}loss {f'{losses[i]:#.4g}'.rstrip('.')}")
            if accuracies[i] == accuracies[i]:  # NaN where nothing is right or wrong
                parts.append(f"{what}accuracy {100 * accuracies[i]:.1f} %")
    for name in history.metrics:
        value = history[f"validation_{name}"][i]
        parts.append(f"validation {name} {f'{value:#.4g}'.rstrip('.')}")
    seconds = history.epoch_seconds[i]
    return ", ".join([*parts, f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"])
