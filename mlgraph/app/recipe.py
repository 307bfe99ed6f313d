"""Recipes: the hyperparameters that, with the data, determine a trained network, and their command-line options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import mlgraph
from mlgraph.app.arguments import COUNT, COUNTS, DECAY, FRACTION, MOMENTUM, RATES, SEED, SIZES, one_of
from mlgraph.graph.ops import ACTIVATIONS
from mlgraph.sparsity.gradual_pruning import GradualPruning
from mlgraph.sparsity.rewiring import SET, RigL
from mlgraph.sparsity.schedules import Schedule
from mlgraph.sparsity.scores import CRITERIA
from mlgraph.training.nonfinite import POLICIES


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a network and its training. The defaults are those of the command line."""

    hidden: tuple[int, ...] = (32,)
    activation: str = "leaky_relu"
    epochs: int = 10
    batch_size: tuple[int, int] = (128, 8)
    learning_rate: tuple[float, float] = (0.07, 0.0002)
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    dropout: float = 0.0  # in hidden layers
    weight_dropout: float = 0.0  # in hidden layers
    output_bias: bool = True
    sparsity: float = 0.0  # at the end of the training
    method: str = "gradual"  # a key of METHODS
    by: str = "path"  # criterion of the gradual method
    sparse_from: float = 0.1  # fraction of the training after which the gradual method starts to cut
    block: int = 1  # number of adjacent neurons that keep or lose a source together
    on_nonfinite: str = "raise"
    seed: int = 0

    def network(self, n_inputs: int, n_classes: int) -> mlgraph.Network:
        """Create the untrained network."""
        net = mlgraph.Network(n_inputs, seed=self.seed)
        for size in self.hidden:
            net.add_layer(size, activation=self.activation, dropout=self.dropout, weight_dropout=self.weight_dropout)
        net.add_layer(n_classes, activation="softmax", bias=self.output_bias)
        return net

    def schedule(self, initial: float) -> Schedule | None:
        """Create the schedule that cuts and grows edges; `initial` is the sparsity of the network before training."""
        if not self.sparsity:
            return None
        if self.method == "gradual":
            initial = min(initial, self.sparsity)
            return GradualPruning(self.sparsity, start=self.sparse_from, initial=initial, by=self.by, block=self.block)
        return METHODS[self.method](self.sparsity, block=self.block)

    def fit_options(self, net: mlgraph.Network) -> dict[str, Any]:
        """Arguments of ``net.fit`` that follow from the recipe."""
        names = ("epochs", "batch_size", "learning_rate", "optimizer", "momentum", "weight_decay", "seed")
        return {
            **{name: getattr(self, name) for name in names},
            "sparsify": self.schedule(net.sparsity),
            "on_nonfinite": self.on_nonfinite,
        }


METHODS: dict[str, Callable[..., Schedule]] = {"gradual": GradualPruning, "set": SET, "rigl": RigL}

PRESETS = {
    "default": Recipe(),
    "ml-rust": Recipe(weight_dropout=0.5, output_bias=False),
    "lenet-300-100": Recipe(
        hidden=(300, 100), epochs=60, batch_size=(128, 128), learning_rate=(0.05, 0.0002), dropout=0.2
    ),
}

PRUNING = Recipe(epochs=10, batch_size=(128, 128), learning_rate=(0.02, 0.0002), sparse_from=0.0)
"""Defaults of the command ``prune``."""

