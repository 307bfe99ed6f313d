"""The record of an edit that `undo` needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mlgraph._support.array_types import Float32, Int64
from mlgraph.graph.arrays import NewWiring

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph


class Rewired(NamedTuple):
    """Restores the edges of some neurons.

    Attributes
    ----------
    before : NewWiring
        The edges before the change; its `previous` refers to the edges after the change.
    values : dict of float32, shape (edges,)
        The value of each of these edges in the parameter vector (named "") and in each state
        vector.
    most : int64, shape (neurons,)
        `Storage.max_sources` of each neuron before the change.
    """

    before: NewWiring
    values: dict[str, Float32]
    most: Int64


class Activated(NamedTuple):
    """Restores the activation of a neuron: its code before the change."""

    neuron: int
    code: int


class Biased(NamedTuple):
    """Restores a bias: its value in each vector before the change, or None if the neuron had no bias."""

    neuron: int
    values: dict[str, float] | None


Change = Rewired | Activated | Biased


class Edit(NamedTuple):
    """What is needed to undo an edit.

    Attributes
    ----------
    changes : list of Rewired, Activated and Biased
        In the order in which they were made, after those of the open edit that contains this one.
    first : int
        Index of the edit's own first change.
    nodes : int
        Number of nodes before the edit; later nodes are removed.
    edits : int
        `Graph.edits` after the edit, or before it while it is open. If it differs from the present
        count, the graph has changed since, and the edit cannot be undone.
    values : dict of float32 arrays, or None
        `mlgraph.graph.arrays.values` before the edit, if `undo` is to restore them.
    """

    changes: list[Change]
    first: int
    nodes: int
    edits: int
    values: dict[str, Float32] | None = None


def edited(graph: Graph, changes: Sequence[Change] = (), *, nodes: int | None = None, **attributes: Any) -> None:
    """Record an edit and set attributes of the graph; neither a signal nor a MemoryError can leave half of it.

    Parameters
    ----------
    nodes : int, optional
        Number of nodes before the edit; by default the present number.
    """
    if changes:
        attributes["_n_changes"] = graph._n_changes + 1
    if graph._open is None:
        edits = attributes.get("edits", graph.edits)
        attributes["last_edit"] = Edit(list(changes), 0, len(graph) if nodes is None else nodes, edits)
    else:
        graph._open.changes.extend(changes)
    vars(graph).update(attributes)
