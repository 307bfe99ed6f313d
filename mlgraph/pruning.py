"""Which edges and neurons of a model to cut: the criteria, what a path to each output takes, and the one edit that cuts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph.array_types import Float32, Ids, Mask
from mlgraph.arrays import Edges, Wiring, wiring
from mlgraph.checks import one_of, plain, real_array, share, shown, whole
from mlgraph.edits import cut
from mlgraph.engine import Engine
from mlgraph.examples import Examples
from mlgraph.graph import NEURON, Graph
from mlgraph.lowering import is_live, topological
from mlgraph.model import Model
from mlgraph.network import Network
from mlgraph.storage import FROZEN
from mlgraph.threads import checked_threads
from mlgraph.views import Neuron
from mlgraph_ext import _topology

__all__ = [
    "SCOPES", "Criterion", "Data", "Scores", "accumulated", "asked", "best_of", "check_criterion", "check_room", "check_scores",
    "gradient", "keep_best", "layers_of", "levels_of", "prune", "required_data", "room",
]  # fmt: skip

SCOPES = ("global", "layer")
"""Whether everything is compared with everything, or each layer within itself."""

FEW_EQUAL = 16
"""Edges as strong as the weakest that is kept that may go without a closer look, which takes another pass over all."""

Data = tuple[Any, Any]
Scores = npt.NDArray[np.float64]
Criterion = str | Callable[..., npt.ArrayLike]


def prune(
    model: Model, sparsity: float | None, *, neurons: float | None, by: Criterion, scope: str, block: int, data: Data | None,
    seed: int, n_threads: int | None, step: int = 0, slope: Float32 | None = None,
) -> int:  # fmt: skip
    """Cut edges or neurons; `Model.prune` says what the parameters are. How many edges had scores to be kept; 0 for neurons.

    `step`: when it is done many times, what is random is other each time. `slope`: the gradient, if it is known already.
    """
    if (sparsity is None) == (neurons is None):
        raise ValueError(f"prune: expected either sparsity or neurons, came {'neither' if sparsity is None else 'both'}")
    gone = share("neurons", neurons) if sparsity is None else share("sparsity", sparsity)
    one_of("scope", scope, SCOPES)
    block = whole("block", block)
    if block > 1 and sparsity is None:
        raise ValueError(f"block: expected 1 where whole neurons are cut, came {block}")
    seed = whole("seed", seed, 0, None)
    checked_threads(n_threads)
    if slope is None:
        slope = _slope(model, by, data, n_threads)  # compiles, and may move the parameters
    random = np.random.default_rng([seed, 1, step])
    if neurons is None:
        return keep_best(model, *room(model, gone, scope), by, slope, random, block)
    _keep_best_neurons(model, gone, scope, by, slope, random)
    return 0


def room(model: Model, sparsity: float, scope: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The group of the edges into each node, and how many edges of each group a sparsity leaves."""
    graph, group, mine = model.graph, _groups(model, scope), _own_neurons(model)
    made = np.array(graph.storage.made, np.int64)[np.array(graph._data, np.int64)[mine]]
    return group, np.round((1 - sparsity) * np.bincount(group[mine], made))


def check_room(model: Model, group: npt.NDArray[np.int64], wanted: npt.NDArray[Any]) -> None:
    """Raise ValueError if no `wanted` edges of each group are a path to each output, whichever are the best."""
    graph, edges = model.graph, wiring(model.graph)
    others, mine = _present(model, edges)
    frozen = _frozen(graph, edges, mine, True)
    held = _fewest(model, edges, others, mine, frozen)
    _check_kept(model, "edges", group[edges.target[mine[held[mine]]]], wanted, frozen=bool(frozen.any()))


def check_criterion(by: Criterion) -> None:
    """Raise ValueError if there is no such criterion to prune by."""
    if not callable(by) and not (isinstance(by, str) and by in ("magnitude", "saliency", "random")):
        raise ValueError(f"by: expected magnitude, saliency, random or a callable, came {shown(by)}")


