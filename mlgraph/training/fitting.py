"""What `fit` is given, checked before anything changes, and the run that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float64
from mlgraph._support.checks import (
    FLOAT32_MAX,
    MOST_SEED,
    StrOrBytesPath,
    one_of,
    real,
    share,
    shown,
    truth,
    whole,
    wrong,
)
from mlgraph._support.threads import checked_threads
from mlgraph.engine.choice import FEW
from mlgraph.engine.engine import STATE
from mlgraph.engine.examples import Examples
from mlgraph.engine.steps import Course, Learning, Rates
from mlgraph.graph.ops import PARAMETER
from mlgraph.graph.undo import forget_state
from mlgraph.models.history import History
from mlgraph.models.running import engine_of, evaluate, execute, read_with_targets
from mlgraph.sparsity.schedules import Schedule, ScheduleRunner
from mlgraph.training.nonfinite import POLICIES, Guard
from mlgraph.training.training import Progress, RunState, train

if TYPE_CHECKING:
    from mlgraph.models.model import Model
    from mlgraph.training.checkpoint import Checkpoint

T = TypeVar("T")

PROGRESS = np.arange(1000) / 1000
"""Progress at which a function for the learning rate is checked before a run; below 1, since no batch begins at 1."""


def fit(
    model: Model,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    epochs: int,
    batch_size: int | tuple[int, int],
    learning_rate: float | tuple[float, float] | Callable[[float], float],
    momentum: float,
    weight_decay: float,
    optimizer: str,
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None,
    shuffle: bool,
    seed: int,
    callback: Callable[[Progress], Any] | None,
    sparsify: Schedule | None,
    on_nonfinite: str,
    checkpoint: StrOrBytesPath | None,
    checkpoint_every: float,
    resume: bool,
    n_threads: int | None,
) -> History:
    """See `Model.fit`."""
    examples, objective = read_with_targets(model, x, y)
    sizes = _pair("batch_size", batch_size, partial(whole, most=2**63 - 1))
    rates: Rates = (
        partial(_rates, learning_rate) if callable(learning_rate) else _pair("learning_rate", learning_rate, _rate)
    )
    on_the_way = rates(PROGRESS) if callable(rates) else np.array(rates)
    epochs, momentum, seed = whole("epochs", epochs), share("momentum", momentum), whole("seed", seed, 0, MOST_SEED)
    weight_decay = checked_decay(weight_decay, float(on_the_way.max()))
    optimizer = one_of("optimizer", optimizer, ("sgd", "adam"))
    if optimizer == "adam" and np.float32(momentum) == 1:  # no gradient would count any more
        raise ValueError(f"momentum: expected a number that is below 1 in float32, too, got {shown(momentum)}")
    on_nonfinite = one_of("on_nonfinite", on_nonfinite, POLICIES)
    shuffle, resume = truth("shuffle", shuffle), truth("resume", resume)
    if resume and checkpoint is None:
        raise ValueError("resume: expected a checkpoint to go on from, got none")
    checkpoint_every = real("checkpoint_every", checkpoint_every, "seconds from 0 on", 0, FLOAT32_MAX)
    checked_threads(n_threads)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected a callable, got {type(callback).__name__}")
    told = examples.warn_of_units()
    given, examples = examples, examples.in_bytes(n_threads)
    examples.check_trainable()
    validate: Callable[[], dict[str, float]] | None = None
    held: Examples | None = None
    if validation is not None:
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            raise wrong("validation", "(x, y)", validation, isinstance(validation, tuple | list))
        held, of_held = read_with_targets(model, *validation, "validation ")
        held.warn_of_units(told)
        held = held.in_bytes(n_threads)
        held.check_trainable()
        validate = partial(evaluate, model, held, of_held, n_threads)
    if optimizer == "sgd" and momentum:
        optimizer = "momentum"
    acting: ScheduleRunner | None = None
    if sparsify is not None:
        acting = ScheduleRunner(sparsify, model, given, objective, epochs, seed, n_threads)
    del given  # which may be floats that have become bytes
    with model.graph.in_training():
        with model.graph.lock:  # another thread may edit, or compile and so move the parameters
            if objective.nodes != model.loss_ids:
                raise RuntimeError(
                    "fit: expected a network that stays as it is, got one that was given a layer meanwhile"
                )
            engine_of(model)
            state = RunState(History())
            keeper: Checkpoint | None = None
            if checkpoint is not None:
                from mlgraph.training.checkpoint import Checkpoint

                arguments = {
                    "epochs": epochs,
                    "batch_size": sizes,
                    "learning_rate": _told(rates, on_the_way),
                    "momentum": momentum,
                    "weight_decay": weight_decay,
                    "optimizer": optimizer,
                    "shuffle": shuffle,
                    "seed": seed,
                    "on_nonfinite": on_nonfinite,
                    "sparsify": repr(sparsify),
                }
                seen = {"data": [examples.array, objective.label, objective.target]}
                seen["validation data"] = [held.array, of_held.label, of_held.target] if held else []
                keeper = Checkpoint(checkpoint, checkpoint_every, model, len(examples), state, arguments, seen)
            if not (keeper and resume and keeper.resume()):  # a resumed run may have lost all its parameters
                if not (model.graph.codes[model.graph.alive_for(frozenset(objective.nodes))] >= PARAMETER).any():
                    raise ValueError(
                        "fit: expected a loss that depends on a weight or parameter, got one that depends on none"
                    )
                forget_state(model.graph, STATE["adam"])
                for name in STATE[optimizer]:
                    model.graph.storage.state_vector(name, fresh=True)
            model.history = state.history
        few = min(*sizes, len(examples)) <= FEW
        learning = Learning(objective, optimizer, (momentum, 0.999, 1e-8), seed, few, n_threads)
        with keeper or nullcontext():
            train(
                partial(execute, model),
                examples,
                Course(epochs, sizes, rates, weight_decay, shuffle),
                learning,
                guard=Guard(model, on_nonfinite, examples, learning),
                validate=validate,
                callback=callback,
                state=state,
                between=keeper.between_steps if keeper else lambda: None,
                n_edges=lambda: model.n_edges,
                sparse=acting,
            )
    return model.history


def _rate(name: str, value: Any) -> float:
    return real(name, value, f"a number from 0 to {FLOAT32_MAX:.6g}", 0, FLOAT32_MAX)


def _rates(function: Callable[[float], Any], progress: Float64) -> Float64:
    """Learning rates of a function of one's own; TypeError or ValueError where it gives none."""
    try:
        return np.array([_rate(f"learning_rate({p:.6g})", function(p)) for p in progress.tolist()])
    except StopIteration as error:  # else it would be taken for the end of an iterator that calls `fit`
        raise RuntimeError("learning_rate: expected a rate, got StopIteration") from error


def _told(rates: Rates, on_the_way: Float64) -> tuple[float, float] | str:
    """Learning rates as a checkpoint records them; of a function a digest of its values, so that the same one is recognised."""
    if not callable(rates):
        return rates
    return f"function {blake2b(on_the_way.astype(np.float32).tobytes(), digest_size=8).hexdigest()}"


def _pair(name: str, value: Any, checked: Callable[[str, Any], T]) -> tuple[T, T]:
    """(from, to) of a schedule, from a pair or one number."""
    is_pair = isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim == 1)
    pair = tuple(value) if is_pair else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name}: expected one number or two, got {shown(value)}")
    return checked(name, pair[0]), checked(name, pair[1])


def checked_decay(value: Any, rate: float) -> float:
    """A weight decay that takes no more than all of a weight at this learning rate."""
    most = min(1 / rate, FLOAT32_MAX) if rate else FLOAT32_MAX
    expected = f"to 1 / learning_rate, {most:.6g}" if most < FLOAT32_MAX else "on that float32 can hold"
    return real("weight_decay", value, f"a number from 0 {expected}", 0, most)
