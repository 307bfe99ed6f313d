"""``python -m mlgraph.mnist train``: train a new network."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from mlgraph.app.common import load_data
from mlgraph.app.learning import add_run_options, check_decay, check_options, learn
from mlgraph.app.recipe import OPTIONS, add_network_options, begun_with, given_of


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    recipe = parser.add_argument_group("network and training")
    add_network_options(recipe, OPTIONS)
    add_run_options(parser, "mnist-run")


def run(args: argparse.Namespace) -> int:
    """Train a network and save it; return the exit status."""
    given = given_of(args)
    recipe = begun_with(args.preset, given)
    check_options(given, recipe)
    check_decay(recipe)
    data = load_data(args.data)
    net = recipe.network(data.train_x.shape[1], data.n_classes)
    return learn(args, {"preset": args.preset, **asdict(recipe)}, recipe, net, data)
