"""What a graph asks of the models and layers built over it, which live in a room above this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from mlgraph._support.array_types import Bool
from mlgraph.graph.topology import Topology
from mlgraph.graph.views import Neuron


class LayerOfGraph(Protocol):
    """A layer of neurons, such as `mlgraph.Layer`."""

    ids: list[int]
    source_ids: list[int]

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Neuron]: ...
    def __getitem__(self, index: Any, /) -> Any: ...


class ModelOfGraph(Protocol):
    """A model over a graph, such as `mlgraph.Model` or `mlgraph.Network`.

    Attributes
    ----------
    needed_before : bool, shape (nodes,) or shorter
        The nodes that the model needed before an edit, noted while the graph had other models.
    engines : dict
        Compiled engines by the nodes that they compute.
    """

    needed_before: Bool
    engines: dict[tuple[int, ...], Any]

    @property
    def sinks(self) -> list[int]:
        """Ids of the outputs and of the nodes of the loss."""

    @property
    def layers(self) -> Sequence[LayerOfGraph]:
        """The layers; empty unless the model is a network."""

    @property
    def columns(self) -> Sequence[str] | None:
        """Names of the columns that the first inputs read, if they are known."""

    def ever_needed(self, topology: Topology, /) -> Bool:
        """Which nodes the model needs, or has needed before; shape (nodes,)."""

    def forget_nodes(self, nodes: int, /) -> None:
        """Forget all but the first `nodes` nodes, because later nodes may reuse the other ids."""
