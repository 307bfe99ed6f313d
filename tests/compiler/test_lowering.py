"""What a plan makes of a graph: equal nodes merged, written-out neurons found, parameters moved with their values."""

import numpy as np
import pytest
from planned import kinds, plan_of

import mlgraph
from mlgraph.compiler.instructions import KINDS
from mlgraph.compiler.plan import Plan
from mlgraph.engine import reference
from mlgraph.graph import ops
from mlgraph.graph.storage import PANEL
from mlgraph_ext import _topology


def written(g, sources, weights, bias=None, *, bias_at=-1, total=None):
    """A neuron written out: ``w0 * x0 + w1 * x1 + ... + b``, the bias at any place."""
    pairs = [(s, g.parameter(float(w))) for s, w in zip(sources, weights, strict=True)]
    terms = [w * s if k % 2 else s * w for k, (s, w) in enumerate(pairs)]
    if bias is not None:
        terms.insert(bias_at % (len(terms) + 1), g.parameter(bias))
    if total is not None:
        return total(*terms)
    out = terms[0]
    for term in terms[1:]:
        out = out + term
    return out


def test_equal_nodes_are_one_slot():
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    a, b = mlgraph.exp(x * y + 2), mlgraph.exp(y * x + 2.0)
    plan = plan_of(a + b, a, b)
    assert plan.slot[a.id] == plan.slot[b.id]
    assert len(g) == 11 and plan.n_slots == 7
    c, d = x - y, y - x
    plan = plan_of(c, d)
    assert plan.slot[c.id] != plan.slot[d.id]


@pytest.mark.parametrize("name", [op.name for op in ops.BY_CODE if op.arity == 2])
def test_which_operations_have_an_order(name):
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    a, b = g.operation(name, x, y), g.operation(name, y, x)
    plan = plan_of(a, b)
    assert (plan.slot[a.id] == plan.slot[b.id]) == (name in ("add", "mul"))


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_zeros_of_both_signs_have_an_order(name):
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    a, b = 1 / g.operation(name, x, y), 1 / g.operation(name, y, x)
    for f in (g.compile([a, b]), g.compile([b, a])):
        assert sorted(f([[0.0, -0.0]])[0].tolist()) == [-np.inf, np.inf]
    np.testing.assert_array_equal(g.compile([a, b])([[0.0, -0.0]])[:, 1:], g.compile(b)([[0.0, -0.0]]))


def test_derivatives_lead_through_both_of_equal_nodes():
    g = mlgraph.Graph()
    x = g.input()
    f = g.compile(mlgraph.tanh(mlgraph.exp(x)) * mlgraph.sin(mlgraph.exp(x)))
    e = np.exp(0.5)
    want = e * ((1 - np.tanh(e) ** 2) * np.sin(e) + np.tanh(e) * np.cos(e))
    np.testing.assert_allclose(f.vjp([[0.5]]).inputs, [[want]], rtol=1e-5)


def test_a_product_that_equals_an_output_is_no_neurons_own():
    g = mlgraph.Graph()
    x, w = g.inputs(2), [g.parameter(2.0), g.parameter(3.0)]
    total = w[0] * x[0] + w[1] * x[1]
    np.testing.assert_array_equal(g.compile([total, x[0] * w[0]])([[5.0, 7.0]]), [[31.0, 10.0]])


def test_what_is_cut_off_is_no_constant_of_the_graph():
    """But 0 for whoever reads it."""
    g = mlgraph.Graph()
    x = g.input()
    a, one = g.add_neuron([x], weights=[2.0], bias=3.0), g.constant(1.0)
    f = g.compile([x + a, x + one])
    a.prune()
    np.testing.assert_array_equal(f([[5.0]]), [[5.0, 6.0]])


def test_what_is_cut_off_needs_nothing():
    g = mlgraph.Graph()
    x = g.input()
    a, c = g.add_neuron([x]), g.add_neuron([x])
    a.prune()
    b = g.add_neuron([a])
    plan = plan_of(b * c)
    assert plan.slot[a.id] == -1 and plan.n_slots == 4


