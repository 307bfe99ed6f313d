"""`Model.prune`: which edges and neurons are cut, compared with their definition computed another way."""

import numpy as np
import pytest
from editable import everything
from scored import DATA, EDGES, X, Y, best, by_layer, network, of_use, slopes, weights

import mlgraph
from mlgraph import SET, GradualPruning, RigL
from mlgraph.graph.arrays import Edges

NAN = float("nan")


def strengths(net, scores):
    """The score of the best path through each edge: the highest limit at which the edges above it connect the edge."""
    inputs, outputs, found = set(net.graph.input_ids), set(net.layers[-1].ids), {}
    for least in sorted(scores.values(), reverse=True):
        for edge in of_use({edge for edge, score in scores.items() if score >= least}, inputs, outputs):
            found.setdefault(edge, least)
    return found


# --- edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [pytest.param(0.1, marks=pytest.mark.slow), 0.6])
@pytest.mark.parametrize("by", ["path", pytest.param("saliency", marks=pytest.mark.slow), "callable"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_edges_with_the_weakest_paths_are_cut(sparsity, by, scope):
    net = network()
    before = weights(net)
    scores = {edge: abs(w) for edge, w in before.items()}
    if by == "saliency":
        scores = {edge: abs(before[edge] * slope) for edge, slope in slopes(net).items()}
    if by == "callable":
        scores = {(s, t): (s * 7 + t * 3) % 101 + s / 1000 + t / 1e6 for s, t in before}
    groups = by_layer(net, scores) if scope == "layer" else [list(scores)]
    sizes = [round((1 - sparsity) * len(group)) for group in groups]
    if scope == "layer":  # layers compare their edges with the weakest edge that they keep
        for group, size in zip(groups, sizes, strict=True):
            least = sorted(scores[edge] for edge in group)[-size]
            scores |= {edge: scores[edge] - least for edge in group}
    strength = strengths(net, scores)

    def own(edges):
        s, t = edges.source, edges.target
        return (s * 7 + t * 3) % 101 + s / 1000 + t / 1e6

    net.prune(sparsity, by=own if by == "callable" else by, scope=scope, data=DATA)
    kept = weights(net)
    assert kept == {edge: before[edge] for edge in kept}
    stronger, as_strong = set(), set()  # than the last edge that each group keeps; ties go either way
    for group, size in zip(groups, sizes, strict=True):
        last = sorted(strength[edge] for edge in group)[-size]
        stronger |= {edge for edge in group if strength[edge] > last}
        as_strong |= {edge for edge in group if strength[edge] >= last}
        assert len(kept.keys() & set(group)) <= size
    inputs, outputs = set(range(12)), set(net.layers[-1].ids)
    assert of_use(stronger, inputs, outputs) <= kept.keys() <= of_use(as_strong, inputs, outputs)
    assert len(kept) > 0.9 * sum(sizes) and net.sparsity == pytest.approx(1 - len(kept) / EDGES)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_an_amount_is_a_share_of_the_present_edges(scope):
    net = network()
    for _ in range(3):
        before = [int(layer.mask.sum()) for layer in net.layers]
        net.prune(0.5, scope=scope)
        after = [int(layer.mask.sum()) for layer in net.layers]
        pairs = list(zip(before, after, strict=True)) if scope == "layer" else [(sum(before), sum(after))]
        assert all(0.4 * had < has <= 0.5 * had + 0.5 for had, has in pairs)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("what", ["edges", "neurons"])
def test_by_magnitude_the_smallest_are_cut_whatever_their_paths(what, scope):
    """Then those that no longer lie between an input and an output."""
    net = network()
    before, inputs, outputs = weights(net), set(range(12)), set(net.layers[-1].ids)
    if what == "edges":
        scores = {edge: abs(weight) for edge, weight in before.items()}
        groups = by_layer(net, scores)
        net.prune(0.5, by="magnitude", scope=scope)
    else:
        square = np.zeros((2, len(net.graph)))
        for ends, weight in before.items():
            square[[0, 1], ends] += weight**2
        scores = dict(enumerate(square.prod(0)))
        groups = [layer.ids for layer in net.layers[:-1]]
        net.prune(neurons=0.5, by="magnitude", scope=scope)
    groups = groups if scope == "layer" else [[each for group in groups for each in group]]
    largest = {each for group in groups for each in sorted(group, key=scores.get)[len(group) - round(len(group) / 2) :]}
    if what == "neurons":
        largest = {ends for ends in before if {*ends} <= largest | inputs | outputs}
    assert weights(net).keys() == of_use(largest, inputs, outputs)


def test_by_magnitude_the_best_path_to_each_output_stays():
    net = network()
    lone = net.layers[-1][0]
    lone.weights *= 1e-6
    best = max(lone.in_edges, key=lambda edge: abs(edge.weight)).source
    net.prune(0.8, by="magnitude")
    assert lone.alive and len(lone.in_edges) == 1 and lone.sources[0].alive
    assert best == lone.sources[0]
    before = weights(net)
    with pytest.raises(ValueError, match="sparsity: paths to all outputs need at least"):
        net.prune(0.99, by="magnitude")
    assert weights(net) == before


def test_random_cuts_follow_from_the_seed():
    chosen = []
    for seed in (0, 0, 1):
        net = network()
        net.prune(0.4, by="random", seed=seed)
        assert net.n_edges == round(0.6 * EDGES)
        chosen.append(weights(net).keys())
    assert chosen[0] == chosen[1] != chosen[2]


def test_sparsity_counts_all_edges_that_were_made():
    """Cutting in steps gives the same as at once, and a network that is as sparse already is not edited."""
    net, other = network(), network()
    for sparsity in (0.2, 0.3, 0.5):
        net.prune(sparsity=sparsity)
    other.prune(sparsity=0.5)
    assert weights(net) == weights(other)
    edits = net.graph.edits
    net.prune(sparsity=0.4)
    assert net.graph.edits == edits


def test_useless_neurons_lose_their_edges_in_the_same_edit():
    net = network()
    before = net.forward(X)
    net.prune(0.9, by="random", seed=3)
    dead = [n for layer in net.layers for n in layer if not n.alive]
    assert dead and all(n.sources == n.targets == [] for n in dead)
    assert net.graph.n_edges == net.n_edges == round(0.1 * EDGES) and net.sparsity == pytest.approx(0.9, abs=1e-3)
    net.undo()
    assert net.forward(X).tobytes() == before.tobytes() and net.sparsity == 0


def test_a_cut_that_loses_most_kept_edges_warns():
    net = mlgraph.Network(24, seed=0)
    net.add_layer(20)
    net.add_layer(3, "softmax")
    with pytest.warns(UserWarning, match=r"^prune: 54 edges are kept, but only 26 of them still lie between "):
        net.prune(0.9, by="random", scope="layer", seed=0)
    assert net.n_edges == 26


def test_layers_that_already_have_fewer_edges_cause_no_warning():
    net = mlgraph.Network(100, seed=0)
    net.add_layer(40)
    net.add_layer(20)
    edges = net.graph.edges()
    most = np.flatnonzero((edges.target < 140) & (np.arange(len(edges.source)) % 99 > 0))
    net.graph.prune(Edges(*(column[most] for column in edges)))
    before = net.n_edges
    net.prune(sparsity=0.8, scope="layer")  # warnings are errors here
    assert before - 645 < net.n_edges <= before - 640


def test_edges_out_of_a_dead_neuron_are_not_scored():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(2)
    a, b = g.add_neuron(x), g.add_neuron(x, weights=[3.0, 4.0])
    out = g.add_neuron([b, x[0]], weights=[5.0, 6.0])
    a.prune()
    g.add_edge(a, out, 7.0)
    scored = []
    mlgraph.Model(g, out).prune(0, by=lambda edges: scored.extend(edges.weight.tolist()) or edges.weight)
    assert sorted(scored) == [3, 4, 5, 6] == sorted(g.edges().weight.tolist())


# --- neurons --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["path", "saliency", "random", "callable"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_weakest_neurons_are_cut(by, scope):
    net = network()
    hidden = [n for layer in net.layers[:2] for n in layer]
    out = {n: np.array([t.weights[t.sources.index(n)] for t in n.targets]) for n in hidden}
    slope = slopes(net)
    scores = {
        "path": {n: np.linalg.norm(n.weights) * np.linalg.norm(out[n]) for n in hidden},
        "saliency": {n: abs(out[n] @ [slope[n.id, t.id] for t in n.targets]) for n in hidden},
        "callable": {n: n.id * 11 % 36 for n in hidden},
    }.get(by)

    def own(neurons):
        return [n.id * 11 % 36 for n in neurons]

    net.prune(neurons=0.25, by=own if by == "callable" else by, scope=scope, data=DATA)
    kept = {n for n in hidden if n.alive}
    groups = [(hidden, 27)] if scope == "global" else [(net.layers[0].neurons, 15), (net.layers[1].neurons, 12)]
    for group, n in groups:
        assert len(kept & set(group)) == n
        if scores:
            want = best({neuron: scores[neuron] for neuron in group}, n)
            assert len(want - kept) <= (by == "saliency")  # float32 may exchange two of nearly equal saliency
    assert all(n.alive for n in net.outputs)
    net.prune(neurons=0.2)
    assert {n for n in hidden if n.alive} == kept


def test_neurons_of_a_hidden_softmax_can_be_cut():
    net = mlgraph.Network(6, seed=0)
    net.add_layer(5, "softmax")
    net.add_layer(4, "softmax")
    net.prune(neurons=0.4)
    assert sum(neuron.alive for neuron in net.layers[0]) == 3 and np.isfinite(net.forward(np.ones((2, 6)))).all()


# --- nodes outside the model ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "cut",
    [
        lambda net: net.prune(0.3),
        lambda net: net.prune(neurons=0.3),
        lambda net: net.fit(X, Y, epochs=1, sparsify=SET(0.3), optimizer="sgd", learning_rate=0.05, batch_size=128),
        lambda net: net.fit(X, Y, epochs=1, sparsify=RigL(0.3), optimizer="sgd", learning_rate=0.05, batch_size=128),
        lambda net: net.fit(
            X, Y, epochs=1, sparsify=GradualPruning(0.3), optimizer="sgd", learning_rate=0.05, batch_size=128
        ),
    ],
)
def test_a_neuron_that_no_model_needs_keeps_its_live_sources(cut):
    net = network()
    sources = [*net.layers[0], *net.layers[1]]
    lens = net.graph.add_neuron(sources, weights=np.ones(len(sources)))
    cut(net)
    live = [n for n in sources if n.sources]
    assert live and lens.sources == live
    np.testing.assert_allclose(
        net.graph.compile(lens)(X / 255)[:, 0], net.trace(X, nodes=live).values.sum(axis=1), rtol=1e-4, atol=1e-6
    )


def test_a_neuron_that_no_model_needs_loses_sources_that_have_none():
    net = mlgraph.Network(2, seed=0)
    first, second, last = net.add_layer(3, "relu"), net.add_layer(2, "relu"), net.add_layer(1, "identity")
    first.weights, second.weights, last.weights = [[5, 5], [6, 6], [0.1, 0.1]], [[0.01, 5, 4], [0.02, 6, 3]], [[1, 2]]
    lens = net.graph.add_neuron([*first, *second], weights=np.ones(5))
    behind = net.graph.add_neuron([second[0]], weights=[1.0])
    net.prune(0.34, scope="layer")
    assert not first[2].sources and not second[0].sources and not behind.sources
    assert lens.sources == [first[0], first[1], second[1]]
    net.undo()
    assert lens.sources == [*first, *second] and behind.sources == [second[0]]


def test_neurons_in_no_layer_are_pruned_as_a_layer_of_their_own():
    net = mlgraph.Network(4, seed=0)
    net.add_layer(6, "tanh")
    free = net.graph.add_neuron([net.graph[0], net.graph[1]], "tanh", weights=[1, 1])
    net.add_layer(3)
    net.graph.add_edge(free, net.layers[0][2], 0.5)
    net.graph.add_edge(net.layers[0][2], net.layers[0][4], 0.5)
    net.prune(0.5, scope="layer")
    assert free.alive and sum(len(neuron.sources) for neuron in net.layers[0]) == 13  # of 26


# --- criteria of a user ---------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["edges", "neurons"])
def test_a_criterion_may_run_the_network_but_not_edit_it(what):
    net, other = network(), network()
    for one in (net, other):
        one.evaluate(X, Y)
        one.layers[0][0].in_edges[0].prune()  # so that the next run moves the parameters

    def score(things):
        return np.abs(things.weight) if what == "edges" else [float(np.abs(n.weights).sum()) for n in things]

    def running(things):
        scores, moves = score(things), net.graph.storage.moves
        net.evaluate(X, Y)
        assert net.graph.storage.moves > moves
        return scores

    def editing(things):
        net.layers[1][2].activation = "tanh"
        return score(things)

    name = "sparsity" if what == "edges" else "neurons"
    net.prune(**{name: 0.3}, by=running)
    other.prune(**{name: 0.3}, by=score)
    assert weights(net) == weights(other) and net.forward(X).tobytes() == other.forward(X).tobytes()
    before = everything(net.graph)
    with pytest.raises(RuntimeError, match=r"^by: the criterion edited the graph"):
        net.prune(**{name: 0.6}, by=editing)
    net.undo()
    assert everything(net.graph) == before


@pytest.mark.parametrize("block", [1, 4])
def test_a_criterion_may_overwrite_the_edges_it_is_given(block):
    def in_place(edges):
        edges.weight[:] = np.arange(len(edges.weight)) % 7
        edges.source[:], edges.target[:] = 0, edges.target.max()
        return edges.weight

    nets = []
    for by in (in_place, lambda edges: np.arange(len(edges.weight)) % 7):
        net = network()
        net.prune(0.5, by=by, block=block)
        net.regrow(0.2, by=by, block=block)
        nets.append(everything(net.graph))
    assert nets[0] == nets[1]


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda net: net.prune(), "prune: expected one of amount, sparsity and neurons, got none"),
        (
            lambda net: net.prune(0.5, neurons=0.5),
            "prune: expected one of amount, sparsity and neurons, got amount and neurons",
        ),
        (lambda net: net.prune(1), "amount: expected a number from 0 to below 1, got 1"),
        (lambda net: net.prune(sparsity="half"), "sparsity: expected a number from 0 to below 1, got 'half'"),
        (lambda net: net.prune(neurons=1.5), "neurons: expected a number from 0 to below 1, got 1.5"),
        (lambda net: net.prune(neurons=0.5, block=4), "block: expected 1 where whole neurons are cut, got 4"),
        (lambda net: net.prune(0.5, by="size"), "by: expected path, magnitude, saliency, random or a callable, got .*"),
        (lambda net: net.prune(0.5, scope="local"), "scope: expected global or layer, got 'local'"),
        (lambda net: net.prune(0.5, by="saliency"), r"data: expected \(x, y\) to prune by saliency, got none"),
        (lambda net: net.prune(0.5, by=len, data=3), r"data: expected \(x, y\) to prune by a callable, got 3"),
        (lambda net: net.prune(0.5, by="saliency", data=(X[:0], Y[:0])), "data x: expected at least one example"),
        (lambda net: net.prune(0.5, by="saliency", data=(X, Y[:3])), "data y: expected 90 labels"),
        (lambda net: net.prune(0.5, by=lambda e: [1, 2]), r"by: expected a score for each edge, shape \(703,\), got"),
        (lambda net: net.prune(0.5, by=lambda e: e.weight * NAN), "by: expected scores that are numbers, got nan"),
        (lambda net: net.prune(neurons=0.5, by=lambda n: 1), "by: expected a score for each neuron"),
        (lambda net: net.prune(0.999), "sparsity: paths to all outputs need at least .* edges, but 1 would remain"),
        (lambda net: net.prune(neurons=0.99), "neurons: paths to all outputs need at least 2 neurons"),
        (lambda net: net.regrow(1.1), "fraction: expected a number from 0 to 1, got 1.1"),
        (lambda net: net.regrow(0.5, by="magnitude"), "by: expected random, gradient or a callable, got 'magnitude'"),
        (lambda net: net.regrow(0.5, by=lambda edges: "x"), "by: expected numbers"),
        (lambda net: net.regrow(0.5, by=lambda e: e.weight * NAN, block=4), "by: expected scores that are numbers"),
        (lambda net: net.regrow(0.5, scope="net"), "scope: expected global or layer, got 'net'"),
        (lambda net: net.regrow(0.5, by="gradient"), r"data: expected \(x, y\) to regrow by gradient, got none"),
        (lambda net: mlgraph.Network(3, seed=0).prune(0.5), "network: expected at least one layer"),
        (lambda net: mlgraph.Network(3, seed=0).regrow(0.5), "network: expected at least one layer"),
    ],
)
def test_a_mistake_changes_nothing(attempt, message):
    net = network()
    net.layers[0][0].in_edges[0].prune()
    net.forward(X)
    before = everything(net.graph)
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        attempt(net)
    assert everything(net.graph) == before


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda net: net.prune(0.5), "weights, or a gradient, that are numbers, got nan from n0 to layer 0 neuron 2"),
        (lambda net: net.prune(neurons=0.5), "scores that are numbers, got nan"),
        (lambda net: net.prune(neurons=0.5, by="saliency", data=DATA), "scores that are numbers, got nan"),
        (lambda net: net.regrow(0.5, by="gradient", data=DATA), "scores that are numbers, got nan"),
    ],
)
def test_nan_weights_give_no_scores(act, message):
    net = network()
    net.graph.prune([(net.graph[5], net.layers[0][7])])
    net.graph._memory_of(net.layers[0].ids[2])[:] = NAN
    before = weights(net).keys()
    with pytest.raises(ValueError, match=f"^by: expected {message}"):
        act(net)
    assert weights(net).keys() == before
