"""What happened in a run, batch by batch and epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

import mlgraph_ext
from mlgraph._support.array_types import Float32, Float64, Int64, UInt8
from mlgraph._support.attributes import Declared
from mlgraph._support.checks import StrOrBytesPath, shown
from mlgraph._support.tables import to_pandas
from mlgraph.engine.steps import Steps

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


class NoValidation(np.ndarray[Any, np.dtype[np.float64]]):
    """Empty results of validation. An index is an error that says where results come from."""

    def __getitem__(self, at: Any) -> Any:
        try:
            return super().__getitem__(at)
        except IndexError:
            hint = "fit adds one after each epoch if it is given validation_data or validation_split"
            raise IndexError(f"history: no validation result at index {shown(at)}: {hint}") from None


@dataclass(init=False, repr=False, eq=False)
class History(Declared, Mapping[str, npt.NDArray[Any]]):
    """What happened in a run: a mapping from names to columns, which are attributes, too.

    ``history["epoch_loss"]`` is ``history.epoch_loss``; ``list(history)`` lists the names.

    Attributes
    ----------
    batch_examples, batch_size : int64, shape (batches,)
        Examples seen up to the end of the batch, over all epochs; size of the batch.
    batch_skipped : int64, shape (batches,)
        How many examples of the batch were left out, because they gave a number that is not finite.
    learning_rate, batch_loss, batch_accuracy : float64, shape (batches,)
        Loss and accuracy are means over the batch, before its update of the parameters; NaN if
        there is none.
    epoch_examples : int64, shape (epochs,)
    epoch_loss, epoch_accuracy : float64, shape (epochs,)
        Means over the examples of the epoch that were not left out, each measured when its batch
        was trained on.
    validation_loss, validation_accuracy : float64, shape (epochs,)
        After the epoch; empty without validation data. An index into empty ones is an IndexError
        that names the missing argument `validation_data`.
    validation_<name> : float64, shape (epochs,)
        For each of the `metrics` that `fit` was given.
    epoch_seconds : float64, shape (epochs,)
        Time of the training alone, without validation and callbacks. (Epochs that one call of the
        sweep takes together, which happens if nothing else does between them, have shares of its
        time by their steps and examples.)
    epoch_edges : int64, shape (epochs,)
        How many edges were alive at the end of the epoch.
    nonfinite_step, nonfinite_sweep, nonfinite_node, nonfinite_example, nonfinite_cut : int64, shape (faults,)
        One entry for each example left out or neuron disconnected. Step: its number since training
        began. Sweep: 0 forward, 1 backward, 2 update. Node: where the first fault of that step
        began. Example: its place in the data, -1 if only a sum over the examples of the step, or
        the resulting update, overflowed. Cut: the neuron that was cut, or -1.
    """

    batch_examples: Int64
    batch_size: Int64
    batch_skipped: Int64
    learning_rate: Float64
    batch_loss: Float64
    batch_accuracy: Float64
    epoch_examples: Int64
    epoch_loss: Float64
    epoch_accuracy: Float64
    validation_loss: Float64
    validation_accuracy: Float64
    epoch_seconds: Float64
    epoch_edges: Int64
    nonfinite_step: Int64
    nonfinite_sweep: Int64
    nonfinite_node: Int64
    nonfinite_example: Int64
    nonfinite_cut: Int64

    _elsewhere: ClassVar = {
        "history": "the history itself, which is a mapping, or history.to_pandas()",
        "loss": "epoch_loss",
        "accuracy": "epoch_accuracy",
        "val_loss": "validation_loss",
        "val_accuracy": "validation_accuracy",
    }

    def __init__(self, **columns: npt.NDArray[Any]) -> None:
        unknown = columns.keys() - _EMPTY.keys()
        if unknown:
            raise TypeError(f"history: no column {', '.join(sorted(unknown))}; columns: {', '.join(_EMPTY)}")
        # Each new model has a history: new arrays, and assignments, which check names, would take 8 us.
        vars(self).update(_EMPTY, **{name: column for name, column in columns.items() if len(column)})

    def add_metrics(self, names: Sequence[str], columns: Float64 | None = None) -> None:
        """Add columns for the metrics of these names, by default empty ones."""
        columns = np.zeros((len(names), 0)) if columns is None else columns
        vars(self).update({f"validation_{name}": column.copy() for name, column in zip(names, columns, strict=True)})

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, which have columns ``validation_<name>``."""
        return [name.removeprefix("validation_") for name in self if name not in _EMPTY]

    # Two histories are equal if they are the same object, unlike other mappings.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        try:
            column: npt.NDArray[Any] = vars(self)[name]
        except (KeyError, TypeError):
            raise KeyError(f"history: no column {shown(name)}{self._hint(name)}; columns: {', '.join(self)}") from None
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self))

    def __len__(self) -> int:
        return len(vars(self))

    def _hint(self, name: Any) -> str:
        """A column with a similar name, or one that Keras calls so."""
        if not isinstance(name, str):
            return ""
        wanted = name.replace("acc", "accuracy") if name.endswith("acc") else name
        wanted = f"validation_{wanted[4:]}" if wanted.startswith("val_") else wanted
        close = [one for one in (wanted, f"epoch_{wanted}") if one in vars(self)] or get_close_matches(wanted, self, 1)
        return f"; did you mean {close[0]}?" if close else ""

    def __repr__(self) -> str:
        cut = np.count_nonzero(self.nonfinite_cut >= 0)
        more = [
            f"{n} {what}"
            for n, what in ((int(self.batch_skipped.sum()), "examples left out"), (cut, "neurons cut"))
            if n
        ]
        for what in ("epoch_loss", "validation_loss", "validation_accuracy"):
            more += [f"{what.replace('_', ' ')} {last:.4g}" for last in getattr(self, what)[-1:] if last == last]
        return f"<History of {', '.join([f'{len(self.epoch_loss)} epochs', f'{len(self.batch_loss)} batches', *more])}>"

    def draw(
        self, path: StrOrBytesPath | None = None, *, title: str | None = None, epoch_size: int | None = None
    ) -> Figure:
        """Draw the accuracy or the loss, the learning rate and the batch size over the epochs.

        Parameters
        ----------
        path : path, optional
            File to write: .png, .svg or .pdf; without a suffix, PNG.
        title : str, optional
            Text above the picture.
        epoch_size : int, optional
            Number of examples in an epoch. Defaults to that of the first epoch.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook shows it. `mlgraph.pictures.draw_training` describes it.

        Raises
        ------
        ImportError
            If matplotlib is not installed. The message says how to install it.
        TypeError, ValueError, OSError
            As for `mlgraph.pictures.draw_training`.

        Examples
        --------
        >>> net = mlgraph.Network(2, seed=0)
        >>> layer = net.add_layer(2, activation="softmax")
        >>> figure = net.fit([[0.0, 1.0], [1.0, 0.0]], [0, 1], epochs=3).draw("training.png")
        """
        from mlgraph.pictures.plotting import draw_training

        return draw_training(self, path, title=title, epoch_size=epoch_size)

    def add(self, **values: Any) -> None:
        """Append to the arrays of these names: to all of them or to none."""
        rooms, columns, longer = _rooms.setdefault(self, {}), vars(self), {}
        for name, value in values.items():
            column = columns[name]
            more = value if type(value) is np.ndarray and value.ndim else np.atleast_1d(value)
            begin, end = len(column), len(column) + len(more)
            room, used = rooms.get(name, (None, 0))
            if room is None or column.base is not room or used != begin or len(room) < end:
                room = np.empty(max(64, 2 * end), column.dtype)
                room[:begin] = column
            room[begin:end] = more
            rooms[name] = room, end
            longer[name] = room[:end]
        columns.update(longer)

    def to_pandas(self) -> pandas.DataFrame:
        """The columns of epochs as a pandas frame with a row for each epoch.

        These are the columns `epoch_...` and, with validation data, `validation_...`. Those of batches
        have another length: ``pandas.DataFrame({name: history[name] for name in ("learning_rate",
        "batch_loss")})``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        epochs = {name: column for name, column in self.items() if name.startswith(("epoch_", "validation_"))}
        n = len(self.epoch_loss)
        return to_pandas({name: column for name, column in epochs.items() if len(column) == n})


_EMPTY: dict[str, npt.NDArray[Any]] = {
    column.name: np.zeros(0).view(NoValidation)
    if column.name in ("validation_loss", "validation_accuracy")
    else np.zeros(0, np.int64 if column.type == "Int64" else np.float64)
    for column in fields(History)
}
"""The columns of a run that has not begun. Nothing can be written into them, so all histories share them."""

_rooms: WeakKeyDictionary[History, dict[str, tuple[npt.NDArray[Any], int]]] = WeakKeyDictionary()
"""For each column, the longer array that it is the beginning of, and how much of that is used: it can grow uncopied."""


def means_of(history: History, begin: Int64) -> tuple[Float64, Float64]:
    """Mean loss and accuracy over the batches from each number in `begin` to the next, without skipped examples."""
    part, first = slice(begin[0], begin[-1]), begin[:-1] - begin[0]
    count = history.batch_size[part] - history.batch_skipped[part]
    counts, columns = np.add.reduceat(count, first), [history.batch_loss[part], history.batch_accuracy[part]]
    # Infinities of both signs, once all that learns has been disconnected; 0 / 0 where all examples
    # were left out.
    with np.errstate(invalid="ignore"):
        sums = np.add.reduceat(np.where(count > 0, columns * count, 0), first, axis=1)
        loss, accuracy = sums / counts
    return loss, accuracy


def record(history: History, steps: Steps, before: int, losses: Float32, correct: UInt8 | None) -> None:
    """Append what steps gave; `before`: the examples seen before place 0 of their losses and answers."""
    first, size = steps.first, steps.size
    loss, (right, left_out) = np.empty(len(size)), np.empty((2, len(size)), np.int64)
    mlgraph_ext.sweep.sum_steps(first, size, losses, correct, loss, right, left_out)
    count = size - left_out
    # Infinities of both signs are possible where nothing is learnt from them; and 0 / 0 where a
    # step was left out.
    with np.errstate(invalid="ignore"):
        history.add(
            batch_examples=before + first + size,
            batch_size=size,
            batch_skipped=left_out,
            learning_rate=steps.rate,
            batch_loss=loss / count,
            batch_accuracy=np.full(len(size), np.nan) if correct is None else right / count,
        )
