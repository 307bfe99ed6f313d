"""The training run of ``train`` and ``prune``: its options, the training itself, and the files that it writes."""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import os
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import mlgraph
from mlgraph._support.atomic_files import destination, write_atomically
from mlgraph._support.interrupts import uninterrupted
from mlgraph.app.arguments import SECONDS, Failure
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
)
from mlgraph.app.display import Display
from mlgraph.app.recipe import Recipe
from mlgraph.datasets import Dataset
from mlgraph.pictures import draw_training
from mlgraph.training.loop import Progress
from mlgraph.training.options import checked_decay

# Files in the output folder.
MODEL, HISTORY, PICTURE, CHECKPOINT = "model.npz", "history.json", "training.png", "checkpoint.npz"

FILES = (MODEL, HISTORY, PICTURE, CHECKPOINT, f"{CHECKPOINT}.previous")

DEFAULT_SECONDS = 60.0  # between checkpoints


def add_run_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Add the options of a training run; `out` is the default output folder."""
    group = parser.add_argument_group("data, output and checkpoints")
    add_common_options(group)
    group.add_argument(
        "--out",
        metavar="DIR",
        default=out,
        help=f"folder for {MODEL}, {HISTORY} and {PICTURE}; those of an earlier run are moved to DIR.previous "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--checkpoint-every",
        type=SECONDS,
        metavar="SECONDS",
        help=f"write {CHECKPOINT} this often, so that --resume can continue the run",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help=f"continue the run of {CHECKPOINT} (give the same options again), and go on writing checkpoints (default: "
        f"every {DEFAULT_SECONDS:.0f} seconds)",
    )
    group.add_argument("--no-plot", action="store_true", help=f"do not draw {PICTURE}")
    group.add_argument(
        "--live",
        action="store_true",
        help="draw the picture in a window during training; the program ends when the window is closed",
    )
    group.add_argument("--quiet", action="store_true", help="print nothing except errors and the line of --json")


def check_options(given: dict[str, Any], recipe: Recipe) -> None:
    """Raise a `Failure` if a given option of a new network has no effect in its recipe."""
    for name in ("dropout", "weight_dropout"):
        if given.get(name) and not recipe.hidden:
            raise Failure(f"argument --{name.replace('_', '-')}: there is no hidden layer to drop from")
    for name in ("method", "by", "block"):
        if name in given and not recipe.sparsity:
            raise Failure(f"argument --{name}: needs --sparsity, the fraction of the edges to cut")
    if "by" in given and recipe.method != "gradual":
        raise Failure(f"argument --by: works only with --method gradual, got {recipe.method}")


def check_decay(recipe: Recipe) -> None:
    """Raise a `Failure` if a step would shrink weights by more than their size."""
    try:
        checked_decay(recipe.weight_decay, max(recipe.learning_rate))
    except ValueError as error:
        raise Failure(f"argument --weight-decay: {str(error).partition(': ')[2]}") from None


def learn(
    args: argparse.Namespace,
    options: dict[str, Any],
    recipe: Recipe,
    net: mlgraph.Network,
    data: Dataset,
    *,
    pretrained: bool = False,
) -> int:
    """Train a network, save it and print the results; return the exit status.

    `options` are recorded with the results. For a `pretrained` network, its scores before the run
    are recorded, too.
    """
    out = _prepare_folder(args.out, resume=args.resume)
    threads = args.threads or mlgraph.default_threads()
    display = Display(quiet=args.quiet, edges=recipe.sparsity > 0)
    if args.quiet:  # RuntimeWarnings, of failed checkpoints, are still shown
        warnings.filterwarnings("ignore", category=UserWarning)
    display.say(f"{describe(net)}, {count(threads, 'thread')}, {mlgraph.ISA}")
    before = net.evaluate(data.test_x, data.test_y, n_threads=args.threads) if pretrained else None
    if before:
        sparser = ": already sparser than --sparsity, so nothing will be cut" if net.sparsity > recipe.sparsity else ""
        display.say(f"test accuracy before {before['accuracy']:.2%}, sparsity {net.sparsity:.2%}{sparser}")
    title = f"{describe(net)}, {count(recipe.epochs, 'epoch')}, seed {recipe.seed}"
    n_examples = len(data.train_x)
    if args.live:
        display.open_live(title, n_epochs=recipe.epochs, epoch_size=n_examples)
    display.open_bar(n_examples * recipe.epochs)
    net, elapsed, interrupted, failure = _train(args, recipe, net, data, out, display)
    if not len(net.history.batch_examples):
        raise Failure("interrupted before the first step, nothing saved", INTERRUPTED)

    status = INTERRUPTED if interrupted else FAILED if failure else OK
    saved = False
    try:
        with uninterrupted():  # Ctrl-C after the last step must not lose the trained network
            files, failed = _save(args, net, out, title, n_examples, display)
            status = FAILED if failed else status
            configuration = {
                **options,
                "data": args.data,
                "threads": threads,
                "isa": mlgraph.ISA,
                "edges": net.n_edges,
                "parameters": net.n_parameters,
            }
            results = _results(args, recipe, net, data, before, elapsed, interrupted)
            if failure:
                results["error"] = str(failure)
            results["files"] = {role: str(path) for role, path in files.items()}
            record = {"configuration": configuration, "results": results, "history": _as_json(net.history)}
            write_atomically(files["history"], lambda file: file.write(json.dumps(record).encode()))
            saved = True
    except KeyboardInterrupt as error:
        if not saved:  # an error prevented saving, and Ctrl-C came as well: report the error
            raise (error.__context__ or error) from None
        if not interrupted:
            complain("interrupted after the training; everything is saved")
        status = INTERRUPTED

    _report(args, recipe, net, results, display)
    if display.failure:
        raise display.failure
    if args.json:
        print(json.dumps({**configuration, **results}), flush=True)
    if failure:
        epochs = len(net.history.epoch_loss)
        raise Failure(f"{failure}; {files['model']} is the network after epoch {epochs}, the last good one", FAILED)
    # A short run would close its window before anybody has seen it.
    if display.live is not None and display.live.is_open and status != INTERRUPTED:
        display.note("close the window to end the program")
        with contextlib.suppress(KeyboardInterrupt, Exception):  # everything is saved, so nothing is lost
            display.live.wait(net.history)
    return status


def _as_json(history: mlgraph.History) -> dict[str, list[float | None]]:
    """All columns as lists; JSON has no numbers that are not finite, so these become None."""
    return {name: [v if math.isfinite(v) else None for v in column.tolist()] for name, column in history.items()}


def _train(
    args: argparse.Namespace, recipe: Recipe, net: mlgraph.Network, data: Dataset, out: Path, display: Display
) -> tuple[mlgraph.Network, float, bool, Exception | None]:
    """Train; return the network, the time in seconds, whether Ctrl-C ended the training, and the error that did.

    After an error the network is a copy of that after the last epoch. Without such an epoch the
    error is raised.
    """
    start = time.perf_counter()
    interrupted = False
    failure: Exception | None = None
    last_good: mlgraph.Network | None = None
    moved = not _keeps_checkpoints(args)  # without checkpoints, nothing is written before the end

    def after_steps(event: Progress) -> None:
        nonlocal moved, last_good
        if not moved:
            moved = True
            _move_earlier_run(args, out, display)
        if event.kind == "epoch" and math.isfinite(event.history.epoch_loss[-1]):
            last_good = copy.deepcopy(net)
            last_good.history = copy.deepcopy(event.history)
        display(event)

    try:
        try:
            net.fit(
                data.train_x,
                data.train_y,
                **recipe.fit_options(net),
                validation_data=(data.test_x, data.test_y),
                n_threads=args.threads,
                callbacks=[after_steps],
                checkpoint=out / CHECKPOINT if _keeps_checkpoints(args) else None,
                checkpoint_every=DEFAULT_SECONDS if args.checkpoint_every is None else args.checkpoint_every,
                resume=args.resume,
            )
        finally:
            display.close_bar()
    # This clause must come first: to evaluate the next one imports modules, which a second Ctrl-C
    # could interrupt.
    except KeyboardInterrupt:
        interrupted = True
    except (mlgraph.CheckpointError, mlgraph.ModelFileError) as error:
        raise Failure(f"argument --resume: {error}") from None
    except (mlgraph.NonFiniteError, MemoryError) as error:
        if last_good is None:
            raise
        net, failure = last_good, error
    except PermissionError as error:
        raise Failure(f"argument --resume: {error.filename}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        if not str(error).startswith("sparsity: "):
            raise
        raise Failure(f"argument --{error}") from None
    return net, time.perf_counter() - start, interrupted, failure


def _save(
    args: argparse.Namespace, net: mlgraph.Network, out: Path, title: str, epoch_size: int, display: Display
) -> tuple[dict[str, Path], bool]:
    """Save the model and the picture; return the paths of all output files, and whether drawing failed."""
    files = {"model": out / MODEL, "history": out / HISTORY}
    if not _keeps_checkpoints(args):
        _move_earlier_run(args, out, display)
    net.save(files["model"])
    for name in (HISTORY, PICTURE):  # after --resume, they describe the old model, which is only now replaced
        with contextlib.suppress(OSError):
            destination(out / name).unlink()
    if args.no_plot:
        return files, False
    try:
        draw_training(net.history, out / PICTURE, title=title, epoch_size=epoch_size)
    except ImportError as error:
        display.note(f"no picture: {error}")
        return files, False
    except Exception as error:  # matplotlib raises errors of many types; the history must be written all the same
        complain(f"error: no picture: {error}")
        return files, True
    return {**files, "picture": out / PICTURE}, False


def _keeps_checkpoints(args: argparse.Namespace) -> bool:
    return bool(args.resume or args.checkpoint_every is not None)


def _results(
    args: argparse.Namespace,
    recipe: Recipe,
    net: mlgraph.Network,
    data: Dataset,
    before: dict[str, float] | None,
    elapsed: float,
    interrupted: bool,
) -> dict[str, Any]:
    """Results for the history file and --json."""
    history = net.history
    n_examples = len(data.train_x)
    test = net.evaluate(data.test_x, data.test_y, n_threads=args.threads)
    seen = int(history.batch_examples[-1])
    # Epochs are timed without validation and drawing. An interrupted epoch has no time, so the
    # whole elapsed time is taken; after a resumed run it would lack the earlier process, so only
    # complete epochs are counted.
    seconds = float(np.sum(history.epoch_seconds))
    timed = seen
    if interrupted and args.resume:
        timed = n_examples * len(history.epoch_seconds)
    elif interrupted:
        seconds = elapsed
    # Epochs in which the network was denser do not count as its best.
    best = max([test["accuracy"], *history.validation_accuracy[history.epoch_edges <= net.n_edges]])
    return {
        **({"accuracy_before": before["accuracy"], "loss_before": finite(before["loss"])} if before else {}),
        **({"sparsity_reached": net.sparsity} if recipe.sparsity else {}),
        "test_accuracy": test["accuracy"],
        "test_loss": finite(test["loss"]),
        "best_test_accuracy": best,
        "train_seconds": seconds,
        "examples_per_second": timed / max(seconds, 1e-9),
        "epochs_trained": seen / n_examples,
        "interrupted": interrupted,
        "examples_left_out": int(history.batch_skipped.sum()),
        "neurons_disconnected": int(np.sum(history.nonfinite_cut >= 0)),
    }


def _report(
    args: argparse.Namespace, recipe: Recipe, net: mlgraph.Network, results: dict[str, Any], display: Display
) -> None:
    """Print the results of a run."""
    if results["interrupted"]:
        complain(
            f"interrupted after {results['epochs_trained']:.2f} of {count(recipe.epochs, 'epoch')}; saved the network"
            + (" (--resume continues the run)" if _keeps_checkpoints(args) else "")
        )
    display.say(
        f"test accuracy {results['test_accuracy']:.2%} (best {results['best_test_accuracy']:.2%}), "
        f"{results['train_seconds']:.2f} s of training, {results['examples_per_second']:,.0f} examples/s"
    )
    if recipe.sparsity:
        was = f", before {results['accuracy_before']:.2%}" if "accuracy_before" in results else ""
        left = f"sparsity {net.sparsity:.2%}, {count(net.n_edges, 'edge')} left"
        display.say(f"{left}: test accuracy {results['test_accuracy']:.2%}{was}")
    if len(net.history.nonfinite_step):
        left, cut = count(results["examples_left_out"], "example"), count(results["neurons_disconnected"], "neuron")
        display.say(f"infinite or NaN values: {left} left out, {cut} cut off")
    display.say("wrote " + ", ".join(results["files"].values()))


def previous_folder(folder: Path) -> Path:
    """Where a new run in the folder moves the files of the earlier run."""
    return Path(f"{folder}.previous") if folder.name.strip(".") else Path(f"{folder.resolve()}.previous")


def _files_in(folder: Path) -> list[str]:
    return [name for name in FILES if os.path.lexists(folder / name)]


def _move_earlier_run(args: argparse.Namespace, folder: Path, display: Display) -> None:
    """Move the files of an earlier run, unless this run resumes it. Files with other names stay, in both folders."""
    files, previous = _files_in(folder), previous_folder(folder)
    if args.resume or not files:
        return
    try:
        with uninterrupted():
            previous.mkdir(exist_ok=True)
            for name in FILES:  # files of two runs must not mix
                (previous / name).unlink(missing_ok=True)
            for name in files:
                shutil.move(folder / name, previous / name)  # the folder may be a mounted disk
    except OSError as error:  # `_prepare_folder` has checked that it can be written; the new run matters more
        complain(f"replacing the files of an earlier run in {folder}, which cannot be moved: {error}")
        return
    display.note(f"moved the files of an earlier run in {folder} to {previous}")


def _prepare_folder(name: str, *, resume: bool) -> Path:
    """Create the output folder and check that it is writable, so that no training is lost at the end."""
    if not name:  # pathlib would take it for the working folder; an unset shell variable is more likely
        raise Failure("argument --out: expected a folder, got ''")
    folder = Path(name)
    if folder.suffix == Path(MODEL).suffix and not folder.is_dir():
        raise Failure(f"argument --out: expected a folder, in which {MODEL} is written, got {name!r}")
    if resume and not {CHECKPOINT, f"{CHECKPOINT}.previous"} & {*_files_in(folder)}:
        raise Failure(
            f"argument --resume: there is no {CHECKPOINT} in {name!r}; begin the run without --resume, with "
            "--checkpoint-every SECONDS"
        )
    probe = folder / f"probe.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise Failure(f"argument --out: cannot write to {name!r}: {error.strerror}") from None
    for file in FILES:
        check_output(folder / file)
    if not resume and _files_in(folder):
        previous = previous_folder(folder)
        try:
            for path in [previous / file for file in FILES] if os.path.lexists(previous) else [previous]:
                destination(path)
        except OSError as error:
            raise Failure(
                f"argument --out: {name!r} holds an earlier run, which cannot be moved to {str(previous)!r}: "
                f"{error.strerror}; choose another folder"
            ) from None
    return folder
