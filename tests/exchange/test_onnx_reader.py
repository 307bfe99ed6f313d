"""`from_onnx`: models of others, judged by onnxruntime and onnx.reference; refusals and damaged files."""

import sys
import warnings
from contextlib import suppress

import numpy as np
import pytest
from onnx_judges import X, close, network

import mlgraph
from mlgraph import exchange
from mlgraph.exchange import onnx_reader

onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper  # noqa: E402


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
        (lambda: proto_with(lambda p: p.graph.node[0].input.pop()), r"node m0 \(MatMul\): expected 2 inputs, got 1"),
        (linear(("Where", "a0", "y", {})), r"node y \(Where\): expected 3 inputs, got 1"),
        (linear(("Where", "", "y", {})), r"node y \(Where\): expected 3 inputs, got 0"),
        (linear(("Gemm", "a0 w1 b1 b1", "y", {})), r"node y \(Gemm\): expected 2 to 3 inputs, got 4"),
        (linear(("Sum", "", "y", {})), r"node y \(Sum\): expected 1 or more inputs, got 0"),
        (lambda: proto_with(lambda p: p.graph.node[1].output.append("z")), r"\(Add\): expected 1 output, got 2"),
        (
            lambda: proto_with(lambda p: p.graph.node[1].input.__setitem__(1, "")),
            r"node a0 \(Add\): input 2 of 2 has no name, but is not optional",
        ),
        (
            lambda: proto_of(*FIRST, ("Where", "a0", "y", {}), opset=7, **A),
            r"node y \(Where\): opset 7, that of the model, does not have it",
        ),
        (
            lambda: proto_with(lambda p: setattr(p.graph.node[2], "domain", "com.example")),
            r"node h \(Relu\): expected one of Abs",
        ),
        (
            linear(("Greater", "a0 t", "g", {}), ("Where", "g a0 a0", "y", {}), t=np.array(["a"], object)),
            "model: expected numbers in the array t, got strings",
        ),
        (linear(("Expand", "b0 t", "y", {}), t=np.array(3)), r"\(Expand\): expected a fixed array, expanded"),
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


EXAMPLES = {  # of operators that do not read just the columns a0: inputs and attributes
    **dict.fromkeys(("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub", "Sum"), ("a0 four", {})),
    "Cast": ("a0", {"to": 1}),
    "Concat": ("a0 a0", {"axis": 1}),
    "Constant": ("", {"value_floats": [1.0, 2.0, 3.0, 4.0]}),
    "Dropout": ("a0 half no", {}),
    "Expand": ("four shape", {}),
    "Gather": ("a0 index", {"axis": 1}),
    "Gemm": ("a0 w1 b1", {}),
    "Greater": ("a0 zero", {}),
    "LeakyRelu": ("a0", {"alpha": 0.01}),
    "MatMul": ("a0 w1", {}),
    **dict.fromkeys(("ReduceLogSumExp", "ReduceMax", "ReduceProd", "ReduceSum"), ("a0 one", {})),
    "Reshape": ("a0 wide", {}),
    "Scaler": ("x", {"offset": [0.0] * 5, "scale": [2.0] * 5}),
    "Slice": ("four none one none one", {}),
    "Squeeze": ("row none", {}),
    "Transpose": ("four", {}),
    "Unsqueeze": ("four none", {}),
    "Where": ("g a0 four", {}),
}
ARRAYS = {
    "four": np.ones(4, "f"),
    "row": np.ones((1, 4), "f"),
    "half": np.float32(0.5),
    "no": np.array(False),
    "zero": np.float32(0),
    "none": np.array([0]),
    "one": np.array([1]),
    "index": np.array([1, 3]),
    "wide": np.array([-1, 2, 2]),
}


