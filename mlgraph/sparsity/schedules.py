"""Schedules of `fit`, which cut and grow edges between the steps of training.

A schedule acts at evenly spaced moments of the training, the first time before the first step. Its
action depends only on the model, the seed, the number of the step and the progress of the training.
It has no state, so a run can resume at any step. `Schedule` is the base class, `GradualPruning`,
`SET` and `RigL` are the schedules, and `ScheduleRunner` is what `fit` calls.
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

from mlgraph._support.array_types import Bool, Float64, Int64
from mlgraph._support.checks import one_of, share, shown, whole
from mlgraph._support.interrupts import uninterrupted
from mlgraph.engine.losses import Objective
from mlgraph.graph.arrays import Wiring, wiring
from mlgraph.graph.edits import cut
from mlgraph.graph.ops import INPUT, NEURON
from mlgraph.graph.topology import ancestors
from mlgraph.models.model import Model
from mlgraph.models.network import Network
from mlgraph.sparsity.growing import EdgeValues, Products, dense_gradients, grow_to_sizes, layer_ends, reset_neurons
from mlgraph.sparsity.pruning import SCOPES, check_budgets, edge_budgets, prune, prune_to_budgets
from mlgraph.sparsity.scores import check_criterion, loss_gradient

Sample = Callable[[int], tuple[Any, Any]]

SAMPLE_SIZE = 1024
"""Number of training examples from which a schedule estimates a gradient."""


@dataclass(frozen=True, repr=False)
class Schedule(ABC):
    """Base class of schedules; to write your own, derive from it and define `act`.

    Declare further arguments as fields of a ``@dataclass(frozen=True, repr=False)``: a checkpoint
    recognises its run by the repr. Each run works on its own copy of the schedule. Checkpoints do
    not hold what `act` stores in that copy. For a resumed run to equal an uninterrupted one, `act`
    must depend on its arguments alone. During `fit`, `Model.prune` never cuts frozen edges.

    Parameters
    ----------
    sparsity : float
        Fraction of the edges that is gone at the end.
    updates : int, optional
        How many times the schedule acts after the first time, at least 1. It acts at most once
        before each step. By default 100, or 5 for each epoch before `until` if that is less: each
        time costs some milliseconds, which is a good part of an epoch in a small network.
    until : float
        Fraction of the training, below 1, after which the schedule no longer acts.

    Examples
    --------
    >>> class Once(mlgraph.Schedule):
    ...     def act(self, model, moment, step, seed, sample, n_threads):
    ...         if step == 0:
    ...             model.prune(self.sparsity)
    >>> net = mlgraph.Network(4, seed=0)
    >>> layer = net.add_layer(2, "softmax")
    >>> history = net.fit(np.eye(4), [0, 1, 0, 1], sparsify=Once(0.5))
    >>> net.n_edges
    4
    """

    sparsity: float
    updates: int | None = None
    until: float = 0.75

    def __post_init__(self) -> None:
        # Built-in numbers, so that equal schedules have equal reprs and can be written to files.
        updates = None if self.updates is None else whole("updates", self.updates)
        vars(self).update(sparsity=share("sparsity", self.sparsity), updates=updates, until=share("until", self.until))

    def __repr__(self) -> str:
        # A checkpoint compares it with that of another process, where a function has another
        # address.
        arguments = (f"{f.name}={_stable_repr(getattr(self, f.name))}" for f in fields(self))
        return f"{type(self).__name__}({', '.join(arguments)})"

    @abstractmethod
    def act(self, model: Model, moment: float, step: int, seed: int, sample: Sample, n_threads: int | None) -> None:
        """Cut and grow edges before a step.

        Other threads that run or edit the graph wait meanwhile, so do not wait for one of them
        here.

        Parameters
        ----------
        model : Model
        moment : float
            Fraction of the training that is done: one of the moments that `due` returned.
        step, seed : int
            Number of the step; the seed of `fit`.
        sample : callable
            ``sample(n)`` returns n training examples, or all if there are fewer, and their labels
            or targets. It returns the same examples for the same step. If the loss is a node, its
            targets are the last columns of the data, and () is returned in their place.
        n_threads : int, optional
            As for `fit`.

        Raises
        ------
        StopIteration
            To end the run there, as in a callback. Raise it before editing anything: a resumed run
            acts again at this moment.
        """

    def check(self, model: Model) -> None:  # noqa: B027 - optional to override
        """Check before the run that the schedule can work on this model; override it to raise an error.

        Raises
        ------
        TypeError
            If the schedule needs another kind of model.
        ValueError
            If the remaining edges would not suffice for a path to each output and for the frozen
            edges.
        """

    def over(self, epochs: int) -> Schedule:
        """A copy of the schedule for a run of this many epochs."""
        other = copy(self)  # a subclass may have any constructor
        vars(other).update(updates=self.updates or min(100, max(1, round(5 * epochs * self.until))))
        return other

    def due(self, begin: Float64, end: Float64) -> Float64:
        """The moment at which to act before each step, or NaN; may be overridden, to act before every step, say.

        Parameters
        ----------
        begin, end : float64, shape (steps,)
            Fraction of the training that is done at the beginning and at the end of each step.

        Returns
        -------
        float64, shape (steps,)
        """
        assert self.updates is not None
        scale = self.updates / max(self.until, 1e-9)
        before, reached = (np.clip(np.ceil(share * scale) - 1, -1, self.updates) for share in (begin, end))
        # The last moment is exactly `until`.
        moments = np.where(reached == self.updates, self.until, reached * (self.until / self.updates))
        return np.where(reached > before, moments, np.nan)

    def _check_columns(self, model: Model, columns: int) -> None:  # noqa: B027 - optional to override
        """Raise ValueError if the data have too few columns for the edges that may grow."""

    def _begin_run(self) -> None:  # noqa: B027 - optional to override
        """Called once on the copy that `over` returned."""


@dataclass(frozen=True, repr=False)
class GradualPruning(Schedule):
    """Cut the lowest-scoring edges gradually, along a cubic curve (Zhu and Gupta 2017, To prune, or not to prune).

    The sparsity is ``initial + (sparsity - initial) * (1 - (1 - t)^3)``, where t goes from 0 at
    `start` to 1 at `until`. Most edges are cut early, while many are redundant. Edges are scored as
    in `Model.prune`. Frozen edges stay.

    Parameters
    ----------
    sparsity, updates, until
        As for `Schedule`.
    start : float
        Fraction of the training before which nothing is cut.
    initial : float
        Sparsity at the start of the curve. For a model that is already pruned, pass its sparsity;
        otherwise nothing is cut until the curve reaches it. A less sparse model is cut to `initial`
        at `start`.
    scope : "global" or "layer"
        As for `Model.prune`.
    by : "magnitude", "saliency", "random" or callable
        As for `Model.prune`. The saliency is estimated from 1,024 examples, different ones each
        time. A checkpoint recognises a function by its name (a method, too, whatever its object)
        and any other callable by its repr: define a ``__repr__`` in its class.
    block : int
        As for `Model.prune`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 20)).astype(np.float32)
    >>> net = mlgraph.Network(20, seed=0)
    >>> hidden, out = net.add_layer(10, "relu"), net.add_layer(2, "softmax")
    >>> history = net.fit(x, x[:, 0] > 0, epochs=20, batch_size=20, sparsify=mlgraph.GradualPruning(0.9))
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
        """The sparsity at a moment, a fraction of the training from 0 to 1."""
        moment = share("moment", moment, all=True)
        if not self.start < moment < self.until:
            return self.sparsity if moment >= self.until else self.initial
        t = (moment - self.start) / (self.until - self.start)
        return self.initial + (self.sparsity - self.initial) * (1 - (1 - t) ** 3)

    def check(self, model: Model) -> None:
        """Raise ValueError if the remaining edges would not suffice for a path to each output."""
        check_budgets(model, *edge_budgets(model, self.sparsity, self.scope))

    def act(self, model: Model, moment: float, step: int, seed: int, sample: Sample, n_threads: int | None) -> None:
        """Cut to the sparsity of the moment."""
        if moment < self.start or not self._is_denser_than(model, self.at(moment)):
            return
        gradient = None
        if self.by == "saliency":  # non-finite numbers carry no information here
            found = loss_gradient(model, *sample(SAMPLE_SIZE), n_threads)
            gradient = np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
        # Not `Model.prune`, which would warn at each moment about edges that become useless.
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
            gradient=gradient,
        )

    def _is_denser_than(self, model: Model, sparsity: float) -> bool:
        """Whether the model, or one of its layers, has more edges than this sparsity allows."""
        if self.scope == "global" or not isinstance(model, Network):
            return sparsity > model.sparsity
        group, budget = edge_budgets(model, sparsity, self.scope)
        edges, alive = wiring(model.graph), model.graph.alive()
        n_edges = np.bincount(group[alive[edges.source] & alive[edges.target]], minlength=len(budget))
        return bool((n_edges[: len(budget)] > budget).any())


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


