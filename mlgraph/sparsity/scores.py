"""Scores of edges and neurons, by a criterion, and the best of each group by them."""

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
from mlgraph.models.running import engine_of, read_with_targets

Data = tuple[Any, Any]
Scores = Float64
Criterion = str | Callable[..., npt.ArrayLike]

CRITERIA = ("magnitude", "saliency", "random")
"""The criteria of pruning that have names."""


def check_criterion(by: Criterion, names: Sequence[str] = CRITERIA) -> None:
    """Raise TypeError or ValueError if `by` is neither callable nor one of `names`, by default those for pruning."""
    if not callable(by) and not (isinstance(by, str) and by in names):
        raise wrong("by", f"{', '.join(names)} or a callable", by, isinstance(by, str))


def gradient(model: Model, x: Any, y: Any, n_threads: int | None = None) -> Float32:
    """Gradient of the mean loss over training data, in the layout of the parameter vector, as `Engine.gradient` has it."""
    examples, objective = read_with_targets(model, x, y, "data ")
    examples.check_trainable()
    return engine_of(model).gradient(examples, objective, n_threads)


def data_for(who: str, by: Criterion, data: Data | None, needed: bool) -> Data | None:
    """(x, y) if `by` needs them, else None; a ValueError if they are not given, or something else is."""
    if (needed or data is not None) and (not isinstance(data, tuple | list) or len(data) != 2):
        how = by if isinstance(by, str) else "a callable"
        raise ValueError(f"data: expected (x, y) to {who} by {how}, got {'none' if data is None else shown(data)}")
    return data if needed else None


def scores_by(graph: Graph, by: Callable[..., npt.ArrayLike], things: Any, n: int, what: str) -> Scores:
    """The scores that a callable gives n edges or neurons, none NaN. It may run the graph, and so move the parameters."""
    edits = graph.edits
    if isinstance(things, Edges):  # into a copy of which it may write, to make its scores in place
        things = Edges(things.source.copy(), things.target.copy(), things.weight.copy())
    try:
        given = by(things)
    except StopIteration as error:  # else it would be taken for the end of a run
        raise RuntimeError("by: expected scores, got StopIteration") from error
    array = real_array("by", given).astype(np.float64)
    if graph.edits != edits:
        raise RuntimeError("by: expected a criterion that leaves the graph as it is, got one that has edited it")
    if array.shape != (n,):
        raise ValueError(f"by: expected a score for each {what}, shape ({n},), got {array.shape}")
    return without_nan(array)


def without_nan(score: Scores) -> Scores:
    """The scores; a ValueError if one is NaN."""
    if np.isnan(score).any():
        raise ValueError("by: expected scores that are numbers, got nan")
    return score


def best_of(
    score: Scores,
    group: npt.NDArray[Any],
    wanted: npt.NDArray[Any],
    own: Scores | None = None,
    together: Int64 | None = None,
) -> Bool:
    """The best of each group, `wanted[group]` of them; of equal ones some at random, always the same.

    (The first of equal ones would all be of one layer.) If `score` is that of a path, its equal members are taken by their
    `own` scores before chance decides: first the members that make it weak, without which the others are of no use. Chance
    takes members with the same number in `together` one after the other.
    """
    keep, random = (
        np.zeros(len(score), bool),
        np.random.default_rng(0),
    )  # one for all: groups of one size lose other places
    for mine, most in _members(group, wanted):
        if most >= len(mine):
            keep[mine] = True
        elif most > 0:
            values = score[mine]
            least = np.partition(values, len(values) - most)[len(values) - most]
            better = values > least
            keep[mine[better]] = True
            equal = random.permutation(mine[values == least])
            if together is not None:
                place = random.permutation(len(score))
                equal = equal[np.argsort(place[together[equal]], kind="stable")]
            if own is not None:
                equal = equal[np.argsort(-np.where(own[equal] <= least, np.inf, own[equal]), kind="stable")]
            keep[equal[: most - np.count_nonzero(better)]] = True
    return keep


