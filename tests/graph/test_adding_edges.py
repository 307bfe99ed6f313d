"""Adding edges between any two nodes, one or many, without cycles."""

import copy
import pickle

import numpy as np
import pytest
from editable import X, everything, network

import mlgraph


def test_edge_may_skip_a_layer():
    net = network()
    pixel, neuron = net.graph[5], net.layers[1].neurons[2]
    before = net.graph.compile(neuron)(X / 255)
    edge = net.graph.add_edge(pixel, neuron, -0.5)
    assert tuple(edge) == (pixel, neuron, -0.5) and neuron.sources[0] == pixel and pixel.targets[-1] == neuron
    assert net.n_edges == 448 and net.sparsity == 0
    after = net.graph.compile(neuron)(X / 255)
    slope = np.where(after > 0, 1, 0.01)
    np.testing.assert_allclose(after / slope, before / np.where(before > 0, 1, 0.01) - 0.5 * X[:, [5]] / 255, atol=1e-4)


def test_new_source_keeps_an_ascending_list_in_order():
    """Other lists get it at the end. Each list counts alone, although the lists are concatenated."""
    g = mlgraph.Graph()
    x = g.add_inputs(5)
    falling, rising = g.add_neuron([x[4], x[2]], weights=[4, 2]), g.add_neuron([x[2], x[4]], weights=[2, 4])
    other = g.add_neuron([x[1], x[3]], weights=[1, 3])
    for k in (0, 3):
        g.add_edges(mlgraph.Edges([k, k], [falling.id, rising.id], [k, k]))
    g.add_edges(mlgraph.Edges([1, 2], [rising.id, other.id], [1, 2]))
    assert [(s.id, w) for s, _, w in falling.in_edges] == [(4, 4), (2, 2), (0, 0), (3, 3)]
    assert [(s.id, w) for s, _, w in rising.in_edges] == [(k, k) for k in range(5)]
    assert [(s.id, w) for s, _, w in other.in_edges] == [(1, 1), (2, 2), (3, 3)]


def test_add_edges_is_one_edit():
    """It gives the same graph as `add_edge` for each; adding no edges is an edit, too."""
    one, many = network(), network()
    for net in (one, many):
        net.prune(0.5)
    new = [(s, t) for s in (0, 3, 12, 14) for t in many.layers[1].ids if s not in many.graph.sources_of(t)]
    weights = np.linspace(-1, 1, len(new)).astype(np.float32)
    assert len(new) > 20
    for (s, t), weight in zip(new, weights, strict=True):
        one.graph.add_edge(s, t, weight)
    many.graph.add_edges(mlgraph.Edges(*np.array(new).T, weights))
    assert everything(many.graph) == everything(one.graph)
    assert many.forward(X).tobytes() == one.forward(X).tobytes()
    many.graph.add_edges(mlgraph.Edges([], [], []))
    many.undo()
    assert everything(many.graph) == everything(one.graph)
    many.undo()
    assert {*zip(*many.graph.edges()[:2], strict=True)}.isdisjoint(new)


def test_operation_of_cut_neurons_cannot_be_a_source(tmp_path):
    """It would be computed but not counted. A cut neuron itself may be a source, with the value 0."""
    g = mlgraph.Graph()
    x, z = g.add_inputs(2)
    h, other = g.add_neuron([x], weights=[1.0]), g.add_neuron([x], weights=[1.0])
    deep = mlgraph.exp(mlgraph.cos(h) * h)
    mixed = [deep + z, deep + other, deep * 2.0, deep + g.add_parameter(1.0)]
    out = g.add_neuron([x, *mixed], weights=[1.0, 1.0, 1.0, 1.0, 1.0])
    model = mlgraph.Model(g, out)
    h.prune()
    edges = mlgraph.Edges([deep.id], [out.id], [1.0])
    attempts = [
        lambda: g.add_edge(deep, out),
        lambda: g.add_neuron([x, deep]),
        lambda: g.add_neurons([x, deep], weights=[[1, 2]]),
        lambda: g.add_edges(edges),
        lambda: g.add_subgraph(mlgraph.Neurons([99], ["tanh"], [0]), mlgraph.Edges([deep.id], [99], [1])),
    ]
    model.save(tmp_path / "model.npz")
    copies = [g.copy(), copy.deepcopy(g), pickle.loads(pickle.dumps(g)), mlgraph.load(tmp_path / "model.npz").graph]
    attempts += [lambda g=g: g.add_edges(edges) for g in copies]
    small = model.compact().graph
    attempts.append(lambda: small.add_neuron([node for node in small if node.kind == "exp"]))
    for attempt in attempts:
        with pytest.raises(ValueError, match=r"<exp n[0-9]+> depends only on neurons that are cut off"):
            attempt()
    before, n_edges = model.forward([[1.0, 2.0]]), model.n_edges
    g.add_edge(h, out, 7.0)
    assert model.n_edges == n_edges and model.forward([[1.0, 2.0]]) == before
    g.add_edge(x, h, 1.0)
    assert model.n_edges == n_edges + 2
    g.add_edge(deep, out)


def test_neuron_that_reads_only_cut_neurons_is_zero():
    """Operations on it cannot be sources, either."""
    g = mlgraph.Graph()
    x = g.add_input()
    z, out = g.add_neuron([x], weights=[1.0]), g.add_neuron([x], weights=[1.0])
    model = mlgraph.Model(g, out)
    z.prune()
    y = g.add_neuron([z], "sigmoid", weights=[1.0], bias=1.0)
    above = mlgraph.exp(y)
    assert str(y) == "0" and g.compile(y)([[1.0]]) == 0.0
    with pytest.raises(ValueError, match="depends only on neurons that are cut off"):
        g.add_edge(above, out)
    g.add_edge(x, z, 1.0)
    g.add_edge(above, out, 10.0)
    assert str(y) == "sigmoid(1*n1 + 1)" and model.n_edges == 4
    np.testing.assert_array_equal(model.forward([[1.0]]), model.compact().forward([[1.0]]))


def test_check_of_sources_takes_linear_time():
    """The number of paths through these operations is exponential."""
    g = mlgraph.Graph(seed=0)
    x = g.add_input()
    a = h = g.add_neuron([x], weights=[1.0])
    for _ in range(60):
        a = mlgraph.tanh(a) * mlgraph.sin(a)
    h.prune()
    with pytest.raises(ValueError, match="depends only on neurons that are cut off"):
        g.add_neuron([a])
    g.add_neuron([a + x])
