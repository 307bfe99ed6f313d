"""A NonFiniteError names the node, the example, the sweep and the numbers, also of random faults."""

import pickle
import re

import numpy as np
import pytest
from overflowing import FLOATS, TARGETS, N, X, is_finite, network, one_neuron

import mlgraph
from mlgraph.engine.steps import epoch_order


def refused(model, *data, **options):
    """The error of the first step, without its beginning and the numbers of unnamed nodes."""
    given = {
        "epochs": 1,
        "shuffle": False,
        "learning_rate": 0.0,
        "momentum": 0.0,
        "optimizer": "sgd",
        "batch_size": 128,
        **options,
    }
    before = model.graph.get_parameters()
    with pytest.raises(mlgraph.NonFiniteError) as error:
        model.fit(*data, **given)
    np.testing.assert_array_equal(model.graph.get_parameters(), before)
    match = re.fullmatch(
        r"epoch 1, step 1: (.*?)(; a lower learning rate may help|; the numbers in .*)?", str(error.value)
    )
    # Before the first update nothing has been learnt that a lower rate would have kept away.
    assert match and bool(match[2]) == (np.isfinite(before).all() and error.value.sweep == "update")
    assert pickle.loads(pickle.dumps(error.value)).node == error.value.node
    return re.sub(r"\bn\d+", "n#", match[1])


def classes():
    net = network()
    net.layers[1].biases = [0, -3e38, 3e38]
    return net


def questions():
    net = mlgraph.Network(12, seed=0)
    net.add_layer(2, "sigmoid", loss="binary_cross_entropy")
    net.layers[0].biases = [-2e38, -3e38]
    return net


def nan_weight():
    net = network()
    net.graph._memory_of(net.layers[0].ids[7])[:2] = np.nan
    return net


def two_layers():
    g = mlgraph.Graph(seed=0)
    x, s = g.add_inputs(2)
    out = g.add_neuron([g.add_neuron([x], weights=[w]) for w in (0.0, 1.0)], weights=[1e30, 1e10])
    return mlgraph.Model(g, [out], loss=out * s)


def half_the_edges():
    """Weight dropout doubles the weights that it keeps."""
    net = mlgraph.Network(1, seed=0)
    for size, dropped in ((8, 0.0), (1, 0.5)):
        net.add_layer(size, "identity", weight_dropout=dropped, bias=False)
    net.layers[1].weights = np.full((1, 8), 1e29)
    return net


def norm():
    """The gradient of a norm at 0: the fault begins at the node that the root reads."""
    g = mlgraph.Graph(seed=0)
    return mlgraph.Model(g, mlgraph.sqrt((g.add_parameter(1.0, "w") * g.add_input("x") - 1) ** 2))


def parameter(value, factor):
    g = mlgraph.Graph(seed=0)
    p = g.add_parameter(value, "p")
    return mlgraph.Model(g, [p], loss=factor * p)


def harmless_infinity():
    """1 / inf is 0, so the infinity is not the reason for the NaN."""
    g = mlgraph.Graph(seed=0)
    x, y = g.add_inputs(2)
    return mlgraph.Model(g, [n := g.add_neuron([y], weights=[1.0])], loss=mlgraph.log(n + 1 / mlgraph.exp(x * 100)))


