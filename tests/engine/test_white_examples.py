"""What an engine does with data: zeros it may skip, bytes it may read, and columns that it copies side by side."""

import numpy as np
import pytest
from swept import data

import mlgraph
from mlgraph.engine import examples
from mlgraph.engine.examples import LARGE, LINE, Examples
from mlgraph.training import loop


def pruned(mask):
    """A network whose first layer has the edges of the mask."""
    net = mlgraph.Network(mask.shape[1], seed=0)
    net.add_layer(len(mask), "tanh")
    net.add_layer(6, "softmax")
    net.layers[0].mask = mask
    return net


@pytest.mark.parametrize("columns", [4, 7, 30])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_density_is_the_fraction_of_column_groups_that_are_not_all_zero(columns, kind):
    rng = np.random.default_rng(columns)
    x = rng.integers(-3, 4, (50, columns)).astype(np.float32) * (rng.random((50, columns)) < 0.2)
    assert (np.signbit(x) & (x == 0)).any()  # -0 is zero, too
    x = np.abs(x).astype(np.uint8) if kind == np.uint8 else x
    groups = [(row[k : k + 4] != 0).any() for row in x for k in range(0, columns, 4)]
    assert Examples(x, columns).density == np.mean(groups)
    many = np.concatenate([x, np.zeros((550, columns), kind), x])  # so many that only a sample is read
    assert Examples(many, columns).density == pytest.approx(np.mean(groups) * 100 / 650, rel=0.2)
    assert Examples(x[:0], columns).density == 0


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, -1e-3, 1 + 1e-6, 1e30, 0.5, np.nextafter(np.float32(1), np.float32(0)), -0.0]
)
def test_large_float_data_become_bytes_only_if_exact(sweep, value):
    """A single float that is not exactly byte / 255 keeps the data as floats."""
    integers = np.resize(np.arange(256, dtype=np.uint8), (-(-LARGE // 128), 128))
    floats = integers / np.float32(255)
    np.testing.assert_array_equal(Examples(floats, 128).in_bytes(2).array, integers)
    assert Examples(floats[:-1], 128).in_bytes().bytes is None
    floats[-1, 77] = value
    assert Examples(floats, 128).in_bytes().bytes is None


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_copied_columns_begin_at_cache_lines(sweep, dtype, n_threads):
    """Rows of less than two lines are not padded. All columns in their order need no copy."""
    x = np.random.default_rng(0).integers(0, 256, (50, 200)).astype(dtype)
    for columns in ([0], [199], range(3, 190), range(0, 200, 2), [*range(20), *range(30, 47), 60, 199]):
        few = Examples(x, 200).narrowed(np.array(columns, np.int32), n_threads).array
        np.testing.assert_array_equal(few[:, : len(columns)], x[:, list(columns)])
        assert few.ctypes.data % LINE == few.strides[0] % LINE == 0 and not few[:, len(columns) :].any()
        assert few.strides[0] - len(columns) * x.itemsize < LINE
    narrow, columns = Examples(np.ascontiguousarray(x[:, :12]), 12), np.arange(12, dtype=np.int32)
    assert narrow.narrowed(columns[1:6]).array.shape == (50, 5) and narrow.narrowed(columns) is narrow


def test_a_copy_knows_only_the_columns_it_has():
    """Its largest value bounds steps; a leftover of another copy would change them after a resume."""
    x = np.ones((4, 40), np.float32)
    x[:, 39] = 1e31
    given = Examples(x, 40)
    assert given.narrowed(np.arange(1, 40, dtype=np.int32)).largest == np.float32(1e31)
    assert given.narrowed(np.arange(1, 39, dtype=np.int32)).largest == 1


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

        def cut(progress):
            if progress.kind == "epoch" and progress.epoch == 3:
                net.graph.prune([(net.graph[299], neuron) for neuron in net.graph[299].targets])

        net.fit(x, y, epochs=7, batch_size=64, n_threads=n_threads, seed=1, callbacks=[cut])
        return net.graph.get_parameters(), [*asked]

    (expected, none), (found, widths) = trained(10), trained(2)
    np.testing.assert_array_equal(found, expected)
    read = int(mask.any(0).sum())
    assert none == [] and widths == [read, read, read - 1]


@pytest.mark.parametrize("kind", ["bytes", "sparse", "float"])
def test_unread_columns_change_no_bit_of_training(sweep, monkeypatch, kind):
    """A few of them are left in place, whatever they hold; the last ones may be missing."""
    monkeypatch.setattr(Examples, "narrowed", None)
    (x, y), trained = data(600, 60, 6, kind), set()
    mask = np.random.default_rng(0).random((30, 60)) < 0.8
    mask[:, np.r_[0, 7, 50, 53:60]] = False
    for columns, n_threads in ((60, 1), (53, 2)):
        for other in (x, np.where(np.isin(np.arange(60), [0, 7, 50, 57]), x.max(), x)):
            net = pruned(mask)
            net.fit(other[:, :columns], y, epochs=2, batch_size=50, n_threads=n_threads)
            trained.add((net.graph.parameters.tobytes(), net.evaluate(other[:, :columns], y)["loss"]))
    assert len(trained) == 1
