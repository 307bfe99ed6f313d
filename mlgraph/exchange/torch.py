"""PyTorch: `torch.nn.Sequential` of `Linear` modules and activations, and their state_dict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32, Int32, Int64
from mlgraph._support.checks import one_of, shown, truth
from mlgraph._support.installation import install_command
from mlgraph.exchange.layers import LayerArrays, arrays_of, last_activation, network_of
from mlgraph.graph.arrays import wiring
from mlgraph.graph.ops import ACTIVATIONS, LEAK
from mlgraph.models.layer import Layer
from mlgraph.models.network import Network

if TYPE_CHECKING:
    import torch

Places = Int64 | Int32

BYTE = 255.0

MODULES = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "softplus": "Softplus",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softmax": "Softmax",
}
"""The class in torch.nn of each activation."""

SETTINGS: dict[str, dict[str, tuple[Any, ...]]] = {
    "LeakyReLU": {"negative_slope": (LEAK,)},
    "ELU": {"alpha": (1.0,)},
    "GELU": {"approximate": ("none",)},
    "Softplus": {"beta": (1.0,), "threshold": (20.0,)},
    "Softmax": {"dim": (1, -1)},
    "LogSoftmax": {"dim": (1, -1)},
    "Flatten": {"start_dim": (1,), "end_dim": (-1,)},
}
"""The settings of modules that can be expressed; the first is the default."""

PASSES_FACTORS = ("identity", "relu", "leaky_relu")
"""Activations with f(a x) = a f(x) for a >= 0, for which dropout may stand before or after them."""


class _Part(NamedTuple):
    """A Linear with what follows it, up to the next one: its name, its tensors, an activation and dropout."""

    where: str
    tensors: dict[str, torch.Tensor]
    activation: str | None = None
    dropout: float = 0.0


def from_torch(
    module: torch.nn.Module | Mapping[str, torch.Tensor],
    *,
    activation: str | Sequence[str] | None = None,
    loss: str | None = None,
    cut_zeros: bool = False,
) -> Network:
    """Make a network that computes what a PyTorch module computes.

    A weight that `torch.nn.utils.prune` has masked becomes a cut edge. A neuron without any edge is
    constant in PyTorch; here it is cut off, and its value moves into the biases of the next layer.

    Parameters
    ----------
    module : torch.nn.Sequential, torch.nn.Linear or state_dict
        Linear modules, each followed by at most one of Identity, ReLU, LeakyReLU (slope 0.01), ELU
        (alpha 1), GELU (exact), SiLU, Softplus, Sigmoid, Tanh and Softmax, and by Dropout; at the
        end also LogSoftmax. Flatten may be anywhere. Sequentials may be nested. Numbers are rounded
        to float32.

        A state_dict tells nothing but the weights of the Linear modules, taken in its order.
    activation : str or sequence of str, optional
        For a state_dict, which needs it: the activation of the hidden layers, or one for each
        layer, the last included.
    loss : str, optional
        As for `Network.add_layer`. A module that ends with a Linear gives logits if this is
        "softmax_cross_entropy" (torch.nn.CrossEntropyLoss) or "binary_cross_entropy"
        (torch.nn.BCEWithLogitsLoss).
    cut_zeros : bool
        Whether weights that are exactly 0 become cut edges, too. After
        `torch.nn.utils.prune.remove`, zeros are all that remains of a mask.

    Returns
    -------
    Network
        Its `forward` is the module in `eval` mode, or its `predict_proba` if the module ends with
        Softmax; LogSoftmax is the logarithm of that. It reads numbers as they are (`Model.scaling`
        is "unscaled"), unless the module begins with a scaling from `to_torch`. Parameters that need no
        gradient are frozen.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as documented, or a module, a setting of it or a tensor has no
        counterpart; the message names it.

    Examples
    --------
    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    >>> net = mlgraph.exchange.from_torch(module, loss="softmax_cross_entropy")
    >>> net
    <Network 4-3-2: 18 edges>
    >>> bool(np.allclose(net.forward(np.eye(4)), module(torch.eye(4)).detach(), atol=1e-6))
    True
    """
    torch, cut_zeros = _torch("from_torch"), truth("cut_zeros", cut_zeros)
    scaling: Any = "unscaled"
    if isinstance(module, torch.nn.Module):
        if activation is not None:
            raise ValueError(
                "activation: expected None, because the module has its own activations; it is for a state_dict"
            )
        scaling, parts = _parts_of_module(torch, module)
    elif isinstance(module, Mapping):
        parts = _parts_of_state(module, activation)
    else:
        raise TypeError(f"module: expected a torch.nn.Sequential or a state_dict, got {type(module).__name__}")
    layers = [_arrays_of(part, cut_zeros) for part in parts]
    for part, before, layer in zip(parts[1:], layers, layers[1:], strict=False):
        n, columns = len(before.weights), layer.weights.shape[1]
        if columns != n:
            raise ValueError(
                f"{part.where}: expected {n} columns, one for each neuron of the layer before, got {columns}"
            )
    layers[-1] = layers[-1]._replace(activation=last_activation(layers[-1].activation, loss))
    net = network_of(layers[0].weights.shape[1], layers, loss, "module")
    net.scaling = scaling
    for part, made in zip(parts, net.layers, strict=True):
        for name, places in zip(("weight", "bias"), _places_of(made), strict=True):
            tensor = part.tensors.get(f"{name}_orig", part.tensors.get(name))
            if isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad:
                net.graph.storage.freeze(places, True)
    return net


def to_torch(model: Network) -> torch.nn.Sequential:
    """Make a PyTorch module that computes what the network's `forward` computes.

    The module is a `torch.nn.Sequential` of Linear, activation and Dropout modules on the CPU, in
    training mode like any new module. Cut edges are masked by `torch.nn.utils.prune`, so they stay
    cut while PyTorch trains the rest; `torch.nn.utils.prune.remove` makes them plain zeros. Layers
    whose weights or biases are frozen need no gradient.

    If the network scales its data, the module begins with a `Scaling`, a module without parameters
    that does the same.

    Parameters
    ----------
    model : Network
        With `is_layered`, and without dropout of edges. The module of a cross-entropy gives logits,
        which torch.nn.CrossEntropyLoss and torch.nn.BCEWithLogitsLoss take. Names of classes and
        columns are not part of it.

    Returns
    -------
    torch.nn.Sequential

    Raises
    ------
    TypeError, ValueError
        If the model is no network, has no layers, or has something that PyTorch's modules cannot express:
        an edge that jumps over a layer, a neuron with another activation than its layer, dropout of
        edges, a layer of which only some weights are frozen.

    Examples
    --------
    >>> net = mlgraph.Network(4, seed=0)
    >>> hidden, _ = net.add_layer(3, "relu", dropout=0.5), net.add_layer(2, "softmax")
    >>> hidden[0].in_edges[1].prune()
    >>> module = mlgraph.exchange.to_torch(net)
    >>> module
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
      (2): Dropout(p=0.5, inplace=False)
      (3): Linear(in_features=3, out_features=2, bias=True)
    )
    >>> module[0].weight[0].tolist()[1]
    0.0
    """
    torch, layers = _torch("to_torch"), arrays_of(model, "to_torch")
    for i, layer in enumerate(model.layers):
        if layer.weight_dropout:
            raise ValueError(
                f"to_torch: layer {i} has weight_dropout {layer.weight_dropout:g}, for which PyTorch has no module; in "
                "a copy of the network, assign 0 to it"
            )
    frozen = [_frozen(i, layer) for i, layer in enumerate(model.layers)]
    modules = [] if model.scaling in (None, "unscaled") else [_scaling_module(model.scaling)]
    for arrays, are_frozen in zip(layers, frozen, strict=True):
        modules.append(_linear(torch, arrays, *are_frozen))
        gives_logits = arrays is layers[-1] and model.probabilities
        if arrays.activation != "identity" and not gives_logits:
            name = MODULES[arrays.activation]
            settings = {key: values[0] for key, values in SETTINGS.get(name, {}).items()}
            modules.append(getattr(torch.nn, name)(**settings))
        if arrays.dropout:
            modules.append(torch.nn.Dropout(arrays.dropout))
    return torch.nn.Sequential(*modules)


def _torch(function: str) -> Any:
    try:
        import torch
        import torch.nn.utils.prune  # which torch itself does not import
    except ImportError as error:
        raise ImportError(f"{function} needs PyTorch ({error}): {install_command('torch')}") from None
    return torch


# --- from PyTorch ---------------------------------------------------------------------------------


def _leaves(torch: Any, where: str, module: Any) -> Iterator[tuple[str, Any]]:
    """The modules of nested Sequentials in their order, each with its name in the state_dict."""
    if type(module).forward is not torch.nn.Sequential.forward:
        yield where, module
        return
    for name, child in module._modules.items():  # named_children would leave out a module that is there twice
        yield from _leaves(torch, f"{where}.{name}".lstrip("."), child)


def _parts_of_module(torch: Any, module: Any) -> tuple[Any, list[_Part]]:
    """The scaling and the layers of a module."""
    nn, parts, scaling = torch.nn, [], "unscaled"
    activations = {getattr(nn, name).forward: activation for activation, name in MODULES.items()}
    activations[nn.LogSoftmax.forward] = "softmax"
    ended, linears = "", set()
    for where, child in _leaves(torch, "", module):
        forward, kind = type(child).forward, type(child).__name__
        here = f"module {where} ({kind})" if where else f"module ({kind})"
        _check_settings(here, child)
        if forward in (nn.Flatten.forward, nn.Identity.forward):
            continue
        if ended:
            raise ValueError(f"{here}: expected nothing after {ended}, because its logarithms are no neurons")
        if forward is nn.Linear.forward:
            if id(child) in linears:
                raise ValueError(f"{here}: the same Linear is there before; layers cannot share weights")
            linears.add(id(child))
            tensors = child.state_dict(keep_vars=True)
            if any(name.startswith("parametrizations.") for name in tensors):
                tensors = {"weight": child.weight, "bias": child.bias}
            parts.append(_Part(here, {name: tensor for name, tensor in tensors.items() if tensor is not None}))
        elif type(child) is _scaling_class() and not parts:
            scaling = _scaling_of(child)
        elif forward not in activations and forward is not nn.Dropout.forward:
            known = ", ".join(["Linear", "Dropout", "Flatten", "Identity", *MODULES.values(), "LogSoftmax"])
            hint = (
                "" if where else "; the Sequential inside it may be one, or pass its state_dict() with activation=..."
            )
            raise ValueError(f"{here}: expected a Sequential of {known}{hint}")
        elif not parts:
            raise ValueError(f"{here}: expected a Linear before it; inputs have neither activation nor dropout")
        elif forward is nn.Dropout.forward:
            if parts[-1].dropout:
                raise ValueError(f"{here}: expected one Dropout after {parts[-1].where}, got another")
            parts[-1] = parts[-1]._replace(dropout=child.p)
        else:
            if parts[-1].activation is not None:
                raise ValueError(f"{here}: expected one activation after {parts[-1].where}, got another")
            activation = activations[forward]
            if parts[-1].dropout and activation not in PASSES_FACTORS:
                raise ValueError(f"{here}: expected Dropout after it, got it before, which has another effect")
            parts[-1] = parts[-1]._replace(activation=activation)
            ended = here if kind == "LogSoftmax" else ""
    if not parts:
        raise ValueError("module: expected at least one Linear, got none")
    return scaling, parts


def _check_settings(here: str, module: Any) -> None:
    """A ValueError if a setting of a module is none that an activation has here."""
    for name, values in SETTINGS.get(type(module).__name__, {}).items():
        if getattr(module, name) not in values:
            raise ValueError(f"{here}: expected {name}={values[0]}, got {getattr(module, name)}")


def _parts_of_state(state: Mapping[str, torch.Tensor], activation: str | Sequence[str] | None) -> list[_Part]:
    """The layers of a state_dict, with activations as `from_torch` takes them."""
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in state.items():
        where, _, name = key.rpartition(".")
        tensors.setdefault(where, {})[name] = tensor
    if not tensors:
        raise ValueError("state_dict: expected weights of at least one Linear, got none")
    n = len(tensors)
    if activation is None:
        raise ValueError(
            "activation: a state_dict does not have it; pass that of the hidden layers, or a list with one for each of "
            f"the {n} layers"
        )
    names = [activation] * (n - 1) + ["identity"] if isinstance(activation, str) else list(activation)
    if len(names) != n:
        raise ValueError(
            f"activation: expected {n} activations, one for each of {', '.join(tensors)}, got {shown(names)}"
        )
    names = [one_of("activation", name, (*ACTIVATIONS, "softmax")) for name in names]
    return [
        _Part(f"state_dict {where}".rstrip(), found, name)
        for (where, found), name in zip(tensors.items(), names, strict=True)
    ]


def _arrays_of(part: _Part, cut_zeros: bool) -> LayerArrays:
    """A part as arrays; a ValueError names a tensor that is missing, or that a Linear does not have."""
    tensors = part.tensors
    known = {f"{name}{end}" for name in ("weight", "bias") for end in ("", "_orig", "_mask")}
    unknown = [name for name in tensors if name not in known]
    if unknown:
        raise ValueError(f"{part.where}: expected weight and bias of a Linear, maybe pruned, got {unknown[0]}")
    weights, mask = _masked(part, "weight")
    if weights is None or weights.ndim != 2:
        got = "none" if weights is None else f"one of shape {weights.shape}"
        raise ValueError(f"{part.where}: expected a weight of shape (neurons, sources), got {got}")
    biases, has_bias = _masked(part, "bias")
    if biases is None:
        biases, has_bias = np.full((2, len(weights)), np.nan, np.float32)[0], np.zeros(len(weights), bool)
    if biases.shape != (len(weights),):
        raise ValueError(f"{part.where}: expected a bias of shape ({len(weights)},), got {biases.shape}")
    mask = mask & (weights != 0) if cut_zeros else mask
    return LayerArrays(
        weights, mask, np.where(has_bias, biases, np.float32(np.nan)), part.activation or "identity", part.dropout
    )


def _masked(part: _Part, name: str) -> tuple[Any, Any]:
    """A tensor and where it is not pruned, as arrays; (None, None) if a part has none."""
    original, mask, whole = (part.tensors.get(key) for key in (f"{name}_orig", f"{name}_mask", name))
    if (original is None) != (mask is None):
        raise ValueError(f"{part.where}: expected {name}_orig and {name}_mask, got only one of them")
    if original is None:
        return (None, None) if whole is None else (_array(whole), np.ones(whole.shape, bool))
    values, factors = _array(original), _array(mask)
    if factors.shape != values.shape or not np.isin(factors, (0, 1)).all():
        raise ValueError(f"{part.where}: expected a {name}_mask of zeros and ones of shape {values.shape}")
    return values, factors == 1  # not the attribute `weight`, which a module computes only when it is called


def _array(tensor: torch.Tensor) -> Float32:
    return np.array(tensor.detach().cpu().float().numpy())


# --- to PyTorch -----------------------------------------------------------------------------------


def _places_of(layer: Layer) -> tuple[Places, Places]:
    """Places of a layer's weights and of its biases in the parameter vector."""
    ids = np.array(layer.ids, np.int32)
    biases = layer.bias_places()
    return wiring(layer.graph, ids).place, biases[biases >= 0]


