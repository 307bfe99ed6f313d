"""``python -m mlgraph.mnist sweep``: train a network for each seed and sparsity, and compare them."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import logging
import os
import signal
import socket
import statistics
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlgraph
from mlgraph._support.atomic_files import write_atomically
from mlgraph._support.interrupts import uninterrupted
from mlgraph.app.arguments import FRACTIONS, SEEDS, THREADS, Failure, one_of
from mlgraph.app.common import (
    FAILED,
    INTERRUPTED,
    OK,
    add_common_options,
    check_output,
    complain,
    count,
    describe,
    finite,
    load_data,
)
from mlgraph.app.display import Display
from mlgraph.app.learning import check_decay, check_options
from mlgraph.app.recipe import OPTIONS, PRESETS, Recipe, add_recipe_options, as_text, begun_with, given_of
from mlgraph.datasets import DataError, Dataset, load_mnist
from mlgraph.pictures.plotting import new_figure, save_figure

RUNS, TABLE, PICTURE = "runs", "table.md", "sweep.png"  # in the output folder

BACKENDS = {"loky": "joblib", "threading": "joblib", "dask": "distributed", "ray": "ray"}
"""For each backend of joblib, the module that it needs."""

PACKAGES = {"joblib": "'mlgraph[app]'", "distributed": "'dask[distributed]'", "ray": "ray"}
"""What to install for a module."""

TIMEOUT = 10  # seconds to wait for a cluster

OTHER_OUT = "choose another folder by --out"

Run = dict[str, Any]  # a finished run as its file holds it: its recipe, and either its results or an error
Key = tuple[int, float]  # seed and sparsity
Task = tuple[Recipe, str | None, str, int]  # arguments of `_train`


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    runs = parser.add_argument_group("runs")
    runs.add_argument(
        "--seeds",
        type=SEEDS,
        default=(0, 1, 2, 3, 4),
        metavar="LIST",
        help="seeds, such as 0-9 or 0,4-6 (default: 0-4)",
    )
    runs.add_argument(
        "--sparsity",
        dest="sparsities",
        type=FRACTIONS,
        default=(0.0,),
        metavar="LIST",
        help="fractions of the edges to cut during the training, such as 0,0.9,0.98 (default: 0)",
    )
    runs.add_argument(
        "--jobs", type=THREADS, metavar="N", help="runs at the same time (default: one for each available processor)"
    )
    runs.add_argument(
        "--backend",
        type=one_of(*BACKENDS),
        default="loky",
        metavar="NAME",
        help="where joblib runs them: loky (processes), threading, or a cluster of dask or ray (default: %(default)s)",
    )
    runs.add_argument(
        "--address",
        metavar="ADDRESS",
        help="of the cluster, for dask such as tcp://HOST:8786, for ray such as HOST:6379",
    )
    recipe = parser.add_argument_group("network and training")
    recipe.add_argument(
        "--preset",
        type=one_of(*PRESETS),
        default="default",
        metavar="NAME",
        help=f"set of defaults for the options below: {', '.join(PRESETS)}",
    )
    add_recipe_options(recipe, PRESETS["default"], [name for name in OPTIONS if name not in ("seed", "sparsity")])
    output = parser.add_argument_group("data and output")
    add_common_options(output, threads="1 for each run")
    output.add_argument(
        "--out",
        metavar="DIR",
        default="mnist-sweep",
        help=f"folder for {TABLE}, {PICTURE} and a file for each run; the same command goes on with the runs that are "
        "missing there (default: %(default)s)",
    )
    output.add_argument("--no-plot", action="store_true", help=f"do not draw {PICTURE}")
    output.add_argument("--quiet", action="store_true", help="print nothing except errors and the line of --json")


def run(args: argparse.Namespace) -> int:
    """Train the networks that the folder lacks, write the table and the picture, and return the exit status."""
    given = given_of(args)

    def recipe_of(seed: int, sparsity: float) -> Recipe:
        return begun_with(args.preset, {**given, "seed": seed, "sparsity": sparsity})

    if not args.out:
        raise Failure("argument --out: expected a folder, got ''")
    check_options(given, recipe_of(0, args.sparsities[-1]))
    data = load_data(args.data)
    nets = [_checked(recipe_of(args.seeds[0], sparsity), data) for sparsity in args.sparsities]
    digest = _digest(data)
    keys = [(seed, sparsity) for seed in args.seeds for sparsity in args.sparsities]
    runs = _finished(Path(args.out), lambda *key: {**asdict(recipe_of(*key)), "data": digest})
    missing = [recipe_of(*key) for key in keys if key not in runs]
    title = f"{describe(nets[0])}, {count(recipe_of(*keys[0]).epochs, 'epoch')}"
    display = Display(quiet=args.quiet)
    done = f"{title}: {len(keys) - len(missing)} of {count(len(keys), 'run')} are in {args.out} already"
    if not missing:
        display.say(done)
    else:
        folder = None if args.data is None else os.path.abspath(args.data)
        tasks = [(recipe, folder, digest, args.threads or 1) for recipe in missing]
        try:
            _train_all(args, tasks, runs, display, done if len(missing) < len(keys) else title)
        except KeyboardInterrupt:
            complain(f"interrupted; {_progress(keys, runs)}")
            return INTERRUPTED
        except Failure as failure:
            if failure.status != FAILED:  # incorrect usage: nothing has begun
                raise
            raise Failure(f"{failure}; {_progress(keys, runs)}", FAILED) from failure
    return _report(args, title, [runs[key] for key in keys], display)


def _checked(recipe: Recipe, data: Dataset) -> mlgraph.Network:
    """Create the untrained network of a recipe, or raise a `Failure` if it cannot be trained so."""
    check_decay(recipe)
    net = recipe.network(data.train_x.shape[1], data.n_classes)
    schedule = recipe.schedule(net.sparsity)
    try:
        if schedule:
            schedule.check(net)
    except ValueError as error:
        raise Failure(f"argument --{error}") from None
    return net


def _digest(data: Dataset) -> str:
    """Hash a data set."""
    digest = hashlib.sha256(repr(data.image_shape).encode())
    for array in (data.train_x, data.train_y, data.test_x, data.test_y):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _finished(out: Path, expected: Callable[[int, float], dict[str, Any]]) -> dict[Key, Run]:
    """Read the finished runs in a folder; raise a `Failure` if one was not trained by the `expected` recipe."""
    runs = {}
    for path in sorted((out / RUNS).glob("*.json")):
        try:
            run = json.loads(path.read_bytes())
            recipe = run["recipe"]
            key = recipe["seed"], recipe["sparsity"]
            wanted = json.loads(json.dumps(expected(*key)))
            if "error" not in run:
                _line(run)
        except (ValueError, KeyError, TypeError):
            raise Failure(f"argument --out: {path} is damaged or not a run; remove it to train it again") from None
        for name in (name for name in wanted if recipe.get(name) != wanted[name]):
            if name in OPTIONS:
                was, now = as_text(name, recipe.get(name)), as_text(name, wanted[name])
                raise Failure(
                    f"argument --{name.replace('_', '-')}: {path} was trained with {was}, not {now}; {OTHER_OUT}"
                )
            raise Failure(f"argument --{'data' if name == 'data' else 'preset'}: {path} had another; {OTHER_OUT}")
        runs[key] = run
    return runs


def _progress(keys: list[Key], runs: dict[Key, Run]) -> str:
    n_done = sum(key in runs for key in keys)
    return f"{n_done} of {count(len(keys), 'run')} are saved, and the same command goes on from there"


def _train_all(args: argparse.Namespace, tasks: list[Task], runs: dict[Key, Run], display: Display, title: str) -> None:
    """Train networks by joblib, and write each to the folder, and to `runs`, as soon as it has finished."""
    with _backend(args.backend, args.address) as n_processors:
        out = _prepare_folder(args.out)
        jobs = min(args.jobs or n_processors, len(tasks), n_processors if args.address else len(tasks))
        threads = tasks[0][-1]
        display.say(title)
        display.say(
            f"{count(len(tasks), 'run')} to train, {jobs} at a time ({args.backend}), {count(threads, 'thread')} each"
        )
        if args.address and n_processors == 1:
            display.note(f"the cluster at {args.address} has one processor: joblib uses this machine instead")
        display.open_bar(len(tasks), "runs")
        try:
            # On a cluster, joblib would compute a single job on this machine; `pre_dispatch` limits those under way.
            n_jobs = min(n_processors, max(2, jobs)) if args.address else jobs
            for run in _results(n_jobs, jobs, tasks):
                run |= {"jobs": jobs, "threads": threads}
                key = run["recipe"]["seed"], run["recipe"]["sparsity"]
                with uninterrupted():
                    _write(out / RUNS / f"seed-{key[0]}-sparsity-{key[1]}.json", json.dumps(run, indent=1))
                    runs[key] = run
                display.say(_line(run))
                display.advance()
        finally:
            display.close_bar()


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


@contextmanager
def _backend(name: str, address: str | None) -> Iterator[int]:
    """Let joblib use a backend, connected to its cluster; yield the number of processors."""
    is_cluster = name in ("dask", "ray")
    if is_cluster and address is None:
        raise Failure(f"argument --address: {name} needs the address of a cluster; without one, use --backend loky")
    if address is not None and not is_cluster:
        raise Failure(f"argument --address: needs --backend dask or ray, got {name}")
    joblib, library = (_imported(module, name) for module in ("joblib", BACKENDS[name]))
    with ExitStack() as stack:
        if address is not None:
            _check_address(address)
        try:
            if name == "dask":
                stack.enter_context(library.Client(address, timeout=TIMEOUT))
            elif name == "ray":
                library.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
                stack.callback(library.shutdown)
                _imported("ray.util.joblib", name).register_ray()
                # Ray's pool hands over results as they come; joblib's pool of processes, its base class, does not.
                _imported("ray.util.joblib.ray_backend", name).RayBackend.supports_return_generator = True
            stack.enter_context(joblib.parallel_config(name))
            n_processors = joblib.effective_n_jobs(-1)
        except Exception as error:  # the libraries raise errors of many types
            raise Failure(f"argument --address: no {name} cluster at {address!r}: {_first_line(error)}") from error
        yield n_processors


def _imported(module: str, backend: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = PACKAGES[module.partition(".")[0]]
        raise Failure(f"argument --backend: {backend} cannot be used ({error}): pip install {package}") from None


def _check_address(address: str) -> None:
    """Raise a `Failure` if nothing listens at an address: the libraries would wait for minutes."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        place = parts.hostname, parts.port
        if None in place:
            raise ValueError
    except ValueError:
        raise Failure(f"argument --address: expected HOST:PORT or PROTOCOL://HOST:PORT, got {address!r}") from None
    try:
        socket.create_connection(place, TIMEOUT).close()
    except OSError as error:
        raise Failure(f"argument --address: cannot connect to {address!r}: {error}") from None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _prepare_folder(name: str) -> Path:
    """Create the output folder and check that it is writable, so that no run is lost."""
    out = Path(name)
    try:
        (out / RUNS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"argument --out: cannot write to {name!r}: {error.strerror}") from None
    for path in (out / RUNS / "run.json", out / TABLE, out / PICTURE):
        check_output(path)
    return out


