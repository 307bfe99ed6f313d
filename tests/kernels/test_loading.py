"""Inputs reach the network exactly as given, for all kinds and layouts of data."""

import numpy as np
import pytest

import mlgraph
from mlgraph.engine.steps import epoch_order

RNG = np.random.default_rng(0)


def data(kind, n, columns):
    """Bytes or floats of any value, among them NaN, infinities and subnormal numbers; by rows or columns in memory."""
    if kind == "bytes":
        return np.resize(RNG.permutation(256).astype(np.uint8), (n, columns))
    x = RNG.integers(0, 2**32, (n, columns), np.uint32).view(np.float32)
    return np.asfortranarray(x) if kind == "columns" else x


@pytest.mark.parametrize("kind", ["bytes", "floats", "columns"])
@pytest.mark.parametrize("columns", [1, 3, 17, 63, 65, 130])
@pytest.mark.parametrize("n", [1, 70])
def test_every_value_is_read_exactly(sweep, kind, columns, n):
    """Read all columns or only some: at the end of a row, the last block overlaps the one before it."""
    x = data(kind, n, columns)
    wanted = (x / 255).astype(np.float32) if kind == "bytes" else x
    for some in (range(columns), range(columns - 1, -1, -7), RNG.permutation(columns)[: 1 + columns // 3].tolist()):
        g = mlgraph.Graph()
        inputs = g.add_inputs(columns)
        nodes = [inputs[i] for i in some]
        for read, exact in ((nodes, wanted[:, list(some)].view(np.uint32)), ([node + 0.0 for node in nodes], None)):
            model = mlgraph.Model(g, read)
            model.scaling = "bytes" if kind == "bytes" else "unscaled"
            found = model.forward(x)
            np.testing.assert_array_equal(
                found if exact is None else found.view(np.uint32), wanted[:, list(some)] if exact is None else exact
            )


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_shuffled_examples_reach_their_step(sweep, kind):
    """In steps of one example and of several tiles, each weight moves by the value that its column has there."""
    x = RNG.integers(1, 256, (75, 70)).astype(np.uint8)
    values = (x / 255).astype(np.float32)
    for batch in (1, 33, 75):
        g = mlgraph.Graph()
        inputs, weights = g.add_inputs(70), [g.add_parameter(0.0) for _ in range(70)]
        loss = mlgraph.sum(*(w * mlgraph.sin(i) for w, i in zip(weights, inputs, strict=True)))
        options = {
            "epochs": 1,
            "batch_size": batch,
            "learning_rate": 1.0,
            "momentum": 0.0,
            "seed": 3,
            "optimizer": "sgd",
        }
        mlgraph.Model(g, weights, loss=loss).fit(x if kind == "bytes" else values, **options)
        order = epoch_order(0, 75, 3)
        moved = sum(np.sin(values[order[k : k + batch]].astype(float)).mean(axis=0) for k in range(0, 75, batch))
        np.testing.assert_allclose(g.get_parameters(), -moved, rtol=1e-4)