def keep_best(
    model: Model,
    group: npt.NDArray[np.int64],
    wanted: npt.NDArray[Any],
    by: Criterion = "magnitude",
    slope: Float32 | None = None,
    random: np.random.Generator | None = None,
    block: int = 1,
) -> int:
    """Keep the strongest `wanted` edges of each group, of those that are alive; how many. To each output one path stays.

    More may be gone afterwards: what leads from or to nothing that is alive, for the groups are cut apart from each other, and
    of equal ones some at random. What only other models of the graph need is left as it is. While the graph is being trained
    what is frozen stays, and more than is wanted, if that and paths take more.

    Parameters
    ----------
    group : int64, shape (nodes,)
        The group of the edges into each neuron.
    slope : float32, optional
        The gradient, in the places of the parameter vector, for the saliency.
    block : int
        Neurons side by side that have one score for each source.
    """
    graph, edges = model.graph, wiring(model.graph)
    others, mine = _present(model, edges)
    few = Edges(edges.source[mine], edges.target[mine], graph.parameters[edges.place[mine]])
    if callable(by):
        score = asked(graph, by, few, len(mine), "edge")
        edges = wiring(graph)
    elif by == "random":
        assert random is not None
        score = random.random(len(mine))
    else:
        score = np.abs(few.weight if slope is None else few.weight * slope[edges.place[mine]]).astype(np.float64)
    if not callable(by) and np.isnan(score).any():
        i = int(np.argmax(np.isnan(score)))
        ends = " to ".join(plain(graph[int(end[i])].name) for end in (few.source, few.target))
        raise ValueError(f"by: expected weights, or a gradient, that are numbers, came nan from {ends}")
    score, together = in_blocks(model, few, score, by, block)
    into = group[few.target]
    score = _comparable(score, into, wanted)
    frozen = _frozen(graph, edges, mine, graph._is_training)
    strength, held = _strongest(model, edges, others, mine, score, frozen)
    if _exceeds(into[held[mine]], wanted) or _cuts_off(graph, edges, held):
        held = _fewest(model, edges, others, mine, frozen)
        wanted = _with_room(model, "edges", into[held[mine]], wanted)
    strength[held] = np.inf
    if len(wanted) == 1:
        strength[mine] = _refined(model, edges, others, mine, score, strength[mine], held, int(wanted[0]))
    kept = best_of(strength[mine], into, wanted, score, together)
    gone = np.ones(len(edges.source), bool)
    gone[others] = gone[mine[kept]] = False
    cut(graph, edges, gone, sweep=True)
    return int(np.count_nonzero(kept))


# --- scores and groups ------------------------------------------------------------------------------------------------


def gradient(model: Model, x: Any, y: Any, n_threads: int | None = None) -> Float32:
    """Gradient of the mean loss over data for training, in the places of the parameter vector; zero for padding."""
    examples, loss = model._examples_and_loss(x, y, "data ")
    examples.check_trainable()
    return accumulated(model._engine("loss"), examples, n_threads, **loss)


def accumulated(engine: Engine, examples: Examples, n_threads: int | None, **loss: Any) -> Float32:
    """Gradient of the mean over the examples (of the sum, for cotangents), in steps that do not need much memory."""
    graph, n = engine.graph, len(examples)
    size = min(n, engine.plan.examples_at_once)
    full = n // size
    total = np.zeros(len(graph.parameters), np.float32)
    for first, steps, length in ((0, full, size), (full * size, 1, n - full * size)):
        if length:
            graph.storage.state_vector("gradient", fresh=True)
            try:
                engine.run(
                    examples, **loss, first=first + size * np.arange(steps), size=np.full(steps, length),
                    optimizer="accumulate", backward=True, n_threads=n_threads,
                )  # fmt: skip
            finally:
                part = graph.storage.state.pop("gradient")
            total += part if loss["loss"] == "cotangent" else part * np.float32(length / n)
    return total


