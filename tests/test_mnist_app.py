"""The application trains: what it writes and says, and that every mistake is one line."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mnist_program import HEIGHT, WIDTH, Run, interrupt, write_data, write_idx

import mlgraph
from mlgraph import mnist
from mlgraph.app.recipe import ADAM_RATES, PRESETS, THINNED_RATES
from mlgraph.datasets import load_mnist

# --- training ---------------------------------------------------------------------------------------------------------


def test_train_writes_and_says_what_it_did(run: Run) -> None:
    result = run("--epochs", 3, "--hidden", 8, "--threads", 1, "--json")
    assert (result.status, result.err) == (0, "")
    header, *epochs, summary, files, _ = result.out.splitlines()
    assert header == f"20-8-3 leaky_relu, 184 edges, 1 thread, {mlgraph.ISA}"
    assert [line.split("   test accuracy")[0] for line in epochs] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert summary.startswith("test accuracy ")
    assert summary.endswith(" examples/s")
    assert (
        files
        == f"wrote {Path('mnist-run/model.npz')}, {Path('mnist-run/history.json')}, {Path('mnist-run/training.png')}"
    )
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]
    assert Path("mnist-run/training.png").read_bytes().startswith(b"\x89PNG")


def test_json_and_history_agree(run: Run, data: Path) -> None:
    record = run("train", "--epochs", 2, "--batch-size", 8, "--seed", 7, "--json", "--out", "a/b").json
    assert record["test_accuracy"] == 1.0
    assert record["train_seconds"] > 0
    assert record["examples_per_second"] == pytest.approx(180 / record["train_seconds"])
    expected = {
        "epochs": 2, "edges": 20 * 32 + 32 * 3, "parameters": 20 * 32 + 32 * 3 + 35, "isa": mlgraph.ISA, "seed": 7,
        "threads": mlgraph.default_threads(), "hidden": [32], "activation": "leaky_relu", "preset": "default",
        "batch_size": [8, 8], "data": str(data), "epochs_trained": 2.0, "interrupted": False,
    }  # fmt: skip
    assert {name: record[name] for name in expected} == expected

    written = json.loads(Path("a/b/history.json").read_text())
    assert {**written["configuration"], **written["results"]} == record
    assert written["history"]["batch_examples"][-1] == 180
    assert len(written["history"]["validation_accuracy"]) == 2


def test_saved_model_is_the_trained_one(run: Run, model: str, data: Path) -> None:
    trained = json.loads(Path("trained/history.json").read_text())["results"]
    assert run("evaluate", model, "--json").json["test_loss"] == trained["test_loss"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"preset": "default", "weight_dropout": 0.0, "output_bias": True, "parameters": 20 * 32 + 32 * 3 + 35}),
        (
            ["--preset", "ml-rust"],
            {"preset": "ml-rust", "hidden": [32], "activation": "leaky_relu", "weight_dropout": 0.5, "dropout": 0.0,
             "batch_size": [128, 8], "epochs": 10, "parameters": 20 * 32 + 32 * 3 + 32},
        ),
        (
            ["--weight-dropout", "0", "--preset", "ml-rust", "--hidden", "6,4", "--epochs", "1", "--batch-size", "16"],
            {"weight_dropout": 0.0, "hidden": [6, 4], "epochs": 1, "batch_size": [16, 16], "output_bias": False,
             "learning_rate": list(PRESETS["default"].learning_rate), "edges": 20 * 6 + 6 * 4 + 4 * 3},
        ),
        (["--preset", "ml-rust", "--epochs", "1"], {"learning_rate": list(THINNED_RATES["weight_dropout"])}),
        (["--dropout", ".5", "--epochs", "1"], {"learning_rate": list(THINNED_RATES["dropout"])}),
        (["--dropout", ".5", "--epochs", "1", "--learning-rate", "0.07:0.0002"], {"learning_rate": [0.07, 0.0002]}),
        (["--hidden", "none", "--epochs", "1"], {"hidden": [], "edges": 60}),
        (["--hidden", "", "--epochs", "1"], {"hidden": [], "edges": 60}),
        (["--weight-decay", "0.001"], {"weight_decay": 0.001}),
        (
            ["--learning-rate", "0.2:0.1", "--momentum", "0", "--dropout", ".25", "--activation", "tanh"],
            {"learning_rate": [0.2, 0.1], "momentum": 0.0, "dropout": 0.25, "activation": "tanh"},
        ),
        (["--learning-rate", "1e-3"], {"learning_rate": [0.001, 0.001]}),
        (["--optimizer", "adam"], {"optimizer": "adam", "learning_rate": list(ADAM_RATES)}),
        (["--sparsity", ".5", "--epochs", "1"], {"learning_rate": list(THINNED_RATES["sparsity"]), "sparse_from": 0.1}),
        (["--sparsity", ".5", "--optimizer", "adam"], {"learning_rate": list(ADAM_RATES)}),
        (["--preset", "lenet-300-100", "--epochs", "1"], {"dropout": 0.2}),
        (["--preset", "lenet-300-100", "--epochs", "1", "--sparsity", "0.8"], {"dropout": 0.2}),
        (["--preset", "lenet-300-100", "--epochs", "1", "--sparsity", "0.95"], {"dropout": 0.1}),
        (["--preset", "lenet-300-100", "--epochs", "1", "--sparsity", "0.95", "--dropout", "0.2"], {"dropout": 0.2}),
        (["--optimizer", "adam", "--learning-rate", "0.01"], {"optimizer": "adam", "learning_rate": [0.01, 0.01]}),
    ],
)  # fmt: skip
def test_presets_and_options(run: Run, words: list[str], expected: dict[str, Any]) -> None:
    result = run(*words, "--quiet", "--no-plot", "--json")
    assert (result.status, result.err) == (0, "")
    assert len(result.out.splitlines()) == 1
    assert {name: result.json[name] for name in expected} == expected


def test_what_fit_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    fit = mlgraph.Network.fit
    monkeypatch.setattr(mlgraph.Network, "fit", lambda *args, **options: given.append(options) or fit(*args, **options))
    for words in (["--optimizer", "adam"], ["--sparsity", "0.5", "--block", "2"], *(
            ["--sparsity", "0.5", "--block", "2", "--method", method] for method in ("set", "rigl"))):  # fmt: skip
        assert run(*words, "--epochs", 1, "--quiet", "--no-plot").status == 0
    assert [options["optimizer"] for options in given] == ["adam", "sgd", "sgd", "sgd"]
    assert [options["sparsify"] for options in given] == [
        None, mlgraph.GradualPruning(0.5, start=0.1, block=2), mlgraph.SET(0.5, block=2), mlgraph.RigL(0.5, block=2),
    ]  # fmt: skip


def test_same_seed_same_model(run: Run) -> None:
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("--epochs", 2, "--seed", seed, "--dropout", 0.5, "--quiet", "--no-plot", "--out", out)
    weights = [mlgraph.load(f"{out}/model.npz").graph.parameters for out in "abc"]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_quiet(run: Run) -> None:
    assert run("--epochs", 1, "--quiet", "--live") == (0, "", "")
    assert Path("mnist-run/training.png").exists()


def test_no_plot(run: Run) -> None:
    result = run("--epochs", 1, "--no-plot", "--json")
    assert "training.png" not in result.out
    assert "picture" not in result.json["files"]
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz"]


def test_first_run_is_replaced(run: Run) -> None:
    for epochs in (1, 2):
        assert run("--epochs", epochs).status == 0
    assert json.loads(Path("mnist-run/history.json").read_text())["configuration"]["epochs"] == 2
    assert len(os.listdir("mnist-run")) == 3


@pytest.mark.parametrize("linked", [False, True])
def test_no_picture_of_an_older_run_is_left(run: Run, monkeypatch: pytest.MonkeyPatch, linked: bool) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "x.png")

    picture, elsewhere = Path("mnist-run/training.png"), Path("elsewhere.png")
    picture.parent.mkdir()
    if linked:
        picture.symlink_to(elsewhere.absolute())
    for words, error in ((["--no-plot"], None), ([], fail)):
        assert run("--epochs", 1).status == 0
        assert picture.exists() and elsewhere.exists() is linked
        with monkeypatch.context() as context:
            if error:
                context.setattr("matplotlib.figure.Figure.savefig", error)
            assert run("--epochs", 2, *words).status == (1 if error else 0)
        assert not picture.exists() and picture.is_symlink() is linked


def test_none_of_an_older_run_is_left_while_the_picture_is_drawn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever kills the program then."""
    left: list[list[str]] = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: left.append(os.listdir("mnist-run")))
    for _ in range(2):
        assert run("--epochs", 1).status == 0
    assert [[name for name in names if not name.startswith(".")] for names in left] == [["model.npz"]] * 2


