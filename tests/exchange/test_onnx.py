"""onnxruntime and onnx.reference judge: the same outputs there and here, and back again."""

import sys
import warnings
from contextlib import suppress

import numpy as np
import pytest
from graphs import cases
from hypothesis import given, settings

import mlgraph
from mlgraph import exchange
from mlgraph.graph.ops import ACTIVATIONS, OPS

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
from onnx import helper, numpy_helper  # noqa: E402

X = np.random.default_rng(0).normal(size=(33, 5)).astype(np.float32)
MISSING = ("expm1", "log1p")


def run_reference(proto, x):
    (outputs,) = reference.ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: x})
    return outputs


def run_onnxruntime(proto, x):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {proto.graph.input[0].name: x})
    return outputs


@pytest.fixture(params=[run_reference, run_onnxruntime], ids=["reference", "onnxruntime"])
def run(request):
    return request.param


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


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


def network(activation="tanh", last="softmax", loss=None, **options):
    net = mlgraph.Network(5, seed=0)
    net.add_layer(7, activation, **options)
    net.add_layer(4, activation)
    net.add_layer(3, last, loss=loss)
    for layer in net.layers:
        layer.weights, layer.biases = 2 * layer.weights, np.linspace(-0.5, 0.5, layer.size)
    return net


def steps(proto):
    return [node.op_type for node in proto.graph.node]


# --- to ONNX and back -----------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", sorted(set(OPS) - set(MISSING)))
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
    assert name in kinds or name == "identity"


@pytest.mark.parametrize("name", MISSING)
def test_operations_that_onnx_lacks_are_refused_by_name(name):
    g = mlgraph.Graph()
    y = g.add_operation(name, g.add_input("x")) + 1
    with pytest.raises(ValueError, match=f"to_onnx: n1 is {name}, which ONNX does not have; write"):
        exchange.to_onnx(mlgraph.Model(g, y))


def test_parameters_and_constants_stay_what_they_are(run):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(5)
    a, b = g.add_parameter(1.5), g.add_parameter(-2.0)
    neuron = g.add_neuron([x[0], a], "tanh", weights=[1.0, 2.0])
    back = check(mlgraph.Model(g, [a * x[1] + b * neuron + 3.0, b, g.add_constant(7.0)]), run)[1]
    kinds = [node.kind for node in back.graph]
    assert (kinds.count("parameter"), kinds.count("constant")) == (2, 2)
    assert sorted(node.value for node in back.graph if node.kind == "parameter") == [-2.0, 1.5]


def test_derivatives_that_read_weights(run):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(5)
    y = g.add_neuron([g.add_neuron(x, "tanh"), x[0]], "sigmoid")
    model = mlgraph.Model(g, [y, *mlgraph.grad(y, x)])
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


def needed(outputs):
    """The outputs and what they depend on."""
    found, todo = {}, list(outputs)
    while todo:
        node = todo.pop()
        if found.setdefault(node.id, node) is node:
            todo.extend(node.sources)
    return found.values()


@settings(max_examples=60, deadline=None)
@given(cases())
def test_random_graphs(case):
    model = mlgraph.Model(case.graph, case.outputs)
    if any(node.kind in MISSING for node in needed(case.outputs)):
        with pytest.raises(ValueError, match="which ONNX does not have"):
            exchange.to_onnx(model)
        return
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


# --- models of others -----------------------------------------------------------------------------


def proto_of(*nodes, opset=17, shape=("batch", 5), n_outputs=3, output="y", kind=onnx.TensorProto.FLOAT, **arrays):
    """A model whose input is x and output y; nodes are (op_type, inputs, output, attributes)."""
    made = [
        helper.make_node(step, inputs.split(), [out], domain="ai.onnx.ml" if step == "Scaler" else "", **attributes)
        for step, inputs, out, attributes in nodes
    ]
    graph = helper.make_graph(
        made,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["batch", n_outputs])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


RNG = np.random.default_rng(1)
A = {"w0": RNG.normal(size=(5, 4)).astype("f"), "b0": RNG.normal(size=4).astype("f")}
B = {"w1": RNG.normal(size=(4, 3)).astype("f"), "b1": RNG.normal(size=3).astype("f")}
FIRST = [("MatMul", "x w0", "m0", {}), ("Add", "m0 b0", "a0", {})]


