"""Models: what they count, what they refuse, which data they take, and how several share a graph."""

import copy
import operator
import pickle

import numpy as np
import pytest
from editable import everything
from locks import waiting

import mlgraph

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(90, 6)).astype(np.float32), RNG.integers(0, 3, 90)


def network(hidden=9, **options):
    net = mlgraph.Network(6, seed=0)
    net.add_layer(hidden, "tanh", **options)
    net.add_layer(3, "softmax")
    return net


# --- several models of one graph ------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("by", ["saliency", lambda edges: -edges.weight], ids=["saliency", "callable"])
def test_pruning_leaves_other_models_as_they_are(by, scope):
    g, rng = mlgraph.Graph(seed=0), np.random.default_rng(0)
    inputs, models = g.add_inputs(24), []
    for _ in range(2):
        hidden = [g.add_neuron(inputs, "tanh", weights=rng.normal(size=24)) for _ in range(9)]
        models.append(mlgraph.Model(g, [g.add_neuron(hidden, weights=rng.normal(size=9)) for _ in range(2)]))
    first, second = models
    x = rng.normal(size=(30, 24))
    before, n = second.forward(x), 9 * 24 + 2 * 9
    first.prune(0.5, by=by, scope=scope, data=(x, x[:, :2]))
    assert first.n_edges <= n // 2 and first.sparsity == pytest.approx(1 - first.n_edges / n)
    assert second.n_edges == n and second.sparsity == 0 and second.forward(x).tobytes() == before.tobytes()
    second.prune(neurons=0.3, scope=scope)
    assert second.sparsity > 0.3 and first.sparsity == pytest.approx(1 - first.n_edges / n)


@pytest.mark.parametrize("what", ["sparsity", "neurons"])
def test_pruning_keeps_edges_that_only_another_model_needs(what):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(4)
    hidden = [g.add_neuron(x, "tanh", weights=np.arange(1, 5) + k) for k in range(4)]
    first = mlgraph.Model(g, [g.add_neuron([*x, *hidden], weights=np.ones(8)) for _ in range(2)])
    second = mlgraph.Model(g, [g.add_neuron(hidden, weights=np.ones(4)) for _ in range(5)])
    g.prune([(h, out) for h in hidden for out in first.outputs])
    before = second.forward(np.ones((1, 4)))
    first.prune(**{what: 0.5})
    assert (first.n_edges, second.n_edges) == (8, 36)
    assert second.forward(np.ones((1, 4))).tobytes() == before.tobytes()


def test_network_ignores_the_targets_of_another_model():
    """A network takes its own data although another model of the graph has a loss that reads further inputs."""
    alone, net = network(), network()
    targets = net.graph.add_inputs(3)
    errors = ((z - t) ** 2 for z, t in zip(net.outputs, targets, strict=True))
    other = mlgraph.Model(net.graph, net.outputs, mlgraph.sum(*errors))
    assert not net.gradients(X, LABELS).of(targets[2]).any()
    options = {"epochs": 3, "sparsify": mlgraph.RigL(0.3), "validation_data": (X, LABELS)}
    results = []
    for each in (alone, net):
        hidden = each.layers[0]
        history = each.fit(X, LABELS, **options)
        each.prune(0.5, by="saliency", data=(X, LABELS))
        tables = each.inspect(X, LABELS), each.ablation_table(hidden, X, LABELS)
        results.append(
            [
                history.validation_loss.tolist(),
                each.evaluate(X, LABELS),
                each.ablate(hidden[0], X, LABELS),
                each.gradients(X, LABELS).inputs.tolist(),
                each.trace(X)[hidden[2]].tolist(),
                *(table["loss"][:9].tolist() for table in tables),
            ]
        )
    np.testing.assert_equal(*results)
    assert other.fit(np.c_[X, np.eye(3)[LABELS]], epochs=1).epoch_loss > 0
    with pytest.raises(ValueError, match=r"^x: expected shape \(examples, 9\), got \(90, 6\)"):
        other.fit(X)


@pytest.mark.parametrize("dropped", [{"dropout": 0.5}, {"weight_dropout": 0.5}], ids=str)
def test_only_the_network_itself_trains_with_dropout(dropped):
    ends = []
    for options, is_network in (({}, True), (dropped, False), (dropped, True)):
        net = network(40, **options)
        model = net if is_network else mlgraph.Model(net.graph, net.outputs, "softmax_cross_entropy")
        model.fit(X, LABELS, epochs=3, batch_size=30)
        ends.append(net.graph.get_parameters().tobytes())
    assert ends[0] == ends[1] != ends[2]


# --- counts ---------------------------------------------------------------------------------------


