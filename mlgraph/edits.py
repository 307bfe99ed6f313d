"""Edits of a graph's edges: as many as one likes at once, checked before anything changes, the last one reversible.

An edit gives some neurons new lists of sources. The lists go behind all others and their weights behind all weights, with
whatever state an optimizer has of them; what they leave behind is packed away once it outweighs what is in use. A node is
live if a path leads to it from an input, a parameter or a constant. A neuron that is not gives 0, whatever its bias, and
an edit that cuts takes the edges that read it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph.checks import Float32, plain
from mlgraph.graph import NEURON, PARAMETER, Added, Graph
from mlgraph.lowering import Ids, Ints, gather, is_live, topological
from mlgraph.storage import PANEL, extend, write
from mlgraph.views import Edge, Neuron

Mask = npt.NDArray[np.bool_]


class Wiring(NamedTuple):
    """The edges into some neurons, neuron by neuron in the order of their sources.

    Attributes
    ----------
    neurons, counts : int32, shape (neurons,)
        Ids, and how many edges each has.
    source : int32, shape (edges,)
    place : int64 or int32, shape (edges,)
        Where the weight stands in the parameter vector; in an edit -1 for a new edge.
    """

    neurons: Ids
    counts: Ids
    source: Ids
    place: Ints | Ids

    @property
    def target(self) -> Ids:
        """The neuron of each edge."""
        return np.repeat(self.neurons, self.counts)

    def of(self, neurons: Mask) -> Wiring:
        """These neurons alone."""
        if neurons.all():
            return self
        edges = np.repeat(neurons, self.counts)
        return Wiring(self.neurons[neurons], self.counts[neurons], self.source[edges], self.place[edges])

    def where(self, edges: Mask) -> Wiring:
        """These edges alone, of the same neurons."""
        return Wiring(self.neurons, _sums(edges, self.counts), self.source[edges], self.place[edges])


class Rewired(NamedTuple):
    """What undoing an edit of edges takes.

    Attributes
    ----------
    before : Wiring
        Of the neurons that were edited; `place` is where each edge stands among their edges now, -1 if it was cut.
    values : dict of float32, shape (edges,)
        What stood at each edge in the parameter vector (""), and in each vector of optimizer state.
    edits : int
        `Graph.edits` after the edit: with another number something else was the last change.
    """

    before: Wiring
    values: dict[str, Float32]
    edits: int


def wiring(graph: Graph, neurons: Ids | None = None) -> Wiring:
    """The edges into these neurons; into all of them by default."""
    code, count, start = graph.codes, graph.counts, np.array(graph._start, np.int64)
    if neurons is None:
        neurons = np.flatnonzero(code >= NEURON).astype(np.int32)
    record = np.array(graph._data, np.int64)[neurons]
    at, stride, _ = (column[record] for column in graph.storage.places)
    n = count[neurons]
    source = np.array(graph._pool, np.int32)[_runs(start[neurons], np.ones_like(stride), n)]
    return Wiring(neurons, n, source, _runs(at, stride, n))


def find(graph: Graph, edges: Wiring, what: Any, who: str = "prune") -> Mask:
    """Which of all edges are named by neurons (all edges into and out of one), edges and pairs (source, target)."""
    if isinstance(what, Neuron | Edge):
        what = [what]
    if not isinstance(what, Iterable):
        raise TypeError(f"{who}: expected neurons, edges or pairs (source, target), came {type(what).__name__}")
    ids: list[int] = []
    pairs: list[tuple[int, int]] = []
    for thing in what:
        if isinstance(thing, Neuron):
            ids += graph._ids(who, [thing])
        elif isinstance(thing, Edge) or (isinstance(thing, tuple) and len(thing) == 2):
            a, b = graph._ids(who, [thing.source, thing.target] if isinstance(thing, Edge) else thing)
            pairs.append((a, b))
        else:
            raise TypeError(f"{who}: expected neurons, edges or pairs (source, target), came {type(thing).__name__}")
    target, found = edges.target, np.zeros(len(edges.source), bool)
    if pairs:
        key = target.astype(np.int64) * len(graph) + edges.source
        wanted = np.array([t * len(graph) + s for s, t in pairs])
        there = np.isin(wanted, key)
        if not there.all():
            missing = " to ".join(plain(graph[i].name) for i in pairs[int(np.argmin(there))])
            raise ValueError(f"{who}: expected edges of the graph, came {missing}")
        found |= np.isin(key, wanted)
    if ids:
        chosen = np.zeros(len(graph), bool)
        chosen[ids] = True
        outputs = [i for i in ids if i in graph.protected()]
        if outputs:
            raise ValueError(f"{who}: expected neurons that are no outputs of a model, came {plain(graph[outputs[0]].name)}")
        found |= chosen[target] | chosen[edges.source]
    return found


def cut(graph: Graph, edges: Wiring, gone: Mask, *, sweep: bool = False) -> None:
    """Cut these of all edges, and with them what then reads a neuron that is not live.

    Parameters
    ----------
    edges : Wiring
        All of the graph's.
    gone : bool, shape (edges,)
    sweep : bool
        Whether edges go, too, that lead to no output of a model.

    Raises
    ------
    ValueError
        If an output of a model would not be live any more; nothing has changed.
    """
    new = edges.where(~gone)
    live, needed = _check(graph, new)
    of_use = (live[new.source] > 0) & (needed[new.target] | (not sweep))
    if not of_use.all():
        new = new.where(of_use)
    touched = new.counts != edges.counts
    if touched.any():
        _rewire(graph, edges.of(touched), new.of(touched), {})


def grow(graph: Graph, source: Ids, target: Ids, weight: Float32) -> None:
    """Add edges, no pair of which is there yet. A list of sources in ascending order stays so.

    Raises
    ------
    CycleError
        If there would be a cycle; nothing has changed.
    """
    neurons, which = np.unique(target, return_inverse=True)
    old = wiring(graph, neurons.astype(np.int32))
    slot = np.concatenate([np.repeat(np.arange(len(neurons)), old.counts), which.reshape(-1)])
    sources = np.concatenate([old.source, source.astype(np.int32)])
    ascends = np.ones(len(neurons), bool)
    falls = (np.diff(old.source) < 0) & (np.diff(slot[: len(old.source)]) == 0)
    ascends[slot[1 : len(old.source)][falls]] = False
    order = np.lexsort([np.where(ascends[slot], sources, np.arange(len(slot))), slot])
    place = np.concatenate([old.place, np.full(len(source), -1)])[order]
    new = Wiring(old.neurons, np.bincount(slot, minlength=len(neurons)).astype(np.int32), sources[order], place)
    _check(graph, new)
    _rewire(graph, old, new, {"": np.concatenate([np.zeros(len(old.source), np.float32), weight])[order]})


def undo(graph: Graph) -> None:
    """Take back the last edit: edges that were cut return with their weights and state, edges that were added go.

    Raises
    ------
    ValueError
        If the last change of the graph was no edit, or a model has the neurons that were added for outputs.
    """
    last = graph._last
    if last is None or last.edits != graph.edits:
        raise ValueError("undo: expected an edit as the last change of the graph, came none")
    if isinstance(last, Added):
        if any(i >= last.nodes for i in graph.protected()):
            name = plain(graph[last.nodes].name)
            raise ValueError(f"undo: expected no model to have outputs among the neurons added, came {name}")
        for column in (graph._code, graph._start, graph._count, graph._data):
            del column[last.nodes :]
        for column in graph.storage.columns:
            del column[last.records :]
        graph._names = {node: name for node, name in graph._names.items() if node < last.nodes}
        graph.edits += 1
    else:
        now = wiring(graph, last.before.neurons)
        kept = last.before.place
        place = np.where(kept >= 0, now.place[kept] if len(now.place) else -1, -1)
        _rewire(graph, now, last.before._replace(place=place), last.values)
    graph._last = None


def _check(graph: Graph, new: Wiring) -> tuple[npt.NDArray[np.uint8], Mask]:
    """Which nodes are live once `new` are the edges of its neurons, and which some model needs.

    Raises
    ------
    ValueError
        If an output of a model is not live; CycleError with a cycle.
    """
    start, count = np.array(graph._start, np.int64), graph.counts
    pool = np.concatenate([np.array(graph._pool, np.int32), new.source])
    start[new.neurons] = len(graph._pool) + np.cumsum(new.counts) - new.counts
    count[new.neurons] = new.counts
    _, order = topological(graph, start, count, pool, np.arange(len(graph), dtype=np.int32))
    live, outputs = is_live(graph.codes, start, count, pool, order), np.array(sorted(graph.protected()), np.int32)
    for i in outputs[live[outputs] == 0].tolist():
        raise ValueError(f"expected a path to every output of a model, came an edit that would cut off {plain(graph[i].name)}")
    if not len(outputs):
        return live, np.ones(len(graph), bool)
    return live, topological(graph, start, count, pool, outputs)[0] >= 0


def _rewire(graph: Graph, old: Wiring, new: Wiring, fresh: dict[str, Float32]) -> None:
    """Give neurons other sources; `fresh` has the values of the new edges in the vectors that it names, 0 elsewhere."""
    edge = np.full(graph.storage.used + 1, -1, np.int32)  # the last is that of new edges
    edge[new.place] = np.arange(len(new.place), dtype=np.int32)
    edge[-1] = -1
    before = {name: vector[old.place] for name, vector in graph.storage.vectors().items()}
    kept = old._replace(place=edge[old.place])
    at = graph.storage.grow(len(new.source), align=PANEL)
    for name, vector in graph.storage.vectors().items():
        values = vector[new.place]
        if fresh:  # else there are no new edges
            values = np.where(new.place >= 0, values, fresh.get(name, np.float32(0)))
        vector[at : at + len(new.source)] = values
    record = np.array(graph._data, np.int64)[new.neurons]
    first = np.cumsum(new.counts) - new.counts
    write(graph.storage.weights, record, at + first)
    write(graph.storage.stride, record, np.ones(len(record)))
    write(graph._start, new.neurons, len(graph._pool) + first)
    write(graph._count, new.neurons, new.counts)
    extend(graph._pool, new.source)
    graph.edits += 1
    graph._last = Rewired(kept, before, graph.edits)
    pack(graph)


# --- what edits leave behind -----------------------------------------------------------------------------------------


LONG = 16
"""Sources of a list that is worth a look whether there is another like it."""


class Packed(NamedTuple):
    """The storage of a graph without gaps: columns as those of the graph, and where each parameter stands there."""

    start: Ints
    pool: Ids
    weights: Ints
    stride: Ints
    bias: Ints
    origin: Ints


def packed(graph: Graph) -> Packed:
    """Lists of sources that some node reads, once each; weights record by record, and behind them the biases."""
    start, count, pool = np.array(graph._start, np.int64), graph.counts, np.array(graph._pool, np.int32)
    reads = np.flatnonzero(count)
    lists, first, which = np.unique(start[reads], return_index=True, return_inverse=True)
    length = count[reads[first]]
    held: dict[bytes, Any] = {}
    for i in np.flatnonzero(length >= LONG).tolist():  # of neurons that lost the same source, the lists are the same
        lists[i] = held.setdefault(pool[lists[i] : lists[i] + length[i]].tobytes(), lists[i])
    lists, first, again = np.unique(lists, return_index=True, return_inverse=True)
    length = length[first]
    start[:] = 0
    start[reads] = (np.cumsum(length) - length)[again.reshape(-1)[which.reshape(-1)]]
    owner = np.flatnonzero(graph.codes >= PARAMETER)
    owner = owner[np.argsort(np.array(graph._data, np.int64)[owner])]
    n = np.where(graph.codes[owner] >= NEURON, count[owner], 1)
    ends = np.cumsum(n)
    at, stride, bias = graph.storage.places
    has = bias >= 0
    origin = np.concatenate([_runs(at, stride, n), bias[has]])
    new_bias = np.where(has, n.sum() + np.cumsum(has) - 1, -1)
    origin = np.concatenate([origin, np.full(-len(origin) % PANEL, -1)])
    return Packed(start, gather(pool, lists, length), ends - n, np.ones(len(n), np.int64), new_bias, origin)


def pack(graph: Graph, *, most: float = 1.0) -> None:
    """Pack the storage if what is not in use is more than `most` times what is."""
    if len(graph._pool) + graph.storage.used <= (1 + most) * graph._in_use() + 1024:
        return
    new = packed(graph)
    graph._start, graph._pool = type(graph._start)("q", new.start.tobytes()), type(graph._pool)("i", new.pool.tobytes())
    graph.storage.move(new.origin, new.weights, new.stride, new.bias)


def _runs(first: Ints, stride: Ints, count: npt.NDArray[Any]) -> Ints:
    """``first[i] + k * stride[i]`` for all k below ``count[i]``, for one i after the other."""
    first, stride, count = first[count > 0], stride[count > 0], count[count > 0]
    step = np.repeat(stride, count)
    if len(first):
        last = first + (count - 1) * stride
        step[np.cumsum(count) - count] = first - np.append(0, last[:-1])
    return np.cumsum(step, out=step)


def _sums(mask: Mask, count: Ids) -> Ids:
    """How many are set in each of the runs of these lengths."""
    sums, some = np.zeros(len(count), np.int32), count > 0
    if some.any():
        sums[some] = np.add.reduceat(mask, (np.cumsum(count) - count)[some], dtype=np.int32)
    return sums
