"""`to_onnx`: the same outputs by onnxruntime and onnx.reference as here, and back again."""

import numpy as np
import pytest
from graphs import cases, evaluate
from hypothesis import assume, given, settings
from onnx_judges import X, close, network, run_onnxruntime, run_reference

import mlgraph
from mlgraph import exchange
from mlgraph.graph.ops import ACTIVATIONS, OPS

onnx = pytest.importorskip("onnx")


def answers(model, x):
    """What the model's users get."""
    return model.predict_proba(x) if model.probabilities else model.forward(x)


def check(model, run, x=X, n_edges=None):
    """The model equals its export, and what comes back; returns both."""
    proto = exchange.to_onnx(model)
    onnx.checker.check_model(proto, full_check=True)
    expected = answers(model, x)
    close(run(proto, x.astype(np.float32)), expected)
    back = exchange.from_onnx(proto)
    close(answers(back, x), expected)
    assert (back.loss, back.n_edges) == (model.loss, n_edges or model.n_edges)
    return proto, back


def steps(proto):
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "softmax"])
@pytest.mark.parametrize("sparsity", [0, 0.6])
def test_layers_become_gemm_nodes_and_come_back(activation, sparsity, run):
    net = network(activation)
    net.prune(sparsity)
    proto, back = check(net, run)
    assert steps(proto).count("Gemm") == 3 and set(steps(proto)).isdisjoint(["Gather", "Concat"])
    assert isinstance(back, mlgraph.Network)
    for mine, theirs in zip(net.layers, back.layers, strict=True):
        assert mine.activation == theirs.activation
        assert np.array_equal(mine.mask, theirs.mask) and np.array_equal(mine.weights, theirs.weights)
        alive = [neuron.alive for neuron in mine]
        assert np.array_equal(mine.biases[alive], theirs.biases[alive])


@pytest.mark.parametrize(
    ("last", "loss", "output"),
    [
        ("identity", "squared_error", "outputs"),
        ("identity", "mse", "outputs"),
        ("sigmoid", "mse", "outputs"),
        ("tanh", "squared_error", "outputs"),
        ("sigmoid", "binary_cross_entropy", "probabilities"),
        ("softmax", "softmax_cross_entropy", "probabilities"),
    ],
)
@pytest.mark.parametrize("jumps", [False, True])
def test_the_output_is_what_users_get_and_the_loss_comes_back(last, loss, output, jumps, run):
    net = network("relu", last, loss)
    if jumps:
        for neuron in net.layers[-1]:
            net.graph.add_edge(0, neuron, 0.5)
    proto, back = check(net, run)
    assert [value.name for value in proto.graph.output] == [output]
    assert isinstance(back, mlgraph.Network) == (not jumps)
    assert len(back.probabilities) == len(net.probabilities)


def test_neurons_that_are_cut_off_are_zero(run):
    for activation in ("sigmoid", "softmax"):  # in a softmax they keep their edges, which are zeros
        net = network(activation)
        net.layers[0][2].prune()
        for edge in net.layers[1][0].in_edges:
            edge.prune()
        check(net, run, n_edges=net.n_edges + 5 + 7 if activation == "softmax" else None)
    net = network("sigmoid")
    net.graph.add_edge(0, net.layers[2][0], 0.5)
    for edge in net.layers[0][2].in_edges:
        edge.prune()
    check(net, run)


def test_jumping_edges_mixed_activations_and_missing_biases(run):
    net = network("relu")
    net.graph.add_edge(net.graph.inputs[1], net.layers[2][0], 0.7)
    net.graph.add_edge(net.layers[0][3], net.layers[2][1], -0.3)
    net.graph.add_edge(net.layers[0][0], net.layers[0][1], 1.5)
    for neuron, name in zip(net.layers[0], ACTIVATIONS, strict=False):
        neuron.activation = name
    net.layers[0][2].bias = net.layers[1][1].bias = None
    net.layers[1][0].in_edges[2].prune()
    proto, back = check(net, run)
    assert {"Gather", "Gemm", "Concat", "Softmax"} <= set(steps(proto))
    assert sorted(back.graph.neurons().activation) == sorted(net.graph.neurons().activation)


