"""An engine keeps what it prepared for its last call; no call may change the result of a later one."""

import copy

import numpy as np
import pytest
from learnable import FLOATS, INF, NAN, TARGETS, X, Y, network

import mlgraph
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.models.running import engine_of, read_with_targets


@pytest.mark.parametrize("seed", range(4))
def test_earlier_calls_change_no_result(sweep, seed):
    """After any calls and assignments a model answers as its copy, which starts without an engine."""
    rng, net = np.random.default_rng(seed), network()
    if seed % 2:
        net.graph.prune([(net.graph[4], neuron) for neuron in net.layers[0].neurons])  # nothing reads column 4
    if seed > 1:
        net.prune(0.5)  # becomes sparse rows
    weights = net.graph.get_parameters()
    for _ in range(60):
        match rng.integers(6):
            case 0:
                net.graph._memory_of(net.layers[0].ids[3])[:1] = rng.choice([INF, NAN, 0.5])
            case 1:
                net.graph.set_parameters(weights)
            case 2:
                net.graph.storage.vector = net.graph.storage.vector.copy()
        n, first, n_threads = int(rng.choice([1, 2, 32, 33, 40])), rng.integers(100), int(rng.integers(1, 3))
        x = [X, FLOATS, X | 1][rng.integers(3)][first : first + n]
        y = [Y, TARGETS][rng.integers(2)][first : first + n]
        call = [
            lambda model, x=x, n_threads=n_threads: model.forward(x, n_threads=n_threads),
            lambda model, x=x, y=y: list(model.evaluate(x, y).values()),
            lambda model, x=x, y=y: model.gradients(x, y).flat,
            lambda model, x=x, y=y: model.trace(x, y).adjoints,
        ][rng.integers(4)]
        np.testing.assert_array_equal(call(net), call(copy.deepcopy(net)), f"{n} examples")


def test_an_interrupted_call_does_not_spoil_the_next(monkeypatch):
    """It may have prepared a call that reads parameters elsewhere in memory."""

    def strike(*_):
        raise KeyboardInterrupt

    net = network()
    net.forward(X[:1])
    net.graph.storage.vector = net.graph.storage.vector * 2
    with monkeypatch.context() as patch:
        patch.setattr("mlgraph.engine.engine._Prepared", strike)
        with pytest.raises(KeyboardInterrupt):
            net.forward(X[:1])
    np.testing.assert_array_equal(net.forward(X[:1]), copy.deepcopy(net).forward(X[:1]))


def test_an_engine_refuses_nodes_that_its_plan_lacks():
    """The kernels do not check slots again."""
    net = network()
    hidden = net.layers[0].neurons[0].id
    engine, examples = Engine(net.graph, Plan(net.graph, [hidden])), Examples(X, X.shape[1])
    objective = read_with_targets(net, X, Y)[1]
    for asked in ({"values": net.output_ids}, {"adjoints": net.output_ids}, {"objective": objective}):
        with pytest.raises(RuntimeError, match=r"^nodes: "):
            engine.execute(examples, **asked)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("mixed", [False, True])
def test_traces_and_gradients_leave_parameters_and_plans_in_place(monkeypatch, sparsity, mixed):
    """Otherwise every trace and every run would compile again. An edit makes them compile once."""
    net = mlgraph.Network(40, seed=0)
    for size, activation in ((30, "relu"), (20, "tanh"), (5, "softmax")):
        net.add_layer(size, activation)
    for i, neuron in enumerate([*net.layers[0], *net.layers[1]] if mixed else []):
        neuron.activation = ("tanh", "identity", "relu", "sigmoid")[i * i % 7 % 4]
    for i in range(12 * mixed):  # neurons then are grouped differently in the plans of traces and of training
        net.graph.add_edge(net.layers[0][i], net.layers[2][i % 5], 0.5)
        net.graph.add_edge(net.layers[1][i], net.layers[1][12 + i % 8], 0.5)
    net.prune(sparsity)
    x, y = np.random.default_rng(0).normal(size=(9, 40)).astype(np.float32), np.arange(9) % 5
    net.evaluate(x, y)
    parameters, weights = net.graph.parameters.tobytes(), net.graph._memory_of(net.outputs[0].id)
    moves, engine, made = net.graph.storage.moves, engine_of(net), []
    monkeypatch.setattr("mlgraph.engine.trace.Plan", lambda *args, **options: made.append(1) or Plan(*args, **options))

    def compiled(look):
        made.clear()
        look()
        return len(made)

    looks = [lambda: net.trace(x), lambda: net.trace(x, y, net.outputs), lambda: net.gradients(x, y)]
    for look in [lambda: net.trace(x, y), *looks]:
        assert [compiled(look), compiled(look)] == [1, 0]
        assert net.graph.storage.moves == moves and engine_of(net) is engine
    assert net.graph.parameters.tobytes() == parameters
    assert np.shares_memory(net.graph._memory_of(net.outputs[0].id), weights)
    net.outputs[0].weights[:] = 0  # an assignment is not an edit
    assert compiled(look) == 0
    net.outputs[0].in_edges[0].prune()
    assert compiled(look) == 1
