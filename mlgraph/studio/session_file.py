"""A file that holds a session: the network and its optimizer, how it began, its data, its options and its curve.

It is a model file with more in it, which `mlgraph.load` reads as a model. Data that the studio has itself, such as
MNIST, are only named. What could be undone is not in it.
"""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.checks import StrOrBytesPath, real, whole
from mlgraph.engine.engine import STATE
from mlgraph.graph.storage import NO_OPTIMIZER
from mlgraph.models import model_file
from mlgraph.models.model import Model
from mlgraph.models.model_file import ModelFileError, require
from mlgraph.studio import data as sources
from mlgraph.studio.curve import Curve
from mlgraph.studio.data import Data
from mlgraph.studio.run import OPTIONS, check_options
from mlgraph.studio.session import Session, json_ready
from mlgraph.training.checkpoint import read_state, state_arrays

PARTS = ("x", "y", "test_x", "test_y")
"""Arrays of the data. A file has their bytes, and in its header their dtypes and shapes."""

MOMENTS = ("first", "second")
"""The optimizer's state; older files have none."""

ARRAYS = {
    "initial": "uint8",
    **dict.fromkeys(("curve", "curve_rest", *MOMENTS), "float32"),
    **dict.fromkeys(PARTS, "uint8"),
}


class Saved(NamedTuple):
    """What a file holds."""

    model: Model
    initial: Model
    data: Data
    options: dict[str, Any]
    pace: float | None
    curve: Curve
    tests: list[dict[str, float | None]]
    epochs: int
    examples: int


def save(session: Session, path: StrOrBytesPath) -> None:
    """Write the session to a file."""
    with session.lock, session.model.graph.lock:
        run, data = session.run, session.data
        parts = {name: np.ascontiguousarray(getattr(data, name)) for name in PARTS}
        if data.built_in is not None:
            parts = dict.fromkeys(PARTS, np.empty(0, np.uint8))
        optimizer, steps = run.optimizer
        header = {
            "optimizer": [optimizer, steps],
            "data": {
                "built_in": data.built_in,
                "name": data.name,
                "columns": data.columns,
                "named": data.named,
                "classes": data.classes,
                "image": data.image,
                "standardize": data.standardize,
                "target": data.target,
                "units": None if data.units is None else [column.tolist() for column in data.units],
                "parts": {name: [str(part.dtype), part.shape] for name, part in parts.items()},
            },
            "options": run.options,
            "pace": run.pace,
            "stride": run.curve.stride,
            "tests": json_ready(run.epoch_curve),
            "epochs": run.epochs,
            "examples": run.examples,
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            "initial": np.frombuffer(_content(session.initial), np.uint8),
            **run.curve.arrays(),
            **dict.fromkeys(MOMENTS, np.zeros(0, np.float32)),
            **(state_arrays(session.model, optimizer) if optimizer else {}),
            **{name: part.reshape(-1).view(np.uint8) for name, part in parts.items()},
        }
        model_file.save(session.model, path, more={"session": header}, more_arrays=arrays)


def kind(file: Path | IO[bytes]) -> str | None:
    """What a file is: "session", "model", which has no data, or None. It may be damaged all the same."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = set(archive.namelist())
    except Exception:  # zipfile raises many kinds of errors for a file that is none
        return None
    return "session" if {"header.npy", "initial.npy"} <= members else "model" if "header.npy" in members else None


def read(path: Path) -> Saved:
    """What a file holds.

    Raises
    ------
    ModelFileError
        If the file is no session, or is damaged.
    OSError
        If it cannot be read.
    """
    return model_file.read(path, _parse, ARRAYS, MOMENTS)


def resume(saved: Saved, session: Session) -> None:
    """Go on with what a file held; ValueError, and no change, if its parts do not fit each other."""
    with session.lock:
        session.replace(saved.model, saved.data, saved.initial)
        session.run.change(**saved.options)
        session.run.set_pace(saved.pace)
        session.run.go_on_from(saved.curve, saved.tests, saved.epochs, saved.examples)


def _content(model: Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.npz")
        return (Path(folder) / "model.npz").read_bytes()


def _parse(model: Model, header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Saved:
    given: Any = header.get("session")
    require(isinstance(given, dict), "a model, but not a session of the studio")
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "initial.npz"
            path.write_bytes(arrays["initial"].tobytes())
            initial = model_file.load(path)
        options = {name: given["options"][name] for name in OPTIONS}
        check_options(options)
        pace = None if given["pace"] is None else real("pace", given["pace"], "a number from 0.1 to 10^6", 0.1, 1e6)
        curve = Curve.of(whole("stride", given["stride"], 1, 2**40), arrays["curve"], arrays["curve_rest"])
        tests = [{name: _number(entry[name]) for name in ("step", "loss", "accuracy")} for entry in given["tests"]]
        counts = [whole(name, given[name], 0, 2**60) for name in ("epochs", "examples")]
        optimizer, steps = given.get("optimizer", NO_OPTIMIZER)
        require(isinstance(optimizer, str) and optimizer in ("", *STATE), "session: optimizer: expected its name")
        steps = whole("optimizer: steps", steps, 0, 2**60)
        if optimizer:
            read_state(model, optimizer, steps, arrays)
        return Saved(model, initial, _data(given["data"], arrays), options, pace, curve, tests, counts[0], counts[1])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ModelFileError(f"session: {type(error).__name__}: {error}") from None


def _number(given: Any) -> float | None:
    return None if given is None else float(given)


def _data(given: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Data:
    if given["built_in"] is not None:
        return sources.built_in(given["built_in"])
    found = {}
    for name in PARTS:
        dtype, shape = given["parts"][name]
        require(np.dtype(dtype).kind in "biuf", f"session: {name}: expected numbers, got {dtype}")
        found[name] = arrays[name].view(dtype).reshape([whole(name, size, 0, 2**40) for size in shape])
    columns, classes = ([str(name) for name in given[names] or ()] for names in ("columns", "classes"))
    image = None
    if given["image"] is not None:
        height, width = (whole("image", size, 1, 2**16) for size in given["image"])
        image = height, width
    x, y, test_x, test_y = found.values()
    data = sources.arrays(x, y, (test_x, test_y), name=str(given["name"]), columns=columns, classes=classes or None)
    n_labels = 0 if data.classes is None else int(max(data.y.max(), data.test_y.max())) + 1
    require(len(data.columns) == x.shape[1] and len(data.classes or ()) >= n_labels, "session: names of the data")
    require(image is None or image[0] * image[1] == x.shape[1], "session: the size of images")
    units = None
    if given["units"] is not None:
        mean, deviation = (np.array(column, float) for column in given["units"])
        fits = mean.shape == deviation.shape == y.shape[1:] and np.isfinite([mean, deviation]).all()
        require(data.classes is None and fits, "session: units")
        units = mean, deviation
    return replace(
        data,
        image=image,
        standardize=given["standardize"] is True,
        target=None if given["target"] is None else str(given["target"]),
        units=units,
        named=given.get("named") is True,
    )
