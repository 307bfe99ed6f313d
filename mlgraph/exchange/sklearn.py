"""scikit-learn: multi-layer perceptrons and linear models, alone or behind a scaler in a Pipeline.

From scikit-learn, also the estimators of mlgraph.sklearn, known by their `model_`: that module is a sibling.
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32
from mlgraph._support.checks import level_outside, shown, truth
from mlgraph._support.installation import install_command
from mlgraph.engine.losses import SQUARED
from mlgraph.exchange.layers import LayerArrays, arrays_of, network_of
from mlgraph.models.network import Network
from mlgraph.models.scaling import Standardization

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import Pipeline

ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu", "softmax": "softmax"}
"""The activations of scikit-learn, with those here."""

LOSSES = {"identity": "mse", "logistic": "binary_cross_entropy", "softmax": "softmax_cross_entropy"}
"""The losses of scikit-learn's networks, by the activation of their outputs."""


def from_sklearn(estimator: Any, *, cut_zeros: bool = False) -> Network:
    """Make a network that predicts what a fitted estimator of scikit-learn predicts.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor, LogisticRegression, LinearRegression, Ridge, Lasso or ElasticNet
        Or GraphClassifier or GraphRegressor of `mlgraph.sklearn`. Fitted; or a Pipeline of a StandardScaler
        or MinMaxScaler and one of them. Numbers are rounded to float32.
    cut_zeros : bool
        Whether coefficients that are exactly 0 become cut edges. Those of a GraphClassifier or
        GraphRegressor are what they are.

    Returns
    -------
    Network
        With the estimator's classes and feature names. Two classes make one sigmoid neuron, more
        make a softmax, and several labels for one example a sigmoid each; numbers are the values of
        identity neurons with the loss "mse". A scaler becomes the `scaling`, which otherwise is "unscaled".
        Of a GraphClassifier or GraphRegressor, a deep copy of `model_`.

    Raises
    ------
    TypeError, ValueError
        If `estimator` is another one or not fitted, or has something without a counterpart, such as
        a Poisson loss, the one-against-rest probabilities of liblinear, or a step of another kind.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> x, y = load_iris(return_X_y=True)
    >>> estimator = LogisticRegression(max_iter=1000).fit(x, y)
    >>> net = mlgraph.exchange.from_sklearn(estimator)
    >>> net, bool(np.allclose(net.predict_proba(x), estimator.predict_proba(x), atol=1e-5))
    (<Network 4-3: 12 edges>, True)
    """
    _sklearn("from_sklearn")
    from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import check_is_fitted

    cut_zeros, scaling, last = truth("cut_zeros", cut_zeros), None, estimator
    if isinstance(estimator, Pipeline):
        *steps, (_, last) = estimator.steps
        for name, step in steps:
            if step in (None, "passthrough"):
                continue
            if scaling is not None:
                raise ValueError(f"estimator: step {name!r}: expected one scaler, got another")
            scaling = _scaling_of(name, step)
    known = (MLPClassifier, MLPRegressor, LogisticRegression, LinearRegression, Ridge, ElasticNet)
    is_graph = isinstance(getattr(last, "model_", None), Network)
    if not is_graph and hasattr(last, "__sklearn_is_fitted__"):
        check_is_fitted(last)  # the type of a GraphClassifier shows only when it is fitted
    if not is_graph and not isinstance(last, known):
        names = ", ".join(kind.__name__ for kind in known)
        hint = "; pass its best_estimator_" if hasattr(last, "best_estimator_") else ""
        expected = f"{names}, GraphClassifier, GraphRegressor"
        raise TypeError(f"estimator: expected one of {expected}, got {type(last).__name__}{hint}")
    check_is_fitted(last)
    net = _copy_of(last, scaling, cut_zeros) if is_graph else _perceptron(last, cut_zeros)
    if hasattr(last, "classes_") and (net.loss == "softmax_cross_entropy" or len(net.outputs) == 1):
        net.classes = _classes_of(last.classes_)
    if scaling is not None:
        net.scaling = scaling
    if net.columns is None:
        net.columns = getattr(estimator, "feature_names_in_", None)
    return net


