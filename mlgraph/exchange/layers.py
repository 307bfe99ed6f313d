"""Networks of layers as arrays, for libraries that know nothing but layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mlgraph._support.array_types import Bool, Float32
from mlgraph.engine.losses import CROSS_ENTROPIES
from mlgraph.graph.ops import OPS
from mlgraph.graph.views import name_of
from mlgraph.models.network import Network


class LayerArrays(NamedTuple):
    """One layer as arrays.

    Attributes
    ----------
    weights : float32, shape (neurons, sources)
    mask : bool, shape (neurons, sources)
        Where there is an edge; the weights elsewhere do not count.
    biases : float32, shape (neurons,)
        NaN for a neuron without a bias.
    activation : str
        As for `Network.add_layer`.
    dropout : float
    """

    weights: Float32
    mask: Bool
    biases: Float32
    activation: str
    dropout: float = 0.0


def estimator_hint(model: Any) -> str:
    """What an error about a model says at its end if that is an estimator or a Pipeline of scikit-learn."""
    is_estimator = hasattr(model, "model_") or hasattr(model, "named_steps")
    return "; exchange.from_sklearn makes a network of it" if is_estimator else ""


def arrays_of(model: Any, what: str) -> list[LayerArrays]:
    """The layers of a network that they describe whole; a TypeError or ValueError for other models."""
    if not isinstance(model, Network):
        hint = "; to_onnx and to_networkx take any model" if hasattr(model, "graph") else estimator_hint(model)
        raise TypeError(f"{what}: expected a Network, got {type(model).__name__}{hint}")
    with model.require_outputs():
        _require_layers(model, what)
        return [
            LayerArrays(layer.weights, layer.mask, layer.biases, layer.activation, layer.dropout)
            for layer in model.layers
        ]


def _require_layers(net: Network, what: str) -> None:
    """A ValueError that names the first neuron or edge that the layers do not describe."""
    if net.is_layered:
        return
    for i, layer in enumerate(net.layers):
        expected, before = "identity" if layer.probability_ids else layer.activation, set(layer.source_ids)
        for neuron in layer:
            here = f"{what}: layer {i} neuron {neuron.index}"
            if neuron.activation != expected:
                raise ValueError(
                    f"{here} is a {neuron.activation} neuron in a layer of {expected} neurons; one activation for each "
                    "layer can be expressed"
                )
            for source in neuron.sources:
                if source.id not in before:
                    raise ValueError(
                        f"{here} reads {name_of(net.graph, source.id)}, which is not in the layer before; such edges "
                        "cannot be expressed"
                    )


def network_of(
    n_inputs: int,
    layers: Sequence[LayerArrays],
    loss: str | None,
    what: str,
    of_cut_off: str = "give it an edge of weight 0",
) -> Network:
    """A network with these layers, whose edges are those in the masks, and numbers that it reads as they are.

    A neuron without edges is a constant for the other library. Here it is cut off, so its constant
    moves into the biases of the neurons that read it. The error for an output that is constant ends with
    `of_cut_off`.

    Raises
    ------
    ValueError
        If an output is constant, weights are not finite, or the loss does not fit the last layer.
    """
    net, masks = Network(n_inputs), []
    reads, constants = np.ones(n_inputs, bool), np.zeros(n_inputs, np.float32)  # of the nodes of the layer before
    for i, layer in enumerate(layers):
        weights, biases, is_last = (
            np.where(layer.mask, layer.weights, np.float32(0)),
            layer.biases,
            i == len(layers) - 1,
        )
        for name, array in (("weights", weights), ("biases", biases[~np.isnan(biases)])):
            if not np.isfinite(array).all():
                raise ValueError(f"{what}: expected finite {name} of layer {i}, got {array[~np.isfinite(array)][0]}")
        moved = weights[:, ~reads] @ constants[~reads]
        biases = np.where(moved != 0, np.nan_to_num(biases) + moved, biases)
        mask = layer.mask & reads
        reads = np.asarray(mask.any(axis=1))
        if not reads.all() and (is_last or layer.activation == "softmax"):
            raise ValueError(
                f"{what}: layer {i} neuron {np.argmin(reads)} is cut off from all inputs, which an output or a "
                f"probability must not be; {of_cut_off}"
            )
        value = OPS["identity" if layer.activation == "softmax" else layer.activation].value
        constants = np.where(reads, 0, value(np.nan_to_num(biases))).astype(np.float32)
        has_bias = ~np.isnan(biases)
        made = net.add_layer(
            len(weights),
            layer.activation,
            dropout=layer.dropout,
            bias=bool(has_bias.any()),
            loss=loss if is_last else None,
            init="zeros",
        )
        made.weights, made.biases = weights, biases
        for j in np.flatnonzero(~has_bias) if has_bias.any() else ():
            made[int(j)].bias = None
        masks.append(mask)
    for made, mask in zip(reversed(net.layers), reversed(masks), strict=True):
        if not mask.all():
            made.mask = mask
    net.scaling = "unscaled"
    return net


def last_activation(activation: str, loss: str | None) -> str:
    """The activation of a last layer that gives logits to this loss, or of another last layer."""
    of_logits = dict(zip(CROSS_ENTROPIES, ("softmax", "sigmoid"), strict=True))
    return of_logits.get(str(loss), activation) if activation == "identity" else activation
