"""scikit-learn judges `GraphClassifier` and `GraphRegressor`: its own checks, model selection, scores and reports."""

import pickle
import warnings
from functools import partial

import numpy as np
import pytest

import mlgraph

pytest.importorskip("sklearn", "1.6")
from scipy import sparse
from sklearn import __version__
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_iris, load_linnerud
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from mlgraph.exchange import to_sklearn
from mlgraph.sklearn import GraphClassifier, GraphRegressor

IRIS_X, IRIS_Y = load_iris(return_X_y=True)
IRIS_X = StandardScaler().fit_transform(IRIS_X)
NAMES = load_iris().target_names[IRIS_Y]
SMALL = {"hidden_layer_sizes": (8,), "learning_rate_init": 0.02, "max_iter": 60, "random_state": 0}
FIXED = {**SMALL, "n_iter_no_change": np.inf}  # always `max_iter` epochs


def classifier(**options):
    return GraphClassifier(**{**FIXED, **options})


def regressor(**options):
    return GraphRegressor(**{**FIXED, **options})


# --- the checks of scikit-learn -------------------------------------------------------------------

SHUFFLED = "an example of weight 2 is in one batch, the same example twice may be in two"
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": SHUFFLED,
    "check_sample_weight_equivalence_on_sparse_data": SHUFFLED,
}
SKIPPED = {"check_array_api_input", "check_classifiers_multilabel_output_format_decision_function"}
N_CHECKS = {"1.6": (67, 60), "1.9": (68, 61)}


@pytest.mark.parametrize("kind", [GraphClassifier, GraphRegressor])
@pytest.mark.parametrize(
    "options",
    [{}, SMALL, pytest.param({**SMALL, "solver": "sgd", "activation": "tanh", "dropout": 0.1}, marks=pytest.mark.slow)],
    ids=["default", "small", "sgd"],
)
def test_all_checks_of_scikit_learn_pass(kind, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "the numbers in column")
        results = check_estimator(kind(**options), expected_failed_checks=EXPECTED_FAILURES, on_skip=None)
    by_status = {}
    for result in results:
        by_status.setdefault(result["status"], set()).add(result["check_name"])
    assert by_status.keys() <= {"passed", "xfail", "skipped"}
    assert by_status["xfail"] == EXPECTED_FAILURES.keys() and by_status.get("skipped", set()) <= SKIPPED
    release = ".".join(__version__.split(".")[:2])
    assert len(results) >= N_CHECKS.get(release, N_CHECKS["1.6"])[kind is GraphRegressor]


# --- labels, numbers and frames -------------------------------------------------------------------


def test_string_labels_are_predicted_and_known_to_the_network():
    estimator = classifier().fit(IRIS_X, NAMES)
    assert estimator.classes_.tolist() == ["setosa", "versicolor", "virginica"] == list(estimator.model_.classes)
    assert estimator.score(IRIS_X, NAMES) > 0.95
    assert np.array_equal(estimator.predict(IRIS_X), estimator.model_.predict(IRIS_X))


@pytest.mark.parametrize("labels", [[False, True], [-1, 1], [1.0, 3.0], ["no", "yes"]])
def test_predictions_are_labels_as_they_were_given(labels):
    chosen = IRIS_Y < 2
    y = np.asarray(labels)[IRIS_Y[chosen]]
    estimator = classifier().fit(IRIS_X[chosen], y)
    assert estimator.predict(IRIS_X[chosen]).tolist() == y.tolist()
    assert estimator.predict_proba(IRIS_X[chosen]).shape[1] == 2


def test_several_labels_for_one_example():
    x, y = IRIS_X, (IRIS_X[:, :3] > 0).astype(int)
    estimator = classifier().fit(x, y)
    assert estimator.predict(x).shape == estimator.predict_proba(x).shape == y.shape
    assert estimator.score(x, y) > 0.9 and estimator.n_outputs_ == 3
    assert np.array_equal(estimator.predict_proba(x) > 0.5, estimator.predict(x) == 1)
    assert estimator.model_.evaluate(x, y)["accuracy"] == pytest.approx(estimator.score(x, y))
    of_sparse = classifier().fit(x, sparse.csr_matrix(y)).predict(x)
    assert np.array_equal(of_sparse.toarray(), estimator.predict(x))
    for form in (y, sparse.csr_matrix(y)):
        assert 0.5 < classifier(early_stopping=True).fit(x, form).best_validation_score_ < 1


