"""The records of edits from which `undo` and `redo` restore a graph."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Int32, Int64
from mlgraph.graph.arrays import NewWiring
from mlgraph.graph.storage import NO_OPTIMIZER

if TYPE_CHECKING:
    from mlgraph.graph.graph import Graph
    from mlgraph.graph.protocols import LayerOfGraph, ModelOfGraph

UNDO_MEMORY = 64 * 2**20
"""Default of `Graph.undo_memory`, in bytes."""

SMALL_OBJECT = 100
"""Bytes of memory that an object of Python takes besides the numbers in it, roughly."""


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


class Noted(NamedTuple):
    """Restores `ModelOfGraph.needed_before` of models: what each had before the change."""

    needed_before: list[tuple[ref[ModelOfGraph], Bool]]


class Differentiated(NamedTuple):
    """Restores `NodeTable.differentiated`."""

    before: array[int]


Change = Rewired | Activated | Biased | Noted | Differentiated


class Removed(NamedTuple):
    """Restores the last nodes of a graph, which `undo` has removed, with their ids.

    Attributes
    ----------
    codes, counts, data, born
        Columns of the nodes, as in `mlgraph.graph.nodes`.
    start : int64, shape (nodes,)
        Where the sources of each begin in `pool`.
    pool : int32
    constants : float64
        The values of the constants among them.
    names : dict of str
    has_bias, max_sources : bool and int64, shape (records,)
    values : dict of float32
        Their parameters (named "") and the state of these, in the order of `parameter_places`.
    layers : list
        The layers that they were in or were read by, and `ids` and `source_ids` of each.
    """

    codes: npt.NDArray[np.int16]
    counts: Int32
    data: Int64
    born: Int64
    start: Int64
    pool: Int32
    constants: npt.NDArray[np.float64]
    names: dict[int, str]
    has_bias: Bool
    max_sources: Int64
    values: dict[str, Float32]
    layers: list[tuple[ref[LayerOfGraph], list[int], list[int]]]


@dataclass(slots=True, eq=False)
class Edit:
    """What is needed to take back an edit, or to make an edit again that was taken back.

    Attributes
    ----------
    changes : list of Change
        In the order in which they were made, after those of the open edit that contains this one.
    nodes : int
        Number of nodes before the edit; later nodes are removed when it is taken back.
    first : int
        Index of the edit's own first change.
    values : dict of float32 arrays, or None
        `mlgraph.graph.arrays.values` before the edit, if they are to be restored.
    optimizer : (str, int)
        `Storage.optimizer` at that time.
    removed : Removed, optional
        The nodes that the edit removed. Only what takes back an edit removes nodes.
    after : int
        Number of nodes after the edit. If it differs from the present number, the graph has changed
        since, and the edit cannot be taken back.
    previous : Edit, optional
        The edit before it, unless the graph had changed between the two.
    size, total : int
        Bytes of memory that the edit takes, and that it takes together with those before it.
    """

    changes: list[Change]
    nodes: int
    first: int = 0
    values: dict[str, Float32] | None = None
    optimizer: tuple[str, int] = NO_OPTIMIZER
    removed: Removed | None = None
    after: int = 0
    previous: Edit | None = None
    size: int = 0
    total: int = 0

    def closed(self, after: int, previous: Edit | None) -> Edit:
        """The edit when it is complete; `after` and `previous` as above."""
        self.after, self.previous = after, previous
        self.size = 2 * SMALL_OBJECT + memory_of((self.changes, self.values, self.removed))
        self.total = self.size + (0 if previous is None else previous.total)
        return self

    def forget_oldest(self, limit: int) -> None:
        """Forget the oldest edits before this one if all together take more than `limit` bytes."""
        if self.total <= limit:
            return
        # To somewhat less than the limit, so that not every edit walks along all those before it.
        kept, edit = [self], self
        room = limit - limit // 8 - self.size
        while edit.previous is not None and edit.previous.size <= room:
            edit = edit.previous
            room -= edit.size
            kept.append(edit)
        edit.previous, total = None, 0
        for edit in reversed(kept):
            total += edit.size
            edit.total = total


def memory_of(thing: Any) -> int:
    """Bytes of memory that a record takes, roughly."""
    total, parts = 0, [thing]
    while parts:
        part = parts.pop()
        if isinstance(part, np.ndarray):
            total += part.nbytes + SMALL_OBJECT
        elif isinstance(part, dict):
            total += SMALL_OBJECT
            parts += part.values()
        elif isinstance(part, (list, tuple)):  # a union would take longer than the rest
            total += SMALL_OBJECT
            parts += part
        else:
            total += 8
    return total


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
        edit = Edit(list(changes), len(graph) if nodes is None else nodes)
        attributes |= recorded(graph, edit)
    else:
        graph._open.changes.extend(changes)
    vars(graph).update(attributes)


def recorded(graph: Graph, edit: Edit) -> dict[str, Any]:
    """The attributes of a graph whose last edit this is; the edits that were undone cannot be redone any more."""
    last = graph.last_edit
    edit.closed(len(graph), last if last is not None and last.after == edit.nodes else None)
    edit.forget_oldest(graph.undo_memory)
    return {"last_edit": edit, "undone_edit": None}
