"""`Model.fit` and `Population.fit`: check the arguments, read the data and prepare the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float64
from mlgraph._support.checks import FLOAT32_MAX, StrOrBytesPath, one_of, real, truth, whole, wrong
from mlgraph._support.threads import checked_threads
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective, are_none, as_class_weight, as_weights, weighted
from mlgraph.engine.steps import Course
from mlgraph.graph.randomness import checked_seed
from mlgraph.models.classes import Classes, by_number, first_classes, n_classes_of
from mlgraph.models.metrics import Metrics
from mlgraph.models.running import as_arrays, read_with_targets, scaling_for, warn_of_bytes
from mlgraph.models.scaling import UNSCALED, Data, Scaling, Standardization, ordered, standardization
from mlgraph.sparsity.schedules import Schedule
from mlgraph.training.advice import warn_of_columns
from mlgraph.training.callbacks import Callback, checked_callbacks
from mlgraph.training.loop import Progress
from mlgraph.training.nonfinite import POLICIES
from mlgraph.training.options import (
    OPTIMIZERS,
    RATES,
    checked_clip,
    checked_decay,
    checked_l1,
    checked_optimizer,
    checked_rates,
    checked_sizes,
)
from mlgraph.training.run import Arguments, Run

if TYPE_CHECKING:
    from mlgraph.models.model import Model

T = TypeVar("T")

BELOW_1 = float(np.nextafter(1.0, 0.0))

LEAST_EPOCHS, LEAST_STEPS = 10, 2000
"""The default number of epochs gives a run at least so many of both."""

SMALLEST_BATCH, LARGEST_BATCH, N_BATCHES = 32, 128, 64
"""Bounds of the default batch size, and batches of an epoch between them."""


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
    keep_optimizer: bool,
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
    for name, penalty in (("weight_decay", "squares"), ("l1", "absolute values")):
        if getattr(course, name):
            model.require_edges(name, f"it changes weights of edges; add {penalty} of the nodes to the loss instead")
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
    # A loss that is a node reads targets as columns.
    if not warned and model.scaling is None and model.loss != "node":
        warn_of_columns(raw)
    examples = raw.in_bytes(n_threads)
    examples.check_trainable()
    held_out: tuple[Examples, Objective, Any] | None = None
    if validation_data is not None:
        held_out = _read_validation(model, validation_data, scaling, classes, warned, n_threads)
        more.check(model, held_out[1], held_out[2])
    arguments = Arguments(
        course,
        sampled_rates,
        momentum,
        clip_norm,
        optimizer,
        truth("keep_optimizer", keep_optimizer),
        more,
        held_out,
        scaling,
        given.columns,
        classes,
        seed,
        called,
        verbose,
        sparsify,
        None if sparsify is None else (given.array, y, raw.array.shape[1]),
        on_nonfinite,
        checkpoint,
        checkpoint_every,
        resume,
        n_threads,
    )
    return Run(arguments, model, objective, examples)


def _scaling_for(model: Model, data: Data, standardize: bool, *, targets_in_x: bool) -> Scaling:
    """The scaling to train with."""
    if not standardize or isinstance(model.scaling, Standardization):
        return scaling_for(model, data)
    if model.scaling is not None:
        raise ValueError(
            f"standardize: expected False, because the model reads its data as {model.scaling!r}, which its weights "
            "may suit; assign None to its scaling to decide anew"
        )
    if targets_in_x and model.loss == "node":
        raise ValueError("standardize: expected the targets as y, got them as columns of x, which would be scaled, too")
    if data.array.ndim != 2:
        return UNSCALED  # `read_with_targets` refuses such data
    examples = Examples(data.array, data.array.shape[1], data.what)
    examples.columns = data.columns
    examples.check_trainable()
    return standardization(data)


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
