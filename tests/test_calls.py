"""Calls of an engine, which keeps what it has decided and prepared for the last one: none changes what another gives."""

import numpy as np
import pytest
from learnable import FLOATS, INF, NAN, X, Y, network

from mlgraph.engine import Engine
from mlgraph.examples import Examples
from mlgraph.losses import Objective
from mlgraph.plan import Plan
from mlgraph.steps import Steps

CALLS = 300


@pytest.mark.parametrize("seed", range(6))
def test_what_was_asked_before_changes_no_answer(sweep, seed):
    """After any other call, weight or place of the parameters, an engine answers as a new one does."""
    rng, net = np.random.default_rng(seed), network()
    graph, nodes = net.graph, [*net._outputs, *net._loss_nodes]
    if seed % 3 == 1:  # a column that is not read, rows
        graph.prune([(graph[4], neuron) for neuron in net.layers[0].neurons])
        net.prune(0.5)
    plan = Plan(graph, nodes, loss=net._loss_nodes if seed % 2 else None)
    kept = Engine(graph, plan)
    weights, outputs = graph.get_parameters(), list(net._outputs)
    of = {
        "data": lambda: [X, FLOATS, X | 1][rng.integers(3)],
        "n": lambda: int(rng.choice([1, 2, 32, 33, 40])),
        "objective": lambda: [Objective("none", ()), net._examples_and_objective(X, Y)[1]][rng.integers(2)],
        "values": lambda: rng.permutation(outputs)[: rng.integers(4)].tolist(),
        "adjoints": lambda: rng.permutation(outputs)[: rng.integers(3)].tolist(),
        "n_threads": lambda: int(rng.integers(1, 3)),
        "few": lambda: [None, None, None, False, True][rng.integers(5)],
        "seed": lambda: [None, None, None, 7][rng.integers(4)],
        "optimizer": lambda: [None, None, None, "accumulate"][rng.integers(4)],
        "cut": lambda: rng.random() < 0.3,
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
            run(engine, Examples(data[first : first + n], 12), n, steps, options) for engine in (kept, Engine(graph, plan))
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other, f"{n} examples, {options}")


def run(engine, examples, n, steps, options):
    """All that a call gives; only which step was bad, if one was."""
    losses = np.zeros(n, np.float32)
    with np.errstate(all="ignore"), engine.graph.storage.gradient() as gradient:
        bad, values, adjoints = engine.run(examples, steps=steps, losses=losses, **options)
    return (bad,) if bad >= 0 else (bad, values, adjoints, losses, gradient)
