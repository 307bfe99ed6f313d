"""A session that is saved goes on where it was."""

import io
import json
import zipfile

import numpy as np
import pytest
from studios import SESSIONS, client_of, contents, error_of, image_session, overflowing_session, plane_session, wait_for

import mlgraph
from mlgraph.studio import build, data as sources, session_file, take_away
from mlgraph.studio.session import Session, json_ready


def trained(session):
    """A session that has trained, been edited and trained on."""
    session.run.change(learning_rate=0.01, batch_size=16)
    session.run.play(steps=30)
    assert session.run.wait_until_paused()
    session.run.end()
    session.run.play(epochs=2)
    assert session.run.wait_until_paused()
    session.run.set_pace(500.0)
    session.model.prune(0.3)
    return session


def shown(state):
    """What the page shows of a state, less what belongs to one moment."""
    passing = {
        "version",
        "numbering",
        "edits",
        "status",
        "undo",
        "redo",
        "last_edit",
        "loss",
        "accuracy",
        "epoch_seconds",
        "previous",
    }
    return {name: value for name, value in state.items() if name not in passing}


@pytest.fixture(params=SESSIONS)
def saved(request):
    """A session, its state as pages see it, and its file."""
    session = trained(SESSIONS[request.param]())
    with client_of(session) as client:
        yield session, client.json("state"), client.get("file/session.npz").content


def upload(client, content, name="session.npz"):
    return client.request("POST", "/api/upload", params={"name": name}, content=content)


def test_it_goes_on_in_another_studio(saved):
    session, state, content = saved
    with client_of(plane_session()) as other:
        answer = upload(other, content)
        assert answer.status_code == 200, answer.text
        assert shown(answer.json()) == shown(state)
        assert contents(other.session.model) == contents(session.model)
        for name in session_file.PARTS:
            mine, theirs = getattr(session.data, name), getattr(other.session.data, name)
            assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
        assert session.run.curve.columns(0, 99, 40) == other.session.run.curve.columns(0, 99, 40)
        assert json_ready(session.run.epoch_curve) == other.session.run.epoch_curve
        steps = other.session.run.steps
        other.run("step", steps=3)
        wait_for(lambda: other.session.run.steps == steps + 3)
        other.run("reset")
        assert contents(other.session.model) == contents(session.initial)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", SESSIONS)
def test_steps_after_it_is_opened_equal_those_without_saving(name, optimizer, tmp_path):
    session = SESSIONS[name]()
    session.model.prune(0.2)
    session.run.change(learning_rate=0.01, batch_size=len(session.data.x), optimizer=optimizer)

    def step(one):
        one.run.play(steps=7, fit={"shuffle": False})
        assert one.run.wait_until_paused() and one.run.failure is None
        return contents(one.model), json_ready(one.model.graph.optimizer_state()), one.run.optimizer[1], one.run.loss

    step(session)
    session_file.save(session, tmp_path / "session.npz")
    other = plane_session()
    session_file.resume(session_file.read(tmp_path / "session.npz"), other)
    assert step(other) == step(session)
    assert other.run.optimizer[1] == 14 and other.model.graph.optimizer_state()
    session.close()
    other.close()


def without_optimizer(session, arrays):
    """As older versions wrote it."""
    for found in (session.pop("optimizer"), arrays.pop("first"), arrays.pop("second")):
        assert len(found)


def test_an_older_file_opens_and_begins_with_zeros():
    with client_of(trained(plane_session())) as client:
        content = header_with(client.get("file/session.npz").content, without_optimizer)
        assert upload(client, content).status_code == 200
        assert not client.session.model.graph.optimizer_state()
        client.run("step", steps=3)
        wait_for(lambda: client.session.run.optimizer == ("adam", 3))


def test_a_run_that_failed_leaves_no_optimizer(tmp_path):
    session = overflowing_session()
    session.run.play(steps=1000)
    assert session.run.wait_until_paused() and session.run.failure
    assert session.model.graph.optimizer_state()
    session_file.save(session, tmp_path / "session.npz")
    assert not session_file.read(tmp_path / "session.npz").model.graph.optimizer_state()
    taken = session.run.steps
    session.run.play(steps=1, fit={"on_nonfinite": "skip"})
    assert session.run.wait_until_paused() and session.run.optimizer == ("momentum", session.run.steps - taken)
    session.close()


def test_it_is_a_model_file_too(saved, tmp_path):
    session, _, content = saved
    (tmp_path / "session.npz").write_bytes(content)
    assert contents(mlgraph.load(tmp_path / "session.npz")) == contents(session.model)


