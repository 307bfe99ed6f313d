"""The third pass: groups go in, and the parameters of each group become contiguous in the graph's vector.

The weights of a dense block are stored as ``[panel][source][PANEL neurons]``, followed by its biases, one
for each neuron of the panels. The weights of sparse rows are stored neuron by neuron, followed by the
biases. Parameter nodes are stored in the order of their slots; those of the weights of neurons written out,
and of their biases, like sparse rows. Each group starts at a multiple of PANEL.
"""

from __future__ import annotations

import numpy as np

from mlgraph._support.array_types import Int32, Int64
from mlgraph.compiler.lowering import Lowered
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import NEURON, PARAMETER
from mlgraph.graph.storage import PANEL, in_panels, padded
from mlgraph.graph.topology import gather, index_type, runs


def lay_out(graph: Graph, lowered: Lowered, groups: list[Int32], dense: list[bool]) -> list[tuple[int, int]]:
    """Make the parameters of each group contiguous, if they are not already.

    Parameters
    ----------
    groups : list of int32 arrays
        Parameter nodes and neurons, group by group.
    dense : list of bool
        Whether each group is a dense block.

    Returns
    -------
    list of (int, int)
        Where the weights and the biases of each group start; -1 without biases.
    """
    weights, stride, bias = now = graph.storage.places
    places = [_Group(lowered, group, block) for group, block in zip(groups, dense, strict=True)]
    seen = np.zeros(len(weights), bool)
    for place in places:
        seen[place.records] = True
    if all(place.is_in_place(*now) for place in places):
        found = [place.where(weights, bias) for place in places]
        # No other parameter may be stored in the padding of a block, because updates write whole panels.
        others = np.concatenate([weights[~seen], bias[~seen]])
        taken = np.zeros(graph.storage.used, bool)
        for place, where in zip(places, found, strict=True):
            for first, size in place.extent(*where):
                taken[first : first + size] = True
        # A missing bias is at -1. A neuron without sources has no weights; their place may be the end of the vector.
        if not taken[others[(others >= 0) & (others < len(taken))]].any():
            # The padding of the last block must lie within the vector. Updates of rows are not padded.
            blocks = [
                extent
                for place, where in zip(places, found, strict=True)
                if place.step == PANEL
                for extent in place.extent(*where)
            ]
            missing = max((at + n for at, n in blocks), default=0) - graph.storage.used
            if missing > 0:
                at = graph.storage.grow(missing)
                graph.storage.vector[at:] = 0
            return found

    # If any group is not in place, all are moved. Parameters that no output needs follow them.
    new_weights, new_stride, new_bias = then = weights.copy(), stride.copy(), bias.copy()
    origins: list[Int64 | Int32] = []
    top, end = 0, graph.storage.used
    for place in places:
        origins += place.move(top, end, now, then)
        top += place.length
    rest = np.flatnonzero(~seen)
    fan, owners = np.zeros(len(weights), np.int64), np.flatnonzero(graph.codes >= PARAMETER)
    fan[graph.records[owners]] = np.where(graph.codes[owners] >= NEURON, graph.counts[owners], 1)
    n = fan[rest]
    has = bias[rest] >= 0
    origins += [runs(weights[rest], stride[rest], n, end), bias[rest][has]]
    new_weights[rest], new_stride[rest] = top + np.cumsum(n) - n, 1
    top += int(n.sum())
    new_bias[rest[has]] = top + np.arange(np.count_nonzero(has))
    top += int(np.count_nonzero(has))
    origins.append(np.full(-top % PANEL, -1))
    graph.storage.move(np.concatenate(origins, dtype=index_type(end)), *then)
    return [place.where(new_weights, new_bias) for place in places]


