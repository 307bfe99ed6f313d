"""Batch sizes and learning rates over a run, its history, and what a callback receives."""

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from learnable import TARGETS, N, X, Y, bytes_and_labels, network

import mlgraph
from mlgraph.engine import reference
from mlgraph.engine.steps import epoch_order, epoch_steps
from mlgraph.training import fitting
from mlgraph.training.options import PROGRESS


def schedule(n, epochs, *options):
    """First example, size and rate of all steps, and the epoch of each."""
    parts = [epoch_steps(epoch, n, epochs, *options) for epoch in range(epochs)]
    columns = zip(*(part[:3] for part in parts), strict=True)
    number = np.repeat(np.arange(epochs), [len(part.size) for part in parts])
    return *(np.concatenate(column) for column in columns), number


@pytest.mark.parametrize(
    ("n", "epochs", "batch", "sizes"),
    [
        (7, 1, (3, 3), [3, 3, 1]),
        (5, 2, (100, 100), [5, 5]),
        (5, 2, (2**63 - 1, 3), [5, 5]),  # the first size is rounded to 2^63
        # Size 2 begins at the fourth place, whose p, 1 / 6, is rounded up.
        (10, 3, (1, 51), [1, 1, 1, 2, 2, 3, 7, 3, 10]),
    ],
)
def test_batch_sizes_at_the_edges(n, epochs, batch, sizes):
    assert schedule(n, epochs, batch, (0.1, 0.1))[1].tolist() == sizes


@given(
    st.integers(1, 300), st.integers(1, 4), st.tuples(*[st.integers(1, 400)] * 2), st.tuples(*[st.floats(1e-6, 10)] * 2)
)
def test_any_schedule(n, epochs, batch, rate):
    first, size, rates, number = schedule(n, epochs, batch, rate)
    p = (number * n + first) / (epochs * n)
    wanted = [round(batch[0] * (1 - q**2) + batch[1] * q**2) for q in p]
    np.testing.assert_array_equal(size, np.minimum(wanted, n - first))
    np.testing.assert_allclose(rates, rate[0] * (1 - p**1.5) + rate[1] * p**1.5, rtol=1e-6, atol=1e-30)
    for epoch in range(epochs):
        here, ends = first[number == epoch], np.cumsum(size[number == epoch])
        assert here[0] == 0 and ends[-1] == n and (here[1:] == ends[:-1]).all()


def test_shuffling_matches_the_reference(sweep):
    for epoch, n, seed in ((0, 0, 0), (0, 1, 0), (3, 300, 5), (2**40, 17, 2**64 - 1)):
        np.testing.assert_array_equal(epoch_order(epoch, n, seed), reference.order(seed, epoch, n))
    assert sorted(epoch_order(1, 60_000, 0)) == list(range(60_000))


def test_all_orders_are_equally_likely():
    counts = np.zeros((24, 2))
    places = {order: i for i, order in enumerate(itertools.permutations(range(4)))}
    for k in range(24_000):
        counts[places[tuple(epoch_order(k, 4, 7))], 0] += 1  # epochs of one seed
        counts[places[tuple(epoch_order(3, 4, k))], 1] += 1  # seeds of one epoch
    # Chi-squared with 23 degrees of freedom is above 49.7 once in a thousand times.
    assert (((counts - 1000) ** 2 / 1000).sum(axis=0) < 49.7).all()


