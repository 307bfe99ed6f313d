"""The commands ``evaluate`` and ``prune``."""

from pathlib import Path

import numpy as np
from mnist_program import write_data

import mlgraph


def test_evaluate_prints_accuracy_loss_and_each_class(run, model, tmp_path):
    result = run("evaluate", model, "--threads", 1)
    assert (result.status, result.err) == (0, "")
    name, scores, _, heading, *classes = result.out.splitlines()
    assert name == f"{model}: 20-8-3 leaky_relu, 184 edges"
    assert scores.startswith("30 test examples: accuracy 100.00%, loss 0.")
    assert heading == "class  examples  accuracy  most often taken for"
    assert classes == [f"    {k}        10   100.00%" for k in range(3)]
    two_classes = write_data(tmp_path / "two", classes=2)
    assert run("evaluate", model, "--json", data=two_classes).json["class_accuracy"][2] is None


def test_evaluate_lists_mistakes(run, model, monkeypatch):
    monkeypatch.setattr(mlgraph.Network, "predict", lambda *_, **__: np.array([0, 1, 2] * 7 + [2, 0, 2] * 3))
    result = run("evaluate", model, "--json")
    *_, first, second, third, _, summary, _ = result.out.splitlines()
    assert (first, second) == ("    0        10    70.00%  2 (3)", "    1        10    70.00%  0 (3)")
    assert third == "    2        10   100.00%"
    assert summary == "6 mistakes, most often 0 taken for 2 (3), 1 taken for 0 (3)"
    assert result.json["confusion"] == [[7, 0, 3], [3, 7, 0], [0, 0, 10]]
    assert result.json["class_accuracy"] == [0.7, 0.7, 1.0]
    assert {"test_accuracy", "test_loss", "edges", "threads", "isa"} <= result.json.keys()


def test_prune_writes_a_sparser_model_and_its_accuracy(run, model):
    before = run("evaluate", model, "--json").json["test_accuracy"]
    result = run("prune", model, "--sparsity", 0.5, "--epochs", 2, "--json", "--no-plot")
    assert (result.status, result.err) == (0, "")
    record = result.json
    _, was, _, epoch, _, left, wrote, _ = result.out.splitlines()
    assert was == f"test accuracy before {before:.2%}, sparsity 0.00%"
    assert epoch.startswith("epoch 2/2") and epoch.endswith(" s   92 edges")
    assert left == f"sparsity 50.00%, 92 edges left: test accuracy {record['test_accuracy']:.2%}, before {before:.2%}"
    assert wrote.startswith("wrote mnist-pruned/model.npz, ")
    expected = {"model": model, "sparsity": 0.5, "epochs": 2, "accuracy_before": before, "edges": 92}
    assert {name: record[name] for name in expected} == expected and record["sparsity_reached"] == 0.5
    assert mlgraph.load("mnist-pruned/model.npz").n_edges == 92
    assert run("evaluate", "mnist-pruned/model.npz", "--json").json["test_accuracy"] == record["test_accuracy"]
    assert Path("mnist-pruned/model.npz").stat().st_size < Path(model).stat().st_size


def test_prune_starts_from_the_sparsity_of_the_network(run, model, fitted):
    net = mlgraph.load(model)
    net.prune(0.6)
    net.save("sparse.npz")
    run("prune", "sparse.npz", "--sparsity", 0.8, "--block", 4, "--epochs", 1, "--no-plot")
    assert fitted[0]["sparsify"] == mlgraph.GradualPruning(0.8, initial=net.sparsity, block=4)
    result = run("prune", "sparse.npz", "--sparsity", 0.3, "--epochs", 1, "--no-plot")
    assert result.out.splitlines()[1].endswith("%: already sparser than --sparsity, so nothing will be cut")
    assert mlgraph.load("mnist-pruned/model.npz").n_edges == net.n_edges
