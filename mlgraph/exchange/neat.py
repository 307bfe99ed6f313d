"""neat-python: genomes as models, and models as the JSON of networks that neat-python 2 writes.

A node of NEAT computes ``activation(bias + response * aggregation(weight * source, ...))``. It becomes one
neuron if it sums, or takes the mean of, its terms and has an activation of neurons; other functions are
operations, as the two tables here define them. Factors move into the weights.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, reduce
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlgraph._support.checks import FLOAT32_MAX, number, one_of, shown, whole
from mlgraph.graph import functions as f
from mlgraph.graph.arrays import bias_places
from mlgraph.graph.draft import Draft
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import CONSTANT, NEURON, OPS, PARAMETER, is_operation
from mlgraph.graph.topology import CycleError, cycle_text
from mlgraph.graph.views import Neuron, Node, described
from mlgraph.models.model import Model
from mlgraph.models.scaling import Standardization

if TYPE_CHECKING:
    import neat

Made = Callable[..., Node]
Link = tuple[int, float]


class Activation(NamedTuple):
    """An activation of NEAT as ``applied(neuron(scale * z))``.

    Attributes
    ----------
    scale : float
        What weights and bias are multiplied by.
    neuron : str
        The activation of the neuron.
    applied : callable, optional
        Operations on the neuron.
    """

    scale: float
    neuron: str = "identity"
    applied: Made | None = None


SMALLEST = float(np.finfo(np.float32).tiny)
SELU, SELU_ALPHA = 1.0507009873554805, 1.6732632423543773

ACTIVATIONS = {
    # tanh and sigmoid clamp to -60 and 60, too, which changes them by less than 1e-26.
    "sigmoid": Activation(5.0, "sigmoid"),
    "tanh": Activation(2.5, "tanh"),
    "sin": Activation(5.0, applied=lambda z: f.sin(f.maximum(f.minimum(z, 60.0), -60.0))),
    "gauss": Activation(math.sqrt(5.0), applied=lambda z: f.exp(-f.minimum(z * z, 5 * 3.4**2))),
    "relu": Activation(1.0, "relu"),
    "elu": Activation(1.0, "elu"),
    "lelu": Activation(1.0, applied=lambda z: f.maximum(z, z * 0.005)),
    "selu": Activation(1.0, applied=lambda z: f.where(z, z * SELU, f.elu(z) * (SELU * SELU_ALPHA))),
    "softplus": Activation(5.0, applied=lambda z: f.softplus(f.minimum(z, 60.0)) * 0.2),
    "identity": Activation(1.0),
    "clamped": Activation(1.0, applied=lambda z: f.maximum(f.minimum(z, 1.0), -1.0)),
    "inv": Activation(1.0, applied=lambda z: f.sign(z) / f.maximum(abs(z), SMALLEST)),  # 0 at 0
    "log": Activation(1.0, applied=lambda z: f.log(f.maximum(z, 1e-7))),
    "exp": Activation(1.0, applied=lambda z: f.exp(f.maximum(f.minimum(z, 60.0), -60.0))),
    "abs": Activation(1.0, applied=lambda z: abs(z)),
    "hat": Activation(1.0, applied=lambda z: f.relu(1.0 - abs(z))),
    "square": Activation(1.0, applied=lambda z: z * z),
    "cube": Activation(1.0, applied=lambda z: z * z * z),
}

OF_NEURONS = {row.neuron: name for name, row in ACTIVATIONS.items() if row.applied is None}
"""The activation of NEAT for each of those of neurons that it has."""


def _maxabs(a: Node, b: Node) -> Node:
    return f.where(abs(b) - abs(a), b, a)  # of equal ones the first


def _median(*terms: Node) -> Node:
    """The middle of at least three terms, or the mean of the two in the middle, by an odd-even merge sort."""
    a, n = list(terms), len(terms)
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(j, min(j + k, n - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        a[i], a[i + k] = f.minimum(a[i], a[i + k]), f.maximum(a[i], a[i + k])
            k //= 2
        p *= 2
    return a[n // 2] if n % 2 else (a[n // 2 - 1] + a[n // 2]) * 0.5


AGGREGATIONS: dict[str, Made | None] = {
    "sum": None,  # a neuron's own
    "mean": None,
    "product": f.prod,
    "max": f.max,
    "min": lambda *terms: reduce(f.minimum, terms),
    "maxabs": lambda *terms: reduce(_maxabs, terms),
    "median": _median,
}
OF_NOTHING = {"product": 1.0}
"""The aggregation of no terms, where that is not 0."""


class _Gene(NamedTuple):
    """A node of NEAT with its enabled connections."""

    activation: str
    aggregation: str
    bias: float
    response: float
    links: Sequence[Link]

    @property
    def divisor(self) -> int:
        """What a weighted sum is divided by to be the aggregation; 0 if it cannot be."""
        n, name = len(self.links), self.aggregation
        if name == "sum" or n < 2:
            return n and 1
        return n if name == "mean" or (name == "median" and n == 2) else 0


class _Plan(NamedTuple):
    """The nodes that the outputs need, sources first, and the graph of them."""

    genes: dict[int, _Gene]
    draft: Draft
    outputs: list[int]


def from_neat(
    genome: neat.DefaultGenome | Mapping[str, Any] | str, config: neat.Config | None = None, *, loss: str | None = None
) -> Model:
    """Make a model of a genome of neat-python, or of the JSON of a feed-forward network that it exports.

    The model computes what ``neat.nn.FeedForwardNetwork.create(genome, config).activate`` computes, in
    float32 and for a whole batch, and can be trained. Nodes that no output needs and disabled
    connections are left out.

    Parameters
    ----------
    genome : neat.DefaultGenome, or str or dict
        The text of `neat.export.export_network_json`, or what `json` reads from it.
    config : neat.Config, optional
        Needed with a genome.
    loss : str, optional
        As for `Model`; by default squared_error. Outputs are logits under a cross-entropy, so give output nodes
        the activation identity, or keep sigmoid out of activation_options.

    Returns
    -------
    Model
        Its inputs are in the order of the genome's; it reads its data as they are. Each node has the key
        as its name, so that ``model.graph["-1"]`` is the first input and ``model.graph["0"]`` the first output.

    Raises
    ------
    CycleError
        If an output needs nodes that form a cycle.
    TypeError, ValueError
        If there is a function of the user's own, the network is not feed-forward, float32 cannot hold a
        weight, or an output is a sigmoid under binary_cross_entropy; the message names the node.

    Notes
    -----
    NaN stays NaN, where relu and the activations that clamp make a number of it in neat-python. Numbers
    above 3.4e38 are infinite here; in neat-python, square and cube raise an OverflowError above 1.8e308.

    Examples
    --------
    >>> nodes = [{"id": 0, "type": "output", "activation": {"name": "square"}, "bias": 1.0}]
    >>> links = [{"from": -1, "to": 0, "weight": 2.0}]
    >>> topology = {"input_keys": [-1], "output_keys": [0]}
    >>> text = {"network_type": "feedforward", "topology": topology, "nodes": nodes, "connections": links}
    >>> model = mlgraph.exchange.from_neat(text)
    >>> model.predict([[1.0], [2.0]])
    array([ 9., 25.], dtype=float32)
    """
    if isinstance(genome, str | Mapping):
        if config is not None:
            raise TypeError("config: expected none with the JSON of a network")
        plan = _plan(*_read_json(genome))
    else:
        plan = _plan(*_read_genome(genome, config, "from_neat"))
    _check_outputs(plan, loss)
    graph = plan.draft.graph()
    model = Model(graph, [graph[i] for i in plan.outputs], loss or "squared_error")
    model.scaling = "unscaled"
    return model


def update_genome(genome: neat.DefaultGenome, config: neat.Config, model: Model) -> None:
    """Write the weights, biases and responses of a model that `from_neat` made of a genome back into it.

    What training did not change stays exactly as it is. The numbers may exceed the bounds in the
    configuration; neat-python's next mutation of a number brings it back. A response of 0 becomes 1 if
    training has changed the weights behind it.

    Parameters
    ----------
    genome : neat.DefaultGenome
    config : neat.Config
    model : Model
        ``from_neat(genome, config)``, trained since, or a copy of it.

    Raises
    ------
    TypeError, ValueError
        If the arguments are others, the model's edges are no longer those of the genome, or float32 could not
        hold a number of the genome, as with a response of 1e-50; nothing has changed.

    Examples
    --------
    ::

        model = exchange.from_neat(genome, config, loss="binary_cross_entropy")
        model.fit(x, y, epochs=5)
        exchange.update_genome(genome, config, model)
    """
    if not isinstance(model, Model):
        raise TypeError(f"update_genome: expected a Model, got {type(model).__name__}")
    if model.scaling not in (None, "unscaled"):
        raise ValueError("update_genome: the model scales its data, which a genome does not; to_neat writes it whole")
    plan, graph = _plan(*_read_genome(genome, config, "update_genome")), model.graph
    before = plan.draft.vector()
    with graph.lock:
        if not _has_structure(graph, plan.draft):
            raise ValueError(
                "update_genome: the model does not have the nodes and edges of this genome; to_neat writes any network"
            )
        values = graph.get_parameters()
    draft, changed = plan.draft, (values != before).tolist()
    weights, biases = (iter(part) for part in np.split(values, [len(draft.weights)]))
    trained = iter(changed[: len(draft.weights)])
    of_bias = iter(changed[len(draft.weights) :])
    updates = [
        update
        for key, gene in plan.genes.items()
        for update in _updates(
            genome, key, gene, zip(trained, weights, strict=False), zip(of_bias, biases, strict=False)
        )
    ]
    for gene, name, value in updates:
        setattr(gene, name, value)


def to_neat(model: Model, *, metadata: Mapping[str, Any] | None = None) -> str:
    """Write a model as the JSON that neat-python 2 exports of a feed-forward network, which `from_neat` reads.

    Parameters
    ----------
    model : Model
        Of neurons with the activations identity, relu, elu, sigmoid or tanh, and of the functions that
        `from_neat` makes of those of neat-python. With a cross-entropy, its outputs are logits.
    metadata : mapping, optional
        Entries of the object `metadata`, such as the fitness.

    Returns
    -------
    str
        JSON. Inputs have the keys -1, -2, ... and outputs 0, 1, ...; other nodes have their names as keys
        if these are such numbers. If the model scales its data, a node for each input does.

    Raises
    ------
    TypeError, ValueError
        If the model is none, has no outputs, or has a node that NEAT cannot express; the message names it.

    Examples
    --------
    >>> net = mlgraph.Network(2, seed=0)
    >>> hidden, output = net.add_layer(2, "tanh"), net.add_layer(1)
    >>> text = mlgraph.exchange.to_neat(net)
    >>> mlgraph.exchange.from_neat(text)
    <Model of 2 inputs, 1 output, 6 edges: squared_error>
    """
    if not isinstance(model, Model):
        raise TypeError(f"to_neat: expected a Model, got {type(model).__name__}")
    with model.require_outputs():
        return json.dumps(_network(model, dict(metadata or {})), indent=2)


# --- reading --------------------------------------------------------------------------------------


def _read_genome(genome: Any, config: Any, what: str) -> tuple[list[int], list[int], Callable[[int], _Gene], Any]:
    """The keys of inputs and outputs, a function that gives the node of a key, and the keys of nodes."""
    try:
        import neat
    except ImportError as error:
        raise ImportError(f"{what} needs neat-python ({error}): pip install 'mlgraph[exchange]'") from None
    if not isinstance(genome, neat.DefaultGenome):
        raise TypeError(f"genome: expected a neat.DefaultGenome, got {type(genome).__name__}")
    if not isinstance(config, neat.Config):
        raise TypeError(f"config: expected the neat.Config of the genome, got {type(config).__name__}")
    settings, nodes = config.genome_config, genome.nodes
    links: dict[int, list[Link]] = {}
    for (source, target), connection in genome.connections.items():
        if connection.enabled:
            links.setdefault(target, []).append((source, connection.weight))

    known: set[tuple[str, str]] = set()

    def gene(key: int) -> _Gene:
        node, into = nodes[key], links.get(key, ())
        functions = activation, aggregation = node.activation, node.aggregation
        if functions not in known:
            _check_builtin(settings.activation_defs, ACTIVATIONS, "activation", activation, key)
            _check_builtin(settings.aggregation_function_defs, AGGREGATIONS, "aggregation", aggregation, key)
            known.add(functions)
        if not into and not _computes_constants():
            raise ValueError(
                f"node {key}: no enabled connection leads to it; neat-python before 1.1 does not compute such nodes"
            )
        return _Gene(activation, aggregation, node.bias, node.response, into)

    return settings.input_keys, settings.output_keys, gene, nodes


@cache
def _computes_constants() -> bool:
    """Whether the installed version of neat-python computes nodes that no connection leads to."""
    from neat.graphs import feed_forward_layers

    return [{0}] in feed_forward_layers([-1], [0], [])


def _check_builtin(defined: Any, known: Mapping[str, Any], kind: str, name: str, key: int) -> None:
    """Refuse functions that are not neat-python's own."""
    function = defined.functions.get(name)
    if name not in known or function is None or function.__module__ != f"neat.{kind}s":
        raise ValueError(
            f"node {key}: the {kind} {name!r} is not one of neat-python's own, which are {', '.join(known)}"
        )


