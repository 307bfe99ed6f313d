"""Functions that all commands share: common options, loading, checks and messages."""

from __future__ import annotations

import argparse
import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlgraph
from mlgraph._support.atomic_files import destination
from mlgraph.app.arguments import THREADS, Failure
from mlgraph.datasets import DataError, Dataset, load_mnist

# Exit statuses. As in a shell, a process that a signal ends has 128 plus the number of the signal.
OK, FAILED, INTERRUPTED, READER_GONE = 0, 1, 128 + 2, 128 + 13


def version_here() -> str:
    """The version of mlgraph."""
    return getattr(mlgraph, "__version__", "(not installed)")  # a clone that is only on the path has none


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument MODEL."""
    parser.add_argument("model", metavar="MODEL", help="saved network (model.npz) or checkpoint (checkpoint.npz)")


def add_common_options(group: Any, *, threads: str = "one for each available processor") -> None:
    """Add the options of every command to a parser or a group of arguments; `threads` describes their default."""
    group.add_argument(
        "--data", metavar="DIR", help="folder with another data set: four IDX files named like MNIST's (default: MNIST)"
    )
    group.add_argument("--threads", type=THREADS, metavar="N", help=f"number of threads (default: {threads})")
    group.add_argument("--json", action="store_true", help="print the results as JSON, as the last line of the output")


def load_data(folder: str | None) -> Dataset:
    """Read the data set in a folder; None means MNIST."""
    try:
        return load_mnist(folder)
    except DataError as error:
        raise Failure(f"argument --data: {error}" if folder is not None else str(error)) from None


def load(path: str, folder: str | None) -> tuple[mlgraph.Network, Dataset]:
    """Load a saved classifier and a data set that fits it."""
    net, data = _load_network(path), load_data(folder)
    height, width = data.image_shape
    if net.graph.n_inputs != height * width:
        raise Failure(
            f"argument MODEL: {path} has {net.graph.n_inputs} inputs, but the images have {height} x {width} pixels"
        )
    if net.layers[-1].size < data.n_classes:
        raise Failure(
            f"argument MODEL: {path} has {net.layers[-1].size} outputs, but the data have {data.n_classes} classes"
        )
    return net, data


def _load_network(path: str) -> mlgraph.Network:
    if os.path.isdir(path):
        raise Failure(f"argument MODEL: {path} is a folder; give a file in it, such as model.npz")
    try:
        model = mlgraph.load(path)
    except OSError as error:
        raise Failure(f"argument MODEL: {path}: cannot be read: {error.strerror}") from None
    except mlgraph.ModelFileError as error:
        raise Failure(f"argument MODEL: {error}") from None
    if not (isinstance(model, mlgraph.Network) and model.layers[-1].activation == "softmax"):
        raise Failure(f"argument MODEL: {path}: the model is not a Network whose last layer is softmax")
    return model


def check_output(path: Path) -> None:
    """Raise a `Failure` if no file can be written at this path, so that no work is lost at the end."""
    try:
        destination(path)
    except OSError as error:
        raise Failure(f"argument --out: cannot write {str(path)!r}: {error.strerror}") from None


def describe(net: mlgraph.Network) -> str:
    """Describe a network by its sizes, activations and number of edges."""
    sizes = "-".join(str(size) for size in [net.graph.n_inputs, *(layer.size for layer in net.layers)])
    activations = " ".join(dict.fromkeys(layer.activation for layer in net.layers[:-1]))
    return f"{sizes} {activations}".rstrip() + f", {count(net.n_edges, 'edge')}"


def count(n: int, noun: str) -> str:
    """Format a number of things, such as "1 edge" or "2,000 edges"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def finite(value: float) -> float | None:
    """Return `value`, or None if it is not finite, since JSON has finite numbers only."""
    return value if math.isfinite(value) else None


def remark(line: str) -> None:
    """Print a line on standard error; if that fails, go on without it."""
    with suppress(OSError):
        print(*line.splitlines(), file=sys.stderr, flush=True)


def complain(message: str) -> None:
    """Print a line on standard error that starts with the name of the program."""
    remark(f"mlgraph.mnist: {message}")
