"""The session of a studio: edits, also while it runs, undo, and many threads at once."""

import random
import threading
import time

import numpy as np
import pytest
from studios import (
    SESSIONS,
    Client,
    client_of,
    contents,
    dag_session,
    image_session,
    neurons_of,
    plane_session,
    strict,
    studio_threads,
    wait_for,
)

from mlgraph.models.model import Model
from mlgraph.sparsity.gradual_pruning import GradualPruning
from mlgraph.studio import take_away
from mlgraph.studio.session import Session

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of prune, and of runs that diverge


@pytest.fixture
def client():
    with client_of(image_session()) as client:
        yield client


# --- edits ----------------------------------------------------------------------------------------

EDITS = {
    "cut-neuron": {"layer": 0, "neuron": 2},
    "cut-edge": {"source": {"input": 3}, "target": {"layer": 0, "neuron": 1}},
    "add-edge": {"source": {"input": 5}, "target": {"layer": 1, "neuron": 0}, "weight": 0.5},
    "add-neuron": {"sources": [{"input": 1}, {"input": 2}], "targets": [{"layer": 2, "neuron": 0}]},
    "set-weight": {"source": {"layer": 0, "neuron": 1}, "target": {"layer": 1, "neuron": 1}, "value": 1.25},
    "set-bias": {"layer": 0, "neuron": 0, "value": -0.75},
    "set-activation": {"layer": 1, "neuron": 0, "value": "tanh"},
    "set-dropout": {"layer": 0, "value": 0.25},
    "freeze": {"layer": 0, "value": True},
    "widen": {"layer": 0, "n": 3},
    "prune": {"sparsity": 0.5},
}


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("name", EDITS)
def test_every_edit_is_undone_and_redone(client, name, running):
    model = client.session.model
    client.run("step", steps=3)
    if running:
        client.run("play")
    else:
        before = contents(model)
    state = client.json("state")
    after = client.edit(name, **EDITS[name])
    assert after["version"] > state["version"] and after["undo"] == after["last_edit"]["what"] and after["redo"] is None
    assert after["last_edit"]["after"]["n_edges"] == after["n_edges"] == model.n_edges
    made = contents(model)
    undone = client.edit("undo")
    assert undone["undo"] is None and undone["redo"] == after["undo"] and undone["n_edges"] == state["n_edges"]
    if not running:
        assert contents(model) == before != made
    redone = client.edit("redo")
    assert redone["n_edges"] == after["n_edges"] and redone["layers"] == after["layers"]
    if not running:
        assert contents(model) == made
        assert "nothing to redo" in client.refused("edit", edit="redo")
        assert contents(model) == made


def test_bias_can_be_taken_and_given(client):
    neuron = client.session.model.layers[0][0]
    client.edit("set-bias", layer=0, neuron=0, value=None)
    assert neuron.bias is None
    client.edit("set-bias", layer=0, neuron=0, value=0.5)
    client.edit("undo")
    assert neuron.bias is None
    client.edit("undo")
    assert neuron.bias == 0
    client.edit("redo")
    client.edit("redo")
    assert neuron.bias == 0.5


def test_freezing_a_layer_undone_leaves_the_neurons_that_were_frozen(client):
    layer = client.session.model.layers[0]
    client.edit("freeze", node={"layer": 0, "neuron": 3}, value=True)
    client.edit("freeze", layer=0, value=True)
    assert layer.frozen
    client.edit("undo")
    assert [neuron.frozen for neuron in layer] == [i == 3 for i in range(layer.size)]


def test_mixed_edits_are_undone_in_their_order(client):
    """Of those of the graph and those of attributes, with cuts from Python between them, any number."""
    model, rng = client.session.model, random.Random(0)
    client.run("step", steps=3)
    seen = [contents(model)]
    for name in [*EDITS, "set-weight", "set-bias", "freeze"]:
        fields = dict(EDITS[name])
        if name == "prune":
            fields["sparsity"] = 0.6
        if name in ("set-weight", "set-bias"):
            fields["value"] = rng.random()
        if name == "freeze":
            fields["value"] = len(seen) < 12
        state = client.json("state")
        client.edit(name, **fields)
        if client.json("state")["undo"] != state["undo"] or contents(model) != seen[-1]:
            seen.append(contents(model))
        if len(seen) % 3 == 0:
            alive = [n for n in neurons_of(model) if n.alive and len(n.in_edges) > 3]
            rng.choice(alive).in_edges[0].prune()
            seen.append(contents(model))
    for _ in range(3):
        for expected in reversed(seen[:-1]):
            client.edit("undo")
            assert contents(model) == expected
        assert client.json("state")["undo"] is None and "nothing to undo" in client.refused("edit", edit="undo")
        for expected in seen[1:]:
            client.edit("redo")
            assert contents(model) == expected