def _results(n_jobs: int, jobs: int, tasks: list[Task]) -> Iterator[Run]:
    """Finished runs, as they come."""
    import joblib

    # After Ctrl-C, joblib would advise not to begin what is not needed.
    warnings.filterwarnings("ignore", r"\d+ tasks ", UserWarning)
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=jobs)
    try:
        with _ignoring_ctrl_c():  # as the workers will that begin here: joblib ends them
            results = parallel(joblib.delayed(_train)(*task) for task in tasks)
        for result in results:
            if isinstance(result, str):
                raise Failure(result, FAILED)
            yield result
    except Exception as error:  # of many types, also if a worker was killed
        if isinstance(error, Failure):
            raise
        raise Failure(f"a run was lost: {_first_line(error)}", FAILED) from error


@contextmanager
def _ignoring_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread only
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@lru_cache(maxsize=1)
def _data(folder: str | None, digest: str) -> Dataset:
    """Read the data set in a worker, which may be another machine."""
    data = load_mnist(folder)
    if _digest(data) != digest:
        raise DataError(f"{folder}: not the data set of the machine that began the sweep")
    return data


def _train(recipe: Recipe, folder: str | None, digest: str, threads: int) -> Run | str:
    """Train a network in a worker; return the run, or why this worker cannot do any."""
    try:
        data = _data(folder, digest)
    except DataError as error:
        return f"{socket.gethostname()}: {error}"
    run: Run = {"recipe": {**asdict(recipe), "data": digest}, "isa": mlgraph.ISA, "host": socket.gethostname()}
    net = recipe.network(data.train_x.shape[1], data.n_classes)
    try:
        net.fit(data.train_x, data.train_y, n_threads=threads, **recipe.fit_options(net))
    except mlgraph.NonFiniteError as error:  # it would happen again
        return {**run, "error": str(error)}
    test = net.evaluate(data.test_x, data.test_y, n_threads=threads)
    weights = hashlib.sha256(net.graph.get_parameters().tobytes())
    for layer in net.layers:
        weights.update(layer.weights.tobytes())
    return {
        **run,
        "test_accuracy": test["accuracy"],
        "test_loss": finite(test["loss"]),
        "edges": net.n_edges,
        "train_seconds": float(net.history.epoch_seconds.sum()),
        "weights": weights.hexdigest(),
    }


