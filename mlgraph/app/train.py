"""``python -m mlgraph.mnist train``: a network by a recipe."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from mlgraph.app.arguments import COUNT, COUNTS, DECAY, FRACTION, MOMENTUM, RATES, SEED, SIZES, Failure, one_of
from mlgraph.app.common import load_data
from mlgraph.app.learning import BLOCK, add_recipe_option, add_run_options, check_decay, given_of, learn
from mlgraph.app.recipe import METHODS, PRESETS, begun_with
from mlgraph.nonfinite import POLICIES
from mlgraph.ops import ACTIVATIONS

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    recipe = parser.add_argument_group("the network and its training")
    recipe.add_argument("--preset", type=one_of(*PRESETS), default="default", metavar="NAME",
                        help=f"where the other options start from: {', '.join(PRESETS)}")  # fmt: skip
    for name, kind, metavar, text in (
        ("hidden", SIZES, "SIZES", "neurons of each hidden layer, such as 300,100, or none"),
        ("activation", one_of(*ACTIVATIONS), "NAME", "of the hidden layers: " + ", ".join(ACTIVATIONS)),
        ("epochs", COUNT, "N", "passes over the data"),
        ("batch_size", COUNTS, "A:B", "examples in a step, from the first to the last"),
        ("learning_rate", RATES, "A:B", "from the first step to the last, smaller with dropout and adam, larger if sparse"),
        ("optimizer", one_of("sgd", "adam"), "NAME", "sgd or adam"),
        ("momentum", MOMENTUM, "X", "share of a step that goes on into the next"),
        ("weight_decay", DECAY, "X", "times the learning rate: share of themselves that weights lose at a step"),
        ("dropout", FRACTION, "X", "share of the hidden neurons left out of a step; a preset has less from 80 %% sparsity on"),
        ("weight_dropout", FRACTION, "X", "share of the hidden layers' edges left out of a step"),
        ("sparsity", FRACTION, "X", "share of the edges that is cut by the end"),
        ("method", one_of(*METHODS), "NAME", "how edges are cut: gradual (once and for all), set or rigl (and others grow)"),
        ("block", COUNT, "N", BLOCK),
        ("on_nonfinite", one_of(*POLICIES), "NAME", "what becomes of what is not finite: "
         "raise ends the run, skip leaves those examples out, disconnect cuts the neuron out"),
        ("seed", SEED, "N", "decides all that is random"),
    ):
        add_recipe_option(recipe, PRESETS["default"], name, kind, metavar, text)
    add_run_options(parser, "mnist-run")


def run(args: argparse.Namespace) -> int:
    """Train a network and save it; exit status."""
    given = given_of(args)
    recipe = begun_with(args.preset, given)
    for name in ("dropout", "weight_dropout"):
        if given.get(name) and not recipe.hidden:
            raise Failure(f"argument --{name.replace('_', '-')}: expected hidden layers to drop from, got none")
    if "method" in given and not recipe.sparsity:
        raise Failure("argument --method: expected --sparsity with it, which says how much is cut, got none")
    if recipe.block > 1 and not recipe.sparsity:
        raise Failure("argument --block: expected --sparsity with it, which says how much is cut, got none")
    check_decay(recipe)
    data = load_data(args.data)
    net = recipe.network(data.train_x.shape[1], data.n_classes)
    return learn(args, {"preset": args.preset, **asdict(recipe)}, recipe, net, data)
