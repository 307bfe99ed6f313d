"""What there is to learn from in the studio: MNIST, points of the plane, and files of one's own."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.checks import StrOrBytesPath, one_of, shown
from mlgraph.datasets import load_mnist

MOST_BYTES = 256 * 2**20
"""Largest size of a file that is read, and of the arrays in it."""

TEST_SHARE = 5
"""Every fifth example of data without a test set is held out."""


class DataProblem(ValueError):
    """Data that cannot be learnt from; the message says why, on one line."""


@dataclass(frozen=True)
class Data:
    """Examples to train with and to test.

    Attributes
    ----------
    name : str
    x, test_x : array, shape (examples, columns)
    y, test_y : array
        Labels, integers of shape (examples,), if `classes` is not None; else targets of shape (examples, outputs).
    columns : list of str
    classes : list of str, or None
        The names of the labels.
    image : (int, int), or None
        Height and width, if an example is an image.
    standardize : bool
        Whether columns should be scaled to mean 0 and standard deviation 1.
    """

    name: str
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    test_x: npt.NDArray[Any]
    test_y: npt.NDArray[Any]
    columns: list[str]
    classes: list[str] | None
    image: tuple[int, int] | None = None
    standardize: bool = False

    @property
    def is_plane(self) -> bool:
        """Whether examples are points of the plane."""
        return bool(self.x.shape[1] == 2)


def mnist(folder: StrOrBytesPath | None = None) -> Data:
    """MNIST or other images in IDX files."""
    d = load_mnist(folder)
    h, w = d.image_shape
    columns = [f"pixel {i // w},{i % w}" for i in range(h * w)]
    classes = [str(i) for i in range(d.n_classes)]
    name = "MNIST" if folder is None else "images"
    return Data(name, d.train_x, d.train_y, d.test_x, d.test_y, columns, classes, (h, w))


def arrays(
    x: Any,
    y: Any,
    test: tuple[Any, Any] | None = None,
    *,
    name: str = "data",
    image: tuple[int, int] | None = None,
    columns: list[str] | None = None,
    classes: list[str] | None = None,
) -> Data:
    """Arrays as `Model.fit` takes them; without a test set, every fifth example is held out."""
    columns = columns or [str(c) for c in getattr(x, "columns", [])]
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim > 2 and image is None and x.ndim == 3:
        image = (x.shape[1], x.shape[2])
    x = x.reshape(len(x), -1) if x.ndim != 2 else x
    if len(x) != len(y):
        raise DataProblem(f"expected as many labels as examples, got {len(y)} and {len(x)}")
    if len(x) < 2:
        raise DataProblem(f"expected at least two examples, got {len(x)}")
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind in "iuUSOb":
        y = y[:, 0]
    if y.dtype.kind in "USO":
        names, y = np.unique(y.astype(str), return_inverse=True)
        classes = names.tolist()
    elif y.dtype.kind in "iub" and y.ndim == 1:
        if len(y) and int(y.min()) < 0:
            raise DataProblem(f"labels: expected integers from 0 on, got {int(y.min())}")
        classes = classes or [str(i) for i in range(int(y.max()) + 1)]
    else:
        classes, y = None, np.asarray(y, np.float32).reshape(len(y), -1)
    side = round(x.shape[1] ** 0.5)
    if image is None and side * side == x.shape[1] and side >= 8 and not columns:
        image = (side, side)
    if not columns:
        columns = [f"x{i}" for i in range(x.shape[1])]
    if test is None:
        order = np.random.default_rng(0).permutation(len(x))
        held, rest = order[: max(1, len(x) // TEST_SHARE)], order[max(1, len(x) // TEST_SHARE) :]
        x, y, test_x, test_y = x[rest], y[rest], x[held], y[held]
    else:
        test_x = np.asarray(test[0]).reshape(len(test[0]), -1)
        test_y = np.asarray(test[1])
        if classes is None:
            test_y = np.asarray(test_y, np.float32).reshape(len(test_y), -1)
        elif test_y.dtype.kind in "USO":
            at = {label: i for i, label in enumerate(classes)}
            test_y = np.array([at[str(label)] for label in test_y])
    standardize = x.dtype != np.uint8 and image is None and x.shape[1] != 2
    return Data(name, x, y, test_x, test_y, columns, classes, image, standardize)


# --- points of the plane --------------------------------------------------------------------------


def _circle(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    label = np.arange(n) % 2
    radius = np.where(label, rng.uniform(0, 0.45, n), rng.uniform(0.62, 1, n))
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]), label


def _xor(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    x = rng.uniform(0.08, 1, (n, 2)) * rng.choice([-1, 1], (n, 2))
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


def _spiral(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    label = np.arange(n) % 2
    t = np.sqrt(rng.uniform(0, 1, n))
    angle = 1.25 * t * 2 * np.pi + np.pi * label
    return np.column_stack([t * np.sin(angle), t * np.cos(angle)]) + rng.normal(0, 0.015, (n, 2)), label


def _blobs(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    label = np.arange(n) % 2
    return rng.normal(np.where(label, 0.45, -0.45)[:, None], 0.2, (n, 2)), label


TOYS: dict[str, Callable[[np.random.Generator, int], tuple[Any, Any]]] = {
    "circle": _circle,
    "xor": _xor,
    "spiral": _spiral,
    "two groups": _blobs,
}
"""Points of the plane in two classes."""


def toy(name: str, n: int = 500) -> Data:
    """Points of the plane, by name."""
    x, y = TOYS[one_of("toy", name, tuple(TOYS))](np.random.default_rng(0), n)
    return arrays(x.astype(np.float32), y, name=name, columns=["x", "y"], classes=["blue", "orange"])


# --- files ----------------------------------------------------------------------------------------


def table(content: bytes, name: str, target: str | None = None) -> Data:
    """A CSV with a header, numbers in all columns but that of the target, by default the last one.

    A target of words, or of at most 20 different whole numbers, is a label; another is a number to predict.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataProblem(f"{name}: expected text in UTF-8") from None
    try:
        dialect: Any = csv.Sniffer().sniff(text[:4096], ",;\t")
    except csv.Error:
        dialect = csv.excel
    try:
        rows = [row for row in csv.reader(io.StringIO(text), dialect) if row]
    except csv.Error as error:
        raise DataProblem(f"{name}: {error}") from None
    if len(rows) < 3:
        raise DataProblem(f"{name}: expected a header and at least two rows, got {len(rows)} rows")
    header, body = [cell.strip() for cell in rows[0]], rows[1:]
    for i, row in enumerate(body):
        if len(row) != len(header):
            raise DataProblem(f"{name}: row {i + 2} has {len(row)} cells, the header {len(header)}")
    if len(header) < 2:
        raise DataProblem(f"{name}: expected at least two columns, got {len(header)}")
    if all(_is_number(cell) for cell in header):
        raise DataProblem(f"{name}: expected names of columns in the first row, got numbers")
    at = len(header) - 1 if target is None else header.index(one_of("target", target, header))
    columns = [i for i in range(len(header)) if i != at]
    x = np.empty((len(body), len(columns)), np.float32)
    for j, i in enumerate(columns):
        for k, row in enumerate(body):
            if not _is_number(row[i]):
                raise DataProblem(f"{name}: row {k + 2}, column {header[i]}: expected a number, got {shown(row[i])}")
            x[k, j] = float(row[i])
    if not np.isfinite(x).all():
        raise DataProblem(f"{name}: expected numbers that are finite in float32")
    cells = [row[at].strip() for row in body]
    y: npt.NDArray[Any] = np.array(cells)
    if all(_is_number(cell) for cell in cells):
        y = np.array([float(cell) for cell in cells])
        distinct = np.unique(y)
        if len(distinct) <= 20 and (distinct == np.round(distinct)).all():
            y = np.array([f"{v:g}" for v in y])
        elif not np.isfinite(y).all():
            raise DataProblem(f"{name}: column {header[at]}: expected finite numbers")
    return arrays(x, y, name=name, columns=[header[i] for i in columns])


