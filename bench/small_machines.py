"""Networks on a Cortex-M3: accuracy, memory and instructions of three ways to write them as C, as a table.

    python bench/small_machines.py             # a few minutes; --quick for 784-32-10 alone

Each network learns MNIST for ten epochs, pruned while it trains. It is written as C by `to_c` in
8-bit integers and in floats, and by emlearn, which takes an MLPClassifier of scikit-learn: one with
the same weights, in which those that were cut are 0. emlearn 0.23 computes networks in floats only.

- "accuracy" is that of all test images, in percent, by the C compiled for this machine;
- "code" and "constants" are bytes of the object file for a Cortex-M3 by gcc -Os, "libraries" those
  of what it needs from libm and libgcc, and "RAM" is its variables and its stack;
- "instructions" are those for an image, on a processor that QEMU emulates. A Cortex-M3 computes
  floats by library functions. A processor takes one to a few cycles for an instruction.

The packages of `bench/cortex_m.py` must be installed; without emlearn its rows are left out.
"""

import argparse
import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import cortex_m
import numpy as np
import numpy.typing as npt
from machine import version

import mlgraph
from mlgraph.datasets import Dataset, load_mnist

NETWORKS: dict[str, tuple[int, ...]] = {"784-32-10": (32,), "784-300-100-10": (300, 100)}
SPARSITIES = (0, 0.9, 0.98)
CALIBRATION = 2000
EMULATED = 20


class Way(NamedTuple):
    """A C function of an image: its text, declaration and call, the types of its numbers, and options to compile it."""

    name: str
    text: str
    declaration: str
    call: str
    x: npt.NDArray[Any]
    n_outputs: int
    dtype: npt.DTypeLike
    options: list[str]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="784-32-10 alone, after two epochs")
    args = parser.parse_args()
    if cortex_m.missing() is not None:
        raise SystemExit(f"{cortex_m.missing()} is not installed; see bench/cortex_m.py")
    mnist = load_mnist()
    print(f"gcc {cortex_m.run([cortex_m.COMPILER, '-dumpversion'], Path()).strip()}, emlearn {version('emlearn')}\n")
    print("| network, sparsity | written by | accuracy | code | constants | libraries | RAM | instructions |")
    print("|---|---|---|---|---|---|---|---|")
    for name, hidden in list(NETWORKS.items())[: 1 if args.quick else None]:
        for sparsity in SPARSITIES:
            net = mlgraph.Network(784, seed=0)
            for size in hidden:
                net.add_layer(size, "relu")
            net.add_layer(10, "softmax")
            schedule = mlgraph.GradualPruning(sparsity) if sparsity else None
            net.fit(mnist.train_x, mnist.train_y, epochs=2 if args.quick else 10, seed=0, sparsify=schedule)
            for way in ways(net, mnist):
                print(f"| {name}, {sparsity:.0%} | {way.name} | {' | '.join(measured(way, mnist))} |", flush=True)


def ways(net: mlgraph.Network, mnist: Dataset) -> list[Way]:
    """The ways to write a network."""
    f = net.graph.compile(net.outputs)
    x = (mnist.test_x / 255).astype(np.float32)
    integers = f.to_c("digits", dtype="int8", calibrate=mnist.train_x[:CALIBRATION] / 255)
    found = [
        Way(
            "`to_c`, int8",
            integers,
            "void digits(const uint8_t *x, int32_t *y)",
            "digits(x, y)",
            mnist.test_x,
            10,
            np.int32,
            cortex_m.STRICT,
        ),
        Way(
            "`to_c`, float32",
            f.to_c("digits"),
            "void digits(const float *x, float *y)",
            "digits(x, y)",
            x,
            10,
            np.float32,
            cortex_m.STRICT,
        ),
    ]
    if version("emlearn") is not None:
        text, folder = by_emlearn(net)
        declaration, call = "int32_t digits_predict(const float *x, int32_t n)", "*y = digits_predict(x, 784)"
        found.append(Way("emlearn, float32", text, declaration, call, x, 1, np.int32, [f"-I{folder}"]))
    return found


def by_emlearn(net: mlgraph.Network) -> tuple[str, str]:
    """The network by emlearn, and the folder of its headers."""
    import emlearn
    from sklearn.neural_network import MLPClassifier

    mlp = MLPClassifier([layer.size for layer in net.layers[:-1]], activation="relu")
    mlp.partial_fit(np.eye(10, 784), np.arange(10), classes=np.arange(10))  # makes the arrays
    mlp.coefs_ = [layer.weights.T.astype(float) for layer in net.layers]
    mlp.intercepts_ = [layer.biases.astype(float) for layer in net.layers]
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # emlearn compiles in the folder tmp
        try:
            return emlearn.convert(mlp).save(name="digits"), emlearn.includedir
        finally:
            os.chdir(here)


def measured(way: Way, mnist: Dataset) -> list[str]:
    """The numbers of a row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        y = on_this_machine(folder, way)
        accuracy = np.mean((y.argmax(axis=1) if way.n_outputs > 1 else y[:, 0]) == mnist.test_y)
        cortex_m.compiled(folder, way.text, *way.options)
        size = cortex_m.sizes(folder, "function.o")
        numbers = [size["code"], size["constants"]]
        x, signature = way.x[:EMULATED], (way.n_outputs, way.dtype)
        found = cortex_m.emulated(folder, way.declaration, way.call, x, *signature)
        cortex_m.compiled(folder, "")
        nothing = cortex_m.emulated(folder, "extern int nothing", "*y = 0", x, *signature)
        libraries = found.flash - nothing.flash - sum(numbers)
        ram = found.ram - nothing.ram + found.stack
        np.testing.assert_allclose(found.y, y[: len(x)], rtol=1e-3, atol=1e-3)
        numbers += [libraries, ram, round(found.instructions)]
        return [f"{100 * accuracy:.2f}", *(f"{n:,}" for n in numbers)]


def on_this_machine(folder: Path, way: Way) -> npt.NDArray[Any]:
    """Outputs for all images."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("no C compiler")
    source, library = folder / "here.c", folder / "here.so"
    of, to = cortex_m.TYPES[way.x.dtype], cortex_m.TYPES[np.dtype(way.dtype)]
    every = f"""
#include <stdint.h>
void every(const {of} *x, {to} *y, int n);
void every(const {of} *x, {to} *y, int n) {{ for (; n > 0; n--, x += 784, y += {way.n_outputs}) {way.call}; }}
"""
    source.write_text(way.text + every)
    options = [option for option in way.options if option.startswith("-I")]
    subprocess.run([compiler, "-O2", *options, "-shared", "-fPIC", source, "-o", library, "-lm"], check=True)
    x, y = np.ascontiguousarray(way.x), np.zeros((len(way.x), way.n_outputs), way.dtype)
    ctypes.CDLL(str(library)).every(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), len(x))
    return y


if __name__ == "__main__":
    main()
