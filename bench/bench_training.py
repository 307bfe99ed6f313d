"""Epochs, steps, predictions and compilation; the rivals in the same run, where they are installed."""

import copy
import ctypes
import shutil
import subprocess
import sys
import tracemalloc

import machine
import numpy as np
import pytest
from rivals import ALL, network

import mlgraph
from mlgraph.app.recipe import PRESETS
from mlgraph.compiler.plan import Plan
from mlgraph.models.running import engine_of

EPOCHS = [
    ((784, 32, 10), 128),
    ((784, 32, 10), 8),
    ((784, 32, 10), 1024),
    ((784, 300, 100, 10), 128),
    ((784, 1000, 10), 128),
]


def _rival(who, sizes, x, y):
    pytest.importorskip(who)
    return ALL[who](sizes, x, y)


def inverted(images):
    """White for black, so that nothing can be skipped."""
    return np.maximum(255 - images, 1)


def _logits(net, x):
    """What the network gives, in numpy and float64."""
    values = np.asarray(x) / (255 if x.dtype == np.uint8 else 1.0)
    for layer in net.layers:
        z = values @ layer.weights.T.astype(np.float64) + [neuron.bias for neuron in layer.neurons]
        values = np.where(z > 0, z, 0.01 * z) if layer.activation == "leaky_relu" else z
    return values


@pytest.mark.parametrize("who", ALL)
@pytest.mark.parametrize(
    ("sizes", "batch"), EPOCHS, ids=lambda v: "-".join(map(str, v)) if isinstance(v, tuple) else str(v)
)
def bench_epoch(benchmark, note, peak_of_all, mnist, who, sizes, batch):
    """One epoch of MNIST from uint8 (PyTorch and scikit-learn: from float32), shuffling included."""
    if who == "sklearn" and (batch < 128 or len(sizes) > 3 or sizes[1] > 32):
        pytest.skip("scikit-learn is timed on the default network alone")
    benchmark.group = f"epoch {'-'.join(map(str, sizes))}, batch {batch}"
    rival = _rival(who, sizes, mnist.train_x, mnist.train_y)
    slow = who in ("torch", "sklearn")
    benchmark.pedantic(rival.epoch, (batch,), rounds=3 if slow else 9, warmup_rounds=1)
    accuracy = float((rival.predict(mnist.test_x) == mnist.test_y).mean())
    flops = machine.dense_flops(sizes, len(mnist.train_x))
    bound = flops / peak_of_all
    note(who=rival.name, accuracy=accuracy, dense_gflop=flops / 1e9, bound_seconds=bound)
    assert accuracy > 0.9


@pytest.mark.benchmark(group="200 epochs of 150 examples, 4-16-3, batch 15")
@pytest.mark.parametrize("who", ALL)
def bench_short_epochs(benchmark, note, who):
    """Data of the size of Fisher's irises: three classes around centres of their own."""
    rng, y = np.random.default_rng(0), np.arange(150) % 3
    x = np.clip(rng.integers(0, 256, (3, 4))[y] + rng.normal(0, 20, (150, 4)), 0, 255).astype(np.uint8)
    rival = _rival(who, (4, 16, 3), x, y)
    benchmark.pedantic(rival.run, (200, 15), rounds=3 if who in ("torch", "sklearn") else 9, warmup_rounds=1)
    accuracy = float((rival.predict(x) == y).mean())
    note(who=rival.name, accuracy=accuracy)
    assert accuracy > 0.9


@pytest.mark.benchmark(group="epoch of images without zeros, batch 128")
@pytest.mark.parametrize("kind", ["bytes", "floats"])
@pytest.mark.parametrize("hidden", [(32,), (300, 100)], ids=str)
def bench_without_zeros(benchmark, note, mnist, hidden, kind):
    """MNIST inverted, or with noise and in float32, so that no zero is skipped; the second epoch is noted, too."""
    net, seconds, x, test_x = network(*hidden), [], inverted(mnist.train_x), inverted(mnist.test_x)
    if kind == "floats":
        rng, both = np.random.default_rng(0), (mnist.train_x, mnist.test_x)
        x, test_x = ((images / 255 + rng.normal(0, 0.1, images.shape)).astype(np.float32) for images in both)

    def fit():
        seconds.extend(
            net.fit(x, mnist.train_y, epochs=2, batch_size=128, learning_rate=0.005, optimizer="sgd").epoch_seconds[1:]
        )

    benchmark.pedantic(fit, rounds=5, warmup_rounds=1)
    note(later_epoch_seconds=min(seconds))
    assert net.evaluate(test_x, mnist.test_y)["accuracy"] > 0.9


