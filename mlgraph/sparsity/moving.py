"""What `SET` and `RigL` do beside cutting: layers grow back to their sizes, and edges that were cut get back what they had."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Int32, Int64
from mlgraph.graph.arrays import Edges, bias_places, edge_keys, wiring
from mlgraph.graph.edits import grow
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import is_operation
from mlgraph.graph.storage import FROZEN
from mlgraph.graph.topology import Topology
from mlgraph.models.network import Network
from mlgraph.sparsity.growing import absent, steepness
from mlgraph.sparsity.scores import best_of, in_blocks


def fill_layers(
    net: Network, wanted: npt.NDArray[Any], slopes: list[Float32] | None, block: int, random: np.random.Generator
) -> Edges:
    """Add edges of weight 0 until each layer has as many as are wanted, at any of its neurons; return these edges.

    This goes from the last layer to the first, since a source is of no use to a neuron that nothing reads: neurons that come
    to be read get at least one. The weights into these are as in a new layer, for with 0 they might never learn. They leave
    the network's outputs as they are, for such neurons are read with weights of 0.

    Parameters
    ----------
    wanted : shape (layers,)
        Edges from the nodes that each layer was made to read.
    slopes : list of float32, optional
        For each layer the result of `absent_gradient` for its places, dead ones too; by default edges grow at random.
    block : int
        As for `Network.regrow`.
    """
    graph, places = net.graph, absent(net, dead=True)
    given: list[npt.NDArray[Any]] = slopes or [random.random(np.count_nonzero(gaps.free)) for gaps in places]
    alive, codes, topology = graph.alive(), graph.codes, graph.topology()
    read, found = alive.copy(), []
    for gaps, worth, most in zip(reversed(places), reversed(given), reversed(wanted.tolist()), strict=True):
        here, free = read[gaps.targets], np.count_nonzero(gaps.free, axis=1)
        at = np.flatnonzero(gaps.free & here[:, None])
        if slopes is None:
            score = worth[np.repeat(here, free)]
        else:
            score = steepness(worth, at)
            # Slopes that are not finite say nothing here. The steps of training meet and handle such numbers, too.
            score[~np.isfinite(score)] = 0
        together = None
        if block > 1:
            score, together = in_blocks(net, gaps.edges(at), score, "random" if slopes is None else "gradient", block)
        # The best place of each neuron that reads nothing, and then those that are best of all.
        bare = np.flatnonzero(np.repeat(gaps.counts[here] == 0, free[here]))
        row = at[bare] // len(gaps.sources)
        best = bare[np.lexsort((-score[bare], row))][np.flatnonzero(np.diff(row, prepend=-1))]
        score[best] = np.inf
        missing = max(int(most) - int(gaps.within[here].sum()), len(best))
        if together is None and 0 < missing < len(score):  # what is no better than these is not looked at again
            good = np.flatnonzero(score >= np.partition(score, -missing)[-missing])
            at, score = at[good], score[good]
        keep = best_of(score, np.zeros(len(score), np.int64), np.array([missing]), together=together)
        source, target, weight = gaps.edges(at[keep])
        revived = ~alive[target]
        fan_in = np.bincount(target, minlength=len(graph))[target[revived]]
        weight[revived] = random.standard_normal(len(fan_in)) / np.sqrt(3 * fan_in)
        come = gaps.targets[here & ~alive[gaps.targets] & (gaps.counts > 0)]  # with what is frozen of them
        _mark_read(read, np.append(source, topology.sources_of(come)), codes, topology)
        found.append((source, target, weight))
    new = Edges(*map(np.concatenate, zip(*found, strict=True)))
    grow(graph, new, "regrow")
    return new


class EdgeValues(NamedTuple):
    """Edges of a graph, and their numbers in the parameter vector ("") and in those of the optimizer's state; copies."""

    key: Int64
    values: dict[str, Float32]


def edge_values(graph: Graph) -> EdgeValues:
    """Those of all its edges."""
    edges = wiring(graph)
    key = edge_keys(graph, edges.source, edges.target)
    return EdgeValues(key, {name: vector[edges.place] for name, vector in graph.storage.vectors().items()})


def give_back(graph: Graph, before: EdgeValues, new: Edges) -> Int32:
    """Restore the weights and optimizer state of new edges that existed before; return the targets of these edges."""
    edges = wiring(graph)
    back, _, was = np.intersect1d(
        edge_keys(graph, new.source, new.target), before.key, assume_unique=True, return_indices=True
    )
    _, now, _ = np.intersect1d(
        edge_keys(graph, edges.source, edges.target), back, assume_unique=True, return_indices=True
    )
    vectors = graph.storage.vectors()
    for name, values in before.values.items():
        vectors[name][edges.place[now]] = values[was]
    return edges.target[now]


def begin_anew(graph: Graph, neurons: Int64) -> None:
    """Set the biases of neurons, and the optimizer's state of them, to 0; what is frozen stays."""
    places, vectors = bias_places(graph, neurons), graph.storage.vectors()
    places = places[places >= 0]
    if FROZEN in vectors:
        places = places[vectors.pop(FROZEN)[places] == 0]
    for vector in vectors.values():
        vector[places] = 0


def _mark_read(read: Bool, nodes: Int32, codes: npt.NDArray[np.int16], topology: Topology) -> None:
    """Mark nodes and what these read through operations: who reads a probability reads its logit."""
    while len(nodes):
        read[nodes] = True
        arguments = topology.sources_of(nodes[is_operation(codes[nodes])])
        nodes = np.unique(arguments[~read[arguments]])
