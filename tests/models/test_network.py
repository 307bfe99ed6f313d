"""Networks: how they are made, what training, evaluating and predicting give, what is refused."""

import pickle
from functools import partial

import numpy as np
import pytest
from learnable import CLASSES, FLOATS, INF, INPUTS, NAN, TARGETS, N, X, Y, bits, bytes_and_labels, network

import mlgraph
from mlgraph.engine import reference


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# --- making ---------------------------------------------------------------------------------------


def test_how_models_and_histories_look():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, [g.add_neuron(g.inputs(INPUTS))])
    assert repr(model) == "<Model of 12 inputs, 1 output, 12 edges: squared_error>"
    history = model.fit(FLOATS, TARGETS[:, :1], epochs=2)
    assert repr(history) == f"<History of 2 epochs, 4 batches, epoch loss {history.epoch_loss[-1]:.4g}>"
    validated = model.fit(FLOATS, TARGETS[:, :1], epochs=1, validation=(FLOATS, TARGETS[:, :1]))
    losses = f"epoch loss {validated.epoch_loss[-1]:.4g}, validation loss {validated.validation_loss[-1]:.4g}"
    assert repr(validated) == f"<History of 1 epochs, 2 batches, {losses}>"
    net = network()
    validated = net.fit(X, Y, epochs=1, validation=(X, Y))
    assert repr(validated).endswith(f", validation accuracy {validated.validation_accuracy[-1]:.4g}>")
    assert "<svg" in net._repr_svg_() and mlgraph.Network(3)._repr_svg_() is None


@pytest.mark.parametrize(
    "use",
    [
        lambda net: net.forward(X),
        lambda net: net.fit(X, Y),
        lambda net: net.evaluate(X, Y),
        lambda net: net.save("never"),
        lambda net: net.prune(0.5),
    ],
)
def test_a_network_needs_a_layer(use):
    with pytest.raises(ValueError, match=r"^network: expected at least one layer, got none; add_layer adds one"):
        use(mlgraph.Network(INPUTS))


def test_without_layers_there_is_nothing_to_count():
    net = mlgraph.Network(INPUTS)
    assert (net.n_edges, net.n_parameters, net.sparsity) == (0, 0, 0.0)
    net.graph.add_neuron([net.graph.parameter(1.0), net.graph[0]])
    assert (net.n_edges, net.n_parameters) == (0, 0) and repr(net) == f"<Network {INPUTS}: 0 edges>"


def test_targets_are_no_inputs_of_a_network(tmp_path):
    net = mlgraph.Network(INPUTS)
    net.graph.input("target")
    assert repr(net) == f"<Network {INPUTS}: 0 edges>"
    net.add_layer(2, "identity")
    net.graph.input("another")
    net.save(tmp_path / "net.npz")
    assert [repr(mlgraph.load(tmp_path / "net.npz")), repr(net.compact())] == [
        f"<Network {INPUTS}-2: {2 * INPUTS} edges>"
    ] * 2


def test_what_a_network_was_made_with_is_not_assigned():
    """It would look as if it had been changed, and be another network once saved."""
    net = network()
    for thing, name in (
        (net, "loss"),
        (net, "layers"),
        (net, "outputs"),
        *((net.layers[0], name) for name in ("activation", "neurons", "size")),
    ):
        with pytest.raises(AttributeError, match=name):
            setattr(thing, name, 0.5)
    assert isinstance(net.layers, tuple)


@pytest.mark.parametrize(
    "make",
    [
        lambda: mlgraph.Network(3).add_layer(1, "softmax"),
        lambda: (lambda g: mlgraph.Model(g, g.input(), loss="softmax_cross_entropy"))(mlgraph.Graph()),
    ],
    ids=["Network", "Model"],
)
def test_a_softmax_of_one_is_refused(make):
    """It is always certain, right, and learns nothing."""
    with pytest.raises(ValueError, match=": a softmax needs at least 2 outputs, got 1; for one yes-or-no question "):
        make()


def test_a_model_from_a_pickle_protects_its_outputs():
    net = pickle.loads(pickle.dumps(network()))
    assert net.graph.sinks() == network().graph.sinks()
    with pytest.raises(ValueError, match="is an output of a model"):
        net.outputs[0].prune()


# --- values ---------------------------------------------------------------------------------------


