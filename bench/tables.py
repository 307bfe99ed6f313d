"""Prints what the benchmarks wrote as tables in Markdown, for docs/benchmarks.md.

    python -m pytest bench --benchmark-json bench.json
    python bench/epochs.py --json epochs.json
    python bench/tables.py bench.json epochs.json

Each table names its machine, its commit and the times that it shows: for epochs.py the fastest
turn, and for pytest-benchmark the fastest, too, or with `--median` the median. Given several files
of pytest-benchmark, the fastest run of each benchmark counts, so that a shared machine may be busy
during one of them. Files of several builds give kernels one column per build; all else is of the
first build.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from epochs import BLOCKS, LATER, together

Bench = dict[str, Any]

WHO = {"mlgraph": "mlgraph", "jax": "JAX, jitted scan", "torch": "PyTorch, eager", "sklearn": "scikit-learn"}


class Results:
    """The benchmarks of some files, all of one commit on one processor, by name."""

    def __init__(self, files: Sequence[dict[str, Any]], statistic: str) -> None:
        self.statistic = statistic
        every = [bench for file in files for bench in file["benchmarks"]]
        sources = {(bench["extra_info"]["commit"], bench["extra_info"]["cpu"]) for bench in every}
        if len(sources) > 1:
            raise SystemExit(f"expected benchmarks of one commit on one processor, got {sorted(sources)}")
        fastest: dict[tuple[str, Any], Bench] = {}
        for bench in every:
            key = bench["name"], bench["extra_info"].get("isa")
            if key not in fastest or self.seconds(bench) < self.seconds(fastest[key]):
                fastest[key] = bench
        self.all = list(fastest.values())

    def of(self, function: str, **params: Any) -> Bench | None:
        """The first benchmark of this function with these parameters."""
        for bench in self.every(function):
            if all((bench["params"] or {}).get(name) == value for name, value in params.items()):
                return bench
        return None

    def every(self, function: str) -> list[Bench]:
        return [bench for bench in self.all if bench["name"].partition("[")[0] == function]

    def seconds(self, bench: Bench | None) -> Any:
        """None for no benchmark."""
        return bench["stats"][self.statistic] if bench else None


def time(seconds: float | None) -> str:
    """Three digits and a unit; nothing for nothing."""
    if seconds is None:
        return ""
    unit, size = next(
        ((unit, size) for unit, size in (("s", 1.0), ("ms", 1e-3)) if seconds >= 0.9995 * size), ("µs", 1e-6)
    )
    return f"{seconds / size:#.3g}".rstrip(".") + f" {unit}"


NOTES: dict[str, Callable[[Any], str]] = {
    "nodes": "{:,} nodes".format,
    "edges": "{:,} edges".format,
    "accuracy": "accuracy {:.2%}".format,
    "bytes_per_edge": "{} bytes an edge".format,
    "later_epoch_seconds": lambda seconds: f"later epoch {time(seconds)}",
    "step_seconds": lambda seconds: f"step {time(seconds)}",
    "share_of_peak": "{:.0%} of the peak of all threads".format,
    "microseconds_a_node": "{} µs a node".format,
    "milliseconds_beside_numpy": "{} ms after numpy".format,
    "slow_share": "{} of moments slow".format,
    "line_ns": "{} ns a cache line from core to core".format,
    "bytes_of_object": "{:,} bytes of object file".format,
}


def notes(bench: Bench) -> str:
    """What a benchmark says beside its time."""
    return ", ".join(text(bench["extra_info"][name]) for name, text in NOTES.items() if name in bench["extra_info"])


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([row(*head), "|---" * len(head) + "|", *(row(*cells) for cells in rows)])


def side_by_side(label: str, times: Sequence[float | None], *rest: str) -> list[str]:
    """A row of a table of rivals; the fastest is set in bold."""
    best = min(value for value in times if value is not None)
    return [label, *(f"**{time(value)}**" if value == best else time(value) for value in times), *rest]


def network(sizes: Sequence[int]) -> str:
    return "-".join(map(str, sizes))


# --- one function for each table; None where its benchmarks are missing ---


def turns(epochs: dict[str, Any]) -> str:
    """Of epochs.py: all that is dense with the rivals, and what is left of an epoch when edges are cut."""
    rivals = [who for who in WHO if who in epochs["versions"] and who != "mlgraph"]
    dense: dict[str, list[str]] = {}  # a point that stands in two panels is one row
    cut: list[list[str]] = []
    base = 0.0
    for point in epochs["points"]:
        fastest = {who: min(times) for who, times in point["seconds"].items()}
        first, later = fastest["mlgraph"], fastest[LATER]
        if point["panel"] == "sparsity":
            base = base or later
            blocks = fastest.get(BLOCKS)
            cut.append(
                [
                    f"{point['at']:.0%}",
                    time(first),
                    time(later),
                    f"{base / later:.2f}",
                    time(blocks),
                    f"{base / blocks:.2f}" if blocks else "",
                ]
            )
        if point["at"] == 0 or point["panel"] != "sparsity":
            cells = side_by_side(
                f"{network(point['sizes'])}, {point['batch']}", [first, later, *map(fastest.get, rivals)]
            )
            for i, who in enumerate(rivals, 3):
                cells[i] += f" ({fastest[who] / first:.1f}, {fastest[who] / later:.1f})" if who in fastest else ""
            dense[cells[0]] = [*cells, time(point["bound"]), f"{point['bound'] / later:.0%}"]
    versions = "".join(f", {who} {version}" for who, version in epochs["versions"].items() if who != "mlgraph")
    head = [
        "network, batch",
        "mlgraph, first epoch of a `fit`",
        "later epochs",
        *(WHO[who] for who in rivals),
        "every multiply-add at peak",
        "as a share of later epochs",
    ]
    cut_head = [
        "784-300-100-10, 128: edges cut",
        "first epoch of a `fit`",
        "later epochs",
        "times as fast as dense",
        "later, cut in blocks of 4",
        "times as fast",
    ]
    return (
        f"### Epochs in turns\n\nFastest of the turns; {epochs['examples']:,} examples; {machine(epochs['machine'])}, "
        f"peak of all threads {epochs['peak'] / 1e9:.0f} GFLOP/s{versions}. In brackets: how many times as long as "
        f"mlgraph's first epoch and its later ones.\n\n{table(head, [*dense.values()])}\n\n" + table(cut_head, cut)
    )


def machine(facts: dict[str, Any]) -> str:
    return f"{facts['cpu']} ({facts['isa']}), threads: {facts['threads']}, commit {facts['commit']}"


def epochs_one_by_one(results: Results) -> str | None:
    rows = []
    for bench in results.every("bench_epoch"):
        sizes, batch = bench["params"]["sizes"], bench["params"]["batch"]
        if bench["params"]["who"] == "mlgraph":
            times = [results.seconds(results.of("bench_epoch", sizes=sizes, batch=batch, who=who)) for who in WHO]
            rows.append(side_by_side(f"{network(sizes)}, {batch}", times, time(bench["extra_info"]["bound_seconds"])))
    return table(["network, batch", *WHO.values(), "every multiply-add at peak"], rows) if rows else None


def short_epochs(results: Results) -> str | None:
    times = [results.seconds(results.of("bench_short_epochs", who=who)) for who in WHO]
    rows = [side_by_side("200 epochs of 150 examples, batch 15", times)] if any(times) else []
    return table(["4-16-3", *WHO.values()], rows) if rows else None


def predictions(results: Results) -> str | None:
    rows = []
    for n in 1, 10_000:
        times = [results.seconds(results.of("bench_predict", n=n, who=who)) for who in WHO]
        if any(times):
            rows.append(side_by_side(f"predict {n:,} image{'s' * (n > 1)}", times))
    return table(["784-32-10", *WHO.values()], rows) if rows else None


def expressions(results: Results) -> str | None:
    rows = []
    for function, ours, rival, what in (
        ("bench_small", "mlgraph", "casadi", "micrograd's example, one call"),
        ("bench_small", "mlgraph", "micrograd", "micrograd's example, one call"),
        ("bench_random_dag", "Ours", "CasADi", "20,000 random operations, 1024 examples"),
        ("bench_one_example", "mlgraph", "micrograd", "784-32-10, one example"),
    ):
        # A class as a parameter has only its name, in the brackets of the benchmark's.
        found = {
            bench["name"].partition("[")[2].rstrip("]"): results.seconds(bench) for bench in results.every(function)
        }
        if ours in found:
            times = [found[ours], found.get(rival)]
            longer = times[1] / times[0] if times[1] else 0
            rows.append(
                [*side_by_side(what, times), f"{rival}, {longer:.{0 if longer >= 10 else 1}f} times" if longer else ""]
            )
    return (
        table(["value and gradient of", "mlgraph", "rival", "who, and how many times as long"], rows) if rows else None
    )


def compared(function: str, head: str, first: str, base_name: str = "") -> Callable[[Results], str | None]:
    """Tabulate the runs of a benchmark with their notes, relative to the one called `first` (in print `base_name`)."""

    def made(results: Results) -> str | None:
        benches = results.every(function)
        base = next((results.seconds(bench) for bench in benches if bench["param"] == first), None)
        rows = []
        for bench in benches:
            seconds = results.seconds(bench)
            rows.append([bench["param"], time(seconds), f"{seconds / base:.2f}" if base else "", notes(bench)])
        return table([head, "time", f"times {base_name or first}", ""], rows) if rows else None

    return made


def alone(results: Results) -> str | None:
    """Benchmarks that have no rival."""
    rows = []
    for function, what in (
        ("bench_ablation", "ablation of all 32 neurons of 784-32-10, 10,000 images"),
        ("bench_without_zeros", "two epochs of images without zeros, hidden layers"),
        ("bench_as_c", "10,000 images by the C of 784-32-10, sparsity"),
        ("bench_step", "one step of 128 through `fit`"),
        ("bench_compile", "compile"),
        ("bench_edit", "cut a neuron and compile"),
        ("bench_child", "copy a model of 7 neurons, edit it three times, evaluate 64 examples"),
        ("bench_large_build", "build and compile 784-4096-4096-10"),
        ("bench_large_steps", "16 steps of 128 of it through `fit`, by"),
        ("bench_large", "compile a large graph"),
        ("bench_build", "784-32-10 written in scalars"),
        ("bench_written_network", "epoch of 784-32-10, batch 128, as"),
        ("bench_import", "`python -c 'import mlgraph; mlgraph.Network'`"),
    ):
        for bench in results.every(function):
            label = f"{what} {bench['param']}" if bench["param"] else what
            rows.append([label, time(results.seconds(bench)), notes(bench)])
    return table(["what", "time", ""], rows) if rows else None


def kernels(results: Results) -> str | None:
    benches = results.every("bench_kernel")
    builds = list(dict.fromkeys(bench["extra_info"]["isa"] for bench in benches))
    cells: dict[str, dict[str, str]] = {}
    for bench in benches:
        params, noted = bench["params"], bench["extra_info"]
        dense = "" if params["density"] == 1 else f", {params['density']:.0%}"
        name = f"{params['kernel']} {params['fan_in']}×{params['count']}{dense}"
        cells.setdefault(name, {})[noted["isa"]] = f"{noted['gflops']} GFLOP/s, {noted['share_of_peak']:.0%}"
    rows = [[name, *(shares.get(isa, "") for isa in builds)] for name, shares in cells.items()]
    peaks = {bench["extra_info"]["isa"]: bench["extra_info"]["peak_gflops_per_core"] for bench in benches}
    return table(["kernel", *(f"{isa}, peak {peaks[isa]}" for isa in builds)], rows) if rows else None


TABLES: dict[str, Callable[[Results], str | None]] = {
    "Epochs, one benchmark after the other": epochs_one_by_one,
    "Short epochs": short_epochs,
    "Prediction": predictions,
    "Expressions": expressions,
    "Epochs of 784-300-100-10, pruned": compared("bench_pruned", "sparsity", "0", "dense"),
    "2 epochs of 784-300-100-10 without zeros, pruned": compared(
        "bench_pruned_without_zeros", "sparsity", "0", "dense"
    ),
    "10,000 images by 784-300-100-10, pruned": compared("bench_predict_pruned", "sparsity", "0", "dense"),
    "12,800 images in batches of 8 by 784-300-100-10, pruned": compared(
        "bench_pruned_at_batch_8", "sparsity", "0", "dense"
    ),
    "3 epochs of 784-32-10 to 90 % sparse": compared("bench_sparsify", "schedule", "dense"),
    "Epoch of 784-300-100-10 by optimizer": compared("bench_optimizer", "two epochs with", "sgd"),
    "Epoch of 784-300-100-10 with something frozen": compared("bench_frozen", "two epochs with frozen", "nothing"),
    "Default run by threads": compared("bench_threads", "threads", "1", "one"),
    "Epoch of 784-32-10 with dropout": compared("bench_dropout", "dropped", "none"),
    "The rest": alone,
    "Kernels, share of one core's peak": kernels,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="RESULTS.json", help="of pytest-benchmark or of epochs.py")
    parser.add_argument("--median", action="store_true", help="the median of pytest-benchmark's times, not the fastest")
    args = parser.parse_args()
    files = [json.loads(Path(path).read_text()) for path in args.files]
    in_turns = [file for file in files if "points" in file]
    if in_turns:
        print(turns(together(in_turns)), end="\n\n")
    results = Results([file for file in files if "benchmarks" in file], "median" if args.median else "min")
    for title, make in TABLES.items():
        text = make(results)
        if text:
            facts = results.all[0]["extra_info"]
            print(f"### {title}\n\n{'Median' if args.median else 'Fastest'}; {machine(facts)}.\n\n{text}\n")


if __name__ == "__main__":
    main()