def _read_json(text: str | Mapping[str, Any]) -> tuple[list[int], list[int], Callable[[int], _Gene], Any]:
    """As `_read_genome`, of the JSON of a network."""
    try:
        data = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise ValueError(f"genome: expected a neat.DefaultGenome or the JSON of a network ({error})") from None
    if not isinstance(data, Mapping):
        raise ValueError(f"genome: expected a JSON object, got {shown(data)}")
    kind = _entry(data, "network_type", "the network", str)
    if kind != "feedforward":
        raise ValueError(f"network_type: {kind} networks have a state, which a model does not; expected feedforward")
    topology = _entry(data, "topology", "the network", Mapping)
    inputs, outputs = (
        [whole(name, key, -(2**31)) for key in _entry(topology, name, "topology", list)]
        for name in ("input_keys", "output_keys")
    )
    if not outputs:
        raise ValueError("output_keys: expected at least one, got none")
    for name, keys in (("input_keys", inputs), ("output_keys", outputs)):
        if len(set(keys)) < len(keys):
            raise ValueError(f"{name}: expected distinct keys, got {shown(keys)}")
    links: dict[int, list[Link]] = {}
    for i, connection in enumerate(_entry(data, "connections", "the network", list)):
        here = f"connection {i}"
        source, target = (_entry(connection, end, here, int) for end in ("from", "to"))
        into = links.setdefault(target, [])
        if any(source == other for other, _ in into):
            raise ValueError(f"{here}: there are two connections from node {source} to node {target}")
        enabled = connection.get("enabled", True)
        if not isinstance(enabled, bool):
            raise ValueError(f"{here}: enabled: expected true or false, got {shown(enabled)}")
        if enabled:
            into.append((source, number(f"{here}: weight", connection.get("weight"))))
    nodes: dict[int, Any] = {}
    for i, node in enumerate(_entry(data, "nodes", "the network", list)):
        key = _entry(node, "id", f"nodes: element {i}", int)
        if key in nodes:
            raise ValueError(f"nodes: element {i}: there are two nodes with the id {key}")
        nodes[key] = node

    def gene(key: int) -> _Gene:
        node, here = nodes[key], f"node {key}"
        names: list[str] = []
        for what, known, default in (("activation", ACTIVATIONS, "identity"), ("aggregation", AGGREGATIONS, "sum")):
            function = node.get(what, {"name": default})
            name = _entry(function, "name", f"{here}: {what}", str)
            if function.get("custom"):
                raise ValueError(f"{here}: the {what} {name!r} is not one of neat-python's own")
            names.append(one_of(f"{here}: {what}", name, tuple(known)))
        bias, response = (
            number(f"{here}: {what}", node.get(what, default)) for what, default in (("bias", 0.0), ("response", 1.0))
        )
        return _Gene(names[0], names[1], bias, response, links.get(key, ()))

    return inputs, outputs, gene, nodes