@pytest.mark.benchmark(group="epoch 784-300-100-10 of images without zeros, batch 128, pruned")
@pytest.mark.parametrize("sparsity", [0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98])
def bench_pruned_without_zeros(benchmark, note, mnist, sparsity):
    """Where nothing can be skipped, each cut edge saves its share; the fastest of three later epochs."""
    net, x, seconds = network(300, 100), inverted(mnist.train_x), []
    options = {"batch_size": 128, "optimizer": "sgd", "learning_rate": 0.005}
    net.fit(x, mnist.train_y, epochs=1, **options)
    if sparsity:
        net.prune(sparsity)

    def fit():
        seconds.extend(net.fit(x, mnist.train_y, epochs=2, **options).epoch_seconds[1:])

    benchmark.pedantic(fit, rounds=3, warmup_rounds=1)
    accuracy = net.evaluate(inverted(mnist.test_x), mnist.test_y)["accuracy"]
    note(sparsity=net.sparsity, edges=net.n_edges, accuracy=accuracy, later_epoch_seconds=min(seconds))
    assert 0 <= net.sparsity - sparsity + 1e-4 < 0.005 and accuracy > 0.85


@pytest.mark.benchmark(group="epoch 784-300-100-10, batch 128, by optimizer")
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adam", "learning_rate": 0.001},
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.001},
    ],
    ids=["sgd", "momentum", "adam", "momentum and decay"],
)
def bench_optimizer(benchmark, note, mnist, options):
    """What the state of an optimizer costs beside plain SGD; the later of two epochs is noted too."""
    net, seconds = network(300, 100), []

    def fit():
        seconds.extend(net.fit(mnist.train_x, mnist.train_y, epochs=2, batch_size=128, **options).epoch_seconds[1:])

    benchmark.pedantic(fit, rounds=5, warmup_rounds=1)
    note(later_epoch_seconds=min(seconds))
    assert net.evaluate(mnist.test_x, mnist.test_y)["accuracy"] > 0.9


@pytest.mark.benchmark(group="epoch 784-300-100-10, batch 128, frozen")
@pytest.mark.parametrize("frozen", ["nothing", "one neuron", "first layer", "all but the last"])
def bench_frozen(benchmark, note, mnist, frozen):
    """Frozen edges need no gradient, and nodes without trainable ancestors no adjoint; the second epoch is noted."""
    net, seconds = network(300, 100), []
    net.fit(mnist.train_x, mnist.train_y, epochs=1, batch_size=128, optimizer="sgd", learning_rate=0.05)
    layers = {"first layer": net.layers[:1], "all but the last": net.layers[:-1]}.get(frozen, [])
    for part in [net.layers[0][3]] if frozen == "one neuron" else layers:
        part.frozen = True
    before = [layer.weights.copy() for layer in net.layers]

    def fit():
        seconds.extend(
            net.fit(
                mnist.train_x, mnist.train_y, epochs=2, batch_size=128, optimizer="sgd", learning_rate=0.05
            ).epoch_seconds[1:]
        )

    benchmark.pedantic(fit, rounds=5, warmup_rounds=1)
    note(later_epoch_seconds=min(seconds))
    assert all((layer.weights == weights).all() for layer, weights in zip(layers, before, strict=False))
    assert (net.layers[-1].weights != before[-1]).any() and net.evaluate(mnist.test_x, mnist.test_y)["accuracy"] > 0.95


@pytest.mark.benchmark(group="100 steps of dense data, 64-256-256-10, one thread")
@pytest.mark.parametrize("batch", [1, 8, 16, 32])
def bench_few(benchmark, note, batch):
    """Steps of few examples: what they cost beside those of a whole tile."""
    rng, net = np.random.default_rng(0), mlgraph.Network(64, seed=0)
    for size in (256, 256):
        net.add_layer(size, "tanh")
    net.add_layer(10)
    x, y = rng.normal(size=(100 * batch, 64)).astype(np.float32), rng.normal(size=(100 * batch, 10)).astype(np.float32)
    options = {"epochs": 1, "batch_size": batch, "optimizer": "sgd", "learning_rate": 1e-4, "n_threads": 1}
    history = benchmark.pedantic(net.fit, (x, y), options, rounds=9, warmup_rounds=1)
    note(batch=batch)
    assert np.isfinite(history.batch_loss).all() and len(history.batch_loss) == 100


