"""The protocol of the studio: who may use it, what it answers, and that no request breaks it."""

import io
import json
import math
import random

import numpy as np
import pytest
from studios import (
    SESSIONS,
    TOKEN,
    client_of,
    contents,
    error_of,
    image_session,
    neurons_of,
    overflowing_session,
    strict,
    wait_for,
)

import mlgraph
from mlgraph.studio.edits import EDITS

server = pytest.importorskip("mlgraph.studio.server")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of prune and of runs that diverge

GETS = [
    ("state", {}),
    ("curve", {"from": 0, "to": -1, "pixels": 50}),
    ("network", {}),
    ("examples", {"first": 2, "count": 5}),
    ("examples", {"wrong": 1}),
]


@pytest.fixture(params=SESSIONS)
def client(request):
    with client_of(SESSIONS[request.param]()) as client:
        client.name = request.param
        yield client


@pytest.fixture
def image():
    with client_of(image_session()) as client:
        yield client


# --- who may use it -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/state", "/api/file/model.npz"])
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", "\u00e9", "\ud800"])
def test_every_address_with_a_secret_needs_the_token(image, path, token):
    query = {} if token is None else {"token": token.encode("utf-8", "surrogatepass")}
    answer = image.client.get(path, params=query)
    assert answer.status_code == 403 and "the address that the studio printed" in error_of(answer)
    assert image.request("GET", path).status_code == 200


def test_changes_need_the_token_and_change_nothing_without(image):
    before = contents(image.session.model)
    for path in ("run", "options", "edit", "new", "upload", "example"):
        answer = image.client.post(f"/api/{path}", json={"edit": "cut-neuron", "layer": 0, "neuron": 0, "do": "play"})
        assert answer.status_code == 403 and error_of(answer)
    assert contents(image.session.model) == before and image.session.run.status == "idle"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "testserver:8000"}, 200),
        ({"host": "TestServer"}, 200),
        ({"host": "192.0.2.1:8000"}, 200),
        ({"host": "[2001:db8::1]:8000", "origin": "http://[2001:db8::1]:8000"}, 200),
        ({"host": "192.0.2.1", "origin": "http://evil.example"}, 403),
        ({"host": "192.0.2.1.evil.example"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "testserver.evil.example"}, 403),
        ({"host": "[::1"}, 403),
        ({"host": ""}, 403),
        ({"origin": "http://testserver"}, 200),
        ({"origin": "https://testserver"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "testserver:8000", "origin": "http://testserver:9000"}, 403),
    ],
)
def test_host_and_origin(image, headers, status):
    for path in ("/", "/api/state", "/page/app.js"):
        answer = image.request("GET", path, headers=headers)
        assert answer.status_code == status
        assert status == 200 or error_of(answer)
        answer = image.request("GET", path, headers={**headers, "accept": "text/html,*/*"})  # which a browser shows
        assert answer.status_code == status
        assert status == 200 or ("{" not in answer.text and answer.headers["content-type"].startswith("text/plain"))


def test_the_page_needs_nothing_from_elsewhere(image):
    answer = image.client.get("/page/app.js")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    assert "default-src 'self'" in image.request("GET", "/").headers["content-security-policy"]
    for name in ("nothing.js", "..%2Fserver.py", "%2e%2e", "index.html%00", "a" * 300 + ".js"):
        assert error_of(image.client.get(f"/page/{name}"))


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST", "OPTIONS"])
def test_other_methods_and_addresses_are_refused(image, method):
    for path in ("/api/state", "/", "/api/nothing", "/nothing", "/api/file/secrets"):
        answer = image.request(method, path)
        assert answer.status_code in (404, 405) and error_of(answer)


def test_bodies_are_bounded(image, monkeypatch):
    monkeypatch.setattr(server, "MOST_JSON", 100)
    monkeypatch.setattr(server, "MOST_BYTES", 1000)
    for path, n in (("run", 101), ("options", 101), ("edit", 101), ("new", 101), ("example", 101), ("upload", 1001)):
        answer = image.request("POST", f"/api/{path}", content=b" " * n)
        assert answer.status_code == 413 and "larger than" in error_of(answer)


# --- what it answers ------------------------------------------------------------------------------


