"""Grow edges where a network has none, and neurons in its layers.

`regrow` and `widen` are the bodies of the methods of `Network`. The schedules SET and RigL use
`grow_to_sizes`, `EdgeValues` and `reset_neurons`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Int32, Int64
from mlgraph._support.checks import one_of, share, whole
from mlgraph._support.threads import checked_threads
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.engine.trace import trace
from mlgraph.graph.arrays import Edges, bias_places, edge_keys, wiring
from mlgraph.graph.edits import grow
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import INPUT, NEURON, is_operation
from mlgraph.graph.randomness import checked_seed, first_weights, seed_for
from mlgraph.graph.storage import FROZEN
from mlgraph.graph.topology import Topology, topological
from mlgraph.graph.views import Neuron
from mlgraph.models.layer import Layer
from mlgraph.models.network import Network
from mlgraph.models.running import read_with_targets
from mlgraph.sparsity.pruning import SCOPES
from mlgraph.sparsity.scores import (
    Criterion,
    Data,
    Scores,
    block_scores,
    check_criterion,
    data_for,
    scores_from_callable,
    top_k,
    without_nan,
)


def regrow(
    net: Network,
    fraction: float,
    *,
    by: Criterion,
    scope: str,
    block: int,
    data: Data | None,
    seed: int | None,
    n_threads: int | None,
) -> None:
    """Add edges where there are none; see `Network.regrow`."""
    fraction, seed = share("fraction", fraction, all=True), checked_seed(seed)
    check_criterion(by, ("random", "gradient"))
    one_of("scope", scope, SCOPES)
    block = whole("block", block)
    checked_threads(n_threads)
    data = data_for("regrow", by, data, by == "gradient")
    layers = missing_edges(net)
    places = [np.flatnonzero(missing.free) for missing in layers]
    n_free = np.array([len(numbers) for numbers in places])
    candidates = Edges(*map(np.concatenate, zip(*map(MissingEdges.edges, layers, places), strict=True)))
    if callable(by):
        score = scores_from_callable(net.graph, by, candidates, len(candidates.source), "edge")
    elif data is None:
        score = np.random.default_rng([seed_for(net.graph, seed), 2]).random(len(candidates.source))
    else:
        gradients = dense_gradients(net, layers, *data, n_threads)
        score = without_nan(np.concatenate([*map(_magnitudes, gradients, places)]))
    if scope == "layer":
        group, n_wanted = np.repeat(np.arange(len(layers)), n_free), np.round(fraction * n_free)
    else:
        group, n_wanted = np.zeros(n_free.sum(), np.int64), np.round(fraction * n_free.sum(keepdims=True))
    score, block_ids = block_scores(net, candidates, score, by, block)
    best = top_k(score, group, n_wanted, block_ids=block_ids)
    grow(net.graph, Edges(candidates.source[best], candidates.target[best], candidates.weight[best]), "regrow")


def widen(net: Network, layer: Layer, n: int, seed: int | None) -> list[Neuron]:
    """Add neurons to a layer; see `Network.widen`."""
    graph, layers, n, seed = net.graph, net.layers, whole("n", n), checked_seed(seed)
    if not isinstance(layer, Layer):
        raise TypeError(f"layer: expected a hidden layer of neurons, got {type(layer).__name__}")
    if layer not in layers[:-1] or layer.probability_ids:
        raise ValueError("layer: expected a hidden layer of neurons of the network, got another layer")
    with graph.one_edit():
        next_layer, alive = layers[layers.index(layer) + 1], graph.alive()
        sources = np.array([i for i in layer.source_ids if alive[i]], np.int32)
        readers = np.array([i for i in next_layer.ids if alive[i]], np.int32)
        if not len(sources) or not len(readers):
            raise ValueError("layer: both neighbouring layers need a live neuron")
        # The size of the graph, too: calls with the same seed add different neurons.
        random = np.random.default_rng([seed_for(graph, seed), len(graph)])
        weights = first_weights(random, n, len(sources))
        biases = 0.0 if (layer.bias_places() >= 0).any() else None
        new = np.array(graph.add_neurons(sources, layer.activation, weights=weights, biases=biases), np.int32)
        outgoing = Edges(np.tile(new, len(readers)), np.repeat(readers, n), np.zeros(n * len(readers), np.float32))
        grow(graph, outgoing, "widen")
        layer.ids = [*layer.ids, *new.tolist()]
        next_layer.source_ids = [*next_layer.source_ids, *new.tolist()]
    return layer[-n:]


# --- missing edges --------------------------------------------------------------------------------


class LayerEnds(NamedTuple):
    """Ids of the nodes that a layer's edges may lead from, and of the neurons that they may lead to."""

    sources: Int32
    targets: Int32


