"""Which steps are taken alone when callbacks change the optimizer's vectors."""

import threading
from contextlib import nullcontext

import numpy as np
import pytest

import mlgraph
from mlgraph.models.running import execute
from mlgraph.training import loop
from mlgraph.training.nonfinite import Guard

RNG = np.random.default_rng(0)
X = RNG.normal(size=(640, 64)).astype(np.float32)
Y = RNG.normal(size=(640, 3)).astype(np.float32)
X[:, 63], X[319, 63] = 0, 1
LARGE_AT = 4
"""The step, of 64 examples, in which example 319 gives a large velocity through its own input."""

OPTIONS = {"epochs": 2, "batch_size": 64, "learning_rate": 0.05, "shuffle": False}


def network():
    """A block with holes, and an edge of weight 0 that gets a velocity of about 1e31 at one step."""
    net = mlgraph.Network(64, seed=0)
    first, second = net.add_layer(64, "tanh"), net.add_layer(5, "tanh")
    net.add_layer(3, "identity")
    mask = np.random.default_rng(1).random((64, 64)) < 0.9
    mask[63], mask[63, 63] = False, True
    first.mask = mask
    big, large = first[63], second[4]
    big.activation = large.activation = "identity"
    big.weights, big.bias, large.bias = [1e17], None, None
    net.graph.prune([(big, other) for other in second[:4]] + [(other, large) for other in first[:63]])
    large.weights = [0.0]
    net.graph.edge(large, net.outputs[0]).weight = 1e16
    return net, large


def fit(at_large, *, stop=False, **options):
    """Losses of a run that calls `at_large` after the step of the large velocity, and ends there if `stop`."""
    net, large = network()

    def callback(progress):
        if progress.kind == "steps" and len(progress.history.batch_loss) == LARGE_AT + 1:
            at_large(net, large)
            if stop:
                raise StopIteration

    net.fit(X, Y, callback=callback, **OPTIONS, **options)
    return net.history.batch_loss.tolist()


def freeze(net, large):
    large.weights = [0.0]
    large.frozen = True  # clears its velocity


def cut(net, large):
    large.prune()


def cut_and_look(net, large):
    large.prune()
    net.predict(X[:2])  # compiles again, which moves the parameters


@pytest.fixture
def alone(monkeypatch):
    """The numbers of the steps that are taken alone."""
    steps, take = [], Guard.step
    monkeypatch.setattr(Guard, "step", lambda guard, step, where: steps.append(step.number) or take(guard, step, where))
    return steps


@pytest.mark.parametrize(("calm", "again"), [(freeze, [LARGE_AT + 10]), (cut, []), (cut_and_look, [])])
def test_steps_are_fast_again_once_a_callback_ends_a_large_velocity(alone, calm, again):
    """A frozen neuron has the large gradient again in the second epoch."""
    fit(calm)
    assert alone == [LARGE_AT, *again]


def test_steps_are_taken_alone_while_a_velocity_is_large(alone):
    fit(lambda net, large: None, on_nonfinite="skip")
    assert alone == list(range(LARGE_AT, 20))


@pytest.mark.parametrize("calm", [freeze, cut, cut_and_look])
def test_run_resumed_after_a_large_velocity_has_same_bits(tmp_path, calm):
    whole = fit(calm)
    assert len(fit(calm, stop=True, checkpoint=tmp_path / "run.npz")) == LARGE_AT + 1
    assert fit(calm, checkpoint=tmp_path / "run.npz", resume=True) == whole


def test_disconnected_neuron_does_not_slow_later_steps(alone):
    """It keeps its bias and the velocity of its bias."""
    net, large = network()
    large.bias = 0.0
    net.graph.edge(large, net.outputs[0]).weight = 1e33
    net.fit(X, Y, on_nonfinite="disconnect", **OPTIONS)
    assert net.history.nonfinite_cut.tolist() == [large.id] and alone == [0, 1]


def network_of_one_large_step():
    """Only one example moves the neuron `large`, and gives it a velocity near the float32 maximum."""
    net = mlgraph.Network(64, seed=0)
    first, _ = net.add_layer(6, "tanh"), net.add_layer(2, "identity")
    large = first[5]
    mask = np.ones((6, 64), bool)
    mask[5], mask[:, 63], mask[5, 63] = False, False, True
    first.mask = mask
    large.activation, large.bias, large.weights = "relu", None, [1e-37]
    net.graph.edge(large, net.outputs[1]).prune()
    net.graph.edge(large, net.outputs[0]).weight = 3e38
    targets = Y[:, :2] * 0.1
    targets[319, 0] = 60
    return net, large, np.where(np.arange(64) < 63, X * 0.1, X), targets


def is_finite(net):
    vectors = [net.graph.get_parameters(), *net.graph.optimizer_state().values()]
    return all(np.isfinite(numbers).all() for numbers in vectors)


def test_steps_after_a_large_one_are_taken_alone(alone):
    net, _, x, y = network_of_one_large_step()
    net.fit(x, y, **OPTIONS | {"learning_rate": 0.3}, on_nonfinite="skip")
    assert alone == list(range(LARGE_AT, 20)) and is_finite(net)


@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize("how", ["an edit", "numbers"])
def test_velocity_restored_by_undo_reaches_no_parameter(monkeypatch, policy, how):
    monkeypatch.setattr(loop, "PIECE_SECONDS", 0)  # so that a callback follows each step
    net, large, x, y = network_of_one_large_step()
    done = []

    def callback(progress):
        if progress.kind == "steps" and len(progress.history.batch_loss) > LARGE_AT and not done:
            with net.graph.one_edit(parameters=how == "numbers"):
                (cut if how == "an edit" else freeze)(net, large)
            done.append("cut")
        elif progress.kind == "steps" and done == ["cut"]:
            net.undo()
            done.append("undone")

    options = OPTIONS | {"epochs": 3, "learning_rate": 0.3, "on_nonfinite": policy}
    ends = pytest.raises(mlgraph.NonFiniteError) if policy == "raise" else nullcontext()
    with ends:
        net.fit(x, y, callback=callback, **options)
    assert done == ["cut", "undone"] and is_finite(net)


def test_graph_is_locked_from_checking_velocities_to_the_steps(monkeypatch):
    net, _ = network()
    seen = []

    def is_free():
        free = net.graph.lock.acquire(blocking=False)
        if free:
            net.graph.lock.release()
        seen.append(free)

    def runs(*arguments, **options):
        if "limit" in options:
            other = threading.Thread(target=is_free)
            other.start()
            other.join()
        return execute(*arguments, **options)

    monkeypatch.setattr("mlgraph.training.fitting.execute", runs)
    net.fit(X, Y, **OPTIONS, on_nonfinite="skip")
    assert seen and not any(seen)
