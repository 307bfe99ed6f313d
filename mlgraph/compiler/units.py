"""Units: the runs of parameters that the second phase of a step shares out among threads (``_units.pxi``)."""

from __future__ import annotations

import itertools

import numpy as np

import mlgraph_ext
from mlgraph._support.array_types import Int64
from mlgraph.compiler.instructions import KINDS, PANELS_AT_ONCE, Rows
from mlgraph.compiler.plan import Plan
from mlgraph.graph.storage import PANEL, padded

NUMBERS = 2048
"""About how many parameters a unit has without panels: those of rows, and those that are nodes."""


def units_of(plan: Plan, sparse: bool, ahead: int) -> Int64:
    """Runs of parameters for the second phase of a step.

    Parameters
    ----------
    plan : Plan
    sparse : bool
        Whether dense blocks that read the data skip zeros.
    ahead : int
        For how many threads such blocks are cut into whole panels, or halves of them, whose sums are made ahead; 0: not at
        all. Results do not depend on it.

    Returns
    -------
    int64, shape (units, 6)
        Instruction, part (0 weights, 1 bias, 2 both and ahead), the first source, neuron or node and one after the last,
        first panel, panels. The gradient of one unit, or of UNIT_COLUMNS of it, stays in the L1 cache where it is stored.
    """
    units = []
    for i, ins in plan.trained:
        if ins.kind == KINDS["dense"]:
            panels = -(-ins.size // PANEL)
            if ahead and ins.reads_data:
                middle = mlgraph_ext.sweep.middle_column(ins.arity)
                halves = [(0, middle), (middle, ins.arity)] if ins.halves == 2 and ahead > 1 else [(0, ins.arity)]
                shares = -(-ahead // len(halves))
                groups = min(panels, shares * -(-panels // (shares * PANELS_AT_ONCE)))
                cuts = (np.arange(groups + 1) * panels // groups).tolist()
                whole = mlgraph_ext.sweep.WHOLE_UNIT
                units += [(i, whole, k, z, p, q - p) for p, q in itertools.pairwise(cuts) for k, z in halves]
                continue
            step = mlgraph_ext.sweep.UNIT_COLUMNS if sparse and ins.reads_data else 64
            units += [
                (i, 0, k, min(k + step, ins.arity), p, min(PANELS_AT_ONCE, panels - p))
                for k in range(0, ins.arity, step)
                for p in range(0, panels, PANELS_AT_ONCE)
            ]
            if ins.bias >= 0:
                units += [(i, 1, 0, 0, p, min(64, panels - p)) for p in range(0, panels, 64)]
        elif ins.kind == KINDS["rows"]:
            units += [(i, 0, a, b, 0, 0) for a, b in _runs(plan.rows(ins))]
            if ins.bias >= 0:
                units += [(i, 1, a, min(a + NUMBERS, ins.size), 0, 0) for a in range(0, ins.size, NUMBERS)]
        else:
            units += [(i, 0, a, min(a + NUMBERS, ins.size), 0, 0) for a in range(0, ins.size, NUMBERS)]
    return np.array(units, np.int64).reshape(-1, 6)


def unit_floats(plan: Plan, units: Int64) -> int:
    """Floats of the largest gradient among `units`."""
    most, trained = 64, dict(plan.trained)
    for i, part, first, last, _, panels in units:
        ins = trained[i]
        if part == mlgraph_ext.sweep.WHOLE_UNIT:
            most = max(most, min(ins.arity, mlgraph_ext.sweep.UNIT_COLUMNS) * int(panels) * PANEL)
        elif ins.kind == KINDS["dense"] and part == 0:
            most = max(most, int((last - first) * panels * PANEL))
        elif ins.kind == KINDS["rows"] and part == 0:
            most = max(most, int(plan.index[ins.args + last] - plan.index[ins.args + first]))
        else:
            most = max(most, int(last - first), int(panels * PANEL))
    return padded(most)


def _runs(rows: Rows) -> list[tuple[int, int]]:
    """Runs of neurons with about `NUMBERS` edges each; no quad is cut, so that they are the same in any run."""
    begin, alike = rows.begin, rows.alike
    starts = np.append(0, np.flatnonzero(alike[:-1] == 1) + 1)
    place = np.arange(len(alike)) - np.repeat(starts, alike[starts])  # among those with the same sources
    firsts = np.append(np.flatnonzero(place % mlgraph_ext.sweep.QUAD_NEURONS == 0), len(alike))
    cuts = np.searchsorted(begin[firsts], np.arange(NUMBERS, begin[-1], NUMBERS))
    bounds = np.unique([0, *firsts[cuts], len(alike)])
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
