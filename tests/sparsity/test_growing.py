"""Which edges grow: each choice against its definition, computed another way."""

import cuttable
import numpy as np
import pytest
from editable import everything
from scored import DATA, EDGES, X, Y, best, layer_of, network, slopes, weights

import mlgraph
from mlgraph.graph import arrays
from mlgraph.sparsity import growing
from mlgraph.sparsity.schedules import GradualPruning
from mlgraph.sparsity.scores import top_k


def test_all_grows_again():
    net, twin = network(), network()
    net.prune(0.4)
    assert all(n.alive for layer in net.layers for n in layer.neurons)
    kept = weights(net)
    before = net.forward(X)
    net.regrow(1)
    assert net.sparsity == 0 and weights(net) == {edge: kept.get(edge, 0.0) for edge in weights(twin)}
    np.testing.assert_allclose(net.forward(X), before, rtol=1e-5, atol=1e-5)
    net.undo()
    assert weights(net) == kept


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_growth_at_random(scope):
    grown = []
    for seed in (0, 0, 1):
        net = network()
        net.prune(0.6, scope="layer")
        before = weights(net)
        net.regrow(0.5, seed=seed, scope=scope)
        assert net.n_edges == len(before) + round(0.5 * (EDGES - len(before)))
        new = set(weights(net)) - set(before)
        assert not any(weights(net)[edge] for edge in new)
        sizes = [sum(layer_of(net, t) == i for _, t in new) for i in range(3)]
        assert (sizes == [72, 96, 43]) == (scope == "layer")
        grown.append(new)
    assert grown[0] == grown[1] != grown[2]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_growth_where_the_loss_is_steepest(scope):
    """A dense twin whose absent weights are 0 has the same gradient."""
    net = network()
    net.prune(0.6, scope="layer")
    before = weights(net)
    twin = network(trained=False)
    for layer, other in zip(net.layers, twin.layers, strict=True):
        for a, b in zip(layer.neurons, other.neurons, strict=True):
            b.bias = a.bias
            b.weights = [before.get((s.id, b.id), 0.0) for s in b.sources]
    scores = {edge: abs(slope) for edge, slope in slopes(twin).items() if edge not in before}
    net.regrow(0.25, by="gradient", data=DATA, scope=scope)
    new = set(weights(net)) - set(before)
    if scope == "global":
        want = best(scores, round(0.25 * len(scores)))
    else:
        parts = [{edge: v for edge, v in scores.items() if layer_of(net, edge[1]) == i} for i in range(3)]
        want = set().union(*(best(part, round(0.25 * len(part))) for part in parts))
    assert len(new) == len(want) and len(new - want) <= 2


def test_what_was_cut_off_stays_so():
    net = network()
    cut = [net.layers[0].neurons[3], net.layers[1].neurons[7]]
    net.graph.prune(cut)
    net.prune(0.5)
    net.regrow(1)
    assert not any(n.alive for n in cut) and net.n_edges == 12 * 19 + 19 * 15 + 15 * 9


def test_nothing_to_grow():
    net = network()
    edits_before = net.graph.edits
    net.regrow(0.5)
    net.prune(0.5)
    net.regrow(0)
    assert net.graph.edits == edits_before + 1


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_regrow_by_a_function(scope):
    net = mlgraph.Network(24, seed=0)
    net.add_layer(20)
    net.add_layer(9, "softmax")
    net.prune(0.5)
    before = {(s, t) for s, t, _ in zip(*net.graph.edges(), strict=True)}
    seen = []

    def nearest(edges):
        assert (
            not any(map(before.__contains__, zip(edges.source, edges.target, strict=True))) and not edges.weight.any()
        )
        seen.append(len(edges.source))
        return -np.abs(edges.target - edges.source)

    n = net.n_edges
    net.regrow(0.25, by=nearest, scope=scope)
    assert abs(net.n_edges - n - seen[0] / 4) <= (0.5 if scope == "global" else 1)
    if scope == "global":
        after = {(s, t) for s, t, _ in zip(*net.graph.edges(), strict=True)} - before
        assert max(t - s for s, t in after) < 40
    for wrong, error in ((lambda edges: [1.0], ValueError), ("magnitude", ValueError), (lambda edges: "x", TypeError)):
        with pytest.raises(error, match=r"^by: expected"):
            net.regrow(0.25, by=wrong)


