"""Which columns of the data are copied, when that pays, and how."""

import weakref

import numpy as np
import pytest
from learnable import INPUTS, X, network
from swept import data

import mlgraph
from mlgraph.engine import choice, examples
from mlgraph.engine.examples import LINE, Examples
from mlgraph.models.running import engine_of
from mlgraph.training import loop
from mlgraph_ext import _topology


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_columns_are_taken(dtype, n_threads):
    x = np.random.default_rng(0).integers(0, 256, (50, 200)).astype(dtype)
    for columns in (
        [0],
        [199],
        range(3, 190),
        range(0, 200, 2),
        [*range(20), *range(30, 47), 60, 199],
        range(184, 200),
    ):
        few = Examples(x, 200).narrowed(np.array(columns, np.int32), n_threads)
        np.testing.assert_array_equal(few.array[:, : len(columns)], x[:, list(columns)])
        assert few.array.ctypes.data % LINE == 0 and few.array.strides[0] % LINE == 0
        assert few.array.strides[0] - len(columns) * x.itemsize < LINE


def test_rows_of_two_lines_begin_with_one():
    few = Examples(np.zeros((9, 130), np.uint8), 130).narrowed(np.arange(1, 6, dtype=np.int32))
    assert few.array.shape == (9, LINE) and few.array.ctypes.data % LINE == 0


