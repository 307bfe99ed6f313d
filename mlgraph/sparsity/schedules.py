"""Sparse training: the schedules that there are, to cut and grow edges between the steps of `fit`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float64, Int64
from mlgraph._support.checks import one_of, share, shown, whole
from mlgraph._support.interrupts import uninterrupted
from mlgraph.graph.arrays import Wiring, wiring
from mlgraph.graph.edits import cut
from mlgraph.graph.ops import INPUT, NEURON
from mlgraph.graph.topology import ancestors
from mlgraph.models.model import Model
from mlgraph.models.network import Network
from mlgraph.sparsity.growing import Products, absent_gradient, ends_of_layers
from mlgraph.sparsity.moving import begin_anew, edge_values, fill_layers, give_back
from mlgraph.sparsity.pruning import SCOPES, check_room, keep_best, prune, room
from mlgraph.sparsity.schedule import Sample, Schedule
from mlgraph.sparsity.scores import check_criterion, gradient

__all__ = ["SET", "GradualPruning", "RigL", "Schedule", "erdos_renyi"]

SAMPLE = 1024
"""Training examples that a gradient is estimated from: of edges for their saliency, of absent ones to grow by."""


@dataclass(frozen=True, repr=False)
class GradualPruning(Schedule):
    """Cut the weakest edges little by little, along a cubic curve (Zhu and Gupta 2017, To prune, or not to prune).

    The sparsity is ``initial + (sparsity - initial) * (1 - (1 - t)^3)``, where t goes from 0 at `start` to 1 at `until`:
    most is cut early, while there is much to spare. `Model.prune` defines what is weak; what is frozen stays.

    Parameters
    ----------
    sparsity, updates, until
        As for `mlgraph.sparsity.schedules.Schedule`.
    start : float
        Share of the training before which nothing is cut.
    initial : float
        The sparsity that the curve starts from. For a model pruned before, give its sparsity: else nothing is cut until the
        curve has reached that. A less sparse model is cut to `initial` at `start`.
    scope : "global" or "layer"
        As for `Model.prune`.
    by : "magnitude", "saliency", "random" or callable
        As for `Model.prune`; the saliency is estimated from 1,024 examples, others each time. A checkpoint recognises a
        function by its name (a method too, whatever its object), and any other callable by its repr: give its class a
        ``__repr__``.
    block : int
        As for `Model.prune`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 20)).astype(np.float32)
    >>> net = mlgraph.Network(20, seed=0)
    >>> hidden, out = net.add_layer(10, "relu"), net.add_layer(2, "softmax")
    >>> history = net.fit(x, x[:, 0] > 0, epochs=5, batch_size=20, sparsify=mlgraph.GradualPruning(0.9))
    >>> net.n_edges, net.sparsity
    (22, 0.9)
    """

    start: float = 0.0
    scope: str = "global"
    by: str | Callable[..., npt.ArrayLike] = "magnitude"
    initial: float = 0.0
    block: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        vars(self).update(start=share("start", self.start), scope=str(one_of("scope", self.scope, SCOPES)))
        vars(self).update(initial=share("initial", self.initial), block=whole("block", self.block))
        if self.initial > self.sparsity:
            raise ValueError(f"initial: expected a number from 0 to sparsity, {self.sparsity}, got {self.initial}")
        check_criterion(self.by)
        vars(self).update(by=str(self.by) if isinstance(self.by, str) else self.by)
        if self.start > self.until:
            raise ValueError(f"start: expected a number from 0 to until, {self.until}, got {self.start}")

    def at(self, moment: float) -> float:
        """The sparsity at a moment, a share of the training from 0 to 1."""
        moment = share("moment", moment, all=True)
        if not self.start < moment < self.until:
            return self.sparsity if moment >= self.until else self.initial
        t = (moment - self.start) / (self.until - self.start)
        return self.initial + (self.sparsity - self.initial) * (1 - (1 - t) ** 3)

    def check(self, model: Model) -> None:
        """Raise ValueError if so few edges cannot be a path to each output."""
        check_room(model, *room(model, self.sparsity, self.scope))

    def _is_over(self, model: Model, sparsity: float) -> bool:
        """Whether the model, or one of its layers, has more edges than that: layers that lost neurons may have fewer."""
        if self.scope == "global" or not isinstance(model, Network):
            return sparsity > model.sparsity
        group, left = room(model, sparsity, self.scope)
        edges, alive = wiring(model.graph), model.graph.alive()
        there = np.bincount(group[alive[edges.source] & alive[edges.target]], minlength=len(left))
        return bool((there[: len(left)] > left).any())

    def act(self, model: Model, moment: float, step: int, seed: int, sample: Sample, n_threads: int | None) -> None:
        """Cut to the sparsity of the moment."""
        if moment >= self.start and self._is_over(model, self.at(moment)):
            slope = None
            if self.by == "saliency":  # numbers in it that are not finite say nothing here
                slope = np.nan_to_num(gradient(model, *sample(SAMPLE), n_threads), nan=0.0, posinf=0.0, neginf=0.0)
            # Not `Model.prune`, which would warn at each moment of edges that are lost with those that are cut.
            prune(
                model,
                self.at(moment),
                neurons=None,
                by=self.by,
                scope=self.scope,
                block=self.block,
                data=None,
                seed=seed,
                n_threads=n_threads,
                step=step,
                slope=slope,
            )


@dataclass(frozen=True, repr=False)
class SET(Schedule):
    """Sparse from the first step on: repeatedly, the smallest weights are cut and as many edges grow at random.

    Sparse evolutionary training (Mocanu et al. 2018, Scalable training of artificial neural networks). Each layer has as
    many edges as `mlgraph.sparsity.schedules.erdos_renyi` gives it, except for a few: a neuron that comes to be read gets at least one
    source, and a neuron that is not read gets none. Edges grow anywhere between a layer and the nodes that it was made to
    read, also at inputs and neurons that have lost all their edges. New weights are 0; those into a neuron that comes to
    life are drawn as in a new layer. That neuron, and one that has lost all its edges, gets a bias of 0. What is frozen
    stays, and so does a path to it. Edges past the layers, and those of neurons in no layer, stay and are not counted, but
    do not come back if a cut leaves their neuron without a source or a reader. Only for a `Network`.

    Parameters
    ----------
    sparsity, updates, until
        As for `mlgraph.sparsity.schedules.Schedule`.
    fraction : float
        Share of the edges that move each time: this much at the beginning, falling to 0 at `until` along a cosine (Dettmers
        and Zettlemoyer 2019, Sparse networks from scratch). Before the first step none move: a layer with more than its
        share of edges is cut, and one with less is filled.
    block : int
        As for `Network.prune` and `Network.regrow`: adjacent neurons lose and gain a source together.
    """

    fraction: float = 0.3
    block: int = 1
    by: ClassVar[str] = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        vars(self).update(fraction=share("fraction", self.fraction, all=True), block=whole("block", self.block))

    def act(self, model: Model, moment: float, step: int, seed: int, sample: Sample, n_threads: int | None) -> None:
        """Cut a share of each layer's edges and grow it to its size again."""
        net = _network(model)
        graph, alive = net.graph, net.graph.alive()
        moved = self.fraction / 2 * (1 + math.cos(math.pi * moment / self.until)) if step else 0.0
        slopes = before = None
        if self.by == "gradient":  # of the network before the cut: afterwards the cut edges would be steep
            ends, products = ends_of_layers(net, dead=True), vars(self).get("_products")
            slopes, before = absent_gradient(net, ends, *sample(SAMPLE), n_threads, products), edge_values(graph)
        with uninterrupted(), graph.one_edit():  # one_edit takes back edges, but no biases
            edges, sizes = wiring(graph), self._sizes(net)
            group, wanted = self._room(net, edges, sizes, moved)
            idle = self._idle(net, edges, group, alive)
            if idle.any():  # such a neuron may come to be read, and would bring all these along
                cut(graph, edges, idle)
                group, wanted = self._room(net, wiring(graph), sizes, moved)
            keep_best(net, group, wanted, block=self.block)
            as_before = alive & graph.alive()
            new = fill_layers(net, sizes, slopes, self.block, np.random.default_rng([seed, 3, step]))
            if before is not None:
                back = give_back(graph, before, new)
                as_before[back] = alive[back]
            begin_anew(graph, np.flatnonzero(graph.alive() & ~as_before & (graph.codes >= NEURON)))

    def check(self, model: Model) -> None:
        """Raise TypeError if this is no `Network`, ValueError if so few edges cannot be a path to each output."""
        net = _network(model)
        check_room(net, *self._room(net, wiring(net.graph), self._sizes(net), 0.0))

    def _begin_run(self) -> None:
        vars(self).update(_products=Products())  # its memory is of this run alone

    def _check_columns(self, model: Model, columns: int) -> None:
        # Edges may grow at inputs of which there are no data: such as no edge has left.
        graph, layers = model.graph, _network(model).layers
        read = np.unique(np.concatenate([layer.source_ids for layer in layers]).astype(np.int64))
        least = int(graph.records[read[graph.codes[read] == INPUT]].max(initial=-1)) + 1
        if columns < least:
            expected = f"{least} columns, all that a layer was made to read and edges may grow at"
            raise ValueError(f"x: expected {expected}, got {columns}")

    def _sizes(self, net: Network) -> Float64:
        """Edges of each layer."""
        return erdos_renyi([(len(layer.source_ids), layer.size) for layer in net.layers], self.sparsity)

    def _idle(self, net: Network, edges: Wiring, group: Int64, alive: Bool) -> Bool:
        """Which edges of the layers lead to neurons that are not read; but for what is frozen, and what leads to that."""
        frozen = net.graph.storage.frozen
        idle = (group < len(net.layers)) & edges.at_targets(~alive)
        if frozen is not None and idle.any():
            stays = idle & (frozen[edges.place] > 0)
            leads = ancestors(net.graph, net.graph.topology(), edges.source[stays])
            idle &= ~stays & ~leads[edges.target]
        return idle

    def _room(self, net: Network, edges: Wiring, sizes: Float64, moved: float) -> tuple[Int64, Float64]:
        """The group of each edge, and how many edges each group keeps while this share of them moves."""
        gaps = [
            len(layer.source_ids) * layer.size for layer in net.layers
        ] - sizes  # more would return to their old places
        into, read_by = edges.at_targets(net.layer_numbers()), np.full(len(net.graph), -1)
        for i, layer in enumerate(net.layers):
            read_by[layer.source_ids] = i
        # Edges past the layers, or of neurons that are in no layer, would not grow again, so all of them stay.
        group = np.where(read_by[edges.source] == into, into, len(net.layers))
        return group, np.append(sizes - np.minimum(np.round(moved * sizes), gaps), len(group))


