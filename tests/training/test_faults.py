"""A NonFiniteError names the node, the example, the sweep and the numbers, also of random faults."""

import pickle
import re

import numpy as np
import pytest
from faulty import KINDS, faulty
from overflowing import FLOATS, TARGETS, N, X, bits, is_finite, network, one_neuron

import mlgraph
from mlgraph.engine.steps import epoch_order


def refused(model, *data, **options):
    """The error of the first step, without the parts that all messages share."""
    model.evaluate(*data, *[()] * (len(data) < 2))  # compiled
    before = bits(model)
    given = {"epochs": 1, "shuffle": False, "learning_rate": 0.0, "momentum": 0.0, **options}
    with pytest.raises(mlgraph.NonFiniteError) as error:
        model.fit(*data, **given)
    assert bits(model)[""] == before[""]
    match = re.fullmatch(r"epoch 0, step 0: (.*?)(; a lower learning rate may help)?", str(error.value))
    # Before the first update nothing has been learnt that a lower rate would have kept away.
    assert match and bool(match[2]) == (np.isfinite(model.graph.parameters).all() and error.value.sweep == "update")
    assert pickle.loads(pickle.dumps(error.value)).node == error.value.node
    return match[1]


def test_messages_of_forward_faults():
    log = one_neuron(mlgraph.log)
    assert refused(log, [[1], [2], [-1], [3]]) == f"log n{log.loss_ids[0]} is nan in example 2 (forward): log(-1)"
    neuron = one_neuron(lambda n: n, [1e30, 2.0], bias=4.0)
    assert refused(neuron, [[1, 1], [1e20, 1]]) == (
        "neuron n2 is inf in example 1 (forward): the bias is 4, the largest product 1e+30 * 1e+20, of input x0"
    )
    n_ary = one_neuron(lambda n: mlgraph.sum(n, n * 3e38, n, 2 * n, n * 3e38))
    assert refused(n_ary, [[1]]).endswith(" is inf in example 0 (forward): sum(3e+38, 3e+38, 2, ...)")
    squared = one_neuron(lambda n: "squared_error", [1e10])
    assert refused(squared, [[1], [2e10]], [0, 3]) == (
        "neuron n1 gives the loss inf in example 1 (forward): the output is 2e+20, its target 3"
    )
    net = network()
    net.layers[1].neurons[2].bias = 3e38
    net.layers[1].neurons[1].bias = -3e38
    assert refused(net, X[:3], [2, 2, 1]) == (
        "layer 1 neuron 1 gives the loss inf in example 2 (forward): the output is -3e+38, the logsumexp of all 3e+38"
    )
    assert refused(net, X[:3], [[0, 0, 1], [0, 0.5, 0.5], [0, 1, 0]]).endswith(
        "neuron 1 gives the loss inf in example 1 (forward): "
        "the output is -3e+38, the logsumexp of all 3e+38, its target 0.5"
    )
    net.layers[1].neurons[0].bias = -2e38
    assert ": the output is -2e+38, the logsumexp of all 3e+38, its target 9" in refused(net, X[:1], [[9, 1, 0]])
    questions = mlgraph.Network(12)
    questions.add_layer(2, "sigmoid", loss="binary_cross_entropy")
    questions.layers[0].biases = [-2e38, -3e38]
    assert refused(questions, X[:2], [[0, 1], [0.75, 1]]).endswith(
        "in example 1 (forward): the output is -3e+38, its target 1"
    )
    net.layers[0].neurons[7].weights[:2] = np.nan
    assert refused(net, X[:3] | 1, [0, 1, 2]).startswith(
        "layer 0 neuron 7 is nan in example 0 (forward): the bias is 0, the largest product nan * "
    )
    parameter = mlgraph.Graph().parameter(np.inf, "p")
    assert refused(mlgraph.Model(parameter.graph, [parameter], loss=-parameter), np.zeros((3, 0))) == (
        "parameter p is inf in example 0 (forward): it was so before the step"
    )


def test_data_that_become_nonfinite_during_a_run_are_named():
    """The data are not copied, and were checked before the run."""
    x, model = np.ones((20, 2), np.float32), one_neuron(lambda n: n, [1.0, 1.0])

    def spoil(event):
        if event.kind == "epoch":
            x[7, 1] = np.nan

    with pytest.raises(mlgraph.NonFiniteError) as error:
        model.fit(x, epochs=2, shuffle=False, callback=spoil)
    assert "input x1 is nan in example 7 (forward): the data have changed since they were checked" in str(error.value)
    assert is_finite(model)


def test_messages_of_backward_faults():
    sqrt = one_neuron(mlgraph.sqrt)
    assert refused(sqrt, [[1], [2], [0], [3]]) == (
        "neuron n1 has the adjoint inf in example 2 (backward): "
        f"the largest term is 0.25 * inf, of sqrt n{sqrt.loss_ids[0]}"
    )
    g = mlgraph.Graph()
    x, s = g.inputs(2)
    hidden = [g.add_neuron([x], weights=[w]) for w in (0.0, 1.0)]
    out = g.add_neuron(hidden, weights=[1e30, 1e10])
    scaled = mlgraph.Model(g, [out], loss=out * s)
    assert refused(scaled, [[1, 1], [1, 1e20]]) == (
        "neuron n2 has the adjoint inf in example 1 (backward): the largest term is 5e+19 * 1e+30, of neuron n4"
    )


