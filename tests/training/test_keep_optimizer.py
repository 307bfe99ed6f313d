"""`fit(keep_optimizer=True)` goes on with the optimizer of the run before, to the bit."""

import copy
import pickle

import numpy as np
import pytest

import mlgraph
from mlgraph.training.checkpoint import CheckpointError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 12)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
SAME = {"batch_size": 32, "shuffle": False}
OPTIMIZERS = {
    "sgd": {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1},
    "momentum": {"optimizer": "sgd", "learning_rate": 0.05},
    "adam": {"optimizer": "adam", "learning_rate": 0.01},
    "adam decayed": {"optimizer": "adam", "learning_rate": 0.01, "momentum": 0.8, "weight_decay": 0.1},
    "adam clipped": {"optimizer": "adam", "learning_rate": 0.01, "clip_norm": 0.05},
}
ADAM = SAME | OPTIMIZERS["adam"]
with_each_optimizer = pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)


def network(pruned=0.0):
    net = mlgraph.Network(12, seed=0)
    net.add_layer(16, "tanh")
    net.add_layer(2, "softmax")
    net.prune(pruned, by="random")
    return net


def of_nodes():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(12)
    hidden = [g.add_neuron(x[k : k + 6], "tanh") for k in range(6)]
    hidden.append(mlgraph.tanh(mlgraph.sum(*(g.add_parameter(0.1 * k) * s for k, s in enumerate(x)))))
    return mlgraph.Model(g, [g.add_neuron(hidden) for _ in range(2)], "softmax_cross_entropy")


MODELS = {"dense": network, "holes": lambda: network(0.1), "rows": lambda: network(0.8), "nodes": of_nodes}


def bits(model):
    state = model.graph.optimizer_state()
    return model.graph.get_parameters().tobytes(), {name: vector.tobytes() for name, vector in state.items()}


def trained(*epochs, make=network, between=lambda net: net, **options):
    """A model after several runs, of which the later ones keep the optimizer."""
    model = make()
    for i, count in enumerate(epochs):
        model = between(model) if i else model
        model.fit(X, Y, epochs=count, keep_optimizer=i > 0, **{**SAME, **options})
    return model


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@with_each_optimizer
def test_two_runs_equal_one(sweep, make, options):
    whole = bits(trained(4, make=make, **options))
    assert bits(trained(2, 2, make=make, **options)) == whole
    assert bits(trained(1, 1, 2, make=make, **options)) == whole


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_by_default_the_optimizer_begins_with_zeros(name):
    options = OPTIMIZERS[name]
    net = trained(2, **options)
    net.fit(X, Y, epochs=2, **SAME, **options)
    assert bits(net) != bits(trained(4, **options))


@pytest.mark.parametrize("through", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_go_on_too(through):
    assert bits(trained(2, 2, between=through, **ADAM)) == bits(trained(4, **ADAM))


def test_a_callback_per_step_changes_nothing():
    class Each(mlgraph.Callback):
        def on_step_end(self, progress):
            pass

    assert bits(trained(2, 2, callbacks=[Each()], **ADAM)) == bits(trained(4, **ADAM))


def test_a_run_that_a_callback_ended_is_gone_on_from():
    def stop(progress):
        if progress.kind == "epoch" and progress.epoch == 1:
            raise StopIteration

    net = network()
    net.fit(X, Y, epochs=9, callbacks=[stop], **ADAM)
    net.fit(X, Y, epochs=2, keep_optimizer=True, **ADAM)
    assert bits(net) == bits(trained(4, **ADAM))


def test_another_optimizer_within_a_run_is_the_one_to_go_on_with():
    def change(progress):
        if progress.kind == "epoch" and progress.epoch == 0:
            progress.change(optimizer="adam", learning_rate=0.01)

    def changed(epochs):
        net = network()
        net.fit(X, Y, epochs=epochs, callbacks=[change], **{**SAME, **OPTIMIZERS["momentum"]})
        return net

    net = changed(2)
    net.fit(X, Y, epochs=2, keep_optimizer=True, **ADAM)
    assert bits(net) == bits(changed(4))


def test_the_first_run_begins_with_zeros():
    first = network()
    first.fit(X, Y, epochs=2, keep_optimizer=True, **ADAM)
    assert bits(first) == bits(trained(2, **ADAM))


def test_a_loaded_model_begins_with_zeros(tmp_path):
    net = trained(2, **ADAM)
    net.save(tmp_path / "net.npz")
    loaded = mlgraph.load(tmp_path / "net.npz")
    loaded.fit(X, Y, epochs=2, keep_optimizer=True, **ADAM)
    net.fit(X, Y, epochs=2, **ADAM)
    assert bits(loaded) == bits(net)


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ("adam", "momentum", "the last run was of Adam, whose state SGD with momentum cannot go on from"),
        ("momentum", "sgd", "the last run was of SGD with momentum, whose state SGD without momentum cannot"),
        ("sgd", "adam", "the last run was of SGD without momentum, whose state Adam cannot"),
    ],
)
def test_another_optimizer_is_refused(before, now, text):
    net = trained(1, **OPTIMIZERS[before])
    unchanged, history = bits(net), net.history
    with pytest.raises(ValueError, match=f"^keep_optimizer: {text}.*; name the same optimizer, or leave"):
        net.fit(X, Y, epochs=1, keep_optimizer=True, **SAME, **OPTIMIZERS[now])
    assert bits(net) == unchanged and net.history is history


