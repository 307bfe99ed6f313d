"""The compiled sweeps: picks the best build that this processor can run (MLGRAPH_ISA overrides).

A build uses its instruction set from its first line, initialisation included: importing one that the processor lacks crashes,
without an exception. So the choice is made by `_cpu`, which every processor runs.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec


def _failure(message: str) -> BaseException:
    # `python -m mlgraph.mnist` imports this before any code of its own runs that could turn an ImportError into one line.
    # At that time sys.argv is "-m" and the program's arguments, and sys.orig_argv has the module's name before these.
    module = sys.orig_argv[len(sys.orig_argv) - len(sys.argv)] if sys.argv[:1] == ["-m"] else ""
    if module.removeprefix("-m").startswith("mlgraph."):
        print(f"mlgraph: error: {message}", file=sys.stderr)
        return SystemExit(2)
    return ImportError(message)


try:
    from ._cpu import best
except ModuleNotFoundError:
    raise _failure(
        f"mlgraph_ext is not compiled for this Python in {os.path.dirname(os.path.dirname(__file__))!r}: "
        "run `pip install -e .` there, or leave that folder to use an installed mlgraph"
    ) from None

_LEVELS = ("baseline", "v2", "v3", "v4")
_runnable = _LEVELS[: _LEVELS.index(best()) + 1]

AVAILABLE = tuple(isa for isa in _runnable if find_spec(f"{__name__}._sweep_{isa}"))
if not AVAILABLE:
    raise _failure(f"mlgraph_ext has no build that this processor can run: looked for {', '.join(_runnable)}")

ISA = os.environ.get("MLGRAPH_ISA") or AVAILABLE[-1]
if ISA not in AVAILABLE:
    raise _failure(f"MLGRAPH_ISA: expected one of {', '.join(AVAILABLE)} on this processor, got {ISA!r}")

# GCC's OpenMP reads its environment once, when the first module that uses it loads it. By default its threads then spin for
# about 5 milliseconds wherever they wait, before and after a sweep; beside a busy process, they take this time from the threads
# that they wait for.
_SPINS = "GOMP_SPINCOUNT"
_ours = not {_SPINS, "OMP_WAIT_POLICY"} & os.environ.keys()
if _ours:
    os.environ[_SPINS] = "5000"  # some 100 microseconds
_affinity = os.sched_getaffinity if hasattr(os, "sched_getaffinity") else lambda _: set()
_before = _affinity(0)
try:
    sweep = import_module(f"{__name__}._sweep_{ISA}")
finally:
    if _ours:
        del os.environ[_SPINS]
AFFINITY = _before, _affinity(0)  # with OMP_PROC_BIND, the import has bound this thread to one processor