NO_INPUTS = np.zeros((1, 0))
MESSAGES = {
    "log n# is nan in example 2 (forward): log(-1)": lambda: refused(one_neuron(mlgraph.log), [[1], [2], [-1], [3]]),
    "log n# is nan in example 1 (forward): log(-1)": lambda: refused(harmless_infinity(), [[1, 1], [1, -1]]),
    "neuron n# is inf in example 1 (forward): the bias is 3e+38, the largest product 3e+38 * 1, of input x0": lambda: (
        refused(one_neuron(lambda n: n, [3e38, 2.0], bias=3e38), np.uint8([[0, 9], [255, 9]]))
    ),
    "sum n# is inf in example 0 (forward): sum(3e+38, 3e+38, 2, ...)": lambda: refused(
        one_neuron(lambda n: mlgraph.sum(n, n * 3e38, n, 2 * n, n * 3e38)), [[1]]
    ),
    "neuron n# gives the loss inf in example 1 (forward): the output is 2e+20, its target 3": lambda: refused(
        one_neuron(lambda n: "squared_error", [1e10]), [[1], [2e10]], [0, 3]
    ),
    "layer 1 neuron 1 gives the loss inf in example 2 (forward): the output is -3e+38, the highest of all 3e+38": (
        lambda: refused(classes(), X[:3], [2, 2, 1])
    ),
    "in example 1 (forward): the output is -3e+38, the highest of all 3e+38, its target 0.5": lambda: refused(
        classes(), X[:3], [[0, 0, 1], [0, 0.5, 0.5], [0, 1, 0]]
    ),
    "in example 1 (forward): the output is -3e+38, its target 1": lambda: refused(
        questions(), X[:2], [[0, 1], [0.75, 1]]
    ),
    "layer 0 neuron 7 is nan in example 0 (forward): the bias is 0, the largest product nan * ": lambda: refused(
        nan_weight(), X[:3] | 1, [0, 1, 2]
    ),
    "parameter p is inf in example 0 (forward): it was so before the step": lambda: refused(
        parameter(np.inf, -1.0), NO_INPUTS
    ),
    "neuron n# has the adjoint inf in example 2 (backward): the largest term is 0.25 * inf, of sqrt n#": lambda: (
        refused(one_neuron(mlgraph.sqrt), [[1], [2], [0], [3]])
    ),
    "neuron n# has the adjoint inf in example 1 (backward): the largest term is 5e+19 * 1e+30, of neuron n#": lambda: (
        refused(two_layers(), [[1, 1], [1, 1e20]])
    ),
    "has the adjoint -inf in example 0 (backward): the largest term is -2e+10 * 2e+29, of layer 1 neuron 0": lambda: (
        refused(half_the_edges(), [[0]], [1e10])
    ),
    "pow n# has the adjoint -inf in example 0 (backward): the largest term is -4 * inf, of sqrt n#": lambda: refused(
        norm(), [[1.0]], [2.0]
    ),
    "neuron n# would not keep its weight of input x0, or the optimizer's state of it, finite in example 1 (update): "
    "it is 0, the gradient 5e+49, 0 in the optimizer's state, the learning rate 1e-30": lambda: refused(
        one_neuron(lambda n: n * 1e20, [0.0], bias=None), [[1], [1e30]], momentum=0.9, learning_rate=1e-30
    ),
    "state of it, finite (update): it is 0, the gradient 1.95122e+39, 0 in": lambda: refused(
        one_neuron(lambda n: n * 1e20, [0.0], bias=None), [[2e19]] * 40 + [[1]], momentum=0.9
    ),
    "0 in the optimizer's state, the learning rate, corrected as by Adam, 0": lambda: refused(
        one_neuron(lambda n: n * 1e30, [0.0], bias=None), [[1]], optimizer="adam", momentum=0.9
    ),
    "neuron n# would not keep its bias finite (update): it is 2, the gradient 1000, the learning rate 3e+38": lambda: (
        refused(one_neuron(lambda n: n * 1e3, [0.0], bias=2.0), [[0]], learning_rate=3e38)
    ),
    "parameter p would not keep its value finite (update): it is 1.5, the gradient -1000, the": lambda: refused(
        parameter(1.5, -1e3), NO_INPUTS, learning_rate=3e38
    ),
}


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.filterwarnings("ignore:the numbers in column")
def test_message_names_node_example_and_numbers(message):
    assert message in MESSAGES[message]()


def test_data_that_become_nonfinite_during_a_run_are_named():
    """The data are not copied, and were checked before the run."""
    x, model = np.ones((20, 2), np.float32), one_neuron(lambda n: n, [1.0, 1.0])

    def spoil(event):
        if event.kind == "epoch":
            x[7, 1] = np.nan

    with pytest.raises(mlgraph.NonFiniteError) as error:
        model.fit(x, epochs=2, shuffle=False, callbacks=[spoil])
    assert "input x1 is nan in example 7 (forward): the data have changed since they were checked" in str(error.value)
    assert is_finite(model)