def _entry(data: Any, name: str, where: str, kind: type) -> Any:
    """An entry of a JSON object, after a check of its type."""
    value = data.get(name) if isinstance(data, Mapping) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}: expected an object with {name!r} ({kind.__name__.lower()}), got {shown(value)}")
    return value


def _plan(inputs: list[int], outputs: list[int], gene: Callable[[int], _Gene], nodes: Iterable[int]) -> _Plan:
    """The graph of the nodes that the outputs need; a ValueError if float32 cannot hold a number of theirs."""
    genes = _sorted(inputs, outputs, gene, nodes)
    draft = Draft(len(inputs))
    made = {key: i for i, key in enumerate(inputs)}
    for key, of_key in genes.items():
        made[key] = _add(draft, of_key, made)
    draft.names = {node: str(key) for key, node in made.items()}
    place = draft.overflow()
    if place is not None:
        where, given, factor = next(islice(_places(genes), place, None))
        got = draft.parameters()[place]
        product = "" if got == given or given != given else f", which is {given!r} times {factor}"
        raise ValueError(f"{where}: expected a number that float32 can hold, got {got!r}{product}")
    return _Plan(genes, draft, [made[key] for key in outputs])


def _places(genes: Mapping[int, _Gene]) -> Iterator[tuple[str, float, str]]:
    """Of each parameter of the graph: what it is in the genome, its number there, and what multiplies that."""
    for key, gene in genes.items():
        factor = f"the {ACTIVATIONS[gene.activation].scale:.3g} of {gene.activation}"
        of_sum = f"the response {gene.response!r} and {factor}{f', divided by {n}' if (n := gene.divisor) > 1 else ''}"
        for source, weight in gene.links:
            yield f"node {key}: connection from node {source}: weight", weight, of_sum
        if not gene.divisor:
            yield f"node {key}: response", gene.response, factor
    for key, gene in genes.items():
        yield f"node {key}: bias", gene.bias, f"the {ACTIVATIONS[gene.activation].scale:.3g} of {gene.activation}"