def npz(content: bytes, name: str) -> Data:
    """An .npz with the arrays x and y, or train_x, train_y, test_x and test_y (x_train, ... as well)."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as z:
            if sum(info.file_size for info in z.infolist()) > MOST_BYTES:
                raise DataProblem(f"{name}: the arrays are larger than {MOST_BYTES >> 20} MB")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
    except DataProblem:
        raise
    except Exception as error:
        raise DataProblem(f"{name}: not an .npz that can be read without pickle: {error}") from None
    for names in (("train_x", "train_y", "test_x", "test_y"), ("x_train", "y_train", "x_test", "y_test")):
        if all(key in found for key in names):
            a, b, c, d = (found[key] for key in names)
            return arrays(a, b, (c, d), name=name)
    if "x" in found and "y" in found:
        return arrays(found["x"], found["y"], name=name)
    raise DataProblem(f"{name}: expected the arrays x and y, got {', '.join(sorted(found)) or 'none'}")


def from_file(content: bytes, name: str, target: str | None = None) -> Data:
    """A .csv or .npz file."""
    if len(content) > MOST_BYTES:
        raise DataProblem(f"{name}: larger than {MOST_BYTES >> 20} MB")
    return npz(content, name) if name.lower().endswith(".npz") else table(content, name, target)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