@pytest.mark.parametrize("by", ["random", "gradient"])
@pytest.mark.parametrize("way", ["direct", "beside", "within"])
def test_regrown_edges_make_no_cycle(by, way):
    """Where an edge goes from a layer to one before it, or to its own, directly or by a neuron of no layer."""
    net = mlgraph.Network(4, seed=0)
    for size in (6, 5, 2):
        net.add_layer(size, "tanh")
    g, (first, second, _) = net.graph, (layer.neurons for layer in net.layers)
    g.prune(first[0])
    g.prune([(first[3], second[1]), (first[1], second[2]), (g[2], first[5]), (g[1], first[2])])
    g.add_edge(g[0], second[4], 1.0)
    g.prune([(neuron, second[4]) for neuron in first[1:]])
    middle = g.add_neuron([second[4] if way != "within" else first[4]], weights=[1.0]) if way != "direct" else second[4]
    g.add_edge(middle, first[5] if way != "within" else first[1], 1.0)
    assert middle.alive and first[5].alive
    if way != "within":
        with pytest.raises(mlgraph.CycleError):
            g.add_edge(first[5], second[4])
    data = np.random.default_rng(0).random((20, 4)), np.zeros((20, 2))
    net.regrow(1.0, by=by, data=data if by == "gradient" else None)
    assert all(g.has_edge(*ends) for ends in [(first[1], second[2]), (g[2], first[5]), (g[1], first[2])])
    assert g.has_edge(first[5], second[4]) == (way == "within") and g.has_edge(first[3], second[1])
    net.fit(*data, epochs=1)
    assert not g.has_edge(g[0], first[0]), "what was cut off stays so"


def test_edges_from_probabilities_grow_by_the_gradient():
    """Whether something reads them or not."""
    net = mlgraph.Network(X.shape[1], seed=0)
    for size in (6, Y.max() + 1):
        net.add_layer(size, "softmax")
    unread = net.layers[1].source_ids[1]
    for output in net.outputs:
        net.graph.edge(net.graph[unread], output).prune()
    n = net.n_edges
    net.regrow(1.0, by="gradient", data=(X, Y))
    assert net.n_edges == n  # what was cut off stays so
    net.graph.edge(net.graph[net.layers[1].source_ids[2]], net.outputs[0]).prune()
    net.regrow(1.0, by="gradient", data=(X, Y))
    assert net.n_edges == n


def test_new_edges_have_no_momentum():
    net = cuttable.network()
    net.fit(cuttable.X, cuttable.Y, sparsify=GradualPruning(0.5), **cuttable.OPTIONS)
    before = cuttable.pairs(net)
    net.regrow(0.5)
    edges = arrays.wiring(net.graph)
    state = net.graph.storage.state_vector("first", fresh=False)[edges.place]
    is_new = np.array([edge not in before for edge in zip(edges.source.tolist(), edges.target.tolist(), strict=True)])
    assert is_new.any() and not state[is_new].any() and state[~is_new].any()


# --- layers that are filled again, from the last to the first -------------------------------------


