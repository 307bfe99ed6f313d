"""The command ``inspect``: its table, the description of a neuron, and the pictures."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mnist_program import write_data, write_idx

import mlgraph
from mlgraph.app import inspect
from mlgraph.datasets import load_mnist

PNG = b"\x89PNG"


def line_of(text, start):
    return next(line for line in text.splitlines() if line.startswith(start)).removeprefix(start)


@pytest.fixture
def net(model):
    """The saved network, to be changed and saved under another name."""
    return mlgraph.load(model)


def test_table_and_picture_of_a_layer(run, model):
    result = run("inspect", model, "--json")
    assert (result.status, result.err) == (0, "")
    heading, sparsity, _, names, *rows, _, wrote, _ = result.out.splitlines()
    accuracy = run("evaluate", model, "--json").json["test_accuracy"]
    assert heading == f"{model}: 20-8-3 leaky_relu, 184 edges, test accuracy {accuracy:.2%}"
    assert sparsity == "sparsity 0.00%, 11 neurons alive of 11"
    assert names.split()[:3] == ["neuron", "active", "mean"]
    assert [row.split()[0] for row in rows] == [*(f"0.{i}" for i in range(8)), *(f"1.{i}" for i in range(3))]
    assert wrote == "wrote trained/model.png" and Path("trained/model.png").read_bytes().startswith(PNG)
    record = result.json
    assert (record["test_accuracy"], record["edges"], record["sparsity"]) == (accuracy, 184, 0)
    assert [row["fan_in"] for row in record["neurons"]] == [20] * 8 + [8] * 3
    assert all((row["loss"] is None) == (row["layer"] == 1) for row in record["neurons"])


def test_description_of_a_neuron(run, net, model, data):
    images = load_mnist(data)
    x, y = images.test_x, images.test_y
    whole = net.evaluate(x, y)
    for k, neuron in enumerate(net.layers[0].neurons):
        picture = ["--out", "a.png"] if k == 0 else ["--no-plot"]
        result = run("inspect", model, "--neuron", f"0.{k}", "--json", *picture)
        assert (result.status, result.err, len(result.json["neurons"])) == (0, "", 1)
        out = result.out
        assert f"neuron 0.{k}: leaky_relu, node {neuron.id}, alive" in out
        assert f"  20 sources, bias {neuron.bias:.4f}, norm of the weights {np.linalg.norm(neuron.weights):.4f}" in out
        largest = int(np.argmax(np.abs(neuron.weights)))
        assert f"the largest: pixel {largest // 5},{largest % 5} {neuron.weights[largest]:+.3f}, " in out
        weights = sorted((float(o.weights[k]) for o in net.outputs), key=abs, reverse=True)
        assert re.findall(r"1\.\d (\S+?)(?:,|$)", line_of(out, "  3 targets, ")) == [f"{w:+.3f}" for w in weights]
        without = net.ablate(neuron, x, y)
        loss, points = without["loss"] - whole["loss"], 100 * (without["accuracy"] - whole["accuracy"])
        found = re.search(r"without it: loss (\S+), accuracy (\S+) points", out)
        np.testing.assert_allclose([float(number) for number in found.groups()], [loss, points], atol=0.006)
        assert "-0.00 points" not in out
        want = {c: float(o.weights[k]) for c, o in enumerate(net.outputs)}
        logits = [f"{c} {want[c]:+.3f}" for c in sorted(want, key=want.__getitem__, reverse=True)]
        assert line_of(out, "  logits: ") == ", ".join(logits)
        means = [float(m) for m in re.findall(r"\d (-?\d+\.\d+)", line_of(out, "  mean value by class: "))]
        assert len(means) == 3 and means == sorted(means, reverse=True)
        assert line_of(out, "  test images that excite it most: ")
    assert Path("a.png").read_bytes().startswith(PNG) and not Path("trained/model.png").exists()
    output = run("inspect", model, "--neuron", "1.2", "--no-plot")
    assert output.status == 0 and "  0 targets, norm of the weights 0.0000\n" in output.out


def test_only_classes_with_test_images_have_a_mean_value(run, model, tmp_path):
    folder = write_data(tmp_path / "two")
    write_idx(folder / "t10k-labels-idx1-ubyte", np.arange(30, dtype=np.uint8) % 2 * 2)  # none of class 1
    out = run("inspect", model, "--neuron", "0.3", "--no-plot", data=folder).out
    assert sorted(re.findall(r"(\d) -?\d+\.", line_of(out, "  mean value by class: "))) == ["0", "2"]


def test_portraits_are_computed_only_if_they_are_shown(run, model, monkeypatch):
    monkeypatch.setattr(inspect, "neuron_portraits", lambda *_: pytest.fail("there is no picture"))
    assert run("inspect", model, "--no-plot").status == 0


def test_the_picture_is_written_even_if_the_reader_closes_the_pipe(run, model, monkeypatch):
    def broken(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    assert run("inspect", model).status == 141
    assert Path("trained/model.png").exists()


def test_neurons_that_are_never_active_are_counted(run, net):
    for neuron in [*net.layers[0].neurons[:3], net.outputs[0]]:
        neuron.weights, neuron.bias = np.zeros(len(neuron.weights)), -1.0
    net.save("silent.npz")
    assert "11 neurons alive of 11, 3 never active" in run("inspect", "silent.npz", "--no-plot").out.splitlines()[1]


def test_pictures_start_with_the_neurons_that_the_loss_needs_most(run, model, monkeypatch):
    drawn = []
    monkeypatch.setattr(inspect, "draw_portraits", lambda *_, titles, title: drawn.append((title, titles)))
    for layer in (0, 1):
        run("inspect", model, "--layer", layer)
    ends = ["; layer 0, those that the loss needs most come first", "; layer 1, the outputs"]
    assert [title[-len(end) :] for (title, _), end in zip(drawn, ends, strict=True)] == ends
    losses = [float(title.partition("loss ")[2].partition(",")[0]) for title in drawn[0][1]]
    assert len(losses) == 8 and losses == sorted(losses, reverse=True) != sorted(losses)


def test_pruned_network(run, net):
    net.layers[0].neurons[5].prune()
    net.save("cut.npz")
    result = run("inspect", "cut.npz")
    assert "sparsity 12.50%, 10 neurons alive of 11" in result.out
    assert "0.5      cut" in result.out and "wrote cut.png" in result.out
    alone = run("inspect", "cut.npz", "--neuron", "0.5")
    assert (alone.status, alone.err) == (0, "no picture: the neuron is cut off\n")
    assert "cut off" in alone.out and "wrote" not in alone.out
    assert "wrote cut.0.4.png" in run("inspect", "cut.npz", "--neuron", "0.4").out
    for output in net.outputs:
        net.graph.add_edge(net.graph[0], output, 0.1)
    for neuron in net.layers[0].neurons:
        neuron.prune()
    net.save("dead.npz")
    result = run("inspect", "dead.npz", "--json")
    assert (result.status, result.err) == (0, "no picture: layer 0 has no live neurons\n")
    assert len(result.json["neurons"]) == 11 and not Path("dead.png").exists()


@pytest.mark.parametrize("hidden", ["none", "6,4"])
def test_other_networks(run, monkeypatch, hidden):
    """Without a hidden layer, and with several, one of which has more neurons than a picture shows."""
    monkeypatch.setattr(inspect, "MOST_SHOWN", 5)
    run("--epochs", 1, "--hidden", hidden, "--quiet", "--no-plot", "--out", "other")
    for layer in range(1 + (hidden == "6,4")):
        result = run("inspect", "other/model.npz", "--layer", layer, "--out", "a.png")
        assert (result.status, result.err) == (0, "")
        assert Path("a.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(("weight", "bias"), [(np.nan, 0.0), (0.1, np.inf)])
def test_weights_that_are_not_finite(run, net, weight, bias):
    net.layers[0].neurons[0].weights[:] = weight
    net.layers[0].neurons[0].bias = bias
    net.save("nan.npz")
    for words in (["--neuron", "0.0"], ["--layer", 1]):
        result = run("inspect", "nan.npz", *words)
        assert (result.status, result.err) == (0, "")


def test_the_picture_does_not_replace_the_model(run, model):
    before = Path(model).read_bytes()
    Path("model.png").write_bytes(before)
    message = "argument --out: 'model.png' would replace MODEL; choose another name"
    assert run("inspect", "model.png") == (2, "", f"mlgraph.mnist: error: {message}\n")
    assert Path("model.png").read_bytes() == before


@pytest.mark.slow
def test_inspect_while_another_process_trains(run, data):
    """Checkpoints are replaced atomically, so each is whole at every moment."""
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
