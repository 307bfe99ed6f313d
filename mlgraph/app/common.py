"""What the commands of the application share: loading and checking, and the words for it."""

from __future__ import annotations

import argparse
import math
import os
import sys
from contextlib import suppress
from pathlib import Path

import mlgraph
from mlgraph._support.atomic_files import destination
from mlgraph.app.arguments import THREADS, Failure
from mlgraph.datasets import DataError, Dataset, load_mnist

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "OK",
    "READER_GONE",
    "add_common_options",
    "check_output",
    "complain",
    "count",
    "describe",
    "finite",
    "load",
    "load_data",
    "remark",
]

OK, FAILED, INTERRUPTED, READER_GONE = 0, 1, 128 + 2, 128 + 13  # exit status; as in shells, signals follow 128


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Options that all commands have."""
    parser.add_argument(
        "--data", metavar="DIR", help="folder with the four IDX files (default: the MNIST of the package)"
    )
    parser.add_argument(
        "--threads", type=THREADS, metavar="N", help="threads (default: the processors this process may use)"
    )
    parser.add_argument("--json", action="store_true", help="end standard output with a JSON object on one line")


def load_data(folder: str | None) -> Dataset:
    """The data set in a folder; MNIST for None."""
    try:
        return load_mnist(folder)
    except DataError as error:
        raise Failure(f"argument --data: {error}" if folder is not None else str(error)) from None


def load(path: str, folder: str | None) -> tuple[mlgraph.Network, Dataset]:
    """A saved network that tells classes apart, and a data set for it."""
    net, data = _load_network(path), load_data(folder)
    height, width = data.image_shape
    if net.graph.n_inputs != height * width:
        raise Failure(f"argument MODEL: {path} has {net.graph.n_inputs} inputs, the images {height} x {width} pixels")
    if net.layers[-1].size < data.n_classes:
        raise Failure(f"argument MODEL: {path} has {net.layers[-1].size} outputs, the data {data.n_classes} classes")
    return net, data


def _load_network(path: str) -> mlgraph.Network:
    if os.path.isdir(path):
        raise Failure(
            f"argument MODEL: expected a file, got the folder {path}; a run keeps its model in model.npz there"
        )
    try:
        model = mlgraph.load(path)
    except OSError as error:
        raise Failure(f"argument MODEL: {path}: cannot be read: {error.strerror}") from None
    except mlgraph.ModelFileError as error:
        raise Failure(f"argument MODEL: {error}") from None
    if not (isinstance(model, mlgraph.Network) and model.layers[-1].activation == "softmax"):
        raise Failure(f"argument MODEL: {path}: expected a `Network` with a softmax layer, got another model")
    return model


def check_output(path: Path) -> None:
    """Fail, before the work rather than after it, if the path cannot be a file or is in no folder."""
    try:
        destination(path)
    except OSError as error:
        raise Failure(f"argument --out: cannot write {str(path)!r}: {error.strerror}") from None


def describe(net: mlgraph.Network) -> str:
    """A network's sizes, activations and edges as text."""
    sizes = "-".join(str(size) for size in [net.graph.n_inputs, *(layer.size for layer in net.layers)])
    activations = " ".join(dict.fromkeys(layer.activation for layer in net.layers[:-1]))
    return f"{sizes} {activations}".rstrip() + f", {count(net.n_edges, 'edge')}"


def count(n: int, noun: str) -> str:
    """A number of things."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def finite(value: float) -> float | None:
    """`value`, or None if it is not finite, for JSON, which has no other numbers."""
    return value if math.isfinite(value) else None


def remark(line: str) -> None:
    """Print a line on standard error, if that can be written to; the work goes on in any case."""
    with suppress(OSError):
        print(*line.splitlines(), file=sys.stderr, flush=True)


def complain(message: str) -> None:
    """Print a line on standard error that begins with the name of the program."""
    remark(f"mlgraph.mnist: {message}")
