"""The part of a graph that a model is: what its outputs and loss need, beside other models too, and how that is counted."""

from __future__ import annotations

import threading

import numpy as np

from mlgraph._support.array_types import Bool, Int32, Int64
from mlgraph.compiler.grouping import Dropout
from mlgraph.graph.arrays import bias_places
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import NEURON, PARAMETER
from mlgraph.graph.topology import Topology, ancestors, levels_of
from mlgraph.graph.views import Node
from mlgraph.models.layer import Layer


class Part:
    """Outputs of a graph, and the nodes of a loss over them. A base of `Model`, which says what they are."""

    graph: Graph
    _outputs: list[int]
    _loss_nodes: list[int]
    _probabilities: list[int]

    def _begin(self, graph: Graph) -> None:
        self.graph = graph
        self._layers: list[Layer] = []  # of a `Network`; any other model has none
        self._needed_before = np.zeros(
            0, bool
        )  # which nodes it needed before an edit, if the graph had other models then
        self._counted: tuple[tuple[int, ...], int] = (), 0  # (edits, *sinks), and its number of edges then

    @property
    def outputs(self) -> list[Node]:
        """The nodes that give the predictions; of a `Network`, those of its last layer (logits before a cross-entropy)."""
        return [self.graph[i] for i in self._outputs]

    @property
    def probabilities(self) -> list[Node]:
        """The nodes that `Model.predict_proba` gives the values of; none where the loss is no cross-entropy.

        They read the outputs, which are logits then.
        """
        return [self.graph[i] for i in self._probabilities]

    @property
    def n_edges(self) -> int:
        """How many edges from live nodes some output or the loss needs; nodes that are parameters do not count."""
        with self.graph.lock:
            graph, key = self.graph, (self.graph.edits, *self._sinks)
            if self._counted[0] != key:
                needed = self._needed()
                sources = graph.topology().sources_of(np.flatnonzero(needed & (graph.codes >= NEURON)))
                self._counted = key, int(np.count_nonzero(needed[sources]))
            return self._counted[1]

    @property
    def n_parameters(self) -> int:
        """Weights, biases and parameter nodes that some output or the loss needs; `Graph.get_parameters` has all."""
        with self.graph.lock:
            graph, needed = self.graph, np.flatnonzero(self._needed() & (self.graph.codes >= PARAMETER))
            biases = np.count_nonzero(bias_places(graph, needed) >= 0)
            return self.n_edges + int(biases + np.count_nonzero(graph.codes[needed] == PARAMETER))

    @property
    def sparsity(self) -> float:
        """1 - `n_edges` / the most edges that the neurons have ever had, each by itself.

        An edge that was added and cut again counts as cut. Neurons that only other models of the graph need do not
        count while those models exist: a copy or a file holds this model alone, and counts what the others need as cut
        (`compact` leaves it behind). A neuron that is cut off counts with all edges that it had, even beside one that takes
        its place. So does a neuron that no model has ever needed: because of such neurons `Model.prune` may cut less, or
        nothing; `Model.compact` leaves them behind.
        """
        with self.graph.lock:
            graph, own = self.graph, self._own() & (self.graph.codes >= NEURON)
            made = int(graph.storage.max_sources_of(graph.records[own]).sum())
            return max(0.0, 1 - self.n_edges / made) if made else 0.0

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _sinks(self) -> list[int]:
        """What a plan for training needs: the outputs and the nodes of the loss."""
        return [*self._outputs, *self._loss_nodes]

    def _needed(self) -> Bool:
        """Which nodes are alive and needed for an output or the loss; shape (nodes,)."""
        sinks = frozenset(self._sinks)  # none of a network without layers; of a graph, no outputs mean all
        return self.graph._needed_for(sinks) if sinks else np.zeros(len(self.graph), bool)

    def _own(self) -> Bool:
        """Which nodes do not belong only to other models of the graph; shape (nodes,)."""
        graph, theirs = self.graph, np.zeros(len(self.graph), bool)
        if len(graph._models) > 1:
            topology = graph.topology()
            for model in graph._models:
                theirs |= model._ever_needed(topology)
            theirs &= ~self._ever_needed(topology)
        return ~theirs

    def _ever_needed(self, topology: Topology) -> Bool:
        """Which nodes the model needs, or needed before an edit that is not taken back; shape (nodes,)."""
        needed = ancestors(self.graph, topology, self._sinks)
        needed[: len(self._needed_before)] |= self._needed_before
        return needed

    def _forget(self, nodes: int) -> None:
        """Forget all but so many nodes, the first ones: new nodes may get the numbers of the others."""
        self._needed_before = self._needed_before[:nodes]
        for layer in self._layers:
            layer._ids, layer._reads = ([i for i in ids if i < nodes] for ids in (layer._ids, layer._reads))

    def _require_outputs(self) -> threading.RLock:
        """The lock of the graph; a ValueError if there are no outputs yet."""
        if not self._outputs:
            raise ValueError("network: expected at least one layer, got none; add_layer adds one")
        return self.graph.lock

    def _layer_numbers(self) -> Int64:
        """The layer of each node, with one more, the last, for nodes in no layer; without layers, the level of each node."""
        if not self._layers:
            return levels_of(self.graph)
        number = np.full(len(self.graph), len(self._layers))
        for i, layer in enumerate(self._layers):
            number[layer._ids] = i
        return number

    def _kept(self) -> Int32:
        """The nodes that a compact copy cannot do without."""
        # A layer of probabilities has one for each of its neurons, whether or not anything reads it.
        of_layers = [i for layer in self._layers for i in layer._probabilities]
        return np.array([*self._sinks, *self._probabilities, *of_layers], np.int32)

    @property
    def _dropout(self) -> Dropout:
        """Neurons, and what shares of them and of their edges are dropped in training."""
        shares = ((layer._ids, layer.dropout, layer.weight_dropout) for layer in self._layers)
        return [(ids, neurons, edges) for ids, neurons, edges in shares if neurons or edges]
