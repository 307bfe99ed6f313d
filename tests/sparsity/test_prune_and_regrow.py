"""SET and RigL: layers keep their edges, which move to where they belong."""

import itertools

import numpy as np
import pytest
from cuttable import OPTIONS, X, Y, layer_sizes, network, pairs

import mlgraph
from mlgraph.sparsity import growing
from mlgraph.sparsity.schedules import SET, RigL, erdos_renyi


@pytest.mark.parametrize(
    ("sizes", "sparsity", "message"),
    [
        ([(0, 4)], 0.5, "sizes: expected an integer of at least 1, got 0"),
        ([(4, 0)], 0.5, "sizes: expected an integer of at least 1, got 0"),
        ([(3, 4)], 2, "sparsity: expected a number from 0 "),
    ],
)
def test_what_is_no_size_of_a_layer(sizes, sparsity, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        erdos_renyi(sizes, sparsity)


@pytest.mark.parametrize("sizes", [3, None, [3], [(1, 2, 3)]])
def test_sizes_are_pairs(sizes):
    with pytest.raises(TypeError, match=r"^sizes: expected pairs \(sources, neurons\), got "):
        erdos_renyi(sizes, 0.5)
    pairs = [(30, 20), (20, 10)]
    np.testing.assert_array_equal(erdos_renyi(iter(pairs), 0.5), erdos_renyi(pairs, 0.5))


@pytest.mark.parametrize("kind", [SET, RigL])
def test_prune_and_regrow(kind):
    net, seen = network(), []
    schedule = kind(0.7, updates=8, until=0.5)
    wanted = erdos_renyi([(30, 24), (24, 16), (16, 9)], 0.7).tolist()

    def watch(progress):
        seen.append((progress.examples / progress.total_examples, layer_sizes(net), pairs(net)))

    net.fit(X, Y, sparsify=schedule, callback=watch, **OPTIONS)
    assert all(sizes == wanted for _, sizes, _ in seen)
    moved = [(share, len(after - before)) for (share, _, before), (_, _, after) in itertools.pairwise(seen)]
    assert max(n for share, n in moved if share < 0.5) > 20 and not any(n for share, n in moved if share > 0.55)
    assert net.evaluate(X, Y)["accuracy"] > 0.6  # 0.74 to 0.9, by the order


@pytest.mark.parametrize("kind", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
def test_neurons_beside_the_layers_keep_their_edges(kind):
    net = network()
    wanted = erdos_renyi([(30, 24), (24, 16), (16, 9)], 0.7).tolist()
    extra = net.graph.add_neuron([*net.graph][:20], weights=np.full(20, 1e-9))
    other = mlgraph.Model(net.graph, [extra])
    net.fit(X, Y, sparsify=kind(0.7, updates=8), **OPTIONS)
    assert layer_sizes(net) == wanted and len(extra.sources) == 20 and other.forward(X).any()
    assert net.history.epoch_edges[-1] == net.n_edges == net.graph.n_edges - 20


@pytest.mark.parametrize("kind", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("sparsity", "fraction"), [(0.95, 0.3), pytest.param(0.9, 0.9, marks=pytest.mark.slow)])
def test_no_edge_is_lost_where_few_are_left(kind, sparsity, fraction):
    """Neurons and inputs that have lost all their edges can gain edges again."""
    net = network()
    wanted = erdos_renyi([(30, 24), (24, 16), (16, 9)], sparsity)
    read, neurons = set(), set()

    def watch(progress):
        read.update(source for source, _ in pairs(net) if source < 30)
        neurons.update(neuron.id for layer in net.layers for neuron in layer.neurons if neuron.alive)

    options = {**OPTIONS, "epochs": 12}
    history = net.fit(X, Y, sparsify=kind(sparsity, fraction=fraction, updates=100), callback=watch, **options)
    # A layer may get more edges if its read neurons need more, or fewer if none of them has free places.
    most = 1.1 * wanted.sum()
    assert (history.epoch_edges >= wanted.sum() * (1 if kind is SET else 0.9)).all() and (
        history.epoch_edges <= most
    ).all()
    source, target = np.array(sorted(pairs(net))).T
    assert net.graph.alive()[[*source, *target]].all()
    if kind is SET:
        assert len(read) == 30 and len(neurons) == 24 + 16 + 9


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
def test_edges_past_the_layers_stay_and_take_no_room(kind, frozen):
    """Once cut they would not come back. Into neurons of a layer, and out of one that is in none."""
    net = network()
    source, target = np.repeat(np.arange(30), 16), np.tile(np.array(net.layers[1].ids), 30)
    weight = np.random.default_rng(0).normal(size=480).astype(np.float32) / 500
    net.graph.add_edges(mlgraph.Edges(source.astype(np.int32), target.astype(np.int32), weight))
    extra = net.graph.add_neuron([*net.graph][:3], "tanh", weights=np.full(3, 1e-3))
    net.graph.add_edge(extra, net.outputs[0], 1e-3)
    if frozen:
        for neuron in net.layers[1]:
            for edge in neuron.edges[:-24]:
                edge.frozen = True
    past = {(s, t) for s, t in pairs(net) if (s < 30 and t in net.layers[1].ids) or extra.id in (s, t)}
    wanted = erdos_renyi([(30, 24), (24, 16), (16, 9)], 0.7)
    net.fit(X, Y, sparsify=kind(0.7, updates=8), **OPTIONS)
    gone = past - pairs(net)  # with a neuron that led to no output for a while
    dead = {t for _, t in gone}
    assert len(past) == 484 and len(dead) <= 2 and gone == {(s, t) for s, t in past if t in dead}
    assert layer_sizes(net) == np.add(wanted, [0, 480 - len(gone), 1]).tolist()


def test_rigl_grows_where_the_loss_is_steepest(monkeypatch):
    """RigL grows at the largest gradients before the cut; a regrown edge keeps weight and optimizer state."""
    net, schedule = network(), RigL(0.7, fraction=0.9)
    net.fit(X, Y, sparsify=schedule, epochs=1, batch_size=50)
    places = growing.missing_edges(net, dead=True)
    slopes = growing.dense_gradients(net, places, X, Y)
    before, grown = pairs(net), []

    def numbers():
        edges, state = growing.wiring(net.graph), net.graph.storage.vectors()
        columns = np.column_stack([state[name][edges.place] for name in ("", "first")])
        return dict(zip(zip(edges.source.tolist(), edges.target.tolist(), strict=True), columns.tolist(), strict=True))

    def watch(graph, edges, who):
        grown.append((set(zip(edges.source.tolist(), edges.target.tolist(), strict=True)), pairs(net)))
        return grow(graph, edges, who)

    grow, was = growing.grow, numbers()
    monkeypatch.setattr(growing, "grow", watch)
    schedule.act(net, 0.1, 5, 0, lambda n: (X[:n], Y[:n]), None)
    (new, kept), now = grown[0], numbers()
    assert kept < before and pairs(net) == kept | new
    for gaps, slope in zip(places, slopes, strict=True):
        score = {
            (s, t): abs(slope[r, c])
            for r, t in enumerate(gaps.targets.tolist())
            for c, s in enumerate(gaps.sources.tolist())
            if (s, t) not in kept
        }
        mine = {edge for edge in new if edge in score}
        best = set(sorted(score, key=score.get, reverse=True)[: len(mine)])
        assert len(mine - best) < 0.1 * len(mine)  # neurons that come to be read have one each
    assert len(new & before) > 10 and len(new - before) > 10
    assert all(now[edge] == was[edge] for edge in kept | (new & before)) and any(now[edge][1] for edge in new & before)
    alive = {t for _, t in kept}
    assert all(now[s, t] == [0, 0] for s, t in new - before if t in alive)


@pytest.mark.parametrize("kind", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
def test_neurons_that_come_to_life_begin_anew(kind):
    """Nor has what its bias was before, or what the optimizer knew of it, any part in the neuron that it is then."""
    net = network()
    net.fit(X, Y, sparsify=kind(0.7), epochs=1, batch_size=50)
    dead, frozen = net.layers[1][2], net.layers[1][3]
    for neuron in (dead, frozen):
        neuron.prune()
        neuron.bias = 3.0
    frozen.frozen = True
    place, first = net.graph.storage.bias[net.graph._data[dead.id]], net.graph.storage.state["first"]
    first[place] = 5.0
    others = [neuron.bias for neuron in net.layers[1] if neuron not in (dead, frozen)]
    for step in range(1, 40):
        kind(0.3, fraction=1.0).act(net, 0.1, step, 0, lambda n: (X[:n], Y[:n]), None)
    place, first = net.graph.storage.bias[net.graph._data[dead.id]], net.graph.storage.state["first"]
    assert dead.alive and (dead.bias, first[place]) == (0.0, 0.0)
    assert frozen.alive and frozen.bias == 3.0
    assert [neuron.bias for neuron in net.layers[1] if neuron not in (dead, frozen)] == others


@pytest.mark.parametrize("kind", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
def test_neurons_that_stay_dead_keep_their_bias(kind):
    net = network()
    mlgraph.exp(net.layers[0][0])  # an operation has no record, and no bias
    net.graph.prune([*net.layers[1][:5], net.layers[0][2]])
    for neuron in net.layers[1][:5]:
        neuron.bias = 3.0
    last = net.outputs[-1].bias = 2.0
    kind(0.95, fraction=0.1).act(net, 0.1, 3, 0, lambda n: (X[:n], Y[:n]), None)
    dead = [neuron for neuron in net.layers[1][:5] if not neuron.alive]
    assert dead and all(neuron.bias == 3.0 for neuron in dead) and net.outputs[-1].bias == last


def test_neurons_without_a_bias_begin_anew():
    net = mlgraph.Network(30, seed=0)
    net.add_layer(16, bias=False)
    before = net.graph.parameters.tobytes()
    growing.reset_neurons(net.graph, np.array(net.layers[0].ids))
    assert net.graph.parameters.tobytes() == before and net.graph.parameters[-1] != 0


def test_what_rounding_leaves_over_goes_to_some():
    assert erdos_renyi([(3, 3)] * 8, 0.5).tolist() == [5] * 4 + [4] * 4
    assert erdos_renyi([(7, 7)] * 3, 0.5).sum() in (73, 74)
    assert erdos_renyi([(1, 5), (1, 5)], 0.8).tolist() == [1, 1]  # of 0.9999999999999997


@pytest.mark.parametrize("sparsity", [0, 0.5, 0.9, 0.99])
def test_erdos_renyi(sparsity):
    sizes = [(784, 300), (300, 100), (100, 10)]
    edges = erdos_renyi(sizes, sparsity)
    whole = np.array([a * b for a, b in sizes])
    assert edges.sum() == pytest.approx((1 - sparsity) * whole.sum(), abs=2) and (edges <= whole).all()
    share = edges / [a + b for a, b in sizes]
    free = edges < whole
    np.testing.assert_allclose(share[free], share[free][:1].repeat(free.sum()), rtol=0.01)


@pytest.mark.parametrize("kind", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
def test_all_edges_may_move(kind):
    net = network()
    net.fit(X, Y, sparsify=kind(0.5, fraction=1, updates=8), **OPTIONS)
    assert net.sparsity == pytest.approx(0.5, abs=0.01) and all(neuron.alive for neuron in net.outputs)


@pytest.mark.parametrize("kind", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
def test_a_layer_that_has_all_its_edges_is_left_alone(kind):
    """There is nowhere that they could move to."""
    net = mlgraph.Network(30, seed=0)
    net.add_layer(24)
    net.add_layer(2)
    schedule = kind(0.5, updates=3)
    assert erdos_renyi([(30, 24), (24, 2)], 0.5)[1] == 48
    before = net.layers[1].weights
    for step in range(3):
        schedule.act(net, 0.1, step, 0, lambda n: (X[:n], np.zeros((len(X[:n]), 2))), None)
    np.testing.assert_array_equal(net.layers[1].weights, before)
    assert net.layers[0].mask.sum() == 336


@pytest.mark.parametrize("method", ["SET", pytest.param("RigL", marks=pytest.mark.slow)])
def test_edges_that_lead_back_do_not_shrink_a_network(method):
    """Places that are left out are no edges that are there."""
    counts = []
    for back in (False, True):
        net = mlgraph.Network(20, seed=0)
        for size in (24, 24, 24):
            net.add_layer(size, "tanh")
        net.add_layer(3, "softmax")
        x, y = np.random.default_rng(0).random((200, 20)), np.arange(200) % 3
        net.prune(0.8)
        if back:
            above, below = ([n for n in net.layers[i].neurons if n.alive] for i in (2, 0))
            ends = [(s, t) for t in below for s in above if not net.graph.reaches(t, s)]
            net.graph.add_edge(*ends[0], 5.0)  # too large to be cut
        net.fit(x, y, epochs=2, batch_size=10, sparsify=getattr(mlgraph, method)(0.8, updates=8))
        counts.append(net.n_edges)
    assert (
        net.graph.has_edge(*ends[0])
        and sum(np.count_nonzero(~p.free) - p.fan_in.sum() for p in growing.missing_edges(net)) > 5
    )
    assert abs(counts[1] - counts[0]) <= 2, counts


@pytest.mark.parametrize("schedule", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
def test_before_the_first_step_edges_are_cut_alone(schedule):
    """What grows has weight 0, and none of the edges has."""
    net, weights = network(), []

    def look(progress):
        weights.append(net.graph.edges().weight)
        raise StopIteration

    net.fit(X, Y, epochs=1, learning_rate=0, sparsify=schedule(0.5), callback=look)
    assert len(weights[0]) == pytest.approx(0.5 * (30 * 24 + 24 * 16 + 16 * 9), rel=0.01) and weights[0].all()


@pytest.mark.parametrize("schedule", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
def test_a_neuron_that_was_added_beside_the_layers_keeps_its_edges(schedule):
    """However small they are, while what it feeds is kept."""
    net = network()
    extra = net.graph.add_neuron([*net.graph][:20], "tanh", weights=np.full(20, 1e-9))
    net.graph.add_edge(extra, net.outputs[0], 50.0)
    net.fit(X, Y, sparsify=schedule(0.7, updates=8), **OPTIONS)
    assert len(extra.sources) == 20 and extra.alive


@pytest.mark.parametrize("kind", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
@pytest.mark.parametrize("activation", ["sigmoid", pytest.param("softmax", marks=pytest.mark.slow)])
def test_who_reads_a_probability_reads_its_logit(kind, activation):
    """Which gets a source, then: else the probability would be a constant that computes and is not counted."""
    x = np.random.default_rng(0).normal(size=(500, 20)).astype(np.float32)
    y, options = x[:, :4].argmax(axis=1), {"loss": "binary_cross_entropy"} if activation == "sigmoid" else {}
    for seed in range(5):
        net = mlgraph.Network(20, seed=seed)
        net.add_layer(16, activation, **options)
        net.add_layer(12, "relu")
        net.add_layer(4, "softmax")
        net.fit(x, y, epochs=5, batch_size=25, sparsify=kind(0.92), seed=seed)
        assert net.n_edges == sum(int(layer.mask.sum()) for layer in net.layers)
        assert net.graph.alive()[[*{source for source, _ in pairs(net)}]].all()


@pytest.mark.parametrize("kind", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
def test_a_neuron_that_dies_and_comes_back_at_once_begins_anew(kind):
    """Its bias as its weights; but as it was, if an edge of it that was cut is found steep."""
    seen = []

    class Spied(kind):
        def act(self, model, *arguments):
            before = [(dict(zip(n.sources, n.weights.tolist(), strict=True)), n.bias) for n in model.layers[0]]
            super().act(model, *arguments)
            for neuron, (weights, bias) in zip(model.layers[0], before, strict=True):
                kept = [
                    weights.get(source) == weight for source, weight in zip(neuron.sources, neuron.weights, strict=True)
                ]
                if neuron.alive and weights:
                    seen.append((any(kept), neuron.bias == bias))
                    assert neuron.bias == (bias if any(kept) else 0)

    for seed in range(5):
        net = mlgraph.Network(6, seed=seed)
        net.add_layer(4, "relu")
        net.add_layer(2)
        net.layers[0].biases = [1.0, 2.0, 3.0, 4.0]
        x = np.random.default_rng(seed).normal(size=(40, 6)).astype(np.float32)
        schedule = Spied(0.6, updates=6, fraction=0.6)
        net.fit(x, x[:, :2], learning_rate=0.0, epochs=4, batch_size=10, sparsify=schedule, seed=seed)
    assert (True, True) in seen and ((False, False) in seen or kind is RigL)


@pytest.mark.parametrize("kind", [SET, pytest.param(RigL, marks=pytest.mark.slow)])
def test_neurons_that_nothing_reads_bring_no_edges_along(kind):
    """When they come to be read again: a layer has no more than its share from the first step on."""
    net, sizes = network(), []
    net.graph.prune([(n, reader) for n in net.layers[0].neurons[:12] for reader in net.layers[1]])
    assert all(len(n.sources) == 30 and not n.alive for n in net.layers[0].neurons[:12])
    wanted = erdos_renyi([(30, 24), (24, 16), (16, 9)], 0.8)
    net.fit(X, Y, sparsify=kind(0.8), callback=lambda _: sizes.append(layer_sizes(net)), **OPTIONS)
    assert (np.abs(np.array(sizes) - wanted) <= 4).all()
