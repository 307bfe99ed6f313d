"""Checkpoints: a run killed at any moment resumes from its file, and ends with the same bits as an uninterrupted run.

A checkpoint is a model file that also holds the optimizer's state, the history and the place in the run, so that every
reader of models can read it. What belongs to the run has its own format version.
"""

from __future__ import annotations

import glob
import hashlib
import json
import signal
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support import checks
from mlgraph._support.array_types import Bool
from mlgraph._support.atomic_files import TEMPORARY, destination, followed, part_of
from mlgraph._support.checks import StrOrBytesPath, level_outside, shown
from mlgraph._support.interrupts import Waiting, uninterrupted
from mlgraph.engine.engine import STATE
from mlgraph.graph.arrays import bias_places, parameter_places
from mlgraph.graph.ops import PARAMETER
from mlgraph.graph.topology import gather
from mlgraph.models.history import History
from mlgraph.models.model import Model
from mlgraph.models.model_file import ModelFileError, header_of, read, require, save
from mlgraph.training.loop import RunState

FORMAT = 5
"""Version of what a checkpoint adds to a model file."""

HISTORY = {name: str(column.dtype) for name, column in vars(History()).items()}

ARRAYS = {"first": "float32", "second": "float32", **{f"history_{name}": dtype for name, dtype in HISTORY.items()}}


class CheckpointError(ValueError):
    """A checkpoint belongs to another run."""


