"""Networks: what they predict and how they learn, against numpy and the float64 reference."""

import numpy as np
import pytest
from learnable import CLASSES, FLOATS, INF, INPUTS, NAN, TARGETS, N, X, Y, bits, bytes_and_labels, network

import mlgraph
from mlgraph.compiler.plan import Plan
from mlgraph.engine import reference


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# --- making ---------------------------------------------------------------------------------------


def test_models_and_histories_describe_themselves():
    g = mlgraph.Graph(seed=0)
    model = mlgraph.Model(g, [g.add_neuron(g.add_inputs(INPUTS))])
    assert repr(model) == "<Model of 12 inputs, 1 output, 12 edges: squared_error>"
    net = network()
    history = net.fit(X, Y, epochs=1, validation_data=(X, Y), optimizer="sgd", learning_rate=0.05, batch_size=128)
    losses = f"epoch loss {history.epoch_loss[-1]:.4g}, validation loss {history.validation_loss[-1]:.4g}"
    accuracy = f"validation accuracy {history.validation_accuracy[-1]:.4g}"
    assert repr(history) == f"<History of 1 epochs, 2 batches, {losses}, {accuracy}>"
    assert "<svg" in net._repr_svg_() and mlgraph.Network(3, seed=0)._repr_svg_() is None


UNUSABLE = [("forward", X), ("fit", X, Y), ("evaluate", X, Y), ("save", "never"), ("prune", 0.5), ("compact",)]


@pytest.mark.parametrize(("name", "arguments"), [(name, arguments) for name, *arguments in UNUSABLE])
def test_network_without_layers_cannot_be_used(name, arguments):
    net = mlgraph.Network(INPUTS, seed=0)
    assert (net.n_edges, net.n_parameters, net.sparsity) == (0, 0, 0.0)
    net.graph.add_neuron([net.graph.add_parameter(1.0), net.graph[0]])
    assert (net.n_edges, net.n_parameters) == (0, 0)
    with pytest.raises(ValueError, match=r"^network: expected at least one layer, got none; add_layer adds one"):
        getattr(net, name)(*arguments)


def test_inputs_added_later_are_not_inputs_of_the_layers(tmp_path):
    net = mlgraph.Network(INPUTS, seed=0)
    net.graph.add_input("target")
    assert repr(net) == f"<Network {INPUTS}: 0 edges>"
    net.add_layer(2, "identity")
    net.graph.add_input("another")
    net.save(tmp_path / "net.npz")
    for model in (net, net.compact(), mlgraph.load(tmp_path / "net.npz")):
        assert repr(model) == f"<Network {INPUTS}-2: {2 * INPUTS} edges>"


@pytest.mark.parametrize("name", ["loss", "layers", "outputs", "activation", "neurons", "size"])
def test_attributes_that_training_relies_on_are_read_only(name):
    net = network()
    with pytest.raises(AttributeError, match=name):
        setattr(net if hasattr(net, name) else net.layers[0], name, 0.5)
    assert isinstance(net.layers, tuple)


def test_softmax_of_one_output_is_refused():
    """It is always certain and learns nothing."""
    message = ": a softmax needs at least 2 outputs, got 1; for one yes-or-no question "
    with pytest.raises(ValueError, match=message):
        mlgraph.Network(3, seed=0).add_layer(1, "softmax")
    g = mlgraph.Graph(seed=0)
    with pytest.raises(ValueError, match=message):
        mlgraph.Model(g, g.add_input(), loss="softmax_cross_entropy")


# --- values ---------------------------------------------------------------------------------------


def test_values_of_a_classifier(sweep):
    net = network()
    net.fit(X, Y, epochs=2)
    z = net.forward(X)
    assert z.shape == (N, CLASSES) and z.dtype == np.float32
    hidden = FLOATS @ net.layers[0].weights.T + net.layers[0].biases
    hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    np.testing.assert_allclose(z, hidden @ net.layers[1].weights.T + net.layers[1].biases, atol=1e-5)
    p, predicted, scores = net.predict_proba(X), net.predict(X), net.evaluate(X, Y)
    np.testing.assert_allclose(p, softmax(z), rtol=1e-5, atol=1e-7)
    assert (p.dtype, predicted.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(predicted, z.argmax(axis=1))
    assert scores["accuracy"] == (predicted == Y).mean()
    assert scores["loss"] == pytest.approx(-np.log(softmax(z.astype(float))[range(N), Y]).mean(), rel=1e-5)


def test_values_of_a_regression(sweep):
    net = network("tanh")
    z = net.forward(X)
    np.testing.assert_array_equal(net.predict(X), z)
    loss = pytest.approx(((z - TARGETS) ** 2).sum(axis=1).mean(), rel=1e-5)
    assert net.evaluate(X, TARGETS) == {"loss": loss}
    assert net.evaluate(X, Y) == {"loss": loss, "accuracy": (z.argmax(axis=1) == Y).mean()}
    with pytest.raises(
        ValueError, match=r"predict_proba: expected .* softmax_cross_entropy or binary_cross_entropy, got squ"
    ):
        net.predict_proba(X)


def test_bytes_with_larger_numbers_cause_no_warning():
    """Warnings are errors here; bytes that are all 0 or 1 would cause one."""
    net, bits = network(), (X > 127).astype(np.uint8)
    for fine in (X, 2 * bits, 0 * bits, bits.astype(np.float32), bits > 0):
        net.fit(fine, Y, epochs=1)
    net.predict(bits[:1])
    net.draw(bits[0], Y[0])
    bright = np.concatenate([bits] * 40)
    bright[7] = 255
    net.fit(bright, np.tile(Y, 40), epochs=1, sparsify=mlgraph.RigL(0.5))  # which reads a sample


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_zero_times_infinity_is_nan(sweep, value):
    """Kernels skip sources that are zero, except where a weight is not finite."""
    net = network()
    for i, number in ((3, value), (9, -value)):  # past the check, which refuses NaN
        net.graph._memory_of(net.layers[0].ids[i])[5] = number
    plan = Plan(net.graph, net.output_ids)
    with np.errstate(invalid="ignore"):
        want = reference.forward(plan, net.graph.parameters, X)[plan.slot[net.output_ids]].T
    assert np.isnan(want).any(axis=1).all()
    for data in (X, FLOATS):
        np.testing.assert_allclose(net.forward(data), want, rtol=1e-5, atol=1e-6)


# --- learning -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:y. labels are learnt as targets")
@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "adam", "learning_rate": 0.02}, {"momentum": 0.0, "learning_rate": 0.5}], ids=str
)
def test_network_learns(last, options):
    net = network(last)
    before = net.evaluate(X, Y)
    history = net.fit(X, Y, **{"epochs": 30, "batch_size": 16, "learning_rate": 0.1, **options})
    after = net.evaluate(X, Y)
    assert after["loss"] < 0.1 * before["loss"] and after["accuracy"] == 1
    assert history.epoch_loss[-1] < 0.2 * history.epoch_loss[0]
    assert net.evaluate(*bytes_and_labels(seed=1))["accuracy"] > 0.97


