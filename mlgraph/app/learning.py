"""A run of training, as the commands ``train`` and ``prune`` make it: its options, and what it leaves in its folder."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
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
from mlgraph.pictures.plotting import training_picture
from mlgraph.training.fitting import checked_decay

__all__ = ["CHECKPOINT", "MODEL", "add_run_options", "check_decay", "learn"]

# What a run leaves in its folder.
MODEL, HISTORY, PICTURE, CHECKPOINT = "model.npz", "history.json", "training.png", "checkpoint.npz"

DEFAULT_SECONDS = 60.0  # between checkpoints


def add_run_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Options that every run of training has; `out`: the default folder."""
    add_common_options(parser)
    parser.add_argument(
        "--out", metavar="DIR", default=out, help=f"folder for {MODEL}, {HISTORY} and {PICTURE} (default: %(default)s)"
    )
    parser.add_argument(
        "--checkpoint-every",
        type=SECONDS,
        metavar="SECONDS",
        help=f"write all that is needed to resume the run to {CHECKPOINT}, this often",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help=f"continue from {CHECKPOINT} if there is one, given the options of its run; write it as well "
        f"(default: every {DEFAULT_SECONDS:.0f} seconds)",
    )
    parser.add_argument("--no-plot", action="store_true", help=f"write no {PICTURE}, and remove that of an older run")
    parser.add_argument("--live", action="store_true", help="draw the picture in a window while training")
    parser.add_argument("--quiet", action="store_true", help="print only errors and what --json asks for")


def check_decay(recipe: Recipe) -> None:
    """Raise Failure if the weight decay of a step would exceed the weights."""
    try:
        checked_decay(recipe.weight_decay, max(recipe.learning_rate))
    except ValueError as error:
        raise Failure(f"argument --weight-decay: {str(error).partition(': ')[2]}") from None


def learn(
    args: argparse.Namespace,
    asked: dict[str, Any],
    recipe: Recipe,
    net: mlgraph.Network,
    data: Dataset,
    *,
    learned: bool = False,
) -> int:
    """Train a network, save it, and say how it went; return the exit status.

    `asked`: the configuration for its record. `learned`: whether the network had learnt before; its scores before the run
    are then reported, too.
    """
    out, threads = _prepare_folder(args.out), args.threads or mlgraph.default_threads()
    display = Display(quiet=args.quiet, edges=recipe.sparsity > 0)
    if args.quiet:  # other warnings, of checkpoints, are of what went wrong
        warnings.filterwarnings("ignore", category=UserWarning)
    if args.checkpoint_every is not None and not args.resume and (out / CHECKPOINT).exists():
        display.note(f"{out / CHECKPOINT} is of an older run and will be replaced; --resume would go on from it")
    display.say(f"{describe(net)}, {count(threads, 'thread')}, {mlgraph.ISA}")
    before = net.evaluate(data.test_x, data.test_y, n_threads=args.threads) if learned else None
    if before:
        sparser = ": sparser than asked for, so nothing will be cut" if net.sparsity > recipe.sparsity else ""
        display.say(f"test accuracy before {before['accuracy']:.2%}, sparsity {net.sparsity:.2%}{sparser}")
    title = f"{describe(net)}, {count(recipe.epochs, 'epoch')}, seed {recipe.seed}"
    n_examples = len(data.train_x)
    if args.live:
        display.open_live(title, n_epochs=recipe.epochs, epoch_size=n_examples)
    display.open_bar(n_examples * recipe.epochs)
    elapsed, interrupted = _train(args, recipe, net, data, out, display)
    if not len(net.history.batch_examples):
        raise Failure("interrupted before the first step, nothing saved", INTERRUPTED)

    status, saved = INTERRUPTED if interrupted else OK, False
    try:
        with uninterrupted():  # Ctrl-C after the last step must lose nothing that was learnt
            files, failed = _save(args, net, out, title, n_examples, display)
            status = FAILED if failed else status
            configuration = {
                **asked,
                "data": args.data,
                "threads": threads,
                "isa": mlgraph.ISA,
                "edges": net.n_edges,
                "parameters": net.n_parameters,
            }
            results = _results(args, recipe, net, data, before, elapsed, interrupted)
            results["files"] = {role: str(path) for role, path in files.items()}
            record = {"configuration": configuration, "results": results, "history": net.history.to_dict()}
            write_atomically(files["history"], lambda file: file.write(json.dumps(record).encode()))
            saved = True
    except KeyboardInterrupt as error:
        if not saved:  # the error that prevented it is raised; Ctrl-C meanwhile did not cause it
            raise (error.__context__ or error) from None
        if not interrupted:
            complain("interrupted after the training; all is saved")
        status = INTERRUPTED

    _report(args, recipe, net, results, display)
    if display.failure:
        raise display.failure
    if args.json:
        print(json.dumps({**configuration, **results}), flush=True)
    # Who watched the training wants to see its end; a script without a terminal must not wait for a click.
    if display.live is not None and display.live.is_open and sys.stderr.isatty() and status != INTERRUPTED:
        display.note("close the window to end")
        with contextlib.suppress(KeyboardInterrupt, Exception):  # all is saved, so any of these may end it
            display.live.wait(net.history)
    return status