def test_a_single_class_is_certain():
    estimator = classifier().fit(IRIS_X, ["here"] * 150)
    assert set(estimator.predict(IRIS_X)) == {"here"} and (estimator.predict_proba(IRIS_X) == np.ones((150, 1))).all()


def test_several_numbers_for_one_example():
    x, y = load_linnerud(return_X_y=True)
    inner = make_pipeline(StandardScaler(), regressor(max_iter=300))
    estimator = TransformedTargetRegressor(inner, transformer=StandardScaler()).fit(x, y)
    assert estimator.predict(x).shape == y.shape
    assert estimator.score(x, y) == pytest.approx(r2_score(y, estimator.predict(x))) and estimator.score(x, y) > 0.5


def test_frames_have_feature_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(IRIS_X, columns=["a", "b", "c", "d"])
    estimator = classifier().fit(frame, NAMES)
    assert estimator.feature_names_in_.tolist() == ["a", "b", "c", "d"] == list(estimator.model_.columns)
    assert np.array_equal(estimator.model_.predict(frame[["d", "c", "b", "a"]]), estimator.predict(frame))
    assert estimator.model_.scaling == "unscaled"
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(frame[["d", "c", "b", "a"]])


def test_sparse_matrices_are_read():
    x = sparse.csr_matrix(np.where(np.abs(IRIS_X) > 0.5, IRIS_X, 0))
    estimator = classifier().fit(x, IRIS_Y)
    assert np.array_equal(estimator.predict_proba(x), classifier().fit(x.toarray(), IRIS_Y).predict_proba(x.toarray()))


# --- probabilities --------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [IRIS_X, 1e6 * IRIS_X])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_are_those_of_the_network(x, n_classes):
    chosen = IRIS_Y < n_classes
    estimator = classifier().fit(IRIS_X[chosen], IRIS_Y[chosen])
    p, log_p = estimator.predict_proba(x), estimator.predict_log_proba(x)
    mine = estimator.model_.predict_proba(x)
    np.testing.assert_allclose(p[:, -1:] if n_classes == 2 else p, mine, atol=1e-6)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    assert np.isfinite(log_p).all() and log_loss(IRIS_Y[chosen], p[chosen]) > 0
    np.testing.assert_allclose(np.exp(log_p), p)


# --- weights --------------------------------------------------------------------------------------

# A line cannot separate these, so weights decide which of the labels it predicts.
MIXED_X = np.repeat([[0.0], [1.0]], 50, axis=0)
MIXED_Y = np.tile([0, 0, 0, 1, 1], 20)


def share_of_ones(weight=None, **options):
    estimator = classifier(hidden_layer_sizes=(), alpha=0.0, batch_size=100, max_iter=500, **options)
    return estimator.fit(MIXED_X, MIXED_Y, weight).predict_proba(MIXED_X)[:, 1]


def test_weights_of_examples_and_of_classes_move_the_probabilities():
    np.testing.assert_allclose(share_of_ones(), 0.4, atol=0.03)
    np.testing.assert_allclose(share_of_ones(np.where(MIXED_Y, 6.0, 1.0)), 0.8, atol=0.03)
    np.testing.assert_allclose(share_of_ones(class_weight={1: 6.0}), 0.8, atol=0.03)
    np.testing.assert_allclose(share_of_ones(class_weight="balanced"), 0.5, atol=0.03)
    np.testing.assert_allclose(share_of_ones(np.where(MIXED_Y, 4.0, 1.0), class_weight={1: 1.5}), 0.8, atol=0.03)


def test_only_ratios_of_weights_matter():
    weight = np.where(MIXED_Y, 6.0, 1.0)
    for solver in ("adam", "sgd"):
        one, other = (share_of_ones(factor * weight, solver=solver) for factor in (1, 1e5))
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_weights_of_classes_where_examples_have_several():
    y = np.column_stack([MIXED_Y, 1 - MIXED_Y])
    weights = [{0: 1, 1: 6}, {0: 1, 1: 1}]  # of an example, their product
    estimator = classifier(hidden_layer_sizes=(), class_weight=weights, batch_size=100, max_iter=500)
    np.testing.assert_allclose(estimator.fit(MIXED_X, y).predict_proba(MIXED_X)[:, 0], 0.8, atol=0.03)


