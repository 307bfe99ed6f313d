"""The picture of a training run: a line of the accuracy (or loss) of every batch, and one of that of the test data."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph._support import checks
from mlgraph._support.array_types import Float64
from mlgraph._support.atomic_files import write_atomically
from mlgraph._support.checks import StrOrBytesPath, shown, whole
from mlgraph._support.interrupts import uninterrupted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mlgraph.models.history import History

__all__ = ["LivePicture", "NoDisplayError", "training_picture"]

Numbers = npt.NDArray[Any]

SIZE = (9.0, 6.0)  # inches
DPI = 120
COLUMNS = 1000  # a line of many more points is reduced to its outline, which looks the same
SOFTENING = 0.01  # of the accuracy scale: the larger, the less room between 99 and 100 %
BEHIND_TEXT = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8}
ACCURACY_TICKS = (0, 20, 40, 60, 70, 80, 85, 90, 92, 94, 96, 98, 99, 100)  # percent

FORMATS: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Formats of picture files, each with the metadata that must be None for a picture drawn again to give the same file."""

LIVE_INTERVAL = 0.2  # seconds between two updates of a window, at least
LIVE_COLUMNS = 500  # coarser than `COLUMNS`, which halves the time
LIVE_SHARE = 0.04  # of the time of a run that its window may take


class NoDisplayError(RuntimeError):
    """There is no screen to open a window on. The message is one line that says why."""


def training_picture(
    history: History, path: StrOrBytesPath | None = None, *, title: str | None = None, epoch_size: int | None = None
) -> Figure:
    """Draw how accuracy went over a training run; of a run without accuracies, such as of a regression, the loss.

    The upper panel has the accuracy of every batch as a thin line, its running mean, and the test accuracy after each
    epoch; its scale is stretched towards 100 %, so that both the first batches and the last epochs can be read. (That of
    losses is logarithmic, if all are above 0.) The lower panel has the learning rate and the batch size. No display is
    needed and matplotlib's state stays as it is.

    Parameters
    ----------
    history : History
        The history that ``fit`` returns, or that of a run in progress.
    path : path, optional
        The file to write, atomically: .svg, .pdf or .png, the last also without a suffix. Equal histories give equal bytes.
    title : str, optional
        Text above the picture.
    epoch_size : int, optional
        Examples in an epoch; by default as many as in the first epoch.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed. The message names the extra to install.
    TypeError, ValueError
        If `path` is no path, its name has another suffix, or `epoch_size` is no integer from 1 on.
    OSError
        If the file cannot be written; what was at `path` is still there.
    """
    if epoch_size is not None:
        whole("epoch_size", epoch_size)
    figure = new_figure(SIZE, DPI)
    of_loss = bool(np.isnan(history.batch_accuracy).all()) and len(history.batch_loss) > 0
    _Picture(figure, title, epoch_size, of_loss=of_loss).update(history)
    if path is not None:
        save_figure(figure, path)
    return figure


def new_figure(size: tuple[float, float], dpi: int) -> Figure:
    """A matplotlib figure that has no window; without matplotlib, an ImportError that names the extra to install."""
    try:
        from matplotlib.figure import Figure
    except (ImportError, ValueError) as error:
        raise without_matplotlib(error) from error
    return Figure(figsize=size, dpi=dpi)


def picture_format(path: StrOrBytesPath) -> str:
    """The key of `FORMATS` for the suffix of a path; png if it has none. Any other suffix, or no path, is an error."""
    name = checks.path("path", path)
    suffix = Path(name).suffix[1:].lower() or "png"
    if suffix not in FORMATS:
        names = " or ".join(f".{name}" for name in FORMATS)
        raise ValueError(f"path: expected a picture's name that ends in {names}, got {shown(name)}")
    return suffix


def save_figure(figure: Any, path: StrOrBytesPath) -> None:
    """Write a matplotlib figure, all of it or nothing, in the format that the name says."""
    import matplotlib

    kind = picture_format(path)
    # Ctrl-C within matplotlib's C code may come out of it as any error.
    with matplotlib.rc_context({"svg.hashsalt": "mlgraph"}), uninterrupted():  # or names inside it are random
        write_atomically(path, lambda file: figure.savefig(file, format=kind, metadata=FORMATS[kind]))


