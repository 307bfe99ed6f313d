"""``python -m mlgraph.mnist evaluate``: the accuracy of a saved network and the classes that it confuses."""

from __future__ import annotations

import argparse
import json
import math
import sys

import numpy as np

import mlgraph
from mlgraph._support.array_types import Int64
from mlgraph.app.arguments import Failure
from mlgraph.app.common import OK, add_common_options, add_model_argument, count, describe, finite, load


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model_argument(parser)
    add_common_options(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate a saved network; return the exit status."""
    net, data = load(args.model, args.data)
    test = net.evaluate(data.test_x, data.test_y, n_threads=args.threads)
    try:
        predicted = net.predict(data.test_x, n_threads=args.threads)
    except ValueError as error:  # an output is NaN
        raise Failure(f"argument MODEL: {args.model}: {error}") from None
    # With infinite outputs, the table would count examples as correct that the accuracy does not.
    if math.isnan(test["loss"]):
        raise Failure(f"argument MODEL: {args.model}: the network has infinite outputs, so its loss is undefined")
    n_classes = net.layers[-1].size
    confusion = np.zeros((n_classes, n_classes), np.int64)  # rows: true classes, columns: predicted classes
    np.add.at(confusion, (data.test_y, predicted), 1)
    examples = confusion.sum(axis=1)
    correct = confusion.diagonal()
    mistakes = confusion - np.diag(correct)

    print(f"{args.model}: {describe(net)}")
    print(f"{count(len(predicted), 'test example')}: accuracy {test['accuracy']:.2%}, loss {test['loss']:.4f}\n")
    print("class  examples  accuracy  most often taken for")
    for label in np.flatnonzero(examples):
        most = [f"{other} ({mistakes[label, other]})" for other in _largest(mistakes[label], 3)]
        accuracy = correct[label] / examples[label]
        print(f"{label:5}  {examples[label]:8}  {accuracy:8.2%}  {', '.join(most)}".rstrip())
    if mistakes.any():
        pairs = (divmod(index, n_classes) for index in _largest(mistakes.ravel(), 5))
        listed = (f"{label} taken for {other} ({mistakes[label, other]})" for label, other in pairs)
        print(f"\n{count(mistakes.sum(), 'mistake')}, most often {', '.join(listed)}")
    if args.json:
        result = {
            "model": args.model,
            "data": args.data,
            "test_accuracy": test["accuracy"],
            "test_loss": finite(test["loss"]),
            "class_accuracy": [float(c / n) if n else None for c, n in zip(correct, examples, strict=True)],
            "confusion": confusion.tolist(),
            "edges": net.n_edges,
            "parameters": net.n_parameters,
            "threads": args.threads or mlgraph.default_threads(),
            "isa": mlgraph.ISA,
        }
        print(json.dumps(result))
    sys.stdout.flush()
    return OK


def _largest(counts: Int64, n: int) -> list[int]:
    """Indices of the `n` largest counts, largest first, without zeros."""
    return [index for index in np.argsort(-counts, kind="stable")[:n].tolist() if counts[index]]