def required_data(who: str, by: str, data: Data | None) -> Data:
    """(x, y) as it was given; ValueError if it was not."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(f"data: expected (x, y) to {who} by {by}, came {'none' if data is None else shown(data)}")
    return data[0], data[1]


def asked(graph: Graph, by: Callable[..., npt.ArrayLike], things: Any, n: int, what: str) -> Scores:
    """The scores that a callable gives n edges or neurons. It may run the graph, which may move the parameters."""
    edits = graph.edits
    array = real_array("by", by(things)).astype(np.float64)
    if graph.edits != edits:
        raise RuntimeError("by: expected a criterion that leaves the graph as it is, came one that has edited it")
    if array.shape != (n,):
        raise ValueError(f"by: expected a score for each {what}, shape ({n},), came {array.shape}")
    return array


def check_scores(score: Scores) -> None:
    """Raise ValueError if one is NaN."""
    if np.isnan(score).any():
        raise ValueError("by: expected scores that are numbers, came nan")


def best_of(
    score: Scores, group: npt.NDArray[Any], wanted: npt.NDArray[Any], own: Scores | None = None,
    together: npt.NDArray[np.int64] | None = None,
) -> Mask:  # fmt: skip
    """The best of each group, `wanted[group]` of them; of equal ones some at random, always the same.

    The first of equal ones would be those of one layer. Where `score` is that of a path, the scores of its members by
    themselves, `own`, come before chance: first those that make it weak, without which the others are of no use. Chance
    takes what has one number in `together` one after the other.
    """
    keep, random = np.zeros(len(score), bool), np.random.default_rng(0)  # one: groups of one size lose other places
    for mine, most in _members(group, wanted):
        if most >= len(mine):
            keep[mine] = True
        elif most > 0:
            values = score[mine]
            least = np.partition(values, len(values) - most)[len(values) - most]
            keep[mine[values > least]] = True
            equal = random.permutation(mine[values == least])
            if together is not None:
                place = random.permutation(len(score))
                equal = equal[np.argsort(place[together[equal]], kind="stable")]
            if own is not None:
                equal = equal[np.argsort(-np.where(own[equal] <= least, np.inf, own[equal]), kind="stable")]
            keep[equal[: most - np.count_nonzero(values > least)]] = True
    return keep


def in_blocks(
    model: Model, edges: Edges, score: Scores, by: Criterion, block: int
) -> tuple[Scores, npt.NDArray[np.int64] | None]:
    """For each edge the score of its block, and a number that those of the block have in common; none for blocks of one."""
    if block == 1:
        return score, None
    check_scores(score)
    together = _block_of(model, edges, block)
    return _of_blocks(score, together, by), together


def layers_of(model: Model) -> npt.NDArray[np.int64]:
    """The layer of each node, behind them one for all nodes that are in none; the level of each, where there are no layers."""
    if not isinstance(model, Network):
        return levels_of(model.graph)
    number = np.full(len(model.graph), len(model.layers))
    for i, layer in enumerate(model.layers):
        number[layer._ids.start : layer._ids.stop] = i
    return number


def levels_of(graph: Graph) -> npt.NDArray[np.int64]:
    """The level of each node: nodes of one level do not depend on each other."""
    return topological(graph, *graph.topology())[0].astype(np.int64)


# --- inside -----------------------------------------------------------------------------------------------------------


def _slope(model: Model, by: Criterion, data: Data | None, n_threads: int | None) -> Float32 | None:
    """The gradient, if the criterion takes it."""
    if isinstance(by, str) and by == "saliency":
        return gradient(model, *required_data("prune", by, data), n_threads)
    check_criterion(by)
    return None


def _keep_best_neurons(
    model: Model, gone: float, scope: str, by: Criterion, slope: Float32 | None, random: np.random.Generator
) -> None:
    """Keep the strongest neurons, all but this share, of those that are alive; to each output one path stays."""
    graph, group = model.graph, _groups(model, scope)
    hidden = np.setdiff1d(_own_neurons(model), list(graph.protected()))
    total = np.bincount(group[hidden], minlength=1)
    hidden = hidden[model._needed()[hidden]]
    score, wanted = _neuron_scores(graph, hidden, by, slope, random), np.round((1 - gone) * total)
    edges = wiring(graph)
    others, present = _present(model, edges)
    # An edge is as good as the neuron that it leads to.
    into, frozen = np.full(len(graph), np.inf), _frozen(graph, edges, present, graph._is_training)
    into[hidden] = _comparable(score, group[hidden], wanted)
    strength, chosen = _strongest(model, edges, others, present, into[edges.target[present]], frozen, all_sources=False)
    held = np.intersect1d(edges.target[chosen], hidden)
    if _exceeds(group[held], wanted) or _cuts_off(graph, edges, chosen):
        held = np.intersect1d(edges.target[_fewest(model, edges, others, present, frozen, all_sources=False)], hidden)
        wanted = _with_room(model, "neurons", group[held], wanted)
    best = np.full(len(graph), -np.inf)
    np.maximum.at(best, edges.target, strength)
    best[held] = np.inf
    lost = np.zeros(len(graph), bool)
    lost[hidden[~best_of(best[hidden], group[hidden], wanted, into[hidden])]] = True
    cut(graph, edges, lost[edges.source] | lost[edges.target], sweep=True)


def _neuron_scores(
    graph: Graph, hidden: Ids, by: Criterion, slope: Float32 | None, random: np.random.Generator
) -> Scores:
    """Scores of neurons.

    The magnitude is the norm of the incoming weights times that of the outgoing ones, which scaling the one against the
    other leaves as it is. The saliency is the sum of weight x gradient over the outgoing edges: what the loss loses, to first
    order, with the neuron's value (Molchanov et al. 2017, Pruning convolutional neural networks).
    """
    if callable(by):
        return asked(graph, by, [Neuron(graph, i) for i in hidden.tolist()], len(hidden), "neuron")
    if by == "random":
        return random.random(len(hidden))
    edges = wiring(graph)
    weight = graph.parameters[edges.place].astype(np.float64)
    if slope is not None:
        return np.abs(np.bincount(edges.source, weight * slope[edges.place], len(graph)))[hidden]
    into, out = (np.bincount(ids, weight**2, len(graph))[hidden] for ids in (edges.target, edges.source))
    return np.asarray(np.sqrt(into * out))


def _own_neurons(model: Model) -> npt.NDArray[np.int64]:
    return np.flatnonzero(model._own() & (model.graph.codes >= NEURON))


def _groups(model: Model, scope: str) -> npt.NDArray[np.int64]:
    return layers_of(model) if scope == "layer" else np.zeros(len(model.graph), np.int64)


def _present(model: Model, edges: Wiring) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of all edges those that are alive for other models alone, and those for this one."""
    alive = model.graph.alive()
    there = alive[edges.source] & alive[edges.target]
    own = model._needed()[edges.target]
    return np.flatnonzero(there & ~own), np.flatnonzero(there & own)


