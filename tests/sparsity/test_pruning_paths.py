"""Edges are as strong as the paths through them, and to each output a path stays."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scored import EDGES, X, network, weights

import mlgraph
from mlgraph.sparsity import pruning


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_path_to_every_output_stays(scope):
    """Though each of its weights is among the smallest. Where there is no room for that, nothing is cut."""
    net = network()
    lone = net.layers[2].neurons[4]
    lone.weights *= 1e-6
    for neuron in net.layers[1].neurons[:8]:
        neuron.weights *= 1e-3
    best = max(lone.edges, key=lambda edge: abs(edge.weight))
    net.prune(0.85, scope=scope)
    assert lone.alive and (best.source.id, lone.id) in weights(net) and np.isfinite(net.forward(X)).all()
    with pytest.raises(
        ValueError, match=r"sparsity: paths to all outputs need at least \d+ edges( of layer \d)?, but \d+ would remain"
    ):
        net.prune(0.99, scope=scope)
    assert lone.alive


def test_infinite_scores_are_no_better_than_a_path():
    net = mlgraph.Network(20, seed=0)
    net.add_layer(20)
    net.add_layer(3)
    net.prune(0.9, by=lambda edges: np.full(len(edges.weight), np.inf))
    assert all(neuron.alive for neuron in net.outputs)


def test_an_edge_is_worth_what_its_path_is():
    """The largest weight goes with the small one that it depends on, and no output keeps a weaker path than it must."""
    g = mlgraph.Graph()
    x = g.input()
    a, b = g.add_neuron([x], weights=[0.1]), g.add_neuron([x], weights=[5.0])
    out = g.add_neuron([a, b], weights=[10.0, 4.0])
    model = mlgraph.Model(g, out)
    model.prune(0.5)
    assert sorted(g.edges().weight.tolist()) == [4.0, 5.0] and not a.alive


def test_a_large_weight_behind_a_small_one_is_worth_no_more_than_that():
    """Also where the path that must stay is another."""
    g = mlgraph.Graph()
    x = g.input()
    hidden = [g.add_neuron([x], weights=[w]) for w in (0.1, 5.0, 3.0)]
    mlgraph.Model(g, g.add_neuron(hidden, weights=[10.0, 4.0, 3.5])).prune(1 - 4 / 6)
    assert sorted(g.edges().weight.tolist()) == [3.0, 3.5, 4.0, 5.0]


def test_of_edges_on_a_path_that_is_as_weak_the_best_stay():
    """After the one that makes it weak, without which they would be of no use."""
    net = mlgraph.Network(4, seed=0)
    net.add_layer(2, "tanh")
    net.add_layer(1)
    net.layers[0].weights, net.layers[1].weights = [[1.1, 1.2, 1.3, 1.4], [2, 2.1, 2.2, 2.3]], [[0.1, 3.0]]
    for n in (9, 8, 7):
        net.prune(1 - n / 10)
        assert net.n_edges == n and net.layers[0].mask[0].tolist() == [False] * (10 - n) + [True] * (n - 6)


def test_of_paths_that_are_equal_the_first_stays():
    """Be they as strong by their own edge, or by a weaker one behind it."""
    g = mlgraph.Graph()
    x = g.inputs(3)
    hidden = g.add_neuron(x, weights=[2.0, 3.0, -3.0])
    outputs = [g.add_neuron([hidden], weights=[0.1]), g.add_neuron(x, weights=[1.0, -1.0, 1.0])]
    mlgraph.Model(g, outputs).prune(1 - 3 / 7)
    assert [sorted(s.id for s in n.sources) for n in (hidden, *outputs)] == [[1], [hidden.id], [0]]


def test_of_paths_as_weak_as_each_other_the_one_with_the_best_last_edge_stays():
    g = mlgraph.Graph()
    hidden = [g.add_neuron([x], weights=[0.1]) for x in g.inputs(3)]
    out = g.add_neuron(hidden, weights=[2.0, 4.0, -3.0])
    mlgraph.Model(g, out).prune(1 - 2 / 6)
    assert [s.id for s in out.sources] == [hidden[1].id] and hidden[1].alive


def test_a_path_to_an_operation_is_one_to_each_of_its_sources():
    """Though none of them is worth as much as an edge elsewhere."""
    g = mlgraph.Graph()
    x = g.inputs(2)
    a, b = g.add_neuron(x, weights=[0.1, 0.2]), g.add_neuron(x, weights=[0.4, 0.3])
    outputs = [g.add_neuron([mlgraph.maximum(a, b)], weights=[5.0]), g.add_neuron(x, weights=[9.0, 8.0])]
    mlgraph.Model(g, outputs).prune(1 - 4 / 7)
    assert [[s.id for s in n.sources] for n in (a, b, outputs[1])] == [[1], [0], [0]] and len(outputs[0].sources) == 1


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
def test_behind_a_weak_layer_the_sparsity_is_the_one_asked_for(sparsity):
    """All edges before it are as weak as it is, and equal so; what stays is of use all the same."""
    net = mlgraph.Network(60, seed=0)
    for n, activation in ((50, "relu"), (30, "relu"), (5, "softmax")):
        net.add_layer(n, activation)
    net.layers[2].weights = net.layers[2].weights * 0.01
    net.prune(sparsity)
    assert abs(net.n_edges - (1 - sparsity) * (60 * 50 + 50 * 30 + 30 * 5)) <= 1


def test_behind_a_weak_edge_that_is_behind_another_all_that_is_kept_is_of_use():
    """Each is left out of what is compared once it stays itself, though no path that must stay leads through it."""
    rng, g = np.random.default_rng(0), mlgraph.Graph()
    x = g.inputs(30)
    first = [g.add_neuron(x, weights=rng.uniform(1, 2, 30)) for _ in range(10)]
    second = g.add_neuron(first, weights=rng.uniform(1, 2, 10))
    third = g.add_neuron([second, x[0]], weights=[0.1, 5.0])
    model = mlgraph.Model(g, g.add_neuron([third, x[1]], weights=[0.01, 5.0]))
    model.prune(1 - 100 / 314)
    assert model.n_edges >= 99


WIDE = {
    "weights that differ": {"first": np.linspace(3, 4, 40), "second": [2.0, 2.5]},
    "equal weights": {"first": np.ones(40), "second": [1.0, 1.0]},
    "weak edges in a row": {"first": np.linspace(3, 4, 40), "second": [2.0, 2.5], "row": [0.2, 0.3]},
    "equal weights in a row": {"first": np.ones(40), "second": [1.0, 1.0], "row": [0.1, 0.1]},
}


@pytest.mark.parametrize("how", WIDE)
@pytest.mark.parametrize("few", [1, 5, 16, 17, 39])
def test_edges_on_which_many_others_hang_are_not_the_first_to_go(how, few):
    """Though all are as strong as the last edge, and those are weaker than all that depend on them, or just as weak."""

    def model(first, second, row=()):
        g = mlgraph.Graph()
        x = g.inputs(40)
        last = g.add_neuron([g.add_neuron(x, "tanh", weights=first) for _ in range(2)], weights=second)
        for weight in [*row, 0.1]:
            last = g.add_neuron([last], weights=[weight])
        return mlgraph.Model(g, last)

    made = model(**WIDE[how])
    n = made.n_edges
    made.prune(few / n)
    assert made.n_edges == n - few


@pytest.mark.parametrize("row", [1, 2, 3, 20, 700])
def test_few_passes_see_behind_a_row_of_edges_that_grow_stronger(monkeypatch, row):
    """And the weakest of the edges behind it go, none of the row."""
    passes, bottleneck_scores = [], pruning.bottleneck_scores
    monkeypatch.setattr(
        pruning, "bottleneck_scores", lambda *given, **options: passes.append(1) or bottleneck_scores(*given, **options)
    )
    g = mlgraph.Graph()
    x = g.inputs(41)
    last = first = g.add_neuron(x[1:], weights=np.linspace(1, 2, 40))
    for weight in np.linspace(0.1, 0.9, row):
        last = g.add_neuron([last], "tanh", weights=[weight])
    model = mlgraph.Model(g, g.add_neuron([x[0], last], weights=[5.0, 5.0]))
    model.prune(3 / model.n_edges)
    assert first.sources == x[4:] and model.n_edges == 37 + row + 2 and len(passes) <= 2 + 2 * np.log2(2 * row)


@pytest.mark.parametrize("weights", [[1.0, 1.1], [1.0, 1.0]])
def test_neurons_on_which_many_others_hang_are_not_the_first_to_go(weights):
    g = mlgraph.Graph()
    x = g.inputs(2)
    first = [g.add_neuron(x, "tanh", weights=[9.0, 9.0]) for _ in range(20)]
    second = [g.add_neuron(first[i : i + 10], "tanh", weights=np.ones(10)) for i in (0, 10)]
    model = mlgraph.Model(g, g.add_neuron([g.add_neuron(second, "tanh", weights=weights)], weights=[0.1]))
    model.prune(neurons=1 / 23)
    assert sum(node.alive and node.kind == "neuron" for node in g) == 1 + 22


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_of_equal_scores_chance_chooses_edges_that_belong_together(share):
    net = mlgraph.Network(24, seed=0)
    net.add_layer(20)
    net.add_layer(3, "softmax")
    net.prune(share, by=lambda edges: np.ones(len(edges.weight)))
    assert net.n_edges == round((1 - share) * 540)


def test_paths_of_other_models_make_nothing_strong():
    g = mlgraph.Graph()
    x = g.inputs(20)
    h, k = g.add_neuron(x, weights=np.linspace(5, 6, 20)), g.add_neuron(x, weights=np.linspace(1, 2, 20))
    mine = mlgraph.Model(g, g.add_neuron([h, k], weights=[0.01, 9.0]))
    other = mlgraph.Model(g, g.add_neuron([h], weights=[9.0]))
    mine.prune(0.5)
    assert 20 <= mine.n_edges <= 21 and len(k.sources) >= 18 and other.outputs[0].alive


def test_another_model_keeps_its_strongest_path():
    g = mlgraph.Graph()
    x = g.inputs(5)
    h, k = g.add_neuron(x, weights=[1.0, 2, 5, 3, 4]), g.add_neuron(x, weights=[9.0] * 5)
    mine = mlgraph.Model(g, g.add_neuron([h, k], weights=[0.01, 9.0]))
    other = mlgraph.Model(g, g.add_neuron([h], weights=[0.001]))
    mine.prune(0.5)
    assert h.sources == [x[2]] and k.sources[0] == x[0] and other.outputs[0].alive


def test_what_hangs_on_a_frozen_edge_is_not_as_weak_as_it():
    g = mlgraph.Graph()
    x = g.inputs(2)
    a, b = g.add_neuron(x[:1], weights=[1e-3]), g.add_neuron(x[1:], weights=[1.0])
    c = g.add_neuron([a], weights=[4.0])
    out = g.add_neuron([a, b, c], weights=[5.0, 1.0, 4.0])
    g.edge(x[0], a).frozen = True
    model, done = mlgraph.Model(g, out), []
    model.fit([[1, 1]], [0], epochs=1, learning_rate=0, callback=lambda _: done or done.append(model.prune(0.3)))
    assert done and out.sources == [a, c] and c.sources == [a] and a.sources == x[:1]


def test_edges_out_of_what_is_cut_off_are_not_asked_for():
    g = mlgraph.Graph()
    x = g.inputs(2)
    a, b = g.add_neuron(x), g.add_neuron(x, weights=[3.0, 4.0])
    out = g.add_neuron([b, x[0]], weights=[5.0, 6.0])
    a.prune()
    g.add_edge(a, out, 7.0)
    asked = []
    mlgraph.Model(g, out).prune(0, by=lambda edges: asked.extend(edges.weight.tolist()) or edges.weight)
    assert sorted(asked) == [3, 4, 5, 6] == sorted(g.edges().weight.tolist())


def test_a_layer_that_keeps_nothing_is_no_way():
    g = mlgraph.Graph()
    x = g.input()
    h = g.add_neuron([x], weights=[5.0])
    o = g.add_neuron([h, x], weights=[5.0, 1.0])
    model = mlgraph.Model(g, o)
    model.prune(0.6, scope="layer")
    assert o.sources == [x] and not h.alive


def test_what_leads_through_a_layer_that_keeps_nothing_is_weak():
    g = mlgraph.Graph()
    x = g.inputs(2)
    a, b = g.add_neuron(x, weights=[5.0, 5.0]), g.add_neuron(x, weights=[1.0, 1.0])
    h = g.add_neuron([a], weights=[9.0])
    o = g.add_neuron([h, b], weights=[9.0, 1.0])
    model = mlgraph.Model(g, o)
    model.prune(0.5, scope="layer")
    assert o.sources == [b] and b.sources == x and not a.alive


def test_the_only_way_leads_through_a_layer_that_keeps_nothing():
    g = mlgraph.Graph()
    x = g.input()
    model = mlgraph.Model(g, g.add_neuron([g.add_neuron([x], weights=[5.0])], weights=[5.0]))
    with pytest.raises(ValueError, match=r"sparsity: paths to all outputs need at least 1 edge of level 1, but 0"):
        model.prune(0.6, scope="layer")


def test_an_operation_is_not_cut_off_for_want_of_room_in_a_level():
    """Nor does that end a run that has begun: it keeps a path, as it does to a neuron."""
    g = mlgraph.Graph()
    x = g.inputs(3)
    a = g.add_neuron(x, "tanh", weights=[1.0, 0.1, 0.1])
    b = g.add_neuron([a, x[0]], "tanh", weights=[1.0, 0.5])
    model = mlgraph.Model(g, a + b)
    with pytest.raises(ValueError, match="sparsity: paths to all outputs need at least 1 edge of level 1, but 0"):
        model.prune(0.9, scope="layer")
    model.fit(np.ones((4, 3)), np.ones(4), epochs=1, callback=lambda progress: model.prune(0.9, scope="layer"))
    assert 0 < model.n_edges <= 2


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.9))
def test_small_graphs_by_all_ways_to_cut_them(seed, sparsity):
    """What is kept are as many edges as there is room for, all of use, of which the weakest is as strong as can be."""
    rng = np.random.default_rng(seed)
    g = mlgraph.Graph()
    nodes = g.inputs(2)
    for _ in range(rng.integers(2, 4)):
        some = rng.permutation(len(nodes))[: rng.integers(1, 4)]
        nodes.append(
            g.add_neuron([nodes[i] for i in some], weights=rng.permutation(9)[: len(some)] + rng.random(len(some)))
        )
    outputs = nodes[-2:] if rng.random() < 0.5 else nodes[-1:]
    model = mlgraph.Model(g, outputs)
    weight = {(int(s), int(t)): float(w) for s, t, w in zip(*g.edges(), strict=True)}
    total = sum(len(n.sources) for n in nodes[2:])
    ends = {n.id for n in outputs}

    def of_use(edges):
        while True:
            fed, read = {0, 1} | {t for _, t in edges}, ends | {s for s, _ in edges}
            rest = {(s, t) for s, t in edges if s in fed and t in read}
            if rest == edges:
                return rest if ends <= {t for _, t in rest} else None
            edges = rest

    room = round((1 - sparsity) * total)
    ways = [set(way) for n in range(room + 1) for way in itertools.combinations(weight, n)]
    ways = [way for way in ways if of_use(way) == way]
    refused = False
    try:
        model.prune(sparsity)
    except ValueError:
        refused = True
    if refused:
        assert min(map(len, ways), default=99) >= room  # the fewest edges are not looked for among all ways
        return
    kept = {(int(s), int(t)) for s, t in zip(*g.edges()[:2], strict=True)}
    assert kept in ways
    if len(weight) <= room:
        assert kept == set(weight)
    elif room >= min(map(len, ways)) + 2:
        # With less room, `prune` may keep a small set of edges that is not the best one, as its docstring says.
        weakest = min(weight[e] for e in kept)
        assert max(min(weight[e] for e in way) for way in ways if len(way) >= len(kept)) == weakest


def test_where_there_is_room_for_few_edges_paths_have_most_in_common():
    g = mlgraph.Graph()
    x = g.input()
    a, b, c = (g.add_neuron([x], weights=[w]) for w in (9.0, 9.0, 1.0))
    outputs = [g.add_neuron([some, c], weights=[9.0, 1.0]) for some in (a, b)]
    model = mlgraph.Model(g, outputs)
    model.prune(1 - 3 / 7)
    assert [n.sources for n in outputs] == [[c], [c]] and model.n_edges == 3


def test_frozen_edges_go_like_others_but_in_training():
    net = network()
    for neuron in net.layers[0].neurons:
        neuron.frozen = True
    net.prune(0.9)
    assert 0 < net.layers[0].mask.sum() < EDGES / 10


def test_paths_lead_through_operations():
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    a, b = g.add_neuron([x, y], weights=[3.0, 0.2]), g.add_neuron([x, y], weights=[0.3, 0.1])
    out = g.add_neuron([a * b, mlgraph.tanh(b)], weights=[0.5, 0.01])
    model = mlgraph.Model(g, [out])
    model.prune(0.5)  # a path through the product leads to both of its factors
    assert [n.sources for n in (a, b, out)] == [[x], [x], out.sources[:1]]


def test_neurons_on_the_way_to_an_output_stay():
    """Though the scores of a layer are lower than all of the other."""
    net = mlgraph.Network(50, seed=0)
    for n, activation in ((20, "relu"), (20, "relu"), (5, "softmax")):
        net.add_layer(n, activation)
    net.prune(neurons=0.7, by=lambda neurons: [n.id for n in neurons])
    assert [sum(n.alive for n in layer.neurons) for layer in net.layers] == [1, 11, 5]
    assert net.layers[0].neurons[19].alive and np.isfinite(net.forward(np.zeros((1, 50)))).all()
    with pytest.raises(ValueError, match=r"neurons: paths to all outputs need at least 1 neuron of layer 0, but 0"):
        net.prune(neurons=0.99, scope="layer")


def few_values(seed, digits):
    """Layers of weights of which many are equal."""
    random = np.random.default_rng(seed)
    net = mlgraph.Network(int(random.integers(4, 12)), seed=seed)
    for size in random.integers(4, 12, random.integers(2, 4)).tolist():
        net.add_layer(size, "tanh")
    for layer in net.layers:
        layer.weights = np.round(layer.weights, digits) if digits else np.maximum(np.sign(layer.weights), 0)
    return net


@pytest.mark.parametrize("digits", [0, 1])
@pytest.mark.parametrize("frozen", [False, True])
def test_equal_scores_leave_what_must_stay(digits, frozen):
    """A path to each output, and in training what is frozen: they are not among the equal ones that chance takes."""
    for seed in range(40):
        net = few_values(seed, digits)
        x, y = np.ones((8, net.graph.n_inputs)), np.ones((8, len(net.outputs)))
        if not frozen:
            net.prune(0.5)
            assert net.graph.alive()[[node.id for node in net.outputs]].all()
            continue
        edges = [net.graph.edge(source, neuron) for neuron in net.layers[0].neurons for source in neuron.sources][::9]
        held = {(edge.source.id, edge.target.id) for edge in edges}
        for edge in edges:
            edge.frozen = True
        done = []
        net.fit(
            x, y, epochs=1, learning_rate=0, callback=lambda _, net=net, done=done: done or done.append(net.prune(0.5))
        )
        source, target, _ = net.graph.edges()
        assert done and held <= set(zip(source.tolist(), target.tolist(), strict=True))
