"""Evolve networks for the wines of docs/neuroevolution.md by the page's own code: a table, and the winner's picture.

python bench/neuroevolution.py --out docs/neuroevolution.svg
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

PAGE = Path(__file__).parents[1] / "docs" / "neuroevolution.md"
TRAINING = re.compile(r"^ +(population\.fit|exchange\.update_genome)\(.*\n", re.MULTILINE)
CHECKS = re.compile(r"^(accuracy =|assert|print\().*\n", re.MULTILINE)


def run_page(seed: int, generations: int = 10, train: bool = True, until: str | None = None) -> dict[str, Any]:
    """The names that the page's code defines, with another seed and number of generations.

    `seconds` is the time of the evolution. Only the code before `until` runs, if that is given.
    """
    code = "".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    code = code.replace("random_state=0", f"random_state={seed}").replace("seed=0, gen", f"seed={seed}, gen")
    code = CHECKS.sub("", code)
    code = code.replace("generations=10", f"generations={generations}")
    before, evolution, after = (code if train else TRAINING.sub("", code)).partition("winner = evolved(")
    names: dict[str, Any] = {}
    exec(before.partition(until)[0] if until else before, names)
    begin = time.perf_counter()
    if not until:
        exec(evolution + after, names)
    return {**names, "seconds": time.perf_counter() - begin}


def evolve(seed: int, generations: int, train: bool, out: Path | None = None) -> tuple[float, ...]:
    """Accuracy, edges, inputs and seconds of an evolution; its winner is drawn to `out`."""
    names = run_page(seed, generations, train)
    winner = names["winner"]
    if out is not None:
        winner.draw().save(out)
    accuracy = winner.evaluate(names["test_x"], names["test_y"])["accuracy"]
    return accuracy, winner.n_edges, sum(node.alive for node in winner.graph.inputs), names["seconds"]


def fit(seed: int, estimator: Any) -> tuple[float, ...]:
    """The same of an estimator of scikit-learn."""
    names, begin = run_page(seed, until='Path("neat.ini")'), time.perf_counter()
    estimator.fit(names["x"], names["y"])
    seconds = time.perf_counter() - begin
    weights = estimator.coefs_ if hasattr(estimator, "coefs_") else [estimator.coef_]
    accuracy = estimator.score(names["test_x"], names["test_y"])
    return accuracy, sum(array.size for array in weights), names["x"].shape[1], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="picture of the first winner")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    out = options.out and options.out.resolve()
    rivals: dict[str, Callable[[int], tuple[float, ...]]] = {
        "evolution, 10 generations": lambda seed: evolve(seed, 10, False),
        "evolution and backpropagation, 10 generations": lambda seed: evolve(seed, 10, True),
        "evolution, 30 generations": lambda seed: evolve(seed, 30, False),
        "evolution and backpropagation, 30 generations": lambda seed: evolve(seed, 30, True, None if seed else out),
        "scikit-learn's LogisticRegression()": lambda seed: fit(seed, LogisticRegression()),
        "scikit-learn's MLPClassifier(8)": lambda seed: fit(seed, MLPClassifier(8, max_iter=2000, random_state=seed)),
    }
    print(machine.facts())
    print("| | test accuracy, % | edges | inputs in use | seconds |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the page writes files
        for name, run in rivals.items():
            rows = np.array([run(seed) for seed in range(options.seeds)])
            accuracy, (edges, inputs, seconds) = 100 * rows[:, 0], rows[:, 1:].mean(axis=0)
            cells = f"{accuracy.mean():.1f} ± {accuracy.std():.1f}", f"{edges:.1f}", f"{inputs:.1f}", f"{seconds:.3g}"
            print(f"| {name} |", " | ".join(cells), "|", flush=True)
        os.chdir(PAGE.parent)  # the folder goes


if __name__ == "__main__":
    main()
