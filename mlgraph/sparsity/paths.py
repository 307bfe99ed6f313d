"""Bottleneck scores: how good is the best path to an output through each edge?

A path scores as its weakest edge, and an edge as the best path through it. Pruning by this score
never keeps an edge that leads nowhere. This module also finds small sets of edges that keep every
output reachable.
"""

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


class LiveEdges(NamedTuple):
    """All edges of a graph, and which of them are alive.

    Attributes
    ----------
    edges : Wiring
    alive : bool
        Whether each edge is alive for any model of the graph.
    own : int64
        Positions of the edges that are alive for this model.
    """

    edges: Wiring
    alive: Bool
    own: Int64


def live_edges(model: Model) -> LiveEdges:
    """The current edges of a model's graph."""
    edges, alive_nodes = wiring(model.graph), model.graph.alive()
    alive = edges.at_targets(alive_nodes)
    alive &= alive_nodes[edges.source]
    return LiveEdges(edges, alive, np.flatnonzero(alive & edges.at_targets(model.alive())))


class Bottlenecks(NamedTuple):
    """Result of `bottleneck_scores`.

    Attributes
    ----------
    score : float64, shape (edges,)
        The bottleneck score of each edge.
    on_path : bool, shape (edges,)
        One path to each output, and one through each protected edge (or to it, if no path leads on
        from there).
    reached : bool
        Whether each live output has a path; edges of score -infinity count as absent.
    """

    score: Scores
    on_path: Bool
    reached: bool


def bottleneck_scores(
    model: Model, live: LiveEdges, score: Scores, protected: Bool, *, all_sources: bool = True
) -> Bottlenecks:
    """For each edge, the best score among the paths through it to an output; a path scores as its weakest edge.

    The edges with the highest bottleneck scores lead from live nodes to an output, and every node
    on the way keeps a source.

    Parameters
    ----------
    score : float64, shape (own edges,)
        Scores of the edges `live.own` alone.
    protected : bool, shape (edges,)
        Edges that will not be cut. They count as infinitely good.
    """
    graph, edges = model.graph, live.edges
    topology = graph.topology()
    order, first = topological(graph, topology)[1], np.full(len(graph), -1)
    first[edges.neurons] = np.cumsum(edges.counts) - edges.counts
    leaves, live_nodes = is_leaf(graph.codes), graph.live()

    def through(outputs: Collection[int]) -> Bottlenecks:
        given = np.full(len(protected), np.inf)  # edges of other models are not cut
        given[live.own] = score
        given[protected] = np.inf
        up, down = np.where(leaves, np.inf, -np.inf), np.full(len(graph), -np.inf)
        ends = sorted(outputs)
        down[ends] = np.inf
        bottleneck, on_path = np.empty(len(protected)), protected.copy()
        _topology.strongest(*topology, order, first, given, up, down, all_sources, bottleneck, on_path.view(np.uint8))
        return Bottlenecks(bottleneck, on_path, not np.isneginf(up[ends][live_nodes[ends]]).any())

    # Outputs of other models must stay reachable, but do not raise the score of an edge of this
    # model.
    found = through(graph.sinks())
    if graph.sinks() <= set(model.sinks):
        return found
    return found._replace(score=through(model.sinks).score)


def minimal_paths(model: Model, live: LiveEdges, protected: Bool, *, all_sources: bool = True) -> Bool:
    """A small set of edges that forms a path to each output and through each protected edge; bool, shape (edges,)."""
    # Paths overlap most if they prefer the sources with the most readers, and the first of equal
    # ones.
    source = live.edges.source[live.own]
    score = np.bincount(source)[source] - source / len(model.graph)
    return bottleneck_scores(model, live, score, protected, all_sources=all_sources).on_path


def frozen_edges(graph: Graph, live: LiveEdges, in_training: bool) -> Bool:
    """Which edges are frozen, needed by an output or not. Outside training freezing does not protect from pruning."""
    frozen = graph.storage.frozen if in_training else None
    return np.zeros(len(live.edges.source), bool) if frozen is None else frozen[live.edges.place] > 0


def break_ties(
    bottlenecks_of: Callable[[Scores], Scores],
    score: Scores,
    bottleneck: Scores,
    n_keep: int,
    block_ids: Int64 | None = None,
) -> Scores:
    """Bottleneck scores whose ties at the threshold are resolved, so that the best `n_keep` members form whole paths.

    All members whose paths share one weak edge or neuron have its score. A random choice among them
    might cut the shared one, which all others need. So the shared one is assumed to stay, and the
    others get the bottleneck scores that they have without it. Where their own scores are equal as
    well, random scores replace them.

    Parameters
    ----------
    bottlenecks_of : callable
        Returns bottleneck scores for scores.
    score, bottleneck : float64, shape (members,)
        The scores, and their bottleneck scores.
    block_ids : int64, optional
        Members with the same number get the same random score.
    """
    n_cut, randomized = len(bottleneck) - n_keep, False
    while 0 < n_keep < len(bottleneck):
        threshold = np.partition(bottleneck, n_cut)[n_cut]
        tied = bottleneck == threshold
        if np.isinf(threshold) or np.count_nonzero(bottleneck >= threshold) <= n_keep:
            break
        fixed = np.where(bottleneck < threshold, -np.inf, np.inf)
        if (score[tied] <= threshold).all():
            if randomized:  # they lie one after the other on the same paths: each is useless without the others
                break
            chance = np.random.default_rng(0).permutation(len(score)).astype(float)
            score = chance if block_ids is None else chance[block_ids]
            threshold, randomized = -np.inf, True
        bottleneck = _spread_ties(bottlenecks_of, fixed, tied, score[tied], threshold)
    return bottleneck


def _spread_ties(
    bottlenecks_of: Callable[[Scores], Scores], fixed: Scores, tied: Bool, tied_scores: Scores, threshold: float
) -> Scores:
    """Bottleneck scores of all members, with the fewest lowest scores of the tied ones ignored that make these differ.

    All scores up to `threshold` are ignored in any case. `fixed` is -infinity for members below the
    tie and infinity for members above it; it is changed.
    """
    levels = np.append(np.unique(tied_scores), np.inf)

    def ignoring(n: int) -> Scores:
        """Bottleneck scores of the tied members if the n lowest scores weaken no path."""
        fixed[tied] = np.where(tied_scores < levels[n], np.finfo(float).max, tied_scores)
        return bottlenecks_of(fixed)[tied]

    def are_equal(found: Scores) -> bool:
        return bool((found == found[0]).all())

    # Find the smallest number by doubling steps and bisection: in a long chain, each member is
    # slightly better than the last.
    most, step = len(levels) - 1, 1
    n = too_few = int(np.searchsorted(levels[:most], threshold, "right"))
    found = ignoring(n)
    while n < most and are_equal(found):
        too_few, n, step = n, min(n + step, most), 2 * step
        found = ignoring(n)
    while n - too_few > 1:
        middle = (n + too_few) // 2
        tried = ignoring(middle)
        if are_equal(tried):
            too_few = middle
        else:
            n, found = middle, tried
    fixed[tied] = found
    return fixed