def _frozen(i: int, layer: Layer) -> tuple[bool, bool]:
    """Whether the weights and the biases of a layer are frozen; a ValueError if only some of them are."""
    frozen = layer.graph.storage.frozen
    found = {}
    for name, places in zip(("weights", "biases"), _places_of(layer), strict=True):
        share = 0.0 if frozen is None or not len(places) else float(frozen[places].mean())
        if 0 < share < 1:
            raise ValueError(f"to_torch: only some {name} of layer {i} are frozen; PyTorch freezes all of them or none")
        found[name] = share == 1
    return found["weights"], found["biases"]


def _linear(torch: Any, layer: LayerArrays, weights_frozen: bool, biases_frozen: bool) -> Any:
    """A Linear, of which the edges that are cut and the biases that are missing are pruned."""
    n, m = layer.weights.shape
    has_bias = ~np.isnan(layer.biases)
    linear = torch.nn.utils.skip_init(torch.nn.Linear, m, n, bias=bool(has_bias.any()))
    values = {"weight": (layer.weights, layer.mask, weights_frozen), "bias": (layer.biases, has_bias, biases_frozen)}
    with torch.no_grad():  # PyTorch cannot copy a module whose pruned weights are part of a computation
        for name, (array, there, frozen) in values.items():
            parameter = getattr(linear, name)
            if parameter is not None:
                parameter.copy_(torch.tensor(np.where(there, array, 0)))
                parameter.requires_grad_(not frozen)
                if not there.all():
                    torch.nn.utils.prune.custom_from_mask(linear, name, torch.tensor(there))
    return linear


def _scaling_module(scaling: Any) -> Any:
    """The `Scaling` that stands for the scaling of a network."""
    mean, std = ([0.0], [BYTE]) if scaling == "bytes" else scaling
    return _scaling_class()(mean, std)


def _scaling_of(module: Any) -> Any:
    """The scaling of a network that a `Scaling` stands for."""
    mean, std = (part.cpu().numpy().astype(np.float64) for part in (module.mean, module.std))
    return "bytes" if mean.tolist() == [0.0] and std.tolist() == [BYTE] else (mean, std)


@cache
def _scaling_class() -> Any:
    """The class `Scaling`, made on demand because its base is a class of PyTorch."""
    torch = _torch("Scaling")

    class Scaling(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        """Read numbers x as (x - mean) / std, as a network with such a `Model.scaling` does."""

        def __init__(self, mean: npt.ArrayLike, std: npt.ArrayLike) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
            self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

        def forward(self, x: Any) -> Any:
            return (x - self.mean) / self.std

    Scaling.__qualname__ = "Scaling"
    return Scaling


def __getattr__(name: str) -> Any:
    if name == "Scaling":  # where pickle looks for it
        return _scaling_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
