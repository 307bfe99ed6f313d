"""The first pass: nodes of equal value are merged, and neurons written out as expressions become neurons."""

import numpy as np
import pytest
from graphs import evaluate
from planned import kinds, plan_of

import mlgraph
from mlgraph.compiler.plan import Plan
from mlgraph.graph import ops

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


def written(g, sources, weights, bias=None):
    """A neuron as an expression: ``w0 * x0 + x1 * w1 + ... + b``."""
    pairs = [(s, g.add_parameter(float(w))) for s, w in zip(sources, weights, strict=True)]
    terms = [w * s if k % 2 else s * w for k, (s, w) in enumerate(pairs)]
    return sum(terms[1:], terms[0]) if bias is None else sum(terms[1:], terms[0]) + g.add_parameter(bias)


def n_neurons(nodes):
    return sum(size for kind, size in kinds(plan_of(*nodes)) if kind in ("dense", "rows"))


def assert_values_and_gradients(nodes):
    g = nodes[0].graph
    values = evaluate(g, X)
    np.testing.assert_allclose(g.compile(nodes)(X), np.array([values[n.id] for n in nodes]).T, rtol=1e-5, atol=1e-5)
    mlgraph.testing.check_gradients(nodes, X)


# --- nodes of equal value -------------------------------------------------------------------------


def test_equal_nodes_are_computed_once_and_both_have_derivatives():
    g = mlgraph.Graph(seed=0)
    x, y, *_ = g.add_inputs(4)
    a, b = mlgraph.tanh(x * y + 2), mlgraph.tanh(y * x + 2.0)
    plan = plan_of(a + b, a, b)
    assert plan.slot[a.id] == plan.slot[b.id] and plan.n_slots == 7 < len(g)
    assert_values_and_gradients([mlgraph.exp(a) * mlgraph.sin(b)])


@pytest.mark.parametrize("name", [op.name for op in ops.BY_CODE if op.arity == 2])
def test_sums_and_products_are_equal_in_any_order(name):
    g = mlgraph.Graph()
    x, y = g.add_inputs(2)
    a, b = g.add_operation(name, x, y), g.add_operation(name, y, x)
    plan = plan_of(a, b)
    assert (plan.slot[a.id] == plan.slot[b.id]) == (name in ("add", "mul"))


def test_constants_are_equal_if_their_bits_are():
    g = mlgraph.Graph()
    x = g.add_input()
    f = g.compile([x + 0.0, x + 1.0, x + 1, 1 / (x * -0.0)])
    np.testing.assert_array_equal(f([[3.0]]), [[3, 4, 4, -np.inf]])


def test_a_neuron_without_live_sources_is_the_constant_0_and_needs_nothing():
    g = mlgraph.Graph(seed=0)
    x = g.add_input()
    a, one = g.add_neuron([x], weights=[2.0], bias=3.0), g.add_constant(1.0)
    f = g.compile([x + a, x + one])
    a.prune()
    np.testing.assert_array_equal(f([[5.0]]), [[5.0, 6.0]])
    b = g.add_neuron([a])
    plan = plan_of(b * g.add_neuron([x]))
    assert plan.slot[a.id] == -1 and plan.n_slots == 4


# --- neurons that are written as expressions ------------------------------------------------------


@pytest.mark.parametrize("total", [mlgraph.sum, lambda *terms: sum(terms)], ids=["sum", "Python's sum"])
@pytest.mark.parametrize("bias", [None, 0.5])
@pytest.mark.parametrize("activation", [None, mlgraph.relu, mlgraph.tanh])
def test_written_neurons_become_a_block(sweep, total, bias, activation):
    g, out = mlgraph.Graph(seed=0), []
    sources = g.add_inputs(4)
    for k, weights in enumerate(np.random.default_rng(0).normal(size=(9, 4))):
        terms = [g.add_parameter(w) * s for w, s in zip(weights.tolist(), sources, strict=True)]
        if bias is not None:
            terms.insert(k % 5, g.add_parameter(bias))
        out.append(total(*terms))
    out = [activation(node) for node in out] if activation else out
    assert kinds(plan_of(*out)) == [("dense", 9)]
    assert_values_and_gradients(out)
    g.add_input()
    g.compile(out)
    assert g.storage.moves == 1, "a block is laid out once"


