"""Edits of a graph: any number of edges at once, checked before anything changes; `mlgraph.graph.undo` takes them back.

An edit gives some neurons new lists of sources. It appends the lists to the pool, and their weights
and optimizer state to the parameters. The space of the old ones is reclaimed once more space is
unused than used. An edit that cuts edges also cuts the edges out of all neurons that are then no
longer live, because those are 0, whatever their bias.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import ref

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Int32, Int64
from mlgraph._support.checks import float_array, real_array
from mlgraph._support.interrupts import uninterrupted
from mlgraph.graph.arrays import Edges, NewWiring, Wiring, ends_of, matches, wiring
from mlgraph.graph.changes import Activated, Biased, Change, Differentiated, Noted, Rewired, edited
from mlgraph.graph.compaction import compact, shared_lists
from mlgraph.graph.graph import CycleError, Graph
from mlgraph.graph.ids import check_sources, edge_name, id_of, ids_of, is_iterable
from mlgraph.graph.ops import NEURON
from mlgraph.graph.storage import FROZEN, PANEL, extend
from mlgraph.graph.topology import Topology, ancestors, is_live, topological
from mlgraph.graph.views import Edge, Neuron, name_of
from mlgraph_ext import _topology


def edges_named(
    graph: Graph, what: Any, who: str = "prune", outputs: Iterable[int] | None = None
) -> tuple[Wiring, Bool]:
    """The edges to cut, given as the argument of `Graph.prune`.

    A neuron stands for the edges into it and out of it.

    Parameters
    ----------
    outputs : iterable of int, optional
        Neurons that cannot be cut; by default the sinks of all models.

    Returns
    -------
    Wiring
        Edges into some neurons, for `cut`, which adds those out of nodes that are no longer live.
    bool, shape (edges,)
        The edges to cut.

    Raises
    ------
    TypeError, ValueError
        If `what` is of another type, an edge does not exist, or a neuron is among `outputs`.
    """
    ids, source, target = _named(graph, what, who)
    chosen = np.zeros(len(graph), bool)
    if ids:
        chosen[ids] = True
    concerned = chosen.copy()
    concerned[target] = True
    if graph.has_bare:  # neurons that are not live may still be read; `cut` finds the other readers
        concerned |= graph._readers(chosen)
    neurons = (concerned & (np.frombuffer(graph._code, np.int16) >= NEURON)).nonzero()[0]
    edges = wiring(graph, neurons.astype(np.int32))
    matching, there = matches(graph, edges, source, target)
    if np.count_nonzero(there) < len(there):
        k = np.argmin(there)
        raise ValueError(f"{who}: there is no edge from {edge_name(graph, source[k], target[k])}")
    found = matching.view(np.bool_)
    if ids:
        found |= edges.at_targets(chosen) | chosen[edges.source]
        fixed = graph.sinks() if outputs is None else set(outputs)
    for i in ids:
        if i in fixed:
            raise ValueError(f"{who}: {name_of(graph, i)} is an output of a model and cannot be cut")
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
        raise TypeError(f"{who}: a pair is ambiguous; write [(source, target)] for an edge or [a, b] for two neurons")
    if not is_iterable(what):
        raise TypeError(f"{who}: expected neurons, edges or pairs (source, target), got {type(what).__name__}")
    ids: list[int] = []
    sources: list[int] = []
    targets: list[int] = []
    for thing in what:
        if isinstance(thing, Neuron):
            ids.append(id_of(graph, thing, who))
        elif isinstance(thing, Edge) or (isinstance(thing, tuple) and len(thing) == 2):
            ends = (thing.source, thing.target) if isinstance(thing, Edge) else thing
            for end, side in zip(ends, (sources, targets), strict=True):
                side.append(id_of(graph, end, f"{who}: node"))
        else:
            raise TypeError(f"{who}: expected neurons, edges or pairs (source, target), got {type(thing).__name__}")
    return ids, np.array(sources, np.int64), np.array(targets, np.int64)


def _ids_of_ends(graph: Graph, edges: Edges, who: str) -> tuple[Int64, Int64]:
    ends = ends_of(who, edges)
    for end in ends:
        if len(end) and not 0 <= end.min() <= end.max() < len(graph):
            worst = end.min() if end.min() < 0 else end.max()
            raise ValueError(f"{who}: expected edges between nodes from 0 to {len(graph) - 1}, got node {worst}")
    return ends


def new_edges(graph: Graph, edges: Edges, who: str) -> Edges:
    """Check `edges` for `grow` and convert the dtypes; a TypeError or ValueError if they cannot be added."""
    if not isinstance(edges, Edges):
        raise TypeError(f"{who}: expected mlgraph.Edges, got {type(edges).__name__}")
    given = real_array(f"{who}: weight", edges.weight)
    source, target = _ids_of_ends(graph, edges, who)
    weight = float_array(f"{who}: weight", given, source.shape)
    check_new(graph, source, target, who)
    return Edges(source.astype(np.int32), target.astype(np.int32), weight)


def check_new(graph: Graph, source: Int64, target: Int64, who: str) -> None:
    """Raise ValueError if edges between these nodes cannot be added."""
    others = target[np.frombuffer(graph._code, np.int16)[target] < NEURON]
    if len(others):
        raise ValueError(f"{who}: edges must lead to neurons, got an edge to {graph[int(others[0])]!r}")
    present = wiring(graph, (np.unique(target) if len(target) > 1 else target).astype(np.int32))
    _, there = matches(graph, present, source, target)
    if np.count_nonzero(there):
        number, problem = (1, "already exists") if (there == 1).any() else (2, "is given twice")
        k = np.argmax(there == number)
        raise ValueError(f"{who}: the edge from {edge_name(graph, source[k], target[k])} {problem}")
    check_sources(graph, who, source)


def cut(graph: Graph, edges: Wiring, gone: Bool, *, if_unneeded: Bool | None = None, who: str = "prune") -> None:
    """Cut these edges, and all edges out of nodes that are then no longer live.

    Parameters
    ----------
    edges : Wiring
        The edges into all neurons, or at least into those that lose an edge.
    gone : bool, shape (edges,)
        The edges to cut.
    if_unneeded : bool, shape (edges,), optional
        Edges to cut if they no longer lead to a sink; `edges` must then be all edges of the graph.
    who : str
        The beginning of error messages.

    Raises
    ------
    ValueError
        If a sink would no longer be live; nothing has changed.
    """
    old, new = edges.without(gone)
    if (
        if_unneeded is None and not graph.has_bare and np.count_nonzero(new.counts) == len(new.counts)
    ):  # every neuron keeps a source: all stay live
        rewire(graph, old, new, {})
        return
    after = with_edges(graph.topology(), new)
    lost = ~check_paths(graph, who, after)
    if if_unneeded is not None:
        idle = ~ancestors(graph, after, sorted(graph.sinks()))[edges.neurons]
        useless = if_unneeded & ~gone & np.repeat(idle, edges.counts) if idle.any() else idle
        if useless.any():  # cutting these may leave further nodes without a live source
            cut(graph, edges, gone | useless, who=who)
            return
    if lost.any():
        # Cut the other edges out of nodes that are no longer live. All other nodes stay live, so
        # once is enough.
        readers = graph._readers(lost) & (graph.codes >= NEURON)
        readers[edges.neurons] = False
        others = wiring(graph, np.flatnonzero(readers).astype(np.int32))
        edges, gone = edges.concatenated(others), np.append(gone, np.zeros(len(others.source), bool))
        useless = lost[edges.source] & ~gone
        if graph.has_bare and useless.any():  # keep edges that were added out of nodes that were not live then
            useless &= graph.live()[edges.source]
        if useless.any():
            old, new = edges.without(gone | useless)
    rewire(graph, old, new, {})


def grow(graph: Graph, edges: Edges, who: str) -> None:
    """Add edges that do not exist yet; a list of sources in ascending order stays in order.

    Raises
    ------
    CycleError
        If there would be a cycle; nothing has changed. The message begins with `who`.
    ValueError
        If a derivative goes through the target of an edge.
    """
    check_differentiated(graph, edges.target, who)
    neurons, which = edges.target, np.zeros(len(edges.target), np.int64)
    if len(neurons) > 1:
        neurons, which = np.unique(edges.target, return_inverse=True)
        which = which.reshape(-1).astype(np.int64, copy=False)
    old = wiring(graph, neurons)
    n = len(old.source) + len(which)
    new = NewWiring(old.neurons, np.empty_like(old.counts), np.empty(n, np.int32), np.empty(n, np.int32))
    weight = np.empty(n, np.float32)
    _topology.with_added(
        old.counts,
        old.source,
        which,
        np.ascontiguousarray(edges.source),
        np.ascontiguousarray(edges.weight),
        new.counts,
        new.source,
        new.previous,
        weight,
    )
    sorted_without_cycles(graph, who, with_edges(graph.topology(), new))  # all nodes that are live stay live
    rewire(graph, old, new, {"": weight})


def check_differentiated(graph: Graph, neurons: Sequence[int] | Int32, who: str) -> None:
    """Raise ValueError if a derivative made by `mlgraph.grad` goes through one of these neurons, and would be wrong."""
    if len(graph.differentiated):
        found = np.intersect1d(neurons, graph.differentiated)
        if len(found):
            raise ValueError(
                f"{who}: a derivative made by mlgraph.grad goes through {name_of(graph, int(found[0]))}, and would"
                " become wrong; make the derivative after all edges and activations"
            )


def mark_differentiated(graph: Graph, neurons: array[int]) -> None:
    """Assign `NodeTable.differentiated`. Outside of `one_edit`, no earlier edit can be undone or redone any more."""
    before = Differentiated(graph.differentiated)
    with uninterrupted():
        graph.differentiated = neurons
        if graph._open is None:
            graph.last_edit = graph.undone_edit = None
        else:
            graph._open.changes.append(before)


def activate(graph: Graph, neuron: int, code: int) -> None:
    """Change the activation of a neuron to that of this code."""
    before = Activated(neuron, graph._code[neuron])
    with uninterrupted():
        graph._code[neuron] = code
        graph.edits += 1
        edited(graph, [before])


def give_bias(graph: Graph, neuron: int, values: dict[str, float] | None) -> None:
    """Add a bias to a neuron that has none, or remove its bias.

    Parameters
    ----------
    values : dict of float, or None
        The bias ("") and its optimizer state by the name of the vector, 0 where missing. None
        removes the bias.
    """
    storage, record = graph.storage, graph._data[neuron]
    at = storage.bias[record]
    before = None if at < 0 else {name: float(vector[at]) for name, vector in storage.vectors().items()}
    if values is not None:
        at = storage.grow(1)
        if values.get(FROZEN):
            storage.state_vector(FROZEN, fresh=False)  # create it if it does not exist
    vectors = storage.vectors()
    with uninterrupted():
        if at >= 0:  # a removed bias must leave 0, because its place may become padding
            for name, vector in vectors.items():
                vector[at] = 0 if values is None else values.get(name, 0)
        storage.bias[record] = -1 if values is None else at
        graph.edits += 1
        edited(graph, [Biased(neuron, before)])
    compact(graph)


def with_edges(topology: Topology, new: NewWiring) -> Topology:
    """The sources of all nodes after an edit; overwrites the arrays of `topology`."""
    start, count, pool = topology
    _topology.begin_lists(new.neurons, new.counts, len(pool), start, count)
    return Topology(start, count, np.concatenate([pool, new.source]))


def check_paths(graph: Graph, who: str, topology: Topology, codes: npt.NDArray[np.int16] | None = None) -> Bool:
    """Which nodes are live with these sources; `codes` are those of all nodes, if there will be more.

    Raises
    ------
    CycleError, ValueError
        If there is a cycle, or a sink is not live that is alive now. The message begins with `who`.
    """
    order = sorted_without_cycles(graph, who, topology)
    live = is_live(graph.codes if codes is None else codes, topology, order)
    sinks = graph.sinks()
    for i in sorted(sinks):
        if not live[i] and graph.alive_for(sinks)[i]:
            name = name_of(graph, i)
            raise ValueError(f"{who}: this would disconnect {name}, an output of a model, from all inputs")
    return live


def sorted_without_cycles(graph: Graph, who: str, topology: Topology) -> Int32:
    """The nodes in topological order; a CycleError, whose message begins with `who`, if there is a cycle."""
    try:
        return topological(graph, topology)[1]
    except CycleError as error:
        raise CycleError(f"{who}: {error}") from None


def note_needed_before(graph: Graph) -> list[Change]:
    """If the graph has several models, note which nodes each needs before an edit; returns what takes this back.

    Within `one_edit`, only its first change of edges does this.
    """
    changes = [] if graph._open is None else graph._open.changes
    if len(graph.models) < 2 or any(isinstance(change, Rewired) for change in changes):
        return []
    topology = graph.topology()
    before = [(ref(model), model.needed_before) for model in graph.models]
    for model in graph.models:
        model.needed_before = model.ever_needed(topology)
    return [Noted(before)]


def rewire(graph: Graph, old: Wiring, new: NewWiring, fresh: dict[str, Float32], most: Int64 | None = None) -> None:
    """Replace the edges of some neurons, as an edit that `undo` can take back, even if there are no neurons.

    Parameters
    ----------
    old, new : Wiring, NewWiring
        All edges of these neurons before and after.
    fresh : dict of float32, shape (new edges,)
        The values of added edges by the name of the vector, 0 where missing.
    most : int64, shape (neurons,), optional
        `Storage.max_sources` to restore; given when an edit is undone.
    """
    if len(new.neurons) == 0:
        edited(graph)
        return
    noted = [] if most is not None else note_needed_before(graph)  # an undone edit does not count as needed
    if FROZEN in fresh and fresh[FROZEN][new.previous < 0].any():
        graph.storage.state_vector(FROZEN, fresh=False)  # create it if it does not exist
    before = {name: vector[old.place] for name, vector in graph.storage.vectors().items()}
    storage, lists = graph.storage, shared_lists(new)
    added, at = new.previous < 0, storage.grow(len(new.source), align=PANEL)
    for name, vector in storage.vectors().items():
        values = vector[at : at + len(new.source)]
        if len(old.source):
            before[name].take(new.previous, out=values, mode="clip")
        values[added] = fresh[name][added] if name in fresh else 0
    now, most_before = np.empty(len(old.source), np.int32), np.empty(len(new.neurons), np.int64)
    start, count = graph._start[:], graph._count[:]
    weights, stride, max_sources = storage.weights[:], storage.stride[:], storage.max_sources[:]
    graph.has_bare |= _topology.rewire(
        new.neurons,
        new.counts,
        len(graph._pool) + lists.start,
        new.previous,
        at,
        most,
        graph._data,
        start,
        count,
        weights,
        stride,
        max_sources,
        most_before,
        now,
    )
    change = Rewired(NewWiring(old.neurons, old.counts, old.source, now), before, most_before)
    own = vars(storage)
    with uninterrupted():
        extend(graph._pool, lists.pool)
        edited(graph, [*noted, change], edits=graph.edits + 1, _start=start, _count=count)
        own.update(weights=weights, stride=stride, max_sources=max_sources)  # allocates nothing, so it cannot fail
    compact(graph)
