"""`Network.widen`: a layer gains neurons, and everything that uses layers takes them into account."""

import copy
import pickle

import numpy as np
import pytest
from editable import X, Y, everything, network
from locks import waiting

import mlgraph
from mlgraph.graph.storage import PANEL


def made_as(net):
    """A network with the same parameters that was made with these sizes."""
    made = mlgraph.Network(12, seed=0)
    for layer in net.layers:
        made.add_layer(layer.size, layer.activation)
    for mine, theirs in zip(made.layers, net.layers, strict=True):
        mine.weights, mine.biases = theirs.weights, theirs.biases
    return made


def test_new_neurons_change_no_output_and_learn_like_others():
    net = network()
    logits, (_, second, last) = net.forward(X), net.layers
    new = net.widen(second, 2)
    assert repr(net) == "<Network 12-20-11-3: 493 edges>" and new == second[9:] and net.sparsity == 0
    assert [(n.activation, n.bias) for n in new] == [("leaky_relu", 0)] * 2
    assert np.std(second.weights[9:]) == pytest.approx(60**-0.5, rel=0.3)  # as in a new layer
    assert last.mask.all() and not last.weights[:, 9:].any()
    np.testing.assert_allclose(net.forward(X), logits, atol=1e-6)
    made = made_as(net)
    one, other = (n.fit(X, Y, epochs=3, batch_size=16, learning_rate=0.1, seed=0) for n in (net, made))
    np.testing.assert_allclose(one.epoch_loss, other.epoch_loss, rtol=1e-5)
    np.testing.assert_allclose(net.layers[2].weights, made.layers[2].weights, rtol=1e-3, atol=1e-5)


def test_widening_can_be_undone():
    net = network()
    before = everything(net.graph)
    net.widen(net.layers[1], 2)
    net.undo()
    assert everything(net.graph) == before and repr(net) == "<Network 12-20-9-3: 447 edges>"
    other = net.graph.add_neuron([net.graph[0]], weights=[1])  # which gets the id of a removed neuron
    assert other not in net.layers[1].neurons and net.layers[2].weights.shape == (3, 9)


def test_the_weights_follow_from_the_seed_and_the_size_of_the_graph():
    def widened(net, **options):
        return [n.weights.tolist() for n in net.widen(net.layers[0], 2, **options)]

    net = network()
    first = widened(net, seed=0)
    net.undo()
    assert widened(net, seed=0) == first and first[0] != first[1] and widened(net, seed=0) != first
    assert widened(network(), seed=1) != first


def test_a_wider_layer_is_computed_as_one_block():
    net = network()
    net.widen(net.layers[0], 12)
    net.evaluate(X, Y)
    records = [net.graph._data[n.id] for n in net.layers[0]]
    assert [net.graph.storage.weights[r] % PANEL for r in records] == [k % PANEL for k in range(32)]
    assert len({net.graph._start[n.id] for n in net.layers[1]}) == 1


def test_everything_that_uses_layers_knows_new_neurons(tmp_path):
    net = network()
    new = net.widen(net.layers[0], 4)
    table = net.inspect(X, Y)
    assert table[table["node"] == new[1].id][["layer", "index"]].tolist() == [(0, 21)]
    assert len(net.ablation_table(new, X, Y)) == 4
    for neuron in new:
        for edge in neuron.out_edges:
            edge.weight = 0.1 * edge.target.id
    made = made_as(net)
    for one in (made, net):
        one.prune(0.5, block=4)
    assert all((one.mask == other.mask).all() for one, other in zip(made.layers, net.layers, strict=True))
    net.undo()
    new[1].prune()
    net.prune(0.2)
    net.regrow(1.0)
    assert net.layers[0].mask[[20, 22, 23]].all() and not net.layers[0].mask[21].any()
    net.save(tmp_path / "model.npz")
    for twin in (
        copy.deepcopy(net),
        pickle.loads(pickle.dumps(net)),
        net.compact(),
        mlgraph.load(tmp_path / "model.npz"),
    ):
        np.testing.assert_allclose(twin.predict_proba(X), net.predict_proba(X), rtol=1e-5)
        assert twin.layers[0].size in (23, 24)
    net.layers[0].dropout = 0.5
    assert net.fit(X, Y, epochs=1).epoch_loss[0] > 0
    net.layers[0][22].weights = np.full(12, 1e38)
    net.layers[0][22].out_edges[0].weight = 1e38
    with pytest.raises(mlgraph.NonFiniteError, match="layer 0 neuron 22"):
        net.fit(X, Y, epochs=1, seed=0)


