"""Infinities and NaN reach no parameter: what each policy does with a step that overflows."""

import numpy as np
import pytest
from editable import everything
from overflowing import FLOATS, RNG, TARGETS, N, X, Y, bits, is_finite, network, one_neuron

import mlgraph
from mlgraph.training import nonfinite
from mlgraph.training.nonfinite import Limits

OPTIMIZERS = {"sgd": {"momentum": 0.0}, "momentum": {"momentum": 0.9}, "adam": {"optimizer": "adam"}}
with_each_optimizer = pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)


def history(model):
    return {name: column.tobytes() for name, column in vars(model.history).items() if name != "epoch_seconds"}


MODELS = {
    "dense": lambda: network(),
    "sparse rows": lambda: network(width=5),
    "dropout": lambda: network(dropout=0.5),
    "dropped edges": lambda: network(weight_dropout=0.4),
    "wide": lambda: network(width=300),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@with_each_optimizer
def test_steps_taken_alone_give_same_bits(monkeypatch, make, options):
    """Whether a step is certain to be finite decides only how it is taken."""
    x, made, alone, step = X * (RNG.random(X.shape) < 0.3), [], [], nonfinite.Guard.step
    monkeypatch.setattr(nonfinite.Guard, "step", lambda *given: alone.append(given) or step(*given))
    for limits in (nonfinite.limits, lambda *_: Limits(0.0, 0.0, 0.0), lambda *_: Limits(1e-3, 1e-3, 1e-6)):
        monkeypatch.setattr(nonfinite, "limits", limits)
        net = make()
        net.fit(x, Y, epochs=4, batch_size=(50, 20), learning_rate=0.003, n_threads=len(made) + 1, **options)
        made.append((bits(net), history(net), len(alone)))
    assert made[0][:2] == made[1][:2] == made[2][:2]
    assert made[0][2] == 0 and made[1][2] == len(net.history.batch_loss)


def chain(factor, weight):
    """A chain of neurons that are summed and updated one by one; the last also reads the second input."""
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(3)
    one = g.add_neuron([x[0]], weights=[0.5], bias=None)
    two = g.add_neuron([one], weights=[0.5], bias=None)
    last = g.add_neuron([two, x[1]], weights=[weight, 0.0], bias=None)
    return mlgraph.Model(g, [last], loss=last * x[2] * factor)


LAST_STEPS = {
    # factor of the loss, a weight, learning rate, data of the first three steps and of the fourth
    "forward": (1.0, 3e38, 1e-3, (0, 0, 1), (40, 0, 1)),
    "backward": (1.0, 1e3, 1e-3, (1, 0, 1e-3), (0, 1, 1e38)),
    "gradient": (1e20, 0.25, 1e-22, (1, 0, 1), (1, 1e30, 1)),
    "sum": (1e7, 0.25, 1e-9, (1, 0, 1), (1, 4e31, 1)),
    "moved": (1e7, 0.25, 100.0, (0, 0, 1), (1, 1e30, 1)),
}


@with_each_optimizer
@pytest.mark.parametrize("how", LAST_STEPS)
def test_overflowing_step_leaves_parameters_and_state_as_before(sweep, options, how):
    factor, weight, rate, before, after = LAST_STEPS[how]
    net, other = chain(factor, weight), chain(factor, weight)
    x = np.repeat(np.array([before, after], np.float32), [150, 50], axis=0)
    given = {"epochs": 1, "batch_size": 50, "shuffle": False, "learning_rate": rate, **options}
    with pytest.raises(mlgraph.NonFiniteError, match=r"^epoch 1, step 4: ") as error:
        net.fit(x, n_threads=2, **given)
    other.fit(x[:150], n_threads=1, **given)
    assert bits(net) == bits(other) and len(net.history.batch_loss) == 3
    assert error.value.sweep == (how if how in ("forward", "backward") else "update")
    assert (error.value.example < 0) == (how in ("sum", "moved"))


@pytest.mark.parametrize("example", [0, 15, 32])
@pytest.mark.parametrize(("where", "weight", "data"), [("forward", 1.0, (1, 0, 1e20)), ("backward", 1e20, (0, 1, 1))])
def test_single_overflow_is_found(sweep, example, where, weight, data):
    """Wherever the example stands among those that are swept together."""
    net, x = chain(1e30, weight), np.tile(np.float32([1, 0, 0]), (33, 1))
    x[example] = data
    before = net.graph.get_parameters()
    with pytest.raises(mlgraph.NonFiniteError) as error:
        net.fit(x, epochs=1, batch_size=33, shuffle=False, learning_rate=1e-3, momentum=0)
    assert (error.value.sweep, error.value.example) == (where, example)
    np.testing.assert_array_equal(net.graph.get_parameters(), before)


@pytest.mark.filterwarnings("ignore:y. outputs of tanh are")
@pytest.mark.filterwarnings("ignore:fit. the run diverged")
@pytest.mark.slow
@with_each_optimizer
@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.filterwarnings("ignore:the numbers in column")
def test_parameters_stay_finite_for_numbers_of_any_size(options, policy):
    """Data, weights, targets and rates of all magnitudes."""
    rng, ends = np.random.default_rng(3), set()

    def size(most):
        return np.float32(10.0 ** rng.uniform(-most, most))

    for _ in range(100):
        net = network(
            rng.choice(["softmax", "identity", "tanh"]),
            width=int(rng.choice([4, 20, 40])),
            activation="relu",
            weight_dropout=float(rng.choice([0, 0.3])),
        )
        for neuron in (neuron for layer in net.layers for neuron in layer):
            neuron.weights *= size(30)
        x, y = (np.clip(values.astype(float) * size(38), -3e38, 3e38) for values in (FLOATS, TARGETS))
        given = {"epochs": 3, "batch_size": 40, "learning_rate": min(size(38), 3e38), "on_nonfinite": policy}
        try:
            net.fit(x, Y if net.probability_ids else y, **given, **options)
            ends.add("skipped" if net.history.batch_skipped.any() else "finite")
        except mlgraph.NonFiniteError as error:
            ends.add(error.sweep)
        assert is_finite(net)
    assert {"raise": {"finite", "forward", "update"}, "skip": {"finite", "skipped"}}[policy] <= ends


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 1e4), ("sgd", 3e38), ("adam", 1e10), ("adam", 3e38)])
def test_huge_learning_rate_raises_and_keeps_parameters_finite(sweep, optimizer, rate):
    net = network("identity")
    message = r"^epoch \d+, step \d+: layer \d neuron \d+ .*; a lower learning rate"
    with pytest.raises(mlgraph.NonFiniteError, match=message):
        net.fit(X, np.eye(3)[Y], epochs=300, batch_size=20, learning_rate=rate, optimizer=optimizer)
    assert is_finite(net) and np.isfinite(net.history.batch_loss).all()


