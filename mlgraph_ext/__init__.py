"""The compiled sweeps: picks the best build that this processor can run (MLGRAPH_ISA overrides).

A build uses its instruction set from its first line, initialisation included: to import one that the processor lacks
is a crash, not an exception. So the choice is made by `_cpu`, which every processor runs.
"""

import os
from importlib import import_module
from importlib.util import find_spec

try:
    from ._cpu import best
except ModuleNotFoundError:
    raise ImportError(
        f"mlgraph_ext is not compiled in {os.path.dirname(__file__)!r}: "
        "run `pip install -e .` there, or leave that folder to use an installed mlgraph"
    ) from None

_LEVELS = ("baseline", "v2", "v3", "v4")
_runnable = _LEVELS[: _LEVELS.index(best()) + 1]

AVAILABLE = tuple(isa for isa in _runnable if find_spec(f"{__name__}._sweep_{isa}"))
if not AVAILABLE:
    raise ImportError(f"mlgraph_ext has no build that this processor can run: looked for {', '.join(_runnable)}")

ISA = os.environ.get("MLGRAPH_ISA") or AVAILABLE[-1]
if ISA not in AVAILABLE:
    raise ImportError(f"MLGRAPH_ISA: expected one of {', '.join(AVAILABLE)} on this processor, got {ISA!r}")

sweep = import_module(f"{__name__}._sweep_{ISA}")