def test_different_constants_stay_apart():
    g = mlgraph.Graph()
    x = g.input()
    f = g.compile([x + 0.0, x + 1.0, x + 1, x * -0.0])
    np.testing.assert_array_equal(f([[3.0]]), [[3, 4, 4, -0.0]])


@pytest.mark.parametrize("total", [None, mlgraph.sum, lambda *terms: sum(terms)], ids=["+", "sum", "Python's sum"])
@pytest.mark.parametrize("bias", [None, 0.5])
@pytest.mark.parametrize("activation", [None, mlgraph.relu, mlgraph.tanh])
def test_a_written_neuron_is_found(sweep, total, bias, activation):
    rng = np.random.default_rng(0)
    g = mlgraph.Graph()
    sources, weights = g.inputs(5), rng.normal(size=(9, 5))
    out = [written(g, sources, w, bias, bias_at=k, total=total) for k, w in enumerate(weights)]
    out = [activation(node) for node in out] if activation else out
    f = g.compile(out)
    plan = f.engine(True).plan
    assert kinds(plan) == [("dense", 9)]
    x = rng.normal(size=(40, 5)).astype(np.float32)
    z = x @ weights.T + (bias or 0)
    want = {None: z, mlgraph.relu: np.maximum(z, 0), mlgraph.tanh: np.tanh(z)}[activation]
    np.testing.assert_allclose(f(x), want, rtol=1e-5, atol=1e-5)
    gradients = f.vjp(x)
    values = reference.forward(plan, g.parameters, x)
    _, adjoints = reference.loss(
        "cotangent", plan.slot[[out[0].id, *(n.id for n in out)]], values, target=np.ones((40, 9))
    )
    want_parameters = reference.backward(plan, g.parameters, values, adjoints)
    np.testing.assert_allclose(gradients.parameters, want_parameters, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradients.inputs, adjoints[plan.slot[[s.id for s in sources]]].T, rtol=1e-4, atol=1e-5)


def test_a_sum_that_others_read_is_a_neuron_by_itself():
    """And not one with the activation that reads it, too."""
    g = mlgraph.Graph()
    z = written(g, g.inputs(2), [2.0, 3.0])
    active = mlgraph.relu(z)
    for nodes, want in (
        ([active, z], [13.0, 13.0]),
        ([active * (z + 1)], [182.0]),
        ([active + mlgraph.tanh(z)], [14.0]),
    ):
        np.testing.assert_array_equal(g.compile(nodes)([[5.0, 1.0]]), [want])


@pytest.mark.parametrize("name", [op.name for op in ops.BY_CODE if op.arity == 1])
def test_which_operations_are_the_activation_of_a_written_neuron(name):
    g = mlgraph.Graph()
    f = g.compile(g.operation(name, written(g, g.inputs(2), [0.25, 0.5])))
    assert len(f.engine(False).plan.instructions) == (1 if name in ops.ACTIVATIONS[1:] else 2)
    np.testing.assert_allclose(f([[1.0, 1.0]])[0], ops.OPS[name].value(np.array([0.75])), rtol=1e-6)


def test_few_written_neurons_are_rows():
    g = mlgraph.Graph()
    x = g.inputs(4)
    assert kinds(plan_of(written(g, x, [1, 2, 3, 4]))) == [("rows", 1)]


def test_written_neurons_beside_others_are_a_block_of_their_own():
    rng, g = np.random.default_rng(0), mlgraph.Graph()
    x, weights = g.inputs(4), rng.normal(size=(9, 4))
    made = [g.add_neuron(x, weights=w, bias=k) for k, w in enumerate(weights)]
    f = g.compile([*made, *(written(g, x, w, float(k)) for k, w in enumerate(weights))])
    assert kinds(f.engine(True).plan) == [("dense", 9)] * 2
    values = f([[1.0, 2.0, 3.0, 4.0]])[0]
    np.testing.assert_allclose(values, np.tile(weights @ [1, 2, 3, 4] + np.arange(9), 2), rtol=1e-5)


