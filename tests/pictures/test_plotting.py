"""Pictures of training runs, as files and in windows."""

import copy
import os
import signal
import sys

import numpy as np
import pytest

from mlgraph import History
from mlgraph.pictures import LivePicture, NoDisplayError, draw_training, plotting

matplotlib = pytest.importorskip("matplotlib")


def history(*, epochs=3, batches=50, size=10, validated=True, extra=0):
    """A run whose epochs end with a batch of half the size, and `extra` batches of an unfinished epoch."""
    h = History()
    rng = np.random.default_rng(0)
    sizes = np.append(np.full(batches - 1, size), size // 2)
    for epoch in range(epochs + bool(extra)):
        is_whole = epoch < epochs
        batch = sizes if is_whole else sizes[:extra]
        seen = h.batch_examples[-1] if len(h.batch_examples) else 0
        h.add(
            batch_examples=seen + np.cumsum(batch),
            batch_size=batch,
            learning_rate=np.full(len(batch), 0.1 / (1 + epoch)),
            batch_loss=rng.random(len(batch)),
            batch_accuracy=rng.integers(batch + 1) / batch,
        )
        if is_whole:
            h.add(epoch_examples=h.batch_examples[-1], epoch_loss=0.1, epoch_accuracy=0.9, epoch_seconds=0.1)
            if validated:
                h.add(validation_loss=0.1, validation_accuracy=0.9 + epoch / 100)
    return h


def lines(figure):
    return {line.get_label(): line.get_data() for line in figure.axes[0].lines}


# --- files ----------------------------------------------------------------------------------------


def test_accuracies_are_drawn_with_learning_rate_and_batch_size():
    h = history()
    figure = draw_training(h, title="a title")
    drawn = lines(figure)
    np.testing.assert_allclose(drawn["each training batch"], [h.batch_examples / 495, 100 * h.batch_accuracy])
    np.testing.assert_allclose(drawn["validation, after each epoch"], [[1, 2, 3], [90, 91, 92]])
    x, mean = drawn["training, running mean"]
    np.testing.assert_allclose(x[[0, -1]], [0.1, 3])
    assert mean[0] == pytest.approx(100 * np.average(h.batch_accuracy[:5], weights=[10, 10, 10, 10, 9.5]))
    accuracy, rates, sizes, left = figure.axes
    assert not len(left.lines[0].get_xdata())
    assert accuracy.get_title(loc="left") == "a title"
    assert "92.00 %" in [text.get_text() for text in accuracy.texts]
    assert (accuracy.get_xlim(), accuracy.get_ylim()) == ((0, 3), (0, 100))
    ticks = accuracy.transData.transform([(0, y) for y in accuracy.get_yticks()])[:, 1]
    assert (np.diff(ticks) > 10).all(), "all ticks are legible, also near 100 %"
    # The short batches at the ends of the epochs do not follow the schedule.
    assert set(sizes.lines[0].get_ydata()) == {10}
    assert len(rates.lines[0].get_ydata()) == 3 * 49


def test_the_best_epoch_is_marked_unless_the_network_was_denser_then():
    h = history()
    h.validation_accuracy[:] = 0.95, 0.97, 0.96
    for edges, best, text in (
        ([8, 8, 8], (2, 97), "96.00 % (best 97.00 %, epoch 2)"),
        ([], (2, 97), "96.00 % (best 97.00 %, epoch 2)"),
        ([9, 9, 8], (3, 96), "96.00 %"),
    ):
        h.epoch_edges = np.array(edges, np.int64)
        axes = draw_training(h).axes[0]
        assert text in [one.get_text() for one in axes.texts]
        (ring,) = (line for line in axes.lines if line.get_markerfacecolor() == "none")
        np.testing.assert_allclose(np.array(ring.get_data()).ravel(), best)
    h.batch_accuracy[:], h.validation_loss[:] = np.nan, (0.3, np.nan, 0.4)
    h.epoch_edges = np.full(3, 8)
    assert "0.4 (best 0.3, epoch 1)" in [one.get_text() for one in draw_training(h).axes[0].texts]


@pytest.mark.parametrize(("lowest", "scale"), [(0.01, "log"), (-1.0, "linear")])
def test_losses_are_drawn_where_there_are_no_accuracies(lowest, scale):
    h = history()
    for column in (h.batch_accuracy, h.epoch_accuracy, h.validation_accuracy):
        column[:] = np.nan
    h.batch_loss[[0, 3, 7, 9]] = lowest, 20, np.nan, np.inf  # NaN: a skipped batch
    figure = draw_training(h)
    drawn, loss = lines(figure), figure.axes[0]
    np.testing.assert_array_equal(drawn["each training batch"][1], h.batch_loss)
    np.testing.assert_array_equal(drawn["validation, after each epoch"][1], h.validation_loss)
    assert "0.1" in [text.get_text() for text in loss.texts]
    low, high = loss.get_ylim()
    assert (loss.get_ylabel(), loss.get_yscale()) == ("loss", scale) and low < lowest and high > 20


def test_many_epochs_have_no_dots():
    markers = [draw_training(history(epochs=n, batches=2)).axes[0].lines[2].get_marker() for n in (100, 101)]
    assert markers == ["o", ""]


@pytest.mark.parametrize("of_loss", [True, False])
@pytest.mark.parametrize(
    ("epochs", "batches", "of_epochs"), [(5, 99, True), (50, 11, True), (4, 11, False), (5, 101, False)]
)
def test_epochs_of_few_batches_are_drawn_by_their_means(epochs, batches, of_epochs, of_loss):
    h = history(epochs=epochs, batches=batches, extra=3)
    h.epoch_accuracy[:], h.epoch_loss[:] = np.linspace(0.5, 1, epochs), np.linspace(2, 1, epochs)
    if of_loss:
        h.batch_accuracy[:] = np.nan
    figure = draw_training(h)
    names = ["training, running mean", "training, mean of each epoch"]
    assert [text.get_text() for text in figure.axes[0].get_legend().texts][1] == names[of_epochs]
    x, mean = lines(figure)[names[of_epochs]]
    assert len(x) == (epochs if of_epochs else 500)
    if of_epochs:
        np.testing.assert_allclose(x, np.arange(1, epochs + 1))
        np.testing.assert_allclose(mean, h.epoch_loss if of_loss else 100 * h.epoch_accuracy)


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize(
    ("losses", "rate"),
    [((1, 4e4), 0.05), ((2e14, 2.1e14), 0.0001), ((-1.23e7, -1.22e7), 0.05), (None, 0.0001)],
    ids=["powers", "narrow", "negative", "accuracy"],
)
def test_labels_are_inside_the_picture(losses, rate, validated):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    h = history(validated=validated)
    h.learning_rate[:] = rate
    if losses:
        h.batch_accuracy[:] = np.nan
        h.batch_loss[:] = np.linspace(*losses, len(h.batch_loss))
        h.validation_loss[:] = losses[0]
    figure = draw_training(h)
    FigureCanvasAgg(figure).draw()
    assert figure.axes[0].bbox.height > figure.bbox.height / 2
    for axes in figure.axes[:3]:
        label = axes.yaxis.label.get_window_extent()
        assert figure.bbox.x0 <= label.x0 and label.x1 <= figure.bbox.x1


def test_the_number_of_edges_left_is_drawn():
    h = history()
    h.add(epoch_edges=[2000, 1500, 1000])
    left = draw_training(h).axes[-1]
    np.testing.assert_allclose(left.lines[0].get_data(), [[1, 2, 3], [1, 0.75, 0.5]])
    assert [text.get_text() for text in left.texts] == ["1,000 edges"]


@pytest.mark.parametrize(
    ("h", "epoch_size", "end"),
    [
        (History(), None, 1),
        (history(epochs=0, extra=1), 500, 0.02),
        (history(epochs=0, extra=7), None, 1),
        (history(epochs=2, extra=5), None, 2 + 50 / 495),
        (history(validated=False, batches=1), None, 3),
    ],
    ids=["nothing", "one batch", "epoch of unknown size", "part of an epoch", "batch is epoch"],
)
def test_runs_of_any_length_can_be_drawn(h, epoch_size, end):
    if len(h.learning_rate):
        h.learning_rate[:] = 0.0
    assert draw_training(h, epoch_size=epoch_size).axes[0].get_xlim() == pytest.approx((0, end))


def test_long_runs_keep_their_extremes_and_skipped_batches_leave_no_gap():
    h = history(epochs=10, batches=3000)
    h.batch_accuracy[:] = 0.5
    h.batch_accuracy[[4000, 20001]] = 0.1, 0.9
    x, y = lines(draw_training(h))["each training batch"]
    assert len(y) < 3000 and (y.min(), y.max()) == (10, 90)
    assert x[y.argmin()] == pytest.approx(h.batch_examples[4000] / h.epoch_examples[0], abs=0.02)
    h.batch_accuracy[[4000, 20001]] = np.nan
    np.testing.assert_allclose(lines(draw_training(h))["training, running mean"][1], 50)


@pytest.mark.parametrize(
    ("name", "start"),
    [("p.PNG", b"\x89PNG"), ("p.svg", b"<?xml"), pytest.param("p.pdf", b"%PDF", marks=pytest.mark.slow)],
)
def test_equal_histories_give_equal_files_in_the_format_of_the_suffix(tmp_path, name, start):
    contents = []
    for _ in range(2):
        draw_training(history(epochs=1), tmp_path / name)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] and contents[0].startswith(start) and b"Software" not in contents[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "p.bmpx"}, r"path: expected a name that ends in .png or .svg or .pdf, got 'p.bmpx'"),
        ({"history": [1.0]}, "history: expected a History, got list"),
        ({"path": 3}, "path: expected a path, got int"),
        ({"epoch_size": 0}, "epoch_size: expected an integer of at least 1, got 0"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        draw_training(**{"history": History(), **options})


def test_a_history_draws_itself(tmp_path):
    """As `draw_training` does. A notebook shows the figure, also after a copy."""
    h = history()
    shown = copy.deepcopy(h.draw(tmp_path / "a.png", title="a title", epoch_size=99))._repr_png_()
    figure = draw_training(h, tmp_path / "b.png", title="a title", epoch_size=99)
    assert shown == figure._repr_png_() and shown.startswith(b"\x89PNG")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(ValueError, match=r"^path: expected a name that ends in "):
        h.draw("p.bmpx")


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        draw_training(history(epochs=1), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_waits_until_the_file_is_written(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    save = Figure.savefig

    def interrupted(*args, **options):
        os.kill(os.getpid(), signal.SIGINT)
        save(*args, **options)

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_training(history(), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_global_state_of_matplotlib_is_unchanged(monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setenv("DISPLAY", "")
    before = dict(matplotlib.rcParams), plt.get_fignums()
    draw_training(history())
    assert (dict(matplotlib.rcParams), plt.get_fignums()) == before


@pytest.mark.parametrize("draw", [History().draw, lambda: draw_training(History()), lambda: LivePicture(n_epochs=1)])
@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_the_error_says_what_to_install(draw, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    with pytest.raises(ImportError, match=r"\): pip install "):
        draw()


# --- windows --------------------------------------------------------------------------------------


@pytest.fixture
def agg(monkeypatch):
    """The backend that has no windows, with a display by name."""
    import matplotlib.pyplot as plt

    monkeypatch.setenv("DISPLAY", ":0")
    plt.switch_backend("agg")


@pytest.fixture
def windows(agg, monkeypatch):
    """The same backend, which claims to have windows; a list of what is done to them."""
    import matplotlib.pyplot as plt
    from matplotlib.backend_bases import FigureManagerBase
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    done = []
    draw = FigureCanvasAgg.draw

    def record_draw(canvas):
        done.append("draw")
        draw(canvas)

    monkeypatch.setattr(FigureCanvasAgg, "required_interactive_framework", "none")
    monkeypatch.setattr(FigureCanvasAgg, "draw", record_draw)
    monkeypatch.setattr(FigureCanvasAgg, "blit", lambda self, box: done.append("blit"), raising=False)
    monkeypatch.setattr(FigureManagerBase, "show", lambda self: done.append("open"))
    monkeypatch.setattr(plt, "show", lambda block: done.append("wait"))
    yield done
    plt.close("all")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names its display in the environment")
def test_without_a_display_no_window_opens(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NoDisplayError, match="DISPLAY"):
        LivePicture(n_epochs=1)


@pytest.mark.usefixtures("agg")
def test_a_backend_without_windows_is_refused():
    with pytest.raises(NoDisplayError, match="backend agg opens no windows"):
        LivePicture(n_epochs=1)


@pytest.mark.parametrize("error", [RuntimeError("couldn't connect\n to display"), KeyboardInterrupt()])
def test_a_window_that_fails_is_closed(windows, monkeypatch, error):
    import matplotlib.pyplot as plt

    def fail(*_):
        raise error

    monkeypatch.setattr(plotting, "_Picture", fail)
    with pytest.raises((KeyboardInterrupt, NoDisplayError)) as caught:
        LivePicture(n_epochs=1)
    assert isinstance(error, KeyboardInterrupt) or str(caught.value).endswith(": couldn't connect to display")
    assert not plt.get_fignums()


def test_updates_are_rare_and_draw_only_lines(windows, monkeypatch):
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    now = 0.0

    def take_half_a_second(canvas):
        nonlocal now
        now += 0.5

    monkeypatch.setattr(plotting.time, "perf_counter", lambda: now)
    monkeypatch.setattr(FigureCanvasAgg, "flush_events", take_half_a_second)
    picture = LivePicture(n_epochs=3, epoch_size=495)
    assert windows == ["open", "draw"] and picture.is_due
    picture.update(history(epochs=1))  # the limits of learning rate and batch size change, so everything is drawn
    assert picture.is_due
    picture.update(history(epochs=2))
    assert windows == ["open", "draw", "draw", "blit"]
    now += 0.49 / 0.04
    assert not picture.is_due
    now += 0.02 / 0.04
    assert picture.is_due

    picture.update(history(epochs=5))  # the legend changes
    assert windows[4:] == ["draw"]
    picture.update(history(epochs=2))

    figure = plt.gcf()
    pieces = np.array(figure.canvas.buffer_rgba())
    figure.canvas.draw()
    np.testing.assert_array_equal(pieces, np.array(figure.canvas.buffer_rgba()))
    np.testing.assert_allclose(lines(figure)["validation, after each epoch"], [[1, 2], [90, 91]])
    assert figure.axes[0].get_xlim() == (0, 3)
    windows.clear()
    picture.wait(history())
    assert windows == ["draw", "wait"]
    plt.close(figure)
    assert not picture.is_open and not picture.is_due
    picture.wait(history())
    assert windows == ["draw", "wait"]


@pytest.mark.slow
def test_a_backend_without_blitting_draws_everything(windows, monkeypatch):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    monkeypatch.setattr(FigureCanvasAgg, "supports_blit", False)
    picture = LivePicture(n_epochs=3, epoch_size=495)
    picture.update(history(epochs=1))
    picture.update(history(epochs=2))
    assert windows == ["open", "draw", "draw", "draw"]
