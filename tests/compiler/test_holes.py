"""Dense blocks with holes learn, predict and differentiate as the rows do that they stand for."""

import signal

import numpy as np
import pytest
from filled import SPARSE, kinds, lightly_pruned, with_blocks, without_rows_when_filled
from swept import data

import mlgraph
from mlgraph.compiler import holes as filling
from mlgraph.compiler.holes import HoleMap
from mlgraph.compiler.instructions import KINDS
from mlgraph.compiler.plan import Plan
from mlgraph.engine import choice, engine, reference
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.engine.steps import Steps
from mlgraph.models.running import engine_of

OPTIMIZERS = [{"momentum": 0.0}, {"momentum": 0.9}, {"optimizer": "adam", "learning_rate": 0.003}]


def sources(net):
    return [[source.id for source in neuron.sources] for layer in net.layers for neuron in layer.neurons]


def test_rows_are_read_wherever_something_may_not_be_finite(monkeypatch):
    """Blocks compute many steps or many examples; rows compute few examples and steps under inspection."""
    ran = []
    run = Engine.execute
    monkeypatch.setattr(
        Engine, "execute", lambda self, *args, **options: ran.append(self._holes) or run(self, *args, **options)
    )
    net, (x, y) = lightly_pruned(), data(200, 60, 6, "sparse")
    net.fit(x, y, epochs=1, batch_size=50)
    assert ran and all(ran)
    ran.clear()
    net.evaluate(x, y)
    net.predict(x)
    assert ran == [None, None]
    ran.clear()
    net.layers[1].neurons[1].weights[:] = np.inf
    with pytest.raises(mlgraph.NonFiniteError):
        net.fit(x, y, epochs=1, batch_size=50)
    assert ran[0] and len(ran) > 1 and not any(ran[1:])


def test_copies_are_written_back_whole(monkeypatch, python_handles_ctrl_c):
    """Ctrl-C waits until parameters and velocities are of the same step."""
    written, empty = [], HoleMap.from_blocks

    def struck(self, *given):
        if not written:
            signal.raise_signal(signal.SIGINT)
        written.append(given)
        empty(self, *given)

    monkeypatch.setattr(HoleMap, "from_blocks", struck)
    with pytest.raises(KeyboardInterrupt):
        lightly_pruned().fit(*data(200, 60, 6, "sparse"), epochs=1, batch_size=50, callback=lambda progress: None)
    assert len(written) == 2


