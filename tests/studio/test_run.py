"""The run of a studio: its commands, its schedules, and where it ends."""

import time

import numpy as np
import pytest
from studios import Client, client_of, contents, image_session, overflowing_session, studio_threads, wait_for

from mlgraph.studio import run as runs

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of prune, and of runs that diverge


@pytest.fixture
def client():
    with client_of(image_session()) as client:
        yield client


def test_play_pause_and_go_on(client):
    run = client.session.run
    assert client.json("state")["status"] == "idle"
    assert client.run("play")["status"] == "running"
    wait_for(lambda: run.epochs > 3)
    state = client.run("pause")
    time.sleep(0.05)
    assert state["status"] == "paused" and run.steps == state["step"] > 0
    assert len(studio_threads()) == 1
    client.run("play")
    wait_for(lambda: run.steps > state["step"])


@pytest.mark.parametrize("before", ["idle", "paused", "running"])
@pytest.mark.parametrize("n", [1, 7])
def test_step_takes_exactly_so_many_steps(client, before, n):
    run, model = client.session.run, client.session.model
    if before != "idle":
        client.run("play")
        wait_for(lambda: run.steps > 20)
    if before == "paused":
        begin = client.run("pause")["step"]
        assert client.run("step", steps=n)["step"] == begin + n
    else:
        begin = run.steps
        state = client.run("step", steps=n)
        assert state["status"] == "paused" and state["step"] >= begin + n
    state = client.json("state")
    for i in range(1, 4):
        assert client.run("step", steps=n)["step"] == state["step"] + i * n
    assert len(model.history.batch_loss) == run.steps == run.curve.steps
    assert run.examples == model.history.batch_size.sum()


