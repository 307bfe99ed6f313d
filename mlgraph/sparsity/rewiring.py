"""`SET` and `RigL`: schedules that keep a network sparse from the first step and move its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlgraph._support.array_types import Bool, Float64, Int64
from mlgraph._support.checks import share, shown, whole
from mlgraph._support.interrupts import uninterrupted
from mlgraph.graph.arrays import Wiring, wiring
from mlgraph.graph.edits import cut
from mlgraph.graph.ops import INPUT, NEURON
from mlgraph.graph.topology import ancestors
from mlgraph.models.model import Model
from mlgraph.models.network import Network
from mlgraph.sparsity.growing import EdgeValues, Products, dense_gradients, grow_to_sizes, layer_ends, reset_neurons
from mlgraph.sparsity.pruning import check_budgets, prune_to_budgets
from mlgraph.sparsity.schedules import SAMPLE_SIZE, Sample, Schedule


@dataclass(frozen=True, repr=False)
class SET(Schedule):
    """Train a sparse network from the first step; repeatedly cut the smallest weights and grow as many edges at random.

    Sparse evolutionary training (Mocanu et al. 2018, Scalable training of artificial neural
    networks). The number of edges of each layer follows the Erdős–Rényi rule: it is proportional to
    the layer's sources and neurons together. It may be exceeded by a few edges, because each neuron
    that gains its first reader gets at least one source. Neurons without a reader have no sources.

    Edges grow anywhere between a layer and the nodes that it was made to read, also at inputs and
    neurons that have lost all their edges. New weights are 0, but those into a revived neuron are
    drawn as in a new layer. A revived neuron and one that has lost all its edges get a bias of 0.
    Frozen edges stay, and so does a path to each. Edges that skip layers, and edges of neurons in
    no layer, stay and are not counted; they do not grow again if a cut leaves their neuron without
    a source or a reader.

    It works only on a `Network`.

    Parameters
    ----------
    sparsity, updates, until
        As for `Schedule`.
    fraction : float
        Fraction of the edges that move each time at the beginning. It falls to 0 at `until` along a
        cosine (Dettmers and Zettlemoyer 2019, Sparse networks from scratch). Before the first step
        none move: a layer with too many edges is cut, and one with too few is filled.
    block : int
        As for `Network.prune` and `Network.regrow`: adjacent neurons lose and gain a source
        together.

    Examples
    --------
    >>> net = mlgraph.Network(20, seed=0)
    >>> hidden, out = net.add_layer(10, "relu"), net.add_layer(2, "softmax")
    >>> x = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
    >>> history = net.fit(x, x[:, 0] > 0, epochs=5, sparsify=mlgraph.SET(0.8))
    >>> bool(abs(net.n_edges - 0.2 * (20 * 10 + 10 * 2)) < 5)
    True
    """

    fraction: float = 0.3
    block: int = 1
    by: ClassVar[str] = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        vars(self).update(fraction=share("fraction", self.fraction, all=True), block=whole("block", self.block))

    def check(self, model: Model) -> None:
        """Raise TypeError unless the model is a `Network`; ValueError if the edges do not suffice for all outputs."""
        net = _network(model)
        check_budgets(net, *self._budgets(net, wiring(net.graph), self._layer_sizes(net), 0.0))

    def act(self, model: Model, moment: float, step: int, seed: int, sample: Sample, n_threads: int | None) -> None:
        """Cut a fraction of each layer's edges and grow it to its size again."""
        net = _network(model)
        graph, alive = net.graph, net.graph.alive()
        moved = self.fraction / 2 * (1 + math.cos(math.pi * moment / self.until)) if step else 0.0
        gradients = before = None
        if self.by == "gradient":  # computed before the cut, after which the cut edges would have large gradients
            products = vars(self).get("_products")
            gradients = dense_gradients(net, layer_ends(net, dead=True), *sample(SAMPLE_SIZE), n_threads, products)
            before = EdgeValues(graph)
        with uninterrupted(), graph.one_edit():  # `one_edit` restores edges after an error, but not biases
            edges, sizes = wiring(graph), self._layer_sizes(net)
            group, budget = self._budgets(net, edges, sizes, moved)
            unread = self._edges_of_unread(net, edges, group, alive)
            if unread.any():  # such a neuron would bring back all these edges when it gains a reader
                cut(graph, edges, unread)
                group, budget = self._budgets(net, wiring(graph), sizes, moved)
            prune_to_budgets(net, group, budget, block=self.block)
            survived = alive & graph.alive()
            new = grow_to_sizes(net, sizes, gradients, self.block, np.random.default_rng([seed, 3, step]))
            if before is not None:
                restored = before.restore(graph, new)
                survived[restored] = alive[restored]
            reset_neurons(graph, np.flatnonzero(graph.alive() & ~survived & (graph.codes >= NEURON)))

    def _begin_run(self) -> None:
        vars(self).update(_products=Products())  # each run has its own, so that its memory is released with the run

    def _check_columns(self, model: Model, columns: int) -> None:
        # Edges may grow at inputs that no edge reads now, so their data must be there.
        graph, layers = model.graph, _network(model).layers
        read = np.unique(np.concatenate([layer.source_ids for layer in layers]).astype(np.int64))
        least = int(graph.records[read[graph.codes[read] == INPUT]].max(initial=-1)) + 1
        if columns < least:
            raise ValueError(f"x: expected {least} columns, one for each input that may gain edges, got {columns}")

    def _layer_sizes(self, net: Network) -> Float64:
        """Target number of edges of each layer."""
        return erdos_renyi([(len(layer.source_ids), layer.size) for layer in net.layers], self.sparsity)

    def _budgets(self, net: Network, edges: Wiring, sizes: Float64, moved: float) -> tuple[Int64, Float64]:
        """The group of each edge, and how many edges each group keeps while a fraction `moved` of them moves.

        The last group holds the edges that skip layers and those of neurons in no layer. They could
        not grow again, so all of them are kept.
        """
        # A layer cannot move more edges than it has free places: the rest would return to their old
        # places.
        free = [len(layer.source_ids) * layer.size for layer in net.layers] - sizes
        into, read_by = edges.at_targets(net.layer_numbers()), np.full(len(net.graph), -1)
        for i, layer in enumerate(net.layers):
            read_by[layer.source_ids] = i
        group = np.where(read_by[edges.source] == into, into, len(net.layers))
        return group, np.append(sizes - np.minimum(np.round(moved * sizes), free), len(group))

    def _edges_of_unread(self, net: Network, edges: Wiring, group: Int64, alive: Bool) -> Bool:
        """Which edges of the layers lead to neurons without a reader, except frozen edges and paths to these."""
        frozen = net.graph.storage.frozen
        unread = (group < len(net.layers)) & edges.at_targets(~alive)
        if frozen is not None and unread.any():
            stays = unread & (frozen[edges.place] > 0)
            leads_to_frozen = ancestors(net.graph, net.graph.topology(), edges.source[stays])
            unread &= ~stays & ~leads_to_frozen[edges.target]
        return unread


