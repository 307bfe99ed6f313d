"""Data sets: what is read is what the files hold, and a damaged file gives one clear line."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings, strategies as st
from mnist_program import write_data

from mlgraph import datasets
from mlgraph.datasets import DataError, Dataset, load_mnist, read_idx

FILES = {  # Dataset field: file name
    "train_x": "train-images-idx3-ubyte",
    "train_y": "train-labels-idx1-ubyte",
    "test_x": "t10k-images-idx3-ubyte",
    "test_y": "t10k-labels-idx1-ubyte",
}
Bytes = npt.NDArray[np.uint8]
Arrays = dict[str, Bytes]


def header(*shape: int, element_type: int = 0x08) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, element_type, len(shape), *shape)


def idx(array: Bytes) -> bytes:
    return header(*array.shape) + array.tobytes()


def small(height: int = 2, width: int = 3, n_classes: int = 4) -> Arrays:
    rng = np.random.default_rng(height * width)
    return {
        "train_x": rng.integers(256, size=(n_classes, height, width), dtype=np.uint8),
        "train_y": np.arange(n_classes)[::-1].astype(np.uint8),
        "test_x": rng.integers(256, size=(3, height, width), dtype=np.uint8),
        "test_y": np.array([0, n_classes - 1, 1], np.uint8),
    }


def write(folder: Path, arrays: Arrays, rename: Callable[[str], str] = str) -> None:
    for field, array in arrays.items():
        name = rename(FILES[field])
        content = idx(array)
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def assert_holds(data: Dataset, arrays: Arrays) -> None:
    for field, array in arrays.items():
        got = getattr(data, field)
        assert got.dtype == np.uint8 and got.flags.c_contiguous, field
        np.testing.assert_array_equal(got, array.reshape(len(array), -1) if field.endswith("x") else array, strict=True)


def assert_one_line(error: pytest.ExceptionInfo[DataError], path: Path, *parts: str) -> None:
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    for part in parts:
        assert part in message


# --- one file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3), (2, 3, 4), (1,) * 32])
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["raw", "gzip"])
def test_read_idx(tmp_path: Path, shape: tuple[int, ...], compress: Callable[[bytes], bytes]) -> None:
    array = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    path = tmp_path / "a.bin"  # no name says how it is compressed
    path.write_bytes(compress(idx(array)))
    for got in (read_idx(path), read_idx(str(path), ndim=len(shape))):
        np.testing.assert_array_equal(got, array, strict=True)
        assert got.flags.c_contiguous and got.flags.writeable


def test_read_idx_of_several_chunks(tmp_path: Path) -> None:
    """Pieces are joined at their seams, wherever the data ends relative to them."""
    for extra in (-1, 0, 1):
        array = np.random.default_rng(extra + 1).integers(256, size=2 * datasets.CHUNK + extra, dtype=np.uint8)
        (tmp_path / "a").write_bytes(idx(array))
        np.testing.assert_array_equal(read_idx(tmp_path / "a"), array, strict=True)


def test_read_idx_of_several_gzip_members(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(header(2)) + gzip.compress(b"\x05\x06"))
    assert read_idx(tmp_path / "a").tolist() == [5, 6]


VALID = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))

DAMAGED = {
    "empty": (b"", ["expected an IDX file", "got an empty file"]),
    "empty gzip": (gzip.compress(b""), ["expected an IDX file", "got an empty file"]),
    "magic cut": (VALID[:3], ["expected an IDX file", "00 00 08"]),
    "bad magic, first byte": (b"\x01" + VALID[1:], ["expected an IDX file", "got 01 00 08 03"]),
    "bad magic, second byte": (b"\0\x01" + VALID[2:], ["expected an IDX file", "got 00 01 08 03"]),
    "text": (b"<!DOCTYPE html>\n<p>404\n", ["expected an IDX file", "got 3c 21 44 4f"]),
    "gzip in gzip": (gzip.compress(gzip.compress(VALID)), ["expected an IDX file", "got 1f 8b"]),
    **{
        name: (
            header(2, element_type=code) + bytes(16),
            ["expected elements of type uint8", f"got {name} (0x{code:02x})"],
        )
        for code, name in [(9, "int8"), (11, "int16"), (12, "int32"), (13, "float32"), (14, "float64"), (7, "unknown")]
    },
    "no dimensions": (header() + b"\0", ["expected 1 to 32 dimensions", "got 0"]),
    "more dimensions than numpy has": (header(*[1] * 33) + b"\0", ["expected 1 to 32 dimensions", "got 33"]),
    "header cut": (VALID[:15], ["expected a header of 16 bytes", "got 15"]),
    "header cut in gzip": (gzip.compress(VALID[:4]), ["expected a header of 16 bytes", "got 4"]),
    "size 0": (header(2, 0, 4), ["expected 1 to 8589934592 bytes", "claims (2, 0, 4)"]),
    "absurd sizes": (header(*[2**32 - 1] * 3), ["expected 1 to 8589934592 bytes", "claims (4294967295, 4294967295"]),
    "sizes whose product is 2**33 modulo 2**64": (header(2**31 + 1, 2**31, 4), ["expected 1 to 8589934592 bytes"]),
    "one byte above the limit": (header(3, 2863311531), ["expected 1 to 8589934592 bytes"]),
    "no data": (VALID[:16], ["expected 24 bytes of data", "(2, 3, 4)", "got 0"]),
    "data cut": (VALID[:-1], ["expected 24 bytes of data", "got 23"]),
    "data cut in gzip": (gzip.compress(VALID[:-1]), ["expected 24 bytes of data", "got 23"]),
    "over-long": (VALID + b"\0", ["expected 24 bytes of data", "got more"]),
    "over-long in gzip": (gzip.compress(VALID + b"\0"), ["expected 24 bytes of data", "got more"]),
    "gzip of its magic alone": (b"\x1f\x8b", ["expected an intact gzip file", "ended"]),
    "gzip cut in its data": (gzip.compress(VALID)[:20], ["expected an intact gzip file", "ended"]),
    "gzip cut in its trailer": (gzip.compress(VALID)[:-1], ["expected an intact gzip file", "ended"]),
    "gzip, bad method": (b"\x1f\x8b\x07" + gzip.compress(VALID)[3:], ["expected an intact gzip file", "method"]),
    "gzip, bad data": (gzip.compress(VALID)[:10] + b"\xff" * 50, ["expected an intact gzip file", "Error -3"]),
    "gzip, bad CRC": (gzip.compress(VALID)[:-8] + bytes(4) + gzip.compress(VALID)[-4:], ["gzip file", "CRC"]),
    "gzip, bad length": (gzip.compress(VALID)[:-4] + bytes(4), ["expected an intact gzip file", "length"]),
    "gzip, then something else": (
        gzip.compress(VALID) + b"more",
        ["expected an intact gzip file", "Not a gzipped file"],
    ),
}


@pytest.mark.parametrize(("content", "parts"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_file(tmp_path: Path, content: bytes, parts: list[str]) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_idx(path)
    assert_one_line(error, path, *parts)


@pytest.mark.parametrize("ndim", [1, 2, 4])
def test_wrong_number_of_dimensions(tmp_path: Path, ndim: int) -> None:
    (tmp_path / "a").write_bytes(VALID)
    with pytest.raises(DataError) as error:
        read_idx(tmp_path / "a", ndim=ndim)
    assert_one_line(error, tmp_path / "a", f"expected {ndim} dimensions, got 3")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_idx(tmp_path / "a")
    assert_one_line(error, tmp_path / "a", "cannot be read", "No such file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_for_a_file(tmp_path: Path) -> None:
    """To open it would be to wait for whoever writes it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError) as error:
        read_idx(tmp_path / "pipe")
    assert_one_line(error, tmp_path / "pipe", "expected a file, got a pipe")


