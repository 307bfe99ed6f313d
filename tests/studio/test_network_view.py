"""What the page is told to draw: every edge once, whether its layer's weights have it or not."""

import numpy as np
import pytest

pytest.importorskip("starlette")

import mlgraph
from mlgraph.studio import build, data, views
from mlgraph.studio.edits import edit
from mlgraph.studio.session import Session


@pytest.fixture
def session():
    toy = data.toy("circle")
    return Session(build.network(toy, [4, 3], "tanh"), toy)


def listed(found):
    edges = found["edges"]
    return set(zip(edges["source"], edges["target"], strict=True))


def test_layers_hold_their_own_edges(session):
    found = views.network(session)
    assert listed(found) == set()
    assert [len(column) for column in found["columns"]] == [4, 3, 2]


def test_an_edge_that_jumps_is_listed(session):
    source, target = views.network(session)["inputs"][0], views.network(session)["columns"][1][0]
    edit(session, {"edit": "add-edge", "source": source, "target": target, "weight": 0.5})
    assert listed(views.network(session)) == {(source, target)}
    edit(session, {"edit": "undo"})
    assert listed(views.network(session)) == set()


def test_a_neuron_of_no_layer_joins_a_column(session):
    before = views.network(session)
    source, target = before["columns"][0][0], before["columns"][2][1]
    edit(session, {"edit": "add-neuron", "sources": [source], "targets": [target]})
    after = views.network(session)
    (new,) = set(after["columns"][1]) - set(before["columns"][1])
    assert after["columns"][1][-1] == new
    assert listed(after) == {(source, new), (new, target)}
    assert after["neurons"][new]["activation"] == "tanh"


def test_activations_and_biases_are_told():
    graph = mlgraph.Graph(seed=0)
    a, b = graph.add_inputs(2)
    out = graph.add_neuron([a, graph.add_neuron([a, b], "tanh", bias=0.5) ** 3])
    points = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    found = views.network(Session(mlgraph.Model(graph, out), data.arrays(points, points[:, :1])))
    told = {(neuron["activation"], neuron["bias"]) for neuron in found["neurons"].values()}
    assert {("tanh", 0.5), ("pow", None), ("identity", 0.0)} <= told
