"""Frames and columns of pandas and polars: any dtypes of numbers are read, and gaps are refused by name and count."""

import numpy as np
import pytest
from learnable import bits

import mlgraph

pandas = pytest.importorskip("pandas")

WAY = "fill them, as fillna of pandas does, or leave these rows out, as dropna does"
Y = [0, 1, 2, 0, 1, 2]


def column(values, dtype):
    return pandas.array(values, dtype=dtype)


def frame(**columns):
    return pandas.DataFrame(columns)


def fitted(x, y=Y, **options):
    net = mlgraph.Network(np.shape(x)[1], seed=0)
    net.add_layer(3, "softmax")
    net.fit(x, y, epochs=3, seed=1, **options)
    return net


TOWNS = frame(age=[1.5, 2, 3, 4, 5, 6], town=list("ababcc"))
WHOLE = [1, 2, 3, 4, 5, 60]


@pytest.mark.parametrize(
    "table",
    [
        pandas.get_dummies(TOWNS),
        pandas.get_dummies(TOWNS, sparse=True),
        pandas.get_dummies(TOWNS.town),
        pandas.get_dummies(frame(age=np.arange(6), town=list("ababcc"))),
        frame(a=column(WHOLE, "Int64"), b=column(WHOLE, "UInt16")),
        frame(a=column(WHOLE, "Int64"), b=[0.5] * 6, c=[True, False] * 3),
        frame(a=column([0.5] * 6, "Float32"), b=column([True, False] * 3, "boolean")),
        frame(a=column([True, False] * 3, "boolean"), b=column([False] * 6, "boolean")),
    ],
)
def test_a_frame_of_numbers_of_any_dtypes_is_read(table):
    net, same = fitted(table), fitted(table.astype(float))
    assert bits(net) == bits(same)
    np.testing.assert_array_equal(net.forward(table), same.forward(table.to_numpy(float)))
    assert net.evaluate(table.iloc[:, ::-1], Y) == same.evaluate(table.astype(float), Y)
    assert net.columns == tuple(table.columns)


def test_nullable_bytes_are_bytes():
    """Those above 1 are divided by 255, as those of numpy are."""
    table = frame(a=column([0, 255, 3, 4, 5, 6], "UInt8"), b=[True, False] * 3)
    assert fitted(table).scaling == "bytes"


@pytest.mark.parametrize("dtype", ["Int64", "UInt8", "boolean"])
def test_nullable_columns_are_labels_and_weights(dtype):
    numbers = [0, 1, 1, 0, 1, 0]
    x, y = np.arange(12.0).reshape(6, 2), column(numbers, dtype)
    expected = bits(fitted(x, numbers))
    for labels in (y, pandas.Series(y), frame(y=y)):
        assert bits(fitted(x, labels)) == expected
    weighted = bits(fitted(x, sample_weight=numbers))
    assert dtype == "boolean" or bits(fitted(x, sample_weight=pandas.Series(y))) == weighted != bits(fitted(x))


@pytest.mark.parametrize(
    ("table", "gaps"),
    [
        (frame(a=[0.5] * 6, size=column([1, None, 3, None, 5, 6], "Int64")), "2 in column 1 'size'"),
        (frame(size=column([None, 0.5] * 3, "Float64"), b=[True] * 6), "3 in column 0 'size'"),
        (
            frame(size=column([None, True] * 3, "boolean"), a=[1] * 6, town=column([None] + [1] * 5, "Int8")),
            "3 in column 0 'size', 1 in column 2 'town'",
        ),
        (frame(size=np.array([0.5, None] * 3, object), b=[True] * 6), "3 in column 0 'size'"),
        (
            frame(**{f"c{i}": column([1, None] * 3, "Int64") for i in range(9)}),
            "3 in column 0 'c0', .*, 3 in column 4 'c4' and more in 4 other columns",
        ),
        ([[0.5, None], [True, 2]] * 3, "3 in column 1"),
    ],
)
def test_gaps_are_refused_by_column_and_count(table, gaps):
    net = fitted(np.zeros(np.shape(table)))
    before = bits(net)
    for use in (net.predict, net.forward, lambda x: net.fit(x, Y), lambda x: net.evaluate(x, Y)):
        with pytest.raises(TypeError, match=f"^x: expected numbers, got gaps: {gaps}; {WAY}$"):
            use(table)
    assert bits(net) == before


@pytest.mark.parametrize("make", [lambda y: y, pandas.Series, lambda y: [1, None] * 3])
def test_gaps_in_labels_and_weights_are_refused_by_their_count(make):
    gaps, x = make(column([1, None] * 3, "Int64")), np.zeros((6, 2))
    with pytest.raises(TypeError, match=f"^y: expected numbers, got gaps: 3, the first in row 1; {WAY}$"):
        fitted(x, gaps)
    with pytest.raises(TypeError, match=f"^sample_weight: expected numbers, got gaps: 3, the first in row 1; {WAY}$"):
        fitted(x, sample_weight=gaps)


def test_labels_that_are_nan_are_counted():
    with pytest.raises(
        ValueError, match=r"^y: expected labels, got nan in example 2, 2 in all; leave out the examples"
    ):
        fitted(np.zeros((6, 2)), [0, 1, np.nan, 0, np.nan, 1])


def test_nan_is_counted_by_column():
    """It is a number of a dtype without gaps: `forward` gives what follows from it, and `fit` refuses it."""
    table = frame(a=[0.5] * 6, size=[1, np.nan, 3, np.nan, np.inf, 6], b=[True] * 6)
    message = r"^x: expected finite numbers .* nan in example 1, column 1 \(size\), and 2 more in this column$"
    with pytest.raises(ValueError, match=message):
        fitted(table)
    assert np.isnan(fitted(table.fillna(0).clip(-9, 9)).forward(table)[[1, 3]]).all()


def test_frames_of_polars_are_read_and_their_gaps_refused():
    polars = pytest.importorskip("polars")
    table = {"age": [1.5, 2, 3, 4, 5, 6], "town": [True, False] * 3, "size": WHOLE}
    assert bits(fitted(polars.DataFrame(table))) == bits(fitted(frame(**table)))
    table["size"] = [1, None, 3, None, 5, 6]
    with pytest.raises(ValueError, match=r"^x: .* got nan in example 1, column 2 \(size\), and 1 more in this column$"):
        fitted(polars.DataFrame(table))
    table = {"a": [True, None] * 3, "b": [True, False] * 3}
    with pytest.raises(TypeError, match=f"^x: expected numbers, got gaps: 3 in column 0 'a'; {WAY}$"):
        fitted(polars.DataFrame(table))
    with pytest.raises(ValueError, match=r"^y: expected labels, got nan in example 1, 3 in all"):
        fitted(np.zeros((6, 2)), polars.Series([0, None] * 3))