def test_every_address_answers_in_strict_json(client):
    model, data = client.session.model, client.session.data
    client.run("step", steps=5)
    state = client.json("state")
    assert state["step"] == 5 and state["n_edges"] == model.n_edges and state["status"] == "paused"
    assert {"epoch", "loss", "accuracy", "layers", "version", "options", "undo", "redo"} <= set(state)
    assert len(state["layers"]) == len(model.layers)
    for path, query in GETS:
        assert client.json(path, **query)
    for node in range(len(model.graph)):
        answer = client.request("GET", "/api/neuron", params={"node": node})
        assert answer.status_code == 200, (model.graph[node], answer.text)
        assert strict(answer.content)["node"] == node
    found = client.json("network")
    assert sorted(map(int, found["neurons"])) == sorted(i for column in found["columns"] for i in column)
    for i, layer in enumerate(model.layers):
        header, _, content = client.get("weights", layer=i).content.partition(b"\n")
        header = strict(header)
        assert len(content) == header["neurons"] * header["sources"] == layer.weights.size
        small = np.frombuffer(content, np.int8).reshape(layer.weights.shape)
        weights = small * np.array(header["scales"])[:, None] / 127
        np.testing.assert_allclose(weights, layer.weights, atol=np.abs(layer.weights).max() / 200)
        assert client.json("neuron", layer=i, neuron=0)["node"] == layer[0].id
    for given in ({"index": 3}, {"x": [0] * data.x.shape[1]}):
        example = client.post("example", **given)
        assert len(example["values"]) > 0 and example["answer"] is not None
        assert ("scaled" in example) == isinstance(model.scaling, tuple)
        if "scaled" in example:
            scaled = (np.array(example["x"]) - model.scaling.mean) / model.scaling.std
            np.testing.assert_allclose(example["scaled"], scaled, rtol=1e-5)
    if data.classes:
        assert client.post("example", index=0, label=data.classes[0])["adjoints"]
    live = next(n for n in neurons_of(model) if n.alive and n not in model.outputs)
    patched = client.post("example", index=0, patch={live.id: 2.5})
    assert patched["values"][str(live.id)] == 2.5 and model.trace(data.test_x[:1], None, [live]).values[0, 0] != 2.5
    if data.is_plane:
        ids = ",".join(str(n.id) for n in neurons_of(model))
        header, _, content = client.get("plane", nodes=ids, side=8).content.partition(b"\n")
        assert len(content) == 64 * len(strict(header)["nodes"])
        assert len(client.json("points")["train"]["x"]) == len(data.x)
    else:
        assert client.request("GET", "/api/points").status_code == 422
    assert client.post("options", learning_rate=0.01, batch_size=7)["options"]["batch_size"] == 7
    assert b"void network" in client.get("file/model.c").content
    assert b"<svg" in client.get("file/network.svg").content


def test_the_file_is_the_model(client, tmp_path):
    (tmp_path / "model.npz").write_bytes(client.get("file/model.npz").content)
    assert contents(mlgraph.load(tmp_path / "model.npz")) == contents(client.session.model)


def test_a_network_that_overflows_is_shown_in_strict_json():
    with client_of(overflowing_session()) as client:
        client.run("play")
        wait_for(lambda: client.session.run.status == "failed")
        failure = client.json("state")["failure"]
        assert failure["node"] >= 0 and "\n" not in failure["text"]
        client.session.model.graph.set_parameters(np.full_like(client.session.model.graph.get_parameters(), 3e30))
        for path, query in GETS[:4]:
            assert client.json(path, **query)
        for node in range(len(client.session.model.graph)):
            assert client.json("neuron", node=node)
        assert client.post("example", index=0)
        assert client.get("plane", nodes="5,6", side=8)
        assert client.json("network")["neurons"][str(failure["node"])]["status"] == "nan"


def test_commands_about_nodes_that_may_be_others_by_now_are_refused(image):
    def replaced(change):
        shown = [
            image.json("network"),
            image.json("neuron", layer=0, neuron=2),
            image.json("examples"),
            image.json("state"),
        ]
        numbering = shown[0]["numbering"]
        assert {one["numbering"] for one in shown} == {numbering}
        node, output = shown[1]["node"], shown[0]["outputs"][0]
        image.edit("set-bias", node=node, value=0.5, numbering=numbering)  # an edit keeps ids
        change()
        before = contents(image.session.model)
        for given in (
            {"edit": "cut-neuron", "node": node},
            {"edit": "cut-edge", "source": node, "target": output},
            {"edit": "add-edge", "source": 0, "target": output, "weight": 0.1},
            {"edit": "freeze", "layer": 0, "value": True},
        ):
            assert "look again" in image.refused("edit", 409, **given, numbering=numbering)
        assert image.refused("example", 409, index=0, patch={str(node): 1}, numbering=numbering)
        for path, query in (("neuron", {"node": node}), ("weights", {"layer": 0}), ("plane", {"nodes": node})):
            answer = image.request("GET", f"/api/{path}", params={**query, "numbering": numbering})
            assert answer.status_code == 409 and error_of(answer)
        assert contents(image.session.model) == before
        assert image.json("state")["numbering"] > numbering

    def take_back_new_nodes():
        image.edit("widen", layer=0, n=2)
        image.edit("undo")

    replaced(take_back_new_nodes)  # their ids will be those of the next new nodes
    replaced(lambda: image.run("reset"))
    replaced(lambda: image.run("back"))
    replaced(lambda: image.post("new", data="keep", hidden=[5]))


