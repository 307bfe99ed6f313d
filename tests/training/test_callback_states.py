"""What a checkpoint carries of callbacks."""

import numpy as np
import pytest
from checkpoint_runs import LABELS, Stop, X, bits, fit, network, stop_at

import mlgraph

pytestmark = pytest.mark.usefixtures("small_pieces")


class Carried(mlgraph.Callback):
    """Adds random numbers to a weight after each epoch; all it knows is in its state."""

    def __init__(self):
        self.random, self.epochs, self.extremes = np.random.default_rng(3), [], (np.inf, np.float32(-1))
        self.drawn = np.zeros((0, 2), np.float32)

    def on_epoch_end(self, progress):
        self.epochs.append({"number": progress.epoch, "name": f"épo{progress.epoch}"})
        self.drawn = np.append(self.drawn, self.random.normal(size=(1, 2)).astype(np.float32), axis=0)
        self.extremes = min(self.extremes[0], progress.batch_loss), np.float32(progress.batch_loss)
        progress.model.layers[0].neurons[0].weights[0] += self.drawn.sum() + self.extremes[1]

    def state_dict(self):
        names = ("epochs", "extremes", "drawn")
        return {"random": self.random.bit_generator.state, **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state):
        self.random.bit_generator.state = state.pop("random")
        vars(self).update(state)

    def seen(self):
        return repr((self.state_dict(), self.drawn.dtype, type(self.extremes[1])))


def lives(path, make, counts, **options):
    """Train in several lives, each with callbacks of its own; return the last network and its callback."""
    for count in [*counts, 10**6]:
        net, callback = network(), make()
        kept = {"checkpoint": path, "checkpoint_every": 0, "resume": True}
        try:
            fit(net, callbacks=[callback, stop_at(count)], **kept, **options)
        except Stop:
            continue
        return net, callback
    raise AssertionError("stopped in each life")


def test_state_of_a_callback_survives_the_process(path):
    whole, once = network(), Carried()
    fit(whole, callbacks=[once])
    net, callback = lives(path, Carried, (23, 25, 4, 24))
    assert bits(net) == bits(whole) and callback.seen() == once.seen()


@pytest.mark.parametrize("seed", range(8))
def test_early_stopping_is_resumed_with_its_best_parameters(path, seed):
    """Labels of chance: the validation loss soon rises."""
    x, y = X[:400], np.random.default_rng(seed).integers(0, 4, 400)
    options = {
        "epochs": 40,
        "learning_rate": 0.3,
        "momentum": 0.9,
        "x": x,
        "validation_data": (X[400:600], LABELS[400:600]),
    }

    def stopping():
        return mlgraph.EarlyStopping(patience=6)

    whole, once = network(), stopping()
    fit(whole, y, callbacks=[once], **options)
    chance = np.random.default_rng(seed)
    net, callback = lives(path, stopping, chance.integers(3, 25, 6), y=y, **options)
    assert bits(net) == bits(whole) and callback.best_epoch == once.best_epoch
    assert len(whole.history.epoch_loss) == once.best_epoch + 7 < 40


def test_early_stopping_resumed_after_an_edit_begins_anew(path):
    """The edit comes between an epoch's end and the checkpoint of the last step before the process ends."""
    options = {"epochs": 6, "sparsify": mlgraph.GradualPruning(0.8, updates=7), "stop": None}

    def stopping():
        return mlgraph.EarlyStopping("epoch_loss", mode="max", patience=3)

    whole, once = network(), stopping()
    fit(whole, callbacks=[once], **options)
    net, callback = lives(path, stopping, (20, 28, 30, 9, 26), **options)
    assert bits(net) == bits(whole) and callback.best_epoch == once.best_epoch


def test_finished_run_gives_its_callbacks_their_state_and_calls_no_other_hook(path):
    class Told(Carried):
        def __init__(self):
            super().__init__()
            self.calls = []

        def on_train_begin(self, model):
            self.calls.append("begin")

        def on_train_end(self, model):
            self.calls.append("end")
            model.prune(0.5)

    net, first = lives(path, Told, (30,))
    again, second = network(), Told()
    with pytest.warns(UserWarning, match="has already ended, after 3 of 3 epochs"):
        fit(again, callbacks=[second], checkpoint=path, resume=True)
    assert first.calls == ["begin", "end"] and second.calls == [] and second.seen() == first.seen()
    assert bits(again) == bits(net) and again.n_edges == net.n_edges