def test_data_that_the_studio_has_are_only_named(tmp_path):
    session = plane_session()
    session.replace(session.model, sources.toy("circle"))
    session_file.save(session, tmp_path / "session.npz")
    found = session_file.read(tmp_path / "session.npz").data
    assert found.built_in == "circle" and np.array_equal(found.x, session.data.x)
    with zipfile.ZipFile(tmp_path / "session.npz") as archive:
        assert archive.getinfo("x.npy").file_size < 200
    session.close()


@pytest.mark.parametrize("labels", [("no", "yes"), (3, 7)], ids=str)
def test_labels_and_units_survive(labels, tmp_path):
    rows = "".join(f"{i},{labels[i % 2]}\n" for i in range(40))
    found = sources.from_file(f"a,what\n{rows}".encode(), "t.csv")
    session = Session(build.network(found, [4]), found)
    session_file.save(session, tmp_path / "session.npz")
    session.close()
    opened = session_file.read(tmp_path / "session.npz")
    again = Session(opened.model, opened.data)
    session_file.resume(opened, again)
    assert take_away.network(again).classes == labels and again.data.target == "what"
    again.close()


def header_with(content, change):
    """A session's file with another header."""
    found = dict(np.load(io.BytesIO(content)))
    header = json.loads(found["header"].tobytes())
    change(header["session"], found)
    found["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    made = io.BytesIO()
    np.savez(made, **found)
    return made.getvalue()


DAMAGE = {
    "no data": lambda s, a: s.pop("data"),
    "data of another shape": lambda s, a: s["data"]["parts"]["x"].__setitem__(1, [7, 7]),
    "data of objects": lambda s, a: s["data"]["parts"]["x"].__setitem__(0, "object"),
    "unknown built-in data": lambda s, a: s["data"].__setitem__("built_in", "cifar"),
    "a rate of nothing": lambda s, a: s["options"].__setitem__("learning_rate", -1),
    "no optimizer": lambda s, a: s["options"].pop("optimizer"),
    "a pace of words": lambda s, a: s.__setitem__("pace", "fast"),
    "a curve of three rows": lambda s, a: a.__setitem__("curve", np.zeros(7, np.float32)),
    "a stride of nothing": lambda s, a: s.__setitem__("stride", 0),
    "classes that are too few": lambda s, a: s["data"].__setitem__("classes", ["one"]),
    "an image of another size": lambda s, a: s["data"].__setitem__("image", [3, 3]),
    "no beginning": lambda s, a: a.__setitem__("initial", a["initial"][:100]),
    "tests of words": lambda s, a: s.__setitem__("tests", [{"step": "x", "loss": 1, "accuracy": 1}]),
    "units of labels": lambda s, a: s["data"].__setitem__("units", [[0], [1]]),
    "an unknown optimizer": lambda s, a: s.__setitem__("optimizer", ["rprop", 3]),
    "an optimizer in a list": lambda s, a: s.__setitem__("optimizer", [["adam"], 3]),
    "half an optimizer": lambda s, a: s.__setitem__("optimizer", ["adam"]),
    "steps below 0": lambda s, a: s.__setitem__("optimizer", ["adam", -1]),
    "moments that are too few": lambda s, a: a.__setitem__("first", a["parameters"][1:]),
    "moments that are not numbers": lambda s, a: a.__setitem__("second", a["parameters"] * np.float32("nan")),
    "squares below 0": lambda s, a: a.__setitem__("second", a["parameters"] * 0 - 1),
    "a list": lambda s, a: (s.clear(), s.__setitem__("data", [])),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused_and_changes_nothing(name):
    with client_of(image_session()) as client:
        client.session.run.play(steps=3)
        assert client.session.run.wait_until_paused()
        content = header_with(client.get("file/session.npz").content, DAMAGE[name])
        before, run = contents(client.session.model), client.session.run
        answer = upload(client, content, "mine.npz")
        assert answer.status_code == 422 and error_of(answer).startswith("mine.npz: session: "), answer.text
        assert contents(client.session.model) == before and client.session.run is run


def test_a_cut_off_file_and_a_model_are_refused():
    with client_of(image_session()) as client:
        content = client.get("file/session.npz").content
        for end in (0, 30, len(content) // 2, len(content) - 1):
            assert upload(client, content[:end]).status_code == 422
        text = error_of(upload(client, client.get("file/model.npz").content, "model.npz"))
        assert text == "model.npz: a network without its data; python -m mlgraph.studio model.npz opens it"
