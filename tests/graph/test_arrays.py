"""A graph's edges, neurons and parameters as arrays, and queries about edges."""

import numpy as np
import pytest
from editable import X, Y, everything, network

import mlgraph
from mlgraph.graph import ops


def test_edges_as_arrays():
    net = network()
    net.layers[0].neurons[2].prune()
    dead = net.graph.add_neuron([net.layers[0].neurons[1]])
    net.layers[1].neurons[1].weights = range(len(net.layers[1].neurons[1].weights))
    source, target, weight = net.graph.edges()
    by_hand = [
        (s.id, n.id, float(w))
        for n in net.graph
        if isinstance(n, mlgraph.Neuron) and n.alive
        for s, w in zip(n.sources, n.weights, strict=True)
    ]
    assert list(zip(source.tolist(), target.tolist(), weight.tolist(), strict=True)) == by_hand
    assert len(weight) == net.n_edges and dead.id not in target
    assert (source.dtype, target.dtype, weight.dtype) == (np.int32, np.int32, np.float32)
    weight[:] = 0
    assert net.graph.edges().weight.any()
    assert all(part.size == 0 for part in mlgraph.Graph().edges())
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    none = g.add_neuron([x])
    both = g.add_neuron([none, y])
    g.prune([(x, none)])
    g.add_edge(none, both, 1.0)
    assert [part.tolist() for part in g.edges()] == [[y.id], [both.id], [0]], "not what has no live source"


@pytest.mark.parametrize("seed", range(3))
def test_edges_and_neurons_define_the_computation(seed):
    """The graph has neurons cut and added, and ids in no order of layers."""
    net = network(seed)
    g = net.graph
    net.prune(0.4)
    late = g.add_neuron([g[0], net.layers[0].neurons[4]], "tanh", weights=[1.0, -2.0], bias=None)
    g.add_edge(late, net.layers[1].neurons[3], 0.5)
    g.add_neuron([late], "sigmoid")
    source, target, weight = g.edges()
    node, activation, bias = g.neurons()
    assert node.dtype == np.int32 and bias.dtype == np.float32 and late.id in node and len(g) - 1 not in node
    assert sorted(node.tolist()) == [n.id for n in g if isinstance(n, mlgraph.Neuron) and n.alive]
    values = dict(enumerate(X.T / 255))
    for n, name, b in zip(node.tolist(), activation.tolist(), bias.tolist(), strict=True):
        mine = target == n
        z = b + sum(w * values[s] for s, w in zip(source[mine].tolist(), weight[mine].tolist(), strict=True))
        values[n] = ops.OPS[name].value(z)
    want = np.array([values[node.id] for node in net.outputs]).T
    np.testing.assert_allclose(net.forward(X), want, rtol=1e-4, atol=1e-5)
    assert all(part.size == 0 for part in mlgraph.Graph().neurons())


def test_has_edge():
    net = network()
    edge = net.layers[1].neurons[1].edges[3]
    source, target = edge.source, edge.target
    assert net.graph.has_edge(source, target) and not net.graph.has_edge(target, source)
    edge.prune()
    assert not net.graph.has_edge(source, target) and not net.graph.has_edge(net.graph[0], net.graph[1])
    assert not net.graph.has_edge(net.graph[0], -net.graph[0]), "an argument is no edge"


def test_reaches_predicts_cycles():
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    a = g.add_neuron([x])
    b, c = g.add_neuron([a]), g.add_neuron([y])
    assert g.reaches(x, b) and g.reaches(a, a) and not g.reaches(y, b) and not g.reaches(b, a)
    for source, target in ((b, c), (c, a), (a, b)):
        if g.has_edge(source, target) or g.reaches(target, source):
            with pytest.raises(ValueError, match=r"add_edge|cycle"):
                g.add_edge(source, target)
        else:
            g.add_edge(source, target)
    assert g.reaches(a, c) and g.has_edge(b, c) and not g.has_edge(c, a)


def test_compiling_keeps_the_order_of_get_parameters():
    g = mlgraph.Graph()
    x = g.inputs(2)
    p = g.parameter(0.5)
    a = g.add_neuron(x, weights=[1, 2], bias=3)
    b = g.add_neuron([a, p * x[0]], weights=[4, 5], bias=None)
    many = [g[i] for i in g.add_neurons(x, weights=np.arange(20.0).reshape(10, 2), biases=np.arange(10.0))]
    want = [0.5, 1, 2, 4, 5, *range(20), 3, *range(10)]
    for outputs in ([b], many, [*many[3:], a], [*many, b]):
        assert g.get_parameters().tolist() == want and g.n_parameters == len(want)
        g.compile(outputs)([[1, 1]])
    kept = g.get_parameters()
    g.set_parameters(-kept)
    assert (p.value, a.weights.tolist(), a.bias, b.weights.tolist(), many[4].bias) == (-0.5, [-1, -2], -3, [-4, -5], -4)
    assert kept.tolist() == want, "a copy"
    with pytest.raises(ValueError, match=r"values: expected shape \(36,\), got \(3,\)"):
        g.set_parameters([1, 2, 3])
    assert mlgraph.Graph().get_parameters().shape == (0,)


def test_prune_takes_edges_as_arrays():
    net, same, other = network(), network(), network()
    source, target, weight = net.graph.edges()
    small = np.abs(weight) < 0.1
    net.graph.prune(mlgraph.graph.arrays.Edges(source[small], target[small], weight[small]))
    same.graph.prune(zip(source[small].tolist(), target[small], strict=True))
    ends = zip(source[small].tolist(), target[small].tolist(), strict=True)
    other.graph.prune([(other.graph[s], other.graph[t]) for s, t in ends])
    assert everything(net.graph) == everything(same.graph) == everything(other.graph)
    assert 0 < net.n_edges <= np.count_nonzero(~small) < len(small) and (np.abs(net.graph.edges().weight) >= 0.1).all()


def test_arrays_of_ids_name_nodes():
    net, same = network(), network()
    ids = net.inspect(X)["node"][3:6]
    nodes = [net.graph[i] for i in ids.tolist()]
    assert net.trace(X, nodes=ids).values.tobytes() == net.trace(X, nodes=nodes).values.tobytes()
    assert net.graph.compile(ids)(X).tobytes() == net.graph.compile(nodes)(X).tobytes()
    assert mlgraph.Model(net.graph, ids).outputs == nodes
    assert net.ablate(range(ids[0], ids[0] + 2), X, Y) == net.ablate(nodes[:2], X, Y)
    assert net.trace(X).of(range(0)).values.shape == (len(X), 0)
    net.graph.prune(ids)
    same.graph.prune([same.graph[i] for i in ids.tolist()])
    assert everything(net.graph) == everything(same.graph)
    for wrong, error, message in (
        (np.array([0]), TypeError, "prune: expected neurons, edges or pairs"),
        (np.array([99]), ValueError, "prune: expected ids from 0 to 50, got 99 to 99"),
        (range(10**15), ValueError, "prune: expected ids from 0 to 50, got 0 to 999999999999999"),
        (range(-(10**20), 3), ValueError, f"prune: expected ids from 0 to 50, got -{10**20} to 2"),
        (range(2**64, 2**64 - 3, -2), ValueError, f"got {2**64 - 2} to {2**64}"),
        (np.array([[0, 13]]), TypeError, "prune: expected nodes or a row of ids, got int64"),
    ):
        with pytest.raises(error, match=message):
            net.graph.prune(wrong)
