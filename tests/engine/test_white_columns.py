"""Which columns of the data a plan reads, which are copied side by side, and when that pays."""

import weakref

import numpy as np
import pytest
from learnable import INPUTS, X
from swept import data

import mlgraph
from mlgraph.engine import choice, examples
from mlgraph.engine.examples import LINE, Examples
from mlgraph.models.running import engine_of
from mlgraph.training import loop
from mlgraph_ext import _topology


def pruned(mask):
    """A network whose first layer has the edges of the mask."""
    net = mlgraph.Network(mask.shape[1], seed=0)
    net.add_layer(len(mask), "tanh")
    net.add_layer(6, "softmax")
    net.layers[0].mask = mask
    return net


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_copied_columns_begin_at_cache_lines(dtype, n_threads):
    x = np.random.default_rng(0).integers(0, 256, (50, 200)).astype(dtype)
    for columns in ([0], [199], range(3, 190), range(0, 200, 2), [*range(20), *range(30, 47), 60, 199]):
        few = Examples(x, 200).narrowed(np.array(columns, np.int32), n_threads)
        np.testing.assert_array_equal(few.array[:, : len(columns)], x[:, list(columns)])
        assert few.array.ctypes.data % LINE == 0 and few.array.strides[0] % LINE == 0
        assert few.array.strides[0] - len(columns) * x.itemsize < LINE
    narrow = Examples(X, INPUTS).narrowed(np.arange(1, 6, dtype=np.int32))
    assert narrow.array.shape == (len(X), 5)  # data of less than two lines a row are not padded


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_take_columns_checks_its_arguments(sweep, dtype):
    x = np.random.default_rng(0).integers(0, 256, (50, 37)).astype(dtype)
    size = x.itemsize

    def take(columns, out, size=size, n_threads=3):
        sweep.take_columns(x.view(np.uint8), np.array(columns, np.int32), out.view(np.uint8), size, n_threads)

    for columns in (np.arange(37), np.arange(3, 9), np.array([36, 0, 0, 7]), np.zeros(0, int)):
        out = np.full((50, len(columns) + 2), 7, dtype)
        take(columns, out)
        np.testing.assert_array_equal(out[:, :-2], x[:, columns])
        assert not out[:, -2:].any()
    for wrong in ([-1], [37], [2**31 - 1]):
        with pytest.raises(ValueError, match=r"^columns: expected 0 to 36, got "):
            take(wrong, np.zeros((50, size), np.uint8))
    for shape, wrong_size in (((50, size - 1), size), ((49, size), size), ((50, size), 2)):
        with pytest.raises(ValueError, match=r"^size, out: expected 1 or 4, and 50 rows of [0-9] bytes or more"):
            take([0], np.zeros(shape, np.uint8), wrong_size)


def test_kernels_refuse_places_outside_their_arrays(sweep):
    three, one = np.zeros(3, np.float32), np.zeros(1, np.int32)
    for origin, place in ((3, 0), (-1, 0), (0, 3), (0, -1)):
        with pytest.raises(ValueError, match=r"^origin, place: expected numbers below 3 and 3, got 1 that are not"):
            sweep.move(three, one + origin, three, one + place, 1)
    row, number = np.array([0, 1], np.int32), np.zeros(3, np.int64)[1:2]  # its neighbours would do, too
    assert _topology.place_edges(row, one, 0, number, 1, 16, np.full(16, -1, np.int32))
    for source, lowest, places in ((2**30, 0, 16), (1, 0, 16), (0, 1, 16), (5, 0, 16), (0, 0, 0)):
        with pytest.raises(ValueError, match=r"^row, source: expected edges that have places, got 1 that have none"):
            _topology.place_edges(row, one + np.int32(source), lowest, number, 1, 16, np.full(places, -1, np.int32))


def test_the_last_copy_is_reused_and_freed():
    """A network that is pruned during training reads fewer and fewer columns, and each copy is as large as the data."""
    given = Examples(data(100, 60, 6, "sparse")[0], 60)
    columns = np.arange(60, dtype=np.int32)
    assert given.narrowed(columns) is given
    first = weakref.ref(given.narrowed(columns[1:]).array)
    assert given.narrowed(columns[1:]).array is first()
    room = given._room
    second = given.narrowed(columns[2:])
    assert first() is None and np.shares_memory(second.array, room)
    assert given.narrowed(columns) is given and given._room is None


def test_a_copy_knows_only_the_columns_it_has():
    """Its largest value bounds steps; a leftover of another copy would change them after a resume."""
    x = np.ones((4, 40), np.float32)
    x[:, 39] = 1e31
    given = Examples(x, 40)
    assert given.narrowed(np.arange(1, 40, dtype=np.int32)).largest == np.float32(1e31)
    assert given.narrowed(np.arange(1, 39, dtype=np.int32)).largest == 1


@pytest.mark.parametrize(
    ("width", "dtype", "columns", "pays"),
    [
        (256, np.uint8, 128, True),
        (256, np.uint8, 129, False),
        (127, np.uint8, 1, False),
        (128, np.uint8, 64, True),
        (64, np.float32, 32, True),
        (64, np.float32, 33, False),
    ],
)
def test_columns_are_copied_if_they_are_at_most_half_of_the_cache_lines_and_are_read_often(width, dtype, columns, pays):
    given, often = Examples(np.zeros((10, width), dtype), width), examples.NARROW_AFTER
    read, other = np.arange(columns, dtype=np.int32), np.arange(1, columns + 1, dtype=np.int32)
    assert [given.pays_narrowed(read, 5) for _ in range(2 * often + 2)] == [False] * 2 * often + [pays] * 2
    assert not given.pays_narrowed(other, 10 * often) and given.pays_narrowed(other, 5) == pays


