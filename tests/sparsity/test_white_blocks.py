"""Scores of blocks, which `block=` compares."""

import numpy as np
import pytest

import mlgraph
from mlgraph.graph.arrays import Edges
from mlgraph.sparsity.scores import block_scores


@pytest.mark.parametrize(
    ("by", "expected"),
    [("magnitude", [12.5**0.5, 12.5**0.5, 5.0]), (max, [3.5, 3.5, -5.0]), ("random", [3.0, 3.0, -5.0])],
)
def test_block_scores_are_on_the_scale_of_the_scores(by, expected):
    net = mlgraph.Network(2, seed=0)
    net.add_layer(2)
    edges = Edges(np.array([0, 0, 1], np.int32), np.array([2, 3, 2], np.int32), np.zeros(3, np.float32))
    score, block_ids = block_scores(net, edges, np.array([3.0, 4.0, -5.0]), by, 2)
    np.testing.assert_allclose(score, expected)
    assert block_ids.tolist() == [0, 0, 1]


def test_blocks_of_a_model_skip_operations():
    g = mlgraph.Graph()
    x = g.inputs(2)
    y = []
    for i in range(4):
        y.append(g.add_neuron(x, weights=[i + 1.0, 4.0 - i]))
        x[0] * x[1]
    model = mlgraph.Model(g, y, loss="squared_error")
    edges = Edges(*np.array([[0, 1] * 4, np.repeat([n.id for n in y], 2), [0] * 8]))
    assert block_scores(model, edges, np.ones(8), "magnitude", 4)[1].tolist() == [0, 1] * 4
