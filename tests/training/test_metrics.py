"""Metrics of `evaluate` and `fit`: beside those of scikit-learn, in the history, in checkpoints, and refused."""

import numpy as np
import pytest
from learnable import FLOATS, TARGETS, X, Y, network

import mlgraph

WEIGHT = np.random.default_rng(3).integers(0, 4, len(X)).astype(float)


def gap(y_true, y_pred, sample_weight=None):
    return abs(y_true - y_pred).max()


def unweighted(y_true, y_pred):
    return np.nan


def two_classes(loss):
    net = mlgraph.Network(X.shape[1], seed=0)
    net.add_layer(2, "softmax") if loss == "softmax" else net.add_layer(1, "sigmoid", loss="binary_cross_entropy")
    return net


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
def test_named_metrics_are_those_of_scikit_learn(weight):
    sk = pytest.importorskip("sklearn.metrics")
    options = {"sample_weight": weight}
    net = network(None)
    x, y = FLOATS, TARGETS
    net.fit(x, y, epochs=2)
    n_weight = {"sample_weight": None if weight is None else np.resize(weight, len(x))}
    found = net.evaluate(x, y, metrics=["mae", "mse", "rmse", "r2", sk.median_absolute_error], **n_weight)
    true, predicted = np.asarray(y, np.float32).astype(float), net.predict(x).astype(float)
    for name, function in (
        ("mae", sk.mean_absolute_error),
        ("mse", sk.mean_squared_error),
        ("rmse", sk.root_mean_squared_error),
        ("r2", sk.r2_score),
        ("median_absolute_error", sk.median_absolute_error),
    ):
        assert found[name] == pytest.approx(function(true, predicted, **n_weight), rel=1e-12)

    net = network()
    net.fit(X, Y, epochs=2)
    found = net.evaluate(X, Y, metrics=["f1_macro", "top_5_accuracy", sk.balanced_accuracy_score], **options)
    assert found["f1_macro"] == pytest.approx(sk.f1_score(Y, net.predict(X), average="macro", **options))
    assert found["balanced_accuracy_score"] == sk.balanced_accuracy_score(Y, net.predict(X), **options)
    assert found["top_5_accuracy"] == 1  # of three classes
    for loss in ("softmax", "sigmoid"):
        net, yes = two_classes(loss), Y > 0
        found = net.evaluate(X, yes, metrics=["roc_auc", "f1_macro"], **options)
        assert found["roc_auc"] == pytest.approx(
            sk.roc_auc_score(yes, net.forward(X)[:, -1] - (net.forward(X)[:, 0] if loss == "softmax" else 0), **options)
        )
        assert found["f1_macro"] == pytest.approx(sk.f1_score(yes, net.predict(X), average="macro", **options))


def test_top_5_of_seven():
    net = mlgraph.Network(7, seed=0)
    net.add_layer(7, "softmax")
    x, y = np.random.default_rng(0).normal(size=(50, 7)), np.arange(50) % 7
    best = np.argsort(-net.forward(x), axis=1)[:, :5]
    assert net.evaluate(x, y, metrics=["top_5_accuracy"])["top_5_accuracy"] == (best == y[:, None]).any(1).mean() < 1


def test_a_loss_that_is_a_node_has_metrics_of_its_targets():
    g = mlgraph.Graph(seed=0)
    x, target = g.add_input("x"), g.add_input("target")
    out = g.add_neuron([x], weights=[2.0])
    model = mlgraph.Model(g, out, loss=abs(out - target))
    assert model.evaluate([[1.0], [2.0]], [1.0, 8.0], metrics=["mse"])["mse"] == (1 + 16) / 2
    with pytest.raises(ValueError, match=r"^metrics: expected the targets as y"):
        model.evaluate([[1.0, 1.0]], metrics=["mse"])


def test_metrics_are_columns_of_the_history_and_change_nothing_else(capsys):
    held = (FLOATS[:50], TARGETS[:50])
    runs = [network(None).fit(FLOATS, TARGETS, epochs=3, seed=1, validation_data=held, metrics=metrics, verbose=True)
            for metrics in (None, ["mae", "r2", gap])]  # fmt: skip
    line = capsys.readouterr().out.splitlines()[-1]
    assert list(runs[1]) == [*runs[0], "validation_mae", "validation_r2", "validation_gap"]
    for name in runs[0]:
        if name != "epoch_seconds":
            np.testing.assert_array_equal(runs[0][name], runs[1][name])
    for name in ("mae", "r2", "gap"):
        column = runs[1][f"validation_{name}"]
        assert len(column) == 3 and f"validation {name} {column[-1]:#.4g}" in line


