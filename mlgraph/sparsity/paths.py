"""The edges of a model that are needed for a path to each output: the strongest such edges, and the fewest."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from mlgraph._support.array_types import Bool, Int64
from mlgraph.graph.arrays import Wiring, wiring
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import is_leaf
from mlgraph.graph.topology import topological
from mlgraph.models.model import Model
from mlgraph.sparsity.scores import Scores
from mlgraph_ext import _topology


class Present(NamedTuple):
    """All edges of a graph, and which of them are alive.

    Attributes
    ----------
    edges : Wiring
    alive : bool
        Which are alive, for one model or another.
    mine : int64
        Places of those that are alive for this one.
    """

    edges: Wiring
    alive: Bool
    mine: Int64


def present(model: Model) -> Present:
    """The edges of a model's graph, as they are now."""
    edges, alive = wiring(model.graph), model.graph.alive()
    there = edges.at_targets(alive)
    there &= alive[edges.source]
    return Present(edges, there, np.flatnonzero(there & edges.at_targets(model.alive())))


def strongest(
    model: Model, there: Present, score: Scores, held: Bool, *, all_sources: bool = True
) -> tuple[Scores, Bool, bool]:
    """The strength of the strongest path through each edge to an output; which edges are on the paths that stay.

    And whether there is a path to each live output, since a score of -infinity lets none through.

    `score` is for `mine` only, `held` for all edges. A path is as strong as its edge of the lowest score; edges that are
    `held` weaken no path. Edges kept for the best strength, not for the best score of their own, lead from live nodes to an
    output, and no output that they reach needs more of them. The paths that stay are one to each output, and one through
    each edge that is held, or to it if none leads on from there.
    """
    graph, (edges, _, mine) = model.graph, there
    topology = graph.topology()
    order, first = topological(graph, topology)[1], np.full(len(graph), -1)
    first[edges.neurons] = np.cumsum(edges.counts) - edges.counts
    leaves, live = is_leaf(graph.codes), graph.live()

    def through(ends: Collection[int]) -> tuple[Scores, Bool, bool]:
        given, strength, chosen = (
            np.full(len(held), np.inf),
            np.empty(len(held)),
            held.copy(),
        )  # what is not mine is not cut
        given[mine] = score
        given[held] = np.inf
        up, down = np.where(leaves, np.inf, -np.inf), np.full(len(graph), -np.inf)
        at = sorted(ends)
        down[at] = np.inf
        _topology.strongest(*topology, order, first, given, up, down, all_sources, strength, chosen.view(np.uint8))
        return strength, chosen, not np.isneginf(up[at][live[at]]).any()

    # Paths to outputs of other models stay, too; but they make no edge of this model strong.
    strength, chosen, reach = through(graph.sinks())
    return (strength if graph.sinks() <= set(model.sinks) else through(model.sinks)[0]), chosen, reach


def refined(
    strength_by: Callable[[Scores], Scores], score: Scores, strength: Scores, wanted: int, together: Int64 | None = None
) -> Scores:
    """Strengths of which no more than `wanted` are as high as the lowest that is kept, if only that many need be kept.

    Everything whose paths lead through one weak edge or neuron is exactly as weak as it. To choose among these by chance alone
    might cut the very one that all others need. So that one is taken to stay, and the others are as strong as their paths are
    without it; where their own scores are equal, too, random ones take their place.

    `strength_by` gives strengths by scores. Members with the same number in `together` have the same chance.
    """
    cut, drawn = len(strength) - wanted, False
    while 0 < wanted < len(strength):
        least = np.partition(strength, cut)[cut]
        equal = strength == least
        if np.isinf(least) or np.count_nonzero(strength >= least) <= wanted:
            break
        now = np.where(strength < least, -np.inf, np.inf)
        if (score[equal] <= least).all():
            if drawn:  # one after the other on the same paths: each is of no use without the others
                break
            chance, least, drawn = np.random.default_rng(0).permutation(len(score)).astype(float), -np.inf, True
            score = chance if together is None else chance[together]
        strength = _told_apart(strength_by, now, equal, score[equal], least)
    return strength


def _told_apart(strength_by: Callable[[Scores], Scores], now: Scores, equal: Bool, own: Scores, least: float) -> Scores:
    """Strengths if no scores up to `least`, nor others so low that all paths of the `equal` ones are as weak, weaken a path.

    `now` is -infinity for what is weaker than these, and infinity for what is stronger; it is changed.
    """
    lowest = np.append(np.unique(own), np.inf)

    def without(few: int) -> Scores:
        now[equal] = np.where(own < lowest[few], np.finfo(float).max, own)
        return strength_by(now)[equal]

    def are_alike(found: Scores) -> bool:
        return bool((found == found[0]).all())

    most, step = len(lowest) - 1, 1
    few = alike = int(np.searchsorted(lowest[:most], least, "right"))
    found = without(few)
    # In a long row each is a bit stronger than the one before: more and more are left out at once, and then as few as will do.
    while few < most and are_alike(found):
        alike, few, step = few, min(few + step, most), 2 * step
        found = without(few)
    while few - alike > 1:
        middle = (few + alike) // 2
        tried = without(middle)
        if are_alike(tried):
            alike = middle
        else:
            few, found = middle, tried
    now[equal] = found
    return now


def fewest(model: Model, there: Present, held: Bool, *, all_sources: bool = True) -> Bool:
    """Few edges that are a path to each output, and one through each edge that is `held`."""
    # Paths through the sources with most readers, and the first of equal ones, have most in common.
    source = there.edges.source[there.mine]
    score = np.bincount(source)[source] - source / len(model.graph)
    return strongest(model, there, score, held, all_sources=all_sources)[1]


def frozen_edges(graph: Graph, there: Present, in_training: bool) -> Bool:
    """Which edges are frozen, including those that no output of the model needs; none unless in training."""
    all_frozen = graph.storage.frozen if in_training else None
    return np.zeros(len(there.edges.source), bool) if all_frozen is None else all_frozen[there.edges.place] > 0
