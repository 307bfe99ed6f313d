"""Output during a training run: a line for each epoch, a progress bar and a window."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlgraph._support.installation import install_command
from mlgraph.app.common import remark
from mlgraph.pictures import LivePicture

if TYPE_CHECKING:
    from mlgraph.training.loop import Progress


class Display:
    """Callback of ``fit`` that prints a line for each epoch and updates the progress bar and the live picture.

    Parameters
    ----------
    quiet : bool
        Print nothing.
    edges : bool
        Print the number of edges after each epoch.

    Attributes
    ----------
    failure : OSError or None
        Why output has stopped, for example a full disk or a closed pipe. Training goes on without
        it.
    live : LivePicture or None
        The open window.
    """

    def __init__(self, *, quiet: bool, edges: bool = False) -> None:
        self._quiet = quiet
        self._edges = edges
        self._bar: Any = None
        self.failure: OSError | None = None
        self.live: LivePicture | None = None

    def say(self, line: str) -> None:
        """Print a line of results, above the progress bar."""
        if self._quiet:
            return
        with self._stopping_at_failure():
            if self._bar is None:
                print(line)
            else:
                self._bar.write(line)
            sys.stdout.flush()

    def note(self, line: str) -> None:
        """Print a remark on standard error."""
        if not self._quiet:
            remark(line)

    def open_bar(self, total: int, unit: str = "examples") -> None:
        """Show a progress bar if standard error is a terminal and tqdm is installed."""
        if self._quiet or not sys.stderr.isatty():
            return
        try:
            from tqdm import tqdm
        except ImportError:
            self.note(f"no progress bar, because tqdm is not installed: {install_command('tqdm', extra='app')}")
            return
        # `smoothing=0` shows the mean rate of the run; the latest rate would jump at every
        # validation.
        is_large = unit == "examples"
        self._bar = tqdm(total=total, unit=f" {unit}", unit_scale=is_large, leave=False, smoothing=0)

    def advance(self) -> None:
        """Move the progress bar by one."""
        with self._stopping_at_failure():
            if self._bar is not None:
                self._bar.update()

    def close_bar(self) -> None:
        """Remove the progress bar."""
        with self._stopping_at_failure():
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def open_live(self, title: str, *, n_epochs: int, epoch_size: int) -> None:
        """Open the window of the live picture, or print why it cannot be opened."""
        try:
            self.live = LivePicture(title=title, n_epochs=n_epochs, epoch_size=epoch_size)
        except Exception as error:  # each backend raises errors of its own types; training goes on without a window
            self.note(f"no live picture: {error}")

    def __call__(self, event: Progress) -> None:
        """Show the progress that ``fit`` reports."""
        history = event.history
        if event.kind == "epoch":
            left = f"   {history.epoch_edges[-1]:,} edges" if self._edges else ""
            self.say(
                f"epoch {event.epoch + 1:{len(str(event.epochs))}}/{event.epochs}"
                f"   test accuracy {history.validation_accuracy[-1]:7.2%}"
                f"   training {history.epoch_accuracy[-1]:7.2%}   {history.epoch_seconds[-1]:.3f} s{left}"
            )
        elif self._bar is not None:
            with self._stopping_at_failure():
                self._bar.set_postfix_str(f"batch accuracy {event.batch_accuracy:.1%}", refresh=False)
                self._bar.update(event.examples - self._bar.n)
        if self.live is not None and self.live.is_due:
            try:
                self.live.update(history)
            except Exception as error:
                self.note(f"the live picture stopped: {error}")
                self.live = None

    @contextmanager
    def _stopping_at_failure(self) -> Iterator[None]:
        """Keep an OSError as `failure` and print nothing more."""
        try:
            yield
        except OSError as error:
            self.failure = error
            self._quiet = True
            self._bar = None