def test_cuts_of_a_schedule_are_undone_between_edits(client):
    model = client.session.model
    client.edit("set-weight", **EDITS["set-weight"])
    client.edit("cut-neuron", **EDITS["cut-neuron"])
    edges = model.n_edges
    client.session.run.play(fit={"epochs": 3, "sparsify": GradualPruning(0.7)})
    wait_for(lambda: not client.session.run.is_alive)
    pruned = model.n_edges
    state = client.edit("set-bias", **EDITS["set-bias"])
    for undo, n in (("edits by the run", pruned), ("cut", edges), ("weight of", None), (None, None)):
        state = client.edit("undo")
        assert n is None or state["n_edges"] == n
        assert state["undo"] is None if undo is None else state["undo"].startswith(undo)
    for _ in range(4):
        state = client.edit("redo")
    assert state["n_edges"] == pruned and model.layers[0][0].bias == pytest.approx(-0.75)


def test_an_edit_by_the_run_ends_what_can_be_redone(client):
    client.edit("cut-neuron", **EDITS["cut-neuron"])
    client.edit("undo")
    client.session.model.layers[0][1].in_edges[0].prune()
    assert client.json("state")["redo"] is None and "nothing to redo" in client.refused("edit", edit="redo")
    assert client.edit("undo")["undo"] is None


def test_an_undo_after_steps_says_that_they_stay(client):
    client.edit("cut-neuron", layer=0, neuron=0)
    assert "since" not in client.edit("undo")["last_edit"]["what"]
    client.edit("cut-neuron", layer=0, neuron=0)
    client.run("step", steps=2)
    client.session.run.wait_until_paused()
    assert client.edit("undo")["last_edit"]["what"].endswith("(what was learnt since stays)")


def test_an_undo_from_python_forgets_what_the_page_could_undo(client):
    client.edit("set-bias", **EDITS["set-bias"])
    client.edit("cut-neuron", **EDITS["cut-neuron"])
    client.session.model.undo()
    assert client.json("state")["undo"] is None and "nothing to undo" in client.refused("edit", edit="undo")


def test_new_nodes_end_what_can_be_undone(client):
    """The graph undoes no edit before them, so the page offers none."""
    client.edit("cut-neuron", **EDITS["cut-neuron"])
    client.session.model.graph.add_constant(1.0)
    client.session.model.layers[0][1].in_edges[0].prune()
    state = client.json("state")
    assert state["undo"].startswith("edits by") and client.edit("undo")["undo"] is None


def test_the_slider_goes_both_ways_and_a_refusal_gives_back(client):
    model = client.session.model
    whole = model.n_edges
    edges = {s: client.edit("prune", sparsity=s)["n_edges"] for s in (0.3, 0.6, 0.9)}
    assert edges[0.3] > edges[0.6] > edges[0.9]
    for s in (0.6, 0.3):
        state = client.edit("prune", sparsity=s)
        assert state["n_edges"] == pytest.approx(edges[s], abs=2)
        assert state["last_edit"]["before"]["n_edges"] == whole  # before the slider was first moved
    before = contents(model)
    for by in ("nothing", 3, None):
        client.refused("edit", edit="prune", sparsity=0.1, by=by)
        assert contents(model) == before
    assert client.edit("prune", sparsity=0)["n_edges"] == whole


def test_what_is_refused_says_why_and_changes_nothing(client):
    before = contents(client.session.model)
    node = client.session.model.layers[2][0].id
    for given in (
        {"edit": "cut-neuron", "node": node},  # an output
        {"edit": "cut-neuron", "node": 0},  # an input
        {"edit": "cut-neuron", "layer": 0, "neuron": 99},
        {"edit": "cut-neuron", "layer": True, "neuron": 0},
        {"edit": "cut-edge", "source": {"layer": 0, "neuron": 0}, "target": {"layer": 0, "neuron": 1}},
        {"edit": "add-edge", "source": node, "target": {"layer": 0, "neuron": 0}},  # a cycle
        {"edit": "prune", "sparsity": 0.9999},
        {"edit": "prune", "sparsity": 1},
        {"edit": "widen", "layer": 2},
        {"edit": "widen", "layer": 0, "n": 10**9},
        {"edit": "set-activation", "layer": 0, "neuron": 0, "value": "softmax"},
        {"edit": "set-weight", "source": 0, "target": 70, "value": 1e39},
        {"edit": "freeze", "value": True},
        {"edit": "nothing"},
        {},
    ):
        assert client.refused("edit", **given)
        assert contents(client.session.model) == before and client.json("state")["undo"] is None