def test_limits_hold_for_the_highest_rate_of_an_epoch():
    g = mlgraph.Graph(seed=0)
    w = g.add_parameter(1.0)
    model = mlgraph.Model(g, w * g.add_input(), w * 1e20)
    with pytest.raises(mlgraph.NonFiniteError):
        model.fit(np.ones((50, 1)), batch_size=1, epochs=1, momentum=0, learning_rate=(1e-30, 1e25))
    assert np.isfinite(g.parameters).all()


BAD = [3, 50, 51, 120]
GOOD = np.delete(np.arange(N), BAD)
SPOILT = FLOATS.copy()
SPOILT[:, 0] = 0
SPOILT[BAD, 0] = 10


def sensitive():
    """A network in which one neuron overflows for the BAD examples."""
    net = network()
    net.layers[0].neurons[5].weights[0] = 3e38
    return net


@with_each_optimizer
def test_skip_trains_as_if_bad_examples_were_absent(sweep, options):
    net, other, events = sensitive(), sensitive(), []
    given = {"batch_size": N, "epochs": 3, "shuffle": False, **options}
    h = net.fit(SPOILT, Y, on_nonfinite="skip", callbacks=[events.append], **given)
    other.fit(SPOILT[GOOD], Y[GOOD], **given)
    assert bits(net) == bits(other) and not other.history.batch_skipped.any()
    for name in ("batch_loss", "batch_accuracy", "epoch_loss", "epoch_accuracy"):
        assert getattr(h, name).tobytes() == getattr(other.history, name).tobytes(), name
    assert events[-1].batch_loss == h.epoch_loss[-1] and events[-1].batch_accuracy == h.epoch_accuracy[-1]
    assert h.batch_skipped.tolist() == [4, 4, 4] and h.batch_size.tolist() == [N] * 3
    assert h.nonfinite_step.tolist() == [0] * 4 + [1] * 4 + [2] * 4 and h.nonfinite_example.tolist() == BAD * 3
    assert set(h.nonfinite_sweep) == {0} and set(h.nonfinite_node) == {net.layers[0].neurons[5].id}


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.filterwarnings("ignore:the numbers in column")
def test_batch_with_all_examples_skipped(labels):
    net = network() if labels else one_neuron(lambda n: n, np.full(12, 10.0))
    data, events = [np.full((6, 12), 3e38, np.float32), Y[:6]][: 1 + labels], []
    before = net.graph.get_parameters()
    h = net.fit(*data, on_nonfinite="skip", batch_size=3, epochs=2, callbacks=[events.append])
    np.testing.assert_array_equal(net.graph.get_parameters(), before)
    assert h.batch_skipped.tolist() == [3] * 4 and np.isnan(h.batch_loss).all()
    assert np.isnan(h.epoch_loss).all() and np.isnan(events[0].batch_loss)


