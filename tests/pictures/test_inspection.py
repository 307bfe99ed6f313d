"""`Model.inspect`, `ablate` and `ablation_table`, compared with cuts and with numpy."""

import pickle

import numpy as np
import pytest
from editable import held

import mlgraph
from mlgraph.pictures import inspection

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (90, 12), np.uint8)
Y = RNG.integers(0, 9, 90)
NAN = float("nan")


def network(hidden=(20, 16), activation="leaky_relu"):
    net = mlgraph.Network(12, seed=0)
    for size in hidden:
        net.add_layer(size, activation, dropout=0.25)
    net.add_layer(9, "softmax")
    net.fit(X, Y, epochs=3)
    return net


def everything(net):
    return [*held(net.graph), net.graph.last_edit]


def cut_and_evaluate(model, what, x=X, y=Y):
    """The scores of a model after a cut, which is undone; NaN if it is refused."""
    edits = model.graph.edits
    try:
        model.graph.prune(what)
    except ValueError:
        return {"loss": NAN}
    scores = model.evaluate(x, y)
    if model.graph.edits > edits:
        model.undo()
    return scores


def assert_table_is_of_cuts(model, neurons, x=X, y=Y):
    """The table, and the increases of the loss in that of `inspect`, are those of one cut after the other."""
    cuts = [cut_and_evaluate(model, [neuron], x, y) for neuron in neurons]
    table, whole = model.ablation_table(neurons, x, y), model.evaluate(x, y)
    assert table["node"].tolist() == [neuron.id for neuron in neurons]
    rows = {row["node"]: row for row in model.inspect(x, y)}
    for column in ("loss", "accuracy"):
        want = np.array([scores.get(column, NAN) for scores in cuts])
        np.testing.assert_allclose(table[column], want, rtol=1e-5)
        sign = 1 if column == "loss" else -1
        change = [sign * rows[neuron.id][column] for neuron in neurons]
        np.testing.assert_allclose(change, want - whole.get(column, NAN), rtol=1e-4, atol=1e-6)
    return table


@pytest.fixture
def plans(monkeypatch):
    """A list that grows with every compilation."""
    made, plan = [], inspection.Plan
    monkeypatch.setattr(inspection, "Plan", lambda *given, **options: made.append(1) or plan(*given, **options))
    return made


# --- ablation -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choose",
    [
        lambda net: net.layers[0][3],
        lambda net: net.layers[1][2].in_edges[5],
        lambda net: [net.layers[0][1], net.layers[1][7], net.layers[2][0].in_edges[3]],
        lambda net: [(net.layers[0][0], net.layers[1][0])],
    ],
    ids=["neuron", "edge", "several", "pair"],
)
def test_ablate_gives_the_scores_after_a_cut_and_changes_nothing(choose):
    net = network()
    what = choose(net)
    net.graph.add_edge(net.graph[0], net.layers[1][0], 0.5)
    before = everything(net)
    scores = net.ablate(what, X, Y)
    assert everything(net) == before and scores != net.evaluate(X, Y)
    assert scores == cut_and_evaluate(net, what if isinstance(what, list) else [what])


@pytest.mark.parametrize("activation", ["leaky_relu", "sigmoid"])
@pytest.mark.parametrize("most_values", [inspection.MOST_VALUES, 500])  # in one chunk of examples and in several
def test_the_table_of_a_layer_gives_the_scores_of_each_cut(monkeypatch, activation, most_values):
    net = network(activation=activation)
    net.evaluate(X, Y)
    before = everything(net)
    monkeypatch.setattr(inspection, "MOST_VALUES", most_values)
    table = net.ablation_table(net.layers[0], X, Y)
    assert everything(net) == before and len(set(table["loss"])) > 10
    for layer in net.layers[:2]:
        assert_table_is_of_cuts(net, layer.neurons)


