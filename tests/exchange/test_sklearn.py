"""scikit-learn judges: estimators and networks predict the same, with the same classes, scaling and columns."""

import sys
import warnings

import numpy as np
import pytest

import mlgraph
from mlgraph import exchange

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 5))
BINARY = (X[:, 0] > 0).astype(int)
THREE = np.digitize(X[:, 0], [-0.5, 0.5])
SEVERAL = (X[:, :3] > 0).astype(int)
NUMBERS = X @ RANDOM.normal(size=(5, 2))


def fitted(estimator, x=X, y=THREE):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(x, y)


def mlp(y=THREE, **options):
    kind = MLPRegressor if y.dtype.kind == "f" else MLPClassifier
    return kind(**{"hidden_layer_sizes": (6, 4), "max_iter": 20, "random_state": 0, **options}), y


def compare(net, estimator, x=X):
    """The same predictions on both sides, and the same probabilities."""
    mine, theirs = net.predict(x), estimator.predict(x)
    assert mine.shape == theirs.shape
    if hasattr(estimator, "predict_proba"):
        assert np.array_equal(mine, theirs)
        mine, theirs = net.predict_proba(x), estimator.predict_proba(x)
        if theirs.shape[1] > mine.shape[1]:  # one output here, the probability of the second class
            mine = np.hstack([1 - mine, mine])
        if net.classes is not None:
            mine = mine[:, [net.classes.index(label) for label in estimator.classes_]]  # which are sorted
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


# --- from scikit-learn ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (BINARY, None),
        (BINARY == 1, None),
        (2 * BINARY - 1, (-1, 1)),
        (np.array(["no", "yes"])[BINARY], ("no", "yes")),
        (THREE, None),
        (np.array(["c", "a", "b"])[THREE], ("a", "b", "c")),
        (10 * THREE, (0, 10, 20)),
        (SEVERAL, None),
    ],
)
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_classifiers_predict_the_same(y, classes, activation):
    estimator = fitted(*_swap(mlp(y, activation=activation)))
    net = exchange.from_sklearn(estimator)
    compare(net, estimator)
    assert net.classes == classes
    assert net.evaluate(X, y)["accuracy"] == pytest.approx(estimator.score(X, y))


def _swap(pair):
    return pair[0], X, pair[1]


@pytest.mark.parametrize("y", [NUMBERS, NUMBERS[:, 0]])
@pytest.mark.parametrize(
    "estimator",
    [
        MLPRegressor(hidden_layer_sizes=6, max_iter=20),
        LinearRegression(),
        LinearRegression(fit_intercept=False),
        Ridge(),
        Lasso(0.1),
        ElasticNet(0.1),
    ],
)
def test_regressors_predict_the_same(estimator, y):
    estimator = fitted(clone(estimator), X, y)
    net = exchange.from_sklearn(estimator)
    compare(net, estimator)
    assert net.loss == "mse"


@pytest.mark.parametrize("y", [BINARY, THREE, np.array(["c", "a", "b"])[THREE]])
def test_logistic_regressions_predict_the_same(y):
    estimator = fitted(LogisticRegression(), X, y)
    compare(exchange.from_sklearn(estimator), estimator)
    without = fitted(LogisticRegression(fit_intercept=False), X, y)
    assert exchange.from_sklearn(without).layers[0][0].bias is None


@pytest.mark.parametrize(
    "scaler", [StandardScaler(), StandardScaler(with_mean=False), StandardScaler(with_std=False), MinMaxScaler((-1, 3))]
)
def test_a_scaler_in_a_pipeline_becomes_the_scaling(scaler):
    x = 100 + 7 * X
    x[:, 2] = 5
    estimator = fitted(make_pipeline(scaler, "passthrough", mlp()[0]), x, THREE)
    net = exchange.from_sklearn(estimator)
    compare(net, estimator, x)
    assert len(net.scaling) == 2 and exchange.from_sklearn(estimator[-1]).scaling == "unscaled"