def to_sklearn(model: Network) -> MLPClassifier | MLPRegressor | Pipeline:
    """Make a fitted estimator of scikit-learn that predicts what the network predicts.

    `predict`, `predict_proba` and `score` work, and `partial_fit` goes on from these weights.
    scikit-learn knows no cut edges: they are coefficients of 0, and missing biases are 0, which
    `partial_fit` will change. Nothing is frozen.

    Parameters
    ----------
    model : Network
        With `is_layered`, and one activation of identity, sigmoid, tanh and relu for all hidden layers.

    Returns
    -------
    MLPClassifier or MLPRegressor, or a Pipeline of StandardScaler and one of them
        A classifier if the loss is a cross-entropy. It sorts the classes, as `classes_` says, and a
        softmax of two becomes one logistic output. The pipeline, if the network scales its data.

    Raises
    ------
    TypeError, ValueError
        If the model is no network, has no layers, or has something that these estimators cannot
        express: hidden layers with different activations or others than these, a regression with
        another activation of the outputs than identity, an edge that jumps over a layer, a neuron with
        another activation than its layer.

    Warns
    -----
    UserWarning
        If the network has dropout, which these estimators lack: predictions are the same, but
        `partial_fit` trains without.

    Examples
    --------
    >>> from mlgraph.exchange import to_sklearn
    >>> net = mlgraph.Network(4, seed=0)
    >>> hidden, output = net.add_layer(3, "relu"), net.add_layer(3, "softmax")
    >>> net.classes = ["setosa", "versicolor", "virginica"]
    >>> to_sklearn(net).predict(np.eye(4)).tolist() == net.predict(np.eye(4)).tolist()
    True
    """
    _sklearn("to_sklearn")
    layers = arrays_of(model, "to_sklearn")
    activation = _hidden_activation(layers)
    if model.loss in SQUARED and layers[-1].activation != "identity":
        raise ValueError(
            f"to_sklearn: the outputs are {layers[-1].activation} neurons with the loss {model.loss}; a MLPRegressor "
            "has identity outputs only"
        )
    if any(layer.dropout or layer.weight_dropout for layer in model.layers):
        message = "to_sklearn: scikit-learn has no dropout; further training there goes without"
        warnings.warn(message, UserWarning, stacklevel=level_outside())
    coefficients = [np.where(layer.mask, layer.weights, 0).T.astype(np.float64) for layer in layers]
    intercepts = [np.nan_to_num(layer.biases).astype(np.float64) for layer in layers]
    for arrays in (coefficients, intercepts):
        arrays[-1] = _in_order_of_classes(model, arrays[-1])
    estimator = _fitted(model, activation, coefficients, intercepts)
    if model.scaling not in (None, "unscaled"):
        estimator = _behind_scaler(model.scaling, estimator)
    if model.columns is not None and len(model.columns) == len(coefficients[0]):
        first = estimator[0] if model.scaling not in (None, "unscaled") else estimator
        first.feature_names_in_ = np.array(model.columns, object)
    return estimator


def _sklearn(function: str) -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        command = install_command("scikit-learn", extra="sklearn")
        raise ImportError(f"{function} needs scikit-learn ({error}): {command}") from None


# --- from scikit-learn ----------------------------------------------------------------------------


def _float32(array: npt.NDArray[Any]) -> Float32:
    with np.errstate(over="ignore", under="ignore"):  # infinite weights are refused later
        return np.ascontiguousarray(array, np.float32)


def _scaling_of(name: str, step: Any) -> Standardization:
    """The mean and std of a scaler in a pipeline."""
    from sklearn.preprocessing import MinMaxScaler, StandardScaler
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(step, StandardScaler | MinMaxScaler):
        got = type(step).__name__
        raise ValueError(f"estimator: step {name!r}: expected a StandardScaler or MinMaxScaler, got {got}")
    check_is_fitted(step)
    if isinstance(step, MinMaxScaler):
        if step.clip:
            raise ValueError(f"estimator: step {name!r}: expected clip=False; a network does not clip its inputs")
        return Standardization(-step.min_ / step.scale_, 1 / step.scale_)
    n = step.n_features_in_
    mean = step.mean_ if step.with_mean else np.zeros(n)
    return Standardization(mean, step.scale_ if step.with_std else np.ones(n))


def _copy_of(estimator: Any, scaling: Standardization | None, cut_zeros: bool) -> Network:
    """The network of a GraphClassifier or GraphRegressor, to be given a scaling."""
    if cut_zeros:
        raise ValueError(f"cut_zeros: expected False with a {type(estimator).__name__}, which has cut edges of its own")
    net: Network = estimator.model_
    if scaling is not None and net.scaling not in (None, "unscaled"):
        raise ValueError("estimator: expected one scaling, got a scaler in front of a network that scales its data")
    return deepcopy(net)


