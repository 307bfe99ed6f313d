"""Every mini-batch of a run as lowest, mean and highest loss, in bounded memory."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from mlgraph._support.array_types import Float32

MOST = 2**18
"""Largest number of entries; then two neighbours become one."""


class Curve:
    """The losses and accuracies of all steps so far; each entry stands for `stride` steps.

    Attributes
    ----------
    stride : int
    steps : int
        Number of steps so far.
    """

    def __init__(self) -> None:
        self.stride, self.steps = 1, 0
        # Rows: lowest, mean and highest loss, and mean accuracy.
        self._entries = np.empty((4, MOST), np.float32)
        self._used = 0
        self._rest = np.empty((2, 0), np.float32)  # losses and accuracies of steps that fill no entry yet
        self._lock = threading.Lock()

    def extend(self, losses: Any, accuracies: Any) -> None:
        """Add the losses and accuracies of the next steps."""
        new = np.stack([np.asarray(losses, np.float32), np.asarray(accuracies, np.float32)])
        with self._lock:
            self.steps += new.shape[1]
            self._rest = np.concatenate([self._rest, new], axis=1)
            while self._rest.shape[1] >= self.stride:
                n = min(self._rest.shape[1] // self.stride, MOST - self._used)
                if n == 0:
                    self._halve()
                    continue
                whole = self._rest[:, : n * self.stride].reshape(2, n, self.stride)
                loss, accuracy = whole
                self._append(loss.min(1), loss.mean(1), loss.max(1), accuracy.mean(1))
                self._rest = self._rest[:, n * self.stride :]

    def columns(self, first: int, last: int, pixels: int) -> dict[str, list[Any]]:
        """What `pixels` columns of a picture of steps `first` to `last` show.

        Returns
        -------
        dict
            step : the first step of each column; low, mean, high : of the loss; accuracy : mean.
        """
        with self._lock:
            stride = self.stride
            begin, end = max(0, first // stride), min(self._used, -(-last // stride))
            part = self._entries[:, begin:end].copy()
        n = part.shape[1]
        if n == 0:
            return {name: [] for name in ("step", "low", "mean", "high", "accuracy")}
        at = np.unique(np.linspace(0, n, min(n, pixels) + 1).astype(np.int64))[:-1]
        size = np.diff(np.append(at, n))
        return {
            "step": ((begin + at) * stride).tolist(),
            "low": listed(np.minimum.reduceat(part[0], at)),
            "mean": listed(np.add.reduceat(part[1], at, dtype=np.float64) / size),
            "high": listed(np.maximum.reduceat(part[2], at)),
            "accuracy": listed(np.add.reduceat(part[3], at, dtype=np.float64) / size),
        }

    def arrays(self) -> dict[str, Float32]:
        """The entries, and the steps that fill no entry yet, as flat arrays."""
        with self._lock:
            return {"curve": self._entries[:, : self._used].ravel(), "curve_rest": self._rest.ravel()}

    @classmethod
    def of(cls, stride: int, curve: Float32, curve_rest: Float32) -> Curve:
        """The curve of `arrays`; ValueError if they do not belong to one."""
        self = cls()
        n, rest = len(curve) // 4, len(curve_rest) // 2
        if len(curve) != 4 * n or n > MOST or len(curve_rest) != 2 * rest or rest >= stride:
            raise ValueError("the curve has too many entries")
        self._entries[:, :n] = curve.reshape(4, n)
        self._rest = curve_rest.reshape(2, rest).copy()
        self.stride, self._used, self.steps = stride, n, n * stride + rest
        return self

    def _append(self, *rows: Float32) -> None:
        n = len(rows[0])
        self._entries[:, self._used : self._used + n] = rows
        self._used += n

    def _halve(self) -> None:
        half = self._used // 2
        low, mean, high, accuracy = self._entries[:, : 2 * half].reshape(4, half, 2)
        self._entries[:, :half] = low.min(1), mean.mean(1), high.max(1), accuracy.mean(1)
        self._used, self.stride = half, 2 * self.stride


def listed(values: Any) -> list[float | None]:
    """Numbers for JSON, rounded to five digits; None for those that are not finite."""
    array = np.asarray(values, np.float64)
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in array.tolist()]
