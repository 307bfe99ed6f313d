"""The command ``train``: its output, files and options."""

import json
import os
from pathlib import Path

import pytest
from mnist_program import SAVED, write_data

import mlgraph
from mlgraph import mnist
from mlgraph.datasets import load_mnist

FAST = ("--epochs", 1, "--quiet", "--no-plot", "--json")


def test_output_and_files(run):
    result = run("--epochs", 3, "--hidden", 8, "--threads", 1, "--json")
    assert (result.status, result.err) == (0, "")
    header, *epochs, summary, files, _ = result.out.splitlines()
    assert header == f"20-8-3 leaky_relu, 184 edges, 1 thread, {mlgraph.ISA}"
    assert [line.split("   test accuracy")[0] for line in epochs] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert summary.startswith("test accuracy ") and summary.endswith(" examples/s")
    assert files == "wrote mnist-run/model.npz, mnist-run/history.json, mnist-run/training.png"
    assert sorted(os.listdir("mnist-run")) == [*SAVED, "training.png"]
    assert Path("mnist-run/training.png").read_bytes().startswith(b"\x89PNG")
    assert run("evaluate", "mnist-run/model.npz", "--json").json["test_loss"] == result.json["test_loss"]


def test_json_and_history(run, data):
    record = run("train", "--epochs", 2, "--batch-size", 8, "--seed", 7, "--json", "--out", "a/b", "--no-plot").json
    assert record["test_accuracy"] == 1.0 and record["train_seconds"] > 0
    assert record["examples_per_second"] == pytest.approx(180 / record["train_seconds"])
    network = {"hidden": [32], "activation": "leaky_relu", "edges": 20 * 32 + 32 * 3, "parameters": 23 * 32 + 35}
    options = {"preset": "default", "epochs": 2, "batch_size": [8, 8], "seed": 7, "data": str(data)}
    machine = {"isa": mlgraph.ISA, "threads": mlgraph.default_threads()}
    expected = {**network, **options, **machine, "epochs_trained": 2.0, "interrupted": False}
    assert {name: record[name] for name in expected} == expected
    assert "sparsity_reached" not in record and record["files"].keys() == {"model", "history"}
    written = json.loads(Path("a/b/history.json").read_text())
    assert {**written["configuration"], **written["results"]} == record
    assert written["history"]["batch_examples"][-1] == 180
    assert len(written["history"]["validation_accuracy"]) == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--preset ml-rust", {"batch_size": [128, 8], "learning_rate": [0.05, 0.0003], "parameters": 23 * 32 + 32}),
        ("--weight-dropout 0 --preset ml-rust", {"weight_dropout": 0, "learning_rate": [0.07, 0.0002]}),
        ("--hidden 6,4 --batch-size 16", {"batch_size": [16, 16], "edges": 20 * 6 + 6 * 4 + 4 * 3}),
        ("--dropout .5", {"dropout": 0.5, "learning_rate": [0.04, 0.0002]}),
        ("--dropout .5 --learning-rate 0.07:0.0002", {"learning_rate": [0.07, 0.0002]}),
        ("--hidden none --learning-rate 1e-3", {"hidden": [], "edges": 60, "learning_rate": [0.001, 0.001]}),
        ("--weight-decay 0.001 --momentum 0", {"weight_decay": 0.001, "momentum": 0}),
        ("--sparsity .5 --optimizer adam", {"learning_rate": [0.003, 0.00003]}),
        ("--sparsity .5", {"learning_rate": [0.1, 0.0002], "sparse_from": 0.1}),
        ("--preset lenet-300-100 --sparsity .8", {"dropout": 0.2, "hidden": [300, 100], "epochs": 1}),
        ("--preset lenet-300-100 --sparsity .95", {"dropout": 0.1}),
        ("--preset lenet-300-100 --sparsity .95 --dropout .2", {"dropout": 0.2}),
    ],
)
def test_presets_and_defaults_that_depend_on_options(run, words, expected):
    result = run(*FAST, *words.split())
    assert (result.status, result.err, len(result.out.splitlines())) == (0, "", 1)
    assert {name: result.json[name] for name in expected} == expected


def test_the_default_run_equals_that_of_the_readme(run, data):
    assert run("--quiet", "--no-plot").status == 0
    net, images = mlgraph.Network(20, seed=0), load_mnist(data)
    net.add_layer(32, activation="leaky_relu")
    net.add_layer(3, activation="softmax")
    net.fit(
        images.train_x,
        images.train_y,
        epochs=10,
        batch_size=(128, 8),
        learning_rate=(0.07, 0.0002),
        seed=0,
        optimizer="sgd",
    )
    assert mlgraph.load("mnist-run/model.npz").graph.get_parameters().tobytes() == net.graph.get_parameters().tobytes()