def test_accuracy_before_and_after_an_edit_during_training(client):
    client.run("play")
    wait_for(lambda: client.json("state")["test_accuracy"] == 1)
    state = client.edit("cut-neuron", layer=0, neuron=0)
    last = state["last_edit"]
    assert last["before"]["accuracy"] > 0.9 and 0 <= last["after"]["accuracy"] <= 1
    assert last["before"]["n_edges"] > last["after"]["n_edges"] and last["step"] <= state["step"]
    assert client.edit("undo")["n_edges"] == last["before"]["n_edges"]


def test_two_windows_agree(client):
    other = Client(client.session)
    mine = client.edit("cut-neuron", layer=0, neuron=0)
    theirs = other.json("state")
    assert mine == theirs
    assert other.edit("undo")["version"] > mine["version"]
    assert client.json("state")["undo"] is None
    client.post("options", learning_rate=0.5)
    assert other.json("state")["options"]["learning_rate"] == 0.5
    assert [client.json("network"), client.json("curve")] == [other.json("network"), other.json("curve")]


def test_data_that_do_not_fit_the_model_are_refused_at_once():
    image, plane = image_session(), plane_session()
    with pytest.raises(ValueError, match="expected"):
        image.replace(plane.model, image.data)
    assert image.model.graph.n_inputs == 64


# --- many threads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image", "dag"])
def test_many_threads_at_once_end(kind):
    """Six threads do all that a page can, in no order, for three seconds; none waits for another for ever."""
    session = SESSIONS[kind]()
    unexpected, counts, end = [], [0] * 6, time.monotonic() + 3

    def work(number):
        rng, client = random.Random(number), Client(session)
        while time.monotonic() < end:
            counts[number] += 1
            try:
                layers = len(session.model.layers)
                place = (
                    {"layer": rng.randrange(3), "neuron": rng.randrange(4)} if layers else {"node": rng.randrange(9)}
                )
                do = rng.randrange(12)
                if do < 3:
                    client.json("state")
                elif do < 5:
                    fields = {"edit": "cut-neuron", **place}
                    if layers and rng.random() < 0.5:
                        name = rng.choice(list(EDITS))
                        fields = {"edit": name, **EDITS[name]}
                    client.request("POST", "/api/edit", json=fields)
                elif do < 7:
                    client.request("POST", "/api/edit", json={"edit": rng.choice(["undo", "redo"])})
                elif do < 8:
                    client.request("GET", f"/api/{rng.choice(['network', 'curve', 'examples', 'file/model.npz'])}")
                elif do < 9:
                    client.request("POST", "/api/example", json={"index": 0, "patch": {"70": 1.0}})
                elif do < 10:
                    client.request("POST", "/api/options", json={"batch_size": rng.choice([8, 64])})
                else:
                    commands = ["play", "pause", "step", "epoch", "reset", "play"]
                    body = {"do": rng.choice(commands)}
                    if body["do"] == "play" and rng.random() < 0.3:
                        body |= {"sparsify": {"method": "gradual", "sparsity": 0.5}, "epochs": 2}
                    if rng.random() < 0.1:
                        client.request("POST", "/api/new", json={"data": rng.choice(["xor", "circle"])})
                    else:
                        client.request("POST", "/api/run", json=body)
            except BaseException as error:  # also an answer of 500
                unexpected.append(error)
                return

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not unexpected and min(counts) > 2
    closing = threading.Thread(target=session.close, daemon=True)
    closing.start()
    closing.join(20)
    assert not closing.is_alive() and not studio_threads()


REQUESTS = {
    "view": (Model, "inspect", "GET", "network"),
    "edit": (Session, "node", "POST", "edit"),
    "file": (take_away, "deepcopy", "GET", "file/model.c"),
}
"""Requests, each with a function that it calls in the midst of its work."""
REPLACE = {
    "new": {"path": "new", "data": "xor"},
    "back": {"path": "run", "do": "back"},
    "reset": {"path": "run", "do": "reset"},
}