@pytest.mark.parametrize("schedule", [mlgraph.GradualPruning, mlgraph.SET, mlgraph.RigL])
def test_a_run_that_widens_a_layer_resumes_with_the_same_bits(schedule, tmp_path):
    def run(last_epoch, path):
        def callback(progress):
            if progress.kind == "epoch" and progress.epoch in (2, 4):
                net.widen(net.layers[0], 3)
            if progress.kind == "epoch" and progress.epoch == last_epoch:
                raise KeyboardInterrupt

        net, options = network(), {"epochs": 6, "batch_size": 16, "learning_rate": 0.05, "optimizer": "adam"}
        sparsify = schedule(0.5, updates=5, until=0.9)
        net.fit(
            X, Y, callbacks=[callback] if callback else None, sparsify=sparsify, checkpoint=path, resume=True, **options
        )
        return net

    whole = run(None, tmp_path / "whole.npz")
    with pytest.raises(KeyboardInterrupt):
        run(3, tmp_path / "run.npz")
    resumed = run(None, tmp_path / "run.npz")
    assert [layer.size for layer in resumed.layers] == [26, 9, 3] and resumed.layers[1].weights.shape == (9, 26)
    assert resumed.graph.get_parameters().tobytes() == whole.graph.get_parameters().tobytes()
    assert [n.id for n in resumed.layers[0]] == [n.id for n in whole.layers[0]] == [*range(12, 32), *range(55, 61)]


@pytest.mark.parametrize("name", ["weights", "mask", "biases"])
def test_a_layer_can_be_read_while_another_thread_widens_it(name):
    net = network()
    layer = net.layers[1]
    with net.graph.lock:
        thread, found = waiting(net.graph, lambda: getattr(layer, name).shape)
        net.widen(layer, 2)
        net.widen(net.layers[0], 4)
    thread.join()
    assert found == [getattr(layer, name).shape]


def test_new_neurons_read_and_feed_only_live_ones():
    net = network()
    net.layers[0][3].prune()
    net.layers[1][5].prune()
    (new,) = net.widen(net.layers[1])
    assert new.sources == [n for n in net.layers[0] if n.alive] and len(new.sources) == 19
    (other,) = net.widen(net.layers[0])
    assert other.targets == [n for n in net.layers[1] if n.alive] and len(other.targets) == 9


@pytest.mark.parametrize("schedule", [mlgraph.SET, mlgraph.RigL])
def test_dead_new_neurons_grow_edges_again(schedule):
    """Their ids are above those of their former readers, but no edge leads back any more."""
    net = network()
    net.graph.prune(net.widen(net.layers[1], 2))
    net.fit(X, Y, epochs=1, sparsify=schedule(0.0, updates=1))
    assert net.n_edges == 12 * 20 + 20 * 11 + 11 * 3 and all(n.alive for n in net.layers[1])


def test_layers_that_cannot_be_widened():
    net = mlgraph.Network(2, seed=0)
    for size, activation in ((2, "tanh"), (3, "softmax"), (2, "tanh"), (3, "softmax")):
        net.add_layer(size, activation, bias=False)
    assert net.widen(net.layers[0])[0].bias is None
    before, stranger = everything(net.graph), copy.deepcopy(net).layers[0]
    for layer in (net.layers[1], net.layers[3], stranger):
        with pytest.raises(ValueError, match="layer: expected a hidden layer of neurons of the network, got another"):
            net.widen(layer)
    with pytest.raises(TypeError, match="layer: expected a hidden layer of neurons, got int"):
        net.widen(0)
    assert everything(net.graph) == before
    for output in net.outputs:
        net.graph.add_edge(net.graph[0], output)
    net.graph.prune(net.layers[0])
    with pytest.raises(ValueError, match="layer: both neighbouring layers need a live neuron"):
        net.widen(net.layers[2])


def test_widening_that_would_make_a_cycle_changes_nothing():
    net = mlgraph.Network(2, seed=0)
    for size in (2, 2, 2, 2):
        net.add_layer(size, "tanh")
    first, behind = net.layers[0][0], net.layers[2][0]
    net.graph.add_edge(first, net.outputs[0])
    net.graph.prune([(first, target) for target in net.layers[1]])
    net.graph.add_edge(behind, first)
    before, sizes = everything(net.graph), repr(net)
    with pytest.raises(mlgraph.CycleError, match="widen: "):
        net.widen(net.layers[1])
    assert everything(net.graph) == before and repr(net) == sizes and net.layers[2].weights.shape == (2, 2)
    net.widen(net.layers[2])
