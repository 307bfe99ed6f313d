"""Adding edges between any two nodes, one or many, without cycles."""

import copy
import pickle

import numpy as np
import pytest
from editable import X, everything, network

import mlgraph


def test_edge_skips_a_layer():
    net = network()
    pixel, neuron = net.graph[5], net.layers[1].neurons[2]
    before = net.graph.compile(neuron)(X)
    edge = net.graph.add_edge(pixel, neuron, -0.5)
    assert tuple(edge) == (pixel, neuron, -0.5) and neuron.sources[0] == pixel and pixel.targets[-1] == neuron
    assert net.n_edges == 448 and net.sparsity == 0
    after = net.graph.compile(neuron)(X)
    slope = np.where(after > 0, 1, 0.01)
    np.testing.assert_allclose(after / slope, before / np.where(before > 0, 1, 0.01) - 0.5 * X[:, [5]] / 255, atol=1e-4)


def test_new_source_keeps_an_ascending_list_in_order():
    """Other lists get it at the end."""
    g = mlgraph.Graph()
    x = g.inputs(5)
    falling, rising = g.add_neuron([x[4], x[2]], weights=[4, 2]), g.add_neuron([x[2], x[4]], weights=[2, 4])
    for k in (0, 3):
        for n in (falling, rising):
            g.add_edge(x[k], n, k)
    assert [(s.id, w) for s, _, w in falling.edges] == [(4, 4), (2, 2), (0, 0), (3, 3)]
    assert [(s.id, w) for s, _, w in rising.edges] == [(0, 0), (2, 2), (3, 3), (4, 4)]


def test_add_edges_is_one_edit():
    """It gives the same graph as `add_edge` for each; adding no edges is an edit, too."""
    one, many = network(), network()
    for net in (one, many):
        net.prune(0.5)
    before = everything(many.graph)
    new = [(s, t) for s in (0, 3, 12, 14) for t in many.layers[1].ids if s not in many.graph.sources_of(t)]
    weights = np.linspace(-1, 1, len(new)).astype(np.float32)
    assert len(new) > 20
    for (s, t), weight in zip(new, weights, strict=True):
        one.graph.add_edge(one.graph[s], one.graph[t], weight)
    many.graph.add_edges(mlgraph.Edges(*np.array(new).T, weights))
    assert [column.tolist() for column in many.graph.edges()] == [column.tolist() for column in one.graph.edges()]
    assert many.forward(X).tobytes() == one.forward(X).tobytes()
    many.undo()
    assert everything(many.graph) == before
    for none in ((*np.zeros((2, 0), np.int32), np.zeros(0)), ([], [], [])):
        many.graph.add_edges(mlgraph.Edges(*none))
        many.graph.prune(mlgraph.Edges(*none))
        assert everything(many.graph) == before


def test_add_edges_refuses_a_cycle():
    net = network()
    before = everything(net.graph)
    low, high = (layer.neurons[0].id for layer in net.layers[:2])
    with pytest.raises(mlgraph.CycleError):
        net.graph.add_edges(mlgraph.Edges([high], [low], [1.0]))
    assert everything(net.graph) == before


def test_add_edges_keeps_each_list_in_order():
    """Lists are compared separately, although they are concatenated."""
    g = mlgraph.Graph()
    x = g.inputs(4)
    a, b = g.add_neuron([x[0], x[3]]), g.add_neuron([x[1], x[3]])
    g.add_edges(mlgraph.Edges([2, 2], [a.id, b.id], [0.0, 0.0]))
    assert g.sources_of(a.id).tolist() == [0, 2, 3] and g.sources_of(b.id).tolist() == [1, 2, 3]


def test_operation_of_cut_neurons_cannot_be_a_source():
    """It would be computed but not counted. A cut neuron itself may be a source, with the value 0."""
    g = mlgraph.Graph()
    x, z = g.inputs(2)
    h, other = g.add_neuron([x], weights=[1.0]), g.add_neuron([x], weights=[1.0])
    deep = mlgraph.exp(mlgraph.cos(h) * h)
    mixed = [deep + z, deep + other, deep * 2.0, deep + g.parameter(1.0)]
    out = g.add_neuron([x, z], weights=[1.0, 1.0])
    h.prune()
    before = len(g)
    for attempt in (
        lambda: g.add_edge(deep, out),
        lambda: g.add_neuron([x, deep]),
        lambda: g.add_neurons([x, deep], weights=[[1, 2]]),
        lambda: g.add_edges(mlgraph.Edges(np.array([deep.id]), np.array([out.id]), np.ones(1))),
    ):
        with pytest.raises(ValueError, match=f"<exp n{deep.id}> depends only on neurons that are cut off"):
            attempt()
    assert len(g) == before and g.n_edges == 3
    for other_graph in (g.copy(), copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        with pytest.raises(ValueError, match="depends only on neurons that are cut off"):
            other_graph.add_edge(deep.id, out.id)
    g.add_edge(h, out)
    g.add_neuron([*mixed, deep + 1.0])
    g.add_edge(x, h, 1.0)
    g.add_edge(deep, out)


def test_neuron_that_reads_only_cut_neurons_is_zero():
    """Operations on it cannot be sources, either."""
    g = mlgraph.Graph()
    x = g.input()
    z, out = g.add_neuron([x], weights=[1.0]), g.add_neuron([x], weights=[1.0])
    model = mlgraph.Model(g, out)
    z.prune()
    y = g.add_neuron([z], "sigmoid", weights=[1.0], bias=1.0)
    assert str(y) == "0" and g.compile(y)([[1.0]]) == 0.0
    above = mlgraph.exp(y)
    for attempt in (lambda: g.add_edge(above, out), lambda: g.add_neuron([above])):
        with pytest.raises(ValueError, match=r"<exp n[0-9]+> depends only on neurons that are cut off"):
            attempt()
    g.add_edge(x, z, 1.0)
    g.add_edge(above, out, 10.0)
    assert str(y) == "sigmoid(1*n1 + 1)" and model.n_edges == 4
    np.testing.assert_array_equal(model.forward([[1.0]]), model.compact().forward([[1.0]]))


def test_check_of_sources_takes_linear_time():
    """The number of paths through these operations is exponential."""
    g = mlgraph.Graph()
    x = g.input()
    a = h = g.add_neuron([x], weights=[1.0])
    for _ in range(60):
        a = mlgraph.tanh(a) * mlgraph.sin(a)
    h.prune()
    with pytest.raises(ValueError, match="depends only on neurons that are cut off"):
        g.add_neuron([a])
    g.add_neuron([a + x])


def test_operation_of_cut_neurons_is_refused_after_loading(tmp_path):
    g = mlgraph.Graph()
    x = g.input()
    h = g.add_neuron([x], weights=[1.0])
    z = mlgraph.exp(h) + x
    out = g.add_neuron([z], weights=[1.0])
    h.prune()
    model = mlgraph.Model(g, out)
    model.save(tmp_path / "net.npz")
    for other in (mlgraph.load(tmp_path / "net.npz"), model.compact()):
        dead = next(node for node in other.graph if node.kind == "exp")
        with pytest.raises(ValueError, match="depends only on neurons that are cut off"):
            other.graph.add_neuron([dead])
