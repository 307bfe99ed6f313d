"""Weights of examples and of classes, in `fit` and `evaluate`."""

import numpy as np
import pytest
from swept import check, layered

import mlgraph
from mlgraph.engine import reference
from mlgraph.models.running import read_with_targets

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6)).astype(np.float32)
LABELS = np.where(RNG.random(90) < 0.6, 0, X[:, :3].argmax(axis=1))
ONE_HOT = np.eye(3)[LABELS]
ANSWERS = (LABELS > 0).astype(int)
SOFT = RNG.random((90, 3))
COUNTS = RNG.integers(0, 4, 90)
WEIGHT = (COUNTS / 2).astype(np.float32)
HUGE = {"batch_size": 90, "shuffle": False, "optimizer": "sgd", "momentum": 0.0}


def of_node():
    """A network whose loss is a node; its target is the last input."""
    g = mlgraph.Graph(seed=0)
    x, t = g.add_inputs(6), g.add_input("t")
    hidden = [g.add_neuron(x, "tanh", weights=np.roll(np.arange(6) / 6, i)) for i in range(3)]
    out = g.add_neuron(hidden, "identity", weights=[1.0, -0.5, 0.3])
    return mlgraph.Model(g, out, (out - t) ** 2 * 0.5 + abs(out - t))


def of_answers(outputs):
    net = mlgraph.Network(6, seed=0)
    net.add_layer(5, "tanh")
    net.add_layer(outputs, "sigmoid", loss="binary_cross_entropy")
    return net


LOSSES = {
    "softmax, labels": (lambda: layered([6, 5, 3]), LABELS),
    "softmax, probabilities": (lambda: layered([6, 5, 3]), SOFT),
    "binary": (lambda: of_answers(3), SOFT),
    "squared error": (lambda: layered([6, 5, 3], last="identity"), SOFT),
    "squared error, labels": (lambda: layered([6, 5, 3], last="identity"), LABELS),
    "mean of squares": (lambda: layered([6, 5, 3], last="tanh", loss="mse"), SOFT),
    "node": (of_node, SOFT[:, 0]),
}
each_loss = pytest.mark.parametrize(("make", "y"), LOSSES.values(), ids=LOSSES)
pytestmark = pytest.mark.filterwarnings("ignore:y. labels are learnt")


def parameters(model, x, y, **options):
    model.fit(x, y, **{"epochs": 3, "learning_rate": 0.1, **HUGE, **options})
    return model.graph.get_parameters()


# --- training ---------------------------------------------------------------------------------------


@each_loss
@pytest.mark.parametrize("n", [1, 33, 90])
def test_losses_and_gradients_are_those_of_the_reference(sweep, make, y, n):
    model, x, y = make(), X[:n], y[:n]
    if model.loss == "node":
        x, y = np.column_stack([x, y]).astype(np.float32), ()
    check(model, x, y, weight=WEIGHT[:n] + np.float32(0.1))


@each_loss
def test_gradients_are_finite_differences_of_the_weighted_mean(sweep, make, y):
    model = make()
    before = model.graph.get_parameters()
    stepped = parameters(model, X, y, epochs=1, learning_rate=(0.01, 0.01), sample_weight=WEIGHT)
    model.graph.set_parameters(before)
    plan = mlgraph.models.running.engine_of(model).plan
    examples, objective = read_with_targets(model, X, y)

    def loss(p):
        given = {"label": objective.label, "target": objective.target}
        losses, _ = reference.step(plan, p, examples.array, model.loss, plan.slot[model.loss_ids], **given)
        return (losses * WEIGHT).sum() / len(X)

    vector = model.graph.parameters.astype(np.float64)
    direction = np.zeros(len(vector))
    places = model.parameter_places()
    direction[places] = RNG.normal(size=len(places))
    slope = (loss(vector + 1e-5 * direction) - loss(vector - 1e-5 * direction)) / 2e-5
    model.graph.set_parameters(stepped)
    after = model.graph.parameters.astype(np.float64)
    assert (vector - after) @ direction / 0.01 == pytest.approx(slope, rel=1e-3)


@each_loss
def test_a_weight_repeats_the_example(sweep, make, y):
    """As often as it says, in a batch of all; the mean is still over the examples."""
    repeated, total = np.repeat(np.arange(90), COUNTS), int(COUNTS.sum())
    weighted, twice = make(), make()
    twice.graph.set_parameters(weighted.graph.get_parameters())
    found = parameters(weighted, X, y, sample_weight=COUNTS)
    options = {"batch_size": total, "learning_rate": 0.1 * total / 90}
    np.testing.assert_allclose(found, parameters(twice, X[repeated], y[repeated], **options), rtol=1e-4, atol=1e-6)
    losses = weighted.history.epoch_loss, twice.history.epoch_loss * total / 90
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"batch_size": 32, "shuffle": True, "seed": 1}], ids=["whole", "shuffled"])
def test_doubled_weights_are_a_doubled_learning_rate(sweep, options):
    runs = [
        {"sample_weight": 2 * WEIGHT},
        {"sample_weight": WEIGHT, "learning_rate": 0.2},
        {"sample_weight": np.ones(90), "learning_rate": 0.2},
        {"learning_rate": 0.2},
    ]
    doubled, single, ones, none = (
        parameters(layered([6, 5, 3]), X, LABELS, **options, **run).tobytes() for run in runs
    )
    assert doubled == single != ones == none