@pytest.mark.parametrize("batch_size", [1, 7, N, 1000])
def test_epoch_of_plain_descent_matches_the_reference(sweep, batch_size):
    net = network()
    plan = Plan(net.graph, [*net.output_ids, *net.loss_ids])
    w, losses = net.graph.parameters.astype(float), []
    for first in range(0, N, batch_size):
        part = slice(first, first + batch_size)
        these, gradient = reference.step(plan, w, X[part], net.loss, plan.slot[net.loss_ids], label=Y[part])
        losses.append(these.mean())
        w -= 0.02 * gradient
    history = net.fit(
        X, Y, epochs=1, batch_size=batch_size, learning_rate=0.02, momentum=0.0, shuffle=False, optimizer="sgd"
    )
    np.testing.assert_allclose(net.graph.parameters, w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(history.batch_loss, losses, rtol=1e-4, atol=1e-5)


def test_seeds_determine_the_result():
    def run(seed=3, first=0, dropout=0.5, shuffle=True):
        net = network(seed=first, dropout=dropout)
        net.fit(X, Y, epochs=2, batch_size=50, seed=seed, shuffle=shuffle)
        return bits(net)

    assert run() == run()
    assert run() != run(seed=4) and run() != run(first=1) and run(seed=2**64 - 1) != run(seed=0)
    assert run(dropout=0) != run(dropout=0, seed=4), "the seed determines the order of the examples"
    assert run(shuffle=False) != run(shuffle=False, seed=4), "the seed determines what is dropped"
    assert run(dropout=0, shuffle=False) == run(dropout=0, shuffle=False, seed=4)


def test_fit_continues_from_the_current_parameters():
    once, twice = network(), network()
    options = {"batch_size": 30, "learning_rate": 0.1, "momentum": 0.0, "shuffle": False, "optimizer": "sgd"}
    history = once.fit(X, Y, epochs=2, **options)
    parts = [twice.fit(X, Y, epochs=1, **options) for _ in range(2)]
    assert bits(once) == bits(twice) and twice.history is parts[1]
    np.testing.assert_array_equal(history.batch_loss, np.concatenate([part.batch_loss for part in parts]))


@pytest.mark.parametrize("first", [{}, {"optimizer": "adam"}], ids=str)
def test_fit_starts_without_state_of_an_earlier_run(first):
    net, other = network(), network()
    net.fit(X, Y, epochs=1, **first)
    other.forward(X)  # compiles, so that the parameters stand in the same places
    other.graph.storage.vector[:] = net.graph.parameters
    for each in (net, other):
        each.fit(X, Y, epochs=1, optimizer="sgd", learning_rate=0.05, batch_size=128, seed=0)
    assert bits(net) == bits(other)
    net.fit(X, Y, epochs=1, momentum=0.0, optimizer="sgd", learning_rate=0.05, batch_size=128)
    assert not net.graph.storage.state


def three_layers():
    net = mlgraph.Network(4, seed=0)
    return net, [net.add_layer(size, name) for size, name in ((3, "tanh"), (3, "softmax"), (2, "relu"))]


def jump(net, layers):
    net.graph.add_edge(net.graph[0], layers[2][0])


def within(net, layers):
    net.graph.add_edge(layers[0][0], layers[0][1])


def activate(net, layers):
    layers[0][1].activation = "relu"


def read_a_logit(net, layers):
    net.graph.add_edge(layers[1][0], layers[2][1])


def read_a_new_neuron(net, layers):
    net.graph.add_edge(net.graph.add_neuron([net.graph[0]]), layers[0][1])


@pytest.mark.parametrize("edit", [jump, within, activate, read_a_logit, read_a_new_neuron])
def test_whether_layers_describe_the_whole_network(edit):
    net, layers = three_layers()
    layers[0][0].in_edges[1].prune()
    net.widen(layers[0])
    assert net.is_layered and "not layered" not in repr(net)
    edit(net, layers)
    assert not net.is_layered and repr(net).endswith("not layered>")
    net.undo()
    assert net.is_layered


def test_repr_says_how_many_neurons_are_alive():
    net = mlgraph.Network(4, seed=0)
    hidden, _ = net.add_layer(3), net.add_layer(2, "softmax")
    net.graph.prune(hidden[1:])
    assert repr(net) == "<Network 4-3-2: 6 edges; 1 of 3 neurons of layer 0 alive>"
