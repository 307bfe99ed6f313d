"""Each kernel's share of the multiply-add peak, for each build that this processor runs; draws it and prints a table.

    python bench/roofline.py --out bench/pictures/roofline.png

Each build is measured in its own process, on one core, against the peak of its own instruction set
in that same process: this compares how good the kernels are, whatever the chip. Processes of all
builds take turns, and the fastest counts. Only useful operations count: not a multiply-add with a
zero that is skipped. The kernels are those of bench_kernels.py.

The roof is flat: 4 bytes of weight from memory serve all examples of a step, 32 or more and 64
operations (a fifth of that where data are skipped), so that memory bandwidth bounds no kernel but
`few_forward`, whose weights serve 8 examples, where these do not fit into the caches. The sparse
kernels wait for loads from the caches.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

import machine
from bench_kernels import KERNELS, repeats

import mlgraph_ext

COLORS = {"baseline": "#555555", "v2": "#E69F00", "v3": "#56B4E9", "v4": "#0072B2"}
NAMES = {"baseline": "baseline", "v2": "v2 (SSE4.2)", "v3": "v3 (AVX2)", "v4": "v4 (AVX-512)"}

Rates = dict[str, float]
"""Operations per second, by kernel, and of the peak."""

ROUNDS = 9
"""How often a process runs a kernel; the fastest counts."""


def measure() -> Rates:
    """What each kernel does in this process, and the peak."""
    rates = {"peak": machine.peak()}
    for kernel, fan_in, count, tiles, density in KERNELS:
        arguments = kernel, fan_in, count, tiles, repeats(fan_in, count, tiles, density), density
        runs = (mlgraph_ext.sweep.time_kernel(*arguments) for _ in range(ROUNDS))
        rates[name(kernel, fan_in, count, density)] = max(flops / seconds for flops, seconds in runs)
    return rates


def name(kernel: str, fan_in: int, count: int, density: float) -> str:
    return f"{kernel} {fan_in}×{count}" + (f", {density:.0%}" if density < 1 else "")


def measure_builds(rounds: int) -> dict[str, Rates]:
    """The rates of each build, the best of `rounds` processes."""
    results: dict[str, Rates] = {}
    for _ in range(rounds):
        for isa in mlgraph_ext.AVAILABLE:
            done = subprocess.run(
                [sys.executable, __file__, "--measure"],
                env=os.environ | {"MLGRAPH_ISA": isa},
                stdout=subprocess.PIPE,
                check=True,
            )
            rates: Rates = json.loads(done.stdout)
            results[isa] = {what: max(rate, results.get(isa, rates)[what]) for what, rate in rates.items()}
    return results


def table(results: dict[str, Rates]) -> str:
    """In Markdown."""
    lines = ["| kernel, fan-in × neurons, share that is not zero |" + "".join(f" {NAMES[isa]} |" for isa in results)]
    lines.append("|---" * (1 + len(results)) + "|")
    for what in next(iter(results.values())):
        cells = [
            f"{rates[what] / 1e9:.0f} GFLOP/s" if what == "peak" else f"{rates[what] / rates['peak']:.0%}"
            for rates in results.values()
        ]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: dict[str, Rates], path: str) -> None:
    """Bars from nothing to the peak, a group for each kernel."""
    from matplotlib.figure import Figure

    kernels = [what for what in next(iter(results.values())) if what != "peak"]
    figure = Figure(figsize=(9.6, 0.9 + 0.42 * len(kernels)), dpi=120, layout="constrained")
    axes: Any = figure.subplots()
    height = 0.8 / len(results)
    for i, (isa, rates) in enumerate(results.items()):
        at = [k + height * (i - (len(results) - 1) / 2) for k in range(len(kernels))]
        share = [100 * rates[kernel] / rates["peak"] for kernel in kernels]
        label = f"{NAMES[isa]}, peak {rates['peak'] / 1e9:.0f}"
        axes.barh(at, share, height * 0.92, color=COLORS[isa], label=label)
        for y, kernel, percent in zip(at, kernels, share, strict=True):
            axes.text(percent + 0.6, y, f"{rates[kernel] / 1e9:.0f}", va="center", fontsize=6.5, color="#333333")
    axes.axvline(100, color="#555555", linestyle=(0, (4, 2)))
    axes.set_yticks(range(len(kernels)), kernels, fontsize=8)
    axes.set(ylim=(len(kernels) - 0.5, -0.5), xlim=(0, 108), xticks=range(0, 101, 20))
    axes.set_xlabel(
        "percent of the multiply-add peak of the same instruction set, one core; numbers: GFLOP/s", fontsize=9
    )
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.set_title(f"Kernels on one core of {machine.cpu()}", fontsize=9, pad=24)
    axes.legend(
        handles, labels, fontsize=8, frameon=False, ncols=len(results), loc="lower center", bbox_to_anchor=(0.45, 1.0)
    )
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="PNG", help="draw the picture here")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each build (default: %(default)s)")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # in a process of one build
    args = parser.parse_args()
    if args.measure:
        json.dump(measure(), sys.stdout)
        return
    results = measure_builds(args.rounds)
    print(table(results))
    if args.out:
        draw(results, args.out)


if __name__ == "__main__":
    main()
