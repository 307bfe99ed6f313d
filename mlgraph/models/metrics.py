"""Metrics: what is computed from the answers and the predictions for all examples, beside loss and accuracy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32, Float64
from mlgraph._support.attributes import hint
from mlgraph._support.checks import shown
from mlgraph.engine.losses import SQUARED, Objective, are_none
from mlgraph.models.classes import Classes

Answers = npt.NDArray[Any]


def _mse(true: Answers, predicted: Answers, _: Float64, weight: Float64 | None) -> Float64:
    """Of each output."""
    return np.asarray(np.average((true - predicted) ** 2, axis=0, weights=weight), np.float64)


def _mae(true: Answers, predicted: Answers, _: Float64, weight: Float64 | None) -> Any:
    return np.average(np.abs(true - predicted), axis=0, weights=weight).mean()


def _r2(true: Answers, predicted: Answers, outputs: Float64, weight: Float64 | None) -> Any:
    mean = np.average(true, axis=0, weights=weight)
    return np.mean(1 - _mse(true, predicted, outputs, weight) / _mse(true, mean, outputs, weight))


def _top_5(true: Answers, _: Answers, outputs: Float64, weight: Float64 | None) -> Any:
    higher = (outputs > outputs[np.arange(len(true)), true][:, None]).sum(axis=1)
    return np.average(higher < 5, weights=weight)


def _f1(true: Answers, predicted: Answers, _: Float64, weight: Float64 | None) -> Any:
    n = int(max(true.max(), predicted.max())) + 1
    sizes = np.bincount(true, weight, n) + np.bincount(predicted, weight, n)
    right = true == predicted
    hits = np.bincount(true[right], None if weight is None else weight[right], n)
    return np.mean(2 * hits[sizes > 0] / sizes[sizes > 0])


def _auc(true: Answers, _: Answers, outputs: Float64, weight: Float64 | None) -> Any:
    score = outputs[:, -1] - (outputs[:, 0] if outputs.shape[1] == 2 else 0)
    _, place = np.unique(score, return_inverse=True)
    weight = np.ones(len(true)) if weight is None else weight
    yes, no = np.bincount(place, weight * true), np.bincount(place, weight * (1 - true))
    return yes @ (np.cumsum(no) - no / 2) / (yes.sum() * no.sum())  # equal scores count half


class _Metric(NamedTuple):
    function: Callable[..., Any]
    needs: str
    """Which models it is for: a key of `NEEDS`."""
    higher_is_better: bool


NEEDS = {
    "numbers": "a model whose outputs are compared with numbers",
    "classes": "one class for each example",
    "two": "two classes, or one yes-or-no question",
    "softmax": "a softmax",
}

METRICS = {
    "mae": _Metric(_mae, "numbers", False),
    "mse": _Metric(lambda *given: _mse(*given).mean(), "numbers", False),
    "rmse": _Metric(lambda *given: np.sqrt(_mse(*given)).mean(), "numbers", False),
    "r2": _Metric(_r2, "numbers", True),
    "f1_macro": _Metric(_f1, "classes", True),
    "roc_auc": _Metric(_auc, "two", True),
    "top_5_accuracy": _Metric(_top_5, "softmax", True),
}
"""The metrics that have names, beside accuracy, which is always there. `Model.evaluate` documents them."""

NAMES = ("accuracy", *METRICS)

ELSEWHERE = {
    "acc": "accuracy",
    **dict.fromkeys(("mean_absolute_error", "neg_mean_absolute_error"), "mae"),
    **dict.fromkeys(("mean_squared_error", "neg_mean_squared_error"), "mse"),
    **dict.fromkeys(("root_mean_squared_error", "neg_root_mean_squared_error"), "rmse"),
    **dict.fromkeys(("auc", "AUC"), "roc_auc"),
    **dict.fromkeys(("r2_score", "R2"), "r2"),
    "f1": "f1_macro",
}


class Metrics:
    """The argument `metrics` of `evaluate` and `fit`; TypeError or ValueError if it is not as documented.

    Attributes
    ----------
    names : list of str
        Of the results, without accuracy.
    """

    def __init__(self, given: Any) -> None:
        if given is not None and (isinstance(given, str) or not isinstance(given, Sequence)):
            raise TypeError(f"metrics: expected a list of names or functions, got {shown(given)}")
        self._wants_accuracy = False
        self._metrics: dict[str, str | Callable[..., Any]] = {}
        for one in given or ():
            name = _name_of(one)
            if name in self._metrics:
                raise ValueError(f"metrics: two of them are called {name}")
            if one == "accuracy":
                self._wants_accuracy = True
            else:
                self._metrics[name] = one
        self.names = list(self._metrics)

    def check(self, model: Any, objective: Objective, y: Any) -> None:
        """Raise ValueError if the model, its loss or its targets do not fit one of the metrics."""
        n, loss = len(model.output_ids), objective.loss
        classes = loss == "softmax_cross_entropy" or (loss == "binary_cross_entropy" and n == 1)
        numbers = loss in SQUARED or loss == "node"
        fits = {
            "numbers": numbers,
            "classes": classes,
            "two": classes and n == (2 if loss == "softmax_cross_entropy" else 1),
            "softmax": loss == "softmax_cross_entropy",
        }
        if self._wants_accuracy and numbers and objective.label is None:
            raise ValueError("metrics: accuracy needs labels or yes-or-no questions, got numbers as y")
        for name, one in self._metrics.items():
            if isinstance(one, str) and not fits[METRICS[one].needs]:
                raise ValueError(
                    f"metrics: {name} needs {NEEDS[METRICS[one].needs]}, got the loss {loss} of {n} outputs"
                )
            if objective.weight is not None and not isinstance(one, str) and not _takes_weights(one):
                raise ValueError(
                    f"metrics: {name} must take (y_true, y_pred, sample_weight) as functions of scikit-learn do, "
                    "because the examples have weights"
                )
        if self._metrics and loss == "node":
            if are_none(y):
                raise ValueError("metrics: expected the targets as y, got them as columns of x")
            if len(np.ravel(y)) != len(y) * n:
                raise ValueError(f"metrics: expected a target for each of {n} outputs, got y of shape {np.shape(y)}")

    def of(self, objective: Objective, outputs: Float32, y: Any, classes: Classes | None) -> dict[str, float]:
        """The metrics of predictions: of the model's outputs, where the targets are those of the objective, or y.

        Functions get labels, if the model has `classes`.
        """
        if not self._metrics:
            return {}
        true, predicted = _answers(objective, y, outputs.shape), _predictions(objective.loss, outputs)
        weight = None if objective.weight is None else objective.weight.astype(np.float64)
        values = outputs.astype(np.float64)
        if weight is not None:
            true, predicted, values, weight = (array[weight > 0] for array in (true, predicted, values, weight))
        if not np.isfinite(values).all():
            return dict.fromkeys(self.names, np.nan)
        if true.shape[1:] == (1,):
            true, predicted = true[:, 0], predicted[:, 0]
        found = {}
        for name, one in self._metrics.items():
            if isinstance(one, str):
                with np.errstate(divide="ignore", invalid="ignore"):  # NaN, for example where there is one class
                    found[name] = float(METRICS[one].function(true, predicted, values, weight))
                continue
            options = {} if weight is None else {"sample_weight": weight.copy()}
            given = (true, predicted) if classes is None else (np.array(classes)[true], np.array(classes)[predicted])
            result = one(*(array.copy() for array in given), **options)  # it may write into its arguments
            if not isinstance(result, Real):
                raise TypeError(f"metrics: expected a number from {name}, got {shown(result)}")
            found[name] = float(result)
        return found


def _name_of(metric: Any) -> str:
    if isinstance(metric, str):
        if metric not in NAMES:
            end = hint(metric, ELSEWHERE, NAMES) or "; a function of (y_true, y_pred) may be given, too"
            raise ValueError(f"metrics: expected {', '.join(NAMES)} or functions, got {metric!r}{end}")
        return metric
    if not callable(metric) or isinstance(metric, type):
        raise TypeError(f"metrics: expected names or functions, got {shown(metric)}")
    name = getattr(metric, "__name__", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"metrics: expected a function with a name, which def gives, got {shown(metric)}")
    if name in ("loss", *NAMES):
        raise ValueError(f"metrics: the name {name} is taken; give the function another one")
    return name


def _takes_weights(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None, None, sample_weight=None)
    except TypeError:
        return False
    except ValueError:  # a function of C without a signature
        pass
    return True


def _answers(objective: Objective, y: Any, shape: tuple[int, ...]) -> Answers:
    """Classes of shape (examples,), or answers or numbers of shape (examples, outputs)."""
    loss, label, target = objective.loss, objective.label, objective.target
    if loss == "node":
        return np.asarray(y, np.float64).reshape(shape)
    if loss == "softmax_cross_entropy" and label is not None:
        return label.astype(np.int64)
    assert target is not None
    if loss == "softmax_cross_entropy":
        return np.asarray(target.argmax(axis=1), np.int64)
    return (target > 0.5).astype(np.int64) if loss == "binary_cross_entropy" else target.astype(np.float64)


def _predictions(loss: str, outputs: Float32) -> Answers:
    """What `Model.predict` returns, with a column for each output."""
    if loss == "softmax_cross_entropy":
        return np.asarray(outputs.argmax(axis=1), np.int64)
    return (outputs > 0).astype(np.int64) if loss == "binary_cross_entropy" else outputs.astype(np.float64)
