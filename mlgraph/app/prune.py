"""``python -m mlgraph.mnist prune``: edges of a saved network are cut while the rest continues to learn."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlgraph.app.arguments import FRACTION, Failure
from mlgraph.app.common import load
from mlgraph.app.learning import CHECKPOINT, MODEL, add_run_options, check_decay, learn
from mlgraph.app.recipe import PRUNING, add_recipe_options, given_of

__all__ = ["add_options", "run"]

NAMES = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "sparsity", "by", "block", "seed")
"""Fields of the recipe that are options of this command, too."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a saved network")
    recipe = parser.add_argument_group("the cut and the training")
    recipe.add_argument(
        "--sparsity", type=FRACTION, required=True, metavar="X", help="share of the edges cut by the end"
    )
    add_recipe_options(
        recipe,
        PRUNING,
        [name for name in NAMES if name != "sparsity"],
        learning_rate="from A in the first step towards B",
        epochs="passes over the data; nothing is cut in the last quarter",
    )
    add_run_options(parser, "mnist-pruned")


def run(args: argparse.Namespace) -> int:
    """Cut a saved network while it learns, and save it; return the exit status."""
    recipe = replace(PRUNING, **given_of(args))
    check_decay(recipe)
    net, data = load(args.model, args.data)
    for name in (MODEL, CHECKPOINT, f"{CHECKPOINT}.previous"):  # the files of the run that made MODEL
        replaced = Path(args.out) / name
        if os.path.exists(replaced) and replaced.samefile(
            args.model
        ):  # `learn` reports a folder that may not be entered
            expected = "another folder than that of MODEL, which would be replaced"
            raise Failure(f"argument --out: expected {expected}, got {args.out!r}")
    if np.isnan(net.graph.parameters).any():
        raise Failure(
            f"argument MODEL: {args.model} has weights or biases that are no numbers, of which none is the smallest"
        )
    configuration = {"model": args.model, **{name: getattr(recipe, name) for name in NAMES}}
    return learn(args, configuration, recipe, net, data, learned=True)
