"""The commands that take a saved network: evaluate, inspect, prune."""

from __future__ import annotations

import builtins
import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mnist_program import HEIGHT, WIDTH, Run, write_data, write_idx

import mlgraph
from mlgraph.app import inspect
from mlgraph.datasets import load_mnist

# --- evaluate ---------------------------------------------------------------------------------------------------------


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


# --- inspecting -------------------------------------------------------------------------------------------------------


def test_inspect(run: Run, model: str) -> None:
    result = run("inspect", model, "--json")
    assert (result.status, result.err) == (0, "")
    heading, sparsity, _, names, *rows, _, wrote, _ = result.out.splitlines()
    accuracy = run("evaluate", model, "--json").json["test_accuracy"]
    assert heading == f"{model}: 20-8-3 leaky_relu, 184 edges, test accuracy {accuracy:.2%}"
    assert sparsity == "sparsity 0.00%, 11 neurons alive of 11"
    assert names.split()[:3] == ["neuron", "active", "mean"]
    assert [row.split()[0] for row in rows] == [*(f"0.{i}" for i in range(8)), *(f"1.{i}" for i in range(3))]
    picture = Path("trained/model.png")
    assert wrote == f"wrote {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG")
    record = result.json
    assert (record["test_accuracy"], record["edges"], record["sparsity"]) == (accuracy, 184, 0)
    assert [row["fan_in"] for row in record["neurons"]] == [20] * 8 + [8] * 3
    assert all((row["loss"] is None) == (row["layer"] == 1) for row in record["neurons"])


def test_inspect_a_neuron(run: Run, model: str) -> None:
    result = run("inspect", model, "--neuron", "0.3", "--out", "three.png", "--json")
    assert (result.status, result.err) == (0, "")
    net = mlgraph.load(model)
    assert isinstance(net, mlgraph.Network)
    neuron = net.layers[0].neurons[3]
    assert f"neuron 0.3: leaky_relu, node {neuron.id}, alive" in result.out
    assert f"  20 sources, bias {neuron.bias:.4f}, norm of the weights {np.linalg.norm(neuron.weights):.4f}" in result.out
    largest = int(np.argmax(np.abs(neuron.weights)))
    assert f"the largest: pixel {largest // 5},{largest % 5} {neuron.weights[largest]:+.3f}, " in result.out
    for words in ("  3 targets, ", "  value: mean ", "  without it: loss ", "  mean value by class: ", "  logits: ",
                  "  test images that excite it most: "):  # fmt: skip
        assert words in result.out
    for words in ("mean value by class", "logits"):  # of all three, the highest first
        found = re.findall(r"(\d) ([-+]?\d+\.\d+)", next(line for line in result.out.splitlines() if words in line))
        assert sorted(c for c, _ in found) == ["0", "1", "2"] and [*found] == sorted(found, key=lambda one: -float(one[1]))
        assert len({number for _, number in found}) == 3
    assert len(result.json["neurons"]) == 1
    assert Path("three.png").read_bytes().startswith(b"\x89PNG")
    assert run("inspect", model, "--neuron", "1.2", "--no-plot").status == 0
    assert not Path("trained/model.png").exists()


def test_a_neuron_of_a_large_negative_weight_that_nothing_needs(run: Run, model: str) -> None:
    net = mlgraph.load(model)
    neuron = net.layers[0].neurons[3]
    neuron.weights[7] = -9.0
    for output in neuron.targets:
        net.graph.edge(neuron, output).weight = 0.0
    net.save("useless.npz")
    result = run("inspect", "useless.npz", "--neuron", "0.3", "--no-plot")
    assert "the largest: pixel 1,2 -9.000, " in result.out
    assert ", accuracy +0.00 points" in result.out


def test_only_classes_with_test_images_have_a_mean_value(run: Run, model: str, tmp_path: Path) -> None:
    out = run("inspect", model, "--neuron", "0.3", "--no-plot", data=write_data(tmp_path / "two", classes=2)).out
    means = next(line for line in out.splitlines() if line.startswith("  mean value by class: "))
    assert sorted(re.findall(r"(\d) -?\d+\.", means)) == ["0", "1"]


def test_what_nobody_sees_is_not_looked_at(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "portraits", lambda *_: pytest.fail("no picture is asked for"))
    assert run("inspect", model, "--no-plot").status == 0


