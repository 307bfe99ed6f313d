"""Views of a graph: nodes, neurons and edges. They hold ids and no data: they read and write the graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Ids, Int32, Int64
from mlgraph._support.attributes import Hinting
from mlgraph._support.checks import float_array, number, one_of, optional_name, plain, real_array, truth
from mlgraph.graph import ops
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER, WEIGHT

if TYPE_CHECKING:
    from typing_extensions import Unpack  # that of typing is of Python 3.11

    from mlgraph.graph.graph import Graph
    from mlgraph.graph.protocols import LayerOfGraph
    from mlgraph.graph.weights import Weights
    from mlgraph.pictures.drawing import Drawing, Options

KIND_NAMES = {WEIGHT: "weight", INPUT: "input", CONSTANT: "constant", PARAMETER: "parameter", NEURON: "neuron"}
"""`Node.kind` of the nodes that are not operations."""

_ADD, _SUB, _MUL, _DIV, _POW, _NEG, _ABS = (ops.OPS[n].code for n in ("add", "sub", "mul", "div", "pow", "neg", "abs"))

_UNNAMED = ("identity", "neg", "abs")
"""Ops of one argument that are no functions of mlgraph."""

_OF_NUMPY = {"float_power": "pow", "fabs": "abs", "logaddexp": "logsumexp", "expit": "sigmoid"}
"""Functions of numpy, and of scipy.special, that are ops of other names."""

_OPERATORS = {
    *("absolute", "add", "divide", "multiply", "negative", "positive", "power", "reciprocal", "square", "subtract"),
    *("equal", "greater", "greater_equal", "less", "less_equal", "not_equal"),
}
"""Functions of numpy that apply operators of Python to objects."""


def neuron_code(activation: Any, what: str = "activation") -> int:
    """The code of neurons with this activation; a TypeError or ValueError that begins with `what` if it is unknown."""
    return NEURON + ops.OPS[one_of(what, activation, ops.ACTIVATIONS)].code


def place_of(graph: Graph, node: int) -> tuple[int, int] | None:
    """The layer of a neuron and its index there, or None outside layers. It searches the layers."""
    for model in graph.models:
        for i, layer in enumerate(model.layers):
            if node in layer.ids:
                return i, layer.ids.index(node)
    return None


def columns_of(graph: Graph) -> Sequence[str]:
    """The columns of the models of a graph; empty if none has any, or if they disagree."""
    found = [columns for model in graph.models if (columns := model.columns)]
    return found[0] if found and all(columns == found[0] for columns in found[1:]) else ()


def own_name(graph: Graph, node: int) -> str | None:
    """The name that a node was given, or that of the column which an input reads, if it has one."""
    name = graph.names.get(node)
    if name is None and graph._code[node] == INPUT:
        columns, at = columns_of(graph), graph._data[node]
        return columns[at] if at < len(columns) else None
    return name


def name_of(graph: Graph, node: int, *, short: bool = False) -> str:
    """What reprs, errors and pictures call a node: its own name if it has one, else its place in a layer, else its id.

    The place is ``layer 0 neuron 7``, in short ``0.7``.
    """
    name = own_name(graph, node)
    place = place_of(graph, node) if name is None else None
    if place is None:
        return plain(f"n{node}" if name is None else name)
    return "{}.{}".format(*place) if short else "layer {} neuron {}".format(*place)


def names_of(nodes: Iterable[Node]) -> list[str]:
    """What `name_of` calls nodes; those that were removed are "n" and the id."""
    return [name_of(node.graph, node.id) if node.graph._has(node) else node.name for node in nodes]


def described(graph: Graph, node: int) -> str:
    """The name of a node, after its kind unless its place in a layer says that."""
    name = name_of(graph, node)
    return name if own_name(graph, node) is None and name != f"n{node}" else f"{Node(graph, node).kind} {name}"


class Freezable(Hinting):
    """Base class of all that can be frozen: parameters, edges, neurons, layers and models.

    Subclasses implement `parameter_places`, the places of their weights, biases and parameters.
    """

    __slots__ = ()

    _elsewhere: ClassVar = {"trainable": "frozen = True", "requires_grad": "frozen = True"}

    graph: Graph
    parameter_places: Callable[[], Int64 | Int32]

    @property
    def frozen(self) -> bool:
        """Whether training leaves it unchanged: during `fit`, no step changes it and no `Model.prune` cuts it.

        Freezing sets its optimizer state to 0. Assigning a value and cutting it explicitly still
        work. An edge that is added to a frozen neuron is trainable, so the neuron no longer counts
        as frozen. Nodes without parameters, such as inputs, raise an AttributeError.

        The gradient of a completely frozen layer is not computed. If everything before it is
        frozen, too, its adjoints are not computed either and need not be finite.
        """
        with self.graph.lock:
            places, frozen = self.parameter_places(), self.graph.storage.frozen
            return frozen is not None and len(places) > 0 and bool(frozen[places].all())

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        with self.graph.lock:
            self.graph.storage.freeze(self.parameter_places(), truth("frozen", frozen))


class Node(Freezable):
    """A view of one scalar of a graph; arithmetic on nodes adds nodes, and so do functions of numpy, such as np.tanh.

    Attributes
    ----------
    graph : Graph
    id : int
        Its number: the node is ``graph[id]``. Edits do not change it.
    """

    __slots__ = ("born", "graph", "id")

    _elsewhere: ClassVar = {
        **Freezable._elsewhere,
        "grad": "mlgraph.grad, which makes the derivative as a node, or graph.compile(node).vjp(x)",
        "backward": "graph.compile(node).vjp(x)",
        "item": "value",
        "data": "value",
        "parents": "sources",
        "children": "targets",
        "predecessors": "sources",
        "successors": "targets",
        # Also numpy looks for these, in the elements of arrays.
        **{op.name: f"mlgraph.{op.name}(node)" for op in ops.BY_CODE if op.arity == 1 and op.name not in _UNNAMED},
    }

    _is_no_number = "; to compute with a node in place of a number, write an expression, such as w * x + b"

    def __init__(self, graph: Graph, id: int) -> None:
        self.graph = graph
        self.id = id
        self.born = graph.born[id] if 0 <= id < len(graph.born) else -1

    @property
    def _checked_id(self) -> int:
        """The id of the node; a ValueError if the node was removed, even if another node has its id now."""
        if self.graph._has(self):
            return self.id
        from mlgraph.graph.ids import ids_of  # not at the top: it imports this module

        return ids_of(self.graph, "node", [self])[0]

    @property
    def kind(self) -> str:
        """One of "input", "constant", "parameter", "weight" and "neuron", or the name of the operation.

        A weight node has the value of an edge's weight; `mlgraph.grad` makes them.
        """
        if not self.graph._has(self):
            return "undone node"  # the edit that added it was undone
        code = self.graph._code[self.id]
        return KIND_NAMES.get(min(code, NEURON)) or ops.BY_CODE[code].name

    @property
    def name(self) -> str:
        """The name, by default "n" and the id; assigning one, or None, is not an edit. Files and copies keep names.

        By default, the name of an input is that of its column, if the models of the graph know it; see
        `Model.columns`.
        """
        name = own_name(self.graph, self.id) if self.graph._has(self) else None
        return f"n{self.id}" if name is None else name

    @name.setter
    def name(self, name: str | None) -> None:
        node, name = self._checked_id, optional_name(name)
        with self.graph.lock:
            if name is None:
                self.graph.names.pop(node, None)
            else:
                self.graph.names[node] = name

    @property
    def sources(self) -> list[Node]:
        """The nodes that it reads."""
        return [self.graph[i] for i in self.graph.sources_of(self._checked_id)]

    @property
    def targets(self) -> list[Node]:
        """The nodes that read it."""
        return [self.graph[i] for i in self.graph.targets_of(self._checked_id)]

    @property
    def out_edges(self) -> list[Edge]:
        """The edges from it to the neurons that read it."""
        return [Edge(self, target) for target in self.targets if isinstance(target, Neuron)]

    @property
    def alive(self) -> bool:
        """Whether it is on a path from an input, parameter or constant to an output; see `Graph.alive`."""
        return bool(self.graph.alive()[self._checked_id])

    @property
    def value(self) -> float:
        """The value of a constant, parameter or weight; only a parameter can be assigned.

        Other nodes raise an AttributeError.
        """
        node = self._checked_id
        code, data = self.graph._code[node], self.graph._data[node]
        if code == CONSTANT:
            return self.graph.constants[data]
        if code == PARAMETER:
            with self.graph.lock:
                return float(self.graph._memory_of(node)[0])
        if code == WEIGHT:
            with self.graph.lock:
                source, target = self.graph.sources_of(node).tolist()
                return self.graph.edge(source, target).weight if self.graph.has_edge(source, target) else 0.0
        raise AttributeError(f"value: expected a constant or parameter, got {described(self.graph, node)}")

    @value.setter
    def value(self, value: float) -> None:
        if self.graph._code[self._checked_id] != PARAMETER:
            raise AttributeError(f"value: expected a parameter, got {described(self.graph, self.id)}")
        with self.graph.lock:
            self.graph._memory_of(self._checked_id)[0] = number("value", value)

    def parameter_places(self) -> Int64:
        """Places of its weights and bias, or of its value; an AttributeError if it has none."""
        node, storage = self._checked_id, self.graph.storage
        code, record = self.graph._code[node], self.graph._data[node]
        if code < PARAMETER:
            raise AttributeError(f"parameters: expected a parameter or neuron, got {described(self.graph, node)}")
        n, bias = (self.graph._count[node], storage.bias[record]) if code >= NEURON else (1, -1)
        places = storage.weights[record] + storage.stride[record] * np.arange(n)
        return np.append(places, bias) if bias >= 0 else places

    def __repr__(self) -> str:
        return f"<{described(self.graph, self.id) if self.graph._has(self) else f'{self.kind} {self.name}'}>"

    def __str__(self) -> str:
        from mlgraph.graph.formula import formula

        return formula(self)

    def draw(self, x: npt.ArrayLike | None = None, **options: Unpack[Options]) -> Drawing:
        """A picture of the node and all that it depends on; the arguments are those of `mlgraph.pictures.Drawing`."""
        from mlgraph.pictures.drawing import Drawing

        return Drawing(self, x=x, **options)

    def _repr_svg_(self) -> str:
        return self.draw().to_svg()

    def __add__(self, other: Node | float) -> Node:
        return self._binary(_ADD, self, other)

    def __radd__(self, other: float) -> Node:
        # Python's `sum` begins with 0, which as a term would keep the compiler from recognizing a
        # neuron.
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
        return Node(self.graph, self.graph._append(_NEG, (self._checked_id,)))

    def __pos__(self) -> Node:
        return self

    def __abs__(self) -> Node:
        return Node(self.graph, self.graph._append(_ABS, (self._checked_id,)))

    def _compare(self, other: object) -> NoReturn:
        raise TypeError(
            "nodes cannot be compared; maximum(x, y) is the larger one in each example, and "
            "where(x - y, a, b) is a in examples where x > y, else b"
        )

    __lt__ = __le__ = __gt__ = __ge__ = _compare

    def _binary(self, code: int, a: Node | float, b: Node | float) -> Node:
        graph = self.graph
        try:
            if a.graph is b.graph:  # type: ignore[union-attr]
                return Node(graph, graph._append(code, (a._checked_id, b._checked_id)))  # type: ignore[union-attr]
        except AttributeError:
            if not isinstance(a if b is self else b, Real):
                return NotImplemented  # type: ignore[no-any-return]
        return Node(graph, graph._append(code, graph._arguments(ops.BY_CODE[code].name, (a, b))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and (self.graph, self.id, self.born) == (other.graph, other.id, other.born)

    def __hash__(self) -> int:
        return hash((id(self.graph), self.id))

    def __bool__(self) -> bool:
        raise TypeError(f"a node has no truth value: {self!r} has a value for each example")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        # A function of numpy applies its op to the node, and to each element of arrays.
        foreign = (x for x in inputs if not isinstance(x, Node | np.ndarray))
        if any(hasattr(type(x), "__array_ufunc__") for x in foreign):  # a column of pandas keeps its index
            return NotImplemented
        function, name = ufunc, _OF_NUMPY.get(ufunc.__name__, ufunc.__name__)
        if name not in _OPERATORS:
            if name not in ops.OPS:
                raise TypeError(
                    f"{name}: nodes have no such operation; help(Graph.add_operation) lists those they have"
                )
            function = np.frompyfunc(functools.partial(self.graph.add_operation, name), ufunc.nin, 1)
        elements = (np.array(x, object) if isinstance(x, Node) else x for x in inputs)
        return self.graph._add_all(getattr(function, method), *elements, **options)


NodesLike = Iterable[Node] | range | Ids
"""Several nodes as an argument: nodes, or a range or array of their ids."""


class Edge(Freezable):
    """A view of the edge from a source to a neuron; it unpacks to source, target and weight.

    Attributes
    ----------
    graph : Graph
    """

    __slots__ = ("_index", "_source", "_target", "graph")

    def __init__(self, source: Node, target: Neuron, index: int = 0) -> None:
        self._source = source
        self._target = target
        self.graph = target.graph
        self._index = index  # of the source among the target's sources, unless an edit has changed them

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
        with self.graph.lock:  # compiling in another thread may move the parameters
            return float(self.graph._memory_of(self.target._checked_id)[self._find()])

    @weight.setter
    def weight(self, weight: float) -> None:
        with self.graph.lock:
            self.graph._memory_of(self.target._checked_id)[self._find()] = number("weight", weight)

    def parameter_places(self) -> Int64:
        """The place of its weight, int64 of shape (1,)."""
        return self.target.parameter_places()[[self._find()]]

    def _find(self) -> int:
        self._index = self.graph._source_index(self.source, self.target, self._index)
        return self._index

    def __iter__(self) -> Iterator[Any]:
        return iter((self.source, self.target, self.weight))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Edge) and self.source == other.source and self.target == other.target

    def __hash__(self) -> int:
        return hash((self.source, self.target))

    def __repr__(self) -> str:
        return f"<edge {' to '.join(names_of((self._source, self._target)))}>"

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
    >>> x, y = g.add_input("x"), g.add_input("y")
    >>> neuron = g.add_neuron([x, y], "relu", weights=[0.5, -2.0], bias=1.0)
    >>> neuron.sources, neuron.bias
    ([<input x>, <input y>], 1.0)
    >>> neuron.weights = [0.25, 4.0]
    >>> neuron.in_edges[1].weight
    4.0
    >>> neuron.in_edges[0].prune()
    >>> print(neuron)
    relu(4*y + 1)
    """

    __slots__ = ()

    _elsewhere: ClassVar = {**Node._elsewhere, "edges": "in_edges or out_edges", "weight": "weights"}

    def __init__(self, graph: Graph, id: int) -> None:
        super().__init__(graph, id)
        if 0 <= id < len(graph._code) and graph._code[id] < NEURON:
            raise ValueError(f"id: expected the id of a neuron, got that of {Node(graph, id)!r}")

    @property
    def activation(self) -> str:
        """The name of the activation, as in `Graph.add_neuron`; assigning another one is an edit.

        Assigning does not change `Layer.activation`, with which the layer was added. With a
        cross-entropy, the softmax or sigmoid of the outputs is applied after this activation. It is
        a ValueError to assign another one if a derivative made by `mlgraph.grad` goes through it.
        """
        return ops.BY_CODE[self.graph._code[self._checked_id] - NEURON].name

    @activation.setter
    def activation(self, activation: str) -> None:
        from mlgraph.graph.edits import activate, check_differentiated

        code = neuron_code(activation)
        with self.graph.lock:
            if code != self.graph._code[self._checked_id]:
                check_differentiated(self.graph, [self.id], "activation")
            activate(self.graph, self._checked_id, code)

    @property
    def layer(self) -> LayerOfGraph | None:
        """The layer of a network that contains it, or None."""
        node = self._checked_id
        return next((layer for model in self.graph.models for layer in model.layers if node in layer.ids), None)

    @property
    def index(self) -> int | None:
        """Its index in its layer: ``neuron.layer[neuron.index]`` is the neuron. None if it is in no layer."""
        layer = self.layer
        return None if layer is None else layer.ids.index(self.id)

    @property
    def weights(self) -> Weights:
        """The weights in the order of `sources`, float32 of shape (sources,); writing to them changes the network.

        They stay valid until the sources of the neuron change; a later use is a ValueError.
        ``neuron.weights.copy()`` is an independent array.
        """
        return self.graph.weights_of(self._checked_id)

    @weights.setter
    def weights(self, weights: npt.ArrayLike) -> None:
        given = real_array("weights", weights)  # before a look at the graph, which the conversion may edit
        with self.graph.lock:
            here = self.graph._memory_of(self._checked_id)
            here[:] = float_array("weights", given, here.shape)

    @property
    def bias(self) -> float | None:
        """The bias, or None; assigning a first bias, or None to remove it, is an edit."""
        with self.graph.lock:
            at = self.graph.storage.bias[self.graph._data[self._checked_id]]
            return None if at < 0 else float(self.graph.storage.vector[at])

    @bias.setter
    def bias(self, bias: float | None) -> None:
        from mlgraph.graph.edits import give_bias

        value = None if bias is None else number("bias", bias)
        with self.graph.lock:
            at = self.graph.storage.bias[self.graph._data[self._checked_id]]
            if value is None or at < 0:
                give_bias(self.graph, self.id, None if value is None else {"": value})
            else:
                self.graph.storage.vector[at] = value

    @property
    def in_edges(self) -> list[Edge]:
        """The edges into it, in the order of `sources`; `out_edges` are those out of it."""
        return [Edge(source, self, index) for index, source in enumerate(self.sources)]

    def prune(self) -> None:
        """Cut it: all edges into it and out of it; see `Graph.prune`."""
        self.graph.prune([self])
