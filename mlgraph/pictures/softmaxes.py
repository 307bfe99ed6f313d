"""Softmaxes in a drawing, each of which is drawn as one box."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlgraph._support.array_types import Int32
from mlgraph.engine.losses import are_probabilities
from mlgraph.graph import ops
from mlgraph.graph.graph import Graph

LOGSUMEXP, SUB = ops.OPS["logsumexp"].code, ops.OPS["sub"].code


class Softmax(NamedTuple):
    """The nodes of a softmax.

    Attributes
    ----------
    probabilities : list of int
    inner : set of int
        All other nodes, which only the softmax reads.
    entries : list of int
        For each probability, the inner node whose first argument is its logit.
    """

    probabilities: list[int]
    inner: set[int]
    entries: list[int]


def find_softmaxes(graph: Graph, order: Int32, source: Int32, target: Int32) -> list[Softmax]:
    """Find the softmaxes all of whose nodes are drawn; `order`: the nodes drawn, `source`, `target`: their edges."""
    codes = graph.codes
    totals = order[codes[order] == LOGSUMEXP].tolist()
    if not totals:
        return []
    by_source = np.argsort(source, kind="stable")
    ends = np.cumsum(np.bincount(source, minlength=len(graph)))
    readers_of = [0, *ends.tolist()]

    def readers(node: int) -> list[int]:
        return sorted(set(target[by_source[readers_of[node] : readers_of[node + 1]]].tolist()))

    found = []
    for total in totals:
        terms, differences = graph.sources_of(total).tolist(), readers(total)
        probabilities = [reader for node in differences for reader in readers(node)]
        if not len(terms) == len(differences) == len(probabilities):
            continue
        inner, entries = {total, *differences}, differences  # of a softmax in a file of an older version
        if (codes[terms] == SUB).all():
            pairs = [graph.sources_of(node).tolist() for node in terms]
            if are_probabilities(graph, "softmax", [logit for logit, _ in pairs], probabilities):
                inner, entries = {*inner, *terms, pairs[0][1]}, terms
        if entries is differences and not are_probabilities(graph, "softmax", terms, probabilities):
            continue
        if {reader for node in inner for reader in readers(node)} <= {*inner, *probabilities}:
            found.append(Softmax(probabilities, inner, entries))
    return found