def test_a_resumed_run_has_the_same_metrics(tmp_path):
    def run(stop=None, **options):
        def end(progress):
            if progress.kind == "epoch" and progress.epoch == stop:
                raise KeyboardInterrupt

        options = {"metrics": ["mae", gap], "checkpoint": tmp_path / "run", **options}
        return network(None).fit(FLOATS, TARGETS, epochs=4, seed=1, validation_split=0.25, callbacks=[end], **options)

    whole = run(checkpoint=None)
    with pytest.raises(KeyboardInterrupt):
        run(stop=1)
    for metrics, was in ((["mae"], r"\['mae', 'gap'\]"), (None, r"\['mae', 'gap'\]")):
        with pytest.raises(ValueError, match=rf"metrics was {was}, but is \[.*\] now"):
            run(resume=True, metrics=metrics)
    resumed = run(resume=True)
    for name in ("validation_mae", "validation_gap"):
        np.testing.assert_array_equal(resumed[name], whole[name])
        assert len(resumed[name]) == 4


@pytest.mark.parametrize(
    ("metric", "mode", "best"), [("r2", None, np.argmax), ("mae", None, np.argmin), (gap, "max", np.argmax)]
)
def test_early_stopping_watches_a_metric(metric, mode, best):
    name = metric if isinstance(metric, str) else metric.__name__
    stop = mlgraph.EarlyStopping(f"validation_{name}", patience=50, mode=mode)
    history = network(None).fit(FLOATS, TARGETS, epochs=8, validation_split=0.2, metrics=[metric], callbacks=[stop])
    assert stop.best_epoch == best(history[f"validation_{name}"])


def test_early_stopping_that_cannot_know_its_metric():
    with pytest.raises(ValueError, match=r'^mode: expected "min" or "max" to say which gap is better'):
        mlgraph.EarlyStopping("validation_gap")
    with pytest.raises(ValueError, match=r"^callbacks: EarlyStopping watches validation_r2, which needs r2 among"):
        network(None).fit(FLOATS, TARGETS, validation_split=0.2, callbacks=[mlgraph.EarlyStopping("validation_r2")])


def test_outputs_that_are_not_finite_give_nan():
    net = mlgraph.Network(1, seed=0)
    net.add_layer(1)
    with np.errstate(all="ignore"):
        found = net.evaluate([[np.inf], [1.0]], [1.0, 2.0], metrics=["mae", gap])
    assert np.isnan(found["mae"]) and np.isnan(found["gap"])
    found = net.evaluate([[np.inf], [1.0]], [1.0, 2.0], sample_weight=[0, 1], metrics=["mae"])
    assert np.isfinite(found["mae"])
    assert np.isnan(net.evaluate([[1.0]], [1.0], metrics=["r2", unweighted])["unweighted"])


def same(y_true, y_pred):
    return y_true == y_pred


def accuracy(y_true, y_pred):
    return 0.0


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        ("mae", TypeError, "expected a list of names or functions, got 'mae'"),
        (["mean_absolute_error"], ValueError, "expected accuracy, mae, mse, .*; here it is mae"),
        (["nothing"], ValueError, "expected accuracy, mae, .* or functions, got 'nothing'; a function"),
        ([3], TypeError, "expected names or functions, got 3"),
        ([lambda a, b: 0.0], ValueError, "expected a function with a name, which def gives"),
        ([accuracy], ValueError, "the name accuracy is taken"),
        (["mae", "mae"], ValueError, "two of them are called mae"),
        (["f1_macro"], ValueError, "f1_macro needs one class for each example, got the loss squared_error"),
        (["accuracy"], ValueError, "accuracy needs labels"),
        ([same], TypeError, "expected a number from same"),
    ],
)
def test_metrics_that_are_refused(metrics, error, message):
    with pytest.raises(error, match=f"^metrics: {message}"):
        network(None).evaluate(FLOATS, TARGETS, metrics=metrics)


def test_what_fit_refuses_before_it_changes_anything():
    net = network(None)
    before = net.graph.get_parameters()
    with pytest.raises(ValueError, match=r"^metrics: these are computed from validation_data or validation_split"):
        net.fit(FLOATS, TARGETS, metrics=["mae"])
    weights = (FLOATS, TARGETS, np.ones(len(FLOATS)))
    with pytest.raises(ValueError, match=r"^metrics: unweighted must take \(y_true, y_pred, sample_weight\)"):
        net.fit(FLOATS, TARGETS, validation_data=weights, metrics=[unweighted])
    np.testing.assert_array_equal(net.graph.get_parameters(), before)
    assert "validation_accuracy" in network().fit(X, Y, epochs=1, metrics=["accuracy"])


def test_functions_get_the_labels_that_predict_returns():
    words, seen = np.array(["no", "yes"]), []

    def exact(y_true, y_pred):
        seen.append((y_true, y_pred))
        return float((y_true == y_pred).mean())

    net = mlgraph.Network(2, seed=0)
    net.add_layer(2, "softmax")
    x = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = words[[0, 1, 1]]
    history = net.fit(x, y, epochs=2, validation_data=(x, y), metrics=[exact])
    np.testing.assert_array_equal(history.validation_accuracy, history["validation_exact"])
    assert net.evaluate(x, y, metrics=[exact])["exact"] == (net.predict(x) == y).mean()
    np.testing.assert_array_equal(seen[-1][0], y)
    np.testing.assert_array_equal(seen[-1][1], net.predict(x))
