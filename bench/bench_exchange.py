"""What it takes to go to another library and back: LeNet-300-100, whole and with 5 % of its edges."""

import numpy as np
import pytest

import mlgraph
from mlgraph import exchange


def lenet():
    net = mlgraph.Network(784, seed=0)
    for size, activation in ((300, "relu"), (100, "relu"), (10, "softmax")):
        net.add_layer(size, activation)
    return net


@pytest.mark.benchmark(group="exchange of LeNet-300-100")
@pytest.mark.parametrize("cut", [0, 0.95], ids="{:.0%} cut".format)
@pytest.mark.parametrize("direction", ["to", "from"])
@pytest.mark.parametrize("library", ["torch", "sklearn", "networkx", "onnx"])
def bench_exchange(benchmark, note, library, direction, cut):
    """One conversion; zeros of scikit-learn and ONNX are cut again."""
    pytest.importorskip(library)
    net = lenet()
    if cut:
        net.prune(cut)
    there, back = (getattr(exchange, f"{way}_{library}") for way in ("to", "from"))
    options = {"torch": {"loss": net.loss}, "sklearn": {"cut_zeros": True}, "networkx": {}, "onnx": {}}[library]
    converted = there(net)
    call = (lambda: there(net)) if direction == "to" else (lambda: back(converted, **options))
    result = benchmark.pedantic(call, rounds=7, warmup_rounds=1)
    x = np.random.default_rng(0).random((32, 784), np.float32)
    returned = back(result, **options) if direction == "to" else result
    assert returned.n_edges == net.n_edges
    np.testing.assert_allclose(returned.forward(x), net.forward(x), rtol=1e-4, atol=1e-5)
    note(edges=net.n_edges)
