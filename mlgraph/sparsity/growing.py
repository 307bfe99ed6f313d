"""What to grow in a network: edges where there are none, by scores of the gaps, and neurons of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Int32, Int64
from mlgraph._support.checks import MOST_SEED, one_of, share, whole
from mlgraph._support.threads import checked_threads
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.engine.trace import trace
from mlgraph.graph.arrays import Edges, wiring
from mlgraph.graph.edits import grow
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import INPUT, NEURON
from mlgraph.graph.topology import Topology, topological
from mlgraph.graph.views import Neuron
from mlgraph.models.layer import Layer, first_weights
from mlgraph.models.network import Network
from mlgraph.models.running import read_with_targets
from mlgraph.sparsity.pruning import SCOPES
from mlgraph.sparsity.scores import (
    Criterion,
    Data,
    Scores,
    best_of,
    check_criterion,
    data_for,
    in_blocks,
    scores_by,
    without_nan,
)

__all__ = ["Ends", "Gaps", "Products", "absent", "absent_gradient", "ends_of_layers", "regrow", "steepness", "widen"]


class Ends(NamedTuple):
    """Nodes from which, and neurons to which, edges of a layer lead; ids."""

    sources: Int32
    targets: Int32


class Gaps(NamedTuple):
    """Places of a layer where an edge could be and is not.

    Attributes
    ----------
    sources, targets : int32
        Ids of nodes and neurons.
    free : bool, shape (targets, sources)
    counts, within : int, shape (targets,)
        How many sources each neuron has, and how many of them in the layer before.
    """

    sources: Int32
    targets: Int32
    free: Bool
    counts: Int32
    within: Int64

    def edges(self, places: Int64) -> Edges:
        """Edges of weight 0 at some places, given by their numbers, target by target."""
        row, column = np.divmod(places, len(self.sources))
        return Edges(self.sources[column], self.targets[row], np.zeros(len(places), np.float32))


def regrow(
    net: Network,
    fraction: float,
    *,
    by: Criterion,
    scope: str,
    block: int,
    data: Data | None,
    seed: int,
    n_threads: int | None,
) -> None:
    """Add edges where there are none; `Network.regrow` says what the parameters are."""
    fraction, seed = share("fraction", fraction, all=True), whole("seed", seed, 0, MOST_SEED)
    check_criterion(by, ("random", "gradient"))
    one_of("scope", scope, SCOPES)
    block = whole("block", block)
    checked_threads(n_threads)
    places = absent(net)
    at = [np.flatnonzero(gaps.free) for gaps in places]
    free = np.array([len(numbers) for numbers in at])
    given = data_for("regrow", by, data, by == "gradient")
    new = Edges(*map(np.concatenate, zip(*map(Gaps.edges, places, at), strict=True)))
    if callable(by):
        scores = scores_by(net.graph, by, new, len(new.source), "edge")
    elif given is None:
        scores = np.random.default_rng([seed, 2]).random(len(new.source))
    else:
        scores = without_nan(np.concatenate([*map(steepness, absent_gradient(net, places, *given, n_threads), at)]))
    group = np.repeat(np.arange(len(places)), free) if scope == "layer" else np.zeros(free.sum(), np.int64)
    wanted = np.round(fraction * (free if scope == "layer" else free.sum(keepdims=True)))
    scores, together = in_blocks(net, new, scores, by, block)
    best = best_of(scores, group, wanted, together=together)
    grow(net.graph, Edges(new.source[best], new.target[best], new.weight[best]), "regrow")


def widen(net: Network, layer: Layer, n: int, seed: int) -> list[Neuron]:
    """Add neurons to a layer; `Network.widen` says what the parameters are."""
    graph, layers, n, seed = net.graph, net.layers, whole("n", n), whole("seed", seed, 0, MOST_SEED)
    if not isinstance(layer, Layer):
        raise TypeError(f"layer: expected a hidden layer of neurons, got {type(layer).__name__}")
    if layer not in layers[:-1] or layer.probability_ids:
        raise ValueError("layer: expected a hidden layer of neurons of the network, got another layer")
    with graph.one_edit():
        behind, alive = layers[layers.index(layer) + 1], graph.alive()
        reads, read = (np.array([i for i in ids if alive[i]], np.int32) for ids in (layer.source_ids, behind.ids))
        if not len(reads) or not len(read):
            raise ValueError("layer: expected one between layers of which something is alive, got one between others")
        random = np.random.default_rng([seed, len(graph)])  # not of what was drawn before, which no checkpoint has
        weights, biases = first_weights(random, n, len(reads)), 0.0 if (layer.bias_places() >= 0).any() else None
        new = np.array(graph.add_neurons(reads, layer.activation, weights=weights, biases=biases), np.int32)
        grow(graph, Edges(np.tile(new, len(read)), np.repeat(read, n), np.zeros(n * len(read), np.float32)), "widen")
        layer.ids, behind.source_ids = [*layer.ids, *new.tolist()], [*behind.source_ids, *new.tolist()]
    return layer[-n:]


def ends_of_layers(net: Network, *, dead: bool = False) -> list[Ends]:
    """For each layer the ends of the edges that it could have, of nodes that are alive or, with `dead`, of all."""
    layers = [Ends(np.array(layer.source_ids, np.int32), np.array(layer.ids, np.int32)) for layer in net.layers]
    alive = net.graph.alive()
    return layers if dead else [Ends(*(ids[alive[ids]] for ids in layer)) for layer in layers]


def absent(net: Network, *, dead: bool = False) -> list[Gaps]:
    """For each layer the places where an edge could be and is not; edges at all of them would make no cycle.

    The places are between nodes that are alive or, with `dead`, between all that are inputs or in layers.
    """
    graph, topology, layers = net.graph, net.graph.topology(), []
    height = _heights(net, topology)
    for sources, targets in ends_of_layers(net, dead=dead):
        column, counts = np.full(len(graph), -1), topology.counts[targets]
        column[sources] = np.arange(len(sources))
        free = height[sources] <= height[targets][:, None]
        row, at = np.repeat(np.arange(len(targets)), counts), column[topology.sources_of(targets)]
        row, at = row[at >= 0], at[at >= 0]
        free[row, at] = False
        layers.append(Gaps(sources, targets, free, counts, np.bincount(row, minlength=len(targets))))
    return layers


def absent_gradient(
    net: Network,
    layers: Sequence[Ends | Gaps],
    x: Any,
    y: Any,
    n_threads: int | None = None,
    products: Products | None = None,
) -> list[Float32]:
    """Gradient of the mean loss for a weight at each place, free or not; float32, shape (targets, sources) for each layer.

    The gradient of an edge is the sum over the examples of its source's value times its target's delta; the edge need not
    exist (Evci et al. 2020, Rigging the lottery). The kernels add it up: the bits do not depend on the number of threads.
    """
    graph, out, products = net.graph, [], products or Products()
    examples, objective = read_with_targets(net, x, y, "data ")
    examples.check_trainable()
    codes, column, within = graph.codes, graph.records, np.zeros(len(graph), bool)
    for places in layers:
        within[places.sources] = within[places.targets] = True
    hidden = np.flatnonzero(within & (codes != INPUT)).astype(np.int32)
    with np.errstate(all="ignore"):
        found = trace(graph, examples, net.sinks, hidden, objective, n_threads=n_threads)
        deltas = found.deltas()
        deltas /= np.float32(len(examples))
        column[hidden] = np.arange(len(hidden))  # of the trace; the record of an input is its column of the data
        for places in layers:
            read, values = column[places.sources], found.values
            if (codes[places.sources] == INPUT).all():
                least, values = int(read.max(initial=-1)) + 1, examples.array
                n = values.shape[1]
                if (
                    n < least
                ):  # columns that this network does not read may be missing, even if another model reads them
                    raise ValueError(f"data x: expected {least} columns, all that edges may grow at, got {n}")
            out.append(products(_columns(values, read), _columns(deltas, column[places.targets]), n_threads))
    return out


class Products:
    """``deltas.T @ values``, as the gradients of layers that have all edges; keeps what it makes for layers of one shape."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], tuple[Engine, Int64 | Int32]] = {}

    def __call__(self, values: npt.NDArray[Any], deltas: Float32, n_threads: int | None) -> Float32:
        """The products of some examples' values and deltas, of shapes (examples, sources) and (examples, targets)."""
        shape = n, n_sources = deltas.shape[1], values.shape[1]
        if 0 in shape:
            return np.zeros(shape, np.float32)
        engine, place = self._made.get(shape) or self._made.setdefault(shape, _full_layer(n, n_sources))
        objective = Objective.cotangent(range(n_sources, n_sources + n), np.ascontiguousarray(deltas))
        return engine.gradient(Examples(values, n_sources), objective, n_threads).take(place).reshape(shape)


