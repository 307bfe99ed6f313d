"""Traces: the value of every node for every example, and the derivative of the loss with respect to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32, Int32
from mlgraph._support.locks import cached_property
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import NOTHING, Engine, Nodes
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.graph import ops
from mlgraph.graph.graph import Graph
from mlgraph.graph.ids import id_of, ids_of
from mlgraph.graph.ops import INPUT, NEURON
from mlgraph.graph.views import Node, NodesLike, name_of

__all__ = ["Trace", "trace"]

CHUNK = 64
"""Number of examples whose derivatives are computed at a time; float64 arrays of all examples take twice as long."""


class Trace:
    """Values and adjoints of nodes. ``trace[node]`` and ``trace.adjoint(node)`` take a node or its id.

    Attributes
    ----------
    nodes : int32, shape (nodes,)
        Ids of the nodes.
    values : float32, shape (examples, nodes)
        A neuron without a live source has the value 0, and operations that read it use 0.
    adjoints : float32, shape (examples, nodes), or None
        Derivative of the example's own loss with respect to the node's value.
    """

    def __init__(
        self,
        graph: Graph,
        nodes: Int32,
        values: Float32,
        adjoints: Float32 | None,
        codes: npt.NDArray[np.int16],
        edits: int,
        sums: dict[int, Float32],
    ) -> None:
        self._graph, self.nodes, self.values, self.adjoints = graph, nodes, values, adjoints
        self._sums = sums  # of the neurons whose derivative needs the weighted sum; 0 for others of such activations
        self._codes, self._edits = codes, edits  # as traced: activations may change later, and new nodes may reuse ids

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        what = "values" if self.adjoints is None else "values and adjoints"
        return f"<Trace of {len(self)} nodes, {len(self.values)} examples: {what}>"

    def __getitem__(self, node: Node | int) -> Float32:
        """Values of a node, shape (examples,); a view."""
        return self.values[:, self._column_of(id_of(self._graph, node))]

    def adjoint(self, node: Node | int) -> Float32:
        """Adjoints of a node.

        Parameters
        ----------
        node : Node or int

        Returns
        -------
        float32, shape (examples,)
            A view. It is 0 for nodes on which the loss does not depend, such as probabilities.

        Raises
        ------
        ValueError
            If the trace was made without labels or targets, or does not have this node.
        """
        if self.adjoints is None:
            raise ValueError("adjoint: the trace has values only; call trace(x, y) with labels or targets")
        return self.adjoints[:, self._column_of(id_of(self._graph, node))]

    def of(self, nodes: NodesLike) -> Trace:
        """The trace of some of the nodes, in the given order.

        Parameters
        ----------
        nodes : sequence of Node, or array or range of their ids

        Raises
        ------
        ValueError
            If the trace does not have all of them.
        """
        columns = [self._column_of(i) for i in ids_of(self._graph, "nodes", nodes)]
        adjoints = None if self.adjoints is None else self.adjoints[:, columns]
        return Trace(
            self._graph,
            self.nodes[columns],
            self.values[:, columns],
            adjoints,
            self._codes[columns],
            self._edits,
            self._sums,
        )

    def deltas(self) -> Float32:
        """Adjoints with respect to the weighted sums before the activation; shape (examples, nodes).

        For nodes that are not neurons they equal `adjoints`. The gradient of an edge, existing or not, is the sum
        over the examples of its target's delta times its source's value.

        Raises
        ------
        ValueError
            If the trace was made without labels or targets.
        """
        if self.adjoints is None:
            raise ValueError("deltas: the trace has values only; call trace(x, y) with labels or targets")
        out = self.adjoints.copy()
        code = self._codes
        for activation in np.unique(code[code > NEURON]).tolist():
            derivatives, at = ops.BY_CODE[activation - NEURON].derivatives, np.flatnonzero(code == activation)
            for first in range(0, len(out), CHUNK):
                some = slice(first, first + CHUNK), at
                y = z = self.values[some]
                if not ops.is_in_place(activation - NEURON):
                    zero = np.zeros(len(out), np.float32)
                    z = np.column_stack([self._sums.get(node, zero)[some[0]] for node in self.nodes[at].tolist()])
                with np.errstate(under="ignore"):
                    out[some] *= derivatives(y, z)[0].astype(np.float32)
        return out

    @cached_property
    def _column(self) -> dict[int, int]:
        return {node: i for i, node in enumerate(self.nodes.tolist())}

    def _column_of(self, node: int) -> int:
        born = self._graph.born
        if node not in self._column or node >= len(born) or born[node] >= self._edits:
            name = name_of(self._graph, node) if 0 <= node < len(born) else f"n{node}"
            raise ValueError(f"node: the trace does not have {name}; choose its nodes by trace(..., nodes=[...])")
        return self._column[node]


class Tracing:
    """Keeps the engine of the last trace, for the next trace of the same nodes."""

    def __init__(self) -> None:
        self._last: tuple[tuple[Any, ...], Engine] | None = None

    def engine(self, graph: Graph, needed: Sequence[int], kept: Int32 | None, objective: Objective | None) -> Engine:
        """The engine for a trace of the nodes `kept`; the other arguments are those of `trace`."""
        key = (*needed,), None if kept is None else kept.tobytes(), None if objective is None else (*objective.nodes,)
        if self._last and self._last[0] == key and not self._last[1].plan.is_stale(graph):
            return self._last[1]
        self._last = None  # frees its memory before the next is made
        wants_inputs = objective is not None and kept is not None and bool((graph.codes[kept] == INPUT).any())
        wanted = np.arange(len(graph)) if kept is None else kept
        plan = Plan(
            graph,
            [*needed, *(() if kept is None else kept.tolist())],
            want_inputs=wants_inputs,
            wanted=None if objective is None else wanted,
            loss=None if objective is None else objective.nodes,
            split=True,
        )
        self._last = key, Engine(graph, plan)
        return self._last[1]


def trace(
    graph: Graph,
    examples: Examples,
    needed: Sequence[int],
    nodes: Nodes | None = None,
    objective: Objective | None = None,
    *,
    n_threads: int | None = None,
    tracing: Tracing | None = None,
) -> Trace:
    """Sweep over the examples and keep the values, and adjoints, of nodes.

    Parameters
    ----------
    needed : sequence of int
        Ids of the outputs and of the nodes of the loss.
    nodes : sequence of int, optional
        Ids of the nodes to keep; by default all needed nodes except the inputs.
    objective : Objective, optional
        Without it there are values but no adjoints.
    tracing : Tracing, optional
        Holds the engine of the last trace.
    """
    kept = None if nodes is None else np.array(nodes, np.int32)
    engine, backward = (tracing or Tracing()).engine(graph, needed, kept, objective), objective is not None
    if kept is None:
        plan = engine.plan
        kept = np.sort(plan.node[(plan.node < len(graph))][len(plan.input_column) :])
    code = graph.codes[kept]
    slots = engine.plan.sum_slots(kept) if (code > NEURON).any() else np.full(len(kept), -1)
    summed = np.flatnonzero(backward & (slots >= 0) & ~ops.is_in_place(code - NEURON))
    wanted = np.append(kept, engine.plan.node[slots[summed]])
    _, values, adjoints = engine.compute(
        examples, objective=objective or NOTHING, values=wanted, adjoints=kept if backward else (), n_threads=n_threads
    )
    sums = dict(zip(kept[summed].tolist(), values[:, len(kept) :].T, strict=True))
    values = values[:, : len(kept)]
    if objective and objective.loss != "cotangent":
        adjoints *= np.float32(len(examples))  # the sweep differentiates the mean over the batch
    return Trace(graph, kept, values, adjoints if backward else None, code, graph.edits, sums)
