"""How an engine sweeps: on how many threads, and whether it skips zeros of the data."""

import numpy as np
import pytest

import mlgraph
import mlgraph_ext
from mlgraph.engine import choice, engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective
from mlgraph.models import running
from mlgraph.models.running import engine_of


def test_operations_are_work_too(monkeypatch):
    asked = []
    monkeypatch.setattr(choice, "threads_for", lambda n_threads, work, steps=1: asked.append(work) or 1)
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    f = g.compile(mlgraph.tanh(x * y))
    f(np.ones((500, 2)))
    assert asked[-1] == 500 * engine_of(f, False).plan.work > 0


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_a_tile_is_not_divided(monkeypatch, n_threads):
    """Where nothing is learnt; tiles share lists of data if there are some lists for every thread."""
    asked, prepare, lanes = [], mlgraph_ext.sweep.prepare, mlgraph_ext.sweep.TILE_EXAMPLES

    def spy(**given):
        asked.append((given["n_workers"], given["sums"] is not None))
        return prepare(**given)

    monkeypatch.setattr(mlgraph_ext.sweep, "prepare", spy)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2000, 20), np.uint8) * (rng.random((2000, 20)) < 0.2).astype(np.uint8)
    net, lists = mlgraph.Network(20), mlgraph_ext.sweep.LIST_TILES * n_threads
    net.add_layer(8, "tanh")
    net.forward(x, n_threads=9)
    for tiles, shared in ((1, True), (2, n_threads == 1), (2 * lists - 1, n_threads == 1), (2 * lists, True)):
        net.engines.clear()
        asked.clear()
        net.forward(x[: lanes * tiles], n_threads=n_threads)
        assert asked == [(min(tiles, n_threads), shared)]


@pytest.mark.parametrize("rows", [True, False])
def test_two_threads_need_more_work_where_one_sweeps_the_only_tile(monkeypatch, rows):
    asked, few = [], mlgraph_ext.sweep.TILE_EXAMPLES
    monkeypatch.setattr(choice, "threads_for", lambda n_threads, work, steps=1: asked.append(work) or 1)
    net, x = mlgraph.Network(40, seed=0), np.random.default_rng(0).random((100, 40))
    net.add_layer(8, "tanh")
    if rows:
        net.prune(0.9)
    for batch in (few, few + 1):
        asked.clear()
        net.fit(x, np.zeros((100, 8)), epochs=1, batch_size=batch)
        work = engine_of(net).filled(Examples(x, 40)).plan.work * batch
        assert set(asked) == {work // choice.SERIAL if rows and batch == few else work}


def test_steps_of_few_examples_skip_zeros(monkeypatch):
    """Also where nothing is zero. A run skips them in all its steps or in none: they add in another order."""
    asked, prepare = [], mlgraph_ext.sweep.prepare

    def spy(**given):
        asked.append(given["first_slot"])  # inputs have no slots where zeros are skipped
        return prepare(**given)

    monkeypatch.setattr(mlgraph_ext.sweep, "prepare", spy)
    x, y, few = np.ones((200, 3)), np.ones((200, 8)), choice.FEW
    net = mlgraph.Network(3)
    net.add_layer(8, "tanh")
    net.forward(x[:few]), net.forward(x[: few + 1])
    assert asked == [3, 0]
    for batch in (few, (100, few), (few, 100), few + 1, (few + 1, 100)):
        asked.clear()
        net.fit(x, y, epochs=2, batch_size=batch)
        assert set(asked) == {3 if np.min(batch) <= few else 0}
    for n in (few, few + 1):
        asked.clear()
        net.fit(x[:n], y[:n], epochs=2, batch_size=128)
        assert set(asked) == {3 if n <= few else 0}


@pytest.mark.parametrize("zeros", [True, False])
def test_zeros_are_skipped_where_there_are_some(monkeypatch, zeros):
    """In bytes and in floats, with the same numbers, but for rounding."""
    x = np.random.default_rng(0).integers(1, 256, (200, 6), np.uint8)
    x[:, :4] *= not zeros
    net = mlgraph.Network(6)
    net.add_layer(8, "tanh")
    chosen, choose = [], engine.choose

    def spy(plan, examples, size, most, direct, sparse, *others):
        chosen.append(sparse)
        return choose(plan, examples, size, most, direct, sparse, *others)

    monkeypatch.setattr(engine, "choose", spy)
    values = [net.forward(data) for data in (x, x / np.float32(255))]
    assert chosen == [zeros, zeros]
    np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)


def test_dense_data_are_not_copied_for_small_steps():
    """Where a network reads some columns only: those that skip zeros stand side by side."""
    x, y = np.ones((200, 6)), np.ones((200, 8))
    net = mlgraph.Network(6)
    net.add_layer(8, "tanh")
    net.graph.prune([(net.graph[2], neuron) for neuron in net.layers[0].neurons])
    objective = Objective("squared_error", net.loss_ids, target=np.float32(y))
    for data, few, narrowed in ((x, False, False), (x, True, False), (x * [1, 1, 1, 1, 0, 0], True, True)):
        examples = Examples(data, 6)
        running.execute(net, examples, few=few, objective=objective)
        assert (examples._narrowed is not None) == narrowed
