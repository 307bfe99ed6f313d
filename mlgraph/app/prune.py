"""``python -m mlgraph.mnist prune``: cut edges of a saved network while it goes on training."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from mlgraph.app.arguments import FRACTION, Failure
from mlgraph.app.common import add_model_argument, load
from mlgraph.app.learning import FILES, add_run_options, check_decay, learn, previous_folder
from mlgraph.app.recipe import PRUNING, add_recipe_options, given_of

NAMES = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "sparsity", "by", "block", "seed")
"""Fields of a recipe that are options of this command."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model_argument(parser)
    recipe = parser.add_argument_group("pruning and training")
    recipe.add_argument(
        "--sparsity", type=FRACTION, required=True, metavar="X", help="fraction of the edges to cut (required)"
    )
    add_recipe_options(
        recipe,
        PRUNING,
        [name for name in NAMES if name != "sparsity"],
        learning_rate="learning rate: A at the first step, approaching B at the last",
        epochs="passes over the training data; the last quarter of them cuts nothing",
        momentum="fraction of each step that is added to the next",
        by="what to cut first: path (edges whose every path has a small weight), magnitude (the smallest weights), "
        "saliency (the smallest |weight x gradient|) or random edges",
    )
    add_run_options(parser, "mnist-pruned")


def run(args: argparse.Namespace) -> int:
    """Prune and train a saved network, and save the result; return the exit status."""
    recipe = replace(PRUNING, **given_of(args))
    check_decay(recipe)
    net, data = load(args.model, args.data)
    out = Path(args.out)
    for path in [folder / name for folder in (out, previous_folder(out)) for name in FILES]:
        if os.path.exists(path) and path.samefile(args.model):  # `learn` reports a folder that cannot be entered
            raise Failure(f"argument --out: {args.out!r} would replace MODEL; choose another folder")
    configuration = {"model": args.model, **{name: getattr(recipe, name) for name in NAMES}}
    return learn(args, configuration, recipe, net, data, pretrained=True)