def test_no_record_of_an_older_run_is_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    assert run("--epochs", 1, "--no-plot").status == 0
    monkeypatch.setattr("mlgraph.app.learning.write_atomically", full)
    result = run("--epochs", 2, "--no-plot")
    record = Path("mnist-run/history.json")
    assert (result.status, result.err) == (1, f"mlgraph.mnist: error: [Errno 28] No space left on device: '{record}'\n")
    assert os.listdir("mnist-run") == ["model.npz"]


# --- on a terminal, and without the extras ----------------------------------------------------------------------------


def test_bar(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm").tqdm
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # its thread would outlive the test
    close, reached = tqdm.close, []
    monkeypatch.setattr(tqdm, "close", lambda bar: reached.append(bar.n) or close(bar))
    result = run("--epochs", 2, "--no-plot", terminal=True)
    assert "/180 [" in result.err and reached[0] == 180
    lines = result.out.splitlines()
    assert [line[:9] for line in lines] == [lines[0][:9], "epoch 1/2", "epoch 2/2", "test accu", "wrote mni"]


def test_quiet_terminal(run: Run) -> None:
    assert run("--epochs", 1, "--quiet", "--no-plot", terminal=True) == (0, "", "")


def test_without_tqdm(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    result = run("--epochs", 2, "--no-plot", terminal=True)
    assert (result.status, result.err) == (0, "no progress bar, which needs tqdm: pip install 'mlgraph[app]'\n")
    assert "epoch 2/2" in result.out


def hide_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.pyplot", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)


def test_without_matplotlib(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_matplotlib(monkeypatch)
    result = run("--epochs", 1)
    assert result.status == 0
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("no picture: ")
    assert result.err.endswith("pip install 'mlgraph[app]'\n")
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "x.png"), RuntimeError("by the backend")])
@pytest.mark.parametrize("command", ["train", "inspect"])
def test_a_picture_that_fails_takes_nothing_along(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    assert run("--epochs", 1, "--no-plot", "--hidden", 4).status == 0
    result = run("--epochs", 1, "--json") if command == "train" else run("inspect", "mnist-run/model.npz", "--json")
    assert (result.status, result.err) == (1, f"mlgraph.mnist: error: no picture: {error}\n")
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz"]
    if command == "train":
        assert result.json["files"].keys() == {"model", "history"}
        record = json.loads(Path("mnist-run/history.json").read_bytes())
        assert record["configuration"]["hidden"] == [32]
    else:
        assert len(result.json["neurons"]) == 7


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_a_run_is_whole_though_its_picture_is_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    save = Figure.savefig

    def interrupted(*args: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(*args, **options)

    monkeypatch.setattr(Figure, "savefig", interrupted)
    result = run("--epochs", 1, "--json")
    assert (result.status, result.err) == (130, "mlgraph.mnist: interrupted after the training; all is saved\n")
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]
    assert result.json["files"].keys() == {"model", "history", "picture"}


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_as_training_ends_costs_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("save", "evaluate"):
        method = getattr(mlgraph.Network, name)

        def interrupted(*args: Any, method: Any = method, **options: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return method(*args, **options)

        with monkeypatch.context() as context:
            context.setattr(mlgraph.Network, name, interrupted)
            result = run("--epochs", 2, "--json", "--out", name)
        assert (result.status, result.err) == (130, "mlgraph.mnist: interrupted after the training; all is saved\n")
        assert sorted(os.listdir(name)) == ["history.json", "model.npz", "training.png"]
        assert result.json["epochs_trained"] == 2


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_a_second_ctrl_c_costs_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "epoch", 0)
    save = mlgraph.Network.save

    def interrupted(net: mlgraph.Network, path: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(net, path)

    monkeypatch.setattr(mlgraph.Network, "save", interrupted)
    result = run("--epochs", 2)
    assert (result.status, result.err) == (130, "mlgraph.mnist: interrupted after 1.00 of 2 epochs; saved what there is\n")
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]


def test_a_second_ctrl_c_right_after_the_first_costs_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a program that hands on what its children have had from the terminal, too."""
    interrupt(monkeypatch, "epoch", 0)
    later = mlgraph.__getattr__

    def interrupted(name: str) -> Any:
        if name == "CheckpointError":
            raise KeyboardInterrupt  # while that is imported
        return later(name)

    monkeypatch.setattr(mlgraph, "__getattr__", interrupted)
    assert run("--epochs", 2).status == 130
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("first", [False, True])
def test_a_bar_that_cannot_be_closed_costs_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, first: bool
) -> None:
    """It is closed between the last step and the saving; or after a first Ctrl-C."""

    def closed(_: object) -> None:
        raise error

    class Bar:
        n = 0
        close = closed

        def __init__(self, **_: Any) -> None:
            pass

        def write(self, line: str) -> None:
            print(line)

        def update(self, n: int) -> None:
            pass

        def set_postfix_str(self, *_: Any, **__: Any) -> None:
            pass

    if first:
        interrupt(monkeypatch, "epoch", 0)
    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=Bar))
    result = run("--epochs", 2, terminal=True)
    assert result.status == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]


def test_live_without_matplotlib(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_matplotlib(monkeypatch)
    monkeypatch.setenv("DISPLAY", ":0")
    result = run("--epochs", 1, "--no-plot", "--live")
    assert result.status == 0
    assert result.err.startswith("no live picture: ")
    assert result.err.endswith("pip install 'mlgraph[app]'\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names its display in the environment")
def test_live_without_display(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    result = run("--epochs", 1, "--live", terminal=True)
    assert result.status == 0
    assert result.err.splitlines()[0] == "no live picture: neither DISPLAY nor WAYLAND_DISPLAY is set"
    assert Path("mnist-run/training.png").exists()


def test_what_the_picture_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    def draw(history: mlgraph.History, path: Path, **options: Any) -> None:
        drawn.append((len(history.epoch_loss), path.name, options))

    monkeypatch.setattr("mlgraph.app.learning.training_picture", draw)
    assert run("--epochs", 2).status == 0
    title = "20-32-3 leaky_relu, 736 edges, 2 epochs, seed 0"
    assert drawn == [(2, "training.png", {"title": title, "epoch_size": 90})]


@pytest.mark.parametrize("watched", [True, False])
def test_live_window(run: Run, monkeypatch: pytest.MonkeyPatch, watched: bool) -> None:
    calls: list[Any] = []

    class Window:
        is_open = is_due = True

        def __init__(self, **options: Any) -> None:
            calls.append(("open", options))

        def update(self, history: mlgraph.History) -> None:
            calls.append(("update", len(history.validation_accuracy)))

        def wait(self, history: mlgraph.History) -> None:
            calls.append(("wait", len(history.validation_accuracy)))
            raise KeyboardInterrupt  # Ctrl-C closes it, too

    monkeypatch.setattr("mlgraph.app.display.LivePicture", Window)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert run("--epochs", 2, "--no-plot", "--live", terminal=watched).status == 0
    title = "20-32-3 leaky_relu, 736 edges, 2 epochs, seed 0"
    assert calls[0] == ("open", {"title": title, "n_epochs": 2, "epoch_size": 90})
    assert ("update", 2) in calls
    # A script must not wait for somebody to close a window.
    assert (calls[-1] == ("wait", 2)) is watched


@pytest.mark.parametrize(("fails", "note"), [("open", "no live picture: "), ("update", "no live picture any more: "),
                                             ("wait", "close the window to end")])  # fmt: skip
def test_no_run_ends_for_a_window_that_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch, fails: str, note: str
) -> None:
    def at(moment: str) -> None:
        if moment == fails:
            raise RuntimeError("application has\nbeen destroyed")

    class Window:
        is_open = is_due = True

        def __init__(self, **_: Any) -> None:
            at("open")

        def update(self, _: mlgraph.History) -> None:
            at("update")

        def wait(self, _: mlgraph.History) -> None:
            at("wait")

    monkeypatch.setattr("mlgraph.app.display.LivePicture", Window)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    result = run("--epochs", 2, "--no-plot", "--live", terminal=True)
    notes = [line for line in result.err.splitlines() if "tqdm" not in line]
    assert (result.status, notes) == (0, [note + "application has been destroyed" * (fails != "wait")])
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz"]


@pytest.mark.parametrize("method", ["__init__", "update"])
def test_ctrl_c_in_the_window_ends_the_run(run: Run, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    class Window:
        is_open = is_due = True

        def __init__(self, **_: Any) -> None:
            pass

        def update(self, _: mlgraph.History) -> None:
            pass

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Window, method, interrupted)
    monkeypatch.setattr("mlgraph.app.display.LivePicture", Window)
    assert run("--epochs", 2, "--no-plot", "--live").status == 130


# --- the ends that a run can come to ----------------------------------------------------------------------------------


def test_interrupt_keeps_what_there_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "epoch", 1)
    result = run("--epochs", 5, "--json")
    assert result.status == 130
    assert result.err == "mlgraph.mnist: interrupted after 2.00 of 5 epochs; saved what there is\n"
    record = result.json
    assert (record["interrupted"], record["epochs"], record["epochs_trained"]) == (True, 5, 2.0)
    assert record["examples_per_second"] > 0
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]
    assert json.loads(Path("mnist-run/history.json").read_text())["results"]["interrupted"]
    assert isinstance(mlgraph.load("mnist-run/model.npz"), mlgraph.Network)


def test_interrupt_within_the_first_epoch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "steps", 0)
    result = run("--epochs", 5, "--batch-size", 10)
    assert result.status == 130
    assert result.err.startswith("mlgraph.mnist: interrupted after 0.")
    assert sorted(os.listdir("mnist-run")) == ["history.json", "model.npz", "training.png"]


def test_interrupt_before_the_first_step(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: mlgraph.Network, *args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mlgraph.Network, "fit", fit)
    before = Path(model).read_bytes()
    result = run("--out", "trained")
    assert (result.status, result.err) == (
        130,
        "mlgraph.mnist: error: interrupted before the first step, nothing saved\n",
    )
    assert Path(model).read_bytes() == before


def test_what_is_not_finite(run: Run) -> None:
    options = ["--hidden", "8", "--activation", "identity", "--learning-rate", 1e30, "--epochs", 2, "--batch-size", 4]
    raised = run(*options)
    assert (raised.status, len(raised.err.splitlines())) == (1, 1) and "layer" in raised.err
    skipped = run(*options, "--on-nonfinite", "skip", "--json")
    record = json.loads(skipped.out.splitlines()[-1])
    assert skipped.status == 0 and f"{record['examples_left_out']} examples left out, 0 neurons cut" in skipped.out
    assert record["on_nonfinite"] == "skip" and record["examples_left_out"] > 0 == record["neurons_disconnected"]
    assert run("--on-nonfinite", "ignore").status == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert mnist.main(["--version"]) == 0
    assert capsys.readouterr() == (f"mlgraph {mlgraph.__version__}\n", "")


@pytest.mark.filterwarnings("default")
def test_data_of_zeros_and_ones(run: Run, tmp_path: Path) -> None:
    """What is warned of is told once, in one line."""
    folder = write_data(tmp_path / "bits")
    for prefix, n in (("train", 90), ("t10k", 30)):
        images = np.random.default_rng(0).integers(0, 2, (n, HEIGHT, WIDTH)).astype(np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
    model = "mnist-run/model.npz"
    for words in (
        ["--epochs", 1, "--no-plot"], ["evaluate", model], ["inspect", model, "--no-plot"],
        ["prune", model, "--sparsity", 0.5, "--epochs", 1, "--out", "pruned", "--no-plot"],
    ):  # fmt: skip
        result = run(*words, data=folder)
        assert result.status == 0
        assert result.err.splitlines() == [
            "mlgraph.mnist: x: bytes are read as byte / 255, and all of these are 0 or 1; astype(np.float32) leaves them so"
        ]
    assert run("--epochs", 1, "--no-plot", "--quiet", data=folder).err == ""


def test_the_default_run_is_that_of_the_readme(run: Run, data: Path) -> None:
    assert run("--quiet", "--no-plot").status == 0
    net, images = mlgraph.Network(20, seed=0), load_mnist(data)
    net.add_layer(32, activation="leaky_relu")
    net.add_layer(3, activation="softmax")
    net.fit(images.train_x, images.train_y, epochs=10, batch_size=(128, 8), learning_rate=(0.07, 0.0002), seed=0)
    assert mlgraph.load("mnist-run/model.npz").graph.get_parameters().tobytes() == net.graph.get_parameters().tobytes()