class Pause:
    """Stops a function when it has done its work, until `goes_on` is set."""

    def __init__(self, monkeypatch, owner, name):
        usual, self.within, self.goes_on = getattr(owner, name), threading.Event(), threading.Event()

        def slow(*args, **options):
            result = usual(*args, **options)
            self.within.set()
            assert self.goes_on.wait(20)
            return result

        monkeypatch.setattr(owner, name, slow)


class Asked(threading.Thread):
    """A request in a thread of its own, and its answer."""

    answer = None

    def __init__(self, client, method, path, **body):
        super().__init__(daemon=True)
        self._request = client, method, f"/api/{path}", body
        self.start()

    def run(self):
        client, method, path, body = self._request
        self.answer = client.request(method, path, json=body)


@pytest.mark.parametrize("command", REPLACE)
@pytest.mark.parametrize("name", REQUESTS)
def test_a_network_stays_while_a_request_uses_it(monkeypatch, name, command):
    """The one that replaces it comes after the request, which neither mixes the two nor waits for the other's lock."""
    session = dag_session()
    owner, function, method, path = REQUESTS[name]
    with client_of(session) as client:
        if command == "back":
            client.post("new", data="xor")
        model, run, n_edges = session.model, session.run, session.model.n_edges
        output = model.output_ids[0]
        node = next(n.id for n in neurons_of(model) if n.alive and n.id not in model.output_ids)
        pause = Pause(monkeypatch, owner, function)
        first = Asked(client, method, path, **({"edit": "cut-neuron", "node": node} if name == "edit" else {}))
        assert pause.within.wait(20)
        second = Asked(client, "POST", **REPLACE[command])
        second.join(0.3)
        assert session.run is run and session.model is model
        pause.goes_on.set()
        first.join(20)
        second.join(20)
        assert first.answer.status_code == second.answer.status_code == 200 and session.run is not run
        content = first.answer.content
        if name == "view":
            assert str(node) in strict(content)["neurons"] and output in strict(content)["outputs"]
        elif name == "file":
            assert (b"the largest is the answer" in content) == (command == "back")
        elif command != "reset":
            assert model.n_edges < n_edges


@pytest.mark.parametrize("command", REPLACE)
def test_nobody_looks_at_a_network_that_is_half_replaced(monkeypatch, command):
    with client_of(dag_session()) as client:
        if command == "back":
            client.post("new", data="xor")
        pause = Pause(monkeypatch, Session, "_become" if command == "reset" else "_begin")
        first = Asked(client, "POST", **REPLACE[command])
        assert pause.within.wait(20)
        second = Asked(client, "GET", "network")
        second.join(0.3)
        assert second.answer is None
        pause.goes_on.set()
        first.join(20)
        second.join(20)
        version = client.json("state")["version"]
        assert first.answer.status_code == 200 and strict(second.answer.content)["version"] == version


def test_who_waited_for_a_network_that_was_replaced_looks_at_the_next():
    session, found = dag_session(), []
    with client_of(session):

        def look():
            with session.looking():
                found.append((session.model, session.model.graph.is_locked_here))

        thread = threading.Thread(target=look, daemon=True)
        with session.model.graph.lock:
            thread.start()
            thread.join(0.2)
            assert not found
            new = plane_session()
            session.replace(new.model, new.data)
        thread.join(20)
        assert found == [(new.model, True)]


def test_a_page_waits_for_few_kernel_calls(client):
    """A request gets the graph after the call in progress, although the run asks for it again at once."""
    client.session.replace(*(lambda s: (s.model, s.data))(image_session((300, 300))))
    client.run("play")
    wait_for(lambda: client.session.run.steps > 20)
    waits = []
    for _ in range(10):
        begin = time.monotonic()
        client.json("examples")
        waits.append(time.monotonic() - begin)
    assert np.median(waits) < 0.6


def test_a_graph_without_layers_is_edited_by_ids():
    with client_of(dag_session()) as client:
        neurons = [n for n in neurons_of(client.session.model) if n.alive]
        before = contents(client.session.model)
        client.edit("set-weight", source=neurons[0].sources[0].id, target=neurons[0].id, value=2)
        client.edit("cut-neuron", node=neurons[0].id)
        client.edit("undo")
        client.edit("undo")
        assert contents(client.session.model) == before
        assert "no layers" in client.refused("edit", edit="widen", layer=0)