def test_written_neurons_beside_a_layer_that_drops_are_not_its_own():
    net = mlgraph.Network(4, seed=0)
    net.add_layer(9, "tanh", dropout=0.5)
    net.add_layer(3)
    g, x = net.graph, list(net.graph)[:4]
    beside = [mlgraph.tanh(written(g, x, np.arange(4) + k, 1.0)) for k in range(9)]
    plan = Plan(g, [node.id for node in [*net.outputs, *beside]], net.dropout_shares)
    assert kinds(plan) == [("dense", 9), ("dense", 9), ("rows", 3)]
    assert sorted(bool(ins.drop) for ins in plan.instructions) == [False, False, True]


def test_the_first_node_may_be_a_bias():
    g = mlgraph.Graph()
    b = g.parameter(5.0)
    x = g.inputs(2)
    f = g.compile([written(g, x, [1.0, 2.0]), written(g, x, [3.0, 4.0]) + b])
    assert kinds(f.engine(True).plan) == [("rows", 1)] * 2
    np.testing.assert_array_equal(f([[1.0, 10.0]]), [[21.0, 48.0]])


def test_a_residual_beside_a_sum_leaves_the_neuron_below_it():
    g = mlgraph.Graph()
    x = g.inputs(4)
    z = written(g, x, [1, 2, 3, 4], 1.0) + x[0]
    assert {kind for kind, _ in kinds(plan_of(z))} == {"rows", "operation"}
    np.testing.assert_allclose(g.compile(z)([[1, 1, 1, 1.0]]), [[12.0]])


def not_neurons():
    g = mlgraph.Graph()
    x = g.inputs(3)
    shared = g.parameter(2.0)
    yield "a parameter used twice", shared * x[0] + shared * x[1]
    yield "two biases", (g.parameter(2.0) + g.parameter(3.0)) + g.parameter(1.0) * x[0]
    yield "no parameter", x[0] * x[1] + x[2]
    yield "no product", g.parameter(1.0) + g.parameter(2.0)
    yield "a constant", g.parameter(1.0) * x[0] + 1.0