@pytest.mark.parametrize(("batch", "rate"), [((50, 7), (0.1, 0.001)), ((64, 64), 0.05)], ids=str)
def test_history(batch, rate):
    net, held = network(), bytes_and_labels(31, seed=1)
    first = net.evaluate(X[: batch[0]], Y[: batch[0]])
    h = net.fit(X, Y, epochs=3, batch_size=batch, learning_rate=rate, shuffle=False, validation_data=held)
    _, sizes, rates, number = schedule(N, 3, batch, rate if batch == (50, 7) else (rate, rate))
    assert h.batch_size.tolist() == sizes.tolist() and h.epoch_examples.tolist() == [N, 2 * N, 3 * N]
    assert h.batch_examples.tolist() == np.cumsum(sizes).tolist()
    np.testing.assert_array_equal(h.learning_rate, rates)
    assert (h.batch_loss[0], h.batch_accuracy[0]) == (pytest.approx(first["loss"], rel=1e-5), first["accuracy"])
    for each, mean in ((h.batch_loss, h.epoch_loss), (h.batch_accuracy, h.epoch_accuracy)):
        wanted = [np.average(each[number == epoch], weights=sizes[number == epoch]) for epoch in range(3)]
        np.testing.assert_allclose(mean, wanted, rtol=1e-6)
    scores = net.evaluate(*held)
    assert (h.validation_loss[-1], h.validation_accuracy[-1]) == (scores["loss"], scores["accuracy"])
    assert len(h.validation_loss) == len(h.epoch_seconds) == 3 and (h.epoch_seconds > 0).all()
    assert h.epoch_edges.tolist() == [net.n_edges] * 3


def test_history_without_validation_or_labels():
    h = network("tanh").fit(X, TARGETS, epochs=2)
    assert len(h.validation_loss) == len(h.validation_accuracy) == 0 and np.isnan(h.batch_accuracy).all()
    assert np.isnan(h.epoch_accuracy).all()
    h = network("tanh").fit(X, TARGETS, epochs=1, validation_data=(X, TARGETS))
    assert np.isfinite(h.validation_loss).all() and np.isnan(h.validation_accuracy).all()


@pytest.mark.parametrize("weight_decay", [0.0, 5.0])
def test_default_schedule_written_as_a_function_gives_same_bits(weight_decay):
    nets = network(), network()
    for net, rate in zip(nets, ((0.1, 0.01), lambda p: 0.1 * (1 - p**1.5) + 0.01 * p**1.5), strict=True):
        net.fit(X, Y, epochs=3, batch_size=(50, 7), learning_rate=rate, weight_decay=weight_decay)
    np.testing.assert_array_equal(*(net.graph.get_parameters() for net in nets))
    np.testing.assert_array_equal(*(net.history.learning_rate for net in nets))


@pytest.mark.parametrize(
    ("rate", "error"),
    [
        (lambda p: None, r"learning_rate\(0\): expected a number from 0 to 3\.40282e\+38, got None"),
        (lambda p: 0.1 if p < 0.9 else math.nan, r"learning_rate\(0\.9\): .* got nan"),
        (lambda p: 3.0 - p, r"weight_decay: expected a number from 0 to 1 / learning_rate, 0\.333333, got 0\.4"),
    ],
)
def test_learning_rate_function_with_invalid_values(rate, error):
    net = network()
    before = net.graph.get_parameters()
    with pytest.raises((TypeError, ValueError), match=f"^{error}"):
        net.fit(X, Y, learning_rate=rate, weight_decay=0.4)
    np.testing.assert_array_equal(net.graph.get_parameters(), before)


@pytest.mark.parametrize("rates", [5, 1001])
def test_stop_iteration_of_a_learning_rate_function_is_an_error(rates):
    """In a loop over an iterator it would end the loop of the caller."""
    left = iter([0.1] * rates)
    with pytest.raises(RuntimeError, match=r"^learning_rate: the function raised StopIteration$"):
        network().fit(X, Y, epochs=3, batch_size=20, learning_rate=lambda p: next(left))


def test_weight_decay_is_capped_at_an_unsampled_peak_of_the_rate():
    """A step removes at most all of a weight."""
    seen, net = set(PROGRESS.tolist()), mlgraph.Network(3, seed=0)
    net.add_layer(2, "identity", bias=False)
    options = {"epochs": 3, "batch_size": 8, "weight_decay": 1.0}
    h = net.fit(np.zeros((8, 3)), np.zeros((8, 2)), learning_rate=lambda p: 0.5 if p in seen else 3.0, **options)
    assert h.learning_rate.tolist() == [0.5, 3.0, 3.0] and not net.layers[0].weights.any()


