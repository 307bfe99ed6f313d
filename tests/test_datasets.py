"""Data sets: arrays equal the contents of the files; an error is one line that starts with the path."""

import gzip
import hashlib
import os
import re
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mlgraph import datasets
from mlgraph.datasets import DataError, load_mnist, read_idx

FILES = {  # Dataset field: file name
    "train_x": "train-images-idx3-ubyte",
    "train_y": "train-labels-idx1-ubyte",
    "test_x": "t10k-images-idx3-ubyte",
    "test_y": "t10k-labels-idx1-ubyte",
}


def header(*shape, element_type=0x08):
    return struct.pack(f">HBB{len(shape)}I", 0, element_type, len(shape), *shape)


def idx(array):
    return header(*array.shape) + array.tobytes()


def small(height=2, width=3, n_classes=4, **changes):
    """Arrays of a data set, some of them replaced."""
    rng = np.random.default_rng(height * width)
    arrays = {
        "train_x": rng.integers(256, size=(n_classes, height, width), dtype=np.uint8),
        "train_y": np.arange(n_classes)[::-1].astype(np.uint8),
        "test_x": rng.integers(256, size=(3, height, width), dtype=np.uint8),
        "test_y": np.array([0, n_classes - 1, 1], np.uint8),
    }
    return {**arrays, **{field: np.array(change, np.uint8) for field, change in changes.items()}}


def write(folder, arrays, rename=str):
    for field, array in arrays.items():
        name = rename(FILES[field])
        (folder / name).write_bytes(gzip.compress(idx(array)) if name.endswith(".gz") else idx(array))


def assert_holds(data, arrays):
    for field, array in arrays.items():
        got = getattr(data, field)
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, array.reshape(len(array), -1) if field.endswith("x") else array, strict=True)


def assert_refused(read, path, *parts):
    """The error is one line that starts with `path` and contains `parts`."""
    with pytest.raises(DataError) as caught:
        read()
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and len(message.splitlines()) == 1
    assert all(part in message for part in parts), message


# --- one file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), (1,) * 32, *((2 * datasets.CHUNK + k,) for k in (-1, 0, 1))])
@pytest.mark.parametrize("compress", [bytes, lambda content: gzip.compress(content, 1)], ids=["raw", "gzip"])
def test_read_idx_returns_the_array(tmp_path, shape, compress):
    array = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    path = tmp_path / "a.bin"  # the name does not tell whether it is compressed
    path.write_bytes(compress(idx(array)))
    for got in (read_idx(path), read_idx(str(path), ndim=len(shape))):
        np.testing.assert_array_equal(got, array, strict=True)
        assert got.flags.c_contiguous and got.flags.writeable


def test_a_gzip_file_may_have_several_members(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(header(2)) + gzip.compress(b"\x05\x06"))
    assert read_idx(tmp_path / "a").tolist() == [5, 6]


VALID = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
ZIPPED = gzip.compress(VALID, mtime=0)

DAMAGED = {
    "empty": (b"", "expected an IDX file", "got an empty file"),
    "bad first byte": (b"\x01" + VALID[1:], "expected an IDX file", "got 01 00 08 03"),
    "gzip in gzip": (gzip.compress(ZIPPED), "expected an IDX file", "got 1f 8b"),
    "float32": (header(2, element_type=13) + bytes(8), "expected elements of type uint8", "got float32 (0x0d)"),
    "unknown type": (header(2, element_type=7) + bytes(16), "expected elements of type uint8", "got unknown (0x07)"),
    "no dimensions": (header() + b"\0", "expected 1 to 32 dimensions", "got 0"),
    "too many dimensions": (header(*[1] * 33) + b"\0", "expected 1 to 32 dimensions", "got 33"),
    "header cut": (VALID[:15], "expected a header of 16 bytes", "got 15"),
    "size 0": (header(2, 0, 4), "expected 1 to 8589934592 bytes", "got the shape (2, 0, 4)"),
    "product is 2**33 modulo 2**64": (header(2**31 + 1, 2**31, 4), "expected 1 to 8589934592 bytes"),
    "one byte above the limit": (header(3, 2863311531), "expected 1 to 8589934592 bytes"),
    "data cut": (VALID[:-1], "expected 24 bytes of data", "(2, 3, 4)", "got 23"),
    "too long": (VALID + b"\0", "expected 24 bytes of data", "got more"),
    "too long in gzip": (gzip.compress(VALID + b"\0"), "expected 24 bytes of data", "got more"),
    "gzip cut in its trailer": (ZIPPED[:-1], "damaged gzip file", "ended"),
    "gzip with bad data": (ZIPPED[:10] + b"\xff" * 50, "damaged gzip file", "Error -3"),
    "gzip with a bad CRC": (ZIPPED[:-8] + bytes(4) + ZIPPED[-4:], "damaged gzip file", "CRC"),
    "gzip and something else": (ZIPPED + b"more", "damaged gzip file", "Not a gzipped file"),
}