def _strongest(
    model: Model, edges: Wiring, others: npt.NDArray[np.int64], mine: npt.NDArray[np.int64], score: Scores, held: Mask,
    *, all_sources: bool = True,
) -> tuple[Scores, Mask]:  # fmt: skip
    """Of each edge the strength of the strongest path through it to an output; which edges are on those that stay.

    A path is as strong as its edge of the lowest score; those that are `held` make none weak. What is kept for being best by
    that, and not by its own score alone, leads from something that is alive to an output, and no output that such edges reach
    needs more of them. What stays is one path to each output, and one through each edge that is held.
    """
    graph = model.graph
    start, count, pool = graph.topology()
    order, first = topological(graph, start, count, pool)[1], np.full(len(graph), -1)
    first[edges.neurons] = np.cumsum(edges.counts) - edges.counts
    live = is_live(graph.codes, start, count, pool, order[:0])

    def through(ends: Collection[int]) -> tuple[Scores, Mask]:
        given, strength, chosen = np.full(len(held), -np.inf), np.empty(len(held)), held.copy()
        given[others], given[mine] = np.inf, score
        given[held] = np.inf
        up, down = np.where(live, np.inf, -np.inf), np.full(len(graph), -np.inf)
        down[sorted(ends)] = np.inf
        _topology.strongest(start, count, pool, order, first, given, up, down, all_sources, strength, chosen.view(np.uint8))
        return strength, chosen

    # Paths to outputs of other models stay as well; but they make nothing of this model strong.
    strength, chosen = through(graph.protected())
    return (strength if graph.protected() <= set(model._sinks) else through(model._sinks)[0]), chosen


def _refined(
    model: Model, edges: Wiring, others: npt.NDArray[np.int64], mine: npt.NDArray[np.int64], score: Scores, strength: Scores,
    held: Mask, wanted: int,
) -> Scores:  # fmt: skip
    """Strengths of which few are equal, where some equal ones are kept and some are not, if scores tell them from each other.

    Behind one weak edge all are as weak. If it stays, they are as strong as the paths through them and it are without it.
    """
    for _ in range(len(model.graph)):
        if not 0 < wanted < len(mine):
            break
        least = np.partition(strength, len(mine) - wanted)[len(mine) - wanted]
        equal = strength == least
        if np.isinf(least) or np.count_nonzero(strength >= least) <= wanted + FEW_EQUAL:
            break
        now = np.where(strength > least, np.inf, -np.inf)
        now[equal] = np.where(score[equal] <= least, np.finfo(float).max, score[equal])  # infinite is what is held alone
        found = _strongest(model, edges, others, mine, now, held)[0][mine]
        if (found[equal] == found[equal][0]).all():
            break
        strength = np.where(equal, found, now)
    return strength