def test_zero_times_infinite_derivative_is_blamed_on_its_node():
    """The gradient of a norm at 0: the fault began at the node that the root reads."""
    g = mlgraph.Graph()
    x, w = g.input("x"), g.parameter(1.0, "w")
    root = mlgraph.sqrt((w * x - 1) ** 2)
    square, model = root.sources[0], mlgraph.Model(g, root)
    assert refused(model, [[1.0]], [2.0]) == (
        f"pow {square.name} has the adjoint -inf in example 0 (backward): "
        f"the largest term is -4 * inf, of sqrt {root.name}"
    )


def test_messages_of_update_faults():
    weight = one_neuron(lambda n: n * 1e20, [0.0], bias=None)
    given = {"momentum": 0.9, "learning_rate": 1e-30}
    assert refused(weight, [[1], [1e30]], **given) == (
        "neuron n1 would not keep its weight of input x0, or the optimizer's state of it, "
        "finite in example 1 (update): it is 0, the gradient 5e+49, 0 in the optimizer's state, the learning rate 1e-30"
    )
    assert refused(weight, [[2e19]] * 40 + [[1]], **given).startswith(
        "neuron n1 would not keep its weight of input x0, or the optimizer's state of it, finite (update): it is 0, "
        "the gradient 1.95122e+39, 0 in"
    )
    bias = one_neuron(lambda n: n * 1e3, [0.0], bias=2.0)
    assert refused(bias, [[0]], learning_rate=3e38) == (
        "neuron n1 would not keep its bias finite (update): it is 2, the gradient 1000, the learning rate 3e+38"
    )
    g = mlgraph.Graph()
    parameter = g.parameter(1.5, "p")
    model = mlgraph.Model(g, [parameter], loss=-1e3 * parameter)
    assert refused(model, np.zeros((1, 0)), learning_rate=3e38) == (
        "parameter p would not keep its value finite (update): it is 1.5, the gradient -1000, the learning rate 3e+38"
    )
    adam = one_neuron(lambda n: n * 1e30, [0.0], bias=None)
    assert refused(adam, [[1]], optimizer="adam", momentum=0.9).endswith(
        "it is 0, the gradient 1e+30, 0 in the optimizer's state, 0 in the optimizer's state, "
        "the learning rate, corrected as by Adam, 0"
    )


def test_harmless_infinities_are_not_blamed():
    """1 / inf is 0, so the infinity is not the reason for the NaN."""
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    harmless = 1 / mlgraph.exp(x * 100)
    n = g.add_neuron([y], weights=[1.0])
    model = mlgraph.Model(g, [n], loss=mlgraph.log(n + harmless))
    model.fit([[1, 1], [2, 1]], epochs=1)
    message = refused(model, [[1, 1], [1, -1]])
    assert message.startswith("log n") and " is nan in example 1 (forward): log(-" in message


def test_first_example_in_shuffled_order_and_first_node_are_named(sweep):
    net = network("identity")
    x = FLOATS.copy()
    x[[20, 130, 77], 3] = 3e38
    for neuron in net.layers[0].neurons:
        neuron.weights[3] = 0
    net.layers[0].neurons[11].weights[3] = net.layers[0].neurons[13].weights[3] = 10
    order = epoch_order(0, N, 4).tolist()
    first = min((20, 130, 77), key=order.index)
    with pytest.raises(
        mlgraph.NonFiniteError, match=rf"layer 0 neuron 11 is inf in example {first} \(forward\)"
    ) as error:
        net.fit(x, TARGETS, seed=4, batch_size=N, epochs=1)
    assert (error.value.node, error.value.example) == (net.layers[0].neurons[11].id, first)


@pytest.mark.slow
def test_random_faults_are_named(request):
    """`--faults 1000` tries as many; nothing may have changed."""
    for seed in range(request.config.getoption("faults")):
        rng, kind = np.random.default_rng([7, seed]), KINDS[seed % len(KINDS)]
        model, data, options, node, example, sweep = faulty(rng, kind)
        model.evaluate(*data, *[()] * (len(data) < 2))  # compiled
        before = model.graph.parameters.tobytes()
        with pytest.raises(mlgraph.NonFiniteError) as error:
            model.fit(*data, epochs=1, seed=seed, n_threads=int(rng.integers(1, 3)), **options)
        found = error.value
        assert (found.sweep, found.node, found.example) == (sweep, node, example), (seed, kind, str(found))
        assert f": {model.name_of(node)} " in str(found), (seed, kind, str(found))
        assert (f"in example {example} (" in str(found)) == (example >= 0), (seed, kind, str(found))
        assert model.graph.parameters.tobytes() == before, (seed, kind)
        if "step 0:" in str(found):
            assert not any(vector.any() for vector in model.graph.storage.state.values()), (seed, kind)
