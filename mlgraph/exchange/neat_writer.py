"""Models as the JSON of networks that neat-python 2 writes: the inverse of `mlgraph.exchange.neat`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np

from mlgraph.exchange.neat import ACTIVATIONS, AGGREGATIONS, Gene, Link, Template, sorted_genes, template_of
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import CONSTANT, PARAMETER, is_operation
from mlgraph.graph.views import Neuron, described
from mlgraph.models.model import Model
from mlgraph.models.scaling import Standardization

OF_NEURONS = {row.neuron: name for name, row in ACTIVATIONS.items() if row.applied is None}
"""The activation of NEAT for each of those of neurons that it has."""


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


class _Genes:
    """The nodes of a graph as nodes of NEAT, whose links name sources by id."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.codes, self.is_live = graph, graph.codes.tolist(), graph.live()

    def gene(self, node: int) -> Gene:
        """A node of the graph, with those before it that belong to the same node of NEAT."""
        if self.codes[node] in (CONSTANT, PARAMETER):
            return Gene("identity", "sum", self.graph[node].value, 1.0, [])
        activation, inner = self._activation(node)
        aggregation, bias, response, links = self._weighted(inner, is_own=inner == node)
        scale = ACTIVATIONS[activation].scale
        if aggregation == "sum":
            links = [(source, weight / scale) for source, weight in links]
        else:
            response /= scale
        return Gene(activation, aggregation, bias / scale, response, links)

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
                    inner = self._match(template_of("activation", name, 1), node)
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
                terms = self._match(template_of("aggregation", name, len(leaves)), node)
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

    def _match(self, template: Template, node: int) -> list[int] | None:
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
    found = sorted_genes(columns, outputs, _Genes(graph).gene, range(len(graph)))
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
    genes: dict[int, Gene] = {}
    scaling = model.scaling
    if scaling == "bytes":
        scaling = Standardization(np.zeros(len(inputs)), np.full(len(inputs), 255.0))
    if isinstance(scaling, tuple):
        mean, std = scaling
        for node, key, m, s in zip(columns, inputs, mean.tolist(), std.tolist(), strict=False):
            keys[node] = next(fresh)
            genes[keys[node]] = Gene("identity", "sum", -m / s, 1.0, [(key, 1 / s)])
    for node, gene in found.items():
        key = keys[node] if node in keys else keys.setdefault(node, next(fresh))
        genes[key] = gene._replace(links=[(keys[source], weight) for source, weight in gene.links])
    for i, node in enumerate(outputs):
        if keys[node] != i:  # an input, or a node that is several outputs
            genes[i] = Gene("identity", "sum", 0.0, 1.0, [(keys[node], 1.0)])
    nodes = [_node(key, "output" if key < len(outputs) else "hidden", gene) for key, gene in genes.items()]
    nodes += [_node(key, "input", Gene("identity", "none", 0.0, 1.0, ())) for key in inputs]
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


def _node(key: int, kind: str, gene: Gene) -> dict[str, Any]:
    return {
        "id": key,
        "type": kind,
        "activation": {"name": gene.activation, "custom": False},
        "aggregation": {"name": gene.aggregation, "custom": False},
        "bias": gene.bias,
        "response": gene.response,
    }
