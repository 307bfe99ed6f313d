"""Draw the damped oscillator of docs/graphs.md: run the page's own code, and plot what it learnt.

python bench/oscillator.py --out bench/pictures/oscillator.png
python bench/oscillator.py --seeds 10      # the largest error for each seed of the network
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np

import mlgraph

PAGE = Path(__file__).parents[1] / "docs" / "graphs.md"
BLUE, RED, GREY = "#0072B2", "#D55E00", "#BBBBBB"


def run_page(seed: int = 0) -> dict[str, Any]:
    """The names that the page's code defines."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if "mlgraph.grad(" in block)
    names = {"mlgraph": mlgraph}
    exec(code.replace("Graph(seed=0)", f"Graph(seed={seed})").replace("< 0.01", "< 1"), names)
    return names


def draw(names: dict[str, Any], path: str) -> None:
    """Three panels over time: the motion, the error of the fit, and the residual of the equation."""
    from matplotlib.figure import Figure

    at, error = names["at"][:, 0], names["fit"] - names["exact"]
    residual = names["g"].compile(names["residual"])(names["at"])[:, 0]
    largest = np.abs(residual).max()
    figure = Figure(figsize=(9.6, 6), dpi=120, layout="constrained")
    motion, *below = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    motion.plot(at, names["exact"], color=GREY, linewidth=6, label="exact solution, not shown to the network")
    motion.plot(at, names["fit"], color=BLUE, linewidth=1.6, label="learnt by the network")
    n_times = len(names["times"])
    motion.plot(names["times"], np.full(n_times, -0.98), "|", color="#555555", label=f"the {n_times} training times")
    motion.set_title("A damped oscillator, learnt from x″ + 0.4 x′ + 4 x = 0, x(0) = 1, x′(0) = 0 alone", fontsize=11)
    motion.set(ylabel="position x", ylim=(-1.1, 1.1))
    motion.legend(frameon=False, fontsize=9)
    texts = (
        f"Error, learnt − exact: at most {np.abs(error).max():.4f}",
        f"Residual, x″ + 0.4 x′ + 4 x of the learnt motion, which training brings to 0: at most {largest:.3f}",
    )
    for axes, values, color, label, text in zip(
        below, (error, residual), (BLUE, RED), ("error", "residual"), texts, strict=True
    ):
        axes.plot(at, values, color=color, linewidth=1.2)
        axes.set_title(text, fontsize=9, loc="left")
        axes.set(ylabel=label, ylim=np.array([-1.2, 1.2]) * np.abs(values).max())
    below[-1].set(xlabel="time t", xlim=(at[0], at[-1]))
    for axes in (motion, *below):
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels()
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Draw the picture, or print errors."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", metavar="PNG", help="where to draw the picture")
    parser.add_argument("--seeds", type=int, default=0, help="number of seeds to print the largest error of")
    args = parser.parse_args()
    for seed in range(args.seeds):
        names = run_page(seed)
        print(f"seed {seed}: largest error {np.abs(names['fit'] - names['exact']).max():.4f}", flush=True)
    if args.out:
        draw(run_page(), args.out)


if __name__ == "__main__":
    main()
