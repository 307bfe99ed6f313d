"""Run every kernel once on small data: for valgrind, under which the tests would take hours.

Every result is compared, because memcheck reports an uninitialized number only when it is used.
"""

import numpy as np

import mlgraph
import mlgraph_ext
from mlgraph.engine.examples import Examples
from mlgraph.graph import ops
from mlgraph.models.running import engine_of

rng = np.random.default_rng(0)
print(mlgraph_ext.sweep.__name__)


def check(*arrays):
    for array in arrays:
        assert np.isfinite(array).all()


def data(n, columns, share, dtype):
    x = rng.integers(1, 256, (n, columns)) * (rng.random((n, columns)) < share)
    return x.astype(np.uint8) if dtype == "uint8" else (x / 255).astype(dtype)


# Layers: bytes and floats, dense and sparse data, blocks of odd widths, each kind of dropout, each optimizer. With 125
# columns or more, sums are split in two halves.
for dtype, share, sizes, options, fit in (
    ("uint8", 0.2, (37, 33, 3), {}, {}),
    ("uint8", 0.9, (37, 9, 17, 3), {}, {"momentum": 0}),
    ("float32", 0.2, (19, 70, 3), {"dropout": 0.5}, {"optimizer": "adam"}),
    ("uint8", 0.2, (19, 70, 3), {"dropout": 0.25}, {}),
    ("float32", 0.9, (19, 20, 3), {"weight_dropout": 0.5}, {"optimizer": "adam"}),
    ("uint8", 0.2, (19, 20, 3), {"weight_dropout": 0.3, "dropout": 0.1}, {}),
    ("uint8", 0.2, (140, 33, 3), {}, {}),
):
    net = mlgraph.Network(sizes[0], seed=1)
    for size, activation in zip(sizes[1:-1], ops.ACTIVATIONS[2:], strict=False):
        net.add_layer(size, activation, **options)
    net.add_layer(sizes[-1], "softmax", bias=False)
    x, y = data(131, sizes[0], share, dtype), rng.integers(0, 3, 131)
    for batch_size in (64, 31, 8, 131):
        net.fit(x, y, epochs=1, batch_size=batch_size, learning_rate=0.01, n_threads=2, **fit)
    check(net.graph.parameters, net.predict_proba(x), net.predict_proba(x[:1]), *net.evaluate(x, y).values())

# Rows that lack few edges become blocks with holes; for this many examples also without training.
for dtype, share, fit in (("uint8", 0.2, {}), ("float32", 0.9, {"optimizer": "adam"})):
    net = mlgraph.Network(20, seed=1)
    net.add_layer(32, "tanh")
    net.add_layer(16, "tanh")
    net.add_layer(3, "softmax")
    net.prune(0.1, by="random", scope="layer", seed=0)
    x, y = data(2000, 20, share, dtype), rng.integers(0, 3, 2000)
    assert engine_of(net).filled(Examples(x, 20), len(x)) is not engine_of(net)
    net.fit(x[:131], y[:131], epochs=1, batch_size=33, learning_rate=0.01, n_threads=2, **fit)
    derivatives = net.gradients(x, y)
    check(net.graph.parameters, net.predict_proba(x), derivatives.inputs, derivatives.edges)

# Neurons that each have their own sources, with a squared error.
g = mlgraph.Graph()
nodes = g.add_inputs(11)
for i in range(40):
    sources = [nodes[j] for j in rng.permutation(len(nodes))[: 1 + i % 13]]
    nodes.append(
        g.add_neuron(sources, ops.ACTIVATIONS[i % 5], weights=rng.normal(size=len(sources)), bias=i % 3 or None)
    )
model = mlgraph.Model(g, nodes[-4:])
x = data(70, 11, 0.7, "float32")
model.fit(x, rng.random((70, 4)), epochs=2, batch_size=33, learning_rate=1e-3, n_threads=2)
check(g.parameters, model.forward(x))

# Each operation with its value and derivatives, parameters, and a neuron written as a formula.
g = mlgraph.Graph()
a, b, c = g.add_inputs(3)
p = g.add_parameter(0.5)
terms = []
for op in ops.BY_CODE:
    inside = [0.5 * mlgraph.tanh(a)] if op.name in ("arcsin", "arccos") else [a * a + 1, b * b + p, c * c + 2, a + 3]
    terms.append(g.add_operation(op.name, *inside[: op.arity if op.arity > 0 else 4]))
written = mlgraph.tanh(
    sum((g.add_parameter(0.1 * k) * node for k, node in enumerate([a, b, *terms[:5]])), g.add_parameter(1.0))
)
f = g.compile([*terms, written, mlgraph.sum(*terms)])
x = data(70, 3, 1, "float32")
gradients = f.vjp(x, n_threads=2)
check(f(x), gradients.values, gradients.inputs, gradients.parameters)