def test_the_table_of_a_pruned_network():
    """It has dead neurons, and neurons that are the only source of another one with a bias."""
    net = network((6, 16))
    net.prune(0.6, by="random", seed=1)
    dead, lone = net.layers[1][0], net.layers[1][1]
    net.graph.prune([*dead.in_edges, *lone.in_edges[1:]])
    for neuron in net.layers[2]:
        if lone not in neuron.sources:
            net.graph.add_edge(lone, neuron, 0.5)
    lone.bias = 3.0
    assert lone.alive and not dead.alive
    for layer in net.layers[:2]:
        assert_table_is_of_cuts(net, layer.neurons)


def test_the_table_of_any_graph():
    g = mlgraph.Graph()
    x = g.add_inputs(12)
    rng = np.random.default_rng(1)
    first = [g.add_neuron(x[k : k + 4], "tanh", weights=rng.normal(size=4), bias=0.5) for k in range(6)]
    mixed = [mlgraph.exp(first[0]) * first[1], first[2] + g.add_parameter(0.5), mlgraph.sin(first[3])]
    second = [g.add_neuron([*mixed, x[k], first[4]], "sigmoid", weights=rng.normal(size=5)) for k in range(3)]
    alone = g.add_neuron([mixed[2]], "sigmoid", weights=[2.0], bias=-1.0)
    out = g.add_neuron([*second, alone, first[5], x[0]], weights=rng.normal(size=6))
    model = mlgraph.Model(g, [out], loss=(out - x[1]) ** 2)
    for neurons in (first, second, [alone], [*second, alone], [out]):
        assert_table_is_of_cuts(model, neurons, X, ())
    np.testing.assert_array_equal(model.inspect(X)["loss"], model.inspect(X, ())["loss"])  # a node needs no labels
    with pytest.raises(ValueError, match=f"^layer: neurons must not depend on each other, but {alone.name} depends"):
        model.ablation_table([*first, alone], X, ())


@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy"])
def test_the_table_of_outputs_that_do_not_all_depend_on_the_layer(monkeypatch, loss):
    monkeypatch.setattr(inspection, "MOST_VALUES", 100)
    g = mlgraph.Graph()
    x = g.add_inputs(3)
    hidden = [g.add_neuron(x[1:], "tanh", weights=[k, 1 - k]) for k in range(3)]
    outputs = [g.add_neuron([*hidden, x[1]], weights=[1, 2, 3, 4]), g.add_neuron([x[0]], weights=[2.0]), x[2]]
    assert_table_is_of_cuts(mlgraph.Model(g, outputs, loss), hidden, RNG.normal(size=(40, 3)), RNG.random((40, 3)))


@pytest.mark.parametrize("first", [False, True])
def test_the_table_of_the_only_live_source_of_a_neuron(first):
    g = mlgraph.Graph()
    x = g.add_inputs(2)
    one, dead = [g.add_neuron(x, "tanh", weights=[1, 2], bias=bias) for bias in (0.1, 0.5)][:: -1 if first else 1]
    both = g.add_neuron([one, dead], "tanh", weights=[1, 1], bias=0.7)
    other = g.add_neuron(x, weights=[1, 1])
    model = mlgraph.Model(g, g.add_neuron([both, x[0], other], weights=[1, 1, 1], bias=0.2))
    g.prune([dead])
    g.add_edge(dead, both, 1.0)
    assert_table_is_of_cuts(model, [one, other], RNG.normal(size=(64, 2)), np.zeros(64))