def test_the_regressor_takes_weights():
    x, y = np.zeros((100, 1)), np.tile([0.0, 1.0], 50)
    weighted = regressor(hidden_layer_sizes=(), max_iter=300).fit(x, y, np.tile([1.0, 3.0], 50))
    assert weighted.predict([[0.0]])[0] == pytest.approx(0.75, abs=0.02)


# --- training -------------------------------------------------------------------------------------


def test_a_run_stops_when_the_loss_no_longer_falls():
    estimator = GraphClassifier(**{**SMALL, "max_iter": 2000, "tol": 1e-3}).fit(IRIS_X, IRIS_Y)
    assert estimator.n_iter_ == len(estimator.loss_curve_) < 2000
    assert estimator.loss_ == estimator.loss_curve_[-1] and estimator.best_loss_ == min(estimator.loss_curve_)
    assert estimator.t_ == 150 * estimator.n_iter_ and estimator.n_layers_ == 3
    assert estimator.validation_scores_ is estimator.best_validation_score_ is None
    with pytest.warns(ConvergenceWarning, match="max_iter=5 epochs"):
        GraphClassifier(**{**SMALL, "max_iter": 5}).fit(IRIS_X, IRIS_Y)


@pytest.mark.parametrize("weight", [None, np.linspace(1, 2, 150)])
def test_early_stopping_keeps_the_best_epoch(weight):
    estimator = GraphClassifier(**{**SMALL, "max_iter": 1000}, early_stopping=True, validation_fraction=0.2, tol=0)
    estimator.fit(IRIS_X, IRIS_Y, weight)
    assert len(estimator.validation_scores_) == estimator.n_iter_ < 1000 and estimator.best_loss_ is None
    assert estimator.best_validation_score_ == max(estimator.validation_scores_) > 0.9
    assert estimator.t_ == 120 * estimator.n_iter_
    random = np.random.RandomState(0)
    random.randint(2**31)  # of the network
    held_out = train_test_split(np.arange(150), test_size=0.2, stratify=IRIS_Y, random_state=random)[1]
    weights = None if weight is None else weight[held_out]
    score = estimator.score(IRIS_X[held_out], IRIS_Y[held_out], weights)
    assert score == pytest.approx(estimator.best_validation_score_)
    if weight is not None:
        assert estimator.loss_curve_ != clone(estimator).fit(IRIS_X, IRIS_Y).loss_curve_
    again = clone(estimator).set_params(warm_start=True, max_iter=5, n_iter_no_change=np.inf)
    assert len(again.fit(IRIS_X, IRIS_Y).fit(IRIS_X, IRIS_Y).validation_scores_) == 10


def test_early_stopping_of_numbers():
    several = GraphRegressor(**SMALL, early_stopping=True).fit(IRIS_X[:, :3], IRIS_X[:, 3])
    assert several.best_validation_score_ > 0.8


def test_early_stopping_holds_out_some_of_each_class_where_it_can():
    rare = np.arange(1000) % 10 == 0
    estimator = classifier(hidden_layer_sizes=(), early_stopping=True, max_iter=5).fit(np.zeros((1000, 1)), rare)
    assert estimator.best_validation_score_ == pytest.approx(0.9)  # it cannot tell them apart
    classifier(early_stopping=True, max_iter=1).fit(np.eye(30), np.arange(30) == 0)  # one example alone


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_learning_rates(solver):
    options = {**FIXED, "solver": solver, "batch_size": 150, "learning_rate_init": 0.04, "tol": 1e-4, "max_iter": 100}
    constant = GraphClassifier(**options).fit(IRIS_X, IRIS_Y)
    np.testing.assert_allclose(constant.model_.history.learning_rate, 0.04)
    falling = GraphClassifier(**options, learning_rate="invscaling", power_t=0.25).fit(IRIS_X, IRIS_Y)
    np.testing.assert_allclose(falling.model_.history.learning_rate, 0.04 / (1 + 150 * np.arange(100)) ** 0.25, 1e-6)
    options |= {"n_iter_no_change": 2, "tol": 0.01, "max_iter": 500}
    adaptive = GraphClassifier(**options, learning_rate="adaptive").fit(IRIS_X, IRIS_Y)
    rates = adaptive.model_.history.learning_rate
    steps = rates[np.flatnonzero(np.diff(rates, prepend=0))]
    np.testing.assert_allclose(steps, 0.04 / 5.0 ** np.arange(7), 1e-6)  # the next one would be below 1e-6
    assert np.diff(np.flatnonzero(np.diff(rates))).min() >= 2
    assert adaptive.n_iter_ < 500


