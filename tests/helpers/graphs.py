"""Graphs for tests: random ones, one with every way to hold a parameter, and what their nodes say in float64."""

import hypothesis.strategies as st
import numpy as np

import mlgraph
from mlgraph.graph import ops

NAN, INF = np.nan, np.inf
PARAMETERS = ["parameter", "neuron", "neurons"]
WEIGHTS = [0.0, -0.0, 1.0, -1.0, INF, -INF, 1e30, -1e30, 1e-30, 1e-42, 88.0, -104.0]
SPECIAL = [*WEIGHTS, NAN]


class Case:
    """A graph, the nodes that are its outputs, and a batch."""

    def __init__(self, graph, outputs, x):
        self.graph, self.outputs, self.x = graph, outputs, x

    def __repr__(self):
        lines = [f"{node!r} {[s.id for s in node.sources]} {getattr(node, 'activation', '')}" for node in self.graph]
        return f"<{len(self.x)} examples, outputs {[o.id for o in self.outputs]}, nodes:\n  " + "\n  ".join(lines) + ">"


@st.composite
def cases(draw, tame=True):
    """Random graphs: any op, neurons with any sources, shared and dead nodes, any node an output, perhaps twice.

    The arguments of a tame graph stay where its ops are well conditioned, so that a bound is a strong statement.
    Others have arguments of any kind, among them infinities and NaN.
    """
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    g = mlgraph.Graph(seed=0)
    n_inputs = draw(st.integers(1, 5))
    x = rng.normal(size=(draw(st.integers(1, 300) | st.sampled_from([1, 31, 32, 33, 64])), n_inputs)).astype(np.float32)

    def number():
        return float(rng.choice(WEIGHTS)) if not tame and rng.random() < 0.2 else float(np.float32(rng.normal()))

    if not tame:
        at = rng.random(x.shape) < 0.1
        x[at] = rng.choice(SPECIAL, at.sum())
    nodes = g.add_inputs(n_inputs)
    reach = draw(st.sampled_from([2, 5, 100]))  # small: deep graphs; large: wide ones

    def pick():
        return nodes[max(0, len(nodes) - 1 - draw(st.integers(0, min(reach, len(nodes)) - 1)))]

    def some(most):
        return list({node.id: node for node in (pick() for _ in range(draw(st.integers(1, most))))}.values())

    kinds = st.sampled_from([*ops.OPS, *PARAMETERS, *PARAMETERS, "constant"])
    for kind in draw(st.lists(kinds, min_size=draw(st.sampled_from([0, 3, 10, 20])), max_size=30)):
        if kind == "parameter":
            new = [g.add_parameter(number())]
        elif kind == "constant":
            new = [g.add_constant(draw(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0])) if tame else number())]
        elif kind == "neuron":
            sources = some(9)
            weights = [number() / len(sources) ** 0.5 for _ in sources]
            bias = draw(st.sampled_from([None, number()]))
            new = [g.add_neuron(sources, draw(st.sampled_from(ops.ACTIVATIONS)), weights=weights, bias=bias)]
        elif kind == "neurons":
            sources, n = some(5), draw(st.sampled_from([1, 7, 8, 16, 17, 33]))
            weights = [[number() / len(sources) ** 0.5 for _ in sources] for _ in range(n)]
            biases = draw(st.sampled_from([None, [number() for _ in range(n)]]))
            new = [
                g[i]
                for i in g.add_neurons(sources, draw(st.sampled_from(ops.ACTIVATIONS)), weights=weights, biases=biases)
            ]
            new = [new[0], new[-1], g.add_operation("sum", *new)]
        else:
            op = ops.OPS[kind]
            arguments = [pick() for _ in range(op.arity if op.arity > 0 else draw(st.integers(1, 6)))]
            new = [g.add_operation(kind, *(into_domain(kind, arguments, number) if tame else arguments))]
        nodes.extend(mlgraph.sin(node) if tame and is_large(g, node, x) else node for node in new)
    outputs = [pick() for _ in range(draw(st.integers(0, 3)))] + [nodes[-1]]
    return Case(g, outputs, x)


