"""Tests the package's thresholds: on both sides of each, both ways between which it decides are timed, in turns.

    python bench/thresholds.py

A row has a value of the quantity that is compared with a threshold, and the fastest time of either
way. A threshold is well placed where the faster way changes, for these networks. It takes half a
minute; if other work shares the machine, look at several runs.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from machine import facts
from rivals import network

import mlgraph
from mlgraph._support import threads as policy
from mlgraph.compiler import grouping, holes, plan
from mlgraph.datasets import load_mnist
from mlgraph.engine import choice, examples
from mlgraph.models.running import engine_of
from mlgraph.training import options

Way = tuple[Any, str, Any]
"""A module, the name of its threshold (or of what decides by it), and the value that makes it decide for one way."""

ROUNDS = 7


def seconds(run: Callable[[], float], ways: list[Way]) -> list[float]:
    """The fastest of some turns of each way, each as long as `run` says."""
    best = [np.inf] * len(ways)
    for turn in range(ROUNDS + 1):
        for i, (module, name, value) in enumerate(ways):
            before = getattr(module, name)
            setattr(module, name, value)
            try:
                spent = run()
            finally:
                setattr(module, name, before)
            best[i] = min(best[i], spent) if turn else np.inf
    return best


def fitted(net: mlgraph.Model, x: Any, y: Any, batch: int = 128, epochs: int = 1) -> Callable[[], float]:
    """Times steps of training, without the compilation before them."""
    data = examples.Examples(x, x.shape[1])

    def run() -> float:
        net.engines.clear()
        assert engine_of(net).filled(data)
        begin = time.perf_counter()
        net.fit(x, y, epochs=epochs, batch_size=batch, learning_rate=1e-4, optimizer="sgd")
        return time.perf_counter() - begin

    return run


def floats(rng: np.random.Generator, columns: int, examples: int = 6400) -> np.ndarray:
    return rng.normal(size=(examples, columns)).astype(np.float32)


def layers(*sizes: int) -> mlgraph.Network:
    """Layers of tanh: data that are dense, and a squared error."""
    net = mlgraph.Network(sizes[0], seed=0)
    for size in sizes[1:]:
        net.add_layer(size, "tanh")
    return net


def threads(many: bool) -> Iterator[tuple[float, list[float]]]:
    """Steps on one thread and on two, by their multiply-adds: alone, or two hundred in a call."""
    net, rng, steps = layers(64, 64, 10), np.random.default_rng(0), 200
    ways: list[Way] = [(choice, "threads_for", lambda wish, work, steps=1, n=n: n) for n in (1, 2)]
    for batch in (8, 16, 32, 64, 128, 256, 512):
        x, y = floats(rng, 64, steps * batch), floats(rng, 10, steps * batch)

        def alone(x: np.ndarray = x[:batch]) -> float:
            begin = time.perf_counter()
            for _ in range(steps):
                net.forward(x)
            return time.perf_counter() - begin

        times = seconds(fitted(net, x, y, batch) if many else alone, ways)
        yield engine_of(net).plan.work * batch, [s / steps for s in times]


def serial() -> Iterator[tuple[float, list[float]]]:
    """A hundred steps of one tile of rows, on one thread and on two, by their multiply-adds."""
    mnist, batch = load_mnist(), 8
    ways: list[Way] = [(choice, "threads_for", lambda wish, work, steps=1, n=n: n) for n in (1, 2)]
    for sizes in ((32,), (100,), (300, 100), (1000,), (1000, 1000)):
        net = network(*sizes)
        net.prune(0.9)
        times = seconds(fitted(net, mnist.train_x[: 100 * batch], mnist.train_y[: 100 * batch], batch), ways)
        yield engine_of(net).plan.work * batch, [s / 100 for s in times]


def filled() -> Iterator[tuple[float, list[float]]]:
    """A prediction by rows and through holes, by how many examples there are."""
    mnist, net = load_mnist(), network(300, 100)
    net.prune(0.3)
    for n in (64, 128, 256, 512, 1024, 2048):

        def run(x: np.ndarray = mnist.test_x[:n]) -> float:
            begin = time.perf_counter()
            net.predict(x)
            return time.perf_counter() - begin

        yield n, seconds(run, [(holes, "BLOCKS_COST", 10**9), (holes, "BLOCKS_COST", 0)])


def unread() -> Iterator[tuple[float, list[float]]]:
    """An epoch of 784-32-10 with half of its edges, from a copy of the columns that are read, and in place."""
    mnist, rng = load_mnist(), np.random.default_rng(0)
    for share in (0.1, 0.2, 0.3, 0.4, 0.5):
        net = network(32)
        net.layers[0].mask = (rng.random((32, 784)) < 0.5) & (rng.random(784) >= share)
        run = fitted(net, mnist.train_x, mnist.train_y)
        yield share, seconds(run, [(plan, "MAX_UNREAD", -1.0), (plan, "MAX_UNREAD", 1.0)])


def full(name: str, zeros: bool = True) -> Iterator[tuple[float, list[float]]]:
    """An epoch of rows and of a block with holes, by the fraction of edges present; MNIST or its inverse."""
    mnist, rng = load_mnist(), np.random.default_rng(0)
    of_data, together = name.endswith("DATA"), 4 if name.startswith("QUADS") else 1
    few = of_data and zeros
    for share in (0.1, 0.15, 0.2, 0.25, 0.3, 0.4) if few else (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        net = network(300) if of_data else layers(16, 304, 304, 10)
        layer = net.layers[0 if of_data else 1]
        count, sources = layer.mask.shape
        layer.mask = np.repeat(rng.random((count // together, sources)) < share, together, axis=0)
        images = mnist.train_x[:6400] if zeros else np.maximum(255 - mnist.train_x[:6400], 1)
        data = (images, mnist.train_y[:6400]) if of_data else (floats(rng, 16), floats(rng, 10))
        ways = [(value, value) if of_data else value for value in (1e9, 1e-9)]
        yield share, seconds(fitted(net, *data), [(holes, name, way) for way in ways])


def some(sparse: bool) -> Iterator[tuple[float, list[float]]]:
    """An epoch of rows and of blocks, by how many of 256 neurons share their sources, a quarter of the data."""
    mnist, rng = load_mnist(), np.random.default_rng(0)
    for n in (8, 16, 32, 64):  # of 128, each half of the neurons, both ways are rows
        net = network(256)
        net.layers[0].mask = np.repeat(rng.random((256 // n, 784)) < 0.25, n, axis=0)
        x = mnist.train_x[:6400] if sparse else floats(rng, 784)
        run = fitted(net, x, mnist.train_y[:6400])
        yield n, seconds(run, [(grouping, "DENSE_AMONG_OTHERS", n + 1), (grouping, "DENSE_AMONG_OTHERS", n)])


def sparse() -> Iterator[tuple[float, list[float]]]:
    """An epoch of a block that reads all its data, and of one that skips zeros, by the fraction of nonzero runs."""
    rng = np.random.default_rng(0)
    for share in (0.3, 0.5, 0.7, 0.8, 0.9, 1.0):
        runs = rng.random((6400, 196)) < share
        x = (np.repeat(runs, 4, axis=1) * rng.integers(1, 256, (6400, 784))).astype(np.uint8)
        run = fitted(network(300), x, rng.integers(0, 10, 6400))
        yield share, seconds(run, [(examples, "SPARSE_BELOW", -1.0), (examples, "SPARSE_BELOW", 2.0)])


def narrow() -> Iterator[tuple[float, list[float]]]:
    """Epochs of rows that read a few pixels in the middle, where they stand and from a copy, by how many there are."""
    mnist, rng = load_mnist(), np.random.default_rng(0)
    net = network(100)
    middle = np.zeros((28, 28), bool)
    middle[8:20, 8:20] = True
    net.layers[0].mask = middle.reshape(-1) & (rng.random((100, 784)) < 0.05)
    for epochs in (2, 4, 8, 16):
        run = fitted(net, mnist.train_x, mnist.train_y, epochs=epochs)
        yield epochs, seconds(run, [(examples, "NARROW_AFTER", 1e9), (examples, "NARROW_AFTER", 0)])


def few() -> Iterator[tuple[float, list[float]]]:
    """Steps of dense data by a block that reads all of them, and by one that skips zeros, by the size of the step."""
    net, rng, steps = layers(256, 256, 10), np.random.default_rng(0), 100
    for batch in (4, 8, 16, 32, 64, 128):
        run = fitted(net, floats(rng, 256, steps * batch), floats(rng, 10, steps * batch), batch)
        yield batch, [s / steps for s in seconds(run, [(options, "FEW", 0), (options, "FEW", batch)])]


def dense() -> Iterator[tuple[float, list[float]]]:
    """An epoch of rows and of a block, by how many neurons share 256 sources."""
    rng = np.random.default_rng(0)
    for n in (2, 4, 6, 8, 12):  # 16 rows that lack nothing would be filled up to a block
        run = fitted(layers(16, 256, n), floats(rng, 16), floats(rng, n))
        yield n, seconds(run, [(grouping, "DENSE_FROM", n + 1), (grouping, "DENSE_FROM", n)])


def show(
    name: str, value: Any, quantity: str, ways: tuple[str, str], rows: Iterator[tuple[float, list[float]]]
) -> None:
    print(f"\n{name} = {value}\n{quantity:>40}{ways[0]:>16}{ways[1]:>16}")
    for at, (one, other) in rows:
        unit, size = ("ms", 1e3) if max(one, other) > 1e-3 else ("µs", 1e6)
        print(f"{at:>40,.6g}{one * size:>13.3g} {unit}{other * size:>13.3g} {unit}{one / other:>8.2f} times as fast")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(", ".join(f"{name} {value}" for name, value in facts().items()))
    if mlgraph.default_threads() > 1:
        of_threads = "multiply-adds of a step", ("one thread", "two")
        show("mlgraph._support.threads.WORK_PER_THREAD", policy.WORK_PER_THREAD, *of_threads, threads(many=False))
        show("mlgraph._support.threads.WORK_OF_TWO", policy.WORK_OF_TWO, *of_threads, threads(many=True))
        show("mlgraph.engine.choice.SERIAL x WORK_OF_TWO", choice.SERIAL * policy.WORK_OF_TWO, *of_threads, serial())
    show("mlgraph.compiler.holes.BLOCKS_COST", holes.BLOCKS_COST, "examples", ("rows", "blocks"), filled())
    show("mlgraph.compiler.plan.MAX_UNREAD", plan.MAX_UNREAD, "share of columns", ("copied", "in place"), unread())
    show("mlgraph.engine.examples.SPARSE_BELOW", examples.SPARSE_BELOW, "share of runs", ("all", "entries"), sparse())
    show("mlgraph.engine.examples.NARROW_AFTER", examples.NARROW_AFTER, "epochs", ("in place", "copied"), narrow())
    show("mlgraph.engine.choice.FEW", choice.FEW, "examples of a step", ("all", "entries"), few())
    for name in ("FULL_FROM_DATA", "FULL_FROM", "QUADS_FULL_FROM_DATA", "QUADS_FULL_FROM"):
        show(f"mlgraph.compiler.holes.{name}", getattr(holes, name), "share of edges", ("rows", "block"), full(name))
        if name.endswith("DATA"):
            name_here = f"mlgraph.compiler.holes.{name}, no zeros"
            show(name_here, getattr(holes, name)[1], "share of edges", ("rows", "block"), full(name, zeros=False))
    show("mlgraph.compiler.grouping.DENSE_FROM", grouping.DENSE_FROM, "neurons", ("rows", "block"), dense())
    show(
        "mlgraph.compiler.grouping.DENSE_AMONG_OTHERS, MNIST",
        grouping.DENSE_AMONG_OTHERS,
        "neurons",
        ("rows", "block"),
        some(sparse=True),
    )
    show(
        "mlgraph.compiler.grouping.DENSE_AMONG_OTHERS, floats",
        grouping.DENSE_AMONG_OTHERS,
        "neurons",
        ("rows", "block"),
        some(sparse=False),
    )


if __name__ == "__main__":
    main()