def test_callback_receives_progress():
    net, events = network(), []

    def listen(p):
        events.append(p)
        assert (p.epochs, p.total_examples) == (3, 3 * N) and p.history is net.history
        assert p.history.batch_examples[-1] == p.examples
        assert len(p.history.epoch_loss) == len(p.history.validation_loss) == p.epoch + (p.kind == "epoch")

    h = net.fit(X, Y, epochs=3, batch_size=20, callbacks=[listen], validation_data=(X, Y))
    for epoch in range(3):
        *steps, end = (p for p in events if p.epoch == epoch)
        assert {p.kind for p in steps} == {"steps"} and end.kind == "epoch" and end.examples == (epoch + 1) * N
        assert (end.batch_loss, end.batch_accuracy) == (h.epoch_loss[epoch], h.epoch_accuracy[epoch])
        seen = np.diff([epoch * N, *(p.examples for p in steps)])
        assert (seen > 0).all() and seen.sum() == N
        assert np.average([p.batch_loss for p in steps], weights=seen) == pytest.approx(end.batch_loss, rel=1e-6)


def test_layer_added_while_a_run_begins_is_an_error(monkeypatch):
    real = fitting.read_with_targets

    def read(model, *arguments, **options):
        found = real(model, *arguments, **options)
        model.add_layer(4, "softmax")
        return found

    monkeypatch.setattr(fitting, "read_with_targets", read)
    with pytest.raises(RuntimeError, match="fit: a layer was added to the network"):
        network().fit(X, Y, epochs=1)


def test_exception_in_a_callback_ends_the_run():
    net = network()
    with pytest.raises(ZeroDivisionError):
        net.fit(X, Y, epochs=3, callbacks=[lambda progress: 1 / 0])
    assert len(net.history.batch_loss) and np.isfinite(net.evaluate(X, Y)["loss"])


@pytest.mark.parametrize(("kind", "epochs"), [("steps", 1), ("epoch", 2)])
def test_callback_ends_the_run_by_stop_iteration(kind, epochs):
    net, whole, told = network(), network(), []

    def enough(progress):
        told.append(progress)
        if (progress.kind, progress.epoch) == (kind, 1):
            raise StopIteration

    options = {"epochs": 3, "batch_size": 20, "validation_data": (X, Y)}
    history, longer = net.fit(X, Y, **options, callbacks=[enough]), whole.fit(X, Y, **options)
    assert history is net.history and history.batch_examples[-1] == told[-1].examples
    assert len(history.epoch_loss) == len(history.validation_loss) == epochs
    assert history.batch_loss.tolist() == longer.batch_loss[: len(history.batch_loss)].tolist()
    if kind == "epoch":
        assert net.evaluate(X, Y)["loss"] == longer.validation_loss[1] == history.validation_loss[-1]


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1 - 1e-7])
def test_first_step_of_adam_has_the_length_of_its_rate(sweep, momentum):
    """Even when float32 rounds its momentum."""
    g = mlgraph.Graph(seed=0)
    p = g.add_parameter(0.0)
    model = mlgraph.Model(g, p * 1.0, loss=3 * p)
    model.fit(np.zeros((4, 0)), epochs=1, learning_rate=1e-3, momentum=momentum, optimizer="adam")
    assert p.value == pytest.approx(-1e-3, rel=1e-6)


@pytest.mark.parametrize(("n", "size", "epochs"), [(20, 32, 2000), (150, 32, 500), (6400, 100, 32), (60_000, 128, 10)])
def test_defaults_depend_on_the_number_of_examples(n, size, epochs):
    """Batches of a 64th of the examples within 32 and 128; ten epochs, or as many as 2,000 batches take."""

    class FirstEpoch(mlgraph.Callback):
        def on_epoch_end(self, progress):
            told.append((int(progress.history.batch_size[0]), progress.epochs, progress.history.learning_rate[0]))
            raise StopIteration

    told, net = [], mlgraph.Network(1, seed=0)
    net.add_layer(1)
    net.fit(np.zeros((n, 1)), np.zeros(n), callbacks=[FirstEpoch()])
    assert told == [(min(n, size), epochs, pytest.approx(0.003))]
