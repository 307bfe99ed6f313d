"""One seed, at the network or graph, makes all that follows repeatable; without one everything is fresh."""

import copy
import json
import pickle
import threading

import numpy as np
import pytest
from learnable import CLASSES, INPUTS, NAN, X, Y, bits, network

import mlgraph
from mlgraph.testing import check_against_reference, check_gradients, check_reference

DROPOUT = {"dropout": 0.2, "weight_dropout": 0.3}
SET = mlgraph.SET(0.5, updates=3)


def state(model):
    return model.graph.random.bit_generator.state


def add_neuron(net, **options):
    return net.graph.add_neuron(net.graph.add_inputs(5), "tanh", **options)


CALLS = {
    "fit": lambda net, **seed: net.fit(X, Y, epochs=1, batch_size=16, **seed),
    "fit with a schedule": lambda net, **seed: net.fit(X, Y, epochs=2, batch_size=16, sparsify=SET, **seed),
    "prune": lambda net, **seed: net.prune(min(net.sparsity + 0.2, 0.8), by="random", **seed),
    "prune neurons": lambda net, **seed: net.prune(neurons=0.2, by="random", **seed),
    "regrow": lambda net, **seed: (net.prune(0.5), net.regrow(0.3, **seed)),
    "widen": lambda net, **seed: net.widen(net.layers[0], 2, **seed),
}
SEEDLESS = {
    "add_layer": lambda net: net.add_layer(CLASSES, "softmax"),
    "add_neuron": add_neuron,
    "add_neurons": lambda net: net.graph.add_neurons(net.graph.add_inputs(5), n=3),
}
CHECKS = {
    "check_gradients": lambda net, **seed: check_gradients(net.outputs, X[:3] / 255, **seed),
    "check_reference": lambda net, **seed: check_reference(net.outputs, X[:3] / 255, **seed),
    "check_against_reference": lambda net, **seed: check_against_reference(net.outputs, X[:3] / 255, **seed),
}
ALL = CALLS | SEEDLESS | CHECKS


# --- fresh, or repeatable as a whole --------------------------------------------------------------


def test_without_a_seed_each_network_begins_with_other_weights():
    first, second = (mlgraph.Network(4).add_layer(3).weights for _ in range(2))
    assert (first != second).all()


def test_the_first_weights_of_a_seed_never_change():
    net, rng = mlgraph.Network(4, seed=3), np.random.default_rng(3)
    for size, fan_in in ((5, 4), (2, 5)):
        expected = rng.standard_normal((size, fan_in), np.float32) / np.float32((3 * fan_in) ** 0.5)
        assert np.array_equal(net.add_layer(size).weights, expected)


@pytest.mark.parametrize("name", ALL)
def test_the_seed_of_the_network_repeats_all_that_follows(name):
    first, second = network(seed=5, **DROPOUT), network(seed=5, **DROPOUT)
    for net in (first, second):
        for _ in range(2):
            ALL[name](net)
    assert bits(first) == bits(second) and np.array_equal(first.graph.edges().source, second.graph.edges().source)
    assert state(first) == state(second)


@pytest.mark.parametrize("name", ALL)
def test_each_call_without_a_seed_draws_on(name):
    """So a second call does something else."""
    first, second = network(seed=5, **DROPOUT), network(seed=5, **DROPOUT)
    first.graph.random.random()
    before = state(first)
    for net in (first, second):
        ALL[name](net)
    assert state(first) != before and state(first) != state(second)
    assert name in CHECKS or bits(first) != bits(second)  # not equal: they began in different states


@pytest.mark.parametrize("name", CALLS | CHECKS)
def test_a_seed_that_is_given_draws_nothing_and_repeats_the_call(name):
    first, second = network(seed=5, **DROPOUT), network(seed=5, **DROPOUT)
    second.graph.random.random()
    before = [state(first), state(second)]
    for net in (first, second):
        ALL[name](net, seed=7)
    assert bits(first) == bits(second) and [state(first), state(second)] == before