def test_a_warm_start_goes_on_from_the_network_and_its_cut_edges():
    estimator = classifier(warm_start=True).fit(IRIS_X, NAMES)
    first, losses = estimator.model_, list(estimator.loss_curve_)
    first.prune(sparsity=0.5)
    n_edges = first.n_edges
    estimator.set_params(dropout=0.1, max_iter=5).fit(IRIS_X, NAMES)
    assert estimator.model_ is first and first.n_edges == n_edges < 56 and first.layers[0].dropout == 0.1
    assert estimator.n_iter_ == 5 and estimator.loss_curve_[:60] == losses and len(estimator.loss_curve_) == 65
    with pytest.raises(ValueError, match=r"layers with which training began, .*\[8\].*got .*\[9\]"):
        estimator.set_params(hidden_layer_sizes=9).fit(IRIS_X, NAMES)
    with pytest.raises(ValueError, match=r"expected labels among .*got .*rosa"):
        estimator.set_params(hidden_layer_sizes=8).fit(IRIS_X, np.where(NAMES == "setosa", "rosa", NAMES))
    assert classifier(warm_start=False).fit(IRIS_X, NAMES).fit(IRIS_X, NAMES).model_ is not first


@pytest.mark.parametrize("classes", [[0], [0, 1]], ids=["one class", "two classes"])
def test_a_warm_start_needs_all_classes_and_partial_fit_only_some(classes):
    few = np.isin(IRIS_Y, classes)
    estimator = classifier(warm_start=True, max_iter=2).fit(IRIS_X, NAMES)
    weights = estimator.model_.layers[0].weights.copy()
    with pytest.raises(ValueError, match=r"warm_start: expected .*setosa.*got none of .*virginica.*partial_fit"):
        estimator.fit(IRIS_X[few], NAMES[few])
    assert (estimator.model_.layers[0].weights == weights).all()
    estimator.partial_fit(IRIS_X[few], NAMES[few])
    assert estimator.predict_proba(IRIS_X).shape == (150, 3)
    estimator.set_params(warm_start=False).fit(IRIS_X[few], NAMES[few])
    assert len(estimator.classes_) == len(classes)


@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_a_later_call_takes_labels_of_the_same_kind_and_as_many_numbers(call):
    several = np.eye(3, dtype=int)[IRIS_Y]
    options = {"warm_start": True, "max_iter": 2}
    for first, then, expected in ((several, IRIS_Y, "an indicator"), (IRIS_Y, several, "one label")):
        with pytest.raises(ValueError, match=f"y: expected {expected}.*as in the first call"):
            getattr(classifier(**options).fit(IRIS_X, first), call)(IRIS_X, then)
    for first, then in ((IRIS_X[:, 0], IRIS_X[:, :2]), (IRIS_X[:, :2], IRIS_X[:, 0])):
        with pytest.raises(ValueError, match=r"y: expected \d numbers? for each example, as in the first call, got \d"):
            getattr(regressor(**options).fit(IRIS_X, first), call)(IRIS_X, then)


def test_partial_fit_trains_for_an_epoch():
    estimator = classifier()
    for _ in range(60):
        estimator.partial_fit(IRIS_X[::2], NAMES[::2], classes=np.unique(NAMES))
    assert estimator.score(IRIS_X, NAMES) > 0.9 and len(estimator.loss_curve_) == 60 and estimator.n_iter_ == 1
    numbers = regressor()
    for _ in range(100):
        numbers.partial_fit(IRIS_X[:, :3], IRIS_X[:, 3])
    assert numbers.score(IRIS_X[:, :3], IRIS_X[:, 3]) > 0.8


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_keeps_the_optimizer_as_mlp_classifier_does(solver, tmp_path):
    ours = classifier(solver=solver, alpha=0, batch_size=50, shuffle=False, activation="tanh").fit(IRIS_X, NAMES)
    ours.model_.save(tmp_path / "net.npz")
    ours.model_ = mlgraph.load(tmp_path / "net.npz")  # without a state of the optimizer
    theirs = to_sklearn(ours.model_)
    theirs.set_params(solver=solver, alpha=0, batch_size=50, shuffle=False, learning_rate_init=0.02)
    theirs.set_params(nesterovs_momentum=False)
    restarted = pickle.loads(pickle.dumps(ours.model_))
    for _ in range(3):
        ours = pickle.loads(pickle.dumps(ours)).partial_fit(IRIS_X, NAMES)
        theirs.partial_fit(IRIS_X, NAMES)
        restarted.fit(IRIS_X, NAMES, epochs=1, batch_size=50, shuffle=False, learning_rate=0.02, optimizer=solver)
    weights, expected = ours.model_.layers[0].weights, theirs.coefs_[0].T
    np.testing.assert_allclose(weights, expected, 0, 1e-5)
    assert np.abs(restarted.layers[0].weights - expected).max() > 1e-3