@pytest.mark.parametrize("why", ["no biases", "a column that others read", "eight neurons"])
def test_what_is_filled_learns_as_its_rows_do(monkeypatch, why):
    x, y = data(300, 60, 6, "sparse")
    trained = []
    for by_rows in (False, True):
        net = mlgraph.Network(60, seed=0)
        for size, activation in ((8 if why == "eight neurons" else 30, "tanh"), (6, "softmax")):
            net.add_layer(size, activation=activation, bias=why != "no biases")
        first, column = net.layers[0], 0 if why == "a column that others read" else 60
        first.mask = (np.random.default_rng(0).random((first.size, 60)) < 0.7) & (np.arange(60) != column)
        if column == 0:
            other = net.graph.add_neuron(list(net.graph)[:3], "relu", weights=np.ones(3))
            net.graph.add_edge(other, net.outputs[0], 0.5)
        assert (with_blocks(engine_of(net).plan)[1] is not None) and kinds(engine_of(net).plan)[0] == KINDS["rows"]
        if by_rows:
            monkeypatch.setattr(Engine, "filled", lambda engine, examples, n=None: engine)
        net.fit(x, y, epochs=2, batch_size=100, learning_rate=0.05)
        trained.append(net.graph.get_parameters())
    np.testing.assert_allclose(trained[0], trained[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["dense", "sparse", "float"])
def test_training_is_that_of_the_rows(sweep, monkeypatch, kind, options):
    x, y = data(300, 60, 6, kind)
    trained = []
    for by_rows in (False, True):
        net = lightly_pruned()
        before = sources(net)
        if by_rows:
            monkeypatch.setattr(Engine, "filled", lambda engine, examples, n=None: engine)
        net.fit(x, y, epochs=3, batch_size=100, **{"learning_rate": 0.05, **options})
        assert sources(net) == before
        trained.append((net.graph.parameters.copy(), net.history.batch_loss))
    np.testing.assert_allclose(trained[0][0], trained[1][0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(trained[0][1], trained[1][1], rtol=1e-4)


@pytest.mark.parametrize("kind", ["dense", "sparse", "float"])
@pytest.mark.parametrize("dropout", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("n", [33, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 100, 200))])
def test_gradients_of_the_reference(sweep, kind, dropout, n):
    """Those of one step, in the places of the rows, and zero where there is no edge."""
    net = lightly_pruned((60, 70, 32, 6), dropout=dropout)
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


@pytest.mark.parametrize("options", OPTIMIZERS)
def test_a_run_goes_on_with_the_same_bits(tmp_path, options):
    x, y = data(300, 60, 6, "sparse")
    options = {"epochs": 3, "batch_size": 37, "learning_rate": 0.05, **options}

    def interrupt(progress):
        if progress.examples > 400:
            raise KeyboardInterrupt

    whole, other = lightly_pruned(), lightly_pruned()
    whole.fit(x, y, **options)
    with pytest.raises(KeyboardInterrupt):
        other.fit(x, y, checkpoint=tmp_path / "run", callback=interrupt, **options)
    again = lightly_pruned()
    again.fit(x, y, checkpoint=tmp_path / "run", resume=True, **options)
    assert len(other.history.batch_loss) < len(whole.history.batch_loss)
    for one, two in zip(whole.layers, again.layers, strict=True):
        for neuron, same in zip(one.neurons, two.neurons, strict=True):
            assert neuron.weights.tobytes() == same.weights.tobytes() and neuron.bias == same.bias


@pytest.mark.parametrize("dropout", [0.3, 0.5, 0.9])
def test_dropout_drops_the_same_neurons(sweep, monkeypatch, dropout):
    x, y = data(300, 60, 6, "sparse")
    losses = []
    for by_rows in (False, True):
        net = lightly_pruned(dropout=dropout)
        if by_rows:
            monkeypatch.setattr(Engine, "filled", lambda engine, examples, n=None: engine)
        net.fit(x, y, epochs=2, batch_size=100, learning_rate=0.05, seed=3)
        losses.append(net.history.batch_loss)
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize("sizes", [(60, 30, 32, 10), (130, 30, 10)], ids=str)
def test_tiles_of_filled_blocks_go_side_by_side(sweep, monkeypatch, sizes):
    x, y = data(500, sizes[0], 10, "float")
    results = set()
    for least in (2**62, 1):
        monkeypatch.setattr(choice, "WIDE", least)
        net = without_rows_when_filled(sizes)
        net.fit(x, y, epochs=2, batch_size=256, learning_rate=0.1, seed=5, n_threads=2)
        assert engine_of(net).filled(Examples(x, sizes[0])).plan.largest_blocks[0] > 0
        results.add(net.graph.parameters.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("sizes", [(60, 30, 32, 6), (130, 30, 10)], ids=str)
def test_bits_do_not_depend_on_threads(sweep, sizes):
    x, y = data(500, sizes[0], sizes[-1], "sparse")
    results = []
    for n_threads in (1, 2, 5):
        net = lightly_pruned(sizes) if sizes[-1] == 6 else without_rows_when_filled(sizes)
        net.fit(x, y, epochs=2, batch_size=(100, 7), learning_rate=(0.1, 0.01), seed=5, n_threads=n_threads)
        results.append(net.graph.parameters.copy())
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].view(np.int32), other.view(np.int32))


def test_what_no_output_needs_is_left_alone():
    x, y = data(200, 60, 6, "sparse")
    net = lightly_pruned()
    beside = net.graph.add_neuron(net.layers[0].neurons[:3], "tanh", weights=[1.0, 2.0, 3.0], bias=4.0)
    net.fit(x, y, epochs=1, batch_size=50)
    np.testing.assert_array_equal(beside.weights, [1, 2, 3])
    assert beside.bias == 4


def test_an_infinite_value_does_not_pass_through_a_hole():
    """An overflow that its only reader squashes does not reach neurons whose edges to it were cut."""
    net = mlgraph.Network(4, seed=0)
    net.add_layer(16, activation="identity")
    net.add_layer(16, activation="tanh")
    net.add_layer(3, activation="softmax")
    first, second = net.layers[0].neurons, net.layers[1].neurons
    for i, neuron in enumerate(second[1:]):
        net.graph.prune([neuron.edges[0], neuron.edges[1 + i % 14]])
    first[0].weights[:], first[0].bias, second[0].weights[0] = 3e38, 0.0, 1.0
    x, y = np.ones((32, 4), np.float32), np.arange(32) % 3
    engine = engine_of(net)
    assert kinds(engine.plan)[1] == KINDS["rows"] and kinds(engine.filled(Examples(x, 4)).plan)[1] == KINDS["dense"]
    with pytest.raises(mlgraph.NonFiniteError, match="layer 0 neuron 0"):
        net.fit(x, y, epochs=1, batch_size=32)
    assert np.isfinite(net.graph.parameters).all()


@pytest.fixture
def ran(monkeypatch):
    """For each run of an engine so far, whether it went through blocks with holes."""
    ran, run = [], Engine.execute
    monkeypatch.setattr(
        Engine,
        "execute",
        lambda self, *args, **options: ran.append(self._holes is not None) or run(self, *args, **options),
    )
    return ran


@pytest.mark.parametrize("kind", ["sparse", "bytes", "float"])
def test_many_examples_are_read_through_holes(sweep, ran, monkeypatch, kind):
    x, y = data(600, 60, 6, kind)
    net = lightly_pruned()
    whole = mlgraph.Network(60, seed=0)
    for layer in net.layers:
        new = whole.add_layer(layer.size, layer.activation)
        new.weights, new.biases = layer.weights, layer.biases
    expected = whole.predict_proba(x), whole.evaluate(x, y)
    ran.clear()
    monkeypatch.setattr(filling, "BLOCKS_COST", 100)
    results = set()
    for n_threads in (1, 2, 5):
        found, scores = net.predict_proba(x, n_threads=n_threads), net.evaluate(x, y, n_threads=n_threads)
        np.testing.assert_allclose(found, expected[0], rtol=1e-5, atol=1e-6)
        assert scores == pytest.approx(expected[1], rel=1e-5)
        np.testing.assert_array_equal(net.predict(x, n_threads=n_threads), found.argmax(axis=1))
        results.add((found.tobytes(), scores["loss"]))
    compiled = net.graph.compile(net.probabilities)
    np.testing.assert_allclose(compiled(x), expected[0], rtol=1e-5, atol=1e-6)
    assert len(results) == 1 and len(ran) == 10 and all(ran)
    ran.clear()
    monkeypatch.setattr(filling, "BLOCKS_COST", 601)
    np.testing.assert_allclose(net.predict_proba(x), expected[0], rtol=1e-5, atol=1e-6)
    assert ran == [False]


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("where", ["data", "neuron", "weight"])
def test_what_is_not_finite_is_not_read_through_holes(sweep, ran, monkeypatch, where, n_threads):
    """It changes the outputs of neurons that read it, and of no others: a hole would make it NaN."""
    net, (x, y) = lightly_pruned(), data(600, 60, 6, "float")
    neuron = net.layers[0].neurons[5]
    assert all(len(other.sources) < 30 for other in net.layers[1].neurons)
    if where == "data":
        x[70, neuron.sources[0].id] = np.inf
    elif where == "neuron":  # beyond float32 for one example, and not for others
        neuron.weights[:], x[70] = 1e37, 10.0
    else:
        neuron.weights[0] = np.inf
    neuron.activation = "identity"
    parts = np.concatenate([net.forward(x[:300]), net.forward(x[300:])])
    ran.clear()
    monkeypatch.setattr(filling, "BLOCKS_COST", 100)
    found = net.forward(x, n_threads=n_threads)
    np.testing.assert_allclose(found, parts, rtol=1e-5, atol=1e-6)
    assert ran[-1] is False and ran[:-1] == [True] * (where != "data")
    if where != "weight":
        scores = net.evaluate(x, y, n_threads=n_threads)
        monkeypatch.setattr(filling, "BLOCKS_COST", 10**6)
        losses = [net.evaluate(x[part], y[part])["loss"] for part in (slice(300), slice(300, None))]
        assert scores["loss"] == pytest.approx(np.mean(losses), rel=1e-5, nan_ok=True)
        assert np.isfinite(np.delete(found, 70, axis=0)).all()


@pytest.mark.parametrize("kind", ["sparse", "bytes", "float", "overflow"])
def test_gradients_of_many_examples(sweep, ran, monkeypatch, kind):
    """By the rows where something overflows, to the bit."""
    net, (x, y) = lightly_pruned(), data(600, 60, 6, "float" if kind == "overflow" else kind)
    if kind == "overflow":
        net.layers[0][5].weights[:], x[70], net.layers[0][5].activation = 1e37, 10.0, "identity"
    results = []
    for least, n_threads in ((100, 1), (100, 2), (601, 1)):
        monkeypatch.setattr(filling, "BLOCKS_COST", least)
        ran.clear()
        found, trace = net.gradients(x, y, n_threads=n_threads), net.trace(x, y, n_threads=n_threads)
        results.append([found.flat, found.inputs, found.values, trace.values, trace.adjoints])
        assert ran == ([False] if least > 600 else [True, False] if kind == "overflow" else [True]) * 3
    for one, two, rows in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
        if kind == "overflow":
            np.testing.assert_array_equal(one, rows)
        else:
            np.testing.assert_allclose(one, rows, rtol=1e-4, atol=1e-6 * np.abs(rows).max())


def test_what_overflows_in_a_last_tile_that_is_swept_alone(sweep, monkeypatch):
    """A gradient of many examples is taken in steps; each thread sweeps the last, of eight, by itself (_alone.pxi)."""
    monkeypatch.setattr(Plan, "examples_at_once", 512)
    net, (x, y) = lightly_pruned((140, 30, 24, 16), share=0.15), data(520, 140, 16, "sparse")
    for neuron in net.layers[0].neurons:
        neuron.activation = "identity"
    net.layers[0].neurons[5].weights[:], x = 1e34, x.astype(np.float32)
    x[515] = 1000
    chosen, choose, results = [], engine.choose, []
    monkeypatch.setattr(engine, "choose", lambda *given: chosen.append(choose(*given)) or chosen[-1])
    for least, n_threads in ((100, 2), (100, 1), (521, 1)):
        monkeypatch.setattr(filling, "BLOCKS_COST", least)
        chosen.clear()
        results.append(net.gradients(x, y, n_threads=n_threads).parameters)
        assert any(how.alone for how in chosen) == (n_threads == 2)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    assert 0 < np.isnan(results[0]).sum() < 30


def test_gradients_write_no_parameters(monkeypatch):
    """Not even what stands there: a weight that another thread has written meanwhile stays."""
    net, (x, y), fill_blocks = lightly_pruned(), data(600, 60, 6, "float"), HoleMap.to_blocks
    neuron, written = net.layers[0].neurons[0], []

    def fill_and_write(self, vector, blocks, n_threads):
        fill_blocks(self, vector, blocks, n_threads)
        written.append(len(written))
        neuron.weights[0] = written[-1]

    monkeypatch.setattr(HoleMap, "to_blocks", fill_and_write)
    monkeypatch.setattr(filling, "BLOCKS_COST", 100)
    found = net.gradients(x, y)
    assert len(written) > 1 and neuron.weights[0] == written[-1] and found.of(neuron).all()


def test_edits_between_pieces_are_seen():
    """A callback cuts an edge and changes a weight; training goes on from there."""
    x, y = data(400, 60, 6, "sparse")
    net = lightly_pruned()
    neuron = net.layers[0].neurons[3]
    cut = neuron.edges[0]

    def edit(progress):
        if progress.kind == "epoch" and progress.epoch == 0:
            cut.prune()
            neuron.weights[1] = 7.0

    net.fit(x, y, epochs=2, batch_size=100, learning_rate=1e-6, momentum=0.0, callback=edit)
    assert len(neuron.weights) == len(neuron.sources) and abs(neuron.weights[1] - 7) < 0.01
