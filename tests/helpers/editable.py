"""A small network to edit, data for it, and all that an edit may change."""

import contextlib

import numpy as np

import mlgraph
from mlgraph.graph import arrays

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (70, 12), np.uint8)
Y = RNG.integers(0, 3, 70)


def network(seed=0, hidden=(20, 9), classes=3):
    net = mlgraph.Network(12, seed=seed)
    for size in hidden:
        net.add_layer(size, "leaky_relu")
    net.add_layer(classes, "softmax")
    for layer in net.layers:
        for k, neuron in enumerate(layer.neurons):
            neuron.bias = 0.1 * k + 0.05
    return net


def everything(graph):
    """All that tells one graph from another: of each node what it is and reads, each weight, bias and state of it."""

    def of(vector, node):
        record = graph._data[node.id]
        at, stride, bias = graph.storage.weights[record], graph.storage.stride[record], graph.storage.bias[record]
        values = vector[at : at + graph._count[node.id] * stride : stride].tolist()
        return values, None if bias < 0 else float(vector[bias])

    vectors = {
        "": graph.parameters,
        **{name: graph.storage.state_vector(name, fresh=False) for name in graph.storage.state},
    }
    return [
        (
            node.id,
            getattr(node, "activation", node.kind),
            node.name,
            graph.sources_of(node.id).tolist(),
            {name: of(vector, node) for name, vector in vectors.items()} if isinstance(node, mlgraph.Neuron) else None,
        )
        for node in graph
    ]


def held(graph):
    """All data of a graph and their places: unlike `everything`, it changes when parameters are moved."""
    columns = [
        list(getattr(graph, name)) for name in ("_code", "_start", "_count", "_data", "_pool", "constants", "input_ids")
    ]
    records = [list(column) for column in graph.storage.columns]
    vectors = {name: vector.tobytes() for name, vector in {"": graph.parameters, **graph.storage.state}.items()}
    return [*columns, dict(graph.names), *records, vectors, graph.edits, graph.storage.moves]


def several(net, within=False):
    """One edit, of all kinds."""
    g, neurons = net.graph, net.layers[1].neurons
    with g.one_edit():
        x = g.add_input("more")
        new = g.add_neuron([g[0], x, g.add_constant(2.0)], "relu", weights=[1, 2, 3])
        g.add_neurons([new, x, g.add_parameter(0.5) * new], weights=np.ones((3, 3)), biases=np.ones(3))
        neurons[2].in_edges[0].prune()
        with g.one_edit() if within else contextlib.nullcontext():
            edge = neurons[2].in_edges[0]
            source, target = edge.source, edge.target
            edge.prune()
            net.forward(np.zeros((1, g.n_inputs)))
            g.add_edge(source, target, 7.0)
        g.add_edge(new, neurons[2], 0.5)
        neurons[1].prune()
        net.prune(0.3)
        new.weights = [3, 4, 5]
        neurons[3].bias = None
        neurons[4].bias = new.bias = None
        neurons[4].bias = 2.0


def pairs(graph):
    edges = arrays.wiring(graph)
    return set(zip(edges.source.tolist(), edges.target.tolist(), strict=True))
