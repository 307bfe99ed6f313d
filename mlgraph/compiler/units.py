"""The last pass: a plan goes in, units come out.

A unit is a range of parameters whose gradient one thread sums and applies in the second phase of a step.
"""

from __future__ import annotations

import itertools

import numpy as np

import mlgraph_ext
from mlgraph._support.array_types import Int64
from mlgraph.compiler.instructions import KINDS, PANELS_AT_ONCE, Rows
from mlgraph.compiler.plan import Plan
from mlgraph.graph.storage import PANEL

NUMBERS = 2048
"""Approximate number of parameters in a unit of sparse rows or of parameter nodes."""


def units_of(plan: Plan, sparse: bool, ahead: int) -> Int64:
    """Divide the parameters of a plan into units.

    Parameters
    ----------
    plan : Plan
    sparse : bool
        Whether dense blocks that read the data skip zeros.
    ahead : int
        Number of threads for which such blocks are divided by panels, or halves of panels, so that a
        thread can compute the next step's sums right after its update; 0 to divide them by columns.
        Results do not depend on it.

    Returns
    -------
    int64, shape (units, 6)
        Instruction; content (0 weights, 1 bias, 2 both, with sums ahead); first source, neuron or
        node; one after the last; first panel; number of panels. The gradient of a unit, or of
        UNIT_COLUMNS columns of it, fits into the L1 cache.
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


def _runs(rows: Rows) -> list[tuple[int, int]]:
    """Ranges of neurons with about NUMBERS edges each. Quads stay whole, so that all divisions give the same bits."""
    begin, alike = rows.begin, rows.alike
    starts = np.append(0, np.flatnonzero(alike[:-1] == 1) + 1)
    place = np.arange(len(alike)) - np.repeat(starts, alike[starts])  # position among neurons with the same sources
    firsts = np.append(np.flatnonzero(place % mlgraph_ext.sweep.QUAD_NEURONS == 0), len(alike))
    cuts = np.searchsorted(begin[firsts], np.arange(NUMBERS, begin[-1], NUMBERS))
    bounds = np.unique([0, *firsts[cuts], len(alike)])
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
