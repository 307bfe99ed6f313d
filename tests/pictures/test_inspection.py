"""`Model.inspect`, `ablate` and `ablation_table`, compared with other ways to compute the same numbers."""

import numpy as np
import pytest
from editable import held

import mlgraph
from mlgraph.pictures import inspection

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (90, 12), np.uint8)
Y = RNG.integers(0, 9, 90)


def network(hidden=(20, 16), activation="leaky_relu"):
    net = mlgraph.Network(12, seed=0)
    for size in hidden:
        net.add_layer(size, activation, dropout=0.25)
    net.add_layer(9, "softmax")
    net.fit(X, Y, epochs=3)
    return net


def everything(net):
    return [*held(net.graph), net.graph.last_edit]


def cut_and_evaluate(net, what, x=X, y=Y):
    edits = net.graph.edits
    net.graph.prune(what)
    scores = net.evaluate(x, y)
    if net.graph.edits > edits:
        net.undo()
    return scores


@pytest.fixture
def plans(monkeypatch):
    """A list that grows with every compilation."""
    made, plan = [], inspection.Plan
    monkeypatch.setattr(inspection, "Plan", lambda *given, **options: made.append(1) or plan(*given, **options))
    return made


# --- ablation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["neuron", "edge", "several", "pair"])
def test_ablate_gives_the_scores_after_a_cut(name):
    net = network()
    first, second = net.layers[:2]
    what = {
        "neuron": first.neurons[3],
        "edge": second.neurons[2].edges[5],
        "several": [first.neurons[1], second.neurons[7], net.layers[2].neurons[0].edges[3]],
        "pair": [(first.neurons[0], second.neurons[0])],
    }[name]
    net.graph.add_edge(net.graph[0], second.neurons[0], 0.5)
    before = everything(net)
    scores = net.ablate(what, X, Y)
    assert everything(net) == before and scores != net.evaluate(X, Y)
    assert scores == cut_and_evaluate(net, [what] if name in ("neuron", "edge") else what)


@pytest.mark.parametrize("activation", ["leaky_relu", "sigmoid"])
@pytest.mark.parametrize("layer", [0, 1])
def test_table_gives_the_scores_of_each_ablation(sweep, monkeypatch, activation, layer):
    net = network(activation=activation)
    net.evaluate(X, Y)
    before = everything(net)
    each = [net.ablate(neuron, X, Y) for neuron in net.layers[layer].neurons]
    for most_values in (inspection.MOST_VALUES, 500):  # in one chunk of examples and in several
        monkeypatch.setattr(inspection, "MOST_VALUES", most_values)
        table = net.ablation_table(net.layers[layer], X, Y)
        assert everything(net) == before and table.dtype == inspection.ABLATED
        assert table["node"].tolist() == net.layers[layer].ids
        np.testing.assert_allclose(table["loss"], [scores["loss"] for scores in each], rtol=1e-6)
        np.testing.assert_allclose(table["accuracy"], [scores["accuracy"] for scores in each], rtol=1e-6)
        assert len(set(table["loss"])) > 10


def test_targets_in_chunks(monkeypatch):
    net = mlgraph.Network(12, seed=0)
    net.add_layer(8, "tanh")
    net.add_layer(3, "identity")
    targets = RNG.random((90, 3))
    whole = net.ablation_table(net.layers[0], X, targets)
    monkeypatch.setattr(inspection, "MOST_VALUES", 100)
    np.testing.assert_allclose(net.ablation_table(net.layers[0], X, targets)["loss"], whole["loss"], rtol=1e-5)


