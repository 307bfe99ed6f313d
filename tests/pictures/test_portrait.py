"""Portraits of neurons, compared with the same numbers computed another way, and their pictures."""

import os

import numpy as np
import pytest

import mlgraph
from mlgraph.pictures import draw_portraits, neuron_portraits, portrait

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (80, 12), np.uint8)
Y = RNG.integers(0, 3, 80).astype(np.uint8)


@pytest.fixture
def net():
    net = mlgraph.Network(12, seed=0)
    net.add_layer(6, "tanh")
    net.add_layer(5, "sigmoid")
    net.add_layer(3, "softmax")
    net.fit(X, Y, epochs=3)
    net.graph.prune([(net.graph[k], net.layers[0].neurons[1]) for k in (0, 5, 11)])
    return net


def test_weights_of_edges_from_inputs_and_into_outputs(net):
    late = net.graph.add_input("late")  # its column is not its id
    net.graph.add_edge(late, net.layers[0][1], 0.5)
    data = np.column_stack([X, X[:, 0]])
    for p, neuron in zip(neuron_portraits(net, net.layers[0].neurons, data, Y), net.layers[0].neurons, strict=True):
        assert (p.neuron, p.reads_inputs, p.feeds_outputs, p.is_output) == (neuron, True, False, False)
        want = np.zeros(13)
        want[[12 if n == late else n.id for n in neuron.sources]] = neuron.weights
        np.testing.assert_array_equal(p.input_weights, want)
    for j, p in enumerate(neuron_portraits(net, net.layers[1].neurons, data, Y)):
        assert (p.reads_inputs, p.feeds_outputs) == (False, True)
        np.testing.assert_allclose(p.logit_weights, [out.weights[j] for out in net.outputs], rtol=1e-6)


def test_class_means_and_the_examples_with_the_highest_values(net):
    values = net.trace(X).of(net.layers[0].neurons).values
    for j, p in enumerate(neuron_portraits(net, net.layers[0].neurons, X, Y)):
        np.testing.assert_allclose(p.class_means, [values[c == Y, j].mean() for c in range(3)], rtol=1e-5)
        assert values[p.top_examples, j].tolist() == sorted(values[:, j], reverse=True)[:24]


def test_mean_derivatives_where_there_is_no_edge(net, monkeypatch):
    sample = 30
    monkeypatch.setattr(portrait, "SAMPLE", sample)
    neuron = net.layers[1].neurons[2]
    [p] = neuron_portraits(net, [neuron], X, Y)
    want = net.graph.compile(neuron).vjp(X[:sample] / 255).inputs.mean(axis=0)
    np.testing.assert_allclose(p.input_weights, want, rtol=1e-4, atol=1e-7)
    # The derivative of a logit with respect to a neuron of the first layer, by the chain rule.
    [p] = neuron_portraits(net, [net.layers[0].neurons[3]], X, Y)
    y = net.trace(X[:sample]).of(net.layers[1].neurons).values
    w = np.array([n.weights[3] for n in net.layers[1].neurons])
    out = np.array([n.weights for n in net.outputs])
    np.testing.assert_allclose(p.logit_weights, ((y * (1 - y) * w) @ out.T).mean(axis=0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("n", [1, 3])
def test_the_picture_shows_weights_and_images(net, tmp_path, n):
    drawn = neuron_portraits(net, net.layers[0].neurons[:n], X, Y)
    titles = [f"neuron {k}" for k in range(n)]
    for name in "ab":
        figure = draw_portraits(drawn, X, (3, 4), tmp_path / name, titles=titles, title="six neurons")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    shown = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(shown) == 2 * n and len(figure.axes) == (4 if n == 1 else 3 * n)
    for p, image, montage in zip(drawn, shown[::2], shown[1::2], strict=True):
        np.testing.assert_array_equal(image.get_array(), p.input_weights.reshape(3, 4))
        least, most = image.get_clim()
        assert -least == most == np.quantile(np.abs(p.input_weights), 0.998), "0 is white"
        assert image.axes.texts[0].get_text() == f"±{most:.2g}"
        for k, example in enumerate(p.top_examples[:2].tolist()):
            np.testing.assert_array_equal(montage.get_array()[:3, 4 * k : 4 * k + 4], X[example].reshape(3, 4))
    words = [text.get_text() for text in figure.texts]
    assert words[0] == "six neurons"
    assert "weight for each pixel" in words[1] and "mean derivative in the logit" in words[1]


def test_silent_neurons_and_outputs_can_be_drawn(net):
    net.layers[1].neurons[1].activation = "relu"
    net.layers[1].neurons[1].bias = -9.0
    figure = draw_portraits(neuron_portraits(net, net.layers[1].neurons[:2], X, Y), X, (3, 4))
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts[2] == [] and texts[5] == ["never active"]
    assert figure.axes[0].get_title(loc="left") == "1.0"
    drawn = neuron_portraits(net, net.outputs, X, Y)
    figure = draw_portraits(drawn, X, (3, 4))
    assert len(figure.axes) == 9 and "mean value for the images of each class" in figure.texts[1].get_text()
    for p, axes in zip(drawn, figure.axes[1::3], strict=True):
        assert p.is_output
        np.testing.assert_allclose([bar.get_width() for bar in axes.patches], p.class_means)


def test_mistakes(net):
    net.layers[0][0].prune()
    portraits = neuron_portraits(net, net.outputs, X, Y)
    for call, message in (
        (lambda: neuron_portraits(net.graph, net.outputs, X, Y), "net: expected a Network, got Graph"),
        (lambda: neuron_portraits(net, [], X, Y), "neurons: expected"),
        (lambda: neuron_portraits(net, [net.layers[0][0]], X, Y), "neurons: expected live neurons, got other nodes"),
        (lambda: neuron_portraits(net, [net.graph[0]], X, Y), "neurons: expected live neurons, got other nodes"),
        (lambda: neuron_portraits(net, net.outputs, X, Y[:3]), "y: expected 80 classes from 0 to 2"),
        (lambda: neuron_portraits(net, net.outputs, X, Y + 1), "y: expected 80 classes from 0 to 2"),
        (lambda: draw_portraits([], X, (3, 4)), "portraits: expected at least one"),
        (lambda: draw_portraits(portraits, X, (3, 3)), r"images: expected shape \(examples, 3 \* 3\), got \(80, 12\)"),
        (
            lambda: draw_portraits(portraits, X, (3, 4), titles=["a"]),
            "titles: expected 3, one for each portrait, got 1",
        ),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{message}"):
            call()


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_the_error_says_what_to_install(net):
    with pytest.raises(ImportError, match=r"a picture needs matplotlib .*: pip install "):
        draw_portraits(neuron_portraits(net, net.outputs, X, Y), X, (3, 4))
