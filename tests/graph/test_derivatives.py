"""Derivatives as nodes: those of `vjp`, to any order, also while the weights they read are trained, cut and saved."""

import json

import numpy as np
import pytest
from graphs import cases, evaluate, into_domain
from hypothesis import given

import mlgraph
from mlgraph import testing
from mlgraph.compiler.plan import Plan
from mlgraph.graph import ops

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
OPS = [(name, arity) for name, op in ops.OPS.items() for arity in ([op.arity] if op.arity > 0 else [1, 2, 3, 5])]


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a, float), np.asarray(b, float)
    assert np.abs(a - b).max() <= tolerance * max(1, np.abs(b).max())


def of_op(name, arity):
    """A node of an op, which reads one input twice if it can, and another op after it."""
    g = mlgraph.Graph(seed=0)
    inputs = g.add_inputs(3)
    numbers = iter(np.linspace(-0.9, 1.1, 8))
    arguments = [inputs[k % 3] for k in range(arity)]
    arguments = into_domain(name, arguments, lambda: next(numbers))
    return g, inputs, mlgraph.sin(g.add_operation(name, *arguments)) * inputs[0]


def network(seed=0):
    """A network of 2-5-20-1 with the derivative of its output, and a loss that has it twice."""
    g = mlgraph.Graph(seed=seed)
    x, z = g.add_input("x"), g.add_input("z")
    h = [g[i] for i in g.add_neurons([x, z], "tanh", n=5, biases=np.linspace(-0.5, 0.5, 5))]
    last = [g[i] for i in g.add_neurons(h, "sigmoid", n=20, biases=None)]
    y = g.add_neuron(last, bias=0.1)
    slope = mlgraph.grad(y, x)
    loss = (y - x * z) ** 2 + 0.5 * (slope - 1) ** 2 + 0.3 * mlgraph.grad(slope, x) ** 2
    return g, {"x": x, "z": z, "h": h, "y": y, "slope": slope, "loss": loss}


@pytest.mark.parametrize(("formula", "first", "second"), [
    (lambda x, y: x * x, "2 * x", "2"),
    (lambda x, y: x**3, "3 * x ** 2", "6 * x"),
    (lambda x, y: 3 * x + y, "3", "0"),
    (lambda x, y: 1 - x, "-1", "0"),
    (lambda x, y: x / 4, "0.25", "0"),
    (lambda x, y: mlgraph.exp(x) * y, "y * exp(x)", "y * exp(x)"),
    (lambda x, y: y, "0", "0"),
])  # fmt: skip
def test_simple_derivatives_are_simple(formula, first, second):
    g = mlgraph.Graph()
    x, y = g.add_input("x"), g.add_input("y")
    slope = mlgraph.grad(formula(x, y), x)
    assert (str(slope), str(mlgraph.grad(slope, x))) == (first, second)


@pytest.mark.parametrize(("name", "arity"), OPS)
def test_every_op_as_vjp_and_differences(name, arity):
    g, inputs, node = of_op(name, arity)
    first = mlgraph.grad(node, inputs)
    close(g.compile(first)(X), g.compile(node).vjp(X).inputs)
    for slope in first:
        close(g.compile(mlgraph.grad(slope, inputs))(X), g.compile(slope).vjp(X).inputs, 3e-5)
        testing.check_against_reference(slope, X)
    steps = 1e-5 * np.eye(3)
    after, before = (evaluate(g, X + sign * steps[0]) for sign in (1, -1))
    for slope in first:
        difference = (after[slope.id] - before[slope.id]) / 2e-5
        close(g.compile(mlgraph.grad(slope, inputs[0]))(X)[:, 0], difference, 1e-4)


@pytest.mark.parametrize(("name", "arity"), OPS)
@pytest.mark.parametrize("x", [0.0, 1.0, -1.0])
def test_every_op_as_vjp_at_ties_and_kinks(name, arity, x):
    g = mlgraph.Graph()
    inputs = g.add_inputs(arity)
    node = g.add_operation(name, *inputs)
    at = np.full((1, arity), x)
    np.testing.assert_allclose(
        g.compile(mlgraph.grad(node, inputs))(at), g.compile(node).vjp(at).inputs, rtol=1e-5, equal_nan=True
    )


