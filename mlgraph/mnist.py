"""Train a network on MNIST, or a data set laid out like it, and look at it: ``python -m mlgraph.mnist --help``."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlgraph
from mlgraph.app import evaluate, inspect, prune, sweep, train
from mlgraph.app.arguments import Failure, Parser
from mlgraph.app.common import FAILED, INTERRUPTED, OK, READER_GONE, complain, version_here

__all__ = ["main"]


class _Command(NamedTuple):
    summary: str
    usage: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = {
    "train": _Command("train a new network and save it", "[train] [options]", train.add_options, train.run),
    "evaluate": _Command(
        "print test accuracy of a saved network and which classes it confuses",
        "evaluate MODEL [options]",
        evaluate.add_options,
        evaluate.run,
    ),
    "inspect": _Command(
        "print and draw what the neurons of a saved network do",
        "inspect MODEL [options]",
        inspect.add_options,
        inspect.run,
    ),
    "prune": _Command(
        "cut edges of a saved network while training it further",
        "prune MODEL --sparsity X [options]",
        prune.add_options,
        prune.run,
    ),
    "sweep": _Command(
        "train a network for each of several seeds and sparsities, and compare them",
        "sweep [options]",
        sweep.add_options,
        sweep.run,
    ),
}

PROGRAM = "python -m mlgraph.mnist"

OVERVIEW = "\n".join(
    [
        "Train a network on the MNIST images of handwritten digits, which the package",
        "contains, and look at it.",
        "",
        "commands:",
        *(f"  {name:9} {command.summary}" for name, command in COMMANDS.items()),
        "",
        "The default command is train, whose options follow. --version shows the version,",
        f"`{PROGRAM} COMMAND --help` the options of another command.",
    ]
)


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        print(f"mlgraph {version_here()}")
        return OK
    is_named = bool(words) and not words[0].startswith("-")
    name = words.pop(0) if is_named else "train"
    if name not in COMMANDS:
        *names, last = COMMANDS
        raise Failure(f"argument COMMAND: expected {', '.join(names)} or {last}, got {name!r}")
    command = COMMANDS[name]
    parser = Parser(
        usage=f"{PROGRAM} {command.usage}",
        description=f"{command.summary.capitalize()}." if is_named else OVERVIEW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_options(parser)
    try:
        args = parser.parse(words)
    except Failure as failure:
        problem, _, rest = str(failure).partition(": ")
        if not is_named and problem == "unrecognized arguments" and rest.partition(" ")[0] in COMMANDS:
            raise Failure(f"{failure} (the command must come first)") from None
        raise
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
        Exit status: 0 for success, 2 for incorrect usage, 1 for any other error, 130 for an
        interrupt, and 141 if standard output is a closed pipe. An error is one line on standard
        error.
    """
    shown: set[str] = set()

    def show_once(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in shown:  # several functions may warn about the same data
            complain(str(message))
        shown.add(str(message))

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_once
            warnings.filterwarnings("default", "checkpoint: ", RuntimeWarning)
            return _run(list(sys.argv[1:] if argv is None else argv))
    except Failure as failure:
        complain(f"error: {failure}")
        return failure.status
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return READER_GONE
    except OSError as error:
        is_of_stream = error.errno is not None and error.filename is None  # errors of files have a name
        complain(f"error: {error}" + (": standard output" if is_of_stream else ""))
    except (mlgraph.NonFiniteError, Warning) as error:  # python -W error raises warnings
        complain(f"error: {error}")
    except MemoryError as error:
        complain(f"error: not enough memory: {error}".removesuffix(": "))
    return FAILED


if __name__ == "__main__":
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before the process began
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may contain bytes that are not text
    status = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # Discard the rest of the buffer, or Python fails once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)