def _check_outputs(plan: _Plan, loss: str | None) -> None:
    """Refuse outputs that are probabilities where the loss makes them."""
    for node in plan.outputs if loss == "binary_cross_entropy" else ():
        if plan.draft.codes[node] == NEURON + OPS["sigmoid"].code:
            raise ValueError(
                f"node {plan.draft.names[node]}: expected a logit, because {loss} computes the sigmoid itself, got a "
                "sigmoid; give output nodes the activation identity, or keep sigmoid out of activation_options"
            )


def _sorted(
    inputs: list[int], outputs: list[int], gene: Callable[[int], _Gene], nodes: Iterable[int]
) -> dict[int, _Gene]:
    """The nodes that the outputs need, sources first."""
    done: dict[int, _Gene] = {}
    path: dict[int, _Gene] = {}  # from an output to the node whose sources come next
    known, below = set(inputs), [*reversed(outputs)]  # inputs, and what is done
    while below:
        key = below[-1]
        if key in path:  # its sources are done
            done[key] = path.pop(key)
            known.add(key)
        if key in known:
            below.pop()
            continue
        if key not in nodes:
            raise ValueError(f"node {key}: a connection or output refers to it, but there is no such node")
        path[key] = of_key = gene(key)
        for source, _ in of_key.links:
            if source in known:
                continue
            if source in path:
                ring = list(map(str, path))[[*path].index(source) :]
                raise CycleError(
                    f"the connections form {cycle_text('node', ring)}; recurrent networks have a state, which a model "
                    "does not"
                )
            below.append(source)
    return done