def test_columns_of_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcde"))
    for estimator in (mlp()[0], make_pipeline(StandardScaler(), mlp()[0])):
        net = exchange.from_sklearn(fitted(estimator, frame, THREE))
        assert net.columns == tuple("abcde")
        assert np.array_equal(net.predict(frame[list("edcba")]), estimator.predict(frame))
        again = exchange.to_sklearn(net)
        assert list(again.feature_names_in_) == list("abcde")
        assert np.array_equal(again.predict(frame), estimator.predict(frame))


def test_coefficients_of_zero_are_edges_unless_they_are_to_be_cut():
    lasso = fitted(Lasso(0.3), X, NUMBERS)
    assert exchange.from_sklearn(lasso).n_edges == 10
    cut = exchange.from_sklearn(lasso, cut_zeros=True)
    assert cut.n_edges == np.count_nonzero(lasso.coef_) < 10
    compare(cut, lasso)


def test_bytes_are_read_as_numbers():
    x = RANDOM.integers(0, 256, (60, 5)).astype(np.uint8)
    estimator = fitted(LinearRegression(), x, NUMBERS)
    net = exchange.from_sklearn(estimator)
    with pytest.warns(UserWarning, match="whole numbers from 0 to 255 are too large"):
        compare(net, estimator, x)


# --- from mlgraph.sklearn -------------------------------------------------------------------------


def graph(y, **options):
    pytest.importorskip("sklearn", "1.6")
    from mlgraph.sklearn import GraphClassifier, GraphRegressor

    kind = GraphRegressor if y is NUMBERS or y.base is NUMBERS else GraphClassifier
    return kind(
        **{"hidden_layer_sizes": (6, 4), "max_iter": 20, "n_iter_no_change": np.inf, "random_state": 0} | options
    )


@pytest.mark.parametrize(
    "y",
    [
        BINARY,
        BINARY == 1,
        1.0 + 2 * BINARY,
        np.array(["no", "yes"])[BINARY],
        THREE,
        np.array(["c", "a", "b"])[THREE],
        SEVERAL,
        NUMBERS,
        NUMBERS[:, 0],
    ],
)
@pytest.mark.parametrize("scaler", [None, StandardScaler(), MinMaxScaler((-1, 3))])
def test_graph_estimators_become_their_networks(y, scaler):
    x = X if scaler is None else 100 + 7 * X
    estimator = graph(y, sparsity=0.5) if scaler is None else make_pipeline(scaler, graph(y, sparsity=0.5))
    estimator.fit(x, y)
    inner = estimator if scaler is None else estimator[-1]
    net = exchange.from_sklearn(estimator)
    compare(net, estimator, x)
    assert net is not inner.model_ and net.n_edges == inner.model_.n_edges and inner.model_.scaling == "unscaled"
    net.layers[0].weights = 0 * net.layers[0].weights
    assert inner.model_.layers[0].weights.any()


def test_onnx_of_a_pipeline_reads_raw_data():
    pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    x = (100 + 7 * X).astype(np.float32)
    pipeline = make_pipeline(StandardScaler(), graph(THREE)).fit(x, THREE)
    (p,) = ReferenceEvaluator(exchange.to_onnx(exchange.from_sklearn(pipeline))).run(None, {"x": x})
    np.testing.assert_allclose(p, pipeline.predict_proba(x), atol=1e-4)


def test_columns_of_a_pipeline_whose_scaler_drops_them():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcde"))
    pipeline = make_pipeline(StandardScaler(), graph(THREE)).fit(frame, THREE)
    assert pipeline[-1].model_.columns is None
    net = exchange.from_sklearn(pipeline)
    assert np.array_equal(net.predict(frame[list("edcba")]), pipeline.predict(frame))


def test_graph_estimators_are_refused_by_name():
    fitted_once = graph(THREE).fit(X, THREE)
    with pytest.raises(NotFittedError, match="GraphClassifier instance is not fitted"):
        exchange.from_sklearn(graph(THREE))
    with pytest.raises(ValueError, match="cut_zeros: expected False with a GraphClassifier"):
        exchange.from_sklearn(fitted_once, cut_zeros=True)
    with pytest.raises(ValueError, match=r"at least two classes, .*got \['one'\]"):
        exchange.from_sklearn(graph(THREE).fit(X, np.full(60, "one")))
    pipeline = make_pipeline(StandardScaler(), fitted_once).fit(X, THREE)
    pipeline[-1].model_.scaling = np.zeros(5), np.full(5, 2.0)
    with pytest.raises(ValueError, match="a scaler in front of a network that scales its data"):
        exchange.from_sklearn(pipeline)


