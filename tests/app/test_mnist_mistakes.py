"""Mistakes of the user: status 2, one line that names the argument, no traceback, and nothing written."""

import os
from pathlib import Path

import numpy as np
import pytest
from mnist_program import write_data

import mlgraph

NEEDS_SPARSITY = "needs --sparsity, the fraction of the edges to cut"


def assert_refused(result, message):
    assert (result.status, result.out) == (2, "") and len(result.err.splitlines()) == 1
    assert result.err.startswith(f"mlgraph.mnist: error: {message}"), result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--batch-size=128:0", "argument --batch-size: expected N or A:B with integers from 1"),
        ("--learning-rate=1e300", "argument --learning-rate: expected X or A:B with finite numbers above 0"),
        ("--momentum=0.999999999", "argument --momentum: expected a number from 0 to below 1 (also when rounded"),
        ("--weight-decay=nan", "argument --weight-decay: expected a finite number of at least 0, got 'nan'"),
        ("--dropout=50%", "argument --dropout: expected a number from 0 to below 1, got '50%'"),
        (f"--epochs={'9' * 5000}", "argument --epochs: expected an integer from 1 to 1000000000, got '999"),
        ("--hidden=32,", "argument --hidden: expected integers from 1 to 1000000000 such as 32 or 300,100, or none"),
        ("--threads=0", "argument --threads: expected an integer from 1 to 1024, got '0'"),
        ("--seed=18446744073709551616", "argument --seed: expected an integer from 0 to 2**64 - 1"),
        (
            "--activation=softmax",
            "argument --activation: expected identity, relu, leaky_relu, sigmoid, tanh, elu, gelu,",
        ),
        # Abbreviations are not accepted, since they would break when options are added.
        ("--epoch 1", "unrecognized arguments: --epoch 1 (did you mean --epochs?)"),
        ("--lr 0.1 --bs=4", "unrecognized arguments: --lr 0.1 --bs=4 (did you mean --learning-rate?)"),
        ("--sparsity 90", "argument --sparsity: expected a number from 0 to below 1, got '90'; 90 % is 0.9"),
        ("--out a/model.npz", "argument --out: expected a folder, in which model.npz is written, got 'a/model.npz'"),
        ("train --z --hiden=4", "unrecognized arguments: --z --hiden=4 (did you mean --hidden?)"),
        ("--json evaluate", "unrecognized arguments: evaluate (the command must come first)"),
        ("--epochs", "argument --epochs: expected one argument"),
        ("--epochs=--", "argument --epochs: expected "),
        ("--resume=yes", "argument --resume: expected no value, got 'yes'"),
        ("evaluat model.npz", "argument COMMAND: expected train, evaluate, inspect, prune or sweep, got 'evaluat'"),
        ("--hidden none --dropout 0.5", "argument --dropout: there is no hidden layer to drop from"),
        ("--method set", f"argument --method: {NEEDS_SPARSITY}"),
        ("--sparsity 0.5 --method set --by random", "argument --by: works only with --method gradual, got set"),
        ("evaluate", "the following arguments are required: MODEL"),
        ("inspect a --layer 0 --neuron 0.1", "argument --neuron: not allowed with argument --layer"),
        ("inspect a --neuron 0.-1", "argument --neuron: expected LAYER.INDEX such as 0.7, got '0.-1'"),
    ],
)
def test_incorrect_command_lines(run, words, message):
    assert_refused(run(*words.split()), message)
    assert os.listdir() == []


@pytest.mark.parametrize("command", ["train", "evaluate trained/model.npz"])
@pytest.mark.usefixtures("model")
def test_unsuitable_data(run, tmp_path, command):
    damaged = write_data(tmp_path / "damaged") / "t10k-labels-idx1-ubyte"
    damaged.write_bytes(b"\0\0\x08\x01\0\0")
    assert_refused(run(*command.split(), data=damaged.parent), f"argument --data: {damaged}: expected ")
    assert_refused(run(*command.split(), data="none"), "argument --data: none: expected a folder with IDX files")
    assert not Path("mnist-run").exists()


