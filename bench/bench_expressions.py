"""Any graph of scalars: a random DAG beside CasADi's virtual machine, graphs written node by node, large graphs."""

import itertools
import operator
import sys

import numpy as np
import pytest

import mlgraph
from mlgraph.compiler.instructions import KINDS
from mlgraph.compiler.plan import Plan
from mlgraph.models.running import engine_of

OPS = 20_000
BATCH = 1024
INPUTS = 20


def random_dag(inputs, functions, n=OPS, seed=0):
    """Sum of the last of `n` operations over `inputs`; bounded, whatever they are composed of."""
    rng = np.random.default_rng(seed)
    nodes = list(inputs)
    while len(nodes) < n:
        a, b = (nodes[int(i)] for i in rng.integers(max(0, len(nodes) - 500), len(nodes), 2))
        kind = int(rng.integers(6))
        if kind < 3:
            nodes.append([operator.add, operator.sub, operator.mul][kind](a, b))
            nodes.append(functions[0](nodes[-1]))
        else:
            nodes.append(functions[kind - 3](a))
    total = nodes[-1]
    for node in nodes[-100:-1]:
        total = total + node
    return total


class Ours:
    def __init__(self):
        g = mlgraph.Graph(seed=0)
        self.f = g.compile(random_dag(g.add_inputs(INPUTS), [mlgraph.tanh, mlgraph.sin, mlgraph.cos]))

    def __call__(self, x):
        out = self.f.vjp(x)
        return out.values, out.inputs


class CasADi:
    def __init__(self):
        import casadi

        x = casadi.SX.sym("x", INPUTS)
        y = random_dag(casadi.vertsplit(x), [casadi.tanh, casadi.sin, casadi.cos])
        self.f = casadi.Function("f", [x], [y, casadi.gradient(y, x)]).map(BATCH)

    def __call__(self, x):
        value, gradient = self.f(np.asarray(x, np.float64).T)
        return np.asarray(value).T, np.asarray(gradient).T


@pytest.mark.benchmark(group=f"value and gradient of {OPS} scalar operations, batch {BATCH}")
@pytest.mark.parametrize("who", [Ours, CasADi])
def bench_random_dag(benchmark, note, who):
    if who is CasADi:
        pytest.importorskip("casadi")
    function = who()
    x = np.random.default_rng(1).normal(size=(BATCH, INPUTS)).astype(np.float32)
    values, gradients = benchmark.pedantic(function, (x,), rounds=3 if who is CasADi else 15, warmup_rounds=1)
    note(operations=OPS, batch=BATCH)
    assert np.isfinite(values).all() and np.abs(gradients).max() > 0
    if who is CasADi:
        ours = Ours()(x)
        np.testing.assert_allclose(ours[0], values, atol=1e-3 * np.abs(values).max())


SIZES = 784, 32, 10


def one_example():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(b, a)).astype(np.float32) / a**0.5 for a, b in itertools.pairwise(SIZES)]
    return rng.random(SIZES[0]).astype(np.float32), weights


def ours_once():
    x, weights = one_example()
    g = mlgraph.Graph(seed=0)
    nodes = g.add_inputs(SIZES[0])
    for rows, activation in zip(weights, ("relu", "identity"), strict=True):
        nodes = [g.add_neuron(nodes, activation) for _ in rows]
        for neuron, row in zip(nodes, rows, strict=True):
            neuron.weights[:], neuron.bias = row, 0.0
    function = g.compile(mlgraph.sum(*(node * node for node in nodes)))

    def run():
        out = function.vjp(x[None])
        return float(out.values[0, 0]), out.inputs[0]

    return run


def micrograd_once():
    from micrograd.engine import Value
    from micrograd.nn import MLP

    x, weights = one_example()
    net = MLP(SIZES[0], list(SIZES[1:]))
    for layer, rows in zip(net.layers, weights, strict=True):
        for neuron, row in zip(layer.neurons, rows.tolist(), strict=True):
            for weight, value in zip(neuron.w, row, strict=True):
                weight.data = value

    def run():
        nodes = [Value(value) for value in x.tolist()]
        out = sum((node * node for node in net(nodes)), Value(0))
        out.backward()
        return out.data, np.array([node.grad for node in nodes])

    return run


@pytest.mark.benchmark(group="value and gradient of one example of 784-32-10")
@pytest.mark.parametrize("who", ["mlgraph", "micrograd"])
def bench_one_example(benchmark, note, who):
    """With the gradients of all 25,408 weights."""
    if who == "micrograd":
        pytest.importorskip("micrograd")
    run = ours_once() if who == "mlgraph" else micrograd_once()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)  # micrograd's backward is as deep as its longest sum
    try:
        value, gradient = benchmark.pedantic(run, rounds=200 if who == "mlgraph" else 3, warmup_rounds=1)
    finally:
        sys.setrecursionlimit(limit)
    x, (first, second) = one_example()
    h = np.maximum(first @ x, 0)
    np.testing.assert_allclose(value, ((second @ h) ** 2).sum(), rtol=1e-4)
    np.testing.assert_allclose(gradient, (2 * (second @ h) @ second * (h > 0)) @ first, rtol=1e-3, atol=1e-5)