def test_a_population_goes_on_and_names_the_member_that_cannot():
    population = mlgraph.Population([network(), network(0.5)])
    for keep in (False, True):
        population.fit(X, Y, epochs=2, keep_optimizer=keep, **ADAM)
    expected = [bits(trained(4, make=make, **ADAM)) for make in (network, lambda: network(0.5))]
    assert [bits(model) for model in population] == expected
    population[1].fit(X, Y, epochs=1, **SAME, **OPTIMIZERS["sgd"])
    with pytest.raises(ValueError, match=r"^member 1: keep_optimizer: "):
        population.fit(X, Y, epochs=1, keep_optimizer=True, **ADAM)
    assert bits(population[0]) == expected[0]


def test_undo_takes_back_the_number_of_steps_with_the_moments():
    net = trained(2, **ADAM)
    with net.graph.one_edit(parameters=True):
        net.prune(0.5)
    after = bits(net)
    net.fit(X, Y, epochs=3, keep_optimizer=True, **ADAM)
    net.graph.undo()
    net.graph.redo()
    net.graph.undo()
    assert bits(net) != after
    net.fit(X, Y, epochs=2, keep_optimizer=True, **ADAM)
    assert bits(net) == bits(trained(4, **ADAM))


def test_a_run_that_is_taken_back_leaves_no_optimizer():
    net = network()
    with net.graph.one_edit(parameters=True):
        net.prune(0.1)
        net.fit(X, Y, epochs=1, **ADAM)
    net.graph.undo()
    net.fit(X, Y, epochs=2, keep_optimizer=True, **ADAM)
    assert bits(net) == bits(trained(2, **ADAM))


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_a_checkpoint_holds_what_a_run_went_on_with(tmp_path, name):
    options = {**SAME, **OPTIMIZERS[name], "checkpoint": tmp_path / "run.npz", "checkpoint_every": 0}

    def stop(progress):
        if progress.kind == "epoch" and progress.epoch == 0:
            raise KeyboardInterrupt

    net = trained(2, **OPTIMIZERS[name])
    start = pickle.dumps(net)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, Y, epochs=2, seed=1, keep_optimizer=True, callbacks=[stop], **options)
    with pytest.raises(CheckpointError, match="keep_optimizer was True, but is False now"):
        pickle.loads(start).fit(X, Y, epochs=2, seed=1, resume=True, **options)
    again = pickle.loads(start)
    again.fit(X, Y, epochs=2, seed=1, keep_optimizer=True, resume=True, **options)
    assert bits(again) == bits(trained(4, **OPTIMIZERS[name]))
    options["checkpoint"] = None
    again.fit(X, Y, epochs=2, seed=1, keep_optimizer=True, **options)
    assert bits(again) == bits(trained(6, **OPTIMIZERS[name]))


def test_steps_taken_alone_count_too(monkeypatch):
    """Large moments make the loop take each step alone."""
    from mlgraph.training import nonfinite

    expected = bits(trained(4, **ADAM))
    monkeypatch.setattr(nonfinite, "limits", lambda *_: nonfinite.Limits(0.0, 0.0, 0.0))
    assert bits(trained(2, 2, **ADAM)) == expected


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_loses_no_step_of_the_optimizer(monkeypatch):
    import signal

    from mlgraph.models import running

    real, calls = running.execute, []

    def run(*given, **options):
        found = real(*given, **options)
        calls.append(found)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return found

    net = network()
    with monkeypatch.context() as patched:
        patched.setattr("mlgraph.training.run.execute", run)
        with pytest.raises(KeyboardInterrupt):
            net.fit(X, Y, epochs=9, callbacks=[lambda _: None], **ADAM)
    taken = int(net.history.batch_size.sum())
    assert 32 < taken < 200
    net.fit(X[taken:], Y[taken:], epochs=1, keep_optimizer=True, **ADAM)
    assert bits(net) == bits(trained(1, **ADAM))


@pytest.mark.parametrize("value", [1, "yes", None])
def test_only_true_and_false_are_taken(value):
    with pytest.raises(TypeError, match="keep_optimizer"):
        network().fit(X, Y, epochs=1, keep_optimizer=value)