class MissingEdges(NamedTuple):
    """Places of a layer where an edge could be added.

    Attributes
    ----------
    sources, targets : int32
        Ids of nodes and neurons.
    free : bool, shape (targets, sources)
        Whether an edge could be added there.
    fan_in, fan_in_layer : int, shape (targets,)
        How many sources each neuron has, and how many of them are among `sources`.
    """

    sources: Int32
    targets: Int32
    free: Bool
    fan_in: Int32
    fan_in_layer: Int64

    def edges(self, places: Int64) -> Edges:
        """Edges of weight 0 at these places, numbers into the flattened `free`."""
        row, column = np.divmod(places, len(self.sources))
        return Edges(self.sources[column], self.targets[row], np.zeros(len(places), np.float32))


def layer_ends(net: Network, *, dead: bool = False) -> list[LayerEnds]:
    """Possible ends of each layer's edges: nodes that are alive or, with `dead`, all."""
    layers = [LayerEnds(np.array(layer.source_ids, np.int32), np.array(layer.ids, np.int32)) for layer in net.layers]
    alive = net.graph.alive()
    return layers if dead else [LayerEnds(*(ids[alive[ids]] for ids in layer)) for layer in layers]


def missing_edges(net: Network, *, dead: bool = False) -> list[MissingEdges]:
    """The places of each layer where edges could be added, even all at once, without a cycle.

    They are between live nodes or, with `dead`, between any inputs and neurons of the layers.
    """
    graph, topology, layers = net.graph, net.graph.topology(), []
    height = _heights(net, topology)
    for sources, targets in layer_ends(net, dead=dead):
        column, fan_in = np.full(len(graph), -1), topology.counts[targets]
        column[sources] = np.arange(len(sources))
        free = height[sources] <= height[targets][:, None]
        row, at = np.repeat(np.arange(len(targets)), fan_in), column[topology.sources_of(targets)]
        row, at = row[at >= 0], at[at >= 0]
        free[row, at] = False
        layers.append(MissingEdges(sources, targets, free, fan_in, np.bincount(row, minlength=len(targets))))
    return layers


def _heights(net: Network, topology: Topology) -> Int64:
    """A number for each node that never falls along an edge, and that rises at each edge into a layer's neuron.

    Edges between layers along which the number does not fall may be added all at once. On a cycle
    all numbers would be equal. So the cycle would consist of such edges and of edges into nodes
    that are in no layer, and each of the former leads to a later layer than the last.
    """
    graph, (start, count, pool) = net.graph, topology
    height, neurons = np.arange(len(graph)), np.flatnonzero(graph.codes >= NEURON)
    rises = topology.sources_of(neurons) < np.repeat(neurons, count[neurons])
    # `widen` numbers new neurons after their readers, so ids alone do not suffice, even if all
    # their edges were cut.
    if rises.all() and all(max(layer.source_ids) < min(layer.ids) for layer in net.layers):
        return height
    # Some edges lead backwards or stay within a layer.
    height[:] = 0
    for k, layer in enumerate(net.layers, 1):
        height[layer.ids] = k
    in_layer = height > 0
    for node in topological(graph, topology)[1].tolist():
        below = height[pool[start[node] : start[node] + count[node]]].max(initial=0)
        height[node] = max(height[node], below + in_layer[node])
    return height


# --- gradients of all possible edges --------------------------------------------------------------


