"""The sweeps in numpy and float64: the readable definition of the kernels, and their oracle in tests.

Each function interprets the instructions of a plan one by one, in arrays of shape (slots, examples).
It is slow, and shares nothing with the kernels except the plan.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float64, Int32, Int64
from mlgraph.compiler.instructions import KINDS, LANES, OF_NEURONS, Instruction
from mlgraph.compiler.plan import Plan
from mlgraph.graph import ops
from mlgraph.graph.storage import PANEL, in_panels

CHOICES = ("where", "max")
"""Operations that pass no adjoint to arguments that were not chosen. Others multiply it by 0, which may give NaN."""


class Dropped(NamedTuple):
    """Dropout of one instruction in one step, as factors: 0 if dropped, otherwise the scale of what is kept."""

    edges: Float64 | None = None  # (weights,), in the order of the parameter vector
    neurons: Float64 | None = None  # (neurons,)


def forward(
    plan: Plan, parameters: npt.ArrayLike, x: npt.ArrayLike, dropped: dict[int, Dropped] | None = None
) -> Float64:
    """Values of all slots, shape (slots, examples)."""
    p = np.asarray(parameters, np.float64)
    data = np.asarray(x)
    data = data / 255 if data.dtype == np.uint8 else data.astype(np.float64)
    values = np.zeros((plan.n_slots, len(data)))
    values[: len(plan.input_column)] = data.T[plan.input_column]
    for i, ins in enumerate(plan.instructions):
        out, drop = values[ins.dst : ins.dst + ins.size], (dropped or {}).get(i, Dropped())
        if ins.kind == KINDS["constant"]:
            out[:] = plan.constants[ins.weights : ins.weights + ins.size, None]
        elif ins.kind == KINDS["parameter"]:
            out[:] = p[ins.weights : ins.weights + ins.size, None]
        elif ins.kind == KINDS["operation"]:
            op = ops.BY_CODE[ins.op]
            for y, arguments in zip(out, arguments_of(plan, ins), strict=True):
                y[:] = op.value(values[arguments]) if op.arity < 0 else op.value(*values[arguments])
            _scale(out, drop)
        else:
            bias = p[ins.bias : ins.bias + ins.size] if ins.bias >= 0 else np.zeros(ins.size)
            for n in range(ins.size):
                sources, at = neuron(plan, ins, n)
                z = bias[n] + _weights(p, drop, ins, at) @ values[sources]
                out[n] = ops.BY_CODE[ins.op].value(z)
            _scale(out, drop)
    return values


def backward(
    plan: Plan, parameters: npt.ArrayLike, values: Float64, adjoints: Float64, dropped: dict[int, Dropped] | None = None
) -> Float64:
    """Complete the adjoints in place, and return the gradient with respect to all parameters.

    Parameters
    ----------
    values, adjoints : float64, shape (slots, examples)
        On entry, adjoints are those of the loss; on return, those of all slots. For a neuron it is the
        adjoint of the weighted sum before the activation.

    Returns
    -------
    float64, shape (parameters,)
        Summed over the examples.
    """
    p = np.asarray(parameters, np.float64)
    gradient = np.zeros(len(p))
    for i, ins in reversed([*enumerate(plan.instructions)]):
        d, drop = adjoints[ins.dst : ins.dst + ins.size], (dropped or {}).get(i, Dropped())
        if ins.kind == KINDS["parameter"]:
            gradient[ins.weights : ins.weights + ins.size] = d.sum(axis=1)
        elif ins.kind == KINDS["operation"] and ins.propagate:
            op = ops.BY_CODE[ins.op]
            _scale(d, drop)
            for n, arguments in enumerate(arguments_of(plan, ins)):
                y, a = values[ins.dst + n], values[arguments]
                partials = op.derivatives(y, a) if op.arity < 0 else op.derivatives(y, *a)
                for argument, partial in zip(arguments, partials, strict=True):
                    term = d[n] * partial
                    adjoints[argument] += np.where(partial == 0, 0, term) if op.name in CHOICES else term
        elif ins.kind in OF_NEURONS:
            for n in range(ins.size):
                sources, at = neuron(plan, ins, n)
                y, scale = values[ins.dst + n], 1.0 if drop.neurons is None else drop.neurons[n]
                # The derivative is a function of the output before dropout scaled it.
                d[n] *= scale * ops.BY_CODE[ins.op].derivatives(y / scale, y)[0] if scale else 0.0
                if ins.propagate:
                    # Nodes of equal value share a slot, so a source may occur twice.
                    np.add.at(adjoints, sources, np.outer(_weights(p, drop, ins, at), d[n]))
                gradient[at] = values[sources] @ d[n]
                if drop.edges is not None:
                    gradient[at] *= drop.edges[at - ins.weights]
            if ins.bias >= 0:
                gradient[ins.bias : ins.bias + ins.size] = d.sum(axis=1)
    return gradient


def loss(
    kind: str, slots: Any, values: Float64, label: Any = None, target: Any = None, weight: Any = None
) -> tuple[Float64, Float64]:
    """Loss of each example, times its weight, and the adjoints of the sum of all losses to pass to `backward`.

    Parameters
    ----------
    kind : str
        A key of `mlgraph.engine.losses.LOSSES`.
    slots : sequence of int
        Slots of the nodes of an `Objective`: logsumexp, the sum of softplus or the loss, then the outputs.
    """
    if weight is not None:
        losses, adjoints = loss(kind, slots, values, label, target)
        return losses * weight, adjoints * weight
    adjoints = np.zeros_like(values)
    z = values[slots[1:]]
    each = np.arange(values.shape[1])
    if kind == "mse":
        losses, adjoints = loss("squared_error", slots, values, target=target)
        return losses / len(z), adjoints / len(z)
    if kind == "squared_error":
        error = z - np.asarray(target, np.float64).T
        np.add.at(adjoints, slots[1:], 2 * error)
        return (error**2).sum(axis=0), adjoints
    if kind == "cotangent":
        np.add.at(adjoints, slots[1:], np.asarray(target, np.float64).T)
        return np.zeros(values.shape[1]), adjoints
    if kind == "softmax_cross_entropy" and label is None:
        t = np.asarray(target, np.float64).T
        adjoints[slots[0]] += t.sum(axis=0)
        np.add.at(adjoints, slots[1:], -t)
        with np.errstate(invalid="ignore"):
            return np.where(t > 0, t * (values[slots[0]] - z), 0).sum(axis=0), adjoints
    adjoints[slots[0]] += 1
    if kind == "node":
        return values[slots[0]], adjoints
    if kind == "binary_cross_entropy":
        t = np.asarray(target, np.float64).T
        np.add.at(adjoints, slots[1:], -t)
        return values[slots[0]] - (t * z).sum(axis=0), adjoints
    np.add.at(adjoints, (np.asarray(slots[1:])[label], each), -1)
    return values[slots[0]] - z[label, each], adjoints


def step(
    plan: Plan,
    parameters: npt.ArrayLike,
    x: npt.ArrayLike,
    kind: str,
    slots: Any,
    *,
    label: Any = None,
    target: Any = None,
    weight: Any = None,
    seed: int = 0,
    number: int = 0,
) -> tuple[Float64, Float64]:
    """Losses and mean gradient of one training step, with dropout.

    Parameters
    ----------
    number : int
        Number of the step since training began. Together with the seed it determines dropout.

    Returns
    -------
    losses : float64, shape (examples,)
    gradient : float64, shape (parameters,)
    """
    x = np.asarray(x)
    losses, gradient = [], np.zeros(len(np.asarray(parameters)))
    size = (
        LANES if any(ins.drop or ins.bits for ins in plan.instructions) else len(x)
    )  # dropout differs from tile to tile
    for tile, first in enumerate(range(0, len(x), size)):
        rows = slice(first, first + size)
        dropped = {i: draw(ins, seed, number, tile) for i, ins in enumerate(plan.instructions)}
        values = forward(plan, parameters, x[rows], dropped)
        answers = (None if each is None else each[rows] for each in (label, target, weight))
        these, adjoints = loss(kind, slots, values, *answers)
        losses.append(these)
        gradient += backward(plan, parameters, values, adjoints / len(x), dropped)
    return np.concatenate(losses), gradient


def draw(ins: Instruction, seed: int, number: int, tile: int) -> Dropped:
    """Dropout of an instruction at step `number`, in one tile (``_dropout.pxi``)."""
    edges: Float64 | None = None
    neurons: Float64 | None = None
    step_key = _random(np.uint64(seed), number)
    if ins.drop:
        key = _random(_random(step_key, 2 * ins.stream), tile // 4)
        keep = 1 - ins.drop / 2**32
        groups = enumerate(range(0, ins.size, 32))
        kept = [_keep(key, group, min(32, ins.size - first), keep) for group, first in groups]
        neurons = np.concatenate(kept) / keep
    if ins.bits:
        key = _random(_random(step_key, 2 * ins.stream + 1), tile)
        words = np.zeros(-(-ins.n_weights // 64), np.uint64)
        for b in range(ins.bits):
            fair = _random(key, np.arange(len(words)) * ins.bits + b)
            words = words | fair if ins.keep >> b & 1 else words & fair
        bits = (words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
        edges = bits.reshape(-1)[: ins.n_weights].astype(np.float64) * (2.0**ins.bits / ins.keep)
    return Dropped(edges, neurons)


def order(seed: int, epoch: int, n: int) -> Int64:
    """Shuffled indices of the examples of an epoch (`shuffle` in ``_epochs.pxi``)."""
    random = _random(_random(_random(np.uint64(seed), -2), epoch), np.arange(n))
    places: list[int] = []
    for i, u in enumerate((random >> np.uint64(11)) / 2.0**53):
        j = int(u * (i + 1))
        places.append(i)
        places[i], places[j] = places[j], i
    return np.array(places, np.int64)


def _keep(key: Any, group: int, count: int, keep: float) -> Float64:
    """Which of a group of `count` neurons are kept: ``keep * count`` of them, randomly rounded, without replacement."""
    u = (_random(key, group * 33 + np.arange(count + 1)) >> np.uint64(11)) / 2.0**53
    wanted = int(keep * count) + (u[0] < keep * count - int(keep * count))
    kept = np.zeros(count)
    for i in range(count):
        kept[i] = u[1 + i] * (count - i) < wanted - kept.sum()
    return kept


def _random(key: Any, counter: Any) -> Any:
    with np.errstate(over="ignore"):
        z = key + (np.asarray(counter).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def arguments_of(plan: Plan, ins: Instruction) -> Int32:
    """Slots of the arguments of each operation of an instruction, shape (size, arity)."""
    return plan.index[ins.args : ins.args + ins.size * ins.arity].reshape(ins.size, ins.arity)


def neuron(plan: Plan, ins: Instruction, n: int) -> tuple[Int32, Int64]:
    """Source slots of neuron `n` of an instruction, and the places of its weights."""
    if ins.kind == KINDS["dense"]:
        at = ins.weights + in_panels(np.array(n), ins.arity) + np.arange(ins.arity) * PANEL
        return plan.index[ins.args : ins.args + ins.arity], at
    rows = plan.rows(ins)
    a, b = rows.begin[n : n + 2]
    return rows.source[a:b], ins.weights + np.arange(a, b)


def _scale(out: Float64, drop: Dropped) -> None:
    """Scale rows for dropout, in place; dropped ones become 0."""
    for n, scale in enumerate(() if drop.neurons is None else drop.neurons):
        out[n] = out[n] * scale if scale else 0.0


def _weights(p: Float64, drop: Dropped, ins: Instruction, at: Int64) -> Float64:
    return p[at] if drop.edges is None else p[at] * drop.edges[at - ins.weights]
