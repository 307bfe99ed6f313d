"""Models: what one needs of its graph, alone or beside others, and how that is counted."""

import copy
import operator
import pickle

import numpy as np
import pytest
from editable import everything
from locks import waiting

import mlgraph
from mlgraph.models import running
from mlgraph.models.running import engine_of


def two_models(shared):
    """Over one graph, of 24 inputs: each has 9 neurons and 2 outputs, or reads the 9 of the first."""
    g = mlgraph.Graph()
    x, rng, models = g.inputs(24), np.random.default_rng(0), []
    for k in range(2):
        if k == 0 or not shared:
            hidden = [g.add_neuron(x, "tanh", weights=rng.normal(size=24)) for _ in range(9)]
        models.append(mlgraph.Model(g, [g.add_neuron(hidden, weights=rng.normal(size=9)) for _ in range(2)]))
    return models


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("by", ["magnitude", "saliency", "random", "callable"])
def test_models_that_share_a_graph_prune_their_own(by, scope):
    first, second = two_models(shared=False)
    x = np.random.default_rng(1).normal(size=(30, 24))
    before, n = second.forward(x), 9 * 24 + 2 * 9
    first.prune(0.5, by=(lambda edges: -edges.weight) if by == "callable" else by, scope=scope, data=(x, x[:, :2]))
    assert first.n_edges <= n // 2 and first.sparsity == pytest.approx(1 - first.n_edges / n)
    assert second.n_edges == n and second.sparsity == 0 and second.forward(x).tobytes() == before.tobytes()
    second.prune(neurons=0.3, scope=scope)
    assert sum(node.alive for node in first.graph if isinstance(node, mlgraph.Neuron)) <= 9 + 2 + 7 + 2
    assert second.sparsity > 0.3 and first.sparsity == pytest.approx(1 - first.n_edges / n)


def test_a_path_to_the_outputs_of_other_models_stays():
    first, second = two_models(shared=True)
    x = np.random.default_rng(1).normal(size=(30, 24))
    first.prune(0.98)
    assert first.n_edges >= 2 and np.isfinite(second.forward(x)).all()
    assert all(node.sources for node in second.outputs)


@pytest.mark.parametrize("what", ["sparsity", "neurons"])
def test_what_only_another_model_needs_is_not_cut(what):
    g = mlgraph.Graph()
    x = g.inputs(4)
    hidden = [g.add_neuron(x, "tanh", weights=np.arange(1, 5) + k) for k in range(4)]
    first = mlgraph.Model(g, [g.add_neuron([*x, *hidden], weights=np.ones(8)) for _ in range(2)])
    second = mlgraph.Model(g, [g.add_neuron(hidden, weights=np.ones(4)) for _ in range(5)])
    g.prune([(h, out) for h in hidden for out in first.outputs])
    before = second.forward(np.ones((1, 4)))
    assert (first.n_edges, second.n_edges) == (8, 36)
    first.prune(**{what: 0.5})
    assert (first.n_edges, second.n_edges) == (8, 36) and second.forward(np.ones((1, 4))).tobytes() == before.tobytes()


def test_edges_are_counted_by_what_a_model_itself_needs():
    g = mlgraph.Graph()
    x = g.inputs(4)
    hidden = g.add_neuron(x, "tanh", weights=[1, 2, 3, 4])
    first = mlgraph.Model(g, g.add_neuron([*x, hidden], weights=[1, 2, 3, 4, 5]))
    second = mlgraph.Model(g, g.add_neuron([hidden], weights=[1]))
    assert (first.n_edges, second.n_edges) == (9, 5)
    g.edge(hidden, first.outputs[0]).prune()
    assert (first.n_edges, second.n_edges) == (4, 5) and "4 edges" in repr(first)
    assert first.sparsity == pytest.approx(1 - 4 / 9) and second.sparsity == 0


def test_edges_from_what_is_dead_do_not_count():
    net = mlgraph.Network(4, seed=0)
    net.add_layer(4)
    net.add_layer(4)
    net.add_layer(2)
    net.layers[0][3].prune()
    for neuron in net.layers[1]:
        net.graph.add_edge(net.layers[0][3], neuron)  # of weight 0, from a neuron without sources
    assert net.n_edges == 12 + 12 + 8


