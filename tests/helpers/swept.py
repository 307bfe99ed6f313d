"""Steps of the sweeps beside those of the float64 reference."""

import numpy as np

import mlgraph
from mlgraph.compiler.plan import Plan
from mlgraph.engine import reference
from mlgraph.engine.engine import Engine
from mlgraph.engine.steps import Steps
from mlgraph.models.running import read_with_targets


def layered(sizes, activation="tanh", last="softmax", seed=0, loss=None, **options):
    net = mlgraph.Network(sizes[0], seed=seed)
    for size in sizes[1:-1]:
        net.add_layer(size, activation=activation, **options)
    net.add_layer(sizes[-1], activation=last, bias=False, loss=loss)
    for layer in net.layers[:-1]:
        for neuron in layer.neurons:
            neuron.bias = np.random.default_rng(neuron.id).normal()
    return net


def data(n, n_inputs, classes, kind, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, n_inputs), np.uint8)
    if kind == "sparse":
        x[rng.random(x.shape) < 0.8] = 0
    if kind == "float":
        x = rng.normal(size=(n, n_inputs))
    return x, rng.integers(0, classes, n)


def gradient(model, x, y, n_threads=1, seed=0, step_number=0, sizes=None, weight=None):
    """Losses and the gradient that a training step sees, from the sweep."""
    engine = Engine(model.graph, Plan(model.graph, [*model.output_ids, *model.loss_ids], model.dropout_shares))
    n = len(x)
    sizes = [n] if sizes is None else sizes
    losses, total = np.zeros(n, np.float32), model.graph.storage.zeros()
    examples, objective = read_with_targets(model, x, y)
    engine.execute(
        examples,
        steps=Steps.without_update(np.cumsum([0, *sizes[:-1]]), np.array(sizes))._replace(number=step_number),
        objective=objective._replace(weight=weight),
        gradient=total,
        seed=seed,
        losses=losses,
        n_threads=n_threads,
    )
    return engine.plan, losses, total


def check(model, x, y, **options):
    plan, losses, g = gradient(model, x, y, **options)
    slots = plan.slot[model.loss_ids]
    _, objective = read_with_targets(model, x, y)
    want_losses, want = reference.step(
        plan,
        model.graph.parameters,
        x,
        model.loss,
        slots,
        label=objective.label,
        target=objective.target,
        weight=options.get("weight"),
        seed=options.get("seed", 0),
        number=options.get("step_number", 0),
    )
    np.testing.assert_allclose(losses, want_losses, rtol=2e-5, atol=2e-5)
    # A sum of n float32 products of either sign is off by about its largest term times 2**-24 sqrt(n).
    np.testing.assert_allclose(g, want, rtol=1e-4, atol=2e-6 * max(1e-3, np.abs(want).max()))
    assert np.abs(want).max() > 1e-4
    return plan
