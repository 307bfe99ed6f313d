"""Clipping: a step's gradient over all trained parameters has at most the norm `clip_norm`, however it is taken."""

import numpy as np
import pytest
from learnable import FLOATS, X, Y, network
from overflowing import bits

import mlgraph
from mlgraph.compiler.plan import Plan
from mlgraph.engine import reference
from mlgraph.graph.arrays import wiring
from mlgraph.training import nonfinite
from mlgraph.training.nonfinite import Limits

OPTIMIZERS = {
    "sgd": {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1},
    "momentum": {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.1, "weight_decay": 0.1},
    "adam": {"optimizer": "adam", "learning_rate": 0.003},
}
with_each_optimizer = pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
WIDE = np.tile(X, 12) * (np.arange(144) % 5 == 0).astype(np.uint8)


def layers(*sizes, columns=12, pruned=0.0):
    net = mlgraph.Network(columns, seed=0)
    for size in sizes:
        net.add_layer(size, "tanh")
    net.add_layer(3, "softmax")
    net.prune(pruned, by="random")
    return net


def with_parameters():
    """Parameter nodes in operations, weights written out as parameter nodes, and a derivative in the loss."""
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(12)
    hidden = [g.add_neuron(x[k : k + 6], "tanh") for k in range(6)]
    hidden += [mlgraph.tanh(mlgraph.sum(*(g.add_parameter(0.1 * k) * s for s in x))) for k in range(6)]
    outputs = [g.add_neuron(hidden) * g.add_parameter(1.5) + mlgraph.grad(hidden[0], x[0]) for _ in range(3)]
    return mlgraph.Model(g, outputs, "softmax_cross_entropy")


MODELS = {
    "dense": (lambda: layers(16), FLOATS),
    "dense bytes": (lambda: layers(16), X),
    "rows": (lambda: layers(16, 20, 9, pruned=0.8), FLOATS),
    "rows of bytes": (lambda: layers(16, pruned=0.6), X),
    "wide": (lambda: layers(40, columns=144), WIDE),
    "wide with holes": (lambda: layers(40, columns=144, pruned=0.1), WIDE),
    "dropout": (lambda: network(dropout=0.4), X),
    "edges dropped": (lambda: network(weight_dropout=0.3), X),
    "parameters": (with_parameters, FLOATS),
}
with_each_model = pytest.mark.parametrize(("make", "x"), MODELS.values(), ids=MODELS)


def trained(make, x, frozen=False, **options):
    model = make()
    if frozen:
        for node in [node for node in model.graph if isinstance(node, mlgraph.Neuron)][::3]:
            node.frozen = True
    model.fit(x, Y, **{"epochs": 3, "batch_size": (50, 20), "seed": 1, **options})
    return model


@pytest.mark.parametrize("frozen", [False, True])
@with_each_model
@with_each_optimizer
def test_a_large_norm_changes_no_bit(sweep, make, x, frozen, options):
    plain, clipped = (trained(make, x, frozen, clip_norm=norm, **options) for norm in (None, 1e30))
    assert bits(plain) == bits(clipped)
    assert bits(trained(make, x, frozen, clip_norm=0.01, **options)) != bits(plain)


@with_each_model
@with_each_optimizer
def test_bits_do_not_depend_on_threads(sweep, make, x, options):
    one, *others = (bits(trained(make, x, clip_norm=0.05, n_threads=n, **options)) for n in (1, 2, 3))
    assert others == [one, one]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "wide with holes"])  # alone, its rows are swept
@with_each_optimizer
def test_steps_taken_alone_give_same_bits(monkeypatch, name, options):
    together = bits(trained(*MODELS[name], clip_norm=0.05, **options))
    monkeypatch.setattr(nonfinite, "limits", lambda *_: Limits(0.0, 0.0, 0.0))
    assert bits(trained(*MODELS[name], clip_norm=0.05, **options)) == together


@pytest.mark.parametrize("pruned", [0.0, 0.1, 0.8])
@with_each_optimizer
def test_updates_equal_those_of_the_reference(sweep, pruned, options):
    """The norm leaves out frozen parameters. Weights decay as without clipping."""
    net, rate, clip, steps = layers(20, columns=144, pruned=pruned), options["learning_rate"], 0.05, 6
    net.layers[1].frozen = True
    plan, g = Plan(net.graph, [*net.output_ids, *net.loss_ids]), net.graph
    w, fixed, weights = g.parameters.astype(np.float64), g.storage.frozen != 0, wiring(g).place
    fixed, first, second, norms = fixed[: len(w)], np.zeros_like(w), np.zeros_like(w), []
    for t in range(1, steps + 1):
        _, gradient = reference.step(plan, w, WIDE / 255, net.loss, plan.slot[net.loss_ids], label=Y)
        gradient[fixed] = 0
        norms.append(np.sqrt((gradient**2).sum()))
        gradient *= min(1, clip / norms[-1])
        w[weights] *= 1 - options.get("weight_decay", 0) * rate * ~fixed[weights]
        if options["optimizer"] == "sgd":
            first = options["momentum"] * first + gradient
            w -= rate * first
        else:
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            w -= rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    assert max(norms) > 2 * clip
    net.fit(WIDE, Y, epochs=steps, batch_size=len(WIDE), clip_norm=clip, **options)
    # Adam divides a gradient by its own size, so that rounding decides the step where the gradient is nearly zero.
    off = ~np.isclose(g.parameters, w, rtol=1e-3, atol=1e-3 if options["optimizer"] == "adam" else 2e-5)
    assert off.mean() <= (0.02 if options["optimizer"] == "adam" else 0)