class _Group:
    """The parameters of one instruction: their records, and their places relative to the group's first."""

    def __init__(self, lowered: Lowered, group: Int32, dense: bool) -> None:
        first = int(group[0])
        is_written_out = bool(lowered.part[first])
        self.is_neuron = bool(lowered.code[first] >= NEURON) or is_written_out
        self.is_fused = bool(lowered.fused[first] >= 0)
        if is_written_out:  # the group is the weights of all these neurons, neuron by neuron
            bounds = np.append(np.flatnonzero(np.diff(lowered.data[group], prepend=-1)), len(group))
            group, self.fan = group[bounds[:-1]], np.diff(bounds)
        elif self.is_neuron:
            self.fan = lowered.topology.counts[group].astype(np.int64)
        else:
            self.fan = np.ones(len(group), np.int64)
        self.n = len(group)
        self._width, ends = padded(self.n), np.cumsum(self.fan)
        if dense:
            self.step, self.first = PANEL, in_panels(np.arange(self.n), int(self.fan[0]))
            self.size = int(self._width * self.fan[0])
        else:
            self.step, self.first = 1, ends - self.fan
            self.size = padded(int(ends[-1]))
        if self.is_fused:
            # Each weight and bias of a fused neuron is a parameter node with its own record.
            number = lowered.fused[group]
            begin = lowered.begin[number]
            self.edges = lowered.data[gather(lowered.weight, begin, self.fan)]
            self.biases = lowered.data[lowered.bias[number]] if lowered.bias[number[0]] >= 0 else None
            self.records = self.edges if self.biases is None else np.concatenate([self.edges, self.biases])
        else:
            self.records = self.edges = lowered.data[group]
            self.biases = self.edges if self.is_neuron else None

    def _places(self) -> Int64:
        """Place of each weight, relative to the group's first."""
        return runs(self.first, np.full(self.n, self.step), self.fan, self.size).astype(np.int64)

    def _bias_of(self, weights: Int64, bias: Int64) -> Int64 | None:
        """Places of the biases; None without biases."""
        if self.biases is None:
            return None
        at = weights[self.biases] if self.is_fused else bias[self.biases]
        return at if at[0] >= 0 else None

    def is_in_place(self, weights: Int64, stride: Int64, bias: Int64) -> bool:
        places = self._places() if self.is_fused else self.first
        here, at = weights[self.edges[0]] - places[0], self._bias_of(weights, bias)
        good = here % PANEL == 0 and np.array_equal(weights[self.edges], here + places)
        if self.is_neuron and not self.is_fused:
            good = good and bool((stride[self.edges] == self.step).all())
        if at is not None:
            good = good and at[0] % PANEL == 0 and np.array_equal(at, at[0] + np.arange(self.n))
        return bool(good)

    def where(self, weights: Int64, bias: Int64) -> tuple[int, int]:
        at = self._bias_of(weights, bias)
        return int(weights[self.edges[0]]), -1 if at is None else int(at[0])

    def extent(self, weights: int, bias: int) -> list[tuple[int, int]]:
        """Start and length of the weights and of the biases, padding included."""
        return [(weights, self.size)] + ([(bias, self._width)] if bias >= 0 else [])

    def move(self, top: int, end: int, now: tuple[Int64, ...], then: tuple[Int64, ...]) -> list[Int64 | Int32]:
        """Set the new places in `then`; return the present place of each new place of the group, -1 for padding."""
        (weights, stride, bias), (new_weights, new_stride, new_bias) = now, then
        origin = weights[self.edges]
        if self.is_fused:
            new_weights[self.edges] = top + self._places()
        else:
            origin = runs(origin, stride[self.edges], self.fan, end)
            new_weights[self.edges], new_stride[self.edges] = top + self.first, self.step
        if self.step == PANEL:
            rows = np.pad(origin.reshape(self.n, -1), ((0, self._width - self.n), (0, 0)), constant_values=-1)
            origin = rows.reshape(-1, PANEL, rows.shape[1]).swapaxes(1, 2).reshape(-1)
        origins, self.length = [origin, np.full(self.size - len(origin), -1)], self.size
        at = self._bias_of(weights, bias)
        if at is not None:
            (new_weights if self.is_fused else new_bias)[self.biases] = top + self.size + np.arange(self.n)
            origins += [at, np.full(self._width - self.n, -1)]
            self.length += self._width
        return origins