def test_a_neuron_is_cut_once(image):
    image.edit("cut-neuron", layer=0, neuron=2)
    state = image.json("state")
    assert "<layer 0 neuron 2> is cut already" in image.refused("edit", edit="cut-neuron", layer=0, neuron=2)
    assert image.json("state")["last_edit"] == state["last_edit"]


def test_new_data_and_uploads_begin_again(image):
    version = image.json("state")["version"]
    for name in ("circle", "xor", "spiral", "two groups"):
        state = image.post("new", data=name, seed=1)
        assert state["data"]["plane"] and state["step"] == 0 and state["version"] > version
        version = state["version"]
    assert image.post("new", data="keep", hidden=[3, 4], activation="relu")["layers"][1]["size"] == 4
    points = [[0.5 * (-1) ** i, i / 10, i % 2] for i in range(20)]
    assert image.post("new", points=points)["data"]["name"] == "my points"
    table = b"a,b,kind\n" + b"".join(b"%d,%d,%s\n" % (i, i * i, [b"x", b"y"][i % 2]) for i in range(20))
    answer = image.request("POST", "/api/upload", params={"name": "t.csv", "target": "kind"}, content=table)
    assert answer.status_code == 200 and answer.json()["data"]["classes"] == ["x", "y"]
    file = io.BytesIO()
    np.savez(file, x=np.eye(10, dtype=np.float32), y=np.arange(10) % 2)
    answer = image.request("POST", "/api/upload", params={"name": "t.npz"}, content=file.getvalue())
    assert answer.status_code == 200 and answer.json()["data"]["n_train"] == 8


# --- nothing breaks it ----------------------------------------------------------------------------

NUMBERS = [0, 1, -1, 2, 7, 0.5, -0.0, 1.0, 1e-320, 1e308, -1e39, 2**31, 2**53, 2**63, -(2**64), 10**400]
WORDS = [
    "",
    "tanh",
    "relu",
    "path",
    "random",
    "saliency",
    "softmax",
    "gradual",
    "SET",
    "adam",
    "sgd",
    "0",
    "1",
    "\u00b2",
]
WORDS += ["\u0000", "\ud800", "\u2028\n\r", "\U0001f600" * 30, "a" * 3000, "__class__", "../../etc/passwd", "NaN"]
FIELDS = {
    "run": ["do", "sparsify", "epochs", "on_nonfinite", "steps", "steps_per_second", "method", "sparsity"],
    "options": ["learning_rate", "batch_size", "optimizer", "momentum", "weight_decay"],
    "new": ["data", "points", "hidden", "activation", "seed"],
    "example": ["index", "x", "label", "patch", "numbering"],
    "edit": sorted(
        {
            "node",
            "layer",
            "neuron",
            "numbering",
            *(f for kind in EDITS.values() for f in (kind.needs + " " + kind.takes).split()),
        }
    ),
}
COMMANDS = ["play", "pause", "step", "epoch", "reset", "pace"]


