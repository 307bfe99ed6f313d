"""Data in every form: which forms are equivalent, and which are refused with which error."""

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


FORMS = {  # tests/models/test_misuse.py has more forms of floats
    "uint8": lambda x: x,
    "float32": lambda x: (x / 255).astype(np.float32),
    "float64": lambda x: x / 255,
    "Fortran order of bytes": np.asfortranarray,
    "strided bytes": strided,
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "read-only bytes": read_only,
}


@pytest.mark.parametrize("form", FORMS)
def test_bytes_are_fractions_of_255_in_any_memory_layout(form):
    net, expected = network(), network()
    data = FORMS[form](X)
    np.testing.assert_allclose(net.forward(data), expected.forward(FLOATS), rtol=1e-6, atol=1e-7)
    net.fit(data, Y, epochs=1, batch_size=30)
    expected.fit(FLOATS, Y, epochs=1, batch_size=30)
    np.testing.assert_allclose(net.graph.parameters, expected.graph.parameters, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(np.asarray(data), FORMS[form](X))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float16])
def test_other_dtypes_are_read_as_numbers(dtype):
    x = (X > 100).astype(dtype)
    np.testing.assert_array_equal(network().forward(x), network().forward(x.astype(np.float32)))


@pytest.mark.parametrize("form", [np.uint8, np.uint64, list, read_only, lambda y: np.repeat(y, 2)[::2]])
def test_forms_of_labels(form):
    labels = Y.astype(form) if form in (np.uint8, np.uint64) else form(Y)
    assert network().evaluate(X, labels) == network().evaluate(X, Y)


def test_no_examples_give_empty_results():
    net, none = network(), np.zeros((0, INPUTS))
    assert net.forward(none).shape == net.predict_proba(none).shape == (0, CLASSES) and net.predict(none).shape == (0,)
    with pytest.raises(TypeError, match=r"^n_threads: expected an integer"):
        net.forward(none, n_threads="x")


