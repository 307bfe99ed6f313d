"""Converting an argument may run a user's code, which may edit the graph: a call looks at the graph afterwards."""

import contextlib

import numpy as np
import pytest

import mlgraph

X = np.random.default_rng(0).random((40, 6)).astype(np.float32)
LABELS = np.arange(40) % 3
TARGETS = np.eye(3, dtype=np.float32)[LABELS]


class Late:
    """An array that edits the graph when it is converted."""

    def __init__(self, values, edit):
        self.values, self.edit = np.asarray(values), edit

    def __array__(self, dtype=None, copy=None):
        self.edit()
        return self.values.astype(dtype or self.values.dtype)

    def __len__(self):
        return len(self.values)


EDITS = {
    "fewer outputs": lambda net: net.add_layer(2, net.layers[-1].activation),
    "more outputs": lambda net: net.add_layer(9, net.layers[-1].activation),
    "parameters move": lambda net: net.predict(X),
    "edges cut": lambda net: net.prune(0.5),
    "neurons widened": lambda net: net.widen(net.layers[0], 3),
    "neurons removed": lambda net: net.undo(),
    "inputs added": lambda net: net.graph.add_neuron(net.graph.add_inputs(2)),
}
CALLS = {
    "fit x": lambda net, late: net.fit(late(X), LABELS, epochs=1),
    "fit labels": lambda net, late: net.fit(X, late(LABELS), epochs=1),
    "fit targets": lambda net, late: net.fit(X, late(TARGETS), epochs=1),
    "fit validation": lambda net, late: net.fit(X, LABELS, epochs=1, validation_data=(X, late(LABELS))),
    "fit sample_weight": lambda net, late: net.fit(X, LABELS, epochs=1, sample_weight=late(np.ones(40))),
    "evaluate sample_weight": lambda net, late: net.evaluate(X, LABELS, sample_weight=late(np.ones(40))),
    "evaluate": lambda net, late: net.evaluate(X, late(LABELS)),
    "evaluate targets": lambda net, late: net.evaluate(X, late(TARGETS)),
    "gradients": lambda net, late: net.gradients(X, late(TARGETS)),
    "trace": lambda net, late: net.trace(X, late(TARGETS), net.layers[0].neurons),
    "inspect x": lambda net, late: net.inspect(late(X), LABELS),
    "inspect": lambda net, late: net.inspect(X, late(TARGETS)),
    "ablate": lambda net, late: net.ablate(net.layers[0][0], X, late(TARGETS)),
    "ablation_table": lambda net, late: net.ablation_table(net.layers[0], X, late(TARGETS)),
    "predict": lambda net, late: net.predict(late(X)),
    "draw": lambda net, late: net.draw(X[0], late(TARGETS[0])),
    "Graph.draw": lambda net, late: net.graph.draw(late(X[0])),
    "prune": lambda net, late: net.prune(0.3, by="saliency", data=(X, late(TARGETS))),
    "regrow": lambda net, late: net.regrow(0.3, by="gradient", data=(X, late(TARGETS))),
    "vjp": lambda net, late: net.graph.compile(net.outputs).vjp(X, late(TARGETS)),
    "set_parameters": lambda net, late: net.graph.set_parameters(late(net.graph.get_parameters())),
    "Neuron.weights": lambda net, late: setattr(net.layers[0][2], "weights", late(np.arange(6.0))),
    "Layer.weights": lambda net, late: setattr(net.layers[0], "weights", late(np.ones((7, 6)))),
    "Layer.biases": lambda net, late: setattr(net.layers[0], "biases", late(np.ones(7))),
    "Layer.mask": lambda net, late: setattr(net.layers[0], "mask", late(np.arange(42).reshape(7, 6) % 2 == 0)),
    "add_neuron": lambda net, late: net.graph.add_neuron([net.layers[0][-1]], weights=late([1.0])),
    "add_neurons": lambda net, late: net.graph.add_neurons([net.layers[0][-1]], weights=late([[1.0]])),
    "add_edges": lambda net, late: net.graph.add_edges(
        mlgraph.Edges(np.array([0]), np.array([net.layers[1][0].id]), late([1.0]))
    ),
}


FAST = ("fewer outputs", "neurons removed")


@pytest.mark.filterwarnings("ignore:(prune|y. labels are learnt)")
@pytest.mark.parametrize("edit", [pytest.param(edit, marks=[pytest.mark.slow] * (edit not in FAST)) for edit in EDITS])
@pytest.mark.parametrize("call", CALLS)
def test_call_whose_argument_edits_the_graph(call, edit):
    """It works on the edited graph, or says what no longer fits; the network stays whole."""
    for activation in ("softmax", "identity"):
        net = mlgraph.Network(6, seed=0)
        net.add_layer(5, "relu")
        net.add_layer(3, activation)
        net.widen(net.layers[0], 2)  # what "neurons removed" takes back
        with contextlib.suppress(ValueError, RuntimeError):  # not IndexError: sizes are checked
            CALLS[call](net, lambda values, net=net: Late(values, lambda: EDITS[edit](net)))
        x = np.zeros((4, net.graph.n_inputs), np.float32)
        assert np.isfinite(net.forward(x)).all()


def test_parameters_that_move_while_their_values_are_converted():
    net = mlgraph.Network(6, seed=0)
    net.add_layer(5, "relu")
    net.add_layer(3, "softmax")
    wanted = np.arange(len(net.graph.get_parameters()), dtype=np.float32)
    net.graph.set_parameters(Late(wanted, lambda: net.predict(X)))
    assert np.array_equal(net.graph.get_parameters(), wanted)
