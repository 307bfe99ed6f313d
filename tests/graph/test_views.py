"""Views refer to one node, not to a later node with the same id."""

import numpy as np
import pytest
from editable import network

import mlgraph


def test_view_of_a_removed_neuron_raises():
    g = mlgraph.Graph()
    x = g.inputs(2)
    model = mlgraph.Model(g, g.add_neuron(x, weights=[1, 2]))
    gone = g.add_neuron(x)
    g.undo()
    assert repr(gone) == "<undone node n3>"
    uses = (
        lambda: gone.weights,
        lambda: gone.bias,
        lambda: setattr(gone, "bias", 1),
        lambda: gone.activation,
        lambda: gone.alive,
        lambda: gone.sources,
        lambda: gone.targets,
        lambda: gone.value,
        lambda: setattr(gone, "value", 1),
        lambda: str(gone),
        lambda: setattr(gone, "weights", [1, 2]),
        lambda: -gone,
        lambda: abs(gone),
        lambda: gone + x[0],
        lambda: 2 * gone,
        gone.prune,
        lambda: g.add_edge(x[0], gone),
        lambda: g.add_neuron([gone]),
        lambda: mlgraph.exp(gone),
        lambda: g.compile(gone),
        lambda: mlgraph.Model(g, [gone]),
        lambda: model.ablate(gone, [[1, 2]], [[3]]),
    )
    for others in range(2):  # then its number is another's
        before = len(g), g.edits
        for use in uses:
            with pytest.raises(ValueError, match="node n3 was removed"):
                use()
        assert (len(g), g.edits) == before
        assert repr(gone) == "<undone node n3>"
        if not others:
            other = g.parameter(7.0, "seven")
            assert other.id == gone.id and other != gone and len({other, gone}) == 2
    assert g[3] == other and g[3].name == "seven" and gone.name == "n3"


def test_gradients_and_traces_do_not_apply_to_a_reused_id():
    g = mlgraph.Graph()
    x = g.inputs(2)
    model = mlgraph.Model(g, [x[0] * 2])
    old = g.add_neuron(x, weights=[1, 2])
    f = g.compile(old)
    gradients, trace = f.vjp([[3, 4]]), model.trace([[3, 4]], nodes=[x[1], old])
    assert gradients.of(old).tolist() == [3, 4] and gradients.of_bias(old) == 1
    assert trace[old].tolist() == trace[old.id].tolist() == [11]
    part = trace.of([old])
    g.undo()
    new = g.add_neuron(x, weights=[5, 6])
    assert new.id == old.id
    uses = gradients.of, gradients.of_bias, trace.__getitem__, part.__getitem__, lambda node: trace.of([node])
    for use in uses:
        with pytest.raises(ValueError, match=r"was added after these gradients|the trace does not have"):
            use(new)
    with pytest.raises(ValueError, match="outputs: node n4 was removed"):
        f([[3, 4]])
    assert g.compile(new)([[3, 4]]).tolist() == [[39]] and trace[x[1]].tolist() == [4]


def test_edge_view_reads_only_its_own_list():
    """The list has become shorter, and the next list in memory begins with the same source."""
    g = mlgraph.Graph()
    x = g.inputs(4)
    a, b = g.add_neuron(x[:3], weights=[1, 2, 3]), g.add_neuron(x[2:], weights=[4, 5])
    edge = a.edges[2]
    g.prune([(x[1], a)])
    g.prune([(x[3], b)])
    assert edge.weight == 3


def test_ends_of_an_edge_are_read_only():
    g = mlgraph.Graph()
    x, other = g.inputs(2)
    neuron = g.add_neuron([x])
    for end in ("source", "target"):
        with pytest.raises(AttributeError):
            setattr(neuron.edges[0], end, other)


def test_out_edges_lead_to_neurons():
    g = mlgraph.Graph()
    x = g.input()
    first, second = g.add_neuron([x], weights=[2]), g.add_neuron([x], weights=[3])
    square = x * x
    assert x.targets == [first, second, square] and [tuple(e) for e in x.out_edges] == [(x, first, 2), (x, second, 3)]


def test_default_names_find_nodes():
    g = mlgraph.Graph()
    x, y, z = g.inputs(3)
    y.name, z.name = "n0", "n7"
    assert g["n7"] == z
    with pytest.raises(ValueError, match="node: 2 nodes have the name 'n0'"):
        g[x.name]
    x.name = "x"
    assert g["n0"] == y
    x.name = y.name = None
    assert g["n0"] == x and g["n1"] == y
    for name in ("n2", "n3", "n01", "n-1", "n", "n99999999999", "y"):
        with pytest.raises(ValueError, match=f"node: no nodes have the name '{name}'"):
            g[name]


def test_node_is_not_an_id():
    g = mlgraph.Graph()
    with pytest.raises(TypeError, match="node: expected the id of a node, got Node"):
        g[g.input()]


def test_alive_is_read_only():
    g = mlgraph.Graph()
    g.input()
    with pytest.raises(ValueError, match="read-only"):
        g.alive()[0] = False


def test_pair_of_neurons_is_ambiguous():
    g = mlgraph.Graph()
    a = g.add_neuron(g.inputs(1))
    b = g.add_neuron([a])
    with pytest.raises(TypeError, match="prune: a pair is ambiguous"):
        g.prune((a, b))
    assert g.n_edges == 2


def test_error_names_the_unknown_id():
    net = network()
    for source, worst in (([0, -1], -1), ([0, 99], 99)):
        with pytest.raises(ValueError, match=f"prune: expected edges between nodes from 0 to 50, got node {worst}$"):
            net.graph.prune(mlgraph.Edges(np.array(source), np.array([12, 12]), np.zeros(2)))


def test_views_by_id_check_the_kind(tmp_path):
    """In a graph that was built, loaded or copied. A bool is not an id."""
    net = network()
    net.save(tmp_path / "net.npz")
    for model in (net, mlgraph.load(tmp_path / "net.npz"), net.compact()):
        with pytest.raises(ValueError, match=r"^id: expected the id of a neuron, got that of <input n0>$"):
            mlgraph.Neuron(model.graph, 0)
        assert mlgraph.Neuron(model.graph, 12).activation == "leaky_relu"
        for call in (model.graph.sources_of, model.graph.targets_of, lambda node, g=model.graph: g.edge(node, 12)):
            with pytest.raises(TypeError, match=r"expected a node or its id, got bool$"):
                call(True)
