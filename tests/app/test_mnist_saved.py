"""The commands ``evaluate`` and ``prune``."""

from pathlib import Path

import numpy as np
import pytest
from mnist_program import write_data

import mlgraph


def test_evaluate(run, model, tmp_path):
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
    two_classes = write_data(tmp_path / "two", classes=2)
    assert run("evaluate", model, "--json", data=two_classes).json["class_accuracy"][2] is None


def test_evaluate_lists_mistakes(run, model, monkeypatch):
    monkeypatch.setattr(mlgraph.Network, "predict", lambda *_, **__: np.array([0, 1, 2] * 7 + [2, 0, 2] * 3))
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


def test_prune(run, model):
    before = run("evaluate", model, "--json").json["test_accuracy"]
    result = run("prune", model, "--sparsity", 0.5, "--epochs", 2, "--json", "--no-plot")
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
    assert wrote.startswith("wrote mnist-pruned/model.npz, ")
    expected = {"model": model, "sparsity": 0.5, "epochs": 2, "accuracy_before": before, "edges": 92}
    assert {name: record[name] for name in expected} == expected and record["sparsity_reached"] >= 0.499
    assert mlgraph.load("mnist-pruned/model.npz").n_edges == 92
    assert run("evaluate", "mnist-pruned/model.npz", "--json").json["test_accuracy"] == record["test_accuracy"]
    assert Path("mnist-pruned/model.npz").stat().st_size < Path(model).stat().st_size


def test_prune_starts_from_the_sparsity_of_the_network(run, model, monkeypatch):
    net, given = mlgraph.load(model), []
    net.prune(0.6)
    net.save("sparse.npz")
    fit = mlgraph.Network.fit
    monkeypatch.setattr(mlgraph.Network, "fit", lambda *args, **options: given.append(options) or fit(*args, **options))
    run("prune", "sparse.npz", "--sparsity", 0.8, "--block", 4, "--epochs", 1, "--no-plot")
    assert given[0]["sparsify"] == mlgraph.GradualPruning(0.8, initial=net.sparsity, block=4)
    result = run("prune", "sparse.npz", "--sparsity", 0.3, "--epochs", 1, "--no-plot")
    assert result.out.splitlines()[1].endswith("%: already sparser than --sparsity, so nothing will be cut")
    assert mlgraph.load("mnist-pruned/model.npz").n_edges == net.n_edges


@pytest.mark.parametrize("name", ["model.npz", "checkpoint.npz", "checkpoint.npz.previous"])
def test_prune_does_not_replace_its_model(run, name):
    assert run("--epochs", 3, "--checkpoint-every", 0, "--out", "a-run", "--no-plot").status == 0
    before = {path.name: path.read_bytes() for path in Path("a-run").iterdir()}
    result = run("prune", f"a-run/{name}", "--sparsity", 0.5, "--out", "a-run")
    message = "argument --out: 'a-run' would replace MODEL; choose another folder"
    assert result == (2, "", f"mlgraph.mnist: error: {message}\n")
    assert {path.name: path.read_bytes() for path in Path("a-run").iterdir()} == before