def test_the_picture_is_there_for_who_reads_only_the_first_lines(
    run: Run, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    assert run("inspect", model).status == 141
    assert Path("trained/model.png").exists()


def test_neurons_that_are_never_active_are_counted(run: Run, model: str) -> None:
    net = mlgraph.load(model)
    assert isinstance(net, mlgraph.Network)
    for neuron in [*net.layers[0].neurons[:3], net.outputs[0]]:
        neuron.weights, neuron.bias = np.zeros(len(neuron.weights)), -1.0
    net.save(model)
    assert "11 neurons alive of 11, 3 never active" in run("inspect", model, "--no-plot").out.splitlines()[1]


def test_what_stands_above_the_picture(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(inspect, "draw", lambda *_, title: titles.append(title))
    for layer in (0, 1):
        run("inspect", model, "--layer", layer)
    ends = ["; layer 0, first what the loss needs most", "; layer 1, the outputs"]
    assert [title[-len(end) :] for title, end in zip(titles, ends, strict=True)] == ends


def test_the_neurons_that_the_loss_needs_most_come_first(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(inspect, "draw", lambda _, given, *__, title: titles.extend(given))
    run("inspect", model)
    losses = [float(title.partition("loss ")[2].partition(",")[0]) for title in titles]
    assert len(losses) == 8 and losses == sorted(losses, reverse=True) != sorted(losses)


def test_inspect_a_pruned_network(run: Run, model: str) -> None:
    net = mlgraph.load(model)
    assert isinstance(net, mlgraph.Network)
    net.layers[0].neurons[5].prune()
    net.save("cut.npz")
    result = run("inspect", "cut.npz")
    assert "sparsity 12.50%, 10 neurons alive of 11" in result.out
    assert "0.5      cut" in result.out
    assert "wrote cut.png" in result.out
    alone = run("inspect", "cut.npz", "--neuron", "0.5")
    assert (alone.status, alone.err) == (0, "no picture: the neuron is cut off\n")
    assert "cut off" in alone.out
    assert "wrote" not in alone.out
    assert "wrote cut.0.4.png" in run("inspect", "cut.npz", "--neuron", "0.4").out  # beside that of the layer


@pytest.mark.parametrize("hidden", ["none", "6,4", "50"])
def test_inspect_other_networks(run: Run, hidden: str) -> None:
    """Without a hidden layer, with several, and with more neurons than a picture has room for."""
    run("--epochs", 1, "--hidden", hidden, "--quiet", "--no-plot", "--out", "other")
    for layer in range(1 + (hidden == "6,4")):
        result = run("inspect", "other/model.npz", "--layer", layer, "--out", "a.png")
        assert (result.status, result.err) == (0, "")
        assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_inspect_while_another_process_trains(run: Run, data: Path) -> None:
    """The checkpoint is whole at every moment, for it is written beside and put in its place; so is a sparse one."""
    options = ["--epochs", "1000000", "--hidden", "8", "--sparsity", "0.5", "--checkpoint-every", "0", "--out", "live"]
    words = [sys.executable, "-m", "mlgraph.mnist", *options, "--quiet", "--no-plot", "--data", str(data)]
    seen = set()
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as child:
        try:
            while child.poll() is None and len(seen) < 5:
                if Path("live/checkpoint.npz").exists():
                    result = run("inspect", "live/checkpoint.npz", "--no-plot", "--json")
                    assert (result.status, result.err) == (0, "")
                    seen.add(str(result.json["neurons"]))
            assert child.poll() is None
        finally:
            child.kill()


# --- pruning ----------------------------------------------------------------------------------------------------------


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


def test_the_best_accuracy_is_of_no_denser_network(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = mlgraph.Network.fit

    def better_before(net: mlgraph.Network, *args: Any, **options: Any) -> Any:
        history = fit(net, *args, **options)
        history.validation_accuracy[history.epoch_edges > net.n_edges] = 1.0
        return history

    monkeypatch.setattr(mlgraph.Network, "fit", better_before)
    record = run("--epochs", 4, "--sparsity", 0.9, "--json").json
    assert record["test_accuracy"] <= record["best_test_accuracy"] < 1


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


def test_a_backend_that_there_is_not(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a picture needs goes wrong where it is imported."""

    def no_backend(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ValueError("Key backend: 'spam' is not a valid value")
        return real(name, *rest, **options)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", no_backend)
    for command in (["--epochs", 1], ["inspect", model]):
        result = run(*command)
        assert result.status == 0
        assert result.err.splitlines()[-1].startswith("no picture: a picture needs matplotlib, which says: Key backend: 'spam'")


def test_train_sparse(run: Run) -> None:
    for method in ("gradual", "set", "rigl"):
        result = run("--sparsity", 0.6, "--method", method, "--epochs", 2, "--batch-size", 4, "--quiet", "--no-plot", "--json")
        assert (result.status, result.err) == (0, "")
        record = result.json
        assert (record["sparsity"], record["method"]) == (0.6, method)
        assert record["sparsity_reached"] == pytest.approx(0.6, abs=0.01)
        assert record["edges"] == mlgraph.load("mnist-run/model.npz").n_edges
    assert "sparsity_reached" not in run("--epochs", 1, "--quiet", "--no-plot", "--json").json


def test_the_preset_of_the_sparse_networks(run: Run) -> None:
    record = run("--preset", "lenet-300-100", "--epochs", 1, "--quiet", "--no-plot", "--json").json
    assert (record["hidden"], record["edges"]) == ([300, 100], 20 * 300 + 300 * 100 + 100 * 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "--layer", 2], "argument --layer: expected a layer from 0 to 1, got 2"),
        (["inspect", "--neuron", "3.0"], "argument --neuron: expected a layer from 0 to 1, got 3"),
        (["inspect", "--neuron", "0.8"], "argument --neuron: expected a neuron from 0.0 to 0.7, got 0.8"),
        (["inspect", "--out", "no/where.png"], "argument --out: cannot write 'no/where.png': no such folder"),
        (["inspect", "--out", "a.bmpx"], "argument --out: expected a picture's name that ends in .png or .svg or .pdf, got"),
        (["inspect", "--out", "trained"], "argument --out: cannot write 'trained': expected a file, got a folder"),
        (["prune", "--sparsity", 0.99], "argument --sparsity: expected to keep at least "),
        (["prune", "--sparsity", 0.5, "--learning-rate", 2, "--weight-decay", 1],
         "argument --weight-decay: expected a number from 0 to 1 / learning_rate, 0.5, got 1.0"),
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


def test_inspect_what_is_dead_or_not_finite(run: Run, model: str) -> None:
    """Of a layer without a living neuron there is no picture; numbers that are not finite are drawn as far as they can be."""
    net = mlgraph.load(model)
    for pixel in range(20):
        net.graph.add_edge(net.graph[pixel], net.outputs[0], 0.1)
        net.graph.add_edge(net.graph[pixel], net.outputs[1], 0.1)
        net.graph.add_edge(net.graph[pixel], net.outputs[2], 0.1)
    for weight, bias in ((np.nan, 0.0), (0.1, np.inf)):
        net.layers[0].neurons[0].weights[:] = weight
        net.layers[0].neurons[0].bias = bias
        net.save("nan.npz")
        for words in ([], ["--neuron", "0.0"], ["--neuron", "1.0"], ["--layer", 1]):
            result = run("inspect", "nan.npz", *words)
            assert (result.status, result.err) == (0, "")
    net.layers[0].neurons[0].weights[:] = 0.0
    for neuron in net.layers[0].neurons:
        neuron.prune()
    net.save("dead.npz")
    result = run("inspect", "dead.npz", "--json")
    assert (result.status, result.err) == (0, "no picture: all of layer 0 is cut off\n") and len(result.json["neurons"]) == 11
    assert not Path("dead.png").exists() and "-0.00 points" not in result.out


def test_the_picture_is_not_written_over_the_model(run: Run, model: str) -> None:
    before = Path(model).read_bytes()
    Path("model.png").write_bytes(before)
    result = run("inspect", "model.png")
    assert result.status == 2 and "argument --out: cannot write 'model.png': it is the model" in result.err
    assert Path("model.png").read_bytes() == before


@pytest.mark.parametrize("command", [["inspect"], ["prune", "--sparsity", 0.5]])
def test_out_of_which_nothing_can_be_known(run: Run, model: str, command: list[Any]) -> None:
    """As in a folder that may not be entered, for whoever is not root."""
    name = "x" * 300
    result = run(*command, model, "--out", name)
    reason = os.strerror(errno.ENAMETOOLONG)
    assert result.status == 2
    assert re.fullmatch(f"mlgraph.mnist: error: argument --out: cannot write (to )?'{name}': {reason}\n", result.err)


def test_inspect_says_what_evaluation_says(run: Run, data: Path) -> None:
    run("--hidden", 2, "--epochs", 20, "--batch-size", 4, "--out", "small", "--no-plot")
    net, images = mlgraph.load("small/model.npz"), load_mnist(data)
    assert isinstance(net, mlgraph.Network)
    x, y = images.test_x, images.test_y
    whole, costs = net.evaluate(x, y), []
    for k, neuron in enumerate(net.layers[0].neurons):
        without = net.ablate(neuron, x, y)
        loss, points = without["loss"] - whole["loss"], 100 * (without["accuracy"] - whole["accuracy"])
        out = run("inspect", "small/model.npz", "--neuron", f"0.{k}", "--no-plot").out
        found = re.search(r"without it: loss (\S+), accuracy (\S+) points", out)
        assert found
        np.testing.assert_allclose([float(number) for number in found.groups()], [loss, points], atol=0.006)
        costs.append(points)
        weights = sorted((float(o.weights[k]) for o in net.outputs), key=abs, reverse=True)
        targets = next(line for line in out.splitlines() if " targets, " in line)
        assert re.findall(r"1\.\d (\S+?)(?:,|$)", targets) == [f"{w:+.3f}" for w in weights]
        logits = next(line for line in out.splitlines() if line.startswith("  logits: ")).removeprefix("  logits: ")
        want = {c: float(o.weights[k]) for c, o in enumerate(net.outputs)}
        assert logits == ", ".join(f"{c} {want[c]:+.3f}" for c in sorted(want, key=want.__getitem__, reverse=True))
    assert min(costs) < -1
