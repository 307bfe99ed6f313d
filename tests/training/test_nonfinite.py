"""Infinities and NaN reach no parameter: what each policy does with a step that overflows."""

import itertools

import numpy as np
import pytest
from editable import everything
from faulty import OPTIMIZERS
from overflowing import FLOATS, RNG, TARGETS, N, X, Y, bits, is_finite, network, one_neuron

import mlgraph
from mlgraph.training import nonfinite
from mlgraph.training.nonfinite import Limits


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
@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_steps_taken_alone_give_same_bits(monkeypatch, make, options):
    """Whether a step is certain to be finite decides only how it is taken."""
    x = X * (RNG.random(X.shape) < 0.3)
    made, steps = [], []
    for limits in (nonfinite.limits, lambda *_: Limits(0.0, 0.0, 0.0), lambda *_: Limits(1e-3, 1e-3, 1e-6)):
        with monkeypatch.context() as context:
            context.setattr(nonfinite, "limits", limits)
            step = nonfinite.Guard.step
            context.setattr(nonfinite.Guard, "step", lambda *given, step=step: steps.append(given) or step(*given))
            net = make()
            net.fit(x, Y, epochs=4, batch_size=(50, 20), learning_rate=0.003, n_threads=len(made) + 1, **options)
        made.append((bits(net), history(net), len(steps)))
    assert made[0][:2] == made[1][:2] == made[2][:2]
    assert made[0][2] == 0 and made[1][2] == len(net.history.batch_loss)


def chain(factor, weight):
    """A chain of neurons that are summed and updated one by one; the last also reads the second input."""
    g = mlgraph.Graph()
    x = g.inputs(3)
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


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("how", LAST_STEPS)
def test_overflowing_step_leaves_parameters_and_state_as_before(sweep, options, how):
    factor, weight, rate, before, after = LAST_STEPS[how]
    net, other = chain(factor, weight), chain(factor, weight)
    x = np.repeat(np.array([before, after], np.float32), [150, 50], axis=0)
    given = {"epochs": 1, "batch_size": 50, "shuffle": False, "learning_rate": rate, **options}
    with pytest.raises(mlgraph.NonFiniteError, match=r"^epoch 0, step 3: ") as error:
        net.fit(x, n_threads=2, **given)
    other.fit(x[:150], n_threads=1, **given)
    assert bits(net) == bits(other) and len(net.history.batch_loss) == 3
    assert error.value.sweep == (how if how in ("forward", "backward") else "update")
    assert (error.value.example < 0) == (how in ("sum", "moved"))


@pytest.mark.parametrize("example", [0, 15, 32])
def test_single_infinite_adjoint_is_found(sweep, example):
    """Wherever it stands among those that are swept together, though data, values and all other adjoints are small."""
    net, x = chain(1e30, 1e20), np.tile(np.float32([1, 0, 0]), (33, 1))
    x[example] = 0, 1, 1
    before = net.graph.get_parameters().tobytes()
    with pytest.raises(mlgraph.NonFiniteError) as error:
        net.fit(x, epochs=1, batch_size=33, shuffle=False, learning_rate=1e-3, momentum=0)
    assert error.value.sweep == "backward" and error.value.example == example
    assert net.graph.get_parameters().tobytes() == before