def test_values_of_a_classifier(sweep):
    net = network()
    net.fit(X, Y, epochs=2)
    z = net.forward(X)
    assert z.shape == (N, CLASSES) and z.dtype == np.float32
    hidden = FLOATS @ net.layers[0].weights.T + net.layers[0].biases
    hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    np.testing.assert_allclose(z, hidden @ net.layers[1].weights.T + net.layers[1].biases, atol=1e-5)
    p = net.predict_proba(X)
    assert p.shape == (N, CLASSES) and p.dtype == np.float32
    np.testing.assert_allclose(p, softmax(z), rtol=1e-5, atol=1e-7)
    predicted = net.predict(X)
    assert predicted.dtype == np.int64 and predicted.tolist() == z.argmax(axis=1).tolist()
    scores = net.evaluate(X, Y)
    assert scores["accuracy"] == (predicted == Y).mean()
    assert scores["loss"] == pytest.approx(-np.log(softmax(z.astype(float))[range(N), Y]).mean(), rel=1e-5)


def test_values_of_a_regression(sweep):
    net = network("tanh")
    z = net.forward(X)
    np.testing.assert_array_equal(net.predict(X), z)
    squares = ((z - TARGETS) ** 2).sum(axis=1)
    assert net.evaluate(X, TARGETS) == {"loss": pytest.approx(squares.mean(), rel=1e-5)}
    accuracy = (z.argmax(axis=1) == Y).mean()
    assert net.evaluate(X, Y) == {"loss": pytest.approx(squares.mean(), rel=1e-5), "accuracy": accuracy}
    with pytest.raises(
        ValueError, match=r"predict_proba: expected .* softmax_cross_entropy or binary_cross_entropy, got squ"
    ):
        net.predict_proba(X)


def test_labels_are_one_hot_targets():
    by_label, by_target = network("tanh"), network("tanh")
    histories = [by_label.fit(X, Y, epochs=2), by_target.fit(X, TARGETS, epochs=2)]
    assert bits(by_label) == bits(by_target)
    np.testing.assert_array_equal(histories[0].batch_loss, histories[1].batch_loss)
    assert np.isnan(histories[1].epoch_accuracy).all() and not np.isnan(histories[0].epoch_accuracy).any()


def test_one_output_has_targets_in_one_row():
    net = mlgraph.Network(INPUTS)
    net.add_layer(1, "identity")
    loss = ((net.forward(X)[:, 0] - Y) ** 2).mean()
    assert net.evaluate(X, Y) == net.evaluate(X, Y[:, None]) == {"loss": pytest.approx(loss, rel=1e-5)}


def test_a_node_is_its_own_loss():
    g = mlgraph.Graph()
    a, b = g.inputs(2)
    p = g.parameter(5.0)
    model = mlgraph.Model(g, [p * a], loss=(p - b) ** 2)
    data = np.array([[1, 2], [1, 4]])
    assert model.evaluate(data, ()) == {"loss": 5.0} and model.loss == "node"
    model.fit(data, epochs=200, learning_rate=0.05, momentum=0.0)
    assert p.value == pytest.approx(3, rel=1e-5)
    np.testing.assert_allclose(model.predict(data), [3, 3], rtol=1e-5)


def test_logits_from_an_iterator():
    g = mlgraph.Graph()
    model = mlgraph.Model(g, iter(g.inputs(3)), "softmax_cross_entropy")
    assert model.predict([[0, 2, 1]]) == [1] and model.predict_proba([[0, 0, 0]]).shape == (1, 3)


def test_bytes_of_zeros_and_ones():
    """Whoever means 0 and 1 hears of it; who has an image that is nearly black does not."""
    net, bits = network(), (X > 127).astype(np.uint8)
    for function in (partial(net.fit, epochs=1), net.evaluate):
        with pytest.warns(
            UserWarning, match=r"^x: bytes are read as byte / 255, and all are 0 or 1; to read them unchanged"
        ) as told:
            function(bits, Y)
        assert [warning.filename for warning in told] == [__file__]
    for fine in (X, 2 * bits, 0 * bits, bits.astype(np.float32), bits > 0):
        net.fit(fine, Y, epochs=1)
    net.draw(bits[0], Y[0])
    bright = np.concatenate([bits] * 40)
    bright[7] = 255  # of which a schedule sees a sample
    net.fit(bright, np.tile(Y, 40), epochs=1, sparsify=mlgraph.RigL(0.5))