def last(source, name="y"):
    return [("Gemm", f"{source} w1 b1", name, {})]


SILU = [("Sigmoid", "a0", "s", {}), ("Mul", "a0 s", "h", {})]
GELU = [
    ("Div", "a0 root", "d", {}),
    ("Erf", "d", "e", {}),
    ("Add", "e one", "p", {}),
    ("Mul", "a0 p", "q", {}),
    ("Mul", "q half", "h", {}),
]
GELU_BY_PRODUCTS = [
    ("Mul", "inverse a0", "d", {}),
    ("Erf", "d", "e", {}),
    ("Add", "one e", "p", {}),
    ("Mul", "half p", "q", {}),
    ("Mul", "q a0", "h", {}),
]
SOFTPLUS = [("Greater", "a0 twenty", "g", {}), ("Softplus", "a0", "s", {}), ("Where", "g a0 s", "h", {})]
NUMBERS = {
    "twenty": np.float32(20),
    "root": np.float32(2**0.5),
    "inverse": np.float32(0.5**0.5),
    "one": np.float32(1),
    "half": np.float32(0.5),
}


@pytest.mark.parametrize(
    ("nodes", "activation"),
    [
        ([("Relu", "a0", "h", {})], "relu"),
        ([("LeakyRelu", "a0", "h", {})], "leaky_relu"),
        ([("Elu", "a0", "h", {"alpha": 1.0})], "elu"),
        ([("Softplus", "a0", "h", {})], "softplus"),
        ([("Identity", "a0", "i", {}), ("Tanh", "i", "j", {}), ("Dropout", "j", "h", {})], "tanh"),
        ([("Cast", "a0", "c", {"to": 1}), ("Sigmoid", "c", "h", {})], "sigmoid"),
        (SILU, "silu"),
        (GELU, "gelu"),
        (GELU_BY_PRODUCTS, "gelu"),
        (SOFTPLUS, "softplus"),
    ],
)
def test_products_sums_and_activations_become_layers(nodes, activation, run):
    proto = proto_of(*FIRST, *nodes, *last("h"), **A, **B, **NUMBERS)
    net = exchange.from_onnx(proto)
    assert [layer.activation for layer in net.layers] == [activation, "identity"]
    close(net.forward(X), run(proto, X))


def test_values_that_others_read_as_well_are_not_changed(run):
    nodes = [
        *FIRST,
        ("Identity", "a0", "i", {}),
        ("Relu", "i", "r", {}),
        ("Concat", "a0 r", "c", {"axis": 1}),
        ("Gather", "c low", "g", {"axis": 1}),
        ("Tanh", "g", "t", {}),
        ("Concat", "c t", "d", {"axis": -1}),
        ("Gather", "d some", "y", {"axis": 1}),
    ]
    proto = proto_of(*nodes, **A, low=np.arange(4), some=np.array([0, 5, -1]))
    close(exchange.from_onnx(proto).forward(X), run(proto, X))


def test_a_product_that_has_two_sums_and_a_sum_that_is_read_before_its_activation(run):
    nodes = [("MatMul", "x w", "m", {}), ("Add", "m b1", "p", {}), ("Add", "m b2", "q", {}), ("Relu", "p", "r", {})]
    nodes += [("Add", "r q", "s", {}), ("Sub", "s p", "y", {})]
    proto = proto_of(*nodes, w=np.ones((5, 3), "f"), b1=B["b1"], b2=-2 * B["b1"])
    close(exchange.from_onnx(proto).forward(X), run(proto, X))


