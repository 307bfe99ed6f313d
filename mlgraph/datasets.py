"""MNIST and data sets in the same layout: four IDX files of images and labels, raw or gzip-compressed."""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlgraph._support import checks
from mlgraph._support.array_types import UInt8
from mlgraph._support.checks import StrOrBytesPath

__all__ = ["DataError", "Dataset", "load_mnist", "read_idx"]

EMBEDDED = Path(__file__).parent / "data"

MAX_BYTES = 2**33  # a header with a larger size is more likely damaged than true
SMALL_BYTES = 2**26  # data that any gzip file may hold
MAX_RATIO = 100  # of larger data and their gzip file; images are 2 to 20, and zeros alone are 1000
MAX_NDIM = 32  # the limit of numpy 1; numpy 2 allows 64
CHUNK = 2**20  # read() allocates as much as it is asked for, so a false size may cost at most one chunk

GZIP_MAGIC = b"\x1f\x8b"
UINT8 = 0x08
OTHER_TYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}


class DataError(ValueError):
    """A data file is missing, damaged or unsuitable. The message is one line that starts with its path."""


class Dataset(NamedTuple):
    """Images and labels for training and testing.

    Attributes
    ----------
    train_x, test_x : uint8 array of shape (examples, height * width), C-contiguous
        Pixels; each row is an image.
    train_y, test_y : uint8 array of shape (examples,)
        Labels in ``range(n_classes)``.
    image_shape : (int, int)
        Height and width.
    n_classes : int
        Largest training label + 1, but at least 2.
    """

    train_x: UInt8
    train_y: UInt8
    test_x: UInt8
    test_y: UInt8
    image_shape: tuple[int, int]
    n_classes: int


def load_mnist(folder: StrOrBytesPath | None = None) -> Dataset:
    """Read MNIST, or another data set in the same layout.

    Parameters
    ----------
    folder : path, optional
        Folder with the files ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
        ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``. In a name, ``.idx`` may replace
        ``-idx``, ``test`` may replace ``t10k``, and ``.gz`` may follow; a raw file takes precedence
        over a compressed one. Images may have any size and labels any value. By default MNIST
        itself, which comes with the package.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If a file is missing or damaged, or if the files do not fit together.

    Examples
    --------
    >>> mnist = mlgraph.datasets.load_mnist()
    >>> mnist.train_x.shape, mnist.test_x.shape, mnist.image_shape, mnist.n_classes
    ((60000, 784), (10000, 784), (28, 28), 10)
    """
    folder = EMBEDDED if folder is None else Path(checks.path("folder", folder))
    try:
        present = set(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder}: expected a folder with IDX files: {error.strerror}") from error

    # Look for all files before reading any, to report a missing one at once.
    train_images, train_labels, test_images, test_labels = (
        _find(folder, present, prefixes, kind)
        for prefixes in (("train",), ("t10k", "test"))
        for kind in ("images-idx3", "labels-idx1")
    )
    train_x, train_y = _read_split(train_images, train_labels)
    test_x, test_y = _read_split(test_images, test_labels)

    height, width = train_x.shape[1:]
    if test_x.shape[1:] != (height, width):
        raise DataError(
            f"{test_images}: expected images of {height} x {width} as in {train_images}, "
            f"got {test_x.shape[1]} x {test_x.shape[2]}"
        )
    n_classes = max(2, int(train_y.max()) + 1)
    if test_y.max() >= n_classes:
        example = int(np.argmax(test_y >= n_classes))
        raise DataError(
            f"{test_labels}: expected labels below {n_classes}, the number of classes in {train_labels}, "
            f"got {test_y[example]} at example {example}"
        )
    return Dataset(
        train_x.reshape(len(train_x), -1), train_y, test_x.reshape(len(test_x), -1), test_y, (height, width), n_classes
    )


def _find(folder: Path, present: set[str], prefixes: tuple[str, ...], kind: str) -> Path:
    """Find the file for one role, such as the ``images-idx3`` of ``train``."""
    names = [
        f"{prefix}-{spelling}-ubyte{suffix}"
        for suffix in ("", ".gz")
        for prefix in prefixes
        for spelling in (kind, kind.replace("-", "."))
    ]
    for name in names:
        if (
            name in present and not (folder / name).is_dir()
        ):  # some archives put each file into a folder of the same name
            return folder / name
    raise DataError(f"{folder}: expected one of the files {', '.join(names)}, found none")


