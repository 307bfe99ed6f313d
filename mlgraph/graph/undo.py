"""Taking back the last edit, or one that an exception has ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from mlgraph._support.checks import plain
from mlgraph._support.interrupts import uninterrupted
from mlgraph.graph.arrays import parameter_places, values, wiring
from mlgraph.graph.changes import Activated, Biased, Change, Edit, Rewired
from mlgraph.graph.compaction import pack, shared_lists
from mlgraph.graph.edits import activate, check_paths, give_bias, rewire, with_lists
from mlgraph.graph.graph import Graph
from mlgraph.graph.storage import FROZEN
from mlgraph.graph.topology import Topology


@contextmanager
def one_edit(graph: Graph, *, parameters: bool) -> Iterator[None]:
    """See `Graph.one_edit`."""
    with graph.lock:
        around, last = graph._open, graph.last_edit
        kept = values(graph) if parameters else None
        mine, over = Edit([], len(graph), graph.edits, kept, around), False
        try:
            graph._open = mine
            yield
            with uninterrupted():
                graph.last_edit = mine._replace(edits=graph.edits)
                if around is not None:
                    around.changes.extend(mine.changes)
                graph._open, over = around, True
        except BaseException:
            with uninterrupted():
                if not over:  # else this is a Ctrl-C that waited until the edit was over
                    graph._open, kept_last = None, None
                    try:
                        take_back(graph, mine)
                        if last is not None and last.edits == mine.edits and len(graph) == mine.nodes:
                            kept_last = last._replace(edits=graph.edits)
                    finally:  # even if no memory is left for that: then it is up to the edit around this one
                        if around is not None:
                            around.changes.extend(mine.changes)
                        graph.last_edit, graph._open = kept_last, around
            raise


def undo(graph: Graph) -> None:
    """Take back the last edit: edges that were cut return with their weights and state, edges that were added go.

    Raises
    ------
    ValueError
        If an edit is open; if the last change of the graph was no edit, or added neurons that are outputs of a model; if
        undoing it would leave an output without a live source.
    """
    last = graph.last_edit
    if graph._open is not None:
        raise ValueError("undo: expected an edit that is over, got one within one_edit")
    if last is None or last.edits != graph.edits:
        got = "none: one edit is kept, the last" if last is None else "a later change that is none, such as a new node"
        raise ValueError(f"undo: expected an edit as the last change of the graph, got {got}")
    added = [i for i in graph.sinks() if i >= last.nodes]
    if added:
        name = plain(graph[min(added)].name)
        raise ValueError(f"undo: expected a last edit that added no outputs of a model, got one that added {name}")
    check_paths(graph, "undo", _as_before(graph, last))  # a model may have come since
    with uninterrupted():  # else what has been taken back so far would be an edit itself
        take_back(graph, last)
        graph.last_edit = None


def forget_state(graph: Graph, names: Sequence[str]) -> None:
    """Drop optimizer state of these names, also from what edits keep for `undo`: a run begins with new state."""
    last, edit = graph.last_edit, graph._open
    changes: list[Change] = [] if last is None else [*last.changes]
    while edit is not None:
        changes += edit.changes
        edit = edit.around
    # In place, since an open edit also holds the edit before it. The values that an open edit keeps are all restored.
    kept = [graph.storage.state, None if last is None else last.values]
    for vectors in [*kept, *(c.values for c in changes if not isinstance(c, Activated))]:
        if vectors is not None:
            for name in names:
                vectors.pop(name, None)


def _as_before(graph: Graph, edit: Edit) -> Topology:
    """The sources of all nodes once an edit is taken back."""
    topology = graph.topology()
    for change in reversed(edit.changes):
        if isinstance(change, Rewired):
            topology = with_lists(topology, change.before, shared_lists(change.before))
    return topology


def take_back(graph: Graph, edit: Edit) -> None:
    """Restore all as it was before an edit; if a model has one of the added nodes for an output, all added nodes stay.

    Signals must wait meanwhile.
    """
    while edit.changes:
        change = edit.changes[-1]
        if isinstance(change, Activated):
            activate(graph, *change)
        elif isinstance(change, Biased):
            give_bias(graph, *change)
        else:
            now, lists = wiring(graph, change.before.neurons), shared_lists(change.before)
            rewire(graph, now, change.before, lists, change.values, change.most)
        edit.changes.pop()  # only now: there may have been no memory for it
    if len(graph) > edit.nodes > max(graph.sinks(), default=-1):
        graph._n_changes, graph.edits = graph._n_changes + 1, graph.edits + 1
        graph._keep(edit.nodes)
        for model in graph.models:
            model.forget_nodes(edit.nodes)
    if edit.values is not None:
        storage, places = graph.storage, parameter_places(graph, np.arange(edit.nodes))
        storage.freeze(places, False)
        for name in storage.state.keys() - edit.values.keys() - {FROZEN}:
            # There was no such state then: a run in progress continues from zeros.
            del storage.state[name]
            if graph.is_training:
                storage.state_vector(name, fresh=True)
        for name, given in edit.values.items():
            (storage.state_vector(name, fresh=False) if name else storage.vector)[places] = given
        storage.moves += 1  # a run in progress looks at its velocities anew
    pack(graph)  # the room of added neurons is unused now
