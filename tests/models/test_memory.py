"""Memory does not leak: ``python -m pytest tests/models/test_memory.py -m slow --cycles 1000``."""

import gc
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import mlgraph
from mlgraph._support import locks as turns
from mlgraph.graph import compaction as packing
from mlgraph.models import list_coding

MEGABYTE = 2**20
X = np.random.default_rng(0).integers(0, 256, (200, 30), np.uint8)
X[X < 180] = 0
LABELS = np.random.default_rng(1).integers(0, 4, 200)


def taken():
    """Bytes allocated by Python and numpy, and resident bytes of this process (0 if Linux does not tell)."""
    gc.collect()
    pages = Path("/proc/self/statm")
    resident = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0
    return tracemalloc.get_traced_memory()[0], resident


def cycle(path, seed):
    """Build, train, run, edit, save, load, fail: all that takes memory."""
    net = mlgraph.Network(30, seed=seed)
    net.add_layer(40, "tanh", dropout=0.5)
    net.add_layer(20, weight_dropout=0.25)
    net.add_layer(4, "softmax")
    for optimizer, n_threads in (("sgd", 1), ("adam", 2)):
        net.fit(
            X, LABELS, epochs=2, optimizer=optimizer, learning_rate=0.01, validation=(X, LABELS), n_threads=n_threads
        )
    g = net.graph
    hidden = net.layers[1].neurons
    extra = g.add_neuron(hidden[:7], "relu", weights=np.ones(7))
    model = mlgraph.Model(g, [extra * g.parameter(0.5) + 1, mlgraph.exp(hidden[0])])
    model.fit(X / 255, np.ones((200, 2)), epochs=1, learning_rate=1e-3)
    function = g.compile([extra, *hidden])
    assert np.isfinite(function.vjp(X).parameters).all() and len(function(X[:1])[0]) == 21
    g.draw().to_dot()
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
        model.fit(X / 255, np.full((200, 2), 1e30), epochs=1)
    net.save(path)
    assert mlgraph.load(path).evaluate(X, LABELS)["loss"] > 0
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(mlgraph.ModelFileError):
        mlgraph.load(path)


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps what is freed for a while"
)
@pytest.mark.slow
def test_memory_stays_flat(tmp_path, request):
    """Bytes of Python and numpy; in a long run, where a leak would stand out, all of the process."""
    cycles = request.config.getoption("--cycles")
    tracemalloc.start()
    try:
        for seed in range(10 + cycles // 10):  # until all that is taken once has been taken
            cycle(tmp_path / "model.npz", seed)
        before, graphs = taken(), len(turns._all)
        for seed in range(cycles):
            cycle(tmp_path / "model.npz", seed)
        growth = [now - then for now, then in zip(taken(), before, strict=True)]
    finally:
        tracemalloc.stop()
    print(
        f"\n{cycles} cycles: {growth[0] / 1024:.0f} KiB more than {before[0] / MEGABYTE:.1f} MiB, "
        f"{growth[1] / 1024:.0f} than {before[1] / MEGABYTE:.1f} that are resident"
    )
    assert len(turns._all) == graphs
    assert growth[0] < MEGABYTE / 16, f"{growth[0]} bytes in {cycles} cycles"
    assert growth[1] < 2 * MEGABYTE or cycles < 200, f"{growth[1]} resident bytes in {cycles} cycles"


def test_what_large_graphs_take_for_a_while():
    """Bytes an edge: a copy of the lists and one of the places of parameters, in 32 bits, and not much beside them."""
    net = mlgraph.Network(1000, seed=0)
    net.add_layer(1000, "relu")
    net.add_layer(5)
    net.prune(0.1, by="random")  # so that each neuron has a list of its own
    net.predict(np.zeros((1, 1000)))
    n = net.n_edges
    for most, work in (
        (18, lambda: packing.compact_storage(net.graph, np.arange(len(net.graph)))),
        (1, lambda: packing.in_use(net.graph)),
        (12, lambda: list_coding.squeeze(net.graph)),
        (12, lambda: net.layers[0][3].edges[5].prune()),
    ):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most * n, (peak / n, most)
