"""Views of a graph: a node, a neuron, an edge. They hold a number, not data: what they read and write is the graph's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32, Ids, Int32, Int64
from mlgraph._support.checks import float_array, number, one_of, optional_name, plain, truth
from mlgraph.graph import ops
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER

if TYPE_CHECKING:
    from typing_extensions import Unpack  # that of typing is of Python 3.11

    from mlgraph.graph.graph import Graph
    from mlgraph.models.layer import Layer
    from mlgraph.pictures.drawing import Drawing, Options

KIND_NAMES = {INPUT: "input", CONSTANT: "constant", PARAMETER: "parameter", NEURON: "neuron"}
"""What these nodes are called."""

_ADD, _SUB, _MUL, _DIV, _POW, _NEG, _ABS = (ops.OPS[n].code for n in ("add", "sub", "mul", "div", "pow", "neg", "abs"))


def neuron_code(activation: Any, what: str = "activation") -> int:
    """The code of neurons with an activation of this name; a TypeError or ValueError, of `what`, if there is none."""
    return NEURON + ops.OPS[one_of(what, activation, ops.ACTIVATIONS)].code


class Freezable:
    """What training may leave as it is: a parameter, an edge, all weights and biases of a neuron, a layer or a model.

    Each kind says by `parameter_places` where these stand in the vector.
    """

    __slots__ = ()

    graph: Graph
    parameter_places: Callable[[], Int64 | Int32]

    @property
    def frozen(self) -> bool:
        """Whether training leaves it as it is: during `fit` no step moves it, and no `Model.prune` cuts it.

        Its optimizer state becomes 0. Everything else changes it as before. (An edge added later to a frozen neuron is not
        frozen, and then the neuron is not, either.) For nodes without parameters, such as inputs, `frozen` is an
        AttributeError.

        A layer that is frozen as a whole saves the time of its gradient. If all before it is frozen, too, its adjoints are
        not computed either, and need not be finite.
        """
        with self.graph.lock:
            places, frozen = self.parameter_places(), self.graph.storage.frozen
            return frozen is not None and len(places) > 0 and bool(frozen[places].all())

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        with self.graph.lock:
            self.graph.storage.freeze(self.parameter_places(), truth("frozen", frozen))


class Node(Freezable):
    """A view of one scalar of a graph; arithmetic on nodes adds nodes.

    Attributes
    ----------
    graph : Graph
    id : int
        Its number in the graph, where it is ``graph[id]``; edits do not change it.
    """

    __slots__ = ("born", "graph", "id")

    def __init__(self, graph: Graph, id: int) -> None:
        self.graph = graph
        self.id = id
        self.born = graph.born[id] if 0 <= id < len(graph.born) else -1

    @property
    def _number(self) -> int:
        """The number of the node; a ValueError if it no longer exists, even if another node has its number now."""
        if self.graph._has(self):
            return self.id
        from mlgraph.graph.ids import ids_of  # here, since it imports this module

        return ids_of(self.graph, "node", [self])[0]

    @property
    def kind(self) -> str:
        """ "input", "constant", "parameter", "neuron" or the name of the operation."""
        if not self.graph._has(self):
            return "undone node"  # the edit that added it was undone
        code = self.graph._code[self.id]
        return KIND_NAMES.get(min(code, NEURON)) or ops.BY_CODE[code].name

    @property
    def name(self) -> str:
        """The name it was given, or n and its number. Assigning a name, or None, is no edit; files and copies keep it."""
        name = self.graph.names.get(self.id) if self.graph._has(self) else None
        return f"n{self.id}" if name is None else name

    @name.setter
    def name(self, name: str | None) -> None:
        node, name = self._number, optional_name(name)
        with self.graph.lock:
            if name is None:
                self.graph.names.pop(node, None)
            else:
                self.graph.names[node] = name

    @property
    def sources(self) -> list[Node]:
        """The nodes it reads."""
        return [self.graph[i] for i in self.graph.sources_of(self._number)]

    @property
    def targets(self) -> list[Node]:
        """The nodes that read it."""
        return [self.graph[i] for i in self.graph.targets_of(self._number)]

    @property
    def out_edges(self) -> list[Edge]:
        """The edges out of it, each to a neuron that reads it."""
        return [Edge(self, target) for target in self.targets if isinstance(target, Neuron)]

    @property
    def alive(self) -> bool:
        """Whether it has a live source and is needed for an output; see `Graph.alive`."""
        return bool(self.graph.alive()[self._number])

    @property
    def value(self) -> float:
        """Value of a constant or parameter, an AttributeError for other nodes; only a parameter's can be assigned."""
        node = self._number
        code, data = self.graph._code[node], self.graph._data[node]
        if code == CONSTANT:
            return self.graph.constants[data]
        if code == PARAMETER:
            with self.graph.lock:
                return float(self.graph.weights_of(node)[0])
        raise AttributeError(f"value: expected a constant or parameter, got {self.kind} {plain(self.name)}")

    @value.setter
    def value(self, value: float) -> None:
        if self.graph._code[self._number] != PARAMETER:
            raise AttributeError(f"value: expected a parameter, got {self.kind} {plain(self.name)}")
        with self.graph.lock:
            self.graph.weights_of(self._number)[0] = number("value", value)

    def parameter_places(self) -> Int64:
        node, storage = self._number, self.graph.storage
        code, record = self.graph._code[node], self.graph._data[node]
        if code < PARAMETER:
            raise AttributeError(f"frozen: expected a parameter or neuron, got {self.kind} {plain(self.name)}")
        n, bias = (self.graph._count[node], storage.bias[record]) if code >= NEURON else (1, -1)
        places = storage.weights[record] + storage.stride[record] * np.arange(n)
        return np.append(places, bias) if bias >= 0 else places

    def __repr__(self) -> str:
        return f"<{self.kind} {plain(self.name)}>"

    def __str__(self) -> str:
        from mlgraph.graph.formula import formula

        return formula(self)

    def draw(self, x: npt.ArrayLike | None = None, **options: Unpack[Options]) -> Drawing:
        """A picture of what it depends on; `x`, `values`, `adjoints` and `limit` as for `mlgraph.pictures.Drawing`."""
        from mlgraph.pictures.drawing import Drawing

        return Drawing(self, x=x, **options)

    def _repr_svg_(self) -> str:
        return self.draw().to_svg()

    def __add__(self, other: Node | float) -> Node:
        return self._binary(_ADD, self, other)

    def __radd__(self, other: float) -> Node:
        # Python's `sum` begins with 0. A constant among the terms would hide a neuron from `find_neurons`.
        return self if type(other) is int and other == 0 else self._binary(_ADD, other, self)

    def __sub__(self, other: Node | float) -> Node:
        return self._binary(_SUB, self, other)

    def __rsub__(self, other: float) -> Node:
        return self._binary(_SUB, other, self)

    def __mul__(self, other: Node | float) -> Node:
        return self._binary(_MUL, self, other)

    def __rmul__(self, other: float) -> Node:
        return self._binary(_MUL, other, self)

    def __truediv__(self, other: Node | float) -> Node:
        return self._binary(_DIV, self, other)

    def __rtruediv__(self, other: float) -> Node:
        return self._binary(_DIV, other, self)

    def __pow__(self, other: Node | float) -> Node:
        return self._binary(_POW, self, other)

    def __rpow__(self, other: float) -> Node:
        return self._binary(_POW, other, self)

    def __neg__(self) -> Node:
        return Node(self.graph, self.graph._append(_NEG, (self._number,)))

    def __pos__(self) -> Node:
        return self

    def __abs__(self) -> Node:
        return Node(self.graph, self.graph._append(_ABS, (self._number,)))

    def _compare(self, other: object) -> NoReturn:
        raise TypeError(
            "nodes have no order (they have one for each example): where(x - y, a, b) is a where x > y, else b"
        )

    __lt__ = __le__ = __gt__ = __ge__ = _compare

    def _binary(self, code: int, a: Node | float, b: Node | float) -> Node:
        graph = self.graph
        try:
            if a.graph is b.graph:  # type: ignore[union-attr]
                return Node(graph, graph._append(code, (a._number, b._number)))  # type: ignore[union-attr]
        except AttributeError:
            if not isinstance(a if b is self else b, Real):
                return NotImplemented  # type: ignore[no-any-return]
        return Node(graph, graph._append(code, graph._arguments(ops.BY_CODE[code].name, (a, b))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and (self.graph, self.id, self.born) == (other.graph, other.id, other.born)

    def __hash__(self) -> int:
        return hash((id(self.graph), self.id))

    def __bool__(self) -> bool:
        raise TypeError(f"a node has no truth value (it has one for each example): got {self!r}")


NodesLike = Iterable[Node] | range | Ids
"""How several nodes may be given; a range or an array holds their ids."""


class Edge(Freezable):
    """A view of one weight, from a source to a neuron; it unpacks to source, target and weight.

    Attributes
    ----------
    graph : Graph
    """

    __slots__ = ("_place", "_source", "_target", "graph")

    def __init__(self, source: Node, target: Neuron, place: int = 0) -> None:
        self._source, self._target, self.graph = source, target, target.graph
        self._place = place  # among the sources, unless they have changed since

    @property
    def source(self) -> Node:
        """The node that the target reads."""
        return self._source

    @property
    def target(self) -> Neuron:
        """The neuron that reads the source."""
        return self._target

    @property
    def weight(self) -> float:
        """The weight; a ValueError once the edge is cut."""
        with self.graph.lock:  # the parameters may move while another thread compiles
            return float(self.target.weights[self._find()])

    @weight.setter
    def weight(self, weight: float) -> None:
        with self.graph.lock:
            self.target.weights[self._find()] = number("weight", weight)

    def parameter_places(self) -> Int64:
        return self.target.parameter_places()[[self._find()]]

    def _find(self) -> int:
        self._place = self.graph._place_of(self.source, self.target, self._place)
        return self._place

    def __iter__(self) -> Iterator[Any]:
        return iter((self.source, self.target, self.weight))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Edge) and self.source == other.source and self.target == other.target

    def __hash__(self) -> int:
        return hash((self.source, self.target))

    def __repr__(self) -> str:
        return f"<edge {plain(self.source.name)} to {plain(self.target.name)}>"

    def prune(self) -> None:
        """Cut it; see `Graph.prune`."""
        self.graph.prune([self])


class Neuron(Node):
    """A view of one neuron: ``activation(bias + sum(weights * sources))``.

    Attributes
    ----------
    graph : Graph
    id : int
        Its number in the graph; edits do not change it.

    Examples
    --------
    >>> g = mlgraph.Graph()
    >>> x, y = g.input("x"), g.input("y")
    >>> neuron = g.add_neuron([x, y], "relu", weights=[0.5, -2.0], bias=1.0)
    >>> neuron.sources, neuron.bias
    ([<input x>, <input y>], 1.0)
    >>> neuron.weights = [0.25, 4.0]
    >>> neuron.edges[1].weight
    4.0
    >>> neuron.edges[0].prune()
    >>> print(neuron)
    relu(4*y + 1)
    """

    __slots__ = ()

    def __init__(self, graph: Graph, id: int) -> None:
        super().__init__(graph, id)
        if 0 <= id < len(graph._code) and graph._code[id] < NEURON:
            raise ValueError(f"id: expected that of a neuron, got that of {Node(graph, id)!r}")

    @property
    def activation(self) -> str:
        """Name of the activation, one that `Graph.add_neuron` takes; assigning another is an edit.

        `Layer.activation` stays what the layer was made with. With a cross-entropy, the softmax or sigmoid of the outputs
        comes after this activation.
        """
        return ops.BY_CODE[self.graph._code[self._number] - NEURON].name

    @activation.setter
    def activation(self, activation: str) -> None:
        from mlgraph.graph.edits import activate

        code = neuron_code(activation)
        with self.graph.lock:
            activate(self.graph, self._number, code)

    @property
    def layer(self) -> Layer | None:
        """The layer that it is in, of the network whose graph this is; None if it is in none."""
        node = self._number
        return next((layer for model in self.graph.models for layer in model.layers if node in layer.ids), None)

    @property
    def index(self) -> int | None:
        """Its place in its layer, where it is ``neuron.layer[neuron.index]``; None if it is in none."""
        layer = self.layer
        return None if layer is None else layer.ids.index(self.id)

    @property
    def weights(self) -> Float32:
        """Weights in the order of `sources`; a writable view, valid until the next edit or compilation."""
        return self.graph.weights_of(self._number)

    @weights.setter
    def weights(self, weights: npt.ArrayLike) -> None:
        with self.graph.lock:
            self.graph.weights_of(self._number)[:] = float_array("weights", weights, (self.graph._count[self._number],))

    @property
    def bias(self) -> float | None:
        """The bias, or None; assigning a first bias, or None to remove it, is an edit."""
        with self.graph.lock:
            at = self.graph.storage.bias[self.graph._data[self._number]]
            return None if at < 0 else float(self.graph.storage.vector[at])

    @bias.setter
    def bias(self, bias: float | None) -> None:
        from mlgraph.graph.edits import give_bias

        value = None if bias is None else number("bias", bias)
        with self.graph.lock:
            at = self.graph.storage.bias[self.graph._data[self._number]]
            if value is None or at < 0:
                give_bias(self.graph, self.id, None if value is None else {"": value})
            else:
                self.graph.storage.vector[at] = value

    @property
    def edges(self) -> list[Edge]:
        """Its incoming edges."""
        return [Edge(source, self, place) for place, source in enumerate(self.sources)]

    def prune(self) -> None:
        """Cut it: all edges into it and out of it; see `Graph.prune`."""
        self.graph.prune([self])
