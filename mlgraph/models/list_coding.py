"""Compact lists of sources in model files: a bit mask over the possible sources, where that is shorter.

An edge then costs the 4 bytes of its weight and one bit, and a cut edge costs one bit. Without this
coding, files of networks pruned by half would be 55 to 80 % larger.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Int32
from mlgraph.graph.compaction import once_each
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import NEURON

Arrays = dict[str, npt.NDArray[Any]]

LONG = 16
"""Minimum length of a list to be coded; a bit mask needs three further numbers."""


def squeeze(graph: Graph) -> Arrays:
    """Columns of a graph's lists as a file holds them.

    Returns
    -------
    dict
        start, count : int64, int32, shape (nodes,)
            ``pool[start[i] : start[i] + count[i]]`` are the sources of node i, once the pool is
            whole again.
        coded : int32
            For each list that is coded, three numbers: which it is in the order of their starts,
            the first source, and how many nodes there are from the first to the last.
        bits : uint8
            Of coded lists, one after the other, whether each of those nodes is a source; the lowest
            bit of a byte first.
        pool : int32
            All other lists.
    """
    start, count, pool = graph.topology()
    start, pool = once_each(start, count, pool, graph.codes < NEURON)  # operations may share one with others
    reads = np.flatnonzero(count)
    begin, first, readers = np.unique(start[reads], return_index=True, return_counts=True)
    length = count[reads[first]]
    is_neuron = graph.codes[reads[first]] >= NEURON
    coded, bits, whole = [], [], np.ones(len(pool), bool)
    for i in np.flatnonzero(is_neuron & (readers == 1) & (length >= LONG)).tolist():
        sources = pool[begin[i] : begin[i] + length[i]]
        span = int(sources[-1]) - int(sources[0]) + 1
        if span // 8 + 16 < 4 * length[i] and (np.diff(sources) > 0).all():
            coded.append((i, sources[0], span))
            flags = np.zeros(span, bool)
            flags[sources - sources[0]] = True
            bits.append(flags)
            whole[begin[i] : begin[i] + length[i]] = False
    packed_bits = np.packbits(np.concatenate(bits), bitorder="little") if bits else np.zeros(0, np.uint8)
    return {
        "start": start,
        "count": count,
        "pool": pool[whole],
        "bits": packed_bits,
        "coded": np.array(coded, np.int32).reshape(-1),
    }


def expand(arrays: Arrays) -> Int32:
    """The whole pool of `squeeze`'s arrays; `start` and `count` must be known to have one length, and no count below 0.

    Raises
    ------
    ValueError
        If the arrays do not belong together.
    """
    if not len(arrays["coded"]) and not len(arrays["bits"]):
        return arrays["pool"]
    start, count, pool = arrays["start"].astype(np.int64), arrays["count"].astype(np.int64), arrays["pool"]
    begin, first = np.unique(start[count > 0], return_index=True)
    length = count[count > 0][first]
    if not np.array_equal(begin, np.cumsum(length) - length):
        raise ValueError("array start: expected lists one after the other where some are coded")
    if len(arrays["coded"]) % 3:
        raise ValueError(f"array coded: expected three numbers for each list, got {len(arrays['coded'])}")
    which, lowest, span = arrays["coded"].astype(np.int64).reshape(-1, 3).T
    inside = (which >= 0) & (which < len(begin)) & (lowest >= 0) & (span > 0) & (lowest + span <= len(start))
    if not inside.all() or (np.diff(which) <= 0).any() or -(-span.sum() // 8) != len(arrays["bits"]):
        raise ValueError("array coded: expected lists in their order, and nodes of the graph with a bit for each")
    coded = np.zeros(len(begin), bool)
    coded[which] = True
    if length[~coded].sum() != len(pool):
        raise ValueError(f"array pool: expected {length[~coded].sum()} sources, got {len(pool)}")
    if length[coded].sum() > len(arrays["parameters"]):
        raise ValueError(f"array parameters: expected at least {length[coded].sum()}, got {len(arrays['parameters'])}")
    at = np.flatnonzero(np.unpackbits(arrays["bits"], count=int(span.sum()), bitorder="little"))
    owner = np.searchsorted(np.cumsum(span), at, side="right")
    if not np.array_equal(np.bincount(owner, minlength=len(which)), length[which]):
        raise ValueError("array bits: expected as many as the lists have sources")
    out = np.empty(int(length.sum()), np.int32)
    is_coded = np.repeat(coded, length)
    out[is_coded] = at - (np.cumsum(span) - span)[owner] + lowest[owner]
    out[~is_coded] = pool
    return out
