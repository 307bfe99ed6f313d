"""Inputs reach the network exactly as given, for all kinds and layouts of data."""

import numpy as np
import pytest

import mlgraph

RNG = np.random.default_rng(0)


def data(kind, n, columns):
    """Bytes or floats of any value, by rows or by columns in memory."""
    if kind == "bytes":
        return RNG.integers(0, 256, (n, columns), np.uint8)
    x = RNG.integers(0, 2**32, (n, columns), np.uint32).view(
        np.float32
    )  # includes NaN, infinities and subnormal numbers
    return np.asfortranarray(x) if kind == "columns" else x


@pytest.mark.parametrize("kind", ["bytes", "floats", "columns"])
@pytest.mark.parametrize("columns", [1, 3, 16, 17, 63, 65, 130])
@pytest.mark.parametrize("n", [1, 31, 70])
def test_every_value_is_read_exactly(sweep, kind, columns, n):
    """Read all columns or only some: at the end of a row, the last block overlaps the one before it."""
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


@pytest.mark.parametrize("columns", [5, 133])
def test_every_byte_is_divided_by_255(sweep, columns):
    x = np.resize(np.arange(256, dtype=np.uint8), (300, columns))
    g = mlgraph.Graph()
    found = g.compile(g.inputs(columns))(x)
    np.testing.assert_array_equal(found, (x / 255).astype(np.float32))


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_shuffled_examples_reach_their_step(sweep, kind):
    """In steps of one example and of several tiles, each weight moves by the value that its column has there."""
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