@dataclass(frozen=True, repr=False)
class RigL(SET):
    """Like `SET`, but edges grow where the gradient is largest (Evci et al. 2020, Rigging the lottery).

    The gradient is estimated before the cut from 1,024 examples, different ones each time. An edge
    that is cut but has one of the largest gradients keeps its weight and its optimizer state.

    Parameters
    ----------
    sparsity, updates, until, fraction, block
        As for `SET`.
    """

    by: ClassVar[str] = "gradient"


def _network(model: Model) -> Network:
    if not isinstance(model, Network):
        raise TypeError("sparsify: SET and RigL need a Network; for other models use GradualPruning")
    return model


def erdos_renyi(sizes: Sequence[tuple[int, int]], sparsity: float) -> Float64:
    """Number of edges of each layer, proportional to its sources and neurons together (Mocanu et al. 2018).

    A layer that would get more edges than it has places gets all, and the others share the rest.

    Parameters
    ----------
    sizes : sequence of (int, int)
        Sources and neurons of each layer.
    sparsity : float
        Sparsity of all layers together.

    Returns
    -------
    float64, shape (layers,)

    Raises
    ------
    TypeError, ValueError
        If the sizes are not pairs of positive integers, or the sparsity is not a number from 0 to
        below 1.
    """
    try:
        pairs = [(sources, neurons) for sources, neurons in sizes]
    except (TypeError, ValueError):
        raise TypeError(f"sizes: expected pairs (sources, neurons), got {shown(sizes)}") from None
    sizes = [(whole("sizes", sources), whole("sizes", neurons)) for sources, neurons in pairs]
    sparsity = share("sparsity", sparsity)
    most = np.array([a * b for a, b in sizes], float)
    weight = np.array([a + b for a, b in sizes], float)
    full = np.zeros(len(most), bool)
    while True:
        edges = np.where(full, most, weight * ((1 - sparsity) * most.sum() - most[full].sum()) / weight[~full].sum())
        overfull = ~full & (edges > most)
        if not overfull.any():
            # Layers that lose most by rounding down get the edges that are left over.
            rounded = np.floor(edges)
            n_left = round(edges.sum() - rounded.sum())
            rounded[np.argsort(rounded - edges, kind="stable")[:n_left]] += 1
            return rounded
        full |= overfull