def test_counts_include_only_what_the_model_needs():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(4)
    hidden = g.add_neuron(x, "tanh", weights=[1, 2, 3, 4])
    first = mlgraph.Model(g, g.add_neuron([*x, hidden], weights=[1, 2, 3, 4, 5]))
    second = mlgraph.Model(g, g.add_neuron([hidden], weights=[1]))
    assert (first.n_edges, first.n_parameters, second.n_edges) == (9, 11, 5)
    g.edge(hidden, first.outputs[0]).prune()
    assert (first.n_edges, second.n_edges) == (4, 5) and "4 edges" in repr(first)
    assert first.sparsity == pytest.approx(1 - 4 / 9) and second.sparsity == 0


def test_edges_out_of_disconnected_neurons_do_not_count():
    net = network(4)
    net.layers[0][3].prune()
    for neuron in net.outputs:
        net.graph.add_edge(net.layers[0][3], neuron)
    assert net.n_edges == 3 * 6 + 3 * 3


def test_neurons_that_undo_removed_do_not_count():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(3)
    first, second = (mlgraph.Model(g, g.add_neuron(x, weights=[1, 2, 3])) for _ in range(2))
    g.add_neurons(x, weights=np.ones((2, 3)))
    assert first.sparsity == second.sparsity == 1 - 3 / 9 and first.n_edges == 3
    g.undo()
    assert (first.sparsity, second.sparsity, second.n_edges) == (0, 0, 3)


@pytest.mark.parametrize("name", ["n_edges", "n_parameters", "sparsity"])
def test_counting_waits_for_an_edit(name):
    net, count = network(), operator.attrgetter(name)
    before = count(net)
    with net.graph.lock:
        thread, counted = waiting(net.graph, lambda: count(net))
        net.graph.prune([(net.graph[0], neuron) for neuron in net.layers[0]])
        assert not counted
    thread.join()
    assert counted == [count(net)] != [before]


# --- refused models -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["outputs", "loss"])
def test_disconnected_outputs_and_losses_are_refused(what):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(2)
    dead = g.add_neuron(x, weights=[1, 2])
    g.prune(dead)
    before = everything(g)
    with pytest.raises(ValueError, match=f"^{what}: no path leads from an input, parameter or constant to n{dead.id}$"):
        mlgraph.Model(g, [x[0], dead] if what == "outputs" else x[0], **({"loss": dead} if what == "loss" else {}))
    assert everything(g) == before and not g.sinks()


@pytest.mark.parametrize(
    ("loss", "probabilities"),
    [
        ("binary_cross_entropy", lambda g, h: g.add_neuron(h, "sigmoid")),
        ("binary_cross_entropy", lambda g, h: [h[0], mlgraph.sigmoid(h[1])]),
        ("softmax_cross_entropy", lambda g, h: g.add_softmax(h)),
    ],
)
def test_cross_entropies_refuse_probabilities_of_their_own_kind(loss, probabilities):
    """A sigmoid of a sigmoid learns next to nothing."""
    g = mlgraph.Graph(seed=0)
    h = [g.add_neuron(g.add_inputs(2), weights=[1, 2]) for _ in range(2)]
    ends = probabilities(g, h)
    before = len(g)
    with pytest.raises(ValueError, match=rf"^outputs: expected logits, because {loss} computes the s\w+ itself"):
        mlgraph.Model(g, ends, loss=loss)
    assert len(g) == before
    above_one = mlgraph.exp(h[0] - mlgraph.logsumexp(h[1], 1.0))
    other = {"softmax_cross_entropy": mlgraph.sigmoid(h[0]), "binary_cross_entropy": g.add_softmax(h)[0]}[loss]
    mlgraph.Model(g, [above_one, other], loss=loss)


def test_fit_refuses_a_loss_that_depends_on_no_parameter():
    g = mlgraph.Graph(seed=0)
    x, t, s = g.add_input(), g.add_input(), g.add_parameter(2.0)
    for model in (mlgraph.Model(g, s * x, loss=(x - t) ** 2), mlgraph.Model(g, x * 2)):
        with pytest.raises(ValueError, match=r"^fit: the loss depends on no weight or parameter"):
            model.fit([[1.0, 2.0]], () if model.loss == "node" else [3.0], epochs=1)
    assert not g.is_training


# --- running --------------------------------------------------------------------------------------


def test_predicting_needs_no_columns_that_only_the_loss_reads():
    """Data have all columns, or those up to the last that an output reads, or those without targets."""
    g = mlgraph.Graph(seed=0)
    x, target = g.add_inputs(4), g.add_input()
    out = g.add_neuron(x, weights=[1.0, 2.0, 0.2, 0.1])
    model = mlgraph.Model(g, out, loss=(out - target) ** 2)
    model.prune(0.5)
    for n in (2, 4, 5):
        assert model.forward(np.ones((3, n))).tolist() == [[3], [3], [3]]
    assert model.predict(np.ones((3, 4))).tolist() == [3, 3, 3] and model.evaluate(np.ones((3, 5))) == {"loss": 4.0}
    g.add_neuron([x[3]])  # x[3] is now no target, so data without it are refused
    for call, n in [*((model.forward, n) for n in (1, 3, 6)), (model.evaluate, 4)]:
        with pytest.raises(ValueError, match=rf"^x: expected shape \(examples, 5\), got \(3, {n}\)"):
            call(np.ones((3, n)))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy", "squared_error"])