def test_to_count_after_neurons_were_taken_back():
    g = mlgraph.Graph()
    x = g.inputs(3)
    first, second = (mlgraph.Model(g, g.add_neuron(x, weights=[1, 2, 3])) for _ in range(2))
    hidden = g.add_neurons(x, weights=np.ones((2, 3)))
    assert first.sparsity == second.sparsity == 1 - 3 / 9 and first.n_edges == 3  # of 3 of its own, and 6 of nobody's
    g.undo()
    assert (first.sparsity, second.sparsity, second.n_edges) == (0, 0, 3) and len(hidden) == 2


def test_to_count_moves_nothing():
    net = mlgraph.Network(24, seed=0)
    net.add_layer(9)
    net.add_layer(3, "softmax")
    net.prune(0.3)
    weights = net.layers[0].neurons[2].weights
    assert net.n_edges < net.n_parameters == net.n_edges + 12
    weights[0] = 5.0
    assert net.layers[0].neurons[2].weights[0] == 5.0


def test_outputs_that_are_dead_are_refused():
    g = mlgraph.Graph()
    x = g.inputs(2)
    dead = g.add_neuron(x, weights=[1, 2])
    g.prune(dead)
    before = everything(g)
    with pytest.raises(
        ValueError, match=rf"^outputs: no path leads from an input, parameter or constant to n{dead.id}$"
    ):
        mlgraph.Model(g, [x[0], dead])
    assert everything(g) == before and not g.sinks()


def test_a_dead_loss_is_refused():
    g = mlgraph.Graph()
    x = g.inputs(2)
    out, dead = (g.add_neuron(x, weights=[1, 2]) for _ in range(2))
    g.prune(dead)
    with pytest.raises(ValueError, match=rf"^loss: no path leads from an input, parameter or constant to n{dead.id}$"):
        mlgraph.Model(g, out, loss=dead)
    assert not g.sinks()


def test_outputs_that_are_the_loss_are_compiled_once(monkeypatch):
    compiled = []
    plan = running.Plan
    monkeypatch.setattr(running, "Plan", lambda *given, **more: compiled.append(given) or plan(*given, **more))
    g = mlgraph.Graph()
    model = mlgraph.Model(g, g.add_neuron(g.inputs(2), weights=[1, 2]))
    model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=1)
    model.predict(np.ones((4, 2)))
    assert len(compiled) == 1


COUNTS = {name: operator.attrgetter(name) for name in ("n_edges", "n_parameters", "sparsity")}
COUNTS["alive"] = lambda net: net.graph.alive().sum()


@pytest.mark.parametrize("count", COUNTS.values(), ids=COUNTS)
def test_to_count_waits_for_an_edit(count):
    net = mlgraph.Network(6, seed=0)
    net.add_layer(9)
    before = count(net)
    with net.graph.lock:
        thread, counted = waiting(net.graph, lambda: count(net))
        net.graph.prune([(net.graph[0], neuron) for neuron in net.layers[0]])
        assert not counted
    thread.join()
    assert counted == [count(net)] != [before]


def test_columns_that_only_the_loss_reads_may_be_missing():
    """To predict, of targets that are inputs; not where an output reads past them."""
    g = mlgraph.Graph()
    x, target, other = g.inputs(3)
    out = g.add_neuron([x], weights=[2.0])
    model = mlgraph.Model(g, out, loss=(out - target) ** 2)
    assert model.predict([[1, 7, 7], [2, 7, 7]]).tolist() == model.forward([[1], [2]])[:, 0].tolist() == [2, 4]
    for n in (0, 2, 4):
        with pytest.raises(ValueError, match=rf"^x: expected shape \(examples, 3\), got \(2, {n}\)"):
            model.predict(np.ones((2, n)))
    with pytest.raises(ValueError, match=r"^x: expected shape \(examples, 3\), got \(2, 1\)"):
        model.evaluate([[1], [2]])
    last = mlgraph.Model(g, other * 1.0)
    with pytest.raises(ValueError, match=r"^x: expected shape \(examples, 3\), got \(2, 1\)"):
        last.predict([[1], [2]])