def test_sparse_graphs_of_many_levels(run):
    rng = np.random.default_rng(0)
    g = mlgraph.Graph(seed=0)
    nodes = g.add_inputs(5)
    for i in range(60):
        sources = rng.choice(len(nodes), rng.integers(1, min(6, len(nodes))), replace=False)
        bias = None if i % 3 == 0 else float(rng.normal())
        nodes.append(g.add_neuron([nodes[j] for j in sources], ACTIVATIONS[i % len(ACTIVATIONS)], bias=bias))
    check(mlgraph.Model(g, [nodes[-1], nodes[40], nodes[-1]]), run)


@pytest.mark.parametrize("scaling", ["bytes", "unscaled", (np.arange(5.0) * 1e6, np.linspace(1, 9, 5))])
@pytest.mark.parametrize("jumps", [False, True])
def test_the_scaling_is_part_of_the_model(scaling, jumps, run):
    net = network()
    if jumps:
        net.graph.add_edge(0, net.layers[2][0], 0.5)
    net.scaling = scaling
    x = np.random.default_rng(0).integers(0, 256, (9, 5)).astype(np.uint8)
    x = x if scaling == "bytes" else (x / 64 if scaling == "unscaled" else scaling[0] + x / 64).astype(np.float32)
    back = check(net, run, x)[1]
    assert np.array_equal(back.scaling, scaling)


@pytest.mark.parametrize("n", [1, 2, 100])
def test_any_number_of_examples(n, run):
    net = network()
    proto = exchange.to_onnx(net)
    x = np.resize(X, (n, 5))
    close(run(proto, x), net.predict_proba(x))


def test_single_neurons(run):
    g = mlgraph.Graph(seed=0)
    check(mlgraph.Model(g, g.add_neuron(g.add_inputs(5), "silu", weights=np.arange(1.0, 6.0))), run)
    net = mlgraph.Network(5, seed=0)
    net.add_layer(1, "sigmoid", loss="binary_cross_entropy")
    check(net, run)


def test_dropout_has_no_part_in_it(run):
    net = network(dropout=0.5)
    proto = check(net, run)[0]
    assert "Dropout" not in steps(proto)


@pytest.mark.parametrize("name", OPS)
def test_every_operation(name, run):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(5)
    y = [mlgraph.sigmoid(each) * 0.9 + 0.05 for each in x]  # in every domain
    arity = OPS[name].arity
    if arity < 0:
        outputs = [g.add_operation(name, *y), g.add_operation(name, y[0], y[2])]
    else:
        outputs = [g.add_operation(name, *(y[(i + j) % 5] for j in range(arity))) for i in range(3)]
    proto, back = check(mlgraph.Model(g, outputs), run)
    kinds = [node.kind for node in back.graph]
    assert [kinds.count(name), steps(proto)[-1]] == [[node.kind for node in g].count(name), "Concat"] or arity > 0
    assert name in kinds or name in ("identity", "expm1", "log1p")  # the last two come back as what they consist of


