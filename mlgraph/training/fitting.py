"""`Model.fit` and `Population.fit`: check the arguments, read the data, prepare the run, and train."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float64
from mlgraph._support.checks import FLOAT32_MAX, StrOrBytesPath, one_of, real, truth, whole, wrong
from mlgraph._support.threads import checked_threads
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective, are_none, as_class_weight, as_weights, weighted
from mlgraph.engine.steps import Course, Learning, Rates
from mlgraph.graph.ops import PARAMETER
from mlgraph.graph.randomness import checked_seed, seeded
from mlgraph.models.classes import Classes, by_number, first_classes, n_classes_of
from mlgraph.models.history import History
from mlgraph.models.metrics import Metrics
from mlgraph.models.running import (
    as_arrays,
    engine_of,
    evaluate,
    execute,
    outputs_of,
    read_with_targets,
    scaling_for,
    warn_of_bytes,
)
from mlgraph.models.scaling import UNSCALED, Data, Scaling, Standardization, ordered, standardization
from mlgraph.sparsity.schedules import Schedule, ScheduleRunner
from mlgraph.training.advice import warn_of_divergence, warn_of_targets
from mlgraph.training.callbacks import Callback, call, checked_callbacks, wants_each_step
from mlgraph.training.loop import Progress, RunState, train
from mlgraph.training.nonfinite import POLICIES, Guard
from mlgraph.training.options import (
    OPTIMIZERS,
    RATES,
    Options,
    begin_state,
    checked_clip,
    checked_decay,
    checked_l1,
    checked_optimizer,
    checked_rates,
    checked_sizes,
    takes_few,
)
from mlgraph.training.report import Report

if TYPE_CHECKING:
    from mlgraph.models.model import Model
    from mlgraph.training.checkpoint import Checkpoint

T = TypeVar("T")

BELOW_1 = float(np.nextafter(1.0, 0.0))

LEAST_EPOCHS, LEAST_STEPS = 10, 2000
"""The default number of epochs gives a run at least so many of both."""

CHANGED = "fit: a layer was added to the network while fit read its arguments"

SMALLEST_BATCH, LARGEST_BATCH, N_BATCHES = 32, 128, 64
"""Bounds of the default batch size, and batches of an epoch between them."""


class Run(NamedTuple):
    """A run whose arguments and data are checked. Nothing has changed yet.

    Attributes
    ----------
    train : callable
        Trains, and calls its argument after each call of the kernels, about every 0.2 s. All results
        are recorded then, so an error that it raises leaves the model as after a step.
    warn : callable
        Called after `train`, warns if the run has diverged.
    n_examples : int
        Examples of all epochs.
    of : callable
        The same run of another model, which reads the same data alike (`reading_of`) and has as many
        inputs and outputs and the same loss. The two may train at the same time.
    """

    train: Callable[[Callable[[], Any]], None]
    warn: Callable[[], None]
    n_examples: int
    of: Callable[[Model], Run]


def prepared(
    model: Model,
    x: npt.ArrayLike | Data,
    y: npt.ArrayLike,
    *,
    epochs: int | None,
    batch_size: int | tuple[int, int] | None,
    learning_rate: float | tuple[float, float] | Callable[[float], float] | None,
    momentum: float,
    weight_decay: float,
    l1: float,
    clip_norm: float | None,
    optimizer: str,
    standardize: bool,
    sample_weight: npt.ArrayLike | None,
    class_weight: Mapping[Any, float] | str | None,
    validation_data: tuple[npt.ArrayLike, ...] | None,
    validation_split: float,
    metrics: Sequence[str | Callable[..., float]] | None,
    shuffle: bool,
    seed: int | None,
    callbacks: Sequence[Callback | Callable[[Progress], Any]] | None,
    verbose: bool,
    sparsify: Schedule | None,
    on_nonfinite: str,
    checkpoint: StrOrBytesPath | None,
    checkpoint_every: float,
    resume: bool,
    n_threads: int | None,
) -> Run:
    """A run of `Model.fit`, which documents the arguments."""
    more = Metrics(metrics)
    given, y = as_arrays(x, y)
    weight, of_class = as_weights(sample_weight), as_class_weight(class_weight)
    given = ordered(given, model.columns)
    classes = model.classes
    if classes is None and isinstance(y, np.ndarray):
        n_classes = n_classes_of(model.loss, len(model.output_ids))
        classes = first_classes(y, n_classes, may_count=model.scaling is None)
    of_class = by_number(of_class, classes)
    if real("validation_split", validation_split, "a number from 0 to below 1", 0.0, BELOW_1):
        if validation_data is not None:
            raise ValueError("validation_split: expected 0 where there are validation_data")
        every, objective = read_with_targets(model, given, y, classes=classes)  # refuses y of another length
        weighted(objective, len(every), weight)
        given, y, weight, held = _split(given, y, weight, validation_split)
        validation_data = cast("Any", held)
    scaling = _scaling_for(model, given, truth("standardize", standardize), targets_in_x=are_none(y))
    raw, objective = read_with_targets(model, given, y, scaling=scaling, classes=classes)
    objective = weighted(objective, len(raw), weight, of_class)

    # Check the arguments.
    optimizer = one_of("optimizer", optimizer, OPTIMIZERS)
    if batch_size is None:
        batch_size = max(SMALLEST_BATCH, min(LARGEST_BATCH, len(raw) // N_BATCHES))
    sizes = checked_sizes(batch_size)
    if epochs is None:
        epochs = max(LEAST_EPOCHS, -(-LEAST_STEPS // max(1, len(raw) // max(sizes))))
    rates, sampled_rates = checked_rates(RATES[optimizer] if learning_rate is None else learning_rate)
    course = Course(
        whole("epochs", epochs),
        sizes,
        rates,
        checked_decay(weight_decay, float(sampled_rates.max())),
        checked_l1(l1),
        truth("shuffle", shuffle),
    )
    optimizer, momentum = checked_optimizer(optimizer, momentum)
    clip_norm = checked_clip(clip_norm)
    seed = checked_seed(seed)
    on_nonfinite = one_of("on_nonfinite", on_nonfinite, POLICIES)
    if truth("resume", resume) and checkpoint is None:
        raise ValueError("resume: set checkpoint to the file of the run to resume")
    checkpoint_every = real("checkpoint_every", checkpoint_every, "seconds from 0 on", 0, FLOAT32_MAX)
    checked_threads(n_threads)
    if more.names and validation_data is None:
        raise ValueError("metrics: these are computed from validation_data or validation_split, which are missing")
    more.check(model, objective._replace(weight=None), y)
    called = checked_callbacks(callbacks, more.names, validated=validation_data is not None)
    verbose = truth("verbose", bool(verbose) if isinstance(verbose, int) else verbose)

    # Read the data.
    warned = warn_of_bytes(raw)
    examples = raw.in_bytes(n_threads)
    examples.check_trainable()
    held_out: tuple[Examples, Objective, Any] | None = None
    if validation_data is not None:
        held_out = _read_validation(model, validation_data, scaling, classes, warned, n_threads)
        more.check(model, held_out[1], held_out[2])
    scheduled = None if sparsify is None else (given.array, y, raw.array.shape[1])
    columns = given.columns

    # Of the data, only what this function reads stays in memory: no floats if the examples are now bytes.
    def run_of(model: Model, objective: Objective, examples: Examples) -> Run:
        warn_of_targets(model, objective)
        validate: Callable[[], dict[str, float]] | None = None
        if held_out:
            held_out_examples, held_out_objective, held_out_y = held_out
            held_out_objective = held_out_objective._replace(nodes=objective.nodes)
            validate = partial(
                _validate, model, held_out_examples.copy(), held_out_objective, n_threads, more, held_out_y
            )
        acting: ScheduleRunner | None = None
        if sparsify is not None and scheduled is not None:
            acting = ScheduleRunner(sparsify, model, *scheduled, objective, classes, course.epochs, n_threads)

        def run(between: Callable[[], Any]) -> None:
            with model.graph.in_training(keeps_options=checkpoint is not None):
                state = RunState(History())
                state.history.add_metrics(more.names)
                keeper: Checkpoint | None = None
                # With the lock: another thread may edit the graph, or compile it and so move the parameters.
                with seeded(model.graph, seed) as run_seed:
                    if objective.nodes != model.loss_ids:
                        raise RuntimeError(CHANGED)
                    engine_of(model)
                    if checkpoint is not None:
                        from mlgraph.training.checkpoint import Checkpoint

                        arguments = {
                            **course._asdict(),
                            "learning_rate": _recorded_rates(rates, sampled_rates),
                            "momentum": momentum,
                            "clip_norm": clip_norm,
                            "optimizer": optimizer,
                            "on_nonfinite": on_nonfinite,
                            "sparsify": repr(sparsify),
                            "metrics": more.names,
                        }
                        named = [] if classes is None else [np.frombuffer(json.dumps(classes).encode(), np.uint8)]
                        data = {
                            "data": _recorded(examples, objective) + named,
                            "validation data": _recorded(*held_out[:2]) if held_out else [],
                        }
                        keeper = Checkpoint(
                            checkpoint, checkpoint_every, model, len(examples), state, arguments, data, run_seed
                        )
                    if keeper and resume and keeper.resume(any_seed=seed is None):
                        run_seed = keeper.seed
                    else:
                        _begin(model, optimizer)
                    if acting:
                        acting.begin(run_seed)
                    model.history = state.history
                    model._scaling, model._columns, model._classes = scaling, model.columns or columns, classes
                few = takes_few(sizes, len(examples))
                learning = Learning(objective, optimizer, (momentum, 0.999, 1e-8), run_seed, few, n_threads, clip_norm)
                options = Options(course, learning, wants_each_step(called))
                if keeper:
                    options.fixed = "a run with a checkpoint keeps its options, with which it would be resumed"

                # Train.
                for each in called:
                    if isinstance(each, Callback):
                        each.on_train_begin(model)
                report = Report(state.history, course.epochs) if verbose else None
                with keeper.interrupts if keeper else nullcontext(), keeper or nullcontext(), report or nullcontext():
                    train(
                        partial(execute, model),
                        examples,
                        options,
                        guard=Guard(model, on_nonfinite, examples, learning),
                        validate=validate,
                        call=partial(call, called) if called else None,
                        model=model,
                        state=state,
                        between=keeper.between_steps if keeper else between,
                        report=report,
                        n_edges=lambda: model.n_edges,
                        sparse=acting,
                    )
                for each in called:
                    if isinstance(each, Callback):
                        each.on_train_end(model)

        def warn() -> None:
            warn_of_divergence(model.history, examples, objective)

        def of(other: Model) -> Run:
            nodes = other.loss_ids
            if (other.loss, len(nodes)) != (objective.loss, len(objective.nodes)):
                raise RuntimeError(CHANGED)
            return run_of(other, objective._replace(nodes=nodes), examples.copy())

        return Run(run, warn, course.epochs * len(examples), of)

    return run_of(model, objective, examples)


def _scaling_for(model: Model, data: Data, standardize: bool, *, targets_in_x: bool) -> Scaling:
    """The scaling to train with."""
    if not standardize or isinstance(model.scaling, Standardization):
        return scaling_for(model, data)
    if targets_in_x and model.loss == "node":
        raise ValueError("standardize: expected the targets as y, got them as columns of x, which would be scaled, too")
    if data.array.ndim != 2:
        return UNSCALED  # `read_with_targets` refuses such data
    Examples(data.array, data.array.shape[1], data.what).check_trainable()
    return standardization(data)


def _recorded_rates(rates: Rates, sampled_rates: Float64) -> tuple[float, float] | str:
    """Learning rates as a checkpoint records them; a function is identified by a digest of its samples."""
    if not callable(rates):
        return rates
    return f"function {blake2b(sampled_rates.astype(np.float32).tobytes(), digest_size=8).hexdigest()}"


def _read_validation(
    model: Model, data: Any, scaling: Scaling, classes: Classes | None, warned: str, n_threads: int | None
) -> tuple[Examples, Objective, Any]:
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise wrong("validation_data", "(x, y) or (x, y, sample_weight)", data, isinstance(data, tuple | list))
    what = "validation sample_weight"
    weight = as_weights(data[2], what) if len(data) == 3 else None
    x, y = as_arrays(data[0], data[1], "validation ")
    examples, objective = read_with_targets(model, x, y, "validation ", scaling, classes)
    objective = weighted(objective, len(examples), weight, what=what)
    warn_of_bytes(examples, "validation x", warned)
    examples = examples.in_bytes(n_threads)
    examples.check_trainable()
    return examples, objective, y


def _validate(
    model: Model, examples: Examples, objective: Objective, n_threads: int | None, metrics: Metrics, y: Any
) -> dict[str, float]:
    with model.graph.lock:
        scores = evaluate(model, examples, objective, n_threads)
        if not metrics.names:
            return scores
        outputs = outputs_of(model, examples, n_threads)
    return scores | metrics.of(objective, outputs, y, model.classes)


def _split(
    given: Data, y: Any, weight: Float64 | None, share: float
) -> tuple[Data, Any, Float64 | None, tuple[Data, Any, Float64 | None]]:
    """The data to train with, and those held out: a random share, for the same number of examples always the same."""
    n = len(given.array)
    held = round(n * share)
    if not 0 < held < n:
        raise ValueError(f"validation_split: expected a share that leaves examples on both sides, got {held} of {n}")
    order = np.random.default_rng(n).permutation(n)
    rows, others = np.sort(order[held:]), np.sort(order[:held])
    (a, b, v), (c, d, w) = (
        (given._replace(array=given.array[i]), y if are_none(y) else y[i], None if weight is None else weight[i])
        for i in (rows, others)
    )
    return a, b, v, (c._replace(what="validation x"), d, w)


def _recorded(examples: Examples, objective: Objective) -> list[npt.NDArray[Any] | None]:
    """The arrays whose digest a checkpoint has."""
    weights = [] if objective.weight is None else [objective.weight]
    return [examples.array, objective.label, objective.target, *weights]


def require_parameters(model: Model) -> None:
    """A ValueError if there is nothing that `fit` could train."""
    graph = model.graph
    if not (graph.codes[graph.alive_for(frozenset(model.loss_ids))] >= PARAMETER).any():
        raise ValueError("fit: the loss depends on no weight or parameter, so there is nothing to train")


def _begin(model: Model, optimizer: str) -> None:
    """Clear the optimizer's state for a run from the start. A resumed run keeps it, and may have no parameter left."""
    require_parameters(model)
    begin_state(model, optimizer)