def test_gradients_match_finite_differences(loss, n_threads):
    net = network(7)
    model = mlgraph.Model(net.graph, net.outputs, loss)
    x, y = X.copy(), LABELS if loss == "softmax_cross_entropy" else np.eye(3)[LABELS]
    model.prune(0.3)
    net.graph.add_edge(net.layers[0][0], net.layers[0][1], 0.5)
    found = model.gradients(x, y, n_threads=n_threads)
    np.testing.assert_array_equal(found.values, model.forward(x))

    def slope(put, at, h=2e-3):
        sides = []
        for value in (at + h, at - h):
            put(value)
            sides.append(model.evaluate(x, y)["loss"])
        put(at)
        return (sides[0] - sides[1]) / (2 * h)

    edges = net.graph.edges()
    for k in range(0, len(edges.weight), 5):
        edge = net.graph.edge(int(edges.source[k]), int(edges.target[k]))
        assert found.of(edge.target)[edge.target.sources.index(edge.source)] == found.edges[k]
        want = slope(lambda w, edge=edge: setattr(edge, "weight", w), edge.weight)
        assert found.edges[k] == pytest.approx(want, abs=3e-4)
    for neuron in (net.layers[0][2], net.outputs[1]):
        want = slope(lambda b, neuron=neuron: setattr(neuron, "bias", b), neuron.bias)
        assert found.of_bias(neuron) == pytest.approx(want, abs=3e-4)
    want = slope(lambda v: x.__setitem__((3, 2), v), float(x[3, 2]), 0.05)
    assert found.inputs[3, 2] == pytest.approx(want, abs=3e-5)


def test_gradients_outlive_a_compilation_but_not_an_edit():
    net = network()
    found = net.gradients(X, LABELS)
    before, moves = found.edges, net.graph.storage.moves
    assert not net.graph.storage.state, "a gradient is no state of an optimizer"
    net.graph.compile(net.layers[0].neurons[3:])
    assert net.graph.storage.moves > moves
    np.testing.assert_array_equal(found.edges, before)
    net.graph.set_parameters(np.arange(net.graph.n_parameters))
    for neuron in [*net.layers[0], *net.layers[1]]:
        np.testing.assert_array_equal(found.flat[neuron.weights.astype(int)], found.of(neuron))
        assert found.flat[int(neuron.bias)] == found.of_bias(neuron)
    net.layers[0][5].prune()
    for name in ("edges", "flat"):
        with pytest.raises(ValueError, match=f"{name}: the graph has been edited since these gradients were computed"):
            getattr(found, name)


def test_saliency_can_be_written_as_a_criterion():
    by_name, by_hand = network(), network()
    by_name.prune(0.6, by="saliency", data=(X, LABELS))
    by_hand.prune(0.6, by=lambda edges: np.abs(edges.weight * by_hand.gradients(X, LABELS).edges))
    for mine, theirs in zip(by_hand.layers, by_name.layers, strict=True):
        np.testing.assert_array_equal(mine.mask, theirs.mask)


def test_probabilities_at_a_temperature():
    net = network()
    net.layers[1].weights = 5 * net.layers[1].weights
    soft = mlgraph.Model(net.graph, [z / 3 for z in net.outputs], loss="softmax_cross_entropy")
    for model, temperature in ((soft, 3), (net, 1)):
        e = np.exp(net.forward(X).astype(float) / temperature)
        np.testing.assert_allclose(model.predict_proba(X), e / e.sum(axis=1, keepdims=True), rtol=1e-5)


def test_output_may_equal_the_loss():
    """Equal nodes are computed once, whichever came first."""
    g = mlgraph.Graph(seed=0)
    h = g.add_neuron([g.add_input()], weights=[1.0])
    first, second = mlgraph.exp(h), mlgraph.exp(h)
    for output, loss in ((first, second), (second, first)):
        model = mlgraph.Model(g, [output, mlgraph.sin(h)], loss=loss)
        np.testing.assert_allclose(model.gradients([[1.0]]).flat, [np.e, np.e], rtol=1e-6)


class OwnGraph(mlgraph.Graph):
    """A class that a user derives may have attributes of its own."""


def test_copies_and_pickles_of_a_graph_that_refers_to_its_model():
    g = OwnGraph(seed=0)
    model = mlgraph.Model(g, g.add_neuron([g.add_input()], weights=[2.0]))
    g.of = model
    model.predict([[3.0]])
    copies = [copy.deepcopy(model), copy.deepcopy(g).of, *(pickle.loads(pickle.dumps(model, p)) for p in range(6))]
    for other in copies:
        assert other.graph.of is other and other.graph.sinks() == g.sinks()
        assert other.forward([[3.0]]).tolist() == [[6.0]]