def _train(
    args: argparse.Namespace, recipe: Recipe, net: mlgraph.Network, data: Dataset, out: Path, display: Display
) -> tuple[float, bool]:
    """Train; return how many seconds it took, and whether Ctrl-C ended it."""
    start, interrupted = time.perf_counter(), False
    try:
        try:
            net.fit(
                data.train_x,
                data.train_y,
                epochs=recipe.epochs,
                batch_size=recipe.batch_size,
                learning_rate=recipe.learning_rate,
                optimizer=recipe.optimizer,
                momentum=recipe.momentum,
                weight_decay=recipe.weight_decay,
                validation=(data.test_x, data.test_y),
                seed=recipe.seed,
                n_threads=args.threads,
                callback=display,
                checkpoint=out / CHECKPOINT if _keeps_checkpoints(args) else None,
                checkpoint_every=DEFAULT_SECONDS if args.checkpoint_every is None else args.checkpoint_every,
                resume=args.resume,
                sparsify=recipe.schedule(net.sparsity),
                on_nonfinite=recipe.on_nonfinite,
            )
        finally:
            display.close_bar()
    except KeyboardInterrupt:  # the first clause: those below import names, and a second Ctrl-C may come meanwhile
        interrupted = True
    except (mlgraph.CheckpointError, mlgraph.ModelFileError) as error:
        raise Failure(f"argument --resume: {error}") from None
    except PermissionError as error:
        raise Failure(f"argument --resume: {error.filename}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        if not str(error).startswith("sparsity: "):
            raise
        raise Failure(f"argument --{error}") from None
    return time.perf_counter() - start, interrupted


def _save(
    args: argparse.Namespace, net: mlgraph.Network, out: Path, title: str, epoch_size: int, display: Display
) -> tuple[dict[str, Path], bool]:
    """Save the model and its picture; return the paths of these and of the record to come, and whether drawing failed."""
    files = {"model": out / MODEL, "history": out / HISTORY}
    net.save(files["model"])
    for name in (HISTORY, PICTURE):  # of the earlier model: only now, as a full disk might have kept that model
        with contextlib.suppress(OSError):
            destination(out / name).unlink()
    if args.no_plot:
        return files, False
    try:
        training_picture(net.history, out / PICTURE, title=title, epoch_size=epoch_size)
    except ImportError as error:
        display.note(f"no picture: {error}")
        return files, False
    except Exception as error:  # matplotlib's are of many types; the record is written all the same
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
    """The results of a run, for its record and --json."""
    history, n_examples = net.history, len(data.train_x)
    test = net.evaluate(data.test_x, data.test_y, n_threads=args.threads)
    seen = int(history.batch_examples[-1])
    # Validation and drawing are no part of training. If the run was interrupted, only the time on the clock is known; if it
    # was also resumed, the clock misses its beginning, and the time of its whole epochs is taken.
    seconds, timed = float(np.sum(history.epoch_seconds)), seen
    if interrupted and args.resume:
        timed = n_examples * len(history.epoch_seconds)
    elif interrupted:
        seconds = elapsed
    return {
        **({"accuracy_before": before["accuracy"], "loss_before": finite(before["loss"])} if before else {}),
        **({"sparsity_reached": net.sparsity} if recipe.sparsity else {}),
        "test_accuracy": test["accuracy"],
        "test_loss": finite(test["loss"]),
        # Not of epochs in which the network had more edges.
        "best_test_accuracy": max([test["accuracy"], *history.validation_accuracy[history.epoch_edges <= net.n_edges]]),
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
    """Say how a run went."""
    if results["interrupted"]:
        complain(
            f"interrupted after {results['epochs_trained']:.2f} of {count(recipe.epochs, 'epoch')}; saved what there is"
            + (", and --resume goes on" if _keeps_checkpoints(args) else "")
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
        display.say(f"not finite: {left} left out, {cut} cut")
    display.say("wrote " + ", ".join(results["files"].values()))


def _prepare_folder(name: str) -> Path:
    """The folder, made and known to be writable, before the training rather than after it."""
    if not name:  # as from a shell variable that is not set; to pathlib it would be the working folder
        raise Failure("argument --out: expected a folder, got ''")
    folder = Path(name)
    probe = folder / f"probe.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise Failure(f"argument --out: cannot write to {name!r}: {error.strerror}") from None
    for file in (MODEL, HISTORY, PICTURE, CHECKPOINT, f"{CHECKPOINT}.previous"):
        check_output(folder / file)
    return folder