class _Template(NamedTuple):
    """Operations on some nodes, numbered from 0: for each a code with its arguments, or the value of a constant."""

    steps: list[tuple[int, Sequence[int]] | float]
    n: int
    root: int


@cache
def _template(table: str, name: str, n: int) -> _Template:
    """The operations that a row of `ACTIVATIONS` or `AGGREGATIONS` makes of n nodes."""
    g = Graph(seed=0)
    made = ACTIVATIONS[name].applied if table == "activation" else AGGREGATIONS[name]
    assert made is not None
    root = made(*g.add_inputs(n)).id
    needed = [i for i in range(n, len(g)) if g.alive_for(frozenset([root]))[i]]  # not all of a median's are
    number = {node: i for i, node in enumerate([*range(n), *needed])}
    steps: list[tuple[int, Sequence[int]] | float] = []
    for i in needed:
        code, _ = g.code_and_record(i)
        arguments = [number[source] for source in g.sources_of(i).tolist()]
        steps.append(g[i].value if code == CONSTANT else (code, arguments))
    return _Template(steps, n, number[root])


def _add(draft: Draft, gene: _Gene, made: Mapping[int, int]) -> int:
    """Add a node of NEAT to a draft; returns the id of its value."""
    scale, neuron, applied = ACTIVATIONS[gene.activation]
    divisor, links = gene.divisor, gene.links
    if divisor:
        sources = [made[source] for source, _ in links]
        factor = scale * gene.response / divisor
        weights = [factor * weight for _, weight in links]
    else:
        terms = [draft.neuron(0, [made[source]], [weight], None) for source, weight in links]
        if terms:
            sources = [_apply(draft, _template("aggregation", gene.aggregation, len(terms)), terms)]
        else:
            sources = [draft.constant(OF_NOTHING.get(gene.aggregation, 0.0))]
        weights = [scale * gene.response]
    node = draft.neuron(OPS[neuron].code, sources, weights, scale * gene.bias)
    return node if applied is None else _apply(draft, _template("activation", gene.activation, 1), [node])


