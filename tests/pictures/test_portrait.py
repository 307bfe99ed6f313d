"""What a picture shows of neurons, against another way to find it out; and that it is drawn."""

import os

import numpy as np
import pytest

import mlgraph
from mlgraph.pictures import portrait

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (80, 12), np.uint8)
Y = RNG.integers(0, 3, 80).astype(np.uint8)


def network():
    net = mlgraph.Network(12, seed=0)
    net.add_layer(6, "tanh")
    net.add_layer(5, "sigmoid")
    net.add_layer(3, "softmax")
    net.fit(X, Y, epochs=3)
    net.graph.prune([(net.graph[k], net.layers[0].neurons[1]) for k in (0, 5, 11)])
    return net


def test_the_first_and_the_last_layer_show_their_weights():
    net = network()
    first = portrait.portraits(net, net.layers[0].neurons, X, Y)
    assert [(p.reads_inputs, p.feeds_outputs) for p in first] == [(True, False)] * 6
    for p, neuron in zip(first, net.layers[0].neurons, strict=True):
        assert p.neuron == neuron
        want = np.zeros(12)
        want[[n.id for n in neuron.sources]] = neuron.weights
        np.testing.assert_array_equal(p.input_weights, want)
    last = portrait.portraits(net, net.layers[1].neurons, X, Y)
    assert [(p.reads_inputs, p.feeds_outputs) for p in last] == [(False, True)] * 5
    for j, p in enumerate(last):
        np.testing.assert_allclose(p.logit_weights, [out.weights[j] for out in net.outputs], rtol=1e-6)


def test_what_a_neuron_does_for_each_class():
    net = network()
    values = net.trace(X).of(net.layers[0].neurons).values
    for j, p in enumerate(portrait.portraits(net, net.layers[0].neurons, X, Y)):
        np.testing.assert_allclose(p.class_means, [values[c == Y, j].mean() for c in range(3)], rtol=1e-5)
        assert len(p.top_examples) == portrait.SHOWN and not p.is_output
        assert values[p.top_examples, j].tolist() == sorted(values[:, j], reverse=True)[: portrait.SHOWN]


def test_neurons_that_are_never_active_and_outputs():
    """No image excites the one; the other is what is shown of others, its own weight in itself would say nothing."""
    net = network()
    net.layers[1].neurons[1].activation = "relu"
    net.layers[1].neurons[1].bias = -9.0
    figure = portrait.draw(portrait.portraits(net, net.layers[1].neurons[:2], X, Y), ["a", "b"], X, (3, 4))
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts[2] == [] and texts[5] == ["never active"]
    net.layers[0][0].weights = np.zeros(12)
    net.layers[0][0].bias = 0.0
    figure = portrait.draw(portrait.portraits(net, net.layers[0][:1], X, Y), ["a"], X, (3, 4))
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts[0] == texts[2] == ["±0"]
    drawn = portrait.portraits(net, net.outputs, X, Y)
    assert all(p.is_output and len(p.top_examples) == portrait.SHOWN for p in drawn)
    figure = portrait.draw(drawn, ["a", "b", "c"], X, (3, 4))
    assert len(figure.axes) == 9 and "its mean value for images of each class" in figure.texts[1].get_text()
    for p, axes in zip(drawn, figure.axes[1::3], strict=True):
        np.testing.assert_allclose([bar.get_width() for bar in axes.patches], p.class_means)
        assert axes.texts[0].get_text() == f"±{np.abs(p.class_means).max():.2g}"


@pytest.mark.parametrize("sample", [80, 30])
def test_what_is_further_away_is_a_mean_derivative(monkeypatch, sample):
    monkeypatch.setattr(portrait, "SAMPLE", sample)
    net = network()
    neuron = net.layers[1].neurons[2]
    [p] = portrait.portraits(net, [neuron], X, Y)
    want = net.graph.compile(neuron).vjp(X[:sample]).inputs.mean(axis=0)
    np.testing.assert_allclose(p.input_weights, want, rtol=1e-4, atol=1e-7)
    # The derivative of a logit for a neuron of the first layer, by the chain rule.
    [p] = portrait.portraits(net, [net.layers[0].neurons[3]], X, Y)
    y = net.trace(X[:sample]).of(net.layers[1].neurons).values
    w = np.array([n.weights[3] for n in net.layers[1].neurons])
    out = np.array([n.weights for n in net.outputs])
    np.testing.assert_allclose(p.logit_weights, ((y * (1 - y) * w) @ out.T).mean(axis=0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_drawing(tmp_path, n):
    net = network()
    drawn = portrait.portraits(net, net.layers[0].neurons[:n], X, Y)
    path = tmp_path / "a.png"
    figure = portrait.draw(drawn, [f"neuron {k}" for k in range(n)], X, (3, 4), path, title="six neurons")
    assert path.read_bytes().startswith(b"\x89PNG") and os.listdir(tmp_path) == ["a.png"]
    shown = [axes.images[0] for axes in figure.axes if axes.images]
    images = [image.get_array() for image in shown]
    assert len(images) == 2 * n and len(figure.axes) == (4 if n == 1 else 3 * n)
    for p, image in zip(drawn, shown[::2], strict=True):
        np.testing.assert_array_equal(image.get_array(), p.input_weights.reshape(3, 4))
        least, most = image.get_clim()
        assert -least == most == np.quantile(np.abs(p.input_weights), 0.998), "0 is white"
        assert image.axes.texts[0].get_text() == f"±{most:.2g}"
    for p, montage in zip(drawn, images[1::2], strict=True):
        for k, example in enumerate(p.top_examples[:2].tolist()):
            np.testing.assert_array_equal(montage[:3, 4 * k : 4 * k + 4], X[example].reshape(3, 4))
    words = [text.get_text() for text in figure.texts]
    assert words[0] == "six neurons"
    assert "its weight for each pixel" in words[1] and "its mean derivative in the logit" in words[1]


def test_the_same_picture_twice(tmp_path):
    net = network()
    drawn = portrait.portraits(net, net.layers[0].neurons, X, Y)
    for name in "ab":
        portrait.draw(drawn, ["x"] * 6, X, (3, 4), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib():
    with pytest.raises(ImportError, match=r"a picture needs matplotlib .*: pip install 'mlgraph\[app\]'"):
        portrait.draw([None], ["x"], X, (3, 4))


def test_an_input_that_came_later():
    """Its column is not its number."""
    net = network()
    late = net.graph.input("late")
    net.graph.add_edge(late, net.layers[0][1], 0.5)
    (found,) = portrait.portraits(net, [net.layers[0][1]], np.column_stack([X, X[:, 0]]), Y)
    assert found.input_weights.shape == (13,) and found.input_weights[12] == 0.5


def test_classes_are_named_where_there_is_room():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, panels = pyplot.subplots(1, 2)
    for axes, n in zip(panels, (30, 31), strict=True):
        portrait._bars(axes, np.ones(n), 5)
    assert [len(axes.get_yticks()) for axes in panels] == [30, 0]
    pyplot.close(figure)
