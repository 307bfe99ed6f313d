"""Undoing an edit: the last one, or one that an exception has ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from mlgraph._support.interrupts import uninterrupted
from mlgraph.graph.arrays import parameter_places, values, wiring
from mlgraph.graph.changes import Activated, Biased, Edit, Rewired
from mlgraph.graph.compaction import compact
from mlgraph.graph.edits import activate, check_paths, give_bias, rewire, with_edges
from mlgraph.graph.graph import Graph
from mlgraph.graph.randomness import generator_at, state_of
from mlgraph.graph.storage import FROZEN
from mlgraph.graph.topology import Topology
from mlgraph.graph.views import name_of


@contextmanager
def one_edit(graph: Graph, *, parameters: bool) -> Iterator[None]:
    """See `Graph.one_edit`."""
    with graph.lock:
        around, last = graph._open, graph.last_edit
        kept = values(graph) if parameters else None
        random = state_of(graph.random)
        changes = [] if around is None else around.changes
        mine, over = Edit(changes, len(changes), len(graph), graph.edits, kept), False
        try:
            graph._open = mine
            yield
            with uninterrupted():
                graph.last_edit = mine._replace(edits=graph.edits)
                graph._open, over = around, True
        except BaseException:
            with uninterrupted():
                if not over:  # otherwise this is a Ctrl-C that was deferred until the edit was complete
                    graph._open, kept_last = None, None
                    try:
                        take_back(graph, mine)
                        graph.random = generator_at(random)
                        if last is not None and last.edits == mine.edits and len(graph) == mine.nodes:
                            kept_last = last._replace(edits=graph.edits)
                    finally:  # after a MemoryError, the edit around this one takes back the rest
                        graph.last_edit, graph._open = kept_last, around
            raise


def undo(graph: Graph) -> None:
    """See `Graph.undo`."""
    last = graph.last_edit
    if graph._open is not None:
        raise ValueError("undo: not possible within one_edit")
    if last is None:
        raise ValueError("undo: nothing to undo; only the last edit is kept")
    if last.edits != graph.edits:
        raise ValueError("undo: the graph has changed since its last edit, for example by a new node")
    added = [i for i in graph.sinks() if i >= last.nodes]
    if added:
        name = name_of(graph, min(added))
        raise ValueError(f"undo: the last edit added {name}, which is an output of a model")
    check_paths(graph, "undo", _as_before(graph, last))  # a model may have been made since
    with uninterrupted():  # an interrupted `take_back` would itself count as an edit
        take_back(graph, last)
        graph.last_edit = None


def forget_state(graph: Graph, names: Sequence[str]) -> None:
    """Drop the optimizer state of these names, also from what `undo` would restore, when a run begins."""
    last, edits = graph.last_edit, (graph.last_edit, graph._open)
    changes = [change for edit in edits if edit is not None for change in edit.changes]
    # In place, because an open edit also holds the edit before it. The values of an open edit are
    # restored in full.
    kept = [graph.storage.state, None if last is None else last.values]
    for vectors in [*kept, *(c.values for c in changes if not isinstance(c, Activated))]:
        if vectors is not None:
            for name in names:
                vectors.pop(name, None)


def _as_before(graph: Graph, edit: Edit) -> Topology:
    """The sources of all nodes before an edit."""
    topology = graph.topology()
    for change in reversed(edit.changes[edit.first :]):
        if isinstance(change, Rewired):
            topology = with_edges(topology, change.before)
    return topology


def take_back(graph: Graph, edit: Edit) -> None:
    """Restore the graph as it was before an edit, while signals are deferred.

    If a node that the edit added is a sink of a model, all added nodes stay.
    """
    while len(edit.changes) > edit.first:
        change = edit.changes[-1]
        if isinstance(change, Activated):
            activate(graph, *change)
        elif isinstance(change, Biased):
            give_bias(graph, *change)
        else:
            now = wiring(graph, change.before.neurons)
            rewire(graph, now, change.before, change.values, change.most)
        edit.changes.pop()  # only after it succeeded: it may have raised MemoryError
    if len(graph) > edit.nodes > max(graph.sinks(), default=-1):
        graph._n_changes, graph.edits = graph._n_changes + 1, graph.edits + 1
        graph._truncate(edit.nodes)
        for model in graph.models:
            model.forget_nodes(edit.nodes)
    if edit.values is not None:
        storage, places = graph.storage, parameter_places(graph, np.arange(edit.nodes))
        storage.freeze(places, False)
        for name in storage.state.keys() - edit.values.keys() - {FROZEN}:
            # This state did not exist then: a run in progress continues from zeros.
            del storage.state[name]
            if graph.is_training:
                storage.state_vector(name, fresh=True)
        for name, given in edit.values.items():
            (storage.state_vector(name, fresh=False) if name else storage.vector)[places] = given
        storage.moves += 1  # makes a run in progress look up its state again
    compact(graph)  # reclaims the space of the removed neurons