def in_blocks(model: Model, edges: Edges, score: Scores, by: Criterion, block: int) -> tuple[Scores, Int64 | None]:
    """For each edge the score of its block, and the number of its block, or None if blocks have one neuron."""
    if block == 1:
        return score, None
    together = _block_of(model, edges, block)
    return _of_blocks(score, together, by), together


def slope_for(model: Model, by: Criterion, data: Data | None, n_threads: int | None) -> Float32 | None:
    """The gradient, if the criterion needs it."""
    check_criterion(by)
    given = data_for("prune", by, data, isinstance(by, str) and by == "saliency")
    return None if given is None else gradient(model, *given, n_threads)


def neuron_scores(
    graph: Graph, hidden: Int32, by: Criterion, slope: Float32 | None, random: np.random.Generator
) -> Scores:
    """Scores of neurons, none NaN.

    The magnitude is the norm of the incoming weights times that of the outgoing ones: scaling the ones up and the others
    down does not change it. The saliency is the sum of weight x gradient over the outgoing edges: what the loss loses, to
    first order, with the neuron's value (Molchanov et al. 2017, Pruning convolutional neural networks).
    """
    if callable(by):
        return scores_by(graph, by, [Neuron(graph, i) for i in hidden.tolist()], len(hidden), "neuron")
    if by == "random":
        return random.random(len(hidden))
    edges = wiring(graph)
    weight = graph.parameters[edges.place].astype(np.float64)
    if slope is not None:
        return without_nan(np.abs(np.bincount(edges.source, weight * slope[edges.place], len(graph)))[hidden])
    into, out = (np.bincount(ids, weight**2, len(graph))[hidden] for ids in (edges.target, edges.source))
    return without_nan(np.sqrt(into * out))


def _block_of(model: Model, edges: Edges, block: int) -> Int64:
    """A number for each edge; edges from one source to neurons of one block have the same."""
    graph, layer = model.graph, model.layer_numbers()
    place = np.cumsum(graph.codes >= NEURON) - 1  # in the order in which neurons were made, which no cut changes
    for one in model.layers:
        place[one.ids] = np.arange(one.size)
    number = np.unique(layer * len(graph) + place // block, return_inverse=True)[1]
    return np.asarray(np.unique(number[edges.target] * len(graph) + edges.source, return_inverse=True)[1])


def _of_blocks(score: Scores, together: Int64, by: Criterion) -> Scores:
    """For each score that of its block: the root mean square, for a callable the mean, and at random one number.

    A mean of random numbers would vary more in blocks with few edges: these would be the first to be chosen or left.
    """
    if by == "random":
        return score[np.unique(together, return_index=True)[1]][together]
    limit = np.finfo(float).max / max(1, len(score))  # so that no sum is infinite
    score = np.clip(score, -limit, limit) if callable(by) else score**2  # finite: weights and gradients are float32
    mean = np.bincount(together, score) / np.bincount(together)
    return np.asarray((mean if callable(by) else np.sqrt(mean))[together])


def comparable(score: Scores, group: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> Scores:
    """Scores of several groups as distances from the lowest that each keeps, so that they can be compared.

    Only scores of a group that keeps nothing are infinite: -infinity.
    """
    if len(wanted) == 1:
        return np.clip(score, np.finfo(float).min, np.finfo(float).max)
    score = np.clip(score, np.finfo(float).min / 2, np.finfo(float).max / 2)
    for mine, most in _members(group, wanted):
        if most == 0:
            score[mine] = -np.inf
        elif len(mine):
            least = len(mine) - min(most, len(mine))
            score[mine] -= np.partition(score[mine], least)[least]
    return score


def _members(group: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> Iterator[tuple[Int64, int]]:
    """The members of each group, and how many are wanted."""
    if len(wanted) == 1:
        members = [np.arange(len(group))]
    else:
        sizes = np.bincount(group, minlength=len(wanted))[: len(wanted)]
        members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes))
    return zip(members, wanted.astype(np.int64).tolist(), strict=False)
