"""Scores of edges and neurons by a criterion, and the choice of the best by score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Float64, Int32, Int64
from mlgraph._support.checks import real_array, shown, wrong
from mlgraph.graph.arrays import Edges, wiring
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import NEURON
from mlgraph.graph.views import Neuron
from mlgraph.models.model import Model
from mlgraph.models.running import as_arrays, engine_of, read_with_targets

Data = tuple[Any, Any]
Scores = Float64
Criterion = str | Callable[..., npt.ArrayLike]

CRITERIA = ("path", "magnitude", "saliency", "random")
"""Named pruning criteria."""


# --- criteria -------------------------------------------------------------------------------------


def check_criterion(by: Criterion, names: Sequence[str] = CRITERIA) -> None:
    """Raise TypeError or ValueError unless `by` is callable or one of `names`."""
    if not callable(by) and not (isinstance(by, str) and by in names):
        raise wrong("by", f"{', '.join(names)} or a callable", by, isinstance(by, str))


def data_for(action: str, by: Criterion, data: Data | None, needed: bool) -> Data | None:
    """`data` as arrays if the criterion needs it, else None; ValueError if it is missing or not a pair (x, y)."""
    if (needed or data is not None) and (not isinstance(data, tuple | list) or len(data) != 2):
        criterion = by if isinstance(by, str) else "a callable"
        got = "none" if data is None else shown(data)
        raise ValueError(f"data: expected (x, y) to {action} by {criterion}, got {got}")
    return as_arrays(*data, "data ") if needed and data is not None else None


def loss_gradient(model: Model, x: Any, y: Any, n_threads: int | None = None) -> Float32:
    """Gradient of the mean loss over training data, in the layout of the parameter vector."""
    examples, objective = read_with_targets(model, x, y, "data ")
    examples.check_trainable()
    return engine_of(model).gradient(examples, objective, n_threads)


def gradient_for(model: Model, by: Criterion, data: Data | None, n_threads: int | None) -> Float32 | None:
    """The gradient over `data` if pruning by this criterion needs it."""
    check_criterion(by)
    data = data_for("prune", by, data, isinstance(by, str) and by == "saliency")
    return None if data is None else loss_gradient(model, *data, n_threads)


def scores_from_callable(graph: Graph, by: Callable[..., npt.ArrayLike], things: Any, n: int, what: str) -> Scores:
    """The scores that a callable gives n edges or neurons.

    The callable may run the graph, which may move the parameters in the parameter vector.
    """
    edits = graph.edits
    if isinstance(things, Edges):  # a copy, in which the callable may compute in place
        things = Edges(things.source.copy(), things.target.copy(), things.weight.copy())
    try:
        given = by(things)
    except StopIteration as error:  # `fit` would take it for a request to end the run
        raise RuntimeError("by: the criterion raised StopIteration") from error
    array = real_array("by", given).astype(np.float64)
    if graph.edits != edits:
        raise RuntimeError("by: the criterion edited the graph; it may only return scores")
    if array.shape != (n,):
        raise ValueError(f"by: expected a score for each {what}, shape ({n},), got {array.shape}")
    return without_nan(array)


def neuron_scores(
    graph: Graph, hidden: Int32, by: Criterion, gradient: Float32 | None, random: np.random.Generator
) -> Scores:
    """Scores of neurons, none NaN.

    The magnitude, also that along paths, is the norm of the incoming weights times the norm of the outgoing weights. It
    does not change if the former are scaled up and the latter down. The saliency is the sum of
    weight x gradient over the outgoing edges: the first-order change of the loss when the neuron is
    removed (Molchanov et al. 2017, Pruning convolutional neural networks).
    """
    if callable(by):
        return scores_from_callable(graph, by, [Neuron(graph, i) for i in hidden.tolist()], len(hidden), "neuron")
    if by == "random":
        return random.random(len(hidden))
    edges = wiring(graph)
    weight = graph.parameters[edges.place].astype(np.float64)
    if gradient is not None:
        return without_nan(np.abs(np.bincount(edges.source, weight * gradient[edges.place], len(graph)))[hidden])
    incoming, outgoing = (np.bincount(ids, weight**2, len(graph))[hidden] for ids in (edges.target, edges.source))
    return without_nan(np.sqrt(incoming * outgoing))


def without_nan(score: Scores) -> Scores:
    """The scores; ValueError if one is NaN."""
    if np.isnan(score).any():
        raise ValueError("by: expected scores that are numbers, got nan")
    return score


# --- blocks ---------------------------------------------------------------------------------------


def block_scores(model: Model, edges: Edges, score: Scores, by: Criterion, block: int) -> tuple[Scores, Int64 | None]:
    """The score of each edge's block, and the number of that block; the scores and None if `block` is 1.

    A block is the edges from one source to `block` adjacent neurons of a layer. It scores the root
    mean square of its edges' scores, with a callable the mean, and at random the score of one edge.
    The mean of random numbers would vary more in blocks with few edges, which would then be chosen
    first or last.
    """
    if block == 1:
        return score, None
    block_ids = _block_ids(model, edges, block)
    if by == "random":
        return score[np.unique(block_ids, return_index=True)[1]][block_ids], block_ids
    limit = np.finfo(float).max / max(1, len(score))  # so that no sum is infinite
    score = np.clip(score, -limit, limit) if callable(by) else score**2  # finite: weights and gradients are float32
    mean = np.bincount(block_ids, score) / np.bincount(block_ids)
    return np.asarray((mean if callable(by) else np.sqrt(mean))[block_ids]), block_ids


def _block_ids(model: Model, edges: Edges, block: int) -> Int64:
    graph, layer_of = model.graph, model.layer_numbers()
    position = np.cumsum(graph.codes >= NEURON) - 1  # in order of creation, which no cut changes
    for layer in model.layers:
        position[layer.ids] = np.arange(layer.size)
    neuron_block = np.unique(layer_of * len(graph) + position // block, return_inverse=True)[1]
    return np.asarray(np.unique(neuron_block[edges.target] * len(graph) + edges.source, return_inverse=True)[1])


# --- choice ---------------------------------------------------------------------------------------


def top_k(
    score: Scores,
    group: npt.NDArray[Any],
    k: npt.NDArray[Any],
    tie_scores: Scores | None = None,
    block_ids: Int64 | None = None,
) -> Bool:
    """Whether each member is among the `k[g]` highest scores of its group g.

    Ties are broken at random, always in the same way: the first of equal members would all belong
    to one layer.

    Parameters
    ----------
    tie_scores : float64, optional
        The members' own scores where `score` is that of a path. They break ties before chance does;
        the members that make the path weak come first, since the others are useless without them.
    block_ids : int64, optional
        Chance takes members with the same number one after the other.
    """
    keep = np.zeros(len(score), bool)
    random = np.random.default_rng(0)  # one for all groups, so that equal groups lose different members
    for members, n in _members(group, k):
        if n >= len(members):
            keep[members] = True
        elif n > 0:
            values = score[members]
            threshold = np.partition(values, len(values) - n)[len(values) - n]
            better = values > threshold
            keep[members[better]] = True
            tied = random.permutation(members[values == threshold])
            if block_ids is not None:
                place = random.permutation(len(score))
                tied = tied[np.argsort(place[block_ids[tied]], kind="stable")]
            if tie_scores is not None:
                own = np.where(tie_scores[tied] <= threshold, np.inf, tie_scores[tied])
                tied = tied[np.argsort(-own, kind="stable")]
            keep[tied[: n - np.count_nonzero(better)]] = True
    return keep


def relative_to_threshold(score: Scores, group: npt.NDArray[Any], k: npt.NDArray[Any]) -> Scores:
    """Scores minus the lowest score that their group keeps, so that paths can compare edges of several groups.

    All are finite, except that members of a group that keeps nothing get -infinity.
    """
    if len(k) == 1:
        return np.clip(score, np.finfo(float).min, np.finfo(float).max)
    score = np.clip(score, np.finfo(float).min / 2, np.finfo(float).max / 2)
    for members, n in _members(group, k):
        if n == 0:
            score[members] = -np.inf
        elif len(members):
            n_cut = len(members) - min(n, len(members))
            score[members] -= np.partition(score[members], n_cut)[n_cut]
    return score


def _members(group: npt.NDArray[Any], k: npt.NDArray[Any]) -> Iterator[tuple[Int64, int]]:
    """The members of each group, and how many of them to keep."""
    if len(k) == 1:
        members = [np.arange(len(group))]
    else:
        sizes = np.bincount(group, minlength=len(k))[: len(k)]
        members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes))
    return zip(members, k.astype(np.int64).tolist(), strict=False)