def dense_gradients(
    net: Network,
    layers: Sequence[LayerEnds | MissingEdges],
    x: Any,
    y: Any,
    n_threads: int | None = None,
    products: Products | None = None,
) -> list[Float32]:
    """Gradient of the mean loss for a weight at each place, with an edge or without.

    It is the sum over the examples of the source's value times the target's delta (Evci et al.
    2020, Rigging the lottery). The kernels compute it, so it is bitwise the same for any number of
    threads.

    Returns
    -------
    list of float32, shape (targets, sources)
        One array for each layer.
    """
    graph, out, products = net.graph, [], products or Products()
    examples, objective = read_with_targets(net, x, y, "data ")
    examples.check_trainable()
    codes, column, in_layers = graph.codes, graph.records, np.zeros(len(graph), bool)
    for layer in layers:
        in_layers[layer.sources] = in_layers[layer.targets] = True
    hidden = np.flatnonzero(in_layers & (codes != INPUT)).astype(np.int32)
    with np.errstate(all="ignore"):
        traced = trace(graph, examples, net.sinks, hidden, objective, n_threads=n_threads)
        deltas = traced.deltas()
        deltas /= np.float32(len(examples))
        column[hidden] = np.arange(len(hidden))  # of the trace; the record of an input is its column of the data
        for layer in layers:
            read, values = column[layer.sources], traced.values
            if (codes[layer.sources] == INPUT).all():
                values = examples.array
                least, n = int(read.max(initial=-1)) + 1, values.shape[1]
                if n < least:  # columns that the network does not read may be missing from the data
                    raise ValueError(
                        f"data x: expected {least} columns, one for each input that may gain edges, got {n}"
                    )
            out.append(products(_columns(values, read), _columns(deltas, column[layer.targets]), n_threads))
    return out


class Products:
    """``deltas.T @ values`` by the kernels, as the gradient of a fully connected layer; engines are kept."""

    def __init__(self) -> None:
        self._engines: dict[tuple[int, int], tuple[Engine, Int64 | Int32]] = {}

    def __call__(self, values: npt.NDArray[Any], deltas: Float32, n_threads: int | None) -> Float32:
        """The product of shape (targets, sources) for values and deltas of the same examples."""
        shape = n, n_sources = deltas.shape[1], values.shape[1]
        if 0 in shape:
            return np.zeros(shape, np.float32)
        engine, place = self._engines.get(shape) or self._engines.setdefault(shape, _full_layer(n, n_sources))
        objective = Objective.cotangent(range(n_sources, n_sources + n), np.ascontiguousarray(deltas))
        return engine.gradient(Examples(values, n_sources), objective, n_threads).take(place).reshape(shape)


def _full_layer(n: int, n_sources: int) -> tuple[Engine, Int64 | Int32]:
    """An engine of n neurons that all read all inputs, and the places of their weights."""
    graph = Graph()
    graph.add_inputs(n_sources)
    sources, weights = np.arange(n_sources, dtype=np.int32), np.zeros((n, n_sources), np.float32)
    engine = Engine(graph, Plan(graph, graph.add_neurons(sources, weights=weights, biases=None)))
    return engine, wiring(graph).place


def _columns(array: npt.NDArray[Any], numbers: Int64) -> npt.NDArray[Any]:
    """Some columns; a view if they are contiguous."""
    if len(numbers) and (np.diff(numbers) == 1).all():
        return array[:, numbers[0] : numbers[-1] + 1]
    return array.take(numbers, axis=1)


def _magnitudes(gradient: Float32, places: Int64) -> Scores:
    return np.abs(gradient.take(places), dtype=np.float64)


# --- growth during training -----------------------------------------------------------------------


