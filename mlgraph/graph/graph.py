"""The graph of scalars: build it, read it and edit it. The arithmetic on batches happens in `mlgraph.engine`.

Nodes are rows of a table (`mlgraph.graph.nodes`); their parameters are in `mlgraph.graph.storage`.
`Node`, `Neuron` and `Edge` (`mlgraph.graph.views`) are views that are made on demand.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Ids, Int32, read_only
from mlgraph._support.checks import (
    INT32_MAX,
    float_array,
    number,
    one_of,
    optional_name,
    real_array,
    shown,
    truth,
    whole,
)
from mlgraph._support.locks import T, cached_property, locked
from mlgraph.graph import arrays, ops
from mlgraph.graph.arrays import Edges, Neurons
from mlgraph.graph.changes import UNDO_MEMORY, Edit, edited
from mlgraph.graph.ids import edge_name, id_of, ids_of, ids_of_sources, listed
from mlgraph.graph.nodes import NodeTable, adds_nodes
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER
from mlgraph.graph.randomness import checked_seed, first_weights, generator_at, new_generator, state_of
from mlgraph.graph.storage import extend
from mlgraph.graph.topology import CycleError, ancestors, is_live, topological
from mlgraph.graph.views import Edge, Neuron, Node, NodesLike, columns_of, neuron_code, own_name
from mlgraph.graph.weights import Weights

if TYPE_CHECKING:
    from typing_extensions import Unpack  # that of typing is of Python 3.11

    from mlgraph.engine.function import Function
    from mlgraph.graph.protocols import ModelOfGraph
    from mlgraph.pictures.drawing import Drawing, Options

__all__ = ["CycleError", "Graph"]


class Graph(NodeTable):
    """A graph of scalar nodes.

    Threads may share a graph: a lock serializes compiling, running and saving, and only one thread
    can train the graph at a time. Hold `lock` to edit a graph that other threads use.

    A graph has a random generator, which its models share. First weights are drawn from it, and so
    are the seeds of calls that are given none. Copies and files keep its state.

    Parameters
    ----------
    seed : int, optional
        Fixes the generator's first state, and with it all that calls without a seed draw. By default
        random bits of the system.

    Raises
    ------
    TypeError, ValueError
        If `seed` is neither None nor an integer of at least 0.

    Examples
    --------
    >>> g = mlgraph.Graph()
    >>> x, y = g.add_input("x"), g.add_input("y")
    >>> z = x * y + 1
    >>> print(z)
    x * y + 1
    """

    _elsewhere: ClassVar = {
        **{name: f"add_{name}" for name in ("input", "parameter", "constant", "operation", "softmax")},
        "nodes": "the graph itself, as in list(graph)",
        "add_node": "add_neuron, add_operation or add_input",
        "in_edges": "node.in_edges",
        "out_edges": "node.out_edges",
        "remove_edge": "prune([edge])",
        "remove_node": "prune([neuron])",
        "remove_edges_from": "prune(edges)",
        "backward": "compile(node).vjp(x)",
    }

    has_bare: bool
    _seed: int
    _undo_memory: int
    _open: Edit | None
    _alive: tuple[tuple[int, frozenset[int]], Bool] | None

    def __init__(self, *, seed: int | None = None) -> None:
        seed = checked_seed(seed)
        super().__init__()
        vars(self).update(  # faster than assignments, which check the names
            _seed=int.from_bytes(os.urandom(16), "little") if seed is None else seed,
            has_bare=False,  # whether some neuron may have no sources; if not, all nodes are live
            _undo_memory=UNDO_MEMORY,
            _open=None,
            _alive=None,
        )
        self.init_lock()

    @cached_property
    def random(self) -> np.random.Generator:
        """The graph's generator, created on demand, because that takes longer than all else in a new graph."""
        return new_generator(self._seed)

    @property
    @locked
    def inputs(self) -> list[Node]:
        """The inputs, in the order of the data's columns."""
        return [Node(self, i) for i in self.input_ids]

    # --- building ---------------------------------------------------------------------------------

    @adds_nodes
    def add_input(self, name: str | None = None) -> Node:
        """Add an input; inputs are the columns of the data in the order in which they were added.

        Parameters
        ----------
        name : str, optional
            The name of the node; by default "n" and its id.
        """
        name = optional_name(name)
        node = self._append(INPUT, (), len(self.input_ids))
        self.input_ids.append(node)
        if name is not None:
            self.names[node] = name
        return Node(self, node)

    @adds_nodes
    def add_inputs(self, n: int) -> list[Node]:
        """Add several inputs, which are the next columns of the data.

        Parameters
        ----------
        n : int
            Number of inputs, at least 0.
        """
        n, column, node = whole("n", n, 0, INT32_MAX - len(self)), len(self.input_ids), len(self)
        if n:  # adding no input must not prevent `undo`
            self._extend(INPUT, np.zeros(0, np.int32), column + np.arange(n))
            extend(self.input_ids, node + np.arange(n))
        return [Node(self, i) for i in range(node, node + n)]

    def add_constant(self, value: float) -> Node:
        """Add a constant.

        Parameters
        ----------
        value : float
            A number that float32 can hold, infinities and NaN included.

        Raises
        ------
        TypeError, ValueError
            If it is not a number, or float32 cannot hold it.
        """
        v = number("value", value, nan=True)
        with self.lock:
            self.constants.append(v)  # harmless if adding the node fails
            return Node(self, self._append(CONSTANT, (), len(self.constants) - 1))

    @adds_nodes
    def add_parameter(self, value: float, name: str | None = None) -> Node:
        """Add a trainable parameter.

        Parameters
        ----------
        value : float
            Its initial value.
        name : str, optional
            The name of the node; by default "n" and its id.

        Raises
        ------
        TypeError, ValueError
            If the value is not a number, float32 cannot hold it, or the name is not a string.
        """
        v, name = number("value", value), optional_name(name)
        at = self.storage.grow(1)
        self.storage.vector[at] = v
        node = self._append(PARAMETER, (), self.storage.append(at))
        if name is not None:
            self.names[node] = name
        return Node(self, node)

    @adds_nodes
    def add_neuron(
        self,
        sources: NodesLike,
        activation: str = "identity",
        *,
        weights: npt.ArrayLike | None = None,
        bias: float | None = 0.0,
    ) -> Neuron:
        """Add one neuron ``activation(bias + sum(weights * sources))``.

        Parameters
        ----------
        sources : sequence of Node, or array of their ids
            At least one node of this graph; none twice.
        activation : str
            identity, relu, leaky_relu, elu, gelu, silu, softplus, sigmoid or tanh. For other
            functions, apply them to an identity neuron, as in ``mlgraph.sin(neuron)``.
        weights : array_like, shape (len(sources),), optional
            By default drawn from the graph's own generator, as in `Network.add_layer`: normally
            distributed with variance 1 / (3 fan-in).
        bias : float or None
            None for a neuron without a bias.

        Returns
        -------
        Neuron

        Raises
        ------
        TypeError, ValueError
            If an argument is not as documented, or a source is an operation that depends only on
            neurons that are cut off; nothing has been added.
        """
        given = None if weights is None else real_array("weights", weights)
        if isinstance(sources, list | tuple) and not sources:
            raise ValueError(
                "sources: expected at least one node, got none; a constant that is trained is g.add_parameter(value)"
            )
        ids = ids_of_sources(self, sources)
        code = neuron_code(activation)
        w = None if given is None else float_array("weights", given, (len(ids),))
        b = None if bias is None else number("bias", bias)
        if w is None:
            (w,) = first_weights(self.random, 1, len(ids))
        record = self.storage.add_row(w, b)
        neuron = Neuron(self, self._append(code, ids, record))
        edited(self, nodes=neuron.id)
        return neuron

    @adds_nodes
    def add_neurons(
        self,
        sources: NodesLike,
        activation: str = "identity",
        *,
        n: int | None = None,
        weights: npt.ArrayLike | None = None,
        biases: npt.ArrayLike | None = 0.0,
    ) -> range:
        """Add neurons that share their sources.

        Parameters
        ----------
        sources : sequence of Node, or array of their ids
            At least one node of this graph; none twice.
        activation : str
            identity, relu, leaky_relu, elu, sigmoid or tanh.
        n : int, optional
            Number of neurons; needed where there are no `weights`.
        weights : array_like, shape (n, sources), optional
            By default drawn as by `add_neuron`.
        biases : array_like, shape (n,), or float, or None
            None for neurons without biases.

        Returns
        -------
        range
            Ids of the new neurons.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as documented; nothing has been added.
        """
        if n is not None:
            n = whole("n", n)
        elif weights is None:
            raise ValueError("add_neurons: expected n or weights, got neither")
        given = None if weights is None else real_array("weights", weights)
        if biases is not None:
            biases = number("biases", biases) if isinstance(biases, Real) else real_array("biases", biases)
        ids = np.array(ids_of_sources(self, sources), np.int32)
        code = neuron_code(activation)
        w = None if given is None else float_array("weights", given, (n, len(ids)))
        n = len(w) if w is not None else n or 0
        if isinstance(biases, float):
            biases = np.full(n, biases)
        b = None if biases is None else float_array("biases", biases, (n,))
        if n == 0:
            raise ValueError("weights: expected at least one neuron, got none")
        if w is None:
            w = first_weights(self.random, n, len(ids))
        node, record = len(self._code), self.storage.add_panels(w, b)
        self._extend(code, ids, record + np.arange(n))
        edited(self, nodes=node)
        return range(node, node + n)

    @adds_nodes
    def add_subgraph(self, neurons: Neurons, edges: Edges) -> Int32:
        """Add neurons with different sources, given as arrays in any order.

        The arrays of `Graph.neurons` and `Graph.edges` can be added unchanged to a graph with as
        many inputs, if the graph they come from has its inputs first and all its other nodes are
        neurons. All added neurons have a bias.

        Parameters
        ----------
        neurons : Neurons
            `node` numbers the neurons; `edges` refers to these numbers.
        edges : Edges
            Edges into these neurons, at least one into each. Each neuron's sources are in the order
            of `edges`. A source that is not among the new neurons is the id of a node of this
            graph.

        Returns
        -------
        int32, shape (neurons,)
            Ids of the new neurons, in the order of `neurons`.

        Raises
        ------
        CycleError
            If there would be a cycle; nothing has been added.
        TypeError, ValueError
            If an argument is not as documented; nothing has been added.

        Examples
        --------
        >>> g = mlgraph.Graph()
        >>> x = g.add_inputs(2)
        >>> neurons = mlgraph.Neurons(np.array([8, 7]), np.array(["identity", "tanh"]), np.array([0.0, 0.5]))
        >>> edges = mlgraph.Edges(np.array([7, 0, 1]), np.array([8, 7, 7]), np.array([2.0, 1.0, -1.0]))
        >>> g.add_subgraph(neurons, edges)
        array([3, 2], dtype=int32)
        >>> print(g[3], "of", g[2])
        identity(2*n2 + 0) of tanh(1*n0 - 1*n1 + 0.5)
        """
        from mlgraph.graph.compaction import once_each
        from mlgraph.graph.subgraph import checked_subgraph

        new = checked_subgraph(self, neurons, edges)
        node, begin = len(self), np.cumsum(new.counts, dtype=np.int64) - new.counts
        lists = once_each(begin, new.counts, new.sources, np.zeros(len(new.counts), bool))
        record = self.storage.add_rows(new.weights, new.counts, new.biases)
        self._extend(new.codes, lists.pool, record + np.arange(len(new.counts)), lists.start, new.counts)
        edited(self, nodes=node)
        return new.rank + np.int32(node)

    @adds_nodes
    def add_operation(self, name: str, *arguments: Node | float) -> Node:
        """Add a node that applies an operation to nodes or numbers.

        Parameters
        ----------
        name : str
            With one argument: identity, relu, leaky_relu, elu, gelu, silu, softplus, sigmoid, tanh,
            neg, abs, sign, floor, exp, expm1, log, log1p, sqrt, sin, cos, arcsin, arccos, arctan,
            sinh, cosh or erf. With two: add, sub, mul, div, pow, maximum or minimum. With
            three: where. With any number of arguments: sum, prod, max or logsumexp.
        *arguments : Node or float
            A number becomes a constant.

        Raises
        ------
        TypeError, ValueError
            If there is no such operation, the number of arguments is wrong, or an argument is not a
            number or a node of this graph; nothing has been added.
        """
        op = ops.OPS[one_of("name", name, tuple(ops.OPS))]
        if op.arity != len(arguments) if op.arity >= 0 else not arguments:
            expected = op.arity if op.arity >= 0 else "at least 1"
            raise ValueError(f"arguments of {name}: expected {expected}, got {len(arguments)}")
        return Node(self, self._append(op.code, self._arguments(name, arguments)))

    @adds_nodes
    def _add_all(self, add: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call a function that adds nodes: if it raises, none remain."""
        return add(*args, **options)

    @adds_nodes
    def add_softmax(self, nodes: Iterable[Node | float]) -> list[Node]:
        """Add the softmax of `nodes`: probabilities, which add up to 1 for finite nodes.

        They are ``exp(d - logsumexp(d))``, where d is z minus the highest z. Without that subtraction
        two equal z of 3e7 would get the probability 1 each, since z + log(2) rounds to z in float32.

        Parameters
        ----------
        nodes : sequence of Node or number
            At least one.

        Returns
        -------
        list of Node
            The probabilities, in the order of `nodes`.

        Raises
        ------
        TypeError, ValueError
            If `nodes` is empty, or an element is not a number or a node of this graph; nothing has
            been added.
        """
        terms = listed("nodes", nodes)
        highest = self.add_operation("max", *terms)
        below = [self.add_operation("sub", z, highest) for z in terms]
        total = self.add_operation("logsumexp", *below)
        return [self.add_operation("exp", self.add_operation("sub", d, total)) for d in below]

    # --- reading ----------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Graph: {len(self)} nodes, {self.n_inputs} inputs, {self.n_edges} edges>"

    @locked
    def get_parameters(self) -> Float32:
        """All weights, biases and values of parameters, float32 of shape (n_parameters,).

        First come weights and the values of parameter nodes, node by node, a neuron's weights in
        the order of its sources; then biases. Only edits and new nodes change this order.

        A copy, which may be changed and given to `set_parameters`.
        """
        return self.storage.vector[arrays.parameter_places(self)]

    @locked
    def set_parameters(self, values: npt.ArrayLike) -> None:
        """Assign all weights, biases and values of parameters.

        Parameters
        ----------
        values : array_like, shape (n_parameters,)
            In the order of `get_parameters`.
        """
        given = real_array("values", values)  # before a look at the places, which the conversion may move
        places = arrays.parameter_places(self)
        self.storage.vector[places] = float_array("values", given, (len(places),))

    @locked
    def optimizer_state(self) -> dict[str, Float32]:
        """The optimizer's state of the last run of `fit`, or of the run in progress.

        Returns
        -------
        dict of float32, shape (n_parameters,)
            In the order of `get_parameters`; read-only copies. "first" is the velocity of SGD with momentum
            or the first moment of Adam; "second" is the second moment of Adam. Empty before the
            first run, and if the optimizer has no state.

        Examples
        --------
        >>> g = mlgraph.Graph()
        >>> x = g.add_input()
        >>> y = g.add_neuron([x], weights=[3.0], bias=None)
        >>> history = mlgraph.Model(g, y).fit([[1.0]], [1.0], epochs=1, learning_rate=0.1, optimizer="sgd")
        >>> g.optimizer_state(), y.weights
        ({'first': array([4.], dtype=float32)}, array([2.6], dtype=float32))
        """
        found = arrays.values(self)
        return {name: read_only(found[name]) for name in ("first", "second") if name in found}

    def __getitem__(self, node: int | str) -> Node:
        """The node with this id or this unique name; a node without a name is called "n" and its id.

        An input without a name also has that of its column; see `Model.columns`.
        """
        if isinstance(node, Node):
            raise TypeError(f"node: expected the id of a node, got {type(node).__name__}")
        if isinstance(node, str):
            given = self.names.copy()  # other threads may add names
            named = [i for i, name in given.items() if name == node]
            columns = zip(self.input_ids, columns_of(self), strict=False)
            named += [i for i, name in columns if name == node and i not in given]
            if re.fullmatch("n(0|[1-9][0-9]{0,9})", node) and (i := int(node[1:])) < len(self) and i not in given:
                named += [i] if not named or own_name(self, i) is None else []
            if len(named) != 1:
                raise ValueError(f"node: {len(named) or 'no'} nodes have the name {shown(node)}")
            node = named[0]
        node = id_of(self, node)
        return (Neuron if self._code[node] >= NEURON else Node)(self, node)

    def __contains__(self, node: object) -> bool:
        """Whether an id or name names a node of the graph, or a node belongs to it and was not removed."""
        if isinstance(node, Node):
            return node.graph is self and self._has(node)
        try:
            self[node]  # type: ignore[index]
        except (TypeError, ValueError, IndexError):
            return False
        return True

    def __iter__(self) -> Iterator[Node]:
        return (self[i] for i in range(len(self)))

    @locked
    def sources_of(self, node: Node | int) -> Int32:
        """Ids of the sources of a node, int32 of shape (sources,); a copy.

        Parameters
        ----------
        node : Node or int
        """
        return np.array(self._source_list(id_of(self, node)), np.int32)

    @locked
    def targets_of(self, node: Node | int) -> Int32:
        """Ids of the nodes that read a node, int32 of shape (targets,).

        Parameters
        ----------
        node : Node or int
        """
        chosen = np.zeros(len(self), bool)
        chosen[id_of(self, node)] = True
        return np.flatnonzero(self._readers(chosen)).astype(np.int32)

    @locked
    def weights_of(self, node: Node | int) -> Weights:
        """The weights of a neuron, or the value of a parameter, as `Neuron.weights`.

        Parameters
        ----------
        node : Node or int

        Returns
        -------
        Weights, shape (sources,) or (1,)
            Writing to it changes the network.

        Raises
        ------
        ValueError
            If the node is neither a neuron nor a parameter.
        """
        node = id_of(self, node)
        if self._code[node] < PARAMETER:
            raise ValueError(f"node: expected a neuron or parameter, got {self[node]!r}")
        sources = self._source_list(node)
        n = len(sources) if self._code[node] >= NEURON else 1
        return Weights(self[node], sources, np.arange(n), self.edits)

    def _source_list(self, node: int) -> array[int]:
        """Ids of the sources of a node; a copy."""
        start = self._start[node]
        return self._pool[start : start + self._count[node]]

    def _memory_of(self, node: int) -> Float32:
        """The weights of a neuron, or the value of a parameter; a view that is valid while the lock is held."""
        return self.storage.weights_of(self._data[node], self._count[node] if self._code[node] >= NEURON else 1)

    def compile(self, outputs: Node | NodesLike, inputs: Node | NodesLike | None = None) -> Function:
        """Compile the nodes that `outputs` depend on into a function of a batch.

        Parameters
        ----------
        outputs : Node, or sequence of Node, or array of their ids
            At least one.
        inputs : Node, or sequence of Node, or array of their ids, optional
            The nodes that take their values from the columns of the data. By default all inputs of
            the graph, even those that are not needed, such as the targets of a loss. Other nodes
            may be listed, too, and are then read from the data instead of being computed: to run a
            network from some layer on, or to give a neuron its value from another example. All
            inputs of the graph that are still needed must be listed. Listing only some neurons of a
            layer moves the weights of its other neurons together; alternating such calls with calls
            of a model compiles the graph each time.

        Returns
        -------
        Function

        Raises
        ------
        TypeError, ValueError
            If an argument is not a node of this graph, `outputs` is empty, an input is given twice,
            or an input that is needed is missing.

        Examples
        --------
        >>> net = mlgraph.Network(2, seed=0)
        >>> hidden, _ = net.add_layer(3, "tanh"), net.add_layer(1, "identity")
        >>> head = net.graph.compile(net.outputs, inputs=hidden.neurons)
        >>> values = net.trace([[1.0, 0.0]], nodes=hidden.neurons).values
        >>> bool(np.allclose(head(values), net.forward([[1.0, 0.0]])))
        True
        >>> values[:, 1] = net.trace([[0.0, 1.0]])[hidden[1]]  # one neuron takes its value from another example
        >>> bool(np.allclose(head(values), net.forward([[1.0, 0.0]])))
        False
        """
        from mlgraph.engine.function import Function

        inputs = [inputs] if isinstance(inputs, Node) else inputs
        return Function(self, [outputs] if isinstance(outputs, Node) else outputs, inputs)

    def draw(self, x: npt.ArrayLike | None = None, **options: Unpack[Options]) -> Drawing:
        """A picture of the graph; the arguments are those of `mlgraph.pictures.Drawing`."""
        from mlgraph.pictures.drawing import Drawing

        return Drawing(self, x=x, **options)

    def _repr_svg_(self) -> str:
        return self.draw().to_svg()

    def alive(self) -> Bool:
        """Which nodes are on a path from an input, parameter or constant to an output; bool, shape (nodes,), read-only.

        The outputs are those of the models of this graph; without a model, the nodes that no other
        node reads. Nodes that are not alive do not take part in the computation, except for
        operations that depend only on neurons that are cut off: these are computed, with 0 as the
        value of such neurons.
        """
        return self.alive_for(self.sinks())

    @locked
    def alive_for(self, outputs: frozenset[int]) -> Bool:
        """Which nodes are alive with these sinks; see `mlgraph.graph.topology`. The last result is cached."""
        key = (self.edits, outputs)
        if self._alive is None or self._alive[0] != key:
            topology = self.topology()
            live = ancestors(self, topology, sorted(outputs)) if outputs else np.ones(len(self), bool)
            if self.has_bare:
                live &= is_live(self.codes, topology, topological(self, topology)[1])
            live.flags.writeable = False
            self._alive = key, live
        return self._alive[1]

    def live(self) -> Bool:
        """Which nodes are live; see `mlgraph.graph.topology`."""
        return self.alive_for(frozenset()) if self.has_bare else np.ones(len(self), bool)

    @locked
    def edges(self) -> Edges:
        """The edges between nodes that are alive, as arrays.

        Returns
        -------
        Edges
            Grouped by neuron, each neuron's edges in the order of its sources; read-only copies.
        """
        found = arrays.edges(self)
        return Edges(read_only(found.source), read_only(found.target), read_only(found.weight))

    @locked
    def neurons(self) -> Neurons:
        """The neurons that are alive, as arrays in topological order; read-only copies.

        Together with `edges` they define what a graph of neurons computes.

        Examples
        --------
        >>> g = mlgraph.Graph()
        >>> x = g.add_inputs(2)
        >>> hidden = g.add_neuron(x, "tanh", weights=[1.0, -1.0], bias=0.5)
        >>> y = g.add_neuron([hidden, x[0]], weights=[2.0, 3.0])
        >>> source, target, weight = g.edges()
        >>> value = {0: 0.5, 1: 1.0}
        >>> for node, activation, bias in zip(*g.neurons()):
        ...     z = bias + sum(w * value[s] for s, w in zip(source[target == node], weight[target == node]))
        ...     value[node] = np.tanh(z) if activation == "tanh" else z
        >>> bool(abs(value[y.id] - g.compile(y)([[0.5, 1.0]]).item()) < 1e-6)
        True
        """
        found = arrays.neurons(self)
        return Neurons(read_only(found.node), read_only(found.activation), read_only(found.bias))

    @locked
    def sinks(self) -> frozenset[int]:
        """Ids of the outputs and losses of all models of this graph; no edit may disconnect them."""
        return frozenset(i for model in self.models for i in model.sinks) if len(self.models) else frozenset()

    @locked
    def edge(self, source: Node | int, target: Node | int) -> Edge:
        """The edge from a node to a neuron.

        Parameters
        ----------
        source, target : Node or int

        Raises
        ------
        ValueError
            If there is no such edge.
        """
        s, t = id_of(self, source, "edge"), id_of(self, target, "edge")
        index = self._source_index(s, t)
        return Edge(self[s], Neuron(self, t), index)

    @locked
    def reaches(self, source: Node | int, target: Node | int) -> bool:
        """Whether a path leads from `source` to `target`, or they are equal: an edge back would then form a cycle.

        Parameters
        ----------
        source, target : Node or int
        """
        s, t = id_of(self, source, "reaches"), id_of(self, target, "reaches")
        return bool(ancestors(self, self.topology(), [t])[s])

    @locked
    def has_edge(self, source: Node | int, target: Node | int) -> bool:
        """Whether there is an edge from a node to a neuron.

        Parameters
        ----------
        source, target : Node or int
        """
        s, t = id_of(self, source, "has_edge"), id_of(self, target, "has_edge")
        return self._code[t] >= NEURON and s in self.sources_of(t)

    # --- editing ----------------------------------------------------------------------------------

    @locked
    def add_edge(self, source: Node | int, target: Node | int, weight: float = 0.0) -> Edge:
        """Add an edge from a node to a neuron.

        If the ids of the neuron's sources ascend, the new source is inserted in this order,
        otherwise it is appended.

        Parameters
        ----------
        source, target : Node or int
        weight : float

        Raises
        ------
        CycleError
            If the source depends on the neuron.
        TypeError, IndexError
            If `source` or `target` is neither a node nor an id, or no node has this id.
        ValueError
            If a node is of another graph, the edge exists already, the target is not a neuron, or
            the source is an operation that depends only on neurons that are cut off.
        """
        from mlgraph.graph.edits import check_new, grow

        s, t = id_of(self, source, "add_edge"), id_of(self, target, "add_edge")
        new = Edges(np.array([s], np.int32), np.array([t], np.int32), np.array([number("weight", weight)], np.float32))
        check_new(self, np.array([s]), np.array([t]), "add_edge")
        grow(self, new, "add_edge")
        return Edge(self[s], Neuron(self, t), self._source_index(s, t))

    @locked
    def add_edges(self, edges: Edges) -> None:
        """Add many edges as one edit; much faster than `add_edge` for each.

        Parameters
        ----------
        edges : Edges
            Ids of sources and of neurons, and weights, each of shape (edges,).

        Raises
        ------
        CycleError
            If there would be a cycle; nothing has changed.
        ValueError
            If an edge exists already or is given twice, a target is not a neuron, or a source is an
            operation that depends only on neurons that are cut off.
        """
        from mlgraph.graph.edits import grow, new_edges

        grow(self, new_edges(self, edges, "add_edges"), "add_edges")

    @locked
    def prune(
        self, what: Neuron | Edge | Edges | Iterable[Neuron | Edge | tuple[Node | int, Node | int]] | range | Ids
    ) -> None:
        """Cut neurons and edges, as one edit.

        Parameters
        ----------
        what : Neuron, Edge, Edges or iterable
            Neurons, or an array of their ids: all edges into and out of them are cut. Edges, or
            pairs (source, target) of nodes or ids. Then all edges out of nodes without a path from
            an input, a parameter or a constant are cut, too, because such a neuron is 0, whatever
            its bias.

        Raises
        ------
        ValueError
            If a neuron is an output of a model, an edge does not exist, or an output would be
            disconnected from all inputs, parameters and constants; nothing has changed.
        """
        from mlgraph.graph.edits import cut, edges_named

        cut(self, *edges_named(self, what))

    def one_edit(self, *, parameters: bool = False) -> AbstractContextManager[None]:
        """Combine all edits of a ``with`` block into one, which `undo`, or an exception in the block, takes back.

        New nodes of any kind are part of the edit. If one of them becomes an output of a model, an
        exception removes none of them. A nested block is part of the outer edit, whose `parameters`
        counts for `undo`. The block holds the graph's lock. Cuts take effect at once, including
        those out of neurons without a live source: to replace the last source of a neuron, add the
        new one first.

        Parameters
        ----------
        parameters : bool
            Whether to restore the values of all weights, biases and parameters, too, which of them
            are frozen, and the optimizer's state, even if they are trained or assigned after the
            block. This copies them.

        Examples
        --------
        >>> g = mlgraph.Graph()
        >>> x = g.add_input("x")
        >>> y = g.add_neuron([x], "tanh", weights=[1.0])
        >>> with g.one_edit():  # an edge becomes two, with a neuron between them, as in NEAT
        ...     edge = g.edge(x, y)
        ...     hidden = g.add_neuron([x], "relu", weights=[1.0])
        ...     _ = g.add_edge(hidden, y, edge.weight)
        ...     edge.prune()
        >>> g.n_edges
        2
        >>> g.undo()
        >>> g.n_edges
        1
        """
        from mlgraph.graph.undo import one_edit

        return one_edit(self, parameters=truth("parameters", parameters))

    @locked
    def undo(self) -> None:
        """Take back the last edit that has not been taken back; `redo` makes it again.

        Each further call takes back the edit before, as long as `undo_memory` holds it. A change that
        is not an edit, such as a new input or expression, is an end: no edit before it can be undone.

        Edits are `prune`, methods that add edges or neurons, the edits of a model, and assigning an
        activation, a mask, a first bias or None for a bias. An edit that changed nothing counts, too.
        During `fit`, each cut and each growth by a schedule is an edit.

        Edges that were cut return in their order, with the weights and the optimizer state that
        they had; without the state if a run of `fit` has begun since. Edges and neurons that were
        added are removed. New nodes may reuse their ids, and using views of the removed nodes is an
        error. Everything else, including what has been trained since, stays as it is, except after
        `one_edit(parameters=True)`.

        Raises
        ------
        ValueError
            If there is no edit to take back, the last change was not an edit, a `one_edit` is open,
            or undoing the edit would remove or disconnect an output of a model; nothing has changed.

        Examples
        --------
        >>> g = mlgraph.Graph()
        >>> x = g.add_input("x")
        >>> a, b = (g.add_neuron([x], weights=[w]) for w in (1.0, 2.0))
        >>> g.undo()
        >>> g.undo()
        >>> len(g)
        1
        >>> g.redo()
        >>> len(g), a.weights.tolist()
        (2, [1.0])
        """
        from mlgraph.graph.undo import undo

        undo(self)

    @locked
    def redo(self) -> None:
        """Make the edit again that the last `undo` took back; after several, they return one after the other.

        Nodes return with their ids and all that they had, and edges with their weights and the
        optimizer state; without the state if a run of `fit` has begun since. Everything else stays
        as it is, except after `one_edit(parameters=True)`. A new edit clears what could be redone.

        Raises
        ------
        ValueError
            If there is nothing to redo, the last change was not an `undo` or `redo`, a `one_edit` is
            open, or an output of a model would be disconnected; nothing has changed.
        """
        from mlgraph.graph.undo import redo

        redo(self)

    @property
    def undo_memory(self) -> int:
        """Bytes of memory for the edits that `undo` and `redo` can restore, by default 64 MiB; may be assigned.

        The oldest edits are forgotten first. The last edit is always kept, whatever its size.
        """
        return self._undo_memory

    @undo_memory.setter
    @locked
    def undo_memory(self, n: int) -> None:
        from mlgraph.graph.undo import forget_oldest

        self._undo_memory = whole("undo_memory", n, 0)
        forget_oldest(self)

    def __copy__(self) -> Graph:
        return self.copy()

    @locked
    def copy(self) -> Graph:
        """A copy of the graph, its parameters and its optimizer state; it cannot undo or redo edits.

        Nor can one made by `copy.deepcopy` or `pickle`, which would be as large as before the edit.
        """
        other = Graph()
        other.random = generator_at(state_of(self.random))
        for name, value in vars(self).items():
            if isinstance(value, array):
                setattr(other, name, value[:])
        other.names, other.edits, other.storage = dict(self.names), self.edits, self.storage.copy()
        other.has_bare, other._undo_memory = self.has_bare, self._undo_memory
        return other

    @locked
    def become(self, other: Graph) -> None:
        """Take over the contents of `other`, which must not be used afterwards; views of nodes stay valid."""
        if self._open is not None:
            raise RuntimeError("resume: not possible within one_edit")
        mine: dict[str, Any] = {"edits": self.edits + other.edits + 1, "_n_changes": self._n_changes + 1}
        # The graph keeps its lock, its training run and its models; its names of nodes are more
        # recent. The generator is that of `other`, so a resumed run draws on as the interrupted one.
        mine["names"] = other.names | {node: name for node, name in self.names.items() if node < len(other)}
        mine |= {"lock": self.lock, "_training": self._training, "models": self.models, "random": other.random}
        mine["born"] = self.born[: len(other)] + other.born[len(self) :]
        vars(self).update(vars(other) | mine)

    # --- inside -----------------------------------------------------------------------------------

    @cached_property
    def models(self) -> WeakSet[ModelOfGraph]:
        """The models over this graph; created on demand, because copying adds a model to a graph without state."""
        return WeakSet()

    def _source_index(self, source: Node | int, target: Node | int, guess: int = 0) -> int:
        """The index of a source among the sources of a neuron; `guess` is tried first."""
        s, t = id_of(self, source, "edge"), id_of(self, target, "edge")
        if self._code[t] >= NEURON and guess < self._count[t] and self._pool[self._start[t] + guess] == s:
            return guess
        start, n = self._start[t], self._count[t] if self._code[t] >= NEURON else 0
        at = (np.frombuffer(self._pool, np.int32)[start : start + n] == s).nonzero()[0]
        if not len(at):
            raise ValueError(f"edge: there is no edge from {edge_name(self, s, t)}")
        return int(at[0])

    def lock_was_lost(self) -> None:
        """Repair the graph in a forked child, where no edit is open."""
        super().lock_was_lost()
        # numpy's own lock may be held for ever, too; the standard library's logging frees its locks in this way.
        self.random.bit_generator.lock._at_fork_reinit()  # type: ignore[attr-defined]
        if self._open is not None:  # half of an edit of another thread, or of an undo
            self._open = self.last_edit = self.undone_edit = None
        for model in self.models:
            model.forget_nodes(len(self))

    @locked
    def __getstate__(self) -> dict[str, Any]:
        from mlgraph.graph.compaction import compact

        other = self.copy()
        compact(other, most=0.25)
        state = {**vars(self), **vars(other), "random": state_of(other.random)}
        apart = "lock", "_training", "models", "_open", "_seed"
        return {name: value for name, value in state.items() if name not in apart}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.random = generator_at(state["random"])
        self._open = None
        self.init_lock()

    def _arguments(self, operation: str, arguments: Sequence[Any]) -> list[int]:
        """Ids of the arguments of an operation; numbers become constants after all arguments have been checked."""
        what = f"arguments of {operation}"
        if any(isinstance(a, bool) for a in arguments):
            raise TypeError(f"{what}: expected nodes or numbers, got a bool; x == y compares nodes, not their values")
        given = [a if isinstance(a, Node) else number(what, a) for a in arguments]
        ids_of(self, what, (a for a in given if isinstance(a, Node)))
        return [(a if isinstance(a, Node) else self.add_constant(a)).id for a in given]


def checked_graph(graph: Any) -> Graph:
    """`graph` if it is a Graph, else a TypeError."""
    if not isinstance(graph, Graph):
        raise TypeError(f"graph: expected a Graph, got {type(graph).__name__}")
    return graph
