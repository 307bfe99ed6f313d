"""Traces and gradients neither move the parameters nor compile again without need."""

import copy

import numpy as np
import pytest

import mlgraph
from mlgraph.compiler.plan import Plan
from mlgraph.models.running import engine_of


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("activations", ["per layer", "per neuron", "per neuron, and edges across layers"])
def test_a_trace_leaves_the_parameters_where_training_reads_them(sparsity, activations):
    """Otherwise every trace and every run would move them, and compile again."""
    net = mlgraph.Network(40, seed=0)
    for size, activation in ((30, "relu"), (20, "tanh"), (5, "softmax")):
        net.add_layer(size, activation)
    if activations != "per layer":
        for i, neuron in enumerate([*net.layers[0], *net.layers[1]]):
            neuron.activation = ("tanh", "identity", "relu", "sigmoid")[i * i % 7 % 4]
    if "across" in activations:  # neurons then are grouped with others of their layer in one plan and not in the other
        for i in range(12):
            net.graph.add_edge(net.layers[0][i], net.layers[2][i % 5], 0.5)
            net.graph.add_edge(net.layers[1][i], net.layers[1][12 + i % 8], 0.5)
    net.prune(sparsity)
    x, y = np.random.default_rng(0).normal(size=(9, 40)).astype(np.float32), np.arange(9) % 5
    net.evaluate(x, y)
    moves, engine = net.graph.storage.moves, engine_of(net)
    for look in (net.trace, net.gradients, lambda x, y: net.trace(x), lambda x, y: net.trace(x, y, net.outputs)):
        look(x, y)
        assert net.graph.storage.moves == moves and engine_of(net) is engine


def test_a_trace_is_compiled_once(monkeypatch):
    g = mlgraph.Graph()
    x = g.inputs(2)
    hidden = [g.add_neuron(x, "tanh", weights=[w, 1.0]) for w in (0.5, -2.0)]
    model = mlgraph.Model(g, g.add_neuron(hidden, weights=[1.0, 3.0]))
    data, answers, made = np.array([[1.0, 2.0], [0.5, -1.0]]), [1.0, -1.0], []
    monkeypatch.setattr("mlgraph.engine.trace.Plan", lambda *args, **options: made.append(1) or Plan(*args, **options))

    def compiled(look):
        made.clear()
        look()
        return len(made)

    assert compiled(lambda: model.trace(data, answers)) == 1
    hidden[0].weights = [2.0, 2.0]  # an assignment is not an edit: the plan still holds
    assert compiled(lambda: model.trace(data[:1], answers[:1])) == 0
    assert model.trace(data[:1], answers[:1])[hidden[0]][0] == np.float32(np.tanh(6.0))
    for look in (
        lambda: model.trace(data),
        lambda: model.trace(data, answers, hidden[:1]),
        lambda: model.gradients(data, answers),
    ):
        assert [compiled(look), compiled(look)] == [1, 0]
    hidden[0].edges[0].prune()
    assert compiled(lambda: model.gradients(data, answers)) == 1
    assert compiled(lambda: copy.deepcopy(model).gradients(data, answers)) == 1
