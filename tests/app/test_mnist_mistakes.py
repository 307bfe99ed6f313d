"""Mistakes of the user: status 2, one line that names the argument, no traceback, and nothing written."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from mnist_program import write_data

import mlgraph

PAIR = "expected N or A:B with integers from 1 to 1000000000"
RATES = "expected X or A:B with finite numbers above 0"
FRACTION = "expected a number from 0 to below 1"
COUNT = "expected an integer from 1 to 1000000000"
SIZES = "expected integers from 1 to 1000000000 such as 32 or 300,100, or none"
VALUES = {
    "--batch-size": (PAIR, ["x", "", "0", "128:", "128:0", "1:2:3", "1.5"]),
    "--learning-rate": (RATES, ["x", "0", "-0.1", "nan", "inf", "1e300", "0.1:"]),
    "--momentum": (f"{FRACTION} (also when rounded to float32)", ["x", "1", "-0.1", "nan", "0.999999999"]),
    "--weight-decay": ("expected a finite number of at least 0", ["x", "-0.1", "nan", "1e39"]),
    "--dropout": (FRACTION, ["x", "1", "-1", "nan", "50%"]),
    "--sparsity": (FRACTION, ["x", "1"]),
    "--epochs": (COUNT, ["x", "0", "1.5", "1000000001", "9" * 5000]),
    "--hidden": (SIZES, ["x", "", "0", "32,", "32:16", "None"]),
    "--threads": ("expected an integer from 1 to 1024", ["x", "0", "1025"]),
    "--seed": ("expected an integer from 0 to 2**64 - 1", ["x", "-1", str(2**64)]),
    "--activation": ("expected identity, relu, leaky_relu, sigmoid or tanh", ["softmax", "a\nb"]),
    "--preset": ("expected default, ml-rust or lenet-300-100", ["mlrust"]),
    "--method": ("expected gradual, set or rigl", ["magnitude"]),
    "--on-nonfinite": ("expected raise, skip or disconnect", ["ignore"]),
}


def assert_refused(result, message):
    assert (result.status, result.out) == (2, "") and len(result.err.splitlines()) == 1
    assert result.err.startswith(f"mlgraph.mnist: error: {message}"), result.err


@pytest.mark.parametrize("option", VALUES)
def test_values(run, option):
    message, values = VALUES[option]
    for value in values:
        expected = f"mlgraph.mnist: error: argument {option}: {message}, got {value!r}\n"
        assert run(f"{option}={value}") == (2, "", expected)
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        # Abbreviations are not accepted, since they would break when options are added.
        (["--epoch", "1"], "unrecognized arguments: --epoch 1 (did you mean --epochs?)"),
        (["train", "--z", "--hiden=4"], "unrecognized arguments: --z --hiden=4 (did you mean --hidden?)"),
        (["train", "more"], "unrecognized arguments: more"),
        (["--json", "evaluate", "m"], "unrecognized arguments: evaluate m (the command must come first)"),
        (["train", "a\nb"], "unrecognized arguments: a b"),
        (["--epochs"], "argument --epochs: expected one argument"),
        (["--resume=yes"], "argument --resume: expected no value, got 'yes'"),
        (["evaluat", "model.npz"], "argument COMMAND: expected train, evaluate, inspect or prune, got 'evaluat'"),
        (["--hidden", "none", "--dropout", "0.5"], "argument --dropout: there is no hidden layer to drop from"),
        (["--method", "set"], "argument --method: needs --sparsity, the fraction of the edges to cut"),
        (["--by", "random"], "argument --by: needs --sparsity, the fraction of the edges to cut"),
        (["--block", "4"], "argument --block: needs --sparsity, the fraction of the edges to cut"),
        (
            ["--sparsity", "0.5", "--method", "set", "--by", "random"],
            "argument --by: works only with --method gradual, got set",
        ),
        (["evaluate"], "the following arguments are required: MODEL"),
        (["evaluate", "a", "--epochs", "1"], "unrecognized arguments: --epochs 1"),
        (["inspect", "a", "--layer", "0", "--neuron", "0.1"], "argument --neuron: not allowed with argument --layer"),
        (["inspect", "a", "--neuron", "3"], "argument --neuron: expected LAYER.INDEX such as 0.7, got '3'"),
        (["inspect", "a", "--neuron", "0.-1"], "argument --neuron: expected LAYER.INDEX such as 0.7, got '0.-1'"),
        (["inspect", "a", "--layer", "-1"], "argument --layer: expected an integer from 0 to 1000000000, got '-1'"),
        (["prune", "a"], "the following arguments are required: --sparsity"),
    ],
)
def test_words(run, words, message):
    assert run(*words, data=None) == (2, "", f"mlgraph.mnist: error: {message}\n")


def test_data(run, model, tmp_path):
    folder = write_data(tmp_path / "bad")
    labels = folder / "t10k-labels-idx1-ubyte"
    labels.write_bytes(b"\0\0\x08\x01\0\0")
    missing = tmp_path / "missing"
    for command in ([], ["evaluate", model]):
        assert_refused(run(*command, data=folder), f"argument --data: {labels}: expected ")
        assert_refused(run(*command, data=missing), f"argument --data: {missing}: expected ")
    assert_refused(run("--data", "", data=None), "argument --data: ")
    assert not Path("mnist-run").exists()


def test_models(run, model, tmp_path):
    Path("text").write_text("no model")
    graph = mlgraph.Graph()
    mlgraph.Model(graph, [graph.input("x") * graph.parameter(1.0)]).save("other.npz")
    net = mlgraph.load(model)
    net.layers[0].neurons[2].weights[3] = np.nan
    net.save("nan.npz")
    net.layers[0].neurons[2].weights[3] = 0.0
    net.layers[0].biases = net.outputs[0].weights = np.full(8, 1e38, np.float32)
    net.save("infinite.npz")
    wide = write_data(tmp_path / "wide", width=6)
    many = write_data(tmp_path / "many", classes=4)
    for path, data, message in (
        ("nothing.npz", None, "nothing.npz: cannot be read: No such file or directory"),
        ("", None, ""),
        (".", None, ". is a folder; give a file in it, such as model.npz"),
        ("text", None, "text: not a model file, or a damaged one"),
        ("other.npz", None, "other.npz: the model is not a Network whose last layer is softmax"),
        (model, wide, f"{model} has 20 inputs, but the images have 4 x 6 pixels"),
        (model, many, f"{model} has 3 outputs, but the data have 4 classes"),
    ):
        for command in (["evaluate"], ["inspect"], ["prune", "--sparsity", 0.5]):
            given = {} if data is None else {"data": data}
            assert_refused(run(command[0], path, *command[1:], **given), f"argument MODEL: {message}")
    assert_refused(run("evaluate", "nan.npz"), "argument MODEL: nan.npz: predict: ")
    message = "argument MODEL: nan.npz has weights or biases that are NaN and cannot be ranked"
    assert_refused(run("prune", "nan.npz", "--sparsity", 0.5), message)
    message = "argument MODEL: infinite.npz: the network has infinite outputs, so its loss is undefined"
    assert_refused(run("evaluate", "infinite.npz"), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "--layer", 2], "argument --layer: expected a layer from 0 to 1, got 2"),
        (["inspect", "--neuron", "3.0"], "argument --neuron: expected a layer from 0 to 1, got 3"),
        (["inspect", "--neuron", "0.8"], "argument --neuron: expected a neuron from 0.0 to 0.7, got 0.8"),
        (["inspect", "--out", "no/where.png"], "argument --out: cannot write 'no/where.png': no such folder"),
        (["inspect", "--out", "a.bmpx"], "argument --out: expected a name that ends in .png or .svg or .pdf, got"),
        (["inspect", "--out", "trained"], "argument --out: cannot write 'trained': expected a file, got a folder"),
        (
            ["prune", "--sparsity", 0.5, "--learning-rate", 2, "--weight-decay", 1],
            "argument --weight-decay: expected a number from 0 to 1 / learning_rate, 0.5, got 1.0",
        ),
    ],
)
def test_options_that_do_not_fit_the_network(run, model, words, message):
    command, *options = words
    assert_refused(run(command, model, *options), message)


def test_sparsity_that_would_cut_off_an_output(run, model):
    result = run("prune", model, "--sparsity", 0.99)
    assert (result.status, len(result.err.splitlines())) == (2, 1)
    assert result.err.startswith("mlgraph.mnist: error: argument --sparsity: ")
    assert not Path("mnist-pruned/model.npz").exists()


def test_out(run, model, monkeypatch):
    monkeypatch.setattr(mlgraph.Network, "fit", lambda *args, **options: pytest.fail("training began"))
    Path("file").touch()
    os.mkfifo("pipe")
    Path("a").mkdir()
    Path("a/model.npz").mkdir()
    for name, target in (("b", "model.npz"), ("c", "nowhere/x"), ("d", "../pipe")):
        Path(name).mkdir()
        Path(name, "model.npz").symlink_to(target)
    no_file = "expected a file, got a "
    for out, message in (
        ("file", "cannot write to 'file': File exists"),
        ("file/folder", "cannot write to 'file/folder': Not a directory"),
        ("a", f"cannot write 'a/model.npz': {no_file}folder"),
        ("b", f"cannot write 'b/model.npz': {os.strerror(errno.ELOOP)}"),
        ("c", "cannot write 'c/model.npz': no such folder"),
        ("d", f"cannot write 'd/model.npz': {no_file}device or a pipe"),
        ("x" * 300, f"cannot write to '{'x' * 300}': {os.strerror(errno.ENAMETOOLONG)}"),
        ("", "expected a folder, got ''"),  # an unset variable of a shell
    ):
        for command in ([], ["prune", model, "--sparsity", 0.5]):
            assert_refused(run(*command, "--out", out), f"argument --out: {message}")
    for out in ("", "x" * 300):
        assert_refused(run("inspect", model, "--out", out), f"argument --out: cannot write '{out or '.'}': ")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_out_is_read_only(run):
    Path("locked").mkdir(mode=0o500)
    assert_refused(run("--out", "locked"), "argument --out: cannot write to 'locked': Permission denied")
