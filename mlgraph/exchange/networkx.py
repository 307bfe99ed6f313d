"""NetworkX: graphs of scalars as directed graphs, for its algorithms and formats, and back.

The attributes, by the kind of node. Those in brackets may be missing; all values are numbers, strings
and bools of Python, except `arguments`, a tuple.

node      [name], [output] and [loss], [layer]
input     [input], the column of the data
constant  value
parameter value, [frozen]
neuron    [activation], [bias], [frozen], of the bias
operation nothing more; its kind is its name
edge      [weight] and [frozen] into a neuron; [arguments] into an operation
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgraph._support.array_types import Bool
from mlgraph._support.checks import float_array, number, one_of, shown, truth, whole
from mlgraph._support.installation import install_command
from mlgraph.exchange.layers import estimator_hint
from mlgraph.graph import ops
from mlgraph.graph.arrays import wiring
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import NEURON
from mlgraph.graph.topology import CycleError, ancestors, cycle_text
from mlgraph.graph.views import Neuron, Node, name_of
from mlgraph.models.model import Model

if TYPE_CHECKING:
    import networkx

OF_EVERY_NODE = ("kind", "name", "output", "loss", "layer")
OF_KIND: dict[str, tuple[str, ...]] = {
    "input": ("input",),
    "constant": ("value",),
    "parameter": ("value", "frozen"),
    "neuron": ("activation", "bias", "frozen"),
}
"""The attributes of nodes, of every kind and of one kind; operations have no more."""

OF_GRAPH = ("loss", "classes", "scaling", "columns")
OF_NETWORKX = ("name", "node_default", "edge_default")
"""Attributes that NetworkX itself gives to graphs."""


def to_networkx(model: Model | Graph) -> networkx.DiGraph:
    """Make a directed graph for NetworkX: a node for each scalar, labelled by its id, and an edge for each edge.

    Parameters
    ----------
    model : Model or Graph
        Of a model, all that its outputs depend on, and its inputs: a cross-entropy is an attribute, not
        nodes. Of a graph, all nodes. Neurons that are cut off are left out, or become the constant 0
        if an operation reads them.

    Returns
    -------
    networkx.DiGraph
        Every node has a `kind`, as `Node.kind`, and if it has a name, a `name`. An input has an `input`,
        its column; a neuron an `activation`, and a `bias` unless it has none; constants and parameters
        a `value`. The nodes of a model have an `output`, their number, or `loss`, True; and in a
        network, a `layer`. Edges into neurons have a `weight`; edges into operations have
        `arguments`, a tuple of the positions among the arguments. `frozen`, True, is an attribute
        of frozen edges, parameters and, for their biases, neurons.

        The attributes of the graph are `loss`, `classes`, `scaling` and `columns` of the model, if
        it has any. Dropout has none.

    Raises
    ------
    TypeError, ValueError
        If `model` is neither a model nor a graph, has no outputs, or one node is several outputs.

    Examples
    --------
    >>> import networkx
    >>> net = mlgraph.Network(3, seed=0)
    >>> hidden, output = net.add_layer(2, "tanh"), net.add_layer(1)
    >>> hidden[0].in_edges[1].prune()
    >>> g = mlgraph.exchange.to_networkx(net)
    >>> g.nodes[3], g.nodes[5]["output"], len(g.edges)
    ({'kind': 'neuron', 'activation': 'tanh', 'bias': 0.0, 'layer': 0}, 0, 7)
    >>> networkx.ancestors(g, 3), networkx.dag_longest_path_length(g, weight=None)
    ({0, 2}, 2)
    """
    nx = _networkx("to_networkx")
    if not isinstance(model, Model | Graph):
        raise TypeError(f"to_networkx: expected a Model or a Graph, got {type(model).__name__}{estimator_hint(model)}")
    graph = model if isinstance(model, Graph) else model.graph
    with graph.lock if isinstance(model, Graph) else model.require_outputs():
        made = nx.DiGraph()
        nodes = np.flatnonzero(_exported(model))
        made.add_nodes_from(zip(nodes.tolist(), _attributes(graph, nodes.tolist()), strict=True))
        if isinstance(model, Model):
            _describe_model(model, made)
        for operation in nodes[ops.is_operation(graph.codes[nodes]) | (graph.codes[nodes] == ops.WEIGHT)].tolist():
            sources = graph.sources_of(operation).tolist()
            for source in dict.fromkeys(sources):
                made.add_edge(source, operation, arguments=tuple(i for i, s in enumerate(sources) if s == source))
        edges = wiring(graph, nodes[graph.codes[nodes] >= NEURON].astype(np.int32))
        ends = edges.source.tolist(), edges.target.tolist()
        made.add_weighted_edges_from(zip(*ends, graph.parameters[edges.place].tolist(), strict=True))
        for i in np.flatnonzero(_frozen(graph)[edges.place]).tolist():
            made.edges[ends[0][i], ends[1][i]]["frozen"] = True
    return made


def from_networkx(graph: networkx.DiGraph, *, loss: str | None = None) -> Model:
    """Make a model of a directed graph of NetworkX that has the attributes `to_networkx` gives.

    Parameters
    ----------
    graph : networkx.DiGraph
        Attributes may be missing. A node without a `kind` is an input if no edge leads to it, else a
        neuron; its activation is then identity, and it has no bias. An edge without a `weight` has 1.
        Inputs without an `input` are in the order of the nodes. Without an `output`, the outputs are
        all neurons and operations from which no edge leads on. The arguments of an operation are in the order of
        its edges, if these have no `arguments`. A label that is a string is the name of the node,
        unless it has a `name`.
    loss : str, optional
        As for `Model`; by default the `loss` of the graph, or else squared_error.

    Returns
    -------
    Model
        Not a network: `layer` is not read. Its graph has the nodes in the order of `graph`, as far as
        the edges allow.

    Raises
    ------
    CycleError
        If there is a cycle; the message names its nodes.
    TypeError, ValueError
        If `graph` is not a DiGraph, or a node, an edge or the graph has an attribute that is unknown or
        wrong; the message names it. Also for derivatives that `mlgraph.grad` has made, if they read weights.

    Examples
    --------
    >>> import networkx
    >>> g = networkx.DiGraph()
    >>> g.add_edge("x", "hidden", weight=2.0)
    >>> g.add_weighted_edges_from([("x", "y", 0.5), ("hidden", "y", -1.0)])
    >>> g.nodes["hidden"]["activation"] = "relu"
    >>> model = mlgraph.exchange.from_networkx(g)
    >>> model.predict([[3.0]]), model.outputs, str(model.graph["hidden"])
    (array([-4.5], dtype=float32), [<neuron y>], 'relu(2*x)')
    """
    nx = _networkx("from_networkx")
    if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
        raise TypeError(f"graph: expected a networkx.DiGraph, got {type(graph).__name__}")
    for name in graph.graph:
        if name not in (*OF_GRAPH, *OF_NETWORKX):
            raise ValueError(f"graph: unknown attribute {name!r}; expected {', '.join(OF_GRAPH)}")
    kinds = {label: _kind(graph, label) for label in graph}
    place = {label: i for i, label in enumerate(graph)}
    try:
        order = list(nx.lexicographical_topological_sort(graph, key=place.__getitem__))
    except nx.NetworkXUnfeasible:
        on_cycle = [repr(source) for source, *_ in nx.find_cycle(graph)]
        raise CycleError(f"graph: its edges form {cycle_text('node', on_cycle)}") from None
    made, inputs = Graph(), [label for label, kind in kinds.items() if kind == "input"]
    nodes = {label: made.add_input(_name(graph, label)) for label in _numbered(graph, "input", inputs) or inputs}
    for label in order:
        if kinds[label] != "input":
            nodes[label] = _add(made, graph, kinds[label], label, nodes)
            nodes[label].name = _name(graph, label)
    return _model(graph, made, nodes, kinds, loss)


def _networkx(function: str) -> Any:
    try:
        import networkx
    except ImportError as error:
        command = install_command("networkx", extra="exchange")
        raise ImportError(f"{function} needs NetworkX ({error}): {command}") from None
    return networkx


# --- to NetworkX ----------------------------------------------------------------------------------


def _exported(model: Model | Graph) -> Bool:
    """Which nodes go to NetworkX."""
    graph = model if isinstance(model, Graph) else model.graph
    topology = graph.topology()
    bare = (graph.codes >= NEURON) & (topology.counts == 0)
    if isinstance(model, Graph):
        sinks = np.flatnonzero(~bare).tolist()
    else:
        sinks = [*model.output_ids, *(model.loss_ids if model.loss == "node" else ()), *graph.input_ids]
    return ancestors(graph, topology, sinks)


def _frozen(graph: Graph) -> Bool:
    """Which parameters are frozen, by place."""
    frozen = graph.storage.frozen
    return np.zeros(graph.storage.used, bool) if frozen is None else frozen == 1


def _attributes(graph: Graph, nodes: list[int]) -> Iterator[dict[str, Any]]:
    """The attributes of nodes that do not depend on a model."""
    frozen, records, counts = _frozen(graph), graph.records, graph.counts
    for i in nodes:
        node = graph[i]
        found: dict[str, Any] = {"kind": node.kind}
        if i in graph.names:
            found["name"] = node.name
        if node.kind == "input":
            found["input"] = int(records[i])
        elif node.kind in ("constant", "parameter"):
            found["value"] = node.value
        elif isinstance(node, Neuron) and not counts[i]:
            found.update(kind="constant", value=0.0)  # cut off
        elif isinstance(node, Neuron):
            found["activation"] = node.activation
            if node.bias is not None:
                found["bias"] = node.bias
        is_frozen = (
            frozen[graph.storage.bias[records[i]]] if "bias" in found else node.kind == "parameter" and node.frozen
        )
        if is_frozen:
            found["frozen"] = True
        yield found


def _describe_model(model: Model, made: networkx.DiGraph) -> None:
    """Add the attributes that depend on a model to its graph and nodes."""
    for position, i in enumerate(model.output_ids):
        if "output" in made.nodes[i]:
            raise ValueError(
                f"to_networkx: {name_of(model.graph, i)} is output {made.nodes[i]['output']} and output {position}; a "
                "node can be one output only"
            )
        made.nodes[i]["output"] = position
    if model.loss == "node":
        made.nodes[model.loss_ids[0]]["loss"] = True
    for k, layer in enumerate(model.layers):
        for i in layer.ids:
            if i in made:
                made.nodes[i]["layer"] = k
    scaling = [part.tolist() for part in model.scaling] if isinstance(model.scaling, tuple) else model.scaling
    found = {"loss": model.loss, "classes": model.classes, "scaling": scaling, "columns": model.columns}
    made.graph.update({name: value for name, value in found.items() if value is not None})


# --- from NetworkX --------------------------------------------------------------------------------


def _kind(graph: networkx.DiGraph, label: Hashable) -> str:
    """The kind of a node, given or not, after a check of its attributes and of the edges into it."""
    attributes, into = graph.nodes[label], graph.pred[label]
    kind = attributes.get("kind", "neuron" if into else "input")
    if kind == "weight":
        raise ValueError(f"node {label!r}: a weight, as mlgraph.grad makes them, cannot be added to a graph by itself")
    kind = one_of(f"node {label!r}: kind", kind, (*OF_KIND, *ops.OPS))
    known = (*OF_EVERY_NODE, *OF_KIND.get(kind, ()))
    for name in attributes:
        if name not in known:
            expected = f"a node of the kind {kind} has {', '.join(known)}"
            raise ValueError(f"node {label!r}: unknown attribute {name!r}; {expected}")
    if kind in ops.OPS or kind == "neuron":
        if not into:
            hint = "a number that stays the same is a node of the kind constant, with a value"
            raise ValueError(f"node {label!r}: expected edges into a node of the kind {kind}, got none; {hint}")
    elif into:
        raise ValueError(
            f"node {label!r}: expected no edge into a node of the kind {kind}, got one from {next(iter(into))!r}"
        )
    known = ("weight", "frozen") if kind == "neuron" else ("arguments",)
    for source, of_edge in into.items():
        for name in of_edge:
            if name not in known:
                raise ValueError(
                    f"edge {source!r} to {label!r}: unknown attribute {name!r}; an edge into a node of the kind {kind} "
                    f"has {' and '.join(known)}"
                )
    return kind


def _name(graph: networkx.DiGraph, label: Hashable) -> str | None:
    name = graph.nodes[label].get("name", label if isinstance(label, str) else None)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"node {label!r}: name: expected a string, got {shown(name)}")
    return name


def _numbered(graph: networkx.DiGraph, attribute: str, labels: Iterable[Hashable]) -> list[Hashable]:
    """The nodes that have an attribute, in the order of its numbers, which count from 0; none if no node has it."""
    labels = list(labels)
    given = {label: graph.nodes[label][attribute] for label in labels if attribute in graph.nodes[label]}
    for label, value in given.items():
        whole(f"node {label!r}: {attribute}", value, 0)
    ordered = sorted(given, key=given.__getitem__)
    for expected, label in enumerate(ordered):
        if given[label] != expected:
            raise ValueError(f"node {label!r}: {attribute}: expected numbers from 0 up, each once, got {given[label]}")
    return ordered


def _add(made: Graph, graph: networkx.DiGraph, kind: str, label: Hashable, nodes: dict[Hashable, Node]) -> Node:
    """Add a node that is no input, with the edges into it."""
    attributes, into, here = graph.nodes[label], graph.pred[label], f"node {label!r}"
    if kind in ("constant", "parameter"):
        if "value" not in attributes:
            raise ValueError(f"{here}: expected a value, which a node of the kind {kind} has, got none")
        value = number(f"{here}: value", attributes["value"], nan=kind == "constant")
        node = made.add_constant(value) if kind == "constant" else made.add_parameter(value)
    elif kind == "neuron":
        given, bias = [of_edge.get("weight", 1.0) for of_edge in into.values()], attributes.get("bias")
        weights = float_array(f"weights of the edges into {label!r}", given, (len(given),))
        bias = None if bias is None else number(f"{here}: bias", bias)
        activation = one_of(f"{here}: activation", attributes.get("activation", "identity"), ops.ACTIVATIONS)
        sources = np.array([nodes[source].id for source in into], np.int32)
        node = made.add_neuron(sources, activation, weights=weights, bias=bias)
    else:
        try:
            return made.add_operation(kind, *(nodes[source] for source in _arguments(into, label)))
        except ValueError as error:
            raise ValueError(f"{here}: {error}") from None
    if kind != "constant":
        _freeze(node, attributes, into, label)
    return node


def _freeze(node: Node, attributes: Any, into: Any, label: Hashable) -> None:
    """Freeze the weights, the bias or the value of a node that are to be frozen."""
    frozen = [
        "frozen" in of_edge and truth(f"edge {source!r} to {label!r}: frozen", of_edge["frozen"])
        for source, of_edge in into.items()
    ]
    itself, places = truth(f"node {label!r}: frozen", attributes.get("frozen", False)), node.parameter_places()
    if itself and len(places) == len(frozen):
        raise ValueError(
            f"node {label!r}: frozen: expected a bias to freeze, got none; edges have a frozen of their own"
        )
    chosen = np.array([*frozen, itself][: len(places)], bool)
    if chosen.any():
        node.graph.storage.freeze(places[chosen], True)


def _arguments(into: Any, label: Hashable) -> list[Hashable]:
    """The sources of an operation in the order of its arguments."""
    at: dict[int, Hashable] = {}
    for i, (source, of_edge) in enumerate(into.items()):
        here, positions = f"edge {source!r} to {label!r}: arguments", of_edge.get("arguments", (i,))
        if not isinstance(positions, tuple | list) or not positions:
            raise TypeError(f"{here}: expected a tuple of positions, got {shown(positions)}")
        for position in positions:
            if at.setdefault(whole(here, position, 0), source) != source:
                raise ValueError(f"{here}: argument {position} is that of {at[position]!r}, too")
    if sorted(at) != list(range(len(at))):
        raise ValueError(f"node {label!r}: expected arguments from 0 up, got {sorted(at)}")
    return [at[i] for i in range(len(at))]


def _model(
    graph: networkx.DiGraph, made: Graph, nodes: dict[Hashable, Node], kinds: dict[Hashable, str], loss: str | None
) -> Model:
    """A model over the nodes, with the outputs, the loss and the attributes of the graph."""
    loss_nodes = [label for label in graph if truth(f"node {label!r}: loss", graph.nodes[label].get("loss", False))]
    outputs = _numbered(graph, "output", graph) or [
        label
        for label, kind in kinds.items()
        if not graph.succ[label] and label not in loss_nodes and kind not in ("input", "constant", "parameter")
    ]
    if not outputs:
        raise ValueError(
            "graph: expected an output: a neuron or operation from which no edge leads on, or an attribute"
        )
    chosen: str | Node = loss or graph.graph.get("loss", "squared_error")
    if chosen == "node":
        if len(loss_nodes) != 1:
            raise ValueError(f"graph: loss: expected one node with the attribute loss, got {len(loss_nodes)}")
        chosen = nodes[loss_nodes[0]]
    model = Model(made, [nodes[label] for label in outputs], chosen)
    for name in ("classes", "scaling", "columns"):
        if name in graph.graph:
            setattr(model, name, graph.graph[name])
    return model
