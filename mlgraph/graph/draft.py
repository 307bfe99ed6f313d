"""A graph in the making: plain lists, to which adding a node costs a microsecond.

For code that makes many small graphs and knows that they are valid: nothing is checked, and there is
no edit to undo. `Draft.overflow` finds numbers that float32 cannot hold.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from mlgraph._support.array_types import Float32
from mlgraph._support.locks import cached_property
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON
from mlgraph.graph.storage import padded


class Draft:
    """The columns of a graph as lists; a node is added after its sources.

    Parameters
    ----------
    n_inputs : int
        The first nodes are so many inputs.

    Attributes
    ----------
    codes, counts, pool : list of int
        As the columns of `mlgraph.graph.nodes`. The sources of a node follow those of the node before.
    weights : list of float
        Those of a neuron follow those of the neuron before.
    biases : list of float or None
        By neuron; None for one without a bias.
    names : dict of str
        By node.
    """

    def __init__(self, n_inputs: int) -> None:
        self.codes = [INPUT] * n_inputs
        self.counts = [0] * n_inputs
        self.pool: list[int] = []
        self.weights: list[float] = []
        self.biases: list[float | None] = []
        self.names: dict[int, str] = {}
        self._n_inputs = n_inputs
        self._data = list(range(n_inputs))
        self._constants: dict[float, int] = {}
        self._fan_in: list[int] = []  # of each neuron

    def operation(self, code: int, sources: Sequence[int]) -> int:
        """Add an operation; returns its id."""
        return self._add(code, sources, -1)

    def constant(self, value: float) -> int:
        """The id of the constant of this value, which is added if it is missing."""
        if value not in self._constants:
            self._constants[value] = self._add(CONSTANT, (), len(self._constants))
        return self._constants[value]

    def neuron(self, activation: int, sources: Sequence[int], weights: Sequence[float], bias: float | None) -> int:
        """Add a neuron whose activation has this code; returns its id."""
        self.weights += weights
        self.biases.append(bias)
        self._fan_in.append(len(sources))
        return self._add(NEURON + activation, sources, len(self.biases) - 1)

    def _add(self, code: int, sources: Sequence[int], data: int) -> int:
        self.codes.append(code)
        self.counts.append(len(sources))
        self._data.append(data)
        self.pool += sources
        return len(self.codes) - 1

    def parameters(self) -> list[float]:
        """The weights, then the biases: the order of `Graph.get_parameters`."""
        return self.weights + [bias for bias in self.biases if bias is not None]

    @cached_property
    def vector(self) -> Float32:
        """The parameters of the complete draft as float32; infinite if that cannot hold them."""
        return np.frombuffer(array("f", self.parameters()), np.float32)  # faster than numpy, which warns of overflows

    def overflow(self) -> int | None:
        """The place in `parameters` of the first that float32 cannot hold, or that is not finite; None if all fit."""
        fits = np.isfinite(self.vector)
        return None if fits.all() else int(np.argmin(fits))

    def graph(self) -> Graph:
        """The graph."""
        vector, graph = self.vector, Graph()
        place = iter(range(len(self.weights), len(vector)))
        columns = graph.columns_by_name() | {"born": graph.born}
        for name, values in (
            ("code", self.codes),
            ("start", _starts(self.counts)),
            ("count", self.counts),
            ("data", self._data),
            ("born", [-1] * len(self.codes)),
            ("pool", self.pool),
            ("constants", list(self._constants)),
            ("inputs", list(range(self._n_inputs))),
            ("weights", _starts(self._fan_in)),
            ("stride", [1] * len(self._fan_in)),
            ("bias", [-1 if bias is None else next(place) for bias in self.biases]),
            ("max_sources", self._fan_in),
        ):
            columns[name].fromlist(values)
        at = graph.storage.grow(padded(len(vector)))  # kernels work on whole panels
        graph.storage.vector[at : at + len(vector)] = vector
        graph.names = self.names
        return graph


def _starts(counts: list[int]) -> list[int]:
    """Where each of the lists of these lengths begins, if they follow each other."""
    return [0, *accumulate(counts)][:-1]
