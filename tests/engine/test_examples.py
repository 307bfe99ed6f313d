"""Data in every form: which forms are equivalent, and which are refused with which error."""

import re

import numpy as np
import pytest
from learnable import CLASSES, FLOATS, INF, INPUTS, NAN, X, Y, bits, network

import mlgraph


def changed(array, at, value):
    copy = np.array(array)
    copy[at] = value
    return copy


def read_only(x):
    copy = x.copy()
    copy.flags.writeable = False
    return copy


FORMS = {  # tests/models/test_arguments.py has more forms of floats
    "float32": lambda x: (x / 255).astype(np.float32),
    "float64": lambda x: x / 255,
    "Fortran order of bytes": np.asfortranarray,
    "strided bytes": lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "read-only bytes": read_only,
}


@pytest.mark.parametrize("form", FORMS)
def test_bytes_are_fractions_of_255_in_any_memory_layout(form):
    net, expected, data = network(), network(), FORMS[form](X)
    np.testing.assert_allclose(net.forward(data), expected.forward(X), rtol=1e-6, atol=1e-7)
    net.fit(data, Y, epochs=1, batch_size=30)
    expected.fit(X, Y, epochs=1, batch_size=30)
    np.testing.assert_allclose(net.graph.parameters, expected.graph.parameters, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(data, FORMS[form](X))


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
    """An object that converts itself to an array, or cannot."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        if isinstance(self.array, Exception):
            raise self.array
        return self.array


@pytest.fixture
def trained():
    """A trained network; after the test it must be unchanged."""
    net = network()
    history = net.fit(X, Y, epochs=1, optimizer="sgd")
    before, velocity = bits(net), net.graph.storage.state["first"].copy()
    yield net
    assert bits(net) == before and net.history is history
    assert list(net.graph.storage.state) == ["first"]
    np.testing.assert_array_equal(net.graph.storage.state["first"], velocity)


MASKED = np.ma.array(X, mask=X > 100)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X[:, 1:], ValueError, r"expected shape \(examples, 12\), got \(200, 11\)"),
        (X[0], ValueError, r"expected shape \(examples, 12\), got \(12,\); one example is x\[None\] or \[x\]$"),
        (X[0].reshape(3, 4), ValueError, r"expected .*, got \(3, 4\); one example is x.reshape\(1, -1\)$"),
        (X.reshape(-1, 3, 4), ValueError, r"expected .*, got \(200, 3, 4\); x.reshape\(len\(x\), -1\) has that shape"),
        (X[0, 1:], ValueError, r"expected shape \(examples, 12\), got \(11,\)$"),
        (X.astype(str), TypeError, "expected numbers, got an array of <U3"),
        (X * 1j, TypeError, "expected numbers, got an array of complex128"),
        (X.astype(object), TypeError, "expected numbers, got an array of object; astype.float. may make"),
        (None, TypeError, "expected numbers, got None"),
        (MASKED, TypeError, "expected numbers, got an array .*mask"),
        ([*X[1:], MASKED[0]], TypeError, "expected numbers, got an array .*mask"),
        ([[1.0], [1.0, 2.0]], TypeError, "expected an array of numbers, got rows of different lengths"),
    ],
)
def test_refused_data(trained, x, error, message):
    for method in (trained.fit, trained.evaluate):
        with pytest.raises(error, match=f"^x: {message}"):
            method(x, Y)


@pytest.mark.parametrize("x", [np.arange(5.0), 3.0])
def test_numbers_for_a_model_of_one_input(x):
    net = mlgraph.Network(1, seed=0)
    net.add_layer(1)
    with pytest.raises(ValueError, match=r"^x: .*; examples of one number are np.reshape\(x, \(-1, 1\)\)$"):
        net.predict(x)
    assert net.predict(np.reshape(x, (-1, 1))).shape == (np.size(x),)


# --- sparse matrices ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csr_array", "csr_matrix", "csc_array", "coo_array", "lil_matrix", "dok_array"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int64, bool])
def test_sparse_matrices(form, dtype):
    sparse = pytest.importorskip("scipy.sparse")
    x = (X if dtype == np.uint8 else X % 200).astype(dtype)
    rows, nets = getattr(sparse, form)(x), []
    for given in (x, rows):
        net = network()
        net.fit(given, Y, epochs=2, seed=0, learning_rate=1e-3, validation_data=(given, Y))
        nets.append(net)
    assert bits(nets[0]) == bits(nets[1]) and nets[0].scaling == nets[1].scaling
    net = nets[1]
    for read in (net.predict, net.forward, lambda x: net.trace(x).values, lambda x: net.inspect(x, Y).tobytes()):
        np.testing.assert_array_equal(read(rows), read(x))
    assert net.evaluate(rows, Y) == net.evaluate(x, Y)
    function = net.graph.compile(net.outputs)
    np.testing.assert_array_equal(function(rows), function(x))


def test_sparse_matrices_that_are_refused():
    sparse = pytest.importorskip("scipy.sparse")
    net = network()
    for x, error, message in (
        (sparse.csr_array(X[:, 1:]), ValueError, r"x: expected shape \(examples, 12\), got \(200, 11\)"),
        (sparse.csr_array(X * 1j), TypeError, "x: expected numbers, got an array of complex128"),
        (sparse.csr_array((8, 2**45)), MemoryError, "x: the sparse matrix of .* takes .* GB as an array; pass fewer"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            net.predict(x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (changed(FLOATS, (7, 5), NAN), "got nan in example 7, column 5"),
        (changed(FLOATS, (7, [5, 6]), [-INF, INF]), "got -inf in example 7, column 5"),
        (changed(X / 255, (7, 5), 1e39), r"got inf \(as float32\) in example 7, column 5"),
    ],
)
def test_fit_refuses_data_that_are_not_finite(trained, x, message):
    """Predictions accept them; they spoil their own example only."""
    trained.scaling = "unscaled"
    with pytest.raises(ValueError, match=f"^x: expected finite numbers that .*{message}"):
        trained.fit(x, Y)
    assert np.flatnonzero(~np.isfinite(trained.forward(x)).all(axis=1)).tolist() == [7]


@pytest.mark.parametrize(
    ("options", "message"),
    [  # tests/models/test_arguments.py has other wrong values of each
        ({"momentum": 0.99999998, "optimizer": "adam"}, r"momentum: Adam needs .* float32, got 0\.99999998"),
        (
            {"weight_decay": 20.1, "learning_rate": 0.05},
            "weight_decay: expected a number from 0 to 1 / learning_rate, 20, got",
        ),
        ({"optimizer": "lion"}, "optimizer: expected sgd or adam, got 'lion'"),
        ({"validation_data": (X[:0], Y[:0])}, "validation x: expected at least one example, got none"),
        ({"validation_data": (X, Y + 1)}, "validation y: expected labels from 0 to 2, got 1 to 3"),
        (
            {"validation_data": (X * NAN, Y)},
            "validation x: expected finite numbers that .*, got nan in example 0, column 0",
        ),
        ({"x": X[:0], "y": Y[:0]}, "x: expected at least one example, got none"),
    ],
)
def test_refused_options(trained, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        trained.fit(**{"x": X, "y": Y, **options})


def test_unit_warnings_name_the_data_and_the_line_that_called():
    net, whole = network(), np.where(X > 200, 255, X.astype(int))
    for message, call in (
        ("x: whole numbers from 0 to 255", lambda: net.fit(whole, Y, epochs=1, learning_rate=1e-6)),
        ("validation x: whole numbers", lambda: net.fit(FLOATS, Y, epochs=1, validation_data=(whole, Y))),
        ("x: whole numbers", lambda: net.predict(X[:1])),
        ("x: whole numbers", lambda: net.predict(whole)),
        ("x: whole numbers", lambda: net.forward(whole)),
        ("x: whole numbers", lambda: net.evaluate(whole, Y)),
    ):
        with pytest.warns(UserWarning, match=f"^{message}") as warned:
            call()
        assert [warning.filename for warning in warned] == [__file__]


def test_floats_in_other_units_cause_no_warning(recwarn):
    net, x = network(), np.where(X > 200, 255, X.astype(np.float32))
    for other in (x / 255, np.minimum(x, 254), x + 1, np.where(x < 9, 0.5, x), np.where(x == 0, -1, x), x[:0]):
        net.predict(other.astype(np.float32))
    assert not recwarn


@pytest.mark.parametrize(
    "error",
    [  # as PyTorch, JAX and h5py put it
        RuntimeError("Can't call numpy() on Tensor that requires grad.\nUse detach"),
        TypeError("can't convert cuda:0 device type tensor to numpy."),
        ValueError("Not a dataset (not a dataset)"),
    ],
)
def test_an_object_that_cannot_become_an_array_says_why(error):
    net, tensor = network(), Wrapped(error)
    reason = re.escape(str(error).partition("\n")[0])
    with pytest.raises(TypeError, match=f"^x: expected an array of numbers, got Wrapped: {reason}$"):
        net.predict(tensor)
    with pytest.raises(TypeError, match=f"^prune: source: expected an array of numbers, got Wrapped: {reason}$"):
        net.graph.prune(mlgraph.Edges(tensor, [0], [0.0]))
    if not isinstance(error, ValueError):  # numpy raises this for a list, with a reason of its own
        with pytest.raises(TypeError, match=f"^x: expected an array of numbers, got list: {reason}$"):
            net.predict([tensor])


class Frame:
    """As a frame of pandas or polars: an array of objects with names of columns."""

    def __init__(self, last, names=("size", "colour")):
        self.rows = np.array([[1.5, 2], [2.5, last]], object)
        self.columns = names

    def __array__(self, *_, **__):
        return self.rows


WAY = "encode the column as numbers, as pandas.get_dummies does, or leave it out"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (Frame("red"), f"'red' in row 1 of column 1 'colour'; {WAY}"),
        (
            Frame(object),
            "<class 'object'> in row 1 of column 1 'colour'; convert the column to numbers or leave it out",
        ),
        (Frame("red", range(2)), f"'red' in row 1 of column 1; {WAY}"),
        (Frame("red").rows, f"'red' in row 1 of column 1; {WAY}"),
        ([[1.5, 2], [2.5, "red"]], f"'red' in row 1 of column 1; {WAY}"),
        (Frame("3"), r"an array of object; astype\(\w+\) .*may make them numbers"),
    ],
)
def test_a_column_without_numbers_is_named(table, message):
    net = mlgraph.Network(2, seed=0)
    net.add_layer(2)
    for data in ((table, [0, 1]), ([[1, 2], [3, 4]], table)):
        with pytest.raises(TypeError, match=f"^[xy]: expected numbers, got {message}$"):
            net.fit(*data)
