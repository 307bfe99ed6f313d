"""What a training run shows while it works."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlgraph.app.common import remark
from mlgraph.pictures.plotting import LivePicture

if TYPE_CHECKING:
    from mlgraph.training.loop import Progress

__all__ = ["Display"]


class Display:
    """A line for each epoch, a bar on a terminal, the live picture: the callback of ``fit``.

    Parameters
    ----------
    quiet : bool
        Print nothing.
    edges : bool
        With each epoch print how many edges are left.

    Attributes
    ----------
    failure : OSError, or None
        Why nothing is shown any more: a full disk, or a closed pipe. Training goes on.
    """

    def __init__(self, *, quiet: bool, edges: bool = False) -> None:
        self._quiet, self._edges = quiet, edges
        self._bar: Any = None
        self.failure: OSError | None = None
        self.live: LivePicture | None = None

    def say(self, line: str) -> None:
        """Print a line, above the bar."""
        with self._unless_it_fails():
            if self._quiet:
                return
            if self._bar is None:
                print(line)
            else:
                self._bar.write(line)
            sys.stdout.flush()

    def note(self, line: str) -> None:
        """Print a line that is no result."""
        if not self._quiet:
            remark(line)

    def open_bar(self, n_examples: int) -> None:
        """Show a bar, if standard error is a terminal and tqdm is installed."""
        if self._quiet or not sys.stderr.isatty():
            return
        try:
            from tqdm import tqdm
        except ImportError:
            self.note("no progress bar, which needs tqdm: pip install 'mlgraph[app]'")
            return
        # `smoothing=0` gives the rate of the whole run; the latest rate would jump at every validation.
        self._bar = tqdm(total=n_examples, unit=" examples", unit_scale=True, leave=False, smoothing=0)

    def close_bar(self) -> None:
        """Remove the bar, if there is one."""
        with self._unless_it_fails():
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def open_live(self, title: str, *, n_epochs: int, epoch_size: int) -> None:
        """Open the window of the live picture, or say why there is none."""
        try:
            self.live = LivePicture(title=title, n_epochs=n_epochs, epoch_size=epoch_size)
        except Exception as error:  # windows fail with many types of errors; training goes on
            self.note(f"no live picture: {error}")

    def __call__(self, event: Progress) -> None:
        """Show what ``fit`` tells."""
        history = event.history
        if event.kind == "epoch":
            left = f"   {history.epoch_edges[-1]:,} edges" if self._edges else ""
            self.say(
                f"epoch {event.epoch + 1:{len(str(event.epochs))}}/{event.epochs}"
                f"   test accuracy {history.validation_accuracy[-1]:7.2%}"
                f"   training {history.epoch_accuracy[-1]:7.2%}   {history.epoch_seconds[-1]:.3f} s{left}"
            )
        elif self._bar is not None:
            with self._unless_it_fails():
                self._bar.set_postfix_str(f"batch accuracy {event.batch_accuracy:.1%}", refresh=False)
                self._bar.update(event.examples - self._bar.n)
        if self.live is not None and self.live.is_due:
            try:
                self.live.update(history)
            except Exception as error:
                self.note(f"no live picture any more: {error}")
                self.live = None

    @contextmanager
    def _unless_it_fails(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure, self._quiet, self._bar = error, True, None