@pytest.mark.parametrize(("content", "parts"), [(c, p) for c, *p in DAMAGED.values()], ids=DAMAGED)
def test_damaged_files_are_refused(tmp_path, content, parts):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    assert_refused(lambda: read_idx(path), path, *parts)


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    path = tmp_path / "a"
    assert_refused(lambda: read_idx(path), path, "cannot be read: No such file")
    assert_refused(lambda: read_idx(tmp_path), tmp_path, "cannot be read", "directory")
    os.mkfifo(tmp_path / "pipe")  # opening it would block
    assert_refused(lambda: read_idx(tmp_path / "pipe"), tmp_path / "pipe", "expected a file, got a pipe")
    path.write_bytes(VALID)
    assert_refused(lambda: read_idx(path, ndim=4), path, "expected 4 dimensions, got 3")


@pytest.mark.parametrize(
    "content",
    [header(2**30, 8), gzip.compress(header(2**30, 8) + b"\0"), gzip.compress(header(2) + bytes(2**25))],
    ids=["false size", "false size in gzip", "gzip bomb"],
)
def test_memory_is_bounded(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert_refused(lambda: read_idx(path), path, "bytes of data")
        assert tracemalloc.get_traced_memory()[1] < 4 * datasets.CHUNK
    finally:
        tracemalloc.stop()


def test_gzip_file_of_zeros_is_refused_before_it_fills_the_memory(tmp_path):
    """Its header is true."""
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(header(2**27) + bytes(2**27), 1))
    assert_refused(lambda: read_idx(path), path, f"expected 1 to {datasets.SMALL_BYTES} bytes of data")


@given(
    content=st.sampled_from([VALID, ZIPPED]),
    edits=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=4),
    end=st.just(80) | st.integers(0, 16) | st.integers(0, 80),
    tail=st.binary(max_size=4),
)
def test_a_changed_file_is_read_exactly_or_refused(tmp_path, content, edits, end, tail):
    content, path = bytearray(content), tmp_path / "a"
    for place, value in edits:
        content[place % len(content)] = value
    content = content[:end] + tail
    path.write_bytes(content)
    try:
        array = read_idx(path)
    except DataError as error:
        message = str(error)
        assert message.startswith(f"{path}: ") and len(message.splitlines()) == 1
    else:
        assert array.dtype == np.uint8 and array.flags.c_contiguous and array.size > 0
        assert idx(array) == (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


# --- four files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rename",
    [
        str,
        lambda name: name.replace("-idx", ".idx") + ".gz",
        lambda name: name.replace("t10k", "test").replace("-idx", ".idx") + ".gz" * ("images" in name),
    ],
    ids=["original", "dot, gzip", "test, dot, some gzip"],
)
def test_file_names(tmp_path, rename):
    write(tmp_path, small(), rename)
    assert_holds(load_mnist(str(tmp_path)), small())


