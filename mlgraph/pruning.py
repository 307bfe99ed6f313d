"""Which edges and neurons of a model to cut, and which edges to grow: the criteria, and the one edit each decision makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph.array_types import Float32, Ids, Mask
from mlgraph.arrays import Edges, Wiring, wiring
from mlgraph.checks import one_of, real_array, share, shown, whole
from mlgraph.edits import cut, grow
from mlgraph.engine import Engine, Examples, checked_threads
from mlgraph.graph import INPUT, NEURON, Graph
from mlgraph.lowering import is_live, topological
from mlgraph.model import Model
from mlgraph.network import Network
from mlgraph.plan import Plan
from mlgraph.trace import trace
from mlgraph.views import Neuron
from mlgraph_ext import _topology

__all__ = [
    "Places", "absent", "absent_gradient", "check_criterion", "check_room", "gradient", "grow_best", "keep_best",
    "layers_of", "levels_of", "place_scores", "prune", "regrow", "room",
]  # fmt: skip

SCOPES = ("global", "layer")
"""Whether everything is compared with everything, or each layer within itself."""

Data = tuple[Any, Any]
Scores = npt.NDArray[np.float64]
Criterion = str | Callable[..., npt.ArrayLike]


class Places(NamedTuple):
    """Places of a layer where an edge could be and is not.

    Attributes
    ----------
    sources, targets : int32
        Ids of nodes and neurons that are alive.
    free : bool, shape (targets, sources)
    n_edges : int
        How many edges there are between them.
    """

    sources: Ids
    targets: Ids
    free: Mask
    n_edges: int


def prune(
    model: Model, sparsity: float | None, *, neurons: float | None, by: Criterion, scope: str, data: Data | None, seed: int,
    n_threads: int | None, step: int = 0, slope: Float32 | None = None,
) -> int:  # fmt: skip
    """Cut edges or neurons; `Model.prune` says what the parameters are. How many edges had scores to be kept; 0 for neurons.

    `step`: when it is done many times, what is random is other each time. `slope`: the gradient, if it is known already.
    """
    if (sparsity is None) == (neurons is None):
        raise ValueError(f"prune: expected either sparsity or neurons, came {'neither' if sparsity is None else 'both'}")
    gone = share("neurons", neurons) if sparsity is None else share("sparsity", sparsity)
    one_of("scope", scope, SCOPES)
    seed = whole("seed", seed, 0, None)
    checked_threads(n_threads)
    if slope is None:
        slope = _slope(model, by, data, n_threads)  # compiles, and may move the parameters
    graph, random = model.graph, np.random.default_rng([seed, 1, step])
    if neurons is None:
        return keep_best(model, *room(model, gone, scope), by, slope, random)
    group = _groups(model, scope)
    hidden = np.setdiff1d(_own_neurons(model), list(graph.protected()))
    total = np.bincount(group[hidden], minlength=1)
    hidden = hidden[model._needed()[hidden]]
    score, wanted = _neuron_scores(graph, hidden, by, slope, random), np.round((1 - gone) * total)
    edges = wiring(graph)
    others, present = _present(model, edges)
    # An edge is as good as the neuron that it leads to.
    into = np.full(len(graph), np.inf)
    into[hidden] = _comparable(score, group[hidden], wanted)
    strength, chosen = _strongest(graph, edges, others, present, into[edges.target[present]])
    best = np.full(len(graph), -np.inf)
    np.maximum.at(best, edges.target, strength)
    best[edges.target[chosen]] = np.inf
    _check_paths("neurons", "neurons", group[hidden[np.isposinf(best[hidden])]], wanted)
    lost = np.zeros(len(graph), bool)
    lost[hidden[~_best(best[hidden], group[hidden], wanted)]] = True
    cut(graph, edges, lost[edges.source] | lost[edges.target], sweep=True)
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
    # Paths by the sources that most read, and of these by the first, have most in common.
    source = edges.source[mine]
    _, chosen = _strongest(graph, edges, others, mine, np.bincount(source)[source] - source / len(graph))
    _check_paths("sparsity", "edges", group[edges.target[mine[chosen[mine]]]], wanted)


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
) -> int:
    """Keep the strongest `wanted` edges of each group, of those that are alive; how many. To each output one path stays.

    More may be gone afterwards: what leads from or to nothing that is alive, for the groups are cut apart from each other, and
    of equal ones some at random. What only other models of the graph need is left as it is.

    Parameters
    ----------
    group : int64, shape (nodes,)
        The group of the edges into each neuron.
    slope : float32, optional
        The gradient, in the places of the parameter vector, for the saliency.
    """
    graph, edges = model.graph, wiring(model.graph)
    others, mine = _present(model, edges)
    few = Edges(edges.source[mine], edges.target[mine], graph.parameters[edges.place[mine]])
    if callable(by):
        score = _asked(graph, by, few, len(mine), "edge")
        edges = wiring(graph)
    elif by == "random":
        assert random is not None
        score = random.random(len(mine))
    else:
        score = np.abs(few.weight if slope is None else few.weight * slope[edges.place[mine]]).astype(np.float64)
    into = group[few.target]
    strength, chosen = _strongest(graph, edges, others, mine, _comparable(score, into, wanted))
    _check_paths("sparsity", "edges", into[chosen[mine]], wanted)
    strength[chosen] = np.inf
    kept = _best(strength[mine], into, wanted)
    gone = np.ones(len(edges.source), bool)
    gone[others] = gone[mine[kept]] = False
    cut(graph, edges, gone, sweep=True)
    return int(np.count_nonzero(kept))


def regrow(
    net: Network, fraction: float, *, by: Criterion, scope: str, data: Data | None, seed: int, n_threads: int | None
) -> None:  # fmt: skip
    """Add edges where there are none; `Network.regrow` says what the parameters are."""
    fraction, seed = share("fraction", fraction, all=True), whole("seed", seed, 0, None)
    if not callable(by) and not (isinstance(by, str) and by in ("random", "gradient")):
        raise ValueError(f"by: expected random, gradient or a callable, came {shown(by)}")
    one_of("scope", scope, SCOPES)
    checked_threads(n_threads)
    places = absent(net)
    free = np.array([np.count_nonzero(p.free) for p in places])
    given = _required_data("regrow", by, data) if by == "gradient" else None
    score = place_scores(net, places, by, given, np.random.default_rng([seed, 2]), n_threads)
    if scope == "layer":
        grow_best(net.graph, places, score, np.round(fraction * free))
    else:
        grow_best(net.graph, places, [np.concatenate(score)], np.round(fraction * free.sum(keepdims=True)))


def grow_best(graph: Graph, layers: list[Places], scores: list[Scores], wanted: npt.NDArray[Any]) -> None:
    """Add edges of weight 0 at the best free places.

    Parameters
    ----------
    scores : list of float64 arrays
        Of the free places in the order of the layers, in one or more groups.
    wanted : shape (len(scores),)
        How many of each group.
    """
    group = np.repeat(np.arange(len(scores)), [len(score) for score in scores])
    score = np.concatenate(scores)
    _check_scores(score)
    best = _best(score, group, wanted)
    new = _free_edges(layers)
    grow(graph, new.source[best], new.target[best], new.weight[best])


def _free_edges(layers: list[Places]) -> Edges:
    """Edges of weight 0 at all free places, in the order of the layers."""
    rows, columns = zip(*(np.nonzero(places.free) for places in layers), strict=True)
    sources = np.concatenate([places.sources[c] for places, c in zip(layers, columns, strict=True)])
    targets = np.concatenate([places.targets[r] for places, r in zip(layers, rows, strict=True)])
    return Edges(sources, targets, np.zeros(len(sources), np.float32))


def place_scores(
    net: Network, layers: list[Places], by: Criterion, data: Data | None, random: np.random.Generator, n_threads: int | None
) -> list[Scores]:
    """Scores of the free places of each layer: what a callable gives, at random, or the size of the gradient over `data`."""
    if callable(by):
        sizes = [int(np.count_nonzero(places.free)) for places in layers]
        return np.split(_asked(net.graph, by, _free_edges(layers), sum(sizes), "edge"), np.cumsum(sizes)[:-1])
    if data is None:
        return [random.random(np.count_nonzero(places.free)) for places in layers]
    with np.errstate(all="ignore"):
        gradients = absent_gradient(net, layers, *data, n_threads)
    return [np.abs(g[places.free]).astype(np.float64) for g, places in zip(gradients, layers, strict=True)]


def absent(net: Network) -> list[Places]:
    """Of each layer the places where an edge could be and is not, between nodes that are alive; all of them make no cycle."""
    graph, alive, height, layers = net.graph, net.graph.alive(), _heights(net), []
    for layer in net.layers:
        sources, targets = (np.array(ids, np.int32) for ids in (layer._reads, layer._ids))
        sources, targets = sources[alive[sources]], targets[alive[targets]]
        column = np.full(len(graph), -1)
        column[sources] = np.arange(len(sources))
        edges = wiring(graph, targets)
        free = height[sources] <= height[targets][:, None]
        row, at = np.repeat(np.arange(len(targets)), edges.counts), column[edges.source]
        free[row[at >= 0], at[at >= 0]] = False
        layers.append(Places(sources, targets, free, int(np.count_nonzero(at >= 0))))
    return layers


def _heights(net: Network) -> npt.NDArray[np.int64]:
    """A number for each node, which no edge lowers and each edge into a layer's neuron raises.

    On a cycle all would be equal. So what lowers none may be added between layers, all at once: on a cycle of nothing but such
    edges, and of edges into nodes that are in no layer, each would lead to a later layer than the one before.
    """
    graph, edges = net.graph, wiring(net.graph)
    height = np.arange(len(graph))
    if (edges.source < edges.target).all():
        return height
    # Edges lead from a layer to one before it, or to one of its own.
    start, count, pool = graph.topology()
    height[:] = 0
    for k, layer in enumerate(net.layers, 1):
        height[layer._ids] = k
    in_layer = height > 0
    for node in topological(graph, start, count, pool)[1].tolist():
        below = height[pool[start[node] : start[node] + count[node]]].max(initial=0)
        height[node] = max(height[node], below + in_layer[node])
    return height


def absent_gradient(net: Network, layers: list[Places], x: Any, y: Any, n_threads: int | None = None) -> list[Float32]:
    """Gradient of the mean loss for a weight at each place, free or not; float32, shape (targets, sources) for each layer.

    That of an edge is the sum over the examples of its source's value times the delta of its target, and needs no edge
    (Evci et al. 2020, Rigging the lottery). The kernels add it up: the bits do not depend on the number of threads.
    """
    graph, out = net.graph, []
    examples, loss = net._examples_and_loss(x, y, "data ")
    examples.check_trainable()
    hidden = np.unique(np.concatenate([ids for places in layers for ids in (places.sources, places.targets)]))
    hidden = hidden[graph.codes[hidden] != INPUT]
    found = trace(graph, examples, net._sinks, hidden, n_threads=n_threads, **loss)
    inputs = {node: column for column, node in enumerate(graph._inputs)}
    for places in layers:
        first = places.sources[:1].tolist()
        if first and first[0] in inputs:
            values = examples.array[:, [inputs[i] for i in places.sources.tolist()]]
        else:
            values = found.of(places.sources).values
        deltas = found.of(places.targets).deltas() / np.float32(len(examples))
        out.append(_products(values, deltas, n_threads))
    return out


def gradient(model: Model, x: Any, y: Any, n_threads: int | None = None) -> Float32:
    """Gradient of the mean loss over the examples, in the places of the parameter vector; zero for padding."""
    examples, loss = model._examples_and_loss(x, y, "data ")
    examples.check_trainable()
    return _accumulated(model._engine("loss"), examples, n_threads, **loss)


# --- inside ----------------------------------------------------------------------------------------------------------


def _required_data(who: str, by: str, data: Data | None) -> Data:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(f"data: expected (x, y) to {who} by {by}, came {'none' if data is None else shown(data)}")
    return data[0], data[1]


def _slope(model: Model, by: Criterion, data: Data | None, n_threads: int | None) -> Float32 | None:
    """The gradient, if the criterion takes it."""
    if isinstance(by, str) and by == "saliency":
        return gradient(model, *_required_data("prune", by, data), n_threads)
    check_criterion(by)
    return None


def _neuron_scores(
    graph: Graph, hidden: Ids, by: Criterion, slope: Float32 | None, random: np.random.Generator
) -> Scores:
    """Scores of neurons.

    The magnitude is the norm of the incoming weights times that of the outgoing ones, which scaling the one against the
    other leaves as it is. The saliency is the sum of weight x gradient over the outgoing edges: what the loss loses, to first
    order, with the neuron's value (Molchanov et al. 2017, Pruning convolutional neural networks).
    """
    if callable(by):
        return _asked(graph, by, [Neuron(graph, i) for i in hidden.tolist()], len(hidden), "neuron")
    if by == "random":
        return random.random(len(hidden))
    edges = wiring(graph)
    weight = graph.parameters[edges.place].astype(np.float64)
    if slope is not None:
        return np.abs(np.bincount(edges.source, weight * slope[edges.place], len(graph)))[hidden]
    into, out = (np.bincount(ids, weight**2, len(graph))[hidden] for ids in (edges.target, edges.source))
    return np.asarray(np.sqrt(into * out))


def _present(model: Model, edges: Wiring) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of all edges those that are alive for other models alone, and those for this one."""
    alive = model.graph.alive()
    there = alive[edges.source] & alive[edges.target]
    own = model._needed()[edges.target]
    return np.flatnonzero(there & ~own), np.flatnonzero(there & own)


