"""Estimators of scikit-learn: a `Network` behind the interface of MLPClassifier and MLPRegressor.

The training is `Network.fit`; here are the parameters, targets and attributes that scikit-learn
expects. `model_` is the network, open to be read, edited and pruned. mlgraph.exchange converts
estimators of scikit-learn itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from mlgraph._support.installation import install_command

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import LabelBinarizer
    from sklearn.utils import check_random_state, column_or_1d, compute_class_weight, compute_sample_weight, multiclass
    from sklearn.utils._param_validation import Interval, Options, StrOptions
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as missing:
    command = install_command("scikit-learn", extra="sklearn")
    raise ImportError(f"mlgraph.sklearn needs scikit-learn 1.6 or later ({missing}): {command}") from None

from mlgraph._support.array_types import Float64
from mlgraph._support.attributes import spelled
from mlgraph._support.checks import FLOAT32_MAX, level_outside, real, shown, whole
from mlgraph.graph.ops import ACTIVATIONS
from mlgraph.models.network import Network
from mlgraph.sparsity.gradual_pruning import GradualPruning
from mlgraph.sparsity.rewiring import SET, RigL
from mlgraph.sparsity.schedules import Schedule
from mlgraph.training.callbacks import EarlyStopping
from mlgraph.training.loop import Progress
from mlgraph.training.nonfinite import POLICIES
from mlgraph.training.options import OPTIMIZERS, can_keep, checked_optimizer

if TYPE_CHECKING:
    from typing_extensions import Self  # that of typing is of Python 3.11

__all__ = ["GraphClassifier", "GraphRegressor"]

SCHEDULES: dict[str, Callable[[float], Schedule]] = {"gradual": GradualPruning, "set": SET, "rigl": RigL}
"""The values of `sparsity_schedule` that are names."""

READ: dict[str, Any] = {"accept_sparse": ("csr", "csc"), "dtype": (np.float64, np.float32)}  # for `validate_data`


class _Stopping(EarlyStopping):
    """Ends a run that no longer improves, or divides its learning rate by 5; not before a schedule has ended."""

    def __init__(self, estimator: _GraphEstimator, monitor: str, after: float) -> None:
        patience = int(min(estimator.n_iter_no_change, estimator.max_iter))
        super().__init__(monitor, patience=patience, min_delta=estimator.tol, restore_best=estimator.early_stopping)
        self._after, self._rate, self._adapts = after, estimator.learning_rate_init, estimator.learning_rate
        self.has_stopped = False

    @property
    def best_score(self) -> float:
        """The validation score of the epoch whose parameters are restored."""
        return -self._best

    def on_epoch_end(self, progress: Progress) -> None:
        if progress.epoch + 1 <= self._after * progress.epochs:
            return
        try:
            super().on_epoch_end(progress)
        except StopIteration:
            self._rate /= 5
            if self._adapts != "adaptive" or self._rate < 1e-6:
                self.has_stopped = True
                raise
            progress.change(learning_rate=self._rate)
            self.best_epoch = progress.epoch  # from which the base class counts


class _GraphEstimator(BaseEstimator):
    """What the classifier and the regressor share; methods that differ are those of the regressor."""

    loss_curve_: list[float]
    validation_scores_: list[float] | None
    _monitor = "validation_r2"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({*ACTIVATIONS, "logistic"}), "array-like"],
        "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "solver": [StrOptions(set(OPTIMIZERS))],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "class_weight": [StrOptions({"balanced"}), dict, list, None],  # of the classifier
        "sparsity": [Interval(Real, 0, 1, closed="left")],
        "sparsity_schedule": [StrOptions(set(SCHEDULES)), callable],
        "on_nonfinite": [StrOptions(set(POLICIES))],
    }

    def fit(self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Train a network, or with ``warm_start=True`` the present one further.

        Parameters
        ----------
        X : array_like, frame or matrix of scipy.sparse, shape (n_samples, n_features)
            Computed with in float32. A sparse matrix is converted to a dense array.
        y : array_like, shape (n_samples,) or (n_samples, n_outputs)
            Labels, or an indicator of zeros and ones for each label; for the regressor, numbers.
        sample_weight : array_like, shape (n_samples,), optional
            Factors of the losses of the examples, scaled to a mean of 1.

        Raises
        ------
        TypeError, ValueError, mlgraph.NonFiniteError
            If a parameter or the data are not as documented; with ``warm_start=True``, if `y` has other labels, or
            fewer, than in the first call; with ``on_nonfinite="raise"``, if a number overflows.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` epochs did not suffice to stop by `tol`.
        """
        return self._fit(X, y, sample_weight, fresh=not (self.warm_start and hasattr(self, "model_")))

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, *, fresh: bool, partial: bool = False, classes: Any = None
    ) -> Self:
        self._validate_params()
        if self.alpha * self.learning_rate_init > 1:
            raise ValueError(f"alpha: expected at most 1 / learning_rate_init, got {self.alpha}")
        if partial and (self.early_stopping or (fresh and self.sparsity)):
            raise ValueError("partial_fit: early_stopping and, in the first call, sparsity need a whole run: call fit")
        if fresh:  # a fit that fails leaves an estimator that is not fitted, not the old network behind new classes
            self.__dict__.pop("model_", None)
        numeric = isinstance(self, RegressorMixin)
        X, y = validate_data(self, X, y, **READ, multi_output=True, y_numeric=numeric, reset=fresh)
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        targets = self._targets(y, fresh, partial, classes)
        weight = self._weight(y, sample_weight, partial)
        if weight is not None and weight.any():
            weight = weight / weight.mean()
        if fresh:
            self._random_state, self.t_ = check_random_state(self.random_state), 0
        net = self._network(X.shape[1], targets.shape[1]) if fresh else self._continued()
        stopping = self._train(net, X, y, targets, weight, partial)
        self._record(net, stopping, fresh)
        if not (partial or stopping.has_stopped or self.n_iter_no_change == np.inf):
            message = f"max_iter={self.max_iter} epochs reached, and the training has not converged yet"
            warnings.warn(message, ConvergenceWarning, stacklevel=level_outside())
        return self

    def _network(self, n_inputs: int, n_outputs: int) -> Network:
        """A new network as the parameters describe it."""
        net = Network(n_inputs, seed=int(self._random_state.randint(2**31)))
        built, dropouts = self._layers()
        for size, activation, dropout in zip(*built, dropouts, strict=True):
            net.add_layer(size, activation, dropout=dropout, init="glorot_uniform")
        activation, loss = self._output()
        net.add_layer(n_outputs, activation, loss=loss, init="glorot_uniform")
        names = getattr(self, "feature_names_in_", ())
        if 0 < len(names) == len(set(names)):
            net.columns = names
        return net

    def _continued(self) -> Network:
        """The present network, for more training; a ValueError if the parameters describe another one."""
        built, dropouts = self._layers()
        if built != self._built:
            raise ValueError(f"expected the layers with which training began, {self._built}, got {built}")
        for layer, dropout in zip(self.model_.layers, dropouts, strict=False):
            layer.dropout = dropout
        return self.model_

    def _layers(self) -> tuple[tuple[list[int], list[str]], list[float]]:
        """Sizes and activations of the hidden layers, and their dropout."""
        sizes = [whole("hidden_layer_sizes", size) for size in np.ravel(self.hidden_layer_sizes).tolist()]
        options: list[list[Any]] = []
        for name in ("activation", "dropout"):
            value = getattr(self, name)
            options.append([value] * len(sizes) if isinstance(value, str | Real) else list(value))
            if len(options[-1]) != len(sizes):
                raise ValueError(f"{name}: expected one for each of {len(sizes)} hidden layers, got {shown(value)}")
        return (sizes, ["sigmoid" if name == "logistic" else name for name in options[0]]), options[1]

    def _train(self, net: Network, X: Any, y: Any, targets: Any, weight: Float64 | None, partial: bool) -> _Stopping:
        schedule, monitor, options = None, "epoch_loss", dict[str, Any]()
        if self.sparsity and not partial:
            named = self.sparsity_schedule
            schedule = (SCHEDULES[named] if isinstance(named, str) else named)(self.sparsity)
            if not isinstance(schedule, Schedule):
                got = f"{shown(named)}, which returned {shown(schedule)}"
                raise TypeError(f"sparsity_schedule: expected a function that returns a mlgraph.Schedule, got {got}")
        if self.early_stopping:
            parts = [X, targets] if weight is None else [X, targets, weight]
            halves = train_test_split(
                *parts, random_state=self._random_state, test_size=self.validation_fraction, stratify=self._strata(y)
            )
            (X, targets, *weights), held_out = halves[::2], tuple(halves[1::2])
            weight, monitor = weights[0] if weights else None, self._monitor
            options = {"validation_data": held_out, "metrics": ["r2"] if monitor == "validation_r2" else None}
            if len(held_out[1]) < 2:
                raise ValueError("validation_fraction: expected at least two examples to hold out, got one")
        epochs = 1 if partial else self.max_iter
        seen, all_seen, rate = self.t_, epochs * len(targets), self.learning_rate_init
        stopping = _Stopping(self, monitor, getattr(schedule, "until", 0.0))
        momentum = self.momentum if self.solver == "sgd" else 0.9
        net.fit(
            X,
            targets,
            epochs=epochs,
            batch_size=None if self.batch_size == "auto" else self.batch_size,
            learning_rate=(lambda progress: rate / (1 + seen + progress * all_seen) ** self.power_t)
            if self.learning_rate == "invscaling"
            else rate,
            momentum=momentum,
            weight_decay=self.alpha,
            optimizer=self.solver,
            keep_optimizer=partial and can_keep(net, checked_optimizer(self.solver, momentum)[0]),
            sample_weight=weight,
            shuffle=self.shuffle,
            # Without a callback, one call of the kernels takes many epochs of a small table.
            callbacks=[stopping] if self.early_stopping or self.n_iter_no_change < np.inf else None,
            verbose=bool(self.verbose),
            sparsify=schedule,
            on_nonfinite=self.on_nonfinite,
            **options,
        )
        return stopping

    def _record(self, net: Network, stopping: _Stopping, fresh: bool) -> None:
        """Set the fitted attributes."""
        losses = net.history["epoch_loss"].tolist()
        scores = net.history[self._monitor].tolist() if self.early_stopping else None
        if not fresh:
            losses, scores = self.loss_curve_ + losses, scores and (self.validation_scores_ or []) + scores
        self.model_, self.n_iter_, self.loss_ = net, len(net.history.epoch_loss), losses[-1]
        self.t_ += int(net.history["batch_size"].sum())
        self.loss_curve_, self.validation_scores_ = losses, scores
        self.best_loss_ = None if self.early_stopping else min(losses)
        self.best_validation_score_ = stopping.best_score if self.early_stopping else None
        self.n_layers_, self.n_outputs_ = len(net.layers) + 1, len(net.outputs)
        self.out_activation_, (self._built, _) = self._output()[0], self._layers()

    def _values(self, X: Any) -> Float64:
        """The outputs before a softmax or sigmoid, of shape (n_samples, n_outputs)."""
        check_is_fitted(self)
        return self.model_.forward(validate_data(self, X, **READ, reset=False)).astype(np.float64)

    def _output(self) -> tuple[str, str]:
        """Activation and loss of the last layer."""
        return "identity", "mse"

    def _targets(self, y: Any, fresh: bool, partial: bool, classes: Any) -> Any:
        """The targets of the network, of shape (n_samples, n_outputs)."""
        targets = y.reshape(len(y), -1)
        if not fresh and targets.shape[1] != self.n_outputs_:
            numbers = f"{self.n_outputs_} number{'s' * (self.n_outputs_ > 1)} for each example"
            raise ValueError(f"y: expected {numbers}, as in the first call, got {targets.shape[1]}")
        return targets

    def _weight(self, y: Any, sample_weight: Float64 | None, partial: bool) -> Float64 | None:
        """Weights of the examples, by those of their classes, too."""
        return sample_weight

    def _strata(self, y: Any) -> Any:
        """The labels, if both parts of the data can have all of them."""
        return None

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class GraphClassifier(ClassifierMixin, _GraphEstimator):
    """A `Network` for labels, one or several for each example; what has no description is as in MLPClassifier.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
    activation : str or sequence of str
        Of all hidden layers or of each: "relu", "tanh", "logistic", "identity", or others of `Network.add_layer`.
    dropout : float or sequence of float
        Fraction of the neurons of all hidden layers, or of each, dropped in training.
    solver : "adam" or "sgd"
    alpha : float
        Decoupled weight decay, as `weight_decay` of `Network.fit`, whatever the batch size.
    batch_size : int or "auto"
        "auto": a 64th of the examples, but from 32 to 128.
    learning_rate : "constant", "invscaling" or "adaptive"
        Of both solvers. "adaptive" divides it by 5 where the run would stop, until it is below 1e-6.
    learning_rate_init, power_t, max_iter, shuffle, random_state, tol, verbose, warm_start, momentum
        `momentum` is that of "sgd", without Nesterov's correction.
    early_stopping, validation_fraction, n_iter_no_change
        An epoch counts as better if it is so by `tol`. ``n_iter_no_change=np.inf``: always `max_iter` epochs.
    class_weight : dict from label to weight, "balanced", or list of dict for several labels, optional
    sparsity : float
        Fraction of the edges that is cut in the first three quarters of `max_iter` epochs; `fit` stops only later.
    sparsity_schedule : "gradual", "set", "rigl" or callable
        `GradualPruning`, `SET` or `RigL`, or a function from the sparsity to a `Schedule`.
    on_nonfinite : "raise", "skip" or "disconnect"
        As for `Network.fit`.

    Attributes
    ----------
    model_ : Network
        The network itself. It may be edited and pruned; ``warm_start`` and `partial_fit` go on from it.
    classes_ : array, shape (n_classes,)
    loss_, best_loss_ : float
    loss_curve_, validation_scores_ : list of float
        One for each epoch; the scores are None without `early_stopping`.
    best_validation_score_ : float or None
        That of the epoch whose parameters `model_` has.
    n_iter_, t_, n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        `n_iter_` is the number of epochs of the last call, `t_` that of the examples seen in all.

    Examples
    --------
    >>> from mlgraph.sklearn import GraphClassifier
    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> estimator = GraphClassifier(16, learning_rate_init=0.01, sparsity=0.5, random_state=0).fit(x, y)
    >>> estimator.model_.n_edges, estimator.score(x, y) > 0.95
    (56, True)
    """

    _monitor = "validation_accuracy"

    @spelled()
    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Sequence[str] = "relu",
        *,
        dropout: float | Sequence[float] = 0.0,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: float = 10,
        class_weight: dict[Any, float] | list[dict[Any, float]] | str | None = None,
        sparsity: float = 0.0,
        sparsity_schedule: str | Callable[[float], Schedule] = "gradual",
        on_nonfinite: str = "raise",
    ) -> None:
        self.__dict__.update({name: value for name, value in locals().items() if name != "self"})

    def partial_fit(
        self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None, classes: npt.ArrayLike | None = None
    ) -> Self:
        """Train for one epoch, from the present weights on, with the optimizer of the call before; cut edges stay cut.

        Another `solver` begins with moments of 0; rates, momentum and decay may change. Arguments as for `fit`;
        `classes` are all labels, which the first call needs.

        Raises
        ------
        ValueError
            With ``early_stopping=True`` or ``class_weight="balanced"``, or if the first call has a `sparsity`.
        """
        return self._fit(X, y, sample_weight, fresh=not hasattr(self, "model_"), partial=True, classes=classes)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The likeliest class of each example, or an indicator of zeros and ones; a ValueError if an output is NaN."""
        values = self._values(X)
        unclear = np.isnan(values).any(axis=1)
        if unclear.any():
            raise ValueError(
                f"predict: expected outputs that are numbers, got nan for example {np.argmax(unclear)}; "
                "model_.forward shows them"
            )
        return cast("npt.NDArray[Any]", self._label_binarizer.inverse_transform(values, threshold=0.0))

    def predict_log_proba(self, X: Any) -> Float64:
        """Logarithms of `predict_proba`, finite also where a probability is 0."""
        values = self._values(X)
        if len(self.classes_) == 1:
            return np.zeros((len(values), 1))
        if self.out_activation_ == "softmax":
            return values - np.logaddexp.reduce(values, axis=1, keepdims=True)
        return -np.logaddexp(0, -values if self._is_multilabel else np.hstack([values, -values]))

    def predict_proba(self, X: Any) -> Float64:
        """Probabilities, float64 of shape (n_samples, n_classes); of several labels, each of its own."""
        return np.exp(self.predict_log_proba(X))

    @property
    def _is_multilabel(self) -> bool:
        return str(self._label_binarizer.y_type_).startswith("multilabel")

    def _output(self) -> tuple[str, str]:
        if self._label_binarizer.y_type_ == "multiclass":
            return "softmax", "softmax_cross_entropy"
        return "sigmoid", "binary_cross_entropy"

    def _targets(self, y: Any, fresh: bool, partial: bool, classes: Any) -> Any:
        multiclass.check_classification_targets(y)
        if fresh:
            self.__dict__.pop("classes_", None)
        if partial:
            multiclass._check_partial_fit_first_call(self, classes)
        if fresh:
            known = partial and not multiclass.type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(classes if known else y)
            self.classes_ = self._label_binarizer.classes_
        if multiclass.type_of_target(y).startswith("multilabel") != self._is_multilabel:
            kind = "an indicator of zeros and ones" if self._is_multilabel else "one label"
            raise ValueError(f"y: expected {kind} for each example, as in the first call")
        labels = multiclass.unique_labels(y)
        unknown, missing = np.setdiff1d(labels, self.classes_), np.setdiff1d(self.classes_, labels)
        if len(unknown):
            raise ValueError(f"y: expected labels among {shown(self.classes_)}, got {shown(unknown)}")
        if len(missing) and not partial:
            expected = f"expected y to have all labels of the first call, {shown(self.classes_)}"
            raise ValueError(
                f"warm_start: {expected}, got none of {shown(missing)}; partial_fit takes data with some of the labels"
            )
        return self._label_binarizer.transform(y).astype(np.float32)  # integers could be taken for labels

    def _network(self, n_inputs: int, n_outputs: int) -> Network:
        net, labels = super()._network(n_inputs, n_outputs), self.classes_.tolist()
        named = type(labels[0]) in (str, int) and labels != list(range(len(labels)))
        if named and len(labels) > 1 and not self._is_multilabel:
            net.classes = labels
        return net

    def _weight(self, y: Any, sample_weight: Float64 | None, partial: bool) -> Float64 | None:
        given = self.class_weight
        if given is None:
            return sample_weight
        if partial and isinstance(given, str):
            raise ValueError("partial_fit: class_weight='balanced' needs all data; pass a dict of the weights")
        for weights in given if isinstance(given, list) else [given]:
            for label, value in weights.items() if isinstance(weights, dict) else ():
                real(f"class_weight: label {shown(label)}", value, "a finite number of at least 0", 0, FLOAT32_MAX)
        if isinstance(given, dict) and not self._is_multilabel:
            of_class = compute_class_weight(given, classes=self.classes_, y=y)[np.searchsorted(self.classes_, y)]
        else:
            of_class = compute_sample_weight(given, y)
        if not np.any(of_class):
            raise ValueError(f"class_weight: expected a weight above 0 for one of the examples, got {shown(given)}")
        return np.asarray(of_class if sample_weight is None else of_class * sample_weight, np.float64)

    def _strata(self, y: Any) -> Any:
        if self._is_multilabel:
            return None
        _, counts = np.unique(y, return_counts=True)
        smaller = min(self.validation_fraction, 1 - self.validation_fraction) * len(y)
        return y if counts.min() > 1 and smaller >= len(counts) else None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class GraphRegressor(RegressorMixin, MultiOutputMixin, _GraphEstimator):
    """A `Network` for numbers, one or several for each example.

    The loss is the mean squared error, twice that of MLPRegressor. Targets are not scaled. Parameters and
    attributes are those of `GraphClassifier`, without `class_weight` and `classes_`. Scores are R2.

    Examples
    --------
    >>> from mlgraph.sklearn import GraphRegressor
    >>> x = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    >>> estimator = GraphRegressor((32, 16), learning_rate_init=0.01, random_state=0).fit(x, x[:, 0] * x[:, 1])
    >>> estimator.score(x, x[:, 0] * x[:, 1]) > 0.95
    True
    """

    @spelled()
    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Sequence[str] = "relu",
        *,
        dropout: float | Sequence[float] = 0.0,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: float = 10,
        sparsity: float = 0.0,
        sparsity_schedule: str | Callable[[float], Schedule] = "gradual",
        on_nonfinite: str = "raise",
    ) -> None:
        self.__dict__.update({name: value for name, value in locals().items() if name != "self"})

    def partial_fit(self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Train for one epoch, from the present weights on; see `GraphClassifier.partial_fit`."""
        return self._fit(X, y, sample_weight, fresh=not hasattr(self, "model_"), partial=True)

    def predict(self, X: Any) -> Float64:
        """Numbers, float64 of shape (n_samples,) or (n_samples, n_outputs)."""
        values = self._values(X)
        return values[:, 0] if values.shape[1] == 1 else values
