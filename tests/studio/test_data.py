"""Data of one's own in the studio: what files may hold, and what is said about those that cannot be learnt from."""

import csv
import io
import struct
import zipfile

import numpy as np
import pytest

from mlgraph.studio import build, data
from mlgraph.studio.data import DataProblem

TABLE = "a,b,kind\n1,2,yes\n3,4.5,no\n5,6,yes\n7,8,no\n9,1,yes\n"


def table(text, target=None):
    return data.from_file(text if isinstance(text, bytes) else text.encode(), "t.csv", target)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def rows_of(found):
    return sorted(map(tuple, np.concatenate([found.x, found.test_x]).tolist()))


EXPECTED = [(1, 2), (3, 4.5), (5, 6), (7, 8), (9, 1)]


@pytest.mark.parametrize(
    "content",
    [
        TABLE.encode(),
        TABLE.replace("\n", "\r\n").encode(),
        TABLE.replace("\n", "\r\n\r\n").encode("utf-8-sig"),
        TABLE.encode("utf-16"),
        TABLE.replace(",", "\t").encode(),
        TABLE.replace(",", ", ").encode(),
        TABLE.replace(",", ";").replace(".", ",").encode(),  # as spreadsheets write it where the comma is decimal
        TABLE.replace("a,", '"a, in ""m""",').replace("4.5", '"4.5"').encode(),
        TABLE.replace("a,", "größe,").encode("cp1252"),
        b"\n" + TABLE.encode() + b"\n\n",
        "\n".join(f"{i},{row}" if row else "" for i, row in enumerate(TABLE.replace("a,", "a,", 1).split("\n")))
        .replace("0,a", ",a", 1)
        .encode(),  # pandas' index
    ],
)
def test_tables_as_programs_write_them(content):
    found = table(content)
    assert rows_of(found) == EXPECTED
    assert found.classes == ["no", "yes"] and found.target == "kind"
    assert found.columns[1] == "b" and found.columns[0] in ("a", 'a, in "m"', "größe")


def test_the_target_is_any_column_by_its_name():
    found = table("kind,a,b\nx,1,2\ny,3,4\nx,5,6\n", "kind")
    assert found.columns == ["a", "b"] and found.classes == ["x", "y"]


def test_few_whole_numbers_are_labels_in_their_order_and_others_amounts():
    found = table("a,y\n" + "".join(f"{i},{2 + 8 * (i % 2)}\n" for i in range(20)))
    assert found.classes == ["2", "10"]
    found = table("a,price\n" + "".join(f"{i},{200_000 + 1000 * i}\n" for i in range(50)))
    assert found.classes is None and found.y.shape == (40, 1)
    assert (
        "price, in standard deviations" in found.target and "an output of 0 means 225,900, of 1 240,600" in found.target
    )
    assert abs(found.y.mean()) < 1e-5 and found.y.std() == pytest.approx(1, abs=1e-4)