@pytest.mark.parametrize(
    ("loss", "made"),
    [
        ("binary_cross_entropy", lambda g, h: g.add_neuron(h, "sigmoid")),
        ("binary_cross_entropy", lambda g, h: [h[0], mlgraph.sigmoid(h[1])]),
        ("softmax_cross_entropy", lambda g, h: g.softmax(h)),
    ],
)
def test_probabilities_are_no_logits(loss, made):
    """A sigmoid of a sigmoid learns next to nothing, and says so nowhere."""
    g = mlgraph.Graph()
    ends = made(g, [g.add_neuron(g.inputs(2), weights=[1, 2]) for _ in range(2)])
    before = len(g)
    with pytest.raises(
        ValueError, match=rf"^outputs: expected logits, because {loss} computes the s\w+ itself, .* probability$"
    ):
        mlgraph.Model(g, ends, loss=loss)
    assert len(g) == before
    others = {
        "softmax_cross_entropy": mlgraph.sigmoid,
        "binary_cross_entropy": lambda z: mlgraph.exp(z - mlgraph.logsumexp(z)),
    }
    ends = [others[loss](z) for z in (ends if isinstance(ends, list) else [ends, ends])]
    mlgraph.Model(g, ends, loss=loss)  # odd, and what it says
    a, b, c = g.inputs(3)
    mlgraph.Model(g, [mlgraph.exp(a - mlgraph.logsumexp(b, c)), ends[0]], loss=loss)  # of others: it may be above 1


def test_a_loss_that_depends_on_no_parameter_is_no_training():
    g = mlgraph.Graph()
    x, t, s = g.input(), g.input(), g.parameter(2.0)
    for model in (mlgraph.Model(g, s * x, loss=(x - t) ** 2), mlgraph.Model(g, x * 2)):
        with pytest.raises(ValueError, match=r"^fit: the loss depends on no weight or parameter"):
            model.fit([[1.0, 2.0]], () if model.loss == "node" else [3.0], epochs=1)
    assert (
        not g.is_training and mlgraph.Model(g, s * x, loss=(s * x - t) ** 2).fit([[1.0, 2.0]], epochs=1).epoch_loss == 0
    )


def test_data_without_targets_are_enough_whatever_is_cut():
    """Data have all columns or those that are read; any number in between is refused as ambiguous."""
    g = mlgraph.Graph()
    x, target = g.inputs(4), g.input()
    out = g.add_neuron(x, weights=[1.0, 2.0, 0.2, 0.1])
    model = mlgraph.Model(g, out, loss=(out - target) ** 2)
    model.prune(0.5)
    for n in (2, 4, 5):
        assert model.forward(np.ones((3, n))).tolist() == [[3], [3], [3]]
    for n in (1, 3, 6):
        with pytest.raises(ValueError, match=rf"^x: expected shape \(examples, 5\), got \(3, {n}\)"):
            model.forward(np.ones((3, n)))
    g.add_neuron([x[3]])  # which is no target for that
    with pytest.raises(ValueError, match=r"^x: expected shape \(examples, 5\), got \(3, 3\)"):
        model.forward(np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"^x: expected shape \(examples, 5\), got \(3, 4\)"):
        model.evaluate(np.ones((3, 4)))
    assert model.evaluate(np.ones((3, 5))) == {"loss": 4.0}


