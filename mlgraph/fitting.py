"""What `fit` is given, checked before anything changes, and the run that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from mlgraph.array_types import Float64
from mlgraph.checks import FLOAT32_MAX, MOST_SEED, StrOrBytesPath, one_of, real, share, shown, truth, whole, wrong
from mlgraph.choice import FEW
from mlgraph.engine import STATE
from mlgraph.examples import Examples
from mlgraph.history import History
from mlgraph.nonfinite import POLICIES, Guard
from mlgraph.ops import PARAMETER
from mlgraph.steps import Course, Learning, Rates
from mlgraph.threads import checked_threads
from mlgraph.training import Progress, RunState, train
from mlgraph.undo import forget_state

if TYPE_CHECKING:
    from mlgraph.checkpoint import Checkpoint
    from mlgraph.model import Model
    from mlgraph.schedule import Acting, Schedule

T = TypeVar("T")

PROGRESS = np.arange(1000) / 1000
"""Progress at which a function for the learning rate is checked before a run; below 1, since no batch begins at 1."""


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
    checkpoint: StrOrBytesPath | None = None,
    checkpoint_every: float = 60.0,
    resume: bool = False,
    n_threads: int | None = None,
) -> History:
    """Train, starting from the present parameters.

    On x86-64, a step writes adjoints, gradients, moments and parameters below the normal numbers of float32, 1.2e-38, as
    zero. Weights that plain SGD passes over, since their data are zero and skipped, stay as they are.

    Parameters
    ----------
    x : array_like, shape (examples, inputs)
        uint8 is read as x / 255. Columns that nothing here reads may be missing, as for `Model.forward`. Data that are not
        finite are refused before anything is learnt. Do not change `x` during the run: bytes and float32 are read in place
        or from a copy, whichever is faster (large data of which each number is exactly byte / 255 are copied as bytes; if
        few columns are read, these are copied).
    y : array_like
        Labels, integers of shape (examples,), or targets of shape (examples, outputs). Targets are read unchanged, bytes
        too: if `x` and `y` are the same images, divide `y` by 255. Targets of the binary cross-entropy are from 0 to 1.
        Those of the softmax are at least 0: the probabilities of the classes, or the weight of an example in place of the 1
        of its label. (To weight yes-or-no questions, learn them as two classes. Accuracies are not weighted: an example
        without weight counts in them as one of the first class.) With the squared error, several outputs learn a label as 1
        for its output and 0 for all others. If the loss is a node, the targets are the last inputs of the graph, after the
        columns of `x` (in a copy of both, of float32): of shape (examples,) or (examples, targets), or nothing, (), if `x`
        has all that the loss reads.
    epochs : int
    batch_size : int or (int, int)
        A pair is (from, to): after every batch the size moves with p^2, where p is the share of the training done. An epoch's
        last batch has the examples that are left. The gradient is the mean over the batch.
    learning_rate : float or (float, float) or callable
        A pair is (from, to): the rate moves with p^1.5. A function of p must give the same each time; p is 0 for the first
        batch and below 1 for the last. (It is called for a thousand values of p before the run; if it gives no valid rate
        for another p, the run ends at that epoch.) `History.learning_rate` has the rate of each batch.
    momentum : float
        v = momentum * v + gradient; w = w - rate * v, with v = 0 at the start. Adam's beta1.
    weight_decay : float
        At each step the weights of edges also lose the share rate * weight_decay of themselves: w = w - rate * weight_decay
        * w (Loshchilov & Hutter 2019, Decoupled weight decay regularization). Biases and parameter nodes do not; the loss
        may keep the latter small. For SGD without momentum this is the gradient of weight_decay / 2 * w^2, which other
        libraries add to the loss; with momentum, their decay corresponds to 1 / (1 - momentum) times as much here. At most 1
        / the highest learning rate, which takes all of a weight.
    optimizer : "sgd" or "adam"
        Adam is as at the end of section 2 of Kingma & Ba (2015): beta2 is 0.999; epsilon, 1e-8, is added to the root before
        the bias correction.
    validation : (x, y), optional
        Evaluated after each epoch.
    shuffle : bool
    seed : int
        Fixes the order of the examples and what is dropped. A second call with the same seed repeats both: to train one
        epoch per call, give each call its own seed.
    callback : callable, optional
        Called with a `Progress` between steps, after about every fifth of a second of an epoch and after its last step, and
        after every epoch. The steps between which it is called differ from run to run: what must be reproducible belongs in
        a schedule, as for `sparsify`. If it raises StopIteration (as ``next`` does for an exhausted iterator), the run ends
        there: what was learnt stays, and a checkpoint, if any, can be resumed.
    sparsify : GradualPruning, SET, RigL or another mlgraph.sparsify.Schedule, optional
        Cuts and grows edges during the run.
    on_nonfinite : "raise", "skip" or "disconnect"
        What to do with a step in which a loss, an adjoint, a gradient or an updated parameter is not finite; no such number
        ever reaches a parameter. "raise": the run ends with a `NonFiniteError`. "skip": the examples at fault are left out
        of the step, or all its examples if only their sum or the resulting update overflowed. "disconnect": the neuron where
        it began is cut out of the graph; if it began at an operation, an output or the last way to one, the neuron that
        counted most for it is cut. Then the step is repeated. The history says what was left out.
    checkpoint : path, optional
        A file that holds all that is needed to continue bit for bit, rewritten during training, at its end and at Ctrl-C;
        the previous one is kept beside it as ``<checkpoint>.previous``. `mlgraph.load` reads the model in it. If it cannot
        be written, as on a full disk, a warning is given and training goes on.
    checkpoint_every : float
        Seconds between two checkpoints, at least.
    resume : bool
        Continue from the checkpoint, if there is one, with its graph and parameters; its data and arguments must be those
        given here. On the same kind of processor the result is that of an uninterrupted run, to the bit, except for
        `History.epoch_seconds`. The checkpoint holds a callback's edits of the graph, but not the last edit for `undo`: edit
        and undo in one call of the callback, or within `one_edit`. (To train further after the end, load the model in it and
        begin another run.)
    n_threads : int, optional
        By default as many as the process may use and the work is worth. The result is the same to the bit for any number.

    Returns
    -------
    History

    Raises
    ------
    TypeError, ValueError
        If an argument is not as documented; nothing has been learnt.
    NonFiniteError
        If something is not finite, and `on_nonfinite` says so or nothing is left to disconnect. Parameters and optimizer
        state are as before the step. The error names the node where it began.
    RuntimeError
        If the graph is already being trained, by another thread or by the run whose callback this is; or if another thread
        has meanwhile given the network a layer. (Predicting meanwhile is fine: threads take turns.) Also if `learning_rate`
        raises StopIteration, which only a callback or a schedule may.
    CheckpointError
        If the checkpoint belongs to another run.
    ModelFileError
        If the checkpoint to resume is damaged, and there is no previous one of this run that is not.
    OSError
        If the system does not let a checkpoint be read.

    Warns
    -----
    UserWarning
        If data seem to be in other units: bytes that are all 0 or 1, or whole numbers from 0 to 255, and no less, that are no
        bytes.
    RuntimeWarning
        If a checkpoint cannot be written, or is damaged, so that the run resumes from the previous one.

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
        held, of_held = model._examples_and_objective(*validation, "validation ")
        held.warn_of_units(told)
        held = held.in_bytes(n_threads)
        held.check_trainable()
        validate = partial(model._evaluate, held, of_held, n_threads)
    if optimizer == "sgd" and momentum:
        optimizer = "momentum"
    acting: Acting | None = None
    if sparsify is not None:
        from mlgraph.schedule import Acting

        acting = Acting(sparsify, model, given, objective, epochs, seed, n_threads)
    del given  # which may be floats that have become bytes
    with model.graph.in_training():
        with model.graph.lock:  # another thread may edit, or compile and so move the parameters
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
            if not (keeper and resume and keeper.resume()):  # a resumed run may have lost all its parameters
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
                model._run, examples, Course(epochs, sizes, rates, weight_decay, shuffle), learning,
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
