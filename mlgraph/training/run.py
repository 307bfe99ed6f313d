"""A run of `fit`, which trains one model; its arguments are checked, and its data are read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float64
from mlgraph._support.checks import StrOrBytesPath, level_outside, shown
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.engine.steps import Course, Learning, Rates
from mlgraph.graph.ops import PARAMETER
from mlgraph.graph.randomness import seeded
from mlgraph.models.classes import Classes
from mlgraph.models.history import History
from mlgraph.models.metrics import Metrics
from mlgraph.models.running import engine_of, evaluate, execute, outputs_of
from mlgraph.models.scaling import Scaling
from mlgraph.sparsity.schedules import Schedule, ScheduleRunner
from mlgraph.training.advice import warn_of_divergence, warn_of_targets
from mlgraph.training.callbacks import Callback, call, has_state, wants_each_step
from mlgraph.training.loop import Progress, RunState, train
from mlgraph.training.nonfinite import Guard
from mlgraph.training.options import Options, begin_state, require_kept, takes_few
from mlgraph.training.report import Report

if TYPE_CHECKING:
    from mlgraph.models.model import Model
    from mlgraph.training.checkpoint import Checkpoint

CHANGED = "fit: a layer was added to the network while fit read its arguments"


@dataclass(frozen=True)
class Arguments:
    """The checked arguments of a call of `fit`, and what it read beside the examples."""

    course: Course
    sampled_rates: Float64
    momentum: float
    clip_norm: float | None
    optimizer: str
    keep_optimizer: bool
    metrics: Metrics
    validation: tuple[Examples, Objective, Any] | None
    scaling: Scaling
    columns: tuple[str, ...] | None
    classes: Classes | None
    seed: int | None
    callbacks: list[Callback | Callable[[Progress], Any]]
    verbose: bool
    sparsify: Schedule | None
    scheduled: tuple[npt.NDArray[Any], Any, int] | None
    on_nonfinite: str
    checkpoint: StrOrBytesPath | None
    checkpoint_every: float
    resume: bool
    n_threads: int | None


class Run:
    """A run whose arguments and data are checked. Nothing has changed before `train`.

    Attributes
    ----------
    n_examples : int
        Examples of all epochs.
    """

    def __init__(self, arguments: Arguments, model: Model, objective: Objective, examples: Examples) -> None:
        if arguments.keep_optimizer:
            require_kept(model, arguments.optimizer)
        warn_of_targets(model, objective)
        self._arguments, self._model, self._objective, self._examples = arguments, model, objective, examples
        self._validation: tuple[Examples, Objective] | None = None
        if arguments.validation:
            self._validation = arguments.validation[0].copy(), arguments.validation[1]._replace(nodes=objective.nodes)
        self._scheduled: ScheduleRunner | None = None
        if arguments.sparsify is not None and arguments.scheduled is not None:
            self._scheduled = ScheduleRunner(
                arguments.sparsify,
                model,
                *arguments.scheduled,
                objective,
                arguments.classes,
                arguments.course.epochs,
                arguments.n_threads,
            )
        self.n_examples = arguments.course.epochs * len(examples)

    def of(self, other: Model) -> Run:
        """The same run of a model that reads the data alike (`reading_of`), and has as many outputs and the same loss.

        The two may train at the same time.
        """
        nodes = other.loss_ids
        if (other.loss, len(nodes)) != (self._objective.loss, len(self._objective.nodes)):
            raise RuntimeError(CHANGED)
        return Run(self._arguments, other, self._objective._replace(nodes=nodes), self._examples.copy())

    def train(self, between: Callable[[], Any]) -> None:
        """Train, and call `between` after each call of the kernels, about every 0.2 s.

        All results are recorded then, so an error that it raises leaves the model as after a step.
        """
        given, model, examples = self._arguments, self._model, self._examples
        with model.graph.in_training(keeps_options=given.checkpoint is not None):
            state = RunState(History())
            state.history.add_metrics(given.metrics.names)
            keeper: Checkpoint | None = None
            # With the lock: another thread may edit the graph, or compile it and so move the parameters.
            with seeded(model.graph, given.seed) as seed:
                if self._objective.nodes != model.loss_ids:
                    raise RuntimeError(CHANGED)
                engine_of(model)
                if given.checkpoint is not None:
                    keeper = self._keeper(given.checkpoint, state, seed)
                if keeper and given.resume and keeper.resume(any_seed=given.seed is None):
                    seed = keeper.seed
                else:
                    state.began = _begin(model, given.optimizer, keep=given.keep_optimizer)
                if self._scheduled:
                    self._scheduled.begin(seed)
                model.history = state.history
                model._scaling, model._columns = given.scaling, model.columns or given.columns
                model._classes = given.classes
            if keeper and keeper.finished:
                keeper.restore_callbacks()
                _warn_of_finished(keeper, given.course.epochs)
                return
            settings = given.momentum, 0.999, 1e-8
            few = takes_few(given.course.batch_size, len(examples))
            learning = Learning(self._objective, given.optimizer, settings, seed, few, given.n_threads, given.clip_norm)
            options = Options(given.course, learning, wants_each_step(given.callbacks))
            if keeper:
                options.fixed = "a run with a checkpoint keeps its options, with which it would be resumed"
            hooked = [each for each in given.callbacks if isinstance(each, Callback)]
            for each in hooked:
                each.on_train_begin(model)
            if keeper:
                keeper.restore_callbacks()
            report = Report(state.history, given.course.epochs) if given.verbose else None
            with keeper.interrupts if keeper else nullcontext(), keeper or nullcontext(), report or nullcontext():
                train(
                    partial(execute, model),
                    examples,
                    options,
                    guard=Guard(model, given.on_nonfinite, examples, learning),
                    validate=self._validate if self._validation else None,
                    call=partial(self._call, state) if given.callbacks else None,
                    model=model,
                    state=state,
                    between=keeper.between_steps if keeper else between,
                    report=report,
                    n_edges=lambda: model.n_edges,
                    sparse=self._scheduled,
                )
                if keeper:
                    keeper.finished = not hooked
            for each in hooked:
                each.on_train_end(model)
            if keeper:
                keeper.finished = True
                keeper.write()

    def _call(self, state: RunState, progress: Progress) -> bool:
        """Call the callbacks; an error or an interrupt within leaves no checkpoint of half of a callback's state."""
        state.consistent = not any(has_state(each) for each in self._arguments.callbacks)
        goes_on = call(self._arguments.callbacks, progress)
        state.consistent = True
        return goes_on

    def warn(self) -> None:
        """After `train`, warn if the run has diverged."""
        warn_of_divergence(self._model.history, self._examples, self._objective)

    def _keeper(self, path: StrOrBytesPath, state: RunState, seed: int) -> Checkpoint:
        from mlgraph.training.checkpoint import Checkpoint

        given, examples = self._arguments, self._examples
        arguments = {
            **given.course._asdict(),
            "learning_rate": _recorded_rates(given.course.learning_rate, given.sampled_rates),
            "momentum": given.momentum,
            "clip_norm": given.clip_norm,
            "optimizer": given.optimizer,
            "keep_optimizer": given.keep_optimizer,
            "on_nonfinite": given.on_nonfinite,
            "sparsify": repr(given.sparsify),
            "metrics": given.metrics.names,
        }
        named = [] if given.classes is None else [np.frombuffer(json.dumps(given.classes).encode(), np.uint8)]
        data = {
            "data": _recorded(examples, self._objective) + named,
            "validation data": _recorded(*given.validation[:2]) if given.validation else [],
        }
        carried = [each for each in given.callbacks if has_state(each)]
        every = given.checkpoint_every
        return Checkpoint(path, every, self._model, len(examples), state, arguments, data, carried, seed)

    def _validate(self) -> dict[str, float]:
        model, given = self._model, self._arguments
        assert self._validation and given.validation
        examples, objective = self._validation
        with model.graph.lock:
            scores = evaluate(model, examples, objective, given.n_threads)
            if not given.metrics.names:
                return scores
            outputs = outputs_of(model, examples, given.n_threads)
        return scores | given.metrics.of(objective, outputs, given.validation[2], model.classes)