@pytest.mark.parametrize(
    ("nodes", "loss", "expected"),
    [
        ([("Softmax", "l", "y", {"axis": 1})], None, "softmax_cross_entropy"),
        ([("LogSoftmax", "l", "y", {})], None, "softmax_cross_entropy"),
        ([("Sigmoid", "l", "y", {})], None, "squared_error"),
        ([("Sigmoid", "l", "y", {})], "binary_cross_entropy", "binary_cross_entropy"),
        ([("Identity", "l", "y", {})], "binary_cross_entropy", "binary_cross_entropy"),
        ([("Identity", "l", "y", {})], "softmax_cross_entropy", "softmax_cross_entropy"),
        ([("Identity", "l", "y", {})], "mse", "mse"),
    ],
)
@pytest.mark.parametrize("jumps", [False, True])
def test_the_end_and_the_loss_decide_on_the_outputs(nodes, loss, expected, jumps, run):
    hidden = [("Relu", "a0", "h", {}), *last("h", "k")]
    jump = [("Gemm", "x v", "j", {}), ("Add", "k j", "l", {})] if jumps else [("Identity", "k", "l", {})]
    proto = proto_of(*FIRST, *hidden, *jump, *nodes, **A, **B, v=RNG.normal(size=(5, 3)).astype("f"))
    model = exchange.from_onnx(proto, loss=loss)
    assert model.loss == expected and isinstance(model, mlgraph.Network) == (not jumps)
    theirs = run(proto, X)
    if nodes[0][0] == "Identity" or expected == "squared_error":
        close(model.forward(X), theirs)
    else:
        close(model.predict_proba(X), np.exp(theirs) if nodes[0][0] == "LogSoftmax" else theirs)


def test_images_that_are_flattened_and_scaled(run):
    image = np.random.default_rng(0).integers(0, 256, (9, 1, 2, 3)).astype(np.uint8)
    w = RNG.normal(size=(6, 3)).astype("f")
    flattened = [
        [("Flatten", "d", "f", {})],
        [("Reshape", "d wide", "f", {})],
        [
            ("Shape", "d", "s", {}),
            ("Gather", "s zero", "n", {}),
            ("Unsqueeze", "n axes", "u", {}),
            ("Concat", "u minus", "t", {"axis": 0}),
            ("Reshape", "d t", "f", {}),
        ],
    ]
    for nodes in flattened:
        proto = proto_of(
            ("Cast", "x", "c", {"to": 1}),
            ("Div", "c full", "d", {}),
            *nodes,
            ("MatMul", "f w", "y", {}),
            shape=("batch", 1, 2, 3),
            kind=onnx.TensorProto.UINT8,
            w=w,
            full=np.float32(255),
            wide=np.array([-1, 6]),
            zero=np.array(0),
            axes=np.array([0]),
            minus=np.array([-1]),
        )
        net = exchange.from_onnx(proto)
        assert net.scaling == "bytes"
        close(net.forward(image.reshape(9, 6)), run(proto, image))


@pytest.mark.parametrize(
    "nodes",
    [
        [("Scaler", "x", "z", {"offset": [1.0, 2, 3, 4, 5], "scale": [0.5, 1, 2, 3, 4]})],
        [("Sub", "x mean", "u", {}), ("Div", "u std", "z", {})],
        [("Mul", "std x", "u", {}), ("Add", "mean u", "z", {})],
        [("Div", "mean x", "u", {}), ("Sub", "mean u", "z", {})],  # no scaling, but operations
    ],
)
def test_a_scaling_of_the_inputs(nodes, run):
    mean, std = np.linspace(-1, 2, 5, dtype="f"), np.linspace(0.5, 3, 5, dtype="f")
    first = [(step, inputs.replace("x", "z"), out, attributes) for step, inputs, out, attributes in FIRST]
    proto = proto_of(*nodes, *first, ("Relu", "a0", "h", {}), *last("h"), **A, **B, mean=mean, std=std)
    model = exchange.from_onnx(proto)
    assert isinstance(model.scaling, tuple) == isinstance(model, mlgraph.Network) == ("Div" != nodes[0][0])
    x = np.abs(X) + 0.5
    np.testing.assert_allclose(model.forward(x), run(proto, x), rtol=1e-5, atol=1e-5)


