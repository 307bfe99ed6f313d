"""Models made of parameter nodes and operations, without edges: what works for them, and what says that it does not."""

import numpy as np
import pytest

import mlgraph

X = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
Y = X @ np.array([[1.0], [2.0], [3.0]], np.float32)


def linear():
    """A sum of products of inputs and parameter nodes."""
    g = mlgraph.Graph(seed=0)
    weights = [g.add_parameter(value) for value in (0.5, -1.0, 2.0)]
    return mlgraph.Model(g, mlgraph.sum(*(a * b for a, b in zip(weights, g.add_inputs(3), strict=True))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.prune(0.5), "prune: this model has 3 parameter nodes and no edges; only edges"),
        (lambda m: m.prune(sparsity=0.5, by="magnitude"), "prune: this model has 3 parameter nodes and no edges"),
        (lambda m: m.prune(neurons=0.5), "prune: this model has 3 parameter nodes and no edges"),
        (lambda m: m.fit(X, Y, sparsify=mlgraph.GradualPruning(0.5)), "sparsify: this model has 3 parameter nodes and"),
        (lambda m: m.fit(X, Y, weight_decay=0.1), "weight_decay: this model has 3 .*; add squares of the nodes to the"),
        (lambda m: m.fit(X, Y, l1=0.1), "l1: this model has 3 .* no edges; it changes weights of edges; add absolute"),
        (lambda m: m.inspect(X), "inspect: this model has no neurons, which the rows describe; model.trace"),
        (lambda m: m.inspect(X, Y), "inspect: this model has no neurons"),
    ],
)
def test_what_works_on_edges_or_neurons_refuses_models_without(call, message):
    model = linear()
    before = model.graph.get_parameters()
    with pytest.raises(ValueError, match=f"^{message}"):
        call(model)
    np.testing.assert_array_equal(model.graph.get_parameters(), before)
    assert not len(model.history.batch_loss)


def test_decay_of_0_trains_parameter_nodes():
    model = linear()
    model.fit(X, Y, epochs=50, learning_rate=0.1, weight_decay=0.0, l1=0.0, seed=0)
    np.testing.assert_allclose(model.graph.get_parameters(), [1, 2, 3], atol=0.05)
