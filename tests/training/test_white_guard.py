"""Which steps are taken alone after a large velocity, and that it reaches no parameter."""

from contextlib import nullcontext, suppress

import numpy as np
import pytest
from locks import is_free

import mlgraph
from mlgraph.models.running import execute
from mlgraph.training import loop
from mlgraph.training.nonfinite import Guard

RNG = np.random.default_rng(0)
X = RNG.normal(size=(640, 64)).astype(np.float32) * np.float32(0.1)
Y = RNG.normal(size=(640, 2)).astype(np.float32) * np.float32(0.1)
X[:, 63], X[319, 63], Y[319, 0] = 0, 1, 60
LARGE_AT = 4
"""The step, of 64 examples, to which example 319 belongs."""


def network():
    """Only example 319 moves one neuron, and gives it a velocity near the float32 maximum."""
    net = mlgraph.Network(64, seed=0)
    first, _ = net.add_layer(6, "tanh"), net.add_layer(2, "identity")
    large, mask = first[5], np.ones((6, 64), bool)
    mask[5], mask[:, 63], mask[5, 63] = False, False, True
    first.mask = mask
    large.activation, large.bias, large.weights = "relu", None, [1e-37]
    net.graph.edge(large, net.outputs[1]).prune()
    net.graph.edge(large, net.outputs[0]).weight = 3e38
    return net, large


def fit(net, callback=None, **options):
    net.fit(
        X,
        Y,
        **{"epochs": 2, "batch_size": 64, "learning_rate": 0.3, "shuffle": False, "optimizer": "sgd", **options},
        callbacks=[callback] if callback else None,
    )
    return net.history.batch_loss.tolist()


def is_finite(net):
    vectors = [net.graph.get_parameters(), *net.graph.optimizer_state().values()]
    return all(np.isfinite(numbers).all() for numbers in vectors)


def freeze(net, large):
    large.weights = [0.0]
    large.frozen = True  # clears its velocity


def cut(net, large):
    large.prune()
    net.predict(X[:2])  # compiles again, which moves the parameters


@pytest.fixture
def alone(monkeypatch):
    """The numbers of the steps that are taken alone."""
    steps, take = [], Guard.step
    monkeypatch.setattr(Guard, "step", lambda guard, step, where: steps.append(step.number) or take(guard, step, where))
    return steps


def test_steps_are_taken_alone_while_a_velocity_is_large(alone):
    net, _ = network()
    fit(net, on_nonfinite="skip")
    assert alone == list(range(LARGE_AT, 20)) and is_finite(net)


@pytest.mark.filterwarnings("ignore:fit. the run diverged")
def test_disconnected_neuron_does_not_slow_later_steps(alone):
    net, large = network()
    fit(net, on_nonfinite="disconnect")
    assert net.history.nonfinite_cut.tolist() == [large.id] and alone == [4, 5, 6, 7, 8]


@pytest.mark.filterwarnings("ignore:fit. the run diverged")
@pytest.mark.parametrize("calm", [freeze, cut])
def test_callback_that_ends_a_large_velocity_makes_steps_fast_again(alone, tmp_path, calm):
    """A run resumed right after it ends with the same bits."""

    def run(stop=False, **kept):
        net, large = network()

        def callback(progress):
            if progress.kind == "steps" and len(progress.history.batch_loss) == LARGE_AT + 1:
                calm(net, large)
                if stop:
                    raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            fit(net, callback, **kept)
        return net.history.batch_loss.tolist()

    whole, path = run(), tmp_path / "run.npz"
    assert alone == [LARGE_AT] and len(run(stop=True, checkpoint=path)) == LARGE_AT + 1
    assert run(checkpoint=path, resume=True) == whole


@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize("what", ["an edit", "numbers"])
def test_velocity_restored_by_undo_reaches_no_parameter(monkeypatch, policy, what):
    monkeypatch.setattr(loop, "PIECE_SECONDS", 0)  # so that a callback follows each step
    (net, large), done = network(), []

    def callback(progress):
        if progress.kind == "steps" and len(progress.history.batch_loss) > LARGE_AT and not done:
            with net.graph.one_edit(parameters=what == "numbers"):
                (cut if what == "an edit" else freeze)(net, large)
            done.append("cut")
        elif progress.kind == "steps" and done == ["cut"]:
            net.undo()
            done.append("undone")

    with pytest.raises(mlgraph.NonFiniteError) if policy == "raise" else nullcontext():
        fit(net, callback, epochs=3, on_nonfinite=policy)
    assert done == ["cut", "undone"] and is_finite(net)


def test_graph_is_locked_from_checking_velocities_to_the_steps(monkeypatch):
    (net, _), free = network(), []

    def runs(*arguments, **options):
        if "limit" in options:
            free.append(is_free(net.graph.lock))
        return execute(*arguments, **options)

    monkeypatch.setattr("mlgraph.training.run.execute", runs)
    fit(net, on_nonfinite="skip")
    assert free and not any(free)