def test_partial_fit_goes_on_after_fit_and_begins_another_solver():
    ours = classifier().fit(IRIS_X, NAMES)
    first = ours.model_.graph.optimizer_state()["second"].sum()
    ours.partial_fit(IRIS_X[:1], NAMES[:1])
    assert ours.model_.graph.optimizer_state()["second"].sum() > first / 2
    ours.set_params(solver="sgd").partial_fit(IRIS_X, NAMES).set_params(momentum=0).partial_fit(IRIS_X, NAMES)
    assert not ours.model_.graph.optimizer_state()
    ours.set_params(solver="adam", warm_start=True, max_iter=1).fit(IRIS_X, NAMES)
    assert ours.model_.graph.optimizer_state().keys() == {"first", "second"}


def test_rates_fall_over_calls_of_partial_fit_too():
    estimator = classifier(learning_rate="invscaling", batch_size=150)
    for seen in (0, 150, 300):
        estimator.partial_fit(IRIS_X, NAMES, classes=np.unique(NAMES))
        np.testing.assert_allclose(estimator.model_.history.learning_rate, 0.02 / (1 + seen) ** 0.5, 1e-6)


def test_a_fit_that_failed_leaves_no_classes_to_partial_fit():
    estimator = classifier(activation=("relu", "tanh"))
    with pytest.raises(ValueError, match="activation"):
        estimator.fit(IRIS_X, IRIS_Y)
    estimator.set_params(activation="relu").partial_fit(IRIS_X, NAMES, classes=np.unique(NAMES))
    assert estimator.classes_.tolist() == np.unique(NAMES).tolist()


@pytest.mark.parametrize("fitted_before", [False, True])
def test_a_fit_that_failed_leaves_an_estimator_that_is_not_fitted(fitted_before):
    x, y = IRIS_X[:, :2], np.array(["c", "a", "b"])[IRIS_Y]
    for estimator, targets in ((classifier(), y), (regressor(), IRIS_Y)):
        if fitted_before:
            estimator.fit(IRIS_X, IRIS_Y)
        estimator.set_params(learning_rate_init=1e30, solver="sgd", alpha=0)
        with pytest.raises(mlgraph.NonFiniteError):
            estimator.fit(x, targets)
        for data in (x, IRIS_X):
            with pytest.raises(NotFittedError):
                estimator.predict(data)
        estimator.set_params(learning_rate_init=0.02, warm_start=True).fit(x, targets)
        assert estimator.predict(x).shape == (150,)


def test_partial_fit_gets_classes_first_and_refuses_what_needs_a_whole_run():
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        classifier().partial_fit(IRIS_X, NAMES)
    estimator = classifier().partial_fit(IRIS_X[:50], NAMES[:50], classes=np.unique(NAMES))
    assert estimator.predict_proba(IRIS_X).shape == (150, 3)
    for options in ({"early_stopping": True}, {"sparsity": 0.5}, {"class_weight": "balanced"}):
        with pytest.raises(ValueError, match=f"partial_fit: .*{next(iter(options))}"):
            classifier(**options).partial_fit(IRIS_X, NAMES, classes=np.unique(NAMES))


def test_the_random_state_determines_everything():
    results = [
        classifier(random_state=state, dropout=0.2, early_stopping=True, max_iter=5).fit(IRIS_X, IRIS_Y)
        for state in (1, np.random.RandomState(1), 2)
    ]
    assert results[0].loss_curve_ == results[1].loss_curve_ != results[2].loss_curve_


@pytest.mark.parametrize(("solver", "counts"), [("adam", False), ("sgd", True)])
def test_momentum_is_of_sgd(solver, counts):
    plain, other = (classifier(solver=solver, momentum=value, max_iter=5).fit(IRIS_X, IRIS_Y) for value in (0.9, 0.1))
    assert (plain.loss_curve_ != other.loss_curve_) == counts


