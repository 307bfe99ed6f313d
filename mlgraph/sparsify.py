"""Sparse training: schedules that cut and grow edges between the steps of `fit`.

A schedule acts at evenly spaced moments of the training, the first time before its first step. What it does follows from the
model, the seed, the number of the step and how far the training is; it remembers nothing, so that a run can go on from any
step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, fields
from functools import partial
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mlgraph.array_types import Bool, Float64, Int64
from mlgraph.arrays import Wiring, wiring
from mlgraph.checks import one_of, share, shown, whole
from mlgraph.edits import cut
from mlgraph.examples import Examples
from mlgraph.growing import Products, absent_gradient, begin_anew, edge_values, ends_of_layers, fill_layers, give_back
from mlgraph.interrupts import uninterrupted
from mlgraph.losses import Objective
from mlgraph.model import Model
from mlgraph.network import Network
from mlgraph.ops import INPUT, NEURON
from mlgraph.pruning import SCOPES, check_room, keep_best, prune, room
from mlgraph.scores import check_criterion, gradient
from mlgraph.topology import topological

__all__ = ["SET", "GradualPruning", "RigL", "Schedule", "erdos_renyi"]

SAMPLE = 1024
"""Training examples that a gradient is estimated from: of edges for their saliency, of absent ones to grow by."""

Sample = Callable[[int], tuple[Any, Any]]


@dataclass(frozen=True, repr=False)
class Schedule(ABC):
    """What all schedules have in common; for your own, write a subclass with an `act`.

    Its further arguments should be fields of a ``@dataclass(frozen=True, repr=False)``: a checkpoint recognises its run by
    the repr. Each run has its own copy of the schedule, and no checkpoint holds what `act` stores in it: for a resumed run
    to equal an uninterrupted one, what `act` does must follow from its arguments. During `fit`, `Model.prune` cuts nothing
    that is frozen.

    Parameters
    ----------
    sparsity : float
        Share of the edges that is gone at the end.
    updates : int, optional
        How many times it acts after the first time, at least once; before each step it acts at most once. By default 100
        times, or 5 times for each epoch before `until` if that is less: each time costs some milliseconds, a good part of an
        epoch in a network of few neurons.
    until : float
        Share of the training, below 1, after which it acts no more.
    """

    sparsity: float
    updates: int | None = None
    until: float = 0.75

    def __post_init__(self) -> None:
        # Plain numbers, so that equal schedules look equal and go into files.
        updates = None if self.updates is None else whole("updates", self.updates)
        vars(self).update(sparsity=share("sparsity", self.sparsity), updates=updates, until=share("until", self.until))

    def __repr__(self) -> str:
        # A checkpoint recognises its run by it, also in another process, where a function has another address.
        return f"{type(self).__name__}({', '.join(f'{f.name}={_named(getattr(self, f.name))}' for f in fields(self))})"

    def over(self, epochs: int) -> Schedule:
        """The schedule of a run of so many epochs."""
        other = copy(self)  # of a class that may be made with anything
        vars(other).update(updates=self.updates or min(100, max(1, round(5 * epochs * self.until))))
        return other

    def due(self, begin: Float64, end: Float64) -> Float64:
        """The moment at which to act before each step, from `begin` to `end` in shares of the training; NaN for none.

        All are float64 of shape (steps,). A subclass may override it, to act before every step, say.
        """
        assert self.updates is not None
        scale = self.updates / max(self.until, 1e-9)
        before, reached = (np.clip(np.ceil(share * scale) - 1, -1, self.updates) for share in (begin, end))
        moments = np.where(reached == self.updates, self.until, reached * (self.until / self.updates))  # the last to the bit
        return np.where(reached > before, moments, np.nan)

    def check(self, model: Model) -> None:  # noqa: B027 - a schedule that takes any model has nothing to add
        """Raise TypeError if the schedule cannot take this model, ValueError if it would leave too few edges.

        Too few are those that do not suffice for a path to each output and for all that is frozen.
        """

    def _check_columns(self, model: Model, columns: int) -> None:  # noqa: B027 - most need no more than the model does
        """Raise ValueError if the data have too few columns."""

    def _begin_run(self) -> None:  # noqa: B027 - most remember nothing
        """Called for what `over` has returned, before anything else."""

    @abstractmethod
    def act(self, model: Model, moment: float, step: int, seed: int, sample: Sample, n_threads: int | None) -> None:
        """Cut and grow before a step.

        Other threads that run or edit the graph wait meanwhile; waiting for one of them here would never end.

        Parameters
        ----------
        model : Model
        moment : float
            Share of the training, one of those that are due.
        step, seed : int
            Number of the step; the seed of `fit`.
        sample : callable
            ``sample(n)`` gives n examples of the training data, or all if there are fewer, and their labels or targets; the
            same for the same step. If the loss is a node, its targets are the last columns of the data, and () stands in
            their place.
        n_threads : int, optional
            As for `fit`.

        Raises
        ------
        StopIteration
            To end the run there, as a callback may. Raise it before editing anything: a resumed run acts once more at this
            moment.
        """


class Acting:
    """A schedule at work in one run of `fit`.

    Parameters
    ----------
    schedule : Schedule
    model, examples, objective, epochs, seed, n_threads
        Of the run.
    """

    def __init__(
        self, schedule: Schedule, model: Model, examples: Examples, objective: Objective, epochs: int, seed: int,
        n_threads: int | None,
    ) -> None:  # fmt: skip
        if not isinstance(schedule, Schedule):
            raise TypeError(f"sparsify: expected a schedule of mlgraph.sparsify or None, got {type(schedule).__name__}")
        missing = [field.name for field in fields(schedule) if not hasattr(schedule, field.name)]
        if missing:
            how = "of a @dataclass(frozen=True, repr=False), or of an __init__ that calls super().__init__"
            raise TypeError(f"sparsify: expected a schedule {how}, got {type(schedule).__name__} without {missing[0]}")
        with model.graph.lock:
            schedule.check(model)
            schedule._check_columns(model, examples.array.shape[1])
        self._schedule = schedule.over(epochs)
        self._schedule._begin_run()  # not in `over`, which a subclass may override
        self._model, self._examples, self._seed, self._n_threads = model, examples, seed, n_threads
        label, target = objective.label, objective.target
        self._y: Any = () if objective.loss == "node" else target if label is None else label

    def __call__(self, step: int, ends: Float64) -> int:
        """Act if it is time to, before a step.

        Parameters
        ----------
        step : int
            Its number.
        ends : float64, shape (steps + 1,)
            Shares of the training: where this step begins, and where it and those after it in the epoch end.

        Returns
        -------
        int
            How many steps may be taken before the next call.
        """
        moments = np.asarray(self._schedule.due(ends[:-1], ends[1:]))
        if moments.shape != (len(ends) - 1,) or moments.dtype.kind != "f":
            got = f"{moments.dtype} of shape {moments.shape}"
            raise ValueError(f"due: expected a moment or NaN for each of {len(ends) - 1} steps, got {got}")
        if moments[0] == moments[0]:
            with self._model.graph.lock:
                self._schedule.act(self._model, float(moments[0]), step, self._seed, self._sample(step), self._n_threads)
        later = np.flatnonzero(moments[1:] == moments[1:])
        return 1 + int(later[0]) if len(later) else len(moments)

    def _sample(self, step: int) -> Sample:
        def sample(n: int) -> tuple[Any, Any]:
            whole("n", n)
            some = np.random.default_rng([self._seed, 4, step]).permutation(len(self._examples))[:n]
            x = self._examples.array[some]
            # Inputs that were added since `fit` began have no data, and so far nothing reads them.
            x = np.pad(x, ((0, 0), (0, self._model.graph.n_inputs - x.shape[1])))
            return x, self._y[some] if len(self._y) else ()

        return sample


@dataclass(frozen=True, repr=False)
class GradualPruning(Schedule):
    """Cut the weakest edges little by little, along a cubic curve (Zhu and Gupta 2017, To prune, or not to prune).

    The sparsity is ``initial + (sparsity - initial) * (1 - (1 - t)^3)``, where t goes from 0 at `start` to 1 at `until`:
    most is cut early, while there is much to spare. `Model.prune` defines what is weak; what is frozen stays.

    Parameters
    ----------
    sparsity, updates, until
        As for `mlgraph.sparsify.Schedule`.
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
        """The sparsity of a moment."""
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
                model, self.at(moment), neurons=None, by=self.by, scope=self.scope, block=self.block, data=None, seed=seed,
                n_threads=n_threads, step=step, slope=slope,
            )  # fmt: skip