def test_a_network_needs_no_targets_of_another_model():
    """What trains, evaluates and shows it takes its own data, beside a model whose loss compares with inputs."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(0, 3, 40)
    alone, net = (mlgraph.Network(6, seed=0) for _ in range(2))
    for each in (alone, net):
        each.add_layer(5, "relu")
        each.add_layer(3, "softmax")
    targets = net.graph.inputs(3)
    errors = ((z - t) ** 2 for z, t in zip(net.outputs, targets, strict=True))
    beside = mlgraph.Model(net.graph, net.outputs, mlgraph.sum(*errors))
    hidden, first = alone.layers[0], net.layers[0]
    assert net.evaluate(x, y) == alone.evaluate(x, y) and net.ablate(first[0], x, y) == alone.ablate(hidden[0], x, y)
    gradients = net.gradients(x, y)
    np.testing.assert_array_equal(gradients.inputs, alone.gradients(x, y).inputs)
    assert gradients.of(net.graph[5]).all() and not gradients.of(targets[2]).any()
    np.testing.assert_array_equal(net.trace(x, y)[first[2]], alone.trace(x)[hidden[2]])
    for name in ("loss", "accuracy"):
        np.testing.assert_array_equal(net.ablation_table(first, x, y)[name], alone.ablation_table(hidden, x, y)[name])
        np.testing.assert_array_equal(net.inspect(x, y)[name], alone.inspect(x, y)[name])
    options = {"epochs": 3, "sparsify": mlgraph.RigL(0.3), "validation": (x, y)}
    assert net.fit(x, y, **options).validation_loss.tolist() == alone.fit(x, y, **options).validation_loss.tolist()
    for each in (alone, net):
        each.prune(0.5, by="saliency", data=(x, y))
    np.testing.assert_array_equal(net.layers[0].mask, alone.layers[0].mask)
    assert beside.fit(np.c_[x, np.eye(3)[y]], epochs=1).epoch_loss > 0
    with pytest.raises(ValueError, match=r"^x: expected shape \(examples, 9\), got \(40, 6\)"):
        beside.fit(x)


@pytest.mark.parametrize("last", ["softmax", "sigmoid", "identity"])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_gradients(last, n_threads):
    """Of the mean loss, against differences; edges in the order of the graph's, wherever weights have moved."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(70, 5)).astype(np.float32), rng.integers(0, 3, 70)
    net = mlgraph.Network(5, seed=0)
    net.add_layer(7, "tanh")
    net.add_layer(3, "identity" if last == "sigmoid" else last)
    loss = {} if last != "sigmoid" else {"loss": "binary_cross_entropy"}
    model = mlgraph.Model(net.graph, net.outputs, **loss) if loss else net
    y = labels if last == "softmax" else np.eye(3)[labels]
    model.prune(0.3)
    model.graph.add_edge(net.layers[0].neurons[0], net.layers[0].neurons[1], 0.5)
    found = model.gradients(x, y, n_threads=n_threads)
    before, moves = found.edges, net.graph.storage.moves
    assert not net.graph.storage.state, "what was added up is handed back, and not kept"
    net.graph.compile(net.layers[0].neurons[3:])  # lays out the parameters anew
    assert net.graph.storage.moves > moves
    np.testing.assert_array_equal(found.edges, before)
    parameters = net.graph.get_parameters()
    net.graph.set_parameters(np.arange(len(parameters)))  # which tells where each stands
    for neuron in [*net.layers[0], *net.layers[1]]:
        np.testing.assert_array_equal(found.flat[neuron.weights.astype(int)], found.of(neuron))
        assert found.flat[int(neuron.bias)] == found.of_bias(neuron)
    net.graph.set_parameters(parameters)
    edges = net.graph.edges()
    assert found.edges.shape == edges.weight.shape and found.inputs.shape == x.shape
    np.testing.assert_array_equal(found.values, model.forward(x))

    def slope(put, at, h=2e-3):
        sides = []
        for value in (at + h, at - h):
            put(value)
            sides.append(model.evaluate(x, y)["loss"])
        put(at)
        return (sides[0] - sides[1]) / (2 * h)

    for k in range(0, len(edges.weight), 5):
        edge = net.graph.edge(net.graph[int(edges.source[k])], net.graph[int(edges.target[k])])
        assert slope(lambda w, edge=edge: setattr(edge, "weight", w), edge.weight) == pytest.approx(
            found.edges[k], abs=2e-4
        )
        of = found.of(edge.target)[edge.target.sources.index(edge.source)]
        assert of == found.edges[k]
    for neuron in (net.layers[0].neurons[2], net.outputs[1]):
        want = slope(lambda b, neuron=neuron: setattr(neuron, "bias", b), neuron.bias)
        assert want == pytest.approx(found.of_bias(neuron), abs=2e-4)
    assert slope(lambda v: x.__setitem__((3, 2), v), float(x[3, 2]), 0.05) == pytest.approx(
        found.inputs[3, 2], abs=2e-5
    )
    net.layers[0].neurons[5].prune()
    with pytest.raises(ValueError, match="edges: the graph has been edited since these gradients were computed"):
        found.edges  # noqa: B018
    with pytest.raises(ValueError, match="flat: the graph has been edited since these gradients were computed"):
        found.flat  # noqa: B018