def test_an_mlp_of_skl2onnx(run):
    """As written for an MLPClassifier: only the probabilities are asked for."""
    nodes = [
        ("Cast", "x", "c", {"to": 1}),
        ("MatMul", "c w0", "m0", {}),
        ("Add", "m0 b0", "a0", {}),
        ("Relu", "a0", "h", {}),
        ("MatMul", "h w1", "m1", {}),
        ("Add", "m1 b1", "a1", {}),
        ("Softmax", "a1", "p", {}),
        ("ArgMax", "p", "label", {"axis": 1, "keepdims": 0}),
    ]
    arrays = {**A, **B, "b0": A["b0"][None], "b1": B["b1"][None]}
    proto = proto_of(*nodes, output="p", kind=onnx.TensorProto.DOUBLE, **arrays)
    net = exchange.from_onnx(proto)
    assert str(net).startswith("<Network 5-4-3: 32 edges>") and net.loss == "softmax_cross_entropy"
    close(net.predict_proba(X), run(proto, X.astype(float)))


@pytest.mark.parametrize("opset", [7, 12, 13, 18])
def test_opsets(opset):
    proto = proto_of(*FIRST, ("Relu", "a0", "h", {}), *last("h"), opset=opset, **A, **B)
    expected = np.maximum(X @ A["w0"] + A["b0"], 0) @ B["w1"] + B["b1"]
    close(exchange.from_onnx(proto).forward(X), expected)


def test_attributes_of_gemm(run):
    proto = proto_of(
        ("Gemm", "x w b", "h", {"alpha": 0.5, "beta": 2.0, "transB": 1}),
        ("Gemm", "h v", "y", {"alpha": 3.0}),
        w=A["w0"].T.copy(),
        b=np.float32(0.25),
        v=B["w1"],
    )
    net = exchange.from_onnx(proto)
    assert np.isnan(net.layers[1].biases).all() and not np.isnan(net.layers[0].biases).any()
    close(net.forward(X), run(proto, X))


def test_zeros_are_cut_edges_unless_they_are_to_stay():
    net = network()
    net.prune(0.5)
    proto = exchange.to_onnx(net)
    assert exchange.from_onnx(proto, cut_zeros=False).n_edges == 5 * 7 + 7 * 4 + 4 * 3
    assert exchange.from_onnx(proto).n_edges == net.n_edges


def test_neurons_of_nothing_but_zeros(run):
    w = {**A, **B, "w0": A["w0"].copy(), "w1": B["w1"].copy()}
    w["w0"][:, 1] = w["w1"][:, 2] = 0
    proto = proto_of(*FIRST, ("Sigmoid", "a0", "h", {}), *last("h"), **w)
    for cut_zeros in (True, False):
        close(exchange.from_onnx(proto, cut_zeros=cut_zeros).forward(X), run(proto, X))
    jump = proto_of(*FIRST, ("Sigmoid", "a0", "h", {}), *last("h", "l"), ("Add", "l b1", "y", {}), **w)
    close(exchange.from_onnx(jump).forward(X), run(jump, X))
    zeros = proto_of(*FIRST, ("Sigmoid", "a0", "h", {}), *last("h"), **{**w, "w0": np.zeros((5, 4), "f")})
    with pytest.raises(ValueError, match=r"layer 1 neuron 0 is cut off .* read the zeros as edges by cut_zeros=False$"):
        exchange.from_onnx(zeros)
    close(exchange.from_onnx(zeros, cut_zeros=False).forward(X), run(zeros, X))


@pytest.mark.parametrize(
    "almost",
    [
        [("Sigmoid", "b", "s", {}), ("Mul", "a0 s", "h", {})],
        [("Div", "a0 inverse", "d", {}), *GELU[1:]],
        [*GELU[:2], ("Add", "e half", "p", {}), *GELU[3:]],
        [*GELU[:4], ("Mul", "q one", "h", {})],
        [("Greater", "a0 zero", "g", {}), *SOFTPLUS[1:]],
    ],
)
def test_what_is_almost_an_activation_is_none(almost, run):
    nodes = [*FIRST, ("Tanh", "a0", "b", {}), *almost, *last("h")]
    proto = proto_of(*nodes, **A, **B, **NUMBERS, zero=np.float32(0))
    model = exchange.from_onnx(proto)
    assert not isinstance(model, mlgraph.Network)
    close(model.forward(X), run(proto, X))