def test_raw_files_come_before_gzip_files_and_folders_are_ignored(tmp_path):
    write(tmp_path, {field: 255 - array for field, array in small().items()}, lambda name: name + ".gz")
    write(tmp_path, small(), lambda name: name.replace("-idx", ".idx").replace("t10k", "test"))
    for name in FILES.values():
        (tmp_path / name).mkdir()  # as in archives that put each file into a folder of the same name
    assert_holds(load_mnist(tmp_path), small())


@pytest.mark.parametrize(("height", "width", "n_classes"), [(1, 1, 2), (5, 3, 3), (32, 64, 256)], ids=str)
def test_images_may_have_any_size_and_labels_any_value(tmp_path, height, width, n_classes):
    arrays = small(height, width, n_classes)
    write(tmp_path, arrays)
    data = load_mnist(tmp_path)
    assert_holds(data, arrays)
    assert data.image_shape == (height, width) and data.n_classes == n_classes and type(data.n_classes) is int


def test_there_are_at_least_two_classes(tmp_path):
    write(tmp_path, small(train_y=[0] * 4, test_y=[1] * 3))
    assert load_mnist(tmp_path).n_classes == 2


@pytest.mark.parametrize("field", FILES)
def test_each_file_is_checked(tmp_path, field):
    path = tmp_path / FILES[field]
    write(tmp_path, small())
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(lambda: load_mnist(tmp_path), path, "bytes of data")
    other, expected, got = ("y", 3, 1) if field.endswith("x") else ("x", 1, 3)
    write(tmp_path, {**small(), field: small()[field[:-1] + other]})
    assert_refused(lambda: load_mnist(tmp_path), path, f"expected {expected} dimensions, got {got}")
    path.unlink()
    dotted = path.name.replace("-idx", ".idx")
    assert_refused(lambda: load_mnist(tmp_path), tmp_path, "found none", f"{path.name},", f"{dotted}.gz")


@pytest.mark.parametrize(
    ("change", "at", "parts"),
    [
        ({"train_y": [3, 2, 1]}, "train_x", ["expected 3 images", "train-labels-idx1-ubyte, got 4"]),
        ({"test_y": [0, 1]}, "test_x", ["expected 2 images", "t10k-labels-idx1-ubyte, got 3"]),
        ({"test_x": np.zeros((3, 3, 2))}, "test_x", ["expected images of 2 x 3", "train-images", "got 3 x 2"]),
        ({"test_x": np.zeros((3, 2, 4))}, "test_x", ["expected images of 2 x 3", "train-images", "got 2 x 4"]),
        ({"test_y": [0, 4, 0]}, "test_y", ["labels below 4", "train-labels-idx1-ubyte, got 4 at example 1"]),
    ],
)
def test_files_must_fit_together(tmp_path, change, at, parts):
    write(tmp_path, small(**change))
    assert_refused(lambda: load_mnist(tmp_path), tmp_path / FILES[at], *parts)


def test_the_folder_must_exist(tmp_path):
    (tmp_path / "a").write_bytes(VALID)
    for name, reason in (("none", "No such file"), ("a", "Not a directory")):
        assert_refused(lambda name=name: load_mnist(tmp_path / name), tmp_path / name, "expected a folder", reason)


def test_embedded_mnist_is_the_original():
    """The arrays, written as IDX, and the embedded files have the checksums of the original files."""
    lines = re.findall(r"^ +([0-9a-f]{64})  (\S+)$", (datasets.EMBEDDED / "README.md").read_text(), re.MULTILINE)
    expected = {name: checksum for checksum, name in lines}
    assert set(expected) == set(FILES.values())
    data = load_mnist()
    assert data.image_shape == (28, 28) and data.n_classes == 10
    assert data.train_x.shape == (60_000, 784) and data.test_x.shape == (10_000, 784)
    for field, name in FILES.items():
        array = getattr(data, field)
        written = idx(array.reshape(-1, 28, 28) if field.endswith("x") else array)
        content = gzip.decompress((datasets.EMBEDDED / f"{name}.gz").read_bytes())
        assert hashlib.sha256(written).hexdigest() == hashlib.sha256(content).hexdigest() == expected[name]