def _line(run: Run) -> str:
    """Describe a run."""
    name = f"seed {run['recipe']['seed']}   sparsity {run['recipe']['sparsity']:.2%}"
    if "error" in run:
        return f"{name}   failed: {run['error']}"
    return f"{name}   test accuracy {run['test_accuracy']:7.2%}   {run['edges']:,} edges   {run['train_seconds']:.2f} s"


def _report(args: argparse.Namespace, title: str, runs: list[Run], display: Display) -> int:
    """Write the table and the picture, and print them; return the exit status."""
    out = _prepare_folder(args.out)
    rows = [_row(sparsity, [r for r in runs if r["recipe"]["sparsity"] == sparsity]) for sparsity in args.sparsities]
    failed = [run for run in runs if "error" in run]
    alone = max(run["jobs"] for run in runs) == 1
    table = _table(rows, runs)
    _write(out / TABLE, f"{title}\n\n{table}\n")
    display.say(f"\n{table}\n")
    written, status = [out / TABLE], FAILED if failed else OK
    if not args.no_plot:
        try:
            _draw(rows, runs, title, out / PICTURE, with_times=alone)
            written.append(out / PICTURE)
        except ImportError as error:
            display.note(f"no picture: {error}")
    display.say(f"wrote {', '.join(map(str, written))}")
    if display.failure:
        raise display.failure
    if args.json:
        print(json.dumps({"title": title, "table": rows, "runs": runs}), flush=True)
    if failed:
        raise Failure(f"{count(len(failed), 'run')} failed, the first: {_line(failed[0])}", FAILED)
    return status