OPTIONS: dict[str, tuple[Callable[[str], Any], str, str]] = {
    "hidden": (SIZES, "SIZES", "sizes of the hidden layers, such as 300,100; or none"),
    "activation": (one_of(*ACTIVATIONS), "NAME", "activation of the hidden layers: " + ", ".join(ACTIVATIONS)),
    "epochs": (COUNT, "N", "passes over the training data"),
    "batch_size": (COUNTS, "A:B", "examples in a step: A at the first step, approaching B at the last"),
    "learning_rate": (
        RATES,
        "A:B",
        "learning rate: A at the first step, approaching B at the last; other defaults apply with adam, dropout or "
        "sparsity",
    ),
    "optimizer": (one_of("sgd", "adam"), "NAME", "sgd (with momentum) or adam"),
    "momentum": (MOMENTUM, "X", "fraction of each step that is added to the next; beta1 of adam"),
    "weight_decay": (DECAY, "X", "shrink the weights at each step by X times the learning rate"),
    "dropout": (
        FRACTION,
        "X",
        "fraction of the hidden neurons that each step leaves out; above 80 %% sparsity, presets reduce theirs",
    ),
    "weight_dropout": (FRACTION, "X", "fraction of the edges into hidden layers left out, resampled every 32 examples"),
    "sparsity": (FRACTION, "X", "fraction of the edges to cut during the training"),
    "method": (
        one_of(*METHODS),
        "NAME",
        "how to reach the sparsity: gradual (cut edges bit by bit), set or rigl (sparse from the start, moving edges)",
    ),
    "by": (
        one_of(*CRITERIA),
        "NAME",
        "what the gradual method cuts first: path (edges whose every path has a small weight), magnitude (the "
        "smallest weights), saliency (the smallest |weight x gradient|) or random edges",
    ),
    "block": (COUNT, "N", "cut in blocks: N adjacent neurons keep or lose a source together; 4 is fastest"),
    "on_nonfinite": (
        one_of(*POLICIES),
        "NAME",
        "what to do about an infinite or NaN value: raise (end the run), skip (leave out the example), or disconnect "
        "(cut off the neuron)",
    ),
    "seed": (SEED, "N", "seed of all random numbers"),
}
"""Recipe fields that are options: for each, its type, the name of its value and its help text."""

ADAM_RATES = (0.003, 0.00003)
"""Default learning rates of Adam."""

THINNED_RATES = {"dropout": (0.04, 0.0002), "weight_dropout": (0.05, 0.0003), "sparsity": (0.1, 0.0002)}
"""Default learning rates with dropout or sparsity.

Dropout adds noise, which calls for smaller steps. The rates for sparsity improve 784-32-10 by at
least 0.15 points from 50 % sparsity on, with each method.
"""

FULL_DROPOUT_TO = 0.8
"""Sparsity above which a preset reduces its dropout.

Above it, dropout falls with the square root of the fraction of edges left, as in Han et al. (2015,
Learning both weights and connections for efficient neural networks, section 3.2), who start at
sparsity 0. The value 0.8 was found by experiment.
"""


def begun_with(preset: str, given: dict[str, Any]) -> Recipe:
    """Replace fields of a preset by given ones; dropout and learning rate may depend on them unless given."""
    recipe = replace(PRESETS[preset], **given)
    if "dropout" not in given:
        left = min(1.0, (1 - recipe.sparsity) / (1 - FULL_DROPOUT_TO))
        recipe = replace(recipe, dropout=round(recipe.dropout * left**0.5, 3))
    if "learning_rate" in given:
        return recipe
    if recipe.optimizer == "adam":
        recipe = replace(recipe, learning_rate=ADAM_RATES)
    for name, rates in THINNED_RATES.items():
        if getattr(recipe, name) and recipe.learning_rate == Recipe.learning_rate:
            recipe = replace(recipe, learning_rate=rates)
    return recipe


def add_recipe_options(group: Any, recipe: Recipe, names: Iterable[str], **texts: str) -> None:
    """Add options for recipe fields with the defaults of `recipe`; `texts` overrides help texts of `OPTIONS`."""
    for name in names:
        kind, metavar, text = OPTIONS[name]
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=argparse.SUPPRESS,  # so that `given_of` sees which options were given
            metavar=metavar,
            help=f"{texts.get(name, text)} (default: {as_text(name, getattr(recipe, name))})",
        )


def add_network_options(group: Any, names: Iterable[str]) -> None:
    """Add ``--preset`` and the options of a new network."""
    group.add_argument(
        "--preset",
        type=one_of(*PRESETS),
        default="default",
        metavar="NAME",
        help=f"set of defaults for the options below: {', '.join(PRESETS)}",
    )
    add_recipe_options(group, PRESETS["default"], names)


def as_text(name: str, value: Any) -> str:
    """Write a field's value as on the command line."""
    values = value if isinstance(value, (tuple, list)) else [value]
    return (":" if OPTIONS[name][1] == "A:B" else ",").join(map(str, values)) or "none"


def given_of(args: argparse.Namespace) -> dict[str, Any]:
    """Recipe fields that were given on the command line."""
    return {field.name: getattr(args, field.name) for field in fields(Recipe) if hasattr(args, field.name)}