def _strongest(
    graph: Graph, edges: Wiring, others: npt.NDArray[np.int64], mine: npt.NDArray[np.int64], score: Scores
) -> tuple[Scores, Mask]:
    """Of each edge the strength of the strongest path through it to an output; those of one strongest path to each output.

    A path is as strong as its edge of the lowest score. What is kept for being best by that, and not by its own score alone,
    leads from something that is alive to an output, and no output that such edges reach needs more of them.
    """
    start, count, pool = graph.topology()
    order, first = topological(graph, start, count, pool)[1], np.full(len(graph), -1)
    first[edges.neurons] = np.cumsum(edges.counts) - edges.counts
    n = len(edges.source)
    given, strength, chosen = np.full(n, -np.inf), np.empty(n), np.zeros(n, bool)
    given[others] = np.inf
    given[mine] = np.clip(score, np.finfo(float).min, np.finfo(float).max)  # infinite is what has no choice
    up = np.where(is_live(graph.codes, start, count, pool, order[:0]), np.inf, -np.inf)
    down = np.full(len(graph), -np.inf)
    down[sorted(graph.protected())] = np.inf
    _topology.strongest(start, count, pool, order, first, given, up, down, strength, chosen.view(np.uint8))
    return strength, chosen


def _comparable(score: Scores, group: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> Scores:
    """Scores of several groups as distances from the lowest that each keeps, so that they can be compared; none is NaN."""
    _check_scores(score)
    if len(wanted) > 1:
        score = np.clip(score, np.finfo(float).min / 2, np.finfo(float).max / 2)
        for mine, most in _members(group, wanted):
            least = len(mine) - min(most, len(mine))
            if least < len(mine):
                score[mine] -= np.partition(score[mine], least)[least]
    return score


def _check_scores(score: Scores) -> None:
    if np.isnan(score).any():
        raise ValueError("by: expected scores that are numbers, came nan")


def _members(group: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """The members of each group, and how many are wanted."""
    sizes = np.bincount(group, minlength=len(wanted))[: len(wanted)]
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)) if len(wanted) > 1 else [np.arange(len(group))]
    return zip(members, wanted.astype(np.int64).tolist(), strict=False)