def grow_to_sizes(
    net: Network, sizes: npt.NDArray[Any], gradients: list[Float32] | None, block: int, random: np.random.Generator
) -> Edges:
    """Add edges of weight 0 until each layer has as many as `sizes` says, at any of its neurons; return these edges.

    It goes from the last layer to the first, since a source is of no use to a neuron that has no
    reader. A neuron that gains its first reader gets at least one source. The weights into a neuron
    that was dead are drawn as in a new layer, because with 0 it might never learn. The outputs do
    not change, since such neurons are read with weights of 0.

    Parameters
    ----------
    sizes : shape (layers,)
        Edges of each layer from the nodes that it was made to read.
    gradients : list of float32, optional
        The result of `dense_gradients` for all places, dead ones too; by default edges grow at
        random.
    block : int
        As for `Network.regrow`.
    """
    graph, layers = net.graph, missing_edges(net, dead=True)
    worths: list[npt.NDArray[Any]] = gradients or [random.random(np.count_nonzero(layer.free)) for layer in layers]
    alive, codes, topology = graph.alive(), graph.codes, graph.topology()
    read, grown = alive.copy(), []
    for layer, worth, size in zip(reversed(layers), reversed(worths), reversed(sizes.tolist()), strict=True):
        here, n_free = read[layer.targets], np.count_nonzero(layer.free, axis=1)
        places = np.flatnonzero(layer.free & here[:, None])
        if gradients is None:
            score = worth[np.repeat(here, n_free)]
        else:
            score = _magnitudes(worth, places)
            score[~np.isfinite(score)] = 0  # the training step that follows meets and handles such numbers
        block_ids = None
        if block > 1:
            by = "random" if gradients is None else "gradient"
            score, block_ids = block_scores(net, layer.edges(places), score, by, block)
        # First the best place of each neuron without sources, then the best places of all.
        bare = np.flatnonzero(np.repeat(layer.fan_in[here] == 0, n_free[here]))
        row = places[bare] // len(layer.sources)
        first = bare[np.lexsort((-score[bare], row))][np.flatnonzero(np.diff(row, prepend=-1))]
        score[first] = np.inf
        n_new = max(int(size) - int(layer.fan_in_layer[here].sum()), len(first))
        if block_ids is None and 0 < n_new < len(score):  # sort fewer
            good = np.flatnonzero(score >= np.partition(score, -n_new)[-n_new])
            places, score = places[good], score[good]
        keep = top_k(score, np.zeros(len(score), np.int64), np.array([n_new]), block_ids=block_ids)
        source, target, weight = layer.edges(places[keep])
        revived = ~alive[target]
        fan_in = np.bincount(target, minlength=len(graph))[target[revived]]
        weight[revived] = random.standard_normal(len(fan_in)) / np.sqrt(3 * fan_in)
        revived_with_sources = layer.targets[here & ~alive[layer.targets] & (layer.fan_in > 0)]  # by frozen edges
        _mark_read(read, np.append(source, topology.sources_of(revived_with_sources)), codes, topology)
        grown.append((source, target, weight))
    new = Edges(*map(np.concatenate, zip(*grown, strict=True)))
    grow(graph, new, "regrow")
    return new


def _mark_read(read: Bool, nodes: Int32, codes: npt.NDArray[np.int16], topology: Topology) -> None:
    """Mark nodes as read, and through operations their arguments: a reader of a probability reads its logit."""
    while len(nodes):
        read[nodes] = True
        arguments = topology.sources_of(nodes[is_operation(codes[nodes])])
        nodes = np.unique(arguments[~read[arguments]])


class EdgeValues:
    """Copies of the weights of all edges of a graph and of their optimizer state."""

    def __init__(self, graph: Graph) -> None:
        edges = wiring(graph)
        self._keys = edge_keys(graph, edges.source, edges.target)
        self._values = {name: vector[edges.place] for name, vector in graph.storage.vectors().items()}

    def restore(self, graph: Graph, new: Edges) -> Int32:
        """Restore the values of those new edges that existed before; return the targets of these edges."""
        edges = wiring(graph)
        back, _, before = np.intersect1d(
            edge_keys(graph, new.source, new.target), self._keys, assume_unique=True, return_indices=True
        )
        _, now, _ = np.intersect1d(
            edge_keys(graph, edges.source, edges.target), back, assume_unique=True, return_indices=True
        )
        vectors = graph.storage.vectors()
        for name, values in self._values.items():
            vectors[name][edges.place[now]] = values[before]
        return edges.target[now]


def reset_neurons(graph: Graph, neurons: Int64) -> None:
    """Set the biases of neurons, and the optimizer state of the biases, to 0, except frozen ones."""
    places, vectors = bias_places(graph, neurons), graph.storage.vectors()
    places = places[places >= 0]
    if FROZEN in vectors:
        places = places[vectors.pop(FROZEN)[places] == 0]
    for vector in vectors.values():
        vector[places] = 0