@pytest.mark.parametrize("command", ["evaluate", "inspect", "prune --sparsity 0.5"])
def test_unsuitable_models(run, model, tmp_path, command):
    name, *options = command.split()
    Path("text").write_text("no model")
    graph = mlgraph.Graph()
    mlgraph.Model(graph, [graph.add_input("x") * graph.add_parameter(1.0)]).save("other.npz")
    wide = write_data(tmp_path / "wide", width=6)
    many = write_data(tmp_path / "many", classes=4)
    for path, given, problem in (
        ("nothing.npz", {}, "nothing.npz: cannot be read: No such file or directory"),
        (".", {}, ". is a folder; give a file in it, such as model.npz"),
        ("text", {}, "text: not a model file, or a damaged one"),
        ("other.npz", {}, "other.npz: the model is not a Network whose last layer is softmax"),
        (model, {"data": wide}, f"{model} has 20 inputs, but the images have 4 x 6 pixels"),
        (model, {"data": many}, f"{model} has 3 outputs, but the data have 4 classes"),
    ):
        assert_refused(run(name, path, *options, **given), f"argument MODEL: {problem}")


def test_models_without_finite_outputs(run, model):
    net = mlgraph.load(model)
    net.layers[0].neurons[2].weights[::2], net.layers[0].neurons[2].weights[1::2] = np.inf, -np.inf  # their sum is NaN
    net.save("wild.npz")
    assert_refused(run("evaluate", "wild.npz"), "argument MODEL: wild.npz: predict: ")
    net.layers[0].neurons[2].weights[:] = 0.0
    net.layers[0].biases = net.outputs[0].weights = np.full(8, 1e38, np.float32)
    net.save("infinite.npz")
    assert_refused(run("evaluate", "infinite.npz"), "argument MODEL: infinite.npz: the network has infinite outputs")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("inspect --layer 2", "argument --layer: expected a layer from 0 to 1, got 2"),
        ("inspect --neuron 3.0", "argument --neuron: expected a layer from 0 to 1, got 3"),
        ("inspect --neuron 0.8", "argument --neuron: expected a neuron from 0.0 to 0.7, got 0.8"),
        ("inspect --out no/where.png", "argument --out: cannot write 'no/where.png': no such folder"),
        ("inspect --out a.bmpx", "argument --out: expected a name that ends in .png or .svg or .pdf, got"),
        ("prune --sparsity .5 --learning-rate 2 --weight-decay 1", "argument --weight-decay: expected a number from 0"),
        ("prune --sparsity .99", "argument --sparsity: "),  # it would cut off an output
    ],
)
def test_options_that_do_not_fit_the_network(run, model, words, message):
    command, *options = words.split()
    assert_refused(run(command, model, *options, "--quiet" if command == "prune" else "--json"), message)
    assert not Path("mnist-pruned/model.npz").exists()


@pytest.mark.parametrize("command", ["train", "prune trained/model.npz --sparsity 0.5"])
@pytest.mark.usefixtures("model")
def test_unsuitable_output_folders(run, monkeypatch, command):
    monkeypatch.setattr(mlgraph.Network, "fit", lambda *args, **options: pytest.fail("training began"))
    Path("file").touch()
    Path("a/model.npz").mkdir(parents=True)
    Path("b").mkdir()
    Path("b/model.npz").symlink_to("nowhere/x")
    Path("c").mkdir()
    Path("c/model.npz").touch()
    Path("c.previous").touch()
    earlier = "'c' holds an earlier run, which cannot be moved to 'c.previous': no such folder; choose another folder"
    for out, message in (
        ("file", "cannot write to 'file': File exists"),
        ("a", "cannot write 'a/model.npz': expected a file, got a folder"),
        ("b", "cannot write 'b/model.npz': no such folder"),
        ("x" * 300, f"cannot write to '{'x' * 300}': File name too long"),
        ("", "expected a folder, got ''"),
        ("c", earlier),
    ):
        assert_refused(run(*command.split(), "--out", out), f"argument --out: {message}")


@pytest.mark.parametrize("name", ["model.npz", "checkpoint.npz", "checkpoint.npz.previous"])
def test_prune_and_inspect_do_not_replace_their_model(run, name):
    assert run("--epochs", 3, "--checkpoint-every", 0, "--out", "a-run", "--no-plot").status == 0
    before = {path.name: path.read_bytes() for path in Path("a-run").iterdir()}
    result = run("prune", f"a-run/{name}", "--sparsity", 0.5, "--out", "a-run")
    assert_refused(result, "argument --out: 'a-run' would replace MODEL; choose another folder")
    Path("a.png").write_bytes(before[name])
    assert_refused(run("inspect", "a.png"), "argument --out: 'a.png' would replace MODEL; choose another name")
    assert {path.name: path.read_bytes() for path in Path("a-run").iterdir()} == before
    assert Path("a.png").read_bytes() == before[name]