def test_bits_do_not_depend_on_threads(sweep):
    found = {
        parameters(layered([6, 40, 3]), X, LABELS, batch_size=45, sample_weight=WEIGHT, n_threads=n).tobytes()
        for n in (1, 2, 5)
    }
    assert len(found) == 1


def test_the_history_has_weighted_losses_and_accuracies_of_all_alike():
    net = layered([6, 5, 3])
    each = np.array([net.evaluate(X[[i]], LABELS[[i]])["loss"] for i in range(90)])
    accuracy = net.evaluate(X, LABELS)["accuracy"]
    parameters(net, X, LABELS, sample_weight=WEIGHT, epochs=1)
    assert net.history.epoch_loss[0] == pytest.approx((each * WEIGHT).mean(), rel=1e-5)
    assert net.history.epoch_accuracy[0] == accuracy


@pytest.mark.parametrize(
    ("loss", "y", "count"),
    [
        ("softmax, labels", LABELS, np.bincount(LABELS)),
        ("softmax, probabilities", ONE_HOT, np.bincount(LABELS)),
        ("squared error, labels", LABELS, np.bincount(LABELS)),
        ("answers", ANSWERS, np.bincount(ANSWERS)),
        ("answers", ANSWERS[:, None] > 0, np.bincount(ANSWERS)),
    ],
)
def test_weights_of_classes(loss, y, count):
    """A dict or "balanced", as scikit-learn, times the weights of examples."""
    make = LOSSES[loss][0] if loss in LOSSES else lambda: of_answers(1)
    label = ANSWERS if len(count) == 2 else LABELS
    balanced = 90 / (len(count) * count)
    assert (balanced * count).round(6).tolist() == [90 / len(count)] * len(count)
    dicts = [({np.int64(1): 3}, [1, 3, 1]), ({0: 0.5, 1: 2}, [0.5, 2, 1])]
    for given, weight in (("balanced", balanced), *dicts):
        for options in ({}, {"sample_weight": WEIGHT}):
            found = parameters(make(), X, y, class_weight=given, **options)
            expected = np.array(weight)[label] * options.get("sample_weight", 1.0)
            assert found.tobytes() == parameters(make(), X, y, sample_weight=expected).tobytes()


def test_labels_that_do_not_occur_do_not_count_as_classes():
    balanced = parameters(layered([6, 5, 4]), X, ANSWERS, class_weight="balanced")
    weight = (90 / (2 * np.bincount(ANSWERS)))[ANSWERS]
    assert balanced.tobytes() == parameters(layered([6, 5, 4]), X, ANSWERS, sample_weight=weight).tobytes()


# --- evaluation -------------------------------------------------------------------------------------


@each_loss
def test_evaluate_gives_weighted_means(make, y):
    model = make()
    each = [model.evaluate(X[[i]], y[[i]]) for i in range(90)]
    found = model.evaluate(X, y, sample_weight=WEIGHT)
    assert found.keys() == each[0].keys()
    for name, value in found.items():
        assert value == pytest.approx(np.average([one[name] for one in each], weights=WEIGHT), rel=1e-6)
    assert model.evaluate(X, y, sample_weight=np.full(90, 7)) == pytest.approx(model.evaluate(X, y), rel=1e-7)


def test_evaluate_leaves_out_what_has_weight_0():
    net, x = layered([6, 5, 3]), X.copy()
    x[COUNTS == 0] = np.nan
    assert net.evaluate(x, LABELS, sample_weight=WEIGHT) == net.evaluate(X, LABELS, sample_weight=WEIGHT)


def test_validation_may_have_weights():
    net = layered([6, 5, 3])
    history = net.fit(X, LABELS, epochs=2, class_weight={0: 9}, validation_data=(X, LABELS, WEIGHT))
    found = net.evaluate(X, LABELS, sample_weight=WEIGHT)
    assert {name: getattr(history, f"validation_{name}")[-1] for name in found} == found