@pytest.mark.benchmark(group="default run, 10 epochs of 784-32-10")
@pytest.mark.parametrize("threads", sorted({1, mlgraph.default_threads()}))
def bench_threads(benchmark, note, mnist, threads):
    """The run of `python -m mlgraph.mnist`, less its tests; its bits do not depend on the number of threads."""
    recipe = PRESETS["default"]

    def run(threads):
        net = recipe.network(784, 10)
        net.fit(
            mnist.train_x,
            mnist.train_y,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            learning_rate=recipe.learning_rate,
            momentum=recipe.momentum,
            n_threads=threads,
            optimizer="sgd",
        )
        return net

    before = machine.slow_share(threads), machine.line_ns() if threads > 1 else 0
    net = benchmark.pedantic(run, (threads,), rounds=15, warmup_rounds=1)
    accuracy = net.evaluate(mnist.test_x, mnist.test_y)["accuracy"]
    note(run_threads=threads, accuracy=accuracy, slow_share=f"{before[0]:.0%}, then {machine.slow_share(threads):.0%}")
    if threads > 1:
        note(line_ns=f"{before[1]:.1f}, then {machine.line_ns():.1f}")
    np.testing.assert_array_equal(net.graph.parameters, run(3 - min(threads, 2)).graph.parameters)
    assert accuracy > 0.96


@pytest.mark.benchmark(group="dropout, epoch 784-32-10, batch 128")
@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"weight_dropout": 0.5}], ids=["none", "neurons", "edges"])
def bench_dropout(benchmark, note, mnist, options):
    net = ALL["mlgraph"]((784, 32, 10), mnist.train_x, mnist.train_y, **options)
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
    # Neurons that lose all edges on one side lose those on the other, too.
    assert 0 <= net.sparsity - sparsity + 1e-4 < 0.005 and accuracy > 0.9


@pytest.mark.benchmark(group="12,800 images at batch 8, 784-300-100-10, pruned")
@pytest.mark.parametrize("sparsity", [0, 0.3, 0.9, 0.98])
def bench_pruned_at_batch_8(benchmark, note, mnist, sparsity):
    """Steps of few examples fill few lanes, and each of them updates all weights."""
    net, x, y = network(300, 100), mnist.train_x[:12800], mnist.train_y[:12800]
    options = {"epochs": 1, "batch_size": 8, "optimizer": "sgd", "learning_rate": 0.005}
    net.fit(x, y, **options)
    if sparsity:
        net.prune(sparsity)
    benchmark.pedantic(net.fit, (x, y), options, rounds=7, warmup_rounds=1)
    accuracy = net.evaluate(mnist.test_x, mnist.test_y)["accuracy"]
    note(sparsity=net.sparsity, accuracy=accuracy)
    assert accuracy > 0.85


@pytest.mark.benchmark(group="predict 10,000 of 784-300-100-10, pruned")
@pytest.mark.parametrize("sparsity", [0, 0.01, 0.3, 0.9, 0.98])
def bench_predict_pruned(benchmark, note, mnist, sparsity):
    net = network(300, 100)
    net.fit(mnist.train_x, mnist.train_y, epochs=1, optimizer="sgd", learning_rate=0.05, batch_size=128)
    if sparsity:
        net.prune(sparsity)
    labels = benchmark(net.predict, mnist.test_x)
    note(sparsity=net.sparsity)
    logits = _logits(net, mnist.test_x)
    top = np.sort(logits, axis=1)[:, -2:]
    assert (labels == logits.argmax(axis=1))[top[:, 1] - top[:, 0] > 1e-4].all()