def example_of_micrograd(a, b, relu):
    """The example of micrograd's README, which says what it and its derivatives are at -4 and 2."""
    c, d = a + b, a * b + b**3
    c = c + c + 1
    c = c + 1 + c + (-a)
    d = d + d * 2 + relu(b + a)
    d = d + 3 * d + relu(b - a)
    f = (c - d) ** 2
    return f / 2.0 + 10.0 / f


def small_ours():
    g = mlgraph.Graph(seed=0)
    function = g.compile(example_of_micrograd(*g.add_inputs(2), mlgraph.relu))

    def run():
        out = function.vjp([[-4.0, 2.0]])
        return out.values[0, 0], out.inputs[0]

    return run


def small_micrograd():
    from micrograd.engine import Value

    def run():
        a, b = Value(-4.0), Value(2.0)
        out = example_of_micrograd(a, b, Value.relu)
        out.backward()
        return out.data, (a.grad, b.grad)

    return run


def small_casadi():
    import casadi

    x = casadi.SX.sym("x", 2)
    y = example_of_micrograd(x[0], x[1], lambda v: casadi.fmax(v, 0))
    function = casadi.Function("f", [x], [y, casadi.gradient(y, x)])

    def run():
        value, gradient = function([-4.0, 2.0])
        return float(value), gradient.full()[:, 0]

    return run


SMALL = {"mlgraph": small_ours, "casadi": small_casadi, "micrograd": small_micrograd}


@pytest.mark.benchmark(group="value and gradient of micrograd's example")
@pytest.mark.parametrize("who", SMALL)
def bench_small(benchmark, note, who):
    """One call from Python; micrograd builds its graph at each. The numbers are those of its README."""
    if who != "mlgraph":
        pytest.importorskip(who)
    value, gradient = benchmark(SMALL[who]())
    np.testing.assert_allclose([value, *gradient], [24.7041, 138.8338, 645.5773], rtol=1e-5)


@pytest.mark.benchmark(group="building 77,000 nodes one by one")
def bench_build(benchmark, note):
    """784-32-10 written out scalar by scalar, and what a node costs."""
    g = benchmark.pedantic(lambda: written_network()[0], rounds=5)
    note(microseconds_a_node=round(1e6 * benchmark.stats.stats.min / len(g), 3))
    assert len(g) > 77_000


@pytest.mark.benchmark(group="epoch of 784-32-10, batch 128, as layers and written in scalars")
@pytest.mark.parametrize("how", ["layers", "scalars"])
def bench_written_network(benchmark, note, mnist, how):
    g, outputs, net = written_network()
    model = net if how == "layers" else mlgraph.Model(g, outputs, "softmax_cross_entropy")
    options = {"epochs": 1, "batch_size": 128}
    history = benchmark.pedantic(model.fit, (mnist.train_x, mnist.train_y), options, rounds=9, warmup_rounds=1)
    kinds = [ins.kind for ins in engine_of(model).plan.instructions]
    assert kinds.count(KINDS["dense"]) == 2 and history.epoch_loss[-1] < 0.5


def written_network():
    net = mlgraph.Network(784, seed=0)
    net.add_layer(32, "leaky_relu")
    net.add_layer(10, "softmax")
    g = mlgraph.Graph(seed=0)
    nodes = g.add_inputs(784)
    for layer, activation in zip(net.layers, (mlgraph.leaky_relu, None), strict=True):
        sums = []
        for neuron in layer.neurons:
            total = g.add_parameter(neuron.bias)
            for source, weight in zip(nodes, neuron.weights.tolist(), strict=True):
                total = total + g.add_parameter(weight) * source
            sums.append(activation(total) if activation else total)
        nodes = sums
    return g, nodes, net


@pytest.mark.benchmark(group="compiling a large graph")
@pytest.mark.parametrize("shape", ["chain", "edges"])
def bench_large(benchmark, note, shape):
    """A chain of a million operations; 5 million random edges between 50,000 neurons."""
    g = mlgraph.Graph(seed=0)
    if shape == "chain":
        a, b = g.add_inputs(2)
        out = a
        for _ in range(500_000):
            out = out * b + a
        outputs = [out.id]
    else:
        rng = np.random.default_rng(0)
        nodes = g.add_inputs(1000)
        for _ in range(50_000):
            ids = np.unique(rng.integers(0, len(nodes), 100))
            nodes.append(g.add_neuron([nodes[i] for i in ids.tolist()], "tanh"))
        outputs = [node.id for node in nodes[-10:]]
    # A first compilation, which lays out the parameters: each is of a new copy.
    plan = benchmark.pedantic(Plan, setup=lambda: ((g.copy(), outputs), {}), rounds=3)
    note(nodes=len(g), edges=g.n_edges)
    assert plan.n_slots > 0.95 * len(g)