def test_pruned_network():
    """Also for dead neurons, and for one whose loss kills the neuron that reads nothing else."""
    net = network((6, 16))
    net.prune(0.6, by="random", seed=1)
    dead, lone = net.layers[1].neurons[:2]
    net.graph.prune(dead.edges)
    for edge in lone.edges[1:]:
        edge.prune()
    for neuron in net.layers[2].neurons:
        if lone not in neuron.sources:
            net.graph.add_edge(lone, neuron, 0.5)
    lone.bias = 3.0
    assert lone.alive and not dead.alive
    for layer in net.layers[:2]:
        for neuron, row in zip(layer.neurons, net.ablation_table(layer, X, Y), strict=True):
            scores = cut_and_evaluate(net, [neuron])
            assert row["loss"] == pytest.approx(scores["loss"], rel=1e-6) and row["accuracy"] == scores["accuracy"]
            assert neuron.alive or row["loss"] == net.evaluate(X, Y)["loss"]


def test_any_graph():
    g = mlgraph.Graph()
    x = g.inputs(12)
    rng = np.random.default_rng(1)
    first = [g.add_neuron(x[k : k + 4], "tanh", weights=rng.normal(size=4), bias=0.5) for k in range(6)]
    mixed = [mlgraph.exp(first[0]) * first[1], first[2] + g.parameter(0.5), mlgraph.sin(first[3])]
    second = [g.add_neuron([*mixed, x[k], first[4]], "sigmoid", weights=rng.normal(size=5)) for k in range(3)]
    alone = g.add_neuron([mixed[2]], "sigmoid", weights=[2.0], bias=-1.0)
    out = g.add_neuron([*second, alone, first[5], x[0]], weights=rng.normal(size=6))
    model = mlgraph.Model(g, [out], loss=(out - x[1]) ** 2)
    for group in (first, second, [alone], [*second, alone]):
        table = model.ablation_table(group, X, ())
        for neuron, row in zip(group, table, strict=True):
            assert row["loss"] == pytest.approx(cut_and_evaluate(model, [neuron], X, ())["loss"], rel=1e-5)
        assert np.isnan(table["accuracy"]).all()
    assert np.isnan(model.ablation_table([out], X)["loss"]).all()
    np.testing.assert_array_equal(model.inspect(X)["loss"], model.inspect(X, ())["loss"])  # a node needs no labels
    with pytest.raises(ValueError, match=f"^layer: neurons must not depend on each other, but {alone.name} depends"):
        model.ablation_table([*first, alone], X, ())


@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy"])
def test_outputs_that_do_not_depend_on_the_layer(loss):
    g = mlgraph.Graph()
    x = g.inputs(3)
    hidden = [g.add_neuron(x[1:], "tanh", weights=[k, 1 - k]) for k in range(3)]
    outputs = [g.add_neuron([*hidden, x[1]], weights=[1, 2, 3, 4]), g.add_neuron([x[0]], weights=[2.0]), x[2]]
    model = mlgraph.Model(g, outputs, loss)
    data, y = RNG.normal(size=(40, 3)), RNG.random((40, 3))
    table = model.ablation_table(hidden, data, y)
    assert table["loss"] == pytest.approx([model.ablate(neuron, data, y)["loss"] for neuron in hidden], rel=1e-6)
    costs = model.inspect(data, y)["loss"]
    assert costs[:3] == pytest.approx(table["loss"] - model.evaluate(data, y)["loss"], rel=1e-5)


def test_models_that_share_a_graph():
    """A neuron of another model costs nothing here, and a neuron that is an output there can be ablated."""
    net = network()
    extra = net.graph.add_neuron(net.layers[0].neurons[:3], "tanh", weights=np.ones(3))
    other = mlgraph.Model(net.graph, [mlgraph.exp(extra)])
    row = next(row for row in net.inspect(X, Y) if row["node"] == extra.id)
    assert row["alive"] and row["layer"] == -1 and row["loss"] == row["accuracy"] == 0
    scores = other.ablation_table([extra, net.layers[1].neurons[0]], X, np.ones((90, 1)))["loss"]
    assert scores[1] == other.evaluate(X, np.ones((90, 1)))["loss"] != scores[0]
    neuron = net.layers[0].neurons[1]
    before = net.ablate(neuron, X, Y)
    probe = mlgraph.Model(net.graph, net.outputs, loss=neuron)
    assert net.ablate(neuron, X, Y) == before and probe.loss == "node"