@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize("name", ["ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Softplus", "Sigmoid", "Tanh"])
def test_what_pytorch_exports(name, opset, run, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    hidden = [torch.nn.Flatten(), torch.nn.Linear(6, 7), getattr(torch.nn, name)(), torch.nn.Dropout(0.5)]
    module = torch.nn.Sequential(*hidden, torch.nn.Linear(7, 3), torch.nn.Softmax(dim=1)).eval()
    x = torch.randn(9, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter without further packages is the older one
        torch.onnx.export(
            module,
            (x,),
            str(tmp_path / "model.onnx"),
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
        )
    net = exchange.from_onnx(tmp_path / "model.onnx")
    assert [layer.activation for layer in net.layers] == [name.lower().replace("leakyrelu", "leaky_relu"), "softmax"]
    close(net.predict_proba(x.reshape(9, 6).numpy()), run(onnx.load(tmp_path / "model.onnx"), x.numpy()))
    close(net.predict_proba(x.reshape(9, 6).numpy()), module(x).detach().numpy())


def test_a_source_that_is_read_twice(run):
    proto = proto_of(
        ("Gather", "x twice", "g", {"axis": 1}), ("Gemm", "g w1 b1", "y", {}), **B, twice=np.array([3, 1, 3, 3])
    )
    model = exchange.from_onnx(proto)
    assert model.n_edges == 2 * 3
    close(model.forward(X), run(proto, X))


def test_arrays_in_another_file(run, tmp_path):
    """Also names as torch.onnx.export writes them."""
    nodes = [
        ("Flatten", "x", "/0/Flatten_output_0", {"axis": 1}),
        ("Gemm", "/0/Flatten_output_0 1.weight 1.bias", "/1/Gemm_output_0", {"alpha": 1.0, "beta": 1.0, "transB": 1}),
        ("Elu", "/1/Gemm_output_0", "/2/Elu_output_0", {"alpha": 1.0}),
        ("Gemm", "/2/Elu_output_0 3.weight 3.bias", "y", {"alpha": 1.0, "beta": 1.0, "transB": 1}),
    ]
    arrays = {"1.weight": A["w0"].T.copy(), "1.bias": A["b0"], "3.weight": B["w1"].T.copy(), "3.bias": B["b1"]}
    proto = proto_of(*nodes, **arrays)
    onnx.save(proto, tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0, location="weights.bin")
    net = exchange.from_onnx(tmp_path / "model.onnx", loss="softmax_cross_entropy")
    assert [layer.activation for layer in net.layers] == ["elu", "softmax"]
    close(net.forward(X), run(proto_of(*nodes, **arrays), X))


# --- refusals -------------------------------------------------------------------------------------


def proto_with(change):
    proto = proto_of(*FIRST, ("Relu", "a0", "h", {}), *last("h"), **A, **B)
    change(proto)
    return proto


def linear(*nodes, **arrays):
    return lambda: proto_of(*FIRST, *nodes, **{**A, **B, **arrays})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (linear(("Selu", "a0", "h", {}), *last("h")), r"node h \(Selu\): expected one of Abs, Acos, Add"),
        (linear(("LeakyRelu", "a0", "h", {"alpha": 0.2}), *last("h")), r"node h \(LeakyRelu\): expected alpha=0.01"),
        (linear(("Elu", "a0", "h", {"alpha": 0.2}), *last("h")), r"node h \(Elu\): expected alpha=1.0, got 0.2"),
        (linear(("Softmax", "a0", "h", {"axis": 0}), *last("h")), r"node h \(Softmax\): expected axis=1, got 0"),
        (linear(("LogSoftmax", "a0", "h", {}), *last("h")), r"\(LogSoftmax\): expected nothing after it"),
        (
            linear(
                *last("a0", "l"),
                ("Gemm", "x w0", "j", {}),
                ("Concat", "l j", "k", {"axis": 1}),
                ("LogSoftmax", "k", "y", {}),
            ),
            "loss: expected softmax_cross_entropy after LogSoftmax, got mse",
        ),
        (
            linear(("Reshape", "a0 t", "y", {"allowzero": 1}), t=np.array([-1, 0])),
            "expected a shape that begins with the number of examples",
        ),
        (
            linear(("Concat", "a0 " * 2000, "c", {"axis": 1}), ("Concat", "c " * 3000, "y", {"axis": 1})),
            r"node y \(Concat\): expected at most 16777216 values in all, got 24000000",
        ),
        (
            linear(
                ("Concat", "t " * 2000, "c", {"axis": 0}),
                ("Concat", "c c", "d", {"axis": 0}),
                ("Add", "a0 d", "y", {}),
                t=np.ones(4, "f"),
            ),
            r"node d \(Concat\): expected arrays of at most 4096 numbers",
        ),
        (linear(*last("a0"), w1=np.ones((5, 3), "f")), r"node y \(Gemm\): expected weights for 4 columns, got 5"),
        (linear(*last("a0"), b1=np.ones(2, "f")), r"node y \(Gemm\): expected an array for shape \(3,\), got \(2,\)"),
        (linear(*last("a0"), w1=np.full((4, 3), np.nan, "f")), r"node y \(Gemm\): expected finite weights, got nan"),
        (linear(*last("a0"), w1=np.ones((1, 4, 3), "f")), r"\(Gemm\): expected weights that are a fixed array of two"),
        (linear(("Gemm", "w1 a0", "y", {})), r"node y \(Gemm\): expected values of shape .batch, columns. .* an array"),
        (linear(("Transpose", "a0", "y", {})), r"node y \(Transpose\): expected arrays that are the same for all"),
        (linear(("Gemm", "a0 w1", "y", {"transA": 1})), r"node y \(Gemm\): expected transA=0, got 1"),
        (linear(("MatMul", "a0 a0", "y", {})), r"node y \(MatMul\): expected weights that are a fixed array"),
        (linear(("Reshape", "a0 t", "y", {}), t=np.array([4, -1])), "a shape that begins with the number of examples"),
        (linear(("Reshape", "a0 t", "y", {}), t=np.array([-1, 3])), r"expected a shape for 4 columns, got \[-1, 3\]"),
        (linear(("Flatten", "a0", "y", {"axis": 0})), r"node y \(Flatten\): expected axis=1, got 0"),
        (linear(("Cast", "a0", "h", {"to": 7}), ("Cast", "h", "y", {"to": 1})), r"\(Cast\): expected a Cast to floats"),
        *(
            (
                linear(("Cast", "a0", "h", {"to": kind}), ("Cast", "h", "c", {"to": 1}), *last("c")),
                rf"node h \(Cast\): expected a Cast to floats of 32 or 64 bits, got {name}",
            )
            for kind, name in ((10, "FLOAT16"), (16, "BFLOAT16"))
        ),
        (linear(("Gather", "a0 t", "y", {}), t=np.array([0])), r"node y \(Gather\): expected axis=1"),
        (linear(("Gather", "a0 t", "y", {"axis": 1}), t=np.array([4])), "expected indices of 4 columns"),
        (linear(("Concat", "a0 a0", "y", {"axis": 0})), r"node y \(Concat\): expected axis=1"),
        (linear(("Add", "a0 t", "y", {}), t=np.ones(3, "f")), r"node y \(Add\): expected"),
        (linear(("Dropout", "a0 r t", "y", {}), r=np.float32(0.5), t=np.array(True)), "expected training_mode=False"),
        (linear(("ReduceSum", "a0 t", "y", {"keepdims": 0}), t=np.array([1])), r"expected axes=\[1\] and keepdims=1"),
        (linear(("ReduceSum", "a0 t", "y", {}), t=np.array([0])), r"expected axes=\[1\] and keepdims=1"),
        (
            lambda: proto_of(("Add", "x t", "u", {}), ("Cast", "u", "y", {"to": 1}), kind=7, t=np.arange(5)),
            "expected an input x of floats, or a Cast of it to floats",
        ),
        (lambda: proto_of(*FIRST, shape=("batch", None), output="a0", **A), "with a fixed number of columns"),
        (lambda: proto_of(*FIRST, shape=(5,), output="a0", **A), r"expected an input x of shape \(batch, columns\)"),
        (
            lambda: proto_of(*FIRST, opset=6, output="a0", **A),
            "expected an opset from 7 to .* got 6; onnx.version_conv",
        ),
        (lambda: proto_of(*FIRST, opset=999, output="a0", **A), "expected an opset from 7 to .* got 999; a newer onnx"),
        (
            lambda: proto_with(lambda p: p.graph.output.append(helper.make_tensor_value_info("h", 1, ["batch", 4]))),
            "expected one output, got y, h; delete the others from model.graph.output",
        ),
        (
            lambda: proto_with(lambda p: p.graph.input.append(helper.make_tensor_value_info("z", 1, ["batch", 4]))),
            "expected one input, got x, z",
        ),
        (lambda: proto_with(lambda p: p.graph.ClearField("output")), "expected one output, got none"),
        (lambda: proto_with(lambda p: p.graph.ClearField("initializer")), "model: .*w0"),
        (lambda: proto_with(lambda p: p.graph.node.reverse()), "model: Nodes in a graph must be topologically sorted"),
        (lambda: proto_with(lambda p: p.graph.node[0].input.pop()), "model: .*MatMul"),
        (lambda: proto_with(lambda p: p.graph.ClearField("node")), "model: expected a model of ONNX, got one without"),
        (lambda: onnx.ModelProto(), "model: expected a model of ONNX, got one without nodes"),
        (
            lambda: proto_with(lambda p: helper.set_model_props(p, {"mlgraph": "[]"})),
            "model: metadata mlgraph: expected a JSON object",
        ),
        (lambda: proto_with(lambda p: setattr(p.graph.initializer[0], "raw_data", b"123")), "model: .*"),
        (
            lambda: proto_of(("Constant", "", "y", {"value_floats": [1.0, 2.0, 3.0]})),
            r"expected an output y of shape \(batch, outputs\) that reads the input",
        ),
        (
            linear(("Constant", "", "t", {}), ("Add", "a0 t", "y", {})),
            r"node t \(Constant\): expected one attribute, its value, got none",
        ),
    ],
)
def test_models_without_a_counterpart_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        exchange.from_onnx(make(), loss="mse")


