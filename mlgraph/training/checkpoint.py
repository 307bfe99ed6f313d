"""Checkpoints: a run that is killed at any moment resumes from its file and ends bitwise equal to an uninterrupted run.

A checkpoint is a model file with more in it: the optimizer's state, the history, the position in
the run, the arguments of `fit`, and digests of the data and of the model. `mlgraph.load` reads it
as a model. Writing is atomic, and keeps the checkpoint before in a second file. The part that
belongs to the run has its own format version. A run that has finished leaves a checkpoint that says so.
"""

from __future__ import annotations

import hashlib
import json
import signal
import time
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support import checks
from mlgraph._support.array_types import Bool, Float32
from mlgraph._support.atomic_files import destination, followed, part_of, remove_parts
from mlgraph._support.checks import MOST_SEED, StrOrBytesPath, level_outside, shown
from mlgraph._support.interrupts import Waiting, uninterrupted
from mlgraph.engine.engine import STATE
from mlgraph.graph.arrays import bias_places, parameter_places
from mlgraph.graph.ops import PARAMETER
from mlgraph.graph.topology import gather
from mlgraph.models.history import History
from mlgraph.models.model import Model
from mlgraph.models.model_file import ModelFileError, header_of, read, require, save
from mlgraph.training.callback_state import identity, packed, unpacked
from mlgraph.training.loop import RunState

FORMAT = 9
"""Version of the part that a checkpoint adds to a model file."""

HISTORY = {name: str(column.dtype) for name, column in vars(History()).items()}

ARRAYS = {"first": "float32", "second": "float32", **{f"history_{name}": dtype for name, dtype in HISTORY.items()}}
# The columns of the metrics, one after the other; their names are among the arguments.
ARRAYS["metrics"] = "float64"
ARRAYS["states"] = "uint8"  # of callbacks


class CheckpointError(ValueError):
    """A checkpoint belongs to a run with other arguments, other data or another model."""


