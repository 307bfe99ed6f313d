"""SET and RigL: the edges of each layer move, and their number stays."""

import itertools

import numpy as np
import pytest
from cuttable import OPTIONS, X, Y, layer_sizes, network, pairs, sample
from scored import best, ends

import mlgraph
from mlgraph.graph import arrays
from mlgraph.sparsity import growing
from mlgraph.sparsity.rewiring import SET, RigL, erdos_renyi

both = pytest.mark.parametrize("kind", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
SIZES = [(30, 24), (24, 16), (16, 9)]  # sources and neurons of each layer of `network`

# --- how many edges each layer has ----------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0, 0.5, 0.99])
def test_edges_are_proportional_to_sources_and_neurons(sparsity):
    sizes = [(784, 300), (300, 100), (100, 10)]
    edges, most = erdos_renyi(sizes, sparsity), np.array([a * b for a, b in sizes])
    assert edges.sum() == pytest.approx((1 - sparsity) * most.sum(), abs=2) and (edges <= most).all()
    share = (edges / [a + b for a, b in sizes])[edges < most]
    assert share == pytest.approx(share[:1].repeat(len(share)), rel=0.01)


def test_rounding_loses_no_edges():
    assert erdos_renyi([(3, 3)] * 8, 0.5).tolist() == [5] * 4 + [4] * 4
    assert erdos_renyi([(7, 7)] * 3, 0.5).sum() in (73, 74)
    assert erdos_renyi(iter([(1, 5), (1, 5)]), 0.8).tolist() == [1, 1]  # of 0.9999999999999997


@pytest.mark.parametrize(
    ("sizes", "sparsity", "message"),
    [
        ([(0, 4)], 0.5, "sizes: expected an integer of at least 1, got 0"),
        ([(3, 4)], 2, "sparsity: expected a number from 0 "),
        (3, 0.5, r"sizes: expected pairs \(sources, neurons\), got 3"),
        ([(1, 2, 3)], 0.5, r"sizes: expected pairs \(sources, neurons\), got "),
    ],
)
def test_sizes_are_pairs_of_positive_integers(sizes, sparsity, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        erdos_renyi(sizes, sparsity)


@pytest.mark.parametrize("kind", [SET, RigL])
def test_edges_move_until_the_end_of_the_schedule(kind):
    net, seen = network(), []
    wanted = erdos_renyi(SIZES, 0.7).tolist()

    def watch(progress):
        seen.append((progress.examples / progress.total_examples, layer_sizes(net), pairs(net)))

    net.fit(X, Y, sparsify=kind(0.7, updates=8, until=0.5), callbacks=[watch], **OPTIONS)
    assert all(sizes == wanted for _, sizes, _ in seen)
    moved = [(share, len(after - before)) for (share, _, before), (_, _, after) in itertools.pairwise(seen)]
    assert max(n for share, n in moved if share < 0.5) > 20 and not any(n for share, n in moved if share > 0.55)
    assert net.evaluate(X, Y)["accuracy"] > 0.6  # 0.74 to 0.9, depending on the order of the examples


@both
def test_all_edges_may_move(kind):
    net = network()
    net.fit(X, Y, sparsify=kind(0.5, fraction=1, updates=8), **OPTIONS)
    assert net.sparsity == pytest.approx(0.5, abs=0.01) and all(neuron.alive for neuron in net.outputs)


@both
def test_before_the_first_step_edges_are_only_cut(kind):
    """A grown edge would have weight 0."""
    net, weights = network(), []

    def look(progress):
        weights.append(net.graph.edges().weight)
        raise StopIteration

    net.fit(X, Y, epochs=1, learning_rate=0, sparsify=kind(0.5), callbacks=[look])
    assert len(weights[0]) == pytest.approx(0.5 * 1248, rel=0.01) and weights[0].all()


@both
def test_a_layer_with_all_its_edges_is_left_alone(kind):
    net = mlgraph.Network(30, seed=0)
    net.add_layer(24)
    net.add_layer(2)
    assert erdos_renyi([(30, 24), (24, 2)], 0.5)[1] == 48
    before = net.layers[1].weights
    for step in range(3):
        kind(0.5).act(net, 0.1, step, 0, lambda n: (X[:n], np.zeros((len(X[:n]), 2))), None)
    np.testing.assert_array_equal(net.layers[1].weights, before)
    assert net.layers[0].mask.sum() == 336


@both
def test_few_edges_reach_every_input_and_neuron(kind):
    """Inputs and neurons that have lost all their edges can gain edges again."""
    net, wanted, read, neurons = network(), erdos_renyi(SIZES, 0.95).sum(), set(), set()

    def watch(progress):
        read.update(source for source, _ in pairs(net) if source < 30)
        neurons.update(neuron.id for layer in net.layers for neuron in layer if neuron.alive)

    history = net.fit(X, Y, sparsify=kind(0.95, updates=100), callbacks=[watch], **{**OPTIONS, "epochs": 8})
    # A layer gets more edges if its read neurons need more, and fewer if none of them has a free place.
    least = wanted if kind is SET else 0.9 * wanted
    assert ((history.epoch_edges >= least) & (history.epoch_edges <= 1.1 * wanted)).all()
    assert net.graph.alive()[list(itertools.chain(*pairs(net)))].all()
    if kind is SET:
        assert len(read) == 30 and len(neurons) == 24 + 16 + 9


@both
def test_unread_neurons_do_not_bring_back_their_edges(kind):
    """Neurons with many edges but no reader would exceed the size of their layer once they are read again."""
    net, sizes = network(), []
    net.graph.prune([(n, reader) for n in net.layers[0][:12] for reader in net.layers[1]])
    assert all(len(n.sources) == 30 and not n.alive for n in net.layers[0][:12])
    net.fit(X, Y, sparsify=kind(0.8), callbacks=[lambda _: sizes.append(layer_sizes(net))], **OPTIONS)
    assert (np.abs(np.array(sizes) - erdos_renyi(SIZES, 0.8)) <= 4).all()


# --- where edges grow -----------------------------------------------------------------------------


def test_rigl_grows_where_the_loss_is_steepest_and_restores_edges_that_it_cut(monkeypatch):
    net, schedule = network(), RigL(0.7, fraction=0.9)
    net.fit(X, Y, sparsify=schedule, epochs=1, batch_size=50)
    places = growing.missing_edges(net, dead=True)
    slopes = growing.dense_gradients(net, places, X, Y)

    def numbers():
        """Weight and momentum of each edge."""
        edges, vectors = arrays.wiring(net.graph), net.graph.storage.vectors()
        columns = np.column_stack([vectors[name][edges.place] for name in ("", "first")])
        return dict(zip(ends(edges), columns.tolist(), strict=True))

    def watch(graph, edges, who):
        grown.append((set(ends(edges)), pairs(net)))
        return grow(graph, edges, who)

    before, grown, grow, was = pairs(net), [], growing.grow, numbers()
    monkeypatch.setattr(growing, "grow", watch)
    schedule.act(net, 0.1, 5, 0, sample, None)
    [(new, kept)], now = grown, numbers()
    assert kept < before and pairs(net) == kept | new
    for gaps, slope in zip(places, slopes, strict=True):
        all_ends = itertools.product(gaps.targets.tolist(), gaps.sources.tolist())
        score = {(s, t): abs(g) for (t, s), g in zip(all_ends, slope.ravel(), strict=True) if (s, t) not in kept}
        mine = new & score.keys()
        assert len(mine - best(score, len(mine))) < 0.1 * len(mine)  # neurons that gain a reader have one each
    restored, alive = new & before, {t for _, t in kept}
    assert len(restored) > 10 and len(new - before) > 10
    assert all(now[edge] == was[edge] for edge in kept | restored) and any(now[edge][1] for edge in restored)
    assert all(now[s, t] == [0, 0] for s, t in new - before if t in alive)


@both
def test_edges_outside_the_layers_stay_and_do_not_count(kind):
    """They skip a layer, or lead into or out of a neuron in no layer; once cut, they could not grow again."""
    net = network()
    source, target = np.repeat(np.arange(30), 16), np.tile(np.array(net.layers[1].ids), 30)
    weight = np.random.default_rng(0).normal(size=480).astype(np.float32) / 500
    net.graph.add_edges(mlgraph.Edges(source.astype(np.int32), target.astype(np.int32), weight))
    extra = net.graph.add_neuron([*net.graph][:3], "tanh", weights=np.full(3, 1e-9))
    net.graph.add_edge(extra, net.outputs[0], 1e-3)
    outside = {(s, t) for s, t in pairs(net) if (s < 30 and t in net.layers[1].ids) or extra.id in (s, t)}
    net.fit(X, Y, sparsify=kind(0.7, updates=8), **OPTIONS)
    gone = outside - pairs(net)  # of neurons that led to no output for a while
    dead = {t for _, t in gone}
    assert len(outside) == 484 and len(dead) <= 2 and gone == {(s, t) for s, t in outside if t in dead}
    assert layer_sizes(net) == np.add(erdos_renyi(SIZES, 0.7), [0, 480 - len(gone), 1]).tolist()


@both
def test_an_edge_that_leads_back_does_not_shrink_the_network(kind):
    """Places where an edge would make a cycle are not free, but do not count as edges either."""
    counts = []
    for back in (False, True):
        net = mlgraph.Network(20, seed=0)
        for size in (24, 24, 24):
            net.add_layer(size, "tanh")
        net.add_layer(3, "softmax")
        x, y = np.random.default_rng(0).random((200, 20)), np.arange(200) % 3
        net.prune(0.8)
        if back:
            above, below = ([n for n in net.layers[i] if n.alive] for i in (2, 0))
            pair = next((s, t) for t in below for s in above if not net.graph.reaches(t, s))
            net.graph.add_edge(*pair, 5.0)  # too large to be cut
        net.fit(x, y, epochs=2, batch_size=10, sparsify=kind(0.8, updates=8))
        counts.append(net.n_edges)
    assert net.graph.has_edge(*pair) and abs(counts[1] - counts[0]) <= 2


@both
@pytest.mark.parametrize("activation", ["sigmoid", pytest.param("softmax", marks=pytest.mark.slow)])
def test_the_logit_of_a_probability_that_is_read_gets_a_source(kind, activation):
    """Otherwise the probability would be a constant."""
    x = np.random.default_rng(0).normal(size=(500, 20)).astype(np.float32)
    y, options = x[:, :4].argmax(axis=1), {"loss": "binary_cross_entropy"} if activation == "sigmoid" else {}
    for seed in range(2):
        net = mlgraph.Network(20, seed=seed)
        net.add_layer(16, activation, **options)
        net.add_layer(12, "relu")
        net.add_layer(4, "softmax")
        net.fit(x, y, epochs=5, batch_size=25, sparsify=kind(0.92), seed=seed)
        assert net.n_edges == sum(int(layer.mask.sum()) for layer in net.layers)
        assert net.graph.alive()[[source for source, _ in pairs(net)]].all()


# --- revived neurons ------------------------------------------------------------------------------


def test_a_revived_neuron_has_drawn_weights_and_changes_no_output():
    net = network()
    lost = net.layers[1][5]
    lost.prune()
    before, logits = pairs(net), net.forward(X)
    SET(0.0).act(net, 0.0, 0, 0, sample, None)
    assert net.sparsity == 0 and before < pairs(net)
    assert lost.weights.all() and lost.weights.std() == pytest.approx((3 * 24) ** -0.5, rel=0.5)
    assert not any(edge.weight for edge in lost.out_edges)
    np.testing.assert_allclose(net.forward(X), logits, rtol=1e-5, atol=1e-6)


def test_a_revived_neuron_with_sources_brings_back_their_edges():
    """Sources that nothing else reads count with their edges, so the layer grows fewer."""
    net = mlgraph.Network(12, seed=0)
    for size, activation in ((10, "tanh"), (8, "tanh"), (3, "softmax")):
        net.add_layer(size, activation)
    net.layers[0].mask = np.tile(np.arange(12) < 6, (10, 1))
    neuron = net.layers[1][2]
    net.graph.prune([edge for source in neuron.sources[:4] for edge in source.out_edges if edge.target != neuron])
    net.graph.prune(neuron.out_edges)
    new = growing.grow_to_sizes(net, np.array([60, 52, 24]), None, 1, np.random.default_rng(0))
    assert new.source.tolist() == [neuron.id] * 3 and net.n_edges == 60 + 52 + 24


@both
def test_a_revived_neuron_starts_with_bias_0_and_no_momentum(kind):
    """A frozen bias stays, and so does that of a neuron that stays dead or alive."""
    net = network(bias=False)
    net.fit(X, Y, sparsify=kind(0.7), epochs=1, batch_size=50, optimizer="sgd", learning_rate=0.05)
    mlgraph.exp(net.layers[0][0])  # an operation and a layer without biases have nothing to reset
    revived, frozen, *others = net.layers[1]
    net.graph.prune([*net.layers[1][:6]])
    for neuron in net.layers[1][:6]:
        neuron.bias = 3.0
    frozen.frozen = True

    def bias_and_momentum(neuron):
        return neuron.bias, net.graph.storage.state["first"][net.graph.storage.bias[net.graph._data[neuron.id]]]

    net.graph.storage.state["first"][:] = 5.0
    before = {neuron: bias_and_momentum(neuron) for neuron in others if neuron.alive}
    kind(0.95, fraction=0.1).act(net, 0.1, 3, 0, sample, None)
    dead = [n for n in net.layers[1][:6] if not n.alive]
    assert dead and all(n.bias == 3.0 for n in dead)
    for step in range(1, 40):
        kind(0.3, fraction=0.3).act(net, 0.1, step, 0, sample, None)
    assert revived.alive and bias_and_momentum(revived) == (0.0, 0.0)
    assert frozen.alive and frozen.bias == 3.0
    assert sum(bias_and_momentum(neuron) == was for neuron, was in before.items()) > 5


@both
def test_a_neuron_that_loses_all_its_edges_and_gains_others_starts_anew(kind):
    """It keeps its bias only if one of its edges is restored, as RigL may do."""
    seen = set()

    class Spied(kind):
        def act(self, model, *arguments):
            before = [(dict(zip(n.sources, n.weights.tolist(), strict=True)), n.bias) for n in model.layers[0]]
            super().act(model, *arguments)
            for neuron, (weights, bias) in zip(model.layers[0], before, strict=True):
                now = zip(neuron.sources, neuron.weights, strict=True)
                is_kept = any(weights.get(source) == weight for source, weight in now)
                if neuron.alive and weights:
                    seen.add(is_kept)
                    assert neuron.bias == (bias if is_kept else 0)

    for seed in range(3):
        net = mlgraph.Network(6, seed=seed)
        net.add_layer(4, "relu")
        net.add_layer(2)
        net.layers[0].biases = [1.0, 2.0, 3.0, 4.0]
        x = np.random.default_rng(seed).normal(size=(40, 6)).astype(np.float32)
        schedule = Spied(0.6, updates=6, fraction=0.6)
        net.fit(x, x[:, :2], learning_rate=0.0, epochs=4, batch_size=10, sparsify=schedule, seed=seed)
    assert True in seen and (False in seen or kind is RigL)
