"""Random models of which one neuron or operation, in one example if that can be told, is not finite."""

import numpy as np

import mlgraph

OPTIMIZERS = {"sgd": {"momentum": 0.0}, "momentum": {"momentum": 0.9}, "adam": {"optimizer": "adam"}}

KINDS = WEIGHT, INPUT, BIAS, ADJOINT, SUM, RATE, ALONE, EXP, SQRT = (
    "weight",
    "input",
    "bias",
    "adjoint",
    "sum",
    "rate",
    "alone",
    "exp",
    "sqrt",
)


def faulty(rng, kind):
    """Model, data and options, then the node, example and sweep that are at fault."""
    return (faulty_graph if kind in (EXP, SQRT) else faulty_network)(rng, kind)


def faulty_network(rng, kind):
    """A network, data and options with which one neuron, in one example if that can be told, is not finite."""
    p, a, b, q = rng.integers(2, 40), rng.integers(2, 40), rng.integers(2, 40), rng.integers(1, 5)
    n = int(rng.integers(60, 120)) if kind == SUM else int(rng.integers(2, 150))
    net = mlgraph.Network(int(p), seed=int(rng.integers(100)))
    activation = (
        "identity" if kind in (ADJOINT, SUM, RATE, ALONE) else str(rng.choice(["identity", "leaky_relu", "relu"]))
    )
    for size in (a, b, q):
        net.add_layer(int(size), activation if size is not q else "identity", bias=kind == BIAS)
    one, two, three = ([neuron.weights for neuron in layer.neurons] for layer in net.layers)
    for row in [*one, *two, *three]:
        row *= np.float32(0.1)
    j, m, c, e = rng.integers(a), rng.integers(b), rng.integers(p), int(rng.integers(n))
    x = rng.random((n, p)).astype(np.float32) * (rng.random((n, p)) < rng.choice([0.2, 1]))
    y = np.zeros((n, q), np.float32)
    layer, neuron, sweep = 0, j, "forward"
    options = {"learning_rate": 0.0, "batch_size": n, **OPTIMIZERS[str(rng.choice(["sgd", "momentum", "adam"]))]}
    if kind in (ADJOINT, SUM, ALONE):  # Adam squares what else is large
        options |= {"optimizer": "sgd"}
    x[:, c] = 0
    for row in one:
        row[c] = 0
    if kind == WEIGHT and rng.random() < 0.5:
        # Only in that example the source is not zero.
        layer, neuron = 1, m
        one[j][:] = 0
        one[j][c], x[e, c] = 10, 1
        for row in two:
            row[j] = 0
        two[m][j] = 3e38
    elif kind == WEIGHT:
        one[j][c], x[e, c] = 3e38, 10
    elif kind == INPUT:
        one[j][c], x[e, c] = 100, 1e38
    elif kind == BIAS:
        # A byte is at most 1: the weight is finite, the bias as well, their sum is not.
        x = np.rint(x * 255).astype(np.uint8)
        one[j][c], x[e, c] = 3e38, 255
        net.layers[0].neurons[j].bias = 3e38
        for row in two:
            row[j] = 0
    elif kind == ADJOINT and rng.random() < 0.5:
        layer, neuron, sweep = 1, m, "backward"
        two[m][:] = 0
        three[0][m], y[e, 0] = 1e27, 1e15
    elif kind == ADJOINT:
        sweep = "backward"
        one[j][:] = 0
        for row in two:
            row[j] = 0
        two[m][j], three[0][m], y[e, 0] = 1e27, 1, 1e15
    else:
        sweep = "update"
        one[j][:] = 0
        for row in two:
            row[j] = 0
        three[0][m], y[:, 0] = 1, 5
        if kind == SUM:
            two[m][j], x[:, c] = 1e9, 1e30
        elif kind == ALONE:
            two[m][j], x[e, c] = 1e20, 1e30
        else:
            two[m][j], x[:, c] = 1e5, 1
            options |= {"learning_rate": 1e35, "momentum": float(rng.choice([0, 0.9])), "optimizer": "sgd"}
    if sweep != "update" and options.get("optimizer") != "adam" and rng.random() < 0.5:
        options["batch_size"] = int(rng.integers(1, n + 1))
    return net, (x, y), options, net.layers[layer].neurons[neuron].id, e if kind not in (SUM, RATE) else -1, sweep


def faulty_graph(rng, kind):
    """Neurons with sources of their own, one of which an operation cannot bear in one example."""
    g, n = mlgraph.Graph(), int(rng.integers(2, 100))
    x = g.inputs(int(rng.integers(3, 10)))
    some = [[x[i] for i in rng.permutation(len(x))[:3]] for _ in range(9)]
    wide = [g.add_neuron(sources, "sigmoid", weights=rng.normal(size=3)) for sources in some]
    c, e, k = rng.integers(len(x)), int(rng.integers(n)), rng.integers(6)
    own = [g.add_neuron([x[c], *wide[:i]], weights=[0, *[0.1] * i], bias=1.0) for i in range(1, 7)]
    own[k].weights[0] = 1
    data = rng.random((n, len(x)))
    operation = mlgraph.exp if kind == EXP else mlgraph.sqrt
    ends = [operation(neuron) for neuron in own]
    model = mlgraph.Model(g, ends, loss=mlgraph.sum(*ends))
    data[:, c], value = 0, own[k].id
    if kind == EXP:
        data[e, c], node, sweep = 1000, ends[k].id, "forward"
    else:
        data[:, c] = 1e-3
        data[e, c] = -g.compile(own[k])(data)[e, 0] + 1e-3  # the neuron is 0 there
        data = data.astype(np.float32)
        for _ in range(50):
            data[e, c] -= g.compile(own[k])(data)[e, 0]
        node, sweep = value, "backward"
        if g.compile(own[k])(data)[e, 0] != 0:
            own[k].weights[1:], own[k].bias, data[e, c] = 0, 0.0, 0
    options = {"learning_rate": 0.0, "batch_size": int(rng.integers(1, n + 1)), "momentum": float(rng.choice([0, 0.9]))}
    return model, (data,), options, node, e, sweep
