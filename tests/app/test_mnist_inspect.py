"""The command ``inspect``: its table, the description of a neuron, and the pictures."""

import re
from pathlib import Path

import numpy as np
import pytest
from mnist_program import write_data, write_idx

import mlgraph
from mlgraph.app import inspect
from mlgraph.datasets import load_mnist

PNG = b"\x89PNG"


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


@pytest.mark.parametrize("k", [0, 7])
def test_description_of_a_neuron(run, net, model, data, k):
    images = load_mnist(data)
    neuron = net.layers[0].neurons[k]
    result = run("inspect", model, "--neuron", f"0.{k}", "--json", "--out", "a.png")
    assert (result.status, result.err, len(result.json["neurons"])) == (0, "", 1)
    out = result.out

    def line_of(start):
        return re.search(f"^  {start}(.*)$", out, re.MULTILINE)[1]

    assert f"neuron 0.{k}: leaky_relu, node {neuron.id}, alive" in out
    largest = int(np.argmax(np.abs(neuron.weights)))
    assert line_of("20 sources, ").startswith(
        f"bias {neuron.bias:.4f}, norm of the weights {np.linalg.norm(neuron.weights):.4f}"
        f"; the largest: pixel {largest // 5},{largest % 5} {neuron.weights[largest]:+.3f}, "
    )
    wanted = {c: float(output.weights[k]) for c, output in enumerate(net.outputs)}
    targets = [f"1.{c} {wanted[c]:+.3f}" for c in sorted(wanted, key=lambda c: -abs(wanted[c]))]
    assert line_of("3 targets, ").endswith(f"; the largest: {', '.join(targets)}")
    assert line_of("logits: ") == ", ".join(f"{c} {wanted[c]:+.3f}" for c in sorted(wanted, key=lambda c: -wanted[c]))
    whole = net.evaluate(images.test_x, images.test_y)
    without = net.ablate(neuron, images.test_x, images.test_y)
    loss, points = re.fullmatch(r"loss (\S+), accuracy (\S+) points", line_of("without it: ")).groups()
    assert points != "-0.00"
    changes = without["loss"] - whole["loss"], 100 * (without["accuracy"] - whole["accuracy"])
    np.testing.assert_allclose([float(loss), float(points)], changes, atol=0.006)
    means = [float(mean) for mean in re.findall(r"\d (-?\d+\.\d+)", line_of("mean value by class: "))]
    assert len(means) == 3 and means == sorted(means, reverse=True)
    assert line_of("test images that excite it most: ")
    assert Path("a.png").read_bytes().startswith(PNG) and not Path("trained/model.png").exists()


def test_description_of_an_output(run, model):
    output = run("inspect", model, "--neuron", "1.2", "--no-plot")
    assert output.status == 0 and "  0 targets, norm of the weights 0.0000\n" in output.out


def test_only_classes_with_test_images_have_a_mean_value(run, model, tmp_path):
    folder = write_data(tmp_path / "two")
    write_idx(folder / "t10k-labels-idx1-ubyte", np.arange(30, dtype=np.uint8) % 2 * 2)  # none of class 1
    out = run("inspect", model, "--neuron", "0.3", "--no-plot", data=folder).out
    assert sorted(re.findall(r"(\d) -?\d+\.", re.search(r"mean value by class: (.*)", out)[1])) == ["0", "2"]


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
    assert "11 neurons alive of 11, 3 never active\n" in run("inspect", "silent.npz", "--no-plot").out


def test_pictures_start_with_the_neurons_that_the_loss_needs_most(run, model, monkeypatch):
    drawn = []
    monkeypatch.setattr(inspect, "draw_portraits", lambda *_, titles, title: drawn.append((title, titles)))
    monkeypatch.setattr(inspect, "MOST_SHOWN", 8)
    run("inspect", model)
    run("inspect", model, "--layer", 1)
    monkeypatch.setattr(inspect, "MOST_SHOWN", 5)
    run("inspect", model)
    (first, titles), (outputs, _), (some, best) = drawn
    assert first.endswith("; layer 0, those that the loss needs most come first")
    assert outputs.endswith("; layer 1, the outputs")
    assert some.endswith("; layer 0, the 5 of 8 neurons that the loss needs most") and best == titles[:5]
    losses = [float(title.partition("loss ")[2].partition(",")[0]) for title in titles]
    assert len(losses) == 8 and losses == sorted(losses, reverse=True) != sorted(losses)


def test_neurons_that_are_cut_off_are_listed_but_not_drawn(run, net):
    net.layers[0].neurons[5].prune()
    net.save("cut.npz")
    table = run("inspect", "cut.npz", "--no-plot")
    assert "sparsity 12.50%, 10 neurons alive of 11" in table.out and "0.5      cut" in table.out
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


@pytest.mark.parametrize(("hidden", "layer"), [("none", 0), ("6,4", 1)])
def test_networks_with_other_numbers_of_layers(run, hidden, layer):
    run("--epochs", 1, "--hidden", hidden, "--quiet", "--no-plot", "--out", "other")
    result = run("inspect", "other/model.npz", "--layer", layer, "--out", "a.png")
    assert (result.status, result.err) == (0, "") and Path("a.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(("weight", "bias"), [(np.inf, 0.0), (0.1, np.inf)])
def test_weights_that_are_not_finite_can_be_inspected(run, net, weight, bias):
    net.layers[0].neurons[0].weights[:] = weight
    net.layers[0].neurons[0].bias = bias
    net.save("nan.npz")
    for words in ("--neuron 0.0", "--layer 1"):
        assert run("inspect", "nan.npz", *words.split())[::2] == (0, "")
