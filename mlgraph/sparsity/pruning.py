"""Cut the lowest-scoring edges or neurons of a model, but keep a path to each output."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32, Float64, Int64
from mlgraph._support.checks import one_of, share, whole
from mlgraph._support.threads import checked_threads
from mlgraph.graph.arrays import Edges, wiring
from mlgraph.graph.edits import cut
from mlgraph.graph.ids import edge_name
from mlgraph.graph.ops import NEURON
from mlgraph.graph.randomness import checked_seed, seeded
from mlgraph.models.model import Model
from mlgraph.sparsity.paths import Bottlenecks, bottleneck_scores, break_ties, frozen_edges, live_edges, minimal_paths
from mlgraph.sparsity.scores import (
    Criterion,
    Data,
    block_scores,
    gradient_for,
    neuron_scores,
    relative_to_threshold,
    scores_from_callable,
    top_k,
)

SCOPES = ("global", "layer")
"""Whether all edges compete with each other, or only with those of their own layer."""


def prune(
    model: Model,
    amount: float | None = None,
    *,
    sparsity: float | None = None,
    neurons: float | None = None,
    by: Criterion,
    scope: str,
    block: int,
    data: Data | None,
    seed: int | None,
    n_threads: int | None,
    step: int = 0,
    gradient: Float32 | None = None,
) -> int:
    """Cut edges or neurons; `Model.prune` describes the other parameters.

    Parameters
    ----------
    step : int
        Number of the training step, so that random choices differ between steps.
    gradient : float32, optional
        The gradient for the saliency, if it is already known.

    Returns
    -------
    int
        How many edges had scores high enough to be kept; 0 for neurons.
    """
    given = {"amount": amount, "sparsity": sparsity, "neurons": neurons}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"prune: expected one of amount, sparsity and neurons, got {' and '.join(given) or 'none'}")
    ((name, value),) = given.items()
    model.require_edges("prune", "only edges, which neurons have, can be cut")
    fraction = share(name, value)
    one_of("scope", scope, SCOPES)
    block = whole("block", block)
    if block > 1 and neurons is not None:
        raise ValueError(f"block: expected 1 where whole neurons are cut, got {block}")
    seed = checked_seed(seed)
    checked_threads(n_threads)
    if gradient is None:
        gradient = gradient_for(model, by, data, n_threads)  # compiles, which may move the parameters
    with seeded(model.graph, seed if by == "random" else 0) as number:
        random = np.random.default_rng([number, 1, step])
        if neurons is None:
            budgets = edge_budgets if amount is None else present_budgets
            return prune_to_budgets(model, *budgets(model, fraction, scope), by, gradient, random, block)
        _prune_neurons(model, fraction, scope, by, gradient, random)
        return 0


def edge_budgets(model: Model, sparsity: float, scope: str) -> tuple[Int64, Float64]:
    """The group of each edge of the graph, and how many edges of each group remain at this sparsity."""
    graph, group, own = model.graph, _node_groups(model, scope), _own_neurons(model)
    budget = np.round((1 - sparsity) * np.bincount(group[own], graph.storage.max_sources_of(graph.records[own])))
    neurons = np.flatnonzero(graph.codes >= NEURON)
    return np.repeat(group[neurons], graph.counts[neurons]), budget


def present_budgets(model: Model, amount: float, scope: str) -> tuple[Int64, Float64]:
    """As `edge_budgets`, if this fraction of the edges of each group that are alive now is cut."""
    group, made = edge_budgets(model, 0.0, scope)
    return group, np.round((1 - amount) * np.bincount(group[live_edges(model).own], minlength=len(made)))


def check_budgets(model: Model, group: Int64, budget: npt.NDArray[Any]) -> None:
    """Raise ValueError if the budgets are too small for a path to each output and for the frozen edges."""
    live = live_edges(model)
    frozen = frozen_edges(model.graph, live, True)
    required = minimal_paths(model, live, frozen)[live.own]
    _check_required(model, "edges", group[live.own[required]], budget, frozen=bool(frozen.any()))


def prune_to_budgets(
    model: Model,
    group: Int64,
    budget: npt.NDArray[Any],
    by: Criterion = "path",
    gradient: Float32 | None = None,
    random: np.random.Generator | None = None,
    block: int = 1,
) -> int:
    """Keep the `budget[g]` best edges of each group g, and one path to each output; return how many edges were kept.

    More edges may be gone afterwards if groups are cut independently: those that no longer lie
    between a live node and an output. Edges that only other models of the graph need stay. While
    the graph is being trained, frozen edges stay; a budget too small for these and for the paths is
    exceeded.

    Parameters
    ----------
    group : int64, shape (edges,)
        The group of each edge of the graph, in the order of `wiring`.
    gradient : float32, optional
        For the saliency, in the layout of the parameter vector.
    block : int
        Number of adjacent neurons that share one score for each source.
    """
    graph, live = model.graph, live_edges(model)
    edges = live.edges
    own: Int64 | slice = live.own if len(live.own) < len(edges.source) else slice(None)  # a slice copies nothing
    candidates = Edges(edges.source[own], edges.target[own], graph.parameters[edges.place[own]])
    if callable(by):
        score = scores_from_callable(graph, by, candidates, len(live.own), "edge")
        live = live._replace(edges=wiring(graph))  # the callable may have run the model and so moved the parameters
        edges = live.edges
    elif by == "random":
        assert random is not None
        score = random.random(len(live.own))
    else:
        with np.errstate(under="ignore"):
            product = candidates.weight if gradient is None else candidates.weight * gradient[edges.place[own]]
        score = np.abs(product).astype(np.float64)
        if np.isnan(score).any():
            k = np.argmax(np.isnan(score))
            edge = edge_name(graph, candidates.source[k], candidates.target[k])
            raise ValueError(f"by: expected weights, or a gradient, that are numbers, got nan from {edge}")
    score, block_ids = block_scores(model, candidates, score, by, block)
    own_group = group[own]
    score = relative_to_threshold(score, own_group, budget)
    frozen = frozen_edges(graph, live, graph.is_training)
    found = bottleneck_scores(model, live, score, frozen)
    required = found.on_path
    if _exceeds(own_group[required[live.own]], budget) or not found.reached:
        required = minimal_paths(model, live, frozen)
        budget = _with_required(model, "edges", own_group[required[live.own]], budget)
    bottleneck = found.score
    if by == "magnitude":  # each edge by itself; of the paths, only the best to each output counts
        bottleneck[own] = score
    bottleneck[required] = np.inf
    if len(budget) == 1 and by != "magnitude":
        bottleneck[own] = break_ties(
            lambda score: bottleneck_scores(model, live, score, required).score[live.own],
            score,
            bottleneck[own],
            int(budget[0]),
            block_ids,
        )
    kept = top_k(bottleneck[own], own_group, budget, score, block_ids)
    gone = np.zeros(len(edges.source), bool)
    gone[live.own[~kept]] = True
    # Some required edges may lead to a frozen one and to no output, so `cut` must not remove them
    # as unneeded.
    cut(graph, edges, gone, if_unneeded=live.alive & ~required)
    return int(np.count_nonzero(kept))


def _prune_neurons(
    model: Model, fraction: float, scope: str, by: Criterion, gradient: Float32 | None, random: np.random.Generator
) -> None:
    """Cut the lowest-scoring hidden neurons until this fraction is gone, but keep a path to each output."""
    graph, group = model.graph, _node_groups(model, scope)
    hidden = np.setdiff1d(_own_neurons(model), list(graph.sinks()))
    budget = np.round((1 - fraction) * np.bincount(group[hidden], minlength=1))
    hidden = hidden[model.alive()[hidden]]
    score = neuron_scores(graph, hidden, by, gradient, random)
    live = live_edges(model)
    edges = live.edges
    frozen = frozen_edges(graph, live, graph.is_training)
    score = relative_to_threshold(score, group[hidden], budget)

    def neuron_bottlenecks(score: Float64) -> Bottlenecks:
        """As `bottleneck_scores`, with the best score of an edge into each neuron."""
        edge_score, best = np.full(len(graph), np.inf), np.full(len(graph), -np.inf)
        edge_score[hidden] = score  # an edge scores as the neuron that it leads to
        found = bottleneck_scores(model, live, edge_score[edges.target[live.own]], frozen, all_sources=False)
        np.maximum.at(best, edges.target, found.score)
        return found._replace(score=best[hidden])

    found = neuron_bottlenecks(score)
    on_path = found.on_path
    required = np.intersect1d(edges.target[on_path], hidden)
    if _exceeds(group[required], budget) or not found.reached:
        on_path = minimal_paths(model, live, frozen, all_sources=False)
        required = np.intersect1d(edges.target[on_path], hidden)
        budget = _with_required(model, "neurons", group[required], budget)
    bottleneck = score if by == "magnitude" else found.score
    bottleneck[np.isin(hidden, required)] = np.inf
    if len(budget) == 1 and by != "magnitude":
        bottleneck = break_ties(lambda score: neuron_bottlenecks(score).score, score, bottleneck, int(budget[0]))
    gone = np.zeros(len(graph), bool)
    gone[hidden[~top_k(bottleneck, group[hidden], budget, score)]] = True
    cut(graph, edges, gone[edges.source] | gone[edges.target], if_unneeded=live.alive & ~on_path)


def _own_neurons(model: Model) -> Int64:
    return np.flatnonzero(model.own() & (model.graph.codes >= NEURON))


def _node_groups(model: Model, scope: str) -> Int64:
    return model.layer_numbers() if scope == "layer" else np.zeros(len(model.graph), np.int64)


def _exceeds(required: npt.NDArray[Any], budget: npt.NDArray[Any]) -> bool:
    """Whether some group has more required members than its budget; `required` lists the group of each."""
    return bool((np.bincount(required, minlength=len(budget)) > budget).any())


def _check_required(
    model: Model, what: str, required: npt.NDArray[Any], budget: npt.NDArray[Any], *, frozen: bool = False
) -> None:
    """Raise ValueError if some group has more required members than its budget."""
    if _exceeds(required, budget):
        least = np.bincount(required, minlength=len(budget))
        i = int(np.argmax(least > budget))
        kind = "layer" if model.layers else "level"
        where = f" of {kind} {i}" if len(budget) > 1 else ""
        name = "sparsity" if what == "edges" else what
        purpose = "paths to all outputs" + " and frozen edges" * frozen
        needed = f"{least[i]} {what if least[i] > 1 else what[:-1]}{where}"
        raise ValueError(f"{name}: {purpose} need at least {needed}, but {int(budget[i])} would remain; prune less")


def _with_required(model: Model, what: str, required: npt.NDArray[Any], budget: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Budgets that are large enough for the required members; ValueError if that changes them outside training.

    A run that began with large enough budgets should not end because a few more edges are required
    later.
    """
    if not model.graph.is_training:
        _check_required(model, what, required, budget)
    return np.asarray(np.maximum(budget, np.bincount(required, minlength=len(budget))))