def test_of_equal_slopes_the_same_grow_as_of_all_places_together():
    """Most places are not looked at again, but chance takes the same ones."""
    net = cuttable.network()
    net.prune(0.6, scope="layer")
    places, n = growing.missing_edges(net, dead=True), 20
    assert all(
        net.graph.alive()[ids].all() and gaps.fan_in.all() for gaps in places for ids in (gaps.sources, gaps.targets)
    )
    slopes = [np.arange(gaps.free.size).reshape(gaps.free.shape).astype(np.float32) // 50 for gaps in places]
    want = set()
    for gaps, slope in zip(places, slopes, strict=True):
        at = np.flatnonzero(gaps.free)
        best = top_k(slope.ravel()[at].astype(float), np.zeros(len(at), int), np.array([n]))
        want |= set(zip(*(ids.tolist() for ids in gaps.edges(at[best])[:2]), strict=True))
    sizes = np.array(cuttable.layer_sizes(net))
    new = growing.grow_to_sizes(net, sizes + n, slopes, 1, np.random.default_rng(0))
    assert set(zip(new.source.tolist(), new.target.tolist(), strict=True)) == want and len(want) == 3 * n


def test_neurons_come_back_without_a_change_of_what_is_said():
    net = cuttable.network()
    lost = net.layers[1].neurons[5]
    lost.prune()
    before, said = cuttable.pairs(net), net.forward(cuttable.X)
    wanted = np.array([30 * 24, 24 * 16 - 3, 16 * 9 - 3])
    growing.grow_to_sizes(net, wanted, None, 1, np.random.default_rng(0))
    assert (
        lost.alive
        and lost.weights.all()
        and len(lost.sources) > 15
        and not any(net.graph.edge(lost, neuron).weight for neuron in lost.targets)
    )
    assert lost.weights.std() == pytest.approx((3 * len(lost.sources)) ** -0.5, rel=0.5)
    assert cuttable.layer_sizes(net) == wanted.tolist() and before < cuttable.pairs(net)
    np.testing.assert_allclose(net.forward(cuttable.X), said, rtol=1e-5, atol=1e-6)


def test_what_is_read_gets_a_source_and_what_is_not_does_not_count():
    net = cuttable.network()
    lost, unread = net.layers[1].neurons[5], net.layers[0].neurons[7]
    lost.prune()
    net.graph.prune([(unread, neuron) for neuron in net.layers[1].neurons if neuron.id != lost.id])
    assert not unread.alive and len(unread.sources) == 30
    before = np.array(cuttable.layer_sizes(net))
    # There is room for the lost neuron in the last layer alone; and for edges into the first, all
    # of whose neurons but one are read by all.
    net.graph.prune([(net.graph[3], neuron) for neuron in net.layers[0].neurons if neuron.id != unread.id])
    growing.grow_to_sizes(net, before + np.array([-50, 0, 5]), None, 1, np.random.default_rng(0))
    assert len(lost.sources) == 1 and lost.alive and len(lost.targets) == 5
    assert (
        not unread.alive and sum(len(n.sources) for n in net.layers[0].neurons if n.id != unread.id) == before[0] - 50
    )


@pytest.mark.parametrize("block", [1, 4])
def test_a_criterion_may_write_into_what_it_is_given(block):
    """It changes neither which edges there are nor their weights, of which those to grow are 0."""

    def in_place(edges):
        edges.weight[:] = np.arange(len(edges.weight)) % 7
        edges.source[:], edges.target[:] = 0, edges.target.max()
        return edges.weight

    def apart(edges):
        return np.arange(len(edges.weight)) % 7

    nets = []
    for by in (in_place, apart):
        net = network()
        net.prune(0.5, by=by, block=block)
        net.regrow(0.2, by=by, block=block)
        nets.append(everything(net.graph))
    assert nets[0] == nets[1]


@pytest.mark.parametrize("block", [1, 4])
def test_scores_to_grow_by_are_numbers(block):
    net = network(trained=False)
    net.prune(0.5)
    with pytest.raises(ValueError, match="by: expected scores that are numbers, got nan"):
        net.regrow(0.2, by=lambda edges: np.full(len(edges.source), np.nan), block=block)


def test_products_of_examples_in_parts(monkeypatch):
    monkeypatch.setattr(growing.Plan, "examples_at_once", 7)
    rng = np.random.default_rng(0)
    values, deltas = rng.normal(size=(50, 6)).astype(np.float32), rng.normal(size=(50, 9)).astype(np.float32)
    np.testing.assert_allclose(growing.Products()(values, deltas, 1), deltas.T @ values, rtol=1e-4, atol=1e-5)


def test_products_do_not_depend_on_those_before():
    products, rng = growing.Products(), np.random.default_rng(0)
    for n, shape in ((50, (9, 6)), (3, (9, 6)), (70, (6, 9)), (50, (9, 6))):
        deltas, values = (rng.normal(size=(n, k)).astype(np.float32) for k in shape)
        assert products(values, deltas, 1).tobytes() == growing.Products()(values, deltas, 1).tobytes()
    assert len(products._engines) == 2


def test_inputs_at_which_edges_may_grow_have_data():
    """That which another model alone reads is alive, too."""
    net = network()
    net.graph.prune([(net.graph[11], n) for n in net.layers[0].neurons])
    net.regrow(0.1, by="gradient", data=(X[:, :11], Y))
    net.undo()
    other, before = mlgraph.Model(net.graph, net.graph.add_neuron([net.graph[11]], weights=[1.0])), weights(net)
    with pytest.raises(
        ValueError, match=r"^data x: expected 12 columns, one for each input that may gain edges, got 11$"
    ):
        net.regrow(0.1, by="gradient", data=(X[:, :11], Y))
    assert weights(net) == before and other.n_edges == 1


def test_what_comes_to_be_read_brings_along_what_it_reads():
    """Sources that nothing else reads count with their edges, in whose stead the layer grows none."""
    net = mlgraph.Network(12, seed=0)
    for size, activation in ((10, "tanh"), (8, "tanh"), (3, "softmax")):
        net.add_layer(size, activation)
    net.layers[0].mask = np.tile(np.arange(12) < 6, (10, 1))
    neuron = net.layers[1][2]
    net.graph.prune([edge for source in neuron.sources[:4] for edge in source.out_edges if edge.target != neuron])
    net.graph.prune(neuron.out_edges)
    assert not any(source.alive for source in neuron.sources[:4])
    new = growing.grow_to_sizes(net, np.array([60, 80 - 4 * 7, 24]), None, 1, np.random.default_rng(0))
    assert new.source.tolist() == [neuron.id] * 3 and net.n_edges == 60 + 80 - 4 * 7 + 24


def test_the_gradient_of_places_of_a_layer_that_has_lost_and_gained_neurons():
    """Their values and deltas no longer stand side by side."""
    net = network()
    net.widen(net.layers[0], 2)
    net.fit(X, Y, epochs=1, batch_size=50)
    for neuron in (net.layers[0][3], net.layers[1][5]):
        neuron.prune()
    found = net.trace(X, Y)
    for gaps, slope in zip(
        *(layers := growing.missing_edges(net), growing.dense_gradients(net, layers, X, Y)), strict=True
    ):
        is_data = gaps.sources[0] < X.shape[1]
        values = X[:, gaps.sources] / 255 if is_data else np.column_stack([found[int(i)] for i in gaps.sources])
        deltas = found.of(gaps.targets).deltas() / len(X)
        np.testing.assert_allclose(slope, deltas.T @ values, rtol=1e-4, atol=1e-7)
