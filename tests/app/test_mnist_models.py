"""The commands that take a saved network: what ``evaluate`` and ``prune`` say, and mistakes of all three."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mnist_program import HEIGHT, WIDTH, Run, write_data, write_idx

import mlgraph


def test_evaluate(run: Run, model: str) -> None:
    result = run("evaluate", model, "--threads", 1)
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == f"{model}: 20-8-3 leaky_relu, 184 edges"
    assert lines[1].startswith("30 test examples: accuracy 100.00%, loss 0.")
    assert lines[3:] == [
        "class  examples  accuracy  most often taken for",
        "    0        10   100.00%",
        "    1        10   100.00%",
        "    2        10   100.00%",
    ]


def test_evaluate_tells_mistakes(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(self: mlgraph.Network, x: np.ndarray, n_threads: int | None = None) -> np.ndarray:
        return np.array([0, 1, 2] * 7 + [2, 0, 2] * 3)

    monkeypatch.setattr(mlgraph.Network, "predict", predict)
    result = run("evaluate", model, "--json")
    assert result.out.splitlines()[4:-1] == [
        "    0        10    70.00%  2 (3)",
        "    1        10    70.00%  0 (3)",
        "    2        10   100.00%",
        "",
        "6 mistakes, most often 0 taken for 2 (3), 1 taken for 0 (3)",
    ]
    assert result.json["confusion"] == [[7, 0, 3], [3, 7, 0], [0, 0, 10]]
    assert result.json["class_accuracy"] == [0.7, 0.7, 1.0]
    assert {"test_accuracy", "test_loss", "edges", "threads", "isa"} <= result.json.keys()


def test_evaluate_class_without_examples(run: Run, model: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "two", classes=2)
    result = run("evaluate", model, "--json", data=data)
    assert result.status == 0
    assert result.json["class_accuracy"][2] is None


def test_evaluate_mistaken_models(run: Run, model: str, tmp_path: Path) -> None:
    Path("text").write_text("no model")
    graph = mlgraph.Graph()
    x = graph.input("x")
    mlgraph.Model(graph, [x * graph.parameter(1.0)]).save("other.npz")
    wide = write_data(tmp_path / "wide", width=6)
    many = write_data(tmp_path / "many", classes=4)
    for path, data, message in (
        ("nothing.npz", None, "nothing.npz: cannot be read: No such file or directory"),
        (".", None, "expected a file, got the folder .; a run keeps its model in model.npz there"),
        ("text", None, "text: not a model file, or a damaged one (File is not a zip file)"),
        ("other.npz", None, "other.npz: expected a `Network` with a softmax layer, got another model"),
        (model, wide, f"{model} has 20 inputs, the images 4 x 6 pixels"),
        (model, many, f"{model} has 3 outputs, the data 4 classes"),
    ):
        assert run("evaluate", path, data=data) == (2, "", f"mlgraph.mnist: error: argument MODEL: {message}\n")


def test_prune(run: Run, model: str) -> None:
    before = run("evaluate", model, "--json").json["test_accuracy"]
    result = run("prune", model, "--sparsity", 0.5, "--epochs", 2, "--json")
    assert (result.status, result.err) == (0, "")
    heading, was, *epochs, _, left, wrote, _ = result.out.splitlines()
    assert heading.startswith("20-8-3 leaky_relu, 184 edges, ")
    assert was == f"test accuracy before {before:.2%}, sparsity 0.00%"
    assert [line.split("   test accuracy")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert epochs[-1].endswith(" s   92 edges")
    record = result.json
    assert left == (
        f"sparsity {record['sparsity_reached']:.2%}, {record['edges']} edges left: "
        f"test accuracy {record['test_accuracy']:.2%}, before {before:.2%}"
    )
    assert wrote.startswith(f"wrote {Path('mnist-pruned/model.npz')}, ")
    assert (record["model"], record["sparsity"], record["epochs"]) == (model, 0.5, 2)
    assert record["accuracy_before"] == before
    assert record["sparsity_reached"] >= 0.499
    net = mlgraph.load("mnist-pruned/model.npz")
    assert net.n_edges == record["edges"] <= 92
    assert run("evaluate", "mnist-pruned/model.npz", "--json").json["test_accuracy"] == record["test_accuracy"]
    assert Path("mnist-pruned/model.npz").stat().st_size < Path(model).stat().st_size


def test_prune_replaces_no_model(run: Run, model: str) -> None:
    before = Path(model).read_bytes()
    result = run("prune", model, "--sparsity", 0.5, "--out", Path(model).parent)
    assert result.status == 2
    assert result.err.startswith("mlgraph.mnist: error: argument --out: expected another folder than that of MODEL, ")
    assert Path(model).read_bytes() == before


def test_prune_is_quiet(run: Run, model: str, tmp_path: Path) -> None:
    folder = write_data(tmp_path / "bits")
    bits = np.random.default_rng(0).integers(0, 2, (30, HEIGHT, WIDTH), np.uint8)
    write_idx(folder / "t10k-images-idx3-ubyte", bits)
    words = ["prune", model, "--sparsity", 0.5, "--epochs", 1, "--no-plot"]
    assert "bytes are read as byte / 255" in run(*words, data=folder).err
    assert run(*words, "--quiet", data=folder) == (0, "", "")


@pytest.mark.parametrize("name", ["checkpoint.npz", "checkpoint.npz.previous"])
def test_prune_replaces_no_run_whose_checkpoint_it_reads(run: Run, name: str) -> None:
    assert run("--epochs", 3, "--checkpoint-every", 0, "--out", "a-run").status == 0
    before = {path.name: path.read_bytes() for path in Path("a-run").iterdir()}
    result = run("prune", f"a-run/{name}", "--sparsity", 0.5, "--out", "a-run")
    assert result.status == 2 and "argument --out: expected another folder than that of MODEL" in result.err
    assert {path.name: path.read_bytes() for path in Path("a-run").iterdir()} == before


def test_what_is_sparse_is_cut_from_there(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, given = mlgraph.load(model), []
    net.prune(0.6)
    net.save("sparse.npz")
    fit = mlgraph.Network.fit
    monkeypatch.setattr(mlgraph.Network, "fit", lambda *args, **options: given.append(options) or fit(*args, **options))
    run("prune", "sparse.npz", "--sparsity", 0.8, "--epochs", 1)
    assert given[0]["sparsify"] == mlgraph.GradualPruning(0.8, initial=net.sparsity)
    run("prune", "sparse.npz", "--sparsity", 0.8, "--block", 4, "--epochs", 1)
    assert given[1]["sparsify"] == mlgraph.GradualPruning(0.8, initial=net.sparsity, block=4)
    run("--sparsity", 0.8, "--block", 2, "--epochs", 1)
    assert given[2]["sparsify"] == mlgraph.GradualPruning(0.8, start=0.1, block=2)


def test_what_is_sparser_already(run: Run, model: str) -> None:
    net = mlgraph.load(model)
    net.prune(0.6)
    net.save("sparse.npz")
    result = run("prune", "sparse.npz", "--sparsity", 0.3, "--epochs", 1)
    assert result.out.splitlines()[1].endswith("%: sparser than asked for, so nothing will be cut")
    assert mlgraph.load("mnist-pruned/model.npz").n_edges == net.n_edges


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "--layer", 2], "argument --layer: expected a layer from 0 to 1, got 2"),
        (["inspect", "--neuron", "3.0"], "argument --neuron: expected a layer from 0 to 1, got 3"),
        (["inspect", "--neuron", "0.8"], "argument --neuron: expected a neuron from 0.0 to 0.7, got 0.8"),
        (["inspect", "--out", "no/where.png"], "argument --out: cannot write 'no/where.png': no such folder"),
        (
            ["inspect", "--out", "a.bmpx"],
            "argument --out: expected a picture's name that ends in .png or .svg or .pdf, got",
        ),
        (["inspect", "--out", "trained"], "argument --out: cannot write 'trained': expected a file, got a folder"),
        (["prune", "--sparsity", 0.99], "argument --sparsity: paths to all outputs need at least "),
        (
            ["prune", "--sparsity", 0.5, "--learning-rate", 2, "--weight-decay", 1],
            "argument --weight-decay: expected a number from 0 to 1 / learning_rate, 0.5, got 1.0",
        ),
    ],
)
def test_what_a_network_does_not_have(run: Run, model: str, words: list[object], message: str) -> None:
    command, *options = words
    result = run(command, model, *options)
    assert (result.status, len(result.err.splitlines())) == (2, 1)
    assert result.err.startswith(f"mlgraph.mnist: error: {message}")


def test_weights_that_are_no_numbers_are_not_pruned_and_predict_nothing(run: Run, model: str) -> None:
    net = mlgraph.load(model)
    net.layers[0].neurons[2].weights[3] = np.nan
    net.save("nan.npz")
    for words, message in (
        (["prune", "nan.npz", "--sparsity", 0.5], "nan.npz has weights or biases that are no numbers"),
        (["evaluate", "nan.npz"], "nan.npz: predict: expected outputs that are numbers, got nan for example 0"),
    ):
        result = run(*words)
        assert (result.status, len(result.err.splitlines())) == (2, 1)
        assert result.err.startswith(f"mlgraph.mnist: error: argument MODEL: {message}")


def test_infinite_outputs_have_no_table(run: Run, model: str) -> None:
    """It would say that an example is right which the accuracy counts as wrong, for it has no loss."""
    net = mlgraph.load(model)
    net.layers[0].biases = np.full(8, 1e38, np.float32)
    net.outputs[0].weights = np.full(8, 1e38, np.float32)
    net.save("infinite.npz")
    expected = "infinite.npz: expected outputs of which there is a loss, got infinite ones"
    assert run("evaluate", "infinite.npz") == (2, "", f"mlgraph.mnist: error: argument MODEL: {expected}\n")


def test_inspect_files_that_are_no_networks(run: Run) -> None:
    Path("empty.npz").touch()
    for command in (["inspect"], ["prune", "--sparsity", 0.5]):
        for name in ("missing.npz", "empty.npz"):
            result = run(command[0], name, *command[1:])
            assert result.status == 2
            assert result.err.startswith("mlgraph.mnist: error: argument MODEL: ")


@pytest.mark.parametrize("command", [["inspect"], ["prune", "--sparsity", 0.5]])
def test_out_of_which_nothing_can_be_known(run: Run, model: str, command: list[Any]) -> None:
    """As in a folder that may not be entered, for whoever is not root."""
    name = "x" * 300
    result = run(*command, model, "--out", name)
    reason = os.strerror(errno.ENAMETOOLONG)
    assert result.status == 2
    assert re.fullmatch(f"mlgraph.mnist: error: argument --out: cannot write (to )?'{name}': {reason}\n", result.err)