# --- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "adam", "learning_rate": 0.02}, {"momentum": 0.0, "learning_rate": 0.5}], ids=str
)
def test_learning(last, options):
    net = network(last)
    before = net.evaluate(X, Y)
    history = net.fit(X, Y, **{"epochs": 30, "batch_size": 16, "learning_rate": 0.1, **options})
    after = net.evaluate(X, Y)
    assert after["loss"] < 0.1 * before["loss"] and after["accuracy"] == 1
    assert history.epoch_loss[-1] < 0.2 * history.epoch_loss[0]
    assert net.evaluate(*bytes_and_labels(seed=1))["accuracy"] > 0.97


@pytest.mark.parametrize("batch_size", [1, 7, N, 1000])
def test_a_step_is_the_mean_gradient(sweep, batch_size):
    """One epoch of plain descent, beside the float64 reference."""
    net = network()
    plan = mlgraph.compiler.plan.Plan(net.graph, [*net.output_ids, *net.loss_ids])
    w, losses = net.graph.parameters.astype(float), []
    for first in range(0, N, batch_size):
        part = slice(first, first + batch_size)
        these, gradient = reference.step(plan, w, X[part], net.loss, plan.slot[net.loss_ids], label=Y[part])
        losses.append(these.mean())
        w -= 0.02 * gradient
    history = net.fit(X, Y, epochs=1, batch_size=batch_size, learning_rate=0.02, momentum=0.0, shuffle=False)
    np.testing.assert_allclose(net.graph.parameters, w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(history.batch_loss, losses, rtol=1e-4, atol=1e-5)


def test_a_seed_fixes_everything():
    def run(seed=3, first=0, dropout=0.5, **options):
        net = network(seed=first, dropout=dropout)
        net.fit(X, Y, epochs=2, batch_size=50, seed=seed, **options)
        return bits(net)

    assert run() == run()
    assert run() != run(seed=4) and run() != run(first=1) and run(seed=2**64 - 1) != run(seed=0)
    assert run(dropout=0) == run(dropout=0) != run(dropout=0, seed=4), "it fixes the order of the examples"
    assert run(shuffle=False) == run(shuffle=False) != run(shuffle=False, seed=4), "it fixes what is dropped"


def test_without_chance_the_seed_is_nothing():
    nets = network(), network()
    for seed, net in enumerate(nets):
        net.fit(X, Y, epochs=2, shuffle=False, seed=seed)
    assert bits(nets[0]) == bits(nets[1])


def test_every_example_is_used_once_an_epoch():
    """Sums do not tell orders apart: with one step an epoch, shuffled and unshuffled gradients are the same."""
    nets = network(), network()
    for shuffle, net in enumerate(nets):
        net.fit(X, Y, epochs=1, batch_size=N, shuffle=bool(shuffle))
    np.testing.assert_allclose(nets[0].graph.parameters, nets[1].graph.parameters, rtol=1e-4, atol=1e-6)


def test_fit_goes_on_from_where_the_parameters_are():
    once, twice = network(), network()
    options = {"batch_size": 30, "learning_rate": 0.1, "momentum": 0.0, "shuffle": False}
    history = once.fit(X, Y, epochs=2, **options)
    parts = [twice.fit(X, Y, epochs=1, **options) for _ in range(2)]
    assert bits(once) == bits(twice)
    np.testing.assert_array_equal(history.batch_loss, np.concatenate([part.batch_loss for part in parts]))
    assert twice.history is parts[1]


def test_momentum_begins_anew():
    net, other = network(), network()
    net.fit(X, Y, epochs=1)
    other.forward(X)  # compiles, so that the parameters stand in the same places
    other.graph.parameters[:] = net.graph.parameters
    for each in (net, other):
        each.fit(X, Y, epochs=1)
    assert bits(net) == bits(other)


def test_no_state_of_another_optimizer_is_left():
    net = network()
    net.fit(X, Y, epochs=1, optimizer="adam")
    net.fit(X, Y, epochs=1, momentum=0.0)
    assert not net.graph.storage.state


# --- what is not finite ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_no_weight_hides_behind_a_zero(sweep, value):
    """Sources that are zero are skipped; but 0 * inf is NaN."""
    net = network()
    net.layers[0].neurons[3].weights[5] = value
    net.layers[0].neurons[9].weights[5] = -value
    plan = mlgraph.compiler.plan.Plan(net.graph, net.output_ids)
    with np.errstate(invalid="ignore"):
        want = reference.forward(plan, net.graph.parameters, X)
    for data in (X, FLOATS):
        np.testing.assert_allclose(net.forward(data), want[plan.slot[net.output_ids]].T, rtol=1e-5, atol=1e-6)
        assert np.isnan(net.forward(data)).any(axis=1).all()
