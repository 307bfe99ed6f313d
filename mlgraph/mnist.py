"""Train a network on MNIST, or on a data set laid out like it, and look at it: ``python -m mlgraph.mnist --help``."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mlgraph
from mlgraph.app import inspect
from mlgraph.app.arguments import COUNT, COUNTS, DECAY, FRACTION, RATES, SECONDS, SEED, SIZES, Failure, Parser, one_of
from mlgraph.app.common import add_common_options, check_fit, complain, count, describe, finite, load_data, load_model
from mlgraph.app.display import Display
from mlgraph.datasets import Dataset
from mlgraph.fitting import checked_decay
from mlgraph.modelfile import write_atomically
from mlgraph.nonfinite import POLICIES
from mlgraph.ops import ACTIVATIONS
from mlgraph.plotting import training_picture
from mlgraph.sparsify import SET, GradualPruning, RigL, Schedule

__all__ = ["PRESETS", "Recipe", "main"]

# What a run leaves in its folder.
MODEL, HISTORY, PICTURE, CHECKPOINT = "model.npz", "history.json", "training.png", "checkpoint.npz"

DEFAULT_SECONDS = 60.0  # between checkpoints

OK, FAILED, INTERRUPTED, READER_GONE = 0, 1, 128 + 2, 128 + 13  # exit status; as in shells, signals follow 128


@dataclass(frozen=True)
class Recipe:
    """All that decides how a network turns out, but for the data. Its defaults are those of the command line."""

    hidden: tuple[int, ...] = (32,)
    activation: str = "leaky_relu"
    epochs: int = 10
    batch_size: tuple[int, int] = (128, 8)
    learning_rate: tuple[float, float] = (0.07, 0.0002)
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    dropout: float = 0.0  # of the hidden layers, like the next
    weight_dropout: float = 0.0
    output_bias: bool = True
    sparsity: float = 0.0  # at the end of the training
    method: str = "gradual"  # of getting there
    sparse_from: float = 0.1  # share of the training before which the gradual method cuts nothing
    block: int = 1  # neurons that keep or lose a source together
    on_nonfinite: str = "raise"
    seed: int = 0

    def network(self, n_inputs: int, n_classes: int) -> mlgraph.Network:
        """The network before it has learned anything."""
        net = mlgraph.Network(n_inputs, seed=self.seed)
        for size in self.hidden:
            net.add_layer(
                size, activation=self.activation, dropout=self.dropout, weight_dropout=self.weight_dropout, bias=True
            )
        net.add_layer(n_classes, activation="softmax", bias=self.output_bias)
        return net

    def schedule(self, initial: float) -> Schedule | None:
        """What cuts and grows edges during the training of a network of this sparsity."""
        if not self.sparsity:
            return None
        if self.method == "gradual":
            initial = min(initial, self.sparsity)
            return GradualPruning(self.sparsity, start=self.sparse_from, initial=initial, block=self.block)
        return METHODS[self.method](self.sparsity, block=self.block)


METHODS: dict[str, Callable[..., Schedule]] = {"gradual": GradualPruning, "set": SET, "rigl": RigL}

PRESETS = {
    "default": Recipe(),
    "ml-rust": Recipe(weight_dropout=0.5, output_bias=False),
    "lenet-300-100": Recipe(hidden=(300, 100), epochs=60, batch_size=(128, 128), learning_rate=(0.05, 0.0002), dropout=0.2),
}

PRUNING = Recipe(epochs=10, batch_size=(128, 128), learning_rate=(0.02, 0.0002), sparse_from=0.0)
"""Where the options of ``prune`` start from."""

BLOCK = "neurons side by side that keep or lose a source together; 4 are swept faster than others"

ADAM_RATES = (0.003, 0.00003)
"""Learning rates of Adam where no others are given."""

THINNED_RATES = {"dropout": (0.04, 0.0002), "weight_dropout": (0.05, 0.0003), "sparsity": (0.1, 0.0002)}
"""Learning rates where no others are given and something is dropped, whose noise calls for smaller steps, or cut: of 784-32-10
from 50 % on better by 0.15 points or more, by each method."""

FULL_DROPOUT_TO = 0.8
"""Sparsity up to which a preset's dropout is all of it. Then it falls with the root of the share of edges that is left, as Han
et al. have it (2015, Learning both weights and connections for efficient neural networks, 3.2), who begin at 0; this is
measured."""


# --- the command line -------------------------------------------------------------------------------------------------


def _add_train_options(parser: argparse.ArgumentParser) -> None:
    recipe = parser.add_argument_group("the network and its training")
    recipe.add_argument("--preset", type=one_of(*PRESETS), default="default", metavar="NAME",
                        help=f"where the other options start from: {', '.join(PRESETS)}")  # fmt: skip
    for name, kind, metavar, text in (
        ("hidden", SIZES, "SIZES", "neurons of each hidden layer, such as 300,100, or none"),
        ("activation", one_of(*ACTIVATIONS), "NAME", "of the hidden layers: " + ", ".join(ACTIVATIONS)),
        ("epochs", COUNT, "N", "passes over the data"),
        ("batch_size", COUNTS, "A:B", "examples in a step, from the first to the last"),
        ("learning_rate", RATES, "A:B", "from the first step to the last, smaller with dropout and adam, larger if sparse"),
        ("optimizer", one_of("sgd", "adam"), "NAME", "sgd or adam"),
        ("momentum", FRACTION, "X", "share of a step that goes on into the next"),
        ("weight_decay", DECAY, "X", "times the learning rate: share of themselves that weights lose at a step"),
        ("dropout", FRACTION, "X", "share of the hidden neurons left out of a step; a preset has less from 80 %% sparsity on"),
        ("weight_dropout", FRACTION, "X", "share of the hidden layers' edges left out of a step"),
        ("sparsity", FRACTION, "X", "share of the edges that is cut by the end"),
        ("method", one_of(*METHODS), "NAME", "how edges are cut: gradual (once and for all), set or rigl (and others grow)"),
        ("block", COUNT, "N", BLOCK),
        ("on_nonfinite", one_of(*POLICIES), "NAME", "what becomes of what is not finite: "
         "raise ends the run, skip leaves those examples out, disconnect cuts the neuron out"),
        ("seed", SEED, "N", "decides all that is random"),
    ):
        _add_recipe_option(recipe, PRESETS["default"], name, kind, metavar, text)
    _add_run_options(parser, "mnist-run")


def _add_recipe_option(group: Any, recipe: Recipe, name: str, kind: Callable[[str], Any], metavar: str, text: str) -> None:
    value = getattr(recipe, name)
    default = (":" if metavar == "A:B" else ",").join(map(str, value if isinstance(value, tuple) else [value]))
    # Suppressed, so that what was given can be told from what was not, which the preset decides.
    group.add_argument(f"--{name.replace('_', '-')}", type=kind, default=argparse.SUPPRESS, metavar=metavar,
                       help=f"{text} (default: {default})")  # fmt: skip


def _add_run_options(parser: argparse.ArgumentParser, out: str) -> None:
    add_common_options(parser)
    parser.add_argument("--out", metavar="DIR", default=out,
                        help=f"folder for {MODEL}, {HISTORY} and {PICTURE} (default: %(default)s)")  # fmt: skip
    parser.add_argument("--checkpoint-every", type=SECONDS, metavar="SECONDS",
                        help=f"keep all that a run needs to go on in {CHECKPOINT}, written anew this often")  # fmt: skip
    parser.add_argument("--resume", action="store_true",
                        help=f"go on from {CHECKPOINT} if there is one, given the options that its run had; write it as well "
                             f"(default: every {DEFAULT_SECONDS:.0f} seconds)")  # fmt: skip
    parser.add_argument("--no-plot", action="store_true", help=f"write no {PICTURE}")
    parser.add_argument("--live", action="store_true", help="draw the picture in a window while training")
    parser.add_argument("--quiet", action="store_true", help="print errors only, and what --json asks for")


def _add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=f"a {MODEL} of a training run")
    add_common_options(parser)


def _add_prune_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a saved network")
    recipe = parser.add_argument_group("the cut and the training meanwhile")
    recipe.add_argument("--sparsity", type=FRACTION, required=True, metavar="X", help="share of the edges that is cut")
    for name, kind, metavar, text in (
        ("epochs", COUNT, "N", "passes over the data; in the last quarter nothing is cut any more"),
        ("batch_size", COUNTS, "A:B", "examples in a step, from the first to the last"),
        ("learning_rate", RATES, "A:B", "from the first step to the last"),
        ("momentum", FRACTION, "X", "share of a step that goes on into the next"),
        ("weight_decay", DECAY, "X", "times the learning rate: share of themselves that weights lose at a step"),
        ("block", COUNT, "N", BLOCK),
        ("seed", SEED, "N", "decides all that is random"),
    ):
        _add_recipe_option(recipe, PRUNING, name, kind, metavar, text)
    _add_run_options(parser, "mnist-pruned")


# --- train ------------------------------------------------------------------------------------------------------------


def _train(args: argparse.Namespace) -> int:
    given = {field.name: getattr(args, field.name) for field in fields(Recipe) if hasattr(args, field.name)}
    recipe = replace(PRESETS[args.preset], **given)
    if "dropout" not in given:
        left = min(1.0, (1 - recipe.sparsity) / (1 - FULL_DROPOUT_TO))
        recipe = replace(recipe, dropout=round(recipe.dropout * left**0.5, 3))
    if recipe.optimizer == "adam" and "learning_rate" not in given:
        recipe = replace(recipe, learning_rate=ADAM_RATES)
    for name, rates in THINNED_RATES.items():
        if getattr(recipe, name) and recipe.learning_rate == Recipe.learning_rate and "learning_rate" not in given:
            recipe = replace(recipe, learning_rate=rates)
    for name in ("dropout", "weight_dropout"):
        if given.get(name) and not recipe.hidden:
            raise Failure(f"argument --{name.replace('_', '-')}: expected hidden layers to drop from, came none")
    if "method" in given and not recipe.sparsity:
        raise Failure("argument --method: expected --sparsity with it, which says how much is cut, came none")
    if recipe.block > 1 and not recipe.sparsity:
        raise Failure("argument --block: expected --sparsity with it, which says how much is cut, came none")
    _check_decay(recipe)
    data = load_data(args.data)
    net = recipe.network(data.train_x.shape[1], data.n_classes)
    return _learn(args, {"preset": args.preset, **asdict(recipe)}, recipe, net, data)


def _check_decay(recipe: Recipe) -> None:
    try:
        checked_decay(recipe.weight_decay, max(recipe.learning_rate))
    except ValueError as error:
        raise Failure(f"argument --weight-decay: {str(error).partition(': ')[2]}") from None


def _prune(args: argparse.Namespace) -> int:
    given = {field.name: getattr(args, field.name) for field in fields(Recipe) if hasattr(args, field.name)}
    recipe = replace(PRUNING, **given)
    _check_decay(recipe)
    net = load_model(args.model)
    data = load_data(args.data)
    check_fit(net, data, args.model)
    for name in (MODEL, CHECKPOINT, f"{CHECKPOINT}.previous"):  # with its run, of which the others are
        replaced = Path(args.out) / name
        if replaced.exists() and replaced.samefile(args.model):
            expected = "another folder than that of MODEL, which would be replaced"
            raise Failure(f"argument --out: expected {expected}, came {args.out!r}")
    if np.isnan(net.graph.parameters).any():
        raise Failure(f"argument MODEL: {args.model} has weights or biases that are no numbers, of which none is the smallest")
    names = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "sparsity", "block", "seed")
    configuration = {"model": args.model, **{name: getattr(recipe, name) for name in names}}
    return _learn(args, configuration, recipe, net, data, net.evaluate(data.test_x, data.test_y, n_threads=args.threads))


def _learn(
    args: argparse.Namespace, asked: dict[str, Any], recipe: Recipe, net: mlgraph.Network, data: Dataset,
    before: dict[str, float] | None = None,
) -> int:  # fmt: skip
    threads = args.threads or mlgraph.default_threads()
    n_examples = len(data.train_x)
    out = _prepare_folder(args.out)

    display = Display(quiet=args.quiet, edges=recipe.sparsity > 0)
    display.say(f"{describe(net)}, {count(threads, 'thread')}, {mlgraph.ISA}")
    if before:
        sparser = ": sparser than asked for, so nothing will be cut" if net.sparsity > recipe.sparsity else ""
        display.say(f"test accuracy before {before['accuracy']:.2%}, sparsity {net.sparsity:.2%}{sparser}")
    ending = f"{count(recipe.epochs, 'epoch')}, seed {recipe.seed}"
    if args.live:
        display.open_live(f"{describe(net)}, {ending}", n_epochs=recipe.epochs, epoch_size=n_examples)
    display.open_bar(n_examples * recipe.epochs)

    checkpoint = out / CHECKPOINT if args.resume or args.checkpoint_every is not None else None
    interrupted = False
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("default", "checkpoint: ", RuntimeWarning)
            warnings.showwarning = lambda message, *_: complain(str(message))
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
                checkpoint=checkpoint,
                checkpoint_every=DEFAULT_SECONDS if args.checkpoint_every is None else args.checkpoint_every,
                resume=args.resume,
                sparsify=recipe.schedule(net.sparsity),
                on_nonfinite=recipe.on_nonfinite,
            )
    except (mlgraph.CheckpointError, mlgraph.ModelFileError) as error:
        raise Failure(f"argument --resume: {error}") from None
    except ValueError as error:
        if not str(error).startswith("sparsity: "):
            raise
        raise Failure(f"argument --{error}") from None
    except KeyboardInterrupt:
        interrupted = True
    finally:
        display.close_bar()
    elapsed = time.perf_counter() - start
    history = net.history
    if not len(history.batch_examples):
        raise Failure("interrupted before the first step, nothing saved", INTERRUPTED)

    files = {"model": out / MODEL, "history": out / HISTORY}
    net.save(files["model"])
    if not args.no_plot:
        try:
            training_picture(history, out / PICTURE, title=f"{describe(net)}, {ending}", epoch_size=n_examples)
            files["picture"] = out / PICTURE
        except ImportError as error:
            display.note(f"no picture: {error}")

    test = net.evaluate(data.test_x, data.test_y, n_threads=args.threads)
    seen = int(history.batch_examples[-1])
    # Validation and drawing are no part of training. A run that was cut short knows only the time on the clock, and where
    # that does not show its beginning the time of its whole epochs.
    seconds, timed = float(np.sum(history.epoch_seconds)), seen
    if interrupted and args.resume:
        timed = n_examples * len(history.epoch_seconds)
    elif interrupted:
        seconds = elapsed
    rate = timed / max(seconds, 1e-9)
    configuration = {
        **asked,
        "data": args.data,
        "threads": threads,
        "isa": mlgraph.ISA,
        "edges": net.n_edges,
        "parameters": net.n_parameters,
    }
    results = {
        **({"accuracy_before": before["accuracy"], "loss_before": finite(before["loss"])} if before else {}),
        **({"sparsity_reached": net.sparsity} if recipe.sparsity else {}),
        "test_accuracy": test["accuracy"],
        "test_loss": finite(test["loss"]),
        # That of a network with more edges is not this one's.
        "best_test_accuracy": max([test["accuracy"], *history.validation_accuracy[history.epoch_edges <= net.n_edges]]),
        "train_seconds": seconds,
        "examples_per_second": rate,
        "epochs_trained": seen / n_examples,
        "interrupted": interrupted,
        "examples_left_out": int(history.batch_skipped.sum()),
        "neurons_disconnected": int(np.sum(history.nonfinite_cut >= 0)),
        "files": {role: str(path) for role, path in files.items()},
    }
    record = {"configuration": configuration, "results": results, "history": history.to_dict()}
    write_atomically(files["history"], lambda file: file.write(json.dumps(record).encode()))

    if interrupted:
        complain(f"interrupted after {seen / n_examples:.2f} of {count(recipe.epochs, 'epoch')}; saved what there is"
                 + (", and --resume goes on" if checkpoint else ""))  # fmt: skip
    display.say(
        f"test accuracy {test['accuracy']:.2%} (best {results['best_test_accuracy']:.2%}), "
        f"{seconds:.2f} s of training, {rate:,.0f} examples/s"
    )
    if recipe.sparsity:
        was = f", before {before['accuracy']:.2%}" if before else ""
        left = f"sparsity {net.sparsity:.2%}, {count(net.n_edges, 'edge')} left"
        display.say(f"{left}: test accuracy {test['accuracy']:.2%}{was}")
    if len(history.nonfinite_step):
        cut = int(np.sum(history.nonfinite_cut >= 0))
        display.say(f"not finite: {count(len(history.nonfinite_step) - cut, 'example')} left out, {count(cut, 'neuron')} cut")
    display.say("wrote " + ", ".join(map(str, files.values())))
    if args.json:
        print(json.dumps({**configuration, **results}), flush=True)

    # Who watched the training wants to see its end; a script without a terminal must not wait for a click.
    if display.live is not None and display.live.is_open and sys.stderr.isatty() and not interrupted:
        display.note("close the window to end")
        with contextlib.suppress(KeyboardInterrupt):  # as good a way to end as any, for all is saved
            display.live.wait(history)
    return INTERRUPTED if interrupted else OK


def _prepare_folder(name: str) -> Path:
    """The folder, made and known to be writable: before the training rather than after."""
    folder = Path(name)
    probe = folder / f"probe.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise Failure(f"argument --out: cannot write to {name!r}: {error.strerror}") from None
    for file in (MODEL, HISTORY, PICTURE, CHECKPOINT):
        if (folder / file).is_dir():
            raise Failure(f"argument --out: cannot write {str(folder / file)!r}: it is a folder")
    return folder


# --- evaluate ---------------------------------------------------------------------------------------------------------


def _evaluate(args: argparse.Namespace) -> int:
    threads = args.threads or mlgraph.default_threads()
    net = load_model(args.model)
    data = load_data(args.data)
    check_fit(net, data, args.model)

    test = net.evaluate(data.test_x, data.test_y, n_threads=args.threads)
    predicted = net.predict(data.test_x, n_threads=args.threads)
    n_classes = net.layers[-1].size
    confusion = np.zeros((n_classes, n_classes), np.int64)  # rows: what it is, columns: what it was taken for
    np.add.at(confusion, (data.test_y, predicted), 1)
    examples, right = confusion.sum(axis=1), confusion.diagonal()
    mistakes = confusion - np.diag(right)

    print(f"{args.model}: {describe(net)}")
    print(f"{count(len(predicted), 'test example')}: accuracy {test['accuracy']:.2%}, loss {test['loss']:.4f}\n")
    print("class  examples  accuracy  most often taken for")
    for label in np.flatnonzero(examples):
        most = [f"{other} ({mistakes[label, other]})" for other in _largest(mistakes[label], 3)]
        share = right[label] / examples[label]
        print(f"{label:5}  {examples[label]:8}  {share:8.2%}  {', '.join(most)}".rstrip())
    if mistakes.any():
        pairs = (divmod(int(index), n_classes) for index in _largest(mistakes.ravel(), 5))
        listed = (f"{label} taken for {other} ({mistakes[label, other]})" for label, other in pairs)
        print(f"\n{count(mistakes.sum(), 'mistake')}, most often {', '.join(listed)}")
    if args.json:
        result = {
            "model": args.model,
            "data": args.data,
            "test_accuracy": test["accuracy"],
            "test_loss": finite(test["loss"]),
            "class_accuracy": [float(r / n) if n else None for r, n in zip(right, examples, strict=True)],
            "confusion": confusion.tolist(),
            "edges": net.n_edges,
            "parameters": net.n_parameters,
            "threads": threads,
            "isa": mlgraph.ISA,
        }
        print(json.dumps(result))
    sys.stdout.flush()
    return OK


def _largest(counts: np.ndarray, n: int) -> list[int]:
    """Where the `n` largest counts stand, largest first, without zeros."""
    return [index for index in np.argsort(-counts, kind="stable")[:n].tolist() if counts[index]]


# --- the program ------------------------------------------------------------------------------------------------------


class _Command(NamedTuple):
    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = {
    "train": _Command("train a network and save it; the command if none is named", _add_train_options, _train),
    "evaluate": _Command("say how well a saved network does on the test data", _add_evaluate_options, _evaluate),
    "inspect": _Command("say and draw what the neurons of a saved network do", inspect.add_options, inspect.run),
    "prune": _Command("cut edges of a saved network and train what is left", _add_prune_options, _prune),
}


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        print(f"mlgraph {mlgraph.__version__}")
        return OK
    is_named = bool(words) and not words[0].startswith("-")
    name = words.pop(0) if is_named else "train"
    if name not in COMMANDS:
        *names, last = COMMANDS
        raise Failure(f"argument COMMAND: expected {', '.join(names)} or {last}, came {name!r}")
    command = COMMANDS[name]
    parser = Parser(
        prog=f"python -m mlgraph.mnist {name}",
        description=command.summary,
        epilog="\n".join(["commands:", *(f"  {n:9} {c.summary}" for n, c in COMMANDS.items()), "--version says which this is"]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_options(parser)
    try:
        args = parser.parse(words)
    except Failure as failure:
        unknown, _, rest = str(failure).partition(": ")
        late = not is_named and unknown == "unrecognized arguments" and rest.partition(" ")[0] in COMMANDS
        raise Failure(f"{failure} (a command comes first)") if late else failure from None
    return command.run(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    argv : sequence of str, optional
        Its arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0, or after one line on standard error 2 for a mistake of the user, 1 for anything else that went
        wrong, 130 for an interrupt; 141 if nobody reads the output any more.
    """
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except Failure as failure:
        complain(f"error: {failure}")
        return failure.status
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return READER_GONE
    except (mlgraph.NonFiniteError, OSError) as error:
        complain(f"error: {error}")
    except MemoryError as error:
        complain(f"error: not enough memory: {error}")
    return FAILED


if __name__ == "__main__":
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # it was closed when the process began
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may have bytes that no encoding knows
    status = main()
    if status == READER_GONE:
        # What is left in the buffers must not be written, and fail once more, at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
