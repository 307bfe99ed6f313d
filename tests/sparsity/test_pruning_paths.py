"""An edge scores as the best path through it, and each output keeps a path."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scored import network, of_use, weights

import mlgraph
from mlgraph.sparsity import pruning


def model_of(text):
    """A model from text such as "a: x=0.1; b: sin a; o: a=10 b=2": neurons with their weights, and operations.

    Names of inputs begin with x, those of outputs with o.
    """
    g, nodes = mlgraph.Graph(seed=0), {}
    for line in text.split("; "):
        name, *parts = line.replace(":", "").split()
        weights = dict(part.split("=") for part in parts if "=" in part)
        sources = [*weights] or parts[1:]
        nodes |= {source: g.add_input(source) for source in sources if source not in nodes}
        read = [nodes[source] for source in sources]
        if weights:
            nodes[name] = g.add_neuron(read, weights=[float(weight) for weight in weights.values()])
        else:
            nodes[name] = g.add_operation(parts[0], *read)
        nodes[name].name = name
    return mlgraph.Model(g, [node for name, node in nodes.items() if name.startswith("o")])


def edges_of(model):
    """The edges of neurons, in the notation of `model_of`."""
    neurons = [node for node in model.graph if isinstance(node, mlgraph.Neuron) and node.sources]
    return "; ".join(f"{neuron.name}: {' '.join(source.name for source in neuron.sources)}" for neuron in neurons)


LAYER = {"scope": "layer"}
MIXED = "a: x0=4 x1=3 x2=2 x3=1; b: x0=.1 x1=5 a=.2; o: a=1.5 b=9 x3=.3"
MAXIMUM = "a: x0=.1 x1=.2; b: x0=.4 x1=.3; m: maximum a b; o0: m=5; o1: x0=9 x1=8"
FOUR_OUTPUTS = "o0: x0=3 x1=1 x2=2; o1: x0=2 x1=1 x2=3; o2: x0=1 x1=1 x2=2; o3: x0=0 x1=1 x2=2"


@pytest.mark.parametrize(
    ("text", "keep", "options", "kept"),
    [
        # A large weight is cut together with the small one that all its paths share.
        ("a: x=.1; b: x=5; o: a=10 b=4", 2, {}, "b: x; o: b"),
        ("a: x=.1; b: x=5; c: x=3; o: a=10 b=4 c=3.5", 4, {}, "b: x; c: x; o: b c"),
        (MIXED, 6, {}, "a: x0 x1 x2; b: x1; o: a b"),
        # Of the edges behind a weak one, the best stay.
        ("a: x0=4 x1=3 x2=2; b: x0=9 x1=8 x2=7; o: a=.1 b=9", 7, {}, "a: x0 x1; b: x0 x1 x2; o: a b"),
        ("a: x0=4 x1=3 x2=2; b: x0=9 x1=8 x2=7; o: a=.1 b=9", 6, {}, "a: x0; b: x0 x1 x2; o: a b"),
        # Of equal paths, the first stays, or the one with the best last edge.
        ("h: x0=2 x1=3 x2=-3; o0: h=.1; o1: x0=1 x1=-1 x2=1", 3, {}, "h: x1; o0: h; o1: x0"),
        ("a: x0=.1; b: x1=.1; c: x2=.1; o: a=2 b=4 c=-3", 2, {}, "b: x1; o: b"),
        # A path to an operation needs each of its sources.
        (MAXIMUM, 4, {}, "a: x1; b: x0; o0: m; o1: x0"),
        ("a: x0=3 x1=.2; b: x0=.3 x1=.1; p: mul a b; t: tanh b; o: p=.5 t=.01", 3, {}, "a: x0; b: x0; o: p"),
        # Where few edges are left, paths overlap as much as they can.
        ("a: x=9; b: x=9; c: x=1; o0: a=9 c=1; o1: b=9 c=1", 3, {}, "c: x; o0: c; o1: c"),
        # Without layers, each level loses its share; a path through a level that keeps nothing counts as weak.
        (MIXED, 5, LAYER, "a: x0 x1; b: x1 a; o: a b"),
        ("h: x=5; o: h=5 x=1", 1.2, LAYER, "o: x"),
        ("a: x0=5 x1=5; b: x0=1 x1=1; h: a=9; o: h=9 b=1", 3.5, LAYER, "b: x0 x1; o: b"),
        # Neurons of a level form blocks in the order of their creation.
        (FOUR_OUTPUTS, 6, {"block": 2}, "o0: x0 x2; o1: x0 x2; o2: x2; o3: x2"),
    ],
)
def test_edges_on_the_best_paths_stay(text, keep, options, kept):
    model = model_of(text)
    model.prune(1 - keep / model.n_edges, **options)
    assert edges_of(model) == kept


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.9))
def test_small_graphs_are_pruned_as_well_as_the_best_of_all_cuts(seed, sparsity):
    """As many edges are kept as are allowed, all useful, and the weakest of them is as strong as it can be."""
    rng = np.random.default_rng(seed)
    g = mlgraph.Graph(seed=0)
    nodes = g.add_inputs(2)
    for _ in range(rng.integers(2, 4)):
        some = rng.permutation(len(nodes))[: rng.integers(1, 4)]
        scores = rng.permutation(9)[: len(some)] + rng.random(len(some))
        nodes.append(g.add_neuron([nodes[i] for i in some], weights=scores))
    model = mlgraph.Model(g, nodes[-2:] if rng.random() < 0.5 else nodes[-1:])
    weight, outputs = weights(model), {node.id for node in model.outputs}
    allowed = round((1 - sparsity) * sum(len(n.sources) for n in nodes[2:]))
    ways = [set(way) for n in range(allowed + 1) for way in itertools.combinations(weight, n)]
    ways = [way for way in ways if of_use(way, {0, 1}, outputs) == way and outputs <= {target for _, target in way}]
    fewest = min(map(len, ways), default=99)
    try:
        model.prune(sparsity=sparsity)
    except ValueError:
        assert fewest >= allowed  # the smallest set of edges is not searched for
        return
    kept = weights(model).keys()
    assert kept in ways
    if len(weight) <= allowed:
        assert kept == weight.keys()
    elif allowed >= fewest + 2:  # with fewer edges, the kept set may be small rather than the best
        best = max(min(weight[edge] for edge in way) for way in ways if len(way) >= len(kept))
        assert min(weight[edge] for edge in kept) == best


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_each_output_keeps_its_best_path(scope):
    net = network()
    lone = net.layers[2][4]
    lone.weights *= 1e-6
    for neuron in net.layers[1][:8]:
        neuron.weights *= 1e-3
    best = max(lone.in_edges, key=lambda edge: abs(edge.weight))
    net.prune(0.85, scope=scope)
    assert lone.alive and best.source in lone.sources
    with pytest.raises(ValueError, match="sparsity: paths to all outputs need at least"):
        net.prune(0.99, scope=scope)
    assert lone.alive


@pytest.mark.parametrize("text", ["a: x=5; o: a=5", "a: x0=1 x1=.1 x2=.1; b: a=1 x0=.5; o: add a b"])
def test_the_only_path_through_a_level_cannot_be_cut(text):
    with pytest.raises(ValueError, match="paths to all outputs need at least 1 edge of level 1, but 0"):
        model_of(text).prune(0.9, scope="layer")


def test_neurons_on_the_path_to_an_output_stay():
    """Even if all scores of a layer are below those of another."""
    net = mlgraph.Network(50, seed=0)
    for n, activation in ((20, "relu"), (20, "relu"), (5, "softmax")):
        net.add_layer(n, activation)
    net.prune(neurons=0.7, by=lambda neurons: [n.id for n in neurons])
    assert [sum(n.alive for n in layer) for layer in net.layers] == [1, 11, 5] and net.layers[0][19].alive
    with pytest.raises(ValueError, match=r"neurons: paths to all outputs need at least 1 neuron of layer 0, but 0"):
        net.prune(neurons=0.99, scope="layer")


# --- ties -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [1.0, np.inf])
@pytest.mark.parametrize("sparsity", [0.3, 0.9])
def test_of_equal_scores_chance_keeps_whole_paths_in_all_layers(score, sparsity):
    net = mlgraph.Network(100, seed=0)
    net.add_layer(50, "relu")
    net.add_layer(10, "softmax")
    net.prune(sparsity, by=lambda edges: np.full(len(edges.weight), score))
    assert net.n_edges == round((1 - sparsity) * 5500) and all(neuron.alive for neuron in net.outputs)
    assert net.layers[1].mask.mean() == pytest.approx(1 - sparsity, abs=0.15)
    assert len({len(neuron.sources) for neuron in net.layers[0]}) > 5


def test_layers_of_equal_scores_lose_different_places():
    net = mlgraph.Network(20, seed=0)
    for _ in range(3):
        net.add_layer(20)
    net.prune(0.5, by=lambda edges: np.ones(len(edges.weight)), scope="layer")
    first, second = (layer.mask for layer in net.layers[:2])
    assert 0.4 < np.mean(first == second) < 0.7


@pytest.mark.parametrize("row", [[], [0.2, 0.3], [0.1, 0.1]])
@pytest.mark.parametrize(("first", "second"), [(np.linspace(3, 4, 40), [2, 2.5]), (np.ones(40), [1, 1])])
def test_a_weak_edge_that_many_others_need_is_not_cut_first(first, second, row):
    """All paths are as weak as the last edge; exactly as many edges as requested are cut all the same."""
    for n_cut in (1, 16, 39):
        g = mlgraph.Graph(seed=0)
        x = g.add_inputs(40)
        last = g.add_neuron([g.add_neuron(x, "tanh", weights=first) for _ in range(2)], weights=second)
        for weight in [*row, 0.1]:
            last = g.add_neuron([last], weights=[weight])
        model = mlgraph.Model(g, last)
        n_edges = model.n_edges
        model.prune(n_cut / n_edges)
        assert model.n_edges == n_edges - n_cut


@pytest.mark.parametrize("weights", [[1.0, 1.1], [1.0, 1.0]])
def test_a_weak_neuron_that_many_others_need_is_not_cut_first(weights):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(2)
    first = [g.add_neuron(x, "tanh", weights=[9.0, 9.0]) for _ in range(20)]
    second = [g.add_neuron(first[i : i + 10], "tanh", weights=np.ones(10)) for i in (0, 10)]
    model = mlgraph.Model(g, g.add_neuron([g.add_neuron(second, "tanh", weights=weights)], weights=[0.1]))
    model.prune(neurons=1 / 23)
    assert sum(node.alive and node.kind == "neuron" for node in g) == 1 + 22


def test_in_a_layer_of_its_own_a_weak_edge_stays_with_the_best_behind_it():
    """The neurons in no layer keep two of five edges; all five are as weak as the last, which the others need."""
    net = mlgraph.Network(4, seed=0)
    _, outputs, g = net.add_layer(4, "tanh"), net.add_layer(2, "identity"), net.graph
    first = g.add_neuron(range(4), "tanh", weights=[0.002, 0.003, 0.004, 0.005])
    last = g.add_neuron([first], "tanh", weights=[0.001])
    for output in outputs:
        g.add_edge(last, output, 100.0)
    net.prune(0.5, scope="layer")
    assert last.alive and [source.id for source in first.sources] == [3]


@pytest.mark.parametrize("sparsity", [0.5, 0.99])
def test_behind_a_weak_layer_the_sparsity_is_exact(sparsity):
    net = mlgraph.Network(60, seed=0)
    for n, activation in ((50, "relu"), (30, "relu"), (5, "softmax")):
        net.add_layer(n, activation)
    net.layers[2].weights = net.layers[2].weights * 0.01
    net.prune(sparsity)
    assert abs(net.n_edges - (1 - sparsity) * (60 * 50 + 50 * 30 + 30 * 5)) <= 1


def test_behind_two_weak_edges_the_sparsity_is_exact():
    """The first of them does not count once it is sure to stay, nor then does the second."""
    rng, g = np.random.default_rng(0), mlgraph.Graph(seed=0)
    x = g.add_inputs(30)
    first = [g.add_neuron(x, weights=rng.uniform(1, 2, 30)) for _ in range(10)]
    second = g.add_neuron(first, weights=rng.uniform(1, 2, 10))
    third = g.add_neuron([second, x[0]], weights=[0.1, 5.0])
    model = mlgraph.Model(g, g.add_neuron([third, x[1]], weights=[0.01, 5.0]))
    model.prune(1 - 100 / 314)
    assert model.n_edges >= 99


@pytest.mark.parametrize("length", [3, 700])
def test_the_edges_before_a_long_chain_are_compared_in_few_passes(monkeypatch, length):
    """Each edge of the chain is stronger than the one before it."""
    passes, bottleneck_scores = [], pruning.bottleneck_scores
    monkeypatch.setattr(
        pruning, "bottleneck_scores", lambda *given, **options: passes.append(1) or bottleneck_scores(*given, **options)
    )
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(41)
    last = first = g.add_neuron(x[1:], weights=np.linspace(1, 2, 40))
    for weight in np.linspace(0.1, 0.9, length):
        last = g.add_neuron([last], "tanh", weights=[weight])
    model = mlgraph.Model(g, g.add_neuron([x[0], last], weights=[5.0, 5.0]))
    model.prune(3 / model.n_edges)
    assert first.sources == x[4:] and model.n_edges == 37 + length + 2 and len(passes) <= 2 + 2 * np.log2(2 * length)


def test_ties_do_not_cut_a_frozen_edge():
    """Chance may choose only among the other edges of the same weight."""
    for seed in range(10):
        net = mlgraph.Network(8, seed=seed)
        for size in (6, 7, 5):
            net.add_layer(size, "tanh")
        for layer in net.layers:
            layer.weights = np.maximum(np.sign(layer.weights), 0)
        frozen = [edge for neuron in net.layers[0] for edge in neuron.in_edges][::9]
        for edge in frozen:
            edge.frozen = True
        kept, cut = {(edge.source.id, edge.target.id) for edge in frozen}, lambda _, net=net: net.prune(0.5)
        net.fit(np.ones((8, 8)), np.ones((8, 5)), epochs=1, learning_rate=0, callbacks=[cut])
        assert net.sparsity >= 0.5 and kept <= weights(net).keys()


# --- other models of the graph --------------------------------------------------------------------


def test_another_model_keeps_its_best_path_but_strengthens_no_edge():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(20)
    a, b = g.add_neuron(x, weights=np.linspace(5, 6, 20)), g.add_neuron(x, weights=np.linspace(1, 2, 20))
    model = mlgraph.Model(g, g.add_neuron([a, b], weights=[0.01, 9.0]))
    other = mlgraph.Model(g, g.add_neuron([a], weights=[9.0]))
    model.prune(0.5)
    assert 20 <= model.n_edges <= 21 and len(b.sources) >= 18
    assert a.sources == x[-1:] and other.outputs[0].alive