class Checkpoint:
    """The checkpoint of one run; within its ``with`` block, Ctrl-C takes effect between two steps.

    Parameters
    ----------
    path : path
    every : float
        Seconds between two writes, at least.
    model : Model
        As it is when the run begins, or in a checkpoint of the run.
    n : int
        Number of examples in the training data.
    state : RunState
        Where the run stands, from now on; `resume` changes it.
    arguments : mapping from str to any JSON
        The arguments of the run, `epochs` and `optimizer` among them.
    data : mapping from str to arrays
        The data of the run, by the names that errors use; `validation data` may be empty.
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
    ) -> None:
        self.path = Path(checks.path("checkpoint", path))
        # Beside the target of a link, which may be on another disk.
        try:
            there = destination(self.path)
            self.previous = destination(there.with_name(f"{there.name}.previous"))
            destination(part_of(there))  # of which the name is the longest
        except OSError as error:
            expected = "a file in a folder that exists"
            raise ValueError(
                f"checkpoint: expected {expected}, got {shown(str(error.filename))}: {error.strerror}"
            ) from None
        self._every, self._model, self._n, self._state = every, model, n, state
        self._arguments = json.loads(json.dumps(arguments))
        self._digests = {name: _digest(arrays) for name, arrays in data.items()}
        self._began_with = [_model_digest(model)]  # and others, as in a checkpoint, that this run was resumed with
        self._validated = bool(data.get("validation data"))
        self._written, self._place = time.monotonic(), (-1, -1)
        self._whole = True  # whether the file at the path, if any, is undamaged
        self._waiting = Waiting(impatient=True)  # a step and its record in the history belong together

    # --- going on ----------------------------------------------------------------------------------------------------

    def resume(self) -> bool:
        """Bring model and run to the state in the checkpoint; False if there is none. Errors come before any change.

        Raises
        ------
        ModelFileError
            If the checkpoint is damaged, and there is no previous one of this run that is not.
        CheckpointError
            If the checkpoint belongs to another run.
        OSError
            If the system does not let it be read.
        """
        damage: ModelFileError | None = None
        for path in (self.path, self.previous):
            try:
                found = read(path, self._found, ARRAYS)
            except FileNotFoundError:
                continue
            except ModelFileError as error:
                damage = damage or error
                continue
            if isinstance(found, str):
                if damage:  # and the one before it is of an older run
                    raise damage
                raise CheckpointError(f"checkpoint: {path} belongs to another run, with {found}")
            if damage:
                warnings.warn(f"checkpoint: {damage}; going on from {path}", RuntimeWarning, stacklevel=level_outside())
            model, state, needs, began_with = found
            self._began_with = began_with + [self._began_with[0]] * (self._began_with[0] not in began_with)
            self._whole, self._place = path == self.path, (state.epoch, state.step)
            with uninterrupted():  # one graph with the layers of another would be no model
                self._model.become(model)
                vars(self._state).update(vars(state))
                for one in self._model.graph.models:
                    one.needed_before = needs.get(tuple(one.sinks), one.needed_before)
            return True
        if damage:
            raise damage
        return False

    def _found(
        self, model: Model, header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]
    ) -> str | tuple[Model, RunState, dict[tuple[int, ...], Bool], list[str]]:
        """The model in a file, where the run stood, what each model had needed, and digests of the models that it began with.

        Of another run only what differs.
        """
        what: Any = header.get("checkpoint")
        require(isinstance(what, dict) and type(what.get("format")) is int, "no checkpoint: its header has none")
        require(
            what["format"] == FORMAT, f"checkpoint: format: expected {FORMAT}, got {what['format']}: of another version"
        )
        difference = self._difference(model, what)
        if difference:
            return difference
        ends = [(m.output_ids, m.loss_ids, m.probability_ids, len(m.layers)) for m in (model, self._model)]
        added = model.graph.n_inputs - self._model.graph.n_inputs  # by a callback
        same = ends[0] == ends[1] and added >= 0
        require(same, "checkpoint: expected the inputs, layers, outputs and loss of the model, got others")
        state, size = self._state_in(what, arrays), len(arrays["parameters"])
        for name in STATE[what["arguments"]["optimizer"]]:
            good = len(arrays[name]) == size and np.isfinite(arrays[name]).all()
            require(good, f"array {name}: expected {size} finite numbers")
            # It ends with a whole panel of neurons; the array in the file need not.
            model.graph.storage.state_vector(name, fresh=True)[:size] = arrays[name]
        return model, state, _needs(what.get("needs", []), len(model.graph)), what["models"]

    def _difference(self, model: Model, what: Any) -> str:
        """What tells the run in a file from this one; nothing if they are one run."""
        arguments, digests = what.get("arguments"), what.get("digests")
        require(isinstance(arguments, dict) and isinstance(digests, dict), "checkpoint: expected arguments and digests")
        for name, here in self._arguments.items():
            if arguments.get(name) != here:
                # `sgd` stands for two optimizers here; their momentum, which is compared first, tells them apart.
                then, now = ("sgd" if value == "momentum" else value for value in (arguments.get(name), here))
                return f"{name} {then}; got {now}"
        began_with = what.get("models")
        listed = isinstance(began_with, list) and all(isinstance(digest, str) for digest in began_with)
        require(listed, "checkpoint: models: expected a list of digests")
        if self._began_with[0] not in (
            *began_with,
            _model_digest(model),
        ):  # it may also be the one that the checkpoint holds
            return "another model: its nodes, edges, dropout, parameters at the beginning, or what is frozen"
        for name, digest in self._digests.items():
            if digests.get(name) != digest:
                return f"other {name}"
        return ""

    def _state_in(self, what: Any, arrays: dict[str, npt.NDArray[Any]]) -> RunState:
        """Where the run in a file stood."""
        epoch, step, taken, seconds = (what.get(name) for name in ("epoch", "step", "taken", "seconds"))
        counts = all(type(count) is int and 0 <= count < 2**62 for count in (epoch, step, taken))
        require(counts, f"checkpoint: epoch, step, taken: expected counts, got {epoch!r}, {step!r}, {taken!r}")
        timed = isinstance(seconds, float) and 0 <= seconds < np.inf
        require(timed, f"checkpoint: seconds: expected a finite float from 0 on, got {seconds!r}")
        history = History(**{name: arrays[f"history_{name}"].copy() for name in HISTORY})
        faults = len(arrays["history_nonfinite_step"])
        wanted = {"validation": epoch if self._validated else 0, "epoch": epoch, "nonfinite": faults}
        for name, column in vars(history).items():
            length = wanted.get(name.split("_")[0], taken + step)
            require(len(column) == length, f"array history_{name}: expected {length} numbers, got {len(column)}")
        epochs, n = self._arguments["epochs"], self._n
        seen = int(history.batch_examples[-1]) - epoch * n if step else 0
        good = (epoch < epochs and seen in range(step > 0, n + 1)) or (epoch, step) == (epochs, 0)
        require(good, f"checkpoint: expected a place in a run of {epochs} epochs, got step {step} of epoch {epoch}")
        return RunState(history, epoch, step, taken, seconds)

    # --- writing -----------------------------------------------------------------------------------------------------

    def between_steps(self) -> None:
        """Called where the run may be left: let a pending Ctrl-C through, and write if it is time to."""
        self._waiting.hand_on()
        if time.monotonic() - self._written >= self._every:
            self.write()

    def write(self) -> None:
        """Write the run as it stands, unless it is where it was at the last write; warn if writing fails."""
        state = self._state
        if self._place == (state.epoch, state.step):
            return
        what = {
            "format": FORMAT,
            "arguments": self._arguments,
            "models": self._began_with,
            "digests": self._digests,
            "epoch": state.epoch,
            "step": state.step,
            "taken": state.taken,
            "seconds": state.seconds,
        }
        arrays: dict[str, npt.NDArray[Any]] = {name: np.zeros(0, dtype) for name, dtype in ARRAYS.items()}
        arrays.update({f"history_{name}": column for name, column in vars(state.history).items()})
        previous = self.previous if self._whole else None
        try:
            with self._model.graph.lock:
                models = self._model.graph.models
                if len(models) > 1:  # what belongs to which then depends on what each has needed so far
                    what["needs"] = sorted([one.sinks, _bounds(one.needed_before)] for one in models)
                for name in STATE[self._arguments["optimizer"]]:
                    arrays[name] = self._model.graph.storage.state_vector(name, fresh=False)
                save(self._model, self.path, more={"checkpoint": what}, more_arrays=arrays, previous=previous)
            self._whole, self._place = True, (state.epoch, state.step)
        except OSError as error:
            message = f"checkpoint: {self.path} cannot be written ({error.strerror or error}), training goes on"
            warnings.warn(message, RuntimeWarning, stacklevel=1)  # always from this line: a full disk is reported once
        self._written = time.monotonic()

    # --- Ctrl-C ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Checkpoint:
        path = followed(self.path)
        for stale in path.parent.glob(f".{glob.escape(path.name)}.????????{TEMPORARY}"):
            with suppress(OSError):  # left by a killed process; if it cannot be removed, nothing can be written either
                stale.unlink()
        try:
            self._waiting.install([signal.SIGINT])
        except BaseException:  # of another signal's handler: then `__exit__` is not called
            self._waiting.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
            if kind is None or (interrupted and self._state.consistent and not self._waiting.was_urged):
                self.write()
        finally:
            self._waiting.holds = False  # even if another signal's handler raises as `release` is called
            self._waiting.release()


def _bounds(flags: Bool) -> list[int]:
    """Where runs of set flags begin, and where they have ended."""
    return np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]))).tolist()


def _needs(given: Any, n: int) -> dict[tuple[int, ...], Bool]:
    """By the outputs and losses of models which of n nodes each had needed, as `Checkpoint.write` notes it."""
    good = isinstance(given, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in given)
    rows = [row for pair in given for row in pair] if good else []
    good = good and all(isinstance(row, list) and all(type(i) is int and 0 <= i <= n for i in row) for row in rows)
    good = (
        good
        and all(a < b for row in rows[1::2] for a, b in pairwise(row))
        and all(len(row) % 2 == 0 for row in rows[1::2])
    )
    require(good, f"checkpoint: needs: expected outputs of models and runs of nodes up to {n}")
    found = {}
    for sinks, bounds in given:
        turns = np.bincount(np.array(bounds, np.int64), minlength=n + 1)
        found[tuple(sinks)] = np.cumsum(turns)[:n] % 2 == 1
    return found


def _digest(arrays: Sequence[npt.NDArray[Any] | None]) -> str:
    """A digest of the types, shapes and numbers of arrays."""
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(b"none" if array is None else f"{array.dtype.str}{array.shape}".encode())
        if array is not None:
            state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def _model_digest(model: Model) -> str:
    """A digest of a model, whose lists of sources and parameters compilations and edits may move without changing it."""
    text = json.dumps({name: value for name, value in header_of(model).items() if name not in ("format", "names")})
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
