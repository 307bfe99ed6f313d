"""Edits of a graph: any number at once, checked before anything changes; `mlgraph.graph.undo` takes them back.

An edit of edges gives some neurons new lists of sources. The lists go behind all others and their weights behind all
weights, with the optimizer's state of them. The room that they leave is reclaimed once it outweighs what is in use. A node
is live if a path leads to it from an input, a parameter or a constant. A neuron that is not live gives 0, whatever its bias,
and an edit that cuts also cuts the edges out of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mlgraph._support.array_types import Bool, Float32, Int64
from mlgraph._support.checks import float_array, plain
from mlgraph._support.interrupts import uninterrupted
from mlgraph.graph.arrays import Edges, Wiring, edge_keys, ends_of, wiring
from mlgraph.graph.changes import Activated, Biased, Rewired, edited
from mlgraph.graph.compaction import Lists, pack, shared_lists
from mlgraph.graph.graph import CycleError, Graph
from mlgraph.graph.ids import check_sources, edge_name, id_of, ids_of, is_iterable
from mlgraph.graph.ops import NEURON
from mlgraph.graph.storage import FROZEN, PANEL, extend, written
from mlgraph.graph.topology import Topology, ancestors, is_live, topological
from mlgraph.graph.views import Edge, Neuron


def edges_named(
    graph: Graph, what: Any, who: str = "prune", outputs: Iterable[int] | None = None
) -> tuple[Wiring, Bool]:
    """The edges into some neurons, and which of them are named by neurons, edges and pairs (source, target).

    A neuron names the edges into it, and `cut` then cuts those out of it, too; one that is cut off already names both.

    Raises
    ------
    TypeError, ValueError
        If `what` is none of these, an edge is not of the graph, or one of the neurons is among `outputs`, by default those of
        all models of the graph.
    """
    ids, source, target = _named(graph, what, who)
    chosen, concerned = np.zeros((2, len(graph)), bool)
    chosen[ids] = concerned[ids] = concerned[target] = True
    if graph.has_bare:  # neurons that are cut off may still be read
        concerned |= graph._readers(chosen)
    edges = wiring(graph, np.flatnonzero(concerned & (graph.codes >= NEURON)).astype(np.int32))
    found = edges.at_targets(chosen) | chosen[edges.source]
    if len(target):
        key, wanted = edge_keys(graph, edges.source, edges.target), edge_keys(graph, source, target)
        there = np.isin(wanted, key)
        if not there.all():
            k = np.argmin(there)
            raise ValueError(f"{who}: expected edges of the graph, got {edge_name(graph, source[k], target[k])}")
        found |= np.isin(key, wanted)
    protected = graph.sinks() if outputs is None else set(outputs)
    for i in ids:
        if i in protected:
            raise ValueError(f"{who}: expected neurons that are no outputs of a model, got {plain(graph[i].name)}")
    return edges, found


def _named(graph: Graph, what: Any, who: str) -> tuple[list[int], Int64, Int64]:
    """Ids of the neurons in the argument of `Graph.prune`, and of the sources and targets of the edges in it."""
    if isinstance(what, Edges):
        return [], *_ids_of_ends(graph, what, who)
    if isinstance(what, Neuron | Edge):
        what = [what]
    if isinstance(what, range) or (isinstance(what, np.ndarray) and what.dtype != object):
        what = [graph[i] for i in ids_of(graph, who, what)]
    if isinstance(what, tuple) and len(what) == 2 and not any(isinstance(one, Edge | tuple) for one in what):
        raise TypeError(
            f"{who}: expected [(source, target)] for an edge, or a list of neurons, got a pair that may be either"
        )
    if not is_iterable(what):
        raise TypeError(f"{who}: expected neurons, edges or pairs (source, target), got {type(what).__name__}")
    ids: list[int] = []
    pairs: list[list[int]] = []
    for thing in what:
        if isinstance(thing, Neuron):
            ids.append(id_of(graph, thing, who))
        elif isinstance(thing, Edge) or (isinstance(thing, tuple) and len(thing) == 2):
            ends = (thing.source, thing.target) if isinstance(thing, Edge) else thing
            pairs.append([id_of(graph, end, f"{who}: node") for end in ends])
        else:
            raise TypeError(f"{who}: expected neurons, edges or pairs (source, target), got {type(thing).__name__}")
    source, target = np.array(pairs, np.int64).reshape(-1, 2).T
    return ids, source, target


def _ids_of_ends(graph: Graph, edges: Edges, who: str) -> tuple[Int64, Int64]:
    ends = ends_of(who, edges)
    for end in ends:
        if len(end) and not 0 <= end.min() <= end.max() < len(graph):
            worst = end.min() if end.min() < 0 else end.max()
            raise ValueError(f"{who}: expected edges between nodes from 0 to {len(graph) - 1}, got node {worst}")
    return ends


def new_edges(graph: Graph, edges: Edges, who: str) -> Edges:
    """`edges` as `grow` takes them; TypeError or ValueError if they are no edges, or cannot be added."""
    if not isinstance(edges, Edges):
        raise TypeError(f"{who}: expected mlgraph.Edges, got {type(edges).__name__}")
    source, target = _ids_of_ends(graph, edges, who)
    weight = float_array(f"{who}: weight", edges.weight, source.shape)
    others = target[graph.codes[target] < NEURON]
    if len(others):
        raise ValueError(f"{who}: expected edges that lead to neurons, got {graph[int(others[0])]!r}")
    present = wiring(graph, np.unique(target).astype(np.int32))
    key = edge_keys(graph, source, target)
    there = np.isin(key, edge_keys(graph, present.source, present.target))
    twice = np.ones(len(key), bool)
    twice[np.unique(key, return_index=True)[1]] = False
    for wrong, expected in ((there, "an edge that is not there"), (twice, "each edge once")):
        if wrong.any():
            k = np.argmax(wrong)
            raise ValueError(f"{who}: expected {expected}, got {edge_name(graph, source[k], target[k])}")
    check_sources(graph, who, source)
    return Edges(source.astype(np.int32), target.astype(np.int32), weight)


def cut(graph: Graph, edges: Wiring, gone: Bool, *, if_unneeded: Bool | None = None, who: str = "prune") -> None:
    """Cut these edges, and all edges out of nodes that are then no longer live.

    Parameters
    ----------
    edges : Wiring
        The edges into all neurons, or at least into those that lose an edge by `gone`.
    gone : bool, shape (edges,)
    if_unneeded : bool, shape (edges,), optional
        Edges to cut, too, if they no longer lead to an output of a model; `edges` must then be all there are.
    who : str
        What errors begin with.

    Raises
    ------
    ValueError
        If an output of a model would no longer be live; nothing has changed.
    """
    old, new = edges.without(gone)
    lists = shared_lists(new)
    after = with_lists(graph.topology(), new, lists)
    lost = ~check_paths(graph, who, after)
    if if_unneeded is not None:
        idle = ~_needed(graph, after)[edges.neurons]
        useless = if_unneeded & ~gone & np.repeat(idle, edges.counts) if idle.any() else idle
        if useless.any():  # nodes that no model needs may read nodes that this leaves without sources
            cut(graph, edges, gone | useless, who=who)
            return
    if lost.any():
        # The other readers of lost nodes. Cutting these edges leaves all other nodes live: one look is enough.
        readers = graph._readers(lost) & (graph.codes >= NEURON)
        readers[edges.neurons] = False
        others = wiring(graph, np.flatnonzero(readers).astype(np.int32))
        edges, gone = edges.beside(others), np.append(gone, np.zeros(len(others.source), bool))
        useless = lost[edges.source] & ~gone
        if graph.has_bare and useless.any():  # edges out of nodes that were not live before were added on purpose
            useless &= graph.live()[edges.source]
        if useless.any():
            old, new = edges.without(gone | useless)
            lists = shared_lists(new)
    rewire(graph, old, new, lists, {})


def grow(graph: Graph, edges: Edges, who: str) -> None:
    """Add edges that do not exist yet. A list of sources in ascending order stays so; errors begin with `who`.

    Raises
    ------
    CycleError
        If there would be a cycle; nothing has changed.
    """
    neurons, which = np.unique(edges.target, return_inverse=True)
    old = wiring(graph, neurons)
    slot = np.concatenate([np.repeat(np.arange(len(neurons)), old.counts), which.reshape(-1)])
    sources = np.concatenate([old.source, edges.source])
    ascends = np.ones(len(neurons), bool)
    falls = (np.diff(old.source) < 0) & (np.diff(slot[: len(old.source)]) == 0)
    ascends[slot[1 : len(old.source)][falls]] = False
    rank = np.where(ascends[slot], sources, np.arange(len(slot)))
    order = np.argsort(slot * (len(graph) + len(slot)) + rank, kind="stable")  # by slot, then by rank
    place = np.where(order < len(old.source), order, -1)
    new = Wiring(old.neurons, np.bincount(slot, minlength=len(neurons)).astype(np.int32), sources[order], place)
    lists = shared_lists(new)
    check_paths(graph, who, with_lists(graph.topology(), new, lists))
    rewire(graph, old, new, lists, {"": np.concatenate([np.zeros(len(old.source), np.float32), edges.weight])[order]})


def activate(graph: Graph, neuron: int, code: int) -> None:
    """Give a neuron another activation, by its code."""
    before = Activated(neuron, graph._code[neuron])
    with uninterrupted():
        graph._code[neuron] = code
        graph.edits += 1
        edited(graph, [before])


def give_bias(graph: Graph, neuron: int, values: dict[str, float] | None) -> None:
    """Give a neuron that has no bias one, with `values` in the vectors that they name; or take it away, with None."""
    storage, record = graph.storage, graph._data[neuron]
    at = storage.bias[record]
    before = None if at < 0 else {name: float(vector[at]) for name, vector in storage.vectors().items()}
    if values is not None:
        at = storage.grow(1)
        if values.get(FROZEN):
            storage.state_vector(FROZEN, fresh=False)  # it may not exist yet
    vectors = storage.vectors()
    with uninterrupted():
        if at >= 0:  # a bias that is removed leaves 0: an unused place may become padding
            for name, vector in vectors.items():
                vector[at] = 0 if values is None else values.get(name, 0)
        storage.bias[record] = -1 if values is None else at
        graph.edits += 1
        edited(graph, [Biased(neuron, before)])
    pack(graph)


def with_lists(topology: Topology, new: Wiring, lists: Lists) -> Topology:
    """The sources of all nodes once `new` has replaced the edges of its neurons; changes the arrays it is given."""
    start, count, pool = topology
    start[new.neurons], count[new.neurons] = len(pool) + lists.start, new.counts
    return Topology(start, count, np.concatenate([pool, lists.pool]))


def check_paths(graph: Graph, who: str, topology: Topology) -> Bool:
    """Which nodes are live with these sources; errors begin with `who`.

    Raises
    ------
    ValueError
        If an output of a model is not live; a CycleError if there is a cycle.
    """
    try:
        _, order = topological(graph, topology)
    except CycleError as error:
        raise CycleError(f"{who}: {error}") from None
    live = is_live(graph.codes, topology, order)
    outputs = graph.sinks()
    for i in sorted(outputs):
        if not live[i] and graph.alive_for(outputs)[i]:
            name = plain(graph[i].name)
            raise ValueError(f"{who}: expected a path to every output of a model, got what would cut off {name}")
    return live


def _needed(graph: Graph, topology: Topology) -> Bool:
    """Which nodes some model needs; all, without a model."""
    outputs = sorted(graph.sinks())
    return ancestors(graph, topology, outputs) if outputs else np.ones(len(graph), bool)


def note_needed_before(graph: Graph) -> None:
    """Have each of several models note what it needs before an edit; within `one_edit`, only before its first such edit."""
    edit = graph._open
    while edit is not None:
        if any(isinstance(change, Rewired) for change in edit.changes):
            return
        edit = edit.around
    if len(graph.models) > 1:
        topology = graph.topology()
        for model in graph.models:
            model.needed_before = model.ever_needed(topology)


def rewire(
    graph: Graph, old: Wiring, new: Wiring, lists: Lists, fresh: dict[str, Float32], most: Int64 | None = None
) -> None:
    """Give neurons other sources; `fresh` has the values of new edges in the vectors that it names, in others they are 0.

    `most`: the most edges that each has had, when an edit is taken back.

    With no neurons it is an edit, too: else `undo` would take back the edit before it.
    """
    if len(new.neurons) == 0:
        edited(graph)
        return
    if most is None:  # else an edit is taken back, and what has been needed since does not count
        note_needed_before(graph)
    if FROZEN in fresh and fresh[FROZEN][new.place < 0].any():
        graph.storage.state_vector(FROZEN, fresh=False)  # it may not exist yet
    before = {name: vector[old.place] for name, vector in graph.storage.vectors().items()}
    now = np.full(len(old.source) + 1, -1, np.int32)
    now[new.place] = np.arange(len(new.place), dtype=np.int32)  # those of new edges behind all others
    added, at = new.place < 0, graph.storage.grow(len(new.source), align=PANEL)
    for name, vector in graph.storage.vectors().items():
        values = vector[at : at + len(new.source)]
        if len(old.source):
            before[name].take(new.place, out=values, mode="clip")
        values[added] = fresh[name][added] if name in fresh else 0
    record = graph.records[new.neurons]
    most_before = graph.storage.max_sources_of(record)
    weights, begin = at + np.cumsum(new.counts) - new.counts, len(graph._pool) + lists.start
    graph.has_bare |= bool((new.counts == 0).any())
    change = Rewired(old._replace(place=now[:-1]), before, most_before)
    storage, most = graph.storage, np.maximum(most_before, new.counts) if most is None else most
    of_storage = {
        "weights": written(storage.weights, record, weights),
        "stride": written(storage.stride, record, np.ones(1)),
        "max_sources": written(storage.max_sources, record, most),
    }
    start, count = written(graph._start, new.neurons, begin), written(graph._count, new.neurons, new.counts)
    own = vars(storage)
    with uninterrupted():
        extend(graph._pool, lists.pool)
        edited(graph, [change], edits=graph.edits + 1, _start=start, _count=count)
        own.update(of_storage)  # allocates nothing, so that it cannot fail
    pack(graph)
