"""Neurons that a layer gains: what they read, who reads them, and that all who know of layers know of them."""

import copy
import pickle

import numpy as np
import pytest
from editable import X, Y, everything, network
from locks import waiting

import mlgraph
from mlgraph.graph.storage import PANEL


def made_as(net):
    """A network that was made as wide, with the same parameters."""
    made = mlgraph.Network(12, seed=0)
    for layer in net.layers:
        made.add_layer(layer.size, layer.activation)
    for mine, theirs in zip(made.layers, net.layers, strict=True):
        mine.weights, mine.biases = theirs.weights, theirs.biases
    return made


def test_a_wider_layer():
    """It says what the narrow one said, and learns as one that was made so."""
    net = network()
    before, logits = everything(net.graph), net.forward(X)
    _, second, last = net.layers
    new = net.widen(second, 2)
    assert (
        repr(net) == "<Network 12-20-11-3: 493 edges>"
        and new == second[9:] == second.neurons[-2:]
        and net.n_edges == 493
    )
    assert second.weights.shape == (11, 20) and last.weights.shape == (3, 11) and not last.weights[:, 9:].any()
    assert (
        {n.activation for n in new} == {"leaky_relu"} and [n.bias for n in new] == [0, 0] and second.weights[9:].all()
    )
    assert np.std(second.weights[9:]) == pytest.approx(60**-0.5, rel=0.3) and last.mask.all() and net.sparsity == 0
    assert [e.target for e in new[0].out_edges] == net.outputs and net.gradients(X, Y).of(new[0]).shape == (20,)
    np.testing.assert_allclose(net.forward(X), logits, atol=1e-6)
    made = made_as(net)
    one, other = (n.fit(X, Y, epochs=3, batch_size=16, learning_rate=0.1) for n in (net, made))
    np.testing.assert_allclose(one.epoch_loss, other.epoch_loss, rtol=1e-5)
    np.testing.assert_allclose(net.layers[2].weights, made.layers[2].weights, rtol=1e-3, atol=1e-5)
    fresh = network()
    fresh.widen(fresh.layers[1], 2)
    fresh.undo()
    assert everything(fresh.graph) == before and repr(fresh) == "<Network 12-20-9-3: 447 edges>"
    again = fresh.graph.add_neuron([fresh.graph[0]], weights=[1])  # which has the number of what went
    assert again not in fresh.layers[1].neurons and fresh.layers[2].weights.shape == (3, 9)


def test_it_is_computed_as_one_block():
    net = network()
    net.widen(net.layers[0], 12)
    net.evaluate(X, Y)
    places = net.graph.storage.weights
    records = [net.graph._data[n.id] for n in net.layers[0]]
    assert [places[r] % PANEL for r in records] == [k % PANEL for k in range(32)]
    assert len({net.graph._start[n.id] for n in net.layers[1]}) == 1


def test_all_that_know_of_layers():
    """Names, tables, masks, dropout, pruning and growth by layers and blocks, compact copies, files."""
    net = network()
    net.widen(net.layers[0], 4)
    new = net.layers[0][21]
    table = net.inspect(X, Y)
    assert table[table["node"] == new.id][["layer", "index"]].tolist() == [(0, 21)]
    assert np.bincount(table["layer"]).tolist() == [24, 9, 3]
    new.weights, new.out_edges[0].weight = np.full(12, 1e38), 1e38
    with pytest.raises(mlgraph.NonFiniteError, match="layer 0 neuron 21"):
        net.fit(X, Y, epochs=1)
    for neuron in net.layers[0][20:]:
        for edge in neuron.out_edges:
            edge.weight = 0.1 * edge.target.id
    made = made_as(net)
    for one in (made, net):
        one.prune(0.5, block=4)
    assert all((one.mask == other.mask).all() for one, other in zip(made.layers, net.layers, strict=True))
    net.undo()
    new.prune()
    assert not net.layers[0].mask[21].any() and not net.layers[1].mask[:, 21].any()
    assert len(net.ablation_table(net.layers[0][20:], X, Y)) == 4
    net.prune(0.2)
    net.regrow(1.0)
    assert net.layers[0].mask[[20, 22, 23]].all() and not net.layers[0].mask[21].any()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.compact()):
        np.testing.assert_allclose(twin.predict_proba(X), net.predict_proba(X), rtol=1e-5)
    assert [layer.size for layer in net.compact().layers] == [23, 9, 3]
    net.layers[0].dropout = 0.5
    assert net.fit(X, Y, epochs=1).epoch_loss[0] > 0 and repr(net).startswith("<Network 12-24-9-3")


