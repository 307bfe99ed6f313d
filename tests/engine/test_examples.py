"""Data in every form: what is read alike, and what is refused."""

import re

import numpy as np
import pytest
from learnable import CLASSES, FLOATS, INF, INPUTS, NAN, TARGETS, X, Y, bits, network

import mlgraph
from mlgraph.engine.examples import Examples


def strided(x):
    wide = np.zeros((2 * len(x), 3 * x.shape[1]), x.dtype)
    wide[::2, ::3] = x
    return wide[::2, ::3]


def read_only(x):
    copy = x.copy()
    copy.flags.writeable = False
    return copy


FORMS = {  # those of floats are in tests/test_misuse.py
    "uint8": lambda x: x,
    "float32": lambda x: (x / 255).astype(np.float32),
    "float64": lambda x: x / 255,
    "Fortran order of bytes": np.asfortranarray,
    "strided bytes": strided,
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "read-only bytes": read_only,
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_data(form):
    """Bytes are shares of 255 in float32, whatever the data look like in memory."""
    net, expected = network(), network()
    data = FORMS[form](X)
    np.testing.assert_allclose(net.forward(data), expected.forward(FLOATS), rtol=1e-6, atol=1e-7)
    net.fit(data, Y, epochs=1, batch_size=30)
    expected.fit(FLOATS, Y, epochs=1, batch_size=30)
    np.testing.assert_allclose(net.graph.parameters, expected.graph.parameters, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(np.asarray(data), FORMS[form](X))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float16])
def test_numbers_of_any_type(dtype):
    x = (X > 100).astype(dtype)
    np.testing.assert_array_equal(network().forward(x), network().forward(x.astype(np.float32)))


@pytest.mark.parametrize("form", [np.uint8, np.uint64, list, read_only, lambda y: np.repeat(y, 2)[::2]])
def test_forms_of_labels(form):
    labels = Y.astype(form) if form in (np.uint8, np.uint64) else form(Y)
    assert network().evaluate(X, labels) == network().evaluate(X, Y)


def test_no_examples_have_no_values():
    net, none = network(), np.zeros((0, INPUTS))
    with pytest.raises(TypeError, match=r"^n_threads: expected an integer"):
        net.forward(none, n_threads="x")
    assert net.forward(none).shape == net.predict_proba(none).shape == (0, CLASSES) and net.predict(none).shape == (0,)