def test_examples_are_shuffled_unless_asked_not_to():
    plain, other = (classifier(shuffle=value, max_iter=5).fit(IRIS_X, IRIS_Y) for value in (True, False))
    assert plain.loss_curve_ != other.loss_curve_


def test_verbose_prints_epochs(capsys):
    classifier(verbose=True, max_iter=3).fit(IRIS_X, IRIS_Y)
    assert capsys.readouterr().out.count("epoch ") == 3


# --- what MLPClassifier lacks ---------------------------------------------------------------------


def test_activation_and_dropout_of_each_layer():
    net = classifier(hidden_layer_sizes=(8, 4), activation=("tanh", "logistic"), dropout=(0.1, 0.0), max_iter=1)
    layers = net.fit(IRIS_X, IRIS_Y).model_.layers
    assert [(layer.size, layer.activation, layer.dropout) for layer in layers] == [
        (8, "tanh", 0.1),
        (4, "sigmoid", 0.0),
        (3, "softmax", 0.0),
    ]


@pytest.mark.parametrize("schedule", ["gradual", "set", "rigl", partial(mlgraph.GradualPruning, until=0.5)])
def test_a_schedule_prunes_while_it_fits(schedule):
    estimator = classifier(sparsity=0.5, sparsity_schedule=schedule).fit(IRIS_X, IRIS_Y)
    assert estimator.model_.sparsity == pytest.approx(0.5, abs=0.06) and estimator.score(IRIS_X, IRIS_Y) > 0.9


def test_a_run_does_not_stop_before_its_schedule_ends():
    options = {**SMALL, "tol": 1.0, "n_iter_no_change": 1, "max_iter": 40}  # would stop after two epochs
    estimator = GraphClassifier(**options, sparsity=0.8).fit(IRIS_X, IRIS_Y)
    assert 30 < estimator.n_iter_ < 40 and estimator.model_.sparsity == pytest.approx(0.8, abs=0.01)
    assert GraphClassifier(**options).fit(IRIS_X, IRIS_Y).n_iter_ == 2


def test_on_nonfinite():
    y = np.full(50, 3e38)
    with pytest.raises(mlgraph.NonFiniteError):
        regressor().fit(np.ones((50, 1)), y)
    estimator = regressor(on_nonfinite="skip", max_iter=2)
    estimator.fit(np.ones((50, 1)), y)
    assert estimator.model_.history.batch_skipped.sum() == 100


# --- in company -----------------------------------------------------------------------------------


def test_pipelines_grids_and_cross_validation():
    pipeline = make_pipeline(StandardScaler(), classifier(max_iter=40))
    grid = {"graphclassifier__sparsity": [0.0, 0.5], "graphclassifier__hidden_layer_sizes": [4, (8, 4)]}
    x, y = load_iris(return_X_y=True)
    search = GridSearchCV(pipeline, grid, cv=2).fit(x, y)
    assert search.best_score_ > 0.9 and search.cv_results_["mean_test_score"].shape == (4,)
    assert search.best_estimator_[-1].model_.n_edges > 0
    assert cross_val_score(pipeline, x, y, cv=3).mean() > 0.9


@pytest.mark.slow
def test_processes_of_joblib_give_the_same_results():
    one, two = (cross_val_score(classifier(), IRIS_X, IRIS_Y, cv=4, n_jobs=n) for n in (1, 2))
    assert np.array_equal(one, two)


def test_copies_predict_the_same():
    estimator = classifier().fit(IRIS_X, NAMES)
    copy = pickle.loads(pickle.dumps(estimator))
    assert np.array_equal(copy.predict_proba(IRIS_X), estimator.predict_proba(IRIS_X))
    fresh = clone(estimator)
    with pytest.raises(NotFittedError):
        fresh.predict(IRIS_X)
    assert np.array_equal(fresh.fit(IRIS_X, NAMES).predict_proba(IRIS_X), estimator.predict_proba(IRIS_X))


def test_the_network_is_open():
    estimator = classifier().fit(IRIS_X, IRIS_Y)
    before = accuracy_score(IRIS_Y, estimator.predict(IRIS_X))
    assert estimator.model_.evaluate(IRIS_X, IRIS_Y)["accuracy"] == pytest.approx(before)
    estimator.model_.layers[1].neurons[0].bias = 100
    assert set(estimator.predict(IRIS_X)) == {0}


