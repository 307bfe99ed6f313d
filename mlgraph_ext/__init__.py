"""How is it computed fast? By these kernels, in the best build that the processor can run.

Read `_sweep.pyx` first: the design list at its head introduces the words used everywhere. Next come
`_step.pxi`, the page that shows how steps run, with its two halves (`_tiles.pxi`, `_units.pxi`) and
`schedule.h`. Then the data that kernels share (`_vector.pxi`, `_program.pxi`, `_memory.pxi`,
`_request.pxi`) and the classes that Python calls (`_calls.pxi`), then the kernels:
`_dense.pxi`; `_entries.pxi` and `_runs.pxi`; `_rows.pxi` and `_quads.pxi`; `_ops.pxd` and
`_elementwise.pxi`; `_update.pxi`.
Two modules stand alone: `_topology.pyx`, graph algorithms for plans, edits and pruning, with the
passes of the compiler (`_grouping.pxi`, `_layout.pxi`, `_neurons.pxi`), and `_interrupts.pyx`, which
defers signals.

MLGRAPH_ISA overrides the choice of the build. A build uses its instruction set from its first line
on, initialisation included, so importing one that the processor lacks crashes without an exception.
`_cpu`, which every processor can run, therefore makes the choice.
"""

import os
import re
import sys
from importlib import import_module
from importlib.util import find_spec


def _failure(message: str) -> BaseException:
    # `python -m mlgraph.mnist` imports this module before its own code could report an ImportError in one line. At that
    # time sys.argv is "-m" followed by the program's arguments; in sys.orig_argv the module's name precedes them.
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


def _stack_bytes() -> int:
    """Size of the stacks of OpenMP's threads, 0 for that of the system. OpenMP ignores what it cannot read, too."""
    given = [os.environ.get(f"{name}_STACKSIZE", "") for name in ("OMP", "GOMP", "KMP")]
    found = [re.fullmatch(r"\s*(\d+)\s*([bkmg]?)\s*", size, re.ASCII | re.IGNORECASE) for size in given]
    sizes = [int(m[1]) << {"b": 0, "m": 20, "g": 30}.get(m[2].lower(), 10) for m in found if m]
    return max((size for size in sizes if size <= sys.maxsize), default=0)


# GCC's OpenMP reads its environment once, when the first module that uses it is imported. By default
# its threads spin for about 5 milliseconds wherever they wait, before and after a sweep. If another
# process is busy, spinning takes this time from the very threads that they wait for.
_SPINS = "GOMP_SPINCOUNT"
_ours = not {_SPINS, "OMP_WAIT_POLICY"} & os.environ.keys()
if _ours:
    os.environ[_SPINS] = "5000"  # about 100 microseconds
STACK_BYTES = _stack_bytes()
_affinity = os.sched_getaffinity if hasattr(os, "sched_getaffinity") else lambda _: set()
_before = _affinity(0)
try:
    sweep = import_module(f"{__name__}._sweep_{ISA}")
finally:
    if _ours:
        del os.environ[_SPINS]
AFFINITY = _before, _affinity(0)  # with OMP_PROC_BIND, the import binds this thread to one processor