class Wrapped:
    """What numpy asks for its array."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def changed(array, at, value):
    copy = np.array(array)
    copy[at] = value
    return copy


BAD = {
    "columns": ((X[:, 1:], Y), ValueError, r"x: expected shape \(examples, 12\), got \(200, 11\)"),
    "one row": ((X[0], Y), ValueError, r"x: expected shape \(examples, 12\), got \(12,\); a single example is \[x\]"),
    "another row": ((X[0, 1:], Y), ValueError, r"x: expected shape \(examples, 12\), got \(11,\)$"),
    "three dimensions": ((X[None], Y), ValueError, r"x: expected shape \(examples, 12\), got \(1, 200, 12\)"),
    "text": ((X.astype(str), Y), TypeError, "x: expected numbers, got an array of <U3"),
    "complex": ((X * 1j, Y), TypeError, "x: expected numbers, got an array of complex128"),
    "objects": (
        (X.astype(object), Y),
        TypeError,
        "x: expected numbers, got an array of object; astype.float. may make",
    ),
    "nothing": ((None, Y), TypeError, "x: expected numbers, got None"),
    "masked": (
        (np.ma.array(X, mask=X > 100), Y),
        TypeError,
        "x: expected numbers, got an array that masks some of them",
    ),
    "masked row": (
        ([*X[1:], np.ma.array(X[0], mask=X[0] > 0)], Y),
        TypeError,
        "x: expected numbers, got an array that masks",
    ),
    "masked inside": (
        (Wrapped(np.ma.array(X, mask=X > 100)), Y),
        TypeError,
        "x: expected numbers, got an array that masks",
    ),
    "ragged": (([[1.0], [1.0, 2.0]], Y), TypeError, "x: expected an array of numbers, got rows of different lengths"),
    "no examples": ((X[:0], Y[:0]), ValueError, "x: expected at least one example, got none"),
    "labels missing": ((X, Y[:-1]), ValueError, "y: expected 200 labels, one for each example, got 199"),
    "label too high": ((X, changed(Y, 9, 3)), ValueError, "y: expected labels from 0 to 2, got 0 to 3"),
    "label too low": ((X, changed(Y, 9, -1)), ValueError, "y: expected labels from 0 to 2, got -1 to 2"),
    "huge label": (
        (X, changed(Y.astype(np.uint64), 9, 2**63)),
        ValueError,
        "y: expected labels from 0 to 2, got 0 to 9223",
    ),
    "float labels": (
        (X, Y.astype(float)),
        ValueError,
        r"y: expected integer labels of shape \(200,\) or .*, got float64",
    ),
    "labels in rows": (
        (X, TARGETS[:, :2]),
        ValueError,
        r"y: expected integer labels .* or targets of shape \(200, 3\), got",
    ),
    "negative targets": (
        (X, -TARGETS),
        ValueError,
        "y: expected targets of at least 0, got -1.0 in example 0, output ",
    ),
    "labels of text": ((X, Y.astype(str)), TypeError, "y: expected numbers, got texts; np.unique"),
    "no labels": ((X,), ValueError, "y: expected labels or targets of 200 examples, got none"),
}

BAD_TO_FIT = {
    "NaN": ((changed(FLOATS, (7, 5), NAN), Y), "x: expected finite numbers that .*, got nan in example 7, column 5"),
    "minus infinity": ((changed(FLOATS, (7, 5), -INF), Y), "x: .* got -inf in example 7, column 5"),
    "both infinities": ((changed(FLOATS, (7, [5, 6]), [INF, -INF]), Y), "x: .* got inf in example 7, column 5"),
    "beyond float32": ((changed(X / 255, (7, 5), 1e39), Y), r"x: .* got inf \(as float32\) in example 7, column 5"),
}

BAD_OPTIONS = {  # what else they may not be, tests/test_misuse.py knows
    "epochs": (0, "epochs: expected an integer of at least 1"),
    "batch_size": ((1, 2, 3), (8, 0), "batch_size: expected (an integer of at|one number or two)"),
    "learning_rate": (1e39, "learning_rate: expected a number from 0 to 3.40282e"),
    "momentum": (1, "momentum: expected a number from 0 to below 1"),
    "weight_decay": (20.1, "weight_decay: expected a number from 0 to 1 / learning_rate, 20, got"),
    "optimizer": ("lion", "optimizer: expected sgd or adam, got 'lion'"),
    "on_nonfinite": ("ignore", "on_nonfinite: expected one of raise, skip, disconnect, got"),
    "seed": (2**64, "seed: expected an integer of at most 18446744073709551615"),
    "n_threads": (1.5, "n_threads: expected an integer of at least 1"),
    "validation": ((X[:, 1:], Y), r"validation x: expected shape \(examples, 12\)"),
}
BAD_OPTIONS_ONE_BY_ONE = [
    (name, value, message) for name, (*values, message) in BAD_OPTIONS.items() for value in values
]
MORE_BAD_VALIDATIONS = [
    ("validation", (X[:0], Y[:0]), "validation x: expected at least one example, got none"),
    ("validation", (X, Y + 1), "validation y: expected labels from 0 to 2, got 1 to 3"),
    ("validation", (X * NAN, Y), "validation x: expected finite numbers that .*, got nan in example 0, column 0"),
]


@pytest.fixture
def trained():
    """A network that has learnt; at the end of the test it must be as it was."""
    net = network()
    history = net.fit(X, Y, epochs=1)
    before, state = bits(net), {name: vector.copy() for name, vector in net.graph.storage.state.items()}
    yield net
    assert bits(net) == before and net.history is history
    assert list(net.graph.storage.state) == list(state) == ["first"]
    np.testing.assert_array_equal(net.graph.storage.state["first"], state["first"])


@pytest.mark.parametrize("name", BAD)
def test_bad_data(trained, name):
    data, error, message = BAD[name]
    with pytest.raises(error, match=message):
        trained.fit(*data)
    with pytest.raises(error, match=message):
        trained.evaluate(data[0], data[1] if len(data) > 1 else ())


@pytest.mark.parametrize("name", BAD_TO_FIT)
def test_data_that_are_not_finite(trained, name):
    data, message = BAD_TO_FIT[name]
    with pytest.raises(ValueError, match=message):
        trained.fit(*data)
    assert (
        not np.isfinite(trained.forward(data[0])[7]).all()
        and np.isfinite(np.delete(trained.forward(data[0]), 7, 0)).all()
    )


@pytest.mark.parametrize(("name", "value", "message"), BAD_OPTIONS_ONE_BY_ONE + MORE_BAD_VALIDATIONS)
def test_bad_options(trained, name, value, message):
    with pytest.raises(TypeError if value == 1.5 else ValueError, match=message):
        trained.fit(X, Y, **{name: value})


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (TARGETS[:, :2], ValueError, r"y: expected shape \(200, 3\), got \(200, 2\)"),
        (TARGETS[:-1], ValueError, r"y: expected shape \(200, 3\), got \(199, 3\)"),
        (Y / 1, ValueError, r"y: expected shape \(200, 3\), got \(200,\)"),
        (changed(TARGETS / 1, (9, 2), NAN), ValueError, "y: expected finite .* hold, got nan in example 9, output 2"),
        (TARGETS.astype(float) * 1e39, ValueError, "y: expected finite .* hold, got 1e\\+39 in example 0, output 2"),
        (TARGETS * 1j, TypeError, "y: expected numbers, got an array of complex64"),
    ],
)
def test_bad_targets(targets, error, message):
    net = network("tanh")
    before = bits(net)
    with pytest.raises(error, match=message):
        net.fit(X, targets)
    assert bits(net) == before


def test_adam_with_a_momentum_that_float32_rounds_to_1(trained):
    with pytest.raises(
        ValueError, match=r"momentum: Adam needs a number that is below 1 in float32, got 0\.99999998"
    ):
        trained.fit(X, Y, optimizer="adam", momentum=0.99999998)


def test_a_warning_points_at_who_called_fit():
    net = network()
    bits = (X > 200).astype(np.uint8)
    for message, x, validation in (
        ("x: bytes are read as byte / 255", bits, (bits, Y)),
        ("validation x: bytes are read as byte / 255", bits.astype(float), (bits, Y)),
        ("x: these are whole numbers from 0 to 255", np.where(X > 200, 255.0, X), (X, Y)),
        ("validation x: these are whole numbers", X / 255, (np.where(X > 200, 255.0, X), Y)),
        ("validation x: bytes are read as byte / 255", X, (bits, Y)),
    ):
        with pytest.warns(UserWarning, match=f"^{message}") as told:
            net.fit(x, Y, epochs=1, learning_rate=1e-6, validation=validation)
        assert [warning.filename for warning in told] == [__file__]


@pytest.mark.parametrize("name", ["predict", "predict_proba", "forward"])
def test_who_predicts_is_warned_of_units_as_who_evaluates(name):
    net = network()
    net.fit(X, Y, epochs=1)
    with pytest.warns(UserWarning, match="^x: these are whole numbers from 0 to 255") as told:
        getattr(net, name)(np.where(X > 200, 255, X.astype(int)))
    assert [warning.filename for warning in told] == [__file__]


def test_a_caller_beside_the_package_is_outside():
    beside = mlgraph.__path__[0] + "_study/main.py"
    scope = {"net": network(), "x": np.where(X > 200, 255, X.astype(int))}
    with pytest.warns(UserWarning, match="^x: these are whole numbers") as told:
        exec(compile("net.predict(x)", beside, "exec"), scope)
    assert [warning.filename for warning in told] == [beside]


WITHOUT_ARRAY = {  # as PyTorch and JAX, and h5py say it
    "a gradient": RuntimeError("Can't call numpy() on Tensor that requires grad.\nUse detach"),
    "another device": TypeError("can't convert cuda:0 device type tensor to numpy."),
    "a closed file": ValueError("Not a dataset (not a dataset)"),
}


@pytest.mark.parametrize("error", WITHOUT_ARRAY.values(), ids=WITHOUT_ARRAY)
def test_what_gives_no_array_says_why(error):
    class Tensor:
        def __array__(self, *_, **__):
            raise error

    net, edges = network(), mlgraph.Edges(Tensor(), [0], [0.0])
    mistakes = {
        "x": lambda: net.predict(Tensor()),
        "y": lambda: net.evaluate(X, Tensor()),
        "weights": lambda: setattr(net.layers[0], "weights", Tensor()),
        "add_edges: source": lambda: net.graph.add_edges(edges),
        "prune: source": lambda: net.graph.prune(edges),
    }
    for name, call in mistakes.items():
        why = re.escape(str(error).partition("\n")[0])
        with pytest.raises(TypeError, match=f"^{name}: expected an array of numbers, got Tensor: {why}$"):
            call()
    if not isinstance(error, ValueError):  # for which numpy has another reason: rows of different lengths
        with pytest.raises(TypeError, match=f"^x: expected an array of numbers, got list: {why}$"):
            net.predict([Tensor()])


def test_targets_of_different_shapes_are_told():
    with pytest.raises(TypeError, match=r"^y: expected an array of numbers, got rows of different lengths$"):
        network().evaluate(X, [np.zeros((2, 1)), np.zeros((2, 2))])


def test_floats_of_other_units_are_not_warned_of(recwarn):
    x = np.where(X > 200, 255, X.astype(np.float32))
    for others in (x / 255, np.minimum(x, 254), x + 1, np.where(x < 9, 0.5, x), np.where(x == 0, -1, x), x[:0]):
        Examples(others.astype(np.float32), X.shape[1]).warn_of_units()
    assert not recwarn


@pytest.mark.parametrize("columns", [4, 7, 8, 30])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_density(columns, kind):
    """The share of runs of four columns of which one is not zero; what a mask has made -0 is zero."""
    rng = np.random.default_rng(columns)
    x = rng.integers(-3, 4, (50, columns)).astype(np.float32) * (rng.random((50, columns)) < 0.2)
    assert (np.signbit(x) & (x == 0)).any()
    x = np.abs(x).astype(np.uint8) if kind == np.uint8 else x
    runs = [(row[k : k + 4] != 0).any() for row in x for k in range(0, columns, 4)]
    assert Examples(x, columns).density == np.mean(runs)
    many = np.concatenate([x, np.zeros((550, columns), kind), x])  # a sample of all
    assert Examples(many, columns).density == pytest.approx(np.mean(runs) * 100 / 650, rel=0.2)
    assert Examples(np.zeros((3, columns), kind), columns).density == 0
    assert Examples(np.zeros((0, columns), kind), columns).density == 0
