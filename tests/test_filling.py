"""Nearly full rows that are trained as dense blocks with holes."""

from functools import cached_property

import numpy as np
import pytest
from swept import data

import mlgraph
from mlgraph import choice, engine, filling, reference
from mlgraph.engine import Engine
from mlgraph.examples import Examples
from mlgraph.filling import Filling, candidates, fill, worth_filling
from mlgraph.instructions import KINDS
from mlgraph.losses import Objective
from mlgraph.plan import Plan
from mlgraph.steps import Steps

SPARSE = Examples((np.arange(60) // 4 % 4 == 0).astype(np.uint8)[None], 60)    # about as sparse as MNIST
OPTIMIZERS = [{"momentum": 0.0}, {"momentum": 0.9}, {"optimizer": "adam", "learning_rate": 0.003}]


def lightly_pruned(sizes=(60, 30, 32, 6), share=0.3, seed=0, **options):
    """Layers that have lost a share of their edges, each other ones."""
    net = mlgraph.Network(sizes[0], seed=seed)
    for size in sizes[1:-1]:
        net.add_layer(size, activation="tanh", **options)
    net.add_layer(sizes[-1], activation="softmax")
    net.prune(share, by="random", scope="layer", seed=seed)
    return net


def without_rows_when_filled(sizes=(130, 30, 10)):
    """Only the first layer has lost edges."""
    net = mlgraph.Network(sizes[0], seed=0)
    for size in sizes[1:-1]:
        net.add_layer(size, activation="tanh")
    net.add_layer(sizes[-1], activation="softmax")
    net.layers[0].mask = np.random.default_rng(0).random((sizes[1], sizes[0])) < 0.7
    return net


def with_blocks(plan, density=0.27):
    """The plan with the blocks that data of this density deserve, and what is copied into them."""
    return fill(plan, worth_filling(candidates(plan), density))


def sources(net):
    return [[source.id for source in neuron.sources] for layer in net.layers for neuron in layer.neurons]


def kinds(plan):
    return [ins.kind for _, ins in plan.trained if ins.kind >= KINDS["dense"]]


def test_what_is_filled():
    net = lightly_pruned()
    engine = net._engine()
    assert kinds(engine.plan) == [KINDS["rows"]] * 3
    filled = engine.filled(SPARSE)
    assert kinds(filled.plan) == [KINDS["dense"]] * 2 + [KINDS["rows"]]  # six outputs are no block
    assert filled is engine.filled(SPARSE) and [c.weights for c in candidates(engine.plan)] == [32 * 60, 32 * 30]  # padded
    few = lightly_pruned((60, 7, 6), share=0.01)._engine()
    assert few.filled(SPARSE) is few   # seven neurons are no block either
    hard = lightly_pruned(share=0.9)._engine()
    assert hard.filled(SPARSE) is hard
    assert with_blocks(lightly_pruned(weight_dropout=0.5)._engine().plan)[1] is None


@pytest.mark.parametrize(("together", "share", "filled"), [(1, 0.6, True), (4, 0.6, False), (4, 0.85, True), (1, 0.45, False)])
def test_rows_in_quads_are_filled_later(sweep, together, share, filled):
    net, rng = mlgraph.Network(40, seed=0), np.random.default_rng(0)
    net.add_layer(20, activation="tanh")
    net.add_layer(48, activation="tanh")
    net.add_layer(10, activation="softmax")
    net.layers[1].mask = np.repeat(rng.random((48 // together, 20)) < share, together, axis=0)
    quads = together == 4 and not sweep.__name__.endswith(("v2", "baseline"))
    assert (with_blocks(net._engine().plan)[1] is not None) == (filled or (share > 0.52 and not quads))


@pytest.mark.parametrize(("columns", "filled"), [(100, True), (400, False)])
def test_columns_that_nobody_reads_count(columns, filled):
    """Half of the edges from 60 columns: that is 0.3 of all, or 0.075."""
    net, rng = mlgraph.Network(columns, seed=0), np.random.default_rng(0)
    net.add_layer(32, activation="tanh")
    net.add_layer(6, activation="softmax")
    net.layers[0].mask = (rng.random((32, columns)) < 0.5) & (np.arange(columns) < 60)
    plan = net._engine().plan
    assert plan.n_columns == columns and len(plan.input_column) == 60 and (with_blocks(plan)[1] is not None) == filled


@pytest.mark.parametrize("kind", ["operations", "written"])
def test_a_source_that_comes_twice_is_not_filled(monkeypatch, kind):
    """Two nodes of equal value are one slot, and a neuron that reads both has two weights for it."""
    x = np.random.default_rng(0).normal(size=(100, 8))
    trained = []
    for by_rows in (False, True):
        rng = np.random.default_rng(1)
        g = mlgraph.Graph()
        inputs = g.inputs(8)
        nodes = inputs if kind == "written" else [mlgraph.sin(node) for node in inputs]
        again = inputs if kind == "written" else [mlgraph.sin(node) for node in inputs]
        neurons = []
        for i in range(16):
            sources = [node for k, node in enumerate([*nodes, *again]) if k != i]
            if kind == "written":
                parameters = [g.parameter(w) for w in rng.normal(size=len(sources)) / 4]
                neurons.append(mlgraph.tanh(mlgraph.sum(*(p * node for p, node in zip(parameters, sources, strict=True)))))
            else:
                neurons.append(g.add_neuron(sources, "tanh", weights=rng.normal(size=len(sources)) / 4))
        outputs = [g.add_neuron(neurons, weights=rng.normal(size=16) / 4) for _ in range(3)]
        model = mlgraph.Model(g, outputs, "softmax_cross_entropy")
        assert kinds(model._engine().plan) == [KINDS["rows"]] * 2
        if by_rows:
            monkeypatch.setattr(Engine, "filled", lambda engine, examples, n=None: engine)
        model.fit(x, np.arange(100) % 3, epochs=3, batch_size=50, learning_rate=0.1)
        trained.append((g.parameters.copy(), model.history.batch_loss))
    np.testing.assert_allclose(trained[0][0], trained[1][0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trained[0][1], trained[1][1], rtol=1e-5)


def test_rows_are_read_wherever_something_may_not_be_finite(monkeypatch):
    """Many steps at a time, and many examples, are taken by blocks; a step that is looked at, and few examples, by rows."""
    ran = []
    run = Engine.run
    monkeypatch.setattr(Engine, "run", lambda self, *args, **options: ran.append(self._filling) or run(self, *args, **options))
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


@pytest.mark.parametrize(("places", "filled"), [((0, 1, 2, 1997, 1998), False), ((0, 3, 6, 9, 12), True)])
def test_sources_that_are_far_apart_are_not_filled(places, filled):
    """Five of 2,000 slots, four for each neuron: to look for them would take longer the more there is between."""
    g = mlgraph.Graph()
    x = g.inputs(4)
    between = [g.add_neuron(x[: (1, 2, 4)[k % 3]], "tanh", weights=np.ones((1, 2, 4)[k % 3])) for k in range(2000)]
    some = [between[k] for k in places]
    last = [g.add_neuron([s for j, s in enumerate(some) if j != k % 5], weights=np.ones(4)) for k in range(16)]
    engine = mlgraph.Model(g, [mlgraph.sum(*last, *between)])._engine()
    assert kinds(engine.plan)[-1] == KINDS["rows"] and (with_blocks(engine.plan)[1] is not None) == filled


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
        assert (with_blocks(net._engine().plan)[1] is not None) and kinds(net._engine().plan)[0] == KINDS["rows"]
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
@pytest.mark.parametrize("n", [1, 33, 100, 200])
def test_gradients_of_the_reference(sweep, kind, dropout, n):
    """Those of one step, in the places of the rows, and zero where there is no edge."""
    net = lightly_pruned((60, 70, 32, 6), dropout=dropout)
    x, y = data(n, 60, 6, kind)
    engine = net._engine()
    losses = np.zeros(n, np.float32)
    filled = engine.filled(SPARSE)
    filled.run(
        Examples(x, 60), steps=Steps.at_rest(np.array([0]), np.array([n]))._replace(number=7), optimizer="accumulate", seed=3,
        objective=Objective(net.loss, net._loss_nodes, y.astype(np.int32)), losses=losses,
    )  # fmt: skip
    want_losses, want = reference.step(
        engine.plan, net.graph.parameters, x, net.loss, engine.plan.slot[net._loss_nodes], label=y, seed=3, number=7
    )
    np.testing.assert_allclose(losses, want_losses, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(net.graph.storage.state["gradient"], want, rtol=1e-4, atol=2e-6 * np.abs(want).max())
    blocks = filled._copies[1][filled._filling.base :]
    edges = np.unpackbits(filled._filling.edges.astype("<u8").view(np.uint8), bitorder="little").astype(bool)
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


def test_a_filled_plan_has_properties_of_its_own():
    """Whatever has been asked of the other before."""
    names = [name for name, value in vars(Plan).items() if isinstance(value, cached_property)]
    plan = without_rows_when_filled()._engine().plan
    fresh, _ = with_blocks(plan)
    for name in names:
        getattr(plan, name)
    later, copies = with_blocks(plan)
    assert copies is not None and {"largest_blocks", "threads_ahead", "sweeps_alone"} <= set(names)
    for name in names:
        np.testing.assert_equal(getattr(later, name), getattr(fresh, name))
    assert later.largest_blocks != plan.largest_blocks and later.threads_ahead != plan.threads_ahead


@pytest.mark.parametrize("sizes", [(60, 30, 32, 10), (130, 30, 10)], ids=str)
def test_tiles_of_filled_blocks_go_side_by_side(sweep, monkeypatch, sizes):
    x, y = data(500, sizes[0], 10, "float")
    results = set()
    for least in (2**62, 1):
        monkeypatch.setattr(choice, "WIDE", least)
        net = without_rows_when_filled(sizes)
        net.fit(x, y, epochs=2, batch_size=256, learning_rate=0.1, seed=5, n_threads=2)
        assert net._engine().filled(Examples(x, sizes[0])).plan.largest_blocks[0] > 0
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
    """A neuron that overflows, and is squashed by its only reader, is no business of those that have lost their edge to it."""
    net = mlgraph.Network(4, seed=0)
    net.add_layer(16, activation="identity")
    net.add_layer(16, activation="tanh")
    net.add_layer(3, activation="softmax")
    first, second = net.layers[0].neurons, net.layers[1].neurons
    for i, neuron in enumerate(second[1:]):
        net.graph.prune([neuron.edges[0], neuron.edges[1 + i % 14]])
    first[0].weights[:], first[0].bias, second[0].weights[0] = 3e38, 0.0, 1.0
    x, y = np.ones((32, 4), np.float32), np.arange(32) % 3
    engine = net._engine()
    assert kinds(engine.plan)[1] == KINDS["rows"] and kinds(engine.filled(Examples(x, 4)).plan)[1] == KINDS["dense"]
    with pytest.raises(mlgraph.NonFiniteError, match="layer 0 neuron 0"):
        net.fit(x, y, epochs=1, batch_size=32)
    assert np.isfinite(net.graph.parameters).all()


@pytest.fixture
def ran(monkeypatch):
    """For each run of an engine so far, whether it went through blocks with holes."""
    ran, run = [], Engine.run
    monkeypatch.setattr(
        Engine, "run", lambda self, *args, **options: ran.append(self._filling is not None) or run(self, *args, **options)
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
    net, (x, y), fill_blocks = lightly_pruned(), data(600, 60, 6, "float"), Filling.fill
    neuron, written = net.layers[0].neurons[0], []

    def fill_and_write(self, vector, blocks, n_threads):
        fill_blocks(self, vector, blocks, n_threads)
        written.append(len(written))
        neuron.weights[0] = written[-1]

    monkeypatch.setattr(Filling, "fill", fill_and_write)
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


@pytest.mark.parametrize(("share", "together", "zeros", "others"), [
    (0.7, 1, True, True), (0.4, 1, True, False), (0.12, 1, False, False), (0.97, 4, True, True), (0.7, 4, True, False),
])  # fmt: skip
def test_a_block_of_data_without_zeros_needs_more_edges(sweep, share, together, zeros, others):
    """It has none to skip; rows cost as much whatever the data."""
    net = mlgraph.Network(60, seed=0)
    net.add_layer(32, activation="tanh")
    net.add_layer(6, activation="softmax")
    net.layers[0].mask = np.repeat(np.random.default_rng(0).random((32 // together, 60)) < share, together, axis=0)
    if sweep.__name__.endswith(("v2", "baseline")):  # has no quads
        others = share > 0.55
    dense = np.random.default_rng(0).normal(size=(300, 60)).astype(np.float32)
    sparse, some = np.abs(dense) * (np.arange(60) % 20 < 4), np.abs(dense) * (np.arange(60) // 4 % 2 == 0)
    data = [Examples(x, 60) for x in (sparse, some, dense)]
    assert [x.density for x in data] == [0.2, pytest.approx(0.5, abs=0.04), 1.0]
    are_full = [net._engine().filled(x) is not net._engine() for x in data]
    assert are_full == sorted(are_full, reverse=True) and [are_full[0], are_full[2]] == [zeros, others]


@pytest.mark.parametrize("n", [1, 399, 400, 900, 10_000])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.95])
def test_examples_repay_blocks(n, share):
    """The more examples, the fewer edges may be left."""
    net = mlgraph.Network(60, seed=0)
    net.add_layer(32, activation="tanh")
    net.add_layer(6, activation="softmax")
    net.layers[0].mask = np.random.default_rng(0).random((32, 60)) < share
    found = candidates(net._engine().plan)
    cost = found[0].cost(0.2) / found[0].weights
    assert worth_filling(found, 0.2) == (found[0].number,)
    assert bool(worth_filling(found, 0.2, n)) == (n * (1 - 1 / cost) >= 400)
    others = [found[0]._replace(number=9, singles=10**6, weights=10**9)]    # rows that are faster as rows do not count
    assert worth_filling(found + others, 0.2, n) == worth_filling(found, 0.2, n)


def test_train_and_test_data_may_be_of_other_densities(monkeypatch):
    """Each has an engine of its own, and what one learns the other predicts by."""
    monkeypatch.setattr(filling, "BLOCKS_COST", 1)
    (zeros, y), (others, _) = data(300, 60, 6, "sparse"), data(300, 60, 6, "bytes")
    zeros[:, np.arange(60) % 20 > 3] = 0
    net, whole = lightly_pruned(share=0.6), lightly_pruned(share=0.6)
    monkeypatch.setattr(whole, "_run", lambda examples, nodes=None, **options: whole._engine(nodes).run(examples, **options))
    for one in (net, whole):
        one.fit(zeros, y, epochs=3, batch_size=50, validation=(np.maximum(others, 1), y))
    assert len(net._engine()._fuller) == 2
    np.testing.assert_allclose(net.history.validation_loss, whole.history.validation_loss, rtol=1e-4)
    np.testing.assert_allclose(net.history.batch_loss, whole.history.batch_loss, rtol=1e-4)
