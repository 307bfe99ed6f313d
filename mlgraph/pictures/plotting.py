"""The picture of a training run: accuracy or loss, learning rate and batch size, as a file or in a window."""

from __future__ import annotations

import io
import os
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from mlgraph._support import checks
from mlgraph._support.array_types import Float64
from mlgraph._support.atomic_files import write_atomically
from mlgraph._support.checks import StrOrBytesPath, shown, whole
from mlgraph._support.installation import install_command
from mlgraph._support.interrupts import uninterrupted
from mlgraph.models.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Numbers = npt.NDArray[Any]

SIZE = (9.0, 6.0)  # inches
DPI = 120
COLUMNS = 1000  # a line of many more points is reduced to its outline, which looks the same
FEW_BATCHES = 100  # with fewer batches an epoch, a running mean swings: the mean of each epoch is drawn instead
ENOUGH_EPOCHS = 5  # for a line of their means
MOST_DOTS = 100  # of more epochs, dots and a thick line would cover all other lines
SOFTENING = 0.01  # of the accuracy scale; a larger value leaves less room between 99 and 100 %
NARROW = 3  # largest ratio of losses that are drawn on a linear scale
BEHIND_TEXT = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8}
ACCURACY_TICKS = (0, 20, 40, 60, 70, 80, 85, 90, 92, 94, 96, 98, 99, 100)  # percent