def _warn_of_finished(keeper: Checkpoint, epochs: int) -> None:
    warnings.warn(
        f"checkpoint: the run of {shown(str(keeper.path))} has already ended, after {keeper.state.epoch} of {epochs} "
        "epochs; the model is as it was then, and nothing was trained. To train further, begin a run without resume",
        UserWarning,
        stacklevel=level_outside(),
    )


def _recorded_rates(rates: Rates, sampled_rates: Float64) -> tuple[float, float] | str:
    """Learning rates as a checkpoint records them; a function is identified by a digest of its samples."""
    if not callable(rates):
        return rates
    return f"function {blake2b(sampled_rates.astype(np.float32).tobytes(), digest_size=8).hexdigest()}"


def _recorded(examples: Examples, objective: Objective) -> list[npt.NDArray[Any] | None]:
    """The arrays whose digest a checkpoint has."""
    weights = [] if objective.weight is None else [objective.weight]
    return [examples.array, objective.label, objective.target, *weights]


def require_parameters(model: Model) -> None:
    """A ValueError if there is nothing that `fit` could train."""
    graph = model.graph
    if not (graph.codes[graph.alive_for(frozenset(model.loss_ids))] >= PARAMETER).any():
        raise ValueError("fit: the loss depends on no weight or parameter, so there is nothing to train")


def _begin(model: Model, optimizer: str, *, keep: bool) -> int:
    """Begin the optimizer's state, or `keep` it. A resumed run keeps it, too, and may have no parameter left.

    Returns
    -------
    int
        `RunState.began`.
    """
    require_parameters(model)
    if keep:
        require_kept(model, optimizer)
        name, steps = model.graph.storage.optimizer
        if name:
            return -steps
    begin_state(model, optimizer)
    return 0