def test_damaged_files(tmp_path):
    path = tmp_path / "model.onnx"
    exchange.to_onnx(network(), path)
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])
    with pytest.raises(ValueError, match=r"model: model.onnx is no file of ONNX, or damaged"):
        exchange.from_onnx(path)
    path.write_bytes(b"PK\x03\x04 no model")
    with pytest.raises(ValueError, match=r"model: model.onnx is no file of ONNX, or damaged"):
        exchange.from_onnx(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="expected a model of ONNX, got one without nodes"):
        exchange.from_onnx(path)
    with pytest.raises(FileNotFoundError):
        exchange.from_onnx(tmp_path / "missing.onnx")
    proto = proto_of(*FIRST, ("Relu", "a0", "h", {}), *last("h"), **A, **B)
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    with pytest.raises(ValueError, match=r"the array w0 is in another file; onnx.load reads it, too"):
        exchange.from_onnx(onnx.load(path, load_external_data=False))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(
        ValueError, match=r"the arrays that model.onnx has in other files cannot be read: .*weights.bin"
    ):
        exchange.from_onnx(path)


def test_any_byte_may_be_wrong(tmp_path):
    contents = exchange.to_onnx(network()).SerializeToString()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(contents)
        for at in rng.integers(0, len(damaged), 3):
            damaged[at] = rng.integers(256)
        (tmp_path / "model.onnx").write_bytes(damaged)
        with suppress(TypeError, ValueError):
            exchange.from_onnx(tmp_path / "model.onnx")


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"to_onnx: expected a Model, got Graph; Model.graph, outputs. makes one"):
        exchange.to_onnx(mlgraph.Graph())
    with pytest.raises(ValueError, match="expected at least one layer"):
        exchange.to_onnx(mlgraph.Network(3))
    with pytest.raises(TypeError, match="model: expected a path, got Network"):
        exchange.from_onnx(network())
    proto = exchange.to_onnx(network(last="identity"))
    with pytest.raises(TypeError, match="cut_zeros: expected True or False"):
        exchange.from_onnx(proto, cut_zeros=1)
    with pytest.raises(ValueError, match="loss"):
        exchange.from_onnx(proto, loss="hinge")


def test_without_onnx_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (lambda: exchange.to_onnx(network()), lambda: exchange.from_onnx("model.onnx")):
        with pytest.raises(ImportError, match=r"_onnx needs ONNX \(.*\): pip install 'mlgraph\[exchange\]'"):
            call()