@pytest.mark.parametrize("example", [0, 32, 63])
def test_single_infinite_loss_is_found(sweep, example):
    g = mlgraph.Graph()
    x = g.inputs(2)
    n = g.add_neuron([x[0]], weights=[0.5])
    model, before = mlgraph.Model(g, n, loss=n + x[1] * 3e38 + x[1] * 2e38), g.get_parameters().tobytes()
    data = np.tile(np.float32([1, 0]), (64, 1))
    data[example, 1] = 1
    with pytest.raises(mlgraph.NonFiniteError) as error:
        model.fit(data, epochs=1, batch_size=64, shuffle=False, learning_rate=1e-3, momentum=0)
    assert error.value.sweep == "forward" and error.value.example == example
    assert g.get_parameters().tobytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_parameters_stay_finite_for_numbers_of_any_size(options, policy):
    """Data, weights, targets and rates of all magnitudes."""
    rng, ends = np.random.default_rng(3), []
    for _ in range(150):

        def size(most):
            return np.float32(10.0 ** rng.uniform(-most, most))

        net = network(
            rng.choice(["softmax", "identity", "tanh"]),
            width=int(rng.choice([4, 20, 40])),
            activation="relu",
            dropout=float(rng.choice([0, 0.5])),
            weight_dropout=float(rng.choice([0, 0.3])),
        )
        for layer in net.layers:
            for neuron in layer.neurons:
                neuron.weights *= size(30)
        with np.errstate(over="ignore"):
            x = np.clip(FLOATS * size(38), -3e38, 3e38) * (rng.random(FLOATS.shape) < rng.choice([0.2, 1]))
        y = Y if net.probability_ids else np.clip(TARGETS.astype(float) * size(38), -3e38, 3e38)
        assert is_finite(net)
        try:
            net.fit(x, y, epochs=3, batch_size=40, learning_rate=min(size(38), 3e38), on_nonfinite=policy, **options)
            ends.append("finite" if net.history.batch_skipped.sum() == 0 else "skipped")
        except mlgraph.NonFiniteError as error:
            ends.append(error.sweep)
        assert is_finite(net)
    assert {"raise": {"finite", "forward", "update"}, "skip": {"finite", "skipped"}}[policy] <= set(ends), set(ends)


@pytest.mark.parametrize(
    ("optimizer", "rate"), [("sgd", 1e4), *itertools.product(["sgd", "adam"], [1e10, 1e20, 1e30, 3e38])]
)
def test_huge_learning_rate_raises_and_keeps_parameters_finite(sweep, optimizer, rate):
    net = network("identity")
    message = r"^epoch \d+, step \d+: layer \d neuron \d+ .*; a lower learning rate"
    with pytest.raises(mlgraph.NonFiniteError, match=message) as error:
        net.fit(X, np.eye(3)[Y], epochs=300, batch_size=20, learning_rate=rate, optimizer=optimizer)
    assert is_finite(net) and np.isfinite(net.history.batch_loss).all()
    assert len(net.history.batch_loss) or error.value.sweep == "update"


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


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_skip_trains_as_if_bad_examples_were_absent(sweep, options):
    net, other = sensitive(), sensitive()
    net.fit(SPOILT, Y, on_nonfinite="skip", batch_size=N, epochs=3, shuffle=False, n_threads=2, **options)
    other.fit(SPOILT[GOOD], Y[GOOD], batch_size=N, epochs=3, shuffle=False, n_threads=1, **options)
    assert bits(net) == bits(other)
    for name in ("batch_loss", "batch_accuracy", "epoch_loss", "epoch_accuracy"):
        assert getattr(net.history, name).tobytes() == getattr(other.history, name).tobytes(), name
    h = net.history
    assert h.batch_skipped.tolist() == [4, 4, 4] and h.batch_size.tolist() == [N] * 3
    assert h.nonfinite_step.tolist() == [0] * 4 + [1] * 4 + [2] * 4 and h.nonfinite_example.tolist() == BAD * 3
    assert set(h.nonfinite_sweep) == {0} and set(h.nonfinite_node) == {net.layers[0].neurons[5].id}
    assert not other.history.batch_skipped.any() and len(other.history.nonfinite_step) == 0


def test_callback_and_history_report_skipped_examples():
    events = []
    history = sensitive().fit(SPOILT, Y, on_nonfinite="skip", batch_size=20, epochs=2, callback=events.append)
    assert history.batch_skipped.sum() == 8 and sorted(history.nonfinite_example) == sorted(BAD * 2)
    assert np.isfinite(history.batch_loss).all() and np.isfinite(history.epoch_loss).all()
    assert all(np.isfinite(event.batch_loss) and 0 <= event.batch_accuracy <= 1 for event in events)
    assert history.to_dict()["batch_skipped"] == history.batch_skipped.tolist()