def _apply(draft: Draft, template: _Template, nodes: Sequence[int]) -> int:
    """Add the operations of a template to a draft."""
    made = list(nodes)
    for step in template.steps:
        if isinstance(step, float):
            made.append(draft.constant(step))
        else:
            made.append(draft.operation(step[0], [made[i] for i in step[1]]))
    return made[template.root]


# --- writing --------------------------------------------------------------------------------------


def _has_structure(graph: Graph, draft: Draft) -> bool:
    """Whether the first nodes of a graph are those of a draft, and no others have parameters."""
    n = len(draft.codes)
    codes, topology = graph.codes[:n], graph.topology()
    if codes.tolist() != draft.codes or topology.counts[:n].tolist() != draft.counts:
        return False
    has_bias = bias_places(graph, np.flatnonzero(codes >= NEURON)) >= 0
    is_same = topology.sources_of(np.arange(n)).tolist() == draft.pool and has_bias.tolist() == draft.has_bias
    return is_same and graph.n_parameters == len(draft.parameters())


def _updates(
    genome: neat.DefaultGenome,
    key: int,
    gene: _Gene,
    weights: Iterator[tuple[bool, Any]],
    biases: Iterator[tuple[bool, Any]],
) -> Iterator[tuple[Any, str, float]]:
    """What training has changed of one node: genes, attributes and values; the iterators give that and new numbers."""
    node, scale = genome.nodes[key], ACTIVATIONS[gene.activation].scale
    divisor, response = gene.divisor, gene.response
    new = [next(weights) for _ in gene.links]
    if divisor and response == 0 and any(changed for changed, _ in new):
        response = 1.0
        yield node, "response", response

    def divided(what: str, value: Any, factor: float) -> float:
        found = float(value) / factor if factor else math.inf
        if abs(found) <= FLOAT32_MAX:
            return found
        why = f"the response is {response!r}; set it to 1 before from_neat"
        why = why if math.isfinite(value) else f"that of the model is {value}"
        raise ValueError(
            f"update_genome: node {key}: {what} would be {found:.3g}, which is no finite number of float32: {why}"
        )

    factor = scale * response / divisor if divisor else 1.0
    for (source, _), (changed, value) in zip(gene.links, new, strict=True):
        if changed:
            weight = divided(f"connection from node {source}: weight", value, factor)
            yield genome.connections[source, key], "weight", weight
    if not divisor:
        changed, value = next(weights)
        if changed:
            yield node, "response", divided("response", value, scale)
    changed, value = next(biases)
    if changed:
        yield node, "bias", divided("bias", value, scale)


