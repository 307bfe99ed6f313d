"""Data in every form: what is read alike, and what is refused."""

import numpy as np
import pytest
from learnable import CLASSES, FLOATS, INF, INPUTS, NAN, TARGETS, X, Y, bits, network


def strided(x):
    wide = np.zeros((2 * len(x), 3 * x.shape[1]), x.dtype)
    wide[::2, ::3] = x
    return wide[::2, ::3]


def read_only(x):
    copy = x.copy()
    copy.flags.writeable = False
    return copy


FORMS = {
    "uint8": lambda x: x,
    "float32": lambda x: (x / 255).astype(np.float32),
    "float64": lambda x: x / 255,
    "longdouble": lambda x: x / np.longdouble(255),
    "big-endian": lambda x: (x / 255).astype(">f4"),
    "Fortran order": lambda x: np.asfortranarray(x / 255),
    "Fortran order of bytes": np.asfortranarray,
    "strided": lambda x: strided(x / 255),
    "strided bytes": strided,
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "read-only": lambda x: read_only(x / 255),
    "read-only bytes": read_only,
    "lists": lambda x: (x / 255).tolist(),
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
    assert net.forward(none).shape == net.predict_proba(none).shape == (0, CLASSES) and net.predict(none).shape == (0,)


def changed(array, at, value):
    copy = np.array(array)
    copy[at] = value
    return copy


BAD = {
    "columns": ((X[:, 1:], Y), ValueError, r"x: expected shape \(examples, 12\), came \(200, 11\)"),
    "one row": ((X[0], Y), ValueError, r"x: expected shape \(examples, 12\), came \(12,\)"),
    "three dimensions": ((X[None], Y), ValueError, r"x: expected shape \(examples, 12\), came \(1, 200, 12\)"),
    "text": ((X.astype(str), Y), TypeError, "x: expected numbers, came an array of <U3"),
    "complex": ((X * 1j, Y), TypeError, "x: expected numbers, came an array of complex128"),
    "objects": ((X.astype(object), Y), TypeError, "x: expected numbers, came an array of object; astype.float. may make"),
    "nothing": ((None, Y), TypeError, "x: expected numbers, came None"),
    "ragged": (([[1.0], [1.0, 2.0]], Y), TypeError, "x: expected an array of numbers, came rows of different lengths"),
    "no examples": ((X[:0], Y[:0]), ValueError, "x: expected at least one example, came none"),
    "labels missing": ((X, Y[:-1]), ValueError, "y: expected 200 labels, one for each example, came 199"),
    "label too high": ((X, changed(Y, 9, 3)), ValueError, "y: expected labels from 0 to 2, came 0 to 3"),
    "label too low": ((X, changed(Y, 9, -1)), ValueError, "y: expected labels from 0 to 2, came -1 to 2"),
    "huge label": ((X, changed(Y.astype(np.uint64), 9, 2**63)), ValueError, "y: expected labels from 0 to 2, came 0 to 9223"),
    "float labels": ((X, Y.astype(float)), ValueError, r"y: expected integer labels of shape \(200,\) or .*, came float64"),
    "labels in rows": ((X, TARGETS[:, :2]), ValueError, r"y: expected integer labels .* or targets of shape \(200, 3\), came"),
    "negative targets": ((X, -TARGETS), ValueError, "y: expected targets of at least 0, came -1.0 in example 0, output "),
    "labels of text": ((X, Y.astype(str)), TypeError, "y: expected numbers, came texts; np.unique"),
    "no labels": ((X,), ValueError, "y: expected labels or targets of 200 examples, came none"),
}  # fmt: skip

BAD_TO_FIT = {
    "NaN": ((changed(FLOATS, (7, 5), NAN), Y), "x: expected finite numbers that .*, came nan in example 7, column 5"),
    "both infinities": ((changed(FLOATS, (7, [5, 6]), [INF, -INF]), Y), "x: .* came inf in example 7, column 5"),
    "beyond float32": ((changed(X / 255, (7, 5), 1e39), Y), "x: .* came inf in example 7, column 5"),
}

BAD_OPTIONS = {
    "epochs": (0, 1.5, "epochs: expected an integer of at least 1"),
    "batch_size": (0, 1.5, (1, 2, 3), 2**63, "batch_size: expected one or two ints, from 1 to below"),
    "learning_rate": (-0.1, NAN, INF, 1e39, (0.1, "a"), "learning_rate: expected one or two floats, from 0 to below 3.40282e"),
    "momentum": (1, -0.1, NAN, "momentum: expected a number from 0 to below 1"),
    "weight_decay": (-1e-9, NAN, INF, 10**400, True, "0.1", 20.1,
                     "weight_decay: expected a number from 0 to 1 / learning_rate, 20, came"),
    "optimizer": ("lion", "optimizer: expected sgd or adam, came 'lion'"),
    "on_nonfinite": ("ignore", None, "on_nonfinite: expected one of raise, skip, disconnect, came"),
    "seed": (-1, 0.5, "seed: expected an integer of at least 0"),
    "n_threads": (0, 1.5, "n_threads: expected an integer of at least 1"),
    "validation": ((X[:, 1:], Y), r"validation x: expected shape \(examples, 12\)"),
}
BAD_OPTIONS_ONE_BY_ONE = [(name, value, message) for name, (*values, message) in BAD_OPTIONS.items() for value in values]
MORE_BAD_VALIDATIONS = [
    ("validation", (X[:0], Y[:0]), "validation x: expected at least one example, came none"),
    ("validation", (X, Y + 1), "validation y: expected labels from 0 to 2, came 1 to 3"),
    ("validation", (X * NAN, Y), "validation x: expected finite numbers that .*, came nan in example 0, column 0"),
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
    assert not np.isfinite(trained.forward(data[0])[7]).all() and np.isfinite(np.delete(trained.forward(data[0]), 7, 0)).all()


@pytest.mark.parametrize(("name", "value", "message"), BAD_OPTIONS_ONE_BY_ONE + MORE_BAD_VALIDATIONS)
def test_bad_options(trained, name, value, message):
    with pytest.raises(ValueError, match=message):
        trained.fit(X, Y, **{name: value})


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (TARGETS[:, :2], ValueError, r"y: expected shape \(200, 3\), came \(200, 2\)"),
        (TARGETS[:-1], ValueError, r"y: expected shape \(200, 3\), came \(199, 3\)"),
        (Y / 1, ValueError, r"y: expected shape \(200, 3\), came \(200,\)"),
        (changed(TARGETS / 1, (9, 2), NAN), ValueError, "y: expected finite .* hold, came nan in example 9, output 2"),
        (TARGETS.astype(float) * 1e39, ValueError, "y: expected finite .* hold, came 1e\\+39 in example 0, output 2"),
        (TARGETS * 1j, TypeError, "y: expected numbers, came an array of complex64"),
    ],
)
def test_bad_targets(targets, error, message):
    net = network("tanh")
    before = bits(net)
    with pytest.raises(error, match=message):
        net.fit(X, targets)
    assert bits(net) == before


def test_a_warning_points_at_who_called_fit():
    net = network()
    with pytest.warns(UserWarning, match="bytes are read as byte / 255") as told:
        net.fit((X > 200).astype(np.uint8), Y, epochs=1)
    assert [warning.filename for warning in told] == [__file__]