def _fewest(
    model: Model, edges: Wiring, others: npt.NDArray[np.int64], mine: npt.NDArray[np.int64], held: Mask,
    *, all_sources: bool = True,
) -> Mask:  # fmt: skip
    """Few edges that are a path to each output, and one through each edge that is `held`."""
    # Paths by the sources that most read, and of these by the first, have most in common.
    source = edges.source[mine]
    score = np.bincount(source)[source] - source / len(model.graph)
    return _strongest(model, edges, others, mine, score, held, all_sources=all_sources)[1]


def _frozen(graph: Graph, edges: Wiring, mine: npt.NDArray[np.int64], in_training: bool) -> Mask:
    """Which edges are frozen, of `mine`; none but in training."""
    frozen, storage = np.zeros(len(edges.source), bool), graph.storage
    if in_training and FROZEN in storage.state:
        frozen[mine] = storage.state_vector(FROZEN, fresh=False)[edges.place[mine]] > 0
    return frozen


def _block_of(model: Model, edges: Edges, block: int) -> npt.NDArray[np.int64]:
    """A number for each edge, one for those that lead from the same source to neurons of the same block."""
    graph, layer = model.graph, layers_of(model)
    place = np.cumsum(graph.codes >= NEURON) - 1  # among the neurons as they were made, which no cut changes
    if isinstance(model, Network):
        for one in model.layers:
            place[one._ids.start : one._ids.stop] -= place[one._ids.start]
    number = np.unique(layer * len(graph) + place // block, return_inverse=True)[1]
    return np.asarray(np.unique(number[edges.target] * len(graph) + edges.source, return_inverse=True)[1])


def _of_blocks(score: Scores, together: npt.NDArray[np.int64], by: Criterion) -> Scores:
    """For each score that of all that have its number: the root of the mean square, of a callable's the mean.

    A mean of what is random would be less so than one number, and blocks with few edges the first to be chosen or left.
    """
    if by == "random":
        return score[np.unique(together, return_index=True)[1]][together]
    limit = np.finfo(float).max / max(1, len(score))  # of what is added up: no sum is infinite
    score = np.clip(score, -limit, limit) if callable(by) else np.minimum(np.abs(score), np.sqrt(limit)) ** 2
    mean = np.bincount(together, score) / np.bincount(together)
    return np.asarray((mean if callable(by) else np.sqrt(mean))[together])


def _comparable(score: Scores, group: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> Scores:
    """Scores of several groups as distances from the lowest that each keeps, so that they can be compared; none is NaN.

    What is infinite is what has no choice: of a group that keeps nothing -infinity.
    """
    check_scores(score)
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


def _cuts_off(graph: Graph, edges: Wiring, held: Mask) -> bool:
    """Whether to some output there is no path, for want of room in a layer."""
    outputs = np.array(sorted(graph.protected()), np.int64)
    return not np.isin(outputs[graph.codes[outputs] >= NEURON], edges.target[held]).all()


def _exceeds(group: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> bool:
    """Whether what is in these groups is more than is wanted of one."""
    return bool((np.bincount(group, minlength=len(wanted)) > wanted).any())


def _check_kept(
    model: Model, what: str, group: npt.NDArray[Any], wanted: npt.NDArray[Any], *, frozen: bool = False
) -> None:
    """Raise ValueError if what must be kept, and is in these groups, is more than is wanted of one."""
    if _exceeds(group, wanted):
        least = np.bincount(group, minlength=len(wanted))
        i = int(np.argmax(least > wanted))
        kind = "layer" if isinstance(model, Network) else "level"
        where = f" of {kind} {i}" if len(wanted) > 1 else ""
        kept = f"{least[i]} {what if least[i] > 1 else what[:-1]}{where}, a path to each output{' and what is frozen' * frozen}"
        name = "sparsity" if what == "edges" else what
        raise ValueError(f"{name}: expected to keep at least {kept}, came {int(wanted[i])}")


def _with_room(model: Model, what: str, group: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How many of each group are kept, where these must be; a run has begun with enough, and is not ended for a few more."""
    if not model.graph._is_training:
        _check_kept(model, what, group, wanted)
    return np.asarray(np.maximum(wanted, np.bincount(group, minlength=len(wanted))))


def _members(group: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """The members of each group, and how many are wanted."""
    sizes = np.bincount(group, minlength=len(wanted))[: len(wanted)]
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)) if len(wanted) > 1 else [np.arange(len(group))]
    return zip(members, wanted.astype(np.int64).tolist(), strict=False)
