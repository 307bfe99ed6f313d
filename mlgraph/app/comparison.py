"""The table and the picture of a sweep: accuracy, edges and times of many runs by sparsity."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from mlgraph.pictures.plotting import new_figure, save_figure

Run = dict[str, Any]  # a finished run as its file holds it: its recipe, and either its results or an error
Row = dict[str, Any]  # what runs of one sparsity have in common

GAP = 1 / 12  # minimum distance of two labels, as a fraction of the picture's horizontal axis


def compare(runs: list[Run]) -> Row:
    """Mean and standard deviation of runs that differ in their seed."""
    good = _good(runs)
    row: Row = {"sparsity": runs[0]["recipe"]["sparsity"], "runs": len(good), "failed": len(runs) - len(good)}
    for name in ("test_accuracy", "edges", "train_seconds"):
        values = [run[name] for run in good]
        row[name] = statistics.fmean(values) if values else None
        row[f"{name}_deviation"] = statistics.stdev(values) if len(values) > 1 else None
    return row


def _good(runs: list[Run]) -> list[Run]:
    return [run for run in runs if "error" not in run]


def as_markdown(rows: list[Row], runs: list[Run]) -> str:
    """Write rows as a table, which tells whether times are of runs by themselves."""
    threads = sorted({run["threads"] for run in runs})
    on = " or ".join(map(str, threads)) + (" thread" if threads == [1] else " threads")
    jobs = {run["jobs"] for run in runs}
    places = ["alone"] if 1 in jobs else []
    places += [f"up to {max(jobs)} at the same time"] if max(jobs) > 1 else []
    when = f"{' or '.join(places)}, on {on}"
    lines = [f"| edges cut | edges left | runs | test accuracy, % | seconds of a run, {when} |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        left = accuracy = seconds = ""
        if row["runs"]:
            left, accuracy = f"{row['edges']:,.0f}", f"{100 * row['test_accuracy']:.2f}"
            seconds = f"{row['train_seconds']:.2f}"
        if row["runs"] > 1:
            accuracy += f" ± {100 * row['test_accuracy_deviation']:.2f}"
        n_runs = f"{row['runs']}" + (f" ({row['failed']} failed)" if row["failed"] else "")
        lines.append(f"| {_percent(row)} | {left} | {n_runs} | {accuracy} | {seconds} |")
    builds = sorted({run["isa"] for run in runs})
    if len(builds) > 1:
        lines += ["", f"The runs used different instruction sets ({', '.join(builds)}), which round differently."]
    return "\n".join(lines)


def _percent(row: Row) -> str:
    return f"{100 * row['sparsity']:.6g} %"


def draw(rows: list[Row], runs: list[Run], title: str, path: Path) -> None:
    """Draw accuracies, and times if they are of runs by themselves, from all edges to few."""
    rows, runs = [row for row in rows if row["runs"]], _good(runs)
    alone = {run["jobs"] for run in runs} == {1}
    figure = new_figure((8.0, 6.3 if alone else 4.8), 120)
    heights = [3, 1] if alone else [1]
    panels: Any = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    left = [1 - row["sparsity"] for row in rows]
    means = [100 * row["test_accuracy"] for row in rows]
    spread = [100 * (row["test_accuracy_deviation"] or 0) for row in rows]
    places = [1 - run["recipe"]["sparsity"] for run in runs], [100 * run["test_accuracy"] for run in runs]
    panels[0].plot(*places, "o", color="tab:blue", alpha=0.4, markersize=5, label="one run")
    label = "mean ± standard deviation of the runs"
    panels[0].errorbar(left, means, spread, color="black", marker="o", markersize=3, capsize=4, label=label)
    labels = [""] * len(rows)
    last = math.inf
    for i, (x, mean) in enumerate(zip(left, means, strict=True)):
        if math.log(last / x) > GAP * math.log(left[0] / left[-1]):
            last, labels[i] = x, f"{_percent(rows[i])}\n{rows[i]['edges']:,.0f}"
            panels[0].annotate(f"{mean:.2f}", (x, mean), (6, 4), textcoords="offset points")
    panels[0].set_ylabel("test accuracy, %")
    panels[0].set_title(title, pad=24)  # the legend is between the title and the points, and covers neither
    panels[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, borderaxespad=0.2)
    if alone:
        seconds = [row["train_seconds"] for row in rows]
        panels[1].plot(left, seconds, "o-", color="tab:orange")
        panels[1].set(ylabel="training time\nof a run, s", ylim=(0, 1.2 * max(seconds, default=1)))
    if left:
        margin = max(left[0] / left[-1], 2) ** 0.1  # one sparsity also needs some width
        panels[-1].set_xlim(left[0] * margin, left[-1] / margin)
    panels[-1].set_xscale("log")
    panels[-1].set_xticks(left, labels)
    panels[-1].minorticks_off()
    panels[-1].set_xlabel("edges cut during the training, and number of edges left")
    for axes in panels:
        axes.grid(alpha=0.3)
    figure.tight_layout()
    save_figure(figure, path)