FORMATS: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""File formats, each with the metadata to omit so that the same picture always gives the same file."""

LIVE_INTERVAL = 0.2  # minimum seconds between two updates of a window
LIVE_COLUMNS = 500  # coarser than `COLUMNS`, to halve the time of an update
LIVE_FRACTION = 0.04  # maximum fraction of the time of a run that its window may take


class NoDisplayError(RuntimeError):
    """No window can be opened. The message is one line that gives the reason."""


def draw_training(
    history: History, path: StrOrBytesPath | None = None, *, title: str | None = None, epoch_size: int | None = None
) -> Figure:
    """Draw the course of a training run: its accuracy, or its loss if there is no accuracy.

    The upper panel shows the accuracy of every batch as a thin line, its running mean, and the validation
    accuracy after each epoch, with a ring around the best. Epochs in which the network had more edges than at
    the end do not count as the best. If epochs have fewer than 100 batches, the mean of each epoch replaces
    the running mean from the fifth epoch on. Its scale is stretched towards 100 %, so that both the first batches
    and the last epochs are legible. The scale of losses is logarithmic if all are positive and the
    largest is more than three times the smallest. The lower panel shows the learning rate, the
    batch size and, if edges were cut, the fraction of edges left. No display is needed, and
    matplotlib's global state is not changed.

    Parameters
    ----------
    history : History
        The history that ``fit`` returns, or that of a run in progress.
    path : path, optional
        File to write, atomically: .png, .svg or .pdf; without a suffix, PNG. Equal histories give
        identical files.
    title : str, optional
        Text above the picture.
    epoch_size : int, optional
        Number of examples in an epoch. Defaults to that of the first epoch.

    Returns
    -------
    matplotlib.figure.Figure
        A notebook shows it.

    Raises
    ------
    ImportError
        If matplotlib is not installed. The message says how to install it.
    TypeError, ValueError
        If `history` is not a History, if `path` is not a path or has another suffix, or if `epoch_size` is not a
        positive integer.
    OSError
        If the file cannot be written; an old file at `path` is still there.

    Examples
    --------
    >>> net = mlgraph.Network(2, seed=0)
    >>> layer = net.add_layer(2, activation="softmax")
    >>> history = net.fit([[0.0, 1.0], [1.0, 0.0]], [0, 1], epochs=3)
    >>> figure = mlgraph.pictures.draw_training(history, "training.png")
    """
    if not isinstance(history, History):
        raise TypeError(f"history: expected a History, got {type(history).__name__}")
    if epoch_size is not None:
        whole("epoch_size", epoch_size)
    figure = new_figure(SIZE, DPI)
    of_loss = bool(np.isnan(history.batch_accuracy).all()) and len(history.batch_loss) > 0
    _Picture(figure, title, epoch_size, of_loss=of_loss).update(history)
    if path is not None:
        save_figure(figure, path)
    return figure


def new_figure(size: tuple[float, float], dpi: int) -> Figure:
    """Create a figure without a window that notebooks show, or raise the ImportError of `without_matplotlib`."""
    try:
        from matplotlib.figure import Figure
    except (ImportError, ValueError) as error:
        raise without_matplotlib(error) from error
    figure: Any = Figure(figsize=size, dpi=dpi)
    # Notebooks show figures by themselves only if pyplot made them. A subclass of Figure would need
    # a module that imports matplotlib.
    figure._repr_png_ = partial(_png, figure)
    return cast("Figure", figure)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def picture_format(path: StrOrBytesPath) -> str:
    """Return the format for the suffix of a path, png if there is none; raise ValueError for another one."""
    name = checks.path("path", path)
    suffix = Path(name).suffix[1:].lower() or "png"
    if suffix not in FORMATS:
        names = " or ".join(f".{name}" for name in FORMATS)
        raise ValueError(f"path: expected a name that ends in {names}, got {shown(name)}")
    return suffix


def save_figure(figure: Any, path: StrOrBytesPath) -> None:
    """Write a matplotlib figure atomically, in the format of the suffix."""
    import matplotlib

    kind = picture_format(path)
    # Without a salt, names inside an SVG file are random. A Ctrl-C in matplotlib's C code may
    # become an error of any type.
    with matplotlib.rc_context({"svg.hashsalt": "mlgraph"}), uninterrupted():
        write_atomically(path, lambda file: figure.savefig(file, format=kind, metadata=FORMATS[kind]))


class LivePicture:
    """The picture of `draw_training` in a window that is updated during the training.

    It is drawn in the thread that trains, at most so often that drawing takes 4 % of the time. If
    the window is closed, training goes on.

    Parameters
    ----------
    n_epochs : int
        Length of the horizontal axis.
    title : str, optional
        Text above the picture.
    epoch_size : int, optional
        Number of examples in an epoch. Defaults to that of the first epoch.

    Raises
    ------
    NoDisplayError
        If no window can be opened.
    ImportError
        If matplotlib is not installed. The message says how to install it.

    Examples
    --------
    In a script that a person watches::

        live = mlgraph.pictures.LivePicture(n_epochs=10)

        def show(progress):
            if live.is_due:
                live.update(progress.history)

        history = net.fit(x, y, epochs=10, validation_data=(test_x, test_y), callbacks=[show])
        live.wait(history)
    """

    def __init__(self, *, n_epochs: int, title: str | None = None, epoch_size: int | None = None) -> None:
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise NoDisplayError("neither DISPLAY nor WAYLAND_DISPLAY is set")
        try:
            import matplotlib.pyplot as plt
        except (ImportError, ValueError) as error:
            raise without_matplotlib(error) from error

        self._plt = plt
        self._next = 0.0  # time when an update is due
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
        except Exception as error:  # each backend raises errors of its own types
            reason = " ".join(str(error).split()) or type(error).__name__
            raise NoDisplayError(f"matplotlib cannot open a window: {reason}") from error

    @property
    def is_open(self) -> bool:
        """Whether the window is still open."""
        return bool(self._plt.fignum_exists(self._figure.number))

    @property
    def is_due(self) -> bool:
        """Whether the window is open and has not been updated too recently."""
        return time.perf_counter() >= self._next and self.is_open

    def update(self, history: History) -> None:
        """Draw the history so far. Call this when `is_due` is true, so that drawing does not slow down the training."""
        start = time.perf_counter()
        before = self._picture.surroundings
        self._picture.update(history)
        if self._animated and self._picture.surroundings == before:
            self._canvas.restore_region(self._background)
            self._draw_artists()
            self._canvas.blit(self._figure.bbox)
        else:
            self._canvas.draw()
        self._canvas.flush_events()
        end = time.perf_counter()
        # The first update also draws the axes, which takes much longer; if it counted, a short run
        # would see no other update.
        pause = (end - start) / LIVE_FRACTION if self._next else 0
        self._next = max(start + LIVE_INTERVAL, end + pause)

    def wait(self, history: History) -> None:
        """Draw the whole history and block until the user closes the window."""
        if self.is_open:
            self._animate(False)
            self._picture.update(history)
            self._canvas.draw()
            self._plt.show(block=True)

    # The axes, their numbers and the legend take ten times as long to draw as the lines. They are
    # drawn only when they change and are kept as a background, over which each update draws the
    # lines.

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
    """The axes and lines of a picture, on a figure with or without a window."""

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
        self._epoch_size = epoch_size
        self._n_epochs = n_epochs
        self._columns = columns
        self._of_loss = of_loss
        # The numbers at an axis of losses may be wide, so the layout makes room for them. It would
        # double the time of drawing a window, and fails while a window has no size yet.
        if of_loss:
            figure.set_layout_engine("constrained", hspace=0.02)
        else:
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
        (self._validation,) = upper.plot(
            [], [], "o-", color="tab:red", lw=1.8, ms=5, clip_on=False, label="validation, after each epoch"
        )
        (self._best,) = upper.plot([], [], "o", color="tab:red", ms=11, mfc="none", mew=1.5, clip_on=False)
        for line in (self._validation, self._best):
            line.set_in_layout(False)  # without data it would be laid out at the corner of the picture
        if of_loss:  # a falling curve has room above its end, a rising one below
            self._last = _add_note(upper, (0, 14), va="bottom", color="tab:red", weight="bold")
        else:
            self._last = _add_note(upper, (0, -14), va="top", color="tab:red", weight="bold")
        self._legend = upper.legend(loc="upper center" if of_loss else "lower center", ncols=3, frameon=False)

        rates.set_xlabel("epochs")
        rates.yaxis.set_major_formatter("{x:g}")  # 5e-05: longer numbers push the label off the picture
        self._schedules = []
        for axes, label, color in ((rates, "learning rate", "tab:green"), (sizes, "batch size", "tab:purple")):
            axes.set_ylabel(label, color=color, fontsize="small")
            axes.tick_params(axis="y", labelcolor=color, labelsize="small")
            self._schedules += axes.plot([], [], color=color, lw=1.2)
        # For a run that cuts edges: a line for the fraction left, and the number of edges at its
        # end.
        left = rates.twinx()
        left.set(ylim=(0, 1.15))
        left.set_axis_off()
        (self._edges,) = left.plot([], [], ":", color="0.3", lw=1.5)
        self._n_edges = _add_note(left, (-3, 3), va="bottom", color="0.3", fontsize="small")
        self.artists = [self._batches, self._mean, self._validation, self._best, self._last, *self._schedules]
        self.artists += [self._edges, self._n_edges]

    @property
    def surroundings(self) -> list[object]:
        """Limits and legend. While they do not change, only `artists` need to be drawn again."""
        return [self._mean.get_label(), *(ends for axes in self._axes for ends in (axes.get_xlim(), axes.get_ylim()))]

    def _set_mean(self, x: Numbers, y: Numbers, label: str) -> None:
        self._mean.set_data(x, y)
        if self._mean.get_label() != label:
            self._mean.set_label(label)
            self._legend.texts[1].set_text(label)

    def update(self, history: History) -> None:
        """Set the data of all lines."""
        seen, epoch_ends = history.batch_examples, history.epoch_examples
        if not len(seen):
            return
        epoch_size = self._epoch_size or (epoch_ends[0] if len(epoch_ends) else seen[-1])

        epochs = seen / epoch_size
        if self._of_loss:
            batches, validation = history.batch_loss, history.validation_loss
        else:
            batches, validation = 100 * history.batch_accuracy, 100 * history.validation_accuracy
        self._batches.set_data(*_outline(epochs, batches, self._columns))
        means = history.epoch_loss if self._of_loss else 100 * history.epoch_accuracy
        if len(means) >= ENOUGH_EPOCHS and len(seen) * epoch_size < FEW_BATCHES * seen[-1]:
            self._set_mean(epoch_ends[: len(means)] / epoch_size, means, "training, mean of each epoch")
        else:
            ends, mean = _running_mean(seen, history.batch_size, batches, window=min(epoch_size, seen[-1]) / 10)
            self._set_mean(ends / epoch_size, mean, "training, running mean")
        if len(validation):
            self._update_validation(epoch_ends[: len(validation)] / epoch_size, validation, history.epoch_edges)
        if self._of_loss:
            upper, losses = self._axes[0], np.append(batches, validation)
            losses = losses[np.isfinite(losses)]
            # A logarithmic axis over a narrow range has hardly any ticks.
            is_wide = len(losses) > 0 and 0 < NARROW * losses.min() < losses.max()
            upper.set_yscale("log" if is_wide else "linear")
            upper.relim()
            upper.autoscale_view(scalex=False)

        # The last batch of an epoch holds the remaining examples, so its size is not the scheduled
        # one.
        is_full = ~np.isin(seen, epoch_ends)
        if not is_full.any():
            is_full[:] = True
        for line, values in zip(self._schedules, (history.learning_rate, history.batch_size), strict=True):
            line.set_data(*_outline(epochs[is_full], values[is_full], self._columns))
            line.axes.set_ylim(0, 1.15 * float(values.max()) or 1.0)
        edges = history.epoch_edges
        if len(edges) and edges.min() < edges.max():
            ends, left = epoch_ends[: len(edges)] / epoch_size, edges / edges.max()
            self._edges.set_data(ends, left)
            self._n_edges.xy = ends[-1], left[-1]
            self._n_edges.set_text(f"{edges[-1]:,} edges")
        if self._n_epochs is None:
            self._axes[0].set_xlim(0, epochs[-1])

    def _update_validation(self, ends: Numbers, values: Numbers, edges: Numbers) -> None:
        """Draw what was reached after each epoch; say the last, and the best if it is another."""
        self._validation.set_data(ends, values)
        if len(values) > MOST_DOTS:
            self._validation.set(marker="", linewidth=0.8)
        shown_as = "{:.4g}".format if self._of_loss else "{:.2f} %".format
        text = shown_as(values[-1])
        worse = values if self._of_loss else -values
        if len(edges):  # a History of a user's own may have no such column
            worse = np.where(edges[: len(values)] <= edges[: len(values)][-1], worse, np.nan)
        if not np.isnan(worse).all():
            best = int(np.nanargmin(worse))
            self._best.set_data(ends[best : best + 1], values[best : best + 1])
            text += f" (best {shown_as(values[best])}, epoch {best + 1})" if values[best] != values[-1] else ""
        self._last.xy = ends[-1], values[-1]
        self._last.set_text(text)


def _add_note(axes: Any, offset: tuple[int, int], **style: Any) -> Any:
    """Add an empty text whose position and content are set later."""
    note = axes.annotate("", (0, 0), offset, textcoords="offset points", ha="right", bbox=BEHIND_TEXT, **style)
    note.set_in_layout(False)  # no room is needed for it outside the axes
    return note


def _stretch(percent: Float64) -> Float64:
    """Logarithmic scale of the error: each halving has the same height, until the error nears `SOFTENING`."""
    return -np.log(np.clip(1 - percent / 100, 0, None) + SOFTENING)


def _unstretch(height: Float64) -> Float64:
    return 100 * (1 + SOFTENING - np.exp(-height))


def _outline(x: Numbers, y: Numbers, columns: int) -> tuple[Numbers, Numbers]:
    """Reduce a line to the lowest and highest point of each column, which looks the same and is drawn faster."""
    each = len(y) // columns
    if each < 3:
        return x, y
    starts = np.arange(0, len(y), each)
    low, high = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
    return np.repeat(x[starts], 2), np.column_stack([low, high]).ravel()


def _running_mean(seen: Numbers, sizes: Numbers, y: Numbers, *, window: float) -> tuple[Numbers, Numbers]:
    """Mean over the last `window` examples, at 500 points from the first full window to the end."""
    edges = np.concatenate([[0], seen])
    known = np.isfinite(y)  # a skipped batch has no accuracy
    counted = np.where(known, sizes, 0)
    total, count = (np.concatenate([[0], np.cumsum(n)]) for n in (np.where(known, y, 0) * counted, counted))
    ends = np.linspace(window, edges[-1], 500)
    total, count = (np.interp(ends, edges, n) - np.interp(ends - window, edges, n) for n in (total, count))
    return ends, np.divide(total, count, out=np.full(len(ends), np.nan), where=count > 0)


def without_matplotlib(error: Exception) -> ImportError:
    """Error to raise if matplotlib is not installed or cannot be imported."""
    if isinstance(error, ImportError):
        return ImportError(f"a picture needs matplotlib ({error}): {install_command('matplotlib', extra='app')}")
    return ImportError(f"matplotlib cannot be imported: {error}")  # for example because its backend is unknown