def test_a_cut_that_is_not_random_draws_nothing():
    net = network()
    before = state(net)
    net.prune(0.3)
    net.regrow(0.2, by="gradient", data=(X, Y))
    assert state(net) == before


def test_a_second_fit_goes_on_in_another_order():
    net = network()
    losses = [net.fit(X, Y, epochs=1, batch_size=10, learning_rate=0).batch_loss for _ in range(2)]
    assert not np.array_equal(*losses)
    losses = [net.fit(X, Y, epochs=1, batch_size=10, learning_rate=0, seed=0).batch_loss for _ in range(2)]
    assert np.array_equal(*losses)


def test_models_of_one_graph_share_its_generator():
    g = mlgraph.Graph(seed=1)
    x = g.add_inputs(INPUTS)
    models = [mlgraph.Model(g, g.add_neuron(x)) for _ in range(2)]
    drawn = [model.fit(X, Y, epochs=1, batch_size=10, learning_rate=0).batch_loss for model in models]
    assert models[0].graph is models[1].graph and not np.array_equal(*drawn)


# --- first weights of single neurons --------------------------------------------------------------


def test_neurons_without_given_weights_get_those_of_a_layer():
    g, rng = mlgraph.Graph(seed=2), np.random.default_rng(2)
    x = g.add_inputs(12)
    one, some = g.add_neuron(x), g.add_neurons(x, n=3, biases=None)
    assert np.array_equal(one.weights, rng.standard_normal(12, np.float32) / np.float32(6))
    weights = np.array([g[i].weights for i in some])
    assert np.array_equal(weights, rng.standard_normal((3, 12), np.float32) / np.float32(6))


def test_neurons_without_given_weights_learn():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(2)
    hidden = [g.add_neuron(x, "tanh") for _ in range(8)]
    model = mlgraph.Model(g, g.add_neuron(hidden), loss="binary_cross_entropy")
    xor, answers = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
    model.fit(xor, answers, epochs=500, batch_size=4, learning_rate=0.1)
    assert model.predict(xor).tolist() == answers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"^add_neurons: expected n or weights, got neither$"),
        ({"n": 0}, r"^n: expected an integer of at least 1, got 0$"),
        ({"n": 2, "weights": [[1.0, 2.0]]}, r"^weights: expected shape \(2, 2\), got \(1, 2\)$"),
        ({"n": 2, "biases": [1.0]}, r"^biases: expected shape \(2,\), got \(1,\)$"),
    ],
)
def test_add_neurons_needs_a_number_or_weights(options, message):
    g = mlgraph.Graph(seed=0)
    x, before = g.add_inputs(2), g.random.bit_generator.state
    with pytest.raises(ValueError, match=message):
        g.add_neurons(x, **options)
    assert len(g) == 2 and g.random.bit_generator.state == before


# --- what is refused draws nothing ----------------------------------------------------------------

