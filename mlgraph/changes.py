"""What an edit has changed of a graph, kept for the one that takes it back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from mlgraph.array_types import Float32, Int64
from mlgraph.arrays import Wiring

if TYPE_CHECKING:
    from mlgraph.graph import Graph


class Rewired(NamedTuple):
    """What taking back the edges of some neurons takes.

    Attributes
    ----------
    before : Wiring
        Of the neurons that were edited; `place` says which of their edges now each is, -1 if it was cut.
    values : dict of float32, shape (edges,)
        What stood at each edge in the parameter vector (""), and in each vector of optimizer state.
    most : int64, shape (neurons,)
        The most edges that each had had by then.
    """

    before: Wiring
    values: dict[str, Float32]
    most: Int64


class Activated(NamedTuple):
    """What taking back the activation of a neuron takes: its code before."""

    neuron: int
    code: int


class Biased(NamedTuple):
    """What taking back that a bias came or went takes: what stood there in each vector before; None if there was none."""

    neuron: int
    values: dict[str, float] | None


Change = Rewired | Activated | Biased


class Edit(NamedTuple):
    """What undoing an edit takes.

    Attributes
    ----------
    changes : list of Rewired, Activated and Biased
        Neurons that were given other sources, another activation, a bias or none; what came last is last.
    nodes, records : int
        How many there were before. What has been added goes.
    edits : int
        `Graph.edits` afterwards (while it is made, before): with another number something else was the last change.
    values : dict of float32 arrays, or None
        `mlgraph.arrays.values` before it, if they are to come back.
    around : Edit, optional
        Of one that is open the one that it is part of.
    """

    changes: list[Change]
    nodes: int
    records: int
    edits: int
    values: dict[str, Float32] | None = None
    around: Edit | None = None


def edited(graph: Graph, nodes: int, records: int, changes: Iterable[Change] = ()) -> None:
    """Keep what undoing an edit takes: before it there were so many nodes and records."""
    if graph._open is not None:
        graph._open.changes.extend(changes)
    else:
        graph._last = Edit(list(changes), nodes, records, graph.edits)
