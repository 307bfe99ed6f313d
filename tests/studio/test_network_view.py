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


@pytest.fixture
def dag():
    """A graph without layers, and its neurons by name: h at level 1, m at 2, d at 3, an output at 4."""
    graph = mlgraph.Graph(seed=0)
    a, b = graph.add_inputs(2)
    h = [graph.add_neuron([a, b], "tanh") for _ in range(3)]
    m = [graph.add_neuron(h, "tanh"), graph.add_neuron([h[2], a], "tanh")]
    d = graph.add_neuron([m[0], h[0]], "tanh")
    out = graph.add_neuron([d, m[1], h[1]])
    points = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    session = Session(mlgraph.Model(graph, out), data.arrays(points, points[:, :1]))
    names = {"h0": h[0], "h1": h[1], "h2": h[2], "m0": m[0], "m1": m[1], "d": d, "out": out}
    yield session, {name: node.id for name, node in names.items()}
    session.close()


@pytest.mark.parametrize("cut", [["m1"], ["h1"], ["h2", "m1"], ["d"], ["d", "h1"]], ids=str)
def test_cut_neurons_of_a_graph_without_layers_stay_where_they_were(dag, cut):
    session, ids = dag
    before = views.network(session)
    assert [len(column) for column in before["columns"]] == [3, 2, 1, 1]
    for name in cut:
        edit(session, {"edit": "cut-neuron", "node": ids[name]})
    after = views.network(session)
    assert after["columns"] == before["columns"]
    shown = {name for name in ids if after["neurons"][ids[name]]["status"] == "cut"}
    assert shown == {name for name in ids if not session.model.graph[ids[name]].alive} >= set(cut)
    assert not shown & {name for name in ids if {ids[name]} & {i for edge in listed(after) for i in edge}}
    assert views.neuron(session, ids[cut[0]])["alive"] is False
    for _ in cut:
        edit(session, {"edit": "undo"})
    again = views.network(session)
    assert (again["columns"], again["edges"]) == (before["columns"], before["edges"])


def test_neurons_that_were_cut_before_or_added_since_come_after_their_sources(dag):
    session, ids = dag
    graph = session.model.graph
    unread = graph.add_neuron([graph[ids["h0"]]], "tanh").id
    graph[ids["m0"]].prune()
    session = Session(session.model, session.data)
    new = [graph.add_neuron([graph[source]], "tanh").id for source in (0, ids["m1"])]
    columns = views.network(session)["columns"]
    assert sorted(i for column in columns for i in column) == sorted([*ids.values(), *new])  # without `unread`
    assert not graph[unread].alive
    assert {ids["m0"], new[0]} < set(columns[0]) and new[1] in columns[2] and columns[-1] == [ids["out"]]
    session.close()


def test_neurons_of_another_model_are_not_shown(dag):
    session, ids = dag
    graph = session.model.graph
    other = graph.add_neuron([graph[ids["h0"]]], "tanh")
    model = mlgraph.Model(graph, other)
    shown = [i for column in views.network(session)["columns"] for i in column]
    assert sorted(shown) == sorted(ids.values()) and model.outputs
