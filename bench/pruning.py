"""Which edges to cut at once: test accuracy on MNIST by several criteria, as a table for docs/pruning.md.

    python bench/pruning.py                    # about two minutes on two cores
    python bench/pruning.py --seeds 1          # the first of five networks alone

Each network is trained for five epochs with the defaults of `fit`, and a copy of it is cut once for
each criterion and sparsity. The accuracy in percent is measured right after the cut and after two
further epochs: mean and standard deviation over the seeds. "Edges" are those left, on average, because
edges that no longer lie on a path to an output are cut, too. At the same number of edges, a
criterion by which many are lost so has an easier task than it seems.

``python -m mlgraph.mnist sweep --sparsity ...`` compares networks that are cut while they train.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

import mlgraph
from mlgraph.datasets import Dataset, load_mnist

NETWORKS = {"784-32-10": (32,), "784-300-100-10": (300, 100)}
CRITERIA = ("magnitude", "path", "saliency")
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # many of the kept edges may lie on no path
    at_once(load_mnist(), range(args.seeds))


def accuracy(net: mlgraph.Network, mnist: Dataset) -> float:
    """Percent of the test images that are recognised."""
    return 100 * net.evaluate(mnist.test_x, mnist.test_y, n_threads=2)["accuracy"]


def spread(values: npt.ArrayLike) -> str:
    """Mean and standard deviation."""
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def at_once(mnist: Dataset, seeds: Iterable[int]) -> None:
    """One row for each network, sparsity and criterion."""
    some = mnist.train_x[:4096], mnist.train_y[:4096]

    def train(net: mlgraph.Network, epochs: int, seed: int) -> None:
        net.fit(mnist.train_x, mnist.train_y, epochs=epochs, seed=seed, n_threads=2)

    print("| network | sparsity | by | edges | right after the cut | two epochs later |")
    print("|---|---|---|---|---|---|")
    for name, sizes in NETWORKS.items():
        dense, found = [], {}
        for seed in seeds:
            trained = mlgraph.Network(784, seed=seed)
            for size in sizes:
                trained.add_layer(size)
            trained.add_layer(10, "softmax")
            train(trained, 5, seed)
            dense.append(accuracy(trained, mnist))
            for sparsity in SPARSITIES:
                for by in CRITERIA:
                    net = copy.deepcopy(trained)
                    net.prune(sparsity, by=by, data=some if by == "saliency" else None)
                    row = [net.n_edges, accuracy(net, mnist)]
                    train(net, 2, seed)
                    found.setdefault((sparsity, by), []).append([*row, accuracy(net, mnist)])
        print(f"| {name} | 0 | | {trained.n_edges:,} | {spread(dense)} | |")
        for (sparsity, by), rows in found.items():
            edges, *scores = zip(*rows, strict=True)
            texts = " | ".join(map(spread, scores))
            print(f"| {name} | {sparsity:.0%} | {by} | {np.mean(edges):,.0f} | {texts} |", flush=True)


if __name__ == "__main__":
    main()