@pytest.mark.parametrize("library", ["onnx", "torch", "sklearn", "networkx"])
def test_converters_of_networks_say_what_makes_one_of_an_estimator(library):
    pytest.importorskip(library)
    for estimator in (graph(THREE).fit(X, THREE), make_pipeline(StandardScaler(), graph(THREE))):
        with pytest.raises(TypeError, match=r"got \w+; exchange\.from_sklearn makes a network of it$"):
            getattr(exchange, f"to_{library}")(estimator)


# --- to scikit-learn ------------------------------------------------------------------------------


def network(last="softmax", n=3, activation="tanh", **options):
    net = mlgraph.Network(5, seed=0)
    net.add_layer(6, activation)
    net.add_layer(4, activation, bias=False)
    net.add_layer(n, last, **options)
    for layer in net.layers:
        layer.weights, layer.biases = 2 * layer.weights, np.linspace(-0.5, 0.5, layer.size)
    return net


@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh", "relu"])
@pytest.mark.parametrize(
    ("n", "last", "options", "y"),
    [
        (3, "softmax", {}, THREE),
        (1, "sigmoid", {"loss": "binary_cross_entropy"}, BINARY),
        (3, "sigmoid", {"loss": "binary_cross_entropy"}, SEVERAL),
        (1, "identity", {}, NUMBERS[:, 0]),
        (2, "identity", {"loss": "mse"}, NUMBERS),
    ],
)
def test_networks_predict_the_same_as_estimators(n, last, options, y, activation):
    net = network(last, n, activation, **options)
    net.prune(0.5)
    estimator = exchange.to_sklearn(net)
    compare(net, estimator)
    edges = sum(np.count_nonzero(w) for w in estimator.coefs_)
    assert edges == net.n_edges == exchange.from_sklearn(estimator, cut_zeros=True).n_edges
    metric = "r2" if last == "identity" else "accuracy"
    expected = (
        net.evaluate(X, y, metrics=["r2"])["r2"]
        if metric == "r2"
        else np.mean((net.predict(X) == y).reshape(60, -1).all(1))
    )
    assert estimator.score(X, y) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("classes", [None, ["b", "a"], [7, 3]])
@pytest.mark.parametrize(("n", "last", "loss"), [(2, "softmax", None), (1, "sigmoid", "binary_cross_entropy")])
def test_two_classes(n, last, loss, classes):
    net = network(last, n, loss=loss)
    net.classes = classes
    compare(net, exchange.to_sklearn(net))


def test_a_layer_alone_and_classes_of_strings():
    net = mlgraph.Network(5, seed=0)
    net.add_layer(3, "softmax")
    net.classes = ["c", "a", "b"]
    compare(net, exchange.to_sklearn(net))


@pytest.mark.parametrize("scaling", ["bytes", (np.arange(5.0), np.full(5, 3.0))])
def test_scaling_becomes_a_standard_scaler(scaling):
    net = network()
    net.scaling = scaling
    estimator = exchange.to_sklearn(net)
    assert isinstance(estimator, Pipeline) and isinstance(estimator[0], StandardScaler)
    x = RANDOM.integers(0, 256, (60, 5))
    compare(net, estimator, x)
    compare(exchange.from_sklearn(estimator), estimator, x)