@dataclass(frozen=True, repr=False)
class RigL(SET):
    """Like `SET`, but edges grow where the loss is steepest (Evci et al. 2020, Rigging the lottery).

    The gradient is estimated from 1,024 examples, others each time, before anything is cut. An edge that is cut but found
    steep stays as it is, with its weight and optimizer state.

    Parameters
    ----------
    sparsity, updates, until, fraction, block
        As for `SET`.
    """

    by: ClassVar[str] = "gradient"


def _network(model: Model) -> Network:
    if not isinstance(model, Network):
        raise TypeError(
            "sparsify: expected a schedule without need of layers, as GradualPruning, got one that needs them"
        )
    return model


def erdos_renyi(sizes: Sequence[tuple[int, int]], sparsity: float) -> Float64:
    """Edges for each layer, in proportion to its sources and neurons together (Mocanu et al. 2018); no layer gets too many.

    Parameters
    ----------
    sizes : sequence of (int, int)
        Sources and neurons of each layer.
    sparsity : float
        Of all layers together.

    Returns
    -------
    float64, shape (layers,)

    Raises
    ------
    TypeError, ValueError
        If the sizes are no pairs of positive integers, or the sparsity no number from 0 to below 1.
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
        more = ~full & (edges > most)
        if not more.any():
            # The layers that lose most by rounding down get the edges that are left over.
            whole_edges = np.floor(edges)
            left = round(edges.sum() - whole_edges.sum())
            whole_edges[np.argsort(whole_edges - edges, kind="stable")[:left]] += 1
            return whole_edges
        full |= more