def test_error_at_the_end_loses_no_step_and_the_end_comes_again(path):
    def ending(error):
        class Ending(mlgraph.EarlyStopping):
            def on_train_end(self, model):
                super().on_train_end(model)
                if error:
                    raise OSError("no room for the log")

        return Ending("epoch_loss", mode="max", patience=1)

    with pytest.raises(OSError, match="no room"):
        fit(network(), callbacks=[ending(True)], checkpoint=path, checkpoint_every=1e6)
    net, whole, last = network(), network(), ending(False)
    fit(net, callbacks=[last], checkpoint=path, resume=True)
    fit(whole, callbacks=[ending(False)])
    assert bits(net) == bits(whole) and last.best_epoch == 0 and len(net.history.epoch_loss) == 2


def test_interrupt_within_a_callback_leaves_the_checkpoint_before(path):
    """A state that is half old and half new resumes to nothing that a whole run gives."""

    class Half(Carried):
        def on_epoch_end(self, progress):
            if progress.epoch == 1 and interrupts:
                self.epochs.append("half")
                raise KeyboardInterrupt
            super().on_epoch_end(progress)

    whole, interrupts = network(), False
    fit(whole, callbacks=[Half()])
    interrupts = True
    with pytest.raises(KeyboardInterrupt):
        fit(network(), callbacks=[Half()], checkpoint=path, checkpoint_every=0)
    interrupts, net = False, network()
    fit(net, callbacks=[Half()], checkpoint=path, resume=True)
    assert bits(net) == bits(whole)


class Bad(mlgraph.Callback):
    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([], r"Bad.state_dict\(\): expected a dict, got list"),
        ({"a": [1, {2}]}, r"Bad.state_dict\(\)\['a'\]\[1\]: a checkpoint holds None, .*; got set"),
        ({"a": {1: 2}}, r"Bad.state_dict\(\)\['a'\]: a checkpoint holds .* string keys of these; got dict"),
        ({"a": np.array(["b"])}, r"Bad.state_dict\(\)\['a'\]: a checkpoint holds .*; got <U1 ndarray"),
        ({"a": len}, r"Bad.state_dict\(\)\['a'\]: a checkpoint holds .*; got builtin_function_or_method"),
    ],
)
def test_state_that_a_file_cannot_hold_is_refused_before_the_first_step(path, state, message):
    net = network()
    before = net.graph.get_parameters()
    with pytest.raises(TypeError, match=f"^callbacks: {message}"):
        fit(net, callbacks=[Bad(state)], checkpoint=path)
    assert not path.exists() and (net.graph.get_parameters() == before).all()
    fit(net, callbacks=[Bad(state)], epochs=1)  # without a checkpoint, nobody asks for it


def test_state_dict_needs_load_state_dict():
    class Lacking(mlgraph.Callback):
        def state_dict(self):
            return {}

    with pytest.raises(TypeError, match="callbacks: Lacking has state_dict but no load_state_dict"):
        fit(network(), callbacks=[Lacking()])


def test_functions_with_a_state_are_carried_too(path):
    class Counter:
        def __init__(self):
            self.n = 0

        def __call__(self, progress):
            self.n += progress.kind == "epoch"

        def state_dict(self):
            return {"n": self.n}

        def load_state_dict(self, state):
            self.n = state["n"]

    assert lives(path, Counter, (20, 20, 20))[1].n == 3


@pytest.mark.parametrize(
    ("callbacks", "now"),
    [
        ([], r"\[\]"),
        ([mlgraph.EarlyStopping(patience=9)], r"\[\"EarlyStopping\('validation_loss', patience=9, .*"),
        ([Carried()], r"\['Carried'\]"),
    ],
)
def test_run_is_resumed_with_the_same_callbacks(path, callbacks, now):
    with pytest.raises(Stop):
        fit(network(), callbacks=[mlgraph.EarlyStopping(), stop_at(30)], checkpoint=path, checkpoint_every=0)
    was = r"\[\"EarlyStopping\('validation_loss', patience=10, min_delta=0.0, mode='min', restore_best=True\)\"\]"
    with pytest.raises(mlgraph.CheckpointError, match=f"callbacks was {was}, but is {now} now$"):
        fit(network(), callbacks=callbacks, checkpoint=path, resume=True)