def test_training_goes_on_from_the_weights():
    net = mlgraph.Network(5, seed=0)
    net.add_layer(16, "relu")
    net.add_layer(3, "softmax")
    net.fit(X, THREE, epochs=30, seed=0)
    estimator = exchange.to_sklearn(net)
    before = estimator.score(X, THREE)
    loss = net.evaluate(X, THREE)["loss"]
    coefficients = estimator.coefs_[0].copy()
    estimator.partial_fit(X, THREE)
    moved = np.median(np.abs(estimator.coefs_[0] - coefficients))
    assert moved == pytest.approx(estimator.learning_rate_init, rel=0.01)  # as the first step of Adam, and no later one
    assert estimator.loss_ == pytest.approx(loss, abs=0.01) and estimator.score(X, THREE) >= before - 0.1
    assert estimator.t_ == 60 and estimator.n_iter_ == 1 and len(estimator.loss_curve_) == 1
    fitted(clone(estimator))


def test_dropout_is_reported():
    net = network()
    net.layers[0].dropout = 0.5
    with pytest.warns(UserWarning, match="scikit-learn has no dropout"):
        estimator = exchange.to_sklearn(net)
    compare(net, estimator)


# --- refusals -------------------------------------------------------------------------------------


def one_against_rest():
    estimator = fitted(LogisticRegression())
    estimator.solver = "liblinear"  # recent versions refuse to fit it
    return estimator


def poisson():
    estimator = fitted(*_swap(mlp(NUMBERS[:, 0])))
    estimator.out_activation_ = "exp"
    return estimator


def floats():
    estimator = fitted(mlp()[0])
    estimator.classes_ = estimator.classes_ + 0.5  # scikit-learn refuses to learn them, too
    return estimator


@pytest.mark.parametrize(
    ("estimator", "error", "message"),
    [
        (PCA, TypeError, "estimator: expected one of MLPClassifier, .*, ElasticNet, .*, got PCA"),
        (
            lambda: GridSearchCV(Ridge(), {"alpha": [1, 2]}).fit(X, NUMBERS),
            TypeError,
            "got GridSearchCV; pass its best_es",
        ),
        (
            lambda: fitted(Pipeline([("pca", PCA()), ("mlp", mlp()[0])])),
            ValueError,
            "step 'pca': expected a StandardSc",
        ),
        (
            lambda: fitted(make_pipeline(StandardScaler(), MinMaxScaler(), mlp()[0])),
            ValueError,
            "'minmaxscaler': expected one",
        ),
        (
            lambda: fitted(make_pipeline(MinMaxScaler(clip=True), mlp()[0])),
            ValueError,
            "'minmaxscaler': expected clip=False",
        ),
        (MLPClassifier, NotFittedError, "is not fitted yet"),
        (one_against_rest, ValueError, "got 3 classes with solver='liblinear'"),
        (poisson, ValueError, "estimator: expected outputs of identity, logistic, softmax, got exp"),
        (
            floats,
            ValueError,
            r"estimator: expected at least two classes, all strings or all whole numbers, got \[0.5, 1.5",
        ),
    ],
)
def test_from_sklearn_refuses_by_name(estimator, error, message):
    with pytest.raises(error, match=message):
        exchange.from_sklearn(estimator())


def mixed():
    net = mlgraph.Network(5, seed=0)
    for size, activation in ((4, "relu"), (4, "tanh"), (3, "softmax")):
        net.add_layer(size, activation)
    return net


def jumping():
    net = network()
    net.graph.add_edge(net.graph[0], net.layers[1][2])
    return net


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (mixed, "to_sklearn: layer 1 has tanh neurons and layer 0 has relu neurons; scikit-learn has one activation"),
        (
            lambda: network(activation="leaky_relu"),
            "to_sklearn: layer 0: expected one of identity, sigmoid, tanh, relu, got",
        ),
        (lambda: network("tanh"), "to_sklearn: the outputs are tanh neurons with the loss squared_error"),
        (jumping, "to_sklearn: layer 1 neuron 2 reads n0, which is not in the layer before"),
        (lambda: mlgraph.Network(5), "expected at least one layer"),
    ],
)
def test_to_sklearn_refuses_by_name(net, message):
    with pytest.raises(ValueError, match=message):
        exchange.to_sklearn(net())


def test_without_scikit_learn_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for call in (lambda: exchange.to_sklearn(network()), lambda: exchange.from_sklearn(None)):
        with pytest.raises(ImportError, match=r"_sklearn needs scikit-learn \(.*\): pip install "):
            call()