def test_columns_of_any_size_are_scaled_even_if_there_are_two():
    found = table("age,income,y\n" + "".join(f"{20 + i},{1e5 * i},{i % 2}\n" for i in range(20)))
    assert found.is_plane and build.network(found, [3]).scaling is not None
    assert not data.toy("xor").standardize


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "header with at least two columns"),
        (b"a,b\n", "at least two rows"),
        (b"a\n1\n2\n3\n", "at least two columns"),
        (b"1,2\n3,4\n5,6\n", "names of columns in the first row"),
        (b"a,a,y\n1,2,x\n3,4,z\n", "two columns are named 'a'"),
        (b"a,y\n1,x\n2\n3,z\n", "line 3 has 1 cells, the header 2"),
        (b'a,b,y\n"1\n",2,x\n,4,z\n', "line 4, column 'a': expected a number that float32 can hold, got nothing"),
        (b"a,y\nNA,x\n2,z\n", "line 2, column 'a': expected a number that float32 can hold, got 'NA'"),
        (b"a,y\nnan,x\n2,z\n", "got 'nan'"),
        (b"a,y\n1e39,x\n2,z\n", "got '1e39'"),
        (b"a,y\n1_0,x\n2,z\n", "got '1_0'"),
        (b"a,y\n1,x\n2,\n", "row 2 has nothing in the column 'y'"),
        (b"a,y\n1,x\n2,x\n", "the column 'y' has only one value"),
        (b"a,y\n1,\0\n2,x\n", "expected text, got a binary file"),
        (b"PK\3\4 a workbook", "save a spreadsheet as .csv"),
        (b"a,y\n1,\x81\n2,x\n", "expected text in UTF-8"),
        (b"\xff\xfea", "expected text in UTF-8"),
        (b"a,y\n1,x\nred,z\n", "line 3, column 'a': expected a number that float32 can hold, got 'red'"),
        (b"a,y\nred,x\n1,z\n", "line 3, column 'a': expected a word, as in the rows before, got '1'"),
        (b"a,y\nred,x\n ,z\n", "line 3, column 'a': expected a word, as in the rows before, got nothing"),
        (b"a,a_b,y\nb,1,x\nc,2,z\n", "two columns would be named 'a_b'"),
        (
            b"a,y\n" + b"".join(b"word%d,%d\n" % (i, i % 2) for i in range(101)),
            "the column 'a' has more than 100 different words",
        ),
        (b'a,y\n"' + b"1" * 200_000, "a cell has more than 131,072 characters; is a quotation mark left open?"),
        (b",".join(b"column %d" % i for i in range(2**16 + 1)) + b"\n", "expected at most 65,536 columns, got 65,537"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(content, said):
    with pytest.raises(DataProblem, match=r"t\.csv: ") as caught:
        table(content)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_columns_of_words_are_encoded_as_pandas_does():
    pandas = pytest.importorskip("pandas")
    words = ["red", "größe 2", "red", "blue, dark", "NAN x", "red"]
    frame = pandas.DataFrame(
        {"c": words, "n": [1, 2, 3, 4, 5, 6.5], "s": list("fmfmmf"), "y": ["no", "yes", "no", "yes", "yes", "no"]}
    )
    found = table(frame.to_csv(index=False))
    assert found.columns == ["c_NAN x", "c_blue, dark", "c_größe 2", "c_red", "n", "s_f", "s_m"]
    dummies = pandas.get_dummies(frame.drop(columns="y"))
    assert sorted(found.columns) == sorted(dummies.columns)
    assert rows_of(found) == sorted(map(tuple, dummies[found.columns].to_numpy(float).tolist()))
    net = build.network(found, [3])
    assert net.scaling is not None


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_has_as_many_columns_as_promised(separator):
    limit = csv.field_size_limit()
    header = separator.join(f"column {i}" for i in range(2**16))
    rows = [separator.join([str(i)] * 2**16) for i in range(2)]
    assert len(data.table("\n".join([header, *rows]).encode(), "wide.csv").columns) == 2**16 - 1
    assert csv.field_size_limit() == limit


def test_a_target_that_is_not_there_is_named():
    with pytest.raises(DataProblem, match=r"no column 'z'; the last one is 'kind'"):
        table(TABLE, "z")


def test_arrays_with_and_without_a_test_set():
    x, y = np.random.default_rng(0).normal(size=(50, 4)), np.arange(50) % 3
    found = data.from_file(npz(x=x, y=y), "t.npz")
    assert (len(found.x), len(found.test_x)) == (40, 10) and found.classes == ["0", "1", "2"]
    found = data.from_file(npz(x_train=x, y_train=y[:, None], x_test=x[:7], y_test=y[:7, None]), "t.npz")
    assert (len(found.x), len(found.test_x)) == (50, 7) and found.y.shape == (50,)
    found = data.from_file(npy(np.column_stack([x, y])), "t.npy")
    assert found.x.shape == (40, 4) and found.classes == ["0", "1", "2"]
    found = data.from_file(npz(x=np.zeros((9, 5, 7, 1), np.uint8), y=np.arange(9) % 2), "t.npz")
    assert found.image == (5, 7)
    found = data.from_file(npz(x=x, y=np.arange(50) * 1000), "t.npz")
    assert found.classes is None and found.y.std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("labels", [["x", "y", "z"], [b"x", b"y", b"z"], [0, 1, 2]])
def test_a_label_that_only_the_test_has_is_a_class(labels):
    a, b, c = labels
    found = data.arrays(np.eye(4), np.array([a, b, a, b]), (np.eye(4), np.array([a, b, c, c])))
    assert len(found.classes) == 3 and found.test_y.tolist() == [0, 1, 2, 2]
    build.network(found, [2]).evaluate(found.test_x, found.test_y)


def test_labels_of_truth_values_and_of_objects():
    assert data.arrays(np.eye(4), np.array([True, False] * 2)).classes == ["0", "1"]
    assert data.arrays(np.eye(4), np.array(["no", "yes"] * 2, object)).classes == ["no", "yes"]


X, Y = np.eye(4), np.arange(4) % 2


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X}, "expected the arrays x and y"),
        ({"x": X, "y": Y[:3]}, "as many labels as examples, got 3 and 4"),
        ({"x": X[:1], "y": Y[:1]}, "at least two examples"),
        ({"x": X, "y": Y - 1}, "integers from 0 on, got -1"),
        ({"x": X, "y": Y * 0}, "only one value"),
        ({"x": X, "y": Y * np.nan}, "numbers that float32 can hold"),
        ({"x": X * 1e300, "y": Y}, "x[0, 0] is 1e+300"),
        ({"x": X + 1j, "y": Y}, "array of numbers or of words, got 'complex128'"),
        ({"x": np.array([{}] * 4), "y": Y}, "got 'object'"),
        ({"x": np.zeros(4, "i4,f4"), "y": Y}, "array of numbers or of words"),
        ({"x": X.astype(str), "y": Y}, "expected numbers, got an array of <U"),
        ({"x": np.array(3.0), "y": Y}, "array of shape ()"),
        ({"x": np.zeros((4, 0)), "y": Y}, "array of shape (4, 0)"),
        ({"x": X, "y": np.array([["a", "b"]] * 4)}, "one label for each example"),
        ({"train_x": X, "train_y": Y, "test_x": X[:, :3], "test_y": Y}, "4 columns, those of the test 3"),
        ({"train_x": X, "train_y": Y, "test_x": X[:0], "test_y": Y[:0]}, "the test has no examples"),
        ({"train_x": X, "train_y": Y.astype(str), "test_x": X, "test_y": Y}, "of different kinds"),
        ({"train_x": X, "train_y": X, "test_x": X, "test_y": X[:, :2]}, "of different kinds"),
    ],
)
def test_what_is_wrong_with_arrays_is_said(arrays, said):
    with pytest.raises(DataProblem, match=r"t\.npz: ") as caught:
        data.from_file(npz(**arrays), "t.npz")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def header_of(shape, dtype="<f8"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "x",
    [header_of("(1000000000000,)"), header_of("(1000000000, 0)"), header_of("(1000000000,)", "<U0"), b"", b"\0" * 99],
)
def test_arrays_that_claim_more_than_they_hold_cost_no_memory(x):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        z.writestr("x.npy", x)
        z.writestr("y.npy", npy(Y))
    with pytest.raises(DataProblem, match=r"t\.npz"):
        data.from_file(file.getvalue(), "t.npz")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(monkeypatch):
    monkeypatch.setattr(data, "MOST_BYTES", 2**20)
    file = io.BytesIO()
    np.savez_compressed(file, x=np.zeros((2**18, 4), np.uint8), y=np.zeros(2**18, np.uint8))
    assert len(file.getvalue()) < 10_000
    with pytest.raises(DataProblem, match="larger than 1 MB"):
        data.from_file(file.getvalue(), "t.npz")


def test_folders_of_arrays_and_of_images(tmp_path):
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(DataProblem, match="expected the arrays x and y"):
        data.from_path(tmp_path)
    np.save(tmp_path / "y.npy", Y)
    assert data.from_path(tmp_path).columns == ["x0", "x1", "x2", "x3"]
    (tmp_path / "t.csv").write_text(TABLE)
    assert data.from_path(tmp_path / "t.csv", "kind").classes == ["no", "yes"]
    images = tmp_path / "idx"
    images.mkdir()
    for kind, n in (("train", 6), ("t10k", 3)):
        (images / f"{kind}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, n, 9, 8) + bytes(n * 72))
        (images / f"{kind}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, n) + bytes(i % 2 for i in range(n)))
    found = data.from_path(images)
    assert found.image == (9, 8) and found.classes == ["0", "1"] and len(found.test_x) == 3


def test_sparse_matrices():
    sparse = pytest.importorskip("scipy.sparse")
    found = data.arrays(sparse.csr_matrix(X), Y)
    assert rows_of(found) == sorted(map(tuple, X.tolist()))
