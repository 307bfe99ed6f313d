"""Losses: the nodes that a loss reads, and the targets that it takes. The kernels compute its value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Float64, Int32, UInt8
from mlgraph._support.checks import FLOAT32_MAX, real, real_array, shown, wrong
from mlgraph.graph.graph import Graph
from mlgraph.graph.ids import ids_of
from mlgraph.graph.views import Node

Labels = Int32

CROSS_ENTROPIES = ("softmax_cross_entropy", "binary_cross_entropy")
"""Losses whose outputs are logits."""

SQUARED = ("squared_error", "mse")
"""Losses of numbers: the sum over the outputs of the squared errors, and their mean."""

NAMES = (*CROSS_ENTROPIES, *SQUARED)
"""Names of the built-in losses. Any node may be a loss, too; it is called "node"."""

LOSSES = {
    "none": 0,
    "softmax_cross_entropy": 1,
    "squared_error": 2,
    "node": 3,
    "cotangent": 4,
    "binary_cross_entropy": 5,
    "mse": 6,
}
"""Codes of all losses in the kernels."""


BALANCED = "balanced"
"""The `class_weight` that gives all classes the same sum of weights."""


class Objective(NamedTuple):
    """A loss with its labels or targets.

    Attributes
    ----------
    loss : str
        One of `NAMES`, "node", "none", or "cotangent", which is the sum of the outputs times `target`.
    nodes : sequence of int
        First the node from which the loss is computed: logsumexp, or the sum of softplus, or the first
        output for the squared error. Then the outputs; for the softmax cross-entropy, the terms of
        the logsumexp, which are the outputs minus the highest. For "node", the loss itself.
    label : int32, shape (examples,), optional
    target : float32, shape (examples, outputs), optional
        Targets, or cotangents. The softmax cross-entropy takes either `label` or `target`.
    weight : float32, shape (examples,), optional
        Factor of the loss of each example; by default 1. Cotangents have none.
    """

    loss: str
    nodes: Sequence[int]
    label: Labels | None = None
    target: Float32 | None = None
    weight: Float32 | None = None

    @classmethod
    def cotangent(cls, outputs: Sequence[int], target: Float32) -> Objective:
        """The sum of the outputs, each multiplied by a given number."""
        return cls("cotangent", [outputs[0], *outputs], target=target)

    def of(self, rows: slice) -> Objective:
        """The same loss for some of the examples."""
        label, target, weight = self.label, self.target, self.weight
        return self._replace(
            label=None if label is None else label[rows],
            target=None if target is None else target[rows],
            weight=None if weight is None else weight[rows],
        )


def check_classes(what: str, loss: str, n: int) -> None:
    """Raise ValueError for a softmax of one output, whose probability is always 1."""
    if loss == "softmax_cross_entropy" and n == 1:
        raise ValueError(
            f"{what}: a softmax needs at least 2 outputs, got 1; for one yes-or-no question use binary_cross_entropy"
        )


def define_loss(graph: Graph, outputs: list[int], loss: str | Node) -> tuple[str, list[int], list[int]]:
    """Add the nodes that a loss needs in addition to the outputs.

    Returns
    -------
    name : str
    nodes : list of int
        As in `Objective`.
    probabilities : list of int
        For a cross-entropy, one node for each logit.
    """
    if isinstance(loss, Node):
        return "node", ids_of(graph, "loss", [loss]), []
    if not isinstance(loss, str) or loss not in NAMES:
        raise wrong("loss", f"{', '.join(NAMES)} or a node", loss, isinstance(loss, str))
    if loss in SQUARED:
        return loss, [outputs[0], *outputs], []
    check_classes("outputs", loss, len(outputs))
    logits = [graph[i] for i in outputs]
    what = "sigmoid" if loss == "binary_cross_entropy" else "softmax"
    for node in logits:
        if _is_probability(node, what):
            raise ValueError(
                f"outputs: expected logits, because {loss} computes the {what} itself, got {node!r}, a probability"
            )
    if loss == "softmax_cross_entropy":
        probabilities = [node.id for node in graph.add_softmax(logits)]
        return loss, _terms_of_softmax(graph, probabilities), probabilities
    probabilities = [graph.add_operation("sigmoid", z).id for z in logits]
    begin = graph.add_operation("sum", *(graph.add_operation("softplus", z) for z in logits))
    return loss, [begin.id, *outputs], probabilities


def loss_fits(graph: Graph, loss: str, outputs: list[int], nodes: list[int], probabilities: list[int]) -> bool:
    """Whether `nodes` and `probabilities` are those that `define_loss` returns for these outputs."""
    if loss == "softmax_cross_entropy":
        fit = are_probabilities(graph, "softmax", outputs, probabilities)
        return fit and nodes == _terms_of_softmax(graph, probabilities)
    if loss == "node":
        return len(nodes) == 1 and not probabilities
    begin, *read = nodes
    if read != outputs:
        return False
    if loss == "binary_cross_entropy":
        terms = [_read(graph, "softplus", i) for i in _read(graph, "sum", begin)]
        return are_probabilities(graph, "sigmoid", outputs, probabilities) and terms == [[z] for z in outputs]
    return not probabilities and begin == outputs[0]


def are_probabilities(graph: Graph, what: str, logits: list[int], nodes: list[int]) -> bool:
    """Whether each of these nodes is the softmax, or the sigmoid, of the logit at its place."""
    if what == "sigmoid":
        return [_read(graph, "sigmoid", i) for i in nodes] == [[z] for z in logits]
    total, *terms = _terms_of_softmax(graph, nodes)
    if _read(graph, "logsumexp", total) != terms:
        return False
    highest, *minuends = _differences(graph, terms)
    # In files of older versions the terms are the logits themselves.
    return terms == logits or (minuends == logits and _read(graph, "max", highest) == logits)


def _terms_of_softmax(graph: Graph, probabilities: list[int]) -> list[int]:
    """The logsumexp that all these probabilities read, then the term of each; [-1] if they are no softmax."""
    exponents = [i for node in probabilities for i in _read(graph, "exp", node)]
    return _differences(graph, exponents)


def _differences(graph: Graph, nodes: list[int]) -> list[int]:
    """What is subtracted in all of these nodes, then what it is subtracted from; [-1] if they are no such nodes."""
    pairs = [_read(graph, "sub", node) for node in nodes]
    if not all(pairs) or len({subtrahend for _, subtrahend in pairs}) != 1:
        return [-1]
    return [pairs[0][1], *(minuend for minuend, _ in pairs)]


def _read(graph: Graph, kind: str, node: int) -> list[int]:
    """The sources of a node of this kind; none if it is of another kind, or -1."""
    return graph.sources_of(node).tolist() if node >= 0 and graph[node].kind == kind else []


def _is_probability(node: Node, what: str) -> bool:
    if what == "sigmoid":
        return "sigmoid" in (node.kind, getattr(node, "activation", ""))
    if node.kind != "exp" or node.sources[0].kind != "sub":
        return False
    logit, total = node.sources[0].sources
    return total.kind == "logsumexp" and logit in total.sources


def empty_answers(objective: Objective, n: int) -> UInt8 | None:
    """Zeros for n examples, to be set to 1 for correct predictions; None if predictions are not right or wrong."""
    return np.zeros(n, np.uint8) if objective.label is not None or objective.loss in CROSS_ENTROPIES else None


def target_array(y: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    """Labels or targets as an array; a TypeError if they are not numbers."""
    return real_array(what, y, "astype(int) or astype(float)")


def read_targets(
    loss: str, y: npt.ArrayLike, n: int, n_outputs: int, what: str
) -> tuple[Labels | None, Float32 | None]:
    """Labels or targets of n examples as the kernels read them; errors call them `what`."""
    if are_none(y) and n:
        raise ValueError(f"{what}: expected labels or targets of {n} examples, got none")
    array = target_array(y, what)
    if loss == "softmax_cross_entropy" and array.dtype.kind in "bui" and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # a softmax has two outputs or more, so a single column has labels
    labelled = loss == "softmax_cross_entropy" or (loss in SQUARED and n_outputs > 1)
    if labelled and array.dtype.kind in "bui" and array.ndim == 1:
        if len(array) != n:
            raise ValueError(f"{what}: expected {n} labels, one for each example, got {len(array)}")
        if n and not (array.min() >= 0 and array.max() < n_outputs):
            found = len(np.unique(array))
            hint = f"; {found} different labels need {found} outputs" if found > n_outputs else ""
            raise ValueError(
                f"{what}: expected labels from 0 to {n_outputs - 1}, got {array.min()} to {array.max()}{hint}"
            )
        label = array.astype(np.int32)
        if loss == "softmax_cross_entropy":
            return label, None
        target = np.zeros((n, n_outputs), np.float32)
        target[np.arange(n), label] = 1
        return label, target
    if loss == "softmax_cross_entropy" and array.shape != (n, n_outputs):
        if array.dtype.kind == "f" and array.shape in ((n,), (n, 1)) and (missing := np.isnan(array)).any():
            got = f"nan in example {np.argmax(missing)}, {np.count_nonzero(missing)} in all"
            raise ValueError(f"{what}: expected labels, got {got}; leave out the examples without a label")
        are_whole = array.dtype.kind != "f" or bool(np.isfinite(array).all() and (array == np.floor(array)).all())
        got = f"{array.dtype} of shape {array.shape}"
        got += "; y.astype(int) may be them" if are_whole and array.shape in ((n,), (n, 1)) else ""
        raise ValueError(
            f"{what}: expected integer labels of shape ({n},) or targets of shape ({n}, {n_outputs}), got {got}"
        )
    with np.errstate(over="ignore", under="ignore"):
        target = array.astype(np.float32)
    target = target[:, None] if target.ndim == 1 else target
    if target.shape != (n, n_outputs):
        expected = f"({n},) or ({n}, 1)" if n_outputs == 1 else f"({n}, {n_outputs})"
        raise ValueError(f"{what}: expected shape {expected}, got {array.shape}")

    def check(good: Bool, expected: str, given: npt.NDArray[Any]) -> None:
        if not good.all():
            i, j = np.argwhere(~good)[0]
            raise ValueError(f"{what}: expected {expected}, got {given[i, j]} in example {i}, output {j}")

    check(np.isfinite(target), "finite numbers that float32 can hold", array.reshape(target.shape))
    if loss == "binary_cross_entropy":
        check((target >= 0) & (target <= 1), "numbers from 0 to 1", target)
    if loss == "softmax_cross_entropy":
        check(target >= 0, "targets of at least 0", target)
        with np.errstate(over="ignore"):
            weights = target.sum(axis=1)
        if not np.isfinite(weights).all():
            i = int(np.argmin(np.isfinite(weights)))
            raise ValueError(f"{what}: expected targets whose sum float32 can hold, got {weights[i]} in example {i}")
    return None, np.ascontiguousarray(target)


def as_weights(sample_weight: npt.ArrayLike | None, what: str = "sample_weight") -> Float64 | None:
    """Weights of examples, converted and checked except for their number, which `weighted` knows."""
    if sample_weight is None:
        return None
    weight = real_array(what, sample_weight).astype(np.float64)
    bad = ~((weight >= 0) & (weight <= FLOAT32_MAX))
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(f"{what}: expected finite numbers of at least 0, got {weight.flat[i]} in example {i}")
    return weight


def as_class_weight(class_weight: Any) -> dict[Any, float] | str | None:
    """`class_weight` with its weights as floats."""
    if class_weight is None or (isinstance(class_weight, str) and class_weight == BALANCED):
        return class_weight
    if not isinstance(class_weight, Mapping):
        expected = f'a dict from labels to weights or "{BALANCED}"'
        raise wrong("class_weight", expected, class_weight, isinstance(class_weight, str))
    expected = "a finite number of at least 0"
    return {
        label: real(f"class_weight[{shown(label)}]", weight, expected, 0, FLOAT32_MAX)
        for label, weight in class_weight.items()
    }


def weighted(
    objective: Objective,
    n: int,
    weight: Float64 | None,
    class_weight: dict[Any, float] | str | None = None,
    what: str = "sample_weight",
) -> Objective:
    """The same loss with weights for its n examples, from `as_weights` and `as_class_weight`."""
    if weight is not None and weight.shape != (n,):
        hint = f"; {what}.ravel() has that shape" if weight.size == n else ""
        raise ValueError(f"{what}: expected shape ({n},), a weight for each example, got {weight.shape}{hint}")
    if class_weight is not None:
        of_class = _weights_of_classes(objective, class_weight)
        what = "class_weight" if weight is None else f"{what} and class_weight"
        weight = of_class if weight is None else weight * of_class
    if weight is None or not n:
        return objective
    if weight.max() > FLOAT32_MAX:
        raise ValueError(f"{what}: expected products that float32 can hold, got {weight.max():.6g}")
    with np.errstate(under="ignore"):
        factor = weight.astype(np.float32)
    if not factor.any():
        raise ValueError(f"{what}: expected a weight above 0, got 0 for all {n} examples")
    return objective._replace(weight=factor)


def _weights_of_classes(objective: Objective, class_weight: dict[Any, float] | str) -> Float64:
    """The weight of the class of each example."""
    label, target, n_classes = objective.label, objective.target, len(objective.nodes) - 1
    if label is None and target is not None and np.isin(target, (0, 1)).all():
        # Labels in other forms: the answers to one question, or 1 for the class and 0 for the others.
        if objective.loss in ("binary_cross_entropy", *SQUARED) and n_classes == 1:
            label, n_classes = target[:, 0].astype(np.int32), 2
        elif objective.loss == "softmax_cross_entropy" and (target.sum(axis=1) == 1).all():
            label = target.argmax(axis=1).astype(np.int32)
    if label is None:
        raise ValueError("class_weight: expected labels as y, got targets; use sample_weight")
    if isinstance(class_weight, str):
        counts = np.bincount(label, minlength=n_classes)
        weights: Float64 = len(label) / (np.count_nonzero(counts) * np.maximum(counts, 1.0))
        return weights[label]
    unknown = [key for key in class_weight if key not in range(n_classes)]
    if unknown:
        raise ValueError(f"class_weight: expected labels from 0 to {n_classes - 1}, got {shown(unknown[0])}")
    return np.array([class_weight.get(i, 1.0) for i in range(n_classes)])[label]


def are_none(y: Any) -> bool:
    """Whether `y` is () or []: no targets. If the loss is a node, they may be the last columns of the data."""
    return isinstance(y, tuple | list) and not y


def with_targets(x: npt.ArrayLike, y: npt.ArrayLike, what: str) -> Float32:
    """Data with the targets of a loss that is a node appended as columns; errors put `what` before x and y."""
    data, targets = real_array(f"{what}x", x), real_array(f"{what}y", y)
    columns = targets[:, None] if targets.ndim == 1 else targets
    if data.ndim != 2:
        raise ValueError(f"{what}x: expected shape (examples, inputs), got {data.shape}")
    if columns.ndim != 2 or len(columns) != len(data):
        raise ValueError(f"{what}y: expected shape ({len(data)}, targets), got {targets.shape}")
    n = data.shape[1]
    values = np.empty((len(data), n + columns.shape[1]), np.float32)
    with np.errstate(over="ignore", under="ignore"):  # what float32 cannot hold is infinite, or zero
        values[:, :n], values[:, n:] = data, columns
    if data.dtype == np.uint8:
        values[:, :n] /= 255
    return values
