"""Time epochs of MNIST by batch size, width and sparsity, for mlgraph and other libraries, and plot them.

    python bench/epochs.py --out bench/pictures/epochs.png --json epochs.json

The libraries take turns, so that other work on the machine affects them all. A turn is two epochs,
and the second counts: by then caches and threads are the library's own. mlgraph's turn is one `fit`
of ten epochs. Its first and its last epoch count, as separate lines: the first includes all that
`fit` does before its first step. The rivals' data conversion and compilation are not timed. Times
are wall clock, shuffling included. The picture shows the fastest turn, for other work can only add
time; the file has every time, and `--redraw` draws several runs, minutes apart, together.

The bound is the time that all multiply-adds of the dense epoch take at the peak of all threads,
measured in the same process. Sparse networks are trained for an epoch and cut to the largest
weights, one by one or in blocks of four neurons; the training after the cut is timed.
"""

import argparse
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
from rivals import ALL, Mlgraph

import mlgraph
from mlgraph.datasets import load_mnist

Sizes = tuple[int, ...]
Times = dict[str, list[float]]

BATCHES = (8, 32, 128, 512, 1024)
WIDTHS = (32, 100, 300, 1000)
SPARSITIES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
IN_BLOCKS = (0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
BATCH = 128
LENET = (784, 300, 100, 10)
SMALLEST_OF_SKLEARN = 32
"""Batch size below which scikit-learn's epoch would be the longest part of the whole run."""

PAUSE = 0.2
"""Seconds before a turn: threads of the library before, BLAS above all, keep spinning and would occupy a core."""

LATER, BLOCKS = "mlgraph, later epochs", "mlgraph, later epochs, cut in blocks of 4"
LABELS = {
    "mlgraph": "mlgraph, epoch 1",
    LATER: "mlgraph, later",
    BLOCKS: "later, in blocks",
    "jax": "JAX, jitted scan",
    "torch": "PyTorch, eager",
    "sklearn": "scikit-learn",
    "bound": "dense, at peak",
}
DENSE = {"jax": "JAX, dense", "torch": "PyTorch, dense", "dense": "mlgraph, dense"}

# Okabe and Ito's colours, which the colour-blind tell apart; markers for whoever sees none.
STYLES: dict[str, dict[str, Any]] = {
    "mlgraph": {"color": "#0072B2", "marker": "o", "linewidth": 2.2},
    LATER: {"color": "#0072B2", "marker": "o", "linewidth": 1.2, "markerfacecolor": "white"},
    BLOCKS: {"color": "#0072B2", "marker": "v", "linewidth": 1.2, "markerfacecolor": "white"},
    "jax": {"color": "#D55E00", "marker": "s"},
    "torch": {"color": "#009E73", "marker": "^"},
    "sklearn": {"color": "#AA4499", "marker": "D"},
    "bound": {"color": "#555555", "linestyle": (0, (4, 2))},
}
SIZE, DPI = (9.6, 4.8), 120
LINE_HEIGHT = 0.038  # of a panel

# --- timing -----------------------------------------------------------------------------------------------------------


class Turn:
    """One library at one point of a panel: a network of its own."""

    def __init__(self, who: str, sizes: Sizes, batch: int, data: Any, sparsity: float = 0.0, block: int = 1) -> None:
        self.who, self.batch, self.data = BLOCKS if block > 1 else who, batch, data
        self.rival = ALL[who](sizes, data.train_x, data.train_y)
        self.rounds, self.seconds = 0, {name: [] for name in ((who, LATER) if self.who == "mlgraph" else (self.who,))}
        self.rival.epoch(batch)
        if sparsity:
            self.rival.net.prune(sparsity, block=block)
        self.rival.epoch(batch)

    def __call__(self) -> float:
        """Seconds of this turn."""
        time.sleep(PAUSE)
        begin = time.perf_counter()
        if isinstance(self.rival, Mlgraph):
            times = self.rival.epochs(self.batch)
        else:
            self.rival.epoch(self.batch)
            between = time.perf_counter()
            self.rival.epoch(self.batch)
            times = (time.perf_counter() - between,)
        for series, value in zip(self.seconds.values(), times[-len(self.seconds) :], strict=True):
            series.append(value)
        return time.perf_counter() - begin

    def accuracy(self) -> float:
        return float((self.rival.predict(self.data.test_x) == self.data.test_y).mean())


def in_turns(turns: Iterable[Turn], budget: float, rounds: tuple[int, int]) -> None:
    """Let each take part in `rounds`, at least and at most, as `budget` seconds allow."""
    turns = list(turns)
    for round_ in range(rounds[1]):
        for turn in turns:
            if round_ == 0 or round_ < turn.rounds:
                spent = turn()
                turn.rounds = turn.rounds or min(rounds[1], max(rounds[0], round(budget / spent)))


def measure(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """All points, as what `draw` and tables.py read."""
    data = load_mnist()
    if quick:
        data = data._replace(train_x=data.train_x[:6400], train_y=data.train_y[:6400])
    limits: tuple[float, tuple[int, int]] = (0.0, (1, 1)) if quick else (4.0, (3, 7))
    threads, n = mlgraph.default_threads(), len(data.train_x)
    peak = machine.peak(threads)
    absent = [who for who in ALL if importlib.util.find_spec(who) is None]
    present = [who for who in ALL if who not in absent]
    points: list[dict[str, Any]] = []

    def group(turns: dict[tuple[str, float], list[Turn]], sizes: Sizes, batch: int) -> None:
        in_turns(itertools.chain(*turns.values()), *limits)
        for (panel, at), here in turns.items():
            scores = {turn.who: turn.accuracy() for turn in here}
            if min(scores.values()) < (0.3 if quick else 0.9):
                raise AssertionError(f"{panel} {at}: an epoch that does not learn is none, got accuracies {scores}")
            seconds: Times = {name: times for turn in here for name, times in turn.seconds.items()}
            points.append(
                {"panel": panel, "at": at, "sizes": sizes, "batch": batch, "seconds": seconds, "accuracy": scores}
            )
            fastest = (f"{LABELS[name]} {1e3 * min(times):.1f} ms" for name, times in seconds.items())
            say(f"{panel} {at:g}: {', '.join(fastest)}")

    pairs = [((784, 32, 10), batch) for batch in BATCHES] + [
        ((784, width, 10), BATCH) for width in WIDTHS if width != 32
    ]
    for sizes, batch in pairs:
        who = [who for who in present if who != "sklearn" or batch >= SMALLEST_OF_SKLEARN]
        panel, at = ("batch", batch) if sizes[1] == 32 else ("width", sizes[1])
        group({(panel, at): [Turn(one, sizes, batch, data) for one in who]}, sizes, batch)
    shared = next(point for point in points if point["panel"] == "batch" and point["at"] == BATCH)
    points.append(shared | {"panel": "width", "at": 32})
    turns = {("sparsity", s): [Turn("mlgraph", LENET, BATCH, data, s)] for s in SPARSITIES}
    for s in IN_BLOCKS:
        turns["sparsity", s].append(Turn("mlgraph", LENET, BATCH, data, s, block=4))
    turns["sparsity", 0.0] += [Turn(who, LENET, BATCH, data) for who in present if who in ("jax", "torch")]
    group(turns, LENET, BATCH)
    # At both ends of the run, because the machine may be busy at one of them.
    peak = max(peak, machine.peak(threads))
    for point in points:
        point["bound"] = machine.dense_flops(point["sizes"], n) / peak
    versions = {who: machine.version("scikit-learn" if who == "sklearn" else who) for who in present}
    return {
        "machine": machine.facts(),
        "peak": peak,
        "examples": n,
        "versions": versions,
        "absent": absent,
        "points": sorted(points, key=lambda point: (point["panel"], point["at"])),
    }


def together(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several runs of one commit on one machine, with the same rivals, merged into one with the turns of all."""
    results = runs[0]
    for run in runs[1:]:
        for fact in ("commit", "cpu", "isa", "threads"):
            if run["machine"][fact] != results["machine"][fact]:
                raise SystemExit(
                    f"expected runs of one {fact}, got {results['machine'][fact]} and {run['machine'][fact]}"
                )
        if run["versions"] != results["versions"]:
            raise SystemExit(f"expected runs beside the same rivals, got {results['versions']} and {run['versions']}")
        results["peak"] = max(results["peak"], run["peak"])
        for point, other in zip(results["points"], run["points"], strict=True):
            point["bound"] = min(point["bound"], other["bound"])
            for who, times in other["seconds"].items():
                point["seconds"][who] += times
    return results


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw(results: dict[str, Any], path: str) -> None:
    """Three panels with one axis of seconds; the lines are named at the right of the first and the last."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    batch, width, sparsity = figure.subplots(1, 3, sharey=True)
    _panel(batch, results, "batch", "784-32-10", "examples in a batch")
    _panel(width, results, "width", f"784-width-10, batch {BATCH}", "width of the hidden layer")
    _panel(sparsity, results, "sparsity", f"784-300-100-10, batch {BATCH}", "percent of the edges cut")
    batch.set_ylabel("seconds an epoch", fontsize=9)
    batch.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _names(batch, LABELS)
    _names(sparsity, LABELS | DENSE)
    facts, examples = results["machine"], "MNIST" if results["examples"] == 60_000 else f"{results['examples']} images"
    absent = f"; not installed: {', '.join(LABELS[who] for who in results['absent'])}" if results["absent"] else ""
    figure.suptitle(
        f"An epoch of {examples}, the fastest of the turns; {facts['cpu']}, {facts['isa']}, "
        f"threads: {facts['threads']}, peak {results['peak'] / 1e9:.0f} GFLOP/s{absent}",
        fontsize=9,
    )
    figure.savefig(path, metadata={"Software": None})


def _panel(axes: Any, results: dict[str, Any], panel: str, title: str, label: str) -> None:
    points = [point for point in results["points"] if point["panel"] == panel]
    at = [1 - point["at"] if panel == "sparsity" else point["at"] for point in points]
    ticks = [f"{100 * point['at']:.0f}" if panel == "sparsity" else f"{point['at']}" for point in points]
    axes.set(xscale="log", yscale="log")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(label, fontsize=9)
    axes.set_xticks(at, ticks, fontsize=7.5)
    axes.set_xticks([], minor=True)
    if panel == "sparsity":
        axes.invert_xaxis()
    axes.grid(which="major", color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    for who, style in STYLES.items():
        line = [
            (x, point["bound"] if who == "bound" else min(point["seconds"][who]))
            for x, point in zip(at, points, strict=True)
            if who == "bound" or who in point["seconds"]
        ]
        if panel == "sparsity" and line and who in (LATER, "jax", "torch"):
            # A mask makes no rival faster; and mlgraph's own dense epoch is what sparse ones are held against.
            axes.plot(
                at,
                [line[0][1]] * len(at),
                color=style["color"],
                linewidth=0.8 if who == LATER else 1.6,
                linestyle=":" if who == LATER else "-",
                label="dense" if who == LATER else who,
            )
        if line and not (panel == "sparsity" and who in ("jax", "torch")):
            axes.plot(*zip(*line, strict=True), **{"linewidth": 1.6, "markersize": 4.5, "label": who} | style)


def _names(axes: Any, labels: dict[str, str]) -> None:
    """Each line's name at its right end; those that come too near move apart."""
    bottom, top = np.log(axes.get_ylim())
    lines = sorted(axes.get_lines(), key=lambda line: line.get_ydata()[-1])
    heights = np.array([(np.log(line.get_ydata()[-1]) - bottom) / (top - bottom) for line in lines])
    for _ in range(200):
        near = np.maximum(0, LINE_HEIGHT - np.diff(heights)) / 2
        heights[:-1] -= near
        heights[1:] += near
    for line, height in zip(lines, heights.tolist(), strict=True):
        axes.text(
            1.03,
            height,
            labels[line.get_label()],
            color=line.get_color(),
            fontsize=8,
            va="center",
            transform=axes.transAxes,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="PNG", help="draw the picture here")
    parser.add_argument("--json", metavar="FILE", help="write every time here; tables.py reads it")
    parser.add_argument("--redraw", metavar="FILE", nargs="+", help="draw what --json wrote, time nothing")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the data, once: whether it works, not how fast it is"
    )
    args = parser.parse_args()
    if args.out:
        import matplotlib.figure  # noqa: F401  # not after five minutes, if there is none
    if args.redraw:
        results = together([json.loads(Path(path).read_text()) for path in args.redraw])
    else:
        results = measure(args.quick, lambda line: print(line, file=sys.stderr, flush=True))
        for who in results["absent"]:
            print(f"{LABELS[who]} is not installed: its line is left out", file=sys.stderr)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))
    if args.out:
        draw(results, args.out)


if __name__ == "__main__":
    main()