def test_the_table_of_neurons_that_two_models_share():
    """A neuron that only the other model needs costs nothing, and an output of the other can be ablated."""
    net = network()
    extra = net.graph.add_neuron(net.layers[0].neurons[:3], "tanh", weights=np.ones(3))
    other = mlgraph.Model(net.graph, [mlgraph.exp(extra)])
    row = net.inspect(X, Y)[-1]
    assert (row["node"], row["alive"], row["layer"], row["loss"], row["accuracy"]) == (extra.id, True, -1, 0, 0)
    y = np.ones((90, 1))
    scores = other.ablation_table([extra, net.layers[1][0]], X, y)["loss"]
    assert scores[1] == other.evaluate(X, y)["loss"] != scores[0]
    neuron = net.layers[0][1]
    before, probe = net.ablate(neuron, X, Y), mlgraph.Model(net.graph, net.outputs, loss=neuron)
    assert net.ablate(neuron, X, Y) == before and probe.loss == "node"


def test_the_last_way_to_an_output_cannot_be_ablated(plans):
    """`ablate` refuses it, as `prune` does; a table has NaN, without a compilation for each neuron."""
    net = mlgraph.Network(2, seed=0)
    net.add_layer(1, "tanh")
    net.add_layer(1, "sigmoid")
    x, y = np.eye(2), np.ones((2, 1))
    for what in (net.layers[0].neurons, net.layers[0][0].in_edges, net.outputs[0].in_edges):
        with pytest.raises(ValueError, match="output"):
            net.ablate(what, x, y)
    assert_table_is_of_cuts(net, net.layers[0].neurons, x, y)
    g = mlgraph.Graph()
    first = last = g.add_input()
    for _ in range(100):
        last = g.add_neuron([last], weights=[1.0])
    model = mlgraph.Model(g, last)
    plans.clear()
    table = model.inspect([[1.0]], [[3.0]])
    assert np.isnan(table["loss"]).all() and (table["mean"] == 1).all() and len(plans) == 1
    g.add_edge(first, last, 1.0)
    assert model.inspect([[1.0]], [[3.0]])["loss"][:-1].tolist() == [3.0] * 99


def test_each_neuron_of_a_table_is_ablated_alone(plans):
    """Without both there would be no path to the output; a single neuron costs one compilation."""
    g = mlgraph.Graph()
    x = g.add_input()
    a, b = (g.add_neuron([x], weights=[weight]) for weight in (1.0, 2.0))
    y = g.add_neuron([g.add_neuron([a], weights=[1.0]), g.add_neuron([b], weights=[1.0])], weights=[1.0, 1.0])
    model = mlgraph.Model(g, y)
    assert model.ablation_table([a, b], [[1.0]], [[0.0]])["loss"].tolist() == [4.0, 1.0]
    plans.clear()
    assert model.ablation_table([a], [[1.0]], [[0.0]])["loss"].tolist() == [4.0] and len(plans) == 1


def test_infinite_values_affect_only_their_readers():
    rng, g = np.random.default_rng(0), mlgraph.Graph()
    x = g.add_inputs(20)
    first = [g.add_neuron(x, weights=rng.normal(size=20)) for _ in range(18)]
    first[0].weights[:] = 3e37
    mask = rng.random((32, 18)) < 0.9
    second = [g.add_neuron(np.array(first)[some].tolist(), weights=rng.normal(size=some.sum())) for some in mask]
    loss = sum((k * mlgraph.where(neuron, 1.0, -1.0) for k, neuron in enumerate(second, 1)), g.add_constant(0.0))
    model, data = mlgraph.Model(g, loss, loss), np.full((600, 20), 0.1)
    data[70] = rng.random(20) + 9
    want = [model.ablate(neuron, data[:300])["loss"] + model.ablate(neuron, data[300:])["loss"] for neuron in first]
    np.testing.assert_allclose(model.ablation_table(first, data, ())["loss"], np.array(want) / 2, rtol=1e-6)