def sums():
    """What is written, its nodes, and how many neurons they become."""
    g = mlgraph.Graph(seed=0)
    w, first = g.add_parameter, g.add_parameter(5.0)  # the bias of the last sum is the first node
    x = g.add_inputs(4)
    p, q, z = w(2.0), w(3.0), written(g, x, [1, 2, 3, 4], 1.0)
    yield "a neuron", [z], 1
    yield "a parameter used twice", [p * x[0] + p * x[1]], 0
    yield "two biases", [w(2.0) + w(3.0) + w(1.0) * x[0]], 0
    yield "two biases, one in a sum within", [mlgraph.sum(mlgraph.sum(w(2.0) * x[0], w(3.0)), w(5.0) * x[1], w(7.0))], 1
    yield "no parameter", [x[0] * x[1] + x[2]], 0
    yield "a bias alone", [mlgraph.sum(w(11.0))], 0
    yield "a constant", [w(1.0) * x[0] + 1.0], 0
    yield "a product that is an output", [p * x[0] + q * x[1], x[0] * p], 0
    yield "a sum that is an output", [mlgraph.tanh(z), z], 1
    yield "a sum with two readers", [mlgraph.tanh(z) * (z + 1)], 1
    yield "a sum that another node is added to", [z + x[0]], 1
    yield "a sum and the first node", [written(g, x, [3, 4, 5, 6]) + first], 1


@pytest.mark.parametrize(("nodes", "neurons"), [case[1:] for case in sums()], ids=[case[0] for case in sums()])
def test_sums_of_products_with_parameters_of_their_own_become_neurons(nodes, neurons):
    assert n_neurons(nodes) == neurons
    assert_values_and_gradients(nodes)


@pytest.mark.parametrize("name", [op.name for op in ops.BY_CODE if op.arity == 1])
def test_activations_become_part_of_the_neuron(name):
    g = mlgraph.Graph()
    f = g.compile(g.add_operation(name, written(g, g.add_inputs(2), [0.25, 0.5])))
    assert len(f.engine(False).plan.instructions) == (1 if name in ops.IN_PLACE[1:] else 2)
    np.testing.assert_allclose(f([[1.0, 1.0]])[0], ops.OPS[name].value(np.array([0.75])), rtol=1e-6)


def test_written_neurons_stay_apart_from_neurons_and_from_layers_with_dropout():
    net = mlgraph.Network(4, seed=0)
    net.add_layer(9, "tanh", dropout=0.5)
    net.add_layer(3)
    g, x, weights = net.graph, list(net.graph)[:4], np.random.default_rng(0).normal(size=(9, 4))
    made = [g.add_neuron(x, "tanh", weights=w, bias=1.0) for w in weights]
    alike = [mlgraph.tanh(written(g, x, w, 1.0)) for w in weights]
    plan = Plan(g, [node.id for node in [*net.outputs, *made, *alike]], net.dropout_shares)
    assert kinds(plan) == [("dense", 9)] * 3 + [("rows", 3)]
    assert sorted(bool(ins.drop) for ins in plan.instructions) == [False, False, False, True]
    assert_values_and_gradients(made + alike)


def test_a_network_written_in_scalars_learns_the_same():
    net = mlgraph.Network(12, seed=0)
    net.add_layer(9, "leaky_relu")
    net.add_layer(8, "softmax")
    g = mlgraph.Graph()
    x = g.add_inputs(12)
    hidden = [mlgraph.leaky_relu(written(g, x, n.weights, n.bias)) for n in net.layers[0].neurons]
    outputs = [written(g, hidden, n.weights, n.bias) for n in net.layers[1].neurons]
    model = mlgraph.Model(g, outputs, "softmax_cross_entropy")
    rng = np.random.default_rng(0)
    data, labels = rng.normal(size=(200, 12)), rng.integers(0, 8, 200)
    histories = [m.fit(data, labels, epochs=3, batch_size=(50, 7), learning_rate=0.1, seed=0) for m in (net, model)]
    np.testing.assert_array_equal(histories[0].batch_loss, histories[1].batch_loss)
    assert model.n_parameters == net.n_parameters and model.n_edges == 0  # its weights are nodes, not edges
