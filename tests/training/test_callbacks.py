"""What `fit` calls: hooks, functions, early stopping; and validation data split off."""

import numpy as np
import pytest
from learnable import X, Y, network

import mlgraph


class Recorder(mlgraph.Callback):
    def __init__(self):
        self.calls = []

    def on_train_begin(self, model):
        self.calls.append(("begin", model))

    def on_step_end(self, progress):
        self.calls.append(("step", len(progress.history.batch_loss)))

    def on_epoch_end(self, progress):
        self.calls.append(("epoch", progress.epoch))

    def on_train_end(self, model):
        self.calls.append(("end", model))


def test_hooks_are_called_after_each_step_and_epoch():
    net, recorder = network(), Recorder()
    net.fit(X, Y, epochs=2, batch_size=80, callbacks=[recorder])  # three batches an epoch
    steps = [("step", i) for i in range(1, 7)]
    assert recorder.calls == [("begin", net), *steps[:3], ("epoch", 0), *steps[3:], ("epoch", 1), ("end", net)]


def test_steps_are_the_same_with_a_hook_for_each():
    bits = []
    for callbacks in (None, [Recorder()], [mlgraph.Callback()], [print_nothing, Recorder()]):
        net = network()
        net.fit(X, Y, epochs=3, batch_size=30, seed=4, callbacks=callbacks)
        bits.append(net.graph.get_parameters().tobytes())
    assert len({*bits}) == 1


def print_nothing(progress):
    assert progress.kind in ("steps", "epoch") and progress.model.history is progress.history


@pytest.mark.parametrize("hook", ["on_step_end", "on_epoch_end"])
def test_stop_iteration_ends_the_run_after_the_other_callbacks(hook):
    class Stopper(mlgraph.Callback):
        pass

    def stop(self, progress):
        raise StopIteration

    setattr(Stopper, hook, stop)
    net, recorder = network(), Recorder()
    net.fit(X, Y, epochs=5, batch_size=80, callbacks=[Stopper(), recorder])
    assert len(net.history.batch_loss) == (1 if hook == "on_step_end" else 3)
    assert recorder.calls[-2][0] == ("step" if hook == "on_step_end" else "epoch") and recorder.calls[-1] == (
        "end",
        net,
    )


@pytest.mark.parametrize(
    ("callbacks", "error", "message"),
    [
        (print_nothing, TypeError, "expected a list of callbacks or functions, got function"),
        ([3], TypeError, "expected callbacks or functions, got int"),
        ([mlgraph.EarlyStopping], TypeError, "expected callbacks or functions, got the class EarlyStopping"),
        ([mlgraph.EarlyStopping()], ValueError, "EarlyStopping watches validation_loss, which needs validation_data"),
    ],
)
def test_callbacks_that_are_refused(callbacks, error, message):
    with pytest.raises(error, match=f"^callbacks: {message}"):
        network().fit(X, Y, callbacks=callbacks)


# --- early stopping -------------------------------------------------------------------------------


@pytest.mark.parametrize("monitor", ["validation_loss", "validation_accuracy", "epoch_loss", "epoch_accuracy"])
def test_early_stopping_restores_the_best_epoch(monitor):
    random = np.random.default_rng(0)
    y, kept = random.integers(0, 3, len(X)), []  # labels of chance are learnt by heart only
    stop = mlgraph.EarlyStopping(monitor, patience=4)
    net = network()
    history = net.fit(
        X,
        y,
        epochs=300,
        validation_data=(X[::-1], y),
        seed=0,
        callbacks=[stop, lambda p: kept.append(net.graph.get_parameters()) if p.kind == "epoch" else None],
    )
    column = getattr(history, monitor)
    best = column.argmin() if monitor.endswith("loss") else column.argmax()
    assert stop.best_epoch == best and (len(column) == best + 5 or len(column) == 300)
    np.testing.assert_array_equal(net.graph.get_parameters(), kept[best])


def test_early_stopping_may_keep_the_last_epoch_and_ask_for_more():
    stop = mlgraph.EarlyStopping("epoch_loss", patience=2, min_delta=100, restore_best=False)
    net, last = network(), []
    net.fit(X, Y, epochs=50, seed=0, callbacks=[stop, lambda progress: last.append(net.graph.get_parameters())])
    assert len(net.history.epoch_loss) == 3 and stop.best_epoch == 0
    np.testing.assert_array_equal(net.graph.get_parameters(), last[-1])


def test_early_stopping_begins_anew_after_an_edit():
    stop = mlgraph.EarlyStopping("epoch_loss", patience=3)
    net = network()
    net.fit(X, Y, epochs=20, sparsify=mlgraph.GradualPruning(0.9, updates=5), callbacks=[stop])
    edges = net.history.epoch_edges
    assert net.sparsity >= 0.9 and (edges[stop.best_epoch :] == edges[-1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monitor": "loss"}, "monitor: expected one of validation_loss"),
        ({"patience": 0}, "patience: expected an integer of at least 1"),
        ({"min_delta": -1}, "min_delta: expected a number from 0 on"),
    ],
)
def test_options_of_early_stopping(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        mlgraph.EarlyStopping(**options)


# --- validation data ------------------------------------------------------------------------------


def test_validation_split_holds_out_the_same_examples_each_time():
    net, again = network(), network()
    order = np.argsort(Y, kind="stable")  # sorted labels: the last examples alone would be of one class
    history = net.fit(X[order], Y[order], epochs=2, validation_split=0.25, seed=1)
    assert history.batch_size[: len(history.batch_size) // 2].sum() == 150
    held = np.sort(np.random.default_rng(len(X)).permutation(len(X))[:50])
    kept = np.setdiff1d(np.arange(len(X)), held)
    given = (X[order][held], Y[order][held])
    other = again.fit(X[order][kept], Y[order][kept], epochs=2, validation_data=given, seed=1)
    assert {*given[1].tolist()} == {0, 1, 2}
    assert history["validation_loss"].tolist() == other["validation_loss"].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_split": 1.0}, "validation_split: expected a number from 0 to below 1"),
        (
            {"validation_split": 0.001},
            "validation_split: expected a share that leaves examples on both sides, got 0 of",
        ),
        ({"validation_split": 0.1, "validation_data": (X, Y)}, "validation_split: expected 0 where there are"),
        ({"validation_split": 0.1, "y": Y[1:]}, "y: expected 200 labels"),
    ],
)
def test_splits_that_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        network().fit(**{"x": X, "y": Y, **options})