def test_step_whose_sum_overflows_is_skipped_whole():
    model, x = one_neuron(lambda n: n * 1e8, [0.0], bias=None), np.repeat([[3e31], [1]], 20, axis=0)
    options = {
        "epochs": 1,
        "batch_size": 20,
        "shuffle": False,
        "momentum": 0.0,
        "learning_rate": 1e-9,
        "optimizer": "sgd",
    }
    h = model.fit(x, on_nonfinite="skip", **options)
    assert h.batch_skipped.tolist() == [20, 0] and h.nonfinite_example.tolist() == [-1]
    assert h.nonfinite_sweep.tolist() == [2] and model.outputs[0].weights == [np.float32(-1e8) * np.float32(1e-9)]


def test_skip_repeats_until_the_step_is_finite():
    """Each remaining example weighs more."""
    model = one_neuron(lambda n: n * 1e8, [0.0], bias=None)
    h = model.fit(
        [[3e38], [3e30], [2e30], [1]],
        epochs=1,
        momentum=0.0,
        learning_rate=1e-31,
        on_nonfinite="skip",
        optimizer="sgd",
        batch_size=128,
    )
    assert 0 < h.batch_skipped[0] < 4 and len(set(h.nonfinite_example)) == h.batch_skipped[0]
    assert np.isfinite(model.outputs[0].weights).all() and model.outputs[0].weights[0] < 0


@with_each_optimizer
def test_disconnect_trains_as_if_the_neuron_had_been_pruned(sweep, options):
    net, other = sensitive(), sensitive()
    neuron = net.layers[0].neurons[5]
    other.layers[0].neurons[5].prune()
    h = net.fit(SPOILT, Y, on_nonfinite="disconnect", batch_size=N, epochs=3, n_threads=2, **options)
    other.fit(SPOILT, Y, batch_size=N, epochs=3, n_threads=1, **options)
    assert net.predict_proba(SPOILT).tobytes() == other.predict_proba(SPOILT).tobytes()
    assert h.batch_loss.tobytes() == other.history.batch_loss.tobytes() and not h.batch_skipped.any()
    assert not neuron.alive and sum(n.alive for n in net.layers[0].neurons) == 19
    assert h.nonfinite_cut.tolist() == h.nonfinite_node.tolist() == [neuron.id]
    assert h.nonfinite_step.tolist() == h.nonfinite_sweep.tolist() == [0] and h.nonfinite_example[0] in BAD