@pytest.mark.parametrize("n_threads", [1, 2])
def test_copying_columns_changes_no_bit_of_training(sweep, n_threads, monkeypatch):
    """An edit in between is seen; nothing is copied before that pays."""
    x, y = data(200, 300, 6, "bytes")
    mask = np.random.default_rng(0).random((24, 300)) < 0.1
    mask[:, np.r_[40:170, 190:250]] = False
    asked, narrowed = [], Examples.narrowed
    monkeypatch.setattr(loop, "PIECE_SECONDS", 1e6)
    monkeypatch.setattr(Examples, "narrowed", lambda self, *of: asked.append(len(of[0])) or narrowed(self, *of))

    def trained(after):
        asked.clear()
        monkeypatch.setattr(examples, "NARROW_AFTER", after)
        net = pruned(mask)
        last = net.graph[299].targets

        def cut(progress):
            if progress.kind == "epoch" and progress.epoch == 3:
                net.graph.prune([(net.graph[299], neuron) for neuron in last])

        net.fit(x, y, epochs=7, batch_size=64, n_threads=n_threads, seed=1, callback=cut)
        return net.graph.get_parameters()

    expected = trained(10)
    assert asked == []
    np.testing.assert_array_equal(trained(2), expected)
    read = int(mask.any(0).sum())
    assert asked == [read, read, read - 1]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("kind", ["bytes", "sparse", "float"])
def test_unread_columns_change_no_bit_of_training(sweep, monkeypatch, kind, n_threads):
    """A few of them are left in place, whatever they hold; the last ones may be missing."""
    monkeypatch.setattr(Examples, "narrowed", None)
    (x, y), trained = data(600, 60, 6, kind), set()
    mask = np.random.default_rng(0).random((30, 60)) < 0.8
    mask[:, np.r_[0, 7, 50, 53:60]] = False
    for columns in (60, 53):
        for other in (x, np.where(np.isin(np.arange(60), [0, 7, 50, 57]), x.max(), x)):
            net = pruned(mask)
            net.fit(other[:, :columns], y, epochs=2, batch_size=50, n_threads=n_threads)
            trained.add((net.graph.parameters.tobytes(), net.evaluate(other[:, :columns], y)["loss"]))
    assert len(trained) == 1


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
def test_few_unread_columns_keep_their_slots(unread, rows, there):
    """Up to the last column that is read; not if a dense block reads exactly the others."""
    mask = np.ones((16, 40), bool)
    mask[:, list(unread)] = False
    if rows:
        mask[np.arange(16), 18 + np.arange(16) % 7] = False
    plan, read = engine_of(pruned(mask)).plan, np.flatnonzero(mask.any(axis=0))
    assert len(plan.input_column) == there and (plan.node[:there] == plan.input_column).all()
    assert set(read) <= set(plan.input_column) and plan.input_column[-1] == read[-1]


def test_unread_columns_have_no_slots_without_enough_sparse_rows():
    """Operations, and rows so few that they become no block, would not be faster."""
    g = mlgraph.Graph()
    x = g.inputs(8)
    rows = [g.add_neuron(x[k : k + 3 : 2], weights=[1.0, 2.0]) for k in (0, 2, 3, 5) for _ in range(2)]
    for outputs, columns in (([x[0] * x[2] + x[3]], [0, 2, 3]), (rows[:6], [0, 2, 3, 4, 5]), (rows, [*range(8)])):
        assert engine_of(mlgraph.Model(g, outputs)).plan.input_column.tolist() == columns


def test_a_dense_block_next_to_sparse_rows_reads_all_slots_of_the_data():
    """Otherwise it could not skip zeros."""
    mask = np.ones((52, 40), bool)
    mask[:, [3, 17]] = False
    mask[np.arange(40, 52), 20 + np.arange(12)] = False
    plan = engine_of(pruned(mask)).plan
    assert plan.dense_read_data and plan.rows_read_data and len(plan.input_column) == 38


def test_columns_follow_the_order_of_given_inputs():
    g = mlgraph.Graph()
    x = g.inputs(20)
    neurons = [g.add_neuron([n for k, n in enumerate(x) if k not in (i, 4)], weights=np.ones(18)) for i in range(5, 15)]
    f = g.compile(neurons, inputs=x[::-1])
    plan = f.engine(False).plan
    assert plan.input_column.tolist() == list(range(20)) and plan.node[:20].tolist() == list(range(19, -1, -1))
    rows = np.random.default_rng(0).normal(size=(3, 20))
    expected = [[row.sum() - row[15] - row[19 - i] for i in range(5, 15)] for row in rows]
    np.testing.assert_allclose(f(rows), expected, rtol=1e-5)


def test_dense_data_are_not_copied_for_small_steps():
    """Only blocks that skip zeros of sparse data have their columns copied."""
    x, y = np.ones((200, 6)), np.ones((200, 8))
    net = mlgraph.Network(6)
    net.add_layer(8, "tanh")
    net.graph.prune([(net.graph[2], neuron) for neuron in net.layers[0].neurons])
    plan = engine_of(net).plan
    for data_, few, sparse in ((x, False, False), (x, True, False), (x * [1, 1, 1, 1, 0, 0], True, True)):
        assert choice.skips_zeros(plan, Examples(data_, 6), len(y), few) == sparse