def _perceptron(estimator: Any, cut_zeros: bool) -> Network:
    """A network with the coefficients of an estimator of scikit-learn."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if isinstance(estimator, MLPClassifier | MLPRegressor):
        output = estimator.out_activation_
        hidden = [ACTIVATIONS[estimator.activation]] * (len(estimator.coefs_) - 1)
        weights, biases = estimator.coefs_, estimator.intercepts_
    else:
        output, hidden, coef = _output_of_linear(estimator), [], estimator.coef_
        weights = [np.atleast_2d(coef.toarray() if hasattr(coef, "toarray") else coef).T]
        biases = [np.broadcast_to(estimator.intercept_ if estimator.fit_intercept else np.nan, weights[0].shape[1])]
    if output not in LOSSES:
        raise ValueError(f"estimator: expected outputs of {', '.join(LOSSES)}, got {output}, which no loss here has")
    layers = []
    for w, b, activation in zip(weights, biases, [*hidden, ACTIVATIONS[output]], strict=True):
        mask = w.T != 0 if cut_zeros else np.ones(w.T.shape, bool)
        layers.append(LayerArrays(_float32(w.T), mask, _float32(b), activation))
    return network_of(len(weights[0]), layers, LOSSES[output], "estimator")


def _output_of_linear(estimator: Any) -> str:
    """The activation of a linear model's outputs, as those of a network are called."""
    if not hasattr(estimator, "classes_"):
        return "identity"
    n, multi_class = len(estimator.classes_), getattr(estimator, "multi_class", "auto")  # up to scikit-learn 1.7
    against_rest = multi_class == "ovr" or estimator.solver == "liblinear"
    if (n > 2 and against_rest) or (n == 2 and multi_class == "multinomial"):
        raise ValueError(
            f"estimator: expected logistic probabilities of two classes, or a softmax of more, got {n} classes with "
            f"solver={estimator.solver!r} and multi_class={multi_class!r}"
        )
    return "softmax" if n > 2 else "logistic"


def _classes_of(labels: npt.NDArray[Any]) -> list[str] | list[int] | None:
    """Classes for a network; None for 0 to n - 1. Floats that are whole become integers."""
    if labels.dtype.kind in "biuf" and np.array_equal(labels, np.arange(len(labels))):
        return None
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        labels = labels.astype(np.int64)
    found: list[Any] = labels.tolist()
    if len(found) < 2 or not all(isinstance(label, type(found[0])) and isinstance(label, str | int) for label in found):
        raise ValueError(
            f"estimator: expected at least two classes, all strings or all whole numbers, got {shown(found)}"
        )
    return found


# --- to scikit-learn ------------------------------------------------------------------------------


def _hidden_activation(layers: list[LayerArrays]) -> str:
    """What scikit-learn calls the activation of all hidden layers."""
    theirs = {here: there for there, here in ACTIVATIONS.items() if there != "softmax"}
    hidden = [layer.activation for layer in layers[:-1]] or ["relu"]
    for i, activation in enumerate(hidden):
        if activation not in theirs:
            raise ValueError(f"to_sklearn: layer {i}: expected one of {', '.join(theirs)}, got {activation}")
        if activation != hidden[0]:
            raise ValueError(
                f"to_sklearn: layer {i} has {activation} neurons and layer 0 has {hidden[0]} neurons; scikit-learn has "
                "one activation for all hidden layers"
            )
    return theirs[hidden[0]]


def _in_order_of_classes(model: Network, last: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Coefficients or intercepts of the outputs, as scikit-learn has them: by sorted class, and one output for two."""
    if model.loss == "softmax_cross_entropy":
        last = last if model.classes is None else last[..., np.argsort(np.array(model.classes))]
        return np.diff(last, axis=-1) if len(model.outputs) == 2 else last
    return -last if model.classes is not None and sorted(model.classes) != list(model.classes) else last


def _fitted(model: Network, activation: str, coefficients: list[Any], intercepts: list[Any]) -> Any:
    """An estimator with these coefficients.

    One step of a tiny estimator makes the attributes that the installed version has.
    """
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    sizes = tuple(len(b) for b in intercepts[:-1])
    kind, n = MLPRegressor if model.loss in SQUARED else MLPClassifier, len(model.outputs)
    made = kind(hidden_layer_sizes=(1,) * len(sizes), activation=activation, random_state=0)
    if kind is MLPRegressor:
        made.partial_fit([[0.0]], np.zeros((1, n) if n > 1 else 1))
    elif model.loss == "binary_cross_entropy" and n > 1:
        made.partial_fit(np.zeros((n, 1)), np.eye(n, dtype=int), classes=np.arange(n))
    else:
        classes = np.array(model.classes or range(max(n, 2)))
        made.partial_fit(np.zeros((len(classes), 1)), classes, classes=classes)
    made.coefs_, made.intercepts_, made.n_features_in_ = coefficients, intercepts, len(coefficients[0])
    made.n_iter_, made.t_, made.loss_curve_, made.loss_, made.best_loss_ = 0, 0, [], np.nan, np.inf
    vars(made).pop("_optimizer", None)  # partial_fit makes a new one
    return made.set_params(hidden_layer_sizes=sizes, random_state=None)


def _behind_scaler(scaling: Any, estimator: Any) -> Any:
    """A pipeline of a StandardScaler with this scaling of a network, and an estimator."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n = estimator.n_features_in_
    mean, std = (np.zeros(n), np.full(n, 255.0)) if scaling == "bytes" else scaling
    scaler = StandardScaler().fit(np.array([mean - std, mean + std]))
    scaler.mean_, scaler.scale_, scaler.var_ = np.array(mean), np.array(std), np.square(std)
    return make_pipeline(scaler, estimator)
