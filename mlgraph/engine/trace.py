"""What goes on inside a graph: the value of every node for every example, and how the loss depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32, Int32
from mlgraph._support.checks import plain
from mlgraph._support.locks import cached_property
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import NOTHING, Engine, Nodes
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.graph import ops
from mlgraph.graph.graph import Graph
from mlgraph.graph.ids import id_of, ids_of
from mlgraph.graph.ops import INPUT, NEURON
from mlgraph.graph.views import Node, NodesLike

__all__ = ["Trace", "trace"]

AT_ONCE = 64
"""Examples of which derivatives are taken at a time: those of all in float64 would be new memory, which takes twice as long."""


class Trace:
    """Values and adjoints of nodes; ``trace[node]`` and ``trace.adjoint(node)`` are those of one, also given by its id.

    Attributes
    ----------
    nodes : int32, shape (nodes,)
        Their ids.
    values : float32, shape (examples, nodes)
        A neuron without a live source has the value 0; an operation that reads only such neurons is computed from zeros.
    adjoints : float32, shape (examples, nodes), or None
        The derivative of the example's own loss with respect to the node's value.
    """

    def __init__(
        self,
        graph: Graph,
        nodes: Int32,
        values: Float32,
        adjoints: Float32 | None,
        codes: npt.NDArray[np.int16],
        edits: int,
    ) -> None:
        self._graph, self.nodes, self.values, self.adjoints = graph, nodes, values, adjoints
        self._codes, self._edits = codes, edits  # as they were: activations may change, and new nodes may get old ids

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
            A view. 0 for nodes that the loss does not read, such as probabilities: a cross-entropy reads the logits.

        Raises
        ------
        ValueError
            If the trace was made without labels or targets, or does not have this node.
        """
        if self.adjoints is None:
            raise ValueError("adjoint: expected a trace with labels or targets, got one of values alone")
        return self.adjoints[:, self._column_of(id_of(self._graph, node))]

    def of(self, nodes: NodesLike) -> Trace:
        """The trace of some of its nodes, in their order.

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
            self._graph, self.nodes[columns], self.values[:, columns], adjoints, self._codes[columns], self._edits
        )

    def deltas(self) -> Float32:
        """Adjoints; for neurons, those of the weighted sums before the activation. Shape (examples, nodes).

        The gradient of an edge is the sum over the examples of its target's delta times its source's value, whether or not
        the edge exists.

        Raises
        ------
        ValueError
            If the trace was made without labels or targets.
        """
        if self.adjoints is None:
            raise ValueError("deltas: expected a trace with labels or targets, got one of values alone")
        out = self.adjoints.copy()
        code = self._codes
        for activation in np.unique(code[code > NEURON]).tolist():
            derivatives, at = ops.BY_CODE[activation - NEURON].derivatives, np.flatnonzero(code == activation)
            for first in range(0, len(out), AT_ONCE):
                some = slice(first, first + AT_ONCE), at
                y = self.values[some]
                with np.errstate(under="ignore"):
                    out[some] *= derivatives(y, y)[0].astype(np.float32)
        return out

    @cached_property
    def _column(self) -> dict[int, int]:
        return {node: i for i, node in enumerate(self.nodes.tolist())}

    def _column_of(self, node: int) -> int:
        born = self._graph.born
        if node not in self._column or node >= len(born) or born[node] >= self._edits:
            name = plain(self._graph[node].name) if 0 <= node < len(born) else f"n{node}"
            raise ValueError(f"node: expected a node of the trace, got {name}; trace(..., nodes=[...]) says which are")
        return self._column[node]


class Tracing:
    """The engine of the last trace, which the next one uses if it is of the same nodes of the same graph."""

    def __init__(self) -> None:
        self._last: tuple[tuple[Any, ...], Engine] | None = None

    def engine(self, graph: Graph, needed: Sequence[int], kept: Int32 | None, objective: Objective | None) -> Engine:
        """The engine for a trace of the nodes `kept`, which may be None; parameters as of `trace`."""
        key = (*needed,), None if kept is None else kept.tobytes(), None if objective is None else (*objective.nodes,)
        if self._last and self._last[0] == key and not self._last[1].plan.is_stale(graph):
            return self._last[1]
        self._last = None  # its memory is not needed while the next is made
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
        Ids of the outputs, and of whatever the loss begins with.
    nodes : sequence of int, optional
        Ids of the nodes to keep; by default all that are needed except the inputs, whose values are the data.
    objective : Objective, optional
        Needed for adjoints; without it there are only values.
    tracing : Tracing, optional
        What has been compiled for the last trace.
    """
    kept = None if nodes is None else np.array(nodes, np.int32)
    engine, backward = (tracing or Tracing()).engine(graph, needed, kept, objective), objective is not None
    if kept is None:
        plan = engine.plan
        kept = np.sort(plan.node[(plan.node < len(graph))][len(plan.input_column) :])
    _, values, adjoints = engine.compute(
        examples, objective=objective or NOTHING, values=kept, adjoints=kept if backward else (), n_threads=n_threads
    )
    if objective and objective.loss != "cotangent":
        adjoints *= np.float32(len(examples))  # the sweep's are of the mean over the batch
    return Trace(graph, kept, values, adjoints if backward else None, graph.codes[kept], graph.edits)
