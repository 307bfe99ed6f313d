"""Train a network on MNIST, or on a data set laid out like it, and look at it: ``python -m mlgraph.mnist --help``."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlgraph
from mlgraph.app import evaluate, inspect, prune, train
from mlgraph.app.arguments import Failure, Parser
from mlgraph.app.common import FAILED, INTERRUPTED, OK, READER_GONE, complain

__all__ = ["main"]


class _Command(NamedTuple):
    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = {
    "train": _Command("train a network and save it (the default command)", train.add_options, train.run),
    "evaluate": _Command("print how well a saved network does on the test data", evaluate.add_options, evaluate.run),
    "inspect": _Command("print and draw what the neurons of a saved network do", inspect.add_options, inspect.run),
    "prune": _Command("cut edges of a saved network and train what is left", prune.add_options, prune.run),
}


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        print(f"mlgraph {mlgraph.__version__}")
        return OK
    is_named = bool(words) and not words[0].startswith("-")
    name = words.pop(0) if is_named else "train"
    if name not in COMMANDS:
        *names, last = COMMANDS
        raise Failure(f"argument COMMAND: expected {', '.join(names)} or {last}, got {name!r}")
    command = COMMANDS[name]
    parser = Parser(
        prog=f"python -m mlgraph.mnist {name}",
        description=command.summary,
        epilog="\n".join(
            ["commands:", *(f"  {n:9} {c.summary}" for n, c in COMMANDS.items()), "--version prints the version"]
        ),
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
    told: set[str] = set()

    def tell(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in told:  # several functions may be given the same data
            complain(str(message))
        told.add(str(message))

    try:
        with warnings.catch_warnings():
            warnings.showwarning = tell
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
        is_of_stream = error.errno is not None and error.filename is None  # files are named
        complain(f"error: {error}" + (": standard output" if is_of_stream else ""))
    except (mlgraph.NonFiniteError, Warning) as error:  # with python -W error, a warning is raised
        complain(f"error: {error}")
    except MemoryError as error:
        complain(f"error: not enough memory: {error}".removesuffix(": "))
    return FAILED


if __name__ == "__main__":
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed when the process began
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may have bytes that no encoding knows
    status = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # What is left in the buffers must not be written, and fail once more, at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)