class Checkpoint:
    """The checkpoint of one run, written at the end of its ``with`` block. In that of `interrupts`, Ctrl-C waits.

    Parameters
    ----------
    path : path
    every : float
        Minimum number of seconds between two writes.
    model : Model
        The model to train, as it was when the run first began or as a checkpoint of the run holds
        it.
    n : int
        Number of examples in the training data.
    state : RunState
        The position of the run. The loop updates it, and `resume` sets it.
    arguments : mapping from str to any JSON
        Arguments of the run. They must include `epochs` and `optimizer`.
    data : mapping from str to arrays
        Data of the run, by the names that errors use. `validation data` may be empty.
    callbacks : sequence
        The callbacks that have a state.
    seed : int
        The seed of the run. `resume` may set it.

    Attributes
    ----------
    finished : bool
        Whether the run has ended and `on_train_end` has been called.
    """

    def __init__(
        self,
        path: StrOrBytesPath,
        every: float,
        model: Model,
        n: int,
        state: RunState,
        arguments: Mapping[str, Any],
        data: Mapping[str, Sequence[npt.NDArray[Any] | None]],
        callbacks: Sequence[Any],
        seed: int,
    ) -> None:
        self.path = Path(checks.path("checkpoint", path))
        try:
            target = destination(self.path)  # of a link, which may be on another disk
            self.previous = destination(target.with_name(f"{target.name}.previous"))
            destination(part_of(target))  # the longest name of all
        except OSError as error:
            raise ValueError(f"checkpoint: cannot write {shown(str(error.filename))}: {error.strerror}") from None
        self._every, self._model, self._n, self.state = every, model, n, state
        self._callbacks = callbacks
        self._states: list[dict[str, Any]] = []  # of the callbacks, in the file that is resumed
        self._arguments = json.loads(json.dumps({**arguments, "callbacks": [identity(each) for each in callbacks]}))
        self.seed = seed
        self.finished = False
        self._any_seed = False  # whether a checkpoint with any seed may be resumed
        self._digests = {name: _digest(arrays) for name, arrays in data.items()}
        # Digests of the models that this run began with or was resumed with.
        self._began_with = [_model_digest(model)]
        self._validated = bool(data.get("validation data"))
        self._written = time.monotonic()
        self._position = (-1, -1, False, False)  # epoch, step, ended and finished in the file
        self._undamaged = True  # whether the file at the path, if any, can be read
        # No interrupt between a step and its record in the history. `fit` holds it around this `with` block.
        self.interrupts = Waiting([signal.SIGINT], impatient=True)

    # --- resuming ---------------------------------------------------------------------------------

    def resume(self, *, any_seed: bool) -> bool:
        """Set the model and the position to those in the checkpoint; return False if there is no file.

        An error changes nothing.

        Parameters
        ----------
        any_seed : bool
            Whether to continue with the seed in the checkpoint, whatever it is.

        Raises
        ------
        ModelFileError
            If the checkpoint is damaged and there is no undamaged previous one of this run.
        CheckpointError
            If the checkpoint belongs to another run.
        OSError
            If the file cannot be read.
        """
        damage: ModelFileError | None = None
        self._any_seed = any_seed
        for path in (self.path, self.previous):
            try:
                found = read(path, self._parse, ARRAYS)
            except FileNotFoundError:
                continue
            except ModelFileError as error:
                damage = damage or error
                continue
            if isinstance(found, str):
                if damage:  # the previous file is of an older run
                    raise damage
                raise CheckpointError(f"checkpoint: {path} belongs to another run: {found}")
            if damage:
                warnings.warn(f"checkpoint: {damage}; resuming from {path}", RuntimeWarning, stacklevel=level_outside())
            model, state, needs, began_with, self.seed, self._states, self.finished = found
            self._began_with = began_with + [self._began_with[0]] * (self._began_with[0] not in began_with)
            self._undamaged = path == self.path
            self._position = (state.epoch, state.step, state.ended, self.finished)
            # A part of these changes would leave the graph of one model with the layers of another.
            with uninterrupted():
                self._model.become(model)
                vars(self.state).update(vars(state))
                for one in self._model.graph.models:
                    one.needed_before = needs.get(tuple(one.sinks), one.needed_before)
            return True
        if damage:
            raise damage
        return False

    def _parse(
        self, model: Model, header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]
    ) -> str | tuple[Model, RunState, dict[tuple[int, ...], Bool], list[str], int, list[dict[str, Any]], bool]:
        """Check the content of a file.

        Returns
        -------
        str, or (Model, RunState, dict, list of str, int, list of dict, bool)
            For another run, the difference. Otherwise the model, the position, the nodes that each
            model of the graph had needed, the digests of the models that the run began with, its
            seed, the states of the callbacks, and whether it has finished.
        """
        what: Any = header.get("checkpoint")
        require(
            isinstance(what, dict) and type(what.get("format")) is int,
            "a model, but not a checkpoint: its header has no entry for one",
        )
        require(
            what["format"] == FORMAT,
            f"checkpoint: format: expected {FORMAT}, got {what['format']}; another version of mlgraph wrote it",
        )
        difference = self._difference(model, what)
        if difference:
            return difference
        ends = [(m.output_ids, m.loss_ids, m.probability_ids, len(m.layers)) for m in (model, self._model)]
        added = model.graph.n_inputs - self._model.graph.n_inputs  # a callback may add inputs
        same = ends[0] == ends[1] and added >= 0
        require(same, "checkpoint: its model has other inputs, layers, outputs or loss than the one to train")
        state = self._parse_state(what, arrays)
        read_state(model, what["arguments"]["optimizer"], state.taken + state.step - state.began, arrays)
        needs = _needs(what.get("needs", []), len(model.graph))
        states = unpacked(what.get("states"), arrays["states"], len(self._callbacks))
        return model, state, needs, what["models"], what["arguments"]["seed"], states, what["finished"]

    def _difference(self, model: Model, what: Any) -> str:
        """How the run in a file differs from this one; an empty string if it does not."""
        arguments, digests = what.get("arguments"), what.get("digests")
        require(
            isinstance(arguments, dict) and isinstance(digests, dict), "checkpoint: arguments or digests are missing"
        )
        for name, here in self._arguments.items():
            if arguments.get(name) != here:
                # Users know sgd and momentum as one optimizer; the momentum, which is compared
                # first, tells them apart.
                then, now = ("sgd" if value == "momentum" else value for value in (arguments.get(name), here))
                return f"{name} was {then}, but is {now} now"
        seed = arguments.get("seed")
        require(type(seed) is int and 0 <= seed <= MOST_SEED, f"checkpoint: seed: expected a seed, got {seed!r}")
        if seed != self.seed and not self._any_seed:
            return f"seed was {seed}, but is {self.seed} now"
        began_with = what.get("models")
        listed = isinstance(began_with, list) and all(isinstance(digest, str) for digest in began_with)
        require(listed, "checkpoint: models: expected a list of digests")
        if self._began_with[0] not in (*began_with, _model_digest(model)):
            return (
                "the model has other nodes, edges, dropout, initial parameters or frozen parameters; give the network "
                f"the seed that it had, or begin with mlgraph.load({shown(str(self.path))})"
            )
        for name, digest in self._digests.items():
            if digests.get(name) != digest:
                return f"the {name} changed"
        return ""

    def _parse_state(self, what: Any, arrays: dict[str, npt.NDArray[Any]]) -> RunState:
        """The position of the run in a file."""
        epoch, step, taken, seconds = (what.get(name) for name in ("epoch", "step", "taken", "seconds"))
        counts = all(type(count) is int and 0 <= count < 2**62 for count in (epoch, step, taken))
        require(counts, f"checkpoint: epoch, step, taken: expected counts, got {epoch!r}, {step!r}, {taken!r}")
        timed = isinstance(seconds, float) and 0 <= seconds < np.inf
        require(timed, f"checkpoint: seconds: expected a finite float from 0 on, got {seconds!r}")
        ended, finished = what.get("ended"), what.get("finished")
        require(type(ended) is type(finished) is bool, "checkpoint: ended, finished: expected true or false")
        began = what.get("began")
        require(type(began) is int and -(2**62) < began <= 0, f"checkpoint: began: expected 0 or less, got {began!r}")
        history = History(**{name: arrays[f"history_{name}"].copy() for name in HISTORY})
        faults = len(arrays["history_nonfinite_step"])
        wanted = {"validation": epoch if self._validated else 0, "epoch": epoch, "nonfinite": faults}
        for name, column in vars(history).items():
            length = wanted.get(name.split("_")[0], taken + step)
            require(len(column) == length, f"array history_{name}: expected {length} numbers, got {len(column)}")
        names = self._arguments["metrics"]
        metrics, size = arrays["metrics"], epoch * len(names)
        require(len(metrics) == size, f"array metrics: expected {size} numbers, got {len(metrics)}")
        history.add_metrics(names, metrics.reshape(len(names), epoch))
        epochs, n = self._arguments["epochs"], self._n
        seen = int(history.batch_examples[-1]) - epoch * n if step else 0
        good = (epoch < epochs and seen in range(step > 0, n + 1)) or (epoch, step) == (epochs, 0)
        require(good, f"checkpoint: a run of {epochs} epochs has no step {step + 1} of epoch {epoch + 1}")
        require(ended or epoch == epochs or not finished, "checkpoint: finished: expected false before the end")
        return RunState(history, epoch, step, taken, seconds, began, ended=ended)

    def restore_callbacks(self) -> None:
        """Give the callbacks the states in the file that was resumed, if any; a TypeError if no file can hold one."""
        for each, state in zip(self._callbacks, self._states, strict=bool(self._states)):
            each.load_state_dict(state)
        packed(self._callbacks)

    # --- writing ----------------------------------------------------------------------------------

    def between_steps(self) -> None:
        """Handle a pending Ctrl-C, and write if it is time to. The loop calls this where a run may be left."""
        self.interrupts.hand_on()
        if time.monotonic() - self._written >= self._every:
            self.write()

    def write(self) -> None:
        """Write the checkpoint, unless the file is up to date; warn if writing fails."""
        state = self.state
        position = (state.epoch, state.step, state.ended, self.finished)
        if self._position == position:
            return
        what = {
            "format": FORMAT,
            "arguments": {**self._arguments, "seed": self.seed},
            "models": self._began_with,
            "digests": self._digests,
            "epoch": state.epoch,
            "step": state.step,
            "taken": state.taken,
            "seconds": state.seconds,
            "began": state.began,
            "ended": state.ended,
            "finished": self.finished,
        }
        arrays: dict[str, npt.NDArray[Any]] = {name: np.zeros(0, dtype) for name, dtype in ARRAYS.items()}
        what["states"], arrays["states"] = packed(self._callbacks)
        history = state.history
        arrays.update({f"history_{name}": history[name] for name in HISTORY})
        columns = [history[f"validation_{name}"] for name in history.metrics]
        arrays["metrics"] = np.concatenate(columns) if columns else arrays["metrics"]
        # A damaged file must not replace the good one before it, nor the end of a run that before its end.
        previous = self.previous if self._undamaged and self._position[:3] != position[:3] else None
        try:
            with self._model.graph.lock:
                models = self._model.graph.models
                if len(models) > 1:  # which nodes are alive depends on the nodes that each model has needed so far
                    what["needs"] = sorted([one.sinks, _bounds(one.needed_before)] for one in models)
                arrays |= state_arrays(self._model, self._arguments["optimizer"])
                save(self._model, self.path, more={"checkpoint": what}, more_arrays=arrays, previous=previous)
            self._undamaged, self._position = True, position
        except OSError as error:
            message = f"checkpoint: {self.path} cannot be written ({error.strerror or error}), training continues"
            warnings.warn(message, RuntimeWarning, stacklevel=1)  # Python shows warnings of one line only once
        self._written = time.monotonic()

    # --- Ctrl-C -----------------------------------------------------------------------------------

    def __enter__(self) -> Checkpoint:
        remove_parts(followed(self.path), older_than=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        if kind is None or (interrupted and self.state.consistent and not self.interrupts.was_urged):
            self.write()


def state_arrays(model: Model, optimizer: str) -> dict[str, Float32]:
    """The optimizer's state, as files hold it; `read_state` reads it."""
    return {name: model.graph.storage.state_vector(name, fresh=False) for name in STATE[optimizer]}


def read_state(model: Model, optimizer: str, steps: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Give a model that was read from a file the optimizer's state in it; a ModelFileError if it does not fit."""
    storage, size = model.graph.storage, len(arrays["parameters"])
    frozen = storage.frozen
    for name in STATE[optimizer]:
        good = len(arrays[name]) == size and np.isfinite(arrays[name]).all()
        require(good, f"array {name}: expected {size} finite numbers")
        # The vector in memory ends with a whole panel of neurons; the array in the file need not.
        vector = storage.state_vector(name, fresh=True)
        vector[:size] = arrays[name]
        if frozen is not None:
            vector[frozen != 0] = 0  # momentum must not move a frozen parameter
    if "second" in STATE[optimizer]:
        require((arrays["second"] >= 0).all(), "array second: expected squares, got a number below 0")
    storage.optimizer = optimizer, steps


def _bounds(flags: Bool) -> list[int]:
    """Ranges of set flags, as [begin, end, begin, end, ...]."""
    return np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]))).tolist()