def test_directory_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_idx(tmp_path)
    assert_one_line(error, tmp_path, "cannot be read", "directory")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode of 000 does not stop root, so the refusal is made up."""

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(datasets, "open", refuse, raising=False)
    with pytest.raises(DataError) as error:
        read_idx(tmp_path / "a")
    assert_one_line(error, tmp_path / "a", "cannot be read: Permission denied")


@pytest.mark.parametrize(
    "content",
    [
        header(2**33 // 8, 8) + b"\0",
        gzip.compress(header(2**33 // 8, 8) + b"\0"),
        gzip.compress(header(2) + bytes(2**25)),
    ],
    ids=["raw, false claim", "gzip, false claim", "gzip bomb"],
)
def test_memory_is_bounded(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as error:
            read_idx(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert_one_line(error, path, "bytes of data")
    assert peak < 4 * datasets.CHUNK


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "a"


@settings(max_examples=500, deadline=None, database=None)
@given(
    compressed=st.booleans(),
    edits=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=4),
    end=st.just(80) | st.integers(0, 16) | st.integers(0, 80),
    tail=st.binary(max_size=4),
)
def test_any_mutation_is_read_exactly_or_refused(
    scratch: Path, compressed: bool, edits: list[tuple[int, int]], end: int, tail: bytes
) -> None:
    content = bytearray(gzip.compress(VALID, mtime=0) if compressed else VALID)
    for place, value in edits:
        content[place % len(content)] = value
    content = content[:end] + tail
    scratch.write_bytes(content)
    try:
        array = read_idx(scratch)
    except DataError as error:
        message = str(error)
        assert message.startswith(f"{scratch}: ") and len(message.splitlines()) == 1
    else:
        assert array.dtype == np.uint8 and array.flags.c_contiguous and array.size > 0
        assert idx(array) == (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


# --- four files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rename",
    [
        str,
        lambda name: name.replace("-idx", ".idx"),
        lambda name: name + ".gz",
        lambda name: name.replace("-idx", ".idx") + ".gz",
        lambda name: name.replace("t10k", "test"),
        lambda name: name.replace("t10k", "test").replace("-idx", ".idx") + ".gz",
        lambda name: name + ".gz" * ("images" in name),
    ],
    ids=["dash", "dot", "dash, gzip", "dot, gzip", "test", "test, dot, gzip", "mixed"],
)
def test_names(tmp_path: Path, rename: Callable[[str], str]) -> None:
    arrays = small()
    write(tmp_path, arrays, rename)
    assert_holds(load_mnist(tmp_path), arrays)
    assert_holds(load_mnist(str(tmp_path)), arrays)


@pytest.mark.parametrize(("height", "width", "n_classes"), [(1, 1, 2), (28, 28, 10), (5, 3, 3), (32, 64, 256)], ids=str)
def test_sizes_and_classes(tmp_path: Path, height: int, width: int, n_classes: int) -> None:
    arrays = small(height, width, n_classes)
    write(tmp_path, arrays)
    data = load_mnist(tmp_path)
    assert_holds(data, arrays)
    assert data.image_shape == (height, width)
    assert data.n_classes == n_classes and type(data.n_classes) is int


def test_at_least_two_classes(tmp_path: Path) -> None:
    arrays = small()
    arrays["train_y"][:] = 0
    arrays["test_y"][:] = 1
    write(tmp_path, arrays)
    assert load_mnist(tmp_path).n_classes == 2


def test_raw_comes_before_gzip(tmp_path: Path) -> None:
    write(tmp_path, {field: 255 - array for field, array in small().items()}, lambda name: name + ".gz")
    write(tmp_path, small(), lambda name: name.replace("-idx", ".idx").replace("t10k", "test"))
    assert_holds(load_mnist(tmp_path), small())


@pytest.mark.parametrize("field", FILES)
def test_missing_role(tmp_path: Path, field: str) -> None:
    write(tmp_path, small())
    name = FILES[field]
    (tmp_path / name).unlink()
    with pytest.raises(DataError) as error:
        load_mnist(tmp_path)
    dotted = name.replace("-idx", ".idx")
    assert_one_line(error, tmp_path, "found none", f"{name},", f"{name}.gz", f"{dotted},", f"{dotted}.gz")


@pytest.mark.parametrize("field", FILES)
def test_damaged_role(tmp_path: Path, field: str) -> None:
    write(tmp_path, small())
    path = tmp_path / FILES[field]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError) as error:
        load_mnist(tmp_path)
    assert_one_line(error, path, "bytes of data")


@pytest.mark.parametrize(
    ("field", "expected", "got"), [("train_x", 3, 1), ("train_y", 1, 3), ("test_x", 3, 1), ("test_y", 1, 3)]
)
def test_images_and_labels_exchanged(tmp_path: Path, field: str, expected: int, got: int) -> None:
    arrays = small()
    other = field[:-1] + ("y" if field.endswith("x") else "x")
    write(tmp_path, {**arrays, field: arrays[other]})
    with pytest.raises(DataError) as error:
        load_mnist(tmp_path)
    assert_one_line(error, tmp_path / FILES[field], f"expected {expected} dimensions, got {got}")


@pytest.mark.parametrize("field", FILES)
def test_empty_set(tmp_path: Path, field: str) -> None:
    arrays = small()
    write(tmp_path, {**arrays, field: arrays[field][:0]})
    with pytest.raises(DataError) as error:
        load_mnist(tmp_path)
    assert_one_line(error, tmp_path / FILES[field], "claims (0,")


@pytest.mark.parametrize("split", ["train", "test"])
def test_counts_differ(tmp_path: Path, split: str) -> None:
    arrays = small()
    n = len(arrays[f"{split}_x"])
    write(tmp_path, {**arrays, f"{split}_y": arrays[f"{split}_y"][:-1]})
    with pytest.raises(DataError) as error:
        load_mnist(tmp_path)
    labels = str(tmp_path / FILES[f"{split}_y"])
    assert_one_line(error, tmp_path / FILES[f"{split}_x"], f"expected {n - 1} images", labels, f"got {n}")


@pytest.mark.parametrize(("height", "width"), [(3, 2), (2, 4), (1, 3)])
def test_image_sizes_differ(tmp_path: Path, height: int, width: int) -> None:
    """3 x 2 has as many pixels as 2 x 3 and is refused all the same."""
    arrays = small()
    write(tmp_path, {**arrays, "test_x": np.zeros((3, height, width), np.uint8)})
    with pytest.raises(DataError) as error:
        load_mnist(tmp_path)
    train = str(tmp_path / FILES["train_x"])
    assert_one_line(error, tmp_path / FILES["test_x"], "expected images of 2 x 3", train, f"got {height} x {width}")


@pytest.mark.parametrize("labels", [(4, 0), (4, 4), (4, 255), (255, 4)])
def test_label_outside_the_classes(tmp_path: Path, labels: tuple[int, int]) -> None:
    """The first one is named, be it the largest or not."""
    arrays = small()
    arrays["test_y"][1:] = labels
    write(tmp_path, arrays)
    with pytest.raises(DataError) as error:
        load_mnist(tmp_path)
    train = str(tmp_path / FILES["train_y"])
    assert_one_line(error, tmp_path / FILES["test_y"], "labels below 4", train, f"got {labels[0]} at example 1")


def test_folder_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load_mnist(tmp_path / "none")
    assert_one_line(error, tmp_path / "none", "expected a folder", "No such file")


def test_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(VALID)
    with pytest.raises(DataError) as error:
        load_mnist(tmp_path / "a")
    assert_one_line(error, tmp_path / "a", "expected a folder", "Not a directory")


# --- the embedded files -----------------------------------------------------------------------------------------------


def test_embedded() -> None:
    """The arrays, written back as IDX, have the checksums of the original files; so have the files themselves."""
    lines = re.findall(r"^ +([0-9a-f]{64})  (\S+)$", (datasets.EMBEDDED / "README.md").read_text(), re.MULTILINE)
    expected = {name: checksum for checksum, name in lines}
    assert set(expected) == set(FILES.values())

    data = load_mnist()
    assert data.image_shape == (28, 28) and data.n_classes == 10
    assert data.train_x.shape == (60_000, 784) and data.test_x.shape == (10_000, 784)
    for field, name in FILES.items():
        array = getattr(data, field)
        assert array.dtype == np.uint8 and array.flags.c_contiguous
        written = idx(array.reshape(-1, 28, 28) if field.endswith("x") else array)
        assert hashlib.sha256(written).hexdigest() == expected[name], field
        content = gzip.decompress((datasets.EMBEDDED / f"{name}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == expected[name], name


def test_folders_named_as_files(tmp_path: Path) -> None:
    """As archives have them that hold each file in a folder of its name, too."""
    for file in write_data(tmp_path / "data").iterdir():
        (tmp_path / "data" / file.name.replace("-idx", ".idx")).write_bytes(file.read_bytes())
        file.unlink()
        file.mkdir()
    assert len(load_mnist(tmp_path / "data").train_x) == 90
