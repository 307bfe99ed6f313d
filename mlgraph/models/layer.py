"""Layers: views of the neurons of a network that were made together or have joined them, as arrays and one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, overload

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Int64, read_only
from mlgraph._support.attributes import Declared
from mlgraph._support.checks import float_array, real_array, share, shown
from mlgraph.graph.arrays import Edges, bias_places, biases, parameter_places, wiring
from mlgraph.graph.edits import cut, edges_named, grow, new_edges
from mlgraph.graph.graph import Graph
from mlgraph.graph.views import Freezable, Neuron, name_of, neuron_code

HIDDEN_ACTIVATION = "leaky_relu"
"""The activation of a hidden layer for which none was chosen."""


class Layer(Freezable, Declared):
    """Neurons of one layer of a `Network`."""

    __slots__ = (
        "__weakref__",
        "_activation",
        "_dropout",
        "_weight_dropout",
        "graph",
        "ids",
        "probability_ids",
        "source_ids",
    )

    _elsewhere: ClassVar = {
        **Freezable._elsewhere,
        **dict.fromkeys(("get_weights", "set_weights"), "weights and biases, which can be read and assigned"),
        **dict.fromkeys(("weight", "kernel"), "weights, of shape (neurons, sources)"),
        "bias": "biases",
        "units": "size",
    }

    def __init__(
        self,
        graph: Graph,
        ids: list[int],
        activation: str | None,
        dropout: float,
        weight_dropout: float,
        probabilities: list[int],
    ) -> None:
        self.graph, self.ids, self.probability_ids = graph, ids, probabilities
        self.source_ids: list[int] = []  # the nodes of the layer before
        self._activation, self._dropout, self._weight_dropout = activation, dropout, weight_dropout

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        return None, {name: getattr(self, name) for name in self.__slots__ if name != "__weakref__"}

    @property
    def activation(self) -> str:
        """The activation that `Network.add_layer` was given; assigning another to a neuron does not change it.

        `Network.is_layered` is False if a neuron has another one.

        If it was given none, identity while this is the last layer, and leaky_relu afterwards.

        Before a cross-entropy (after "softmax", or "sigmoid" with that loss) the neurons themselves
        are "identity" neurons.
        """
        return self._activation or "identity"

    def become_hidden(self) -> None:
        """Another layer follows: if no activation was chosen, the neurons get that of a hidden layer."""
        if self._activation is None:
            for neuron in self.neurons:
                if neuron.activation == "identity":  # and not another, which a user assigned
                    neuron.activation = HIDDEN_ACTIVATION
            self._activation = HIDDEN_ACTIVATION

    @property
    def dropout(self) -> float:
        """Share of its neurons dropped in training.

        May be assigned, as in `Network.add_layer`, also while the network is being trained: it holds
        from the next step on. During a run with a checkpoint that is a RuntimeError.
        """
        return self._dropout

    @dropout.setter
    def dropout(self, value: float) -> None:
        self._assign("dropout", dropout_of(value, bool(self.probability_ids)))

    @property
    def weight_dropout(self) -> float:
        """Share of its incoming edges dropped in training; may be assigned as `dropout`."""
        return self._weight_dropout

    @weight_dropout.setter
    def weight_dropout(self, value: float) -> None:
        self._assign("weight_dropout", share("weight_dropout", value))

    def _assign(self, name: str, value: float) -> None:
        with self.graph.lock:
            self.graph.require_open_options(name)
            for model in self.graph.models:
                model.engines.clear()  # their plans have the old value
            setattr(self, f"_{name}", value)

    @property
    def size(self) -> int:
        """Number of neurons."""
        return len(self.ids)

    @property
    def neurons(self) -> list[Neuron]:
        """Views of the neurons; for a layer of probabilities, of those that give the logits."""
        return [Neuron(self.graph, i) for i in self.ids]

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Neuron]:
        """A layer stands for its neurons where some are expected: ``graph.prune(layer)``."""
        return iter(self.neurons)

    @overload
    def __getitem__(self, index: int) -> Neuron: ...
    @overload
    def __getitem__(self, index: slice) -> list[Neuron]: ...
    def __getitem__(self, index: int | slice) -> Neuron | list[Neuron]:
        """``layer.neurons[index]``."""
        if isinstance(index, slice):
            return [Neuron(self.graph, i) for i in self.ids[index]]
        try:
            return Neuron(self.graph, self.ids[index])
        except (IndexError, TypeError) as error:
            raise type(error)(
                f"layer: expected a number from {-self.size} to {self.size - 1}, got {shown(index)}"
            ) from None

    @property
    def weights(self) -> Float32:
        """Weights of all neurons, float32 of shape (neurons, nodes of the layer before), with 0 where there is no edge.

        Edges from other nodes are not in it: `Network.is_layered` is False if there are any.

        A read-only copy: to change weights, assign a whole array. It sets the weights of existing
        edges; none comes or goes.
        """
        with self.graph.lock:  # the parameters may move while another thread compiles, and the layer may be widened
            out = np.zeros((self.size, len(self.source_ids)), np.float32)
            place, row, column = self._edges()
            out[row, column] = self.graph.parameters[place]
        return read_only(out)

    @weights.setter
    def weights(self, weights: npt.ArrayLike) -> None:
        given = real_array("weights", weights)  # before a look at the graph, which the conversion may edit
        with self.graph.lock:
            new = float_array("weights", given, (self.size, len(self.source_ids)))
            place, row, column = self._edges()
            self.graph.storage.vector[place] = new[row, column]

    @property
    def mask(self) -> Bool:
        """Where there is an edge, bool of shape (neurons, nodes of the layer before).

        Edges of weight 0, and those that no output needs, count.

        A read-only copy. Assigning a mask is one edit: it cuts edges and adds others with weight 0.
        No edge can be added from an operation without a live source, such as a probability of
        neurons that are cut off, or from a node that loses its own live source in that edit.
        """
        with self.graph.lock:
            out = np.zeros((self.size, len(self.source_ids)), bool)
            _, row, column = self._edges()
        out[row, column] = True
        return read_only(out)

    @mask.setter
    def mask(self, mask: npt.ArrayLike) -> None:
        wanted = real_array("mask", mask, "astype(bool)")
        graph = self.graph
        with graph.one_edit():
            there = self.mask
            if wanted.dtype != bool or wanted.shape != there.shape:
                got = f"{wanted.dtype} of shape {wanted.shape}"
                raise ValueError(f"mask: expected bool of shape {there.shape}, got {got}")
            # Edges are added before others are cut, so that no output is cut off in between.
            grow(graph, new_edges(graph, self._edges_at(wanted & ~there), "mask"), "mask")
            cut(graph, *edges_named(graph, self._edges_at(there & ~wanted), "mask"), who="mask")
            differs = (self.mask != wanted).any(axis=0)
            if differs.any():
                name = name_of(graph, self.source_ids[int(np.argmax(differs))])
                expected = "edges from nodes that have a live source"
                raise ValueError(f"mask: expected {expected}, got one from {name}, which has none")

    def _edges_at(self, places: Bool) -> Edges:
        row, column = np.nonzero(places)
        source, target = np.array(self.source_ids, np.int32)[column], np.array(self.ids, np.int32)[row]
        return Edges(source, target, np.zeros(len(row), np.float32))

    @property
    def biases(self) -> Float32:
        """Biases of all neurons, float32 of shape (neurons,), with NaN for a neuron without one.

        A read-only copy. An assigned array sets the biases of the neurons that have one, except
        where it is NaN.
        """
        with self.graph.lock:
            out = biases(self.graph, np.array(self.ids, np.int32), missing=np.nan)
        return read_only(out)

    @biases.setter
    def biases(self, biases: npt.ArrayLike) -> None:
        given = real_array("biases", biases)
        with self.graph.lock:
            new = float_array("biases", given, (self.size,), nan=True)
            place = np.where(np.isnan(new), -1, self.bias_places())
            self.graph.storage.vector[place[place >= 0]] = new[place >= 0]

    def parameter_places(self) -> Int64:
        """Positions of the neurons' weights and biases in the parameter vector."""
        return parameter_places(self.graph, np.array(self.ids, np.int32))

    def _edges(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Of each edge from the layer before, its place among the parameters, its neuron and its source."""
        edges, (row, column) = wiring(self.graph, np.array(self.ids, np.int32)), np.full((2, len(self.graph)), -1)
        row[self.ids], column[self.source_ids] = np.arange(self.size), np.arange(len(self.source_ids))
        column = column[edges.source]
        inside = column >= 0
        return edges.place[inside], row[edges.target[inside]], column[inside]

    def describes_its_neurons(self) -> bool:
        """Whether each neuron reads only nodes of the layer before, and has the activation of the layer."""
        ids, inside = np.array(self.ids, np.int32), np.zeros(len(self.graph), bool)
        inside[self.source_ids] = True
        code = neuron_code("identity" if self.probability_ids else self.activation)
        sources = self.graph.topology().sources_of(ids)
        return bool((self.graph.codes[ids] == code).all() and inside[sources].all())

    def bias_places(self) -> Int64:
        """Position of each neuron's bias in the parameter vector; -1 for a neuron without one."""
        return bias_places(self.graph, np.array(self.ids, np.int32))

    def __repr__(self) -> str:
        return f"<Layer of {self.size} {self.activation} neurons>"


def dropout_of(value: float, of_probabilities: bool) -> float:
    """The checked fraction of neurons to drop; a layer of probabilities allows only 0."""
    dropout = share("dropout", value)
    if of_probabilities and dropout:
        raise ValueError(f"dropout: expected 0 for a layer of probabilities, got {dropout}")
    return dropout
