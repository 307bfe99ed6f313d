"""The options of a run of `fit`, checked; `Progress.change` changes some of them between two steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mlgraph._support.array_types import Float64
from mlgraph._support.checks import FLOAT32_MAX, one_of, real, share, shown, truth, whole
from mlgraph.engine.choice import FEW
from mlgraph.engine.engine import STATE
from mlgraph.engine.steps import Course, Learning, Rates
from mlgraph.graph.undo import forget_state

if TYPE_CHECKING:
    from mlgraph.models.model import Model

T = TypeVar("T")

FLOAT32_TINY = float(np.finfo(np.float32).tiny)

PROGRESS = np.arange(1000) / 1000
"""Values of the progress at which a learning rate function is checked before a run. No batch begins at 1."""

RATES = {"adam": (0.003, 0.0), "sgd": (0.05, 0.0)}
"""Default learning rates."""

OPTIMIZERS = ("sgd", "adam")


@dataclass
class Options:
    """The options of a run, which callbacks may change between two steps.

    Attributes
    ----------
    course, learning : Course and Learning
    each_step : bool
        Whether callbacks are called after each step.
    fixed : str
        Why they cannot be changed, or "".
    changed : bool
        Whether they have been changed since the loop last read them.
    """

    course: Course
    learning: Learning
    each_step: bool = False
    fixed: str = ""
    changed: bool = False

    def change(
        self,
        model: Model,
        n: int,
        *,
        learning_rate: Any,
        batch_size: Any,
        optimizer: str | None,
        momentum: float | None,
        weight_decay: float | None,
        l1: float | None,
        clip_norm: float | None,
        each_step: bool | None,
    ) -> bool:
        """See `Progress.change`; the run has n examples. Returns whether another optimizer begins."""
        if self.fixed:
            raise ValueError(f"change: {self.fixed}")
        course, learning, of_momentum = self.course, self.learning, self.learning.hyper[0]
        if batch_size is not None:
            course = course._replace(batch_size=checked_sizes(batch_size))
            learning = learning._replace(few=takes_few(course.batch_size, n))
        sampled = np.array([0.0] if callable(course.learning_rate) else course.learning_rate)
        if learning_rate is not None:
            rates, sampled = checked_rates(learning_rate)
            course = course._replace(learning_rate=rates)
        if learning_rate is not None or weight_decay is not None:
            decay = course.weight_decay if weight_decay is None else weight_decay
            course = course._replace(weight_decay=checked_decay(decay, float(sampled.max())))
        if l1 is not None:
            course = course._replace(l1=checked_l1(l1))
        named = "adam" if learning.optimizer == "adam" else "sgd"
        name, of_momentum = checked_optimizer(
            named if optimizer is None else optimizer, of_momentum if momentum is None else momentum
        )
        learning = learning._replace(optimizer=name, hyper=(of_momentum, *learning.hyper[1:]))
        if clip_norm is not None:
            learning = learning._replace(clip_norm=checked_clip(clip_norm))
        each_step = self.each_step if each_step is None else truth("each_step", each_step)
        is_other = name != self.learning.optimizer
        if is_other:
            with model.graph.lock:  # another thread may edit the graph
                begin_state(model, name)
        self.course, self.learning, self.each_step, self.changed = course, learning, each_step, True
        return is_other


def begin_state(model: Model, optimizer: str) -> None:
    """Begin an optimizer's state with zeros, and forget any other."""
    forget_state(model.graph, STATE["adam"])
    for name in STATE[optimizer]:
        model.graph.storage.state_vector(name, fresh=True)
    model.graph.storage.optimizer = optimizer, 0


def can_keep(model: Model, optimizer: str) -> bool:
    """Whether the graph holds the state of this optimizer, or of none, so that a run can go on from it."""
    return model.graph.storage.optimizer[0] in ("", optimizer)


def require_kept(model: Model, optimizer: str) -> None:
    """A ValueError unless `can_keep`."""
    if not can_keep(model, optimizer):
        named = {"sgd": "SGD without momentum", "momentum": "SGD with momentum", "adam": "Adam"}
        raise ValueError(
            f"keep_optimizer: the last run was of {named[model.graph.storage.optimizer[0]]}, whose state "
            f"{named[optimizer]} cannot go on from; name the same optimizer, or leave keep_optimizer out"
        )


def takes_few(sizes: tuple[int, int], n: int) -> bool:
    """`Learning.few` for batches of these sizes from n examples."""
    return min(*sizes, n) <= FEW


def checked_optimizer(optimizer: str, momentum: float) -> tuple[str, float]:
    """The optimizer as in `mlgraph.engine.engine.STATE`, and its momentum."""
    optimizer, momentum = one_of("optimizer", optimizer, OPTIMIZERS), share("momentum", momentum)
    if optimizer == "adam" and np.float32(momentum) == 1:  # the moments would ignore every gradient
        raise ValueError(f"momentum: Adam needs a number that is below 1 in float32, got {shown(momentum)}")
    return "momentum" if optimizer == "sgd" and momentum else optimizer, momentum


def checked_sizes(batch_size: Any) -> tuple[int, int]:
    """The first and the last batch size."""
    return _pair("batch_size", batch_size, partial(whole, most=2**63 - 1))


def checked_rates(learning_rate: Any) -> tuple[Rates, Float64]:
    """The learning rate for `Course`, and the rates to check before the run: both ends, or samples of a function."""
    if callable(learning_rate):
        rates = partial(_rates, learning_rate)
        return rates, rates(PROGRESS)
    pair = _pair("learning_rate", learning_rate, _rate)
    return pair, np.array(pair)


def _rate(name: str, value: Any) -> float:
    return real(name, value, f"a number from 0 to {FLOAT32_MAX:.6g}", 0, FLOAT32_MAX)


def _rates(function: Callable[[float], Any], progress: Float64) -> Float64:
    """Learning rates of a user's function; TypeError or ValueError if it returns something else."""
    try:
        return np.array([_rate(f"learning_rate({p:.6g})", function(p)) for p in progress.tolist()])
    except StopIteration as error:  # an iterator that calls `fit` would take it for its own end
        raise RuntimeError("learning_rate: the function raised StopIteration") from error


def _pair(name: str, value: Any, checked: Callable[[str, Any], T]) -> tuple[T, T]:
    """The first and the last value of a quantity that changes during a run, from a pair or one number."""
    is_pair = isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim == 1)
    pair = tuple(value) if is_pair else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name}: expected one number or two, got {shown(value)}")
    return checked(name, pair[0]), checked(name, pair[1])


def checked_clip(value: Any) -> float | None:
    """The maximum norm of a gradient; None for no maximum. The kernels scale gradients by a float32."""
    return None if value is None else real("clip_norm", value, "a finite number above 0", FLOAT32_TINY, FLOAT32_MAX)


def checked_l1(value: Any) -> float:
    """The factor of L1; at most 1e30, so that its product with a rate is a number."""
    return real("l1", value, "a number from 0 to 1e30", 0, 1e30)


def checked_decay(value: Any, rate: float) -> float:
    """`value` as a float; an error unless decay at this learning rate removes at most all of a weight."""
    most = min(1 / rate, FLOAT32_MAX) if rate else FLOAT32_MAX
    expected = f"to 1 / learning_rate, {most:.6g}" if most < FLOAT32_MAX else "on that float32 can hold"
    return real("weight_decay", value, f"a number from 0 {expected}", 0, most)
