"""Mistakes on the command line: one line that names the argument, status 2, and nothing written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from mnist_program import Run, write_data

import mlgraph

PAIR = "expected N or A:B with integers from 1 to 1000000000"

RATES = "expected X or A:B with positive finite numbers"

SHARE = "expected a number from 0 to below 1"

COUNT = "expected an integer from 1 to 1000000000"

SIZES = "expected integers from 1 to 1000000000 such as 32 or 300,100, or none"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        *(
            ("--batch-size", value, PAIR)
            for value in ("x", "", "0", "-1", "128:", ":8", "128:0", "1:2:3", "1.5", "nan")
        ),
        *(
            ("--learning-rate", value, RATES)
            for value in ("x", "", "0", "-0.1", "nan", "inf", "1e300", "0.1:", "0.1:nan")
        ),
        *(
            ("--momentum", value, f"{SHARE}, in float32 too")
            for value in ("x", "1", "-0.1", "nan", "inf", "0.999999999")
        ),
        *(
            ("--weight-decay", value, "expected a finite number from 0 on")
            for value in ("x", "-0.1", "nan", "inf", "1e39")
        ),
        *(("--dropout", value, SHARE) for value in ("x", "1", "1.0", "-1", "nan")),
        *(("--weight-dropout", value, SHARE) for value in ("x", "1", "-1", "50%")),
        *(("--epochs", value, COUNT) for value in ("x", "0", "-1", "1.5", "1000000001", "9" * 5000)),
        *(
            ("--hidden", value, SIZES)
            for value in ("x", "", "0", "-3", "32,", ",", "32,0", "3.5", "32:16", "None", "9" * 30)
        ),
        *(("--threads", value, "expected an integer from 1 to 1024") for value in ("x", "0", "-1", "1025")),
        *(("--seed", value, "expected an integer from 0 to 2**64 - 1") for value in ("x", "-1", "0.5", str(2**64))),
        ("--activation", "softmax", "expected identity, relu, leaky_relu, sigmoid or tanh"),
        ("--activation", "a\nb", "expected identity, relu, leaky_relu, sigmoid or tanh"),
        ("--preset", "mlrust", "expected default, ml-rust or lenet-300-100"),
        *(("--sparsity", value, SHARE) for value in ("x", "1", "-0.1", "90%")),
        ("--method", "magnitude", "expected gradual, set or rigl"),
    ],
)
def test_values_out_of_range(run: Run, option: str, value: str, message: str) -> None:
    expected = f"mlgraph.mnist: error: argument {option}: {message}, got {value!r}\n"
    assert run(f"{option}={value}") == (2, "", expected)
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        # No abbreviations: they break when options are added.
        (["--epoch", "1"], "unrecognized arguments: --epoch 1 (did you mean --epochs?)"),
        (
            ["train", "--zzz", "--hiden=400,300"],
            "unrecognized arguments: --zzz --hiden=400,300 (did you mean --hidden?)",
        ),
        (["train", "more"], "unrecognized arguments: more"),
        (["--json", " "], "unrecognized arguments:  "),
        (["--json", "evaluate", "m"], "unrecognized arguments: evaluate m (a command comes first)"),
        (["train", "a\nb"], "unrecognized arguments: a b"),
        (["--epochs"], "argument --epochs: expected one argument"),
        (["--resume=yes"], "argument --resume: expected no value, got 'yes'"),
        (["--batch-size="], "argument --batch-size: expected N or A:B with integers from 1 to 1000000000, got ''"),
        (["evaluat", "model.npz"], "argument COMMAND: expected train, evaluate, inspect or prune, got 'evaluat'"),
        (["--hidden", "none", "--dropout", "0.5"], "argument --dropout: expected hidden layers to drop from, got none"),
        (
            ["--preset", "ml-rust", "--hidden", "none", "--weight-dropout", "0.1"],
            "argument --weight-dropout: expected hidden layers to drop from, got none",
        ),
        (["inspect", "a", "--layer", "0", "--neuron", "0.1"], "argument --neuron: not allowed with argument --layer"),
        (["--method", "set"], "argument --method: expected --sparsity with it, which says how much is cut, got none"),
        (["--by", "random"], "argument --by: expected --sparsity with it, which says how much is cut, got none"),
        (
            ["--sparsity", "0.5", "--method", "set", "--by", "random"],
            "argument --by: expected the method gradual, whose criterion it is, got set",
        ),
        (["--block", "4"], "argument --block: expected --sparsity with it, which says how much is cut, got none"),
        (["evaluate"], "the following arguments are required: MODEL"),
        (["evaluate", "a", "b"], "unrecognized arguments: b"),
        (["evaluate", "a", "--epochs", "1"], "unrecognized arguments: --epochs 1"),
        (["inspect"], "the following arguments are required: MODEL"),
        (["inspect", "a", "--neuron", "3"], "argument --neuron: expected LAYER.INDEX such as 0.7, got '3'"),
        (["inspect", "a", "--neuron", "0.-1"], "argument --neuron: expected LAYER.INDEX such as 0.7, got '0.-1'"),
        (["inspect", "a", "--neuron", "0.1.2"], "argument --neuron: expected LAYER.INDEX such as 0.7, got '0.1.2'"),
        (["inspect", "a", "--layer", "-1"], "argument --layer: expected an integer from 0 to 1000000000, got '-1'"),
        (["prune", "a"], "the following arguments are required: --sparsity"),
        (["prune", "a", "--sparsity", "1"], "argument --sparsity: expected a number from 0 to below 1, got '1'"),
    ],
)
def test_mistaken_words(run: Run, words: list[str], message: str) -> None:
    assert run(*words, data=None) == (2, "", f"mlgraph.mnist: error: {message}\n")


@pytest.mark.parametrize("command", [[], ["evaluate", "trained/model.npz"]])
@pytest.mark.usefixtures("model")
def test_bad_data(run: Run, tmp_path: Path, command: list[str]) -> None:
    folder = write_data(tmp_path / "bad")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0")
    missing = tmp_path / "missing"
    for data, file in ((folder, folder / "t10k-labels-idx1-ubyte"), (missing, missing)):
        result = run(*command, data=data)
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith(f"mlgraph.mnist: error: argument --data: {file}: expected ")
        assert len(result.err.splitlines()) == 1
    assert not Path("mnist-run").exists()


def test_out_is_checked_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlgraph.Network, "fit", lambda *args, **options: pytest.fail("training began"))
    Path("file").touch()
    result = run("--out", "file")
    assert result == (2, "", "mlgraph.mnist: error: argument --out: cannot write to 'file': File exists\n")
    result = run("--out", "file/folder")
    assert result == (2, "", "mlgraph.mnist: error: argument --out: cannot write to 'file/folder': Not a directory\n")
    for name in ("model.npz", "checkpoint.npz.previous"):
        path = Path("run", name)
        path.mkdir(parents=True)
        assert run("--out", "run") == (
            2,
            "",
            f"mlgraph.mnist: error: argument --out: cannot write {str(path)!r}: expected a file, got a folder\n",
        )
        path.rmdir()


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("model.npz", "model.npz", os.strerror(errno.ELOOP)),
        ("history.json", "nowhere/x", "no such folder"),
        ("training.png", "../pipe", "expected a file, got a device or a pipe"),
    ],
)
def test_out_leads_to_what_is_no_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, target: str, reason: str
) -> None:
    monkeypatch.setattr(mlgraph.Network, "fit", lambda *args, **options: pytest.fail("training began"))
    Path("run").mkdir()
    os.mkfifo("pipe")  # and no device, which the superuser would lose to a check that fails
    path = Path("run", name)
    path.symlink_to(target)
    assert run("--out", "run") == (
        2,
        "",
        f"mlgraph.mnist: error: argument --out: cannot write {str(path)!r}: {reason}\n",
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_out_is_read_only(run: Run) -> None:
    Path("locked").mkdir(mode=0o500)
    result = run("--out", "locked")
    assert result == (2, "", "mlgraph.mnist: error: argument --out: cannot write to 'locked': Permission denied\n")


@pytest.mark.parametrize(
    "words", [["train", "--data", ""], ["evaluate", ""], ["inspect", ""], ["prune", "", "--sparsity", "0.5"]]
)
def test_empty_paths(run: Run, words: list[str]) -> None:
    result = run(*words, data=None)
    assert (result.status, len(result.err.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    "words", [["train"], ["inspect", "trained/model.npz"], ["prune", "trained/model.npz", "--sparsity", "0.5"]]
)
@pytest.mark.usefixtures("model")
def test_empty_out(run: Run, words: list[str]) -> None:
    """As of a variable of the shell that is not set: the working folder may hold another run."""
    result = run(*words, "--out", "")
    assert (result.status, result.out, os.listdir(), len(os.listdir("trained"))) == (2, "", ["trained"], 2)
    assert result.err.startswith("mlgraph.mnist: error: argument --out: ") and len(result.err.splitlines()) == 1
