"""Views refer to one node or edge, not to a later node with the same id."""

import pytest

import mlgraph


def test_view_of_a_removed_neuron_raises():
    """Also after a new node has got its id."""
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(2)
    model = mlgraph.Model(g, g.add_neuron(x, weights=[1, 2]))
    gone = g.add_neuron(x)
    g.undo()
    uses = (
        lambda: gone.weights,
        lambda: gone.bias,
        lambda: gone.activation,
        lambda: gone.alive,
        lambda: gone.sources,
        lambda: gone.targets,
        lambda: gone.value,
        lambda: str(gone),
        lambda: setattr(gone, "name", "x"),
        lambda: setattr(gone, "bias", 1),
        lambda: setattr(gone, "value", 1),
        lambda: setattr(gone, "weights", [1, 2]),
        lambda: -gone,
        lambda: 2 * gone,
        lambda: gone + x[0],
        lambda: mlgraph.exp(gone),
        gone.prune,
        lambda: g.add_edge(x[0], gone),
        lambda: g.add_neuron([gone]),
        lambda: g.compile(gone),
        lambda: model.ablate(gone, [[1, 2]], [[3]]),
    )
    for others in range(2):
        before = len(g), g.edits
        for use in uses:
            with pytest.raises(ValueError, match="node n3 was removed"):
                use()
        assert (len(g), g.edits) == before
        assert repr(gone) == "<undone node n3>" and gone.name == "n3" and gone not in g
        if not others:
            other = g.add_parameter(7.0, "seven")
            assert other.id == gone.id and other != gone and len({other, gone}) == 2
    assert g[3] == other and g[3].name == "seven"


def test_results_of_a_removed_neuron_do_not_apply_to_a_reused_id():
    g = mlgraph.Graph()
    x = g.add_inputs(2)
    old = g.add_neuron(x, weights=[1, 2])
    f = g.compile(old)
    gradients = f.vjp([[3, 4]])
    g.undo()
    new = g.add_neuron(x, weights=[5, 6])
    assert new.id == old.id and g.compile(new)([[3, 4]]) == 39
    for use in (gradients.of, gradients.of_bias):
        with pytest.raises(ValueError, match="was added after these gradients"):
            use(new)
    with pytest.raises(ValueError, match="outputs: node n2 was removed"):
        f([[3, 4]])


def test_edge_view_reads_only_its_own_list():
    """The list has become shorter, and the next list in memory begins with the same source."""
    g = mlgraph.Graph()
    x = g.add_inputs(4)
    a, b = g.add_neuron(x[:3], weights=[1, 2, 3]), g.add_neuron(x[2:], weights=[4, 5])
    edge = a.in_edges[2]
    g.prune([(x[1], a)])
    g.prune([(x[3], b)])
    assert edge.weight == 3


def test_ends_of_an_edge_and_alive_are_read_only():
    g = mlgraph.Graph(seed=0)
    x, other = g.add_inputs(2)
    edge = g.add_neuron([x]).in_edges[0]
    for end in ("source", "target"):
        with pytest.raises(AttributeError):
            setattr(edge, end, other)
    with pytest.raises(ValueError, match="read-only"):
        g.alive()[0] = False


def test_names_find_nodes():
    """A node without a name is called "n" and its id."""
    g = mlgraph.Graph()
    x, y, z = g.add_inputs(3)
    y.name, z.name = "n0", "n7"
    assert g["n7"] == z
    with pytest.raises(ValueError, match="node: 2 nodes have the name 'n0'"):
        g[x.name]
    assert "n0" not in g
    x.name = "x"
    assert g["n0"] == y and g["x"] == x
    x.name = y.name = None
    assert g["n0"] == x and g["n1"] == y
    for name in ("n2", "n3", "n01", "n-1", "n", "n99999999999", "y", ""):
        with pytest.raises(ValueError, match=f"node: no nodes have the name '{name}'"):
            g[name]
    assert "n7" in g and z in g and 2 in g
    assert not any(node in g for node in (3, -1, mlgraph.Node(g, 3), mlgraph.Graph().add_input(), None, 1.0, [x]))


def test_a_neuron_of_a_layer_has_one_name():
    net = mlgraph.Network(2, seed=0)
    hidden, out = net.add_layer(3, "tanh"), net.add_layer(2, "softmax")
    alone, named = net.graph.add_neuron([net.graph[0]]), hidden[2]
    named.name = "odd"
    assert [repr(n) for n in (hidden[1], out[0], named, alone)] == [
        "<layer 0 neuron 1>",
        "<layer 1 neuron 0>",
        "<neuron odd>",
        f"<neuron n{alone.id}>",
    ]
    assert repr(hidden[1].out_edges[0]) == "<edge layer 0 neuron 1 to layer 1 neuron 0>"
    assert '"0.1 tanh' in net.draw().to_dot()
    function = net.graph.compile([hidden[1], named, alone])
    assert repr(function) == f"<Function of 2 inputs: layer 0 neuron 1, odd, n{alone.id}>"
    with pytest.raises(mlgraph.CycleError, match=r"2 nodes: layer 1 neuron 0 -> layer 0 neuron 1$"):
        net.graph.add_edge(out[0], hidden[1])
    with pytest.raises(ValueError, match="prune: layer 1 neuron 0 is an output"):
        out[0].prune()
    with pytest.raises(ValueError, match="edge from n0 to layer 0 neuron 1 already exists"):
        net.graph.add_edge(net.graph[0], hidden[1])