@pytest.mark.parametrize("targets", [Y, None])
def test_batch_with_all_examples_skipped(targets):
    x = np.full((6, 12), 3e38, np.float32)
    net = network() if targets is not None else one_neuron(lambda n: n, np.full(12, 10.0))
    events, given = [], (x,) if targets is None else (x, targets[:6])
    net.evaluate(*given, *[()] * (targets is None))  # compiled
    before = net.graph.parameters.copy()
    history = net.fit(*given, on_nonfinite="skip", batch_size=3, epochs=2, callback=events.append, validation=None)
    np.testing.assert_array_equal(net.graph.parameters, before)
    assert history.batch_skipped.tolist() == [3] * 4
    assert np.isnan(history.batch_loss).all() and np.isnan(history.epoch_loss).all()
    assert history.to_dict()["epoch_loss"] == [None, None] and np.isnan(events[0].batch_loss)


def test_step_whose_sum_overflows_is_skipped_whole():
    model = one_neuron(lambda n: n * 1e8, [0.0], bias=None)
    history = model.fit(
        [[3e31]] * 20 + [[1]] * 20,
        epochs=1,
        batch_size=20,
        shuffle=False,
        momentum=0.0,
        learning_rate=1e-9,
        on_nonfinite="skip",
    )
    assert history.batch_skipped.tolist() == [20, 0] and history.nonfinite_example.tolist() == [-1]
    assert history.nonfinite_sweep.tolist() == [2] and model.outputs[0].weights == [np.float32(-1e8) * np.float32(1e-9)]


def test_skip_repeats_until_the_step_is_finite():
    """Each remaining example weighs more."""
    model = one_neuron(lambda n: n * 1e8, [0.0], bias=None)
    history = model.fit([[3e38], [3e30], [2e30], [1]], epochs=1, momentum=0.0, learning_rate=1e-31, on_nonfinite="skip")
    assert 0 < history.batch_skipped[0] < 4 and len(set(history.nonfinite_example)) == history.batch_skipped[0]
    assert np.isfinite(model.outputs[0].weights).all() and model.outputs[0].weights[0] < 0


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_disconnect_trains_as_if_the_neuron_had_been_pruned(sweep, options):
    net, other = sensitive(), sensitive()
    other.layers[0].neurons[5].prune()
    history = net.fit(SPOILT, Y, on_nonfinite="disconnect", batch_size=N, epochs=3, n_threads=2, **options)
    other.fit(SPOILT, Y, batch_size=N, epochs=3, n_threads=1, **options)
    assert net.predict_proba(SPOILT).tobytes() == other.predict_proba(SPOILT).tobytes()
    assert net.history.batch_loss.tobytes() == other.history.batch_loss.tobytes()
    neuron = net.layers[0].neurons[5]
    assert not neuron.alive and sum(n.alive for n in net.layers[0].neurons) == 19
    assert history.nonfinite_cut.tolist() == history.nonfinite_node.tolist() == [neuron.id]
    assert (
        history.nonfinite_step.tolist() == history.nonfinite_sweep.tolist() == [0]
        and history.nonfinite_example[0] in BAD
    )
    assert not history.batch_skipped.any()


@pytest.mark.parametrize("by", ["on_nonfinite", "callback"])
def test_disconnect_and_callbacks_may_cut_frozen_neurons(by):
    """Freezing protects edges only from `prune` and schedules during `fit`."""
    net = sensitive()
    frozen = net.layers[0]
    frozen.frozen = True
    weights, neuron = frozen.weights.copy(), frozen.neurons[5]
    if by == "callback":
        neuron.weights[0] = weights[5, 0] = 0.25

    def cut(_):
        if neuron.alive:
            neuron.prune()
            frozen.neurons[2].edges[3].prune()

    more = {"callback": cut} if by == "callback" else {"on_nonfinite": "disconnect"}
    history = net.fit(SPOILT, Y, epochs=2, batch_size=N, **more)
    assert not neuron.alive and history.nonfinite_cut.tolist() == [neuron.id] * (by != "callback")
    weights[5] = 0
    if by == "callback":
        weights[2, 3] = 0
    np.testing.assert_array_equal(frozen.weights, weights)
    assert all(n.frozen for n in frozen if n.alive) and sum(n.alive for n in frozen) == 19


