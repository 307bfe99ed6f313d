"""What an edit has changed in a graph, kept for `undo`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mlgraph._support.array_types import Float32, Int64
from mlgraph.graph.arrays import Wiring

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph


class Rewired(NamedTuple):
    """What restores the edges of some neurons.

    Attributes
    ----------
    before : Wiring
        The earlier edges of the edited neurons; `place` says which of their present edges each is, -1 if it was cut.
    values : dict of float32, shape (edges,)
        The number of each edge in the parameter vector (""), and in each vector of optimizer state.
    most : int64, shape (neurons,)
        The most edges that each had had by then.
    """

    before: Wiring
    values: dict[str, Float32]
    most: Int64


class Activated(NamedTuple):
    """What restores the activation of a neuron: its earlier code."""

    neuron: int
    code: int


class Biased(NamedTuple):
    """What restores a bias or its absence: its earlier number in each vector; None if there was none."""

    neuron: int
    values: dict[str, float] | None


Change = Rewired | Activated | Biased


class Edit(NamedTuple):
    """What is needed to undo an edit.

    Attributes
    ----------
    changes : list of Rewired, Activated and Biased
        Changes of the sources, the activations and the presence of biases, the last one last.
    nodes : int
        How many there were before the edit; those added since are removed.
    edits : int
        `Graph.edits` after the edit (during the edit, before it): if it differs now, something else was the last change.
    values : dict of float32 arrays, or None
        `mlgraph.graph.arrays.values` before the edit, if they are to be restored.
    around : Edit, optional
        For an edit within another that is still open: the other.
    """

    changes: list[Change]
    nodes: int
    edits: int
    values: dict[str, Float32] | None = None
    around: Edit | None = None


def edited(graph: Graph, changes: Sequence[Change] = (), *, nodes: int | None = None, **attributes: Any) -> None:
    """Keep what is needed to undo an edit, before which there were so many nodes, or all; set `attributes` of the graph.

    At one blow: neither a signal nor a failed allocation finds a part of it.
    """
    own, edits = vars(graph), attributes.get("edits", graph.edits)
    if changes:
        attributes["_n_changes"] = graph._n_changes + 1
    if graph._open is None:
        attributes["last_edit"] = Edit(list(changes), len(graph) if nodes is None else nodes, edits)
    else:
        graph._open.changes.extend(changes)
    own.update(attributes)
