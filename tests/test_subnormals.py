"""Numbers below the normal ones, 1.2e-38: what computes keeps them, what learns takes them for zero."""

import platform

import numpy as np
import pytest

import mlgraph

TINY = np.finfo(np.float32).tiny

learns = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86-64 has the switch we know")


def is_normal(x):
    return (x == 0) | (np.abs(x) >= TINY)


@learns
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_moments_of_what_is_no_longer_seen_come_to_rest(sweep, optimizer):
    """0.9 of the least number is rounded to it: without a flush it would stay for ever, and every step be slow."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(1, "identity")
    x = np.ones((1500, 2), np.float32)
    x[1:, 1] = 0
    net.fit(x, x[:, :1], epochs=1, batch_size=1, learning_rate=1e-3, momentum=0.9, optimizer=optimizer, shuffle=False)
    moment = net.graph.storage.state["first"]
    assert is_normal(moment).all() and np.count_nonzero(moment) == 2  # of the first weight and the bias


@learns
@pytest.mark.parametrize("sparsity", [0, 0.7])
@pytest.mark.parametrize("momentum", [0, 0.9])
def test_parameters_are_normal_whoever_moves_them(sweep, sparsity, momentum):
    rng = np.random.default_rng(0)
    x = np.where(rng.random((500, 20)) < 0.3, rng.random((500, 20)) * 3e-18, 0).astype(np.float32)
    came = []
    for n_threads in (1, 2, 3):
        net = mlgraph.Network(20, seed=0)
        net.add_layer(16, "identity")
        net.add_layer(8, "identity")
        if sparsity:
            net.prune(sparsity)
        net.layers[0].weights = np.zeros((16, 20))
        net.fit(x, x[:, :8], epochs=2, batch_size=100, learning_rate=0.02, momentum=momentum, n_threads=n_threads)
        came.append(net.layers[0].weights)
    assert is_normal(came[0]).all() and 0 < np.abs(came[0]).max() < 100 * TINY  # so that what moved them was near the border
    for other in came[1:]:
        np.testing.assert_array_equal(came[0].view(np.int32), other.view(np.int32))


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_numbers_are_as_before_when_it_has_learnt(sweep, n_threads):
    """On this thread, and on those of the sweeps."""
    net = mlgraph.Network(4, seed=0)
    net.add_layer(3, "softmax")
    net.fit(np.eye(4, dtype=np.float32).repeat(50, 0), np.arange(200) % 3, epochs=2, n_threads=n_threads)
    assert np.float32(1e-38) * np.float32(0.1) != 0
    graph = mlgraph.Graph()
    f = graph.compile(mlgraph.exp(graph.input("x")))
    assert (f(np.full((20_000, 1), -100.0), n_threads=n_threads) != 0).all()
    assert (f.vjp(np.full((20_000, 1), -100.0), n_threads=n_threads).inputs != 0).all()