def test_disconnect_may_cut_frozen_neurons():
    """Freezing protects edges only from `prune` and schedules during `fit`."""
    net = sensitive()
    layer, neuron, weights = net.layers[0], net.layers[0].neurons[5], net.layers[0].weights.copy()
    layer.frozen = True
    net.fit(SPOILT, Y, epochs=2, on_nonfinite="disconnect")
    weights[5] = 0
    np.testing.assert_array_equal(layer.weights, weights)
    assert [n for n in layer if not n.alive] == [neuron] and all(n.frozen for n in layer if n.alive)


def test_disconnect_cuts_the_largest_contribution_to_an_operation():
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(2)
    small, large = (g.add_neuron(x, weights=w) for w in ([0.1, 0.2], [0.1, 90.0]))
    out = g.add_neuron([mlgraph.exp(small), mlgraph.exp(large)], weights=[1.0, 1.0])
    h = mlgraph.Model(g, [out]).fit([[1, 0], [1, 1]], [1.0, 2.0], epochs=1, on_nonfinite="disconnect")
    assert h.nonfinite_cut.tolist() == [large.id] and g[h.nonfinite_node[0]].kind == "exp"
    assert not large.alive and small.alive and len(out.sources) == 1


def test_failed_disconnect_raises_and_undoes_all_cuts_of_the_step():
    net = sensitive()
    for neuron in net.layers[0].neurons:
        neuron.weights = net.layers[0].neurons[5].weights
    before = everything(net.graph)
    with pytest.raises(mlgraph.NonFiniteError, match=r"; no neuron that led to it may be disconnected$"):
        net.fit(
            SPOILT,
            Y,
            epochs=1,
            on_nonfinite="disconnect",
            momentum=0.0,
            optimizer="sgd",
            learning_rate=0.05,
            batch_size=128,
        )
    assert everything(net.graph) == before and all(neuron.alive for neuron in net.layers[0].neurons)
    assert len(net.history.nonfinite_cut) == 0 and repr(net.history) == "<History of 0 epochs, 0 batches>"


def test_history_repr_counts_skipped_and_cut():
    for policy, what in (("skip", f"{len(BAD)} examples left out"), ("disconnect", "1 neurons cut")):
        h = sensitive().fit(
            SPOILT, Y, epochs=1, on_nonfinite=policy, optimizer="sgd", learning_rate=0.05, batch_size=128
        )
        assert repr(h) == f"<History of 1 epochs, 2 batches, {what}, epoch loss {h.epoch_loss[-1]:.4g}>"


def test_run_without_trainable_parameters_left_continues_and_resumes(tmp_path):
    """Infinite losses are no fault if nothing trains, and losses of both infinities have the mean NaN."""
    g = mlgraph.Graph(seed=0)
    x, data = g.add_input(), np.array([[3.0], [0.0], [-0.0], [2.0]], np.float32)
    loss = 1 / x + mlgraph.exp(g.add_neuron([x], weights=[100.0]))
    run = {"epochs": 2, "batch_size": 1, "shuffle": False, "on_nonfinite": "disconnect"}
    run["checkpoint"] = tmp_path / "run.npz"

    def stop(progress):
        if progress.kind == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mlgraph.Model(g, [loss], loss).fit(data, **run, callbacks=[stop])
    h = mlgraph.load(tmp_path / "run.npz").fit(data, **run, resume=True)
    np.testing.assert_allclose(h.batch_loss, [4 / 3, np.inf, -np.inf, 1.5] * 2)
    assert np.isnan(h.epoch_loss).all()


@pytest.mark.parametrize("policy", ["raise", "skip", "disconnect"])
def test_run_without_cuts_leaves_the_last_edit_to_undo(policy):
    net = network()
    net.layers[0].neurons[3].in_edges[0].prune()
    n = net.n_edges
    net.fit(
        X, Y, epochs=1, momentum=1 - 1e-9, on_nonfinite=policy, optimizer="sgd", learning_rate=0.05, batch_size=128
    )  # no step is certain to be finite
    net.undo()
    assert net.n_edges == n + 1
