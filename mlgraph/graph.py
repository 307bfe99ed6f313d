"""The graph of scalars: build it, read it, change it. No arithmetic on batches happens here.

A graph is a handful of arrays. A node is its number, which no edit changes; `Node`, `Neuron` and `Edge` are views made on
demand. Neurons made together share one list of sources until one of them is edited. All parameters stand in one float32
vector that the graph owns; a neuron's weights are a strided run of it, so that a plan may lay them out as its kernels want.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph import ops

if TYPE_CHECKING:
    from mlgraph.drawing import Drawing
    from mlgraph.function import Function

INPUT, CONSTANT, PARAMETER, NEURON = 100, 101, 102, 103
"""Codes of the nodes that are no operation; neurons add the code of their activation to the last."""

PANEL = 16
"""Neurons that stand side by side in the parameter vector (``PANEL`` of the kernels)."""

LARGEST = float(np.finfo(np.float32).max)
"""The largest finite number of the precision that everything is computed in."""

Float32 = npt.NDArray[np.float32]

_ADD, _SUB, _MUL, _DIV, _POW, _NEG, _ABS = (ops.OPS[n].code for n in ("add", "sub", "mul", "div", "pow", "neg", "abs"))


class CycleError(ValueError):
    """The graph has a cycle; the message lists the nodes on it."""


def aligned(n: int) -> Float32:
    """Zeroed float32 vector that begins at a cache line."""
    raw = np.zeros(n + 16, np.float32)
    first = -raw.ctypes.data // 4 % 16
    return raw[first : first + n]


class Graph:
    """A graph of scalar nodes.

    Examples
    --------
    >>> g = Graph()
    >>> x, y = g.input("x"), g.input("y")
    >>> z = x * y + 1
    >>> print(z)
    x * y + 1
    """

    def __init__(self) -> None:
        self._code = array("h")  # op, or INPUT ... NEURON + activation
        self._start = array("q")  # first of the node's sources in the pool
        self._count = array("i")
        self._data = array("q")  # input: its column; constant, parameter, neuron: its record
        self._pool = array("i")
        self._constants = array("d")
        self._inputs = array("i")
        # A record for each parameter or neuron: where its weights begin in the vector, their distance, its bias (or -1).
        self._weights = array("q")
        self._stride = array("i")
        self._bias = array("q")
        self._vector = aligned(0)
        self._used = 0
        self._names: dict[int, str] = {}
        self.edits = 0
        """Number of changes of the topology; a plan made before the last of them is stale."""
        self.moves = 0
        """Number of times the parameters were moved; see `move_parameters`."""
        self.state: dict[str, Float32] = {}
        """Optimizer state by name, each as long as the parameter vector; it follows every move."""

    # --- building ----------------------------------------------------------------------------------------------------

    def input(self, name: str | None = None) -> Node:
        """Add an input; the k-th input made is column k of the data."""
        node = self._append(INPUT, (), len(self._inputs))
        self._inputs.append(node)
        if name is not None:
            self._names[node] = str(name)
        return Node(self, node)

    def inputs(self, n: int) -> list[Node]:
        """Add `n` inputs."""
        if not isinstance(n, int | np.integer) or n < 0:
            raise ValueError(f"n: expected a number of inputs, came {n!r}")
        return [self.input() for _ in range(n)]

    def constant(self, value: float) -> Node:
        """Add a constant."""
        self._constants.append(_number("value", value))
        return Node(self, self._append(CONSTANT, (), len(self._constants) - 1))

    def parameter(self, value: float, name: str | None = None) -> Node:
        """Add a parameter that training may change."""
        number = _number("value", value)
        at = self._grow(1)
        self._vector[at] = number
        node = self._append(PARAMETER, (), self._record(at, 1, -1))
        if name is not None:
            self._names[node] = str(name)
        return Node(self, node)

    def add_neuron(
        self,
        sources: Sequence[Node],
        activation: str = "identity",
        *,
        weights: npt.ArrayLike | None = None,
        bias: float | None = 0.0,
    ) -> Neuron:
        """Add one neuron ``activation(bias + sum(weights * sources))``.

        Parameters
        ----------
        sources : sequence of Node
            At least one node of this graph; none twice.
        activation : str
            identity, relu, leaky_relu, sigmoid or tanh.
        weights : array_like, shape (len(sources),), optional
            Zeros by default.
        bias : float or None
            None: no bias.
        """
        ids = self._ids("sources", sources)
        if not ids or len(set(ids)) != len(ids):
            raise ValueError(f"sources: expected at least one node and none twice, came {len(ids)} nodes")
        code = NEURON + _activation(activation)
        w = np.zeros(len(ids), np.float32) if weights is None else float_array("weights", weights, (len(ids),))
        b = 0.0 if bias is None else _number("bias", bias)
        at = self._grow(len(ids) + (bias is not None))
        self._vector[at : at + len(ids)] = w
        if bias is not None:
            self._vector[at + len(ids)] = b
        record = self._record(at, 1, at + len(ids) if bias is not None else -1)
        return Neuron(self, self._append(code, ids, record))

    def add_neurons(
        self,
        sources: Sequence[Node] | npt.NDArray[np.int32],
        weights: npt.ArrayLike,
        biases: npt.ArrayLike | None = None,
        activation: str = "identity",
    ) -> range:
        """Add neurons that all have the same sources.

        Parameters
        ----------
        sources : sequence of Node, or int32 array of their ids
            At least one node of this graph; none twice.
        weights : array_like, shape (neurons, sources)
        biases : array_like, shape (neurons,), optional
            None: no biases.
        activation : str
            identity, relu, leaky_relu, sigmoid or tanh.

        Returns
        -------
        range
            Ids of the new neurons.
        """
        ids = self._source_ids(sources)
        code = NEURON + _activation(activation)
        w = float_array("weights", weights, (None, len(ids)))
        n = len(w)
        b = None if biases is None else float_array("biases", biases, (n,))
        if n == 0:
            raise ValueError("weights: expected at least one neuron, came none")
        panels = -(-n // PANEL)
        at = self._grow(panels * PANEL * (len(ids) + (b is not None)), align=PANEL)
        block = self._vector[at : at + panels * PANEL * len(ids)].reshape(panels, len(ids), PANEL)
        for p in range(panels):
            rows = w[p * PANEL : (p + 1) * PANEL]
            block[p, :, : len(rows)] = rows.T
        k = np.arange(n)
        first = at + k // PANEL * (PANEL * len(ids)) + k % PANEL
        bias_at = np.full(n, -1)
        if b is not None:
            bias_at = at + panels * PANEL * len(ids) + k
            self._vector[bias_at] = b
        node, record = len(self._code), len(self._weights)
        _extend(self._code, np.full(n, code))
        _extend(self._start, np.full(n, len(self._pool)))
        _extend(self._count, np.full(n, len(ids)))
        _extend(self._data, record + k)
        _extend(self._pool, ids)
        _extend(self._weights, first)
        _extend(self._stride, np.full(n, PANEL))
        _extend(self._bias, bias_at)
        self.edits += 1
        return range(node, node + n)

    def operation(self, name: str, *arguments: Node | float) -> Node:
        """Add a node that applies the operation `name` of `mlgraph.ops` to nodes or numbers."""
        op = ops.OPS.get(name)
        if op is None:
            raise ValueError(f"name: expected one of {', '.join(ops.OPS)}, came {name!r}")
        if op.arity != len(arguments) if op.arity >= 0 else not arguments:
            expected = op.arity if op.arity >= 0 else "at least 1"
            raise ValueError(f"arguments of {name}: expected {expected}, came {len(arguments)}")
        return Node(self, self._append(op.code, self._arguments(name, arguments)))

    def softmax(self, nodes: Sequence[Node]) -> list[Node]:
        """Add ``exp(z - logsumexp(z))`` for each z of `nodes`: probabilities, finite for finite z."""
        total = self.operation("logsumexp", *nodes)
        return [self.operation("exp", self.operation("sub", z, total)) for z in nodes]

    # --- reading -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._code)

    def __repr__(self) -> str:
        return f"<Graph: {len(self)} nodes, {self.n_inputs} inputs, {self.n_edges} edges>"

    @property
    def n_inputs(self) -> int:
        """Number of inputs: the columns that data must have."""
        return len(self._inputs)

    @property
    def n_edges(self) -> int:
        """Number of edges into neurons."""
        return int(self.counts[self.codes >= NEURON].sum())

    @property
    def n_parameters(self) -> int:
        """Number of weights, biases and parameter nodes."""
        return self.n_edges + int((self.codes == PARAMETER).sum()) + int((np.frombuffer(self._bias, np.int64) >= 0).sum())

    @property
    def codes(self) -> npt.NDArray[np.int16]:
        """What each node is; a copy."""
        return np.array(self._code, np.int16)

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """Number of sources of each node; a copy."""
        return np.array(self._count, np.int32)

    @property
    def parameters(self) -> Float32:
        """The parameter vector, padding included; a writable view, valid until the next edit or compilation."""
        return self._vector[: self._used]

    def __getitem__(self, node: int) -> Node:
        node = index(node)
        if not 0 <= node < len(self._code):
            raise IndexError(f"node: expected 0 to {len(self._code) - 1}, came {node}")
        return (Neuron if self._code[node] >= NEURON else Node)(self, node)

    def __iter__(self) -> Iterator[Node]:
        return (self[i] for i in range(len(self)))

    def sources_of(self, node: int) -> npt.NDArray[np.int32]:
        """Ids of the sources of a node; a copy."""
        start = self._start[node]
        return np.array(self._pool[start : start + self._count[node]], np.int32)

    def weights_of(self, node: int) -> Float32:
        """Weights of a neuron or the one value of a parameter; a writable view."""
        record = self._data[node]
        at, stride = self._weights[record], self._stride[record]
        n = self._count[node] if self._code[node] >= NEURON else 1
        return self._vector[at : at + (n - 1) * stride + 1 : stride] if n else self._vector[:0]

    def compile(self, outputs: Node | Sequence[Node]) -> Function:
        """Compile the part of the graph that `outputs` need into a function of a batch."""
        from mlgraph.function import Function

        return Function(self, [outputs] if isinstance(outputs, Node) else outputs)

    def draw(self, **options: Any) -> Drawing:
        """A picture of the graph, with the numbers of one example if it is given; `mlgraph.drawing.Drawing` has the options."""
        from mlgraph.drawing import Drawing

        return Drawing(self, **options)

    def to_dot(self, **options: Any) -> str:
        """The picture as text for Graphviz; options as for `draw`."""
        return self.draw(**options).to_dot()

    def _repr_svg_(self) -> str:
        return self.draw().to_svg()

    # --- editing -----------------------------------------------------------------------------------------------------

    def move_parameters(self, origin: npt.NDArray[np.int64], records: npt.NDArray[np.int64], at: npt.NDArray[np.int64],
                        stride: npt.NDArray[np.int64], bias: npt.NDArray[np.int64]) -> None:
        """Lay the parameter vector out anew.

        Parameters
        ----------
        origin : int64, shape (new length,)
            Where each element of the new vector stands now; -1 for padding.
        records, at, stride, bias : int64, all of one length
            The parameters and neurons that move: where their weights and biases stand then.
        """
        def moved(vector: Float32) -> Float32:
            out = aligned(len(origin))
            # State made before the last parameters were added is shorter than the vector.
            kept = (origin >= 0) & (origin < len(vector))
            out[kept] = vector[origin[kept]]
            return out

        self._vector = moved(self._vector)
        self.state = {name: moved(vector) for name, vector in self.state.items()}
        self._used = len(origin)
        for target, value in ((self._weights, at), (self._stride, stride), (self._bias, bias)):
            view = np.frombuffer(target, target.typecode)
            view[records] = value
        self.moves += 1

    def state_vector(self, name: str, *, fresh: bool) -> Float32:
        """The optimizer's vector of this name; zeros where it is new or `fresh`."""
        vector = self.state.get(name)
        if fresh or vector is None or len(vector) != self._used:
            old, vector = vector, aligned(self._used)
            if old is not None and not fresh:
                vector[: len(old)] = old
            self.state[name] = vector
        return vector

    def become(self, other: Graph) -> None:
        """Take over all that `other` holds, which is not to be used any more; nodes keep their numbers, and so their views."""
        edits, moves = self.edits + other.edits + 1, self.moves + other.moves
        vars(self).update(vars(other))
        self.edits, self.moves = edits, moves

    # --- inside ------------------------------------------------------------------------------------------------------

    def _append(self, code: int, sources: Sequence[int], data: int = -1) -> int:
        self._code.append(code)
        self._start.append(len(self._pool))
        self._count.append(len(sources))
        self._data.append(data)
        self._pool.extend(sources)
        self.edits += 1
        return len(self._code) - 1

    def _record(self, at: int, stride: int, bias: int) -> int:
        self._weights.append(at)
        self._stride.append(stride)
        self._bias.append(bias)
        return len(self._weights) - 1

    def _grow(self, n: int, align: int = 1) -> int:
        at = -(-self._used // align) * align
        if at + n > len(self._vector):
            vector = aligned(max(at + n, len(self._vector) * 3 // 2))
            vector[: self._used] = self._vector[: self._used]
            self._vector = vector
        self._used = at + n
        return at

    def _ids(self, what: str, nodes: Any) -> list[int]:
        if not isinstance(nodes, Iterable):
            raise TypeError(f"{what}: expected a sequence of nodes, came {type(nodes).__name__}")
        ids = []
        for node in nodes:
            if not isinstance(node, Node):
                raise TypeError(f"{what}: expected nodes, came {type(node).__name__}")
            if node.graph is not self:
                raise ValueError(f"{what}: expected nodes of one graph, came node {node.id} of another")
            ids.append(node.id)
        return ids

    def _arguments(self, operation: str, arguments: Iterable[Any]) -> list[int]:
        """Ids of nodes, and of new constants for numbers: none is added unless all arguments are good."""
        what = f"arguments of {operation}"
        given = [a if isinstance(a, Node) else _number(what, a) for a in arguments]
        self._ids(what, (a for a in given if isinstance(a, Node)))
        return [(a if isinstance(a, Node) else self.constant(a)).id for a in given]

    def _source_ids(self, sources: Sequence[Node] | npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        if isinstance(sources, np.ndarray) and sources.dtype != object:
            if sources.dtype.kind not in "iu" or sources.ndim != 1:
                raise TypeError(f"sources: expected nodes or a row of ids, came {sources.dtype} of shape {sources.shape}")
            if len(sources) and not (0 <= sources.min() and sources.max() < len(self._code)):
                last = len(self._code) - 1
                raise ValueError(f"sources: expected ids from 0 to {last}, came {sources.min()} to {sources.max()}")
            ids = sources.astype(np.int32)
        else:
            ids = np.array(self._ids("sources", sources), np.int32)
        if len(ids) == 0 or len(np.unique(ids)) != len(ids):
            raise ValueError(f"sources: expected at least one node and none twice, came {len(ids)} nodes")
        return ids


class Node:
    """A view of one scalar of a graph; arithmetic on nodes adds nodes."""

    __slots__ = ("graph", "id")

    def __init__(self, graph: Graph, id: int) -> None:
        self.graph = graph
        self.id = id

    @property
    def kind(self) -> str:
        """"input", "constant", "parameter", "neuron" or the name of the operation."""
        code = self.graph._code[self.id]
        if code >= NEURON:
            return "neuron"
        return {INPUT: "input", CONSTANT: "constant", PARAMETER: "parameter"}.get(code) or ops.BY_CODE[code].name

    @property
    def name(self) -> str:
        """The name it was given, or its number."""
        return self.graph._names.get(self.id, f"n{self.id}")

    @property
    def sources(self) -> list[Node]:
        """The nodes it reads."""
        return [self.graph[i] for i in self.graph.sources_of(self.id)]

    @property
    def value(self) -> float:
        """Value of a constant or parameter."""
        code, data = self.graph._code[self.id], self.graph._data[self.id]
        if code == CONSTANT:
            return self.graph._constants[data]
        if code == PARAMETER:
            return float(self.graph.weights_of(self.id)[0])
        raise AttributeError(f"value: expected a constant or parameter, came {self.kind} {self.name}")

    @value.setter
    def value(self, value: float) -> None:
        if self.graph._code[self.id] != PARAMETER:
            raise AttributeError(f"value: expected a parameter, came {self.kind} {self.name}")
        self.graph.weights_of(self.id)[0] = _number("value", value)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    def __str__(self) -> str:
        from mlgraph.formula import formula

        return formula(self)

    def draw(self, **options: Any) -> Drawing:
        """A picture of what the node depends on; options as for `mlgraph.drawing.Drawing`."""
        from mlgraph.drawing import Drawing

        return Drawing(self, **options)

    def to_dot(self, **options: Any) -> str:
        """The picture as text for Graphviz; options as for `draw`."""
        return self.draw(**options).to_dot()

    def _repr_svg_(self) -> str:
        return self.draw().to_svg()

    def __add__(self, other: Node | float) -> Node:
        return self._binary(_ADD, self, other)

    def __radd__(self, other: float) -> Node:
        return self._binary(_ADD, other, self)

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
        return Node(self.graph, self.graph._append(_NEG, (self.id,)))

    def __pos__(self) -> Node:
        return self

    def __abs__(self) -> Node:
        return Node(self.graph, self.graph._append(_ABS, (self.id,)))

    def _compare(self, other: object) -> bool:
        raise TypeError("nodes have no order (they have one for each example): use where, maximum or minimum")

    __lt__ = __le__ = __gt__ = __ge__ = _compare

    def _binary(self, code: int, a: Node | float, b: Node | float) -> Node:
        graph = self.graph
        try:
            if a.graph is b.graph:  # type: ignore[union-attr]
                return Node(graph, graph._append(code, (a.id, b.id)))  # type: ignore[union-attr]
        except AttributeError:
            if not isinstance(a if b is self else b, Real):
                return NotImplemented  # type: ignore[no-any-return]
        return Node(graph, graph._append(code, graph._arguments(ops.BY_CODE[code].name, (a, b))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.graph is other.graph and self.id == other.id

    def __hash__(self) -> int:
        return hash((id(self.graph), self.id))

    def __bool__(self) -> bool:
        raise TypeError(f"a node has no truth value (it has one for each example): came {self!r}")


class Edge(NamedTuple):
    """One weight from a source to a neuron: a reading, not a view."""

    source: Node
    target: Neuron
    weight: float


class Neuron(Node):
    """A view of one neuron: ``activation(bias + sum(weights * sources))``."""

    __slots__ = ()

    @property
    def activation(self) -> str:
        """Name of the activation."""
        return ops.BY_CODE[self.graph._code[self.id] - NEURON].name

    @property
    def weights(self) -> Float32:
        """Weights in the order of `sources`; a writable view, valid until the next edit or compilation."""
        return self.graph.weights_of(self.id)

    @weights.setter
    def weights(self, weights: npt.ArrayLike) -> None:
        self.graph.weights_of(self.id)[:] = float_array("weights", weights, (self.graph._count[self.id],))

    @property
    def bias(self) -> float | None:
        """The bias, None where there is none."""
        at = self.graph._bias[self.graph._data[self.id]]
        return None if at < 0 else float(self.graph._vector[at])

    @bias.setter
    def bias(self, bias: float) -> None:
        at = self.graph._bias[self.graph._data[self.id]]
        if at < 0:
            raise AttributeError(f"bias: neuron {self.name} was made without one")
        self.graph._vector[at] = _number("bias", bias)

    @property
    def edges(self) -> list[Edge]:
        """Its incoming edges."""
        return [Edge(s, self, float(w)) for s, w in zip(self.sources, self.weights, strict=True)]


def _extend(target: array[Any], values: npt.NDArray[Any]) -> None:
    target.frombytes(np.ascontiguousarray(values, target.typecode).tobytes())


def _activation(name: str) -> int:
    if name not in ops.ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ops.ACTIVATIONS)}, came {name!r}")
    return ops.OPS[name].code


def _number(what: str, value: Any) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{what}: expected a number, came {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:  # an integer
        number = float(np.finfo(np.float64).max)
    if LARGEST < abs(number) < np.inf:
        raise ValueError(f"{what}: expected a number that float32 can hold, came {value}")
    return number


def real_array(what: str, value: npt.ArrayLike) -> npt.NDArray[Any]:
    """An array of real numbers of any type; TypeError if `value` is none."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise TypeError(f"{what}: expected an array of numbers, came rows of different lengths") from None
    if array.dtype.kind not in "buif":
        raise TypeError(f"{what}: expected numbers, came an array of {array.dtype}")
    return array


def float_array(what: str, value: npt.ArrayLike, shape: tuple[int | None, ...]) -> Float32:
    """`value` as float32; TypeError or ValueError if it is not of this shape, in which None is any length."""
    array = real_array(what, value)
    if array.ndim != len(shape) or any(e is not None and e != s for e, s in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{what}: expected shape {tuple('n' if e is None else e for e in shape)}, came {array.shape}")
    try:
        with np.errstate(over="raise"):
            return array.astype(np.float32, copy=False)
    except FloatingPointError:
        raise ValueError(f"{what}: expected numbers that float32 can hold, came {np.abs(array).max()}") from None