@pytest.mark.parametrize(("why", "node"), [*not_neurons()], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_no_neuron_stays_as_it_is(why, node):
    assert "rows" not in {kind for kind, _ in kinds(plan_of(node))}


def test_a_product_that_is_read_elsewhere_stays():
    g = mlgraph.Graph()
    x = g.inputs(2)
    product = g.parameter(2.0) * x[0]
    total = product + g.parameter(3.0) * x[1]
    f = g.compile([total, product])
    np.testing.assert_allclose(f([[1.0, 1.0]]), [[5.0, 2.0]])
    assert plan_of(total, product).slot[product.id] >= 0


def test_a_network_written_in_scalars_learns_the_same():
    net = mlgraph.Network(12, seed=0)
    net.add_layer(9, "leaky_relu")
    net.add_layer(8, "softmax")
    g = mlgraph.Graph()
    x = g.inputs(12)
    hidden = [mlgraph.leaky_relu(written(g, x, n.weights, n.bias)) for n in net.layers[0].neurons]
    outputs = [written(g, hidden, n.weights, n.bias) for n in net.layers[1].neurons]
    model = mlgraph.Model(g, outputs, "softmax_cross_entropy")
    rng = np.random.default_rng(0)
    data, labels = rng.normal(size=(200, 12)), rng.integers(0, 8, 200)
    histories = [m.fit(data, labels, epochs=3, batch_size=(50, 7), learning_rate=0.1) for m in (net, model)]
    np.testing.assert_array_equal(histories[0].batch_loss, histories[1].batch_loss)
    assert (
        model.n_edges == 0 and model.n_parameters == net.n_parameters
    )  # its weights are nodes, which no edge stands for


def test_parameters_keep_their_values_and_state_when_they_move():
    g = mlgraph.Graph()
    x = g.inputs(3)
    single = g.add_neuron(x, weights=[1, 2, 3], bias=4.0)
    lonely = g.parameter(5.0)
    model = mlgraph.Model(g, [single + lonely], "squared_error")
    model.fit([[1.0, 2.0, 3.0]] * 4, [0.0] * 4, epochs=1, learning_rate=1e-3)
    before = {"single": [*single.weights, single.bias], "lonely": lonely.value}
    state = [g.storage.state["first"][g.storage.weights[g._data[n.id]]] for n in (single, lonely)]
    many = [g.add_neuron(x, weights=[k, k, k], bias=k) for k in range(20)]
    g.compile(many)
    assert g.storage.moves > 0
    assert [*single.weights, single.bias] == before["single"] and lonely.value == before["lonely"]
    assert [g.storage.state["first"][g.storage.weights[g._data[n.id]]] for n in (single, lonely)] == state
    assert [n.weights.tolist() for n in many] == [[k] * 3 for k in range(20)]
    assert [n.bias for n in many] == list(range(20))


def test_a_block_of_written_neurons_is_laid_out_once():
    g = mlgraph.Graph()
    x = g.inputs(4)
    out = [written(g, x, [1, 2, 3, k], 0.5) for k in range(9)]
    g.compile(out)
    for _ in range(2):
        g.input()
        g.compile(out)
    assert g.storage.moves == 1


def test_what_is_not_needed_does_not_stand_behind_biases_at_the_first_place():
    g = mlgraph.Graph()
    x, parameters = g.input(), [g.parameter(float(k)) for k in range(PANEL + 9)]
    out = [w * x + b for w, b in zip(parameters[PANEL:], parameters[:9], strict=True)]
    [(_, ins)] = plan_of(*out).trained
    idle = {g.storage.weights[g._data[p.id]] for p in parameters[9:PANEL]}
    assert ins.kind == KINDS["dense"] and not idle & set(range(ins.bias, ins.bias + PANEL))
    assert [p.value for p in parameters] == list(range(PANEL + 9))


def test_two_plans_that_want_different_layouts_take_turns():
    g = mlgraph.Graph()
    x = g.inputs(3)
    neurons = [g.add_neuron(x, weights=[k, 0, 1], bias=1.0) for k in range(12)]
    some, all_of_them = g.compile(neurons[::2]), g.compile(neurons)
    for _ in range(3):
        np.testing.assert_allclose(some([[1, 2, 3.0]]), [[k + 4 for k in range(0, 12, 2)]])
        np.testing.assert_allclose(all_of_them([[1, 2, 3.0]]), [[k + 4 for k in range(12)]])


def test_lists_that_are_the_same():
    """Equal lists are found among repeated, empty and partly equal ones, without comparing all pairs."""
    rng = np.random.default_rng(0)
    held = [rng.integers(0, 3, rng.integers(0, 6)) for _ in range(2000)] + [np.full(4, i) for i in range(50000)]
    held += [np.tile([i, i + 1], 4) for i in range(50000)]
    count = np.array([len(one) for one in held], np.int32)
    start, pool = (np.cumsum(count) - count).astype(np.int64), np.concatenate(held).astype(np.int32)
    start[7], count[7], held[7] = start[5], count[5], held[5]
    first, seen = np.empty(len(held), np.int64), {}
    _topology.same_lists(start, count, pool, first)
    assert first.tolist() == [seen.setdefault(one.astype(np.int32).tobytes(), i) for i, one in enumerate(held)]
    for wrong in (start - 1, start + 10):
        with pytest.raises(ValueError, match="expected 102000 runs"):
            _topology.same_lists(wrong, count, pool, first)


def test_sums_of_two_biases_or_of_nothing_but_one_are_no_neurons():
    """Also where one of the two is of a sum within."""
    g = mlgraph.Graph()
    x, (a, b, c, d) = g.inputs(2), (g.parameter(value) for value in (2.0, 3.0, 5.0, 7.0))
    outputs = [mlgraph.sum(mlgraph.sum(a * x[0], b), c * x[1], d), mlgraph.sum(g.parameter(11.0))]
    assert g.compile(outputs)([[1.0, 10.0]]).tolist() == [[2 + 3 + 50 + 7, 11]]