REFUSED = {
    "fit: epochs": lambda net: net.fit(X, Y, epochs=0),
    "fit: labels": lambda net: net.fit(X, Y % 2 + 9),
    "fit: n_threads": lambda net: net.fit(X, Y, n_threads=0),
    "fit: sparsify": lambda net: net.fit(X, Y, sparsify="SET"),
    "fit: paths": lambda net: net.fit(X, Y, sparsify=mlgraph.GradualPruning(0.999)),
    "fit: checkpoint": lambda net: net.fit(X, Y, checkpoint="no/such/folder/x"),
    "prune: sparsity": lambda net: net.prune(2, by="random"),
    "prune: paths": lambda net: net.prune(0.999, by="random"),
    "prune: neurons": lambda net: net.prune(neurons=0.999, by="random"),
    "regrow": lambda net: net.regrow(0.5, n_threads=0),
    "widen: n": lambda net: net.widen(net.layers[0], 0),
    "widen: layer": lambda net: net.widen(net.layers[1]),
    "add_layer": lambda net: net.add_layer(3, dropout=2),
    "add_neuron: bias": lambda net: add_neuron(net, bias=NAN),
    "add_neuron: sources": lambda net: net.graph.add_neuron([]),
    "check_gradients: step": lambda net: check_gradients(net.outputs, X[:3], step=0),
    "check_gradients: n_threads": lambda net: check_gradients(net.outputs, X[:3], n_threads=0),
    "check_reference": lambda net: check_reference(net.outputs, X[:3, :2]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_is_refused_draws_nothing(name):
    net = network()
    before = state(net)
    with pytest.raises((TypeError, ValueError)):
        REFUSED[name](net)
    assert state(net) == before


def test_an_exception_within_one_edit_puts_the_generator_back_and_undo_does_not():
    net, other = network(seed=5), network(seed=5)
    with pytest.raises(TypeError), net.graph.one_edit():
        add_neuron(net).bias = "a string, after the weights were drawn"
    assert state(net) == state(other)
    first = np.asarray(add_neuron(net).weights)
    net.undo()
    assert (np.asarray(add_neuron(net).weights) != first).all()


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, "1"])
@pytest.mark.parametrize(
    "call",
    [
        lambda seed: mlgraph.Graph(seed=seed),
        lambda seed: mlgraph.Network(2, seed=seed),
        *(lambda seed, call=call: call(network(), seed=seed) for call in (CALLS | CHECKS).values()),
    ],
    ids=["Graph", "Network", *CALLS, *CHECKS],
)
def test_seeds_are_integers_of_64_bits(call, seed):
    with pytest.raises((TypeError, ValueError), match=r"^seed: expected an integer of at "):
        call(seed)


# --- kept -----------------------------------------------------------------------------------------


def saved(net, folder):
    net.save(folder / "model.npz")
    return mlgraph.load(folder / "model.npz")


COPIES = {
    "copy": lambda net, folder: copy.copy(net),
    "deepcopy": lambda net, folder: copy.deepcopy(net),
    "pickle": lambda net, folder: pickle.loads(pickle.dumps(net)),
    "compact": lambda net, folder: net.compact(),
    "file": saved,
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_and_files_draw_on_where_the_network_was(kind, tmp_path):
    net = network(**DROPOUT)
    net.fit(X, Y, epochs=1)
    net.graph.random.integers(9, dtype=np.uint32)  # leaves half of a 64-bit number for the next draw
    other = COPIES[kind](net, tmp_path)
    assert state(other) == state(net) and other.graph.random is not net.graph.random
    for one in (net, other):
        one.fit(X, Y, epochs=1, batch_size=16)
    assert bits(other) == bits(net) and state(other) == state(net)


def test_a_copied_graph_draws_on_too():
    g = mlgraph.Graph(seed=4)
    other = g.copy()
    assert np.array_equal(*(graph.add_neuron(graph.add_inputs(3)).weights for graph in (g, other)))


def with_random(path, target, **random):
    """The model file with another entry for the generator, or none."""
    arrays = dict(np.load(path))
    header = json.loads(arrays["header"].tobytes())
    del header["random"]
    arrays["header"] = np.frombuffer(json.dumps(header | random).encode(), np.uint8)
    np.savez(target, **arrays)
    return target


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda g: pickle.loads(pickle.dumps(g))])
def test_a_graph_that_has_not_drawn_yet_already_has_its_generator(copied):
    g = mlgraph.Graph()
    x = g.add_input()
    others = [copied(g), copied(g)]
    weights = [float(one.add_neuron([one[x.id]]).weights[0]) for one in (g, *others)]
    assert weights[0] == weights[1] == weights[2]


def test_a_file_without_a_generator_gets_a_fresh_one(tmp_path):
    network().save(tmp_path / "model.npz")
    older = with_random(tmp_path / "model.npz", tmp_path / "older.npz")
    first, second = mlgraph.load(older), mlgraph.load(older)
    assert bits(first) == bits(second) and state(first) != state(second)


