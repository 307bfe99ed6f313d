"""What `fit` is given, checked before anything changes, and the run that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph.array_types import Float64
from mlgraph.checks import FLOAT32_MAX, MOST_SEED, StrPath, one_of, real, share, shown, truth, whole, wrong
from mlgraph.engine import FEW, STATE
from mlgraph.examples import Examples
from mlgraph.nonfinite import POLICIES, Guard
from mlgraph.ops import PARAMETER
from mlgraph.steps import Learning, Rates
from mlgraph.threads import checked_threads
from mlgraph.training import History, Progress, RunState, train
from mlgraph.undo import forget_state

if TYPE_CHECKING:
    from mlgraph.checkpoint import Checkpoint
    from mlgraph.model import Model
    from mlgraph.sparsify import Acting, Schedule

PROGRESS = np.arange(1000) / 1000
"""Where a learning rate that is a function is looked at before a run: below 1, for no batch begins there."""


def fit(
    model: Model,
    x: npt.ArrayLike,
    y: npt.ArrayLike = (),
    *,
    epochs: int = 10,
    batch_size: int | tuple[int, int] = 128,
    learning_rate: float | tuple[float, float] | Callable[[float], float] = 0.05,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    optimizer: str = "sgd",
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    callback: Callable[[Progress], Any] | None = None,
    sparsify: Schedule | None = None,
    on_nonfinite: str = "raise",
    checkpoint: StrPath | None = None,
    checkpoint_every: float = 60.0,
    resume: bool = False,
    n_threads: int | None = None,
) -> History:
    """Train from where the parameters are.

    Adjoints, gradients, moments and parameters that come out of a step below the normal numbers of float32, 1.2e-38, are
    zero instead (on x86-64). Weights that plain SGD passes over, where data that are zero are skipped, stay as they are.

    Parameters
    ----------
    x : array_like, shape (examples, inputs)
        uint8 is read as x / 255. Columns that nothing here reads may be missing, as for `Model.forward`. What is not finite is
        refused before anything is learnt. Not to be changed meanwhile: bytes and float32 are read where they stand, or from a
        copy, as it is faster (the bytes of large data of which each number is exactly byte / 255; the columns that are read,
        where they are few).
    y : array_like
        Labels, integers of shape (examples,), or targets of shape (examples, outputs), which are taken as they are, bytes
        too: where `x` are images and `y` the same, divide `y` by 255.
        Targets of the binary cross-entropy are from 0 to 1, those of the softmax at least 0: the probabilities of the
        classes, or the weight of an example in place of the 1 of its label. (To weigh questions of yes or no, learn them as two
        classes. Accuracies do not weigh: an example without weight counts in them as one of the first class.) By the squared
        error several outputs learn labels as 1 for the output of the label and 0 for all others. Where the loss is a node they
        are of the last inputs of the graph, behind the columns of `x` (in a copy of both, of float32): of shape (examples,) or
        (examples, targets), or nothing, (), where `x` has all that the loss reads.
    epochs : int
    batch_size : int or (int, int)
        From and to: after every batch it moves with p^2, where p is the share of the training that is done. The gradient is
        the mean over the batch.
    learning_rate : float or (float, float) or callable
        From and to: it moves with p^1.5. Or a function of p, which gives the same each time; p is 0 for the first batch and
        below 1 for the last. (It is asked at a thousand places before the run; what it gives elsewhere that is no rate ends
        the run at that epoch.) `History.learning_rate` has that of each batch.
    momentum : float
        v = momentum * v + gradient; w = w - rate * v, with v = 0 at the start. Adam's beta1.
    weight_decay : float
        At each step the weights of edges lose the share rate * weight_decay of themselves as well: w = w - rate *
        weight_decay * w (Loshchilov & Hutter 2019, Decoupled weight decay regularization). Biases do not, nor do parameters
        that are nodes, which the loss may hold small. For SGD without momentum that is the gradient of weight_decay / 2 *
        w^2, which other libraries add to the loss; with momentum a decay of theirs is one of 1 / (1 - momentum) times as
        much here. At most 1 / the highest learning rate, which takes all of a weight.
    optimizer : "sgd" or "adam"
        Adam as at the end of section 2 of Kingma & Ba (2015): beta2 is 0.999, and epsilon, 1e-8, stands beside the root
        before its bias is corrected.
    validation : (x, y), optional
        Evaluated after each epoch.
    shuffle : bool
    seed : int
        Fixes the order of the examples and what is dropped. A second call with the same seed takes them in the same order and
        drops the same: who trains an epoch at a time gives each a seed of its own.
    callback : callable, optional
        Is given a `Progress` after every piece of steps, a tenth of a second by the clock, and after every epoch. Which steps
        end a piece is another matter in each run: what must be reproducible is a schedule, as for `sparsify`. If it raises
        StopIteration (as ``next`` of an iterator does that has run out), the run ends there: what was learnt stays, and the
        checkpoint, if any, can be gone on from.
    sparsify : GradualPruning, SET, RigL or another mlgraph.sparsify.Schedule, optional
        Cuts and grows edges meanwhile.
    on_nonfinite : "raise", "skip" or "disconnect"
        What becomes of a step in which a loss, an adjoint, a gradient or a moved parameter is not finite; none ever
        reaches a parameter. "raise": the run ends with a `NonFiniteError`. "skip": the examples that gave it are left
        out of the step, or all of them where only their sum overflowed, or the step that it makes. "disconnect": the
        neuron where it began is cut out of the graph, or where that is an operation, an output or the last way to one,
        the neuron that counted most for it; then the step is taken again. The history says what was left out.
    checkpoint : path, optional
        A file that holds all that is needed to go on bit for bit, written anew as training goes on, at its end and at
        Ctrl-C; the one before is kept beside it as ``<checkpoint>.previous``. `mlgraph.load` reads the model in it. When
        it cannot be written, on a full disk, that is a warning and training goes on.
    checkpoint_every : float
        Seconds between two checkpoints, at least.
    resume : bool
        Go on from the checkpoint, if there is one, with the graph and parameters in it; its data and arguments must be
        those given here. The result is that of a run that was never interrupted, to the bit on the same kind of
        processor, but for `History.epoch_seconds`. What a callback did to the graph is in the checkpoint, but not what `undo`
        would take back: edit and undo at one event, or within `one_edit`. (To train on after the end, load the model in it and
        begin another run.)
    n_threads : int, optional
        As many as the machine has and the work is worth by default. The result is the same to the bit for any number.

    Returns
    -------
    History

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be; nothing has been learnt.
    NonFiniteError
        If something is not finite, and that is what `on_nonfinite` says or there is nothing left to disconnect.
        Parameters and optimizer state are as before the step. It names the node where it began.
    RuntimeError
        If the graph is being trained already, by another thread or by the run whose callback this is, or another thread has
        given the network a layer meanwhile. To predict meanwhile is fine: threads take turns. And if `learning_rate` raises
        StopIteration, which a callback or a schedule may.
    CheckpointError
        If the checkpoint belongs to another run.
    ModelFileError
        If there is a checkpoint to go on from, and neither it nor the one before can be read.

    Warns
    -----
    UserWarning
        If data look as if they were in other units: bytes of nothing but 0 and 1, or whole numbers from 0 to 255 that are no
        bytes.
    RuntimeWarning
        If a checkpoint cannot be written, or is damaged, so that the run goes on from the one before.

    Examples
    --------
    >>> xor = mlgraph.Network(2, seed=0)
    >>> hidden, out = xor.add_layer(4, "tanh"), xor.add_layer(2, "softmax")
    >>> x, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
    >>> history = xor.fit(x, y, epochs=200, batch_size=4, learning_rate=0.1)
    >>> xor.predict(x)
    array([0, 1, 1, 0])
    >>> len(history.epoch_loss), bool(history.epoch_loss[-1] < history.epoch_loss[0])
    (200, True)
    """
    examples, objective = model._examples_and_objective(x, y)
    sizes = _pair("batch_size", batch_size, partial(whole, most=2**63 - 1))
    rates: Rates = partial(_rates, learning_rate) if callable(learning_rate) else _pair("learning_rate", learning_rate, _rate)
    on_the_way = rates(PROGRESS) if callable(rates) else np.array(rates)
    epochs, momentum, seed = whole("epochs", epochs), share("momentum", momentum), whole("seed", seed, 0, MOST_SEED)
    weight_decay = checked_decay(weight_decay, float(on_the_way.max()))
    optimizer = one_of("optimizer", optimizer, ("sgd", "adam"))
    if optimizer == "adam" and np.float32(momentum) == 1:  # no gradient would come in any more
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
    examples = examples.in_bytes(n_threads)
    examples.check_trainable()
    validate: Callable[[], dict[str, float]] | None = None
    held: Examples | None = None
    if validation is not None:
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            raise wrong("validation", "(x, y)", validation, isinstance(validation, tuple | list))
        held, of_held = model._examples_and_objective(*validation, "validation ")
        held.warn_of_units(told)
        held = held.in_bytes(n_threads)
        held.check_trainable()
        validate = partial(model._evaluate, held, of_held, n_threads)
    if optimizer == "sgd" and momentum:
        optimizer = "momentum"
    acting: Acting | None = None
    if sparsify is not None:
        from mlgraph.sparsify import Acting

        acting = Acting(sparsify, model, examples, objective, epochs, seed, n_threads)
    with model.graph.in_training():
        with model.graph.lock:  # another thread may compile, and so move what is noted of the parameters, or edit
            if objective.nodes != model._loss_nodes:
                raise RuntimeError("fit: expected a network that stays as it is, got one that was given a layer meanwhile")
            model._engine()
            state = RunState(History())
            keeper: Checkpoint | None = None
            if checkpoint is not None:
                from mlgraph.checkpoint import Checkpoint

                arguments = {
                    "epochs": epochs, "batch_size": sizes, "learning_rate": _told(rates, on_the_way), "momentum": momentum,
                    "weight_decay": weight_decay, "optimizer": optimizer, "shuffle": shuffle, "seed": seed,
                    "on_nonfinite": on_nonfinite, "sparsify": repr(sparsify),
                }  # fmt: skip
                seen = {"data": [examples.array, objective.label, objective.target]}
                seen["validation data"] = [held.array, of_held.label, of_held.target] if held else []
                keeper = Checkpoint(checkpoint, checkpoint_every, model, len(examples), state, arguments, seen)
            if not (keeper and resume and keeper.resume()):  # a run that goes on may have lost all that it began with
                if not (model.graph.codes[model.graph._needed_for(frozenset(objective.nodes))] >= PARAMETER).any():
                    raise ValueError("fit: expected a loss that depends on a weight or parameter, got one that depends on none")
                forget_state(model.graph, STATE["adam"])
                for name in STATE[optimizer]:
                    model.graph.storage.state_vector(name, fresh=True)
            model.history = state.history
        few = min(*sizes, len(examples)) <= FEW
        learning = Learning(objective, optimizer, (momentum, 0.999, 1e-8), seed, few, n_threads)
        with keeper or nullcontext():
            train(
                model._run, examples, epochs, sizes, rates, learning, weight_decay=weight_decay, shuffle=shuffle,
                guard=Guard(model, on_nonfinite, examples, learning), validate=validate, callback=callback,
                state=state, between=keeper.between_steps if keeper else lambda: None, n_edges=lambda: model.n_edges,
                sparse=acting,
            )  # fmt: skip
    return model.history


def _rate(name: str, value: Any) -> float:
    return real(name, value, f"a number from 0 to {FLOAT32_MAX:.6g}", 0, FLOAT32_MAX)


def _rates(function: Callable[[float], Any], progress: Float64) -> Float64:
    """Learning rates of a function of one's own; TypeError or ValueError where it gives none."""
    try:
        return np.array([_rate(f"learning_rate({p:.6g})", function(p)) for p in progress.tolist()])
    except StopIteration as error:  # which would be taken for the end of what calls `fit`
        raise RuntimeError("learning_rate: expected a rate, got StopIteration") from error


def _told(rates: Rates, on_the_way: Float64) -> Any:
    """What a checkpoint has of learning rates: by what a function gives it is the same or another."""
    if not callable(rates):
        return rates
    return f"function {blake2b(on_the_way.astype(np.float32).tobytes(), digest_size=8).hexdigest()}"


def _pair(name: str, value: Any, checked: Callable[[str, Any], Any]) -> tuple[Any, Any]:
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
