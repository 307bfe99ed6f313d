"""Calls of an engine, which keeps what it has decided and prepared for the last one: none changes what another gives."""

import copy

import numpy as np
import pytest
from learnable import FLOATS, INF, NAN, X, Y, network

from mlgraph.compiler.plan import Plan
from mlgraph.engine import choice, engine
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.engine.steps import Steps
from mlgraph.models.running import read_with_targets

CALLS = 300


@pytest.mark.parametrize("seed", range(6))
def test_what_was_asked_before_changes_no_answer(sweep, monkeypatch, seed):
    """After any other call, weight or place of the parameters, an engine answers as a new one does."""
    rng, net = np.random.default_rng(seed), network()
    graph, nodes = net.graph, [*net.output_ids, *net.loss_ids]
    if seed % 3:  # a column that is not read
        graph.prune([(graph[4], neuron) for neuron in net.layers[0].neurons])
    if seed % 3 == 1:  # rows
        net.prune(0.5)
    plan = Plan(graph, nodes, loss=net.loss_ids if seed % 2 else None)
    kept, describe, described = Engine(graph, plan), Engine._described, []
    monkeypatch.setattr(
        kept, "_described", lambda *given, **nodes: described.append(1) or describe(kept, *given, **nodes)
    )
    weights, outputs = graph.get_parameters(), list(net.output_ids)
    of = {
        "data": lambda: [X, FLOATS, X | 1][rng.integers(3)],
        "n": lambda: int(rng.choice([1, 2, 32, 33, 40])),
        "objective": lambda: [Objective("none", ()), read_with_targets(net, X, Y)[1]][rng.integers(2)],
        "values": lambda: rng.permutation(outputs)[: rng.integers(4)].tolist(),
        "adjoints": lambda: rng.permutation(outputs)[: rng.integers(3)].tolist(),
        "n_threads": lambda: int(rng.integers(1, 3)),
        "few": lambda: [None, False, True][rng.integers(3) * (rng.random() < 0.3)],
        "seed": lambda: 7 if rng.random() < 0.1 else None,
        "learns": lambda: rng.random() < 0.3,
        "cut": lambda: rng.random() < 0.1,
    }
    asked = {name: choose() for name, choose in of.items()}
    for _ in range(CALLS):
        match rng.integers(12):
            case 0:
                net.layers[0].neurons[3].weights[0] = rng.choice([INF, NAN, 0.5])
            case 1:
                graph.set_parameters(weights)
            case 2:
                graph.storage.vector = graph.storage.vector.copy()
            case 3 | 4 | 5 | 6 | 7:
                name = rng.choice(list(of))
                asked[name] = of[name]()
        options = asked.copy()
        data, n, cut = (options.pop(name) for name in ("data", "n", "cut"))
        if options["objective"].nodes:
            options["objective"] = options["objective"].of(slice(n))
        steps = Steps.at_rest(np.array([0, n // 2]), np.array([n // 2, n - n // 2])) if cut and n > 1 else None
        first = rng.integers(100)
        found, expected = (
            run(one, Examples(data[first : first + n], 12), n, steps, **options) for one in (kept, Engine(graph, plan))
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other, f"{n} examples, {options}")
        if kept.last_edit[0]:
            assert kept.last_edit[1].how.n_threads == (options["n_threads"] if options["learns"] else 1)
    assert len(described) < 0.9 * CALLS


def run(one, examples, n, steps, *, learns, **options):
    """All that a call gives; only which step was bad, if one was."""
    losses, gradient = np.zeros(n, np.float32), one.graph.storage.zeros()
    with np.errstate(all="ignore"):
        bad, values, adjoints = one.run(
            examples, steps=steps, losses=losses, gradient=gradient if learns else None, **options
        )
    return (bad,) if bad >= 0 else (bad, values, adjoints, losses, gradient)


def test_one_example_after_the_other(monkeypatch):
    """The last call serves again, until something differs on which it hangs."""
    chosen, net = [], network()
    monkeypatch.setattr(engine, "choose", lambda *given: chosen.append(given) or choice.choose(*given))

    def again(x):
        del chosen[:]
        net.forward(x)
        return not chosen

    assert not again(X[:1]) and again(X[1:2]) and again(X[2:5])
    assert not again(FLOATS[:1]) and again(FLOATS[1:2])
    assert not again(X[:1])
    net.layers[0].neurons[0].weights[0] = INF
    assert not again(X[:1]) and again(X[:1])
    net.layers[0].neurons[0].weights[0] = 1.0
    assert not again(X[:1]) and again(X[:1])
    assert not again(X[:40]) and not again(X[:40])
    net.layers[0].neurons[0].edges[0].prune()
    assert not again(X[:1]) and again(X[:1])


def test_a_call_that_was_struck_leaves_none_to_repeat(monkeypatch):
    """It may have prepared another, with parameters in another place."""

    def strike(*_):
        raise KeyboardInterrupt

    net = network()
    net.forward(X[:1])
    net.graph.storage.vector = net.graph.storage.vector * 2
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_Call", strike)
        with pytest.raises(KeyboardInterrupt):
            net.forward(X[:1])
    np.testing.assert_array_equal(net.forward(X[:1]), copy.deepcopy(net).forward(X[:1]))


def test_no_kernel_is_asked_for_what_the_plan_does_not_have():
    net = network()
    hidden = net.layers[0].neurons[0].id
    engine = Engine(net.graph, Plan(net.graph, [hidden]))
    for asked in (
        {"values": net.output_ids},
        {"adjoints": net.output_ids},
        {"objective": read_with_targets(net, X, Y)[1]},
    ):
        with pytest.raises(RuntimeError, match=r"^nodes: expected those that the plan has, got others$"):
            engine.run(Examples(X, X.shape[1]), **asked)
    assert len(engine.run(Examples(X, X.shape[1]), values=[hidden])[1]) == len(X)