def _row(sparsity: float, runs: list[Run]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds."""
    good = [run for run in runs if "error" not in run]
    row: dict[str, Any] = {"sparsity": sparsity, "runs": len(good), "failed": len(runs) - len(good)}
    for name in ("test_accuracy", "edges", "train_seconds"):
        values = [run[name] for run in good]
        row[name] = statistics.fmean(values) if values else None
        row[f"{name}_deviation"] = statistics.stdev(values) if len(values) > 1 else None
    return row


def _table(rows: list[dict[str, Any]], runs: list[Run]) -> str:
    """Write the rows as Markdown."""
    others = max(run["jobs"] for run in runs) - 1
    threads = sorted({run["threads"] for run in runs})
    on = "on " + " or ".join(map(str, threads)) + (" thread" if threads == [1] else " threads")
    when = "alone" if not others else f"beside up to {count(others, 'other')}"
    lines = [
        f"| edges cut | edges left | runs | test accuracy, % | seconds of a run, {when}, {on} |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        left, accuracy, seconds = "", "", ""
        if row["runs"]:
            left, accuracy = f"{row['edges']:,.0f}", f"{100 * row['test_accuracy']:.2f}"
            seconds = f"{row['train_seconds']:.2f}"
        if row["runs"] > 1:
            accuracy += f" ± {100 * row['test_accuracy_deviation']:.2f}"
        n_runs = f"{row['runs']}" + (f" ({row['failed']} failed)" if row["failed"] else "")
        lines.append(f"| {100 * row['sparsity']:.6g} % | {left} | {n_runs} | {accuracy} | {seconds} |")
    builds = sorted({run["isa"] for run in runs})
    if len(builds) > 1:
        lines += ["", f"The runs used different instruction sets ({', '.join(builds)}), which round differently."]
    return "\n".join(lines)


def _draw(rows: list[dict[str, Any]], runs: list[Run], title: str, path: Path, *, with_times: bool) -> None:
    """Draw accuracy, and times if they are of runs by themselves, against the sparsity."""
    rows = [row for row in rows if row["runs"]]
    figure = new_figure((8.0, 6.0 if with_times else 4.5), 120)
    panels: Any = figure.subplots(
        2 if with_times else 1, sharex=True, squeeze=False, height_ratios=[3, 1][: 1 + with_times]
    )
    accuracy, last = panels[0, 0], panels[-1, 0]
    good = [run for run in runs if "error" not in run]
    accuracy.plot(
        [1 - run["recipe"]["sparsity"] for run in good],
        [100 * run["test_accuracy"] for run in good],
        "o",
        color="tab:blue",
        alpha=0.35,
        markersize=4,
        label="a run",
    )
    left = [1 - row["sparsity"] for row in rows]
    accuracy.errorbar(
        left,
        [100 * row["test_accuracy"] for row in rows],
        [100 * (row["test_accuracy_deviation"] or 0) for row in rows],
        color="black",
        marker="_",
        capsize=4,
        label="mean and standard deviation",
    )
    accuracy.set(ylabel="test accuracy, %", title=title)
    accuracy.legend()
    if with_times:
        last.plot(left, [row["train_seconds"] for row in rows], "o-", color="tab:orange")
        last.set(ylabel="seconds of a run", ylim=(0, None))
    last.set_xscale("log")
    last.invert_xaxis()
    last.set_xticks(left, [f"{100 * row['sparsity']:.6g} %\n{row['edges']:,.0f}" for row in rows])
    last.minorticks_off()
    last.set_xlabel("edges cut, and edges left (logarithmic scale)")
    for axes in panels[:, 0]:
        axes.grid(alpha=0.3)
    figure.tight_layout()
    save_figure(figure, path)
