"""All that decides how a network turns out, except the data: recipes, and their options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import mlgraph
from mlgraph.app.arguments import COUNT, COUNTS, DECAY, FRACTION, MOMENTUM, RATES, SEED, SIZES, one_of
from mlgraph.graph.ops import ACTIVATIONS
from mlgraph.sparsity.schedules import SET, GradualPruning, RigL, Schedule
from mlgraph.sparsity.scores import CRITERIA
from mlgraph.training.nonfinite import POLICIES

__all__ = ["METHODS", "OPTIONS", "PRESETS", "PRUNING", "Recipe", "add_recipe_options", "begun_with", "given_of"]


@dataclass(frozen=True)
class Recipe:
    """All that decides how a network turns out, except the data. Its defaults are those of the command line."""

    hidden: tuple[int, ...] = (32,)
    activation: str = "leaky_relu"
    epochs: int = 10
    batch_size: tuple[int, int] = (128, 8)
    learning_rate: tuple[float, float] = (0.07, 0.0002)
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    dropout: float = 0.0  # of the hidden layers, like the next
    weight_dropout: float = 0.0
    output_bias: bool = True
    sparsity: float = 0.0  # at the end of the training
    method: str = "gradual"  # of reaching this sparsity
    by: str = "magnitude"  # what the gradual method cuts first
    sparse_from: float = 0.1  # share of the training before which the gradual method cuts nothing
    block: int = 1  # neurons that keep or lose a source together
    on_nonfinite: str = "raise"
    seed: int = 0

    def network(self, n_inputs: int, n_classes: int) -> mlgraph.Network:
        """The network before it has learned anything."""
        net = mlgraph.Network(n_inputs, seed=self.seed)
        for size in self.hidden:
            net.add_layer(size, activation=self.activation, dropout=self.dropout, weight_dropout=self.weight_dropout)
        net.add_layer(n_classes, activation="softmax", bias=self.output_bias)
        return net

    def schedule(self, initial: float) -> Schedule | None:
        """The schedule that cuts and grows edges during the training; `initial`: the network's sparsity before."""
        if not self.sparsity:
            return None
        if self.method == "gradual":
            initial = min(initial, self.sparsity)
            return GradualPruning(self.sparsity, start=self.sparse_from, initial=initial, by=self.by, block=self.block)
        return METHODS[self.method](self.sparsity, block=self.block)


METHODS: dict[str, Callable[..., Schedule]] = {"gradual": GradualPruning, "set": SET, "rigl": RigL}

PRESETS = {
    "default": Recipe(),
    "ml-rust": Recipe(weight_dropout=0.5, output_bias=False),
    "lenet-300-100": Recipe(
        hidden=(300, 100), epochs=60, batch_size=(128, 128), learning_rate=(0.05, 0.0002), dropout=0.2
    ),
}

PRUNING = Recipe(epochs=10, batch_size=(128, 128), learning_rate=(0.02, 0.0002), sparse_from=0.0)
"""The recipe whose values are the defaults of ``prune``."""

OPTIONS: dict[str, tuple[Callable[[str], Any], str, str]] = {
    "hidden": (SIZES, "SIZES", "sizes of the hidden layers, such as 300,100, or none"),
    "activation": (one_of(*ACTIVATIONS), "NAME", "activation of the hidden layers: " + ", ".join(ACTIVATIONS)),
    "epochs": (COUNT, "N", "passes over the data"),
    "batch_size": (COUNTS, "A:B", "examples in a step, from A in the first to B in the last"),
    "learning_rate": (
        RATES,
        "A:B",
        "from A in the first step towards B; the default depends on dropout, optimizer and sparsity",
    ),
    "optimizer": (one_of("sgd", "adam"), "NAME", "sgd or adam"),
    "momentum": (MOMENTUM, "X", "share of each step that carries over into the next; beta1 of adam"),
    "weight_decay": (DECAY, "X", "each step shrinks weights by the share X times the learning rate"),
    "dropout": (
        FRACTION,
        "X",
        "share of the hidden neurons left out of each step; a preset has less beyond 80 %% sparsity",
    ),
    "weight_dropout": (FRACTION, "X", "share of the hidden layers' edges left out, drawn anew for every 32 examples"),
    "sparsity": (FRACTION, "X", "share of the edges cut by the end"),
    "method": (one_of(*METHODS), "NAME", "how edges are cut: gradual (for good), set or rigl (as many others grow)"),
    "by": (
        one_of(*CRITERIA),
        "NAME",
        "which edges the gradual method cuts first: those of the least magnitude or saliency "
        "(|weight x gradient|), or at random",
    ),
    "block": (COUNT, "N", "adjacent neurons that keep or lose a source together; 4 run faster than others"),
    "on_nonfinite": (
        one_of(*POLICIES),
        "NAME",
        "what to do about numbers that are not finite: "
        "raise ends the run, skip leaves those examples out, disconnect cuts the neuron out",
    ),
    "seed": (SEED, "N", "determines all that is random"),
}
"""Fields of a recipe that are options: the type of each, the name of its value, and its help."""

ADAM_RATES = (0.003, 0.00003)
"""Learning rates of Adam if no others are given."""

THINNED_RATES = {"dropout": (0.04, 0.0002), "weight_dropout": (0.05, 0.0003), "sparsity": (0.1, 0.0002)}
"""Learning rates if no others are given and something is dropped, whose noise calls for smaller steps, or cut: for 784-32-10
from 50 % sparsity on better by 0.15 points or more, by each method."""

FULL_DROPOUT_TO = 0.8
"""Sparsity up to which a preset's dropout is not reduced. Beyond it, dropout falls with the root of the share of edges left,
as in Han et al. (2015, Learning both weights and connections for efficient neural networks, 3.2), who begin at 0; this value
is measured."""


def begun_with(preset: str, given: dict[str, Any]) -> Recipe:
    """A preset with given fields replaced; dropout and learning rate, if not given, may follow from these."""
    recipe = replace(PRESETS[preset], **given)
    if "dropout" not in given:
        left = min(1.0, (1 - recipe.sparsity) / (1 - FULL_DROPOUT_TO))
        recipe = replace(recipe, dropout=round(recipe.dropout * left**0.5, 3))
    if recipe.optimizer == "adam" and "learning_rate" not in given:
        recipe = replace(recipe, learning_rate=ADAM_RATES)
    for name, rates in THINNED_RATES.items():
        if getattr(recipe, name) and recipe.learning_rate == Recipe.learning_rate and "learning_rate" not in given:
            recipe = replace(recipe, learning_rate=rates)
    return recipe


def add_recipe_options(group: Any, recipe: Recipe, names: Iterable[str], **texts: str) -> None:
    """Add options for fields of a recipe, with the defaults of `recipe`; `texts` replaces the help of some of `OPTIONS`."""
    for name in names:
        (kind, metavar, text), value = OPTIONS[name], getattr(recipe, name)
        default = (":" if metavar == "A:B" else ",").join(map(str, value if isinstance(value, tuple) else [value]))
        # Suppressed, to tell apart which options were given; the preset decides the others.
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=argparse.SUPPRESS,
            metavar=metavar,
            help=f"{texts.get(name, text)} (default: {default})",
        )


def given_of(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a recipe that are given."""
    return {field.name: getattr(args, field.name) for field in fields(Recipe) if hasattr(args, field.name)}
