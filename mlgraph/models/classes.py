"""Labels that are not the numbers of the outputs: a model keeps these strings or integers as its classes."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.checks import shown
from mlgraph.engine.losses import target_array
from mlgraph.graph.ids import is_iterable

Classes = tuple[str, ...] | tuple[int, ...]

INT64 = np.iinfo(np.int64)


def n_classes_of(loss: str, n_outputs: int) -> int:
    """Number of classes that a model tells apart, 0 if its targets are not labels."""
    if loss == "softmax_cross_entropy":
        return n_outputs
    return 2 if loss == "binary_cross_entropy" and n_outputs == 1 else 0


def label_array(y: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    """Labels or targets as an array: of numbers, or of objects that are all strings; else a TypeError."""
    try:
        return target_array(y, what)
    except TypeError:
        try:
            array = np.asarray(y, object)
        except (RuntimeError, TypeError, ValueError):  # not convertible, not even to objects
            array = np.zeros(0, object)
        labels = array.ravel().tolist()
        are_strings = [isinstance(label, str) for label in labels]
        if not any(are_strings) or not _are_labels(array):
            raise
    if not all(are_strings):
        i = are_strings.index(False)
        raise TypeError(f"{what}: expected labels that are all strings, got {shown(labels[i])} in example {i}")
    return array


def _are_labels(y: npt.NDArray[Any]) -> bool:
    """Whether an array has labels rather than targets for each output, or probabilities."""
    return y.dtype.kind in "biuO" and (y.ndim < 2 or y.shape[1:] == (1,))


def first_classes(y: npt.NDArray[Any], n: int, *, may_count: bool) -> Classes | None:
    """The classes that the first `fit` decides on; None for the labels 0 to n - 1, and for targets.

    Parameters
    ----------
    n : int
        As from `n_classes_of`.
    may_count : bool
        Whether whole numbers other than 0 to n - 1 may be labels, if there are n different ones.
    """
    if not n or not y.size or not _are_labels(y):
        return None
    if y.dtype != object and (not may_count or y.dtype.kind == "b" or (y.min() >= 0 and y.max() < n)):
        return None
    found = sorted(set(y.ravel().tolist()))
    if len(found) == n:
        return checked_classes(found, n)
    if y.dtype != object:
        return None  # `read_targets` refuses them
    hint = (
        f'a network for them ends with add_layer({len(found)}, "softmax")'
        if len(found) > n
        else f"if more may follow, assign all {n} to the `classes` of the model before it learns"
    )
    raise ValueError(f"y: expected {n} different labels, as many as outputs, got {len(found)}, {shown(found)}; {hint}")


def _layers_for(n: int) -> str:
    """What a model needs to learn n different labels, for errors."""
    layers = f'labels need add_layer({max(n, 2)}, "softmax") as the last layer'
    if n > 2:
        return layers
    return f'{layers}, or add_layer(1, "sigmoid", loss="binary_cross_entropy"); other losses take 0 and 1 for them'


def numbered(y: npt.NDArray[Any], classes: Classes | None, n: int, what: str) -> npt.NDArray[Any]:
    """Labels as the numbers of their classes; targets, and the labels of a model without classes, as they are."""
    if classes is None or not _are_labels(y):
        if y.dtype == object:
            hint = "the model has no classes yet: fit decides on them, or assign them to its `classes`"
            hint = "the labels of y are numbers" if what == "validation y" else hint
            hint = hint if n else _layers_for(len(set(y.ravel().tolist())))
            raise TypeError(f"{what}: expected numbers, got strings; {hint}")
        return y
    number, labels = {label: i for i, label in enumerate(classes)}, y.ravel().tolist()
    try:
        return np.array([number[label] for label in labels], np.int64).reshape(y.shape)
    except KeyError:
        i = next(i for i, label in enumerate(labels) if label not in number)
        raise ValueError(
            f"{what}: expected one of the model's classes {shown(list(classes))}, got {shown(labels[i])} in example "
            f"{i}; if it is to learn other classes, assign None to its `classes` before"
        ) from None


def by_number(class_weight: dict[Any, float] | str | None, classes: Classes | None) -> dict[Any, float] | str | None:
    """A `class_weight` whose keys are the numbers of the classes."""
    if classes is None or not isinstance(class_weight, dict):
        return class_weight
    unknown = [label for label in class_weight if label not in classes]
    if unknown:
        raise ValueError(f"class_weight: expected labels among {shown(list(classes))}, got {shown(unknown[0])}")
    return {classes.index(label): weight for label, weight in class_weight.items()}


def checked_classes(value: Any, n: int) -> Classes | None:
    """Classes that a user assigns: n different strings or whole numbers, or None; else a TypeError or ValueError."""
    if value is None:
        return None
    names = value.tolist() if isinstance(value, np.ndarray) else value
    names = tuple(islice(names, n + 1)) if not isinstance(names, str) and is_iterable(names) else (None,)
    names = tuple(str(name) if isinstance(name, str) else name for name in names)
    if not all(type(name) is str for name in names) and not all(type(name) is int for name in names):
        raise TypeError(f"classes: expected strings, integers or None, got {shown(value)}")
    if not n:
        raise ValueError("classes: expected a model whose last layer is a softmax")
    if len(set(names)) < len(names) or len(names) != n:
        raise ValueError(f"classes: expected {n} different labels, as many as outputs, got {shown(value)}")
    for name in names:
        if isinstance(name, str) and name.endswith("\0"):  # numpy would leave it off
            raise ValueError(f"classes: expected labels that do not end with a null character, got {shown(name)}")
        if isinstance(name, int) and not INT64.min <= name <= INT64.max:
            raise ValueError(f"classes: expected integers that int64 can hold, got {shown(name)}")
    return names
