"""``inspect``: its table, what it says of a neuron, and its picture."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mnist_program import Run, write_data, write_idx

import mlgraph
from mlgraph.app import inspect
from mlgraph.datasets import load_mnist


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
    assert (
        f"  20 sources, bias {neuron.bias:.4f}, norm of the weights {np.linalg.norm(neuron.weights):.4f}" in result.out
    )
    largest = int(np.argmax(np.abs(neuron.weights)))
    assert f"the largest: pixel {largest // 5},{largest % 5} {neuron.weights[largest]:+.3f}, " in result.out
    for words in (
        "  3 targets, ",
        "  value: mean ",
        "  without it: loss ",
        "  mean value by class: ",
        "  logits: ",
        "  test images that excite it most: ",
    ):
        assert words in result.out
    for words in ("mean value by class", "logits"):  # of all three, the highest first
        found = re.findall(r"(\d) ([-+]?\d+\.\d+)", next(line for line in result.out.splitlines() if words in line))
        assert sorted(c for c, _ in found) == ["0", "1", "2"] and [*found] == sorted(
            found, key=lambda one: -float(one[1])
        )
        assert len({number for _, number in found}) == 3
    assert len(result.json["neurons"]) == 1
    assert Path("three.png").read_bytes().startswith(b"\x89PNG")
    output = run("inspect", model, "--neuron", "1.2", "--no-plot")
    assert output.status == 0 and "  0 targets, norm of the weights 0.0000\n" in output.out
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
    folder = write_data(tmp_path / "two")
    write_idx(folder / "t10k-labels-idx1-ubyte", np.arange(30, dtype=np.uint8) % 2 * 2)  # none of the one between
    out = run("inspect", model, "--neuron", "0.3", "--no-plot", data=folder).out
    means = next(line for line in out.splitlines() if line.startswith("  mean value by class: "))
    assert sorted(re.findall(r"(\d) -?\d+\.", means)) == ["0", "2"]


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
    assert (result.status, result.err) == (0, "no picture: all of layer 0 is cut off\n") and len(
        result.json["neurons"]
    ) == 11
    assert not Path("dead.png").exists() and "-0.00 points" not in result.out


def test_the_picture_is_not_written_over_the_model(run: Run, model: str) -> None:
    before = Path(model).read_bytes()
    Path("model.png").write_bytes(before)
    result = run("inspect", "model.png")
    assert result.status == 2 and "argument --out: cannot write 'model.png': it is the model" in result.err
    assert Path("model.png").read_bytes() == before


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
