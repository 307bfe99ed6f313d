"""How an engine decides to execute a plan: on how many threads, whether it skips zeros, and when it decides again."""

import numpy as np
import pytest
from learnable import FLOATS, INF, X, network

import mlgraph
import mlgraph_ext
from mlgraph.engine import choice, engine

TILE = mlgraph_ext.sweep.TILE_EXAMPLES


@pytest.fixture
def prepared(monkeypatch):
    """How every call was to be swept."""
    chosen = []
    monkeypatch.setattr(engine, "choose", lambda *given: chosen.append(choice.choose(*given)) or chosen[-1])
    return chosen


def layer(n_inputs):
    net = mlgraph.Network(n_inputs, seed=0)
    net.add_layer(8, "tanh")
    return net


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_a_tile_is_not_divided_in_predictions(prepared, n_threads):
    """Tiles share the lists of nonzero data if there are some lists for every thread."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2000, 20), np.uint8) * (rng.random((2000, 20)) < 0.2).astype(np.uint8)
    lists = mlgraph_ext.sweep.LIST_TILES * n_threads
    for tiles, shared in ((1, True), (2, n_threads == 1), (2 * lists - 1, n_threads == 1), (2 * lists, True)):
        prepared.clear()
        layer(20).forward(x[: TILE * tiles], n_threads=n_threads)
        assert [(how.n_threads, how.ahead) for how in prepared] == [(min(tiles, n_threads), shared)]


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_zeros_are_skipped_in_sparse_data_and_in_steps_of_few_examples(prepared, zeros, dtype):
    """All steps of a run skip them or none does, because the order of additions differs."""
    x, y, net = np.ones((200, 6), dtype) * 2, np.ones((200, 8)), layer(6)
    x[:, :4] *= not zeros

    def skipped(n, **options):
        prepared.clear()
        net.fit(x[:n], y[:n], epochs=2, **options) if options else net.forward(x[:n])
        [sparse] = {how.sparse for how in prepared}
        return sparse

    for n in (TILE, TILE + 1):
        assert skipped(n) == skipped(n, batch_size=128) == (zeros or n <= TILE)
    for batch in (TILE, (100, TILE), (TILE, 100), TILE + 1, (TILE + 1, 100)):
        assert skipped(200, batch_size=batch) == (zeros or np.min(batch) <= TILE)


def test_a_choice_is_kept_for_calls_of_the_same_kind(monkeypatch):
    chosen, net = [], network()
    monkeypatch.setattr(engine, "choose", lambda *given: chosen.append(given) or choice.choose(*given))

    def kept(x):
        chosen.clear()
        net.forward(x)
        return not chosen

    assert not kept(X[:1]) and kept(X[1:2]) and kept(X[2:5])
    assert not kept(FLOATS[:1]) and kept(FLOATS[1:2])
    assert not kept(X[:1])
    for weight in (INF, 1.0):
        net.layers[0].neurons[0].weights[0] = weight
        assert not kept(X[:1]) and kept(X[:1])
    assert not kept(X[:40]) and not kept(X[:40])
    net.layers[0].neurons[0].in_edges[0].prune()
    assert not kept(X[:1]) and kept(X[:1])