def _needs(given: Any, n: int) -> dict[tuple[int, ...], Bool]:
    """Which of n nodes each model had needed, by its outputs and losses, from a list of `Checkpoint.write`."""
    needs: dict[tuple[int, ...], Bool] = {}
    message = f"checkpoint: needs: expected pairs of outputs and of ranges of nodes up to {n}"
    require(isinstance(given, list), message)
    for pair in given:
        require(isinstance(pair, list) and len(pair) == 2 and all(isinstance(row, list) for row in pair), message)
        sinks, bounds = pair
        require(all(type(i) is int and 0 <= i <= n for i in [*sinks, *bounds]), message)
        require(len(bounds) % 2 == 0 and all(a < b for a, b in pairwise(bounds)), message)
        edges = np.bincount(np.array(bounds, np.int64), minlength=n + 1)
        needs[tuple(sinks)] = np.cumsum(edges)[:n] % 2 == 1
    return needs


def _digest(arrays: Sequence[npt.NDArray[Any] | None]) -> str:
    """A digest of the types, shapes and values of arrays."""
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(b"none" if array is None else f"{array.dtype.str}{array.shape}".encode())
        if array is not None:
            state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def _model_digest(model: Model) -> str:
    """A digest of a model. It does not depend on where numbers are stored, on names, or on the generator."""
    # The first run sets the scaling, the columns and the classes, and data have their own digest.
    apart = ("format", "names", "scaling", "columns", "classes", "random")
    text = json.dumps({name: value for name, value in header_of(model).items() if name not in apart})
    graph, codes = model.graph, model.graph.codes
    start, counts, pool = graph.topology()
    constants, inputs = np.array(graph.constants), np.array(graph.input_ids)
    sources = gather(pool, start, counts)
    has_bias = bias_places(graph, np.flatnonzero(codes >= PARAMETER)) >= 0
    places = parameter_places(graph)
    weights, biases = np.split(places, [len(places) - np.count_nonzero(has_bias)])
    numbers = [graph.parameters[weights], has_bias, graph.parameters[biases]]
    frozen = graph.storage.frozen
    if frozen is not None:
        numbers += [frozen[weights], frozen[biases]] if frozen[places].any() else []
    return _digest(
        [np.frombuffer(text.encode(), np.uint8), codes, counts, graph.records, sources, constants, inputs, *numbers]
    )