def test_disconnect_cuts_the_largest_contribution_to_an_operation():
    g = mlgraph.Graph()
    x = g.inputs(2)
    small, large = (g.add_neuron(x, weights=w) for w in ([0.1, 0.2], [0.1, 90.0]))
    out = g.add_neuron([mlgraph.exp(small), mlgraph.exp(large)], weights=[1.0, 1.0])
    model = mlgraph.Model(g, [out])
    history = model.fit([[1, 0], [1, 1]], [1.0, 2.0], epochs=1, batch_size=2, on_nonfinite="disconnect")
    assert history.nonfinite_cut.tolist() == [large.id] and g[history.nonfinite_node[0]].kind == "exp"
    assert not large.alive and small.alive and len(out.sources) == 1


def test_disconnect_raises_if_nothing_can_be_cut():
    net = sensitive()
    for neuron in [*net.layers[0].neurons[:5], *net.layers[0].neurons[6:]]:
        neuron.prune()
    net.evaluate(SPOILT, Y)
    before = bits(net)
    with pytest.raises(
        mlgraph.NonFiniteError, match=r"layer 0 neuron 5 is .*; no neuron that led to it may be disconnected$"
    ):
        net.fit(SPOILT, Y, epochs=1, on_nonfinite="disconnect", momentum=0.0)
    assert bits(net) == before and net.layers[0].neurons[5].alive


def test_failed_disconnect_undoes_all_cuts_of_the_step():
    net = sensitive()
    for neuron in net.layers[0].neurons:
        neuron.weights = net.layers[0].neurons[5].weights
    before = everything(net.graph)
    with pytest.raises(mlgraph.NonFiniteError, match=r"; no neuron that led to it may be disconnected$"):
        net.fit(SPOILT, Y, epochs=1, on_nonfinite="disconnect", momentum=0.0)
    assert everything(net.graph) == before and all(neuron.alive for neuron in net.layers[0].neurons)
    assert len(net.history.nonfinite_cut) == 0 and repr(net.history) == "<History of 0 epochs, 0 batches>"


def test_history_repr_counts_skipped_and_cut():
    for policy, what in (("skip", f"{len(BAD)} examples left out"), ("disconnect", "1 neurons cut")):
        history = sensitive().fit(SPOILT, Y, epochs=1, on_nonfinite=policy)
        assert repr(history) == f"<History of 1 epochs, 2 batches, {what}, epoch loss {history.epoch_loss[-1]:.4g}>"


def test_losses_of_both_infinities_have_mean_nan():
    g = mlgraph.Graph()
    ratio = 1 / g.input()
    model = mlgraph.Model(g, [ratio], ratio)
    assert np.isnan(model.evaluate([[0.0], [-0.0], [2.0]], ())["loss"])


def test_run_without_trainable_parameters_left_continues_and_resumes(tmp_path):
    g = mlgraph.Graph()
    x = g.input()
    loss = 1 / x + mlgraph.exp(g.add_neuron([x], weights=[100.0]))
    x = np.array([[3.0], [0.0], [-0.0], [2.0]], np.float32)
    run = {
        "epochs": 2,
        "batch_size": 1,
        "shuffle": False,
        "on_nonfinite": "disconnect",
        "checkpoint": tmp_path / "run.npz",
    }

    def stop(progress):
        if progress.kind == "epoch":
            raise StopIteration

    mlgraph.Model(g, [loss], loss).fit(x, **run, callback=stop)
    h = mlgraph.load(tmp_path / "run.npz").fit(x, **run, resume=True)
    np.testing.assert_allclose(h.batch_loss, [4 / 3, np.inf, -np.inf, 1.5] * 2)
    assert np.isnan(h.epoch_loss).all()


def test_limits_hold_for_the_highest_rate_of_an_epoch():
    g = mlgraph.Graph()
    w = g.parameter(1.0)
    model = mlgraph.Model(g, w * g.input(), w * 1e20)
    with pytest.raises(mlgraph.NonFiniteError):
        model.fit(np.ones((50, 1)), batch_size=1, epochs=1, momentum=0, learning_rate=(1e-30, 1e25))
    assert np.isfinite(g.parameters).all()


@pytest.mark.parametrize("policy", ["raise", "skip", "disconnect"])
def test_run_without_cuts_leaves_the_last_edit_to_undo(policy):
    net = network()
    net.layers[0].neurons[3].edges[0].prune()
    n = net.n_edges
    net.fit(X, Y, epochs=1, momentum=1 - 1e-9, on_nonfinite=policy)  # no step is certain to be finite
    net.undo()
    assert net.n_edges == n + 1
