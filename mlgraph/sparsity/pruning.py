"""Cutting edges and neurons of a model: of each group a number is kept, the best and a path to each output."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Float64, Int64
from mlgraph._support.checks import MOST_SEED, one_of, share, whole
from mlgraph._support.threads import checked_threads
from mlgraph.graph.arrays import Edges, wiring
from mlgraph.graph.edits import cut
from mlgraph.graph.ids import edge_name
from mlgraph.graph.ops import NEURON
from mlgraph.models.model import Model
from mlgraph.sparsity.paths import fewest, frozen_edges, present, refined, strongest
from mlgraph.sparsity.scores import Criterion, Data, best_of, comparable, in_blocks, neuron_scores, scores_by, slope_for

__all__ = ["SCOPES", "check_room", "keep_best", "prune", "room"]

SCOPES = ("global", "layer")
"""Whether everything is compared with everything, or each layer within itself."""


def prune(
    model: Model,
    sparsity: float | None,
    *,
    neurons: float | None,
    by: Criterion,
    scope: str,
    block: int,
    data: Data | None,
    seed: int,
    n_threads: int | None,
    step: int = 0,
    slope: Float32 | None = None,
) -> int:
    """Cut edges or neurons, as `Model.prune`. Returns how many edges had scores to be kept; 0 for neurons.

    `step`: its number if there are many, so that random choices differ. `slope`: the gradient, if it is known already.
    """
    if (sparsity is None) == (neurons is None):
        raise ValueError(f"prune: expected either sparsity or neurons, got {'neither' if sparsity is None else 'both'}")
    gone = share("neurons", neurons) if sparsity is None else share("sparsity", sparsity)
    one_of("scope", scope, SCOPES)
    block = whole("block", block)
    if block > 1 and sparsity is None:
        raise ValueError(f"block: expected 1 where whole neurons are cut, got {block}")
    seed = whole("seed", seed, 0, MOST_SEED)
    checked_threads(n_threads)
    if slope is None:
        slope = slope_for(model, by, data, n_threads)  # compiles, and may move the parameters
    random = np.random.default_rng([seed, 1, step])
    if neurons is None:
        return keep_best(model, *room(model, gone, scope), by, slope, random, block)
    _keep_best_neurons(model, gone, scope, by, slope, random)
    return 0


def room(model: Model, sparsity: float, scope: str) -> tuple[Int64, Float64]:
    """The group of each edge of the graph, and how many edges of each group a sparsity leaves."""
    graph, group, mine = model.graph, _groups(model, scope), _own_neurons(model)
    left = np.round((1 - sparsity) * np.bincount(group[mine], graph.storage.max_sources_of(graph.records[mine])))
    neurons = np.flatnonzero(graph.codes >= NEURON)
    return np.repeat(group[neurons], graph.counts[neurons]), left


def check_room(model: Model, group: Int64, wanted: npt.NDArray[Any]) -> None:
    """Raise ValueError if no choice of `wanted` edges of each group leaves a path to each output."""
    there = present(model)
    mine, frozen = there.mine, frozen_edges(model.graph, there, True)
    held = fewest(model, there, frozen)
    _check_kept(model, "edges", group[mine[held[mine]]], wanted, frozen=bool(frozen.any()))


def keep_best(
    model: Model,
    group: Int64,
    wanted: npt.NDArray[Any],
    by: Criterion = "magnitude",
    slope: Float32 | None = None,
    random: np.random.Generator | None = None,
    block: int = 1,
) -> int:
    """Keep the strongest `wanted` edges of each group that the model needs; return how many. One path to each output stays.

    More edges may be gone afterwards, if groups are cut independently: those that lead from or to nothing that is alive.
    Edges that only other models of the graph need stay. While the graph is being trained, frozen edges stay, and more edges
    than wanted, if these and the paths need more.

    Parameters
    ----------
    group : int64, shape (edges,)
        The group of each edge of the graph, in the order of `wiring`.
    slope : float32, optional
        The gradient, in the layout of the parameter vector, for the saliency.
    block : int
        Adjacent neurons that have one score for each source.
    """
    graph, there = model.graph, present(model)
    edges, _, mine = there
    at: Int64 | slice = mine if len(mine) < len(edges.source) else slice(None)
    candidates = Edges(edges.source[at], edges.target[at], graph.parameters[edges.place[at]])
    if callable(by):
        score = scores_by(graph, by, candidates, len(mine), "edge")
        edges = wiring(graph)  # the callable may have run the model, and so moved the parameters
        there = there._replace(edges=edges)
    elif by == "random":
        assert random is not None
        score = random.random(len(mine))
    else:
        with np.errstate(under="ignore"):
            worth = candidates.weight if slope is None else candidates.weight * slope[edges.place[at]]
        score = np.abs(worth).astype(np.float64)
        if np.isnan(score).any():
            k = np.argmax(np.isnan(score))
            edge = edge_name(graph, candidates.source[k], candidates.target[k])
            raise ValueError(f"by: expected weights, or a gradient, that are numbers, got nan from {edge}")
    score, together = in_blocks(model, candidates, score, by, block)
    into = group[at]
    score = comparable(score, into, wanted)
    frozen = frozen_edges(graph, there, graph.is_training)
    strength, held, reach = strongest(model, there, score, frozen)
    if _exceeds(into[held[mine]], wanted) or not reach:
        held = fewest(model, there, frozen)
        wanted = _with_room(model, "edges", into[held[mine]], wanted)
    strength[held] = np.inf
    if len(wanted) == 1:
        strength[at] = refined(
            lambda score: strongest(model, there, score, held)[0][mine], score, strength[at], int(wanted[0]), together
        )
    kept = best_of(strength[at], into, wanted, score, together)
    gone = np.zeros(len(edges.source), bool)
    gone[mine[~kept]] = True
    cut(
        graph, edges, gone, if_unneeded=there.alive & ~held
    )  # of which some may lead to what is frozen and to no output
    return int(np.count_nonzero(kept))


def _keep_best_neurons(
    model: Model, gone: float, scope: str, by: Criterion, slope: Float32 | None, random: np.random.Generator
) -> None:
    """Of the neurons that the model needs keep the strongest, until this share is gone; one path to each output stays."""
    graph, group = model.graph, _groups(model, scope)
    hidden = np.setdiff1d(_own_neurons(model), list(graph.sinks()))
    total = np.bincount(group[hidden], minlength=1)
    hidden = hidden[model.alive()[hidden]]
    score, wanted = neuron_scores(graph, hidden, by, slope, random), np.round((1 - gone) * total)
    edges, _, mine = there = present(model)
    frozen, score = frozen_edges(graph, there, graph.is_training), comparable(score, group[hidden], wanted)

    def through(score: Float64) -> tuple[Float64, Bool, bool]:
        """The strength of each neuron, that of the strongest edge into it; and as `strongest`."""
        into, best = np.full(len(graph), np.inf), np.full(len(graph), -np.inf)
        into[hidden] = score  # an edge is as good as the neuron that it leads to
        strength, chosen, reach = strongest(model, there, into[edges.target[mine]], frozen, all_sources=False)
        np.maximum.at(best, edges.target, strength)
        return best[hidden], chosen, reach

    strength, chosen, reach = through(score)
    held = np.intersect1d(edges.target[chosen], hidden)
    if _exceeds(group[held], wanted) or not reach:
        chosen = fewest(model, there, frozen, all_sources=False)
        held = np.intersect1d(edges.target[chosen], hidden)
        wanted = _with_room(model, "neurons", group[held], wanted)
    strength[np.isin(hidden, held)] = np.inf
    if len(wanted) == 1:
        strength = refined(lambda score: through(score)[0], score, strength, int(wanted[0]))
    lost = np.zeros(len(graph), bool)
    lost[hidden[~best_of(strength, group[hidden], wanted, score)]] = True
    cut(graph, edges, lost[edges.source] | lost[edges.target], if_unneeded=there.alive & ~chosen)


def _own_neurons(model: Model) -> Int64:
    return np.flatnonzero(model.own() & (model.graph.codes >= NEURON))


def _groups(model: Model, scope: str) -> Int64:
    return model.layer_numbers() if scope == "layer" else np.zeros(len(model.graph), np.int64)


def _exceeds(group: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> bool:
    """Whether some group has more members in `group` than are wanted."""
    return bool((np.bincount(group, minlength=len(wanted)) > wanted).any())


def _check_kept(
    model: Model, what: str, group: npt.NDArray[Any], wanted: npt.NDArray[Any], *, frozen: bool = False
) -> None:
    """Raise ValueError if more must be kept of some group (`group` lists the groups of what must be kept) than is wanted."""
    if _exceeds(group, wanted):
        least = np.bincount(group, minlength=len(wanted))
        i = int(np.argmax(least > wanted))
        kind = "layer" if model.layers else "level"
        where = f" of {kind} {i}" if len(wanted) > 1 else ""
        kept = f"{least[i]} {what if least[i] > 1 else what[:-1]}{where}, a path to each output{' and what is frozen' * frozen}"
        name = "sparsity" if what == "edges" else what
        raise ValueError(f"{name}: expected to keep at least {kept}, got {int(wanted[i])}")


def _with_room(model: Model, what: str, group: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How many of each group are kept, if these must be; a run that began with enough is not ended for a few more."""
    if not model.graph.is_training:
        _check_kept(model, what, group, wanted)
    return np.asarray(np.maximum(wanted, np.bincount(group, minlength=len(wanted))))