@with_each_optimizer
def test_a_step_that_overflows_follows_on_nonfinite(options):
    """The gradient of the fourth example is infinite, and no factor makes it finite again."""
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(3)
    neuron = g.add_neuron(x[:2], weights=[0.5, 0.0], bias=None)
    model = mlgraph.Model(g, [neuron], loss=neuron * x[2])
    data = np.array([[1, 0, 1], [0.5, 0, 1], [1, 0, 0.5], [1, 1e30, 1e30]], np.float32)
    options = {**options, "epochs": 1, "batch_size": 1, "shuffle": False, "clip_norm": 1.0, "weight_decay": 0.0}
    with pytest.raises(
        mlgraph.NonFiniteError, match=r"epoch 1, step 4: neuron n3 would not keep its weight of input n1.*\(update\)"
    ):
        model.fit(data, **options)
    before = bits(model)
    model.fit(data[3:], **{**options, "on_nonfinite": "skip", "batch_size": 4, "epochs": 1})
    assert model.history.nonfinite_example.tolist() == [0]
    assert before[""] == bits(model)[""]


def test_huge_gradients_are_scaled(sweep):
    """Their squares exceed float32; a step of SGD moves the weight by the learning rate times the norm."""
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(2)
    neuron = g.add_neuron([x[0]], weights=[0.5], bias=None)
    model = mlgraph.Model(g, [neuron], loss=neuron * x[1])
    model.fit([[1e10, 1e25]], epochs=1, clip_norm=2.0, learning_rate=0.125, optimizer="sgd", momentum=0.0)
    assert neuron.weights.tolist() == [0.25]


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@with_each_optimizer
def test_l1_is_a_soft_threshold_after_each_step(sweep, clip_norm, options):
    options = {"epochs": 1, "batch_size": len(FLOATS), "clip_norm": clip_norm, **options}
    plain, shrunk = (trained(lambda: layers(16), FLOATS, l1=l1, **options) for l1 in (0.0, 0.3))
    by = options["learning_rate"] * 0.3
    for layer, other in zip(plain.layers, shrunk.layers, strict=True):
        expected = np.sign(layer.weights) * np.maximum(np.abs(layer.weights) - by, 0)
        np.testing.assert_allclose(other.weights, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(other.biases, layer.biases)


@with_each_model
def test_l1_makes_weights_0_and_does_not_depend_on_threads(sweep, make, x):
    options = {"learning_rate": 0.01, "l1": 0.5, "epochs": 5}
    one, two = (trained(make, x, frozen=True, n_threads=n, **options) for n in (1, 2))
    assert bits(one) == bits(two)
    plain = trained(make, x, frozen=True, learning_rate=0.01, epochs=5)
    zeros = [np.count_nonzero(model.graph.edges().weight == 0) for model in (one, plain)]
    assert zeros[0] > zeros[1]
    frozen = [node for node in one.graph if isinstance(node, mlgraph.Neuron)][::3]
    for neuron in frozen:
        np.testing.assert_array_equal(neuron.weights, plain.graph[neuron.id].weights)


@pytest.mark.parametrize("l1", [-1, np.nan, np.inf, "x", True])
def test_a_senseless_l1_is_refused(l1):
    with pytest.raises((TypeError, ValueError), match="l1: expected a number from 0 to 1e30"):
        trained(lambda: layers(16), FLOATS, l1=l1)


def test_l1_may_change_during_a_run():
    def change(progress):
        progress.change(l1=0.5 if progress.kind == "epoch" else None)

    options = {"learning_rate": 0.01, "shuffle": False, "batch_size": 20, "optimizer": "sgd", "momentum": 0.0}
    changed = trained(lambda: layers(16), FLOATS, epochs=2, callbacks=[change], **options)
    two = trained(lambda: layers(16), FLOATS, epochs=1, **options)
    two.fit(FLOATS, Y, epochs=1, l1=0.5, **options)
    assert bits(changed) == bits(two)