@pytest.mark.filterwarnings("ignore:the numbers in column")
def test_first_example_in_shuffled_order_and_first_node_are_named(sweep):
    net, x, order = network("identity"), FLOATS.copy(), epoch_order(0, N, 4).tolist()
    x[[20, 130, 77], 3] = 3e38
    for neuron in net.layers[0].neurons:
        neuron.weights[3] = 10 if neuron in (net.layers[0].neurons[11], net.layers[0].neurons[13]) else 0
    first = min((20, 130, 77), key=order.index)
    with pytest.raises(mlgraph.NonFiniteError, match=rf"layer 0 neuron 11 is inf in example {first} \(") as error:
        net.fit(x, TARGETS, seed=4, batch_size=N, epochs=1)
    assert (error.value.node, error.value.example) == (net.layers[0].neurons[11].id, first)


# By kind of fault: the sweep, the layer at fault, whether there is one example to blame, and numbers: the weights
# from one source each of a neuron in each layer, the input of the example or of all, and their target.
KINDS = {
    "weight": ("forward", 0, True, (3e38, 0.1, 0.1), 10, 0),
    "later weight": ("forward", 1, True, (10, 3e38, 0.1), 1, 0),
    "input": ("forward", 0, True, (100, 0.1, 0.1), 1e38, 0),
    "adjoint": ("backward", 0, True, (0, 1e27, 1), 0, 1e15),
    "gradient": ("update", 0, True, (0, 1e20, 1), 1e30, 5),
    "sum": ("update", 0, False, (0, 1e9, 1), 1e30, 5),
    "rate": ("update", 0, False, (0, 1e5, 1), 1, 5),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the numbers in column")
def test_random_faults_are_named(request):
    """`--faults 1000` tries as many; nothing may have changed."""
    for seed in range(request.config.getoption("faults")):
        rng, kind = np.random.default_rng([7, seed]), list(KINDS)[seed % len(KINDS)]
        sweep, layer, alone, weights, value, target = KINDS[kind]
        p, *sizes, n = [*rng.integers(2, 40, 3).tolist(), 1 + seed % 4, int(rng.integers(60, 150))]
        net = mlgraph.Network(p, seed=seed)
        for size in sizes:
            net.add_layer(size, "identity", bias=False)
        x, y = rng.random((n, p)) * (rng.random((n, p)) < rng.choice([0.2, 1])), np.zeros((n, sizes[-1]))
        # The fault goes along a path of one node in each layer, which no other node may spread.
        path, example = [int(rng.integers(size)) for size in (p, *sizes[:2], 1)], int(rng.integers(n))
        for i, weight in enumerate(weights):
            rows = net.layers[i].weights * 0.1
            rows[:, path[i]] = 0
            if i == 0:
                rows[path[1]] = 0
            rows[path[i + 1], path[i]] = weight
            net.layers[i].weights = rows
        blamed = example if alone else slice(None)
        x[:, path[0]] = 0
        x[blamed, path[0]], y[blamed, 0] = value, target
        options = {"optimizer": "sgd", "learning_rate": 1e35 if kind == "rate" else 0.0, "batch_size": n}
        before, node = net.graph.get_parameters(), net.layers[layer].neurons[path[layer + 1]]
        with pytest.raises(mlgraph.NonFiniteError) as error:
            net.fit(x, y, epochs=1, seed=seed, n_threads=1 + seed % 2, **options)
        found, example = error.value, example if alone else -1
        assert (found.sweep, found.node, found.example) == (sweep, node.id, example), (seed, kind, str(found))
        assert f": {net.name_of(node.id)} " in str(found), (seed, kind, str(found))
        assert (f"in example {example} (" in str(found)) == alone, (seed, kind, str(found))
        np.testing.assert_array_equal(net.graph.get_parameters(), before)
