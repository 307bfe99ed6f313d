"""The slider of sparsity: it goes both ways, and one undo takes it back; and the size of the file beside it."""

import pytest
from studios import client_of, contents, image_session

pytest.importorskip("starlette")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of prune


@pytest.fixture
def client():
    with client_of(image_session()) as client:
        yield client


def edges_of(client):
    sources, targets, weights = client.session.model.graph.edges()
    return set(zip(sources.tolist(), targets.tolist(), weights.tolist(), strict=True))


@pytest.mark.parametrize("by", ["path", "magnitude", "saliency"])
def test_only_the_place_of_the_slider_counts_and_one_undo_takes_it_back(client, by):
    model = client.session.model
    before = contents(model)
    client.edit("prune", sparsity=0.6, by=by)
    direct = contents(model)
    client.edit("undo")
    assert contents(model) == before
    for sparsity in (0.2, 0.9, 0.3, 0.93, 0.6):
        state = client.edit("prune", sparsity=sparsity, by=by)
    assert contents(model) == direct and state["undo"] == "sparsity 60 %"
    assert state["last_edit"]["before"]["n_edges"] > state["last_edit"]["after"]["n_edges"] == state["n_edges"]
    state = client.edit("undo")
    assert contents(model) == before and state["undo"] is None
    client.edit("prune", sparsity=0.6, by=by)
    assert client.edit("prune", sparsity=0, by=by)["undo"] is None and contents(model) == before


def test_a_cut_after_steps_is_another_and_keeps_what_was_trained(client):
    whole = client.json("state")["n_edges"]
    first = client.edit("prune", sparsity=0.5)
    client.post("run", do="step")
    assert client.session.run.wait_until_paused()
    kept = edges_of(client)
    second = client.edit("prune", sparsity=0.8)
    assert edges_of(client) < kept
    assert second["last_edit"]["before"]["n_edges"] == first["n_edges"]
    assert client.edit("undo")["n_edges"] == first["n_edges"]
    assert client.edit("undo")["n_edges"] == whole


def test_other_edits_are_never_taken_back_by_the_slider(client):
    client.edit("prune", sparsity=0.5)
    cut = client.edit("cut-neuron", layer=0, neuron=1)["n_edges"]
    client.edit("prune", sparsity=0.9)
    assert client.edit("prune", sparsity=0)["n_edges"] == cut


def test_a_refused_cut_leaves_the_slider_where_it_was(client):
    state = client.edit("prune", sparsity=0.5)
    before = contents(client.session.model)
    client.refused("edit", edit="prune", sparsity=0.7, by="nothing")
    now = client.json("state")
    assert contents(client.session.model) == before and now["undo"] == state["undo"]
    assert now["last_edit"] == state["last_edit"]


def test_the_size_is_that_of_the_file(client):
    for sparsity in (0, 0.5, 0.9):
        state = client.edit("prune", sparsity=sparsity)
        assert state["file_bytes"] == pytest.approx(len(client.get("file/model.npz").content), rel=0.01)
