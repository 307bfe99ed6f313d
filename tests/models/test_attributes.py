"""An attribute that an object does not have is refused, so a misspelled or misplaced option is never silent."""

import pytest

import mlgraph


def objects():
    net = mlgraph.Network(2, seed=0)
    layer = net.add_layer(3, "tanh")
    net.add_layer(1)
    node, neuron = net.graph[0], layer[0]
    model = mlgraph.Model(net.graph, [neuron])
    return [net, net.graph, model, layer, neuron, node, neuron.in_edges[0], net.history]


@pytest.mark.parametrize("at", range(8))
def test_unknown_attributes_are_refused(at):
    thing = objects()[at]
    for name in ("learning_rates", "of", "_private"):
        with pytest.raises(AttributeError, match=name):
            setattr(thing, name, 0.5)
        assert not hasattr(thing, name)


@pytest.mark.parametrize(
    ("at", "name", "hint"), [(0, "dropout", "layer.dropout"), (0, "histroy", "history"), (7, "epoch_los", "epoch_loss")]
)
def test_an_error_names_what_exists(at, name, hint):
    with pytest.raises(AttributeError, match=f"(here it is|did you mean) {hint}"):
        setattr(objects()[at], name, 0.5)


@pytest.mark.parametrize("base", [mlgraph.Network, mlgraph.Graph, mlgraph.History])
def test_classes_of_users_may_have_attributes(base):
    class Own(base):
        pass

    own = Own(2) if base is mlgraph.Network else Own()
    own.note = "mine"
    assert own.note == "mine"