# --- the table of inspect -------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["leaky_relu", "sigmoid"])
@pytest.mark.parametrize("most_values", [2**26, 3000])
def test_inspect_gives_statistics_of_each_neuron(monkeypatch, activation, most_values):
    net = network(activation=activation)
    monkeypatch.setattr(inspection, "MOST_VALUES", most_values)
    before = everything(net)
    table = net.inspect(X)
    assert everything(net) == before and table["alive"].all() and np.isnan(table["loss"]).all()
    rows = iter(table)
    for i, layer in enumerate(net.layers):
        values = net.trace(X).of(layer.neurons).values.astype(float)
        zero = 0.5 if activation == "sigmoid" and i < 2 else 0
        for k, neuron in enumerate(layer):
            out = [t.weights[t.sources.index(neuron)] for t in neuron.targets if isinstance(t, mlgraph.Neuron)]
            want = {
                "layer": i,
                "index": k,
                "node": neuron.id,
                "mean": values[:, k].mean(),
                "std": values[:, k].std(),
                "active": (values[:, k] > zero).mean(),
                "dormant": np.abs(values[:, k]).mean() / np.abs(values).mean(),
                "fan_in": len(neuron.sources),
                "fan_out": len(out),
                "norm_in": np.linalg.norm(neuron.weights),
                "norm_out": np.linalg.norm(out),
                "bias": neuron.bias,
            }
            row = next(rows)
            for name, value in want.items():
                np.testing.assert_allclose(row[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("hidden", "rows"), [((11,), 20), ((12,), 21), ((20, 16), 21)])
def test_the_table_prints_its_first_and_last_rows(hidden, rows):
    net = network(hidden)
    table = net.inspect(X)
    head, *lines, tail = repr(table).splitlines()
    assert head.split() == list(table.dtype.names) and len(lines) == rows
    assert lines[0].split()[:4] == ["0", "0", "12", "True"] and f"{table['bias'][0]:.3g}" in lines[0]
    assert ["..."] * 15 == lines[10].split() or rows == 20
    assert lines[-1].split()[:2] == [str(len(hidden)), "8"] and tail.startswith(f"[{len(table)} rows")
    assert "nan" not in repr(table) and str(table) == repr(table)
    html = table._repr_html_()
    assert html.count("<tr>") == rows + 1 and "<th>layer</th><th>index</th>" in html
    pair = repr(net.ablation_table(net.layers[0], X, Y)[["node", "loss"]][:2]).splitlines()
    assert pair[0].split() == ["node", "loss"] and len(pair) == 4


def test_the_table_is_an_array():
    table = pickle.loads(pickle.dumps(network().inspect(X)))
    assert type(table["mean"]) is np.ndarray and repr(table["layer"][:2]) == "array([0, 0], dtype=int32)"
    assert table[0]["node"] == 12 and len(table[table["layer"] == 1]) == 16 and table[:0]._repr_html_()
    assert repr(table[:0]).startswith("layer") and table.reshape(-1, 1)._repr_html_() is None


def test_the_table_is_a_mapping_of_its_columns():
    for table in (network().inspect(X), (net := network()).ablation_table(net.layers[0], X, Y)):
        assert tuple(table.keys()) == table.dtype.names and "loss" in table and "los" not in table
        columns = dict(table)
        assert list(columns) == [name for name, _ in table.items()]
        np.testing.assert_array_equal(columns["loss"], table["loss"])
        with pytest.raises(KeyError, match=r"table: no column 'los'; did you mean loss\?; columns: .*, accuracy"):
            table["los"]


def test_the_table_as_a_frame():
    pytest.importorskip("pandas")
    table = network().inspect(X)
    frame = table.to_pandas()
    assert tuple(frame.columns) == table.dtype.names and len(frame[frame["layer"] == 1]) == 16
    assert frame["alive"].dtype == bool


def test_dead_and_silent_neurons():
    net = network(activation="relu")
    net.layers[0][4].prune()
    net.layers[0][5].bias = -1000
    table = net.inspect(X)
    names = ["mean", "std", "active", "dormant", "fan_in", "fan_out"]
    assert not table["alive"][4] and not any(table[4][name] for name in names)
    assert table[5]["alive"] and table[5]["active"] == table[5]["dormant"] == 0
    assert np.mean(table["dormant"][[0, 1, 2, 3, *range(5, 20)]]) == pytest.approx(1)


def test_constant_neurons():
    """Rounding makes no deviation NaN, and a layer of zeros has the dormant score 0."""
    g = mlgraph.Graph()
    x = g.add_inputs(1)
    constant = [g.add_neuron(x, "tanh", weights=[w]) for w in np.linspace(0.1, 2.0, 40)]
    zero = g.add_neuron(constant, "relu", weights=np.zeros(40))
    table = mlgraph.Model(g, g.add_neuron([zero], weights=[1])).inspect(np.full((1000, 1), 0.1))
    np.testing.assert_allclose(table["std"], 0, atol=1e-6)
    assert table["dormant"][table["node"] == zero.id] == 0


def test_a_graph_without_layers_is_ordered_by_levels():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(1)
    a = g.add_neuron(x, weights=[1], bias=None)
    b = g.add_neuron([a], weights=[1])
    c, unread = g.add_neuron(x, weights=[1]), g.add_neuron(x)
    table = mlgraph.Model(g, [b, c]).inspect(np.ones((3, 1)))
    rows = table[["layer", "index", "node", "alive", "fan_out"]].tolist()
    assert rows == [(1, 0, a.id, True, 1), (1, 1, c.id, True, 0), (1, 2, unread.id, False, 0), (2, 0, b.id, True, 0)]
    assert np.isnan(table["bias"][0])


def test_models_without_neurons_or_live_neurons():
    g = mlgraph.Graph()
    x = g.add_inputs(12)
    model = mlgraph.Model(g, x[0] * g.add_parameter(2.0))
    with pytest.raises(ValueError, match="inspect: this model has no neurons"):
        model.inspect(X)
    neuron = g.add_neuron(x[:1], weights=[1.0], bias=None)
    model = mlgraph.Model(g, mlgraph.sum(x[0], neuron))
    neuron.prune()
    (row,) = model.compact().inspect(X, X[:, :1])
    assert not row["alive"] and np.isnan(row["bias"]) and row["fan_in"] == 0


def test_overflow_shows_in_the_table_without_a_warning():
    net = mlgraph.Network(4, seed=0)
    net.add_layer(3, "relu")
    net.add_layer(2, "softmax")
    net.layers[0].weights = np.full((3, 4), 3e38)
    table = net.inspect(np.ones((10, 4)), np.zeros(10, int))
    assert np.isinf(table["mean"][:3]).all() and np.isfinite(table["norm_in"]).all()


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda net: net.ablate(net.outputs[0], X, Y), "ablate: layer . neuron . is an output"),
        (lambda net: net.ablate(3, X, Y), r"ablate: expected neurons, edges or pairs \(source, target\), got int"),
        (lambda net: net.ablate(network().layers[0][0], X, Y), "ablate: expected nodes of one graph"),
        (lambda net: net.ablate(net.layers[0][0], X, Y[:3]), "y: expected 90 labels"),
        (lambda net: net.ablate(net.layers[0][0], X[:0], Y[:0]), "x: expected at least one example"),
        (lambda net: net.ablation_table([net.graph[0]], X, Y), "layer: some nodes are not neurons"),
        (lambda net: net.ablation_table(3, X, Y), "layer: expected a sequence of nodes, got int"),
        (lambda net: net.inspect(X[:0]), "x: expected at least one example, got none"),
        (lambda net: net.inspect(X, Y - 1), "y: expected labels from 0 to 8"),
        (lambda net: mlgraph.Network(12).inspect(X), "network: expected at least one layer"),
    ],
)
def test_a_mistake_changes_nothing(attempt, message):
    net = network()
    net.evaluate(X, Y)
    before = everything(net)
    with pytest.raises((TypeError, ValueError), match=message):
        attempt(net)
    assert everything(net) == before
