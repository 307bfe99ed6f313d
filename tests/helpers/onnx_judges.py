"""Judges of ONNX models, onnxruntime and onnx.reference, and a network for them."""

import numpy as np
import pytest

import mlgraph

reference = pytest.importorskip("onnx.reference")  # where it is missing, all tests that import this module are skipped

X = np.random.default_rng(0).normal(size=(33, 5)).astype(np.float32)


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


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def network(activation="tanh", last="softmax", loss=None, **options):
    net = mlgraph.Network(5, seed=0)
    net.add_layer(7, activation, **options)
    net.add_layer(4, activation)
    net.add_layer(3, last, loss=loss)
    for layer in net.layers:
        layer.weights, layer.biases = 2 * layer.weights, np.linspace(-0.5, 0.5, layer.size)
    return net