@pytest.mark.parametrize(
    "change",
    [
        {"bit_generator": "MT19937"},
        {"bit_generator": None},
        {"state": {"state": 1}},
        {"state": {"state": 1, "inc": 2}},  # even
        {"state": {"state": -1, "inc": 1}},
        {"state": {"state": 2**128, "inc": 1}},
        {"state": {"state": 1.0, "inc": 1}},
        {"state": {"state": True, "inc": 1}},
        {"state": {"state": 1, "inc": 2**128 + 1}},
        {"state": [1, 1]},
        {"has_uint32": 2},
        {"has_uint32": "0"},
        {"uinteger": 2**32},
        {"uinteger": None},
        {"more": 1},
        None,
        [],
        "PCG64",
    ],
    ids=str,
)
def test_a_damaged_generator_is_refused(change, tmp_path):
    net = network()
    net.save(tmp_path / "model.npz")
    random = state(net) | change if isinstance(change, dict) else change
    path = with_random(tmp_path / "model.npz", tmp_path / "damaged.npz", random=random)
    with pytest.raises(mlgraph.ModelFileError, match=r"header: random: expected the state of a PCG64 generator$"):
        mlgraph.load(path)


# --- resumed --------------------------------------------------------------------------------------


def cut_and_draw(progress, net):
    """A callback that draws from the generator in the middle of the run."""
    if progress.kind == "epoch":
        net.prune(0.1 * (progress.epoch + 1), by="random")


def run(net, path, *, leave_at=None, seed=None, **options):
    def callback(progress):
        cut_and_draw(progress, net)
        if progress.kind == "epoch" and progress.epoch == leave_at:
            raise KeyboardInterrupt

    options = {"epochs": 4, "batch_size": 16, "seed": seed, **options}
    return net.fit(X, Y, callbacks=[callback] if callback else None, checkpoint=path, checkpoint_every=0, **options)


@pytest.mark.parametrize("sparsify", [None, SET], ids=["plain", "SET"])
@pytest.mark.parametrize("begin", ["made", "loaded"])
def test_a_resumed_run_without_a_seed_equals_an_uninterrupted_one(begin, sparsify, tmp_path):
    """So does all that follows; the seed that was drawn is in the checkpoint."""
    whole, parts, path = network(**DROPOUT), network(**DROPOUT), tmp_path / "parts.npz"
    run(whole, tmp_path / "whole.npz", sparsify=sparsify)
    with pytest.raises(KeyboardInterrupt):
        run(parts, path, leave_at=1, sparsify=sparsify)
    resumed = network(**DROPOUT) if begin == "made" else mlgraph.load(path)
    run(resumed, path, resume=True, sparsify=sparsify)
    assert np.array_equal(resumed.history.batch_loss, whole.history.batch_loss)
    assert bits(resumed.compact()) == bits(whole.compact()) and state(resumed) == state(whole)
    for net in (whole, resumed):
        net.fit(X, Y, epochs=1, batch_size=16)
    assert bits(resumed.compact()) == bits(whole.compact())


def test_another_seed_does_not_resume_a_run(tmp_path):
    net, path = network(), tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        run(net, path, leave_at=0)
    other = network()
    before = state(other)
    with pytest.raises(mlgraph.CheckpointError, match=r"seed was \d+, but is 3 now$"):
        run(other, path, resume=True, seed=3)
    assert state(other) == before


def test_a_network_of_another_seed_does_not_resume_a_run(tmp_path):
    net, path = network(), tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        run(net, path, leave_at=0)
    other = network(seed=1)
    before = state(other)
    with pytest.raises(mlgraph.CheckpointError, match=r"give the network the seed that it had, or begin with mlgraph"):
        run(other, path, resume=True)
    assert state(other) == before


# --- threads --------------------------------------------------------------------------------------


def test_threads_never_draw_the_same():
    g = mlgraph.Graph(seed=0)
    x, drawn = g.add_inputs(4), []
    threads = [
        threading.Thread(target=lambda: drawn.extend(g.add_neuron(x).weights[0] for _ in range(50))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({float(w) for w in drawn}) == 200
