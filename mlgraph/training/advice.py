"""What `fit` says about targets out of reach, and about data whose scale made a run diverge."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

from mlgraph._support.array_types import Float32, Float64
from mlgraph._support.checks import level_outside
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import SQUARED, Objective
from mlgraph.graph.views import neuron_code
from mlgraph.models.history import History

if TYPE_CHECKING:
    from mlgraph.models.model import Model

GROWTH = 10
"""A run has diverged if the loss of its last epoch is so many times that of its first step."""

WIDE = 10
"""Root mean square from which the numbers of a column count as large; of standardized columns it is 1."""

TOO_WIDE = 50
"""Root mean square of a column above which the first run of a model gives a warning.

Ages are about that large, and a small network learns them worse than standardized ones, with Adam, too.
"""

STANDARDIZE = "fit a new network with standardize=True, or put scikit-learn's StandardScaler before it"

LOWER_RATE = "a lower learning rate may help"

BOUNDS = {
    "relu": (0, np.inf),
    "elu": (-1, np.inf),
    "gelu": (-0.17, np.inf),
    "silu": (-0.2785, np.inf),
    "softplus": (0, np.inf),
    "sigmoid": (0, 1),
    "tanh": (-1, 1),
}
"""Lowest and highest output of the activations that do not reach all numbers."""


def warn_of_columns(examples: Examples) -> None:
    """Warn of columns with large numbers that are not standardized."""
    if TOO_WIDE < examples.largest < np.inf and (columns := wide_columns(examples, TOO_WIDE)):
        _warn(f"the numbers in {columns} are large, which slows learning; {STANDARDIZE}")


def warn_of_targets(model: Model, objective: Objective, what: str = "y") -> None:
    """Warn of targets that the outputs cannot reach, and of labels for outputs without softmax."""
    target, graph = objective.target, model.graph
    if objective.loss not in SQUARED or target is None or not target.size:
        return
    if objective.label is not None:
        hint = f'add_layer({target.shape[1]}, "softmax") is made for labels'
        _warn(f"{what}: labels are learnt as targets 0 and 1 of the squared error; {hint}")
        return
    for activation, (lowest, highest) in BOUNDS.items():
        outputs = target[:, graph.codes[model.output_ids] == neuron_code(activation)]
        far = outputs[(outputs < lowest) | (outputs > highest)]
        if far.size:
            reach = f"at least {lowest}" if highest == np.inf else f"from {lowest} to {highest}"
            found = f"{far.size} of {outputs.size} targets are not, for example {far[0]:.6g}"
            _warn(f'{what}: outputs of {activation} are {reach}, and {found}; the activation "identity" has no bounds')


def warn_of_divergence(history: History, examples: Examples, objective: Objective) -> None:
    """Warn if the loss has grown by more than `GROWTH` since the first step, and is worse than that of a guess.

    The first batch of a network that has learnt before may be an easy one.
    """
    if not len(history.epoch_loss):
        return
    first, last = history.batch_loss[0], history.epoch_loss[-1]
    if 0 < first < last / GROWTH and last > _loss_of_a_guess(objective):  # a loss that is a node may be negative
        cause = scale_to_blame(examples, objective) or LOWER_RATE
        growth = f"the loss of the first step was {first:.3g}, that of the last epoch is {last:.3g}"
        _warn(f"fit: the run diverged: {growth}; {cause}")


def _loss_of_a_guess(objective: Objective) -> float:
    """The mean loss of outputs that are always 0; 0 for a loss that is a node."""
    target, n_outputs = objective.target, len(objective.nodes) - 1
    weight = 1.0 if objective.weight is None else float(objective.weight.mean(dtype=np.float64))
    if objective.loss == "softmax_cross_entropy":
        total = 1.0 if target is None else float(target.sum(axis=1).mean(dtype=np.float64))
        return weight * total * math.log(n_outputs)
    if objective.loss == "binary_cross_entropy":
        return weight * math.log(2) * n_outputs
    if objective.loss in SQUARED:
        squares = 1.0 if target is None else float(np.square(target, dtype=np.float64).sum(axis=1).mean())
        return weight * squares / (n_outputs if objective.loss == "mse" else 1)
    return 0.0


def scale_to_blame(examples: Examples, objective: Objective) -> str:
    """Which columns or targets have large numbers, and what to do about them; "" if none has."""
    if columns := wide_columns(examples, WIDE):
        return f"the numbers in {columns} are large: {STANDARDIZE}"
    size = root_mean_square(objective.target)
    if (size > WIDE).any():
        return f"the targets are large (about {size.max():.3g}): divide them by that"
    return ""


def wide_columns(examples: Examples, least: float) -> str:
    """The columns whose root mean square is above a limit, the largest first; "" if there is none."""
    size = root_mean_square(examples.floats)
    order = np.argsort(-size)[: np.count_nonzero(size > least)]
    about = {i: [*filter(None, [examples.name_of(i)]), f"about {size[i]:.3g}"] for i in order[:3].tolist()}
    columns = ", ".join(f"{i} ({', '.join(about[i])})" for i in about) + ", ..." * (len(order) > 3)
    return f"column{'s' * (len(order) > 1)} {columns} of {examples.what}" if about else ""


def root_mean_square(x: Float32 | None) -> Float64:
    """Of each column; empty if there is no column."""
    if x is None or not x.size:
        return np.zeros(0)
    squares: Float64 = np.einsum("ij,ij->j", x, x, dtype=np.float64)  # without a copy of all data in float64
    return np.sqrt(squares / len(x))


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=level_outside())
