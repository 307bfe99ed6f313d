"""Small graphs that change all the time, as in neuroevolution: edit and call, build, compile and call.

`-k edit` times edits and `-k compile` compilation. A round of "edit" is two edits with a call after each, because the
graph must be the same at the beginning of each round.
"""

import random

import numpy as np
import pytest

import mlgraph

SIZES = [10, 30, 100]
N_INPUTS = 4
X = np.linspace(-1, 1, N_INPUTS, dtype=np.float32)[None]


def random_dag(n):
    """`n` neurons with three sources each."""
    rng, g = random.Random(n), mlgraph.Graph(seed=0)
    nodes = [*g.add_inputs(N_INPUTS)]
    for _ in range(n):
        sources = [nodes[i] for i in sorted(rng.sample(range(len(nodes)), 3))]
        nodes.append(g.add_neuron(sources, rng.choice(["tanh", "sigmoid", "relu"])))
    return g, np.array([i for i in range(N_INPUTS, len(g)) if not len(g.targets_of(i))])


def network():
    net = mlgraph.Network(N_INPUTS, seed=0)
    net.add_layer(16, "tanh")
    net.add_layer(3, "identity")
    return net.graph, np.array([node.id for node in net.outputs])


def genome(n_edges=30):
    """A list of (neuron, activation, bias, sources, weights) with `n_edges` edges, as evolution makes them."""
    rng, hidden, outputs = random.Random(n_edges), n_edges // 4, 2
    edges = {(s, N_INPUTS + hidden + o) for s in range(N_INPUTS) for o in range(outputs)}
    edges |= {(rng.randrange(N_INPUTS + h), N_INPUTS + h) for h in range(hidden)}
    while len(edges) < n_edges:
        source = rng.randrange(N_INPUTS + hidden)
        edges.add((source, rng.randrange(max(N_INPUTS, source + 1), N_INPUTS + hidden + outputs)))
    neurons = []
    for target in range(N_INPUTS, N_INPUTS + hidden + outputs):
        sources = sorted(s for s, t in edges if t == target)
        activation = rng.choice(["tanh", "sigmoid", "relu"])
        neurons.append((target, activation, rng.gauss(0, 1), sources, [rng.gauss(0, 1) for _ in sources]))
    return neurons, 2


def built_by_neurons(neurons, n_outputs):
    g = mlgraph.Graph()
    nodes = g.add_inputs(N_INPUTS)
    for _, activation, bias, sources, weights in neurons:
        nodes.append(g.add_neuron([nodes[s] for s in sources], activation, weights=weights, bias=bias))
    return g, nodes[-n_outputs:]


def built_at_once(neurons, n_outputs):
    g = mlgraph.Graph()
    g.add_inputs(N_INPUTS)
    ids, activations, biases, sources, weights = zip(*neurons, strict=True)
    edges = mlgraph.Edges(
        np.array([s for each in sources for s in each]),
        np.repeat(ids, [len(each) for each in sources]),
        np.array([w for each in weights for w in each], np.float32),
    )
    made = g.add_subgraph(mlgraph.Neurons(np.array(ids), np.array(activations), np.array(biases, np.float32)), edges)
    return g, made[-n_outputs:]


GRAPHS = {
    **{f"{n} neurons": lambda n=n: random_dag(n) for n in SIZES},
    "4-16-3": network,
    "genome": lambda: built_by_neurons(*genome()),
}


@pytest.fixture(params=GRAPHS)
def compiled(request):
    g, outputs = GRAPHS[request.param]()
    return g, g.compile(outputs)


def expected(f):
    """The values of a new compilation."""
    return f.graph.compile(np.array(f.output_ids))(X)


def test_edit_edges(benchmark, note, compiled):
    """Cut an edge, call, add it again, call."""
    g, f = compiled
    target = next(node for node in reversed(list(g)) if len(node.sources) > 1)
    source, weight = target.sources[1], float(target.weights[1])

    def edit():
        g.prune([(source, target)])
        f(X)
        g.add_edge(source, target, weight)
        return f(X)

    before = f(X)
    np.testing.assert_allclose(benchmark(edit), before, rtol=1e-5)
    np.testing.assert_array_equal(f(X), expected(f))
    note(rounds_of="two edits, two calls")


def test_edit_weight(benchmark, note, compiled):
    """Assign a weight, call."""
    g, f = compiled
    target = g[len(g) - 1]

    def edit():
        target.weights[0] = 0.25
        return f(X)

    np.testing.assert_array_equal(benchmark(edit), expected(f))
    note()


def test_call_without_edit(benchmark, note, compiled):
    _, f = compiled
    np.testing.assert_array_equal(benchmark(f, X), expected(f))
    note()


@pytest.mark.parametrize("build", [built_by_neurons, built_at_once])
@pytest.mark.parametrize("n_edges", [10, 30, 100])
def test_compile_genome(benchmark, note, n_edges, build):
    """Build a graph, compile it and call the function."""
    neurons, n_outputs = genome(n_edges)

    def run():
        g, outputs = build(neurons, n_outputs)
        return g.compile(outputs)(X)

    values = dict(enumerate(X[0].tolist()))
    for node, activation, bias, sources, weights in neurons:
        z = bias + sum(w * values[s] for s, w in zip(sources, weights, strict=True))
        values[node] = {"tanh": np.tanh(z), "sigmoid": 1 / (1 + np.exp(-z)), "relu": max(z, 0.0)}[activation]
    np.testing.assert_allclose(benchmark(run)[0], [*values.values()][-n_outputs:], rtol=1e-4, atol=1e-6)
    note()


@pytest.mark.parametrize("name", GRAPHS)
def test_compile_again(benchmark, note, name):
    """Compile a graph whose parameters are in their places."""
    g, outputs = GRAPHS[name]()
    np.testing.assert_array_equal(benchmark(g.compile, outputs)(X), g.compile(outputs)(X))
    note()