def test_short_rows_stay_short():
    assert Examples(X, INPUTS).narrowed(np.arange(1, 6, dtype=np.int32)).array.shape == (len(X), 5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_columns_in_any_order(sweep, dtype):
    x = np.random.default_rng(0).integers(0, 256, (50, 37)).astype(dtype)
    for columns in (np.arange(37), np.arange(3, 9), np.array([36, 0, 0, 7]), np.zeros(0, int)):
        out = np.full((50, len(columns) + 2), 7, dtype)
        sweep.take_columns(x.view(np.uint8), columns.astype(np.int32), out.view(np.uint8), x.itemsize, 3)
        np.testing.assert_array_equal(out[:, :-2], x[:, columns])
        assert not out[:, -2:].any()
    for wrong in ([-1], [37], [2**31 - 1]):
        with pytest.raises(ValueError, match=r"^columns: expected 0 to 36, got "):
            sweep.take_columns(
                x.view(np.uint8), np.array(wrong, np.int32), np.zeros((50, x.itemsize), np.uint8), x.itemsize, 1
            )
    for shape, size in (((50, x.itemsize - 1), x.itemsize), ((49, x.itemsize), x.itemsize), ((50, x.itemsize), 2)):
        with pytest.raises(ValueError, match=r"^size, out: expected 1 or 4, and 50 rows of [0-9] bytes or more, got "):
            sweep.take_columns(x.view(np.uint8), np.zeros(1, np.int32), np.zeros(shape, np.uint8), size, 1)


def test_copies_of_columns_no_longer_read_are_let_go():
    """Pruned while it trains a network reads fewer and fewer columns, and each copy is as large as the data."""
    given = Examples(data(100, 60, 6, "sparse")[0], 60)
    columns = np.arange(60, dtype=np.int32)
    assert given.narrowed(columns) is given
    first = weakref.ref(given.narrowed(columns[1:]).array)
    assert given.narrowed(columns[1:]).array is first()
    room = given._room
    second = given.narrowed(columns[2:])
    assert first() is None and given._room is room and np.shares_memory(second.array, room)
    assert given.narrowed(columns) is given and given._room is None


def test_nothing_is_left_of_columns_that_are_no_longer_read():
    """What the data at most are is what a step may be at most: a run that went on from a file would take others."""
    x = np.ones((4, 40), np.float32)
    x[:, 39] = 1e31
    given = Examples(x, 40)
    assert given.narrowed(np.arange(1, 40, dtype=np.int32)).largest == np.float32(1e31)
    assert given.narrowed(np.arange(1, 39, dtype=np.int32)).largest == 1


def test_when_columns_are_copied():
    """If they are half of the memory, lines of the cache counted whole, and have been read a number of times."""
    for width, itemsize, columns, pays in (
        (256, 1, 128, True),
        (256, 1, 129, False),
        (127, 1, 1, False),
        (128, 1, 64, True),
        (64, 4, 32, True),
        (64, 4, 33, False),
    ):
        given = Examples(np.zeros((10, width), {1: np.uint8, 4: np.float32}[itemsize]), width)
        read, other = np.arange(columns, dtype=np.int32), np.arange(1, columns + 1, dtype=np.int32)
        often = examples.NARROW_AFTER
        assert [given.pays_narrowed(read, 5) for _ in range(2 * often + 2)] == [False] * 2 * often + [pays] * 2
        assert not given.pays_narrowed(other, 10 * often) and given.pays_narrowed(other, 5) == pays


def pruned_to_few_columns():
    net = mlgraph.Network(300, seed=0)
    net.add_layer(24, "tanh")
    net.add_layer(6, "softmax")
    mask = np.random.default_rng(0).random((24, 300)) < 0.1
    mask[:, np.r_[40:170, 190:250]] = False
    net.layers[0].mask = mask
    return net


@pytest.mark.parametrize("n_threads", [1, 2])
def test_rows_that_read_few_columns_have_them_copied(sweep, n_threads, monkeypatch):
    """Once that has paid, and not before; nothing that is learnt depends on it, and an edit between is seen."""
    x, y = data(200, 300, 6, "bytes")
    asked, narrowed = [], Examples.narrowed
    monkeypatch.setattr(loop, "PIECE_SECONDS", 1e6)
    monkeypatch.setattr(
        Examples, "narrowed", lambda self, *given: asked.append(len(given[0])) or narrowed(self, *given)
    )

    def trained(after):
        asked.clear()
        monkeypatch.setattr(examples, "NARROW_AFTER", after)
        net = pruned_to_few_columns()
        last = net.graph[299].targets

        def cut(progress):
            if progress.kind == "epoch" and progress.epoch == 3:
                net.graph.prune([(net.graph[299], neuron) for neuron in last])

        net.fit(x, y, epochs=7, batch_size=64, n_threads=n_threads, seed=1, callback=cut)
        return net.graph.get_parameters()

    expected = trained(10)
    assert asked == []
    np.testing.assert_array_equal(trained(2), expected)
    read = int(pruned_to_few_columns().layers[0].mask.any(0).sum())
    assert asked == [read, read, read - 1]


def test_places_that_there_are_not_are_refused(sweep):
    """By the kernels, which would write there."""
    three, one = np.zeros(3, np.float32), np.zeros(1, np.int32)
    for origin, place in ((3, 0), (-1, 0), (0, 3), (0, -1)):
        with pytest.raises(ValueError, match=r"^origin, place: expected numbers below 3 and 3, got 1 that are not"):
            sweep.move(three, one + origin, three, one + place, 1)
    row, number = (
        np.array([0, 1], np.int32),
        np.zeros(3, np.int64)[1:2],
    )  # so that it would do before it and after it, too
    assert _topology.place_edges(row, one, 0, number, 1, 16, np.full(16, -1, np.int32))
    for source, lowest, places in ((2**30, 0, 16), (1, 0, 16), (0, 1, 16), (5, 0, 16), (0, 0, 0)):
        with pytest.raises(ValueError, match=r"^row, source: expected edges that have places, got 1 that have none"):
            _topology.place_edges(row, one + np.int32(source), lowest, number, 1, 16, np.full(places, -1, np.int32))


def test_long_lists_of_what_is_not_zero_are_not_made(monkeypatch):
    """Where data have many columns; the values are the same."""
    net, x = network(), X * (X > 180)
    expected = net.forward(x)
    given = (
        engine_of(net, net.output_ids).plan,
        Examples(x, INPUTS),
        np.array([len(x)]),
        len(x),
        True,
        True,
        None,
        False,
        1,
    )
    how = [choice.choose(*given)]
    monkeypatch.setattr(choice, "MOST_LISTED", 10)
    how.append(choice.choose(*given))
    assert [one.ahead for one in how] == [True, False]
    np.testing.assert_allclose(network().forward(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("unread", "rows", "there"),
    [
        ([3, 17, 37, 38, 39], True, 37),
        ([0, 38, 39], True, 38),
        (range(13), True, 40),
        (range(14), True, 26),
        ([3, 17], False, 38),
        (range(30, 40), True, 30),
    ],
)
def test_few_columns_that_nothing_reads_stay_in_place(unread, rows, there):
    """Up to the last that is read; not if a block reads exactly the others."""
    mask = np.ones((16, 40), bool)
    mask[:, list(unread)] = False
    if rows:
        mask[np.arange(16), 18 + np.arange(16) % 7] = False
    net = mlgraph.Network(40, seed=0)
    net.add_layer(16, "tanh")
    net.add_layer(6, "softmax")
    net.layers[0].mask = mask
    plan, read = engine_of(net).plan, np.flatnonzero(mask.any(axis=0))
    assert len(plan.input_column) == there and (plan.node[:there] == plan.input_column).all()
    assert set(read) <= set(plan.input_column) and plan.input_column[-1] == read[-1]


def test_columns_that_nothing_reads_have_no_slots_without_enough_rows():
    """Operations, or so few rows that they become no block, would read the data no faster."""
    g = mlgraph.Graph()
    x = g.inputs(8)
    rows = [g.add_neuron(x[k : k + 3 : 2], weights=[1.0, 2.0]) for k in (0, 2, 3, 5) for _ in range(2)]
    for outputs, columns in (([x[0] * x[2] + x[3]], [0, 2, 3]), (rows[:6], [0, 2, 3, 4, 5]), (rows, [*range(8)])):
        assert engine_of(mlgraph.Model(g, outputs)).plan.input_column.tolist() == columns


def test_a_block_beside_rows_reads_its_columns_and_no_others():
    """Else it would not read all of the data, and could not skip their zeros."""
    mask = np.ones((52, 40), bool)
    mask[:, [3, 17]] = False
    mask[np.arange(40, 52), 20 + np.arange(12)] = False
    net = mlgraph.Network(40, seed=0)
    net.add_layer(52, "tanh")
    net.add_layer(6, "softmax")
    net.layers[0].mask = mask
    plan = engine_of(net).plan
    assert plan.dense_read_data and plan.rows_read_data and len(plan.input_column) == 38


def test_columns_in_the_order_of_given_inputs():
    g = mlgraph.Graph()
    x = g.inputs(20)
    neurons = [g.add_neuron([n for k, n in enumerate(x) if k not in (i, 4)], weights=np.ones(18)) for i in range(5, 15)]
    f = g.compile(neurons, inputs=x[::-1])
    plan = engine_of(f, False).plan
    assert plan.input_column.tolist() == list(range(20)) and plan.node[:20].tolist() == list(range(19, -1, -1))
    rows = np.random.default_rng(0).normal(size=(3, 20))
    np.testing.assert_allclose(
        f(rows), [[row.sum() - row[15] - row[19 - i] for i in range(5, 15)] for row in rows], rtol=1e-5
    )


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("kind", ["bytes", "sparse", "float"])
def test_they_are_read_in_place(sweep, monkeypatch, kind, n_threads):
    """Whatever they hold, and whether or not the last columns are there."""
    monkeypatch.setattr(Examples, "narrowed", None)
    (x, y), trained = data(600, 60, 6, kind), []
    for columns in (60, 53):
        for other in (x, np.where(np.isin(np.arange(60), [0, 7, 50, 57]), x.max(), x)):
            net = mlgraph.Network(60, seed=0)
            net.add_layer(30, "tanh")
            net.add_layer(6, "softmax")
            mask = np.random.default_rng(0).random((30, 60)) < 0.8
            mask[:, np.r_[0, 7, 50, 53:60]] = False
            net.layers[0].mask = mask
            net.fit(other[:, :columns], y, epochs=2, batch_size=50, n_threads=n_threads)
            trained.append((net.graph.parameters.tobytes(), net.evaluate(other[:, :columns], y)["loss"]))
    assert len(set(trained)) == 1