class Wrapped:
    """An object that converts itself to an array."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def changed(array, at, value):
    copy = np.array(array)
    copy[at] = value
    return copy


MASKED = np.ma.array(X, mask=X > 100)
BAD_X = {
    "columns": (X[:, 1:], ValueError, r"expected shape \(examples, 12\), got \(200, 11\)"),
    "one row": (X[0], ValueError, r"expected shape \(examples, 12\), got \(12,\); a single example is \[x\]"),
    "another row": (X[0, 1:], ValueError, r"expected shape \(examples, 12\), got \(11,\)$"),
    "three dimensions": (X[None], ValueError, r"expected shape \(examples, 12\), got \(1, 200, 12\)"),
    "text": (X.astype(str), TypeError, "expected numbers, got an array of <U3"),
    "complex": (X * 1j, TypeError, "expected numbers, got an array of complex128"),
    "objects": (X.astype(object), TypeError, "expected numbers, got an array of object; astype.float. may make"),
    "nothing": (None, TypeError, "expected numbers, got None"),
    "masked": (MASKED, TypeError, "expected numbers, got an array .*mask"),
    "masked row": ([*X[1:], MASKED[0]], TypeError, "expected numbers, got an array .*mask"),
    "masked inside": (Wrapped(MASKED), TypeError, "expected numbers, got an array .*mask"),
    "ragged": ([[1.0], [1.0, 2.0]], TypeError, "expected an array of numbers, got rows of different lengths"),
}
BAD_Y = {
    "labels missing": (Y[:-1], ValueError, "expected 200 labels, one for each example, got 199"),
    "label too high": (changed(Y, 9, 3), ValueError, "expected labels from 0 to 2, got 0 to 3"),
    "label too low": (changed(Y, 9, -1), ValueError, "expected labels from 0 to 2, got -1 to 2"),
    "huge label": (changed(Y.astype(np.uint64), 9, 2**63), ValueError, "expected labels from 0 to 2, got 0 to 9223"),
    "float labels": (Y.astype(float), ValueError, r"expected integer labels of shape \(200,\) or .*, got float64"),
    "too few targets": (TARGETS[:, :2], ValueError, r"expected integer labels .* or targets of shape \(200, 3\), got"),
    "negative targets": (-TARGETS, ValueError, "expected targets of at least 0, got -1.0 in example 0, output "),
    "text": (Y.astype(str), TypeError, "expected numbers, got .*; np.unique"),
    "ragged": ([np.zeros((2, 1)), np.zeros((2, 2))], TypeError, "expected .*, got rows of different lengths$"),
    "none": ((), ValueError, "expected labels or targets of 200 examples, got none"),
}
BAD = {f"x: {name}": ("x", x, Y, *error) for name, (x, *error) in BAD_X.items()}
BAD |= {f"y: {name}": ("y", X, y, *error) for name, (y, *error) in BAD_Y.items()}

NOT_FINITE = {
    "NaN": (changed(FLOATS, (7, 5), NAN), "got nan in example 7, column 5"),
    "minus infinity": (changed(FLOATS, (7, 5), -INF), "got -inf in example 7, column 5"),
    "both infinities": (changed(FLOATS, (7, [5, 6]), [INF, -INF]), "got inf in example 7, column 5"),
    "beyond float32": (changed(X / 255, (7, 5), 1e39), r"got inf \(as float32\) in example 7, column 5"),
}

BAD_OPTIONS = [  # tests/models/test_misuse.py has other wrong values of each
    ("epochs", 0, "epochs: expected an integer of at least 1"),
    ("batch_size", (1, 2, 3), "batch_size: expected one number or two"),
    ("batch_size", (8, 0), "batch_size: expected an integer of at least 1"),
    ("learning_rate", 1e39, "learning_rate: expected a number from 0 to 3.40282e"),
    ("momentum", 1, "momentum: expected a number from 0 to below 1"),
    ("weight_decay", 20.1, "weight_decay: expected a number from 0 to 1 / learning_rate, 20, got"),
    ("optimizer", "lion", "optimizer: expected sgd or adam, got 'lion'"),
    ("on_nonfinite", "ignore", "on_nonfinite: expected one of raise, skip, disconnect, got"),
    ("seed", 2**64, "seed: expected an integer of at most 18446744073709551615"),
    ("n_threads", 0, "n_threads: expected an integer of at least 1"),
    ("validation", (X[:, 1:], Y), r"validation x: expected shape \(examples, 12\)"),
    ("validation", (X[:0], Y[:0]), "validation x: expected at least one example, got none"),
    ("validation", (X, Y + 1), "validation y: expected labels from 0 to 2, got 1 to 3"),
    ("validation", (X * NAN, Y), "validation x: expected finite numbers that .*, got nan in example 0, column 0"),
]


@pytest.fixture
def trained():
    """A trained network; after the test it must be unchanged."""
    net = network()
    history = net.fit(X, Y, epochs=1)
    before, state = bits(net), {name: vector.copy() for name, vector in net.graph.storage.state.items()}
    yield net
    assert bits(net) == before and net.history is history
    assert list(net.graph.storage.state) == list(state) == ["first"]
    np.testing.assert_array_equal(net.graph.storage.state["first"], state["first"])


@pytest.mark.parametrize("name", BAD)
def test_refused_data(trained, name):
    argument, x, y, error, message = BAD[name]
    for method in (trained.fit, trained.evaluate):
        with pytest.raises(error, match=f"^{argument}: {message}"):
            method(x, y)


def test_fit_needs_an_example(trained):
    with pytest.raises(ValueError, match=r"^x: expected at least one example, got none$"):
        trained.fit(X[:0], Y[:0])


@pytest.mark.parametrize("name", NOT_FINITE)
def test_fit_refuses_data_that_are_not_finite(trained, name):
    """Predictions accept them; they spoil their own example only."""
    x, message = NOT_FINITE[name]
    with pytest.raises(ValueError, match=f"^x: expected finite numbers that .*{message}"):
        trained.fit(x, Y)
    finite = np.isfinite(trained.forward(x)).all(axis=1)
    assert np.flatnonzero(~finite).tolist() == [7]


@pytest.mark.parametrize(("name", "value", "message"), BAD_OPTIONS)
def test_refused_options(trained, name, value, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        trained.fit(X, Y, **{name: value})


def test_adam_refuses_a_momentum_that_float32_rounds_to_1(trained):
    with pytest.raises(ValueError, match=r"^momentum: .*float32.* got 0\.99999998"):
        trained.fit(X, Y, optimizer="adam", momentum=0.99999998)


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
def test_refused_targets_of_the_squared_error(targets, error, message):
    net = network("tanh")
    before = bits(net)
    with pytest.raises(error, match=message):
        net.fit(X, targets)
    assert bits(net) == before


def test_unit_warnings_name_the_data_and_the_line_that_called_fit():
    net = network()
    ones = (X > 200).astype(np.uint8)
    whole = np.where(X > 200, 255, X.astype(int))
    for message, x, validation in (
        ("x: bytes are read as byte / 255", ones, (ones, Y)),
        ("validation x: bytes are read as byte / 255", X, (ones, Y)),
        ("x: whole numbers from 0 to 255", whole, (X, Y)),
        ("validation x: whole numbers", X / 255, (whole, Y)),
    ):
        with pytest.warns(UserWarning, match=f"^{message}") as warned:
            net.fit(x, Y, epochs=1, learning_rate=1e-6, validation=validation)
        assert [warning.filename for warning in warned] == [__file__]
    for predict in (net.predict, net.predict_proba, net.forward, lambda x: net.evaluate(x, Y)):
        with pytest.warns(UserWarning, match="^x: whole numbers from 0 to 255") as warned:
            predict(whole)
        assert [warning.filename for warning in warned] == [__file__]


def test_a_folder_whose_name_begins_like_the_package_is_outside_of_it():
    path = mlgraph.__path__[0] + "_study/main.py"
    scope = {"net": network(), "x": np.where(X > 200, 255, X.astype(int))}
    with pytest.warns(UserWarning, match="^x: whole numbers") as warned:
        exec(compile("net.predict(x)", path, "exec"), scope)
    assert [warning.filename for warning in warned] == [path]


def test_floats_in_other_units_cause_no_warning(recwarn):
    net, x = network(), np.where(X > 200, 255, X.astype(np.float32))
    for other in (x / 255, np.minimum(x, 254), x + 1, np.where(x < 9, 0.5, x), np.where(x == 0, -1, x), x[:0]):
        net.predict(other.astype(np.float32))
    assert not recwarn


WITHOUT_ARRAY = {  # as PyTorch, JAX and h5py put it
    "a gradient": RuntimeError("Can't call numpy() on Tensor that requires grad.\nUse detach"),
    "another device": TypeError("can't convert cuda:0 device type tensor to numpy."),
    "a closed file": ValueError("Not a dataset (not a dataset)"),
}


@pytest.mark.parametrize("error", WITHOUT_ARRAY.values(), ids=WITHOUT_ARRAY)
def test_an_object_that_cannot_become_an_array_says_why(error):
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
    reason = re.escape(str(error).partition("\n")[0])
    for name, call in mistakes.items():
        with pytest.raises(TypeError, match=f"^{name}: expected an array of numbers, got Tensor: {reason}$"):
            call()
    if not isinstance(error, ValueError):  # numpy raises this for a list, with a reason of its own
        with pytest.raises(TypeError, match=f"^x: expected an array of numbers, got list: {reason}$"):
            net.predict([Tensor()])


@pytest.mark.parametrize("columns", [4, 7, 8, 30])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_density_is_the_fraction_of_column_groups_that_are_not_all_zero(columns, kind):
    rng = np.random.default_rng(columns)
    x = rng.integers(-3, 4, (50, columns)).astype(np.float32) * (rng.random((50, columns)) < 0.2)
    assert (np.signbit(x) & (x == 0)).any()  # -0 is zero, too
    x = np.abs(x).astype(np.uint8) if kind == np.uint8 else x
    groups = [(row[k : k + 4] != 0).any() for row in x for k in range(0, columns, 4)]
    assert Examples(x, columns).density == np.mean(groups)
    many = np.concatenate([x, np.zeros((550, columns), kind), x])  # so many that only a sample is read
    assert Examples(many, columns).density == pytest.approx(np.mean(groups) * 100 / 650, rel=0.2)
    for n in (0, 3):
        assert Examples(np.zeros((n, columns), kind), columns).density == 0