class LivePicture:
    """The picture of `training_picture` in a window, kept up to date during the training.

    It draws in the thread that trains, and only as often as leaves nearly all of the time to the training. Closing
    the window ends the drawing and nothing else.

    Parameters
    ----------
    title, epoch_size
        As for `training_picture`.
    n_epochs : int
        Length of the axis.

    Raises
    ------
    NoDisplayError
        If no window can be opened.
    ImportError
        If matplotlib is not installed. The message names the extra to install.
    """

    def __init__(self, *, n_epochs: int, title: str | None = None, epoch_size: int | None = None) -> None:
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise NoDisplayError("neither DISPLAY nor WAYLAND_DISPLAY is set")
        try:
            import matplotlib.pyplot as plt
        except (ImportError, ValueError) as error:
            raise without_matplotlib(error) from error

        self._plt = plt
        self._next = 0.0  # when an update is due
        self._connection: int | None = None
        try:
            self._figure = plt.figure(figsize=SIZE)
            with ExitStack() as unless_open:
                unless_open.callback(plt.close, self._figure)
                self._canvas: Any = self._figure.canvas
                if not self._canvas.required_interactive_framework:
                    raise NoDisplayError(f"matplotlib's backend {plt.get_backend()} opens no windows")
                self._picture = _Picture(self._figure, title, epoch_size, n_epochs, LIVE_COLUMNS)
                self._animate(self._canvas.supports_blit)
                self._figure.show()
                self._canvas.draw()
                self._canvas.flush_events()
                unless_open.pop_all()
        except NoDisplayError:
            raise
        except Exception as error:  # of many types: each backend has its own way to fail
            reason = " ".join(str(error).split()) or type(error).__name__
            raise NoDisplayError(f"matplotlib cannot open a window: {reason}") from error

    @property
    def is_open(self) -> bool:
        """Whether the window is still open."""
        return self._plt.fignum_exists(self._figure.number)

    @property
    def is_due(self) -> bool:
        """Whether the window may be updated without holding up the training."""
        return time.perf_counter() >= self._next and self.is_open

    def update(self, history: History) -> None:
        """Draw the history so far. To be called when `is_due` is true."""
        start = time.perf_counter()
        limits = self._picture.limits
        self._picture.update(history)
        if self._animated and self._picture.limits == limits:
            self._canvas.restore_region(self._background)
            self._draw_artists()
            self._canvas.blit(self._figure.bbox)
        else:
            self._canvas.draw()
        self._canvas.flush_events()
        end = time.perf_counter()
        # The first update draws the axes, at several times the cost; if it counted, a short run would see no other.
        pause = (end - start) / LIVE_SHARE if self._next else 0
        self._next = max(start + LIVE_INTERVAL, end + pause)

    def wait(self, history: History) -> None:
        """Draw the whole history and keep the window until the user closes it."""
        if self.is_open:
            self._animate(False)
            self._picture.update(history)
            self._canvas.draw()
            self._plt.show(block=True)

    # The axes, their numbers and the legend cost ten times the lines. So they are drawn when they change, kept as a
    # background, and each update draws only the lines over it.

    def _animate(self, on: bool) -> None:
        self._animated = on
        for artist in self._picture.artists:
            artist.set_animated(on)
        if on:
            self._connection = self._canvas.mpl_connect("draw_event", self._after_draw)
        elif self._connection is not None:
            self._canvas.mpl_disconnect(self._connection)

    def _after_draw(self, event: object) -> None:
        self._background = self._canvas.copy_from_bbox(self._figure.bbox)
        self._draw_artists()

    def _draw_artists(self) -> None:
        for artist in self._picture.artists:
            artist.axes.draw_artist(artist)


