"""The training loop: it hands the kernels several steps at a time and returns to Python for progress and Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlgraph._support.array_types import Int64
from mlgraph._support.checks import FLOAT32_MAX
from mlgraph._support.interrupts import SIGNALS, Waiting
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import empty_answers
from mlgraph.engine.steps import Learning, Rates, Steps, epoch_order, epoch_steps
from mlgraph.models.history import History, means_of, record
from mlgraph.training.options import Options

if TYPE_CHECKING:
    from mlgraph.models.model import Model
    from mlgraph.sparsity.schedules import ScheduleRunner
    from mlgraph.training.nonfinite import Guard

PIECE_SECONDS = 0.2
"""Target duration of one kernel call. Ctrl-C and progress reports wait about this long."""

FIRST_PIECE = 4
"""Number of steps in the first call, before the duration of a step is known."""

MAX_EPOCHS = 2**12
"""Maximum number of epochs whose steps are prepared together."""

MAX_PLACES = 2**20
"""Maximum number of examples in epochs that are prepared together. It bounds memory to tens of megabytes."""

STEP_COST = 20
"""Fixed cost of a step, in examples. A 784-32-10 network measured 22 (batches of 8 against batches of 128)."""


@dataclass(frozen=True)
class Progress:
    """What callbacks of `fit` are told.

    A copy or a pickle has a copy of the model and of the history, and cannot change the run.

    Attributes
    ----------
    kind : "steps" or "epoch"
        "steps" after about every 0.2 s of an epoch and after its last step; "epoch" at its end,
        after validation.
    epoch, epochs : int
        Number of the epoch, from 0, and number of epochs.
    examples, total_examples : int
        Examples seen so far, and examples of the whole run, over all epochs.
    batch_loss, batch_accuracy : float
        Means over the examples since the last "steps" call; at the end of an epoch, over the whole
        epoch.
    history : History
        The history of the run. Only read it: the run continues to append to it.
    model : Model
    """

    kind: Literal["steps", "epoch"]
    epoch: int
    epochs: int
    examples: int
    total_examples: int
    batch_loss: float
    batch_accuracy: float
    history: History
    model: Model
    _change: Callable[..., None] | None = field(default=None, init=False, repr=False, compare=False)

    def change(
        self,
        *,
        learning_rate: float | tuple[float, float] | Callable[[float], float] | None = None,
        batch_size: int | tuple[int, int] | None = None,
        optimizer: str | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
        l1: float | None = None,
        clip_norm: float | None = None,
        each_step: bool | None = None,
    ) -> None:
        """Change options of the run from the next step on; None leaves one as it is.

        Parameters
        ----------
        learning_rate, batch_size, optimizer, momentum, weight_decay, l1, clip_norm
            As for `Model.fit`. A pair or a function still stretches over the whole run. Another
            optimizer begins without momentum. A `clip_norm` of 1e30 clips nothing.
        each_step : bool
            Whether callbacks are called after each step, as if one had a hook for steps.

        Raises
        ------
        TypeError, ValueError
            If an option is not as documented, the run has a checkpoint, or this is a copy; nothing has changed.

        Notes
        -----
        The dropout of a layer is its attribute, and edges are cut by `Model.prune`; both work
        during a run, too.

        Examples
        --------
        >>> def halve(progress):
        ...     if progress.kind == "epoch":
        ...         progress.change(learning_rate=0.125 / 2 ** (progress.epoch + 1))
        >>> net = mlgraph.Network(2, seed=0)
        >>> layer = net.add_layer(2, "softmax")
        >>> history = net.fit(np.eye(2), [0, 1], epochs=3, learning_rate=0.125, callbacks=[halve])
        >>> history.learning_rate.tolist()
        [0.125, 0.0625, 0.03125]
        """
        if self._change is None:
            raise ValueError("change: this progress is a copy; only the one that fit passes to callbacks changes a run")
        self._change(
            learning_rate=learning_rate,
            batch_size=batch_size,
            optimizer=optimizer,
            momentum=momentum,
            weight_decay=weight_decay,
            l1=l1,
            clip_norm=clip_norm,
            each_step=each_step,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_change": None}


@dataclass
class RunState:
    """Position of a run between two steps.

    Together with the model and the optimizer's state, it determines the rest of the run.

    Attributes
    ----------
    history : History
    epoch, step : int
        Current epoch, and number of its next step.
    taken : int
        Number of steps in earlier epochs.
    seconds : float
        Training time spent in this epoch.
    began : int
        Number of the step at which the optimizer began with moments of 0; below 0 if it has kept those of earlier runs.
    consistent : bool
        False from the start of a step or of an epoch's end until everything that follows from it is
        recorded.
    ended : bool
        Whether a callback or the schedule has ended the run.
    """

    history: History
    epoch: int = 0
    step: int = 0
    taken: int = 0
    seconds: float = 0.0
    began: int = 0
    consistent: bool = True
    ended: bool = False


class _Stretch:
    """Consecutive epochs, from the current one on, whose steps are prepared together; and their results.

    Attributes
    ----------
    steps : Steps
        The places of an epoch follow those of the epoch before.
    ends : int64, shape (epochs,)
        Cumulative number of steps at the end of each epoch.
    losses, correct : float32 and uint8, shape (places,)
        `correct` is None if the loss has no right or wrong answers.
    """

    def __init__(self, state: RunState, n_epochs: int, n: int, options: Options) -> None:
        course, learning = options.course, options.learning
        self._state = state
        self._n = n
        self._epoch = state.epoch
        self._taken = state.taken
        order = np.tile(np.arange(n), n_epochs)
        if course.shuffle:
            order = epoch_order(state.epoch, n, learning.seed, n_epochs)
        schedule = epoch_steps(state.epoch, n, course.epochs, course.batch_size, course.learning_rate, n_epochs)
        self._prepare(schedule, order, options)
        self.ends: Int64 = np.searchsorted(self.steps.first, n * np.arange(1, n_epochs + 1))
        self.losses = np.zeros(n_epochs * n, np.float32)
        self.correct = empty_answers(learning.objective, n_epochs * n)

    def change(self, options: Options) -> None:
        """Go on with other options; the stretch is one epoch."""
        course, at, n = options.course, self.at, self._n
        if at == len(self.steps.first):
            return  # what is left of the epoch is its end
        start = int(self.steps.first[at])
        rest = epoch_steps(self._epoch, n, course.epochs, course.batch_size, course.learning_rate, start=start)
        old = self._schedule
        parts = ((old.first, rest.first), (old.size, rest.size), (old.rate, rest.rate))
        first, size, rate = (np.concatenate([before[:at], after]) for before, after in parts)
        assert self.steps.order is not None
        self._prepare(Steps(first, size, rate), self.steps.order, options)
        self.ends = np.array([len(self.steps.first)])

    def _prepare(self, schedule: Steps, order: Int64, options: Options) -> None:
        course, learning = options.course, options.learning
        self._schedule, rate, decay, shrink = schedule, schedule.rate, None, None
        with np.errstate(under="ignore"):
            if course.weight_decay:
                decay = np.minimum(rate * np.float32(course.weight_decay), np.float32(1))
            if course.l1:
                shrink = rate * np.float32(course.l1)
            if learning.optimizer == "adam":
                # Fold the bias corrections of both moments into the rate (Kingma & Ba 2015, end of
                # section 2).
                t = np.maximum(1, np.arange(len(rate)) + (self._taken + 1 - self._state.began))
                beta1, beta2 = np.array(learning.hyper[:2], np.float32).astype(np.float64)  # rounded as in the kernels
                rate = np.minimum(rate * np.sqrt(1 - beta2**t) / (1 - beta1**t), FLOAT32_MAX).astype(np.float32)
        self.steps = schedule._replace(rate=rate, decay=decay, shrink=shrink, order=order, number=self._taken)
        # Cumulative cost before each step, and in all.
        self._cost = np.append(self.steps.first, len(order)) + STEP_COST * np.arange(len(rate) + 1)

    @property
    def at(self) -> int:
        """Index of the next step."""
        return self._state.taken + self._state.step - self._taken

    @property
    def end(self) -> int:
        """Index of the first step after the current epoch."""
        return int(self.ends[self._state.epoch - self._epoch])

    @property
    def is_over(self) -> bool:
        """Whether all epochs of the stretch have ended."""
        return self._state.epoch == self._epoch + len(self.ends)

    def record(self, count: int, seconds: float) -> None:
        """Record that the next `count` steps were taken, in `seconds`."""
        if count:
            done = self._schedule.of(slice(self.at, self.at + count))
            record(self._state.history, done, self._epoch * self._n, self.losses, self.correct)
        self._state.step += count
        self._state.seconds += seconds

    def end_epochs(self, n_edges: Callable[[], int], validate: Callable[[], dict[str, float]] | None = None) -> bool:
        """Record the epochs that have ended; return whether there are any."""
        state, first = self._state, self._state.epoch
        last = self._epoch + int(np.searchsorted(self.ends, self.at, "right"))
        if first == last:
            return False
        begin = np.append(state.taken, self._taken + self.ends[first - self._epoch : last - self._epoch])
        scores = validate() if validate else {}
        validation = {f"validation_{name}": value for name, value in ({"accuracy": np.nan} | scores).items() if scores}
        # Epochs that one call took together share its time in proportion to their cost.
        cost = self._cost[np.append(begin, state.taken + state.step) - self._taken]
        seconds = state.seconds * (np.diff(cost[:-1]) / (cost[-1] - cost[0]))
        loss, accuracy = means_of(state.history, begin)
        state.consistent = False
        state.history.add(
            epoch_examples=self._n * np.arange(first + 1, last + 1),
            epoch_seconds=seconds,
            epoch_loss=loss,
            epoch_accuracy=accuracy,
            epoch_edges=np.full(last - first, n_edges()),
            **validation,
        )
        state.step -= int(begin[-1]) - state.taken
        state.seconds = max(0.0, state.seconds - float(seconds.sum())) if state.step else 0.0
        state.epoch, state.taken, state.consistent = last, int(begin[-1]), True
        return True


def train(
    run: Callable[..., tuple[int, Any, Any]],
    examples: Examples,
    options: Options,
    *,
    guard: Guard,
    validate: Callable[[], dict[str, float]] | None,
    call: Callable[[Progress], bool] | None,
    model: Model,
    state: RunState,
    between: Callable[[], Any],
    report: Callable[[], Any] | None,
    n_edges: Callable[[], int],
    sparse: ScheduleRunner | None,
) -> None:
    """Take all steps from `state` on, several per kernel call.

    Parameters
    ----------
    run : callable
        Called like `Engine.execute`. It must run the graph as it is at the time of the call: between
        two calls, callbacks and other threads may edit the graph or move its parameters.
    options : Options
        Callbacks may change them.
    guard : Guard
        Takes the steps that might overflow.
    call : callable, optional
        Calls the callbacks, and returns whether the run goes on.
    between : callable
        Called whenever a run may be left and resumed: all results of the last step are recorded.
    report : callable, optional
        Called before the callbacks whenever epochs may have ended.
    n_edges : callable
        Returns the number of live edges.
    sparse : ScheduleRunner, optional
        Cuts and grows edges before the steps that it chooses. It may raise StopIteration to end
        the run.
    """
    n, epochs, history = len(examples), options.course.epochs, state.history
    # If nothing else happens between epochs, one call takes several: short ones need not wait for
    # Python.
    epochs_apart = validate or call or sparse or callable(options.course.learning_rate)
    per_step = per_example = 0.0

    def may_go_on(kind: Literal["steps", "epoch"], epoch: int, loss: float, accuracy: float) -> bool:
        if not call:
            return True
        seen = int(history.batch_examples[-1])
        progress = Progress(kind, epoch, epochs, seen, epochs * n, float(loss), float(accuracy), history, model)
        object.__setattr__(progress, "_change", change)
        state.ended = not call(progress)
        return not state.ended

    def begun(stretch: _Stretch) -> tuple[Steps, Learning]:
        learning, options.changed = options.learning, False
        guard.begin(learning, _highest_rate(options.course.learning_rate, learning, stretch.steps))
        return stretch.steps, learning

    def change(**given: Any) -> None:
        if options.change(model, n, **given):
            state.began = state.taken + state.step

    def record_steps(stretch: _Stretch, count: int, seconds: float) -> None:
        stretch.record(count, seconds)
        model.graph.storage.optimizer = options.learning.optimizer, state.taken + state.step - state.began

    while state.epoch < epochs and not state.ended:
        n_epochs = 1
        if per_example and not epochs_apart:
            affordable = min(int(PIECE_SECONDS / per_example), MAX_PLACES) // n
            n_epochs = max(1, min(epochs - state.epoch, affordable, MAX_EPOCHS))
        stretch = _Stretch(state, n_epochs, n, options)
        steps, learning = begun(stretch)
        while not stretch.is_over:
            if options.changed:
                stretch.change(options)
                steps, learning = begun(stretch)
            if stretch.at < stretch.end:  # false if the run was left between the last step and the end of an epoch
                at, last, number = stretch.at, len(steps.rate), state.taken + state.step
                begin = time.perf_counter()
                state.consistent = False
                if sparse:
                    try:
                        last = at + sparse(number, (np.append(steps.first[at:], n) + state.epoch * n) / (epochs * n))
                    except StopIteration:
                        state.ended = True
                        return
                    state.seconds += time.perf_counter() - begin
                    begin = time.perf_counter()
                last = at + 1 if options.each_step else last
                bad, done = 0, at
                with guard.lock:
                    limit = guard.limit
                    if limit:
                        count = max(1, int(PIECE_SECONDS / per_step)) if per_step else FIRST_PIECE
                        part = slice(at, min(at + count, last))
                        # Without waiting, Ctrl-C could lose the history of thousands of epochs, and the optimizer's
                        # number of steps. Urgent signals do not wait where little is lost, nor any for one step.
                        with nullcontext() if last == at + 1 else Waiting(SIGNALS, impatient=bool(epochs_apart)):
                            bad, _, _ = run(
                                examples,
                                steps=steps.of(part),
                                limit=limit,
                                losses=stretch.losses,
                                correct=stretch.correct,
                                **learning._asdict(),
                            )
                            done = part.stop if bad < 0 else at + bad
                            record_steps(stretch, done - at, time.perf_counter() - begin)
                            if not epochs_apart:
                                stretch.end_epochs(n_edges)
                spent = time.perf_counter() - begin
                if bad >= 0:  # the next step might overflow
                    state.consistent = False  # recording an epoch's end has set it
                    begin = time.perf_counter()
                    step = steps.of(slice(done, done + 1))
                    where = f"epoch {state.epoch + 1}, step {state.step + 1}"  # counted as users read them
                    with guard.lock:
                        stretch.losses[step.places], right = guard.step(step, where)
                        if stretch.correct is not None and right is not None:
                            stretch.correct[step.places] = right
                        record_steps(stretch, 1, time.perf_counter() - begin)
                    done, spent = done + 1, spent + time.perf_counter() - begin
                state.consistent = True
                per_step, per_example = spent / (done - at), spent / int(steps.size[at:done].sum())
                if report:
                    report()
                if call:
                    (loss,), (accuracy,) = means_of(history, np.array([number, number + done - at]))
                    if not may_go_on("steps", state.epoch, loss, accuracy):
                        return
                between()
            if stretch.end_epochs(n_edges, validate):
                if report:
                    report()
                if not may_go_on("epoch", state.epoch - 1, history.epoch_loss[-1], history.epoch_accuracy[-1]):
                    return
                between()


def _highest_rate(learning_rate: Rates, learning: Learning, steps: Steps) -> float:
    """The highest learning rate of the run or, if the rate is a function, of these steps.

    The number of steps that are prepared together depends on the clock, so their rates must not
    decide whether a step counts as safe. Safe steps may run as dense blocks with holes, other steps
    run as sparse rows, and the two differ in rounding.
    """
    if callable(learning_rate):
        return float(steps.rate.max())
    highest = max(learning_rate)
    if learning.optimizer == "adam":  # the bias corrections multiply a rate by less than this
        highest /= 1 - float(np.float32(learning.hyper[0]))
    return min(highest, FLOAT32_MAX)
