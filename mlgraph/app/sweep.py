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
import subprocess
import sys
import threading
import time
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
from mlgraph._support.installation import install_command
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
    version_here,
)
from mlgraph.app.comparison import Run, as_markdown, compare, draw
from mlgraph.app.display import Display
from mlgraph.app.learning import check_decay, check_options
from mlgraph.app.recipe import OPTIONS, Recipe, add_network_options, as_text, begun_with, given_of
from mlgraph.datasets import DataError, Dataset, load_mnist

RUNS, TABLE, PICTURE = "runs", "table.md", "sweep.png"  # in the output folder

BACKENDS = {"loky": "joblib", "threading": "joblib", "dask": "distributed", "ray": "ray"}
"""For each backend of joblib, the module that it needs."""

PACKAGES = {"joblib": ("joblib", "app"), "distributed": ("dask[distributed]", ""), "ray": ("ray", "")}
"""What to install for a module, and the extra of mlgraph that has it."""

CONNECT = {
    "dask": "import distributed; distributed.Client(address, timeout=10).close()",
    "ray": "import ray; ray.init(address=address)",
}
TIMEOUT = 30  # seconds in which a cluster must answer

OTHER_OUT = "choose another folder by --out"

Key = tuple[int, float]  # seed and sparsity
Task = tuple[Recipe, str | None, str, str, int | None, int]  # arguments of `_train`


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    runs = parser.add_argument_group("runs")
    runs.add_argument(
        "--seeds", type=SEEDS, default="0-4", metavar="LIST", help="seeds, such as 0-9 or 0,4-6 (default: %(default)s)"
    )
    runs.add_argument(
        "--sparsity",
        dest="sparsities",
        type=FRACTIONS,
        default="0",
        metavar="LIST",
        help="fractions of the edges to cut during the training, such as 0,0.9,0.98 (default: %(default)s)",
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
        "--address", metavar="ADDRESS", help="of the cluster: for dask such as tcp://HOST:8786, for ray HOST:6379"
    )
    recipe = parser.add_argument_group("network and training")
    add_network_options(recipe, [name for name in OPTIONS if name not in ("seed", "sparsity")])
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
    title = ", ".join([describe(nets[0]), count(recipe_of(*keys[0]).epochs, "epoch"), count(len(args.seeds), "seed")])
    display = Display(quiet=args.quiet)
    done = f"{title}: {len(keys) - len(missing)} of {count(len(keys), 'run')} are in {args.out} already"
    if not missing:
        display.say(done)
    else:
        folder = None if args.data is None else os.path.abspath(args.data)
        parent = os.getpid() if args.backend == "loky" else None
        tasks = [(recipe, folder, digest, version_here(), parent, args.threads or 1) for recipe in missing]
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
    runs: dict[Key, Run] = {}
    paths: dict[Key, Path] = {}
    for path in sorted((out / RUNS).glob("*.json")):
        try:
            run = json.loads(path.read_bytes())
            recipe = run["recipe"]
            key = recipe["seed"], recipe["sparsity"]
            first = paths.setdefault(key, path)
            version = run.get("version", "(version not recorded)")
            if version != version_here():
                raise Failure(
                    f"argument --out: {path} was trained by mlgraph {version}, but this is mlgraph {version_here()}; "
                    f"{OTHER_OUT}, or remove the runs of the other version to train them again"
                )
            wanted = json.loads(json.dumps(expected(*key)))
            if "error" not in run:
                _line(run)
        except (ValueError, KeyError, TypeError):
            raise Failure(f"argument --out: {path} is damaged or not a run; remove it to train it again") from None
        if path != first:
            raise Failure(f"argument --out: {first} and {path} have the same seed and sparsity; remove one of them")
        for name in (name for name in wanted if recipe.get(name) != wanted[name]):
            if name in OPTIONS:
                was, now = as_text(name, recipe.get(name)), as_text(name, wanted[name])
                option = f"--{name.replace('_', '-')}"
                raise Failure(
                    f"argument {option}: {path} was trained with {was}, not {now}; {OTHER_OUT}, or go on with its runs "
                    f"by the options that began them, among them {option} {was}"
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
            _check_address(name, address)
        try:
            if name == "dask":
                stack.enter_context(library.Client(address))
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
        library, extra = PACKAGES[module.partition(".")[0]]
        command = install_command(library, extra=extra)
        raise Failure(f"argument --backend: {backend} cannot be used ({error}): {command}") from None


def _check_address(name: str, address: str) -> None:
    """Raise a `Failure` unless a cluster answers. The libraries may wait for minutes, which only killing them ends."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        place = parts.hostname, parts.port
        if None in place:
            raise ValueError
    except ValueError:
        raise Failure(f"argument --address: expected HOST:PORT or PROTOCOL://HOST:PORT, got {address!r}") from None
    try:
        socket.create_connection(place, TIMEOUT).close()
        code = f"import sys; address = sys.argv[1]; {CONNECT[name]}"
        subprocess.run([sys.executable, "-c", code, address], timeout=TIMEOUT, capture_output=True, check=True)
    except OSError as error:
        raise Failure(f"argument --address: cannot connect to {address!r}: {error}") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"argument --address: no {name} cluster answers at {address!r} within {TIMEOUT} s") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise Failure(f"argument --address: no {name} cluster at {address!r}: {reason}") from None


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


@lru_cache(maxsize=1)
def _end_with(parent: int) -> None:
    """End this worker soon after its parent: loky's workers would finish a run that nobody saves, and wait minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _train(
    recipe: Recipe, folder: str | None, digest: str, version: str, parent: int | None, threads: int
) -> Run | str:
    """Train a network in a worker; return the run, or why this worker cannot do any."""
    if parent is not None and parent != os.getpid():
        _end_with(parent)
    if version != version_here():
        return f"{socket.gethostname()}: has mlgraph {version_here()}, not {version}; install the same version there"
    try:
        data = _data(folder, digest)
    except DataError as error:
        return f"{socket.gethostname()}: {error}"
    run: Run = {"version": version, "recipe": {**asdict(recipe), "data": digest}}
    run |= {"isa": mlgraph.ISA, "host": socket.gethostname()}
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
    rows = [compare([run for run in runs if run["recipe"]["sparsity"] == sparsity]) for sparsity in args.sparsities]
    failed = [run for run in runs if "error" in run]
    table = as_markdown(rows, runs)
    _write(out / TABLE, f"{title}\n\n{table}\n")
    display.say(f"\n{table}\n")
    written = [out / TABLE]
    if not args.no_plot:
        try:
            draw(rows, runs, title, out / PICTURE)
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
    return OK
