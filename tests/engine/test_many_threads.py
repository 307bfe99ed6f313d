"""Bits do not depend on threads, tried where threads get in each other's way: many short steps, and more threads
than processors, so that any of them may be suspended anywhere."""

import numpy as np
import pytest

import mlgraph

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (512, 784)).astype(np.uint8) * (RNG.random((512, 784)) < 0.15)
NUMBERS = RNG.random((512, 784), np.float32) * (PIXELS > 0)
SPOILT = NUMBERS.copy()
SPOILT[::250] *= 1e38  # the sums of these examples overflow
LABELS = RNG.integers(0, 4, 512)


def network(dropout=0.0):
    net = mlgraph.Network(784, seed=0)
    net.add_layer(64, activation="relu", dropout=dropout)
    net.add_layer(4, activation="softmax")
    return net


def narrow():
    net = mlgraph.Network(784, seed=0)
    net.add_layer(32, activation="relu")
    net.add_layer(4, activation="softmax")
    return net


def deep():
    net = mlgraph.Network(784, seed=0)
    net.add_layer(32, activation="relu")
    net.add_layer(100, activation="tanh")
    net.add_layer(100, activation="relu")
    net.add_layer(4, activation="softmax")
    return net


def frozen_first():
    net = network()
    net.layers[0].frozen = True
    return net


def frozen_neurons():
    net = network()
    for neuron in range(0, 64, 3):
        net.layers[0][neuron].frozen = True
    return net


def dropping():
    return network(dropout=0.2)


def pruned():
    net = network()
    net.prune(0.9, by="magnitude")
    return net


CASES = {
    "one tile": (network, PIXELS, {"batch_size": 8}),
    "one whole tile": (network, PIXELS, {"batch_size": 32, "optimizer": "adam", "learning_rate": 0.003}),
    "few neurons": (narrow, PIXELS, {"batch_size": 8}),
    "numbers": (network, NUMBERS, {"batch_size": 8, "momentum": 0.9}),
    "tiles": (network, PIXELS, {"batch_size": 96}),
    "a last batch of one tile": (network, PIXELS, {"batch_size": 60}),
    "layers": (deep, PIXELS, {"batch_size": 8}),
    "frozen layer": (frozen_first, PIXELS, {"batch_size": 8}),
    "frozen neurons": (frozen_neurons, PIXELS, {"batch_size": 8}),
    "dropout": (dropping, PIXELS, {"batch_size": 8}),
    "skipped steps": (network, SPOILT, {"batch_size": 8, "on_nonfinite": "skip", "steps": 1000}),
    "skipped steps of tiles": (network, SPOILT, {"batch_size": 60, "on_nonfinite": "skip", "steps": 500}),
    "pruned": (pruned, PIXELS, {"batch_size": 16}),
}


def learned(make, x, n_threads, batch_size, steps=3000, **options):
    net = make()
    epochs = steps * batch_size // len(x)
    history = net.fit(x, LABELS, epochs=epochs, batch_size=batch_size, n_threads=n_threads, **options)
    return history, net.graph.get_parameters()


@pytest.mark.filterwarnings("ignore:the numbers in columns")
@pytest.mark.parametrize("case", CASES)
def test_bits_do_not_depend_on_threads_that_are_suspended(case):
    make, x, options = CASES[case]
    history, expected = learned(make, x, 1, **options)
    for n_threads in (2, 3, 5, 8):
        other, found = learned(make, x, n_threads, **options)
        np.testing.assert_array_equal(found, expected, err_msg=f"{n_threads} threads")
        np.testing.assert_array_equal(other.batch_loss, history.batch_loss)
        np.testing.assert_array_equal(other.batch_skipped, history.batch_skipped)