@pytest.mark.parametrize(("order", "formula", "expected"), [
    (3, lambda x: x**5, lambda x: 60 * x**2),
    (3, mlgraph.sin, lambda x: -np.cos(x)),
    (3, mlgraph.tanh, lambda x: (1 - np.tanh(x) ** 2) * (6 * np.tanh(x) ** 2 - 2)),
    (4, lambda x: mlgraph.exp(2 * x), lambda x: 16 * np.exp(2 * x)),
])  # fmt: skip
def test_higher_orders(order, formula, expected):
    g = mlgraph.Graph()
    x = g.add_input()
    node = formula(x)
    for _ in range(order):
        node = mlgraph.grad(node, x)
    close(g.compile(node)(X[:, :1]), expected(X[:, :1].astype(float)))


@given(case=cases())
def test_random_graphs_as_vjp(case):
    g, node = case.graph, case.outputs[-1]
    inputs = [g[i] for i in g.input_ids]
    for neuron in g:
        if isinstance(neuron, mlgraph.Neuron) and neuron.activation in ("gelu", "silu"):  # refused by grad
            neuron.activation = "tanh"
    expected = g.compile(node).vjp(case.x).inputs
    close(g.compile(mlgraph.grad(node, inputs))(case.x), expected, 1e-3)


def test_a_chain_of_shared_nodes_grows_linearly():
    g = mlgraph.Graph()
    node = x = g.add_input()
    for _ in range(200):
        node = mlgraph.sin(node * node + node)
    n = len(g)
    mlgraph.grad(node, x)
    assert len(g) < 5 * n


def test_with_respect_to_weights_and_biases():
    g, n = network()
    found = g.compile(n["loss"]).vjp(X[:, :2])
    for neuron in (n["y"], n["h"][3]):
        close(g.compile(mlgraph.grad(n["loss"], neuron.in_edges))(X[:, :2]).sum(axis=0), found.of(neuron))
        bias = mlgraph.grad(n["loss"], neuron, of="bias")
        close(g.compile(bias)(X[:, :2]).sum(), found.of_bias(neuron))


def test_the_gradient_of_a_derivative_is_that_of_differences():
    _g, n = network()
    testing.check_gradients(n["loss"], X[:, :2])
    testing.check_against_reference(n["loss"], X[:, :2])


def test_derivatives_follow_the_weights():
    g, n = network()

    def check():
        close(g.compile(n["slope"])(X[:, :2])[:, 0], g.compile(n["y"]).vjp(X[:, :2]).inputs[:, 0])

    n["h"][0].weights[0] = 5
    check()
    mlgraph.Model(g, n["y"], loss=n["loss"]).fit(X[:, :2], epochs=2, batch_size=10)
    check()
    n["y"].in_edges[3].prune()
    n["h"][1].prune()
    check()
    g.undo()
    check()


@pytest.mark.parametrize(("optimizer", "decay"), [("sgd", 0), ("sgd", 0.1), ("adam", 0.1)])
def test_training_updates_and_decays_each_weight_once(optimizer, decay):
    g, n = network()
    model = mlgraph.Model(g, n["y"], loss=n["loss"])
    before = g.get_parameters()
    gradient = g.compile(n["loss"]).vjp(X[:, :2]).flat / len(X)
    is_bias = np.arange(len(before)) >= g.n_edges
    model.fit(
        X[:, :2], epochs=1, batch_size=50, learning_rate=0.01, optimizer=optimizer, weight_decay=decay, momentum=0
    )
    step = 0.01 * (gradient if optimizer == "sgd" else np.sign(gradient))
    close(g.get_parameters(), before - 0.01 * decay * before * ~is_bias - step, 2e-3 if optimizer == "adam" else 1e-5)


def test_what_would_make_a_derivative_wrong_is_refused():
    g, n = network()
    v = g.add_neuron([n["z"]])
    before = g.get_parameters()
    for change in (
        lambda: g.add_edge(v, n["y"]),
        lambda: g.add_edge(n["x"], n["y"]),
        lambda: setattr(n["h"][0], "activation", "relu"),
    ):
        with pytest.raises(ValueError, match=r"a derivative made by mlgraph\.grad goes through n\d+"):
            change()
    assert np.array_equal(g.get_parameters(), before)
    n["h"][0].activation = "tanh"
    v.activation = "relu"