def _read_split(images: Path, labels: Path) -> tuple[UInt8, UInt8]:
    x, y = read_idx(images, ndim=3), read_idx(labels, ndim=1)
    if len(x) != len(y):
        raise DataError(f"{images}: expected {len(y)} images, one for each label in {labels}, got {len(x)}")
    return x, y


def read_idx(path: StrOrBytesPath, *, ndim: int | None = None) -> UInt8:
    """Read an array of bytes from an IDX file.

    An IDX file starts with two zero bytes, a byte for the element type, a byte for the number of
    dimensions, and the size of each dimension as a big-endian uint32. The elements follow in C
    order (http://yann.lecun.com/exdb/mnist). The memory used is limited both by the size in the
    header and by the data in the file, so that neither a false header nor a gzip bomb can exhaust
    it.

    Parameters
    ----------
    path : path
        A raw or gzip-compressed file; the first two bytes tell which.
    ndim : int, optional
        Required number of dimensions. By default any number is accepted.

    Returns
    -------
    uint8 array
        C-contiguous and writable. No dimension has size 0.

    Raises
    ------
    DataError
        If the file cannot be read, is not an IDX file of uint8, or has fewer or more bytes than its
        header says.
    TypeError, ValueError
        If `path` or `ndim` is not as described.
    """
    path = checks.path("path", path)
    if ndim is not None:
        checks.whole("ndim", ndim, 1, MAX_NDIM)
    try:
        # Check before opening: opening a pipe blocks until another process writes to it.
        if Path(path).is_fifo():
            raise DataError(f"{path}: expected a file, got a pipe")
        with open(path, "rb") as file:
            compressed = file.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
            if not compressed:
                return _parse(file, path, ndim, MAX_BYTES)
            most = max(SMALL_BYTES, MAX_RATIO * os.fstat(file.fileno()).st_size)
            return _parse(gzip.GzipFile(fileobj=file), path, ndim, min(most, MAX_BYTES))
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: damaged gzip file: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _parse(stream: io.BufferedIOBase, path: str, ndim: int | None, most: int) -> UInt8:
    magic = _read(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(
            f"{path}: expected an IDX file, which starts with 00 00 {UINT8:02x} and the number of dimensions, "
            f"got {magic.hex(' ') or 'an empty file'}"
        )
    _, _, element_type, n_dims = magic
    if element_type != UINT8:
        name = OTHER_TYPES.get(element_type, "unknown")
        raise DataError(f"{path}: expected elements of type uint8 (0x{UINT8:02x}), got {name} (0x{element_type:02x})")
    if not 1 <= n_dims <= MAX_NDIM or ndim not in (None, n_dims):
        raise DataError(f"{path}: expected {ndim or f'1 to {MAX_NDIM}'} dimensions, got {n_dims}")

    sizes = _read(stream, 4 * n_dims)
    if len(sizes) < 4 * n_dims:
        raise DataError(f"{path}: expected a header of {4 + 4 * n_dims} bytes, got {4 + len(sizes)}")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    n_bytes = math.prod(shape)
    if not 0 < n_bytes <= most:
        raise DataError(f"{path}: expected 1 to {most} bytes of data, got the shape {shape} in the header")

    # Asking for one more byte reveals a file that is too long, and makes gzip verify the checksum.
    data = _read(stream, n_bytes + 1)
    if len(data) != n_bytes:
        got = "more" if len(data) > n_bytes else len(data)
        raise DataError(f"{path}: expected {n_bytes} bytes of data for the shape {shape}, got {got}")
    # Copy, because numpy allocates large pages, which make reading shuffled examples faster.
    return np.frombuffer(data, np.uint8).reshape(shape).copy()


def _read(stream: io.BufferedIOBase, n_bytes: int) -> bytearray:
    """Read `n_bytes`, or fewer at the end of the stream."""
    data = bytearray()
    while piece := stream.read(min(CHUNK, n_bytes - len(data))):
        data += piece
    return data
