"""Data as operations, and dense blocks that skip nothing, read them: in slots of floats."""

import numpy as np
import pytest

import mlgraph

RNG = np.random.default_rng(0)


def data(kind, n, columns):
    """Bytes or floats of all kinds, side by side in memory or not."""
    if kind == "bytes":
        return RNG.integers(0, 256, (n, columns), np.uint8)
    x = RNG.integers(0, 2**32, (n, columns), np.uint32).view(np.float32)  # NaN, infinities and subnormal numbers, too
    return np.asfortranarray(x) if kind == "columns" else x


@pytest.mark.parametrize("kind", ["bytes", "floats", "columns"])
@pytest.mark.parametrize("columns", [1, 3, 15, 16, 17, 63, 64, 65, 130, 200])
@pytest.mark.parametrize("n", [1, 31, 32, 45, 70])
def test_each_value_to_the_bit(sweep, kind, columns, n):
    """Of all columns, and of some: a block at the end of a row begins in the one before it."""
    x = data(kind, n, columns)
    wanted = (x / 255).astype(np.float32) if kind == "bytes" else x
    for some in (range(columns), range(columns - 1, -1, -7), RNG.permutation(columns)[: 1 + columns // 3].tolist()):
        g = mlgraph.Graph()
        inputs = g.inputs(columns)
        nodes = [inputs[i] for i in some]
        found = g.compile(nodes)(x)
        np.testing.assert_array_equal(found.view(np.uint32), wanted[:, list(some)].view(np.uint32))
        sums = g.compile([node + 0.0 for node in nodes])(x)
        np.testing.assert_array_equal(sums, wanted[:, list(some)])


@pytest.mark.parametrize("columns", [5, 64, 100, 133])
def test_every_byte_is_a_255th(sweep, columns):
    x = np.resize(np.arange(256, dtype=np.uint8), (300, columns))
    g = mlgraph.Graph()
    found = g.compile(g.inputs(columns))(x)
    np.testing.assert_array_equal(found, (x / 255).astype(np.float32))


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_shuffled_examples(sweep, kind):
    """Steps of one example and of several tiles: each weight moves by what its example has in that column."""
    x = RNG.integers(1, 256, (75, 70)).astype(np.uint8)
    x = x if kind == "bytes" else (x / 255).astype(np.float32)
    values = (x / 255 if kind == "bytes" else x).astype(np.float32)
    for batch in (1, 33, 75):
        g = mlgraph.Graph()
        inputs, weights = g.inputs(70), [g.parameter(0.0) for _ in range(70)]
        model = mlgraph.Model(
            g, weights, loss=mlgraph.sum(*(w * mlgraph.sin(i) for w, i in zip(weights, inputs, strict=True)))
        )
        model.fit(x, epochs=1, batch_size=batch, learning_rate=1.0, momentum=0.0, seed=3)
        steps = len(model.history.batch_size)
        order = mlgraph.engine.steps.epoch_order(0, 75, 3)
        moved = sum(np.sin(values[order[k : k + batch]].astype(float)).mean(axis=0) for k in range(0, 75, batch))
        assert steps == -(-75 // batch)
        np.testing.assert_allclose(g.get_parameters(), -moved, rtol=1e-4)
