"""The application trains: what it takes, writes and says."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mnist_program import HEIGHT, WIDTH, Run, write_data, write_idx

import mlgraph
from mlgraph import mnist
from mlgraph.datasets import load_mnist


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
        "epochs": 2,
        "edges": 20 * 32 + 32 * 3,
        "parameters": 20 * 32 + 32 * 3 + 35,
        "isa": mlgraph.ISA,
        "seed": 7,
        "threads": mlgraph.default_threads(),
        "hidden": [32],
        "activation": "leaky_relu",
        "preset": "default",
        "batch_size": [8, 8],
        "data": str(data),
        "epochs_trained": 2.0,
        "interrupted": False,
    }
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
            {
                "preset": "ml-rust",
                "hidden": [32],
                "activation": "leaky_relu",
                "weight_dropout": 0.5,
                "dropout": 0.0,
                "batch_size": [128, 8],
                "epochs": 10,
                "parameters": 20 * 32 + 32 * 3 + 32,
            },
        ),
        (
            ["--weight-dropout", "0", "--preset", "ml-rust", "--hidden", "6,4", "--epochs", "1", "--batch-size", "16"],
            {
                "weight_dropout": 0.0,
                "hidden": [6, 4],
                "epochs": 1,
                "batch_size": [16, 16],
                "output_bias": False,
                "learning_rate": [0.07, 0.0002],
                "edges": 20 * 6 + 6 * 4 + 4 * 3,
            },
        ),
        (["--preset", "ml-rust", "--epochs", "1"], {"learning_rate": [0.05, 0.0003]}),
        (["--dropout", ".5", "--epochs", "1"], {"learning_rate": [0.04, 0.0002]}),
        (["--dropout", ".5", "--epochs", "1", "--learning-rate", "0.07:0.0002"], {"learning_rate": [0.07, 0.0002]}),
        (["--hidden", "none", "--epochs", "1"], {"hidden": [], "edges": 60}),
        (["--weight-decay", "0.001"], {"weight_decay": 0.001}),
        (
            ["--learning-rate", "0.2:0.1", "--momentum", "0", "--dropout", ".25", "--activation", "tanh"],
            {"learning_rate": [0.2, 0.1], "momentum": 0.0, "dropout": 0.25, "activation": "tanh"},
        ),
        (["--learning-rate", "1e-3"], {"learning_rate": [0.001, 0.001]}),
        (["--optimizer", "adam"], {"optimizer": "adam", "learning_rate": [0.003, 0.00003]}),
        (["--sparsity", ".5", "--epochs", "1"], {"learning_rate": [0.1, 0.0002], "sparse_from": 0.1}),
        (["--sparsity", ".5", "--optimizer", "adam"], {"learning_rate": [0.003, 0.00003]}),
        (["--preset", "lenet-300-100", "--epochs", "1"], {"dropout": 0.2}),
        (["--preset", "lenet-300-100", "--epochs", "1", "--sparsity", "0.8"], {"dropout": 0.2}),
        (["--preset", "lenet-300-100", "--epochs", "1", "--sparsity", "0.95"], {"dropout": 0.1}),
        (["--preset", "lenet-300-100", "--epochs", "1", "--sparsity", "0.95", "--dropout", "0.2"], {"dropout": 0.2}),
        (["--optimizer", "adam", "--learning-rate", "0.01"], {"optimizer": "adam", "learning_rate": [0.01, 0.01]}),
    ],
)
def test_presets_and_options(run: Run, words: list[str], expected: dict[str, Any]) -> None:
    result = run(*words, "--quiet", "--no-plot", "--json")
    assert (result.status, result.err) == (0, "")
    assert len(result.out.splitlines()) == 1
    assert {name: result.json[name] for name in expected} == expected


def test_what_fit_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    fit = mlgraph.Network.fit
    monkeypatch.setattr(mlgraph.Network, "fit", lambda *args, **options: given.append(options) or fit(*args, **options))
    for words in (
        ["--optimizer", "adam"],
        ["--sparsity", "0.5", "--block", "2"],
        *(["--sparsity", "0.5", "--block", "2", "--method", method] for method in ("set", "rigl")),
    ):
        assert run(*words, "--epochs", 1, "--quiet", "--no-plot").status == 0
    assert [options["optimizer"] for options in given] == ["adam", "sgd", "sgd", "sgd"]
    assert [options["sparsify"] for options in given] == [
        None,
        mlgraph.GradualPruning(0.5, start=0.1, block=2),
        mlgraph.SET(0.5, block=2),
        mlgraph.RigL(0.5, block=2),
    ]


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
        ["--epochs", 1, "--no-plot"],
        ["evaluate", model],
        ["inspect", model, "--no-plot"],
        ["prune", model, "--sparsity", 0.5, "--epochs", 1, "--out", "pruned", "--no-plot"],
    ):
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


def test_the_best_accuracy_is_of_no_denser_network(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = mlgraph.Network.fit

    def better_before(net: mlgraph.Network, *args: Any, **options: Any) -> Any:
        history = fit(net, *args, **options)
        history.validation_accuracy[history.epoch_edges > net.n_edges] = 1.0
        return history

    monkeypatch.setattr(mlgraph.Network, "fit", better_before)
    record = run("--epochs", 4, "--sparsity", 0.9, "--json").json
    assert record["test_accuracy"] <= record["best_test_accuracy"] < 1


def test_train_sparse(run: Run) -> None:
    for method in ("gradual", "set", "rigl"):
        result = run(
            "--sparsity", 0.6, "--method", method, "--epochs", 2, "--batch-size", 4, "--quiet", "--no-plot", "--json"
        )
        assert (result.status, result.err) == (0, "")
        record = result.json
        assert (record["sparsity"], record["method"]) == (0.6, method)
        assert record["sparsity_reached"] == pytest.approx(0.6, abs=0.01)
        assert record["edges"] == mlgraph.load("mnist-run/model.npz").n_edges
    assert "sparsity_reached" not in run("--epochs", 1, "--quiet", "--no-plot", "--json").json


@pytest.mark.parametrize("command", [("train",), ("prune", "trained/model.npz")])
@pytest.mark.usefixtures("model")
def test_a_criterion_decides_what_is_cut(run: Run, command: tuple[str, ...]) -> None:
    kept = []
    for words in ((), ("--by", "magnitude"), ("--by", "saliency"), ("--by", "random")):
        result = run(
            *command, "--sparsity", 0.8, *words, "--epochs", 2, "--out", "cut", "--quiet", "--no-plot", "--json"
        )
        assert (result.status, result.err, result.json["by"]) == (0, "", words[-1] if words else "magnitude")
        kept.append(mlgraph.load("cut/model.npz").layers[0].mask)
    assert np.array_equal(kept[0], kept[1])
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(kept[1:], 2))


def test_the_preset_of_the_sparse_networks(run: Run) -> None:
    record = run("--preset", "lenet-300-100", "--epochs", 1, "--quiet", "--no-plot", "--json").json
    assert (record["hidden"], record["edges"]) == ([300, 100], 20 * 300 + 300 * 100 + 100 * 3)