@pytest.mark.filterwarnings("ignore:the numbers in column")
def test_a_validation_split_takes_the_weights_along():
    """What is held out is evaluated with its weights; the rest is trained with its own."""
    net, marked = layered([6, 5, 3]), np.where(COUNTS > 0, 1.0, 1e-6)
    x = np.where(COUNTS[:, None] > 0, X, 100 * X)  # huge losses of tiny weights
    history = net.fit(x, SOFT, epochs=1, validation_split=0.4, sample_weight=marked)
    others = np.sort(np.random.default_rng(90).permutation(90)[:36])
    found = net.evaluate(x[others], SOFT[others], sample_weight=marked[others])
    assert {name: getattr(history, f"validation_{name}")[-1] for name in found} == found
    with pytest.raises(ValueError, match=r"^sample_weight: expected shape \(90,\)"):
        net.fit(x, SOFT, validation_split=0.4, sample_weight=marked[1:])


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (WEIGHT[1:], r"expected shape \(90,\), a weight for each example, got \(89,\)$"),
        (WEIGHT[:, None], r"expected shape \(90,\), .* got \(90, 1\); {what}.ravel\(\) has that shape$"),
        (1.0, r"expected shape \(90,\), a weight for each example, got \(\)$"),
        (np.where(np.arange(90) == 7, -1, 1), "expected finite numbers of at least 0, got -1.0 in example 7$"),
        (np.where(np.arange(90) == 7, np.nan, 1), "expected finite numbers of at least 0, got nan in example 7$"),
        (np.where(np.arange(90) == 7, 1e39, 1), r"expected finite numbers of at least 0, got 1e\+39 in example 7$"),
        (np.zeros(90), "expected a weight above 0, got 0 for all 90 examples$"),
        (["a"] * 90, "expected numbers, got "),
    ],
)
def test_refused_weights(weight, message):
    """By each method; nothing has changed."""
    net, message = layered([6, 5, 3]), message.replace("{what}", "(validation )?sample_weight")
    before, history = net.graph.parameters.tobytes(), net.history
    for method, options in (
        (net.fit, {"sample_weight": weight}),
        (net.fit, {"validation_data": (X, LABELS, weight)}),
        (net.evaluate, {"sample_weight": weight}),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^(validation )?sample_weight: {message}"):
            method(X, LABELS, **options)
    assert net.graph.parameters.tobytes() == before and net.history is history


NO_LABELS = "class_weight: expected labels as y, got targets; use sample_weight$"


@pytest.mark.parametrize(
    ("loss", "class_weight", "message"),
    [
        ("softmax, labels", {3: 1}, "class_weight: expected labels from 0 to 2, got 3$"),
        ("softmax, labels", {"a": 1}, "class_weight: expected labels from 0 to 2, got 'a'$"),
        ("softmax, labels", {1: -1}, r"class_weight\[1\]: expected a finite number of at least 0, got -1$"),
        ("softmax, labels", {1: "2"}, r"class_weight\[1\]: expected a finite .*, got '2'$"),
        ("softmax, labels", {1: np.nan}, r"class_weight\[1\]: expected a finite .*, got nan$"),
        ("softmax, labels", [1, 2, 3], 'class_weight: expected a dict .* or "balanced", got '),
        ("softmax, labels", "equal", "class_weight: expected a dict .* got 'equal'$"),
        ("softmax, labels", {0: 0, 1: 0, 2: 0}, "sample_weight and class_weight: expected a weight above 0"),
        ("softmax, labels", {1: 3e38}, "sample_weight and class_weight: expected products that float32 can hold"),
        ("softmax, probabilities", {}, NO_LABELS),
        ("binary", "balanced", NO_LABELS),
        ("squared error", {0: 1}, NO_LABELS),
        ("node", {0: 1}, NO_LABELS),
    ],
)
def test_refused_weights_of_classes(loss, class_weight, message):
    make, y = LOSSES[loss]
    model = make()
    before = model.graph.parameters.tobytes()
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        model.fit(X, y, class_weight=class_weight, sample_weight=np.full(90, 10))
    assert model.graph.parameters.tobytes() == before


def test_a_loss_that_its_weight_makes_infinite_is_reported_with_it():
    net, weight = layered([6, 5, 3], last="identity"), np.ones(90)
    weight[4] = 3e38
    with pytest.raises(mlgraph.NonFiniteError, match=r"example 4 .* its target 100, its weight 3e\+38"):
        net.fit(X, np.full((90, 3), 100), sample_weight=weight, shuffle=False)
    history = net.fit(X, SOFT * 100, sample_weight=weight, epochs=1, on_nonfinite="skip")
    assert set(history.nonfinite_example) == {4} and np.isfinite(net.graph.get_parameters()).all()


# --- checkpoints ------------------------------------------------------------------------------------


def test_a_run_resumes_with_the_same_weights_only(tmp_path):
    def stop(progress):
        if progress.kind == "epoch" and progress.epoch == 1:
            raise KeyboardInterrupt

    options = {"epochs": 4, "sample_weight": WEIGHT, "class_weight": "balanced", "seed": 1}
    options |= {"validation_data": (X, LABELS, WEIGHT), "batch_size": 32, "learning_rate": 0.01}
    make, path = LOSSES["softmax, labels"][0], tmp_path / "run"
    whole, half = make(), make()
    whole.fit(X, LABELS, **options)
    with pytest.raises(KeyboardInterrupt):
        half.fit(X, LABELS, **options, checkpoint=path, callbacks=[stop])
    others = {"sample_weight": None, "class_weight": None, "validation_data": (X, LABELS)}
    for name, other in others.items():
        what = "validation data" if name == "validation_data" else "data"
        with pytest.raises(mlgraph.CheckpointError, match=f"the {what} changed$"):
            make().fit(X, LABELS, **{**options, name: other}, checkpoint=path, resume=True)
    resumed = make()
    resumed.fit(X, LABELS, **options, checkpoint=path, resume=True)
    assert resumed.graph.get_parameters().tobytes() == whole.graph.get_parameters().tobytes()
