"""The plan of a graph, and with it the bits of every result, stays what it was.

After a change of plans on purpose, run this file as a program: it prints the new digests.
"""

import random
from hashlib import sha256

import numpy as np
import pytest

import mlgraph
import mlgraph_ext
from mlgraph.compiler.plan import Plan
from mlgraph.graph import ops

DIGESTS = {
    "rows": {True: "69a88c3a41585189", False: "69a88c3a41585189"},
    "alike": {True: "789456f0b8bf5cbb", False: "a02532acbf2073a9"},
    "blocks": {True: "d3904f3947f0815a", False: "d8a83b1b51f02367"},
    "layers": {True: "5815197b24399257", False: "7ef3841a35aec80d"},
    "expressions": {True: "e37c4ac430d855f1", False: "e37c4ac430d855f1"},
    "written out": {True: "4750b5beed40d69b", False: "4750b5beed40d69b"},
    "mixed": {True: "27cd42a7903a0590", False: "4776f0a13af6190e"},
    "derivatives": {True: "a6e6a39cb9878769", False: "a6e6a39cb9878769"},
}
"""By the kind of graphs, and by whether this build sweeps neurons in quads."""

KINDS = {
    "rows": ["neuron"],
    "alike": ["neuron", "alike", "alike"],
    "blocks": ["block", "neuron"],
    "layers": ["layer"],
    "expressions": ["operation", "operation", "parameter", "constant"],
    "written out": ["sum of products", "sum of products", "neuron", "operation"],
    "mixed": ["neuron", "alike", "block", "operation", "parameter", "constant", "sum of products"],
    "derivatives": ["neuron", "operation", "derivative"],
}
ACTIVATIONS = ["identity", "relu", "tanh", "sigmoid", "gelu"]
ATTRIBUTES = [
    *("program", "index", "constants", "slot", "node", "input_column", "n_columns", "read_slots", "first_zeroed"),
    *("reads_directly", "dense_read_data", "rows_read_data", "n_masked", "n_extra", "n_edges", "work", "edge_scale"),
]


def random_graph(rng, kinds):
    """A graph, its nodes, and a function that picks one of these."""
    g = mlgraph.Graph(seed=0)
    nodes, layer, reach = [*g.add_inputs(rng.choice([1, 3, 20]))], None, rng.choice([3, 10, 1000])

    def pick():
        return nodes[-1 - rng.randrange(min(reach, len(nodes)))]

    def some(most):
        return [*{node.id: node for node in (pick() for _ in range(rng.randint(1, most)))}.values()]

    def neurons(sources, n):
        biases = rng.choice([None, 0.0])
        return [g[i] for i in g.add_neurons(sources, rng.choice(ACTIVATIONS), n=n, biases=biases)]

    for _ in range(rng.choice([1, 3, 10, 40]) if kinds != ["layer"] else rng.randint(1, 4)):
        kind = rng.choice(kinds)
        if kind == "neuron":
            nodes.append(g.add_neuron(some(9), rng.choice(ACTIVATIONS), bias=rng.choice([None, 0.0])))
        elif kind == "alike":
            sources, activation = some(6), rng.choice(ACTIVATIONS)
            nodes += [g.add_neuron(sources, activation) for _ in range(rng.choice([2, 4, 9]))]
        elif kind == "block":
            nodes += neurons(some(9), rng.choice([7, 8, 17, 40]))
        elif kind == "layer":
            layer = neurons(layer or nodes[:], rng.choice([4, 16, 40]))
            nodes += layer
        elif kind == "parameter":
            nodes.append(g.add_parameter(0.5))
        elif kind == "constant":
            nodes.append(g.add_constant(rng.choice([0.0, -0.0, 2.5])))
        elif kind == "sum of products":
            terms = [g.add_parameter(1.0) * pick() for _ in range(rng.randint(1, 4))]
            total = mlgraph.sum(*terms, *([g.add_parameter(1.0)] if rng.random() < 0.5 else []))
            nodes.append(rng.choice([mlgraph.tanh, mlgraph.relu, mlgraph.exp, mlgraph.sin])(total))
        elif kind == "operation":
            op = rng.choice(ops.BY_CODE)
            nodes.append(g.add_operation(op.name, *(pick() for _ in range(op.arity if op.arity > 0 else 3))))
        elif any(node.kind == "neuron" for node in nodes):
            neuron = rng.choice([node for node in nodes if node.kind == "neuron"])
            made = attempt(mlgraph.grad, pick(), [neuron.sources[0], neuron.in_edges[0]])
            nodes += made if isinstance(made, list) else []
    return g, nodes, pick


def digest(kind):
    """Digest of the plans of random graphs of a kind, each before and after some edits."""
    digest, rng = sha256(), random.Random(kind)
    for _ in range(25):
        g, nodes, pick = random_graph(rng, KINDS[kind])
        neurons = [node for node in nodes if node.kind == "neuron"]
        for _ in range(rng.choice([1, 3])):
            g.set_parameters(np.arange(g.n_parameters))
            options, ids = {"want_inputs": rng.random() < 0.5, "split": rng.random() < 0.2}, [n.id for n in neurons]
            if rng.random() < 0.2:
                options["wanted"] = np.array([pick().id])
            if rng.random() < 0.2:
                options["given"] = np.array(list({*g.input_ids, pick().id}), np.int32)
            if rng.random() < 0.2:
                options["dropout"] = [(ids[::2], 0.5, rng.choice([0, 0.3])), (ids[1::4], 0.0, 0.5)]
            outputs = [pick().id for _ in range(rng.randint(0, 3))] + [nodes[-1].id]
            if rng.random() < 0.2:
                options["loss"] = outputs[:1]
            plan = attempt(Plan, g, outputs, **options)
            parts = [getattr(plan, name) for name in ATTRIBUTES] if isinstance(plan, Plan) else [plan]
            for part in [*parts, *g.storage.places, g.storage.vector[: g.storage.used], g.storage.moves]:
                digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
            for _ in range(rng.randint(0, 4) if neurons else 0):
                target = rng.choice(neurons)
                if rng.random() < 0.6:
                    attempt(g.prune, [(source, target) for source in target.sources if rng.random() < 0.3])
                else:
                    attempt(g.add_edge, pick(), target)
    return digest.hexdigest()[:16]


def attempt(function, *args, **kwargs):
    """The result, or the error."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        return error


def has_quads():
    found = np.zeros(3, np.uint8)
    mlgraph_ext.sweep.find_quads(np.array([3, 2, 1], np.int32), found)
    return bool(found.all())


@pytest.mark.parametrize("kind", KINDS)
def test_plans_are_those_of_earlier_versions(kind):
    assert digest(kind) == DIGESTS[kind][has_quads()]


if __name__ == "__main__":
    print({kind: {has_quads(): digest(kind)} for kind in KINDS})