def test_neurons_that_an_output_cannot_do_without(plans):
    """`ablate` refuses them, as `prune` does; a table has NaN for them, without a compilation for each."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(1, "tanh")
    net.add_layer(1, "sigmoid")
    x, y = np.eye(2), np.ones((2, 1))
    for what in (net.layers[0].neurons, net.layers[0].neurons[0].edges, net.outputs[0].edges):
        for refuse, given in ((net.ablate, (what, x, y)), (net.graph.prune, (what,))):
            with pytest.raises(ValueError):  # noqa: PT011
                refuse(*given)
    assert np.isnan(net.ablation_table(net.layers[0], x, y)["loss"]).all() and np.isnan(net.inspect(x, y)["loss"]).all()
    g = mlgraph.Graph()
    first = last = g.input()
    for _ in range(100):
        last = g.add_neuron([last], weights=[1.0])
    model = mlgraph.Model(g, last)
    plans.clear()
    table = model.inspect([[1.0]], [[3.0]])
    assert np.isnan(table["loss"]).all() and (table["mean"] == 1).all() and len(plans) == 1
    g.add_edge(first, last, 1.0)
    assert model.inspect([[1.0]], [[3.0]])["loss"][:-1].tolist() == [3.0] * 99


def test_each_neuron_is_ablated_alone(plans):
    """Without both there would be no path to the output; without either there is one."""
    g = mlgraph.Graph()
    x = g.input()
    a, b = (g.add_neuron([x], weights=[weight]) for weight in (1.0, 2.0))
    y = g.add_neuron([g.add_neuron([a], weights=[1.0]), g.add_neuron([b], weights=[1.0])], weights=[1.0, 1.0])
    model = mlgraph.Model(g, y)
    assert model.ablation_table([a, b], [[1.0]], [[0.0]])["loss"].tolist() == [4.0, 1.0]
    plans.clear()
    assert model.ablation_table([a], [[1.0]], [[0.0]])["loss"].tolist() == [4.0] and len(plans) == 1


@pytest.mark.parametrize("first", [False, True])
def test_the_only_live_source_of_a_neuron(first):
    g = mlgraph.Graph()
    x = g.inputs(2)
    one, dead = [g.add_neuron(x, "tanh", weights=[1, 2], bias=bias) for bias in (0.1, 0.5)][:: -1 if first else 1]
    both = g.add_neuron([one, dead], "tanh", weights=[1, 1], bias=0.7)
    other = g.add_neuron(x, weights=[1, 1])
    model = mlgraph.Model(g, g.add_neuron([both, x[0], other], weights=[1, 1, 1], bias=0.2))
    g.prune([dead])
    g.add_edge(dead, both, 1.0)
    data, targets = RNG.normal(size=(64, 2)), np.zeros(64)
    expected = [model.ablate(neuron, data, targets)["loss"] for neuron in (one, other)]
    assert model.ablation_table([one, other], data, targets)["loss"] == pytest.approx(expected, rel=1e-6)


def test_infinite_values_affect_only_their_readers():
    rng, g = np.random.default_rng(0), mlgraph.Graph()
    x = g.inputs(20)
    first = [g.add_neuron(x, weights=rng.normal(size=20)) for _ in range(18)]
    first[0].weights[:] = 3e37
    mask = rng.random((32, 18)) < 0.9
    second = [g.add_neuron(np.array(first)[some].tolist(), weights=rng.normal(size=some.sum())) for some in mask]
    loss = sum((k * mlgraph.where(neuron, 1.0, -1.0) for k, neuron in enumerate(second, 1)), g.constant(0.0))
    model, data = mlgraph.Model(g, loss, loss), np.full((600, 20), 0.1)
    data[70] = rng.random(20) + 9
    want = [model.ablate(neuron, data[:300])["loss"] + model.ablate(neuron, data[300:])["loss"] for neuron in first]
    np.testing.assert_allclose(model.ablation_table(first, data, ())["loss"], np.array(want) / 2, rtol=1e-6)


# --- the table of inspect -------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["leaky_relu", "sigmoid"])
@pytest.mark.parametrize("most_values", [2**26, 3000])
def test_inspect(monkeypatch, activation, most_values):
    net = network(activation=activation)
    monkeypatch.setattr(inspection, "MOST_VALUES", most_values)
    before = everything(net)
    table = net.inspect(X, Y)
    assert everything(net) == before and table.dtype == inspection.COLUMNS and len(table) == 45
    trace, whole = net.trace(X), net.evaluate(X, Y)
    assert table["node"].tolist() == [n.id for layer in net.layers for n in layer.neurons] and table["alive"].all()
    assert table["layer"].tolist() == [0] * 20 + [1] * 16 + [2] * 9
    assert table["index"].tolist() == [*range(20), *range(16), *range(9)]
    rows = {row["node"]: row for row in table}
    for i, layer in enumerate(net.layers):
        values = trace.of(layer.neurons).values.astype(float)
        zero = 0.5 if activation == "sigmoid" and i < 2 else 0
        without = net.ablation_table(layer, X, Y)
        for k, neuron in enumerate(layer.neurons):
            row = rows[neuron.id]
            out = [t.weights[t.sources.index(neuron)] for t in neuron.targets if isinstance(t, mlgraph.Neuron)]
            want = {
                "mean": values[:, k].mean(),
                "std": values[:, k].std(),
                "active": (values[:, k] > zero).mean(),
                "dormant": np.abs(values[:, k]).mean() / np.abs(values).mean(),
                "fan_in": len(neuron.sources),
                "fan_out": len(out),
                "norm_in": np.linalg.norm(neuron.weights),
                "norm_out": np.linalg.norm(out),
                "bias": neuron.bias,
                "loss": without[k]["loss"] - whole["loss"],
                "accuracy": whole["accuracy"] - without[k]["accuracy"],
            }
            for name, value in want.items():
                np.testing.assert_allclose(row[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert np.isnan(table["loss"][-9:]).all() and not np.isnan(table["loss"][:-9]).any()


def test_dead_and_dormant_neurons():
    net = network(activation="relu")
    dead, silent = net.layers[0].neurons[4], net.layers[0].neurons[5]
    dead.prune()
    silent.bias = -1000
    table = net.inspect(X)
    names = ["mean", "std", "active", "dormant", "fan_in", "fan_out"]
    assert not table["alive"][4] and not any(table[4][name] for name in names)
    assert table[5]["alive"] and table[5]["active"] == table[5]["dormant"] == 0
    assert np.isnan(table["loss"]).all() and np.mean(table["dormant"][[0, 1, 2, 3, *range(5, 20)]]) == pytest.approx(1)


def test_constant_neurons():
    """Rounding does not make a deviation NaN, nor a layer of zeros a dormant score."""
    g = mlgraph.Graph()
    x = g.inputs(1)
    constant = [g.add_neuron(x, "tanh", weights=[w]) for w in np.linspace(0.1, 2.0, 40)]
    zero = g.add_neuron(constant, "relu")
    table = mlgraph.Model(g, g.add_neuron([zero], weights=[1])).inspect(np.full((1000, 1), 0.1))
    np.testing.assert_allclose(table["std"], 0, atol=1e-6)
    assert table["dormant"][table["node"] == zero.id] == 0


def test_a_graph_without_layers():
    g = mlgraph.Graph()
    x = g.inputs(12)
    a = g.add_neuron(x, "relu", weights=np.ones(12), bias=None)
    unread = g.add_neuron(x, "relu")
    out = g.add_neuron([a, x[0]], weights=[1, 1])
    table = mlgraph.Model(g, [out]).inspect(X, np.zeros(90))
    assert table["node"].tolist() == [a.id, unread.id, out.id] and table["alive"].tolist() == [True, False, True]
    assert np.isnan(table["bias"][0]) and table["fan_out"].tolist() == [1, 0, 0] and table["loss"][0] < 0


def test_rows_are_in_the_order_of_levels():
    g = mlgraph.Graph()
    x = g.inputs(1)
    a = g.add_neuron(x, weights=[1])
    b = g.add_neuron([a], weights=[1])
    c = g.add_neuron(x, weights=[1])
    table = mlgraph.Model(g, [b, c]).inspect(np.ones((3, 1)))
    rows = table[["layer", "index", "node"]].tolist()
    assert rows == [(1, 0, a.id), (1, 1, c.id), (2, 0, b.id)]


def test_models_without_neurons_or_live_neurons():
    g = mlgraph.Graph()
    x = g.inputs(12)
    model = mlgraph.Model(g, x[0] * g.parameter(2.0))
    assert len(model.inspect(X)) == len(model.inspect(X, X[:, :1])) == 0
    g = mlgraph.Graph()
    x = g.input()
    neuron = g.add_neuron([x], weights=[1.0], bias=None)
    model = mlgraph.Model(g, mlgraph.sum(x, neuron))
    neuron.prune()
    (row,) = model.compact().inspect([[1.0]], [[3.0]])
    assert not row["alive"] and np.isnan(row["bias"]) and row["fan_in"] == 0


def test_overflow_shows_in_the_table_without_a_warning():
    net = mlgraph.Network(4, seed=0)
    net.add_layer(3, "relu")
    net.add_layer(2, "softmax")
    net.layers[0].weights = np.full((3, 4), 3e38)
    table = net.inspect(np.ones((10, 4)), np.zeros(10, int))
    assert np.isinf(table["mean"][:3]).all() and np.isfinite(table["norm_in"]).all()


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (
            lambda net: net.ablate(net.outputs[0], X, Y),
            ValueError,
            "ablate: n[0-9]+ is an output of a model and cannot be cut",
        ),
        (
            lambda net: net.ablate(3, X, Y),
            TypeError,
            r"ablate: expected neurons, edges or pairs \(source, target\), got int",
        ),
        (
            lambda net: net.ablate([net.graph[0]], X, Y),
            TypeError,
            "ablate: expected neurons, edges or pairs .*, got Node",
        ),
        (
            lambda net: net.ablate(network().layers[0].neurons[0], X, Y),
            ValueError,
            "ablate: expected nodes of one graph",
        ),
        (lambda net: net.ablate(net.layers[0].neurons[0], X, Y[:3]), ValueError, "y: expected 90 labels"),
        (
            lambda net: net.ablate(net.layers[0].neurons[0], X[:0], Y[:0]),
            ValueError,
            "x: expected at least one example",
        ),
        (lambda net: net.ablation_table([net.graph[0]], X, Y), TypeError, "layer: some nodes are not neurons"),
        (lambda net: net.ablation_table(3, X, Y), TypeError, "layer: expected a sequence of nodes, got int"),
        (lambda net: net.ablation_table(net.layers[0], X[:, 1:], Y), ValueError, "x: expected shape"),
        (lambda net: net.inspect(X[:0]), ValueError, "x: expected at least one example, got none"),
        (lambda net: net.inspect(X, Y - 1), ValueError, "y: expected labels from 0 to 8"),
        (lambda net: mlgraph.Network(12).inspect(X), ValueError, "network: expected at least one layer"),
    ],
)
def test_errors(attempt, error, message):
    net = network()
    net.evaluate(X, Y)
    before = everything(net)
    with pytest.raises(error, match=message):
        attempt(net)
    assert everything(net) == before
