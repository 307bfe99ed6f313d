"""Lightly pruned layers are computed as dense blocks with holes, which give the results of sparse rows."""

import signal
from functools import partial

import numpy as np
import pytest
from planned import kinds
from swept import data

import mlgraph
from mlgraph.compiler import holes
from mlgraph.compiler.holes import HoleMap, candidates, worth_holes
from mlgraph.compiler.plan import Plan
from mlgraph.engine import choice, reference
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.engine.steps import Steps
from mlgraph.models.running import engine_of

SPARSE = Examples((np.arange(60) // 4 % 4 == 0).astype(np.uint8)[None], 60)  # about as sparse as MNIST


def network(*sizes, **options):
    net = mlgraph.Network(sizes[0], seed=0)
    for size in sizes[1:-1]:
        net.add_layer(size, activation="tanh", **options)
    net.add_layer(sizes[-1], activation="softmax", bias=options.get("bias", True))
    return net


def pruned(*sizes, share=0.3, **options):
    """A network all of whose layers have lost a share of their edges."""
    net = network(*(sizes or (60, 30, 32, 6)), **options)
    net.prune(share, by="random", scope="layer", seed=0)
    return net


def masked(*sizes, share=0.7, together=1, columns=None, layer=0, **options):
    """A network one layer of which has kept a share of its edges from the first columns; the same ones in groups."""
    net = network(*sizes, **options)
    size, sources = sizes[layer + 1], sizes[layer]
    mask = np.random.default_rng(0).random((size // together, sources)) < share
    mask[:, columns if columns is not None else sources :] = False
    net.layers[layer].mask = np.repeat(mask, together, axis=0)
    return net


def is_filled(model, examples=SPARSE, n=None):
    """Whether some rows become blocks for these examples."""
    return engine_of(model).filled(examples, n) is not engine_of(model)


def by_rows(monkeypatch):
    monkeypatch.setattr(Engine, "filled", lambda engine, examples, n=None: engine)


@pytest.fixture
def ran(monkeypatch):
    """For each run of an engine so far, whether it went through blocks with holes."""
    ran, run = [], Engine.execute

    def execute(self, *args, **options):
        ran.append(self._holes is not None)
        return run(self, *args, **options)

    monkeypatch.setattr(Engine, "execute", execute)
    return ran


# --- which rows become blocks ---------------------------------------------------------------------


def test_lightly_pruned_layers_of_eight_neurons_become_blocks():
    net = pruned()
    engine = engine_of(net)
    assert kinds(engine.plan)[:3] == [("rows", 30), ("rows", 32), ("rows", 6)]
    assert kinds(engine.filled(SPARSE).plan)[:3] == [("dense", 30), ("dense", 32), ("rows", 6)]
    assert engine.filled(SPARSE) is engine.filled(SPARSE)
    assert not is_filled(pruned(60, 7, 6, share=0.01)) and is_filled(pruned(60, 8, 6, share=0.01))
    assert not is_filled(pruned(share=0.9)) and not is_filled(pruned(weight_dropout=0.5))


@pytest.mark.parametrize(
    ("share", "together", "zeros", "others"),
    [
        (0.7, 1, True, True),
        (0.4, 1, True, False),
        (0.12, 1, False, False),
        (0.97, 4, True, True),
        (0.7, 4, True, False),
    ],
)
def test_the_fewer_zeros_data_have_the_more_edges_a_block_needs(sweep, share, together, zeros, others):
    """Blocks skip zeros; rows take the same time for all data, and less if four neurons share their sources."""
    net = masked(60, 32, 6, share=share, together=together)
    if sweep.__name__.endswith(("v2", "baseline")):  # has no quads
        others = share > 0.55
    x = np.random.default_rng(0).normal(size=(300, 60)).astype(np.float32)
    few, half = x * (np.arange(60) % 20 < 4), x * (np.arange(60) // 4 % 2 == 0)
    filled = [is_filled(net, Examples(data, 60)) for data in (few, half, x)]
    assert filled == sorted(filled, reverse=True) and [filled[0], filled[2]] == [zeros, others]


@pytest.mark.parametrize(
    ("share", "together", "filled"), [(0.6, 1, True), (0.45, 1, False), (0.85, 4, True), (0.6, 4, False)]
)
def test_later_layers_become_blocks_from_half_of_their_edges_on(sweep, share, together, filled):
    net = masked(40, 20, 48, 10, share=share, together=together, layer=1)
    quads = together == 4 and not sweep.__name__.endswith(("v2", "baseline"))
    assert is_filled(net, Examples(np.ones((1, 40)), 40)) == (filled or (share > 0.52 and not quads))


@pytest.mark.parametrize(("columns", "filled"), [(100, True), (400, False)])
def test_columns_that_no_neuron_reads_count_as_holes(columns, filled):
    net = masked(columns, 32, 6, share=0.5, columns=60)
    assert is_filled(net, Examples(np.eye(4, columns), columns)) == filled


@pytest.mark.parametrize("is_written", [False, True])
def test_neurons_that_read_a_value_twice_stay_rows(is_written):
    """Nodes of equal value share a slot, for which a block has one weight."""
    g, rng = mlgraph.Graph(), np.random.default_rng(0)
    x = g.add_inputs(8)
    neurons = []
    for i in range(16):
        nodes = [*x, *x] if is_written else [mlgraph.sin(node) for node in [*x, *x]]
        sources, weights = nodes[:i] + nodes[i + 1 :], rng.normal(size=15)
        terms = [g.add_parameter(w) * node for w, node in zip(weights, sources, strict=True)]
        neurons.append(mlgraph.tanh(mlgraph.sum(*terms)) if is_written else g.add_neuron(sources, weights=weights))
    model = mlgraph.Model(g, [mlgraph.sum(*neurons)])
    assert ("rows", 16) in kinds(engine_of(model).plan)
    assert not is_filled(model, Examples(np.ones((1, 8)), 8))


@pytest.mark.parametrize(("places", "found"), [((0, 1, 2, 1997, 1998), 0), ((0, 3, 6, 9, 12), 1)])
def test_rows_whose_sources_are_far_apart_are_not_considered(places, found):
    """The time to look for blocks would grow with the distance."""
    g = mlgraph.Graph()
    x = g.add_inputs(4)
    between = [g.add_neuron(x[: 1 + k % 3], "tanh", weights=np.ones(1 + k % 3)) for k in range(2000)]
    some = [between[k] for k in places]
    last = [g.add_neuron(some[: k % 5] + some[k % 5 + 1 :], weights=np.ones(4)) for k in range(16)]
    plan = engine_of(mlgraph.Model(g, [mlgraph.sum(*last, *between)])).plan
    assert kinds(plan)[-2:] == [("rows", 16), ("operation", 1)]
    assert len([c for c in candidates(plan) if plan.instructions[c.number].size == 16]) == found


@pytest.mark.parametrize("share", [0.3, 0.5, 0.95])
def test_the_more_examples_the_fewer_edges_a_block_needs(share):
    found = candidates(engine_of(masked(60, 32, 6, share=share)).plan)
    cost = found[0].cost(0.2) / found[0].weights
    assert worth_holes(found, 0.2) == (found[0].number,)
    others = [found[0]._replace(number=9, singles=10**6, weights=10**9)]  # faster as rows, so they do not count
    for n in (1, 399, 400, 900, 10_000):
        assert bool(worth_holes(found, 0.2, n)) == (n * (1 - 1 / cost) >= 400)
        assert worth_holes(found + others, 0.2, n) == worth_holes(found, 0.2, n)


# --- training -------------------------------------------------------------------------------------


def with_another_reader():
    """No edge of the layer leaves column 0, which another neuron reads."""
    net = masked(60, 30, 6)
    net.layers[0].mask = net.layers[0].mask & (np.arange(60) > 0)
    other = net.graph.add_neuron(list(net.graph)[:3], "relu", weights=np.ones(3))
    net.graph.add_edge(other, net.outputs[0], 0.5)
    return net


@pytest.mark.parametrize(
    ("make", "kind", "options"),
    [
        (pruned, "sparse", {}),
        (pruned, "dense", {"momentum": 0.0}),
        (pruned, "float", {"optimizer": "adam", "learning_rate": 0.003}),
        (partial(pruned, dropout=0.5), "sparse", {}),
        (partial(pruned, dropout=0.9), "sparse", {}),
        (partial(masked, 60, 30, 6, bias=False), "sparse", {}),
        (partial(masked, 60, 8, 6), "sparse", {}),
        (with_another_reader, "sparse", {}),
    ],
)
def test_training_gives_the_results_of_rows(sweep, monkeypatch, make, kind, options):
    x, y = data(300, 60, 6, kind)
    trained = []
    for rows in (False, True):
        net = make()
        sources = [[source.id for source in neuron.sources] for layer in net.layers for neuron in layer.neurons]
        assert is_filled(net)
        if rows:
            by_rows(monkeypatch)
        net.fit(x, y, epochs=3, batch_size=100, validation_data=(x, y), seed=3, **{"learning_rate": 0.05, **options})
        assert sources == [[s.id for s in neuron.sources] for layer in net.layers for neuron in layer.neurons]
        trained.append((net.graph.get_parameters(), net.history.batch_loss, net.history.validation_loss))
    np.testing.assert_allclose(trained[0][0], trained[1][0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.hstack(trained[0][1:]), np.hstack(trained[1][1:]), rtol=1e-4)


@pytest.mark.parametrize("kind", ["dense", "sparse", "float"])
@pytest.mark.parametrize("dropout", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("n", [33, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 200))])
def test_the_gradient_of_a_step_matches_the_reference_and_is_0_in_holes(sweep, kind, dropout, n):
    net = pruned(60, 70, 32, 6, dropout=dropout)
    x, y = data(n, 60, 6, kind)
    engine = engine_of(net)
    losses, gradient = np.zeros(n, np.float32), net.graph.storage.zeros()
    filled = engine.filled(SPARSE)
    filled.execute(
        Examples(x, 60),
        steps=Steps.without_update(np.array([0]), np.array([n]))._replace(number=7),
        gradient=gradient,
        seed=3,
        objective=Objective(net.loss, net.loss_ids, y.astype(np.int32)),
        losses=losses,
    )
    want_losses, want = reference.step(
        engine.plan, net.graph.parameters, x, net.loss, engine.plan.slot[net.loss_ids], label=y, seed=3, number=7
    )
    np.testing.assert_allclose(losses, want_losses, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(gradient, want, rtol=1e-4, atol=2e-6 * np.abs(want).max())
    blocks = filled._copies[4][filled._holes.base :]
    edges = np.unpackbits(filled._holes.edges.astype("<u8").view(np.uint8), bitorder="little").astype(bool)
    assert not blocks[~edges].any() and blocks[edges].any()


@pytest.mark.parametrize("make", [pruned, partial(masked, 130, 30, 10)])
def test_bits_do_not_depend_on_threads_and_tiles(sweep, monkeypatch, make):
    net = make()
    x, y = data(500, net.graph.n_inputs, len(net.outputs), "float")
    results = set()
    for least, n_threads in ((2**62, 1), (2**62, 2), (2**62, 5), (1, 1), (1, 2), (1, 5)):
        monkeypatch.setattr(choice, "WIDE", least)
        net = make()
        net.fit(x, y, epochs=2, batch_size=(256, 7), learning_rate=(0.1, 0.01), seed=5, n_threads=n_threads)
        assert is_filled(net, Examples(x, x.shape[1]))
        results.add(net.graph.parameters.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam", "learning_rate": 0.003}])
def test_a_resumed_run_has_the_same_bits(tmp_path, options):
    x, y = data(300, 60, 6, "sparse")
    options = {"epochs": 3, "batch_size": 37, "learning_rate": 0.05, **options}

    def interrupt(progress):
        if progress.examples > 400:
            raise KeyboardInterrupt

    whole, other, again = pruned(), pruned(), pruned()
    whole.fit(x, y, **options)
    with pytest.raises(KeyboardInterrupt):
        other.fit(x, y, checkpoint=tmp_path / "run", callbacks=[interrupt], **options)
    again.fit(x, y, checkpoint=tmp_path / "run", resume=True, **options)
    assert len(other.history.batch_loss) < len(whole.history.batch_loss)
    assert again.graph.get_parameters().tobytes() == whole.graph.get_parameters().tobytes()


def test_edits_of_a_callback_are_seen():
    net = pruned()
    neuron = net.layers[0].neurons[3]
    cut, n = neuron.in_edges[0], len(neuron.in_edges)

    def edit(progress):
        if progress.kind == "epoch" and progress.epoch == 0:
            cut.prune()
            neuron.weights[1] = 7.0

    net.fit(*data(400, 60, 6, "sparse"), epochs=2, batch_size=100, learning_rate=1e-6, momentum=0.0, callbacks=[edit])
    assert len(neuron.weights) == len(neuron.sources) == n - 1 and abs(neuron.weights[1] - 7) < 0.01


def test_neurons_that_no_output_needs_do_not_change():
    net = pruned()
    unused = net.graph.add_neuron(net.layers[0].neurons[:3], "tanh", weights=[1.0, 2.0, 3.0], bias=4.0)
    net.fit(*data(200, 60, 6, "sparse"), epochs=1, batch_size=50)
    assert [*unused.weights, unused.bias] == [1, 2, 3, 4]


def test_ctrl_c_waits_until_parameters_and_optimizer_state_belong_to_the_same_step(monkeypatch, python_handles_ctrl_c):
    written, from_blocks = [], HoleMap.from_blocks

    def struck(self, *given):
        if not written:
            signal.raise_signal(signal.SIGINT)
        written.append(given)
        from_blocks(self, *given)

    monkeypatch.setattr(HoleMap, "from_blocks", struck)
    with pytest.raises(KeyboardInterrupt):
        pruned().fit(
            *data(200, 60, 6, "sparse"),
            epochs=1,
            batch_size=50,
            callbacks=[lambda progress: None],
            optimizer="sgd",
            learning_rate=0.05,
        )
    assert len(written) == 2


# --- values that are not finite -------------------------------------------------------------------


def test_an_infinite_value_does_not_pass_through_a_hole():
    """It reaches a neuron that bounds it, and none of those whose edges from it were cut."""
    net = network(4, 16, 16, 3)
    first, second = net.layers[0].neurons, net.layers[1].neurons
    for i, neuron in enumerate(second[1:]):
        net.graph.prune([neuron.in_edges[0], neuron.in_edges[1 + i % 14]])
    first[0].activation = "identity"
    first[0].weights[:], first[0].bias, second[0].weights[0] = 3e38, 0.0, 1.0
    x, y = np.ones((32, 4), np.float32), np.arange(32) % 3
    assert is_filled(net, Examples(x, 4))
    with pytest.raises(mlgraph.NonFiniteError, match="layer 0 neuron 0"):
        net.fit(x, y, epochs=1, batch_size=32)
    assert np.isfinite(net.graph.parameters).all()


def test_steps_with_values_that_are_not_finite_are_computed_by_rows(ran):
    net, (x, y) = pruned(), data(200, 60, 6, "sparse")
    net.fit(x, y, epochs=1, batch_size=50)
    assert ran and all(ran)
    ran.clear()
    net.layers[1].neurons[1].weights[:] = np.inf
    with pytest.raises(mlgraph.NonFiniteError):
        net.fit(x, y, epochs=1, batch_size=50)
    assert ran[0] and len(ran) > 1 and not any(ran[1:])


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("where", ["data", "neuron", "weight"])
def test_predictions_with_values_that_are_not_finite_are_computed_by_rows(sweep, ran, monkeypatch, where, n_threads):
    """They change the outputs of neurons that read them, and of no others: a hole would make them NaN."""
    net, (x, y) = pruned(), data(600, 60, 6, "float")
    neuron = net.layers[0].neurons[5]
    assert all(len(other.sources) < 30 for other in net.layers[1].neurons)
    neuron.activation = "identity"
    if where == "data":
        x[70, neuron.sources[0].id] = np.inf
    elif where == "neuron":  # beyond float32 for one example, and not for others
        neuron.weights[:], x[70] = 1e37, 10.0
    else:
        neuron.weights[0] = np.inf
    parts = slice(300), slice(300, None)  # too few examples for blocks
    values = np.concatenate([net.forward(x[part]) for part in parts])
    loss = np.mean([net.evaluate(x[part], y[part])["loss"] for part in parts])
    ran.clear()
    monkeypatch.setattr(holes, "BLOCKS_COST", 100)
    np.testing.assert_allclose(net.forward(x, n_threads=n_threads), values, rtol=1e-5, atol=1e-6)
    assert ran[-1] is False and ran[:-1] == [True] * (where != "data")
    if where != "weight":
        assert net.evaluate(x, y, n_threads=n_threads)["loss"] == pytest.approx(loss, rel=1e-5, nan_ok=True)
        assert np.isfinite(np.delete(values, 70, axis=0)).all()


# --- predictions and gradients --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sparse", "dense", "float"])
def test_many_examples_are_predicted_by_blocks(sweep, ran, monkeypatch, kind):
    x, y = data(600, 60, 6, kind)
    net, whole = pruned(), network(60, 30, 32, 6)
    for layer, dense in zip(net.layers, whole.layers, strict=True):
        dense.weights, dense.biases = layer.weights, layer.biases
    expected, scores = whole.predict_proba(x), whole.evaluate(x, y)
    ran.clear()
    monkeypatch.setattr(holes, "BLOCKS_COST", 100)
    results = set()
    for n_threads in (1, 2, 5):
        found, found_scores = net.predict_proba(x, n_threads=n_threads), net.evaluate(x, y, n_threads=n_threads)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert found_scores == pytest.approx(scores, rel=1e-5)
        np.testing.assert_array_equal(net.predict(x, n_threads=n_threads), found.argmax(axis=1))
        results.add((found.tobytes(), found_scores["loss"]))
    np.testing.assert_allclose(
        net.graph.compile(net.probabilities)(x if kind == "float" else x / 255), expected, rtol=1e-5, atol=1e-6
    )
    assert len(results) == 1 and len(ran) == 10 and all(ran)
    ran.clear()
    monkeypatch.setattr(holes, "BLOCKS_COST", 601)
    np.testing.assert_allclose(net.predict_proba(x), expected, rtol=1e-5, atol=1e-6)
    assert ran == [False]


@pytest.mark.parametrize("kind", ["sparse", "dense", "float", "overflow"])
def test_gradients_of_many_examples_are_those_of_rows(sweep, ran, monkeypatch, kind):
    """If something overflows they are computed by rows, so that even the bits are the same."""
    overflows = kind == "overflow"
    net, (x, y) = pruned(), data(600, 60, 6, "float" if overflows else kind)
    if overflows:
        net.layers[0][5].weights[:], x[70], net.layers[0][5].activation = 1e37, 10.0, "identity"
    results = []
    for least, n_threads in ((100, 1), (100, 2), (601, 1)):
        monkeypatch.setattr(holes, "BLOCKS_COST", least)
        ran.clear()
        found, trace = net.gradients(x, y, n_threads=n_threads), net.trace(x, y, n_threads=n_threads)
        results.append([found.flat, found.inputs, found.values, trace.values, trace.adjoints])
        assert ran == ([False] if least > 600 else [True, False] if overflows else [True]) * 3
    for one, two, rows in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
        if overflows:
            np.testing.assert_array_equal(one, rows)
        else:
            np.testing.assert_allclose(one, rows, rtol=1e-4, atol=1e-6 * np.abs(rows).max())


def test_an_overflow_in_a_last_step_of_few_examples(sweep, monkeypatch):
    """A gradient of many examples is taken in steps, of which the last has eight."""
    monkeypatch.setattr(Plan, "examples_at_once", 512)
    net, (x, y) = pruned(140, 30, 24, 16, share=0.15), data(520, 140, 16, "sparse")
    for neuron in net.layers[0].neurons:
        neuron.activation = "identity"
    net.layers[0].neurons[5].weights[:], x = 1e34, x.astype(np.float32)
    x[515] = 1000
    results = []
    for least, n_threads in ((100, 2), (100, 1), (521, 1)):
        monkeypatch.setattr(holes, "BLOCKS_COST", least)
        results.append(net.gradients(x, y, n_threads=n_threads).parameters)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    assert 0 < np.isnan(results[0]).sum() < 30


def test_gradients_write_no_parameters(monkeypatch):
    """A weight that another thread has written meanwhile stays."""
    net, (x, y), to_blocks = pruned(), data(600, 60, 6, "float"), HoleMap.to_blocks
    neuron, written = net.layers[0].neurons[0], []

    def fill_and_write(self, vector, blocks, n_threads):
        to_blocks(self, vector, blocks, n_threads)
        written.append(len(written))
        neuron.weights[0] = written[-1]

    monkeypatch.setattr(HoleMap, "to_blocks", fill_and_write)
    monkeypatch.setattr(holes, "BLOCKS_COST", 100)
    found = net.gradients(x, y)
    assert len(written) > 1 and neuron.weights[0] == written[-1] and found.of(neuron).all()