@pytest.mark.benchmark(group="3 epochs of 784-32-10, batch 128, to 90 % sparse")
@pytest.mark.parametrize(
    "schedule",
    [None, mlgraph.GradualPruning(0.9), mlgraph.SET(0.9), mlgraph.RigL(0.9)],
    ids=["dense", "gradual", "set", "rigl"],
)
def bench_sparsify(benchmark, note, mnist, schedule):
    """What it costs to cut and to grow while a small network learns: each time it is compiled anew."""

    def run():
        net = network(32)
        net.fit(
            mnist.train_x,
            mnist.train_y,
            epochs=3,
            batch_size=128,
            sparsify=schedule,
            optimizer="sgd",
            learning_rate=0.05,
        )
        return net

    net = benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    accuracy = net.evaluate(mnist.test_x, mnist.test_y)["accuracy"]
    note(sparsity=net.sparsity, accuracy=accuracy)
    assert abs(net.sparsity - (0.9 if schedule else 0)) < 0.005 and accuracy > 0.9


@pytest.mark.benchmark(group="ablation of all 32 neurons of 784-32-10, 10,000 images")
def bench_ablation(benchmark, note, mnist):
    net = network(32)
    net.fit(mnist.train_x, mnist.train_y, epochs=1, optimizer="sgd", learning_rate=0.05, batch_size=128)
    table = benchmark.pedantic(
        net.ablation_table, (net.layers[0], mnist.test_x, mnist.test_y), rounds=9, warmup_rounds=1
    )
    for row, neuron in zip(table[::8], net.layers[0].neurons[::8], strict=True):
        alone = net.ablate(neuron, mnist.test_x, mnist.test_y)
        np.testing.assert_allclose([row["loss"], row["accuracy"]], [alone["loss"], alone["accuracy"]], rtol=1e-4)


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
    rival.predict(mnist.test_x[:n])  # compiled for this shape, where it is
    labels = benchmark(rival.predict, mnist.test_x[:n])
    note(who=rival.name)
    if who == "mlgraph":
        top = np.sort(_logits(rival.net, mnist.test_x[:n]), axis=1)[:, -2:]
        expected = _logits(rival.net, mnist.test_x[:n]).argmax(axis=1)
        assert (labels == expected)[top[:, 1] - top[:, 0] > 1e-4].all()
    assert len(labels) == n and (n < 100 or (labels == mnist.test_y[:n]).mean() > 0.7)


@pytest.mark.benchmark(group="10,000 images, one after the other, by 784-32-10 written as C")
@pytest.mark.parametrize("sparsity", [0, 0.9])
def bench_as_c(benchmark, note, mnist, tmp_path, sparsity):
    """What `to_c` gives, compiled with -O2 for any processor of the family; the object file has code and tables."""
    net = network(32)
    net.fit(mnist.train_x, mnist.train_y, epochs=1, seed=0, optimizer="sgd", learning_rate=0.05, batch_size=128)
    net.prune(sparsity)
    source, library = tmp_path / "digits.c", tmp_path / "digits.so"
    source.write_text(net.graph.compile(net.outputs).to_c("digits"))
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    subprocess.run([compiler, "-O2", "-c", source, "-o", tmp_path / "digits.o"], check=True)
    with source.open("a") as file:
        file.write(
            "void all(const float *x, float *y) { for (int i = 0; i < 10000; i++) digits(x + 784 * i, y + 10 * i); }\n"
        )
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", source, "-o", library, "-lm"], check=True)
    x, y = (mnist.test_x / np.float32(255)).astype(np.float32), np.zeros((10_000, 10), np.float32)
    benchmark(ctypes.CDLL(str(library)).all, ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data))
    note(edges=net.n_edges, bytes_of_object=(tmp_path / "digits.o").stat().st_size)
    np.testing.assert_allclose(y, net.forward(mnist.test_x), rtol=1e-3, atol=1e-4)


@pytest.mark.benchmark(group="compile")
@pytest.mark.parametrize("hidden", [(32,), (300, 100), (4096, 4096)], ids=str)
def bench_compile(benchmark, note, hidden):
    """A plan of a graph whose parameters lie as the last plan left them; for an edited graph see `bench_edit`."""
    net = network(*hidden)
    plan = benchmark(Plan, net.graph, [*net.output_ids, *net.loss_ids])
    note(edges=plan.n_edges)
    assert plan.n_edges == net.graph.n_edges


