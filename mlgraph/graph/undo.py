"""Undoing and redoing edits, and taking back one that an exception has ended.

Taking back an edit is a sequence of changes, too. Their records are an edit that takes this back in
turn: so `redo` is `undo` of an `undo`. The edits that can be undone are a linked list that begins at
`Graph.last_edit`, and those that can be redone one that begins at `Graph.undone_edit`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import ref

import numpy as np

from mlgraph._support.interrupts import uninterrupted
from mlgraph.graph.arrays import parameter_places, values, wiring
from mlgraph.graph.changes import Activated, Biased, Differentiated, Edit, Noted, Removed, Rewired, edited, recorded
from mlgraph.graph.compaction import compact, once_each
from mlgraph.graph.edits import activate, check_paths, give_bias, mark_differentiated, rewire, with_edges
from mlgraph.graph.graph import Graph
from mlgraph.graph.nodes import adds_nodes
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER
from mlgraph.graph.randomness import generator_at, state_of
from mlgraph.graph.storage import FROZEN, NO_OPTIMIZER, extend
from mlgraph.graph.topology import Topology
from mlgraph.graph.views import name_of


@contextmanager
def one_edit(graph: Graph, *, parameters: bool) -> Iterator[None]:
    """See `Graph.one_edit`."""
    with graph.lock:
        around = graph._open
        kept = values(graph) if parameters else None
        random = state_of(graph.random)
        changes = [] if around is None else around.changes
        mine, over = Edit(changes, len(graph), len(changes), kept, graph.storage.optimizer), False
        try:
            graph._open = mine
            yield
            with uninterrupted():
                attributes = {} if around is not None else recorded(graph, mine)
                vars(graph).update(attributes, _open=around)
                over = True
        except BaseException:
            with uninterrupted():
                if not over:  # otherwise this is a Ctrl-C that was deferred until the edit was complete
                    graph._open = Edit([], 0)  # takes the records of what `take_back` does
                    try:
                        take_back(graph, mine)
                        graph.random = generator_at(random)
                    except BaseException:
                        # After a MemoryError, the edit around this one takes back the rest.
                        graph.last_edit = graph.undone_edit = None
                        raise
                    finally:
                        graph._open = around
            raise


def undo(graph: Graph) -> None:
    """See `Graph.undo`."""
    edit = _to_reverse(graph, "undo", graph.last_edit)
    added = [i for i in graph.sinks() if i >= edit.nodes]
    if added:
        name = name_of(graph, min(added))
        raise ValueError(f"undo: the last edit added {name}, which is an output of a model")
    _check_paths(graph, "undo", edit)
    _reverse(graph, edit, "last_edit", "undone_edit")


def redo(graph: Graph) -> None:
    """See `Graph.redo`."""
    edit = _to_reverse(graph, "redo", graph.undone_edit)
    _check_paths(graph, "redo", edit)
    _reverse(graph, edit, "undone_edit", "last_edit")


def _to_reverse(graph: Graph, who: str, edit: Edit | None) -> Edit:
    """The edit that `who`, "undo" or "redo", is to reverse; ValueError if there is none."""
    if graph._open is not None:
        raise ValueError(f"{who}: not possible within one_edit")
    if edit is None:
        why = (
            "every edit since the last other change is undone"
            if who == "undo"
            else "a new edit ends what can be redone"
        )
        raise ValueError(f"{who}: nothing to {who}; {why}")
    if edit.after != len(graph):
        raise ValueError(f"{who}: the graph has changed since its last edit, for example by a new node")
    return edit


def _check_paths(graph: Graph, who: str, edit: Edit) -> None:
    """ValueError if reversing an edit would disconnect an output; a model may have been made since."""
    topology, codes, new = graph.topology(), graph.codes, edit.removed
    if new is not None:
        start, counts, pool = topology
        start = np.concatenate([start, len(pool) + new.start])
        topology = Topology(start, np.concatenate([counts, new.counts]), np.concatenate([pool, new.pool]))
        codes = np.concatenate([codes, new.codes])
    for change in reversed(edit.changes[edit.first :]):
        if isinstance(change, Rewired):
            topology = with_edges(topology, change.before)
    check_paths(graph, who, topology, codes)


def _reverse(graph: Graph, edit: Edit, taken_from: str, added_to: str) -> None:
    """Reverse an edit that is the first of one list, and add what reverses this in turn to the other list."""
    with uninterrupted():
        kept = None if edit.values is None else values(graph)
        back = graph._open = Edit([], len(graph), values=kept, optimizer=graph.storage.optimizer)
        try:
            if edit.removed is not None:
                _return_nodes(graph, edit.removed)
            take_back(graph, Edit(edit.changes[edit.first :], edit.nodes, values=edit.values, optimizer=edit.optimizer))
            back.closed(len(graph), getattr(graph, added_to))
            vars(graph).update({taken_from: edit.previous, added_to: back, "_open": None})
        except BaseException:  # a MemoryError
            graph._open = Edit([], len(graph))
            try:
                if back.removed is not None:
                    _return_nodes(graph, back.removed)
                take_back(graph, back)
            except BaseException:
                graph.last_edit = graph.undone_edit = None
                raise
            finally:
                graph._open = None
            raise
        forget_oldest(graph)


def forget_oldest(graph: Graph) -> None:
    """Forget the oldest edits if they take more memory than allowed, first of those that can be undone."""
    edits = [edit for edit in (graph.last_edit, graph.undone_edit) if edit is not None]
    for edit in edits:
        edit.forget_oldest(max(0, graph.undo_memory - sum(other.total for other in edits if other is not edit)))


def forget_state(graph: Graph, names: Sequence[str]) -> None:
    """Drop the optimizer state of these names, also from what can be restored, when a run begins."""
    # In place, because an open edit also holds the edits around it. The values of an open edit are
    # restored in full.
    kept: list[dict[str, Any]] = [graph.storage.state]
    changes = [] if graph._open is None else [*graph._open.changes]
    for edit in (graph.last_edit, graph.undone_edit):
        while edit is not None:
            changes += edit.changes
            edit.optimizer = NO_OPTIMIZER
            kept += [vectors for vectors in (edit.values, edit.removed and edit.removed.values) if vectors]
            edit = edit.previous
    kept += [change.values for change in changes if isinstance(change, Rewired | Biased) and change.values]
    for vectors in kept:
        for name in names:
            vectors.pop(name, None)


def take_back(graph: Graph, edit: Edit) -> None:
    """Restore the graph as it was before an edit, while signals are deferred.

    The open edit gets the records that reverse this.
    If a node that the edit added is a sink of a model, all added nodes stay.
    """
    added_stay = max(graph.sinks(), default=-1) >= edit.nodes
    while len(edit.changes) > edit.first:
        change = edit.changes[-1]
        if isinstance(change, Activated):
            activate(graph, *change)
        elif isinstance(change, Biased):
            give_bias(graph, *change)
        elif isinstance(change, Differentiated):
            if not added_stay:
                mark_differentiated(graph, change.before)
        elif isinstance(change, Noted):
            _restore_needed(graph, change)
        else:
            now = wiring(graph, change.before.neurons)
            rewire(graph, now, change.before, change.values, change.most)
        edit.changes.pop()  # only after it succeeded: it may have raised MemoryError
    if len(graph) > edit.nodes and not added_stay:
        if graph._open is not None:
            graph._open.removed = _last_nodes(graph, edit.nodes)
        graph._n_changes, graph.edits = graph._n_changes + 1, graph.edits + 1
        graph._truncate(edit.nodes)
        for model in graph.models:
            model.forget_nodes(edit.nodes)
    if edit.values is not None:
        storage, places = graph.storage, parameter_places(graph, np.arange(edit.nodes))
        storage.freeze(places, False)
        if FROZEN not in edit.values and len(graph) == edit.nodes:
            storage.state.pop(FROZEN, None)  # unused places may still be marked
        for name in storage.state.keys() - edit.values.keys() - {FROZEN}:
            # This state did not exist then: a run in progress continues from zeros.
            del storage.state[name]
            if graph.is_training:
                storage.state_vector(name, fresh=True)
        for name, given in edit.values.items():
            (storage.state_vector(name, fresh=False) if name else storage.vector)[places] = given
        storage.optimizer = edit.optimizer
        storage.moves += 1  # makes a run in progress look up its state again
    compact(graph)  # reclaims the space of the removed neurons


def _restore_needed(graph: Graph, change: Noted) -> None:
    models = [(model, needed) for of, needed in change.needed_before if (model := of()) is not None]
    edited(graph, [Noted([(ref(model), model.needed_before) for model, _ in models])])
    for model, needed in models:
        model.needed_before = needed


def _last_nodes(graph: Graph, first: int) -> Removed:
    """The nodes from `first` on."""
    nodes, (start, counts, pool), storage = np.arange(first, len(graph)), graph.topology(), graph.storage
    codes, data, places = graph.codes[nodes], graph.records[nodes], parameter_places(graph, nodes)
    record = data[codes >= PARAMETER]
    lists = once_each(start[nodes], counts[nodes], pool, codes < NEURON)
    layers = [layer for model in graph.models for layer in model.layers]
    return Removed(
        codes,
        counts[nodes],
        data,
        np.array(graph.born[first:], np.int64),
        lists.start,
        lists.pool,
        np.array(graph.constants)[data[codes == CONSTANT]],
        {node: name for node, name in graph.names.items() if node >= first},
        np.array(storage.bias, np.int64)[record] >= 0,
        storage.max_sources_of(record),
        {name: vector[places] for name, vector in storage.vectors().items()},
        [
            (ref(layer), layer.ids, layer.source_ids)
            for layer in layers
            if max([*layer.ids, *layer.source_ids], default=-1) >= first
        ],
    )


@adds_nodes
def _return_nodes(graph: Graph, new: Removed) -> None:
    """Add nodes again that were removed."""
    first, storage, data = len(graph), graph.storage, new.data.copy()
    owner = new.codes >= PARAMETER
    data[owner] = len(storage) + np.arange(np.count_nonzero(owner))
    data[new.codes == CONSTANT] = len(graph.constants) + np.arange(len(new.constants))
    if FROZEN in new.values and new.values[FROZEN].any():
        storage.state_vector(FROZEN, fresh=False)  # create it if it does not exist
    at = storage.grow(len(new.values[""]))  # first all weights, then all biases, as in `parameter_places`
    for name, vector in storage.vectors().items():
        vector[at : at + len(new.values[""])] = new.values.get(name, 0)
    n = np.where(new.codes[owner] >= NEURON, new.counts[owner], 1).astype(np.int64)
    bias = np.where(new.has_bias, at + n.sum() + np.cumsum(new.has_bias) - 1, -1)
    storage._extend(at + np.cumsum(n) - n, 1, bias, new.max_sources)
    extend(graph.constants, new.constants)
    extend(graph.input_ids, first + np.flatnonzero(new.codes == INPUT))
    graph._extend(new.codes, new.pool, data, new.start, new.counts)
    graph.born[first:] = array("q", new.born.tobytes())  # views of these nodes are valid again
    graph.names.update(new.names)
    for of, ids, source_ids in new.layers:
        layer = of()
        if layer is not None:
            layer.ids, layer.source_ids = ids, source_ids
