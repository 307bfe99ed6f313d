"""Portraits of neurons: input weights, weights in the logit of each class, and the images that excite them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Int64
from mlgraph._support.checks import StrOrBytesPath, integer_row, real_array
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.engine.trace import trace
from mlgraph.graph.ids import ids_of
from mlgraph.graph.ops import NEURON
from mlgraph.graph.views import Neuron, name_of
from mlgraph.models.classes import label_array, numbered
from mlgraph.models.network import Network
from mlgraph.models.running import read
from mlgraph.models.scaling import as_data
from mlgraph.pictures.plotting import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.floating[Any]]

SAMPLE = 1000
"""Number of examples over which derivatives are averaged."""

MOST_IMAGES = 24
"""Maximum number of images in a portrait."""

POSITIVE, NEGATIVE = "#2f6db3", "#c8394b"
TOP = 0.6  # inches above the neurons
DPI = 110
MOST_NAMED = 30  # classes whose names fit beside the bars


class Portrait(NamedTuple):
    """What a picture of a neuron shows.

    Attributes
    ----------
    neuron : Neuron
    input_weights : float, shape (inputs,)
        Weights of its edges from the inputs; for a neuron that reads other neurons, the mean
        derivative of its value with respect to each input.
    logit_weights : float, shape (classes,)
        Weights of its edges into the logits, or the mean derivative of each logit with respect to
        its value.
    class_means : float, shape (classes,)
        Its mean value over the images of each class.
    top_examples : int64, shape (images,)
        Indices of the examples with its highest values, highest first; for relu and leaky_relu,
        positive values only.
    reads_inputs, feeds_outputs : bool
        Whether `input_weights` and `logit_weights` are weights rather than derivatives.
    is_output : bool
        Whether the neuron is itself a logit.
    """

    neuron: Neuron
    input_weights: Floats
    logit_weights: Floats
    class_means: Floats
    top_examples: Int64
    reads_inputs: bool
    feeds_outputs: bool
    is_output: bool


def neuron_portraits(net: Network, neurons: Sequence[Neuron], x: npt.ArrayLike, y: npt.ArrayLike) -> list[Portrait]:
    """Compute portraits of neurons over labelled images.

    Parameters
    ----------
    net : Network
        A network with one output for each class.
    neurons : sequence of Neuron
        Live neurons of `net`.
    x : array_like, shape (examples, inputs)
        Images.
    y : array_like of integers, shape (examples,)
        The class of each image.

    Returns
    -------
    list of Portrait
        One for each neuron.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> net = mlgraph.Network(4, seed=0)
    >>> hidden = net.add_layer(2)
    >>> output = net.add_layer(2, activation="softmax")
    >>> images, labels = np.eye(4), [0, 0, 1, 1]
    >>> portraits = mlgraph.pictures.neuron_portraits(net, hidden.neurons, images, labels)
    >>> portraits[0].input_weights.shape, portraits[0].class_means.shape
    ((4,), (2,))
    """
    if not isinstance(net, Network):
        raise TypeError(f"net: expected a Network, got {type(net).__name__}")
    graph, outputs = net.graph, net.output_ids
    ids = ids_of(graph, "neurons", neurons, 1)
    if not graph.alive()[ids].all() or (graph.codes[ids] < NEURON).any():
        raise ValueError("neurons: expected live neurons, got other nodes")
    n_classes = len(outputs)
    neurons = [Neuron(graph, i) for i in ids]
    values = net.trace(x, None, neurons).values
    labels = integer_row("y", y if net.classes is None else numbered(label_array(y, "y"), net.classes, n_classes, "y"))
    if len(labels) != len(values) or ((labels < 0) | (labels >= n_classes)).any():
        raise ValueError(f"y: expected {len(values)} classes from 0 to {n_classes - 1}, one for each example")
    counts = np.maximum(np.bincount(labels, minlength=n_classes), 1)
    sums = np.zeros((n_classes, len(ids)))
    np.add.at(sums, labels, values)
    data = as_data(x)
    sample = read(net, data._replace(array=data.array[:SAMPLE]), net.sinks)

    logit_weights = np.stack([_mean_derivative(net, sample, output, ids) for output in outputs])
    top = np.argsort(-values, axis=0, kind="stable")[:MOST_IMAGES]
    has_inner_reader = np.zeros(len(graph), bool)
    has_inner_reader[graph.topology().sources_of(np.setdiff1d(np.arange(len(graph)), outputs))] = True
    portraits = []
    for j, neuron in enumerate(neurons):
        sources = graph.sources_of(neuron.id)
        reads_inputs = bool(np.isin(sources, graph.input_ids).all())
        if reads_inputs:
            input_weights: Floats = np.zeros(graph.n_inputs)
            input_weights[graph.records[sources]] = neuron.weights
        else:
            input_weights = _mean_derivative(net, sample, neuron.id, graph.input_ids)
        top_examples = top[:, j]
        if neuron.activation in ("relu", "leaky_relu"):
            top_examples = top_examples[values[top_examples, j] > 0]
        portrait = Portrait(
            neuron,
            input_weights,
            logit_weights[:, j],
            class_means=sums[:, j] / counts,
            top_examples=top_examples,
            reads_inputs=reads_inputs,
            feeds_outputs=not has_inner_reader[neuron.id],
            is_output=neuron.id in outputs,
        )
        portraits.append(portrait)
    return portraits


def _mean_derivative(net: Network, examples: Examples, of: int, nodes: Sequence[int]) -> Floats:
    """Mean derivative of a node with respect to other nodes."""
    ones = np.ones((len(examples), 1), np.float32)
    traced = trace(net.graph, examples, [of], nodes, Objective.cotangent([of], ones))
    assert traced.adjoints is not None
    return np.asarray(traced.adjoints.mean(axis=0, dtype=np.float64))


def draw_portraits(
    portraits: Sequence[Portrait],
    images: npt.ArrayLike,
    image_shape: tuple[int, int],
    path: StrOrBytesPath | None = None,
    *,
    titles: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Draw portraits side by side; a single one is drawn large.

    Parameters
    ----------
    portraits : sequence of Portrait
        At least one, all of neurons of one layer.
    images : array_like, shape (examples, inputs)
        The images that `neuron_portraits` was given.
    image_shape : (int, int)
        Height and width of an image in pixels.
    path : path, optional
        File to write, atomically: .png, .svg or .pdf; without a suffix, PNG.
    titles : sequence of str, optional
        A line above each portrait. Defaults to the names of the neurons.
    title : str
        Text above the picture.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed. The message says how to install it.
    TypeError, ValueError
        If an argument is not as described.
    OSError
        If the file cannot be written; an old file at `path` is still there.

    Examples
    --------
    >>> net = mlgraph.Network(4, seed=0)
    >>> hidden = net.add_layer(2)
    >>> output = net.add_layer(2, activation="softmax")
    >>> images, labels = np.eye(4), [0, 0, 1, 1]
    >>> portraits = mlgraph.pictures.neuron_portraits(net, hidden.neurons, images, labels)
    >>> figure = mlgraph.pictures.draw_portraits(portraits, images, (2, 2), "neurons.png")
    """
    if not portraits:
        raise ValueError("portraits: expected at least one")
    if titles is None:
        titles = [name_of(portrait.neuron.graph, portrait.neuron.id, short=True) for portrait in portraits]
    if len(titles) != len(portraits):
        raise ValueError(f"titles: expected {len(portraits)}, one for each portrait, got {len(titles)}")
    pixels = real_array("images", images)
    if pixels.ndim != 2 or pixels.shape[1] != image_shape[0] * image_shape[1]:
        expected = f"(examples, {image_shape[0]} * {image_shape[1]})"
        raise ValueError(f"images: expected shape {expected}, got {pixels.shape}")
    alone = len(portraits) == 1
    columns, scale, (down, across) = (1, 2.8, (4, 6)) if alone else (min(4, len(portraits)), 1.0, (2, 3))
    width, height = (4.6 if alone else 3.65) * scale, scale + 0.3
    size = (columns * width + 0.2, -(-len(portraits) // columns) * height + TOP + 0.1)
    figure = new_figure(size, DPI)
    are_outputs = portraits[0].is_output
    shows_means = alone or are_outputs
    figure.text(0.1 / size[0], 1 - 0.08 / size[1], title, va="top", fontsize=11, weight="bold")
    figure.text(0.1 / size[0], 1 - 0.32 / size[1], _legend(portraits[0], shows_means), va="top", fontsize=8)

    def axes(i: int, x: float, w: float) -> Any:
        """Axes in cell i, which is 1 high, from x to x + w."""
        left, below = 0.1 + i % columns * width + x * scale, TOP + (i // columns + 1) * height - 0.08 * scale
        return figure.add_axes((left / size[0], 1 - below / size[1], w * scale / size[0], scale / size[1]))

    font = 5.5 * scale**0.4
    for i, (portrait, line) in enumerate(zip(portraits, titles, strict=True)):
        left = axes(i, 0, 1)
        magnitudes = np.abs(portrait.input_weights[np.isfinite(portrait.input_weights)])
        most = float(np.quantile(magnitudes, 0.998)) if len(magnitudes) else 0.0
        reach = most or 1.0
        weights = portrait.input_weights.reshape(image_shape)
        left.imshow(weights, cmap="RdBu", vmin=-reach, vmax=reach, interpolation="nearest")
        left.set_title(line, loc="left", fontsize=10 if alone else 8, pad=3)
        _remove_ticks(left)
        _write_scale(left, most, font)
        bars = [] if are_outputs else [portrait.logit_weights]
        if shows_means:
            bars.append(portrait.class_means)
        for k, values in enumerate(bars):
            _draw_bars(axes(i, 1.12 + 0.95 * k, 0.75), values, font)
        right = axes(i, 2.95 if len(bars) == 2 else 1.97, across / down)
        montage = np.zeros((down * across, *image_shape), pixels.dtype)
        best = portrait.top_examples[: len(montage)]
        montage[: len(best)] = pixels[best].reshape(-1, *image_shape)
        tiled = montage.reshape(down, across, *image_shape).swapaxes(1, 2).reshape(down * image_shape[0], -1)
        right.imshow(tiled, cmap="gray_r", interpolation="nearest")
        for k in range(1, down):
            right.axhline(k * image_shape[0] - 0.5, color="0.8", lw=0.5)
        for k in range(1, across):
            right.axvline(k * image_shape[1] - 0.5, color="0.8", lw=0.5)
        _remove_ticks(right)
        if not len(best):
            right.text(
                0.5, 0.5, "never active", transform=right.transAxes, ha="center", va="center", fontsize=1.3 * font
            )
    if path is not None:
        save_figure(figure, path)
    return figure


def _legend(portrait: Portrait, shows_means: bool) -> str:
    parts = [f"{'weight' if portrait.reads_inputs else 'mean derivative'} for each pixel (blue excites, red inhibits)"]
    if not portrait.is_output:
        parts.append(f"{'weight' if portrait.feeds_outputs else 'mean derivative'} in the logit of each class")
    if shows_means:
        parts.append("mean value for the images of each class")
    parts.append("the images that excite the neuron most. ± gives the scale")
    return "From left to right: " + "; ".join(parts) + "."


def _draw_bars(axes: Any, values: Floats, font: float) -> None:
    classes = np.arange(len(values))
    values = np.where(np.isfinite(values), values, 0.0)  # infinite and NaN values get no bar
    axes.barh(classes, values, color=np.where(values < 0, NEGATIVE, POSITIVE), height=0.8)
    axes.axvline(0, color="0.4", lw=0.6)
    most = float(np.abs(values).max(initial=0.0))
    reach = 1.1 * most or 1.0
    axes.set(xlim=(-reach, reach), ylim=(len(values) - 0.4, -0.6))
    axes.set_xticks([])
    named = classes if len(classes) <= MOST_NAMED else classes[:0]
    axes.set_yticks(named, [str(c) for c in named], fontsize=font)
    axes.tick_params(length=0, pad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _write_scale(axes, most, font)


def _write_scale(axes: Any, most: float, font: float) -> None:
    """Write the value of the darkest colour, or of the longest bar."""
    axes.text(1, -0.01, f"±{most:.2g}", transform=axes.transAxes, ha="right", va="top", fontsize=font, color="0.35")


def _remove_ticks(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)
        spine.set_color("0.6")