@dataclass(frozen=True, repr=False)
class SET(Schedule):
    """Sparse from the first step on: repeatedly, the smallest weights are cut and as many edges grow at random.

    Sparse evolutionary training (Mocanu et al. 2018, Scalable training of artificial neural networks). Each layer has as
    many edges as `mlgraph.sparsify.erdos_renyi` gives it, except for a few: a neuron that comes to be read gets at least one
    source, and a neuron that is not read gets none. Edges grow anywhere between a layer and the nodes that it was made to
    read, also at inputs and neurons that have lost all their edges. New weights are 0; those into a neuron that comes to
    life are drawn as in a new layer. That neuron, and one that has lost all its edges, gets a bias of 0. What is frozen
    stays, and so does a path to it. Edges past the layers, and those of neurons in no layer, stay and are not counted, but
    do not come back if a cut leaves their neuron without a source or a reader. Only for a `Network`.

    Parameters
    ----------
    sparsity, updates, until
        As for `mlgraph.sparsify.Schedule`.
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
        read = np.unique(np.concatenate([layer._reads for layer in layers]).astype(np.int64))
        least = int(graph.records[read[graph.codes[read] == INPUT]].max(initial=-1)) + 1
        if columns < least:
            expected = f"{least} columns, all that a layer was made to read and edges may grow at"
            raise ValueError(f"x: expected {expected}, got {columns}")

    def _sizes(self, net: Network) -> Float64:
        """Edges of each layer."""
        return erdos_renyi([(len(layer._reads), layer.size) for layer in net.layers], self.sparsity)

    def _idle(self, net: Network, edges: Wiring, group: Int64, alive: Bool) -> Bool:
        """Which edges of the layers lead to neurons that are not read; but for what is frozen, and what leads to that."""
        frozen = net.graph.storage.frozen
        idle = (group < len(net.layers)) & np.repeat(~alive[edges.neurons], edges.counts)
        if frozen is not None and idle.any():
            stays = idle & (frozen[edges.place] > 0)
            leads = topological(net.graph, *net.graph.topology(), edges.source[stays])[0] >= 0
            idle &= ~stays & ~leads[edges.target]
        return idle

    def _room(self, net: Network, edges: Wiring, sizes: Float64, moved: float) -> tuple[Int64, Float64]:
        """The group of each edge, and how many edges each group keeps while this share of them moves."""
        gaps = [len(layer._reads) * layer.size for layer in net.layers] - sizes  # more would return to their old places
        into, read_by = np.repeat(net._layer_numbers()[edges.neurons], edges.counts), np.full(len(net.graph), -1)
        for i, layer in enumerate(net.layers):
            read_by[layer._reads] = i
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
        raise TypeError("sparsify: expected a schedule without need of layers, as GradualPruning, got one that needs them")
    return model


def _named(value: Any) -> str:
    if isinstance(value, partial):
        given = [*map(_named, value.args), *(f"{name}={_named(v)}" for name, v in value.keywords.items())]
        return f"partial({', '.join([_named(value.func), *given])})"
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return f"{value.__module__}.{name}"
    if isinstance(value, np.ndarray) and value.dtype != object:  # of whose numbers a repr leaves out most
        return f"<{value.dtype} of shape {value.shape} {sha256(value.tobytes()).hexdigest()}>"
    return repr(value)


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
