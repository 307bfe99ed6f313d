"""`GradualPruning`: the schedule that cuts edges along a curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlgraph._support.checks import one_of, share, whole
from mlgraph.graph.arrays import wiring
from mlgraph.models.model import Model
from mlgraph.models.network import Network
from mlgraph.sparsity.pruning import SCOPES, check_budgets, edge_budgets, prune
from mlgraph.sparsity.schedules import SAMPLE_SIZE, Sample, Schedule
from mlgraph.sparsity.scores import check_criterion, loss_gradient


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
    by : "path", "magnitude", "saliency", "random" or callable
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
    by: str | Callable[..., npt.ArrayLike] = "path"
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
        """Raise ValueError if the remaining edges would not suffice for a path to each output, or there are none."""
        model.require_edges("sparsify", "only edges, which neurons have, can be cut")
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
            sparsity=self.at(moment),
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
