"""Pictures of neurons: what each reads, its weight in the logit of each class, and the images that excite it most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Int64
from mlgraph._support.checks import StrOrBytesPath
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.engine.trace import trace
from mlgraph.graph.views import Neuron
from mlgraph.models.network import Network
from mlgraph.pictures.plotting import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Portrait", "draw", "portraits"]

Floats = npt.NDArray[np.floating[Any]]

SAMPLE = 1000
"""Examples over which derivatives are averaged, for neurons more than one layer away from pixels or classes."""

SHOWN = 24
"""At most so many images that excite a neuron most are shown."""

POSITIVE, NEGATIVE = "#2f6db3", "#c8394b"
TOP = 0.6  # inches above the neurons
DPI = 110
MOST_NAMED = 30  # classes


class Portrait(NamedTuple):
    """What a picture of a neuron shows.

    Attributes
    ----------
    neuron : Neuron
    input_weights : float, shape (inputs,)
        Its weights; for a neuron that reads other neurons, the mean derivative of its value with respect to each input.
    logit_weights : float, shape (classes,)
        Its weight in each logit, or the mean derivative of the logit with respect to its value.
    class_means : float, shape (classes,)
        Its mean value for the images of each class.
    top_examples : int64, shape (images,)
        The examples with its highest values, highest first; for a relu or leaky_relu, only those in which it is active.
    reads_inputs, feeds_outputs : bool
        Whether `input_weights` and `logit_weights` are weights, not derivatives.
    is_output : bool
        Whether it is a logit itself.
    """

    neuron: Neuron
    input_weights: Floats
    logit_weights: Floats
    class_means: Floats
    top_examples: Int64
    reads_inputs: bool
    feeds_outputs: bool
    is_output: bool


def portraits(net: Network, neurons: Sequence[Neuron], x: npt.NDArray[Any], y: npt.NDArray[Any]) -> list[Portrait]:
    """The portraits of neurons of one layer, over some data.

    Parameters
    ----------
    neurons : sequence of Neuron
        Neurons that are alive.
    x, y : arrays
        Examples and their labels.
    """
    graph, outputs = net.graph, net.output_ids
    ids, classes = [neuron.id for neuron in neurons], len(outputs)
    values = net.trace(x, None, neurons).values
    counts = np.maximum(np.bincount(y, minlength=classes), 1)
    sums = np.zeros((classes, len(ids)))
    np.add.at(sums, y, values)
    few = Examples(x[:SAMPLE], graph.n_inputs)

    logit_weights = np.stack([_derivative(net, few, output, ids) for output in outputs])
    top = np.argsort(-values, axis=0, kind="stable")[:SHOWN]
    read_inside = np.zeros(len(graph), bool)
    read_inside[graph.topology().sources_of(np.setdiff1d(np.arange(len(graph)), outputs))] = True
    found = []
    for j, neuron in enumerate(neurons):
        sources = graph.sources_of(neuron.id)
        direct = bool(np.isin(sources, graph.input_ids).all())
        input_weights: Floats = np.zeros(graph.n_inputs)
        if direct:
            input_weights[graph.records[sources]] = neuron.weights
        else:
            input_weights = _derivative(net, few, neuron.id, graph.input_ids)
        to_outputs = not read_inside[neuron.id]
        excited = top[:, j]
        if neuron.activation in ("relu", "leaky_relu"):
            excited = excited[values[excited, j] > 0]
        weights, means = (input_weights, logit_weights[:, j]), sums[:, j] / counts
        found.append(Portrait(neuron, *weights, means, excited, direct, to_outputs, neuron.id in outputs))
    return found


def _derivative(net: Network, examples: Examples, of: int, nodes: Sequence[int]) -> Floats:
    """Mean derivative of one node with respect to others."""
    ones = np.ones((len(examples), 1), np.float32)
    found = trace(net.graph, examples, [of], nodes, Objective.cotangent([of], ones))
    assert found.adjoints is not None
    return np.asarray(found.adjoints.mean(axis=0, dtype=np.float64))


def draw(
    drawn: Sequence[Portrait],
    titles: Sequence[str],
    images: npt.NDArray[Any],
    image_shape: tuple[int, int],
    path: StrOrBytesPath | None = None,
    *,
    title: str = "",
) -> Figure:
    """Draw neurons side by side; one alone is drawn large.

    Parameters
    ----------
    drawn : sequence of Portrait
    titles : sequence of str
        One line for each.
    images : array, shape (examples, inputs)
        The data that `portraits` was given.
    image_shape : (int, int)
        Rows and columns of an image.
    path : path, optional
        The file to write, atomically: .svg, .pdf or .png, the last also without a suffix.
    title : str
        Text above the picture.

    Raises
    ------
    ImportError
        If matplotlib is not installed. The message names the extra to install.
    """
    alone = len(drawn) == 1
    columns, scale, (down, across) = (1, 2.8, (4, 6)) if alone else (min(4, len(drawn)), 1.0, (2, 3))
    width, height = (4.6 if alone else 3.65) * scale, scale + 0.3
    size = (columns * width + 0.2, -(-len(drawn) // columns) * height + TOP + 0.1)
    figure = new_figure(size, DPI)
    kinds = [
        "weight" if are_weights else "mean derivative"
        for are_weights in (drawn[0].reads_inputs, drawn[0].feeds_outputs)
    ]
    are_outputs = drawn[0].is_output
    parts = [f"its {kinds[0]} for each pixel, blue excites, red inhibits"]
    parts += [] if are_outputs else [f"its {kinds[1]} in the logit of each class"]
    parts += ["its mean value for images of each class"] if alone or are_outputs else []
    parts += ["the images that excite it most; ±: the scale"]
    figure.text(0.1 / size[0], 1 - 0.08 / size[1], title, va="top", fontsize=11, weight="bold")
    figure.text(
        0.1 / size[0], 1 - 0.32 / size[1], "From left to right: " + "; ".join(parts) + ".", va="top", fontsize=8
    )

    def axes(i: int, x: float, w: float) -> Any:
        # In cell i, whose contents are 1 high, from x on.
        left, below = 0.1 + i % columns * width + x * scale, TOP + (i // columns + 1) * height - 0.08 * scale
        return figure.add_axes((left / size[0], 1 - below / size[1], w * scale / size[0], scale / size[1]))

    for i, (portrait, line) in enumerate(zip(drawn, titles, strict=True)):
        left = axes(i, 0, 1)
        weights = np.abs(portrait.input_weights)
        most = float(np.quantile(weights[np.isfinite(weights)], 0.998)) if np.isfinite(weights).any() else 0.0
        reach = most or 1.0
        left.imshow(
            portrait.input_weights.reshape(image_shape), cmap="RdBu", vmin=-reach, vmax=reach, interpolation="nearest"
        )
        left.set_title(line, loc="left", fontsize=8 if not alone else 10, pad=3)
        _bare(left)
        font = 5.5 * scale**0.4
        _scale(left, most, font)
        bars = [
            *([] if are_outputs else [portrait.logit_weights]),
            *([portrait.class_means] if alone or are_outputs else []),
        ]
        for k, values in enumerate(bars):
            _bars(axes(i, 1.12 + 0.95 * k, 0.75), values, font)
        right = axes(i, 2.95 if len(bars) == 2 else 1.97, across / down)
        montage = np.zeros((down * across, *image_shape), images.dtype)
        best = portrait.top_examples[: len(montage)]
        montage[: len(best)] = images[best].reshape(-1, *image_shape)
        tiled = montage.reshape(down, across, *image_shape).swapaxes(1, 2).reshape(down * image_shape[0], -1)
        right.imshow(tiled, cmap="gray_r", interpolation="nearest")
        for k in range(1, down):
            right.axhline(k * image_shape[0] - 0.5, color="0.8", lw=0.5)
        for k in range(1, across):
            right.axvline(k * image_shape[1] - 0.5, color="0.8", lw=0.5)
        _bare(right)
        if not len(best):
            right.text(
                0.5, 0.5, "never active", transform=right.transAxes, ha="center", va="center", fontsize=1.3 * font
            )
    if path is not None:
        save_figure(figure, path)
    return figure


def _bars(axes: Any, values: Floats, font: float) -> None:
    classes = np.arange(len(values))
    values = np.where(np.isfinite(values), values, 0.0)  # a value that is not finite gets no bar
    axes.barh(classes, values, color=np.where(values < 0, NEGATIVE, POSITIVE), height=0.8)
    axes.axvline(0, color="0.4", lw=0.6)
    most = float(np.abs(values).max(initial=0.0))
    reach = 1.1 * most or 1.0
    axes.set(xlim=(-reach, reach), ylim=(len(values) - 0.4, -0.6))
    axes.set_xticks([])
    named = classes if len(classes) <= MOST_NAMED else classes[:0]  # the names of more would be one black bar
    axes.set_yticks(named, [str(c) for c in named], fontsize=font)
    axes.tick_params(length=0, pad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _scale(axes, most, font)


def _scale(axes: Any, most: float, font: float) -> None:
    """Write the value that the darkest colour, or the longest bar, stands for."""
    axes.text(1, -0.01, f"±{most:.2g}", transform=axes.transAxes, ha="right", va="top", fontsize=font, color="0.35")


def _bare(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)
        spine.set_color("0.6")
