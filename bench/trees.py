"""Time the same work of several checkouts in turns: has a change cost speed?

    git worktree add ../before COMMIT && (cd ../before && python setup.py build_ext --inplace)
    python bench/trees.py ../before .

Each checkout, which must be built in place, has a process of its own; only one works at a time. A turn is one
`fit` of some epochs of MNIST, or many calls. Times are wall clock, best and median of the rounds. The other
checkouts' columns are differences from the first, of both.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PAUSE = 0.03
"""Seconds before a turn, after which threads of the process before no longer spin."""

SMALL, LENET, WIDE = (32,), (300, 100), (1000,)

ROWS: dict[str, tuple[str, tuple[int, ...], int, float, int]] = {
    "784-32-10, 8": ("fit", SMALL, 8, 0.0, 1),
    "784-32-10, 32": ("fit", SMALL, 32, 0.0, 1),
    "784-32-10, 128": ("fit", SMALL, 128, 0.0, 1),
    "784-32-10, 1024": ("fit", SMALL, 1024, 0.0, 1),
    "784-300-100-10, 8": ("fit", LENET, 8, 0.0, 1),
    "784-300-100-10, 128": ("fit", LENET, 128, 0.0, 1),
    "784-1000-10, 128": ("fit", WIDE, 128, 0.0, 1),
    "784-32-10, 90 % cut, 32": ("fit", SMALL, 32, 0.9, 1),
    "784-300-100-10, 50 % cut, 128": ("fit", LENET, 128, 0.5, 1),
    "784-300-100-10, 90 % cut, 128": ("fit", LENET, 128, 0.9, 1),
    "784-300-100-10, 98 % cut, 128": ("fit", LENET, 128, 0.98, 1),
    "784-300-100-10, 99 % cut, 128": ("fit", LENET, 128, 0.99, 1),
    "784-300-100-10, 90 % cut in blocks, 128": ("fit", LENET, 128, 0.9, 4),
    "784-300-100-10, 98 % cut in blocks, 128": ("fit", LENET, 128, 0.98, 4),
    "predict one image": ("predict", SMALL, 1, 0.0, 1),
    "predict 10,000 images": ("predict", SMALL, 10_000, 0.0, 1),
    "predict 10,000 images, 784-300-100-10": ("predict", LENET, 10_000, 0.0, 1),
    "predict 10,000 images, 98 % cut": ("predict", LENET, 10_000, 0.98, 1),
    "20,000 operations, value and gradient of 1,024": ("expression", (), 1024, 0.0, 1),
}
"""What is timed: the kind of work, hidden neurons, examples of a step or call, and the sparsity and blocks of a cut."""


# --- in the process of a checkout -------------------------------------------------------------------------------------


def prepared(
    kind: str, hidden: tuple[int, ...], batch: int, sparsity: float, block: int, epochs: int
) -> Callable[[], int]:
    """A function that does the work of a turn and returns how often it did it."""
    import numpy as np

    import mlgraph
    from mlgraph.datasets import load_mnist

    if kind == "expression":
        sys.path.insert(0, str(Path(__file__).parent))
        from bench_expressions import INPUTS, random_dag

        graph = mlgraph.Graph(seed=0)
        function = graph.compile(random_dag(graph.add_inputs(INPUTS), [mlgraph.tanh, mlgraph.sin, mlgraph.cos]))
        x = np.random.default_rng(1).normal(size=(batch, INPUTS)).astype(np.float32)
        function.vjp(x)
        return lambda: [function.vjp(x) for _ in range(3)].__len__()
    data = load_mnist()
    net = mlgraph.Network(784, seed=0)
    for n in hidden:
        net.add_layer(n, activation="leaky_relu")
    net.add_layer(10, activation="softmax")

    def fit(n: int, batch: int) -> None:
        net.fit(data.train_x, data.train_y, epochs=n, batch_size=batch, learning_rate=0.02, momentum=0.9)

    fit(1, 128)
    if sparsity:
        net.prune(sparsity, block=block)
        fit(1, 128)
    if kind == "fit":

        def turn() -> int:
            fit(epochs, batch)
            return epochs

        return turn
    if batch == 1:
        images = [data.test_x[i : i + 1] for i in range(2000)]
        return lambda: [net.predict(image) for image in images].__len__()
    return lambda: [net.predict(data.test_x) for _ in range(5)].__len__()


def work() -> None:
    """Read a row and a number of epochs from each line of the standard input, do the work, write its seconds."""
    turns: dict[str, Callable[[], int]] = {}
    for line in sys.stdin:
        row, epochs = json.loads(line)
        if row not in turns:
            turns[row] = prepared(*ROWS[row], epochs)
            turns[row]()
        begin = time.perf_counter()
        n = turns[row]()
        print((time.perf_counter() - begin) / n, flush=True)


# --- in the process that compares them --------------------------------------------------------------------------------


class Tree:
    """The process of one checkout."""

    def __init__(self, path: Path) -> None:
        folders = [str(path.resolve()), str(Path(__file__).parent.resolve())]
        code = f"import sys; sys.path[:0] = {folders}; import trees; trees.work()"
        self.name = path.resolve().name
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=path
        )

    def turn(self, row: str, epochs: int) -> float:
        assert self.process.stdin and self.process.stdout
        time.sleep(PAUSE)
        self.process.stdin.write(json.dumps([row, epochs]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{self.name}: its process ended at {row}; is the checkout built in place?")
        return float(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="+", type=Path, help="checkouts; the first is what the others are compared with")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=3, help="of each `fit`")
    parser.add_argument("--rows", default="", help="only rows that contain one of these texts, separated by semicolons")
    args = parser.parse_args()
    trees = [Tree(path) for path in args.trees]
    print(f"{'':47}{trees[0].name:>17}" + "".join(f"{tree.name:>17}" for tree in trees[1:]), flush=True)
    for row in ROWS:
        if not any(text in row for text in args.rows.split(";")):
            continue
        times: list[list[float]] = [[] for _ in trees]
        for round_ in range(args.rounds):
            for i in range(len(trees)):
                at = (i + round_) % len(trees)
                times[at].append(trees[at].turn(row, args.epochs))
        best, median = [1e3 * min(each) for each in times], [1e3 * statistics.median(each) for each in times]
        line = f"{row:47}{best[0]:8.4g} {median[0]:5.4g} ms"
        for i in range(1, len(trees)):
            line += f"{100 * (best[i] / best[0] - 1):+8.1f} {100 * (median[i] / median[0] - 1):+6.1f} %"
        print(line, flush=True)


if __name__ == "__main__":
    main()
