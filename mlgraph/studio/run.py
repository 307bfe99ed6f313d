"""The thread that trains: pause, single steps, pace, and options that change while it runs."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgraph.graph.storage import NO_OPTIMIZER
from mlgraph.studio.curve import Curve
from mlgraph.training.callbacks import Callback
from mlgraph.training.loop import Progress
from mlgraph.training.nonfinite import NonFiniteError
from mlgraph.training.options import checked_decay, checked_optimizer, checked_rates, checked_sizes

if TYPE_CHECKING:
    from mlgraph.models.model import Model
    from mlgraph.studio.data import Data

MOST_STEPS = 4_000_000
"""A run of `fit` ends after about so many steps, because its history takes 48 bytes a step; then another begins."""

POLITE_SECONDS = 0.3
"""Longest time that the training thread waits at once for other threads to use the graph."""

OPTIONS: dict[str, Any] = {
    "learning_rate": 0.003,
    "batch_size": 64,
    "optimizer": "adam",
    "momentum": 0.9,
    "weight_decay": 0.0,
}


def check_options(options: dict[str, Any]) -> None:
    """ValueError or TypeError if a run cannot have such `OPTIONS`."""
    _, sampled = checked_rates(options["learning_rate"])
    checked_sizes(options["batch_size"])
    checked_optimizer(options["optimizer"], options["momentum"])
    checked_decay(options["weight_decay"], float(sampled.max()))


class Run(Callback):
    """Trains a model in a thread of its own.

    Parameters
    ----------
    model : Model
    data : Data
    options : dict
        As `OPTIONS`.
    after_epoch : callable
        Called in the training thread with the results of the validation after each epoch.

    Attributes
    ----------
    status : str
        "idle" before the first step and after the end, "running", "paused", or "failed".
    failure : dict or None
        What ended the last run: text, and sweep, node and example where a number was not finite.
    steps, epochs, examples : int
        So far, over all runs since the model was as it began.
    skipped : int
        So many examples were left out, because of numbers that were not finite.
    disconnected : list of int
        Ids of the neurons that were cut for that reason.
    """

    def __init__(self, model: Model, data: Data, options: dict[str, Any], after_epoch: Callable[[Any], None]) -> None:
        self._model, self._data, self._after_epoch = model, data, after_epoch
        self.options = dict(options)
        self.curve = Curve()
        self.epoch_curve: list[dict[str, float | None]] = []
        self.failure: dict[str, Any] | None = None
        self.steps = self.epochs = self.examples = self.skipped = 0
        self.disconnected: list[int] = []
        self.loss = self.accuracy = float("nan")
        self.pace: float | None = None
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._goes_on = False  # whether there is a thread that will look at commands again
        self._steps_left: int | None = 0
        self._epochs_left: int | None = None
        self._changes: dict[str, Any] = {}
        self._stop = self._waiting = self._is_new = False
        self._guests = 0
        self._seen, self._faults, self._each_step = 0, 0, True
        self._next = 0.0
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=400)

    # --- commands, from any thread ----------------------------------------------------------------

    def play(self, *, steps: int | None = None, epochs: int | None = None, fit: dict[str, Any] | None = None) -> None:
        """Go on, or begin; pause after so many steps or epochs. `fit` are arguments of `Model.fit`."""
        if self._stop:
            self.end()  # a thread that is about to end does not go on
        with self._wake:
            self._steps_left, self._epochs_left = steps, epochs
            keeps = self.optimizer[0]
            self.failure = None
            self._recent.clear()
            self._stop = self._waiting = False
            self._is_new = self._goes_on
            if not self._goes_on:
                thread = threading.Thread(
                    target=self._train, args=(fit or {}, keeps), name="mlgraph studio", daemon=True
                )
                thread.start()
                self._thread, self._goes_on = thread, True
            self._wake.notify_all()

    def pause(self) -> None:
        """Pause before the next step."""
        with self._wake:
            self._steps_left = 0
            self._wake.notify_all()

    def end(self) -> None:
        """End the run, and wait for its thread. The caller must not hold the lock of the graph."""
        with self._wake:
            self._stop, thread = True, self._thread
            self._wake.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def change(self, **given: Any) -> None:
        """Change options, now or for the next run; an error changes nothing."""
        with self._wake:
            options = {**self.options, **given}
            check_options(options)
            self.options = options
            if self._goes_on:
                self._changes |= given
            self._wake.notify_all()

    def go_on_from(self, curve: Curve, tests: list[dict[str, float | None]], epochs: int, examples: int) -> None:
        """Count from where an earlier run was, before this one begins."""
        self.curve, self.epoch_curve = curve, tests
        self.steps, self.epochs, self.examples = curve.steps, epochs, examples

    @property
    def optimizer(self) -> tuple[str, int]:
        """`Storage.optimizer` of the graph, with which the next run goes on; none after a failure.

        The moments that have led to an overflow would soon lead to another.
        """
        return NO_OPTIMIZER if self.failure is not None else self._model.graph.storage.optimizer

    @contextmanager
    def gives_way(self) -> Iterator[None]:
        """Let the training thread wait between two steps, for a short time, until a block is over.

        Locks are not fair: without this, a thread that waits for the graph could wait for many steps.
        """
        with self._wake:
            self._guests += 1
        try:
            yield
        finally:
            with self._wake:
                self._guests -= 1
                self._wake.notify_all()

    def set_pace(self, steps_per_second: float | None) -> None:
        """Take at most so many steps a second; None for as many as possible."""
        with self._wake:
            self.pace, self._next = steps_per_second, time.monotonic()
            self._wake.notify_all()

    @property
    def is_alive(self) -> bool:
        """Whether a run has begun and not ended; it may be paused."""
        return self._goes_on

    @property
    def status(self) -> str:
        """See the class."""
        with self._wake:
            if self.failure is not None:
                return "failed"
            if not self._goes_on:
                return "idle"
            return "paused" if self._is_paused else "running"

    @property
    def speed(self) -> tuple[float, float]:
        """Steps and examples per second, over about the last second."""
        recent, now = list(self._recent), time.monotonic()
        recent = [entry for entry in recent if now - entry[0] < 2]
        if len(recent) < 2 or self.status != "running":
            return 0.0, 0.0
        (t0, s0, e0), (t1, s1, e1) = recent[0], recent[-1]
        return ((s1 - s0) / (t1 - t0), (e1 - e0) / (t1 - t0)) if t1 > t0 else (0.0, 0.0)

    def wait_until_paused(self, seconds: float = 60.0) -> bool:
        """Wait until the run is paused or has ended; return whether it is."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._goes_on or self._waiting, seconds)

    # --- the training thread ----------------------------------------------------------------------

    def _train(self, fit: dict[str, Any], keeps: str) -> None:
        failure = None
        try:
            self._fit(fit, keeps)
        except NonFiniteError as error:
            failure = {"text": str(error), "sweep": error.sweep, "node": error.node, "example": error.example}
        except Exception as error:
            failure = {"text": f"{type(error).__name__}: {error}", "sweep": "", "node": -1, "example": -1}
        finally:
            with self._wake:
                self.failure = failure
                self._changes.clear()
                self._steps_left, self._epochs_left = 0, None
                self._waiting = self._goes_on = False
                self._wake.notify_all()

    def _fit(self, fit: dict[str, Any], keeps: str) -> None:
        data = self._data
        given = {"validation_data": (data.test_x, data.test_y), "callbacks": [self], **fit}
        while True:
            self._seen, self._faults, self._each_step, options = 0, 0, True, self.options
            per_epoch = -(-len(data.x) // min(checked_sizes(options["batch_size"])))
            epochs = {"epochs": max(1, MOST_STEPS // per_epoch)}
            keep = checked_optimizer(options["optimizer"], options["momentum"])[0] == keeps
            self._model.fit(data.x, data.y, **{**epochs, **options, "keep_optimizer": keep, **given})
            keeps = self.optimizer[0]
            if self._stop or "epochs" in fit:
                return

    def on_step_end(self, progress: Progress) -> None:
        """Record what happened since the last call, and wait while the run is paused or ahead of its pace."""
        history = progress.history
        seen = len(history.batch_loss)
        fresh = seen - self._seen
        if fresh:
            losses, accuracies = history.batch_loss[self._seen :], history.batch_accuracy[self._seen :]
            self.examples += int(history.batch_size[self._seen :].sum())
            self.curve.extend(losses, accuracies)
            self.loss, self.accuracy = progress.batch_loss, progress.batch_accuracy
            self.steps, self._seen = self.steps + fresh, seen
            faults = len(history.nonfinite_step)
            if faults > self._faults:
                cut = history.nonfinite_cut[self._faults :]
                self.skipped += int((cut < 0).sum())
                self.disconnected += cut[cut >= 0].tolist()
                self._faults = faults
        now = time.monotonic()
        self._recent.append((now, self.steps, self.examples))
        with self._wake:
            if self._steps_left is not None and not self._is_new:  # else these steps were taken before the command
                self._steps_left = max(0, self._steps_left - fresh)
            if self.pace is not None:
                self._next = max(self._next, now - 0.5) + fresh / self.pace
        self._wait(progress)
        if seen > 2 * MOST_STEPS:
            raise StopIteration

    def on_epoch_end(self, progress: Progress) -> None:
        """Record the validation."""
        history = progress.history
        accuracy = history.validation_accuracy[-1] if len(history.validation_accuracy) else np.nan
        scores = {"loss": float(history.validation_loss[-1]), "accuracy": float(accuracy)}
        self.epochs += 1
        if len(self.epoch_curve) >= 4096:  # bounded: every other of the older ones
            self.epoch_curve = self.epoch_curve[::2]
        self.epoch_curve.append({"step": self.steps, **scores})
        self._after_epoch(scores)
        with self._wake:
            if self._epochs_left is not None:
                self._epochs_left = max(0, self._epochs_left - 1)
        self._wait(progress)

    @property
    def _is_paused(self) -> bool:
        return self._steps_left == 0 or self._epochs_left == 0

    def _wait(self, progress: Progress) -> None:
        """Let the commands take effect."""
        polite_until = time.monotonic() + POLITE_SECONDS
        while True:
            with self._wake:
                if self._stop:
                    raise StopIteration
                now = time.monotonic()
                delay = 0.0 if self.pace is None else self._next - now
                if self._guests and delay <= 0:
                    delay = polite_until - now
                goes_on = not self._is_paused and delay <= 0
                changes, self._changes = self._changes, {}
                each_step = self.pace is not None or self._steps_left is not None
                if goes_on and each_step != self._each_step:
                    self._each_step = changes["each_step"] = each_step
                if not changes and not goes_on:
                    self._waiting, self._is_new = self._is_paused, False
                    self._wake.notify_all()
                    self._wake.wait(None if self._is_paused else delay)
                    continue
                if goes_on:
                    self._waiting = self._is_new = False
            if changes:
                progress.change(**changes)  # without the lock, because it takes that of the graph
            if goes_on:
                return
