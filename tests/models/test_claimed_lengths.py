"""What claims to be very long, as range(10**9) does, is refused before it takes memory or time."""

import tracemalloc

import numpy as np
import pytest

import mlgraph

LONG = 2**25
MOST_BYTES = 2**22
X = np.random.default_rng(0).random((12, 2), np.float32)
Y = np.arange(12) % 3


class Lazy:
    """A sequence that makes its items when asked."""

    def __len__(self):
        return LONG

    def __getitem__(self, i):
        return 1.0


def network():
    net = mlgraph.Network(2, seed=0)
    net.add_layer(3, activation="relu")
    net.add_layer(3, activation="softmax")
    return net


CALLS = {
    "classes": lambda net, long: setattr(net, "classes", long),
    "fit: x": lambda net, long: net.fit(long, Y, epochs=1),
    "fit: y": lambda net, long: net.fit(X, long, epochs=1),
    "fit: sample_weight": lambda net, long: net.fit(X, Y, epochs=1, sample_weight=long),
    "fit: validation": lambda net, long: net.fit(X, Y, epochs=1, validation_data=(X, long)),
    "evaluate": lambda net, long: net.evaluate(X, long),
    "predict": lambda net, long: net.predict(long),
    "trace": lambda net, long: net.trace(long),
    "quantize": lambda net, long: net.quantize(long),
    "set_parameters": lambda net, long: net.graph.set_parameters(long),
    "weights of a neuron": lambda net, long: setattr(net.layers[0].neurons[0], "weights", long),
    "some weights": lambda net, long: net.layers[0].neurons[0].weights.__setitem__(slice(None), long),
    "weights of a layer": lambda net, long: setattr(net.layers[0], "weights", long),
    "add_neuron": lambda net, long: net.graph.add_neuron(net.graph.inputs, weights=long),
    "add_neurons": lambda net, long: net.graph.add_neurons(net.graph.inputs, 3, biases=long),
    "add_edges": lambda net, long: net.graph.add_edges(mlgraph.Edges(long, long, long)),
    "Population": lambda net, long: mlgraph.Population(long),
}


@pytest.mark.parametrize("long", [range(LONG), range(10**20), Lazy()], ids=["range", "longer than a length", "lazy"])
@pytest.mark.parametrize("call", CALLS)
def test_a_claimed_length_is_refused_before_it_is_filled(call, long):
    net = network()
    before = net.graph.get_parameters().tolist()
    tracemalloc.start()
    try:
        with pytest.raises((TypeError, ValueError)):
            CALLS[call](net, long)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert net.graph.get_parameters().tolist() == before