def test_epoch_pauses_at_the_end_of_the_epoch(client):
    n = -(-len(client.session.data.x) // 64)
    client.run("step", steps=2)
    for epochs in (1, 2):
        client.run("epoch")
        wait_for(lambda: client.json("state")["status"] == "paused")
        state = client.json("state")
        assert (state["epoch"], state["step"]) == (epochs, epochs * n)
    tests = client.json("curve")["tests"]
    assert [t["step"] for t in tests] == [n, 2 * n] and state["test_accuracy"] == tests[-1]["accuracy"]


def test_pace_is_kept_and_can_be_lifted(client):
    run = client.session.run
    assert client.run("pace", steps_per_second=50)["pace"] == 50
    client.run("play")
    begin, steps = time.monotonic(), run.steps
    time.sleep(0.6)
    # A pause of the machine is caught up with, for at most half a second.
    assert run.steps - steps <= 50 * (time.monotonic() - begin + 0.5) + 2
    assert client.run("pace", steps_per_second=None)["pace"] is None
    steps = run.steps
    wait_for(lambda: run.steps > steps + 500)
    client.run("pace", steps_per_second=0.1)
    begin = time.monotonic()
    client.run("pause")
    client.run("reset")
    assert time.monotonic() - begin < 5 and client.json("state")["pace"] == 0.1


def test_reset_returns_every_bit_and_the_same_run_follows(client):
    session = client.session
    model, before = session.model, contents(session.model)
    client.run("step", steps=30)
    first = contents(model)
    client.edit("cut-neuron", layer=0, neuron=1)
    client.edit("widen", layer=1, n=2)
    client.edit("set-dropout", layer=0, value=0.5)
    client.edit("freeze", layer=1, value=True)
    client.run("play")
    state = client.run("reset")
    assert session.model is model and contents(model) == before
    assert (state["step"], state["epoch"], state["undo"], state["redo"]) == (0, 0, None, None)
    assert state["status"] == "idle" and state["layers"][0]["dropout"] == 0 and client.json("curve")["step"] == []
    client.run("step", steps=30)
    assert contents(model) == first


@pytest.mark.parametrize("status", ["idle", "paused", "running"])
def test_options_change_while_it_runs(client, status):
    run, history = client.session.run, lambda: client.session.model.history
    if status != "idle":
        client.run("play")
        wait_for(lambda: run.steps > 10)
    if status == "paused":
        client.run("pause")
    new = {"learning_rate": 0.125, "batch_size": 16, "optimizer": "sgd", "momentum": 0.5, "weight_decay": 0.01}
    assert client.post("options", **new)["options"] == new
    begin = run.steps
    client.run("play")
    wait_for(lambda: run.steps > begin + 50)
    client.run("pause")
    assert set(history().batch_size[-5:]) <= {16, 240 % 16} and history().learning_rate[-1] == 0.125
    assert "adam_m" not in client.session.model.graph.storage.state
    assert client.run("reset")["options"] == new


def test_a_run_goes_on_when_the_history_of_a_fit_is_full(monkeypatch):
    monkeypatch.setattr(runs, "MOST_STEPS", 20)
    with client_of(image_session()) as client:
        client.run("play")
        wait_for(lambda: client.session.run.steps > 100)
        assert len(client.session.model.history.batch_loss) < 60
        assert client.run("pause")["step"] == client.session.run.curve.steps


def test_a_schedule_prunes_while_it_trains(client):
    run = client.session.run
    state = client.run("play", sparsify={"method": "gradual", "sparsity": 0.8}, epochs=6)
    wait_for(lambda: client.json("state")["status"] == "idle")
    state = client.json("state")
    assert state["epoch"] == 6 and state["sparsity"] == pytest.approx(0.8, abs=0.03) and run.failure is None
    assert state["undo"] == "gradual pruning to 80 % in 6 epochs" == state["last_edit"]["what"]
    edges, edit = state["n_edges"], state["last_edit"]
    assert edit["before"]["n_edges"] > edges == edit["after"]["n_edges"]
    assert edit["after"]["accuracy"] == state["test_accuracy"]
    state = client.edit("undo")
    assert state["n_edges"] == edit["before"]["n_edges"] and "what was learnt since stays" in state["last_edit"]["what"]
    assert client.edit("redo")["n_edges"] == edges


def test_a_schedule_says_its_epoch(client):
    client.run("pace", steps_per_second=40)
    client.run("play", sparsify={"method": "SET", "sparsity": 0.5}, epochs=50)
    wait_for(lambda: client.json("state")["schedule"]["epoch"] == 2)
    client.run("pause")
    state = client.json("state")["schedule"]
    assert state["of"] == 50 and state["what"].startswith("SET to 50 %")
    client.run("reset")
    assert client.json("state")["schedule"] is None


@pytest.mark.parametrize("change", ["reset", "other data"])
def test_back_returns_the_network_its_data_and_its_curve(client, change):
    session = client.session
    model, data = session.model, session.data
    client.run("step", steps=20)
    session.run.wait_until_paused()
    before, state = contents(model), client.json("state")
    client.run("reset") if change == "reset" else client.post("new", data="circle")
    after = contents(session.model)
    assert after != before and client.json("state")["previous"] == f"{data.name}, step 20"
    state = client.run("back")
    assert state["step"] == 20 and contents(session.model) == before and session.model is model
    assert session.data is data and len(session.run.curve.columns(0, 20, 30)["step"]) == 20
    client.run("back")  # and there again
    assert contents(session.model) == after
    client.run("step", steps=2)
    wait_for(lambda: session.run.steps == 2)


def test_there_is_nothing_before_the_first_network(client):
    assert "no network before" in client.refused("run", do="back")


def test_many_epochs_at_once(client):
    client.run("epoch", epochs=3)
    wait_for(lambda: client.json("state")["epoch"] == 3 and client.session.run.status == "paused")
    assert "epochs" in client.refused("run", do="epoch", epochs=0)


@pytest.mark.parametrize("until", [0.2, 0.9])
def test_options_of_a_schedule(client, until):
    client.run("play", sparsify={"method": "gradual", "sparsity": 0.8, "until": until, "by": "random"}, epochs=10)
    wait_for(lambda: client.json("state")["status"] == "idle")
    edges = client.session.model.history.epoch_edges
    assert np.flatnonzero(edges == edges[-1])[0] == round(10 * until) - 1  # the first epoch with the last edges


@pytest.mark.parametrize(
    ("sparsify", "text"),
    [
        ({"method": "SET", "sparsity": 0.5, "by": "path"}, "SET has no 'by'; it has until, fraction"),
        ({"method": "gradual", "sparsity": 0.5, "fraction": 0.1}, "gradual has no 'fraction'"),
        ({"method": "gradual", "sparsity": 0.5, "by": "luck"}, "luck"),
        ({"method": "RigL", "sparsity": 0.5, "fraction": 2}, "fraction"),
        ({"method": "RigL", "sparsity": 0.5, "until": "late"}, "until"),
        ({"method": "RigL", "sparsity": 1.5}, "sparsity"),
        ({"method": "RigL"}, "expected method and sparsity"),
    ],
    ids=str,
)
def test_a_schedule_that_cannot_be_changes_nothing(client, sparsify, text):
    before = client.session.run
    assert text in client.refused("run", do="play", sparsify=sparsify)
    assert client.session.run is before and client.session.run.steps == 0


def test_a_run_that_overflows_names_the_neuron_and_recovers():
    with client_of(overflowing_session()) as client:
        run = client.session.run
        client.run("play")
        wait_for(lambda: run.status == "failed")
        state = client.json("state")
        assert state["failure"]["node"] >= 0 and state["failure"]["sweep"] and not run.is_alive
        assert np.isfinite(client.session.model.graph.get_parameters()).all()
        edges = state["n_edges"]
        assert client.run("play", on_nonfinite="disconnect")["failure"] is None
        wait_for(lambda: client.json("state")["n_edges"] < edges)
        cut_at = run.steps
        wait_for(lambda: run.steps > cut_at + 200)
        state = client.run("pause")
        assert state["status"] == "paused" and state["failure"] is None
        graph = client.session.model.graph
        assert len(state["disconnected"]) == len(run.disconnected) > 0 and state["skipped"] == 0
        assert not any(graph[node].alive for node in run.disconnected)
        assert "run" in client.json("state")["undo"]
        client.run("reset")
        client.run("play", on_nonfinite="skip")
        wait_for(lambda: client.session.run.steps > 200)
        state = client.run("pause")
        assert state["status"] == "paused" and state["failure"] is None and state["n_edges"] == edges


def test_closing_ends_the_thread_and_keeps_what_was_learnt():
    session = image_session()
    client, other = Client(session), Client(session)
    before = contents(session.model)
    client.run("play")
    wait_for(lambda: session.run.epochs > 1)
    client.client.close()
    steps = session.run.steps
    wait_for(lambda: session.run.steps > steps)  # a window that closes ends nothing
    session.close()
    assert not studio_threads() and not session.model.graph.is_training
    learnt = contents(session.model)
    assert learnt != before
    assert "closed" in other.refused("run", do="play") and "closed" in other.refused("new", data="xor")
    session.close()
    assert contents(session.model) == learnt and not studio_threads()
