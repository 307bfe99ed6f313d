"""Random command lines of the application."""

import contextlib
import io
import os

import numpy as np
from fuzz_files import chance, damage, damaged_model, idx, pick
from savable import any_model, network

from mlgraph import mnist
from mlgraph.graph import ops

BAD = (
    "",
    "x",
    "-1",
    "0",
    "1.5",
    "nan",
    "inf",
    "1:",
    ":",
    "1:2:3",
    ",",
    "None",
    "none",
    "-",
    "--",
    "1e400",
    "9" * 5000,
    "\n",
    "\udcff",
    "ü",
    "١",
    "1000000001",
    "0x10",
    "=",
    "'",
    "a b",
    "1_",
    "+",
)
OPTIONS = {
    "--preset": ("default", "ml-rust"),
    "--hidden": ("1", "5", "3,4", "none", ""),
    "--activation": ops.ACTIVATIONS,
    "--epochs": ("1", "2", "1_0"),
    "--batch-size": ("1", "8", "30:4", "1000000000"),
    "--momentum": ("0", "0.5", "1e-9"),
    "--learning-rate": ("0.1", "0.1:0.001", "1e30"),
    "--dropout": ("0", "0.5"),
    "--weight-dropout": ("0.5", "0.999999"),
    "--weight-decay": ("0", "0.01", "1e30"),
    "--sparsity": ("0", "0.5", "0.9", "0.999999"),
    "--method": ("gradual", "set", "rigl"),
    "--seed": ("0", "7"),
    "--threads": ("1", "2"),
    "--checkpoint-every": ("0", "1e9"),
    "--neuron": ("0.0", "1.3", "9.9", "0.-1", "1"),
    "--layer": ("0", "1", "2", "1000000000"),
    "--out": ("out", "out/deeper", "data", "data/train-images-idx3-ubyte/x", "out/\n", "", "file"),
}
FLAGS = ("--json", "--quiet", "--live", "--resume", "--no-plot")
LOOKING = {"evaluate": ["--threads"], "inspect": ["--threads", "--neuron", "--layer"]}
NEW = {"--preset", "--hidden", "--activation", "--dropout", "--weight-dropout", "--method"}  # of a network that is made
TRAINING = {"train": set(OPTIONS) - {"--neuron", "--layer"}, "prune": set(OPTIONS) - {"--neuron", "--layer"} - NEW}
TAKES = {command: sorted(names) for command, names in {**LOOKING, **TRAINING}.items()}
DATA = ("data", "none", "file", "bad", "")
GIVEN = ("good.npz", "good.npz", "other.npz", "damaged.npz", "damaged.npz", "none.npz", "../file", "../data")


def prepare(folder):
    """A folder to work in: data, good and bad, a model, another, and a file that is none."""
    rng = np.random.default_rng(0)
    for name in ("data", "bad", "models"):
        (folder / name).mkdir()
    for name in ("data", "bad"):
        for prefix in ("train", "t10k"):
            (folder / name / f"{prefix}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (20, 2, 3), np.uint8)))
            (folder / name / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(rng.integers(0, 3, 20).astype(np.uint8)))
    (folder / "bad" / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x14")
    (folder / "file").write_bytes(b"spam\n")
    network().save(folder / "models" / "good.npz")
    any_model().save(folder / "models" / "other.npz")


def inputs_of(folder):
    """Content of what the program only reads."""
    paths = [
        *folder.glob("*/*-ubyte"),
        folder / "file",
        folder / "models" / "good.npz",
        folder / "models" / "other.npz",
    ]
    return {path: path.read_bytes() for path in paths}


def words(rng, folder):
    command = pick(rng, ("train", "train", "train", "evaluate", "evaluate", "inspect", "prune"))
    out = [] if command == "train" and chance(rng, 0.8) else [command]
    if command != "train":
        if chance(rng, 0.3):
            (folder / "models" / "damaged.npz").write_bytes(damaged_model(rng))
        out.append(f"models/{pick(rng, GIVEN)}")
    if command == "prune" and chance(rng, 0.9):
        out.append("--sparsity=0.5")
    names = TAKES[command] if chance(rng, 0.95) else list(OPTIONS)
    for name in [pick(rng, names) for _ in range(int(rng.integers(0, 2 if command in LOOKING else 5)))]:
        value = pick(rng, BAD) if chance(rng, 0.15) else pick(rng, OPTIONS[name])
        if (name, value) == ("--epochs", "1000000001"):
            value = "0"
        out += pick(rng, ([name, value], [f"{name}={value}"]))
    out += [flag for flag in FLAGS[: 1 if command in LOOKING and chance(rng, 0.9) else 4] if chance(rng, 0.3)]
    if command != "evaluate" and (command == "inspect" or chance(rng, 0.97)):
        out.append("--no-plot")
    checkpoint = folder / "out" / "checkpoint.npz"
    if checkpoint.exists() and chance(rng, 0.1):
        checkpoint.write_bytes(damage(rng, checkpoint.read_bytes()))
    out += ["--data", pick(rng, DATA) if chance(rng, 0.2) else "data"]
    if chance(rng, 0.05):
        out[int(rng.integers(len(out)))] = pick(rng, (*BAD, "--help", "--nonsense", "evaluate"))
    if "--data" not in out or not any(word == "data" for word in out):  # MNIST itself takes longer
        out += ["--data", "data"]
    return out


def fuzz_command_line(rng, folder):
    """Words of which most are options of the program."""
    work = folder / "work"
    if not work.exists():
        work.mkdir()
        prepare(work)
    before = inputs_of(work)
    arguments = words(rng, work)
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
    here = os.getcwd()
    os.chdir(work)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = mnist.main(arguments)
    except SystemExit as done:
        status = done.code if {"--help", "-h"}.isdisjoint(arguments) else 0
    finally:
        os.chdir(here)
    for stream in (out, err):
        stream.flush()
    printed, complaint = (stream.buffer.getvalue().decode() for stream in (out, err))
    notes = ("no live picture: neither DISPLAY ", "mlgraph.mnist: checkpoint: ", "checkpoint.npz of an earlier run; ")
    complaints = [line for line in complaint.split("\n") if not any(note in line for note in notes)]
    if status:
        assert status in (1, 2) and len(complaints) == 2 and complaints[0].startswith("mlgraph.mnist: error: "), (
            complaint
        )
    else:
        assert "Traceback" not in printed and complaints == [""], complaint
    assert inputs_of(work) == before, arguments
    return f"status {status}"
