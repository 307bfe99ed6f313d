"""Graphs to be planned, and what plans of them show."""

import hypothesis.strategies as st
import numpy as np

import mlgraph
from mlgraph.compiler.instructions import KINDS
from mlgraph.compiler.plan import Plan

X = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


def plan_of(*nodes):
    return Plan(nodes[0].graph, [node.id for node in nodes])


def kinds(plan):
    names = {code: name for name, code in KINDS.items()}
    return [(names[ins.kind], ins.size) for ins in plan.instructions]


def neurons(g, sources, n, seed=0, **options):
    """Neurons made one by one, all with the same sources."""
    rng = np.random.default_rng(seed)
    return [
        g.add_neuron(sources, weights=rng.normal(size=len(sources)), bias=rng.normal(), **options) for _ in range(n)
    ]


def parameters_of(nodes):
    return [[*node.weights.tolist(), node.bias] for node in nodes]


def affine(nodes, x):
    return np.array([x @ node.weights + node.bias for node in nodes]).T


@st.composite
def graphs(draw):
    """Nodes that read earlier ones, some more than once, neurons that share lists; and a few of them as outputs."""
    g = mlgraph.Graph(seed=0)
    nodes = [*g.add_inputs(3), g.add_constant(1.5), g.add_parameter(0.5)]
    below = st.integers(0, 10**6).map(lambda i: nodes[i % len(nodes)])
    for kind in draw(st.lists(st.sampled_from(["neg", "sub", "sum", "neuron", "block"]), max_size=25)):
        if kind == "neg":
            nodes.append(-draw(below))
        elif kind == "sub":
            nodes.append(draw(below) - draw(below))
        elif kind == "sum":
            nodes.append(mlgraph.sum(*draw(st.lists(below, min_size=1, max_size=5))))
        else:
            sources = draw(st.lists(below, min_size=1, max_size=5, unique_by=lambda node: node.id))
            n = 1 if kind == "neuron" else draw(st.integers(1, 20))
            weights = np.arange(n * len(sources)).reshape(n, -1) + 100 * len(nodes)
            biases = np.arange(n) + 0.5 if draw(st.booleans()) else None
            activation = draw(st.sampled_from(["identity", "tanh"]))
            ids = g.add_neurons(np.array([s.id for s in sources]), activation, weights=weights, biases=biases)
            nodes += [g[i] for i in ids]
    return g, draw(st.lists(below, min_size=1, max_size=3))