@pytest.mark.benchmark(group="cut a neuron, compile again")
@pytest.mark.parametrize("hidden", [(32,), (4096, 4096)], ids=str)
def bench_edit(benchmark, note, hidden):
    """From a cut of one neuron to a model that can run: 784-32-10, and 20 million edges."""
    net, rounds = network(*hidden), 9 if hidden == (32,) else 3
    neurons = iter(net.layers[0].neurons)

    def edit():
        next(neurons).prune()
        return engine_of(net).plan

    before = engine_of(net).plan.n_edges
    plan = benchmark.pedantic(edit, rounds=rounds, warmup_rounds=1)
    note(edges=plan.n_edges)
    assert before - plan.n_edges == (rounds + 1) * (784 + net.layers[1].size)


@pytest.mark.benchmark(group="a child of an evolution")
def bench_child(benchmark, note):
    """Copy a model of seven neurons, cut an edge, add a neuron and an edge, move weights, evaluate 64 examples."""
    rng, g = np.random.default_rng(0), mlgraph.Graph(seed=0)
    x = g.add_inputs(3)
    hidden = [g.add_neuron(x, "tanh", weights=rng.normal(size=3)) for _ in range(6)]
    parent = mlgraph.Model(g, g.add_neuron(hidden, weights=rng.normal(size=6)), loss="binary_cross_entropy")
    data, answers = rng.normal(size=(64, 3)).astype(np.float32), rng.integers(0, 2, 64)
    parent.evaluate(data, answers)

    def child():
        model = copy.deepcopy(parent)
        graph = model.graph
        graph.edge(graph[0], graph[4]).prune()
        graph.add_edge(graph.add_neuron([graph[0], graph[1]], "tanh", weights=[0.1, 0.2]), model.outputs[0], 0.3)
        graph.set_parameters(graph.get_parameters() + 0.01)
        return model, model.evaluate(data, answers)

    model, scores = benchmark.pedantic(child, rounds=200, warmup_rounds=20)
    note(edges=model.n_edges)
    assert model.n_edges == parent.n_edges + 2 and scores != parent.evaluate(data, answers)


@pytest.mark.benchmark(group="784-4096-4096-10, 20 million edges")
def bench_large_build(benchmark, note):
    """Built and compiled; and the memory that it then holds, Python's and numpy's."""

    def build():
        net = network(4096, 4096)
        engine_of(net)
        return net

    benchmark.pedantic(build, rounds=3, warmup_rounds=1)
    tracemalloc.start()
    net = build()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    note(edges=net.n_edges, bytes_per_edge=round(held / net.n_edges, 2))
    x = np.random.default_rng(0).random((32, 784), np.float32)
    assert net.n_edges == 784 * 4096 + 4096 * 4096 + 4096 * 10
    np.testing.assert_allclose(net.forward(x), _logits(net, x), atol=1e-4)


@pytest.mark.benchmark(group="784-4096-4096-10, 20 million edges")
@pytest.mark.parametrize("momentum", [0.0, 0.9], ids=["sgd", "momentum"])
def bench_large_steps(benchmark, note, peak_of_all, momentum):
    """Eight steps of 128 examples that have no zeros, through `fit`."""
    sizes, n = (784, 4096, 4096, 10), 8 * 128
    net, rng, seconds = network(*sizes[1:-1]), np.random.default_rng(0), []
    x, y = rng.random((n, 784), np.float32) + np.float32(0.1), rng.integers(0, 10, n)

    def fit():
        seconds.extend(
            net.fit(
                x, y, epochs=2, batch_size=128, learning_rate=1e-3, momentum=momentum, optimizer="sgd"
            ).epoch_seconds
        )

    benchmark.pedantic(fit, rounds=3, warmup_rounds=1)
    flops = machine.dense_flops(sizes, n)
    note(step_seconds=min(seconds) / 8, share_of_peak=round(flops / min(seconds) / peak_of_all, 3))
    assert np.isfinite(net.graph.parameters).all() and net.history.epoch_loss[1] < net.history.epoch_loss[0] + 0.1


def bench_import(benchmark, note):
    """Import a class of mlgraph in a fresh process; `import numpy` alone is noted."""
    ours = "import mlgraph; mlgraph.Network"
    code = f"import time; import numpy; t = time.perf_counter(); {ours}; print(time.perf_counter() - t)"
    benchmark.pedantic(subprocess.run, ([sys.executable, "-c", ours],), {"check": True}, rounds=5)
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) for _ in range(5)
    ]
    note(milliseconds_beside_numpy=round(1e3 * min(seconds), 2))
    subprocess.run([sys.executable, "-c", "import sys, mlgraph; sys.exit('matplotlib' in sys.modules)"], check=True)