@pytest.mark.parametrize("schedule", [mlgraph.GradualPruning, mlgraph.SET, mlgraph.RigL])
def test_widening_while_it_is_trained(schedule, tmp_path):
    """Edges of the new neurons may be cut and moved; a run that goes on from a checkpoint ends with the same bits."""

    def run(net, callback, **options):
        return net.fit(
            X,
            Y,
            epochs=6,
            batch_size=16,
            learning_rate=0.05,
            optimizer="adam",
            callback=callback,
            sparsify=schedule(0.5, updates=5, until=0.9),
            checkpoint=tmp_path / "run.npz",
            **options,
        )

    def widen_once(net):
        def callback(progress):
            if progress.kind == "epoch" and progress.epoch in (2, 4):
                net.widen(net.layers[0], 3)
            if progress.kind == "epoch" and progress.epoch == 3 and net is stopped:
                raise StopIteration

        return callback

    stopped = None
    whole = network()
    run(whole, widen_once(whole))
    (tmp_path / "run.npz").unlink()
    stopped = network()
    run(stopped, widen_once(stopped))
    resumed = network()
    run(resumed, widen_once(resumed), resume=True)
    assert [layer.size for layer in resumed.layers] == [26, 9, 3] and resumed.layers[1].weights.shape == (9, 26)
    assert resumed.graph.get_parameters().tobytes() == whole.graph.get_parameters().tobytes()
    resumed.save(tmp_path / "model.npz")
    back = mlgraph.load(tmp_path / "model.npz")
    assert back.predict_proba(X).tobytes() == resumed.predict_proba(X).tobytes()
    assert [n.id for n in back.layers[0]] == [n.id for n in whole.layers[0]] == [*range(12, 32), *range(51, 57)]


def test_a_run_is_resumed_by_sources_as_they_are_read(tmp_path):
    """Of a neuron that is refused then: the nodes that the checkpoint has brought stay."""
    path = tmp_path / "run.npz"
    run = {"epochs": 3, "checkpoint": path}

    def widen(progress):
        if progress.kind == "epoch":
            net.widen(net.layers[0], 3)
            raise StopIteration

    def sources():
        again.fit(X, Y, resume=True, **run)
        yield from (again.graph[0], again.graph[1])

    net, again = network(), network()
    net.fit(X, Y, callback=widen, **run)
    written = path.read_bytes()
    with pytest.raises(ValueError, match=r"^weights: expected shape \(2,\), got \(1,\)$"):
        again.graph.add_neuron(sources(), weights=[1.0])
    path.write_bytes(written)
    net.fit(X, Y, resume=True, **run)
    assert everything(again.graph) == everything(net.graph) and again.layers[0].size == 23
    assert again.predict_proba(X).tobytes() == net.predict_proba(X).tobytes()
    again.widen(again.layers[0])
    assert len(again.fit(X, Y, epochs=1).epoch_loss) == 1


def test_what_is_drawn_is_what_the_seed_says():
    """Whatever was drawn before, and taken back: else a run that is gone on with would draw others."""
    net = network()
    first = [n.weights.tolist() for n in net.widen(net.layers[0], 2)]
    net.undo()
    assert [n.weights.tolist() for n in net.widen(net.layers[0], 2)] == first and first[0] != first[1]
    assert [n.weights.tolist() for n in net.widen(net.layers[0], 2)] != first
    net = network()
    assert [n.weights.tolist() for n in net.widen(net.layers[0], 2, seed=1)] != first


@pytest.mark.parametrize("name", ["weights", "mask", "biases"])
def test_a_layer_is_read_while_another_thread_widens_it(name):
    net = network()
    layer = net.layers[1]
    with net.graph.lock:
        thread, found = waiting(net.graph, lambda: getattr(layer, name).shape)
        net.widen(layer, 2)
        net.widen(net.layers[0], 4)
    thread.join()
    assert found == [getattr(layer, name).shape]


def test_what_is_cut_off_stays_so():
    net = network()
    net.layers[0][3].prune()
    net.layers[2][0].edges[2].prune()
    net.layers[1][5].prune()
    (new,) = net.widen(net.layers[1])
    assert [n.id for n in new.sources] == [n.id for n in net.layers[0] if n.alive] and len(new.sources) == 19
    (other,) = net.widen(net.layers[0])
    assert other.targets == [n for n in net.layers[1] if n.alive] and len(other.targets) == 9
    bare = mlgraph.Network(2, seed=0)
    for size in (2, 2, 2):
        bare.add_layer(size, "tanh", bias=False)
    assert bare.widen(bare.layers[0])[0].bias is None
    bare.graph.add_edge(bare.graph[0], bare.outputs[0])
    bare.graph.add_edge(bare.graph[0], bare.outputs[1])
    bare.graph.prune(bare.layers[0])
    with pytest.raises(ValueError, match="layer: both neighbouring layers need a live neuron"):
        bare.widen(bare.layers[1])


@pytest.mark.parametrize("schedule", [mlgraph.SET, mlgraph.RigL])
def test_neurons_that_were_cut_off_grow_edges_again(schedule):
    """Though no edge leads back from their numbers to those that read them any more."""
    net = network()
    net.graph.prune(net.widen(net.layers[1], 2))
    net.fit(X, Y, epochs=1, sparsify=schedule(0.0, updates=1))
    assert net.n_edges == 12 * 20 + 20 * 11 + 11 * 3 and net.sparsity == 0 and all(n.alive for n in net.layers[1])


def test_layers_that_cannot_be_widened():
    net = mlgraph.Network(4, seed=0)
    net.add_layer(5)
    net.add_layer(3, "softmax")
    net.add_layer(5)
    net.add_layer(3, "softmax")
    before = everything(net.graph)
    for layer in (net.layers[1], net.layers[3], copy.deepcopy(net).layers[0]):
        with pytest.raises(
            ValueError, match="layer: expected a hidden layer of neurons of the network, got another layer"
        ):
            net.widen(layer)
    with pytest.raises(TypeError, match="layer: expected a hidden layer of neurons, got int"):
        net.widen(0)
    assert everything(net.graph) == before


def test_a_cycle_is_refused():
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
