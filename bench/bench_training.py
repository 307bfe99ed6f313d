"""Epochs, steps, predictions and compilation; the rivals in the same run, where they are installed."""

import importlib
import itertools

import numpy as np
import pytest
from conftest import network
from rivals import ALL, MODULES

from mlgraph.plan import Plan

EPOCHS = [((784, 32, 10), 128), ((784, 32, 10), 8), ((784, 32, 10), 1024), ((784, 300, 100, 10), 128), ((784, 1000, 10), 128)]


def _rival(who, sizes, x, y):
    if who in MODULES:
        pytest.importorskip(MODULES[who])
    return ALL[who](sizes, x, y)


@pytest.mark.parametrize("who", ALL)
@pytest.mark.parametrize(("sizes", "batch"), EPOCHS, ids=lambda v: "-".join(map(str, v)) if isinstance(v, tuple) else str(v))
def bench_epoch(benchmark, note, mnist, who, sizes, batch):
    """One epoch of MNIST from uint8 (PyTorch and scikit-learn: from float32), shuffling included."""
    if who == "sklearn" and (batch < 128 or len(sizes) > 3 or sizes[1] > 32):
        pytest.skip("scikit-learn is timed on the default network alone")
    benchmark.group = f"epoch {'-'.join(map(str, sizes))}, batch {batch}"
    rival = _rival(who, sizes, mnist.train_x, mnist.train_y)
    slow = who in ("torch", "sklearn")
    benchmark.pedantic(rival.epoch, (batch,), rounds=3 if slow else 9, warmup_rounds=1)
    accuracy = float((rival.predict(mnist.test_x) == mnist.test_y).mean())
    multiply_adds = 2 * sum(a * b for a, b in itertools.pairwise(sizes))
    multiply_adds += sum(a * b for a, b in itertools.pairwise(sizes))
    note(who=rival.name, accuracy=accuracy, dense_gflop=2e-9 * multiply_adds * len(mnist.train_x))
    assert accuracy > 0.9


@pytest.mark.benchmark(group="dropout, epoch 784-32-10, batch 128")
@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"weight_dropout": 0.5}], ids=["none", "neurons", "edges"])
def bench_dropout(benchmark, note, mnist, options):
    from rivals import Mlgraph

    net = Mlgraph((784, 32, 10), mnist.train_x, mnist.train_y, **options)
    benchmark.pedantic(net.epoch, (128,), rounds=9, warmup_rounds=1)
    note(**options)
    assert (net.predict(mnist.test_x) == mnist.test_y).mean() > 0.85


@pytest.mark.benchmark(group="epoch 784-300-100-10, batch 128, pruned")
@pytest.mark.parametrize("sparsity", [0, 0.3, 0.9, 0.95, 0.98, 0.99])
def bench_pruned(benchmark, note, mnist, sparsity):
    """What is left of an epoch when the smallest weights of a trained network are cut."""
    net = network(300, 100)
    options = {"epochs": 1, "batch_size": 128}
    net.fit(mnist.train_x, mnist.train_y, **options)
    if sparsity:
        net.prune(sparsity)
    benchmark.pedantic(net.fit, (mnist.train_x, mnist.train_y), options, rounds=7, warmup_rounds=1)
    accuracy = net.evaluate(mnist.test_x, mnist.test_y)["accuracy"]
    note(sparsity=net.sparsity, edges=net.n_edges, accuracy=accuracy)
    assert abs(net.sparsity - sparsity) < 0.001 and accuracy > 0.9


@pytest.mark.benchmark(group="ablation of all 32 neurons of 784-32-10, 10,000 images")
def bench_ablation(benchmark, note, mnist):
    net = network(32)
    net.fit(mnist.train_x, mnist.train_y, epochs=1)
    table = benchmark.pedantic(net.ablation_table, (net.layers[0], mnist.test_x, mnist.test_y), rounds=9, warmup_rounds=1)
    note()
    assert len(table["loss"]) == 32


@pytest.mark.benchmark(group="step of 128, 784-32-10")
def bench_step(benchmark, note, mnist):
    """One training step through `fit`: what Python adds to the smallest piece of work."""
    net, x, y = network(32), mnist.train_x[:128], mnist.train_y[:128]
    benchmark(net.fit, x, y, epochs=1, batch_size=128)
    assert np.isfinite(net.graph.parameters).all()


@pytest.mark.benchmark(group="predict")
@pytest.mark.parametrize("who", ALL)
@pytest.mark.parametrize("n", [1, 10_000])
def bench_predict(benchmark, note, mnist, who, n):
    rival = _rival(who, (784, 32, 10), mnist.train_x[:12800], mnist.train_y[:12800])
    rival.epoch(128)
    benchmark.group = f"predict {n} of 784-32-10"
    labels = benchmark(rival.predict, mnist.test_x[:n])
    note(who=rival.name)
    assert len(labels) == n


@pytest.mark.benchmark(group="compile")
@pytest.mark.parametrize("hidden", [(32,), (300, 100), (4096, 4096)], ids=str)
def bench_compile(benchmark, note, hidden):
    """From an edited graph to a plan."""
    net = network(*hidden)
    plan = benchmark(Plan, net.graph, [*net._outputs, *net._loss_nodes])
    note(edges=plan.n_edges)
    assert plan.n_edges == net.graph.n_edges


def bench_import(benchmark, note):
    """`import mlgraph` in a fresh process, beside `import numpy` alone."""
    import subprocess
    import sys

    code = "import time; import numpy; t = time.perf_counter(); import mlgraph; print(time.perf_counter() - t)"
    benchmark.pedantic(subprocess.run, ([sys.executable, "-c", "import mlgraph"],), {"check": True}, rounds=5)
    seconds = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) for _ in range(5)]
    note(milliseconds_beside_numpy=round(1e3 * min(seconds), 2))
    assert importlib.util.find_spec("mlgraph")
