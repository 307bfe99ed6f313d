"""What a newcomer gets: defaults alone, on small tables and on MNIST, beside scikit-learn's.

One hidden layer of 100, standardized data, one thread. For the data sets of scikit-learn, the score
is the mean of five times five folds. MNIST is learnt once from its training images and once from
other first weights, and tested with its test images.
"""

import time
import warnings

import numpy as np
import pytest

import mlgraph

FOLDS, REPEATS = 5, 5
WORSE = {"accuracy": 0.005, "R2": 0.02}
"""How far below scikit-learn's a mean score may be, if that is more than two standard errors."""

LOADERS = {
    "iris": "load_iris",
    "wine": "load_wine",
    "breast cancer": "load_breast_cancer",
    "digits": "load_digits",
    "diabetes": "load_diabetes",
}


def splits(name, mnist):
    """Training and test data, standardized by hand, of each fit."""
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    if name == "MNIST":
        found = [(mnist.train_x, mnist.train_y, mnist.test_x, mnist.test_y)] * 2
    else:
        from sklearn import datasets, model_selection

        x, y = getattr(datasets, LOADERS[name])(return_X_y=True)
        kind = model_selection.RepeatedKFold if name == "diabetes" else model_selection.RepeatedStratifiedKFold
        parts = kind(n_splits=FOLDS, n_repeats=REPEATS, random_state=0).split(x, y)
        found = [(x[train], y[train], x[test], y[test]) for train, test in parts]
    for train_x, train_y, test_x, test_y in found:
        scaler = preprocessing.StandardScaler().fit(train_x)
        yield scaler.transform(train_x).astype(np.float32), train_y, scaler.transform(test_x), test_y


def ours(seed, x, y, regression):
    net = mlgraph.Network(x.shape[1], seed=seed)
    net.add_layer(100)
    net.add_layer(1) if regression else net.add_layer(len(np.unique(y)), "softmax")
    net.fit(x, y, n_threads=1)
    return net


def theirs(seed, x, y, regression):
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 200 iterations are too few for some
        return (MLPRegressor if regression else MLPClassifier)(random_state=seed).fit(x, y)


def scores(make, parts, regression):
    """The score and the seconds of each fit."""
    found = []
    for seed, (x, y, test_x, test_y) in enumerate(parts):
        begin = time.perf_counter()
        model = make(seed, x, y, regression)
        seconds, answers = time.perf_counter() - begin, model.predict(test_x)
        right = 1 - ((answers - test_y) ** 2).sum() / ((test_y - test_y.mean()) ** 2).sum()
        found.append((right if regression else (answers == test_y).mean(), seconds))
    return np.array(found).T


@pytest.mark.benchmark(group="defaults beside scikit-learn's")
@pytest.mark.parametrize("name", [*LOADERS, "MNIST"])
def bench_defaults(benchmark, note, mnist, name):
    """`seconds` and `score` are means over the fits, `error` the standard error of the score."""
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    parts, regression = list(splits(name, mnist)), name == "diabetes"
    with limits(1):
        score, seconds = benchmark.pedantic(scores, (ours, parts, regression))
        other_score, other_seconds = scores(theirs, parts, regression)
    error = float(other_score.std(ddof=1) / len(parts) ** 0.5)
    kind = "R2" if regression else "accuracy"
    note(score=score.mean(), seconds=seconds.mean(), sklearn=other_score.mean(), sklearn_seconds=other_seconds.mean())
    print(
        f"\n{name}: {kind} {score.mean():.4f} in {seconds.mean():.3f} s, scikit-learn {other_score.mean():.4f} "
        f"(standard error {error:.4f}) in {other_seconds.mean():.3f} s"
    )
    assert score.mean() >= other_score.mean() - max(WORSE[kind], 2 * error)
    assert seconds.mean() < other_seconds.mean()