def test_a_criterion_of_ones_own_by_the_gradient():
    """What "saliency" does."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 6)), rng.integers(0, 3, 90)

    def network():
        net = mlgraph.Network(6, seed=0)
        net.add_layer(9, "tanh")
        net.add_layer(3, "softmax")
        return net

    by_name, by_hand = network(), network()
    by_name.prune(0.6, by="saliency", data=(x, y))
    by_hand.prune(0.6, by=lambda edges: np.abs(edges.weight * by_hand.gradients(x, y).edges))
    assert [layer.mask.tolist() for layer in by_hand.layers] == [layer.mask.tolist() for layer in by_name.layers]


def test_the_probabilities_at_a_temperature():
    """Of a model over logits that are divided by it; the network's own are those at 1."""
    rng = np.random.default_rng(0)
    net = mlgraph.Network(6, seed=0)
    net.add_layer(9, "tanh")
    net.add_layer(4, "softmax")
    net.layers[1].weights = 5 * net.layers[1].weights
    x = rng.normal(size=(50, 6)).astype(np.float32)
    soft = mlgraph.Model(net.graph, [z / 3 for z in net.outputs], loss="softmax_cross_entropy").predict_proba(x)
    for found, temperature in ((soft, 3), (net.predict_proba(x), 1)):
        e = np.exp(net.forward(x).astype(float) / temperature)
        np.testing.assert_allclose(found, e / e.sum(axis=1, keepdims=True), rtol=1e-5)
    assert not np.allclose(soft, net.predict_proba(x), atol=0.1)


@pytest.mark.parametrize("dropped", [{"dropout": 0.5}, {"weight_dropout": 0.5}], ids=str)
def test_dropout_is_of_its_network_alone(dropped):
    """Another model of the graph trains as if there were none, to the bit; the network itself does not."""
    rng, ends = np.random.default_rng(0), []
    x, y = rng.normal(size=(90, 6)), rng.integers(0, 3, 90)
    for options, by_itself in (({}, True), (dropped, False), (dropped, True)):
        net = mlgraph.Network(6, seed=0)
        net.add_layer(40, "tanh", **options)
        net.add_layer(3, "softmax")
        model = net if by_itself else mlgraph.Model(net.graph, net.outputs, "softmax_cross_entropy")
        model.fit(x, y, epochs=3, batch_size=30)
        ends.append(net.graph.get_parameters().tobytes())
    assert ends[0] == ends[1] != ends[2]


def test_a_graph_that_leads_back_to_its_model():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, g.add_neuron([g.input()], weights=[2.0]))
    g.of = model
    copies = [copy.deepcopy(model), copy.deepcopy(g).of, *(pickle.loads(pickle.dumps(model, p)) for p in range(6))]
    for other in copies:
        assert other.graph.of is other and other.graph.sinks() == g.sinks()
        assert other.forward([[3.0]]).tolist() == [[6.0]]


def test_what_is_predicted_is_compiled_as_if_there_were_no_loss():
    """Which of it the loss reads matters to adjoints alone: nothing stands apart for that."""
    g = mlgraph.Graph()
    outputs = [mlgraph.exp(x) for x in g.inputs(4)]
    model = mlgraph.Model(g, outputs, loss=outputs[0] ** 2)
    assert len(engine_of(model, model.output_ids).plan.instructions) == 1


def test_a_loss_that_an_output_is_equal_to():
    """Both are computed as one node, whichever came first."""
    g = mlgraph.Graph()
    h = g.add_neuron([g.input()], weights=[1.0])
    first, second = mlgraph.exp(h), mlgraph.exp(h)
    for output, loss in ((first, second), (second, first)):
        model = mlgraph.Model(g, [output, mlgraph.sin(h)], loss=loss)
        np.testing.assert_allclose(model.gradients([[1.0]]).flat, [np.e, np.e], rtol=1e-6)