# --- inside ----------------------------------------------------------------------------------------------------------


def steepness(slope: Float32, places: Int64) -> Scores:
    """Scores of some places of a layer, given by their numbers."""
    return np.abs(slope.take(places), dtype=np.float64)


def _columns(array: npt.NDArray[Any], numbers: Int64) -> npt.NDArray[Any]:
    """Some columns; not copied if they stand side by side."""
    if len(numbers) and (np.diff(numbers) == 1).all():
        return array[:, numbers[0] : numbers[-1] + 1]
    return array.take(numbers, axis=1)


def _heights(net: Network, topology: Topology) -> Int64:
    """A number for each node: along an edge it never falls, and into a layer's neuron it rises.

    On a cycle all numbers would be equal. So edges between layers along which it does not fall may be added, all at once: on
    a cycle of only such edges, and of edges into nodes that are in no layer, each would lead to a later layer than the last.
    """
    graph, (start, count, pool) = net.graph, topology
    height, neurons = np.arange(len(graph)), np.flatnonzero(graph.codes >= NEURON)
    rise = topology.sources_of(neurons) < np.repeat(neurons, count[neurons])
    # The neurons that a layer gained are numbered behind those that read them, also when all their edges are cut.
    if rise.all() and all(max(layer.source_ids) < min(layer.ids) for layer in net.layers):
        return height
    # Edges lead from a layer to one before it, or to one of its own.
    height[:] = 0
    for k, layer in enumerate(net.layers, 1):
        height[layer.ids] = k
    in_layer = height > 0
    for node in topological(graph, topology)[1].tolist():
        below = height[pool[start[node] : start[node] + count[node]]].max(initial=0)
        height[node] = max(height[node], below + in_layer[node])
    return height


def _full_layer(n: int, n_sources: int) -> tuple[Engine, Int64 | Int32]:
    """Of neurons with weights of 0 that all read all inputs; the places of these weights."""
    graph = Graph()
    graph.inputs(n_sources)
    sources, weights = np.arange(n_sources, dtype=np.int32), np.zeros((n, n_sources), np.float32)
    engine = Engine(graph, Plan(graph, graph.add_neurons(sources, weights=weights, biases=None)))
    return engine, wiring(graph).place
