"""GraphClassifier beside MLPClassifier with the same network, batches and epochs, on one thread, in turns."""

import time
import warnings

import numpy as np
import pytest

HIDDEN, EPOCHS, BATCH, ROUNDS = (100,), 10, 128, 20


@pytest.mark.benchmark(group="digits by estimators of scikit-learn's kind")
@pytest.mark.parametrize("what", ["fit", "predict"])
def bench_sklearn(benchmark, note, what):
    """The time is that of mlgraph; `sklearn` is the least of as many turns of the other."""
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    pytest.importorskip("sklearn", "1.6")
    from sklearn.datasets import load_digits
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    from mlgraph.sklearn import GraphClassifier

    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32) / 16
    options = {"hidden_layer_sizes": HIDDEN, "batch_size": BATCH, "max_iter": EPOCHS, "random_state": 0}
    ours, theirs = GraphClassifier(**options), MLPClassifier(**options)
    others = []

    def call(estimator):
        begin = time.perf_counter()
        if what == "fit":
            estimator.fit(x, y)
        else:
            estimator.predict(x)
        return time.perf_counter() - begin

    with limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for estimator in (ours, theirs):
            estimator.fit(x, y)
        benchmark.pedantic(call, (ours,), setup=lambda: others.append(call(theirs)), rounds=ROUNDS, warmup_rounds=1)
    assert ours.score(x, y) > 0.9 and theirs.score(x, y) > 0.9
    note(sklearn=min(others), times=min(others) / benchmark.stats.stats.min)
    print(f"\n{what}: {benchmark.stats.stats.min * 1e3:.2f} ms, MLPClassifier {min(others) * 1e3:.2f} ms")