@pytest.mark.parametrize(
    ("method", "schedule"),
    [
        ("gradual", mlgraph.GradualPruning(0.6, start=0.1, block=2)),
        ("set", mlgraph.SET(0.6, block=2)),
        ("rigl", mlgraph.RigL(0.6, block=2)),
    ],
)
def test_sparse_training(run, fitted, method, schedule):
    result = run(*FAST, "--sparsity", 0.6, "--method", method, "--block", 2, "--epochs", 2, "--batch-size", 4)
    assert (result.status, result.err) == (0, "") and fitted[-1]["sparsify"] == schedule
    assert result.json["sparsity_reached"] == pytest.approx(0.6, abs=0.01)
    assert result.json["edges"] == mlgraph.load("mnist-run/model.npz").n_edges


@pytest.mark.parametrize("command", ["train", "prune trained/model.npz"])
@pytest.mark.usefixtures("model")
def test_the_option_by_determines_which_edges_are_cut(run, command):
    kept = {}
    for by in ("", "--by path", "--by saliency", "--by random"):
        assert run(*command.split(), *FAST, "--sparsity", 0.8, *by.split(), "--epochs", 2, "--out", "cut").status == 0
        kept[by] = mlgraph.load("cut/model.npz").layers[0].mask.tobytes()
    assert kept[""] == kept["--by path"] and len(set(kept.values())) == 3


def test_best_accuracy_does_not_count_denser_networks(run, monkeypatch):
    fit = mlgraph.Network.fit

    def better_before(net, *args, **options):
        history = fit(net, *args, **options)
        history.validation_accuracy[history.epoch_edges > net.n_edges] = 1.0
        return history

    monkeypatch.setattr(mlgraph.Network, "fit", better_before)
    record = run(*FAST, "--epochs", 4, "--sparsity", 0.9).json
    assert record["test_accuracy"] <= record["best_test_accuracy"] < 1


def test_the_seed_determines_the_network(run):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(*FAST, "--seed", seed, "--dropout", 0.5, "--out", out)
    weights = [mlgraph.load(f"{out}/model.npz").graph.parameters.tobytes() for out in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_quiet_prints_nothing(run):
    assert run("--epochs", 1, "--quiet", "--live", terminal=True) == (0, "", "")
    assert Path("mnist-run/training.png").exists()


@pytest.mark.usefixtures("model")
def test_the_option_on_nonfinite(run):
    options = ["--hidden", "8", "--activation", "identity", "--learning-rate", 1e30, "--epochs", 2, "--batch-size", 4]
    before = {path.name: path.read_bytes() for path in Path("trained").iterdir()}
    raised = run(*options, "--out", "trained", "--json")
    assert (raised.status, len(raised.err.splitlines())) == (1, 1) and "layer" in raised.err
    assert {path.name: path.read_bytes() for path in Path("trained").iterdir()} == before
    skipped = run(*options, "--on-nonfinite", "skip", "--json")
    left_out = skipped.json["examples_left_out"]
    assert skipped.status == 0 and f"infinite or NaN values: {left_out} examples left out, 0 neurons cut" in skipped.out
    assert left_out > 0 == skipped.json["neurons_disconnected"]


@pytest.mark.filterwarnings("always")
def test_a_warning_is_printed_once_as_one_line(run, tmp_path):
    model = "mnist-run/model.npz"
    prune = ["prune", model, "--sparsity", 0.5, "--epochs", 1, "--learning-rate", 1e-4, "--out", "pruned", "--no-plot"]
    assert run("--epochs", 1, "--no-plot", data=write_data(tmp_path / "binary", binary=True)).err == ""
    for words in (["evaluate", model], ["inspect", model, "--no-plot"], prune):
        result = run(*words)
        lines = result.err.splitlines()
        assert result.status == 0 and len({*lines}) == len(lines) == (2 if words is prune else 1)
        assert lines[0].startswith("mlgraph.mnist: x: whole numbers from 0 to 255 are too large")
    assert run(*prune, "--quiet").err == ""


@pytest.mark.filterwarnings("error")
def test_a_warning_as_an_error_ends_the_run_in_one_line(run, tmp_path):
    run("--no-plot", "--epochs", 1, data=write_data(tmp_path / "binary", binary=True))
    result = run("evaluate", "mnist-run/model.npz")
    assert (result.status, len(result.err.splitlines())) == (1, 1)
    assert result.err.startswith("mlgraph.mnist: error: x: whole numbers from 0 to 255")


def test_version(capsys, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.2.3")
    assert mnist.main(["--version"]) == 0
    assert capsys.readouterr() == ("mlgraph 1.2.3\n", "")


@pytest.mark.parametrize("command", ["", "train", "evaluate", "inspect", "prune"])
def test_help(capsys, command):
    with pytest.raises(SystemExit) as done:
        mnist.main([*command.split(), "--help"])
    out, err = capsys.readouterr()
    name = "[train]" if command in ("", "train") else command
    assert (done.value.code, err) == (0, "") and out.startswith(f"usage: python -m mlgraph.mnist {name}")
    if not command:
        assert all(word in out for word in ("--hidden SIZES", "(default: 128:8)", "commands:", "  evaluate "))
