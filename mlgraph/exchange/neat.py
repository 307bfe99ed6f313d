"""neat-python: genomes, and the JSON of networks that neat-python 2 writes, as models.

A node of NEAT computes ``activation(bias + response * aggregation(weight * source, ...))``. It becomes one
neuron if it sums, or takes the mean of, its terms and has an activation of neurons; other functions are
operations, as the two tables here define them. Factors move into the weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, reduce
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlgraph._support.checks import FLOAT32_MAX, number, one_of, shown, whole
from mlgraph._support.installation import install_command
from mlgraph.graph import functions as f
from mlgraph.graph.arrays import bias_places
from mlgraph.graph.draft import Draft
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import CONSTANT, NEURON, OPS
from mlgraph.graph.topology import CycleError, cycle_text
from mlgraph.graph.views import Node
from mlgraph.models.model import Model

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


class Gene(NamedTuple):
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

    genes: dict[int, Gene]
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
    before = plan.draft.vector
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


# --- reading --------------------------------------------------------------------------------------


def _read_genome(genome: Any, config: Any, what: str) -> tuple[list[int], list[int], Callable[[int], Gene], Any]:
    """The keys of inputs and outputs, a function that gives the node of a key, and the keys of nodes."""
    try:
        import neat
    except ImportError as error:
        command = install_command("neat-python", extra="exchange")
        raise ImportError(f"{what} needs neat-python ({error}): {command}") from None
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

    def gene(key: int) -> Gene:
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
        return Gene(activation, aggregation, node.bias, node.response, into)

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


def _read_json(text: str | Mapping[str, Any]) -> tuple[list[int], list[int], Callable[[int], Gene], Any]:
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

    def gene(key: int) -> Gene:
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
        return Gene(names[0], names[1], bias, response, links.get(key, ()))

    return inputs, outputs, gene, nodes


def _entry(data: Any, name: str, where: str, kind: type) -> Any:
    """An entry of a JSON object, after a check of its type."""
    value = data.get(name) if isinstance(data, Mapping) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}: expected an object with {name!r} ({kind.__name__.lower()}), got {shown(value)}")
    return value


def _plan(inputs: list[int], outputs: list[int], gene: Callable[[int], Gene], nodes: Iterable[int]) -> _Plan:
    """The graph of the nodes that the outputs need; a ValueError if float32 cannot hold a number of theirs."""
    genes = sorted_genes(inputs, outputs, gene, nodes)
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


def _places(genes: Mapping[int, Gene]) -> Iterator[tuple[str, float, str]]:
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


def sorted_genes(
    inputs: list[int], outputs: list[int], gene: Callable[[int], Gene], nodes: Iterable[int]
) -> dict[int, Gene]:
    """The nodes that the outputs need, sources first."""
    done: dict[int, Gene] = {}
    path: dict[int, Gene] = {}  # from an output to the node whose sources come next
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


class Template(NamedTuple):
    """Operations on some nodes, numbered from 0: for each a code with its arguments, or the value of a constant."""

    steps: list[tuple[int, Sequence[int]] | float]
    n: int
    root: int


@cache
def template_of(table: str, name: str, n: int) -> Template:
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
    return Template(steps, n, number[root])


def _add(draft: Draft, gene: Gene, made: Mapping[int, int]) -> int:
    """Add a node of NEAT to a draft; returns the id of its value."""
    activation, aggregation, bias, response, links = gene
    scale, neuron, applied = ACTIVATIONS[activation]
    divisor = gene.divisor
    if divisor:
        sources, weights, factor = [], [], scale * response / divisor
        for source, weight in links:
            sources.append(made[source])
            weights.append(factor * weight)
    else:
        terms = [draft.neuron(0, [made[source]], [weight], None) for source, weight in links]
        if terms:
            sources = [_apply(draft, template_of("aggregation", aggregation, len(terms)), terms)]
        else:
            sources = [draft.constant(OF_NOTHING.get(aggregation, 0.0))]
        weights = [scale * response]
    node = draft.neuron(OPS[neuron].code, sources, weights, scale * bias)
    return node if applied is None else _apply(draft, template_of("activation", activation, 1), [node])


def _apply(draft: Draft, template: Template, nodes: Sequence[int]) -> int:
    """Add the operations of a template to a draft."""
    made = list(nodes)
    for step in template.steps:
        if isinstance(step, float):
            made.append(draft.constant(step))
        else:
            made.append(draft.operation(step[0], [made[i] for i in step[1]]))
    return made[template.root]


# --- updating -------------------------------------------------------------------------------------


def _has_structure(graph: Graph, draft: Draft) -> bool:
    """Whether the first nodes of a graph are those of a draft, and no others have parameters."""
    n = len(draft.codes)
    codes, topology = graph.codes[:n], graph.topology()
    if codes.tolist() != draft.codes or topology.counts[:n].tolist() != draft.counts:
        return False
    has_bias = bias_places(graph, np.flatnonzero(codes >= NEURON)) >= 0
    is_same = topology.sources_of(np.arange(n)).tolist() == draft.pool
    is_same = is_same and has_bias.tolist() == [bias is not None for bias in draft.biases]
    return is_same and graph.n_parameters == len(draft.parameters())


def _updates(
    genome: neat.DefaultGenome,
    key: int,
    gene: Gene,
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