def test_files_and_copies_keep_derivatives(tmp_path):
    g, n = network()
    n["y"].in_edges[3].prune()
    model = mlgraph.Model(g, n["y"], loss=n["loss"])
    model.save(tmp_path / "m.npz")
    for graph in (mlgraph.load(tmp_path / "m.npz").graph, g.copy()):
        assert np.array_equal(graph.compile(graph[n["loss"].id])(X[:, :2]), g.compile(n["loss"])(X[:, :2]))
        with pytest.raises(ValueError, match="derivative"):
            graph[n["h"][0].id].activation = "relu"


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (lambda n: (1.0, n["x"]), TypeError, "grad: expected a node, got float"),
    (lambda n: (n["y"], 3), TypeError, "wrt: expected nodes or edges, got int"),
    (lambda n: (n["y"], mlgraph.Graph().add_input()), ValueError, "wrt: expected nodes of one graph"),
])  # fmt: skip
def test_wrong_arguments(arguments, error, message):
    g, n = network()
    size = len(g)
    with pytest.raises(error, match=message):
        mlgraph.grad(*arguments(n))
    assert len(g) == size


def test_biases_are_of_neurons_that_have_one():
    g = mlgraph.Graph()
    x = g.add_input("x")
    y = g.add_neuron([x], bias=None)
    with pytest.raises(TypeError, match="wrt: expected neurons, whose biases"):
        mlgraph.grad(y, x, of="bias")
    with pytest.raises(ValueError, match="has no bias"):
        mlgraph.grad(y, y, of="bias")


def test_formula_picture_and_value_of_a_weight():
    g = mlgraph.Graph()
    x = g.add_input("x")
    y = g.add_neuron([x], weights=[3.0])
    y.name = "y"
    slope = mlgraph.grad(y, x)
    assert (str(slope), slope.kind, slope.value) == ("weight(x, y)", "weight", 3.0)
    assert "weight" in slope.draw().to_svg()


def test_a_damped_oscillator_is_learnt_from_its_equation():
    g = mlgraph.Graph(seed=1)
    t = g.add_input("t")
    hidden = [g[i] for i in g.add_neurons([t], "tanh", n=16)]
    u = 1 + t * t * g.add_neuron([g[i] for i in g.add_neurons(hidden, "tanh", n=16)])
    velocity = mlgraph.grad(u, t)
    model = mlgraph.Model(g, u, loss=(mlgraph.grad(velocity, t) + 0.4 * velocity + 4 * u) ** 2)
    at = np.linspace(0, 4, 128)
    model.fit(at[:, None], epochs=10_000, batch_size=128, learning_rate=0.01, optimizer="adam", seed=0)
    w = 3.96**0.5
    assert (
        np.abs(model.predict(at[:, None]) - np.exp(-0.2 * at) * (np.cos(w * at) + 0.2 / w * np.sin(w * at))).max()
        < 0.05
    )


def test_second_derivatives_of_a_network_as_jax_in_float64():
    jax = pytest.importorskip("jax")
    g, n = network()
    inputs = [n["x"], n["z"]]
    second = [entry for slope in mlgraph.grad(n["y"], inputs) for entry in mlgraph.grad(slope, inputs)]
    w1, b1 = np.array([h.weights for h in n["h"]], float), np.array([h.bias for h in n["h"]])
    w2, w3 = np.array([s.weights for s in n["y"].sources], float), np.array(n["y"].weights, float)

    def y(x):
        return w3 @ jax.nn.sigmoid(w2 @ jax.numpy.tanh(w1 @ x + b1))

    with jax.enable_x64(True):
        expected = jax.vmap(jax.hessian(y))(X[:, :2].astype(float))
        close(g.compile(second)(X[:, :2]), np.array(expected).reshape(-1, 4), 1e-6)


def test_a_neuron_that_drops_out_is_refused():
    g, n = network()
    Plan(g, [n["loss"].id], [([n["h"][0].id], 0.0, 0.0)])
    with pytest.raises(ValueError, match=r"dropout: the loss depends on a derivative through n2, which drops out"):
        Plan(g, [n["loss"].id], [([n["h"][0].id], 0.5, 0.0)])


@pytest.mark.parametrize("damage", ["target", "differentiated"])
def test_files_with_impossible_weights_are_refused(tmp_path, damage):
    g, n = network()
    mlgraph.Model(g, n["y"], loss=n["loss"]).save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        arrays = dict(file)
    if damage == "target":
        arrays["code"][np.flatnonzero(g.codes == ops.OPS["mul"].code)] = ops.WEIGHT
    else:
        header = json.loads(arrays["header"].tobytes())
        header["differentiated"] = [0]
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(mlgraph.ModelFileError, match="weights of edges" if damage == "target" else "differentiated"):
        mlgraph.load(tmp_path / "m.npz")
