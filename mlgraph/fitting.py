"""What `fit` is given, checked before anything changes, and the run that comes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph.checks import LARGEST, one_of, share, shown, truth, whole
from mlgraph.engine import FEW, STATE, Examples, checked_threads
from mlgraph.losses import empty_answers
from mlgraph.nonfinite import POLICIES, Guard
from mlgraph.training import History, Progress, RunState, epoch_steps, train

if TYPE_CHECKING:
    from mlgraph.checkpoint import Checkpoint
    from mlgraph.model import Model
    from mlgraph.sparsify import Acting, Schedule


def fit(
    model: Model,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    epochs: int,
    batch_size: int | tuple[int, int],
    learning_rate: float | tuple[float, float],
    momentum: float,
    weight_decay: float,
    optimizer: str,
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None,
    shuffle: bool,
    seed: int,
    callback: Callable[[Progress], Any] | None,
    sparsify: Schedule | None,
    on_nonfinite: str,
    checkpoint: str | os.PathLike[str] | None,
    checkpoint_every: float,
    resume: bool,
    n_threads: int | None,
) -> History:
    """`Model.fit` says what the parameters are."""
    examples = Examples(x, model.graph.n_inputs)
    label, target = model._targets(y, len(examples))
    sizes = _pair("batch_size", batch_size, int, 1, 2**63)
    rates = _pair("learning_rate", learning_rate, float, 0, LARGEST)
    epochs, momentum, seed = whole("epochs", epochs), share("momentum", momentum), whole("seed", seed, 0, None)
    weight_decay = checked_decay(weight_decay, max(rates))
    optimizer = one_of("optimizer", optimizer, ("sgd", "adam"))
    on_nonfinite = one_of("on_nonfinite", on_nonfinite, POLICIES)
    shuffle, resume = truth("shuffle", shuffle), truth("resume", resume)
    if resume and checkpoint is None:
        raise ValueError("resume: expected a checkpoint to go on from, came none")
    if isinstance(checkpoint_every, bool) or not isinstance(checkpoint_every, Real) or not 0 <= checkpoint_every < np.inf:
        raise ValueError(f"checkpoint_every: expected seconds from 0 on, came {shown(checkpoint_every)}")
    checked_threads(n_threads)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected a callable, came {type(callback).__name__}")
    examples.warn_of_truths()
    examples = examples.in_bytes(n_threads)
    examples.check_trainable()
    validate: Callable[[], dict[str, float]] | None = None
    held: Examples | None = None
    if validation is not None:
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            raise ValueError(f"validation: expected (x, y), came {shown(validation)}")
        held = Examples(validation[0], model.graph.n_inputs, "validation x")
        held = held.in_bytes(n_threads)
        held.check_trainable()
        held_targets = model._targets(validation[1], len(held), "validation y")
        validate = partial(model._evaluate, held, *held_targets, n_threads)
    if optimizer == "sgd" and momentum:
        optimizer = "momentum"
    acting: Acting | None = None
    if sparsify is not None:
        from mlgraph.sparsify import Acting

        acting = Acting(sparsify, model, examples, label, target, epochs, seed, n_threads)
    with model.graph.in_training():
        model._engine("loss")
        correct = empty_answers(model.loss, len(examples), label)
        state = RunState(np.zeros(len(examples), np.float32), correct, History())
        keeper: Checkpoint | None = None
        if checkpoint is not None:
            from mlgraph.checkpoint import Checkpoint

            arguments = {
                "epochs": epochs, "batch_size": sizes, "learning_rate": rates, "momentum": momentum,
                "weight_decay": weight_decay, "optimizer": optimizer, "shuffle": shuffle, "seed": seed,
                "on_nonfinite": on_nonfinite, "sparsify": repr(sparsify),
            }  # fmt: skip
            seen = {"data": [examples.array, label, target], "validation data": [held.array, *held_targets] if held else []}
            keeper = Checkpoint(checkpoint, checkpoint_every, model, state, arguments, seen)
        if not (keeper and resume and keeper.resume()):
            for name in ("first", "second"):
                model.graph.storage.state.pop(name, None)
            for name in STATE[optimizer]:
                model.graph.storage.state_vector(name, fresh=True)
        model.history = state.history
        options = {
            "label": label, "target": target, "loss": model.loss, "loss_nodes": model._loss_nodes,
            "hyper": (momentum, 0.999, 1e-8), "training": True, "backward": True, "seed": seed, "n_threads": n_threads,
            "few": min(*sizes, len(examples)) <= FEW,
        }  # fmt: skip
        with keeper or nullcontext():
            train(
                partial(model._run, "loss"), examples, epochs,
                lambda epoch: epoch_steps(epoch, len(examples), epochs, sizes, rates), optimizer=optimizer,
                weight_decay=weight_decay, options=options, shuffle=shuffle,
                guard=Guard(model, on_nonfinite, examples, optimizer, options), validate=validate, callback=callback,
                state=state, between=keeper.between_steps if keeper else lambda: None, sparse=acting,
            )  # fmt: skip
    return model.history


def _pair(name: str, value: Any, kind: type, least: float, most: float) -> tuple[Any, Any]:
    """(from, to) of a schedule, from a pair or one number."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    number = (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
    if len(pair) != 2 or not all(isinstance(v, number) and not isinstance(v, bool) and least <= v < most for v in pair):
        expected = f"one or two {kind.__name__}s, from {least} to below {most:.6g}"
        raise ValueError(f"{name}: expected {expected}, came {shown(value)}")
    return kind(pair[0]), kind(pair[1])


def checked_decay(value: Any, rate: float) -> float:
    """A weight decay that takes no more than all of a weight at this learning rate."""
    most = min(1 / rate, LARGEST) if rate else LARGEST
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= most:  # type: ignore[operator]
        expected = f"to 1 / learning_rate, {most:.6g}" if most < LARGEST else "on that float32 can hold"
        raise ValueError(f"weight_decay: expected a number from 0 {expected}, came {shown(value)}")
    return float(value)
