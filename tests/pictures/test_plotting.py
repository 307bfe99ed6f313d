"""Pictures of training runs: what is drawn, that nothing else changes, and windows where there can be one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from mlgraph.models.history import History
from mlgraph.pictures import plotting
from mlgraph.pictures.plotting import LivePicture, NoDisplayError, training_picture

matplotlib = pytest.importorskip("matplotlib")


def history(*, epochs: int = 3, batches: int = 50, size: int = 10, validated: bool = True, extra: int = 0) -> History:
    """Epochs whose last batch is half as long; then `extra` batches of an epoch that was not finished."""
    h = History()
    rng = np.random.default_rng(0)
    sizes = np.append(np.full(batches - 1, size), size // 2)
    for epoch in range(epochs + bool(extra)):
        whole = epoch < epochs
        part = sizes if whole else sizes[:extra]
        seen = h.batch_examples[-1] if len(h.batch_examples) else 0
        h.add(
            batch_examples=seen + np.cumsum(part),
            batch_size=part,
            learning_rate=np.full(len(part), 0.1 / (1 + epoch)),
            batch_loss=rng.random(len(part)),
            batch_accuracy=rng.integers(part + 1) / part,
        )
        if whole:
            h.add(epoch_examples=h.batch_examples[-1], epoch_loss=0.1, epoch_accuracy=0.9, epoch_seconds=0.1)
            if validated:
                h.add(validation_loss=0.1, validation_accuracy=0.9 + epoch / 100)
    return h


def lines(figure: matplotlib.figure.Figure) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {line.get_label(): line.get_data() for line in figure.axes[0].lines}


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lowest", "scale"), [(0.01, "log"), (-1.0, "linear")])
@pytest.mark.parametrize("validated", [True, False])
def test_without_accuracies_the_loss_is_drawn(lowest: float, scale: str, validated: bool) -> None:
    h = history(validated=validated)
    for column in (h.batch_accuracy, h.epoch_accuracy, h.validation_accuracy):
        column[:] = np.nan
    h.batch_loss[[0, 3, 7, 9]] = lowest, 20, np.nan, np.inf  # NaN: a batch that was left out
    figure = training_picture(h)
    drawn, loss = lines(figure), figure.axes[0]
    np.testing.assert_array_equal(drawn["each training batch"][1], h.batch_loss)
    np.testing.assert_array_equal(drawn["test, after each epoch"][1], h.validation_loss)
    assert ("0.1" in [text.get_text() for text in loss.texts]) == validated
    low, high = loss.get_ylim()
    assert (loss.get_ylabel(), loss.get_yscale()) == ("loss", scale) and low < lowest and high > 20


def test_what_is_drawn() -> None:
    h = history()
    figure = training_picture(h, title="a title")
    drawn = lines(figure)
    np.testing.assert_allclose(drawn["each training batch"], [h.batch_examples / 495, 100 * h.batch_accuracy])
    np.testing.assert_allclose(drawn["test, after each epoch"], [[1, 2, 3], [90, 91, 92]])
    x, mean = drawn["training, running mean"]
    np.testing.assert_allclose(x[[0, -1]], [0.1, 3])
    assert mean[0] == pytest.approx(100 * np.average(h.batch_accuracy[:5], weights=[10, 10, 10, 10, 9.5]))
    accuracy, rates, sizes, left = figure.axes
    assert not len(left.lines[0].get_xdata())
    assert accuracy.get_title(loc="left") == "a title"
    assert "92.00 %" in [text.get_text() for text in accuracy.texts]
    assert (accuracy.get_xlim(), accuracy.get_ylim()) == ((0, 3), (0, 100))
    # The short batches at the ends of the epochs are left out of the schedule.
    assert set(sizes.lines[0].get_ydata()) == {10}
    assert len(rates.lines[0].get_ydata()) == 3 * 49


def test_edges_that_are_left_are_drawn() -> None:
    h = history()
    h.add(epoch_edges=[2000, 1500, 1000])
    left = training_picture(h).axes[-1]
    np.testing.assert_allclose(left.lines[0].get_data(), [[1, 2, 3], [1, 0.75, 0.5]])
    assert [text.get_text() for text in left.texts] == ["1,000 edges"]


@pytest.mark.parametrize(
    ("h", "epoch_size", "end"),
    [
        (History(), None, 1),
        (history(epochs=0, extra=1), 500, 0.02),
        (history(epochs=0, extra=7), 500, 0.14),
        (history(epochs=0, extra=7), None, 1),
        (history(epochs=2, extra=5), None, 2 + 50 / 495),
        (history(validated=False), None, 3),
        (history(batches=1), None, 3),
    ],
    ids=["nothing", "one batch", "seven", "seven of unknown", "part of an epoch", "not validated", "batch is epoch"],
)
def test_runs_of_any_length(tmp_path: Path, h: History, epoch_size: int | None, end: float) -> None:
    figure = training_picture(h, tmp_path / "a.png", epoch_size=epoch_size)
    assert figure.axes[0].get_xlim() == pytest.approx((0, end))
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_long_runs_keep_their_extremes() -> None:
    h = history(epochs=10, batches=3000)
    h.batch_accuracy[:] = 0.5
    h.batch_accuracy[[4000, 20001]] = 0.1, 0.9
    x, y = lines(training_picture(h))["each training batch"]
    assert len(y) <= 2 * 1.1 * plotting.COLUMNS
    assert (y.min(), y.max()) == (10, 90)
    assert x[y.argmin()] == pytest.approx(h.batch_examples[4000] / h.epoch_examples[0], abs=0.02)


def test_file_is_written_whole_and_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        training_picture(history(), tmp_path / name)
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert b"Software" not in content

    def fail(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        training_picture(history(epochs=1), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_an_interrupt_waits_for_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Amid what matplotlib has in C it would come out as some other error."""
    from matplotlib.figure import Figure

    save = Figure.savefig

    def interrupted(*args: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training_picture(history(), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_state_of_matplotlib_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.setenv("DISPLAY", "")
    before = dict(matplotlib.rcParams), plt.get_fignums()
    training_picture(history())
    assert (dict(matplotlib.rcParams), plt.get_fignums()) == before


def test_scale_has_an_inverse() -> None:
    percent = np.linspace(0, 100, 101)
    height = plotting._stretch(percent)
    assert (np.diff(height) > 0).all()
    np.testing.assert_allclose(plotting._unstretch(height), percent, atol=1e-9)


@pytest.mark.parametrize("function", [lambda: training_picture(History()), lambda: LivePicture(n_epochs=1)])
@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib(function: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    assert callable(function)
    with pytest.raises(ImportError, match=r"pip install 'mlgraph\[app\]'"):
        function()


# --- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names its display in the environment")
def test_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(NoDisplayError, match="DISPLAY"):
        LivePicture(n_epochs=1)


@pytest.fixture
def agg(monkeypatch: pytest.MonkeyPatch) -> None:
    """A display by name, and the backend that draws without one."""
    import matplotlib.pyplot as plt

    monkeypatch.setenv("DISPLAY", ":0")
    plt.switch_backend("agg")


@pytest.mark.usefixtures("agg")
def test_backend_without_windows() -> None:
    import matplotlib.pyplot as plt

    with pytest.raises(NoDisplayError, match="backend agg opens no windows"):
        LivePicture(n_epochs=1)
    assert not plt.get_fignums()


@pytest.mark.usefixtures("agg")
def test_backend_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    def fail(**options: object) -> None:
        raise RuntimeError("couldn't connect\n to display")

    monkeypatch.setattr(plt, "figure", fail)
    with pytest.raises(NoDisplayError, match=r"^matplotlib cannot open a window: couldn't connect to display$"):
        LivePicture(n_epochs=1)


@pytest.mark.parametrize("error", [ValueError("no colour"), KeyboardInterrupt()])
def test_a_window_that_cannot_be_drawn_is_closed(
    windows: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import matplotlib.pyplot as plt

    def fail(*given: object) -> None:
        raise error

    monkeypatch.setattr(plotting, "_Picture", fail)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else NoDisplayError
    with pytest.raises(expected, match=None if expected is KeyboardInterrupt else "cannot open a window: no colour$"):
        LivePicture(n_epochs=1)
    assert not plt.get_fignums()


@pytest.fixture
def windows(agg: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A backend that only claims to have windows; what is done to them."""
    import matplotlib.pyplot as plt
    from matplotlib.backend_bases import FigureManagerBase
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    done: list[str] = []
    draw = FigureCanvasAgg.draw

    def record_draw(self: FigureCanvasAgg) -> None:
        done.append("draw")
        draw(self)

    monkeypatch.setattr(FigureCanvasAgg, "required_interactive_framework", "none")
    monkeypatch.setattr(FigureCanvasAgg, "draw", record_draw)
    monkeypatch.setattr(FigureCanvasAgg, "blit", lambda self, box: done.append("blit"), raising=False)
    monkeypatch.setattr(FigureManagerBase, "show", lambda self: done.append("open"))
    monkeypatch.setattr(plt, "show", lambda block: done.append("wait"))
    return done


def test_window_draws_little_and_seldom(windows: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    now = 0.0

    def take_half_a_second(canvas: FigureCanvasAgg) -> None:
        nonlocal now
        now += 0.5

    monkeypatch.setattr(plotting.time, "perf_counter", lambda: now)
    monkeypatch.setattr(FigureCanvasAgg, "flush_events", take_half_a_second)
    picture = LivePicture(n_epochs=3, epoch_size=495)
    assert windows == ["open", "draw"]
    assert picture.is_due
    picture.update(history(epochs=1))  # limits of learning rate and batch size: all is drawn
    assert picture.is_due
    picture.update(history(epochs=2))
    assert windows == ["open", "draw", "draw", "blit"]
    now += 0.49 / plotting.LIVE_SHARE
    assert not picture.is_due
    now += 0.02 / plotting.LIVE_SHARE
    assert picture.is_due

    np.testing.assert_allclose(lines(picture._figure)["test, after each epoch"], [[1, 2], [90, 91]])
    assert picture._figure.axes[0].get_xlim() == (0, 3)
    picture.wait(history())
    assert windows[4:] == ["draw", "wait"]
    assert not any(line.get_animated() for axes in picture._figure.axes for line in axes.lines)

    plt.close(picture._figure)
    assert not picture.is_open
    assert not picture.is_due
    picture.wait(history())
    assert windows[6:] == []


def test_window_shows_the_picture(windows: list[str]) -> None:
    """Drawn in pieces over a background, it has the pixels that it has when drawn at once."""
    import matplotlib.pyplot as plt

    picture = LivePicture(n_epochs=3, epoch_size=495)
    picture.update(history(epochs=1))
    picture.update(history(epochs=2))
    pieces = np.array(picture._canvas.buffer_rgba())
    picture._canvas.draw()
    np.testing.assert_array_equal(pieces, np.array(picture._canvas.buffer_rgba()))
    assert (pieces != 255).any()
    plt.close(picture._figure)


def test_window_of_a_backend_that_cannot_blit(windows: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    monkeypatch.setattr(FigureCanvasAgg, "supports_blit", False)
    picture = LivePicture(n_epochs=3, epoch_size=495)
    picture.update(history(epochs=1))
    picture.update(history(epochs=2))
    assert windows == ["open", "draw", "draw", "draw"]
    plt.close(picture._figure)


def test_a_batch_that_was_left_out_leaves_the_curve_whole():
    accuracy = np.full(100, 0.5)
    accuracy[40] = np.nan
    _, mean = plotting._running_mean(np.arange(1, 101) * 10.0, np.full(100, 10.0), accuracy, window=100.0)
    np.testing.assert_allclose(mean, 0.5)


@pytest.mark.parametrize(
    ("name", "begins"), [("p.PNG", b"\x89PNG"), ("p.svg", b"<?xml"), ("p.pdf", b"%PDF"), ("p", b"\x89P")]
)
def test_a_picture_is_what_its_name_says(tmp_path, name, begins):
    training_picture(History(), tmp_path / name)
    first = (tmp_path / name).read_bytes()
    assert first.startswith(begins)
    training_picture(History(), tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


def test_a_picture_of_no_kind_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"^path: expected a picture's name that ends in .png or .svg or .pdf, got '.*bmpx'$"
    ):
        training_picture(History(), tmp_path / "p.bmpx")
    for path in (3, 1.5, ["p.png"]):
        with pytest.raises(TypeError, match=r"^path: expected a path, got (int|float|list)$"):
            training_picture(History(), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, -1, 1.5, "a", True])
def test_an_epoch_has_a_whole_number_of_examples(size):
    with pytest.raises((TypeError, ValueError), match=r"^epoch_size: expected an integer of at least 1, got "):
        training_picture(History(), epoch_size=size)


def test_a_run_that_moves_nothing(tmp_path):
    """At a learning rate of 0 the axis has a height all the same; a warning would be an error here."""
    still = history()
    still.learning_rate = np.zeros_like(still.learning_rate)
    training_picture(still, tmp_path / "still.png")
    assert (tmp_path / "still.png").exists()
