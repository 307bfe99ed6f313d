"""What there is to learn from in the studio: MNIST, points of the plane, and files of one's own."""

from __future__ import annotations

import csv
import io
import math
import zipfile
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.checks import FLOAT32_MAX, StrOrBytesPath, one_of, real_array, shown
from mlgraph.datasets import load_mnist
from mlgraph.models.scaling import Data as Unscaled, names_of_columns, ordered

MOST_BYTES = 256 * 2**20
"""Largest size of a file that is read, and of the arrays in it."""

MOST_COLUMNS = 2**16
MOST_CLASSES = 2**16
MOST_LABELS = 1000

MOST_WORDS = 100
"""Columns that a column of so many different words becomes at most."""

MOST_WHOLE = 20
"""So many different whole numbers to learn are still labels; of more, a file means amounts."""

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
    target : str, or None
        What `y` is, if it has a name.
    units : (mean, deviation), or None
        Arrays of shape (outputs,), if targets were standardized; see `as_given`.
    built_in : str, or None
        The name by which `built_in` makes them again.
    named : bool
        Whether `columns` are names that came with the data.
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
    target: str | None = None
    units: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
    built_in: str | None = None
    named: bool = False

    def in_order(self, columns: tuple[str, ...] | None) -> Data:
        """The same data with the columns in this order, if both have names; a ValueError if the names differ."""
        if not self.named or columns is None:
            return self
        x, test_x = (ordered(Unscaled("x", part, tuple(self.columns)), columns) for part in (self.x, self.test_x))
        return replace(self, x=x.array, test_x=test_x.array, columns=list(x.columns or ()))

    def in_units(self) -> Data:
        """The same data with targets as they were given."""
        if self.units is None:
            return self
        y, test_y = (self.as_given(part) for part in (self.y, self.test_y))
        return replace(self, y=y, test_y=test_y, target=None, units=None)

    def as_given(self, y: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Targets, or what a network says, in the units in which targets were given; labels stay as they are."""
        if self.units is None:
            return y
        mean, deviation = self.units
        given: npt.NDArray[Any] = deviation * y + mean
        return given.astype(np.float32)

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
    name, built_in = ("MNIST", "mnist") if folder is None else ("images", None)
    return Data(name, d.train_x, d.train_y, d.test_x, d.test_y, columns, classes, (h, w), built_in=built_in)


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
    named = columns or names_of_columns(x)
    columns, shape = list(named or ()), np.shape(x)
    x = _examples("x", x)
    y = _targets("y", y, len(x))
    if len(x) < 2:
        raise DataProblem(f"expected at least two examples, got {len(x)}")
    if test is None:
        order, n = np.random.default_rng(0).permutation(len(x)), max(1, len(x) // TEST_SHARE)
        x, y, test_x, test_y = x[order[n:]], y[order[n:]], x[order[:n]], y[order[:n]]
    else:
        test_x, test_names = _examples("the x of the test", test[0]), names_of_columns(test[0])
        test_y = _targets("the y of the test", test[1], len(test_x))
        if test_x.shape[1] != x.shape[1]:
            raise DataProblem(f"the examples have {x.shape[1]} columns, those of the test {test_x.shape[1]}")
        if columns and test_names:
            if set(columns) != set(test_names):
                other = next(name for name in test_names if name not in columns)
                raise DataProblem(f"the x of the test has a column {shown(other)}, which x does not have")
            test_x = test_x[:, [test_names.index(name) for name in columns]]
        if not len(test_x):
            raise DataProblem("the test has no examples")
        if test_y.shape[1:] != y.shape[1:] or (test_y.dtype.kind == "U") != (y.dtype.kind == "U"):
            raise DataProblem("y and the y of the test are of different kinds")
    if y.dtype.kind == "U":
        # A label that only the test has counts, too: it is an output that nothing teaches.
        names, at = np.unique(np.concatenate([y, test_y]), return_inverse=True)
        classes, y, test_y = names.tolist(), at[: len(y)], at[len(y) :]
    elif y.dtype.kind in "iu" and y.ndim == 1 and test_y.dtype.kind in "iu":
        least, most = min(y.min(), test_y.min()), max(y.max(), test_y.max())
        if least < 0:
            raise DataProblem(f"labels: expected integers from 0 on, got {least}")
        if most >= MOST_CLASSES:
            raise DataProblem(
                f"labels: expected integers below {MOST_CLASSES:,}, got {most}; amounts need a floating dtype"
            )
        classes = classes or [str(i) for i in range(int(most) + 1)]
    else:
        classes = None
        y, test_y = (np.asarray(part, np.float32).reshape(len(part), -1) for part in (y, test_y))
    pixels = [size for size in shape[1:] if size > 1]
    if image is None and len(shape) > 2 and len(pixels) == 2:
        image = (pixels[0], pixels[1])
    side = round(x.shape[1] ** 0.5)
    if image is None and side * side == x.shape[1] and side >= 8 and not columns:
        image = (side, side)
    if not columns:
        columns = [f"x{i}" for i in range(x.shape[1])]
    standardize = x.dtype != np.uint8 and image is None
    return Data(name, x, y, test_x, test_y, columns, classes, image, standardize, named=bool(named))


def _examples(what: str, given: Any) -> npt.NDArray[Any]:
    """Rows of finite numbers."""
    try:
        x = real_array(what, given)
    except TypeError as error:
        raise DataProblem(str(error)) from None
    if not x.ndim or not all(x.shape[1:]):
        raise DataProblem(f"{what}: expected rows of numbers, got an array of shape {x.shape}")
    x = x.reshape(len(x), -1 if x.size else int(np.prod(x.shape[1:])))
    if x.dtype.kind == "f" and not (np.abs(x) <= FLOAT32_MAX).all():
        row, column = np.argwhere(~(np.abs(x) <= FLOAT32_MAX))[0]
        raise DataProblem(f"{what}[{row}, {column}] is {x[row, column]}: expected numbers that float32 can hold")
    return x


def _targets(what: str, given: Any, n: int) -> npt.NDArray[Any]:
    """Labels, as words or integers of shape (n,), or rows of finite numbers."""
    y: npt.NDArray[Any] = np.asarray(given.toarray() if hasattr(given, "toarray") else given)
    if y.dtype.kind == "O" and y.ndim and all(isinstance(label, str) for label in y.flat):
        y = y.astype(str)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind == "b":
        y = y.astype(np.int64)
    if y.dtype.kind not in "iufU":
        raise DataProblem(f"{what}: expected labels or numbers, got an array of {y.dtype}")
    if not y.ndim or not all(y.shape[1:]):
        raise DataProblem(f"{what}: expected a label for each example, got an array of shape {y.shape}")
    if len(y) != n:
        raise DataProblem(f"{what}: expected as many labels as examples, got {len(y)} and {n}")
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind != "f":
        y = y[:, 0]
    if y.dtype.kind == "U" and y.ndim != 1:
        raise DataProblem(f"{what}: expected one label for each example, got an array of shape {y.shape}")
    if y.dtype.kind == "f" and not (np.abs(y) <= FLOAT32_MAX).all():
        raise DataProblem(f"{what}: expected numbers that float32 can hold")
    return y


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
    return replace(points(x, y, name), built_in=name if n == 500 else None)


def built_in(name: str) -> Data:
    """MNIST, or points of the plane, by the name that `Data.built_in` has."""
    return mnist() if one_of("data", name, ("mnist", *TOYS)) == "mnist" else toy(name)


def points(x: npt.NDArray[Any], y: npt.NDArray[Any], name: str) -> Data:
    """Points of the plane, near the origin, in two classes."""
    data = arrays(x.astype(np.float32), y, name=name, columns=["x", "y"], classes=["blue", "orange"])
    return replace(data, standardize=False, named=False)


# --- files ----------------------------------------------------------------------------------------


def table(content: bytes, name: str, target: str | None = None) -> Data:
    """A CSV with a header.

    Cells are separated by commas, semicolons or tabs; by the latter two, numbers may have a decimal comma.
    A first column without a name is a number of the row, as pandas and R write it, and is left out.
    The target is the last column, unless another is named. A target of words, or of at most 20 different whole
    numbers, is a label; another is a number to predict.
    Another column of words becomes one of 0 and 1 for each of its words, of names like pandas.get_dummies makes.
    """
    text = _text(content, name)
    first = text.lstrip("\r\n").partition("\n")[0]
    separator = max(",;\t", key="".join(first.split('"')[::2]).count)  # one in quotes does not separate
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        header = [cell.strip() for cell in next((row for row in rows if any(map(str.strip, row))), [])]
        columns, at = _columns(header, name, target)
        x, cells = array("f"), []
        words: dict[int, dict[str, int]] = {}  # by column, the number of each word
        for row in rows:
            if not any(map(str.strip, row)):
                continue
            if len(row) != len(header):
                raise DataProblem(f"{name}: line {rows.line_num} has {len(row)} cells, the header {len(header)}")
            cells.append(row[at].strip())
            for i in columns:
                cell, value = row[i].strip(), _number(row[i], separator)
                if value is None and cell and len(cells) == 1 and not _means_a_number(cell):
                    words[i] = {}
                if i in words and cell and value is None:
                    value = words[i].setdefault(cell, len(words[i]))
                    if value == MOST_WORDS:
                        raise DataProblem(
                            f"{name}: the column {shown(header[i])} has more than {MOST_WORDS} different words; "
                            "leave it out, or encode it as numbers"
                        )
                elif i in words or value is None:
                    expected = "a word, as in the rows before" if i in words else "a number that float32 can hold"
                    where = f"line {rows.line_num}, column {shown(header[i])}"
                    raise DataProblem(f"{name}: {where}: expected {expected}, got {shown(cell) if cell else 'nothing'}")
                x.append(value)
    except csv.Error as error:
        if "field limit" in str(error):
            hint = f"a cell has more than {csv.field_size_limit():,} characters; is a quotation mark left open?"
            raise DataProblem(f"{name}: line {rows.line_num}: {hint}") from None
        raise DataProblem(f"{name}: line {rows.line_num}: {error}") from None
    if len(cells) < 2:
        raise DataProblem(f"{name}: expected a header and at least two rows, got {len(cells)} rows")
    empty = cells.index("") if "" in cells else None
    if empty is not None:
        raise DataProblem(f"{name}: row {empty + 1} has nothing in the column {shown(header[at])}, which is to learn")
    if len(set(cells)) < 2:
        raise DataProblem(f"{name}: the column {shown(header[at])} has only one value: there is nothing to learn")
    values = [_number(cell, separator) for cell in cells]
    y, classes = (np.array(cells), None) if None in values else _labels(np.array(values, float))
    numbers = np.frombuffer(x, np.float32).reshape(len(cells), len(columns))
    names = [header[i] for i in columns]
    if words:
        numbers, names = _encoded(numbers, names, [words.get(i) for i in columns], name)
    data = arrays(numbers, y, name=name, columns=names, classes=classes)
    return _scaled(replace(data, target=header[at]), header[at])


def _means_a_number(cell: str) -> bool:
    """Whether a cell that is no number of float32 stands for a number, or for a gap between numbers."""
    try:
        float(cell)
    except ValueError:
        return cell.lower() in GAPS
    return True


GAPS = {"na", "n/a", "#n/a", "null", "none", "-", "?"}
"""What programs write for a gap, besides nothing and nan."""


def _encoded(
    numbers: npt.NDArray[Any], names: list[str], words: list[dict[str, int] | None], name: str
) -> tuple[npt.NDArray[Any], list[str]]:
    """Numbers with a column of 0 and 1 for each word in place of a column of words, and the names of the columns."""
    width = sum(1 if of is None else len(of) for of in words)
    if width > MOST_COLUMNS or 4 * width * len(numbers) > MOST_BYTES:
        got = f"the columns of words become {width:,} columns of 0 and 1 in all"
        raise DataProblem(f"{name}: {got}, which is too much; leave some out")
    parts, called = [], []
    for j, (column, of) in enumerate(zip(names, words, strict=True)):
        if of is None:
            parts.append(numbers[:, j : j + 1])
            called.append(column)
        else:
            order = sorted(of)
            parts.append(numbers[:, j : j + 1] == [of[word] for word in order])
            called += [f"{column}_{word}" for word in order]
    if len(set(called)) < len(called):
        twice = next(column for column in called if called.count(column) > 1)
        raise DataProblem(f"{name}: two columns would be named {shown(twice)}, for a word or in the header; rename one")
    return np.hstack(parts, dtype=np.float32, casting="unsafe"), called


def _text(content: bytes, name: str) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16"]
    elif b"\0" in content or content[:4] == b"PK\3\4":
        raise DataProblem(f"{name}: expected text, got a binary file; save a spreadsheet as .csv")
    else:
        encodings = ["utf-8-sig", "cp1252"]  # the second is what spreadsheets still write
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataProblem(f"{name}: expected text in UTF-8")


def _columns(header: list[str], name: str, target: str | None) -> tuple[list[int], int]:
    """The columns of the numbers, and that of the target."""
    first = 1 if header and not header[0] else 0
    if len(header) - first < 2:
        raise DataProblem(f"{name}: expected a header with at least two columns, got {len(header) - first}")
    if len(header) > MOST_COLUMNS:
        raise DataProblem(f"{name}: expected at most {MOST_COLUMNS:,} columns, got {len(header):,}")
    if all(_number(cell, ",") is not None for cell in header[first:]):
        raise DataProblem(f"{name}: expected names of columns in the first row, got numbers")
    for i, cell in enumerate(header[first:], first):
        header[i] = cell or f"column {i + 1}"
    if len(set(header)) < len(header):
        twice = next(cell for cell in header if header.count(cell) > 1)
        raise DataProblem(f"{name}: two columns are named {shown(twice)}")
    at = len(header) - 1
    if target is not None:
        if target not in header[first:]:
            raise DataProblem(f"{name}: there is no column {shown(target)}; the last one is {shown(header[-1])}")
        at = header.index(target)
    return [i for i in range(first, len(header)) if i != at], at


def _number(cell: str, separator: str) -> float | None:
    """The number in a cell, or None."""
    if separator != "," and "." not in cell:
        cell = cell.replace(",", ".")
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) <= FLOAT32_MAX and "_" not in cell else None


def _labels(y: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], list[str] | None]:
    """Few whole numbers as labels, with their names; else the numbers."""
    distinct = np.unique(y)
    if len(distinct) > MOST_WHOLE or (distinct != np.round(distinct)).any():
        return y, None
    return np.searchsorted(distinct, y), [f"{value:.0f}" for value in distinct]


def _scaled(data: Data, what: str) -> Data:
    """With targets of mean 0 and standard deviation 1: amounts like 200,000 take too many steps to reach."""
    if data.classes is not None:
        return data
    mean, deviation = data.y.mean(axis=0, dtype=float), data.y.std(axis=0, dtype=float)
    deviation = np.where(deviation > 0, deviation, 1)
    y, test_y = (((part - mean) / deviation).astype(np.float32) for part in (data.y, data.test_y))
    of = f"{what}, in standard deviations from its mean"
    if len(mean) == 1:
        zero, one = (f"{float(f'{value:.4g}'):,.10g}" for value in (mean[0], mean[0] + deviation[0]))
        of += f": an output of 0 means {zero}, of 1 {one}"
    return replace(data, y=y, test_y=test_y, target=of, units=(mean, deviation))


def npz(content: bytes, name: str) -> Data:
    """An .npz with the arrays x and y, or train_x, train_y, test_x and test_y (x_train, ... as well)."""
    found: dict[str, npt.NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as z:
            if sum(info.file_size for info in z.infolist()) > MOST_BYTES:
                raise DataProblem(f"{name}: the arrays are larger than {MOST_BYTES >> 20} MB")
            names = {key.removesuffix(".npy"): key for key in z.namelist()}
            for key in sorted({"x", "y", *sum(SETS, ())} & set(names)):
                found[key] = npy(z.read(names[key]), f"{name}: {key}")
    except DataProblem:
        raise
    except Exception as error:
        raise DataProblem(f"{name}: not an .npz: {error}") from None
    return _named(found, name)


SETS = (("train_x", "train_y", "test_x", "test_y"), ("x_train", "y_train", "x_test", "y_test"))
"""Names of arrays with a test set."""


def _named(found: dict[str, npt.NDArray[Any]], name: str, classes: list[str] | None = None) -> Data:
    """Data of arrays by their names; integers of a thousand or more are amounts, not labels."""
    for names in (*SETS, ("x", "y")):
        if all(key in found for key in names):
            x, y, *test = (found[key] for key in names)
            targets = [y, *test[1:]]
            break
    else:
        got = ", ".join(sorted(found)) or "none of them"
        raise DataProblem(f"{name}: expected the arrays x and y, or train_x, train_y, test_x and test_y; got {got}")
    if any(part.dtype.kind in "iu" and part.max(initial=0) >= MOST_LABELS for part in targets):
        targets = [part.astype(float) for part in targets]
    try:
        data = arrays(x, targets[0], (test[0], targets[1]) if test else None, name=name, classes=classes)
    except DataProblem as error:
        raise DataProblem(f"{name}: {error}") from None
    if (targets[0] == targets[0][:1]).all():
        raise DataProblem(f"{name}: y has only one value: there is nothing to learn")
    return _scaled(data, "y")


def npy(content: bytes, name: str) -> npt.NDArray[Any]:
    """The array of a .npy file; its header is checked before memory is asked for."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = read(file)
        if dtype.kind not in "biufUS":
            raise DataProblem(f"{name}: expected an array of numbers or of words, got {shown(str(dtype))}")
        if not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
            raise DataProblem(f"{name}: its size is not that of its header")
        return np.load(io.BytesIO(content), allow_pickle=False)  # type: ignore[no-any-return]
    except DataProblem:
        raise
    except Exception as error:
        raise DataProblem(f"{name}: not a .npy file: {error}") from None


def rows(content: bytes, name: str) -> Data:
    """A .npy: a table of numbers whose last column is the target."""
    found = npy(content, name)
    if found.ndim != 2 or found.shape[1] < 2 or found.dtype.kind not in "biuf":
        got = f"{found.dtype} of shape {found.shape}"
        raise DataProblem(f"{name}: expected rows of numbers, the last of which is to learn, got {got}")
    y, classes = _labels(found[:, -1].astype(float))
    return _named({"x": found[:, :-1], "y": y}, name, classes)


def from_file(content: bytes, name: str, target: str | None = None) -> Data:
    """A .csv, .npz or .npy file."""
    if len(content) > MOST_BYTES:
        raise DataProblem(f"{name}: larger than {MOST_BYTES >> 20} MB")
    lower = name.lower()
    if lower.endswith(".npz"):
        return npz(content, name)
    return rows(content, name) if lower.endswith(".npy") else table(content, name, target)


def from_path(path: Path | None, target: str | None = None) -> Data:
    """A file, a folder of IDX files, or one of x.npy and y.npy (or train_x.npy, ...); MNIST if it is None."""
    if path is None or not path.is_dir():
        return mnist() if path is None else from_file(path.read_bytes(), path.name, target)
    found = {file.stem: file for file in path.glob("*.npy") if file.stem in {"x", "y", *sum(SETS, ())}}
    if not found:
        return mnist(path)
    return _named({stem: npy(file.read_bytes(), str(file)) for stem, file in found.items()}, path.name)
