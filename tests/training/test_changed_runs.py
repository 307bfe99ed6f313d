"""`Progress.change`: what callbacks change in a run takes effect at the next step, as if a new run began there."""

import numpy as np
import pytest

import mlgraph

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 6)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
SGD = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1, "batch_size": 32}


def network(**dropout):
    net = mlgraph.Network(6, seed=0)
    net.add_layer(8, "tanh", **dropout)
    net.add_layer(2, "softmax")
    return net


def fitted(net, x, y, **options):
    return net.fit(x, y, **{**SGD, "epochs": 1, "shuffle": False, **options})


def changing(when, **options):
    """A callback that changes the run when `when(progress)` is first true."""
    done = []

    def change(progress):
        if not done and when(progress):
            done.append(progress.change(**options))

    return change


def after_epoch(progress):
    return progress.kind == "epoch"


class After(mlgraph.Callback):
    """Changes the run after a number of steps, and notes the kinds of calls."""

    def __init__(self, steps, **options):
        self.steps, self.options = steps, options

    def on_step_end(self, progress):
        if len(progress.history.batch_loss) == self.steps:
            progress.change(**self.options)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 0.02},
        {"batch_size": 7},
        {"optimizer": "adam", "learning_rate": 0.01},
        {"weight_decay": 0.1},
        {"clip_norm": 0.1},
        {"optimizer": "adam", "batch_size": 200, "momentum": 0.5},
    ],
    ids=lambda options: "-".join(options),
)
def test_a_change_after_an_epoch_equals_a_new_run(options):
    changed, two = network(), network()
    history = fitted(changed, X, Y, epochs=2, callbacks=[changing(after_epoch, **options)])
    fitted(two, X, Y)
    fitted(two, X, Y, **options)
    assert changed.graph.get_parameters().tobytes() == two.graph.get_parameters().tobytes()
    assert history.epoch_examples.tolist() == [200, 400]


def test_a_change_within_an_epoch_equals_a_new_run_on_the_rest():
    changed, two = network(), network()
    options = {"learning_rate": 0.03, "batch_size": 9, "optimizer": "adam"}
    history = fitted(changed, X, Y, callbacks=[After(3, **options)])
    fitted(two, X[:96], Y[:96])
    fitted(two, X[96:], Y[96:], **options)
    assert changed.graph.get_parameters().tobytes() == two.graph.get_parameters().tobytes()
    assert history.batch_size.tolist() == [32] * 3 + [9] * 11 + [5]
    assert history.batch_examples.tolist()[-2:] == [195, 200]
    np.testing.assert_allclose(history.learning_rate, [0.1] * 3 + [0.03] * 12, rtol=1e-6)


def test_other_options_stay_and_momentum_goes_on():
    plain, changed = network(dropout=0.2), network(dropout=0.2)
    for net, callbacks in ((plain, []), (changed, [After(5, learning_rate=0.1), After(9, batch_size=32)])):
        fitted(net, X, Y, momentum=0.9, epochs=3, shuffle=True, seed=1, callbacks=callbacks)
    assert plain.graph.get_parameters().tobytes() == changed.graph.get_parameters().tobytes()


def test_a_pair_stretches_over_the_whole_run():
    history = fitted(network(), X, Y, epochs=2, callbacks=[changing(after_epoch, learning_rate=(1.0, 0.0))])
    progress = (history.batch_examples - history.batch_size) / 400
    np.testing.assert_allclose(history.learning_rate[7:], 1 - progress[7:] ** 1.5, rtol=1e-5)


def test_calls_after_each_step_begin_and_end():
    calls = []

    def watch(progress):
        calls.append((progress.kind, len(progress.history.batch_loss)))
        progress.change(each_step=len(calls) < 4)

    fitted(network(), X, Y, epochs=9, callbacks=[watch])
    steps = [n for kind, n in calls if kind == "steps"]
    assert steps[1:4] == [steps[0] + 1, steps[0] + 2, steps[0] + 3] and len(steps) < 9 * 7


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"learning_rate": -1}, ValueError, "learning_rate: expected a number from 0"),
        ({"batch_size": 0}, ValueError, "batch_size: expected an integer of at least 1"),
        ({"optimizer": "rmsprop"}, ValueError, "optimizer: expected sgd or adam"),
        ({"optimizer": "adam", "momentum": 1.0}, ValueError, "momentum"),
        ({"weight_decay": 100.0}, ValueError, "weight_decay: expected a number from 0 to 1 / learning_rate"),
        ({"clip_norm": 0}, ValueError, "clip_norm: expected a finite number above 0"),
        ({"each_step": "yes"}, TypeError, "each_step: expected True or False"),
        ({"learning_rate": 0.5, "batch_size": "x"}, TypeError, "batch_size"),
    ],
)
def test_a_wrong_option_changes_nothing(options, error, message):
    plain, refused = network(), network()

    def change(progress):
        with pytest.raises(error, match=message):
            progress.change(**options)

    fitted(plain, X, Y, epochs=2)
    fitted(refused, X, Y, epochs=2, callbacks=[change])
    assert plain.graph.get_parameters().tobytes() == refused.graph.get_parameters().tobytes()


def test_a_run_with_a_checkpoint_keeps_its_options(tmp_path):
    with pytest.raises(ValueError, match="change: a run with a checkpoint keeps its options"):
        fitted(network(), X, Y, checkpoint=tmp_path / "run.npz", callbacks=[changing(after_epoch, learning_rate=1.0)])
