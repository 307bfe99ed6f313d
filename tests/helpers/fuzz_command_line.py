"""Random command lines of the application."""

import contextlib
import io
import os

import numpy as np
from fuzz_files import chance, damage, damaged_model, pick
from mnist_program import write_idx
from savable import any_model, network

from mlgraph import mnist
from mlgraph.graph import ops

BAD = ("", "x", "-1", "0", "1.5", "nan", "inf", "1:", ":", "1:2:3", ",", "None", "-", "--", "1e400", "9" * 5000)
BAD += ("\n", "\udcff", "ü", "١", "0x10", "=", "a b", "1_")
NETWORK = {
    "--preset": ("default", "ml-rust"),
    "--hidden": ("1", "5", "3,4", "none"),
    "--activation": ops.ACTIVATIONS,
    "--dropout": ("0", "0.5"),
    "--weight-dropout": ("0.5", "0.999999"),
    "--method": ("gradual", "set", "rigl"),
}
TRAINING = {
    "--epochs": ("1", "2", "1_0"),
    "--batch-size": ("1", "8", "30:4", "1000000000"),
    "--momentum": ("0", "0.5", "1e-9"),
    "--learning-rate": ("0.1", "0.1:0.001", "1e30"),
    "--weight-decay": ("0", "0.01", "1e30"),
    "--sparsity": ("0", "0.5", "0.9", "0.999999"),
    "--seed": ("0", "7"),
    "--checkpoint-every": ("0", "1e9"),
    "--out": ("out", "out/deeper", "data", "data/train-images-idx3-ubyte/x", "out/\n", "", "file"),
}
NEURONS = {"--neuron": ("0.0", "1.3", "9.9", "0.-1", "1"), "--layer": ("0", "1", "2", "1000000000")}
SWEEP = {"--seeds": ("0", "1-2", "2-1", "0,,1"), "--sparsity": ("0", "0,0.5", "0.9,0.9", "0,1"), "--jobs": ("1", "2")}
SWEEP |= {"--backend": ("threading", "dask", "slurm"), "--address": ("", "x", "[", "127.0.0.1:1", "tcp://127.0.0.1")}
TAKES = {"train": {**NETWORK, **TRAINING}, "prune": TRAINING, "inspect": NEURONS, "evaluate": {"--threads": ("1", "2")}}
TAKES["sweep"] = {**NETWORK, **TRAINING, **SWEEP}
FLAGS = ("--json", "--quiet", "--live", "--resume")
MODELS = ("good.npz", "good.npz", "other.npz", "damaged.npz", "damaged.npz", "none.npz", "../file", "../data")


def prepare(folder):
    """A folder to work in: good and bad data, two models, and a file of another kind."""
    rng = np.random.default_rng(0)
    for name in ("data", "bad", "models"):
        (folder / name).mkdir(parents=True)
    for name in ("data", "bad"):
        for prefix in ("train", "t10k"):
            write_idx(folder / name / f"{prefix}-images-idx3-ubyte", rng.integers(0, 256, (20, 2, 3), np.uint8))
            write_idx(folder / name / f"{prefix}-labels-idx1-ubyte", rng.integers(0, 3, 20).astype(np.uint8))
    (folder / "bad" / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x14")
    (folder / "file").write_bytes(b"spam\n")
    network().save(folder / "models" / "good.npz")
    any_model().save(folder / "models" / "other.npz")


def words(rng, folder):
    command = pick(rng, ("train", "train", "train", "evaluate", "inspect", "prune", "sweep"))
    is_run = command in ("train", "prune", "sweep")
    out = [] if command == "train" and chance(rng, 0.8) else [command]
    if command == "sweep":  # processes would take long
        out += ["--seeds=0-1", "--backend=threading", f"--out=sweep-{rng.integers(10**9)}"]
    elif command != "train":
        (folder / "models" / "damaged.npz").write_bytes(damaged_model(rng))
        out.append(f"models/{pick(rng, MODELS)}")
    if command == "prune" and chance(rng, 0.9):
        out.append("--sparsity=0.5")
    options = TAKES[command if chance(rng, 0.95) else "train"]
    for name in [pick(rng, list(options)) for _ in range(int(rng.integers(0, 5 if is_run else 2)))]:
        value = pick(rng, BAD) if chance(rng, 0.15) else pick(rng, options[name])
        out += pick(rng, ([name, value], [f"{name}={value}"]))
    out += [flag for flag in FLAGS[: 4 if is_run else 1] if chance(rng, 0.3)]
    if command != "evaluate" and chance(rng, 0.97):
        out.append("--no-plot")
    checkpoint = folder / "out" / "checkpoint.npz"
    if checkpoint.exists() and chance(rng, 0.1):
        checkpoint.write_bytes(damage(rng, checkpoint.read_bytes()))
    if out and chance(rng, 0.05):
        out[int(rng.integers(len(out)))] = pick(rng, (*BAD, "--help", "--nonsense", "evaluate"))
    return [*out, "--data", pick(rng, ("none", "file", "bad", "")) if chance(rng, 0.1) else "data"]


def fuzz_command_line(rng, folder):
    """The program ends with a status, an error is one line, and what it only reads is unchanged."""
    work = folder / "work"
    if not work.exists():
        prepare(work)
    arguments = words(rng, work)
    before = {path: path.read_bytes() for path in [*work.glob("*/*-ubyte"), *work.glob("models/*"), work / "file"]}
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
    notes = (
        "no live picture: neither DISPLAY ",
        "mlgraph.mnist: checkpoint: ",
        "moved the files of an earlier run in ",
    )
    complaints = [line for line in complaint.splitlines() if not any(note in line for note in notes)]
    if status:
        assert status in (1, 2) and len(complaints) == 1, complaint
        assert complaints[0].startswith("mlgraph.mnist: error: "), complaint
    else:
        assert "Traceback" not in printed and complaints == [], complaint
    assert {path: path.read_bytes() for path in before} == before, arguments
    return f"status {status}"