@pytest.mark.parametrize("name", ["expm1", "log1p"])
def test_operations_that_onnx_lacks_keep_their_relative_accuracy(name, run):
    """8 units in the last place for all float32 that are not about to underflow, also of what comes back."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    small, below = 10 ** rng.uniform(-36, 2, 100_000), 10 ** rng.uniform(-7, 0, 50_000) - 1
    ends = [0.0, -0.0, 1e-8, -1e-8, -0.5, 1.0, -1.0, 88.7, -200.0, np.inf, -np.inf, np.nan]
    with np.errstate(all="ignore"):
        x = np.concatenate([bits, small, -small, below, rng.uniform(-105, 90, 100_000), ends]).astype(np.float32)
        exact = getattr(np, name)(x.astype(float))
        rounded = exact.astype(np.float32)
    g = mlgraph.Graph()
    model = mlgraph.Model(g, g.add_operation(name, g.add_input()))
    proto = exchange.to_onnx(model)
    with np.errstate(all="ignore"):
        found = [run(proto, x[:, None]), exchange.from_onnx(proto).forward(x[:, None])]
    usual = np.isfinite(rounded) & ~(np.abs(x) < 1e-36)
    for y in found:
        error = np.abs(y[usual, 0] - exact[usual]) / np.spacing(np.abs(rounded[usual]))
        assert error.max() < 8, f"x = {x[usual][error.argmax()]!r}"
        np.testing.assert_array_equal(y[~np.isfinite(rounded), 0], rounded[~np.isfinite(rounded)])
        np.testing.assert_allclose(y[np.abs(x) < 1e-36, 0], rounded[np.abs(x) < 1e-36], rtol=0, atol=1e-42)


def test_parameters_and_constants_stay_what_they_are(run):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(5)
    a, b = g.add_parameter(1.5), g.add_parameter(-2.0)
    neuron = g.add_neuron([x[0], a], "tanh", weights=[1.0, 2.0])
    back = check(mlgraph.Model(g, [a * x[1] + b * neuron + 3.0, b, g.add_constant(7.0)]), run)[1]
    kinds = [node.kind for node in back.graph]
    assert (kinds.count("parameter"), kinds.count("constant")) == (2, 2)
    assert sorted(node.value for node in back.graph if node.kind == "parameter") == [-2.0, 1.5]


@pytest.mark.parametrize("activation", sorted({*ACTIVATIONS} - {"gelu", "silu"}))
def test_derivatives_that_read_weights(activation, run):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(5)
    y = g.add_neuron([g.add_neuron(x, "tanh"), x[0]], activation)
    slopes = mlgraph.grad(y, x)
    model = mlgraph.Model(g, [y, *slopes, *mlgraph.grad(slopes[0], x)])
    proto = exchange.to_onnx(model)
    close(run(proto, X), model.forward(X))
    close(exchange.from_onnx(proto).forward(X), model.forward(X))


def test_targets_of_a_loss_that_is_a_node_are_no_inputs(run):
    g = mlgraph.Graph(seed=0)
    x, _, target = g.add_inputs(3)
    output = g.add_neuron([x], "tanh")
    model = mlgraph.Model(g, output, (output - target) ** 2)
    proto = exchange.to_onnx(model)
    assert proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value == 2
    close(run(proto, X[:, :2]), model.forward(X[:, :2]))
    assert exchange.from_onnx(proto).loss == "squared_error"


def test_classes_and_columns_come_back(run):
    net = network()
    net.classes, net.columns = ("a", "b", "c"), tuple("vwxyz")
    back = check(net, run)[1]
    assert (back.classes, back.columns) == (net.classes, net.columns)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_random_graphs(case):
    model = mlgraph.Model(case.graph, case.outputs)
    exact, moved = (evaluate(case.graph, case.x.astype(float) * factor) for factor in (1, 1 + 1e-7))
    assume(all(np.allclose(exact[i], moved[i], rtol=1e-4, atol=1e-5) for i in model.output_ids))  # well conditioned
    proto = exchange.to_onnx(model)
    expected = model.forward(case.x)
    for run in (run_reference, run_onnxruntime):
        np.testing.assert_allclose(run(proto, case.x), expected, rtol=1e-4, atol=1e-5)
    back = exchange.from_onnx(proto)
    np.testing.assert_allclose(back.forward(case.x), expected, rtol=1e-4, atol=1e-5)


def test_files(tmp_path):
    net = network()
    net.prune(0.5)
    path = tmp_path / "model.onnx"
    proto = exchange.to_onnx(net, path)
    assert onnx.load(path) == proto
    assert exchange.from_onnx(path).n_edges == exchange.from_onnx(str(path)).n_edges == net.n_edges
    with pytest.raises(OSError, match="missing"):
        exchange.to_onnx(net, tmp_path / "missing" / "model.onnx")