def test_it_learns_as_much_from_diabetes_as_a_linear_model():
    x, y = load_diabetes(return_X_y=True)
    inner = make_pipeline(StandardScaler(), GraphRegressor(16, learning_rate_init=0.01, alpha=0.1, random_state=0))
    estimator = TransformedTargetRegressor(inner, transformer=StandardScaler())
    assert cross_val_score(estimator, x, y, cv=3).mean() > 0.4


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_layer_sizes": (8, 0)}, "hidden_layer_sizes: expected an integer of at least 1, got 0"),
        ({"activation": "swish"}, "The 'activation' parameter"),
        ({"activation": ("relu", "tanh")}, "activation: expected one for each of 1 hidden layers"),
        ({"activation": ("swish",)}, "activation: expected one of"),
        ({"dropout": (0.1, 0.2)}, "dropout: expected one for each of 1 hidden layers"),
        ({"dropout": (1.5,)}, "dropout: expected a number from 0 to below 1"),
        ({"solver": "lbfgs"}, "The 'solver' parameter"),
        ({"alpha": 1000.0}, "alpha: expected at most 1 / learning_rate_init"),
        ({"sparsity": 1.0}, "The 'sparsity' parameter"),
        ({"sparsity_schedule": "magnitude"}, "The 'sparsity_schedule' parameter"),
        ({"on_nonfinite": "ignore"}, "The 'on_nonfinite' parameter"),
        ({"early_stopping": True, "validation_fraction": 0.001}, "at least two examples to hold out"),
        ({"class_weight": {7: 2.0}}, "class_weight"),
    ],
)
def test_parameters_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        classifier(**options).fit(IRIS_X, IRIS_Y)


@pytest.mark.parametrize("estimator", [GraphClassifier, GraphRegressor])
def test_a_misspelt_parameter_is_an_error_with_the_right_one(estimator):
    with pytest.raises(TypeError, match=r"^Graph\w+: there is no argument 'max_itr'; did you mean max_iter\?$"):
        estimator(max_itr=9)


@pytest.mark.parametrize(("schedule", "returned"), [(float, r"0\.5"), (lambda sparsity: None, "None")])
def test_a_schedule_must_be_one(schedule, returned):
    message = rf"sparsity_schedule: expected a function that returns a mlgraph\.Schedule, got .*returned {returned}"
    with pytest.raises(TypeError, match=message):
        classifier(sparsity=0.5, sparsity_schedule=schedule).fit(IRIS_X, IRIS_Y)


@pytest.mark.parametrize(
    ("y", "weights", "message"),
    [
        (IRIS_Y, {0: -1}, "class_weight: label 0: expected a finite number of at least 0, got -1"),
        (IRIS_Y, {0: np.nan}, "class_weight: label 0: expected a finite number of at least 0, got nan"),
        (NAMES, {"virginica": np.inf}, "class_weight: label 'virginica': expected a finite number"),
        (np.eye(3, dtype=int)[IRIS_Y], [{0: -1}, {0: -1}, {0: 1}], "class_weight: label 0: expected a finite number"),
        (IRIS_Y, {0: 0, 1: 0, 2: 0}, "class_weight: expected a weight above 0 for one of the examples, got {0: 0"),
    ],
)
def test_weights_of_classes_are_checked(y, weights, message):
    with pytest.raises(ValueError, match=message):
        classifier(class_weight=weights).fit(IRIS_X, y)


@pytest.mark.parametrize("y", [IRIS_Y, IRIS_Y == 0, np.eye(3, dtype=int)[IRIS_Y]])
def test_an_output_that_is_not_a_number_is_no_class(y):
    estimator = classifier(hidden_layer_sizes=(32, 32), activation="identity").fit(IRIS_X, y)
    x = np.vstack([IRIS_X[:2], np.random.default_rng(0).choice([-3e38, 3e38], (6, 4))])
    (first, *_) = np.flatnonzero(np.isnan(estimator.model_.forward(x)).any(axis=1))
    for predict in (estimator.predict, estimator.model_.predict):
        with pytest.raises(ValueError, match=f"expected outputs that are numbers, got nan for example {first}"):
            predict(x)
    assert len(estimator.predict(x[:first])) == first


def test_weights_are_checked():
    for weight, message in ((-np.ones(150), "[Nn]egative"), (np.zeros(150), "zero|above 0"), (np.ones(3), "shape")):
        with pytest.raises(ValueError, match=message):
            classifier().fit(IRIS_X, IRIS_Y, weight)
