"""GraphClassifier and GraphRegressor beside MLPClassifier and MLPRegressor, as a table for docs/sklearn.md.

    python bench/sklearn_table.py               # some minutes on one core, most of them for MNIST
    python bench/sklearn_table.py --only iris   # one data set

All estimators have their defaults (one hidden layer of 100), behind a StandardScaler; targets of
regressions are scaled, too. The score is the accuracy or R2, mean and standard deviation over five
times five folds, and the time the median of the fits, in which the estimators take turns on one
thread. MNIST is learnt five times for ten epochs from its training images, divided by 255 instead of
standardized, and tested with its test images.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.base import is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mlgraph.datasets import load_mnist
from mlgraph.sklearn import GraphClassifier, GraphRegressor

LOADERS = ("iris", "wine", "breast_cancer", "digits", "diabetes", "linnerud")
REGRESSIONS = ("diabetes", "linnerud")
HEADINGS = ("MLP", "Graph", "Graph, 90 % cut")
Parts = Iterator[tuple[Any, Any, Any, Any]]


def parts(name: str) -> Parts:
    """Training data and test data of each fit."""
    if name == "MNIST":
        mnist = load_mnist()
        for _ in range(5):
            yield np.float32(mnist.train_x) / 255, mnist.train_y, np.float32(mnist.test_x) / 255, mnist.test_y
        return
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    kind = RepeatedKFold if name in REGRESSIONS else RepeatedStratifiedKFold
    for train, test in kind(n_splits=5, n_repeats=5, random_state=0).split(x, y):
        yield x[train], y[train], x[test], y[test]


def estimators(name: str, seed: int, alpha: float) -> list[Any]:
    """One for each of the headings."""
    theirs, ours = (MLPRegressor, GraphRegressor) if name in REGRESSIONS else (MLPClassifier, GraphClassifier)
    options = {"random_state": seed, "alpha": alpha, **({"max_iter": 10} if name == "MNIST" else {})}
    plain = [theirs(**options), ours(**options), ours(**options, sparsity=0.9)]
    if name == "MNIST":
        return plain
    scaled = [make_pipeline(StandardScaler(), one) for one in plain]
    return [
        one if is_classifier(one) else TransformedTargetRegressor(one, transformer=StandardScaler()) for one in scaled
    ]


def row(name: str, alpha: float) -> str:
    """The scores and seconds of a data set."""
    scores, seconds = [], []
    for seed, (x, y, test_x, test_y) in enumerate(parts(name)):
        for estimator in estimators(name, seed, alpha):
            begin = time.perf_counter()
            estimator.fit(x, y)
            seconds.append(time.perf_counter() - begin)
            scores.append(estimator.score(test_x, test_y))
    score, second = (np.reshape(values, (-1, len(HEADINGS))) for values in (scores, seconds))
    cells = [f"{mean:.3f} ± {std:.3f}" for mean, std in zip(score.mean(axis=0), score.std(axis=0), strict=True)]
    cells += [f"{median:.2f}" for median in np.median(second, axis=0)]
    return f"| {name.replace('_', ' ')}, {'R2' if name in REGRESSIONS else 'accuracy'} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=(*LOADERS, "MNIST"), action="append")
    parser.add_argument("--alpha", type=float, default=1e-4, help="of all estimators (default: theirs, 0.0001)")
    args = parser.parse_args()
    chosen = args.only or (*LOADERS, "MNIST")
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(f"| | {' | '.join(HEADINGS)} | {' | '.join(f'{heading}, s' for heading in HEADINGS)} |")
    print("|---" * (1 + 2 * len(HEADINGS)) + "|")
    with threadpool_limits(1):
        for name in chosen:
            print(row(name, args.alpha), flush=True)


if __name__ == "__main__":
    main()