def into_domain(kind, arguments, number):
    """Away from poles, from ties, and from where derivatives are far larger than values."""
    if kind in ("log", "sqrt"):
        return [mlgraph.softplus(arguments[0]) + 0.25]
    if kind == "log1p":
        return [mlgraph.softplus(arguments[0]) - 0.75]
    if kind in ("arcsin", "arccos"):
        return [mlgraph.sin(arguments[0]) * 0.75]
    if kind in ("exp", "expm1", "sinh", "cosh"):
        return [mlgraph.sin(arguments[0])]
    if kind in ("floor", "sign"):
        return [arguments[0] + number()]
    if kind == "div":
        return [arguments[0], mlgraph.softplus(arguments[1]) + 0.25]
    if kind == "pow":
        return [mlgraph.softplus(arguments[0]) + 0.25, mlgraph.sin(arguments[1]) * 2]
    if kind in ("maximum", "minimum", "max"):
        return [argument + number() for argument in arguments]
    if kind == "where":
        return [arguments[0] + number(), *arguments[1:]]
    return arguments


def is_large(graph, node, x):
    return np.abs(evaluate(graph, x[:20].astype(float))[node.id]).max() > 10


def every_parameter():
    """A graph with every way to hold a parameter; nodes by name."""
    g = mlgraph.Graph(seed=0)
    x, y = g.add_input("x"), g.add_input("y")
    w = g.add_parameter(0.5, "w")
    shared = g.add_parameter(-1.5, "shared")
    one = g.add_neuron([x, y, w], "tanh", weights=[0.5, -1, 2], bias=0.25)
    bare = g.add_neuron([one, x], "sigmoid", weights=[1, -2], bias=None)
    weights = np.linspace(-1, 1, 34).reshape(17, 2)
    block = [g[i] for i in g.add_neurons([x, one], "relu", weights=weights, biases=np.linspace(-1, 1, 17))]
    z = shared * bare + mlgraph.sum(*block) * shared + w * y
    return g, {
        "x": x,
        "y": y,
        "w": w,
        "shared": shared,
        "one": one,
        "bare": bare,
        "first": block[0],
        "last": block[-1],
        "z": z,
    }


def evaluate(graph, x, given=None):
    """Values of all nodes in float64 from the op table, without plan or kernels; `given` fixes some by id."""
    values = []
    for node in graph:
        sources = np.array([values[s] for s in graph.sources_of(node.id)])
        if given and node.id in given:
            value = given[node.id]
        elif node.kind == "input":
            value = x[:, graph._data[node.id]]
        elif node.kind in ("constant", "parameter"):
            value = np.full(len(x), np.float32(node.value))
        elif node.kind == "neuron":
            with np.errstate(all="ignore"):
                z = (node.weights.astype(float)[:, None] * sources).sum(axis=0) + (node.bias or 0.0)
            value = ops.OPS[node.activation].value(z)
        else:
            op = ops.OPS[node.kind]
            value = op.value(sources) if op.arity < 0 else op.value(*sources)
        values.append(np.asarray(value, float))
    return values


def small():
    """Two inputs, a constant, a parameter, three neurons and a sum."""
    g = mlgraph.Graph(seed=0)
    x, y = g.add_input("x"), g.add_input()
    c, p = g.add_constant(2.5), g.add_parameter(0.5, "p")
    n = g.add_neuron([x, y], "tanh", weights=[1, -1], bias=0.25)
    block = g.add_neurons([y, n], "relu", weights=[[1, 2], [3, 4]], biases=None)
    return g, x, y, c, p, n, [g[i] for i in block], n + p


def readme_of_micrograd(a, b):
    c = a + b
    d = a * b + b**3
    c = c + (c + 1)
    c = c + (1 + c + (-a))
    d = d + (d * 2 + mlgraph.relu(b + a))
    d = d + (3 * d + mlgraph.relu(b - a))
    f = (c - d) ** 2
    return f / 2.0 + 10.0 / f