def example(operator):
    """A model whose node t is of this operator, and that node; the output reads it."""
    inputs, attributes = EXAMPLES.get(operator, ("a0", {}))
    before = [*FIRST, ("Greater", "a0 zero", "g", {}), ("Shape", "a0", "shape", {})]
    after = {"Greater": ("Where", "t a0 a0", "y", {})}.get(operator, ("Identity", "t", "y", {}))
    nodes = [*before, (operator, inputs, "t", attributes), after]
    proto = proto_of(*nodes, opset=24 if operator == "Swish" else 20, **A, **B, **ARRAYS)
    return proto, proto.graph.node[len(before)]


def refusal(proto):
    """The message of the ValueError, the only error there may be; empty without one."""
    try:
        exchange.from_onnx(proto)
    except ValueError as error:
        return str(error)
    return ""


OPERATORS = sorted(name for name in onnx_reader._READERS if name != "Swish" or onnx.defs.onnx_opset_version() >= 24)


@pytest.mark.parametrize("operator", OPERATORS)
def test_inputs_that_an_operator_has_not_are_refused_by_name(operator):
    """Each input is dropped, one is added, and each loses its name."""
    proto, node = example(operator)
    schema = onnx.defs.get_schema(operator, 3 if node.domain else 20 + 4 * (operator == "Swish"), node.domain)
    inputs, here = list(node.input), f"node t ({operator}): "
    assert not refusal(proto).startswith((here + "input", here + f"expected {schema.min_input}"))
    changed = [inputs[:i] + inputs[i + 1 :] for i in range(len(inputs))] + [[]]
    changed += [[*inputs, extra] for extra in ("a0", "four", "one", "shape", "g", "")]
    changed += [[*inputs[:i], "", *inputs[i + 1 :]] for i in range(len(inputs))]
    for names in changed:
        node.input[:] = names
        message = refusal(proto)
        required = names if schema.max_input > 5 else names[: schema.min_input]
        if not schema.min_input <= len(names) <= schema.max_input:
            assert message.startswith(here + "expected ") and message.endswith(f"got {len(names)}")
        elif "" in required:
            assert message == f"{here}input {names.index('') + 1} of {len(names)} has no name, but is not optional"


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("outputs", [[], [""], ["t", "u"], ["t", ""], ["", "t"], ["t", "u", "v"]])
def test_outputs_that_an_operator_has_not_are_refused_by_name(operator, outputs):
    proto, node = example(operator)
    node.output[:] = outputs
    if "t" not in outputs:
        assert refusal(proto).startswith("model: ")  # nothing makes t
    elif len(outputs) > (2 if operator == "Dropout" else 1):
        expected = "1 to 2 outputs" if operator == "Dropout" else "1 output"
        assert refusal(proto) == f"node t ({operator}): expected {expected}, got {len(outputs)}"
    elif not outputs[0]:
        assert "output 1 of 2 has no name, but is not optional" in refusal(proto)


@pytest.mark.parametrize("version", [-(2**40), -1, 0, 99, 2**31, 2**40])
def test_any_opset_of_scalers_ends_in_no_other_error(version):
    proto, _ = example("Scaler")
    proto.opset_import[1].version = version
    refusal(proto)


def test_operators_of_other_domains_are_not_taken_for_those_of_onnx():
    proto = proto_of(*FIRST, *SILU, *last("h"), **A, **B)
    assert exchange.from_onnx(proto).layers[0].activation == "silu"
    proto.graph.node[2].domain = "com.example"
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(ValueError, match=r"node s \(Sigmoid\): expected one of"):
        exchange.from_onnx(proto)


def test_nodes_that_nothing_needs_may_have_outputs_without_a_name():
    proto = proto_of(*FIRST, ("Dropout", "a0", "d", {}), ("Unknown", "a0", "u", {}), *last("d"), **A, **B)
    proto.graph.node[2].input.extend(["", ""])
    proto.graph.node[3].output[:] = ["u", ""]
    proto.graph.node[3].domain = "com.example"
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    close(exchange.from_onnx(proto).forward(X), (X @ A["w0"] + A["b0"]) @ B["w1"] + B["b1"])


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
        with pytest.raises(ImportError, match=r"_onnx needs ONNX \(.*\): pip install "):
            call()
