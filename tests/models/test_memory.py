"""Memory does not leak: ``python -m pytest tests/models/test_memory.py -m slow --cycles 1000``."""

import gc
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import mlgraph
from mlgraph._support import locks
from mlgraph.graph import compaction
from mlgraph.models import list_coding

MEGABYTE = 2**20
X = np.random.default_rng(0).integers(0, 256, (200, 30), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, 200)


def memory():
    """Bytes allocated by Python and numpy, and resident bytes of this process (0 where there is no /proc)."""
    gc.collect()
    pages = Path("/proc/self/statm")
    resident = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0
    return np.array([tracemalloc.get_traced_memory()[0], resident])


def cycle(path, seed):
    """Build, train, run, edit, save, load and fail."""
    net = mlgraph.Network(30, seed=seed)
    net.add_layer(40, "tanh", dropout=0.5)
    net.add_layer(20, weight_dropout=0.25)
    net.add_layer(4, "softmax")
    for optimizer, n_threads in (("sgd", 1), ("adam", 2)):
        net.fit(X, LABELS, epochs=2, optimizer=optimizer, validation_data=(X, LABELS), n_threads=n_threads)
    g, hidden = net.graph, net.layers[1].neurons
    extra = g.add_neuron(hidden[:7], "relu", weights=np.ones(7))
    model = mlgraph.Model(g, [extra * g.add_parameter(0.5) + 1, mlgraph.exp(hidden[0])])
    model.fit(X, np.ones((200, 2)), epochs=1, learning_rate=1e-3)
    g.compile([extra, *hidden]).vjp(X)
    g.draw().to_svg()
    net.prune(sparsity=0.5)
    net.regrow(0.25)
    g.undo()
    hidden[3].prune()
    net.fit(X, LABELS, epochs=2, sparsify=mlgraph.RigL(0.6), learning_rate=0.01)
    net.inspect(X[:50], LABELS[:50])
    net.trace(X[:50], LABELS[:50])
    with pytest.raises(ValueError, match="x: expected shape"):
        net.fit(X[:, 1:], LABELS)
    with pytest.raises(mlgraph.NonFiniteError):
        model.fit(X, np.full((200, 2), 1e30), epochs=1)
    net.save(path)
    mlgraph.load(path).evaluate(X, LABELS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(mlgraph.ModelFileError):
        mlgraph.load(path)


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer delays freeing memory")
@pytest.mark.slow
def test_memory_stays_flat(tmp_path, request):
    cycles = request.config.getoption("--cycles")
    tracemalloc.start()
    try:
        for seed in range(10 + cycles // 10):  # until everything that is allocated once has been allocated
            cycle(tmp_path / "model.npz", seed)
        before, graphs = memory(), len(locks._all)
        for seed in range(cycles):
            cycle(tmp_path / "model.npz", seed)
        traced, resident = (memory() - before).tolist()
    finally:
        tracemalloc.stop()
    print(f"\n{cycles} cycles: {traced} bytes more than {before[0]}, {resident} resident more than {before[1]}")
    assert len(locks._all) == graphs
    assert traced < MEGABYTE / 16
    assert resident < 2 * MEGABYTE or cycles < 200  # a leak of native memory shows in a long run only


@pytest.mark.parametrize(
    ("bytes_per_edge", "work"),
    [
        (18, lambda net: compaction.compact_storage(net.graph, np.arange(len(net.graph)))),
        (1, lambda net: compaction.in_use(net.graph)),
        (12, lambda net: list_coding.squeeze(net.graph)),
        (12, lambda net: net.layers[0][3].in_edges[5].prune()),
    ],
    ids=["compact", "in_use", "squeeze", "prune"],
)
def test_peak_memory_per_edge(bytes_per_edge, work):
    net = mlgraph.Network(1000, seed=0)
    net.add_layer(1000, "relu")
    net.add_layer(5)
    net.prune(0.1, by="random")  # each neuron then has a list of its own
    net.predict(np.zeros((1, 1000)))
    n = net.n_edges
    tracemalloc.start()
    work(net)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < bytes_per_edge * n