class _Reader:
    """The nodes of a graph as nodes of NEAT, whose links name sources by id."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.codes, self.is_live = graph, graph.codes.tolist(), graph.live()

    def gene(self, node: int) -> _Gene:
        """A node of the graph, with those before it that belong to the same node of NEAT."""
        if self.codes[node] in (CONSTANT, PARAMETER):
            return _Gene("identity", "sum", self.graph[node].value, 1.0, [])
        activation, inner = self._activation(node)
        aggregation, bias, response, links = self._weighted(inner, is_own=inner == node)
        scale = ACTIVATIONS[activation].scale
        if aggregation == "sum":
            links = [(source, weight / scale) for source, weight in links]
        else:
            response /= scale
        return _Gene(activation, aggregation, bias / scale, response, links)

    def _activation(self, node: int) -> tuple[str, int]:
        """The activation of a node, and the node that it is applied to."""
        found = self.graph[node]
        if isinstance(found, Neuron):
            if not self.is_live[node]:
                return "identity", node
            if found.activation in OF_NEURONS:
                return OF_NEURONS[found.activation], node
            kind = f"{found.activation} neuron"
        else:
            kind = found.kind
            for name, activation in ACTIVATIONS.items():
                if activation.applied is not None:
                    inner = self._match(_template("activation", name, 1), node)
                    if inner is not None:
                        return name, inner[0]
            if kind in OF_NEURONS:
                return OF_NEURONS[kind], found.sources[0].id
            if self._aggregation(node) is not None:
                return "identity", node
        raise ValueError(f"to_neat: {described(self.graph, node)}: neat-python has no function for a {kind}")

    def _weighted(self, node: int, is_own: bool) -> tuple[str, float, float, list[Link]]:
        """Aggregation, bias, response and links of a node before its activation."""
        found = self.graph[node]
        if isinstance(found, Neuron) and (is_own or found.activation == "identity"):
            if not self.is_live[node]:
                return "sum", 0.0, 1.0, []
            links = self._links(found)
            terms = self._aggregation(links[0][0]) if len(links) == 1 else None
            bias = found.bias or 0.0
            if terms is not None:
                return terms[0], bias, links[0][1], terms[1]
            fixed = [(source, weight) for source, weight in links if self.codes[source] == CONSTANT]
            bias += sum(weight * self.graph[source].value for source, weight in fixed)
            return "sum", bias, 1.0, [link for link in links if link not in fixed]
        aggregation, links = self._aggregation(node) or ("sum", [(node, 1.0)])
        return aggregation, 0.0, 1.0, links

    def _links(self, neuron: Neuron) -> list[Link]:
        return list(zip(self.graph.sources_of(neuron.id).tolist(), neuron.weights.tolist(), strict=True))

    def _aggregation(self, node: int) -> tuple[str, list[Link]] | None:
        """The aggregation that an operation is, and its links; None if it is none."""
        if not is_operation(self.codes[node]):
            return None
        leaves, below, seen = set(), [node], {node}
        while below:
            for source in self.graph.sources_of(below.pop()).tolist():
                if is_operation(self.codes[source]) and source not in seen:
                    seen.add(source)
                    below.append(source)
                elif not is_operation(self.codes[source]) and self.codes[source] != CONSTANT:
                    leaves.add(source)
        for name, made in AGGREGATIONS.items():
            if made is not None and len(leaves) > (2 if name == "median" else 1):
                terms = self._match(_template("aggregation", name, len(leaves)), node)
                if terms is not None and set(terms) == leaves:
                    return name, self._terms(terms)
        return None

    def _terms(self, terms: list[int]) -> list[Link]:
        """Links to some nodes; neurons that only multiply by a weight are links themselves."""
        found = []
        for term in terms:
            neuron = self.graph[term]
            links: list[Link] = []
            if isinstance(neuron, Neuron) and neuron.activation == "identity" and neuron.bias is None:
                links = self._links(neuron)
            found.append(links[0] if len(links) == 1 and self.codes[links[0][0]] != CONSTANT else (term, 1.0))
        return found if len({source for source, _ in found}) == len(found) else [(term, 1.0) for term in terms]

    def _match(self, template: _Template, node: int) -> list[int] | None:
        """The nodes that a template was applied to, if `node` is its result."""
        found: dict[int, int] = {}
        pairs = [(template.root, node)]
        while pairs:
            place, at = pairs.pop()
            if found.setdefault(place, at) != at:
                return None
            if place < template.n:
                continue
            step = template.steps[place - template.n]
            if isinstance(step, float):
                if self.codes[at] != CONSTANT or self.graph[at].value != step:
                    return None
                continue
            code, arguments = step
            sources = self.graph.sources_of(at).tolist()
            if self.codes[at] != code or len(sources) != len(arguments):
                return None
            pairs += zip(arguments, sources, strict=True)
        return [found[i] for i in range(template.n)]


def _network(model: Model, metadata: dict[str, Any]) -> dict[str, Any]:
    """A model as JSON."""
    graph, outputs = model.graph, model.output_ids
    inputs, columns = [-1 - i for i in range(graph.n_inputs)], list(graph.input_ids)
    found = _sorted(columns, outputs, _Reader(graph).gene, range(len(graph)))
    keys = dict(zip(columns, inputs, strict=True))
    for i, node in enumerate(outputs):
        keys.setdefault(node, i)
    taken = set(range(len(outputs)))
    for node in found:
        name = graph.names.get(node, "")
        if node not in keys and re.fullmatch("0|[1-9][0-9]{0,8}", name) and int(name) not in taken:
            keys[node] = int(name)
            taken.add(int(name))
    fresh = count(max(taken) + 1)
    genes: dict[int, _Gene] = {}
    scaling = model.scaling
    if scaling == "bytes":
        scaling = Standardization(np.zeros(len(inputs)), np.full(len(inputs), 255.0))
    if isinstance(scaling, tuple):
        mean, std = scaling
        for node, key, m, s in zip(columns, inputs, mean.tolist(), std.tolist(), strict=False):
            keys[node] = next(fresh)
            genes[keys[node]] = _Gene("identity", "sum", -m / s, 1.0, [(key, 1 / s)])
    for node, gene in found.items():
        key = keys[node] if node in keys else keys.setdefault(node, next(fresh))
        genes[key] = gene._replace(links=[(keys[source], weight) for source, weight in gene.links])
    for i, node in enumerate(outputs):
        if keys[node] != i:  # an input, or a node that is several outputs
            genes[i] = _Gene("identity", "sum", 0.0, 1.0, [(keys[node], 1.0)])
    nodes = [_node(key, "output" if key < len(outputs) else "hidden", gene) for key, gene in genes.items()]
    nodes += [_node(key, "input", _Gene("identity", "none", 0.0, 1.0, ())) for key in inputs]
    connections = [
        {"from": source, "to": key, "weight": weight, "enabled": True}
        for key, gene in genes.items()
        for source, weight in gene.links
    ]
    topology = {
        "num_inputs": len(inputs),
        "num_outputs": len(outputs),
        "input_keys": inputs,
        "output_keys": list(range(len(outputs))),
    }
    return {
        "format_version": "1.0",
        "network_type": "feedforward",
        "metadata": metadata,
        "topology": topology,
        "nodes": nodes,
        "connections": connections,
    }


def _node(key: int, kind: str, gene: _Gene) -> dict[str, Any]:
    return {
        "id": key,
        "type": kind,
        "activation": {"name": gene.activation, "custom": False},
        "aggregation": {"name": gene.aggregation, "custom": False},
        "bias": gene.bias,
        "response": gene.response,
    }