def _check_paths(name: str, what: str, group: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
    """Raise ValueError if what is in these groups, on paths to outputs, is more than is wanted of one."""
    least = np.bincount(group, minlength=len(wanted))
    if (least > wanted).any():
        i = int(np.argmax(least > wanted))
        raise ValueError(f"{name}: expected to keep at least {least[i]} {what}, a path to each output, came {int(wanted[i])}")


def _groups(model: Model, scope: str) -> npt.NDArray[np.int64]:
    return layers_of(model) if scope == "layer" else np.zeros(len(model.graph), np.int64)


def _own_neurons(model: Model) -> npt.NDArray[np.int64]:
    return np.flatnonzero(model._own() & (model.graph.codes >= NEURON))


def _asked(graph: Graph, by: Callable[..., npt.ArrayLike], things: Any, n: int, what: str) -> Scores:
    """The scores that a callable gives n edges or neurons. It may run the graph, which may move the parameters."""
    edits = graph.edits
    array = real_array("by", by(things)).astype(np.float64)
    if graph.edits != edits:
        raise RuntimeError("by: expected a criterion that leaves the graph as it is, came one that has edited it")
    if array.shape != (n,):
        raise ValueError(f"by: expected a score for each {what}, shape ({n},), came {array.shape}")
    return array


def _best(score: Scores, group: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> Mask:
    """The best of each group, `wanted[group]` of them; of equal ones some at random, always the same.

    The first of equal ones would be those of one layer.
    """
    keep, random = np.zeros(len(score), bool), np.random.default_rng(0)  # one: groups of one size lose other places
    for mine, most in _members(group, wanted):
        if most >= len(mine):
            keep[mine] = True
        elif most > 0:
            values = score[mine]
            least = np.partition(values, len(values) - most)[len(values) - most]
            keep[mine[values > least]] = True
            equal = mine[values == least]
            keep[random.permutation(equal)[: most - np.count_nonzero(values > least)]] = True
    return keep


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


def _accumulated(engine: Engine, examples: Examples, n_threads: int | None, **loss: Any) -> Float32:
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


def _products(values: npt.NDArray[Any], deltas: Float32, n_threads: int | None) -> Float32:
    """``deltas.T @ values``, as the gradient of a layer that has all edges."""
    shape = (deltas.shape[1], values.shape[1])
    if 0 in shape:
        return np.zeros(shape, np.float32)
    graph = Graph()
    graph.inputs(shape[1])
    neurons = graph.add_neurons(np.arange(shape[1], dtype=np.int32), np.zeros(shape, np.float32))
    engine = Engine(graph, Plan(graph, list(neurons)))
    given = {"target": np.ascontiguousarray(deltas), "loss": "cotangent", "loss_nodes": [neurons[0], *neurons]}
    total = _accumulated(engine, Examples(values, shape[1]), n_threads, **given)
    return total[wiring(graph).place].reshape(shape)
