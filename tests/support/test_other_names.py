"""Errors for names of other libraries say what they are called here."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import mlgraph

X, Y = np.eye(4, dtype=np.float32), [0, 1, 0, 1]


@pytest.fixture
def net():
    net = mlgraph.Network(4, seed=0)
    net.add_layer(3)
    net.add_layer(2, "softmax")
    return net


@pytest.mark.parametrize(
    ("guess", "error", "message"),
    [
        (lambda net: net.fit(X, Y, lr=0.1), TypeError, "fit: there is no argument 'lr'; here it is learning_rate"),
        (lambda net: net.fit(X, Y, max_iter=9), TypeError, "fit: .* 'max_iter'; here it is epochs"),
        (
            lambda net: net.fit(X, Y, learning_rat=9),
            TypeError,
            "^fit: .* 'learning_rat'; did you mean learning_rate\\?$",
        ),
        (lambda net: net.fit(X, Y, colour=9), TypeError, "^fit: there is no argument 'colour'$"),
        (lambda net: net.add_layer(2, dropuot=0.5), TypeError, r"^add_layer: .* 'dropuot'; did you mean dropout\?$"),
        (lambda net: net.prune(sparsty=0.5), TypeError, r"^prune: .* 'sparsty'; did you mean sparsity\?$"),
        (lambda net: net.regrow(0.5, scop="layer"), TypeError, r"^regrow: .* 'scop'; did you mean scope\?$"),
        (lambda net: mlgraph.Population([net]).fit(X, Y, epoch=9), TypeError, r"^fit: .* did you mean epochs\?$"),
        (lambda net: mlgraph.Population([net]).fit(X, Y, lr=9), TypeError, "^fit: .* 'lr'; here it is learning_rate$"),
        (lambda net: net.add_layer(2, use_bias=False), TypeError, "add_layer: .* 'use_bias'; here it is bias"),
        (lambda net: mlgraph.Network(input_dim=3), TypeError, "Network: .* 'input_dim'; here it is n_inputs"),
        (lambda net: mlgraph.Network(3, loss="mse"), TypeError, "'loss'; here it is an argument of the last layer"),
        (lambda net: mlgraph.Network(3, hidden=[4]), TypeError, "'hidden'; here it is added with add_layer"),
        (lambda net: mlgraph.EarlyStopping(restore_best_weights=True), TypeError, "here it is restore_best$"),
        (lambda net: mlgraph.EarlyStopping("val_loss"), ValueError, "'val_loss'; did you mean validation_loss"),
        (lambda net: mlgraph.EarlyStopping("val_accuracy"), ValueError, "here it is validation_accuracy"),
        (lambda net: net.add_layer(2, "linear"), ValueError, "got 'linear'; here it is identity"),
        (lambda net: net.add_layer(2, "ReLU"), ValueError, "got 'ReLU'; did you mean relu"),
        (lambda net: net.fit(X, Y, optimizer="Adam"), ValueError, "got 'Adam'; did you mean adam"),
        (lambda net: net.layers[0].get_weights(), AttributeError, "'Layer' object .* here it is weights and biases"),
        (lambda net: setattr(net.layers[0], "trainable", False), AttributeError, "here it is frozen = True"),
        (lambda net: net.layers[0][0].trainable, AttributeError, "here it is frozen = True"),
        (lambda net: net.layers[0][0].edges, AttributeError, "here it is in_edges or out_edges"),
        (lambda net: net.summary(), AttributeError, "here it is print"),
        (lambda net: net.graph.input("x"), AttributeError, "'Graph' object .* here it is add_input"),
        (lambda net: mlgraph.History().history, AttributeError, "here it is the history itself"),
        (lambda net: mlgraph.load_model, AttributeError, r"here it is mlgraph\.load"),
    ],
)
def test_a_name_of_another_library_is_an_error_with_ours(net, guess, error, message):
    before = net.graph.get_parameters(), len(net.graph)
    with pytest.raises(error, match=message):
        guess(net)
    assert np.array_equal(net.graph.get_parameters(), before[0]) and len(net.graph) == before[1]


def test_a_missing_attribute_is_an_ordinary_attribute_error(net):
    for thing in (net, net.graph, net.layers[0], net.outputs[0], net.outputs[0].in_edges[0]):
        assert not hasattr(thing, "nothing_like_this")
        with pytest.raises(AttributeError, match=r"has no attribute 'nothing_like_this'$") as caught:
            thing.nothing_like_this  # noqa: B018
        assert (caught.value.name, caught.value.obj) == ("nothing_like_this", thing)
    for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(made.predict_proba(X), net.predict_proba(X))


def test_signatures_are_those_of_the_functions_themselves():
    for function in (mlgraph.Model.fit, mlgraph.Model.prune, mlgraph.Network.add_layer, mlgraph.EarlyStopping):
        assert "kwargs" not in inspect.signature(function).parameters


def test_a_hook_for_two_arguments_is_refused_before_the_run(net):
    class Foreign(mlgraph.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise AssertionError

    class Ours(mlgraph.Callback):
        def on_epoch_end(self, progress, /, *, more=None):
            pass

    net.fit(X, Y, epochs=1, callbacks=[Ours()])
    before = net.graph.get_parameters()
    with pytest.raises(TypeError, match=r"^callbacks: Foreign\.on_epoch_end: expected one argument, progress, after"):
        net.fit(X, Y, epochs=1, callbacks=[Foreign()])
    np.testing.assert_array_equal(net.graph.get_parameters(), before)


@pytest.mark.parametrize("verbose", [0, 1])
def test_verbose_may_be_a_number(net, verbose, capsys):
    net.fit(X, Y, epochs=1, verbose=verbose)
    assert bool(capsys.readouterr().out) == bool(verbose)


def test_print_shows_the_layers(net):
    net.layers[0].dropout = 0.25
    net.graph.prune(net.layers[0][1].in_edges[:2])
    assert str(net).splitlines() == [
        "<Network 4-3-2: 16 edges>",
        "layer  neurons  activation  dropout  edges  parameters",
        "    0        3  leaky_relu     0.25     10          13",
        "    1        2     softmax               6           8",
    ]
    assert repr(net) == "<Network 4-3-2: 16 edges>"