# --- running a schedule ---------------------------------------------------------------------------


class ScheduleRunner:
    """Checks a schedule before a run of `fit` and calls it during the run.

    It samples `x` and `y` as the user gave them; with targets, the data have `width` columns.
    """

    def __init__(
        self,
        schedule: Schedule,
        model: Model,
        x: npt.NDArray[Any],
        y: Any,
        width: int,
        objective: Objective,
        epochs: int,
        seed: int,
        n_threads: int | None,
    ) -> None:
        if not isinstance(schedule, Schedule):
            got = f"the class {schedule.__name__}" if isinstance(schedule, type) else type(schedule).__name__
            raise TypeError(f"sparsify: expected a mlgraph.Schedule or None, got {got}")
        missing = [field.name for field in fields(schedule) if not hasattr(schedule, field.name)]
        if missing:
            raise TypeError(
                f"sparsify: {type(schedule).__name__} has no {missing[0]}; make it a "
                "@dataclass(frozen=True, repr=False), or call super().__init__ in its __init__"
            )
        with model.graph.lock:
            schedule.check(model)
            schedule._check_columns(model, width)
        self._schedule = schedule.over(epochs)
        self._schedule._begin_run()  # not in `over`, which a subclass may override
        self._model = model
        self._x = x
        self._seed = seed
        self._n_threads = n_threads
        label, target = objective.label, objective.target
        self._y: Any = y if objective.loss == "node" else target if label is None else label

    def __call__(self, step: int, ends: Float64) -> int:
        """Let the schedule act if it is due before this step.

        Parameters
        ----------
        step : int
            Number of the step.
        ends : float64, shape (steps + 1,)
            Fractions of the training: where this step begins, then where it and the later steps of
            the epoch end.

        Returns
        -------
        int
            How many steps may be taken before the next call.
        """
        moments = np.asarray(self._schedule.due(ends[:-1], ends[1:]))
        if moments.shape != (len(ends) - 1,) or moments.dtype.kind != "f":
            got = f"{moments.dtype} of shape {moments.shape}"
            raise ValueError(f"due: expected a moment or NaN for each of {len(ends) - 1} steps, got {got}")
        if not np.isnan(moments[0]):
            with self._model.graph.lock:
                self._schedule.act(
                    self._model, float(moments[0]), step, self._seed, self._sampler(step), self._n_threads
                )
        later = np.flatnonzero(~np.isnan(moments[1:]))
        return 1 + int(later[0]) if len(later) else len(moments)

    def _sampler(self, step: int) -> Sample:
        def sample(n: int) -> tuple[Any, Any]:
            whole("n", n)
            chosen = np.random.default_rng([self._seed, 4, step]).permutation(len(self._x))[:n]
            x, y = self._x[chosen], self._y[chosen] if len(self._y) else ()
            if self._model.loss != "node" or not len(y):
                # Inputs added since `fit` began have no data, and nothing reads them yet.
                x = np.pad(x, ((0, 0), (0, self._model.graph.n_inputs - x.shape[1])))
            return x, y

        return sample


def _stable_repr(value: Any) -> str:
    """A repr that is the same in each process: functions by name, arrays by a digest of their numbers."""
    if isinstance(value, partial):
        given = [*map(_stable_repr, value.args), *(f"{name}={_stable_repr(v)}" for name, v in value.keywords.items())]
        return f"partial({', '.join([_stable_repr(value.func), *given])})"
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return f"{value.__module__}.{name}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"<{value.dtype} of shape {value.shape} {sha256(value.tobytes()).hexdigest()}>"
    return repr(value)