class _Picture:
    """The axes and lines of a picture on any figure."""

    def __init__(
        self,
        figure: Figure,
        title: str | None,
        epoch_size: int | None,
        n_epochs: int | None = None,
        columns: int = COLUMNS,
        *,
        of_loss: bool = False,
    ) -> None:
        self._epoch_size, self._n_epochs, self._columns, self._of_loss = epoch_size, n_epochs, columns, of_loss
        # Placed by hand: automatic layout doubles the cost of drawing, and fails while a window has no size yet.
        figure.subplots_adjust(left=0.08, right=0.93, bottom=0.09, top=0.94, hspace=0.08)
        upper, rates = figure.subplots(2, sharex=True, height_ratios=[5, 1])
        sizes = rates.twinx()
        self._axes = upper, rates, sizes
        for axes in self._axes:
            axes.spines["top"].set_visible(False)
        if title:
            upper.set_title(title, loc="left")
        upper.spines["right"].set_visible(False)
        upper.set_xlim(0, n_epochs or 1)
        if of_loss:
            upper.set_ylabel("loss")
        else:
            upper.set_yscale("function", functions=(_stretch, _unstretch))
            upper.set_yticks(ACCURACY_TICKS)
            upper.set(ylim=(0, 100), ylabel="accuracy (%), stretched towards 100")
        upper.grid(color="0.9")

        (self._batches,) = upper.plot([], [], color="tab:blue", alpha=0.35, lw=0.5, label="each training batch")
        (self._mean,) = upper.plot([], [], color="tab:blue", lw=1.2, label="training, running mean")
        (self._test,) = upper.plot(
            [], [], "o-", color="tab:red", lw=1.8, ms=5, clip_on=False, label="test, after each epoch"
        )
        self._last = upper.annotate(
            "",
            (0, 0),
            (0, 14 if of_loss else -14),
            textcoords="offset points",
            ha="right",
            va="bottom" if of_loss else "top",
            color="tab:red",
            weight="bold",
            bbox=BEHIND_TEXT,
        )
        upper.legend(loc="upper center" if of_loss else "lower center", ncols=3, frameon=False)

        rates.set_xlabel("epochs")
        self._schedules = []
        for axes, label, color in ((rates, "learning rate", "tab:green"), (sizes, "batch size", "tab:purple")):
            axes.set_ylabel(label, color=color, fontsize="small")
            axes.tick_params(axis="y", labelcolor=color, labelsize="small")
            self._schedules += axes.plot([], [], color=color, lw=1.2)
        # For a run that cuts edges: the share that is left as a line, and the number at its end.
        left = rates.twinx()
        left.set(ylim=(0, 1.15))
        left.set_axis_off()
        (self._edges,) = left.plot([], [], ":", color="0.3", lw=1.5)
        self._n_edges = left.annotate(
            "",
            (0, 0),
            (-3, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color="0.3",
            fontsize="small",
            bbox=BEHIND_TEXT,
        )
        self.artists = [self._batches, self._mean, self._test, self._last, *self._schedules, self._edges, self._n_edges]

    @property
    def limits(self) -> list[tuple[float, float]]:
        """Limits of the axes: while they stay the same, only `artists` need to be drawn again."""
        return [limits for axes in self._axes for limits in (axes.get_xlim(), axes.get_ylim())]

    def update(self, history: History) -> None:
        seen, epoch_ends = history.batch_examples, history.epoch_examples
        if not len(seen):
            return
        epoch_size = self._epoch_size or (epoch_ends[0] if len(epoch_ends) else seen[-1])

        epochs = seen / epoch_size
        if self._of_loss:
            batches, test = history.batch_loss, history.validation_loss
        else:
            batches, test = 100 * history.batch_accuracy, 100 * history.validation_accuracy
        self._batches.set_data(*_outline(epochs, batches, self._columns))
        ends, mean = _running_mean(seen, history.batch_size, batches, window=min(epoch_size, seen[-1]) / 10)
        self._mean.set_data(ends / epoch_size, mean)
        if len(test):
            tested = epoch_ends[: len(test)] / epoch_size
            self._test.set_data(tested, test)
            self._last.xy = tested[-1], test[-1]
            self._last.set_text(f"{test[-1]:.4g}" if self._of_loss else f"{test[-1]:.2f} %")
        if self._of_loss:
            upper, above = self._axes[0], not (np.append(batches, test) <= 0).any()
            upper.set_yscale("log" if above else "linear")
            upper.relim()
            upper.autoscale_view(scalex=False)

        whole = ~np.isin(
            seen, epoch_ends
        )  # the last batch of an epoch has the examples left over, so no scheduled size
        whole |= not whole.any()
        for line, values in zip(self._schedules, (history.learning_rate, history.batch_size), strict=True):
            line.set_data(*_outline(epochs[whole], values[whole], self._columns))
            line.axes.set_ylim(0, 1.15 * float(values.max()) or 1.0)
        edges = history.epoch_edges
        if len(edges) and edges.min() < edges.max():
            ends, share = epoch_ends[: len(edges)] / epoch_size, edges / edges.max()
            self._edges.set_data(ends, share)
            self._n_edges.xy = ends[-1], share[-1]
            self._n_edges.set_text(f"{edges[-1]:,} edges")
        if self._n_epochs is None:
            self._axes[0].set_xlim(0, epochs[-1])


def _stretch(percent: Float64) -> Float64:
    """A logarithmic scale of the error: each halving is equally high, until the error nears `SOFTENING`."""
    return -np.log(np.clip(1 - percent / 100, 0, None) + SOFTENING)


def _unstretch(height: Float64) -> Float64:
    return 100 * (1 + SOFTENING - np.exp(-height))


def _outline(x: Numbers, y: Numbers, columns: int) -> tuple[Numbers, Numbers]:
    """The line with no more than the lowest and highest point of each column: it looks the same and draws faster."""
    each = len(y) // columns
    if each < 3:
        return x, y
    starts = np.arange(0, len(y), each)
    low, high = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
    return np.repeat(x[starts], 2), np.column_stack([low, high]).ravel()


def _running_mean(seen: Numbers, sizes: Numbers, y: Numbers, *, window: float) -> tuple[Numbers, Numbers]:
    """Mean over the last `window` examples, at even distances from the first full window to the end."""
    edges = np.concatenate([[0], seen])
    known = np.isfinite(y)  # a batch that was left out has no accuracy
    counted = np.where(known, sizes, 0)
    total, count = (np.concatenate([[0], np.cumsum(n)]) for n in (np.where(known, y, 0) * counted, counted))
    ends = np.linspace(window, edges[-1], 500)
    total, count = (np.interp(ends, edges, n) - np.interp(ends - window, edges, n) for n in (total, count))
    return ends, np.divide(total, count, out=np.full(len(ends), np.nan), where=count > 0)


def without_matplotlib(error: Exception) -> ImportError:
    """The error to raise if matplotlib is not installed, or cannot be imported for another reason."""
    if isinstance(error, ImportError):
        return ImportError(f"a picture needs matplotlib ({error}): pip install 'mlgraph[app]'")
    return ImportError(f"a picture needs matplotlib, which says: {error}")  # for example of an unknown backend
