"""Which edges and neurons go: each choice against its definition, computed another way."""

import operator

import numpy as np
import pytest
from editable import everything
from scored import DATA, EDGES, X, Y, best, layer_of, network, slopes, weights

import mlgraph
from mlgraph import SET, GradualPruning, RigL
from mlgraph.graph.arrays import Edges
from mlgraph.models.running import engine_of
from mlgraph.sparsity import growing
from mlgraph.sparsity.scores import loss_gradient as gradient_of


def of_use(net, edges):
    """Of these edges, those on a way from an input to an output."""
    while True:
        fed, read = {t for _, t in edges} | set(range(12)), {s for s, _ in edges} | set(net.layers[2].ids)
        rest = {(s, t) for s, t in edges if s in fed and t in read}
        if rest == edges:
            return rest
        edges = rest


def strengths(net, scores):
    """Of each edge the highest score down to which edges must be taken for it to be of use."""
    found = {}
    for least in sorted(scores.values(), reverse=True):
        for edge in of_use(net, {edge for edge, score in scores.items() if score >= least}):
            found.setdefault(edge, least)
    return found


# --- edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0, 0.1, 0.6, 0.9])
@pytest.mark.parametrize("by", ["magnitude", pytest.param("saliency", marks=pytest.mark.slow), "own"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_weakest_edges_go(sparsity, by, scope):
    net = network()
    before = weights(net)
    scores = {edge: abs(w) for edge, w in before.items()}
    if by == "saliency":
        scores = {edge: abs(before[edge] * slope) for edge, slope in slopes(net).items()}
    elif by == "own":
        scores = {(s, t): (s * 7 + t * 3) % 101 + s / 1000 + t / 1e6 for s, t in before}
    groups = [{0, 1, 2}] if scope == "global" else [{0}, {1}, {2}]
    parts = [[edge for edge in scores if layer_of(net, edge[1]) in group] for group in groups]
    room = [round((1 - sparsity) * len(part)) for part in parts]
    if scope == "layer":
        least = [
            min(sorted((scores[edge] for edge in part), reverse=True)[:n]) for part, n in zip(parts, room, strict=True)
        ]
        scores = {edge: scores[edge] - lowest for part, lowest in zip(parts, least, strict=True) for edge in part}
    strength = strengths(net, scores)
    # Of those that are as strong as the last that there is room for, some go.
    last = [sorted(strength[edge] for edge in part)[-n] for part, n in zip(parts, room, strict=True)]
    most, fewest = (
        of_use(net, {edge for part, v in zip(parts, last, strict=True) for edge in part if above(strength[edge], v)})
        for above in (operator.ge, operator.gt)
    )

    def own(edges):
        ends = zip(edges.source.tolist(), edges.target.tolist(), strict=True)
        assert edges.weight.tolist() == [before[edge] for edge in ends]
        return (edges.source * 7 + edges.target * 3) % 101 + edges.source / 1000 + edges.target / 1e6

    net.prune(sparsity, by=own if by == "own" else by, scope=scope, data=DATA if by == "saliency" else None)
    after = weights(net)
    assert {edge: before[edge] for edge in after} == after and all(neuron.alive for neuron in net.outputs)
    spared = sum(t not in {t for _, t in fewest} for t in net.layers[2].ids)  # outputs that would have been cut off
    assert len(set(after) - most) <= 3 * spared >= len(fewest - set(after)) - 3 * spared and (sparsity > 0.6) >= (
        spared > 0
    )
    assert all(len(after.keys() & set(part)) <= n for part, n in zip(parts, room, strict=True))
    if scope == "global":
        assert fewest == {edge for edge in strength if strength[edge] > last[0]} and len(after) >= 0.95 * room[0]
    assert net.n_edges == net.graph.n_edges == len(after) and net.sparsity == pytest.approx(1 - len(after) / EDGES)


def test_at_random():
    chosen = []
    for seed in (0, 0, 1):
        net = network()
        net.prune(0.4, by="random", seed=seed)
        assert net.n_edges == round(0.6 * EDGES)
        chosen.append(set(weights(net)))
    assert chosen[0] == chosen[1] != chosen[2]


def test_sparsity_is_of_all_that_was_made():
    """Step by step or at once; and less than there is already changes nothing."""
    net, other = network(), network()
    for sparsity in (0.2, 0.3, 0.5):
        net.prune(sparsity)
    other.prune(sparsity=0.5)
    assert weights(net) == weights(other)
    edits_before = net.graph.edits
    net.prune(0.4)
    assert net.graph.edits == edits_before


def test_what_is_of_no_use_goes_too():
    """Neurons without readers keep no edges, and nobody reads a neuron without sources."""
    net = network()
    net.prune(0.9, by="random", seed=3)
    dead = [n for layer in net.layers for n in layer.neurons if not n.alive]
    assert dead and all(n.sources == n.targets == [] for n in dead)
    assert net.graph.n_edges == net.n_edges == round(0.1 * EDGES) and net.sparsity == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize(
    "cut",
    [
        lambda net: net.prune(0.3),
        lambda net: net.prune(neurons=0.3),
        lambda net: net.fit(X, Y, epochs=1, sparsify=SET(0.3)),
        lambda net: net.fit(X, Y, epochs=1, sparsify=RigL(0.3)),
        lambda net: net.fit(X, Y, epochs=1, sparsify=GradualPruning(0.3)),
    ],
)
def test_what_no_model_needs_stays(cut):
    """A neuron that somebody reads otherwise loses what it reads from neurons that die, and nothing else."""
    net = network()
    lens = net.graph.add_neuron(
        [*net.layers[0], *net.layers[1]], weights=np.ones(len(net.layers[0]) + len(net.layers[1]))
    )
    value = net.graph.compile(lens)
    net.prune(0.0)
    before = value(X)
    assert before.all() and len(lens.sources) == len(net.layers[0]) + len(net.layers[1])
    cut(net)
    live = [n for layer in net.layers[:2] for n in layer if n.sources]
    assert lens.sources == live and len(live) > 0
    np.testing.assert_allclose(value(X)[:, 0], net.trace(X, nodes=live).values.sum(axis=1), rtol=1e-4)


def test_what_no_model_needs_reads_nothing_that_is_left_without_sources():
    """A neuron of which the next layer keeps no edge loses its own, and whoever reads it otherwise loses it, too."""
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


def test_one_edit():
    net = network()
    before = net.forward(X)
    net.prune(0.5, by="saliency", data=DATA)
    net.undo()
    assert net.forward(X).tobytes() == before.tobytes() and net.sparsity == 0


def test_any_graph():
    g = mlgraph.Graph()
    x = g.inputs(4)
    a = g.add_neuron(x, "tanh", weights=[4, 3, 2, 1])
    b = g.add_neuron([*x[:2], a], "tanh", weights=[0.1, 5, 0.2])
    model = mlgraph.Model(g, [g.add_neuron([a, b, x[3]], weights=[1.5, 9, 0.3])])
    model.prune(0.4)
    assert model.n_edges == 6 and [n.sources for n in (a, b)] == [x[:3], [x[1]]]
    model.undo()
    model.prune(0.5, scope="layer")
    assert [n.sources for n in (a, b, model.outputs[0])] == [x[:2], [x[1], a], [a, b]]


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_gradients_do_not_depend_on_threads(n_threads):
    net = network()
    net.prune(0.5)
    want = gradient_of(net, X, Y, n_threads=1)
    assert gradient_of(net, X, Y, n_threads=n_threads).tobytes() == want.tobytes()
    layers = growing.missing_edges(net)
    for a, b in zip(*(growing.dense_gradients(net, layers, X, Y, n) for n in (1, n_threads)), strict=True):
        assert a.tobytes() == b.tobytes()


def test_the_gradient_of_many_examples_is_taken_in_steps(monkeypatch):
    net, x, y = network(), np.tile(X, (8, 1))[:700], np.tile(Y, 8)[:700]
    whole = gradient_of(net, x, y)
    steps, run = [], mlgraph.engine.engine.Engine.execute

    def spy(self, *arguments, **options):
        steps.append(len(options["steps"].size))
        return run(self, *arguments, **options)

    monkeypatch.setattr(mlgraph.engine.engine.Engine, "execute", spy)
    real = engine_of(net).plan
    monkeypatch.setattr(type(real), "n_slots", property(lambda self: 2**16))
    engine_of(net)._memory = mlgraph.graph.storage.aligned(0)
    np.testing.assert_allclose(gradient_of(net, x, y), whole, rtol=1e-4, atol=1e-7)
    assert steps == [10, 1]


def test_of_equal_scores_each_layer_keeps_its_share():
    net = mlgraph.Network(784, seed=0)
    net.add_layer(100, "relu")
    net.add_layer(10, "softmax")
    net.prune(0.25, by=lambda edges: np.ones(len(edges.weight)))
    kept = [sum(len(neuron.sources) for neuron in layer.neurons) for layer in net.layers]
    assert sum(kept) == round(0.75 * 79_400) and 700 < kept[1] < 800
    assert len({len(neuron.sources) for neuron in net.layers[0].neurons}) > 5


def test_layers_of_one_size_lose_other_places_of_equal_scores():
    net = mlgraph.Network(20, seed=0)
    for _ in range(3):
        net.add_layer(20)
    net.prune(0.5, by=lambda edges: np.ones(len(edges.weight)), scope="layer")
    first, second = (layer.weights != 0 for layer in net.layers[:2])
    assert 0.4 < np.mean(first == second) < 0.7


def test_a_cut_that_leaves_little_says_so():
    net = mlgraph.Network(24, seed=0)
    net.add_layer(20)
    net.add_layer(3, "softmax")
    with pytest.warns(UserWarning, match=r"^prune: 54 edges are kept, but only 26 of them still lie between "):
        net.prune(0.9, by="random", scope="layer")
    assert net.n_edges == 26


def test_layers_that_have_less_than_they_may_keep_are_no_loss():
    net = mlgraph.Network(100, seed=0)
    net.add_layer(40)
    net.add_layer(20)
    edges = net.graph.edges()
    most = np.flatnonzero((edges.target < 140) & (np.arange(len(edges.source)) % 99 > 0))
    net.graph.prune(Edges(*(column[most] for column in edges)))
    n = len(net.graph.edges().source)
    assert 830 < n < 850
    net.prune(0.8, scope="layer")  # a warning is an error here
    assert n - 645 < net.n_edges <= n - 640


def test_neurons_of_a_hidden_softmax():
    """One is enough for the others."""
    net = mlgraph.Network(6, seed=0)
    net.add_layer(5, "softmax")
    net.add_layer(4, "softmax")
    net.prune(neurons=0.4)
    assert (
        sum(neuron.alive for neuron in net.layers[0].neurons) == 3 and np.isfinite(net.forward(np.ones((2, 6)))).all()
    )


def test_weights_that_are_no_numbers():
    net = network()
    net.layers[1].neurons[2].weights[3] = np.nan
    with pytest.raises(
        ValueError, match="by: expected weights, or a gradient, that are numbers, got nan from n15 to n34"
    ):
        net.prune(0.5)


@pytest.mark.parametrize(
    "act",
    [
        lambda net: net.prune(neurons=0.5),
        lambda net: net.prune(neurons=0.5, by="saliency", data=(X, Y)),
        lambda net: net.regrow(0.5, by="gradient", data=(X, Y)),
    ],
    ids=["magnitude of neurons", "saliency of neurons", "gradient"],
)
def test_weights_that_are_no_numbers_give_no_scores(act):
    net = network()
    net.prune(0.3)
    net.layers[0].neurons[2].weights[:] = NAN
    before = weights(net).keys()
    with pytest.raises(ValueError, match=r"^by: expected scores that are numbers, got nan$"):
        act(net)
    assert weights(net).keys() == before


# --- neurons --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["magnitude", "saliency", "random", "own"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_whole_neurons(by, scope):
    net = network()
    hidden = [n for layer in net.layers[:2] for n in layer.neurons]
    out = {n: np.array([t.weights[t.sources.index(n)] for t in n.targets]) for n in hidden}
    slope = slopes(net)
    scores = {
        "magnitude": {n: np.linalg.norm(n.weights) * np.linalg.norm(out[n]) for n in hidden},
        "saliency": {
            n: abs(sum(w * slope[n.id, t.id] for w, t in zip(out[n], n.targets, strict=True))) for n in hidden
        },
        "own": {n: n.id * 11 % 36 for n in hidden},
    }.get(by)

    def own(neurons):
        return [n.id * 11 % 36 for n in neurons]

    net.prune(neurons=0.25, by=own if by == "own" else by, scope=scope, data=DATA if by == "saliency" else None)
    kept = {n for n in hidden if n.alive}
    assert [len(kept & set(layer.neurons)) for layer in net.layers[:2]] == [15, 12] or scope == "global"
    assert len(kept) == 27 and all(n.alive for n in net.layers[2].neurons)
    if scores and scope == "global":
        assert len(kept - best(scores, 27)) <= (by == "saliency")
    elif scores:
        for layer, n in zip(net.layers[:2], (15, 12), strict=True):
            assert len((kept & set(layer.neurons)) - best({k: scores[k] for k in layer.neurons}, n)) <= (
                by == "saliency"
            )
    net.prune(neurons=0.2)
    assert {n for n in hidden if n.alive} == kept


# --- errors ---------------------------------------------------------------------------------------

NAN = float("nan")
ERRORS = {
    "nothing": (lambda net: net.prune(), "prune: expected either sparsity or neurons, got neither"),
    "both": (lambda net: net.prune(0.5, neurons=0.5), "prune: expected either sparsity or neurons, got both"),
    "all": (lambda net: net.prune(1), "sparsity: expected a number from 0 to below 1, got 1"),
    "less than nothing": (lambda net: net.prune(-0.1), "sparsity: expected a number from 0 to below 1, got -0.1"),
    "not a number": (lambda net: net.prune(NAN), "sparsity: expected a number from 0 to below 1, got nan"),
    "text": (lambda net: net.prune("half"), "sparsity: expected a number from 0 to below 1, got 'half'"),
    "all neurons": (lambda net: net.prune(neurons=1.5), "neurons: expected a number from 0 to below 1, got 1.5"),
    "criterion": (
        lambda net: net.prune(0.5, by="size"),
        "by: expected magnitude, saliency, random or a callable, got 'size'",
    ),
    "scope": (lambda net: net.prune(0.5, scope="local"), "scope: expected global or layer, got 'local'"),
    "no data": (lambda net: net.prune(0.5, by="saliency"), r"data: expected \(x, y\) to prune by saliency, got none"),
    "data alone": (lambda net: net.prune(0.5, by="saliency", data=X), r"data: expected \(x, y\) .*, got array"),
    "data for none": (lambda net: net.prune(0.5, data="x"), r"data: expected \(x, y\) to prune by magnitude, got 'x'"),
    "data for a callable": (
        lambda net: net.prune(0.5, by=len, data=3),
        r"data: expected .* to prune by a callable, got 3",
    ),
    "no examples": (lambda net: net.prune(0.5, by="saliency", data=(X[:0], Y[:0])), "x: expected at least one example"),
    "labels": (lambda net: net.prune(0.5, by="saliency", data=(X, Y[:3])), "y: expected 90 labels"),
    "scores": (
        lambda net: net.prune(0.5, by=lambda e: [1, 2]),
        r"by: expected a score for each edge, shape \(704,\), got",
    ),
    "nan scores": (
        lambda net: net.prune(0.5, by=lambda e: e.weight * NAN),
        "by: expected scores that are numbers, got nan",
    ),
    "neuron scores": (lambda net: net.prune(neurons=0.5, by=lambda n: 1), "by: expected a score for each neuron"),
    "everything but one": (
        lambda net: net.prune(0.999),
        "sparsity: paths to all outputs need at least .* edges, but 1 would remain",
    ),
    "all but outputs": (lambda net: net.prune(neurons=0.99), "neurons: paths to all outputs need at least 2 neurons"),
    "fraction": (lambda net: net.regrow(1.1), "fraction: expected a number from 0 to 1, got 1.1"),
    "growth": (
        lambda net: net.regrow(0.5, by="magnitude"),
        "by: expected random, gradient or a callable, got 'magnitude'",
    ),
    "growth scope": (lambda net: net.regrow(0.5, scope="net"), "scope: expected global or layer, got 'net'"),
    "no data to grow": (
        lambda net: net.regrow(0.5, by="gradient"),
        r"data: expected \(x, y\) to regrow by gradient, got no",
    ),
    "no layers": (lambda net: mlgraph.Network(3).prune(0.5), "network: expected at least one layer"),
    "no layers to grow": (lambda net: mlgraph.Network(3).regrow(0.5), "network: expected at least one layer"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    attempt, message = ERRORS[name]
    net = network()
    net.forward(X)
    before, edits_before = net.graph.parameters.tobytes(), net.graph.edits
    with pytest.raises(TypeError if name == "text" else ValueError, match=message):
        attempt(net)
    assert net.graph.parameters.tobytes() == before and net.graph.edits == edits_before


@pytest.mark.parametrize("what", ["edges", "neurons"])
def test_a_criterion_may_run_the_network_and_may_not_edit_it(what):
    """To run it may move the parameters."""
    net, other = network(), network()
    for one in (net, other):
        one.evaluate(X, Y)
        one.layers[0].neurons[0].edges[0].prune()  # so that the next run lays them out anew

    def score(things):
        return np.abs(things.weight) if what == "edges" else [float(np.abs(n.weights).sum()) for n in things]

    def running(things):
        scores, moves = score(things), net.graph.storage.moves
        net.evaluate(X, Y)
        assert net.graph.storage.moves > moves
        return scores

    share = {"sparsity" if what == "edges" else "neurons": 0.3}
    net.prune(**share, by=running)
    other.prune(**share, by=score)
    assert [e.tolist() for e in net.graph.edges()] == [e.tolist() for e in other.graph.edges()]
    assert net.forward(X).tobytes() == other.forward(X).tobytes()
    before = everything(net.graph)

    def editing(things):
        net.layers[1].neurons[2].activation = "tanh"
        return score(things)

    with pytest.raises(RuntimeError, match=r"^by: the criterion edited the graph"):
        net.prune(**dict.fromkeys(share, 0.6), by=editing)
    net.undo()
    assert everything(net.graph) == before


def test_neurons_in_no_layer_are_a_layer_of_their_own():
    net = mlgraph.Network(4, seed=0)
    net.add_layer(6, "tanh")
    free = net.graph.add_neuron([net.graph[0], net.graph[1]], "tanh", weights=[1, 1])
    net.add_layer(3)
    net.graph.add_edge(free, net.layers[0].neurons[2], 0.5)
    net.graph.add_edge(net.layers[0].neurons[2], net.layers[0].neurons[4], 0.5)
    x, y = np.random.default_rng(0).normal(size=(20, 4)), np.zeros((20, 3))
    table = net.inspect(x, y)
    assert table["layer"].tolist() == [0] * 6 + [1] * 3 + [-1] and table["node"][-1] == free.id
    assert [net.layers[row["layer"]].neurons[row["index"]].id for row in table[:-1]] == table["node"][:-1].tolist()
    for neuron, row in ((free, -1), (net.layers[0].neurons[4], 4)):
        without = net.ablate(neuron, x, y)["loss"] - net.evaluate(x, y)["loss"]
        assert table["loss"][row] == pytest.approx(without, rel=1e-4)
    net.prune(0.5, scope="layer")
    assert free.alive and sum(len(neuron.sources) for neuron in net.layers[0].neurons) == 13  # of 26