def anything(rng, depth=0):
    """A value of JSON, of any type."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice(WORDS)
    if kind == 5:
        return rng.choice([None, True, False, math.nan, math.inf, -math.inf])
    if kind == 6:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return rng.choice([{"layer": anything(rng, 3), "neuron": anything(rng, 3)}, {"input": anything(rng, 3)}])
    return {rng.choice(WORDS): anything(rng, depth + 1) for _ in range(rng.randrange(3))}


def body_of(rng, path, session):
    """A body that is right in most of its keys, and in some of its values."""
    given = {name: anything(rng) for name in rng.sample(FIELDS[path], rng.randrange(min(4, len(FIELDS[path])) + 1))}
    node = lambda: rng.choice([rng.randrange(len(session.model.graph)), {"layer": 0, "neuron": 1}, {"input": 0}])  # noqa: E731
    if path == "edit":
        name = rng.choice([*EDITS, "nothing"])
        kind = EDITS.get(name)
        if kind and rng.random() < 0.8:
            given = {f: anything(rng) for f in kind.needs.split() + kind.takes.split() if rng.random() < 0.9}
            for f in set(given) & {"node", "source", "target", "layer"}:
                if rng.random() < 0.8:
                    given[f] = node() if f != "layer" else 0
        given["edit"] = name
    elif path == "run":
        given["do"] = rng.choice(COMMANDS)
        if rng.random() < 0.3:
            given["sparsify"] = {"method": rng.choice(["gradual", "SET", "RigL", 3]), "sparsity": anything(rng)}
        if given["do"] == "step":
            given["steps"] = anything(rng)
    elif path == "new":
        given.setdefault("data", rng.choice(["circle", "keep", "xor", "mnist0"]))
        if rng.random() < 0.5:
            given["hidden"] = [
                rng.choice([1, 3, 8, 0, -1, 2.0, 10**9, "3", None, [1]]) for _ in range(rng.randrange(4))
            ]
        if rng.random() < 0.3:
            given["points"] = [[anything(rng, 3), anything(rng, 3), rng.choice([0, 1, 0.0, True])] for _ in range(3)]
    elif path == "example":
        width = session.data.x.shape[1]
        given["index"] = rng.choice([0, anything(rng)])
        if rng.random() < 0.5:
            del given["index"]
            given["x"] = [rng.choice([0, 1, 255, 1e38, anything(rng, 3)]) for _ in range(width)]
        if rng.random() < 0.5:
            given["patch"] = {str(anything(rng, 3) if rng.random() < 0.5 else node()): anything(rng, 3)}
        if rng.random() < 0.3 and session.data.classes:
            given["label"] = session.data.classes[0]
    if rng.random() < 0.1:
        given[rng.choice(WORDS)] = anything(rng)
    return given


def bytes_of(rng, given):
    text = json.dumps(given)
    kind = rng.randrange(30)
    if kind == 0:
        return ("[" * rng.choice([10, 1000, 100_000]) + text).encode()
    if kind == 1:
        return text.encode()[: rng.randrange(len(text))]
    if kind == 2:
        return rng.randbytes(rng.randrange(60))
    if kind == 3:
        return ('{"do":' * 50_000).encode()
    if kind == 4:
        return text.replace("0", "9" * 5000, 1).encode()
    return text.encode("utf-16" if kind == 5 else "utf-8", "surrogatepass")


def check(session, answer, before, sent):
    """A clear answer; after a refusal the network is as before."""
    assert answer.status_code < 500, (answer.status_code, sent)
    if answer.status_code >= 400:
        assert error_of(answer)
        assert contents(session.model) == before, sent
    elif answer.headers["content-type"] == "application/json":
        strict(answer.content)


def one_request(rng, client):
    """One request of a fuzz."""
    session = client.session
    before = contents(session.model)
    if rng.random() < 0.35:
        path = rng.choice(
            ["state", "curve", "network", "weights", "neuron", "examples", "plane", "points", "file/model.c"]
        )
        names = ["from", "to", "pixels", "layer", "neuron", "node", "first", "count", "wrong", "nodes", "side"]
        query = {n: str(rng.choice([*NUMBERS, *WORDS, *range(30), "1,2,3"])) for n in rng.sample(names, 4)}
        query = {n: value.encode("utf-8", "surrogatepass") for n, value in query.items()}
        check(session, client.request("GET", f"/api/{path}", params=query), before, (path, query))
        return
    path = rng.choice(["edit"] * 6 + ["example"] * 3 + ["run", "options", "new"])
    sent = bytes_of(rng, body_of(rng, path, session))
    answer = client.request("POST", f"/api/{path}", content=sent)
    session.run.pause()
    session.run.wait_until_paused()
    check(
        session,
        answer,
        before if path in ("edit", "new", "example", "options") else contents(session.model),
        (path, sent),
    )


@pytest.mark.parametrize("seed", range(3))
def test_any_request_is_answered_clearly_and_a_refused_one_changes_nothing(client, seed):
    rng = random.Random(f"{client.name} {seed}")
    for _ in range(120):
        if client.session.model.n_parameters > 20_000:
            client.session.replace(*(lambda s: (s.model, s.data))(SESSIONS[client.name]()))
        one_request(rng, client)


@pytest.mark.parametrize("name", ["t.csv", "t.npz"])
def test_any_file_is_answered_clearly(image, name):
    rng = random.Random(name)
    before = contents(image.session.model)
    file = io.BytesIO()
    np.savez(file, x=np.eye(10, dtype=np.float32), y=np.arange(10) % 2)
    pickled = io.BytesIO()
    np.savez(pickled, x=np.array([{}, {}, {}, {}]), y=np.arange(4))
    good = file.getvalue() if name == "t.npz" else b"a;b;c\n" + b"1;2;3\n4;5;6\n" * 10
    given = [
        b"",
        b"\0" * 50,
        b'"' + b"a" * 200_000,
        b"a,b\n1,2\n",
        b"a,b\nnan,1\n2,3\n1,1",
        b"a,a\n1,2\n2,1",
        pickled.getvalue(),
    ]
    for _ in range(60):
        damaged = bytearray(good)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        given.append(bytes(damaged[: rng.randrange(len(damaged))]) if rng.random() < 0.3 else bytes(damaged))
    for content in given:
        answer = image.request(
            "POST", "/api/upload", params={"name": name, "target": rng.choice(["b", "?"])}, content=content
        )
        assert answer.status_code < 500, content
        if answer.status_code >= 400:
            assert error_of(answer) and contents(image.session.model) == before
        before = contents(image.session.model)
